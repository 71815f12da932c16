//! A virtual disk on its shard, as long as one VM is connected.
//!
//! *Place*: between `server`, which makes one for each connection, and `queue`. *Owner*: the shard. *Invariants*: orders
//! are carried out one by one; when this ends, every queue has stopped and nothing touches the guest's memory.
//! *On failure*: a ring that cannot be started is reported and stands still; the connection goes on.

use super::memory::AnnouncedRegions;
use super::order::{Envelope, Order, RingStart};
use super::queue::{Queue, Shared};
use crate::disk::Disk;
use crate::limit::{QUEUES_MAX, STOP_TIME_MAX};
use futures_util::future::join_all;
use ogee_runtime::{Instant, bridge, now};
use std::rc::Rc;

pub(super) struct Device<D> {
    shared: Rc<Shared<D>>,
    /// The guest's memory, for whoever can send from there or have others write there.
    regions: AnnouncedRegions,
    queues: Vec<Option<Queue<D>>>,
    /// Where rings stand that were stopped by themselves.
    stopped: Vec<Option<u16>>,
    /// Until then what is stopped now may take, all of it together.
    deadline: Option<Instant>,
}

impl<D: Disk> Device<D> {
    pub(super) fn new(shared: Rc<Shared<D>>) -> Self {
        let queues = (0..QUEUES_MAX).map(|_| None).collect();
        Self {
            shared,
            regions: AnnouncedRegions::default(),
            queues,
            stopped: vec![None; QUEUES_MAX.into()],
            deadline: None,
        }
    }

    /// Carries out orders until nobody is left to give them.
    pub(super) async fn run(mut self, mut orders: bridge::Receiver<Envelope>) {
        while let Some(Envelope { order, answer }) = orders.recv().await {
            let answered = self.carry_out(order).await;
            // A thread that waits no more has lost its connection: its end comes next.
            let _ = answer.try_send(answered);
        }
        self.stop().await;
        self.regions.clear();
    }

    /// Stops all queues. They wait for what is under way side by side.
    async fn stop(&mut self) {
        let deadline = self.deadline();
        let running = self.queues.iter_mut().filter_map(Option::take);
        join_all(running.map(|queue| queue.stop(deadline))).await;
    }

    /// The first that is stopped sets it: a VM's process that stops one after the other waits once.
    fn deadline(&mut self) -> Instant {
        *self.deadline.get_or_insert_with(|| now() + STOP_TIME_MAX)
    }

    async fn carry_out(&mut self, order: Order) -> Option<u16> {
        match order {
            Order::Start(start) => self.start(*start).await,
            Order::Stop { index } => {
                let stopped = self.stop_one(index).await;
                let before = self.stopped.get_mut(usize::from(index));
                return stopped.or(before.and_then(Option::take));
            }
            Order::StopAll => self.stop().await,
            Order::Call { index, call } => {
                if let Some(Some(queue)) = self.queues.get(usize::from(index)) {
                    queue.set_call(call);
                }
            }
            Order::Memory { memory, rings } => {
                if self.shared.announces_memory {
                    self.regions.follow(&memory);
                }
                for (index, addresses) in rings {
                    let Some(Some(queue)) = self.queues.get(usize::from(index)) else {
                        continue;
                    };
                    if let Err(fault) = queue.relocate(memory.clone(), addresses) {
                        self.report(index, &fault);
                        let base = self.stop_one(index).await;
                        if let Some(stopped) = self.stopped.get_mut(usize::from(index)) {
                            *stopped = base;
                        }
                    }
                }
            }
        }
        None
    }

    async fn start(&mut self, start: RingStart) {
        let index = start.index;
        // One that runs goes first: its requests are answered by its own rules.
        self.stop_one(index).await;
        self.deadline = None;
        if let Some(stopped) = self.stopped.get_mut(usize::from(index)) {
            *stopped = None;
        }
        let Some(place) = self.queues.get_mut(usize::from(index)) else {
            return;
        };
        match Queue::start(&self.shared, start) {
            Ok(queue) => *place = Some(queue),
            Err(fault) => self.report(index, &fault),
        }
    }

    async fn stop_one(&mut self, index: u16) -> Option<u16> {
        let queue = self.queues.get_mut(usize::from(index))?.take()?;
        let deadline = self.deadline();
        Some(queue.stop(deadline).await)
    }

    fn report(&self, queue: u16, fault: &super::fault::RingFault) {
        let executor = &self.shared.executor;
        executor.metrics.broken();
        tracing::error!(disk = executor.name, queue, %fault, "cannot serve a ring");
    }
}
