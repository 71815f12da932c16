//! What is agreed with the server before rings run.
//!
//! *Place*: under the client. *Owner*: a thread that ends with the agreement, since the protocol's crate blocks.
//! *Invariants*: rings start when everything else is settled. *On failure*: the connection is hung up and the error
//! says at which step; a server that says nothing is waited for so long and no longer.

use super::error::VhostError;
use super::layout::{Layout, RingPlace};
use ogee_proto::limit::BLOCK_SIZE;
use ogee_proto::unit::ByteLen;
use ogee_runtime::{Readiness, bridge, timeout};
use std::fs::File;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::{fmt, io};
use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Bound on the whole agreement.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// Where the server is told that we see the memory: addresses of rings come in these terms.
const USER: u64 = 0x7000_0000_0000;
const SECTOR_LEN: u64 = 512;

/// Feature bits.
mod feature {
    pub(super) const RO: u64 = 1 << 5;
    pub(super) const FLUSH: u64 = 1 << 9;
    pub(super) const MQ: u64 = 1 << 12;
    pub(super) const INDIRECT: u64 = 1 << 28;
    pub(super) const EVENT_INDEX: u64 = 1 << 29;
    pub(super) const PROTOCOL: u64 = 1 << 30;
    pub(super) const VERSION_1: u64 = 1 << 32;
}

/// Without these nothing goes.
const NEEDED: [(u64, &str); 3] = [
    (feature::VERSION_1, "VIRTIO_F_VERSION_1"),
    (feature::INDIRECT, "VIRTIO_F_INDIRECT_DESC"),
    (feature::PROTOCOL, "VHOST_USER_F_PROTOCOL_FEATURES"),
];

/// How server and driver wake each other, for one ring.
pub(super) struct Events {
    kick: EventFd,
    call: EventFd,
    /// Raised when the server has found the ring broken.
    error: EventFd,
}

/// What came of it.
pub(super) struct Agreed {
    /// While it stands the server serves the rings.
    pub(super) frontend: Frontend,
    /// The same connection, to see its end.
    pub(super) socket: UnixStream,
    pub(super) size: ByteLen,
    pub(super) is_read_only: bool,
    pub(super) has_event_index: bool,
    pub(super) flushes: bool,
}

impl Events {
    pub(super) fn new() -> Result<Self, VhostError> {
        let make = || EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(no_event);
        Ok(Self {
            kick: make()?,
            call: make()?,
            error: make()?,
        })
    }

    fn clones(&self) -> Result<Self, VhostError> {
        let clone = |event: &EventFd| event.try_clone().map_err(no_event);
        Ok(Self {
            kick: clone(&self.kick)?,
            call: clone(&self.call)?,
            error: clone(&self.error)?,
        })
    }

    /// Tells the server of requests.
    pub(super) fn kick(&self) {
        // Full means that it is told already.
        let _ = self.kick.write(1);
    }

    /// What ends a wait: answers, a broken ring, a server that is gone.
    pub(super) fn watch(&self, socket: &UnixStream) -> Result<Readiness, VhostError> {
        let watched = [borrowed(&self.call), borrowed(&self.error), socket.as_fd()];
        Readiness::new(&watched).map_err(no_event)
    }

    /// Waits until there may be answers.
    pub(super) async fn wait(&self, watched: &mut Readiness) -> Result<(), VhostError> {
        let woken = watched.changed().await;
        let bits = woken.map_err(|error| VhostError::Lost(Arc::new(error)))?;
        if bits & 2 != 0 {
            return Err(VhostError::Stopped);
        }
        if bits & 4 != 0 {
            // Nothing that we agreed on comes by itself, so it is the end.
            let gone = io::Error::from(io::ErrorKind::UnexpectedEof);
            return Err(VhostError::Lost(Arc::new(gone)));
        }
        // It does not block; nothing there means that it was taken already.
        let _ = self.call.read();
        Ok(())
    }
}

