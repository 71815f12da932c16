//! A disk that takes any byte range.
//!
//! *Place*: between the protocols and the `Disk`. *Owner*: one shard; clones share the lock table,
//! and whoever else writes the same disk beside them may lose updates within a block.
//! *Invariants*: a write of part of a block leaves the rest of the block as the latest acknowledged
//! write left it, whoever wrote that through this. Reads take no lock: blocks change whole.
//! *On failure*: if reading an edge fails, nothing has been written. A failed write is of unknown
//! extent, block by block.

use super::lock::BlockLocks;
use super::span::Span;
use crate::disk::{BlockRun, Disk, DiskError};
use crate::limit::UNCOPIED_LEN_MIN;
use futures_util::future::{join, join_all, try_join_all};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::{Payload, Target};
use std::cell::Cell;
use std::rc::Rc;

/// A disk that takes any byte range within its size.
pub struct AlignedDisk<D> {
    shared: Rc<Shared<D>>,
}

struct Shared<D> {
    disk: Rc<D>,
    locks: BlockLocks,
    merged: Cell<u64>,
}

impl<D> Clone for AlignedDisk<D> {
    fn clone(&self) -> Self {
        Self {
            shared: Rc::clone(&self.shared),
        }
    }
}

impl<D: Disk> AlignedDisk<D> {
    /// Wraps `disk`, which nobody else should write from now on.
    #[must_use]
    pub fn new(disk: Rc<D>) -> Self {
        Self {
            shared: Rc::new(Shared {
                disk,
                locks: BlockLocks::new(),
                merged: Cell::new(0),
            }),
        }
    }

    /// The disk below.
    #[must_use]
    pub fn disk(&self) -> &D {
        &self.shared.disk
    }

    /// Blocks that were read to be written back changed.
    #[must_use]
    pub fn merged_blocks(&self) -> u64 {
        self.shared.merged.get()
    }

    /// Reads: pieces in address order that add up to `len`.
    ///
    /// # Errors
    /// Of the disk.
    pub async fn read(&self, offset: ByteOffset, len: ByteLen) -> Result<Vec<Payload>, DiskError> {
        let Some(span) = self.span(offset, len)? else {
            return Ok(Vec::new());
        };
        let outer = span.outer();
        let pieces = self.disk().read(outer.start(), outer.len()).await?;
        if span.is_aligned() {
            return Ok(pieces);
        }
        Ok(cut(&pieces, outer.position_of(span), len.as_usize()))
    }

    /// Reads as many bytes as `into` takes, into it. See [`Disk::read_to`].
    ///
    /// # Errors
    /// Of the disk.
    pub async fn read_to(&self, offset: ByteOffset, into: &Target) -> Result<(), DiskError> {
        let len = ByteLen::from_usize(into.len());
        match self.span(offset, len)? {
            None => Ok(()),
            Some(span) if span.is_aligned() => self.disk().read_to(offset, into).await,
            Some(_) => {
                let pieces = self.read(offset, len).await?;
                into.fill(&pieces);
                Ok(())
            }
        }
    }

    /// Writes.
    ///
    /// # Errors
    /// Of the disk.
    pub async fn write(&self, offset: ByteOffset, data: Payload) -> Result<(), DiskError> {
        let Some(span) = self.span(offset, ByteLen::from_usize(data.len()))? else {
            return Ok(());
        };
        let _lock = self.shared.locks.lock(span).await;
        if span.is_aligned() {
            return self.disk().write(offset, data).await;
        }
        match span.inner() {
            Some(inner) if inner.len().as_usize() >= UNCOPIED_LEN_MIN => {
                self.write_around(span, inner, &data).await
            }
            _ => self.write_merged(span, span, &data).await,
        }
    }

    /// Makes the range read as zeros. Space may be given back only if `may_unmap`.
    ///
    /// # Errors
    /// Of the disk.
    pub async fn write_zeroes(
        &self,
        offset: ByteOffset,
        len: ByteLen,
        may_unmap: bool,
    ) -> Result<(), DiskError> {
        let Some(span) = self.span(offset, len)? else {
            return Ok(());
        };
        let _lock = self.shared.locks.lock(span).await;
        for block in span.partial_blocks() {
            let part = span.part_in(block);
            let zeros = vec![0; part.len().as_usize()].into();
            self.write_merged(part, part, &zeros).await?;
        }
        let Some(inner) = span.inner() else {
            return Ok(());
        };
        let (start, len) = (inner.start(), inner.len());
        self.disk().write_zeroes(start, len, may_unmap).await
    }

    /// Whether [`Self::write_zeroes`] of the range moves no data.
    #[must_use]
    pub fn is_fast_to_zero(&self, offset: ByteOffset, len: ByteLen) -> bool {
        Span::new(offset, len).is_none_or(Span::is_aligned)
    }

