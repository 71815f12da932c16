//! The world as healing sees it: plain data, so that plans can be made of any.

use std::collections::BTreeMap;
use std::time::Instant;

use ogee_proto::id::{ChunkserverId, CopysetId, ReplicaId, StoreId};

use super::replica_set::ReplicaSet;
use super::sick::SickRules;
use crate::limit::{BEHIND_MIN, NOTES_MAX};
use crate::liveness::{
    Behind, Heard, Leader, Liveness, ReplicaState, ReplicaStatus, StoreState, Verdict,
};
use crate::state::{Copyset, Mark, NoteStores, Replica, Sick, SickStage, State};

/// What the operator has set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HealRules {
    /// A device away for so long is gone for good, in milliseconds; 0: only when an operator says so.
    pub(crate) recover_after_ms: u64,
    /// Replicas that move at once, in all.
    pub(crate) moves_max: usize,
    /// Of those, from or to one chunkserver.
    pub(crate) moves_per_server_max: usize,
    /// Of those, from, to or within one zone.
    pub(crate) moves_per_zone_max: usize,
    /// Of those, of one pool.
    pub(crate) moves_per_pool_max: usize,
    /// Of those, from or to one device.
    pub(crate) moves_per_device_max: usize,
    /// How long one move may take, in milliseconds.
    pub(crate) move_timeout_ms: u64,
    /// Leaders uneven for so long are moved, in milliseconds; 0: only when an operator asks.
    pub(crate) balance_after_ms: u64,
    /// What becomes of devices that limp.
    pub(crate) sick: SickRules,
    /// The same of replicas.
    pub(crate) spread_after_ms: u64,
    /// Two devices that differ by no more, in percent of what they carry, are even.
    pub(crate) spread_percent: u64,
    /// Leaders move for what is asked of them only if that evens out so much, in percent; 0: never.
    pub(crate) lead_percent: u64,
    /// A device of which so much is taken is nearly full, in percent; 0: none is said to be.
    pub(crate) nearly_full_percent: u64,
}

impl Default for HealRules {
    fn default() -> Self {
        Self {
            recover_after_ms: 600_000,
            moves_max: 16,
            moves_per_server_max: 4,
            moves_per_zone_max: 16,
            moves_per_pool_max: 16,
            moves_per_device_max: 2,
            move_timeout_ms: 6 * 3_600_000,
            balance_after_ms: 60_000,
            sick: SickRules::default(),
            spread_after_ms: 60_000,
            spread_percent: 5,
            lead_percent: 20,
            nearly_full_percent: 85,
        }
    }
}

impl HealRules {
    /// What replicas that are only moved to be even may take of a limit: something is left for what matters more.
    pub(crate) const fn spare(limit: usize) -> usize {
        if limit < 2 { 1 } else { limit / 2 }
    }
}

/// One device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) chunkserver: ChunkserverId,
    pub(crate) presence: Presence,
    pub(crate) mark: Option<Mark>,
    pub(crate) sick: Option<Sick>,
    /// When its maintenance ends, in milliseconds since 1970, if it is in one.
    pub(crate) maintenance_until_ms: Option<u64>,
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
    pub(crate) serving: ReplicaSet,
    /// Of those, they whose contents are being copied.
    pub(crate) copying: ReplicaSet,
    /// Replicas of which their chunkservers know, in whatever state.
    pub(crate) known: ReplicaSet,
    /// Voters that do not take part although their devices are there.
    pub(crate) ailing: BTreeMap<ReplicaId, Ailment>,
    pub(crate) leaders: BTreeMap<CopysetId, ReplicaId>,
    /// What is asked of copysets, a second; none of those of which nothing is.
    pub(crate) demand: BTreeMap<CopysetId, u64>,
    /// Bytes that the data of each copyset takes on a device, as the fullest of its replicas says.
    pub(crate) held: BTreeMap<CopysetId, u64>,
    /// Replicas that lack entries which others of their copysets have.
    pub(crate) behind: BTreeMap<ReplicaId, Behind>,
}

/// Why a replica does not take part although its device is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ailment {
    pub(crate) copyset: CopysetId,
    pub(crate) store: StoreId,
    pub(crate) kind: AilmentKind,
    /// In milliseconds since 1970.
    pub(crate) since_ms: u64,
}

