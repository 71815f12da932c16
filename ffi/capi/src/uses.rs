//! How often something is in use, so that it cannot go meanwhile.
//!
//! *Place*: in `client` and `memory`. *Owner*: what it is of. *Invariants*: once retired, nothing uses it.
//! *On failure*: retiring says how many uses there are.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of uses, or [`RETIRED`].
pub(crate) struct Uses(AtomicUsize);

/// The only number that cannot become one more.
const RETIRED: usize = usize::MAX;

impl Uses {
    pub(crate) const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// One more, unless it is retired.
    pub(crate) fn take(&self) -> bool {
        let more = |uses: usize| uses.checked_add(1);
        let taken = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        taken.is_ok()
    }

    /// One less.
    pub(crate) fn give_back(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }

    /// From here on nobody may use it.
    pub(crate) fn retire(&self) -> Result<(), usize> {
        let retired = self
            .0
            .compare_exchange(0, RETIRED, Ordering::AcqRel, Ordering::Acquire);
        retired.map(drop)
    }
}
