//! The receiving side of a copy.
//!
//! *Place*: frames come from the shard's service, each in a task of its own, in no certain order.
//! *Owner*: one group; at most one incoming copy.
//! *Invariants*: the mark is durable before the first block is written; write-back of the group
//! stands still from before the first block until nothing of the copy is under way any more, so
//! that no block of it lands on one that was written back later; a step of an earlier attempt
//! takes no effect once a later one has begun.
//! *On failure*: the step is refused and the sender's attempt ends. What was taken stays for its
//! next one, until the leader is deposed, the sender stays away, or this process ends.

use super::wire::{
    Base, Begin, STEP_BASE, STEP_BEGIN, STEP_BLOCKS, STEP_CHUNKS, STEP_END, STEP_STATE, STEP_SYNC,
    STEP_ZEROS, get_blocks, get_end, get_haste, get_keys, get_state_range, get_zeros, put_base,
    put_token,
};
use crate::checkpoint::{CheckpointState, Saved};
use crate::codec::put_vote;
use crate::error::GroupError;
use crate::group::Group;
use crate::limit::COPY_KEPT;
use crate::machine::SnapshotState;
use crate::replica::{Hold, Replica};
use crate::room::extents_in;
use crate::types::{RaftLogId, RaftVote, from_raft, to_raft, to_raft_vote};
use bytes::Bytes;
use ogee_proto::checksum::crc32c;
use ogee_proto::id::{ChunkKey, LogId};
use ogee_proto::unit::ByteLen;
use ogee_proto::wire::{FrameHeader, Status, WireError};
use ogee_runtime::channel::{Mutex, Notify};
use ogee_runtime::{Instant, seeded_bug};
use ogee_store::{BlockChange, Purpose, Store, StoreError, WriteBack};
use ogee_transport::Frame;
use openraft::raft::AppendEntriesRequest;
use openraft::storage::Snapshot;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

/// What a replica is marked with while a copy of this leader comes: a moment of a term that the sender does not see, since
/// whatever is committed there comes after all that the sender can have applied.
fn mark_of(vote: &RaftVote) -> LogId {
    LogId::new(vote.leader_id.term + 1, 0)
}

/// The copy that this replica is receiving, if any.
pub(crate) struct Incoming {
    transfer: RefCell<Option<Rc<Transfer>>>,
    /// One begin or end at a time.
    turn: Mutex<()>,
    /// Steps under way, also of copies that do not count any more.
    busy: Rc<Busy>,
}

/// How many steps are under way.
struct Busy {
    steps: Cell<usize>,
    idle: Notify,
}

impl Default for Incoming {
    fn default() -> Self {
        Self {
            transfer: RefCell::default(),
            turn: Mutex::new(()),
            busy: Rc::new(Busy {
                steps: Cell::new(0),
                idle: Notify::new(),
            }),
        }
    }
}

/// A copy, over all its attempts.
struct Transfer {
    /// Chosen by the sender.
    id: u64,
    /// Chosen here: a sender that knows it knows what is here.
    token: u64,
    attempt: RefCell<Attempt>,
    /// What was here before.
    base: Base,
    heard: Cell<Instant>,
    _hold: Hold,
}

/// What the present attempt has brought.
struct Attempt {
    number: u64,
    begin: Begin,
    state: Vec<u8>,
    /// Where the parts of the state that are still missing begin.
    missing: BTreeSet<usize>,
    chunks: BTreeSet<ChunkKey>,
    /// Nothing of it is taken but its end.
    is_for_end: bool,
}

/// A step under way. It keeps the copy's hold, even when the copy does not count any more.
struct Work {
    transfer: Rc<Transfer>,
    busy: Rc<Busy>,
}

