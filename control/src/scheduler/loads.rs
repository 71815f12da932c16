//! What devices carry and what moves already, and so where a replica can go.
//!
//! *Place*: made once for a look, under `heal` and `spread`, which add to it what they plan. *Owner*: whoever
//! looks. *Invariants*: a target is there and to stay, has room, is in a zone without another replica of the
//! copyset and on a chunkserver without another one. Of those that carry equally little, the one that suits the
//! pool's scatter width is taken. Targets are kept by zone in the order in which they
//! are taken, so that a choice among ten thousand devices looks at few of them.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use ogee_proto::id::{ChunkserverId, PoolId, StoreId};
use ogee_proto::media::MediaClass;
use ogee_proto::name::Name;

use super::picture::{AilmentKind, HealRules, Picture, Place, Presence};
use crate::limit::{MOVE_RESERVE, SCATTER_EQUALS};
use crate::placement::Scatter;
use crate::state::{Change, Copyset, JobKind, JobState, Pool, Replica, State};

/// Quarters of a replica: a move is worth it only if it is still the right way round with one and a half fewer
/// between two devices. Then each move makes the whole more even, and no two devices give each other in turn.
const QUARTERS: u128 = 4;
const WORTH_QUARTERS: u128 = 3;
/// Shares are numbers of replicas for a byte, with so many bits after the point.
const SHARE_BITS: u32 = 64;

/// Devices of one class in one zone: they stand for each other.
type Shelf<'a> = (&'a Name, Option<MediaClass>);

/// See the module.
pub(crate) struct Loads<'a> {
    state: &'a State,
    picture: &'a Picture,
    /// Replacements that go on, in all, and by each of their ends; one within a zone is one there.
    total: usize,
    servers: BTreeMap<ChunkserverId, usize>,
    busy_zones: BTreeMap<&'a Name, usize>,
    busy_pools: BTreeMap<PoolId, usize>,
    devices: BTreeMap<StoreId, usize>,
    /// Replicas that each device carries when all that goes on, and all that is to move to a certain place, has
    /// ended.
    carried: BTreeMap<StoreId, usize>,
    /// Bytes that are still to come, at most.
    reserved: BTreeMap<StoreId, u64>,
    zones: BTreeMap<Shelf<'a>, BTreeSet<(u128, StoreId)>>,
    /// Of the pools that have a scatter width, when one is asked for.
    scatters: OnceCell<BTreeMap<PoolId, Scatter>>,
}

impl<'a> Loads<'a> {
    /// Of every replacement that goes on, whoever began it. One that waits for a majority, or for its
    /// target, copies nothing, and must not keep others from being healed.
    pub(crate) fn of(state: &'a State, picture: &'a Picture) -> Self {
        let mut loads = Self {
            state,
            picture,
            total: 0,
            servers: BTreeMap::new(),
            busy_zones: BTreeMap::new(),
            busy_pools: BTreeMap::new(),
            devices: BTreeMap::new(),
            carried: BTreeMap::new(),
            reserved: BTreeMap::new(),
            zones: BTreeMap::new(),
            scatters: OnceCell::new(),
        };
        for copyset in state.copysets().values() {
            loads.count(copyset);
        }
        for job in state.jobs().values().filter(|job| job.state.is_live()) {
            if let Some(to) = job.target.filter(|_| job.kind != JobKind::Lead) {
                *loads.reserved.entry(to.store).or_default() += job.bytes;
            }
            let copyset = state.copysets().get(&job.copyset);
            let from = copyset.and_then(|c| c.replicas.iter().find(|r| r.id == job.replica));
            if let (JobState::Pending, Some(from), Some(to)) = (job.state, from, job.to) {
                loads.shift(from.store, to);
            }
        }
        loads.index();
        loads
    }

