//! CRC32C (Castagnoli), hardware accelerated.

use crate::limit::BLOCK_SIZE;

/// CRC32C of `bytes`.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// Continues a CRC32C over `bytes`: `crc32c_append(crc32c(a), b) == crc32c(a ++ b)`.
#[must_use]
pub fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc, bytes)
}

/// CRC of a concatenation, from the CRCs of its parts: `second_len` is the length of the second.
#[must_use]
pub fn crc32c_combine(first: u32, second: u32, second_len: usize) -> u32 {
    crc32c::crc32c_combine(first, second, second_len)
}

/// Continues a CRC32C over one block whose own CRC32C is known: as [`crc32c_combine`] for a second
/// part of [`BLOCK_SIZE`], without working out the operator for that length again.
#[must_use]
pub fn crc32c_append_block(crc: u32, block_crc: u32) -> u32 {
    times(&BLOCK_SHIFT, crc) ^ block_crc
}

/// The same for so many blocks whose CRC32C together is known.
#[must_use]
pub fn crc32c_append_blocks(crc: u32, blocks_crc: u32, blocks: usize) -> u32 {
    let shifted = (0..blocks).fold(crc, |crc, _| times(&BLOCK_SHIFT, crc));
    shifted ^ blocks_crc
}

/// CRC32C of blocks, from those of each.
#[must_use]
pub fn crc32c_of_blocks(crcs: &[u32]) -> u32 {
    let append = |crc, block: &u32| crc32c_append_block(crc, *block);
    crcs.iter().fold(crc32c(&[]), append)
}

/// CRC32C of each block of `bytes`, and of all of them together, in one pass over the bytes.
///
/// # Panics
/// When `bytes` is not whole blocks.
#[must_use]
pub fn crc32c_blocks(bytes: &[u8]) -> (Vec<u32>, u32) {
    assert!(bytes.len().is_multiple_of(BLOCK_SIZE), "whole blocks");
    let crcs: Vec<u32> = bytes.chunks_exact(BLOCK_SIZE).map(crc32c).collect();
    let whole = crc32c_of_blocks(&crcs);
    (crcs, whole)
}

/// A linear map of CRC registers: what each bit becomes.
type Operator = [u32; 32];

/// What a block of zeros does to the register.
const BLOCK_SHIFT: Operator = zeros(BLOCK_SIZE * 8);

/// The operator of so many zero bits, a power of two: squared as often as that has factors.
const fn zeros(bits: usize) -> Operator {
    assert!(bits.is_power_of_two());
    let mut operator = ONE_BIT;
    let mut left = bits.trailing_zeros();
    while left > 0 {
        operator = square(&operator);
        left -= 1;
    }
    operator
}

/// One zero bit: the reflected register moves down, and the polynomial comes in for the bit that
/// falls out.
const ONE_BIT: Operator = {
    let mut operator = [0; 32];
    operator[0] = 0x82f6_3b78;
    let mut bit = 1;
    while bit < 32 {
        operator[bit] = 1 << (bit - 1);
        bit += 1;
    }
    operator
};

const fn square(operator: &Operator) -> Operator {
    let mut squared = [0; 32];
    let mut bit = 0;
    while bit < 32 {
        squared[bit] = times(operator, operator[bit]);
        bit += 1;
    }
    squared
}

const fn times(operator: &Operator, register: u32) -> u32 {
    let (mut sum, mut bit) = (0, 0);
    while bit < 32 {
        sum ^= operator[bit] & (register >> bit & 1).wrapping_neg();
        bit += 1;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: usize) -> Vec<u8> {
        (0u32..)
            .map(|at| at.wrapping_mul(0x9e37_79b9).to_le_bytes()[3])
            .take(len)
            .collect()
    }

    #[test]
    fn a_block_is_appended_by_its_checksum_alone() {
        let all = bytes(3 * BLOCK_SIZE + 5);
        for split in [0, 1, 5, 100, BLOCK_SIZE] {
            let (before, rest) = all.split_at(split);
            let block = &rest[..BLOCK_SIZE];
            let joined = crc32c_append_block(crc32c(before), crc32c(block));
            assert_eq!(joined, crc32c_append(crc32c(before), block));
            assert_eq!(
                joined,
                crc32c_combine(crc32c(before), crc32c(block), BLOCK_SIZE)
            );
        }
    }

    #[test]
    fn blocks_and_the_whole_are_told_in_one_pass() {
        let all = bytes(5 * BLOCK_SIZE);
        for count in 0..=4 {
            let (before, rest) = all.split_at(100);
            let blocks = &rest[..count * BLOCK_SIZE];
            let joined = crc32c_append_blocks(crc32c(before), crc32c(blocks), count);
            assert_eq!(joined, crc32c_append(crc32c(before), blocks));
        }
        let (blocks, whole) = crc32c_blocks(&all);
        assert_eq!(whole, crc32c(&all));
        assert_eq!((blocks.len(), whole), (5, crc32c_of_blocks(&blocks)));
        assert_eq!(blocks[3], crc32c(&all[3 * BLOCK_SIZE..4 * BLOCK_SIZE]));
        assert_eq!(crc32c_blocks(&[]), (Vec::new(), crc32c(&[])));
    }
}
