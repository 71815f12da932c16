//! What is lost, and putting it back.
//!
//! *Place*: readers report losses, the group's owner puts entries of other replicas in their place.
//! *Owner*: the log's executor. *Invariants*: only the entry that the medium names is put back: its
//! identity equals the one known. Putting it back names the entry below it, which is then compared,
//! or, if it is lost too, may be put back next. *On failure*: refused, nothing changes.

use super::State;
use crate::damage::Damage;
use crate::entry::Entry;
use crate::error::LogError;
use crate::group::{Front, Loss, Slot};
use crate::queue::{Done, Queued, entry_cost};
use crate::record::{EntryRecord, Named, Record};
use ogee_proto::checksum::crc32c;
use ogee_proto::id::{CopysetId, LogId, LogIndex};
use std::ops::Range;

impl State {
    /// What is lost of `group`.
    pub(crate) fn damage(&self, group: CopysetId) -> Option<Damage> {
        self.front(group)?.damage()
    }

    /// Refuses what a damaged group may not do.
    pub(crate) fn check_whole(&self, group: CopysetId) -> Result<(), LogError> {
        match self.front(group) {
            Some(front) if front.is_blocked() => Err(LogError::GroupDamaged { group }),
            _ => Ok(()),
        }
    }

    /// The payload of a durable entry cannot be had from the medium.
    pub(crate) fn note_loss(&mut self, group: CopysetId, index: u64, serial: u64) {
        let Some(slot) = self.slot_mut(group, index, serial) else {
            return;
        };
        if slot.cached.is_some() || slot.durable_at.is_none() {
            return;
        }
        self.counters.payloads_lost += 1;
        if let Some(group) = self.groups.get_mut(&group) {
            group.front.losses.entry(index).or_insert(Loss::Payload);
        }
    }

    /// Identity and chain of the durable, whole entries of `range`, up to the first that is not.
    pub(crate) fn durable_chains(&self, group: CopysetId, range: Range<u64>) -> Vec<(u32, u32)> {
        let Some(front) = self.front(group) else {
            return Vec::new();
        };
        let whole = |index: u64| {
            let slot = front.entry(index)?;
            let is_whole = slot.durable_at.is_some() && !front.losses.contains_key(&index);
            is_whole.then_some((slot.record.identity, slot.record.chain))
        };
        range.map_while(whole).collect()
    }

    /// Whether `entry`, which follows the one with identity `chain`, is the one that is lost.
    pub(crate) fn check_repair(
        &self,
        group: CopysetId,
        entry: &Entry,
        chain: u32,
    ) -> Result<(), LogError> {
        self.check_running()?;
        let index = entry.id.index;
        let front = self.front(group);
        let front = front.filter(|front| front.losses.contains_key(&index.get()));
        let Some(front) = front else {
            return Err(LogError::NoEntry { group, index });
        };
        let known = front.entry(index.get()).map(|slot| slot.record.named());
        let known = known.filter(|named| named.identity != 0);
        let found = entry.identity(group);
        let wrong = |expected, found| LogError::WrongEntry {
            group,
            index,
            expected,
            found,
        };
        let expected = known.map(|named| named.identity);
        if expected != Some(found) {
            return Err(wrong(expected, found));
        }
        if known.is_none_or(|named| named.chain == 0) && !front.may_follow(index.get(), chain) {
            return Err(wrong(expected, chain));
        }
        self.check_entry(group, entry, crc32c(&entry.payload))?;
        self.check_room(entry_cost(entry.payload.len()))
    }

    /// Puts back an entry that [`State::check_repair`] passed.
    pub(crate) fn repair(&mut self, group: CopysetId, entry: &Entry, chain: u32, done: Done) {
        let index = entry.id.index.get();
        let serial = self.serial;
        self.serial += 1;
        let Some(front) = self.groups.get_mut(&group).map(|group| &mut group.front) else {
            return;
        };
        let Some(slot) = front.entries.get_mut(index) else {
            return;
        };
        let known = slot.record.chain;
        let chain = if known == 0 { chain } else { known };
        let record = EntryRecord::new(group, entry, chain);
        front.bytes -= slot.bytes();
        *slot = Slot {
            record: record.clone(),
            serial,
            durable_at: None,
            cached: Some(entry.payload.clone()),
        };
        front.bytes += slot.bytes();
        front.losses.remove(&index);
        if known == 0 && chain != 0 {
            front.name_below(index, chain);
        }
        self.moving += 1;
        self.counters.entries_repaired += 1;
        self.enqueue(Queued {
            group,
            record: Some(Record::Moved(record)),
            payload: entry.payload.clone(),
            serial,
            cost: 0,
            done: Some(done),
        });
    }
}

impl Front {
    /// Whether a lost entry `index` of which the chain is not known may follow `chain`: what is
    /// below it must be named by it, unless it is gone or known by itself.
    fn may_follow(&self, index: u64, chain: u32) -> bool {
        let Some(below) = index.checked_sub(1).and_then(|below| self.entry(below)) else {
            return true;
        };
        let is_lost = self.losses.contains_key(&(index - 1));
        let identity = below.record.identity;
        match (is_lost, identity) {
            (true, 0) => true,
            (true, identity) => chain == 0 || chain == identity,
            (false, _) => chain != 0,
        }
    }

    /// The entry below `index` has this identity: another one, left over from before it was
    /// replaced, does not count.
    fn name_below(&mut self, index: u64, identity: u32) {
        let Some(below) = index.checked_sub(1) else {
            return;
        };
        let Some(slot) = self.entries.get_mut(below) else {
            return;
        };
        if slot.record.identity == identity {
            return;
        }
        self.bytes -= slot.bytes();
        let id = LogId {
            index: LogIndex::new(below),
            ..LogId::default()
        };
        *slot = Slot::lost(&Named {
            id,
            identity,
            chain: 0,
        });
        self.losses.insert(below, Loss::Entry);
    }
}
