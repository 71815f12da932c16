//! How long an idle queue looks for requests by itself before it sleeps.
//!
//! *Place*: in `queue`, one for each. *Owner*: the queue's task. *Invariants*: never more than the operator allows; where
//! waits are longer than that, none at all: looking would have found nothing. *On failure*: none.

use std::time::Duration;

/// The first step up from nothing is so much of the most.
const FIRST_PART: u32 = 8;

/// Learns from each wait whether looking would have paid.
#[derive(Debug)]
pub(super) struct Patience {
    most: Duration,
    now: Duration,
}

impl Patience {
    /// As the operator allows; begins with all of it.
    pub(super) const fn new(most: Duration) -> Self {
        Self { most, now: most }
    }

    /// How long to look this time.
    pub(super) const fn now(&self) -> Duration {
        self.now
    }

    /// A wait is over: from the last request's end to the next one's arrival.
    pub(super) fn waited(&mut self, time: Duration) {
        if time > self.most {
            self.now = match self.now / 2 {
                less if less < self.most / FIRST_PART => Duration::ZERO,
                less => less,
            };
        } else if time > self.now {
            self.now = (self.now * 2).max(self.most / FIRST_PART).min(self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_micros(80);
    const LONG: Duration = Duration::from_millis(5);

    #[test]
    fn long_waits_end_the_looking_and_short_ones_bring_it_back() {
        let mut patience = Patience::new(MOST);
        assert_eq!(patience.now(), MOST);
        (0..3).for_each(|_| patience.waited(LONG));
        assert_eq!(patience.now(), MOST / 8);
        patience.waited(LONG);
        assert_eq!(patience.now(), Duration::ZERO);
        // Slept through: it would have been worth it.
        for expected in [10, 20, 40, 80, 80] {
            patience.waited(Duration::from_micros(79));
            let expected = Duration::from_micros(expected);
            assert_eq!(patience.now(), expected.min(MOST));
        }
        // One long wait among short ones costs half.
        patience.waited(LONG);
        assert_eq!(patience.now(), MOST / 2);
    }

    #[test]
    fn what_is_found_while_looking_changes_nothing_and_none_stays_none() {
        let mut patience = Patience::new(MOST);
        patience.waited(LONG);
        patience.waited(Duration::from_micros(30));
        assert_eq!(patience.now(), MOST / 2);
        let mut none = Patience::new(Duration::ZERO);
        for wait in [Duration::ZERO, Duration::from_nanos(1), LONG] {
            none.waited(wait);
            assert_eq!(none.now(), Duration::ZERO);
        }
    }
}
