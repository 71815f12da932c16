//! A cluster of one metadata server and chunkservers that do nothing but register, heartbeat and
//! carry out orders: what the data plane looks like from the metadata server.

#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, reason = "test code outside test functions")]

pub mod group;
pub mod small;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use ogee_control::{Mds, MdsConfig, MdsHandle};
use ogee_proto::fault::Fault;
use ogee_proto::heartbeat::{Answered, Teller};
use ogee_proto::service::chunkservers_client::ChunkserversClient;
use ogee_proto::service::order::What;
use ogee_proto::service::topology_client::TopologyClient;
use ogee_proto::service::volumes_client::VolumesClient;
use ogee_proto::service::{
    ClusterStatus, CreatePoolRequest, CreateVolumeRequest, Empty, HeartbeatRequest,
    HeartbeatResponse, LostBlocks, RegisterRequest, RemoveVolumeRequest, ReplicaName,
    ReplicaReport, StoreReport, VolumeHeld, VolumeName,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// Long enough for any loaded machine; nothing waits for it when all is well.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub fn config(dir: &Path) -> MdsConfig {
    let mut config = MdsConfig::new(dir.to_owned(), any_port());
    config.metrics_listen = Some(any_port());
    config.zone_wait_ms = 200;
    config
}

pub async fn stop(mds: MdsHandle) {
    tokio::task::spawn_blocking(move || mds.stop())
        .await
        .unwrap()
        .unwrap();
}

pub async fn channel(addr: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).unwrap();
    endpoint
        .connect_timeout(Duration::from_secs(1))
        .connect_lazy()
}

pub async fn volumes(mds: &MdsHandle) -> VolumesClient<Channel> {
    VolumesClient::new(channel(&mds.addr().to_string()).await)
}

pub async fn topology(mds: &MdsHandle) -> TopologyClient<Channel> {
    TopologyClient::new(channel(&mds.addr().to_string()).await)
}

/// The fault that a refused request carries.
pub fn fault<T: std::fmt::Debug>(result: Result<T, Status>) -> Fault {
    let status = result.expect_err("a refusal");
    Fault::parse(status.message()).unwrap_or_else(|| panic!("no fault: {status:?}"))
}

/// Tries until `attempt` gives something.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = attempt().await {
            return found;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn named(name: &str) -> VolumeName {
    VolumeName { name: name.into() }
}

pub fn removal(name: &str) -> RemoveVolumeRequest {
    RemoveVolumeRequest {
        name: name.into(),
        ..RemoveVolumeRequest::default()
    }
}

pub fn new_volume(name: &str, size: u64) -> CreateVolumeRequest {
    CreateVolumeRequest {
        name: name.into(),
        size,
        ..CreateVolumeRequest::default()
    }
}

/// A replica as the chunkserver holds it.
#[derive(Clone, Debug)]
pub struct Held {
    pub replica: u64,
    pub leader: u64,
    pub term: u64,
    pub voters: Vec<u64>,
    pub state: &'static str,
}

/// A chunkserver seen from outside.
pub struct Chunkserver {
    pub id: u32,
    pub name: String,
    pub cluster: String,
    pub replicas: BTreeMap<u32, Held>,
    pub bootstrapped: Vec<u32>,
    pub removed: Vec<u64>,
    pub replicas_removed: Vec<ReplicaName>,
    pub changes: u32,
    pub store_state: &'static str,
    pub lost: Vec<LostBlocks>,
    pub disputed: Vec<LostBlocks>,
    /// What it lists when it is asked.
    pub volumes: Vec<VolumeHeld>,
    /// Of its replicas, in reports.
    pub replica_store: String,
    pub registration: RegisterRequest,
    /// It tells what has changed, as far as it is let; else all, as an old one does.
    pub tells_changes: bool,
    listing: bool,
    client: ChunkserversClient<Channel>,
    teller: Teller,
    began: Instant,
}

pub fn registration(name: &str, zone: &str, stores: &[&str]) -> RegisterRequest {
    let report = |(at, store): (usize, &&str)| StoreReport {
        store: (*store).into(),
        shard: u32::try_from(at).unwrap(),
        path: format!("/dev/disk{at}"),
        capacity: 1 << 40,
        used: 1 << 30,
        log_capacity: 1 << 30,
        log_used: 0,
        state: "ok".into(),
        ..StoreReport::default()
    };
    RegisterRequest {
        name: name.into(),
        zone: zone.into(),
        server: format!("host-{name}"),
        endpoints: (0..stores.len())
            .map(|at| format!("10.0.0.1:{}", 7000 + at))
            .collect(),
        stores: stores.iter().enumerate().map(report).collect(),
        version: "test".into(),
        cluster_id: String::new(),
    }
}

