//! Which blocks have changed since an entry: what a replica that was away lacks.
//!
//! *Place*: told by apply of every entry; asked by the sender of a copy.
//! *Owner*: one replica, leader or not, since any may lead when the one that was away comes back. A checkpoint keeps
//! a coarser copy ([`saved`]), from which the next process goes on.
//! *Invariants*: what [`Changes::since`] an entry says has *not* changed is as it was then; it may take more for
//! changed than has. Bounded by [`CHANGES_BYTES`] a group.
//! *On failure*: it knows less far back, or less finely, and a copy sends more.
//!
//! Changes are kept in generations, each of a range of entries. A new one begins with every checkpoint, since whoever
//! was away comes back with one, and when the newest has [`CHANGES_GENERATION`] blocks: so recent absences are
//! told apart finely. When there are too many, two
//! neighbours become one: those that are the smallest beside all that is newer, which is what they are sent
//! with; so generations grow the older they are. When they take too much memory, the oldest first keep pieces
//! of 32 blocks instead of blocks, and then go.

mod saved;

pub(crate) use saved::SavedChanges;

use crate::command::CommandKind;
use crate::limit::{CHANGES_BYTES, CHANGES_GENERATION, CHANGES_GENERATIONS, COPY_PIECE_BLOCKS};
use crate::snapshot::PIECES;
use crate::types::RaftEntry;
use ogee_proto::id::{ChunkKey, LogId, VolumeId};
use ogee_runtime::seeded_bug;
use openraft::EntryPayload;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What one chunk costs beside its pieces: its key, its place in the tree, its vector.
const CHUNK_BYTES: usize = 80;
/// A piece and its mask.
const PIECE_BYTES: usize = 8;

/// What has changed, as far back as it is known.
pub(crate) struct Changes {
    /// Everything that has changed after this entry is known.
    floor: Cell<u64>,
    /// The oldest first.
    generations: RefCell<VecDeque<Generation>>,
}

/// Blocks that have changed by some entries in a row.
#[derive(Default)]
struct Generation {
    /// The last of the entries.
    upto: u64,
    chunks: BTreeMap<ChunkKey, Changed>,
    removed: BTreeSet<VolumeId>,
    /// Blocks that the masks name, and volumes.
    blocks: usize,
}

/// What of a chunk.
#[derive(Clone)]
enum Changed {
    /// Masks of blocks by piece, in order.
    Blocks(Vec<(u8, u32)>),
    /// A bit a piece.
    Pieces(u128),
}

/// What has changed since some entry.
pub(crate) struct Since {
    /// Which.
    pub(crate) entry: LogId,
    chunks: BTreeMap<ChunkKey, [u32; PIECES]>,
    removed: BTreeSet<VolumeId>,
}

const _: () = assert!(PIECES == 128 && COPY_PIECE_BLOCKS == 32);
// A generation fits into the half that a turn leaves: each block may lie in a chunk of its own.
const _: () = assert!(CHANGES_GENERATION * (CHUNK_BYTES + PIECE_BYTES) < CHANGES_BYTES / 2);

impl Changes {
    /// Contents as of entry `floor`: of what changed before nothing is known.
    pub(crate) fn begin(floor: u64) -> Self {
        let changes = Self {
            floor: Cell::new(0),
            generations: RefCell::default(),
        };
        changes.begin_anew(floor);
        changes
    }

    /// The contents came by other means than apply, and are as of entry `floor`, or newer in part.
    pub(crate) fn begin_anew(&self, floor: u64) {
        self.floor.set(floor);
        let newest = Generation {
            upto: floor,
            ..Generation::default()
        };
        *self.generations.borrow_mut() = VecDeque::from([newest]);
    }

