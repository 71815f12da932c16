//! Space for a write-back: all of it is reserved before anything is written.

use crate::allocated::BlockBitmap;
use crate::block_crc::Salt;
use crate::change::WriteBack;
use crate::error::StoreError;
use crate::geometry::ExtentId;
use crate::leaf::{Place, Stored};
use crate::redirect::{Adoption, Moves, first_of};
use crate::state::{LeafId, State};
use ogee_proto::id::{ChunkKey, CopysetId};
use ogee_proto::limit::BLOCK_SIZE;
use ogee_proto::unit::{BlockIndex, ByteLen};
use std::collections::{BTreeMap, BTreeSet};

/// An extent taken from the free ones, and where it is to be mapped.
type Fresh = (ChunkKey, Place, ExtentId);

/// A write-back with a place for each of its blocks.
pub struct Batch {
    /// Sorted, one per block.
    pub changes: Vec<WriteBack>,
    /// Where each change goes; `None` for zeros.
    pub targets: Vec<Option<ExtentId>>,
    /// Extents that change over as a whole.
    pub adoptions: Vec<(Adoption, ExtentId)>,
    /// Extents that are replaced instead of overwritten.
    pub moves: Moves,
    /// Extents taken for this batch.
    reserved: Vec<Fresh>,
    /// Map pages that this batch may create.
    leaves_reserved: u32,
}

/// What became of one change: the checksum written, zeroed, or failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The data is on the device.
    Written(u32),
    /// Nothing had to be written.
    Zeroed,
    /// The device refused; the map stays as it was.
    Failed,
}

/// What a write-back asks for.
pub struct Request {
    /// Sorted, one per block.
    pub changes: Vec<WriteBack>,
    /// Extents that change over as a whole: none that a change touches.
    pub adoptions: Vec<(Adoption, ExtentId)>,
    /// Extents under the changes that must not be overwritten.
    pub moves: Moves,
}

impl Batch {
    /// The chunks that it changes.
    fn keys(&self) -> BTreeSet<ChunkKey> {
        let changed = self.changes.iter().map(|change| change.key);
        let adopting = self.adoptions.iter().map(|(adoption, _)| adoption.key);
        changed.chain(adopting).collect()
    }
}

impl State {
    /// Reserves space for a write-back and marks its blocks as being written.
    ///
    /// # Errors
    /// Before anything is changed: no space, a foreign chunk, or data of a wrong length.
    ///
    /// # Panics
    /// When an extent is to be adopted that is somebody else's.
    pub fn reserve(&mut self, copyset: CopysetId, request: Request) -> Result<Batch, StoreError> {
        for change in &request.changes {
            self.chunk(copyset, change.key)?;
            check_length(change)?;
        }
        for (adoption, extent) in &request.adoptions {
            self.chunk(copyset, adoption.key)?;
            assert!(
                self.is_adoptable(adoption.key, adoption.first, *extent),
                "extent {} is not the log's to give",
                extent.raw()
            );
        }
        let (extents, leaves) = self.count_needs(&request);
        self.check_space(extents, leaves)?;
        self.leaves_reserved += leaves;
        let (targets, reserved) = self.assign(copyset, &request);
        let Request {
            changes,
            adoptions,
            moves,
        } = request;
        let batch = Batch {
            changes,
            targets,
            adoptions,
            moves,
            reserved,
            leaves_reserved: leaves,
        };
        self.mark_writing(copyset, &batch);
        Ok(batch)
    }

    /// Takes the outcomes of a batch into the maps, in one step.
    pub fn apply(&mut self, batch: &Batch, outcomes: &[Outcome]) {
        assert_eq!(
            batch.changes.len(),
            outcomes.len(),
            "one outcome per change"
        );
        let mut touched = BTreeSet::new();
        let stuck = self.replace_moved(batch, outcomes);
        for ((change, target), outcome) in batch.changes.iter().zip(&batch.targets).zip(outcomes) {
            let place = Place::of(change.block);
            if let (Outcome::Written(crc), Some(extent)) = (outcome, target)
                && !stuck.contains(extent)
            {
                let (extent, crc) = (*extent, *crc);
                self.set_block(change.key, place, Stored { extent, crc });
            }
            touched.insert(LeafId {
                key: change.key,
                part: place.part,
            });
        }
        // Zeros come second: the last block to go frees its extent, and a block written above may
        // have just joined it there.
        for (change, _) in batch
            .changes
            .iter()
            .zip(outcomes)
            .filter(|it| *it.1 == Outcome::Zeroed)
        {
            self.clear_block(change.key, Place::of(change.block));
        }
        for (adoption, extent) in &batch.adoptions {
            self.adopt(adoption, *extent);
        }
        self.settle(batch, &touched);
    }

