//! Making a damaged log whole from the other replicas.
//!
//! *Place*: before a damaged replica's group is opened, and beside a running group of which a payload
//! turns out rotten. *Owner*: one task of the group's shard. *Invariants*: a damaged replica neither
//! votes nor acknowledges nor serves, since Raft does not run; what it lost is put back only where
//! its own medium names exactly that entry. What the store's checkpoint covers is not needed. A vote
//! that may be lost is never made up for, nor is a log that begins behind the checkpoint: such a
//! replica ends as *needs replacing*.
//! *On failure*: peers that are away are asked again, for ever, with pauses; others go on meanwhile.

use crate::codec::{ENTRY_MEMBERSHIP, get_membership};
use crate::entries::{self, Found};
use crate::error::GroupError;
use crate::group::{Group, GroupParams, GroupReport};
use crate::limit::{MEND_ASK_WAIT, MEND_ENTRIES_MAX, MEND_PAUSE_MAX, MEND_PAUSE_MIN};
use crate::peers::PeerBook;
use crate::replica::Replica;
use crate::types::RaftMembership;
use bytes::Bytes;
use futures_util::future::{Either, select};
use ogee_log::{Completion, Damage, LogError};
use ogee_proto::id::{ClientId, CopysetId, Epoch, LogIndex, ReplicaId, RequestId, Term};
use ogee_proto::wire::{FrameHeader, FrameKind, Reader, Status};
use ogee_runtime::channel::Notify;
use ogee_transport::Frame;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;

/// How a damaged replica stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MendState {
    /// Other replicas are asked for what is lost.
    Repairing,
    /// Nobody can make it whole: it is to be replaced under a new id.
    NeedsReplacing,
}

/// A replica whose log must be made whole before its group is opened.
pub struct Mender {
    replica: Rc<Replica>,
    peers: Rc<PeerBook>,
    state: Cell<MendState>,
    stop: Notify,
}

/// What came of asking everybody once.
enum Round {
    /// Something was put back.
    Mended,
    /// Nobody who was reached has it.
    Nobody,
    /// All others were reached, and have purged it; or some have, and the logs of the rest end below it.
    Purged,
}

impl Mender {
    /// Looks at the replica's log: `None` if the group can be opened as it is.
    ///
    /// # Errors
    /// [`GroupError`] when the replica's state cannot be loaded.
    pub fn find(params: &GroupParams) -> Result<Option<Self>, GroupError> {
        let (log, store) = (params.log.clone(), params.store.clone());
        let replica = Replica::load(params.copyset, log, store, params.metrics.clone())?;
        Ok(replica.damage_at_open().map(|_| Self {
            replica,
            peers: params.peers.clone(),
            state: Cell::new(MendState::Repairing),
            stop: Notify::new(),
        }))
    }

    /// A replica that has run, and whose log cannot be made whole.
    #[must_use]
    pub fn of_lost(group: &Group) -> Self {
        Self {
            replica: group.replica().clone(),
            peers: group.peers().clone(),
            state: Cell::new(MendState::NeedsReplacing),
            stop: Notify::new(),
        }
    }

    /// Makes the log whole, however long that takes.
    ///
    /// # Errors
    /// [`GroupError::Damaged`] when it cannot be: the replica needs replacing. [`GroupError::Log`]
    /// when the log has stopped.
    pub async fn run(&self) -> Result<(), GroupError> {
        let copyset = self.copyset();
        if let Some(damage) = self.replica.damage_at_open() {
            tracing::error!(
                %copyset, replica = %self.replica.id, %damage,
                "the replica stays out of its group until other replicas have given it what is lost"
            );
        }
        let repair = async {
            self.replica.check_start()?;
            self.replica.purge_to_checkpoint().await?;
            self.replica.mend(&self.peers).await
        };
        let done = match select(pin!(repair), pin!(self.stop.notified())).await {
            Either::Left((done, _)) => done,
            Either::Right(_) => Err(GroupError::Stopped {
                copyset,
                replica: self.replica.id,
                reason: "it was removed".into(),
            }),
        };
        match &done {
            Ok(()) => {
                let replica = self.replica.id;
                tracing::info!(%copyset, %replica, "the replica's log is whole again");
            }
            Err(error) => {
                self.state.set(MendState::NeedsReplacing);
                tracing::error!(%copyset, %error, "the replica stays out of its group: replace it");
            }
        }
        done
    }

