//! Jobs: work on one copyset that the metadata servers see through by themselves, and what they
//! follow from: marks on devices, and since when devices are away.
//!
//! A job is planned from outside (no clock and no liveness here) and is kept, so that a change of the
//! leading metadata server loses none. Nothing is done twice: a copyset has one live job at most, a
//! plan names the configuration it was made for, and a result names the attempt that it is of. What
//! does not fit any more is refused, or passed over where a command carries many.

use std::collections::BTreeSet;
use std::fmt;

use ogee_proto::id::{ChunkserverId, CopysetId, JobId, ReplicaId, StoreId};
use serde::{Deserialize, Serialize};

use super::command::{Command, Outcome, Reply};
use super::model::{Copyset, State};
use super::refusal::Refusal;
use super::topology::check_count;
use crate::limit::{JOBS_KEPT, JOBS_LIVE_MAX, JOBS_PER_COMMAND_MAX, STORES_PER_COMMAND_MAX};

/// One piece of work on one copyset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// What is done.
    pub kind: JobKind,
    /// How far it is.
    pub state: JobState,
    /// Why it was made.
    pub cause: Cause,
    /// Which copyset.
    pub copyset: CopysetId,
    /// Whose place is taken; of a transfer: which is to lead.
    pub replica: ReplicaId,
    /// Where that replica is.
    pub from: ChunkserverId,
    /// Larger goes first.
    pub priority: u8,
    /// Targets that were tried. A result of an earlier one is refused.
    pub attempt: u32,
    /// The newest of them.
    pub target: Option<Target>,
    /// Where the new replica is to go, if that was planned as well.
    #[serde(default)]
    pub to: Option<StoreId>,
    /// Bytes to be copied, as estimated when it was made.
    pub bytes: u64,
    /// Milliseconds since 1970, as are the next two.
    pub created_ms: u64,
    /// Of the newest attempt; 0: none.
    pub started_ms: u64,
    /// Milliseconds since then during which jobs were paused, of pauses that are over.
    #[serde(default, skip_serializing_if = "super::model::is_zero")]
    pub held_ms: u64,
    /// 0: it has not ended.
    pub ended_ms: u64,
    /// Why it ended.
    pub ending: Option<Ending>,
}

/// Where a new replica goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The new replica.
    pub replica: ReplicaId,
    /// Its store.
    pub store: StoreId,
    /// Its chunkserver.
    pub chunkserver: ChunkserverId,
}

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum JobKind {
    /// Puts a new replica in the place of one whose device is gone.
    Recover,
    /// Moves a replica off a device that is to be emptied.
    Drain,
    /// Makes another replica lead.
    Lead,
    /// Moves a replica to a device that carries less.
    Balance,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobState {
    /// Waits for its turn.
    Pending,
    /// Under way.
    Running,
    /// As wished.
    Done,
    /// Not wanted any more, before anything was changed.
    Cancelled,
    /// Given up.
    Failed,
}

/// Why a job was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// An operator declared the device lost.
    Lost,
    /// The device was away for too long.
    Away,
    /// An operator drains the device.
    Draining,
    /// Leaders were uneven.
    Uneven,
    /// An operator asked for even leaders.
    Asked,
    /// The device limps.
    Limping,
    /// An operator replaces the device.
    Replaced,
    /// The replica could not be opened, or had stopped.
    Damaged,
    /// The replica's chunkserver did not know it any more.
    Missing,
    /// The device carried more replicas than others.
    Crowded,
    /// An operator asked for even devices.
    AskedSpread,
    /// The chunkserver is about to be stopped for a while.
    Maintenance,
    /// The replica was given up when its copyset was reset.
    GivenUp,
}

/// Why a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// It is as it was to be.
    InPlace,
    /// What it was made for is not so any more.
    NotNeeded,
    /// An operator cancelled it.
    ByOperator,
    /// An operator replaced the replica otherwise.
    Superseded,
    /// It took too long.
    TimedOut,
    /// The replica that was to lead does not take part any more.
    TargetAway,
    /// It took too many targets.
    TooManyTargets,
}

/// What an operator wants of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mark {
    /// To be emptied.
    Draining,
    /// It will not come back.
    Lost,
}

/// See [`Command::MarkStores`]. Idempotent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkStores {
    /// Which.
    pub stores: Vec<StoreId>,
    /// `None` takes a mark away, and what was to follow from it and has not begun.
    pub mark: Option<Mark>,
    /// Milliseconds since 1970.
    pub at_ms: u64,
}

