//! Which outcome is retried where, and after what pause.
//!
//! *Place*: `core` asks after each attempt.
//! *Owner*: none; pure tables and one request's own counters.
//! *Invariants*: a mutating request is sent again with the same sequence, so trying once too often
//! is harmless and giving up early is not. Between two pauses each replica is tried at most once.
//! *On failure*: only outcomes that no retry can change end a request.

use crate::limit::{
    BACKOFF_MAX, BACKOFF_MIN, BACKOFF_SOON, BACKOFF_SOON_MAX, PATIENCE, REFUSED_PAUSE_MAX,
    REFUSED_PAUSE_MIN, ROUND_MAX,
};
use ogee_proto::id::ReplicaId;
use ogee_proto::wire::Status;
use std::fmt;
use std::time::Duration;

/// How one attempt ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cause {
    /// The replica answered.
    Status(Status),
    /// No connection; nothing was sent.
    Unreachable,
    /// The connection broke; the outcome is unknown.
    Disconnected,
    /// Nothing at all came from the replica any more; the outcome is unknown. It may be stopped or
    /// cut off, and a new connection to it would tell no sooner.
    Silent,
    /// No answer in time; the outcome is unknown.
    Timeout,
}

/// What to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// The request is done.
    Done,
    /// Another replica leads: the reply may name it.
    Redirect,
    /// This replica is of no use now: the next one.
    Elsewhere,
    /// The same replica, after a pause.
    Again,
    /// The same replica, which leads, after a pause.
    Wait,
    /// Seal the copyset, then the same replica.
    Seal,
    /// No retry can help.
    Fail,
}

impl Cause {
    /// The table of the module.
    pub(crate) const fn step(self) -> Step {
        match self {
            Self::Status(Status::Ok) => Step::Done,
            Self::Status(Status::NotLeader) => Step::Redirect,
            Self::Status(Status::NoCopyset) | Self::Unreachable | Self::Silent | Self::Timeout => {
                Step::Elsewhere
            }
            Self::Status(Status::Retry | Status::Unknown | Status::Io) | Self::Disconnected => {
                Step::Again
            }
            Self::Status(Status::Throttled | Status::NoSpace) => Step::Wait,
            Self::Status(Status::NotSealed) => Step::Seal,
            Self::Status(Status::Fenced | Status::Stale | Status::BadRequest | Status::Corrupt) => {
                Step::Fail
            }
        }
    }

    /// Whether a newer map might help.
    pub(crate) const fn doubts_map(self) -> bool {
        matches!(
            self,
            Self::Status(Status::NoCopyset) | Self::Unreachable | Self::Silent | Self::Timeout
        )
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Status(status) => status.text(),
            Self::Unreachable => "no connection",
            Self::Disconnected => "connection lost",
            Self::Silent => "silence",
            Self::Timeout => "no answer in time",
        })
    }
}

/// The retries of one request.
#[derive(Debug, Default)]
pub(crate) struct Retries {
    tried: [Option<ReplicaId>; ROUND_MAX],
    sealed: bool,
    busy: u32,
    pauses: u32,
    refusals: u32,
}

impl Retries {
    /// Notes that `replica` is tried now.
    pub(crate) fn note_try(&mut self, replica: ReplicaId) {
        if let Some(slot) = self.tried.iter_mut().find(|slot| slot.is_none()) {
            *slot = Some(replica);
        }
    }

    /// Whether `replica` was tried since the last pause, or the round is over: pause first.
    pub(crate) fn was_tried(&self, replica: ReplicaId) -> bool {
        self.tried.contains(&Some(replica)) || !self.tried.contains(&None)
    }

    /// Whether this is the first time in the round that a seal is missing: seal without a pause.
    pub(crate) const fn is_first_seal(&mut self) -> bool {
        !std::mem::replace(&mut self.sealed, true)
    }

    /// Counts a "busy" answer; true when it is time to look elsewhere: a replica that is stuck
    /// may say "not now" for ever while another leads.
    pub(crate) fn is_patience_over(&mut self) -> bool {
        self.busy += 1;
        self.busy.is_multiple_of(PATIENCE)
    }

    /// Length of the next pause; a new round starts after it.
    pub(crate) fn next_pause(&mut self, random: u64) -> Duration {
        self.begin_round();
        let pause = backoff(self.pauses, random);
        self.pauses = self.pauses.saturating_add(1);
        pause
    }

