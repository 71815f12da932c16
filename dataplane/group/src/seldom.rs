//! What may be tried again only after a while.
//!
//! *Place*: handovers that a leader asks for itself, and what is told now and then. *Owner*: whoever tries; single-threaded.
//! *Invariants*: two times are at least the gap apart. *On failure*: none.

use ogee_runtime::Instant;
use std::cell::Cell;
use std::time::Duration;

/// When it was tried last.
#[derive(Debug, Default)]
pub(crate) struct Seldom(Cell<Option<Instant>>);

impl Seldom {
    /// Whether it may be tried now; counts as having been.
    pub(crate) fn may(&self, gap: Duration) -> bool {
        let now = ogee_runtime::now();
        let may = self.0.get().is_none_or(|last| now >= last + gap);
        if may {
            self.0.set(Some(now));
        }
        may
    }
}
