//! What is to be done now, so that every copyset has all its replicas on devices that stay.
//!
//! Pure: state and picture in, commands out. It never plans below a quorum, nor two replicas of a
//! copyset at a time: a copyset has one live job, and none while a replacement is under way. A target
//! is online, has room, and is in a zone without another replica. Each plan brings a copyset nearer to
//! its end or waits, so it ends when the world stands still.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use ogee_proto::id::{ChunkserverId, CopysetId, JobId, PoolId, ReplicaId, StoreId};

use super::loads::Loads;
use super::picture::{AilmentKind, Bytes, HealRules, Picture};
use super::sick;
use super::spread::{is_still_wanted, whole_pools};
use crate::limit::{
    COMMANDS_PER_LOOK_MAX, JOBS_LIVE_MAX, JOBS_PER_COMMAND_MAX, LEAD_TIMEOUT_MS, LEADS_MAX,
    LEAVING_MAX, LIMPING_LEADS_MAX,
};
use crate::state::{
    AddJobs, Cause, Command, Copyset, EndMaintenance, Ending, Job, JobKind, JobState, Mark, NewJob,
    Replica, StartJob, StartJobs, State,
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
    if !notes.is_empty() {
        commands.push(Command::NoteStores(notes));
    }
    commands.extend(sick::note(state, picture, &rules.sick).map(Command::NoteSick));
    let over = state.maintenance_over(picture.now_ms);
    commands.extend(over.take(COMMANDS_PER_LOOK_MAX / 4).map(|chunkserver| {
        Command::EndMaintenance(EndMaintenance {
            chunkserver,
            over_by_ms: picture.now_ms,
        })
    }));
    let mut look = Look::new(state, picture, rules);
    let ended = look.ended();
    commands.extend(look.starts(&ended));
    commands.extend(
        ended
            .iter()
            .take(COMMANDS_PER_LOOK_MAX / 2)
            .filter_map(|(id, ending)| {
                let job = state.jobs().get(id)?;
                Some(Command::end(*id, job.attempt, *ending, picture.now_ms))
            }),
    );
    let room = JOBS_LIVE_MAX.saturating_sub(state.busy().len());
    let mut jobs = look.new_moves(room.min(JOBS_PER_COMMAND_MAX));
    let leads = leaders_off(state, picture).into_iter();
    jobs.extend(leads.filter(|job| state.may_begin(job.kind, job.cause)));
    jobs.truncate(room.min(JOBS_PER_COMMAND_MAX));
    if !jobs.is_empty() {
        commands.push(Command::AddJobs(AddJobs {
            jobs,
            at_ms: picture.now_ms,
        }));
    }
    commands
}

/// All that is to be moved and can be, the most pressing first, without the bounds that make steps of it.
#[cfg(any(test, feature = "scale"))]
pub(crate) fn whole_plan(state: &State, picture: &Picture, rules: &HealRules) -> Vec<NewJob> {
    Look::new(state, picture, rules).new_moves(usize::MAX)
}

/// What a look has before it.
struct Look<'a> {
    state: &'a State,
    picture: &'a Picture,
    rules: &'a HealRules,
    loads: Loads<'a>,
    /// Pools in which replicas may be moved just to be even; looked at only if some are.
    whole: BTreeSet<PoolId>,
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
        let replaced = copyset.place(change.replaces)?;
        let is_stuck = picture.is_gone(change.joining.store, rules);
        return is_stuck.then_some((JobKind::Recover, replaced));
    }
    if let Some(gone) = replicas().find(|r| picture.is_gone(r.store, rules)) {
        return Some((JobKind::Recover, gone));
    }
    if let Some(vacant) = copyset.vacant.first() {
        return Some((JobKind::Recover, vacant));
    }
    // It is deleted in the end: the others must have all that there is.
    let mut ailing = replicas().filter(|r| picture.is_ailing(r.id, rules));
    if let Some(ailing) = ailing.next().filter(|_| picture.has_whole_quorum(copyset)) {
        return Some((JobKind::Recover, ailing));
    }
    let all_serve = picture.serving_of(copyset) == copyset.replicas.len();
    let may_go = |r: &Replica| !picture.leads_others(id, copyset, r);
    let draining = replicas().find(|r| picture.is_draining(r.store) && may_go(r));
    draining.filter(|_| all_serve).map(|r| (JobKind::Drain, r))
}

