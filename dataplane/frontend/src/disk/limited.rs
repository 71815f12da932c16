//! A disk that takes no more than it was granted: requests and bytes in a second.
//!
//! *Place*: between a frontend and a volume, once for each volume that is served. *Owner*: one shard.
//! *Invariants*: over any stretch of time, no more begins than the rate allows for it and the burst on top; requests begin
//! in the order in which they came. A request that is larger than the burst begins when all before it is paid for, and
//! those behind it wait until it is. What waits counts as under way, so its number is bounded by the frontend.
//! *On failure*: a request that is dropped while it waits has taken its share; one that fails has, too.

use super::contract::{BlockRun, Disk};
use super::error::DiskError;
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::channel::watch;
use ogee_runtime::{Instant, Payload, Target, now, sleep_until};
use std::cell::Cell;
use std::num::NonZeroU64;
use std::time::Duration;

/// What a disk may take in a second. The default: whatever comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rates {
    /// Requests: reads, writes, discards and write-zeroes alike.
    pub iops: Option<NonZeroU64>,
    /// Bytes read and written.
    pub bytes: Option<NonZeroU64>,
    /// An idle disk saves up what it may take in so long.
    pub burst: Duration,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            iops: None,
            bytes: None,
            burst: Duration::from_secs(1),
        }
    }
}

/// A disk with [`Rates`].
pub struct LimitedDisk<D> {
    disk: D,
    requests: Option<Bucket>,
    bytes: Option<Bucket>,
}

impl<D: Disk> LimitedDisk<D> {
    /// Limits `disk`.
    pub fn new(disk: D, rates: Rates) -> Self {
        let bucket = |rate: NonZeroU64| Bucket::new(rate, rates.burst);
        Self {
            disk,
            requests: rates.iops.map(bucket),
            bytes: rates.bytes.map(bucket),
        }
    }

    /// Waits until a request that moves `bytes` may begin.
    async fn admit(&self, bytes: u64) {
        if self.requests.is_none() && self.bytes.is_none() {
            return;
        }
        let arrived = now();
        let begin = |bucket: &Option<Bucket>, amount| {
            let bucket = bucket.as_ref();
            bucket.map_or(arrived, |bucket| bucket.take(amount, arrived))
        };
        let at = begin(&self.requests, 1).max(begin(&self.bytes, bytes));
        if at > arrived {
            sleep_until(at).await;
        }
    }
}

/// Fills at a rate, up to what it holds; may be overdrawn by the request that empties it.
struct Bucket {
    rate: NonZeroU64,
    burst: Duration,
    /// When all that was taken is paid for.
    even_at: Cell<Option<Instant>>,
}

impl Bucket {
    const fn new(rate: NonZeroU64, burst: Duration) -> Self {
        Self {
            rate,
            burst,
            even_at: Cell::new(None),
        }
    }

    /// Takes `amount`, and says from when on it may be used.
    fn take(&self, amount: u64, arrived: Instant) -> Instant {
        let even_at = self.even_at.get().map_or(arrived, |at| at.max(arrived));
        self.even_at.set(Some(even_at + self.price(amount)));
        let debt = even_at.saturating_duration_since(arrived);
        arrived + debt.saturating_sub(self.burst)
    }

