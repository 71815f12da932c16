//! Trying a device out.
//!
//! *Place*: for a device that limped and has little or nothing to do meanwhile: without requests nobody could tell that it
//! is well again. *Owner*: a task of the store's shard. *Invariants*: writes a page of the head that nothing else reads or
//! writes. *On failure*: the device's error; the store goes on.

use crate::error::StoreError;
use crate::limit::{HEAD_LEN, PAGE_SIZE, SUPERBLOCK_AT, TRIAL_AT};
use crate::store::Store;
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::Buffer;

const _: () = assert!(TRIAL_AT >= SUPERBLOCK_AT[1] + PAGE_SIZE as u64);
const _: () = assert!(TRIAL_AT + PAGE_SIZE as u64 <= HEAD_LEN);

impl Store {
    /// Writes a page durably, and reads it back.
    ///
    /// # Errors
    /// What the device says.
    pub async fn try_out(&self) -> Result<(), StoreError> {
        let (device, at) = (self.device(), ByteOffset::new(TRIAL_AT));
        device.write_durable(at, Buffer::zeroed(PAGE_SIZE)).await?;
        device.read(at, ByteLen::from_usize(PAGE_SIZE)).await?;
        Ok(())
    }
}
