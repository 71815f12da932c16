//! A drive in use: its queue, its memory, and who waits for what.
//!
//! *Place*: between requests and the queue pair. *Owner*: the device's handles, its pump, and requests under way.
//! *Invariants*: each command has a place here, whose number is its token, until it has completed and nobody waits for it any
//! more; the place holds a permit of the queue, and that of the memory until somebody gets the memory. Permits are dropped,
//! and wakers called, while nothing is borrowed. *On failure*: see [`Port::end`].

use super::fault::NvmeFault;
use super::open::NvmeOptions;
use super::vitals::Vitals;
use crate::limit::{NVME_COMPLETIONS_PER_TURN, NVME_DEPTH, NVME_PIECES};
use ogee_runtime::channel::{Notify, Permit, Semaphore};
use ogee_runtime::{Instant, now};
use ogee_spdk::{
    Admin, Command, Completion, Controller, Health, Namespace, QueuePair, Slab, Transfer,
};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::mem;
#[cfg(not(ogee_sim))]
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// What a drive takes.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) namespace: Namespace,
    pub(super) sector_size: u32,
    /// Bytes of a command with memory: whole blocks.
    pub(super) command_max: usize,
    pub(super) has_volatile_cache: bool,
}

/// Memory that a drive reaches, held by one request.
pub(super) struct Load {
    pub(super) transfer: Transfer,
    memory: Permit,
}

/// The permits that a command needs: taken before it is made.
pub(super) struct Room {
    queue: Permit,
    memory: Option<Permit>,
}

/// A drive in use.
pub(super) struct Port {
    pub(super) shape: Shape,
    options: NvmeOptions,
    places: RefCell<Places>,
    queue_permits: Semaphore,
    memory_permits: Semaphore,
    /// Lists to be used again.
    spare: RefCell<Vec<Transfer>>,
    found: RefCell<Vec<Completion>>,
    ended: Cell<Option<NvmeFault>>,
    /// There is something to poll for.
    pub(super) work: Notify,
    pub(super) vitals: Vitals,
    queue: QueuePair,
    slab: Slab,
    pub(super) admin: Option<Admin>,
    controller: Controller,
}

struct Places {
    all: Vec<Place>,
    free: Vec<u32>,
}

struct Place {
    state: State,
    waker: Option<Waker>,
    since: Instant,
    queue: Option<Permit>,
    memory: Option<Permit>,
}

enum State {
    Free,
    Waiting,
    /// Nobody wants to know.
    Abandoned,
    Done(Result<(), NvmeFault>, Option<Transfer>),
}

impl Port {
    pub(super) fn new(
        controller: Controller,
        queue: QueuePair,
        slab: Slab,
        shape: Shape,
        options: NvmeOptions,
    ) -> Self {
        let depth = queue.depth();
        let place = |_| Place {
            state: State::Free,
            waker: None,
            since: now(),
            queue: None,
            memory: None,
        };
        Self {
            shape,
            options,
            places: RefCell::new(Places {
                all: (0..depth).map(place).collect(),
                free: (0..NVME_DEPTH).rev().collect(),
            }),
            queue_permits: Semaphore::new(depth),
            memory_permits: Semaphore::new(NVME_PIECES as usize),
            spare: RefCell::new(Vec::with_capacity(depth)),
            found: RefCell::new(Vec::with_capacity(depth)),
            ended: Cell::new(None),
            work: Notify::new(),
            vitals: Vitals::new(options.health),
            queue,
            slab,
            admin: controller.admin(),
            controller,
        }
    }

    /// Room for a command with `len` bytes of memory, if there is some now.
    pub(super) fn try_room(&self, len: usize) -> Option<Room> {
        let memory = match self.pieces(len) {
            0 => None,
            pieces => Some(self.memory_permits.try_acquire(pieces)?),
        };
        let queue = self.queue_permits.try_acquire(1)?;
        Some(Room { queue, memory })
    }

    /// Waits for room. Who waits must hold no memory.
    pub(super) async fn room(&self, len: usize) -> Room {
        let memory = match self.pieces(len) {
            0 => None,
            pieces => Some(self.memory_permits.acquire(pieces).await),
        };
        let queue = self.queue_permits.acquire(1).await;
        Room { queue, memory }
    }

