//! Where everything lies in the memory that is shared: rings first, then what describes requests, then their data.
//!
//! *Place*: read by everything here. *Owner*: none; plain numbers. *Invariants*: parts do not overlap and lie within
//! [`Layout::len`]; descriptors are aligned as the specification asks, data to pages. *On failure*: a load that does not
//! fit is refused before anything is made.

use super::error::VhostError;
use crate::workload::Workload;

/// Places of the largest ring that servers take, ours among them.
pub(super) const DEPTH_MAX: usize = 1024;
/// Places of the smallest ring.
const SIZE_MIN: u16 = 8;
/// Data and rings begin at pages.
const PAGE: u64 = 4096;
/// Of each slot: the request's header, its status and its descriptors.
const SLOT_SPAN: u64 = 128;
/// Where they are within it.
pub(super) const STATUS_AT: u64 = 16;
pub(super) const TABLE_AT: u64 = 64;
/// Bytes of a descriptor.
pub(super) const DESCRIPTOR_LEN: u64 = 16;
/// Bytes of an element of the used part.
pub(super) const USED_LEN: u64 = 8;

const _: () = assert!(TABLE_AT + 3 * DESCRIPTOR_LEN <= SLOT_SPAN);
const _: () = assert!(STATUS_AT < TABLE_AT);

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    queues: u16,
    /// Places of a ring.
    size: u16,
    /// Slots of a ring.
    depth: u16,
    /// Bytes of the largest request.
    request_max: u64,
}

/// Where the three parts of a ring are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RingPlace {
    pub(super) size: u16,
    pub(super) table: u64,
    pub(super) available: u64,
    pub(super) used: u64,
}

impl Layout {
    /// For a load on one disk.
    pub(super) fn of(workload: &Workload) -> Result<Self, VhostError> {
        workload.check_shape(1)?;
        let (jobs, depth) = (workload.jobs, workload.iodepth);
        let refused = |_| VhostError::Depth(depth);
        if depth > DEPTH_MAX {
            return Err(VhostError::Depth(depth));
        }
        let depth = u16::try_from(depth).map_err(refused)?;
        Ok(Self {
            // Bounded by the requests that a load may have under way.
            queues: u16::try_from(jobs).map_err(refused)?,
            size: depth.next_power_of_two().max(SIZE_MIN),
            depth,
            request_max: workload.sizes.largest().get().next_multiple_of(PAGE),
        })
    }

    pub(super) const fn queues(&self) -> u16 {
        self.queues
    }

    pub(super) const fn depth(&self) -> u16 {
        self.depth
    }

    /// Bytes of all.
    pub(super) fn len(&self) -> u64 {
        self.data_start() + self.slots() * self.request_max
    }

    /// A ring.
    pub(super) fn ring(&self, queue: usize) -> RingPlace {
        let table = queue as u64 * self.ring_span();
        RingPlace {
            size: self.size,
            table,
            available: table + self.available_at(),
            used: table + self.used_at(),
        }
    }

    /// What describes the request in a slot.
    pub(super) fn slot(&self, queue: usize, slot: u16) -> u64 {
        self.slots_start() + self.number(queue, slot) * SLOT_SPAN
    }

    /// Its data.
    pub(super) fn data(&self, queue: usize, slot: u16) -> u64 {
        self.data_start() + self.number(queue, slot) * self.request_max
    }

    fn number(&self, queue: usize, slot: u16) -> u64 {
        queue as u64 * u64::from(self.depth) + u64::from(slot)
    }

    fn slots(&self) -> u64 {
        u64::from(self.queues) * u64::from(self.depth)
    }

    fn available_at(&self) -> u64 {
        DESCRIPTOR_LEN * u64::from(self.size)
    }

    /// A line of the cache behind the part that we write.
    fn used_at(&self) -> u64 {
        (self.available_at() + 6 + 2 * u64::from(self.size)).next_multiple_of(64)
    }

    fn ring_span(&self) -> u64 {
        (self.used_at() + 6 + USED_LEN * u64::from(self.size)).next_multiple_of(PAGE)
    }

    fn slots_start(&self) -> u64 {
        u64::from(self.queues) * self.ring_span()
    }

    fn data_start(&self) -> u64 {
        (self.slots_start() + self.slots() * SLOT_SPAN).next_multiple_of(PAGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ogee_proto::unit::ByteLen;

    fn layout(jobs: usize, iodepth: usize, bs: u64) -> Layout {
        let load = Workload {
            jobs,
            iodepth,
            sizes: crate::Sizes::one(ByteLen::new(bs)),
            ..Workload::default()
        };
        Layout::of(&load).unwrap()
    }

    #[test]
    fn nothing_overlaps_and_all_is_within() {
        for (jobs, depth, bs) in [(1, 1, 4096), (3, 33, 12288), (2, 1024, 4096)] {
            let layout = layout(jobs, depth, bs);
            let mut parts = Vec::new();
            for queue in 0..jobs {
                let ring = layout.ring(queue);
                let size = u64::from(ring.size);
                assert!(ring.size.is_power_of_two() && usize::from(ring.size) >= depth);
                let parts_of = [(ring.table, 16), (ring.available, 2), (ring.used, 4)];
                assert!(parts_of.iter().all(|(at, unit)| at.is_multiple_of(*unit)));
                parts.push((ring.table, 16 * size));
                parts.push((ring.available, 6 + 2 * size));
                parts.push((ring.used, 6 + 8 * size));
                for slot in 0..layout.depth() {
                    parts.push((layout.slot(queue, slot), SLOT_SPAN));
                    parts.push((layout.data(queue, slot), bs));
                }
            }
            parts.sort_unstable();
            for pair in parts.windows(2) {
                assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:?}");
            }
            let last = parts.last().unwrap();
            assert_eq!(last.0 + last.1, layout.len());
        }
    }

    #[test]
    fn a_depth_that_fits_no_ring_is_refused_by_its_value() {
        let load = Workload {
            iodepth: 1025,
            ..Workload::default()
        };
        let error = Layout::of(&load).unwrap_err().to_string();
        assert!(error.contains("1025") && error.contains("1024"), "{error}");
    }
}
