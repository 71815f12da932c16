//! Failures as clients see them.

use ogee_proto::fault::{Fault, MDS_LEADER_METADATA};
use ogee_proto::id::{CopysetId, ReplicaId};
use ogee_proto::media::MediaClass;
use ogee_proto::name::{Name, NameError};
use ogee_proto::service::MemberInfo;
use tonic::{Code, Status};

use crate::backup::BackupError;
use crate::placement::PlacementError;
use crate::raft::{MemberError, Older, Unavailable, WriteError};
use crate::scheduler::TransfersFull;
use crate::state::Refusal;

/// A fault with the gRPC code that machines look at.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    fault: Box<Fault>,
    grpc: Code,
    leader: Option<String>,
}

impl ApiError {
    pub(crate) fn new(grpc: Code, fault: Fault) -> Self {
        Self {
            fault: Box::new(fault),
            grpc,
            leader: None,
        }
    }

    pub(crate) const fn grpc(&self) -> Code {
        self.grpc
    }

    /// A field that cannot be read.
    pub(crate) fn bad_field(field: &'static str, value: &str, expected: &str) -> Self {
        let what = format!("{field} {value:?} cannot be used");
        Self::new(
            Code::InvalidArgument,
            Fault::new("OGEE-2021", &what, expected, ""),
        )
    }

    /// The metadata could not be read as a whole.
    pub(crate) fn no_digest(why: &str) -> Self {
        let what = "no digest of the metadata was made";
        let remedy = "again; this metadata server's log says more";
        Self::new(Code::Internal, Fault::new("OGEE-2076", what, why, remedy))
    }

    /// Someone else's chunkserver.
    pub(crate) fn other_cluster(theirs: &str, ours: &str) -> Self {
        let what = format!("this chunkserver's stores belong to cluster {theirs}");
        let cause = format!("this is cluster {ours}");
        let remedy = "the address of its own metadata server, or devices formatted anew";
        Self::new(
            Code::FailedPrecondition,
            Fault::new("OGEE-2022", &what, &cause, remedy),
        )
    }

    /// Two processes under one name.
    pub(crate) fn name_in_use(name: &Name) -> Self {
        let what = format!("chunkserver \"{name}\" is online with other stores");
        let cause = "a name stands for one process";
        let remedy = "another name; or a few seconds' patience, if the old one was stopped";
        Self::new(
            Code::AlreadyExists,
            Fault::new("OGEE-2023", &what, cause, remedy),
        )
    }

    /// The first leader has not drawn the cluster's id yet.
    pub(crate) fn no_cluster() -> Self {
        let fault = Fault::new(
            "OGEE-2031",
            "the cluster has no id yet",
            "it just started",
            "again",
        );
        Self::new(Code::Unavailable, fault)
    }

    /// No usable store goes by that name.
    pub(crate) fn no_store(named: &str) -> Self {
        let what = format!("no store that could take a replica goes by \"{named}\"");
        let cause = "no chunkserver or store of that name is online with a healthy device";
        let fault = Fault::new("OGEE-2028", &what, cause, "ogee device ls");
        Self::new(Code::NotFound, fault)
    }

    /// A chunkserver serves one replica of a copyset.
    pub(crate) fn replica_there(named: &str, copyset: CopysetId, replica: ReplicaId) -> Self {
        let what = format!("\"{named}\" cannot take another replica of {copyset}");
        let cause = format!("it serves replica {replica}");
        let fault = Fault::new("OGEE-2029", &what, &cause, "another chunkserver");
        Self::new(Code::FailedPrecondition, fault)
    }

    /// No device and no chunkserver goes by that name.
    pub(crate) fn no_devices(named: &str) -> Self {
        let what = format!("no device or chunkserver goes by \"{named}\"");
        let cause = "it is neither a chunkserver's name nor a store's id";
        let fault = Fault::new("OGEE-2046", &what, cause, "ogee server ls; ogee device ls");
        Self::new(Code::NotFound, fault)
    }

