//! What is to go wrong, and when.

use crate::operation::{Operation, Operations};
use ogee_proto::unit::{ByteLen, ByteOffset};
use std::io;
use std::time::Duration;

/// How a request fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The hardware failed.
    Eio,
    /// The file system below is full.
    Enospc,
}

impl Failure {
    /// The error as the system would give it.
    #[must_use]
    pub fn to_io(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            Self::Eio => libc::EIO,
            Self::Enospc => libc::ENOSPC,
        })
    }
}

/// What a rule does to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Action {
    Fail(Failure),
    Delay(Duration),
    FlipBit { at: ByteOffset, mask: u8 },
    LoseWrite,
}

/// One thing that goes wrong: which requests it hits, and what happens to them.
///
/// ```
/// # use ogee_device::{Failure, FaultRule, Operation};
/// // The third flush fails, once.
/// let rule = FaultRule::fail(Operation::Flush, Failure::Eio).after(2).times(1);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultRule {
    operations: Operations,
    range: Option<(ByteOffset, ByteLen)>,
    pub(super) skip: u64,
    pub(super) times: u64,
    pub(super) action: Action,
}

impl FaultRule {
    /// Requests fail before they reach the device.
    pub fn fail(operations: impl Into<Operations>, failure: Failure) -> Self {
        Self::new(operations.into(), Action::Fail(failure))
    }

    /// Requests wait before they reach the device.
    pub fn delay(operations: impl Into<Operations>, delay: Duration) -> Self {
        Self::new(operations.into(), Action::Delay(delay))
    }

    /// Writes of both kinds report success and do nothing.
    #[must_use]
    pub fn lose_writes() -> Self {
        Self::new(Operations::WRITES, Action::LoseWrite)
    }

    /// Reads that cover the byte at `at` return it with bit `bit` (0 to 7) flipped.
    ///
    /// # Panics
    /// When a byte has no such bit.
    #[must_use]
    pub fn flip_bit(at: ByteOffset, bit: u8) -> Self {
        assert!(bit < 8, "a byte has bits 0 to 7, not {bit}");
        let action = Action::FlipBit { at, mask: 1 << bit };
        Self::new(Operation::Read.into(), action).within(at, ByteLen::new(1))
    }

    const fn new(operations: Operations, action: Action) -> Self {
        Self {
            operations,
            range: None,
            skip: 0,
            times: u64::MAX,
            action,
        }
    }

    /// Only requests that overlap the range. A flush has none and is no longer hit.
    #[must_use]
    pub const fn within(mut self, offset: ByteOffset, len: ByteLen) -> Self {
        self.range = Some((offset, len));
        self
    }

    /// Lets the first `count` matching requests pass.
    #[must_use]
    pub const fn after(mut self, count: u64) -> Self {
        self.skip = count;
        self
    }

    /// Stops after it has hit `count` requests.
    #[must_use]
    pub const fn times(mut self, count: u64) -> Self {
        self.times = count;
        self
    }

    /// Whether a request is of the kind and in the range that the rule speaks of.
    pub(super) fn matches(
        &self,
        operation: Operation,
        range: Option<(ByteOffset, ByteLen)>,
    ) -> bool {
        let in_range = match (self.range, range) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(ours), Some(theirs)) => overlap(ours, theirs),
        };
        self.operations.contains(operation) && in_range
    }
}

fn overlap(a: (ByteOffset, ByteLen), b: (ByteOffset, ByteLen)) -> bool {
    let end = |(offset, len): (ByteOffset, ByteLen)| offset.get().saturating_add(len.get());
    a.0.get() < end(b) && b.0.get() < end(a)
}

/// The rules that a faulty device starts with.
#[derive(Clone, Debug, Default)]
pub struct FaultPlan {
    pub(super) rules: Vec<FaultRule>,
}

impl FaultPlan {
    /// No faults.
    #[must_use]
    pub const fn new() -> Self {
        Self { rules: Vec::new() }
    }

    /// One more rule.
    #[must_use]
    pub fn with(mut self, rule: FaultRule) -> Self {
        self.rules.push(rule);
        self
    }
}

impl From<FaultRule> for FaultPlan {
    fn from(rule: FaultRule) -> Self {
        Self::new().with(rule)
    }
}
