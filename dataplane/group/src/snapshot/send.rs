//! The sending side of a copy: the leader's.
//!
//! *Place*: under openraft's replication to one target.
//! *Owner*: the leader's task for that target; one attempt is one call of [`Network::send_snapshot`].
//! *Invariants*: whatever is read is applied, hence committed, in a term up to the vote's; every
//! block that the target lacks is read at or after the moment at which the attempt began.
//! *On failure*: the attempt ends; what the target acknowledged stays good for the next one.

use super::flow::{Flow, Step};
use super::gain::is_pressing;
use super::last_pass::{Brake, LastPass, catch_up, is_little};
use super::track::{PIECES, Track, Wanted, What, batches, len_of};
use super::wire::{
    Begin, STEP_BASE, STEP_BEGIN, STEP_BLOCKS, STEP_CHUNKS, STEP_END, STEP_STATE, STEP_SYNC,
    STEP_ZEROS, get_base, get_token, put_blocks, put_end, put_haste, put_keys, put_state_at,
    put_zeros,
};
use crate::changes::Since;
use crate::checkpoint::CheckpointState;
use crate::codec::get_vote;
use crate::limit::{
    COPY_KEYS_MAX, COPY_PIECE_BLOCKS, COPY_PIECE_BYTES, FULL_PAUSE_MIN, LAST_PASS_PICKUP,
    LAST_PASS_SHARE, PASS_GAP, VOTER_LACKING,
};
use crate::machine::SnapshotState;
use crate::metrics::FoundBy;
use crate::network::{Network, accepted, garbled};
use crate::read::ReadRun;
use crate::replica::Replica;
use crate::types::{RaftLogId, RaftSnapshotMeta, RaftVote, TypeConfig, from_raft};
use bytes::Bytes;
use futures_util::future::{Either, join_all, select};
use ogee_proto::checksum::crc32c;
use ogee_proto::id::{ChunkKey, LogIndex, Sequence};
use ogee_proto::limit::{BLOCK_SIZE, BLOCKS_PER_CHUNK};
use ogee_proto::unit::{BlockIndex, ByteLen};
use ogee_proto::wire::{FrameKind, Reader, Status, WireError};
use ogee_runtime::channel::Permit;
use ogee_runtime::{Payload, seeded_bug};
use ogee_store::Purpose;
use ogee_transport::{CallError, Caller, Frame};
use openraft::OptionalSend;
use openraft::alias::SnapshotOf;
use openraft::errors::{NetworkError, ReplicationClosed, StreamingError, Unreachable};
use openraft::raft::SnapshotResponse;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

/// Longest that the target may take to begin, which waits for its write-back, or to end.
const STEP_LONG: Duration = Duration::from_secs(30);

/// What of a chunk to send.
type Claim = fn(&Track, ChunkKey, &[u32; PIECES]) -> Vec<Wanted>;

pub(super) type StreamingResult<T> = Result<T, StreamingError<TypeConfig>>;

impl Network {
    /// Streams the group to the target, then lets it install.
    pub(crate) async fn send_snapshot(
        &self,
        vote: RaftVote,
        snapshot: SnapshotOf<TypeConfig, SnapshotState>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
    ) -> StreamingResult<SnapshotResponse<TypeConfig>> {
        let copy = pin!(self.copy(vote, snapshot));
        match select(copy, pin!(cancel)).await {
            Either::Left((done, _)) => done,
            Either::Right((closed, _)) => Err(StreamingError::Closed(closed)),
        }
    }