/// Its type has no safe way to say so.
fn borrowed(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the eventfd has it open at least for as long as it is borrowed.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

fn no_event(error: io::Error) -> VhostError {
    VhostError::Event(Arc::new(error))
}

/// Connects and agrees on everything.
pub(super) async fn agree(
    socket: &Path,
    layout: Layout,
    memory: File,
    events: &[Events],
) -> Result<Agreed, VhostError> {
    let failed = |source: io::Error| VhostError::Connect {
        socket: socket.to_owned(),
        source: Arc::new(source),
    };
    let stream = UnixStream::connect(socket).map_err(failed)?;
    let (ours, kept) = (stream.try_clone(), stream.try_clone());
    let (ours, kept) = (ours.map_err(failed)?, kept.map_err(failed)?);
    let events: Vec<Events> = events
        .iter()
        .map(Events::clones)
        .collect::<Result<_, _>>()?;
    let (sender, mut receiver) = bridge::channel(1);
    let speak = move || {
        let agreed = Talk::new(stream, layout, memory).agree(&events, kept);
        // Nobody waits any more: the connection ends with what was agreed.
        let _ = sender.try_send(agreed);
    };
    let thread = thread::Builder::new().name("vhost-user".to_owned());
    thread.spawn(speak).map_err(failed)?;
    let silent = || {
        // Ends the thread's waiting; an error means that it is down already.
        let _ = ours.shutdown(Shutdown::Both);
        VhostError::Silent {
            socket: socket.to_owned(),
            patience: CONNECT_WAIT,
        }
    };
    match timeout(CONNECT_WAIT, receiver.recv()).await {
        Ok(Some(agreed)) => agreed,
        Ok(None) => Err(failed(io::ErrorKind::BrokenPipe.into())),
        Err(_) => Err(silent()),
    }
}

/// The conversation.
struct Talk {
    frontend: Frontend,
    layout: Layout,
    memory: File,
}

impl Talk {
    fn new(stream: UnixStream, layout: Layout, memory: File) -> Self {
        Self {
            frontend: Frontend::from_stream(stream, layout.queues().into()),
            layout,
            memory,
        }
    }

    fn agree(mut self, events: &[Events], socket: UnixStream) -> Result<Agreed, VhostError> {
        let owned = self.frontend.set_owner();
        step("told of its owner", owned)?;
        let features = self.features()?;
        let size = self.size()?;
        self.share_memory()?;
        for (index, events) in events.iter().enumerate() {
            self.start(index, events)?;
        }
        let has = |bit| features & bit != 0;
        Ok(Agreed {
            frontend: self.frontend,
            socket,
            size,
            is_read_only: has(feature::RO),
            has_event_index: has(feature::EVENT_INDEX),
            flushes: has(feature::FLUSH),
        })
    }

    /// What both sides can.
    fn features(&mut self) -> Result<u64, VhostError> {
        let frontend = &mut self.frontend;
        let offered = step("asked for its features", frontend.get_features())?;
        for (bit, feature) in NEEDED {
            if offered & bit == 0 {
                return Err(VhostError::Feature { feature });
            }
        }
        let protocol = frontend.get_protocol_features();
        let protocol = step("asked for its protocol features", protocol)?;
        if !protocol.contains(VhostUserProtocolFeatures::CONFIG) {
            let feature = "VHOST_USER_PROTOCOL_F_CONFIG";
            return Err(VhostError::Feature { feature });
        }
        let known = VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK;
        let agreed = protocol & known;
        let set = frontend.set_protocol_features(agreed);
        step("told of protocol features", set)?;
        if agreed.contains(VhostUserProtocolFeatures::REPLY_ACK) {
            frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        }
        self.check_queues(offered, agreed)?;
        let optional = feature::RO | feature::FLUSH | feature::EVENT_INDEX | feature::MQ;
        let needed = NEEDED.iter().fold(0, |all, (bit, _)| all | bit);
        let features = offered & (optional | needed);
        let set = self.frontend.set_features(features);
        step("told of features", set)?;
        Ok(features)
    }

    fn check_queues(
        &mut self,
        features: u64,
        protocol: VhostUserProtocolFeatures,
    ) -> Result<(), VhostError> {
        let has_many =
            features & feature::MQ != 0 && protocol.contains(VhostUserProtocolFeatures::MQ);
        let offered = match has_many {
            true => step("asked for its queues", self.frontend.get_queue_num())?,
            false => 1,
        };
        let wanted = usize::from(self.layout.queues());
        match offered >= wanted as u64 {
            true => Ok(()),
            false => Err(VhostError::Queues { offered, wanted }),
        }
    }

    fn size(&mut self) -> Result<ByteLen, VhostError> {
        let (len, none) = (8, VhostUserConfigFlags::empty());
        let config = self.frontend.get_config(0, len, none, &[0; 8]);
        let (_, capacity) = step("asked for its size", config)?;
        let Ok(capacity) = <[u8; 8]>::try_from(capacity.as_slice()) else {
            return Err(VhostError::Protocol("a size that is not of 8 bytes"));
        };
        let size = u64::from_le_bytes(capacity).saturating_mul(SECTOR_LEN);
        let block = BLOCK_SIZE as u64;
        match size >= block {
            true => Ok(ByteLen::new(size - size % block)),
            false => Err(VhostError::Size { size }),
        }
    }

    fn share_memory(&self) -> Result<(), VhostError> {
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: self.layout.len(),
            userspace_addr: USER,
            mmap_offset: 0,
            mmap_handle: self.memory.as_fd().as_raw_fd(),
        };
        let shared = self.frontend.set_mem_table(&[region]);
        step("given memory to map", shared).map(drop)
    }

    fn start(&mut self, index: usize, events: &Events) -> Result<(), VhostError> {
        let RingPlace {
            size,
            table,
            available,
            used,
        } = self.layout.ring(index);
        let config = VringConfigData {
            queue_max_size: size,
            queue_size: size,
            flags: 0,
            desc_table_addr: USER + table,
            used_ring_addr: USER + used,
            avail_ring_addr: USER + available,
            log_addr: None,
        };
        let frontend = &mut self.frontend;
        step("given a ring's size", frontend.set_vring_num(index, size))?;
        step("given a ring's base", frontend.set_vring_base(index, 0))?;
        let placed = frontend.set_vring_addr(index, &config);
        step("given a ring's addresses", placed)?;
        let call = frontend.set_vring_call(index, &events.call);
        step("given a ring's eventfd", call)?;
        let error = frontend.set_vring_err(index, &events.error);
        step("given a ring's error eventfd", error)?;
        let kick = frontend.set_vring_kick(index, &events.kick);
        step("given a ring's kick", kick)?;
        let enabled = frontend.set_vring_enable(index, true);
        step("asked to start a ring", enabled)
    }
}

fn step<T, E: fmt::Display>(doing: &'static str, outcome: Result<T, E>) -> Result<T, VhostError> {
    outcome.map_err(|error| VhostError::Agree {
        doing,
        cause: error.to_string().into(),
    })
}