    fn pieces(&self, len: usize) -> usize {
        len.div_ceil(self.slab.piece_len())
    }

    /// Hands a command to the drive, with the memory of `room`, which `write` fills.
    pub(super) fn start(
        self: &Rc<Self>,
        command: Command,
        len: usize,
        room: Room,
        write: impl FnOnce(&mut Transfer),
    ) -> Result<Ticket, NvmeFault> {
        if let Some(fault) = self.ended.get() {
            return Err(fault);
        }
        let transfer = room.memory.is_some().then(|| self.transfer(len));
        let transfer = transfer.map(|mut transfer| {
            write(&mut transfer);
            transfer
        });
        let index = self.places.borrow_mut().take(room);
        match self.queue.submit(command, transfer, u64::from(index)) {
            Ok(()) => {
                self.work.notify_one();
                Ok(Ticket {
                    port: Rc::clone(self),
                    index,
                })
            }
            Err(refused) => {
                if let Some(transfer) = refused.transfer {
                    self.give_back(transfer);
                }
                let freed = self.places.borrow_mut().leave(index);
                drop(freed);
                tracing::warn!(error = %refused.error, "an NVMe command was refused");
                // Why, the pump finds out: it ends all.
                Err(self.fault_of_drive().unwrap_or(NvmeFault::Refused))
            }
        }
    }

    fn transfer(&self, len: usize) -> Transfer {
        let mut transfer = self.spare.borrow_mut().pop().unwrap_or_default();
        let is_filled = transfer.fill(&self.slab, len);
        assert!(is_filled, "invariant: permits are pieces");
        transfer
    }

    fn give_back(&self, mut transfer: Transfer) {
        transfer.clear();
        let mut spare = self.spare.borrow_mut();
        if spare.len() < spare.capacity() {
            spare.push(transfer);
        }
    }

    /// The memory was copied from, or is not wanted.
    pub(super) fn unload(&self, load: Load) {
        let Load { transfer, memory } = load;
        self.give_back(transfer);
        drop(memory);
    }

    /// Takes completions from the drive, a bounded number; how many.
    pub(super) fn turn(&self) -> Result<usize, NvmeFault> {
        let mut found = mem::take(&mut *self.found.borrow_mut());
        let polled = self.queue.poll(NVME_COMPLETIONS_PER_TURN, &mut found);
        let count = found.len();
        for completion in found.drain(..) {
            self.complete(completion);
        }
        self.found.replace(found);
        match polled {
            Ok(()) => Ok(count),
            Err(error) => {
                tracing::warn!(%error, "an NVMe queue is broken");
                Err(self.fault_of_drive().unwrap_or(NvmeFault::Reset))
            }
        }
    }

    fn complete(&self, completion: Completion) {
        let Completion {
            token,
            result,
            transfer,
        } = completion;
        let index = u32::try_from(token).expect("invariant: tokens are places");
        let result = result.map_err(NvmeFault::Command);
        let completed = self.places.borrow_mut().complete(index, result, transfer);
        match completed {
            Completed::Wanted(waker) => {
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Completed::Unwanted(place, transfer) => {
                if let Some(transfer) = transfer {
                    self.give_back(transfer);
                }
                drop(place);
            }
        }
    }

    /// Readable when the drive has interrupted, if it does.
    #[cfg(not(ogee_sim))]
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.queue.descriptor()
    }

    /// Takes what it has interrupted for.
    pub(super) fn hear(&self) -> io::Result<()> {
        self.queue.clear()
    }

    /// Whether anything is with the drive.
    pub(super) fn is_busy(&self) -> bool {
        self.queue.in_flight() > 0
    }

    /// Why the drive is of no more use, if it says so itself.
    pub(super) fn fault_of_drive(&self) -> Option<NvmeFault> {
        match self.controller.health() {
            Health::Ready => None,
            Health::Failed => Some(NvmeFault::Reset),
            Health::Gone => Some(NvmeFault::Gone),
        }
    }

