//! A chunkserver: a simulated host with a disk, and the production shard on it.
//!
//! *Place*: started, stopped and killed by the simulation; obeys the simulated MDS. *Owner*: the
//! simulation; the shard's tasks belong to the host. *Invariants*: at most one process runs on a host.
//! *On failure*: a shard that does not start says why, and its host waits to be started again.

use super::dice::Dice;
use super::repairs::Repairs;
use ogee_device::{DiskCounts, DiskCrash, SimulatedDisk};
use ogee_group::GroupConfig;
use ogee_proto::id::StoreId;
use ogee_proto::unit::ByteLen;
use ogee_runtime::sim::{self, Death, HostId};
use ogee_runtime::{JoinHandle, bridge, spawn};
use ogee_shard::simulated::{Bucket, ShardEvent, ShardOrder, ShardReport, ShardSetup, run};
use ogee_shard::{ScrubConfig, StoreConfig};
use ogee_transport::Endpoint;
use std::cell::{Cell, RefCell};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;
use uuid::Uuid;

/// The cluster of every simulation.
pub const CLUSTER: Uuid = Uuid::from_bytes([0x51; 16]);
/// Where chunkservers listen.
const PORT: u16 = 7000;
/// A device: head, log, two page areas, and 320 extents.
pub const DEVICE_LEN: ByteLen = ByteLen::new(42 << 20);
/// Its log: few segments, so that it goes round.
pub const LOG_LEN: ByteLen = ByteLen::new(12 << 20);
/// What copies, comparisons and scrubbing may take of its disk, and copies of the network, in bytes per second: little, so
/// that they wait for it.
const BACKGROUND_RATE: ByteLen = ByteLen::new(24 << 20);
/// Orders that may wait for a shard.
const ORDERS_MAX: usize = 256;

/// How a host stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// A process runs.
    Up,
    /// A process runs, but is never scheduled.
    Stopped,
    /// No process runs.
    Down,
}

/// A host for a chunkserver.
pub struct Node {
    host: HostId,
    config: GroupConfig,
    scrub_period: Option<Duration>,
    half_us: Range<u64>,
    /// Counters that stay zero; none if its disk may be damaged.
    sound: Option<&'static [&'static str]>,
    disk: RefCell<SimulatedDisk>,
    state: Cell<NodeState>,
    process: RefCell<Option<Process>>,
    store: Cell<Option<StoreId>>,
    report: RefCell<Option<Rc<ShardReport>>>,
    /// Why the last process did not start.
    refusal: RefCell<Option<String>>,
    /// Processes so far.
    starts: Cell<u64>,
    /// Of the disks that were replaced.
    past: Cell<DiskCounts>,
    past_hurt: Cell<usize>,
    /// What all its processes have repaired, and what the one that runs has told of it.
    repairs: RefCell<Repairs>,
    told: RefCell<Repairs>,
    /// The copy of a metadata page may have been hit, which an open does not look at while the page is good.
    has_hit_pages: Cell<bool>,
}

struct Process {
    orders: bridge::Sender<ShardOrder>,
    main: JoinHandle<()>,
    _events: JoinHandle<()>,
}

