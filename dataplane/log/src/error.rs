//! What can go wrong in the log, by physical cause.
//!
//! *Place*: the error of every public call. *Owner*: plain values, cheap to clone, because one
//! failed device write is reported to every waiting caller. *Invariants*: each variant names the
//! place or the limit. *On failure*: not applicable.

use ogee_device::DeviceError;
use ogee_proto::id::{CopysetId, LogIndex, StoreId};
use ogee_proto::unit::{ByteLen, ByteOffset};

/// Error of the log layer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// A write failed: whether its bytes are durable is unknown, so the log accepts nothing more.
    #[error("log of store {store} failed: write at {offset}")]
    Failed {
        /// The store.
        store: StoreId,
        /// Where the write began, on the device.
        offset: ByteOffset,
        /// What the device said.
        #[source]
        source: DeviceError,
    },
    /// The log was closed.
    #[error("log of store {store} is closed")]
    Closed {
        /// The store.
        store: StoreId,
    },
    /// No room until entries are purged.
    #[error("log of store {store} is full: {needed} needed, {free} free")]
    Full {
        /// The store.
        store: StoreId,
        /// Bytes that the call would take, header pages included.
        needed: ByteLen,
        /// Bytes that entries may still take.
        free: ByteLen,
    },
    /// More is waiting for the device than the queue may hold.
    #[error("log of store {store} is overloaded: {queued} queued, limit {limit}")]
    Overloaded {
        /// The store.
        store: StoreId,
        /// Bytes waiting.
        queued: ByteLen,
        /// The bound.
        limit: ByteLen,
    },
    /// A payload does not match its checksum: as given by the caller, or as read from the device.
    #[error("payload of entry {index} of {group} does not match its checksum")]
    Corrupt {
        /// The group.
        group: CopysetId,
        /// The entry.
        index: LogIndex,
    },
    /// Nothing of the log on the medium is known: replicas of the store must be replaced.
    #[error("log of store {store} at {offset} is lost: {reason}")]
    Damaged {
        /// The store.
        store: StoreId,
        /// Where, on the device.
        offset: ByteOffset,
        /// What was found there.
        reason: DamageReason,
    },
    /// The region holds a log of a format that this program does not know.
    #[error("log format version {found} is unknown, this program reads version {ours}")]
    UnknownVersion {
        /// Version on the medium.
        found: u32,
        /// Version of this program.
        ours: u32,
    },
    /// The region holds the log of another store.
    #[error("the region holds the log of store {found}, not of {ours}")]
    ForeignStore {
        /// Store on the medium.
        found: StoreId,
        /// Store that was asked for.
        ours: StoreId,
    },
    /// The region holds no log.
    #[error("no log of store {store} at {start}")]
    NotFormatted {
        /// The store.
        store: StoreId,
        /// Start of the region.
        start: ByteOffset,
    },
    /// The log was formatted for a region or segments of another size.
    #[error("log geometry differs: {field} is {found} on the medium, {ours} was asked for")]
    Geometry {
        /// Which length.
        field: GeometryField,
        /// Length on the medium.
        found: ByteLen,
        /// Length asked for.
        ours: ByteLen,
    },
    /// The region or an option is out of its bounds.
    #[error("{field} of {found} is outside {min}..={max}")]
    Bounds {
        /// Which length.
        field: GeometryField,
        /// The value.
        found: ByteLen,
        /// Smallest allowed.
        min: ByteLen,
        /// Largest allowed.
        max: ByteLen,
    },
    /// The device refused a read.
    #[error("log read at {offset} failed")]
    Read {
        /// Where, on the device.
        offset: ByteOffset,
        /// What the device said.
        #[source]
        source: DeviceError,
    },
    /// Entries of one group must follow each other.
    #[error("entry {found} of {group} does not follow: {expected} is next")]
    NotConsecutive {
        /// The group.
        group: CopysetId,
        /// The index that must come next.
        expected: LogIndex,
        /// The index given.
        found: LogIndex,
    },
    /// A truncation reaches below what is purged.
    #[error("cannot truncate {group} after {after}: entries up to {purged} are purged")]
    TruncatePurged {
        /// The group.
        group: CopysetId,
        /// The last index to keep.
        after: LogIndex,
        /// The last purged index.
        purged: LogIndex,
    },
    /// A head or payload is too long, or a payload is no multiple of 4096.
    #[error("{part} of entry {index} of {group} is {len}, at most {max} in whole units of {unit}")]
    EntryLength {
        /// The group.
        group: CopysetId,
        /// The entry.
        index: LogIndex,
        /// Which part.
        part: EntryPart,
        /// Its length.
        len: ByteLen,
        /// The largest allowed.
        max: ByteLen,
        /// The length's unit.
        unit: ByteLen,
    },
    /// No such live entry.
    #[error("{group} has no live entry {index}")]
    NoEntry {
        /// The group.
        group: CopysetId,
        /// The index.
        index: LogIndex,
    },
    /// The entry is live, but its contents are lost here: another replica has them.
    #[error("entry {index} of {group} is lost and must be fetched from another replica")]
    EntryLost {
        /// The group.
        group: CopysetId,
        /// The entry.
        index: LogIndex,
    },
    /// The group's log is damaged and takes nothing until it is repaired.
    #[error("log of {group} is damaged: repair it from other replicas, or replace this one")]
    GroupDamaged {
        /// The group.
        group: CopysetId,
    },
    /// The entry offered is not the one that is lost.
    #[error("entry {index} of {group} has identity {found:#010x}, not {expected:?}")]
    WrongEntry {
        /// The group.
        group: CopysetId,
        /// The entry.
        index: LogIndex,
        /// Identity of the entry that is lost, if known.
        expected: Option<u32>,
        /// Identity of the entry offered, or of the one that it says is before it.
        found: u32,
    },
    /// The log carries as many groups as a segment header can list.
    #[error("log of store {store} carries {max} groups already")]
    TooManyGroups {
        /// The store.
        store: StoreId,
        /// The bound.
        max: usize,
    },
}

/// Why a log as a whole cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DamageReason {
    /// No segment has a readable header.
    #[error("no segment header is readable")]
    SegmentHeader,
}

/// A length that region, options and medium must agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GeometryField {
    /// Start of the region.
    RegionStart,
    /// Length of the region.
    RegionLen,
    /// Length of a segment.
    SegmentLen,
}

impl std::fmt::Display for GeometryField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::RegionStart => "region start",
            Self::RegionLen => "region length",
            Self::SegmentLen => "segment length",
        })
    }
}

/// A part of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryPart {
    /// Inline bytes.
    Head,
    /// Page-aligned bytes.
    Payload,
}

impl std::fmt::Display for EntryPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Head => "head",
            Self::Payload => "payload",
        })
    }
}
