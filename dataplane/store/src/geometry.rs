//! Where each region of a device lies.
//!
//! *Place*: below everything that turns a number into a device address. *Owner*: a plain value.
//! *Invariants*: regions do not overlap and end within the device: checked when planned and when
//! read from a superblock. *On failure*: planning says which length would do.

use crate::limit::{
    DEVICE_LEN_MAX, EXTENTS_MIN, GROUP_POSITIONS_SHARE, HEAD_LEN, LOG_ALIGN, PAGE_AREA_MIN,
    PAGE_AREA_SHARE, PAGE_COPIES, PAGE_SIZE, REFS_PER_ROOT, REFS_PER_TABLE,
};
use ogee_proto::limit::EXTENT_SIZE;
use ogee_proto::unit::{ByteLen, ByteOffset};
use std::num::NonZeroU32;

const EXTENT: u64 = EXTENT_SIZE as u64;
const PAGE: u64 = PAGE_SIZE as u64;

macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(NonZeroU32);

        impl $name {
            /// From its number as stored on disk; `None` for zero, which means "none" there.
            pub fn from_raw(raw: u32) -> Option<Self> {
                NonZeroU32::new(raw).map(Self)
            }

            /// From its position in an allocator, which counts from zero.
            pub fn from_index(index: u32) -> Self {
                Self(NonZeroU32::MIN.checked_add(index).expect("invariant: fewer than 2^32 exist"))
            }

            /// The number as stored on disk.
            pub fn raw(self) -> u32 {
                self.0.get()
            }

            /// Its position in an allocator.
            pub fn index(self) -> u32 {
                self.0.get() - 1
            }
        }
    };
}

numbered!(
    /// 64 KiB of the extent region. Counts from 1.
    ExtentId
);
numbered!(
    /// 4 KiB of the metadata page area. Counts from 1.
    Slot
);

/// Why no geometry fits a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Misfit {
    /// The device must have at least this length.
    TooSmall(ByteLen),
    /// The device may have at most this length.
    TooLarge(ByteLen),
}

/// The regions of a device, in the order in which they lie on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Bytes of the device that the store uses.
    pub device_len: ByteLen,
    /// Start of the log region.
    pub log_start: ByteOffset,
    /// Length of the log region.
    pub log_len: ByteLen,
    /// Start of the metadata pages: one area of all slots per copy, back to back.
    pub pages_start: ByteOffset,
    /// Number of metadata page slots in each area.
    pub page_slots: u32,
    /// Start of the extents.
    pub extents_start: ByteOffset,
    /// Number of extents.
    pub extents: u32,
}

impl Geometry {
    /// Lays out a device of `device_len` with a log of at least `log_len`.
    pub fn plan(device_len: ByteLen, log_len: ByteLen) -> Result<Self, Misfit> {
        if device_len.get() > DEVICE_LEN_MAX {
            return Err(Misfit::TooLarge(ByteLen::new(DEVICE_LEN_MAX)));
        }
        // Capped first: a log longer than any device must not overflow the sums below.
        let log_len = log_len
            .get()
            .min(2 * DEVICE_LEN_MAX)
            .next_multiple_of(LOG_ALIGN);
        let pages_start = HEAD_LEN + log_len;
        let area = (device_len.get() / PAGE_AREA_SHARE).max(PAGE_AREA_MIN);
        let area = area - area % EXTENT;
        let extents_start = pages_start + area * PAGE_COPIES as u64;
        let minimum = extents_start + EXTENTS_MIN * EXTENT;
        if device_len.get() < minimum {
            return Err(Misfit::TooSmall(ByteLen::new(minimum)));
        }
        let extents = (device_len.get() - extents_start) / EXTENT;
        Ok(Self {
            device_len: ByteLen::new(extents_start + extents * EXTENT),
            log_start: ByteOffset::new(HEAD_LEN),
            log_len: ByteLen::new(log_len),
            pages_start: ByteOffset::new(pages_start),
            page_slots: u32::try_from(area / PAGE).expect("invariant: device length is limited"),
            extents_start: ByteOffset::new(extents_start),
            extents: u32::try_from(extents).expect("invariant: device length is limited"),
        })
    }

    /// Whether a geometry read from a superblock is one that this code could have planned.
    pub fn is_sound(&self) -> bool {
        let log_end = self.log_start.checked_add(self.log_len);
        let pages_end = self.pages_start.checked_add(self.pages_len());
        let extents_end = self.extents_start.checked_add(self.extents_len());
        let aligned = self.log_start.get().is_multiple_of(LOG_ALIGN)
            && self.pages_start.get().is_multiple_of(EXTENT)
            && self.extents_start.get().is_multiple_of(EXTENT)
            && self.log_len.get().is_multiple_of(LOG_ALIGN);
        aligned
            && self.device_len.get() <= DEVICE_LEN_MAX
            && self.page_slots >= Self::page_slots_min()
            && self.extents > 0
            && self.log_start.get() >= HEAD_LEN
            && log_end.is_some_and(|end| end <= self.pages_start)
            && pages_end.is_some_and(|end| end <= self.extents_start)
            && extents_end.is_some_and(|end| end.get() <= self.device_len.get())
    }

