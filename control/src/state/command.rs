//! Commands, as they stand in the replicated log, and their replies.

use std::fmt;

use ogee_proto::id::{
    ChunkserverId, ClientId, CopysetId, Epoch, JobId, PoolId, ReplicaId, StoreId, VolumeId,
};
use ogee_proto::media::MediaClass;
use ogee_proto::name::{Name, PathName};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::directory::{CreateDirectory, RemoveDirectory, Rename};
use super::event::Event;
use super::job::{AddJobs, EndJob, MarkStores, NoteStores, StartJob, StartJobs};
use super::label::{Labels, SetVolume};
use super::maintenance::{BeginMaintenance, EndMaintenance};
use super::model::{Stripe, Volume};
use super::pause::{PauseJobs, ResumeJobs};
use super::pool::SetPool;
use super::quota::SetQuota;
use super::refusal::Refusal;
use super::requests::Once;
use super::reset::ResetCopyset;
use super::restore::{AdoptMembers, DiscardVolume};
use super::retire::RemovePool;
use super::sick::NoteSick;
use super::version::RaiseVersion;

/// A change of the metadata. Whatever is random, timed or measured is decided before and passed in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do")]
pub enum Command {
    /// Names the cluster, once.
    InitCluster(InitCluster),
    /// Makes a chunkserver and its stores known.
    RegisterChunkserver(RegisterChunkserver),
    /// Makes an empty pool.
    CreatePool(CreatePool),
    /// Adds copysets to a pool.
    CreateCopysets(CreateCopysets),
    /// Remembers that replicas exist and copysets have had a leader.
    ConfirmReplicas(ConfirmReplicas),
    /// Makes a volume and its whole map.
    CreateVolume(CreateVolume),
    /// Grows a volume.
    ResizeVolume(ResizeVolume),
    /// Removes a volume.
    RemoveVolume(RemoveVolume),
    /// Gives a volume to a user and fences the one before.
    Attach(Attach),
    /// Ends an attachment.
    Detach(Detach),
    /// Remembers that a chunkserver freed the chunks of removed volumes.
    ConfirmRemoval(ConfirmRemoval),
    /// Begins to put a new replica in the place of another.
    ReplaceReplica(ReplaceReplica),
    /// Remembers what became of replicas that replace and are replaced.
    ConfirmChanges(ConfirmChanges),
    /// Sets or takes away an operator's wish for devices.
    MarkStores(MarkStores),
    /// Remembers since when devices are away.
    NoteStores(NoteStores),
    /// Remembers which devices limp.
    NoteSick(NoteSick),
    /// Takes devices back that limped. Idempotent.
    ReinstateStores {
        /// Which.
        stores: Vec<StoreId>,
    },
    /// Empties a device into another one. Idempotent.
    ReplaceStore {
        /// Which.
        old: StoreId,
        /// Where its replicas go.
        new: StoreId,
    },
    /// Plans work on copysets.
    AddJobs(AddJobs),
    /// Begins a job that moves a replica, or sends it elsewhere.
    StartJob(StartJob),
    /// The same for many at once.
    StartJobs(StartJobs),
    /// Ends a job.
    EndJob(EndJob),
    /// Forgets a chunkserver that carries nothing. Idempotent.
    RemoveChunkserver {
        /// Which.
        chunkserver: ChunkserverId,
    },
    /// Remembers what happened.
    NoteEvents {
        /// The oldest first.
        events: Vec<Event>,
    },
    /// After a restore: the voters of a copyset are these. Idempotent.
    AdoptMembers(AdoptMembers),
    /// After a restore: from now on more is done than listening. Idempotent.
    AcceptRestore,
    /// Has the chunks of a volume freed that the metadata does not know. Idempotent.
    DiscardVolume(DiscardVolume),
    /// Changes what is allowed in a pool.
    SetPool(SetPool),
    /// A copyset that has lost its majority goes on with one replica.
    ResetCopyset(ResetCopyset),
    /// A chunkserver is about to be stopped for a while.
    BeginMaintenance(BeginMaintenance),
    /// It is not any more.
    EndMaintenance(EndMaintenance),
    /// Carries a command out once, however often it is asked for.
    Once(Once),
    /// Calls a volume something else. Its users go on.
    RenameVolume(Rename),
    /// Changes whose a volume is, and its labels.
    SetVolume(SetVolume),
    /// Makes a directory.
    CreateDirectory(CreateDirectory),
    /// Removes an empty directory.
    RemoveDirectory(RemoveDirectory),
    /// Calls a directory, and all that is in it, something else.
    RenameDirectory(Rename),
    /// Bounds what an owner, or a directory, may have.
    SetQuota(SetQuota),
    /// All metadata servers understand so much.
    RaiseVersion(RaiseVersion),
    /// No background job begins any more.
    PauseJobs(PauseJobs),
    /// They do again. Idempotent.
    ResumeJobs(ResumeJobs),
    /// Removes a pool in which nothing is.
    RemovePool(RemovePool),
}

