//! Chunkservers that are about to be stopped for a while: for operators.

use std::collections::BTreeSet;

use ogee_proto::id::ChunkserverId;
use ogee_proto::service::{MaintenanceRequest, MaintenanceResponse};

use super::context::unix_ms;
use super::error::ApiError;
use super::info::{Scene, count};
use super::jobs::{named, picture, without};
use super::topology::TopologyApi;
use super::watch::note;
use crate::state::{BeginMaintenance, Command, EndMaintenance, EventLevel};

impl TopologyApi {
    /// Begins a maintenance or lengthens it, or ends it.
    pub(super) async fn maintain(
        &self,
        request: MaintenanceRequest,
    ) -> Result<MaintenanceResponse, ApiError> {
        let name = request.name.clone();
        let chunkserver = self
            .look(|scene, _| {
                let id = known(scene, &name)?;
                let is_new = scene.state.maintenance(id, unix_ms()).is_none();
                if is_new && !request.cancel {
                    check_quorum(scene, &name)?;
                }
                Ok::<_, ApiError>(id)
            })
            .await??;
        let at_ms = unix_ms();
        let (command, kind, text) = if request.cancel {
            let end = EndMaintenance {
                chunkserver,
                over_by_ms: 0,
            };
            let text = format!("the maintenance of chunkserver \"{name}\" has ended");
            (Command::EndMaintenance(end), "maintenance_ended", text)
        } else {
            let begin = BeginMaintenance {
                chunkserver,
                for_ms: request.for_ms,
                at_ms,
            };
            let seconds = request.for_ms / 1000;
            let text = format!("chunkserver \"{name}\" is in maintenance for {seconds} s");
            (Command::BeginMaintenance(begin), "maintenance_begun", text)
        };
        self.0.write(command).await?;
        note(&self.0, EventLevel::Info, kind, &name, text).await;
        // Leaders leave now, not at the next look.
        self.0.alarm.notify_one();
        self.look_back(|scene| {
            let until_unix_ms = scene.state.maintenance(chunkserver, at_ms);
            MaintenanceResponse {
                until_unix_ms: until_unix_ms.map_or(0, |it| it.until_ms),
                replicas: count(scene.state.hosted(chunkserver).count()),
                online: scene.is_online(chunkserver),
            }
        })
        .await
    }
}

fn known(scene: &Scene<'_>, name: &str) -> Result<ChunkserverId, ApiError> {
    let mut servers = scene.state.chunkservers().iter();
    let found = servers.find(|(_, server)| server.name.as_str() == name);
    let found = found.map(|(id, _)| *id);
    found.ok_or_else(|| ApiError::no_devices(name))
}

/// As for `ok-to-stop`: what is away, or may be stopped at any time, does not count.
fn check_quorum(scene: &Scene<'_>, name: &str) -> Result<(), ApiError> {
    let stores: BTreeSet<_> = named(scene.state, name).into_iter().collect();
    let answer = without(scene.state, &picture(scene), &stores);
    if answer.ok {
        Ok(())
    } else {
        Err(ApiError::no_quorum_without(name, &answer.without_quorum))
    }
}
