//! How much of a store the writes of one group have begun to take, by log index.
//!
//! *Place*: apply notes it; a leader asks what a follower lacks that stands at some entry.
//! *Owner*: the replica; single-threaded.
//! *Invariants*: what it says is what was noted behind an entry. It remembers a bounded number of steps.
//! *On failure*: of entries from before those, before the replica was opened, or covered by a copy, it
//! knows nothing and says so.

use crate::limit::GROWTH_STEPS_MAX;
use std::cell::RefCell;
use std::collections::VecDeque;

/// The growth of one group.
#[derive(Debug, Default)]
pub(crate) struct Growth {
    inner: RefCell<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Since the replica was opened, or got a copy.
    total: u64,
    /// The oldest first.
    steps: VecDeque<Step>,
    /// Nothing is known of what lies before.
    begin: Step,
}

/// The total as of an entry.
#[derive(Clone, Copy, Debug, Default)]
struct Step {
    index: u64,
    total: u64,
}

impl Growth {
    /// Entry `index` has begun to take so many extents.
    pub(crate) fn note(&self, index: u64, extents: usize) {
        if extents == 0 {
            return;
        }
        let mut inner = self.inner.borrow_mut();
        inner.total += extents as u64;
        let total = inner.total;
        inner.steps.push_back(Step { index, total });
        if inner.steps.len() > GROWTH_STEPS_MAX
            && let Some(oldest) = inner.steps.pop_front()
        {
            inner.begin = oldest;
        }
    }

    /// Everything up to entry `index` came in some other way.
    pub(crate) fn begin(&self, index: u64) {
        *self.inner.borrow_mut() = Inner {
            begin: Step { index, total: 0 },
            ..Inner::default()
        };
    }

    /// Extents that the entries behind `index` have begun to take; `None` if that is not known.
    pub(crate) fn behind(&self, index: u64) -> Option<u64> {
        let inner = self.inner.borrow();
        if index < inner.begin.index {
            return None;
        }
        let known = inner.steps.partition_point(|step| step.index <= index);
        let newest = known.checked_sub(1).and_then(|at| inner.steps.get(at));
        Some(inner.total - newest.unwrap_or(&inner.begin).total)
    }
}

#[cfg(test)]
mod tests {
    use super::Growth;
    use crate::limit::GROWTH_STEPS_MAX;

    #[test]
    fn it_tells_what_lies_behind_an_entry() {
        let growth = Growth::default();
        assert_eq!(growth.behind(0), Some(0));
        growth.begin(10);
        assert_eq!(growth.behind(9), None);
        assert_eq!(growth.behind(10), Some(0));
        growth.note(12, 3);
        growth.note(13, 0);
        growth.note(20, 4);
        let behind = [10, 11, 12, 19, 20, 21].map(|index| growth.behind(index));
        assert_eq!(behind, [7, 7, 4, 4, 0, 0].map(Some));
    }

    #[test]
    fn it_remembers_so_many_steps() {
        let growth = Growth::default();
        let max = GROWTH_STEPS_MAX as u64;
        for index in 1..=max + 5 {
            growth.note(index, 2);
        }
        assert_eq!(growth.inner.borrow().steps.len(), GROWTH_STEPS_MAX);
        assert_eq!(growth.behind(4), None);
        assert_eq!(growth.behind(5), Some(2 * max));
        assert_eq!(growth.behind(max + 4), Some(2));
    }
}
