//! A queue pair: commands in, completions out.
//!
//! *Place*: the path of every request. *Owner*: the thread that opened it. *Invariants*: a command and its memory stay in
//! their slot, at one place, until the completion; the slot is what the drive's driver was given, as a raw pointer, and
//! nothing of it is borrowed while C runs. A slot is either free or with the driver. When the pair ends it waits, then
//! closes the queue, which ends what is left; if it does not, the slots and their memory are lost rather than freed.
//! *On failure*: a submit that is refused gives the transfer back; a poll that fails says that the queue is of no more use.

use crate::abi;
use crate::controller::{Controller, Namespace, Notice};
use crate::error::{SpdkError, Status};
use crate::slab::Transfer;
use libc::c_void;
use std::cell::{Cell, RefCell, UnsafeCell};
use std::io;
use std::mem::{self, ManuallyDrop};
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr::{self, NonNull};
use std::time::{Duration, Instant};

/// How long the end of a queue pair waits for what is in flight, before it has the drive give it up.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// What a command does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Kind {
    /// Reads into memory.
    Read,
    /// Writes from memory.
    Write,
    /// Writes from memory, past the cache.
    WriteThrough,
    /// Makes what was written last.
    Flush,
    /// Writes zeros.
    WriteZeroes,
    /// Writes zeros, and need not keep blocks for them.
    WriteZeroesDeallocate,
    /// Says that the blocks are not needed: a hint.
    Deallocate,
}

/// A command, without its memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Command {
    /// What it does.
    pub kind: Kind,
    /// Where; 0 of a flush.
    pub first_sector: u64,
    /// How much; 0 of a flush.
    pub sectors: u32,
}

/// How a command ended.
pub struct Completion {
    /// As it was submitted with.
    pub token: u64,
    /// The drive's words if it failed.
    pub result: Result<(), Status>,
    /// Its memory.
    pub transfer: Option<Transfer>,
}

/// A command that was not taken.
pub struct Refused {
    /// Why.
    pub error: SpdkError,
    /// Its memory.
    pub transfer: Option<Transfer>,
}

struct Slot {
    command: UnsafeCell<abi::Command>,
    transfer: Cell<Option<Transfer>>,
    token: Cell<u64>,
    status: Cell<Option<u16>>,
    index: u32,
    finished: *const Finished,
}

/// Slots that ended, in order. There is room for all.
type Finished = RefCell<Vec<u32>>;

/// A queue pair on a namespace.
pub struct QueuePair {
    inner: ManuallyDrop<Inner>,
}

struct Inner {
    raw: NonNull<c_void>,
    /// Of the queue's own, where the controller interrupts.
    descriptor: Option<RawFd>,
    slots: Box<[Slot]>,
    free: RefCell<Vec<u32>>,
    finished: Box<Finished>,
    namespace: Namespace,
    is_lost: Cell<bool>,
    /// Last: it is detached behind the rest.
    controller: Controller,
}

impl QueuePair {
    /// Opens one for `depth` commands at a time.
    ///
    /// # Errors
    /// [`SpdkError::Call`] when the controller has none left.
    ///
    /// # Panics
    /// When `depth` is 0.
    pub fn open(
        controller: &Controller,
        namespace: Namespace,
        depth: u32,
    ) -> Result<Self, SpdkError> {
        assert!(depth > 0, "a queue for no command");
        let inner = &controller.inner;
        let mut raw = ptr::null_mut();
        // One more: a ring that is full looks like one that is empty.
        // SAFETY: an open controller; the pointer is written to if it succeeds.
        let code = unsafe { (inner.table.queue_open)(inner.raw.as_ptr(), depth + 1, &raw mut raw) };
        let raw = NonNull::new(raw).filter(|_| code == 0);
        let raw = raw.ok_or(SpdkError::Call {
            call: "opening a queue",
            address: inner.address,
            code,
        })?;
        let descriptor = match inner.notice {
            Notice::Polling => None,
            Notice::Interrupts => Some(Self::descriptor_of(controller, raw)?),
        };
        let finished: Box<Finished> = Box::new(RefCell::new(Vec::with_capacity(depth as usize)));
        let slots = (0..depth)
            .map(|index| Slot::new(index, &finished))
            .collect();
        Ok(Self {
            inner: ManuallyDrop::new(Inner {
                raw,
                descriptor,
                slots,
                free: RefCell::new((0..depth).rev().collect()),
                finished,
                namespace,
                is_lost: Cell::new(false),
                controller: controller.clone(),
            }),
        })
    }

