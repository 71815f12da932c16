//! Copying a whole group to a replica whose log has fallen behind the leader's purge.
//!
//! *Place*: leader side under openraft's replication, follower side under the shard's service.
//! *Owner*: one group; at most one incoming copy.
//! *Invariants*: the copy is fuzzy: blocks as of some moment between the checkpoint D and the end E
//! of the copy, sessions and membership exactly as of D. Replaying (D, E] gives E, because block
//! writes are blind and their dedupe state is as of D. All of (D, E] is committed, so a replica that
//! lacks it cannot be elected, and until it has applied it nobody reads from it.
//! The follower's own overlay and log stay untouched until the root flips: a copy that breaks off
//! leaves a replica that is merely old.
//! *On failure*: openraft backs off and starts the copy again.
//!
//! | step | meta | payload |
//! |---|---|---|
//! | 1 begin | vote, snapshot meta, checkpoint state | |
//! | 2 piece | chunk, first block, count, presence bitmap | the present blocks |
//! | 3 end | | |

use crate::checkpoint::CheckpointState;
use crate::codec::{get_snapshot_meta, get_vote, put_snapshot_meta, put_vote};
use crate::group::Group;
use crate::limit::SNAPSHOT_PIECE_BLOCKS;
use crate::machine::SnapshotState;
use crate::network::{Network, accepted, garbled};
use crate::read::ReadRun;
use crate::replica::{Hold, Replica};
use crate::types::{RaftLogId, RaftSnapshotMeta, RaftVote, TypeConfig, from_raft, to_raft_vote};
use bytes::Bytes;
use futures_util::future::{Either, select};
use ogee_proto::id::{ChunkIndex, ChunkKey, Sequence, VolumeId};
use ogee_proto::limit::{BLOCK_SIZE, BLOCKS_PER_CHUNK};
use ogee_proto::unit::BlockIndex;
use ogee_proto::wire::{FrameHeader, FrameKind, Reader, Status, WireError, Writer};
use ogee_runtime::Payload;
use ogee_store::{BlockChange, StoreError, WriteBack};
use ogee_transport::Frame;
use openraft::OptionalSend;
use openraft::alias::SnapshotOf;
use openraft::errors::{NetworkError, ReplicationClosed, StreamingError, Unreachable};
use openraft::raft::SnapshotResponse;
use openraft::storage::Snapshot;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;

const STEP_BEGIN: u64 = 1;
const STEP_PIECE: u64 = 2;
const STEP_END: u64 = 3;

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
        let _kept = self.replica.keep_log();
        let id = ogee_runtime::random_u64();
        tracing::info!(copyset = %self.replica.copyset, target = %self.target,
            upto = %snapshot.meta, "sending a snapshot");
        let mut meta = Vec::new();
        put_vote(&mut meta, &vote);
        put_snapshot_meta(&mut meta, &snapshot.meta);
        Writer::new(&mut meta).bytes(&snapshot.snapshot.state.encode(self.replica.id));
        self.step(id, STEP_BEGIN, meta, Payload::empty()).await?;
        for key in self.replica.chunks() {
            for first in (0..BLOCKS_PER_CHUNK).step_by(SNAPSHOT_PIECE_BLOCKS) {
                self.copy_piece(id, key, first).await?;
            }
        }
        let reply = self
            .step(id, STEP_END, Vec::new(), Payload::empty())
            .await?;
        let vote = get_vote(&mut Reader::new(&reply.meta)).map_err(|error| wire(&error))?;
        Ok(SnapshotResponse::new(vote))
    }

    async fn copy_piece(&self, id: u64, key: ChunkKey, first: usize) -> StreamingResult<()> {
        let block = BlockIndex::new(first).expect("pieces divide a chunk");
        let runs = self
            .replica
            .read_blocks(key, block, SNAPSHOT_PIECE_BLOCKS)
            .await;
        let runs =
            runs.map_err(|error| StreamingError::Network(NetworkError::from_string(error)))?;
        let (bitmap, payload) = pack(&runs);
        let mut meta = Vec::with_capacity(32 + bitmap.len());
        Writer::new(&mut meta)
            .u64(key.volume.get())
            .u32(key.chunk.get())
            .u16(block.get())
            .u16(u16::try_from(SNAPSHOT_PIECE_BLOCKS).expect("a chunk has 4096 blocks"))
            .bytes(&bitmap);
        self.step(id, STEP_PIECE, meta, payload.into())
            .await
            .map(drop)
    }

    async fn step(
        &self,
        id: u64,
        step: u64,
        meta: Vec<u8>,
        payload: Payload,
    ) -> StreamingResult<Frame> {
        let mut header = self.header(FrameKind::Snapshot);
        header.sequence = Sequence::new(step);
        header.stream = id;
        let frame = Frame {
            header,
            meta: Bytes::from(meta),
            payload,
        };
        let caller = self.caller().map_err(StreamingError::from)?;
        let reply = caller
            .call(frame)
            .await
            .map_err(|error| StreamingError::Unreachable(Unreachable::from_string(error)))?;
        accepted(reply).map_err(StreamingError::from)
    }
}

