//! The slots of the region and which segment stands in each.
//!
//! *Place*: told by `state` what becomes durable; says where the next batch goes and what is free.
//! *Owner*: the log's task. *Invariants*: exactly one segment is active; a slot is free only if no
//! entry in it is live *by durable records* and nobody reads from it; sequences grow by one.
//! *On failure*: none; counting below zero is a bug and panics.

use crate::limit::{COMPACTION_LIVE_DIVISOR, RESERVED_SEGMENTS};
use crate::options::Geometry;
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::seeded_bug;

/// What a slot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    Nothing,
    Active,
    Sealed,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    holds: Holds,
    sequence: u64,
    live_entries: u64,
    live_len: u64,
    readers: u32,
}

const EMPTY: Slot = Slot {
    holds: Holds::Nothing,
    sequence: 0,
    live_entries: 0,
    live_len: 0,
    readers: 0,
};

/// Where an entry lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryPlace {
    /// Slot of the region.
    pub slot: u32,
    /// Bytes of record and payload.
    pub len: u32,
}

/// The region's slots and the end of the active segment.
#[derive(Debug)]
pub(crate) struct Segments {
    pub geometry: Geometry,
    slots: Vec<Slot>,
    free: usize,
    active: usize,
    sequence: u64,
    end: usize,
    previous_crc: u32,
    /// Bytes of live payloads in extents of the store.
    placed_len: u64,
}

impl Segments {
    /// All slots free and no segment begun: recovery fills it in.
    pub(crate) fn new(geometry: Geometry) -> Self {
        Self {
            geometry,
            slots: vec![EMPTY; geometry.slots],
            free: geometry.slots,
            active: geometry.slots - 1,
            sequence: 0,
            end: geometry.segment_len,
            previous_crc: 0,
            placed_len: 0,
        }
    }

    /// Recovery found segment `sequence` in `slot`. Its entries are told by
    /// [`Segments::occupy`]; [`Segments::settle`] ends it.
    pub(crate) fn found(&mut self, slot: usize, sequence: u64) {
        self.slots[slot].holds = Holds::Sealed;
        self.slots[slot].sequence = sequence;
        self.free -= 1;
    }

    /// All segments and entries are told: `newest`, with batches up to `end`, stays until the
    /// next segment is begun, dead ones are free.
    pub(crate) fn settle(&mut self, newest: usize, end: usize, previous_crc: u32) {
        self.slots[newest].holds = Holds::Active;
        self.active = newest;
        self.sequence = self.slots[newest].sequence;
        self.end = end;
        self.previous_crc = previous_crc;
        (0..self.slots.len()).for_each(|slot| self.free_if_dead(slot));
    }

    /// Makes `slot` the active segment, with batches from `end`.
    pub(crate) fn begin(&mut self, slot: usize, sequence: u64, end: usize, head_crc: u32) {
        assert!(sequence > self.sequence, "segment sequences grow");
        if self.slots[self.active].holds == Holds::Active {
            self.slots[self.active].holds = Holds::Sealed;
            self.free_if_dead(self.active);
        }
        assert_eq!(
            self.slots[slot].holds,
            Holds::Nothing,
            "a segment begins in a free slot"
        );
        self.free -= 1;
        self.slots[slot] = Slot {
            holds: Holds::Active,
            sequence,
            ..EMPTY
        };
        self.active = slot;
        self.sequence = sequence;
        self.end = end;
        self.previous_crc = head_crc;
    }

    /// A batch of `len` bytes has been written at the end.
    pub(crate) fn advance(&mut self, len: usize, crc: u32) {
        self.end += len;
        self.previous_crc = crc;
        assert!(
            self.end <= self.geometry.segment_len,
            "a batch stays in its segment"
        );
    }

    /// An entry became durable at `place`.
    pub(crate) fn occupy(&mut self, place: EntryPlace) {
        let slot = &mut self.slots[place.slot as usize];
        slot.live_entries += 1;
        slot.live_len += u64::from(place.len);
    }

    /// The record that made the entry at `place` dead became durable.
    pub(crate) fn release(&mut self, place: EntryPlace) {
        let slot = &mut self.slots[place.slot as usize];
        slot.live_entries = slot
            .live_entries
            .checked_sub(1)
            .expect("invariant: counted before");
        slot.live_len -= u64::from(place.len);
        self.free_if_dead(place.slot as usize);
    }

    /// An entry became durable whose payload takes `len` bytes of extents.
    pub(crate) const fn hold_placed(&mut self, len: usize) {
        self.placed_len += len as u64;
    }

    /// The record that made such an entry dead became durable.
    pub(crate) const fn release_placed(&mut self, len: usize) {
        self.placed_len -= len as u64;
    }

    /// Bytes of live payloads in extents of the store.
    pub(crate) const fn placed_len(&self) -> u64 {
        self.placed_len
    }

    fn free_if_dead(&mut self, slot: usize) {
        let this = &mut self.slots[slot];
        let dead_at = u64::from(seeded_bug!("segment-reused-early"));
        if this.holds == Holds::Sealed && this.live_entries <= dead_at {
            this.holds = Holds::Nothing;
            self.free += 1;
        }
    }

    /// A free slot that nobody reads from, in ring order.
    pub(crate) fn free_slot(&self) -> Option<usize> {
        let count = self.slots.len();
        (1..count)
            .map(|step| (self.active + step) % count)
            .find(|slot| {
                self.slots[*slot].holds == Holds::Nothing && self.slots[*slot].readers == 0
            })
    }

    /// Number of free slots, read from or not.
    pub(crate) const fn free_count(&self) -> usize {
        self.free
    }

