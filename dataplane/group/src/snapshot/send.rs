//! The sending side of a copy: the leader's.
//!
//! *Place*: under openraft's replication to one target.
//! *Owner*: the leader's task for that target; one attempt is one call of [`Network::send_snapshot`].
//! *Invariants*: whatever is read is applied, hence committed, in a term up to the vote's; every
//! block that the target lacks is read at or after the moment at which the attempt began.
//! *On failure*: the attempt ends; what the target acknowledged stays good for the next one.

use super::track::{Track, Wanted, What};
use super::wire::{
    Begin, STEP_BEGIN, STEP_BLOCKS, STEP_CHUNKS, STEP_END, STEP_STATE, STEP_ZEROS, get_token,
    put_blocks, put_end, put_keys, put_state_at, put_zeros,
};
use crate::codec::get_vote;
use crate::limit::{
    COPY_KEYS_MAX, COPY_PIECE_BLOCKS, COPY_PIECE_BYTES, COPY_SLOW, COPY_WINDOW, COPY_WINDOW_BUSY,
    FULL_PAUSE_MIN,
};
use crate::machine::SnapshotState;
use crate::network::{Network, accepted, garbled};
use crate::read::ReadRun;
use crate::replica::Replica;
use crate::types::{RaftLogId, RaftVote, TypeConfig};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::{Either, LocalBoxFuture, select};
use futures_util::stream::FuturesUnordered;
use ogee_proto::checksum::crc32c;
use ogee_proto::id::{ChunkKey, Sequence};
use ogee_proto::limit::{BLOCK_SIZE, BLOCKS_PER_CHUNK};
use ogee_proto::unit::BlockIndex;
use ogee_proto::wire::{FrameKind, Reader, Status, WireError};
use ogee_runtime::Payload;
use ogee_transport::{CallError, Caller, Frame};
use openraft::OptionalSend;
use openraft::alias::SnapshotOf;
use openraft::errors::{NetworkError, ReplicationClosed, StreamingError, Unreachable};
use openraft::raft::SnapshotResponse;
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

/// Longest that the target may take to begin, which waits for its write-back, or to end.
const STEP_LONG: Duration = Duration::from_secs(30);

/// Attempts after which a copy is installed even if the log behind it is about to be purged.
const ROUNDS_MAX: u64 = 8;

type StreamingResult<T> = Result<T, StreamingError<TypeConfig>>;

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
        if replica.space.is_full(self.target.get()) {
            ogee_runtime::sleep(FULL_PAUSE_MIN).await;
            return not_now("the follower's store is full");
        }
        let _turn = self.copies.turn().await;
        if replica.is_fuzzy() {
            return not_now("this replica's own blocks are newer than what it has applied");
        }
        let log = replica.keep_log();
        let upto = snapshot.meta.last_log_id.map_or(0, |id| id.index);
        if !replica.has_log_behind(upto) {
            return not_now("the log behind the snapshot is gone: a newer one is needed");
        }
        let track = replica.copies.track(self.target);
        let attempt = Attempt {
            network: self,
            caller: self.copy_caller()?,
            number: track.begin(),
            track,
            vote,
        };
        tracing::info!(copyset = %replica.copyset, target = %self.target, upto = %snapshot.meta,
            attempt = attempt.number, "sending a snapshot");
        let Some(until) = attempt.contents(&snapshot).await? else {
            // Everything behind the snapshot is there by log: openraft goes on by log.
            return Ok(SnapshotResponse::new(vote));
        };
        let is_late = attempt.number >= ROUNDS_MAX;
        if !replica.has_log_behind(upto) || !(is_late || replica.log_has_room()) {
            // Rather another round, of what has changed meanwhile: shorter, on a newer checkpoint.
            return not_now("the log behind the snapshot is gone");
        }
        let reply = attempt.step(STEP_END, put_end(&until), Payload::empty());
        let reply = reply.await?;
        let vote = get_vote(&mut Reader::new(&reply.meta)).map_err(|error| wire(&error))?;
        replica.copies.completed(self.target, until.index, log);
        Ok(SnapshotResponse::new(vote))
    }
}

/// One attempt to bring a target what it lacks.
struct Attempt<'a> {
    network: &'a Network,
    caller: Caller,
    track: Rc<Track>,
    number: u64,
    vote: RaftVote,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.track.end_attempt(self.number);
    }
}

