//! A native NBD client: one connection, many requests under way, simple replies.
//!
//! *Place*: a kind of target. *Owner*: one shard; a reader task ends with the last handle.
//! *Invariants*: fixed newstyle with `NBD_OPT_GO`; what the server says is checked before it is
//! believed; each request under way has a slot, whose number is its cookie; after the connection is
//! made a request allocates nothing here but the memory of what it reads.
//! *On failure*: a connection that breaks the protocol or ends fails every request under way and
//! every later one.

use crate::limit::LANES_MAX;
use bytes::{BufMut, Bytes, BytesMut};
use ogee_proto::limit::BLOCK_SIZE;
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::channel::Mutex;
use ogee_runtime::net::{ReadHalf, TcpStream, UnixStream, WriteHalf};
use ogee_runtime::{Payload, ScopedTask, spawn_scoped, timeout};
use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

const NBD_MAGIC: u64 = 0x4e42_444d_4147_4943;
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
const FLAGS_FIXED_NEWSTYLE_NO_ZEROES: u16 = 3;
const OPTION_GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_ERROR: u32 = 1 << 31;
const INFO_EXPORT: u16 = 0;
const COMMAND_READ: u16 = 0;
const COMMAND_WRITE: u16 = 1;
const COMMAND_FLAG_FUA: u16 = 1;
const EXPORT_FLAG_READ_ONLY: u16 = 1 << 1;
const EXPORT_FLAG_FUA: u16 = 1 << 3;
const REQUEST_LEN: usize = 28;
const REPLY_LEN: usize = 16;
/// Bound on connecting and negotiating.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// Bound on the payload of an option's reply.
const OPTION_REPLY_MAX: usize = 64 << 10;
/// Bytes asked of the socket at a time.
const RECEIVE_STEP: usize = 256 << 10;

/// Where an export is served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NbdAddress {
    /// The server.
    pub server: NbdServer,
    /// The export's name.
    pub export: String,
}

/// Where a server listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NbdServer {
    /// A socket file.
    Unix(PathBuf),
    /// A TCP address.
    Tcp(SocketAddr),
}

