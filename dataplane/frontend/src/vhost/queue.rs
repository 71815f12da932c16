//! One virtqueue at work.
//!
//! *Place*: started and stopped by `device`. *Owner*: the device; one task takes requests and publishes answers, each
//! request has a task of its own. *Invariants*: requests under way are bounded per disk, by count and bytes; what does
//! not fit stays in the ring. A head is under way once. Answers of one turn are published together. Nothing of a
//! queue that has been stopped touches the guest's memory again.
//! *On failure*: a [`RingFault`] ends the task: the ring stands still, the guest's driver sees requests that never
//! end, and the log says why. Other queues and disks do not notice.

use super::chain;
use super::config::Shape;
use super::execute::{Executor, Outcome};
use super::fault::RingFault;
use super::inflight::Inflight;
use super::memory::{Guest, MemoryTable};
use super::order::RingStart;
use super::patience::Patience;
use super::request::{self, Asked, Request, Status};
use super::ring::{Ring, RingAddresses, Used};
use super::signal;
use crate::disk::Disk;
use crate::limit::{KICK_PAUSE, TAKE_MAX};
use futures_util::future::{Either, select};
use ogee_runtime::channel::{Gate, Notify, Semaphore};
use ogee_runtime::{
    Instant, Readiness, ScopedTask, now, sleep, spawn_scoped, timeout_at, yield_now,
};
use rustc_hash::FxHashMap;
use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use vm_memory::{Bytes, GuestAddress};

/// What all queues of a disk share.
pub(super) struct Shared<D> {
    pub(super) executor: Executor<D>,
    pub(super) shape: Shape,
    /// Requests of each queue that may be under way.
    pub(super) requests_max: usize,
    /// Payload bytes of all of them.
    pub(super) bytes: Semaphore,
    /// How long an idle queue looks by itself before it asks for a kick.
    pub(super) poll: Duration,
    /// Whether network adapters are told of the guest's memory.
    pub(super) announces_memory: bool,
}

/// A running queue.
pub(super) struct Queue<D> {
    work: Held<D>,
    task: ScopedTask<()>,
}

/// Drops what is under way with the queue: requests hold what holds them.
struct Held<D>(Rc<Work<D>>);

impl<D> Drop for Held<D> {
    fn drop(&mut self) {
        // Dropping a task drops its request, which then touches nothing any more.
        let requests = std::mem::take(&mut *self.0.requests.borrow_mut());
        drop(requests);
    }
}

/// A request under way.
struct UnderWay {
    _task: ScopedTask<()>,
    status_at: GuestAddress,
}

/// What the queue's tasks share.
struct Work<D> {
    shared: Rc<Shared<D>>,
    index: u16,
    memory: RefCell<Arc<MemoryTable>>,
    ring: RefCell<Ring>,
    inflight: RefCell<Option<Inflight>>,
    /// Requests under way, by head.
    requests: RefCell<FxHashMap<u16, UnderWay>>,
    /// Done, and not published.
    answered: RefCell<Vec<Used>>,
    /// Something is done.
    done: Notify,
    /// Closed when the queue stops; each request holds a pass.
    gate: Gate,
    /// The same, of whom others may write to the guest's memory for.
    lent: Gate,
    call: RefCell<Option<File>>,
    is_broken: Cell<bool>,
}

