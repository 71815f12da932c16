//! What is to be done now, so that every copyset has all its replicas on devices that stay.
//!
//! Pure: state and picture in, commands out. It never plans below a quorum, nor two replicas of a
//! copyset at a time: a copyset has one live job, and none while a replacement is under way. A target
//! is online, has room, and is in a zone without another replica. Each plan brings a copyset nearer to
//! its end or waits, so it ends when the world stands still.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use ogee_proto::id::{ChunkserverId, CopysetId, JobId, ReplicaId, StoreId};
use ogee_proto::name::Name;

use super::picture::{HealRules, Picture, Place, Presence, bytes_of};
use super::sick;
use crate::limit::{
    COMMANDS_PER_LOOK_MAX, JOBS_LIVE_MAX, JOBS_PER_COMMAND_MAX, LEAD_TIMEOUT_MS, LEADS_MAX,
    LEAVING_MAX, LIMPING_LEADS_MAX, MOVE_RESERVE,
};
use crate::state::{
    AddJobs, Cause, Change, Command, Copyset, Ending, Job, JobKind, JobState, Mark, NewJob,
    Replica, StartJob, State,
};

/// Priority of a drain; a recovery's grows with the replicas that are missing.
const DRAIN_PRIORITY: u8 = 1;
/// Of a recovery of a copyset that lacks one replica.
const RECOVER_PRIORITY: u8 = 10;
/// Of a leader transfer.
pub(crate) const LEAD_PRIORITY: u8 = 5;

/// The commands that this moment asks for.
pub(crate) fn plan(state: &State, picture: &Picture, rules: &HealRules) -> Vec<Command> {
    let mut commands = Vec::new();
    let notes = picture.unnoted(state);
    if !notes.away.is_empty() || !notes.back.is_empty() {
        commands.push(Command::NoteStores(notes));
    }
    commands.extend(sick::note(state, picture, &rules.sick).map(Command::NoteSick));
    commands.extend(ends(state, picture, rules));
    commands.extend(starts(state, picture, rules));
    let mut jobs = new_moves(state, picture, rules);
    jobs.extend(leaders_off(state, picture));
    let room = JOBS_LIVE_MAX.saturating_sub(state.busy().len());
    jobs.truncate(room.min(JOBS_PER_COMMAND_MAX));
    if !jobs.is_empty() {
        commands.push(Command::AddJobs(AddJobs {
            jobs,
            at_ms: picture.now_ms,
        }));
    }
    commands.truncate(COMMANDS_PER_LOOK_MAX);
    commands
}

/// Why a copyset's replica is to leave its place, if any is: the one whose device is gone first.
///
/// None while too few others take part: replacing needs a majority of them, and a drain gives none up.
/// And none while too many replicas were left behind on devices that nobody has deleted them from.
/// A drained replica that leads hands over first, if there is anybody else.
pub(crate) fn wish<'a>(
    id: CopysetId,
    copyset: &'a Copyset,
    picture: &Picture,
    rules: &HealRules,
) -> Option<(JobKind, &'a Replica)> {
    let replicas = || copyset.replicas.iter();
    if !copyset.formed || !picture.has_quorum(copyset) || left_behind(copyset) > LEAVING_MAX {
        return None;
    }
    if let Some(change) = &copyset.change {
        // Whoever began it: it ends by itself unless its target is gone.
        let replaced = replicas().find(|r| r.id == change.replaces)?;
        let is_stuck = picture.is_gone(change.joining.store, rules);
        return is_stuck.then_some((JobKind::Recover, replaced));
    }
    if let Some(gone) = replicas().find(|r| picture.is_gone(r.store, rules)) {
        return Some((JobKind::Recover, gone));
    }
    let all_serve = picture.serving_of(copyset) == copyset.replicas.len();
    let leads = |r: &Replica| picture.leaders.get(&id) == Some(&r.id) && copyset.replicas.len() > 1;
    let draining = replicas().find(|r| picture.is_draining(r.store) && !leads(r));
    draining.filter(|_| all_serve).map(|r| (JobKind::Drain, r))
}

