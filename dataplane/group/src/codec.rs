//! openraft's messages ↔ the structured part of a frame.
//!
//! Layout of each message is the order of the calls here; the frame's version covers it. Every
//! count and length is checked against what is left before anything is allocated.

use crate::command::{Command, CommandHead, PayloadRef};
use crate::limit::{APPEND_ENTRIES_MAX, COMMAND_HEAD_LEN};
use crate::types::{
    RaftEntry, RaftLogId, RaftMembership, RaftSnapshotMeta, RaftStoredMembership, RaftVote,
    ReplicaNode, TypeConfig, from_raft, to_raft, to_raft_vote,
};
use ogee_log::Vote;
use ogee_proto::id::{ChunkIndex, ChunkKey, LogId, VolumeId};
use ogee_proto::limit::{REPLICAS_MAX, REPLICATION_PAYLOAD_MAX};
use ogee_proto::wire::{Reader, WireError, Writer};
use ogee_runtime::Payload;
use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What kind of entry a log record holds (opaque to the log).
pub(crate) const ENTRY_BLANK: u8 = 0;
pub(crate) const ENTRY_COMMAND: u8 = 1;
pub(crate) const ENTRY_MEMBERSHIP: u8 = 2;

/// Members (voters and learners, old and new) that one membership may name.
const MEMBERS_MAX: usize = 4 * REPLICAS_MAX;
/// Bytes of an endpoint's text.
const ENDPOINT_MAX: usize = 255;

pub(crate) fn put_log_id(out: &mut Vec<u8>, id: Option<&RaftLogId>) {
    let (some, id) = (id.is_some(), id.map(from_raft).unwrap_or_default());
    Writer::new(out)
        .u8(u8::from(some))
        .u64(id.term.get())
        .u64(id.index.get());
}

pub(crate) fn get_log_id(from: &mut Reader<'_>) -> Result<Option<RaftLogId>, WireError> {
    let some = from.u8("log id present")? != 0;
    let id = LogId::new(from.u64("log id term")?, from.u64("log id index")?);
    Ok(some.then(|| to_raft(id)))
}

pub(crate) fn put_vote(out: &mut Vec<u8>, vote: &RaftVote) {
    Writer::new(out)
        .u64(vote.leader_id.term)
        .u64(vote.leader_id.voted_for)
        .u8(u8::from(vote.committed));
}

pub(crate) fn get_vote(from: &mut Reader<'_>) -> Result<RaftVote, WireError> {
    Ok(to_raft_vote(Vote {
        term: from.u64("vote term")?,
        voted_for: from.u64("voted for")?,
        committed: from.u8("vote committed")? != 0,
    }))
}

pub(crate) fn put_membership(out: &mut Vec<u8>, membership: &RaftMembership) {
    let configs = membership.get_joint_config();
    Writer::new(out).u8(u8::try_from(configs.len()).expect("a joint config has two halves"));
    for config in configs {
        Writer::new(out).u8(u8::try_from(config.len()).expect("few voters"));
        for id in config {
            Writer::new(out).u64(*id);
        }
    }
    Writer::new(out).u8(u8::try_from(membership.nodes().count()).expect("few nodes"));
    for (id, node) in membership.nodes() {
        let endpoint = node.endpoint.as_bytes();
        let len = u8::try_from(endpoint.len()).expect("endpoints are at most 255 bytes");
        Writer::new(out)
            .u64(*id)
            .u32(node.chunkserver)
            .u8(len)
            .bytes(endpoint);
    }
}

