//! Who belongs to a group: adding, promoting and removing replicas, and deleting what was removed.
//!
//! *Place*: ordered by the shard, on the MDS's behalf; the leader does it.
//! *Owner*: one group.
//! *Invariants*: a new replica learns first and becomes a voter only when it lacks next to nothing,
//! so that it never counts in a quorum for what it does not have; only committed configurations are
//! told to anybody; nothing is deleted of a replica but by [`Group::remove`]. Until a change is done an entry needs a
//! majority of the new voters too, the discards that would make room among them: so none begins before a majority of
//! those is known to have room for what it lacks, nor while one of them is known to have none.
//! *On failure*: every step may be asked for again, of this leader or of the next; none waits for ever
//! for a quorum that this replica has lost, perhaps because it is no member any more.

use crate::error::GroupError;
use crate::group::{Group, Outcome};
use crate::limit::PROMOTE_LAG_MAX;
use crate::replica::Replica;
use crate::space::RoomToChange;
use crate::types::{ReplicaNode, TypeConfig};
use ogee_log::Log;
use ogee_proto::id::{CopysetId, ReplicaId};
use ogee_proto::wire::Status;
use ogee_store::Store;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::{ChangeMembers, ServerState};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long one call waits for new replicas to catch up. Copying a replica may take much longer.
const CATCH_UP_WAIT: Duration = Duration::from_secs(5);
/// How long each step waits to be committed. A leader that was replaced meanwhile, and that nobody
/// talks to any more, never learns what became of what it proposed.
const COMMIT_WAIT: Duration = Duration::from_secs(5);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

type Refusal = RaftError<TypeConfig, ClientWriteError<TypeConfig>>;

impl Group {
    /// Makes `members` the group's voters, one safe step at a time; new ones learn first, and others
    /// that only learn are forgotten. A no-op if they are the voters.
    ///
    /// # Errors
    /// The outcome: who leads instead, that the change was refused, `NoSpace` while one of `members` has
    /// no room for what it lacks, or `Retry` while a new replica has not caught up, too few have said what room
    /// they have, another change is under way, or no quorum answers.
    pub async fn change_members(
        &self,
        members: BTreeMap<ReplicaId, ReplicaNode>,
    ) -> Result<(), Outcome> {
        self.touch_and_lead(true).await;
        let wanted: BTreeSet<u64> = members.keys().map(|id| id.get()).collect();
        let (voters, known) = self.configured();
        if voters == [wanted.clone()] {
            return Ok(());
        }
        let is_voter = |id: u64| voters.iter().any(|half| half.contains(&id));
        let stray = known
            .iter()
            .filter(|id| !wanted.contains(id) && !is_voter(**id));
        let stray: BTreeSet<u64> = stray.copied().collect();
        if !stray.is_empty() {
            let removal = ChangeMembers::RemoveNodes(stray);
            self.committed(self.raft().change_membership(removal, false))
                .await?;
        }
        for (id, node) in &members {
            if !known.contains(&id.get()) {
                self.committed(self.raft().add_learner(id.get(), node.clone(), false))
                    .await?;
            }
        }
        for id in members.keys().filter(|id| !is_voter(id.get())) {
            let caught_up = self.until_caught_up(*id);
            let caught_up = ogee_runtime::timeout(CATCH_UP_WAIT, caught_up).await;
            caught_up.unwrap_or(Err(Outcome::of(Status::Retry)))?;
        }
        let is_begun = voters.contains(&wanted);
        if !is_begun {
            self.until_room_is_known(&wanted).await?;
        }
        self.committed(self.raft().change_membership(wanted, false))
            .await
    }

