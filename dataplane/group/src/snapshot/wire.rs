//! The steps of a copy as frames.
//!
//! `sequence` says which step, `stream` which copy, `watermark` which attempt, `incarnation` what the copy is for; the
//! frame's version covers the layouts, little endian:
//!
//! | step | chunk in the header | meta | payload |
//! |---|---|---|---|
//! | 1 begin | | vote, snapshot meta, state length `u32`, state CRC32C `u32`, chunks `u32`, extents `u32`, token `u64` | |
//! | 2 state | | at `u32` | that part of the state |
//! | 3 chunks | | | volume `u64`, chunk `u32` of each |
//! | 4 blocks | yes | of each piece: first `u16`, covered mask `u32`, present mask `u32` | the present blocks |
//! | 5 zeros | yes | first `u16`, count `u16` | |
//! | 6 end | | log id up to which the blocks may be | |
//! | 7 sync | | | |
//! | 8 base | | | |
//!
//! Answers carry a status; that of begin a token `u64`, which the sender's next begin repeats, or
//! `Stale` when all that the snapshot stands for is there already; that of end the vote; that of base the log id of
//! the checkpoint that the target's blocks come from, if it has one, and a byte that is 1 when some of them may be
//! newer than that and what was applied behind it.

use crate::codec::{get_chunk_key, put_chunk_key};
use crate::codec::{get_log_id, get_snapshot_meta, get_vote, put_log_id};
use crate::codec::{put_snapshot_meta, put_vote};
use crate::limit::{COPY_CHUNKS_MAX, COPY_PIECE_BLOCKS, COPY_PIECE_BYTES};
use crate::types::{RaftLogId, RaftSnapshotMeta, RaftVote};
use bytes::Bytes;
use ogee_proto::id::{ChunkKey, Incarnation};
use ogee_proto::limit::{BLOCK_SIZE, BLOCKS_PER_CHUNK};
use ogee_proto::unit::BlockIndex;
use ogee_proto::wire::{FrameHeader, Reader, WireError, Writer};
use ogee_runtime::Payload;
use ogee_store::{BlockChange, GROUP_STATE_MAX, Purpose, WriteBack};
use ogee_transport::Frame;
use std::ops::Range;

pub(super) const STEP_BEGIN: u64 = 1;
pub(super) const STEP_STATE: u64 = 2;
pub(super) const STEP_CHUNKS: u64 = 3;
pub(super) const STEP_BLOCKS: u64 = 4;
pub(super) const STEP_ZEROS: u64 = 5;
pub(super) const STEP_END: u64 = 6;
pub(super) const STEP_SYNC: u64 = 7;
pub(super) const STEP_BASE: u64 = 8;

/// Says in the `incarnation` of a step what its copy is for, and whether it may not give way to clients: 1 and 2 to a
/// copyset that lacks a replica, 3 and 4 a replica that is moved; the second of each does not give way. What does not
/// say it, as builds before this one, is 2.
pub(super) fn put_haste(header: &mut FrameHeader, purpose: Purpose, is_pressing: bool) {
    let first = if purpose == Purpose::Recovery { 1 } else { 3 };
    header.incarnation = Incarnation::new(first + u32::from(is_pressing));
}

pub(super) fn get_haste(header: &FrameHeader) -> (Purpose, bool) {
    match header.incarnation.get() {
        1 => (Purpose::Recovery, false),
        3 => (Purpose::Move, false),
        4 => (Purpose::Move, true),
        _ => (Purpose::Recovery, true),
    }
}

/// Bytes that name a chunk.
const KEY_LEN: usize = 12;

/// What a copy begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Begin {
    pub(super) vote: RaftVote,
    pub(super) meta: RaftSnapshotMeta,
    pub(super) state_len: usize,
    pub(super) state_crc: u32,
    pub(super) chunks: usize,
    /// That the whole copy takes, at most.
    pub(super) extents: usize,
    /// As the target answered the attempt before; zero at first.
    pub(super) token: u64,
}

