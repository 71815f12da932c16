//! How fast new writes enter the log while a write-back cycle is under way.
//!
//! *Place*: the keeper sets the rate, the leader's groups pass their writes through.
//! *Owner*: one per store, shared by its groups; single-threaded.
//! *Invariants*: without a rate nobody waits; nobody waits longer than [`PACE_WAIT_MAX`].
//! *On failure*: none. A log that fills all the same stops its writers, see `Replica::reserve_log`.
//!
//! A cycle frees its part of the log only at its end. Writers that outrun it would find the log full
//! and stand still for the rest of the cycle: seconds, at full load. Spread over the cycle, the room
//! that is left lets every write wait a little instead.

use crate::limit::{PACE_RATE_MIN, PACE_WAIT_MAX};
use ogee_proto::unit::ByteLen;
use ogee_runtime::Instant;
use std::cell::Cell;
use std::time::Duration;

/// Bytes per second that may enter a store's log.
#[derive(Debug, Default)]
pub(crate) struct Pacer {
    rate: Cell<Option<u64>>,
    /// When the last write let in has been paid for.
    paid: Cell<Option<Instant>>,
}

impl Pacer {
    /// From now on, `room` may be used up within `time`.
    pub(crate) fn spread(&self, room: ByteLen, time: Duration) {
        let nanos = time.as_nanos().max(1);
        let rate = u128::from(room.get()) * Duration::from_secs(1).as_nanos() / nanos;
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        self.rate.set(Some(rate.max(PACE_RATE_MIN)));
    }

    /// From now on nobody waits.
    pub(crate) fn release(&self) {
        self.rate.set(None);
        self.paid.set(None);
    }

    /// Waits for the turn of a write that takes `cost` of the log.
    pub(crate) async fn pass(&self, cost: ByteLen) {
        let Some(rate) = self.rate.get() else {
            return;
        };
        let now = ogee_runtime::now();
        let turn = self.paid.get().map_or(now, |paid| paid.max(now));
        let turn = turn.min(now + PACE_WAIT_MAX);
        self.paid.set(Some(turn + price(cost, rate)));
        if turn > now {
            ogee_runtime::sleep_until(turn).await;
        }
    }
}

fn price(cost: ByteLen, rate: u64) -> Duration {
    let nanos = u128::from(cost.get()) * Duration::from_secs(1).as_nanos() / u128::from(rate);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::Pacer;
    use crate::fixture::run;
    use crate::limit::PACE_WAIT_MAX;
    use ogee_proto::unit::ByteLen;
    use std::time::Duration;

    const MIB: u64 = 1 << 20;

    /// Passes `count` writes of one MiB and says how long that took.
    async fn passing(pacer: &Pacer, count: usize) -> Duration {
        let started = ogee_runtime::now();
        for _ in 0..count {
            pacer.pass(ByteLen::new(MIB)).await;
        }
        ogee_runtime::now().saturating_duration_since(started)
    }

    #[test]
    fn writes_wait_for_their_turn_only_while_there_is_a_rate() {
        run(async {
            let pacer = Pacer::default();
            pacer.spread(ByteLen::new(100 * MIB), Duration::from_secs(1));
            let paced = passing(&pacer, 21).await;
            assert!(paced >= Duration::from_millis(200), "{paced:?}");
            pacer.release();
            let free = passing(&pacer, 21).await;
            assert!(free < paced / 4, "{free:?}, paced {paced:?}");
        });
    }

    #[test]
    fn no_room_left_is_a_bounded_wait() {
        run(async {
            let pacer = Pacer::default();
            pacer.spread(ByteLen::new(0), Duration::from_secs(1));
            let took = passing(&pacer, 3).await;
            assert!(took >= PACE_WAIT_MAX, "{took:?}");
            assert!(took < 10 * PACE_WAIT_MAX, "{took:?}");
        });
    }
}
