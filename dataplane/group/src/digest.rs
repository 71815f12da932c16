//! Digest of a replica's logical contents as of one log entry.
//!
//! A `Digest` entry in the log makes every replica digest what it holds at that index, so that
//! replicas can be compared while writes go on. While a digest runs, the group's write-back and
//! purge stand still; the overlay as of the entry is a copy. A block of zeros counts like a block
//! that was never written: replicas may differ in what they allocated, not in what a reader sees.
//!
//! A replica that starts anew applies the entries behind its checkpoint again, over a store into which
//! the process before may have written newer blocks, the last of them in part. The overlay hides those
//! only when the whole log of before has been applied: a digest within it has no result here.

use crate::error::GroupError;
use crate::limit::{DIGEST_AWAITED, DIGESTS_KEPT};
use crate::metrics::FoundBy;
use crate::overlay::{Overlay, OverlayWhat};
use crate::read::Miss;
use crate::replica::{Hold, Replica};
use crate::types::from_raft;
use ogee_proto::checksum::{crc32c, crc32c_append};
use ogee_proto::id::{ChunkKey, CopysetId, LogId};
use ogee_proto::limit::{BLOCK_SIZE, BLOCKS_PER_CHUNK};
use ogee_proto::unit::BlockIndex;
use ogee_runtime::channel::Notify;
use ogee_store::BlockRead;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

/// Blocks read at a time.
const STRIDE: usize = 256;

/// The digest of one chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkDigest {
    /// The chunk.
    pub key: ChunkKey,
    /// CRC32C over (block, CRC32C of its bytes) of every block that is not zeros.
    pub crc: u32,
    /// Blocks that are not zeros.
    pub blocks: u32,
}

/// The digest of a group's contents at one applied index. Chunks of zeros are left out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupDigest {
    /// The digest entry.
    pub applied: LogId,
    /// Per chunk, in order.
    pub chunks: Vec<ChunkDigest>,
}

type Outcome<T> = Result<Rc<T>, Rc<GroupError>>;

/// Digests asked for, under way and done.
pub(crate) struct Digests<T> {
    /// Oldest first.
    done: RefCell<VecDeque<(u64, Outcome<T>)>>,
    under_way: RefCell<BTreeSet<u64>>,
    changed: Notify,
}

impl<T> Default for Digests<T> {
    fn default() -> Self {
        Self {
            done: RefCell::default(),
            under_way: RefCell::default(),
            changed: Notify::new(),
        }
    }
}

impl<T> Digests<T> {
    /// How many are under way.
    pub(crate) fn running(&self) -> usize {
        self.under_way.borrow().len()
    }

    /// Waits for digest `id`, which may not have been applied here yet, and never is if a copy took the place
    /// of its entry: then it is asked for anew.
    pub(crate) async fn wait(&self, copyset: CopysetId, id: u64) -> Outcome<T> {
        let end = ogee_runtime::now() + DIGEST_AWAITED;
        loop {
            let changed = self.changed.notified();
            let found = self
                .done
                .borrow()
                .iter()
                .find(|(done, _)| *done == id)
                .map(|(_, outcome)| outcome.clone());
            if let Some(outcome) = found {
                return outcome;
            }
            let left = end.saturating_duration_since(ogee_runtime::now());
            if self.under_way.borrow().contains(&id) {
                changed.await;
            } else if ogee_runtime::timeout(left, changed).await.is_err() {
                return Err(Rc::new(GroupError::DigestSkipped { copyset }));
            }
        }
    }

    pub(crate) fn begin(&self, id: u64) {
        self.under_way.borrow_mut().insert(id);
        // Whoever waits for its beginning waits for its end from here on.
        self.changed.notify_all();
    }

    pub(crate) fn finish(&self, id: u64, outcome: Outcome<T>) {
        self.under_way.borrow_mut().remove(&id);
        let mut done = self.done.borrow_mut();
        done.push_back((id, outcome));
        while done.len() > DIGESTS_KEPT {
            done.pop_front();
        }
        drop(done);
        self.changed.notify_all();
    }
}

