//! The NBD server, over the simulated network.
//!
//! *Raw*: the client sends the input as it is, behind as much of a proper beginning as the first byte
//! asks for, and hangs up. The server must end the connection in bounded time.
//!
//! *Requests*: a proper client sends one request after the other, of any kind, flags and range. Each
//! must be answered; what a read returns, and what the disk holds afterwards, is what follows from
//! the answers.

use crate::script::Script;
use ogee_frontend::MemoryDisk;
use ogee_frontend::nbd::{Address, Exports, Server};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::executor::block_on_seeded;
use ogee_runtime::net::{ReadHalf, TcpStream, WriteHalf};
use ogee_runtime::{spawn, timeout};
use std::io;
use std::rc::Rc;
use std::time::Duration;

const SIZE: usize = 64 << 10;
const REQUESTS_MAX: usize = 24;
/// Longer than every patience of the server; the clock is virtual.
const HANG: Duration = Duration::from_secs(300);

const READ: u16 = 0;
const WRITE: u16 = 1;
const TRIM: u16 = 4;
const WRITE_ZEROES: u16 = 6;
const BLOCK_STATUS: u16 = 7;

/// One input.
pub fn run(input: &[u8]) {
    let mut script = Script::new(input);
    let (kind, seed) = (script.byte(), u64::from(script.byte()));
    block_on_seeded(seed, async {
        let work = async {
            let disk = MemoryDisk::new(ByteLen::from_usize(SIZE));
            let exports = Exports::new();
            let added = exports.add("disk", "a disk in memory", Rc::new(disk.clone()));
            added.expect("a free name");
            let address = Address::Tcp(([127, 0, 0, 1], 10_809).into());
            let server = Server::bind(address, exports).await.expect("a free port");
            match kind & 1 {
                0 => raw(kind >> 1, script.rest()).await,
                _ => requests(&disk, kind >> 1, &mut script).await,
            }
            server.stop().await;
        };
        let ended = timeout(HANG, work).await;
        assert!(ended.is_ok(), "the server hangs");
    });
}

async fn connect() -> (ReadHalf, WriteHalf) {
    let stream = TcpStream::connect(([127, 0, 0, 1], 10_809).into()).await;
    stream.expect("the server listens").into_split()
}

async fn raw(beginning: u8, bytes: &[u8]) {
    let (mut read, mut write) = connect().await;
    let answers = spawn(async move {
        let mut waste = vec![0; 4096];
        while let Ok(1..) = read.read(&mut waste).await {}
    });
    let mut all = Vec::new();
    if beginning & 1 != 0 {
        all.extend_from_slice(&[0, 0, 0, 3]);
    }
    if beginning & 2 != 0 {
        all.extend(option(8, &[]));
        all.extend(option(10, &contexts()));
    }
    if beginning & 4 != 0 {
        all.extend(option(7, &[0; 6]));
    }
    all.extend_from_slice(bytes);
    // The server may have had enough before the end.
    drop(write.write_all(&all).await);
    drop(write.shutdown().await);
    let _ = answers.await;
}

fn option(code: u32, data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).expect("short");
    let head = [
        &0x4948_4156_454f_5054_u64.to_be_bytes()[..],
        &code.to_be_bytes(),
    ];
    [&head.concat()[..], &len.to_be_bytes(), data].concat()
}

/// The data of an option that asks for `base:allocation` of the default export.
fn contexts() -> Vec<u8> {
    let query = b"base:allocation";
    let mut data = vec![0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 15];
    data.extend_from_slice(query);
    data
}

async fn requests(disk: &MemoryDisk, how: u8, script: &mut Script<'_>) {
    let mut client = Client::connect(how & 1 != 0).await;
    let mut model = vec![0; SIZE];
    for cookie in 0..REQUESTS_MAX as u64 {
        if script.is_over() {
            break;
        }
        let request = Request::from(script, cookie);
        client.send(&request).await;
        let answer = client.answer(&request).await;
        check(disk, &mut model, &request, &answer);
    }
}

