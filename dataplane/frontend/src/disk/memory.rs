//! A disk in memory, for tests.
//!
//! *Place*: stands in for a volume. *Owner*: one shard; clones are the same disk.
//! *Invariants*: the contract of `Disk`: a write lands whole, at one moment between its start and
//! its return. With a delay set, that moment is random, so races of its users come to light.
//! *On failure*: as told by [`MemoryDisk::fail_reads`] and [`MemoryDisk::fail_writes`].

use super::contract::{BlockRun, Disk};
use super::error::DiskError;
use ogee_proto::limit::BLOCK_SIZE;
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::channel::watch;
use ogee_runtime::{Payload, Target, random_u64, sleep};
use rustc_hash::FxHashMap;
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

/// Reads come back in pieces of at most this length, as those of a striped volume do.
const PIECE_LEN: usize = 64 << 10;

/// How requests fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemoryFault {
    /// As of a broken medium.
    Medium,
    /// As of a full one.
    NoSpace,
}

/// What was asked of the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemoryStats {
    /// Reads.
    pub reads: u64,
    /// Of those, the ones into memory that was named.
    pub directs: u64,
    /// Writes.
    pub writes: u64,
    /// Discards.
    pub discards: u64,
    /// Write-zeroes.
    pub zeroes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Requests under way.
    pub inflight: u64,
    /// Most that ever were.
    pub inflight_max: u64,
}

struct Inner {
    blocks: RefCell<FxHashMap<u64, Box<[u8]>>>,
    size: watch::Sender<ByteLen>,
    is_read_only: bool,
    delay_max: Cell<Duration>,
    read_fault: Cell<Option<MemoryFault>>,
    write_fault: Cell<Option<MemoryFault>>,
    stats: Cell<MemoryStats>,
}

/// The disk. Clones share it.
#[derive(Clone)]
pub struct MemoryDisk {
    inner: Rc<Inner>,
}

impl MemoryDisk {
    /// A disk of zeros.
    #[must_use]
    pub fn new(size: ByteLen) -> Self {
        Self::make(size, false)
    }

    /// A disk of zeros that nobody may write.
    #[must_use]
    pub fn read_only(size: ByteLen) -> Self {
        Self::make(size, true)
    }

    fn make(size: ByteLen, is_read_only: bool) -> Self {
        Self {
            inner: Rc::new(Inner {
                blocks: RefCell::default(),
                size: watch::channel(size).0,
                is_read_only,
                delay_max: Cell::default(),
                read_fault: Cell::default(),
                write_fault: Cell::default(),
                stats: Cell::default(),
            }),
        }
    }

    /// From now on each request pauses up to `max` before and after it acts. Zero: not at all.
    pub fn set_delay(&self, max: Duration) {
        self.inner.delay_max.set(max);
    }

    /// From now on reads fail so, or work again.
    pub fn fail_reads(&self, fault: Option<MemoryFault>) {
        self.inner.read_fault.set(fault);
    }

    /// From now on mutations and flushes fail so, or work again.
    pub fn fail_writes(&self, fault: Option<MemoryFault>) {
        self.inner.write_fault.set(fault);
    }

    /// Changes the size; what lies beyond is kept.
    pub fn resize(&self, size: ByteLen) {
        self.inner.size.send_replace(size);
    }

    /// What was asked so far.
    #[must_use]
    pub fn stats(&self) -> MemoryStats {
        self.inner.stats.get()
    }

    /// A copy of a range of blocks, as of now.
    #[must_use]
    pub fn image(&self, offset: ByteOffset, len: ByteLen) -> Vec<u8> {
        let blocks = self.inner.blocks.borrow();
        let mut image = Vec::with_capacity(len.as_usize());
        for block in block_range(offset, len) {
            match blocks.get(&block) {
                Some(data) => image.extend_from_slice(data),
                None => image.resize(image.len() + BLOCK_SIZE, 0),
            }
        }
        image
    }

    fn count(&self, change: impl FnOnce(&mut MemoryStats)) {
        let mut stats = self.inner.stats.get();
        change(&mut stats);
        self.inner.stats.set(stats);
    }

    fn check(&self, offset: ByteOffset, len: ByteLen) -> Result<(), DiskError> {
        if !(offset.is_multiple_of(BLOCK_SIZE) && len.is_multiple_of(BLOCK_SIZE)) {
            return Err(DiskError::Unaligned { offset, len });
        }
        let size = *self.inner.size.borrow();
        let end = offset.checked_add(len);
        if end.is_none_or(|end| end.get() > size.get()) {
            return Err(DiskError::OutOfRange { offset, len, size });
        }
        Ok(())
    }

    async fn pause(&self) {
        let max = self.inner.delay_max.get();
        let Ok(max @ 1..) = u64::try_from(max.as_nanos()) else {
            return;
        };
        sleep(Duration::from_nanos(random_u64() % max)).await;
    }

