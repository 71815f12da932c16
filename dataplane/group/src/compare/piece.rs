//! One replica's part: sums of the blocks of a piece as of one entry.
//!
//! *Place*: begun by apply, read by the leader. *Owner*: the replica. *Invariants*: what is summed up is the contents as of
//! the entry, or there is no sum: see [`Pieces::note_cut`]. Pieces under way and kept are bounded. *On failure*: see
//! [`GroupError`]; damage is noted for repair.

use super::dispute::Disputes;
use crate::command::CommandHead;
use crate::digest::{Digests, block_crc};
use crate::error::GroupError;
use crate::group::Group;
use crate::limit::{PIECE_BLOCKS, PIECE_LEN, PIECE_READ_BLOCKS, PIECES_MAX};
use crate::metrics::FoundBy;
use crate::overlay::{Overlay, OverlaySlot};
use crate::repair::Span;
use crate::replica::Replica;
use ogee_proto::id::{ChunkKey, LogId, VolumeId};
use ogee_proto::limit::{BLOCK_SIZE, BLOCKS_PER_CHUNK};
use ogee_proto::unit::BlockIndex;
use ogee_runtime::yield_now;
use ogee_store::{BlockBitmap, BlockRead, Purpose};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

/// Pieces of a chunk.
const PIECES: usize = BLOCKS_PER_CHUNK / PIECE_BLOCKS;

/// A piece of a chunk. The default comes before all that there are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Place {
    key: ChunkKey,
    piece: u8,
}

impl Place {
    pub(super) fn new(key: ChunkKey, piece: usize) -> Option<Self> {
        let piece = u8::try_from(piece).ok().filter(|_| piece < PIECES)?;
        Some(Self { key, piece })
    }

    /// Its chunk.
    #[must_use]
    pub const fn key(self) -> ChunkKey {
        self.key
    }

    pub(super) const fn number(self) -> u8 {
        self.piece
    }

    /// Bytes from the start of the chunk.
    pub(super) fn offset(self) -> usize {
        usize::from(self.piece) * PIECE_LEN
    }

    pub(super) fn span(self) -> Span {
        Span::new(self.key, self.block(0), PIECE_BLOCKS)
    }

    /// One of its blocks.
    pub(super) fn block(self, at: usize) -> BlockIndex {
        let block = usize::from(self.piece) * PIECE_BLOCKS + at;
        BlockIndex::new(block).expect("invariant: pieces divide a chunk")
    }
}

/// What a digest entry asks about a piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PieceAsk {
    id: u64,
    place: Place,
    /// Writers wait for it.
    is_urgent: bool,
}

impl PieceAsk {
    /// Of an entry that is of a piece.
    pub(crate) fn of(head: &CommandHead) -> Self {
        let place = Place::new(head.key, head.offset as usize / PIECE_LEN);
        Self {
            id: head.sequence.get(),
            place: place.expect("invariant: checked by CommandHead::is_of_piece"),
            is_urgent: head.watermark.get() == 1,
        }
    }
}

/// What a replica holds of one block.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum BlockSum {
    /// Zeros, written or not.
    Zeros,
    /// Data with this CRC32C.
    Data(u32),
    /// It cannot be read, or not as it was written, and no other replica has what this one's map says was.
    Damaged,
}

impl From<Option<u32>> for BlockSum {
    fn from(crc: Option<u32>) -> Self {
        crc.map_or(Self::Zeros, Self::Data)
    }
}

/// What a replica holds of a piece.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PieceSums {
    /// The digest entry.
    pub(crate) applied: LogId,
    /// Of each block.
    pub(crate) blocks: Vec<BlockSum>,
    /// The next piece of which this replica holds anything.
    pub(crate) next: Option<Place>,
}

/// A piece that is being summed up.
struct Pin {
    span: Span,
    /// As of this entry.
    index: u64,
    /// Its blocks may be newer in the store.
    is_past: Cell<bool>,
}

