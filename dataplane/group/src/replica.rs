//! One replica of one group: its log, its place in the store, and the replicated state.
//!
//! *Place*: the part of a group that openraft's tasks, the read path and the write-back task share.
//! *Owner*: one shard. State is borrowed only in code that runs to completion.
//! *Invariants*: `checkpoint` is what the store's root says; log entries above it are kept until
//! a newer one is durable.
//! *On failure*: see [`GroupError`].

use crate::acks::Acks;
use crate::append::payload_len;
use crate::changes::{Changes, SavedChanges};
use crate::checkpoint::{self, CheckpointState, Saved};
use crate::command::CommandHead;
use crate::compare::Pieces;
use crate::decline::Damage;
use crate::digest::{Digests, GroupDigest};
use crate::error::GroupError;
use crate::followers::Followers;
use crate::growth::Growth;
use crate::keeper::KeeperLink;
use crate::limit::{LOG_MARGIN_MAX, OVERDRAFT_LOG_SHARE};
use crate::machine::{SnapshotState, snapshot_of};
use crate::metrics::GroupMetrics;
use crate::overdraft::Overdraft;
use crate::overlay::{DirtyBlock, OverlayWhat};
use crate::pacer::Pacer;
use crate::repair::Repairs;
use crate::room::{Claim, Promises, Room};
use crate::snapshot::Copies;
use crate::space::Space;
use crate::state::State;
use crate::types::{RaftEntry, RaftSnapshotMeta, TypeConfig, from_raft, to_raft};
use ogee_log::{GroupLog, Log, LogUsage, Reservation};
use ogee_proto::id::{ChunkKey, CopysetId, LogId, LogIndex, ReplicaId, VolumeId};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::channel::Notify;
use ogee_runtime::seeded_bug;
use ogee_store::{GroupCheckpoint, Store};
use openraft::EntryPayload;
use openraft::alias::SnapshotOf;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// What one write-back cycle does for one group.
pub(crate) struct Cut {
    /// The group.
    pub(crate) replica: Rc<Replica>,
    /// The state to make durable.
    pub(crate) state: CheckpointState,
    /// What has changed up to it.
    changes: SavedChanges,
    /// Blocks to write back first.
    pub(crate) dirty: Vec<DirtyBlock>,
    /// Volumes whose chunks to give back.
    pub(crate) removed: Vec<VolumeId>,
}

/// The shared part of a group on this shard.
pub(crate) struct Replica {
    pub(crate) copyset: CopysetId,
    pub(crate) id: ReplicaId,
    pub(crate) log: GroupLog,
    store_log: Log,
    pub(crate) store: Store,
    pub(crate) state: RefCell<State>,
    pub(crate) digests: Digests<GroupDigest>,
    pub(crate) pieces: Pieces,
    pub(crate) metrics: Rc<GroupMetrics>,
    pub(crate) acks: Rc<Acks>,
    pub(crate) followers: Followers,
    pub(crate) space: Space,
    growth: Growth,
    overdraft: Overdraft,
    pub(crate) damage: Damage,
    pub(crate) repairs: Repairs,
    checkpoint: RefCell<Option<CheckpointState>>,
    holds: Cell<u32>,
    /// What copies need of the log, by number.
    keeps: RefCell<BTreeMap<u64, Keep>>,
    next_keep: Cell<u64>,
    /// The blocks are as of some moments up to this entry; see `snapshot`.
    fuzzy_until: Cell<Option<LogId>>,
    /// The last entry of the log when the replica was loaded.
    logged_at_load: Option<LogId>,
    /// Copies, and attempts at one, that have begun to come in.
    copies_begun: Cell<u64>,
    pub(crate) copies: Copies,
    /// What has changed, for whoever was away.
    pub(crate) changes: Changes,
    cutting: Cell<bool>,
    cut_ended: Notify,
    keeper: RefCell<KeeperLink>,
    pacer: RefCell<Rc<Pacer>>,
    /// A payload of the log is rotten, and no other replica has it any more.
    pub(crate) beyond_repair: Cell<bool>,
    /// Its blocks are gone, or going: to the store, which knows no more of it, they are zeros.
    deleted: Cell<bool>,
    promises: Promises,
    /// What entries take that were let in from a leader and are not applied.
    let_in: RefCell<BTreeMap<u64, Claim>>,
}

