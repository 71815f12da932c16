//! The follower's end of append streams.
//!
//! *Place*: frames come from the shard's service in order; answers go back in order.
//! *Owner*: one group; one task per open stream.
//! *Invariants*: requests of one stream reach openraft in the order in which they came; entries are
//! let in only while the log has room, so a full log slows the leader instead of failing, and only if
//! the store has room for their data, so that all that is in the log can be written back; but for a
//! bounded part that nobody else takes (`overdraft`).
//! *On failure*: a malformed request, a full window or a lost connection ends the stream, and so does
//! an answer that says that the store is full; the leader opens a new one and probes.

use crate::codec::{Word, get_append, put_append_result};
use crate::group::Group;
use crate::limit::APPEND_REPLIES_MAX;
use crate::replica::Replica;
use crate::room::Claim;
use crate::types::{RaftEntry, TypeConfig};
use futures_util::StreamExt;
use futures_util::future::{Either, ready, select};
use ogee_log::Reservation;
use ogee_proto::wire::{FrameHeader, Status};
use ogee_runtime::channel::mpsc;
use ogee_transport::{Frame, Peer, PeerId};
use openraft::EntryPayload;
use openraft::raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::rc::Rc;

type Request = AppendEntriesRequest<TypeConfig>;
type StreamKey = (PeerId, u64);

/// Open streams of one group.
#[derive(Default)]
pub(crate) struct AppendStreams {
    open: RefCell<HashMap<StreamKey, mpsc::Sender<Request>>>,
}

impl AppendStreams {
    fn close(&self, key: &StreamKey) {
        self.open.borrow_mut().remove(key);
    }
}

impl Group {
    /// Takes an `AppendEntries`; the answer goes to `peer`. Does not block.
    pub fn on_append(&self, peer: &Peer, frame: Frame) {
        let request = match get_append(&frame.meta, &frame.payload) {
            Ok(request) => request,
            Err(error) => {
                tracing::warn!(copyset = %self.copyset(), %error, "refused an append request");
                answer(
                    peer,
                    Frame::new(stream_reply(&frame.header, Status::BadRequest)),
                );
                return;
            }
        };
        self.note_leader(&request.vote);
        self.note_heard();
        if !request.entries.is_empty() {
            self.replica().metrics.count_foreground();
        }
        if frame.header.stream == 0 {
            self.append_once(peer, frame.header, request);
        } else {
            self.append_stream(peer, frame.header, request);
        }
    }

    /// Ends a stream at its leader's request.
    pub fn on_append_close(&self, peer: &Peer, header: &FrameHeader) {
        self.streams().close(&(peer.id(), header.stream));
    }

    /// A request outside any stream: a heartbeat.
    fn append_once(&self, peer: &Peer, header: FrameHeader, request: Request) {
        let (group, peer) = (self.clone(), peer.clone());
        drop(ogee_runtime::spawn(async move {
            let (prev, last) = (
                request.prev_log_id,
                request.entries.last().map(|entry| entry.log_id),
            );
            let matched = last.or(prev);
            match group.raft().append_entries(request).await {
                Ok(response) => {
                    let result = response.into_stream_result(prev, matched);
                    answer(&peer, group.append_reply(&header, &result));
                }
                Err(_stopped) => answer(&peer, Frame::new(stream_reply(&header, Status::Io))),
            }
        }));
    }

    fn append_stream(&self, peer: &Peer, header: FrameHeader, request: Request) {
        let key = (peer.id(), header.stream);
        let open = self.streams().open.borrow().get(&key).cloned();
        let sender = match open {
            Some(sender) => sender,
            None => self.open_stream(peer, header),
        };
        if sender.try_send(request).is_err() {
            self.streams().close(&key);
            answer(peer, Frame::new(stream_reply(&header, Status::Retry)));
        }
    }

    fn open_stream(&self, peer: &Peer, header: FrameHeader) -> mpsc::Sender<Request> {
        let (sender, requests) = mpsc::channel(APPEND_REPLIES_MAX);
        let key = (peer.id(), header.stream);
        self.streams().open.borrow_mut().insert(key, sender.clone());
        let (group, peer) = (self.clone(), peer.clone());
        drop(ogee_runtime::spawn(async move {
            group.run_stream(&peer, header, requests).await;
            group.streams().close(&key);
        }));
        sender
    }

