//! Limits that two processes, or a process and a disk, must agree on.
//!
//! A limit that only one crate cares about stands in that crate's own `limit.rs`.

/// Unit of checksum, of atomicity and of linearizability, in bytes.
pub const BLOCK_SIZE: usize = 4096;
/// Unit of allocation on a device, in bytes.
pub const EXTENT_SIZE: usize = 64 << 10;
/// Unit of placement, in bytes of a volume's address space.
pub const CHUNK_SIZE: usize = 16 << 20;
/// Blocks in an extent.
pub const BLOCKS_PER_EXTENT: usize = EXTENT_SIZE / BLOCK_SIZE;
/// Extents in a chunk.
pub const EXTENTS_PER_CHUNK: usize = CHUNK_SIZE / EXTENT_SIZE;
/// Blocks in a chunk.
pub const BLOCKS_PER_CHUNK: usize = CHUNK_SIZE / BLOCK_SIZE;

/// A frame's fixed header, in bytes.
pub const FRAME_HEADER_SIZE: usize = 128;
/// Payload of one data request, in bytes: a client splits larger ones.
pub const REQUEST_PAYLOAD_MAX: usize = 1 << 20;
/// Structured part of a frame's body, in bytes.
///
/// The largest is an `AppendEntries` of many payload-less entries.
pub const FRAME_META_MAX: usize = 256 << 10;
/// Payload bytes of one `AppendEntries` or snapshot piece.
pub const REPLICATION_PAYLOAD_MAX: usize = 1 << 20;
/// Body of any frame, in bytes: structured part and payload.
pub const FRAME_BODY_MAX: usize = FRAME_META_MAX + REPLICATION_PAYLOAD_MAX;

/// Mutating requests that one client may have between its watermark and its newest sequence.
///
/// Bounds the dedupe state that a group keeps for each session.
pub const SESSION_WINDOW_MAX: u64 = 4096;

/// Replicas of a copyset.
pub const REPLICAS_MAX: usize = 5;
/// Copysets that one volume map segment may name.
pub const VOLUME_COPYSETS_MAX: usize = 1024;
/// Smallest volume, in bytes.
pub const VOLUME_SIZE_MIN: u64 = 1 << 20;
/// Largest volume, in bytes: 64 TiB, 4 Mi chunks.
pub const VOLUME_SIZE_MAX: u64 = 64 << 40;
/// Length of a pool, zone or server name, and of each part of a volume's or directory's path, in bytes.
pub const NAME_LEN_MAX: usize = 63;
/// Parts of a path.
pub const PATH_DEPTH_MAX: usize = 8;
/// Length of a path, in bytes: it becomes a file's name, with some 16 bytes more behind it.
pub const PATH_LEN_MAX: usize = 200;

const _: () = assert!(NAME_LEN_MAX < PATH_LEN_MAX && PATH_LEN_MAX + 16 <= 255);
const _: () = assert!(EXTENT_SIZE.is_multiple_of(BLOCK_SIZE));
const _: () = assert!(CHUNK_SIZE.is_multiple_of(EXTENT_SIZE));
const _: () = assert!(BLOCKS_PER_CHUNK <= u16::MAX as usize + 1);
const _: () = assert!(REQUEST_PAYLOAD_MAX <= REPLICATION_PAYLOAD_MAX);
const _: () = assert!(REQUEST_PAYLOAD_MAX <= CHUNK_SIZE);
const _: () = assert!(VOLUME_SIZE_MAX / (CHUNK_SIZE as u64) <= u32::MAX as u64);
