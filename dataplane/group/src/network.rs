//! openraft's network over the shard's connections to its peers.
//!
//! *Place*: called by openraft's replication and election tasks of one group.
//! *Owner*: the group's leader side; one append stream per follower.
//! *Invariants*: answers of a stream come in the order of its requests; at most
//! [`APPEND_WINDOW`] requests are unanswered; a request that only moves the commit index may wait
//! a few milliseconds for company, the first of a stream never (it is the probe).
//! *On failure*: a lost connection ends the stream with `Unreachable`, so that openraft forgets what
//! was in flight (and may purge), backs off and probes again.

use crate::acks::Ack;
use crate::codec::{
    get_append_result, get_vote_response, put_append, put_transfer, put_vote_request,
};
use crate::command::PayloadRef;
use crate::config::GroupConfig;
use crate::limit::{APPEND_REPLIES_MAX, APPEND_WINDOW};
use crate::machine::SnapshotState;
use crate::metrics::GroupMetrics;
use crate::peers::PeerBook;
use crate::replica::Replica;
use crate::snapshot::CopyBudget;
use crate::types::{RaftVote, ReplicaNode, TypeConfig, from_raft};
use bytes::Bytes;
use futures_util::future::{Either, select};
use futures_util::{Stream, StreamExt, stream};
use ogee_proto::checksum::crc32c_append_blocks;
use ogee_proto::id::{ClientId, Epoch, LogIndex, ReplicaId, RequestId};
use ogee_proto::limit::BLOCK_SIZE;
use ogee_proto::wire::{FrameHeader, FrameKind, Status, WireError};
use ogee_runtime::channel::{Notify, Permit, Semaphore};
use ogee_runtime::{Instant, Payload, ScopedTask, seeded_bug};
use ogee_transport::{CallError, Caller, Endpoint, Frame, StreamReceiver, StreamSender};
use openraft::alias::SnapshotOf;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
    StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{EntryPayload, OptionalSend};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// A follower that answers nothing for so long loses its stream.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// A stream that cannot even begin is refused after so long. openraft backs off before each request of
/// a stream, and never before a stream: refused at once, it would ask again at once, and spin.
const REFUSED_PAUSE: Duration = Duration::from_millis(20);

/// Makes the clients of one group.
pub(crate) struct NetworkFactory {
    peers: Rc<PeerBook>,
    replica: Rc<Replica>,
    copies: Rc<CopyBudget>,
    config: GroupConfig,
}