impl<D: Disk> Queue<D> {
    /// Starts a queue: first what was left under way, then what is new.
    pub(super) fn start(shared: &Rc<Shared<D>>, setup: RingStart) -> Result<Self, RingFault> {
        let RingStart {
            index,
            size,
            memory,
            addresses,
            next_available,
            has_event_index,
            kick,
            call,
            error,
            mut inflight,
        } = setup;
        let (guest, event) = (memory.memory(), has_event_index);
        let mut ring = Ring::new(guest, size, addresses, event, next_available)?;
        let recorded = match &mut inflight {
            Some(inflight) => inflight.open(size, ring.next_used())?,
            None => None,
        };
        let left = match recorded {
            Some(left) => {
                let count = u16::try_from(left.len()).unwrap_or(u16::MAX);
                ring.resume_after(count);
                left
            }
            // The VM's process may have looked before the last answers were published.
            None if ring.is_behind() => {
                ring.resume_after(0);
                Vec::new()
            }
            None => Vec::new(),
        };
        let work = Rc::new(Work {
            shared: Rc::clone(shared),
            index,
            memory: RefCell::new(memory),
            ring: RefCell::new(ring),
            inflight: RefCell::new(inflight),
            requests: RefCell::default(),
            answered: RefCell::default(),
            done: Notify::new(),
            gate: Gate::new(),
            lent: Gate::new(),
            call: RefCell::new(call),
            is_broken: Cell::new(false),
        });
        // Whoever served it before may have died between an answer and its interrupt.
        work.interrupt();
        let task = spawn_scoped(run(Rc::clone(&work), kick, error, left));
        Ok(Self {
            work: Held(work),
            task,
        })
    }

    /// Answers go to another descriptor from now on. It is signalled once, for what the one before may have missed.
    pub(super) fn set_call(&self, call: Option<File>) {
        *self.work.0.call.borrow_mut() = call;
        self.work.0.interrupt();
    }

    /// The guest's memory is mapped anew. Requests under way keep the old mapping, which is of the same memory.
    pub(super) fn relocate(
        &self,
        memory: Arc<MemoryTable>,
        addresses: RingAddresses,
    ) -> Result<(), RingFault> {
        let mut ring = self.work.0.ring.borrow_mut();
        ring.relocate(memory.memory(), addresses)?;
        *self.work.0.memory.borrow_mut() = memory;
        Ok(())
    }

    /// Takes nothing more, waits for what is under way, and says where the ring stands.
    ///
    /// What is not done by `deadline` is abandoned: it stays marked in the record, and fails if there is none.
    pub(super) async fn stop(self, deadline: Instant) -> u16 {
        let Self { work: held, task } = self;
        drop(task);
        let work = &held.0;
        if timeout_at(deadline, work.gate.close()).await.is_err() {
            let (disk, queue) = (&work.shared.executor.name, work.index);
            let requests = work.requests.borrow().len();
            tracing::warn!(
                disk,
                queue,
                requests,
                "abandons what the guest waits for no more"
            );
        }
        work.abandon();
        // What was abandoned is written to by nobody any more.
        work.lent.close().await;
        if !work.is_broken.get()
            && let Err(fault) = work.publish()
        {
            work.report(&fault);
        }
        work.ring.borrow().next_available()
    }
}

impl<D: Disk> Work<D> {
    /// Ends what is still under way.
    fn abandon(&self) {
        let requests = std::mem::take(&mut *self.requests.borrow_mut());
        if self.inflight.borrow().is_some() {
            return;
        }
        let memory = self.memory.borrow().clone();
        let mut answered = self.answered.borrow_mut();
        for (head, UnderWay { status_at, .. }) in requests {
            if answered.iter().any(|used| used.head == head) {
                continue;
            }
            // Nobody will carry it out again: the guest has to know.
            let code = Status::IoError.code();
            let stored = Bytes::write_obj(memory.memory(), code, status_at);
            let written = u32::from(stored.is_ok());
            answered.push(Used { head, written });
        }
    }

    /// Takes requests from the ring; says how many. After [`TAKE_MAX`] there may be more.
    fn take(self: &Rc<Self>) -> Result<u16, RingFault> {
        for taken in 0..TAKE_MAX {
            if !self.is_room() {
                return Ok(taken);
            }
            let Some((head, asked)) = self.next()? else {
                return Ok(taken);
            };
            if let Some(inflight) = &mut *self.inflight.borrow_mut() {
                inflight.mark(head)?;
            }
            self.begin(head, asked);
        }
        Ok(TAKE_MAX)
    }

    /// What has no room stays in the ring.
    fn is_room(&self) -> bool {
        self.requests.borrow().len() < self.shared.requests_max
    }

