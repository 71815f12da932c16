//! A Raft group as the shard sees it: requests in, outcomes out.
//!
//! *Place*: between `shard`, which routes frames here, and openraft with log and store below.
//! *Owner*: one shard; cheap to clone.
//! *Invariants*: a write is answered only after a majority holds it durably and it was applied; a
//! read only after this replica was confirmed as leader: by its lease as of after the read came, or by
//! a round that began after that.
//! *On failure*: every outcome is a [`Status`]; what a client cannot act on is logged here.

use crate::append::AppendStreams;
use crate::command::{Command, CommandHead, PayloadRef};
use crate::config::GroupConfig;
use crate::digest::GroupDigest;
use crate::entries;
use crate::error::GroupError;
use crate::gate::Gate;
use crate::lease::{Abstention, Lease};
use crate::limit::{OVERLAY_BLOCKS_MAX, TRANSFER_LAG_MAX};
use crate::linearizer::{Linearizer, NotReadable};
use crate::log_store::LogStore;
use crate::machine::Machine;
use crate::metrics::{FoundBy, GroupMetrics};
use crate::network::NetworkFactory;
use crate::peers::PeerBook;
use crate::quiet::{Phase, Quiet};
use crate::read::ReadRun;
use crate::repair::Span;
use crate::replica::Replica;
use crate::room::Claim;
use crate::snapshot::{CopyBudget, Incoming};
use crate::types::{ReplicaNode, TypeConfig, from_raft};
use crate::watch::Watch;
use futures_util::FutureExt;
use ogee_log::Log;
use ogee_proto::id::{CopysetId, LogId, ReplicaId, Term, VolumeId};
use ogee_proto::unit::BlockIndex;
use ogee_proto::wire::Status;
use ogee_runtime::channel::oneshot;
use ogee_runtime::{Instant, ScopedTask, seeded_bug};
use ogee_store::Store;
use ogee_transport::Frame;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{
    ClientWriteError, Fatal, ForwardReason, ForwardToLeader, InitializeError, RaftError,
};
use openraft::impls::OneshotResponder;
use openraft::raft::{ClientWriteResponse, ClientWriteResult};
use openraft::{Raft, ServerState};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

/// Pause before a proposal that met an expired lease is tried again.
const LEASE_RETRY: Duration = Duration::from_millis(5);
/// How long a write may wait for room in the log before the client is told to come again.
const ROOM_WAIT: Duration = Duration::from_millis(200);
/// How long a write may wait for a quorum before the client is told to ask again: what it holds here
/// is needed by groups that have one. Below the client's own patience; dedupe makes asking safe.
const WRITE_WAIT: Duration = Duration::from_secs(3);
/// How long openraft may take to take note of a checkpoint.
const SNAPSHOT_NOTE: Duration = Duration::from_secs(5);

/// What to open.
pub struct GroupParams {
    /// The group.
    pub copyset: CopysetId,
    /// The store's log.
    pub log: Log,
    /// Where its blocks are.
    pub store: Store,
    /// How to reach its peers.
    pub peers: Rc<PeerBook>,
    /// Who watches over the shard's groups.
    pub watch: Rc<Watch>,
    /// Times.
    pub config: GroupConfig,
    /// Where to count, shared by the shard's groups.
    pub metrics: Rc<GroupMetrics>,
    /// What its copies may take, shared by the shard's groups.
    pub copies: Rc<CopyBudget>,
}

/// How a group stands, for heartbeats.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupReport {
    /// The group.
    pub copyset: CopysetId,
    /// This replica.
    pub replica: ReplicaId,
    /// Who leads, as far as is known here.
    pub leader: Option<ReplicaId>,
    /// Whether this replica leads.
    pub is_leader: bool,
    /// Current term.
    pub term: Term,
    /// Last applied entry.
    pub applied: LogId,
    /// Index of the last entry in the log.
    pub last_log: u64,
    /// Whether the group still runs.
    pub is_running: bool,
    /// Whether its ticks are off here, for want of requests.
    pub is_quiet: bool,
    /// Whether a copy of the contents is coming in, or broke off: the replica is no source then.
    pub is_installing: bool,
    /// Whether a copy that this replica sends gains nothing on the writers.
    pub is_outrun: bool,
    /// Requests that came since it was opened, and bytes of those that were let in.
    pub requests: u64,
    /// See `requests`.
    pub bytes: u64,
}