    async fn copy(
        &self,
        vote: RaftVote,
        snapshot: SnapshotOf<TypeConfig, SnapshotState>,
    ) -> StreamingResult<SnapshotResponse<TypeConfig>> {
        let replica = &self.replica;
        let track = replica.copies.track(self.target);
        let ending = track.take_ending();
        if replica.space.is_full(self.target.get()) {
            ogee_runtime::sleep(FULL_PAUSE_MIN).await;
            return not_now("the follower's store is full");
        }
        if replica.copies.is_resting(self.target) {
            ogee_runtime::sleep(FULL_PAUSE_MIN).await;
            return not_now("the follower takes entries more slowly than they come");
        }
        let (turn, last) = match ending {
            Some((turn, last)) => (turn, Some(last)),
            None => (self.copies.turn(self.purpose()).await, None),
        };
        let is_recovery = self.purpose() == Purpose::Recovery;
        let _copying = is_recovery.then(|| replica.store.leisure().copying());
        if replica.is_fuzzy() {
            return not_now("this replica's own blocks are newer than what it has applied");
        }
        let upto = snapshot.meta.last_log_id.map_or(0, |id| id.index);
        let log = replica.keep_log(upto, replica.log_to_spare());
        if !replica.has_log_behind(upto) {
            return not_now("the log behind the snapshot is gone: a newer one is needed");
        }
        let attempt = Attempt {
            network: self,
            caller: self.copy_caller()?,
            number: track.begin(),
            track,
            vote,
            hurries: Cell::new(last.is_some()),
        };
        // Where nobody takes it, there are several a second.
        if attempt.number == 1 {
            tracing::info!(copyset = %replica.copyset, target = %self.target, "sending a copy");
        }
        tracing::debug!(copyset = %replica.copyset, target = %self.target, upto = %snapshot.meta,
            attempt = attempt.number, is_last = last.is_some(), "sending a snapshot");
        let Some(until) = attempt.contents(&snapshot, last.is_some()).await? else {
            // Everything behind the snapshot is there by log: openraft goes on by log.
            self.confirm_copy(&vote, &snapshot);
            return Ok(SnapshotResponse::new(vote));
        };
        if !replica.is_log_enough(upto, last.is_some()) {
            // The log behind this snapshot will not last: a newer one, for what is left by then.
            if last.is_some() {
                tracing::warn!(copyset = %replica.copyset, target = %self.target,
                    "the log had no room for the end of a copy: another try");
            }
            drop((log, last));
            attempt.approach(turn).await?;
            return not_now("what is left is little: the next attempt is the last");
        }
        let last = last.unwrap_or_else(|| LastPass {
            brake: Brake::begin(replica, None),
            log,
        });
        let reply = attempt.step(STEP_END, put_end(&until), Payload::empty());
        let reply = reply.await?;
        let answered = get_vote(&mut Reader::new(&reply.meta)).map_err(|error| wire(&error))?;
        if answered == vote {
            self.confirm_copy(&vote, &snapshot);
        }
        let keeps = catch_up(Rc::downgrade(replica), self.target, until.index, last);
        let keeps = ogee_runtime::spawn_scoped(keeps);
        replica.copies.completed(self.target, keeps);
        Ok(SnapshotResponse::new(answered))
    }

    /// What a copy to this target is for: its copyset lacks a replica if the target is a voter, or another voter
    /// has not answered for a while.
    pub(super) fn purpose(&self) -> Purpose {
        let replica = &self.replica;
        let state = replica.state.borrow();
        let since = ogee_runtime::now().checked_sub(self.config.election_max * VOTER_LACKING);
        let is_there = |id: u64| since.is_none_or(|since| replica.acks.has_heard(id, since));
        let mut voters = state
            .membership
            .voter_ids()
            .filter(|id| *id != replica.id.get());
        match voters.all(|id| id != self.target.get() && is_there(id)) {
            true => Purpose::Move,
            false => Purpose::Recovery,
        }
    }

    /// openraft counts what a copy was of as matched.
    fn confirm_copy(&self, vote: &RaftVote, snapshot: &SnapshotOf<TypeConfig, SnapshotState>) {
        if let Some(upto) = snapshot.meta.last_log_id {
            let (target, term) = (self.target.get(), vote.leader_id.term);
            self.replica.followers.confirm(target, term, upto.index);
        }
    }
}

/// One attempt to bring a target what it lacks.
struct Attempt<'a> {
    network: &'a Network,
    caller: Caller,
    track: Rc<Track>,
    number: u64,
    vote: RaftVote,
    /// It is the last one, or prepares it.
    hurries: Cell<bool>,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.track.gain.pause();
        self.track.end_attempt(self.number);
    }
}

