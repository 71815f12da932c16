//! Background work that an operator holds up.

use super::assess::{Condition, Severity, Sight};
use super::maintenance::span;
use crate::state::{JobKind, JobState};

/// Since when, and what waits for its end.
pub(super) fn paused_condition(sight: &Sight<'_>) -> Condition {
    let mut condition = Condition::new(
        "OGEE-1060",
        Severity::Warn,
        "jobs are paused by an operator: nothing is made anew, drained or evened out",
        "when that is not wanted any more: ogee job resume",
    );
    if let Some(since_ms) = sight.state.paused_since() {
        let jobs = sight.state.jobs().values();
        let moves = jobs.filter(|job| job.kind != JobKind::Lead);
        let of = |state: JobState| moves.clone().filter(|job| job.state == state).count();
        let (waiting, running) = (of(JobState::Pending), of(JobState::Running));
        condition.add(|| {
            let ago = span(sight.picture.now_ms.saturating_sub(since_ms));
            format!("for {ago}; {waiting} jobs wait, {running} that had begun go on")
        });
    }
    condition
}
