//! Background work that an operator holds up.
//!
//! A wish that is kept, so that whoever leads holds to it. While it lasts no job begins that copies anything, or moves a leader for
//! evenness or a drain; those under way end. What somebody waits for and copies nothing goes on: leaders leave devices that
//! limp and chunkservers that are about to be stopped. What an operator orders of one copyset by hand is no job.
//!
//! A move whose target goes away during a pause is sent elsewhere only after it, so the time of a pause does not count as time
//! that a move has taken: [`Job::ran_ms`].

use serde::{Deserialize, Serialize};

use super::command::Reply;
use super::job::{Cause, Job, JobKind, JobState};
use super::model::State;
use super::refusal::Refusal;

/// See [`super::Command::PauseJobs`]. Again, it goes on since when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseJobs {
    /// Milliseconds since 1970.
    pub at_ms: u64,
}

/// See [`super::Command::ResumeJobs`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumeJobs {
    /// Milliseconds since 1970; 0: it is not told, as in earlier releases, and the pause counts for moves that are under way.
    #[serde(default, skip_serializing_if = "super::model::is_zero")]
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

    pub(super) fn resume_jobs(&mut self, resume: ResumeJobs) -> Reply {
        if let Some(since_ms) = self.paused_ms.take() {
            let moves = self.jobs.values_mut().filter(|job| job.is_moving());
            moves.for_each(|job| job.hold(since_ms, resume.at_ms));
        }
        Reply::Done
    }
}

impl Job {
    /// For how long its newest attempt has gone on without being held up; `paused_ms`: since when jobs are paused.
    #[must_use]
    pub fn ran_ms(&self, now_ms: u64, paused_ms: Option<u64>) -> u64 {
        let end_ms = paused_ms.filter(|_| self.is_moving()).unwrap_or(now_ms);
        let ran_ms = end_ms.min(now_ms).saturating_sub(self.started_ms);
        ran_ms.saturating_sub(self.held_ms)
    }

    /// A transfer copies nothing: what of that is under way does not wait for anything that a pause holds up.
    fn is_moving(&self) -> bool {
        self.kind != JobKind::Lead && self.state == JobState::Running
    }

    fn hold(&mut self, since_ms: u64, end_ms: u64) {
        let held_ms = end_ms.saturating_sub(since_ms.max(self.started_ms));
        self.held_ms = self.held_ms.saturating_add(held_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::{PauseJobs, ResumeJobs};
    use crate::state::{Cause, Command, Job, JobKind, JobState, State};
    use ogee_proto::id::JobId;
    use serde_json::json;

    fn resume(at_ms: u64) -> Command {
        Command::ResumeJobs(ResumeJobs { at_ms })
    }

    fn job(kind: &str, state: &str, started_ms: u64) -> Job {
        let job = json!({
            "kind": kind, "state": state, "cause": "Lost", "copyset": 1, "replica": 2, "from": 3,
            "priority": 1, "attempt": 1, "target": null, "bytes": 1, "created_ms": 1,
            "started_ms": started_ms, "ended_ms": 0, "ending": null,
        });
        serde_json::from_value(job).expect("a job of the release before")
    }

    #[test]
    fn the_time_of_a_pause_is_not_time_that_a_move_takes() {
        let mut state = State::default();
        let jobs = [
            job("Recover", "Running", 100),
            job("Balance", "Running", 250),
            job("Recover", "Pending", 0),
            job("Lead", "Running", 100),
        ];
        state.jobs.extend((1..).map(JobId::new).zip(jobs));
        let ran = |state: &State, now_ms: u64| -> Vec<u64> {
            let jobs = state.jobs.values();
            let jobs = jobs.filter(|job| job.state == JobState::Running);
            jobs.map(|job| job.ran_ms(now_ms, state.paused_since()))
                .collect()
        };
        let pause = |at_ms: u64| Command::PauseJobs(PauseJobs { at_ms });
        for (command, now_ms, expected) in [
            (pause(200), 200, [100, 0, 100]),
            (pause(300), 900, [100, 0, 800]),
            (resume(1000), 1000, [100, 0, 900]),
            (resume(1100), 1100, [200, 100, 1000]),
            (pause(1200), 5000, [300, 200, 4900]),
            // From a release that does not say when, it counts.
            (resume(0), 6200, [5300, 5200, 6100]),
        ] {
            state.apply(&command).expect("taken");
            assert_eq!(ran(&state, now_ms), expected, "{command:?} at {now_ms}");
        }
        let held = |id: u64| state.jobs[&JobId::new(id)].held_ms;
        assert_eq!([held(1), held(2), held(3), held(4)], [800, 750, 0, 0]);
        let untouched = serde_json::to_value(&state.jobs[&JobId::new(3)]).expect("a record");
        assert_eq!(
            untouched.get("held_ms"),
            None,
            "as the release before writes it"
        );
    }

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
        let old: Command = serde_json::from_str(r#"{"do":"ResumeJobs"}"#)
            .expect("as the release before writes it");
        assert_eq!((old.version(), &old), (3, &resume(0)));
        let as_before = serde_json::to_string(&old).expect("a record");
        assert_eq!(as_before, r#"{"do":"ResumeJobs"}"#);
        assert_eq!(resume(9).version(), 4);
        state.apply(&resume(9)).expect("taken");
        assert!(state.may_begin(JobKind::Recover, Cause::Lost));
        let old = serde_json::to_value(&state).expect("a record");
        assert_eq!(
            old.get("paused_ms"),
            None,
            "as the release before writes it"
        );
    }
}
