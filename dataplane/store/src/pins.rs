//! Extents that records of the log name.
//!
//! *Place*: beside the extent allocator, which it holds extents back from. *Owner*: the store's
//! shard; synchronous. *Invariants*: a pinned extent is not free and is never written; one entry of
//! the log names it, so a pin is held once. An extent is free only if no chunk maps it, no durable
//! checkpoint may name it, and it is not pinned. *On failure*: a pin that is held twice or dropped
//! twice is a bug and panics, since two owners would share the extent.

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

/// The pinned extents.
#[derive(Default)]
pub struct Pins {
    pins: FxHashMap<ExtentId, Held>,
    /// Those that only the log holds.
    log_only: u32,
}

impl Pins {
    /// Pins an extent that was free before.
    pub fn add_fresh(&mut self, extent: ExtentId) {
        self.log_only += 1;
        self.add(extent, Held::ByLog);
    }

    /// Pins an extent that a chunk maps.
    pub fn add_mapped(&mut self, extent: ExtentId) {
        self.add(extent, Held::ByMap);
    }

    fn add(&mut self, extent: ExtentId, held: Held) {
        let before = self.pins.insert(extent, held);
        assert!(before.is_none(), "extent {} pinned twice", extent.raw());
    }

    /// Whether the log names the extent.
    pub fn contains(&self, extent: ExtentId) -> bool {
        self.pins.contains_key(&extent)
    }

    /// Whether the log names the extent, and nobody else does.
    pub fn is_log_only(&self, extent: ExtentId) -> bool {
        self.pins.get(&extent) == Some(&Held::ByLog)
    }

    /// A chunk maps a pinned extent from now on.
    pub fn map(&mut self, extent: ExtentId) {
        if let Some(held) = self.pins.get_mut(&extent)
            && *held == Held::ByLog
        {
            *held = Held::ByMap;
            self.log_only -= 1;
        }
    }

    /// No chunk maps the extent and no durable tree names it; whether it is free now.
    pub fn unmap(&mut self, extent: ExtentId) -> bool {
        let Some(held) = self.pins.get_mut(&extent) else {
            return true;
        };
        assert_eq!(*held, Held::ByMap, "extent {} unmapped twice", extent.raw());
        *held = Held::ByLog;
        self.log_only += 1;
        false
    }

    /// The log names the extent no more; whether it is free now.
    pub fn remove(&mut self, extent: ExtentId) -> bool {
        let held = self.pins.remove(&extent);
        let held = held.unwrap_or_else(|| panic!("extent {} unpinned twice", extent.raw()));
        let is_free = held == Held::ByLog;
        self.log_only -= u32::from(is_free);
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
        pins.add_mapped(extent(3));
        assert_eq!(pins.log_only(), 2);
        pins.map(extent(1));
        assert!(!pins.is_log_only(extent(1)) && pins.contains(extent(1)));
        assert!(!pins.remove(extent(1)), "its chunk still maps it");
        assert!(pins.unmap(extent(1)), "nobody holds it any more");
        assert!(pins.remove(extent(2)), "only the log held it");
        assert!(!pins.unmap(extent(3)), "the log still names it");
        assert!(pins.is_log_only(extent(3)));
        assert!(pins.remove(extent(3)));
        assert_eq!(pins.log_only(), 0);
    }

    #[test]
    #[should_panic(expected = "pinned twice")]
    fn two_entries_cannot_name_one_extent() {
        let mut pins = Pins::default();
        pins.add_fresh(extent(1));
        pins.add_fresh(extent(1));
    }
}
