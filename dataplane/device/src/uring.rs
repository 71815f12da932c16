//! Files and block devices with `O_DIRECT`, through the runtime's io_uring.
//!
//! *Place*: the backend of real disks. *Owner*: the shard that opened it.
//! *Invariants*: two descriptors on one inode. Plain writes go through the first; durable ones
//! through the second, which has `O_DSYNC`: the kernel then sends one write with forced unit access
//! where the drive can, which costs half of a write and a flush. The claim outlives both.
//! *On failure*: the system's error, with the range. A discard that the file system or drive cannot
//! do becomes a write of zeros.

use crate::error::DeviceError;
use crate::limit::ZERO_FILL_STEP;
use crate::request::Request;
use crate::target::{Claim, OpenOptions, Target};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::file::{DmaFile, OpenOptions as FileOptions};
use ogee_runtime::{Buffer, Gather, ReadBuffer};
use std::cell::Cell;
use std::io;
use std::path::Path;

/// A file or a block device.
pub(crate) struct UringDevice {
    plain: DmaFile,
    durable: DmaFile,
    /// Cleared by the first discard that the system refuses.
    can_discard: Cell<bool>,
    /// Last, so that the device is given up after its descriptors.
    _claim: Claim,
}

impl UringDevice {
    /// Claims and opens what stands at `path`; its length comes with it.
    pub(crate) async fn open(
        path: &Path,
        options: OpenOptions,
    ) -> Result<(Self, ByteLen), DeviceError> {
        let Target {
            path: resolved,
            len,
            claim,
        } = Target::claim(path, options).await?;
        let plain = open_file(&resolved, false).await?;
        let durable = open_file(&resolved, true).await?;
        tracing::info!(device = %path.display(), %len, "device opened");
        let can_discard = Cell::new(true);
        Ok((
            Self {
                plain,
                durable,
                can_discard,
                _claim: claim,
            },
            len,
        ))
    }

    pub(crate) async fn read(&self, request: Request<'_>) -> Result<ReadBuffer, DeviceError> {
        let (offset, len) = (request.offset.get(), request.len.as_usize());
        self.plain
            .read_at(offset, len)
            .await
            .map_err(|error| request.failed(error))
    }

    pub(crate) async fn write(
        &self,
        request: Request<'_>,
        data: Gather,
    ) -> Result<(), DeviceError> {
        let written = self.plain.write_at(request.offset.get(), data).await;
        written.map_err(|error| request.failed(error))
    }

    pub(crate) async fn write_durable(
        &self,
        request: Request<'_>,
        data: Gather,
    ) -> Result<(), DeviceError> {
        let written = self.durable.write_at(request.offset.get(), data).await;
        written.map_err(|error| request.failed(error))
    }

    pub(crate) async fn flush(&self, request: Request<'_>) -> Result<(), DeviceError> {
        self.plain
            .fdatasync()
            .await
            .map_err(|error| request.failed(error))
    }

    pub(crate) async fn discard(&self, request: Request<'_>) -> Result<(), DeviceError> {
        if self.can_discard.get() {
            match self
                .plain
                .discard(request.offset.get(), request.len.get())
                .await
            {
                Err(error) if is_unsupported(&error) => {
                    tracing::info!(%error, "device cannot discard, zeros are written instead");
                    self.can_discard.set(false);
                }
                result => return result.map_err(|error| request.failed(error)),
            }
        }
        self.write_zeros(request.offset, request.len)
            .await
            .map_err(|error| request.failed(error))
    }

    async fn write_zeros(&self, mut offset: ByteOffset, len: ByteLen) -> io::Result<()> {
        let end = offset.add(len);
        while offset < end {
            let step = (end.get() - offset.get()).min(ZERO_FILL_STEP as u64);
            let step = ByteLen::new(step);
            self.plain
                .write_at(offset.get(), Buffer::zeroed(step.as_usize()))
                .await?;
            offset = offset.add(step);
        }
        Ok(())
    }
}

async fn open_file(path: &Path, dsync: bool) -> Result<DmaFile, DeviceError> {
    let options = FileOptions {
        dsync,
        ..FileOptions::default()
    };
    DmaFile::open(path, options)
        .await
        .map_err(|error| DeviceError::open(path, error))
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENODEV)
    )
}
