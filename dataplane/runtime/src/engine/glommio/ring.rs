//! The ring that carries the I/O of an executor.
//!
//! **Place.** Under `driver`, which enters it; `file`, `net` and `watch` put operations into it. **Owner.** One
//! executor, on the thread that made it.
//!
//! **Invariants.** An operation's memory and descriptor are held here from the moment it is queued until the kernel has
//! completed it, whatever becomes of its future. A future that is dropped gives up its operation: a wait for readiness is
//! then cancelled, a transfer runs to its end. Nothing enters the kernel before [`Ring::enter`], so that one call submits
//! and waits for all of a turn. What finds no room in the submission queue waits beside it; there are no more of these
//! than operations in flight.
//!
//! **Failure.** Errors of an operation are its result. A ring that the kernel refuses to enter is a bug, and panics.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use super::memory::Memory;
use crate::buffer::Piece;
use crate::limit::RING_DEPTH;

/// Completions that need no look: of cancellations.
const NOBODY: u64 = u64::MAX;

/// Room for completions; what does not fit the kernel keeps for the next turn.
const COMPLETIONS: u32 = 4 * RING_DEPTH;

/// What the kernel reads or writes during an operation.
pub(super) enum Held {
    Nothing,
    Buffer(Memory),
    Pieces { _held: HeldPieces },
}

/// Pieces of memory that are written from, and the list of them that the kernel reads.
pub(super) struct HeldPieces {
    slices: Box<[libc::iovec]>,
    /// None moves its bytes when it is moved itself: they are on the heap, in an arena, or of a shared owner.
    _pieces: Vec<Piece>,
}

impl HeldPieces {
    pub(super) fn new(pieces: Vec<Piece>) -> Self {
        let mut slices: Vec<libc::iovec> = Vec::with_capacity(pieces.len());
        for bytes in pieces.iter().map(Piece::bytes) {
            let (start, len) = (bytes.as_ptr(), bytes.len());
            // The blocks of a large payload come one by one.
            match slices.last_mut() {
                Some(last) if last.iov_base.addr() + last.iov_len == start.addr() => {
                    last.iov_len += len;
                }
                _ => slices.push(libc::iovec {
                    iov_base: start.cast_mut().cast(),
                    iov_len: len,
                }),
            }
        }
        Self {
            slices: slices.into(),
            _pieces: pieces,
        }
    }

    pub(super) fn slices(&self) -> &[libc::iovec] {
        &self.slices
    }
}

/// One operation in flight, or completed and not yet looked at.
struct Flight {
    stage: Stage,
    held: Held,
    /// Open until the kernel has its own reference, and a little longer.
    _descriptor: Option<Rc<OwnedFd>>,
}

enum Stage {
    Pending(Option<Waker>),
    Completed(i32),
    /// Its future is gone.
    Abandoned,
}

#[derive(Default)]
struct Flights {
    slots: Vec<Option<Flight>>,
    free: Vec<usize>,
}

impl Flights {
    fn add(&mut self, flight: Flight) -> usize {
        if let Some(index) = self.free.pop() {
            self.slots[index] = Some(flight);
            return index;
        }
        self.slots.push(Some(flight));
        self.slots.len() - 1
    }

    fn take(&mut self, index: usize) -> Flight {
        let flight = self.slots[index].take();
        self.free.push(index);
        flight.expect("invariant: an operation leaves once")
    }

    fn at(&mut self, index: usize) -> &mut Flight {
        let flight = self.slots[index].as_mut();
        flight.expect("invariant: an operation is listed until it is taken")
    }

