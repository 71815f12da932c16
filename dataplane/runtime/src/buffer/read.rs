//! What a device read returned.
//!
//! **Place.** Made by a file's `read_at`; sent to the network or decoded. **Owner.** Shared by its
//! clones and slices, on one thread.
//!
//! **Invariants.** Immutable. Small reads may sit in the executor's registered arena: caches that
//! keep bytes for long should copy them. **Failure.** A slice out of range panics.

use std::fmt;
use std::ops::{Bound, Deref, Range, RangeBounds};
use std::rc::Rc;

use super::owned::Buffer;
use crate::engine::ReadMemory;

/// Immutable bytes read from a device; cheap to clone and to slice.
#[derive(Clone)]
pub struct ReadBuffer {
    source: Source,
    range: Range<usize>,
}

#[derive(Clone)]
enum Source {
    Device(ReadMemory),
    Memory(Rc<Buffer>),
}

impl ReadBuffer {
    pub(crate) fn from_device(memory: ReadMemory) -> Self {
        let range = 0..memory.as_slice().len();
        Self {
            source: Source::Device(memory),
            range,
        }
    }

    /// The part `range` of these bytes, sharing the memory.
    ///
    /// # Panics
    /// If `range` reaches past the end.
    #[must_use]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Self {
        let range = resolve(&range, self.len());
        let start = self.range.start;
        Self {
            source: self.source.clone(),
            range: start + range.start..start + range.end,
        }
    }
}

/// Turns bounds into offsets, checked against `len`.
pub(super) fn resolve(range: &impl RangeBounds<usize>, len: usize) -> Range<usize> {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&before) => before + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&last) => last + 1,
        Bound::Excluded(&end) => end,
        Bound::Unbounded => len,
    };
    assert!(
        start <= end && end <= len,
        "slice {start}..{end} of {len} bytes"
    );
    start..end
}

impl Deref for ReadBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let all = match &self.source {
            Source::Device(memory) => memory.as_slice(),
            Source::Memory(buffer) => buffer,
        };
        &all[self.range.clone()]
    }
}

/// For devices in memory: the buffer becomes shared and immutable.
impl From<Buffer> for ReadBuffer {
    fn from(buffer: Buffer) -> Self {
        let range = 0..buffer.len();
        Self {
            source: Source::Memory(Rc::new(buffer)),
            range,
        }
    }
}

impl fmt::Debug for ReadBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadBuffer")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
