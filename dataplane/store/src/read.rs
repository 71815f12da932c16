//! Blocks from extents, verified.
//!
//! *Place*: behind the leader's read path, scrub and snapshots. *Owner*: the calling task.
//! *Invariants*: no byte leaves here that does not match the checksum that the map holds for it;
//! absent blocks cost no I/O. *On failure*: [`StoreError::Checksum`] names the first bad block.
//!
//! A read may overlap a write-back of the same blocks: in-place overwrites make the device run
//! ahead of the map for a moment. A mismatch therefore counts only if the chunk stood still while
//! the read was under way; otherwise the read waits for the write-back to end and starts again.

use crate::block_crc::Salt;
use crate::error::StoreError;
use crate::geometry::Geometry;
use crate::leaf::Stored;
use crate::limit::{READ_RETRIES_MAX, READS_IN_FLIGHT_MAX, TRANSFER_MAX};
use crate::state::State;
use crate::store::Inner;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use ogee_proto::id::{ChunkKey, CopysetId};
use ogee_proto::limit::{BLOCK_SIZE, BLOCKS_PER_CHUNK, BLOCKS_PER_EXTENT};
use ogee_proto::unit::{BlockIndex, ByteLen, ByteOffset};
use ogee_runtime::{Payload, seeded_bug};

/// A run of blocks with one source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BlockRead {
    /// Verified bytes: a multiple of the block size.
    Data(Payload),
    /// So many absent blocks.
    Zeros(usize),
}

impl BlockRead {
    /// Blocks in the run.
    #[must_use]
    pub fn blocks(&self) -> usize {
        match self {
            Self::Data(data) => data.len() / BLOCK_SIZE,
            Self::Zeros(count) => *count,
        }
    }
}

/// One device read, or none.
enum Piece {
    Zeros(usize),
    Stored {
        first: BlockIndex,
        offset: ByteOffset,
        crcs: Vec<u32>,
    },
}

/// A read as the map stood when it began.
struct Plan {
    salt: Salt,
    /// Of the chunk: tells whether a write-back began or ended since.
    version: u64,
    pieces: Vec<Piece>,
}

/// Why a piece was not returned.
enum Miss {
    Mismatch(BlockIndex),
    Error(StoreError),
}

impl Inner {
    /// Reads `count` blocks from `first`, as runs in order.
    pub(crate) async fn read(
        &self,
        copyset: CopysetId,
        key: ChunkKey,
        first: BlockIndex,
        count: usize,
    ) -> Result<Vec<BlockRead>, StoreError> {
        if count > BLOCKS_PER_CHUNK - first.as_usize() {
            return Err(StoreError::OutOfChunk { first, count });
        }
        let mut retries = 0;
        loop {
            let plan = self
                .state
                .borrow()
                .plan_read(copyset, key, first, count, &self.geometry)?;
            let version = plan.version;
            let block = match self.fetch(plan).await {
                Ok(runs) => return Ok(runs),
                Err(Miss::Error(error)) => return Err(error),
                Err(Miss::Mismatch(block)) => block,
            };
            if retries == READ_RETRIES_MAX || !self.was_overtaken(key, block, version) {
                self.counters.update(|counts| counts.checksum_errors += 1);
                return Err(StoreError::Checksum { key, block });
            }
            retries += 1;
            self.counters.update(|counts| counts.read_retries += 1);
            self.wait_until_written(key, block).await;
        }
    }

    /// Whether a write-back may have changed the block under a read that began at `version`.
    fn was_overtaken(&self, key: ChunkKey, block: BlockIndex, version: u64) -> bool {
        let state = self.state.borrow();
        let now = state.chunks.get(&key);
        now.is_none_or(|chunk| chunk.version() != version || chunk.is_writing(block))
    }

    async fn wait_until_written(&self, key: ChunkKey, block: BlockIndex) {
        while self.is_writing(key, block) {
            self.settled.notified().await;
        }
    }

