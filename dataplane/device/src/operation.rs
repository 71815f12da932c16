//! What can be asked of a device.

use std::fmt;
use std::ops::BitOr;

/// One kind of request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Operation {
    /// Read a range.
    Read = 1,
    /// Write a range: visible at once, durable after a flush.
    Write = 2,
    /// Write a range: durable on return.
    WriteDurable = 4,
    /// Make earlier writes durable.
    Flush = 8,
    /// Give a range back: it reads as zeros.
    Discard = 16,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::WriteDurable => "durable write",
            Self::Flush => "flush",
            Self::Discard => "discard",
        })
    }
}

/// A set of operations, for rules that speak of several.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Operations(u8);

impl Operations {
    /// Every operation.
    pub const ALL: Self = Self(31);
    /// Both kinds of write.
    pub const WRITES: Self = Self(Operation::Write as u8 | Operation::WriteDurable as u8);
    /// What changes a device or promises that a change lasts: all but reads.
    pub const MUTATING: Self = Self(Self::ALL.0 & !(Operation::Read as u8));

    /// Whether `operation` is in the set.
    #[must_use]
    pub const fn contains(self, operation: Operation) -> bool {
        self.0 & operation as u8 != 0
    }
}

impl From<Operation> for Operations {
    fn from(operation: Operation) -> Self {
        Self(operation as u8)
    }
}

impl<T: Into<Operations>> BitOr<T> for Operations {
    type Output = Self;

    fn bitor(self, other: T) -> Self {
        Self(self.0 | other.into().0)
    }
}

impl BitOr for Operation {
    type Output = Operations;

    fn bitor(self, other: Self) -> Operations {
        Operations::from(self) | other
    }
}