fn wire(error: &WireError) -> StreamingError<TypeConfig> {
    StreamingError::from(garbled(error))
}

/// Presence bitmap and the present blocks of some runs.
fn pack(runs: &[ReadRun]) -> (Vec<u8>, Vec<u8>) {
    let blocks: usize = runs.iter().map(ReadRun::len).sum::<usize>() / BLOCK_SIZE;
    let mut bitmap = vec![0u8; blocks.div_ceil(8)];
    let mut payload = Vec::new();
    let mut at = 0;
    for run in runs {
        let count = run.len() / BLOCK_SIZE;
        if let ReadRun::Data(bytes) = run {
            payload.extend_from_slice(bytes);
            for block in at..at + count {
                bitmap[block / 8] |= 1 << (block % 8);
            }
        }
        at += count;
    }
    (bitmap, payload)
}

/// The copy that this replica is receiving, if any.
#[derive(Default)]
pub(crate) struct Incoming {
    transfer: RefCell<Option<Transfer>>,
}

struct Transfer {
    /// Chosen by the sender: a step of another copy is not taken for one of this.
    id: u64,
    vote: RaftVote,
    meta: RaftSnapshotMeta,
    state: CheckpointState,
    chunks: BTreeSet<ChunkKey>,
    _hold: Hold,
}

impl Transfer {
    /// Whether a step belongs to this copy, and its leader has not been deposed.
    fn is(&self, id: u64, current: Option<&RaftVote>) -> bool {
        self.id == id && current.is_none_or(|current| self.vote >= *current)
    }
}

impl Incoming {
    /// Drops the copy of a leader that a newer one has deposed: nobody will finish it, and its hold
    /// would keep write-back from ever freeing the log again.
    fn void_older(&self, leader: &RaftVote) {
        let is_older = |transfer: &Transfer| transfer.vote < *leader;
        let mut transfer = self.transfer.borrow_mut();
        if transfer.as_ref().is_some_and(is_older) {
            *transfer = None;
        }
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
        let status = match header.sequence.get() {
            STEP_BEGIN => self.begin_snapshot(&frame).await,
            STEP_PIECE => self.take_piece(&frame).await,
            STEP_END => return self.end_snapshot(&header).await,
            _ => Err(Status::BadRequest),
        };
        Frame::new(FrameHeader::reply(
            &header,
            status.err().unwrap_or(Status::Ok),
        ))
    }