/// A store's UUID made from small numbers.
pub fn store(server: u8, at: u8) -> String {
    format!("00000000-0000-0000-{server:04x}-{at:012x}")
}

impl Chunkserver {
    pub async fn register(addr: &str, registration: RegisterRequest) -> Result<Self, Status> {
        let mut client = ChunkserversClient::new(channel(addr).await);
        let reply = client.register(registration.clone()).await?.into_inner();
        Ok(Self {
            id: reply.chunkserver,
            name: registration.name.clone(),
            cluster: reply.cluster_id,
            replicas: BTreeMap::new(),
            bootstrapped: Vec::new(),
            removed: Vec::new(),
            replicas_removed: Vec::new(),
            changes: 0,
            store_state: "ok",
            lost: Vec::new(),
            disputed: Vec::new(),
            volumes: Vec::new(),
            replica_store: String::new(),
            registration,
            tells_changes: true,
            listing: false,
            client,
            teller: Teller::default(),
            began: Instant::now(),
        })
    }

    /// The store on that shard has done so many writes, each of which took so many milliseconds.
    pub fn wrote(&mut self, shard: usize, ops: u64, each_ms: u64) {
        let flow = self.registration.stores[shard]
            .writes
            .get_or_insert_default();
        flow.ops += ops;
        flow.bytes += ops * 4096;
        flow.waited_ns += ops * each_ms * 1_000_000;
    }

    /// Heartbeats and carries the orders out.
    pub async fn beat(&mut self) -> HeartbeatResponse {
        let replicas = self.replicas.iter().map(|(copyset, held)| ReplicaReport {
            copyset: *copyset,
            replica: held.replica,
            leader_replica: held.leader,
            term: held.term,
            applied: 5,
            last_log: 6,
            voters: held.voters.clone(),
            state: held.state.into(),
            store: self.replica_store.clone(),
            ..ReplicaReport::default()
        });
        let mut stores = self.registration.stores.clone();
        stores
            .iter_mut()
            .for_each(|s| s.state = self.store_state.into());
        let request = HeartbeatRequest {
            chunkserver: self.id,
            name: self.name.clone(),
            stores,
            replicas: replicas.collect(),
            endpoints: self.registration.endpoints.clone(),
            volumes_removed: self.removed.clone(),
            replicas_removed: std::mem::take(&mut self.replicas_removed),
            lost: self.lost.clone(),
            disputed: self.disputed.clone(),
            volumes_reported: self.listing,
            volumes: if self.listing {
                self.volumes.clone()
            } else {
                Vec::new()
            },
            ..HeartbeatRequest::default()
        };
        let response = self.tell(request).await;
        self.listing = response.report_volumes;
        for order in &response.orders {
            self.carry_out(order.what.clone().expect("an order says what"));
        }
        response
    }

    /// As `dataplane/shard` does.
    async fn tell(&mut self, all: HeartbeatRequest) -> HeartbeatResponse {
        let now = self.began.elapsed();
        let changes = self
            .teller
            .changes(&all, now)
            .filter(|_| self.tells_changes);
        if let Some(changes) = changes {
            let answer = self.client.heartbeat_changes(changes).await;
            let answer = answer.expect("heartbeat").into_inner();
            if !answer.report_all {
                self.teller.answered(&all, Answered::of(&answer), now);
                return answer;
            }
        }
        let answer = self.client.heartbeat(all.clone()).await;
        let answer = answer.expect("heartbeat").into_inner();
        self.teller.answered(&all, Answered::of(&answer), now);
        answer
    }

    /// As after an answer that was not heard.
    pub fn forget(&mut self) {
        self.teller.forget();
    }

    fn carry_out(&mut self, order: What) {
        match order {
            What::CreateReplica(order) => {
                let copyset = order.copyset.expect("a creation says for which copyset");
                if order.bootstrap {
                    self.bootstrapped.push(copyset.id);
                }
                let held = Held {
                    replica: order.replica,
                    leader: copyset.replicas[0].id,
                    term: 1,
                    voters: Vec::new(),
                    state: "ok",
                };
                self.replicas.insert(copyset.id, held);
            }
            What::Transfer(order) => {
                let held = self.replicas.get_mut(&order.copyset).expect("it leads");
                held.leader = order.to_replica;
                held.term = order.term + 1;
            }
            What::RemoveChunks(order) => self.removed.push(order.volume),
            What::ChangeMembers(order) => {
                let copyset = order.copyset.expect("a change says of which copyset");
                let held = self.replicas.get_mut(&copyset.id).expect("it leads");
                assert_eq!(held.leader, held.replica, "only to the leader");
                held.voters = order.voters;
                self.changes += 1;
            }
            What::ResetReplica(order) => {
                let copyset = order.copyset.expect("a reset says of which copyset");
                let held = self.replicas.get_mut(&copyset.id).expect("it is there");
                if held.replica == order.from {
                    (held.replica, held.leader) = (order.to, order.to);
                    (held.term, held.voters) = (held.term + 2, vec![order.to]);
                }
            }
            What::RemoveReplica(order) => {
                let held = self.replicas.get(&order.copyset);
                if held.is_some_and(|held| held.replica == order.replica) {
                    self.replicas.remove(&order.copyset);
                }
                self.replicas_removed.push(ReplicaName {
                    copyset: order.copyset,
                    replica: order.replica,
                });
            }
        }
    }
}

