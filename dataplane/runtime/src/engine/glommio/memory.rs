//! Memory for direct I/O.
//!
//! **Place.** Under `Buffer` and `ReadBuffer`. **Owner.** The value; small buffers come from the
//! executor's registered arena and return to it, others from the heap. What is about to be sent, or was
//! read from a device, lies in the thread's memory for transfers, where there is such.
//!
//! **Invariants.** Aligned to `BUFFER_ALIGNMENT`. **Failure.** An exhausted arena falls back to the
//! heap, and so does exhausted memory for transfers; an exhausted heap ends the process.

use std::rc::Rc;

use ::glommio::io::DmaBuffer;

use super::executor::is_running;
use crate::transfer::{self, Block};

/// Above this the arena would be eaten by a few buffers.
const ARENA_BUFFER_MAX: usize = 64 << 10;

/// Writable aligned memory, not initialised.
pub(crate) struct Memory(Place);

enum Place {
    Nowhere,
    Engine(DmaBuffer),
    Transfer(Block),
}

impl Memory {
    pub(crate) fn new(capacity: usize) -> Self {
        Self(match capacity {
            0 => Place::Nowhere,
            n if n <= ARENA_BUFFER_MAX && is_running() => {
                Place::Engine(::glommio::allocate_dma_buffer(n))
            }
            n => Place::Engine(::glommio::allocate_dma_buffer_global(n)),
        })
    }

    /// The same where a network adapter can send from, if there is such memory.
    pub(crate) fn of_transfers(capacity: usize) -> Option<Self> {
        transfer::take(capacity).map(|block| Self(Place::Transfer(block)))
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Place::Nowhere => &[],
            Place::Engine(buffer) => buffer.as_bytes(),
            Place::Transfer(block) => block.as_slice(),
        }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Place::Nowhere => &mut [],
            Place::Engine(buffer) => buffer.as_bytes_mut(),
            Place::Transfer(block) => block.as_mut_slice(),
        }
    }

    /// The first `len` bytes, for a transfer; nothing if there are none.
    pub(super) fn trimmed(mut self, len: usize) -> Option<Self> {
        match &mut self.0 {
            Place::Nowhere => return None,
            Place::Engine(buffer) => {
                buffer.trim_to_size(len);
            }
            Place::Transfer(block) => block.truncate(len),
        }
        Some(self)
    }
}

/// Result of a read, shared.
#[derive(Clone)]
pub(crate) struct ReadMemory(Option<Rc<Memory>>);

impl ReadMemory {
    /// Of a buffer that was read into.
    pub(super) fn new(buffer: Option<Memory>) -> Self {
        Self(buffer.map(Rc::new))
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |buffer| buffer.as_slice())
    }
}
