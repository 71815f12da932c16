//! A request that has passed the checks: what backends receive.

use crate::error::DeviceError;
use crate::limit::{IO_ALIGNMENT, IO_LEN_MAX};
use crate::nvme::NvmeFault;
use crate::operation::Operation;
use ogee_proto::unit::{ByteLen, ByteOffset};
use std::io;
use std::sync::Arc;

/// An operation on a range of a device. One that `checked` returned is aligned and within it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    device: &'a Arc<str>,
    operation: Operation,
    pub(crate) offset: ByteOffset,
    pub(crate) len: ByteLen,
}

impl<'a> Request<'a> {
    /// A request for a range that fits one transfer.
    pub(crate) fn checked(
        device: &'a Arc<str>,
        device_len: ByteLen,
        operation: Operation,
        offset: ByteOffset,
        len: ByteLen,
    ) -> Result<Self, DeviceError> {
        let request = Self {
            device,
            operation,
            offset,
            len,
        };
        request.check_range(device_len)?;
        if len.as_usize() > IO_LEN_MAX {
            return Err(request.bad_length());
        }
        Ok(request)
    }

    /// A discard may be as long as the device: no memory goes with it.
    pub(crate) fn discard(
        device: &'a Arc<str>,
        device_len: ByteLen,
        offset: ByteOffset,
        len: ByteLen,
    ) -> Result<Self, DeviceError> {
        let request = Self {
            device,
            operation: Operation::Discard,
            offset,
            len,
        };
        request.check_range(device_len)?;
        Ok(request)
    }

    /// A flush speaks of the whole device.
    pub(crate) const fn flush(device: &'a Arc<str>, device_len: ByteLen) -> Self {
        let (operation, offset) = (Operation::Flush, ByteOffset::ZERO);
        Self {
            device,
            operation,
            offset,
            len: device_len,
        }
    }

    /// What is asked.
    #[cfg(ogee_sim)]
    pub(crate) const fn operation(&self) -> Operation {
        self.operation
    }

    /// The error for what the system said about this request.
    pub(crate) fn failed(&self, source: io::Error) -> DeviceError {
        let device = Arc::clone(self.device);
        let &Self {
            operation,
            offset,
            len,
            ..
        } = self;
        if source.raw_os_error() == Some(libc::ENOSPC) {
            return DeviceError::NoSpace {
                device,
                operation,
                offset,
                len,
            };
        }
        DeviceError::Io {
            device,
            operation,
            offset,
            len,
            source: Arc::new(source),
        }
    }

    /// The error for what an NVMe drive did with this request.
    pub(crate) fn failed_by_drive(&self, source: NvmeFault) -> DeviceError {
        DeviceError::Nvme {
            device: Arc::clone(self.device),
            operation: self.operation,
            offset: self.offset,
            len: self.len,
            source,
        }
    }

    fn check_range(&self, device_len: ByteLen) -> Result<(), DeviceError> {
        let &Self {
            operation,
            offset,
            len,
            ..
        } = self;
        let device = || Arc::clone(self.device);
        if !offset.is_multiple_of(IO_ALIGNMENT) || !len.is_multiple_of(IO_ALIGNMENT) {
            return Err(DeviceError::Unaligned {
                device: device(),
                operation,
                offset,
                len,
            });
        }
        if len == ByteLen::ZERO {
            return Err(self.bad_length());
        }
        match offset.checked_add(len) {
            Some(end) if end.get() <= device_len.get() => Ok(()),
            _ => Err(DeviceError::PastEnd {
                device: device(),
                operation,
                offset,
                len,
                device_len,
            }),
        }
    }

    fn bad_length(&self) -> DeviceError {
        let &Self {
            operation,
            offset,
            len,
            ..
        } = self;
        DeviceError::Length {
            device: Arc::clone(self.device),
            operation,
            offset,
            len,
        }
    }
}