/// Why an export could not be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NbdError {
    /// Not a URI that we understand.
    #[error(
        "\"{0}\" is no NBD address: write nbd+unix:///EXPORT?socket=PATH or nbd://IP:PORT/EXPORT"
    )]
    Uri(Box<str>),
    /// Nothing answered.
    #[error("cannot connect to {server}: {source}; is ogee export nbd running there?")]
    Connect {
        /// As given.
        server: Box<str>,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The server does not serve such an export, or in no way that we know.
    #[error("the NBD server refused the export \"{export}\" (reply {reply:#x}): check its name")]
    Refused {
        /// As given.
        export: Box<str>,
        /// Its answer.
        reply: u32,
    },
    /// What came is not the protocol.
    #[error("the NBD server broke the protocol: {0}")]
    Protocol(&'static str),
    /// The connection ended.
    #[error("the connection to the NBD server is lost: {0}")]
    Lost(Arc<io::Error>),
    /// The export cannot be written.
    #[error("the export is read-only: read from it, or export it without --read-only")]
    ReadOnly,
    /// Durable writes were asked of a server that has none.
    #[error("the server does not offer FUA, which --sync dsync needs: leave --sync out")]
    NoFua,
    /// The server failed the request.
    #[error("the NBD server answered with error {0}")]
    Errno(u32),
}

/// A connection to an export. Clones share it.
#[derive(Clone)]
pub struct NbdClient {
    shared: Rc<Shared>,
    _reader: Rc<ScopedTask<()>>,
}

struct Shared {
    size: ByteLen,
    flags: u16,
    is_durable: bool,
    sender: Mutex<WriteHalf>,
    slots: RefCell<Slots>,
}

struct Slots {
    all: Vec<Slot>,
    free: Vec<usize>,
    failure: Option<NbdError>,
}

#[derive(Default)]
struct Slot {
    is_busy: bool,
    /// Bytes that its reply brings.
    len: usize,
    outcome: Option<Result<Bytes, NbdError>>,
    waker: Option<Waker>,
}

struct Export {
    size: ByteLen,
    flags: u16,
}

impl NbdClient {
    /// Connects; with `is_durable` writes go with FUA.
    ///
    /// # Errors
    /// If nobody answers, or not as the protocol says.
    pub async fn connect(address: &NbdAddress, is_durable: bool) -> Result<Self, NbdError> {
        let failed = |source| NbdError::Connect {
            server: address.server.to_string().into(),
            source: Arc::new(source),
        };
        let opening = async {
            let (mut read, mut write) = address.server.connect().await.map_err(failed)?;
            let export = negotiate(&mut read, &mut write, &address.export).await?;
            Ok((read, write, export))
        };
        let opened = timeout(CONNECT_WAIT, opening).await;
        let (read, write, export) =
            opened.unwrap_or_else(|_| Err(failed(io::ErrorKind::TimedOut.into())))?;
        if is_durable && export.flags & EXPORT_FLAG_FUA == 0 {
            return Err(NbdError::NoFua);
        }
        let shared = Rc::new(Shared {
            size: export.size,
            flags: export.flags,
            is_durable,
            sender: Mutex::new(write),
            slots: RefCell::new(Slots::new()),
        });
        let reader = spawn_scoped(receive(Rc::clone(&shared), read));
        Ok(Self {
            shared,
            _reader: Rc::new(reader),
        })
    }

    /// Its size, cut to whole blocks.
    #[must_use]
    pub fn size(&self) -> ByteLen {
        self.shared.size
    }

    pub(crate) async fn read(&self, offset: ByteOffset, len: ByteLen) -> Result<Payload, NbdError> {
        let bytes = self.shared.call(COMMAND_READ, 0, offset, len, &[]).await?;
        Ok(Payload::from(bytes))
    }

    pub(crate) async fn write(&self, offset: ByteOffset, data: &[u8]) -> Result<(), NbdError> {
        if self.shared.flags & EXPORT_FLAG_READ_ONLY != 0 {
            return Err(NbdError::ReadOnly);
        }
        let flags = if self.shared.is_durable {
            COMMAND_FLAG_FUA
        } else {
            0
        };
        let len = ByteLen::from_usize(data.len());
        let call = self.shared.call(COMMAND_WRITE, flags, offset, len, data);
        call.await.map(drop)
    }
}

impl Shared {
    async fn call(
        &self,
        command: u16,
        flags: u16,
        offset: ByteOffset,
        len: ByteLen,
        data: &[u8],
    ) -> Result<Bytes, NbdError> {
        let brings = if command == COMMAND_READ {
            len.as_usize()
        } else {
            0
        };
        let slot = self.slots.borrow_mut().take(brings)?;
        let mut head = [0; REQUEST_LEN];
        let mut fields = &mut head[..];
        fields.put_u32(REQUEST_MAGIC);
        fields.put_u16(flags);
        fields.put_u16(command);
        fields.put_u64(slot as u64);
        fields.put_u64(offset.get());
        let len = u32::try_from(len.get()).expect("invariant: requests are at most 16 MiB");
        fields.put_u32(len);
        let sent = {
            let mut sender = self.sender.lock().await;
            let mut slices = [IoSlice::new(&head), IoSlice::new(data)];
            sender.write_vectored(&mut slices).await
        };
        if let Err(error) = sent {
            // Part of it may be out: nothing that follows would be understood.
            self.slots
                .borrow_mut()
                .fail(&NbdError::Lost(Arc::new(error)));
        }
        poll_fn(|cx| {
            let mut slots = self.slots.borrow_mut();
            let state = &mut slots.all[slot];
            let Some(outcome) = state.outcome.take() else {
                if !state
                    .waker
                    .as_ref()
                    .is_some_and(|waker| waker.will_wake(cx.waker()))
                {
                    state.waker = Some(cx.waker().clone());
                }
                return Poll::Pending;
            };
            (state.is_busy, state.waker) = (false, None);
            slots.free.push(slot);
            Poll::Ready(outcome)
        })
        .await
    }
}

impl Slots {
    fn new() -> Self {
        let mut all = Vec::new();
        all.resize_with(LANES_MAX, Slot::default);
        Self {
            all,
            free: (0..LANES_MAX).rev().collect(),
            failure: None,
        }
    }

    fn take(&mut self, len: usize) -> Result<usize, NbdError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let slot = self.free.pop();
        let slot = slot.expect("invariant: a run has at most as many lanes as there are slots");
        let state = &mut self.all[slot];
        (state.is_busy, state.len) = (true, len);
        Ok(slot)
    }

    /// Fails every request that has no outcome yet, and every later one.
    fn fail(&mut self, failure: &NbdError) {
        let failure = self.failure.get_or_insert_with(|| failure.clone()).clone();
        for state in &mut self.all {
            if state.is_busy && state.outcome.is_none() {
                state.settle(Err(failure.clone()));
            }
        }
    }

    /// The request with this cookie.
    fn under_way(&mut self, cookie: u64) -> Result<&mut Slot, NbdError> {
        let slot = usize::try_from(cookie).ok();
        slot.and_then(|slot| self.all.get_mut(slot))
            .filter(|state| state.is_busy && state.outcome.is_none())
            .ok_or(NbdError::Protocol("a reply to no request"))
    }
}