impl Work {
    fn of(transfer: &Rc<Transfer>, busy: &Rc<Busy>) -> Self {
        busy.steps.set(busy.steps.get() + 1);
        transfer.heard.set(ogee_runtime::now());
        Self {
            transfer: transfer.clone(),
            busy: busy.clone(),
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.transfer.heard.set(ogee_runtime::now());
        self.busy.steps.set(self.busy.steps.get() - 1);
        self.busy.idle.notify_all();
    }
}

impl Busy {
    /// Waits until nothing is under way.
    async fn settled(&self) {
        loop {
            let idle = self.idle.notified();
            if self.steps.get() == 0 {
                return;
            }
            idle.await;
        }
    }
}

impl Attempt {
    fn new(number: u64, begin: Begin, is_for_end: bool) -> Self {
        let parts = (0..begin.state_len).step_by(crate::limit::COPY_PIECE_BYTES);
        Self {
            number,
            state: vec![0; begin.state_len],
            missing: parts.collect(),
            chunks: BTreeSet::new(),
            is_for_end,
            begin,
        }
    }
}

impl Incoming {
    /// Drops the copy of a leader that a newer one has deposed: nobody will finish it, and its hold
    /// would keep write-back from ever freeing the log again.
    fn void_older(&self, leader: &RaftVote) {
        let is_older = |transfer: &Rc<Transfer>| transfer.attempt.borrow().begin.vote < *leader;
        let mut transfer = self.transfer.borrow_mut();
        if transfer.as_ref().is_some_and(is_older) {
            *transfer = None;
        }
    }

    /// The copy that a step belongs to, if it is the present attempt of one that still counts.
    fn work(&self, header: &FrameHeader, current: Option<&RaftVote>) -> Option<Work> {
        let transfer = self.transfer.borrow();
        let transfer = transfer.as_ref()?;
        let attempt = transfer.attempt.borrow();
        let counts = transfer.id == header.stream
            && attempt.number == header.watermark.get()
            && current.is_none_or(|current| attempt.begin.vote >= *current);
        counts.then(|| Work::of(transfer, &self.busy))
    }

    fn take(&self) -> Option<Rc<Transfer>> {
        self.transfer.borrow_mut().take()
    }
}

impl Group {
    /// Takes note of who leads: an unfinished copy of an earlier leader is void.
    pub(crate) fn note_leader(&self, leader: &RaftVote) {
        self.incoming().void_older(leader);
    }

    /// Takes one step of an incoming snapshot; answers its frame.
    pub async fn on_snapshot(&self, frame: Frame) -> Frame {
        let header = frame.header;
        let done = match header.sequence.get() {
            STEP_BEGIN => self.begin_snapshot(&frame).await,
            STEP_END => self.end_snapshot(&frame).await,
            STEP_BASE => self.tell_base(&frame),
            _ => self.take_step(&frame).await.map(|()| Bytes::new()),
        };
        let status = done.as_ref().err().copied().unwrap_or(Status::Ok);
        let mut reply = Frame::new(FrameHeader::reply(&header, status));
        reply.meta = done.unwrap_or_default();
        reply
    }