    /// Waits for one step, in bounded time, and before it for the room of its two entries in a log that is
    /// full. What becomes of it later is seen in the configuration.
    async fn committed<T>(
        &self,
        step: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<(), Outcome> {
        let step = async {
            let _room = self.replica().reserve_log([0, 0].into_iter()).await;
            step.await
        };
        match ogee_runtime::timeout(COMMIT_WAIT, step).await {
            Ok(done) => done
                .map(drop)
                .map_err(|error| self.refused(error).outcome()),
            Err(_) => Err(Outcome::of(Status::Retry)),
        }
    }

    /// The newest configuration, committed or not: its one or two sets of voters, and all members.
    fn configured(&self) -> (Vec<BTreeSet<u64>>, BTreeSet<u64>) {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let known = membership.nodes().map(|(id, _)| *id).collect();
        (membership.get_joint_config().clone(), known)
    }

    async fn until_caught_up(&self, id: ReplicaId) -> Result<(), Outcome> {
        loop {
            {
                let metrics = self.raft().metrics();
                let metrics = metrics.borrow_watched();
                if metrics.state != ServerState::Leader {
                    return Err(Outcome {
                        status: Status::NotLeader,
                        hint: metrics.current_leader.map(ReplicaId::new),
                    });
                }
                let peers = metrics.replication.as_ref();
                let matched = peers.and_then(|peers| peers.get(&id.get())?.as_ref());
                let matched = matched.map(|id| id.index);
                let lag = matched.zip(metrics.last_log_index);
                if lag
                    .is_some_and(|(matched, last)| last.saturating_sub(matched) <= PROMOTE_LAG_MAX)
                {
                    return Ok(());
                }
            }
            ogee_runtime::sleep(LOOK).await;
        }
    }

    /// Waits, in bounded time, until enough of `wanted` have said that they have room for what they lack.
    async fn until_room_is_known(&self, wanted: &BTreeSet<u64>) -> Result<(), Outcome> {
        let deadline = ogee_runtime::now() + CATCH_UP_WAIT;
        loop {
            match self.room_to_change(wanted) {
                RoomToChange::Enough => return Ok(()),
                RoomToChange::Short(_) => return Err(Outcome::of(Status::NoSpace)),
                RoomToChange::Unknown if ogee_runtime::now() >= deadline => {
                    return Err(Outcome::of(Status::Retry));
                }
                RoomToChange::Unknown => ogee_runtime::sleep(LOOK).await,
            }
        }
    }

    /// Voters and learners of the newest configuration, committed or not.
    #[must_use]
    pub fn members(&self) -> Vec<ReplicaId> {
        self.configured()
            .1
            .into_iter()
            .map(ReplicaId::new)
            .collect()
    }

    /// The voters, as of what is applied here; none while they change.
    #[must_use]
    pub fn voters(&self) -> Vec<ReplicaId> {
        let state = self.replica().state.borrow();
        match state.membership.get_joint_config().as_slice() {
            [voters] => voters.iter().copied().map(ReplicaId::new).collect(),
            _ => Vec::new(),
        }
    }

    /// Which replica of a group a store holds, running or not.
    ///
    /// # Errors
    /// [`GroupError::CheckpointState`] when it cannot tell.
    pub fn find(store: &Store, copyset: CopysetId) -> Result<Option<ReplicaId>, GroupError> {
        Replica::find(store, copyset)
    }

    /// Deletes a replica and its data, durably; `running` is its group if it is open. Nothing happens
    /// when the store holds another replica of the group, or none. Repeating it is harmless.
    ///
    /// Only for a replica that is no member any more, or that is damaged and about to be replaced: it
    /// forgets its vote. The store forgets first, so that a crash in between leaves no replica that
    /// has lost its log.
    ///
    /// # Errors
    /// [`GroupError::Store`] or [`GroupError::Log`] when the device fails.
    pub async fn remove(
        store: &Store,
        log: &Log,
        (copyset, replica): (CopysetId, ReplicaId),
        running: Option<Self>,
    ) -> Result<(), GroupError> {
        let found = Replica::find(store, copyset)?;
        if found.is_some_and(|found| found != replica) {
            return Ok(());
        }
        let _hold = match &running {
            None => None,
            Some(group) => {
                group.shutdown().await;
                let hold = group.replica().hold_idle().await;
                group.replica().note_deleted();
                Some(hold)
            }
        };
        let failed = |source| GroupError::Store { copyset, source };
        if found.is_some() {
            store.remove_group(copyset).await.map_err(failed)?;
            store.checkpoint(Vec::new()).await.map_err(failed)?;
        }
        if !log.groups().contains(&copyset) {
            return Ok(());
        }
        let forgotten = log.remove_group(copyset).await;
        forgotten.map_err(|source| GroupError::Log { copyset, source })
    }
}