    fn count(&mut self, copyset: &Copyset) {
        let Some(change) = &copyset.change else {
            for replica in &copyset.replicas {
                *self.carried.entry(replica.store).or_default() += 1;
            }
            return;
        };
        let stay = copyset.replicas.iter().filter(|r| r.id != change.replaces);
        for replica in stay.chain([&change.joining]) {
            *self.carried.entry(replica.store).or_default() += 1;
        }
        if self.goes_on(copyset, change) {
            let old = copyset.replicas.iter().find(|r| r.id == change.replaces);
            let ends = old.into_iter().chain([&change.joining]);
            let ends = ends.map(|end| (end.store, end.chunkserver)).collect();
            self.note(copyset.pool, ends);
        }
    }

    fn goes_on(&self, copyset: &Copyset, change: &Change) -> bool {
        let to = self.picture.places.get(&change.joining.store);
        self.picture.has_quorum(copyset)
            && to.is_some_and(|to| !matches!(to.presence, Presence::Away { .. }))
    }

    /// One more, with these ends.
    fn note(&mut self, pool: PoolId, ends: Vec<(StoreId, ChunkserverId)>) {
        self.total += 1;
        *self.busy_pools.entry(pool).or_default() += 1;
        let state = self.state;
        let zones = ends.iter().filter_map(|(_, server)| state.zone_of(*server));
        for zone in zones.collect::<BTreeSet<_>>() {
            *self.busy_zones.entry(zone).or_default() += 1;
        }
        for (store, server) in ends {
            *self.devices.entry(store).or_default() += 1;
            *self.servers.entry(server).or_default() += 1;
        }
    }

    /// Devices that can take a replica at all.
    fn index(&mut self) {
        for (id, place) in &self.picture.places {
            let zone = self.state.zone_of(place.chunkserver);
            let Some(zone) =
                zone.filter(|_| self.picture.is_up(*id) && self.has_space(*id, place, 0))
            else {
                continue;
            };
            let rank = self.rank(*id, place.capacity);
            let shelf = (zone, self.class_of(*id));
            self.zones.entry(shelf).or_default().insert((rank, *id));
        }
    }

    fn has_space(&self, id: StoreId, place: &Place, bytes: u64) -> bool {
        let reserved = self.reserved.get(&id).copied().unwrap_or(0);
        let full = place.used.saturating_add(reserved).saturating_add(bytes);
        full.saturating_add(place.capacity / MOVE_RESERVE) <= place.capacity
    }

    /// What it would carry for its capacity with one more, and then some: the least comes first.
    fn rank(&self, store: StoreId, capacity: u64) -> u128 {
        share(
            self.carried(store) as u128 * QUARTERS + WORTH_QUARTERS,
            capacity,
        )
    }

    /// Replicas that it is to carry.
    pub(crate) fn carried(&self, store: StoreId) -> usize {
        self.carried.get(&store).copied().unwrap_or(0)
    }

    /// Replicas for a byte of its capacity.
    pub(crate) fn density(&self, store: StoreId) -> u128 {
        let capacity = self.picture.places.get(&store).map_or(1, |p| p.capacity);
        share(self.carried(store) as u128 * QUARTERS, capacity)
    }

    /// What it would still carry with one fewer, and then some: it may give to a device of a lower rank.
    pub(crate) fn surplus(&self, store: StoreId) -> u128 {
        let capacity = self.picture.places.get(&store).map_or(1, |p| p.capacity);
        let quarters = self.carried(store) as u128 * QUARTERS;
        share(quarters.saturating_sub(WORTH_QUARTERS), capacity)
    }

    /// Whether a move that both are counted with leaves them no less even than they would be without it.
    pub(crate) fn is_better_there(&self, from: StoreId, to: StoreId) -> bool {
        self.is_better_with(from, to, 0)
    }

    /// Whether one replica fewer here and one more there is such a move.
    pub(crate) fn may_give(&self, from: StoreId, to: StoreId) -> bool {
        self.carried(from) > 0 && self.is_better_with(from, to, 1)
    }

    /// Whether one for another is: both have to be wanted until they have begun.
    pub(crate) fn may_exchange(&self, from: StoreId, to: StoreId) -> bool {
        self.is_better_there(from, to) && self.is_better_there(to, from)
    }