/// Outcome of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// For the client.
    pub status: Status,
    /// Who leads instead, with [`Status::NotLeader`].
    pub hint: Option<ReplicaId>,
}

impl Outcome {
    pub(crate) const fn of(status: Status) -> Self {
        Self { status, hint: None }
    }
}

/// A Raft group on this shard.
#[derive(Clone)]
pub struct Group {
    inner: Rc<Inner>,
}

struct Inner {
    replica: Rc<Replica>,
    raft: Raft<TypeConfig, Machine>,
    linearizer: Rc<Linearizer>,
    streams: AppendStreams,
    incoming: Incoming,
    abstention: Abstention,
    quiet: Quiet,
    gate: Gate,
    copies: Rc<CopyBudget>,
    /// In which term which others are known to compare pieces.
    able: RefCell<Option<(Term, Vec<ReplicaId>)>>,
    /// Looks for which the leader's place has been found empty.
    leaderless_looks: Cell<u32>,
    /// The term in which, and when, a request was last sent away because no majority answered.
    unheard: Cell<Option<(u64, Instant)>>,
    /// When a leader last sent anything.
    heard: Cell<Option<Instant>>,
    config: GroupConfig,
    peers: Rc<PeerBook>,
    /// Replaces payloads that turn out rotten.
    _mender: ScopedTask<()>,
    _repairer: ScopedTask<()>,
}

/// A group that may be gone.
pub(crate) struct WeakGroup(Weak<Inner>);

impl WeakGroup {
    pub(crate) fn upgrade(&self) -> Option<Group> {
        self.0.upgrade().map(|inner| Group { inner })
    }
}

impl Group {
    /// Makes a replica known to a store. Repeating it is harmless.
    ///
    /// # Errors
    /// [`GroupError::OtherReplica`] when the store holds another replica of the group.
    pub async fn create(
        store: &Store,
        copyset: CopysetId,
        wanted: ReplicaId,
    ) -> Result<(), GroupError> {
        match Replica::find(store, copyset)? {
            None => Replica::create(store, copyset, wanted).await,
            Some(found) if found == wanted => Ok(()),
            Some(found) => Err(GroupError::OtherReplica {
                copyset,
                found,
                wanted,
            }),
        }
    }

    /// Loads the replica and starts its part of the group.
    ///
    /// # Errors
    /// [`GroupError`] when its state cannot be loaded or openraft refuses it.
    pub async fn open(params: GroupParams) -> Result<Self, GroupError> {
        let GroupParams {
            copyset,
            log,
            store,
            peers,
            watch,
            config,
            metrics,
            copies,
        } = params;
        if !log.is_attached() {
            return Err(GroupError::Apart { copyset });
        }
        let replica = Replica::load(copyset, log, store, metrics)?;
        let id = replica.id;
        if let Some(damage) = replica.damage_at_open() {
            return Err(damage);
        }
        let mender = ogee_runtime::spawn_scoped(replica.clone().keep_mended(peers.clone()));
        let repairer = ogee_runtime::spawn_scoped(replica.clone().keep_repaired(peers.clone()));
        let book = peers.clone();
        let stopped = |reason: String| GroupError::Stopped {
            copyset,
            replica: id,
            reason: reason.into(),
        };
        let raft_config = config.raft().map_err(|error| stopped(error.to_string()))?;
        let abstention = Abstention::begin(replica.log.state().vote, config.promised());
        let raft_config = Arc::new(openraft::Config {
            enable_elect: !abstention.is_on(),
            ..(*raft_config).clone()
        });
        let budget = copies.clone();
        let network = NetworkFactory::new(peers, replica.clone(), copies, config);
        let machine = Machine::new(replica.clone());
        let large = config.redirect.then(|| replica.clone());
        let log = LogStore::new(replica.log.clone(), large, replica.metrics.clone())
            .that_tells(replica.store.clone());
        let raft = Raft::new(id.get(), raft_config, network, log, machine).await;
        let raft = raft.map_err(|fatal| stopped(fatal.to_string()))?;
        let (promised, acks) = (config.promised(), replica.acks.clone());
        let lease = Lease::new(id.get(), acks, promised, config.lease_reads);
        let inner = Inner {
            replica,
            raft,
            linearizer: Rc::new(Linearizer::new(lease)),
            streams: AppendStreams::default(),
            incoming: Incoming::default(),
            abstention,
            quiet: Quiet::default(),
            gate: Gate::default(),
            copies: budget,
            able: RefCell::default(),
            leaderless_looks: Cell::new(0),
            unheard: Cell::new(None),
            heard: Cell::new(None),
            config,
            peers: book,
            _mender: mender,
            _repairer: repairer,
        };
        let group = Self {
            inner: Rc::new(inner),
        };
        group.end_abstention_in_time();
        watch.add(&group);
        Ok(group)
    }

