//! Every decoder of this crate by itself, for fuzzing.
//!
//! *Place*: above the codecs, under the fuzz targets and this crate's tests. *Owner*: pure functions.
//! *Invariants*: what a decoder accepts encodes to bytes that it decodes to the same.
//! *On failure*: a panic: that is what is looked for.

use crate::beat::{get_beats, get_refused, put_beats, put_refused};
use crate::checkpoint::{self, Saved};
use crate::codec::{
    entry_from, entry_head, get_append, get_append_result, get_membership, get_snapshot_meta,
    get_stored_membership, get_transfer, get_vote_request, get_vote_response, put_append,
    put_append_result, put_membership, put_snapshot_meta, put_stored_membership, put_transfer,
    put_vote_request, put_vote_response,
};
use crate::command::{Command, CommandHead, CommandKind, PayloadRef};
use crate::entries;
use crate::session::{Admission, Sessions};
use ogee_proto::id::{
    ChunkIndex, ChunkKey, ClientId, CopysetId, Epoch, Incarnation, LogId, RequestId, Sequence,
    VolumeId,
};
use ogee_proto::wire::{FrameHeader, FrameKind, Reader, Status, WireError};
use ogee_runtime::Payload;
use ogee_transport::Frame;

/// Takes `meta`, and `payload` where there is one, for a message of the kind that `kind` says.
///
/// # Panics
/// When a decoder accepts what it does not encode to the same.
pub fn messages(kind: u8, meta: &[u8], payload: &[u8]) {
    match kind % 10 {
        0 => append(meta, payload),
        1 => {
            stands_still(meta, get_append_result, |(result, promised)| {
                encoded(|out| put_append_result(out, result, *promised))
            });
        }
        2 => votes(meta),
        3 => memberships(meta),
        4 => record_heads(meta),
        5 => checkpoint(meta),
        6 => {
            let mut frame = frame(meta, payload);
            frame.header.key = ChunkKey {
                volume: VolumeId::new(5),
                chunk: ChunkIndex::new(6),
            };
            crate::snapshot::fuzzing::steps(&frame);
        }
        7 => {
            stands_still(meta, get_beats, |beats| {
                encoded(|out| put_beats(out, beats))
            });
            stands_still(meta, get_refused, |refused: &Vec<CopysetId>| {
                encoded(|out| put_refused(out, refused))
            });
        }
        8 => entries::fuzzing::messages(&frame(meta, payload)),
        _ => sessions(meta),
    }
}

/// Decodes, encodes, decodes and encodes again: from the first encoding on nothing may change.
pub(crate) fn stands_still<T>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, WireError>,
    encode: impl Fn(&T) -> Vec<u8>,
) {
    let Ok(value) = decode(bytes) else {
        return;
    };
    let first = encode(&value);
    let again = decode(&first).unwrap_or_else(|error| panic!("refuses its own bytes: {error}"));
    assert_eq!(encode(&again), first, "changes when it is encoded again");
}

fn encoded(put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out);
    out
}

fn frame(meta: &[u8], payload: &[u8]) -> Frame {
    let header = FrameHeader::new(FrameKind::Snapshot, RequestId::new(1));
    let mut frame = Frame::with_payload(header, Payload::from(payload.to_vec()));
    frame.meta = meta.to_vec().into();
    frame
}

fn append(meta: &[u8], payload: &[u8]) {
    let payload = Payload::from(payload.to_vec());
    stands_still(
        meta,
        |meta| get_append(meta, &payload),
        |request| encoded(|out| put_append(out, request)),
    );
}

fn votes(meta: &[u8]) {
    stands_still(meta, get_vote_request, |(request, pre_vote)| {
        encoded(|out| put_vote_request(out, request, *pre_vote))
    });
    stands_still(meta, get_vote_response, |response| {
        encoded(|out| put_vote_response(out, response))
    });
    stands_still(meta, get_transfer, |request| {
        encoded(|out| put_transfer(out, request))
    });
}

fn memberships(meta: &[u8]) {
    stands_still(
        meta,
        |meta| get_membership(&mut Reader::new(meta)),
        |membership| encoded(|out| put_membership(out, membership)),
    );
    stands_still(
        meta,
        |meta| get_stored_membership(&mut Reader::new(meta)),
        |stored| encoded(|out| put_stored_membership(out, stored)),
    );
    stands_still(
        meta,
        |meta| get_snapshot_meta(&mut Reader::new(meta)),
        |meta| encoded(|out| put_snapshot_meta(out, meta)),
    );
}

