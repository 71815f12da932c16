//! Why a history is none of linearizable registers.
//!
//! *Place*: the other answer of [`check`](super::check).
//! *Owner*: none.
//! *Invariants*: the operations named contradict each other by themselves: a history of these alone
//! (and of the writes whose values they read) is no register's either.
//! *On failure*: printed for a person: what happened, then the operations in the order of their calls.

use super::{Operation, OperationKind};
use std::fmt;

/// What no linearizable register does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViolationKind {
    /// A read returned what nobody wrote to this block.
    FromNowhere,
    /// A read had ended before the write of its value began.
    FromTheFuture,
    /// A write was acknowledged, and a later read returned what had been overwritten by it: a stale
    /// read, or a lost write.
    Stale,
    /// One read returned the newer of two values, and a later one the older.
    NewThenOld,
    /// No order of two concurrent writes explains what was read.
    NotAtomic,
    /// The history's own fault: two writes of one value, or a write of the initial one.
    NotUnique,
    /// The history's own fault: an operation ends before it begins.
    EndsBeforeItBegins,
}

impl ViolationKind {
    fn text(self) -> &'static str {
        match self {
            Self::FromNowhere => "a value from nowhere: it was read and never written",
            Self::FromTheFuture => "a value from the future: read before its write was invoked",
            Self::Stale => "stale: read after a newer write was acknowledged",
            Self::NewThenOld => "new, then old: a later read returned the older value",
            Self::NotAtomic => "not atomic: no order of the writes explains the reads",
            Self::NotUnique => "not a history to check: a written value is not unique",
            Self::EndsBeforeItBegins => {
                "not a history to check: an operation ends before it begins"
            }
        }
    }
}

/// Operations on one block that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Violation {
    /// The block.
    pub block: u64,
    /// What is wrong.
    pub kind: ViolationKind,
    /// The operations involved, by the time of their call.
    pub operations: Vec<Operation>,
}

impl Violation {
    pub(super) fn new(kind: ViolationKind, involved: &[&Operation]) -> Self {
        let mut operations: Vec<Operation> = Vec::with_capacity(involved.len());
        for operation in involved {
            if !operations.contains(operation) {
                operations.push(**operation);
            }
        }
        operations.sort_by_key(|operation| operation.invoked_ns);
        Self {
            block: operations.first().map_or(0, |operation| operation.block),
            kind,
            operations,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {}: {}", self.block, self.kind.text())?;
        for operation in &self.operations {
            write!(f, "\n  {operation}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.kind {
            OperationKind::Write => "write",
            OperationKind::Read => "read ",
        };
        let (client, value, from) = (self.client, self.value, self.invoked_ns);
        write!(f, "{verb} {value:#018x} by client {client}, {from} ns to ")?;
        match self.completed_ns {
            Some(at) => write!(f, "{at} ns"),
            None => write!(f, "no known end"),
        }
    }
}
