//! One process of a cluster: a store with its log, a replica, a service that routes to it.

use super::net::{Net, Run};
use ogee_device::{Device, FaultControl, FaultPlan, MemoryControl, Survivors};
use ogee_group::{
    ASK_PIECE, Command, CopyBudget, Group, GroupConfig, GroupError, GroupMetrics, GroupParams,
    Mender, Outcome, PeerBook, StoreKeeper, Watch,
};
use ogee_log::{Log, LogOptions, LogRegion};
use ogee_proto::id::{ChunkKey, CopysetId, ReplicaId, StoreId};
use ogee_proto::limit::BLOCK_SIZE;
use ogee_proto::unit::{BlockIndex, ByteLen, ByteOffset};
use ogee_proto::wire::{FrameHeader, FrameKind, Status};
use ogee_runtime::{Buffer, Payload};
use ogee_store::{BlockChange, Store, StoreParams, WriteBack};
use ogee_transport::{CallerOptions, Frame, Hello, Listener, Peer, Role, Service};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use uuid::Uuid;

pub const COPYSET: CopysetId = CopysetId::new(7);
pub const DEVICE_LEN: ByteLen = ByteLen::new(256 << 20);
pub const LOG_LEN: ByteLen = ByteLen::new(48 << 20);
/// Times that let a test end soon.
pub const QUICK: GroupConfig = GroupConfig {
    heartbeat: Duration::from_millis(30),
    election_min: Duration::from_millis(150),
    election_max: Duration::from_millis(300),
    commit_hold: Duration::from_millis(1),
    lease_reads: true,
    quiet_after: Duration::ZERO,
    copy_rate: None,
    redirect: true,
};

/// What is left of a node that does not run.
pub struct Medium {
    pub replica: ReplicaId,
    device: Device,
    control: MemoryControl,
}

/// A running node.
pub struct Node {
    pub replica: ReplicaId,
    pub group: Group,
    pub store: Store,
    pub log: Log,
    pub keeper: StoreKeeper,
    pub faults: FaultControl,
    pub copies: Rc<CopyBudget>,
    pub metrics: Rc<GroupMetrics>,
    control: MemoryControl,
    run: Run,
    net: Rc<Net>,
    watch: RefCell<Option<Rc<Watch>>>,
    service: RefCell<Option<Service>>,
}

impl Medium {
    /// A new device with an empty store that knows its replica.
    pub async fn format(replica: ReplicaId, log_len: ByteLen) -> Self {
        let (device, control) = Device::memory_with_control(DEVICE_LEN);
        let mut store = [0x50; 16];
        store[..8].copy_from_slice(&replica.get().to_le_bytes());
        let params = StoreParams {
            store: StoreId::from_bytes(store),
            cluster: Uuid::from_bytes([0xc1; 16]),
            log_len,
            force: false,
        };
        Store::format(&device, params).await.expect("format");
        let store = Store::open(&device).await.expect("open");
        let (region, options) = log_of(&store);
        Log::format(&device, region, options).await.expect("format");
        Group::create(&store, COPYSET, replica)
            .await
            .expect("create");
        Self {
            replica,
            device,
            control,
        }
    }
}

impl Medium {
    /// The device as it stands.
    pub const fn device(&self) -> &Device {
        &self.device
    }

    /// Where its log lies.
    pub async fn log_region(&self) -> (ByteOffset, ByteLen) {
        let store = Store::open(&self.device).await.expect("open");
        store.log_region()
    }

    /// Flips a bit of every block behind the log that holds these bytes; how many there are.
    pub async fn spoil_stored(&self, bytes: &[u8]) -> usize {
        let (start, len) = self.log_region().await;
        let (mut at, mut hurt) = (start.get() + len.get(), 0);
        while at < self.device.len().get() {
            let place = ByteOffset::new(at);
            let read = self
                .device
                .read(place, ByteLen::from_usize(BLOCK_SIZE))
                .await;
            let read = read.expect("read");
            if *read == *bytes {
                let mut data = Buffer::copy_from(&read);
                data[99] ^= 4;
                self.device.write_durable(place, data).await.expect("write");
                hurt += 1;
            }
            at += BLOCK_SIZE as u64;
        }
        hurt
    }

