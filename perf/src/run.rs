//! Lanes, clock and progress of a run.
//!
//! *Place*: the entry of this crate.
//! *Owner*: the calling task on the volume's shard; each lane is a task that ends with the run.
//! *Invariants*: a lane has one request under way. A request counts if it started after the ramp
//! and ended well.
//! *On failure*: the first error stops every lane, and is the result once they have ended.

use crate::address::{Draw, Place, Walk};
use crate::error::PerfError;
use crate::limit::{PROGRESS_PERIOD, STRAGGLER_WAIT};
use crate::pacer::Pacer;
use crate::report::{Report, per_second};
use crate::stamp::{StampedBuffer, Stamper};
use crate::tally::Tally;
use crate::target::Target;
use crate::verify::Memory;
use crate::workload::{Plan, Stop, Workload};
use ogee_proto::limit::BLOCK_SIZE;
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::{Instant, Payload, ScopedTask, now, spawn_scoped, timeout};
use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

/// What happened since the last time progress was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Since the start.
    pub elapsed: Duration,
    /// Reads per second.
    pub read_iops: u64,
    /// Bytes read per second.
    pub read_bw_bytes: u64,
    /// Writes per second.
    pub write_iops: u64,
    /// Bytes written per second.
    pub write_bw_bytes: u64,
}

/// What all lanes share.
struct Run<T> {
    target: T,
    plan: Plan,
    started: Instant,
    counts_from: Instant,
    ends_at: Option<Instant>,
    bytes_left: Cell<u64>,
    stopped: Cell<bool>,
    /// When a request last ended.
    last_ended: Cell<Instant>,
    generation: Cell<u64>,
    pacer: Option<Pacer>,
    memory: Option<Memory>,
    stamper: Stamper,
    read: RefCell<Tally>,
    write: RefCell<Tally>,
}

/// One request at a time.
struct Lane<T> {
    run: Rc<Run<T>>,
    walk: Rc<Walk>,
    draw: Draw,
    buffer: StampedBuffer,
}

/// Counts at one moment, to tell progress by.
#[derive(Clone, Copy, Default)]
struct Counts {
    reads: u64,
    read_bytes: u64,
    writes: u64,
    write_bytes: u64,
}

/// Runs `workload` against `target` and tells `progress` once a second.
///
/// # Errors
/// The first request that failed or brought wrong bytes, or a workload that does not fit.
pub async fn run<T: Target>(
    target: &T,
    workload: &Workload,
    mut progress: impl FnMut(&Progress),
) -> Result<Report, PerfError> {
    let plan = workload.plan(target.size())?;
    let run = Run::new(target.clone(), plan, workload);
    let lanes = start_lanes(&run, workload);
    let ended = drive(&run, lanes, &mut progress).await?;
    run.read_back(workload.lanes()).await?;
    let elapsed = ended.saturating_duration_since(run.counts_from);
    Ok(Report::new(
        &workload.name,
        elapsed,
        &run.read.borrow(),
        &run.write.borrow(),
    ))
}

fn start_lanes<T: Target>(run: &Rc<Run<T>>, workload: &Workload) -> Vec<Task> {
    let Workload {
        rw,
        seed,
        jobs,
        iodepth,
        ..
    } = *workload;
    let mut lanes = Vec::with_capacity(workload.lanes());
    for job in 0..jobs {
        let walk = Rc::new(Walk::new(&run.plan, job, jobs));
        for depth in 0..iodepth {
            let lane = Lane {
                run: Rc::clone(run),
                walk: Rc::clone(&walk),
                draw: Draw::new(&run.plan, rw, seed, job * iodepth + depth),
                buffer: run.stamper.buffer(run.plan.block),
            };
            lanes.push(spawn_scoped(lane.work()));
        }
    }
    lanes
}

type Task = ScopedTask<Result<(), PerfError>>;

/// Waits for the lanes and tells progress meanwhile; returns when the last one ended.
async fn drive<T: Target>(
    run: &Run<T>,
    lanes: Vec<Task>,
    progress: &mut impl FnMut(&Progress),
) -> Result<Instant, PerfError> {
    let mut all = pin!(join(lanes));
    let mut told = (run.started, Counts::default());
    loop {
        if let Ok(outcome) = timeout(PROGRESS_PERIOD, &mut all).await {
            return outcome.map(|()| now());
        }
        // A server that is overloaded may take long for all of them, and still be at work.
        let late = run.ends_at.map_or(Duration::ZERO, |end| {
            now().saturating_duration_since(end.max(run.last_ended.get()))
        });
        if late > STRAGGLER_WAIT {
            return Err(PerfError::Stuck(late));
        }
        told = run.tell(told, progress);
    }
}

/// The first error of all lanes, once all have ended.
async fn join(lanes: Vec<Task>) -> Result<(), PerfError> {
    let mut outcome = Ok(());
    for lane in lanes {
        // A lane is cancelled only with this future.
        let ended = lane.await.unwrap_or(Ok(()));
        outcome = outcome.and(ended);
    }
    outcome
}

impl<T: Target> Run<T> {
    fn new(target: T, plan: Plan, workload: &Workload) -> Rc<Self> {
        let started = now();
        let counts_from = started + workload.ramp;
        let (ends_at, bytes_left) = match workload.stop {
            Stop::Runtime(time) => (Some(counts_from + time), u64::MAX),
            Stop::Bytes(bytes) => (None, bytes.get()),
        };
        Rc::new(Self {
            target,
            plan,
            started,
            counts_from,
            ends_at,
            bytes_left: Cell::new(bytes_left),
            stopped: Cell::new(false),
            last_ended: Cell::new(started),
            generation: Cell::new(0),
            pacer: workload.rate.map(|rate| Pacer::new(rate, started)),
            memory: workload.verify.then(|| Memory::new(plan.places)),
            // Not the seed: two runs of the same seed must not write the same bytes.
            stamper: Stamper::new(ogee_runtime::random_u64()),
            read: RefCell::new(Tally::new()),
            write: RefCell::new(Tally::new()),
        })
    }

