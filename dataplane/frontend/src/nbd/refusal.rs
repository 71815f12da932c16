//! Why a request is answered with an error.
//!
//! *Place*: made by `request` and `execute`, sent by `reply`. *Owner*: one request.
//! *Invariants*: the errno is the one that the specification names for the case.
//! *On failure*: it is the failure; the connection lives on.

use super::wire::Errno;
use crate::disk::DiskError;
use crate::limit::PAYLOAD_MAX;
use ogee_proto::unit::{ByteLen, ByteOffset};

/// Why a request is answered with an error.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("unknown command {0}")]
    Unknown(u16),
    #[error("flags {flags:#x} do not go with command {kind}")]
    Flags { kind: u16, flags: u16 },
    #[error("the export is read-only")]
    ReadOnly,
    #[error("{len} at {at} reaches past the export's size of {size}")]
    BeyondEnd {
        at: ByteOffset,
        len: ByteLen,
        size: ByteLen,
        /// Whether it would need space that is not there.
        is_write: bool,
    },
    #[error("a write of more than {PAYLOAD_MAX} bytes")]
    WriteTooLong,
    #[error("a read of more than {PAYLOAD_MAX} bytes")]
    ReadTooLong { is_structured: bool },
    #[error("a flush has no offset and no length")]
    FlushRange,
    #[error("a block status of no bytes")]
    StatusOfNothing,
    #[error("base:allocation was not chosen for this export")]
    NoContext,
    #[error("to zero this range is no faster than to write it")]
    NotFast,
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl Refusal {
    /// The code to answer with.
    pub(super) fn errno(&self) -> Errno {
        match self {
            Self::ReadOnly => Errno::Perm,
            Self::BeyondEnd { is_write: true, .. } => Errno::NoSpc,
            Self::ReadTooLong {
                is_structured: true,
            } => Errno::Overflow,
            Self::NotFast => Errno::NotSup,
            Self::Disk(error) => disk_errno(error),
            Self::Unknown(_)
            | Self::Flags { .. }
            | Self::BeyondEnd { .. }
            | Self::WriteTooLong
            | Self::ReadTooLong { .. }
            | Self::FlushRange
            | Self::StatusOfNothing
            | Self::NoContext => Errno::Inval,
        }
    }
}

fn disk_errno(error: &DiskError) -> Errno {
    match error {
        DiskError::ReadOnly => Errno::Perm,
        DiskError::NoSpace => Errno::NoSpc,
        DiskError::Closed => Errno::Shutdown,
        // Checked before: the disk has shrunk in between.
        DiskError::OutOfRange { .. } => Errno::Inval,
        // Never asked of it, so it is a bug; to the client, an I/O error.
        DiskError::Unaligned { .. } | DiskError::Medium { .. } | DiskError::Client(_) => Errno::Io,
    }
}
