//! The Raft thread.
//!
//! *Place*: the far end of [`RaftClient`]'s queues.
//! *Owner*: a thread of its own; everything here runs in its `LocalSet`.
//! *Invariants*: requests and Raft messages wait in separate queues, and only requests are
//! limited in number, so that a group without quorum can always hear of a new leader.
//! *On failure*: when Raft stops for good, the thread ends with the reason and tells the rest.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use ogee_proto::name::Name;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, ForwardToLeader, RaftError};
use openraft::impls::BasicNode;
use openraft::raft::ReadPolicy;
use openraft::{Config, SnapshotPolicy};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::client::{Consistency, Members, Position, Queues, RaftClient, Request, View};
use super::error::{NodeError, PeerError, Unavailable, WriteError};
use super::ledger::Ledger;
use super::log_store::LogStore;
use super::machine::{Machine, Shared};
use super::network::Network;
use super::peer::{self, PeerRequest, Sender};
use super::types::{Group, Raft, StoredMembership};
use super::versions::{self, Said};
use crate::limit::{
    IN_FLIGHT_MAX, LEADER_WAIT, LOG_ENTRIES_KEPT, LOG_ENTRIES_PER_SNAPSHOT, PEER_QUEUE,
    RAFT_ELECTION_MS, RAFT_HEARTBEAT_MS, REQUEST_QUEUE, REQUEST_TIMEOUT, RETRY_PAUSE,
};
use crate::state::{Command, InitCluster, Reply};

const THREAD: &str = "ogee-mds-raft";

/// What the Raft thread must know.
#[derive(Clone, Debug)]
pub(crate) struct NodeConfig {
    /// This member.
    pub(crate) id: u64,
    /// Addresses of the group by id.
    pub(crate) members: BTreeMap<u64, String>,
    /// Name of the cluster.
    pub(crate) cluster: Name,
    /// On its first start it forms no group, but waits until it is taken into one.
    pub(crate) join: bool,
    /// What this release understands, or acts as if it did.
    pub(crate) version: u32,
}

/// The running thread.
pub(crate) struct Node {
    stop: watch::Sender<bool>,
    thread: JoinHandle<Result<(), NodeError>>,
}

impl Node {
    /// Starts the thread and waits until Raft has read the ledger. `on_end` is called when the
    /// thread ends, for whatever reason.
    pub(crate) fn start(
        config: NodeConfig,
        ledger: Ledger,
        on_end: impl FnOnce() + Send + 'static,
    ) -> Result<(RaftClient, Self), NodeError> {
        let (client, queues) = RaftClient::new();
        let (stop, stopped) = watch::channel(false);
        let (started, starting) = sync_channel(1);
        let body = move || {
            let ended = run(config, ledger, queues, stopped, &started);
            on_end();
            ended
        };
        let thread = std::thread::Builder::new().name(THREAD.into()).spawn(body);
        let thread = thread.map_err(NodeError::Thread)?;
        let node = Self { stop, thread };
        match starting.recv() {
            Ok(()) => Ok((client, node)),
            Err(_) => Err(node.stop().err().unwrap_or(NodeError::Panicked)),
        }
    }

    /// Stops the thread, if it still runs, and tells how it ended.
    pub(crate) fn stop(self) -> Result<(), NodeError> {
        // A receiver that is gone has ended already.
        self.stop.send_replace(true);
        self.thread.join().map_err(|_| NodeError::Panicked)?
    }
}

fn run(
    config: NodeConfig,
    ledger: Ledger,
    queues: Queues,
    stopped: watch::Receiver<bool>,
    started: &SyncSender<()>,
) -> Result<(), NodeError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(NodeError::Thread)?;
    let local = LocalSet::new();
    local.block_on(&runtime, async move {
        let core = Rc::new(Core::open(config, ledger).await?);
        // Nobody waits any more when the starter gave up; then the queues close and we stop.
        started.send(()).ok();
        core.serve(queues, stopped).await
    })
}

