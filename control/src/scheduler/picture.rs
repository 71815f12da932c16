//! The world as healing sees it: plain data, so that plans can be made of any.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use ogee_proto::id::{ChunkserverId, CopysetId, ReplicaId, StoreId};

use super::sick::SickRules;
use crate::liveness::{Liveness, StoreState, Verdict};
use crate::state::{Copyset, Mark, NoteStores, Sick, SickStage, State};

/// What the operator has set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HealRules {
    /// A device away for so long is gone for good, in milliseconds; 0: only when an operator says so.
    pub(crate) recover_after_ms: u64,
    /// Replicas that move at once, in all.
    pub(crate) moves_max: usize,
    /// Of those, from or to one chunkserver.
    pub(crate) moves_per_server_max: usize,
    /// Of those, from or to one device.
    pub(crate) moves_per_device_max: usize,
    /// How long one move may take, in milliseconds.
    pub(crate) move_timeout_ms: u64,
    /// Leaders uneven for so long are moved, in milliseconds; 0: only when an operator asks.
    pub(crate) balance_after_ms: u64,
    /// What becomes of devices that limp.
    pub(crate) sick: SickRules,
}

impl Default for HealRules {
    fn default() -> Self {
        Self {
            recover_after_ms: 600_000,
            moves_max: 16,
            moves_per_server_max: 4,
            moves_per_device_max: 2,
            move_timeout_ms: 6 * 3_600_000,
            balance_after_ms: 60_000,
            sick: SickRules::default(),
        }
    }
}

/// One device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) chunkserver: ChunkserverId,
    pub(crate) presence: Presence,
    pub(crate) mark: Option<Mark>,
    pub(crate) sick: Option<Sick>,
    /// It has too many retired extents.
    pub(crate) is_worn: bool,
    /// How it fares now.
    pub(crate) verdict: Verdict,
    pub(crate) capacity: u64,
    pub(crate) used: u64,
}

/// Whether a device is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It serves and can take replicas.
    Up,
    /// It serves, but is full, or its chunkserver just came back: no target.
    Shaky,
    /// It is failed, or nobody reports it.
    Away {
        /// In milliseconds since 1970.
        since_ms: u64,
    },
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Picture {
    /// Milliseconds since 1970.
    pub(crate) now_ms: u64,
    pub(crate) places: BTreeMap<StoreId, Place>,
    /// Replicas that take part in their groups.
    pub(crate) serving: BTreeSet<ReplicaId>,
    /// Replicas of which their chunkservers know, in whatever state.
    pub(crate) known: BTreeSet<ReplicaId>,
    pub(crate) leaders: BTreeMap<CopysetId, ReplicaId>,
}

impl Picture {
    /// As the newest reports have it.
    pub(crate) fn take(state: &State, liveness: &Liveness, now: Instant, now_ms: u64) -> Self {
        let mut picture = Self {
            now_ms,
            ..Self::default()
        };
        for (id, store) in state.stores() {
            let server = store.chunkserver;
            let heard = liveness.heard(server);
            let online = liveness.is_online(now, server);
            let usage = heard.and_then(|heard| heard.stores.get(id));
            let since_ms = state.away_since(*id).unwrap_or(now_ms);
            let presence = match usage.filter(|_| online).map(|usage| usage.state) {
                None | Some(StoreState::Failed) => Presence::Away { since_ms },
                Some(StoreState::Full | StoreState::Worn) => Presence::Shaky,
                Some(StoreState::Ok) if liveness.is_unstable(now, server) => Presence::Shaky,
                Some(StoreState::Ok) => Presence::Up,
            };
            let place = Place {
                chunkserver: server,
                presence,
                mark: state.mark(*id),
                sick: state.sick(*id),
                is_worn: usage.is_some_and(|usage| usage.state == StoreState::Worn),
                verdict: liveness.paces.verdict(*id),
                capacity: usage.map_or(store.capacity, |usage| usage.capacity),
                used: usage.map_or(0, |usage| usage.used),
            };
            picture.places.insert(*id, place);
        }
        for (id, copyset) in state.copysets() {
            for replica in copyset.members() {
                if let Some(status) = liveness.replica(now, replica.chunkserver, replica.id) {
                    picture.known.insert(replica.id);
                    if status.state.serves() {
                        picture.serving.insert(replica.id);
                    }
                }
            }
            if let Some(leader) = liveness.leader(now, copyset) {
                picture.leaders.insert(*id, leader.replica);
            }
        }
        picture
    }

