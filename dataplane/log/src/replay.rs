//! Turns records into groups.
//!
//! *Place*: fed by `recovery` with segment headers and records in the order of the log. *Owner*:
//! the task that opens the log; no I/O. *Invariants*: the last record of an index wins; every
//! segment header replaces the state that the records before it led to, since segments between may
//! be gone; an entry counts only if the one after it, or the state, names its identity.
//! *On failure*: none: what is missing is a loss of the group, see `settle`.

use crate::facts::Facts;
use crate::format::RECORD_HEADER_LEN;
use crate::head::SegmentHead;
use crate::record::{Decoded, EntryRecord, Named, Record};
use crate::repeat::{Repeat, Said};
use crate::segments::EntryPlace;
use ogee_proto::id::{CopysetId, LogId};
use ogee_proto::unit::ByteOffset;
use std::collections::BTreeMap;

/// Groups as far as replayed.
#[derive(Default)]
pub(crate) struct Replay {
    pub(super) groups: BTreeMap<CopysetId, Replayed>,
    /// Records were lost since the last segment header: of groups not seen before, too.
    is_torn: bool,
}

/// One group as far as replayed.
#[derive(Default)]
pub(super) struct Replayed {
    pub(super) facts: Facts,
    /// By index; with holes while segments that held purged or moved entries are gone. While the end
    /// is lost, with copies of entries beyond it.
    pub(super) entries: BTreeMap<u64, Found>,
}

/// What was found of an entry.
pub(super) enum Found {
    Whole {
        record: EntryRecord,
        payload_at: ByteOffset,
        place: EntryPlace,
    },
    /// Its identity alone, and the segment that names it.
    Named { named: Named, place: EntryPlace },
}

impl Found {
    pub(super) const fn identity(&self) -> u32 {
        match self {
            Self::Whole { record, .. } => record.identity,
            Self::Named { named, .. } => named.identity,
        }
    }
}

impl Replay {
    /// A segment begins: the state of all groups is known anew.
    pub(crate) fn begin_segment(&mut self, head: &SegmentHead) {
        self.is_torn = false;
        let mut before = std::mem::take(&mut self.groups);
        for (id, facts) in &head.groups {
            let mut group = before.remove(id).unwrap_or_default();
            group.facts = *facts;
            group.keep_live();
            self.groups.insert(*id, group);
        }
    }

    /// Records that nothing repeats were lost: of any group, and of any kind.
    pub(crate) fn lose(&mut self) {
        self.is_torn = true;
        let groups = self.groups.values_mut();
        groups.for_each(|group| group.facts.lose());
    }

    /// Whether records were lost since the last segment header that nothing repeats.
    pub(crate) const fn is_torn(&self) -> bool {
        self.is_torn
    }

    /// `group` is known to exist, whatever the log says.
    pub(crate) fn expect(&mut self, group: CopysetId) {
        let _exists = self.group(group);
    }

    fn group(&mut self, id: CopysetId) -> &mut Replayed {
        let is_torn = self.is_torn;
        self.groups.entry(id).or_insert_with(|| {
            let mut group = Replayed::default();
            if is_torn {
                group.facts.lose();
            }
            group
        })
    }

    /// The next record, in `slot`; `payload_at` is where its payload lies on the device.
    pub(crate) fn apply(&mut self, decoded: Decoded, slot: u32, payload_at: ByteOffset) {
        let id = decoded.group;
        let repeat = Repeat::of(id, &decoded.record);
        match decoded.record {
            Record::Entry(record) => {
                let group = self.group(id);
                group.begin_again_for(&repeat.said);
                group.append(&record.named());
                group.place(record, slot, payload_at);
            }
            Record::Moved(record) => {
                let group = self.group(id);
                if group.may_live(record.id.index.get()) {
                    group.place(record, slot, payload_at);
                }
            }
            Record::Hole(named) => self.group(id).name(named, slot),
            _ => self.say(repeat, slot),
        }
        if let Some(group) = self.groups.get_mut(&id) {
            group.keep_live();
        }
    }

