//! Which volumes a group holds: asked when metadata was restored from a backup, which may not know all.
//!
//! *Place*: over the group's store and state. *Owner*: the group's shard. *Invariants*: what is counted
//! is what a read would find. *On failure*: none: it only looks at memory.

use crate::group::Group;
use ogee_proto::id::{Epoch, VolumeId};
use std::collections::{BTreeMap, BTreeSet};

/// What a group holds of one volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VolumeHeld {
    /// Chunks with data.
    pub chunks: u32,
    /// Newest epoch that was sealed.
    pub epoch: Epoch,
    /// It was removed for good.
    pub is_removed: bool,
}

impl Group {
    /// Every volume that has chunks here, or was attached, ascending.
    #[must_use]
    pub fn volumes(&self) -> BTreeMap<VolumeId, VolumeHeld> {
        let replica = self.replica();
        let stored = replica.store.chunks(replica.copyset);
        let state = replica.state.borrow();
        let chunks: BTreeSet<_> = stored.into_iter().chain(state.overlay.chunks()).collect();
        let mut volumes: BTreeMap<VolumeId, VolumeHeld> = BTreeMap::new();
        for key in chunks {
            volumes.entry(key.volume).or_default().chunks += 1;
        }
        for (id, epoch, is_removed) in state.sessions.sealed() {
            let held = volumes.entry(id).or_default();
            (held.epoch, held.is_removed) = (epoch, is_removed);
        }
        volumes
    }
}
