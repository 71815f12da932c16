use super::wire::{Begin, STEP_BEGIN};
use crate::checkpoint::CheckpointState;
use crate::fixture::{COPYSET, Lone, run};
use crate::machine::snapshot_of;
use crate::session::Sessions;
use crate::types::{RaftStoredMembership, RaftVote};
use ogee_proto::checksum::crc32c;
use ogee_proto::id::{LogId, ReplicaId, RequestId, Sequence};
use ogee_proto::wire::{FrameHeader, FrameKind, Status};
use ogee_transport::Frame;

fn begin(vote: &RaftVote) -> Frame {
    let state = CheckpointState {
        applied: LogId::new(1, 100),
        membership: RaftStoredMembership::default(),
        sessions: Sessions::default(),
    };
    let bytes = state.encode(ReplicaId::new(2), None);
    let begin = Begin {
        vote: *vote,
        meta: snapshot_of(state, None).meta,
        state_len: bytes.len(),
        state_crc: crc32c(&bytes),
        chunks: 0,
        token: 0,
    };
    let mut header = FrameHeader::new(FrameKind::Snapshot, RequestId::new(1));
    header.copyset = COPYSET;
    header.sequence = Sequence::new(STEP_BEGIN);
    let mut frame = Frame::new(header);
    frame.meta = begin.encode().into();
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
        assert!(replica.is_fuzzy(), "from before the first block");
        lone.group.note_leader(&leader);
        lone.group.note_leader(&RaftVote::new_committed(4, 3));
        assert!(replica.is_held(), "its leader still leads");
        lone.group.note_leader(&RaftVote::new_committed(6, 3));
        assert!(!replica.is_held());
        assert!(replica.is_fuzzy(), "what came is still there");
    });
}
