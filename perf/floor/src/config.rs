//! What one process of the floor is told.

use crate::error::FloorError;
use crate::limit::{GROUPS_MAX, NODES};
use ogee_proto::id::{CopysetId, ReplicaId};
use ogee_proto::limit::{VOLUME_SIZE_MAX, VOLUME_SIZE_MIN};
use ogee_proto::unit::ByteLen;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What one process of the floor is told. All three are told the same, but for `node`, `store` and
/// `control`.
#[derive(Clone, Debug)]
pub struct FloorConfig {
    /// Which of the three this is, from 0 on.
    pub node: usize,
    /// Where each of them serves frames.
    pub peers: [SocketAddr; NODES],
    /// The store's file; made if it does not exist.
    pub store: PathBuf,
    /// Its size when it is made.
    pub store_len: ByteLen,
    /// Its log's.
    pub log_len: ByteLen,
    /// Groups; each process leads a third of them.
    pub groups: u32,
    /// Size of the volume.
    pub volume_len: ByteLen,
    /// Where to answer for the metadata server, if this process shall.
    pub control: Option<SocketAddr>,
}

impl FloorConfig {
    /// Checks what is bounded.
    ///
    /// # Errors
    /// The first that is out of range.
    pub fn check(&self) -> Result<(), FloorError> {
        within("a node number", self.node as u64, 0, NODES as u64 - 1)?;
        within(
            "a number of groups",
            self.groups.into(),
            1,
            GROUPS_MAX.into(),
        )?;
        let (min, max) = (VOLUME_SIZE_MIN, VOLUME_SIZE_MAX);
        within("a volume size", self.volume_len.get(), min, max)
    }

    /// The groups.
    pub(crate) fn groups(&self) -> impl Iterator<Item = CopysetId> + use<> {
        (1..=self.groups).map(CopysetId::new)
    }
}

/// The process that leads a group.
pub(crate) const fn leader_of(group: CopysetId) -> usize {
    group.get() as usize % NODES
}

/// The name of a group's replica in one process.
pub(crate) const fn replica_of(group: CopysetId, node: usize) -> ReplicaId {
    ReplicaId::new(group.get() as u64 * 16 + node as u64 + 1)
}

fn within(what: &'static str, found: u64, min: u64, max: u64) -> Result<(), FloorError> {
    if (min..=max).contains(&found) {
        return Ok(());
    }
    Err(FloorError::Bounds {
        what,
        found,
        min,
        max,
    })
}
