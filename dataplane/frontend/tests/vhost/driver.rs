//! A virtio-blk driver that does exactly what a test says, right or wrong.

use nix::sys::memfd::{MFdFlags, memfd_create};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};
use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserInflight, VhostUserProtocolFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

pub const IN: u32 = 0;
pub const OUT: u32 = 1;
pub const FLUSH: u32 = 4;
pub const GET_ID: u32 = 8;
pub const DISCARD: u32 = 11;
pub const WRITE_ZEROES: u32 = 13;

pub const EVENT_INDEX: u64 = 1 << 29;
const PROTOCOL: u64 = 1 << 30;
const VERSION_1: u64 = 1 << 32;

pub const MEMORY: u64 = 32 << 20;
/// Where the VM's process claims to see it.
const USER: u64 = 0x7000_0000_0000;
/// Of each queue: its three parts lie within.
const QUEUE_SPAN: u64 = 64 << 10;
/// Buffers lie behind all queues.
const BUFFERS: u64 = 16 * QUEUE_SPAN;
const SPAN: u64 = 64 << 10;
const PATIENCE: Duration = Duration::from_secs(20);

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

/// The guest's memory, and what outlives a server.
pub struct Machine {
    pub memory: GuestMemoryMmap<()>,
    file: File,
    pub queue_size: u16,
    pub queues: Vec<Ring>,
    pub inflight: Option<(VhostUserInflight, File)>,
}

/// One ring, as its driver knows it.
pub struct Ring {
    base: u64,
    size: u16,
    pub available: u16,
    pub seen: u16,
    free: Vec<u16>,
    kick: EventFd,
    call: EventFd,
    /// Where each request under way has its data and its status, by head.
    pending: BTreeMap<u16, (u64, usize)>,
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    pub head: u16,
    pub status: u8,
    pub written: u32,
    pub data: Vec<u8>,
}

impl Machine {
    pub fn new(queues: u16, queue_size: u16) -> Self {
        let file = File::from(memfd_create(c"guest", MFdFlags::MFD_CLOEXEC).expect("a memfd"));
        file.set_len(MEMORY).expect("room");
        let copy = file.try_clone().expect("a descriptor");
        let range = (
            GuestAddress(0),
            usize::try_from(MEMORY).expect("small"),
            Some(FileOffset::new(copy, 0)),
        );
        let memory = GuestMemoryMmap::from_ranges_with_files([range]).expect("memory");
        let queues = (0..queues).map(|index| Ring::new(index.into(), queue_size));
        Self {
            memory,
            file,
            queue_size,
            queues: queues.collect(),
            inflight: None,
        }
    }

    /// Connects as QEMU does, with the rings where they stand.
    pub fn connect(&mut self, path: &Path, features: u64) -> Frontend {
        let mut frontend = connect(path, self.queues.len());
        let offered = frontend.get_features().expect("features");
        let wanted = VERSION_1 | PROTOCOL | features;
        assert_eq!(offered & wanted, wanted, "offered {offered:#x}");
        let protocol = frontend.get_protocol_features().expect("features");
        let ours = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::INFLIGHT_SHMFD
            | VhostUserProtocolFeatures::BACKEND_REQ
            | VhostUserProtocolFeatures::REPLY_ACK;
        assert!(protocol.contains(ours));
        frontend.set_protocol_features(ours).expect("agreed");
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        frontend.set_owner().expect("ours");
        frontend.set_features(wanted).expect("agreed");
        self.share_inflight(&mut frontend);
        self.share_memory(&frontend);
        for index in 0..self.queues.len() {
            self.start(&mut frontend, index);
        }
        frontend
    }

    fn share_inflight(&mut self, frontend: &mut Frontend) {
        if self.inflight.is_none() {
            let queues = u16::try_from(self.queues.len()).expect("few");
            let wanted = VhostUserInflight::new(0, 0, queues, self.queue_size);
            self.inflight = Some(frontend.get_inflight_fd(&wanted).expect("a record"));
        }
        let (inflight, file) = self.inflight.as_ref().expect("there is one");
        let set = frontend.set_inflight_fd(inflight, file.as_raw_fd());
        set.expect("the record that it made");
    }

