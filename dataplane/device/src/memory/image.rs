//! The contents of a device: sparse, cheap to copy.

use crate::limit::CRASH_SECTOR;
use ogee_proto::limit::BLOCK_SIZE;
use ogee_proto::unit::{ByteLen, ByteOffset};
use std::collections::BTreeMap;
use std::rc::Rc;

const BLOCK: u64 = BLOCK_SIZE as u64;
const _: () = assert!(BLOCK_SIZE.is_multiple_of(CRASH_SECTOR));

/// Blocks by number; one that is missing is zeros. A copy shares all blocks until they change.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    blocks: BTreeMap<u64, Rc<[u8; BLOCK_SIZE]>>,
}

impl Image {
    /// Fills `out`, a whole number of blocks, from a block border on.
    pub(super) fn read(&self, offset: ByteOffset, out: &mut [u8]) {
        let first = offset.get() / BLOCK;
        for (number, out) in (first..).zip(out.chunks_exact_mut(BLOCK_SIZE)) {
            match self.blocks.get(&number) {
                Some(block) => out.copy_from_slice(block.as_slice()),
                None => out.fill(0),
            }
        }
    }

    /// Writes whole blocks from a block border on.
    pub(super) fn write(&mut self, offset: ByteOffset, data: &[u8]) {
        let first = offset.get() / BLOCK;
        for (number, data) in (first..).zip(data.chunks_exact(BLOCK_SIZE)) {
            Rc::make_mut(self.block(number)).copy_from_slice(data);
        }
    }

    /// Writes one sector, by number.
    pub(super) fn write_sector(&mut self, sector: u64, data: &[u8; CRASH_SECTOR]) {
        let per_block = BLOCK / CRASH_SECTOR as u64;
        let block = Rc::make_mut(self.block(sector / per_block));
        let at = ByteLen::new(sector % per_block).as_usize() * CRASH_SECTOR;
        block[at..at + CRASH_SECTOR].copy_from_slice(data);
    }

    /// Forgets whole blocks.
    pub(super) fn zero(&mut self, offset: ByteOffset, len: ByteLen) {
        let first = offset.get() / BLOCK;
        let last = first + len.get() / BLOCK;
        let numbers: Vec<u64> = self
            .blocks
            .range(first..last)
            .map(|(number, _)| *number)
            .collect();
        for number in numbers {
            self.blocks.remove(&number);
        }
    }

    /// Blocks of a range that were ever written.
    #[cfg(ogee_sim)]
    pub(super) fn held(&self, blocks: std::ops::Range<u64>) -> Vec<u64> {
        self.blocks
            .range(blocks)
            .map(|(number, _)| *number)
            .collect()
    }

    /// Blocks of a range that hold anything but zeros.
    #[cfg(ogee_sim)]
    pub(super) fn with_data(&self, blocks: std::ops::Range<u64>) -> usize {
        let held = self.blocks.range(blocks);
        held.filter(|(_, block)| block.iter().any(|byte| *byte != 0))
            .count()
    }

    /// Flips bits of one byte of a block.
    #[cfg(ogee_sim)]
    pub(super) fn flip(&mut self, number: u64, byte: usize, mask: u8) {
        Rc::make_mut(self.block(number))[byte] ^= mask;
    }

    fn block(&mut self, number: u64) -> &mut Rc<[u8; BLOCK_SIZE]> {
        self.blocks
            .entry(number)
            .or_insert_with(|| Rc::new([0; BLOCK_SIZE]))
    }
}
