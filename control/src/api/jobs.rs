//! Jobs, marks on devices, and what may be stopped or forgotten: for operators.

use std::collections::{BTreeMap, BTreeSet};

use ogee_proto::id::{ChunkserverId, JobId, ReplicaId, StoreId};
use ogee_proto::service::{
    BalanceLeadersRequest, BalanceReplicasRequest, DevicesName, Empty, JobInfo, JobName,
    ListJobsResponse, MarkDevicesRequest, MarkDevicesResponse, OkToStopResponse, PauseJobsRequest,
    PauseJobsResponse, ServerName,
};

use super::context::unix_ms;
use super::error::ApiError;
use super::info::{Scene, count};
use super::topology::TopologyApi;
use super::watch::note;
use crate::limit::{JOBS_LIVE_MAX, JOBS_PER_COMMAND_MAX, PACE_MOVES};
use crate::liveness::ReplicaState;
use crate::scheduler::{Handover, Picture, Presence, Standing, balance, spread};
use crate::state::{
    AddJobs, Cause, Command, Ending, EventLevel, Job, JobKind, JobState, Mark, MarkStores, NewJob,
    PauseJobs, Refusal, Reply, ResumeJobs, State,
};

impl TopologyApi {
    pub(super) async fn mark(
        &self,
        request: MarkDevicesRequest,
    ) -> Result<MarkDevicesResponse, ApiError> {
        let mark = match request.mark.as_str() {
            "" => None,
            "draining" => Some(Mark::Draining),
            "lost" => Some(Mark::Lost),
            other => {
                return Err(ApiError::bad_field(
                    "mark",
                    other,
                    "draining, lost or nothing",
                ));
            }
        };
        let name = request.name.clone();
        let (stores, serves, before) = self
            .look(|scene, _| {
                let stores = named(scene.state, &name);
                let serves = stores.iter().any(|store| is_serving(scene, *store));
                (
                    stores,
                    serves,
                    carried(scene.state, &named(scene.state, &name)),
                )
            })
            .await?;
        if stores.is_empty() {
            return Err(ApiError::no_devices(&request.name));
        }
        if mark == Some(Mark::Lost) && serves {
            return Err(ApiError::still_serves(&request.name));
        }
        let devices = count(stores.len());
        let at_ms = unix_ms();
        let command = MarkStores {
            stores: stores.clone(),
            mark,
            at_ms,
        };
        self.0.write(Command::MarkStores(command)).await?;
        let paused_since = self.0.written().await?.state.paused_since();
        let jobs_cancelled = if mark.is_none() {
            self.cancel_waiting(&stores, at_ms).await?
        } else {
            0
        };
        Ok(MarkDevicesResponse {
            devices,
            replicas: before,
            jobs_cancelled,
            paused_since_unix_ms: paused_since.filter(|_| mark.is_some()),
        })
    }

    /// Those of the devices' jobs that have not begun. A look would end them as well.
    pub(super) async fn cancel_waiting(
        &self,
        stores: &[StoreId],
        at_ms: u64,
    ) -> Result<u32, ApiError> {
        let view = self.0.latest().await?;
        let state = &view.state;
        let is_theirs = |job: &Job| {
            let copyset = state.copysets().get(&job.copyset);
            let replica = copyset.and_then(|c| c.replicas.iter().find(|r| r.id == job.replica));
            job.state == JobState::Pending && replica.is_some_and(|r| stores.contains(&r.store))
        };
        let mut cancelled = 0;
        for (id, job) in state.jobs().iter().filter(|(_, job)| is_theirs(job)) {
            let end = Command::end(*id, job.attempt, Ending::ByOperator, at_ms);
            // One that began meanwhile is let be.
            cancelled += u32::from(self.0.write(end).await.is_ok());
        }
        Ok(cancelled)
    }

    pub(super) async fn may_stop(
        &self,
        request: DevicesName,
    ) -> Result<OkToStopResponse, ApiError> {
        self.look(|scene, _| {
            let stores = named(scene.state, &request.name);
            if stores.is_empty() {
                return Err(ApiError::no_devices(&request.name));
            }
            let stores = stores.into_iter().collect();
            Ok(without(scene.state, &picture(scene), &stores))
        })
        .await?
    }