    /// An entry is about to be applied.
    pub(crate) fn note(&self, entry: &RaftEntry) {
        let mut generations = self.generations.borrow_mut();
        let newest = generations
            .back_mut()
            .expect("invariant: there is always a newest one");
        newest.upto = entry.log_id.index;
        let EntryPayload::Normal(command) = &entry.payload else {
            return;
        };
        let head = &command.head;
        match head.kind {
            CommandKind::Write
            | CommandKind::Discard
            | CommandKind::WriteZeroes
            | CommandKind::Rewrite => {
                if !head.is_in_range() {
                    return;
                }
                newest.add(head.key, head.first_block(), head.block_count());
            }
            CommandKind::RemoveVolume => {
                newest.blocks += usize::from(newest.removed.insert(head.key.volume));
            }
            CommandKind::Seal | CommandKind::Digest => return,
        }
        let is_full = newest.blocks >= CHANGES_GENERATION;
        drop(generations);
        if is_full {
            self.turn(entry.log_id.index);
        }
    }

    /// A checkpoint has been made: those of the others are of about the same entry.
    pub(crate) fn note_checkpoint(&self) {
        let newest = |it: &Generation| (it.blocks, it.upto);
        let newest = self.generations.borrow().back().map(newest);
        if let Some((1.., upto)) = newest {
            self.turn(upto);
        }
    }

    /// Begins another generation, and makes room for it.
    fn turn(&self, upto: u64) {
        let mut generations = self.generations.borrow_mut();
        generations.push_back(Generation {
            upto,
            ..Generation::default()
        });
        if generations.len() > CHANGES_GENERATIONS {
            merge_two(&mut generations);
        }
        let mut bytes: usize = generations.iter().map(Generation::bytes).sum();
        // To half: the rest is for what comes until the next turn.
        for generation in &mut *generations {
            if bytes <= CHANGES_BYTES / 2 {
                break;
            }
            let before = generation.bytes();
            generation.coarsen();
            bytes -= before - generation.bytes();
        }
        while bytes > CHANGES_BYTES / 2 && generations.len() > 1 {
            if let Some(oldest) = generations.pop_front() {
                bytes -= oldest.bytes();
                self.floor.set(oldest.upto);
            }
        }
    }

    /// What has changed since an entry; none if that is further back than is known.
    pub(crate) fn since(&self, entry: LogId) -> Option<Since> {
        let index = entry.index.get();
        if index < self.floor.get() {
            return None;
        }
        let mut since = Since {
            entry,
            chunks: BTreeMap::new(),
            removed: BTreeSet::new(),
        };
        let generations = self.generations.borrow();
        let newer = generations.iter().filter(|it| it.upto > index);
        let skipped = usize::from(seeded_bug!("changes-skip-a-generation"));
        for generation in newer.skip(skipped) {
            since.removed.extend(&generation.removed);
            for (key, changed) in &generation.chunks {
                let masks = since.chunks.entry(*key).or_insert([0; PIECES]);
                changed.put(masks);
            }
        }
        Some(since)
    }
}

impl Generation {
    /// Blocks have changed.
    fn add(&mut self, key: ChunkKey, first: usize, count: usize) {
        let new = || Changed::Blocks(Vec::new());
        let chunk = self.chunks.entry(key).or_insert_with(new);
        let end = first + count;
        for piece in first / COPY_PIECE_BLOCKS..end.div_ceil(COPY_PIECE_BLOCKS) {
            let start = piece * COPY_PIECE_BLOCKS;
            let from = first.saturating_sub(start);
            let to = (end - start).min(COPY_PIECE_BLOCKS);
            let mask = (u32::MAX >> (COPY_PIECE_BLOCKS - (to - from))) << from;
            let piece = u8::try_from(piece).expect("invariant: a chunk has 128 pieces");
            self.blocks += chunk.add(piece, mask);
        }
    }

    fn count(&mut self) {
        let named = self.chunks.values().map(Changed::blocks);
        self.blocks = named.sum::<usize>() + self.removed.len();
    }

    fn bytes(&self) -> usize {
        let chunks = self.chunks.values().map(|changed| match changed {
            Changed::Blocks(pieces) => CHUNK_BYTES + pieces.len() * PIECE_BYTES,
            Changed::Pieces(_) => CHUNK_BYTES,
        });
        chunks.sum::<usize>() + self.removed.len() * CHUNK_BYTES
    }