    async fn begin_snapshot(&self, frame: &Frame) -> Result<(), Status> {
        let mut from = Reader::new(&frame.meta);
        let (vote, meta, state) = decode_begin(&mut from).map_err(|error| {
            tracing::warn!(copyset = %self.copyset(), %error, "refused a snapshot");
            Status::BadRequest
        })?;
        if self.is_outdated(&vote, meta.last_log_id.as_ref()) {
            tracing::info!(copyset = %self.copyset(), upto = %meta, "refused an outdated snapshot");
            return Err(Status::Retry);
        }
        tracing::info!(copyset = %self.copyset(), upto = %meta, "receiving a snapshot");
        // A copy begun by an earlier leader, or before a break, is void.
        self.incoming().transfer.borrow_mut().take();
        let hold = self.replica().hold_idle().await;
        let transfer = Transfer {
            id: frame.header.stream,
            vote,
            meta,
            state,
            chunks: BTreeSet::new(),
            _hold: hold,
        };
        *self.incoming().transfer.borrow_mut() = Some(transfer);
        Ok(())
    }

    /// A copy of a deposed leader, or of less than is here, may not overwrite anything.
    fn is_outdated(&self, vote: &RaftVote, upto: Option<&RaftLogId>) -> bool {
        let deposed = self.current_vote().is_some_and(|current| *vote < current);
        let behind = self.replica().state.borrow().applied.as_ref() >= upto;
        deposed || behind || self.raft().is_leader()
    }

    fn current_vote(&self) -> Option<RaftVote> {
        self.replica().log.state().vote.map(to_raft_vote)
    }

    async fn take_piece(&self, frame: &Frame) -> Result<(), Status> {
        let (key, blocks) = decode_piece(frame).map_err(|error| {
            tracing::warn!(copyset = %self.copyset(), %error, "refused a snapshot piece");
            Status::BadRequest
        })?;
        let current = self.current_vote();
        match self.incoming().transfer.borrow_mut().as_mut() {
            Some(transfer) if transfer.is(frame.header.stream, current.as_ref()) => {
                transfer.chunks.insert(key);
            }
            _ => return Err(Status::Retry),
        }
        self.write_pieces(blocks).await
    }

    async fn write_pieces(&self, blocks: Vec<WriteBack>) -> Result<(), Status> {
        let replica = self.replica();
        replica
            .store
            .write_back(replica.copyset, blocks)
            .await
            .map_err(|error| {
                tracing::error!(copyset = %self.copyset(), %error, "snapshot could not be stored");
                if matches!(error, StoreError::NoSpace { .. }) {
                    Status::NoSpace
                } else {
                    Status::Io
                }
            })
    }

    async fn end_snapshot(&self, header: &FrameHeader) -> Frame {
        match self.install_incoming(header.stream).await {
            Ok(vote) => {
                let mut meta = Vec::with_capacity(17);
                put_vote(&mut meta, &vote);
                let mut frame = Frame::new(FrameHeader::reply(header, Status::Ok));
                frame.meta = meta.into();
                frame
            }
            Err(status) => Frame::new(FrameHeader::reply(header, status)),
        }
    }

    fn take_transfer(&self, id: u64) -> Option<Transfer> {
        let current = self.current_vote();
        let mut transfer = self.incoming().transfer.borrow_mut();
        transfer.take_if(|transfer| transfer.is(id, current.as_ref()))
    }

    async fn install_incoming(&self, id: u64) -> Result<RaftVote, Status> {
        let transfer = self.take_transfer(id).ok_or(Status::Retry)?;
        let replica = self.replica();
        for key in replica.store.chunks(replica.copyset) {
            if !transfer.chunks.contains(&key) {
                self.write_pieces(zeros(key)).await?;
            }
        }
        let Transfer {
            vote, meta, state, ..
        } = transfer;
        let snapshot = Snapshot {
            meta,
            snapshot: SnapshotState { state },
        };
        let installed = self.raft().install_full_snapshot(vote, snapshot).await;
        installed
            .map(|response| response.vote)
            .map_err(|_stopped| Status::Io)
    }
}

fn zeros(key: ChunkKey) -> Vec<WriteBack> {
    let blocks = (0..BLOCKS_PER_CHUNK).filter_map(BlockIndex::new);
    blocks
        .map(|block| WriteBack {
            key,
            block,
            what: BlockChange::Zero,
        })
        .collect()
}