    async fn begin_snapshot(&self, frame: &Frame) -> Result<Bytes, Status> {
        let begin = Begin::decode(&frame.meta).map_err(|error| self.malformed(&error))?;
        let _turn = self.incoming().turn.lock().await;
        if self.has_all_of(&begin).await {
            tracing::info!(copyset = %self.copyset(), upto = %begin.meta, "all of a snapshot is here already");
            return Err(Status::Stale);
        }
        let mark = mark_of(&begin.vote);
        if self.replica().mark() == Some(mark) && self.has_applied(&begin) {
            self.check_current(&begin)?;
        } else {
            self.check_wanted(&begin)?;
            self.check_fits(&begin)?;
        }
        let (id, number) = (frame.header.stream, frame.header.watermark.get());
        let known = self.incoming().take();
        // From here on no step is let in, until this copy counts.
        self.incoming().busy.settled().await;
        let goes_on = known.filter(|known| known.id == id && known.token == begin.token);
        let resumed = goes_on.is_some();
        let hold = self.replica().hold_idle().await;
        let base = self.replica().base();
        let marked = self.replica().mark_fuzzy(mark).await;
        let before = marked.map_err(|error| self.not_marked(&error))?;
        // An earlier attempt has left blocks of moments that only the leader knows: the end of a copy says what they are up to,
        // and nothing else lowers the mark while that leader leads. Of the copy itself nothing is needed any more.
        let is_for_end = before == Some(mark) && self.has_applied(&begin);
        let wanted = match is_for_end {
            true => self.check_current(&begin),
            false => self.check_wanted(&begin),
        };
        if let Err(status) = wanted {
            // The log has brought what it stands for: nothing of this copy comes any more.
            let unmarked = self.replica().change_mark(Some(mark), before).await;
            unmarked.map_err(|error| self.not_marked(&error))?;
            return Err(status);
        }
        tracing::info!(copyset = %self.copyset(), upto = %begin.meta, resumed, is_for_end, "receiving a snapshot");
        let transfer = match goes_on {
            Some(transfer) => {
                *transfer.attempt.borrow_mut() = Attempt::new(number, begin, is_for_end);
                transfer.heard.set(ogee_runtime::now());
                transfer
            }
            None => Rc::new(Transfer {
                id,
                token: ogee_runtime::random_u64().max(1),
                attempt: RefCell::new(Attempt::new(number, begin, is_for_end)),
                base,
                heard: Cell::new(ogee_runtime::now()),
                _hold: hold,
            }),
        };
        self.watch(&transfer);
        let token = transfer.token;
        *self.incoming().transfer.borrow_mut() = Some(transfer);
        Ok(put_token(token))
    }

    /// So that the sender leaves out what has not changed since.
    fn tell_base(&self, frame: &Frame) -> Result<Bytes, Status> {
        let current = self.current_vote();
        let work = self.incoming().work(&frame.header, current.as_ref());
        let work = work.ok_or(Status::Retry)?;
        Ok(put_base(&work.transfer.base))
    }

    /// Whether what a snapshot stands for is in this replica's log or behind its checkpoint, durably. Its
    /// leader may not know, when the answer that said so was lost with its stream and the log was
    /// purged since: it can ask no more, but offer a copy. A refusal would leave it in the dark for as
    /// long as it makes no newer checkpoint.
    async fn has_all_of(&self, begin: &Begin) -> bool {
        let upto = begin.meta.last_log_id;
        if !upto.is_some_and(|upto| self.replica().has_durably(from_raft(&upto))) {
            return false;
        }
        // The leader takes the answer for a word about leader and log as well: openraft has it.
        let probe = AppendEntriesRequest {
            vote: begin.vote,
            prev_log_id: upto,
            entries: Vec::new(),
            leader_commit: None,
        };
        let answer = self.raft().append_entries(probe).await;
        answer.is_ok_and(|answer| answer.is_success())
    }

    /// A copy of a deposed leader, or of less than is here, may not overwrite anything.
    fn check_wanted(&self, begin: &Begin) -> Result<(), Status> {
        self.check_current(begin)?;
        match self.has_applied(begin) {
            true => Err(self.outdated(begin)),
            false => Ok(()),
        }
    }

    fn has_applied(&self, begin: &Begin) -> bool {
        self.replica().state.borrow().applied >= begin.meta.last_log_id
    }

    fn check_current(&self, begin: &Begin) -> Result<(), Status> {
        let deposed = self
            .current_vote()
            .is_some_and(|current| begin.vote < current);
        match deposed || self.raft().is_leader() {
            true => Err(self.outdated(begin)),
            false => Ok(()),
        }
    }

    fn outdated(&self, begin: &Begin) -> Status {
        tracing::info!(copyset = %self.copyset(), upto = %begin.meta, "refused an outdated snapshot");
        Status::Retry
    }

