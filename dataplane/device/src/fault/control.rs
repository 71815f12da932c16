//! The test's hand on a faulty device.

use super::plan::FaultRule;
use super::rules::{RuleId, Rules};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// What really happened at the decorator.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FaultCounts {
    /// Requests that reached the device below.
    pub passed: u64,
    /// Requests that failed here.
    pub failed: u64,
    /// Requests that waited here.
    pub delayed: u64,
    /// Writes that reported success and did nothing.
    pub lost: u64,
    /// Bits flipped in what reads returned.
    pub flipped: u64,
}

/// Shared by the faulty device and its controls.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) rules: RefCell<Rules>,
    pub(super) counts: Cell<FaultCounts>,
}

impl Shared {
    pub(super) fn count(&self, change: impl FnOnce(&mut FaultCounts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }
}

/// Changes the rules of a faulty device while it runs, and tells what they have done.
#[derive(Clone, Debug)]
pub struct FaultControl {
    shared: Rc<Shared>,
}

impl FaultControl {
    pub(super) const fn new(shared: Rc<Shared>) -> Self {
        Self { shared }
    }

    /// Adds a rule; it counts requests from now on.
    #[expect(
        clippy::must_use_candidate,
        reason = "the name matters only to who removes the rule"
    )]
    pub fn add(&self, rule: FaultRule) -> RuleId {
        self.shared.rules.borrow_mut().add(rule)
    }

    /// Removes a rule; one that is gone already stays gone.
    pub fn remove(&self, id: RuleId) {
        self.shared.rules.borrow_mut().remove(id);
    }

    /// Removes every rule: the device is sound again.
    pub fn clear(&self) {
        self.shared.rules.borrow_mut().clear();
    }

    /// Requests that a rule has hit; zero once it is removed.
    #[must_use]
    pub fn hits(&self, id: RuleId) -> u64 {
        self.shared.rules.borrow().hits(id)
    }

    /// What really happened so far. What the device below did stands in its own counters.
    #[must_use]
    pub fn counts(&self) -> FaultCounts {
        self.shared.counts.get()
    }
}
