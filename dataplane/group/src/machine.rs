//! openraft's state machine: apply, snapshots' metadata, installation.

use crate::checkpoint::CheckpointState;
use crate::replica::Replica;
use crate::state::Effect;
use crate::types::{
    RaftLogId, RaftSnapshotMeta, RaftStoredMembership, TypeConfig, from_raft, to_raft,
};
use futures_util::{Stream, TryStreamExt};
use ogee_proto::id::LogId;
use openraft::OptionalSend;
use openraft::alias::SnapshotOf;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use std::io;
use std::rc::Rc;

/// What a snapshot carries inside this process: the state as of its checkpoint.
///
/// On the leader it is read from the store; on a follower the blocks have been streamed into the
/// store before, so that installing only flips the root.
#[derive(Clone)]
pub(crate) struct SnapshotState {
    /// Sessions, epochs and membership exactly as of the checkpoint.
    pub(crate) state: CheckpointState,
    /// The blocks that came with it are as of moments up to this entry, if that is later.
    pub(crate) fuzzy_until: Option<LogId>,
}

/// The state machine of one replica.
pub(crate) struct Machine {
    replica: Rc<Replica>,
}

impl Machine {
    pub(crate) const fn new(replica: Rc<Replica>) -> Self {
        Self { replica }
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotState;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<RaftLogId>, RaftStoredMembership), io::Error> {
        let state = self.replica.state.borrow();
        Ok((state.applied, state.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut started = ogee_runtime::now();
        while let Some((entry, responder)) = entries.try_next().await? {
            let index = entry.log_id.index;
            self.replica.copies.note(&entry);
            self.replica.changes.note(&entry);
            let (applied, effect) = self.replica.state.borrow_mut().apply(entry);
            match effect {
                Effect::None => {}
                Effect::Digest(id) => self.replica.start_digest(id),
                Effect::Compare(ask) => self.replica.start_piece(ask),
                Effect::Written(key, first, count) => {
                    self.replica.promise(index, key, first, count);
                }
            }
            self.replica.let_through(index);
            if let Some(responder) = responder {
                responder.send(applied);
            }
            // They come one behind the other: the clock is read once for each.
            let ended = ogee_runtime::now();
            self.replica.metrics.apply.observe(ended - started);
            started = ended;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            replica: self.replica.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &RaftSnapshotMeta,
        snapshot: SnapshotState,
    ) -> Result<(), io::Error> {
        self.replica
            .install(meta, snapshot)
            .await
            .map_err(io::Error::other)
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<TypeConfig, SnapshotState>>, io::Error> {
        self.replica.current_snapshot().map_err(io::Error::other)
    }
}

/// Names the last checkpoint as a snapshot: metadata only, the blocks stay in the store.
pub(crate) struct SnapshotBuilder {
    replica: Rc<Replica>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotState;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, SnapshotState>, io::Error> {
        let current = self.replica.current_snapshot().map_err(io::Error::other)?;
        let none = || io::Error::new(io::ErrorKind::NotFound, "no checkpoint has been made yet");
        current.ok_or_else(none)
    }
}

/// The snapshot that a checkpoint amounts to.
pub(crate) fn snapshot_of(
    state: CheckpointState,
    fuzzy_until: Option<LogId>,
) -> SnapshotOf<TypeConfig, SnapshotState> {
    let last_log_id = Some(to_raft(state.applied));
    debug_assert!(state.membership.log_id().as_ref().map(from_raft) <= Some(state.applied));
    let last_membership = state.membership.clone();
    Snapshot {
        meta: RaftSnapshotMeta {
            last_log_id,
            last_membership,
        },
        snapshot: SnapshotState { state, fuzzy_until },
    }
}
