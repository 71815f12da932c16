//! `Topology`: operators.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use ogee_proto::id::{ChunkserverId, CopysetId, ReplicaId, StoreId};
use ogee_proto::media::MediaClass;
use ogee_proto::name::Name;
use ogee_proto::service::topology_server::Topology;
use ogee_proto::service::{
    BalanceLeadersRequest, BalanceReplicasRequest, ClusterStatus, CopysetInfo, CreatePoolRequest,
    DeviceInfo, DevicesName, Empty, JobInfo, JobName, ListCopysetsResponse, ListDevicesResponse,
    ListJobsResponse, ListPoolsResponse, ListServersResponse, ListZonesResponse,
    MaintenanceRequest, MaintenanceResponse, MarkDevicesRequest, MarkDevicesResponse,
    OkToRemoveResponse, OkToStopResponse, PauseJobsRequest, PauseJobsResponse, PoolInfo, PoolName,
    ReinstateDevicesResponse, ReplaceDeviceRequest, ReplaceDeviceResponse, ReplaceReplicaRequest,
    ReplaceReplicaResponse, ResetCopysetRequest, ResetCopysetResponse, ServerInfo, ServerName,
    SetPoolRequest, TransferLeaderRequest, ZoneInfo,
};
use tonic::{Request, Response, Status};

use super::capacity;
use super::context::{Context, unix_ms};
use super::error::ApiError;
use super::info::{Scene, count};
use super::jobs::{etas, picture};
use super::reports::class;
use super::volumes::DEFAULT_POOL;
use crate::health::{self, Severity};
use crate::limit::{COPYSETS_MAX, COPYSETS_PER_COMMAND_MAX, ZONE_POLL};
use crate::liveness::{StoreState, StoreUsage};
use crate::placement::{self, Site};
use crate::raft::View;
use crate::state::{
    Chunkserver, Command, CreateCopysets, CreatePool, Mark, Refusal, RemovePool, ReplaceReplica,
    Replica, Reply, SetPool, State, Store,
};

/// Replicas of a pool whose creator names no number.
const DEFAULT_REPLICAS: u32 = 3;

/// See the module.
pub(crate) struct TopologyApi(pub(crate) Arc<Context>);

