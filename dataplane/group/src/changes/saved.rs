//! What a checkpoint keeps of the changes: so that a replica that was away while its leader was started again gets what it
//! lacks, and not everything.
//!
//! Layout, little endian:
//!
//! | size | field | meaning |
//! |---|---|---|
//! | 8 | floor | all that has changed after this entry is here |
//! | 1 | generations | at most [`SAVED_GENERATIONS_MAX`], the oldest first; of each what follows |
//! | 8 | upto | its last entry; none is less than the floor, or than that of the one before |
//! | 4 | chunks | then each, in order: volume (8), chunk (4), a bit for each piece of 128 KiB (16) |
//! | 4 | removed | then each volume (8), in order |
//!
//! Blocks are not told apart, and generations are joined, the more of them the older they are: a checkpoint is written
//! again and again, and most of what it says here is the same.

use super::{Changes, Generation};
use crate::changes::Changed;
use crate::codec::{get_chunk_key, put_chunk_key, unknown};
use crate::limit::{CHANGES_GENERATIONS, CHANGES_SAVED_BYTES};
use ogee_proto::id::{ChunkKey, VolumeId};
use ogee_proto::wire::{Reader, WireError, Writer};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How many of the generations in memory, from the newest on, become one.
const JOINED: [usize; 7] = [1, 1, 2, 4, 8, 16, 16];
const SAVED_GENERATIONS_MAX: usize = JOINED.len();
const HEAD_LEN: usize = 9;
const GENERATION_LEN: usize = 16;
const CHUNK_LEN: usize = 28;
const REMOVED_LEN: usize = 8;

const _: () = assert!(1 + 1 + 2 + 4 + 8 + 16 + 16 == CHANGES_GENERATIONS);
const _: () = assert!(HEAD_LEN + SAVED_GENERATIONS_MAX * GENERATION_LEN < CHANGES_SAVED_BYTES / 2);

/// What a checkpoint keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SavedChanges {
    floor: u64,
    /// The oldest first.
    generations: Vec<SavedGeneration>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct SavedGeneration {
    upto: u64,
    chunks: BTreeMap<ChunkKey, u128>,
    removed: BTreeSet<VolumeId>,
}

impl Changes {
    /// What is known, as far back as there is room for it.
    pub(crate) fn save(&self) -> SavedChanges {
        let generations = self.generations.borrow();
        let mut newest_first = generations.iter().rev();
        let mut saved = SavedChanges {
            floor: self.floor.get(),
            generations: Vec::new(),
        };
        let mut room = CHANGES_SAVED_BYTES - HEAD_LEN;
        'all: for count in JOINED {
            let mut joined = SavedGeneration::default();
            for generation in newest_first.by_ref().take(count) {
                let needed = joined.growth(generation);
                if needed > 0 && needed + GENERATION_LEN > room {
                    saved.floor = generation.upto;
                    saved.add(joined);
                    break 'all;
                }
                room -= needed;
                joined.take_in(generation);
            }
            // Nothing was needed for one that is empty.
            room -= GENERATION_LEN * usize::from(!joined.is_empty());
            saved.add(joined);
        }
        saved.generations.reverse();
        saved
    }

    /// What was saved, of a replica that has applied entry `applied`.
    pub(crate) fn load(saved: SavedChanges, applied: u64) -> Self {
        let mut generations: VecDeque<Generation> = saved
            .generations
            .into_iter()
            .map(Generation::from)
            .collect();
        let last = generations.back().map_or(saved.floor, |it| it.upto);
        // What is applied again is counted again, in one of its own.
        generations.push_back(Generation {
            upto: last.max(applied),
            ..Generation::default()
        });
        Self {
            floor: Cell::new(saved.floor),
            generations: RefCell::new(generations),
        }
    }
}

impl SavedChanges {
    fn add(&mut self, generation: SavedGeneration) {
        if !generation.is_empty() {
            self.generations.push(generation);
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let count = |of: usize| u32::try_from(of).expect("invariant: it is bounded");
        let generations = u8::try_from(self.generations.len()).expect("invariant: there are few");
        Writer::new(out).u64(self.floor).u8(generations);
        for generation in &self.generations {
            Writer::new(out)
                .u64(generation.upto)
                .u32(count(generation.chunks.len()));
            for (key, bits) in &generation.chunks {
                put_chunk_key(out, *key);
                Writer::new(out).bytes(&bits.to_le_bytes());
            }
            Writer::new(out).u32(count(generation.removed.len()));
            for volume in &generation.removed {
                Writer::new(out).u64(volume.get());
            }
        }
    }

    /// # Errors
    /// [`WireError`] naming what cannot have been saved.
    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, WireError> {
        let floor = from.u64("changes floor")?;
        let count = from.u8("changes generations")?;
        if usize::from(count) > SAVED_GENERATIONS_MAX {
            return Err(unknown("changes generations", count.into()));
        }
        let mut saved = Self {
            floor,
            generations: Vec::new(),
        };
        let mut before = floor;
        for _ in 0..count {
            let generation = SavedGeneration::decode(from)?;
            if generation.upto < before || generation.is_empty() {
                return Err(unknown("changes generation", generation.upto));
            }
            before = generation.upto;
            saved.generations.push(generation);
        }
        Ok(saved)
    }
}

impl SavedGeneration {
    fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.removed.is_empty()
    }

    /// Bytes that it would take more with what `newer` or older one has.
    fn growth(&self, other: &Generation) -> usize {
        let is_new = |key: &&ChunkKey| !self.chunks.contains_key(key);
        let is_newly_removed = |volume: &&VolumeId| !self.removed.contains(volume);
        other.chunks.keys().filter(is_new).count() * CHUNK_LEN
            + other.removed.iter().filter(is_newly_removed).count() * REMOVED_LEN
    }

    fn take_in(&mut self, other: &Generation) {
        self.upto = self.upto.max(other.upto);
        self.removed.extend(&other.removed);
        for (key, changed) in &other.chunks {
            *self.chunks.entry(*key).or_default() |= changed.pieces();
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut generation = Self {
            upto: from.u64("changes upto")?,
            ..Self::default()
        };
        for _ in 0..from.u32("changes chunks")? {
            let key = get_chunk_key(from, ["changed volume", "changed chunk"])?;
            let mut bits = [0; 16];
            bits.copy_from_slice(from.bytes("changed pieces", 16)?);
            let is_next = generation
                .chunks
                .last_key_value()
                .is_none_or(|(last, _)| *last < key);
            let bits = u128::from_le_bytes(bits);
            if !is_next || bits == 0 {
                return Err(unknown("changed chunk", key.chunk.get().into()));
            }
            generation.chunks.insert(key, bits);
        }
        for _ in 0..from.u32("changes removed")? {
            let volume = VolumeId::new(from.u64("removed volume")?);
            if generation
                .removed
                .last()
                .is_some_and(|last| *last >= volume)
            {
                return Err(unknown("removed volume", volume.get()));
            }
            generation.removed.insert(volume);
        }
        Ok(generation)
    }
}

impl From<SavedGeneration> for Generation {
    fn from(saved: SavedGeneration) -> Self {
        let SavedGeneration {
            upto,
            chunks,
            removed,
        } = saved;
        let chunks = chunks.into_iter();
        let mut generation = Self {
            upto,
            chunks: chunks
                .map(|(key, bits)| (key, Changed::Pieces(bits)))
                .collect(),
            removed,
            blocks: 0,
        };
        generation.count();
        generation
    }
}