impl Attempt<'_> {
    /// Sends everything that the target lacks now; the entry up to which it may be newer than the
    /// snapshot. `None` if the target has all that the snapshot stands for.
    async fn contents(
        &self,
        snapshot: &SnapshotOf<TypeConfig, SnapshotState>,
        hurries: bool,
    ) -> StreamingResult<Option<RaftLogId>> {
        let keys = self.network.replica.chunks();
        let Some(flow) = self
            .preface(&snapshot.meta, &snapshot.snapshot.state, &keys, hurries)
            .await?
        else {
            return Ok(None);
        };
        self.pass(&keys, flow).await?;
        if seeded_bug!("copy-with-newer-sessions") {
            let mut newer = snapshot.snapshot.state.clone();
            newer.sessions = self.network.replica.state.borrow().sessions.clone();
            let flow = self.preface(&snapshot.meta, &newer, &keys, hurries).await?;
            if let Some(mut flow) = flow {
                flow.settle().await?;
            }
        }
        self.applied().map(Some)
    }

    /// Begins, and sends all but blocks. `None` if the target has everything already.
    async fn preface<'a>(
        &'a self,
        meta: &RaftSnapshotMeta,
        state: &CheckpointState,
        keys: &BTreeSet<ChunkKey>,
        hurries: bool,
    ) -> StreamingResult<Option<Flow<'a>>> {
        let replica = &self.network.replica;
        let state = Payload::from(state.encode(replica.id, None));
        let begin = Begin {
            vote: self.vote,
            meta: meta.clone(),
            state_len: state.len(),
            state_crc: crc32c(&state),
            chunks: keys.len(),
            extents: replica.copy_extents(),
            token: self.track.token(),
        };
        let Some(token) = self.begin(&begin).await? else {
            return Ok(None);
        };
        self.check_current()?;
        let since = match token == self.track.token() {
            true => None,
            false => self.since_base().await?,
        };
        self.track.begun(token, keys, since.as_ref());
        if let Some(since) = &since {
            tracing::info!(copyset = %replica.copyset, target = %self.network.target, since = %since.entry,
                changed = self.track.lacks(keys), "blocks that have changed since a replica was here are copied");
        }
        let mut flow = Flow::new(self.network, &self.track, hurries);
        for at in (0..state.len()).step_by(COPY_PIECE_BYTES) {
            let part = state.slice(at..state.len().min(at + COPY_PIECE_BYTES));
            let len = part.len();
            flow.add(len, self.send(STEP_STATE, put_state_at(at), part))
                .await?;
        }
        let all: Vec<ChunkKey> = keys.iter().copied().collect();
        for some in all.chunks(COPY_KEYS_MAX) {
            let keys = put_keys(some);
            flow.add(keys.len(), self.send(STEP_CHUNKS, Vec::new(), keys))
                .await?;
        }
        Ok(Some(flow))
    }

    /// What has changed since the target's last checkpoint, if that is known.
    ///
    /// Of a block that has not, the target has what is here: its store holds it as of its checkpoint, or as a
    /// copy that broke off brought it, of a moment after its last change. Nothing is newer there than here, provided
    /// that this leader has applied all that earlier ones had, from whom such a copy came: its own term's
    /// first entry says so.
    async fn since_base(&self) -> StreamingResult<Option<Since>> {
        let replica = &self.network.replica;
        let frame = self.frame(STEP_BASE, Vec::new(), Payload::empty());
        let reply = self.caller.call(frame).await;
        let is_unknown = |reply: &Frame| reply.header.status == Status::BadRequest;
        if reply.as_ref().is_ok_and(is_unknown) {
            // A build that does not know the question.
            return Ok(None);
        }
        let reply = self.answered(reply)?;
        let base = get_base(&reply.meta).map_err(|error| wire(&error))?;
        self.check_current()?;
        let term = self.applied()?.committed_leader_id().term;
        let is_ahead = base.is_fuzzy && term < self.vote.leader_id.term;
        let checkpoint = base.checkpoint.as_ref().filter(|_| !is_ahead);
        Ok(checkpoint.and_then(|it| replica.changes.since(from_raft(it))))
    }

    /// The target's token; `None` if it has everything already.
    async fn begin(&self, begin: &Begin) -> StreamingResult<Option<u64>> {
        let frame = self.frame(STEP_BEGIN, begin.encode(), Payload::empty());
        let reply = self.caller.call_within(frame, STEP_LONG).await;
        if let Ok(reply) = &reply
            && reply.header.status == Status::Stale
        {
            return Ok(None);
        }
        let reply = self.answered(reply)?;
        get_token(&reply.meta)
            .map(Some)
            .map_err(|error| wire(&error))
    }

    /// Sends once what the target lacks of each chunk, and waits until it has it: a block is on its
    /// way only once at a time. What is not here any more goes first: the rest may need its space.
    async fn pass<'a>(
        &'a self,
        keys: &BTreeSet<ChunkKey>,
        mut flow: Flow<'a>,
    ) -> StreamingResult<()> {
        let claims: [Claim; 2] = [Track::claim_absent, Track::claim];
        for claim in claims {
            for key in keys.iter().filter(|key| self.track.lacks_of(**key)) {
                self.claim(*key, claim, &mut flow).await?;
            }
            flow.settle().await?;
        }
        Ok(())
    }

    async fn claim<'a>(
        &'a self,
        key: ChunkKey,
        claim: Claim,
        flow: &mut Flow<'a>,
    ) -> StreamingResult<()> {
        self.check_current()?;
        self.applied()?;
        let present = self.network.replica.present(key).map_err(failed)?;
        for batch in batches(claim(&self.track, key, &present)) {
            flow.add(len_of(&batch), Box::pin(self.send_batch(batch)))
                .await?;
        }
        Ok(())
    }

    /// Sends what changed meanwhile, again and again, until it is so little that the log can be kept
    /// for it, and prepares that.
    async fn approach(&self, turn: Permit) -> StreamingResult<()> {
        loop {
            let keys = self.network.replica.chunks();
            let capacity = self.network.replica.log_usage().capacity.get();
            if is_little(self.track.lacks(&keys), self.track.gain.speed(), capacity) {
                break;
            }
            let flow = Flow::new(self.network, &self.track, false);
            self.pass(&keys, flow).await?;
        }
        self.track.gain.pause();
        let last = self.prepare_beside_passes().await?;
        // Else it would be kept for an attempt that has begun already.
        self.check_current()?;
        self.track.prepared((turn, last));
        self.expect_pickup();
        Ok(())
    }

    /// While the end is prepared, what changes is sent on.
    async fn prepare_beside_passes(&self) -> StreamingResult<LastPass> {
        self.hurries.set(true);
        let mut prepared = pin!(self.prepare());
        loop {
            let pass = pin!(async {
                let flow = Flow::new(self.network, &self.track, true);
                self.pass(&self.network.replica.chunks(), flow).await
            });
            match select(prepared.as_mut(), pass).await {
                Either::Left((last, pass)) => {
                    pass.await?;
                    return last;
                }
                Either::Right((sent, _)) => sent?,
            }
            let gap = pin!(ogee_runtime::sleep(PASS_GAP));
            if let Either::Left((last, _)) = select(prepared.as_mut(), gap).await {
                return last;
            }
        }
    }

    /// Waits for the store's turn, then has a checkpoint made behind which the log is kept.
    async fn prepare(&self) -> StreamingResult<LastPass> {
        let replica = &self.network.replica;
        let keeper = replica.keeper();
        let Some(turn) = keeper.last_pass().await else {
            return not_now("nobody keeps this store any more");
        };
        self.step(STEP_SYNC, Vec::new(), Payload::empty()).await?;
        let brake = Brake::begin(replica, Some(turn));
        if !keeper.checkpoint_now().await {
            return not_now("no checkpoint can be made");
        }
        let upto = replica.checkpointed_to().unwrap_or_default().index;
        let log = replica.keep_log(upto.get(), ByteLen::new(u64::MAX));
        Ok(LastPass { brake, log })
    }

    /// openraft asks again after its pause. If it does not, because somebody else leads, nobody is held
    /// back for nothing.
    fn expect_pickup(&self) {
        let (track, number) = (Rc::downgrade(&self.track), self.number);
        drop(ogee_runtime::spawn(async move {
            ogee_runtime::sleep(LAST_PASS_PICKUP).await;
            if let Some(track) = track.upgrade().filter(|it| it.is_current(number)) {
                track.take_ending();
            }
        }));
    }

    /// Two attempts at a time would take each other's word for what was sent.
    fn check_current(&self) -> StreamingResult<()> {
        match self.track.is_current(self.number) {
            true => Ok(()),
            false => not_now("another attempt has begun"),
        }
    }

    fn send(&self, step: u64, meta: Vec<u8>, payload: Payload) -> Step<'_> {
        Box::pin(async move { self.step(step, meta, payload).await.map(drop) })
    }

    /// Sends some pieces of a chunk, or a run of zeros.
    async fn send_batch(&self, batch: Vec<Wanted>) -> StreamingResult<()> {
        let Some(first) = batch.first() else {
            return Ok(());
        };
        let mut frame = match first.what {
            What::Zeros(count) => {
                let meta = put_zeros(first.first, count);
                self.frame(STEP_ZEROS, meta, Payload::empty())
            }
            What::Blocks(_) => {
                let (meta, payload) = self.read(&batch).await?;
                self.frame(STEP_BLOCKS, meta, payload)
            }
        };
        frame.header.key = first.key;
        self.call(frame).await?;
        for wanted in &batch {
            self.track.taken(self.number, wanted);
        }
        Ok(())
    }

    /// The blocks of some pieces as they are now: which there are, and those.
    async fn read(&self, batch: &[Wanted]) -> StreamingResult<(Vec<u8>, Payload)> {
        let replica = &self.network.replica;
        let reads = batch.iter().flat_map(|wanted| {
            let What::Blocks(mask) = wanted.what else {
                return Vec::new();
            };
            let read = |(at, count)| async move {
                let first = BlockIndex::new(usize::from(wanted.first) + at);
                let first = first.expect("invariant: pieces divide a chunk");
                let read = replica
                    .read_blocks(FoundBy::Copy, wanted.key, first, count)
                    .await;
                (wanted.first, at, read)
            };
            runs(mask).into_iter().map(read).collect()
        });
        let (mut present, mut parts) = (BTreeMap::<u16, u32>::new(), Vec::new());
        for (piece, mut at, read) in join_all(reads).await {
            for run in read.map_err(failed)? {
                let blocks = run.len() / BLOCK_SIZE;
                if let ReadRun::Data(bytes) = run {
                    *present.entry(piece).or_default() |= mask_of(at, blocks);
                    parts.push(bytes);
                }
                at += blocks;
            }
        }
        self.applied()?;
        let mut meta = Vec::new();
        for wanted in batch {
            if let What::Blocks(mask) = wanted.what {
                let present = present.get(&wanted.first).copied().unwrap_or(0);
                put_blocks(&mut meta, wanted.first, mask, present);
            }
        }
        Ok((meta, self.network.joined(parts)))
    }

    /// What has been applied here, as long as that is certain to be of this vote's time.
    ///
    /// A target that never hears the end takes its blocks to be as of some entry of a term up to the
    /// vote's. This replica may have been deposed, and apply what a newer leader commits, before
    /// openraft ends this task.
    fn applied(&self) -> StreamingResult<RaftLogId> {
        let replica = &self.network.replica;
        replica.check_kept().map_err(failed)?;
        let applied = replica.state.borrow().applied;
        match applied {
            Some(applied) if applied.committed_leader_id().term <= self.vote.leader_id.term => {
                Ok(applied)
            }
            _ => not_now("this replica follows a newer leader"),
        }
    }

    fn frame(&self, step: u64, meta: Vec<u8>, payload: Payload) -> Frame {
        let mut header = self.network.header(FrameKind::Snapshot);
        header.sequence = Sequence::new(step);
        header.stream = self.track.id;
        header.watermark = Sequence::new(self.number);
        let is_pressing = self.hurries.get() || is_pressing(self.track.gain.level());
        put_haste(&mut header, self.network.purpose(), is_pressing);
        Frame::of_parts(header, Bytes::from(meta), payload)
    }

    async fn step(&self, step: u64, meta: Vec<u8>, payload: Payload) -> StreamingResult<Frame> {
        let frame = self.frame(step, meta, payload);
        let reply = match step {
            STEP_END | STEP_SYNC => self.caller.call_within(frame, STEP_LONG).await,
            _ => self.caller.call(frame).await,
        };
        self.answered(reply)
    }

    async fn call(&self, frame: Frame) -> StreamingResult<Frame> {
        self.answered(self.caller.call(frame).await)
    }

    fn answered(&self, reply: Result<Frame, CallError>) -> StreamingResult<Frame> {
        let reply =
            reply.map_err(|error| StreamingError::Unreachable(Unreachable::from_string(error)))?;
        if reply.header.status == Status::NoSpace {
            let (replica, target) = (&self.network.replica, self.network.target.get());
            replica.space.note_full(replica.copyset, target);
        }
        accepted(reply).map_err(StreamingError::from)
    }
}