    /// Ends the repair: the replica is removed.
    pub fn stop(&self) {
        self.stop.notify_all();
    }

    /// The group.
    #[must_use]
    pub fn copyset(&self) -> CopysetId {
        self.replica.copyset
    }

    /// This replica.
    #[must_use]
    pub fn replica_id(&self) -> ReplicaId {
        self.replica.id
    }

    /// How it stands.
    #[must_use]
    pub fn state(&self) -> MendState {
        self.state.get()
    }

    /// For heartbeats: it follows nobody.
    #[must_use]
    pub fn report(&self) -> GroupReport {
        let state = self.replica.log.state();
        GroupReport {
            copyset: self.copyset(),
            replica: self.replica_id(),
            leader: None,
            is_leader: false,
            term: Term::new(state.vote.map_or(0, |vote| vote.term)),
            applied: self.replica.checkpointed_to().unwrap_or_default(),
            last_log: state.last.map_or(0, |last| last.index.get()),
            is_running: false,
            is_quiet: false,
            is_outrun: false,
            is_installing: false,
            requests: 0,
            bytes: 0,
        }
    }

    /// What is lost.
    #[must_use]
    pub fn damage(&self) -> Option<Damage> {
        self.replica.log.damage()
    }

    /// Gives another damaged replica what it lacks and this one has.
    pub async fn on_log_entries(&self, frame: Frame) -> Frame {
        entries::answer(&self.replica.log, &frame).await
    }
}

impl Replica {
    /// Why the group cannot be opened as it is, if so.
    pub(crate) fn damage_at_open(&self) -> Option<GroupError> {
        let damage = self.log.damage().filter(|damage| damage.is_blocking);
        let damage = damage.map(|damage| self.damaged(&damage, "it must be repaired first"));
        self.check_start().err().or(damage)
    }

    /// The log must go on from what the checkpoint covers.
    ///
    /// A purge follows a durable checkpoint, so one beyond it is not this replica's. It was made by an
    /// earlier replica of the group, in whose place this one was created in the same log; of the
    /// removal, and of all that this one wrote up to some record, nothing is left, and the log cannot
    /// tell (`ogee_log::format`, *Damage*). The entries between are lost, although they may have been
    /// acknowledged, and nothing names them.
    fn check_start(&self) -> Result<(), GroupError> {
        let (purged, covered) = (self.log.state().purged, self.checkpointed_to());
        match (purged, covered) {
            (None, _) => Ok(()),
            (Some(purged), Some(covered)) if purged.index <= covered.index => Ok(()),
            (Some(purged), _) => {
                let covered =
                    covered.map_or("nothing".into(), |covered| format!("all up to {covered}"));
                let lost = format!("what comes up to {purged}: the checkpoint covers {covered}");
                Err(self.has_lost(
                    lost.into(),
                    "nothing names what other replicas could give back",
                ))
            }
        }
    }

    /// Puts back what is lost, until nothing is.
    pub(crate) async fn mend(&self, peers: &PeerBook) -> Result<(), GroupError> {
        let (mut pause, mut was_purged) = (MEND_PAUSE_MIN, false);
        while let Some(damage) = self.log.damage() {
            let Some(wanted) = wanted(&damage).filter(|_| damage.is_repairable()) else {
                return Err(self.damaged(&damage, "no other replica can give it back"));
            };
            let round = self.ask_everybody(peers, &wanted).await?;
            let is_purged = matches!(round, Round::Purged);
            match round {
                Round::Mended => pause = MEND_PAUSE_MIN,
                // They were asked one after the other: the first may have it since, from the last.
                Round::Purged if was_purged => {
                    let text = "the other replicas have purged it";
                    return Err(self.damaged(&damage, text));
                }
                Round::Purged | Round::Nobody => {
                    ogee_runtime::sleep(pause).await;
                    pause = MEND_PAUSE_MAX.min(pause * 2);
                }
            }
            was_purged = is_purged;
        }
        Ok(())
    }

