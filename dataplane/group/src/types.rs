//! openraft's type configuration: one concrete choice, aliased so that no generics spread.

use crate::command::{Applied, Command};
use crate::rt::OgeeRuntime;
use ogee_log::Vote;
use ogee_proto::id::LogId;
use openraft::alias::{EntryOf, LogIdOf, SnapshotMetaOf, StoredMembershipOf, VoteOf};
use openraft::impls::leader_id_std::LeaderId;
use openraft::impls::{BoxedErrorSource, InlineBatch, OneshotResponder};
use openraft::vote::RaftLeaderId;
use openraft::{Entry, EntryPayload, OptionalSend, RaftTypeConfig};
use std::sync::Arc;

/// A replica as the group's membership knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReplicaNode {
    /// The chunkserver that hosts it.
    pub chunkserver: u32,
    /// Endpoint of its shard when the membership was made; the peer book may know better. Shared: a follower's
    /// openraft clones its leader's node twice whenever it wakes up.
    pub endpoint: Arc<str>,
}

/// The one type configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig;

pub(crate) type Leader = LeaderId<u64, u64>;

impl RaftTypeConfig for TypeConfig {
    type D = Command;
    type R = Applied;
    type NodeId = u64;
    type Node = ReplicaNode;
    type Term = u64;
    type LeaderId = Leader;
    type Vote = openraft::Vote<Leader>;
    type Payload = EntryPayload<Command, u64, ReplicaNode>;
    type Entry = Entry<<Leader as RaftLeaderId>::Committed, Self::Payload>;
    type Responder<T>
        = OneshotResponder<Self, T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type AsyncRuntime = OgeeRuntime;
    type ErrorSource = BoxedErrorSource;
}

pub(crate) type RaftEntry = EntryOf<TypeConfig>;
pub(crate) type RaftLogId = LogIdOf<TypeConfig>;
pub(crate) type RaftVote = VoteOf<TypeConfig>;
pub(crate) type RaftMembership = openraft::Membership<u64, ReplicaNode>;
pub(crate) type RaftStoredMembership = StoredMembershipOf<TypeConfig>;
pub(crate) type RaftSnapshotMeta = SnapshotMetaOf<TypeConfig>;

/// Ours → openraft's.
pub(crate) fn to_raft(id: LogId) -> RaftLogId {
    RaftLogId::new(Leader::new(id.term.get(), 0).to_committed(), id.index.get())
}

/// Ours → openraft's.
pub(crate) const fn to_raft_vote(vote: Vote) -> RaftVote {
    RaftVote {
        leader_id: Leader {
            term: vote.term,
            voted_for: vote.voted_for,
        },
        committed: vote.committed,
    }
}

/// openraft's → ours.
pub(crate) fn from_raft(id: &RaftLogId) -> LogId {
    LogId::new(id.leader_id.term, id.index)
}
