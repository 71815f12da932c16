//! What callers put in.
//!
//! *Place*: called by the public handles. *Owner*: the log's executor. *Invariants*: the front
//! changes and the record is queued in one call. *On failure*: the `check_*` functions refuse
//! before anything changes; the others cannot fail.

use super::State;
use super::extents::NewEntry;
use crate::cache::Cache;
use crate::entry::{Entry, Vote};
use crate::error::{EntryPart, LogError};
use crate::group::{Front, Slot};
use crate::limit::{HEAD_LEN_MAX, PAGE, QUEUE_BYTES_MAX, QUEUE_RECORDS_MAX};
use crate::queue::{Done, Queued, entry_cost};
use crate::record::{EntryRecord, Record};
use ogee_proto::id::{CopysetId, LogId};
use ogee_proto::unit::ByteLen;
use ogee_runtime::{Payload, seeded_bug};

impl State {
    /// Whether `entries` may be appended.
    pub(crate) fn check_append(
        &mut self,
        group: CopysetId,
        entries: &[NewEntry],
    ) -> Result<(), LogError> {
        self.check_control(group)?;
        self.check_whole(group)?;
        let cost = |new: &NewEntry| entry_cost(new.entry.payload.len());
        self.check_room(entries.iter().map(cost).sum())
            .inspect_err(|_| self.counters.refused_full += 1)?;
        let empty = Front::default();
        let front = self.front(group).unwrap_or(&empty);
        front.check(group, entries.iter().map(|new| new.entry.id))?;
        entries
            .iter()
            .try_for_each(|new| self.check_entry(group, &new.entry, new.crc))
    }

    /// Whether a record without payload may be written for `group`.
    pub(crate) fn check_control(&self, group: CopysetId) -> Result<(), LogError> {
        self.check_running()?;
        let max = self.segments.geometry.groups_max;
        if !self.groups.contains_key(&group) && self.groups.len() >= max {
            return Err(LogError::TooManyGroups {
                store: self.store(),
                max,
            });
        }
        if self.queue.cost() > QUEUE_BYTES_MAX || self.queue.len() >= QUEUE_RECORDS_MAX {
            return Err(LogError::Overloaded {
                store: self.store(),
                queued: ByteLen::new(self.queue.cost()),
                limit: ByteLen::new(QUEUE_BYTES_MAX),
            });
        }
        Ok(())
    }

    /// Whether an entry is well formed; `crc` is that of its payload.
    pub(super) fn check_entry(
        &self,
        group: CopysetId,
        entry: &Entry,
        crc: u32,
    ) -> Result<(), LogError> {
        let index = entry.id.index;
        let length = |part, len: usize, max: usize, unit: usize| LogError::EntryLength {
            group,
            index,
            part,
            len: ByteLen::from_usize(len),
            max: ByteLen::from_usize(max),
            unit: ByteLen::from_usize(unit),
        };
        let (head, payload) = (entry.head.len(), entry.payload.len());
        let payload_max = self.segments.geometry.payload_max;
        if head > HEAD_LEN_MAX {
            return Err(length(EntryPart::Head, head, HEAD_LEN_MAX, 1));
        }
        if payload > payload_max || !payload.is_multiple_of(PAGE) {
            return Err(length(EntryPart::Payload, payload, payload_max, PAGE));
        }
        // Recovery tells a torn tail by this checksum: a wrong one would lose the entry silently.
        if crc != entry.payload_crc {
            return Err(LogError::Corrupt { group, index });
        }
        Ok(())
    }

    /// Appends entries that [`State::check_append`] passed.
    pub(crate) fn append(&mut self, group: CopysetId, entries: Vec<NewEntry>, done: Done) {
        let mut done = Some(done);
        let count = entries.len();
        for (position, NewEntry { entry, placed, .. }) in entries.into_iter().enumerate() {
            let serial = self.serial;
            self.serial += 1;
            let front = self.touch(group);
            let mut record = EntryRecord::new(group, &entry, front.facts.last_crc);
            record.placed = placed;
            front.push(Slot {
                record: record.clone(),
                serial,
                durable_at: None,
                cached: Some(entry.payload.clone()),
            });
            let done = if position + 1 == count {
                done.take()
            } else {
                None
            };
            let record = Some(Record::Entry(record));
            self.enqueue(Queued {
                group,
                record,
                payload: entry.payload,
                serial,
                cost: 0,
                done,
            });
        }
        if done.is_some() {
            self.control(group, None, done);
        }
    }

