//! Where the time of a write goes, stage by stage, and what it costs.
//!
//! One set per shard, shared by its groups. Counting is a few `Cell` updates; nothing allocates.

use std::cell::Cell;
use std::time::Duration;

/// Buckets of a histogram: powers of two of a microsecond, the last one open.
pub const BUCKETS: usize = 24;

/// A latency histogram.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [Cell<u64>; BUCKETS],
    sum_us: Cell<u64>,
}

/// A histogram's counts at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// Observations per bucket; bucket `n` holds those below `2^n` microseconds.
    pub counts: [u64; BUCKETS],
    /// Sum of all observations, in microseconds.
    pub sum_us: u64,
}

impl Histogram {
    /// Counts one observation.
    pub fn observe(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - us.leading_zeros()) as usize;
        let count = &self.counts[bucket.min(BUCKETS - 1)];
        count.set(count.get() + 1);
        self.sum_us.set(self.sum_us.get().saturating_add(us));
    }

    /// The counts now.
    #[must_use]
    pub fn snapshot(&self) -> HistogramSnapshot {
        let counts = std::array::from_fn(|bucket| self.counts[bucket].get());
        HistogramSnapshot {
            counts,
            sum_us: self.sum_us.get(),
        }
    }
}

impl HistogramSnapshot {
    /// Upper bound of a bucket in seconds; the last is open.
    #[must_use]
    pub fn upper_bound_s(bucket: usize) -> f64 {
        if bucket + 1 >= BUCKETS {
            f64::MAX
        } else {
            f64::from(1u32 << bucket) * 1e-6
        }
    }

    /// Number of observations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Who has found blocks that were damaged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FoundBy {
    /// A read of a client.
    Read,
    /// Reading all that is stored.
    Scrub,
    /// Comparing replicas, piece by piece or all at once.
    Compare,
    /// A copy to another replica.
    Copy,
    /// Another replica, which asked for them.
    Peer,
}

impl FoundBy {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [
        Self::Read,
        Self::Scrub,
        Self::Compare,
        Self::Copy,
        Self::Peer,
    ];
}

/// Damaged blocks that were put right, by who had found them.
#[derive(Debug, Default)]
pub struct Repaired([Cell<u64>; FoundBy::ALL.len()]);

impl Repaired {
    pub(crate) fn note(&self, by: FoundBy) {
        let count = &self.0[by as usize];
        count.set(count.get() + 1);
    }

    /// How many.
    #[must_use]
    pub fn count(&self, by: FoundBy) -> u64 {
        self.0[by as usize].get()
    }
}

/// The stages of requests on one shard.
#[derive(Debug, Default)]
pub struct GroupMetrics {
    /// From arrival until the request is handed to the group.
    pub queue: Histogram,
    /// From the log's append until the entry is durable here.
    pub log: Histogram,
    /// From sending an append request until the follower's answer.
    pub replicate: Histogram,
    /// Applying one committed entry.
    pub apply: Histogram,
    /// A whole mutating request, as the leader sees it.
    pub write: Histogram,
    /// A whole read, as the leader sees it.
    pub read: Histogram,
    /// Requests of clients and of leaders so far: what copies must leave room for.
    pub foreground: Cell<u64>,
    /// Bytes copied to join payloads.
    pub bytes_copied: Cell<u64>,
    /// Payload bytes of mutations proposed and applied here.
    pub bytes_proposed: Cell<u64>,
    /// Payload bytes of entries appended here, as leader or as follower.
    pub bytes_appended: Cell<u64>,
    /// Damaged blocks that were put right.
    pub repaired: Repaired,
}

impl GroupMetrics {
    pub(crate) fn count_foreground(&self) {
        self.foreground.set(self.foreground.get() + 1);
    }

    pub(crate) fn count_copy(&self, bytes: usize) {
        add(&self.bytes_copied, bytes);
    }

    pub(crate) fn count_proposal(&self, bytes: usize) {
        add(&self.bytes_proposed, bytes);
    }

    pub(crate) fn count_append(&self, bytes: usize) {
        add(&self.bytes_appended, bytes);
    }
}

fn add(counter: &Cell<u64>, bytes: usize) {
    counter.set(counter.get() + bytes as u64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finder_has_a_count_of_its_own() {
        let repaired = Repaired::default();
        for (at, by) in FoundBy::ALL.into_iter().enumerate() {
            assert_eq!(by as usize, at, "all, in order");
            (0..=at).for_each(|_| repaired.note(by));
        }
        assert_eq!(FoundBy::ALL.map(|by| repaired.count(by)), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn observations_land_below_their_bound() {
        let histogram = Histogram::default();
        for us in [0, 1, 2, 3, 100, 1_000_000, u64::MAX / 2] {
            histogram.observe(Duration::from_micros(us));
        }
        let seen = histogram.snapshot();
        assert_eq!(seen.count(), 7);
        assert_eq!((seen.counts[0], seen.counts[1], seen.counts[2]), (1, 1, 2));
        assert_eq!(seen.counts[7], 1, "100 us is below 128 us");
        assert_eq!(seen.counts[BUCKETS - 1], 1);
    }
}
