//! The steps of a copy, for fuzzing: see [`crate::fuzzing`].

use super::wire::{
    Begin, get_base, get_blocks, get_end, get_keys, get_state_range, get_token, get_zeros,
    put_base, put_end, put_keys, put_token,
};
use crate::fuzzing::stands_still;
use crate::limit::COPY_PIECE_BLOCKS;
use ogee_proto::limit::BLOCKS_PER_CHUNK;
use ogee_transport::Frame;

/// Takes a frame for each step of a copy.
pub(crate) fn steps(frame: &Frame) {
    let meta = &frame.meta;
    stands_still(meta, Begin::decode, |begin| begin.encode());
    stands_still(meta, get_end, put_end);
    stands_still(meta, get_base, |base| put_base(base).to_vec());
    stands_still(meta, get_token, |token| put_token(*token).to_vec());
    for len in [0, 1, 100, 128 << 10, (128 << 10) + 1, 1 << 20] {
        if let Ok(range) = get_state_range(frame, len) {
            assert!(range.end <= len && range.len() == frame.payload.len());
        }
    }
    if let Ok(keys) = get_keys(frame) {
        assert!(put_keys(&keys) == frame.payload);
    }
    if let Ok(changes) = get_blocks(frame) {
        let pieces = meta
            .chunks_exact(10)
            .map(|piece| covered(piece).count_ones());
        assert_eq!(changes.len(), pieces.sum::<u32>() as usize);
        assert!(changes.len() <= COPY_PIECE_BLOCKS);
        assert!(changes.iter().all(|change| change.key == frame.header.key));
    }
    if let Ok(blocks) = get_zeros(frame) {
        assert!(blocks.count() <= BLOCKS_PER_CHUNK);
    }
}

/// The blocks that a piece speaks of: behind its first one.
fn covered(piece: &[u8]) -> u32 {
    let mask = piece[2..6].try_into();
    u32::from_le_bytes(mask.expect("invariant: a piece has ten bytes"))
}