impl NetworkFactory {
    pub(crate) const fn new(
        peers: Rc<PeerBook>,
        replica: Rc<Replica>,
        copies: Rc<CopyBudget>,
        config: GroupConfig,
    ) -> Self {
        Self {
            peers,
            replica,
            copies,
            config,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for NetworkFactory {
    type Network = Network;

    async fn new_client(&mut self, target: u64, node: &ReplicaNode) -> Network {
        Network {
            peers: self.peers.clone(),
            replica: self.replica.clone(),
            copies: self.copies.clone(),
            target: ReplicaId::new(target),
            endpoint: node.endpoint.clone(),
            config: self.config,
        }
    }
}

/// The way to one peer of one group.
pub(crate) struct Network {
    peers: Rc<PeerBook>,
    pub(crate) replica: Rc<Replica>,
    pub(crate) copies: Rc<CopyBudget>,
    pub(crate) target: ReplicaId,
    endpoint: Arc<str>,
    pub(crate) config: GroupConfig,
}

type RpcResult<T> = Result<T, RPCError<TypeConfig>>;
type AppendResults<'s> = BoxStream<'s, RpcResult<StreamAppendResult<TypeConfig>>>;

impl Network {
    pub(crate) fn caller(&self) -> RpcResult<Caller> {
        let caller = self.peers.caller(self.target, &self.endpoint);
        caller.ok_or_else(|| self.nowhere())
    }

    /// The way for a stream of entries, unless the follower is to have none.
    fn streaming_caller(&self) -> RpcResult<Caller> {
        if self.replica.followers.is_shunned(self.target.get()) {
            return lost("the follower is too far behind: it catches up by snapshot");
        }
        self.caller()
    }

    /// A connection of its own for a copy: heartbeats and entries do not queue behind its pieces.
    pub(crate) fn copy_caller(&self) -> RpcResult<Caller> {
        let caller = self.peers.new_caller(self.target, &self.endpoint);
        caller.ok_or_else(|| self.nowhere())
    }

    fn nowhere(&self) -> RPCError<TypeConfig> {
        let text = format!(
            "{}: no endpoint is known for {}",
            self.replica.copyset, self.target
        );
        RPCError::Unreachable(Unreachable::from_string(text))
    }

    /// One payload of several.
    pub(crate) fn joined(&self, parts: Vec<Payload>) -> Payload {
        join(parts, &self.replica.metrics)
    }

    /// Raft frames say who sends (`client`) and which replica is meant (`epoch`).
    pub(crate) fn header(&self, kind: FrameKind) -> FrameHeader {
        let mut header = FrameHeader::new(kind, RequestId::new(0));
        header.copyset = self.replica.copyset;
        header.client = ClientId::new(self.replica.id.get());
        header.epoch = Epoch::new(self.target.get());
        header
    }

    pub(crate) async fn ask(&self, kind: FrameKind, meta: Vec<u8>) -> RpcResult<Frame> {
        let mut frame = Frame::new(self.header(kind));
        frame.meta = Bytes::from(meta);
        let reply = self
            .caller()?
            .call(frame)
            .await
            .map_err(|error| unreachable(&error))?;
        accepted(reply)
    }
}

/// The peer cannot be reached: back off.
fn unreachable(error: &CallError) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::from_string(error))
}

pub(crate) fn garbled(error: &WireError) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::from_string(error))
}

pub(crate) fn accepted(reply: Frame) -> RpcResult<Frame> {
    match reply.header.status {
        Status::Ok => Ok(reply),
        status => Err(RPCError::Unreachable(Unreachable::from_string(
            status.text(),
        ))),
    }
}

