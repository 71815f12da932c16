//! The control plane as this crate needs it: three questions.
//!
//! *Place*: `Volume::open`, `refresh` and `Volume::close` ask; `mds` answers over gRPC, and a
//! simulation may answer from memory.
//! *Owner*: the shard of the volume; implementations hide their own threads.
//! *Invariants*: nothing on the I/O path waits for an answer from here.
//! *On failure*: an unanswered refresh changes nothing; an unanswered attach fails the open.

use crate::map::VolumeMap;
use crate::mds::ControlError;
use ogee_proto::id::{ClientId, Epoch, Incarnation};
use std::future::Future;
use std::pin::Pin;

/// A question under way.
pub type ControlFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, ControlError>> + 'a>>;

/// Who wants to use which volume, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttachSpec {
    /// The volume.
    pub name: String,
    /// The host that asks, as operators know it.
    pub host: String,
    /// No mutation will be sent.
    pub read_only: bool,
}

/// A volume's use, granted.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Who the user is to the copysets: as the control plane issued it, unless `incarnation` is above 1.
    pub client: ClientId,
    /// The epoch that goes with it.
    pub epoch: Epoch,
    /// 1 when the control plane granted it just now; one more each time that a frontend goes on without asking.
    pub incarnation: Incarnation,
    /// Where the volume lives.
    pub map: VolumeMap,
}

/// The control plane.
///
/// *Atomicity*: an attach is durable when it returns. *Cancellation*: a dropped attach may still
/// have been granted; a later one supersedes it.
pub trait Control {
    /// Makes the caller the volume's user.
    fn attach(&self, spec: AttachSpec) -> ControlFuture<'_, Grant>;
    /// The newest map of an attached volume.
    fn refresh(&self, name: &str, client: ClientId, epoch: Epoch) -> ControlFuture<'_, VolumeMap>;
    /// Gives the volume up.
    fn detach(&self, name: &str, client: ClientId, epoch: Epoch) -> ControlFuture<'_, ()>;
}
