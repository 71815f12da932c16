//! Who we are to the copysets: the identity that every frame carries.
//!
//! *Place*: from the grant of the control plane into every frame of `core`.
//! *Owner*: none; a plain value.
//! *Invariants*: never changes while the volume is open.
//! *On failure*: none.

use crate::control::Grant;
use ogee_proto::id::{ClientId, Epoch, Incarnation, RequestId, VolumeId};
use ogee_proto::wire::{FrameHeader, FrameKind};

/// The identity of one attachment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Attachment {
    /// The volume.
    pub(crate) volume: VolumeId,
    /// Its user.
    pub(crate) client: ClientId,
    /// Its epoch.
    pub(crate) epoch: Epoch,
    /// Restart count of the frontend under this epoch.
    pub(crate) incarnation: Incarnation,
}

impl Attachment {
    /// What a grant makes of its user.
    pub(crate) const fn new(grant: &Grant) -> Self {
        Self {
            volume: grant.map.head().id,
            client: grant.client,
            epoch: grant.epoch,
            incarnation: grant.incarnation,
        }
    }

    /// A header with the identity filled in. The transport numbers the request.
    pub(crate) const fn header(&self, kind: FrameKind) -> FrameHeader {
        let mut header = FrameHeader::new(kind, RequestId::new(0));
        header.key.volume = self.volume;
        header.client = self.client;
        header.epoch = self.epoch;
        header.incarnation = self.incarnation;
        header
    }
}