impl RaftNetworkV2<TypeConfig> for Network {
    type SnapshotData = SnapshotState;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> RpcResult<AppendEntriesResponse<TypeConfig>> {
        let mut frame = Frame::new(self.header(FrameKind::AppendEntries));
        fill(&self.replica, &mut frame, &request).await?;
        let reply = self
            .caller()?
            .call(frame)
            .await
            .map_err(|error| unreachable(&error))?;
        let answer = get_append_result(&accepted(reply)?.meta).map_err(|error| garbled(&error))?;
        Ok(AppendEntriesResponse::from(answer.0))
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, RpcResult<AppendResults<'s>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            let caller = match self.streaming_caller() {
                Ok(caller) => caller,
                Err(refused) => {
                    ogee_runtime::sleep(REFUSED_PAUSE).await;
                    return Err(refused);
                }
            };
            let opened = caller.open_stream(APPEND_REPLIES_MAX).await;
            let (sender, receiver) = opened.map_err(|error| unreachable(&error))?;
            let window = Rc::new(Window::default());
            let pump = Pump {
                replica: self.replica.clone(),
                target: self.target,
                header: self.header(FrameKind::AppendEntries),
                sender,
                window: window.clone(),
                commit_hold: self.config.commit_hold,
            };
            let task = ogee_runtime::spawn_scoped(pump.run(input));
            let watch = ogee_runtime::spawn_scoped(watch_progress(
                self.replica.clone(),
                self.target,
                window.clone(),
            ));
            let answers = Answers {
                replica: self.replica.clone(),
                peers: self.peers.clone(),
                endpoint: caller.endpoint().clone(),
                ours: self.config.promised(),
                theirs: None,
                target: self.target,
                receiver,
                window,
                _task: task,
                _watch: watch,
            };
            let results: AppendResults<'s> = Box::pin(stream::unfold(Some(answers), Answers::next));
            Ok(results)
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> RpcResult<VoteResponse<TypeConfig>> {
        self.ask_vote(&request, false).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> RpcResult<VoteResponse<TypeConfig>> {
        self.ask_vote(&request, true).await
    }

    async fn full_snapshot(
        &mut self,
        vote: RaftVote,
        snapshot: SnapshotOf<TypeConfig, SnapshotState>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        self.send_snapshot(vote, snapshot, cancel).await
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        _option: RPCOption,
    ) -> RpcResult<TransferLeaderResponse<TypeConfig>> {
        let mut meta = Vec::with_capacity(64);
        put_transfer(&mut meta, &request);
        self.ask(FrameKind::TransferLeader, meta).await?;
        Ok(Ok(()))
    }
}

impl Network {
    async fn ask_vote(
        &self,
        request: &VoteRequest<TypeConfig>,
        pre_vote: bool,
    ) -> RpcResult<VoteResponse<TypeConfig>> {
        let mut meta = Vec::with_capacity(64);
        put_vote_request(&mut meta, request, pre_vote);
        let reply = self.ask(FrameKind::Vote, meta).await?;
        get_vote_response(&reply.meta).map_err(|error| garbled(&error))
    }
}

/// Puts a request into a frame; payloads that are only in the log are read from it.
async fn fill(
    replica: &Replica,
    frame: &mut Frame,
    request: &AppendEntriesRequest<TypeConfig>,
) -> RpcResult<()> {
    let mut meta = Vec::with_capacity(64 + request.entries.len() * 96);
    put_append(&mut meta, request);
    frame.meta = Bytes::from(meta);
    let mut payloads = Payloads::with_capacity(request.entries.len());
    for entry in &request.entries {
        let EntryPayload::Normal(command) = &entry.payload else {
            continue;
        };
        match &command.payload {
            PayloadRef::None => {}
            PayloadRef::Memory { bytes, crc } => payloads.push(bytes.clone(), *crc),
            PayloadRef::Log { len, crc } => {
                let read = replica
                    .log_payload(entry.log_id.index, 0..*len as usize)
                    .await;
                let failed = |miss| {
                    let text = format!("payload of entry {}: {miss:?}", entry.log_id.index);
                    RPCError::Network(NetworkError::from_string(text))
                };
                let bytes = read.map_err(failed)?;
                // Deposed meanwhile, this log may hold another entry at the index.
                if replica.log.entry_id(LogIndex::new(entry.log_id.index))
                    != Some(from_raft(&entry.log_id))
                {
                    return lost("an entry was replaced while it was being sent");
                }
                payloads.push(bytes, *crc);
            }
        }
    }
    frame.set_parts(payloads.parts, payloads.crc);
    Ok(())
}

/// Payloads of entries, as a frame takes them.
struct Payloads {
    parts: Vec<Payload>,
    /// Of all of them: known as long as they are whole blocks.
    crc: Option<u32>,
}

impl Payloads {
    fn with_capacity(entries: usize) -> Self {
        Self {
            parts: Vec::with_capacity(entries),
            crc: Some(0),
        }
    }