    fn is_better_with(&self, from: StoreId, to: StoreId, more: usize) -> bool {
        let capacity = |store| self.picture.places.get(&store).map_or(1, |p| p.capacity);
        let half = QUARTERS / 2;
        let gives = self.carried(from).saturating_sub(more) as u128 * QUARTERS + half;
        let takes = ((self.carried(to) + more) as u128 * QUARTERS).saturating_sub(half);
        share(takes, capacity(to)) <= share(gives, capacity(from))
    }

    /// Bytes that are still to come to it, at most.
    pub(crate) fn reserved(&self, store: StoreId) -> u64 {
        self.reserved.get(&store).copied().unwrap_or(0)
    }

    /// Devices that can take anything, by zone and class, in the order in which they are taken.
    pub(crate) fn zones(&self) -> impl Iterator<Item = (&'a Name, &BTreeSet<(u128, StoreId)>)> {
        self.zones.iter().map(|((zone, _), stores)| (*zone, stores))
    }

    fn class_of(&self, store: StoreId) -> Option<MediaClass> {
        self.state.stores().get(&store)?.class
    }

    /// Whether one more of that pool may begin, from this end. A device that is gone sends nothing.
    pub(crate) fn has_room(
        &self,
        rules: &HealRules,
        kind: JobKind,
        pool: PoolId,
        from: &Replica,
    ) -> bool {
        let of_pool = self.busy_pools.get(&pool).copied().unwrap_or(0);
        let is_sender = !self.picture.is_gone(from.store, rules);
        let is_free = !is_sender || self.is_free(rules, kind, from.store, from.chunkserver);
        self.total < of_kind(kind, rules.moves_max)
            && of_pool < of_kind(kind, rules.moves_per_pool_max)
            && is_free
    }

    /// Whether one more may go to that store.
    pub(crate) fn takes(&self, rules: &HealRules, kind: JobKind, store: StoreId) -> bool {
        let place = self.picture.places.get(&store);
        place.is_some_and(|place| self.is_free(rules, kind, store, place.chunkserver))
    }

    fn is_free(
        &self,
        rules: &HealRules,
        kind: JobKind,
        store: StoreId,
        server: ChunkserverId,
    ) -> bool {
        let device = self.devices.get(&store).copied().unwrap_or(0);
        let zone = self.state.zone_of(server);
        let zone = zone.and_then(|zone| self.busy_zones.get(zone));
        let server = self.servers.get(&server).copied().unwrap_or(0);
        device < of_kind(kind, rules.moves_per_device_max)
            && server < of_kind(kind, rules.moves_per_server_max)
            && zone.copied().unwrap_or(0) < of_kind(kind, rules.moves_per_zone_max)
    }

    /// Whether any store can take the replica's place.
    pub(crate) fn has_target(&self, copyset: &Copyset, replaced: &Replica, bytes: u64) -> bool {
        self.target(copyset, replaced, bytes, |_| true).is_some()
    }

    /// The store that takes the replica's place: of those that can, and are free, the one with the fewest
    /// replicas for its capacity. A replica that its device has lost goes there again, and one that cannot be opened
    /// is made anew in its place only if no other can take it.
    pub(crate) fn target(
        &self,
        copyset: &Copyset,
        replaced: &Replica,
        bytes: u64,
        is_free: impl Fn(StoreId) -> bool,
    ) -> Option<StoreId> {
        let fit = Fit::new(self, copyset, replaced);
        let ailment = self.picture.ailment(replaced.id);
        // What is damaged is deleted before.
        let beside = if ailment == Some(AilmentKind::Missing) {
            bytes
        } else {
            0
        };
        let place = self.picture.places.get(&replaced.store);
        let may_stay = matches!(ailment, Some(AilmentKind::Missing | AilmentKind::Damaged))
            && copyset.change.is_none()
            && self.picture.is_up(replaced.store)
            && place.is_some_and(|place| self.has_space(replaced.store, place, beside));
        let here = Some(replaced.store).filter(|store| may_stay && is_free(*store));
        if ailment == Some(AilmentKind::Missing) && here.is_some() {
            return here;
        }
        // What replaces its device is looked at alone: that list is ordered by how much is carried, not by who may.
        if let Some(to) = fit.successor {
            return Some(to)
                .filter(|to| self.is_target(copyset, replaced, bytes, *to) && is_free(*to));
        }
        let zones = self.zones.iter();
        let zones = zones.filter(|((zone, class), _)| fit.is_in(zone) && fit.takes(*class));
        let beside = others(copyset, replaced);
        let scatter = self.scatter(copyset.pool);
        let firsts = zones.filter_map(|(_, stores)| {
            let is_fit =
                |(_, store): &&(u128, StoreId)| fit.is_on(self, *store, bytes) && is_free(*store);
            let first = stores.iter().find(is_fit)?;
            let Some((scatter, wanted)) = scatter else {
                return Some((first.0, 0, first.1));
            };
            let equals = stores.range(first..).take_while(|it| it.0 == first.0);
            let equals = equals.filter(is_fit).take(SCATTER_EQUALS);
            let cost = |store| scatter.cost_of_joining(store, beside.iter().copied(), wanted);
            equals.map(|it| (it.0, cost(it.1), it.1)).min()
        });
        firsts.min().map(|(_, _, store)| store).or(here)
    }

