//! The log in memory: what was accepted, what waits, what is durable.
//!
//! *Place*: between the public handles, which accept, and the flusher, which plans a write and
//! reports it done. *Owner*: the log's executor; borrowed for plain functions only, never across
//! an await. *Invariants*: what is accepted is queued in the same call; `durable` sides change only
//! when a write is reported done; segments are freed by durable records only. *On failure*: a
//! refused call changes nothing; after [`State::stop`] every call is refused with its reason.
//!
//! | module | holds |
//! |---|---|
//! | `accept` | what callers put in |
//! | `plan` | what the flusher writes next |
//! | `apply` | what a finished write changes |
//! | `forward` | copies of live entries, to free their segment |
//! | `extents` | what is held of the store |
//! | `repair` | what is lost, and putting it back |
//! | `space` | what fits |

mod accept;
mod apply;
mod extents;
mod forward;
mod plan;
mod repair;
mod space;

pub(crate) use extents::NewEntry;
pub(crate) use plan::{Batch, Plan};

use crate::cache::Cache;
use crate::counters::LogCounters;
use crate::error::LogError;
use crate::group::{Front, Group, Slot};
use crate::options::LogOptions;
use crate::placed::Owner;
use crate::queue::{Done, Queue};
use crate::repeat::Repeat;
use crate::segments::Segments;
use ogee_proto::id::{CopysetId, StoreId};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// What the newest batch said, for the next one to repeat.
#[derive(Debug, Default)]
pub(crate) struct Previous {
    /// Where it begins, from its segment's start; 0 if it is not in the active segment.
    pub offset: usize,
    pub repeats: Vec<Repeat>,
}

/// Everything a log knows.
pub(crate) struct State {
    pub options: LogOptions,
    pub groups: BTreeMap<CopysetId, Group>,
    pub segments: Segments,
    pub counters: LogCounters,
    queue: Queue,
    cache: Cache,
    /// Groups whose committed id is newer than the last record of it.
    lazy: BTreeSet<CopysetId>,
    epoch: u64,
    /// Newest batch, which is durable.
    sequence: u64,
    /// What the next batch repeats.
    previous: Previous,
    /// Whether only its own presence proves the newest batch.
    unproven: bool,
    serial: u64,
    /// Moved entries queued or in flight.
    moving: usize,
    /// Batch after which copying forward was tried last.
    moved_at: u64,
    closing: bool,
    stopped: Option<LogError>,
    /// Who owns the extents that records name, once it is known.
    owner: Option<Rc<Owner>>,
    /// Bytes promised to entries that are on their way.
    pub promised: Rc<Cell<u64>>,
}

impl State {
    /// A log whose newest batch is `sequence`, of this `epoch`.
    pub(crate) fn new(
        options: LogOptions,
        groups: BTreeMap<CopysetId, Group>,
        segments: Segments,
        epoch: u64,
        sequence: u64,
        previous: Previous,
    ) -> Self {
        Self {
            options,
            groups,
            segments,
            counters: LogCounters::default(),
            queue: Queue::default(),
            cache: Cache::new(options.cache_len.as_usize()),
            lazy: BTreeSet::new(),
            epoch,
            sequence,
            previous,
            unproven: false,
            serial: 1,
            moving: 0,
            moved_at: 0,
            closing: false,
            stopped: None,
            owner: None,
            promised: Rc::default(),
        }
    }

    /// What is written from now on is not of the process that wrote what was recovered.
    pub(crate) const fn next_epoch(&mut self) {
        self.epoch += 1;
    }

    /// The store.
    pub(crate) const fn store(&self) -> StoreId {
        self.options.store
    }

    /// Why nothing more is accepted, if so.
    pub(crate) fn check_running(&self) -> Result<(), LogError> {
        match &self.stopped {
            Some(reason) => Err(reason.clone()),
            None if self.closing => Err(LogError::Closed {
                store: self.store(),
            }),
            None => Ok(()),
        }
    }

    /// Front of `group`, if anything was ever written to it.
    pub(crate) fn front(&self, group: CopysetId) -> Option<&Front> {
        self.groups
            .get(&group)
            .map(|group| &group.front)
            .filter(|front| front.exists)
    }

    fn slot_mut(&mut self, group: CopysetId, index: u64, serial: u64) -> Option<&mut Slot> {
        let slot = self.groups.get_mut(&group)?.front.entries.get_mut(index)?;
        (slot.serial == serial).then_some(slot)
    }

    /// Nothing more is written, for `reason`; returns the callbacks that wait, in order.
    pub(crate) fn stop(&mut self, batch: Option<Batch>, reason: LogError) -> Vec<Done> {
        self.stopped = Some(reason);
        self.keep_extents();
        let in_flight = batch.map(|batch| batch.items).unwrap_or_default();
        let queued = self.queue.drain();
        in_flight
            .into_iter()
            .chain(queued)
            .filter_map(|item| item.done)
            .collect()
    }

    /// Drains and stops as soon as what is queued is durable.
    pub(crate) fn close(&mut self) {
        self.closing = true;
        self.keep_extents();
    }

    /// From now on no extent is given back: what the medium says of it later is not known here.
    fn keep_extents(&self) {
        if let Some(owner) = &self.owner {
            owner.close();
        }
    }
}
