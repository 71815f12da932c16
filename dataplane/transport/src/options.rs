//! What may be set, with defaults that suit a data centre.

use crate::choice::Transport;
use crate::limit::{
    BACKOFF_MAX, BACKOFF_MIN, CALL_TIMEOUT, CONNECT_WAIT, CONNECTIONS_MAX, HANDSHAKE_TIMEOUT,
    PING_AFTER, QUEUE_BYTES_MAX, QUEUE_FRAMES_MAX, SILENT_AFTER,
};
use std::time::Duration;

/// When to speak, and when to give a silent peer up. Both sides should use the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keepalive {
    ping_after: Duration,
    silent_after: Duration,
}

impl Keepalive {
    /// Pings after `ping_after` of outbound silence (at most twice that passes), gives the peer up
    /// after `silent_after` of inbound silence (noticed at most `ping_after` later).
    ///
    /// # Panics
    /// When `silent_after` is less than three times `ping_after`, which would give live peers up.
    #[must_use]
    pub const fn new(ping_after: Duration, silent_after: Duration) -> Self {
        assert!(!ping_after.is_zero());
        assert!(silent_after.as_nanos() >= 3 * ping_after.as_nanos());
        Self {
            ping_after,
            silent_after,
        }
    }

    /// Outbound silence that a Ping ends.
    #[must_use]
    pub const fn ping_after(&self) -> Duration {
        self.ping_after
    }

    /// Inbound silence that ends the connection.
    #[must_use]
    pub const fn silent_after(&self) -> Duration {
        self.silent_after
    }

    /// Whole ticks of `ping_after` that make up `silent_after`, rounded up.
    pub(crate) const fn silent_ticks(&self) -> u128 {
        self.silent_after
            .as_nanos()
            .div_ceil(self.ping_after.as_nanos())
    }
}

impl Default for Keepalive {
    fn default() -> Self {
        Self::new(PING_AFTER, SILENT_AFTER)
    }
}

/// Of one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnectionOptions {
    /// What to take where the endpoint offers several.
    pub transport: Transport,
    /// Liveness.
    pub keepalive: Keepalive,
    /// Bound on connecting and exchanging Hellos.
    pub handshake_timeout: Duration,
    /// Frames that may wait in the output.
    pub queue_frames_max: usize,
    /// Bytes that may wait in the output. A single frame is always taken by an empty output.
    pub queue_bytes_max: usize,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self {
            transport: Transport::default(),
            keepalive: Keepalive::default(),
            handshake_timeout: HANDSHAKE_TIMEOUT,
            queue_frames_max: QUEUE_FRAMES_MAX,
            queue_bytes_max: QUEUE_BYTES_MAX,
        }
    }
}

/// Of a [`Caller`](crate::Caller).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallerOptions {
    /// Of each of its connections.
    pub connection: ConnectionOptions,
    /// Time that one call may take.
    pub call_timeout: Duration,
    /// Time that a call waits for a connection before it fails as unreachable.
    pub connect_wait: Duration,
    /// First pause between attempts.
    pub backoff_min: Duration,
    /// Longest pause between attempts.
    pub backoff_max: Duration,
}

impl Default for CallerOptions {
    fn default() -> Self {
        Self {
            connection: ConnectionOptions::default(),
            call_timeout: CALL_TIMEOUT,
            connect_wait: CONNECT_WAIT,
            backoff_min: BACKOFF_MIN,
            backoff_max: BACKOFF_MAX,
        }
    }
}

/// Of a [`Service`](crate::Service).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServiceOptions {
    /// Of each of its connections.
    pub connection: ConnectionOptions,
    /// Connections at a time; more are closed at once.
    pub connections_max: usize,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self {
            connection: ConnectionOptions::default(),
            connections_max: CONNECTIONS_MAX,
        }
    }
}

/// Of the RDMA port of an executor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RdmaOptions {
    /// The device; if it is not named the one that has the address that is listened at or connected from, else the
    /// first.
    pub device: Option<String>,
    /// Connections at a time, by either side; what the device must have queues for.
    pub connections_max: u32,
    /// Receive buffers, of 16 KiB, at least eight for each connection. As many again hold what users have not given
    /// back.
    pub receives: u32,
    /// Pieces of 128 KiB for payloads of more than 16 KiB.
    pub mediums: u32,
    /// Pieces of 1 MiB for larger ones.
    pub larges: u32,
    /// MiB that devices are read into, and that users' payloads are copied to, to be sent from there. Beyond it they
    /// are copied on their way out.
    pub transfers: u32,
    /// Bytes of memory for transfers, of users and of guests together that are registered, so that they are sent from where
    /// they lie.
    pub registered_max: usize,
    /// Traffic class of packets: DSCP in the upper six bits; the system's if not given.
    pub traffic_class: Option<u8>,
    /// How long the pump looks for completions before it sleeps.
    pub spin: Duration,
    /// Never sleep: the lowest latency, at the price of a core.
    pub busy_poll: bool,
}

impl Default for RdmaOptions {
    fn default() -> Self {
        Self {
            device: None,
            connections_max: 128,
            receives: 1024,
            mediums: 128,
            larges: 32,
            transfers: 32,
            registered_max: 64 << 30,
            traffic_class: None,
            spin: Duration::from_micros(20),
            busy_poll: false,
        }
    }
}
