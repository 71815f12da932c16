//! The handle that groups use.

use crate::allocated::BlockBitmap;
use crate::budget::{Budget, Purpose};
use crate::change::WriteBack;
use crate::checkpoint::Image;
use crate::counters::{Counters, StoreCounters};
use crate::create::{self, StoreParams};
use crate::error::StoreError;
use crate::format::Retired;
use crate::geometry::Geometry;
use crate::group_state::GroupCheckpoint;
use crate::leaf::Place;
use crate::leisure::Leisure;
use crate::limit::WRITES_IN_FLIGHT_MAX;
use crate::read::BlockRead;
use crate::recovery::{self, OpenStats, StoreInfo};
use crate::state::State;
use ogee_device::Device;
use ogee_proto::id::{ChunkKey, CopysetId, StoreId, VolumeId};
use ogee_proto::limit::{BLOCK_SIZE, BLOCKS_PER_EXTENT, EXTENT_SIZE};
use ogee_proto::unit::{BlockIndex, ByteLen, ByteOffset};
use ogee_runtime::channel::{Mutex, Notify, Semaphore};
use ogee_runtime::{Payload, spawn};
use rustc_hash::FxHashMap;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::rc::Rc;
use uuid::Uuid;

/// Space of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreUsage {
    /// Bytes for data, free or not.
    pub capacity: ByteLen,
    /// Bytes in extents that can be allocated now.
    pub free: ByteLen,
    /// Bytes that become free with the next checkpoint, unless the log names them.
    pub pending: ByteLen,
    /// Bytes that only the log holds, or that are never used again.
    pub pinned: ByteLen,
    /// Map pages that can be created now.
    pub map_pages_free: u32,
}

/// What a block needs that its store has not allocated: numbers of parts of its chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lacks {
    /// The extent.
    pub extent: Option<u16>,
    /// The page of the chunk's map.
    pub map_page: Option<u8>,
}

/// An open store. Cloning gives another handle to the same one.
///
/// *Atomicity*: [`Self::checkpoint`] is all or nothing. The map changes of one
/// [`Self::write_back`] are in a checkpoint all or not at all. *Durability*: only a checkpoint
/// makes anything durable. *Cancellation*: a write-back or checkpoint whose future is dropped runs
/// to its end all the same, since its device requests could not be called back.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Rc<Inner>,
}

/// What all handles share.
pub struct Inner {
    pub(crate) device: Device,
    pub(crate) store: StoreId,
    pub(crate) cluster: Uuid,
    pub(crate) geometry: Geometry,
    pub(crate) state: RefCell<State>,
    /// Held by the one checkpoint that runs, and while a group is removed.
    pub(crate) image: Mutex<Image>,
    /// One write-back at a time per group.
    turns: RefCell<FxHashMap<CopysetId, Rc<Mutex<()>>>>,
    /// Device writes for write-back that may be in flight.
    pub(crate) writes: Semaphore,
    /// Signalled when a write-back has ended.
    pub(crate) settled: Notify,
    pub(crate) failed: Cell<bool>,
    leisure: Leisure,
    budget: Budget,
    /// Held while the list of retired extents is written.
    pub(crate) retiring: Mutex<()>,
    pub(crate) counters: Counters,
    /// Extents that are never used again: pinned in `state`, for good.
    pub(crate) retired: RefCell<Retired>,
    stats: OpenStats,
}

impl Store {
    /// Makes an empty store on a device. The log region is left for the log to format.
    ///
    /// # Errors
    /// Before anything is written: the device does not fit, or holds something and
    /// [`StoreParams::force`] is off.
    pub async fn format(device: &Device, params: StoreParams) -> Result<(), StoreError> {
        create::format(device, params).await
    }

    /// Reads what the superblock says, without opening the store.
    ///
    /// # Errors
    /// As for [`Self::open`], as far as the superblock can tell.
    pub async fn probe(device: &Device) -> Result<StoreInfo, StoreError> {
        Ok(recovery::read_superblocks(device).await?.info())
    }

