//! The on-disk format of a store, version 2.
//!
//! *Place*: the only code that turns structures into bytes and back. *Owner*: pure functions.
//! *Invariants*: everything decoded is in range; equal contents encode to equal bytes.
//! *On failure*: decoders return which check failed; nothing panics on any input.
//!
//! # Regions
//!
//! All integers are little endian. A page is 4 KiB, an extent 64 KiB.
//!
//! | from | to | what |
//! |---|---|---|
//! | 0 | 4 KiB | superblock copy A |
//! | 64 KiB | 68 KiB | superblock copy B |
//! | 128 KiB | 132 KiB | list of retired extents, copy A; zeros when there never was one |
//! | 192 KiB | 196 KiB | the same, copy B |
//! | 512 KiB | 516 KiB | written and read only to see how the device fares; means nothing |
//! | 1 MiB | + log length | log region, whole MiB; its format belongs to `ogee-log` |
//! | end of log | + 1/128 of the device, at least 4 MiB | metadata page slots, numbered from 1: area A |
//! | end of area A | + as much | the same slots again: area B |
//! | end of area B | last whole extent of the device | extents, numbered from 1 |
//!
//! What else lies between 4 KiB and 1 MiB is never written.
//!
//! # Superblock
//!
//! | at | size | field | meaning |
//! |---|---|---|---|
//! | 0 | 8 | magic | `OGEESTOR` |
//! | 8 | 4 | version | [`FORMAT_VERSION`] |
//! | 12 | 4 | reserved | zero |
//! | 16 | 16 | store | uuid, new with every format |
//! | 32 | 16 | cluster | uuid |
//! | 48 | 8 | sequence | checkpoints since format; the first superblock has 1 |
//! | 56 | 8 | next generation | of the next chunk that is created |
//! | 64 | 8 | device length | bytes in use; the device may be longer, not shorter |
//! | 72 | 8 | log start | |
//! | 80 | 8 | log length | |
//! | 88 | 8 | pages start | |
//! | 96 | 8 | extents start | |
//! | 104 | 4 | page slots | |
//! | 108 | 4 | extents | |
//! | 112 | 4 | block size | 4096 |
//! | 116 | 4 | extent size | 65536 |
//! | 120 | 4 | chunk size | 16 MiB |
//! | 124 | 4 | roots | how many of the references below are in use |
//! | 128 | 488 × 8 | references to root pages | slot, crc; zero when unused |
//! | 4032 | 60 | reserved | zero |
//! | 4092 | 4 | crc | CRC32C over bytes 0..4092 |
//!
//! # Retired extents, version 1
//!
//! | at | size | field | meaning |
//! |---|---|---|---|
//! | 0 | 4 | crc | CRC32C over bytes 4..4096 |
//! | 4 | 2 | version | 1 |
//! | 6 | 2 | count | of the extents below |
//! | 8 | 8 | magic | `OGEEBADX` |
//! | 16 | 16 | store | uuid; a list of another store is none |
//! | 32 | 8 | sequence | grows with each writing; the newer copy counts |
//! | 40 | 1013 × 4 | extents | numbered from 1, ascending; zero when unused |
//! | 4092 | 4 | notes | bit 0: what is done at leisure is paused; the rest is zero. What wrote 1014 extents knew no notes |
//!
//! Copy A is written durably, then copy B: whichever is torn, the other is whole. The list is no part of a checkpoint: an
//! extent that is bad stays so whichever tree is durable.
//!
//! # Tree
//!
//! ```text
//! superblock ── root pages ── table pages ── leaf pages   (52 extents of a chunk each)
//!                                        └── group pages  (4000 bytes of a group's state each)
//! ```
//!
//! A reference is (slot, crc of the page). A table is a plain list, in no order, of leaf and group
//! pages; each entry also says what its page describes, so that an unreadable page can be named.
//! Every page begins with:
//!
//! | at | size | field | leaf | group | table, root |
//! |---|---|---|---|---|---|
//! | 0 | 4 | crc | CRC32C over bytes 4..4096 | same | same |
//! | 4 | 4 | magic | `OGEP` | | |
//! | 8 | 2 | version | [`FORMAT_VERSION`] | | |
//! | 10 | 1 | kind | 1 | 2 | 3, 4 |
//! | 11 | 1 | part | leaf within the chunk, 0..5 | 0 | 0 |
//! | 12 | 4 | slot | where this page belongs | | |
//! | 16 | 16 | store | uuid | | |
//! | 32 | 8 | sequence | of the checkpoint that wrote it | | |
//! | 40 | 8 | owner | volume | copyset | 0 |
//! | 48 | 4 | item | chunk | page within the state | number of the table or root |
//! | 52 | 4 | copyset | owner of the chunk | copyset | 0 |
//! | 56 | 8 | generation | of the chunk | 0 | 0 |
//!
//! Bodies, from byte 64:
//!
//! | kind | fields |
//! |---|---|
//! | leaf | 52 × u32 extent (0 = none); 52 × u16 present bits; 832 × u32 block checksum (0 if absent); zeros |
//! | group | u64 applied term, u64 applied index, u32 state length, u32 state crc, 8 zeros (first page; zero in others); 4000 bytes of state |
//! | table | 168 × (u32 slot, u32 crc, u64 volume or copyset, u32 item, u8 kind, u8 part, 2 zeros), zero when unused |
//! | root | 504 × (u32 slot, u32 crc), zero when unused |
//!
//! A block's checksum stands in its leaf, apart from the data, and is salted: `src/block_crc.rs`.
//! Which extents and slots are free is stored nowhere; opening derives it from the tree.
//!
//! # Order of writes of a checkpoint, and why
//!
//! 1. Cut: in one synchronous step, note every changed leaf and group state.
//! 2. Write changed leaf and group pages, then changed tables, then changed roots, to slots that
//!    the durable tree does not use, each to both areas. Parents follow children because they hold
//!    the children's crc.
//! 3. Flush. Data blocks that the cut speaks of were written before the cut, so this one flush
//!    covers data and pages. Nothing durable refers to any of them yet.
//! 4. Write the superblock durably to copy A, and when that has returned, to copy B.
//! 5. Only now reuse the slots that were replaced and the extents that were freed before the cut,
//!    and report the checkpoint as done.
//!
//! *Torn or lost writes before step 4* hit slots to which nothing durable refers: after a crash the
//! old superblock stands and the old tree is untouched.
//!
//! *A superblock write torn by a crash* fails its crc. While A is written, B still holds the old
//! root; while B is written, A already holds the new one. Opening takes the newest copy that is
//! intact, and replaces the other before anything else is changed, so outside of step 4 both
//! copies are equal and losing one of them loses nothing. Falling back to sequence n because the
//! copy with n + 1 is unreadable means that a crash or an error ended step 4: n + 1 was never
//! reported done, and nothing that n names has been reused. Hence newest valid wins, always.
//!
//! *A page written to the wrong place or not at all* is found by its parent's crc: the page there
//! is of another slot, or of an older checkpoint.
//!
//! *A page that rots later*, or whose sector cannot be read, is taken from the other area: both hold
//! the same bytes at an area's length apart, and the parent's crc says which of them is right. Opening
//! rewrites the bad copy once the whole tree was read. Area B is read only where area A failed, so
//! rot in B shows when A fails too, or when metadata is verified in use (`src/inspect.rs`): then, too, only the bad one of
//! two copies is written, with the bytes of the good one.
//!
//! *In-place overwrites* of present blocks happen between checkpoints. After a crash such a block
//! may hold newer bytes than the checksum in the durable leaf. The log still has those writes (the
//! caller purges only what a durable checkpoint covers), and replay writes them again; until then
//! the mismatch is expected and is not damage.
//!
//! # Extents that the log fills
//!
//! A large write goes once, to fresh extents, and a record of the log names them (*pins* them) with
//! the CRC32C of each block; later its chunk maps them, with checksums that follow from those and
//! the salt. Nothing of that stands in the store's format: who pins what is told by the log. The
//! *extent life rule*: an extent is handed out again only when
//! * no chunk maps it, and the newest durable checkpoint does not name it; and
//! * no record names it that recovery would find: the entry is purged, truncated or removed with its
//!   group, and the record that says so is durable.
//!
//! Until the second holds nobody writes to it either, not even its own chunk: the record must be
//! able to prove and to serve its payload. A small write-back moves the extent's other blocks to a
//! fresh extent instead, with the checksums that the map has for them. After a start extents are
//! pinned by the log's live records before anything is allocated. A record that is unreadable cannot
//! pin: its entry is lost here, as the log reports, and comes back from a peer with its payload; were
//! the record readable again at a later start, the checksums tell whether its extents still are.
//!
//! # Versions
//!
//! The first 12 bytes of a superblock and the crc in its last 4 mean the same in every version.
//! A store of another version is refused and both versions are named; nothing is converted on
//! open. Any change to a byte described above is a new version; reserved fields are written as
//! zero and ignored when read.

mod group_page;
mod leaf_page;
mod page;
mod retired;
mod root_page;
mod superblock;
mod table_page;

pub use group_page::{GroupHead, GroupPart, decode_group, encode_group};
pub use leaf_page::{LeafOwner, decode_leaf, encode_leaf};
pub use page::{Page, PageFault, PageHeader, PageId, PageRef, Stamp, open_page};
pub use retired::{RETIRED_VERSION, Retired, RetiredPage};
pub use root_page::{decode_root, encode_root};
pub use superblock::{STORE_MAGIC, Superblock, SuperblockFault};
pub use table_page::{TableEntry, decode_table, encode_table};

/// Version of everything this module describes.
pub const FORMAT_VERSION: u16 = 2;