    /// What a lost batch said, as the next one, in `slot`, repeats it.
    pub(crate) fn say(&mut self, repeat: Repeat, slot: u32) {
        if matches!(repeat.said, Said::RemoveGroup) {
            self.groups.remove(&repeat.group);
            return;
        }
        let group = self.group(repeat.group);
        group.begin_again_for(&repeat.said);
        match repeat.said {
            Said::Entry(named) => {
                group.append(&named);
                group.name(named, slot);
            }
            Said::Moved(named) => group.name_unless_known(named, slot),
            Said::Vote(vote) => group.facts.vote(vote),
            Said::Committed(committed) => group.facts.committed = Some(committed),
            Said::Truncate { last, crc } => group.facts.truncate(last, crc),
            Said::Purge(upto) => group.facts.purge(upto),
            Said::RemoveGroup => {}
        }
        group.keep_live();
    }

    /// Takes the identities of entries from what a lost batch of the segment before said; all else
    /// stands in the table since.
    pub(crate) fn name(&mut self, repeat: Repeat, slot: u32) {
        if let (Said::Entry(named) | Said::Moved(named), Some(group)) =
            (repeat.said, self.groups.get_mut(&repeat.group))
        {
            group.name_unless_known(named, slot);
        }
    }
}

impl Replayed {
    /// Forgets what came before a loss, if `said` cannot follow it: nothing is appended below a purge,
    /// cut there or purged again. Then the group was removed among what was lost, and made again.
    fn begin_again_for(&mut self, said: &Said) {
        let Some(purged) = self.facts.purged.filter(|_| self.facts.end_lost) else {
            return;
        };
        let is_below = |id: LogId| id.index <= purged.index && id != purged;
        let is_of_another_life = match said {
            Said::Entry(named) => named.id.index <= purged.index,
            Said::Truncate { last, .. } => last.is_none_or(is_below),
            Said::Purge(upto) => is_below(*upto),
            _ => false,
        };
        if is_of_another_life {
            tracing::error!(%purged, ?said, "the group was made again, and the log has lost when");
            self.entries.clear();
            self.facts = Facts::default();
            self.facts.lose();
        }
    }

    fn append(&mut self, named: &Named) {
        if !self.facts.append(named.id, named.identity) {
            tracing::error!(index = %named.id, "an entry does not follow the one before it");
            self.facts.end_lost = true;
            self.facts.append(named.id, named.identity);
        }
    }

    fn place(&mut self, record: EntryRecord, slot: u32, payload_at: ByteOffset) {
        let place = EntryPlace {
            slot,
            len: record.footprint(),
        };
        let index = record.id.index.get();
        let found = Found::Whole {
            record,
            payload_at,
            place,
        };
        self.entries.insert(index, found);
    }

    fn name(&mut self, named: Named, slot: u32) {
        let index = named.id.index.get();
        if self.may_live(index) {
            let place = EntryPlace::of_hole(slot);
            self.entries.insert(index, Found::Named { named, place });
        }
    }

    /// A copy was lost: the entry itself may still be there.
    fn name_unless_known(&mut self, named: Named, slot: u32) {
        let known = self.entries.get(&named.id.index.get());
        if known.is_none_or(|known| known.identity() != named.identity) {
            self.name(named, slot);
        }
    }

    /// Whether `index` is live, or could be, since what tells where the log ends may be lost: copies
    /// of entries count from the next statement on, which says where it ends.
    fn may_live(&self, index: u64) -> bool {
        let live = self.facts.live();
        live.contains(&index) || self.facts.end_lost && index >= live.end
    }

    fn keep_live(&mut self) {
        let live = self.facts.live();
        while !self.facts.end_lost
            && self
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
}

impl EntryPlace {
    /// Of an entry that is known by its identity only.
    pub(crate) fn of_hole(slot: u32) -> Self {
        let len = u32::try_from(RECORD_HEADER_LEN).expect("invariant: a small constant");
        Self { slot, len }
    }
}
