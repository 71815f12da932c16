//! The record of requests under way, in memory that outlives this process.
//!
//! *Place*: beside `ring`, in a file that the VM's process keeps and gives to whoever serves the disk next.
//! *Owner*: one queue for its part. *Invariants*: a request is marked before it is carried out, and unmarked after
//! its answer is published; in between a process that dies leaves marks, and the next one carries those requests
//! out again, in the order in which they were taken. Answers that were published when it died count as given: the
//! batch is linked before the ring's index moves, and cleared after.
//! *On failure*: a record that makes no sense stops the ring; nothing is carried out on its word.
//!
//! Layout: vhost-user specification, "Inflight I/O tracking", split virtqueues.

use super::fault::RingFault;
use super::memory::map_shared;
use super::ring::Used;
use crate::limit::{QUEUE_SIZE_MAX, QUEUES_MAX};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use vm_memory::mmap::MmapRegion;
use vm_memory::{Bytes, VolatileMemory, VolatileSlice};

const HEADER_LEN: usize = 16;
const ENTRY_LEN: usize = 16;
/// Parts begin on lines of the cache of their own.
const PART_ALIGNMENT: usize = 64;
const VERSION: u16 = 1;

// Of the header.
const VERSION_AT: usize = 8;
const SIZE_AT: usize = 10;
const BATCH_HEAD_AT: usize = 12;
const USED_INDEX_AT: usize = 14;
// Of an entry.
const MARK_AT: usize = 0;
const NEXT_AT: usize = 6;
const COUNTER_AT: usize = 8;

/// The shared memory of all queues of a disk.
#[derive(Clone)]
pub(super) struct InflightMemory {
    region: Arc<MmapRegion<()>>,
    queues: u16,
    queue_size: u16,
}

/// Bytes of a queue's part.
const fn part_len(queue_size: u16) -> usize {
    (HEADER_LEN + ENTRY_LEN * queue_size as usize).next_multiple_of(PART_ALIGNMENT)
}

