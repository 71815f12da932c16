//! An emulated drive.

use super::vitals::DriveVitals;
use crate::abi;
use crate::address::PciAddress;
use crate::error::Status;
use crate::page::HealthPage;
use crate::queue::Kind;
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

static DRIVES: Mutex<Option<HashMap<String, Arc<Drive>>>> = Mutex::new(None);

/// Polls after which a command completes, if nothing delays it.
const POLLS: u32 = 2;
/// What deallocated blocks read as on a drive that promises nothing.
const GARBAGE: u8 = 0xdb;

/// What a drive is like.
#[derive(Clone, Debug)]
pub struct DriveOptions {
    /// Bytes of its namespace.
    pub len: usize,
    /// Bytes of a sector.
    pub sector_size: u32,
    /// Serial number.
    pub serial: String,
    /// Longest transfer of a command.
    pub transfer_max: u32,
    /// Most segments of a command.
    pub segments_max: u32,
    /// What is written goes to a cache that forgets.
    pub has_volatile_cache: bool,
    /// It takes writes past the cache.
    pub has_force_unit_access: bool,
    /// It has the command.
    pub has_write_zeroes: bool,
    /// Write-zeroes may give blocks back.
    pub write_zeroes_may_deallocate: bool,
    /// It has the command.
    pub has_deallocate: bool,
    /// Deallocated blocks read as zeros.
    pub deallocated_reads_zero: bool,
    /// Bytes beside each sector.
    pub metadata_size: u32,
    /// Type of protection information in them.
    pub protection_type: u32,
    /// It can interrupt.
    pub has_interrupts: bool,
}

impl Default for DriveOptions {
    fn default() -> Self {
        Self {
            len: 8 << 20,
            sector_size: 512,
            serial: String::from("EMU0001"),
            transfer_max: 128 << 10,
            segments_max: 8,
            has_volatile_cache: true,
            has_force_unit_access: true,
            has_write_zeroes: true,
            write_zeroes_may_deallocate: true,
            has_deallocate: true,
            deallocated_reads_zero: true,
            metadata_size: 0,
            protection_type: 0,
            has_interrupts: true,
        }
    }
}

/// What a drive was asked to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DriveCounts {
    /// Reads.
    pub reads: u64,
    /// Writes, into the cache and past it.
    pub writes: u64,
    /// Those past it.
    pub writes_through: u64,
    /// Flushes.
    pub flushes: u64,
    /// Commands that write zeros.
    pub write_zeroes: u64,
    /// Commands that give blocks back.
    pub deallocates: u64,
    /// Most segments of one command.
    pub segments_max: u64,
    /// Most commands at a time.
    pub in_flight_max: u64,
    /// Polls of queues.
    pub polls: u64,
    /// Resets by the host.
    pub resets: u64,
    /// Times that it was asked for its health.
    pub health: u64,
}

/// Holds a drive, and makes it fail. It is unplugged behind the last of the clones.
#[derive(Clone)]
pub struct EmulatedDrive {
    drive: Arc<Drive>,
    _plug: Arc<Plug>,
}

struct Plug(String);

impl Drop for Plug {
    fn drop(&mut self) {
        if let Some(drives) = all().as_mut() {
            drives.remove(&self.0);
        }
    }
}

fn all() -> MutexGuard<'static, Option<HashMap<String, Arc<Drive>>>> {
    DRIVES.lock().unwrap_or_else(PoisonError::into_inner)
}

impl EmulatedDrive {
    /// A drive of zeros at `address`.
    ///
    /// # Panics
    /// When there is one already.
    #[must_use]
    pub fn plug(address: PciAddress, options: DriveOptions) -> Self {
        let name = address.to_string();
        let drive = Arc::new(Drive {
            state: Mutex::new(State::new(&options)),
            options,
        });
        let mut drives = all();
        let drives = drives.get_or_insert_default();
        let before = drives.insert(name.clone(), Arc::clone(&drive));
        assert!(before.is_none(), "there is a drive at {name}");
        Self {
            drive,
            _plug: Arc::new(Plug(name)),
        }
    }

    /// The next `count` commands of a kind end with `status`, and do nothing.
    pub fn fail(&self, kind: Kind, count: u32, status: Status) {
        let failing = Failing {
            kind,
            count,
            status,
        };
        self.drive.lock().failing.push(failing);
    }

    /// How it fares from now on.
    pub fn fare(&self, vitals: DriveVitals) {
        self.drive.lock().vitals = vitals;
    }

    /// The next `count` times that it is asked for its health end with `status`.
    pub fn hide_health(&self, count: u32, status: Status) {
        self.drive.lock().hidden = (count, status);
    }

    /// Commands submitted from now on complete after so many polls.
    pub fn delay(&self, polls: u32) {
        self.drive.lock().polls_wanted = polls;
    }

    /// Nothing completes any more, until it is reset.
    pub fn stall(&self) {
        self.drive.lock().is_stalled = true;
    }

    /// Its interrupts get lost.
    pub fn mute(&self) {
        self.drive.lock().is_mute = true;
    }

    /// It does not come up from resets.
    pub fn refuse_resets(&self) {
        self.drive.lock().refuses_resets = true;
    }

    /// It resets itself: what is in flight is given up, and it wants a reset by the host.
    pub fn reset(&self) {
        self.drive.lock().phase = Phase::Failed;
    }

    /// It is pulled out.
    pub fn remove(&self) {
        self.drive.lock().phase = Phase::Gone;
    }

    /// Power is lost, and back: what was in the volatile cache is gone.
    pub fn cut_power(&self) {
        let mut state = self.drive.lock();
        state.data = state.durable.clone();
    }

