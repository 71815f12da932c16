//! Reads of a group's contents: newest version of each block, from the log or from the store.
//!
//! *Place*: after the linearizability check on a leader; also under digests and snapshots.
//! *Owner*: any task of the shard; no borrow of the state lives across an await.
//! *Invariants*: every byte returned was verified against a checksum or is a zero that the maps
//! vouch for. A block that moves from log to store while it is read is read again.
//! *On failure*: a checksum that stays wrong after all tries is [`GroupError::Corrupt`].

use crate::error::GroupError;
use crate::limit::READ_TRIES;
use crate::metrics::FoundBy;
use crate::overlay::{Overlay, OverlaySlot, OverlayWhat};
use crate::repair::Span;
use crate::replica::Replica;
use ogee_proto::id::{ChunkKey, LogIndex};
use ogee_proto::limit::BLOCK_SIZE;
use ogee_proto::unit::BlockIndex;
use ogee_runtime::{Buffer, Payload, seeded_bug};
use ogee_store::{BlockRead, StoreError};
use std::ops::Range;

/// A run of blocks with one source.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Piece {
    /// In an entry of the log.
    Log { index: u64, bytes: Range<usize> },
    /// Zeros.
    Zero { count: usize },
    /// In the store, as far as the overlay knows.
    Store { first: BlockIndex, count: usize },
}

/// One run of what was read.
#[derive(Clone)]
pub enum ReadRun {
    /// Verified bytes.
    Data(Payload),
    /// So many zero bytes.
    Zeros(usize),
}

impl ReadRun {
    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Data(bytes) => bytes.len(),
            Self::Zeros(len) => *len,
        }
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One payload of several runs; a single run of data is not copied.
    #[must_use]
    pub fn join(mut runs: Vec<Self>) -> Payload {
        if let [Self::Data(_)] = runs.as_slice()
            && let Some(Self::Data(bytes)) = runs.pop()
        {
            return bytes;
        }
        let len = runs.iter().map(Self::len).sum();
        if let Some(mut joined) = Buffer::for_transfer(len) {
            for run in runs {
                match run {
                    Self::Data(bytes) => joined.extend_from_slice(&bytes),
                    Self::Zeros(len) => joined.resize(joined.len() + len),
                }
            }
            return Payload::from(joined);
        }
        let mut joined = Vec::with_capacity(len);
        for run in runs {
            match run {
                Self::Data(bytes) => joined.extend_from_slice(&bytes),
                Self::Zeros(len) => joined.resize(joined.len() + len, 0),
            }
        }
        Payload::from(joined)
    }
}

impl Replica {
    /// The newest contents of `count` blocks from `first`. The caller has checked the range. Damage is noted.
    pub(crate) async fn read_blocks(
        &self,
        by: FoundBy,
        key: ChunkKey,
        first: BlockIndex,
        count: usize,
    ) -> Result<Vec<ReadRun>, GroupError> {
        let read = self.try_blocks(key, first, count).await;
        read.inspect_err(|error| self.note_damage(by, error, Span::new(key, first, count)))
    }

    async fn try_blocks(
        &self,
        key: ChunkKey,
        first: BlockIndex,
        count: usize,
    ) -> Result<Vec<ReadRun>, GroupError> {
        let mut corrupt = None;
        for _ in 0..READ_TRIES {
            let plan = plan(&self.state.borrow().overlay, key, first, count);
            match self.fetch(key, &plan).await {
                Ok(runs) => return Ok(runs),
                Err(Miss::Moved) => {}
                Err(Miss::Checksum(block)) => corrupt = Some(block),
                Err(Miss::Failed(error)) => return Err(error),
            }
            ogee_runtime::yield_now().await;
        }
        let copyset = self.copyset;
        Err(match corrupt {
            Some(block) => GroupError::Corrupt {
                copyset,
                key,
                block,
            },
            None => GroupError::Race { copyset, key },
        })
    }