    /// A replica that abstains at first stands for election from some moment after that on, not all
    /// groups and replicas at once.
    fn end_abstention_in_time(&self) {
        let Some(ends) = self.inner.abstention.ends() else {
            return;
        };
        let jitter = self
            .inner
            .config
            .election_min
            .mul_f64(random_fraction() / 2.0);
        let raft = self.inner.raft.clone();
        drop(ogee_runtime::spawn(async move {
            ogee_runtime::sleep_until(ends + jitter).await;
            raft.runtime_config().elect(true);
        }));
    }

    /// Whether this replica has started too recently to vote.
    pub(crate) fn abstains(&self) -> bool {
        self.inner.abstention.is_on()
    }

    /// Makes the group of these members. A no-op on a group that was made before.
    ///
    /// # Errors
    /// [`GroupError::Stopped`] when the group has stopped.
    pub async fn bootstrap(
        &self,
        members: BTreeMap<ReplicaId, ReplicaNode>,
    ) -> Result<(), GroupError> {
        let members: BTreeMap<u64, ReplicaNode> = members
            .into_iter()
            .map(|(id, node)| (id.get(), node))
            .collect();
        match self.inner.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(error)) => Err(self.stopped(&error)),
            Err(RaftError::Fatal(fatal)) => Err(self.stopped(&fatal)),
        }
    }

    /// The group's id.
    #[must_use]
    pub fn copyset(&self) -> CopysetId {
        self.inner.replica.copyset
    }

    /// This replica's id.
    #[must_use]
    pub fn replica_id(&self) -> ReplicaId {
        self.inner.replica.id
    }

    pub(crate) fn replica(&self) -> &Rc<Replica> {
        &self.inner.replica
    }

    /// Whether this replica has lost data that no other replica can give back: it is to be shut down
    /// and replaced.
    #[must_use]
    pub fn needs_replacing(&self) -> bool {
        self.inner.replica.beyond_repair.get()
    }

    pub(crate) fn peers(&self) -> &Rc<PeerBook> {
        &self.inner.peers
    }

    /// Gives another replica, whose log is damaged, what it lacks.
    pub async fn on_log_entries(&self, frame: Frame) -> Frame {
        entries::answer(&self.inner.replica.log, &frame).await
    }

    pub(crate) fn raft(&self) -> &Raft<TypeConfig, Machine> {
        &self.inner.raft
    }

    pub(crate) fn quiet(&self) -> &Quiet {
        &self.inner.quiet
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.inner.gate
    }

    pub(crate) fn copies(&self) -> &CopyBudget {
        &self.inner.copies
    }

    pub(crate) fn able(&self) -> &RefCell<Option<(Term, Vec<ReplicaId>)>> {
        &self.inner.able
    }

    pub(crate) fn downgrade(&self) -> WeakGroup {
        WeakGroup(Rc::downgrade(&self.inner))
    }

    pub(crate) fn leaderless_looks(&self) -> &Cell<u32> {
        &self.inner.leaderless_looks
    }

    /// A leader has sent something.
    pub(crate) fn note_heard(&self) {
        self.inner.heard.set(Some(ogee_runtime::now()));
    }

    /// When a leader last sent anything.
    pub(crate) fn last_heard(&self) -> Option<Instant> {
        self.inner.heard.get()
    }

    pub(crate) fn lease(&self) -> &Lease {
        self.inner.linearizer.lease()
    }

    /// Whether leadership in this term was to be handed over.
    pub(crate) fn hands_over(&self, term: u64) -> bool {
        self.lease().is_handed_over(term)
    }

    /// Whether the group still runs.
    pub(crate) fn is_running(&self) -> bool {
        let metrics = self.inner.raft.metrics();
        metrics.borrow_watched().running_state.is_ok()
    }

    /// The other members and their endpoints, as the membership names them.
    pub(crate) fn others(&self) -> Vec<(ReplicaId, String)> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let nodes = metrics.membership_config.membership().nodes();
        let others = nodes.filter(|(id, _)| **id != metrics.id);
        let others = others.map(|(id, node)| (ReplicaId::new(*id), node.endpoint.to_string()));
        others.collect()
    }

    pub(crate) fn config(&self) -> &GroupConfig {
        &self.inner.config
    }

    pub(crate) fn streams(&self) -> &AppendStreams {
        &self.inner.streams
    }

    pub(crate) fn incoming(&self) -> &Incoming {
        &self.inner.incoming
    }

    /// Replicates a command and answers after it was applied.
    pub async fn mutate(&self, command: Command) -> Outcome {
        let started = ogee_runtime::now();
        self.inner.replica.metrics.count_foreground();
        let outcome = self.replicate(command).await;
        self.inner
            .replica
            .metrics
            .write
            .observe(ogee_runtime::now() - started);
        outcome
    }

    pub(crate) async fn replicate(&self, command: Command) -> Outcome {
        self.touch_and_lead(!command.head.is_of_comparison()).await;
        if let Err(status) = self.precheck(&command) {
            return Outcome::of(status);
        }
        let (replica, len) = (&self.inner.replica, command.payload.len());
        // Until it is applied, which promises the same.
        let Ok(_claim) = self.claim(&command.head) else {
            return Outcome::of(Status::NoSpace);
        };
        if self.inner.raft.is_leader() {
            replica.pace(len).await;
        }
        let room = replica.reserve_log(std::iter::once(len));
        let Ok(_room) = ogee_runtime::timeout(ROOM_WAIT, room).await else {
            return Outcome::of(Status::Retry);
        };
        let _passed = self.inner.gate.pass(&command.head).await;
        let deadline = ogee_runtime::now() + self.inner.config.election_max;
        // The target takes over at once; if it does not, the others elect somebody after that.
        let handed_over = deadline + self.inner.config.election_max;
        loop {
            let write = pin!(self.propose(command.clone()));
            let written = match self.while_led(write).await {
                Ok(written) => written,
                Err(NoAnswer::NotHeard) => return Outcome::of(of_unknown(Status::NotLeader)),
                Err(NoAnswer::TooLate) => return Outcome::of(of_unknown(Status::Unknown)),
            };
            match written {
                Ok(done) => {
                    replica.metrics.count_proposal(len);
                    return Outcome::of(done.data.status);
                }
                Err(error) => match self.refused(error) {
                    Refused::HandingOver(_) if ogee_runtime::now() < handed_over => {
                        ogee_runtime::sleep(LEASE_RETRY).await;
                    }
                    Refused::HandingOver(outcome) => return outcome,
                    Refused::Again if ogee_runtime::now() < deadline => {
                        ogee_runtime::sleep(LEASE_RETRY).await;
                    }
                    Refused::Again => return Outcome::of(Status::Retry),
                    Refused::Final(outcome) => return outcome,
                },
            }
        }
    }

    /// openraft's `client_write`, without its future of 2.5 KiB in the task of every write: what it does while it
    /// hands the command over is done on the stack.
    async fn propose(&self, command: Command) -> Proposed {
        let handed = match self.enqueue(command.clone()).now_or_never() {
            Some(handed) => handed,
            // Its queue is full, and has taken nothing.
            None => Box::pin(self.enqueue(command)).await,
        };
        match handed.map_err(RaftError::Fatal)?.await {
            Ok(answer) => answer.map_err(RaftError::APIError),
            Err(_dropped) => Err(RaftError::Fatal(Fatal::Stopped)),
        }
    }

    /// Puts a command into openraft's queue. Dropped before it ends, it has put nothing there.
    async fn enqueue(
        &self,
        command: Command,
    ) -> Result<oneshot::Receiver<ClientWriteResult<TypeConfig>>, Fatal<TypeConfig>> {
        let (responder, answer) = OneshotResponder::new_pair();
        let raft = &self.inner.raft;
        raft.client_write_ff(command, Some(responder)).await?;
        Ok(answer)
    }

    /// Waits for what a majority must agree to, but not for ever; and once no majority has answered this leader
    /// for as long as others wait before they elect somebody, not longer: the client finds that one.
    /// It stays where it is: it is large, and would be copied with every future around it.
    async fn while_led<F: Future>(&self, mut agreed: Pin<&mut F>) -> Result<F::Output, NoAnswer> {
        if self.is_still_unheard() {
            return Err(NoAnswer::NotHeard);
        }
        let begun = ogee_runtime::now();
        let patience = self.inner.config.election_max;
        loop {
            let left = (begun + WRITE_WAIT).saturating_duration_since(ogee_runtime::now());
            if let Ok(done) = ogee_runtime::timeout(left.min(patience), agreed.as_mut()).await {
                return Ok(done);
            }
            if !self.is_heard(begun) {
                let term = Lease::term(&self.inner.raft);
                self.inner.unheard.set(Some((term, ogee_runtime::now())));
                return Err(NoAnswer::NotHeard);
            }
            if left <= patience {
                return Err(NoAnswer::TooLate);
            }
        }
    }

    /// Whether nobody has answered this leader since a request was sent away for that: the next one need not
    /// wait as long, or clients go to and fro between it and those who still believe in it.
    fn is_still_unheard(&self) -> bool {
        let (raft, unheard) = (&self.inner.raft, &self.inner.unheard);
        let Some((term, since)) = unheard.get() else {
            return false;
        };
        let is_unheard = term == Lease::term(raft)
            && raft.is_leader()
            && !self.lease().is_led_since(raft, since);
        if !is_unheard {
            unheard.set(None);
        }
        is_unheard
    }

    /// Whether a majority has answered this leader within the time after which others elect somebody; `begun` is
    /// the earliest that it needed to.
    fn is_heard(&self, begun: Instant) -> bool {
        let since = begun.max(ogee_runtime::now() - self.inner.config.election_max);
        self.lease().is_led_since(&self.inner.raft, since)
    }

    /// Room in the stores for what a leader is to propose: here, and on a majority.
    fn claim(&self, head: &CommandHead) -> Result<Option<Claim>, NoRoom> {
        if !head.kind.brings_data() || !self.inner.raft.is_leader() {
            return Ok(None);
        }
        let Some(claim) = self.inner.replica.claim(head) else {
            self.hand_over_for_room();
            return Err(NoRoom);
        };
        match claim.is_empty() || self.quorum_has_room() {
            true => Ok(Some(claim)),
            false => Err(NoRoom),
        }
    }

    /// Spares the log what apply would refuse anyway. Only a leader's state is fresh enough to ask.
    fn precheck(&self, command: &Command) -> Result<(), Status> {
        let head = &command.head;
        if !head.kind.is_clients_change() {
            return Ok(());
        }
        if !head.is_in_range() {
            return Err(Status::BadRequest);
        }
        if !self.inner.raft.is_leader() {
            return Ok(());
        }
        if self.overlay_blocks() > OVERLAY_BLOCKS_MAX {
            return Err(Status::Retry);
        }
        if !self.has_applied_own_term() {
            return Ok(());
        }
        self.inner.replica.state.borrow().sessions.precheck(head)
    }

    /// Whether this leader has applied something of its own term. Before that, it may not have applied
    /// all that was acknowledged under earlier ones, and does not know who may write.
    fn has_applied_own_term(&self) -> bool {
        let term = self.inner.raft.metrics().borrow_watched().current_term;
        let state = self.inner.replica.state.borrow();
        state
            .applied
            .as_ref()
            .is_some_and(|applied| applied.leader_id.term == term)
    }

    pub(crate) fn refused(
        &self,
        error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>,
    ) -> Refused {
        match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => forward(&to),
            RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => {
                Refused::Final(Outcome::of(of_unknown(Status::Unknown)))
            }
            RaftError::APIError(
                ClientWriteError::ChangeMembershipError(_)
                | ClientWriteError::PreconditionFailed(_),
            ) => Refused::Final(Outcome::of(Status::BadRequest)),
            RaftError::Fatal(fatal) => {
                tracing::warn!(copyset = %self.copyset(), %fatal, "the group has stopped");
                Refused::Final(Outcome::of(Status::Io))
            }
        }
    }

    /// Reads the newest contents of `count` blocks, linearizably.
    ///
    /// # Errors
    /// The outcome to answer.
    pub async fn read(&self, head: &CommandHead) -> Result<Vec<ReadRun>, Outcome> {
        self.inner.replica.metrics.count_foreground();
        let first = self.admit_reader(head).await?;
        let started = ogee_runtime::now();
        let runs = self
            .read_repairing(Span::new(head.key, first, head.block_count()))
            .await;
        let (replica, now) = (&self.inner.replica, ogee_runtime::now());
        replica.metrics.read.observe(now - started);
        replica.store.budget().note_foreground(now, now - started);
        runs.map_err(|error| self.read_failed(&error))
    }

    /// The blocks; what is damaged is repaired from other replicas first.
    async fn read_repairing(&self, span: Span) -> Result<Vec<ReadRun>, GroupError> {
        let replica = &self.inner.replica;
        let (first, count) = (span.first(), usize::from(span.count));
        let read = || replica.read_blocks(FoundBy::Read, span.key, first, count);
        match read().await {
            // Rare, so every read need not have room for it.
            Err(error) if error.is_damaged_block() => {
                Box::pin(async move {
                    match self.repair_for_read(span).await {
                        true => read().await,
                        false => Err(error),
                    }
                })
                .await
            }
            other => other,
        }
    }

    /// The first block of a request that may be served: in range, from this state, to this reader.
    async fn admit_reader(&self, head: &CommandHead) -> Result<BlockIndex, Outcome> {
        let first = BlockIndex::new(head.first_block()).filter(|_| head.is_in_range());
        let first = first.ok_or(Outcome::of(Status::BadRequest))?;
        self.linearize().await?;
        let replica = &self.inner.replica;
        replica
            .check_kept()
            .map_err(|error| self.read_failed(&error))?;
        // A leader has applied all that was committed before its term, so this never is so.
        if self.inner.replica.is_fuzzy() {
            tracing::error!(copyset = %self.copyset(), "a leader with fuzzy contents serves nothing");
            return Err(Outcome::of(Status::Retry));
        }
        let state = self.inner.replica.state.borrow();
        match state.sessions.may_read(head.key.volume, head.epoch) {
            true => Ok(first),
            false => Err(Outcome::of(Status::Fenced)),
        }
    }

    fn read_failed(&self, error: &GroupError) -> Outcome {
        tracing::error!(copyset = %self.copyset(), %error, "read failed");
        Outcome::of(match error {
            error if error.is_damaged_block() && self.decline() => Status::Retry,
            GroupError::Corrupt { .. } => Status::Corrupt,
            GroupError::Race { .. } | GroupError::Deleted { .. } => Status::Retry,
            _ => Status::Io,
        })
    }

    /// Which of `count` blocks from `first` hold data, linearizably.
    ///
    /// # Errors
    /// The outcome to answer.
    pub async fn block_status(&self, head: &CommandHead) -> Result<Vec<bool>, Outcome> {
        let first = self.admit_reader(head).await?;
        let (key, count) = (head.key, head.block_count());
        let replica = &self.inner.replica;
        let stored = replica
            .store
            .allocated(replica.copyset, key)
            .map_err(|source| {
                self.read_failed(&GroupError::Store {
                    copyset: replica.copyset,
                    source,
                })
            })?;
        let mut present: Vec<bool> = (first.as_usize()..first.as_usize() + count)
            .map(|block| BlockIndex::new(block).is_some_and(|block| stored.contains(block)))
            .collect();
        let state = replica.state.borrow();
        for (block, slot) in state.overlay.range(key, first, count) {
            let at = block.as_usize() - first.as_usize();
            if let Some(present) = present.get_mut(at) {
                *present = slot.what.payload_offset().is_some();
            }
        }
        Ok(present)
    }

    pub(crate) async fn linearize(&self) -> Result<(), Outcome> {
        self.touch();
        self.linearize_untouched().await
    }

    /// The same, though nobody has asked for anything.
    pub(crate) async fn linearize_untouched(&self) -> Result<(), Outcome> {
        let begun = ogee_runtime::now();
        let check = pin!(self.inner.linearizer.check(&self.inner.raft));
        let checked = self.while_led(check).await.map_err(|why| match why {
            NoAnswer::NotHeard => Outcome::of(Status::NotLeader),
            NoAnswer::TooLate => Outcome::of(Status::Retry),
        })?;
        checked.map_err(|why| match why {
            NotReadable::Forward(leader) => Outcome {
                status: Status::NotLeader,
                hint: leader.map(ReplicaId::new),
            },
            NotReadable::NoQuorum if self.is_heard(begun) => Outcome::of(Status::Retry),
            NotReadable::NoQuorum => Outcome::of(Status::NotLeader),
            NotReadable::Stopped => Outcome::of(Status::Io),
        })
    }

    /// The contents' digest as of digest entry `id`, which another call has put into the log.
    ///
    /// # Errors
    /// The error that kept this replica from digesting.
    pub async fn digest(&self, id: u64) -> Result<Rc<GroupDigest>, Rc<GroupError>> {
        self.inner.replica.digests.wait(self.copyset(), id).await
    }

    /// Hands leadership to a voter that has caught up and was heard of lately; the caller watches
    /// reports for the result. Writes wait meanwhile. If the target does not take over, the others
    /// elect somebody within an election time: this replica has stopped showing itself.
    ///
    /// # Errors
    /// [`GroupError::Stopped`] when the group has stopped.
    pub async fn transfer_leader(&self, to: ReplicaId) -> Result<bool, GroupError> {
        self.touch_and_lead(true).await;
        if !self.is_caught_up(to) {
            return Ok(false);
        }
        self.lease().hand_over(&self.inner.raft);
        let asked = self.inner.raft.trigger().transfer_leader(to.get()).await;
        asked.map_err(|fatal| self.stopped(&fatal))?;
        Ok(true)
    }

    /// A target that lags far behind, or is gone, would ignore the transfer, and the old leader would have
    /// stopped: nobody would lead until an election.
    pub(crate) fn is_caught_up(&self, to: ReplicaId) -> bool {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let matched = metrics
            .replication
            .as_ref()
            .and_then(|peers| peers.get(&to.get()));
        let matched = matched.and_then(|id| id.as_ref()).map(|id| id.index);
        let lag = matched.zip(metrics.last_log_index);
        let lag = lag.map(|(matched, last)| last.saturating_sub(matched));
        // One that is dead may lack nothing of an idle group.
        let heard = metrics
            .heartbeat
            .as_ref()
            .and_then(|peers| peers.get(&to.get()));
        let heard = heard.copied().flatten().is_some_and(|sent| {
            ogee_runtime::now() < sent.into_inner().into_inner() + self.inner.config.election_min
        });
        let votes = metrics
            .membership_config
            .voter_ids()
            .any(|id| id == to.get());
        metrics.state == ServerState::Leader
            && votes
            && heard
            && lag.is_some_and(|lag| lag <= TRANSFER_LAG_MAX)
    }

    /// How the group stands.
    #[must_use]
    pub fn report(&self) -> GroupReport {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let applied = self
            .inner
            .replica
            .state
            .borrow()
            .applied
            .as_ref()
            .map(from_raft);
        GroupReport {
            copyset: self.copyset(),
            replica: self.replica_id(),
            leader: metrics.current_leader.map(ReplicaId::new),
            is_leader: metrics.state == ServerState::Leader,
            term: Term::new(metrics.current_term),
            applied: applied.unwrap_or_default(),
            last_log: metrics.last_log_index.unwrap_or(0),
            is_running: metrics.running_state.is_ok(),
            is_quiet: self.phase() != Phase::Awake,
            is_installing: self.inner.replica.is_fuzzy(),
            is_outrun: self.inner.replica.copies.is_outrun(),
            requests: self.requests(),
            bytes: self.bytes(),
        }
    }

    /// Whether the volume's removal was applied here.
    #[must_use]
    pub fn knows_removed(&self, volume: VolumeId) -> bool {
        let state = self.inner.replica.state.borrow();
        state.sessions.is_removed(volume)
    }

    /// Whether the volume's removal was applied here, and nothing of it is left.
    #[must_use]
    pub fn has_removed(&self, volume: VolumeId) -> bool {
        let replica = &self.inner.replica;
        self.knows_removed(volume) && {
            let stored = replica.store.chunks(replica.copyset);
            let state = replica.state.borrow();
            let mut left = stored.into_iter().chain(state.overlay.chunks());
            !left.any(|key| key.volume == volume)
        }
    }

    /// Blocks that live in the log, for metrics.
    #[must_use]
    pub fn overlay_blocks(&self) -> usize {
        self.inner.replica.state.borrow().overlay.len()
    }

    /// Tells openraft of the last checkpoint, and lets it purge the log behind it.
    pub(crate) fn purge_behind_checkpoint(&self) {
        let Ok(Some(snapshot)) = self.inner.replica.current_snapshot() else {
            return;
        };
        let Some(upto) = snapshot.meta.last_log_id else {
            return;
        };
        let purged = self.inner.replica.log.state().purged;
        if purged.is_some_and(|purged| purged.index.get() >= upto.index) {
            return;
        }
        let group = self.clone();
        drop(ogee_runtime::spawn(async move { group.purge(upto).await }));
    }

    async fn purge(&self, upto: crate::types::RaftLogId) {
        let raft = &self.inner.raft;
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
        let mut metrics = raft.metrics();
        let wanted = Some(upto);
        let noted = metrics.wait_until(move |metrics| metrics.snapshot >= wanted);
        if ogee_runtime::timeout(SNAPSHOT_NOTE, noted).await.is_err() {
            tracing::warn!(copyset = %self.copyset(), "openraft took no note of a checkpoint");
            return;
        }
        let Some(upto) = self.inner.replica.may_purge(upto.index) else {
            return;
        };
        // An error means that the group has stopped: nothing is left to purge for.
        let _ = raft.trigger().purge_log(upto).await;
    }

    /// Stops this replica's part of the group.
    pub async fn shutdown(&self) {
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(copyset = %self.copyset(), %error, "the group did not stop cleanly");
        }
    }

    fn stopped(&self, reason: &dyn std::fmt::Display) -> GroupError {
        GroupError::Stopped {
            copyset: self.copyset(),
            replica: self.replica_id(),
            reason: reason.to_string().into(),
        }
    }
}

