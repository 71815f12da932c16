//! Why a command is refused, and what to try, in the user's words.

use ogee_proto::layout::StripeLayout;
use ogee_proto::limit::{VOLUME_SIZE_MAX, VOLUME_SIZE_MIN};
use ogee_proto::name::PathName;

use super::refusal::{Refusal, gib};
use crate::limit::{
    LABELS_MAX, POOL_WEIGHT_MAX, REQUEST_KEPT_MS, RESET_AFTER_MS, SCATTER_WIDTH_MAX, TEXT_LEN_MAX,
};

impl Refusal {
    pub(super) fn cause(&self) -> String {
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
            Self::BadScatterWidth { replicas: 1, .. } => {
                "with one replica no device shares a copyset with another".into()
            }
            Self::BadScatterWidth { .. } => format!("it is 0 to {SCATTER_WIDTH_MAX}"),
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
            _ => self.name_cause(),
        }
    }

    pub(super) fn remedy(&self) -> String {
        match self {
            Self::VolumeExists { name } => format!("ogee volume show {name}, or another name"),
            Self::NoVolume { .. } => "ogee volume ls".into(),
            Self::VolumeAttached { name, .. } => {
                format!("stop its user; if that host is gone: ogee volume detach {name}")
            }
            Self::Shrink { .. } => "make a smaller volume and copy the data".into(),
            Self::BadStripe { .. } => "leave the stripe options out for the default".into(),
            Self::ReplicasDiffer { asked, .. } => {
                format!("a pool with {asked} replicas, or leave the option out")
            }
            Self::PoolExists { .. } => "ogee pool ls".into(),
            Self::NoPool { name } => format!("ogee pool create {name}, or ogee pool ls"),
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
            | Self::BadScatterWidth { .. }
            | Self::Limit { .. }
            | Self::TextTooLong { .. }
            | Self::NoShard { .. } => String::new(),
            _ => self.name_remedy(),
        }
    }

    /// Of names, directories, owners and requests.
    fn name_cause(&self) -> String {
        match self {
            Self::RequestReused { before, .. } => format!(
                "it was: {before}; for {} minutes an id stands for what it was drawn for",
                REQUEST_KEPT_MS / 60_000
            ),
            Self::DirectoryNotEmpty { some, count, .. } => {
                let named: Vec<&str> = some.iter().map(PathName::as_str).collect();
                let more = count.saturating_sub(named.len());
                let more = (more > 0).then(|| format!(" and {more} more"));
                let more = more.unwrap_or_default();
                format!("in it: {}{more}", named.join(", "))
            }
            Self::IntoItself { .. } => "it would be in itself".into(),
            Self::PathOut { why, .. } => why.to_string(),
            Self::Quota {
                resource,
                limit,
                used,
                ..
            } => format!(
                "{} of {} left",
                resource.show(limit.saturating_sub(*used)),
                resource.show(*limit)
            ),
            Self::BadLabel { .. } => {
                format!("at most {TEXT_LEN_MAX} bytes, without control characters")
            }
            Self::TooManyLabels { .. } => format!("at most {LABELS_MAX} are allowed"),
            _ => self.held_cause(),
        }
    }

    fn name_remedy(&self) -> String {
        match self {
            Self::RequestReused { .. } => "an id for each request".into(),
            Self::DirectoryExists { path } => format!("ogee dir ls {path}, or another path"),
            Self::NoDirectory { path } => format!("ogee dir create {path}, or ogee dir ls"),
            Self::NoPlace { path } => format!("ogee volume show {path}, or another path"),
            Self::DirectoryNotEmpty { path, .. } => format!(
                "ogee volume rm or rename, ogee dir rm or rename what is in it; ogee volume ls {path}/"
            ),
            Self::IntoItself { .. } | Self::PathOut { .. } => "another path".into(),
            Self::Quota { of, resource, .. } => {
                format!("remove volumes, or ogee quota set {}", of.option(*resource))
            }
            Self::TooManyLabels { name, .. } => format!("ogee volume set {name} --unlabel KEY"),
            _ => self.held_remedy(),
        }
    }

    /// Of jobs that are held up, and of pools that are still needed.
    fn held_cause(&self) -> String {
        match self {
            Self::JobsPaused { .. } => {
                "an operator has paused them: nothing that moves replicas begins".into()
            }
            Self::PoolInUse { first, count, .. } => {
                format!("{count} volumes are in it; the first one is \"{first}\"")
            }
            Self::PoolBusy { copyset, .. } => format!(
                "chunks of removed volumes are still being freed in its copyset {}, or a replica of that is being replaced",
                copyset.get()
            ),
            Self::PoolNeeded { .. } => {
                "it is the last one, or the default while no other one has a weight".into()
            }
            _ => String::new(),
        }
    }

    fn held_remedy(&self) -> String {
        match self {
            Self::JobsPaused { .. } => "ogee job resume, then again".into(),
            Self::PoolInUse { .. } => "ogee volume ls and ogee volume rm; then again".into(),
            Self::PoolBusy { copyset, .. } => format!(
                "again in a minute; if it lasts, start what is offline (ogee server ls), or forget it when it is empty (ogee \
                 server rm): ogee copyset show {}",
                copyset.get()
            ),
            Self::PoolNeeded { .. } => {
                "another pool first: ogee pool create NAME, and ogee pool set NAME --weight 1"
                    .into()
            }
            _ => String::new(),
        }
    }
}
