//! Counters of this shard's connections.
//!
//! *Place*: bumped by every part of this crate, read by the shard for `/metrics`.
//! *Owner*: one set per executor thread, plain cells.
//! *Invariants*: counters only grow. *On failure*: nothing can fail.

use std::cell::Cell;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counters at one moment.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct MetricsSnapshot {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// Counters of one shard.
        pub(crate) struct Metrics {
            $(pub(crate) $name: Counter,)*
        }

        impl Metrics {
            const fn new() -> Self {
                Self { $($name: Counter(Cell::new(0)),)* }
            }

            fn snapshot(&self) -> MetricsSnapshot {
                MetricsSnapshot { $($name: self.$name.0.get(),)* }
            }
        }
    };
}

counters! {
    /// Frames received, keepalive included.
    frames_in,
    /// Frames written, keepalive included.
    frames_out,
    /// Bytes received.
    bytes_in,
    /// Bytes written.
    bytes_out,
    /// Body bytes copied in memory: small parts on the way out, moved remainders on the way in.
    bytes_copied,
    /// Of those, on the way in.
    bytes_copied_in,
    /// Of those, on the way out, into memory that an RDMA device reaches.
    bytes_copied_out,
    /// Bytes of answers that peers wrote to where their users want them.
    bytes_in_place,
    /// Memory of users, guests and devices that was registered with RDMA devices, again and again with each of them.
    registered_bytes,
    /// Such memory that could not be registered, or not all of it: what is sent from there is copied.
    registrations_failed,
    /// Buffers for transfers that found no room in the memory that RDMA devices reach: what is sent of them is copied.
    transfers_elsewhere,
    /// Reads that returned bytes.
    reads,
    /// Writes issued: `frames_out / writes` is how well output coalesces.
    writes,
    /// Headers or bodies that failed their checksum.
    crc_errors,
    /// Connections made, by either side.
    connections,
    /// Of those, the ones over RDMA.
    connections_rdma,
    /// Connections made by a caller after its first.
    reconnects,
    /// Peers given up because nothing was heard.
    peers_silent,
    /// Peers cut off for exceeding their credits.
    credits_exceeded,
    /// Replies that came after their call had given up, or that nobody asked for.
    replies_unmatched,
}

/// One counter.
pub(crate) struct Counter(Cell<u64>);

impl Metrics {
    /// Bytes were copied on the way in.
    pub(crate) fn copied_in(&self, count: usize) {
        self.bytes_copied.add(count);
        self.bytes_copied_in.add(count);
    }
}

impl Metrics {
    /// Bytes were copied on the way out.
    #[cfg(feature = "rdma")]
    pub(crate) fn copied_out(&self, count: usize) {
        self.bytes_copied.add(count);
        self.bytes_copied_out.add(count);
    }
}

impl Counter {
    pub(crate) fn add(&self, count: usize) {
        self.0.set(self.0.get() + count as u64);
    }

    pub(crate) fn bump(&self) {
        self.add(1);
    }
}

thread_local! {
    static METRICS: Metrics = const { Metrics::new() };
}

/// Runs `update` on this shard's counters.
pub(crate) fn count(update: impl FnOnce(&Metrics)) {
    METRICS.with(update);
}

/// This shard's counters.
#[must_use]
pub fn metrics() -> MetricsSnapshot {
    #[cfg_attr(
        not(feature = "rdma"),
        expect(unused_mut, reason = "only RDMA has such memory")
    )]
    let mut snapshot = METRICS.with(Metrics::snapshot);
    #[cfg(feature = "rdma")]
    {
        snapshot.transfers_elsewhere = ogee_runtime::transfer::elsewhere();
    }
    snapshot
}
