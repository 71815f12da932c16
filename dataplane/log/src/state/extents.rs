//! What the log holds of the store.
//!
//! *Place*: told its owner when the log is brought together with its store; beside `apply`, which says
//! what is live by durable records. *Owner*: the log's executor. *Invariants*: an extent is held from
//! the append on until the record that ends its entry is durable. *On failure*: bringing them together
//! twice is a bug and panics.

use super::State;
use crate::entry::Entry;
use crate::placed::{Owner, Placed};
use ogee_proto::checksum::{crc32c, crc32c_blocks, crc32c_of_blocks};
use ogee_proto::id::CopysetId;
use ogee_proto::limit::{BLOCK_SIZE, EXTENT_SIZE};
use ogee_proto::unit::ByteOffset;
use std::rc::Rc;

/// An entry on its way in.
pub(crate) struct NewEntry {
    pub entry: Entry,
    pub placed: Option<Rc<Placed>>,
    /// CRC32C of the payload, worked out here.
    pub crc: u32,
}

impl State {
    /// Takes what recovery found into account. Called once.
    pub(crate) fn hold_recovered(&mut self) {
        let Self {
            groups, segments, ..
        } = self;
        for group in groups.values_mut() {
            for (index, slot) in group.front.entries.iter() {
                if let Some(placed) = &slot.record.placed {
                    segments.hold_placed(placed.len());
                    group.durable.placed.insert(index, Rc::clone(placed));
                }
            }
        }
    }

    /// The extents that live entries name.
    pub(crate) fn extents(&self) -> Vec<ByteOffset> {
        let durable = self
            .groups
            .values()
            .flat_map(|group| group.durable.placed.values());
        durable
            .flat_map(|placed| placed.places())
            .copied()
            .collect()
    }

    /// Extents are given back to `owner` from now on.
    pub(crate) fn attach(&mut self, owner: Rc<Owner>) {
        assert!(
            self.owner.is_none(),
            "log and store are brought together once"
        );
        for group in self.groups.values() {
            let placed = group.durable.placed.values();
            placed.for_each(|placed| placed.give_to(&owner));
        }
        self.owner = Some(owner);
    }

    pub(crate) const fn is_attached(&self) -> bool {
        self.owner.is_some()
    }

    /// An entry that is to be appended, with a place for its payload, or none.
    pub(crate) fn new_entry(&self, entry: Entry, places: Vec<ByteOffset>) -> NewEntry {
        let known = entry.payload.block_crcs(BLOCK_SIZE);
        if places.is_empty() {
            let crc = known.map_or_else(|| crc32c(&entry.payload), crc32c_of_blocks);
            let placed = None;
            return NewEntry { entry, placed, crc };
        }
        let is_filled = places.len() * EXTENT_SIZE == entry.payload.len();
        assert!(is_filled, "a placed payload fills its extents");
        let owner = self.owner.as_ref();
        let owner = owner.expect("invariant: places come from the store that was attached");
        // Those of who received it: one pass over the bytes is enough.
        let (crcs, crc) = match known {
            Some(crcs) => (crcs.to_vec(), crc32c_of_blocks(crcs)),
            None => crc32c_blocks(&entry.payload),
        };
        let placed = Some(Placed::new(places, crcs, owner));
        NewEntry { entry, placed, crc }
    }

    /// A live entry is on the medium, with its payload there or not.
    pub(super) fn hold(&mut self, group: CopysetId, index: u64, placed: Option<&Rc<Placed>>) {
        let before = match placed {
            Some(placed) => {
                self.segments.hold_placed(placed.len());
                let placed = Rc::clone(placed);
                self.durable(group).placed.insert(index, placed)
            }
            None => self.durable(group).placed.remove(&index),
        };
        if let Some(before) = before {
            self.segments.release_placed(before.len());
        }
    }
}