impl Cut {
    /// The state, and whether the blocks will still be newer than it, as the store is to keep them.
    pub(crate) fn saved(&self) -> GroupCheckpoint {
        let fuzzy_until = self.replica.fuzzy_until_after(self.state.applied);
        GroupCheckpoint {
            copyset: self.replica.copyset,
            applied: self.state.applied,
            state: checkpoint::encode(
                Some(&self.state),
                (self.replica.id, fuzzy_until),
                &self.replica.pieces.to_save(),
                Some(&self.changes),
            )
            .into(),
        }
    }

    /// Of its blocks those that take no room in the store.
    pub(crate) fn discards(&self) -> Vec<DirtyBlock> {
        let is_zero = |dirty: &&DirtyBlock| dirty.slot.what == OverlayWhat::Zero;
        self.dirty.iter().filter(is_zero).copied().collect()
    }
}

/// What entries with these payloads take of a log.
fn log_cost(payload_lens: impl Iterator<Item = usize>) -> ByteLen {
    ByteLen::new(payload_lens.map(|len| Log::entry_cost(len).get()).sum())
}

impl Drop for Cut {
    fn drop(&mut self) {
        self.replica.cutting.set(false);
        self.replica.cut_ended.notify_all();
    }
}

/// While it lives, the group's write-back and purge stand still: what the store and the log hold
/// as of now can be read at leisure.
pub(crate) struct Hold {
    replica: Rc<Replica>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.replica.holds.set(self.replica.holds.get() - 1);
    }
}

/// Log that a copy needs: all behind an entry, as long as it is no longer than this.
#[derive(Clone, Copy)]
struct Keep {
    behind: u64,
    len_max: ByteLen,
}

/// While it lives, the log behind an entry is kept, unless the log runs full.
pub(crate) struct KeptLog {
    replica: Rc<Replica>,
    number: u64,
    behind: u64,
}

impl KeptLog {
    /// The entry behind which it is kept.
    pub(crate) const fn behind(&self) -> u64 {
        self.behind
    }
}

impl Drop for KeptLog {
    fn drop(&mut self) {
        self.replica.keeps.borrow_mut().remove(&self.number);
    }
}

impl Replica {
    /// Whose replica of the group the store holds, if any.
    pub(crate) fn find(store: &Store, copyset: CopysetId) -> Result<Option<ReplicaId>, GroupError> {
        Ok(decode_saved(store, copyset)?.map(|saved| saved.replica))
    }

    /// Makes the replica known to the store, durably, before it votes for the first time.
    pub(crate) async fn create(
        store: &Store,
        copyset: CopysetId,
        id: ReplicaId,
    ) -> Result<(), GroupError> {
        let state = CheckpointState::encode_new(id, None).into();
        let group = GroupCheckpoint {
            copyset,
            applied: LogId::default(),
            state,
        };
        let saved = store.checkpoint(vec![group]).await;
        saved.map_err(|source| GroupError::Store { copyset, source })
    }

    /// Loads the group's last checkpoint.
    pub(crate) fn load(
        copyset: CopysetId,
        log: Log,
        store: Store,
        metrics: Rc<GroupMetrics>,
    ) -> Result<Rc<Self>, GroupError> {
        let saved = decode_saved(&store, copyset)?;
        let saved = saved.ok_or(GroupError::NoReplica { copyset })?;
        let (id, checkpoint) = (saved.replica, saved.state);
        let pieces = Pieces::default();
        pieces.load(saved.disputed);
        let mut state = State::default();
        if let Some(checkpoint) = &checkpoint {
            state.applied = Some(to_raft(checkpoint.applied));
            state.membership = checkpoint.membership.clone();
            state.sessions = checkpoint.sessions.clone();
        }
        let growth = Growth::default();
        let applied = state.applied.map_or(0, |id| id.index);
        let changes = match saved.changes.filter(|_| saved.fuzzy_until.is_none()) {
            Some(changes) => Changes::load(changes, applied),
            None => Changes::begin(applied),
        };
        growth.begin(applied);
        let group_log = log.group(copyset);
        let logged_at_load = group_log.last();
        Ok(Rc::new(Self {
            copyset,
            id,
            log: group_log,
            store_log: log,
            store,
            state: RefCell::new(state),
            digests: Digests::default(),
            pieces,
            metrics,
            acks: Rc::default(),
            followers: Followers::default(),
            space: Space::default(),
            growth,
            overdraft: Overdraft::default(),
            damage: Damage::default(),
            repairs: Repairs::default(),
            checkpoint: RefCell::new(checkpoint),
            holds: Cell::new(0),
            keeps: RefCell::default(),
            next_keep: Cell::new(0),
            fuzzy_until: Cell::new(saved.fuzzy_until),
            logged_at_load,
            copies_begun: Cell::new(0),
            copies: Copies::default(),
            changes,
            cutting: Cell::new(false),
            cut_ended: Notify::new(),
            keeper: RefCell::default(),
            pacer: RefCell::default(),
            promises: Promises::default(),
            let_in: RefCell::default(),
            beyond_repair: Cell::new(false),
            deleted: Cell::new(false),
        }))
    }