    /// A copy that has no room leaves a mixture, where there was an old replica: it had better not
    /// begin.
    fn check_fits(&self, begin: &Begin) -> Result<(), Status> {
        let replica = self.replica();
        let own = replica.store.extents_of(replica.copyset);
        let left = replica.copy_room();
        // What others have given up and the next checkpoint frees.
        let pending = extents_in(replica.store.usage().pending);
        if begin.extents <= own + left + pending {
            return Ok(());
        }
        tracing::warn!(copyset = %self.copyset(), needs = begin.extents, own, left,
            "refused a snapshot: the store has no room for it");
        Err(Status::NoSpace)
    }

    fn current_vote(&self) -> Option<RaftVote> {
        self.replica().log.state().vote.map(to_raft_vote)
    }

    /// Lets go of a copy whose sender stays away: its hold stops this group's write-back.
    fn watch(&self, transfer: &Rc<Transfer>) {
        let (group, watched) = (self.clone(), Rc::downgrade(transfer));
        let number = transfer.attempt.borrow().number;
        drop(ogee_runtime::spawn(async move {
            loop {
                ogee_runtime::sleep(COPY_KEPT / 4).await;
                let Some(transfer) = watched.upgrade() else {
                    return;
                };
                if transfer.attempt.borrow().number != number {
                    return;
                }
                if ogee_runtime::now() > transfer.heard.get() + COPY_KEPT {
                    tracing::warn!(copyset = %group.copyset(), "a snapshot was given up by its sender");
                    let mut current = group.incoming().transfer.borrow_mut();
                    if current.as_ref().is_some_and(|it| Rc::ptr_eq(it, &transfer)) {
                        *current = None;
                    }
                    return;
                }
            }
        }));
    }

    async fn take_step(&self, frame: &Frame) -> Result<(), Status> {
        let current = self.current_vote();
        let work = self.incoming().work(&frame.header, current.as_ref());
        let work = work.ok_or(Status::Retry)?;
        let (purpose, is_pressing) = get_haste(&frame.header);
        if !frame.payload.is_empty() {
            self.copies().receive(purpose, frame.payload.len()).await;
        }
        if work.transfer.attempt.borrow().is_for_end {
            return Ok(());
        }
        if !frame.payload.is_empty() {
            let budget = self.replica().store.budget();
            budget.draw(purpose, frame.payload.len(), is_pressing).await;
        }
        let leisure = self.replica().store.leisure();
        let _copying = (purpose == Purpose::Recovery).then(|| leisure.copying());
        match frame.header.sequence.get() {
            STEP_STATE => self.take_state(&work, frame),
            STEP_CHUNKS => self.take_chunks(&work, frame).await,
            STEP_BLOCKS => {
                let changes = get_blocks(frame).map_err(|error| self.malformed(&error))?;
                self.write(frame.header.key, changes).await
            }
            STEP_ZEROS => {
                let key = frame.header.key;
                let blocks = get_zeros(frame).map_err(|error| self.malformed(&error))?;
                let zeros = blocks.map(|block| WriteBack {
                    key,
                    block,
                    what: BlockChange::Zero,
                });
                self.write(key, zeros.collect()).await
            }
            // So that the end, for which writers may be held back, finds little to make durable.
            STEP_SYNC => self.save_incoming().await,
            _ => Err(Status::BadRequest),
        }
    }

    /// Makes what has come durable, under the mark; extents that it has freed are free then.
    async fn save_incoming(&self) -> Result<(), Status> {
        let saved = self.replica().save_again().await;
        saved.map_err(|error| {
            tracing::error!(copyset = %self.copyset(), %error, "snapshot could not be stored");
            Status::Io
        })
    }

    fn take_state(&self, work: &Work, frame: &Frame) -> Result<(), Status> {
        let mut attempt = work.transfer.attempt.borrow_mut();
        let range = get_state_range(frame, attempt.begin.state_len);
        let range = range.map_err(|error| self.malformed(&error))?;
        attempt.missing.remove(&range.start);
        attempt.state[range].copy_from_slice(&frame.payload);
        Ok(())
    }

