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
                if !group.facts.append(record.id, record.crc) {
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
            Record::Truncate { last, crc } => group.facts.truncate(last, crc),
            Record::Purge(upto) => group.facts.purge(upto),
            Record::RemoveGroup => {}
        }
        group.keep_live();
        Ok(())
    }

    /// All groups, if no live entry is missing. Each entry knows the one before it and the state
    /// knows the last one, so nothing that is left over from before a lost record can pass for
    /// what the record said.
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
        if let (Some(before), Some(last)) = (before, self.facts.last)
            && before != self.facts.last_crc
        {
            return Err(DamageReason::EntryChain {
                group,
                index: last.index,
            });
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

#[cfg(test)]
mod tests {
    use super::Replay;
    use crate::entry::Entry;
    use crate::error::DamageReason;
    use crate::facts::Facts;
    use crate::head::SegmentHead;
    use crate::record::{Decoded, EntryRecord, Record};
    use bytes::Bytes;
    use ogee_proto::id::{CopysetId, LogId, LogIndex, StoreId};
    use ogee_proto::unit::ByteOffset;
    use ogee_runtime::Payload;

    const GROUP: CopysetId = CopysetId::new(1);

    fn entry(term: u64, index: u64, chain: u32) -> EntryRecord {
        let entry = Entry {
            id: LogId::new(term, index),
            kind: 0,
            head: Bytes::new(),
            payload: Payload::empty(),
            payload_crc: 0,
        };
        EntryRecord::new(GROUP, &entry, chain)
    }

    fn apply(replay: &mut Replay, record: Record) -> Result<(), DamageReason> {
        let decoded = Decoded {
            group: GROUP,
            record,
            payload_page: 0,
        };
        replay.apply(decoded, 0, ByteOffset::ZERO)
    }

    /// A segment begins in which the group's live entries are said to be `first..=last`.
    fn begin(replay: &mut Replay, first: u64, last: &EntryRecord) {
        let facts = Facts {
            first,
            last: Some(last.id),
            last_crc: last.crc,
            ..Facts::default()
        };
        replay.begin_segment(&SegmentHead {
            store: StoreId::default(),
            slot: 0,
            sequence: 1,
            epoch: 1,
            first_batch: 1,
            previous: None,
            oldest_live: 1,
            region_len: 0,
            segment_len: 0,
            groups: vec![(GROUP, facts)],
            crc: 0,
        });
    }

    fn finish(replay: Replay) -> Result<Facts, DamageReason> {
        let groups = replay.finish()?;
        Ok(groups
            .get(&GROUP)
            .map(|group| group.front.facts)
            .unwrap_or_default())
    }

    #[test]
    fn moved_entries_fill_what_freed_segments_left() {
        let mut replay = Replay::default();
        let (third, fourth) = (entry(1, 3, 0), entry(1, 4, 0));
        let fourth = EntryRecord {
            chain: third.crc,
            ..fourth
        };
        begin(&mut replay, 3, &fourth);
        apply(&mut replay, Record::Moved(fourth)).unwrap();
        apply(&mut replay, Record::Moved(entry(1, 9, 0))).unwrap();
        apply(&mut replay, Record::Moved(third)).unwrap();
        assert_eq!(finish(replay).unwrap().live(), 3..5);
    }

    #[test]
    fn a_live_entry_without_a_record_is_missing() {
        let mut replay = Replay::default();
        begin(&mut replay, 3, &entry(1, 4, 0));
        apply(&mut replay, Record::Moved(entry(1, 4, 0))).unwrap();
        let missing = DamageReason::EntryMissing {
            group: GROUP,
            index: LogIndex::new(3),
        };
        assert_eq!(finish(replay), Err(missing));
    }

    #[test]
    fn an_entry_must_know_the_one_before_it() {
        let mut replay = Replay::default();
        let first = entry(1, 3, 77);
        let crc = first.crc;
        apply(&mut replay, Record::Entry(first)).unwrap();
        apply(&mut replay, Record::Entry(entry(1, 4, crc))).unwrap();
        apply(&mut replay, Record::Entry(entry(1, 5, crc))).unwrap();
        let broken = DamageReason::EntryChain {
            group: GROUP,
            index: LogIndex::new(5),
        };
        assert_eq!(finish(replay), Err(broken));
    }

    #[test]
    fn what_a_lost_record_replaced_does_not_pass_for_it() {
        let mut replay = Replay::default();
        apply(&mut replay, Record::Entry(entry(1, 3, 0))).unwrap();
        // Lost: a truncation, and another entry 3.
        begin(&mut replay, 3, &entry(2, 3, 0));
        let stale = DamageReason::EntryChain {
            group: GROUP,
            index: LogIndex::new(3),
        };
        assert_eq!(finish(replay), Err(stale));
    }

    #[test]
    fn an_entry_must_follow() {
        let mut replay = Replay::default();
        apply(&mut replay, Record::Entry(entry(1, 3, 0))).unwrap();
        let gap = DamageReason::EntryOrder {
            group: GROUP,
            index: LogIndex::new(5),
        };
        assert_eq!(apply(&mut replay, Record::Entry(entry(1, 5, 0))), Err(gap));
    }

    #[test]
    fn a_segment_header_overrules_what_was_replayed() {
        let mut replay = Replay::default();
        for index in 1..=6 {
            apply(&mut replay, Record::Entry(entry(1, index, 0))).unwrap();
        }
        begin(&mut replay, 3, &entry(1, 3, 0));
        assert_eq!(finish(replay).unwrap().live(), 3..4);
        let mut replay = Replay::default();
        apply(&mut replay, Record::Entry(entry(1, 1, 0))).unwrap();
        apply(&mut replay, Record::RemoveGroup).unwrap();
        assert_eq!(finish(replay), Ok(Facts::default()));
    }
}
