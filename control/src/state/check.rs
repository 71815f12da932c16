//! Whether a state that was read back can be relied on.
//!
//! Only what the commands and questions take for granted is looked at: what would otherwise end a
//! metadata server in the middle of a command. Checksums below have found what a disk can do; this
//! finds what another version or a broken peer can.

use super::model::{MapSegment, State, Volume};

/// Ids, epochs and counts grow by one: with half of their range left they never reach its end.
const GROWING_MAX: u64 = u64::MAX / 2;
const GROWING_32_MAX: u32 = u32::MAX / 2;

impl State {
    /// What is wrong with it, if anything.
    pub(crate) fn contradiction(&self) -> Option<&'static str> {
        let issued = &self.issued;
        let ids = [issued.replica, issued.volume, issued.client, issued.job];
        let short_ids = [issued.pool, issued.chunkserver, issued.copyset];
        let is_low = |value: u64| value <= GROWING_MAX;
        let grow = ids.into_iter().all(is_low)
            && short_ids.into_iter().all(|id| id <= GROWING_32_MAX)
            && (self.copysets.values()).all(|it| is_low(it.chunks) && is_low(it.conf_epoch))
            && self.volumes.values().all(|it| is_low(it.epoch.get()))
            && self.events.is_sound(GROWING_MAX);
        if !grow {
            return Some("an id, an epoch or a count has no room to grow");
        }
        if !self.requests.is_sound() {
            return Some("more requests are remembered than can be");
        }
        let maps = self.volumes.values().all(Volume::has_sound_map);
        (!maps).then_some("a volume has no copyset for some of its chunks")
    }
}

impl Volume {
    /// Segments begin at chunk 0, ascend, and name copysets.
    fn has_sound_map(&self) -> bool {
        let segments = &self.segments;
        segments.first().is_some_and(|first| first.first_chunk == 0)
            && segments.is_sorted_by(|a, b| a.first_chunk < b.first_chunk)
            && !segments.iter().any(MapSegment::is_empty)
    }
}

impl MapSegment {
    const fn is_empty(&self) -> bool {
        self.copysets.is_empty()
    }
}