    fn descriptor_of(controller: &Controller, raw: NonNull<c_void>) -> Result<RawFd, SpdkError> {
        let inner = &controller.inner;
        // SAFETY: an open queue.
        let found = unsafe { (inner.table.queue_descriptor)(raw.as_ptr()) };
        if found >= 0 {
            return Ok(found);
        }
        // SAFETY: an open queue, that nobody has used; it is closed once.
        unsafe { (inner.table.queue_close)(raw.as_ptr()) };
        Err(SpdkError::NotInterrupting {
            address: inner.address,
            code: found,
        })
    }

    /// Where the controller interrupts: readable when there may be completions that nobody has polled for. Clear it
    /// before polling until nothing is found, then wait for it.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        let raw = self.inner.descriptor?;
        // SAFETY: the queue's own: it stays open as long as the queue.
        Some(unsafe { BorrowedFd::borrow_raw(raw) })
    }

    /// Takes what made the descriptor readable.
    ///
    /// # Errors
    /// Of the system.
    pub fn clear(&self) -> io::Result<()> {
        let Some(raw) = self.inner.descriptor else {
            return Ok(());
        };
        let mut count = [0_u8; 8];
        // SAFETY: an open descriptor, and room for the eight bytes that an eventfd gives.
        let read = unsafe { libc::read(raw, count.as_mut_ptr().cast(), count.len()) };
        if read >= 0 {
            return Ok(());
        }
        match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            error => Err(error),
        }
    }

    /// Commands that the drive has.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    /// Commands that it takes at a time.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.inner.slots.len()
    }

    /// The drive hangs, and a reset does not stop it: what it has, memory included, stays with it for ever.
    pub fn lose(&self) {
        self.inner.is_lost.set(true);
    }

    /// Hands a command to the drive. Its completion carries `token`, and the memory.
    ///
    /// # Errors
    /// When the queue is full or broken.
    ///
    /// # Panics
    /// When the range is not within the namespace, or the memory has another length.
    pub fn submit(
        &self,
        command: Command,
        transfer: Option<Transfer>,
        token: u64,
    ) -> Result<(), Refused> {
        let inner = &*self.inner;
        inner.check(command, transfer.as_ref());
        let index = inner.free.borrow_mut().pop();
        let Some(index) = index else {
            let error = inner.error("submitting", -libc::EAGAIN);
            return Err(Refused { error, transfer });
        };
        let slot = &inner.slots[index as usize];
        let raw = slot.arm(command, inner.namespace.id, transfer, token);
        let controller = &inner.controller.inner;
        // SAFETY: queue and controller are open, and this is their thread. The command stays in its slot, with its
        // segments and their memory, until `done` was called with the slot: only then is the slot free again.
        let code = unsafe {
            (controller.table.queue_submit)(inner.raw.as_ptr(), controller.raw.as_ptr(), raw)
        };
        // One that was refused and has ended anyway has ended: its completion is what counts.
        let has_ended = slot
            .status
            .take()
            .inspect(|status| slot.status.set(Some(*status)));
        if code == 0 || has_ended.is_some() {
            return Ok(());
        }
        let transfer = slot.transfer.take();
        inner.free.borrow_mut().push(index);
        let error = inner.error("submitting", code);
        Err(Refused { error, transfer })
    }

    /// Takes at most `completions_max` completions from the drive, and adds all that ended to `found`.
    ///
    /// # Errors
    /// When the queue is broken: the controller has failed, was reset, or is gone. What had ended is in `found`.
    pub fn poll(&self, completions_max: u32, found: &mut Vec<Completion>) -> Result<(), SpdkError> {
        let polled = self.inner.poll(completions_max);
        self.inner.drain(found);
        polled
    }
}

impl Slot {
    fn new(index: u32, finished: &Finished) -> Self {
        Self {
            command: UnsafeCell::new(abi::Command {
                kind: 0,
                namespace_id: 0,
                first_sector: 0,
                sectors: 0,
                flags: 0,
                segments: ptr::null(),
                segment_count: 0,
                at_segment: 0,
                at_offset: 0,
                done: None,
                context: ptr::null_mut(),
            }),
            transfer: Cell::new(None),
            token: Cell::new(0),
            status: Cell::new(None),
            index,
            finished,
        }
    }

