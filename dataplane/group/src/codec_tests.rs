//! Messages survive their encoding, and bytes that are no message are refused without a panic.

use crate::codec::{
    Word, entry_from, entry_head, get_append, get_append_result, get_log_id, get_membership,
    get_snapshot_meta, get_stored_membership, get_transfer, get_vote, get_vote_request,
    get_vote_response, put_append, put_append_result, put_log_id, put_membership,
    put_snapshot_meta, put_stored_membership, put_transfer, put_vote, put_vote_request,
    put_vote_response,
};
use crate::command::{Command, CommandHead, CommandKind, PayloadRef};
use crate::limit::APPEND_ENTRIES_MAX;
use crate::types::{
    RaftEntry, RaftLogId, RaftMembership, RaftSnapshotMeta, RaftStoredMembership, RaftVote,
    ReplicaNode, TypeConfig, from_raft, to_raft,
};
use ogee_proto::checksum::crc32c;
use ogee_proto::id::{
    ChunkIndex, ChunkKey, ClientId, Epoch, Incarnation, LogId, Sequence, VolumeId,
};
use ogee_proto::wire::{Reader, WireError};
use ogee_runtime::Payload;
use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use proptest::collection::{btree_set, vec};
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

fn log_id() -> impl Strategy<Value = RaftLogId> {
    (any::<u64>(), any::<u64>()).prop_map(|(term, index)| to_raft(LogId::new(term, index)))
}

fn maybe_log_id() -> impl Strategy<Value = Option<RaftLogId>> {
    proptest::option::of(log_id())
}

fn vote() -> impl Strategy<Value = RaftVote> {
    (any::<u64>(), any::<u64>(), any::<bool>()).prop_map(|(term, replica, committed)| {
        if committed {
            RaftVote::new_committed(term, replica)
        } else {
            RaftVote::new(term, replica)
        }
    })
}

fn node() -> impl Strategy<Value = ReplicaNode> {
    (any::<u32>(), "[a-z0-9:.ü]{0,120}").prop_map(|(chunkserver, endpoint)| ReplicaNode {
        chunkserver,
        endpoint: endpoint.into(),
    })
}

/// Uniform and joint, with learners.
fn membership() -> impl Strategy<Value = RaftMembership> {
    let config = || btree_set(any::<u64>(), 1..5);
    let learners = btree_set(any::<u64>(), 0..4);
    (vec(config(), 1..=2), learners, vec(node(), 16)).prop_map(|(configs, learners, nodes)| {
        let ids: BTreeSet<u64> = configs.iter().flatten().copied().chain(learners).collect();
        let nodes: BTreeMap<u64, ReplicaNode> = ids.into_iter().zip(nodes).collect();
        RaftMembership::new(configs, nodes).unwrap()
    })
}

/// A membership as of an entry; also the one of a group that has none yet.
pub(crate) fn stored_membership() -> impl Strategy<Value = RaftStoredMembership> {
    let known = (maybe_log_id(), membership())
        .prop_map(|(log_id, membership)| RaftStoredMembership::new(log_id, membership));
    prop_oneof![9 => known, 1 => Just(RaftStoredMembership::default())]
}

fn command_head() -> impl Strategy<Value = CommandHead> {
    let kind = prop_oneof![
        Just(CommandKind::Write),
        Just(CommandKind::Discard),
        Just(CommandKind::WriteZeroes),
        Just(CommandKind::Seal),
        Just(CommandKind::Digest),
        Just(CommandKind::Rewrite),
        Just(CommandKind::RemoveVolume),
    ];
    let place = any::<(u64, u32, u32, u32)>();
    let user = any::<(u64, u64, u32, u64, u64)>();
    (kind, place, user).prop_map(|(kind, place, user)| CommandHead {
        kind,
        key: ChunkKey {
            volume: VolumeId::new(place.0),
            chunk: ChunkIndex::new(place.1),
        },
        offset: place.2,
        length: place.3,
        client: ClientId::new(user.0),
        epoch: Epoch::new(user.1),
        incarnation: Incarnation::new(user.2),
        sequence: Sequence::new(user.3),
        watermark: Sequence::new(user.4),
    })
}

/// What an entry says; made into one where it is used, since payloads stay on their thread.
#[derive(Clone, Debug)]
enum Said {
    Blank,
    Command(CommandHead, Vec<u8>),
    Membership(RaftMembership),
}

fn said() -> impl Strategy<Value = Said> {
    let payload = prop_oneof![
        Just(Vec::new()),
        vec(any::<u8>(), 1..64),
        vec(any::<u8>(), 4096..=4096)
    ];
    prop_oneof![
        1 => Just(Said::Blank),
        4 => (command_head(), payload).prop_map(|(head, bytes)| Said::Command(head, bytes)),
        1 => membership().prop_map(Said::Membership),
    ]
}