    /// What it was asked to do until now.
    #[must_use]
    pub fn counts(&self) -> DriveCounts {
        self.drive.lock().counts
    }
}

pub(super) struct Drive {
    pub(super) options: DriveOptions,
    state: Mutex<State>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Ready,
    /// It was reset by nobody here: nothing works until the host resets it.
    Failed,
    Resetting,
    Gone,
}

struct Failing {
    kind: Kind,
    count: u32,
    status: Status,
}

/// A command that the drive has: raw, for the thread of the queue.
pub(super) struct Pending {
    pub(super) command: *mut abi::Command,
    pub(super) polls_left: u32,
}

/// A queue of a drive.
pub(super) struct Queue {
    pub(super) drive: Arc<Drive>,
    pub(super) depth: usize,
    pub(super) thread: std::thread::ThreadId,
    pub(super) pending: VecDeque<Pending>,
    /// Of the drive, when it was opened: a reset ends it.
    pub(super) generation: u64,
    /// Where it interrupts.
    pub(super) bell: Option<Bell>,
}

/// An eventfd.
pub(super) struct Bell(OwnedFd);

impl Bell {
    pub(super) fn new() -> std::io::Result<Self> {
        // SAFETY: takes plain numbers.
        let raw = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if raw < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: just made, and of nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(raw) }))
    }

    pub(super) fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    fn ring(&self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: an open descriptor, and eight bytes. It fails when it is full, and then it is readable.
        unsafe { libc::write(self.raw(), one.as_ptr().cast(), one.len()) };
    }
}

impl Queue {
    /// A drive interrupts for what completes; here that is when the queue is looked at, so it interrupts as long as there is
    /// something to look for.
    pub(super) fn interrupt(&self, state: &State) {
        let is_silent = state.is_stalled || state.is_mute || self.pending.is_empty();
        if let Some(bell) = self.bell.as_ref().filter(|_| !is_silent) {
            bell.ring();
        }
    }
}

pub(super) struct State {
    pub(super) data: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) phase: Phase,
    pub(super) generation: u64,
    pub(super) is_stalled: bool,
    pub(super) polls_wanted: u32,
    pub(super) counts: DriveCounts,
    pub(super) is_open: bool,
    is_mute: bool,
    refuses_resets: bool,
    failing: Vec<Failing>,
    vitals: DriveVitals,
    /// So often it does not tell them, and how it ends then.
    hidden: (u32, Status),
}

impl State {
    fn new(options: &DriveOptions) -> Self {
        Self {
            data: vec![0; options.len],
            durable: vec![0; options.len],
            phase: Phase::Ready,
            generation: 0,
            is_stalled: false,
            polls_wanted: POLLS,
            counts: DriveCounts::default(),
            is_open: false,
            is_mute: false,
            refuses_resets: false,
            failing: Vec::new(),
            vitals: DriveVitals::default(),
            hidden: (0, Status::ABORTED),
        }
    }

    /// What it says of its health, or how that ended.
    pub(super) fn health(&mut self) -> Result<HealthPage, Status> {
        let (count, status) = self.hidden;
        if count > 0 {
            self.hidden.0 -= 1;
            return Err(status);
        }
        Ok(self.vitals.page())
    }

    /// What a command was told to end with, once.
    pub(super) fn failure(&mut self, kind: Kind) -> Option<Status> {
        let at = self.failing.iter().position(|one| one.kind == kind)?;
        let failing = &mut self.failing[at];
        failing.count -= 1;
        let status = failing.status;
        if failing.count == 0 {
            self.failing.remove(at);
        }
        Some(status)
    }

    pub(super) fn count(&mut self, kind: Kind) {
        let counts = &mut self.counts;
        match kind {
            Kind::Read => counts.reads += 1,
            Kind::Write => counts.writes += 1,
            Kind::WriteThrough => {
                counts.writes += 1;
                counts.writes_through += 1;
            }
            Kind::Flush => counts.flushes += 1,
            Kind::WriteZeroes | Kind::WriteZeroesDeallocate => counts.write_zeroes += 1,
            Kind::Deallocate => counts.deallocates += 1,
        }
    }

    /// Begins the host's reset: queues end.
    pub(super) fn start_reset(&mut self) {
        self.phase = Phase::Resetting;
        self.generation += 1;
        self.is_stalled = false;
        self.counts.resets += 1;
    }

    /// Whether it is up again; `None`: never.
    pub(super) fn poll_reset(&mut self) -> Option<()> {
        if self.refuses_resets || self.phase == Phase::Gone {
            return None;
        }
        self.phase = Phase::Ready;
        Some(())
    }

    /// What was written at `start` is in the cache, or past it.
    pub(super) fn written(&mut self, start: usize, len: usize, is_durable: bool) {
        if is_durable {
            let (from, to) = (&self.data[start..start + len], &mut self.durable);
            to[start..start + len].copy_from_slice(from);
        }
    }

    pub(super) fn flush(&mut self) {
        self.durable.clone_from(&self.data);
    }

    /// A hint, heard for the sectors with even numbers.
    pub(super) fn deallocate(&mut self, start: usize, len: usize, options: &DriveOptions) {
        let size = options.sector_size as usize;
        let fill = match options.deallocated_reads_zero {
            true => 0,
            false => GARBAGE,
        };
        for sector in (start..start + len).step_by(size) {
            if (sector / size).is_multiple_of(2) {
                self.data[sector..sector + size].fill(fill);
            }
        }
    }
}

impl Drive {
    pub(super) fn find(name: &str) -> Option<Arc<Self>> {
        all().as_ref()?.get(name).cloned()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