fn check(queues: u16, queue_size: u16) -> io::Result<()> {
    if (1..=QUEUES_MAX).contains(&queues) && (1..=QUEUE_SIZE_MAX).contains(&queue_size) {
        return Ok(());
    }
    let text = format!(
        "a record of {queues} queues of {queue_size}: at most {QUEUES_MAX} of {QUEUE_SIZE_MAX}"
    );
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

impl InflightMemory {
    /// Bytes for so many queues.
    pub(super) fn len(queues: u16, queue_size: u16) -> usize {
        usize::from(queues) * part_len(queue_size)
    }

    /// New memory, all zeros, and the file that it is of.
    pub(super) fn create(queues: u16, queue_size: u16) -> io::Result<(Self, File)> {
        check(queues, queue_size)?;
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = File::from(memfd_create(c"ogee-inflight", flags)?);
        file.set_len(Self::len(queues, queue_size) as u64)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        let memory = Self::map(file.try_clone()?, 0, queues, queue_size)?;
        Ok((memory, file))
    }

    /// The memory that a process before us, or we, made.
    pub(super) fn map(file: File, offset: u64, queues: u16, queue_size: u16) -> io::Result<Self> {
        check(queues, queue_size)?;
        let region = map_shared(file, offset, Self::len(queues, queue_size));
        let region = Arc::new(region.map_err(io::Error::other)?);
        Ok(Self {
            region,
            queues,
            queue_size,
        })
    }

    /// The part of one queue.
    pub(super) fn queue(&self, index: u16) -> Result<Inflight, RingFault> {
        if index >= self.queues {
            let what = "it has no part for this queue";
            return Err(RingFault::Inflight { what });
        }
        Ok(Inflight {
            region: Arc::clone(&self.region),
            start: usize::from(index) * part_len(self.queue_size),
            queue_size: self.queue_size,
            counter: 0,
        })
    }
}

/// One queue's part.
pub(super) struct Inflight {
    region: Arc<MmapRegion<()>>,
    start: usize,
    queue_size: u16,
    /// Of the request taken last.
    counter: u64,
}

impl Inflight {
    /// Heads that were taken and not answered, oldest first; `None` if nobody has used it yet. `used_index` is the
    /// ring's, in guest memory.
    pub(super) fn open(
        &mut self,
        size: u16,
        used_index: u16,
    ) -> Result<Option<Vec<u16>>, RingFault> {
        let damaged = |what| Err(RingFault::Inflight { what });
        if size > self.queue_size {
            return damaged("the ring is larger than it");
        }
        match self.load_u16(VERSION_AT)? {
            0 => {
                self.store_u16(SIZE_AT, self.queue_size)?;
                self.store_u16(USED_INDEX_AT, used_index)?;
                self.store_u16(VERSION_AT, VERSION)?;
                return Ok(None);
            }
            VERSION => {}
            _ => return damaged("its version is unknown"),
        }
        if self.load_u16(SIZE_AT)? != self.queue_size {
            return damaged("its size is another one");
        }
        self.settle(used_index)?;
        let mut marked = Vec::new();
        for head in 0..self.queue_size {
            if self.load_u8(entry(head) + MARK_AT)? == 0 {
                continue;
            }
            if head >= size {
                return damaged("a request outside of the ring is under way");
            }
            let counter = self.load_u64(entry(head) + COUNTER_AT)?;
            self.counter = self.counter.max(counter);
            marked.push((counter, head));
        }
        marked.sort_unstable();
        Ok(Some(marked.into_iter().map(|(_, head)| head).collect()))
    }

    /// Clears the marks of a batch that was published by a process that then died.
    fn settle(&self, used_index: u16) -> Result<(), RingFault> {
        let published = used_index.wrapping_sub(self.load_u16(USED_INDEX_AT)?);
        if published > self.queue_size {
            let what = "more was answered than can be under way";
            return Err(RingFault::Inflight { what });
        }
        let mut head = self.load_u16(BATCH_HEAD_AT)?;
        for _ in 0..published {
            if head >= self.queue_size {
                let what = "its last batch leads outside of it";
                return Err(RingFault::Inflight { what });
            }
            self.store_u8(entry(head) + MARK_AT, 0)?;
            head = self.load_u16(entry(head) + NEXT_AT)?;
        }
        fence(Ordering::SeqCst);
        self.store_u16(USED_INDEX_AT, used_index)
    }

    /// Before a request is carried out.
    pub(super) fn mark(&mut self, head: u16) -> Result<(), RingFault> {
        self.counter += 1;
        self.store_u64(entry(head) + COUNTER_AT, self.counter)?;
        fence(Ordering::SeqCst);
        self.store_u8(entry(head) + MARK_AT, 1)
    }

    /// Before answers are published.
    pub(super) fn link(&self, answered: &[Used]) -> Result<(), RingFault> {
        for used in answered {
            let last = self.load_u16(BATCH_HEAD_AT)?;
            self.store_u16(entry(used.head) + NEXT_AT, last)?;
            self.store_u16(BATCH_HEAD_AT, used.head)?;
        }
        fence(Ordering::SeqCst);
        Ok(())
    }

    /// After they are.
    pub(super) fn clear(&self, answered: &[Used], used_index: u16) -> Result<(), RingFault> {
        fence(Ordering::SeqCst);
        for used in answered {
            self.store_u8(entry(used.head) + MARK_AT, 0)?;
        }
        fence(Ordering::SeqCst);
        self.store_u16(USED_INDEX_AT, used_index)
    }

    fn slice(&self) -> Result<VolatileSlice<'_, ()>, RingFault> {
        let len = part_len(self.queue_size);
        let what = "it is shorter than it was";
        let slice = VolatileMemory::get_slice(&*self.region, self.start, len);
        slice.map_err(|_| RingFault::Inflight { what })
    }

    fn load_u8(&self, at: usize) -> Result<u8, RingFault> {
        self.slice()?.load(at, Ordering::Acquire).map_err(outside)
    }

    fn load_u16(&self, at: usize) -> Result<u16, RingFault> {
        let value = self.slice()?.load(at, Ordering::Acquire);
        value.map(u16::from_le).map_err(outside)
    }

    fn load_u64(&self, at: usize) -> Result<u64, RingFault> {
        let value = self.slice()?.load(at, Ordering::Acquire);
        value.map(u64::from_le).map_err(outside)
    }

    fn store_u8(&self, at: usize, value: u8) -> Result<(), RingFault> {
        let stored = self.slice()?.store(value, at, Ordering::Release);
        stored.map_err(outside)
    }

    fn store_u16(&self, at: usize, value: u16) -> Result<(), RingFault> {
        let stored = self.slice()?.store(value.to_le(), at, Ordering::Release);
        stored.map_err(outside)
    }

    fn store_u64(&self, at: usize, value: u64) -> Result<(), RingFault> {
        let stored = self.slice()?.store(value.to_le(), at, Ordering::Release);
        stored.map_err(outside)
    }
}

/// Where the entry of a head begins.
fn entry(head: u16) -> usize {
    HEADER_LEN + ENTRY_LEN * usize::from(head)
}

fn outside(_error: vm_memory::VolatileMemoryError) -> RingFault {
    let what = "an entry lies outside of it";
    RingFault::Inflight { what }
}

#[cfg(test)]
#[path = "inflight_tests.rs"]
mod tests;
