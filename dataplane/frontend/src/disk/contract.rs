//! A disk of 4 KiB blocks.
//!
//! *Place*: between the frontends (through `align`) and `client`. *Owner*: one shard; futures are
//! not `Send`. *Invariants*: below. *On failure*: [`DiskError`]; a failed request is over.

use super::error::DiskError;
use ogee_proto::limit::BLOCK_SIZE;
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::channel::watch;
use ogee_runtime::{Payload, Target};
use std::future::Future;

/// A stretch of blocks in the same state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockRun {
    /// Its length, never zero.
    pub len: ByteLen,
    /// Whether space is allocated for it. What is not allocated reads as zeros.
    pub is_allocated: bool,
}

/// A disk. All offsets and lengths are multiples of [`Disk::block_size`] and within
/// [`Disk::size`], else [`DiskError::Unaligned`] or [`DiskError::OutOfRange`].
///
/// *Atomicity*: each block is written whole or not at all; a request of many blocks is not atomic.
/// *Visibility*: a request that returned is seen by every later one, whoever issues it. Of
/// requests under way at once that overlap, each block ends as one of them left it.
/// *Durability*: what returned before a [`Disk::flush`] was issued is durable when that returns;
/// at once if [`Disk::is_write_through`].
/// *Cancellation*: dropping the future of a mutation leaves its outcome open.
pub trait Disk: 'static {
    /// The size now: a multiple of the block size.
    fn size(&self) -> ByteLen;

    /// Unit of every request.
    fn block_size(&self) -> ByteLen {
        ByteLen::from_usize(BLOCK_SIZE)
    }

    /// Whether mutations are refused.
    fn read_only(&self) -> bool;

    /// Whether a mutation is durable when it returns, without a flush.
    fn is_write_through(&self) -> bool;

    /// Tells of size changes.
    fn resized(&self) -> watch::Receiver<ByteLen>;

    /// Reads: pieces in address order that add up to `len`.
    fn read(
        &self,
        offset: ByteOffset,
        len: ByteLen,
    ) -> impl Future<Output = Result<Vec<Payload>, DiskError>>;

    /// Reads as many bytes as `into` takes, into it: from where they arrive, or, where that can be, without any copy.
    /// Nobody writes there any more when this has ended, or when its future was dropped and the target's owner is.
    fn read_to(
        &self,
        offset: ByteOffset,
        into: &Target,
    ) -> impl Future<Output = Result<(), DiskError>> {
        async move {
            let len = ByteLen::from_usize(into.len());
            let pieces = self.read(offset, len).await?;
            into.fill(&pieces);
            Ok(())
        }
    }

    /// Writes.
    fn write(
        &self,
        offset: ByteOffset,
        data: Payload,
    ) -> impl Future<Output = Result<(), DiskError>>;

    /// Makes the range read as zeros, at far less than the cost of writing them. Space may be
    /// given back only if `may_unmap`.
    fn write_zeroes(
        &self,
        offset: ByteOffset,
        len: ByteLen,
        may_unmap: bool,
    ) -> impl Future<Output = Result<(), DiskError>>;

    /// Tells that the range is not needed; it reads as zeros afterwards.
    fn discard(
        &self,
        offset: ByteOffset,
        len: ByteLen,
    ) -> impl Future<Output = Result<(), DiskError>>;

    /// Makes durable what was acknowledged before.
    fn flush(&self) -> impl Future<Output = Result<(), DiskError>>;

    /// Runs in address order that cover the range.
    fn block_status(
        &self,
        offset: ByteOffset,
        len: ByteLen,
    ) -> impl Future<Output = Result<Vec<BlockRun>, DiskError>>;
}