fn entry(log_id: RaftLogId, said: &Said) -> RaftEntry {
    let payload = match said {
        Said::Blank => EntryPayload::Blank,
        Said::Membership(membership) => EntryPayload::Membership(membership.clone()),
        Said::Command(head, bytes) => EntryPayload::Normal(Command {
            head: *head,
            payload: payload_of(bytes),
        }),
    };
    RaftEntry { log_id, payload }
}

fn payload_of(bytes: &[u8]) -> PayloadRef {
    if bytes.is_empty() {
        return PayloadRef::None;
    }
    PayloadRef::Memory {
        bytes: Payload::from(bytes.to_vec()),
        crc: crc32c(bytes),
    }
}

/// Everything that an entry says, comparable.
fn seen(entry: &RaftEntry) -> (LogId, u8, Vec<u8>, Vec<u8>, u32) {
    let (kind, head) = entry_head(entry);
    let (bytes, crc) = match &entry.payload {
        EntryPayload::Normal(command) => match &command.payload {
            PayloadRef::Memory { bytes, crc } => (bytes.to_vec(), *crc),
            PayloadRef::None | PayloadRef::Log { .. } => (Vec::new(), 0),
        },
        _ => (Vec::new(), 0),
    };
    (from_raft(&entry.log_id), kind, head, bytes, crc)
}

fn joined(said: &[(RaftLogId, Said)]) -> Payload {
    let parts = said.iter().filter_map(|(_, said)| match said {
        Said::Command(_, bytes) => Some(bytes.as_slice()),
        Said::Blank | Said::Membership(_) => None,
    });
    Payload::from(parts.collect::<Vec<_>>().concat())
}

fn request(
    (vote, prev, commit): (RaftVote, Option<RaftLogId>, Option<RaftLogId>),
    said: &[(RaftLogId, Said)],
) -> AppendEntriesRequest<TypeConfig> {
    let entries = said.iter().map(|(id, said)| entry(*id, said));
    AppendEntriesRequest {
        vote,
        prev_log_id: prev,
        leader_commit: commit,
        entries: entries.collect(),
    }
}