/// Raft and the state it applies to.
pub(super) struct Core {
    pub(super) config: NodeConfig,
    pub(super) raft: Raft,
    pub(super) state: Shared,
    /// The members, and the record that they were read from.
    pub(super) members: RefCell<Option<(Arc<StoredMembership>, Arc<Members>)>>,
    /// The term in which leadership was handed over by this one: its lease says nothing any more.
    pub(super) unleased: Cell<u64>,
    /// What the other members have said that they understand.
    pub(super) said: Said,
    /// The group uses what this release does not understand.
    pub(super) outdated: RefCell<Option<NodeError>>,
    pub(super) outdated_told: Notify,
}

impl Core {
    async fn open(config: NodeConfig, ledger: Ledger) -> Result<Self, NodeError> {
        let ledger = Rc::new(ledger);
        let machine = Machine::open(Rc::clone(&ledger)).map_err(failed)?;
        let state = machine.shared();
        let said = Said::default();
        let network = Network {
            me: config.id,
            cluster: config.cluster.as_str().into(),
            members: Rc::new(config.members.clone()),
            state: Rc::clone(&state),
            version: config.version,
            said: Rc::clone(&said),
        };
        let settings = Arc::new(settings(&config).validate().map_err(failed)?);
        let log = LogStore::new(ledger);
        let raft = Raft::new(config.id, settings, network, log, machine)
            .await
            .map_err(failed)?;
        let core = Self {
            config,
            raft,
            state,
            members: RefCell::default(),
            unleased: Cell::default(),
            said,
            outdated: RefCell::default(),
            outdated_told: Notify::new(),
        };
        core.form_group().await?;
        Ok(core)
    }

    /// First start: every member proposes the same configured group, which openraft allows.
    async fn form_group(&self) -> Result<(), NodeError> {
        if self.raft.is_initialized().await.map_err(failed)? {
            let members = self.members();
            let voters = members.iter().filter(|(_, member)| member.is_voter);
            if voters.map(|(id, _)| *id).eq([self.config.id]) {
                // Nobody else can lead: no need to wait for the election timeout.
                self.raft.trigger().elect(false).await.map_err(failed)?;
            }
            return Ok(());
        }
        if self.config.join {
            tracing::info!("waiting to be taken into a group: ogee mds add");
            return Ok(());
        }
        let members = self.config.members.iter();
        let members: BTreeMap<u64, BasicNode> = members
            .map(|(id, addr)| (*id, BasicNode { addr: addr.clone() }))
            .collect();
        match self.raft.initialize(members).await {
            // A leader may have got here first.
            Ok(()) | Err(RaftError::APIError(_)) => Ok(()),
            Err(RaftError::Fatal(fatal)) => Err(failed(fatal)),
        }
    }

    async fn serve(
        self: Rc<Self>,
        queues: Queues,
        mut stopped: watch::Receiver<bool>,
    ) -> Result<(), NodeError> {
        let tasks = [
            spawn_local(Rc::clone(&self).take_requests(queues.requests)),
            spawn_local(Rc::clone(&self).take_peers(queues.peers)),
            spawn_local(Rc::clone(&self).name_cluster()),
            spawn_local(Rc::clone(&self).raise_versions()),
        ];
        let ended = tokio::select! {
            // An error means that the handle was leaked or lost: stop as well.
            _ = stopped.wait_for(|stop| *stop) => Ok(()),
            error = self.fatal() => Err(error),
            error = self.outdated() => Err(error),
        };
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
        // Already stopped is as good.
        self.raft.shutdown().await.ok();
        ended
    }

