//! What crosses between the control thread and the shards, over bounded channels.

use crate::error::ShardError;
use ogee_device::{NvmeVitals, Pace};
use ogee_group::{GroupReport, HistogramSnapshot, KeeperMetrics, LostBlocks, ReplicaNode};
use ogee_proto::id::{CopysetId, Epoch, ReplicaId, StoreId, Term, VolumeId};
use ogee_proto::media::MediaClass;
use ogee_proto::unit::ByteLen;
use ogee_transport::Endpoint;
use std::collections::BTreeMap;
use std::time::Duration;

/// From the control thread to a shard. All are idempotent.
#[derive(Debug)]
pub enum ShardOrder {
    /// Make a replica; with members, also the group.
    CreateReplica {
        /// Of which copyset.
        copyset: CopysetId,
        /// The replica's own id.
        replica: ReplicaId,
        /// Where.
        store: StoreId,
        /// The members of a group that this replica is to make.
        bootstrap: Option<BTreeMap<ReplicaId, ReplicaNode>>,
        /// Deleted first, if the store holds it and it cannot be opened.
        replaces: Option<ReplicaId>,
    },
    /// Make these the voters, if this shard leads in this term.
    ChangeMembers(ChangeMembers),
    /// Delete a replica that is no member any more.
    RemoveReplica {
        /// Of which copyset.
        copyset: CopysetId,
        /// Exactly this one.
        replica: ReplicaId,
    },
    /// Have a replica go on alone: the others of its group are gone for good.
    ResetReplica(ResetReplica),
    /// Where replicas are now.
    Learn(Vec<(ReplicaId, Endpoint)>),
    /// Hand leadership over, if this shard leads.
    Transfer {
        /// Of which copyset.
        copyset: CopysetId,
        /// To which of its replicas.
        to: ReplicaId,
    },
    /// Give a removed volume's chunks back.
    RemoveVolume {
        /// Which.
        volume: VolumeId,
        /// Where it had chunks.
        copysets: Vec<CopysetId>,
    },
    /// Write and read a little on those of these stores that are here: the MDS wants to see how they fare.
    Probe(Vec<StoreId>),
    /// List, in the next report, the volumes that are held, from those after this one on.
    ListVolumes {
        /// 0: all.
        after: VolumeId,
    },
    /// Say how things stand.
    Report,
    /// Hand leaders over, make a last checkpoint, end.
    Stop,
}

/// See [`ShardOrder::ChangeMembers`].
#[derive(Clone, Debug)]
pub struct ChangeMembers {
    /// Of which copyset.
    pub copyset: CopysetId,
    /// The voters that are wanted, and where they are.
    pub members: BTreeMap<ReplicaId, ReplicaNode>,
    /// The leader's term, as the MDS knows it.
    pub term: Term,
    /// Of the configuration that is wanted: an order of an earlier one is void.
    pub conf_epoch: u64,
}

/// See [`ShardOrder::ResetReplica`].
#[derive(Clone, Debug)]
pub struct ResetReplica {
    /// Of which copyset.
    pub copyset: CopysetId,
    /// The id that it has.
    pub from: ReplicaId,
    /// The id that it gets.
    pub to: ReplicaId,
    /// Where it is.
    pub store: StoreId,
    /// The same for others.
    pub node: ReplicaNode,
}

/// From a shard to the control thread.
#[derive(Debug)]
pub enum ShardEvent {
    /// The shard serves (or why it does not).
    Started {
        /// What it has.
        outcome: Result<ShardStart, ShardError>,
    },
    /// How things stand.
    Report(Box<ShardReport>),
}

/// What a shard that serves has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardStart {
    /// Its number.
    pub shard: u16,
    /// Where it listens, and over what.
    pub endpoint: Endpoint,
    /// Its stores.
    pub stores: Vec<StoreStatus>,
}

/// How a store stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreStatus {
    /// The store.
    pub store: StoreId,
    /// Its shard.
    pub shard: u16,
    /// Its device.
    pub path: String,
    /// What kind of device that is, if it is known.
    pub class: Option<MediaClass>,
    /// Bytes of extents.
    pub capacity: ByteLen,
    /// Bytes of extents in use.
    pub used: ByteLen,
    /// Bytes of log.
    pub log_capacity: ByteLen,
    /// Bytes of log in use.
    pub log_used: ByteLen,
    /// `ok`, `failed`, `full` or `worn`.
    pub state: &'static str,
    /// Extents that are never used again.
    pub retired: u32,
    /// How long the device takes.
    pub pace: Pace,
    /// Requests that the device failed.
    pub failures: u64,
    /// How far it has been read for what rots.
    pub scrub: ScrubStatus,
    /// How far the replicas of what is led here have been compared, in pieces.
    pub compare: ScrubStatus,
    /// Both are paused.
    pub is_paused: bool,
    /// What is done with its device in the background.
    pub background: BackgroundStatus,
    /// Of an NVMe drive, how it fares.
    pub vitals: Option<NvmeVitals>,
    /// Why that is not known.
    pub drive_unknown: DriveUnknown,
    /// What was damaged on it and was put right.
    pub repairs: RepairStatus,
    /// How often its metadata was verified.
    pub light: LightStatus,
}

