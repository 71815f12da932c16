//! The backends behind a device. The choice is made once; an enum dispatches, since this is hot.

use crate::error::DeviceError;
use crate::fault::FaultDevice;
#[cfg(ogee_sim)]
use crate::memory::DiskUser;
use crate::memory::MemoryDevice;
use crate::nvme::{NvmeDevice, NvmeVitals};
use crate::request::Request;
use crate::uring::UringDevice;
use ogee_runtime::{Gather, ReadBuffer};
use std::rc::Rc;

/// What serves the requests of a device.
pub(crate) enum Backend {
    Uring(UringDevice),
    Nvme(NvmeDevice),
    Memory(Rc<MemoryDevice>),
    Fault(FaultDevice),
    #[cfg(ogee_sim)]
    Simulated(DiskUser),
}

impl Backend {
    /// Of a drive without the kernel what it says of its health.
    pub(crate) fn vitals(&self) -> Option<NvmeVitals> {
        match self {
            Self::Nvme(nvme) => Some(nvme.vitals()),
            Self::Fault(fault) => fault.vitals(),
            Self::Uring(_) | Self::Memory(_) => None,
            #[cfg(ogee_sim)]
            Self::Simulated(_) => None,
        }
    }

    pub(crate) async fn read(&self, request: Request<'_>) -> Result<ReadBuffer, DeviceError> {
        match self {
            Self::Uring(uring) => uring.read(request).await,
            Self::Nvme(nvme) => nvme.read(request).await,
            Self::Memory(memory) => Ok(memory.read(request).await),
            Self::Fault(fault) => fault.read(request).await,
            #[cfg(ogee_sim)]
            Self::Simulated(disk) => disk.read(request).await,
        }
    }

    pub(crate) async fn write(
        &self,
        request: Request<'_>,
        data: Gather,
    ) -> Result<(), DeviceError> {
        match self {
            Self::Uring(uring) => uring.write(request, data).await,
            Self::Nvme(nvme) => nvme.write(request, data).await,
            Self::Memory(memory) => {
                memory.write(request, data).await;
                Ok(())
            }
            Self::Fault(fault) => fault.write(request, data).await,
            #[cfg(ogee_sim)]
            Self::Simulated(disk) => disk.write(request, data.into_buffer(), false).await,
        }
    }

    pub(crate) async fn write_durable(
        &self,
        request: Request<'_>,
        data: Gather,
    ) -> Result<(), DeviceError> {
        match self {
            Self::Uring(uring) => uring.write_durable(request, data).await,
            Self::Nvme(nvme) => nvme.write_durable(request, data).await,
            Self::Memory(memory) => {
                memory.write_durable(request, data).await;
                Ok(())
            }
            Self::Fault(fault) => fault.write_durable(request, data).await,
            #[cfg(ogee_sim)]
            Self::Simulated(disk) => disk.write(request, data.into_buffer(), true).await,
        }
    }

    pub(crate) async fn flush(&self, request: Request<'_>) -> Result<(), DeviceError> {
        match self {
            Self::Uring(uring) => uring.flush(request).await,
            Self::Nvme(nvme) => nvme.flush(request).await,
            Self::Memory(memory) => {
                memory.flush().await;
                Ok(())
            }
            Self::Fault(fault) => fault.flush(request).await,
            #[cfg(ogee_sim)]
            Self::Simulated(disk) => disk.flush(request).await,
        }
    }

    pub(crate) async fn discard(&self, request: Request<'_>) -> Result<(), DeviceError> {
        match self {
            Self::Uring(uring) => uring.discard(request).await,
            Self::Nvme(nvme) => nvme.discard(request).await,
            Self::Memory(memory) => {
                memory.discard(request).await;
                Ok(())
            }
            Self::Fault(fault) => fault.discard(request).await,
            #[cfg(ogee_sim)]
            Self::Simulated(disk) => disk.discard(request).await,
        }
    }
}
