//! Reading all that is stored, again and again, so that what rots is found while another replica has it whole.
//!
//! *Place*: a task for each store, beside its groups; it reads below what the log still holds. What it finds goes the way
//! of all damage: it is repaired from other replicas (`ogee_group`). *Owner*: the shard.
//! *Invariants*: each piece is read at the device's leisure (`ogee_store`), as everything in the background is: clients
//! have it for themselves nine tenths of the time, however slow it is. A pass is spread over its period; where
//! that is not enough it takes longer. Each begins at a chunk that is drawn, so that a process that is often started anew
//! does not always leave the same ones unread.
//! *On failure*: a store that has failed is left alone; damage that nobody can repair is found again by the next pass.

use super::wish::Work;
use super::{OpenStore, Shard};
use crate::config::{ScrubConfig, ScrubHours};
use crate::limit::{SCRUB_BLOCKS, SCRUB_IDLE};
use crate::order::ScrubStatus;
use ogee_proto::id::{ChunkKey, CopysetId, StoreId};
use ogee_proto::limit::{BLOCK_SIZE, BLOCKS_PER_CHUNK, EXTENT_SIZE};
use ogee_proto::unit::BlockIndex;
use ogee_runtime::{Instant, ScopedTask, now, random_u64, spawn_scoped, suspended_time, yield_now};
use ogee_store::Purpose;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// What was read so far.
#[derive(Debug, Default)]
pub(super) struct Scrubbed {
    pub(super) bytes: Cell<u64>,
    pub(super) passes: Cell<u64>,
    /// Of the pass under way: when it began, what had been read before, and what there was to read.
    pass: Cell<Option<(Instant, u64, u64)>>,
    ended: Cell<Option<Instant>>,
}

impl Scrubbed {
    pub(super) fn status(&self) -> ScrubStatus {
        let now = now();
        let begun = self.pass.get();
        let (read, of) = begun.map_or((0, 0), |(_, before, of)| (self.bytes.get() - before, of));
        ScrubStatus {
            read,
            // What is written meanwhile is read as well.
            of: of.max(read),
            took: begun.map_or(Duration::ZERO, |(begun, ..)| now - begun),
            passes: self.passes.get(),
            ended: self.ended.get().map_or(Duration::ZERO, |ended| now - ended),
        }
    }
}

/// Reads each store once in a period until the tasks are dropped.
pub(super) fn start(shard: &Rc<Shard>, config: Option<ScrubConfig>) -> Vec<ScopedTask<()>> {
    let Some((config, period)) = config.and_then(|it| Some((it, it.period?))) else {
        return Vec::new();
    };
    let hours = config.hours.map(|hours| Rc::new(Hours::new(hours)));
    shard
        .stores
        .iter()
        .for_each(|open| open.wish.hear(Work::Scrub));
    let stores = shard.stores.iter().map(OpenStore::id);
    stores
        .map(|store| spawn_scoped(scrub(shard.clone(), store, period, hours.clone())))
        .collect()
}

async fn scrub(shard: Rc<Shard>, store: StoreId, period: Duration, hours: Option<Rc<Hours>>) {
    while let Some(open) = shard.store(store).filter(|open| !open.has_failed()) {
        open.wish.granted(open, hours.as_deref(), Work::Scrub).await;
        // A pass takes days: what it rests on is verified first, by the task that does that (`light`).
        open.wish.hurry(Work::Light);
        let begun = now();
        let scrubbed = &open.scrubbed;
        scrubbed
            .pass
            .set(Some((begun, scrubbed.bytes.get(), open.store.used().get())));
        let read = shard.scrub_pass(open, period, hours.as_deref()).await;
        scrubbed.pass.set(None);
        open.wish.done(Work::Scrub);
        if read > 0 {
            scrubbed.passes.set(scrubbed.passes.get() + 1);
            scrubbed.ended.set(Some(now()));
            tracing::info!(%store, bytes = read, took = ?(now() - begun), "all of a store was read");
        }
        // A store without contents may be filled at any time.
        let (left, least) = (period.saturating_sub(now() - begun), SCRUB_IDLE.min(period));
        let rest = if read > 0 { left.max(least) } else { least };
        open.wish.rest(rest, Work::Scrub).await;
    }
}

/// The hours of the day in which stores are read.
pub(super) struct Hours {
    hours: ScrubHours,
    /// When the process began, by this shard's clock.
    begun: Instant,
    suspended: Duration,
}

const HOUR_S: u64 = 3600;
const DAY_S: u64 = 24 * HOUR_S;

impl Hours {
    pub(super) fn new(hours: ScrubHours) -> Self {
        Self {
            hours,
            begun: now(),
            suspended: suspended_time(),
        }
    }

