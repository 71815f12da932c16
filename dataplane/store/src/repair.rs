//! Finding bad blocks and putting a peer's good ones in their place.
//!
//! *Place*: behind scrub and read repair. *Owner*: a task of the store's shard, in turn with the
//! group's write-backs. *Invariants*: a peer's bytes are taken only if they match the checksum in
//! our own map; a repaired block is read back from the device. *On failure*: the block stays bad
//! and keeps being reported.

use crate::block_crc::Salt;
use crate::error::StoreError;
use crate::leaf::Stored;
use crate::read::block_offset;
use crate::store::Inner;
use ogee_proto::id::{ChunkKey, CopysetId};
use ogee_proto::limit::{BLOCK_SIZE, BLOCKS_PER_CHUNK};
use ogee_proto::unit::{BlockIndex, ByteLen};
use ogee_runtime::{Buffer, Payload};

impl Inner {
    /// Rewrites a bad block in place with the bytes of a peer.
    pub(crate) async fn repair(
        &self,
        copyset: CopysetId,
        key: ChunkKey,
        block: BlockIndex,
        data: Payload,
    ) -> Result<(), StoreError> {
        let turn = self.turn(copyset);
        let _turn = turn.lock().await;
        let (salt, stored) = self.expected(copyset, key, block)?;
        let is_good = |bytes: &[u8]| salt.block_crc(block, bytes) == stored.crc;
        if data.len() != BLOCK_SIZE || !is_good(&data) {
            return Err(StoreError::Checksum { key, block });
        }
        let offset = block_offset(&self.geometry, block, stored);
        self.device
            .write_durable(offset, Buffer::copy_from(&data))
            .await?;
        let written = self
            .device
            .read(offset, ByteLen::from_usize(BLOCK_SIZE))
            .await?;
        if !is_good(&written) {
            return Err(StoreError::Checksum { key, block });
        }
        self.counters.update(|counts| counts.repairs += 1);
        tracing::warn!(device = self.device.name(), %key, ?block, "bad block repaired from a peer");
        Ok(())
    }

    /// Reads every present block of a chunk; those that do not match their checksum.
    pub(crate) async fn scrub(
        &self,
        copyset: CopysetId,
        key: ChunkKey,
    ) -> Result<Vec<BlockIndex>, StoreError> {
        let mut bad = Vec::new();
        let mut next = BlockIndex::new(0);
        while let Some(first) = next {
            match self
                .read(copyset, key, first, BLOCKS_PER_CHUNK - first.as_usize())
                .await
            {
                Ok(_) => break,
                Err(StoreError::Checksum { block, .. }) => {
                    bad.push(block);
                    next = BlockIndex::new(block.as_usize() + 1);
                }
                Err(other) => return Err(other),
            }
        }
        Ok(bad)
    }

    fn expected(
        &self,
        copyset: CopysetId,
        key: ChunkKey,
        block: BlockIndex,
    ) -> Result<(Salt, Stored), StoreError> {
        let state = self.state.borrow();
        let chunk = state.chunk(copyset, key)?;
        let found = chunk.and_then(|chunk| Some((chunk, chunk.stored(block)?)));
        let (chunk, stored) = found.ok_or(StoreError::NotPresent { key, block })?;
        Ok((Salt::new(self.store, key, chunk.generation), stored))
    }
}
