//! What to do to a volume.
//!
//! *Place*: from the command line or a scenario into `run`, by way of [`Plan`].
//! *Owner*: none; plain values.
//! *Invariants*: a plan that exists fits the volume and every limit.
//! *On failure*: [`WorkloadError`] names what does not fit.

use crate::arrivals::Arrivals;
use crate::distribution::Distribution;
use crate::error::WorkloadError;
use crate::limit::{BUFFERS_MAX, LANES_MAX, VERIFY_SLOTS_MAX};
use crate::rw::Rw;
use crate::sizes::Sizes;
use ogee_proto::limit::BLOCK_SIZE;
use ogee_proto::unit::{ByteLen, ByteOffset};
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

/// When a run is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// After a time.
    Runtime(Duration),
    /// After so many bytes, over all jobs.
    Bytes(ByteLen),
}

/// Load on one volume or several.
#[derive(Clone, PartialEq, Debug)]
pub struct Workload {
    /// Stands in the report as `jobname`.
    pub name: String,
    /// Which requests.
    pub rw: Rw,
    /// Bytes of each.
    pub sizes: Sizes,
    /// Which places random requests go to.
    pub distribution: Distribution,
    /// Requests at a time of each job.
    pub iodepth: usize,
    /// Jobs on each target; sequential ones share the range out among them.
    pub jobs: usize,
    /// When it is over.
    pub stop: Stop,
    /// Time at the front that does not count.
    pub ramp: Duration,
    /// Requests per second of all jobs together, at most.
    pub rate: Option<NonZeroU32>,
    /// Bytes per second of all jobs together, at most.
    pub rate_bytes: Option<NonZeroU64>,
    /// Open loop: requests are due at these times, whether or not earlier ones have been answered,
    /// and their latency counts from there.
    pub arrivals: Option<Arrivals>,
    /// Where the range starts.
    pub start: ByteOffset,
    /// How long it is; none: to the end of the volume.
    pub span: Option<ByteLen>,
    /// Of the addresses.
    pub seed: u64,
    /// Check every read against what this run wrote, and read all of that back at the end.
    pub verify: bool,
}

/// A workload that fits its volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Plan {
    /// Where the range starts.
    pub(crate) start: ByteOffset,
    /// Bytes that every size and offset is a multiple of.
    pub(crate) unit: ByteLen,
    /// Units in the range.
    pub(crate) places: u64,
    /// Bytes of the largest request.
    pub(crate) largest: ByteLen,
}

impl Default for Workload {
    /// fio's defaults where it has any: 4 KiB random reads, one at a time, for ten seconds.
    fn default() -> Self {
        Self {
            name: "ogee-bench".to_owned(),
            rw: Rw::RandRead,
            sizes: Sizes::one(ByteLen::from_usize(BLOCK_SIZE)),
            distribution: Distribution::Uniform,
            iodepth: 1,
            jobs: 1,
            stop: Stop::Runtime(Duration::from_secs(10)),
            ramp: Duration::ZERO,
            rate: None,
            rate_bytes: None,
            arrivals: None,
            start: ByteOffset::ZERO,
            span: None,
            seed: 1,
            verify: false,
        }
    }
}

impl Workload {
    /// Fits the workload to a volume of `size`, one of `targets`.
    pub(crate) fn plan(&self, size: ByteLen, targets: usize) -> Result<Plan, WorkloadError> {
        self.check_shape(targets)?;
        let (unit, largest) = (self.sizes.unit(), self.sizes.largest());
        let rest = ByteLen::new(size.get().saturating_sub(self.start.get()));
        let len = self.span.unwrap_or(rest);
        let fits = self.start.is_multiple_of(BLOCK_SIZE) && len <= rest && len >= largest;
        if !fits {
            return Err(WorkloadError::Range {
                start: self.start,
                len,
                size,
            });
        }
        // Sequential jobs walk shares of their own, each with room for one request.
        let (requests, lanes) = (len.get() / largest.get(), self.lanes() as u64);
        if requests < lanes {
            return Err(WorkloadError::Crowded {
                places: requests,
                lanes,
            });
        }
        let places = len.get() / unit.get();
        if self.verify && places > VERIFY_SLOTS_MAX {
            return Err(WorkloadError::VerifyPlaces { places });
        }
        Ok(Plan {
            start: self.start,
            unit,
            places,
            largest,
        })
    }

