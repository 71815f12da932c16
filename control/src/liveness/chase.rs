//! How fast replicas that are behind catch up.
//!
//! *Place*: fed once a second, by the look that heals, with how far behind its copyset each is; asked when an operator wants
//! to know how long it takes. *Owner*: memory of the leading metadata server, as all of `liveness`.
//! *Invariants*: a time is told only of one that was seen to come nearer, by more than two reports may lie apart; else
//! there is none to tell. Bounded by count, and forgotten as soon as it is not behind any more.
//! *On failure*: a new leader begins to look anew.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use ogee_proto::id::ReplicaId;

use crate::limit::{CHASE_EVERY, CHASE_MIN, CHASE_SAMPLES, CHASES_MAX};

/// How far one is that is behind, in entries of its copyset's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Behind {
    pub(crate) applied: u64,
    /// The newest entry that any of its replicas has.
    pub(crate) target: u64,
}

impl Behind {
    const fn gap(self) -> u64 {
        self.target.saturating_sub(self.applied)
    }
}

/// All that are behind, with what was seen of them lately, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Chases(BTreeMap<ReplicaId, VecDeque<(Instant, Behind)>>);

impl Chases {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Who is behind now.
    pub(crate) fn take(&mut self, now: Instant, behind: &BTreeMap<ReplicaId, Behind>) {
        self.0.retain(|id, _| behind.contains_key(id));
        for (id, is) in behind {
            if self.0.len() >= CHASES_MAX && !self.0.contains_key(id) {
                continue;
            }
            let seen = self.0.entry(*id).or_default();
            // One that was made anew under its id, or opened with less, begins afresh.
            if seen.back().is_some_and(|(_, was)| is.applied < was.applied) {
                seen.clear();
            }
            let is_due = (seen.back())
                .is_none_or(|(at, _)| now.saturating_duration_since(*at) >= CHASE_EVERY);
            if is_due {
                if seen.len() >= CHASE_SAMPLES {
                    seen.pop_front();
                }
                seen.push_back((now, *is));
            }
        }
    }

    /// How long it takes until it has caught up, at the speed so far; none if it was not seen to come nearer.
    pub(crate) fn left(&self, replica: ReplicaId) -> Option<Duration> {
        let seen = self.0.get(&replica)?;
        let ((from, first), (to, last)) = (seen.front()?, seen.back()?);
        let took = to.saturating_duration_since(*from);
        if took < CHASE_MIN {
            return None;
        }
        let nearer = first.gap().checked_sub(last.gap()).filter(|it| *it > 0)?;
        // What comes between two reports looks as if it were missing.
        let grown = last.target.saturating_sub(first.target) as f64 / took.as_secs_f64();
        if (last.gap() as f64) <= grown * CHASE_MIN.as_secs_f64() {
            return None;
        }
        let left = took.as_secs_f64() * last.gap() as f64 / nearer as f64;
        Duration::try_from_secs_f64(left).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: ReplicaId = ReplicaId::new(7);

    /// Seen at each of those seconds, so far behind.
    fn chases(seen: &[(u64, u64, u64)]) -> Chases {
        let (mut chases, begin) = (Chases::default(), Instant::now());
        for (second, applied, target) in seen {
            let is = Behind {
                applied: *applied,
                target: *target,
            };
            let at = begin + Duration::from_secs(*second);
            chases.take(at, &BTreeMap::from([(ID, is)]));
        }
        chases
    }

    #[test]
    fn what_comes_nearer_is_told_when_it_is_there() {
        let steady = chases(&[(0, 0, 10_000), (5, 1000, 10_000), (10, 2000, 10_000)]);
        assert_eq!(steady.left(ID), Some(Duration::from_secs(40)));
        // Writers go on: 100 a second of 300 are gained.
        let chased = chases(&[(0, 0, 10_000), (10, 3000, 12_000)]);
        assert_eq!(chased.left(ID), Some(Duration::from_secs(90)));
    }

    #[test]
    fn nothing_is_told_of_what_is_not_known() {
        assert_eq!(chases(&[]).left(ID), None);
        assert_eq!(chases(&[(0, 0, 100)]).left(ID), None, "seen once");
        let falls_behind = chases(&[(0, 0, 10_000), (10, 1000, 12_000)]);
        assert_eq!(falls_behind.left(ID), None);
        let stands = chases(&[(0, 0, 10_000), (10, 0, 10_000)]);
        assert_eq!(stands.left(ID), None);
        // A follower that is well: its report is older than the leader's.
        let busy = chases(&[(0, 0, 900), (10, 50_000, 50_800)]);
        assert_eq!(busy.left(ID), None);
        let opened_anew = chases(&[(0, 5000, 10_000), (10, 100, 10_000)]);
        assert_eq!(opened_anew.left(ID), None);
    }

    #[test]
    fn it_is_bounded_and_forgets() {
        let (mut chases, now) = (Chases::default(), Instant::now());
        let is = Behind {
            applied: 1,
            target: 1000,
        };
        let many = (0..2 * CHASES_MAX as u64).map(|id| (ReplicaId::new(id), is));
        chases.take(now, &many.collect());
        assert_eq!(chases.0.len(), CHASES_MAX);
        for second in 0..1000 {
            let at = now + Duration::from_secs(second);
            chases.take(at, &BTreeMap::from([(ID, is)]));
        }
        assert_eq!(chases.0.len(), 1);
        assert_eq!(chases.0.get(&ID).map(VecDeque::len), Some(CHASE_SAMPLES));
        chases.take(now, &BTreeMap::new());
        assert!(chases.0.is_empty());
    }
}