    /// Whether the store may hold what an earlier process wrote back of entries behind `applied`, whole
    /// or in part: until all those are applied again, a block that fails its checksum is no damage.
    /// Write-back takes only what is durable here ([`Replica::await_durable`]), so none is behind the
    /// log's end as it was then; an entry of a later term has replaced what had never been applied.
    pub(crate) fn may_be_ahead_of(&self, applied: LogId) -> bool {
        Some(applied) <= self.logged_at_load
    }

    /// Waits until what is applied up to an entry is durable here, and so is that it is committed. A
    /// majority may hold what is still on its way to this device. And a start applies at once what its log
    /// says is committed: were more in the store, in part perhaps, the process would meet blocks that no
    /// checksum fits until its group commits again, which may need a copy of those very blocks first.
    /// False if the log has stopped, or has too much to do.
    pub(crate) async fn await_durable(&self, applied: LogId) -> bool {
        if seeded_bug!("adopted-before-durable") {
            return true;
        }
        let durable = async {
            self.log.durable_upto(applied).await?;
            match self.log.durable_state().committed >= Some(applied) {
                true => Ok(()),
                false => self.log.committed_durable().await,
            }
        };
        let refused = durable.await.inspect_err(|error| {
            tracing::warn!(copyset = %self.copyset, %error, "write-back waits for the log");
        });
        refused.is_ok()
    }

    /// Stops write-back and purge of this group until the hold is dropped.
    pub(crate) fn hold(self: &Rc<Self>) -> Hold {
        self.holds.set(self.holds.get() + 1);
        Hold {
            replica: self.clone(),
        }
    }

    /// Like [`Replica::hold`], and waits for the end of a write-back cycle under way.
    pub(crate) async fn hold_idle(self: &Rc<Self>) -> Hold {
        let hold = self.hold();
        loop {
            let ended = self.cut_ended.notified();
            if !self.cutting.get() {
                return hold;
            }
            ended.await;
        }
    }

    pub(crate) fn is_held(&self) -> bool {
        self.holds.get() > 0
    }

    /// Keeps the log behind an entry for a replica that is being copied to, so that it can go on from
    /// the copy. When it becomes longer than `len_max` it may go.
    pub(crate) fn keep_log(self: &Rc<Self>, behind: u64, len_max: ByteLen) -> KeptLog {
        let number = self.next_keep.get();
        self.next_keep.set(number + 1);
        let keep = Keep { behind, len_max };
        self.keeps.borrow_mut().insert(number, keep);
        KeptLog {
            replica: self.clone(),
            number,
            behind,
        }
    }

    /// The entry behind which copies need the log, as long as there is room. Where the log is gone
    /// already, nothing is left to keep.
    fn kept_behind(&self) -> Option<u64> {
        let keeps = self.keeps.borrow();
        let needed = keeps.values().filter(|keep| {
            self.has_log_behind(keep.behind)
                && self.log.live_len_from(LogIndex::new(keep.behind + 1)) <= keep.len_max
        });
        let needed = needed.map(|keep| keep.behind).min();
        needed.filter(|_| self.log_has_room())
    }