    /// Who shares copysets with whom in a pool that has a scatter width, and that width.
    fn scatter(&self, pool: PoolId) -> Option<(&Scatter, usize)> {
        let wanted = |pool: &Pool| usize::try_from(pool.scatter_width).unwrap_or(usize::MAX);
        let width = wanted(self.state.pools().get(&pool)?);
        if width == 0 {
            return None;
        }
        let scatters = self.scatters.get_or_init(|| {
            let pools = self.state.pools().iter();
            let pools = pools.filter(|(_, pool)| wanted(pool) > 0);
            let scatter = |pool: &Pool| {
                let copysets = pool.copysets.iter();
                let copysets = copysets.filter_map(|id| self.state.copysets().get(id));
                Scatter::of(copysets.map(Copyset::stores))
            };
            pools.map(|(id, pool)| (*id, scatter(pool))).collect()
        });
        Some((scatters.get(&pool)?, width))
    }

    /// What speaks against the replica's going there: how many devices would be further below their pool's scatter width, and
    /// what it costs those that it meets. Less is better.
    pub(crate) fn harm(&self, copyset: &Copyset, replica: &Replica, to: StoreId) -> (usize, i64) {
        let Some((scatter, wanted)) = self.scatter(copyset.pool) else {
            return (0, 0);
        };
        let beside = others(copyset, replica);
        let harm = scatter.harm_of_moving((replica.store, to), &beside, wanted);
        (harm, scatter.cost_of_joining(to, beside, wanted))
    }

    /// Whether that very store can take the replica's place.
    pub(crate) fn is_target(
        &self,
        copyset: &Copyset,
        replaced: &Replica,
        bytes: u64,
        to: StoreId,
    ) -> bool {
        let fit = Fit::new(self, copyset, replaced);
        let place = self.picture.places.get(&to);
        let zone = place.and_then(|place| self.state.zone_of(place.chunkserver));
        self.picture.is_up(to)
            && zone.is_some_and(|zone| fit.is_in(zone))
            && fit.is_on(self, to, bytes)
    }

    /// A move that begins, or is planned to.
    pub(crate) fn begin(&mut self, copyset: &Copyset, from: &Replica, to: StoreId, bytes: u64) {
        let scatters = self.scatters.get_mut();
        if let Some(scatter) = scatters.and_then(|it| it.get_mut(&copyset.pool)) {
            scatter.shift(from.store, to, &others(copyset, from));
        }
        let place = self.picture.places.get(&to);
        let to_end = place.map(|place| (to, place.chunkserver));
        let from_end = (from.store, from.chunkserver);
        let ends = [from_end].into_iter().chain(to_end).collect();
        self.note(copyset.pool, ends);
        *self.reserved.entry(to).or_default() += bytes;
    }