    /// Puts fresh extents in the place of those that move. One of which a block could not be
    /// written stays as it is; its replacement is returned.
    fn replace_moved(&mut self, batch: &Batch, outcomes: &[Outcome]) -> BTreeSet<ExtentId> {
        let mut stuck = BTreeSet::new();
        let mut moved: BTreeMap<(ChunkKey, BlockIndex), ExtentId> = BTreeMap::new();
        for ((change, target), outcome) in batch.changes.iter().zip(&batch.targets).zip(outcomes) {
            let Some(extent) = target.filter(|_| batch.moves.contains(change.key, change.block))
            else {
                continue;
            };
            moved.insert((change.key, first_of(change.block)), extent);
            if *outcome == Outcome::Failed {
                stuck.insert(extent);
            }
        }
        moved.retain(|_, extent| !stuck.contains(extent));
        for ((key, first), extent) in moved {
            self.replace_extent(key, Place::of(first), extent);
        }
        stuck
    }

    /// Maps `extent` at a place; what was mapped there is free after the next checkpoint.
    fn replace_extent(&mut self, key: ChunkKey, place: Place, extent: ExtentId) {
        let chunk = self
            .chunks
            .get_mut(&key)
            .expect("invariant: reserved with its chunk");
        let (leaf, is_new) = chunk.leaf_mut(place.part);
        let before = leaf.replace(place, extent);
        self.leaves += u32::from(is_new);
        self.freed.extend(before);
    }

    fn adopt(&mut self, adoption: &Adoption, extent: ExtentId) {
        let (key, first) = (adoption.key, adoption.place());
        self.replace_extent(key, first, extent);
        self.pins.map(extent);
        let generation = self.chunks[&key].generation;
        let crcs = adoption.salted(Salt::new(self.store, key, generation));
        for (block, crc) in crcs.into_iter().enumerate() {
            let place = Place { block, ..first };
            self.set_block(key, place, Stored { extent, crc });
        }
    }

    /// Extents and map pages that do not exist yet.
    fn count_needs(&self, request: &Request) -> (u32, u32) {
        let mut extents = 0;
        let mut leaves = BTreeSet::new();
        let mut last: Option<(ChunkKey, BlockIndex)> = None;
        for change in request.changes.iter().filter(|change| is_data(change)) {
            let at = (change.key, first_of(change.block));
            if last.replace(at) == Some(at) {
                continue;
            }
            let place = Place::of(change.block);
            let chunk = self.chunks.get(&change.key);
            let mapped = chunk.and_then(|chunk| chunk.extent(place));
            let is_fresh = mapped.is_none() || request.moves.contains(change.key, change.block);
            extents += u32::from(is_fresh);
            leaves.insert((change.key, place.part));
        }
        let adopting = request.adoptions.iter();
        leaves.extend(adopting.map(|(adoption, _)| (adoption.key, adoption.place().part)));
        leaves.retain(|(key, part)| {
            let chunk = self.chunks.get(key);
            chunk.is_none_or(|chunk| chunk.leaf(*part).is_none())
        });
        let leaves = u32::try_from(leaves.len()).expect("invariant: fewer leaves than extents");
        (extents, leaves)
    }

