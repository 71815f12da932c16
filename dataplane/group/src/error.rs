//! Errors of the group layer.

use ogee_device::{DeviceError, NvmeFault};
use ogee_log::LogError;
use ogee_proto::id::{ChunkKey, CopysetId, ReplicaId, StoreId};
use ogee_proto::wire::WireError;
use ogee_store::StoreError;

/// What went wrong with a group on this replica.
///
/// Who recovers: `Log` and `Store` mean that this replica's device failed (the shard reports it and
/// stops acking); `Stopped` means the group was closed; the others name damage that the operator
/// must see.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// The log failed.
    #[error("{copyset}: log: {source}")]
    Log {
        /// The group.
        copyset: CopysetId,
        /// Why.
        source: LogError,
    },
    /// The store failed.
    #[error("{copyset}: store: {source}")]
    Store {
        /// The group.
        copyset: CopysetId,
        /// Why.
        source: StoreError,
    },
    /// The log names extents that its store does not have: it is the log of another one.
    #[error("store {store}: extents that its log names: {source}")]
    Pins {
        /// The store.
        store: StoreId,
        /// Why.
        source: StoreError,
    },
    /// Nobody has told the store what extents its log names: nothing may be written to it.
    #[error("{copyset}: log and store have not been brought together: start the keeper first")]
    Apart {
        /// The group.
        copyset: CopysetId,
    },
    /// The checkpoint's state cannot be decoded.
    #[error("{copyset}: checkpoint state: {source}")]
    CheckpointState {
        /// The group.
        copyset: CopysetId,
        /// Why.
        source: WireError,
    },
    /// The store holds no replica of the group.
    #[error("{copyset}: the store holds no replica of it")]
    NoReplica {
        /// The group.
        copyset: CopysetId,
    },
    /// The store holds another replica of the group.
    #[error("{copyset}: the store holds replica {found}, not {wanted}: remove the old one first")]
    OtherReplica {
        /// The group.
        copyset: CopysetId,
        /// The one held.
        found: ReplicaId,
        /// The one asked for.
        wanted: ReplicaId,
    },
    /// openraft refused to start or has stopped.
    #[error("{copyset}: replica {replica} has stopped: {reason}")]
    Stopped {
        /// The group.
        copyset: CopysetId,
        /// The replica.
        replica: ReplicaId,
        /// openraft's own words.
        reason: Box<str>,
    },
    /// The replica has been deleted: what it held is nowhere here.
    #[error("{copyset}: replica {replica} has been deleted")]
    Deleted {
        /// The group.
        copyset: CopysetId,
        /// The replica.
        replica: ReplicaId,
    },
    /// The replica's log is damaged beyond repair, or not repaired yet.
    #[error("{copyset}: log of replica {replica} has lost {lost}: {reason}")]
    Damaged {
        /// The group.
        copyset: CopysetId,
        /// The replica.
        replica: ReplicaId,
        /// What is lost.
        lost: Box<str>,
        /// Why it stays lost.
        reason: &'static str,
    },
    /// A block could not be read from any place.
    #[error("{copyset}: block {block} of {key} failed its checksum")]
    Corrupt {
        /// The group.
        copyset: CopysetId,
        /// The chunk.
        key: ChunkKey,
        /// The block.
        block: u16,
    },
    /// A copy of the contents is coming in.
    #[error("{copyset}: the replica is being copied to and holds a mixture until that is done")]
    Installing {
        /// The group.
        copyset: CopysetId,
    },
    /// A digest's entry was applied again over blocks that may be newer, or half written.
    #[error("{copyset}: the digest is from before this replica's start, and is not made again")]
    BeforeStart {
        /// The group.
        copyset: CopysetId,
    },
    /// An operator has paused what is done with the device at leisure.
    #[error("{copyset}: comparing is paused on this replica's device: ogee device scrub --resume")]
    Paused {
        /// The group.
        copyset: CopysetId,
    },
    /// A digest's entry did not come here.
    #[error(
        "{copyset}: the digest's entry has not come: a copy may have taken its place; ask for another one"
    )]
    DigestSkipped {
        /// The group.
        copyset: CopysetId,
    },
    /// A read kept racing with write-back.
    #[error("{copyset}: read of {key} raced with write-back too often")]
    Race {
        /// The group.
        copyset: CopysetId,
        /// The chunk.
        key: ChunkKey,
    },
}

impl GroupError {
    /// Whether an entry of the log is lost here, until another replica gives it back.
    #[must_use]
    pub const fn is_lost_entry(&self) -> bool {
        matches!(
            self,
            Self::Log {
                source: LogError::Corrupt { .. }
                    | LogError::EntryLost { .. }
                    | LogError::Read { .. },
                ..
            }
        )
    }

    /// Whether blocks of the store are damaged, or cannot be read: another replica may have them whole.
    #[must_use]
    pub const fn is_damaged_block(&self) -> bool {
        matches!(
            self,
            Self::Corrupt { .. }
                | Self::Store {
                    source: StoreError::Checksum { .. }
                        | StoreError::Device(
                            DeviceError::Io { .. }
                                | DeviceError::Nvme {
                                    source: NvmeFault::Command(_),
                                    ..
                                }
                        ),
                    ..
                }
        )
    }

    /// Whether room on the device is all that is missing.
    #[must_use]
    pub const fn is_no_space(&self) -> bool {
        matches!(
            self,
            Self::Store {
                source: StoreError::NoSpace { .. },
                ..
            }
        )
    }
}
