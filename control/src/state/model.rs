//! What the metadata consists of.

use std::collections::{BTreeMap, BTreeSet};

use ogee_proto::id::{
    ChunkserverId, ClientId, CopysetId, Epoch, JobId, PoolId, ReplicaId, StoreId, VolumeId,
};
use ogee_proto::layout::{LayoutError, StripeLayout};
use ogee_proto::media::MediaClass;
use ogee_proto::name::{Name, PathName};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::directory::Directory;
use super::event::Events;
use super::job::{Job, Mark};
use super::label::Labels;
use super::maintenance::Maintenance;
use super::quota::Quota;
use super::requests::Requests;
use super::reset::Reset;
use super::restore::Restored;
use super::sick::Sick;

/// All metadata of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub(super) cluster: Option<Cluster>,
    pub(super) pools: BTreeMap<PoolId, Pool>,
    pub(super) chunkservers: BTreeMap<ChunkserverId, Chunkserver>,
    pub(super) stores: BTreeMap<StoreId, Store>,
    pub(super) copysets: BTreeMap<CopysetId, Copyset>,
    pub(super) volumes: BTreeMap<VolumeId, Volume>,
    /// Removed volumes whose chunks some chunkserver still holds.
    pub(super) garbage: BTreeMap<VolumeId, Garbage>,
    /// Volumes by name: derived from `volumes`, kept so that a lookup does not scan.
    pub(super) names: BTreeMap<PathName, VolumeId>,
    /// Copysets by chunkserver: derived from `copysets`, kept so that a heartbeat does not scan.
    pub(super) hosted: BTreeMap<ChunkserverId, BTreeSet<CopysetId>>,
    /// Work on copysets: all that is live, and the newest that has ended.
    #[serde(default)]
    pub(super) jobs: BTreeMap<JobId, Job>,
    /// What operators want of devices.
    #[serde(default)]
    pub(super) marks: BTreeMap<StoreId, Mark>,
    /// Devices that are away, since when, in milliseconds since 1970.
    #[serde(default)]
    pub(super) away: BTreeMap<StoreId, u64>,
    /// Devices that limp.
    #[serde(default)]
    pub(super) sick: BTreeMap<StoreId, Sick>,
    /// Devices that are replaced, and by which.
    #[serde(default)]
    pub(super) successors: BTreeMap<StoreId, StoreId>,
    /// Replicas that do not take part although their devices are there, since when.
    #[serde(default)]
    pub(super) ailing: BTreeMap<ReplicaId, u64>,
    /// Chunkservers that are stopped for a while, or about to be.
    #[serde(default)]
    pub(super) maintenance: BTreeMap<ChunkserverId, Maintenance>,
    /// What happened lately.
    #[serde(default)]
    pub(super) events: Events,
    /// Directories by path; of each, those above it are there, too.
    #[serde(default)]
    pub(super) directories: BTreeMap<PathName, Directory>,
    /// Users of volumes that were renamed since: they know those by an old name.
    #[serde(default)]
    pub(super) renamed: BTreeMap<ClientId, VolumeId>,
    /// What owners may have. Each bounds something.
    #[serde(default)]
    pub(super) owner_quotas: BTreeMap<String, Quota>,
    /// What became of requests with an id.
    #[serde(default)]
    pub(super) requests: Requests,
    /// The restore that this metadata comes from.
    #[serde(default)]
    pub(super) restored: Option<Restored>,
    /// What all metadata servers understand: [`State::version`].
    #[serde(default, skip_serializing_if = "is_none")]
    pub(super) version: u32,
    /// Since when no job begins: [`State::paused_since`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) paused_ms: Option<u64>,
    /// Replicas of removed pools that chunkservers have not deleted yet.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) retired: BTreeMap<CopysetId, Vec<Replica>>,
    pub(super) issued: Issued,
}

/// The newest id issued of each kind. They only grow, so none is ever issued again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Issued {
    pub(super) pool: u32,
    pub(super) chunkserver: u32,
    pub(super) copyset: u32,
    pub(super) replica: u64,
    pub(super) volume: u64,
    pub(super) client: u64,
    #[serde(default)]
    pub(super) job: u64,
}

/// Who we are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Written into every store at format time.
    pub id: Uuid,
    /// For people.
    pub name: Name,
}

