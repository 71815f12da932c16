//! What a run needs of a target, and the kinds of target there are.
//!
//! *Place*: between `run` and what is measured. *Owner*: the shard of the target.
//! *Invariants*: the kind is chosen once; an enum dispatches, since this is hot.
//! *On failure*: [`TargetError`], with the target's own error as it is.

use crate::nbd::{NbdClient, NbdError};
use crate::vhost::{VhostClient, VhostError};
use ogee_client::{ClientError, Volume};
use ogee_device::{Device, DeviceError};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::{Buffer, Payload};
use std::future::Future;

/// Something to read from and write to. Clones are handles of the same thing.
///
/// *Atomicity*, *durability*: whatever is to be measured. *Cancellation*: a run drops requests only
/// when it gives up on them.
pub trait Target: Clone + 'static {
    /// Its size.
    fn size(&self) -> ByteLen;
    /// The handle that a job uses: the same thing, by a way of its own where there are several.
    #[must_use]
    fn of_job(&self, _job: usize) -> Self {
        self.clone()
    }
    /// Reads. A target may leave what it read where it is, and bring no pieces, if the run does not verify.
    fn read(
        &self,
        offset: ByteOffset,
        len: ByteLen,
    ) -> impl Future<Output = Result<Pieces, TargetError>>;
    /// Writes.
    fn write(
        &self,
        offset: ByteOffset,
        data: Payload,
    ) -> impl Future<Output = Result<(), TargetError>>;
}

/// What a read brought, in order.
#[derive(Debug)]
pub enum Pieces {
    /// All in one.
    One(Payload),
    /// In several.
    Many(Vec<Payload>),
}

/// Why a target did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TargetError {
    /// The client of a volume.
    #[error(transparent)]
    Volume(#[from] ClientError),
    /// A file or a block device.
    #[error(transparent)]
    Raw(#[from] DeviceError),
    /// An NBD export.
    #[error(transparent)]
    Nbd(#[from] NbdError),
    /// A disk of a virtual machine.
    #[error(transparent)]
    Vhost(#[from] VhostError),
}

/// A target of any kind.
#[derive(Clone)]
pub enum AnyTarget {
    /// A volume, by the client library.
    Volume(Volume),
    /// A file or a block device, with `O_DIRECT` through the data plane's own device layer.
    Raw {
        /// It.
        device: Device,
        /// Writes are durable when they return, as on a volume.
        is_durable: bool,
    },
    /// An NBD export, by our own client.
    Nbd(NbdClient),
    /// A vhost-user-blk socket, by a driver of ours.
    Vhost(VhostClient),
}

impl Pieces {
    /// The pieces.
    #[must_use]
    pub fn as_slice(&self) -> &[Payload] {
        match self {
            Self::One(piece) => std::slice::from_ref(piece),
            Self::Many(pieces) => pieces,
        }
    }
}

impl Target for AnyTarget {
    fn size(&self) -> ByteLen {
        match self {
            Self::Volume(volume) => volume.size(),
            Self::Raw { device, .. } => device.len(),
            Self::Nbd(client) => client.size(),
            Self::Vhost(client) => client.size(),
        }
    }

    fn of_job(&self, job: usize) -> Self {
        match self {
            Self::Vhost(client) => Self::Vhost(client.of_job(job)),
            other => other.clone(),
        }
    }

    async fn read(&self, offset: ByteOffset, len: ByteLen) -> Result<Pieces, TargetError> {
        match self {
            Self::Volume(volume) => Ok(Pieces::Many(volume.read(offset, len).await?)),
            Self::Raw { device, .. } => {
                let bytes = device.read(offset, len).await?;
                Ok(Pieces::One(Payload::from(bytes)))
            }
            Self::Nbd(client) => Ok(Pieces::One(client.read(offset, len).await?)),
            Self::Vhost(client) => Ok(match client.read(offset, len).await? {
                Some(data) => Pieces::One(data),
                None => Pieces::Many(Vec::new()),
            }),
        }
    }

    async fn write(&self, offset: ByteOffset, data: Payload) -> Result<(), TargetError> {
        match self {
            Self::Volume(volume) => volume.write(offset, data).await?,
            // The device takes aligned memory of its own for each write.
            Self::Raw {
                device,
                is_durable: true,
            } => {
                let data = Buffer::copy_from(&data);
                device.write_durable(offset, data).await?;
            }
            Self::Raw { device, .. } => device.write(offset, Buffer::copy_from(&data)).await?,
            Self::Nbd(client) => client.write(offset, &data).await?,
            Self::Vhost(client) => client.write(offset, &data).await?,
        }
        Ok(())
    }
}
