//! Background work that an operator holds up.
//!
//! A wish that is kept, so that whoever leads holds to it. While it lasts no job begins that copies anything, or moves a leader for
//! evenness or a drain; those under way end. What somebody waits for and copies nothing goes on: leaders leave devices that
//! limp and chunkservers that are about to be stopped. What an operator orders of one copyset by hand is no job.

use serde::{Deserialize, Serialize};

use super::command::Reply;
use super::job::{Cause, JobKind};
use super::model::State;
use super::refusal::Refusal;

/// See [`super::Command::PauseJobs`]. Again, it goes on since when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseJobs {
    /// Milliseconds since 1970.
    pub at_ms: u64,
}

impl State {
    /// Since when no job begins, in milliseconds since 1970, if an operator wants that.
    #[must_use]
    pub const fn paused_since(&self) -> Option<u64> {
        self.paused_ms
    }

    /// Whether a job of that kind may begin now, made for that reason.
    #[must_use]
    pub const fn may_begin(&self, kind: JobKind, cause: Cause) -> bool {
        let is_pressing = matches!(cause, Cause::Limping | Cause::Maintenance);
        self.paused_ms.is_none() || (is_pressing && matches!(kind, JobKind::Lead))
    }

    pub(super) fn check_begins(&self, kind: JobKind, cause: Cause) -> Result<(), Refusal> {
        match self.paused_ms {
            Some(since_ms) if !self.may_begin(kind, cause) => Err(Refusal::JobsPaused { since_ms }),
            _ => Ok(()),
        }
    }

    pub(super) fn pause_jobs(&mut self, pause: PauseJobs) -> Reply {
        self.paused_ms.get_or_insert(pause.at_ms);
        Reply::Done
    }

    pub(super) fn resume_jobs(&mut self) -> Reply {
        self.paused_ms = None;
        Reply::Done
    }
}

#[cfg(test)]
mod tests {
    use super::PauseJobs;
    use crate::state::{Cause, Command, JobKind, State};

    #[test]
    fn a_pause_is_kept_and_is_nothing_that_an_earlier_release_must_know_when_it_is_over() {
        let mut state = State::default();
        let pause = |at_ms: u64| Command::PauseJobs(PauseJobs { at_ms });
        for command in [pause(5), pause(9)] {
            assert_eq!(command.version(), 3);
            state.apply(&command).expect("taken");
        }
        assert_eq!(state.paused_since(), Some(5), "since it began");
        let bytes = serde_json::to_vec(&state).expect("a record");
        let again: State = serde_json::from_slice(&bytes).expect("a state");
        assert_eq!(again.paused_since(), Some(5));
        for (kind, cause, may) in [
            (JobKind::Recover, Cause::Lost, false),
            (JobKind::Drain, Cause::Limping, false),
            (JobKind::Balance, Cause::AskedSpread, false),
            (JobKind::Lead, Cause::Uneven, false),
            (JobKind::Lead, Cause::Draining, false),
            (JobKind::Lead, Cause::Limping, true),
            (JobKind::Lead, Cause::Maintenance, true),
        ] {
            assert_eq!(state.may_begin(kind, cause), may, "{kind:?} {cause:?}");
        }
        assert_eq!(Command::ResumeJobs.version(), 3);
        state.apply(&Command::ResumeJobs).expect("taken");
        assert!(state.may_begin(JobKind::Recover, Cause::Lost));
        let old = serde_json::to_value(&state).expect("a record");
        assert_eq!(
            old.get("paused_ms"),
            None,
            "as the release before writes it"
        );
    }
}