    async fn take_requests(self: Rc<Self>, mut queue: mpsc::Receiver<Request>) {
        let permits = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        while let Some(request) = queue.recv().await {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                return;
            };
            let core = Rc::clone(&self);
            spawn_local(async move {
                core.answer(request).await;
                drop(permit);
            });
        }
    }

    async fn take_peers(self: Rc<Self>, mut queue: mpsc::Receiver<PeerRequest>) {
        let permits = Arc::new(Semaphore::new(PEER_QUEUE));
        while let Some(request) = queue.recv().await {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                return;
            };
            let core = Rc::clone(&self);
            spawn_local(async move {
                let answer = match core.check_sender(request.sender) {
                    Ok(()) => peer::answer(&core.raft, request.call, &request.body).await,
                    Err(error) => Err(error),
                };
                // The caller may have given up.
                request.reply.send(answer).ok();
                drop(permit);
            });
        }
    }

    fn check_sender(&self, sender: Sender) -> Result<(), PeerError> {
        self.check_group(sender.group)?;
        if self.members().contains_key(&sender.id) {
            let version = versions::said(sender.version);
            self.said.borrow_mut().insert(sender.id, version);
        }
        let (needed, ours) = (sender.needed, self.config.version);
        match self.check_understood(sender.id, needed) {
            true => Ok(()),
            false => Err(PeerError::Outdated { needed, ours }),
        }
    }

    /// Metadata that was restored is another group's, though the members and the cluster are named alike:
    /// what both would make of each other's messages is not the metadata of either. A member without any
    /// is taken in by whoever sends it its own.
    fn check_group(&self, theirs: u64) -> Result<(), PeerError> {
        let state = Arc::clone(&self.state.borrow().state);
        let ours = state.group();
        let is_new = state.cluster().is_none() && ours == 0;
        if ours == theirs || is_new {
            Ok(())
        } else {
            Err(PeerError::OtherGroup { theirs, ours })
        }
    }

    /// Callers may have given up, so a reply that nobody takes is no error.
    async fn answer(&self, request: Request) {
        match request {
            Request::Write { command, reply } => {
                let answer = timeout(REQUEST_TIMEOUT, self.write(command)).await;
                let answer = answer.unwrap_or_else(|_| Err(Unavailable::TimedOut.into()));
                reply.send(answer).ok();
            }
            Request::Read { consistency, reply } => {
                let answer = timeout(REQUEST_TIMEOUT, self.view(consistency)).await;
                let answer = answer.unwrap_or(Err(Unavailable::TimedOut));
                reply.send(answer).ok();
            }
            Request::Change { change, reply } => {
                let answer = timeout(REQUEST_TIMEOUT, self.change_members(change)).await;
                let answer = answer.unwrap_or_else(|_| Err(Unavailable::TimedOut.into()));
                reply.send(answer).ok();
            }
            Request::HandOver { to, reply } => {
                let answer = timeout(REQUEST_TIMEOUT, self.hand_over(to)).await;
                let answer = answer.unwrap_or_else(|_| Err(Unavailable::TimedOut.into()));
                reply.send(answer).ok();
            }
            Request::Progress { reply } => {
                reply.send(self.progress()).ok();
            }
        }
    }

    async fn write(&self, command: Command) -> Result<Reply, WriteError> {
        let deadline = Instant::now() + LEADER_WAIT;
        loop {
            if self.leader() == Some(self.config.id) {
                self.check_version(&command).await?;
            }
            match self.raft.client_write(command.clone()).await {
                Ok(response) => return Ok(response.data?),
                Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                    self.wait_for_leader(Some(&forward), deadline).await?;
                }
                Err(RaftError::APIError(_)) => return Err(Unavailable::Unknown.into()),
                Err(RaftError::Fatal(_)) => return Err(Unavailable::Stopped.into()),
            }
        }
    }

    async fn view(&self, consistency: Consistency) -> Result<View, Unavailable> {
        if consistency == Consistency::Latest {
            self.catch_up().await?;
        }
        let purged = self.raft.data_metrics().borrow_watched().purged;
        let members = self.members();
        let applied = self.state.borrow();
        let position = applied.last.map(|id| Position {
            term: id.leader_id.term,
            index: id.index,
        });
        Ok(View {
            state: Arc::clone(&applied.state),
            leader: self.leader(),
            term: self.term(),
            purged: purged.map_or(0, |id| id.index),
            applied: position.unwrap_or_default(),
            members,
        })
    }

    pub(super) fn leader(&self) -> Option<u64> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.current_leader
    }

    pub(super) fn term(&self) -> u64 {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.vote.leader_id.term
    }

    /// Returns when the applied state holds every write acknowledged before the call.
    pub(super) async fn catch_up(&self) -> Result<(), Unavailable> {
        let deadline = Instant::now() + LEADER_WAIT;
        loop {
            let policy = if self.unleased.get() == self.term() {
                ReadPolicy::ReadIndex
            } else {
                ReadPolicy::LeaseRead
            };
            match self.raft.ensure_linearizable(policy).await {
                Ok(_) => return Ok(()),
                Err(RaftError::Fatal(_)) => return Err(Unavailable::Stopped),
                Err(error) => {
                    self.wait_for_leader(error.forward_to_leader(), deadline)
                        .await?;
                }
            }
        }
    }

    /// Returns to try again: this member is about to lead, or nobody does yet.
    async fn wait_for_leader(
        &self,
        forward: Option<&ForwardToLeader<Group>>,
        deadline: Instant,
    ) -> Result<(), Unavailable> {
        let leader = forward
            .and_then(|f| f.leader_id)
            .filter(|id| *id != self.config.id);
        if let Some(id) = leader {
            let members = self.members();
            let node = forward
                .and_then(|f| f.leader_node.as_ref())
                .map(|n| &n.addr);
            let known = members.get(&id).map(|member| &member.addr);
            let addr = known.or(node).cloned().unwrap_or_default();
            return Err(Unavailable::NotLeader { id, addr });
        }
        if Instant::now() >= deadline {
            return Err(Unavailable::NoLeader);
        }
        sleep(RETRY_PAUSE).await;
        Ok(())
    }

    /// The first leader draws the cluster's id. A second draw changes nothing.
    async fn name_cluster(self: Rc<Self>) {
        let mut metrics = self.raft.server_metrics();
        loop {
            let leads = metrics.borrow_watched().current_leader == Some(self.config.id);
            if self.state.borrow().state.cluster().is_some() {
                return;
            }
            if leads {
                let name = self.config.cluster.clone();
                let command = InitCluster {
                    id: Uuid::new_v4(),
                    name,
                };
                match self.write(Command::InitCluster(command)).await {
                    Ok(_) => return,
                    Err(error) => tracing::warn!(%error, "the cluster has no id yet"),
                }
            }
            // Metrics change with leadership; the pause covers a write that failed without one.
            let changed = timeout(LEADER_WAIT, metrics.changed()).await;
            if matches!(changed, Ok(Err(_))) {
                return;
            }
        }
    }

    /// Resolves when Raft has stopped by itself.
    async fn fatal(&self) -> NodeError {
        let mut metrics = self.raft.metrics();
        loop {
            if let Err(fatal) = &metrics.borrow_watched().running_state {
                return failed(fatal);
            }
            if metrics.changed().await.is_err() {
                return failed("its core is gone");
            }
        }
    }
}

fn failed(reason: impl std::fmt::Display) -> NodeError {
    NodeError::Raft {
        reason: reason.to_string(),
    }
}

fn settings(config: &NodeConfig) -> Config {
    Config {
        cluster_name: config.cluster.to_string(),
        heartbeat_interval: RAFT_HEARTBEAT_MS,
        election_timeout_min: RAFT_ELECTION_MS.0,
        election_timeout_max: RAFT_ELECTION_MS.1,
        install_snapshot_timeout: ms(REQUEST_TIMEOUT),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(LOG_ENTRIES_PER_SNAPSHOT),
        max_in_snapshot_log_to_keep: LOG_ENTRIES_KEPT,
        replication_lag_threshold: LOG_ENTRIES_PER_SNAPSHOT + LOG_ENTRIES_KEPT,
        api_channel_size: Some(REQUEST_QUEUE as u64),
        enable_pre_vote: Some(true),
        // Back from a crash in its old term, a leader would give indexes that its followers hold, and
        // it has lost, to other entries.
        enable_leader_restore: Some(false),
        ..Config::default()
    }
}

fn ms(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