    /// Puts payloads back that turn out rotten while the group runs. Ends with the log.
    pub(crate) async fn keep_mended(self: Rc<Self>, peers: Rc<PeerBook>) {
        loop {
            let damage = self.log.damaged().await;
            tracing::error!(copyset = %self.copyset, replica = %self.id, lost = %damage,
                "payloads in the log are rotten: other replicas are asked for them");
            match self.mend(&peers).await {
                Ok(()) => tracing::info!(copyset = %self.copyset, "rotten payloads are replaced"),
                Err(GroupError::Log { .. }) => return,
                Err(error) => {
                    tracing::error!(copyset = %self.copyset, %error,
                        "the replica has lost data for good: replace it");
                    self.beyond_repair.set(true);
                    return;
                }
            }
        }
    }

    /// What the checkpoint covers is not needed, so it cannot be missing.
    async fn purge_to_checkpoint(&self) -> Result<(), GroupError> {
        let Some(upto) = self.checkpointed_to() else {
            return Ok(());
        };
        let purged = self.log.state().purged;
        if purged.is_some_and(|purged| purged.index >= upto.index) {
            return Ok(());
        }
        let lost = self.log.damage().unwrap_or_default().entries;
        if lost.first().is_none_or(|first| first.index > upto.index) {
            return Ok(());
        }
        self.log
            .purge(upto)
            .await
            .map_err(|source| self.log_error(source))
    }

    async fn ask_everybody(
        &self,
        peers: &PeerBook,
        wanted: &Range<LogIndex>,
    ) -> Result<Round, GroupError> {
        let mut members = self.members();
        if members.is_empty() {
            members = peers.known();
        }
        let others = members.into_iter().filter(|(id, _)| *id != self.id);
        let (mut asked, mut purged, mut below) = (0, 0, 0);
        for (peer, endpoint) in others {
            asked += 1;
            let Some(found) = self.ask(peers, peer, &endpoint, wanted).await else {
                continue;
            };
            if self.put_back(&found, peer).await? {
                return Ok(Round::Mended);
            }
            let top = wanted.end.get() - 1;
            let is_purged = found.purged.is_some_and(|purged| purged.index.get() >= top);
            purged += usize::from(is_purged);
            // Nobody will send it either: who has purged it copies, and here it is lost.
            let is_below = found.last.is_none_or(|last| last.index.get() < top);
            below += usize::from(!is_purged && is_below);
            tracing::debug!(copyset = %self.copyset, %peer, ?wanted, last = ?found.last, is_purged,
                "a replica has nothing to repair with");
        }
        Ok(if purged > 0 && asked == purged + below {
            Round::Purged
        } else {
            Round::Nobody
        })
    }

    /// Members by the newest membership known here.
    pub(crate) fn members(&self) -> BTreeMap<ReplicaId, String> {
        let mut members = BTreeMap::new();
        let mut add = |membership: &RaftMembership| {
            members = membership
                .nodes()
                .map(|(id, node)| (ReplicaId::new(*id), node.endpoint.to_string()))
                .collect();
        };
        add(self.state.borrow().membership.membership());
        let end = self.log.last().map_or(0, |last| last.index.get() + 1);
        let mut index = self.log.first_index().map_or(end, |first| first.get());
        while index < end {
            let range = LogIndex::new(index)..LogIndex::new(end);
            let entries = self.log.peek(range, 1 << 20);
            for entry in entries
                .iter()
                .filter(|entry| entry.kind == ENTRY_MEMBERSHIP)
            {
                if let Ok(membership) = get_membership(&mut Reader::new(&entry.head)) {
                    add(&membership);
                }
            }
            // What is lost is passed over.
            index = entries.last().map_or(index, |last| last.id.index.get()) + 1;
        }
        members
    }