    /// No chunkserver says that it is there.
    pub(crate) fn no_zone(named: &str) -> Self {
        let what = format!("no zone goes by \"{named}\"");
        let cause = "no chunkserver that is known is in it";
        let fault = Fault::new("OGEE-2111", &what, cause, "ogee zone ls");
        Self::new(Code::NotFound, fault)
    }

    /// What serves is not lost.
    pub(crate) fn still_serves(named: &str) -> Self {
        let what = format!("\"{named}\" is not lost");
        let cause = "a device of it is online and serves";
        let remedy = format!("to empty it: drain {named}; to give it up: stop it first");
        let fault = Fault::new("OGEE-2047", &what, cause, &remedy);
        Self::new(Code::FailedPrecondition, fault)
    }

    /// Too few zones have what is wanted.
    pub(crate) fn no_placement(error: &PlacementError, class: Option<MediaClass>) -> Self {
        let what = "the pool cannot be placed";
        if let PlacementError::TooFewCopysets { needed, .. } = error {
            let remedy = format!("--copysets {needed}, or a smaller --scatter-width");
            let fault = Fault::new("OGEE-2011", what, &error.to_string(), &remedy);
            return Self::new(Code::InvalidArgument, fault);
        }
        let (cause, remedy) = match class {
            None => (
                error.to_string(),
                "start chunkservers in more zones, or fewer replicas; ogee zone ls",
            ),
            Some(class) => (
                format!("{error}; only devices of class {class} count"),
                "devices of that class in more zones (ogee device ls; `class` of a [[device]]), or fewer replicas",
            ),
        };
        let fault = Fault::new("OGEE-2011", what, &cause, remedy);
        Self::new(Code::FailedPrecondition, fault)
    }

    /// Not all metadata servers have been upgraded.
    fn not_understood(older: &Older) -> Self {
        let ids: Vec<String> = older.older.iter().map(|it| it.0.to_string()).collect();
        let remedy = format!(
            "upgrade and start metadata server {}, then again: ogee mds ls",
            ids.join(", ")
        );
        let what = "not all metadata servers understand that yet";
        let fault = Fault::new("OGEE-2096", what, &older.to_string(), &remedy);
        Self::new(Code::FailedPrecondition, fault)
    }

    /// A new member whose release is too old.
    pub(crate) fn older_member_there(addr: &str, id: u64, theirs: u32, group: u32) -> Self {
        let what = format!("metadata server {id} cannot be taken in");
        let cause = format!(
            "the one at {addr} understands version {theirs} of the metadata's commands, and the group is at {group}"
        );
        let remedy = "start it with the others' release: ogee mds ls";
        let fault = Fault::new("OGEE-2097", &what, &cause, remedy);
        Self::new(Code::FailedPrecondition, fault)
    }

    /// Copysets need it.
    pub(crate) fn no_quorum_without(named: &str, copysets: &[u32]) -> Self {
        let what = format!("chunkserver \"{named}\" cannot go into maintenance");
        let shown: Vec<String> = copysets.iter().take(8).map(u32::to_string).collect();
        let cause = format!(
            "{} copysets would have no quorum without it, those that are away or in maintenance already not counted: {}",
            copysets.len(),
            shown.join(" ")
        );
        let remedy = "ogee status: first start what is offline, end other maintenances, or wait for copies that go on";
        let fault = Fault::new("OGEE-2080", &what, &cause, remedy);
        Self::new(Code::FailedPrecondition, fault)
    }

    /// One that runs would register again.
    pub(crate) fn still_online(named: &str) -> Self {
        let what = format!("chunkserver \"{named}\" is online");
        let remedy = format!("ogee server ok-to-stop {named}, then stop it");
        let fault = Fault::new("OGEE-2048", &what, "it would register again", &remedy);
        Self::new(Code::FailedPrecondition, fault)
    }

    /// A volume that nobody reports as unknown.
    pub(crate) fn no_stranger(volume: u64) -> Self {
        let what = format!("no volume {volume} is held that the metadata does not know");
        let cause = "no chunkserver has reported one";
        let fault = Fault::new("OGEE-2074", &what, cause, "ogee mds strangers");
        Self::new(Code::NotFound, fault)
    }