    fn count(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

/// See the module.
pub(super) struct Ring {
    io: RefCell<IoUring>,
    flights: RefCell<Flights>,
    /// What the submission queue had no room for.
    backlog: RefCell<VecDeque<squeue::Entry>>,
    /// Completions of one turn; kept for its memory.
    completed: RefCell<Vec<(u64, i32)>>,
    /// A transfer has been queued since the last time that the kernel was entered.
    is_eager: Cell<bool>,
}

impl Ring {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            io: RefCell::new(make_ring()?),
            flights: RefCell::default(),
            backlog: RefCell::default(),
            completed: RefCell::default(),
            is_eager: Cell::new(false),
        })
    }

    /// Queues `entry`.
    ///
    /// # Safety
    /// Memory and descriptor that the entry names are `held`, `descriptor`, or live for ever.
    pub(super) unsafe fn start(
        self: &Rc<Self>,
        entry: squeue::Entry,
        held: Held,
        descriptor: Option<Rc<OwnedFd>>,
    ) -> Operation {
        if !matches!(held, Held::Nothing) {
            self.is_eager.set(true);
        }
        let index = self.flights.borrow_mut().add(Flight {
            stage: Stage::Pending(None),
            held,
            _descriptor: descriptor,
        });
        self.queue(entry.user_data(index as u64));
        Operation {
            ring: Rc::clone(self),
            index: Some(index),
            is_wait: false,
        }
    }

    /// Waits until the descriptor is ready for `events`, or has failed.
    pub(super) fn ready(
        self: &Rc<Self>,
        descriptor: &Rc<OwnedFd>,
        events: libc::c_short,
    ) -> Operation {
        let mask = u32::try_from(events).expect("invariant: flags of poll(2)");
        let fd = types::Fd(descriptor.as_raw_fd());
        let poll = opcode::PollAdd::new(fd, mask).build();
        // SAFETY: a poll names no memory; its descriptor goes with it.
        let mut operation = unsafe { self.start(poll, Held::Nothing, Some(Rc::clone(descriptor))) };
        operation.is_wait = true;
        operation
    }

    fn queue(&self, entry: squeue::Entry) {
        let mut backlog = self.backlog.borrow_mut();
        if !backlog.is_empty() || !push(&mut self.io.borrow_mut(), &entry) {
            backlog.push_back(entry);
        }
    }

    /// Submits what is queued and waits for a completion, at most for `wait`: `None` is for ever, zero not at all. How
    /// many operations have completed; their futures are woken.
    pub(super) fn enter(&self, wait: Option<Duration>) -> usize {
        self.submit(wait);
        self.collect()
    }

    /// Whether a device could work meanwhile at what is queued.
    pub(super) fn is_eager(&self) -> bool {
        self.is_eager.get()
    }

    fn submit(&self, wait: Option<Duration>) {
        self.is_eager.set(false);
        let mut io = self.io.borrow_mut();
        let mut backlog = self.backlog.borrow_mut();
        while let Some(entry) = backlog.front()
            && push(&mut io, entry)
        {
            backlog.pop_front();
        }
        let may_wait = wait != Some(Duration::ZERO) && backlog.is_empty();
        let may_wait = may_wait && io.completion().is_empty();
        if !may_wait && !has_work(&mut io) {
            return;
        }
        let span = types::Timespec::from(wait.unwrap_or_default());
        let mut args = types::SubmitArgs::new();
        if may_wait && wait.is_some() {
            args = args.timespec(&span);
        }
        match io
            .submitter()
            .submit_with_args(usize::from(may_wait), &args)
        {
            Ok(_submitted) => {}
            Err(error) if is_passing(&error) => {}
            Err(error) => panic!("io_uring_enter: {error}"),
        }
    }

    fn collect(&self) -> usize {
        let mut completed = self.completed.take();
        let pair = |event: cqueue::Entry| (event.user_data(), event.result());
        completed.extend(self.io.borrow_mut().completion().map(pair));
        let count = completed.len();
        for (number, result) in completed.drain(..) {
            if number != NOBODY {
                let index = usize::try_from(number).expect("invariant: an index of ours");
                self.complete(index, result);
            }
        }
        self.completed.replace(completed);
        count
    }

    fn complete(&self, index: usize, result: i32) {
        let mut flights = self.flights.borrow_mut();
        let flight = flights.at(index);
        match mem::replace(&mut flight.stage, Stage::Completed(result)) {
            Stage::Pending(waker) => {
                drop(flights);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Stage::Abandoned => {
                let flight = flights.take(index);
                drop(flights);
                drop(flight);
            }
            Stage::Completed(_) => panic!("an operation has completed twice"),
        }
    }

    /// Operations that the kernel may still be at.
    pub(super) fn in_flight(&self) -> usize {
        self.flights.borrow().count()
    }

    /// Gives up an operation whose future is gone.
    fn abandon(&self, index: usize, is_wait: bool) {
        let mut flights = self.flights.borrow_mut();
        let flight = flights.at(index);
        if matches!(flight.stage, Stage::Completed(_)) {
            let flight = flights.take(index);
            drop(flights);
            drop(flight);
            return;
        }
        let before = mem::replace(&mut flight.stage, Stage::Abandoned);
        drop(flights);
        drop(before);
        if is_wait {
            self.queue(
                opcode::AsyncCancel::new(index as u64)
                    .build()
                    .user_data(NOBODY),
            );
        }
    }
}