    /// Takes in what its newer neighbour has.
    fn absorb(&mut self, newer: Self) {
        self.upto = self.upto.max(newer.upto);
        self.removed.extend(newer.removed);
        for (key, changed) in newer.chunks {
            match self.chunks.get_mut(&key) {
                None => {
                    self.chunks.insert(key, changed);
                }
                Some(mine) => mine.absorb(&changed),
            }
        }
        self.count();
    }

    /// Pieces instead of blocks.
    fn coarsen(&mut self) {
        for changed in self.chunks.values_mut() {
            *changed = Changed::Pieces(changed.pieces());
        }
        self.count();
    }
}

impl Changed {
    /// How many blocks were not there.
    fn add(&mut self, piece: u8, mask: u32) -> usize {
        match self {
            Self::Blocks(pieces) => match pieces.binary_search_by_key(&piece, |it| it.0) {
                Ok(at) => {
                    let before = pieces[at].1;
                    pieces[at].1 |= mask;
                    (mask & !before).count_ones() as usize
                }
                Err(at) => {
                    pieces.insert(at, (piece, mask));
                    mask.count_ones() as usize
                }
            },
            Self::Pieces(bits) => {
                let bit = 1 << piece;
                let is_new = *bits & bit == 0;
                *bits |= bit;
                usize::from(is_new) * COPY_PIECE_BLOCKS
            }
        }
    }

    fn absorb(&mut self, newer: &Self) {
        match newer {
            Self::Blocks(pieces) => {
                for (piece, mask) in pieces {
                    self.add(*piece, *mask);
                }
            }
            Self::Pieces(bits) => *self = Self::Pieces(self.pieces() | bits),
        }
    }

    fn pieces(&self) -> u128 {
        match self {
            Self::Blocks(pieces) => pieces.iter().fold(0, |bits, (piece, _)| bits | 1 << piece),
            Self::Pieces(bits) => *bits,
        }
    }

    fn blocks(&self) -> usize {
        match self {
            Self::Blocks(pieces) => pieces
                .iter()
                .map(|(_, mask)| mask.count_ones() as usize)
                .sum(),
            Self::Pieces(bits) => bits.count_ones() as usize * COPY_PIECE_BLOCKS,
        }
    }

    fn put(&self, masks: &mut [u32; PIECES]) {
        match self {
            Self::Blocks(pieces) => {
                for (piece, mask) in pieces {
                    masks[usize::from(*piece)] |= mask;
                }
            }
            Self::Pieces(bits) => {
                let hit = (0..PIECES).filter(|piece| bits >> piece & 1 == 1);
                hit.for_each(|piece| masks[piece] = u32::MAX);
            }
        }
    }
}

impl Since {
    /// The blocks of a chunk that have not changed, a mask a piece.
    pub(crate) fn unchanged(&self, key: ChunkKey) -> [u32; PIECES] {
        if self.removed.contains(&key.volume) {
            return [0; PIECES];
        }
        let changed = self.chunks.get(&key);
        changed.map_or([u32::MAX; PIECES], |changed| changed.map(|mask| !mask))
    }
}

/// Makes one of two neighbours: those that are the smallest beside what is newer, and not the newest.
fn merge_two(generations: &mut VecDeque<Generation>) {
    let mut newer = 1;
    let mut least: Option<(usize, f64)> = None;
    for at in (0..generations.len().saturating_sub(2)).rev() {
        let both = generations[at].blocks + generations[at + 1].blocks;
        newer += generations[at + 2].blocks;
        let share = both as f64 / newer as f64;
        if least.is_none_or(|(_, of_least)| share < of_least) {
            least = Some((at, share));
        }
    }
    if let Some((at, _)) = least
        && let Some(second) = generations.remove(at + 1)
    {
        generations[at].absorb(second);
    }
}

#[cfg(test)]
mod tests;