    /// Chunkservers that are silent may hold what the metadata does not know.
    pub(crate) fn not_all_heard(names: &[String]) -> Self {
        let what = "the restored metadata is not accepted";
        let shown: Vec<&str> = names.iter().take(8).map(String::as_str).collect();
        let cause = format!(
            "{} chunkservers that it names have not reported what they hold: {}",
            names.len(),
            shown.join(", ")
        );
        let remedy = "start them, or wait a few seconds; one that is gone for good: --force";
        Self::new(
            Code::FailedPrecondition,
            Fault::new("OGEE-2075", what, &cause, remedy),
        )
    }

    /// A new member is asked before it is taken in.
    pub(crate) fn no_member_there(addr: &str) -> Self {
        let what = format!("no metadata server answers at {addr}");
        let remedy = "start it with join = true and an empty data directory; check the address";
        Self::new(
            Code::FailedPrecondition,
            Fault::new("OGEE-2061", &what, "it is asked who it is first", remedy),
        )
    }

    /// Whoever is there is not the one that is meant.
    pub(crate) fn other_member_there(addr: &str, id: u64, said: &MemberInfo) -> Self {
        let what = format!("{addr} is not a metadata server {id} that could be taken in");
        let cause = match said.cluster_id.as_str() {
            "" => format!("it is metadata server {}", said.id),
            cluster => format!("it is metadata server {} of cluster {cluster}", said.id),
        };
        let remedy = "its id in its configuration, join = true, and an empty data directory";
        Self::new(
            Code::FailedPrecondition,
            Fault::new("OGEE-2062", &what, &cause, remedy),
        )
    }

    /// A transfer to a replica that the copyset does not have.
    pub(crate) fn no_replica(copyset: u32, replica: u64) -> Self {
        let what = format!("copyset {copyset} has no replica {replica}");
        let fault = Fault::new("OGEE-2024", &what, "", "ogee copyset ls");
        Self::new(Code::NotFound, fault)
    }
}

impl From<NameError> for ApiError {
    fn from(error: NameError) -> Self {
        let fault = Fault::new(
            "OGEE-2001",
            "the name cannot be used",
            &error.to_string(),
            "",
        );
        Self::new(Code::InvalidArgument, fault)
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let grpc = match &refusal {
            Refusal::VolumeExists { .. }
            | Refusal::PoolExists { .. }
            | Refusal::DirectoryExists { .. } => Code::AlreadyExists,
            Refusal::NoVolume { .. }
            | Refusal::NoChunkserver { .. }
            | Refusal::NoPool { .. }
            | Refusal::NoCopyset { .. }
            | Refusal::NoStore { .. }
            | Refusal::NoJob { .. }
            | Refusal::NoDirectory { .. }
            | Refusal::NoReplica { .. } => Code::NotFound,
            Refusal::BadSize { .. }
            | Refusal::BadSpan { .. }
            | Refusal::BadWeight { .. }
            | Refusal::BadScatterWidth { .. }
            | Refusal::BadStripe { .. }
            | Refusal::BadReplicas { .. }
            | Refusal::TextTooLong { .. }
            | Refusal::BadLabel { .. }
            | Refusal::PathOut { .. }
            | Refusal::RequestReused { .. }
            | Refusal::NoShard { .. } => Code::InvalidArgument,
            Refusal::Limit { .. }
            | Refusal::PoolQuota { .. }
            | Refusal::TooManyLabels { .. }
            | Refusal::Quota { .. } => Code::ResourceExhausted,
            Refusal::PoolChanged { .. }
            | Refusal::BadPlacement { .. }
            | Refusal::StaleJob { .. }
            | Refusal::StaleAttachment { .. } => Code::Aborted,
            _ => Code::FailedPrecondition,
        };
        Self::new(grpc, refusal.fault())
    }
}

impl From<TransfersFull> for ApiError {
    fn from(error: TransfersFull) -> Self {
        let fault = Fault::new(
            "OGEE-2032",
            &error.to_string(),
            "",
            "again in a few seconds",
        );
        Self::new(Code::ResourceExhausted, fault)
    }
}