impl Replica {
    /// Starts digest `id` of the contents as they are now. Called by apply.
    pub(crate) fn start_digest(self: &Rc<Self>, id: u64) {
        let applied = self.applied();
        if let Some(obstacle) = self.digest_obstacle(applied) {
            return self.digests.finish(id, Err(Rc::new(obstacle)));
        }
        let job = Job {
            hold: self.hold(),
            overlay: self.state.borrow().overlay.clone(),
            applied,
        };
        self.digests.begin(id);
        let (replica, copies_begun) = (self.clone(), self.copies_begun());
        drop(ogee_runtime::spawn(async move {
            let mut outcome = replica.digest(&job).await;
            drop(job);
            if let Err(deleted) = replica.check_kept() {
                outcome = Err(deleted);
            } else if replica.copies_begun() != copies_begun {
                // Some of the blocks are as of other moments.
                let copyset = replica.copyset;
                outcome = Err(GroupError::Installing { copyset });
            }
            replica
                .digests
                .finish(id, outcome.map(Rc::new).map_err(Rc::new));
        }));
    }

    pub(crate) fn applied(&self) -> LogId {
        let state = self.state.borrow();
        state.applied.as_ref().map(from_raft).unwrap_or_default()
    }

    /// Why what the replica holds now is not its contents as of `applied`, if so.
    pub(crate) fn digest_obstacle(&self, applied: LogId) -> Option<GroupError> {
        let copyset = self.copyset;
        if self.is_fuzzy() {
            return Some(GroupError::Installing { copyset });
        }
        self.may_be_ahead_of(applied)
            .then_some(GroupError::BeforeStart { copyset })
    }

    async fn digest(&self, job: &Job) -> Result<GroupDigest, GroupError> {
        let stored = self.store.chunks(self.copyset);
        let keys: BTreeSet<ChunkKey> = stored.into_iter().chain(job.overlay.chunks()).collect();
        let mut chunks = Vec::new();
        for key in keys {
            let digest = self.digest_chunk(job, key).await?;
            chunks.extend((digest.blocks > 0).then_some(digest));
        }
        Ok(GroupDigest {
            applied: job.applied,
            chunks,
        })
    }

    async fn digest_chunk(&self, job: &Job, key: ChunkKey) -> Result<ChunkDigest, GroupError> {
        let mut digest = ChunkDigest {
            key,
            crc: 0,
            blocks: 0,
        };
        let mut crcs = Vec::with_capacity(STRIDE);
        for first in (0..BLOCKS_PER_CHUNK).step_by(STRIDE) {
            crcs.clear();
            self.block_crcs(job, key, first, &mut crcs).await?;
            for (block, crc) in (first..).zip(&crcs) {
                let Some(crc) = crc else { continue };
                let block = u32::try_from(block).expect("a chunk has 4096 blocks");
                digest.crc = crc32c_append(digest.crc, &block.to_le_bytes());
                digest.crc = crc32c_append(digest.crc, &crc.to_le_bytes());
                digest.blocks += 1;
            }
        }
        Ok(digest)
    }

    /// CRC32C of each of the next [`STRIDE`] blocks, `None` for zeros.
    async fn block_crcs(
        &self,
        job: &Job,
        key: ChunkKey,
        first: usize,
        crcs: &mut Vec<Option<u32>>,
    ) -> Result<(), GroupError> {
        let from = BlockIndex::new(first).expect("strides divide a chunk");
        let slots: BTreeMap<_, _> = job.overlay.range(key, from, STRIDE).collect();
        let mut at = first;
        while at < first + STRIDE {
            let block = BlockIndex::new(at).expect("within a chunk");
            if let Some(slot) = slots.get(&block) {
                crcs.push(self.slot_crc(slot.index, slot.what).await?);
                at += 1;
                continue;
            }
            let next = slots
                .range(block..)
                .next()
                .map_or(first + STRIDE, |(b, _)| b.as_usize());
            self.stored_crcs(key, block, next - at, crcs).await?;
            at = next;
        }
        Ok(())
    }

