//! Extents that the log fills, and how chunks come to map them.
//!
//! *Place*: a large write goes once, to extents taken here; the log's record names them, and
//! write-back adopts them: the chunk maps them, no data moves. *Owner*: the store's shard;
//! synchronous, but for the copying of what stands in the way.
//! *Invariants*: an extent taken here is pinned before anybody can write to it, and stays so until
//! the log says that no record names it any more; an adopted extent carries checksums that were
//! worked out when its data was in memory; a pinned extent is never overwritten: a write-back to a
//! part of one moves the other blocks, with the checksums that the map has for them, to a fresh one.
//! *On failure*: no space is an answer (the log then takes the data itself); a block that is bad
//! before it is moved stays bad, and is found when it is read, as before.

use crate::block_crc::Salt;
use crate::change::{BlockChange, WriteBack};
use crate::error::StoreError;
use crate::geometry::{ExtentId, Geometry};
use crate::leaf::Place;
use crate::limit::{READS_IN_FLIGHT_MAX, REDIRECT_FREE_SHARE};
use crate::state::State;
use crate::store::{Inner, Store};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use ogee_device::DeviceError;
use ogee_proto::checksum::crc32c_append_block;
use ogee_proto::id::{ChunkKey, CopysetId};
use ogee_proto::limit::{BLOCK_SIZE, BLOCKS_PER_EXTENT, EXTENT_SIZE};
use ogee_proto::unit::{BlockIndex, ByteLen, ByteOffset};
use ogee_runtime::{Buffer, Payload, seeded_bug};
use rustc_hash::FxHashMap;
use std::rc::Rc;

/// An extent of a chunk that the log has filled.
#[derive(Clone, Debug)]
pub struct Adoption {
    /// The chunk.
    pub key: ChunkKey,
    /// The extent's first block within it.
    pub first: BlockIndex,
    /// Where the data is: what [`Store::take_extents`] gave.
    pub at: ByteOffset,
    /// Plain CRC32C of each block.
    pub crcs: [u32; BLOCKS_PER_EXTENT],
}

impl Adoption {
    /// The place of its first block.
    pub(crate) fn place(&self) -> Place {
        Place::of(self.first)
    }

    /// The checksums as the map wants them: the salt goes before the data, and a CRC of two parts
    /// follows from the CRCs of the parts.
    pub(crate) fn salted(&self, salt: Salt) -> [u32; BLOCKS_PER_EXTENT] {
        let mut salted = self.crcs;
        for (crc, block) in salted.iter_mut().zip(self.first.as_usize()..) {
            let block = BlockIndex::new(block).expect("invariant: an extent lies in its chunk");
            let block = if seeded_bug!("wrong-salt") {
                self.first
            } else {
                block
            };
            *crc = crc32c_append_block(salt.of_block(block), *crc);
        }
        salted
    }
}

/// Extents of chunks that a write-back must not overwrite, by chunk and first block, and the blocks
/// that it therefore copies, with the checksums that the map has for them.
#[derive(Default)]
pub struct Moves {
    extents: FxHashMap<(ChunkKey, BlockIndex), ExtentId>,
    carried: FxHashMap<(ChunkKey, BlockIndex), u32>,
}

impl Moves {
    /// Whether the extent around `block` moves.
    pub fn contains(&self, key: ChunkKey, block: BlockIndex) -> bool {
        !self.extents.is_empty() && self.extents.contains_key(&(key, first_of(block)))
    }

    /// The checksum of a block that is only copied.
    pub fn carried(&self, key: ChunkKey, block: BlockIndex) -> Option<u32> {
        if self.carried.is_empty() {
            return None;
        }
        self.carried.get(&(key, block)).copied()
    }
}

/// What the log's owner calls.
impl Store {
    /// As [`Self::write_back`], and lets chunks map extents that the log has filled. What they mapped
    /// before is free after the next checkpoint. No change may touch an extent that is adopted.
    ///
    /// The caller guarantees that the data of each adopted extent is durable.
    ///
    /// # Errors
    /// As for [`Self::write_back`]; [`StoreError::NotAnExtent`] for a wrong address.
    ///
    /// # Panics
    /// When an extent is adopted that is not [adoptable](Self::is_adoptable).
    pub async fn take_over(
        &self,
        copyset: CopysetId,
        changes: Vec<WriteBack>,
        adoptions: Vec<Adoption>,
    ) -> Result<(), StoreError> {
        let inner = Rc::clone(&self.inner);
        self.run(async move { inner.write_back(copyset, changes, adoptions).await })
            .await
    }

