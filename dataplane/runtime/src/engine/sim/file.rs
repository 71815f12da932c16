//! Files in memory, by path, one set per world.
//!
//! **Place.** Under `crate::file`. **Owner.** The world; files outlive their descriptors, as on disk.
//!
//! **Invariants.** Every request takes a random virtual time, so completions are reordered. A write
//! takes effect at its completion, whole. What a crash loses is not modelled here: `device::fault`
//! does that. **Failure.** As the system: `NotFound`, `UnexpectedEof`, `PermissionDenied`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::memory::{Memory, ReadMemory};
use super::timer::Timer;
use super::world;
use crate::buffer::Piece;

/// Unit of sparseness.
const BLOCK: u64 = 512;

/// Longest virtual duration of a request.
const LATENCY_US_MAX: usize = 100;

/// How to open a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OpenMode {
    pub(crate) create: bool,
    pub(crate) dsync: bool,
    pub(crate) read_only: bool,
}

/// Content of a file.
pub(super) type Disk = Rc<RefCell<Content>>;

#[derive(Debug, Default)]
pub(super) struct Content {
    len: u64,
    blocks: BTreeMap<u64, Box<[u8]>>,
}

impl Content {
    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let end = offset + len as u64;
        if end > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = Vec::with_capacity(len);
        let block_len = usize::try_from(BLOCK).expect("invariant: a block is small");
        for block in offset / BLOCK..end / BLOCK {
            match self.blocks.get(&block) {
                Some(data) => bytes.extend_from_slice(data),
                None => bytes.resize(bytes.len() + block_len, 0),
            }
        }
        Ok(bytes)
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let block_len = usize::try_from(BLOCK).expect("invariant: a block is small");
        for (block, chunk) in (offset / BLOCK..).zip(data.chunks(block_len)) {
            self.blocks.insert(block, chunk.into());
        }
        self.len = self.len.max(offset + data.len() as u64);
    }

    fn discard(&mut self, offset: u64, len: u64) {
        let range = offset / BLOCK..(offset + len) / BLOCK;
        self.blocks.retain(|block, _| !range.contains(block));
    }

    fn truncate(&mut self, len: u64) {
        self.discard(len, self.len.saturating_sub(len));
        self.len = len;
    }
}

/// An open file.
#[derive(Clone)]
pub(crate) struct File {
    content: Disk,
    mode: OpenMode,
}

impl File {
    pub(crate) async fn open(path: &Path, mode: OpenMode) -> io::Result<Self> {
        take_time().await;
        let world = world::current();
        let mut files = world.files.borrow_mut();
        if !mode.create && !files.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let content = Rc::clone(files.entry(path.to_owned()).or_default());
        Ok(Self { content, mode })
    }

    pub(crate) async fn read_at(&self, offset: u64, len: usize) -> io::Result<ReadMemory> {
        take_time().await;
        self.content.borrow().read(offset, len).map(ReadMemory::new)
    }

    pub(crate) async fn write_at(&self, offset: u64, data: Memory, len: usize) -> io::Result<()> {
        self.check_writable()?;
        take_time().await;
        if self.mode.dsync {
            take_time().await;
        }
        self.content
            .borrow_mut()
            .write(offset, &data.as_slice()[..len]);
        Ok(())
    }

    pub(crate) async fn write_pieces(&self, offset: u64, pieces: Vec<Piece>) -> io::Result<()> {
        let len = pieces.iter().map(|piece| piece.bytes().len()).sum();
        let mut joined = Memory::new(len);
        let mut at = 0;
        for piece in &pieces {
            let end = at + piece.bytes().len();
            joined.as_mut_slice()[at..end].copy_from_slice(piece.bytes());
            at = end;
        }
        self.write_at(offset, joined, len).await
    }

    pub(crate) async fn fdatasync(&self) -> io::Result<()> {
        take_time().await;
        Ok(())
    }

    pub(crate) async fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check_writable()?;
        take_time().await;
        self.content.borrow_mut().discard(offset, len);
        Ok(())
    }

    pub(crate) async fn truncate(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        take_time().await;
        self.content.borrow_mut().truncate(len);
        Ok(())
    }

    pub(crate) async fn len(&self) -> io::Result<u64> {
        Ok(self.content.borrow().len)
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.mode.read_only {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(())
    }
}

async fn take_time() {
    let world = world::current();
    let micros = 1 + world.below(LATENCY_US_MAX) as u64;
    Timer::new(world.now() + Duration::from_micros(micros)).await;
}