impl TopologyApi {
    /// Reads from the latest metadata and the newest reports.
    pub(super) async fn look<T>(
        &self,
        read: impl FnOnce(&Scene<'_>, &View) -> T,
    ) -> Result<T, ApiError> {
        let view = self.0.latest().await?;
        Ok(self.read(&view, |scene| read(scene, &view)))
    }

    /// What a write has made of it that was just answered.
    pub(super) async fn look_back<T>(
        &self,
        read: impl FnOnce(&Scene<'_>) -> T,
    ) -> Result<T, ApiError> {
        let view = self.0.written().await?;
        Ok(self.read(&view, read))
    }

    fn read<T>(&self, view: &View, read: impl FnOnce(&Scene<'_>) -> T) -> T {
        let world = self.0.world();
        read(&Scene {
            state: &view.state,
            liveness: &world.liveness,
            now: Instant::now(),
            rules: &self.0.config.heal,
            strangers: &world.strangers,
        })
    }

    async fn make_pool(&self, request: CreatePoolRequest) -> Result<PoolInfo, ApiError> {
        let name = if request.name.is_empty() {
            DEFAULT_POOL
        } else {
            &request.name
        };
        let asked = if request.replicas == 0 {
            DEFAULT_REPLICAS
        } else {
            request.replicas
        };
        let replicas = u8::try_from(asked).map_err(|_| Refusal::BadReplicas { replicas: asked })?;
        let pool = CreatePool {
            name: Name::new(name)?,
            replicas,
            class: class(&request.class)?,
            scatter_width: request.scatter_width,
        };
        let scatter_width = usize::try_from(request.scatter_width).unwrap_or(usize::MAX);
        let view = self.0.latest().await?;
        view.state.check_pool(&pool)?;
        let sites = (self.wait_for_zones(usize::from(replicas), pool.class)).await?;
        let copysets = match usize::try_from(request.copysets).unwrap_or(COPYSETS_MAX) {
            0 => placement::default_copysets(&sites, usize::from(replicas), scatter_width),
            asked => asked.min(COPYSETS_MAX + 1),
        };
        if view.state.copysets().len() + copysets > COPYSETS_MAX {
            return Err(Refusal::Limit {
                of: "copysets".into(),
                max: COPYSETS_MAX,
            }
            .into());
        }
        let wish = placement::Request {
            replicas: usize::from(replicas),
            copysets,
            scatter_width,
        };
        let placements = placement::plan(&sites, wish);
        let placements = placements.map_err(|error| ApiError::no_placement(&error, pool.class))?;
        self.write_pool(pool, &placements).await?;
        self.told(name).await
    }

    /// A pool as a write has left it.
    async fn told(&self, name: &str) -> Result<PoolInfo, ApiError> {
        self.look_back(|scene| {
            let (id, pool) = scene.state.pool(name)?;
            let mut info = scene.pool_info(id, pool);
            capacity::add(scene, std::slice::from_mut(&mut info));
            Ok(info)
        })
        .await?
    }

    async fn change_pool(&self, request: SetPoolRequest) -> Result<PoolInfo, ApiError> {
        let command = SetPool {
            name: Name::new(&request.name)?,
            allows_volumes: request.allow_volumes,
            quota: request.quota,
            weight: request.weight,
            scatter_width: request.scatter_width,
        };
        self.0.write(Command::SetPool(command)).await?;
        self.told(&request.name).await
    }

    async fn drop_pool(&self, request: PoolName) -> Result<Empty, ApiError> {
        let command = RemovePool {
            name: Name::new(&request.name)?,
            otherwise: Name::new(DEFAULT_POOL)?,
            at_ms: unix_ms(),
        };
        self.0.write(Command::RemovePool(command)).await?;
        Ok(Empty {})
    }

    async fn write_pool(
        &self,
        pool: CreatePool,
        placements: &[Vec<StoreId>],
    ) -> Result<(), ApiError> {
        let Reply::Pool(id) = self.0.write(Command::CreatePool(pool)).await? else {
            unreachable!("invariant: a pool that is made answers with its id");
        };
        let mut existing = 0;
        for part in placements.chunks(COPYSETS_PER_COMMAND_MAX) {
            let command = CreateCopysets {
                pool: id,
                existing,
                placements: part.to_vec(),
            };
            self.0.write_on(Command::CreateCopysets(command)).await?;
            existing += count(part.len());
        }
        Ok(())
    }

    /// Stores that may take replicas, once there are enough zones of them or the wait is over.
    async fn wait_for_zones(
        &self,
        needed: usize,
        class: Option<MediaClass>,
    ) -> Result<Vec<Site>, ApiError> {
        let deadline = Instant::now() + self.0.config.zone_wait;
        loop {
            let sites = self.look(|scene, _| sites(scene, class)).await?;
            let zones: BTreeSet<&Name> = sites.iter().map(|s| &s.zone).collect();
            if zones.len() >= needed || Instant::now() >= deadline {
                return Ok(sites);
            }
            tokio::time::sleep(ZONE_POLL).await;
        }
    }

    async fn transfer(&self, request: TransferLeaderRequest) -> Result<Empty, ApiError> {
        let view = self.0.latest().await?;
        let id = CopysetId::new(request.copyset);
        let copyset = view.state.copysets().get(&id);
        let copyset = copyset.ok_or(Refusal::NoCopyset { copyset: id })?;
        let mut replicas = copyset.replicas.iter();
        let target = if request.to_replica == 0 {
            replicas.next()
        } else {
            replicas.find(|r| r.id == ReplicaId::new(request.to_replica))
        };
        let missing = || ApiError::no_replica(request.copyset, request.to_replica);
        let target = target.ok_or_else(missing)?.id;
        self.0
            .world()
            .scheduler
            .transfer(Instant::now(), id, target)?;
        Ok(Empty {})
    }

    async fn replace(
        &self,
        request: ReplaceReplicaRequest,
    ) -> Result<ReplaceReplicaResponse, ApiError> {
        let (copyset, replica) = (
            CopysetId::new(request.copyset),
            ReplicaId::new(request.replica),
        );
        let store = self
            .look(|scene, _| target(scene, copyset, &request.to))
            .await??;
        let command = ReplaceReplica {
            copyset,
            replica,
            store,
        };
        let reply = self.0.write(Command::ReplaceReplica(command)).await?;
        let Reply::Replica(new) = reply else {
            unreachable!("invariant: a replacement answers with the new replica's id");
        };
        Ok(ReplaceReplicaResponse {
            replica: new.get(),
            store: store.to_string(),
        })
    }

    async fn cluster_status(&self) -> Result<ClusterStatus, ApiError> {
        self.look(status).await
    }
}

/// The store that is meant by a chunkserver's name or its own id.
///
/// One that a replacement under way goes to is found again. A chunkserver serves one replica of a
/// copyset, so one that is served cannot be replaced beside itself.
fn target(scene: &Scene<'_>, copyset: CopysetId, to: &str) -> Result<StoreId, ApiError> {
    let known = scene.state.copysets().get(&copyset);
    let known = known.ok_or(Refusal::NoCopyset { copyset })?;
    let named = |id: StoreId, store: &Store| {
        let server = scene.state.chunkservers().get(&store.chunkserver);
        id.to_string() == to || server.is_some_and(|s| s.name.as_str() == to)
    };
    let (stores, now_ms) = (scene.state.stores().iter(), unix_ms());
    let stores = stores.filter(|(id, store)| named(**id, store));
    let usable = stores.filter_map(|(id, store)| {
        let usage = usage(scene, *id, store)?;
        let free = usage.capacity.saturating_sub(usage.used);
        let stays = scene.state.maintenance(store.chunkserver, now_ms).is_none();
        let fits = scene.state.is_of_class(*id, known.pool);
        (usage.state == StoreState::Ok && stays && fits).then_some((free, *id, store.chunkserver))
    });
    let usable: Vec<_> = usable.collect();
    let under_way = known.change.as_ref().map(|change| change.joining.store);
    if let Some(store) = under_way.filter(|s| usable.iter().any(|(_, id, _)| id == s)) {
        return Ok(store);
    }
    let Some((_, store, server)) = usable.into_iter().max_by_key(|(free, ..)| *free) else {
        return Err(ApiError::no_store(to));
    };
    let beside = known.members().filter(|r| r.chunkserver == server);
    let serves = |r: &Replica| {
        let status = scene.liveness.replica(scene.now, server, r.id);
        status.is_some_and(|s| s.state.serves())
    };
    match beside.into_iter().find(|r| serves(r)) {
        Some(other) => Err(ApiError::replica_there(to, copyset, other.id)),
        None => Ok(store),
    }
}

/// Of that class only, if one is named.
fn sites(scene: &Scene<'_>, class: Option<MediaClass>) -> Vec<Site> {
    let mut carried: BTreeMap<StoreId, (u64, u64)> = BTreeMap::new();
    for copyset in scene.state.copysets().values() {
        for (at, replica) in copyset.replicas.iter().enumerate() {
            let (replicas, leaders) = carried.entry(replica.store).or_default();
            *replicas += 1;
            *leaders += u64::from(at == 0);
        }
    }
    let (stores, now_ms) = (scene.state.stores().iter(), unix_ms());
    let usable = stores.filter_map(|(id, store)| {
        let usage = usage(scene, *id, store)?;
        let server = scene.state.chunkservers().get(&store.chunkserver)?;
        let (replicas, leaders) = carried.get(id).copied().unwrap_or_default();
        let stays = scene.state.mark(*id).is_none()
            && scene.state.sick(*id).is_none()
            && scene.state.store_maintenance(*id, now_ms).is_none();
        let is_fit =
            usage.state == StoreState::Ok && stays && (class.is_none() || store.class == class);
        is_fit.then(|| Site {
            store: *id,
            chunkserver: store.chunkserver,
            zone: server.zone.clone(),
            weight: store.capacity,
            replicas,
            leaders,
        })
    });
    usable.collect()
}

/// The newest report of a store whose chunkserver is online.
fn usage<'a>(scene: &Scene<'a>, id: StoreId, store: &Store) -> Option<&'a StoreUsage> {
    let online = scene.is_online(store.chunkserver);
    let heard = scene.liveness.heard(store.chunkserver).filter(|_| online)?;
    heard.stores.get(&id)
}

fn status(scene: &Scene<'_>, view: &View) -> ClusterStatus {
    let state = scene.state;
    let conditions = health::assess(&health::Sight {
        state,
        liveness: scene.liveness,
        now: scene.now,
        picture: &picture(scene),
        rules: scene.rules,
        strangers: scene.strangers,
    });
    let worst = conditions.iter().map(|c| c.severity).max();
    let usages = state
        .stores()
        .iter()
        .filter_map(|(id, store)| usage(scene, *id, store));
    let (mut capacity, mut used) = (0u64, 0u64);
    for usage in usages {
        capacity = capacity.saturating_add(usage.capacity);
        used = used.saturating_add(usage.used);
    }
    ClusterStatus {
        health: worst.map_or("OK", Severity::as_str).into(),
        codes: conditions.into_iter().map(Into::into).collect(),
        servers: count(state.chunkservers().len()),
        servers_online: count(
            state
                .chunkservers()
                .keys()
                .filter(|id| scene.is_online(**id))
                .count(),
        ),
        volumes: count(state.volumes().len()),
        copysets: count(state.copysets().len()),
        copysets_ready: count(state.copysets().values().filter(|c| c.formed).count()),
        capacity,
        used,
        mds_leader: view.leader.unwrap_or(0),
        mds_count: count(view.addresses().len()),
        version: env!("CARGO_PKG_VERSION").into(),
    }
}

fn zones(scene: &Scene<'_>) -> ListZonesResponse {
    let mut zones: BTreeMap<&Name, ZoneInfo> = BTreeMap::new();
    for (id, server) in scene.state.chunkservers() {
        let zone = zones.entry(&server.zone).or_insert_with(|| ZoneInfo {
            name: server.zone.to_string(),
            ..ZoneInfo::default()
        });
        zone.servers += 1;
        zone.servers_online += u32::from(scene.is_online(*id));
    }
    ListZonesResponse {
        zones: zones.into_values().collect(),
    }
}

fn servers(scene: &Scene<'_>) -> ListServersResponse {
    let mut led: BTreeMap<ChunkserverId, u32> = BTreeMap::new();
    for copyset in scene.state.copysets().values() {
        let leader = scene.liveness.leader(scene.now, copyset);
        let replica = leader.and_then(|l| copyset.replicas.iter().find(|r| r.id == l.replica));
        if let Some(replica) = replica {
            *led.entry(replica.chunkserver).or_default() += 1;
        }
    }
    let info = |(id, server): (&ChunkserverId, &Chunkserver)| ServerInfo {
        chunkserver: id.get(),
        name: server.name.to_string(),
        zone: server.zone.to_string(),
        server: server.server.to_string(),
        online: scene.is_online(*id),
        endpoints: scene.endpoints(*id),
        version: server.version.clone(),
        last_heartbeat_ms_ago: scene
            .liveness
            .silence(scene.now, *id)
            .map_or(u64::MAX, |s| {
                u64::try_from(s.as_millis()).unwrap_or(u64::MAX)
            }),
        leaders: led.get(id).copied().unwrap_or(0),
        replicas: count(replicas_on(scene.state, |r| r.chunkserver == *id)),
        state: scene.presence(*id).into(),
        absent_since_unix_ms: away_since(scene.state, &server.stores),
        mark: server_mark(scene.state, *id, server).into(),
        maintenance_until_unix_ms: (scene.state.maintenance(*id, unix_ms()))
            .map_or(0, |it| it.until_ms),
    };
    ListServersResponse {
        servers: scene.state.chunkservers().iter().map(info).collect(),
    }
}

fn devices(scene: &Scene<'_>) -> ListDevicesResponse {
    let info = |(id, store): (&StoreId, &Store)| {
        let heard = scene
            .liveness
            .heard(store.chunkserver)
            .and_then(|h| h.stores.get(id));
        let (scrub, compare) = (scene.liveness)
            .scrubs(store.chunkserver, *id)
            .unwrap_or_default();
        let server = scene.state.chunkservers().get(&store.chunkserver);
        let sick = scene.state.sick(*id);
        let [write_us, flush_us, read_us] = scene.liveness.paces.latencies(*id).map(|ns| ns / 1000);
        DeviceInfo {
            store: id.to_string(),
            chunkserver: store.chunkserver.get(),
            chunkserver_name: server.map_or_else(String::new, |s| s.name.to_string()),
            path: store.path.clone(),
            class: store
                .class
                .map_or_else(String::new, |class| class.to_string()),
            capacity: heard.map_or(store.capacity, |u| u.capacity),
            used: heard.map_or(0, |u| u.used),
            log_capacity: heard.map_or(store.log_capacity, |u| u.log_capacity),
            log_used: heard.map_or(0, |u| u.log_used),
            state: heard.map_or("missing", |u| u.state.as_str()).into(),
            shard: heard.map_or(store.shard, |u| u.shard).into(),
            online: usage(scene, *id, store).is_some(),
            mark: device_mark(scene.state, *id).into(),
            replicas: count(replicas_on(scene.state, |r| r.store == *id)),
            absent_since_unix_ms: scene.state.away_since(*id).unwrap_or(0),
            sick: sick.map_or("", |sick| sick.stage.as_str()).into(),
            sick_since_unix_ms: sick.map_or(0, |sick| sick.since_ms),
            write_latency_us: write_us,
            flush_latency_us: flush_us,
            read_latency_us: read_us,
            failures: heard.map_or(0, |u| u.failures),
            retired_extents: heard.map_or(0, |u| u.retired),
            scrub,
            compare,
            scrub_paused: heard.is_some_and(|u| u.scrub_paused),
            background: heard.and_then(|u| u.background),
            drive: heard.and_then(|u| u.drive),
            drive_unknown: heard.map_or(0, |u| u.drive_unknown),
            repairs: heard.map(|u| u.repairs),
            light: heard.and_then(|u| u.light),
            replaced_by: scene
                .state
                .successor(*id)
                .map_or_else(String::new, |new| new.to_string()),
        }
    };
    ListDevicesResponse {
        devices: scene.state.stores().iter().map(info).collect(),
    }
}

/// Replicas that copysets count on, those that are about to join included.
fn replicas_on(state: &State, here: impl Fn(&Replica) -> bool) -> usize {
    let members = state.copysets().values().flat_map(|c| c.members());
    members.filter(|r| here(r)).count()
}

/// The wish for a device; `empty` once a drain has come to its end.
fn device_mark(state: &State, store: StoreId) -> &'static str {
    match state.mark(store) {
        Some(Mark::Draining) if replicas_on(state, |r| r.store == store) == 0 => "empty",
        Some(mark) => mark.as_str(),
        None => "",
    }
}