    /// Requests at a time on one target.
    pub(crate) const fn lanes(&self) -> usize {
        self.jobs.saturating_mul(self.iodepth)
    }

    /// Whether it fits any target.
    pub(crate) fn check_shape(&self, targets: usize) -> Result<(), WorkloadError> {
        self.sizes.check()?;
        let lanes = self.lanes().saturating_mul(targets);
        if !(1..=LANES_MAX).contains(&lanes) {
            return Err(WorkloadError::Lanes {
                jobs: self.jobs,
                iodepth: self.iodepth,
                targets,
            });
        }
        let buffers = lanes.saturating_mul(self.sizes.largest().as_usize());
        if buffers > BUFFERS_MAX {
            return Err(WorkloadError::Buffers(ByteLen::from_usize(buffers)));
        }
        if self.verify && self.sizes.single().is_none() {
            return Err(WorkloadError::VerifySizes);
        }
        if self.arrivals.is_some() && (self.rate.is_some() || self.rate_bytes.is_some()) {
            return Err(WorkloadError::TwoPaces);
        }
        match self.rw.read_percent() {
            percent if percent > 100 => Err(WorkloadError::ReadPercent(percent)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrivals::Process;

    const SIZE: ByteLen = ByteLen::new(64 << 20);

    fn refused(change: impl FnOnce(&mut Workload)) -> WorkloadError {
        let mut workload = Workload::default();
        change(&mut workload);
        workload.plan(SIZE, 1).unwrap_err()
    }

    #[test]
    fn the_whole_volume_is_the_default_range() {
        let plan = Workload::default().plan(SIZE, 1).unwrap();
        assert_eq!(plan.places, SIZE.get() / 4096);
        let ranged = Workload {
            start: ByteOffset::new(1 << 20),
            span: Some(ByteLen::new(1 << 20)),
            ..Workload::default()
        };
        assert_eq!(ranged.plan(SIZE, 1).unwrap().places, 256);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let sized = |size| refused(|w| w.sizes = Sizes::one(ByteLen::new(size)));
        assert!(matches!(sized(5000), WorkloadError::Sizes(_)));
        assert!(matches!(sized(0), WorkloadError::Sizes(_)));
        assert!(matches!(
            refused(|w| w.iodepth = 0),
            WorkloadError::Lanes { .. }
        ));
        assert!(matches!(
            refused(|w| w.jobs = 5000),
            WorkloadError::Lanes { .. }
        ));
        let many = Workload {
            iodepth: 64,
            ..Workload::default()
        };
        assert!(many.plan(SIZE, 64).is_ok());
        assert!(matches!(
            many.plan(SIZE, 65),
            Err(WorkloadError::Lanes { targets: 65, .. })
        ));
        let big = refused(|w| {
            w.sizes = Sizes::one(ByteLen::new(16 << 20));
            w.iodepth = 512;
        });
        assert!(matches!(big, WorkloadError::Buffers(_)));
        let outside = refused(|w| w.start = ByteOffset::new(SIZE.get()));
        assert!(matches!(outside, WorkloadError::Range { .. }));
        let crowded = refused(|w| {
            w.span = Some(ByteLen::new(8192));
            w.iodepth = 3;
        });
        assert_eq!(
            crowded,
            WorkloadError::Crowded {
                places: 2,
                lanes: 3
            }
        );
        let mix = refused(|w| w.rw = Rw::RandRw { read_percent: 101 });
        assert_eq!(mix, WorkloadError::ReadPercent(101));
    }

    #[test]
    fn what_excludes_each_other_is_refused() {
        let verify = refused(|w| {
            w.verify = true;
            w.sizes = "4k/50:8k/50".parse().unwrap();
        });
        assert_eq!(verify, WorkloadError::VerifySizes);
        let paces = refused(|w| {
            let rate = NonZeroU32::MIN;
            w.rate = Some(rate);
            w.arrivals = Some(Arrivals {
                rate,
                process: Process::Linear,
            });
        });
        assert_eq!(paces, WorkloadError::TwoPaces);
    }
}
