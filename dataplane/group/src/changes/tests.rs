use super::{CHUNK_BYTES, Changes, PIECES, SavedChanges};
use crate::command::{CommandHead, CommandKind};
use crate::group::command;
use crate::limit::{CHANGES_BYTES, CHANGES_GENERATION, CHANGES_GENERATIONS, CHANGES_SAVED_BYTES};
use crate::types::{RaftEntry, to_raft};
use ogee_proto::id::{
    ChunkIndex, ChunkKey, ClientId, Epoch, Incarnation, LogId, Sequence, VolumeId,
};
use ogee_proto::limit::{BLOCK_SIZE, BLOCKS_PER_CHUNK};
use ogee_proto::wire::Reader;
use ogee_runtime::Payload;
use openraft::EntryPayload;
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use std::collections::BTreeSet;

/// That make a generation, with 64 blocks of each.
const CHUNKS: u32 = 64;
const _: () = assert!(CHUNKS as usize * 64 == CHANGES_GENERATION);

fn key(volume: u64, chunk: u32) -> ChunkKey {
    ChunkKey {
        volume: VolumeId::new(volume),
        chunk: ChunkIndex::new(chunk),
    }
}

fn entry(index: u64, kind: CommandKind, key: ChunkKey, first: usize, count: usize) -> RaftEntry {
    let head = CommandHead {
        kind,
        client: ClientId::new(1),
        epoch: Epoch::new(1),
        incarnation: Incarnation::new(1),
        sequence: Sequence::new(index),
        watermark: Sequence::new(0),
        key,
        offset: u32::try_from(first * BLOCK_SIZE).expect("within a chunk"),
        length: u32::try_from(count * BLOCK_SIZE).expect("within a chunk"),
    };
    RaftEntry {
        log_id: to_raft(LogId::new(1, index)),
        payload: EntryPayload::Normal(command(head, Payload::empty(), 0)),
    }
}

fn at(index: u64) -> LogId {
    LogId::new(1, index)
}

/// Blocks of a chunk that have changed since an entry, as told.
fn told(changes: &Changes, index: u64, key: ChunkKey) -> Option<BTreeSet<usize>> {
    let unchanged = changes.since(at(index))?.unchanged(key);
    let is_changed = |block: &usize| unchanged[block / 32] >> (block % 32) & 1 == 0;
    Some((0..BLOCKS_PER_CHUNK).filter(is_changed).collect())
}

#[test]
fn what_changed_after_an_entry_is_told_to_the_block() {
    let changes = Changes::begin(10);
    assert!(changes.since(at(9)).is_none(), "nobody told it");
    changes.note(&entry(11, CommandKind::Write, key(1, 0), 30, 4));
    changes.note(&entry(
        12,
        CommandKind::Discard,
        key(1, 1),
        0,
        BLOCKS_PER_CHUNK,
    ));
    changes.note(&entry(13, CommandKind::WriteZeroes, key(1, 0), 4095, 1));
    let blocks = |from: &[usize]| Some(from.iter().copied().collect());
    assert_eq!(
        told(&changes, 10, key(1, 0)),
        blocks(&[30, 31, 32, 33, 4095])
    );
    assert_eq!(
        told(&changes, 10, key(1, 1)).map(|it| it.len()),
        Some(BLOCKS_PER_CHUNK)
    );
    assert_eq!(told(&changes, 10, key(1, 2)), blocks(&[]));
    assert_eq!(told(&changes, 13, key(1, 0)), blocks(&[]), "nothing since");
    changes.note(&entry(14, CommandKind::RemoveVolume, key(1, 0), 0, 0));
    assert_eq!(
        told(&changes, 10, key(1, 2)).map(|it| it.len()),
        Some(BLOCKS_PER_CHUNK)
    );
    assert_eq!(told(&changes, 10, key(2, 0)), blocks(&[]));
    changes.begin_anew(20);
    assert!(changes.since(at(19)).is_none(), "the contents are others");
    assert_eq!(told(&changes, 20, key(1, 0)), blocks(&[]));
}

