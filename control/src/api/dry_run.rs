//! What draining or replacing devices would do: the same plans, of which nothing is carried out.

use std::collections::BTreeSet;

use ogee_proto::id::StoreId;
use ogee_proto::service::{DevicesName, JobInfo, ListJobsResponse, ReplaceDeviceRequest};

use super::emptying::{drained, known, words};
use super::error::ApiError;
use super::info::Scene;
use super::jobs::{name_of, picture_of, planned};
use super::replacing;
use super::topology::TopologyApi;
use crate::scheduler::{Leaving, emptying, leaders_off_all};
use crate::state::{Cause, Command, JobKind, NewJob, State};

impl TopologyApi {
    /// The jobs that a drain would lead to.
    pub(super) async fn plan_drain(
        &self,
        request: DevicesName,
    ) -> Result<ListJobsResponse, ApiError> {
        self.look(|scene, _| {
            let stores = known(scene, &request.name)?;
            let marked = drained(scene.state, &stores)?;
            Ok(jobs(scene, &marked, &stores, Cause::Draining))
        })
        .await?
    }

    /// The jobs that replacing a device would lead to; or why it would be refused.
    pub(super) async fn plan_replacement(
        &self,
        request: ReplaceDeviceRequest,
    ) -> Result<ListJobsResponse, ApiError> {
        self.look(|scene, _| {
            let (old, new) = replacing::ends(scene, &request)?;
            let mut marked = scene.state.clone();
            marked.apply(&Command::ReplaceStore { old, new })?;
            Ok(jobs(
                scene,
                &marked,
                &BTreeSet::from([old]),
                Cause::Replaced,
            ))
        })
        .await?
    }
}

/// Leaders that hand over first, then what moves; what has nowhere to go is said to.
fn jobs(
    scene: &Scene<'_>,
    marked: &State,
    stores: &BTreeSet<StoreId>,
    cause: Cause,
) -> ListJobsResponse {
    let picture = picture_of(scene, marked);
    let leaving = emptying(marked, &picture, stores);
    let led = leaving.iter().filter(|it| it.leads).map(|it| it.id);
    let led: BTreeSet<_> = led.collect();
    let mut leads = leaders_off_all(marked, &picture);
    leads.retain(|job| led.contains(&job.copyset));
    let mut answer = planned(scene, &leads);
    answer
        .jobs
        .extend(leaving.iter().filter_map(|it| job(scene, it, cause)));
    answer
}

fn job(scene: &Scene<'_>, leaving: &Leaving<'_>, cause: Cause) -> Option<JobInfo> {
    let copyset = scene.state.copysets().get(&leaving.id)?;
    let new = NewJob {
        kind: JobKind::Drain,
        cause,
        copyset: leaving.id,
        conf_epoch: copyset.conf_epoch,
        replica: leaving.replica.id,
        priority: 0,
        bytes: leaving.bytes,
        to: leaving.to,
    };
    let mut info = planned(scene, &[new]).jobs.pop()?;
    info.from = name_of(scene, leaving.replica.chunkserver);
    info.step = leaving.obstacle.map_or("", words).into();
    Some(info)
}
