//! What the clients did, for the judge.
//!
//! *Place*: written by the clients' workers, read once at the end. *Owner*: the simulation: it outlives
//! every client. *Invariants*: events are numbered, since virtual time stands still between them; the
//! numbers stand for the judge's nanoseconds.
//!
//! A write whose client was told nothing may have happened. But once a later attachment was seen to be
//! sealed in the block's copyset, an earlier attachment's write has happened by then or never will: so
//! such a write, if it was read by anybody, counts as completed at that moment, and one that was begun
//! after it must not be read at all.
//!
//! A write that its client has given up never happens after one that the client began later: once that
//! one has ended, so has the one given up.
//!
//! *On failure*: [`Recorder::judge`] says what was seen that cannot be.

use super::dice::Dice;
use crate::history::{self, INITIAL, Operation, OperationKind, Summary};
use ogee_proto::id::{CopysetId, Epoch, Incarnation};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Names an operation under way.
#[derive(Clone, Copy, Debug)]
pub struct OperationId(usize);

/// A block as the judge knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which volume.
    pub volume: u32,
    /// Which block of it.
    pub block: u64,
    /// Where it lives.
    pub copyset: CopysetId,
}

struct Record {
    operation: Operation,
    place: Place,
    epoch: u64,
    /// When its client gave it up.
    abandoned: Option<u64>,
    /// By then it has happened or never will.
    over_by: Option<u64>,
}

/// What fences, as the judge's epoch: later attachments have greater ones, and so have later incarnations of one.
#[must_use]
pub fn fence_of(epoch: Epoch, incarnation: Incarnation) -> u64 {
    epoch.get() << 32 | u64::from(incarnation.get())
}

/// Every operation so far.
#[derive(Default)]
pub struct Recorder {
    records: RefCell<Vec<Record>>,
    /// When the first attachment of an epoch was known to be sealed, by volume and copyset.
    sealed: RefCell<BTreeMap<(u32, CopysetId), BTreeMap<u64, u64>>>,
    /// Given up by their clients, and perhaps under way.
    abandoned: RefCell<BTreeSet<usize>>,
    /// Where the last writes that have ended were, the newest last.
    recent: RefCell<VecDeque<Place>>,
    events: Cell<u64>,
    values: Cell<u64>,
}

/// How many of the last writes are remembered.
const RECENT_MAX: usize = 6;
/// Blocks of a volume for the judge: no volume has more.
const VOLUME_BLOCKS: u64 = 1 << 40;

impl Recorder {
    fn event(&self) -> u64 {
        self.events.set(self.events.get() + 1);
        self.events.get()
    }

    /// A value that nobody has written yet.
    pub fn fresh_value(&self) -> u64 {
        self.values.set(self.values.get() + 1);
        INITIAL + self.values.get()
    }

    /// A client begins.
    pub fn begin(&self, client: u32, epoch: u64, place: Place, write: Option<u64>) -> OperationId {
        let kind = match write {
            Some(_) => OperationKind::Write,
            None => OperationKind::Read,
        };
        let operation = Operation {
            client,
            block: u64::from(place.volume) * VOLUME_BLOCKS + place.block,
            kind,
            value: write.unwrap_or(INITIAL),
            invoked_ns: self.event(),
            completed_ns: None,
        };
        let mut records = self.records.borrow_mut();
        records.push(Record {
            operation,
            place,
            epoch,
            abandoned: None,
            over_by: None,
        });
        OperationId(records.len() - 1)
    }

    /// A client was answered; a read with a value.
    pub fn end(&self, id: OperationId, read: Option<u64>) {
        let at = self.event();
        let mut records = self.records.borrow_mut();
        let operation = &mut records[id.0].operation;
        operation.completed_ns = Some(at);
        if let Some(value) = read {
            operation.value = value;
        } else {
            let ended = *operation;
            self.note_recent(records[id.0].place);
            self.end_abandoned(&mut records, &ended, at);
        }
    }

    fn note_recent(&self, place: Place) {
        let mut recent = self.recent.borrow_mut();
        if recent.len() == RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back(place);
    }

    /// Where a write has ended lately.
    pub fn recent_write(&self, dice: &mut Dice) -> Option<Place> {
        let recent = self.recent.borrow();
        (!recent.is_empty()).then(|| recent[dice.index(recent.len())])
    }

    /// A client waits for the answer no more.
    pub fn abandon(&self, id: OperationId) {
        let at = self.event();
        let record = &mut self.records.borrow_mut()[id.0];
        record.abandoned = Some(at);
        self.abandoned.borrow_mut().insert(id.0);
    }

    /// A write has ended at `at`: what its client had abandoned before it began is over.
    fn end_abandoned(&self, records: &mut [Record], ended: &Operation, at: u64) {
        self.abandoned.borrow_mut().retain(|index| {
            let record = &mut records[*index];
            let is_before = record.operation.block == ended.block
                && record.operation.client == ended.client
                && record
                    .abandoned
                    .is_some_and(|given_up| given_up < ended.invoked_ns);
            if is_before {
                record.over_by = Some(at);
            }
            !is_before
        });
    }

    /// From now on no attachment before `epoch` can change anything there.
    pub fn sealed(&self, volume: u32, copyset: CopysetId, epoch: u64) {
        let at = self.event();
        let mut sealed = self.sealed.borrow_mut();
        let epochs = sealed.entry((volume, copyset)).or_default();
        epochs.entry(epoch).or_insert(at);
    }

    /// Operations begun so far.
    pub fn len(&self) -> usize {
        self.records.borrow().len()
    }

    /// Operations that were answered.
    pub fn answered(&self) -> usize {
        let records = self.records.borrow();
        let answered = records
            .iter()
            .filter(|r| r.operation.completed_ns.is_some());
        answered.count()
    }

    /// Whether all of it can have happened.
    ///
    /// # Errors
    /// What cannot.
    pub fn judge(&self) -> Result<Summary, String> {
        let operations = self.operations()?;
        history::check(&operations).map_err(|violation| violation.to_string())
    }

    /// Everything as the judge wants it.
    fn operations(&self) -> Result<Vec<Operation>, String> {
        let records = self.records.borrow();
        let sealed = self.sealed.borrow();
        let seen: BTreeSet<u64> = records
            .iter()
            .map(|record| &record.operation)
            .filter(|it| it.kind == OperationKind::Read && it.completed_ns.is_some())
            .map(|it| it.value)
            .collect();
        let mut operations = Vec::with_capacity(records.len());
        for record in records.iter() {
            let mut operation = record.operation;
            let place = (record.place.volume, record.place.copyset);
            let fenced = sealed.get(&place).and_then(|epochs| {
                let later = epochs.range(record.epoch + 1..);
                later.map(|(_, at)| *at).min()
            });
            if let Some(fenced) = fenced
                && operation.kind == OperationKind::Write
                && operation.completed_ns.is_none_or(|end| end > fenced)
                && seen.contains(&operation.value)
            {
                if operation.invoked_ns > fenced {
                    return Err(format!(
                        "a write of a fenced attachment took effect: {operation:?}, epoch {}, \
                         fenced at {fenced}",
                        record.epoch
                    ));
                }
                operation.completed_ns = Some(fenced);
            }
            if operation.completed_ns.is_none() && seen.contains(&operation.value) {
                operation.completed_ns = record.over_by;
            }
            operations.push(operation);
        }
        Ok(operations)
    }
}
