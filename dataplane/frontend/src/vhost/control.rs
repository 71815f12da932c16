//! What the VM's process says about its disk.
//!
//! *Place*: the handler of the `vhost` crate's protocol, on a thread of its own for each connection, since that crate
//! blocks: a VM's process that stalls in the middle of a message stalls only itself. *Owner*: the thread.
//! *Invariants*: nothing of a ring changes while it runs, but its memory and where its interrupts go. A ring runs when
//! it was enabled and has memory, addresses, a size and a kick. Every number is checked before it reaches the shard.
//! *On failure*: an error ends the connection, with a log line; a VM with `reconnect` comes again.

use super::config::{Shape, feature};
use super::fault::RingFault;
use super::inflight::InflightMemory;
use super::memory::{MemoryError, MemoryTable, RegionSpec};
use super::notifier::Notifier;
use super::order::{Envelope, Order, RingStart};
use super::ring::RingAddresses;
use super::signal;
use crate::limit::{MEMORY_REGIONS_MAX, QUEUE_SIZE_MAX};
use ogee_runtime::bridge;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig,
    VhostUserSharedMsg, VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{
    Error as ProtocolError, GpuBackend, Result as ProtocolResult, VhostUserBackendReqHandlerMut,
};

/// Why a message cannot be followed.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("features {asked:#x} that were not offered ({offered:#x})")]
    Features { asked: u64, offered: u64 },
    #[error("queue {index}: the disk has {queues}")]
    Queue { index: u32, queues: u16 },
    #[error("a ring of {size}: a power of two, at most {QUEUE_SIZE_MAX}")]
    Size { size: u32 },
    #[error("a ring that begins at {base}: at most 65535")]
    Base { base: u32 },
    #[error("the {part} of queue {index} at {at:#x} is in no memory region")]
    Address {
        index: u16,
        part: &'static str,
        at: u64,
    },
    #[error("queue {index} is to be logged: migration is not offered")]
    Logged { index: u32 },
    #[error("{len} bytes of the configuration at {offset}")]
    Config { offset: u32, len: u32 },
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Ring(#[from] RingFault),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the disk is closed")]
    Closed,
    #[error("{what} was not offered")]
    NotOffered { what: &'static str },
}

impl From<Refusal> for ProtocolError {
    fn from(refusal: Refusal) -> Self {
        Self::ReqHandlerError(io::Error::other(refusal))
    }
}

/// What was said about a ring.
#[derive(Default)]
struct Said {
    size: Option<u16>,
    addresses: Option<UserAddresses>,
    base: u16,
    /// Whether a kick was given, and which: none means that we look by ourselves.
    kick: Option<Option<File>>,
    call: Option<File>,
    error: Option<File>,
    is_enabled: bool,
    is_running: bool,
}

/// In terms of the VM's process.
#[derive(Clone, Copy)]
struct UserAddresses {
    table: u64,
    available: u64,
    used: u64,
}

/// The state of one connection.
pub(super) struct Control {
    shape: Shape,
    orders: bridge::Sender<Envelope>,
    notifier: Notifier,
    /// The VM was told to look at the size once.
    is_told: bool,
    /// What was agreed on.
    features: u64,
    memory: Option<Arc<MemoryTable>>,
    inflight: Option<InflightMemory>,
    rings: Vec<Said>,
}

impl Control {
    pub(super) fn new(shape: Shape, orders: bridge::Sender<Envelope>, notifier: Notifier) -> Self {
        let rings = (0..shape.queues()).map(|_| Said::default()).collect();
        Self {
            shape,
            orders,
            notifier,
            is_told: false,
            features: 0,
            memory: None,
            inflight: None,
            rings,
        }
    }

    /// The guest's memory, to be dropped where that may take long.
    pub(super) fn memory(&self) -> Option<Arc<MemoryTable>> {
        self.memory.clone()
    }

    /// Has the shard carry out an order.
    fn order(&self, order: Order) -> Result<Option<u16>, Refusal> {
        let (answer, answered) = mpsc::sync_channel(1);
        // There is room: the order before was answered.
        let sent = self.orders.try_send(Envelope { order, answer });
        sent.map_err(|_| Refusal::Closed)?;
        answered.recv().map_err(|_| Refusal::Closed)
    }

    fn ring(&mut self, index: u32) -> Result<(u16, &mut Said), Refusal> {
        let queues = self.shape.queues();
        let narrow = u16::try_from(index).ok();
        let narrow = narrow.ok_or(Refusal::Queue { index, queues })?;
        match self.rings.get_mut(usize::from(narrow)) {
            Some(said) => Ok((narrow, said)),
            None => Err(Refusal::Queue { index, queues }),
        }
    }

    /// Starts a ring if nothing is missing.
    fn start(&mut self, index: u16) -> Result<(), Refusal> {
        let Some(memory) = self.memory.clone() else {
            return Ok(());
        };
        let has_event_index = self.features & feature::EVENT_INDEX != 0;
        let inflight = self.inflight.clone();
        let (_, said) = self.ring(index.into())?;
        let (Some(size), Some(user), Some(kick)) = (said.size, said.addresses, &said.kick) else {
            return Ok(());
        };
        if said.is_running || !said.is_enabled {
            return Ok(());
        }
        // Its memory may come with another message.
        let Ok(addresses) = locate(&memory, index, user) else {
            tracing::debug!(index, "a ring waits for its memory");
            return Ok(());
        };
        let copy = |file: Option<&File>| file.map(File::try_clone).transpose();
        let start = RingStart {
            index,
            size,
            addresses,
            memory,
            next_available: said.base,
            has_event_index,
            kick: copy(kick.as_ref())?,
            call: copy(said.call.as_ref())?,
            error: copy(said.error.as_ref())?,
            inflight: inflight.map(|memory| memory.queue(index)).transpose()?,
        };
        said.is_running = true;
        self.order(Order::Start(Box::new(start)))?;
        if !std::mem::replace(&mut self.is_told, true) {
            // The disk may have grown while nobody could tell the VM. It looks when it has started.
            let _ = self.notifier.config_changed();
        }
        Ok(())
    }

    /// Stops a ring if it runs, and remembers where it stands.
    fn stop(&mut self, index: u16) -> Result<(), Refusal> {
        let (_, said) = self.ring(index.into())?;
        if !said.is_running {
            return Ok(());
        }
        said.is_running = false;
        let base = self.order(Order::Stop { index })?;
        let (_, said) = self.ring(index.into())?;
        // None: it could not be started, and stands where it stood.
        said.base = base.unwrap_or(said.base);
        Ok(())
    }

    /// Stops what runs; where it stands is forgotten.
    fn stop_all(&mut self) -> Result<(), Refusal> {
        self.order(Order::StopAll)?;
        for said in &mut self.rings {
            said.is_running = false;
        }
        Ok(())
    }

    /// Takes a table of memory into use, for the rings that run, too.
    fn remap(&mut self, memory: MemoryTable) -> Result<(), Refusal> {
        let memory = Arc::new(memory);
        self.memory = Some(memory.clone());
        let mut rings = Vec::new();
        for index in 0..self.shape.queues() {
            let (_, said) = self.ring(index.into())?;
            if let (true, Some(user)) = (said.is_running, said.addresses) {
                match locate(&memory, index, user) {
                    Ok(addresses) => rings.push((index, addresses)),
                    // It goes on when its memory comes back, as when a region changes its bounds.
                    Err(_) => self.stop(index)?,
                }
            }
        }
        self.order(Order::Memory { memory, rings })?;
        (0..self.shape.queues()).try_for_each(|index| self.start(index))
    }

    fn reset(&mut self) -> Result<(), Refusal> {
        self.stop_all()?;
        for said in &mut self.rings {
            *said = Said::default();
        }
        // The next start brings one.
        self.inflight = None;
        Ok(())
    }
}

fn locate(memory: &MemoryTable, index: u16, user: UserAddresses) -> Result<RingAddresses, Refusal> {
    let find = |part, at| {
        let found = memory.guest_address(at);
        found.ok_or(Refusal::Address { index, part, at })
    };
    Ok(RingAddresses {
        table: find("table", user.table)?,
        available: find("available part", user.available)?,
        used: find("used part", user.used)?,
    })
}

fn spec(region: &VhostUserMemoryRegion) -> RegionSpec {
    RegionSpec {
        guest: region.guest_phys_addr,
        user: region.user_addr,
        len: region.memory_size,
        file_offset: region.mmap_offset,
    }
}

fn adopted(file: Option<File>) -> Result<Option<File>, Refusal> {
    if let Some(file) = &file {
        signal::adopt(file)?;
    }
    Ok(file)
}

impl VhostUserBackendReqHandlerMut for Control {
    fn set_owner(&mut self) -> ProtocolResult<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> ProtocolResult<()> {
        Ok(self.reset()?)
    }

    fn reset_device(&mut self) -> ProtocolResult<()> {
        Ok(self.reset()?)
    }

    fn get_features(&mut self) -> ProtocolResult<u64> {
        Ok(self.shape.features())
    }

    fn set_features(&mut self, features: u64) -> ProtocolResult<()> {
        let offered = self.shape.features();
        if features & !offered != 0 {
            let asked = features;
            return Err(Refusal::Features { asked, offered }.into());
        }
        self.features = features;
        if features & feature::PROTOCOL == 0 {
            // Without the protocol's own features rings cannot be enabled by name.
            for said in &mut self.rings {
                said.is_enabled = true;
            }
        }
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy: Option<bool>,
    ) -> ProtocolResult<Option<Vec<VhostUserMemoryRegionBase>>> {
        let specs: Vec<_> = regions.iter().map(spec).collect();
        let table = MemoryTable::map(&specs, files).map_err(Refusal::from)?;
        self.remap(table)?;
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> ProtocolResult<()> {
        let size = u16::try_from(num).ok();
        let size = size.filter(|size| size.is_power_of_two() && *size <= QUEUE_SIZE_MAX);
        let size = size.ok_or(Refusal::Size { size: num })?;
        let (index, _) = self.ring(index)?;
        self.stop(index)?;
        self.ring(index.into())?.1.size = Some(size);
        Ok(())
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> ProtocolResult<()> {
        if flags.contains(VhostUserVringAddrFlags::VHOST_VRING_F_LOG) {
            return Err(Refusal::Logged { index }.into());
        }
        let (index, said) = self.ring(index)?;
        let table = descriptor;
        said.addresses = Some(UserAddresses {
            table,
            available,
            used,
        });
        // QEMU tells the addresses of a running ring again when only the logging of it changes.
        let is_running = said.is_running;
        if is_running {
            self.stop(index)?;
            self.start(index)?;
        }
        Ok(())
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> ProtocolResult<()> {
        let base = u16::try_from(base).map_err(|_| Refusal::Base { base })?;
        let (index, _) = self.ring(index)?;
        self.stop(index)?;
        self.ring(index.into())?.1.base = base;
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> ProtocolResult<VhostUserVringState> {
        let (narrow, _) = self.ring(index)?;
        self.stop(narrow)?;
        let (_, said) = self.ring(index)?;
        // It is started again by a new kick.
        said.kick = None;
        Ok(VhostUserVringState::new(index, said.base.into()))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> ProtocolResult<()> {
        let fd = adopted(fd)?;
        let (index, _) = self.ring(index.into())?;
        self.stop(index)?;
        self.ring(index.into())?.1.kick = Some(fd);
        Ok(self.start(index)?)
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> ProtocolResult<()> {
        let call = adopted(fd)?;
        let (index, said) = self.ring(index.into())?;
        let copy = call.as_ref().map(File::try_clone).transpose();
        said.call = copy.map_err(Refusal::from)?;
        if said.is_running {
            self.order(Order::Call { index, call })?;
        }
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, fd: Option<File>) -> ProtocolResult<()> {
        let fd = adopted(fd)?;
        // Used from the next start on: it is given before the kick.
        self.ring(index.into())?.1.error = fd;
        Ok(())
    }

    fn get_protocol_features(&mut self) -> ProtocolResult<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::INFLIGHT_SHMFD
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::BACKEND_REQ
            | VhostUserProtocolFeatures::RESET_DEVICE)
    }

    fn set_protocol_features(&mut self, _features: u64) -> ProtocolResult<()> {
        Ok(())
    }

    fn get_queue_num(&mut self) -> ProtocolResult<u64> {
        Ok(self.shape.queues().into())
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> ProtocolResult<()> {
        let (index, said) = self.ring(index)?;
        said.is_enabled = enable;
        match enable {
            true => self.start(index)?,
            false => self.stop(index)?,
        }
        Ok(())
    }

    fn get_config(
        &mut self,
        offset: u32,
        size: u32,
        _flags: VhostUserConfigFlags,
    ) -> ProtocolResult<Vec<u8>> {
        let space = usize::try_from(offset).ok().zip(usize::try_from(size).ok());
        let space = space.and_then(|(offset, len)| self.shape.space(offset, len));
        Ok(space.ok_or(Refusal::Config { offset, len: size })?)
    }

    fn set_config(
        &mut self,
        _offset: u32,
        _buf: &[u8],
        _flags: VhostUserConfigFlags,
    ) -> ProtocolResult<()> {
        // Nothing in it can be set, and a guest that tries (a write cache that is not there) keeps its disk.
        Ok(())
    }

    fn set_gpu_socket(&mut self, _gpu: GpuBackend) -> ProtocolResult<()> {
        not_offered("a display")
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> ProtocolResult<File> {
        not_offered("sharing of objects")
    }

    fn get_inflight_fd(
        &mut self,
        inflight: &VhostUserInflight,
    ) -> ProtocolResult<(VhostUserInflight, File)> {
        let (queues, size) = (inflight.num_queues, inflight.queue_size);
        let (_, file) = InflightMemory::create(queues, size).map_err(Refusal::from)?;
        let len = InflightMemory::len(queues, size) as u64;
        Ok((VhostUserInflight::new(len, 0, queues, size), file))
    }

    fn set_inflight_fd(&mut self, inflight: &VhostUserInflight, file: File) -> ProtocolResult<()> {
        let (queues, size) = (inflight.num_queues, inflight.queue_size);
        let memory = InflightMemory::map(file, inflight.mmap_offset, queues, size);
        self.inflight = Some(memory.map_err(Refusal::from)?);
        Ok(())
    }

    fn get_max_mem_slots(&mut self) -> ProtocolResult<u64> {
        Ok(MEMORY_REGIONS_MAX as u64)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        fd: File,
        _postcopy: Option<bool>,
    ) -> ProtocolResult<Option<VhostUserMemoryRegionBase>> {
        let table = match &self.memory {
            Some(memory) => memory.with(spec(region), fd),
            None => MemoryTable::map(&[spec(region)], vec![fd]),
        };
        self.remap(table.map_err(Refusal::from)?)?;
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> ProtocolResult<()> {
        let RegionSpec { guest, len, .. } = spec(region);
        let Some(memory) = &self.memory else {
            return Err(Refusal::from(MemoryError::Unknown { guest, len }).into());
        };
        if memory.is_only(guest, len) {
            // The last one goes when the VM ends.
            self.stop_all()?;
            self.memory = None;
            return Ok(());
        }
        let table = memory.without(spec(region)).map_err(Refusal::from)?;
        Ok(self.remap(table)?)
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _fd: File,
    ) -> ProtocolResult<Option<File>> {
        not_offered("migration of the device's state")
    }

    fn check_device_state(&mut self) -> ProtocolResult<()> {
        not_offered("migration of the device's state")
    }

    fn get_shmem_config(&mut self) -> ProtocolResult<VhostUserShMemConfig> {
        not_offered("shared memory of the device")
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> ProtocolResult<()> {
        not_offered("a log of dirty pages")
    }
}

fn not_offered<T>(what: &'static str) -> ProtocolResult<T> {
    Err(Refusal::NotOffered { what }.into())
}