    /// Whether the log is kept for now for longer than write-back needs it.
    pub(crate) fn is_log_kept(&self) -> bool {
        self.is_held() || self.kept_behind().is_some()
    }

    /// The entry up to which the log may go now, of those up to a checkpoint's.
    pub(crate) fn may_purge(&self, checkpoint: u64) -> Option<u64> {
        let kept = self.kept_behind().unwrap_or(checkpoint);
        (!self.is_held()).then_some(kept.min(checkpoint))
    }

    /// Whether everything after entry `index` is in the log.
    pub(crate) fn has_log_behind(&self, index: u64) -> bool {
        let purged = self.log.state().purged;
        purged.is_none_or(|purged| purged.index.get() <= index)
    }

    /// This keeper writes the group back from now on, and paces its writers.
    pub(crate) fn kept_by(&self, keeper: KeeperLink, pacer: Rc<Pacer>) {
        *self.keeper.borrow_mut() = keeper;
        *self.pacer.borrow_mut() = pacer;
    }

    pub(crate) fn keeper(&self) -> KeeperLink {
        self.keeper.borrow().clone()
    }

    pub(crate) fn pacer(&self) -> Rc<Pacer> {
        self.pacer.borrow().clone()
    }

    /// Waits for the turn of a write with this payload, while write-back needs the time.
    pub(crate) async fn pace(&self, payload_len: usize) {
        let pacer = self.pacer();
        pacer.pass(Log::entry_cost(payload_len)).await;
    }

    /// Promises room in the log for entries with these payloads, waiting for it: an append that is
    /// refused would be fatal to the group. `None`: the log has stopped, which the append says better.
    pub(crate) async fn reserve_log(
        &self,
        payload_lens: impl Iterator<Item = usize>,
    ) -> Option<Reservation> {
        self.log.reserve(log_cost(payload_lens)).await.ok()
    }

    /// Length of a live entry's payload.
    pub(crate) fn payload_len(&self, index: u64) -> Option<usize> {
        self.log.payload_len(LogIndex::new(index))
    }

    /// Counts this group's promises with those of its store's other groups from now on.
    pub(crate) fn shares(&self, room: Rc<Room>) {
        self.promises.join(room);
    }

    /// Room for a write under way; `None` if new data does not fit.
    pub(crate) fn claim(&self, head: &CommandHead) -> Option<Claim> {
        let (first, count) = (head.first_block(), head.block_count());
        let claim = self.promises.claim(&self.store, head.key, first, count);
        let fits = claim.is_empty() || self.promises.room().has_space(&self.store);
        fits.then_some(claim)
    }

    /// What this group's requests under way would take, in extents.
    pub(crate) fn claimed_extents(&self) -> usize {
        self.promises.claimed().extents
    }

    /// What new data of this group the store has room for, in extents.
    pub(crate) fn room_share(&self) -> u32 {
        self.promises.room().share(&self.store)
    }

    /// Room for entries that a leader sends, who has committed everything up to `committed`; each with
    /// its index. `None` if they do not fit, and may wait. Those that are here already count already.
    pub(crate) fn claim_entries(
        &self,
        entries: &[RaftEntry],
        committed: u64,
    ) -> Option<Vec<(u64, Claim)>> {
        let news = entries.iter().filter_map(|entry| self.claim_entry(entry));
        let claims: Vec<(u64, Claim)> = news.collect();
        let last = claims.last().map_or(0, |(index, _)| *index);
        if claims.is_empty() {
            return Some(claims);
        }
        if self.promises.room().takes(&self.store) {
            self.overdraft.end();
            return Some(claims);
        }
        (self.overdraft.may(last, committed) && self.overdraws(entries)).then_some(claims)
    }

    /// Whether the log has the room for entries whose data the store has no room for.
    fn overdraws(&self, entries: &[RaftEntry]) -> bool {
        let (usage, cost) = (
            self.store_log.usage(),
            log_cost(entries.iter().map(payload_len)),
        );
        let used = usage.used.get() + cost.get();
        let fits = used <= usage.capacity.get() / OVERDRAFT_LOG_SHARE;
        let what = match fits {
            true => "they wait in the log",
            false => "nor has its log: they are refused",
        };
        tracing::warn!(copyset = %self.copyset, log_used = %usage.used,
            "the store has no room for entries that no majority has room for, {what}; \
             remove data or add devices");
        fits
    }

