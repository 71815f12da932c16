//! Pauses between attempts: doubling, bounded, jittered so that a thousand clients of a restarted
//! server do not arrive together.

use ogee_runtime::random_u64;
use std::time::Duration;

/// The next pause.
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts at `min`, ends at `max`.
    pub(super) fn new(min: Duration, max: Duration) -> Self {
        Self {
            min,
            max: max.max(min),
            next: min,
        }
    }

    /// After a connection that was good.
    pub(super) const fn reset(&mut self) {
        self.next = self.min;
    }

    /// Half of the step, plus a random part of the other half.
    pub(super) fn pause(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.max);
        jittered(step, random_u64())
    }
}

fn jittered(step: Duration, random: u64) -> Duration {
    let half = step / 2;
    let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
    half + Duration::from_nanos(random % nanos.saturating_add(1).max(1))
}

#[cfg(test)]
mod tests {
    use super::{Backoff, jittered};
    use std::time::Duration;

    #[test]
    fn jitter_stays_between_half_and_whole() {
        let step = Duration::from_millis(10);
        assert_eq!(jittered(step, 0), step / 2);
        assert_eq!(jittered(step, 5_000_000), step);
        assert!(jittered(step, u64::MAX) >= step / 2 && jittered(step, u64::MAX) <= step);
        assert_eq!(jittered(Duration::ZERO, 7), Duration::ZERO);
    }

    #[test]
    fn steps_double_up_to_the_bound_and_start_over() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(10), ms(25));
        for step in [ms(10), ms(20), ms(25), ms(25)] {
            assert_eq!(backoff.next, step);
            backoff.next = (backoff.next * 2).min(backoff.max);
        }
        backoff.reset();
        assert_eq!(backoff.next, ms(10));
    }
}
