//! Files with direct I/O on io_uring.
//!
//! **Place.** Under `crate::file`, which checks arguments. **Owner.** The executor that opened it.
//!
//! **Invariants.** A buffer belongs to the kernel from submission to completion; dropping the future of a request leaves
//! it there until then. A file that is memory itself (tmpfs) has nothing to wait for: it is read and written by plain
//! calls, because its kernel side would hand each request to a thread, and the task goes to the end of the run queue
//! after each.
//!
//! **Failure.** Errors carry the system's code. A file system that refuses direct I/O is named at
//! open.

use std::fs;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use io_uring::{opcode, squeue, types};

use super::driver::Driver;
use super::executor::requeue;
use super::memory::{Memory, ReadMemory};
use super::ring::{Held, HeldPieces};
use super::{blocking, sys};
use crate::buffer::Piece;

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
    descriptor: Rc<OwnedFd>,
    /// The same, if it is memory.
    in_memory: Option<Rc<fs::File>>,
}

impl File {
    pub(crate) async fn open(path: &Path, mode: OpenMode) -> io::Result<Self> {
        let durable = if mode.dsync { libc::O_DSYNC } else { 0 };
        let named = path.to_owned();
        let open = move || {
            let mut options = fs::OpenOptions::new();
            options.read(true).write(!mode.read_only);
            options.create(mode.create).mode(0o600);
            let file = options.custom_flags(libc::O_DIRECT | durable).open(named)?;
            let is_memory = sys::is_memory(&file)?;
            let in_memory = is_memory.then(|| file.try_clone()).transpose()?;
            Ok((OwnedFd::from(file), in_memory))
        };
        let opened = blocking::run(open).await;
        let (descriptor, in_memory) = opened.map_err(|error| explain_open(error, path))?;
        Ok(Self {
            descriptor: Rc::new(descriptor),
            in_memory: in_memory.map(Rc::new),
        })
    }

    pub(crate) async fn read_at(&self, offset: u64, len: usize) -> io::Result<ReadMemory> {
        let memory = Memory::of_transfers(len).unwrap_or_else(|| Memory::new(len));
        let Some(mut buffer) = memory.trimmed(len) else {
            return Ok(ReadMemory::new(None));
        };
        if let Some(file) = &self.in_memory {
            let read = file.read_exact_at(buffer.as_mut_slice(), offset);
            requeue().await;
            return read.map(|()| ReadMemory::new(Some(buffer)));
        }
        let read = opcode::Read::new(self.fd(), buffer.as_mut_slice().as_mut_ptr(), bytes(len)?);
        let read = read.offset(offset).build();
        let (count, buffer) = self.transfer(read, buffer).await;
        if count? < bytes(len)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(ReadMemory::new(buffer))
    }

    pub(crate) async fn write_at(&self, offset: u64, data: Memory, len: usize) -> io::Result<()> {
        let Some(buffer) = data.trimmed(len) else {
            return Ok(());
        };
        if let Some(file) = &self.in_memory {
            let written = file.write_all_at(buffer.as_slice(), offset);
            drop(buffer);
            requeue().await;
            return written;
        }
        let write = opcode::Write::new(self.fd(), buffer.as_slice().as_ptr(), bytes(len)?);
        let (count, _buffer) = self.transfer(write.offset(offset).build(), buffer).await;
        if count? < bytes(len)? {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(())
    }

    pub(crate) async fn write_pieces(&self, offset: u64, pieces: Vec<Piece>) -> io::Result<()> {
        if let Some(file) = &self.in_memory {
            let written = write_all(file, offset, &pieces);
            drop(pieces);
            requeue().await;
            return written;
        }
        let len = pieces.iter().map(|piece| piece.bytes().len()).sum();
        let held = HeldPieces::new(pieces);
        let slices = held.slices();
        let count = bytes(slices.len())?;
        let write = opcode::Writev::new(self.fd(), slices.as_ptr(), count);
        let write = write.offset(offset).build();
        let held = Held::Pieces { _held: held };
        if self.operate(write, held).await.0? < bytes(len)? {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(())
    }

    pub(crate) async fn fdatasync(&self) -> io::Result<()> {
        let sync = opcode::Fsync::new(self.fd()).flags(types::FsyncFlags::DATASYNC);
        self.operate(sync.build(), Held::Nothing).await.0.map(drop)
    }

    pub(crate) async fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        let discard = opcode::Fallocate::new(self.fd(), len);
        let discard = discard.offset(offset).mode(punch).build();
        self.operate(discard, Held::Nothing).await.0.map(drop)
    }

    pub(crate) async fn truncate(&self, len: u64) -> io::Result<()> {
        let file = fs::File::from(self.descriptor.try_clone()?);
        blocking::run(move || file.set_len(len)).await
    }

    /// Size of the file or block device. It does not suspend: seeking is a look into the inode.
    pub(crate) async fn len(&self) -> io::Result<u64> {
        sys::seek_end(&*self.descriptor)
    }

    fn fd(&self) -> types::Fd {
        types::Fd(self.descriptor.as_raw_fd())
    }

    /// Reads into `buffer`, or writes from it, as the entry says.
    async fn transfer(
        &self,
        entry: squeue::Entry,
        buffer: Memory,
    ) -> (io::Result<u32>, Option<Memory>) {
        let (result, held) = self.operate(entry, Held::Buffer(buffer)).await;
        match held {
            Held::Buffer(buffer) => (result, Some(buffer)),
            Held::Nothing | Held::Pieces { .. } => (result, None),
        }
    }

    async fn operate(&self, entry: squeue::Entry, held: Held) -> (io::Result<u32>, Held) {
        let driver = Driver::current();
        let descriptor = Some(Rc::clone(&self.descriptor));
        // SAFETY: the entry names this descriptor and, if any memory, that of the buffer or of the list of pieces in
        // `held`, which does not move with its owner, and those pieces' own.
        let mut operation = unsafe { driver.ring().start(entry, held, descriptor) };
        poll_fn(|cx| operation.poll(cx)).await
    }
}

fn write_all(file: &fs::File, mut offset: u64, pieces: &[Piece]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> =
        (pieces.iter().map(Piece::bytes).map(IoSlice::new)).collect();
    let mut rest = &mut slices[..];
    while !rest.is_empty() {
        let count = sys::write_vectored_at(file, rest, offset)?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        offset += count as u64;
        IoSlice::advance_slices(&mut rest, count);
    }
    Ok(())
}

/// Length of one transfer; what the ring cannot count no device takes at once.
fn bytes(len: usize) -> io::Result<u32> {
    u32::try_from(len).map_err(|_| io::ErrorKind::InvalidInput.into())
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
