//! `Chunkservers`: the data plane registers, heartbeats and takes orders.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ogee_proto::id::{ChunkserverId, CopysetId, ReplicaId, StoreId};
use ogee_proto::name::Name;
use ogee_proto::service::chunkservers_server::Chunkservers;
use ogee_proto::service::order::What;
use ogee_proto::service::{
    ChangeMembers, CreateReplica, HeartbeatRequest, HeartbeatResponse, Order, PeerInfo,
    RegisterRequest, RegisterResponse, RemoveChunks, RemoveReplica, ReplicaName, ResetReplica,
    StoreReport, TransferOrder,
};
use tonic::{Request, Response, Status};

use super::context::{Context, World};
use super::error::ApiError;
use super::info::Scene;
use super::reports::{Taken, Word, class, shard, store_id, take, usages};
use crate::liveness::Heard;
use crate::raft::View;
use crate::scheduler::Planned;
use crate::state::{Command, RegisterChunkserver, Reply, State, StoreSpec};

/// See the module.
pub(crate) struct ChunkserversApi {
    context: Arc<Context>,
    /// Orders carry a number, for people who compare logs.
    orders: AtomicU64,
}

impl ChunkserversApi {
    pub(crate) const fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            orders: AtomicU64::new(0),
        }
    }

    async fn take_registration(
        &self,
        request: RegisterRequest,
    ) -> Result<RegisterResponse, ApiError> {
        let view = self.context.latest().await?;
        let cluster = view
            .state
            .cluster()
            .ok_or_else(ApiError::no_cluster)?
            .id
            .to_string();
        if !request.cluster_id.is_empty() && request.cluster_id != cluster {
            return Err(ApiError::other_cluster(&request.cluster_id, &cluster));
        }
        let command = registration(&request)?;
        if self.is_taken(&view.state, &command) {
            return Err(ApiError::name_in_use(&command.name));
        }
        let heard = Heard {
            endpoints: request.endpoints,
            stores: usages(&request.stores, Instant::now())?,
            replicas: BTreeMap::new(),
            lost: BTreeSet::new(),
            disputed: BTreeSet::new(),
            is_registration: true,
        };
        let reply = self
            .context
            .write(Command::RegisterChunkserver(command))
            .await?;
        let Reply::Chunkserver(id) = reply else {
            unreachable!("invariant: a registration answers with the chunkserver's id");
        };
        self.context
            .world()
            .liveness
            .record(Instant::now(), id, heard);
        let heartbeat_ms = self.context.config.heartbeat.as_millis();
        let mds = view.addresses();
        Ok(RegisterResponse {
            chunkserver: id.get(),
            cluster_id: cluster,
            heartbeat_ms: u64::try_from(heartbeat_ms).unwrap_or(u64::MAX),
            fenced: fenced(&view.state, id),
            mds,
        })
    }

    /// Whether a process of that name, with none of these stores, is online.
    fn is_taken(&self, state: &State, command: &RegisterChunkserver) -> bool {
        let mut known = state.chunkservers().iter();
        let Some((id, record)) = known.find(|(_, c)| c.name == command.name) else {
            return false;
        };
        let world = self.context.world();
        let shares = command.stores.iter().any(|s| record.stores.contains(&s.id));
        let moved = world
            .liveness
            .heard(*id)
            .is_some_and(|h| h.endpoints != command.endpoints);
        let holds = !record.stores.is_empty() && !shares;
        holds && moved && world.liveness.is_online(Instant::now(), *id)
    }

    async fn take_heartbeat(&self, word: Word) -> Result<HeartbeatResponse, ApiError> {
        let request = word.request();
        let id = ChunkserverId::new(request.chunkserver);
        let view = self.context.latest().await?;
        let known = view.state.chunkservers().get(&id);
        if known.is_none_or(|server| server.name.as_str() != request.name) {
            self.forget(&view.state, id);
            return Ok(HeartbeatResponse {
                mds_term: view.term,
                ..HeartbeatResponse::default()
            });
        }
        let (layout, kind) = match &word {
            Word::All(_) => (0, "whole"),
            Word::Changes(changes) => (changes.layout, "changes"),
        };
        let Some(taken) = self.take_word(&view, id, word)? else {
            self.context.metrics.heartbeat("refused");
            return Ok(HeartbeatResponse {
                known: true,
                mds_term: view.term,
                mds: view.addresses(),
                report_all: true,
                ..HeartbeatResponse::default()
            });
        };
        self.context.metrics.heartbeat(kind);
        let place = taken.place;
        let view = if self.confirm(id, taken).await {
            self.context.latest().await?
        } else {
            view
        };
        Ok(self.answer(&view, id, place, layout))
    }

    /// It is none of ours, under that name at least.
    fn forget(&self, state: &State, id: ChunkserverId) {
        if !state.chunkservers().contains_key(&id) {
            let mut world = self.context.world();
            world.liveness.forget_told(id);
            world.desks.clear(id);
        }
    }

    /// Remembers it, and rings when a device has begun to limp. `None`: these are changes to something else than what is
    /// known here, and nothing was taken of them.
    fn take_word(
        &self,
        view: &View,
        id: ChunkserverId,
        word: Word,
    ) -> Result<Option<Taken>, ApiError> {
        let state = &*view.state;
        let mut world = self.context.world();
        let now = Instant::now();
        let taken = take(&mut world, now, (state, view.applied), id, word)?;
        let after_ms = self.context.config.heal.sick.limping_after_ms.max(1);
        let is_news = |store: &StoreId| {
            let slow_ms = world.liveness.paces.verdict(*store).slow_ms;
            slow_ms >= after_ms && state.sick(*store).is_none()
        };
        let heard = world.liveness.heard(id).filter(|_| taken.is_some());
        if heard.is_some_and(|heard| heard.stores.keys().any(is_news)) {
            self.context.alarm.notify_one();
        }
        Ok(taken)
    }

    /// Writes down what the heartbeat proves. A failure is not the chunkserver's: the next
    /// heartbeat proves it again.
    async fn confirm(&self, id: ChunkserverId, taken: Taken) -> bool {
        let commands = taken.commands(id);
        let changed = !commands.is_empty();
        for command in commands {
            if let Err(error) = self.context.write(command).await {
                self.context.world().liveness.look_again(id);
                tracing::warn!(chunkserver = %id, ?error, "a report could not be written down");
            }
        }
        changed
    }

    /// What it knows of `layout` is not told again.
    fn answer(
        &self,
        view: &View,
        id: ChunkserverId,
        (session, report): (u64, u64),
        layout: u64,
    ) -> HeartbeatResponse {
        let now = Instant::now();
        let mut world = self.context.world();
        let World {
            liveness,
            scheduler,
            strangers,
            desks,
        } = &mut *world;
        let volumes = strangers.ask(now, &view.state, id);
        let scene = Scene {
            state: &view.state,
            liveness,
            now,
            rules: &self.context.config.heal,
            strangers,
        };
        let desk = desks.at(&scene, view.applied, id);
        let mut planned = scheduler.orders(now, &view.state, liveness, (id, &desk.affairs));
        if view.state.only_listens() {
            // What was restored may not be so any more: nothing is made, changed or deleted by it.
            planned.retain(|order| matches!(order, Planned::Transfer { .. }));
        }
        let orders = planned
            .into_iter()
            .filter_map(|order| self.order(&scene, order))
            .collect();
        let (mut copysets, mut beside) = (Vec::new(), Vec::new());
        if layout != desk.layout {
            let hosted = view.state.hosted(id);
            copysets = hosted.filter_map(|id| scene.copyset_by_id(id)).collect();
            beside = peers(&scene, id);
        }
        HeartbeatResponse {
            known: true,
            mds_term: view.term,
            orders,
            peers: beside,
            probe: desk.probe.clone(),
            copysets,
            mds: view.addresses(),
            report_volumes: volumes.is_some(),
            volumes_after: volumes.unwrap_or(0),
            session,
            report,
            report_all: false,
            layout: desk.layout,
        }
    }

    fn order(&self, scene: &Scene<'_>, planned: Planned) -> Option<Order> {
        self.context.metrics.order(planned.kind());
        let what = match planned {
            Planned::Create {
                copyset,
                replica,
                store,
                bootstrap,
                replaces,
            } => What::CreateReplica(CreateReplica {
                copyset: Some(scene.copyset_by_id(copyset)?),
                replica: replica.get(),
                store: store.to_string(),
                bootstrap,
                replaces: replaces.map_or(0, ReplicaId::get),
            }),
            Planned::ChangeMembers {
                copyset,
                voters,
                term,
                conf_epoch,
            } => What::ChangeMembers(ChangeMembers {
                copyset: Some(scene.copyset_by_id(copyset)?),
                voters: voters.into_iter().map(ReplicaId::get).collect(),
                term,
                conf_epoch,
            }),
            Planned::Reset {
                copyset,
                from,
                to,
                store,
            } => What::ResetReplica(ResetReplica {
                copyset: Some(scene.copyset_by_id(copyset)?),
                from: from.get(),
                to: to.get(),
                store: store.to_string(),
            }),
            Planned::Remove { copyset, replica } => What::RemoveReplica(RemoveReplica {
                copyset: copyset.get(),
                replica: replica.get(),
            }),
            Planned::Transfer { copyset, to, term } => What::Transfer(TransferOrder {
                copyset: copyset.get(),
                to_replica: to.get(),
                term,
            }),
            Planned::RemoveChunks { volume, copysets } => What::RemoveChunks(RemoveChunks {
                volume: volume.get(),
                copysets: copysets.into_iter().map(CopysetId::get).collect(),
            }),
        };
        let id = self.orders.fetch_add(1, Ordering::Relaxed) + 1;
        Some(Order {
            id,
            what: Some(what),
        })
    }
}

