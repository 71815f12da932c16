//! Files and block devices with direct I/O.
//!
//! **Place.** Under `device`. **Owner.** The executor that opened the file; clones share one
//! descriptor.
//!
//! **Invariants.** Reads and writes go past the page cache; offsets and lengths are multiples of
//! [`DIRECT_IO_UNIT`], checked here. Nothing is durable before `fdatasync`, unless the file was
//! opened with `dsync`.
//!
//! **Failure.** Errors of the system with their code; a read past the end is `UnexpectedEof`. A
//! request whose future is dropped still runs to its end.

use std::io;
use std::path::Path;

use crate::buffer::{Buffer, Gather, ReadBuffer};
use crate::engine::{self, OpenMode};
use crate::limit::{DIRECT_IO_UNIT, WRITE_PIECES_MAX, ZERO_FILL_CHUNK};

/// How to open a file.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenOptions {
    /// Create it, with mode 0600, if it does not exist.
    pub create: bool,
    /// Every write is durable when it completes (`O_DSYNC`).
    pub dsync: bool,
    /// Refuse writes.
    pub read_only: bool,
}

/// An offset or length that direct I/O cannot address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("direct I/O of {len} bytes at {offset}: both must be multiples of {DIRECT_IO_UNIT}")]
pub struct Unaligned {
    /// Where the request starts.
    pub offset: u64,
    /// How long it is.
    pub len: u64,
}

/// An open file or block device.
#[derive(Clone)]
pub struct DmaFile {
    file: engine::File,
}

impl DmaFile {
    /// Opens `path`.
    ///
    /// # Errors
    /// `Unsupported`, naming the path and the remedy, if the file system refuses direct I/O.
    pub async fn open(path: impl AsRef<Path>, options: OpenOptions) -> io::Result<Self> {
        let OpenOptions {
            create,
            dsync,
            read_only,
        } = options;
        let mode = OpenMode {
            create,
            dsync,
            read_only,
        };
        Ok(Self {
            file: engine::File::open(path.as_ref(), mode).await?,
        })
    }

    /// Reads exactly `len` bytes at `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file is shorter.
    pub async fn read_at(&self, offset: u64, len: usize) -> io::Result<ReadBuffer> {
        check(offset, len as u64)?;
        Ok(ReadBuffer::from_device(
            self.file.read_at(offset, len).await?,
        ))
    }

    /// Writes all of `data` at `offset`.
    ///
    /// # Errors
    /// `WriteZero` if the device took only a part; then any prefix may have been written.
    pub async fn write_at(&self, offset: u64, data: impl Into<Gather>) -> io::Result<()> {
        let mut data = data.into();
        check(offset, data.len() as u64)?;
        if data.count() > WRITE_PIECES_MAX {
            // The system takes no more in one call, and two would be two writes.
            data = data.into_buffer().into();
        }
        match data.into_parts() {
            Ok(buffer) => {
                let (memory, len) = buffer.into_memory();
                self.file.write_at(offset, memory, len).await
            }
            Err(pieces) => self.file.write_pieces(offset, pieces).await,
        }
    }

    /// Makes all completed writes durable.
    ///
    /// # Errors
    /// After an error it is unknown which writes are durable: the file must not be used further.
    pub async fn fdatasync(&self) -> io::Result<()> {
        self.file.fdatasync().await
    }

    /// Gives the range back to the device; it reads as zeros afterwards.
    ///
    /// # Errors
    /// `EOPNOTSUPP` where the file system or device has no such operation.
    pub async fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        check(offset, len)?;
        self.file.discard(offset, len).await
    }

    /// Sets the length; growth is a hole.
    ///
    /// # Errors
    /// On block devices.
    pub async fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len).await
    }

    /// Length of the file or block device.
    ///
    /// # Errors
    /// Of the system.
    pub async fn len(&self) -> io::Result<u64> {
        self.file.len().await
    }

    /// Writes real zeros over the range, so that later durable writes convert no extents, then
    /// makes them durable. `progress` hears the bytes done so far. Not meant for a file opened with
    /// `dsync`, where it works but flushes every chunk.
    ///
    /// # Errors
    /// As `write_at`; what was reported done stays written.
    pub async fn preallocate_zeroed(
        &self,
        offset: u64,
        len: u64,
        mut progress: impl FnMut(u64),
    ) -> io::Result<()> {
        check(offset, len)?;
        let mut done = 0;
        while done < len {
            let rest = usize::try_from(len - done).unwrap_or(usize::MAX);
            let chunk = rest.min(ZERO_FILL_CHUNK);
            self.write_at(offset + done, Buffer::zeroed(chunk)).await?;
            done += chunk as u64;
            progress(done);
        }
        self.fdatasync().await
    }
}

fn check(offset: u64, len: u64) -> io::Result<()> {
    if offset.is_multiple_of(DIRECT_IO_UNIT) && len.is_multiple_of(DIRECT_IO_UNIT) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        Unaligned { offset, len },
    ))
}