/// Copysets that may have something to wish for, of many that have not.
pub(crate) fn troubled(state: &State, picture: &Picture, rules: &HealRules) -> BTreeSet<CopysetId> {
    let places = picture.places.iter();
    let to_leave =
        places.filter(|(id, _)| picture.is_draining(**id) || picture.is_gone(**id, rules));
    let servers: BTreeSet<ChunkserverId> = to_leave.map(|(_, place)| place.chunkserver).collect();
    let hosted = servers.into_iter().flat_map(|server| state.hosted(server));
    let ailing = picture.ailing.values().map(|ailment| ailment.copyset);
    let all = state.copysets().iter();
    let short = all.filter(|(_, copyset)| !copyset.vacant.is_empty());
    hosted
        .chain(ailing)
        .chain(short.map(|(id, _)| *id))
        .collect()
}

/// A replica that is to leave its place.
struct Wish<'a> {
    id: CopysetId,
    copyset: &'a Copyset,
    kind: JobKind,
    replica: &'a Replica,
    priority: u8,
}

impl<'a> Look<'a> {
    fn new(state: &'a State, picture: &'a Picture, rules: &'a HealRules) -> Self {
        let mut live = state.jobs().values().filter(|job| job.state.is_live());
        let whole = if live.any(|job| job.kind == JobKind::Balance) {
            whole_pools(state, picture)
        } else {
            BTreeSet::new()
        };
        Self {
            state,
            picture,
            rules,
            loads: Loads::of(state, picture),
            whole,
        }
    }

