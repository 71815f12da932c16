//! What fits.
//!
//! *Place*: asked by admission, before appends, and for metrics. *Owner*: the log's executor.
//! *Invariants*: cautious: what fits by this count fits on the medium. What is promised, and copies of
//! live entries, leave room for entries that nobody asks about before: those that consensus makes
//! itself, when a leader begins or members change. A group that cannot append them is at its end.
//! *On failure*: `LogError::Full`.

use super::State;
use crate::error::LogError;
use crate::limit::{UNASKED_ENTRIES, UNASKED_SHARE};
use crate::queue::entry_cost;
use crate::usage::{LogUsage, Pressure};
use ogee_proto::id::CopysetId;
use ogee_proto::unit::ByteLen;

impl State {
    /// Bytes that appends may still take.
    pub(crate) fn free(&self) -> u64 {
        let room = self.segments.room_for_entries(self.groups.len());
        room.saturating_sub(self.queue.cost())
            .saturating_sub(self.segments.placed_len())
    }

    /// Whether entries of this cost fit.
    pub(crate) fn check_room(&self, needed: u64) -> Result<(), LogError> {
        let free = self.free();
        if needed <= free {
            return Ok(());
        }
        let (needed, free) = (ByteLen::new(needed), ByteLen::new(free));
        Err(LogError::Full {
            store: self.store(),
            needed,
            free,
        })
    }

    /// Whether so much fits beside what is promised and what is left alone.
    pub(crate) fn is_unpromised(&self, needed: u64) -> bool {
        let (_, free) = self.balance();
        needed + self.promised.get() <= free
    }

    /// Capacity, and what of it is free, without the room for entries that nobody asks about.
    fn balance(&self) -> (u64, u64) {
        let geometry = &self.segments.geometry;
        let usable = geometry.usable_len(self.groups.len());
        let all = (geometry.data_slots() * usable) as u64;
        let unasked = self.groups.len() as u64 * UNASKED_ENTRIES * entry_cost(0);
        let unasked = unasked.min(all / UNASKED_SHARE);
        (all - unasked, self.free().min(all).saturating_sub(unasked))
    }

    /// How full the log is.
    pub(crate) fn usage(&self) -> LogUsage {
        let (capacity, free) = self.balance();
        LogUsage {
            capacity: ByteLen::new(capacity),
            used: ByteLen::new(capacity - free),
            free: ByteLen::new(free),
            live: ByteLen::new(self.segments.live_len()),
            placed: ByteLen::new(self.segments.placed_len()),
            queued: ByteLen::new(self.queue.cost()),
            cached: ByteLen::from_usize(self.cache.bytes()),
            free_segments: self.segments.free_count(),
        }
    }

    /// Bytes of `group` that are queued or in flight.
    pub(crate) fn queued_by(&self, group: CopysetId) -> u64 {
        self.groups.get(&group).map_or(0, |group| group.cost)
    }

    /// Whether the threshold is passed.
    pub(crate) fn pressure(&self) -> Pressure {
        let (capacity, free) = self.balance();
        let threshold = capacity / 100 * u64::from(self.options.pressure_percent);
        if capacity - free > threshold {
            Pressure::High
        } else {
            Pressure::Normal
        }
    }
}
