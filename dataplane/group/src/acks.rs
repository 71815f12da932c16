//! When each follower last proved that it follows: what a leader's lease and its reads rest on.
//!
//! *Place*: noted by the append streams, asked by `lease`.
//! *Owner*: the replica; single-threaded.
//! *Invariants*: the time noted is that of the very request which was answered. openraft's own
//! times are not used: it credits a request without entries to an earlier one's answer, and so can
//! take words for fresh that were said before a pause of this process.
//! *On failure*: nothing is noted; reads then wait or are refused.

use crate::types::RaftStoredMembership;
use ogee_runtime::{Instant, seeded_bug};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The newest answered request of each follower.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    newest: RefCell<BTreeMap<u64, Ack>>,
}

/// A follower accepted what the leader of `term` sent it at `sent`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Ack {
    pub(crate) term: u64,
    pub(crate) sent: Instant,
    /// For how long it refuses its vote to others from then on.
    pub(crate) promised: Duration,
}

impl Acks {
    /// Replica `from` accepted a request of this leader.
    pub(crate) fn note(&self, from: u64, ack: Ack) {
        let mut newest = self.newest.borrow_mut();
        let known = newest.entry(from).or_insert(ack);
        *known = (*known).max(ack);
    }

    /// Whether a follower has accepted anything that was sent since a moment.
    pub(crate) fn has_heard(&self, from: u64, since: Instant) -> bool {
        let newest = self.newest.borrow();
        newest.get(&from).is_some_and(|ack| ack.sent >= since)
    }

    /// The latest moment such that a majority has accepted something sent at it or later, counting
    /// the leader itself, `me`, and nobody who promises less than `promised`. None if there is none,
    /// or if `me` is no voter.
    pub(crate) fn majority_since(
        &self,
        me: u64,
        term: u64,
        promised: Duration,
        membership: &RaftStoredMembership,
    ) -> Option<Instant> {
        if !membership.voter_ids().any(|id| id == me) {
            return None;
        }
        let mut since = ogee_runtime::now();
        for voters in membership.get_joint_config() {
            since = since.min(self.majority_of(voters, me, term, promised)?);
        }
        Some(since)
    }

    fn majority_of(
        &self,
        voters: &BTreeSet<u64>,
        me: u64,
        term: u64,
        promised: Duration,
    ) -> Option<Instant> {
        let newest = self.newest.borrow();
        let sent = |id: &u64| match newest.get(id) {
            _ if *id == me => Some(ogee_runtime::now()),
            Some(ack) if ack.term == term && ack.promised >= promised => Some(ack.sent),
            _ => None,
        };
        let mut times: Vec<Instant> = voters.iter().filter_map(sent).collect();
        if seeded_bug!("learner-counted") {
            let learners = newest.keys().filter(|id| !voters.contains(id));
            times.extend(learners.filter_map(sent));
        }
        times.sort_unstable_by(|a, b| b.cmp(a));
        times.get(voters.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::{Ack, Acks};
    use crate::types::{RaftStoredMembership, ReplicaNode};
    use ogee_runtime::Instant;
    use openraft::Membership;
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    fn of(configs: &[&[u64]]) -> RaftStoredMembership {
        let configs: Vec<BTreeSet<u64>> = configs
            .iter()
            .map(|voters| voters.iter().copied().collect())
            .collect();
        let nodes: BTreeMap<u64, ReplicaNode> = configs
            .iter()
            .flatten()
            .map(|id| (*id, ReplicaNode::default()))
            .collect();
        let membership = Membership::new(configs, nodes).expect("all have a node");
        RaftStoredMembership::new(None, membership)
    }

    const SECOND: Duration = Duration::from_secs(1);

    const fn ack(sent: Instant) -> Ack {
        Ack {
            term: 5,
            sent,
            promised: SECOND,
        }
    }

    #[test]
    fn who_promises_too_little_is_not_counted() {
        ogee_runtime::executor::block_on(async {
            let (acks, three) = (Acks::default(), of(&[&[1, 2, 3]]));
            let sent = ogee_runtime::now();
            acks.note(2, ack(sent));
            assert_eq!(acks.majority_since(1, 5, SECOND, &three), Some(sent));
            let longer = SECOND + Duration::from_millis(1);
            assert_eq!(acks.majority_since(1, 5, longer, &three), None);
            // It has restarted with less, and forgotten what it promised before.
            let short = Ack {
                sent: sent + Duration::from_millis(1),
                promised: SECOND / 2,
                ..ack(sent)
            };
            acks.note(2, short);
            assert_eq!(acks.majority_since(1, 5, SECOND, &three), None);
        });
    }

    #[test]
    fn a_majority_is_as_fresh_as_its_stalest_member() {
        ogee_runtime::executor::block_on(async {
            let (acks, three) = (Acks::default(), of(&[&[1, 2, 3]]));
            assert_eq!(acks.majority_since(1, 5, SECOND, &three), None);
            let base = ogee_runtime::now() - Duration::from_secs(1);
            let at = |ms| base + Duration::from_millis(ms);
            acks.note(2, ack(at(10)));
            assert_eq!(acks.majority_since(1, 5, SECOND, &three), Some(at(10)));
            acks.note(3, ack(at(30)));
            acks.note(3, ack(at(20)));
            assert_eq!(acks.majority_since(1, 5, SECOND, &three), Some(at(30)));
            assert_eq!(
                acks.majority_since(1, 6, SECOND, &three),
                None,
                "of an older term"
            );
            assert_eq!(acks.majority_since(9, 5, SECOND, &three), None, "no voter");
            let five = of(&[&[1, 2, 3, 4, 5]]);
            assert_eq!(acks.majority_since(1, 5, SECOND, &five), Some(at(10)));
            let joint = of(&[&[1, 2, 3], &[1, 4, 5]]);
            assert_eq!(acks.majority_since(1, 5, SECOND, &joint), None);
            acks.note(4, ack(at(5)));
            assert_eq!(acks.majority_since(1, 5, SECOND, &joint), Some(at(5)));
            let left = of(&[&[2, 3]]);
            assert_eq!(acks.majority_since(1, 5, SECOND, &left), None);
            assert!(acks.majority_since(1, 5, SECOND, &of(&[&[1]])).is_some());
        });
    }
}