    /// Fills the slot; it is free, so nobody else looks.
    fn arm(
        &self,
        command: Command,
        namespace_id: u32,
        transfer: Option<Transfer>,
        token: u64,
    ) -> *mut abi::Command {
        let (kind, flags) = raw_kind(command.kind);
        let segments = transfer.as_ref().map_or(&[][..], Transfer::segments);
        let filled = abi::Command {
            kind,
            namespace_id,
            first_sector: command.first_sector,
            sectors: command.sectors,
            flags,
            segments: segments.as_ptr(),
            segment_count: u32::try_from(segments.len()).expect("invariant: few"),
            at_segment: 0,
            at_offset: 0,
            done: Some(done),
            context: ptr::from_ref(self).cast_mut().cast(),
        };
        // The list of segments is the vector's own memory: it stays where it is when the vector moves.
        self.transfer.set(transfer);
        self.token.set(token);
        self.status.set(None);
        let raw = self.command.get();
        // SAFETY: the slot is free, so the driver does not have the command, and nothing else refers to it.
        unsafe { raw.write(filled) };
        raw
    }
}

/// What C calls when a command has ended: from within a poll or the end of its queue, in their thread.
unsafe extern "C" fn done(context: *mut c_void, status: u16) {
    // SAFETY: the slot that the command was armed with. Slots live until their queue is closed, or for ever.
    let slot: &Slot = unsafe { &*context.cast::<Slot>() };
    slot.status.set(Some(status));
    // SAFETY: it lives as long as the slots do.
    let finished: &Finished = unsafe { &*slot.finished };
    finished.borrow_mut().push(slot.index);
}

const fn raw_kind(kind: Kind) -> (u32, u32) {
    match kind {
        Kind::Read => (abi::READ, 0),
        Kind::Write => (abi::WRITE, 0),
        Kind::WriteThrough => (abi::WRITE, abi::FORCE_UNIT_ACCESS),
        Kind::Flush => (abi::FLUSH, 0),
        Kind::WriteZeroes => (abi::WRITE_ZEROES, 0),
        Kind::WriteZeroesDeallocate => (abi::WRITE_ZEROES, abi::MAY_DEALLOCATE),
        Kind::Deallocate => (abi::DEALLOCATE, 0),
    }
}

impl Inner {
    fn check(&self, command: Command, transfer: Option<&Transfer>) {
        let end = command.first_sector.checked_add(u64::from(command.sectors));
        assert!(
            end.is_some_and(|end| end <= self.namespace.sectors),
            "{command:?} is not within the namespace"
        );
        let bytes = u64::from(command.sectors) * u64::from(self.namespace.sector_size);
        let wanted = match command.kind {
            Kind::Read | Kind::Write | Kind::WriteThrough => bytes,
            Kind::Flush | Kind::WriteZeroes | Kind::WriteZeroesDeallocate | Kind::Deallocate => 0,
        };
        let len = transfer.map_or(0, Transfer::len) as u64;
        assert_eq!(len, wanted, "memory of {command:?}");
    }

    fn in_flight(&self) -> usize {
        self.slots.len() - self.free.borrow().len()
    }

    fn poll(&self, completions_max: u32) -> Result<(), SpdkError> {
        let table = self.controller.inner.table;
        // SAFETY: an open queue, and this is its thread. It calls `done`, which finds nothing borrowed.
        let code = unsafe { (table.queue_poll)(self.raw.as_ptr(), completions_max) };
        match code {
            0.. => Ok(()),
            code => Err(self.error("polling a queue", code)),
        }
    }

    fn drain(&self, found: &mut Vec<Completion>) {
        for index in self.finished.borrow_mut().drain(..) {
            let slot = &self.slots[index as usize];
            let status = slot.status.take().expect("invariant: it has ended");
            found.push(Completion {
                token: slot.token.get(),
                result: Status::of(status).map_or(Ok(()), Err),
                transfer: slot.transfer.take(),
            });
            self.free.borrow_mut().push(index);
        }
    }

    fn error(&self, call: &'static str, code: i32) -> SpdkError {
        SpdkError::Call {
            call,
            address: self.controller.inner.address,
            code,
        }
    }

    /// Waits, then closes the queue; whether nothing of it is left with the drive.
    fn close(&self) -> bool {
        let mut found = Vec::new();
        let end = Instant::now() + CLOSE_PATIENCE;
        while self.in_flight() > 0 && Instant::now() < end && self.poll(0).is_ok() {
            self.drain(&mut found);
        }
        let table = self.controller.inner.table;
        // SAFETY: an open queue, closed only here.
        let code = unsafe { (table.queue_close)(self.raw.as_ptr()) };
        self.drain(&mut found);
        code == 0 && self.in_flight() == 0
    }
}

impl Drop for QueuePair {
    fn drop(&mut self) {
        // SAFETY: taken once, here; `self` is not used after.
        let inner = unsafe { ManuallyDrop::take(&mut self.inner) };
        if inner.is_lost.get() || !inner.close() {
            // The drive may still write to the memory, and the driver to the slots: all of it stays, and so does the
            // controller.
            mem::forget(inner);
        }
    }
}