/// openraft's answer to a proposal.
type Proposed =
    Result<ClientWriteResponse<TypeConfig>, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>;

/// Why a majority's word is waited for no longer.
enum NoAnswer {
    /// Nobody answers this leader: others may lead.
    NotHeard,
    /// It takes too long.
    TooLate,
}

/// What the client is told whose proposal may or may not be committed: where to ask again.
fn of_unknown(status: Status) -> Status {
    match seeded_bug!("discarded-answered-ok") {
        false => status,
        true => Status::Ok,
    }
}

/// From 0 to 1.
pub(crate) fn random_fraction() -> f64 {
    let random = u32::try_from(ogee_runtime::random_u64() >> 32).unwrap_or(0);
    f64::from(random) / f64::from(u32::MAX)
}

/// A command with the payload in memory.
#[must_use]
pub fn command(head: CommandHead, payload: ogee_runtime::Payload, crc: u32) -> Command {
    let payload = match payload.is_empty() {
        true => PayloadRef::None,
        false => PayloadRef::Memory {
            bytes: payload,
            crc,
        },
    };
    Command { head, payload }
}

/// Too few stores have room for new data.
struct NoRoom;

/// Why a proposal was not taken.
pub(crate) enum Refused {
    /// The lease was not valid: shortly after an election it will be.
    Again,
    /// Leadership is on its way to another replica: soon this one will know who leads.
    HandingOver(Outcome),
    Final(Outcome),
}

