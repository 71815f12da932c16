//! What can go wrong between two processes, and who recovers.

use crate::choice::Transport;
use crate::endpoint::Endpoint;
use crate::frame::Frame;
use ogee_proto::wire::{FrameKind, WireError};
use std::fmt;
use std::io;
use std::time::Duration;

/// Which system call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// Binding a listener.
    Bind,
    /// Accepting a connection.
    Accept,
    /// Connecting to a peer.
    Connect,
    /// Reading from a peer.
    Read,
    /// Writing to a peer.
    Write,
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bind => "bind",
            Self::Accept => "accept",
            Self::Connect => "connect",
            Self::Read => "read",
            Self::Write => "write",
        })
    }
}

/// The system's number of an error, if it came from the system.
struct OsError(Option<i32>);

impl fmt::Display for OsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .map_or(Ok(()), |number| write!(f, " (os error {number})"))
    }
}

/// Why a connection could not be made, or ended. It is over in every case: nothing more can be
/// sent or received on it. Cheap to clone, since every waiter of a connection gets the first cause.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The system refused. The dialling side reconnects with backoff; a listener that cannot bind
    /// is for the operator.
    #[error("{doing} failed: {kind}{}", OsError(*.os))]
    Io {
        /// The call that failed.
        doing: Doing,
        /// Its kind.
        kind: io::ErrorKind,
        /// The system's number, if it came from the system.
        os: Option<i32>,
    },
    /// The bytes are not valid frames. The dialling side reconnects; if it repeats, the operator
    /// looks at versions (named in the error), at what listens there, or at the network hardware.
    #[error("invalid frame from the peer")]
    Wire(#[from] WireError),
    /// The peer closed the connection between two frames. The dialling side reconnects.
    #[error("the peer closed the connection")]
    PeerClosed,
    /// The connection ended inside a frame. The dialling side reconnects.
    #[error("the connection ended inside a frame")]
    CutShort,
    /// Nothing was heard: the peer is dead, stopped or unreachable. The dialling side reconnects;
    /// a leader counts the peer as down.
    #[error("nothing heard from the peer for {silence:?}")]
    PeerSilent {
        /// How long at least.
        silence: Duration,
    },
    /// Connecting and exchanging Hellos took too long. The dialling side retries.
    #[error("no handshake within {limit:?}")]
    HandshakeTimeout {
        /// The bound that passed.
        limit: Duration,
    },
    /// A frame of a kind that has no place here, such as a request before the Hello. A bug of the
    /// peer, or not an Ogee peer: the operator.
    #[error("unexpected {kind:?} frame")]
    UnexpectedFrame {
        /// Its kind.
        kind: FrameKind,
    },
    /// The peer had more requests in flight than it was offered. A bug of the peer.
    #[error("the peer exceeded its {offered} credits")]
    CreditsExceeded {
        /// What we offered.
        offered: u32,
    },
    /// A stream frame from a peer that is not a chunkserver, or of a kind that is not Raft's. A
    /// bug of the peer.
    #[error("stream frame of kind {kind:?} is not allowed to this peer")]
    StreamRefused {
        /// Its kind.
        kind: FrameKind,
    },
    /// The peer offers no credits, so it takes no requests: it is not a server. The operator
    /// corrects the endpoint.
    #[error("the peer takes no requests")]
    NoCredits,
    /// The peer listens over a carrier that this side may not use. The operator lets both have one in common.
    #[error(
        "the peer listens at {endpoint} only, which transport = {allowed} forbids: set the same transport on both sides, \
         or auto"
    )]
    CarrierForbidden {
        /// Where it listens.
        endpoint: Endpoint,
        /// What this side may use.
        allowed: Transport,
    },
    /// RDMA is asked for, and this program was built without it: the operator.
    #[error(
        "this program was built without RDMA: build it with `--features rdma`, or set transport = tcp"
    )]
    WithoutRdma,
    /// RDMA could not make the connection, or ended it; who recovers stands with each fault.
    #[cfg(feature = "rdma")]
    #[error(transparent)]
    Rdma(#[from] crate::rdma::RdmaFault),
    /// This side closed the connection. Nobody needs to recover.
    #[error("closed by this side")]
    Closed,
}

impl TransportError {
    /// From the system's error.
    pub(crate) fn io(doing: Doing, error: &io::Error) -> Self {
        Self::Io {
            doing,
            kind: error.kind(),
            os: error.raw_os_error(),
        }
    }
}

/// Why a frame was not queued. The frame comes back, so nothing is lost.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SendError {
    /// The output is full: the sender waits (`send`), or pushes back to its own caller.
    #[error("the connection's output queue is full")]
    Full(Box<Frame>),
    /// The connection has ended: the sender goes to another one.
    #[error("the connection has ended")]
    Closed {
        /// The frame.
        frame: Box<Frame>,
        /// Why it ended.
        #[source]
        cause: TransportError,
    },
    /// A part is longer than a frame may carry: a bug of the sender.
    #[error("{field} of {len} bytes is past the limit of {limit}")]
    TooLong {
        /// Which part.
        field: &'static str,
        /// Its length.
        len: usize,
        /// The most it may be.
        limit: usize,
    },
}

/// Why a call has no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// There is no connection and none came up in time; nothing was sent. The caller tries another
    /// replica, or again after a pause.
    #[error("{endpoint} is unreachable")]
    Unreachable {
        /// Where to.
        endpoint: Endpoint,
        /// What the last attempt died of, if one has finished.
        #[source]
        cause: Option<TransportError>,
    },
    /// The connection broke during the call.
    #[error("connection lost, request {}", if *sent { "may have arrived" } else { "was not sent" })]
    Disconnected {
        /// Whether the request may have reached the peer. If so its outcome is unknown and a
        /// mutating request is only repeated under its own sequence number.
        sent: bool,
        /// Why it broke.
        #[source]
        cause: TransportError,
    },
    /// No reply in time. The caller retries as for `Disconnected`.
    #[error("no reply within {limit:?}, request {}", if *sent { "was sent" } else { "was not sent" })]
    Timeout {
        /// Whether the request may have reached the peer.
        sent: bool,
        /// The time allowed.
        limit: Duration,
    },
    /// A part is longer than a frame may carry: a bug of the caller.
    #[error("{field} of {len} bytes is past the limit of {limit}")]
    TooLong {
        /// Which part.
        field: &'static str,
        /// Its length.
        len: usize,
        /// The most it may be.
        limit: usize,
    },
}

impl CallError {
    /// Whether the request may have taken effect.
    #[must_use]
    pub const fn outcome_unknown(&self) -> bool {
        matches!(
            self,
            Self::Disconnected { sent: true, .. } | Self::Timeout { sent: true, .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{Doing, TransportError};
    use std::io;

    #[test]
    fn a_system_error_has_its_number_if_there_is_one() {
        let of = |error: &io::Error| TransportError::io(Doing::Bind, error).to_string();
        let taken = io::Error::from_raw_os_error(98);
        assert_eq!(of(&taken), "bind failed: address in use (os error 98)");
        let plain = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(of(&plain), "bind failed: broken pipe");
    }

    #[cfg(not(feature = "rdma"))]
    #[test]
    fn without_rdma_nobody_listens_over_it_and_is_told_what_to_do() {
        use crate::{Endpoint, Listener};
        let address = "127.0.0.1:0".parse().expect("an address");
        let error = Listener::bind(&Endpoint::Rdma(address))
            .err()
            .expect("no RDMA");
        assert!(error.to_string().contains("`--features rdma`"), "{error}");
    }
}
