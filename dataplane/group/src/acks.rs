//! When each follower last proved that it follows: what a leader's lease and its reads rest on.
//!
//! *Place*: noted by the append streams, asked by `lease`.
//! *Owner*: the replica; single-threaded.
//! *Invariants*: the time noted is that of the very request which was answered. openraft's own
//! times are not used: it credits a request without entries to an earlier one's answer, and so can
//! take words for fresh that were said before a pause of this process.
//! *On failure*: nothing is noted; reads then wait or are refused.

use crate::types::RaftStoredMembership;
use ogee_runtime::Instant;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// The newest answered request of each follower.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    newest: RefCell<BTreeMap<u64, Ack>>,
}

/// A follower accepted what the leader of `term` sent it at `sent`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Ack {
    term: u64,
    sent: Instant,
}

impl Acks {
    /// Replica `from` accepted a request of this leader.
    pub(crate) fn note(&self, from: u64, term: u64, sent: Instant) {
        let ack = Ack { term, sent };
        let mut newest = self.newest.borrow_mut();
        let known = newest.entry(from).or_insert(ack);
        *known = (*known).max(ack);
    }

    /// The latest moment such that a majority has accepted something sent at it or later, counting
    /// the leader itself, `me`. None if there is none, or if `me` is no voter.
    pub(crate) fn majority_since(
        &self,
        me: u64,
        term: u64,
        membership: &RaftStoredMembership,
    ) -> Option<Instant> {
        if !membership.voter_ids().any(|id| id == me) {
            return None;
        }
        let mut since = ogee_runtime::now();
        for voters in membership.get_joint_config() {
            since = since.min(self.majority_of(voters, me, term)?);
        }
        Some(since)
    }

    fn majority_of(&self, voters: &BTreeSet<u64>, me: u64, term: u64) -> Option<Instant> {
        let newest = self.newest.borrow();
        let sent = |id: &u64| match newest.get(id) {
            _ if *id == me => Some(ogee_runtime::now()),
            Some(ack) if ack.term == term => Some(ack.sent),
            _ => None,
        };
        let mut times: Vec<Instant> = voters.iter().filter_map(sent).collect();
        times.sort_unstable_by(|a, b| b.cmp(a));
        times.get(voters.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::Acks;
    use crate::types::{RaftStoredMembership, ReplicaNode};
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

    #[test]
    fn a_majority_is_as_fresh_as_its_stalest_member() {
        ogee_runtime::executor::block_on(async {
            let (acks, three) = (Acks::default(), of(&[&[1, 2, 3]]));
            assert_eq!(acks.majority_since(1, 5, &three), None);
            let base = ogee_runtime::now() - Duration::from_secs(1);
            let at = |ms| base + Duration::from_millis(ms);
            acks.note(2, 5, at(10));
            assert_eq!(acks.majority_since(1, 5, &three), Some(at(10)));
            acks.note(3, 5, at(30));
            acks.note(3, 5, at(20));
            assert_eq!(acks.majority_since(1, 5, &three), Some(at(30)));
            assert_eq!(acks.majority_since(1, 6, &three), None, "of an older term");
            assert_eq!(acks.majority_since(9, 5, &three), None, "no voter");
            let five = of(&[&[1, 2, 3, 4, 5]]);
            assert_eq!(acks.majority_since(1, 5, &five), Some(at(10)));
            let joint = of(&[&[1, 2, 3], &[1, 4, 5]]);
            assert_eq!(acks.majority_since(1, 5, &joint), None);
            acks.note(4, 5, at(5));
            assert_eq!(acks.majority_since(1, 5, &joint), Some(at(5)));
            let left = of(&[&[2, 3]]);
            assert_eq!(acks.majority_since(1, 5, &left), None);
            assert!(acks.majority_since(1, 5, &of(&[&[1]])).is_some());
        });
    }
}