/// What follows from the answer.
fn check(disk: &MemoryDisk, model: &mut [u8], request: &Request, answer: &Answer) {
    let found = disk.image(ByteOffset::ZERO, ByteLen::from_usize(SIZE));
    let range = request.range();
    if answer.errno != 0 {
        assert!(
            found == *model,
            "a refused request did something: {request:?}"
        );
        return;
    }
    let range = range.unwrap_or_else(|| panic!("out of range and not refused: {request:?}"));
    match request.kind {
        READ => assert!(answer.data == model[range], "{request:?}"),
        WRITE => model[range].copy_from_slice(&request.data),
        WRITE_ZEROES => model[range].fill(0),
        TRIM => {
            // Nothing, or zeros, byte by byte.
            for at in range {
                if found[at] == 0 {
                    model[at] = 0;
                }
            }
        }
        BLOCK_STATUS => {
            let said: usize = answer.runs.iter().map(|run| run.0).sum();
            assert!(
                said > 0 && !answer.runs.iter().any(|run| run.0 == 0),
                "{request:?}"
            );
            let mut at = range.start;
            for (len, state) in &answer.runs {
                let end = SIZE.min(at + len);
                let is_zero = found[at..end].iter().all(|byte| *byte == 0);
                assert!(
                    state & 2 == 0 || is_zero,
                    "data is called zeros: {request:?}"
                );
                at = end;
            }
        }
        _ => {}
    }
    assert!(found == *model, "the disk after {request:?}");
}

#[derive(Debug)]
struct Request {
    kind: u16,
    flags: u16,
    cookie: u64,
    at: u64,
    len: u32,
    data: Vec<u8>,
}

impl Request {
    fn from(script: &mut Script<'_>, cookie: u64) -> Self {
        let kind = match script.below(16) {
            // Taking one's leave ends the connection: that is for the raw kind.
            2 => 3,
            kind @ 0..=8 => u16::from(u8::try_from(kind).expect("small")),
            9..=11 => WRITE,
            12 | 13 => READ,
            14 => TRIM,
            _ => WRITE_ZEROES,
        };
        let flags = match script.below(4) {
            0 => script.u16(),
            1 => 1 << script.below(5),
            _ => 0,
        };
        let (at, len) = match script.below(8) {
            0 => (script.u64(), script.u32()),
            1 => ((SIZE - script.below(64)) as u64, u32::from(script.byte())),
            2 => (
                script.place(SIZE) as u64 & !4095,
                4096 * u32::from(script.byte() % 5),
            ),
            _ => (script.place(SIZE) as u64, u32::from(script.u16()) % 9000),
        };
        let (mut len, fill) = (len, script.byte());
        if kind == WRITE {
            len %= 20_000;
        }
        let data = match kind {
            WRITE => (0..len)
                .map(|n| fill.wrapping_add(n.to_le_bytes()[0] % 7))
                .collect(),
            _ => Vec::new(),
        };
        let kind = if kind == 8 { 8 + u16::from(fill) } else { kind };
        Self {
            kind,
            flags,
            cookie,
            at,
            len,
            data,
        }
    }

    /// The bytes spoken of, if they are all there.
    fn range(&self) -> Option<std::ops::Range<usize>> {
        let end = self.at.checked_add(u64::from(self.len))?;
        let is_within = end <= SIZE as u64;
        is_within.then(|| ByteLen::new(self.at).as_usize()..ByteLen::new(end).as_usize())
    }
}

#[derive(Default)]
struct Answer {
    errno: u32,
    data: Vec<u8>,
    /// Length and state.
    runs: Vec<(usize, u32)>,
}

struct Client {
    read: ReadHalf,
    write: WriteHalf,
    is_structured: bool,
}