impl Begin {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_vote(&mut out, &self.vote);
        put_snapshot_meta(&mut out, &self.meta);
        let count = |of: usize| u32::try_from(of).expect("invariant: limited by the store");
        Writer::new(&mut out)
            .u32(count(self.state_len))
            .u32(self.state_crc)
            .u32(count(self.chunks))
            .u32(count(self.extents))
            .u64(self.token);
        out
    }

    pub(super) fn decode(meta: &[u8]) -> Result<Self, WireError> {
        let mut from = Reader::new(meta);
        let vote = get_vote(&mut from)?;
        let meta = get_snapshot_meta(&mut from)?;
        if meta.last_log_id.is_none() {
            return Err(WireError::Truncated {
                field: "snapshot log id",
            });
        }
        let state_len = from.u32("snapshot state length")? as usize;
        if state_len > GROUP_STATE_MAX {
            return Err(WireError::Length {
                field: "snapshot state length",
                value: state_len,
                limit: GROUP_STATE_MAX,
            });
        }
        let begin = Self {
            vote,
            meta,
            state_len,
            state_crc: from.u32("snapshot state crc")?,
            chunks: from.u32("snapshot chunks")? as usize,
            extents: from.u32("snapshot extents")? as usize,
            token: from.u64("snapshot token")?,
        };
        if begin.chunks > COPY_CHUNKS_MAX {
            return Err(WireError::Length {
                field: "snapshot chunks",
                value: begin.chunks,
                limit: COPY_CHUNKS_MAX,
            });
        }
        from.finish("snapshot begin")?;
        Ok(begin)
    }
}

pub(super) fn put_state_at(at: usize) -> Vec<u8> {
    let mut meta = Vec::with_capacity(4);
    Writer::new(&mut meta).u32(u32::try_from(at).expect("invariant: limited by the store"));
    meta
}

/// Where a part of the state belongs; it is a whole piece, or the last one.
pub(super) fn get_state_range(frame: &Frame, len: usize) -> Result<Range<usize>, WireError> {
    let mut from = Reader::new(&frame.meta);
    let at = from.u32("state at")? as usize;
    from.finish("state part")?;
    let end = len.min(at.saturating_add(COPY_PIECE_BYTES));
    if at >= end || !at.is_multiple_of(COPY_PIECE_BYTES) || frame.payload.len() != end - at {
        return Err(WireError::Field {
            field: "state at",
            value: at as u64,
        });
    }
    Ok(at..end)
}

pub(super) fn put_keys(keys: &[ChunkKey]) -> Payload {
    let mut out = Vec::with_capacity(keys.len() * KEY_LEN);
    for key in keys {
        put_chunk_key(&mut out, *key);
    }
    Payload::from(out)
}

pub(super) fn get_keys(frame: &Frame) -> Result<Vec<ChunkKey>, WireError> {
    let mut from = Reader::new(&frame.payload);
    let mut keys = Vec::with_capacity(frame.payload.len() / KEY_LEN);
    while from.remaining() > 0 {
        keys.push(get_chunk_key(&mut from, ["copied volume", "copied chunk"])?);
    }
    Ok(keys)
}

/// Adds a piece.
pub(super) fn put_blocks(meta: &mut Vec<u8>, first: u16, covered: u32, present: u32) {
    Writer::new(meta).u16(first).u32(covered).u32(present);
}

pub(super) fn put_zeros(first: u16, count: u16) -> Vec<u8> {
    let mut meta = Vec::with_capacity(4);
    Writer::new(&mut meta).u16(first).u16(count);
    meta
}

/// The blocks of some pieces of a chunk, absent ones as zeros; no more than one whole piece has.
pub(super) fn get_blocks(frame: &Frame) -> Result<Vec<WriteBack>, WireError> {
    let mut from = Reader::new(&frame.meta);
    let mut rest = frame.payload.clone();
    let mut changes = Vec::with_capacity(COPY_PIECE_BLOCKS);
    while from.remaining() > 0 {
        let piece = Piece {
            first: from.u16("piece first block")?,
            covered: from.u32("piece covered")?,
            present: from.u32("piece present")?,
        };
        piece.take(frame.header.key, &mut rest, &mut changes)?;
        if changes.len() > COPY_PIECE_BLOCKS {
            return Err(WireError::Length {
                field: "pieces",
                value: changes.len(),
                limit: COPY_PIECE_BLOCKS,
            });
        }
    }
    if !rest.is_empty() {
        return Err(WireError::Length {
            field: "piece payload",
            value: frame.payload.len(),
            limit: frame.payload.len() - rest.len(),
        });
    }
    Ok(changes)
}

struct Piece {
    first: u16,
    covered: u32,
    present: u32,
}

impl Piece {
    fn take(
        &self,
        key: ChunkKey,
        rest: &mut Payload,
        changes: &mut Vec<WriteBack>,
    ) -> Result<(), WireError> {
        if self.present & !self.covered != 0 {
            return Err(wrong_mask(self.present));
        }
        let count = u16::try_from(COPY_PIECE_BLOCKS).expect("invariant: a small constant");
        for (number, block) in blocks(self.first, count)?.enumerate() {
            if self.covered >> number & 1 == 0 {
                continue;
            }
            let what = match self.present >> number & 1 {
                0 => BlockChange::Zero,
                _ => BlockChange::Data(next_block(rest)?),
            };
            changes.push(WriteBack { key, block, what });
        }
        Ok(())
    }
}