fn decode_begin(
    from: &mut Reader<'_>,
) -> Result<(RaftVote, RaftSnapshotMeta, CheckpointState), WireError> {
    let vote = get_vote(from)?;
    let meta = get_snapshot_meta(from)?;
    let absent = WireError::Truncated {
        field: "snapshot log id",
    };
    let applied = from_raft(meta.last_log_id.as_ref().ok_or(absent)?);
    let state = from.bytes("checkpoint state", from.remaining())?;
    let (_leader, state) = CheckpointState::decode(applied, state)?;
    Ok((
        vote,
        meta,
        state.ok_or(WireError::Truncated {
            field: "snapshot state",
        })?,
    ))
}

fn decode_piece(frame: &Frame) -> Result<(ChunkKey, Vec<WriteBack>), WireError> {
    let mut from = Reader::new(&frame.meta);
    let volume = VolumeId::new(from.u64("piece volume")?);
    let chunk = ChunkIndex::new(from.u32("piece chunk")?);
    let key = ChunkKey { volume, chunk };
    let first = usize::from(from.u16("piece first block")?);
    let count = usize::from(from.u16("piece block count")?);
    let bitmap = from.bytes("piece bitmap", count.div_ceil(8))?;
    let mut blocks = Vec::with_capacity(count);
    let mut at = 0;
    for (block, number) in (first..first + count).zip(0usize..) {
        let refused = WireError::Field {
            field: "piece block",
            value: block as u64,
        };
        let block = BlockIndex::new(block).ok_or(refused)?;
        let present = bitmap
            .get(number / 8)
            .is_some_and(|byte| byte >> (number % 8) & 1 == 1);
        let what = if present {
            let bytes = at..at + BLOCK_SIZE;
            if bytes.end > frame.payload.len() {
                return Err(WireError::Truncated {
                    field: "piece payload",
                });
            }
            at = bytes.end;
            BlockChange::Data(frame.payload.slice(bytes))
        } else {
            BlockChange::Zero
        };
        blocks.push(WriteBack { key, block, what });
    }
    Ok((key, blocks))
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
}

#[cfg(test)]
mod tests {
    use super::{CheckpointState, STEP_BEGIN};
    use crate::codec::{put_snapshot_meta, put_vote};
    use crate::fixture::{COPYSET, Lone, run};
    use crate::machine::snapshot_of;
    use crate::session::Sessions;
    use crate::types::{RaftStoredMembership, RaftVote};
    use ogee_proto::id::{LogId, ReplicaId, RequestId, Sequence};
    use ogee_proto::wire::{FrameHeader, FrameKind, Status, Writer};
    use ogee_transport::Frame;

    fn begin(vote: &RaftVote) -> Frame {
        let state = CheckpointState {
            applied: LogId::new(1, 100),
            membership: RaftStoredMembership::default(),
            sessions: Sessions::default(),
        };
        let mut meta = Vec::new();
        put_vote(&mut meta, vote);
        put_snapshot_meta(&mut meta, &snapshot_of(state.clone()).meta);
        Writer::new(&mut meta).bytes(&state.encode(ReplicaId::new(2)));
        let mut header = FrameHeader::new(FrameKind::Snapshot, RequestId::new(1));
        header.copyset = COPYSET;
        header.sequence = Sequence::new(STEP_BEGIN);
        let mut frame = Frame::new(header);
        frame.meta = meta.into();
        frame
    }

    /// Or the replica's log would fill up for good: a held group is never written back.
    #[test]
    fn a_copy_that_nobody_will_finish_ends_with_its_leader() {
        run(async {
            let lone = Lone::open().await;
            let replica = lone.group.replica().clone();
            let leader = RaftVote::new_committed(5, 2);
            let begun = lone.group.on_snapshot(begin(&leader)).await;
            assert_eq!(begun.header.status, Status::Ok);
            assert!(replica.is_held());
            lone.group.note_leader(&leader);
            lone.group.note_leader(&RaftVote::new_committed(4, 3));
            assert!(replica.is_held(), "its leader still leads");
            lone.group.note_leader(&RaftVote::new_committed(6, 3));
            assert!(!replica.is_held());
        });
    }
}
