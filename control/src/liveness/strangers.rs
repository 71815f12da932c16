//! What chunkservers hold and the metadata does not know.
//!
//! After a restore from a backup there may be volumes, and replicas, that were made later. They are
//! told of and left alone. Volumes are asked for page by page, and only of metadata that was restored:
//! other metadata knows all that it ever issued.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ogee_proto::id::{ChunkserverId, CopysetId, ReplicaId, StoreId, VolumeId};
use ogee_proto::service::{HeartbeatRequest, VolumeHeld};

use super::told::{Account, News, Told};
use super::tracker::Liveness;
use crate::limit::{STRANGERS_EVERY, STRANGERS_EVERY_LATER, STRANGERS_MAX};
use crate::state::{AdoptMembers, State};

/// See the module.
#[derive(Default)]
pub(crate) struct Strangers {
    servers: BTreeMap<ChunkserverId, Held>,
}

/// Of one chunkserver.
#[derive(Default)]
struct Held {
    replicas: Vec<StrangeReplica>,
    volumes: BTreeMap<VolumeId, VolumeHeld>,
    /// The listing under way: what it has found, and where it goes on.
    found: BTreeMap<VolumeId, VolumeHeld>,
    after: u64,
    asked: Option<Instant>,
    /// A listing came to its end.
    is_heard: bool,
}

/// A replica that the metadata does not place there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StrangeReplica {
    pub(crate) copyset: CopysetId,
    pub(crate) replica: ReplicaId,
    pub(crate) store: StoreId,
    pub(crate) leader: ReplicaId,
    pub(crate) term: u64,
}

/// A volume over all chunkservers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StrangeVolume {
    pub(crate) chunks: u64,
    pub(crate) epoch: u64,
    /// The metadata knows it, and chunkservers have removed it.
    pub(crate) is_removed: bool,
    pub(crate) copysets: BTreeSet<CopysetId>,
    pub(crate) servers: BTreeSet<ChunkserverId>,
}

impl Strangers {
    /// Takes which replicas a chunkserver has: of what it told, that is new.
    pub(crate) fn hear(&mut self, state: &State, id: ChunkserverId, told: &Told, news: &News) {
        let held = self.servers.entry(id).or_default();
        let is_strange = |it: &&Account| !it.is_placed(state, id);
        if let News::Of(changed) = news {
            let mut changed = changed.iter().filter_map(|id| told.replicas.get(id));
            if held.replicas.is_empty() && !changed.any(|it| is_strange(&it)) {
                return;
            }
        }
        let strange = told.replicas.values().filter(is_strange);
        held.replicas = strange
            .take(STRANGERS_MAX)
            .filter_map(strange_replica)
            .collect();
    }

    /// Takes which volumes it has, as far as a heartbeat lists them.
    pub(crate) fn hear_volumes(
        &mut self,
        state: &State,
        id: ChunkserverId,
        request: &HeartbeatRequest,
    ) {
        let held = self.servers.entry(id).or_default();
        // Being freed: what was listed before is not so any more.
        held.volumes
            .retain(|id, _| !state.garbage().contains_key(id));
        if !request.volumes_reported {
            return;
        }
        for volume in &request.volumes {
            let id = VolumeId::new(volume.volume);
            if is_strange(state, id, volume) && held.found.len() < STRANGERS_MAX {
                held.found.insert(id, volume.clone());
            }
        }
        held.after = request.volumes_next;
        if held.after == 0 {
            held.volumes = std::mem::take(&mut held.found);
            held.is_heard = true;
        }
    }

    /// The volume id after which this one is to list what it holds, if it is time.
    pub(crate) fn ask(&mut self, now: Instant, state: &State, id: ChunkserverId) -> Option<u64> {
        state.restored()?;
        let every = if state.only_listens() {
            STRANGERS_EVERY
        } else {
            STRANGERS_EVERY_LATER
        };
        let held = self.servers.entry(id).or_default();
        let pause = if held.after > 0 {
            Duration::ZERO
        } else {
            every
        };
        let is_due = (held.asked).is_none_or(|at| now.saturating_duration_since(at) >= pause);
        if !is_due {
            return None;
        }
        held.asked = Some(now);
        Some(held.after)
    }

