//! Every limit of the log, derived and asserted.
//!
//! *Place*: read by all modules of this crate. *Owner*: constants only. *Invariants*: the `const`
//! assertions at the end. *On failure*: the crate does not compile.

use crate::placed::side_len;
use ogee_proto::limit::{BLOCK_SIZE, REPLICATION_PAYLOAD_MAX};
use std::time::Duration;

/// Unit of every position and length on the device, in bytes.
pub const PAGE: usize = BLOCK_SIZE;
/// Default length of a segment, in bytes: the unit of trim and of epoch.
pub const SEGMENT_LEN_DEFAULT: usize = 8 << 20;
/// Smallest segment, in bytes: a header of four pages and two entries of [`payload_max`].
pub const SEGMENT_LEN_MIN: usize = 64 << 10;
/// Largest segment, in bytes: positions inside a segment are 32-bit page numbers and recovery
/// scans one whole segment after a torn tail.
pub const SEGMENT_LEN_MAX: usize = 1 << 30;

/// Sequences and epochs grow by one: a medium that says more than this does not tell the truth, and
/// what is below never reaches the end of its range.
pub const SEQUENCE_MAX: u64 = u64::MAX / 2;

/// Inline `head` of one entry, in bytes: a batch's header page always has room for one.
pub const HEAD_LEN_MAX: usize = 2 << 10;
/// Payload of one entry, and of one batch of several entries, in bytes.
pub const PAYLOAD_LEN_MAX: usize = REPLICATION_PAYLOAD_MAX;
/// Payload bytes that one round writes beside its batch, to extents of the store: a few requests of
/// the largest size in flight together.
pub const PLACED_LEN_MAX: usize = 4 * PAYLOAD_LEN_MAX;
/// Header area of one batch, in bytes: about a thousand records without heads.
pub const HEADER_AREA_MAX: usize = 64 << 10;
/// Bytes of what a batch says of one record of the batch before it.
const REPEAT_BYTES: usize = 32;
/// Entries of one group that are listed as lost: of a log that lost more the replica is replaced.
pub const LOST_ENTRIES_MAX: u64 = 1 << 18;
/// Groups of one log: a store belongs to one shard, and a shard serves tens to hundreds.
pub const GROUPS_MAX: usize = 1024;

/// Free segments that entries may not use.
///
/// One takes what control records (votes, purges …) overflow out of the last segment with entries,
/// two alternate: segments that hold control records only have no live entry and are free as soon
/// as the next one is begun. The same two serve repeated opens, each of which begins a segment.
pub const RESERVED_SEGMENTS: usize = 3;
/// Fewest segments of a region: the reserve, the active one and one to turn over.
pub const SEGMENTS_MIN: usize = RESERVED_SEGMENTS + 2;
/// Most segments of a region: bounds the table kept in memory and the headers read at open.
pub const SEGMENTS_MAX: usize = 1 << 20;
/// Entries without payload that each group finds room for in a log that is full to all others: a leader
/// that begins adds one, a change of members up to four.
pub const UNASKED_ENTRIES: u64 = 8;
/// The room for those is at most the capacity over this number.
pub const UNASKED_SHARE: u64 = 16;
/// A segment is copied forward only if its live bytes are at most its length over this number.
pub const COMPACTION_LIVE_DIVISOR: u64 = 4;

/// Bytes (payload and header pages) that may wait for the flusher.
///
/// Admission above keeps in-flight requests far below; reaching it means admission is broken.
pub const QUEUE_BYTES_MAX: u64 = 256 << 20;
/// Bytes of one group that are promised room in the queue at a time: the others find room beside it.
pub const QUEUE_GROUP_BYTES_MAX: u64 = QUEUE_BYTES_MAX / 8;
/// Records that may wait for the flusher.
pub const QUEUE_RECORDS_MAX: usize = 1 << 20;
/// Default bytes of payload kept in memory after it became durable.
pub const CACHE_LEN_DEFAULT: usize = 64 << 20;
/// Most bytes that one device read of the log asks for.
pub const READ_LEN_MAX: usize = PAYLOAD_LEN_MAX;
/// Bytes that recovery reads at once while it walks batch headers.
pub const SCAN_WINDOW: usize = 256 << 10;
/// Idle time after which the last batch's durability is written down (a *closing* batch).
pub const IDLE_CLOSE: Duration = Duration::from_millis(10);
/// Default share of the capacity, in percent, above which the log reports pressure.
pub const PRESSURE_PERCENT_DEFAULT: u8 = 70;