    /// The time in which so much comes in.
    fn price(&self, amount: u64) -> Duration {
        let nanos = u128::from(amount) * 1_000_000_000 / u128::from(self.rate.get());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl<D: Disk> Disk for LimitedDisk<D> {
    fn size(&self) -> ByteLen {
        self.disk.size()
    }

    fn block_size(&self) -> ByteLen {
        self.disk.block_size()
    }

    fn read_only(&self) -> bool {
        self.disk.read_only()
    }

    fn is_write_through(&self) -> bool {
        self.disk.is_write_through()
    }

    fn resized(&self) -> watch::Receiver<ByteLen> {
        self.disk.resized()
    }

    async fn read(&self, offset: ByteOffset, len: ByteLen) -> Result<Vec<Payload>, DiskError> {
        self.admit(len.get()).await;
        self.disk.read(offset, len).await
    }

    async fn read_to(&self, offset: ByteOffset, into: &Target) -> Result<(), DiskError> {
        self.admit(into.len() as u64).await;
        self.disk.read_to(offset, into).await
    }

    async fn write(&self, offset: ByteOffset, data: Payload) -> Result<(), DiskError> {
        self.admit(data.len() as u64).await;
        self.disk.write(offset, data).await
    }

    async fn write_zeroes(
        &self,
        offset: ByteOffset,
        len: ByteLen,
        may_unmap: bool,
    ) -> Result<(), DiskError> {
        self.admit(0).await;
        self.disk.write_zeroes(offset, len, may_unmap).await
    }

    async fn discard(&self, offset: ByteOffset, len: ByteLen) -> Result<(), DiskError> {
        self.admit(0).await;
        self.disk.discard(offset, len).await
    }

    async fn flush(&self) -> Result<(), DiskError> {
        self.disk.flush().await
    }

    async fn block_status(
        &self,
        offset: ByteOffset,
        len: ByteLen,
    ) -> Result<Vec<BlockRun>, DiskError> {
        self.disk.block_status(offset, len).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;
    use futures_util::future::join_all;
    use ogee_runtime::executor::block_on;
    use proptest::prelude::*;

    fn bucket(rate: u64, burst_ms: u64) -> Bucket {
        let burst = Duration::from_millis(burst_ms);
        Bucket::new(NonZeroU64::new(rate).unwrap(), burst)
    }

    #[test]
    fn what_was_saved_goes_at_once_and_the_rest_at_the_rate() {
        block_on(async {
            // 100 in a second, 50 of them saved up.
            let (bucket, start) = (bucket(100, 500), now());
            let begun: Vec<_> = (0..60)
                .map(|_| bucket.take(1, start).saturating_duration_since(start))
                .collect();
            assert!(begun[..51].iter().all(Duration::is_zero), "{begun:?}");
            assert_eq!(begun[51], Duration::from_millis(10));
            assert_eq!(begun[59], Duration::from_millis(90));
            // Much later all is saved up again, and not more.
            let later = start + Duration::from_secs(100);
            let free = (0..60).filter(|_| bucket.take(1, later) == later).count();
            assert_eq!(free, 51);
        });
    }

    #[test]
    fn a_request_above_the_burst_begins_and_is_paid_for_by_those_behind_it() {
        block_on(async {
            let (bucket, start) = (bucket(1000, 100), now());
            assert_eq!(bucket.take(5000, start), start);
            let next = bucket.take(1, start).saturating_duration_since(start);
            assert_eq!(next, Duration::from_millis(4900));
        });
    }

    proptest! {
        #[test]
        fn no_stretch_holds_more_than_its_rate_and_the_burst(
            rate in 1u64..5000, burst in 0u64..2000,
            steps in prop::collection::vec((0u64..300, 1u64..40), 1..100),
        ) {
            block_on(async {
                let bucket = bucket(rate, burst);
                let (mut at, mut begun, largest) = (now(), Vec::new(), 40);
                for (pause, amount) in steps {
                    at += Duration::from_millis(pause);
                    begun.push((bucket.take(amount, at), amount));
                }
                prop_assert!(begun.is_sorted_by_key(|(begin, _)| *begin));
                for from in 0..begun.len() {
                    let mut sum = 0;
                    for (begin, amount) in &begun[from..] {
                        sum += amount;
                        let span = begin.saturating_duration_since(begun[from].0) + bucket.burst;
                        let allowed = span.as_secs_f64() * bucket.rate.get() as f64;
                        // The last one may overdraw.
                        prop_assert!(sum as f64 <= allowed + largest as f64 + 1.0);
                    }
                }
                Ok(())
            })?;
        }
    }

    /// How long so many reads of 4 KiB take, all at once.
    async fn reads_take(rates: Rates, count: usize) -> Duration {
        let disk = LimitedDisk::new(MemoryDisk::new(ByteLen::new(1 << 20)), rates);
        let started = now();
        let (at, len) = (ByteOffset::ZERO, ByteLen::new(4096));
        let reads = (0..count).map(|_| disk.read(at, len));
        assert!(join_all(reads).await.iter().all(Result::is_ok));
        now().saturating_duration_since(started)
    }

    #[test]
    fn a_disk_is_held_to_both_rates() {
        block_on(async {
            let burst = Duration::from_millis(20);
            let (none, rate) = (Rates::default(), NonZeroU64::new);
            assert!(reads_take(none, 100).await < Duration::from_millis(500));
            let iops = Rates {
                iops: rate(200),
                burst,
                ..none
            };
            let took = reads_take(iops, 60).await;
            assert!(
                (Duration::from_millis(270)..Duration::from_secs(3)).contains(&took),
                "{took:?}"
            );
            let bytes = Rates {
                bytes: rate(200 * 4096),
                burst,
                ..iops
            };
            let bytes = Rates {
                iops: None,
                ..bytes
            };
            let took = reads_take(bytes, 60).await;
            assert!(
                (Duration::from_millis(270)..Duration::from_secs(3)).contains(&took),
                "{took:?}"
            );
        });
    }
}