    pub(super) async fn forget_server(&self, request: ServerName) -> Result<Empty, ApiError> {
        let found = self
            .look(|scene, _| {
                let mut servers = scene.state.chunkservers().iter();
                let found = servers.find(|(_, c)| c.name.as_str() == request.name);
                found.map(|(id, _)| (*id, scene.is_online(*id)))
            })
            .await?;
        let (chunkserver, online) = found.ok_or_else(|| ApiError::no_devices(&request.name))?;
        if online {
            return Err(ApiError::still_online(&request.name));
        }
        self.0
            .write(Command::RemoveChunkserver { chunkserver })
            .await?;
        Ok(Empty {})
    }

    pub(super) async fn jobs(&self) -> Result<ListJobsResponse, ApiError> {
        self.look(|scene, _| jobs_info(scene, |_| true)).await
    }

    pub(super) async fn cancel(&self, request: JobName) -> Result<JobInfo, ApiError> {
        let id = JobId::new(request.id);
        let view = self.0.latest().await?;
        // One that is unknown is refused by the state machine, in its words.
        let attempt = view.state.jobs().get(&id).map_or(0, |job| job.attempt);
        let end = Command::end(id, attempt, Ending::ByOperator, unix_ms());
        self.0.write(end).await?;
        let mut found = self
            .look_back(|scene| jobs_info(scene, |it| it == id))
            .await?;
        let found = found.jobs.pop();
        found.ok_or_else(|| Refusal::NoJob { job: id }.into())
    }

    pub(super) async fn even_leaders(
        &self,
        request: BalanceLeadersRequest,
    ) -> Result<ListJobsResponse, ApiError> {
        let (jobs, whys, planned) = self
            .look(|scene, _| {
                let percent = scene.rules.lead_percent;
                let handovers = balance(scene.state, &picture(scene), percent, Cause::Asked);
                let whys = handovers.iter();
                let whys = whys.map(|it| (it.job.copyset.get(), Why::of(scene, it)));
                let whys: BTreeMap<u32, Why> = whys.collect();
                let jobs: Vec<NewJob> = handovers.into_iter().map(|it| it.job).collect();
                let planned = request.dry_run.then(|| planned(scene, &jobs));
                (jobs, whys, planned)
            })
            .await?;
        let mut answer = match planned {
            Some(planned) => planned,
            None => {
                self.check_not_paused().await?;
                self.make_jobs(&jobs).await?
            }
        };
        for job in &mut answer.jobs {
            if let Some(why) = whys.get(&job.copyset) {
                job.reason = format!("{}: {}", job.reason, why.text);
                job.from.clone_from(&why.from);
                job.to.clone_from(&why.to);
            }
        }
        Ok(answer)
    }

    /// Begins as many moves as there is room for; what is left is planned when these have gone on.
    pub(super) async fn even_devices(
        &self,
        request: BalanceReplicasRequest,
    ) -> Result<ListJobsResponse, ApiError> {
        let jobs = self
            .look(|scene, _| {
                let room = JOBS_LIVE_MAX.saturating_sub(scene.state.busy().len());
                let picture = picture(scene);
                spread(scene.state, &picture, scene.rules, Cause::AskedSpread, room)
            })
            .await?;
        if request.dry_run {
            return self.look(|scene, _| planned(scene, &jobs)).await;
        }
        self.check_not_paused().await?;
        self.make_jobs(&jobs).await
    }

    /// What would only wait is refused.
    pub(super) async fn check_not_paused(&self) -> Result<(), ApiError> {
        match self.0.latest().await?.state.paused_since() {
            Some(since_ms) => Err(Refusal::JobsPaused { since_ms }.into()),
            None => Ok(()),
        }
    }

    /// Holds background jobs up, or lets them go on.
    pub(super) async fn hold_jobs(
        &self,
        request: PauseJobsRequest,
    ) -> Result<PauseJobsResponse, ApiError> {
        let (before, version) = {
            let latest = self.0.latest().await?;
            (latest.state.paused_since(), latest.state.version())
        };
        let at_ms = unix_ms();
        let (command, kind, text) = if request.resume {
            // Who does not understand when it was is told that it was: no operator has to upgrade first.
            let resume = |at_ms| Command::ResumeJobs(ResumeJobs { at_ms });
            let at_ms = if resume(at_ms).version() > version {
                0
            } else {
                at_ms
            };
            (resume(at_ms), "jobs_resumed", "jobs go on")
        } else {
            (
                Command::PauseJobs(PauseJobs { at_ms }),
                "jobs_paused",
                "jobs are paused: none begins",
            )
        };
        self.0.write(command).await?;
        let paused_since_unix_ms = self.0.written().await?.state.paused_since();
        if before != paused_since_unix_ms {
            note(&self.0, EventLevel::Info, kind, "", text.to_owned()).await;
        }
        self.0.alarm.notify_one();
        Ok(PauseJobsResponse {
            paused_since_unix_ms,
        })
    }

