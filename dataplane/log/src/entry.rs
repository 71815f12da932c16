//! The values that callers put in and get out.
//!
//! *Place*: arguments and results of [`GroupLog`](crate::GroupLog). *Owner*: plain values.
//! *Invariants*: checked when appended, not when made. *On failure*: `LogError` of the call.

use crate::record::EntryRecord;
use bytes::Bytes;
use ogee_proto::id::{CopysetId, LogId};
use ogee_runtime::Payload;

/// A group's vote. The meaning is the caller's; the log only keeps the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Vote {
    /// Term voted in.
    pub term: u64,
    /// Replica voted for.
    pub voted_for: u64,
    /// Whether that replica is known to have won.
    pub committed: bool,
}

/// One entry of a group's log.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Term and index.
    pub id: LogId,
    /// Opaque to the log.
    pub kind: u8,
    /// Opaque to the log; at most [`HEAD_LEN_MAX`](crate::limit::HEAD_LEN_MAX) bytes, kept in memory.
    pub head: Bytes,
    /// Whole pages; may be empty.
    pub payload: Payload,
    /// CRC32C of `payload`; verified when appended and when read back.
    pub payload_crc: u32,
}

impl Entry {
    /// What tells this entry from every other: the same on every replica, never 0.
    #[must_use]
    pub fn identity(&self, group: CopysetId) -> u32 {
        EntryRecord::new(group, self, 0).identity
    }
}

/// An entry with the identity of the one before it: what a peer needs to repair its log.
#[derive(Debug, Clone)]
pub struct LinkedEntry {
    /// The entry.
    pub entry: Entry,
    /// Identity of the entry before it, 0 if unknown.
    pub chain: u32,
}

/// One entry of a group's log, with its payload only if that is in memory.
#[derive(Debug, Clone)]
pub struct EntryRef {
    /// Term and index.
    pub id: LogId,
    /// Opaque to the log.
    pub kind: u8,
    /// Opaque to the log.
    pub head: Bytes,
    /// Length of the payload.
    pub payload_len: u32,
    /// CRC32C of the payload.
    pub payload_crc: u32,
    /// The payload, if it is in memory.
    pub payload: Option<Payload>,
}

/// What a group's log amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupState {
    /// Newest vote.
    pub vote: Option<Vote>,
    /// Newest committed log id.
    pub committed: Option<LogId>,
    /// Newest purged log id.
    pub purged: Option<LogId>,
    /// Last entry; the purged one if no entry is left.
    pub last: Option<LogId>,
}