    /// Opens a store as of its last durable checkpoint. Writes nothing, except that a superblock
    /// copy which is torn or stale is replaced by the good one.
    ///
    /// # Errors
    /// Why the device is not a store that this program can use. Whether it belongs to the right
    /// cluster is for the caller to check: [`Self::cluster`].
    pub async fn open(device: &Device) -> Result<Self, StoreError> {
        let recovered = recovery::recover(device).await?;
        let superblock = recovered.superblock;
        let inner = Inner {
            device: device.clone(),
            store: superblock.store,
            cluster: superblock.cluster,
            geometry: superblock.geometry,
            state: RefCell::new(recovered.state),
            image: Mutex::new(recovered.image),
            turns: RefCell::default(),
            writes: Semaphore::new(WRITES_IN_FLIGHT_MAX),
            settled: Notify::new(),
            failed: Cell::new(false),
            leisure: Leisure::new(),
            budget: Budget::new(),
            retiring: Mutex::new(()),
            counters: Counters::default(),
            retired: RefCell::new(recovered.retired),
            stats: recovered.stats,
        };
        Ok(Self {
            inner: Rc::new(inner),
        })
    }

    /// Identity of the store.
    #[must_use]
    pub fn id(&self) -> StoreId {
        self.inner.store
    }

    /// The cluster that the store was formatted for.
    #[must_use]
    pub fn cluster(&self) -> Uuid {
        self.inner.cluster
    }