impl Attempt<'_> {
    /// Sends everything; the entry up to which it may be newer than the snapshot. `None` if the target
    /// lacks nothing.
    async fn contents(
        &self,
        snapshot: &SnapshotOf<TypeConfig, SnapshotState>,
    ) -> StreamingResult<Option<RaftLogId>> {
        let replica = &self.network.replica;
        let state = Payload::from(snapshot.snapshot.state.encode(replica.id, None));
        let keys = replica.chunks();
        let begin = Begin {
            vote: self.vote,
            meta: snapshot.meta.clone(),
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
        self.track.begun(token, &keys);
        let mut flow = Flow::new(self.network);
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
        // What is not here any more goes first: the rest may need its space.
        for key in &keys {
            self.check_current()?;
            let present = replica.present(*key).map_err(failed)?;
            for wanted in self.track.claim_absent(*key, &present) {
                flow.add(wanted.len(), Box::pin(self.send_wanted(wanted)))
                    .await?;
            }
        }
        flow.settle().await?;
        for key in keys {
            self.check_current()?;
            let present = replica.present(key).map_err(failed)?;
            for wanted in self.track.claim(key, &present) {
                flow.add(wanted.len(), Box::pin(self.send_wanted(wanted)))
                    .await?;
            }
        }
        flow.settle().await?;
        self.applied().map(Some)
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

    async fn send_wanted(&self, wanted: Wanted) -> StreamingResult<()> {
        match wanted.what {
            What::Zeros(count) => {
                let meta = put_zeros(wanted.first, count);
                let mut frame = self.frame(STEP_ZEROS, meta, Payload::empty());
                frame.header.key = wanted.key;
                self.call(frame).await?;
            }
            What::Blocks(mask) => {
                let (present, payload) = self.read(&wanted, mask).await?;
                let meta = put_blocks(wanted.first, mask, present);
                let mut frame = self.frame(STEP_BLOCKS, meta, payload);
                frame.header.key = wanted.key;
                self.call(frame).await?;
            }
        }
        self.track.taken(self.number, &wanted);
        Ok(())
    }

    /// The blocks of a mask as they are now: which are present, and those.
    async fn read(&self, wanted: &Wanted, mask: u32) -> StreamingResult<(u32, Payload)> {
        let replica = &self.network.replica;
        let (mut present, mut parts) = (0, Vec::new());
        for (at, count) in runs(mask) {
            let first = BlockIndex::new(usize::from(wanted.first) + at);
            let first = first.expect("invariant: pieces divide a chunk");
            let read = replica.read_blocks(wanted.key, first, count).await;
            let mut at = at;
            for run in read.map_err(failed)? {
                let blocks = run.len() / BLOCK_SIZE;
                if let ReadRun::Data(bytes) = run {
                    present |= mask_of(at, blocks);
                    parts.push(bytes);
                }
                at += blocks;
            }
        }
        self.applied()?;
        Ok((present, self.network.joined(parts)))
    }

    /// What has been applied here, as long as that is certain to be of this vote's time.
    ///
    /// A target that never hears the end takes its blocks to be as of some entry of a term up to the
    /// vote's. This replica may have been deposed, and apply what a newer leader commits, before
    /// openraft ends this task.
    fn applied(&self) -> StreamingResult<RaftLogId> {
        let applied = self.network.replica.state.borrow().applied;
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
        Frame {
            header,
            meta: Bytes::from(meta),
            payload,
        }
    }

    async fn step(&self, step: u64, meta: Vec<u8>, payload: Payload) -> StreamingResult<Frame> {
        let frame = self.frame(step, meta, payload);
        let reply = match step {
            STEP_END => self.caller.call_within(frame, STEP_LONG).await,
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

type Step<'a> = LocalBoxFuture<'a, StreamingResult<()>>;

/// The steps under way: as many as the way and everybody else's I/O allow.
struct Flow<'a> {
    network: &'a Network,
    running: FuturesUnordered<LocalBoxFuture<'a, (Duration, StreamingResult<()>)>>,
    window: usize,
    /// Requests of others as of the last step.
    seen: u64,
}

impl<'a> Flow<'a> {
    fn new(network: &'a Network) -> Self {
        Self {
            network,
            running: FuturesUnordered::new(),
            window: COPY_WINDOW_BUSY,
            seen: network.replica.metrics.foreground.get(),
        }
    }

    /// Starts a step when there is room for it.
    async fn add(&mut self, len: usize, step: Step<'a>) -> StreamingResult<()> {
        self.network.copies.pass(len).await;
        let foreground = self.network.replica.metrics.foreground.get();
        let is_busy = foreground != std::mem::replace(&mut self.seen, foreground);
        if is_busy {
            self.window = self.window.min(COPY_WINDOW_BUSY);
        }
        while self.running.len() >= self.window {
            self.reap().await?;
        }
        self.running.push(Box::pin(async move {
            let started = ogee_runtime::now();
            let done = step.await;
            (ogee_runtime::now() - started, done)
        }));
        Ok(())
    }

    async fn reap(&mut self) -> StreamingResult<()> {
        let Some((took, done)) = self.running.next().await else {
            return Ok(());
        };
        self.window = match took > COPY_SLOW {
            true => 1,
            false => COPY_WINDOW.min(self.window + 1),
        };
        done
    }

    /// Waits until nothing is under way.
    async fn settle(&mut self) -> StreamingResult<()> {
        while !self.running.is_empty() {
            self.reap().await?;
        }
        Ok(())
    }
}

impl Replica {
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

    /// Whether everything after entry `index` is in the log.
    fn has_log_behind(&self, index: u64) -> bool {
        let purged = self.log.state().purged;
        purged.is_none_or(|purged| purged.index.get() <= index)
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
