//! Which blocks a replica that is being copied to has got already.
//!
//! *Place*: asked and told by the sender, told by apply of every block that changes.
//! *Owner*: the replica that sends; lost with its process, which costs only time.
//! *Invariants*: a block counts as good only while what the target was sent is what this replica's
//! applied state holds: apply takes the mark off again in the same step in which it changes the
//! block. Marks of pieces that were never acknowledged are taken off when their attempt ends.
//! *On failure*: a copy that knows less sends more.

use crate::command::CommandKind;
use crate::limit::{COPY_GAP_BLOCKS, COPY_KEPT, COPY_PIECE_BLOCKS};
use crate::replica::KeptLog;
use crate::types::RaftEntry;
use ogee_proto::id::{ChunkKey, ReplicaId};
use ogee_proto::limit::{BLOCK_SIZE, BLOCKS_PER_CHUNK};
use ogee_runtime::Instant;
use openraft::EntryPayload;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Pieces of a chunk.
const PIECES: usize = BLOCKS_PER_CHUNK / COPY_PIECE_BLOCKS;

/// Every copy that this replica sends or might go on with.
#[derive(Default)]
pub(crate) struct Copies {
    tracks: RefCell<BTreeMap<ReplicaId, Rc<Track>>>,
    catching_up: RefCell<BTreeMap<ReplicaId, CatchingUp>>,
}

/// A replica that got its copy and needs the log behind it.
struct CatchingUp {
    /// Index up to which its blocks are as of later moments than its state.
    until: u64,
    deadline: Instant,
    _log: KeptLog,
}

/// One target's copy, over all its attempts.
pub(crate) struct Track {
    /// Names the copy; the target remembers what it has of it.
    pub(crate) id: u64,
    attempt: Cell<u64>,
    /// The target's word for what it has of the copy.
    token: Cell<u64>,
    /// One bit per block, a word per piece.
    good: RefCell<BTreeMap<ChunkKey, Box<[u32; PIECES]>>>,
    /// Sent or about to be, not acknowledged.
    unsure: RefCell<BTreeMap<(ChunkKey, u16), Wanted>>,
    used: Cell<Instant>,
}

/// A piece of a chunk to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Wanted {
    pub(crate) key: ChunkKey,
    /// First block; a multiple of [`COPY_PIECE_BLOCKS`].
    pub(crate) first: u16,
    pub(crate) what: What,
}

impl Wanted {
    /// Bytes that may have to be sent.
    pub(crate) const fn len(&self) -> usize {
        match self.what {
            What::Blocks(mask) => mask.count_ones() as usize * BLOCK_SIZE,
            What::Zeros(_) => 0,
        }
    }
}

/// What of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum What {
    /// The blocks of this mask, counted from the first.
    Blocks(u32),
    /// So many blocks, all of them absent.
    Zeros(u16),
}

impl Copies {
    /// An entry is about to be applied: what it changes is not good any more.
    pub(crate) fn note(&self, entry: &RaftEntry) {
        let tracks = self.tracks.borrow();
        if tracks.is_empty() {
            return;
        }
        let EntryPayload::Normal(command) = &entry.payload else {
            return;
        };
        let head = &command.head;
        if matches!(
            head.kind,
            CommandKind::Write | CommandKind::Discard | CommandKind::WriteZeroes
        ) && head.is_in_range()
        {
            for track in tracks.values() {
                track.changed(head.key, head.first_block(), head.block_count());
            }
        }
    }

    /// The copy to a target: the one that broke off not long ago, or a new one.
    pub(crate) fn track(&self, target: ReplicaId) -> Rc<Track> {
        let now = ogee_runtime::now();
        let mut tracks = self.tracks.borrow_mut();
        tracks.retain(|_, track| Rc::strong_count(track) > 1 || now < track.used.get() + COPY_KEPT);
        let track = tracks.entry(target).or_insert_with(|| {
            Rc::new(Track {
                id: ogee_runtime::random_u64(),
                attempt: Cell::new(0),
                token: Cell::new(0),
                good: RefCell::default(),
                unsure: RefCell::default(),
                used: Cell::new(now),
            })
        });
        track.clone()
    }

    /// The copy to a target is complete: from here on it needs the log, for a while.
    pub(crate) fn completed(&self, target: ReplicaId, until: u64, log: KeptLog) {
        self.tracks.borrow_mut().remove(&target);
        let catching_up = CatchingUp {
            until,
            deadline: ogee_runtime::now() + crate::limit::CATCH_UP_KEPT,
            _log: log,
        };
        self.catching_up.borrow_mut().insert(target, catching_up);
    }

