//! What the lanes of a run share, and what each does.
//!
//! *Place*: under `run`. *Owner*: every lane is a task of the targets' shard; the load belongs to all,
//! a site to the lanes of one target.
//! *Invariants*: a lane has one request under way; the harness allocates nothing for it, only the
//! target may. In an open loop a request's latency begins when it was due: a lane that comes late
//! for an arrival does not shorten it.
//! *On failure*: a lane that fails stops the others.

use crate::address::{Ask, Draw, Place, Walk};
use crate::arrivals::Schedule;
use crate::error::PerfError;
use crate::limit::DRAIN_WAIT;
use crate::pacer::Pacer;
use crate::sizes::Sizes;
use crate::stamp::{StampedBuffer, Stamper};
use crate::tally::Tally;
use crate::target::Target;
use crate::verify::Memory;
use crate::workload::{Plan, Stop, Workload};
use ogee_proto::limit::BLOCK_SIZE;
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::{Instant, Payload, now, sleep_until};
use std::cell::{Cell, RefCell};
use std::num::NonZeroU64;
use std::rc::Rc;
use std::time::Duration;

/// What all lanes share.
pub(crate) struct Load {
    pub(crate) started: Instant,
    pub(crate) counts_from: Instant,
    ends_at: Option<Instant>,
    bytes_left: Cell<u64>,
    stopped: Cell<bool>,
    /// When a request last ended.
    last_ended: Cell<Instant>,
    /// The longest time without an end of a request, since they count.
    silence: Cell<Duration>,
    /// Arrivals that were due, but never sent.
    unsent: Cell<u64>,
    generation: Cell<u64>,
    requests: Option<Pacer>,
    bytes: Option<Pacer>,
    schedule: Option<Schedule>,
    stamper: Stamper,
    pub(crate) read: RefCell<Tally>,
    pub(crate) write: RefCell<Tally>,
}

/// One target.
pub(crate) struct Site<T> {
    pub(crate) target: T,
    pub(crate) plan: Plan,
    memory: Option<Memory>,
    read_back: Cell<Place>,
}

/// One request at a time.
pub(crate) struct Lane<T> {
    load: Rc<Load>,
    site: Rc<Site<T>>,
    /// As its job has it.
    target: T,
    walk: Rc<Walk>,
    draw: Draw,
    buffer: StampedBuffer,
}

impl Load {
    pub(crate) fn new(workload: &Workload) -> Self {
        let started = now();
        let counts_from = started + workload.ramp;
        let (ends_at, bytes_left) = match workload.stop {
            Stop::Runtime(time) => (Some(counts_from + time), u64::MAX),
            Stop::Bytes(bytes) => (None, bytes.get()),
        };
        let is_open_loop = workload.arrivals.is_some();
        let pacer = |rate| Pacer::new(rate, started);
        Self {
            started,
            counts_from,
            ends_at,
            bytes_left: Cell::new(bytes_left),
            stopped: Cell::new(false),
            last_ended: Cell::new(started),
            silence: Cell::new(Duration::ZERO),
            unsent: Cell::new(0),
            generation: Cell::new(0),
            requests: workload.rate.map(NonZeroU64::from).map(pacer),
            bytes: workload.rate_bytes.map(pacer),
            schedule: workload
                .arrivals
                .map(|arrivals| Schedule::new(arrivals, workload.seed, started)),
            // Not the seed: two runs of the same seed must not write the same bytes.
            stamper: Stamper::new(ogee_runtime::random_u64()),
            read: RefCell::new(Tally::new(is_open_loop)),
            write: RefCell::new(Tally::new(is_open_loop)),
        }
    }

    /// Arrivals of an open loop that were due, but never sent.
    pub(crate) const fn unsent(&self) -> u64 {
        self.unsent.get()
    }

    /// The longest time without an end of a request.
    pub(crate) const fn silence(&self) -> Duration {
        self.silence.get()
    }

    /// An error once the run is over and nothing has ended for `patience`.
    pub(crate) fn check_stragglers(&self, patience: Duration) -> Result<(), PerfError> {
        // A server that is overloaded may take long for all of them, and still be at work.
        let late = self.ends_at.map_or(Duration::ZERO, |end| {
            now().saturating_duration_since(end.max(self.last_ended.get()))
        });
        if late > patience {
            return Err(PerfError::Stuck(late));
        }
        Ok(())
    }

    /// Waits until a request of `len` may be sent. When it was due, or nothing: the run is over.
    async fn admit(&self, len: ByteLen) -> Option<Instant> {
        if let Some(schedule) = &self.schedule {
            return self.arrival(schedule, len).await;
        }
        let at = now();
        if self.ends_at.is_some_and(|end| at >= end) || !self.take(len) {
            return None;
        }
        let of_requests = self.requests.as_ref().map(|pacer| pacer.take(1, at));
        let of_bytes = self.bytes.as_ref().map(|pacer| pacer.take(len.get(), at));
        match of_requests.max(of_bytes).filter(|due| *due > at) {
            Some(due) => {
                sleep_until(due).await;
                Some(now())
            }
            None => Some(at),
        }
    }

    async fn arrival(&self, schedule: &Schedule, len: ByteLen) -> Option<Instant> {
        if self.stopped.get() {
            return None;
        }
        let due = schedule.take();
        if self.ends_at.is_some_and(|end| due >= end) || !self.take(len) {
            return None;
        }
        let at = now();
        if due > at {
            sleep_until(due).await;
        } else if let Some(end) = self.ends_at.filter(|end| at > *end + DRAIN_WAIT) {
            self.unsent
                .set(self.unsent.get() + 1 + schedule.unsent(end));
            return None;
        }
        Some(due)
    }