/// See [`Command::NoteStores`]. Idempotent; unknown ids are passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteStores {
    /// Away since, in milliseconds since 1970; the earliest note counts.
    pub away: Vec<(StoreId, u64)>,
    /// There again.
    pub back: Vec<StoreId>,
    /// Replicas that do not take part although their devices are there, since when.
    #[serde(default)]
    pub ailing: Vec<(CopysetId, ReplicaId, u64)>,
    /// They take part again, or are not heard of any more.
    #[serde(default)]
    pub well: Vec<ReplicaId>,
}

impl NoteStores {
    /// Whether there is nothing to note.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.away.is_empty()
            && self.back.is_empty()
            && self.ailing.is_empty()
            && self.well.is_empty()
    }
}

/// See [`Command::AddJobs`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddJobs {
    /// Those that do not fit what the copyset is now are passed over.
    pub jobs: Vec<NewJob>,
    /// Milliseconds since 1970.
    pub at_ms: u64,
}

/// A job to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewJob {
    /// What is to be done.
    pub kind: JobKind,
    /// Why.
    pub cause: Cause,
    /// Which copyset.
    pub copyset: CopysetId,
    /// Its configuration as it was planned for.
    pub conf_epoch: u64,
    /// As in [`Job`].
    pub replica: ReplicaId,
    /// As in [`Job`].
    pub priority: u8,
    /// As in [`Job`].
    pub bytes: u64,
    /// As in [`Job`].
    #[serde(default)]
    pub to: Option<StoreId>,
}

/// See [`Command::StartJob`]. Also sends one that runs elsewhere, when its target is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartJob {
    /// Which.
    pub job: JobId,
    /// Its attempts before this one: a second start of the same plan is refused.
    pub attempt: u32,
    /// The copyset's configuration as it was planned for.
    pub conf_epoch: u64,
    /// Where the new replica goes.
    pub store: StoreId,
    /// Milliseconds since 1970.
    pub at_ms: u64,
}

/// See [`Command::StartJobs`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartJobs {
    /// Those that would be refused by themselves are passed over.
    pub jobs: Vec<StartJob>,
}

/// See [`Command::EndJob`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndJob {
    /// Which.
    pub job: JobId,
    /// The attempt that this is about.
    pub attempt: u32,
    /// Why it ends.
    pub ending: Ending,
    /// Milliseconds since 1970.
    pub at_ms: u64,
}

impl JobState {
    /// Whether something is still to be done.
    #[must_use]
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Pending | Self::Running)
    }

    /// As commands and messages spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

impl JobKind {
    /// As commands and messages spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Recover => "recover",
            Self::Drain => "drain",
            Self::Lead => "transfer_leader",
            Self::Balance => "balance",
        }
    }
}

impl Ending {
    const fn state(self) -> JobState {
        match self {
            Self::InPlace => JobState::Done,
            Self::NotNeeded | Self::ByOperator | Self::Superseded => JobState::Cancelled,
            Self::TimedOut | Self::TargetAway | Self::TooManyTargets => JobState::Failed,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "the device was declared lost",
            Self::Away => "the device was away for too long",
            Self::Draining => "the device is drained",
            Self::Uneven => "leaders were uneven",
            Self::Asked => "an operator asked for even leaders",
            Self::Limping => "the device limps",
            Self::Replaced => "the device is replaced",
            Self::Damaged => "the replica was damaged or had stopped",
            Self::Missing => "the chunkserver had lost the replica",
            Self::Crowded => "the device carried more than others",
            Self::AskedSpread => "an operator asked for even devices",
            Self::Maintenance => "the chunkserver is in maintenance",
            Self::GivenUp => "the replica was given up when its copyset was reset",
        })
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InPlace => "in place",
            Self::NotNeeded => "not needed any more",
            Self::ByOperator => "an operator cancelled it",
            Self::Superseded => "an operator replaced the replica otherwise",
            Self::TimedOut => "it took too long",
            Self::TargetAway => "the replica that was to lead does not take part any more",
            Self::TooManyTargets => "too many targets went away",
        })
    }
}

impl Mark {
    /// As commands and messages spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Lost => "lost",
        }
    }
}

impl State {
    /// Copysets with a live job.
    #[must_use]
    pub fn busy(&self) -> BTreeSet<CopysetId> {
        let live = self.jobs.values().filter(|job| job.state.is_live());
        live.map(|job| job.copyset).collect()
    }

    pub(super) fn mark_stores(&mut self, command: &MarkStores) -> Outcome {
        let count = command.stores.len();
        check_count("devices at once", count, STORES_PER_COMMAND_MAX)?;
        if let Some(store) = command.stores.iter().find(|s| !self.stores.contains_key(s)) {
            return Err(Refusal::NoStore { store: *store });
        }
        for store in &command.stores {
            self.successors.remove(store);
            match command.mark {
                Some(mark) => self.marks.insert(*store, mark),
                None => self.marks.remove(store),
            };
        }
        Ok(Reply::Done)
    }

