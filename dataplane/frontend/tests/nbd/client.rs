//! A plain NBD client that sends what it is told, right or wrong.

use ogee_runtime::net::{ReadHalf, UnixStream, WriteHalf};
use std::collections::HashMap;
use std::io;
use std::path::Path;

pub const READ: u16 = 0;
pub const WRITE: u16 = 1;
pub const DISC: u16 = 2;
pub const FLUSH: u16 = 3;
pub const TRIM: u16 = 4;
pub const CACHE: u16 = 5;
pub const WRITE_ZEROES: u16 = 6;
pub const BLOCK_STATUS: u16 = 7;

pub const FUA: u16 = 1;
pub const NO_HOLE: u16 = 2;
pub const DF: u16 = 4;
pub const REQ_ONE: u16 = 8;

pub const OPT_LIST: u32 = 3;
pub const OPT_GO: u32 = 7;
pub const OPT_STRUCTURED_REPLY: u32 = 8;
pub const OPT_SET_META_CONTEXT: u32 = 10;

pub const REP_ACK: u32 = 1;
pub const REP_META_CONTEXT: u32 = 4;
pub const REP_ERR_TOO_BIG: u32 = (1 << 31) + 9;

const CHUNK_NONE: u16 = 0;
pub const CHUNK_DATA: u16 = 1;
pub const CHUNK_HOLE: u16 = 2;
pub const CHUNK_STATUS: u16 = 5;

/// A whole reply.
#[derive(Debug)]
pub struct Answer {
    pub cookie: u64,
    pub errno: u32,
    /// Bytes of a simple read.
    pub data: Vec<u8>,
    /// Type and payload of each chunk that is no error.
    pub chunks: Vec<(u16, Vec<u8>)>,
}

impl Answer {
    /// The bytes of a structured read of `len` bytes at `at`.
    pub fn assembled(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0xee; len];
        for (kind, payload) in &self.chunks {
            if *kind == CHUNK_NONE {
                continue;
            }
            let start = usize::try_from(be64(payload) - at).expect("an offset within the read");
            match *kind {
                CHUNK_DATA => {
                    let data = &payload[8..];
                    bytes[start..start + data.len()].copy_from_slice(data);
                }
                CHUNK_HOLE => {
                    let hole = be32(&payload[8..]) as usize;
                    bytes[start..start + hole].fill(0);
                }
                other => panic!("chunk type {other}"),
            }
        }
        bytes
    }
}

pub fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().expect("four bytes"))
}

pub fn be64(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes[..8].try_into().expect("eight bytes"))
}

pub fn counted(text: &str) -> Vec<u8> {
    let len = u32::try_from(text.len()).expect("short");
    [&len.to_be_bytes(), text.as_bytes()].concat()
}

pub fn request(kind: u16, flags: u16, cookie: u64, at: u64, len: u32) -> Vec<u8> {
    let mut raw = 0x2560_9513_u32.to_be_bytes().to_vec();
    raw.extend_from_slice(&flags.to_be_bytes());
    raw.extend_from_slice(&kind.to_be_bytes());
    raw.extend_from_slice(&cookie.to_be_bytes());
    raw.extend_from_slice(&at.to_be_bytes());
    raw.extend_from_slice(&len.to_be_bytes());
    raw
}

pub fn option(code: u32, data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).expect("short");
    [
        &0x4948_4156_454f_5054_u64.to_be_bytes()[..],
        &code.to_be_bytes(),
        &len.to_be_bytes(),
        data,
    ]
    .concat()
}

pub struct Client {
    pub read: ReadHalf,
    pub write: WriteHalf,
    is_structured: bool,
    /// Lengths of reads that are not answered yet.
    reads: HashMap<u64, usize>,
    next_cookie: u64,
}

impl Client {
    /// Connects and exchanges flags.
    pub async fn connect(path: &Path) -> io::Result<Self> {
        let (read, write) = UnixStream::connect(path).await?.into_split();
        let mut client = Self {
            read,
            write,
            is_structured: false,
            reads: HashMap::new(),
            next_cookie: 1,
        };
        let greeting = client.bytes(18).await?;
        assert_eq!(greeting[16..], [0, 3], "fixed newstyle, no zeroes");
        client.write.write_all(&[0, 0, 0, 3]).await?;
        Ok(client)
    }

    /// Connects to the only export, with simple replies.
    pub async fn simple(path: &Path) -> Self {
        let mut client = Self::connect(path).await.expect("a server");
        client.go().await;
        client
    }

    /// Connects to the only export, with structured replies and block status.
    pub async fn structured(path: &Path) -> Self {
        let mut client = Self::connect(path).await.expect("a server");
        let replies = client.option(OPT_STRUCTURED_REPLY, &[]).await;
        assert_eq!(replies, [(REP_ACK, vec![])]);
        let query = [counted(""), vec![0, 0, 0, 1], counted("base:allocation")].concat();
        let replies = client.option(OPT_SET_META_CONTEXT, &query).await;
        assert_eq!(replies[0].0, REP_META_CONTEXT);
        client.is_structured = true;
        client.go().await;
        client
    }