    fn claim_entry(&self, entry: &RaftEntry) -> Option<(u64, Claim)> {
        let EntryPayload::Normal(command) = &entry.payload else {
            return None;
        };
        let (head, id) = (&command.head, from_raft(&entry.log_id));
        if !head.kind.brings_data()
            || !head.is_in_range()
            || self.log.entry_id(id.index) == Some(id)
        {
            return None;
        }
        let (first, count) = (head.first_block(), head.block_count());
        let claim = self.promises.claim(&self.store, head.key, first, count);
        (!claim.is_empty()).then_some((entry.log_id.index, claim))
    }

    /// Entries have been let into the log: what they take is claimed until they are applied. In the
    /// place of others, which are in the log no more.
    pub(crate) fn let_in(&self, claims: Vec<(u64, Claim)>) {
        let Some((first, _)) = claims.first() else {
            return;
        };
        let applied = self.state.borrow().applied.map_or(0, |id| id.index);
        let mut let_in = self.let_in.borrow_mut();
        drop(let_in.split_off(first));
        let_in.extend(claims.into_iter().filter(|(index, _)| *index > applied));
    }

    /// Entries up to `index` are applied, or their effects came with a copy.
    pub(crate) fn let_through(&self, index: u64) {
        let mut let_in = self.let_in.borrow_mut();
        while let_in
            .first_key_value()
            .is_some_and(|(first, _)| *first <= index)
        {
            let_in.pop_first();
        }
    }

    /// Extents of a copy of this group, at most: what it maps, and what applied writes will take.
    pub(crate) fn copy_extents(&self) -> usize {
        self.store.extents_of(self.copyset) + self.promises.extents()
    }

    /// Extents that a copy may take of the store beside those that the group has: its own promises
    /// end with it.
    pub(crate) fn copy_room(&self) -> usize {
        let room = self.promises.room();
        room.left_without(&self.store, self.promises.own())
    }

    /// Extents for a large write; none if it had better go into the log, as when what is free is
    /// promised to others.
    pub(crate) fn take_extents(&self, count: u32) -> Vec<ByteOffset> {
        let leaves_promised = self.promises.room().leaves_promised(&self.store, count);
        let taken = leaves_promised.then(|| self.store.take_extents(count));
        taken.flatten().unwrap_or_default()
    }

    /// Entry `index`, a write, has been applied: what it will take of the store is promised, unless
    /// it has taken it already.
    pub(crate) fn promise(&self, index: u64, key: ChunkKey, first: usize, count: usize) {
        let begun = match self.log.placed(LogIndex::new(index)) {
            None => self.promises.promise(&self.store, key, first, count),
            Some(_) => Promises::lacks(&self.store, key, first, count).extents,
        };
        self.growth.note(index, begun);
    }

    /// Extents that a follower lacks of what is applied here and took some, as far as it is known.
    pub(crate) fn lacked_by(&self, follower: u64) -> Option<u64> {
        self.growth.behind(self.followers.matched(follower)?)
    }

    /// Blocks were written back.
    pub(crate) fn kept(&self, blocks: &[DirtyBlock]) {
        let blocks = blocks.iter().map(|dirty| (dirty.key, dirty.block));
        self.promises.kept(&self.store, blocks);
    }

    /// Promises what is in the log only, and nothing else.
    pub(crate) fn settle_promises(&self) {
        let state = self.state.borrow();
        let placed = |index| self.log.placed(LogIndex::new(index)).is_some();
        self.promises.settle(&self.store, &state.overlay, placed);
    }

    /// Takes volumes back whose removal could not be done in this cycle.
    pub(crate) fn remove_later(&self, volumes: &[VolumeId]) {
        self.state.borrow_mut().removed.extend_from_slice(volumes);
    }

    pub(crate) fn log_usage(&self) -> LogUsage {
        self.store_log.usage()
    }

    pub(crate) fn log_has_room(&self) -> bool {
        self.store_log.has_space([self.log_margin().as_usize()])
    }

    pub(crate) fn log_margin(&self) -> ByteLen {
        let quarter = self.store_log.usage().capacity.get() / 4;
        ByteLen::new(quarter.min(LOG_MARGIN_MAX))
    }

