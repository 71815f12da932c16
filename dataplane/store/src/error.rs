//! What a store can fail with. Every variant names its physical cause.

use crate::foreign::Foreign;
use crate::format::{PageFault, PageId};
use ogee_device::DeviceError;
use ogee_proto::id::{ChunkKey, CopysetId, StoreId};
use ogee_proto::unit::{BlockIndex, ByteLen, ByteOffset};
use std::fmt;
use uuid::Uuid;

/// Which kind of space ran out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Space {
    /// 64 KiB extents for data.
    Extents,
    /// Metadata pages for chunk maps: very scattered data.
    MapPages,
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Extents => "extents",
            Self::MapPages => "map pages",
        })
    }
}

/// Failure of a store operation.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Neither superblock copy was ever one of ours.
    #[error("{device}: not formatted as an Ogee store")]
    NotFormatted {
        /// The device.
        device: String,
    },
    /// An intact superblock of another version.
    #[error("{device}: store format {found}, but this program reads format {ours}")]
    UnknownFormat {
        /// The device.
        device: String,
        /// The version found.
        found: u32,
        /// The version that this program reads and writes.
        ours: u32,
    },
    /// The device is shorter than when it was formatted.
    #[error("{device}: {found} long, but formatted with {recorded}")]
    WrongSize {
        /// The device.
        device: String,
        /// Length that the superblock records.
        recorded: ByteLen,
        /// Length of the device now.
        found: ByteLen,
    },
    /// No superblock copy can be read, but at least one was ours.
    #[error("{device}: both superblock copies are damaged")]
    SuperblocksDamaged {
        /// The device.
        device: String,
    },
    /// Both superblock copies are intact, but of different stores.
    #[error("{device}: one superblock is of store {first}, the other of {second}")]
    SuperblocksDisagree {
        /// The device.
        device: String,
        /// Store of copy A.
        first: StoreId,
        /// Store of copy B.
        second: StoreId,
    },
    /// A metadata page cannot be used.
    #[error("{device}: {page} is damaged: {fault}")]
    Damaged {
        /// The device.
        device: String,
        /// The page.
        page: PageId,
        /// Which check it failed.
        fault: PageFault,
    },
    /// Formatting would overwrite something else.
    #[error("{device}: holds {found}; format it with force to overwrite")]
    ForeignData {
        /// The device.
        device: String,
        /// What was recognised.
        found: Foreign,
    },
    /// Formatting would overwrite a store.
    #[error("{device}: is store {store} of cluster {cluster}; format it with force to overwrite")]
    AlreadyFormatted {
        /// The device.
        device: String,
        /// The store there.
        store: StoreId,
        /// Its cluster.
        cluster: Uuid,
    },
    /// The device cannot hold superblocks, log, metadata and a chunk.
    #[error("{device}: {found} long; a store with this log needs {minimum}")]
    TooSmall {
        /// The device.
        device: String,
        /// Its length.
        found: ByteLen,
        /// The length needed.
        minimum: ByteLen,
    },
    /// The device is longer than one store can map.
    #[error("{device}: {found} long; a store takes at most {maximum}: partition it")]
    TooLarge {
        /// The device.
        device: String,
        /// Its length.
        found: ByteLen,
        /// The longest possible.
        maximum: ByteLen,
    },
    /// The device failed; the source names it and the range.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A block read from the device is not the block written there.
    #[error("block {block:?} of chunk {key}: checksum mismatch")]
    Checksum {
        /// The chunk.
        key: ChunkKey,
        /// The first block found bad.
        block: BlockIndex,
    },
    /// A repair was offered for a block that is not stored.
    #[error("block {block:?} of chunk {key}: not present")]
    NotPresent {
        /// The chunk.
        key: ChunkKey,
        /// The block.
        block: BlockIndex,
    },
    /// A chunk was addressed through a copyset that does not own it.
    #[error("chunk {key} belongs to copyset {owner}, not to {asked}")]
    WrongCopyset {
        /// The chunk.
        key: ChunkKey,
        /// The copyset whose chunk it is.
        owner: CopysetId,
        /// The copyset through which it was addressed.
        asked: CopysetId,
    },
    /// A read past the end of a chunk.
    #[error("{count} blocks from {first:?}: past the end of the chunk")]
    OutOfChunk {
        /// First block asked for.
        first: BlockIndex,
        /// Blocks asked for.
        count: usize,
    },
    /// Data for a block that is not one block long.
    #[error("block {block:?} of chunk {key}: {found} instead of one block")]
    BlockLength {
        /// The chunk.
        key: ChunkKey,
        /// The block.
        block: BlockIndex,
        /// Length of the data.
        found: ByteLen,
    },
    /// An address that the log names is not that of an extent.
    #[error("{device}: no extent begins at {at}: the log is not this store's, or is damaged")]
    NotAnExtent {
        /// The device.
        device: String,
        /// The address.
        at: ByteOffset,
    },
    /// Not enough space; nothing was changed. More may be free after a checkpoint.
    #[error("no space: {needed} {space} needed, {free} free, {pending} after the next checkpoint")]
    NoSpace {
        /// Which kind.
        space: Space,
        /// How many are needed.
        needed: u32,
        /// How many are free.
        free: u32,
        /// How many more become free with the next checkpoint.
        pending: u32,
    },
    /// The state of a group is longer than one may be.
    #[error("state of copyset {copyset} is {found} long; at most {maximum} can be kept")]
    GroupStateTooLarge {
        /// The group.
        copyset: CopysetId,
        /// Length of its state.
        found: ByteLen,
        /// Longest possible.
        maximum: ByteLen,
    },
    /// The states of all groups together exceed the pages set aside for them.
    #[error("group states need {needed} pages; this store has {maximum}")]
    GroupPagesFull {
        /// Pages needed.
        needed: u32,
        /// Pages set aside at format.
        maximum: u32,
    },
    /// An earlier checkpoint failed: what the device holds is known only after a fresh open.
    #[error("{device}: stopped after a failed checkpoint")]
    Failed {
        /// The device.
        device: String,
    },
    /// The executor is shutting down.
    #[error("{device}: the shard is stopping")]
    Stopped {
        /// The device.
        device: String,
    },
}