pub(crate) fn get_membership(from: &mut Reader<'_>) -> Result<RaftMembership, WireError> {
    let mut configs = Vec::new();
    for _ in 0..bounded("membership configs", from.u8("membership configs")?, 2)? {
        let mut config = BTreeSet::new();
        for _ in 0..bounded("voters", from.u8("voters")?, MEMBERS_MAX)? {
            config.insert(from.u64("voter")?);
        }
        configs.push(config);
    }
    let mut nodes = BTreeMap::new();
    for _ in 0..bounded("members", from.u8("members")?, MEMBERS_MAX)? {
        let id = from.u64("member")?;
        let chunkserver = from.u32("member chunkserver")?;
        let len = from.u8("endpoint length")?;
        let text = std::str::from_utf8(from.bytes("endpoint", len.into())?);
        let endpoint = text.map_err(|_| WireError::Field {
            field: "endpoint",
            value: id,
        })?;
        nodes.insert(
            id,
            ReplicaNode {
                chunkserver,
                endpoint: endpoint.into(),
            },
        );
    }
    let refused = WireError::Field {
        field: "membership",
        value: nodes.len() as u64,
    };
    RaftMembership::new(configs, nodes).map_err(|_| refused)
}

fn bounded(field: &'static str, value: u8, limit: usize) -> Result<u8, WireError> {
    if usize::from(value) > limit {
        return Err(WireError::Length {
            field,
            value: value.into(),
            limit,
        });
    }
    Ok(value)
}

const _: () = assert!(ENDPOINT_MAX == u8::MAX as usize);

pub(crate) fn put_stored_membership(out: &mut Vec<u8>, stored: &RaftStoredMembership) {
    put_log_id(out, stored.log_id().as_ref());
    put_membership(out, stored.membership());
}

pub(crate) fn get_stored_membership(
    from: &mut Reader<'_>,
) -> Result<RaftStoredMembership, WireError> {
    let log_id = get_log_id(from)?;
    Ok(RaftStoredMembership::new(log_id, get_membership(from)?))
}

pub(crate) fn put_snapshot_meta(out: &mut Vec<u8>, meta: &RaftSnapshotMeta) {
    put_log_id(out, meta.last_log_id.as_ref());
    put_stored_membership(out, &meta.last_membership);
}

pub(crate) fn get_snapshot_meta(from: &mut Reader<'_>) -> Result<RaftSnapshotMeta, WireError> {
    let last_log_id = get_log_id(from)?;
    Ok(RaftSnapshotMeta {
        last_log_id,
        last_membership: get_stored_membership(from)?,
    })
}

/// An entry's kind and head as a log record carries them.
pub(crate) fn entry_head(entry: &RaftEntry) -> (u8, Vec<u8>) {
    let mut head = match &entry.payload {
        EntryPayload::Normal(_) => Vec::with_capacity(COMMAND_HEAD_LEN),
        EntryPayload::Blank | EntryPayload::Membership(_) => Vec::new(),
    };
    put_head(&mut head, entry);
    (kind_of(entry), head)
}

const fn kind_of(entry: &RaftEntry) -> u8 {
    match &entry.payload {
        EntryPayload::Blank => ENTRY_BLANK,
        EntryPayload::Normal(_) => ENTRY_COMMAND,
        EntryPayload::Membership(_) => ENTRY_MEMBERSHIP,
    }
}

fn put_head(out: &mut Vec<u8>, entry: &RaftEntry) {
    match &entry.payload {
        EntryPayload::Blank => {}
        EntryPayload::Normal(command) => command.head.encode(out),
        EntryPayload::Membership(membership) => put_membership(out, membership),
    }
}

/// The inverse of [`entry_head`], given where the payload is.
pub(crate) fn entry_from(
    id: LogId,
    kind: u8,
    head: &[u8],
    payload: PayloadRef,
) -> Result<RaftEntry, WireError> {
    let payload = match kind {
        ENTRY_BLANK => EntryPayload::Blank,
        ENTRY_COMMAND => EntryPayload::Normal(Command {
            head: CommandHead::decode(head)?,
            payload,
        }),
        ENTRY_MEMBERSHIP => EntryPayload::Membership(get_membership(&mut Reader::new(head))?),
        _ => {
            return Err(WireError::Field {
                field: "entry kind",
                value: kind.into(),
            });
        }
    };
    Ok(RaftEntry {
        log_id: to_raft(id),
        payload,
    })
}

