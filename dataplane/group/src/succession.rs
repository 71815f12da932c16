//! What a follower does when nobody listens any more where its leader was.
//!
//! *Place*: `watch` asks at every look at a group that is awake.
//! *Owner*: one replica of one group; a counter.
//! *Invariants*: safety rests on nothing here. A follower only asks for a pre-vote sooner than openraft's
//! timer does, which waits for a lease and then for an election timeout. It waits for the lease, too:
//! openraft asks nobody while this replica's promise to its leader lasts, and the others keep theirs.
//! The replicas take turns, so that they do not split the votes of a group that all of them miss.
//! *On failure*: a leader that is silent without its process being gone, and a first in line that is
//! gone as well or lacks entries, are what openraft's timer is for; it goes on as ever.

use crate::group::Group;
use ogee_proto::id::ReplicaId;
use openraft::async_runtime::WatchReceiver;
use std::sync::Arc;

/// Looks that the next in line waits longer: a pre-vote, a vote and their writes.
const TURN_LOOKS: u32 = 3;
/// Looks until one that was not elected tries again.
const AGAIN_LOOKS: u32 = 5;

/// Whom a follower follows, and how many voters stand before it when that one is gone.
struct Followed {
    leader: ReplicaId,
    endpoint: Arc<str>,
    rank: u32,
}

impl Group {
    /// One look at whether the leader's process is there.
    pub(crate) fn look_after_leader(&self) {
        let looks = match self.followed() {
            Some(followed) if self.is_gone(&followed) => {
                let looks = self.leaderless_looks().get().saturating_add(1);
                let lease = self.config().looks(self.config().promised());
                if is_due(looks, lease, followed.rank) && !self.abstains() {
                    self.stand(followed.leader);
                }
                looks
            }
            _ => 0,
        };
        self.leaderless_looks().set(looks);
    }

    fn is_gone(&self, followed: &Followed) -> bool {
        let caller = self.peers().caller(followed.leader, &followed.endpoint);
        caller.is_some_and(|caller| caller.is_refused())
    }

    fn followed(&self) -> Option<Followed> {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let leader = metrics.current_leader.filter(|id| *id != metrics.id)?;
        let membership = metrics.membership_config.membership();
        let endpoint = membership.get_node(&leader)?.endpoint.clone();
        let before = |id: &u64| *id < metrics.id && *id != leader;
        let rank = membership.voter_ids().filter(before).count();
        Some(Followed {
            leader: ReplicaId::new(leader),
            endpoint,
            rank: u32::try_from(rank).unwrap_or(u32::MAX),
        })
    }

    fn stand(&self, gone: ReplicaId) {
        tracing::info!(copyset = %self.copyset(), %gone, "nobody listens where the leader was");
        let raft = self.raft().clone();
        drop(ogee_runtime::spawn(async move {
            // An error means that the group has stopped.
            let _ = raft.trigger().elect(true).await;
        }));
    }
}

/// Whether this is the look to stand at: when the lease is over, by turns, and again now and then.
fn is_due(looks: u32, lease: u32, rank: u32) -> bool {
    let turn = lease.saturating_add(rank.saturating_mul(TURN_LOOKS));
    looks > turn && (looks - turn - 1).is_multiple_of(AGAIN_LOOKS)
}

#[cfg(test)]
mod tests {
    use super::is_due;

    #[test]
    fn nobody_stands_within_the_lease_and_then_one_after_the_other() {
        let first = |rank| (0..100).find(|looks| is_due(*looks, 10, rank)).unwrap();
        assert_eq!([first(0), first(1), first(2)], [11, 14, 17]);
        let all: Vec<u32> = (0..30).filter(|looks| is_due(*looks, 10, 0)).collect();
        assert_eq!(all, [11, 16, 21, 26]);
    }
}
