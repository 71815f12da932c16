//! The openraft configuration of the metadata group.

use openraft::entry::EntryPayload;
use openraft::impls::{BasicNode, BoxedErrorSource, InlineBatch, OneshotResponder, leader_id_std};
use openraft::vote::RaftLeaderId;
use openraft::{OptionalSend, RaftTypeConfig};

use super::machine::Machine;
use crate::state::{Command, Outcome};

/// A term alone names its leader.
pub(super) type LeaderId = leader_id_std::LeaderId<u64, u64>;

/// The metadata group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group;

impl RaftTypeConfig for Group {
    type D = Command;
    type R = Outcome;
    type NodeId = u64;
    type Node = BasicNode;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = openraft::impls::Vote<LeaderId>;
    type Payload = EntryPayload<Command, u64, BasicNode>;
    type Entry = openraft::impls::Entry<<LeaderId as RaftLeaderId>::Committed, Self::Payload>;
    type AsyncRuntime = openraft_rt_tokio::TokioRuntime;
    type Responder<T>
        = OneshotResponder<Self, T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = BoxedErrorSource;
}

pub(super) type LogId = openraft::alias::LogIdOf<Group>;
pub(super) type Vote = openraft::alias::VoteOf<Group>;
pub(super) type Entry = openraft::alias::EntryOf<Group>;
pub(super) type Payload = openraft::alias::PayloadOf<Group>;
pub(super) type Membership = openraft::Membership<u64, BasicNode>;
pub(super) type StoredMembership = openraft::alias::StoredMembershipOf<Group>;
pub(super) type SnapshotMeta = openraft::alias::SnapshotMetaOf<Group>;
pub(super) type Raft = openraft::Raft<Group, Machine>;
