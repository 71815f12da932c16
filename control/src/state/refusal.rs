//! Why a command was not carried out.
//!
//! Refusals of requests with an id are remembered, so they stand in snapshots: variants are added, never renamed.

use std::borrow::Cow;

use ogee_proto::fault::Fault;
use ogee_proto::id::{ChunkserverId, CopysetId, JobId, ReplicaId, StoreId};
use ogee_proto::name::{Name, PathName};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::quota::{QuotaOf, Resource};

/// A refusal: nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// A volume of that name exists.
    #[error("volume \"{name}\" already exists")]
    VolumeExists {
        /// As asked for.
        name: PathName,
    },
    /// No volume of that name.
    #[error("no volume \"{name}\"")]
    NoVolume {
        /// As asked for.
        name: Box<str>,
    },
    /// The volume is in use.
    #[error("volume \"{name}\" is attached")]
    VolumeAttached {
        /// Which.
        name: PathName,
        /// By whom.
        host: Box<str>,
    },
    /// The size is out of range or not whole blocks.
    #[error("{size} bytes is no size for a volume")]
    BadSize {
        /// As asked for.
        size: u64,
    },
    /// Volumes only grow.
    #[error("volume \"{name}\" cannot shrink from {from} to {to} bytes")]
    Shrink {
        /// Which.
        name: PathName,
        /// Bytes now.
        from: u64,
        /// Bytes asked for.
        to: u64,
    },
    /// The stripe layout is out of range.
    #[error("the stripe layout cannot be used")]
    BadStripe {
        /// As asked for.
        unit: u64,
        /// As asked for.
        count: u64,
    },
    /// The pool makes another number of replicas.
    #[error("pool \"{pool}\" cannot keep {asked} replicas")]
    ReplicasDiffer {
        /// Which.
        pool: Name,
        /// Its number.
        replicas: u8,
        /// As asked for.
        asked: u32,
    },
    /// A pool of that name exists.
    #[error("pool \"{name}\" already exists")]
    PoolExists {
        /// As asked for.
        name: Name,
    },
    /// No pool of that name.
    #[error("no pool \"{name}\"")]
    NoPool {
        /// As asked for.
        name: Box<str>,
    },
    /// The pool cannot carry the volume yet.
    #[error("pool \"{pool}\" is not ready: {formed} of {needed} copysets have a leader")]
    PoolNotReady {
        /// Which.
        pool: Name,
        /// Copysets that have had a leader.
        formed: usize,
        /// Copysets that the volume needs.
        needed: usize,
    },
    /// Another placement came in between.
    #[error("pool \"{pool}\" was changed meanwhile")]
    PoolChanged {
        /// Which.
        pool: Name,
    },
    /// A pool makes 1, 3 or 5 replicas.
    #[error("{replicas} replicas cannot be kept")]
    BadReplicas {
        /// As asked for.
        replicas: u32,
    },
    /// A placement names a wrong number of stores, an unknown store, or a zone twice.
    #[error("the placement of copyset {at} does not fit the topology")]
    BadPlacement {
        /// Position in the command.
        at: usize,
    },
    /// Someone else attached the volume since.
    #[error("the attachment to \"{name}\" is over")]
    StaleAttachment {
        /// Which.
        name: PathName,
        /// Epoch now.
        epoch: u64,
    },
    /// The store is registered by another chunkserver.
    #[error("store {store} belongs to chunkserver {owner}")]
    StoreElsewhere {
        /// Which.
        store: StoreId,
        /// Whose.
        owner: ChunkserverId,
    },
    /// A chunkserver with replicas cannot change its zone.
    #[error("chunkserver \"{name}\" cannot move from zone \"{from}\" to \"{to}\"")]
    ZoneChange {
        /// Which.
        name: Name,
        /// Its zone.
        from: Name,
        /// As asked for.
        to: Name,
    },
    /// No copyset of that id.
    #[error("no copyset {copyset}")]
    NoCopyset {
        /// As asked for.
        copyset: CopysetId,
    },
    /// The copyset has no such replica.
    #[error("{copyset} has no replica {replica}")]
    NoReplica {
        /// Which copyset.
        copyset: CopysetId,
        /// As asked for.
        replica: ReplicaId,
    },
    /// The copyset never had a leader.
    #[error("{copyset} has not been formed yet")]
    NotFormed {
        /// Which.
        copyset: CopysetId,
    },
    /// A replica of the copyset is being replaced.
    #[error("{copyset} has a replacement under way")]
    ChangeUnderWay {
        /// Which.
        copyset: CopysetId,
        /// The new replica.
        joining: ReplicaId,
    },
    /// The store cannot take the replica.
    #[error("store {store} cannot take a replica of {copyset}")]
    BadTarget {
        /// Which.
        copyset: CopysetId,
        /// As asked for.
        store: StoreId,
    },
    /// A device that leaves takes nobody's place.
    #[error("device {new} cannot take the place of {old}")]
    NoSuccessor {
        /// Which is to be replaced.
        old: StoreId,
        /// As asked for.
        new: StoreId,
    },
    /// No store of that id.
    #[error("no device {store}")]
    NoStore {
        /// As asked for.
        store: StoreId,
    },
    /// No job of that id.
    #[error("no job {}", job.get())]
    NoJob {
        /// As asked for.
        job: JobId,
    },
    /// The job is not as it was when this was planned.
    #[error("job {} is {state} and has gone on", job.get())]
    StaleJob {
        /// Which.
        job: JobId,
        /// What it is.
        state: Cow<'static, str>,
    },
    /// The job has begun to change its copyset.
    #[error("job {} is under way", job.get())]
    JobUnderWay {
        /// Which.
        job: JobId,
    },
    /// Copysets count on the chunkserver.
    #[error("chunkserver \"{name}\" has {replicas} replicas")]
    NotEmpty {
        /// Which.
        name: Name,
        /// How many.
        replicas: usize,
    },
    /// No new volumes are made in the pool.
    #[error("pool \"{pool}\" takes no new volumes")]
    PoolClosed {
        /// Which.
        pool: Name,
    },
    /// The volumes of a pool would have too many bytes.
    #[error("pool \"{pool}\" has no room for {} more within its quota", gib(*more))]
    PoolQuota {
        /// Which.
        pool: Name,
        /// Bytes that its volumes may have.
        quota: u64,
        /// Bytes that they have.
        promised: u64,
        /// Bytes asked for.
        more: u64,
    },
    /// A pool's weight is out of range.
    #[error("{weight} is no weight for a pool")]
    BadWeight {
        /// As asked for.
        weight: u32,
    },
    /// The copyset is not as it was when this was decided.
    #[error("{copyset} was changed meanwhile")]
    CopysetChanged {
        /// Which.
        copyset: CopysetId,
    },
    /// The copyset can do without that.
    #[error("{copyset} has not lost its majority for good")]
    MajorityLeft {
        /// Which.
        copyset: CopysetId,
    },
    /// No chunkserver of that id.
    #[error("no chunkserver {chunkserver}")]
    NoChunkserver {
        /// As asked for.
        chunkserver: ChunkserverId,
    },
    /// A copyset would lose its quorum.
    #[error(
        "chunkserver \"{chunkserver}\" cannot go into maintenance: {copyset} would have no quorum"
    )]
    MaintenanceQuorum {
        /// Which chunkserver.
        chunkserver: Box<str>,
        /// The first of those that would have none.
        copyset: CopysetId,
        /// Others of its chunkservers that are in maintenance.
        others: Box<str>,
    },
    /// A time is out of range.
    #[error("{ms} ms is no time for a maintenance")]
    BadSpan {
        /// As asked for.
        ms: u64,
        /// The shortest.
        min: u64,
        /// The longest.
        max: u64,
    },
    /// A limit would be passed.
    #[error("more than {max} {of} are not supported")]
    Limit {
        /// What is limited.
        of: Cow<'static, str>,
        /// How many there may be.
        max: usize,
    },
    /// A free text is too long.
    #[error("the {field} has {len} bytes")]
    TextTooLong {
        /// Which text.
        field: Cow<'static, str>,
        /// Its length.
        len: usize,
    },
    /// The metadata does not come from a backup, or was accepted.
    #[error("the metadata is not waiting to be accepted after a restore")]
    NotRestored,
    /// The metadata comes from a backup and was not accepted yet.
    #[error("the restored metadata was not accepted yet")]
    NotAccepted,
    /// The volume is known.
    #[error("volume \"{name}\" is known to the metadata")]
    VolumeKnown {
        /// Which.
        name: PathName,
    },
    /// The id of a request belongs to another one.
    #[error("request {id} was something else before")]
    RequestReused {
        /// The id.
        id: Uuid,
        /// What was asked with it.
        before: Box<str>,
    },
    /// A directory of that path exists.
    #[error("directory \"{path}\" already exists")]
    DirectoryExists {
        /// As asked for.
        path: PathName,
    },
    /// No directory of that path.
    #[error("no directory \"{path}\"")]
    NoDirectory {
        /// As asked for, or the one that something is to be in.
        path: Box<str>,
    },
    /// Volumes have nothing in them.
    #[error("\"{path}\" is a volume, not a directory")]
    NoPlace {
        /// As asked for, or what something is to be in.
        path: Box<str>,
    },
    /// Something is in the directory.
    #[error("directory \"{path}\" is not empty")]
    DirectoryNotEmpty {
        /// Which.
        path: PathName,
        /// The first few of what is in it.
        some: Vec<PathName>,
        /// How much is in it.
        count: usize,
    },
    /// A directory would be in itself.
    #[error("directory \"{from}\" cannot become \"{to}\"")]
    IntoItself {
        /// Which.
        from: PathName,
        /// As asked for.
        to: PathName,
    },
    /// Something in a directory would have too long or too deep a path.
    #[error("directory \"{from}\" cannot become \"{to}\"")]
    PathOut {
        /// Which.
        from: PathName,
        /// As asked for.
        to: PathName,
        /// What is wrong with which path.
        why: Box<str>,
    },
    /// There would be more than a quota allows.
    #[error("the quota of {of} has no room for {} more", resource.show(*more))]
    Quota {
        /// Whose.
        of: QuotaOf,
        /// Of what.
        resource: Resource,
        /// How much there may be.
        limit: u64,
        /// How much there is.
        used: u64,
        /// How much more was asked for.
        more: u64,
    },
    /// A label's value is out of range.
    #[error("the value of label \"{key}\" cannot be used")]
    BadLabel {
        /// Which.
        key: Name,
    },
    /// Volumes have few labels.
    #[error("volume \"{name}\" would have {count} labels")]
    TooManyLabels {
        /// Which.
        name: PathName,
        /// How many.
        count: usize,
    },
    /// A scatter width is out of range.
    #[error("{width} is no scatter width for a pool of {replicas} replicas")]
    BadScatterWidth {
        /// As asked for.
        width: u32,
        /// Of the pool.
        replicas: u8,
    },
    /// Volumes are in the pool.
    #[error("pool \"{pool}\" is not empty")]
    PoolInUse {
        /// Which.
        pool: Name,
        /// The first volume in it.
        first: PathName,
        /// How many there are.
        count: usize,
    },
    /// A copyset of the pool holds something, or is being changed.
    #[error("pool \"{pool}\" cannot be removed yet")]
    PoolBusy {
        /// Which.
        pool: Name,
        /// The first such copyset.
        copyset: CopysetId,
    },
    /// New volumes would have nowhere to go.
    #[error("pool \"{pool}\" is needed for volumes that name no pool")]
    PoolNeeded {
        /// Which.
        pool: Name,
    },
    /// An operator holds jobs up.
    #[error("jobs are paused")]
    JobsPaused {
        /// Since when, in milliseconds since 1970.
        since_ms: u64,
    },
    /// A store names a shard that has no endpoint.
    #[error("store {store} is on shard {shard}, which has no endpoint")]
    NoShard {
        /// Which.
        store: StoreId,
        /// As registered.
        shard: u16,
    },
}