    /// The state as of now, to be made durable; `None` if that is what the root says already.
    pub(crate) fn cut(self: &Rc<Self>) -> Option<Cut> {
        if self.is_held() && !seeded_bug!("write-back-ignores-hold") {
            return None;
        }
        let mut state = self.state.borrow_mut();
        let applied = from_raft(state.applied.as_ref()?);
        let saved = self
            .checkpoint
            .borrow()
            .as_ref()
            .map(|checkpoint| checkpoint.applied);
        if saved == Some(applied) && !self.pieces.are_unsaved() {
            return None;
        }
        let missed = u64::from(seeded_bug!("checkpoint-misses-last-entry"));
        assert!(!self.cutting.replace(true), "one cycle at a time");
        let upto = applied.index.get().saturating_sub(missed);
        self.pieces.note_cut(&state.overlay, upto, &state.removed);
        let dirty = state.overlay.dirty(upto);
        Some(Cut {
            replica: self.clone(),
            dirty,
            removed: std::mem::take(&mut state.removed),
            changes: self.changes.save(),
            state: CheckpointState {
                applied,
                membership: state.membership.clone(),
                sessions: state.sessions.clone(),
            },
        })
    }

    /// The store's root now says `state`.
    pub(crate) fn checkpointed(&self, state: CheckpointState) {
        let mut checkpoint = self.checkpoint.borrow_mut();
        let newer = checkpoint
            .as_ref()
            .is_none_or(|old| old.applied <= state.applied);
        assert!(newer, "checkpoints move forward");
        *checkpoint = Some(state);
        self.changes.note_checkpoint();
    }

    /// The entry as of which the store's root is, if there is a checkpoint.
    pub(crate) fn checkpointed_to(&self) -> Option<LogId> {
        let checkpoint = self.checkpoint.borrow();
        checkpoint.as_ref().map(|checkpoint| checkpoint.applied)
    }

    /// Whether everything up to entry `upto`, which is committed, is in this replica's checkpoint or
    /// log, durably: an entry that is there has all those before it as well.
    pub(crate) fn has_durably(&self, upto: LogId) -> bool {
        let is_logged = self.log.entry_id(upto.index) == Some(upto)
            && self.log.durable_state().last >= Some(upto);
        !self.is_fuzzy() && (is_logged || self.checkpointed_to() >= Some(upto))
    }

    /// The last durable checkpoint as openraft's snapshot.
    pub(crate) fn current_snapshot(
        &self,
    ) -> Result<Option<SnapshotOf<TypeConfig, SnapshotState>>, GroupError> {
        let checkpoint = self.checkpoint.borrow().clone();
        Ok(checkpoint.map(|state| snapshot_of(state, self.fuzzy_until.get())))
    }

    /// Whether some blocks may be newer than what was applied: such a replica is no source of
    /// anything. What is compared are log ids, so a mark in a term to come is passed by whatever
    /// that term commits.
    pub(crate) fn is_fuzzy(&self) -> bool {
        let applied = self.state.borrow().applied.as_ref().map(from_raft);
        self.fuzzy_until_after(applied.unwrap_or_default())
            .is_some()
    }

    /// From here on nobody is told what the store says of this replica.
    pub(crate) fn note_deleted(&self) {
        self.deleted.set(true);
    }

    /// Whoever has read from the store asks this afterwards: a request, a copy or a digest may have
    /// begun before the replica was deleted.
    pub(crate) fn check_kept(&self) -> Result<(), GroupError> {
        match self.deleted.get() {
            false => Ok(()),
            true => Err(GroupError::Deleted {
                copyset: self.copyset,
                replica: self.id,
            }),
        }
    }

    /// Has changed when blocks of a copy may have come since.
    pub(crate) fn copies_begun(&self) -> u64 {
        self.copies_begun.get()
    }

    /// The mark of a copy that has begun to come, whether it was passed since or not.
    pub(crate) fn mark(&self) -> Option<LogId> {
        self.fuzzy_until.get()
    }

    fn fuzzy_until_after(&self, applied: LogId) -> Option<LogId> {
        self.fuzzy_until.get().filter(|until| applied < *until)
    }