    async fn run_stream(
        &self,
        peer: &Peer,
        header: FrameHeader,
        requests: mpsc::Receiver<Request>,
    ) {
        let gate = Rc::new(Gate::new(self.replica().clone()));
        let keeper = gate.clone();
        let gated = requests.then(move |request| {
            let gate = gate.clone();
            async move { gate.let_in(&request).await.then_some(request) }
        });
        // Ends with the first request that is refused; what was let in before is answered first.
        let gated = gated.scan((), |(), request| ready(request));
        let mut results = pin!(self.raft().stream_append(gated));
        let mut closed = pin!(peer.closed());
        loop {
            match select(results.next(), &mut closed).await {
                Either::Left((Some(Ok(result)), _)) => {
                    keeper.answered(result.is_ok());
                    let reply = self.append_reply(&header, &result);
                    if peer.reply_wait(reply).await.is_err() {
                        return;
                    }
                }
                Either::Left((Some(Err(_stopped)), _)) => {
                    answer(peer, Frame::new(stream_reply(&header, Status::Io)));
                    return;
                }
                Either::Left((None, _)) if keeper.is_full.get() => {
                    answer(peer, Frame::new(stream_reply(&header, Status::NoSpace)));
                    return;
                }
                _ => return,
            }
        }
    }
}

/// Where the requests of one stream wait for room, and what was promised to those let in.
struct Gate {
    replica: Rc<Replica>,
    /// In the order of the requests without an answer.
    passed: RefCell<VecDeque<Pass>>,
    /// The store had no room for a request.
    is_full: Cell<bool>,
}

/// What a request was promised.
#[derive(Default)]
struct Pass {
    /// Room in the log, until the entries are in it.
    _log: Option<Reservation>,
    /// Room in the store, until they are applied.
    claims: Vec<(u64, Claim)>,
}

impl Gate {
    fn new(replica: Rc<Replica>) -> Self {
        Self {
            replica,
            passed: RefCell::default(),
            is_full: Cell::new(false),
        }
    }

    /// Whether the store has room for a request. One that waits for room in the log is bounded by the
    /// leader, which gives the stream up.
    async fn let_in(&self, request: &Request) -> bool {
        let entries = request.entries.as_slice();
        let committed = request.leader_commit.map_or(0, |id| id.index);
        let Some(claims) = self.replica.claim_entries(entries, committed) else {
            self.is_full.set(true);
            return false;
        };
        let log = match entries {
            [] => None,
            entries => {
                let lens = entries.iter().map(payload_len);
                self.replica.reserve_log(lens).await
            }
        };
        self.passed
            .borrow_mut()
            .push_back(Pass { _log: log, claims });
        true
    }

    /// The oldest request was answered: its entries are in the log, or will never be.
    fn answered(&self, is_ok: bool) {
        let pass = self.passed.borrow_mut().pop_front();
        let Pass { claims, .. } = pass.unwrap_or_default();
        if is_ok {
            self.replica.let_in(claims);
        }
    }
}

impl Group {
    /// What was accepted, and what it promises the leader.
    fn append_reply(
        &self,
        request: &FrameHeader,
        result: &StreamAppendResult<TypeConfig>,
    ) -> Frame {
        if matches!(result, Ok(_) | Err(StreamAppendError::Conflict(_))) {
            // The leader has something to say, and its word has just renewed openraft's own timer.
            self.wake();
        }
        let mut meta = Vec::with_capacity(32);
        let word = Word {
            promised: self.config().promised(),
            room: self.replica().room_share(),
        };
        put_append_result(&mut meta, result, word);
        let mut frame = Frame::new(stream_reply(request, Status::Ok));
        frame.meta = meta.into();
        frame
    }
}

pub(crate) fn payload_len(entry: &RaftEntry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(command) => command.payload.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    }
}

/// Answers; a peer that is gone needs no answer.
fn answer(peer: &Peer, frame: Frame) {
    if let Err(error) = peer.reply(frame) {
        tracing::debug!(peer = %peer.id(), %error, "an answer found no peer");
    }
}

fn stream_reply(request: &FrameHeader, status: Status) -> FrameHeader {
    let mut header = FrameHeader::reply(request, status);
    header.stream = request.stream;
    header
}