    /// Lets the log go that was kept for targets which have caught up by now or never will.
    pub(crate) fn release_caught_up(&self, matched: impl Fn(ReplicaId) -> Option<u64>) {
        let now = ogee_runtime::now();
        self.catching_up
            .borrow_mut()
            .retain(|target, it| now < it.deadline && matched(*target) < Some(it.until));
    }

    /// The contents are about to change by other means than apply.
    pub(crate) fn forget_all(&self) {
        self.tracks.borrow_mut().clear();
        self.catching_up.borrow_mut().clear();
    }
}

impl Track {
    /// Begins another attempt; its number.
    pub(crate) fn begin(&self) -> u64 {
        self.used.set(ogee_runtime::now());
        self.end_attempt(self.attempt.get());
        self.attempt.set(self.attempt.get() + 1);
        self.attempt.get()
    }

    /// Whether no later attempt has begun: only the present one may change anything here.
    pub(crate) fn is_current(&self, attempt: u64) -> bool {
        self.attempt.get() == attempt
    }

    pub(crate) fn token(&self) -> u64 {
        self.token.get()
    }

    /// The target has begun; another token than before means that it has nothing of this copy. Only
    /// chunks of `keys` matter from here on: it drops all others.
    pub(crate) fn begun(&self, token: u64, keys: &BTreeSet<ChunkKey>) {
        let mut good = self.good.borrow_mut();
        if self.token.replace(token) != token {
            good.clear();
        }
        good.retain(|key, _| keys.contains(key));
    }

    /// What the target still needs of a chunk; it counts as good from here on. `present`: a mask
    /// per piece of the blocks that hold data now.
    pub(crate) fn claim(&self, key: ChunkKey, present: &[u32; PIECES]) -> Vec<Wanted> {
        let mut good = self.good.borrow_mut();
        let good = good.entry(key).or_insert_with(|| Box::new([0; PIECES]));
        let mut wanted: Vec<Wanted> = Vec::new();
        for (piece, (good, present)) in good.iter_mut().zip(present).enumerate() {
            if *good == u32::MAX {
                continue;
            }
            let first = first_block(piece);
            if *present != 0 {
                let what = What::Blocks(bridged(!*good));
                wanted.push(Wanted { key, first, what });
            } else if let Some(Wanted {
                first: run,
                what: What::Zeros(count),
                ..
            }) = wanted.last_mut()
                && *run + *count == first
            {
                *count += PIECE_BLOCKS;
            } else {
                let what = What::Zeros(PIECE_BLOCKS);
                wanted.push(Wanted { key, first, what });
            }
            *good = u32::MAX;
        }
        let mut unsure = self.unsure.borrow_mut();
        unsure.extend(wanted.iter().map(|it| ((key, it.first), *it)));
        wanted
    }

    /// The target has taken a piece.
    pub(crate) fn taken(&self, attempt: u64, wanted: &Wanted) {
        if self.is_current(attempt) {
            self.unsure.borrow_mut().remove(&(wanted.key, wanted.first));
            self.used.set(ogee_runtime::now());
        }
    }

    /// What was not acknowledged is not good.
    pub(crate) fn end_attempt(&self, attempt: u64) {
        if !self.is_current(attempt) {
            return;
        }
        let unsure = std::mem::take(&mut *self.unsure.borrow_mut());
        for wanted in unsure.into_values() {
            let first = usize::from(wanted.first);
            match wanted.what {
                What::Zeros(count) => self.changed(wanted.key, first, usize::from(count)),
                What::Blocks(mask) => {
                    let mut good = self.good.borrow_mut();
                    if let Some(good) = good.get_mut(&wanted.key) {
                        good[first / COPY_PIECE_BLOCKS] &= !mask;
                    }
                }
            }
        }
    }

    fn changed(&self, key: ChunkKey, first: usize, count: usize) {
        let mut good = self.good.borrow_mut();
        let Some(good) = good.get_mut(&key) else {
            return;
        };
        for block in first..first + count {
            good[block / COPY_PIECE_BLOCKS] &= !(1 << (block % COPY_PIECE_BLOCKS));
        }
    }
}

const PIECE_BLOCKS: u16 = 32;
const _: () = assert!(PIECE_BLOCKS as usize == COPY_PIECE_BLOCKS);

fn first_block(piece: usize) -> u16 {
    u16::try_from(piece * COPY_PIECE_BLOCKS).expect("invariant: a chunk has 4096 blocks")
}

/// The mask with short gaps filled: a block more than was asked for is as of now, too.
fn bridged(mask: u32) -> u32 {
    let mut filled = mask;
    let mut last: Option<u32> = None;
    for block in (0..u32::BITS).filter(|block| mask >> block & 1 == 1) {
        if let Some(last) = last
            && block - last <= COPY_GAP_BLOCKS
        {
            for between in last..block {
                filled |= 1 << between;
            }
        }
        last = Some(block);
    }
    filled
}
