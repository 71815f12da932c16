//! Replicas where devices carry them evenly, for their capacity.
//!
//! Pure: state and picture in, jobs out. Counted is what devices will carry when all that is under way, or
//! planned, has ended, so that a plan that is made again does nothing more. Each move goes from the device
//! that carries most to the one that carries least of those where the copyset has no other replica in the zone, and only
//! if that leaves them the same way round: so moves come to an end, and are as few as can be. Which replica goes
//! is chosen by bytes: the one after which both devices are equally full, or else the smallest. Where nothing is to be moved
//! for their number, replicas are exchanged for their bytes (`level`).
//!
//! Nothing is moved in a pool of which a copyset is not whole, nor where something is healed or drained.

mod level;

use std::collections::{BTreeMap, BTreeSet};

use ogee_proto::id::{CopysetId, PoolId, ReplicaId, StoreId};

use super::heal::{lead, leads_live, wish};
use super::loads::Loads;
use super::picture::{Bytes, HealRules, Picture, Presence};
use crate::limit::{LEADS_MAX, SPREAD_COOLING_MS};
use crate::state::{Cause, Copyset, Job, JobKind, NewJob, Replica, State};

/// Priority of a move that only evens out: nothing is lower.
const SPREAD_PRIORITY: u8 = 0;
/// Devices of a zone that are tried for what one device has to give.
const TARGETS_TRIED: usize = 8;

/// Moves that make devices even, at most so many: all that help when an operator asked, else only if
/// two devices differ by more than the rules allow, and only of copysets that were not moved lately.
pub(crate) fn spread(
    state: &State,
    picture: &Picture,
    rules: &HealRules,
    cause: Cause,
    limit: usize,
) -> Vec<NewJob> {
    let whole = whole_pools(state, picture);
    if whole.is_empty() {
        return Vec::new();
    }
    let mut planner = Planner::new(state, picture, whole.clone(), cause);
    let is_uneven = planner.run(rules, limit) || cause == Cause::AskedSpread;
    if is_uneven && !planner.jobs.is_empty() {
        return planner.jobs;
    }
    // What is on its way makes bytes other than they are seen.
    if moves_live(state) > 0 {
        return Vec::new();
    }
    // One that has planned nothing is as new.
    let mut planner = match planner.jobs.is_empty() {
        true => planner,
        false => Planner::new(state, picture, whole, cause),
    };
    planner.level(rules, limit);
    planner.jobs
}

/// Moves of that kind that wait or are under way.
pub(crate) fn moves_live(state: &State) -> usize {
    let jobs = state.jobs().values();
    jobs.filter(|job| job.kind == JobKind::Balance && job.state.is_live())
        .count()
}

/// Pools of which every copyset has its leader and all its replicas, and none is healed or drained.
pub(crate) fn whole_pools(state: &State, picture: &Picture) -> BTreeSet<PoolId> {
    let mut whole: BTreeSet<PoolId> = state.pools().keys().copied().collect();
    for (id, copyset) in state.copysets() {
        let is_whole = copyset.formed
            && copyset.is_complete()
            && picture.leaders.contains_key(id)
            && picture.serving_of(copyset) == copyset.replicas.len();
        if !is_whole {
            whole.remove(&copyset.pool);
        }
    }
    for job in state.jobs().values().filter(|job| job.state.is_live()) {
        let copyset = state.copysets().get(&job.copyset);
        if let (JobKind::Recover | JobKind::Drain, Some(copyset)) = (job.kind, copyset) {
            whole.remove(&copyset.pool);
        }
    }
    whole
}

/// Whether a move that waits still goes to a place that carries less, and nothing else is to be done with
/// its copyset.
pub(crate) fn is_still_wanted(
    picture: &Picture,
    rules: &HealRules,
    loads: &Loads<'_>,
    copyset: &Copyset,
    job: &Job,
) -> bool {
    let replica = copyset.replicas.iter().find(|r| r.id == job.replica);
    let (Some(replica), Some(to)) = (replica, job.to) else {
        return false;
    };
    copyset.change.is_none()
        && loads.is_better_there(replica.store, to)
        && wish(job.copyset, copyset, picture, rules).is_none()
        && loads.is_target(copyset, replica, job.bytes, to)
}