    /// The next request of the ring.
    fn next(&self) -> Result<Option<(u16, Asked)>, RingFault> {
        let memory = self.memory.borrow().clone();
        let mut ring = self.ring.borrow_mut();
        if ring.waiting(memory.memory())? == 0 {
            return Ok(None);
        }
        let head = ring.take(memory.memory())?;
        let asked = self.understand(&ring, &memory, head)?;
        Ok(Some((head, asked)))
    }

    fn understand(&self, ring: &Ring, memory: &MemoryTable, head: u16) -> Result<Asked, RingFault> {
        if self.requests.borrow().contains_key(&head) {
            return Err(RingFault::Twice { head });
        }
        let memory = memory.memory();
        let chain = chain::read(memory, ring.table(), ring.size(), head)?;
        request::parse(memory, chain, &self.shared.shape.geometry())
    }

    /// Starts a request.
    fn begin(self: &Rc<Self>, head: u16, asked: Asked) {
        let Some(pass) = self.gate.enter() else {
            return;
        };
        let status_at = asked.status_at;
        let memory = self.memory.borrow().clone();
        let work = Rc::clone(self);
        let task = spawn_scoped(async move {
            let used = work.carry_out(&memory, head, asked).await;
            work.answered.borrow_mut().push(used);
            work.done.notify_one();
            drop(pass);
        });
        let request = UnderWay {
            _task: task,
            status_at,
        };
        self.requests.borrow_mut().insert(head, request);
    }

    async fn carry_out(&self, memory: &Arc<MemoryTable>, head: u16, asked: Asked) -> Used {
        let Asked { request, status_at } = asked;
        let outcome = match request {
            Ok(request) => self.admitted(memory, request).await,
            Err(status) => Outcome { status, written: 0 },
        };
        let memory = memory.memory();
        let status = outcome.status.code();
        // It lies in guest memory, or the VM's process has shrunk a file: then nobody reads the status either.
        let stored = Bytes::write_obj(memory, status, status_at);
        let written = match stored {
            Ok(()) => outcome.written.saturating_add(1),
            Err(_) => 0,
        };
        Used { head, written }
    }

    async fn admitted(&self, memory: &Arc<MemoryTable>, request: Request) -> Outcome {
        let len = request.payload_len();
        let _bytes = match len {
            0 => None,
            len => Some(self.shared.bytes.acquire(len).await),
        };
        let guest = Guest {
            table: memory,
            lent: &self.lent,
        };
        self.shared.executor.execute(guest, request).await
    }

    /// Publishes what is done, and interrupts the guest if it wants that; says whether something was.
    fn publish(&self) -> Result<bool, RingFault> {
        let answered = std::mem::take(&mut *self.answered.borrow_mut());
        if answered.is_empty() {
            return Ok(false);
        }
        let memory = self.memory.borrow().clone();
        let mut ring = self.ring.borrow_mut();
        let inflight = self.inflight.borrow();
        if let Some(inflight) = &*inflight {
            inflight.link(&answered)?;
        }
        let is_wanted = ring.publish(memory.memory(), &answered)?;
        if let Some(inflight) = &*inflight {
            inflight.clear(&answered, ring.next_used())?;
        }
        let mut requests = self.requests.borrow_mut();
        for used in &answered {
            // It has ended, or is about to: nothing of it is left to cancel.
            drop(requests.remove(&used.head));
        }
        if is_wanted {
            self.interrupt();
        }
        Ok(true)
    }

    fn interrupt(&self) {
        if let Some(call) = &*self.call.borrow() {
            signal::raise(call);
            self.shared.executor.metrics.interrupted();
        }
    }

    fn report(&self, fault: &RingFault) {
        self.is_broken.set(true);
        self.shared.executor.metrics.broken();
        let (disk, queue) = (&self.shared.executor.name, self.index);
        tracing::error!(disk, queue, %fault, "stops a ring until the guest resets the disk");
    }

    fn has_work(&self) -> Result<bool, RingFault> {
        if !self.answered.borrow().is_empty() {
            return Ok(true);
        }
        let memory = self.memory.borrow().clone();
        Ok(self.is_room() && self.ring.borrow().waiting(memory.memory())? > 0)
    }

