//! Why a command was not carried out.

use ogee_proto::fault::Fault;
use ogee_proto::id::{ChunkserverId, CopysetId, JobId, ReplicaId, StoreId};
use ogee_proto::layout::StripeLayout;
use ogee_proto::limit::{VOLUME_SIZE_MAX, VOLUME_SIZE_MIN};
use ogee_proto::name::Name;

use crate::limit::{POOL_WEIGHT_MAX, RESET_AFTER_MS, TEXT_LEN_MAX};

/// A refusal: nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A volume of that name exists.
    #[error("volume \"{name}\" already exists")]
    VolumeExists {
        /// As asked for.
        name: Name,
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
        name: Name,
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
        name: Name,
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
        name: Name,
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
        state: &'static str,
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
        of: &'static str,
        /// How many there may be.
        max: usize,
    },
    /// A free text is too long.
    #[error("the {field} has {len} bytes")]
    TextTooLong {
        /// Which text.
        field: &'static str,
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
        name: Name,
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
fn gib(bytes: u64) -> String {
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
        }
    }

    fn cause(&self) -> String {
        match self {
            Self::VolumeAttached { host, .. } => format!("host \"{host}\" uses it"),
            Self::BadSize { .. } => format!(
                "a size is a multiple of 4096 from {VOLUME_SIZE_MIN} to {VOLUME_SIZE_MAX} bytes"
            ),
            Self::Shrink { .. } => "the blocks past the new end may hold data".into(),
            Self::BadStripe { unit, count } => match StripeLayout::new(*unit, *count) {
                Ok(_) => String::new(),
                Err(error) => error.to_string(),
            },
            Self::ReplicasDiffer { replicas, .. } => format!("it keeps {replicas}"),
            Self::BadReplicas { .. } => "a quorum needs an odd number, at most 5".into(),
            Self::StaleAttachment { epoch, .. } => {
                format!("the volume is at epoch {epoch}: it was attached again or detached since")
            }
            Self::ZoneChange { .. } => "its replicas were placed for the zone it was in".into(),
            Self::TextTooLong { .. } => format!("at most {TEXT_LEN_MAX} are allowed"),
            Self::PoolNotReady { .. } => {
                "its chunkservers have not created the replicas yet, or too few are online".into()
            }
            Self::JobUnderWay { .. } => {
                "a replica that is being copied may be a voter already, and is not taken back"
                    .into()
            }
            Self::NotEmpty { .. } => "copysets count on them".into(),
            Self::NotAccepted => "until then nothing is deleted".into(),
            Self::MaintenanceQuorum { others, .. } if others.is_empty() => {
                "half or more of its replicas are there".into()
            }
            Self::MaintenanceQuorum { others, .. } => {
                format!("{others} is in maintenance, and may be stopped at any time")
            }
            Self::PoolClosed { .. } => "an operator has closed it for them".into(),
            Self::PoolQuota {
                quota, promised, ..
            } => format!(
                "its volumes have {} of {} in all",
                gib(*promised),
                gib(*quota)
            ),
            Self::BadWeight { .. } => format!("it is 0 to {POOL_WEIGHT_MAX}"),
            Self::MajorityLeft { .. } => format!(
                "a majority of its replicas is neither declared lost nor away, damaged or missing for {} s",
                RESET_AFTER_MS / 1000
            ),
            Self::BadSpan { min, max, .. } => format!("it lasts {min} to {max} ms"),
            Self::VolumeKnown { .. } => "only what no volume names is discarded".into(),
            Self::ChangeUnderWay { joining, .. } => format!("replica {joining} joins it"),
            Self::BadTarget { .. } => {
                "it is unknown, holds a replica of it, is in the zone of another one, or is not of its pool's class".into()
            }
            Self::NoSuccessor { old, new } if old == new => "it is the same device".into(),
            Self::NoSuccessor { .. } => "it is itself drained, lost or replaced".into(),
            Self::BadPlacement { .. } => {
                "each replica needs a known store of the pool's class in a zone of its own".into()
            }
            _ => String::new(),
        }
    }

    fn remedy(&self) -> String {
        match self {
            Self::VolumeExists { name } => format!("ogee volume show {name}, or another name"),
            Self::NoVolume { .. } => "ogee volume list".into(),
            Self::VolumeAttached { name, .. } => {
                format!("stop its user; if that host is gone: ogee volume detach {name}")
            }
            Self::Shrink { .. } => "make a smaller volume and copy the data".into(),
            Self::BadStripe { .. } => "leave the stripe options out for the default".into(),
            Self::ReplicasDiffer { asked, .. } => {
                format!("a pool with {asked} replicas, or leave the option out")
            }
            Self::PoolExists { .. } => "ogee pool list".into(),
            Self::NoPool { name } => format!("ogee pool create {name}, or ogee pool list"),
            Self::PoolNotReady { .. } => "again in a few seconds; else ogee status".into(),
            Self::PoolChanged { .. } | Self::BadPlacement { .. } => "again".into(),
            Self::BadReplicas { .. } => "1, 3 or 5 replicas".into(),
            Self::StaleAttachment { .. } => "attach again".into(),
            Self::StoreElsewhere { .. } => {
                "start it under the name it had, or format the device anew".into()
            }
            Self::ZoneChange { from, .. } => format!("start it with zone {from} again"),
            Self::NoCopyset { .. } => "ogee copyset ls".into(),
            Self::NoReplica { copyset, .. } | Self::ChangeUnderWay { copyset, .. } => {
                format!("ogee copyset show {}", copyset.get())
            }
            Self::NotFormed { .. } => "again in a few seconds; else ogee status".into(),
            Self::BadTarget { .. } => "a store in a zone without a replica; ogee device ls".into(),
            Self::NoStore { .. } | Self::NoSuccessor { .. } => "ogee device ls".into(),
            Self::NoJob { .. } | Self::StaleJob { .. } => "ogee job ls".into(),
            Self::JobUnderWay { .. } => {
                "wait for its end, or send it elsewhere: ogee copyset replace".into()
            }
            Self::NotEmpty { name, .. } => {
                format!("ogee server drain {name}; if it is gone for good: ogee server lost {name}")
            }
            Self::NotAccepted => "ogee mds strangers, then ogee mds accept-restore".into(),
            Self::VolumeKnown { name } => format!("ogee volume rm {name}"),
            Self::MaintenanceQuorum { others, .. } if others.is_empty() => {
                "more replicas, or stop what uses its volumes".into()
            }
            Self::MaintenanceQuorum { others, .. } => {
                format!("first start {others} again, and: ogee server maintenance NAME --cancel")
            }
            Self::PoolClosed { pool } => {
                format!("another pool (ogee pool ls), or ogee pool set {pool} --allow-volumes yes")
            }
            Self::PoolQuota { pool, .. } => {
                format!("remove volumes, another pool, or ogee pool set {pool} --quota SIZE|none")
            }
            Self::CopysetChanged { copyset } => {
                format!("ogee copyset show {}, then again", copyset.get())
            }
            Self::MajorityLeft { copyset } => format!(
                "start what is away (ogee copyset show {}); what will never come back: ogee server lost NAME, ogee \
                 device lost STORE",
                copyset.get()
            ),
            Self::BadSpan { .. } => "--for 30m, 2h or 1d".into(),
            Self::NoChunkserver { .. } => "ogee server ls".into(),
            Self::NotRestored => "ogee status".into(),
            Self::BadSize { .. }
            | Self::BadWeight { .. }
            | Self::Limit { .. }
            | Self::TextTooLong { .. }
            | Self::NoShard { .. } => String::new(),
        }
    }
}
