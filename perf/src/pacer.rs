//! The rate limits.
//!
//! *Place*: each request of a limited run takes a turn here first.
//! *Owner*: the run; one cell for each limit.
//! *Invariants*: turns are spaced by what they cost; a run that fell behind by more than `SLACK` does
//! not make the lost turns up in one burst.
//! *On failure*: none.

use ogee_runtime::Instant;
use std::cell::Cell;
use std::num::NonZeroU64;
use std::time::Duration;

/// What may be made up after a stall.
const SLACK: Duration = Duration::from_millis(100);

/// Spaced turns.
pub(crate) struct Pacer {
    /// What a second is worth: requests or bytes.
    per_second: NonZeroU64,
    next: Cell<Instant>,
}

impl Pacer {
    /// Turns that cost `per_second` each second from `now` on.
    pub(crate) fn new(per_second: NonZeroU64, now: Instant) -> Self {
        Self {
            per_second,
            next: Cell::new(now),
        }
    }

    /// When the next turn, which costs `cost`, is due.
    pub(crate) fn take(&self, cost: u64, now: Instant) -> Instant {
        let earliest = now.checked_sub(SLACK).unwrap_or(now);
        let due = self.next.get().max(earliest);
        let gap_ns = u128::from(cost) * 1_000_000_000 / u128::from(self.per_second.get());
        let gap = Duration::from_nanos(u64::try_from(gap_ns).unwrap_or(u64::MAX));
        self.next.set(due + gap);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_spaced_and_a_stall_is_not_made_up_in_full() {
        let start = ogee_runtime::now();
        let pacer = Pacer::new(NonZeroU64::new(1000).unwrap(), start);
        let ms = Duration::from_millis;
        assert_eq!(
            [pacer.take(1, start), pacer.take(1, start)],
            [start, start + ms(1)]
        );
        let later = start + Duration::from_secs(10);
        let burst = (0..1000)
            .take_while(|_| pacer.take(1, later) <= later)
            .count();
        assert_eq!(burst, 101);
    }

    #[test]
    fn a_turn_is_spaced_by_its_cost() {
        let start = ogee_runtime::now();
        let pacer = Pacer::new(NonZeroU64::new(1 << 20).unwrap(), start);
        assert_eq!(pacer.take(1 << 19, start), start);
        assert_eq!(
            pacer.take(1 << 18, start),
            start + Duration::from_millis(500)
        );
        assert_eq!(pacer.take(1, start), start + Duration::from_millis(750));
    }
}