    async fn make_jobs(&self, jobs: &[NewJob]) -> Result<ListJobsResponse, ApiError> {
        let mut ids = BTreeSet::new();
        for part in jobs.chunks(JOBS_PER_COMMAND_MAX) {
            let command = AddJobs {
                jobs: part.to_vec(),
                at_ms: unix_ms(),
            };
            let Reply::Jobs(made) = self.0.write(Command::AddJobs(command)).await? else {
                unreachable!("invariant: jobs that are made answer with their ids");
            };
            ids.extend(made);
        }
        if ids.is_empty() {
            return Ok(ListJobsResponse::default());
        }
        self.look(|scene, _| jobs_info(scene, |id| ids.contains(&id)))
            .await
    }
}

/// The world as healing sees it.
pub(super) fn picture(scene: &Scene<'_>) -> Picture {
    picture_of(scene, scene.state)
}

/// The same world, were the metadata like that.
pub(super) fn picture_of(scene: &Scene<'_>, state: &State) -> Picture {
    Picture::take(state, scene.liveness, scene.now, unix_ms())
}

/// The device of that id, or all of the chunkserver of that name.
pub(super) fn named(state: &State, name: &str) -> Vec<StoreId> {
    let is_meant = |(id, store): &(&StoreId, &crate::state::Store)| {
        let server = state.chunkservers().get(&store.chunkserver);
        id.to_string() == name || server.is_some_and(|s| s.name.as_str() == name)
    };
    let stores = state.stores().iter().filter(is_meant);
    stores.map(|(id, _)| *id).collect()
}

fn is_serving(scene: &Scene<'_>, store: StoreId) -> bool {
    let picture = picture(scene);
    let place = picture.places.get(&store);
    place.is_some_and(|place| !matches!(place.presence, Presence::Away { .. }))
}

/// Replicas on those devices, those that are about to be there included.
fn carried(state: &State, stores: &[StoreId]) -> u32 {
    let members = state.copysets().values().flat_map(|c| c.members());
    count(members.filter(|r| stores.contains(&r.store)).count())
}

/// What becomes of copysets when these devices stop. What is in maintenance may stop at any time.
pub(super) fn without(
    state: &State,
    picture: &Picture,
    stores: &BTreeSet<StoreId>,
) -> OkToStopResponse {
    let mut answer = OkToStopResponse {
        ok: true,
        ..OkToStopResponse::default()
    };
    for (id, copyset) in state.copysets() {
        let touched = copyset.members().any(|r| stores.contains(&r.store));
        let stay = copyset.replicas.iter();
        let stay = stay.filter(|r| {
            picture.serving.contains(&r.id)
                && !stores.contains(&r.store)
                && !picture.is_maintained(r.store)
        });
        // While voters change, either of two majorities may be asked.
        let spare = usize::from(copyset.change.is_some());
        if touched && (stay.count() * 2) <= copyset.replicas.len() + spare {
            answer.ok = false;
            answer.without_quorum.push(id.get());
        } else if touched {
            answer.degraded.push(id.get());
        }
    }
    answer
}

fn jobs_info(scene: &Scene<'_>, which: impl Fn(JobId) -> bool) -> ListJobsResponse {
    let jobs = scene.state.jobs().iter().filter(|(id, _)| which(**id));
    let pace = pace(scene.state);
    ListJobsResponse {
        jobs: jobs.map(|(id, job)| info(scene, *id, job, pace)).collect(),
        paused_since_unix_ms: scene.state.paused_since(),
    }
}

/// Bytes a second that one move has copied, of those that ended last; none if there were none.
fn pace(state: &State) -> Option<u64> {
    let jobs = state.jobs().values();
    let done = jobs
        .filter(|job| job.state == JobState::Done && job.kind != JobKind::Lead && job.bytes > 0);
    let mut done: Vec<&Job> = done.collect();
    done.sort_by_key(|job| std::cmp::Reverse(job.ended_ms));
    done.truncate(PACE_MOVES);
    let bytes = done.iter().map(|job| u128::from(job.bytes)).sum::<u128>();
    let took = |job: &&Job| u128::from(job.ended_ms.saturating_sub(job.started_ms));
    let took_ms = done.iter().map(took).sum::<u128>();
    let pace = (bytes * 1000).checked_div(took_ms)?;
    u64::try_from(pace).ok().filter(|pace| *pace > 0)
}

