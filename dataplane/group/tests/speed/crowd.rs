//! Three stores with several groups each, as shards have them. What reaches a replica of a group can be
//! held up, and a replica can be left unopened, while the store's other groups go on.

use crate::common::net::Net;
use crate::common::node::{
    DEVICE_LEN, LOG_LEN, QUICK, caller_options, log_of, refusal, reply, route,
};
use crate::common::pause;
use ogee_device::Device;
use ogee_group::{
    Command, CopyBudget, Group, GroupMetrics, GroupParams, PeerBook, StoreKeeper, Watch,
};
use ogee_log::Log;
use ogee_proto::id::{CopysetId, ReplicaId, StoreId};
use ogee_proto::wire::{FrameKind, Status};
use ogee_store::{Store, StoreParams};
use ogee_transport::{Frame, Hello, Listener, Peer, Role, Service};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;
use uuid::Uuid;

/// What happens to requests for a replica of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holdup {
    /// None arrives.
    Stopped,
    /// Entries take their time: so many bytes per second.
    Limping(u64),
}

/// Three stores with the same groups.
pub struct Crowd {
    hosts: Vec<Rc<Host>>,
}

/// A store, its groups, and a service that routes to them.
pub struct Host {
    pub replica: ReplicaId,
    pub log: Log,
    store: Store,
    keeper: StoreKeeper,
    peers: Rc<PeerBook>,
    watch: Rc<Watch>,
    copies: Rc<CopyBudget>,
    groups: RefCell<BTreeMap<CopysetId, Group>>,
    holdups: RefCell<BTreeMap<CopysetId, Holdup>>,
    limping: RefCell<VecDeque<(Peer, Frame)>>,
    service: RefCell<Option<Service>>,
}

impl Crowd {
    /// Three stores with these groups, each of which has a leader.
    pub async fn of(copysets: &[CopysetId]) -> Self {
        let net = Net::new(QUICK);
        let replicas = [1, 2, 3].map(ReplicaId::new);
        let mut hosts = Vec::new();
        for replica in replicas {
            hosts.push(Host::start(replica, copysets, &net).await);
        }
        let crowd = Self { hosts };
        for copyset in copysets {
            let members = replicas.map(|replica| (replica, net.member(replica)));
            let first = crowd.hosts[0].group(*copyset).expect("it runs");
            first.bootstrap(members.into()).await.expect("bootstrap");
            crowd.leader(*copyset).await;
        }
        crowd
    }

    pub fn hosts(&self) -> &[Rc<Host>] {
        &self.hosts
    }

    /// Who leads a group, waiting for somebody to.
    pub async fn leader(&self, copyset: CopysetId) -> Rc<Host> {
        loop {
            let leads = |host: &&Rc<Host>| {
                let report = host.group(copyset).map(|group| group.report());
                report.is_some_and(|report| report.is_leader && report.is_running)
            };
            if let Some(host) = self.hosts.iter().find(leads) {
                return host.clone();
            }
            pause().await;
        }
    }

    /// Those of a group's hosts that do not lead it.
    pub async fn followers(&self, copyset: CopysetId) -> Vec<Rc<Host>> {
        let leader = self.leader(copyset).await.replica;
        let others = self.hosts.iter().filter(|host| host.replica != leader);
        others.cloned().collect()
    }

    /// Proposes to a group until somebody gives an answer that counts.
    pub async fn mutate(&self, copyset: CopysetId, command: &Command) -> Status {
        loop {
            let group = self.leader(copyset).await.group(copyset);
            let Some(group) = group else { continue };
            match group.mutate(command.clone()).await.status {
                Status::NotLeader | Status::Retry | Status::Unknown | Status::Io => pause().await,
                status => return status,
            }
        }
    }

    /// Ends all of it.
    pub async fn end(&self) {
        for host in &self.hosts {
            host.end().await;
        }
    }
}

