//! One group: what was accepted, and what of it is durable.
//!
//! *Place*: `state` keeps one per group. *Owner*: the log's task. *Invariants*: the front is ahead
//! of the medium by exactly the queued and in-flight records; both sides follow the same
//! [`Facts`]. *On failure*: `check` refuses before anything changes.

use crate::damage::{Damage, LostEntry};
use crate::entry::EntryRef;
use crate::error::LogError;
use crate::facts::Facts;
use crate::placed::Placed;
use crate::record::EntryRecord;
use crate::segments::EntryPlace;
use crate::window::Window;
use ogee_proto::id::{CopysetId, LogId, LogIndex};
use ogee_proto::unit::ByteOffset;
use ogee_runtime::{Payload, seeded_bug};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

/// A live entry in memory.
#[derive(Debug)]
pub(crate) struct Slot {
    pub record: EntryRecord,
    /// Tells this entry from an earlier one of the same index.
    pub serial: u64,
    /// Its payload on the device; `None` until durable, and for a hole.
    pub durable_at: Option<ByteOffset>,
    /// Its payload in memory; always there until durable.
    pub cached: Option<Payload>,
}

/// What of a live entry is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Its payload.
    Payload,
    /// Everything but its identity, which is 0 if not even that is known.
    Entry,
}

/// What callers see: everything accepted, durable or not.
#[derive(Debug, Default)]
pub(crate) struct Front {
    /// Whether anything was written since the group was last removed.
    pub exists: bool,
    pub facts: Facts,
    pub entries: Window<Slot>,
    /// Live entries of which something is lost.
    pub losses: BTreeMap<u64, Loss>,
    /// Bytes of heads and payloads of the live entries.
    pub bytes: u64,
}

/// What a recovery would find: every record that became durable, applied in order.
#[derive(Debug, Default)]
pub(crate) struct Durable {
    pub exists: bool,
    pub facts: Facts,
    /// `None` for a lost entry that no record names.
    pub places: Window<Option<EntryPlace>>,
    /// What keeps extents of the store for live entries.
    pub placed: BTreeMap<u64, Rc<Placed>>,
}

/// One group of the log.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub front: Front,
    pub durable: Durable,
    /// Records in the queue.
    pub queued: usize,
    /// Bytes queued or in flight.
    pub cost: u64,
}

impl Slot {
    /// Bytes of head and payload.
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.record.payload_len) + self.record.head.len() as u64
    }

    fn entry_ref(&self) -> EntryRef {
        let record = &self.record;
        EntryRef {
            id: record.id,
            kind: record.kind,
            head: record.head.clone(),
            payload_len: record.payload_len,
            payload_crc: record.payload_crc,
            payload: self.cached.clone(),
        }
    }

    /// Bytes that the cache counts for it: those of a durable payload held in memory.
    pub(crate) fn cached_len(&self) -> usize {
        match (&self.cached, self.durable_at) {
            (Some(payload), Some(_)) => payload.len(),
            _ => 0,
        }
    }
}

impl Group {
    /// Whether nothing of it is left, in memory or on the medium.
    pub(crate) const fn is_gone(&self) -> bool {
        !self.front.exists && !self.durable.exists && self.queued == 0
    }
}

impl Front {
    /// Whether the group may take nothing new.
    pub(crate) fn is_blocked(&self) -> bool {
        if seeded_bug!("damaged-replica-opens") {
            return false;
        }
        let lost = self.losses.values();
        self.facts.vote_lost
            || self.facts.end_lost
            || lost.into_iter().any(|loss| *loss == Loss::Entry)
    }

    /// What is lost.
    pub(crate) fn damage(&self) -> Option<Damage> {
        let (vote_lost, end_lost) = (self.facts.vote_lost, self.facts.end_lost);
        if self.losses.is_empty() && !vote_lost && !end_lost {
            return None;
        }
        let lost = |index: &u64| {
            let identity = self.entry(*index).map_or(0, |slot| slot.record.identity);
            LostEntry {
                index: LogIndex::new(*index),
                identity: (identity != 0).then_some(identity),
            }
        };
        Some(Damage {
            entries: self.losses.keys().map(lost).collect(),
            vote_lost,
            end_lost,
            is_blocking: self.is_blocked(),
        })
    }

