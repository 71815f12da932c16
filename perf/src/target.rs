//! What a run needs of a volume.
//!
//! *Place*: between `run` and the client. *Owner*: the shard of the volume.
//! *Invariants*: those of [`Volume`]. *On failure*: its errors.

use ogee_client::{ClientError, Volume};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::Payload;
use std::future::Future;

/// Something to read from and write to. Clones are handles of the same thing.
///
/// *Atomicity*, *durability*: whatever is to be measured. *Cancellation*: a run drops requests only
/// when it gives up on them.
pub trait Target: Clone + 'static {
    /// Its size.
    fn size(&self) -> ByteLen;
    /// Reads.
    fn read(
        &self,
        offset: ByteOffset,
        len: ByteLen,
    ) -> impl Future<Output = Result<Vec<Payload>, ClientError>>;
    /// Writes.
    fn write(
        &self,
        offset: ByteOffset,
        data: Payload,
    ) -> impl Future<Output = Result<(), ClientError>>;
}

impl Target for Volume {
    fn size(&self) -> ByteLen {
        Self::size(self)
    }

    async fn read(&self, offset: ByteOffset, len: ByteLen) -> Result<Vec<Payload>, ClientError> {
        Self::read(self, offset, len).await
    }

    async fn write(&self, offset: ByteOffset, data: Payload) -> Result<(), ClientError> {
        Self::write(self, offset, data).await
    }
}