/// Bytes for people, exact enough to see what is missing.
pub(super) fn gib(bytes: u64) -> String {
    let tenths = u128::from(bytes) * 10 / (1 << 30);
    match tenths {
        0 => format!("{bytes} bytes"),
        _ => format!("{}.{} GiB", tenths / 10, tenths % 10),
    }
}

impl Refusal {
    /// The refusal in the user's words.
    #[must_use]
    pub fn fault(&self) -> Fault {
        let (cause, remedy) = (self.cause(), self.remedy());
        Fault::new(self.code(), &self.to_string(), &cause, &remedy)
    }

    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::VolumeExists { .. } => "OGEE-2002",
            Self::NoVolume { .. } => "OGEE-2003",
            Self::VolumeAttached { .. } => "OGEE-2004",
            Self::BadSize { .. } => "OGEE-2005",
            Self::Shrink { .. } => "OGEE-2006",
            Self::BadStripe { .. } => "OGEE-2007",
            Self::PoolExists { .. } => "OGEE-2008",
            Self::NoPool { .. } => "OGEE-2009",
            Self::PoolNotReady { .. } => "OGEE-2010",
            Self::PoolChanged { .. } => "OGEE-2012",
            Self::BadReplicas { .. } | Self::ReplicasDiffer { .. } => "OGEE-2013",
            Self::BadPlacement { .. } => "OGEE-2014",
            Self::StaleAttachment { .. } => "OGEE-2015",
            Self::StoreElsewhere { .. } => "OGEE-2016",
            Self::ZoneChange { .. } => "OGEE-2017",
            Self::NoCopyset { .. } => "OGEE-2018",
            Self::Limit { .. } => "OGEE-2019",
            Self::TextTooLong { .. } => "OGEE-2020",
            Self::NoShard { .. } => "OGEE-2021",
            Self::NoReplica { .. } => "OGEE-2024",
            Self::NotFormed { .. } => "OGEE-2025",
            Self::ChangeUnderWay { .. } => "OGEE-2026",
            Self::BadTarget { .. } | Self::NoSuccessor { .. } => "OGEE-2027",
            Self::NoStore { .. } => "OGEE-2041",
            Self::NoJob { .. } => "OGEE-2042",
            Self::StaleJob { .. } => "OGEE-2043",
            Self::JobUnderWay { .. } => "OGEE-2044",
            Self::NotEmpty { .. } => "OGEE-2045",
            Self::PoolClosed { .. } => "OGEE-2084",
            Self::PoolQuota { .. } => "OGEE-2085",
            Self::BadWeight { .. } => "OGEE-2086",
            Self::CopysetChanged { .. } => "OGEE-2082",
            Self::MajorityLeft { .. } => "OGEE-2083",
            Self::NoChunkserver { .. } => "OGEE-2046",
            Self::MaintenanceQuorum { .. } => "OGEE-2080",
            Self::BadSpan { .. } => "OGEE-2081",
            Self::NotRestored => "OGEE-2071",
            Self::NotAccepted => "OGEE-2072",
            Self::VolumeKnown { .. } => "OGEE-2073",
            Self::RequestReused { .. } => "OGEE-2087",
            Self::DirectoryExists { .. } => "OGEE-2088",
            Self::NoDirectory { .. } => "OGEE-2089",
            Self::NoPlace { .. } => "OGEE-2090",
            Self::DirectoryNotEmpty { .. } => "OGEE-2091",
            Self::IntoItself { .. } | Self::PathOut { .. } => "OGEE-2092",
            Self::Quota { .. } => "OGEE-2093",
            Self::BadLabel { .. } | Self::TooManyLabels { .. } => "OGEE-2094",
            Self::BadScatterWidth { .. } => "OGEE-2095",
            Self::JobsPaused { .. } => "OGEE-2110",
            Self::PoolInUse { .. } => "OGEE-2112",
            Self::PoolBusy { .. } => "OGEE-2113",
            Self::PoolNeeded { .. } => "OGEE-2114",
        }
    }
}