/// Pieces asked for, under way and done.
#[derive(Default)]
pub(crate) struct Pieces {
    pub(super) sums: Digests<PieceSums>,
    pins: RefCell<Vec<Weak<Pin>>>,
    /// The last one that any leader has asked for.
    pub(super) last: Cell<Option<Place>>,
    pub(super) disputes: Disputes,
}

impl Pieces {
    /// A write-back of what the overlay has up to an entry begins. A piece of which it takes what is newer than the
    /// piece's entry is not as of that entry from here on. What it takes of before is in the overlay's view of the piece,
    /// whatever becomes of it.
    pub(crate) fn note_cut(&self, overlay: &Overlay, upto: u64, removed: &[VolumeId]) {
        let mut pins = self.pins.borrow_mut();
        pins.retain(|pin| {
            let Some(pin) = pin.upgrade() else {
                return false;
            };
            let span = pin.span;
            let mut slots = overlay.range(span.key, span.first(), span.count.into());
            let is_taken = slots.any(|(_, slot)| pin.index < slot.index && slot.index <= upto);
            if is_taken || removed.contains(&span.key.volume) {
                pin.is_past.set(true);
            }
            true
        });
    }

    fn pin(&self, span: Span, index: u64) -> Rc<Pin> {
        let pin = Rc::new(Pin {
            span,
            index,
            is_past: Cell::new(false),
        });
        self.pins.borrow_mut().push(Rc::downgrade(&pin));
        pin
    }
}

/// A piece as of an entry.
struct Job {
    ask: PieceAsk,
    applied: LogId,
    pin: Rc<Pin>,
    /// What of it is in the log.
    slots: BTreeMap<BlockIndex, OverlaySlot>,
    /// Its volume is gone: what the store still has of it does not count.
    is_removed: bool,
}

impl Replica {
    /// Starts to sum up a piece of the contents as they are now. Called by apply.
    pub(crate) fn start_piece(self: &Rc<Self>, ask: PieceAsk) {
        let (copyset, key) = (self.copyset, ask.place.key);
        self.pieces.last.set(Some(ask.place));
        let applied = self.applied();
        if let Some(obstacle) = self.piece_obstacle(ask, applied) {
            return self.pieces.sums.finish(ask.id, Err(Rc::new(obstacle)));
        }
        let span = ask.place.span();
        let job = {
            let state = self.state.borrow();
            let slots = state.overlay.range(key, span.first(), PIECE_BLOCKS);
            Job {
                ask,
                applied,
                pin: self.pieces.pin(span, applied.index.get()),
                slots: slots.collect(),
                is_removed: state.sessions.is_removed(key.volume),
            }
        };
        self.pieces.sums.begin(ask.id);
        let (replica, copies_begun) = (self.clone(), self.copies_begun());
        drop(ogee_runtime::spawn(async move {
            let mut outcome = replica.sum_up(&job).await;
            if let Err(deleted) = replica.check_kept() {
                outcome = Err(deleted);
            } else if replica.copies_begun() != copies_begun {
                outcome = Err(GroupError::Installing { copyset });
            } else if job.pin.is_past.get() {
                outcome = Err(GroupError::Race { copyset, key });
            }
            let outcome = outcome.map(Rc::new).map_err(Rc::new);
            replica.pieces.sums.finish(job.ask.id, outcome);
        }));
    }

    fn piece_obstacle(&self, ask: PieceAsk, applied: LogId) -> Option<GroupError> {
        let (copyset, key) = (self.copyset, ask.place.key);
        let paused = || GroupError::Paused { copyset };
        let is_paused = self.store.is_paused() && !ask.is_urgent;
        let crowd = || GroupError::Race { copyset, key };
        let is_crowd = self.pieces.sums.running() >= PIECES_MAX;
        let obstacle = self.digest_obstacle(applied);
        let obstacle = obstacle.or_else(|| is_paused.then(paused));
        obstacle.or_else(|| is_crowd.then(crowd))
    }

