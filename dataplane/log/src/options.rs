//! Where a log lies and how it is cut.
//!
//! *Place*: given to `Log::format` and `Log::open`. *Owner*: plain values of the caller.
//! *Invariants*: a [`Geometry`] that exists is within the limits. *On failure*: `LogError::Bounds`.

use crate::error::{GeometryField, LogError};
use crate::format::{BATCH_HEADER_LEN, TABLE_RECORD_LEN};
use crate::limit::{
    CACHE_LEN_DEFAULT, GROUPS_MAX, PAGE, PRESSURE_PERCENT_DEFAULT, RESERVED_SEGMENTS,
    SEGMENT_LEN_DEFAULT, SEGMENT_LEN_MAX, SEGMENT_LEN_MIN, SEGMENTS_MAX, SEGMENTS_MIN,
    header_area_max, lone_header_max, page_up, payload_max, records_max,
};
use ogee_proto::id::StoreId;
use ogee_proto::unit::{ByteLen, ByteOffset};

/// The part of a device that a log owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRegion {
    /// First byte, on the device.
    pub start: ByteOffset,
    /// Length; a rest shorter than a segment stays unused.
    pub len: ByteLen,
}

/// How a log is cut and how much memory it may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// The store that the log belongs to; salts everything written.
    pub store: StoreId,
    /// Length of a segment; fixed at format.
    pub segment_len: ByteLen,
    /// Bytes of durable payload kept in memory.
    pub cache_len: ByteLen,
    /// Share of the capacity above which the log reports pressure.
    pub pressure_percent: u8,
}

impl LogOptions {
    /// The defaults for `store`.
    #[must_use]
    pub const fn new(store: StoreId) -> Self {
        Self {
            store,
            segment_len: ByteLen::from_usize(SEGMENT_LEN_DEFAULT),
            cache_len: ByteLen::from_usize(CACHE_LEN_DEFAULT),
            pressure_percent: PRESSURE_PERCENT_DEFAULT,
        }
    }

    /// Whether a log can be made in a region of this length.
    ///
    /// # Errors
    /// `Bounds`, with what is allowed.
    pub fn check_len(&self, len: ByteLen) -> Result<(), LogError> {
        let start = ByteOffset::ZERO;
        Geometry::new(LogRegion { start, len }, self.segment_len).map(drop)
    }
}

/// Region and segment length, checked, with what follows from them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Geometry {
    pub region: LogRegion,
    pub segment_len: usize,
    pub slots: usize,
    pub payload_max: usize,
    pub header_area_max: usize,
    pub records_max: usize,
    pub lone_header_max: usize,
    pub groups_max: usize,
}

impl Geometry {
    pub(crate) fn new(region: LogRegion, segment_len: ByteLen) -> Result<Self, LogError> {
        let bounds = |field, found, min: usize, max: u64| LogError::Bounds {
            field,
            found,
            min: ByteLen::from_usize(min),
            max: ByteLen::new(max),
        };
        let len = segment_len.as_usize();
        if !(SEGMENT_LEN_MIN..=SEGMENT_LEN_MAX).contains(&len) || !len.is_multiple_of(PAGE) {
            let max = SEGMENT_LEN_MAX as u64;
            return Err(bounds(
                GeometryField::SegmentLen,
                segment_len,
                SEGMENT_LEN_MIN,
                max,
            ));
        }
        let end = region.start.checked_add(region.len);
        if !region.start.is_multiple_of(PAGE) || end.is_none() {
            let found = ByteLen::new(region.start.get());
            return Err(bounds(
                GeometryField::RegionStart,
                found,
                0,
                u64::MAX - region.len.get(),
            ));
        }
        let slots = region.len.as_usize() / len;
        if !(SEGMENTS_MIN..=SEGMENTS_MAX).contains(&slots) {
            let max = (len as u64).saturating_mul(SEGMENTS_MAX as u64);
            return Err(bounds(
                GeometryField::RegionLen,
                region.len,
                SEGMENTS_MIN * len,
                max,
            ));
        }
        Ok(Self {
            region,
            segment_len: len,
            slots,
            payload_max: payload_max(len),
            header_area_max: header_area_max(len),
            records_max: records_max(len),
            lone_header_max: lone_header_max(len),
            groups_max: groups_max(len),
        })
    }