/// Structured part of an `AppendEntries`; the payloads follow in entry order.
pub(crate) fn put_append(out: &mut Vec<u8>, request: &AppendEntriesRequest<TypeConfig>) {
    put_vote(out, &request.vote);
    put_log_id(out, request.prev_log_id.as_ref());
    put_log_id(out, request.leader_commit.as_ref());
    let count = u32::try_from(request.entries.len()).expect("limited by the log reader");
    Writer::new(out).u32(count);
    for entry in &request.entries {
        let id = from_raft(&entry.log_id);
        let (len, crc) = match &entry.payload {
            EntryPayload::Normal(command) => (command.payload.len(), command.payload.crc()),
            _ => (0, 0),
        };
        Writer::new(out)
            .u64(id.term.get())
            .u64(id.index.get())
            .u8(kind_of(entry));
        let at = out.len();
        Writer::new(out)
            .u16(0)
            .u32(u32::try_from(len).expect("payloads are at most 1 MiB"))
            .u32(crc);
        let start = out.len();
        put_head(out, entry);
        let head_len = u16::try_from(out.len() - start).expect("heads are at most 2 KiB");
        out[at..at + 2].copy_from_slice(&head_len.to_le_bytes());
    }
}

/// Decodes an `AppendEntries`: `payload` is the concatenation of the entries' payloads.
pub(crate) fn get_append(
    meta: &[u8],
    payload: &Payload,
) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
    let mut from = Reader::new(meta);
    let vote = get_vote(&mut from)?;
    let prev_log_id = get_log_id(&mut from)?;
    let leader_commit = get_log_id(&mut from)?;
    let count = from.u32("entry count")? as usize;
    if count > APPEND_ENTRIES_MAX {
        let (field, limit) = ("entry count", APPEND_ENTRIES_MAX);
        return Err(WireError::Length {
            field,
            value: count,
            limit,
        });
    }
    let mut entries = Vec::with_capacity(count);
    let mut at = 0usize;
    for _ in 0..count {
        entries.push(get_append_entry(&mut from, payload, &mut at)?);
    }
    from.finish("append entries")?;
    Ok(AppendEntriesRequest {
        vote,
        prev_log_id,
        entries,
        leader_commit,
    })
}

fn get_append_entry(
    from: &mut Reader<'_>,
    payload: &Payload,
    at: &mut usize,
) -> Result<RaftEntry, WireError> {
    let id = LogId::new(from.u64("entry term")?, from.u64("entry index")?);
    let kind = from.u8("entry kind")?;
    let head_len = from.u16("entry head length")?;
    let len = from.u32("entry payload length")? as usize;
    let crc = from.u32("entry payload crc")?;
    let head = from.bytes("entry head", head_len.into())?;
    let end = at.checked_add(len).filter(|end| *end <= payload.len());
    let (field, limit) = ("entry payload length", REPLICATION_PAYLOAD_MAX);
    let end = end.ok_or(WireError::Length {
        field,
        value: len,
        limit,
    })?;
    let bytes = payload.slice(*at..end);
    *at = end;
    let payload = if len == 0 {
        PayloadRef::None
    } else {
        PayloadRef::Memory { bytes, crc }
    };
    entry_from(id, kind, head, payload)
}

/// What a follower says of itself with every answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Word {
    /// For how long it refuses its vote to others, in whole milliseconds.
    pub(crate) promised: Duration,
    /// Extents of new data that its store has room for.
    pub(crate) room: u32,
}

pub(crate) fn put_append_result(
    out: &mut Vec<u8>,
    result: &StreamAppendResult<TypeConfig>,
    word: Word,
) {
    Writer::new(out)
        .u32(u32::try_from(word.promised.as_millis()).unwrap_or(u32::MAX))
        .u32(word.room);
    match result {
        Ok(matched) => {
            Writer::new(out).u8(0);
            put_log_id(out, matched.as_ref());
        }
        Err(StreamAppendError::Conflict(at)) => {
            Writer::new(out).u8(1);
            put_log_id(out, Some(at));
        }
        Err(StreamAppendError::HigherVote(vote)) => {
            Writer::new(out).u8(2);
            put_vote(out, vote);
        }
    }
}