impl Client {
    async fn connect(is_structured: bool) -> Self {
        let (read, write) = connect().await;
        let mut client = Self {
            read,
            write,
            is_structured,
        };
        client.bytes(18).await.expect("a greeting");
        client.put(&[0, 0, 0, 3]).await;
        if is_structured {
            client.ask(8, &[]).await;
            client.ask(10, &contexts()).await;
        }
        client.ask(7, &[0; 6]).await;
        client
    }

    async fn put(&mut self, bytes: &[u8]) {
        self.write.write_all(bytes).await.expect("the server reads");
    }

    async fn bytes(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.read.read_exact(&mut bytes).await?;
        Ok(bytes)
    }

    async fn ask(&mut self, code: u32, data: &[u8]) {
        self.put(&option(code, data)).await;
        loop {
            let head = self.bytes(20).await.expect("a reply to an option");
            let kind = be32(&head[12..]);
            assert!(kind >> 31 == 0, "option {code} is refused");
            let len = be32(&head[16..]) as usize;
            self.bytes(len).await.expect("its data");
            if kind == 1 {
                return;
            }
        }
    }

    async fn send(&mut self, request: &Request) {
        let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
        bytes.extend_from_slice(&request.flags.to_be_bytes());
        bytes.extend_from_slice(&request.kind.to_be_bytes());
        bytes.extend_from_slice(&request.cookie.to_be_bytes());
        bytes.extend_from_slice(&request.at.to_be_bytes());
        bytes.extend_from_slice(&request.len.to_be_bytes());
        bytes.extend_from_slice(&request.data);
        self.put(&bytes).await;
    }

    async fn answer(&mut self, request: &Request) -> Answer {
        let mut answer = Answer::default();
        if request.kind == READ {
            answer.data = vec![
                0xee;
                if request.range().is_some() {
                    request.len as usize
                } else {
                    0
                }
            ];
        }
        loop {
            let magic = be32(&self.bytes(4).await.expect("an answer"));
            match magic {
                0x6744_6698 => {
                    let head = self.bytes(12).await.expect("a simple reply");
                    answer.errno = be32(&head);
                    assert_eq!(be64(&head[4..]), request.cookie);
                    if request.kind == READ && answer.errno == 0 {
                        assert!(!self.is_structured, "a simple answer to a read");
                        let len = request.len as usize;
                        answer.data = self.bytes(len).await.expect("its data");
                    }
                    return answer;
                }
                0x668e_33ef if self.is_structured => {
                    if self.chunk(request, &mut answer).await {
                        return answer;
                    }
                }
                other => panic!("an answer starts with {other:#x}"),
            }
        }
    }

    /// Takes one chunk; whether it was the last.
    async fn chunk(&mut self, request: &Request, answer: &mut Answer) -> bool {
        let head = self.bytes(16).await.expect("a chunk");
        let (flags, kind) = (be16(&head), be16(&head[2..]));
        assert_eq!(be64(&head[4..]), request.cookie);
        let len = be32(&head[12..]) as usize;
        let payload = self.bytes(len).await.expect("its payload");
        match kind {
            0 => assert!(payload.is_empty()),
            1 | 2 => {
                assert_eq!(request.kind, READ);
                let at = usize::try_from(be64(&payload) - request.at).expect("within the read");
                match kind {
                    1 => answer.data[at..at + len - 8].copy_from_slice(&payload[8..]),
                    _ => answer.data[at..at + be32(&payload[8..]) as usize].fill(0),
                }
            }
            5 => {
                assert_eq!((request.kind, be32(&payload)), (BLOCK_STATUS, 1));
                let runs = payload[4..].chunks_exact(8);
                answer
                    .runs
                    .extend(runs.map(|run| (be32(run) as usize, be32(&run[4..]))));
            }
            error if error >> 15 == 1 => answer.errno = be32(&payload),
            other => panic!("a chunk of type {other}"),
        }
        flags & 1 == 1
    }
}

fn be16(bytes: &[u8]) -> u16 {
    u16::from_be_bytes(bytes[..2].try_into().expect("two bytes"))
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().expect("four bytes"))
}

fn be64(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes[..8].try_into().expect("eight bytes"))
}