    /// Runs `act` at a random moment, unless a fault is set.
    async fn perform<T>(
        &self,
        offset: ByteOffset,
        fault: &Cell<Option<MemoryFault>>,
        act: impl FnOnce() -> T,
    ) -> Result<T, DiskError> {
        self.count(|stats| {
            stats.inflight += 1;
            stats.inflight_max = stats.inflight_max.max(stats.inflight);
        });
        self.pause().await;
        let outcome = match fault.get() {
            Some(MemoryFault::Medium) => Err(DiskError::Medium { offset }),
            Some(MemoryFault::NoSpace) => Err(DiskError::NoSpace),
            None => Ok(act()),
        };
        self.pause().await;
        self.count(|stats| stats.inflight -= 1);
        outcome
    }

    async fn mutate(
        &self,
        offset: ByteOffset,
        len: ByteLen,
        act: impl FnOnce(&mut FxHashMap<u64, Box<[u8]>>),
    ) -> Result<(), DiskError> {
        self.check(offset, len)?;
        if self.inner.is_read_only {
            return Err(DiskError::ReadOnly);
        }
        let act = || act(&mut self.inner.blocks.borrow_mut());
        self.perform(offset, &self.inner.write_fault, act).await
    }
}

fn block_range(offset: ByteOffset, len: ByteLen) -> Range<u64> {
    let first = offset.get() / BLOCK_SIZE as u64;
    first..first + len.get() / BLOCK_SIZE as u64
}

impl Disk for MemoryDisk {
    fn size(&self) -> ByteLen {
        *self.inner.size.borrow()
    }

    fn read_only(&self) -> bool {
        self.inner.is_read_only
    }

    fn is_write_through(&self) -> bool {
        false
    }

    fn resized(&self) -> watch::Receiver<ByteLen> {
        self.inner.size.subscribe()
    }

    async fn read(&self, offset: ByteOffset, len: ByteLen) -> Result<Vec<Payload>, DiskError> {
        self.check(offset, len)?;
        self.count(|stats| stats.reads += 1);
        let copy = || Payload::from(self.image(offset, len));
        let all = self.perform(offset, &self.inner.read_fault, copy).await?;
        let starts = (0..all.len()).step_by(PIECE_LEN);
        Ok(starts
            .map(|start| all.slice(start..all.len().min(start + PIECE_LEN)))
            .collect())
    }

    async fn read_to(&self, offset: ByteOffset, into: &Target) -> Result<(), DiskError> {
        self.count(|stats| stats.directs += 1);
        let pieces = self.read(offset, ByteLen::from_usize(into.len())).await?;
        into.fill(&pieces);
        Ok(())
    }

    async fn write(&self, offset: ByteOffset, data: Payload) -> Result<(), DiskError> {
        let len = ByteLen::from_usize(data.len());
        self.count(|stats| stats.writes += 1);
        self.mutate(offset, len, |blocks| {
            let numbers = block_range(offset, len);
            for (block, bytes) in numbers.zip(data.chunks_exact(BLOCK_SIZE)) {
                blocks.insert(block, bytes.into());
            }
        })
        .await
    }

    async fn write_zeroes(
        &self,
        offset: ByteOffset,
        len: ByteLen,
        may_unmap: bool,
    ) -> Result<(), DiskError> {
        self.count(|stats| stats.zeroes += 1);
        self.mutate(offset, len, |blocks| {
            for block in block_range(offset, len) {
                match may_unmap {
                    true => blocks.remove(&block),
                    false => blocks.insert(block, vec![0; BLOCK_SIZE].into()),
                };
            }
        })
        .await
    }

    async fn discard(&self, offset: ByteOffset, len: ByteLen) -> Result<(), DiskError> {
        self.count(|stats| stats.discards += 1);
        self.mutate(offset, len, |blocks| {
            for block in block_range(offset, len) {
                blocks.remove(&block);
            }
        })
        .await
    }

    async fn flush(&self) -> Result<(), DiskError> {
        self.count(|stats| stats.flushes += 1);
        self.perform(ByteOffset::ZERO, &self.inner.write_fault, || ())
            .await
    }

    async fn block_status(
        &self,
        offset: ByteOffset,
        len: ByteLen,
    ) -> Result<Vec<BlockRun>, DiskError> {
        self.check(offset, len)?;
        let blocks = self.inner.blocks.borrow();
        let mut runs: Vec<BlockRun> = Vec::new();
        for block in block_range(offset, len) {
            let is_allocated = blocks.contains_key(&block);
            match runs.last_mut() {
                Some(run) if run.is_allocated == is_allocated => {
                    run.len = ByteLen::new(run.len.get() + BLOCK_SIZE as u64);
                }
                _ => runs.push(BlockRun {
                    len: ByteLen::from_usize(BLOCK_SIZE),
                    is_allocated,
                }),
            }
        }
        Ok(runs)
    }
}