    pub fn share_memory(&self, frontend: &Frontend) {
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: MEMORY,
            userspace_addr: USER,
            mmap_offset: 0,
            mmap_handle: self.file.as_raw_fd(),
        };
        frontend.set_mem_table(&[region]).expect("memory");
    }

    /// Starts a ring where it stands: after a crash that is behind the last answer.
    pub fn start(&mut self, frontend: &mut Frontend, index: usize) {
        let base: u16 = self.load(self.queues[index].used() + 2);
        let ring = &self.queues[index];
        frontend.set_vring_num(index, ring.size).expect("a size");
        frontend.set_vring_base(index, base).expect("a base");
        let config = ring.config();
        frontend.set_vring_addr(index, &config).expect("addresses");
        frontend.set_vring_call(index, &ring.call).expect("a call");
        frontend.set_vring_kick(index, &ring.kick).expect("a kick");
        frontend.set_vring_enable(index, true).expect("it starts");
    }

    pub fn load(&self, at: u64) -> u16 {
        self.memory
            .load(GuestAddress(at), Ordering::Acquire)
            .expect("in memory")
    }

    pub fn store(&self, at: u64, value: u16) {
        self.memory
            .store(value, GuestAddress(at), Ordering::Release)
            .expect("in memory");
    }

    pub fn descriptor(&self, table: u64, index: u16, at: u64, len: u32, flags: u16, next: u16) {
        let mut raw = [0; 16];
        raw[..8].copy_from_slice(&at.to_le_bytes());
        raw[8..12].copy_from_slice(&len.to_le_bytes());
        raw[12..14].copy_from_slice(&flags.to_le_bytes());
        raw[14..].copy_from_slice(&next.to_le_bytes());
        let at = table + 16 * u64::from(index);
        self.memory
            .write_obj(raw, GuestAddress(at))
            .expect("in memory");
    }

    /// Makes a head available, whatever stands in its descriptor.
    pub fn offer(&mut self, queue: usize, head: u16) {
        let ring = &self.queues[queue];
        let at = u64::from(ring.available % ring.size);
        self.store(ring.available_at() + 4 + 2 * at, head);
        self.queues[queue].available = self.queues[queue].available.wrapping_add(1);
        let ring = &self.queues[queue];
        self.store(ring.available_at() + 2, ring.available);
        fence(Ordering::SeqCst);
    }

    /// Tells of what was made available, and asks to be told of the next answer.
    pub fn kick(&self, queue: usize) {
        let ring = &self.queues[queue];
        self.store(
            ring.available_at() + 4 + 2 * u64::from(ring.size),
            ring.seen,
        );
        self.queues[queue].kick.write(1).expect("room");
    }

    /// Asks for something: `out` goes to the disk, `into` bytes come back. Not kicked.
    pub fn ask(&mut self, queue: usize, kind: u32, sector: u64, out: &[u8], into: usize) -> u16 {
        let head = self.queues[queue].free.pop().expect("a free place");
        let at = self.queues[queue].buffer(head);
        let mut request = [0; 16];
        request[..4].copy_from_slice(&kind.to_le_bytes());
        request[8..].copy_from_slice(&sector.to_le_bytes());
        self.memory
            .write_obj(request, GuestAddress(at))
            .expect("in memory");
        let (data, status) = (at + 4096, at + 32);
        self.memory
            .write_slice(out, GuestAddress(data))
            .expect("in memory");
        // Nobody has answered yet.
        self.memory
            .write_obj(0xff_u8, GuestAddress(status))
            .expect("in memory");
        let table = at + 256;
        let mut parts = vec![(at, 16, 0)];
        if !out.is_empty() {
            parts.push((data, out.len(), 0));
        }
        if into > 0 {
            // In two parts, as a guest's pages may be.
            let half = into / 2;
            parts.push((data, half, WRITE));
            parts.push((data + half as u64, into - half, WRITE));
            parts.retain(|part| part.1 > 0);
        }
        parts.push((status, 1, WRITE));
        let last = parts.len() - 1;
        for (index, (at, len, flags)) in parts.iter().enumerate() {
            let flags = flags | if index < last { NEXT } else { 0 };
            let index = u16::try_from(index).expect("few");
            let len = u32::try_from(*len).expect("small");
            self.descriptor(table, index, *at, len, flags, index + 1);
        }
        let len = u32::try_from(16 * parts.len()).expect("few");
        let ring = self.queues[queue].base;
        self.descriptor(ring, head, table, len, INDIRECT, 0);
        self.queues[queue].pending.insert(head, (at, into));
        self.offer(queue, head);
        head
    }

    /// The next answer, if there is one.
    pub fn poll(&mut self, queue: usize) -> Option<Answer> {
        let used = self.queues[queue].used();
        if self.load(used + 2) == self.queues[queue].seen {
            return None;
        }
        let ring = &mut self.queues[queue];
        let at = used + 4 + 8 * u64::from(ring.seen % ring.size);
        ring.seen = ring.seen.wrapping_add(1);
        let [head, written]: [u32; 2] = self.memory.read_obj(GuestAddress(at)).expect("in memory");
        let head = u16::try_from(head).expect("a head");
        let pending = self.queues[queue].pending.remove(&head);
        let (buffer, into) = pending.expect("answered once");
        self.queues[queue].free.push(head);
        let mut data = vec![0; into];
        self.memory
            .read_slice(&mut data, GuestAddress(buffer + 4096))
            .expect("in memory");
        let status = self
            .memory
            .read_obj(GuestAddress(buffer + 32))
            .expect("in memory");
        Some(Answer {
            head,
            status,
            written,
            data,
        })
    }

    /// Waits for an answer.
    pub fn answer(&mut self, queue: usize) -> Answer {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(answer) = self.poll(queue) {
                return answer;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        panic!("no answer in {PATIENCE:?}");
    }

    /// Asks, kicks and waits.
    pub fn call(
        &mut self,
        queue: usize,
        kind: u32,
        sector: u64,
        out: &[u8],
        into: usize,
    ) -> Answer {
        let head = self.ask(queue, kind, sector, out, into);
        self.kick(queue);
        let answer = self.answer(queue);
        assert_eq!(answer.head, head);
        answer
    }

    /// Requests under way.
    pub fn pending(&self, queue: usize) -> usize {
        self.queues[queue].pending.len()
    }
}