    /// Whether something takes too long.
    pub(super) fn fault_of_time(&self, at: Instant) -> Option<NvmeFault> {
        let timeout = self.options.timeout;
        let places = self.places.borrow();
        let is_late = places.all.iter().any(|place| {
            let is_with_drive = matches!(place.state, State::Waiting | State::Abandoned);
            is_with_drive && at.saturating_duration_since(place.since) >= timeout
        });
        let seconds = u16::try_from(timeout.as_secs()).unwrap_or(u16::MAX);
        is_late.then_some(NvmeFault::TimedOut { seconds })
    }

    /// Sees to what the drive says of its health.
    pub(super) fn look_at_health(&self, device: &str, at: Instant) {
        if let Some(admin) = &self.admin {
            self.vitals.look(admin, device, at, self.options.timeout);
        }
    }

    /// Ends all that waits, and everything later, with `fault`. Memory that the drive has stays with the queue.
    pub(super) fn end(&self, fault: NvmeFault) {
        if self.ended.get().is_some() {
            return;
        }
        self.ended.set(Some(fault));
        let (wakers, permits) = self.places.borrow_mut().end(fault);
        for waker in wakers {
            waker.wake();
        }
        // Who waits for room gets it, and is told.
        drop(permits);
    }

    /// Nothing stops the drive: see [`QueuePair::lose`].
    pub(super) fn lose(&self) {
        self.queue.lose();
    }

    /// Why it is of no more use.
    pub(super) fn ended(&self) -> Option<NvmeFault> {
        self.ended.get()
    }
}

/// What is to be woken or dropped outside of the borrow.
enum Completed {
    Wanted(Option<Waker>),
    Unwanted(Place, Option<Transfer>),
}

impl Places {
    fn take(&mut self, room: Room) -> u32 {
        let index = self
            .free
            .pop()
            .expect("invariant: as many permits as places");
        self.all[index as usize] = Place {
            state: State::Waiting,
            waker: None,
            since: now(),
            queue: Some(room.queue),
            memory: room.memory,
        };
        index
    }

    fn leave(&mut self, index: u32) -> Place {
        let free = Place {
            state: State::Free,
            waker: None,
            since: now(),
            queue: None,
            memory: None,
        };
        self.free.push(index);
        mem::replace(&mut self.all[index as usize], free)
    }

    fn complete(
        &mut self,
        index: u32,
        result: Result<(), NvmeFault>,
        transfer: Option<Transfer>,
    ) -> Completed {
        let place = &mut self.all[index as usize];
        if matches!(place.state, State::Waiting) {
            place.state = State::Done(result, transfer);
            return Completed::Wanted(place.waker.take());
        }
        let is_abandoned = matches!(place.state, State::Abandoned);
        assert!(is_abandoned, "a place with a command completes once");
        Completed::Unwanted(self.leave(index), transfer)
    }

    /// Whom to wake, and the permits of those whose commands never complete.
    fn end(&mut self, fault: NvmeFault) -> (Vec<Waker>, Vec<Permit>) {
        let (mut wakers, mut permits) = (Vec::new(), Vec::new());
        for place in &mut self.all {
            if matches!(place.state, State::Waiting) {
                place.state = State::Done(Err(fault), None);
                wakers.extend(place.waker.take());
            }
            permits.extend(place.queue.take());
            permits.extend(place.memory.take());
        }
        (wakers, permits)
    }
}

/// A command that the drive has. Dropping it leaves the command to itself.
pub(super) struct Ticket {
    port: Rc<Port>,
    index: u32,
}

impl Future for Ticket {
    type Output = (Result<(), NvmeFault>, Option<Load>);

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut places = self.port.places.borrow_mut();
        let place = &mut places.all[self.index as usize];
        match mem::replace(&mut place.state, State::Free) {
            State::Done(result, transfer) => {
                let load = transfer.zip(place.memory.take());
                let load = load.map(|(transfer, memory)| Load { transfer, memory });
                Poll::Ready((result, load))
            }
            state => {
                place.state = state;
                place.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut places = self.port.places.borrow_mut();
        let place = &mut places.all[self.index as usize];
        if matches!(place.state, State::Waiting) {
            place.state = State::Abandoned;
            place.waker = None;
            return;
        }
        let left = places.leave(self.index);
        drop(places);
        if let State::Done(_, Some(transfer)) = left.state {
            self.port.give_back(transfer);
        }
        drop(left.memory);
    }
}