    async fn ask(
        &self,
        peers: &PeerBook,
        peer: ReplicaId,
        endpoint: &str,
        wanted: &Range<LogIndex>,
    ) -> Option<Found> {
        let mut header = FrameHeader::new(FrameKind::LogEntries, RequestId::new(0));
        header.copyset = self.copyset;
        header.client = ClientId::new(self.id.get());
        header.epoch = Epoch::new(peer.get());
        let mut frame = Frame::new(header);
        let mut meta = Vec::with_capacity(16);
        entries::put_request(&mut meta, wanted);
        frame.meta = Bytes::from(meta);
        let caller = peers.caller(peer, endpoint)?;
        let reply = ogee_runtime::timeout(MEND_ASK_WAIT, caller.call(frame)).await;
        let reply = reply.ok()?.ok()?;
        if reply.header.status != Status::Ok {
            return None;
        }
        let found = entries::get_found(&reply);
        found
            .inspect_err(|error| {
                tracing::warn!(copyset = %self.copyset, %peer, %error, "a garbled answer");
            })
            .ok()
    }

    /// Puts back what can be, going down; tells whether anything was.
    async fn put_back(&self, found: &Found, peer: ReplicaId) -> Result<bool, GroupError> {
        let mut writes: Vec<Completion> = Vec::new();
        for linked in found.entries.iter().rev() {
            writes.push(self.log.repair(&linked.entry, linked.chain));
        }
        let mut is_mended = false;
        for write in writes {
            match write.await {
                Ok(()) => is_mended = true,
                Err(LogError::NoEntry { .. } | LogError::Full { .. }) => {}
                Err(error @ (LogError::WrongEntry { .. } | LogError::Corrupt { .. })) => {
                    tracing::warn!(copyset = %self.copyset, %peer, %error, "not what is lost here");
                }
                Err(source) => return Err(self.log_error(source)),
            }
        }
        Ok(is_mended)
    }

    const fn log_error(&self, source: LogError) -> GroupError {
        GroupError::Log {
            copyset: self.copyset,
            source,
        }
    }

    fn damaged(&self, damage: &Damage, reason: &'static str) -> GroupError {
        self.has_lost(damage.to_string().into(), reason)
    }

    const fn has_lost(&self, lost: Box<str>, reason: &'static str) -> GroupError {
        GroupError::Damaged {
            copyset: self.copyset,
            replica: self.id,
            lost,
            reason,
        }
    }
}

/// What to ask for: a run of lost entries, ending with the last of which the identity is known.
fn wanted(damage: &Damage) -> Option<Range<LogIndex>> {
    let named = damage
        .entries
        .iter()
        .rposition(|lost| lost.identity.is_some())?;
    let end = damage.entries[named].index.get() + 1;
    let mut first = end - 1;
    for lost in damage.entries[..named].iter().rev() {
        if lost.index.get() + 1 != first || end - lost.index.get() > MEND_ENTRIES_MAX {
            break;
        }
        first = lost.index.get();
    }
    Some(LogIndex::new(first)..LogIndex::new(end))
}

#[cfg(test)]
mod tests {
    use super::wanted;
    use ogee_log::{Damage, LostEntry};
    use ogee_proto::id::LogIndex;

    fn damage(lost: &[(u64, bool)]) -> Damage {
        let lost = lost.iter().map(|(index, is_named)| LostEntry {
            index: LogIndex::new(*index),
            identity: is_named.then_some(9),
        });
        Damage {
            entries: lost.collect(),
            ..Damage::default()
        }
    }

    #[test]
    fn a_run_is_asked_for_that_ends_with_a_known_entry() {
        let cases = [
            (vec![(3, true)], Some(3..4)),
            (vec![(2, false), (3, true)], Some(2..4)),
            (vec![(2, true), (3, true), (4, false)], Some(2..4)),
            (vec![(1, true), (3, false), (4, true)], Some(3..5)),
            (vec![(1, false)], None),
        ];
        for (lost, expected) in cases {
            let expected = expected.map(|range: std::ops::Range<u64>| {
                LogIndex::new(range.start)..LogIndex::new(range.end)
            });
            assert_eq!(wanted(&damage(&lost)), expected, "{lost:?}");
        }
    }
}