    /// With the last of them known, the chunks that the leader does not have are given back: what
    /// is to come may need their space.
    async fn take_chunks(&self, work: &Work, frame: &Frame) -> Result<(), Status> {
        let keys = get_keys(frame).map_err(|error| self.malformed(&error))?;
        let gone: Vec<ChunkKey> = {
            let mut attempt = work.transfer.attempt.borrow_mut();
            attempt.chunks.extend(keys);
            if attempt.chunks.len() > attempt.begin.chunks {
                return Err(Status::BadRequest);
            }
            if attempt.chunks.len() < attempt.begin.chunks {
                return Ok(());
            }
            self.other_chunks(&attempt.chunks)
        };
        self.remove_chunks(gone).await
    }

    fn other_chunks(&self, chunks: &BTreeSet<ChunkKey>) -> Vec<ChunkKey> {
        let replica = self.replica();
        let mut stored = replica.store.chunks(replica.copyset);
        stored.retain(|key| !chunks.contains(key));
        stored
    }

    async fn remove_chunks(&self, gone: Vec<ChunkKey>) -> Result<(), Status> {
        let replica = self.replica();
        if gone.is_empty() {
            return Ok(());
        }
        for key in gone {
            let removed = replica.store.remove_chunk(replica.copyset, key).await;
            removed.map_err(|error| self.not_stored(&error))?;
        }
        self.save_incoming().await
    }

    /// Writes blocks of a chunk; zeros over nothing are nothing.
    async fn write(&self, key: ChunkKey, mut changes: Vec<WriteBack>) -> Result<(), Status> {
        let replica = self.replica();
        let stored = replica.store.allocated(replica.copyset, key);
        let stored = stored.map_err(|error| self.not_stored(&error))?;
        changes.retain(|change| match change.what {
            BlockChange::Data(_) | BlockChange::Summed(..) => true,
            BlockChange::Zero => stored.contains(change.block),
        });
        if changes.is_empty() {
            return Ok(());
        }
        self.make_room(&changes).await?;
        let written = replica.store.write_back(replica.copyset, changes).await;
        written.map_err(|error| self.not_stored(&error))
    }

    /// What is promised to other groups is theirs. Extents that the copy has freed are its own again
    /// after a checkpoint.
    async fn make_room(&self, changes: &[WriteBack]) -> Result<(), Status> {
        let replica = self.replica();
        let needed = new_extents(&replica.store, changes);
        if needed <= replica.copy_room() {
            return Ok(());
        }
        if replica.store.usage().pending > ByteLen::new(0) {
            self.save_incoming().await?;
        }
        match needed <= replica.copy_room() {
            true => Ok(()),
            false => Err(Status::NoSpace),
        }
    }

    async fn end_snapshot(&self, frame: &Frame) -> Result<Bytes, Status> {
        let until = get_end(&frame.meta).map_err(|error| self.malformed(&error))?;
        let _turn = self.incoming().turn.lock().await;
        let current = self.current_vote();
        let work = self.incoming().work(&frame.header, current.as_ref());
        drop(work.ok_or(Status::Retry)?);
        let transfer = self.incoming().take().ok_or(Status::Retry)?;
        self.incoming().busy.settled().await;
        let vote = self.install_incoming(&transfer, until).await?;
        let mut meta = Vec::with_capacity(17);
        put_vote(&mut meta, &vote);
        Ok(meta.into())
    }