/// What was verified of a store's metadata.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LightStatus {
    /// Passes that have ended.
    pub passes: u64,
    /// Copies of pages that the last one looked at.
    pub copies: u64,
    /// Of those, the ones that stayed bad.
    pub bad: u64,
    /// Pages of which neither could be read.
    pub unread: u64,
}

/// Why a drive does not tell how it fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DriveUnknown {
    /// It does, or was not asked yet.
    #[default]
    Known,
    /// There is no NVMe drive below it, or several.
    NoNvme,
    /// This process may not ask it.
    NotPermitted,
    /// The controller has no device node here.
    NoNode,
    /// It was asked, and did not say.
    Refused,
}

impl DriveUnknown {
    /// For logs.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Known => "it tells",
            Self::NoNvme => "not asked: no NVMe drive is below it, or several",
            Self::NotPermitted => "not asked: that is not permitted to this process",
            Self::NoNode => "not asked: its controller has no device node here",
            Self::Refused => "it does not tell",
        }
    }
}

/// What was found damaged in a store and put right, since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepairStatus {
    /// Blocks of data, written anew with what other replicas have.
    pub blocks: u64,
    /// Copies of metadata pages, written anew with what the other copy has.
    pub pages: u64,
    /// Metadata pages of which no copy was good, written anew with what the store knows.
    pub pages_anew: u64,
}

/// How fast a device is read and written in the background, in bytes per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackgroundStatus {
    /// Lately.
    pub speed: u64,
    /// What may be now, as clients fare.
    pub allowed: u64,
    /// What may ever be.
    pub limit: u64,
}

/// How far a store has been read for what rots, or compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubStatus {
    /// Bytes, or pieces, of the pass under way.
    pub read: u64,
    /// Of so many, as of its beginning; 0: there is none under way.
    pub of: u64,
    /// How long it has taken.
    pub took: Duration,
    /// Passes that have ended.
    pub passes: u64,
    /// When the last one of them did, before now.
    pub ended: Duration,
}

/// How a replica stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Raft's view.
    pub group: GroupReport,
    /// Its store.
    pub store: StoreId,
    /// Voters as committed; none while they change.
    pub voters: Vec<ReplicaId>,
    /// Term of its last log entry.
    pub last_term: Term,
    /// Whether its group does as it is, as far as is seen from here.
    pub is_led: bool,
    /// Bytes that its data takes of the store, when that was last measured.
    pub held: Option<u64>,
    /// `ok`, `failed`, `repairing` (its log, from the others) or `damaged` beyond that.
    pub state: &'static str,
}

/// Everything a shard has to say once a second.
#[derive(Clone, Debug)]
pub struct ShardReport {
    /// Which shard.
    pub shard: u16,
    /// Its stores.
    pub stores: Vec<StoreStatus>,
    /// Its replicas.
    pub replicas: Vec<ReplicaStatus>,
    /// Removed volumes of which nothing is left here.
    pub volumes_removed: Vec<VolumeId>,
    /// Replicas that were to be deleted and are.
    pub replicas_removed: Vec<(CopysetId, ReplicaId)>,
    /// Blocks that no replica of their copyset has: the first few.
    pub lost: Vec<(CopysetId, LostBlocks)>,
    /// Blocks in which the replicas of their copyset differ, and no rule tells which is right: the first few.
    pub disputed: Vec<(CopysetId, LostBlocks)>,
    /// A page of the volumes held, if that was asked for.
    pub volumes: Option<VolumePage>,
    /// Its counters.
    pub metrics: ShardMetrics,
}

/// Volumes that a shard holds, in the order of their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumePage {
    /// What it holds of each.
    pub volumes: BTreeMap<VolumeId, VolumeReport>,
    /// There are others after the last one.
    pub has_more: bool,
}

/// What is held of one volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeReport {
    /// Chunks with data.
    pub chunks: u32,
    /// Newest epoch that was sealed.
    pub epoch: Epoch,
    /// It was removed for good in some copyset.
    pub is_removed: bool,
    /// Where.
    pub copysets: Vec<CopysetId>,
}

/// Counters of one shard.
#[derive(Clone, Debug, Default)]
pub struct ShardMetrics {
    /// Latency per stage, by name.
    pub stages: Vec<(&'static str, HistogramSnapshot)>,
    /// Monotonic counters: name, help, value.
    pub counters: Vec<(&'static str, &'static str, u64)>,
    /// Gauges: name, help, value.
    pub gauges: Vec<(&'static str, &'static str, u64)>,
    /// Of the write-back tasks, added up.
    pub keeper: KeeperMetrics,
}