    /// How long it is until it is one of them. A clock that is set meanwhile is not followed.
    pub(super) fn closed_for(&self) -> Duration {
        let slept = suspended_time().saturating_sub(self.suspended);
        until_open(&self.hours, self.hours.begun + (now() - self.begun) + slept)
    }

    /// How much of the time they are.
    pub(super) fn part_of(&self, period: Duration) -> Duration {
        period * open_hours(&self.hours) / 24
    }
}

/// How many they are.
fn open_hours(hours: &ScrubHours) -> u32 {
    (24 + u32::from(hours.to) - u32::from(hours.from)) % 24
}

/// How long it is until one of these hours, at a time since 1970.
fn until_open(hours: &ScrubHours, unix: Duration) -> Duration {
    let since_begin = (unix.as_secs() + DAY_S - u64::from(hours.from) * HOUR_S) % DAY_S;
    match since_begin < u64::from(open_hours(hours)) * HOUR_S {
        true => Duration::ZERO,
        false => Duration::from_secs(DAY_S - since_begin),
    }
}

/// Chunks that hold anything, from one that is drawn on.
fn chunks_of(open: &OpenStore) -> Vec<(CopysetId, ChunkKey)> {
    let groups = open.store.groups().into_iter().map(|group| group.copyset);
    let of_group = |copyset| {
        let keys = open.store.chunks(copyset).into_iter();
        keys.map(move |key| (copyset, key))
    };
    let mut chunks: Vec<_> = groups.flat_map(of_group).collect();
    if !chunks.is_empty() {
        let first = random_u64() % chunks.len() as u64;
        chunks.rotate_left(usize::try_from(first).unwrap_or(0));
    }
    chunks
}

impl Shard {
    /// Reads all of a store; how many bytes.
    async fn scrub_pass(&self, open: &OpenStore, period: Duration, hours: Option<&Hours>) -> u64 {
        let period = hours.map_or(period, |hours| hours.part_of(period));
        let gap = period / pieces(open.store.used().get());
        let mut read = 0;
        for (copyset, key) in chunks_of(open) {
            read += self.scrub_chunk(open, (copyset, key), gap, hours).await;
        }
        read
    }

    async fn scrub_chunk(
        &self,
        open: &OpenStore,
        (copyset, key): (CopysetId, ChunkKey),
        gap: Duration,
        hours: Option<&Hours>,
    ) -> u64 {
        let mut sum = 0;
        for first in (0..BLOCKS_PER_CHUNK).step_by(SCRUB_BLOCKS) {
            open.wish.granted(open, hours, Work::Scrub).await;
            let group = self.group(copyset).filter(|_| !open.has_failed());
            let (Some(group), Some(first)) = (group, BlockIndex::new(first)) else {
                break;
            };
            let begun = now();
            let read = group.scrub(key, first, SCRUB_BLOCKS);
            let len = open
                .store
                .allocated_bytes(copyset, key, first, SCRUB_BLOCKS);
            let bytes = open.store.take_leisure(Purpose::Scrub, len, read).await;
            if bytes == 0 {
                yield_now().await;
                continue;
            }
            sum += bytes;
            open.scrubbed.bytes.set(open.scrubbed.bytes.get() + bytes);
            let rest = gap.saturating_sub(now() - begun);
            open.wish.rest(rest, Work::Scrub).await;
        }
        sum
    }
}

/// Of how many pieces so many bytes may be.
fn pieces(bytes: u64) -> u32 {
    // An extent has a few blocks of its own in the worst case, and is a piece of its own then.
    const _: () = assert!(SCRUB_BLOCKS * BLOCK_SIZE >= EXTENT_SIZE);
    let pieces = bytes.div_ceil((SCRUB_BLOCKS * BLOCK_SIZE) as u64);
    u32::try_from(pieces).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::{DAY_S, HOUR_S, until_open};
    use crate::config::ScrubHours;
    use std::time::Duration;

    fn wait(from: u8, to: u8, hour: u64, minute: u64) -> u64 {
        let hours = ScrubHours {
            from,
            to,
            begun: Duration::ZERO,
        };
        let at = Duration::from_secs(20_000 * DAY_S + hour * HOUR_S + minute * 60);
        until_open(&hours, at).as_secs() / 60
    }

    #[test]
    fn hours_may_go_past_midnight() {
        assert_eq!(wait(1, 5, 0, 30), 30);
        assert_eq!(wait(1, 5, 1, 0), 0);
        assert_eq!(wait(1, 5, 4, 59), 0);
        assert_eq!(wait(1, 5, 5, 0), 20 * 60);
        assert_eq!(wait(22, 6, 21, 59), 1);
        assert_eq!(wait(22, 6, 22, 0), 0);
        assert_eq!(wait(22, 6, 3, 0), 0);
        assert_eq!(wait(22, 6, 6, 0), 16 * 60);
        assert_eq!(wait(0, 1, 23, 59), 1);
    }
}
