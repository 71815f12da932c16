//! Checksums of data blocks, salted with where the block belongs.

use ogee_proto::checksum::{crc32c, crc32c_append};
use ogee_proto::id::{ChunkKey, StoreId};
use ogee_proto::unit::BlockIndex;

/// The part of the salt that all blocks of a chunk share.
///
/// A block's checksum is CRC32C over store uuid, volume, chunk, chunk generation (16 + 8 + 4 + 8
/// bytes, little endian), block (2 bytes), then its data. The same bytes at another place have
/// another checksum, always: two salts of one length leave the CRC register in different states,
/// and appending the same data keeps different states different. That is how a misdirected write
/// or a reused extent is found.
#[derive(Clone, Copy, Debug)]
pub struct Salt(u32);

impl Salt {
    /// The salt of one chunk's life.
    pub fn new(store: StoreId, key: ChunkKey, generation: u64) -> Self {
        let crc = crc32c(&store.to_bytes());
        let crc = crc32c_append(crc, &key.volume.get().to_le_bytes());
        let crc = crc32c_append(crc, &key.chunk.get().to_le_bytes());
        Self(crc32c_append(crc, &generation.to_le_bytes()))
    }

    /// The checksum of no data as block `block` of the chunk: what goes before the data.
    pub fn of_block(self, block: BlockIndex) -> u32 {
        crc32c_append(self.0, &block.get().to_le_bytes())
    }

    /// The checksum of `data` as block `block` of the chunk.
    pub fn block_crc(self, block: BlockIndex, data: &[u8]) -> u32 {
        crc32c_append(self.of_block(block), data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ogee_proto::id::{ChunkIndex, VolumeId};

    fn key(volume: u64, chunk: u32) -> ChunkKey {
        ChunkKey {
            volume: VolumeId::new(volume),
            chunk: ChunkIndex::new(chunk),
        }
    }

    #[test]
    fn every_part_of_the_place_counts() {
        let data = [7u8; 4096];
        let store = StoreId::from_bytes([1; 16]);
        let block = |n| BlockIndex::new(n).unwrap();
        let base = Salt::new(store, key(1, 2), 3).block_crc(block(4), &data);
        let other_store = StoreId::from_bytes([2; 16]);
        for other in [
            Salt::new(other_store, key(1, 2), 3).block_crc(block(4), &data),
            Salt::new(store, key(2, 2), 3).block_crc(block(4), &data),
            Salt::new(store, key(1, 3), 3).block_crc(block(4), &data),
            Salt::new(store, key(1, 2), 4).block_crc(block(4), &data),
            Salt::new(store, key(1, 2), 3).block_crc(block(5), &data),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn value_is_part_of_the_format() {
        let salt = Salt::new(StoreId::from_bytes([0xab; 16]), key(1, 2), 3);
        let mut bytes = vec![0xab; 16];
        bytes.extend(1u64.to_le_bytes());
        bytes.extend(2u32.to_le_bytes());
        bytes.extend(3u64.to_le_bytes());
        bytes.extend(4u16.to_le_bytes());
        bytes.extend([7; 4096]);
        assert_eq!(
            salt.block_crc(BlockIndex::new(4).unwrap(), &[7; 4096]),
            crc32c(&bytes)
        );
    }
}
