//! Some nodes, and a client that finds the leader.

use super::net::Net;
use super::node::{COPYSET, LOG_LEN, Medium, Node, QUICK};
use super::{pause, until};
use ogee_device::Survivors;
use ogee_group::command;
use ogee_group::{
    Command, CommandHead, CommandKind, GroupConfig, GroupDigest, GroupError, Outcome, ReadRun,
    ReplicaNode,
};
use ogee_proto::id::{
    ChunkKey, ClientId, Epoch, Incarnation, LogId, ReplicaId, Sequence, VolumeId,
};
use ogee_proto::unit::ByteLen;
use ogee_proto::wire::{FrameKind, Status};
use ogee_runtime::Payload;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::rc::{Rc, Weak};
use std::time::Duration;

/// How long a digest that is due may take, and how often it is asked for.
const DIGEST_WAIT: Duration = Duration::from_secs(8);
const DIGEST_TRIES: usize = 4;

thread_local! {
    static ALL: RefCell<Vec<Weak<Cluster>>> = const { RefCell::new(Vec::new()) };
}

/// How every cluster of this test stands, for when one hangs.
pub fn describe_all() -> String {
    let mut text = String::new();
    for cluster in ALL.with_borrow(|all| all.iter().filter_map(Weak::upgrade).collect::<Vec<_>>()) {
        for node in cluster.nodes() {
            let (report, log) = (node.group.report(), node.log.group(COPYSET).state());
            let (usage, failure) = (node.log.usage(), node.log.failure());
            let keeper = (node.keeper.metrics(), node.keeper.failure());
            let voters = node.group.voters();
            writeln!(
                text,
                "{report:#?} {log:?} {usage:?} {failure:?} {keeper:?} {voters:?}"
            )
            .expect("a string takes it");
        }
    }
    text
}

/// A group's nodes.
pub struct Cluster {
    log_len: ByteLen,
    net: Rc<Net>,
    nodes: RefCell<BTreeMap<ReplicaId, Rc<Node>>>,
    digests: Cell<u64>,
}

impl Cluster {
    /// Three nodes that are a group.
    pub async fn of_three() -> Rc<Self> {
        Self::with_times(QUICK).await
    }

    /// Three nodes that are a group with these times.
    pub async fn with_times(config: GroupConfig) -> Rc<Self> {
        Self::with_log(config, LOG_LEN).await
    }

    /// The same, with logs of this length.
    pub async fn with_log(config: GroupConfig, log_len: ByteLen) -> Rc<Self> {
        let cluster = Rc::new(Self {
            log_len,
            net: Rc::new(Net::new(config)),
            nodes: RefCell::default(),
            digests: Cell::new(0),
        });
        ALL.with_borrow_mut(|all| all.push(Rc::downgrade(&cluster)));
        let replicas = [1, 2, 3].map(ReplicaId::new);
        for replica in replicas {
            cluster.add(replica).await;
        }
        let members = replicas
            .map(|replica| (replica, cluster.net.member(replica)))
            .into();
        let first = cluster.node(replicas[0]);
        first.group.bootstrap(members).await.expect("bootstrap");
        cluster.leader().await;
        cluster
    }

    /// Nodes that start from now on have these times.
    pub fn set_times(&self, config: GroupConfig) {
        self.net.set_config(config);
    }

    /// This replica answers like a program that does not compare pieces; None: all do.
    pub fn set_old(&self, replica: Option<ReplicaId>) {
        self.net.set_old(replica);
    }

    /// Requests of that kind that have reached any node.
    pub fn heard(&self, kind: FrameKind) -> u64 {
        self.net.heard(kind)
    }

    /// Starts a node with an empty store.
    pub async fn add(&self, replica: ReplicaId) -> Rc<Node> {
        let medium = Medium::format(replica, self.log_len).await;
        self.restart(medium).await
    }

    /// Starts a node from its medium.
    pub async fn restart(&self, medium: Medium) -> Rc<Node> {
        let node = Node::start(medium, &self.net).await;
        let old = self.nodes.borrow_mut().insert(node.replica, node.clone());
        assert!(old.is_none(), "it was down");
        node
    }

    /// Starts a node from its medium, if it can be.
    pub async fn try_restart(&self, medium: Medium) -> Result<Rc<Node>, GroupError> {
        let node = Node::try_start(medium, &self.net).await?;
        let old = self.nodes.borrow_mut().insert(node.replica, node.clone());
        assert!(old.is_none(), "it was down");
        Ok(node)
    }

    pub async fn crash(&self, replica: ReplicaId, survivors: Survivors) -> Medium {
        self.take(replica).crash(survivors).await
    }

    pub async fn stop(&self, replica: ReplicaId) -> Medium {
        self.take(replica).stop().await
    }

    /// Ends all of it.
    pub async fn end(&self) {
        for node in self.nodes() {
            drop(self.stop(node.replica).await);
        }
    }

    fn take(&self, replica: ReplicaId) -> Rc<Node> {
        let node = self.nodes.borrow_mut().remove(&replica);
        node.expect("it runs")
    }

    pub fn node(&self, replica: ReplicaId) -> Rc<Node> {
        self.nodes.borrow()[&replica].clone()
    }