    /// `crc` came with the payload and was compared with it: by the client's frame, or by whoever read it.
    fn push(&mut self, payload: Payload, crc: u32) {
        let blocks = payload.len() / BLOCK_SIZE;
        let is_whole = payload.len().is_multiple_of(BLOCK_SIZE);
        let before = self.crc.filter(|_| is_whole);
        self.crc = before.map(|before| crc32c_append_blocks(before, crc, blocks));
        self.parts.push(payload);
    }
}

/// One payload of several; a single one is not copied.
fn join(mut parts: Vec<Payload>, metrics: &GroupMetrics) -> Payload {
    if parts.len() <= 1 {
        return parts.pop().unwrap_or_else(Payload::empty);
    }
    metrics.count_copy(parts.iter().map(|part| part.len()).sum());
    let mut joined = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
    for part in &parts {
        joined.extend_from_slice(part);
    }
    Payload::from(joined)
}

/// What both ends of a stream know: requests without an answer (a permit each, given back in
/// order), and whether more will come.
struct Window {
    semaphore: Semaphore,
    unanswered: RefCell<VecDeque<Sent>>,
    state: Cell<Sending>,
    changed: Notify,
    /// There is a request without an answer, after a time without any.
    begun: Notify,
}

/// A request without an answer.
struct Sent {
    _permit: Permit,
    /// Taken before it went out.
    at: Instant,
    /// The leader's.
    term: u64,
}

/// How far the sending end is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sending {
    /// More may come.
    Open,
    /// openraft has no more: the stream ends with the last answer.
    Done,
    /// It broke off.
    Failed,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            semaphore: Semaphore::new(APPEND_WINDOW),
            unanswered: RefCell::default(),
            state: Cell::new(Sending::Open),
            changed: Notify::new(),
            begun: Notify::new(),
        }
    }
}

impl Window {
    /// A request goes out now.
    fn sent(&self, permit: Permit, term: u64) {
        let mut unanswered = self.unanswered.borrow_mut();
        if unanswered.is_empty() {
            self.begun.notify_all();
        }
        unanswered.push_back(Sent {
            _permit: permit,
            at: ogee_runtime::now(),
            term,
        });
    }

    fn end(&self, state: Sending) {
        self.state.set(state);
        self.changed.notify_all();
    }

    /// Waits until no further answer can come.
    async fn ended(&self) -> Sending {
        loop {
            let changed = self.changed.notified();
            match self.state.get() {
                Sending::Failed => return Sending::Failed,
                Sending::Done if self.unanswered.borrow().is_empty() => return Sending::Done,
                Sending::Open | Sending::Done => changed.await,
            }
        }
    }
}

/// Sends the requests of one stream.
struct Pump {
    replica: Rc<Replica>,
    target: ReplicaId,
    header: FrameHeader,
    sender: StreamSender,
    window: Rc<Window>,
    commit_hold: Duration,
}

impl Pump {
    async fn run<S>(self, input: S)
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin,
    {
        // Its end may be met while a request is held, and openraft's stream must not be asked again.
        let mut input = input.fuse();
        let mut is_first = true;
        let mut outcome = Sending::Done;
        while let Some(request) = self.next(&mut input, is_first).await {
            is_first = false;
            // Heartbeats go on: with them it says when there is room.
            if !request.entries.is_empty() && self.replica.space.is_full(self.target.get()) {
                outcome = Sending::Failed;
                break;
            }
            // The permit comes back with the answer.
            let permit = self.window.semaphore.acquire(1).await;
            self.window.sent(permit, request.vote.leader_id.term);
            let mut frame = Frame::new(self.header);
            if let Err(error) = fill(&self.replica, &mut frame, &request).await {
                tracing::warn!(copyset = %self.replica.copyset, %error, "append stream ends");
                outcome = Sending::Failed;
                break;
            }
            if self.sender.send(frame).await.is_err() {
                outcome = Sending::Failed;
                break;
            }
        }
        self.window.end(outcome);
    }

    /// The next request to send. One that only moves the commit index is held for a moment: the
    /// next one with entries carries the index as well.
    async fn next<S>(
        &self,
        input: &mut S,
        is_first: bool,
    ) -> Option<AppendEntriesRequest<TypeConfig>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin,
    {
        let mut request = input.next().await?;
        if is_first || self.commit_hold.is_zero() {
            return Some(request);
        }
        let until = ogee_runtime::now() + self.commit_hold;
        while request.entries.is_empty() {
            match ogee_runtime::timeout_at(until, input.next()).await {
                Ok(Some(newer)) => request = newer,
                Ok(None) | Err(_) => break,
            }
        }
        Some(request)
    }
}

