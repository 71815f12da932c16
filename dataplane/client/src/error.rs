//! What a request of a volume can end with.
//!
//! *Place*: the answer of every method of `Volume`.
//! *Owner*: none.
//! *Invariants*: each variant is final: the client has already retried whatever a retry can change.
//! *On failure*: frontends map `Fenced`, `Corrupt` and the rest to an I/O error of their protocol.

use crate::mds::ControlError;
use ogee_proto::id::{ChunkKey, Epoch, Sequence, VolumeId};
use ogee_proto::unit::{ByteLen, ByteOffset};
use std::time::Duration;

/// Why a request of a volume failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// The control plane refused or could not be asked.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A newer attachment has taken the volume over. Nothing works from now on.
    #[error("{volume} was attached elsewhere after {epoch}: this attachment is fenced off")]
    Fenced {
        /// The volume.
        volume: VolumeId,
        /// Our epoch.
        epoch: Epoch,
    },
    /// The user has closed the volume.
    #[error("the volume is closed")]
    Closed,
    /// A mutation of a volume attached read-only.
    #[error("the volume is attached read-only")]
    ReadOnly,
    /// Offset or length is not a multiple of 4096.
    #[error("offset {offset} or length {len} is not a multiple of 4096")]
    Unaligned {
        /// As asked.
        offset: ByteOffset,
        /// As asked.
        len: ByteLen,
    },
    /// The request reaches past the end.
    #[error("{len} at {offset} reaches past the volume's size of {size}")]
    OutOfRange {
        /// As asked.
        offset: ByteOffset,
        /// As asked.
        len: ByteLen,
        /// The volume's size now.
        size: ByteLen,
    },
    /// The time limit that the user set ran out; a mutation may or may not have been applied.
    #[error("no outcome within the time limit of {0:?}")]
    TimedOut(Duration),
    /// The data fails its checksum on every replica.
    #[error("{key} is damaged on every replica at {offset}")]
    Corrupt {
        /// The chunk.
        key: ChunkKey,
        /// Where the request starts within it.
        offset: ByteOffset,
    },
    /// A replica calls our request malformed: one of the two processes has a bug.
    #[error("{key} refused a request as malformed: {reason}")]
    BadRequest {
        /// The chunk.
        key: ChunkKey,
        /// In the replica's words.
        reason: Box<str>,
    },
    /// A replica takes an unacknowledged request for an acknowledged one: a bug.
    #[error("{key} took the unacknowledged request {sequence} for an old one")]
    Stale {
        /// The chunk.
        key: ChunkKey,
        /// The request's number.
        sequence: Sequence,
    },
    /// A reply of the wrong length: one of the two processes has a bug.
    #[error("{key} answered {found} bytes where {expected} were due")]
    ReplyLength {
        /// The chunk.
        key: ChunkKey,
        /// What was due.
        expected: usize,
        /// What came.
        found: usize,
    },
}