    /// Takes note, durably, that blocks as of moments up to `until` are about to come. Returns the mark of before.
    pub(crate) async fn mark_fuzzy(&self, until: LogId) -> Result<Option<LogId>, GroupError> {
        self.copies_begun.set(self.copies_begun.get() + 1);
        let before = self.fuzzy_until.get();
        if before < Some(until) && !seeded_bug!("copy-mark-forgotten") {
            self.change_mark(before, Some(until)).await?;
        }
        Ok(before)
    }

    /// The mark `from` is `to` from here on, durably; another one is let be.
    ///
    /// For a copy that did not come after its mark was set, and for one that came whole but was not installed, since the
    /// log had brought more meanwhile: its blocks are as of moments up to `to`, and what is applied beyond them makes them exact.
    pub(crate) async fn change_mark(
        &self,
        from: Option<LogId>,
        to: Option<LogId>,
    ) -> Result<(), GroupError> {
        if from == to || self.fuzzy_until.get() != from {
            return Ok(());
        }
        self.fuzzy_until.set(to);
        let saved = self.save_again().await;
        if saved.is_err() {
            self.fuzzy_until.set(from);
        }
        saved
    }

    /// Makes the store's root anew, with nothing of this group applied on top of the last one.
    pub(crate) async fn save_again(&self) -> Result<(), GroupError> {
        let saved = self.checkpoint.borrow().clone();
        self.save(saved.as_ref()).await
    }

    /// Makes a snapshot whose blocks are in the store already this replica's state: one root flip.
    pub(crate) async fn install(
        self: &Rc<Self>,
        meta: &RaftSnapshotMeta,
        snapshot: SnapshotState,
    ) -> Result<(), GroupError> {
        let _hold = self.hold_idle().await;
        let SnapshotState {
            state: new,
            fuzzy_until,
        } = snapshot;
        {
            let mut state = self.state.borrow_mut();
            state.applied = meta.last_log_id;
            state.membership = meta.last_membership.clone();
            state.sessions = new.sessions.clone();
            if !seeded_bug!("install-keeps-overlay") {
                state.overlay.clear();
            }
            state.removed.clear();
        }
        let last = meta.last_log_id.map_or(0, |id| id.index);
        self.let_through(last);
        self.growth.begin(last);
        self.settle_promises();
        // What other replicas were sent does not lead up to these contents.
        self.copies.forget_all();
        if !seeded_bug!("changes-survive-a-copy") {
            self.changes.begin_anew(last);
        }
        self.fuzzy_until
            .set(fuzzy_until.filter(|_| !seeded_bug!("copy-mark-forgotten")));
        self.save(Some(&new)).await?;
        self.checkpointed(new);
        Ok(())
    }

    /// The last root under another id. Nothing may be made durable of this one any more.
    pub(crate) async fn rename(&self, to: ReplicaId) -> Result<(), GroupError> {
        let saved = self.checkpoint.borrow().clone();
        self.save_as(to, saved.as_ref()).await
    }

    async fn save(&self, state: Option<&CheckpointState>) -> Result<(), GroupError> {
        self.save_as(self.id, state).await
    }

    async fn save_as(
        &self,
        id: ReplicaId,
        state: Option<&CheckpointState>,
    ) -> Result<(), GroupError> {
        let (copyset, fuzzy_until) = (self.copyset, self.fuzzy_until.get());
        // What had changed before does not lead up to contents that came as a copy.
        let bytes = checkpoint::encode(state, (id, fuzzy_until), &self.pieces.to_save(), None);
        let group = GroupCheckpoint {
            copyset,
            applied: state.map(|state| state.applied).unwrap_or_default(),
            state: bytes.into(),
        };
        let saved = self.store.checkpoint(vec![group]).await;
        saved.map_err(|source| GroupError::Store { copyset, source })
    }
}

fn decode_saved(store: &Store, copyset: CopysetId) -> Result<Option<Saved>, GroupError> {
    let Some(saved) = store.group(copyset) else {
        return Ok(None);
    };
    let decoded = Saved::decode(saved.applied, &saved.state);
    decoded
        .map(Some)
        .map_err(|source| GroupError::CheckpointState { copyset, source })
}
