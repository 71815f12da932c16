//! An attached volume as a disk.
//!
//! *Place*: the only file here that calls the client. *Owner*: the shard that opened the volume.
//! *Invariants*: an acknowledged mutation is durable on a majority, so the disk is write-through.
//! *On failure*: the client waits for the cluster to heal; what it does report is final.

use super::contract::{BlockRun, Disk};
use super::error::DiskError;
use ogee_client::Volume;
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::channel::watch;
use ogee_runtime::{Payload, Target};

// The inherent methods have the same names: each is called by its full path, so that a change of
// theirs cannot turn a call into a recursion.
impl Disk for Volume {
    fn size(&self) -> ByteLen {
        Volume::size(self)
    }

    fn read_only(&self) -> bool {
        self.is_read_only()
    }

    fn is_write_through(&self) -> bool {
        true
    }

    fn resized(&self) -> watch::Receiver<ByteLen> {
        Volume::resized(self)
    }

    async fn read(&self, offset: ByteOffset, len: ByteLen) -> Result<Vec<Payload>, DiskError> {
        Ok(Volume::read(self, offset, len).await?)
    }

    async fn read_to(&self, offset: ByteOffset, into: &Target) -> Result<(), DiskError> {
        Ok(Volume::read_to(self, offset, into).await?)
    }

    async fn write(&self, offset: ByteOffset, data: Payload) -> Result<(), DiskError> {
        Ok(Volume::write(self, offset, data).await?)
    }

    async fn write_zeroes(
        &self,
        offset: ByteOffset,
        len: ByteLen,
        may_unmap: bool,
    ) -> Result<(), DiskError> {
        match may_unmap {
            true => Volume::discard(self, offset, len).await?,
            false => Volume::write_zeroes(self, offset, len).await?,
        }
        Ok(())
    }

    async fn discard(&self, offset: ByteOffset, len: ByteLen) -> Result<(), DiskError> {
        Ok(Volume::discard(self, offset, len).await?)
    }

    async fn flush(&self) -> Result<(), DiskError> {
        Ok(Volume::flush(self).await?)
    }

    async fn block_status(
        &self,
        offset: ByteOffset,
        len: ByteLen,
    ) -> Result<Vec<BlockRun>, DiskError> {
        let runs = Volume::block_status(self, offset, len).await?;
        let run = |(len, is_allocated)| BlockRun { len, is_allocated };
        Ok(runs.into_iter().map(run).collect())
    }
}
