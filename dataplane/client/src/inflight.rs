//! The slot table: how much of one volume may be under way at a time.
//!
//! *Place*: every part of a request takes a slot before anything else.
//! *Owner*: the shard of the volume.
//! *Invariants*: at most `INFLIGHT_PARTS_MAX` slots and `INFLIGHT_BYTES_MAX` bytes are out; a slot
//! comes back when its guard drops, and only then. After warm-up taking one allocates nothing here.
//! *On failure*: full means wait, first come first served.

use crate::copyset::Copyset;
use crate::limit::{INFLIGHT_BYTES_MAX, INFLIGHT_PARTS_MAX};
use crate::retry::Cause;
use crate::split::Part;
use ogee_proto::id::{CopysetId, ReplicaId};
use ogee_proto::wire::FrameKind;
use ogee_runtime::Instant;
use ogee_runtime::channel::{Permit, Semaphore};
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

/// What a part waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Waiting {
    /// The copyset's seal.
    Seal,
    /// A sequence number: the session's window is full or an abandoned request is not covered.
    Sequence,
    /// A turn to probe a copyset without a known leader.
    Probe,
    /// Room on the way to a copyset that has refused some.
    Room,
    /// The answer of a replica.
    Reply(ReplicaId),
    /// The end of a pause after an answer that did not help.
    Pause(ReplicaId, Cause),
}

/// One part under way, for the watchdog.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// Read, write …
    pub(crate) kind: FrameKind,
    /// What it addresses.
    pub(crate) part: Part,
    /// Where that lives.
    pub(crate) copyset: CopysetId,
    /// Since when it is under way.
    pub(crate) since: Instant,
    /// What it waits for now.
    pub(crate) waiting: Waiting,
}

/// The table of one volume.
pub(crate) struct Inflight {
    parts: Semaphore,
    bytes: Semaphore,
    table: RefCell<Table>,
}

#[derive(Default)]
struct Table {
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
}

/// A place in the table.
pub(crate) struct Slot {
    inflight: Rc<Inflight>,
    index: usize,
    _parts: Permit,
    _bytes: Permit,
}

impl Inflight {
    /// An empty table.
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            parts: Semaphore::new(INFLIGHT_PARTS_MAX),
            bytes: Semaphore::new(INFLIGHT_BYTES_MAX),
            table: RefCell::default(),
        })
    }

    /// A place for one part that moves `bytes` bytes; waits while the table is full.
    pub(crate) async fn acquire(
        self: &Rc<Self>,
        kind: FrameKind,
        part: Part,
        copyset: &Copyset,
        bytes: usize,
    ) -> Slot {
        let parts = self.parts.acquire(1).await;
        let bytes = self.bytes.acquire(bytes).await;
        let since = ogee_runtime::now();
        let waiting = Waiting::Sequence;
        let entry = Entry {
            kind,
            part,
            copyset: copyset.id(),
            since,
            waiting,
        };
        let index = self.table.borrow_mut().insert(entry);
        Slot {
            inflight: Rc::clone(self),
            index,
            _parts: parts,
            _bytes: bytes,
        }
    }

    /// The part that is under way for longest.
    pub(crate) fn oldest(&self) -> Option<Entry> {
        let table = self.table.borrow();
        table
            .entries
            .iter()
            .flatten()
            .min_by_key(|entry| entry.since)
            .copied()
    }

    /// How many parts are under way.
    pub(crate) fn count(&self) -> usize {
        let table = self.table.borrow();
        table.entries.len() - table.free.len()
    }
}

impl Table {
    fn insert(&mut self, entry: Entry) -> usize {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() - 1
        });
        *self.slot(index) = Some(entry);
        index
    }

    fn remove(&mut self, index: usize) {
        let entry = self.slot(index).take();
        assert!(entry.is_some(), "invariant: a slot is given back once");
        self.free.push(index);
    }

    fn slot(&mut self, index: usize) -> &mut Option<Entry> {
        self.entries
            .get_mut(index)
            .expect("invariant: indices come from insert")
    }
}

impl Slot {
    /// Notes what the part waits for from now on.
    pub(crate) fn waits_for(&self, waiting: Waiting) {
        if let Some(entry) = self.inflight.table.borrow_mut().slot(self.index) {
            entry.waiting = waiting;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.inflight.table.borrow_mut().remove(self.index);
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seal => f.write_str("the copyset to take our seal"),
            Self::Sequence => f.write_str("older writes of this volume to finish"),
            Self::Probe => f.write_str("the copyset's leader to be found"),
            Self::Room => f.write_str("room on the way to an overloaded copyset"),
            Self::Reply(replica) => write!(f, "an answer of {replica}"),
            Self::Pause(replica, cause) => write!(f, "the next try: {replica} said: {cause}"),
        }
    }
}
