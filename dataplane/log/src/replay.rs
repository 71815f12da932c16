//! Turns records into groups.
//!
//! *Place*: fed by `recovery` with segment headers and records in the order of the log. *Owner*:
//! the task that opens the log; no I/O. *Invariants*: the last record of an index wins; every
//! segment header replaces the state that the records before it led to, since segments between may
//! be gone. *On failure*: a [`DamageReason`]: what is missing or does not fit.

use crate::error::DamageReason;
use crate::facts::Facts;
use crate::group::{Durable, Front, Group, Slot};
use crate::head::SegmentHead;
use crate::record::{Decoded, EntryRecord, Record};
use crate::segments::EntryPlace;
use crate::window::Window;
use ogee_proto::id::{CopysetId, LogIndex};
use ogee_proto::unit::ByteOffset;
use std::collections::BTreeMap;

/// Groups as far as replayed.
#[derive(Default)]
pub(crate) struct Replay {
    groups: BTreeMap<CopysetId, Replayed>,
}

#[derive(Default)]
struct Replayed {
    facts: Facts,
    /// By index; with holes while segments that held purged or moved entries are gone.
    entries: BTreeMap<u64, Found>,
}

struct Found {
    record: EntryRecord,
    payload_at: ByteOffset,
    place: EntryPlace,
}

impl Replay {
    /// A segment begins: the state of all groups is known anew.
    pub(crate) fn begin_segment(&mut self, head: &SegmentHead) {
        let mut before = std::mem::take(&mut self.groups);
        for (id, facts) in &head.groups {
            let mut group = before.remove(id).unwrap_or_default();
            group.facts = *facts;
            group.keep_live();
            self.groups.insert(*id, group);
        }
    }

    /// The next record; `payload_at` is where its payload lies on the device.
    pub(crate) fn apply(
        &mut self,
        decoded: Decoded,
        slot: u32,
        payload_at: ByteOffset,
    ) -> Result<(), DamageReason> {
        let id = decoded.group;
        if matches!(decoded.record, Record::RemoveGroup) {
            self.groups.remove(&id);
            return Ok(());
        }
        let group = self.groups.entry(id).or_default();
        match decoded.record {
            Record::Entry(record) => {
                let index = record.id.index;
                if !group.facts.append(record.id) {
                    return Err(DamageReason::EntryOrder { group: id, index });
                }
                group.place(record, slot, payload_at);
            }
            Record::Moved(record) => {
                if group.facts.live().contains(&record.id.index.get()) {
                    group.place(record, slot, payload_at);
                }
            }
            Record::Vote(vote) => group.facts.vote = Some(vote),
            Record::Committed(committed) => group.facts.committed = Some(committed),
            Record::Truncate(last) => group.facts.truncate(last),
            Record::Purge(upto) => group.facts.purge(upto),
            Record::RemoveGroup => {}
        }
        group.keep_live();
        Ok(())
    }

    /// All groups, if no live entry is missing.
    pub(crate) fn finish(self) -> Result<BTreeMap<CopysetId, Group>, DamageReason> {
        self.groups
            .into_iter()
            .map(|(id, group)| Ok((id, group.finish(id)?)))
            .collect()
    }
}

impl Replayed {
    fn place(&mut self, record: EntryRecord, slot: u32, payload_at: ByteOffset) {
        let place = EntryPlace {
            slot,
            len: record.footprint(),
        };
        self.entries.insert(
            record.id.index.get(),
            Found {
                record,
                payload_at,
                place,
            },
        );
    }

    fn keep_live(&mut self) {
        let live = self.facts.live();
        while self
            .entries
            .last_key_value()
            .is_some_and(|(index, _)| *index >= live.end)
        {
            self.entries.pop_last();
        }
        while self
            .entries
            .first_key_value()
            .is_some_and(|(index, _)| *index < live.start)
        {
            self.entries.pop_first();
        }
    }

    fn finish(mut self, group: CopysetId) -> Result<Group, DamageReason> {
        let (mut entries, mut places) = (Window::default(), Window::default());
        let mut before: Option<u32> = None;
        for raw in self.facts.live() {
            let index = LogIndex::new(raw);
            let missing = DamageReason::EntryMissing { group, index };
            let found = self.entries.remove(&raw).ok_or(missing)?;
            if before.is_some_and(|before| found.record.chain != before) {
                return Err(DamageReason::EntryChain { group, index });
            }
            before = Some(found.record.crc);
            places.push(raw, found.place);
            entries.push(
                raw,
                Slot {
                    record: found.record,
                    serial: 0,
                    durable_at: Some(found.payload_at),
                    cached: None,
                },
            );
        }
        Ok(Group {
            front: Front::recovered(self.facts, entries),
            durable: Durable {
                exists: true,
                facts: self.facts,
                places,
            },
            queued: 0,
        })
    }
}