    fn is_writing(&self, key: ChunkKey, block: BlockIndex) -> bool {
        self.state
            .borrow()
            .chunks
            .get(&key)
            .is_some_and(|chunk| chunk.is_writing(block))
    }

    async fn fetch(&self, plan: Plan) -> Result<Vec<BlockRead>, Miss> {
        let salt = plan.salt;
        stream::iter(plan.pieces)
            .map(|piece| self.fetch_piece(salt, piece))
            .buffered(READS_IN_FLIGHT_MAX)
            .try_collect()
            .await
    }

    async fn fetch_piece(&self, salt: Salt, piece: Piece) -> Result<BlockRead, Miss> {
        let (first, offset, crcs) = match piece {
            Piece::Zeros(count) => return Ok(BlockRead::Zeros(count)),
            Piece::Stored {
                first,
                offset,
                crcs,
            } => (first, offset, crcs),
        };
        let len = ByteLen::from_usize(crcs.len() * BLOCK_SIZE);
        let read = self.device.read(offset, len).await;
        let bytes = read.map_err(|error| Miss::Error(error.into()))?;
        for ((block, data), crc) in blocks_from(first).zip(bytes.chunks(BLOCK_SIZE)).zip(&crcs) {
            if salt.block_crc(block, data) != *crc && !seeded_bug!("checksum-not-verified") {
                return Err(Miss::Mismatch(block));
            }
        }
        self.counters
            .update(|counts| counts.data_bytes_read += len.get());
        Ok(BlockRead::Data(Payload::from(bytes)))
    }
}

impl State {
    fn plan_read(
        &self,
        copyset: CopysetId,
        key: ChunkKey,
        first: BlockIndex,
        count: usize,
        geometry: &Geometry,
    ) -> Result<Plan, StoreError> {
        let Some(chunk) = self.chunk(copyset, key)? else {
            let pieces = if count == 0 {
                Vec::new()
            } else {
                vec![Piece::Zeros(count)]
            };
            return Ok(Plan {
                salt: Salt::new(self.store, key, 0),
                version: 0,
                pieces,
            });
        };
        let mut pieces = Vec::new();
        for block in blocks_from(first).take(count) {
            match chunk.stored(block) {
                None => push_zero(&mut pieces),
                Some(stored) => push_stored(&mut pieces, block, stored, geometry),
            }
        }
        let salt = Salt::new(self.store, key, chunk.generation);
        Ok(Plan {
            salt,
            version: chunk.version(),
            pieces,
        })
    }
}

fn push_zero(pieces: &mut Vec<Piece>) {
    if let Some(Piece::Zeros(count)) = pieces.last_mut() {
        *count += 1;
    } else {
        pieces.push(Piece::Zeros(1));
    }
}

/// Joins the block to the piece before it if it stands right behind it on the device.
fn push_stored(pieces: &mut Vec<Piece>, block: BlockIndex, stored: Stored, geometry: &Geometry) {
    let at = block_offset(geometry, block, stored);
    if let Some(Piece::Stored { offset, crcs, .. }) = pieces.last_mut() {
        let len = crcs.len() * BLOCK_SIZE;
        if offset.add(ByteLen::from_usize(len)) == at && len < TRANSFER_MAX {
            crcs.push(stored.crc);
            return;
        }
    }
    pieces.push(Piece::Stored {
        first: block,
        offset: at,
        crcs: vec![stored.crc],
    });
}

/// Device address of a stored block.
pub fn block_offset(geometry: &Geometry, block: BlockIndex, stored: Stored) -> ByteOffset {
    let within = block.as_usize() % BLOCKS_PER_EXTENT * BLOCK_SIZE;
    geometry
        .extent_offset(stored.extent)
        .add(ByteLen::from_usize(within))
}

/// The blocks of a chunk from `first` on.
fn blocks_from(first: BlockIndex) -> impl Iterator<Item = BlockIndex> {
    (first.as_usize()..BLOCKS_PER_CHUNK).filter_map(BlockIndex::new)
}