/// Heads of log records: their kind is the first byte.
fn record_heads(meta: &[u8]) {
    let (kind, head) = meta.split_first().unwrap_or((&0, &[]));
    let decode = |head: &[u8]| entry_from(LogId::new(1, 2), *kind, head, PayloadRef::None);
    stands_still(head, decode, |entry| entry_head(entry).1);
    if let Ok(head) = CommandHead::decode(head) {
        let command = Command {
            head,
            payload: PayloadRef::Log {
                len: head.length,
                crc: 0,
            },
        };
        let is_whole = command.extents() > 0;
        assert!(!is_whole || head.is_in_range());
        assert!(!command.to_string().is_empty());
    }
}

fn checkpoint(bytes: &[u8]) {
    let applied = LogId::new(3, 4);
    let encode = |saved: &Saved| {
        let whose = (saved.replica, saved.fuzzy_until);
        checkpoint::encode(
            saved.state.as_ref(),
            whose,
            &saved.disputed,
            saved.changes.as_ref(),
        )
    };
    stands_still(bytes, |bytes| Saved::decode(applied, bytes), encode);
}

/// Bytes as requests of a few attachments of a few volumes, three bytes each. A request takes effect
/// once at most, and the sessions survive a checkpoint.
fn sessions(bytes: &[u8]) {
    let mut sessions = Sessions::default();
    for request in bytes.chunks_exact(3).take(200) {
        let (what, who, number) = (request[0], request[1], u64::from(request[2]));
        let head = CommandHead {
            kind: CommandKind::Write,
            key: ChunkKey {
                volume: VolumeId::new(u64::from(what >> 6)),
                chunk: ChunkIndex::new(0),
            },
            offset: 0,
            length: 4096,
            client: ClientId::new(u64::from(who & 3)),
            epoch: Epoch::new(u64::from(who >> 2 & 7)),
            incarnation: Incarnation::new(u32::from(who >> 5 & 1)),
            sequence: Sequence::new(number),
            watermark: Sequence::new(number.saturating_sub(u64::from(what & 15))),
        };
        match what >> 4 & 3 {
            0 => {
                let _status = sessions.seal(&head);
            }
            1 if number == 0 => sessions.remove(head.key.volume, number),
            _ => admit_twice(&mut sessions, &head),
        }
    }
    let bytes = encoded(|out| sessions.encode(out));
    let mut from = Reader::new(&bytes);
    assert_eq!(Sessions::decode(&mut from), Ok(sessions));
    assert_eq!(from.remaining(), 0);
}

fn admit_twice(sessions: &mut Sessions, head: &CommandHead) {
    let is_superseded = !sessions.may_read(head.key.volume, head.epoch);
    let first = sessions.admit(head);
    assert!(!(is_superseded && first == Admission::Apply), "fenced");
    let before = sessions.clone();
    let second = sessions.admit(head);
    assert_ne!(second, Admission::Apply, "a request takes effect twice");
    if first == Admission::Apply {
        assert!(matches!(
            second,
            Admission::Duplicate | Admission::Refused(_)
        ));
    }
    if matches!(second, Admission::Refused(Status::Ok)) {
        panic!("refused as fine");
    }
    assert_eq!(*sessions, before, "what has no effect changes nothing");
}

#[cfg(test)]
mod tests {
    use super::messages;
    use proptest::collection::vec;
    use proptest::prelude::{any, proptest};

    /// The messages of the golden file, as every kind of message.
    #[test]
    fn golden_messages_stand_still() {
        let mut bytes = Vec::new();
        for line in include_str!("../tests/golden/group.txt").lines() {
            let Some(row) = line.strip_prefix("  ") else {
                bytes.clear();
                continue;
            };
            let pairs = row.as_bytes().chunks_exact(2);
            let pairs = pairs.map(|pair| std::str::from_utf8(pair).unwrap());
            bytes.extend(pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()));
            for kind in 0..10 {
                messages(kind, &bytes, &[7; 0x1000]);
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_are_refused(
            kind in any::<u8>(), meta in vec(any::<u8>(), 0..300), payload in vec(any::<u8>(), 0..64),
        ) {
            messages(kind, &meta, &payload);
        }
    }
}