    pub(super) fn note_stores(&mut self, command: &NoteStores) -> Reply {
        for store in &command.back {
            self.away.remove(store);
        }
        for (store, since) in &command.away {
            if self.stores.contains_key(store) {
                let known = self.away.entry(*store).or_insert(*since);
                *known = (*known).min(*since);
            }
        }
        for replica in &command.well {
            self.ailing.remove(replica);
        }
        for (copyset, replica, since) in &command.ailing {
            let copyset = self.copysets.get(copyset);
            if copyset.is_some_and(|c| c.replicas.iter().any(|r| r.id == *replica)) {
                let known = self.ailing.entry(*replica).or_insert(*since);
                *known = (*known).min(*since);
            }
        }
        Reply::Done
    }

    pub(super) fn add_jobs(&mut self, command: &AddJobs) -> Outcome {
        check_count("jobs at once", command.jobs.len(), JOBS_PER_COMMAND_MAX)?;
        let mut busy = self.busy();
        let mut made = Vec::new();
        for new in &command.jobs {
            let is_held = !self.may_begin(new.kind, new.cause);
            if is_held || busy.len() >= JOBS_LIVE_MAX || busy.contains(&new.copyset) {
                continue;
            }
            let Some(job) = self.job(new, command.at_ms) else {
                continue;
            };
            self.issued.job += 1;
            let id = JobId::new(self.issued.job);
            self.jobs.insert(id, job);
            busy.insert(new.copyset);
            made.push(id);
        }
        Ok(Reply::Jobs(made))
    }

    /// The job, if it fits the copyset as it is now. A transfer runs at once.
    fn job(&self, new: &NewJob, at_ms: u64) -> Option<Job> {
        let copyset = self.copysets.get(&new.copyset)?;
        if !copyset.formed || copyset.conf_epoch != new.conf_epoch {
            return None;
        }
        let is_transfer = new.kind == JobKind::Lead;
        let replica = match is_transfer {
            true => copyset.replicas.iter().find(|r| r.id == new.replica)?,
            false => copyset.place(new.replica)?,
        };
        let target = Target {
            replica: replica.id,
            store: replica.store,
            chunkserver: replica.chunkserver,
        };
        let state = if is_transfer {
            JobState::Running
        } else {
            JobState::Pending
        };
        Some(Job {
            kind: new.kind,
            state,
            cause: new.cause,
            copyset: new.copyset,
            replica: new.replica,
            from: replica.chunkserver,
            priority: new.priority,
            attempt: u32::from(is_transfer),
            target: is_transfer.then_some(target),
            to: new.to,
            bytes: new.bytes,
            created_ms: at_ms,
            started_ms: if is_transfer { at_ms } else { 0 },
            held_ms: 0,
            ended_ms: 0,
            ending: None,
        })
    }

    /// The live job of that id and attempt.
    fn live_job(&self, id: JobId, attempt: u32) -> Result<&Job, Refusal> {
        let job = self.jobs.get(&id).ok_or(Refusal::NoJob { job: id })?;
        if job.state.is_live() && job.attempt == attempt {
            Ok(job)
        } else {
            let state = job.state.as_str().into();
            Err(Refusal::StaleJob { job: id, state })
        }
    }

    pub(super) fn start_job(&mut self, command: &StartJob) -> Outcome {
        let job = self.live_job(command.job, command.attempt)?;
        let stale = Refusal::StaleJob {
            job: command.job,
            state: job.state.as_str().into(),
        };
        let copyset = self.copysets.get(&job.copyset);
        let fits = |copyset: &Copyset| copyset.conf_epoch == command.conf_epoch;
        let is_move = job.kind != JobKind::Lead;
        if !is_move || !copyset.is_some_and(fits) || job.attempt >= u32::MAX / 2 {
            return Err(stale);
        }
        self.check_begins(job.kind, job.cause)?;
        let wish = super::command::ReplaceReplica {
            copyset: job.copyset,
            replica: job.replica,
            store: command.store,
        };
        let replica = self.replace(&wish)?;
        let chunkserver = self.stores.get(&command.store).map(|s| s.chunkserver);
        if let (Some(job), Some(chunkserver)) = (self.jobs.get_mut(&command.job), chunkserver) {
            job.state = JobState::Running;
            job.attempt += 1;
            (job.started_ms, job.held_ms) = (command.at_ms, 0);
            job.target = Some(Target {
                replica,
                store: command.store,
                chunkserver,
            });
        }
        Ok(Reply::Replica(replica))
    }

