//! What the guest is told about the disk.
//!
//! *Place*: read by `control` (features, configuration space) and `request` (limits). *Owner*: the export; the size
//! may grow, the rest is fixed. *Invariants*: what is told here is what requests are held to.
//! *On failure*: none.
//!
//! virtio 1.2, sections 5.2.3 and 5.2.4.

use crate::limit::{CHAIN_MAX, DISCARD_LEN_MAX, DISCARD_SEGMENTS_MAX, PAYLOAD_MAX};
use ogee_proto::limit::{BLOCK_SIZE, EXTENT_SIZE};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Unit of all positions on the wire, whatever the block size.
pub(super) const SECTOR_LEN: u64 = 512;
/// Segments of a transfer: a chain without header and status.
const SEGMENTS_MAX: u32 = CHAIN_MAX as u32 - 2;
/// Bytes of each, so that all of them together are no longer than a request may be.
const SEGMENT_LEN_MAX: u32 = 128 << 10;
const _: () = assert!(SEGMENTS_MAX as usize * SEGMENT_LEN_MAX as usize <= PAYLOAD_MAX);

/// Bytes of the configuration space that hold something.
const SPACE_LEN: usize = 60;
/// Bytes that anybody may ask for: the most that the protocol carries.
pub(super) const SPACE_LEN_MAX: usize = 256;

/// Feature bits.
pub(super) mod feature {
    pub(in crate::vhost) const SIZE_MAX: u64 = 1 << 1;
    pub(in crate::vhost) const SEG_MAX: u64 = 1 << 2;
    pub(in crate::vhost) const RO: u64 = 1 << 5;
    pub(in crate::vhost) const BLK_SIZE: u64 = 1 << 6;
    pub(in crate::vhost) const FLUSH: u64 = 1 << 9;
    pub(in crate::vhost) const TOPOLOGY: u64 = 1 << 10;
    pub(in crate::vhost) const MQ: u64 = 1 << 12;
    pub(in crate::vhost) const DISCARD: u64 = 1 << 13;
    pub(in crate::vhost) const WRITE_ZEROES: u64 = 1 << 14;
    pub(in crate::vhost) const INDIRECT: u64 = 1 << 28;
    pub(in crate::vhost) const EVENT_INDEX: u64 = 1 << 29;
    pub(in crate::vhost) const PROTOCOL: u64 = 1 << 30;
    pub(in crate::vhost) const VERSION_1: u64 = 1 << 32;
}

/// What requests are checked against, as of one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Geometry {
    pub(super) size: u64,
    pub(super) block_size: u32,
    pub(super) is_read_only: bool,
}

/// A disk as the guest sees it. Clones share the size.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    size: Arc<AtomicU64>,
    block_size: u32,
    is_read_only: bool,
    queues: u16,
}

impl Shape {
    pub(super) fn new(size: u64, block_size: u32, is_read_only: bool, queues: u16) -> Self {
        Self {
            size: Arc::new(AtomicU64::new(size)),
            block_size,
            is_read_only,
            queues,
        }
    }

    pub(super) fn resize(&self, size: u64) {
        self.size.store(size, Ordering::Release);
    }

    pub(super) fn geometry(&self) -> Geometry {
        Geometry {
            size: self.size.load(Ordering::Acquire),
            block_size: self.block_size,
            is_read_only: self.is_read_only,
        }
    }

    pub(super) const fn queues(&self) -> u16 {
        self.queues
    }

    /// All that we offer.
    pub(super) const fn features(&self) -> u64 {
        let offered = feature::VERSION_1
            | feature::PROTOCOL
            | feature::EVENT_INDEX
            | feature::INDIRECT
            | feature::SIZE_MAX
            | feature::SEG_MAX
            | feature::BLK_SIZE
            | feature::TOPOLOGY
            | feature::FLUSH
            | feature::MQ;
        match self.is_read_only {
            true => offered | feature::RO,
            false => offered | feature::DISCARD | feature::WRITE_ZEROES,
        }
    }