/// The wish for all of a chunkserver's devices, if they share one.
fn server_mark(state: &State, id: ChunkserverId, server: &Chunkserver) -> &'static str {
    let mut marks = server.stores.iter().map(|store| state.mark(*store));
    let Some(Some(first)) = marks.next() else {
        return "";
    };
    match first {
        _ if marks.any(|mark| mark != Some(first)) => "",
        Mark::Draining if replicas_on(state, |r| r.chunkserver == id) == 0 => "empty",
        mark => mark.as_str(),
    }
}

fn away_since(state: &State, stores: &BTreeSet<StoreId>) -> u64 {
    let since = stores.iter().filter_map(|store| state.away_since(*store));
    since.min().unwrap_or(0)
}

fn pools(state: &State, scene: &Scene<'_>) -> ListPoolsResponse {
    let pools = state.pools().iter();
    let mut pools: Vec<PoolInfo> = pools.map(|(id, pool)| scene.pool_info(*id, pool)).collect();
    capacity::add(scene, &mut pools);
    ListPoolsResponse { pools }
}

fn copysets(scene: &Scene<'_>) -> ListCopysetsResponse {
    let copysets = scene.state.copysets().iter();
    let mut copysets: Vec<CopysetInfo> = copysets
        .map(|(id, copyset)| scene.copyset_info(*id, copyset))
        .collect();
    let moves = etas(scene);
    for replica in copysets.iter_mut().flat_map(|it| &mut it.replicas) {
        let id = ReplicaId::new(replica.id);
        // What a copy lacks is not told by log entries.
        let is_chasing = replica.state != "installing";
        let left = scene.liveness.chases.left(id).filter(|_| is_chasing);
        let left_ms = left.and_then(|left| u64::try_from(left.as_millis()).ok());
        replica.eta_ms = left_ms.or_else(|| moves.get(&id).copied());
    }
    ListCopysetsResponse { copysets }
}

