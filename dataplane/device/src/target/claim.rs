//! The claim on a device: no two processes use one at a time.

use super::holder;
use crate::error::DeviceError;
use ogee_proto::unit::ByteLen;
use std::fs::{self, File, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// An advisory lock on the inode, and on a block device also the kernel's exclusive claim, which
/// file systems, swap, RAID and LVM take as well. Both end when this is dropped or the process dies.
#[derive(Debug)]
pub(crate) struct Claim {
    locked: File,
    _exclusive: Option<File>,
}

impl Claim {
    /// Claims `resolved`; errors speak of `path`, as the user gave it.
    pub(crate) fn take(path: &Path, resolved: &Path, is_block: bool) -> Result<Self, DeviceError> {
        let open_error = |error| DeviceError::open(path, error);
        let locked = File::options()
            .read(true)
            .write(true)
            .open(resolved)
            .map_err(open_error)?;
        match locked.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(path, &locked)),
            Err(TryLockError::Error(error)) => return Err(open_error(error)),
        }
        let exclusive = if is_block {
            Some(open_exclusive(path, resolved)?)
        } else {
            None
        };
        Ok(Self {
            locked,
            _exclusive: exclusive,
        })
    }

    /// Length of what is claimed. Seeking tells it for files and block devices alike.
    pub(crate) fn len(&mut self) -> io::Result<ByteLen> {
        self.locked.seek(SeekFrom::End(0)).map(ByteLen::new)
    }
}

fn in_use(path: &Path, file: &File) -> DeviceError {
    let holder = fs::read_to_string("/proc/locks")
        .ok()
        .zip(file.metadata().ok())
        .and_then(|(locks, metadata)| holder::find(&locks, metadata.dev(), metadata.ino()));
    DeviceError::InUse {
        path: path.into(),
        holder,
    }
}

/// On a block device `O_EXCL` without `O_CREAT` claims it in the kernel.
fn open_exclusive(path: &Path, resolved: &Path) -> Result<File, DeviceError> {
    let mut options = File::options();
    options.read(true).write(true).custom_flags(libc::O_EXCL);
    options
        .open(resolved)
        .map_err(|error| match error.raw_os_error() {
            Some(libc::EBUSY) => DeviceError::Busy { path: path.into() },
            _ => DeviceError::open(path, error),
        })
}