/// See [`Ailment`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AilmentKind {
    /// Its chunkserver does not know it.
    Missing,
    /// It is there and cannot be opened.
    Damaged,
    /// It has stopped.
    Failed,
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
                maintenance_until_ms: (state.maintenance(server, now_ms)).map(|it| it.until_ms),
                is_worn: usage.is_some_and(|usage| usage.state == StoreState::Worn),
                verdict: liveness.paces.verdict(*id),
                capacity: usage.map_or(store.capacity, |usage| usage.capacity),
                used: usage.map_or(0, |usage| usage.used),
            };
            picture.places.insert(*id, place);
        }
        let online: BTreeMap<ChunkserverId, &Heard> = state
            .chunkservers()
            .keys()
            .filter(|id| liveness.is_online(now, **id))
            .filter_map(|id| Some((*id, liveness.heard(*id)?)))
            .collect();
        for (id, copyset) in state.copysets() {
            picture.add_copyset(state, &online, *id, copyset);
            let replicas = copyset.replicas.iter();
            // Whoever does not report any more leads nothing.
            let replicas = replicas.filter(|r| online.contains_key(&r.chunkserver));
            let demand: u64 = replicas.map(|r| liveness.demand.of(r.id)).sum();
            if demand > 0 {
                picture.demand.insert(*id, demand);
            }
        }
        picture
    }

    /// What is heard of its replicas: each report is looked up once, since there may be millions.
    fn add_copyset(
        &mut self,
        state: &State,
        online: &BTreeMap<ChunkserverId, &Heard>,
        id: CopysetId,
        copyset: &Copyset,
    ) {
        let mut newest: Option<Leader> = None;
        let mut held: Option<u64> = None;
        let (mut least, mut furthest) = (u64::MAX, 0);
        for replica in copyset.members() {
            let heard = online.get(&replica.chunkserver);
            let status = heard.and_then(|heard| heard.replicas.get(&replica.id));
            if let Some(status) = status {
                least = least.min(status.applied);
                furthest = furthest.max(status.last_log);
                held = held.max(status.held);
                self.add_status(replica.id, status);
                let is_member = copyset.members().any(|r| r.id == status.leader);
                if is_member && newest.is_none_or(|newest| status.term >= newest.term) {
                    newest = Some(Leader {
                        replica: status.leader,
                        term: status.term,
                    });
                }
            }
            let is_telling = heard.is_some_and(|heard| !heard.is_registration);
            if let Some(kind) = ailment(replica, status).filter(|_| is_telling) {
                self.add_ailing(state, id, copyset, replica, kind);
            }
        }
        if let Some(leader) = newest {
            self.leaders.insert(id, leader.replica);
        }
        if let Some(held) = held {
            self.held.insert(id, held);
        }
        if furthest.saturating_sub(least) >= BEHIND_MIN {
            self.add_behind(online, copyset, furthest);
        }
    }

    fn add_behind(
        &mut self,
        online: &BTreeMap<ChunkserverId, &Heard>,
        copyset: &Copyset,
        target: u64,
    ) {
        for replica in copyset.members() {
            let heard = online.get(&replica.chunkserver);
            let status = heard.and_then(|heard| heard.replicas.get(&replica.id));
            let applied = status.map(|status| status.applied);
            if let Some(applied) = applied.filter(|it| target.saturating_sub(*it) >= BEHIND_MIN) {
                let is = Behind { applied, target };
                self.behind.insert(replica.id, is);
            }
        }
    }

    fn add_status(&mut self, replica: ReplicaId, status: &ReplicaStatus) {
        self.known.insert(replica);
        if status.state.serves() {
            self.serving.insert(replica);
        }
        if status.state == ReplicaState::Installing {
            self.copying.insert(replica);
        }
    }

    /// Only voters, and only where the device is there: else that is what is said of it.
    fn add_ailing(
        &mut self,
        state: &State,
        id: CopysetId,
        copyset: &Copyset,
        replica: &Replica,
        kind: AilmentKind,
    ) {
        let place = self.places.get(&replica.store);
        let is_there = place.is_some_and(|place| !matches!(place.presence, Presence::Away { .. }));
        if is_there && copyset.replicas.iter().any(|r| r.id == replica.id) {
            let ailment = Ailment {
                copyset: id,
                store: replica.store,
                kind,
                since_ms: state.ailing_since(replica.id).unwrap_or(self.now_ms),
            };
            self.ailing.insert(replica.id, ailment);
        }
    }

    /// Whether a replica does not come to itself, as far as anybody may act on it.
    pub(crate) fn is_ailing(&self, replica: ReplicaId, rules: &HealRules) -> bool {
        let ailment = self.ailing.get(&replica);
        ailment.is_some_and(|ailment| {
            let waited = self.now_ms.saturating_sub(ailment.since_ms);
            let is_over = rules.recover_after_ms > 0 && waited >= rules.recover_after_ms;
            is_over && !self.is_maintained(ailment.store)
        })
    }

    /// What is wrong with a replica whose device is there.
    pub(crate) fn ailment(&self, replica: ReplicaId) -> Option<AilmentKind> {
        self.ailing.get(&replica).map(|ailment| ailment.kind)
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
        let is_over = rules.recover_after_ms > 0
            && waited >= rules.recover_after_ms
            && place.maintenance_until_ms.is_none();
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

    /// Whether a device is of a chunkserver in maintenance: it leads nothing, gets nothing new, and is not given up.
    pub(crate) fn is_maintained(&self, store: StoreId) -> bool {
        let place = self.places.get(&store);
        place.is_some_and(|place| place.maintenance_until_ms.is_some())
    }

    /// Whether a device is there, healthy, and to stay.
    pub(crate) fn is_up(&self, store: StoreId) -> bool {
        let place = self.places.get(&store);
        let stays =
            |p: &Place| p.mark.is_none() && p.sick.is_none() && p.maintenance_until_ms.is_none();
        place.is_some_and(|p| p.presence == Presence::Up && stays(p))
    }

    /// Voters that take part.
    pub(crate) fn serving_of(&self, copyset: &Copyset) -> usize {
        let replicas = copyset.replicas.iter();
        replicas.filter(|r| self.serving.contains(&r.id)).count()
    }

    /// Whether it leads others, who are to be led on before it goes.
    pub(crate) fn leads_others(&self, id: CopysetId, copyset: &Copyset, replica: &Replica) -> bool {
        copyset.replicas.len() > 1 && self.leaders.get(&id) == Some(&replica.id)
    }

    /// Whether a majority takes part.
    pub(crate) fn has_quorum(&self, copyset: &Copyset) -> bool {
        self.serving_of(copyset) * 2 > copyset.replicas.len()
    }

    /// Whether a majority takes part and has all its contents: enough to do without the others.
    pub(crate) fn has_whole_quorum(&self, copyset: &Copyset) -> bool {
        let replicas = copyset.replicas.iter();
        let whole =
            replicas.filter(|r| self.serving.contains(&r.id) && !self.copying.contains(&r.id));
        whole.count() * 2 > copyset.replicas.len()
    }

    /// What the metadata does not say yet about who is away. Of replicas so many at a time.
    pub(crate) fn unnoted(&self, state: &State) -> NoteStores {
        let mut notes = NoteStores::default();
        for (id, place) in &self.places {
            match (place.presence, state.away_since(*id)) {
                (Presence::Away { since_ms }, None) => notes.away.push((*id, since_ms)),
                (Presence::Up | Presence::Shaky, Some(_)) => notes.back.push(*id),
                _ => {}
            }
        }
        let new = self.ailing.iter();
        let new = new.filter(|(id, _)| state.ailing_since(**id).is_none());
        let new = new.map(|(id, ailment)| (ailment.copyset, *id, ailment.since_ms));
        notes.ailing = new.take(NOTES_MAX).collect();
        let well = state.ailing().keys();
        // One that is away may be as it was when it comes back, or not: then its time begins anew.
        let well = well.filter(|id| !self.ailing.contains_key(id));
        notes.well = well.copied().take(NOTES_MAX).collect();
        notes
    }
}