/// See [`Command::InitCluster`]. A second one is answered with the first one's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitCluster {
    /// Drawn by the proposer.
    pub id: Uuid,
    /// For people.
    pub name: Name,
}

/// See [`Command::RegisterChunkserver`]. The same name always gets the same id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterChunkserver {
    /// Unique.
    pub name: Name,
    /// Failure domain.
    pub zone: Name,
    /// Host.
    pub server: Name,
    /// `ip:port` of each shard.
    pub endpoints: Vec<String>,
    /// Stores that it opened.
    pub stores: Vec<StoreSpec>,
    /// Its version.
    pub version: String,
}

/// A store as a chunkserver registers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreSpec {
    /// From its superblock.
    pub id: StoreId,
    /// Shard that owns it.
    pub shard: u16,
    /// Device or file.
    pub path: String,
    /// Bytes for data.
    pub capacity: u64,
    /// Bytes of log.
    pub log_capacity: u64,
    /// What kind of device it is on, if that is known.
    #[serde(default)]
    pub class: Option<MediaClass>,
}

/// See [`Command::CreatePool`]. Idempotent while the pool is empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatePool {
    /// Unique.
    pub name: Name,
    /// 1, 3 or 5.
    pub replicas: u8,
    /// Only devices of that class; none: any.
    #[serde(default)]
    pub class: Option<MediaClass>,
    /// With how many others each device shall share copysets; 0: with as many as can be.
    #[serde(default, skip_serializing_if = "super::model::is_none")]
    pub scatter_width: u32,
}

/// See [`Command::CreateCopysets`]. Refused if the topology no longer allows the placement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateCopysets {
    /// Of which pool.
    pub pool: PoolId,
    /// Copysets that the pool had when the placement was made: two placements never mix.
    pub existing: u32,
    /// Stores of each new copyset's replicas, the preferred first leader first.
    pub placements: Vec<Vec<StoreId>>,
}

/// See [`Command::ConfirmReplicas`]. Idempotent; unknown ids are passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmReplicas {
    /// Replicas that were reported.
    pub created: Vec<(CopysetId, ReplicaId)>,
    /// Copysets that were reported with a leader.
    pub formed: Vec<CopysetId>,
}

/// See [`Command::CreateVolume`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateVolume {
    /// Unique; the directories that it names exist.
    pub name: PathName,
    /// By name.
    pub pool: Name,
    /// Bytes.
    pub size: u64,
    /// Fixed for good.
    pub stripe: Stripe,
    /// 0: the pool's.
    pub replicas: u32,
    /// Free text.
    pub owner: String,
    /// To tell it by.
    #[serde(default)]
    pub labels: Labels,
    /// Milliseconds since 1970.
    pub created_unix_ms: u64,
}

/// See [`Command::ResizeVolume`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResizeVolume {
    /// Which.
    pub name: PathName,
    /// Bytes; not less than now.
    pub size: u64,
}

/// See [`Command::RemoveVolume`]. Refused while attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveVolume {
    /// Which.
    pub name: PathName,
}

/// See [`Command::Attach`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// Which.
    pub name: PathName,
    /// Free text.
    pub host: String,
    /// Only to read, beside others that only read. Refused beside one that writes, as is a writer
    /// beside readers; a writer takes the place of another one, which its new epoch fences.
    pub read_only: bool,
}

/// See [`Command::Detach`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detach {
    /// Which.
    pub name: PathName,
    /// Of the attachment to end; not looked at when forced.
    pub client: ClientId,
    /// Of the attachment to end; not looked at when forced.
    pub epoch: Epoch,
    /// Ends whatever attachment there is, and bumps the epoch.
    pub force: bool,
}