    /// Refuses entries that do not follow.
    pub(crate) fn check(
        &self,
        group: CopysetId,
        ids: impl Iterator<Item = LogId>,
    ) -> Result<(), LogError> {
        let mut facts = self.facts;
        for id in ids {
            let expected = facts.next_index().unwrap_or(id.index);
            let fits = id.index.get() < u64::MAX && facts.append(id, 0);
            if !fits {
                return Err(LogError::NotConsecutive {
                    group,
                    expected,
                    found: id.index,
                });
            }
        }
        Ok(())
    }

    /// Adds a checked entry.
    pub(crate) fn push(&mut self, slot: Slot) {
        let follows = self.facts.append(slot.record.id, slot.record.identity);
        assert!(follows, "entries are checked before they are accepted");
        self.bytes += slot.bytes();
        self.entries.push(slot.record.id.index.get(), slot);
    }

    /// Live entries of `range`, as many as `max_bytes` allow, at least one if there is any.
    pub(crate) fn peek(&self, range: Range<u64>, max_bytes: usize) -> Vec<EntryRef> {
        let live = self.facts.live();
        let mut left = max_bytes as u64;
        let mut found = Vec::new();
        for index in range.start.max(live.start)..range.end.min(live.end) {
            let Some(slot) = self.entry(index) else { break };
            if self.losses.get(&index) == Some(&Loss::Entry) {
                break;
            }
            if !found.is_empty() && slot.bytes() > left {
                break;
            }
            left = left.saturating_sub(slot.bytes());
            found.push(slot.entry_ref());
        }
        found
    }

    /// What would be last after a truncation; `None` if it changes nothing.
    pub(crate) fn truncated(
        &self,
        group: CopysetId,
        after: Option<LogIndex>,
    ) -> Result<Option<Option<LogId>>, LogError> {
        let Some(last) = self.facts.last else {
            return Ok(None);
        };
        let new_last = match (after, self.facts.purged) {
            (Some(after), _) if after >= last.index => return Ok(None),
            (None, purged) => purged,
            (Some(after), purged) => match self.entries.get(after.get()) {
                Some(slot) => Some(slot.record.id),
                None => match purged {
                    Some(purged) if after < purged.index => {
                        return Err(LogError::TruncatePurged {
                            group,
                            after,
                            purged: purged.index,
                        });
                    }
                    purged => purged,
                },
            },
        };
        Ok((new_last != self.facts.last).then_some(new_last))
    }

    /// Drops the entries after `last`, handing each to `dropped`.
    pub(crate) fn truncate(&mut self, last: Option<LogId>, dropped: impl FnMut(Slot)) {
        let crc = last
            .and_then(|last| self.entries.get(last.index.get()))
            .map_or(0, |slot| slot.record.identity);
        self.facts.truncate(last, crc);
        self.keep_live(dropped);
    }

    /// Drops the entries up to `upto`, handing each to `dropped`.
    pub(crate) fn purge(&mut self, upto: LogId, dropped: impl FnMut(Slot)) {
        self.facts.purge(upto);
        self.keep_live(dropped);
    }

    fn keep_live(&mut self, mut dropped: impl FnMut(Slot)) {
        let bytes = &mut self.bytes;
        self.entries.keep(&self.facts.live(), |slot| {
            *bytes -= slot.bytes();
            dropped(slot);
        });
        if !self.losses.is_empty() {
            let live = self.facts.live();
            self.losses.retain(|index, _| live.contains(index));
        }
    }

    /// Bytes of heads and payloads of the entries from `index` on.
    pub(crate) fn bytes_from(&self, index: u64) -> u64 {
        let live = self.entries.range();
        let slots = (index.max(live.start)..live.end).filter_map(|index| self.entry(index));
        slots.map(Slot::bytes).sum()
    }

    /// The live entry `index`.
    pub(crate) fn entry(&self, index: u64) -> Option<&Slot> {
        self.entries.get(index)
    }

    /// Continues after recovery.
    pub(crate) fn recovered(
        facts: Facts,
        entries: Window<Slot>,
        losses: BTreeMap<u64, Loss>,
    ) -> Self {
        let bytes = entries.iter().map(|(_, slot)| slot.bytes()).sum();
        Self {
            exists: true,
            facts,
            entries,
            losses,
            bytes,
        }
    }
}