    /// Device address of an extent.
    pub fn extent_offset(&self, extent: ExtentId) -> ByteOffset {
        assert!(
            extent.index() < self.extents,
            "extent lies outside its region"
        );
        self.extents_start
            .add(ByteLen::new(u64::from(extent.index()) * EXTENT))
    }

    /// Device address of one copy of a page slot.
    pub fn slot_offset(&self, slot: Slot, copy: usize) -> ByteOffset {
        assert!(
            slot.index() < self.page_slots && copy < PAGE_COPIES,
            "page slot lies outside its region"
        );
        let index = copy as u64 * u64::from(self.page_slots) + u64::from(slot.index());
        self.pages_start.add(ByteLen::new(index * PAGE))
    }

    /// Leaf and group pages that may exist at once.
    ///
    /// Twice this many, and the tables and roots above them, fit the slots: one set that the
    /// durable superblock names, one that a running checkpoint writes. So a checkpoint cannot run
    /// out of slots.
    pub fn positions(&self) -> u32 {
        let half = self.page_slots / 2;
        let tables = half / count(REFS_PER_TABLE) + 1;
        let roots = tables / count(REFS_PER_ROOT) + 1;
        half - tables - roots
    }

    /// Group pages that may exist at once.
    pub fn group_pages_max(&self) -> u32 {
        self.positions() / GROUP_POSITIONS_SHARE
    }

    /// Leaf pages that may exist at once.
    pub fn leaves_max(&self) -> u32 {
        self.positions() - self.group_pages_max()
    }

    fn page_slots_min() -> u32 {
        u32::try_from(PAGE_AREA_MIN / PAGE).expect("invariant: a small constant")
    }

    fn pages_len(&self) -> ByteLen {
        ByteLen::new(u64::from(self.page_slots) * PAGE_COPIES as u64 * PAGE)
    }

    fn extents_len(&self) -> ByteLen {
        ByteLen::new(u64::from(self.extents) * EXTENT)
    }
}

fn count(value: usize) -> u32 {
    u32::try_from(value).expect("invariant: a small constant")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn every_size_is_laid_out_soundly() {
        for len in [
            36 * MIB,
            64 * MIB + 12_345,
            8 << 30,
            1 << 40,
            DEVICE_LEN_MAX,
        ] {
            let plan = Geometry::plan(ByteLen::new(len), ByteLen::new(5 * MIB + 1)).unwrap();
            assert!(plan.is_sound(), "{len}: {plan:?}");
            assert_eq!(plan.log_len.get(), 6 * MIB);
            assert!(plan.device_len.get() <= len);
            assert!(len - plan.device_len.get() < EXTENT);
        }
    }

    #[test]
    fn two_full_trees_fit_the_slots() {
        for len in [36 * MIB, 8 << 30, 1 << 40, DEVICE_LEN_MAX] {
            let plan = Geometry::plan(ByteLen::new(len), ByteLen::new(MIB)).unwrap();
            let tables = plan.positions().div_ceil(count(REFS_PER_TABLE));
            let roots = tables.div_ceil(count(REFS_PER_ROOT));
            assert!(2 * (plan.positions() + tables + roots) <= plan.page_slots);
            assert!(roots as usize <= crate::limit::ROOTS_MAX);
        }
    }

    #[test]
    fn the_whole_device_can_be_mapped_at_22_extents_a_leaf() {
        for len in [1 << 30, 8 << 30, 1 << 40, DEVICE_LEN_MAX] {
            let plan = Geometry::plan(ByteLen::new(len), ByteLen::new(MIB)).unwrap();
            assert!(plan.leaves_max() >= plan.extents / 22, "{plan:?}");
        }
    }

    #[test]
    fn misfits_name_the_length_that_fits() {
        let log = ByteLen::new(8 * MIB);
        let Err(Misfit::TooSmall(minimum)) = Geometry::plan(ByteLen::new(MIB), log) else {
            panic!("one MiB cannot hold a store");
        };
        assert!(Geometry::plan(minimum, log).is_ok());
        let below = ByteLen::new(minimum.get() - 1);
        assert_eq!(Geometry::plan(below, log), Err(Misfit::TooSmall(minimum)));
        let huge = ByteLen::new(DEVICE_LEN_MAX + 1);
        assert_eq!(
            Geometry::plan(huge, log),
            Err(Misfit::TooLarge(ByteLen::new(DEVICE_LEN_MAX)))
        );
        assert!(Geometry::plan(ByteLen::new(1 << 30), ByteLen::new(u64::MAX)).is_err());
    }

    #[test]
    fn overlap_and_overrun_are_unsound() {
        let sound = Geometry::plan(ByteLen::new(64 * MIB), ByteLen::new(MIB)).unwrap();
        let overlap = Geometry {
            pages_start: sound.log_start,
            ..sound
        };
        let overrun = Geometry {
            extents: sound.extents + 1,
            ..sound
        };
        let wrapped = Geometry {
            log_len: ByteLen::new(u64::MAX - MIB + 1),
            ..sound
        };
        for bad in [
            overlap,
            overrun,
            wrapped,
            Geometry {
                page_slots: 0,
                ..sound
            },
        ] {
            assert!(!bad.is_sound(), "{bad:?}");
        }
    }
}
