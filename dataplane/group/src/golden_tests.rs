//! The bytes of what this crate puts into frames, records and checkpoints, held still by
//! `tests/golden/group.txt`: a difference is a change of format, to be made on purpose, with a new
//! version.

use crate::beat::{Beat, Standing, put_beats, put_refused};
use crate::checkpoint::CheckpointState;
use crate::codec::{
    Word, put_append, put_append_result, put_transfer, put_vote_request, put_vote_response,
};
use crate::command::{Command, CommandHead, CommandKind, PayloadRef};
use crate::entries;
use crate::session::Sessions;
use crate::types::{
    RaftEntry, RaftMembership, RaftStoredMembership, RaftVote, ReplicaNode, to_raft,
};
use ogee_proto::id::{
    ChunkIndex, ChunkKey, ClientId, CopysetId, Epoch, Incarnation, LogId, LogIndex, ReplicaId,
    Sequence, VolumeId,
};
use ogee_runtime::Payload;
use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

fn head(kind: CommandKind, sequence: u64) -> CommandHead {
    CommandHead {
        kind,
        key: ChunkKey {
            volume: VolumeId::new(0x11),
            chunk: ChunkIndex::new(0x22),
        },
        offset: 0x3000,
        length: 0x1000,
        client: ClientId::new(0x44),
        epoch: Epoch::new(0x55),
        incarnation: Incarnation::new(0x66),
        sequence: Sequence::new(sequence),
        watermark: Sequence::new(0),
    }
}

fn membership() -> RaftMembership {
    let node = |chunkserver| ReplicaNode {
        chunkserver,
        endpoint: format!("10.0.0.{chunkserver}:7000").into(),
    };
    let nodes: BTreeMap<u64, ReplicaNode> =
        [(0xa1, node(1)), (0xa2, node(2)), (0xa3, node(3))].into();
    let voters = [0xa1, 0xa2];
    RaftMembership::new(vec![BTreeSet::from(voters)], nodes).unwrap()
}

fn sessions() -> Sessions {
    let mut sessions = Sessions::default();
    sessions.seal(&head(CommandKind::Seal, 0));
    sessions.admit(&head(CommandKind::Write, 2));
    sessions.admit(&head(CommandKind::Write, 1));
    sessions.remove(VolumeId::new(0x12), 9);
    sessions
}

fn entries() -> Vec<RaftEntry> {
    let write = Command {
        head: head(CommandKind::Write, 3),
        payload: PayloadRef::Memory {
            bytes: Payload::from(vec![7; 0x1000]),
            crc: 0x0102_0304,
        },
    };
    let payloads = [
        EntryPayload::Blank,
        EntryPayload::Normal(write),
        EntryPayload::Membership(membership()),
    ];
    let ids = (7..).map(|index| to_raft(LogId::new(4, index)));
    let entries = ids.zip(payloads);
    entries
        .map(|(log_id, payload)| RaftEntry { log_id, payload })
        .collect()
}

fn encoded(put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out);
    out
}

fn checkpoint() -> CheckpointState {
    CheckpointState {
        applied: LogId::new(4, 6),
        membership: RaftStoredMembership::new(Some(to_raft(LogId::new(4, 6))), membership()),
        sessions: sessions(),
    }
}

fn all() -> Vec<(&'static str, Vec<u8>)> {
    let (vote, id) = (RaftVote::new_committed(4, 0xa1), to_raft(LogId::new(4, 6)));
    let append = AppendEntriesRequest {
        vote,
        prev_log_id: Some(id),
        entries: entries(),
        leader_commit: None,
    };
    let candidate = VoteRequest {
        vote: RaftVote::new(5, 0xa2),
        last_log_id: Some(id),
        leadership_transfer: true,
    };
    let replica = ReplicaId::new(0xa1);
    let word = Word {
        promised: Duration::from_secs(1),
        room: 0x0102,
    };
    let beat = Beat {
        copyset: CopysetId::new(0x77),
        to: replica,
        standing: Standing {
            leader: 0xa2,
            term: 4,
            index: 6,
        },
    };
    let conflict = Err(StreamAppendError::Conflict(id));
    let higher = Err(StreamAppendError::HigherVote(vote));
    vec![
        (
            "command head",
            encoded(|out| head(CommandKind::Write, 3).encode(out)),
        ),
        ("checkpoint", checkpoint().encode(replica, None)),
        ("append", encoded(|out| put_append(out, &append))),
        (
            "append matched",
            encoded(|out| put_append_result(out, &Ok(Some(id)), word)),
        ),
        (
            "append conflict",
            encoded(|out| put_append_result(out, &conflict, word)),
        ),
        (
            "append higher vote",
            encoded(|out| put_append_result(out, &higher, word)),
        ),
        (
            "vote request",
            encoded(|out| put_vote_request(out, &candidate, true)),
        ),
        (
            "vote response",
            encoded(|out| put_vote_response(out, &VoteResponse::new(vote, Some(id), true))),
        ),
        (
            "transfer",
            encoded(|out| put_transfer(out, &TransferLeaderRequest::new(vote, 0xa2, Some(id)))),
        ),
        ("beats", encoded(|out| put_beats(out, &[beat]))),
        (
            "beats refused",
            encoded(|out| put_refused(out, &[beat.copyset])),
        ),
        (
            "entries request",
            encoded(|out| entries::put_request(out, &(LogIndex::new(3)..LogIndex::new(9)))),
        ),
    ]
}

#[test]
fn todays_bytes_are_the_golden_ones() {
    let mut text = String::new();
    for (name, bytes) in all() {
        writeln!(text, "{name}").unwrap();
        for row in bytes.chunks(32) {
            let row: String = row.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(text, "  {row}").unwrap();
        }
    }
    let golden = include_str!("../tests/golden/group.txt");
    assert!(text == golden, "the formats have changed:\n{text}");
}
