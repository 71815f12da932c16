//! Aligned memory that a device can write from.
//!
//! **Place.** Filled by log and store, consumed by a file's `write_at`. **Owner.** Whoever holds it;
//! a write takes it away until its completion.
//!
//! **Invariants.** Starts at a multiple of `BUFFER_ALIGNMENT`. Only the first `len` bytes can be
//! seen, and those have been written: fresh memory never shows.
//!
//! **Failure.** Growing past the capacity is a bug and panics.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::engine::Memory;

/// Owned, aligned bytes for device writes.
pub struct Buffer {
    memory: Memory,
    len: usize,
}

impl Buffer {
    /// `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        let mut buffer = Self::with_capacity(len);
        buffer.resize(len);
        buffer
    }

    /// An empty buffer with room for `capacity` bytes, which are not zeroed first.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            memory: Memory::new(capacity),
            len: 0,
        }
    }

    /// The same in this thread's memory for transfers, if it has such and room in it: for bytes that are about to be sent,
    /// since an RDMA adapter takes them from there without another copy.
    #[must_use]
    pub fn for_transfer(capacity: usize) -> Option<Self> {
        let memory = Memory::of_transfers(capacity)?;
        Some(Self { memory, len: 0 })
    }

    /// A copy of `data`.
    pub fn copy_from(data: &[u8]) -> Self {
        let mut buffer = Self::with_capacity(data.len());
        buffer.extend_from_slice(data);
        buffer
    }

    /// Bytes in use.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no byte is in use.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that fit.
    pub fn capacity(&self) -> usize {
        self.memory.as_slice().len()
    }

    /// Appends `data`.
    ///
    /// # Panics
    /// If it does not fit.
    pub fn extend_from_slice(&mut self, data: &[u8]) {
        self.room(data.len()).copy_from_slice(data);
        self.len += data.len();
    }

    /// Appends `len` bytes that `write` writes, all of them; nothing if it fails.
    ///
    /// # Errors
    /// As `write` does.
    ///
    /// # Panics
    /// If they do not fit.
    pub fn extend_with<E>(
        &mut self,
        len: usize,
        write: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        write(self.room(len))?;
        self.len += len;
        Ok(())
    }

    /// The next `len` bytes behind what it has.
    fn room(&mut self, len: usize) -> &mut [u8] {
        let end = self.len + len;
        assert!(
            end <= self.capacity(),
            "a buffer of {} bytes is full",
            self.capacity()
        );
        &mut self.memory.as_mut_slice()[self.len..end]
    }

    /// Cuts the buffer to `len` bytes, or extends it with zeros.
    ///
    /// # Panics
    /// If `len` exceeds the capacity.
    pub fn resize(&mut self, len: usize) {
        assert!(
            len <= self.capacity(),
            "a buffer of {} bytes is full",
            self.capacity()
        );
        if let Some(grown) = self.memory.as_mut_slice().get_mut(self.len..len) {
            grown.fill(0);
        }
        self.len = len;
    }

    pub(crate) fn into_memory(self) -> (Memory, usize) {
        (self.memory, self.len)
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory.as_slice()[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory.as_mut_slice()[..self.len]
    }
}

impl From<&[u8]> for Buffer {
    fn from(data: &[u8]) -> Self {
        Self::copy_from(data)
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}