    pub(super) fn start_jobs(&mut self, command: &StartJobs) -> Outcome {
        check_count("jobs at once", command.jobs.len(), JOBS_PER_COMMAND_MAX)?;
        for start in &command.jobs {
            // A refusal changes nothing; the next look plans anew.
            let _ = self.start_job(start);
        }
        Ok(Reply::Done)
    }

    pub(super) fn end_job(&mut self, command: &EndJob) -> Outcome {
        let job = self.live_job(command.job, command.attempt)?;
        let begun = job.kind != JobKind::Lead && job.state == JobState::Running;
        if begun && command.ending.state() == JobState::Cancelled {
            return Err(Refusal::JobUnderWay { job: command.job });
        }
        self.close(command.job, command.ending, command.at_ms);
        Ok(Reply::Done)
    }

    /// The replica that joined is a voter: its job is done.
    pub(super) fn close_joined(&mut self, copyset: CopysetId, joined: ReplicaId, at_ms: u64) {
        let is_its = |job: &Job| {
            job.copyset == copyset
                && job.state == JobState::Running
                && job.kind != JobKind::Lead
                && job.target.is_some_and(|target| target.replica == joined)
        };
        self.close_where(is_its, Ending::InPlace, at_ms);
    }

    /// An operator's replacement takes over from the copyset's job.
    pub(super) fn supersede(&mut self, copyset: CopysetId, by: ReplicaId) {
        let is_other = |job: &Job| {
            job.copyset == copyset
                && job.kind != JobKind::Lead
                && job.state.is_live()
                && job.target.is_none_or(|target| target.replica != by)
        };
        self.close_where(is_other, Ending::Superseded, 0);
    }

    /// All that is to be done with a copyset is overtaken.
    pub(super) fn close_all(&mut self, copyset: CopysetId, at_ms: u64) {
        let is_its = |job: &Job| job.copyset == copyset && job.state.is_live();
        self.close_where(is_its, Ending::Superseded, at_ms);
    }

    fn close_where(&mut self, which: impl Fn(&Job) -> bool, ending: Ending, at_ms: u64) {
        let found = self.jobs.iter().filter(|(_, job)| which(job));
        let found: Vec<JobId> = found.map(|(id, _)| *id).collect();
        for id in found {
            self.close(id, ending, at_ms);
        }
    }

    pub(super) fn close(&mut self, id: JobId, ending: Ending, at_ms: u64) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.state = ending.state();
            job.ending = Some(ending);
            job.ended_ms = at_ms.max(job.started_ms).max(job.created_ms);
        }
        let ended = self.jobs.iter().filter(|(_, job)| !job.state.is_live());
        let ended: Vec<JobId> = ended.map(|(id, _)| *id).collect();
        for old in ended.iter().take(ended.len().saturating_sub(JOBS_KEPT)) {
            self.jobs.remove(old);
        }
    }

    /// Forgets a chunkserver that no copyset counts on, with what it was still to delete.
    pub(super) fn remove_chunkserver(&mut self, id: ChunkserverId) -> Outcome {
        let Some(server) = self.chunkservers.get(&id) else {
            return Ok(Reply::Done);
        };
        let counts = |copyset: &CopysetId| {
            let copyset = self.copysets.get(copyset);
            copyset.is_some_and(|c| c.members().any(|r| r.chunkserver == id))
        };
        let replicas = self.hosted(id).filter(counts).count();
        if replicas > 0 {
            return Err(Refusal::NotEmpty {
                name: server.name.clone(),
                replicas,
            });
        }
        let stores = server.stores.clone();
        for copyset in self.hosted.remove(&id).unwrap_or_default() {
            if let Some(copyset) = self.copysets.get_mut(&copyset) {
                copyset.leaving.retain(|r| r.chunkserver != id);
            }
        }
        for store in stores {
            self.stores.remove(&store);
            self.marks.remove(&store);
            self.away.remove(&store);
            self.sick.remove(&store);
            self.successors
                .retain(|old, new| *old != store && *new != store);
        }
        for garbage in self.garbage.values_mut() {
            garbage.pending.remove(&id);
        }
        self.garbage
            .retain(|_, garbage| !garbage.pending.is_empty());
        self.maintenance.remove(&id);
        self.forget_retired_on(id);
        self.chunkservers.remove(&id);
        Ok(Reply::Done)
    }
}

impl Command {
    /// An ended job, in one word for the log.
    #[must_use]
    pub const fn end(job: JobId, attempt: u32, ending: Ending, at_ms: u64) -> Self {
        Self::EndJob(EndJob {
            job,
            attempt,
            ending,
            at_ms,
        })
    }
}