    /// Takes one request from what is left; false when nothing is.
    fn take(&self, len: ByteLen) -> bool {
        match self.bytes_left.get().checked_sub(len.get()) {
            Some(left) if !self.stopped.get() => {
                self.bytes_left.set(left);
                true
            }
            _ => false,
        }
    }

    fn next_generation(&self) -> u64 {
        self.generation.set(self.generation.get() + 1);
        self.generation.get()
    }

    fn record(&self, ask: Ask, due: Instant, sent: Instant) {
        let ended = now();
        let tally = if ask.is_read { &self.read } else { &self.write };
        let mut tally = tally.borrow_mut();
        if due >= self.counts_from {
            let latency = ended.saturating_duration_since(due);
            let service = ended.saturating_duration_since(sent);
            tally.record(ask.len.get(), latency, service);
        } else {
            tally.record_ramp(ask.len.get());
        }
        let since = self.last_ended.replace(ended).max(self.counts_from);
        let silence = ended.saturating_duration_since(since);
        self.silence.set(self.silence.get().max(silence));
    }
}

impl<T: Target> Site<T> {
    pub(crate) fn new(target: T, plan: Plan, workload: &Workload) -> Self {
        Self {
            target,
            plan,
            memory: workload.verify.then(|| Memory::new(plan.places)),
            read_back: Cell::new(0),
        }
    }

    /// The next place that a verifying run wrote, each once.
    pub(crate) fn next_to_read_back(&self) -> Option<Place> {
        let place = self.memory.as_ref()?.next_written(self.read_back.get())?;
        self.read_back.set(place + 1);
        Some(place)
    }

    /// Reads one place by a job's handle and checks it if its contents are known.
    pub(crate) async fn read(
        &self,
        target: &T,
        load: &Load,
        place: Place,
        len: ByteLen,
    ) -> Result<(), PerfError> {
        let offset = self.offset(place);
        let pieces = target.read(offset, len).await;
        let pieces = pieces.map_err(|cause| PerfError::Request { offset, cause })?;
        let memory = self.memory.as_ref();
        match memory.and_then(|memory| memory.written(place)) {
            Some(generation) => check(&load.stamper, offset, pieces.as_slice(), generation),
            None => Ok(()),
        }
    }

    fn offset(&self, place: Place) -> ByteOffset {
        let within = ByteLen::new(place * self.plan.unit.get());
        self.plan.start.add(within)
    }
}

fn check(
    stamper: &Stamper,
    offset: ByteOffset,
    pieces: &[Payload],
    expected: u64,
) -> Result<(), PerfError> {
    let first = offset.get() / BLOCK_SIZE as u64;
    let blocks = pieces
        .iter()
        .flat_map(|piece| piece.chunks_exact(BLOCK_SIZE));
    for (block, bytes) in (first..).zip(blocks) {
        stamper.check(bytes, block, expected).map_err(|found| {
            let offset = ByteOffset::new(block * BLOCK_SIZE as u64);
            PerfError::Mismatch {
                offset,
                expected,
                found,
            }
        })?;
    }
    Ok(())
}

impl<T: Target> Lane<T> {
    /// Lane `number`, counted over all targets, with its job's handle of the site's.
    pub(crate) fn new(
        load: &Rc<Load>,
        site: &Rc<Site<T>>,
        target: T,
        walk: &Rc<Walk>,
        workload: &Workload,
        sizes: &Rc<Sizes>,
        number: usize,
    ) -> Self {
        Self {
            load: Rc::clone(load),
            site: Rc::clone(site),
            target,
            walk: Rc::clone(walk),
            draw: Draw::new(&site.plan, workload, sizes, number),
            buffer: load.stamper.buffer(site.plan.largest),
        }
    }

    /// Requests, one after the other, until the run is over.
    pub(crate) async fn work(mut self) -> Result<(), PerfError> {
        loop {
            let mut ask = self.draw.next(&self.walk);
            let Some(due) = self.load.admit(ask.len).await else {
                return Ok(());
            };
            if let Some(memory) = &self.site.memory {
                ask.place = memory.claim(ask.place);
            }
            let outcome = self.one(ask, due).await;
            if outcome.is_err() {
                self.load.stopped.set(true);
                return outcome;
            }
        }
    }

    /// One request.
    async fn one(&mut self, ask: Ask, due: Instant) -> Result<(), PerfError> {
        let sent = if self.load.schedule.is_some() {
            now()
        } else {
            due
        };
        let written = if ask.is_read {
            let (site, load) = (&self.site, &self.load);
            site.read(&self.target, load, ask.place, ask.len).await?;
            None
        } else {
            Some(self.write(ask).await?)
        };
        self.load.record(ask, due, sent);
        if let Some(memory) = &self.site.memory {
            memory.release(ask.place, written);
        }
        Ok(())
    }

    /// Writes one place; the number of the write.
    async fn write(&mut self, ask: Ask) -> Result<u64, PerfError> {
        let offset = self.site.offset(ask.place);
        let generation = self.load.next_generation();
        let block = offset.get() / BLOCK_SIZE as u64;
        let data = self.buffer.stamp(block, generation, ask.len);
        let outcome = self.target.write(offset, data).await;
        outcome.map_err(|cause| PerfError::Request { offset, cause })?;
        Ok(generation)
    }
}