impl Ring {
    fn new(index: u64, size: u16) -> Self {
        let event = || EventFd::new(EFD_NONBLOCK).expect("an eventfd");
        Self {
            base: index * QUEUE_SPAN,
            size,
            available: 0,
            seen: 0,
            free: (0..size.min(16)).collect(),
            kick: event(),
            call: event(),
            pending: BTreeMap::new(),
        }
    }

    pub fn table(&self) -> u64 {
        self.base
    }

    pub fn available_at(&self) -> u64 {
        self.base + 16 * u64::from(self.size)
    }

    pub fn used(&self) -> u64 {
        self.base + 40 * u64::from(self.size)
    }

    /// A request's own memory: header, status, table, data.
    pub fn buffer(&self, head: u16) -> u64 {
        BUFFERS + (self.base / QUEUE_SPAN * 16 + u64::from(head)) * SPAN
    }

    /// Interrupts since it was asked last.
    pub fn interrupts(&self) -> u64 {
        self.call.read().unwrap_or(0)
    }

    fn config(&self) -> VringConfigData {
        VringConfigData {
            queue_max_size: self.size,
            queue_size: self.size,
            flags: 0,
            desc_table_addr: USER + self.table(),
            used_ring_addr: USER + self.used(),
            avail_ring_addr: USER + self.available_at(),
            log_addr: None,
        }
    }
}

/// A connection on which nothing was said.
pub fn connect(path: &Path, queues: usize) -> Frontend {
    let end = Instant::now() + PATIENCE;
    loop {
        match Frontend::connect(path, queues as u64) {
            Ok(frontend) => return frontend,
            Err(error) if Instant::now() > end => panic!("{error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// The configuration space, as QEMU asks for it.
pub fn config(frontend: &mut Frontend, len: u32) -> Vec<u8> {
    let buffer = vec![0; usize::try_from(len).expect("small")];
    let got = frontend.get_config(0, len, VhostUserConfigFlags::WRITABLE, &buffer);
    got.expect("a configuration").1
}

/// A pair of sockets: ours, and the one to give away.
pub fn pair() -> (std::os::unix::net::UnixStream, OwnedFd) {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
    (ours, theirs.into())
}