    /// Tells that the range is not needed. Blocks covered in part are left as they are.
    ///
    /// # Errors
    /// Of the disk.
    pub async fn discard(&self, offset: ByteOffset, len: ByteLen) -> Result<(), DiskError> {
        let Some(inner) = self.span(offset, len)?.and_then(Span::inner) else {
            return Ok(());
        };
        let _lock = self.shared.locks.lock(inner).await;
        self.disk().discard(inner.start(), inner.len()).await
    }

    /// Makes durable what was acknowledged before.
    ///
    /// # Errors
    /// Of the disk.
    pub async fn flush(&self) -> Result<(), DiskError> {
        self.disk().flush().await
    }

    /// Runs in address order that cover the range.
    ///
    /// # Errors
    /// Of the disk.
    pub async fn block_status(
        &self,
        offset: ByteOffset,
        len: ByteLen,
    ) -> Result<Vec<BlockRun>, DiskError> {
        let Some(span) = self.span(offset, len)? else {
            return Ok(Vec::new());
        };
        let outer = span.outer();
        let runs = self.disk().block_status(outer.start(), outer.len()).await?;
        Ok(cut_runs(runs, outer, span))
    }

    fn span(&self, offset: ByteOffset, len: ByteLen) -> Result<Option<Span>, DiskError> {
        if len == ByteLen::ZERO {
            return Ok(None);
        }
        let size = self.disk().size();
        let span = Span::new(offset, len).filter(|span| span.end() <= size.get());
        match span {
            Some(span) => Ok(Some(span)),
            None => Err(DiskError::OutOfRange { offset, len, size }),
        }
    }

    /// Reads the blocks that `span` touches in part into their places in `outer`, which stands for
    /// all blocks touched. The caller holds the lock.
    async fn read_edges(&self, span: Span, outer: &mut [u8]) -> Result<(), DiskError> {
        let blocks = span.partial_blocks();
        let edges = try_join_all(blocks.map(async |block| {
            let pieces = self.disk().read(block.start(), block.len()).await?;
            Ok::<_, DiskError>((block, pieces))
        }));
        for (block, pieces) in edges.await? {
            let position = span.outer().position_of(block);
            fill(&mut outer[position..], &pieces);
            self.shared.merged.set(self.shared.merged.get() + 1);
        }
        Ok(())
    }

    /// Writes `part` of `span`, whose bytes are `data`, as whole blocks in one go. The caller holds
    /// the lock.
    async fn write_merged(&self, span: Span, part: Span, data: &Payload) -> Result<(), DiskError> {
        let outer = part.outer();
        let mut merged = vec![0; outer.len().as_usize()];
        self.read_edges(part, &mut merged).await?;
        let from = span.position_of(part);
        let into = outer.position_of(part);
        let len = part.len().as_usize();
        merged[into..into + len].copy_from_slice(&data[from..from + len]);
        self.disk().write(outer.start(), merged.into()).await
    }

    /// Writes the whole blocks of `span` uncopied, and those at its edges merged. The caller holds
    /// the lock.
    async fn write_around(&self, span: Span, inner: Span, data: &Payload) -> Result<(), DiskError> {
        let edges = span.partial_blocks().map(|block| span.part_in(block));
        let edges = join_all(edges.map(|part| self.write_merged(span, part, data)));
        let from = span.position_of(inner);
        let whole = data.slice(from..from + inner.len().as_usize());
        let whole = self.disk().write(inner.start(), whole);
        // All run to their ends, also after one has failed: a write left behind could land after
        // the lock is given up.
        let (whole, edges) = join(whole, edges).await;
        edges.into_iter().fold(whole, Result::and)
    }
}

/// Copies pieces one behind the other.
fn fill(mut into: &mut [u8], pieces: &[Payload]) {
    for piece in pieces {
        let (head, tail) = into.split_at_mut(piece.len());
        head.copy_from_slice(piece);
        into = tail;
    }
}

/// The bytes `skip..skip + len` of the pieces, uncopied.
fn cut(pieces: &[Payload], skip: usize, len: usize) -> Vec<Payload> {
    let mut part = Vec::with_capacity(pieces.len());
    let (mut skip, mut rest) = (skip, len);
    for piece in pieces {
        let start = skip.min(piece.len());
        let end = piece.len().min(start + rest);
        if start < end {
            part.push(piece.slice(start..end));
        }
        skip -= start;
        rest -= end - start;
    }
    part
}

/// Cuts runs that cover `outer` to those that cover `span`.
fn cut_runs(mut runs: Vec<BlockRun>, outer: Span, span: Span) -> Vec<BlockRun> {
    let before = span.start().get() - outer.start().get();
    let after = outer.end() - span.end();
    // Runs are whole blocks and both cuts are less than a block.
    if let Some(first) = runs.first_mut() {
        first.len = ByteLen::new(first.len.get() - before);
    }
    if let Some(last) = runs.last_mut() {
        last.len = ByteLen::new(last.len.get() - after);
    }
    runs
}

#[cfg(test)]
#[path = "aligned_tests.rs"]
mod tests;
