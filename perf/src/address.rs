//! Where the next request of a lane goes.
//!
//! *Place*: `run` asks once per request.
//! *Owner*: one job's lanes share its sequential position; each lane has a generator of its own.
//! *Invariants*: the same seed gives each lane the same draws; a sequential job goes round its own
//! share of the range.
//! *On failure*: none.

use crate::workload::{Plan, Rw};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use std::cell::Cell;
use std::ops::Range;

/// A place in the range: request-sized, counted from its start.
pub(crate) type Place = u64;

/// The sequential position of one job.
pub(crate) struct Walk {
    share: Range<Place>,
    next: Cell<Place>,
}

/// The draws of one lane.
pub(crate) struct Draw {
    rw: Rw,
    places: u64,
    random: Xoshiro256PlusPlus,
}

impl Walk {
    /// The share of job `job` of `jobs`.
    pub(crate) fn new(plan: &Plan, job: usize, jobs: usize) -> Self {
        let (job, jobs) = (job as u64, jobs as u64);
        let share = plan.places * job / jobs..plan.places * (job + 1) / jobs;
        Self {
            next: Cell::new(share.start),
            share,
        }
    }

    fn step(&self) -> Place {
        let place = self.next.get();
        let after = place + 1;
        self.next.set(if after < self.share.end {
            after
        } else {
            self.share.start
        });
        place
    }
}

impl Draw {
    /// The draws of lane `lane`, counted over all jobs.
    pub(crate) fn new(plan: &Plan, rw: Rw, seed: u64, lane: usize) -> Self {
        // Far apart, so that neighbouring seeds and lanes share no stream.
        let mixed = seed ^ (lane as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Self {
            rw,
            places: plan.places,
            random: Xoshiro256PlusPlus::seed_from_u64(mixed),
        }
    }

    /// The next place.
    pub(crate) fn place(&mut self, walk: &Walk) -> Place {
        if self.rw.is_random() {
            self.random.random_range(0..self.places)
        } else {
            walk.step()
        }
    }

    /// Whether the next request is a read.
    pub(crate) fn is_read(&mut self) -> bool {
        match self.rw.read_percent() {
            0 => false,
            100 => true,
            percent => self.random.random_range(0..100) < percent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ogee_proto::unit::{ByteLen, ByteOffset};

    const PLAN: Plan = Plan {
        start: ByteOffset::ZERO,
        block: ByteLen::new(4096),
        places: 10,
    };

    #[test]
    fn sequential_jobs_go_round_their_own_shares() {
        let walks: Vec<Walk> = (0..3).map(|job| Walk::new(&PLAN, job, 3)).collect();
        let mut draw = Draw::new(&PLAN, Rw::Write, 1, 0);
        let rounds: Vec<Vec<Place>> = walks
            .iter()
            .map(|walk| (0..5).map(|_| draw.place(walk)).collect())
            .collect();
        assert_eq!(rounds, [[0, 1, 2, 0, 1], [3, 4, 5, 3, 4], [6, 7, 8, 9, 6]]);
    }

    #[test]
    fn the_same_seed_draws_the_same_and_lanes_differ() {
        let walk = Walk::new(&PLAN, 0, 1);
        let draws = |seed, lane| -> Vec<(Place, bool)> {
            let mut draw = Draw::new(&PLAN, Rw::RandRw { read_percent: 30 }, seed, lane);
            (0..200)
                .map(|_| (draw.place(&walk), draw.is_read()))
                .collect()
        };
        assert_eq!(draws(7, 0), draws(7, 0));
        assert_ne!(draws(7, 0), draws(7, 1));
        assert_ne!(draws(7, 0), draws(8, 0));
        let places: std::collections::BTreeSet<Place> =
            draws(7, 0).iter().map(|(place, _)| *place).collect();
        assert_eq!(places.len(), 10, "200 draws hit all of 10 places");
        let reads = draws(7, 0).iter().filter(|(_, read)| *read).count();
        assert!((20..100).contains(&reads), "{reads} of 200 at 30 %");
    }
}
