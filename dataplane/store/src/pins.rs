//! Extents that records of the log name.
//!
//! *Place*: beside the extent allocator, which it holds extents back from. *Owner*: the store's
//! shard; synchronous. *Invariants*: a pinned extent is not free and is never written. An extent is
//! free only if no chunk maps it, no durable checkpoint may name it, and it is not pinned. One entry
//! names an extent; that there are two, after a record was unreadable for a while, is counted and
//! keeps the extent from being adopted. *On failure*: a pin that is dropped twice is a bug and panics,
//! since two owners would share the extent.

use crate::geometry::ExtentId;
use rustc_hash::FxHashMap;

/// Who else holds a pinned extent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Held {
    /// Nobody: it is free as soon as the pin is dropped.
    ByLog,
    /// A chunk maps it, or the durable tree may name it.
    ByMap,
}

/// A pinned extent.
#[derive(Clone, Copy, Debug)]
struct Pin {
    held: Held,
    /// Entries that name it.
    count: u32,
}

/// The pinned extents.
#[derive(Default)]
pub struct Pins {
    pins: FxHashMap<ExtentId, Pin>,
    /// Those that only the log holds.
    log_only: u32,
}

impl Pins {
    /// Pins an extent that was free before.
    pub fn add_fresh(&mut self, extent: ExtentId) {
        self.log_only += 1;
        let held = Held::ByLog;
        let before = self.pins.insert(extent, Pin { held, count: 1 });
        assert!(before.is_none(), "extent {} was not free", extent.raw());
    }

    /// Pins an extent that a chunk maps, or that another entry names.
    pub fn add(&mut self, extent: ExtentId) {
        let held = Held::ByMap;
        let pin = self.pins.entry(extent).or_insert(Pin { held, count: 0 });
        pin.count += 1;
    }

    /// Whether the log names the extent.
    pub fn contains(&self, extent: ExtentId) -> bool {
        self.pins.contains_key(&extent)
    }

    /// Whether one entry names the extent, and a chunk does as well or not.
    pub fn is_of_one(&self, extent: ExtentId, is_mapped: bool) -> bool {
        let held = if is_mapped { Held::ByMap } else { Held::ByLog };
        let pin = self.pins.get(&extent);
        pin.is_some_and(|pin| pin.count == 1 && pin.held == held)
    }

    /// A chunk maps a pinned extent from now on.
    pub fn map(&mut self, extent: ExtentId) {
        if let Some(pin) = self.pins.get_mut(&extent)
            && pin.held == Held::ByLog
        {
            pin.held = Held::ByMap;
            self.log_only -= 1;
        }
    }

    /// No chunk maps the extent and no durable tree names it; whether it is free now.
    pub fn unmap(&mut self, extent: ExtentId) -> bool {
        let Some(pin) = self.pins.get_mut(&extent) else {
            return true;
        };
        let was_mapped = pin.held == Held::ByMap;
        assert!(was_mapped, "extent {} unmapped twice", extent.raw());
        pin.held = Held::ByLog;
        self.log_only += 1;
        false
    }

    /// An entry names the extent no more; whether it is free now.
    pub fn remove(&mut self, extent: ExtentId) -> bool {
        let pin = self.pins.get_mut(&extent);
        let pin = pin.unwrap_or_else(|| panic!("extent {} unpinned twice", extent.raw()));
        pin.count -= 1;
        if pin.count > 0 {
            return false;
        }
        let is_free = pin.held == Held::ByLog;
        self.log_only -= u32::from(is_free);
        self.pins.remove(&extent);
        is_free
    }

    /// Extents that only the log holds.
    pub fn log_only(&self) -> u32 {
        self.log_only
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(index: u32) -> ExtentId {
        ExtentId::from_index(index)
    }

    #[test]
    fn an_extent_is_free_when_neither_the_log_nor_a_map_holds_it() {
        let mut pins = Pins::default();
        pins.add_fresh(extent(1));
        pins.add_fresh(extent(2));
        pins.add(extent(3));
        assert_eq!(pins.log_only(), 2);
        pins.map(extent(1));
        assert!(pins.is_of_one(extent(1), true) && pins.contains(extent(1)));
        assert!(!pins.remove(extent(1)), "its chunk still maps it");
        assert!(pins.unmap(extent(1)), "nobody holds it any more");
        assert!(pins.remove(extent(2)), "only the log held it");
        assert!(!pins.unmap(extent(3)), "the log still names it");
        assert!(pins.is_of_one(extent(3), false));
        assert!(pins.remove(extent(3)));
        assert_eq!(pins.log_only(), 0);
    }

    #[test]
    fn an_extent_that_two_entries_name_is_nobodys_to_give() {
        let mut pins = Pins::default();
        pins.add_fresh(extent(1));
        pins.add(extent(1));
        assert!(!pins.is_of_one(extent(1), false));
        assert!(!pins.remove(extent(1)), "the other one names it");
        assert!(pins.is_of_one(extent(1), false));
        assert!(pins.remove(extent(1)));
    }
}
