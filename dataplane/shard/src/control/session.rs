//! The control thread's life: learn the cluster, start the shards, register, heartbeat, stop.

use super::client::MdsClient;
use super::kernel_drives::KernelDrives;
use super::{http, orders, reports};
use crate::config::ChunkserverConfig;
use crate::error::ShardError;
use crate::limit::{REPORT_WAIT, SHARD_QUEUE};
use crate::order::{ShardEvent, ShardOrder, ShardReport, StoreStatus};
use crate::shard::ShardSetup;
use ogee_proto::heartbeat::{Answered, Teller};
use ogee_proto::id::{CopysetId, ReplicaId, StoreId};
use ogee_proto::service::{HeartbeatRequest, RegisterRequest, RegisterResponse};
use ogee_runtime::bridge;
use ogee_runtime::executor::{Placement, ShardBuilder, ShardHandle};
use ogee_store::Bucket;
use ogee_transport::Transport;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::Code;
use uuid::Uuid;

/// How long the first words with an MDS may take before stores that know their cluster are opened
/// without it.
const FIRST_WORDS: Duration = Duration::from_secs(3);
/// Pause between attempts to reach an MDS.
const RETRY: Duration = Duration::from_millis(200);

/// What the control thread is started with.
pub(crate) struct ControlSetup {
    pub(crate) config: ChunkserverConfig,
    /// Turns true when the process is to stop.
    pub(crate) stop: watch::Receiver<bool>,
    /// Told once every shard serves.
    pub(crate) ready: Box<dyn FnOnce() + Send>,
}

struct Shards {
    handles: Vec<ShardHandle<()>>,
    orders: Vec<bridge::Sender<ShardOrder>>,
    events: bridge::Receiver<ShardEvent>,
    stores: Vec<StoreStatus>,
    /// Where they listen, as others are to be told.
    endpoints: Vec<String>,
}

/// Runs a chunkserver until it is told to stop.
pub(crate) async fn run(setup: ControlSetup) -> Result<(), ShardError> {
    let ControlSetup {
        config,
        mut stop,
        ready,
    } = setup;
    let mut mds = MdsClient::new(config.mds.clone());
    let latest = Arc::new(Mutex::new(Vec::new()));
    let server = http::start(&config, latest.clone()).await?;
    let first = match timeout(FIRST_WORDS, first_words(&mut mds, &config, &mut stop)).await {
        Ok(answered) => answered?,
        Err(_elapsed) => {
            tracing::warn!(mds = ?config.mds, "no MDS answers: starting without it");
            Some(Learnt::default())
        }
    };
    let Some(mut learnt) = first else {
        return Ok(());
    };
    let mut started = Shards::start(&config, learnt.cluster, &learnt.fenced).await;
    if let Err(error) = &started
        && learnt.cluster.is_none()
        && error.is_not_formatted()
    {
        tracing::warn!(mds = ?config.mds, %error,
            "only a metadata server can say for which cluster to make a store: waiting for one");
        let Some(answered) = first_words(&mut mds, &config, &mut stop).await? else {
            return Ok(());
        };
        learnt = answered;
        started = Shards::start(&config, learnt.cluster, &learnt.fenced).await;
    }
    let (mut shards, cluster) = (started?, learnt.cluster);
    ready();
    let outcome = serve(&mut mds, &config, cluster, &mut shards, &mut stop, &latest).await;
    shards.stop().await;
    server.abort();
    outcome
}

/// What the first words with an MDS tell.
#[derive(Default)]
struct Learnt {
    cluster: Option<Uuid>,
    /// Replicas that are not to be opened.
    fenced: BTreeSet<(CopysetId, ReplicaId)>,
}

/// Waits for them; `None` when told to stop meanwhile.
async fn first_words(
    mds: &mut MdsClient,
    config: &ChunkserverConfig,
    stop: &mut watch::Receiver<bool>,
) -> Result<Option<Learnt>, ShardError> {
    let answer = register(mds, config, addresses(config), Vec::new(), None, stop).await?;
    Ok(answer.map(|answer| {
        let fenced = answer.fenced.iter();
        let fenced = fenced.map(|it| (CopysetId::new(it.copyset), ReplicaId::new(it.replica)));
        Learnt {
            cluster: answer.cluster_id.parse().ok(),
            fenced: fenced.collect(),
        }
    }))
}

