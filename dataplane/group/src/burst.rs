//! What one burst of write-back carries: single blocks, and whole extents that change hands.
//!
//! *Place*: between a cut's dirty blocks and the store. *Owner*: the store's keeper.
//! *Invariants*: an extent is adopted only when all its blocks, as the overlay has them now, come from
//! one entry and lie together in one extent that the entry has filled, and that entry is durable here:
//! one that a majority holds may still be on its way to this device. Everything else is copied.
//! *On failure*: an entry that is gone or unreadable is the keeper's to judge.

use crate::error::GroupError;
use crate::limit::WRITE_BACK_BLOCKS;
use crate::overlay::{DirtyBlock, OverlayWhat};
use crate::read::Miss;
use crate::replica::Replica;
use ogee_log::Placed;
use ogee_proto::id::{ChunkKey, LogIndex};
use ogee_proto::limit::{BLOCK_SIZE, BLOCKS_PER_EXTENT};
use ogee_runtime::Payload;
use ogee_store::{Adoption, BlockChange, WriteBack};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::rc::Rc;

/// One burst.
#[derive(Default)]
pub(crate) struct Burst {
    /// Blocks to copy.
    pub(crate) blocks: Vec<WriteBack>,
    /// Extents to adopt.
    pub(crate) adoptions: Vec<Adoption>,
    /// The dirty blocks that those are: what is in the store afterwards.
    pub(crate) taken: Vec<DirtyBlock>,
    /// Keeps the log from giving the extents back.
    held: Vec<Rc<Placed>>,
}

/// Cuts dirty blocks, which are sorted, into bursts. None ends within an extent.
pub(crate) fn bursts(dirty: &[DirtyBlock]) -> impl Iterator<Item = &[DirtyBlock]> {
    ogee_store::bursts(dirty, WRITE_BACK_BLOCKS, extent_of)
}

fn extent_of(dirty: &DirtyBlock) -> (ChunkKey, usize) {
    ogee_store::extent_of(dirty.key, dirty.block)
}

impl Burst {
    /// Loads what is still to be written of `dirty`.
    pub(crate) async fn load(replica: &Replica, dirty: &[DirtyBlock]) -> Result<Self, GroupError> {
        let mut burst = Self::default();
        let mut payloads = BTreeMap::new();
        for extent in dirty.chunk_by(|a, b| extent_of(a) == extent_of(b)) {
            if let Some((adoption, placed)) = adoption(replica, extent) {
                burst.adoptions.push(adoption);
                burst.held.push(placed);
                burst.taken.extend_from_slice(extent);
                continue;
            }
            for dirty in extent {
                if let Some(what) = load(replica, dirty, &mut payloads).await? {
                    let (key, block) = (dirty.key, dirty.block);
                    burst.blocks.push(WriteBack { key, block, what });
                    burst.taken.push(*dirty);
                }
            }
        }
        Ok(burst)
    }
}

/// The extent that holds all these blocks already, if there is one.
fn adoption(replica: &Replica, extent: &[DirtyBlock]) -> Option<(Adoption, Rc<Placed>)> {
    let first = extent.first()?;
    let OverlayWhat::Page(page) = first.slot.what else {
        return None;
    };
    let page = page as usize;
    let is_in_order = |(at, dirty): (usize, &DirtyBlock)| {
        dirty.slot.index == first.slot.index
            && dirty.slot.what.payload_offset() == Some((page + at) * BLOCK_SIZE)
    };
    let is_whole = extent.len() == BLOCKS_PER_EXTENT
        && page.is_multiple_of(BLOCKS_PER_EXTENT)
        && extent.iter().enumerate().all(is_in_order);
    if !is_whole {
        return None;
    }
    let overlay = &replica.state.borrow().overlay;
    if !extent.iter().all(|dirty| overlay.holds(dirty)) {
        return None;
    }
    let placed = replica.log.placed(LogIndex::new(first.slot.index))?;
    let at = *placed.places().get(page / BLOCKS_PER_EXTENT)?;
    let crcs = placed.crcs().get(page..page + BLOCKS_PER_EXTENT)?;
    let crcs = crcs.try_into().ok()?;
    let (key, first) = (first.key, first.block);
    let adoption = Adoption {
        key,
        first,
        at,
        crcs,
    };
    let is_ours = replica.store.is_adoptable(key, first, at);
    is_ours.then_some((adoption, placed))
}

/// A block's contents for write-back; `None` if a newer write has superseded it. An entry's payload
/// is read from the log once per burst, not once per block.
async fn load(
    replica: &Replica,
    dirty: &DirtyBlock,
    payloads: &mut BTreeMap<u64, Payload>,
) -> Result<Option<BlockChange>, GroupError> {
    if !replica.state.borrow().overlay.holds(dirty) {
        return Ok(None);
    }
    let Some(start) = dirty.slot.what.payload_offset() else {
        debug_assert_eq!(dirty.slot.what, OverlayWhat::Zero);
        return Ok(Some(BlockChange::Zero));
    };
    let index = dirty.slot.index;
    if let Some((whole, crc)) = replica.log.cached_whole(LogIndex::new(index)) {
        return block_of(replica, dirty, &whole, start, Some(crc)).map(Some);
    }
    let whole = match payloads.entry(index) {
        Entry::Occupied(loaded) => loaded.into_mut(),
        Entry::Vacant(place) => place.insert(whole_payload(replica, dirty).await?),
    };
    block_of(replica, dirty, whole, start, None).map(Some)
}