/// What is left of a move that has gone on for a while, at that pace; none if it is slower, or nothing can be said.
fn left_ms(bytes: u64, ran_ms: u64, pace: Option<u64>) -> Option<u64> {
    let pace = pace.filter(|_| bytes > 0)?;
    let all_ms = u128::from(bytes) * 1000 / u128::from(pace);
    let left_ms = all_ms.checked_sub(u128::from(ran_ms))?;
    u64::try_from(left_ms).ok().filter(|it| *it > 0)
}

/// How long the moves that are under way still take, by the replicas that they make; of those of which it can be said.
pub(super) fn etas(scene: &Scene<'_>) -> BTreeMap<ReplicaId, u64> {
    let pace = pace(scene.state);
    let jobs = scene.state.jobs().values();
    let etas = jobs.filter_map(|job| Some((job.target?.replica, eta_ms(scene, job, pace)?)));
    etas.collect()
}

/// How long a move that is under way still takes, if that can be said: one that catches up by what it was seen to gain, and one
/// that copies by how long others took.
fn eta_ms(scene: &Scene<'_>, job: &Job, pace: Option<u64>) -> Option<u64> {
    if job.state != JobState::Running || job.kind == JobKind::Lead {
        return None;
    }
    let to = job.target?;
    let new = (scene.liveness).replica(scene.now, to.chunkserver, to.replica);
    let catches_up = new.is_some_and(|it| it.state != ReplicaState::Installing);
    let seen = scene.liveness.chases.left(to.replica);
    match seen.filter(|_| catches_up) {
        Some(left) => u64::try_from(left.as_millis()).ok(),
        None => left_ms(job.bytes, unix_ms().saturating_sub(job.started_ms), pace),
    }
}

/// What speaks for a transfer, and whose it is.
struct Why {
    from: String,
    to: String,
    text: String,
}

impl Why {
    fn of(scene: &Scene<'_>, handover: &Handover) -> Self {
        let stands =
            |name: &str, it: &Standing| format!("{name} leads {} ({}/s)", it.leads, it.demand);
        let from = name_of(scene, handover.from.chunkserver);
        let to = name_of(scene, handover.to.chunkserver);
        let text = format!(
            "{}, {}; this one {}/s",
            stands(&from, &handover.from),
            stands(&to, &handover.to),
            handover.demand
        );
        Self { from, to, text }
    }
}

/// Jobs that were not made.
pub(super) fn planned(scene: &Scene<'_>, jobs: &[NewJob]) -> ListJobsResponse {
    let info = |new: &NewJob| {
        let copyset = scene.state.copysets().get(&new.copyset);
        let replica = copyset.and_then(|c| c.replicas.iter().find(|r| r.id == new.replica));
        JobInfo {
            kind: new.kind.as_str().into(),
            state: "planned".into(),
            copyset: new.copyset.get(),
            replica: new.replica.get(),
            from: replica.map_or_else(String::new, |r| name_of(scene, r.chunkserver)),
            to: server_of(scene, new.to).unwrap_or_default(),
            store: new.to.map_or_else(String::new, |to| to.to_string()),
            priority: new.priority.into(),
            reason: new.cause.to_string(),
            bytes: new.bytes,
            ..JobInfo::default()
        }
    };
    ListJobsResponse {
        jobs: jobs.iter().map(info).collect(),
        paused_since_unix_ms: scene.state.paused_since(),
    }
}

pub(super) fn name_of(scene: &Scene<'_>, id: ChunkserverId) -> String {
    let server = scene.state.chunkservers().get(&id);
    server.map_or_else(|| id.to_string(), |server| server.name.to_string())
}

/// The name of the chunkserver that has the store.
pub(super) fn server_of(scene: &Scene<'_>, store: Option<StoreId>) -> Option<String> {
    let store = scene.state.stores().get(&store?)?;
    Some(name_of(scene, store.chunkserver))
}