/// A set of copysets with one replication policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// As the operator named it.
    pub name: Name,
    /// Replicas of each of its copysets.
    pub replicas: u8,
    /// Its copysets.
    pub copysets: BTreeSet<CopysetId>,
    /// Its replicas are on devices of that class; none: on any.
    #[serde(default)]
    pub class: Option<MediaClass>,
    /// No new volumes are made in it.
    #[serde(default)]
    pub is_closed: bool,
    /// Bytes that its volumes may have in all; 0: any number.
    #[serde(default)]
    pub quota: u64,
    /// Share of the volumes that name no pool; 0: none of them.
    #[serde(default)]
    pub weight: u32,
    /// With how many others each device shall share copysets; 0: with as many as can be.
    #[serde(default, skip_serializing_if = "is_none")]
    pub scatter_width: u32,
}

/// What an earlier release does not know stands in a snapshot only when it is used.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
pub(super) const fn is_none(number: &u32) -> bool {
    *number == 0
}

/// The same of what counts in 64 bits.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
pub(super) const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A data-plane process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunkserver {
    /// Unique; the id was issued for it.
    pub name: Name,
    /// Failure domain.
    pub zone: Name,
    /// Host.
    pub server: Name,
    /// `ip:port` of each shard, as of the last registration.
    pub endpoints: Vec<String>,
    /// Version that registered.
    pub version: String,
    /// Every store that it ever registered.
    pub stores: BTreeSet<StoreId>,
}

/// One slice of one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Store {
    /// Its chunkserver.
    pub chunkserver: ChunkserverId,
    /// Shard that owns it: an index into the chunkserver's endpoints.
    pub shard: u16,
    /// Device or file, as the chunkserver calls it.
    pub path: String,
    /// Bytes for data.
    pub capacity: u64,
    /// Bytes of log.
    pub log_capacity: u64,
    /// What kind of device it is on, if that is known.
    #[serde(default)]
    pub class: Option<MediaClass>,
}

/// A Raft group that carries chunks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copyset {
    /// Its pool.
    pub pool: PoolId,
    /// Its replicas. The first one initialises the group and is its preferred first leader.
    pub replicas: Vec<Replica>,
    /// Grows with each change of `replicas`.
    pub conf_epoch: u64,
    /// Whether it ever had a leader. From then on nobody may initialise it again: a second
    /// group under the same id would diverge from the first.
    pub formed: bool,
    /// Chunks of all volumes that the maps place here.
    pub chunks: u64,
    /// The replacement under way.
    #[serde(default)]
    pub change: Option<Change>,
    /// Replicas that were replaced and whose data is still to be deleted.
    #[serde(default)]
    pub leaving: Vec<Replica>,
    /// Replicas that were given up and whose places are still to be taken.
    #[serde(default)]
    pub vacant: Vec<Replica>,
    /// One replica is to go on alone.
    #[serde(default)]
    pub reset: Option<Reset>,
}

/// One replica takes the place of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The new one; no voter yet, as far as is known.
    pub joining: Replica,
    /// The one whose place it takes.
    pub replaces: ReplicaId,
    /// Those that were to join before it. Each may have become a voter meanwhile, so that it leaves
    /// together with the one replaced, not earlier.
    #[serde(default)]
    pub abandoned: Vec<Replica>,
}

impl Copyset {
    /// Its replicas, and those that are, or were, about to be one.
    pub fn members(&self) -> impl Iterator<Item = &Replica> {
        let changing = self.change.iter();
        let joining = changing.flat_map(|change| change.abandoned.iter().chain([&change.joining]));
        self.replicas.iter().chain(joining)
    }

    /// Every replica that may exist anywhere.
    pub fn placed(&self) -> impl Iterator<Item = &Replica> {
        self.members().chain(&self.leaving)
    }

    /// Whether that replica may exist there.
    pub(crate) fn places(&self, server: ChunkserverId, replica: ReplicaId) -> bool {
        let mut placed = self.placed();
        placed.any(|it| it.id == replica && it.chunkserver == server)
    }

    /// Where its replicas are when what goes on has ended.
    pub fn stores(&self) -> impl Iterator<Item = StoreId> {
        let joining = self.change.iter().map(|change| change.joining.store);
        let replaced = self.change.as_ref().map(|change| change.replaces);
        let stay = self
            .replicas
            .iter()
            .filter(move |it| Some(it.id) != replaced);
        stay.map(|it| it.store).chain(joining)
    }