impl From<Unavailable> for ApiError {
    fn from(error: Unavailable) -> Self {
        let what = "the metadata cannot be asked here";
        let cause = error.to_string();
        let fault = |code, remedy: &str| Fault::new(code, what, &cause, remedy);
        match &error {
            Unavailable::NotLeader { addr, .. } => {
                let mut redirect = Self::new(
                    Code::Unavailable,
                    fault("OGEE-2030", &format!("--mds {addr}")),
                );
                redirect.leader = Some(addr.clone());
                redirect
            }
            Unavailable::NoLeader => {
                let remedy = "start a majority of the metadata servers";
                Self::new(Code::Unavailable, fault("OGEE-2031", remedy))
            }
            Unavailable::Overloaded => Self::new(
                Code::ResourceExhausted,
                fault("OGEE-2032", "again in a second"),
            ),
            Unavailable::TimedOut | Unavailable::Unknown => {
                let remedy = "look whether it happened, then again";
                Self::new(Code::DeadlineExceeded, fault("OGEE-2033", remedy))
            }
            Unavailable::Stopped => Self::new(
                Code::Unavailable,
                fault("OGEE-2034", "another metadata server"),
            ),
        }
    }
}

impl From<BackupError> for ApiError {
    fn from(error: BackupError) -> Self {
        Self::new(Code::Unavailable, error.fault("no backup was made"))
    }
}

impl From<MemberError> for ApiError {
    fn from(error: MemberError) -> Self {
        let what = "the group of metadata servers was not changed";
        let (grpc, code, remedy) = match &error {
            MemberError::Unavailable(unavailable) => return unavailable.clone().into(),
            MemberError::Unknown { .. } => (Code::NotFound, "OGEE-2063", "ogee mds ls"),
            MemberError::NoVoter { .. } => (Code::FailedPrecondition, "OGEE-2063", "ogee mds ls"),
            MemberError::Last { .. } => (
                Code::FailedPrecondition,
                "OGEE-2064",
                "add another one first: ogee mds add",
            ),
            MemberError::NoQuorum { .. } => (
                Code::FailedPrecondition,
                "OGEE-2065",
                "start those that do not answer: ogee mds ls shows which",
            ),
            MemberError::TooMany => (
                Code::ResourceExhausted,
                "OGEE-2066",
                "take one out first: ogee mds rm",
            ),
            MemberError::InProgress => (Code::Aborted, "OGEE-2067", "again in a few seconds"),
            MemberError::Behind { .. } => (
                Code::DeadlineExceeded,
                "OGEE-2068",
                "again: it goes on learning, and votes when it has caught up",
            ),
            MemberError::Configured { .. } => (
                Code::FailedPrecondition,
                "OGEE-2069",
                "the same address; or correct [[members]] of every metadata server and restart them",
            ),
            MemberError::OtherAddress { .. } => (
                Code::FailedPrecondition,
                "OGEE-2069",
                "take it out first: ogee mds rm",
            ),
            MemberError::AddressInUse { .. } => {
                (Code::FailedPrecondition, "OGEE-2069", "its own address")
            }
            MemberError::NoTarget { .. } => (
                Code::FailedPrecondition,
                "OGEE-2070",
                "ogee mds ls shows who lacks how much; again in a few seconds",
            ),
            MemberError::Refused { .. } => (Code::FailedPrecondition, "OGEE-2067", "ogee mds ls"),
        };
        Self::new(grpc, Fault::new(code, what, &error.to_string(), remedy))
    }
}

impl From<WriteError> for ApiError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Refused(refusal) => refusal.into(),
            WriteError::Unavailable(unavailable) => unavailable.into(),
            WriteError::Older(older) => Self::not_understood(&older),
        }
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let mut status = Self::new(error.grpc, error.fault.to_string());
        // An address that is no header value is left out; the text names it all the same.
        if let Some(leader) = error.leader.and_then(|addr| addr.parse().ok()) {
            status.metadata_mut().insert(MDS_LEADER_METADATA, leader);
        }
        status
    }
}