proptest! {
    #[test]
    fn log_ids_and_votes(id in maybe_log_id(), vote in vote()) {
        let mut out = Vec::new();
        put_log_id(&mut out, id.as_ref());
        put_vote(&mut out, &vote);
        let mut from = Reader::new(&out);
        prop_assert_eq!(get_log_id(&mut from), Ok(id));
        prop_assert_eq!(get_vote(&mut from), Ok(vote));
        prop_assert_eq!(from.remaining(), 0);
    }

    #[test]
    fn memberships(plain in membership(), stored in stored_membership()) {
        let mut out = Vec::new();
        put_membership(&mut out, &plain);
        put_stored_membership(&mut out, &stored);
        let mut from = Reader::new(&out);
        prop_assert_eq!(get_membership(&mut from), Ok(plain));
        prop_assert_eq!(get_stored_membership(&mut from), Ok(stored));
        prop_assert_eq!(from.remaining(), 0);
    }

    #[test]
    fn snapshot_metas(last_log_id in maybe_log_id(), last_membership in stored_membership()) {
        let meta = RaftSnapshotMeta { last_log_id, last_membership };
        let mut out = Vec::new();
        put_snapshot_meta(&mut out, &meta);
        let mut from = Reader::new(&out);
        prop_assert_eq!(get_snapshot_meta(&mut from), Ok(meta));
        prop_assert_eq!(from.remaining(), 0);
    }

    #[test]
    fn entries_as_log_records(id in log_id(), said in said()) {
        let entry = entry(id, &said);
        let (kind, head) = entry_head(&entry);
        let payload = match &said {
            Said::Command(_, bytes) => payload_of(bytes),
            Said::Blank | Said::Membership(_) => PayloadRef::None,
        };
        let back = entry_from(from_raft(&entry.log_id), kind, &head, payload).unwrap();
        prop_assert_eq!(seen(&back), seen(&entry));
    }

    #[test]
    fn append_requests(
        about in (vote(), maybe_log_id(), maybe_log_id()),
        said in vec((log_id(), said()), 0..12),
    ) {
        let request = request(about, &said);
        let mut meta = Vec::new();
        put_append(&mut meta, &request);
        let back = get_append(&meta, &joined(&said)).unwrap();
        prop_assert_eq!(back.vote, request.vote);
        prop_assert_eq!(back.prev_log_id, request.prev_log_id);
        prop_assert_eq!(back.leader_commit, request.leader_commit);
        let all = |entries: &[RaftEntry]| entries.iter().map(seen).collect::<Vec<_>>();
        prop_assert_eq!(all(&back.entries), all(&request.entries));
    }

    /// Cut anywhere, in its structured part or in its data, it is refused.
    #[test]
    fn append_requests_cut_short(
        about in (vote(), maybe_log_id(), maybe_log_id()),
        said in vec((log_id(), said()), 1..6),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut meta = Vec::new();
        put_append(&mut meta, &request(about, &said));
        let payload = joined(&said);
        prop_assert!(get_append(&meta[..cut.index(meta.len())], &payload).is_err());
        if !payload.is_empty() {
            let short = payload.slice(0..cut.index(payload.len()));
            prop_assert!(get_append(&meta, &short).is_err());
        }
    }

    #[test]
    fn append_results(
        id in maybe_log_id(),
        conflict in log_id(),
        vote in vote(),
        promised_ms in any::<u32>(),
        room in any::<u32>(),
    ) {
        let word = Word {
            promised: Duration::from_millis(promised_ms.into()),
            room,
        };
        for result in [
            Ok(id),
            Err(StreamAppendError::Conflict(conflict)),
            Err(StreamAppendError::HigherVote(vote)),
        ] {
            let mut out = Vec::new();
            put_append_result(&mut out, &result, word);
            prop_assert_eq!(get_append_result(&out), Ok((result, word)));
        }
    }

    #[test]
    fn votes_and_transfers(
        vote in vote(),
        last in maybe_log_id(),
        pre_vote in any::<bool>(),
        leadership_transfer in any::<bool>(),
        target in any::<u64>(),
        granted in any::<bool>(),
    ) {
        let last_log_id = last;
        let request = VoteRequest::<TypeConfig> { vote, last_log_id, leadership_transfer };
        let mut out = Vec::new();
        put_vote_request(&mut out, &request, pre_vote);
        prop_assert_eq!(get_vote_request(&out), Ok((request, pre_vote)));
        out.push(0);
        prop_assert!(get_vote_request(&out).is_err(), "there is more");

        let transfer = TransferLeaderRequest::<TypeConfig>::new(vote, target, last);
        out.clear();
        put_transfer(&mut out, &transfer);
        prop_assert_eq!(get_transfer(&out), Ok(transfer));

        let response = VoteResponse::<TypeConfig>::new(vote, last, granted);
        out.clear();
        put_vote_response(&mut out, &response);
        prop_assert_eq!(get_vote_response(&out), Ok(response));
    }

    /// Bytes of a stranger: an answer, of whatever kind, and no panic.
    #[test]
    fn any_bytes(bytes in vec(any::<u8>(), 0..300), data in vec(any::<u8>(), 0..64)) {
        let _ = get_append(&bytes, &Payload::from(data));
        let _ = get_append_result(&bytes);
        let _ = get_vote_request(&bytes);
        let _ = get_vote_response(&bytes);
        let _ = get_transfer(&bytes);
        let _ = get_membership(&mut Reader::new(&bytes));
        let _ = get_stored_membership(&mut Reader::new(&bytes));
        let _ = get_snapshot_meta(&mut Reader::new(&bytes));
        for kind in 0..4 {
            let _ = entry_from(LogId::default(), kind, &bytes, PayloadRef::None);
        }
    }

    /// A true message with one byte changed gets past more checks than noise does.
    #[test]
    fn damaged_append_requests(
        about in (vote(), maybe_log_id(), maybe_log_id()),
        said in vec((log_id(), said()), 1..6),
        at in any::<proptest::sample::Index>(),
        flip in 1..=255u8,
    ) {
        let mut meta = Vec::new();
        put_append(&mut meta, &request(about, &said));
        let at = at.index(meta.len());
        meta[at] ^= flip;
        let _ = get_append(&meta, &joined(&said));
    }
}

#[test]
fn more_entries_than_the_limit_are_refused_before_they_are_read() {
    let mut meta = Vec::new();
    let about = (RaftVote::new(1, 1), None, None);
    put_append(&mut meta, &request(about, &[]));
    let count = u32::try_from(APPEND_ENTRIES_MAX + 1).unwrap();
    let at = meta.len() - size_of::<u32>();
    meta[at..].copy_from_slice(&count.to_le_bytes());
    let refused = get_append(&meta, &Payload::empty()).err();
    let expected = WireError::Length {
        field: "entry count",
        value: APPEND_ENTRIES_MAX + 1,
        limit: APPEND_ENTRIES_MAX,
    };
    assert_eq!(refused, Some(expected));
}
