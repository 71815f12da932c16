//! What waits for the flusher.
//!
//! *Place*: filled by `state` when something is accepted, emptied by the flusher into batches.
//! *Owner*: the log's task. *Invariants*: records of one group leave in the order in which they
//! came; a vote overtakes records of *other* groups only. *On failure*: everything queued is
//! handed back with its callback.

use crate::error::LogError;
use crate::limit::PAGE;
use crate::record::{EntryRecord, Record};
use ogee_proto::id::CopysetId;
use ogee_proto::unit::ByteOffset;
use ogee_runtime::{Gather, Payload};
use std::collections::VecDeque;

/// Called once the record is durable, or with the reason why it never will be.
pub(crate) type Done = Box<dyn FnOnce(Result<(), LogError>)>;

/// A record that waits; without one, only the callback waits for its turn.
pub(crate) struct Queued {
    pub group: CopysetId,
    pub record: Option<Record>,
    pub payload: Payload,
    /// Serial of the entry, to find it again when it is durable.
    pub serial: u64,
    /// Bytes that it takes at most; set when it is queued.
    pub cost: u64,
    pub done: Option<Done>,
}

impl Queued {
    /// What is to be written beside the batch, and where.
    pub(crate) fn writes(&self) -> Vec<(ByteOffset, Gather)> {
        match &self.record {
            Some(Record::Entry(EntryRecord {
                placed: Some(placed),
                ..
            })) => placed.writes(&self.payload),
            _ => Vec::new(),
        }
    }

    fn cost_alone(&self) -> u64 {
        match &self.record {
            Some(Record::Entry(_) | Record::Moved(_)) => entry_cost(self.payload.len()),
            Some(record) => record.len() as u64,
            None => 0,
        }
    }
}

/// Bytes that an entry with this payload takes at most, alone in a batch.
pub(crate) const fn entry_cost(payload_len: usize) -> u64 {
    (payload_len + PAGE) as u64
}

/// Two lanes: votes of groups that have nothing else queued, and the rest.
#[derive(Default)]
pub(crate) struct Queue {
    urgent: VecDeque<Queued>,
    main: VecDeque<Queued>,
    cost: u64,
}

impl Queue {
    /// Adds `item`. A vote may be `urgent` only if its group has nothing in the queue: an earlier
    /// entry that became durable after a later vote would be harmless, but its callback would
    /// come after the vote's, and the caller counts on their order.
    /// Returns its cost.
    pub(crate) fn push(&mut self, mut item: Queued, urgent: bool) -> u64 {
        item.cost = item.cost_alone();
        let cost = item.cost;
        self.cost += cost;
        if urgent {
            self.urgent.push_back(item);
        } else {
            self.main.push_back(item);
        }
        cost
    }

    /// The next item.
    pub(crate) fn front(&self) -> Option<&Queued> {
        self.urgent.front().or_else(|| self.main.front())
    }

    /// Takes the next item. Its cost counts until [`Queue::settle`].
    pub(crate) fn pop(&mut self) -> Option<Queued> {
        self.urgent.pop_front().or_else(|| self.main.pop_front())
    }

    /// `cost` bytes that were taken are durable.
    pub(crate) const fn settle(&mut self, cost: u64) {
        self.cost -= cost;
    }

    /// Bytes queued or in flight.
    pub(crate) const fn cost(&self) -> u64 {
        self.cost
    }

    /// Items queued.
    pub(crate) fn len(&self) -> usize {
        self.urgent.len() + self.main.len()
    }

    /// Takes everything.
    pub(crate) fn drain(&mut self) -> Vec<Queued> {
        self.urgent.drain(..).chain(self.main.drain(..)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Queue, Queued, entry_cost};
    use crate::entry::Vote;
    use crate::record::Record;
    use ogee_proto::id::{CopysetId, LogId};
    use ogee_runtime::Payload;

    fn item(group: u32, record: Record) -> Queued {
        let group = CopysetId::new(group);
        let payload = Payload::empty();
        Queued {
            group,
            record: Some(record),
            payload,
            serial: 0,
            cost: 0,
            done: None,
        }
    }

    #[test]
    fn an_urgent_vote_overtakes_and_costs_stay_until_settled() {
        let mut queue = Queue::default();
        queue.push(item(1, Record::Purge(LogId::new(1, 1))), false);
        let vote = Vote {
            term: 1,
            voted_for: 1,
            committed: false,
        };
        queue.push(item(2, Record::Vote(vote)), true);
        assert_eq!(queue.front().unwrap().group, CopysetId::new(2));
        assert_eq!(queue.pop().unwrap().group, CopysetId::new(2));
        assert_eq!((queue.cost(), queue.len()), (128, 1));
        queue.settle(64);
        assert_eq!(queue.cost(), 64);
        assert_eq!(queue.drain().len(), 1);
        assert!(queue.pop().is_none());
    }

    #[test]
    fn an_entry_costs_its_payload_and_a_page() {
        assert_eq!(entry_cost(8192), 12_288);
    }
}