/// Three chunkservers in three zones, two stores each.
pub async fn three_zones(addr: &str) -> Vec<Chunkserver> {
    let mut servers = Vec::new();
    for (at, zone) in (1..).zip(["a", "b", "c"]) {
        let stores = [store(at, 1), store(at, 2)];
        let stores: Vec<&str> = stores.iter().map(String::as_str).collect();
        let request = registration(&format!("cs{at}"), zone, &stores);
        servers.push(register_soon(addr, request).await);
    }
    servers
}

/// A metadata server that just started may not lead yet.
pub async fn register_soon(addr: &str, request: RegisterRequest) -> Chunkserver {
    eventually("registration", || async {
        Chunkserver::register(addr, request.clone()).await.ok()
    })
    .await
}

pub async fn beat_all(servers: &mut [Chunkserver]) {
    for server in servers {
        server.beat().await;
    }
}

/// Each replica hears of the newest leader of its copyset.
pub fn hear(servers: &mut [Chunkserver]) {
    let mut newest: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    for (id, held) in servers.iter().flat_map(|s| &s.replicas) {
        let known = newest.entry(*id).or_default();
        *known = (*known).max((held.term, held.leader));
    }
    for (id, held) in servers.iter_mut().flat_map(|s| &mut s.replicas) {
        (held.term, held.leader) = newest[id];
    }
}

/// For tests in which chunkservers go away: as soon as whoever beats here cannot be late, also on a busy machine.
pub fn hasty(dir: &Path, recover_after_ms: u64) -> MdsConfig {
    let mut config = config(dir);
    config.heartbeat_ms = 100;
    config.offline_ms = 1500;
    config.recover_after_ms = recover_after_ms;
    config
}

/// Lets those chunkservers beat until it is so. Followers learn of their leaders from each other.
pub async fn beat_until<F: Future<Output = bool>>(
    what: &str,
    servers: &mut [Chunkserver],
    mut is_so: impl FnMut() -> F,
) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "never: {what}");
        for at in 0..servers.len() {
            servers[at].beat().await;
            hear(servers);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A pool of four copysets of one replica, on a chunkserver of its own; what its last heartbeat was answered.
pub async fn small_pool(addr: &str) -> HeartbeatResponse {
    let request = registration("cs1", "a", &[&store(1, 1)]);
    let mut server = register_soon(addr, request).await;
    let mut operator = TopologyClient::new(channel(addr).await);
    let pool = CreatePoolRequest {
        replicas: 1,
        copysets: 4,
        ..CreatePoolRequest::default()
    };
    operator.create_pool(pool).await.expect("pool");
    server.beat().await;
    server.beat().await
}

/// Three zones and a pool whose copysets all have a leader.
pub async fn ready(mds: &MdsHandle) -> Vec<Chunkserver> {
    let mut servers = three_zones(&mds.addr().to_string()).await;
    let pool = CreatePoolRequest {
        copysets: 12,
        ..CreatePoolRequest::default()
    };
    let pool = topology(mds)
        .await
        .create_pool(pool)
        .await
        .expect("pool")
        .into_inner();
    assert_eq!(
        (pool.name.as_str(), pool.copysets, pool.replicas),
        ("default", 12, 3)
    );
    for _ in 0..3 {
        beat_all(&mut servers).await;
    }
    let pools = topology(mds)
        .await
        .list_pools(Empty {})
        .await
        .expect("pools")
        .into_inner();
    assert_eq!(pools.pools[0].copysets_ready, 12);
    servers
}

pub async fn status(mds: &MdsHandle) -> ClusterStatus {
    topology(mds)
        .await
        .status(Empty {})
        .await
        .expect("status")
        .into_inner()
}

/// Codes and severities of a status.
pub fn codes(status: &ClusterStatus) -> Vec<(&str, &str)> {
    status
        .codes
        .iter()
        .map(|c| (c.code.as_str(), c.severity.as_str()))
        .collect()
}

pub fn start(config: &MdsConfig) -> MdsHandle {
    Mds::start(config).expect("starts")
}

pub async fn http(addr: SocketAddr, path: &str) -> String {
    let mut socket = tokio::net::TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    text
}
