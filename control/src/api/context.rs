//! What all handlers share.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;
use tonic::{Response, Status};

use super::desk::Desks;
use super::error::ApiError;
use super::watch::Notes;
use crate::liveness::{Liveness, Strangers};
use crate::metrics::Metrics;
use crate::raft::{Consistency, RaftClient, Unavailable, View, WriteError};
use crate::scheduler::{HealRules, Scheduler};
use crate::state::{Command, Reply};

/// What the handlers are configured with.
#[derive(Clone, Debug)]
pub(crate) struct ApiConfig {
    /// This member.
    pub(crate) id: u64,
    /// What it understands of the metadata's commands.
    pub(crate) version: u32,
    /// Name of the cluster: Raft messages carry it.
    pub(crate) cluster: String,
    /// How often chunkservers heartbeat.
    pub(crate) heartbeat: Duration,
    /// A chunkserver silent for so long is offline.
    pub(crate) offline: Duration,
    /// How long making a pool waits for zones.
    pub(crate) zone_wait: Duration,
    /// When and how much is healed.
    pub(crate) heal: HealRules,
}

/// Milliseconds since 1970.
pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What is known of the world beside the metadata.
pub(crate) struct World {
    pub(crate) liveness: Liveness,
    pub(crate) scheduler: Scheduler,
    /// What chunkservers hold and the metadata does not know.
    pub(crate) strangers: Strangers,
    /// What each chunkserver is to be told.
    pub(crate) desks: Desks,
}

/// See the module.
pub(crate) struct Context {
    pub(crate) config: ApiConfig,
    pub(crate) raft: RaftClient,
    pub(crate) metrics: Metrics,
    /// Rung when a device has begun to limp: what is to be done should not wait for the next look.
    pub(crate) alarm: Notify,
    /// Events of the handlers.
    pub(crate) notes: Notes,
    world: Mutex<World>,
}

impl Context {
    pub(crate) fn new(config: ApiConfig, raft: RaftClient) -> Self {
        let bounds = config.heal.sick.bounds(config.offline);
        let liveness = Liveness::new(config.offline, bounds);
        let world = Mutex::new(World {
            liveness,
            scheduler: Scheduler::default(),
            strangers: Strangers::default(),
            desks: Desks::default(),
        });
        Self {
            config,
            raft,
            metrics: Metrics::new(),
            alarm: Notify::new(),
            notes: Notes::default(),
            world,
        }
    }

    /// The world, for a moment: never held across an await. A handler that panicked while it
    /// held it left whole values behind, since each change is one insertion.
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The metadata with every acknowledged write in it.
    pub(crate) async fn latest(&self) -> Result<View, Unavailable> {
        self.raft.view(Consistency::Latest).await
    }

    /// The metadata after a write that this one has answered, with that in it. Nothing that goes wrong
    /// here may read as if the write had not been carried out: it would be asked for again.
    pub(crate) async fn written(&self) -> Result<View, Unavailable> {
        let view = self.raft.view(Consistency::Local).await;
        view.map_err(|_| Unavailable::Unknown)
    }

    pub(crate) async fn write(&self, command: Command) -> Result<Reply, ApiError> {
        Ok(self.counted(command).await?)
    }

    /// A further write of a request of which a part was carried out: whatever keeps it from being done, the request
    /// is not one that was not.
    pub(crate) async fn write_on(&self, command: Command) -> Result<Reply, ApiError> {
        let reply = self.counted(command).await;
        Ok(reply.map_err(|error| match error {
            WriteError::Unavailable(_) => Unavailable::Unknown.into(),
            refused @ (WriteError::Refused(_) | WriteError::Older(_)) => refused,
        })?)
    }

    async fn counted(&self, command: Command) -> Result<Reply, WriteError> {
        let kind = command.kind();
        let reply = self.raft.write(command).await;
        self.metrics.command(kind, reply.is_ok());
        reply
    }

    /// Counts a request and turns its result into gRPC's.
    pub(crate) fn reply<T>(
        &self,
        method: &'static str,
        result: Result<T, ApiError>,
    ) -> Result<Response<T>, Status> {
        let code = result
            .as_ref()
            .err()
            .map_or(tonic::Code::Ok, ApiError::grpc);
        self.metrics.request(method, code);
        if let Err(error) = &result {
            tracing::debug!(method, ?error, "refused");
        }
        Ok(Response::new(result?))
    }
}
