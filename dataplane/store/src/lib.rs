//! One slice of one device: superblock, log region, metadata pages, extents.
//!
//! *Place*: above `ogee-device`, sibling of `ogee-log` (which owns the log region), below
//! `ogee-group`, which writes committed blocks back through it and reads them again.
//! *Owner*: one shard; a [`Store`] is a reference-counted handle and never leaves its core.
//! *Invariants*: no byte is returned that did not match its checksum; an extent or page that the
//! newest durable checkpoint names is never handed out again; a checkpoint is the whole old state
//! or the whole new one. See `src/format.rs` for the device layout and the argument.
//! *On failure*: a failed data write changes nothing that it did not write and is reported; a
//! failed checkpoint stops every later one ([`StoreError::Failed`]), since a device that lost one
//! flush cannot be trusted with the next. Damage found is named, never repaired by guesswork.
//!
//! RAM: maps and checksums of everything mapped stay in memory, about 1.2 GiB for each TiB of
//! fully mapped space (4 bytes of checksum per 4 KiB block are 1 GiB of it), and less than 5 MiB
//! per TiB for the allocators. A thin store pays only for the 3.25 MiB ranges that hold data.
//!
//! | file | holds |
//! |---|---|
//! | `format` | the on-disk format: the document, and the codecs |
//! | `geometry` | where each region of the device lies |
//! | `create`, `foreign` | making a store; recognising what must not be overwritten |
//! | `recovery` | opening a store: superblock → roots → tables → pages → maps |
//! | `state` | maps, allocators and pending changes in RAM; synchronous |
//! | `write_back`, `reserve`, `read`, `repair` | blocks to and from extents |
//! | `inspect` | verifying metadata in use, and putting it right |
//! | `budget` | how much background work may read and write, all kinds of it together |
//! | `leisure` | what background work waits for before it uses the device |
//! | `redirect`, `pins` | extents that the log fills, names, and hands over |
//! | `checkpoint`, `tree`, `page_writer` | the atomic root switch |

mod allocated;
mod block_crc;
mod budget;
mod change;
mod checkpoint;
mod chunk;
mod counters;
mod create;
mod cut;
mod error;
mod foreign;
mod format;
mod free_map;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod geometry;
mod group_state;
mod inspect;
mod leaf;
mod leisure;
mod limit;
mod page_reader;
mod page_writer;
mod pins;
mod read;
mod recovery;
mod redirect;
mod repair;
mod reserve;
mod retired;
mod state;
mod store;
mod tree;
mod trial;
mod write_back;

pub use allocated::BlockBitmap;
pub use budget::{Bucket, Budget, Line, Purpose};
pub use change::{BlockChange, WriteBack, bursts, extent_of};
pub use counters::StoreCounters;
pub use create::StoreParams;
pub use error::{Space, StoreError};
pub use foreign::Foreign;
pub use format::{FORMAT_VERSION, PageFault, PageId, STORE_MAGIC};
pub use group_state::GroupCheckpoint;
pub use inspect::{MetadataPlace, MetadataStep};
pub use leisure::{Copying, Leisure};
pub use limit::GROUP_STATE_MAX;
pub use read::BlockRead;
pub use recovery::{OpenStats, StoreInfo};
pub use redirect::Adoption;
pub use store::{Lacks, Store, StoreUsage};
