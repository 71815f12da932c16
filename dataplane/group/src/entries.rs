//! Entries of a replica's durable log, for a peer whose own are lost.
//!
//! *Place*: asked by [`mend`](crate::mend), answered by whoever holds a replica of the group, running
//! or damaged itself. *Owner*: the group's shard. *Invariants*: only what is durable and whole is
//! given, from the end of the range asked for downwards, so that each entry names the one below it;
//! an answer is bounded by a frame. It says nothing of votes or commits: the asker takes an entry
//! only if its own medium names it.
//! *On failure*: an entry that is lost here too is left out.
//!
//! Request: first `u64`, end `u64` (exclusive). Answer: purged and last log id, count `u32`, and per
//! entry term, index `u64`, kind `u8`, head length `u16`, payload length, payload CRC32C, chain
//! `u32`, head; the payloads follow in the frame's payload, in the same order.

use crate::codec::{get_log_id, put_log_id};
use crate::limit::{MEND_ENTRIES_MAX, MEND_META_MAX};
use crate::types::{from_raft, to_raft};
use bytes::Bytes;
use ogee_log::{Entry, GroupLog, LinkedEntry};
use ogee_proto::id::{LogId, LogIndex};
use ogee_proto::limit::REPLICATION_PAYLOAD_MAX;
use ogee_proto::wire::{FrameHeader, Reader, Status, WireError, Writer};
use ogee_runtime::Payload;
use ogee_transport::Frame;
use std::ops::Range;

/// Bytes of an entry's fixed fields.
const FIXED_LEN: usize = 8 + 8 + 1 + 2 + 4 + 4 + 4;

/// What a peer has of the entries asked for.
pub(crate) struct Found {
    pub(crate) purged: Option<LogId>,
    pub(crate) last: Option<LogId>,
    /// In order.
    pub(crate) entries: Vec<LinkedEntry>,
}

pub(crate) fn put_request(out: &mut Vec<u8>, range: &Range<LogIndex>) {
    Writer::new(out).u64(range.start.get()).u64(range.end.get());
}

fn get_request(meta: &[u8]) -> Result<Range<LogIndex>, WireError> {
    let mut from = Reader::new(meta);
    let start = LogIndex::new(from.u64("first index")?);
    let end = LogIndex::new(from.u64("end index")?);
    from.finish("entries request")?;
    Ok(start..end)
}

/// Answers a request from the durable log.
pub(crate) async fn answer(log: &GroupLog, frame: &Frame) -> Frame {
    let Ok(range) = get_request(&frame.meta) else {
        return Frame::new(FrameHeader::reply(&frame.header, Status::BadRequest));
    };
    let state = log.durable_state();
    let entries = match suffix(log, &range) {
        Some(range) => log.linked_entries(range, REPLICATION_PAYLOAD_MAX).await,
        None => Ok(Vec::new()),
    };
    let entries = entries.unwrap_or_else(|error| {
        tracing::warn!(copyset = %log.id(), %error, "an entry that a peer lacks is lost here too");
        Vec::new()
    });
    let mut meta = Vec::with_capacity(64 + entries.len() * 128);
    put_log_id(&mut meta, state.purged.map(to_raft).as_ref());
    put_log_id(&mut meta, state.last.map(to_raft).as_ref());
    Writer::new(&mut meta).u32(u32::try_from(entries.len()).expect("bounded"));
    let mut payload = Vec::with_capacity(entries.iter().map(|one| one.entry.payload.len()).sum());
    for LinkedEntry { entry, chain } in &entries {
        put_entry(&mut meta, entry, *chain);
        payload.extend_from_slice(&entry.payload);
    }
    let mut reply = Frame::new(FrameHeader::reply(&frame.header, Status::Ok));
    reply.meta = Bytes::from(meta);
    reply.payload = Payload::from(payload);
    reply
}

/// The end of `range` that one answer can carry.
fn suffix(log: &GroupLog, range: &Range<LogIndex>) -> Option<Range<LogIndex>> {
    let (mut first, mut meta, mut payload) = (range.end, 0, 0);
    for index in (range.start.get()..range.end.get()).rev() {
        let index = LogIndex::new(index);
        let next = LogIndex::new(index.get() + 1);
        let Some(entry) = log.peek(index..next, 0).pop() else {
            break;
        };
        meta += FIXED_LEN + entry.head.len();
        payload += entry.payload_len as usize;
        let count = range.end.get() - index.get();
        if meta > MEND_META_MAX || payload > REPLICATION_PAYLOAD_MAX || count > MEND_ENTRIES_MAX {
            break;
        }
        first = index;
    }
    (first < range.end).then_some(first..range.end)
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry, chain: u32) {
    let head_len = u16::try_from(entry.head.len()).expect("the log bounds heads");
    let payload_len = u32::try_from(entry.payload.len()).expect("the log bounds payloads");
    Writer::new(out)
        .u64(entry.id.term.get())
        .u64(entry.id.index.get())
        .u8(entry.kind)
        .u16(head_len)
        .u32(payload_len)
        .u32(entry.payload_crc)
        .u32(chain)
        .bytes(&entry.head);
}

