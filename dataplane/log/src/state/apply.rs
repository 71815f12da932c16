//! What a finished write changes.
//!
//! *Place*: told by the flusher. *Owner*: the log's executor. *Invariants*: records are applied in
//! the order of the medium, exactly as recovery would. *On failure*: a record that does not follow
//! is a bug and panics.

use super::{Batch, State};
use crate::cache::Ticket;
use crate::group::Durable;
use crate::head::SegmentHead;
use crate::queue::{Done, Queued};
use crate::record::{EntryRecord, Named, Record};
use crate::segments::EntryPlace;
use ogee_proto::id::CopysetId;
use ogee_proto::unit::{ByteLen, ByteOffset};

impl State {
    /// The header of `head` is durable.
    pub(crate) fn begun(&mut self, head: &SegmentHead) {
        self.segments
            .begin(head.slot, head.sequence, head.len(), head.crc);
        self.previous.offset = 0;
        self.unproven = false;
        self.counters.segments_begun += 1;
        self.counters.bytes_written += head.len() as u64;
    }

    /// `batch` is durable; returns the callbacks, in order.
    pub(crate) fn written(&mut self, batch: Batch) -> Vec<Done> {
        let (slot, ..) = self.segments.active();
        self.segments.advance(batch.len, batch.crc);
        self.sequence = batch.sequence;
        self.previous = batch.previous;
        self.unproven = false;
        self.counters.flushes += 1;
        self.counters.bytes_written += batch.len as u64;
        self.counters.closing_batches += u64::from(batch.items.is_empty());
        let mut payload_at = batch.offset.add(ByteLen::from_usize(batch.header_len));
        let mut dones = Vec::new();
        for item in batch.items {
            self.apply(&item, slot, payload_at);
            let inline = item.record.as_ref().map_or(0, Record::payload_len);
            payload_at = payload_at.add(ByteLen::from_usize(inline));
            self.queue.settle(item.cost);
            if let Some(group) = self.groups.get_mut(&item.group) {
                // A group that was removed and made again counts anew.
                group.cost = group.cost.saturating_sub(item.cost);
            }
            dones.extend(item.done);
        }
        self.trim_cache();
        dones
    }

    fn apply(&mut self, item: &Queued, slot: usize, payload_at: ByteOffset) {
        let Some(record) = &item.record else { return };
        self.counters.records += 1;
        self.unproven |= record.is_binding();
        match record {
            Record::Entry(entry) => self.apply_entry(item, entry, slot, payload_at),
            Record::Moved(entry) => self.apply_moved(item, entry, slot, payload_at),
            Record::Hole(named) => self.apply_hole(item, named, slot),
            Record::RemoveGroup => self.apply_removal(item.group),
            Record::Vote(vote) => self.durable(item.group).facts.vote(*vote),
            Record::Committed(id) => self.durable(item.group).facts.committed = Some(*id),
            Record::Truncate { last, crc } => {
                self.durable(item.group).facts.truncate(*last, *crc);
                self.release_dead(item.group);
            }
            Record::Purge(upto) => {
                self.durable(item.group).facts.purge(*upto);
                self.release_dead(item.group);
            }
        }
    }

    pub(super) fn durable(&mut self, group: CopysetId) -> &mut Durable {
        let durable = &mut self.groups.entry(group).or_default().durable;
        durable.exists = true;
        durable
    }

    fn apply_entry(
        &mut self,
        item: &Queued,
        entry: &EntryRecord,
        slot: usize,
        payload_at: ByteOffset,
    ) {
        let index = entry.id.index.get();
        let place = place_of(slot, entry);
        let durable = self.durable(item.group);
        assert!(
            durable.facts.append(entry.id, entry.identity),
            "entries are written in the order accepted"
        );
        durable.places.push(index, Some(place));
        self.segments.occupy(place);
        if let Some(placed) = &entry.placed {
            self.hold(item.group, index, Some(placed));
            self.counters.placed_bytes += u64::from(entry.payload_len);
        }
        self.counters.payload_bytes += u64::from(entry.payload_len);
        let Some(slot) = self.slot_mut(item.group, index, item.serial) else {
            return;
        };
        slot.durable_at = Some(payload_at);
        let len = slot.cached_len();
        if len > 0 {
            self.cache.add(
                Ticket {
                    group: item.group,
                    index,
                    serial: item.serial,
                },
                len,
            );
        }
    }

    fn apply_moved(
        &mut self,
        item: &Queued,
        entry: &EntryRecord,
        slot: usize,
        payload_at: ByteOffset,
    ) {
        self.moving -= 1;
        let index = entry.id.index.get();
        let place = place_of(slot, entry);
        self.replace(item.group, index, place);
        self.hold(item.group, index, entry.placed.as_ref());
        self.counters.entries_moved += 1;
        self.counters.payload_bytes += entry.inline_len() as u64;
        let Some(slot) = self.slot_mut(item.group, index, item.serial) else {
            return;
        };
        let is_put_back = slot.durable_at.replace(payload_at).is_none();
        let len = slot.cached_len();
        if is_put_back && len > 0 {
            let ticket = Ticket {
                group: item.group,
                index,
                serial: item.serial,
            };
            self.cache.add(ticket, len);
        }
    }

    fn apply_hole(&mut self, item: &Queued, named: &Named, slot: usize) {
        self.moving -= 1;
        let index = named.id.index.get();
        self.replace(item.group, index, EntryPlace::of_hole(slot_number(slot)));
        self.hold(item.group, index, None);
        self.counters.holes_moved += 1;
        if let Some(slot) = self.slot_mut(item.group, index, item.serial)
            && slot.cached.is_none()
        {
            slot.durable_at = None;
        }
    }

    /// A live entry has a new place.
    fn replace(&mut self, group: CopysetId, index: u64, place: EntryPlace) {
        let old = self.durable(group).places.get_mut(index);
        let old = old.expect("invariant: what ends an entry is queued behind its move");
        let old = old.replace(place);
        self.segments.occupy(place);
        if let Some(old) = old {
            self.segments.release(old);
        }
    }

    fn apply_removal(&mut self, id: CopysetId) {
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        let durable = std::mem::take(&mut group.durable);
        durable
            .places
            .iter()
            .filter_map(|(_, place)| *place)
            .for_each(|place| self.segments.release(place));
        let placed = durable.placed.values();
        placed.for_each(|placed| self.segments.release_placed(placed.len()));
        if group.is_gone() {
            self.groups.remove(&id);
        }
    }

    fn release_dead(&mut self, id: CopysetId) {
        let Self {
            groups, segments, ..
        } = self;
        let durable = &mut groups.entry(id).or_default().durable;
        durable.places.keep(&durable.facts.live(), |place| {
            place.into_iter().for_each(|place| segments.release(place));
        });
        let live = durable.facts.live();
        let dead = durable
            .placed
            .extract_if(.., |index, _| !live.contains(index));
        dead.for_each(|(_, placed)| segments.release_placed(placed.len()));
    }

    fn trim_cache(&mut self) {
        while let Some(ticket) = self.cache.excess() {
            let slot = self.slot_mut(ticket.group, ticket.index, ticket.serial);
            match slot.and_then(|slot| slot.cached.take()) {
                Some(payload) => self.cache.dropped(payload.len()),
                None => self.cache.skipped(),
            }
        }
    }
}

fn slot_number(slot: usize) -> u32 {
    u32::try_from(slot).expect("invariant: at most SEGMENTS_MAX slots")
}

fn place_of(slot: usize, entry: &EntryRecord) -> EntryPlace {
    EntryPlace {
        slot: slot_number(slot),
        len: entry.footprint(),
    }
}