/// One block of an entry's payload, whose checksum is known if that is all of it.
fn block_of(
    replica: &Replica,
    dirty: &DirtyBlock,
    whole: &Payload,
    start: usize,
    crc: Option<u32>,
) -> Result<BlockChange, GroupError> {
    let (copyset, key) = (replica.copyset, dirty.key);
    if whole.len() < start + BLOCK_SIZE {
        return Err(GroupError::Race { copyset, key });
    }
    let crc = crc.filter(|_| whole.len() == BLOCK_SIZE);
    let bytes = whole.slice(start..start + BLOCK_SIZE);
    Ok(match crc {
        Some(crc) => BlockChange::Summed(bytes, crc),
        None => BlockChange::Data(bytes),
    })
}

async fn whole_payload(replica: &Replica, dirty: &DirtyBlock) -> Result<Payload, GroupError> {
    let (copyset, key) = (replica.copyset, dirty.key);
    let race = || GroupError::Race { copyset, key };
    let len = replica.payload_len(dirty.slot.index).ok_or_else(race)?;
    match replica.log_payload(dirty.slot.index, 0..len).await {
        Ok(bytes) => Ok(bytes),
        Err(Miss::Failed(error)) => Err(error),
        Err(Miss::Moved | Miss::Checksum(_)) => Err(race()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{CommandHead, CommandKind};
    use crate::fixture::{Lone, run};
    use crate::group::command;
    use crate::metrics::FoundBy;
    use crate::overlay::Overlay;
    use ogee_proto::checksum::crc32c;
    use ogee_proto::id::{ChunkIndex, ClientId, Epoch, Incarnation, Sequence, VolumeId};
    use ogee_proto::wire::Status;

    #[test]
    fn no_burst_ends_within_an_extent() {
        let mut overlay = Overlay::default();
        let key = |chunk| ChunkKey {
            volume: VolumeId::new(1),
            chunk: ChunkIndex::new(chunk),
        };
        overlay.insert(key(0), 10, 300, 1, false);
        overlay.insert(key(1), 4, 20, 2, false);
        overlay.insert(key(2), 0, 9, 3, true);
        let dirty = overlay.dirty(3);
        let bursts: Vec<_> = bursts(&dirty).collect();
        let lens: Vec<usize> = bursts.iter().map(|burst| burst.len()).collect();
        // 10 + 262 = 272 is a border of extents.
        assert_eq!(lens, [262, 329 - 262]);
        assert_eq!(bursts.concat(), dirty);
    }

    const MIB: usize = 1 << 20;

    fn head(kind: CommandKind, sequence: u64, mib: usize) -> CommandHead {
        let chunk = u32::try_from(mib / 16).expect("small");
        let at = mib % 16 * MIB;
        CommandHead {
            kind,
            key: ChunkKey {
                volume: VolumeId::new(1),
                chunk: ChunkIndex::new(chunk),
            },
            offset: u32::try_from(at).expect("within a chunk"),
            length: u32::try_from(MIB).expect("small"),
            client: ClientId::new(1),
            epoch: Epoch::new(1),
            incarnation: Incarnation::new(0),
            sequence: Sequence::new(sequence),
            watermark: Sequence::new(sequence.saturating_sub(1)),
        }
    }

    /// Bytes that go to the device for each byte written, over more than the log holds.
    async fn amplification(redirect: bool) -> f64 {
        let lone = Lone::start_with(redirect).await;
        let replica = lone.group.replica();
        let seal = command(head(CommandKind::Seal, 0, 0), Payload::empty(), 0);
        assert_eq!(lone.group.mutate(seal).await.status, Status::Ok);
        let written = || replica.store.device().counters().written_bytes;
        let before = written();
        let writes = 48u64;
        for number in 0..writes {
            let bytes = number.to_le_bytes().repeat(MIB / 8);
            let crc = crc32c(&bytes);
            let mib = usize::try_from(number * 7 % 12).expect("small");
            let head = head(CommandKind::Write, number + 1, mib);
            let write = command(head, Payload::from(bytes), crc);
            loop {
                match lone.group.mutate(write.clone()).await.status {
                    Status::Ok => break,
                    status => assert_eq!(status, Status::Retry, "room in the log"),
                }
            }
        }
        assert!(lone.keeper.checkpoint_now().await);
        let log = replica.log_margin().get() * 4;
        assert!(writes << 20 > 3 * log, "longer than the log of {log}");
        let found = replica.read_blocks(
            FoundBy::Read,
            head(CommandKind::Write, 0, 5).key,
            block(5 * 256),
            1,
        );
        assert!(found.await.is_ok());
        (written() - before) as f64 / (writes << 20) as f64
    }

    fn block(raw: usize) -> ogee_proto::unit::BlockIndex {
        ogee_proto::unit::BlockIndex::new(raw).unwrap()
    }

    #[test]
    fn a_mebibyte_written_is_little_more_than_one_on_the_device() {
        run(async {
            let redirected = amplification(true).await;
            let through_the_log = amplification(false).await;
            println!("redirected {redirected:.3}, through the log {through_the_log:.3}");
            assert!(redirected <= 1.1, "{redirected}");
            assert!(through_the_log > 1.5, "{through_the_log}");
        });
    }
}