/// Where its shards listen, as far as that is certain before they have started.
fn addresses(config: &ChunkserverConfig) -> Vec<String> {
    let certain = match config.transport {
        Transport::Rdma => Transport::Rdma,
        Transport::Auto | Transport::Tcp => Transport::Tcp,
    };
    let endpoints = config.listen.iter().map(|address| certain.listen(*address));
    endpoints.map(|endpoint| endpoint.to_string()).collect()
}

/// Registers until an MDS takes it; `None` when told to stop meanwhile.
async fn register(
    mds: &mut MdsClient,
    config: &ChunkserverConfig,
    endpoints: Vec<String>,
    stores: Vec<ogee_proto::service::StoreReport>,
    cluster: Option<Uuid>,
    stop: &mut watch::Receiver<bool>,
) -> Result<Option<RegisterResponse>, ShardError> {
    let request = RegisterRequest {
        name: config.name.clone(),
        zone: config.zone.clone(),
        server: config.server.clone(),
        endpoints,
        stores,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cluster_id: cluster.map_or_else(String::new, |id| id.to_string()),
    };
    loop {
        match mds.register(&request).await {
            Ok(answer) => return Ok(Some(answer)),
            Err(status) => match status.code() {
                Code::FailedPrecondition | Code::AlreadyExists | Code::InvalidArgument => {
                    return Err(ShardError::Refused(status.message().into()));
                }
                _ => tracing::debug!(%status, "cannot register yet"),
            },
        }
        tokio::select! {
            () = sleep(RETRY) => {}
            _ = stop.wait_for(|stop| *stop) => return Ok(None),
        }
    }
}

impl Shards {
    async fn start(
        config: &ChunkserverConfig,
        cluster: Option<Uuid>,
        fenced: &BTreeSet<(CopysetId, ReplicaId)>,
    ) -> Result<Self, ShardError> {
        let shards = config.listen.len();
        for store in &config.stores {
            if usize::from(store.shard) >= shards {
                let (path, shard) = (store.path.clone(), store.shard);
                return Err(ShardError::NoSuchShard {
                    path,
                    shard,
                    shards,
                });
            }
        }
        let (sender, events) = bridge::channel(crate::limit::REPORT_QUEUE);
        let mut this = Self {
            handles: Vec::new(),
            orders: Vec::new(),
            events,
            stores: Vec::new(),
            endpoints: addresses(config),
        };
        let network = Bucket::new(config.background.network_rate.get());
        for (number, listen) in config.listen.iter().enumerate() {
            let number = u16::try_from(number).unwrap_or(u16::MAX);
            let (order_sender, orders) = bridge::channel(SHARD_QUEUE);
            let setup = ShardSetup {
                number,
                chunkserver: config.name.clone(),
                listen: *listen,
                transport: config.transport,
                rdma: config.rdma.clone(),
                stores: config
                    .stores
                    .iter()
                    .filter(|s| s.shard == number)
                    .cloned()
                    .collect(),
                cluster,
                group: config.group,
                scrub: config.scrub,
                device_rate: config.background.device_rate,
                network: network.clone(),
                fenced: fenced.clone(),
                orders,
                events: sender.clone(),
            };
            this.handles.push(start_shard(config, setup)?);
            this.orders.push(order_sender);
        }
        drop(sender);
        this.await_started().await
    }

    async fn await_started(mut self) -> Result<Self, ShardError> {
        let mut left = self.handles.len();
        let mut failed = None;
        while left > 0 {
            match self.events.recv().await {
                Some(ShardEvent::Started {
                    outcome: Ok(started),
                }) => {
                    if let Some(endpoint) = self.endpoints.get_mut(usize::from(started.shard)) {
                        *endpoint = started.endpoint.to_string();
                    }
                    self.stores.extend(started.stores);
                    left -= 1;
                }
                Some(ShardEvent::Started {
                    outcome: Err(error),
                }) => {
                    failed = failed.or(Some(error));
                    left -= 1;
                }
                Some(ShardEvent::Report(_)) => {}
                None => return Err(failed.unwrap_or(ShardError::ShardEnded { shard: 0 })),
            }
        }
        match failed {
            None => Ok(self),
            Some(error) => {
                self.stop().await;
                Err(error)
            }
        }
    }