    /// Asks the guest for a kick; says whether there is work already.
    fn listen(&self) -> Result<bool, RingFault> {
        let memory = self.memory.borrow().clone();
        let is_waiting = self.ring.borrow().listen(memory.memory())?;
        Ok(is_waiting && self.is_room())
    }

    fn ignore(&self) -> Result<(), RingFault> {
        let memory = self.memory.borrow().clone();
        self.ring.borrow().ignore(memory.memory())
    }
}

async fn run<D: Disk>(work: Rc<Work<D>>, kick: Option<File>, error: Option<File>, left: Vec<u16>) {
    let outcome = serve(&work, kick.as_ref(), left).await;
    let Err(fault) = outcome else { return };
    work.report(&fault);
    if let Some(error) = error {
        signal::raise(&error);
    }
}

/// Serves the ring until it is stopped, which drops this future, or found broken.
async fn serve<D: Disk>(
    work: &Rc<Work<D>>,
    kick: Option<&File>,
    left: Vec<u16>,
) -> Result<(), RingFault> {
    work.repeat(left)?;
    let mut kicks = match kick.map(|kick| Readiness::new(&[kick.as_fd()])) {
        Some(Ok(kicks)) => Some(kicks),
        Some(Err(error)) => {
            let (disk, queue) = (&work.shared.executor.name, work.index);
            tracing::warn!(disk, queue, %error, "cannot wait for kicks: looks for requests now and then");
            None
        }
        None => None,
    };
    let mut patience = Patience::new(work.shared.poll);
    let mut idle_since: Option<Instant> = None;
    loop {
        let is_busy = work.publish()? | (work.take()? > 0);
        if is_busy && let Some(idle) = idle_since.take() {
            patience.waited(now().saturating_duration_since(idle));
        }
        if work.has_work()? {
            yield_now().await;
            continue;
        }
        let idle = *idle_since.get_or_insert_with(now);
        let is_polling = now().saturating_duration_since(idle) < patience.now();
        if is_polling || kick.is_none() {
            yield_now().await;
            continue;
        }
        let Some(kicks) = &mut kicks else {
            // For want of descriptors: they may come back.
            sleep(KICK_PAUSE).await;
            kicks = kick.and_then(|kick| Readiness::new(&[kick.as_fd()]).ok());
            continue;
        };
        if work.listen()? {
            work.ignore()?;
            continue;
        }
        wait(work, kicks, kick).await?;
        work.ignore()?;
        patience.waited(now().saturating_duration_since(idle));
        idle_since = None;
    }
}

impl<D: Disk> Work<D> {
    /// Carries out again what was under way when a process before us ended.
    fn repeat(self: &Rc<Self>, left: Vec<u16>) -> Result<(), RingFault> {
        if left.is_empty() {
            return Ok(());
        }
        let (disk, queue, requests) = (&self.shared.executor.name, self.index, left.len());
        tracing::info!(
            disk,
            queue,
            requests,
            "carries out again what was under way"
        );
        self.shared.executor.metrics.repeated(requests as u64);
        for head in left {
            let memory = self.memory.borrow().clone();
            let asked = self.understand(&self.ring.borrow(), &memory, head)?;
            // Its mark stands, and with it its place in the order. There are at most as many as the ring has places.
            self.begin(head, asked);
        }
        Ok(())
    }
}

/// Waits for a kick or an answer.
async fn wait<D: Disk>(
    work: &Work<D>,
    kicks: &mut Readiness,
    kick: Option<&File>,
) -> Result<(), RingFault> {
    let kicked = pin!(kicks.changed());
    let done = pin!(work.done.notified());
    if let Either::Left((outcome, _)) = select(kicked, done).await {
        outcome.map_err(|error| kick_fault(&error))?;
        if let Some(kick) = kick {
            signal::clear(kick);
        }
    }
    Ok(())
}

fn kick_fault(error: &io::Error) -> RingFault {
    let cause = error.to_string();
    RingFault::Kick { cause }
}
