//! What the thread that speaks with the VM's process asks of the shard that serves its disk.
//!
//! *Place*: between `control` and `device`. *Owner*: each order has one asker, who waits for its answer.
//! *Invariants*: one order at a time; it is carried out when it is answered. *On failure*: an order whose shard is
//! gone is answered by the end of its channel.

use super::inflight::Inflight;
use super::memory::MemoryTable;
use super::ring::RingAddresses;
use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

/// A ring, with all that it needs to run.
pub(super) struct RingStart {
    pub(super) index: u16,
    pub(super) size: u16,
    pub(super) memory: Arc<MemoryTable>,
    pub(super) addresses: RingAddresses,
    pub(super) next_available: u16,
    pub(super) has_event_index: bool,
    pub(super) kick: Option<File>,
    pub(super) call: Option<File>,
    pub(super) error: Option<File>,
    pub(super) inflight: Option<Inflight>,
}

pub(super) enum Order {
    Start(Box<RingStart>),
    /// Answered with the index of the next request, if it ran.
    Stop {
        index: u16,
    },
    /// All of them, side by side.
    StopAll,
    /// Only if it runs.
    Call {
        index: u16,
        call: Option<File>,
    },
    /// The guest's memory is mapped anew; where each running ring is now.
    Memory {
        memory: Arc<MemoryTable>,
        rings: Vec<(u16, RingAddresses)>,
    },
}

/// An order and where its answer goes.
pub(super) struct Envelope {
    pub(super) order: Order,
    pub(super) answer: SyncSender<Option<u16>>,
}