    pub(crate) async fn slot_crc(
        &self,
        index: u64,
        what: OverlayWhat,
    ) -> Result<Option<u32>, GroupError> {
        let Some(start) = what.payload_offset() else {
            return Ok(None);
        };
        let copyset = self.copyset;
        match self.log_payload(index, start..start + BLOCK_SIZE).await {
            Ok(bytes) => Ok(block_crc(&bytes)),
            Err(Miss::Failed(error)) => Err(error),
            // The hold keeps the entry; a purge that slipped in first is a race worth a retry.
            Err(Miss::Moved | Miss::Checksum(_)) => Err(GroupError::Race {
                copyset,
                key: ChunkKey::default(),
            }),
        }
    }

    async fn stored_crcs(
        &self,
        key: ChunkKey,
        first: BlockIndex,
        count: usize,
        crcs: &mut Vec<Option<u32>>,
    ) -> Result<(), GroupError> {
        for run in self
            .read_stored(FoundBy::Compare, key, first, count)
            .await?
        {
            match run {
                BlockRead::Zeros(blocks) => crcs.extend(std::iter::repeat_n(None, blocks)),
                BlockRead::Data(bytes) => {
                    crcs.extend(bytes.chunks_exact(BLOCK_SIZE).map(block_crc));
                }
            }
        }
        Ok(())
    }
}

struct Job {
    #[expect(
        dead_code,
        reason = "held for its drop: write-back goes on when the digest is done"
    )]
    hold: Hold,
    overlay: Overlay,
    applied: LogId,
}

pub(crate) fn block_crc(bytes: &[u8]) -> Option<u32> {
    let zeros = bytes.iter().all(|byte| *byte == 0);
    (!zeros).then(|| crc32c(bytes))
}

#[cfg(test)]
mod tests {
    use crate::error::GroupError;
    use crate::fixture::{Lone, run};
    use crate::limit::DIGEST_AWAITED;
    use ogee_proto::id::LogId;

    #[test]
    fn a_digest_under_which_a_copy_begins_is_none() {
        run(async {
            let lone = Lone::start().await;
            let replica = lone.group.replica();
            replica.start_digest(7);
            assert!(replica.digests.wait(replica.copyset, 7).await.is_ok());
            replica.start_digest(8);
            let marked = replica.mark_fuzzy(LogId::new(1, 0)).await;
            marked.expect("a mark that is passed already");
            let outcome = replica.digests.wait(replica.copyset, 8).await;
            let error = outcome.expect_err("a mixture");
            assert!(matches!(*error, GroupError::Installing { .. }));
        });
    }

    /// Its blocks go while they are read.
    #[test]
    fn a_digest_under_which_the_replica_is_deleted_is_none() {
        run(async {
            let lone = Lone::start().await;
            let replica = lone.group.replica();
            replica.start_digest(7);
            replica.note_deleted();
            let outcome = replica.digests.wait(replica.copyset, 7).await;
            let error = outcome.expect_err("a mixture");
            assert!(matches!(*error, GroupError::Deleted { .. }));
        });
    }

    #[test]
    fn a_digest_whose_entry_never_comes_is_not_waited_for_for_ever() {
        run(async {
            let lone = Lone::start().await;
            let replica = lone.group.replica();
            let began = ogee_runtime::now();
            let outcome = replica.digests.wait(replica.copyset, 9).await;
            let error = outcome.expect_err("nobody has asked for it");
            assert!(matches!(*error, GroupError::DigestSkipped { .. }));
            assert!(ogee_runtime::now() - began < DIGEST_AWAITED * 2);
        });
    }
}