    /// Gives every data block its extent: the one mapped, or a fresh one next to the previous.
    fn assign(
        &mut self,
        copyset: CopysetId,
        request: &Request,
    ) -> (Vec<Option<ExtentId>>, Vec<Fresh>) {
        let mut reserved: Vec<Fresh> = Vec::new();
        let mut previous: Option<ExtentId> = None;
        let mut targets = Vec::with_capacity(request.changes.len());
        for change in &request.changes {
            if !is_data(change) {
                targets.push(None);
                continue;
            }
            let place = Place::of(first_of(change.block));
            let mapped = self.chunk_or_new(copyset, change.key).extent(place);
            let mapped = mapped.filter(|_| !request.moves.contains(change.key, change.block));
            let fresh = reserved
                .last()
                .filter(|it| (it.0, it.1) == (change.key, place));
            let extent = mapped.or(fresh.map(|it| it.2)).unwrap_or_else(|| {
                let extent = self.take_extent(previous);
                reserved.push((change.key, place, extent));
                extent
            });
            previous = Some(extent);
            targets.push(Some(extent));
        }
        (targets, reserved)
    }

    /// Prefers the extent behind `previous`, so that neighbours merge into one device request.
    fn take_extent(&mut self, previous: Option<ExtentId>) -> ExtentId {
        let next = previous.map(|extent| extent.index() + 1);
        let index = match next.filter(|&next| self.extents.take_at(next)) {
            Some(next) => next,
            None => self
                .extents
                .take()
                .expect("invariant: the need was checked against free"),
        };
        ExtentId::from_index(index)
    }

    fn mark_writing(&mut self, copyset: CopysetId, batch: &Batch) {
        for (adoption, _) in &batch.adoptions {
            self.chunk_or_new(copyset, adoption.key);
        }
        for key in batch.keys() {
            let from = batch.changes.partition_point(|change| change.key < key);
            let of_chunk = batch.changes[from..].iter();
            let mut writing = BlockBitmap::empty();
            of_chunk
                .take_while(|change| change.key == key)
                .filter(|it| is_data(it))
                .for_each(|it| writing.insert(it.block));
            if let Some(chunk) = self.chunks.get_mut(&key) {
                chunk.set_writing(Some(writing));
            }
        }
    }

    fn set_block(&mut self, key: ChunkKey, place: Place, stored: Stored) {
        let chunk = self
            .chunks
            .get_mut(&key)
            .expect("invariant: reserved with its chunk");
        let (leaf, is_new) = chunk.leaf_mut(place.part);
        leaf.set(place, stored);
        self.leaves += u32::from(is_new);
        self.dirty.insert(LeafId {
            key,
            part: place.part,
        });
    }

    fn clear_block(&mut self, key: ChunkKey, place: Place) {
        let Some(chunk) = self.chunks.get_mut(&key) else {
            return;
        };
        let is_present = chunk
            .leaf(place.part)
            .is_some_and(|leaf| leaf.stored(place).is_some());
        if is_present {
            let freed = chunk.leaf_mut(place.part).0.clear(place);
            self.freed.extend(freed);
            self.dirty.insert(LeafId {
                key,
                part: place.part,
            });
        }
    }

    /// Drops what became empty, and gives back what was reserved and not used.
    fn settle(&mut self, batch: &Batch, touched: &BTreeSet<LeafId>) {
        self.leaves_reserved -= batch.leaves_reserved;
        for (key, place, extent) in &batch.reserved {
            let mapped = self.chunks.get(key).and_then(|chunk| chunk.extent(*place));
            if mapped != Some(*extent) {
                // No checkpoint has ever named it, so it may be used again at once.
                self.extents.release(extent.index());
            }
        }
        for leaf in touched {
            if let Some(chunk) = self.chunks.get_mut(&leaf.key) {
                self.leaves -= u32::from(chunk.drop_if_empty(leaf.part));
            }
        }
        for key in batch.keys() {
            if let Some(chunk) = self.chunks.get_mut(&key) {
                chunk.set_writing(None);
            }
            self.drop_chunk_if_empty(key);
        }
    }
}

fn is_data(change: &WriteBack) -> bool {
    change.what.data().is_some()
}

fn check_length(change: &WriteBack) -> Result<(), StoreError> {
    match change.what.data() {
        Some(data) if data.len() != BLOCK_SIZE => Err(StoreError::BlockLength {
            key: change.key,
            block: change.block,
            found: ByteLen::from_usize(data.len()),
        }),
        _ => Ok(()),
    }
}