    /// Puts other contents into the store, with a checksum of their own: as after a write that the device has taken and
    /// lost. None: the block is gone.
    pub async fn exchange_stored(&self, key: ChunkKey, block: usize, bytes: Option<&[u8]>) {
        let store = Store::open(&self.device).await.expect("open");
        let block = BlockIndex::new(block).expect("within a chunk");
        let what = bytes.map_or(BlockChange::Zero, |bytes| {
            BlockChange::Data(Payload::from(bytes.to_vec()))
        });
        let change = WriteBack { key, block, what };
        let written = store.write_back(COPYSET, vec![change]).await;
        written.expect("the store takes it");
        let group = store.group(COPYSET).expect("it has the replica");
        store.checkpoint(vec![group]).await.expect("durable");
    }

    /// A second medium with the same contents.
    pub fn copy(&self) -> Self {
        let (device, control) = self.control.crash(Survivors::All);
        Self {
            replica: self.replica,
            device,
            control,
        }
    }

    /// Opens store and log alone.
    pub async fn open(&self) -> (Store, Log) {
        let store = Store::open(&self.device).await.expect("the store opens");
        let (region, options) = log_of(&store);
        let log = Log::open(&self.device, region, options).await;
        (store, log.expect("the log opens"))
    }
}

pub fn log_of(store: &Store) -> (LogRegion, LogOptions) {
    let (start, len) = store.log_region();
    let options = LogOptions {
        segment_len: ByteLen::new(2 << 20),
        // Small, so that payloads are read from the device as well.
        cache_len: ByteLen::new(256 << 10),
        ..LogOptions::new(store.id())
    };
    (LogRegion { start, len }, options)
}

impl Node {
    /// Opens what the medium holds and serves it.
    pub async fn start(medium: Medium, net: &Rc<Net>) -> Rc<Self> {
        Self::try_start(medium, net).await.expect("the node starts")
    }

    /// Opens what the medium holds, has a damaged log repaired, and serves it.
    pub async fn try_start(medium: Medium, net: &Rc<Net>) -> Result<Rc<Self>, GroupError> {
        let Medium {
            replica,
            device,
            control,
        } = medium;
        let run = net.join();
        let (device, faults) = Device::fault(device, FaultPlan::new());
        let store = Store::open(&device).await.expect("the store opens");
        let (region, options) = log_of(&store);
        let log = Log::open_with(&device, region, options, &[COPYSET]).await;
        let log = log.expect("the log opens");
        let keeper = StoreKeeper::start(store.clone(), log.clone());
        let hello = Hello::new(Role::Chunkserver, run.number(), replica.to_string());
        let peers = Rc::new(PeerBook::new(hello.clone(), caller_options()));
        let watch = Watch::start(peers.clone(), net.config());
        let copies = Rc::new(CopyBudget::new(net.config().copy_rate));
        let metrics = Rc::new(GroupMetrics::default());
        // As the metadata servers tell it: a damaged log may not even know its members.
        for peer in [1, 2, 3].map(ReplicaId::new) {
            peers.learn(peer, net.endpoint(peer));
        }
        let params = GroupParams {
            copyset: COPYSET,
            log: log.clone(),
            store: store.clone(),
            peers,
            watch: watch.clone(),
            config: net.config(),
            metrics: metrics.clone(),
            copies: copies.clone(),
        };
        if let Some(mender) = Mender::find(&params)? {
            let mender = Rc::new(mender);
            let service = serve_damaged(&mender, hello.clone(), (net.clone(), run));
            let mended = mender.run().await;
            service.close().await;
            if let Err(error) = mended {
                net.leave(run);
                keeper.stop();
                log.close().await.expect("the log closes");
                return Err(error);
            }
        }
        let group = Group::open(params).await?;
        keeper.add(group.clone());
        let service = serve((&group, &watch), hello, (net.clone(), run));
        Ok(Rc::new(Self {
            replica,
            group,
            store,
            log,
            keeper,
            faults,
            copies,
            metrics,
            control,
            run,
            net: net.clone(),
            watch: RefCell::new(Some(watch)),
            service: RefCell::new(Some(service)),
        }))
    }

    /// Cuts the power: from this very call on nobody hears of this node, and only what its device
    /// keeps is left.
    pub async fn crash(&self, survivors: Survivors) -> Medium {
        self.net.leave(self.run);
        let (device, control) = self.control.crash(survivors);
        drop(self.watch.take());
        self.keeper.stop();
        self.keeper.remove(COPYSET);
        // Its tasks may hang on a faulty device: nobody waits for them.
        let group = self.group.clone();
        drop(ogee_runtime::spawn(async move { group.shutdown().await }));
        if let Some(service) = self.service.take() {
            service.close().await;
        }
        Medium {
            replica: self.replica,
            device,
            control,
        }
    }