#[test]
fn a_recent_absence_is_told_finely_whatever_came_before() {
    let changes = Changes::begin(0);
    let mut index = 0;
    // A hundred generations of writes to everything.
    for round in 0..100 {
        for chunk in 0..CHUNKS {
            index += 1;
            let first = round * 37 % 60 * 64;
            changes.note(&entry(index, CommandKind::Write, key(1, chunk), first, 64));
        }
    }
    let before = index;
    changes.note(&entry(index + 1, CommandKind::Write, key(1, 0), 7, 1));
    let changed: usize = (0..CHUNKS)
        .filter_map(|chunk| told(&changes, before, key(1, chunk)))
        .map(|blocks| blocks.len())
        .sum();
    assert!(
        0 < changed && changed <= CHANGES_GENERATION + 64,
        "{changed}"
    );
    assert!(changes.generations.borrow().len() <= CHANGES_GENERATIONS);
}

fn bytes(changes: &Changes) -> usize {
    changes
        .generations
        .borrow()
        .iter()
        .map(super::Generation::bytes)
        .sum()
}

/// Much is known finely of the last entries, less of those before, and the memory is bounded.
#[test]
fn the_older_the_coarser() {
    let changes = Changes::begin(0);
    let chunks = 40_000;
    let mut index = 0;
    for round in 0..6 {
        for chunk in 0..chunks {
            index += 1;
            let first = (chunk as usize * 7 + round * 13) % BLOCKS_PER_CHUNK;
            changes.note(&entry(index, CommandKind::Write, key(1, chunk), first, 1));
            // Just before a turn there is most.
            if index % 509 == 0
                || index % CHANGES_GENERATION as u64 == CHANGES_GENERATION as u64 - 1
            {
                assert!(bytes(&changes) <= CHANGES_BYTES + CHUNK_BYTES * 2);
            }
        }
    }
    let counted = bytes(&changes);
    assert!(counted <= CHANGES_BYTES + CHUNK_BYTES, "{counted}");
    assert!(
        changes.since(at(0)).is_none(),
        "all that is more than there is memory for"
    );
    let last = told(&changes, index - 1, key(1, chunks - 1));
    assert!(last.is_some_and(|blocks| !blocks.is_empty()));
}

fn saved_len(changes: &Changes) -> usize {
    let mut bytes = Vec::new();
    changes.save().encode(&mut bytes);
    bytes.len()
}

/// A checkpoint has room for the last changes of a group whose changes are many, and knows how far back they go.
#[test]
fn what_is_saved_is_bounded_and_goes_back_from_the_newest() {
    let changes = Changes::begin(0);
    let mut index = 0;
    for chunk in 0..5000 {
        index += 1;
        changes.note(&entry(index, CommandKind::Write, key(1, chunk), 0, 64));
        assert!(saved_len(&changes) <= CHANGES_SAVED_BYTES);
    }
    assert!(saved_len(&changes) > CHANGES_SAVED_BYTES / 2);
    let next = Changes::load(changes.save(), index);
    assert!(next.since(at(0)).is_none(), "there was no room for all");
    let known = (0..index).find(|from| next.since(at(*from)).is_some());
    let known = known.expect("the newest was saved");
    assert!(index - known > 100, "{known} of {index}");
    for chunk in 0..5000 {
        let changed = told(&next, known, key(1, chunk)).expect("known");
        // Two pieces of 32 blocks.
        let expected = if u64::from(chunk) < known { 0 } else { 64 };
        assert_eq!(changed.len(), expected, "{chunk}, known from {known}");
    }
    next.note(&entry(index + 1, CommandKind::Write, key(1, 0), 5, 1));
    assert_eq!(told(&next, index, key(1, 0)), Some(BTreeSet::from([5])));
}