impl Host {
    async fn start(replica: ReplicaId, copysets: &[CopysetId], net: &Net) -> Rc<Self> {
        let device = Device::memory(DEVICE_LEN);
        let mut store = [0x51; 16];
        store[..8].copy_from_slice(&replica.get().to_le_bytes());
        let params = StoreParams {
            store: StoreId::from_bytes(store),
            cluster: Uuid::from_bytes([0xc2; 16]),
            log_len: LOG_LEN,
            force: false,
        };
        Store::format(&device, params).await.expect("format");
        let store = Store::open(&device).await.expect("open");
        let (region, options) = log_of(&store);
        Log::format(&device, region, options).await.expect("format");
        let log = Log::open(&device, region, options).await.expect("open");
        let hello = Hello::new(Role::Chunkserver, net.join().number(), replica.to_string());
        let peers = Rc::new(PeerBook::new(hello.clone(), caller_options()));
        let host = Rc::new(Self {
            replica,
            keeper: StoreKeeper::start(store.clone(), log.clone()),
            store,
            log,
            watch: Watch::start(peers.clone(), QUICK),
            peers,
            copies: Rc::new(CopyBudget::new(None)),
            groups: RefCell::default(),
            holdups: RefCell::default(),
            limping: RefCell::default(),
            service: RefCell::default(),
        });
        for copyset in copysets {
            let created = Group::create(&host.store, *copyset, replica).await;
            created.expect("create");
            host.open(*copyset).await;
        }
        let listener = Listener::bind(&net.endpoint(replica)).expect("the endpoint is free");
        let routing = host.clone();
        let handler = move |peer: Peer, frame: Frame| routing.take(peer, frame);
        *host.service.borrow_mut() = Some(Service::serve(listener, hello, Rc::new(handler)));
        host
    }

    /// Opens the replica of a group.
    pub async fn open(&self, copyset: CopysetId) {
        let params = GroupParams {
            copyset,
            log: self.log.clone(),
            store: self.store.clone(),
            peers: self.peers.clone(),
            watch: self.watch.clone(),
            config: QUICK,
            metrics: Rc::new(GroupMetrics::default()),
            copies: self.copies.clone(),
        };
        let group = Group::open(params).await.expect("it opens");
        self.keeper.add(group.clone());
        self.groups.borrow_mut().insert(copyset, group);
    }

    /// From now on the replica of a group is as if it could not be opened: its part of the log is
    /// there, and nobody purges it.
    pub async fn leave_unopened(&self, copyset: CopysetId) {
        let group = self.groups.borrow_mut().remove(&copyset);
        self.keeper.remove(copyset);
        group.expect("it runs").shutdown().await;
    }

    pub fn group(&self, copyset: CopysetId) -> Option<Group> {
        self.groups.borrow().get(&copyset).cloned()
    }

    /// Holds the replica of a group up, or does so no more.
    pub fn hold_up(&self, copyset: CopysetId, holdup: Option<Holdup>) {
        let mut holdups = self.holdups.borrow_mut();
        match holdup {
            Some(holdup) => holdups.insert(copyset, holdup),
            None => holdups.remove(&copyset),
        };
    }

    fn holdup(&self, copyset: CopysetId) -> Option<Holdup> {
        self.holdups.borrow().get(&copyset).copied()
    }

    fn take(self: &Rc<Self>, peer: Peer, frame: Frame) {
        let (copyset, kind) = (frame.header.copyset, frame.header.kind);
        match (kind, self.holdup(copyset)) {
            (FrameKind::Beat, _) => self.watch.on_beat(&peer, &frame),
            (_, Some(Holdup::Stopped)) => {}
            (FrameKind::AppendEntries, Some(Holdup::Limping(_))) => self.limp(peer, frame),
            _ => self.route(peer, frame),
        }
    }

    fn route(&self, peer: Peer, frame: Frame) {
        match self.group(frame.header.copyset) {
            Some(group) => route(&group, peer, frame),
            None => reply(&peer, refusal(&frame.header, Status::NoCopyset)),
        }
    }

    /// One after the other, in order.
    fn limp(self: &Rc<Self>, peer: Peer, frame: Frame) {
        let mut waiting = self.limping.borrow_mut();
        waiting.push_back((peer, frame));
        if waiting.len() > 1 {
            return;
        }
        let host = self.clone();
        drop(ogee_runtime::spawn(async move {
            loop {
                let next = host.limping.borrow().front().cloned();
                let Some((peer, frame)) = next else { return };
                if let Some(Holdup::Limping(rate)) = host.holdup(frame.header.copyset) {
                    let bytes = frame.payload.len() as f64;
                    ogee_runtime::sleep(Duration::from_secs_f64(bytes / rate as f64)).await;
                }
                host.route(peer, frame);
                host.limping.borrow_mut().pop_front();
            }
        }));
    }

    async fn end(&self) {
        let groups = std::mem::take(&mut *self.groups.borrow_mut());
        for (copyset, group) in groups {
            self.keeper.remove(copyset);
            group.shutdown().await;
        }
        self.keeper.stop();
        if let Some(service) = self.service.take() {
            service.close().await;
        }
        self.log.close().await.expect("the log closes");
    }
}