/// The result, and the follower's word.
pub(crate) fn get_append_result(
    meta: &[u8],
) -> Result<(StreamAppendResult<TypeConfig>, Word), WireError> {
    let mut from = Reader::new(meta);
    let word = Word {
        promised: Duration::from_millis(from.u32("promised")?.into()),
        room: from.u32("room")?,
    };
    let result = match from.u8("append result")? {
        0 => Ok(get_log_id(&mut from)?),
        1 => {
            let at = get_log_id(&mut from)?.ok_or(WireError::Truncated { field: "conflict" })?;
            Err(StreamAppendError::Conflict(at))
        }
        2 => Err(StreamAppendError::HigherVote(get_vote(&mut from)?)),
        raw => {
            return Err(WireError::Field {
                field: "append result",
                value: raw.into(),
            });
        }
    };
    from.finish("append result")?;
    Ok((result, word))
}

pub(crate) fn put_vote_request(
    out: &mut Vec<u8>,
    request: &VoteRequest<TypeConfig>,
    pre_vote: bool,
) {
    // A voter with a valid lease grants only to a candidate that its leader has sent.
    let transfer = request.leadership_transfer;
    Writer::new(out)
        .u8(u8::from(pre_vote))
        .u8(u8::from(transfer));
    put_vote(out, &request.vote);
    put_log_id(out, request.last_log_id.as_ref());
}

/// The request, and whether it is a pre-vote.
pub(crate) fn get_vote_request(meta: &[u8]) -> Result<(VoteRequest<TypeConfig>, bool), WireError> {
    let mut from = Reader::new(meta);
    let pre_vote = from.u8("pre-vote")? != 0;
    let leadership_transfer = from.u8("leadership transfer")? != 0;
    let request = VoteRequest {
        vote: get_vote(&mut from)?,
        last_log_id: get_log_id(&mut from)?,
        leadership_transfer,
    };
    from.finish("vote request")?;
    Ok((request, pre_vote))
}

/// A transfer goes to every voter: the target runs, the others let it.
pub(crate) fn put_transfer(out: &mut Vec<u8>, request: &TransferLeaderRequest<TypeConfig>) {
    put_vote(out, request.from_leader());
    put_log_id(out, request.last_log_id());
    Writer::new(out).u64(*request.to_node_id());
}

pub(crate) fn get_transfer(meta: &[u8]) -> Result<TransferLeaderRequest<TypeConfig>, WireError> {
    let mut from = Reader::new(meta);
    let leader = get_vote(&mut from)?;
    let last = get_log_id(&mut from)?;
    let to = from.u64("transfer target")?;
    from.finish("transfer")?;
    Ok(TransferLeaderRequest::new(leader, to, last))
}

pub(crate) fn put_vote_response(out: &mut Vec<u8>, response: &VoteResponse<TypeConfig>) {
    put_vote(out, &response.vote);
    put_log_id(out, response.last_log_id.as_ref());
    Writer::new(out).u8(u8::from(response.vote_granted));
}

pub(crate) fn get_vote_response(meta: &[u8]) -> Result<VoteResponse<TypeConfig>, WireError> {
    let mut from = Reader::new(meta);
    let vote = get_vote(&mut from)?;
    let last_log_id = get_log_id(&mut from)?;
    let is_granted = from.u8("vote granted")? != 0;
    from.finish("vote response")?;
    Ok(VoteResponse::new(vote, last_log_id, is_granted))
}

/// Adds the key of a chunk: volume (8), chunk (4).
pub(crate) fn put_chunk_key(out: &mut Vec<u8>, key: ChunkKey) {
    Writer::new(out).u64(key.volume.get()).u32(key.chunk.get());
}

/// The key of a chunk, whose two parts an error calls so.
pub(crate) fn get_chunk_key(
    from: &mut Reader<'_>,
    [volume, chunk]: [&'static str; 2],
) -> Result<ChunkKey, WireError> {
    Ok(ChunkKey {
        volume: VolumeId::new(from.u64(volume)?),
        chunk: ChunkIndex::new(from.u32(chunk)?),
    })
}

/// What a field may not be.
pub(crate) const fn unknown(field: &'static str, value: u64) -> WireError {
    WireError::Field { field, value }
}