    async fn go(&mut self) {
        let replies = self
            .option(OPT_GO, &[counted(""), vec![0, 0]].concat())
            .await;
        assert_eq!(replies.last(), Some(&(REP_ACK, vec![])), "{replies:?}");
    }

    pub async fn option(&mut self, code: u32, data: &[u8]) -> Vec<(u32, Vec<u8>)> {
        self.write
            .write_all(&option(code, data))
            .await
            .expect("a server");
        let mut replies = Vec::new();
        loop {
            let head = self.bytes(20).await.expect("a reply");
            assert_eq!(be64(&head), 0x0003_e889_0455_65a9);
            assert_eq!(be32(&head[8..]), code);
            let kind = be32(&head[12..]);
            let data = self
                .bytes(be32(&head[16..]) as usize)
                .await
                .expect("its data");
            replies.push((kind, data));
            if kind == REP_ACK || kind >> 31 == 1 {
                return replies;
            }
        }
    }

    /// Sends a request and returns its cookie.
    pub async fn send(&mut self, kind: u16, flags: u16, at: u64, len: u32, data: &[u8]) -> u64 {
        let cookie = self.next_cookie;
        self.next_cookie += 1;
        if kind == READ {
            self.reads.insert(cookie, len as usize);
        }
        let message = [&request(kind, flags, cookie, at, len)[..], data].concat();
        self.write.write_all(&message).await.expect("a server");
        cookie
    }

    /// Reads the next reply.
    pub async fn answer(&mut self) -> Answer {
        self.try_answer().await.expect("a reply")
    }

    pub async fn try_answer(&mut self) -> io::Result<Answer> {
        let mut answer = Answer {
            cookie: 0,
            errno: 0,
            data: Vec::new(),
            chunks: Vec::new(),
        };
        loop {
            match be32(&self.bytes(4).await?) {
                0x6744_6698 => {
                    let head = self.bytes(12).await?;
                    answer.errno = be32(&head);
                    answer.cookie = be64(&head[4..]);
                    let read = self.reads.remove(&answer.cookie);
                    assert!(!(self.is_structured && read.is_some()), "a simple read");
                    if let Some(len) = read.filter(|_| answer.errno == 0) {
                        answer.data = self.bytes(len).await?;
                    }
                    return Ok(answer);
                }
                0x668e_33ef => {
                    assert!(self.is_structured, "structured replies were not negotiated");
                    if self.chunk(&mut answer).await? {
                        self.reads.remove(&answer.cookie);
                        return Ok(answer);
                    }
                }
                magic => panic!("a reply starts with {magic:#x}"),
            }
        }
    }

    /// Reads a chunk; true if it is the last.
    async fn chunk(&mut self, answer: &mut Answer) -> io::Result<bool> {
        let head = self.bytes(16).await?;
        let cookie = be64(&head[4..]);
        assert!(answer.cookie == 0 || answer.cookie == cookie, "interleaved");
        answer.cookie = cookie;
        let kind = u16::from_be_bytes([head[2], head[3]]);
        let payload = self.bytes(be32(&head[12..]) as usize).await?;
        match kind >> 15 {
            1 => answer.errno = be32(&payload),
            _ => answer.chunks.push((kind, payload)),
        }
        Ok(head[1] == 1)
    }

    /// A request and its reply, nothing else being under way.
    pub async fn call(&mut self, kind: u16, flags: u16, at: u64, len: u32, data: &[u8]) -> Answer {
        let cookie = self.send(kind, flags, at, len, data).await;
        let answer = self.answer().await;
        assert_eq!(answer.cookie, cookie);
        answer
    }

    /// Errno of a write.
    pub async fn write(&mut self, at: u64, data: &[u8]) -> u32 {
        let len = u32::try_from(data.len()).expect("below 4 GiB");
        self.call(WRITE, 0, at, len, data).await.errno
    }

    /// Bytes of a read.
    pub async fn read(&mut self, at: u64, len: usize) -> Vec<u8> {
        let count = u32::try_from(len).expect("below 4 GiB");
        let answer = self.call(READ, 0, at, count, &[]).await;
        assert_eq!(answer.errno, 0);
        match self.is_structured {
            true => answer.assembled(at, len),
            false => answer.data,
        }
    }

    /// What else the server sends until it closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match self.read.read(&mut buffer).await {
                Ok(0) => return rest,
                Ok(count) => rest.extend_from_slice(&buffer[..count]),
                // Closed while something we had sent was unread.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return rest,
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub async fn bytes(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.read.read_exact(&mut bytes).await?;
        Ok(bytes)
    }
}