    /// One replica more there and one fewer here.
    pub(crate) fn shift(&mut self, from: StoreId, to: StoreId) {
        for (store, is_more) in [(from, false), (to, true)] {
            let place = self.picture.places.get(&store);
            let zone = place.and_then(|place| self.state.zone_of(place.chunkserver));
            let capacity = place.map_or(1, |place| place.capacity);
            let old = (self.rank(store, capacity), store);
            let carried = self.carried.entry(store).or_default();
            *carried = if is_more {
                *carried + 1
            } else {
                carried.saturating_sub(1)
            };
            let new = (self.rank(store, capacity), store);
            let shelf = zone.map(|zone| (zone, self.class_of(store)));
            let stores = shelf.and_then(|shelf| self.zones.get_mut(&shelf));
            if let Some(stores) = stores.filter(|stores| stores.contains(&old)) {
                stores.remove(&old);
                stores.insert(new);
            }
        }
    }
}

/// How much of a limit moves of that kind may take.
const fn of_kind(kind: JobKind, limit: usize) -> usize {
    match kind {
        JobKind::Balance => HealRules::spare(limit),
        JobKind::Recover | JobKind::Drain | JobKind::Lead => limit,
    }
}

/// Where the other replicas of a copyset are.
fn others(copyset: &Copyset, replica: &Replica) -> Vec<StoreId> {
    let others = copyset.replicas.iter().filter(|it| it.id != replica.id);
    others.map(|it| it.store).collect()
}

fn share(quarters: u128, capacity: u64) -> u128 {
    (quarters << SHARE_BITS) / u128::from(capacity.max(1))
}

/// Where one replica of a copyset may go, but for room.
struct Fit<'a> {
    zones: Vec<&'a Name>,
    servers: Vec<ChunkserverId>,
    stores: Vec<StoreId>,
    /// The only one, of a device that is replaced and still there: what is lost goes wherever it can.
    successor: Option<StoreId>,
    /// It may be on the same chunkserver, in another shard.
    is_beside: bool,
    /// Of its pool.
    class: Option<MediaClass>,
}

impl<'a> Fit<'a> {
    fn new(loads: &Loads<'a>, copyset: &Copyset, replaced: &Replica) -> Self {
        let others = copyset.replicas.iter().filter(|r| r.id != replaced.id);
        let zones = others.filter_map(|r| loads.state.zone_of(r.chunkserver));
        // One that its chunkserver knows nothing of may be made anew beside itself.
        let is_unknown = !loads.picture.known.contains(&replaced.id);
        let stays = copyset
            .placed()
            .filter(|r| r.id != replaced.id || !is_unknown);
        let successor = loads.state.successor(replaced.store);
        let successor = successor.filter(|_| loads.picture.is_there(replaced.store));
        Self {
            zones: zones.collect(),
            servers: stays.map(|r| r.chunkserver).collect(),
            stores: copyset.placed().map(|r| r.store).collect(),
            is_beside: successor.is_some_and(|to| is_beside(loads.state, copyset, replaced, to)),
            successor,
            class: (loads.state.pools().get(&copyset.pool)).and_then(|pool| pool.class),
        }
    }

    fn takes(&self, class: Option<MediaClass>) -> bool {
        self.class.is_none() || class == self.class
    }

    fn is_in(&self, zone: &Name) -> bool {
        !self.zones.contains(&zone)
    }

    fn is_on(&self, loads: &Loads<'_>, store: StoreId, bytes: u64) -> bool {
        let place = loads.picture.places.get(&store);
        let is_beside = self.is_beside && self.successor == Some(store);
        place.is_some_and(|place| {
            (is_beside || !self.servers.contains(&place.chunkserver))
                && self.successor.is_none_or(|to| to == store)
                && !self.stores.contains(&store)
                && self.takes(loads.class_of(store))
                && loads.has_space(store, place, bytes)
        })
    }
}

/// Whether a store is of the replaced one's chunkserver, in a shard that serves no replica of the copyset: a shard serves
/// one of each.
pub(crate) fn is_beside(state: &State, copyset: &Copyset, replaced: &Replica, id: StoreId) -> bool {
    let place = |store: StoreId| state.stores().get(&store).map(|s| (s.chunkserver, s.shard));
    let wanted = place(id);
    wanted.is_some_and(|(server, _)| server == replaced.chunkserver)
        && copyset.placed().all(|r| place(r.store) != wanted)
}
