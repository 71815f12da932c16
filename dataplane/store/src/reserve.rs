//! Space for a write-back: all of it is reserved before anything is written.

use crate::allocated::BlockBitmap;
use crate::change::{BlockChange, WriteBack};
use crate::error::StoreError;
use crate::geometry::ExtentId;
use crate::leaf::{Place, Stored};
use crate::state::{LeafId, State};
use ogee_proto::id::{ChunkKey, CopysetId};
use ogee_proto::limit::BLOCK_SIZE;
use ogee_proto::unit::ByteLen;
use std::collections::BTreeSet;

/// An extent taken from the free ones, and where it is to be mapped.
type Fresh = (ChunkKey, Place, ExtentId);

/// A write-back with a place for each of its blocks.
pub struct Batch {
    /// Sorted, one per block.
    pub changes: Vec<WriteBack>,
    /// Where each change goes; `None` for zeros.
    pub targets: Vec<Option<ExtentId>>,
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

impl State {
    /// Reserves space for sorted `changes` and marks their blocks as being written.
    ///
    /// # Errors
    /// Before anything is changed: no space, a foreign chunk, or data of a wrong length.
    pub fn reserve(
        &mut self,
        copyset: CopysetId,
        changes: Vec<WriteBack>,
    ) -> Result<Batch, StoreError> {
        for change in &changes {
            self.chunk(copyset, change.key)?;
            check_length(change)?;
        }
        let (extents, leaves) = self.count_needs(&changes);
        self.check_space(extents, leaves)?;
        self.leaves_reserved += leaves;
        let (targets, reserved) = self.assign(copyset, &changes);
        self.mark_writing(&changes);
        Ok(Batch {
            changes,
            targets,
            reserved,
            leaves_reserved: leaves,
        })
    }

    /// Takes the outcomes of a batch into the maps, in one step.
    pub fn apply(&mut self, batch: &Batch, outcomes: &[Outcome]) {
        assert_eq!(
            batch.changes.len(),
            outcomes.len(),
            "one outcome per change"
        );
        let mut touched = BTreeSet::new();
        for ((change, target), outcome) in batch.changes.iter().zip(&batch.targets).zip(outcomes) {
            let place = Place::of(change.block);
            if let (Outcome::Written(crc), Some(extent)) = (outcome, target) {
                self.set_block(
                    change.key,
                    place,
                    Stored {
                        extent: *extent,
                        crc: *crc,
                    },
                );
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
        self.settle(batch, &touched);
    }

    /// Extents and map pages that do not exist yet.
    fn count_needs(&self, changes: &[WriteBack]) -> (u32, u32) {
        let (mut extents, mut leaves) = (0, 0);
        let mut last: Option<(ChunkKey, Place)> = None;
        for change in changes.iter().filter(|change| is_data(change)) {
            let place = Place {
                block: 0,
                ..Place::of(change.block)
            };
            let chunk = self.chunks.get(&change.key);
            let same_chunk = last
                .filter(|(key, _)| *key == change.key)
                .map(|(_, place)| place);
            if same_chunk != Some(place) && chunk.is_none_or(|it| it.extent(place).is_none()) {
                extents += 1;
            }
            let same_leaf = same_chunk.is_some_and(|it| it.part == place.part);
            if !same_leaf && chunk.is_none_or(|it| it.leaf(place.part).is_none()) {
                leaves += 1;
            }
            last = Some((change.key, place));
        }
        (extents, leaves)
    }

    /// Gives every data block its extent: the one mapped, or a fresh one next to the previous.
    fn assign(
        &mut self,
        copyset: CopysetId,
        changes: &[WriteBack],
    ) -> (Vec<Option<ExtentId>>, Vec<Fresh>) {
        let mut reserved: Vec<Fresh> = Vec::new();
        let mut previous: Option<ExtentId> = None;
        let mut targets = Vec::with_capacity(changes.len());
        for change in changes {
            if !is_data(change) {
                targets.push(None);
                continue;
            }
            let place = Place {
                block: 0,
                ..Place::of(change.block)
            };
            let mapped = self.chunk_or_new(copyset, change.key).extent(place);
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

    fn mark_writing(&mut self, changes: &[WriteBack]) {
        for of_chunk in changes.chunk_by(|a, b| a.key == b.key) {
            let mut writing = BlockBitmap::empty();
            of_chunk
                .iter()
                .filter(|it| is_data(it))
                .for_each(|it| writing.insert(it.block));
            if let Some(chunk) = self.chunks.get_mut(&of_chunk[0].key) {
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
        for of_chunk in batch.changes.chunk_by(|a, b| a.key == b.key) {
            let key = of_chunk[0].key;
            if let Some(chunk) = self.chunks.get_mut(&key) {
                chunk.set_writing(None);
            }
            self.drop_chunk_if_empty(key);
        }
    }
}

fn is_data(change: &WriteBack) -> bool {
    matches!(change.what, BlockChange::Data(_))
}

fn check_length(change: &WriteBack) -> Result<(), StoreError> {
    match &change.what {
        BlockChange::Data(data) if data.len() != BLOCK_SIZE => Err(StoreError::BlockLength {
            key: change.key,
            block: change.block,
            found: ByteLen::from_usize(data.len()),
        }),
        _ => Ok(()),
    }
}
