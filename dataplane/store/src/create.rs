//! Makes a store on a device.
//!
//! *Place*: behind a store that the configuration says to `create`. *Owner*: the task that calls it. *Invariants*: nothing that
//! might be somebody's data is overwritten without force. *On failure*: a crash in the middle
//! leaves a device that is not formatted, or an empty store; never a mix with an older store,
//! because the old superblocks are gone before the first new one is written.

use crate::checkpoint::write_superblocks;
use crate::error::StoreError;
use crate::foreign::{Foreign, detect};
use crate::format::Superblock;
use crate::geometry::{Geometry, Misfit};
use crate::limit::{HEAD_LEN, PAGE_SIZE, TAIL_PROBE_LEN};
use crate::recovery::read_superblocks;
use ogee_device::{Device, DeviceError};
use ogee_proto::id::StoreId;
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::Buffer;
use uuid::Uuid;

/// What a new store is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreParams {
    /// Its identity: fresh, never reused.
    pub store: StoreId,
    /// The cluster that it will serve.
    pub cluster: Uuid,
    /// Least length of the log region; rounded up to whole MiB.
    pub log_len: ByteLen,
    /// Overwrite whatever is there.
    pub force: bool,
}

/// Makes an empty store; the log region is left for the log to format.
///
/// # Errors
/// Before anything is written: the device does not fit, or holds something and `force` is off.
pub async fn format(device: &Device, params: StoreParams) -> Result<(), StoreError> {
    let geometry = plan(device, params.log_len)?;
    if params.force {
        wipe(device).await?;
    } else {
        refuse_overwriting(device).await?;
    }
    let superblock = Superblock {
        store: params.store,
        cluster: params.cluster,
        sequence: 1,
        next_generation: 1,
        geometry,
        roots: Vec::new(),
    };
    write_superblocks(device, &superblock).await?;
    Ok(())
}

fn plan(device: &Device, log_len: ByteLen) -> Result<Geometry, StoreError> {
    let found = device.len();
    Geometry::plan(found, log_len).map_err(|misfit| {
        let device = device.name().to_owned();
        match misfit {
            Misfit::TooSmall(minimum) => StoreError::TooSmall {
                device,
                found,
                minimum,
            },
            Misfit::TooLarge(maximum) => StoreError::TooLarge {
                device,
                found,
                maximum,
            },
        }
    })
}

async fn refuse_overwriting(device: &Device) -> Result<(), StoreError> {
    match read_superblocks(device).await {
        Ok(found) => Err(StoreError::AlreadyFormatted {
            device: device.name().to_owned(),
            store: found.superblock.store,
            cluster: found.superblock.cluster,
        }),
        Err(StoreError::NotFormatted { .. }) => refuse_foreign(device).await,
        Err(StoreError::SuperblocksDamaged { device }) => Err(StoreError::ForeignData {
            device,
            found: Foreign::DamagedStore,
        }),
        Err(other) => Err(other),
    }
}

async fn refuse_foreign(device: &Device) -> Result<(), StoreError> {
    let tail_at = tail_start(device);
    let head = device
        .read(ByteOffset::ZERO, ByteLen::new(HEAD_LEN))
        .await?;
    let tail = device.read(tail_at, ByteLen::new(TAIL_PROBE_LEN)).await?;
    match detect(&head, &tail, tail_at.get()) {
        None => Ok(()),
        Some(found) => Err(StoreError::ForeignData {
            device: device.name().to_owned(),
            found,
        }),
    }
}

/// Removes old superblocks and the signatures of others, so that no tool finds them later.
async fn wipe(device: &Device) -> Result<(), DeviceError> {
    for (offset, len) in [
        (ByteOffset::ZERO, HEAD_LEN),
        (tail_start(device), TAIL_PROBE_LEN),
    ] {
        let zeros = Buffer::zeroed(ByteLen::new(len).as_usize());
        device.write_durable(offset, zeros).await?;
    }
    Ok(())
}

/// The geometry was planned, so the device is long enough for both probes.
fn tail_start(device: &Device) -> ByteOffset {
    let end = device.len().get() - device.len().get() % PAGE_SIZE as u64;
    ByteOffset::new(end - TAIL_PROBE_LEN)
}
