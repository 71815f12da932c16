//! What heartbeats cost a metadata server: a real one, over gRPC, beside chunkservers that do nothing else.
//!
//! `cargo run --release -p ogee-control --example heartbeats -- [--servers N] [--devices N] [--copysets N] [--seconds N]
//! [--busy PERCENT]`: by default 10,000 devices of 1,000 chunkservers and 65,536 copysets of three replicas. Each
//! chunkserver has a connection of its own, heartbeats once a second at its own moment, and carries out what it is ordered
//! to. Printed is the processor time of the metadata server's threads for each second, and the bytes of messages (without
//! those of HTTP/2 and TCP): with whole reports, as older chunkservers tell and are told, and with changes. Exit code 1 if with
//! changes it takes more than one core, or a heartbeat is not answered within the second.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use ogee_control::{Mds, MdsConfig};
use ogee_proto::heartbeat::{Answered, Teller};
use ogee_proto::service::chunkservers_client::ChunkserversClient;
use ogee_proto::service::order::What;
use ogee_proto::service::topology_client::TopologyClient;
use ogee_proto::service::volumes_client::VolumesClient;
use ogee_proto::service::{
    CreatePoolRequest, CreateVolumeRequest, Empty, HeartbeatRequest, HeartbeatResponse, IoFlow,
    RegisterRequest, ReplicaReport, ScrubReport, StoreReport,
};
use prost::Message;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::transport::{Channel, Endpoint};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const ZONES: usize = 20;
/// Chunkservers that are set up at once.
const AT_ONCE: usize = 32;
/// Before what is measured.
const WARM: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug)]
struct Shape {
    servers: usize,
    devices: usize,
    copysets: u32,
    seconds: u64,
    busy_percent: u64,
}

/// One chunkserver.
struct Chunkserver {
    id: u32,
    name: String,
    endpoint: String,
    stores: Vec<StoreReport>,
    replicas: BTreeMap<u64, ReplicaReport>,
    client: ChunkserversClient<Channel>,
    teller: Teller,
    began: Instant,
    sum: Sum,
}

/// Of heartbeats.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    count: u64,
    told: u64,
    answered: u64,
    longest: Duration,
    errors: u64,
}

#[derive(Clone, Copy)]
struct Phase {
    what: &'static str,
    tells_changes: bool,
    busy_percent: u64,
    /// A volume is made each second: metadata that changes is looked at anew for each chunkserver.
    writes: bool,
}