    /// What the store holds of these blocks, whatever the log says. Damage is noted.
    pub(crate) async fn read_stored(
        &self,
        by: FoundBy,
        key: ChunkKey,
        first: BlockIndex,
        count: usize,
    ) -> Result<Vec<BlockRead>, GroupError> {
        let copyset = self.copyset;
        let read = self.store.read(copyset, key, first, count).await;
        let read = read.map_err(|source| GroupError::Store { copyset, source });
        read.inspect_err(|error| self.note_damage(by, error, Span::new(key, first, count)))
    }

    /// The runs of these blocks that nothing in the log replaces.
    pub(crate) fn stored(
        &self,
        key: ChunkKey,
        first: BlockIndex,
        count: usize,
    ) -> Vec<(BlockIndex, usize)> {
        let pieces = plan(&self.state.borrow().overlay, key, first, count).into_iter();
        let stored = |piece| match piece {
            Piece::Store { first, count } => Some((first, count)),
            Piece::Log { .. } | Piece::Zero { .. } => None,
        };
        pieces.filter_map(stored).collect()
    }

    async fn fetch(&self, key: ChunkKey, plan: &[Piece]) -> Result<Vec<ReadRun>, Miss> {
        let mut runs = Vec::with_capacity(plan.len());
        for piece in plan {
            match piece {
                Piece::Zero { count } => runs.push(ReadRun::Zeros(count * BLOCK_SIZE)),
                Piece::Log { index, bytes } => {
                    let payload = self.log_payload(*index, bytes.clone()).await?;
                    runs.push(ReadRun::Data(payload));
                }
                Piece::Store { first, count } => {
                    self.fetch_stored(key, *first, *count, &mut runs).await?;
                }
            }
        }
        Ok(runs)
    }

    /// Bytes of an entry's payload; [`Miss::Moved`] when it has been purged meanwhile.
    pub(crate) async fn log_payload(
        &self,
        index: u64,
        bytes: Range<usize>,
    ) -> Result<Payload, Miss> {
        let index = LogIndex::new(index);
        if let Some(payload) = self.log.cached_payload(index, bytes.clone()) {
            return Ok(payload);
        }
        let purged = |replica: &Self| {
            replica
                .log
                .state()
                .purged
                .is_some_and(|purged| purged.index >= index)
        };
        if purged(self) {
            return Err(Miss::Moved);
        }
        self.log.payload(index, bytes).await.map_err(|source| {
            if purged(self) {
                return Miss::Moved;
            }
            Miss::Failed(GroupError::Log {
                copyset: self.copyset,
                source,
            })
        })
    }

    async fn fetch_stored(
        &self,
        key: ChunkKey,
        first: BlockIndex,
        count: usize,
        runs: &mut Vec<ReadRun>,
    ) -> Result<(), Miss> {
        let copyset = self.copyset;
        let read = self.store.read(copyset, key, first, count).await;
        self.check_kept().map_err(Miss::Failed)?;
        match read {
            Ok(read) => {
                runs.extend(read.into_iter().map(|run| match run {
                    BlockRead::Data(bytes) => ReadRun::Data(bytes),
                    BlockRead::Zeros(blocks) => ReadRun::Zeros(blocks * BLOCK_SIZE),
                }));
                Ok(())
            }
            Err(StoreError::Checksum { block, .. }) => Err(Miss::Checksum(block.get())),
            Err(source) => Err(Miss::Failed(GroupError::Store { copyset, source })),
        }
    }
}

/// Why a fetch did not work this time.
#[derive(Debug)]
pub(crate) enum Miss {
    /// The block is no longer where the plan said: plan again.
    Moved,
    /// A stored block failed its checksum: it may be under write-back now, or be corrupt.
    Checksum(u16),
    /// Give up.
    Failed(GroupError),
}

/// Splits a range by source. Consecutive pages of one entry become one piece.
fn plan(overlay: &Overlay, key: ChunkKey, first: BlockIndex, count: usize) -> Vec<Piece> {
    if !overlay.touches(key) {
        return vec![Piece::Store { first, count }];
    }
    let mut pieces = Vec::new();
    let mut next = first.as_usize();
    let end = next + count;
    for (block, slot) in overlay.range(key, first, count) {
        if seeded_bug!("discard-not-seen") && slot.what == OverlayWhat::Zero {
            continue;
        }
        push_stored(&mut pieces, next, block.as_usize());
        push_slot(&mut pieces, slot);
        next = block.as_usize() + 1;
    }
    push_stored(&mut pieces, next, end);
    pieces
}

