//! Finding bad blocks and putting a peer's good ones in their place.
//!
//! *Place*: behind scrub and read repair. *Owner*: a task of the store's shard, in turn with the
//! group's write-backs. *Invariants*: a peer's bytes are taken only if they match the checksum in
//! our own map; a repaired block is read back from the device. *On failure*: a place that does not
//! take what is written is retired, and its extent moves; if that fails as well the block stays bad and
//! keeps being reported.

use crate::block_crc::Salt;
use crate::change::{BlockChange, WriteBack};
use crate::error::StoreError;
use crate::leaf::Stored;
use crate::read::block_offset;
use crate::store::Inner;
use ogee_device::DeviceError;
use ogee_proto::id::{ChunkKey, CopysetId};
use ogee_proto::limit::{BLOCK_SIZE, BLOCKS_PER_CHUNK};
use ogee_proto::unit::{BlockIndex, ByteLen};
use ogee_runtime::{Buffer, Payload};

/// Why a rewritten block is not there.
#[derive(Debug, thiserror::Error)]
enum Rewrite {
    #[error("the device failed")]
    Device(#[from] DeviceError),
    #[error("it reads back otherwise than it was written")]
    Differs,
}

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
        if let Err(error) = self.rewrite((salt, stored), block, &data).await {
            tracing::warn!(device = self.device.name(), %key, ?block, %error, "a bad block was not taken back");
            self.retire(stored.extent).await;
            self.replace(copyset, key, block, data).await?;
        }
        self.counters.update(|counts| counts.repairs += 1);
        tracing::warn!(device = self.device.name(), %key, ?block, "bad block repaired from a peer");
        Ok(())
    }

    /// Writes the block where it was, and reads it back.
    async fn rewrite(
        &self,
        (salt, stored): (Salt, Stored),
        block: BlockIndex,
        data: &Payload,
    ) -> Result<(), Rewrite> {
        let offset = block_offset(&self.geometry, block, stored);
        self.device
            .write_durable(offset, Buffer::copy_from(data))
            .await?;
        let written = self
            .device
            .read(offset, ByteLen::from_usize(BLOCK_SIZE))
            .await?;
        match salt.block_crc(block, &written) == stored.crc {
            true => Ok(()),
            false => Err(Rewrite::Differs),
        }
    }

    /// Moves a retired extent, with this block as it should be, to a fresh one, and reads the block back. Durable with the
    /// next checkpoint: until then the old place is bad as before, and would be found so again.
    async fn replace(
        &self,
        copyset: CopysetId,
        key: ChunkKey,
        block: BlockIndex,
        data: Payload,
    ) -> Result<(), StoreError> {
        let what = BlockChange::Data(data);
        let changes = vec![WriteBack { key, block, what }];
        self.write_back_in_turn(copyset, changes, Vec::new())
            .await?;
        self.read(copyset, key, block, 1).await.map(drop)
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