fn main() -> ExitCode {
    let shape = Shape {
        servers: number("--servers", 1000),
        devices: number("--devices", 10),
        copysets: number("--copysets", 65_536),
        seconds: number("--seconds", 20),
        busy_percent: number("--busy", 5),
    };
    println!("{shape:?}");
    let dir = std::env::temp_dir().join(format!("ogee-heartbeats-{}", std::process::id()));
    let outcome = run(shape, &dir);
    std::fs::remove_dir_all(&dir).ok();
    match outcome {
        Ok(is_well) => ExitCode::from(u8::from(!is_well)),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn number<T: std::str::FromStr>(name: &str, default: T) -> T {
    let args: Vec<String> = std::env::args().collect();
    let at = args.iter().position(|arg| arg == name);
    let given = at.and_then(|at| args.get(at + 1)?.parse().ok());
    given.unwrap_or(default)
}

fn run(shape: Shape, dir: &std::path::Path) -> Result<bool, Failure> {
    let mut config = MdsConfig::new(dir.to_owned(), "127.0.0.1:0".parse()?);
    config.zone_wait_ms = 1000;
    // While a thousand are set up, one after the other, nobody is to be missed.
    config.offline_ms = 600_000;
    let mds = Mds::start(&config)?;
    let addr = mds.addr().to_string();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let is_well = runtime.block_on(measure(shape, &addr))?;
    mds.stop()?;
    Ok(is_well)
}

async fn measure(shape: Shape, addr: &str) -> Result<bool, Failure> {
    let servers = set_up(shape, addr).await?;
    println!(
        "{:<44}{:>12}{:>12}{:>12}{:>12}{:>12}{:>11}{:>8}",
        "", "of a core", "beats/s", "us/beat", "bytes told", "answered", "longest", "errors"
    );
    let phase = |what, tells_changes, busy_percent, writes| Phase {
        what,
        tells_changes,
        busy_percent,
        writes,
    };
    let busy = shape.busy_percent;
    let mut is_well = true;
    for phase in [
        phase("whole reports, idle", false, 0, false),
        phase("whole reports, busy", false, busy, false),
        phase("changes, idle", true, 0, false),
        phase("changes, busy", true, busy, false),
        phase(
            "changes, busy, metadata written each second",
            true,
            busy,
            true,
        ),
    ] {
        let (cores, sum) = one_phase(shape, addr, &servers, phase).await?;
        is_well &= !phase.tells_changes || is_enough(cores, sum);
    }
    Ok(is_well)
}

fn is_enough(cores: f64, sum: Sum) -> bool {
    cores < 1.0 && sum.longest < Duration::from_secs(1) && sum.errors == 0
}

async fn one_phase(
    shape: Shape,
    addr: &str,
    servers: &[Arc<Mutex<Chunkserver>>],
    phase: Phase,
) -> Result<(f64, Sum), Failure> {
    let from = Instant::now();
    let window = (
        from + WARM,
        from + WARM + Duration::from_secs(shape.seconds),
    );
    let beats = servers.iter().enumerate().map(|(at, server)| {
        let offset = Duration::from_secs(1) * u32::try_from(at).unwrap_or(0);
        let first = from + offset / u32::try_from(servers.len()).unwrap_or(1);
        let server = Arc::clone(server);
        tokio::spawn(beat_each_second(server, first, window, phase))
    });
    let beats: Vec<_> = beats.collect();
    sleep_until(window.0).await;
    let (began, before) = (Instant::now(), mds_seconds()?);
    while Instant::now() < window.1 {
        sleep_until((Instant::now() + Duration::from_secs(1)).min(window.1)).await;
        if phase.writes {
            write(addr, began.elapsed()).await?;
        }
    }
    let (lasted, spent) = (began.elapsed().as_secs_f64(), mds_seconds()? - before);
    for beat in beats {
        beat.await?;
    }
    let mut all = Sum::default();
    for server in servers {
        let sum = server.lock().await.sum;
        all.count += sum.count;
        all.told += sum.told;
        all.answered += sum.answered;
        all.errors += sum.errors;
        all.longest = all.longest.max(sum.longest);
    }
    let beats = rate(all.count, lasted);
    println!(
        "{:<44}{:>10.1} %{:>12.0}{:>12.0}{:>12}{:>12}{:>8} ms{:>8}",
        phase.what,
        spent / lasted * 100.0,
        beats,
        spent / lasted / beats.max(1.0) * 1e6,
        all.told / all.count.max(1),
        all.answered / all.count.max(1),
        all.longest.as_millis(),
        all.errors
    );
    Ok((spent / lasted, all))
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn rate(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}

async fn write(addr: &str, at: Duration) -> Result<(), Failure> {
    let mut volumes = VolumesClient::new(channel(addr)?);
    let request = CreateVolumeRequest {
        name: format!("v{}", at.as_nanos()),
        size: 1 << 30,
        ..CreateVolumeRequest::default()
    };
    volumes.create(request).await?;
    Ok(())
}

/// From one moment on, until the end of a window: what it sums up is of that window.
async fn beat_each_second(
    server: Arc<Mutex<Chunkserver>>,
    first: Instant,
    (from, until): (Instant, Instant),
    phase: Phase,
) {
    server.lock().await.sum = Sum::default();
    let mut next = first;
    while next < until {
        sleep_until(next).await;
        let mut it = server.lock().await;
        it.work(phase.busy_percent);
        let before = it.sum;
        if let Err(error) = it.beat(phase.tells_changes).await {
            it.sum.errors += 1;
            it.teller.forget();
            eprintln!("{}: {error}", it.name);
        }
        if next < from || Instant::now() > until {
            it.sum = before;
        }
        drop(it);
        // One that was late has missed its turn.
        while next <= Instant::now() {
            next += Duration::from_secs(1);
        }
    }
}

/// Registers all, makes the pool, and lets them make what they are ordered to until every copyset is formed.
async fn set_up(shape: Shape, addr: &str) -> Result<Vec<Arc<Mutex<Chunkserver>>>, Failure> {
    let began = Instant::now();
    let mut servers = Vec::new();
    for at in 0..shape.servers {
        servers.push(Arc::new(Mutex::new(register(shape, addr, at).await?)));
    }
    println!("registered after {} s", began.elapsed().as_secs());
    let mut operator = TopologyClient::new(channel(addr)?);
    let pool = CreatePoolRequest {
        copysets: shape.copysets,
        replicas: 3,
        ..CreatePoolRequest::default()
    };
    operator.create_pool(pool).await?;
    loop {
        for some in servers.chunks(AT_ONCE) {
            let beats = some.iter().map(|server| {
                let server = Arc::clone(server);
                tokio::spawn(async move { server.lock().await.beat(true).await })
            });
            let beats: Vec<_> = beats.collect();
            for beat in beats {
                beat.await??;
            }
        }
        let pools = operator.list_pools(Empty {}).await?.into_inner().pools;
        let formed = pools.first().map_or(0, |pool| pool.copysets_ready);
        println!(
            "{formed} copysets formed after {} s",
            began.elapsed().as_secs()
        );
        if formed == shape.copysets {
            return Ok(servers);
        }
    }
}

fn channel(addr: &str) -> Result<Channel, Failure> {
    Ok(Endpoint::from_shared(format!("http://{addr}"))?.connect_lazy())
}

async fn register(shape: Shape, addr: &str, at: usize) -> Result<Chunkserver, Failure> {
    let name = format!("chunkserver-{at}");
    let endpoint = format!("10.{}.{}.1:7000", at / 250, at % 250);
    let scrub = ScrubReport {
        read: 1 << 34,
        of: 1 << 40,
        took_ms: 3_600_000,
        passes: 3,
        ended_ms_ago: 7_200_000,
    };
    let store = |device: usize| StoreReport {
        store: format!("00000000-0000-4000-{at:04x}-{device:012x}"),
        path: format!("/dev/disk/by-id/nvme-SERIAL{at:05}{device:02}"),
        capacity: 4 << 40,
        used: 1 << 40,
        log_capacity: 64 << 30,
        log_used: 1 << 30,
        state: "ok".into(),
        class: "nvme".into(),
        writes: Some(IoFlow::default()),
        flushes: Some(IoFlow::default()),
        reads: Some(IoFlow::default()),
        scrub: Some(scrub),
        compare: Some(scrub),
        ..StoreReport::default()
    };
    let stores: Vec<StoreReport> = (0..shape.devices).map(store).collect();
    let request = RegisterRequest {
        name: name.clone(),
        zone: format!("rack-{}", at % ZONES),
        server: format!("host-{at}"),
        endpoints: vec![endpoint.clone()],
        stores: stores.clone(),
        version: "bench".into(),
        cluster_id: String::new(),
    };
    let mut client = ChunkserversClient::new(channel(addr)?);
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match client.register(request.clone()).await {
            Ok(answer) => {
                return Ok(Chunkserver {
                    id: answer.into_inner().chunkserver,
                    name,
                    endpoint,
                    stores,
                    replicas: BTreeMap::new(),
                    client,
                    teller: Teller::default(),
                    began: Instant::now(),
                    sum: Sum::default(),
                });
            }
            // It may not lead yet.
            Err(_) if Instant::now() < deadline => sleep(Duration::from_millis(100)).await,
            Err(status) => return Err(status.into()),
        }
    }
}

impl Chunkserver {
    /// A second's requests, of so many in a hundred copysets: all their replicas write them, their leaders took them.
    fn work(&mut self, percent: u64) {
        for replica in self.replicas.values_mut() {
            if u64::from(replica.copyset) % 100 >= percent {
                continue;
            }
            replica.applied += 200;
            replica.last_log += 200;
            if replica.leader_replica == replica.replica {
                replica.requests += 200;
                replica.bytes += 200 * 16_384;
            }
            let store = self.stores.iter_mut().find(|it| it.store == replica.store);
            for flow in store
                .into_iter()
                .flat_map(|it| [&mut it.writes, &mut it.flushes])
            {
                let flow = flow.get_or_insert_default();
                flow.ops += 200;
                flow.bytes += 200 * 16_384;
                flow.waited_ns += 200 * 90_000;
            }
        }
    }

    async fn beat(&mut self, tells_changes: bool) -> Result<(), Failure> {
        let now = self.began.elapsed();
        let all = HeartbeatRequest {
            chunkserver: self.id,
            name: self.name.clone(),
            stores: self.stores_after(now),
            replicas: self.replicas.values().cloned().collect(),
            endpoints: vec![self.endpoint.clone()],
            ..HeartbeatRequest::default()
        };
        let changes = self.teller.changes(&all, now).filter(|_| tells_changes);
        let began = Instant::now();
        if let Some(changes) = changes {
            self.sum.told += changes.encoded_len() as u64;
            let answer = self.client.heartbeat_changes(changes).await?.into_inner();
            if !answer.report_all {
                self.take(&all, answer, began);
                return Ok(());
            }
        }
        self.sum.told += all.encoded_len() as u64;
        let answer = self.client.heartbeat(all.clone()).await?.into_inner();
        self.take(&all, answer, began);
        Ok(())
    }

    /// The times of scrubbing go on.
    fn stores_after(&self, now: Duration) -> Vec<StoreReport> {
        let mut stores = self.stores.clone();
        for store in &mut stores {
            for scrub in [&mut store.scrub, &mut store.compare] {
                *scrub = scrub.map(|scrub| ogee_proto::heartbeat::aged(scrub, now));
            }
        }
        stores
    }

    fn take(&mut self, all: &HeartbeatRequest, answer: HeartbeatResponse, began: Instant) {
        self.sum.count += 1;
        self.sum.answered += answer.encoded_len() as u64;
        self.sum.longest = self.sum.longest.max(began.elapsed());
        let told = Answered::of(&answer);
        for order in answer.orders {
            let Some(What::CreateReplica(order)) = order.what else {
                continue;
            };
            let Some(copyset) = order.copyset else {
                continue;
            };
            let replica = ReplicaReport {
                copyset: copyset.id,
                replica: order.replica,
                leader_replica: copyset.replicas.first().map_or(0, |it| it.id),
                term: 2,
                last_log_term: 2,
                applied: 1_000_000,
                last_log: 1_000_000,
                requests: 1_000_000,
                bytes: 1 << 34,
                voters: copyset.replicas.iter().map(|it| it.id).collect(),
                state: "ok".into(),
                store: order.store,
                is_led: true,
                held: Some(1 << 20),
                ..ReplicaReport::default()
            };
            self.replicas.entry(order.replica).or_insert(replica);
        }
        self.teller.answered(all, told, self.began.elapsed());
    }
}

/// Processor time of the metadata server's threads so far, in seconds.
fn mds_seconds() -> Result<f64, Failure> {
    let mut ticks = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let path = task?.path();
        if !std::fs::read_to_string(path.join("comm"))?.starts_with("ogee-mds") {
            continue;
        }
        let stat = std::fs::read_to_string(path.join("stat"))?;
        // After the name, in brackets: field 3 on; user and system time are fields 14 and 15.
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let fields = rest.split_whitespace().skip(11).take(2);
        ticks += fields.filter_map(|it| it.parse::<u64>().ok()).sum::<u64>();
    }
    // Of a hundredth of a second: USER_HZ, on every Linux.
    Ok(rate(ticks, 100.0))
}
