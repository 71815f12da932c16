use super::wire::{
    Begin, STEP_BEGIN, STEP_BLOCKS, STEP_CHUNKS, STEP_END, STEP_STATE, STEP_SYNC, STEP_ZEROS,
    get_blocks, get_end, get_keys, get_state_range, get_token, get_zeros, put_blocks, put_end,
    put_state_at, put_zeros,
};
use crate::checkpoint::CheckpointState;
use crate::checkpoint::Saved;
use crate::error::GroupError;
use crate::fixture::{COPYSET, Lone, run};
use crate::machine::snapshot_of;
use crate::session::Sessions;
use crate::types::{RaftEntry, RaftStoredMembership, RaftVote, to_raft};
use ogee_proto::checksum::crc32c;
use ogee_proto::id::{ChunkIndex, ChunkKey, LogId, ReplicaId, RequestId, Sequence, VolumeId};
use ogee_proto::limit::BLOCK_SIZE;
use ogee_proto::wire::{FrameHeader, FrameKind, Status};
use ogee_runtime::Payload;
use ogee_transport::Frame;
use openraft::EntryPayload;
use openraft::raft::AppendEntriesRequest;
use proptest::collection::vec;
use proptest::prelude::{any, prop_assert, proptest};
use std::time::Duration;

fn begin(vote: &RaftVote) -> Frame {
    begin_again(vote, 1, 0)
}

fn begin_again(vote: &RaftVote, attempt: u64, token: u64) -> Frame {
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
        extents: 0,
        token,
    };
    step(STEP_BEGIN, attempt, begin.encode(), Payload::empty())
}

fn step(step: u64, attempt: u64, meta: Vec<u8>, payload: Payload) -> Frame {
    let mut header = FrameHeader::new(FrameKind::Snapshot, RequestId::new(1));
    header.copyset = COPYSET;
    header.sequence = Sequence::new(step);
    header.stream = 77;
    header.watermark = Sequence::new(attempt);
    header.key = KEY;
    Frame::of_parts(header, meta.into(), payload)
}

const KEY: ChunkKey = ChunkKey {
    volume: VolumeId::new(3),
    chunk: ChunkIndex::new(1),
};

fn piece(first: u16, covered: u32, present: u32) -> Vec<u8> {
    let mut meta = Vec::new();
    put_blocks(&mut meta, first, covered, present);
    meta
}

