//! A group that has lost its majority for good: one replica becomes the only member, under a new id.
//!
//! *Place*: ordered by the shard, on the MDS's behalf and an operator's word.
//! *Owner*: one replica whose group is closed; nobody else writes to its log or its part of the store.
//! *Invariants*: no entry of the log is dropped. What only the lost replicas had is lost; what this one had, committed or
//! not, is committed by the new group: a write that was under way may take effect, as after any lost answer. The
//! new membership counts from the moment at which the store knows the new id, and not before.
//! *On failure*: nothing has happened as far as anybody can tell, and the order comes again.
//!
//! A membership cannot be changed through Raft without the old majority, so it is written into the log as an entry that no
//! majority has ever seen: etcd's `--force-new-cluster` and TiKV's unsafe recovery do the same. What is different here is the
//! id. Raft answers whoever has a higher term, member or not, so an old majority that comes back could make this replica
//! follow it again and drop what came since. A new id ends that: every message among replicas names the one that it is for
//! (`FrameHeader::epoch`, and each beat), a shard refuses what is for an id that it does not have, and the old members
//! have never heard of the new one.
//!
//! Two durable steps:
//!
//! 1. In the log, behind the last entry and in a term of its own: the membership of the new id alone. Until the next step the
//!    replica goes by its old id, which that membership does not name: started so, it only learns, and whoever leads the
//!    old group may truncate the entry. So a crash here is as if nothing had been done, and repeating the step finds its
//!    entry, or writes it again.
//! 2. In the store: the same checkpoint under the new id, by one root switch. From here on it is the new group: it is
//!    elected by itself in a later term, whose first entry commits everything before it.

use crate::codec::{ENTRY_MEMBERSHIP, put_membership};
use crate::error::GroupError;
use crate::group::Group;
use crate::replica::Replica;
use crate::types::{RaftMembership, ReplicaNode};
use ogee_log::{Entry, Vote};
use ogee_proto::id::{LogId, LogIndex, ReplicaId};
use ogee_runtime::Payload;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

impl Group {
    /// Closes the group and has its replica go on alone as `to`; open it anew afterwards, whatever comes of this.
    ///
    /// # Errors
    /// [`GroupError::Installing`] while it holds a mixture, [`GroupError::Damaged`] when its log has lost something,
    /// [`GroupError::Log`] or [`GroupError::Store`] when the device fails.
    pub async fn reset(&self, to: ReplicaId, node: ReplicaNode) -> Result<(), GroupError> {
        let replica = self.replica();
        self.shutdown().await;
        let _hold = replica.hold_idle().await;
        if replica.is_fuzzy() {
            let copyset = replica.copyset;
            return Err(GroupError::Installing { copyset });
        }
        if let Some(damage) = replica.log.damage() {
            return Err(GroupError::Damaged {
                copyset: replica.copyset,
                replica: replica.id,
                lost: damage.to_string().into(),
                reason: "a reset would make it the only one",
            });
        }
        replica.log_alone(to, node).await?;
        replica.rename(to).await
    }

    /// Whether a majority follows this leader, or this follower has heard of its leader lately: then the group does
    /// without a reset. Of a quiet leader that is not known.
    #[must_use]
    pub fn is_led(&self) -> bool {
        let now = ogee_runtime::now();
        let lately = self.config().promised() * 2;
        if self.report().is_leader {
            let since = now.checked_sub(lately);
            return since.is_some_and(|since| self.lease().is_led_since(self.raft(), since));
        }
        self.last_heard().is_some_and(|heard| now < heard + lately)
    }

    /// The last entry of its log, or the one up to which that is purged.
    #[must_use]
    pub fn last_logged(&self) -> LogId {
        self.replica().log.last().unwrap_or_default()
    }
}

impl Replica {
    /// The first step: an entry that makes `to` the only member.
    async fn log_alone(&self, to: ReplicaId, node: ReplicaNode) -> Result<(), GroupError> {
        let copyset = self.copyset;
        let failed = |source| GroupError::Log { copyset, source };
        let state = self.log.state();
        let last = state.last.or(state.purged).unwrap_or_default();
        let head = alone(to, node);
        if self.ends_with(last.index, &head) {
            return Ok(());
        }
        let voted = state.vote.map_or(0, |vote| vote.term);
        let term = voted.max(last.term.get()) + 1;
        // Nobody is voted for in that term but this replica, and it does not lead in it.
        let vote = Vote {
            term,
            voted_for: to.get(),
            committed: false,
        };
        self.log.save_vote(vote).await.map_err(failed)?;
        let entry = Entry {
            id: LogId::new(term, last.index.get() + 1),
            kind: ENTRY_MEMBERSHIP,
            head: head.into(),
            payload: Payload::empty(),
            payload_crc: 0,
        };
        let (id, refused) = (entry.id, Rc::new(RefCell::new(None)));
        let refusal = refused.clone();
        self.log.append(vec![entry], move |outcome| {
            *refusal.borrow_mut() = outcome.err();
        });
        // A refusal comes before the call returns.
        if let Some(source) = refused.take() {
            return Err(failed(source));
        }
        self.log.durable_upto(id).await.map_err(failed)
    }

    /// Whether the last entry is that membership already.
    fn ends_with(&self, last: LogIndex, head: &[u8]) -> bool {
        let range = last..LogIndex::new(last.get() + 1);
        let entries = self.log.peek(range, usize::MAX);
        let found = entries.first();
        found.is_some_and(|entry| entry.kind == ENTRY_MEMBERSHIP && *entry.head == *head)
    }
}

/// A membership of that one alone, as an entry carries it.
fn alone(to: ReplicaId, node: ReplicaNode) -> Vec<u8> {
    let voters = vec![BTreeSet::from([to.get()])];
    let nodes = BTreeMap::from([(to.get(), node)]);
    let membership = RaftMembership::new(voters, nodes);
    let membership = membership.expect("invariant: its only voter is described");
    let mut head = Vec::new();
    put_membership(&mut head, &membership);
    head
}