impl Drop for Ring {
    /// What the kernel may still write to is never freed.
    fn drop(&mut self) {
        if self.in_flight() > 0 {
            mem::forget(mem::take(&mut self.flights.get_mut().slots));
        }
    }
}

/// Completions come when this thread enters, in a bunch, and interrupt nobody; kernels before 6.1 cannot do that.
fn make_ring() -> io::Result<IoUring> {
    let deferred = IoUring::builder()
        .setup_cqsize(COMPLETIONS)
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .build(RING_DEPTH);
    let ring = match deferred {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => IoUring::builder()
            .setup_cqsize(COMPLETIONS)
            .build(RING_DEPTH)?,
        other => other?,
    };
    // Waiting with a limit of time: since 5.11.
    if ring.params().is_feature_ext_arg() && ring.params().is_feature_nodrop() {
        return Ok(ring);
    }
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}

fn push(io: &mut IoUring, entry: &squeue::Entry) -> bool {
    // SAFETY: whoever queued the entry holds what it names until it has completed.
    unsafe { io.submission().push(entry) }.is_ok()
}

/// Whether entering without waiting would do anything.
fn has_work(io: &mut IoUring) -> bool {
    let queue = io.submission();
    !queue.is_empty() || queue.taskrun() || queue.cq_overflow()
}

/// The time is up, a signal came, or the kernel wants its completions to be taken first.
fn is_passing(error: &io::Error) -> bool {
    let passing = [libc::ETIME, libc::EINTR, libc::EAGAIN, libc::EBUSY];
    error
        .raw_os_error()
        .is_some_and(|code| passing.contains(&code))
}

/// An operation of the ring, for the task that started it.
pub(super) struct Operation {
    ring: Rc<Ring>,
    /// None once its result was taken.
    index: Option<usize>,
    /// Waits for readiness: cancelled when it is given up.
    is_wait: bool,
}

impl Operation {
    /// Its result and what it held.
    ///
    /// # Panics
    /// If polled after it was ready.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<(io::Result<u32>, Held)> {
        let index = self
            .index
            .expect("an operation is polled after its result was taken");
        let mut flights = self.ring.flights.borrow_mut();
        if let Stage::Pending(waker) = &mut flights.at(index).stage {
            // The old waker's end may run code of others: not while the table is borrowed.
            let before = match waker {
                Some(waker) if waker.will_wake(cx.waker()) => None,
                waker => waker.replace(cx.waker().clone()),
            };
            drop(flights);
            drop(before);
            return Poll::Pending;
        }
        let flight = flights.take(index);
        self.index = None;
        let Stage::Completed(result) = flight.stage else {
            panic!("an operation was abandoned by its own future")
        };
        let result =
            u32::try_from(result).map_err(|_negative| io::Error::from_raw_os_error(-result));
        Poll::Ready((result, flight.held))
    }

    /// Whether [`Self::poll`] would be ready.
    pub(super) fn is_done(&self) -> bool {
        self.index.is_none_or(|index| {
            let mut flights = self.ring.flights.borrow_mut();
            matches!(flights.at(index).stage, Stage::Completed(_))
        })
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if let Some(index) = self.index {
            self.ring.abandon(index, self.is_wait);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::HeldPieces;
    use crate::buffer::{Buffer, Gather, Payload};

    /// What came from the network is what the device is given, and the parts of one payload are one again.
    #[test]
    fn the_kernel_is_given_the_memory_of_the_payloads() {
        let payloads = [1_u8, 2].map(|byte| Payload::from(Buffer::from(&[byte; 4 * 4096][..])));
        let mut gather = Gather::from(Buffer::zeroed(4096));
        for page in [0..4096, 4096..8192, 8192..16384] {
            gather.push_payload(payloads[0].slice(page));
        }
        gather.push_payload(payloads[1].slice(4096..));
        let area = gather.pieces().next().map(<[u8]>::as_ptr);
        let held = HeldPieces::new(gather.into_parts().expect_err("several pieces"));
        let held = Box::new(held);
        let given: Vec<_> = held
            .slices()
            .iter()
            .map(|s| (s.iov_base.cast_const().cast(), s.iov_len))
            .collect();
        let expected = [
            (area.expect("an area"), 4096),
            (payloads[0].as_ptr(), 16384),
            (payloads[1][4096..].as_ptr(), 12288),
        ];
        assert_eq!(given, expected);
    }
}