    /// The device that it lies on.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.inner.device
    }

    /// Where the log of this store belongs.
    #[must_use]
    pub fn log_region(&self) -> (ByteOffset, ByteLen) {
        (self.inner.geometry.log_start, self.inner.geometry.log_len)
    }

    /// What opening took.
    #[must_use]
    pub fn open_stats(&self) -> OpenStats {
        self.inner.stats
    }

    /// What the store has done since it was opened.
    #[must_use]
    pub fn counters(&self) -> StoreCounters {
        self.inner.counters.get()
    }

    /// Space now.
    #[must_use]
    pub fn usage(&self) -> StoreUsage {
        let state = self.inner.state.borrow();
        StoreUsage {
            capacity: extents(self.inner.geometry.extents),
            free: extents(state.extents.free()),
            pending: extents(state.pending()),
            pinned: extents(state.pins.log_only()),
            map_pages_free: state.leaves_max - state.leaves - state.leaves_reserved,
        }
    }

    /// What writing a block back would have to allocate, as of now.
    #[must_use]
    pub fn lacks(&self, key: ChunkKey, block: BlockIndex) -> Lacks {
        let place = Place::of(block);
        let state = self.inner.state.borrow();
        let chunk = state.chunks.get(&key);
        let has_extent = chunk.is_some_and(|chunk| chunk.extent(place).is_some());
        let has_leaf = chunk.is_some_and(|chunk| chunk.leaf(place.part).is_some());
        let extent = block.as_usize() / BLOCKS_PER_EXTENT;
        let extent = u16::try_from(extent).expect("invariant: a chunk has 256 extents");
        Lacks {
            extent: (!has_extent).then_some(extent),
            map_page: (!has_leaf).then_some(place.part),
        }
    }

    /// Number of the page that maps a block, among those of its chunk.
    #[must_use]
    pub fn map_page_of(block: BlockIndex) -> u8 {
        Place::of(block).part
    }

    /// Bytes for data, free or not.
    #[must_use]
    pub fn capacity(&self) -> ByteLen {
        self.usage().capacity
    }

    /// Bytes in extents that cannot be allocated now: in use, or free after the next checkpoint.
    #[must_use]
    pub fn used(&self) -> ByteLen {
        let usage = self.usage();
        ByteLen::new(usage.capacity.get() - usage.free.get())
    }

    /// Bytes in extents that can be allocated now.
    #[must_use]
    pub fn free(&self) -> ByteLen {
        self.usage().free
    }

    /// Reads `count` blocks of a chunk from `first`, verified, as runs in order.
    ///
    /// # Errors
    /// [`StoreError::Checksum`] with the first bad block; device errors; a range that leaves the
    /// chunk; a chunk of another copyset.
    pub async fn read(
        &self,
        copyset: CopysetId,
        key: ChunkKey,
        first: BlockIndex,
        count: usize,
    ) -> Result<Vec<BlockRead>, StoreError> {
        self.inner.read(copyset, key, first, count).await
    }

    /// Writes committed blocks to their extents and takes them into the maps.
    ///
    /// Of several changes to one block the last counts. The caller guarantees that each change
    /// comes from a log entry that is at or below the `applied` of the next checkpoint that names
    /// the group, or is still in the log after it: replay then heals what a crash left between
    /// data written in place and the older map.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`] and wrong arguments before anything is changed. After a device
    /// error, what was written is taken over and the rest is as it was; repeat the call.
    pub async fn write_back(
        &self,
        copyset: CopysetId,
        changes: Vec<WriteBack>,
    ) -> Result<(), StoreError> {
        self.take_over(copyset, changes, Vec::new()).await
    }

    /// Makes everything written back so far durable, in one atomic switch, together with the
    /// states of the named groups. Groups that are not named keep theirs.
    ///
    /// Reads and write-backs go on meanwhile. The cut is taken when an earlier checkpoint has
    /// ended; what is written back after it belongs to the next one.
    ///
    /// # Errors
    /// A state that is too large, before anything is changed. After a device error the store
    /// takes no further write-back or checkpoint ([`StoreError::Failed`]): open it again.
    pub async fn checkpoint(&self, groups: Vec<GroupCheckpoint>) -> Result<(), StoreError> {
        let inner = Rc::clone(&self.inner);
        self.run(async move { inner.checkpoint(groups).await })
            .await
    }

    /// A group as of the last durable checkpoint.
    #[must_use]
    pub fn group(&self, copyset: CopysetId) -> Option<GroupCheckpoint> {
        self.inner.state.borrow().groups.get(&copyset).cloned()
    }

    /// All groups as of the last durable checkpoint.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupCheckpoint> {
        self.inner.state.borrow().groups.values().cloned().collect()
    }

    /// Forgets a group and its chunks; durable, and their space reusable, with the next checkpoint.
    ///
    /// # Errors
    /// None of its own today; the signature leaves room.
    pub async fn remove_group(&self, copyset: CopysetId) -> Result<(), StoreError> {
        let turn = self.inner.turn(copyset);
        let _turn = turn.lock().await;
        // A checkpoint that is under way would bring the group's state back when it ends.
        let _image = self.inner.image.lock().await;
        self.inner.state.borrow_mut().remove_group(copyset)?;
        Ok(())
    }

    /// Chunks of a copyset that hold anything, ascending.
    #[must_use]
    pub fn chunks(&self, copyset: CopysetId) -> Vec<ChunkKey> {
        self.inner.state.borrow().chunks_of(copyset)
    }

    /// The first chunk of a copyset behind `after` that holds anything.
    #[must_use]
    pub fn chunk_after(&self, copyset: CopysetId, after: ChunkKey) -> Option<ChunkKey> {
        self.inner.state.borrow().chunk_after(copyset, after)
    }

    /// Whether a checkpoint has failed: [`StoreError::Failed`] from then on.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.inner.failed.get()
    }

    /// What background work waits for before it uses the device.
    #[must_use]
    pub fn leisure(&self) -> &Leisure {
        &self.inner.leisure
    }

    /// What background work may read and write here, all kinds of it together.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.inner.budget
    }

    /// Reads in the background: at leisure, and within the budget.
    pub async fn take_leisure<T>(
        &self,
        purpose: Purpose,
        bytes: usize,
        work: impl Future<Output = T>,
    ) -> T {
        let drawn = self.inner.budget.draw(purpose, bytes, false);
        self.inner.leisure.take(drawn, work).await
    }

    /// Extents that the chunks of a copyset map.
    #[must_use]
    pub fn extents_of(&self, copyset: CopysetId) -> usize {
        let state = self.inner.state.borrow();
        let chunks = state.chunks_of(copyset).into_iter();
        chunks.map(|key| state.chunks[&key].extents()).sum()
    }

    /// The blocks of a chunk that are present.
    ///
    /// # Errors
    /// When the chunk belongs to another copyset.
    pub fn allocated(&self, copyset: CopysetId, key: ChunkKey) -> Result<BlockBitmap, StoreError> {
        let state = self.inner.state.borrow();
        let chunk = state.chunk(copyset, key)?;
        Ok(chunk.map_or_else(BlockBitmap::empty, |chunk| chunk.allocated()))
    }

    /// Bytes of data that so many blocks of a chunk hold; 0 where they cannot be told.
    #[must_use]
    pub fn allocated_bytes(
        &self,
        copyset: CopysetId,
        key: ChunkKey,
        first: BlockIndex,
        count: usize,
    ) -> usize {
        let Ok(allocated) = self.allocated(copyset, key) else {
            return 0;
        };
        let blocks = (first.as_usize()..first.as_usize() + count).filter_map(BlockIndex::new);
        blocks.filter(|block| allocated.contains(*block)).count() * BLOCK_SIZE
    }

    /// Removes a chunk; durable, and its space reusable, with the next checkpoint.
    ///
    /// # Errors
    /// When the chunk belongs to another copyset.
    pub async fn remove_chunk(&self, copyset: CopysetId, key: ChunkKey) -> Result<(), StoreError> {
        let turn = self.inner.turn(copyset);
        let _turn = turn.lock().await;
        self.inner.state.borrow_mut().remove_chunk(copyset, key)
    }

    /// Removes the chunks of a volume from a copyset, as [`Self::remove_chunk`] does.
    ///
    /// # Errors
    /// None of its own today; the signature leaves room.
    pub async fn remove_volume(
        &self,
        copyset: CopysetId,
        volume: VolumeId,
    ) -> Result<(), StoreError> {
        let turn = self.inner.turn(copyset);
        let _turn = turn.lock().await;
        let mut state = self.inner.state.borrow_mut();
        let keys = state.chunks_of_volume(copyset, volume);
        keys.into_iter()
            .try_for_each(|key| state.remove_chunk(copyset, key))
    }

    /// Reads every present block of a chunk; those that do not match their checksum.
    ///
    /// # Errors
    /// Device errors; a chunk of another copyset.
    pub async fn scrub(
        &self,
        copyset: CopysetId,
        key: ChunkKey,
    ) -> Result<Vec<BlockIndex>, StoreError> {
        self.inner.scrub(copyset, key).await
    }

    /// Rewrites a bad block in place with the bytes of a peer, if they match our checksum. Where they do not stay, the
    /// extent is retired, and what it holds goes to another one.
    ///
    /// # Errors
    /// [`StoreError::Checksum`] when the bytes do not match, or did not stay on the device;
    /// [`StoreError::NotPresent`] when there is nothing to repair.
    pub async fn repair(
        &self,
        copyset: CopysetId,
        key: ChunkKey,
        block: BlockIndex,
        data: Payload,
    ) -> Result<(), StoreError> {
        let inner = Rc::clone(&self.inner);
        self.run(async move { inner.repair(copyset, key, block, data).await })
            .await
    }

    /// Runs work that must reach its end even if the caller loses interest: a device request
    /// cannot be called back, and its extent must not be handed out while it may still land.
    pub(crate) async fn run<F>(&self, work: F) -> Result<(), StoreError>
    where
        F: Future<Output = Result<(), StoreError>> + 'static,
    {
        spawn(work).await.unwrap_or_else(|_cancelled| {
            Err(StoreError::Stopped {
                device: self.inner.device.name().to_owned(),
            })
        })
    }
}

impl Inner {
    /// The lock that serialises changes to one group's chunks.
    pub(crate) fn turn(&self, copyset: CopysetId) -> Rc<Mutex<()>> {
        let mut turns = self.turns.borrow_mut();
        Rc::clone(
            turns
                .entry(copyset)
                .or_insert_with(|| Rc::new(Mutex::new(()))),
        )
    }

    /// Refuses once a checkpoint has failed.
    pub(crate) fn check_alive(&self) -> Result<(), StoreError> {
        if self.failed.get() {
            return Err(StoreError::Failed {
                device: self.device.name().to_owned(),
            });
        }
        Ok(())
    }
}

fn extents(count: u32) -> ByteLen {
    ByteLen::new(u64::from(count) * EXTENT_SIZE as u64)
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("store", &self.inner.store)
            .field("device", &self.inner.device)
            .finish_non_exhaustive()
    }
}
