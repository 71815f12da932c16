//! What the next request of a lane is.
//!
//! *Place*: `run` asks once per request.
//! *Owner*: one job's lanes share its sequential position; each lane has a generator of its own.
//! *Invariants*: the same seed gives each lane the same draws; a sequential job goes round its own
//! share of the range; a request lies within the range.
//! *On failure*: none.

use crate::distribution::Places;
use crate::rw::Rw;
use crate::sizes::Sizes;
use crate::workload::{Plan, Workload};
use ogee_proto::unit::ByteLen;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

/// A place in the range: in units, counted from its start.
pub(crate) type Place = u64;

/// A request to make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ask {
    /// Or a write.
    pub(crate) is_read: bool,
    /// Where.
    pub(crate) place: Place,
    /// How long.
    pub(crate) len: ByteLen,
}

/// The sequential position of one job.
pub(crate) struct Walk {
    share: Range<Place>,
    next: Cell<Place>,
}

/// The draws of one lane.
pub(crate) struct Draw {
    rw: Rw,
    sizes: Rc<Sizes>,
    unit: u64,
    count: u64,
    places: Places,
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

    /// Goes on by `units`, round the end where they do not fit any more.
    fn step(&self, units: u64) -> Place {
        let next = self.next.get();
        let place = if next + units <= self.share.end {
            next
        } else {
            self.share.start
        };
        self.next.set(place + units);
        place
    }
}

impl Draw {
    /// The draws of lane `lane`, counted over all jobs and targets.
    pub(crate) fn new(plan: &Plan, workload: &Workload, sizes: &Rc<Sizes>, lane: usize) -> Self {
        // Far apart, so that neighbouring seeds and lanes share no stream.
        let mixed = workload.seed ^ (lane as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Self {
            rw: workload.rw,
            sizes: Rc::clone(sizes),
            unit: plan.unit.get(),
            count: plan.places,
            places: workload.distribution.places(plan.places),
            random: Xoshiro256PlusPlus::seed_from_u64(mixed),
        }
    }

    /// The next request.
    pub(crate) fn next(&mut self, walk: &Walk) -> Ask {
        let is_read = self.is_read();
        let len = self.len(is_read);
        let units = len.get() / self.unit;
        let place = if self.rw.is_random() {
            let fitting = self.count - units + 1;
            self.places.draw(fitting, &mut self.random)
        } else {
            walk.step(units)
        };
        Ask {
            is_read,
            place,
            len,
        }
    }

    fn is_read(&mut self) -> bool {
        match self.rw.read_percent() {
            0 => false,
            100 => true,
            percent => self.random.random_range(0..100) < percent,
        }
    }

    fn len(&mut self, is_read: bool) -> ByteLen {
        let mix = if is_read {
            &self.sizes.read
        } else {
            &self.sizes.write
        };
        let draw = if mix.is_mixed() {
            self.random.random_range(0..100)
        } else {
            0
        };
        mix.at(draw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn plan(workload: &Workload, size: u64) -> Plan {
        workload.plan(ByteLen::new(size), 1).unwrap()
    }

    fn draw(workload: &Workload, size: u64, lane: usize) -> (Walk, Draw) {
        let plan = plan(workload, size);
        let sizes = Rc::new(workload.sizes.clone());
        (
            Walk::new(&plan, 0, 1),
            Draw::new(&plan, workload, &sizes, lane),
        )
    }

    fn load(rw: &str) -> Workload {
        Workload {
            rw: rw.parse().unwrap(),
            ..Workload::default()
        }
    }

    #[test]
    fn sequential_jobs_go_round_their_own_shares() {
        let load = load("write");
        let plan = plan(&load, 40960);
        let walks: Vec<Walk> = (0..3).map(|job| Walk::new(&plan, job, 3)).collect();
        let (_, mut draw) = draw(&load, 40960, 0);
        let rounds: Vec<Vec<Place>> = walks
            .iter()
            .map(|walk| (0..5).map(|_| draw.next(walk).place).collect())
            .collect();
        assert_eq!(rounds, [[0, 1, 2, 0, 1], [3, 4, 5, 3, 4], [6, 7, 8, 9, 6]]);
    }

    #[test]
    fn the_same_seed_draws_the_same_and_lanes_differ() {
        let draws = |seed, lane| -> Vec<Ask> {
            let load = Workload {
                seed,
                ..load("randrw:30")
            };
            let (walk, mut draw) = draw(&load, 40960, lane);
            (0..200).map(|_| draw.next(&walk)).collect()
        };
        assert_eq!(draws(7, 0), draws(7, 0));
        assert_ne!(draws(7, 0), draws(7, 1));
        assert_ne!(draws(7, 0), draws(8, 0));
        let places: BTreeSet<Place> = draws(7, 0).iter().map(|ask| ask.place).collect();
        assert_eq!(places.len(), 10, "200 draws hit all of 10 places");
        let reads = draws(7, 0).iter().filter(|ask| ask.is_read).count();
        assert!((20..100).contains(&reads), "{reads} of 200 at 30 %");
    }

    #[test]
    fn mixed_sizes_stay_within_the_range_and_have_their_shares() {
        for rw in ["randrw", "rw"] {
            for distribution in ["uniform", "zipf:1.2"] {
                let load = Workload {
                    sizes: "4k/75:16k/25,8k".parse().unwrap(),
                    distribution: distribution.parse().unwrap(),
                    ..load(rw)
                };
                let (walk, mut draw) = draw(&load, 10 * 4096, 0);
                let asks: Vec<Ask> = (0..4000).map(|_| draw.next(&walk)).collect();
                let in_range = |ask: &Ask| ask.place + ask.len.get() / 4096 <= 10;
                assert!(asks.iter().all(in_range), "{rw} {distribution}");
                let count = |is_read, len| {
                    let asks = asks.iter();
                    asks.filter(|ask| ask.is_read == is_read && ask.len.get() == len)
                        .count()
                };
                assert_eq!(
                    count(false, 8192),
                    asks.iter().filter(|a| !a.is_read).count()
                );
                let (small, large) = (count(true, 4096), count(true, 16384));
                assert!(small > 2 * large && large > small / 5, "{small} {large}");
            }
        }
    }

    #[test]
    fn sequential_requests_follow_each_other_whatever_their_size() {
        let load = Workload {
            sizes: "4k/50:12k/50".parse().unwrap(),
            ..load("read")
        };
        let (walk, mut draw) = draw(&load, 1 << 20, 0);
        let mut end = 0;
        for _ in 0..50 {
            let ask = draw.next(&walk);
            assert_eq!(ask.place, end);
            end = ask.place + ask.len.get() / 4096;
        }
    }

    #[test]
    fn a_skewed_load_returns_to_the_same_places() {
        let hottest = |seed| {
            let load = Workload {
                seed,
                distribution: "zipf:1.2".parse().unwrap(),
                ..load("randread")
            };
            let (walk, mut draw) = draw(&load, 4096 * 4096, 0);
            let mut counts = vec![0; 4096];
            for _ in 0..10_000 {
                counts[usize::try_from(draw.next(&walk).place).unwrap()] += 1;
            }
            let (place, count) = counts.iter().enumerate().max_by_key(|(_, c)| **c).unwrap();
            (place, *count)
        };
        let ((first, count), (second, _)) = (hottest(1), hottest(2));
        assert_eq!(first, second);
        // 1 / sum of k^-1.2 up to 4096.
        assert!((1800..2800).contains(&count), "{count} of 10000");
    }
}