/// Reads an answer.
pub(crate) fn get_found(frame: &Frame) -> Result<Found, WireError> {
    let mut from = Reader::new(&frame.meta);
    let purged = get_log_id(&mut from)?.as_ref().map(from_raft);
    let last = get_log_id(&mut from)?.as_ref().map(from_raft);
    let count = u64::from(from.u32("entry count")?);
    if count > MEND_ENTRIES_MAX {
        return Err(WireError::Field {
            field: "entry count",
            value: count,
        });
    }
    let (mut entries, mut at) = (Vec::new(), 0usize);
    for _ in 0..count {
        entries.push(get_entry(&mut from, &frame.payload, &mut at)?);
    }
    from.finish("entries answer")?;
    Ok(Found {
        purged,
        last,
        entries,
    })
}

fn get_entry(
    from: &mut Reader<'_>,
    payload: &Payload,
    at: &mut usize,
) -> Result<LinkedEntry, WireError> {
    let id = LogId::new(from.u64("entry term")?, from.u64("entry index")?);
    let kind = from.u8("entry kind")?;
    let head_len = from.u16("entry head length")?;
    let len = from.u32("entry payload length")? as usize;
    let payload_crc = from.u32("entry payload crc")?;
    let chain = from.u32("entry chain")?;
    let head = from.bytes("entry head", head_len.into())?;
    let end = at.checked_add(len).filter(|end| *end <= payload.len());
    let end = end.ok_or(WireError::Length {
        field: "entry payload length",
        value: len,
        limit: REPLICATION_PAYLOAD_MAX,
    })?;
    let entry = Entry {
        id,
        kind,
        head: Bytes::copy_from_slice(head),
        payload: payload.slice(*at..end),
        payload_crc,
    };
    *at = end;
    Ok(LinkedEntry { entry, chain })
}

/// For fuzzing: see [`crate::fuzzing`].
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing {
    use super::{get_found, get_request, put_entry, put_request};
    use crate::codec::put_log_id;
    use crate::fuzzing::stands_still;
    use crate::types::to_raft;
    use ogee_proto::wire::Writer;
    use ogee_transport::Frame;

    /// Takes a frame for a request, and for an answer.
    pub(crate) fn messages(frame: &Frame) {
        stands_still(&frame.meta, get_request, |range| {
            let mut out = Vec::new();
            put_request(&mut out, range);
            out
        });
        let found = |meta: &[u8]| {
            let mut frame = frame.clone();
            frame.meta = meta.to_vec().into();
            get_found(&frame)
        };
        stands_still(&frame.meta, found, |found| {
            let mut out = Vec::new();
            put_log_id(&mut out, found.purged.map(to_raft).as_ref());
            put_log_id(&mut out, found.last.map(to_raft).as_ref());
            Writer::new(&mut out).u32(u32::try_from(found.entries.len()).expect("bounded"));
            for one in &found.entries {
                put_entry(&mut out, &one.entry, one.chain);
            }
            out
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{Found, get_entry, get_found, get_request, put_entry, put_request};
    use bytes::Bytes;
    use ogee_log::Entry;
    use ogee_proto::id::{LogId, LogIndex, RequestId};
    use ogee_proto::wire::{FrameHeader, FrameKind, Reader};
    use ogee_runtime::Payload;
    use ogee_transport::Frame;

    fn entry(len: usize) -> Entry {
        Entry {
            id: LogId::new(3, 4),
            kind: 1,
            head: Bytes::from_static(b"head"),
            payload: Payload::from(vec![7; len]),
            payload_crc: 8,
        }
    }

    #[test]
    fn requests_and_entries_survive_the_wire() {
        let mut meta = Vec::new();
        let range = LogIndex::new(5)..LogIndex::new(9);
        put_request(&mut meta, &range);
        assert_eq!(get_request(&meta).unwrap(), range);
        assert!(get_request(&meta[..15]).is_err());
        let mut meta = Vec::new();
        put_entry(&mut meta, &entry(4096), 11);
        let payload = Payload::from(vec![7; 4096]);
        let mut at = 0;
        let found = get_entry(&mut Reader::new(&meta), &payload, &mut at).unwrap();
        assert_eq!((found.chain, at), (11, 4096));
        assert_eq!(found.entry.payload, entry(4096).payload);
        let (id, head) = (found.entry.id, found.entry.head);
        assert_eq!((id, head), (entry(0).id, entry(0).head));
    }

    #[test]
    fn hostile_answers_are_refused() {
        let header = FrameHeader::new(FrameKind::Reply, RequestId::new(1));
        let parse = |meta: Vec<u8>| {
            let mut frame = Frame::new(header);
            frame.meta = meta.into();
            get_found(&frame).map(|Found { entries, .. }| entries.len())
        };
        let mut meta = vec![0; 34];
        meta.extend_from_slice(&0u32.to_le_bytes());
        assert_eq!(parse(meta.clone()).unwrap(), 0);
        meta[34..].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(parse(meta.clone()).is_err());
        meta[34..].copy_from_slice(&1u32.to_le_bytes());
        assert!(parse(meta.clone()).is_err());
        // An entry whose payload is not there.
        put_entry(&mut meta, &entry(4096), 0);
        assert!(parse(meta).is_err());
    }
}