    /// Accepts a vote.
    pub(crate) fn save_vote(&mut self, group: CopysetId, vote: Vote, done: Done) {
        self.touch(group).facts.vote(vote);
        let record = Some(Record::Vote(vote)).filter(|_| !seeded_bug!("vote-not-persisted"));
        self.control(group, record, Some(done));
    }

    /// Accepts a committed id; it goes with the next batch.
    pub(crate) fn save_committed(&mut self, group: CopysetId, committed: LogId) {
        self.touch(group).facts.committed = Some(committed);
        self.lazy.insert(group);
    }

    /// Queues the committed id of `group` now, if it is not on its way.
    pub(crate) fn flush_committed(&mut self, group: CopysetId, done: Done) {
        let record = if self.lazy.remove(&group) {
            self.front(group)
                .and_then(|front| front.facts.committed)
                .map(Record::Committed)
        } else {
            None
        };
        self.control(group, record, Some(done));
    }

    /// Accepts a truncation to `last`, as [`Front::truncated`] found it.
    pub(crate) fn truncate(&mut self, group: CopysetId, last: Option<LogId>, done: Done) {
        self.touch(group);
        let Self { groups, cache, .. } = self;
        let front = &mut groups.entry(group).or_default().front;
        front.truncate(last, |slot| forget(cache, &slot));
        let crc = front.facts.last_crc;
        self.sweep_cache();
        self.control(group, Some(Record::Truncate { last, crc }), Some(done));
    }

    /// Accepts a purge.
    pub(crate) fn purge(&mut self, group: CopysetId, upto: LogId, done: Done) {
        let purged = self.front(group).and_then(|front| front.facts.purged);
        if purged.is_some_and(|purged| purged.index >= upto.index) {
            self.control(group, None, Some(done));
            return;
        }
        self.touch(group);
        let Self { groups, cache, .. } = self;
        let front = &mut groups.entry(group).or_default().front;
        front.purge(upto, |slot| forget(cache, &slot));
        self.sweep_cache();
        self.control(group, Some(Record::Purge(upto)), Some(done));
    }

    /// Accepts the end of `group`.
    pub(crate) fn remove_group(&mut self, group: CopysetId, done: Done) {
        let record = self.front(group).is_some().then_some(Record::RemoveGroup);
        self.lazy.remove(&group);
        if let Some(existing) = self.groups.get_mut(&group) {
            let front = std::mem::take(&mut existing.front);
            front
                .entries
                .iter()
                .for_each(|(_, slot)| forget(&mut self.cache, slot));
            self.sweep_cache();
        }
        self.control(group, record, Some(done));
    }

    /// Queues a callback behind everything of `group`.
    pub(crate) fn barrier(&mut self, group: CopysetId, done: Done) {
        self.control(group, None, Some(done));
    }

    fn touch(&mut self, group: CopysetId) -> &mut Front {
        let front = &mut self.groups.entry(group).or_default().front;
        front.exists = true;
        front
    }

    fn control(&mut self, group: CopysetId, record: Option<Record>, done: Option<Done>) {
        self.enqueue(Queued {
            group,
            record,
            payload: Payload::empty(),
            serial: 0,
            cost: 0,
            done,
        });
    }

    pub(super) fn enqueue(&mut self, item: Queued) {
        let group = self.groups.entry(item.group).or_default();
        group.queued += 1;
        let urgent = group.queued == 1 && matches!(item.record, Some(Record::Vote(_)));
        group.cost += self.queue.push(item, urgent);
    }

    fn sweep_cache(&mut self) {
        let groups = &self.groups;
        self.cache.sweep(|ticket| {
            let slot = groups
                .get(&ticket.group)
                .and_then(|group| group.front.entry(ticket.index));
            slot.is_some_and(|slot| slot.serial == ticket.serial && slot.cached.is_some())
        });
    }
}

/// An entry left the front: the cache no longer counts its payload.
fn forget(cache: &mut Cache, slot: &Slot) {
    if slot.cached_len() > 0 {
        cache.forget(slot.cached_len());
    }
}