fn new_moves(state: &State, picture: &Picture, rules: &HealRules) -> Vec<NewJob> {
    let busy = state.busy();
    let bytes = bytes_of(state, picture);
    let loads = Loads::of(state, picture);
    let copysets = state.copysets().iter();
    let jobs = copysets.filter(|(id, _)| !busy.contains(id));
    let jobs = jobs.filter_map(|(id, copyset)| {
        let (kind, replica) = wish(*id, copyset, picture, rules)?;
        // What cannot go anywhere is no job: health says so.
        let need = bytes.get(id).copied().unwrap_or(0);
        targets(state, picture, copyset, replica, need, &loads).next()?;
        let missing = copyset.replicas.len() - picture.serving_of(copyset);
        let priority = match kind {
            JobKind::Recover => RECOVER_PRIORITY.saturating_mul(u8::try_from(missing).unwrap_or(2)),
            JobKind::Drain | JobKind::Lead => DRAIN_PRIORITY,
        };
        let is_lost = picture
            .places
            .get(&replica.store)
            .is_some_and(|p| p.mark == Some(Mark::Lost));
        let cause = match kind {
            JobKind::Drain | JobKind::Lead => off(state, picture, replica.store),
            JobKind::Recover if is_lost => Cause::Lost,
            JobKind::Recover => Cause::Away,
        };
        Some(NewJob {
            kind,
            cause,
            copyset: *id,
            conf_epoch: copyset.conf_epoch,
            replica: replica.id,
            priority,
            bytes: need,
        })
    });
    let mut jobs: Vec<NewJob> = jobs.collect();
    jobs.sort_by_key(|job| (Reverse(job.priority), job.copyset));
    jobs
}

/// Why what is on a device leaves it: an operator's wish counts before what it brought upon itself.
fn off(state: &State, picture: &Picture, store: StoreId) -> Cause {
    if state.successor(store).is_some() {
        return Cause::Replaced;
    }
    let place = picture.places.get(&store);
    let is_wish = place.is_none_or(|p| p.mark == Some(Mark::Draining) || p.sick.is_none());
    if is_wish {
        Cause::Draining
    } else {
        Cause::Limping
    }
}

/// Transfers of leaders that are on devices that limp, or are to be emptied: they go before their replicas do.
fn leaders_off(state: &State, picture: &Picture) -> Vec<NewJob> {
    let busy = state.busy();
    let mut led = led_by(state, picture);
    let mut jobs = Vec::new();
    for (id, copyset) in state.copysets() {
        let off = copyset
            .replicas
            .iter()
            .find(|r| picture.leaders.get(id) == Some(&r.id));
        let leaves = |r: &&Replica| picture.is_draining(r.store) || picture.limps(r.store);
        let Some(off) = off.filter(leaves) else {
            continue;
        };
        let leads_max = match picture.limps(off.store) {
            true => LIMPING_LEADS_MAX,
            false => LEADS_MAX,
        };
        if jobs.len() + leads_live(state) >= leads_max
            || copyset.change.is_some()
            || busy.contains(id)
        {
            continue;
        }
        let others = copyset.replicas.iter().filter(|r| r.id != off.id);
        let fit = others.filter(|r| picture.is_up(r.store) && picture.serving.contains(&r.id));
        let least = fit.min_by_key(|r| (led.get(&r.chunkserver).copied().unwrap_or(0), r.id));
        if let Some(to) = least {
            *led.entry(to.chunkserver).or_default() += 1;
            jobs.push(lead(
                *id,
                copyset,
                to.id,
                self::off(state, picture, off.store),
            ));
        }
    }
    jobs
}

/// A transfer, to be made a job.
pub(crate) const fn lead(id: CopysetId, copyset: &Copyset, to: ReplicaId, cause: Cause) -> NewJob {
    NewJob {
        kind: JobKind::Lead,
        cause,
        copyset: id,
        conf_epoch: copyset.conf_epoch,
        replica: to,
        priority: LEAD_PRIORITY,
        bytes: 0,
    }
}

/// Copysets that each chunkserver leads.
fn led_by(state: &State, picture: &Picture) -> BTreeMap<ChunkserverId, usize> {
    let mut led = BTreeMap::new();
    for (id, leader) in &picture.leaders {
        let copyset = state.copysets().get(id);
        let replica = copyset.and_then(|c| c.replicas.iter().find(|r| r.id == *leader));
        if let Some(replica) = replica {
            *led.entry(replica.chunkserver).or_default() += 1;
        }
    }
    led
}

/// Leader transfers under way.
pub(crate) fn leads_live(state: &State) -> usize {
    let jobs = state.jobs().values();
    jobs.filter(|job| job.kind == JobKind::Lead && job.state.is_live())
        .count()
}

fn ends(state: &State, picture: &Picture, rules: &HealRules) -> Vec<Command> {
    let live = state.jobs().iter().filter(|(_, job)| job.state.is_live());
    let ended = live.filter_map(|(id, job)| {
        let ending = ending(state, picture, rules, job)?;
        Some(Command::end(*id, job.attempt, ending, picture.now_ms))
    });
    ended.collect()
}