    pub fn nodes(&self) -> Vec<Rc<Node>> {
        self.nodes.borrow().values().cloned().collect()
    }

    /// Who leads now, waiting for somebody to.
    pub async fn leader(&self) -> Rc<Node> {
        loop {
            let leading = self.nodes().into_iter().filter(|node| node.leads());
            if let Some(leader) = leading.max_by_key(|node| node.group.report().term) {
                return leader;
            }
            pause().await;
        }
    }

    /// Everybody else.
    pub async fn followers(&self) -> Vec<Rc<Node>> {
        let leader = self.leader().await.replica;
        let mut nodes = self.nodes();
        nodes.retain(|node| node.replica != leader);
        nodes
    }

    /// Proposes until somebody gives an answer that counts.
    pub async fn mutate(&self, command: &Command) -> Status {
        loop {
            match self.leader().await.mutate(command.clone()).await.status {
                Status::NotLeader | Status::Retry | Status::Unknown | Status::Io => pause().await,
                status => return status,
            }
        }
    }

    /// Reads through whoever leads.
    pub async fn read(&self, head: &CommandHead) -> Result<Vec<u8>, Status> {
        loop {
            match self.leader().await.group.read(head).await {
                Ok(runs) => return Ok(joined(runs)),
                Err(Outcome { status, .. }) => match status {
                    Status::NotLeader | Status::Retry | Status::Io => pause().await,
                    status => return Err(status),
                },
            }
        }
    }

    /// Makes a replica the leader.
    pub async fn transfer_to(&self, replica: ReplicaId) {
        loop {
            let leader = self.leader().await;
            if leader.replica == replica {
                return;
            }
            leader.group.transfer_leader(replica).await.expect("runs");
            pause().await;
        }
    }

    /// Waits until every replica has applied what the leader has now.
    pub async fn settle(&self) {
        let applied: LogId = self.leader().await.group.report().applied;
        for node in self.nodes() {
            until(|| node.group.report().applied >= applied).await;
        }
    }

    /// Writes back and makes a checkpoint on every node.
    pub async fn checkpoint(&self) {
        for node in self.nodes() {
            assert!(
                node.keeper.checkpoint_now().await,
                "{:?}",
                node.keeper.failure()
            );
        }
    }

    /// Has every replica digest its contents as of one entry; they must agree.
    pub async fn agreed_digest(&self) -> Rc<GroupDigest> {
        for _ in 0..DIGEST_TRIES {
            let id = self.propose_digest().await;
            if let Some(agreed) = self.collect_digest(id).await {
                return agreed;
            }
        }
        panic!("not all replicas digest: {}", describe_all());
    }

    /// `None` when a replica has none: a copy has carried it past the digest's entry.
    async fn collect_digest(&self, id: u64) -> Option<Rc<GroupDigest>> {
        let mut agreed: Option<Rc<GroupDigest>> = None;
        for node in self.nodes() {
            let digest = ogee_runtime::timeout(DIGEST_WAIT, node.group.digest(id)).await;
            let digest = digest.ok()?.expect("digest");
            if let Some(agreed) = &agreed {
                assert_eq!(*agreed, digest, "{} differs", node.replica);
            }
            agreed = Some(digest);
        }
        agreed
    }

    /// Under a fresh id each time, so that the digest that counts stands in the log once.
    pub async fn propose_digest(&self) -> u64 {
        loop {
            let id = self.digests.get() + 1;
            self.digests.set(id);
            let digest = administrative(CommandKind::Digest, VolumeId::new(0), id);
            if self.leader().await.mutate(digest).await.status == Status::Ok {
                return id;
            }
            pause().await;
        }
    }

    pub async fn remove_volume(&self, volume: VolumeId) {
        let removal = administrative(CommandKind::RemoveVolume, volume, 0);
        assert_eq!(self.mutate(&removal).await, Status::Ok);
    }

    /// A replica as a configuration names it.
    pub fn member(&self, replica: ReplicaId) -> ReplicaNode {
        self.net.member(replica)
    }

    /// Makes these the voters.
    pub async fn change_members(&self, replicas: &[ReplicaId]) {
        loop {
            let members = replicas
                .iter()
                .map(|replica| (*replica, self.net.member(*replica)));
            let leader = self.leader().await;
            match leader.group.change_members(members.collect()).await {
                Ok(()) => return,
                Err(outcome) => {
                    assert_ne!(outcome.status, Status::BadRequest);
                    pause().await;
                }
            }
        }
    }
}

fn administrative(kind: CommandKind, volume: VolumeId, sequence: u64) -> Command {
    let head = CommandHead {
        kind,
        key: ChunkKey {
            volume,
            ..ChunkKey::default()
        },
        offset: 0,
        length: 0,
        client: ClientId::new(0),
        epoch: Epoch::new(0),
        incarnation: Incarnation::new(0),
        sequence: Sequence::new(sequence),
        watermark: Sequence::new(0),
    };
    command(head, Payload::empty(), 0)
}

fn joined(runs: Vec<ReadRun>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for run in runs {
        match run {
            ReadRun::Data(data) => bytes.extend_from_slice(&data),
            ReadRun::Zeros(len) => bytes.resize(bytes.len() + len, 0),
        }
    }
    bytes
}