fn push_stored(pieces: &mut Vec<Piece>, from: usize, to: usize) {
    if from < to {
        let first = BlockIndex::new(from).expect("within the range asked for");
        pieces.push(Piece::Store {
            first,
            count: to - from,
        });
    }
}

fn push_slot(pieces: &mut Vec<Piece>, slot: OverlaySlot) {
    match (slot.what, pieces.last_mut()) {
        (OverlayWhat::Zero, Some(Piece::Zero { count })) => *count += 1,
        (OverlayWhat::Zero, _) => pieces.push(Piece::Zero { count: 1 }),
        (OverlayWhat::Page(page), last) => {
            let start = page as usize * BLOCK_SIZE;
            match last {
                Some(Piece::Log { index, bytes }) if *index == slot.index && bytes.end == start => {
                    bytes.end += BLOCK_SIZE;
                }
                _ => pieces.push(Piece::Log {
                    index: slot.index,
                    bytes: start..start + BLOCK_SIZE,
                }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{COPYSET, Lone, run};
    use crate::group::Group;
    use ogee_proto::id::{ChunkIndex, VolumeId};
    use ogee_store::{BlockChange, WriteBack};

    fn key() -> ChunkKey {
        ChunkKey {
            volume: VolumeId::new(1),
            chunk: ChunkIndex::new(0),
        }
    }

    fn block(raw: usize) -> BlockIndex {
        BlockIndex::new(raw).unwrap()
    }

    #[test]
    fn a_plan_joins_pages_of_one_entry_and_fills_gaps_from_the_store() {
        let mut overlay = Overlay::default();
        overlay.insert(key(), 2, 3, 10, false);
        overlay.insert(key(), 3, 1, 11, false);
        overlay.insert(key(), 7, 2, 12, true);
        let page = |index, page: usize| Piece::Log {
            index,
            bytes: page * BLOCK_SIZE..(page + 1) * BLOCK_SIZE,
        };
        let pieces = plan(&overlay, key(), block(0), 10);
        assert_eq!(
            pieces,
            [
                Piece::Store {
                    first: block(0),
                    count: 2
                },
                page(10, 0),
                page(11, 0),
                page(10, 2),
                Piece::Store {
                    first: block(5),
                    count: 2
                },
                Piece::Zero { count: 2 },
                Piece::Store {
                    first: block(9),
                    count: 1
                },
            ]
        );
        overlay.insert(key(), 2, 3, 13, false);
        let joined = Piece::Log {
            index: 13,
            bytes: 0..3 * BLOCK_SIZE,
        };
        assert_eq!(plan(&overlay, key(), block(2), 3), [joined]);
    }

    #[test]
    fn a_chunk_that_is_not_in_the_log_is_one_piece() {
        let whole = Piece::Store {
            first: block(4),
            count: 9,
        };
        assert_eq!(plan(&Overlay::default(), key(), block(4), 9), [whole]);
    }

    /// A store that knows a chunk no more takes its blocks for zeros.
    #[test]
    fn a_deleted_replica_does_not_read_as_zeros() {
        run(async {
            let lone = Lone::start().await;
            let replica = lone.group.replica();
            let what = BlockChange::Data(Payload::from(vec![7; BLOCK_SIZE]));
            let (key, block) = (key(), block(0));
            let stored = vec![WriteBack { key, block, what }];
            replica.store.write_back(COPYSET, stored).await.unwrap();
            let before = replica
                .read_blocks(FoundBy::Read, key, block, 1)
                .await
                .unwrap();
            assert!(matches!(&before[..], [ReadRun::Data(_)]));
            lone.keeper.remove(COPYSET);
            let (store, id) = (replica.store.clone(), (COPYSET, replica.id));
            let running = Some(lone.group.clone());
            let removed = Group::remove(&store, &lone.log, id, running).await;
            removed.expect("it is deleted");
            let read = replica.read_blocks(FoundBy::Read, key, block, 1).await;
            assert!(matches!(read, Err(GroupError::Deleted { .. })));
        });
    }
}
