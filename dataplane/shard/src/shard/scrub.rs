//! Reading all that is stored, again and again, so that what rots is found while another replica has it whole.
//!
//! *Place*: a task for each store, beside its groups; it reads below what the log still holds. What it finds goes the way
//! of all damage: it is repaired from other replicas (`ogee_group`). *Owner*: the shard.
//! *Invariants*: one piece of a store is read at a time, and then the device rests for [`SCRUB_REST`] times as long as that
//! took: clients have it for themselves nine tenths of the time, however slow it is. A pass is spread over its period; where
//! that is not enough it takes longer. Each begins at a chunk that is drawn, so that a process that is often started anew
//! does not always leave the same ones unread.
//! *On failure*: a store that has failed is left alone; damage that nobody can repair is found again by the next pass.

use super::{OpenStore, Shard};
use crate::limit::{SCRUB_BLOCKS, SCRUB_IDLE, SCRUB_REST};
use ogee_proto::id::{ChunkKey, CopysetId, StoreId};
use ogee_proto::limit::{BLOCK_SIZE, BLOCKS_PER_CHUNK, EXTENT_SIZE};
use ogee_proto::unit::BlockIndex;
use ogee_runtime::{ScopedTask, now, random_u64, sleep, spawn_scoped, yield_now};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// What was read so far.
#[derive(Debug, Default)]
pub(super) struct Scrubbed {
    pub(super) bytes: Cell<u64>,
    pub(super) passes: Cell<u64>,
}

/// Reads each store once in a `period` until the tasks are dropped.
pub(super) fn start(shard: &Rc<Shard>, period: Option<Duration>) -> Vec<ScopedTask<()>> {
    let stores = shard.stores.iter().map(OpenStore::id);
    let stores = stores.filter_map(|store| Some((store, period?)));
    stores
        .map(|(store, period)| spawn_scoped(scrub(shard.clone(), store, period)))
        .collect()
}

async fn scrub(shard: Rc<Shard>, store: StoreId, period: Duration) {
    while let Some(open) = shard.store(store).filter(|open| !open.has_failed()) {
        let begun = now();
        let read = shard.scrub_pass(open, period).await;
        if read > 0 {
            open.scrubbed.passes.set(open.scrubbed.passes.get() + 1);
            tracing::info!(%store, bytes = read, took = ?(now() - begun), "all of a store was read");
        }
        // A store without contents may be filled at any time.
        let (left, least) = (period.saturating_sub(now() - begun), SCRUB_IDLE.min(period));
        sleep(if read > 0 { left.max(least) } else { least }).await;
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
    async fn scrub_pass(&self, open: &OpenStore, period: Duration) -> u64 {
        let gap = period / pieces(open.store.used().get());
        let mut read = 0;
        for (copyset, key) in chunks_of(open) {
            read += self.scrub_chunk(open, (copyset, key), gap).await;
        }
        read
    }

    async fn scrub_chunk(
        &self,
        open: &OpenStore,
        (copyset, key): (CopysetId, ChunkKey),
        gap: Duration,
    ) -> u64 {
        let mut read = 0;
        for first in (0..BLOCKS_PER_CHUNK).step_by(SCRUB_BLOCKS) {
            let group = self.group(copyset).filter(|_| !open.has_failed());
            let (Some(group), Some(first)) = (group, BlockIndex::new(first)) else {
                break;
            };
            let begun = now();
            let bytes = group.scrub(key, first, SCRUB_BLOCKS).await;
            if bytes == 0 {
                yield_now().await;
                continue;
            }
            read += bytes;
            open.scrubbed.bytes.set(open.scrubbed.bytes.get() + bytes);
            let took = now() - begun;
            sleep(gap.saturating_sub(took).max(took * SCRUB_REST)).await;
        }
        read
    }
}

/// Of how many pieces so many bytes may be.
fn pieces(bytes: u64) -> u32 {
    // An extent has a few blocks of its own in the worst case, and is a piece of its own then.
    const _: () = assert!(SCRUB_BLOCKS * BLOCK_SIZE >= EXTENT_SIZE);
    let pieces = bytes.div_ceil((SCRUB_BLOCKS * BLOCK_SIZE) as u64);
    u32::try_from(pieces).unwrap_or(u32::MAX).max(1)
}
