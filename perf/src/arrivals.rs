//! When requests of an open-loop run are due, whatever the target does.
//!
//! *Place*: a lane that is free takes the next arrival, waits for it, or is late for it.
//! *Owner*: the run; one cell for all lanes.
//! *Invariants*: arrivals depend on the rate and the seed alone, never on how fast answers come, so
//! that a stall delays every request that was due during it, and its latency says so.
//! *On failure*: none; what could not be sent in time is counted by `unsent`.

use ogee_runtime::Instant;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

/// The arrivals of an open-loop run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrivals {
    /// Per second, of all jobs together.
    pub rate: NonZeroU32,
    /// How they are spaced.
    pub process: Process,
}

/// How arrivals are spaced. The names are fio's (`rate_process`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Process {
    /// Evenly.
    #[default]
    Linear,
    /// As independent users make them: the gaps are exponentially distributed.
    Poisson,
}

/// Not a process that we know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is none of linear, poisson")]
pub struct ProcessError(Box<str>);

/// Hands out arrivals.
pub(crate) struct Schedule {
    start: Instant,
    arrivals: Arrivals,
    /// Handed out so far.
    count: Cell<u64>,
    next: Cell<Duration>,
    random: RefCell<Xoshiro256PlusPlus>,
}

impl Schedule {
    pub(crate) fn new(arrivals: Arrivals, seed: u64, start: Instant) -> Self {
        Self {
            start,
            arrivals,
            count: Cell::new(0),
            next: Cell::new(Duration::ZERO),
            random: RefCell::new(Xoshiro256PlusPlus::seed_from_u64(!seed)),
        }
    }

    /// When the next request is due.
    pub(crate) fn take(&self) -> Instant {
        let due = self.next.get();
        self.count.set(self.count.get() + 1);
        let rate = self.arrivals.rate.get();
        self.next.set(match self.arrivals.process {
            // From the count, so that rounding does not add up.
            Process::Linear => spacing(self.count.get(), rate),
            Process::Poisson => {
                // Above zero: its logarithm is finite.
                let left = 1.0 - self.random.borrow_mut().random::<f64>();
                due + Duration::from_secs_f64(-left.ln() / f64::from(rate))
            }
        });
        self.start + due
    }

    /// How many arrivals before `end` were not taken; they are now.
    pub(crate) fn unsent(&self, end: Instant) -> u64 {
        let mut count = 0;
        while self.start + self.next.get() < end {
            self.take();
            count += 1;
        }
        count
    }
}

/// `count` gaps of `rate` per second.
fn spacing(count: u64, rate: u32) -> Duration {
    let (count, rate) = (u128::from(count), u128::from(rate));
    let ns = count * 1_000_000_000 / rate;
    Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Linear => "linear",
            Self::Poisson => "poisson",
        })
    }
}

impl FromStr for Process {
    type Err = ProcessError;

    fn from_str(text: &str) -> Result<Self, ProcessError> {
        match text {
            "linear" => Ok(Self::Linear),
            "poisson" => Ok(Self::Poisson),
            other => Err(ProcessError(other.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(rate: u32, process: Process, seed: u64) -> (Instant, Schedule) {
        let start = ogee_runtime::now();
        let rate = NonZeroU32::new(rate).unwrap();
        (
            start,
            Schedule::new(Arrivals { rate, process }, seed, start),
        )
    }

    #[test]
    fn linear_arrivals_do_not_drift() {
        let (start, schedule) = schedule(3, Process::Linear, 1);
        assert_eq!(schedule.take(), start);
        assert_eq!(schedule.take(), start + Duration::from_nanos(333_333_333));
        let third_million = (2..3_000_001).map(|_| schedule.take()).last().unwrap();
        assert_eq!(third_million, start + Duration::from_secs(1_000_000));
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_its_spread() {
        let (start, schedule) = schedule(1000, Process::Poisson, 7);
        let mut last = start;
        let mut gaps_ms: Vec<f64> = Vec::new();
        for _ in 0..100_000 {
            let due = schedule.take();
            gaps_ms.push((due - last).as_secs_f64() * 1e3);
            last = due;
        }
        let mean = gaps_ms.iter().sum::<f64>() / 1e5;
        assert!((mean - 1.0).abs() < 0.02, "{mean} ms");
        let variance = gaps_ms.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / 1e5;
        assert!((variance - 1.0).abs() < 0.05, "{variance}");
    }

    #[test]
    fn what_was_not_taken_is_counted() {
        let (start, schedule) = schedule(100, Process::Linear, 1);
        for _ in 0..30 {
            schedule.take();
        }
        assert_eq!(schedule.unsent(start + Duration::from_secs(1)), 70);
        assert_eq!(schedule.unsent(start + Duration::from_secs(1)), 0);
    }

    #[test]
    fn names_and_back() {
        for text in ["linear", "poisson"] {
            assert_eq!(text.parse::<Process>().unwrap().to_string(), text);
        }
        assert!("uniform".parse::<Process>().is_err());
    }
}