/// However a stream ends, also by openraft dropping it, the answering side hears of it and lets go of
/// what it keeps for the stream.
impl Drop for Pump {
    fn drop(&mut self) {
        let close = FrameHeader {
            kind: FrameKind::AppendClose,
            ..self.header
        };
        if self.sender.try_send(Frame::new(close)).is_err() {
            tracing::debug!(copyset = %self.replica.copyset, "stream ended with its connection");
        }
    }
}

/// Takes the answers of one stream, in order.
struct Answers {
    replica: Rc<Replica>,
    peers: Rc<PeerBook>,
    endpoint: Endpoint,
    /// What this replica promises as a follower.
    ours: Duration,
    /// What that one has said last.
    theirs: Option<Duration>,
    target: ReplicaId,
    receiver: StreamReceiver,
    window: Rc<Window>,
    _task: ScopedTask<()>,
    _watch: ScopedTask<()>,
}

/// Breaks a stream off whose oldest request goes unanswered, or whose follower is behind by more than
/// its share of a log that fills up: the peer's connection may live while its log is full, and
/// openraft purges nothing that it believes to be on its way. Costs an idle stream nothing.
async fn watch_progress(replica: Rc<Replica>, target: ReplicaId, window: Rc<Window>) {
    loop {
        let begun = window.begun.notified();
        // A full one is known to be, and gets no entries that would have to be kept for it.
        if replica.is_far_behind(target) && !replica.space.is_full(target.get()) {
            tracing::warn!(copyset = %replica.copyset, %target, "a follower is too far behind");
            replica.followers.shun(target.get());
            window.end(Sending::Failed);
            return;
        }
        let oldest = window.unanswered.borrow().front().map(|sent| sent.at);
        match oldest {
            None => begun.await,
            Some(sent) if ogee_runtime::now() >= sent + ANSWER_WAIT => {
                window.end(Sending::Failed);
                return;
            }
            Some(_) => ogee_runtime::sleep(ANSWER_WAIT / 4).await,
        }
    }
}

/// What came first.
enum Wait {
    Answer(Option<Frame>),
    Ended,
    BrokeOff,
}

fn lost<T>(text: &str) -> RpcResult<T> {
    Err(RPCError::Unreachable(Unreachable::from_string(text)))
}

impl Answers {
    async fn wait(&mut self) -> Wait {
        let ended = pin!(self.window.ended());
        let answer = pin!(self.receiver.recv());
        match select(answer, ended).await {
            Either::Left((frame, _)) => Wait::Answer(frame),
            Either::Right((Sending::Failed, _)) => Wait::BrokeOff,
            Either::Right((Sending::Done | Sending::Open, _)) => Wait::Ended,
        }
    }

    /// Gives the oldest request's permit back, notes how long its answer took, and that it was
    /// accepted if so.
    fn answered(&mut self, frame: Frame) -> RpcResult<StreamAppendResult<TypeConfig>> {
        let sent = self.window.unanswered.borrow_mut().pop_front();
        self.window.changed.notify_all();
        let (copyset, target) = (self.replica.copyset, self.target.get());
        if frame.header.status == Status::NoSpace {
            self.replica.space.note_full(copyset, target);
        }
        let frame = accepted(frame)?;
        let (result, word) = get_append_result(&frame.meta).map_err(|error| garbled(&error))?;
        let promised = word.promised;
        self.replica.space.note(target, word.room);
        if self.theirs.replace(promised) != Some(promised) {
            self.peers
                .heard_promise(&self.endpoint, self.ours, promised);
        }
        if let Some(sent) = sent {
            let replica = &self.replica;
            replica
                .metrics
                .replicate
                .observe(ogee_runtime::now() - sent.at);
            let term = sent.term;
            match &result {
                Ok(Some(matched)) => {
                    replica.followers.note(target, term, matched.index);
                    replica.space.note_matched(copyset, target, matched.index);
                }
                Err(StreamAppendError::Conflict(at))
                    if replica.followers.has_lost(target, term, at.index) =>
                {
                    return Err(self.reverted(at.index));
                }
                _ => {}
            }
            if matches!(result, Ok(_) | Err(StreamAppendError::Conflict(_))) {
                let ack = Ack {
                    term: sent.term,
                    sent: match seeded_bug!("lease-from-reply") {
                        false => sent.at,
                        true => ogee_runtime::now(),
                    },
                    promised,
                };
                replica.acks.note(target, ack);
            }
        }
        Ok(result)
    }

