//! Memory for direct I/O.
//!
//! **Place.** Under `Buffer` and `ReadBuffer`. **Owner.** The value; small buffers come from the
//! executor's registered arena and return to it, others from the heap.
//!
//! **Invariants.** Aligned to `BUFFER_ALIGNMENT`. **Failure.** An exhausted arena falls back to the
//! heap; an exhausted heap ends the process.

use std::rc::Rc;

use ::glommio::io::DmaBuffer;

use super::executor::is_running;

/// Above this the arena would be eaten by a few buffers.
const ARENA_BUFFER_MAX: usize = 64 << 10;

/// Writable aligned memory, not initialised.
pub(crate) struct Memory(Option<DmaBuffer>);

impl Memory {
    pub(crate) fn new(capacity: usize) -> Self {
        Self(match capacity {
            0 => None,
            n if n <= ARENA_BUFFER_MAX && is_running() => Some(::glommio::allocate_dma_buffer(n)),
            n => Some(::glommio::allocate_dma_buffer_global(n)),
        })
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], DmaBuffer::as_bytes)
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        self.0.as_mut().map_or(&mut [], DmaBuffer::as_bytes_mut)
    }

    /// The first `len` bytes, for a transfer.
    pub(super) fn into_dma(self, len: usize) -> Option<DmaBuffer> {
        let mut buffer = self.0?;
        buffer.trim_to_size(len);
        Some(buffer)
    }
}

/// Result of a read, shared.
#[derive(Clone)]
pub(crate) struct ReadMemory(Option<Rc<DmaBuffer>>);

impl ReadMemory {
    /// Of a buffer that was read into.
    pub(super) fn new(buffer: Option<DmaBuffer>) -> Self {
        Self(buffer.map(Rc::new))
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |buffer| buffer.as_bytes())
    }
}
