//! `Chunkservers`: the data plane registers, heartbeats and takes orders.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ogee_proto::id::{ChunkIndex, ChunkserverId, CopysetId, ReplicaId, StoreId, VolumeId};
use ogee_proto::media::MediaClass;
use ogee_proto::name::Name;
use ogee_proto::service;
use ogee_proto::service::chunkservers_server::Chunkservers;
use ogee_proto::service::order::What;
use ogee_proto::service::{
    ChangeMembers, CreateReplica, HeartbeatRequest, HeartbeatResponse, IoFlow, Order, PeerInfo,
    RegisterRequest, RegisterResponse, RemoveChunks, RemoveReplica, ReplicaName, ReplicaReport,
    ResetReplica, StoreReport, TransferOrder,
};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::context::{Context, World, unix_ms};
use super::error::ApiError;
use super::info::Scene;
use super::strangers::adoptions;
use crate::limit::{LOST_PER_CHUNKSERVER_MAX, STORES_PER_CHUNKSERVER_MAX};
use crate::liveness::{
    Flow, Heard, LostBlocks, ReplicaState, ReplicaStatus, StoreState, StoreUsage,
};
use crate::raft::View;
use crate::scheduler::{Planned, is_tried};
use crate::state::{
    Command, ConfirmChanges, ConfirmRemoval, ConfirmReplicas, RegisterChunkserver, Reply, State,
    StoreSpec,
};

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
            stores: usages(&request.stores)?,
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

    async fn take_heartbeat(
        &self,
        request: HeartbeatRequest,
    ) -> Result<HeartbeatResponse, ApiError> {
        let id = ChunkserverId::new(request.chunkserver);
        let view = self.context.latest().await?;
        let known = view.state.chunkservers().get(&id);
        if known.is_none_or(|server| server.name.as_str() != request.name) {
            return Ok(HeartbeatResponse {
                mds_term: view.term,
                ..HeartbeatResponse::default()
            });
        }
        let heard = heard(&view.state, id, &request)?;
        self.take_word(&view.state, id, heard);
        self.context.metrics.heartbeat();
        let changed = self.confirm(&view.state, id, &request).await;
        let view = if changed {
            self.context.latest().await?
        } else {
            view
        };
        Ok(self.answer(&view, id))
    }

    /// Remembers it, and rings when a device has begun to limp.
    fn take_word(&self, state: &State, id: ChunkserverId, heard: Heard) {
        let stores: Vec<StoreId> = heard.stores.keys().copied().collect();
        let mut world = self.context.world();
        world.liveness.record(Instant::now(), id, heard);
        let after_ms = self.context.config.heal.sick.limping_after_ms.max(1);
        let is_news = |store: &StoreId| {
            let slow_ms = world.liveness.paces.verdict(*store).slow_ms;
            slow_ms >= after_ms && state.sick(*store).is_none()
        };
        if stores.iter().any(is_news) {
            self.context.alarm.notify_one();
        }
    }

    /// Writes down what the heartbeat proves. A failure is not the chunkserver's: the next
    /// heartbeat proves it again.
    async fn confirm(&self, state: &State, id: ChunkserverId, request: &HeartbeatRequest) -> bool {
        let replicas = new_facts(state, id, &request.replicas);
        let removed = request.volumes_removed.iter().map(|id| VolumeId::new(*id));
        let pending = |v: &VolumeId| {
            state
                .garbage()
                .get(v)
                .is_some_and(|g| g.pending.contains(&id))
        };
        let volumes: Vec<VolumeId> = removed.filter(pending).collect();
        let mut commands = adoptions(&self.context, state, id, request);
        let changes = ConfirmChanges {
            changed: changed(state, &request.replicas),
            removed: removed_replicas(state, id, &request.replicas_removed),
            at_ms: unix_ms(),
        };
        if !changes.changed.is_empty() || !changes.removed.is_empty() {
            commands.push(Command::ConfirmChanges(changes));
        }
        if replicas != ConfirmReplicas::default() {
            commands.push(Command::ConfirmReplicas(replicas));
        }
        if !volumes.is_empty() {
            commands.push(Command::ConfirmRemoval(ConfirmRemoval {
                chunkserver: id,
                volumes,
            }));
        }
        let changed = !commands.is_empty();
        for command in commands {
            if let Err(error) = self.context.write(command).await {
                tracing::warn!(chunkserver = %id, ?error, "a report could not be written down");
            }
        }
        changed
    }

    fn answer(&self, view: &View, id: ChunkserverId) -> HeartbeatResponse {
        let now = Instant::now();
        let mut world = self.context.world();
        let World {
            liveness,
            scheduler,
            strangers,
        } = &mut *world;
        let mut planned = scheduler.orders(now, &view.state, liveness, id);
        if view.state.only_listens() {
            // What was restored may not be so any more: nothing is made, changed or deleted by it.
            planned.retain(|order| matches!(order, Planned::Transfer { .. }));
        }
        let volumes = strangers.ask(now, &view.state, id);
        let scene = Scene {
            state: &view.state,
            liveness,
            now,
            rules: &self.context.config.heal,
            strangers,
        };
        let orders = planned
            .into_iter()
            .filter_map(|order| self.order(&scene, order))
            .collect();
        HeartbeatResponse {
            known: true,
            mds_term: view.term,
            orders,
            peers: peers(&scene, id),
            probe: tried(&view.state, id),
            copysets: view
                .state
                .hosted(id)
                .filter_map(|id| scene.copyset_by_id(id))
                .collect(),
            mds: view.addresses(),
            report_volumes: volumes.is_some(),
            volumes_after: volumes.unwrap_or(0),
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
    names.collect()
}

/// Its stores that limp.
fn tried(state: &State, id: ChunkserverId) -> Vec<String> {
    let server = state.chunkservers().get(&id);
    let stores = server.into_iter().flat_map(|server| &server.stores);
    let stores = stores.filter(|store| is_tried(state, **store));
    stores.map(ToString::to_string).collect()
}

/// Every chunkserver that shares a copyset with `id`, itself included.
fn peers(scene: &Scene<'_>, id: ChunkserverId) -> Vec<PeerInfo> {
    let copysets = scene
        .state
        .hosted(id)
        .filter_map(|id| scene.state.copysets().get(&id));
    let servers: BTreeSet<ChunkserverId> = copysets
        .flat_map(|c| c.members().map(|r| r.chunkserver))
        .collect();
    let info = |id: ChunkserverId| PeerInfo {
        chunkserver: id.get(),
        endpoints: scene.endpoints(id),
    };
    servers.into_iter().map(info).collect()
}

/// What the reports prove that the metadata does not say yet.
fn new_facts(state: &State, server: ChunkserverId, reports: &[ReplicaReport]) -> ConfirmReplicas {
    let mut facts = ConfirmReplicas::default();
    for report in reports {
        let (id, replica) = (
            CopysetId::new(report.copyset),
            ReplicaId::new(report.replica),
        );
        let Some(copyset) = state.copysets().get(&id) else {
            continue;
        };
        let mine = copyset
            .members()
            .find(|r| r.id == replica && r.chunkserver == server);
        let Some(mine) = mine else {
            continue;
        };
        // Also one that goes on under a new id.
        if !mine.created || copyset.reset.is_some_and(|reset| reset.to == replica) {
            facts.created.push((id, replica));
        }
        let leader = ReplicaId::new(report.leader_replica);
        if !copyset.formed && copyset.replicas.iter().any(|r| r.id == leader) {
            facts.formed.push(id);
        }
    }
    facts
}

/// Copysets whose wanted voters are committed, whoever says so: the new one's id was never a voter's
/// before.
fn changed(state: &State, reports: &[ReplicaReport]) -> Vec<(CopysetId, ReplicaId)> {
    let mut changed = Vec::new();
    for report in reports {
        let id = CopysetId::new(report.copyset);
        let copyset = state.copysets().get(&id);
        let Some((copyset, change)) = copyset.and_then(|c| Some((c, c.change.as_ref()?))) else {
            continue;
        };
        let voters: BTreeSet<_> = report.voters.iter().map(|id| ReplicaId::new(*id)).collect();
        if voters == copyset.wanted_voters() {
            changed.push((id, change.joining.id));
        }
    }
    changed
}

/// Those of the names that this chunkserver was to delete.
fn removed_replicas(
    state: &State,
    server: ChunkserverId,
    names: &[ReplicaName],
) -> Vec<(CopysetId, ReplicaId)> {
    let names = names.iter();
    let ids = names.map(|name| (CopysetId::new(name.copyset), ReplicaId::new(name.replica)));
    let was_to = |(copyset, replica): &(CopysetId, ReplicaId)| {
        let copyset = state.copysets().get(copyset);
        copyset.is_some_and(|c| {
            let mut leaving = c.leaving.iter();
            leaving.any(|r| r.id == *replica && r.chunkserver == server)
        })
    };
    ids.filter(was_to).collect()
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

/// Empty: not known.
pub(super) fn class(text: &str) -> Result<Option<MediaClass>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = text.parse();
    parsed
        .map(Some)
        .map_err(|_| ApiError::bad_field("class", text, "hdd, ssd or nvme"))
}

fn store_id(text: &str) -> Result<StoreId, ApiError> {
    let parsed = Uuid::parse_str(text).map(StoreId::new);
    parsed.map_err(|_| ApiError::bad_field("store", text, "a store is named by its UUID"))
}

fn shard(report: &StoreReport) -> Result<u16, ApiError> {
    let shard = u16::try_from(report.shard);
    shard.map_err(|_| ApiError::bad_field("shard", &report.shard.to_string(), "at most 65535"))
}

fn usages(reports: &[StoreReport]) -> Result<BTreeMap<StoreId, StoreUsage>, ApiError> {
    let reports = reports.iter().take(STORES_PER_CHUNKSERVER_MAX);
    let usage = |report: &StoreReport| {
        let usage = StoreUsage {
            shard: shard(report)?,
            capacity: report.capacity,
            used: report.used,
            log_capacity: report.log_capacity,
            log_used: report.log_used,
            state: StoreState::parse(&report.state),
            flows: [report.writes, report.flushes, report.reads].map(flow),
            failures: report.failures,
            retired: report.retired_extents,
            scrub: report.scrub,
            compare: report.compare,
            scrub_paused: report.scrub_paused,
            background: report.background,
        };
        Ok((store_id(&report.store)?, usage))
    };
    reports.map(usage).collect()
}

/// What a chunkserver of an older version does not tell is nothing.
fn flow(told: Option<IoFlow>) -> Flow {
    let told = told.unwrap_or_default();
    Flow {
        ops: told.ops,
        bytes: told.bytes,
        waited_ns: told.waited_ns,
    }
}

/// The heartbeat in our words. Replicas that the metadata does not place there are left out, so
/// that what a chunkserver can make us remember is bounded.
fn heard(
    state: &State,
    server: ChunkserverId,
    request: &HeartbeatRequest,
) -> Result<Heard, ApiError> {
    let placed = |report: &&ReplicaReport| {
        let copyset = state.copysets().get(&CopysetId::new(report.copyset));
        let id = ReplicaId::new(report.replica);
        copyset.is_some_and(|c| c.placed().any(|r| r.id == id && r.chunkserver == server))
    };
    let status = |report: &ReplicaReport| {
        let status = ReplicaStatus {
            leader: ReplicaId::new(report.leader_replica),
            term: report.term,
            applied: report.applied,
            last_log: report.last_log,
            state: ReplicaState::parse(&report.state),
            requests: report.requests,
            bytes: report.bytes,
            last_term: report.last_log_term,
            is_led: report.is_led,
        };
        (ReplicaId::new(report.replica), status)
    };
    Ok(Heard {
        endpoints: request.endpoints.clone(),
        stores: usages(&request.stores)?,
        replicas: request.replicas.iter().filter(placed).map(status).collect(),
        lost: named_blocks(state, &request.lost),
        disputed: named_blocks(state, &request.disputed),
        is_registration: false,
    })
}

/// Of volumes that there are, and bounded.
fn named_blocks(state: &State, told: &[service::LostBlocks]) -> BTreeSet<LostBlocks> {
    let told = told.iter().take(LOST_PER_CHUNKSERVER_MAX);
    let blocks = told.map(|told| LostBlocks {
        volume: VolumeId::new(told.volume),
        chunk: ChunkIndex::new(told.chunk),
        first: told.first_block,
        count: told.blocks,
        copyset: CopysetId::new(told.copyset),
    });
    blocks
        .filter(|blocks| state.volumes().contains_key(&blocks.volume))
        .collect()
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
        let result = self.take_heartbeat(request.into_inner()).await;
        self.context.reply("heartbeat", result)
    }
}