/// A replica that a device may give away.
struct Gift<'a> {
    id: CopysetId,
    copyset: &'a Copyset,
    replica: &'a Replica,
    bytes: u64,
    leads: bool,
}

struct Planner<'a> {
    state: &'a State,
    picture: &'a Picture,
    cause: Cause,
    whole: BTreeSet<PoolId>,
    loads: Loads<'a>,
    bytes: Bytes<'a>,
    /// Copysets that have a job, get one by this plan, or were moved lately.
    taken: BTreeSet<CopysetId>,
    /// Bytes that leave each device by this plan.
    leaving: BTreeMap<StoreId, u64>,
    jobs: Vec<NewJob>,
    leads: usize,
}

impl<'a> Planner<'a> {
    fn new(state: &'a State, picture: &'a Picture, whole: BTreeSet<PoolId>, cause: Cause) -> Self {
        let mut taken = state.busy();
        let moved = state.jobs().values().filter(|job| {
            let ago = picture.now_ms.saturating_sub(job.ended_ms);
            job.kind == JobKind::Balance && !job.state.is_live() && ago < SPREAD_COOLING_MS
        });
        let moved = moved.filter(|_| cause != Cause::AskedSpread);
        taken.extend(moved.map(|job| job.copyset));
        Self {
            state,
            picture,
            cause,
            whole,
            loads: Loads::of(state, picture),
            bytes: Bytes::of(state, picture),
            taken,
            leaving: BTreeMap::new(),
            jobs: Vec::new(),
            leads: leads_live(state),
        }
    }

    /// Plans, and says whether devices differed by more than the rules allow.
    fn run(&mut self, rules: &HealRules, limit: usize) -> bool {
        let gives = |place: &super::picture::Place| {
            place.mark.is_none() && !matches!(place.presence, Presence::Away { .. })
        };
        let places = self.picture.places.iter();
        let givers = places.filter(|(_, place)| gives(place)).map(|(id, _)| *id);
        let mut givers: BTreeSet<(u128, StoreId)> =
            givers.map(|id| (self.loads.surplus(id), id)).collect();
        let mut is_uneven = false;
        while self.jobs.len() < limit {
            let Some((surplus, from)) = givers.pop_last() else {
                break;
            };
            let now = self.loads.surplus(from);
            if now < surplus {
                // It has given since.
                givers.insert((now, from));
                continue;
            }
            if !self.has_poorer(now) {
                break;
            }
            let gifts = self.gifts(from);
            if let Some((gift, to)) = self.choose(from, &gifts, false) {
                is_uneven |= self.differ(rules, from, to);
                self.give(gift, to);
                givers.insert((self.loads.surplus(from), from));
            } else if let Some((gift, to)) = self.choose(from, &gifts, true) {
                is_uneven |= self.differ(rules, from, to);
                self.lead_off(gift);
            }
        }
        is_uneven
    }

    /// Whether any device would still carry less with one more.
    fn has_poorer(&self, surplus: u128) -> bool {
        let mut firsts = self.loads.zones().filter_map(|(_, stores)| stores.first());
        firsts.any(|(rank, _)| *rank <= surplus)
    }

    fn differ(&self, rules: &HealRules, from: StoreId, to: StoreId) -> bool {
        let (more, less) = (self.loads.density(from), self.loads.density(to));
        let percent = u128::from(rules.spread_percent);
        more.saturating_sub(less).saturating_mul(200)
            > percent.saturating_mul(more.saturating_add(less))
    }