    /// openraft would end the group over this, which is not the fault of anybody but the follower.
    fn reverted(&self, index: u64) -> RPCError<TypeConfig> {
        tracing::error!(copyset = %self.replica.copyset, replica = %self.target, index,
            "a replica lacks entries that it had reported as durable: its device loses writes. \
             It gets no more entries; replace it: ogee copyset replace");
        RPCError::Unreachable(Unreachable::from_string("it has lost entries"))
    }

    async fn next(
        answers: Option<Self>,
    ) -> Option<(RpcResult<StreamAppendResult<TypeConfig>>, Option<Self>)> {
        let mut answers = answers?;
        let result = match answers.wait().await {
            Wait::Ended => return None,
            Wait::BrokeOff => lost("append stream broke off"),
            Wait::Answer(None) => lost("append stream lost its connection"),
            Wait::Answer(Some(frame)) => answers.answered(frame),
        };
        let rest = result.is_ok().then_some(answers);
        Some((result, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::{ANSWER_WAIT, NetworkFactory, REFUSED_PAUSE, Sending, Window, watch_progress};
    use crate::config::GroupConfig;
    use crate::fixture::{Lone, run};
    use crate::snapshot::CopyBudget;
    use crate::types::ReplicaNode;
    use futures_util::stream;
    use ogee_proto::id::ReplicaId;
    use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
    use std::rc::Rc;
    use std::time::Duration;

    #[test]
    fn a_stream_ends_when_its_oldest_request_goes_unanswered_and_not_before() {
        run(async {
            let (lone, target) = (Lone::open().await, ReplicaId::new(2));
            let window = Rc::new(Window::default());
            let watch = watch_progress(lone.group.replica().clone(), target, window.clone());
            let _watch = ogee_runtime::spawn_scoped(watch);
            // Answered, and the time after it is nobody's.
            ogee_runtime::sleep(Duration::from_millis(10)).await;
            window.sent(window.semaphore.acquire(1).await, 1);
            window.unanswered.borrow_mut().pop_front();
            ogee_runtime::sleep(ANSWER_WAIT / 3).await;
            let sent = ogee_runtime::now();
            window.sent(window.semaphore.acquire(1).await, 1);
            assert_eq!(window.ended().await, Sending::Failed);
            assert!(ogee_runtime::now() - sent >= ANSWER_WAIT);
        });
    }

    /// openraft asks again at once.
    #[test]
    fn a_stream_that_cannot_begin_is_refused_after_a_pause() {
        run(async {
            let lone = Lone::open().await;
            let (peers, replica) = (lone.group.peers().clone(), lone.group.replica().clone());
            let copies = Rc::new(CopyBudget::new(None));
            let config = GroupConfig::default();
            let mut factory = NetworkFactory::new(peers, replica.clone(), copies, config);
            let nowhere = ReplicaNode::default();
            let mut network = factory.new_client(9, &nowhere).await;
            for is_shunned in [false, true] {
                if is_shunned {
                    replica.followers.shun(9);
                }
                let asked = ogee_runtime::now();
                let option = RPCOption::new(Duration::from_secs(1));
                let refused = network.stream_append(stream::pending(), option).await;
                assert!(refused.is_err(), "shunned: {is_shunned}");
                assert!(ogee_runtime::now() - asked >= REFUSED_PAUSE);
            }
        });
    }
}