    /// Whether a device will not come back, as far as anybody may act on it.
    pub(crate) fn is_gone(&self, store: StoreId, rules: &HealRules) -> bool {
        let Some(place) = self.places.get(&store) else {
            return true;
        };
        let Presence::Away { since_ms } = place.presence else {
            return false;
        };
        let waited = self.now_ms.saturating_sub(since_ms);
        let is_over = rules.recover_after_ms > 0 && waited >= rules.recover_after_ms;
        is_over || place.mark == Some(Mark::Lost)
    }

    /// Whether a device serves, however well.
    pub(crate) fn is_there(&self, store: StoreId) -> bool {
        let place = self.places.get(&store);
        place.is_some_and(|place| !matches!(place.presence, Presence::Away { .. }))
    }

    /// Whether a device is to be emptied: an operator wants that, or it limped for too long.
    pub(crate) fn is_draining(&self, store: StoreId) -> bool {
        let is_ejected =
            |place: &Place| place.sick.is_some_and(|it| it.stage == SickStage::Ejected);
        let place = self.places.get(&store);
        place.is_some_and(|place| place.mark == Some(Mark::Draining) || is_ejected(place))
    }

    /// Whether a device is much slower than its peers: it leads nothing, and gets nothing new.
    pub(crate) fn limps(&self, store: StoreId) -> bool {
        let place = self.places.get(&store);
        place.is_some_and(|place| place.sick.is_some())
    }

    /// Whether a device is there, healthy, and to stay.
    pub(crate) fn is_up(&self, store: StoreId) -> bool {
        let place = self.places.get(&store);
        let stays = |p: &Place| p.mark.is_none() && p.sick.is_none();
        place.is_some_and(|p| p.presence == Presence::Up && stays(p))
    }

    /// Voters that take part.
    pub(crate) fn serving_of(&self, copyset: &Copyset) -> usize {
        let replicas = copyset.replicas.iter();
        replicas.filter(|r| self.serving.contains(&r.id)).count()
    }

    /// Whether a majority takes part.
    pub(crate) fn has_quorum(&self, copyset: &Copyset) -> bool {
        self.serving_of(copyset) * 2 > copyset.replicas.len()
    }

    /// What the metadata does not say yet about who is away.
    pub(crate) fn unnoted(&self, state: &State) -> NoteStores {
        let mut notes = NoteStores::default();
        for (id, place) in &self.places {
            match (place.presence, state.away_since(*id)) {
                (Presence::Away { since_ms }, None) => notes.away.push((*id, since_ms)),
                (Presence::Up | Presence::Shaky, Some(_)) => notes.back.push(*id),
                _ => {}
            }
        }
        notes
    }
}

/// Bytes that a copyset's replica holds, estimated: its part of what its devices hold, by the chunks
/// that volumes have in each copyset.
pub(crate) fn bytes_of(state: &State, picture: &Picture) -> BTreeMap<CopysetId, u64> {
    let mut chunks: BTreeMap<StoreId, u64> = BTreeMap::new();
    for copyset in state.copysets().values() {
        for replica in &copyset.replicas {
            *chunks.entry(replica.store).or_default() += copyset.chunks;
        }
    }
    let share = |copyset: &Copyset, store: StoreId| {
        let place = picture.places.get(&store)?;
        let all = chunks.get(&store).copied().filter(|all| *all > 0)?;
        let bytes = u128::from(place.used) * u128::from(copyset.chunks) / u128::from(all);
        u64::try_from(bytes).ok()
    };
    let estimate = |copyset: &Copyset| {
        let replicas = copyset.replicas.iter();
        let shares = replicas.filter_map(|r| share(copyset, r.store));
        shares.max().unwrap_or(0)
    };
    let copysets = state.copysets().iter();
    copysets.map(|(id, c)| (*id, estimate(c))).collect()
}