    /// The same after an overloaded shard's refusal: between half of and the whole of
    /// `REFUSED_PAUSE_MIN · 2^refusals`, at most `REFUSED_PAUSE_MAX`. Each try costs it a payload.
    pub(crate) fn refused_pause(&mut self, random: u64) -> Duration {
        self.begin_round();
        let ceiling = doubled(REFUSED_PAUSE_MIN, self.refusals).min(REFUSED_PAUSE_MAX);
        self.refusals = self.refusals.saturating_add(1);
        jittered(ceiling, random)
    }

    const fn begin_round(&mut self) {
        self.tried = [None; ROUND_MAX];
        self.sealed = false;
    }
}

/// Between half of and the whole of `BACKOFF_MIN · 2^pauses`, at most `BACKOFF_SOON_MAX` for the first
/// `BACKOFF_SOON` pauses and `BACKOFF_MAX` after them.
fn backoff(pauses: u32, random: u64) -> Duration {
    let max = if pauses < BACKOFF_SOON {
        BACKOFF_SOON_MAX
    } else {
        BACKOFF_MAX
    };
    jittered(doubled(BACKOFF_MIN, pauses).min(max), random)
}

fn doubled(least: Duration, times: u32) -> Duration {
    least.saturating_mul(1u32.checked_shl(times).unwrap_or(u32::MAX))
}

fn jittered(ceiling: Duration, random: u64) -> Duration {
    let half = ceiling / 2;
    let spread = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
    half + Duration::from_nanos(random % spread)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_what_no_retry_can_change_ends_a_request() {
        let ends: Vec<Status> = Status::ALL
            .iter()
            .copied()
            .filter(|status| matches!(Cause::Status(*status).step(), Step::Done | Step::Fail))
            .collect();
        let expected = [
            Status::Ok,
            Status::Fenced,
            Status::Stale,
            Status::BadRequest,
            Status::Corrupt,
        ];
        assert_eq!(ends, expected);
        assert_eq!(Cause::Disconnected.step(), Step::Again);
        for cause in [Cause::Unreachable, Cause::Silent, Cause::Timeout] {
            assert_eq!(cause.step(), Step::Elsewhere);
        }
    }

    #[test]
    fn a_replica_is_tried_once_between_pauses() {
        let mut retries = Retries::default();
        retries.note_try(ReplicaId::new(1));
        assert!(retries.was_tried(ReplicaId::new(1)));
        assert!(!retries.was_tried(ReplicaId::new(2)));
        retries.next_pause(0);
        assert!(!retries.was_tried(ReplicaId::new(1)));
    }

    #[test]
    fn a_round_ends_after_as_many_tries_as_replicas() {
        let mut retries = Retries::default();
        for replica in 0..ROUND_MAX as u64 {
            assert!(!retries.was_tried(ReplicaId::new(100)));
            retries.note_try(ReplicaId::new(replica));
        }
        assert!(retries.was_tried(ReplicaId::new(100)));
    }

    #[test]
    fn a_seal_that_does_not_help_is_followed_by_a_pause() {
        let mut retries = Retries::default();
        assert!(retries.is_first_seal());
        assert!(!retries.is_first_seal());
        retries.next_pause(0);
        assert!(retries.is_first_seal());
    }

    #[test]
    fn patience_ends_now_and_then() {
        let mut retries = Retries::default();
        let over = (0..PATIENCE * 3)
            .filter(|_| retries.is_patience_over())
            .count();
        assert_eq!(over, 3);
    }

    proptest! {
        #[test]
        fn pauses_grow_and_stay_in_bounds(pauses in 0u32..100, random in any::<u64>()) {
            let pause = backoff(pauses, random);
            prop_assert!(pause >= BACKOFF_MIN / 2 && pause <= BACKOFF_MAX);
            prop_assert!(backoff(pauses + 2, 0) >= backoff(pauses, 0));
            prop_assert!(pauses >= BACKOFF_SOON || pause <= BACKOFF_SOON_MAX);
            let mut retries = Retries { refusals: pauses, ..Retries::default() };
            let refused = retries.refused_pause(random);
            prop_assert!(refused >= REFUSED_PAUSE_MIN / 2 && refused <= REFUSED_PAUSE_MAX);
            prop_assert!(pauses < 7 || refused >= REFUSED_PAUSE_MAX / 2);
        }
    }
}
