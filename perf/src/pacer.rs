//! The rate limit.
//!
//! *Place*: each request of a limited run takes a turn here first.
//! *Owner*: the run; one cell.
//! *Invariants*: turns are evenly spaced; a run that fell behind by more than `SLACK` does not make
//! the lost turns up in one burst.
//! *On failure*: none.

use ogee_runtime::{Instant, sleep_until};
use std::cell::Cell;
use std::num::NonZeroU32;
use std::time::Duration;

/// What may be made up after a stall.
const SLACK: Duration = Duration::from_millis(100);

/// Evenly spaced turns.
pub(crate) struct Pacer {
    gap: Duration,
    next: Cell<Instant>,
}

impl Pacer {
    /// `rate` turns per second from `now` on.
    pub(crate) fn new(rate: NonZeroU32, now: Instant) -> Self {
        Self {
            gap: Duration::from_secs(1) / rate.get(),
            next: Cell::new(now),
        }
    }

    /// Waits for the next turn.
    pub(crate) async fn turn(&self) {
        let now = ogee_runtime::now();
        let due = self.take(now);
        if due > now {
            sleep_until(due).await;
        }
    }

    fn take(&self, now: Instant) -> Instant {
        let earliest = now.checked_sub(SLACK).unwrap_or(now);
        let due = self.next.get().max(earliest);
        self.next.set(due + self.gap);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_spaced_and_a_stall_is_not_made_up_in_full() {
        let start = ogee_runtime::now();
        let pacer = Pacer::new(NonZeroU32::new(1000).unwrap(), start);
        let ms = Duration::from_millis;
        assert_eq!(
            [pacer.take(start), pacer.take(start)],
            [start, start + ms(1)]
        );
        let later = start + Duration::from_secs(10);
        let burst = (0..1000).take_while(|_| pacer.take(later) <= later).count();
        assert_eq!(burst, 101);
    }
}