    async fn sum_up(&self, job: &Job) -> Result<PieceSums, GroupError> {
        let mut blocks = Vec::with_capacity(PIECE_BLOCKS);
        if job.is_removed {
            blocks.resize(PIECE_BLOCKS, BlockSum::Zeros);
        }
        while blocks.len() < PIECE_BLOCKS {
            let (place, count) = (
                job.ask.place,
                PIECE_READ_BLOCKS.min(PIECE_BLOCKS - blocks.len()),
            );
            let first = place.block(blocks.len());
            let len = self
                .store
                .allocated_bytes(self.copyset, place.key, first, count);
            let read = self.sum_up_some(job, &mut blocks);
            match job.ask.is_urgent {
                true => {
                    self.store.budget().charge(Purpose::Compare, len);
                    read.await?;
                }
                false => {
                    let taken = self.store.take_leisure(Purpose::Compare, len, read);
                    taken.await?;
                }
            }
        }
        Ok(PieceSums {
            applied: job.applied,
            blocks,
            next: self.next_place(job.ask.place),
        })
    }

    /// The next blocks of the piece.
    async fn sum_up_some(&self, job: &Job, sums: &mut Vec<BlockSum>) -> Result<(), GroupError> {
        let end = PIECE_BLOCKS.min(sums.len() + PIECE_READ_BLOCKS);
        while sums.len() < end {
            let block = job.ask.place.block(sums.len());
            if let Some(slot) = job.slots.get(&block) {
                sums.push(self.slot_crc(slot.index, slot.what).await?.into());
                continue;
            }
            let next = job.slots.range(block..).next();
            let left = end - sums.len();
            let count = next.map_or(left, |(next, _)| {
                left.min(next.as_usize() - block.as_usize())
            });
            self.sum_up_stored(job, Span::new(job.ask.place.key, block, count), sums)
                .await?;
        }
        Ok(())
    }