/// Replicas that are no members any more, so that one that was away does not begin by taking part again. The ids are
/// never used again, so this holds whenever it is heard.
fn fenced(state: &State, id: ChunkserverId) -> Vec<ReplicaName> {
    if state.only_listens() {
        return Vec::new();
    }
    let hosted = state.hosted(id);
    let hosted = hosted.filter_map(|copyset| Some((copyset, state.copysets().get(&copyset)?)));
    let names = hosted.flat_map(|(copyset, it)| {
        let mine = it.leaving.iter().filter(|r| r.chunkserver == id);
        mine.map(move |r| ReplicaName {
            copyset: copyset.get(),
            replica: r.id.get(),
        })
    });
    let retired = state.retired_on(id).map(|(copyset, replica)| ReplicaName {
        copyset: copyset.get(),
        replica: replica.get(),
    });
    names.chain(retired).collect()
}

fn peers(scene: &Scene<'_>, id: ChunkserverId) -> Vec<PeerInfo> {
    let info = |id: ChunkserverId| PeerInfo {
        chunkserver: id.get(),
        endpoints: scene.endpoints(id),
    };
    scene.beside(id).into_iter().map(info).collect()
}

fn registration(request: &RegisterRequest) -> Result<RegisterChunkserver, ApiError> {
    let server = if request.server.is_empty() {
        &request.name
    } else {
        &request.server
    };
    Ok(RegisterChunkserver {
        name: Name::new(&request.name)?,
        zone: Name::new(&request.zone)?,
        server: Name::new(server)?,
        endpoints: request.endpoints.clone(),
        stores: request
            .stores
            .iter()
            .map(store_spec)
            .collect::<Result<_, _>>()?,
        version: request.version.clone(),
    })
}

fn store_spec(report: &StoreReport) -> Result<StoreSpec, ApiError> {
    Ok(StoreSpec {
        id: store_id(&report.store)?,
        shard: shard(report)?,
        path: report.path.clone(),
        capacity: report.capacity,
        log_capacity: report.log_capacity,
        class: class(&report.class)?,
    })
}

#[tonic::async_trait]
impl Chunkservers for ChunkserversApi {
    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        let result = self.take_registration(request.into_inner()).await;
        self.context.reply("register", result)
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        let result = self.take_heartbeat(Word::All(request.into_inner())).await;
        self.context.reply("heartbeat", result)
    }

    async fn heartbeat_changes(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        let result = self
            .take_heartbeat(Word::Changes(request.into_inner()))
            .await;
        self.context.reply("heartbeat_changes", result)
    }
}