impl Slot {
    fn settle(&mut self, outcome: Result<Bytes, NbdError>) {
        self.outcome = Some(outcome);
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

/// Takes replies until the connection ends.
async fn receive(shared: Rc<Shared>, mut read: ReadHalf) {
    let mut input = BytesMut::new();
    let failure = loop {
        if let Err(failure) = take_replies(&shared, &mut input) {
            break failure;
        }
        input.reserve(RECEIVE_STEP);
        match read.read_into(&mut input).await {
            Ok(0) => {
                break NbdError::Lost(Arc::new(io::ErrorKind::UnexpectedEof.into()));
            }
            Ok(_) => {}
            Err(error) => break NbdError::Lost(Arc::new(error)),
        }
    };
    shared.slots.borrow_mut().fail(&failure);
}

/// Takes every whole reply out of `input`.
fn take_replies(shared: &Shared, input: &mut BytesMut) -> Result<(), NbdError> {
    let mut slots = shared.slots.borrow_mut();
    while let Some(head) = input.first_chunk::<REPLY_LEN>() {
        let (magic, rest) = head.split_at(4);
        let (errno, cookie) = rest.split_at(4);
        if be32(magic) != SIMPLE_REPLY_MAGIC {
            return Err(NbdError::Protocol("a reply without its magic"));
        }
        let (errno, state) = (be32(errno), slots.under_way(be64(cookie))?);
        let len = if errno == 0 { state.len } else { 0 };
        if input.len() < REPLY_LEN + len {
            break;
        }
        let mut reply = input.split_to(REPLY_LEN + len);
        let outcome = if errno == 0 {
            Ok(reply.split_off(REPLY_LEN).freeze())
        } else {
            Err(NbdError::Errno(errno))
        };
        state.settle(outcome);
    }
    Ok(())
}

async fn negotiate(
    read: &mut ReadHalf,
    write: &mut WriteHalf,
    name: &str,
) -> Result<Export, NbdError> {
    let lost = |error: io::Error| NbdError::Lost(Arc::new(error));
    let mut greeting = [0; 18];
    read.read_exact(&mut greeting).await.map_err(lost)?;
    let [magic, option] = [&greeting[..8], &greeting[8..16]].map(be64);
    let flags = u16::from_be_bytes([greeting[16], greeting[17]]);
    if magic != NBD_MAGIC || option != OPTION_MAGIC {
        return Err(NbdError::Protocol("no newstyle greeting"));
    }
    if flags & FLAGS_FIXED_NEWSTYLE_NO_ZEROES != FLAGS_FIXED_NEWSTYLE_NO_ZEROES {
        return Err(NbdError::Protocol("not fixed newstyle without zeroes"));
    }
    let refused = |reply| NbdError::Refused {
        export: name.into(),
        reply,
    };
    let name_len = u32::try_from(name.len()).map_err(|_| refused(0))?;
    let mut ask = BytesMut::new();
    ask.put_u32(u32::from(FLAGS_FIXED_NEWSTYLE_NO_ZEROES));
    ask.put_u64(OPTION_MAGIC);
    ask.put_u32(OPTION_GO);
    ask.put_u32(4 + name_len + 2);
    ask.put_u32(name_len);
    ask.put_slice(name.as_bytes());
    ask.put_u16(0);
    write.write_all(&ask).await.map_err(lost)?;
    let mut export = None;
    loop {
        let (reply, payload) = option_reply(read).await?;
        match reply {
            REPLY_ACK => return export.ok_or(NbdError::Protocol("no size of the export")),
            REPLY_INFO => export = export_info(&payload).or(export),
            reply if reply & REPLY_ERROR != 0 => return Err(refused(reply)),
            _ => return Err(NbdError::Protocol("an unknown reply to an option")),
        }
    }
}

async fn option_reply(read: &mut ReadHalf) -> Result<(u32, Vec<u8>), NbdError> {
    let lost = |error: io::Error| NbdError::Lost(Arc::new(error));
    let mut head = [0; 20];
    read.read_exact(&mut head).await.map_err(lost)?;
    if be64(&head[..8]) != OPTION_REPLY_MAGIC || be32(&head[8..12]) != OPTION_GO {
        return Err(NbdError::Protocol("no reply to our option"));
    }
    let len = ByteLen::new(u64::from(be32(&head[16..]))).as_usize();
    if len > OPTION_REPLY_MAX {
        return Err(NbdError::Protocol("an option's reply of more than 64 KiB"));
    }
    let mut payload = vec![0; len];
    read.read_exact(&mut payload).await.map_err(lost)?;
    Ok((be32(&head[12..16]), payload))
}

/// Size and flags, if the item of information is about those.
fn export_info(payload: &[u8]) -> Option<Export> {
    let (kind, rest) = payload.split_first_chunk::<2>()?;
    let (size, rest) = rest.split_first_chunk::<8>()?;
    let flags = rest.first_chunk::<2>()?;
    let size = u64::from_be_bytes(*size);
    (u16::from_be_bytes(*kind) == INFO_EXPORT).then(|| Export {
        size: ByteLen::new(size - size % BLOCK_SIZE as u64),
        flags: u16::from_be_bytes(*flags),
    })
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().expect("invariant: four bytes"))
}

fn be64(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().expect("invariant: eight bytes"))
}