/// See [`Command::ConfirmRemoval`]. Idempotent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmRemoval {
    /// Who freed them.
    pub chunkserver: ChunkserverId,
    /// Whose chunks.
    pub volumes: Vec<VolumeId>,
}

/// See [`Command::ReplaceReplica`]. Repeated while it is under way, it answers with the same replica;
/// with another store, another replica joins instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplaceReplica {
    /// Of which copyset.
    pub copyset: CopysetId,
    /// Whose place is taken.
    pub replica: ReplicaId,
    /// Where the new one is to be.
    pub store: StoreId,
}

/// See [`Command::ConfirmChanges`]. Idempotent; what is not under way is passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmChanges {
    /// Copysets whose voters were reported, committed, to be the wanted ones, with the replica that
    /// joined: a later change is not meant.
    pub changed: Vec<(CopysetId, ReplicaId)>,
    /// Replicas that were deleted.
    pub removed: Vec<(CopysetId, ReplicaId)>,
    /// Milliseconds since 1970.
    #[serde(default)]
    pub at_ms: u64,
}

/// What a command that was carried out answers. Answers to requests with an id are remembered, so they stand in
/// snapshots: variants are added, never renamed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Nothing to tell.
    Done,
    /// The cluster's id.
    Cluster(Uuid),
    /// Id of the chunkserver registered.
    Chunkserver(ChunkserverId),
    /// Id of the pool.
    Pool(PoolId),
    /// Ids of the copysets, in the order of the placements.
    Copysets(Vec<CopysetId>),
    /// The volume, as the command left it.
    Volume(VolumeId, Box<Volume>),
    /// Id of the replica.
    Replica(ReplicaId),
    /// Jobs that were made.
    Jobs(Vec<JobId>),
    /// The new attachment.
    Attached {
        /// Which volume.
        id: VolumeId,
        /// As it is since.
        volume: Box<Volume>,
        /// Its new user.
        client: ClientId,
        /// Its new epoch.
        epoch: Epoch,
    },
}

/// Carried out, or refused without any change.
pub type Outcome = Result<Reply, Refusal>;

impl Command {
    /// A word for logs and metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::InitCluster(_) => "init_cluster",
            Self::RegisterChunkserver(_) => "register_chunkserver",
            Self::CreatePool(_) => "create_pool",
            Self::CreateCopysets(_) => "create_copysets",
            Self::ConfirmReplicas(_) => "confirm_replicas",
            Self::CreateVolume(_) => "create_volume",
            Self::ResizeVolume(_) => "resize_volume",
            Self::RemoveVolume(_) => "remove_volume",
            Self::Attach(_) => "attach",
            Self::Detach(_) => "detach",
            Self::ConfirmRemoval(_) => "confirm_removal",
            Self::ReplaceReplica(_) => "replace_replica",
            Self::ConfirmChanges(_) => "confirm_changes",
            Self::MarkStores(_) => "mark_stores",
            Self::NoteStores(_) => "note_stores",
            Self::NoteSick(_) => "note_sick",
            Self::ReinstateStores { .. } => "reinstate_stores",
            Self::ReplaceStore { .. } => "replace_store",
            Self::AddJobs(_) => "add_jobs",
            Self::StartJob(_) => "start_job",
            Self::StartJobs(_) => "start_jobs",
            Self::EndJob(_) => "end_job",
            Self::RemoveChunkserver { .. } => "remove_chunkserver",
            Self::NoteEvents { .. } => "note_events",
            Self::AdoptMembers(_) => "adopt_members",
            Self::AcceptRestore => "accept_restore",
            Self::DiscardVolume(_) => "discard_volume",
            Self::SetPool(_) => "set_pool",
            Self::ResetCopyset(_) => "reset_copyset",
            Self::BeginMaintenance(_) => "begin_maintenance",
            Self::EndMaintenance(_) => "end_maintenance",
            Self::Once(once) => once.command.kind(),
            Self::RenameVolume(_) => "rename_volume",
            Self::SetVolume(_) => "set_volume",
            Self::CreateDirectory(_) => "create_directory",
            Self::RemoveDirectory(_) => "remove_directory",
            Self::RenameDirectory(_) => "rename_directory",
            Self::SetQuota(_) => "set_quota",
            Self::RaiseVersion(_) => "raise_version",
            Self::PauseJobs(_) => "pause_jobs",
            Self::ResumeJobs(_) => "resume_jobs",
            Self::RemovePool(_) => "remove_pool",
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}