fn info(scene: &Scene<'_>, id: JobId, job: &Job, pace: Option<u64>) -> JobInfo {
    let (step, percent) = progress(scene, job);
    let reason = job.ending.map_or_else(
        || job.cause.to_string(),
        |ending| format!("{}; {ending}", job.cause),
    );
    JobInfo {
        id: id.get(),
        kind: job.kind.as_str().into(),
        state: job.state.as_str().into(),
        copyset: job.copyset.get(),
        replica: job.replica.get(),
        from: match job.kind {
            // Whoever leads when it is carried out.
            JobKind::Lead => String::new(),
            JobKind::Recover | JobKind::Drain | JobKind::Balance => name_of(scene, job.from),
        },
        to: job.target.map_or_else(
            || server_of(scene, job.to).unwrap_or_default(),
            |to| name_of(scene, to.chunkserver),
        ),
        store: job
            .target
            .map(|to| to.store)
            .or(job.to)
            .map_or_else(String::new, |store| store.to_string()),
        priority: job.priority.into(),
        attempt: job.attempt,
        step: step.into(),
        reason,
        bytes: job.bytes,
        percent,
        created_unix_ms: job.created_ms,
        started_unix_ms: job.started_ms,
        ended_unix_ms: job.ended_ms,
        eta_ms: eta_ms(scene, job, pace),
    }
}

/// What it waits for, and how far that is, as far as reports tell.
fn progress(scene: &Scene<'_>, job: &Job) -> (&'static str, u32) {
    match (job.state, job.kind) {
        (JobState::Done, _) => return ("done", 100),
        (JobState::Cancelled | JobState::Failed, _) => return ("ended", 0),
        (JobState::Pending, _) => return ("waits for its turn", 0),
        (JobState::Running, JobKind::Lead) => return ("hands over", 0),
        (JobState::Running, _) => {}
    }
    let report = |server, replica: ReplicaId| scene.liveness.replica(scene.now, server, replica);
    let Some(to) = job.target else {
        return ("waits for a target", 0);
    };
    let Some(new) = report(to.chunkserver, to.replica) else {
        return ("makes the new replica", 0);
    };
    if new.state == ReplicaState::Installing {
        return ("copies", 10);
    }
    let copyset = scene.state.copysets().get(&job.copyset);
    let voters = copyset.map(|c| c.replicas.iter());
    let applied = voters.into_iter().flatten();
    let applied = applied
        .filter_map(|r| Some(report(r.chunkserver, r.id)?.applied))
        .max();
    match applied.unwrap_or(0) {
        0 => ("catches up", 50),
        all => {
            let part = u128::from(new.applied.min(all)) * 45 / u128::from(all);
            ("catches up", 50 + u32::try_from(part).unwrap_or(0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{left_ms, pace};
    use crate::state::State;
    use serde_json::json;

    /// A job that has ended, or goes on.
    fn job(kind: &str, state: &str, bytes: u64, (started, ended): (u64, u64)) -> serde_json::Value {
        json!({
            "kind": kind, "state": state, "cause": "Lost", "copyset": 1, "replica": 1, "from": 1, "priority": 1,
            "attempt": 1, "target": null, "bytes": bytes, "created_ms": 1, "started_ms": started,
            "ended_ms": ended, "ending": null,
        })
    }

    fn state(jobs: &[serde_json::Value]) -> State {
        let mut state = serde_json::to_value(State::default()).expect("a record");
        let jobs = (1..)
            .zip(jobs)
            .map(|(id, job)| (id.to_string(), job.clone()));
        state["jobs"] = serde_json::Value::Object(jobs.collect());
        serde_json::from_value(state).expect("a state")
    }

    #[test]
    fn the_pace_is_that_of_moves_that_were_done_last() {
        assert_eq!(pace(&State::default()), None);
        let lead = job("Lead", "Done", 0, (0, 1000));
        let failed = job("Recover", "Failed", 5000, (0, 1000));
        let goes_on = job("Recover", "Running", 5000, (0, 0));
        assert_eq!(pace(&state(&[lead, failed, goes_on])), None);
        let two = [
            job("Drain", "Done", 3000, (1000, 2000)),
            job("Balance", "Done", 1000, (1000, 2000)),
        ];
        assert_eq!(pace(&state(&two)), Some(2000));
        // Older than the last sixteen.
        let mut many = vec![job("Drain", "Done", 1_000_000, (0, 10))];
        many.extend((0..16).map(|_| job("Drain", "Done", 500, (1000, 2000))));
        assert_eq!(pace(&state(&many)), Some(500));
    }

    #[test]
    fn what_is_left_is_not_guessed() {
        assert_eq!(left_ms(10_000, 2000, Some(1000)), Some(8000));
        assert_eq!(left_ms(10_000, 2000, None), None);
        assert_eq!(left_ms(0, 2000, Some(1000)), None);
        assert_eq!(
            left_ms(10_000, 10_000, Some(1000)),
            None,
            "slower than others"
        );
        assert_eq!(left_ms(u64::MAX, 0, Some(1)), None, "for ever");
    }
}