    /// `len` bytes of the configuration space; what lies behind its end is zero.
    pub(super) fn space(&self, offset: usize, len: usize) -> Option<Vec<u8>> {
        let end = offset.checked_add(len)?;
        if end > SPACE_LEN_MAX {
            return None;
        }
        let mut space = [0; SPACE_LEN_MAX];
        space[..SPACE_LEN].copy_from_slice(&self.encode());
        Some(space[offset..end].to_vec())
    }

    fn encode(&self) -> [u8; SPACE_LEN] {
        let block = BLOCK_SIZE as u64;
        // The disk's own blocks are larger than what it can be addressed by: the guest should align to them.
        let physical = (block / u64::from(self.block_size)).trailing_zeros();
        let per_block = |len: u64| u32::try_from(len / u64::from(self.block_size));
        let sectors = u32::try_from(DISCARD_LEN_MAX / SECTOR_LEN).unwrap_or(u32::MAX);
        let align = u32::try_from(block / SECTOR_LEN).unwrap_or(1);
        let mut space = Space::default();
        space.u64(0, self.geometry().size / SECTOR_LEN);
        space.u32(8, SEGMENT_LEN_MAX);
        space.u32(12, SEGMENTS_MAX);
        space.u32(20, self.block_size);
        space.bytes(24, &[u8::try_from(physical).unwrap_or(0)]);
        let smallest = u16::try_from(block / u64::from(self.block_size)).unwrap_or(1);
        space.bytes(26, &smallest.to_le_bytes());
        space.u32(28, per_block(EXTENT_SIZE as u64).unwrap_or(1));
        space.bytes(34, &self.queues.to_le_bytes());
        for first in [36, 48] {
            space.u32(first, sectors);
            space.u32(first + 4, u32::from(DISCARD_SEGMENTS_MAX));
        }
        space.u32(44, align);
        // Zeroing may give space back.
        space.bytes(56, &[1]);
        space.0
    }
}

struct Space([u8; SPACE_LEN]);

impl Default for Space {
    fn default() -> Self {
        Self([0; SPACE_LEN])
    }
}

impl Space {
    fn bytes(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn u32(&mut self, at: usize, value: u32) {
        self.bytes(at, &value.to_le_bytes());
    }

    fn u64(&mut self, at: usize, value: u64) {
        self.bytes(at, &value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn u32_at(space: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(space[at..at + 4].try_into().expect("four bytes"))
    }

    #[test]
    fn the_guest_is_told_size_blocks_and_limits() {
        let shape = Shape::new(1 << 30, 512, false, 4);
        let space = shape.space(0, SPACE_LEN).expect("within the space");
        assert_eq!(u32_at(&space, 0), 1 << 21);
        assert_eq!(u32_at(&space, 20), 512);
        assert_eq!(space[24], 3, "physical blocks of 4096 bytes");
        assert_eq!(&space[26..28], &8_u16.to_le_bytes());
        assert_eq!(u32_at(&space, 28), 128, "64 KiB");
        assert_eq!(&space[34..36], &4_u16.to_le_bytes());
        assert_eq!(u32_at(&space, 44), 8);
        shape.resize(2 << 30);
        let space = shape.space(0, 8).expect("within the space");
        assert_eq!(u32_at(&space, 0), 2 << 21);
    }

    #[test]
    fn the_space_ends_with_zeros_and_then_not_at_all() {
        let shape = Shape::new(1 << 20, 4096, true, 1);
        assert_eq!(shape.space(SPACE_LEN, 96), Some(vec![0; 96]));
        assert_eq!(shape.space(SPACE_LEN_MAX, 0), Some(Vec::new()));
        assert_eq!(shape.space(1, SPACE_LEN_MAX), None);
        assert_eq!(shape.space(usize::MAX, 2), None);
        assert_eq!(shape.features() & feature::DISCARD, 0);
        assert_ne!(shape.features() & feature::RO, 0);
    }
}
