//! How fast writes enter the log while a cycle needs its room: `group/pacer` without limits of copies.

use crate::limit::{PACE_RATE_MIN, PACE_WAIT_MAX};
use ogee_proto::unit::ByteLen;
use ogee_runtime::Instant;
use std::cell::Cell;
use std::time::Duration;

/// Bytes per second that may enter the log.
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

    /// Whether anybody may have to wait.
    pub(crate) const fn is_on(&self) -> bool {
        self.rate.get().is_some()
    }

    /// When a write that takes `cost` of the log may enter it, if it has to wait.
    pub(crate) fn turn(&self, cost: ByteLen) -> Option<Instant> {
        let rate = self.rate.get()?;
        let now = ogee_runtime::now();
        let turn = self.paid.get().map_or(now, |paid| paid.max(now));
        let turn = turn.min(now + PACE_WAIT_MAX);
        let nanos = u128::from(cost.get()) * Duration::from_secs(1).as_nanos() / u128::from(rate);
        let price = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.paid.set(Some(turn + price));
        (turn > now).then_some(turn)
    }
}