/// Payload of one entry in a log of segments of `segment_len` bytes.
#[must_use]
pub const fn payload_max(segment_len: usize) -> usize {
    let quarter = segment_len / 4 / PAGE * PAGE;
    if quarter < PAYLOAD_LEN_MAX {
        quarter
    } else {
        PAYLOAD_LEN_MAX
    }
}

/// Header area of one batch in a log of segments of `segment_len` bytes.
#[must_use]
pub const fn header_area_max(segment_len: usize) -> usize {
    let eighth = segment_len / 8 / PAGE * PAGE;
    if eighth < HEADER_AREA_MAX {
        eighth
    } else {
        HEADER_AREA_MAX
    }
}

/// Records of one batch in a log of segments of `segment_len` bytes: the next batch repeats them, and
/// they leave it half of its header area.
#[must_use]
pub const fn records_max(segment_len: usize) -> usize {
    header_area_max(segment_len) / 2 / REPEAT_BYTES - 4
}

/// Bytes of the largest header area of a batch with one record.
#[must_use]
pub const fn lone_header_max(segment_len: usize) -> usize {
    let record = 64 + HEAD_LEN_MAX + side_len(payload_max(segment_len));
    page_up(96 + record + records_max(segment_len) * REPEAT_BYTES)
}

/// Free segments, beyond the reserve, at or below which live entries are copied forward: early
/// enough that it need not be waited for, late enough that most entries die first.
pub(crate) const fn compaction_low_water(slots: usize) -> usize {
    if slots / 8 > 2 { slots / 8 } else { 2 }
}

/// Bytes of whole pages that hold `len` bytes.
#[must_use]
pub(crate) const fn page_up(len: usize) -> usize {
    len.div_ceil(PAGE) * PAGE
}

/// Number of pages in `len` bytes of one segment (so it fits 32 bits).
pub(crate) fn page_number(len: usize) -> u32 {
    u32::try_from(len / PAGE).expect("invariant: a position in a segment is below SEGMENT_LEN_MAX")
}

const _: () = assert!(SEGMENT_LEN_MIN.is_multiple_of(PAGE));
const _: () = assert!(SEGMENT_LEN_MAX / PAGE <= u32::MAX as usize);
const _: () = assert!(PAYLOAD_LEN_MAX.is_multiple_of(PAGE));
const _: () = assert!(PLACED_LEN_MAX >= PAYLOAD_LEN_MAX);
// A record with the largest head fits the first header page (batch header 96, record header 64) and
// leaves room for the repeats of a batch as large as the share of three such records allows.
const _: () = assert!(96 + 64 + HEAD_LEN_MAX + 3 * REPEAT_BYTES <= PAGE);
const _: () = assert!(lone_header_max(SEGMENT_LEN_MIN) <= header_area_max(SEGMENT_LEN_MIN));
const _: () = assert!(lone_header_max(SEGMENT_LEN_MAX) <= HEADER_AREA_MAX);
const _: () = assert!(header_area_max(SEGMENT_LEN_MIN) >= PAGE);
// A segment takes its header (a quarter at most) and two of the largest entries.
const _: () = assert!(
    SEGMENT_LEN_MIN / 4 + 2 * (payload_max(SEGMENT_LEN_MIN) + lone_header_max(SEGMENT_LEN_MIN))
        <= SEGMENT_LEN_MIN
);
const _: () = assert!(payload_max(SEGMENT_LEN_DEFAULT) == PAYLOAD_LEN_MAX);