/// The bytes, held still; and what cannot have been saved.
#[test]
fn what_is_saved_stands_still() {
    let changes = Changes::begin(7);
    changes.note(&entry(8, CommandKind::Write, key(0x11, 0x22), 33, 1));
    changes.note(&entry(9, CommandKind::RemoveVolume, key(0x33, 0), 0, 0));
    let mut bytes = Vec::new();
    changes.save().encode(&mut bytes);
    let golden = "0700000000000000 01 0900000000000000 01000000 1100000000000000 22000000 \
        02000000000000000000000000000000 01000000 3300000000000000";
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, golden.replace(' ', ""));
    // More generations than there are, an end before the floor, nothing in it, no piece of a chunk.
    for (at, value) in [(8, 8), (9, 6), (17, 0), (33, 0)] {
        let mut wrong = bytes.clone();
        wrong[at] = value;
        let decoded = SavedChanges::decode(&mut Reader::new(&wrong));
        assert!(decoded.is_err(), "byte {at}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Change(u32, usize, usize),
    Remove(u64),
    Merge,
    Coarsen(usize),
    Turn,
    Checkpoint,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..4u32, 0..BLOCKS_PER_CHUNK, 1..200usize).prop_map(|(chunk, first, count)| {
            Step::Change(chunk, first, count.min(BLOCKS_PER_CHUNK - first))
        }),
        1 => (1..3u64).prop_map(Step::Remove),
        1 => any::<()>().prop_map(|()| Step::Merge),
        1 => (0..4usize).prop_map(Step::Coarsen),
        3 => any::<()>().prop_map(|()| Step::Turn),
        2 => any::<()>().prop_map(|()| Step::Checkpoint),
        1 => any::<()>().prop_map(|()| Step::Crash),
    ]
}

proptest! {
    /// Whatever became of the generations, nothing that changed is told to be as it was.
    #[test]
    fn nothing_that_changed_is_missed(steps in proptest::collection::vec(step(), 1..60)) {
        let mut changes = Changes::begin(0);
        let mut saved = (changes.save(), 0);
        let mut made: Vec<(u64, ChunkKey, usize, usize)> = Vec::new();
        let mut index = 0;
        for step in steps {
            match step {
                Step::Change(chunk, first, count) => {
                    index += 1;
                    changes.note(&entry(index, CommandKind::Write, key(1, chunk), first, count));
                    made.push((index, key(1, chunk), first, count));
                }
                Step::Remove(volume) => {
                    index += 1;
                    changes.note(&entry(index, CommandKind::RemoveVolume, key(volume, 0), 0, 0));
                    made.push((index, key(volume, 0), 0, BLOCKS_PER_CHUNK));
                }
                Step::Merge => super::merge_two(&mut changes.generations.borrow_mut()),
                Step::Coarsen(at) => {
                    if let Some(it) = changes.generations.borrow_mut().get_mut(at) {
                        it.coarsen();
                    }
                }
                Step::Turn => changes.turn(index),
                Step::Checkpoint => saved = (changes.save(), index),
                Step::Crash => {
                    let mut bytes = Vec::new();
                    saved.0.encode(&mut bytes);
                    let mut from = Reader::new(&bytes);
                    let loaded = SavedChanges::decode(&mut from).expect("what was saved");
                    prop_assert_eq!((&loaded, from.remaining()), (&saved.0, 0));
                    changes = Changes::load(loaded, saved.1);
                    for (at, key, first, count) in made.iter().filter(|it| it.0 > saved.1) {
                        let kind = match *count {
                            BLOCKS_PER_CHUNK => CommandKind::RemoveVolume,
                            _ => CommandKind::Write,
                        };
                        let count = if kind == CommandKind::Write { *count } else { 0 };
                        changes.note(&entry(*at, kind, *key, *first, count));
                    }
                }
            }
        }
        for from in 0..=index {
            let since = changes.since(at(from));
            prop_assert!(since.is_some(), "little enough to be known from the start");
            let since = since.expect("just seen");
            for (_, key, first, count) in made.iter().filter(|it| it.0 > from) {
                let unchanged = since.unchanged(*key);
                for block in *first..first + count {
                    prop_assert_eq!(unchanged[block / 32] >> (block % 32) & 1, 0);
                }
            }
        }
        let of_newest = changes.since(at(index)).expect("known");
        prop_assert_eq!(of_newest.unchanged(key(9, 9)), [u32::MAX; PIECES]);
    }
}
