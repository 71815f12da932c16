//! Limits of the store, with where each comes from.

use ogee_proto::limit::{BLOCKS_PER_EXTENT, EXTENT_SIZE, EXTENTS_PER_CHUNK};
use std::time::Duration;

/// Unit of metadata and of the smallest device write, in bytes.
pub const PAGE_SIZE: usize = 4096;
/// Header of every metadata page, in bytes.
pub const PAGE_HEADER_SIZE: usize = 64;

/// Superblock copies, in bytes from the start of the device: far enough apart that no single
/// misdirected or torn request hits both.
pub const SUPERBLOCK_AT: [u64; 2] = [0, 64 << 10];
/// Copies of the list of retired extents, in bytes from the start of the device.
pub const RETIRED_AT: [u64; 2] = [128 << 10, 192 << 10];
/// Extents that one page lists: its body behind a head of 40 bytes, but the last word.
pub const RETIRED_LISTED_MAX: usize = (PAGE_SIZE - 40) / 4 - 1;
/// A device with so many is to be replaced: 4 MiB that did not take what was written.
pub const RETIRED_MAX: usize = 64;
/// A page that is written and read only to see how the device fares, in bytes from its start.
pub const TRIAL_AT: u64 = 512 << 10;
/// Bytes ahead of the log region: superblocks, and room for later formats.
pub const HEAD_LEN: u64 = 1 << 20;
/// Alignment of the log region, in bytes.
pub const LOG_ALIGN: u64 = 1 << 20;
/// Bytes at the end of a device in which partition tables and RAID labels keep copies.
pub const TAIL_PROBE_LEN: u64 = 64 << 10;

/// Leaf pages of a chunk. Five is the fewest in which map, bitmap and checksums of a chunk fit
/// when each page describes its extents completely.
pub const LEAVES_PER_CHUNK: usize = 5;
/// Extents that one leaf page describes: 256 / 5, rounded up.
pub const EXTENTS_PER_LEAF: usize = EXTENTS_PER_CHUNK.div_ceil(LEAVES_PER_CHUNK);
/// Blocks that one leaf page describes.
pub const BLOCKS_PER_LEAF: usize = EXTENTS_PER_LEAF * BLOCKS_PER_EXTENT;

/// References in a root page: the page body in units of (slot, crc).
pub const REFS_PER_ROOT: usize = (PAGE_SIZE - PAGE_HEADER_SIZE) / 8;
/// References in a table page: the page body in units of (slot, crc, what it describes).
pub const REFS_PER_TABLE: usize = (PAGE_SIZE - PAGE_HEADER_SIZE) / 24;
/// Root pages that a superblock can name.
pub const ROOTS_MAX: usize = 488;
/// Bytes of a group's state in one page.
pub const GROUP_PART_LEN: usize = 4000;
/// State blob of one group, in bytes: some ten thousand sessions.
pub const GROUP_STATE_MAX: usize = 8 << 20;

/// Copies of every metadata page, each in an area of its own.
pub const PAGE_COPIES: usize = 2;
/// One metadata area is this fraction of the device. At 1/128, half of it for shadow pages and a
/// quarter of the rest for group state, every extent can be mapped as long as leaves describe 22
/// extents of their 52 on average; dense data needs an eighth of that.
pub const PAGE_AREA_SHARE: u64 = 128;
/// Smallest metadata area, in bytes: room for the group state of a small store.
pub const PAGE_AREA_MIN: u64 = 4 << 20;
/// Share of the page positions that is kept for group state, so that map pages cannot starve it.
pub const GROUP_POSITIONS_SHARE: u32 = 4;
/// Smallest number of extents worth a store: one chunk's.
pub const EXTENTS_MIN: u64 = EXTENTS_PER_CHUNK as u64;
/// Largest device: what the root pointers of one superblock reach (asserted below).
pub const DEVICE_LEN_MAX: u64 = 16 << 40;

/// Data bytes of one device request.
pub const TRANSFER_MAX: usize = 1 << 20;
/// Device writes in flight for write-back, over all groups: 16 MiB of buffers.
pub const WRITES_IN_FLIGHT_MAX: usize = 16;
/// Device reads in flight for one read call: a whole chunk in 1 MiB pieces.
pub const READS_IN_FLIGHT_MAX: usize = 16;
/// Metadata writes in flight during a checkpoint. Few, so that user I/O keeps its share.
pub const PAGE_WRITES_IN_FLIGHT_MAX: usize = 4;
/// Metadata reads in flight at open.
pub const PAGE_READS_IN_FLIGHT_MAX: usize = 32;
/// Pages that are verified at a time while the store is in use, both copies of each: half a MiB.
pub const INSPECT_PAGES: usize = 64;
/// Pages in one metadata transfer.
pub const PAGES_PER_TRANSFER: usize = TRANSFER_MAX / PAGE_SIZE;
/// The log may fill extents while more than one in so many is free. Below that, large writes go
/// through the log and overwrite in place, which takes no space for a time.
pub const REDIRECT_FREE_SHARE: u32 = 8;
/// How many times as long as a piece of background work took the device rests before the next one.
pub const LEISURE_REST: u32 = 9;
/// A piece of what is done at leisure waits no longer than this for replicas that are copied.
pub const LEISURE_YIELD_MAX: Duration = Duration::from_secs(60);
/// Of a device's budget, what there is at least for those who give way to clients: one part in so many,
pub const BUDGET_LEAST_SHARE: u64 = 64;
/// but no less than this, in bytes per second: a step of a copy must not take as long as its caller waits.
pub const BUDGET_LEAST: u64 = 4 << 20;
/// How often it is looked how clients fare.
pub const FOREGROUND_LOOK: Duration = Duration::from_millis(100);
/// A mean that is longer than usual by less than this says nothing.
pub const FOREGROUND_SLACK: Duration = Duration::from_micros(500);
/// Clients that have asked for nothing for so long leave everything to the background.
pub const FOREGROUND_IDLE: Duration = Duration::from_secs(1);
/// Times that a read is repeated because a write-back changed the chunk under it, before a
/// mismatch counts as damage.
pub const READ_RETRIES_MAX: u32 = 8;

const POSITIONS_MAX: u64 = DEVICE_LEN_MAX / PAGE_AREA_SHARE / PAGE_SIZE as u64 / 2;
const _: () = assert!(POSITIONS_MAX <= (ROOTS_MAX * REFS_PER_ROOT * REFS_PER_TABLE) as u64);
const _: () = assert!(DEVICE_LEN_MAX / (EXTENT_SIZE as u64) < u32::MAX as u64);
const _: () = assert!(EXTENTS_PER_LEAF * LEAVES_PER_CHUNK >= EXTENTS_PER_CHUNK);
const _: () = assert!(EXTENTS_PER_LEAF * (LEAVES_PER_CHUNK - 1) < EXTENTS_PER_CHUNK);
const _: () = assert!(BLOCKS_PER_EXTENT == 16, "a u16 is the bitmap of an extent");
const _: () = assert!(PAGE_AREA_MIN.is_multiple_of(EXTENT_SIZE as u64));
const _: () = assert!(RETIRED_MAX <= RETIRED_LISTED_MAX);
const _: () = assert!(RETIRED_AT[0] >= SUPERBLOCK_AT[1] + PAGE_SIZE as u64);
const _: () = assert!(RETIRED_AT[1] + PAGE_SIZE as u64 <= TRIAL_AT);
const _: () = assert!(SUPERBLOCK_AT[1] + (PAGE_SIZE as u64) <= HEAD_LEN);