fn next_block(rest: &mut Payload) -> Result<Payload, WireError> {
    if rest.len() < BLOCK_SIZE {
        return Err(WireError::Truncated {
            field: "piece payload",
        });
    }
    let data = rest.slice(0..BLOCK_SIZE);
    *rest = rest.slice(BLOCK_SIZE..rest.len());
    Ok(data)
}

fn wrong_mask(present: u32) -> WireError {
    WireError::Field {
        field: "piece present",
        value: present.into(),
    }
}

/// The blocks of a run of zeros.
pub(super) fn get_zeros(frame: &Frame) -> Result<impl Iterator<Item = BlockIndex>, WireError> {
    let mut from = Reader::new(&frame.meta);
    let (first, count) = (from.u16("zeros first block")?, from.u16("zeros count")?);
    from.finish("zeros")?;
    blocks(first, count)
}

fn blocks(first: u16, count: u16) -> Result<impl Iterator<Item = BlockIndex>, WireError> {
    let (start, end) = (usize::from(first), usize::from(first) + usize::from(count));
    if end > BLOCKS_PER_CHUNK {
        return Err(WireError::Field {
            field: "piece first block",
            value: first.into(),
        });
    }
    Ok((start..end).filter_map(BlockIndex::new))
}

pub(super) fn put_end(until: &RaftLogId) -> Vec<u8> {
    let mut meta = Vec::with_capacity(17);
    put_log_id(&mut meta, Some(until));
    meta
}

pub(super) fn get_end(meta: &[u8]) -> Result<RaftLogId, WireError> {
    let mut from = Reader::new(meta);
    let until = get_log_id(&mut from)?;
    from.finish("snapshot end")?;
    until.ok_or(WireError::Truncated {
        field: "snapshot end",
    })
}

/// What of the group the target had when the copy began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Base {
    /// The checkpoint that its blocks come from.
    pub(super) checkpoint: Option<RaftLogId>,
    /// Some may be newer than what it has applied: of a copy that broke off, or whose log it had not got yet.
    pub(super) is_fuzzy: bool,
}

/// Answer of base.
pub(super) fn put_base(base: &Base) -> Bytes {
    let mut meta = Vec::with_capacity(18);
    put_log_id(&mut meta, base.checkpoint.as_ref());
    Writer::new(&mut meta).u8(base.is_fuzzy.into());
    meta.into()
}

pub(super) fn get_base(meta: &[u8]) -> Result<Base, WireError> {
    let mut from = Reader::new(meta);
    let checkpoint = get_log_id(&mut from)?;
    let is_fuzzy = match from.u8("snapshot base")? {
        0 => false,
        1 => true,
        value => {
            return Err(WireError::Field {
                field: "snapshot base",
                value: value.into(),
            });
        }
    };
    from.finish("snapshot base")?;
    Ok(Base {
        checkpoint,
        is_fuzzy,
    })
}

/// Answer of begin.
pub(super) fn put_token(token: u64) -> Bytes {
    Bytes::copy_from_slice(&token.to_le_bytes())
}

pub(super) fn get_token(meta: &[u8]) -> Result<u64, WireError> {
    let mut from = Reader::new(meta);
    let token = from.u64("snapshot token")?;
    from.finish("snapshot answer")?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::{get_haste, put_haste};
    use ogee_proto::id::{Incarnation, RequestId};
    use ogee_proto::wire::{FrameHeader, FrameKind};
    use ogee_store::Purpose;

    #[test]
    fn what_a_copy_is_for_survives_its_encoding_and_what_older_builds_say_is_urgent() {
        let mut header = FrameHeader::new(FrameKind::Snapshot, RequestId::new(0));
        assert_eq!(get_haste(&header), (Purpose::Recovery, true));
        let all = [(Purpose::Recovery, 1), (Purpose::Move, 3)];
        for (purpose, first) in all {
            for is_pressing in [false, true] {
                put_haste(&mut header, purpose, is_pressing);
                let golden = first + u32::from(is_pressing);
                assert_eq!(header.incarnation, Incarnation::new(golden));
                assert_eq!(get_haste(&header), (purpose, is_pressing));
            }
        }
    }
}
