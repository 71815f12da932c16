//! Clock and progress of a run.
//!
//! *Place*: the entry of this crate.
//! *Owner*: the calling task on the targets' shard; each lane is a task that ends with the run.
//! *Invariants*: seconds are told apart by sampling: the requests themselves only record. A request
//! counts if it was due after the ramp and ended well.
//! *On failure*: the first error stops every lane, and is the result once they have ended.

use crate::address::Walk;
use crate::error::{PerfError, WorkloadError};
use crate::lane::{Lane, Load, Site};
use crate::limit::{PROGRESS_PERIOD, STRAGGLER_WAIT};
use crate::report::Report;
use crate::sample::Sample;
use crate::target::Target;
use crate::workload::Workload;
use ogee_runtime::{Instant, ScopedTask, now, spawn_scoped, timeout_at};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

/// Who is told how a run goes on.
pub trait Watch {
    /// From now on requests count.
    fn counting(&mut self) {}
    /// A second has passed, of the ramp too.
    fn second(&mut self, sample: &Sample);
    /// The last request has ended.
    fn ended(&mut self) {}
}

impl<F: FnMut(&Sample)> Watch for F {
    fn second(&mut self, sample: &Sample) {
        self(sample);
    }
}

/// Seconds of a run.
struct Clock {
    last: Instant,
    is_counting: bool,
    series: Vec<Sample>,
}

type Task = ScopedTask<Result<(), PerfError>>;

/// Runs `workload` against `targets`, each with all its jobs, and tells `watch` once a second.
///
/// # Errors
/// The first request that failed or brought wrong bytes, or a workload that does not fit.
pub async fn run<T: Target>(
    targets: &[T],
    workload: &Workload,
    watch: &mut impl Watch,
) -> Result<Report, PerfError> {
    if targets.is_empty() {
        return Err(WorkloadError::NoTarget.into());
    }
    let mut sites = Vec::with_capacity(targets.len());
    for target in targets {
        let plan = workload.plan(target.size(), targets.len())?;
        sites.push(Rc::new(Site::new(target.clone(), plan, workload)));
    }
    let load = Rc::new(Load::new(workload));
    let lanes = start_lanes(&load, &sites, workload);
    let mut clock = Clock::new(&load);
    let ended = clock.drive(&load, lanes, watch).await?;
    watch.ended();
    for site in &sites {
        read_back(&load, site, workload).await?;
    }
    let elapsed = ended.saturating_duration_since(load.counts_from);
    Ok(Report::new(workload, elapsed, &load, clock.series))
}

fn start_lanes<T: Target>(
    load: &Rc<Load>,
    sites: &[Rc<Site<T>>],
    workload: &Workload,
) -> Vec<Task> {
    let sizes = Rc::new(workload.sizes.clone());
    let mut lanes = Vec::with_capacity(workload.lanes() * sites.len());
    for site in sites {
        for job in 0..workload.jobs {
            let walk = Rc::new(Walk::new(&site.plan, job, workload.jobs));
            for _ in 0..workload.iodepth {
                let target = site.target.of_job(job);
                let lane = Lane::new(load, site, target, &walk, workload, &sizes, lanes.len());
                lanes.push(spawn_scoped(lane.work()));
            }
        }
    }
    lanes
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

/// Reads everything back that a verifying run wrote, as many places at a time as it had lanes.
async fn read_back<T: Target>(
    load: &Rc<Load>,
    site: &Rc<Site<T>>,
    workload: &Workload,
) -> Result<(), PerfError> {
    let readers = (0..workload.lanes()).map(|lane| {
        let (load, site) = (Rc::clone(load), Rc::clone(site));
        let target = site.target.of_job(lane / workload.iodepth);
        spawn_scoped(async move {
            while let Some(place) = site.next_to_read_back() {
                let unit = site.plan.unit;
                site.read(&target, &load, place, unit).await?;
            }
            Ok(())
        })
    });
    join(readers.collect()).await
}

impl Clock {
    fn new(load: &Load) -> Self {
        Self {
            last: load.started,
            is_counting: false,
            series: Vec::new(),
        }
    }

    /// Waits for the lanes and tells progress meanwhile; returns when the last one ended.
    async fn drive(
        &mut self,
        load: &Load,
        lanes: Vec<Task>,
        watch: &mut impl Watch,
    ) -> Result<Instant, PerfError> {
        let mut all = pin!(join(lanes));
        self.start_counting(load, watch);
        loop {
            if let Ok(outcome) = timeout_at(self.next(load), &mut all).await {
                outcome?;
                let ended = now();
                self.second(load, ended, watch);
                return Ok(ended);
            }
            load.check_stragglers(STRAGGLER_WAIT)?;
            self.second(load, now(), watch);
            self.start_counting(load, watch);
        }
    }

    /// When this second is over: the last one of the ramp ends with it.
    fn next(&self, load: &Load) -> Instant {
        let next = self.last + PROGRESS_PERIOD;
        if self.is_counting {
            next
        } else {
            next.min(load.counts_from)
        }
    }

    fn start_counting(&mut self, load: &Load, watch: &mut impl Watch) {
        if !self.is_counting && now() >= load.counts_from {
            self.is_counting = true;
            // Seconds are counted from there, however late this was told.
            self.last = load.counts_from;
            watch.counting();
        }
    }

    fn second(&mut self, load: &Load, at: Instant, watch: &mut impl Watch) {
        let span = at.saturating_duration_since(self.last);
        let end = if self.is_counting {
            at.saturating_duration_since(load.counts_from)
        } else {
            Duration::ZERO
        };
        let sample = Sample {
            end_ms: millis(end),
            span_ms: millis(span),
            read: load.read.borrow_mut().seal(span),
            write: load.write.borrow_mut().seal(span),
        };
        self.last = at;
        // The rest after the last whole second may be too short to be a rate.
        if sample.span_ms > 0 {
            watch.second(&sample);
            if self.is_counting {
                self.series.push(sample);
            }
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