impl NbdServer {
    async fn connect(&self) -> io::Result<(ReadHalf, WriteHalf)> {
        Ok(match self {
            Self::Unix(path) => UnixStream::connect(path).await?.into_split(),
            Self::Tcp(address) => TcpStream::connect(*address).await?.into_split(),
        })
    }
}

impl fmt::Display for NbdServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

impl std::str::FromStr for NbdAddress {
    type Err = NbdError;

    fn from_str(text: &str) -> Result<Self, NbdError> {
        let refused = || NbdError::Uri(text.into());
        if let Some(rest) = text.strip_prefix("nbd+unix:///") {
            let (export, query) = rest.split_once('?').ok_or_else(refused)?;
            let path = query
                .strip_prefix("socket=")
                .filter(|path| !path.is_empty());
            return Ok(Self {
                server: NbdServer::Unix(path.ok_or_else(refused)?.into()),
                export: export.to_owned(),
            });
        }
        let rest = text.strip_prefix("nbd://").ok_or_else(refused)?;
        let (address, export) = rest.split_once('/').unwrap_or((rest, ""));
        Ok(Self {
            server: NbdServer::Tcp(address.parse().map_err(|_| refused())?),
            export: export.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_the_usual_uris() {
        let parsed: NbdAddress = "nbd+unix:///vol1?socket=/tmp/s".parse().unwrap();
        assert_eq!(parsed.export, "vol1");
        assert_eq!(parsed.server, NbdServer::Unix("/tmp/s".into()));
        let parsed: NbdAddress = "nbd://127.0.0.1:10809/vol1".parse().unwrap();
        assert_eq!(parsed.server.to_string(), "tcp:127.0.0.1:10809");
        for text in [
            "nbd:x",
            "nbd://host/x",
            "nbd+unix:///v",
            "nbd+unix:///v?socket=",
        ] {
            let error = text.parse::<NbdAddress>().unwrap_err().to_string();
            assert!(error.contains("nbd+unix:///EXPORT?socket=PATH"), "{error}");
        }
    }

    fn replies(input: &[u8], lens: &[usize]) -> (Result<(), NbdError>, Vec<Option<usize>>) {
        ogee_runtime::executor::block_on(async {
            let path = std::env::temp_dir().join(format!("ogee-perf-nbd-{}", lens.len()));
            let _ = std::fs::remove_file(&path);
            let listener = ogee_runtime::net::UnixListener::bind(&path).unwrap();
            let (_read, write) = UnixStream::connect(&path).await.unwrap().into_split();
            drop(listener);
            let shared = Shared {
                size: ByteLen::ZERO,
                flags: 0,
                is_durable: false,
                sender: Mutex::new(write),
                slots: RefCell::new(Slots::new()),
            };
            for len in lens {
                shared.slots.borrow_mut().take(*len).unwrap();
            }
            let outcome = take_replies(&shared, &mut BytesMut::from(input));
            let slots = shared.slots.borrow();
            let brought = (0..lens.len()).map(|slot| {
                let outcome = slots.all[slot].outcome.as_ref();
                outcome.map(|outcome| outcome.as_ref().map_or(usize::MAX, Bytes::len))
            });
            (outcome, brought.collect())
        })
    }

    fn reply(errno: u32, cookie: u64, data: &[u8]) -> Vec<u8> {
        let mut bytes = SIMPLE_REPLY_MAGIC.to_be_bytes().to_vec();
        bytes.extend_from_slice(&errno.to_be_bytes());
        bytes.extend_from_slice(&cookie.to_be_bytes());
        bytes.extend_from_slice(data);
        bytes
    }

    #[test]
    fn replies_come_in_any_order_and_in_parts() {
        let whole = [reply(0, 1, &[]), reply(5, 2, &[]), reply(0, 0, &[7; 4096])].concat();
        let (outcome, brought) = replies(&whole, &[4096, 0, 512]);
        assert!(outcome.is_ok());
        assert_eq!(brought, [Some(4096), Some(0), Some(usize::MAX)]);
        let (outcome, brought) = replies(&whole[..whole.len() - 1], &[4096, 0, 512, 1]);
        assert!(outcome.is_ok());
        assert_eq!(brought, [None, Some(0), Some(usize::MAX), None]);
    }

    #[test]
    fn a_reply_that_nobody_waits_for_ends_the_connection() {
        for bad in [reply(0, 9, &[]), reply(0, u64::MAX, &[]), vec![0; 16]] {
            let (outcome, _) = replies(&bad, &[0, 0]);
            assert!(matches!(outcome, Err(NbdError::Protocol(_))));
        }
        let twice = [reply(0, 0, &[]), reply(0, 0, &[])].concat();
        assert!(replies(&twice, &[0]).0.is_err());
    }
}