    /// Ends it in an orderly way, without a last checkpoint.
    pub async fn stop(&self) -> Medium {
        self.group.shutdown().await;
        self.log.close().await.expect("the log closes");
        self.crash(Survivors::All).await
    }

    /// Proposes; what a dead node answers is not known.
    pub async fn mutate(&self, command: Command) -> Outcome {
        let outcome = self.group.mutate(command).await;
        if self.net.is_live(self.run) {
            return outcome;
        }
        Outcome {
            status: Status::Unknown,
            hint: None,
        }
    }

    /// Nobody hears it and it hears nobody, but it runs on.
    pub fn cut_off(&self) {
        self.net.leave(self.run);
    }

    /// It hears nobody, but is heard, and gets answers.
    pub fn deafen(&self) {
        self.net.deafen(self.run);
    }

    pub fn reconnect(&self) {
        self.net.rejoin(self.run);
    }

    pub fn leads(&self) -> bool {
        let report = self.group.report();
        report.is_leader && report.is_running
    }
}

pub fn caller_options() -> CallerOptions {
    CallerOptions {
        call_timeout: Duration::from_secs(2),
        connect_wait: Duration::from_millis(100),
        backoff_min: Duration::from_millis(2),
        backoff_max: Duration::from_millis(20),
        ..CallerOptions::default()
    }
}

fn serve(
    (group, watch): (&Group, &Rc<Watch>),
    hello: Hello,
    (net, run): (Rc<Net>, Run),
) -> Service {
    let replica = group.replica_id();
    let listener = Listener::bind(&net.endpoint(replica)).expect("the endpoint is free");
    let (group, watch) = (group.clone(), watch.clone());
    let handler = move |peer: Peer, frame: Frame| {
        let from = Run::from_number(peer.hello().node);
        if net.hears(run) && net.is_live(from) {
            net.count(frame.header.kind);
            match frame.header.kind {
                FrameKind::Beat => watch.on_beat(&peer, &frame),
                FrameKind::Digest if net.is_old(group.replica_id()) => {
                    reply(&peer, refusal(&frame.header, Status::BadRequest));
                }
                _ => route(&group, peer, frame),
            }
        }
    };
    Service::serve(listener, hello, Rc::new(handler))
}

/// As a shard does it for a replica whose log is damaged.
fn serve_damaged(mender: &Rc<Mender>, hello: Hello, (net, run): (Rc<Net>, Run)) -> Service {
    let listener =
        Listener::bind(&net.endpoint(mender.replica_id())).expect("the endpoint is free");
    let mender = mender.clone();
    let handler = move |peer: Peer, frame: Frame| {
        let from = Run::from_number(peer.hello().node);
        if !net.hears(run) || !net.is_live(from) {
            return;
        }
        if frame.header.kind != FrameKind::LogEntries {
            return reply(&peer, refusal(&frame.header, Status::NoCopyset));
        }
        let mender = mender.clone();
        drop(ogee_runtime::spawn(async move {
            reply(&peer, mender.on_log_entries(frame).await);
        }));
    };
    Service::serve(listener, hello, Rc::new(handler))
}

/// As a shard does it, for one group.
pub fn route(group: &Group, peer: Peer, frame: Frame) {
    if frame.header.epoch.get() != group.replica_id().get() {
        return reply(&peer, refusal(&frame.header, Status::NoCopyset));
    }
    match frame.header.kind {
        FrameKind::AppendEntries => group.on_append(&peer, frame),
        FrameKind::AppendClose => group.on_append_close(&peer, &frame.header),
        _ => {
            let group = group.clone();
            drop(ogee_runtime::spawn(async move {
                let answer = match frame.header.kind {
                    FrameKind::Vote => group.on_vote(frame).await,
                    FrameKind::Snapshot => group.on_snapshot(frame).await,
                    FrameKind::LogEntries => group.on_log_entries(frame).await,
                    FrameKind::Blocks => group.on_blocks(frame).await,
                    FrameKind::Digest if frame.header.length == ASK_PIECE => {
                        group.on_piece(frame).await
                    }
                    FrameKind::TransferLeader => group.on_transfer_leader(frame).await,
                    _ => refusal(&frame.header, Status::BadRequest),
                };
                reply(&peer, answer);
            }));
        }
    }
}

pub fn refusal(header: &FrameHeader, status: Status) -> Frame {
    Frame::new(FrameHeader::reply(header, status))
}

pub fn reply(peer: &Peer, frame: Frame) {
    // The asker may be gone.
    let _ = peer.reply(frame);
}