    /// Where segment slot `slot` begins, on the device.
    pub(crate) const fn slot_start(&self, slot: usize) -> ByteOffset {
        self.region
            .start
            .add(ByteLen::from_usize(slot * self.segment_len))
    }

    /// Bytes of a segment header that lists `groups` groups: two head pages, two tables.
    pub(crate) const fn head_len(groups: usize) -> usize {
        2 * PAGE + 2 * page_up(groups * TABLE_RECORD_LEN)
    }

    /// Bytes that entries are sure to find in a segment of `groups` groups.
    ///
    /// A segment is left when the next entry does not fit: at most one entry's length is wasted.
    pub(crate) const fn usable_len(&self, groups: usize) -> usize {
        self.segment_len - Self::head_len(groups) - self.entry_cost_max()
    }

    /// Bytes that the largest entry takes, alone in the batch after the one with the most records.
    pub(crate) const fn entry_cost_max(&self) -> usize {
        self.payload_max + self.lone_header_max
    }

    /// Segments that entries may use.
    pub(crate) const fn data_slots(&self) -> usize {
        self.slots - RESERVED_SEGMENTS
    }
}

/// Groups whose table, twice, takes at most a quarter of a segment with the head pages.
const fn groups_max(segment_len: usize) -> usize {
    let table_pages = (segment_len / 4 / PAGE - 2) / 2;
    let groups = table_pages * PAGE / TABLE_RECORD_LEN;
    if groups < GROUPS_MAX {
        groups
    } else {
        GROUPS_MAX
    }
}

const _: () = assert!(groups_max(SEGMENT_LEN_MIN) > 0);
const _: () = assert!(groups_max(SEGMENT_LEN_DEFAULT) == GROUPS_MAX);
const _: () = assert!(BATCH_HEADER_LEN < PAGE);

#[cfg(test)]
mod tests {
    use super::{Geometry, LogRegion};
    use crate::error::{GeometryField, LogError};
    use crate::limit::{PAYLOAD_LEN_MAX, SEGMENT_LEN_DEFAULT, SEGMENT_LEN_MIN, SEGMENTS_MIN};
    use ogee_proto::unit::{ByteLen, ByteOffset};

    fn geometry(start: u64, len: usize, segment: usize) -> Result<Geometry, LogError> {
        let region = LogRegion {
            start: ByteOffset::new(start),
            len: ByteLen::from_usize(len),
        };
        Geometry::new(region, ByteLen::from_usize(segment))
    }

    #[test]
    fn default_segments_take_the_largest_entry() {
        let made = geometry(8192, 100 << 20, SEGMENT_LEN_DEFAULT).unwrap();
        assert_eq!(made.slots, 12);
        assert_eq!(made.payload_max, PAYLOAD_LEN_MAX);
        assert_eq!(
            made.slot_start(2).get(),
            8192 + 2 * SEGMENT_LEN_DEFAULT as u64
        );
        assert!(made.usable_len(made.groups_max) > made.entry_cost_max());
    }

    #[test]
    fn smallest_segments_take_two_of_their_largest_entries() {
        let made = geometry(0, SEGMENTS_MIN * SEGMENT_LEN_MIN, SEGMENT_LEN_MIN).unwrap();
        assert!(made.usable_len(made.groups_max) >= made.entry_cost_max());
    }

    #[test]
    fn bounds_name_the_field() {
        let field = |result: Result<Geometry, LogError>| match result.unwrap_err() {
            LogError::Bounds { field, .. } => field,
            other => panic!("unexpected {other}"),
        };
        let too_short = geometry(0, (SEGMENTS_MIN - 1) * SEGMENT_LEN_MIN, SEGMENT_LEN_MIN);
        assert_eq!(field(too_short), GeometryField::RegionLen);
        assert_eq!(
            field(geometry(0, 100 << 20, 4096)),
            GeometryField::SegmentLen
        );
        assert_eq!(
            field(geometry(0, 100 << 20, 65_537)),
            GeometryField::SegmentLen
        );
        assert_eq!(
            field(geometry(512, 100 << 20, 65_536)),
            GeometryField::RegionStart
        );
    }
}
