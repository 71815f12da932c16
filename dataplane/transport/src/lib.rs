//! Frames between processes: connections, request/reply, append streams.
//!
//! *Place*: between `group`, `client` (above) and `runtime` (below). Knows frames, credits and
//! liveness; knows nothing of volumes, Raft or devices.
//!
//! *Owner*: everything is single-threaded (`Rc`) and belongs to one shard. A connection has two
//! tasks, a writer and a keepalive; reading happens in whoever awaits [`FrameReceiver::recv`].
//! Nothing is spawned per frame.
//!
//! *Invariants*
//! 1. Nothing of a peer is parsed before its Hello, and a Hello of another version is refused
//!    with both versions named.
//! 2. A frame that is handed up has passed header and body checksums.
//! 3. Frames of one connection arrive in the order in which they were queued, or not at all.
//! 4. Every queue is bounded: output by frames and bytes, requests by the credits that the server
//!    offered (and enforces), stream replies by the window that the opener named.
//! 5. A peer that is dead, stopped or unreachable is noticed in `silent_after` (2 s) plus at most
//!    one ping interval.
//!
//! *On failure*: an error closes the whole connection, since framing or trust is lost. The first
//! cause wins and every waiter gets it. [`Caller`] reconnects by itself and says of each lost
//! call whether its outcome is unknown; everything else is for the layer above.
//!
//! Memory: a small body is a slice of the chunk that it was read into and keeps that chunk (up to
//! 256 KiB) alive. Who stores bodies for long copies them, or counts the chunk. Bodies of 64 KiB
//! and more normally stand in buffers of their own.
//!
//! | module | holds |
//! |---|---|
//! | `endpoint`, `frame`, `hello`, `options`, `limit` | the words |
//! | `choice` | which carrier a connection takes |
//! | `stream`, `listener` | bytes: TCP, and loopback within one executor |
//! | `decoder`, `outbox` | frames from bytes, bytes from frames |
//! | `rdma` | frames over RDMA verbs, behind the feature of that name |
//! | `link`, `writer`, `keepalive` | one connection's shared state and its two tasks |
//! | `connection`, `receiver`, `sender` | one connection as its user sees it |
//! | `caller` | request/reply and append streams over a self-healing connection |
//! | `service` | the answering side |
//! | `metrics` | counters of this shard |

mod call_id;
mod caller;
mod choice;
mod connection;
mod decoder;
mod endpoint;
mod error;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod handshake;
mod hello;
mod keepalive;
mod limit;
mod link;
mod listener;
mod metrics;
mod options;
mod outbox;
pub mod rdma;
mod receiver;
mod sender;
mod service;
mod signal;
mod stream;
mod writer;

pub use caller::{Caller, StreamReceiver, StreamSender};
pub use choice::{Transport, TransportParseError};
pub use connection::{Connection, connect, connect_with};
pub use endpoint::{Endpoint, EndpointParseError};
pub use error::{CallError, Doing, SendError, TransportError};
pub use frame::Frame;
pub use hello::{Hello, Role};
pub use limit::{
    COPY_MAX, CREDITS_DEFAULT, HANDSHAKE_TIMEOUT, LARGE_MIN, PING_AFTER, QUEUE_BYTES_MAX,
    QUEUE_FRAMES_MAX, SILENT_AFTER,
};
pub use listener::{Incoming, Listener};
pub use metrics::{MetricsSnapshot, metrics};
pub use options::{CallerOptions, ConnectionOptions, Keepalive, RdmaOptions, ServiceOptions};
pub use receiver::FrameReceiver;
pub use sender::FrameSender;
pub use service::{Handler, Peer, PeerId, Service};
