//! Payloads that tell where and when they were written.
//!
//! *Place*: each lane owns one buffer and stamps it anew for each write.
//! *Owner*: the lane.
//! *Invariants*: no two writes of a run carry the same bytes, so neither deduplication nor
//! compression below can flatter the figures; what a block must hold follows from its number and
//! the write's number alone. A buffer that is free again is stamped in place: nothing is copied, and only
//! the reference count of its payload is allocated.
//! *On failure*: if a late copy of the last write is still held below, the buffer is copied once.
//!
//! | at | size | field |
//! |---|---|---|
//! | 0 | 8 | magic |
//! | 8 | 8 | block, counted in 4 KiB from the volume's start |
//! | 16 | 8 | number of the write |
//! | 24 | 8 | run |
//! | 32 | 4064 | pseudo-random bytes, the same in every block |

use crate::error::Found;
use crate::limit::STAMP_LEN;
use bytes::{Bytes, BytesMut};
use ogee_proto::limit::BLOCK_SIZE;
use ogee_proto::unit::ByteLen;
use ogee_runtime::Payload;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};
use std::rc::Rc;

const MAGIC: [u8; 8] = *b"OGEEPERF";

/// What all blocks of one run have in common.
#[derive(Clone)]
pub(crate) struct Stamper {
    run: u64,
    body: Rc<[u8]>,
}

/// The buffer of one lane.
pub(crate) struct StampedBuffer {
    stamper: Stamper,
    bytes: Bytes,
}

impl Stamper {
    /// Blocks of run `run`.
    pub(crate) fn new(run: u64) -> Self {
        let mut body = vec![0; BLOCK_SIZE - STAMP_LEN];
        Xoshiro256PlusPlus::seed_from_u64(run).fill_bytes(&mut body);
        Self {
            run,
            body: body.into(),
        }
    }

    /// A buffer for writes of `len` bytes.
    pub(crate) fn buffer(&self, len: ByteLen) -> StampedBuffer {
        let mut bytes = BytesMut::zeroed(len.as_usize());
        for block in bytes.chunks_exact_mut(BLOCK_SIZE) {
            block.split_at_mut(STAMP_LEN).1.copy_from_slice(&self.body);
        }
        StampedBuffer {
            stamper: self.clone(),
            bytes: bytes.freeze(),
        }
    }

    /// Checks that `bytes` is block `block` as write `generation` left it.
    pub(crate) fn check(&self, bytes: &[u8], block: u64, generation: u64) -> Result<(), Found> {
        let (stamp, body) = bytes.split_at(STAMP_LEN);
        if *stamp == self.stamp(block, generation) {
            return if *body == *self.body {
                Ok(())
            } else {
                Err(Found::Body)
            };
        }
        if stamp.iter().all(|byte| *byte == 0) {
            return Err(Found::Zeros);
        }
        let this_run = field(stamp, 3) == self.run;
        Err(Found::Stamp {
            block: field(stamp, 1),
            generation: field(stamp, 2),
            this_run,
        })
    }

    fn stamp(&self, block: u64, generation: u64) -> [u8; STAMP_LEN] {
        let mut stamp = [0; STAMP_LEN];
        let fields = [
            MAGIC,
            block.to_le_bytes(),
            generation.to_le_bytes(),
            self.run.to_le_bytes(),
        ];
        for (into, from) in stamp.chunks_exact_mut(8).zip(fields) {
            into.copy_from_slice(&from);
        }
        stamp
    }
}

impl StampedBuffer {
    /// The payload of write `generation`: `len` bytes whose first block is `block`.
    pub(crate) fn stamp(&mut self, block: u64, generation: u64, len: ByteLen) -> Payload {
        let len = len.as_usize();
        let bytes = std::mem::take(&mut self.bytes);
        let mut bytes = bytes
            .try_into_mut()
            .unwrap_or_else(|held| BytesMut::from(&held[..]));
        for (number, memory) in (block..).zip(bytes[..len].chunks_exact_mut(BLOCK_SIZE)) {
            let stamp = self.stamper.stamp(number, generation);
            memory.split_at_mut(STAMP_LEN).0.copy_from_slice(&stamp);
        }
        self.bytes = bytes.freeze();
        Payload::from(self.bytes.slice(..len))
    }
}

fn field(stamp: &[u8], index: usize) -> u64 {
    let bytes = stamp
        .chunks_exact(8)
        .nth(index)
        .and_then(|chunk| chunk.try_into().ok());
    u64::from_le_bytes(bytes.expect("invariant: a stamp has four fields"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: ByteLen = ByteLen::from_usize(BLOCK_SIZE);

    #[test]
    fn a_short_write_uses_the_front_of_the_buffer() {
        let stamper = Stamper::new(5);
        let mut buffer = stamper.buffer(ByteLen::new(16384));
        let long = buffer.stamp(8, 1, ByteLen::new(16384));
        let memory = long.as_ptr();
        drop(long);
        let short = buffer.stamp(3, 2, ByteLen::new(8192));
        assert_eq!((short.len(), short.as_ptr()), (8192, memory));
        let (first, second) = short.split_at(BLOCK_SIZE);
        assert_eq!(stamper.check(first, 3, 2), Ok(()));
        assert_eq!(stamper.check(second, 4, 2), Ok(()));
    }

    #[test]
    fn what_was_stamped_checks() {
        let stamper = Stamper::new(5);
        let payload = stamper
            .buffer(ByteLen::new(8192))
            .stamp(100, 7, ByteLen::new(8192));
        let (first, second) = payload.split_at(4096);
        assert_eq!(stamper.check(first, 100, 7), Ok(()));
        assert_eq!(stamper.check(second, 101, 7), Ok(()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let stamper = Stamper::new(5);
        let mut block = stamper.buffer(BLOCK).stamp(100, 7, BLOCK).to_vec();
        let older = Found::Stamp {
            block: 100,
            generation: 7,
            this_run: true,
        };
        assert_eq!(stamper.check(&block, 100, 8), Err(older));
        let foreign = Found::Stamp {
            block: 100,
            generation: 7,
            this_run: false,
        };
        assert_eq!(Stamper::new(6).check(&block, 100, 7), Err(foreign));
        assert_eq!(stamper.check(&[0; 4096], 100, 7), Err(Found::Zeros));
        block[4095] ^= 1;
        assert_eq!(stamper.check(&block, 100, 7), Err(Found::Body));
    }

    #[test]
    fn a_free_buffer_is_used_again_and_a_held_one_is_left_alone() {
        let mut buffer = Stamper::new(5).buffer(ByteLen::new(4096));
        let first = buffer.stamp(1, 1, BLOCK);
        let memory = first.as_ptr();
        drop(first);
        let second = buffer.stamp(2, 2, BLOCK);
        assert_eq!(second.as_ptr(), memory);
        let kept = second.to_vec();
        let third = buffer.stamp(3, 3, BLOCK);
        assert_eq!(&*second, &kept[..], "a late copy keeps its bytes");
        assert_ne!(&*third, &kept[..]);
    }
}