impl Replica {
    /// Whether the log will do for a target that is given a whole copy as of entry `upto` now: all
    /// that it must catch up with is there and is kept, and is not so much that it runs out of room.
    fn is_log_enough(&self, upto: u64, is_last: bool) -> bool {
        let behind = self.log.live_len_from(LogIndex::new(upto + 1));
        let is_short = behind <= self.log_to_spare();
        self.has_log_behind(upto) && self.log_has_room() && (is_last || is_short)
    }

    /// What a copy may take of the log without anybody being held back for it.
    fn log_to_spare(&self) -> ByteLen {
        ByteLen::new(self.log_usage().capacity.get() / LAST_PASS_SHARE)
    }

    /// Every chunk with contents, stored or in the log.
    fn chunks(&self) -> BTreeSet<ChunkKey> {
        let stored = self.store.chunks(self.copyset);
        stored
            .into_iter()
            .chain(self.state.borrow().overlay.chunks())
            .collect()
    }

    /// Which blocks of a chunk hold data now, a mask per piece.
    fn present(
        &self,
        key: ChunkKey,
    ) -> Result<[u32; BLOCKS_PER_CHUNK / COPY_PIECE_BLOCKS], ogee_store::StoreError> {
        let mut masks = [0; BLOCKS_PER_CHUNK / COPY_PIECE_BLOCKS];
        let stored = self.store.allocated(self.copyset, key)?;
        for block in stored.iter() {
            masks[block.as_usize() / COPY_PIECE_BLOCKS] |= bit(block);
        }
        let first = BlockIndex::new(0).expect("invariant: a chunk has a first block");
        let state = self.state.borrow();
        for (block, slot) in state.overlay.range(key, first, BLOCKS_PER_CHUNK) {
            let mask = &mut masks[block.as_usize() / COPY_PIECE_BLOCKS];
            match slot.what.payload_offset() {
                Some(_) => *mask |= bit(block),
                None => *mask &= !bit(block),
            }
        }
        Ok(masks)
    }
}

fn bit(block: BlockIndex) -> u32 {
    1 << (block.as_usize() % COPY_PIECE_BLOCKS)
}

fn mask_of(first: usize, count: usize) -> u32 {
    (first..first + count).fold(0, |mask, block| mask | 1 << block)
}

/// Runs of set bits: first and count.
fn runs(mask: u32) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for block in (0..COPY_PIECE_BLOCKS).filter(|block| mask >> block & 1 == 1) {
        match runs.last_mut() {
            Some((first, count)) if *first + *count == block => *count += 1,
            _ => runs.push((block, 1)),
        }
    }
    runs
}

fn not_now<T>(why: &str) -> StreamingResult<T> {
    Err(StreamingError::Unreachable(Unreachable::from_string(why)))
}

fn failed(error: impl ToString) -> StreamingError<TypeConfig> {
    StreamingError::Network(NetworkError::from_string(error.to_string()))
}

fn wire(error: &WireError) -> StreamingError<TypeConfig> {
    StreamingError::from(garbled(error))
}
