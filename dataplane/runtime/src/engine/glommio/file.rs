//! Files with direct I/O on io_uring.
//!
//! **Place.** Under `crate::file`, which checks arguments. **Owner.** The executor that opened it.
//!
//! **Invariants.** Opened for reading and writing (the engine's own `create` is write-only) with
//! `O_DIRECT` set here, because the engine skips it on device nodes. A buffer belongs to the kernel
//! from submission to completion; dropping the future of a request leaves it there until then.
//!
//! **Failure.** Errors carry the system's code. A file system that refuses direct I/O is named at
//! open.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ::glommio::io::{DmaFile, OpenOptions};

use super::error::into_io;
use super::memory::{Memory, ReadMemory};
use super::{sys, warmup};

/// How to open a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OpenMode {
    pub(crate) create: bool,
    pub(crate) dsync: bool,
    pub(crate) read_only: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("{path}: the file system refuses direct I/O; use a block device or a file on ext4 or XFS")]
struct DirectIoRefused {
    path: PathBuf,
}

#[derive(Clone)]
pub(crate) struct File {
    dma: Rc<DmaFile>,
}

impl File {
    pub(crate) async fn open(path: &Path, mode: OpenMode) -> io::Result<Self> {
        warmup::prepare(path).await?;
        let durable = if mode.dsync { libc::O_DSYNC } else { 0 };
        let dma = OpenOptions::new()
            .read(true)
            .write(!mode.read_only)
            .create(mode.create)
            .mode(0o600)
            .custom_flags(libc::O_DIRECT | durable)
            .dma_open(path)
            .await
            .map_err(|error| explain_open(into_io(error), path))?;
        Ok(Self { dma: Rc::new(dma) })
    }

    pub(crate) async fn read_at(&self, offset: u64, len: usize) -> io::Result<ReadMemory> {
        let read = self
            .dma
            .read_at_aligned(offset, len)
            .await
            .map_err(into_io)?;
        if read.len() < len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(ReadMemory(read))
    }

    pub(crate) async fn write_at(&self, offset: u64, data: Memory, len: usize) -> io::Result<()> {
        let Some(buffer) = data.into_dma(len) else {
            return Ok(());
        };
        let written = self.dma.write_at(buffer, offset).await.map_err(into_io)?;
        if written < len {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(())
    }

    pub(crate) async fn fdatasync(&self) -> io::Result<()> {
        self.dma.fdatasync().await.map_err(into_io)
    }

    pub(crate) async fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.dma.deallocate(offset, len).await.map_err(into_io)
    }

    pub(crate) async fn truncate(&self, len: u64) -> io::Result<()> {
        self.dma.truncate(len).await.map_err(into_io)
    }

    /// Size of the file or block device. It does not suspend: seeking is a look into the inode.
    pub(crate) async fn len(&self) -> io::Result<u64> {
        sys::seek_end(&*self.dma)
    }
}

/// Opening says which path, and what to do when the file system cannot do direct I/O.
fn explain_open(error: io::Error, path: &Path) -> io::Error {
    if error.raw_os_error() == Some(libc::EINVAL) {
        let refused = DirectIoRefused {
            path: path.to_owned(),
        };
        return io::Error::new(io::ErrorKind::Unsupported, refused);
    }
    error
}
