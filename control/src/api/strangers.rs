//! What a restore leaves to an operator: what chunkservers hold that the metadata does not know, and
//! the word that all is as it should be.

use ogee_proto::id::{ChunkserverId, VolumeId};
use ogee_proto::service::{
    AcceptRestoreRequest, DiscardVolumeRequest, Empty, ListStrangersResponse, RestoreInfo,
    StrangeReplica, StrangeVolume, VolumeHeld,
};
use std::time::Instant;

use super::error::ApiError;
use super::members::MembersApi;
use super::watch::note;
use crate::state::{Command, DiscardVolume, EventLevel, State};

impl MembersApi {
    pub(super) async fn strangers(&self) -> Result<ListStrangersResponse, ApiError> {
        let view = self.0.latest().await?;
        let state = &view.state;
        let world = self.0.world();
        let volumes = world.strangers.volumes(state).into_iter();
        let volumes = volumes.map(|(id, volume)| StrangeVolume {
            held: Some(VolumeHeld {
                volume: id.get(),
                chunks: u32::try_from(volume.chunks).unwrap_or(u32::MAX),
                epoch: volume.epoch,
                removed: volume.is_removed,
                copysets: volume.copysets.iter().map(|id| id.get()).collect(),
            }),
            chunkservers: volume.servers.iter().map(|id| name(state, *id)).collect(),
            name: state
                .volumes()
                .get(&id)
                .map_or_else(String::new, |it| it.name.to_string()),
        });
        let replicas = world.strangers.replicas(state);
        let replicas = replicas.map(|(server, it)| StrangeReplica {
            copyset: it.copyset.get(),
            replica: it.replica.get(),
            chunkserver: name(state, server),
            store: it.store.to_string(),
            copyset_known: state.copysets().contains_key(&it.copyset),
        });
        let not_heard = match state.restored() {
            Some(_) => world.strangers.not_heard(state),
            None => Vec::new(),
        };
        Ok(ListStrangersResponse {
            volumes: volumes.collect(),
            replicas: replicas.collect(),
            restore: state.restored().map(|it| RestoreInfo {
                backup_unix_ms: it.backup_ms,
                restored_unix_ms: it.restored_ms,
                applied: it.applied,
                accepted: it.accepted,
            }),
            not_heard: not_heard.into_iter().map(|id| name(state, id)).collect(),
        })
    }

    pub(super) async fn discard(&self, request: DiscardVolumeRequest) -> Result<Empty, ApiError> {
        let view = self.0.latest().await?;
        let id = VolumeId::new(request.volume);
        let found = self.0.world().strangers.volumes(&view.state).remove(&id);
        if view.state.garbage().contains_key(&id) {
            return Ok(Empty {});
        }
        let copysets = match found {
            Some(found) => found.copysets,
            // One that is known is refused by the state machine, in its words.
            None if view.state.volumes().contains_key(&id) => Default::default(),
            None => return Err(ApiError::no_stranger(request.volume)),
        };
        let command = DiscardVolume {
            volume: id,
            copysets,
        };
        self.0.write(Command::DiscardVolume(command)).await?;
        let (subject, text) = (
            request.volume.to_string(),
            format!("volume {} is discarded", request.volume),
        );
        note(
            &self.0,
            EventLevel::Warn,
            "volume_discarded",
            &subject,
            text,
        )
        .await;
        Ok(Empty {})
    }

    pub(super) async fn accept(&self, request: AcceptRestoreRequest) -> Result<Empty, ApiError> {
        let view = self.0.latest().await?;
        let missing = {
            let world = self.0.world();
            let now = Instant::now();
            let servers = view.state.chunkservers().keys().copied();
            let silent = servers.filter(|id| !world.liveness.is_online(now, *id));
            let mut missing: Vec<ChunkserverId> = silent.collect();
            missing.extend(world.strangers.not_heard(&view.state));
            missing.sort_unstable();
            missing.dedup();
            missing
        };
        if view.state.only_listens() && !request.force && !missing.is_empty() {
            let missing = missing.into_iter().map(|id| name(&view.state, id));
            return Err(ApiError::not_all_heard(&missing.collect::<Vec<_>>()));
        }
        self.0.write(Command::AcceptRestore).await?;
        let text = "the restored metadata was accepted".to_owned();
        note(&self.0, EventLevel::Info, "restore_accepted", "", text).await;
        Ok(Empty {})
    }
}

fn name(state: &State, id: ChunkserverId) -> String {
    let server = state.chunkservers().get(&id);
    server.map_or_else(|| id.to_string(), |server| server.name.to_string())
}
