//! Copies of live entries, made to free their segment.
//!
//! *Place*: the flusher asks for a victim's entries, reads them and hands them back. *Owner*: the
//! log's executor. *Invariants*: begun only while the reserve is whole, so that a copy cannot take
//! the last segment; a copy is queued like any record, so what ends the entry later comes after
//! it; it takes nothing of what is promised; an entry whose payload is lost is carried forward by its
//! identity, so no segment is stuck.
//! *On failure*: an entry that is gone, or does not fit, is not copied.

use super::State;
use crate::limit::{RESERVED_SEGMENTS, compaction_low_water};
use crate::queue::{Queued, entry_cost};
use crate::record::Record;
use ogee_proto::id::CopysetId;
use ogee_runtime::Payload;

impl State {
    pub(super) fn victim(&self) -> Option<usize> {
        let free = self.segments.free_count();
        let water = compaction_low_water(self.segments.geometry.slots);
        let low = (RESERVED_SEGMENTS..=RESERVED_SEGMENTS + water).contains(&free);
        let due = low && self.moving == 0 && self.moved_at < self.sequence;
        if due { self.segments.victim() } else { None }
    }

    /// The live entries of `slot`: what to read and hand to [`State::move_forward`].
    pub(crate) fn live_in(&mut self, slot: usize) -> Vec<(CopysetId, u64)> {
        self.moved_at = self.sequence;
        let mut live = Vec::new();
        for (id, group) in &self.groups {
            for (index, place) in group.durable.places.iter() {
                let is_here = place.is_some_and(|place| place.slot as usize == slot);
                if is_here && group.front.entry(index).is_some() {
                    live.push((*id, index));
                }
            }
        }
        live
    }

    /// Queues a copy of a durable entry, if it is still there and fits.
    pub(crate) fn move_forward(
        &mut self,
        group: CopysetId,
        index: u64,
        serial: u64,
        data: &Payload,
    ) {
        if !self.is_unpromised(entry_cost(data.len())) {
            return;
        }
        let Some(slot) = self.slot_mut(group, index, serial) else {
            return;
        };
        let record = Some(Record::Moved(slot.record.clone()));
        self.moving += 1;
        self.enqueue(Queued {
            group,
            record,
            payload: data.clone(),
            serial,
            cost: 0,
            done: None,
        });
    }

    /// Queues a copy of the record of a durable entry whose payload lies in extents, if it is one:
    /// the payload stays where it is.
    pub(crate) fn move_placed(&mut self, group: CopysetId, index: u64) -> bool {
        let slot = self.front(group).and_then(|front| front.entry(index));
        let slot = slot.filter(|slot| slot.record.placed.is_some());
        let Some((record, serial)) = slot.map(|slot| (slot.record.clone(), slot.serial)) else {
            return false;
        };
        if self.is_unpromised(entry_cost(0)) {
            self.moving += 1;
            self.enqueue(Queued {
                group,
                record: Some(Record::Moved(record)),
                payload: Payload::empty(),
                serial,
                cost: 0,
                done: None,
            });
        }
        true
    }

    /// Whether something of a live entry is lost.
    pub(crate) fn is_lost(&self, group: CopysetId, index: u64) -> bool {
        let front = self.front(group);
        front.is_some_and(|front| front.losses.contains_key(&index))
    }

    /// Queues the identity of an entry whose body, or payload, is lost.
    pub(crate) fn move_hole(&mut self, group: CopysetId, index: u64) {
        if !self.is_unpromised(entry_cost(0)) {
            return;
        }
        let slot = self.front(group).and_then(|front| front.entry(index));
        let Some((named, serial)) = slot.map(|slot| (slot.record.named(), slot.serial)) else {
            return;
        };
        self.moving += 1;
        self.enqueue(Queued {
            group,
            record: Some(Record::Hole(named)),
            payload: Payload::empty(),
            serial,
            cost: 0,
            done: None,
        });
    }
}