fn ending(state: &State, picture: &Picture, rules: &HealRules, job: &Job) -> Option<Ending> {
    let Some(copyset) = state.copysets().get(&job.copyset) else {
        return Some(Ending::NotNeeded);
    };
    let ran_ms = picture.now_ms.saturating_sub(job.started_ms);
    match (job.kind, job.state) {
        (JobKind::Lead, _) => {
            if picture.leaders.get(&job.copyset) == Some(&job.replica) {
                Some(Ending::InPlace)
            } else if !picture.serving.contains(&job.replica) {
                Some(Ending::TargetAway)
            } else {
                (ran_ms > LEAD_TIMEOUT_MS).then_some(Ending::TimedOut)
            }
        }
        (_, JobState::Pending) => {
            let wish = wish(job.copyset, copyset, picture, rules);
            let is_wish = wish.is_some_and(|(kind, r)| kind == job.kind && r.id == job.replica);
            // Without a majority nothing is known to be unneeded.
            (!is_wish && picture.has_quorum(copyset)).then_some(Ending::NotNeeded)
        }
        _ if ran_ms > rules.move_timeout_ms => Some(Ending::TimedOut),
        _ => {
            let is_stuck = job.target.is_none_or(|to| picture.is_gone(to.store, rules));
            (is_stuck && left_behind(copyset) > LEAVING_MAX).then_some(Ending::TooManyTargets)
        }
    }
}

/// Replicas that would be left behind after one more change.
fn left_behind(copyset: &Copyset) -> usize {
    let change = copyset.change.as_ref();
    copyset.leaving.len() + change.map_or(0, |change| change.abandoned.len() + 1) + 1
}

/// Pending jobs whose turn it is, and running ones whose target is gone.
fn starts(state: &State, picture: &Picture, rules: &HealRules) -> Vec<Command> {
    let mut loads = Loads::of(state, picture);
    let live = state.jobs().iter().filter(|(_, job)| job.state.is_live());
    let mut moves: Vec<(&JobId, &Job)> =
        live.filter(|(_, job)| job.kind != JobKind::Lead).collect();
    moves.sort_by_key(|(id, job)| (Reverse(job.priority), **id));
    let mut commands = Vec::new();
    for (id, job) in moves {
        if ending(state, picture, rules, job).is_some() {
            continue;
        }
        let Some(copyset) = state.copysets().get(&job.copyset) else {
            continue;
        };
        let is_stuck = job
            .target
            .is_some_and(|to| picture.is_gone(to.store, rules));
        let waits = job.state == JobState::Pending || is_stuck;
        let replaced = copyset.replicas.iter().find(|r| r.id == job.replica);
        let Some(replaced) = replaced.filter(|_| waits && picture.has_quorum(copyset)) else {
            continue;
        };
        if !loads.has_room(rules, picture, replaced) {
            continue;
        }
        let fit = targets(state, picture, copyset, replaced, job.bytes, &loads);
        let fit = fit.filter(|store| loads.takes(rules, picture, *store));
        let Some(store) = fit.min_by_key(|store| loads.rank(picture, *store)) else {
            continue;
        };
        loads.add(picture, store, job.bytes);
        loads.total += 1;
        loads.note(replaced.store, replaced.chunkserver);
        commands.push(Command::StartJob(StartJob {
            job: *id,
            attempt: job.attempt,
            conf_epoch: copyset.conf_epoch,
            store,
            at_ms: picture.now_ms,
        }));
    }
    commands
}

/// Stores that can take the replica's place: there and to stay, with room, in a zone of their own, on a
/// chunkserver that has no other replica of the copyset.
pub(crate) fn targets<'a>(
    state: &'a State,
    picture: &'a Picture,
    copyset: &'a Copyset,
    replaced: &'a Replica,
    bytes: u64,
    loads: &'a Loads,
) -> impl Iterator<Item = StoreId> + 'a {
    let others = copyset.replicas.iter().filter(|r| r.id != replaced.id);
    let zones: BTreeSet<&Name> = others
        .filter_map(|r| state.zone_of(r.chunkserver))
        .collect();
    // One that its chunkserver knows nothing of may be made anew beside itself.
    let is_unknown = !picture.known.contains(&replaced.id);
    let stays = copyset
        .placed()
        .filter(move |r| r.id != replaced.id || !is_unknown);
    let taken: BTreeSet<ChunkserverId> = stays.map(|r| r.chunkserver).collect();
    let stores: BTreeSet<StoreId> = copyset.placed().map(|r| r.store).collect();
    // What is lost goes wherever it can.
    let successor = state
        .successor(replaced.store)
        .filter(|_| picture.is_there(replaced.store));
    let is_beside =
        move |id: StoreId| successor == Some(id) && is_beside(state, copyset, replaced, id);
    let fits = move |(id, place): &(&StoreId, &Place)| {
        let zone = state.zone_of(place.chunkserver);
        let reserved = loads.reserved.get(id).copied().unwrap_or(0);
        let full = place.used.saturating_add(reserved).saturating_add(bytes);
        picture.is_up(**id)
            && zone.is_some_and(|zone| !zones.contains(zone))
            && successor.is_none_or(|it| it == **id)
            && (!taken.contains(&place.chunkserver) || is_beside(**id))
            && !stores.contains(id)
            && full.saturating_add(place.capacity / MOVE_RESERVE) <= place.capacity
    };
    picture.places.iter().filter(fits).map(|(id, _)| *id)
}

