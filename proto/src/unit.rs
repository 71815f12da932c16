//! Typed quantities: a byte offset is not a byte length is not a block number.

use crate::limit::BLOCK_SIZE;
use std::fmt;

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident, $suffix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[derive(serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Zero.
            pub const ZERO: Self = Self(0);

            /// Wraps a raw quantity.
            #[must_use]
            pub const fn new(raw: u64) -> Self {
                Self(raw)
            }

            /// Wraps an in-memory quantity.
            #[must_use]
            pub const fn from_usize(raw: usize) -> Self {
                Self(raw as u64)
            }

            /// The raw quantity.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The quantity as an index into memory (this is a 64-bit system).
            #[must_use]
            #[expect(clippy::cast_possible_truncation, reason = "asserted 64-bit below")]
            pub const fn as_usize(self) -> usize {
                self.0 as usize
            }

            /// Whether it is a multiple of `unit` bytes or blocks.
            #[must_use]
            pub const fn is_multiple_of(self, unit: usize) -> bool {
                self.0.is_multiple_of(unit as u64)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("{}", $suffix), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

const _: () = assert!(usize::BITS == 64, "Ogee runs on 64-bit systems only");

unit!(
    /// Position in bytes within a device, a region, a volume or a chunk (the field's doc says which).
    ByteOffset, "B"
);
unit!(
    /// Length in bytes.
    ByteLen, "B"
);

impl ByteOffset {
    /// The offset `len` further on; `None` when that would overflow.
    #[must_use]
    pub const fn checked_add(self, len: ByteLen) -> Option<Self> {
        match self.0.checked_add(len.0) {
            Some(raw) => Some(Self(raw)),
            None => None,
        }
    }

    /// The offset `len` further on, for operands already known to be within a device.
    ///
    /// # Panics
    /// When it overflows: that is a bug, since both were checked against a device's length.
    #[must_use]
    pub const fn add(self, len: ByteLen) -> Self {
        match self.checked_add(len) {
            Some(sum) => sum,
            None => panic!("byte offset overflow"),
        }
    }
}

/// A 4 KiB block within a chunk, `0..4096`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BlockIndex(u16);

impl BlockIndex {
    /// The block, if it lies within a chunk.
    #[must_use]
    pub fn new(raw: usize) -> Option<Self> {
        if raw < crate::limit::BLOCKS_PER_CHUNK {
            u16::try_from(raw).ok().map(Self)
        } else {
            None
        }
    }

    /// The raw index.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// As an index into memory.
    #[must_use]
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }

    /// Byte offset of the block within its chunk.
    #[must_use]
    pub const fn offset(self) -> ByteOffset {
        ByteOffset::from_usize(self.0 as usize * BLOCK_SIZE)
    }
}

impl fmt::Debug for BlockIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b{}", self.0)
    }
}
