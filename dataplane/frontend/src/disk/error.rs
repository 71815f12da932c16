//! What a request of a disk can fail with.
//!
//! *Place*: answer of every method of `Disk`; each protocol maps it to its own codes.
//! *Owner*: none. *Invariants*: each is final. *On failure*: it is the failure.

use ogee_client::ClientError;
use ogee_proto::unit::{ByteLen, ByteOffset};

/// Why a request of a disk failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DiskError {
    /// Offset or length is not a multiple of the block size.
    #[error("offset {offset} or length {len} is not a multiple of the block size")]
    Unaligned {
        /// As asked.
        offset: ByteOffset,
        /// As asked.
        len: ByteLen,
    },
    /// The request reaches past the end.
    #[error("{len} at {offset} reaches past the size of {size}")]
    OutOfRange {
        /// As asked.
        offset: ByteOffset,
        /// As asked.
        len: ByteLen,
        /// The disk's size now.
        size: ByteLen,
    },
    /// A mutation of a read-only disk.
    #[error("the disk is read-only")]
    ReadOnly,
    /// No space is left for what would have to be allocated.
    #[error("no space is left")]
    NoSpace,
    /// The disk has been closed.
    #[error("the disk is closed")]
    Closed,
    /// The medium failed.
    #[error("the medium failed at {offset}")]
    Medium {
        /// Where the request started.
        offset: ByteOffset,
    },
    /// The cluster ended the request.
    #[error(transparent)]
    Client(ClientError),
}

impl From<ClientError> for DiskError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Unaligned { offset, len } => Self::Unaligned { offset, len },
            ClientError::OutOfRange { offset, len, size } => Self::OutOfRange { offset, len, size },
            ClientError::ReadOnly => Self::ReadOnly,
            ClientError::Closed => Self::Closed,
            other => Self::Client(other),
        }
    }
}