impl Refused {
    pub(crate) const fn outcome(self) -> Outcome {
        match self {
            Self::Again => Outcome::of(Status::Retry),
            Self::HandingOver(outcome) | Self::Final(outcome) => outcome,
        }
    }
}

fn forward(to: &ForwardToLeader<TypeConfig>) -> Refused {
    match to.reason {
        ForwardReason::LeaseExpired => Refused::Again,
        ForwardReason::NotLeader => Refused::Final(not_leader(to)),
        ForwardReason::LeadershipTransfer => Refused::HandingOver(not_leader(to)),
    }
}

fn not_leader(to: &ForwardToLeader<TypeConfig>) -> Outcome {
    Outcome {
        status: Status::NotLeader,
        hint: to.leader_id.map(ReplicaId::new),
    }
}

#[cfg(test)]
mod tests {
    use super::command;
    use crate::command::{CommandHead, CommandKind};
    use crate::fixture::{Lone, run};
    use ogee_proto::id::{ChunkIndex, ChunkKey, ClientId, Epoch, Incarnation, Sequence, VolumeId};
    use ogee_runtime::Payload;

    /// A task is copied when it starts, and there is one for each request: what waits seldom waits in a box.
    #[test]
    fn a_request_waits_in_little_memory() {
        run(async {
            let lone = Lone::open().await;
            let head = CommandHead {
                kind: CommandKind::Seal,
                key: ChunkKey {
                    volume: VolumeId::new(1),
                    chunk: ChunkIndex::new(0),
                },
                offset: 0,
                length: 0,
                client: ClientId::new(1),
                epoch: Epoch::new(1),
                incarnation: Incarnation::new(0),
                sequence: Sequence::new(1),
                watermark: Sequence::new(0),
            };
            let write = lone.group.mutate(command(head, Payload::empty(), 0));
            let read = lone.group.read(&head);
            let (write, read) = (size_of_val(&write), size_of_val(&read));
            assert!(write <= 1280, "a write takes {write} bytes");
            assert!(read <= 2048, "a read takes {read} bytes");
        });
    }
}