    async fn install_incoming(
        &self,
        transfer: &Transfer,
        until: RaftLogId,
    ) -> Result<RaftVote, Status> {
        let (vote, meta, is_for_end) = {
            let attempt = transfer.attempt.borrow();
            let begin = &attempt.begin;
            (begin.vote, begin.meta.clone(), attempt.is_for_end)
        };
        if is_for_end {
            return self.settle_mark(vote, from_raft(&until)).await;
        }
        let (state, chunks) = {
            let attempt = transfer.attempt.borrow();
            let state = decode_state(&attempt).map_err(|error| self.malformed(&error))?;
            (state, attempt.chunks.clone())
        };
        self.remove_chunks(self.other_chunks(&chunks)).await?;
        let until = from_raft(&until);
        let snapshot = Snapshot {
            snapshot: SnapshotState {
                fuzzy_until: (until > state.applied).then_some(until),
                state,
            },
            meta,
        };
        let installed = self.raft().install_full_snapshot(vote, snapshot).await;
        let answer = installed.map_err(|_stopped| Status::Io)?;
        if answer.vote == vote {
            // Entries that were on their way when the mark was set may have come before the copy was whole: openraft does not
            // need it then, and answers as if it were installed.
            self.lower_mark(&vote, until).await?;
        }
        Ok(answer.vote)
    }

    /// The end of a copy of which nothing else is needed. The leader takes the answer for a word about the log as well.
    async fn settle_mark(&self, vote: RaftVote, until: LogId) -> Result<RaftVote, Status> {
        let applied = self.replica().applied();
        if !self.replica().await_durable(applied).await {
            return Err(Status::Retry);
        }
        self.lower_mark(&vote, until).await?;
        Ok(vote)
    }

    async fn lower_mark(&self, vote: &RaftVote, until: LogId) -> Result<(), Status> {
        let mark = Some(mark_of(vote));
        let settled = self.replica().change_mark(mark, Some(until)).await;
        settled.map_err(|error| self.not_marked(&error))
    }

    fn not_marked(&self, error: &GroupError) -> Status {
        tracing::error!(copyset = %self.copyset(), %error, "the mark of a copy cannot be saved");
        Status::Io
    }

    fn malformed(&self, error: &WireError) -> Status {
        tracing::warn!(copyset = %self.copyset(), %error, "refused a step of a snapshot");
        Status::BadRequest
    }

    fn not_stored(&self, error: &StoreError) -> Status {
        tracing::error!(copyset = %self.copyset(), %error, "snapshot could not be stored");
        match error {
            StoreError::NoSpace { .. } => Status::NoSpace,
            _ => Status::Io,
        }
    }
}

/// Extents that the store would take to write these blocks of one chunk.
fn new_extents(store: &Store, changes: &[WriteBack]) -> usize {
    let data = changes.iter().filter(|change| change.what.data().is_some());
    let lacking = data.filter_map(|change| store.lacks(change.key, change.block).extent);
    lacking.collect::<BTreeSet<_>>().len()
}

fn decode_state(attempt: &Attempt) -> Result<CheckpointState, WireError> {
    let missing = |field| WireError::Truncated { field };
    if !attempt.missing.is_empty() {
        return Err(missing("snapshot state"));
    }
    if attempt.chunks.len() != attempt.begin.chunks {
        return Err(missing("snapshot chunks"));
    }
    let crc = crc32c(&attempt.state);
    if crc != attempt.begin.state_crc {
        return Err(WireError::Field {
            field: "snapshot state crc",
            value: crc.into(),
        });
    }
    let applied = attempt.begin.meta.last_log_id.as_ref().map(from_raft);
    let saved = Saved::decode(applied.unwrap_or_default(), &attempt.state)?;
    saved.state.ok_or(missing("snapshot state"))
}

impl Replica {
    /// What the store holds of the group: what is applied behind its checkpoint may be in the log only, which
    /// installing a copy lets go of.
    fn base(&self) -> Base {
        let checkpoint = match seeded_bug!("copy-base-of-applied") {
            true => self.state.borrow().applied,
            false => self.checkpointed_to().map(to_raft),
        };
        Base {
            checkpoint,
            is_fuzzy: self.is_fuzzy(),
        }
    }
}
