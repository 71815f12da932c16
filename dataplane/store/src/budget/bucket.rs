//! A limit in bytes per second, shared without a lock.
//!
//! *Place*: behind the lines of one or more shards. *Owner*: whoever holds it; the only thing here that threads share.
//! *Invariants*: a draw begins when what was drawn before it has been paid for, at the limit; up to [`Bucket::BURST`] of
//! what nobody has drawn may be made up for, so that timers that come late cost nothing. Draws of several shards begin in
//! the order in which they were asked for. *On failure*: none.
//!
//! It is the virtual scheduling algorithm (ITU-T I.371): one number, the time up to which all is paid for, which each draw
//! moves on by its price.

use ogee_runtime::{Instant, now};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const NANOS: u128 = 1_000_000_000;

/// Bytes per second.
#[derive(Debug)]
pub struct Bucket {
    /// `u64::MAX`: none.
    limit: AtomicU64,
    origin: Instant,
    /// What was drawn is paid for at this time, in nanoseconds from the origin.
    paid: AtomicU64,
}

impl Bucket {
    /// What nobody has drawn is kept for so long.
    pub const BURST: Duration = Duration::from_millis(25);

    /// So many bytes per second.
    #[must_use]
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicU64::new(limit.max(1)),
            origin: now(),
            paid: AtomicU64::new(0),
        })
    }

    /// As much as anybody wants.
    #[must_use]
    pub fn unlimited() -> Arc<Self> {
        Self::new(u64::MAX)
    }

    /// Bytes per second; `u64::MAX`: no limit.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// From the next draw on.
    pub(super) fn set_limit(&self, limit: u64) {
        self.limit.store(limit.max(1), Ordering::Relaxed);
    }

    pub(super) fn is_unlimited(&self) -> bool {
        self.limit() == u64::MAX
    }

    /// Draws; from when on it counts, which may be in the past.
    pub(super) fn draw(&self, now: Instant, bytes: usize) -> Instant {
        let price = u128::from(bytes as u64) * NANOS / u128::from(self.limit());
        let price = u64::try_from(price).unwrap_or(u64::MAX);
        let earliest = nanos(
            now.saturating_duration_since(self.origin)
                .saturating_sub(Self::BURST),
        );
        let mut paid = self.paid.load(Ordering::Relaxed);
        loop {
            let begins = paid.max(earliest);
            let next = begins.saturating_add(price);
            // Nothing else is told by this number, so it needs no order with anything.
            match self
                .paid
                .compare_exchange_weak(paid, next, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return self.origin + Duration::from_nanos(begins),
                Err(other) => paid = other,
            }
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::Bucket;
    use ogee_runtime::executor::block_on;
    use proptest::collection::vec;
    use proptest::prelude::{any, prop_assert, proptest};
    use std::time::Duration;

    const LIMIT: u64 = 8 << 20;
    const PIECE: usize = 256 << 10;

    /// Draws of as many shards as there are numbers: each is under way once at a time, pauses as it likes, and is woken
    /// late. When each went out, and how much.
    fn played(bucket: &Bucket, shards: &[Vec<(usize, u16, u16)>]) -> Vec<(Duration, usize)> {
        let origin = bucket.origin;
        let mut at: Vec<(Duration, usize)> = shards.iter().map(|_| (Duration::ZERO, 0)).collect();
        let mut out = Vec::new();
        loop {
            let left = (0..shards.len()).filter(|shard| at[*shard].1 < shards[*shard].len());
            let Some(shard) = left.min_by_key(|shard| at[*shard].0) else {
                return out;
            };
            let (time, step) = at[shard];
            let (len, pause_ms, late_us) = shards[shard][step];
            let asked = time + Duration::from_millis(u64::from(pause_ms % 80));
            let begins = bucket.draw(origin + asked, len) - origin;
            let late = Duration::from_micros(u64::from(late_us % 20_000));
            let goes = asked.max(begins + late * u32::from(begins > asked));
            out.push((goes, len));
            at[shard] = (goes, step + 1);
        }
    }

    proptest! {
        #[test]
        fn no_window_has_more_than_the_limit_and_one_burst(
            shards in vec(vec((1..PIECE, any::<u16>(), any::<u16>()), 1..60), 1..4),
        ) {
            let (mut out, count) = block_on(async {
                let bucket = Bucket::new(LIMIT);
                (played(&bucket, &shards), shards.len())
            });
            out.sort_unstable();
            let per_second = |time: Duration| time.as_secs_f64() * LIMIT as f64;
            let burst = per_second(Bucket::BURST) + ((count + 1) * PIECE) as f64;
            for (from, (began, _)) in out.iter().enumerate() {
                let mut sum = 0;
                for (at, len) in &out[from..] {
                    sum += len;
                    let most = per_second(*at - *began) + burst;
                    prop_assert!(sum as f64 <= most, "{sum} of {most} from {began:?} to {at:?}");
                }
            }
        }

        /// Who always has something to draw gets the limit, however late it is woken within a burst.
        #[test]
        fn late_timers_cost_nothing(late in vec(0..20u64, 100)) {
            let took = block_on(async {
                let bucket = Bucket::new(LIMIT);
                let mut at = Duration::ZERO;
                for late in &late {
                    let begins = bucket.draw(bucket.origin + at, PIECE) - bucket.origin;
                    at = at.max(begins + Duration::from_millis(*late));
                }
                at
            });
            let sum = (late.len() * PIECE) as f64;
            prop_assert!(sum / took.as_secs_f64() >= 0.95 * LIMIT as f64, "in {took:?}");
        }
    }

    #[test]
    fn threads_share_it_and_lose_nothing() {
        block_on(async {
            let bucket = Bucket::new(LIMIT);
            let began = bucket.origin;
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for _ in 0..1000 {
                            let _begins = bucket.draw(began, 4096);
                        }
                    });
                }
            });
            let next = bucket.draw(began, 4096) - began;
            let price = 4096 * 1_000_000_000 / LIMIT;
            assert_eq!(next, Duration::from_nanos(4000 * price));
        });
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        block_on(async {
            let bucket = Bucket::unlimited();
            assert!(bucket.is_unlimited());
            let begins = bucket.draw(bucket.origin, usize::MAX);
            assert_eq!(begins, bucket.origin);
        });
    }
}