#[tonic::async_trait]
impl Topology for TopologyApi {
    async fn create_pool(
        &self,
        request: Request<CreatePoolRequest>,
    ) -> Result<Response<PoolInfo>, Status> {
        self.0
            .reply("create_pool", self.make_pool(request.into_inner()).await)
    }

    async fn set_pool(
        &self,
        request: Request<SetPoolRequest>,
    ) -> Result<Response<PoolInfo>, Status> {
        let result = self.change_pool(request.into_inner()).await;
        self.0.reply("set_pool", result)
    }

    async fn remove_pool(&self, request: Request<PoolName>) -> Result<Response<Empty>, Status> {
        let result = self.drop_pool(request.into_inner()).await;
        self.0.reply("remove_pool", result)
    }

    async fn list_pools(&self, _: Request<Empty>) -> Result<Response<ListPoolsResponse>, Status> {
        self.0.reply(
            "list_pools",
            self.look(|scene, _| pools(scene.state, scene)).await,
        )
    }

    async fn list_zones(&self, _: Request<Empty>) -> Result<Response<ListZonesResponse>, Status> {
        self.0
            .reply("list_zones", self.look(|scene, _| zones(scene)).await)
    }

    async fn list_servers(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<ListServersResponse>, Status> {
        self.0
            .reply("list_servers", self.look(|scene, _| servers(scene)).await)
    }

    async fn list_devices(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<ListDevicesResponse>, Status> {
        self.0
            .reply("list_devices", self.look(|scene, _| devices(scene)).await)
    }

    async fn list_copysets(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<ListCopysetsResponse>, Status> {
        self.0
            .reply("list_copysets", self.look(|scene, _| copysets(scene)).await)
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<Empty>, Status> {
        self.0
            .reply("transfer_leader", self.transfer(request.into_inner()).await)
    }

    async fn replace_replica(
        &self,
        request: Request<ReplaceReplicaRequest>,
    ) -> Result<Response<ReplaceReplicaResponse>, Status> {
        self.0
            .reply("replace_replica", self.replace(request.into_inner()).await)
    }

    async fn reset_copyset(
        &self,
        request: Request<ResetCopysetRequest>,
    ) -> Result<Response<ResetCopysetResponse>, Status> {
        let result = self.reset(request.into_inner()).await;
        self.0.reply("reset_copyset", result)
    }

    async fn mark_devices(
        &self,
        request: Request<MarkDevicesRequest>,
    ) -> Result<Response<MarkDevicesResponse>, Status> {
        self.0
            .reply("mark_devices", self.mark(request.into_inner()).await)
    }

    async fn ok_to_stop(
        &self,
        request: Request<DevicesName>,
    ) -> Result<Response<OkToStopResponse>, Status> {
        self.0
            .reply("ok_to_stop", self.may_stop(request.into_inner()).await)
    }

    async fn ok_to_stop_zone(
        &self,
        request: Request<DevicesName>,
    ) -> Result<Response<OkToStopResponse>, Status> {
        let result = self.may_stop_zone(request.into_inner()).await;
        self.0.reply("ok_to_stop_zone", result)
    }

    async fn ok_to_remove(
        &self,
        request: Request<DevicesName>,
    ) -> Result<Response<OkToRemoveResponse>, Status> {
        let result = self.may_remove(request.into_inner()).await;
        self.0.reply("ok_to_remove", result)
    }

    async fn plan_drain(
        &self,
        request: Request<DevicesName>,
    ) -> Result<Response<ListJobsResponse>, Status> {
        let result = TopologyApi::plan_drain(self, request.into_inner()).await;
        self.0.reply("plan_drain", result)
    }

    async fn plan_replacement(
        &self,
        request: Request<ReplaceDeviceRequest>,
    ) -> Result<Response<ListJobsResponse>, Status> {
        let result = TopologyApi::plan_replacement(self, request.into_inner()).await;
        self.0.reply("plan_replacement", result)
    }

    async fn set_maintenance(
        &self,
        request: Request<MaintenanceRequest>,
    ) -> Result<Response<MaintenanceResponse>, Status> {
        let result = self.maintain(request.into_inner()).await;
        self.0.reply("set_maintenance", result)
    }

    async fn reinstate_devices(
        &self,
        request: Request<DevicesName>,
    ) -> Result<Response<ReinstateDevicesResponse>, Status> {
        let result = self.reinstate(request.into_inner()).await;
        self.0.reply("reinstate_devices", result)
    }

    async fn replace_device(
        &self,
        request: Request<ReplaceDeviceRequest>,
    ) -> Result<Response<ReplaceDeviceResponse>, Status> {
        let result = TopologyApi::replace_device(self, request.into_inner()).await;
        self.0.reply("replace_device", result)
    }

    async fn remove_server(&self, request: Request<ServerName>) -> Result<Response<Empty>, Status> {
        let result = self.forget_server(request.into_inner()).await;
        self.0.reply("remove_server", result)
    }

    async fn list_jobs(&self, _: Request<Empty>) -> Result<Response<ListJobsResponse>, Status> {
        self.0.reply("list_jobs", self.jobs().await)
    }

    async fn cancel_job(&self, request: Request<JobName>) -> Result<Response<JobInfo>, Status> {
        self.0
            .reply("cancel_job", self.cancel(request.into_inner()).await)
    }

    async fn pause_jobs(
        &self,
        request: Request<PauseJobsRequest>,
    ) -> Result<Response<PauseJobsResponse>, Status> {
        let result = self.hold_jobs(request.into_inner()).await;
        self.0.reply("pause_jobs", result)
    }

    async fn balance_leaders(
        &self,
        request: Request<BalanceLeadersRequest>,
    ) -> Result<Response<ListJobsResponse>, Status> {
        let result = self.even_leaders(request.into_inner()).await;
        self.0.reply("balance_leaders", result)
    }

    async fn balance_replicas(
        &self,
        request: Request<BalanceReplicasRequest>,
    ) -> Result<Response<ListJobsResponse>, Status> {
        let result = self.even_devices(request.into_inner()).await;
        self.0.reply("balance_replicas", result)
    }

    async fn status(&self, _: Request<Empty>) -> Result<Response<ClusterStatus>, Status> {
        self.0.reply("status", self.cluster_status().await)
    }
}