    /// What a device may give away: of whole copysets that nothing is done with.
    fn gifts(&self, from: StoreId) -> Vec<Gift<'a>> {
        let (state, picture) = (self.state, self.picture);
        let gifts = state
            .voters_on(from)
            .filter(|(id, ..)| !self.taken.contains(id))
            .filter_map(|(id, copyset, replica)| {
                let may_move = self.whole.contains(&copyset.pool)
                    && copyset.change.is_none()
                    && copyset.leaving.is_empty();
                may_move.then(|| Gift {
                    id,
                    copyset,
                    replica,
                    bytes: self.bytes.of_one(id, copyset),
                    leads: picture.leads_others(id, copyset, replica),
                })
            });
        gifts.collect()
    }

    /// The best pair of a replica and a place: the emptiest place that any can go to. Those that lead are for
    /// when there are no others.
    fn choose<'g>(
        &self,
        from: StoreId,
        gifts: &'g [Gift<'a>],
        leads: bool,
    ) -> Option<(&'g Gift<'a>, StoreId)> {
        let surplus = self.loads.surplus(from);
        let zones = self.loads.zones();
        let places = zones.flat_map(|(_, stores)| stores.iter().take(TARGETS_TRIED));
        let mut places: Vec<(u128, StoreId)> = places
            .filter(|(rank, _)| *rank <= surplus)
            .copied()
            .collect();
        places.sort_unstable();
        places.into_iter().find_map(|(_, to)| {
            let wish = self.wished_bytes(from, to);
            let gifts = gifts.iter().filter(|gift| gift.leads == leads);
            let fit = gifts
                .filter(|gift| (self.loads).is_target(gift.copyset, gift.replica, gift.bytes, to));
            // The scatter width counts before bytes: those are evened out by what is written, too.
            let harm = |gift: &Gift<'_>| self.loads.harm(gift.copyset, gift.replica, to);
            let best =
                fit.min_by_key(|gift| (harm(gift), gift.bytes.abs_diff(wish), gift.bytes, gift.id));
            best.map(|gift| (gift, to))
        })
    }

    /// Bytes on a device when all that comes and all that leaves by this plan has done so, and its capacity.
    fn filled(&self, store: StoreId) -> Option<(u128, u128)> {
        let place = self.picture.places.get(&store)?;
        let leaving = self.leaving.get(&store).copied().unwrap_or(0);
        let used = place.used.saturating_add(self.loads.reserved(store));
        Some((
            u128::from(used.saturating_sub(leaving)),
            u128::from(place.capacity),
        ))
    }

    /// Bytes to move so that both devices are equally full for their capacity.
    fn wished_bytes(&self, from: StoreId, to: StoreId) -> u64 {
        let (Some((full, of)), Some((empty, room))) = (self.filled(from), self.filled(to)) else {
            return 0;
        };
        let more = (full * room).saturating_sub(empty * of);
        u64::try_from(more / (of + room).max(1)).unwrap_or(u64::MAX)
    }

    fn give(&mut self, gift: &Gift<'a>, to: StoreId) {
        self.taken.insert(gift.id);
        (self.loads).begin(gift.copyset, gift.replica, to, gift.bytes);
        self.loads.shift(gift.replica.store, to);
        *self.leaving.entry(gift.replica.store).or_default() += gift.bytes;
        self.jobs.push(NewJob {
            kind: JobKind::Balance,
            cause: self.cause,
            copyset: gift.id,
            conf_epoch: gift.copyset.conf_epoch,
            replica: gift.replica.id,
            priority: SPREAD_PRIORITY,
            bytes: gift.bytes,
            to: Some(to),
        });
    }

    /// A device that leads all that it could give away hands one over first.
    fn lead_off(&mut self, gift: &Gift<'a>) {
        let others = gift
            .copyset
            .replicas
            .iter()
            .filter(|r| r.id != gift.replica.id);
        let fit =
            others.filter(|r| self.picture.is_up(r.store) && !self.picture.copying.contains(&r.id));
        let heir: Option<ReplicaId> = fit.map(|r| r.id).min();
        if let Some(heir) = heir.filter(|_| self.leads < LEADS_MAX) {
            self.leads += 1;
            self.taken.insert(gift.id);
            self.jobs
                .push(lead(gift.id, gift.copyset, heir, self.cause));
        }
    }
}
