//! Copysets that have lost their majority for good, and those that go on without it.

use super::assess::{Condition, Severity, Sight};
use crate::state::Copyset;

/// Whether a majority was given up, so that waiting for it is of no use.
pub(super) fn is_beyond_waiting(sight: &Sight<'_>, copyset: &Copyset) -> bool {
    let now_ms = sight.picture.now_ms;
    let replicas = || copyset.replicas.iter();
    let is_lost = |store| sight.state.mark(store) == Some(crate::state::Mark::Lost);
    // One that is only away may still come back; what was declared lost will not.
    copyset.formed
        && replicas().any(|r| is_lost(r.store))
        && !sight.state.has_majority_left(copyset, now_ms)
}

pub(super) fn reset_conditions() -> [Condition; 2] {
    [
        Condition::new(
            "OGEE-1032",
            Severity::Err,
            "copysets have lost the majority of their replicas for good: their chunks cannot be read or written, and \
             nothing is made anew by itself",
            "whatever of their replicas can be started, start it. If that is all there is: ogee copyset reset COPYSET \
             goes on with one replica, and says before what may be lost",
        ),
        Condition::new(
            "OGEE-1033",
            Severity::Warn,
            "copysets were reset and go on with fewer replicas than they are to have",
            "wait; ogee job ls shows how far new replicas are. One more failure may stop them",
        ),
    ]
}