    /// What the copysets that have no job wish for, the most pressing first.
    fn wishes(&self) -> Vec<Wish<'a>> {
        let busy = self.state.busy();
        let troubled = troubled(self.state, self.picture, self.rules).into_iter();
        let wishes = troubled.filter(|id| !busy.contains(id)).filter_map(|id| {
            let copyset = self.state.copysets().get(&id)?;
            let (kind, replica) = wish(id, copyset, self.picture, self.rules)?;
            let missing = copyset.replicas.len() - self.picture.serving_of(copyset);
            let missing = missing + copyset.vacant.len();
            let priority = match kind {
                JobKind::Recover => {
                    RECOVER_PRIORITY.saturating_mul(u8::try_from(missing).unwrap_or(2))
                }
                JobKind::Drain | JobKind::Lead | JobKind::Balance => DRAIN_PRIORITY,
            };
            Some(Wish {
                id,
                copyset,
                kind,
                replica,
                priority,
            })
        });
        let mut wishes: Vec<Wish<'_>> = wishes.collect();
        wishes.sort_by_key(|wish| (Reverse(wish.priority), wish.id));
        wishes
    }

    fn new_moves(&self, most: usize) -> Vec<NewJob> {
        if most == 0 || self.state.paused_since().is_some() {
            return Vec::new();
        }
        let wishes = self.wishes();
        if wishes.is_empty() {
            return Vec::new();
        }
        let bytes = Bytes::of(self.state, self.picture);
        let jobs = wishes.into_iter().filter_map(|wish| {
            // What cannot go anywhere is no job: health says so.
            let need = bytes.of_one(wish.id, wish.copyset);
            let has_target = self.loads.has_target(wish.copyset, wish.replica, need);
            has_target.then(|| NewJob {
                kind: wish.kind,
                cause: self.cause(&wish),
                copyset: wish.id,
                conf_epoch: wish.copyset.conf_epoch,
                replica: wish.replica.id,
                priority: wish.priority,
                bytes: need,
                to: None,
            })
        });
        jobs.take(most).collect()
    }

    fn cause(&self, wish: &Wish<'_>) -> Cause {
        let place = self.picture.places.get(&wish.replica.store);
        if wish.kind != JobKind::Recover {
            return off(self.state, self.picture, wish.replica.store);
        }
        if wish.copyset.vacant.iter().any(|r| r.id == wish.replica.id) {
            return Cause::GivenUp;
        }
        if place.is_some_and(|place| place.mark == Some(Mark::Lost)) {
            return Cause::Lost;
        }
        match self.picture.ailment(wish.replica.id) {
            Some(AilmentKind::Missing) => Cause::Missing,
            Some(AilmentKind::Damaged | AilmentKind::Failed) => Cause::Damaged,
            None => Cause::Away,
        }
    }

    fn ended(&self) -> BTreeMap<JobId, Ending> {
        let jobs = self.state.jobs().iter();
        let live = jobs.filter(|(_, job)| job.state.is_live());
        live.filter_map(|(id, job)| Some((*id, self.ending(job)?)))
            .collect()
    }

    fn ending(&self, job: &Job) -> Option<Ending> {
        let (picture, rules) = (self.picture, self.rules);
        let Some(copyset) = self.state.copysets().get(&job.copyset) else {
            return Some(Ending::NotNeeded);
        };
        let ran_ms = job.ran_ms(picture.now_ms, self.state.paused_since());
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
            (JobKind::Balance, JobState::Pending) => {
                let is_wanted = self.whole.contains(&copyset.pool)
                    && is_still_wanted(picture, rules, &self.loads, copyset, job);
                (!is_wanted).then_some(Ending::NotNeeded)
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

    /// Pending jobs whose turn it is, and running ones whose target is gone.
    fn starts(&mut self, ended: &BTreeMap<JobId, Ending>) -> Option<Command> {
        if self.state.paused_since().is_some() {
            return None;
        }
        let live = self.state.jobs().iter();
        let live = live.filter(|(id, job)| job.state.is_live() && !ended.contains_key(id));
        let mut moves: Vec<(&JobId, &Job)> =
            live.filter(|(_, job)| job.kind != JobKind::Lead).collect();
        moves.sort_by_key(|(id, job)| (Reverse(job.priority), **id));
        let mut jobs = Vec::new();
        for (id, job) in moves {
            if jobs.len() >= JOBS_PER_COMMAND_MAX {
                break;
            }
            let Some((conf_epoch, store)) = self.start(job) else {
                continue;
            };
            jobs.push(StartJob {
                job: *id,
                attempt: job.attempt,
                conf_epoch,
                store,
                at_ms: self.picture.now_ms,
            });
        }
        (!jobs.is_empty()).then_some(Command::StartJobs(StartJobs { jobs }))
    }

    /// Where the job's replica goes now, if it goes.
    fn start(&mut self, job: &Job) -> Option<(u64, StoreId)> {
        let (picture, rules) = (self.picture, self.rules);
        let copyset = self.state.copysets().get(&job.copyset)?;
        let is_stuck = job
            .target
            .is_some_and(|to| picture.is_gone(to.store, rules));
        let waits = job.state == JobState::Pending || is_stuck;
        let replaced = copyset.place(job.replica)?;
        let has_room = || (self.loads).has_room(rules, job.kind, copyset.pool, replaced);
        if !(waits && picture.has_quorum(copyset) && has_room()) {
            return None;
        }
        let takes = |store| self.loads.takes(rules, job.kind, store);
        let planned = job.to.filter(|_| job.state == JobState::Pending);
        let store = match planned {
            Some(to) => Some(to).filter(|to| takes(*to))?,
            None => (self.loads).target(copyset, replaced, job.bytes, takes)?,
        };
        self.loads.begin(copyset, replaced, store, job.bytes);
        if planned.is_none() {
            self.loads.shift(replaced.store, store);
        }
        Some((copyset.conf_epoch, store))
    }
}

/// Why what is on a device leaves it: an operator's wish counts before what it brought upon itself.
fn off(state: &State, picture: &Picture, store: StoreId) -> Cause {
    if state.successor(store).is_some() {
        return Cause::Replaced;
    }
    let place = picture.places.get(&store);
    match place {
        Some(place) if place.mark == Some(Mark::Draining) => Cause::Draining,
        Some(place) if place.maintenance_until_ms.is_some() => Cause::Maintenance,
        Some(place) if place.sick.is_some() => Cause::Limping,
        _ => Cause::Draining,
    }
}

/// Why a leader leaves a device: while jobs are paused only what somebody waits for counts.
fn lead_off(state: &State, picture: &Picture, store: StoreId) -> Cause {
    let is_paused = state.paused_since().is_some();
    if is_paused && picture.is_maintained(store) {
        Cause::Maintenance
    } else if is_paused && picture.limps(store) {
        Cause::Limping
    } else {
        off(state, picture, store)
    }
}

/// Transfers of leaders that are on devices that limp, are to be emptied, or are about to be stopped: they go before
/// their replicas do.
fn leaders_off(state: &State, picture: &Picture) -> Vec<NewJob> {
    let live = leads_live(state);
    leaders_off_if(state, picture, |count, is_pressing| {
        let leads_max = match is_pressing {
            true => LIMPING_LEADS_MAX,
            false => LEADS_MAX,
        };
        count + live < leads_max
    })
}

/// All of them, however many may go at once.
pub(crate) fn leaders_off_all(state: &State, picture: &Picture) -> Vec<NewJob> {
    leaders_off_if(state, picture, |_, _| true)
}

/// As long as there may be one more beside so many, and whether somebody waits for it.
fn leaders_off_if(
    state: &State,
    picture: &Picture,
    may_go: impl Fn(usize, bool) -> bool,
) -> Vec<NewJob> {
    let is_left = |store: StoreId| {
        picture.is_draining(store) || picture.limps(store) || picture.is_maintained(store)
    };
    let left = picture.places.iter().filter(|(id, _)| is_left(**id));
    let servers: BTreeSet<ChunkserverId> = left.map(|(_, place)| place.chunkserver).collect();
    let hosted = servers.into_iter().flat_map(|server| state.hosted(server));
    let copysets: BTreeSet<CopysetId> = hosted.collect();
    if copysets.is_empty() {
        return Vec::new();
    }
    let busy = state.busy();
    let mut led = led_by(state, picture);
    let mut jobs = Vec::new();
    for id in &copysets {
        let Some(copyset) = state.copysets().get(id) else {
            continue;
        };
        let off = copyset
            .replicas
            .iter()
            .find(|r| picture.leaders.get(id) == Some(&r.id));
        let Some(off) = off.filter(|r| is_left(r.store)) else {
            continue;
        };
        // Somebody waits for these.
        let is_pressing = picture.limps(off.store) || picture.is_maintained(off.store);
        if !may_go(jobs.len(), is_pressing) || copyset.change.is_some() || busy.contains(id) {
            continue;
        }
        let others = copyset.replicas.iter().filter(|r| r.id != off.id);
        let fit = others.filter(|r| picture.is_up(r.store) && picture.serving.contains(&r.id));
        let least = fit.min_by_key(|r| (led.get(&r.chunkserver).copied().unwrap_or(0), r.id));
        if let Some(to) = least {
            *led.entry(to.chunkserver).or_default() += 1;
            let cause = lead_off(state, picture, off.store);
            jobs.push(lead(*id, copyset, to.id, cause));
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
        to: None,
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

/// Replicas that would be left behind after one more change.
fn left_behind(copyset: &Copyset) -> usize {
    let change = copyset.change.as_ref();
    copyset.leaving.len() + change.map_or(0, |change| change.abandoned.len() + 1) + 1
}
