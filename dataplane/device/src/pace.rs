//! How long requests take, added up so that whoever looks now and then knows the mean of the time between.
//!
//! *Place*: beside the counters; the handle enters each request and leaves it. *Owner*: the device.
//! *Invariants*: what is added up is the time that requests have waited, those under way included: a device that
//! answers nothing for a second has made its requests wait for that second, not for none. Two clock readings and no
//! allocation for a request. *On failure*: a request that fails, or whose caller loses interest, has left as well.

use crate::operation::Operation;
use ogee_runtime::{Instant, now};
use std::cell::Cell;

/// Requests of one kind since the device was opened. The mean time of those between two looks is the difference of
/// `waited_ns` over that of `ops` (Little's law).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flow {
    /// That have ended.
    pub ops: u64,
    /// Bytes that these were about.
    pub bytes: u64,
    /// Nanoseconds that they and those under way have waited, all together.
    pub waited_ns: u64,
}

/// All kinds that say how a device fares.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pace {
    /// Writes, durable ones included.
    pub writes: Flow,
    /// Flushes.
    pub flushes: Flow,
    /// Reads.
    pub reads: Flow,
}

#[derive(Clone, Copy, Debug, Default)]
struct Meter {
    flow: Flow,
    under_way: u64,
    /// When `waited_ns` was last brought up to date.
    as_of: Option<Instant>,
}

impl Meter {
    fn bring_up(&mut self, now: Instant) {
        let since = self.as_of.replace(now).unwrap_or(now);
        let passed = now.saturating_duration_since(since).as_nanos();
        let waited = passed.saturating_mul(u128::from(self.under_way));
        let waited = u64::try_from(waited).unwrap_or(u64::MAX);
        self.flow.waited_ns = self.flow.waited_ns.saturating_add(waited);
    }
}

/// The meters of one device.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    writes: Cell<Meter>,
    flushes: Cell<Meter>,
    reads: Cell<Meter>,
}

/// A request that is under way.
pub(crate) struct UnderWay<'a> {
    meter: Option<&'a Cell<Meter>>,
    bytes: u64,
}

impl Meters {
    pub(crate) fn pace(&self) -> Pace {
        let now = now();
        let flow = |meter: &Cell<Meter>| {
            let mut read = meter.get();
            read.bring_up(now);
            read.flow
        };
        Pace {
            writes: flow(&self.writes),
            flushes: flow(&self.flushes),
            reads: flow(&self.reads),
        }
    }

    /// Discards say nothing: what they cost is the drive's own affair.
    pub(crate) fn enter(&self, operation: Operation, bytes: u64) -> UnderWay<'_> {
        let meter = match operation {
            Operation::Read => Some(&self.reads),
            Operation::Write | Operation::WriteDurable => Some(&self.writes),
            Operation::Flush => Some(&self.flushes),
            Operation::Discard => None,
        };
        if let Some(meter) = meter {
            let mut entered = meter.get();
            entered.bring_up(now());
            entered.under_way += 1;
            meter.set(entered);
        }
        UnderWay { meter, bytes }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Some(meter) = self.meter {
            let mut left = meter.get();
            left.bring_up(now());
            left.under_way -= 1;
            left.flow.ops += 1;
            left.flow.bytes = left.flow.bytes.saturating_add(self.bytes);
            meter.set(left);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Device, FaultPlan, FaultRule, Operation};
    use ogee_proto::unit::{ByteLen, ByteOffset};
    use ogee_runtime::{Buffer, executor, sleep, spawn_scoped, timeout};
    use std::time::Duration;

    const BLOCK: ByteLen = ByteLen::new(4096);
    const DELAY: Duration = Duration::from_millis(40);

    fn slow(operation: Operation) -> Device {
        let plan = FaultPlan::from(FaultRule::delay(operation, DELAY));
        Device::fault(Device::memory(ByteLen::new(1 << 20)), plan).0
    }

    #[test]
    fn each_kind_is_told_apart() {
        executor::block_on(async {
            let device = slow(Operation::WriteDurable);
            let at = ByteOffset::ZERO;
            device.read(at, BLOCK).await.expect("read");
            device.flush().await.expect("flush");
            for _ in 0..2 {
                let data = Buffer::zeroed(4096);
                device.write_durable(at, data).await.expect("write");
            }
            let pace = device.pace();
            let counts = [pace.writes, pace.flushes, pace.reads].map(|flow| (flow.ops, flow.bytes));
            assert_eq!(counts, [(2, 8192), (1, 0), (1, 4096)]);
            let least = u64::try_from(2 * DELAY.as_nanos()).expect("short");
            assert!(pace.writes.waited_ns >= least, "{pace:?}");
            assert!(pace.reads.waited_ns < least / 2, "{pace:?}");
        });
    }

    #[test]
    fn what_is_under_way_counts_and_what_was_given_up_does_not_for_ever() {
        executor::block_on(async {
            let device = slow(Operation::Read);
            let reads = [0, 1].map(|block| {
                let device = device.clone();
                spawn_scoped(async move {
                    let at = ByteOffset::new(block * 4096);
                    let short = timeout(DELAY * 3 / 4, device.read(at, BLOCK));
                    assert!(short.await.is_err(), "it takes longer");
                })
            });
            sleep(DELAY / 2).await;
            let stuck = device.pace().reads;
            let half = u64::try_from(DELAY.as_nanos() / 2).expect("short");
            assert_eq!(stuck.ops, 0);
            assert!(stuck.waited_ns >= half, "{stuck:?}");
            for read in reads {
                assert!(read.await.is_ok(), "it ended by itself");
            }
            let left = device.pace().reads;
            assert_eq!(left.ops, 2);
            sleep(DELAY / 4).await;
            assert_eq!(device.pace().reads, left, "nothing is under way");
        });
    }
}