    /// Volumes that are strange by now: what was heard may have been overtaken.
    pub(crate) fn volumes(&self, state: &State) -> BTreeMap<VolumeId, StrangeVolume> {
        let mut all: BTreeMap<VolumeId, StrangeVolume> = BTreeMap::new();
        for (server, held) in &self.servers {
            let strange = held.volumes.iter();
            for (id, volume) in strange.filter(|(id, volume)| is_strange(state, **id, volume)) {
                let sum = all.entry(*id).or_default();
                sum.chunks += u64::from(volume.chunks);
                sum.epoch = sum.epoch.max(volume.epoch);
                sum.is_removed |= volume.removed;
                sum.copysets
                    .extend(volume.copysets.iter().map(|id| CopysetId::new(*id)));
                sum.servers.insert(*server);
            }
        }
        all
    }

    /// Replicas that are strange by now.
    pub(crate) fn replicas<'a>(
        &'a self,
        state: &'a State,
    ) -> impl Iterator<Item = (ChunkserverId, &'a StrangeReplica)> {
        let all = self.servers.iter();
        let all = all.flat_map(|(id, held)| held.replicas.iter().map(|it| (*id, it)));
        all.filter(|(id, it)| {
            let copyset = state.copysets().get(&it.copyset);
            let is_placed = copyset.is_some_and(|c| c.places(*id, it.replica));
            !is_placed && !state.is_retired(*id, it.copyset, it.replica)
        })
    }

    /// Chunkservers that have not listed their volumes yet.
    pub(crate) fn not_heard(&self, state: &State) -> Vec<ChunkserverId> {
        let servers = state.chunkservers().keys().copied();
        let is_heard = |id: &ChunkserverId| self.servers.get(id).is_some_and(|it| it.is_heard);
        servers.filter(|id| !is_heard(id)).collect()
    }

    /// What the leaders among these reports prove of their copysets' voters that the metadata says
    /// otherwise. A leader is believed if a majority of the voters that it names follows it in the same
    /// term, and it is known where each of them is.
    pub(crate) fn adoptions(
        &self,
        now: Instant,
        state: &State,
        liveness: &Liveness,
        told: &Told,
    ) -> Vec<AdoptMembers> {
        if !state.only_listens() {
            return Vec::new();
        }
        let leads = |it: &&Account| it.replica == it.status.leader && !it.voters.is_empty();
        let led = told.replicas.values().filter(leads);
        led.filter_map(|it| self.adoption(now, state, liveness, it))
            .collect()
    }

    fn adoption(
        &self,
        now: Instant,
        state: &State,
        liveness: &Liveness,
        leader: &Account,
    ) -> Option<AdoptMembers> {
        let id = leader.copyset;
        let copyset = state.copysets().get(&id)?;
        let said: BTreeSet<_> = leader.voters.iter().copied().collect();
        let known: BTreeSet<_> = copyset.replicas.iter().map(|replica| replica.id).collect();
        if said == known && copyset.change.is_none() {
            return None;
        }
        let mut voters = Vec::new();
        let mut follow = 0;
        for voter in said {
            let placed = copyset.placed().find(|replica| replica.id == voter);
            let strange = self.replicas(state).find(|(_, it)| it.replica == voter);
            let (store, follows, term) = match (placed, strange) {
                (Some(placed), _) => {
                    let status = liveness.replica(now, placed.chunkserver, voter);
                    let heard = status.map(|status| (status.leader, status.term));
                    let (follows, term) = heard.unwrap_or_default();
                    (placed.store, follows, term)
                }
                (None, Some((server, it))) if liveness.is_online(now, server) => {
                    (it.store, it.leader, it.term)
                }
                _ => return None,
            };
            let is_led = follows == leader.replica && term == leader.status.term;
            follow += usize::from(is_led);
            voters.push((voter, store));
        }
        (follow * 2 > voters.len()).then_some(AdoptMembers {
            copyset: id,
            voters,
        })
    }
}

/// Not known and not being removed; or known and removed there.
fn is_strange(state: &State, id: VolumeId, volume: &VolumeHeld) -> bool {
    if state.volumes().contains_key(&id) {
        return volume.removed;
    }
    !volume.removed && volume.chunks > 0 && !state.garbage().contains_key(&id)
}

/// None if it does not say which store holds it.
fn strange_replica(account: &Account) -> Option<StrangeReplica> {
    Some(StrangeReplica {
        copyset: account.copyset,
        replica: account.replica,
        store: account.store?,
        leader: account.status.leader,
        term: account.status.term,
    })
}
