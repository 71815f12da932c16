//! Whether an executor that has nothing to do looks for completions before it sleeps.
//!
//! **Place.** Beside `driver`, which looks. **Owner.** One executor. **Invariants.** What is looked for in vain costs little:
//! after each such look the next `1, 3, 7, … REST_MAX` sleeps come without one, and the first that pays ends that. (As KVM
//! does it with processors that halt: `Documentation/virt/kvm/halt-polling.rst` of Linux.) So it is where others want the
//! processor: the kernel has taken it away since the last look. An executor that several completions woke has many requests
//! under way; to take them one by one would only make its turns smaller, so it sleeps. **Failure.** Where the kernel does not
//! tell, nobody is thought to want the processor.

use std::cell::Cell;
use std::thread;
use std::time::Duration;

use super::sys;

/// Sleeps without a look after looks that found nothing, at most.
const REST_MAX: u32 = 63;
/// More completions than these in one turn are of many requests.
const FEW: usize = 2;

pub(super) struct Spin {
    longest: Duration,
    /// Sleeps that still come without a look.
    rest: Cell<u32>,
    /// After a look in vain.
    next_rest: Cell<u32>,
    is_deep: Cell<bool>,
    /// How often the processor was taken away, as of the last look.
    preempted: Cell<i64>,
}

impl Spin {
    /// On a machine with one processor it is not worth while.
    pub(super) fn new(longest: Duration) -> Self {
        let is_alone = thread::available_parallelism().is_ok_and(|count| count.get() == 1);
        let longest = if is_alone { Duration::ZERO } else { longest };
        Self::of(longest, sys::preemptions())
    }

    fn of(longest: Duration, preempted: i64) -> Self {
        Self {
            longest,
            preempted: Cell::new(preempted),
            rest: Cell::new(0),
            next_rest: Cell::new(1),
            is_deep: Cell::new(false),
        }
    }

    /// For how long to look now.
    pub(super) fn next(&self) -> Option<Duration> {
        self.next_with(sys::preemptions)
    }

    fn next_with(&self, preemptions: impl FnOnce() -> i64) -> Option<Duration> {
        if self.longest.is_zero() || self.is_deep.get() {
            return None;
        }
        let rest = self.rest.get();
        if rest > 0 {
            self.rest.set(rest - 1);
            return None;
        }
        let count = preemptions();
        if self.preempted.replace(count) != count {
            self.found_nothing();
            return None;
        }
        Some(self.longest)
    }

    /// A look has found so many completions, or that something else is to be done.
    pub(super) fn found(&self, completions: usize) {
        self.next_rest.set(1);
        self.woke(completions);
    }

    pub(super) fn found_nothing(&self) {
        let rest = self.next_rest.get();
        self.rest.set(rest);
        self.next_rest.set((2 * rest + 1).min(REST_MAX));
    }

    /// So many completions came at once.
    pub(super) fn woke(&self, completions: usize) {
        self.is_deep.set(completions > FEW);
    }
}

#[cfg(test)]
mod tests {
    use super::{FEW, REST_MAX, Spin};
    use std::time::Duration;

    const LONGEST: Duration = Duration::from_micros(20);

    /// Sleeps until the next look, while nobody else wants the processor.
    fn sleeps(spin: &Spin) -> u32 {
        let sleeps = (0..=REST_MAX).find(|_| spin.next_with(|| 0).is_some());
        sleeps.expect("it looks again")
    }

    #[test]
    fn looks_that_find_nothing_become_rare() {
        let spin = Spin::of(LONGEST, 0);
        assert_eq!(sleeps(&spin), 0);
        for rest in [1, 3, 7, 15, 31, REST_MAX, REST_MAX] {
            spin.found_nothing();
            assert_eq!(sleeps(&spin), rest);
        }
        spin.found(1);
        assert_eq!(sleeps(&spin), 0, "one that pays ends that");
        spin.found_nothing();
        assert_eq!(sleeps(&spin), 1);
    }

    #[test]
    fn who_has_many_requests_under_way_sleeps() {
        let spin = Spin::of(LONGEST, 0);
        spin.woke(FEW + 1);
        assert_eq!(spin.next_with(|| 0), None);
        spin.woke(FEW);
        assert_eq!(spin.next_with(|| 0), Some(LONGEST));
        spin.found(FEW + 1);
        assert_eq!(spin.next_with(|| 0), None);
    }

    #[test]
    fn where_others_want_the_processor_it_sleeps() {
        let spin = Spin::of(LONGEST, 7);
        assert_eq!(spin.next_with(|| 7), Some(LONGEST));
        assert_eq!(spin.next_with(|| 8), None);
        assert_eq!(spin.next_with(|| 8), None, "and takes a rest from looking");
        assert_eq!(spin.next_with(|| 8), Some(LONGEST));
    }

    #[test]
    fn none_is_none() {
        assert_eq!(Spin::of(Duration::ZERO, 0).next_with(|| 0), None);
    }
}