    /// Takes one request from what is left; false when the run is over.
    fn take_one(&self) -> bool {
        let late = self.ends_at.is_some_and(|end| now() >= end);
        let left = self.bytes_left.get().checked_sub(self.plan.block.get());
        match left {
            Some(left) if !late && !self.stopped.get() => {
                self.bytes_left.set(left);
                true
            }
            _ => false,
        }
    }

    fn offset(&self, place: Place) -> ByteOffset {
        self.plan
            .start
            .add(ByteLen::new(place * self.plan.block.get()))
    }

    fn next_generation(&self) -> u64 {
        self.generation.set(self.generation.get() + 1);
        self.generation.get()
    }

    fn record(&self, tally: &RefCell<Tally>, started: Instant) {
        self.last_ended.set(now());
        if started >= self.counts_from {
            let took = now().saturating_duration_since(started);
            tally.borrow_mut().record(self.plan.block.get(), took);
        }
    }

    /// Reads one place and checks it if its contents are known.
    async fn read(&self, place: Place) -> Result<(), PerfError> {
        let offset = self.offset(place);
        let pieces = self.target.read(offset, self.plan.block).await;
        let pieces = pieces.map_err(|cause| PerfError::Request { offset, cause })?;
        match self
            .memory
            .as_ref()
            .and_then(|memory| memory.written(place))
        {
            Some(generation) => self.check(offset, &pieces, generation),
            None => Ok(()),
        }
    }

    fn check(
        &self,
        offset: ByteOffset,
        pieces: &[Payload],
        expected: u64,
    ) -> Result<(), PerfError> {
        let first = offset.get() / BLOCK_SIZE as u64;
        let blocks = pieces
            .iter()
            .flat_map(|piece| piece.chunks_exact(BLOCK_SIZE));
        for (block, bytes) in (first..).zip(blocks) {
            self.stamper
                .check(bytes, block, expected)
                .map_err(|found| {
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

    /// Reads everything back that a verifying run wrote, `lanes` places at a time.
    async fn read_back(self: &Rc<Self>, lanes: usize) -> Result<(), PerfError> {
        if self.memory.is_none() {
            return Ok(());
        }
        let next = Rc::new(Cell::new(0));
        let readers = (0..lanes).map(|_| {
            let (run, next) = (Rc::clone(self), Rc::clone(&next));
            spawn_scoped(async move {
                while let Some(place) = run.next_written(&next) {
                    run.read(place).await?;
                }
                Ok(())
            })
        });
        join(readers.collect()).await
    }

    fn next_written(&self, next: &Cell<Place>) -> Option<Place> {
        let place = self.memory.as_ref()?.next_written(next.get())?;
        next.set(place + 1);
        Some(place)
    }

    fn counts(&self) -> Counts {
        let (read, write) = (self.read.borrow(), self.write.borrow());
        Counts {
            reads: read.requests(),
            read_bytes: read.bytes(),
            writes: write.requests(),
            write_bytes: write.bytes(),
        }
    }

    fn tell(
        &self,
        (since, before): (Instant, Counts),
        progress: &mut impl FnMut(&Progress),
    ) -> (Instant, Counts) {
        let (at, counts) = (now(), self.counts());
        let passed = at.saturating_duration_since(since);
        let rate = |now: u64, then: u64| per_second(now.saturating_sub(then), passed);
        progress(&Progress {
            elapsed: at.saturating_duration_since(self.started),
            read_iops: rate(counts.reads, before.reads),
            read_bw_bytes: rate(counts.read_bytes, before.read_bytes),
            write_iops: rate(counts.writes, before.writes),
            write_bw_bytes: rate(counts.write_bytes, before.write_bytes),
        });
        (at, counts)
    }
}

impl<T: Target> Lane<T> {
    async fn work(mut self) -> Result<(), PerfError> {
        while self.run.take_one() {
            if let Some(pacer) = &self.run.pacer {
                pacer.turn().await;
            }
            let outcome = self.one().await;
            if outcome.is_err() {
                self.run.stopped.set(true);
                return outcome;
            }
        }
        Ok(())
    }

    /// One request.
    async fn one(&mut self) -> Result<(), PerfError> {
        let run = Rc::clone(&self.run);
        let wanted = self.draw.place(&self.walk);
        let place = run
            .memory
            .as_ref()
            .map_or(wanted, |memory| memory.claim(wanted));
        let started = now();
        let (tally, outcome) = if self.draw.is_read() {
            (&run.read, run.read(place).await.map(|()| None))
        } else {
            (&run.write, self.write(place).await.map(Some))
        };
        let written = outcome?;
        run.record(tally, started);
        if let Some(memory) = &run.memory {
            memory.release(place, written);
        }
        Ok(())
    }

    /// Writes one place; the number of the write.
    async fn write(&mut self, place: Place) -> Result<u64, PerfError> {
        let offset = self.run.offset(place);
        let generation = self.run.next_generation();
        let data = self
            .buffer
            .stamp(offset.get() / BLOCK_SIZE as u64, generation);
        let outcome = self.run.target.write(offset, data).await;
        outcome.map_err(|cause| PerfError::Request { offset, cause })?;
        Ok(generation)
    }
}
