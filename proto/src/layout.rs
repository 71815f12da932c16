//! Volume address → (chunk, offset): striping.
//!
//! `stripe_count` chunks form a stripe set. Within a set, consecutive stripe units go round the
//! chunks. With one chunk per set (the default) a volume is the plain sequence of its chunks.

use crate::id::ChunkIndex;
use crate::limit::{BLOCK_SIZE, CHUNK_SIZE};
use crate::unit::{ByteLen, ByteOffset};

/// How a volume's addresses spread over its chunks. Fixed at creation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StripeLayout {
    unit: u32,
    count: u32,
}

/// Why a stripe layout was refused.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum LayoutError {
    /// The unit does not divide a chunk into whole blocks.
    #[error("stripe unit {0} must be a power of two from 4096 to 16777216")]
    Unit(u64),
    /// The count is out of range.
    #[error("stripe count {0} must be from 1 to 256")]
    Count(u64),
}

/// Part of a request that lies in one chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkSpan {
    /// The chunk.
    pub chunk: ChunkIndex,
    /// Offset within the chunk.
    pub chunk_offset: ByteOffset,
    /// Offset from the start of the request.
    pub request_offset: ByteOffset,
    /// Length of this part.
    pub len: ByteLen,
}

/// Chunks in one stripe set, at most.
pub const STRIPE_COUNT_MAX: u32 = 256;

impl Default for StripeLayout {
    fn default() -> Self {
        Self {
            unit: CHUNK_SIZE_U32,
            count: 1,
        }
    }
}

const CHUNK_SIZE_U32: u32 = 16 << 20;
const _: () = assert!(CHUNK_SIZE_U32 as usize == CHUNK_SIZE);

impl StripeLayout {
    /// Checks and builds a layout of `unit` bytes going round `count` chunks.
    ///
    /// # Errors
    /// When the unit or the count is out of range.
    pub fn new(unit: u64, count: u64) -> Result<Self, LayoutError> {
        let unit_ok = unit.is_power_of_two() && unit >= BLOCK_SIZE as u64;
        let unit32 = u32::try_from(unit)
            .ok()
            .filter(|u| unit_ok && *u <= CHUNK_SIZE_U32);
        let count32 = u32::try_from(count)
            .ok()
            .filter(|c| (1..=STRIPE_COUNT_MAX).contains(c));
        let unit = unit32.ok_or(LayoutError::Unit(unit))?;
        Ok(Self {
            unit,
            count: count32.ok_or(LayoutError::Count(count))?,
        })
    }

    /// Stripe unit in bytes.
    #[must_use]
    pub const fn unit(self) -> u32 {
        self.unit
    }

    /// Chunks in a stripe set.
    #[must_use]
    pub const fn count(self) -> u32 {
        self.count
    }

    /// Number of chunks of a volume of `size` bytes: whole stripe sets.
    #[must_use]
    pub fn chunk_count(self, size: ByteLen) -> u64 {
        let set = CHUNK_SIZE as u64 * u64::from(self.count);
        size.get().div_ceil(set) * u64::from(self.count)
    }

    /// The first part of the request `offset..offset + len` that lies in one chunk, `None` if the
    /// address lies past the largest volume.
    #[must_use]
    pub fn locate(self, offset: ByteOffset, len: ByteLen) -> Option<ChunkSpan> {
        let (unit, count) = (u64::from(self.unit), u64::from(self.count));
        let set_size = CHUNK_SIZE as u64 * count;
        let (set, within) = (offset.get() / set_size, offset.get() % set_size);
        let (stripe, into) = (within / unit, within % unit);
        let chunk = u32::try_from(set * count + stripe % count).ok()?;
        let run = if count == 1 {
            CHUNK_SIZE as u64 - within
        } else {
            unit - into
        };
        Some(ChunkSpan {
            chunk: ChunkIndex::new(chunk),
            chunk_offset: ByteOffset::new(stripe / count * unit + into),
            request_offset: ByteOffset::ZERO,
            len: ByteLen::new(run.min(len.get())),
        })
    }

    /// Where a byte of a chunk is in the volume: what [`Self::locate`] finds there.
    #[must_use]
    pub fn offset_of(self, chunk: ChunkIndex, within: ByteOffset) -> ByteOffset {
        let (unit, count) = (u64::from(self.unit), u64::from(self.count));
        let (set, at) = (
            u64::from(chunk.get()) / count,
            u64::from(chunk.get()) % count,
        );
        let (stripe, into) = (within.get() / unit, within.get() % unit);
        let set_size = CHUNK_SIZE as u64 * count;
        ByteOffset::new(set * set_size + (stripe * count + at) * unit + into)
    }

    /// All parts of a request, in address order.
    ///
    /// The caller has checked the request against the volume's size; parts past the largest volume
    /// are left out.
    pub fn spans(self, offset: ByteOffset, len: ByteLen) -> impl Iterator<Item = ChunkSpan> {
        let mut done = 0u64;
        std::iter::from_fn(move || {
            let left = len.get().checked_sub(done).filter(|l| *l > 0)?;
            let at = offset.checked_add(ByteLen::new(done))?;
            let mut span = self.locate(at, ByteLen::new(left))?;
            span.request_offset = ByteOffset::new(done);
            done += span.len.get();
            Some(span)
        })
    }
}
