//! Why a device could not be opened or a request could not be served.

use crate::limit::{IO_ALIGNMENT, IO_LEN_MAX};
use crate::nvme::NvmeFault;
use crate::operation::Operation;
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_spdk::SpdkError;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a device refused or failed.
///
/// Cloneable, because one failed batch fails every request in it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DeviceError {
    /// Offset or length is not a multiple of [`IO_ALIGNMENT`]. A bug of the caller.
    #[error(
        "{operation} of {len} at {offset} on device {device} is unaligned: \
         both must be multiples of {IO_ALIGNMENT}"
    )]
    Unaligned {
        /// The device.
        device: Arc<str>,
        /// What was asked.
        operation: Operation,
        /// Start of the range.
        offset: ByteOffset,
        /// Length of the range.
        len: ByteLen,
    },
    /// The length is zero or past [`IO_LEN_MAX`]. A bug of the caller.
    #[error(
        "{operation} of {len} at {offset} on device {device}: \
         a request must have 1 to {IO_LEN_MAX} bytes"
    )]
    Length {
        /// The device.
        device: Arc<str>,
        /// What was asked.
        operation: Operation,
        /// Start of the range.
        offset: ByteOffset,
        /// Length of the range.
        len: ByteLen,
    },
    /// The range ends past the device.
    #[error(
        "{operation} of {len} at {offset} passes the end of device {device} at {device_len}: \
         has it shrunk since it was formatted?"
    )]
    PastEnd {
        /// The device.
        device: Arc<str>,
        /// What was asked.
        operation: Operation,
        /// Start of the range.
        offset: ByteOffset,
        /// Length of the range.
        len: ByteLen,
        /// Length of the device.
        device_len: ByteLen,
    },
    /// The file system under a file device is full.
    #[error(
        "{operation} of {len} at {offset} on device {device} found no space: \
         free space on the file system that holds it"
    )]
    NoSpace {
        /// The device.
        device: Arc<str>,
        /// What was asked.
        operation: Operation,
        /// Start of the range.
        offset: ByteOffset,
        /// Length of the range.
        len: ByteLen,
    },
    /// The system or the hardware failed the request.
    #[error(
        "{operation} of {len} at {offset} on device {device} failed: {source}; \
         look into the kernel log, and drain and replace the device if it is failing"
    )]
    Io {
        /// The device.
        device: Arc<str>,
        /// What was asked.
        operation: Operation,
        /// Start of the range.
        offset: ByteOffset,
        /// Length of the range.
        len: ByteLen,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// An NVMe drive failed the request, or has ended.
    #[error("{operation} of {len} at {offset} on device {device} failed: {source}")]
    Nvme {
        /// The device.
        device: Arc<str>,
        /// What was asked.
        operation: Operation,
        /// Start of the range.
        offset: ByteOffset,
        /// Length of the range.
        len: ByteLen,
        /// What happened.
        source: NvmeFault,
    },
    /// An NVMe drive cannot be taken.
    #[error("device {device} cannot be opened: {source}")]
    NvmeOpen {
        /// The device.
        device: Arc<str>,
        /// Why.
        source: Arc<SpdkError>,
    },
    /// Another drive than expected is at the address.
    #[error(
        "device {device} has serial number {found}, not {wanted}: addresses move when cards are added; find the drive's \
         (`ogee doctor --check nvme-driver`), and correct `pci`"
    )]
    NvmeSerial {
        /// The device.
        device: Arc<str>,
        /// As found.
        found: Arc<str>,
        /// As configured.
        wanted: Arc<str>,
    },
    /// The namespace has a format that is not used here.
    #[error(
        "device {device} is formatted with sectors of {sector_size} bytes, {metadata_size} bytes of metadata and protection \
         information of type {protection_type}: Ogee has checksums of its own and wants 512 or 4096 and no metadata; \
         `nvme id-ns -H` shows the formats, `nvme format --lbaf=…` sets one and erases the drive"
    )]
    NvmeFormat {
        /// The device.
        device: Arc<str>,
        /// Bytes of a sector.
        sector_size: u32,
        /// Bytes beside it.
        metadata_size: u32,
        /// Type of protection information; 0: none.
        protection_type: u32,
    },
    /// Nothing stands at the path.
    #[error("device {path} does not exist: check the path, or create the file with a size")]
    Missing {
        /// As given.
        path: PathBuf,
    },
    /// The path is a directory.
    #[error("device {path} is a directory: name a file or a block device in it")]
    Directory {
        /// As given.
        path: PathBuf,
    },
    /// The path is neither a file nor a block device.
    #[error("device {path} is neither a regular file nor a block device")]
    Kind {
        /// As given.
        path: PathBuf,
    },
    /// The device's own length is zero or not a whole number of blocks.
    #[error(
        "device {path} has {len}: a device must have a multiple of {IO_ALIGNMENT} bytes, \
         and some; truncate the file to such a length or use another device"
    )]
    Size {
        /// As given.
        path: PathBuf,
        /// Its length.
        len: ByteLen,
    },
    /// A file was to be created with a length, but one of another length is there.
    #[error(
        "device {path} exists with {found}, not {wanted}: \
         give its own size, or remove the file if nothing on it is needed"
    )]
    SizeDiffers {
        /// As given.
        path: PathBuf,
        /// Length of the file that is there.
        found: ByteLen,
        /// Length asked for.
        wanted: ByteLen,
    },
    /// The block device, or a partition of it, carries a mounted file system.
    #[error("device {path} is mounted at {mount_point}: unmount it, or use another device")]
    Mounted {
        /// As given.
        path: PathBuf,
        /// Where.
        mount_point: PathBuf,
    },
    /// Another Ogee process has claimed the device.
    #[error(
        "device {path} is in use by {}: stop it, or give each chunkserver its own devices",
        Holder(*holder)
    )]
    InUse {
        /// As given.
        path: PathBuf,
        /// Process id of the holder, where the system tells.
        holder: Option<u32>,
    },
    /// The kernel has claimed the block device.
    #[error(
        "device {path} is held by the kernel (swap, RAID, LVM, a mount elsewhere) or by a program \
         that opened it exclusively: release it there, or use another device"
    )]
    Busy {
        /// As given.
        path: PathBuf,
    },
    /// The path could not be opened or created.
    #[error("device {path} cannot be opened: {source}; check its permissions and its file system")]
    Open {
        /// As given.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
}

/// Words for the process that holds a device.
struct Holder(Option<u32>);

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "process {pid}"),
            None => f.write_str("another process"),
        }
    }
}

impl DeviceError {
    pub(crate) fn open(path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Open {
            path: path.into(),
            source: Arc::new(source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::DeviceError;

    const fn assert_send<T: Send + Sync + Clone>() {}

    /// Errors leave the shard in reports; they also must stay small, since every request's result
    /// has room for one.
    #[test]
    fn errors_are_small_and_may_leave_the_shard() {
        assert_send::<DeviceError>();
        assert!(
            size_of::<DeviceError>() <= 64,
            "{}",
            size_of::<DeviceError>()
        );
    }

    #[test]
    fn holder_is_named_if_known() {
        let error = |holder| {
            DeviceError::InUse {
                path: "/dev/x".into(),
                holder,
            }
            .to_string()
        };
        assert!(error(Some(71)).contains("in use by process 71:"));
        assert!(error(None).contains("in use by another process:"));
    }
}
