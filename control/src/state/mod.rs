//! The metadata and the commands that change it: a deterministic state machine.
//!
//! *Place*: fed by `raft` with committed commands, read by `api`, `scheduler` and `metrics`.
//! *Owner*: the Raft thread changes it; others read whole, immutable copies.
//! *Invariants*: no clock, no I/O, no randomness: the same commands give the same state and the
//! same replies on every metadata server. Ids are issued once. A volume's epoch only grows. The
//! copyset of an existing chunk never changes.
//! *On failure*: a command that cannot be carried out changes nothing and is answered with a
//! [`Refusal`].

mod apply;
mod check;
mod command;
mod directory;
mod event;
mod job;
mod label;
mod maintenance;
mod map;
mod model;
mod pause;
mod pool;
mod query;
mod quota;
mod refusal;
mod replace;
mod requests;
mod reset;
mod restore;
mod retire;
mod sick;
mod succession;
mod topology;
mod version;
mod volume;
mod words;

pub use command::{
    Attach, Command, ConfirmChanges, ConfirmRemoval, ConfirmReplicas, CreateCopysets, CreatePool,
    CreateVolume, Detach, InitCluster, Outcome, RegisterChunkserver, RemoveVolume, ReplaceReplica,
    Reply, ResizeVolume, StoreSpec,
};
pub use directory::{CreateDirectory, Directory, RemoveDirectory, Rename};
pub use event::{Event, EventLevel, Events};
pub use job::{
    AddJobs, Cause, EndJob, Ending, Job, JobKind, JobState, Mark, MarkStores, NewJob, NoteStores,
    StartJob, StartJobs, Target,
};
pub use label::{Labels, SetVolume};
pub use maintenance::{BeginMaintenance, EndMaintenance, Maintenance};
pub use model::{
    Attachment, Change, Chunkserver, Cluster, Copyset, Garbage, MapSegment, Pool, Replica, State,
    Store, Stripe, Users, Volume,
};
pub use pause::{PauseJobs, ResumeJobs};
pub use pool::SetPool;
pub use quota::{Bound, Quota, QuotaOf, Resource, SetQuota, Usage};
pub use refusal::Refusal;
pub use requests::{Asked, Once};
pub use reset::{Reset, ResetCopyset};
pub use restore::{AdoptMembers, DiscardVolume, Restored};
pub use retire::RemovePool;
pub use sick::{NoteSick, Sick, SickStage};
pub(crate) use topology::check_count;
pub use version::{FIRST as FIRST_VERSION, OURS as OUR_VERSION, RaiseVersion};