    /// Asks every shard, and waits a bounded time for the answers.
    async fn reports(&mut self) -> Result<Vec<ShardReport>, ShardError> {
        for (shard, orders) in self.orders.iter().enumerate() {
            if orders.is_closed() {
                return Err(ShardError::ShardEnded {
                    shard: u16::try_from(shard).unwrap_or(0),
                });
            }
            // A shard that is too busy to take the order is left out of this heartbeat.
            let _ = orders.try_send(ShardOrder::Report);
        }
        let mut reports = BTreeMap::new();
        let deadline = Instant::now() + REPORT_WAIT;
        while reports.len() < self.orders.len() {
            match timeout_at(deadline, self.events.recv()).await {
                Ok(Some(ShardEvent::Report(report))) => {
                    reports.insert(report.shard, *report);
                }
                Ok(Some(ShardEvent::Started { .. })) => {}
                Ok(None) => return Err(ShardError::ShardEnded { shard: 0 }),
                Err(_elapsed) => break,
            }
        }
        Ok(reports.into_values().collect())
    }

    fn shard_of(&self, store: StoreId) -> Option<u16> {
        self.stores
            .iter()
            .find(|status| status.store == store)
            .map(|status| status.shard)
    }

    async fn give(&self, to: Option<u16>, order: ShardOrder) {
        match (to, order) {
            (Some(shard), order) => {
                if let Some(orders) = self.orders.get(usize::from(shard)) {
                    // A shard that has ended is noticed at the next report.
                    let _ = orders.send(order).await;
                }
            }
            (None, ShardOrder::Learn(places)) => {
                for orders in &self.orders {
                    let _ = orders.send(ShardOrder::Learn(places.clone())).await;
                }
            }
            (None, ShardOrder::Transfer { copyset, to }) => {
                for orders in &self.orders {
                    let _ = orders.send(ShardOrder::Transfer { copyset, to }).await;
                }
            }
            (None, ShardOrder::RemoveVolume { volume, copysets }) => {
                for orders in &self.orders {
                    let copysets = copysets.clone();
                    let _ = orders
                        .send(ShardOrder::RemoveVolume { volume, copysets })
                        .await;
                }
            }
            (None, ShardOrder::ChangeMembers(change)) => {
                for orders in &self.orders {
                    let _ = orders.send(ShardOrder::ChangeMembers(change.clone())).await;
                }
            }
            (None, ShardOrder::ListVolumes { after }) => {
                for orders in &self.orders {
                    let _ = orders.send(ShardOrder::ListVolumes { after }).await;
                }
            }
            (None, ShardOrder::RemoveReplica { copyset, replica }) => {
                for orders in &self.orders {
                    let order = ShardOrder::RemoveReplica { copyset, replica };
                    let _ = orders.send(order).await;
                }
            }
            (None, order) => tracing::error!(?order, "an order without a shard"),
        }
    }

    async fn stop(self) {
        for orders in &self.orders {
            // A shard that has ended needs no order.
            let _ = orders.send(ShardOrder::Stop).await;
        }
        drop(self.events);
        let joined = tokio::task::spawn_blocking(move || {
            for handle in self.handles {
                if let Err(error) = handle.join() {
                    tracing::error!(%error, "a shard ended badly");
                }
            }
        });
        if joined.await.is_err() {
            tracing::error!("could not wait for the shards");
        }
    }
}

fn start_shard(
    config: &ChunkserverConfig,
    setup: ShardSetup,
) -> Result<ShardHandle<()>, ShardError> {
    let number = usize::from(setup.number);
    let placement = match config.cpus.get(number) {
        Some(cpu) => Placement::Cpu(*cpu),
        None => Placement::Unbound,
    };
    let builder = ShardBuilder::new(format!("shard-{number}"))
        .placement(placement)
        .spin_before_park(config.poll);
    let started = builder.start(move || crate::shard::run(setup));
    started.map_err(|source| ShardError::Thread {
        what: "a shard",
        source,
    })
}

