//! The handlers' way to the Raft thread: two bounded queues.

use std::sync::Arc;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::error::{PeerError, Unavailable, WriteError};
use super::peer::{PeerCall, PeerRequest};
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
    pub(crate) async fn peer(&self, call: PeerCall, body: Vec<u8>) -> Result<Vec<u8>, PeerError> {
        let (reply, answer) = oneshot::channel();
        let request = PeerRequest { call, body, reply };
        self.peers.try_send(request).map_err(|error| match error {
            TrySendError::Full(_) => PeerError::Overloaded,
            TrySendError::Closed(_) => PeerError::Stopped,
        })?;
        answer.await.map_err(|_| PeerError::Stopped)?
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
