//! The steps of a copy, for fuzzing: see [`crate::fuzzing`].

use super::wire::{
    Begin, get_blocks, get_end, get_keys, get_state_range, get_token, get_zeros, put_end, put_keys,
    put_token,
};
use crate::fuzzing::stands_still;
use ogee_proto::limit::BLOCKS_PER_CHUNK;
use ogee_proto::wire::{Reader, WireError};
use ogee_transport::Frame;

/// Takes a frame for each step of a copy.
pub(crate) fn steps(frame: &Frame) {
    let meta = &frame.meta;
    stands_still(meta, Begin::decode, |begin| begin.encode());
    stands_still(meta, get_end, put_end);
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
        let covered = covered(meta).expect("it was read before");
        assert_eq!(changes.len(), covered.count_ones() as usize);
        let is_sorted = changes.is_sorted_by(|a, b| a.block < b.block);
        assert!(is_sorted && changes.iter().all(|change| change.key == frame.header.key));
    }
    if let Ok(blocks) = get_zeros(frame) {
        assert!(blocks.count() <= BLOCKS_PER_CHUNK);
    }
}

fn covered(meta: &[u8]) -> Result<u32, WireError> {
    let mut from = Reader::new(meta);
    from.u16("first")?;
    from.u32("covered")
}