    /// The voters that it is to have.
    #[must_use]
    pub fn wanted_voters(&self) -> BTreeSet<ReplicaId> {
        let joining = self.change.iter().map(|change| change.joining.id);
        let replaced = self.change.as_ref().map(|change| change.replaces);
        let stay = self.replicas.iter().map(|replica| replica.id);
        let stay = stay.filter(|id| Some(*id) != replaced);
        stay.chain(joining).collect()
    }
}

/// One placement of a copyset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// Issued for this placement, never reused.
    pub id: ReplicaId,
    /// Where it runs.
    pub chunkserver: ChunkserverId,
    /// Where it is kept.
    pub store: StoreId,
    /// Whether it was ever reported. From then on it is never ordered again: an empty replica
    /// under a used id would have forgotten its vote.
    pub created: bool,
}

/// A virtual disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// As the user named it: its directory, and a name of its own.
    pub name: PathName,
    /// Its pool.
    pub pool: PoolId,
    /// Bytes.
    pub size: u64,
    /// How addresses spread over chunks.
    pub stripe: Stripe,
    /// Chunks of its address space.
    pub chunks: u32,
    /// Where each chunk lives.
    pub segments: Vec<MapSegment>,
    /// Fencing number of the newest attachment.
    pub epoch: Epoch,
    /// Who uses it.
    pub users: Users,
    /// Whose it is, in free text.
    pub owner: String,
    /// What it is told by.
    #[serde(default)]
    pub labels: Labels,
    /// Milliseconds since 1970, by the clock of the metadata server that took the request.
    pub created_unix_ms: u64,
}

/// Stripe layout in serialisable form; only a valid one is read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StripeFields")]
pub struct Stripe {
    /// Bytes.
    pub unit: u32,
    /// Chunks of a stripe set.
    pub count: u32,
}

impl Stripe {
    /// The layout itself.
    ///
    /// # Panics
    /// Never: only a valid layout becomes a `Stripe`.
    #[must_use]
    pub fn layout(self) -> StripeLayout {
        StripeLayout::new(u64::from(self.unit), u64::from(self.count))
            .expect("invariant: a stored stripe came from a valid layout")
    }
}

/// As it is stored.
#[derive(Deserialize)]
struct StripeFields {
    unit: u32,
    count: u32,
}

impl TryFrom<StripeFields> for Stripe {
    type Error = LayoutError;

    fn try_from(fields: StripeFields) -> Result<Self, LayoutError> {
        StripeLayout::new(fields.unit.into(), fields.count.into()).map(Self::from)
    }
}

impl From<StripeLayout> for Stripe {
    fn from(layout: StripeLayout) -> Self {
        Self {
            unit: layout.unit(),
            count: layout.count(),
        }
    }
}

/// Chunks `first_chunk` up to the next segment's: chunk `i` lives in
/// `copysets[(i - first_chunk) % copysets.len()]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapSegment {
    /// Inclusive.
    pub first_chunk: u32,
    /// Never empty, without repetition.
    pub copysets: Vec<CopysetId>,
}

/// Who uses a volume: one that may write, or any number that only read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Users {
    /// Nobody.
    #[default]
    Nobody,
    /// One, exclusively.
    Writer(Attachment),
    /// At least one; all of the same epoch.
    Readers(Vec<Attachment>),
}

impl Users {
    /// Each of them.
    #[must_use]
    pub fn all(&self) -> &[Attachment] {
        match self {
            Self::Nobody => &[],
            Self::Writer(one) => std::slice::from_ref(one),
            Self::Readers(all) => all,
        }
    }

    /// Whether this client is one of them.
    #[must_use]
    pub fn contains(&self, client: ClientId) -> bool {
        self.all().iter().any(|user| user.client == client)
    }

    pub(super) fn remove(&mut self, client: ClientId) {
        let is_left = match self {
            Self::Nobody => false,
            Self::Writer(one) => one.client != client,
            Self::Readers(all) => {
                all.retain(|user| user.client != client);
                !all.is_empty()
            }
        };
        if !is_left {
            *self = Self::Nobody;
        }
    }
}

/// A volume's user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Issued for this attachment.
    pub client: ClientId,
    /// Where it runs, as it said.
    pub host: String,
}

/// What a removed volume left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Garbage {
    /// Copysets that carried its chunks.
    pub copysets: BTreeSet<CopysetId>,
    /// Chunkservers that have not freed them yet.
    pub pending: BTreeSet<ChunkserverId>,
}