impl Node {
    /// A host with an empty disk; nothing runs.
    #[must_use]
    pub fn new(
        number: u32,
        (config, scrub_period): (GroupConfig, Option<Duration>),
        half_us: Range<u64>,
        sound: Option<&'static [&'static str]>,
    ) -> Rc<Self> {
        let host = HostId::new(number);
        Rc::new(Self {
            host,
            config,
            scrub_period,
            disk: RefCell::new(new_disk(host, &half_us)),
            half_us,
            sound,
            state: Cell::new(NodeState::Down),
            process: RefCell::default(),
            store: Cell::default(),
            report: RefCell::default(),
            refusal: RefCell::default(),
            starts: Cell::default(),
            past: Cell::default(),
            past_hurt: Cell::default(),
            repairs: RefCell::default(),
            told: RefCell::default(),
            has_hit_pages: Cell::default(),
        })
    }

    /// Which host.
    #[must_use]
    pub fn host(&self) -> HostId {
        self.host
    }

    /// How it stands.
    #[must_use]
    pub fn state(&self) -> NodeState {
        self.state.get()
    }

    /// Its disk.
    #[must_use]
    pub fn disk(&self) -> SimulatedDisk {
        self.disk.borrow().clone()
    }

    /// What its disks have done to it.
    #[must_use]
    pub fn disk_counts(&self) -> DiskCounts {
        self.past.get().plus(self.disk().counts())
    }

    /// Blocks of its disks that were damaged, and of those of the present one that nobody has written since.
    #[must_use]
    pub fn hurt(&self) -> (usize, usize) {
        let disk = self.disk();
        (self.past_hurt.get() + disk.hurt(), disk.still_hurt())
    }

    /// What its processes have repaired, as far as they have told.
    #[must_use]
    pub fn repairs(&self) -> Repairs {
        self.repairs.borrow().clone()
    }

    /// Where its disk is.
    #[must_use]
    pub fn path(&self) -> String {
        path(self.host)
    }

    /// Whether its store's metadata is verified again and again.
    #[must_use]
    pub fn is_scrubbed(&self) -> bool {
        self.scrub_period.is_some()
    }

    /// Its store, once a process has opened it.
    #[must_use]
    pub fn store(&self) -> Option<StoreId> {
        self.store.get()
    }

    /// Whether copies of metadata pages may be bad that nobody has looked at; and from now on, if `hits_copies`.
    pub fn hit_pages(&self, hits_copies: bool) -> bool {
        let before = self.has_hit_pages.get();
        self.has_hit_pages.set(before || hits_copies);
        before
    }

    /// Why the last process did not start, if so.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        self.refusal.borrow().clone()
    }

    /// The last report of the process that runs.
    #[must_use]
    pub fn report(&self) -> Option<Rc<ShardReport>> {
        self.report.borrow().clone()
    }

    /// Where its shard listens.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::Tcp(address(self.host))
    }

    /// Starts a process.
    pub fn start(self: &Rc<Self>) {
        if self.state.get() != NodeState::Down {
            return;
        }
        tracing::info!(host = self.host.get(), "SIM start");
        sim::power_up(self.host);
        self.starts.set(self.starts.get() + 1);
        self.refusal.take();
        self.told.take();
        let (orders, obeyed) = bridge::channel(ORDERS_MAX);
        let (told, events) = bridge::channel(16);
        let setup = ShardSetup {
            number: 0,
            chunkserver: format!("cs{}", self.host.get()),
            listen: address(self.host),
            transport: ogee_transport::Transport::Tcp,
            rdma: ogee_transport::RdmaOptions::default(),
            stores: vec![StoreConfig {
                path: path(self.host).into(),
                nvme: None,
                nvme_options: ogee_device::NvmeOptions::default(),
                class: None,
                create: None,
                log_len: LOG_LEN,
                shard: 0,
            }],
            cluster: Some(CLUSTER),
            group: self.config,
            scrub: self.scrub_period.map(|period| ScrubConfig {
                period: Some(period),
                light: Some(period),
                hours: None,
            }),
            device_rate: BACKGROUND_RATE,
            network: Bucket::new(BACKGROUND_RATE.get()),
            fenced: std::collections::BTreeSet::new(),
            orders: obeyed,
            events: told,
        };
        let main = sim::spawn_on(self.host, run(setup));
        let listening = Rc::clone(self);
        let start = self.starts.get();
        let events = spawn(async move { listening.listen(start, events).await });
        self.process.replace(Some(Process {
            orders,
            main,
            _events: events,
        }));
        self.state.set(NodeState::Up);
    }

    async fn listen(&self, start: u64, mut events: bridge::Receiver<ShardEvent>) {
        while let Some(event) = events.recv().await {
            if self.starts.get() != start {
                return;
            }
            match event {
                ShardEvent::Started {
                    outcome: Ok(started),
                } => {
                    self.store
                        .set(started.stores.first().map(|store| store.store));
                }
                ShardEvent::Started {
                    outcome: Err(error),
                } => {
                    tracing::error!(host = self.host.get(), %error, "SIM does not start");
                    let causes: Vec<String> = causes(&error).collect();
                    self.refusal.replace(Some(causes.join(": ")));
                }
                ShardEvent::Report(report) => {
                    if let Some(what) = self.sound.and_then(|zero| damage_in(&report, zero)) {
                        panic!(
                            "VIOLATION: host {} speaks of damage, and its disk is good: {what}",
                            self.host.get()
                        );
                    }
                    let told = Repairs::of(&report);
                    let before = self.told.replace(told.clone());
                    self.repairs.borrow_mut().add_since(&before, &told);
                    self.report.replace(Some(Rc::new(*report)));
                }
            }
        }
    }

    /// Gives an order, if a process can take it.
    pub fn order(&self, order: ShardOrder) {
        if let Some(process) = &*self.process.borrow() {
            // A queue that is full is that of a stopped process: the order comes again.
            let _ = process.orders.try_send(order);
        }
    }

    /// The process or the whole machine dies, now.
    pub fn kill(&self, death: Death, dice: &mut Dice) {
        if self.state.get() == NodeState::Down {
            return;
        }
        let seed = dice.next();
        let crash = match death {
            Death::Power => DiskCrash::Power {
                seed,
                garbles: dice.once_in(2),
            },
            Death::Process => DiskCrash::Process { seed },
        };
        tracing::info!(host = self.host.get(), ?crash, "SIM kill");
        // First the disk: what the dying tasks' destructors do must not reach it.
        self.disk.borrow().crash(crash);
        sim::kill(self.host, death);
        self.process.take();
        self.report.take();
        self.state.set(NodeState::Down);
    }

    /// The process is never scheduled from now on.
    pub fn stop(&self) {
        if self.state.get() == NodeState::Up {
            tracing::info!(host = self.host.get(), "SIM stop");
            sim::stop(self.host);
            self.state.set(NodeState::Stopped);
        }
    }

    /// It is scheduled again; its clock stood for `slept`.
    pub fn go_on(&self, slept: Duration) {
        if self.state.get() == NodeState::Stopped {
            tracing::info!(host = self.host.get(), ?slept, "SIM go on");
            sim::go_on(self.host, slept);
            self.state.set(NodeState::Up);
        }
    }

    /// Ends the process in an orderly way.
    pub async fn end(&self) {
        self.order(ShardOrder::Stop);
        let process = self.process.take();
        if let Some(process) = process {
            // It was killed meanwhile, or has ended: both are an end.
            let _ = process.main.await;
        }
        if self.state.get() == NodeState::Up {
            self.kill(Death::Process, &mut Dice::new(self.starts.get()));
        }
    }

    /// Puts an empty disk in place of the old one. Nothing may run.
    pub fn replace_disk(&self) {
        assert_eq!(self.state.get(), NodeState::Down, "a disk in use");
        tracing::info!(host = self.host.get(), "SIM new disk");
        self.past.set(self.disk_counts());
        self.past_hurt.set(self.hurt().0);
        self.disk.replace(new_disk(self.host, &self.half_us));
        self.has_hit_pages.set(false);
        self.store.set(None);
    }
}

/// What a process has found damaged.
fn damage_in(report: &ShardReport, stay_zero: &[&str]) -> Option<String> {
    let is_bad = |state| matches!(state, "repairing" | "damaged");
    if let Some(bad) = report.replicas.iter().find(|it| is_bad(it.state)) {
        return Some(format!("{bad:?}"));
    }
    if let Some(failed) = report.stores.iter().find(|store| store.state == "failed") {
        return Some(format!("{failed:?}"));
    }
    let counters = report.metrics.counters.iter();
    let mut rotten = counters.filter(|(name, _, count)| stay_zero.contains(name) && *count > 0);
    rotten
        .next()
        .map(|(name, _, count)| format!("{name} {count}"))
}

fn new_disk(host: HostId, half_us: &Range<u64>) -> SimulatedDisk {
    let disk = SimulatedDisk::create(&path(host), DEVICE_LEN);
    disk.set_pace(half_us.clone());
    disk
}

fn causes(error: &dyn std::error::Error) -> impl Iterator<Item = String> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error.to_string())
    })
}

fn path(host: HostId) -> String {
    format!("/simulated/{}", host.get())
}

fn address(host: HostId) -> SocketAddr {
    let [_, _, high, low] = host.get().to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(10, 0, high, low), PORT))
}