    /// Takes so many extents for the log to fill, where they begin on the device, in order. They are
    /// pinned: nobody writes there or takes them again before [`Self::unpin`]. `None` when space is so
    /// short that the log had better take the data itself.
    #[must_use]
    pub fn take_extents(&self, count: u32) -> Option<Vec<ByteOffset>> {
        let taken = self.inner.state.borrow_mut().take_extents(count)?;
        let offset = |extent: &ExtentId| self.inner.geometry.extent_offset(*extent);
        Some(taken.iter().map(offset).collect())
    }

    /// Pins an extent that a record of the log names, found when the log was opened: before anything
    /// is allocated.
    ///
    /// # Errors
    /// [`StoreError::NotAnExtent`].
    pub fn pin(&self, at: ByteOffset) -> Result<(), StoreError> {
        let extent = self.inner.extent_at(at)?;
        self.inner.state.borrow_mut().pin(extent);
        Ok(())
    }

    /// The record that named the extent is gone, durably. It may be overwritten, and is free unless a
    /// chunk maps it.
    ///
    /// # Panics
    /// When it was not pinned.
    pub fn unpin(&self, at: ByteOffset) {
        let extent = self.inner.extent_at(at);
        let extent = extent.expect("invariant: it was pinned, so it is an extent");
        self.inner.state.borrow_mut().unpin(extent);
    }

    /// Whether [`Self::take_over`] may adopt the extent as the one that begins at block `first`.
    #[must_use]
    pub fn is_adoptable(&self, key: ChunkKey, first: BlockIndex, at: ByteOffset) -> bool {
        let extent = self.inner.extent_at(at);
        let state = self.inner.state.borrow();
        extent.is_ok_and(|extent| state.is_adoptable(key, first, extent))
    }
}

impl Inner {
    /// The extent that begins at a device address.
    pub(crate) fn extent_at(&self, at: ByteOffset) -> Result<ExtentId, StoreError> {
        extent_at(&self.geometry, at).ok_or_else(|| StoreError::NotAnExtent {
            device: self.device.name().to_owned(),
            at,
        })
    }

    /// Finds the pinned extents under sorted `changes`, and adds their other blocks to the changes.
    /// The caller has the group's turn, so the maps stand still.
    pub(crate) async fn move_pinned(
        &self,
        changes: &mut Vec<WriteBack>,
    ) -> Result<Moves, DeviceError> {
        let mut moves = self.state.borrow().pinned_under(changes);
        if moves.extents.is_empty() {
            return Ok(moves);
        }
        let wanted: Vec<_> = moves
            .extents
            .iter()
            .map(|(at, extent)| (*at, *extent))
            .collect();
        let read = stream::iter(wanted)
            .map(|(at, extent)| async move {
                let bytes = self.read_extent(extent).await?;
                Ok::<_, DeviceError>((at, bytes))
            })
            .buffer_unordered(READS_IN_FLIGHT_MAX);
        let read: Vec<_> = read.try_collect().await?;
        let mut copies = Vec::new();
        for ((key, first), bytes) in read {
            let state = self.state.borrow();
            state.carry((key, first), &bytes, changes, &mut copies, &mut moves);
        }
        changes.append(&mut copies);
        changes.sort_by_key(|change| (change.key, change.block));
        let copied = (moves.carried.len() * BLOCK_SIZE) as u64;
        self.counters.update(|counts| counts.moved_bytes += copied);
        Ok(moves)
    }

    /// An extent as it is. One bad sector fails a whole request, and would keep all its neighbours from
    /// ever being written: what cannot be read alone either is zeros, which do not match its checksum. So it
    /// stays damaged, unless it is replaced now.
    async fn read_extent(&self, extent: ExtentId) -> Result<Payload, DeviceError> {
        let offset = self.geometry.extent_offset(extent);
        let whole = self.device.read(offset, ByteLen::from_usize(EXTENT_SIZE));
        let error = match whole.await {
            Ok(bytes) => return Ok(Payload::from(bytes)),
            Err(error) => error,
        };
        let (mut bytes, mut is_any) = (Buffer::zeroed(EXTENT_SIZE), false);
        for (at, out) in bytes.chunks_exact_mut(BLOCK_SIZE).enumerate() {
            let at = offset.add(ByteLen::from_usize(at * BLOCK_SIZE));
            let block = self.device.read(at, ByteLen::from_usize(BLOCK_SIZE));
            if let Ok(block) = block.await {
                out.copy_from_slice(&block);
                is_any = true;
            }
        }
        tracing::warn!(device = self.device.name(), %error, "a part of an extent that is moved is unreadable");
        match is_any {
            true => Ok(Payload::from(bytes)),
            false => Err(error),
        }
    }
}

