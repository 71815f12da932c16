//! What the tests of the store share.

#![allow(dead_code, reason = "every test file uses a part of it")]

use bytes::Bytes;
use ogee_device::{Device, MemoryControl};
use ogee_proto::id::{ChunkIndex, ChunkKey, CopysetId, LogId, StoreId, VolumeId};
use ogee_proto::limit::BLOCK_SIZE;
use ogee_proto::unit::{BlockIndex, ByteLen, ByteOffset};
use ogee_runtime::Payload;
use ogee_store::{
    BlockChange, BlockRead, GroupCheckpoint, Store, StoreError, StoreParams, WriteBack,
};
use uuid::Uuid;

pub const MIB: u64 = 1 << 20;
pub const GROUP: CopysetId = CopysetId::new(7);
pub const CLUSTER: Uuid = Uuid::from_bytes([0xc1; 16]);

pub fn params(force: bool) -> StoreParams {
    let store = StoreId::from_bytes([0x5a; 16]);
    StoreParams {
        store,
        cluster: CLUSTER,
        log_len: ByteLen::new(2 * MIB),
        force,
    }
}

/// A formatted memory device of so many MiB.
pub async fn formatted(mib: u64) -> (Device, MemoryControl) {
    let (device, control) = Device::memory_with_control(ByteLen::new(mib * MIB));
    Store::format(&device, params(false)).await.unwrap();
    (device, control)
}

pub async fn fresh(mib: u64) -> (Store, Device, MemoryControl) {
    let (device, control) = formatted(mib).await;
    (Store::open(&device).await.unwrap(), device, control)
}

pub fn key(chunk: u32) -> ChunkKey {
    ChunkKey {
        volume: VolumeId::new(3),
        chunk: ChunkIndex::new(chunk),
    }
}

pub fn block(raw: usize) -> BlockIndex {
    BlockIndex::new(raw).unwrap()
}

/// One block that is different for every seed.
pub fn bytes_of(seed: u64) -> Vec<u8> {
    let word = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    word.repeat(BLOCK_SIZE / word.len())
}

pub fn data(chunk: u32, at: usize, seed: u64) -> WriteBack {
    let what = BlockChange::Data(Payload::from(bytes_of(seed)));
    WriteBack {
        key: key(chunk),
        block: block(at),
        what,
    }
}

pub fn zero(chunk: u32, at: usize) -> WriteBack {
    WriteBack {
        key: key(chunk),
        block: block(at),
        what: BlockChange::Zero,
    }
}

pub fn group(applied: u64, state: &[u8]) -> GroupCheckpoint {
    let state = Bytes::copy_from_slice(state);
    GroupCheckpoint {
        copyset: GROUP,
        applied: LogId::new(1, applied),
        state,
    }
}

/// The content of one block.
pub async fn read(store: &Store, chunk: u32, at: usize) -> Result<Vec<u8>, StoreError> {
    Ok(flatten(&store.read(GROUP, key(chunk), block(at), 1).await?))
}

/// Whether a block holds what `seed` makes; `None` means zeros.
pub async fn holds(store: &Store, chunk: u32, at: usize, seed: Option<u64>) -> bool {
    let expected = seed.map_or_else(|| vec![0; BLOCK_SIZE], bytes_of);
    read(store, chunk, at).await.unwrap() == expected
}

pub fn flatten(runs: &[BlockRead]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for run in runs {
        match run {
            BlockRead::Data(data) => bytes.extend_from_slice(data),
            BlockRead::Zeros(count) => bytes.resize(bytes.len() + count * BLOCK_SIZE, 0),
        }
    }
    bytes
}

/// Where on the device the bytes of `seed` stand; they must stand there once.
pub async fn locate(device: &Device, seed: u64) -> ByteOffset {
    let expected = bytes_of(seed);
    let mut found = Vec::new();
    for at in (0..device.len().get()).step_by(BLOCK_SIZE) {
        let offset = ByteOffset::new(at);
        let bytes = device
            .read(offset, ByteLen::from_usize(BLOCK_SIZE))
            .await
            .unwrap();
        if bytes[..] == expected[..] {
            found.push(offset);
        }
    }
    assert_eq!(found.len(), 1, "seed {seed} stands at {found:?}");
    found[0]
}

pub fn is_checksum_error(result: &Result<Vec<u8>, StoreError>) -> bool {
    matches!(result, Err(StoreError::Checksum { .. }))
}

/// What lies between the log and the extents: start of both areas of metadata pages, and the length
/// of each.
pub fn page_areas(store: &Store) -> ([ByteOffset; 2], ByteLen) {
    let (log_start, log_len) = store.log_region();
    let start = log_start.add(log_len);
    let used = start.get() + store.capacity().get();
    let len = ByteLen::new((store.device().len().get() - used) / 2);
    ([start, start.add(len)], len)
}