    /// Blocks of the store. If they cannot be read in one, each by itself.
    async fn sum_up_stored(
        &self,
        job: &Job,
        span: Span,
        sums: &mut Vec<BlockSum>,
    ) -> Result<(), GroupError> {
        let error = match self.sums_of(span, sums).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if job.pin.is_past.get() || !error.is_damaged_block() {
            return Err(error);
        }
        self.note_damage(FoundBy::Compare, &error, span);
        for block in span.blocks() {
            match self.sums_of(Span::new(span.key, block, 1), sums).await {
                Ok(()) => {}
                // What may be repaired is, first.
                Err(error)
                    if error.is_damaged_block() && self.repairs.lost.has(span.key, block) =>
                {
                    sums.push(BlockSum::Damaged);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn sums_of(&self, span: Span, sums: &mut Vec<BlockSum>) -> Result<(), GroupError> {
        let copyset = self.copyset;
        let read = self
            .store
            .read(copyset, span.key, span.first(), span.count.into());
        let runs = read
            .await
            .map_err(|source| GroupError::Store { copyset, source })?;
        for run in runs {
            match run {
                BlockRead::Zeros(blocks) => {
                    sums.extend(std::iter::repeat_n(BlockSum::Zeros, blocks));
                }
                BlockRead::Data(bytes) => {
                    let of_block = |bytes| BlockSum::from(block_crc(bytes));
                    sums.extend(bytes.chunks_exact(BLOCK_SIZE).map(of_block));
                }
            }
        }
        Ok(())
    }

    async fn count_pieces(&self) -> u32 {
        let (mut count, mut at) = (0, Place::default());
        while let Some(next) = self.next_place(at) {
            (count, at) = (count + 1, next);
            // Each looks at all blocks of a chunk.
            yield_now().await;
        }
        count
    }

    /// The first piece behind this one of which this replica holds anything. What comes and goes meanwhile may be
    /// passed over: the next pass finds it.
    pub(super) fn next_place(&self, at: Place) -> Option<Place> {
        let state = self.state.borrow();
        let mut from = usize::from(at.piece) + 1;
        let mut key = Some(at.key);
        while let Some(looked_at) = key {
            let stored = self.store.allocated(self.copyset, looked_at);
            let stored = stored.unwrap_or_else(|_| BlockBitmap::empty());
            let mut places = (from..PIECES).filter_map(|piece| Place::new(looked_at, piece));
            let found = places.find(|place| holds(&stored, &state.overlay, *place));
            if found.is_some() {
                return found;
            }
            let in_store = self.store.chunk_after(self.copyset, looked_at);
            let in_log = state.overlay.chunk_after(looked_at);
            key = in_store.into_iter().chain(in_log).min();
            from = 0;
        }
        None
    }
}

impl Group {
    /// The piece that was compared last in this group, as far as this replica knows, whoever led.
    #[must_use]
    pub fn compared_last(&self) -> Option<Place> {
        self.replica().pieces.last.get()
    }

    /// How many pieces there are of which this replica holds anything.
    pub async fn pieces_held(&self) -> u32 {
        self.replica().count_pieces().await
    }

    /// The first piece of a chunk that this replica holds, chosen by a number that was drawn.
    #[must_use]
    pub fn drawn_place(&self, drawn: u64) -> Place {
        let chunks = self.replica().store.chunks(self.copyset());
        let which = usize::try_from(drawn).unwrap_or(0) % chunks.len().max(1);
        let key = chunks.get(which).copied().unwrap_or_default();
        Place { key, piece: 0 }
    }
}

fn holds(stored: &BlockBitmap, overlay: &Overlay, place: Place) -> bool {
    let mut blocks = place.span().blocks();
    let mut in_log = overlay.range(place.key, place.block(0), PIECE_BLOCKS);
    blocks.any(|block| stored.contains(block))
        || in_log.any(|(_, slot)| slot.what.payload_offset().is_some())
}

#[cfg(test)]
mod tests {
    use super::{PieceAsk, Place};
    use crate::error::GroupError;
    use crate::fixture::{Lone, run};
    use ogee_proto::id::{ChunkIndex, ChunkKey, VolumeId};

    fn ask(id: u64) -> PieceAsk {
        let key = ChunkKey {
            volume: VolumeId::new(1),
            chunk: ChunkIndex::new(0),
        };
        PieceAsk {
            id,
            place: Place::new(key, 1).unwrap(),
            is_urgent: true,
        }
    }

    /// What is newer than the piece's entry would be read in the place of what was.
    #[test]
    fn a_piece_of_which_something_newer_is_written_back_is_not_as_of_its_entry() {
        run(async {
            let lone = Lone::start().await;
            let replica = lone.group.replica();
            let (copyset, applied) = (replica.copyset, replica.applied().index.get());
            let sums = &replica.pieces.sums;
            // One block of the piece, and one beside it.
            for (id, block, is_past) in [
                (1, 256, true),
                (2, 511, true),
                (3, 512, false),
                (4, 255, false),
            ] {
                let place = ask(id).place;
                replica.start_piece(ask(id));
                let mut overlay = crate::overlay::Overlay::default();
                overlay.insert(place.key(), block, 1, applied + 1, true);
                replica.pieces.note_cut(&overlay, applied, &[]);
                replica.pieces.note_cut(&overlay, applied + 1, &[]);
                let outcome = sums.wait(copyset, id).await;
                let is_raced = matches!(
                    outcome.as_deref().map_err(|it| &**it),
                    Err(GroupError::Race { .. })
                );
                assert_eq!(is_raced, is_past, "block {block}");
            }
            // What it has seen is in its view.
            replica.start_piece(ask(5));
            let mut overlay = crate::overlay::Overlay::default();
            overlay.insert(ask(5).place.key(), 300, 1, applied, true);
            replica.pieces.note_cut(&overlay, applied + 9, &[]);
            assert!(sums.wait(copyset, 5).await.is_ok());
            replica.start_piece(ask(6));
            let removed = [VolumeId::new(1)];
            replica
                .pieces
                .note_cut(&Default::default(), applied, &removed);
            assert!(sums.wait(copyset, 6).await.is_err());
        });
    }
}