/// One block of a piece.
fn block(attempt: u64, number: u16) -> Frame {
    let payload = Payload::from(vec![7; BLOCK_SIZE]);
    let meta = piece(0, 1 << number, 1 << number);
    step(STEP_BLOCKS, attempt, meta, payload)
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

fn saved(lone: &Lone) -> Saved {
    let saved = lone.group.replica().store.group(COPYSET).expect("created");
    Saved::decode(saved.applied, &saved.state).expect("intact")
}

#[test]
fn the_mark_is_durable_before_the_first_block() {
    run(async {
        let lone = Lone::open().await;
        let leader = RaftVote::new_committed(5, 2);
        assert_eq!(saved(&lone).fuzzy_until, None);
        let begun = lone.group.on_snapshot(begin(&leader)).await;
        assert_eq!(begun.header.status, Status::Ok);
        assert_eq!(saved(&lone).fuzzy_until, Some(LogId::new(6, 0)));
        assert!(lone.group.report().is_installing);
        // A source of nothing meanwhile.
        lone.group.replica().start_digest(1);
        let refused = lone.group.digest(1).await.expect_err("refused");
        assert!(
            matches!(*refused, GroupError::Installing { .. }),
            "{refused}"
        );
    });
}

/// Steps of an attempt that is over, of another copy, or of nothing are refused and write nothing.
#[test]
fn a_step_counts_only_in_its_own_attempt() {
    run(async {
        let lone = Lone::open().await;
        let (group, leader) = (&lone.group, RaftVote::new_committed(5, 2));
        let status = async |frame: Frame| group.on_snapshot(frame).await.header.status;
        assert_eq!(
            status(block(1, 0)).await,
            Status::Retry,
            "nothing has begun"
        );
        let begun = group.on_snapshot(begin(&leader)).await;
        let token = get_token(&begun.meta).expect("a token");
        assert_eq!(status(block(1, 0)).await, Status::Ok);
        let again = group.on_snapshot(begin_again(&leader, 2, token)).await;
        assert_eq!(get_token(&again.meta), Ok(token), "it goes on");
        assert_eq!(status(block(1, 1)).await, Status::Retry);
        assert_eq!(status(block(2, 2)).await, Status::Ok);
        let anew = group.on_snapshot(begin_again(&leader, 3, token ^ 1)).await;
        assert_ne!(get_token(&anew.meta), Ok(token), "it knows of another copy");
        let stale = group.on_snapshot(begin_again(&leader, 4, token)).await;
        assert_ne!(get_token(&stale.meta), Ok(token), "that one is gone");
        let stored = group.replica().store.allocated(COPYSET, KEY).expect("ours");
        let stored: Vec<usize> = stored.iter().map(|block| block.as_usize()).collect();
        assert_eq!(stored, [0, 2]);
        group.note_leader(&RaftVote::new_committed(6, 3));
        assert_eq!(
            status(block(4, 3)).await,
            Status::Retry,
            "its leader is deposed"
        );
    });
}

#[test]
fn zeros_over_nothing_cost_nothing_and_an_incomplete_copy_is_not_installed() {
    run(async {
        let lone = Lone::open().await;
        let (group, leader) = (&lone.group, RaftVote::new_committed(5, 2));
        let status = async |frame: Frame| group.on_snapshot(frame).await.header.status;
        assert_eq!(status(begin(&leader)).await, Status::Ok);
        assert_eq!(status(block(1, 4)).await, Status::Ok);
        let pages = group.replica().store.usage().map_pages_free;
        let mut zeros = step(STEP_ZEROS, 1, put_zeros(0, 4096), Payload::empty());
        zeros.header.key.chunk = ChunkIndex::new(9);
        assert_eq!(status(zeros).await, Status::Ok);
        assert_eq!(group.replica().store.usage().map_pages_free, pages);
        let zeros = step(STEP_ZEROS, 1, put_zeros(0, 4096), Payload::empty());
        assert_eq!(status(zeros).await, Status::Ok);
        assert_eq!(group.replica().store.chunks(COPYSET), []);
        let outside = step(STEP_ZEROS, 1, put_zeros(1, 4096), Payload::empty());
        assert_eq!(status(outside).await, Status::BadRequest);
        let part = step(STEP_STATE, 1, put_state_at(1), Payload::from(vec![0; 3]));
        assert_eq!(status(part).await, Status::BadRequest);
        let end = put_end(&to_raft(LogId::new(5, 200)));
        let end = step(STEP_END, 1, end, Payload::empty());
        assert_eq!(
            status(end).await,
            Status::BadRequest,
            "its state never came"
        );
        assert!(group.replica().is_fuzzy());
        assert_eq!(group.report().applied, LogId::default());
    });
}

#[test]
fn a_piece_that_contradicts_itself_is_refused() {
    let two = || Payload::from(vec![1; 2 * BLOCK_SIZE]);
    let blocks =
        |covered, present, payload| step(STEP_BLOCKS, 1, piece(64, covered, present), payload);
    let taken = get_blocks(&blocks(0b1011, 0b0011, two())).expect("fine");
    assert_eq!(taken.len(), 3);
    assert!(
        get_blocks(&blocks(0b1011, 0b0100, two())).is_err(),
        "not covered"
    );
    assert!(
        get_blocks(&blocks(0b1011, 0b1011, two())).is_err(),
        "too little"
    );
    assert!(
        get_blocks(&blocks(0b1011, 0b0001, two())).is_err(),
        "too much"
    );
    let mut outside = blocks(1, 0, Payload::empty());
    outside.meta = piece(4095, 1, 0).into();
    assert!(get_blocks(&outside).is_err());
}

#[test]
fn several_pieces_share_a_step_and_its_bound() {
    let meta = [piece(0, 0b1, 0b1), piece(4000, 0b110, 0b100)].concat();
    let payload = Payload::from([vec![1; BLOCK_SIZE], vec![2; BLOCK_SIZE]].concat());
    let taken = get_blocks(&step(STEP_BLOCKS, 1, meta, payload)).expect("fine");
    let blocks: Vec<usize> = taken.iter().map(|it| it.block.as_usize()).collect();
    assert_eq!(blocks, [0, 4001, 4002]);
    let whole = [piece(0, u32::MAX, 0), piece(32, 0, 0)].concat();
    let whole = step(STEP_BLOCKS, 1, whole, Payload::empty());
    assert_eq!(get_blocks(&whole).expect("fine").len(), 32);
    let more = [piece(0, u32::MAX, 0), piece(32, 1, 0)].concat();
    let more = step(STEP_BLOCKS, 1, more, Payload::empty());
    assert!(get_blocks(&more).is_err());
}

#[test]
fn what_has_come_is_durable_after_a_sync_under_the_mark() {
    run(async {
        let lone = Lone::open().await;
        let (group, leader) = (&lone.group, RaftVote::new_committed(5, 2));
        let status = async |frame: Frame| group.on_snapshot(frame).await.header.status;
        let sync = |attempt| step(STEP_SYNC, attempt, Vec::new(), Payload::empty());
        assert_eq!(status(sync(1)).await, Status::Retry, "nothing has begun");
        assert_eq!(status(begin(&leader)).await, Status::Ok);
        assert_eq!(status(block(1, 4)).await, Status::Ok);
        let store = &group.replica().store;
        let before = store.counters().checkpoints;
        assert_eq!(status(sync(1)).await, Status::Ok);
        assert_eq!(store.counters().checkpoints, before + 1);
        assert_eq!(saved(&lone).fuzzy_until, Some(LogId::new(6, 0)));
        assert_eq!(status(sync(2)).await, Status::Retry, "of no attempt");
    });
}

/// Entries as a leader sends them, all committed.
async fn append(lone: &Lone, leader: &RaftVote, upto: u64) {
    let entries = (0..=upto).map(|index| RaftEntry {
        log_id: to_raft(LogId::new(1, index)),
        payload: EntryPayload::Blank,
    });
    let request = AppendEntriesRequest {
        vote: *leader,
        prev_log_id: None,
        entries: entries.collect(),
        leader_commit: Some(to_raft(LogId::new(1, upto))),
    };
    let answer = lone.group.raft().append_entries(request).await;
    assert!(answer.expect("it runs").is_success());
    while lone.group.report().applied < LogId::new(1, upto) {
        ogee_runtime::sleep(Duration::from_millis(1)).await;
    }
}

/// An attempt broke off, and entries that had waited for long brought all that the next one stands for. Only its end tells what the
/// blocks of the first are up to; were it refused, the replica would be fuzzy until somebody else leads.
#[test]
fn a_copy_that_is_not_needed_any_more_settles_the_mark_of_an_earlier_attempt() {
    run(async {
        for goes_on in [true, false] {
            let lone = Lone::open().await;
            let (group, leader) = (&lone.group, RaftVote::new_committed(5, 2));
            let status = async |frame: Frame| group.on_snapshot(frame).await.header.status;
            let begun = group.on_snapshot(begin(&leader)).await;
            let token = get_token(&begun.meta).expect("a token");
            assert_eq!(status(block(1, 0)).await, Status::Ok);
            append(&lone, &leader, 150).await;
            let token = if goes_on { token } else { 0 };
            let again = group.on_snapshot(begin_again(&leader, 2, token)).await;
            assert_eq!(again.header.status, Status::Ok, "{goes_on}");
            assert_eq!(status(block(2, 2)).await, Status::Ok);
            let chunks = step(STEP_CHUNKS, 2, Vec::new(), Payload::empty());
            assert_eq!(status(chunks).await, Status::Ok);
            let store = &group.replica().store;
            let stored = store.allocated(COPYSET, KEY).expect("ours");
            let stored: Vec<usize> = stored.iter().map(|block| block.as_usize()).collect();
            assert_eq!(stored, [0], "nothing of it is taken");
            assert_eq!(saved(&lone).fuzzy_until, Some(LogId::new(6, 0)));
            let end = put_end(&to_raft(LogId::new(1, 160)));
            assert_eq!(
                status(step(STEP_END, 2, end, Payload::empty())).await,
                Status::Ok
            );
            assert_eq!(saved(&lone).fuzzy_until, Some(LogId::new(1, 160)));
            assert!(group.report().is_installing, "up to there");
            assert_eq!(
                group.report().applied,
                LogId::new(1, 150),
                "and nothing was installed"
            );
            assert!(!group.replica().is_held());
        }
    });
}

/// Without a mark of its leader, a copy of less than is here is refused as ever, and leaves none.
#[test]
fn a_copy_of_less_than_is_here_is_refused_and_leaves_no_mark() {
    run(async {
        let lone = Lone::open().await;
        let (group, leader) = (&lone.group, RaftVote::new_committed(5, 2));
        let status = async |frame: Frame| group.on_snapshot(frame).await.header.status;
        append(&lone, &leader, 99).await;
        assert_eq!(status(begin(&leader)).await, Status::Ok);
        let newer = RaftVote::new_committed(6, 3);
        group.note_leader(&newer);
        let deposed = RaftVote::new_committed(4, 2);
        assert_eq!(
            status(begin(&deposed)).await,
            Status::Retry,
            "its leader is deposed"
        );
        assert_eq!(saved(&lone).fuzzy_until, Some(LogId::new(6, 0)));
        append(&lone, &newer, 150).await;
        assert_eq!(
            status(begin(&newer)).await,
            Status::Retry,
            "it is of another leader's mark"
        );
        assert_eq!(saved(&lone).fuzzy_until, Some(LogId::new(6, 0)));
    });
}

proptest! {
    /// Whatever a peer sends: an error, or blocks of one chunk, never a panic.
    #[test]
    fn any_bytes_as_a_step(meta in vec(any::<u8>(), 0..64), blocks in 0..40usize, odd in 0..2usize) {
        let payload = Payload::from(vec![0; blocks * BLOCK_SIZE + odd]);
        let frame = step(STEP_BLOCKS, 1, meta.clone(), payload);
        if let Ok(changes) = get_blocks(&frame) {
            prop_assert!(changes.len() <= 32);
        }
        if let Ok(zeros) = get_zeros(&frame) {
            prop_assert!(zeros.count() <= 4096);
        }
        let _ = (get_keys(&frame), get_state_range(&frame, blocks * 1000), Begin::decode(&meta));
        let _ = (get_end(&meta), get_token(&meta));
    }
}
