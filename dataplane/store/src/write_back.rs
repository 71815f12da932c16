//! Blocks to extents.
//!
//! *Place*: behind a group's lazy write-back task. *Owner*: a task of the store's shard; calls of
//! one group take turns, calls of different groups overlap. *Invariants*: space is reserved before
//! anything is written; maps and checksums of one call change in one synchronous step, so a
//! checkpoint holds all of it or nothing; at most [`WRITES_IN_FLIGHT_MAX`] requests are in flight
//! over all groups; what the log still names is not overwritten (`redirect`). *On failure*: what was not written keeps its old map entry; what was written
//! is taken over; the first error is returned. The call may be repeated as a whole.

use crate::block_crc::Salt;
use crate::change::{BlockChange, WriteBack, sort};
use crate::error::StoreError;
use crate::leaf::Stored;
use crate::limit::{TRANSFER_MAX, WRITES_IN_FLIGHT_MAX};
use crate::read::block_offset;
use crate::redirect::Adoption;
use crate::reserve::{Batch, Outcome, Request};
use crate::store::Inner;
use futures_util::stream::{self, StreamExt};
use ogee_device::DeviceError;
use ogee_proto::checksum::crc32c_append_block;
use ogee_proto::id::{ChunkKey, CopysetId};
use ogee_proto::limit::{BLOCK_SIZE, EXTENT_SIZE};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::{Buffer, Gather};
use std::ops::Range;

/// Changes that go out in one device request.
struct Run {
    changes: Range<usize>,
    offset: ByteOffset,
}

impl Inner {
    /// Writes the blocks and takes them into the map. Durable with the next checkpoint.
    pub(crate) async fn write_back(
        &self,
        copyset: CopysetId,
        changes: Vec<WriteBack>,
        adoptions: Vec<Adoption>,
    ) -> Result<(), StoreError> {
        let turn = self.turn(copyset);
        let _turn = turn.lock().await;
        self.write_back_in_turn(copyset, changes, adoptions).await
    }

    /// The same, of who has the group's turn.
    pub(crate) async fn write_back_in_turn(
        &self,
        copyset: CopysetId,
        changes: Vec<WriteBack>,
        adoptions: Vec<Adoption>,
    ) -> Result<(), StoreError> {
        self.check_alive()?;
        let adoptions = adoptions.into_iter().map(|adoption| {
            let extent = self.extent_at(adoption.at)?;
            Ok((adoption, extent))
        });
        let adoptions = adoptions.collect::<Result<Vec<_>, StoreError>>()?;
        let mut changes = sort(changes);
        let moves = self.move_pinned(&mut changes).await?;
        let request = Request {
            changes,
            adoptions,
            moves,
        };
        let batch = self.state.borrow_mut().reserve(copyset, request)?;
        let (outcomes, error) = self.write_batch(&batch).await;
        self.state.borrow_mut().apply(&batch, &outcomes);
        self.settled.notify_all();
        let adopted = (batch.adoptions.len() * EXTENT_SIZE) as u64;
        self.counters
            .update(|counts| counts.adopted_bytes += adopted);
        error.map_or(Ok(()), |error| Err(error.into()))
    }

    /// What became of each change, and the first error.
    async fn write_batch(&self, batch: &Batch) -> (Vec<Outcome>, Option<DeviceError>) {
        let mut outcomes: Vec<Outcome> = batch.changes.iter().map(before_write).collect();
        let mut first_error = None;
        let mut writes = stream::iter(self.runs(batch))
            .map(|run| async move { (run.changes.clone(), self.write_run(batch, run).await) })
            .buffer_unordered(WRITES_IN_FLIGHT_MAX);
        while let Some((changes, written)) = writes.next().await {
            match written {
                Ok(crcs) => {
                    for (outcome, crc) in outcomes[changes].iter_mut().zip(crcs) {
                        *outcome = Outcome::Written(crc);
                    }
                }
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        (outcomes, first_error)
    }

    /// Joins neighbours: same chunk, next block, next place on the device.
    fn runs(&self, batch: &Batch) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for (index, (change, target)) in batch.changes.iter().zip(&batch.targets).enumerate() {
            let Some(extent) = *target else { continue };
            let stored = Stored { extent, crc: 0 };
            let offset = block_offset(&self.geometry, change.block, stored);
            let open = runs.last_mut().filter(|run| {
                let len = run.changes.len() * BLOCK_SIZE;
                run.changes.end == index
                    && batch.changes[index - 1].key == change.key
                    && run.offset.add(ByteLen::from_usize(len)) == offset
                    && len < TRANSFER_MAX
            });
            match open {
                Some(run) => run.changes.end += 1,
                None => runs.push(Run {
                    changes: index..index + 1,
                    offset,
                }),
            }
        }
        runs
    }

    /// Writes one run; the checksums of its blocks.
    async fn write_run(&self, batch: &Batch, run: Run) -> Result<Vec<u32>, DeviceError> {
        // Before anything is copied: the permit is what bounds the memory.
        let _permit = self.writes.acquire(1).await;
        let changes = &batch.changes[run.changes];
        let salt = self.salt_of(changes[0].key);
        let len = changes.len() * BLOCK_SIZE;
        let payloads = changes.iter().filter_map(|change| change.what.data());
        let copied = Gather::copied_len(payloads.clone());
        let data = Gather::behind(Buffer::with_capacity(copied), payloads, copied);
        assert_eq!(data.len(), len, "a run holds data only");
        let mut crcs = Vec::with_capacity(changes.len());
        for change in changes {
            if let Some(data) = change.what.data() {
                let carried = batch.moves.carried(change.key, change.block);
                crcs.push(carried.unwrap_or_else(|| salted(salt, change, data)));
            }
        }
        self.device.write(run.offset, data).await?;
        self.counters.update(|counts| {
            counts.data_writes += 1;
            counts.data_bytes_written += ByteLen::from_usize(len).get();
        });
        Ok(crcs)
    }

    fn salt_of(&self, key: ChunkKey) -> Salt {
        let state = self.state.borrow();
        let chunk = state
            .chunks
            .get(&key)
            .expect("invariant: reserved with its chunk");
        Salt::new(self.store, key, chunk.generation)
    }
}

/// The checksum that the store keeps of a block of data.
fn salted(salt: Salt, change: &WriteBack, data: &[u8]) -> u32 {
    match change.what {
        BlockChange::Summed(_, crc) => crc32c_append_block(salt.of_block(change.block), crc),
        BlockChange::Data(_) | BlockChange::Zero => salt.block_crc(change.block, data),
    }
}

fn before_write(change: &WriteBack) -> Outcome {
    match change.what {
        BlockChange::Zero => Outcome::Zeroed,
        BlockChange::Data(_) | BlockChange::Summed(..) => Outcome::Failed,
    }
}