fn ailment(replica: &Replica, status: Option<&ReplicaStatus>) -> Option<AilmentKind> {
    match status.map(|status| status.state) {
        None => replica.created.then_some(AilmentKind::Missing),
        Some(ReplicaState::Damaged) => Some(AilmentKind::Damaged),
        Some(ReplicaState::Failed) => Some(AilmentKind::Failed),
        Some(_) => None,
    }
}

/// Bytes that replicas hold: as they say, or else estimated: of what a device holds, each replica's part by the chunks
/// that volumes have in its copyset.
pub(crate) struct Bytes<'a> {
    picture: &'a Picture,
    chunks: BTreeMap<StoreId, u64>,
}

impl<'a> Bytes<'a> {
    pub(crate) fn of(state: &State, picture: &'a Picture) -> Self {
        let mut chunks: BTreeMap<StoreId, u64> = BTreeMap::new();
        for copyset in state.copysets().values().filter(|c| c.chunks > 0) {
            for replica in &copyset.replicas {
                *chunks.entry(replica.store).or_default() += copyset.chunks;
            }
        }
        Self { picture, chunks }
    }

    /// Of one replica of that copyset: the most that any of its devices suggests.
    pub(crate) fn of_one(&self, id: CopysetId, copyset: &Copyset) -> u64 {
        if let Some(held) = self.picture.held.get(&id) {
            return *held;
        }
        let replicas = copyset.replicas.iter();
        let shares = replicas.filter_map(|r| self.share(copyset, r.store));
        shares.max().unwrap_or(0)
    }

    fn share(&self, copyset: &Copyset, store: StoreId) -> Option<u64> {
        let place = self.picture.places.get(&store)?;
        let all = self.chunks.get(&store).copied().filter(|all| *all > 0)?;
        let bytes = u128::from(place.used) * u128::from(copyset.chunks) / u128::from(all);
        u64::try_from(bytes).ok()
    }
}
