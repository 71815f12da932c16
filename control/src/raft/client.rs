//! The handlers' way to the Raft thread: two bounded queues.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::error::{MemberError, PeerError, Unavailable, WriteError};
use super::members::MemberChange;
use super::peer::{PeerCall, PeerRequest, Sender};
use crate::limit::{PEER_QUEUE, REQUEST_QUEUE};
use crate::state::{Command, Reply, State};

/// How fresh a view must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consistency {
    /// Includes every write acknowledged before; only the leader can say.
    Latest,
    /// Whatever this metadata server has applied.
    Local,
}

/// The metadata at one moment.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// All of it.
    pub(crate) state: Arc<State>,
    /// Who leads, as far as is known.
    pub(crate) leader: Option<u64>,
    /// Raft's term.
    pub(crate) term: u64,
    /// Newest log entry that is kept only in the snapshot; 0: none.
    pub(crate) purged: u64,
    /// The entry that the metadata is as of.
    pub(crate) applied: Position,
    /// Who belongs to the group.
    pub(crate) members: Arc<Members>,
}

/// A place in the log; zeros: before its first entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) term: u64,
    pub(crate) index: u64,
}

/// Members of the metadata group by number.
pub(crate) type Members = BTreeMap<u64, MemberRecord>;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemberRecord {
    /// Where its gRPC services are.
    pub(crate) addr: String,
    /// It counts; else it learns.
    pub(crate) is_voter: bool,
}

/// How far the others are, as their leader knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The leader's newest entry.
    pub(crate) last_log: u64,
    /// The newest entry that a member is known to have.
    pub(crate) matched: BTreeMap<u64, u64>,
    /// How long ago a member answered.
    pub(crate) silence: BTreeMap<u64, Duration>,
}

/// Whether members may be at such an address: `host:port`.
pub(crate) fn is_address(addr: &str) -> bool {
    let parts = addr.rsplit_once(':');
    let parts = parts.and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    parts.is_some_and(|(host, port)| !host.is_empty() && port > 0)
}

impl View {
    /// Where the voters are.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let voters = self.members.values().filter(|member| member.is_voter);
        voters.map(|member| member.addr.clone()).collect()
    }
}

/// What the Raft thread is asked by handlers.
pub(super) enum Request {
    Write {
        command: Command,
        reply: oneshot::Sender<Result<Reply, WriteError>>,
    },
    Read {
        consistency: Consistency,
        reply: oneshot::Sender<Result<View, Unavailable>>,
    },
    Change {
        change: MemberChange,
        reply: oneshot::Sender<Result<(), MemberError>>,
    },
    HandOver {
        to: Option<u64>,
        reply: oneshot::Sender<Result<u64, MemberError>>,
    },
    Progress {
        reply: oneshot::Sender<Progress>,
    },
}

/// The Raft thread's ends of the queues.
pub(super) struct Queues {
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) peers: mpsc::Receiver<PeerRequest>,
}

/// See the module. Clones share the queues.
#[derive(Clone)]
pub(crate) struct RaftClient {
    requests: mpsc::Sender<Request>,
    peers: mpsc::Sender<PeerRequest>,
}

impl RaftClient {
    pub(super) fn new() -> (Self, Queues) {
        let (requests, request_queue) = mpsc::channel(REQUEST_QUEUE);
        let (peers, peer_queue) = mpsc::channel(PEER_QUEUE);
        let queues = Queues {
            requests: request_queue,
            peers: peer_queue,
        };
        (Self { requests, peers }, queues)
    }

    /// Has a command committed and applied. Cancelling does not take the command back.
    pub(crate) async fn write(&self, command: Command) -> Result<Reply, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Write { command, reply })?;
        answer.await.map_err(|_| Unavailable::Stopped)?
    }

    /// The metadata, as fresh as asked.
    pub(crate) async fn view(&self, consistency: Consistency) -> Result<View, Unavailable> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Read { consistency, reply })?;
        answer.await.map_err(|_| Unavailable::Stopped)?
    }

    /// Has a Raft message of another metadata server answered.
    pub(crate) async fn peer(
        &self,
        call: PeerCall,
        sender: Sender,
        body: Vec<u8>,
    ) -> Result<Vec<u8>, PeerError> {
        let (reply, answer) = oneshot::channel();
        let request = PeerRequest {
            call,
            sender,
            body,
            reply,
        };
        self.peers.try_send(request).map_err(|error| match error {
            TrySendError::Full(_) => PeerError::Overloaded,
            TrySendError::Closed(_) => PeerError::Stopped,
        })?;
        answer.await.map_err(|_| PeerError::Stopped)?
    }

    /// Takes a member into the group, or out of it.
    pub(crate) async fn change_members(&self, change: MemberChange) -> Result<(), MemberError> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Change { change, reply })?;
        answer.await.map_err(|_| Unavailable::Stopped)?
    }

    /// Has another member lead; answers with its number when it does.
    pub(crate) async fn hand_over(&self, to: Option<u64>) -> Result<u64, MemberError> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::HandOver { to, reply })?;
        answer.await.map_err(|_| Unavailable::Stopped)?
    }

    /// How far the others are, as far as this one knows.
    pub(crate) async fn progress(&self) -> Result<Progress, Unavailable> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Progress { reply })?;
        answer.await.map_err(|_| Unavailable::Stopped)
    }

    fn send(&self, request: Request) -> Result<(), Unavailable> {
        self.requests
            .try_send(request)
            .map_err(|error| match error {
                TrySendError::Full(_) => Unavailable::Overloaded,
                TrySendError::Closed(_) => Unavailable::Stopped,
            })
    }
}