    /// Whether a slot would be free but for its readers.
    pub(crate) fn awaits_reader(&self) -> bool {
        self.slots
            .iter()
            .any(|slot| slot.holds == Holds::Nothing && slot.readers > 0)
    }

    /// Keeps `slot` from being overwritten while it is read.
    pub(crate) fn pin(&mut self, slot: usize) {
        self.slots[slot].readers += 1;
    }

    /// Undoes one [`Segments::pin`].
    pub(crate) fn unpin(&mut self, slot: usize) {
        let readers = &mut self.slots[slot].readers;
        *readers = readers.checked_sub(1).expect("invariant: pinned before");
    }

    /// Bytes left in the active segment.
    pub(crate) const fn room(&self) -> usize {
        self.geometry.segment_len - self.end
    }

    /// Bytes that entries, each in a batch of its own, are sure to find; `groups` is the number
    /// of groups that new segment headers list.
    pub(crate) fn room_for_entries(&self, groups: usize) -> u64 {
        let Some(segments) = self.free.checked_sub(RESERVED_SEGMENTS) else {
            return 0;
        };
        let here = self.room().saturating_sub(self.geometry.entry_cost_max());
        here as u64 + (segments * self.geometry.usable_len(groups)) as u64
    }

    /// Slot, sequence and end of the active segment.
    pub(crate) const fn active(&self) -> (usize, u64, usize) {
        (self.active, self.sequence, self.end)
    }

    /// Checksum that the next batch repeats.
    pub(crate) const fn previous_crc(&self) -> u32 {
        self.previous_crc
    }

    /// Where the next batch goes, on the device.
    pub(crate) const fn end_offset(&self) -> ByteOffset {
        self.geometry
            .slot_start(self.active)
            .add(ByteLen::from_usize(self.end))
    }

    /// Slot that holds `offset` of the device.
    pub(crate) fn slot_of(&self, offset: ByteOffset) -> usize {
        let into = ByteLen::new(offset.get() - self.geometry.region.start.get());
        into.as_usize() / self.geometry.segment_len
    }

    /// Lowest sequence with a live entry.
    pub(crate) fn oldest_live(&self) -> Option<u64> {
        self.slots
            .iter()
            .filter(|slot| slot.live_entries > 0)
            .map(|slot| slot.sequence)
            .min()
    }

    /// Bytes of live entries, records included.
    pub(crate) fn live_len(&self) -> u64 {
        self.slots.iter().map(|slot| slot.live_len).sum()
    }

    /// The sealed segment that is cheapest to copy forward, if one is cheap enough.
    pub(crate) fn victim(&self) -> Option<usize> {
        let len_max = self.geometry.segment_len as u64 / COMPACTION_LIVE_DIVISOR;
        (0..self.slots.len())
            .filter(|slot| self.slots[*slot].holds == Holds::Sealed)
            .filter(|slot| self.slots[*slot].live_len <= len_max)
            .min_by_key(|slot| self.slots[*slot].live_len)
    }
}

#[cfg(test)]
mod tests {
    use super::{EntryPlace, Segments};
    use crate::limit::{SEGMENT_LEN_MIN, SEGMENTS_MIN};
    use crate::options::{Geometry, LogRegion};
    use ogee_proto::unit::{ByteLen, ByteOffset};

    fn segments() -> Segments {
        let len = ByteLen::from_usize((SEGMENTS_MIN + 1) * SEGMENT_LEN_MIN);
        let region = LogRegion {
            start: ByteOffset::ZERO,
            len,
        };
        let geometry = Geometry::new(region, ByteLen::from_usize(SEGMENT_LEN_MIN)).unwrap();
        let mut segments = Segments::new(geometry);
        segments.begin(0, 1, 8192, 0);
        segments
    }

    #[test]
    fn a_sealed_segment_is_free_when_its_last_entry_dies() {
        let mut segments = segments();
        let place = EntryPlace {
            slot: 0,
            len: 12_000,
        };
        segments.occupy(place);
        segments.begin(1, 2, 8192, 0);
        assert_eq!(
            (segments.free_count(), segments.oldest_live()),
            (4, Some(1))
        );
        segments.release(place);
        assert_eq!((segments.free_count(), segments.oldest_live()), (5, None));
    }

    #[test]
    fn a_segment_without_entries_is_free_once_left() {
        let mut segments = segments();
        for sequence in 2..20 {
            let slot = segments.free_slot().unwrap();
            segments.begin(slot, sequence, 8192, 0);
            assert_eq!(segments.free_count(), 5);
        }
    }

    #[test]
    fn readers_keep_a_free_slot_from_reuse() {
        let mut segments = segments();
        segments.pin(1);
        assert_eq!(segments.free_slot(), Some(2));
        segments.unpin(1);
        assert_eq!(segments.free_slot(), Some(1));
    }

    #[test]
    fn the_reserve_is_not_for_entries() {
        let mut segments = segments();
        let mut room = segments.room_for_entries(1);
        for slot in 1..=2 {
            segments.occupy(EntryPlace {
                slot: slot - 1,
                len: 4096,
            });
            segments.begin(slot as usize, u64::from(slot) + 1, 8192, 0);
            assert!(segments.room_for_entries(1) < room);
            room = segments.room_for_entries(1);
        }
        assert!(room > 0);
        segments.occupy(EntryPlace { slot: 2, len: 4096 });
        segments.begin(3, 4, 8192, 0);
        assert_eq!(segments.room_for_entries(1), 0);
    }

    #[test]
    fn the_victim_is_sealed_and_nearly_empty() {
        let mut segments = segments();
        segments.occupy(EntryPlace {
            slot: 0,
            len: 16_384,
        });
        assert_eq!(segments.victim(), None);
        segments.begin(1, 2, 8192, 0);
        assert_eq!(segments.victim(), Some(0));
    }
}