/// Heartbeats until told to stop.
async fn serve(
    mds: &mut MdsClient,
    config: &ChunkserverConfig,
    mut cluster: Option<Uuid>,
    shards: &mut Shards,
    stop: &mut watch::Receiver<bool>,
    latest: &Mutex<Vec<ShardReport>>,
) -> Result<(), ShardError> {
    let mut identity: Option<RegisterResponse> = None;
    let mut mds_term = 0;
    let (mut teller, began) = (Teller::default(), Instant::now());
    let drives = KernelDrives::start(&config.stores);
    loop {
        let pause = identity
            .as_ref()
            .map_or(RETRY, |id| Duration::from_millis(id.heartbeat_ms));
        tokio::select! {
            () = sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        }
        let mut reports = shards.reports().await?;
        drives.complete(&mut reports);
        if let Ok(mut latest) = latest.lock() {
            latest.clone_from(&reports);
        }
        let Some(known) = &identity else {
            let stores = shards.stores.iter().map(reports::store).collect();
            match timeout(
                FIRST_WORDS,
                register(mds, config, shards.endpoints.clone(), stores, cluster, stop),
            )
            .await
            {
                Ok(Ok(answer)) => {
                    if let Some(answer) = &answer {
                        mds.learn(&answer.mds);
                        // Whoever answers at these addresses later must be of the same cluster.
                        cluster = cluster.or_else(|| answer.cluster_id.parse().ok());
                    }
                    identity = answer;
                }
                // I/O goes on whatever the MDS says; the operator sees it and the next try asks again.
                Ok(Err(error)) => tracing::error!(%error, "not registered"),
                Err(_elapsed) => tracing::debug!("no MDS answers yet"),
            }
            continue;
        };
        let all = heartbeat(config, known, &shards.endpoints, &reports);
        let now = began.elapsed();
        match mds.beat(&mut teller, &all, now).await {
            Err(status) => tracing::debug!(%status, "heartbeat failed"),
            Ok(answer) if !answer.known => {
                teller.forget();
                identity = None;
            }
            Ok(answer) if answer.mds_term < mds_term => {
                teller.forget();
                tracing::warn!(term = answer.mds_term, "orders of a deposed MDS refused");
            }
            Ok(answer) => {
                mds_term = answer.mds_term;
                mds.learn(&answer.mds);
                let told = Answered::of(&answer);
                for (shard, order) in orders::orders(answer, |store| shards.shard_of(store)) {
                    shards.give(shard, order).await;
                }
                // Only now is what it said known here.
                teller.answered(&all, told, now);
            }
        }
    }
}

fn heartbeat(
    config: &ChunkserverConfig,
    known: &RegisterResponse,
    endpoints: &[String],
    reports: &[ShardReport],
) -> HeartbeatRequest {
    // A volume is gone from this chunkserver only when it is gone from every shard.
    let mut removed: BTreeMap<_, usize> = BTreeMap::new();
    for volume in reports.iter().flat_map(|report| &report.volumes_removed) {
        *removed.entry(volume.get()).or_default() += 1;
    }
    let everywhere = removed
        .into_iter()
        .filter(|(_, shards)| *shards == config.listen.len());
    let volumes = reports::volumes(reports, config.listen.len());
    let (page, next) = volumes.clone().unwrap_or_default();
    HeartbeatRequest {
        chunkserver: known.chunkserver,
        name: config.name.clone(),
        stores: reports::stores(reports),
        replicas: reports::replicas(reports),
        endpoints: endpoints.to_vec(),
        volumes_removed: everywhere.map(|(volume, _)| volume).collect(),
        replicas_removed: match reports.len() == config.listen.len() {
            true => reports::replicas_removed(reports),
            false => Vec::new(),
        },
        lost: reports::lost(reports),
        disputed: reports::disputed(reports),
        volumes_reported: volumes.is_some(),
        volumes: page,
        volumes_next: next,
        ..HeartbeatRequest::default()
    }
}
