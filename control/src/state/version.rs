//! Which commands every metadata server of the group understands, while they run different releases.
//!
//! A release understands all versions up to its own. The group's is the least of all of its members', and is metadata: it
//! grows by a command when the last member has been upgraded, and never shrinks, whoever is down or leads. A command, or
//! a field of one, that an earlier release does not know is of the next version; what it leaves behind in a snapshot
//! is as well.

use serde::{Deserialize, Serialize};

use super::command::{Command, Outcome, Reply};
use super::model::State;

/// The first one: of releases that say none.
pub const FIRST: u32 = 1;
/// What this release understands.
///
/// 2: [`Command::RaiseVersion`]; the scatter width in [`super::CreatePool`] and [`super::SetPool`].
/// 3: [`Command::PauseJobs`] and [`Command::ResumeJobs`]; [`Command::RemovePool`].
/// 4: when [`Command::ResumeJobs`] was given.
pub const OURS: u32 = 4;

/// See [`Command::RaiseVersion`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaiseVersion {
    /// What all members understand.
    pub version: u32,
}

impl Command {
    /// The version from which on it is understood.
    #[must_use]
    pub fn version(&self) -> u32 {
        match self {
            Self::RaiseVersion(raise) => raise.version.max(2),
            Self::CreatePool(pool) if pool.scatter_width > 0 => 2,
            Self::SetPool(set) if set.scatter_width.is_some() => 2,
            Self::ResumeJobs(resume) if resume.at_ms > 0 => 4,
            Self::PauseJobs(_) | Self::ResumeJobs(_) | Self::RemovePool(_) => 3,
            Self::Once(once) => once.command.version(),
            _ => FIRST,
        }
    }
}

impl State {
    /// The version that all members understand, and so whoever reads this must.
    #[must_use]
    pub const fn version(&self) -> u32 {
        if self.version < FIRST {
            FIRST
        } else {
            self.version
        }
    }

    pub(super) fn raise_version(&mut self, raise: RaiseVersion) -> Outcome {
        self.version = self.version.max(raise.version);
        Ok(Reply::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn command(text: serde_json::Value) -> Command {
        serde_json::from_value(text).expect("a command")
    }

    #[test]
    fn what_an_earlier_release_does_not_know_is_of_a_later_version() {
        let pool = |width: u32| {
            command(json!({"do": "CreatePool", "name": "p", "replicas": 3, "scatter_width": width}))
        };
        assert_eq!((pool(0).version(), pool(4).version()), (1, 2));
        let set = json!({"do": "SetPool", "name": "p", "weight": 1});
        assert_eq!(command(set).version(), 1);
        let set = json!({"do": "SetPool", "name": "p", "scatter_width": 0});
        assert_eq!(command(set.clone()).version(), 2);
        let once = json!({
            "do": "Once", "id": uuid::Uuid::from_u128(1), "at_ms": 1,
            "asked": {"what": "set", "sum": 1}, "command": set,
        });
        assert_eq!(command(once).version(), 2, "whatever it is wrapped in");
    }

    #[test]
    fn what_was_raised_stays_and_is_not_in_what_was_not() {
        let mut state = State::default();
        assert_eq!(state.version(), FIRST);
        let old = serde_json::to_value(&state).expect("a record");
        assert_eq!(old.get("version"), None, "as the release before writes it");
        for (raised, is) in [(2, 2), (1, 2), (5, 5)] {
            let raise = RaiseVersion { version: raised };
            state.apply(&Command::RaiseVersion(raise)).expect("raised");
            assert_eq!(state.version(), is);
        }
        let bytes = serde_json::to_vec(&state).expect("a record");
        let again: State = serde_json::from_slice(&bytes).expect("a state");
        assert_eq!(again.version(), 5);
    }
}