/// Whether a store is of the replaced one's chunkserver, in a shard that serves no replica of the copyset: a shard serves
/// one of each.
pub(crate) fn is_beside(state: &State, copyset: &Copyset, replaced: &Replica, id: StoreId) -> bool {
    let place = |store: StoreId| state.stores().get(&store).map(|s| (s.chunkserver, s.shard));
    let wanted = place(id);
    wanted.is_some_and(|(server, _)| server == replaced.chunkserver)
        && copyset.placed().all(|r| place(r.store) != wanted)
}

/// What moves already, and what each store carries.
#[derive(Default)]
pub(crate) struct Loads {
    total: usize,
    servers: BTreeMap<ChunkserverId, usize>,
    devices: BTreeMap<StoreId, usize>,
    carried: BTreeMap<StoreId, usize>,
    /// Bytes that are still to come, at most.
    reserved: BTreeMap<StoreId, u64>,
}

impl Loads {
    /// Of every replacement that goes on, whoever began it. One that waits for a majority, or for its
    /// target, copies nothing, and must not keep others from being healed.
    pub(crate) fn of(state: &State, picture: &Picture) -> Self {
        let mut loads = Self::default();
        for copyset in state.copysets().values() {
            for replica in copyset.members() {
                *loads.carried.entry(replica.store).or_default() += 1;
            }
            let goes_on = |change: &&Change| {
                let to = picture.places.get(&change.joining.store);
                picture.has_quorum(copyset)
                    && to.is_some_and(|to| !matches!(to.presence, Presence::Away { .. }))
            };
            let Some(change) = copyset.change.as_ref().filter(goes_on) else {
                continue;
            };
            let old = copyset.replicas.iter().find(|r| r.id == change.replaces);
            loads.total += 1;
            for end in old.into_iter().chain([&change.joining]) {
                loads.note(end.store, end.chunkserver);
            }
        }
        for job in state.jobs().values().filter(|job| job.state.is_live()) {
            if let Some(to) = job.target.filter(|_| job.kind != JobKind::Lead) {
                *loads.reserved.entry(to.store).or_default() += job.bytes;
            }
        }
        loads
    }

    fn note(&mut self, store: StoreId, server: ChunkserverId) {
        *self.devices.entry(store).or_default() += 1;
        *self.servers.entry(server).or_default() += 1;
    }

    fn is_free(&self, rules: &HealRules, store: StoreId, server: ChunkserverId) -> bool {
        let device = self.devices.get(&store).copied().unwrap_or(0);
        let server = self.servers.get(&server).copied().unwrap_or(0);
        device < rules.moves_per_device_max && server < rules.moves_per_server_max
    }

    /// Whether one more may begin, from this end. A device that is gone sends nothing.
    fn has_room(&self, rules: &HealRules, picture: &Picture, from: &Replica) -> bool {
        let is_sender = !picture.is_gone(from.store, rules);
        let is_free = !is_sender || self.is_free(rules, from.store, from.chunkserver);
        self.total < rules.moves_max && is_free
    }

    /// Whether one more may go to that store.
    fn takes(&self, rules: &HealRules, picture: &Picture, store: StoreId) -> bool {
        let place = picture.places.get(&store);
        place.is_some_and(|place| self.is_free(rules, store, place.chunkserver))
    }

    /// The store with the fewest replicas for its capacity comes first, exactly enough for a choice.
    fn rank(&self, picture: &Picture, store: StoreId) -> (u128, StoreId) {
        let carried = self.carried.get(&store).copied().unwrap_or(0) as u128 + 1;
        let capacity = picture.places.get(&store).map_or(1, |p| p.capacity.max(1));
        ((carried << 64) / u128::from(capacity), store)
    }

    fn add(&mut self, picture: &Picture, to: StoreId, bytes: u64) {
        if let Some(place) = picture.places.get(&to) {
            self.note(to, place.chunkserver);
        }
        *self.carried.entry(to).or_default() += 1;
        *self.reserved.entry(to).or_default() += bytes;
    }
}