impl State {
    /// Takes `count` extents for the log to fill, and pins them. `None` when so few would be left
    /// that overwriting in place, from the log, is the better use of them.
    pub fn take_extents(&mut self, count: u32) -> Option<Vec<ExtentId>> {
        let kept = self.extents.len() / REDIRECT_FREE_SHARE;
        if self.extents.free() < kept.saturating_add(count) {
            return None;
        }
        let mut taken = Vec::with_capacity(count as usize);
        let mut left = count;
        while left > 0 {
            let run = self.extents.take_run(left);
            let (first, found) = run.expect("invariant: the need was checked against free");
            taken.extend((first..first + found).map(ExtentId::from_index));
            left -= found;
        }
        taken.iter().for_each(|extent| self.pins.add_fresh(*extent));
        Some(taken)
    }

    /// Pins an extent that a record found at start names.
    pub fn pin(&mut self, extent: ExtentId) {
        if self.extents.take_at(extent.index()) {
            self.pins.add_fresh(extent);
        } else {
            self.pins.add(extent);
        }
    }

    /// No record names the extent any more.
    pub fn unpin(&mut self, extent: ExtentId) {
        if seeded_bug!("pins-forgotten-at-restart") && !self.pins.contains(extent) {
            return;
        }
        if self.pins.remove(extent) {
            self.extents.release(extent.index());
        }
    }

    /// Whether a chunk may map the extent: it does already, or nobody but the log holds it.
    pub fn is_adoptable(&self, key: ChunkKey, first: BlockIndex, extent: ExtentId) -> bool {
        let chunk = self.chunks.get(&key);
        let mapped = chunk.and_then(|chunk| chunk.extent(Place::of(first)));
        self.pins.is_of_one(extent, mapped == Some(extent))
    }

    fn pinned_under(&self, changes: &[WriteBack]) -> Moves {
        let mut moves = Moves::default();
        if seeded_bug!("pinned-extent-overwritten") {
            return moves;
        }
        for change in changes {
            let is_data = change.what.data().is_some();
            let chunk = self.chunks.get(&change.key).filter(|_| is_data);
            let mapped = chunk.and_then(|chunk| chunk.extent(Place::of(change.block)));
            if let Some(extent) = mapped.filter(|extent| self.pins.contains(*extent)) {
                let at = (change.key, first_of(change.block));
                moves.extents.insert(at, extent);
            }
        }
        moves
    }

    /// The present blocks of an extent that none of the sorted `changes` replaces.
    fn carry(
        &self,
        (key, first): (ChunkKey, BlockIndex),
        bytes: &Payload,
        changes: &[WriteBack],
        copies: &mut Vec<WriteBack>,
        moves: &mut Moves,
    ) {
        let Some(chunk) = self.chunks.get(&key) else {
            return;
        };
        for at in 0..BLOCKS_PER_EXTENT {
            let block = BlockIndex::new(first.as_usize() + at);
            let block = block.expect("invariant: an extent lies in its chunk");
            let place = |change: &WriteBack| (change.key, change.block);
            if let Some(stored) = chunk.stored(block)
                && changes.binary_search_by_key(&(key, block), place).is_err()
            {
                let data = bytes.slice(at * BLOCK_SIZE..(at + 1) * BLOCK_SIZE);
                let what = BlockChange::Data(data);
                copies.push(WriteBack { key, block, what });
                moves.carried.insert((key, block), stored.crc);
            }
        }
    }
}

/// The extent that begins at a device address, if one does.
fn extent_at(geometry: &Geometry, at: ByteOffset) -> Option<ExtentId> {
    let into = at.get().checked_sub(geometry.extents_start.get())?;
    let index = u32::try_from(into / EXTENT_SIZE as u64).ok()?;
    let is_one = into.is_multiple_of(EXTENT_SIZE as u64) && index < geometry.extents;
    is_one.then(|| ExtentId::from_index(index))
}

/// The first block of the extent around a block.
pub fn first_of(block: BlockIndex) -> BlockIndex {
    let first = block.as_usize() / BLOCKS_PER_EXTENT * BLOCKS_PER_EXTENT;
    BlockIndex::new(first).expect("invariant: an extent lies in its chunk")
}
