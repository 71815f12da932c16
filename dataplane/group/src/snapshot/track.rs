//! Which blocks a replica that is being copied to has got already.
//!
//! *Place*: asked and told by the sender, told by apply of every block that changes.
//! *Owner*: the replica that sends; lost with its process, which costs only time.
//! *Invariants*: a block counts as good only while what the target was sent is what this replica's
//! applied state holds: apply takes the mark off again in the same step in which it changes the
//! block. Marks of pieces that were never acknowledged are taken off when their attempt ends.
//! *On failure*: a copy that knows less sends more.

use super::gain::Gain;
use super::laggards::Laggards;
use super::last_pass::LastPass;
use crate::changes::Since;
use crate::limit::{COPY_GAP_BLOCKS, COPY_KEPT, COPY_PIECE_BLOCKS};
use crate::types::RaftEntry;
use ogee_proto::id::{ChunkKey, ReplicaId};
use ogee_proto::limit::{BLOCK_SIZE, BLOCKS_PER_CHUNK};
use ogee_runtime::channel::Permit;
use ogee_runtime::{Instant, ScopedTask, seeded_bug};
use openraft::EntryPayload;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Pieces of a chunk.
pub(crate) const PIECES: usize = BLOCKS_PER_CHUNK / COPY_PIECE_BLOCKS;

/// Every copy that this replica sends or might go on with.
#[derive(Default)]
pub(crate) struct Copies {
    tracks: RefCell<BTreeMap<ReplicaId, Rc<Track>>>,
    /// Those that got their copy and need the log behind it: who keeps it for them.
    catching_up: RefCell<BTreeMap<ReplicaId, ScopedTask<()>>>,
    /// Those that did not.
    pub(super) laggards: Laggards,
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
    counts: Cell<Counts>,
    /// How much of the machine the copy takes.
    pub(super) gain: Gain,
    /// The next attempt is to be the last: all that it needs.
    ending: RefCell<Option<Ending>>,
}

/// What an attempt prepared for the next one: the shard's turn, and the end.
pub(super) type Ending = (Permit, LastPass);

/// Blocks so far.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Counts {
    /// That the target has taken.
    pub(super) sent: u64,
    /// That were changed here.
    pub(super) changed: u64,
    /// Of those that the target had.
    pub(super) spoiled: u64,
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
    /// Blocks that may have to be sent.
    pub(crate) const fn blocks(&self) -> usize {
        match self.what {
            What::Blocks(mask) => mask.count_ones() as usize,
            What::Zeros(_) => 0,
        }
    }
}

/// Bytes of some pieces that may have to be sent.
pub(super) fn len_of(pieces: &[Wanted]) -> usize {
    pieces.iter().map(Wanted::blocks).sum::<usize>() * BLOCK_SIZE
}

/// Pieces of one chunk, put together as one step sends them: so many blocks at most, or one run of
/// zeros.
pub(super) fn batches(wanted: Vec<Wanted>) -> Vec<Vec<Wanted>> {
    let mut batches: Vec<Vec<Wanted>> = Vec::new();
    let mut room = 0;
    for piece in wanted {
        let blocks = piece.blocks();
        match batches.last_mut() {
            Some(batch) if 0 < blocks && blocks <= room => {
                room -= blocks;
                batch.push(piece);
            }
            _ => {
                room = if blocks == 0 {
                    0
                } else {
                    COPY_PIECE_BLOCKS - blocks
                };
                batches.push(vec![piece]);
            }
        }
    }
    batches
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
        if tracks.is_empty() || seeded_bug!("copy-skips-changed") {
            return;
        }
        let EntryPayload::Normal(command) = &entry.payload else {
            return;
        };
        let head = &command.head;
        if head.kind.changes_blocks() && head.is_in_range() {
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
                counts: Cell::default(),
                gain: Gain::default(),
                ending: RefCell::default(),
            })
        });
        track.clone()
    }

    /// The copy to a target is complete: from here on it catches up, and somebody keeps the log.
    pub(crate) fn completed(&self, target: ReplicaId, keeps: ScopedTask<()>) {
        self.tracks.borrow_mut().remove(&target);
        self.catching_up.borrow_mut().insert(target, keeps);
    }

    /// Whether a target is to get no copy for now. One that needs another while the log is still kept
    /// for it after its last has fallen behind again.
    pub(crate) fn is_resting(&self, target: ReplicaId) -> bool {
        let last = self.catching_up.borrow_mut().remove(&target);
        if last.is_some_and(|last| !last.is_finished()) {
            let pause = self.laggards.note(target);
            tracing::warn!(%target, ?pause, "a replica got its copy and needs another one at once: later");
        }
        self.laggards.is_resting(target)
    }

    /// Whether any copy gains nothing on the writers, or its target does not after it.
    pub(crate) fn is_outrun(&self) -> bool {
        let tracks = self.tracks.borrow();
        self.laggards.are_there() || tracks.values().any(|track| track.gain.is_outrun())
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

    /// Keeps what the next attempt needs to be the last.
    pub(super) fn prepared(&self, ending: Ending) {
        self.ending.replace(Some(ending));
    }

    /// What the attempt before has prepared.
    pub(super) fn take_ending(&self) -> Option<Ending> {
        self.ending.take()
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts.get()
    }

    /// Whether the target lacks anything of a chunk.
    pub(crate) fn lacks_of(&self, key: ChunkKey) -> bool {
        let good = self.good.borrow();
        let good = good.get(&key);
        good.is_none_or(|good| good.iter().any(|good| *good != u32::MAX))
    }

    /// How many blocks of these chunks the target lacks.
    pub(crate) fn lacks(&self, keys: &BTreeSet<ChunkKey>) -> u64 {
        let good = self.good.borrow();
        let lacks = keys.iter().map(|key| {
            let good = good.get(key).map_or([0; PIECES].iter(), |good| good.iter());
            good.map(|good| u64::from(good.count_zeros())).sum::<u64>()
        });
        lacks.sum()
    }

    /// The target has begun; another token than before means that it has nothing of this copy, and what
    /// has not changed since the checkpoint that it comes from, if that is known. Only chunks of `keys` matter from
    /// here on: it drops all others.
    pub(crate) fn begun(&self, token: u64, keys: &BTreeSet<ChunkKey>, since: Option<&Since>) {
        let mut good = self.good.borrow_mut();
        if self.token.replace(token) != token {
            good.clear();
            if let Some(since) = since {
                good.extend(
                    keys.iter()
                        .map(|key| (*key, Box::new(since.unchanged(*key)))),
                );
            }
        }
        good.retain(|key, _| keys.contains(key));
    }

    /// What the target still needs of a chunk; it counts as good from here on. `present`: a mask
    /// per piece of the blocks that hold data now.
    pub(crate) fn claim(&self, key: ChunkKey, present: &[u32; PIECES]) -> Vec<Wanted> {
        self.claim_where(key, present, |_| true)
    }

    /// The same of pieces without data only.
    pub(crate) fn claim_absent(&self, key: ChunkKey, present: &[u32; PIECES]) -> Vec<Wanted> {
        self.claim_where(key, present, |present| present == 0)
    }

    fn claim_where(
        &self,
        key: ChunkKey,
        present: &[u32; PIECES],
        is_meant: impl Fn(u32) -> bool,
    ) -> Vec<Wanted> {
        let mut good = self.good.borrow_mut();
        let good = good.entry(key).or_insert_with(|| Box::new([0; PIECES]));
        let mut wanted: Vec<Wanted> = Vec::new();
        for (piece, (good, present)) in good.iter_mut().zip(present).enumerate() {
            if *good == u32::MAX || !is_meant(*present) {
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
            let mut counts = self.counts.get();
            counts.sent += wanted.blocks() as u64;
            self.counts.set(counts);
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
                What::Zeros(count) => {
                    self.spoil(wanted.key, first, usize::from(count));
                }
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
        let spoiled = self.spoil(key, first, count);
        let mut counts = self.counts.get();
        counts.changed += count as u64;
        counts.spoiled += spoiled;
        self.counts.set(counts);
    }

    /// Blocks are not good any more; how many were.
    fn spoil(&self, key: ChunkKey, first: usize, count: usize) -> u64 {
        let mut good = self.good.borrow_mut();
        let Some(good) = good.get_mut(&key) else {
            return 0;
        };
        let mut spoiled = 0;
        for block in first..first + count {
            let (word, bit) = (
                &mut good[block / COPY_PIECE_BLOCKS],
                block % COPY_PIECE_BLOCKS,
            );
            spoiled += u64::from(*word >> bit & 1);
            *word &= !(1 << bit);
        }
        spoiled
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

#[cfg(test)]
mod tests {
    use super::{Counts, PIECES, Track, Wanted, What, batches, bridged, first_block};
    use crate::snapshot::gain::Gain;
    use ogee_proto::id::{ChunkIndex, ChunkKey, VolumeId};
    use ogee_proto::limit::BLOCKS_PER_CHUNK;
    use proptest::collection::vec;
    use proptest::prelude::{Strategy, any, prop_assert_eq, prop_oneof, proptest};
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeSet;

    fn key(chunk: u32) -> ChunkKey {
        ChunkKey {
            volume: VolumeId::new(1),
            chunk: ChunkIndex::new(chunk),
        }
    }

    fn track() -> Track {
        Track {
            id: 1,
            attempt: Cell::new(0),
            token: Cell::new(0),
            good: RefCell::default(),
            unsure: RefCell::default(),
            used: Cell::new(ogee_runtime::now()),
            counts: Cell::default(),
            gain: Gain::default(),
            ending: RefCell::default(),
        }
    }

    #[test]
    fn only_short_gaps_are_filled() {
        assert_eq!(bridged(0b101), 0b111);
        assert_eq!(bridged(0b1001), 0b1001);
        assert_eq!(bridged(0b1011_0001), 0b1111_0001);
        assert_eq!(bridged(0), 0);
    }

    #[test]
    fn what_lies_apart_travels_together_as_far_as_it_fits() {
        let piece = |number, what| Wanted {
            key: key(0),
            first: first_block(number),
            what,
        };
        let blocks = |number, mask| piece(number, What::Blocks(mask));
        let pieces = vec![
            blocks(0, 0b1),
            blocks(3, 0xff),
            blocks(4, 0x7f_ffff),
            blocks(5, 0b1),
            piece(6, What::Zeros(64)),
            blocks(8, u32::MAX),
            blocks(9, 0b11),
        ];
        let lens: Vec<usize> = batches(pieces.clone()).iter().map(Vec::len).collect();
        assert_eq!(lens, [3, 1, 1, 1, 1], "32 blocks, then no more");
        assert_eq!(batches(pieces.clone()).concat(), pieces);
    }

    #[test]
    fn what_the_target_lacks_is_counted_by_what_happens() {
        ogee_runtime::executor::block_on(async {
            let track = track();
            let keys = BTreeSet::from([key(0)]);
            let attempt = track.begin();
            track.begun(7, &keys, None);
            assert_eq!(track.lacks(&keys), BLOCKS_PER_CHUNK as u64);
            for wanted in track.claim(key(0), &[u32::MAX; PIECES]) {
                track.taken(attempt, &wanted);
            }
            assert!(!track.lacks_of(key(0)));
            track.changed(key(0), 30, 4);
            track.changed(key(0), 31, 1);
            track.changed(key(1), 0, 1);
            assert_eq!(track.lacks(&keys), 4);
            assert!(track.lacks_of(key(0)) && track.lacks_of(key(1)));
            let counts = Counts {
                sent: BLOCKS_PER_CHUNK as u64,
                changed: 6,
                spoiled: 4,
            };
            assert_eq!(track.counts(), counts);
        });
    }

    /// Two ends of a copy: the version of each block, zero for absent ones.
    struct Ends {
        track: Track,
        source: Vec<u64>,
        target: Vec<u64>,
        /// Versions as of the checkpoint of the present attempt.
        next: u64,
    }

    const CHUNKS: usize = 2;

    impl Ends {
        fn write(&mut self, at: usize, count: usize, zero: bool) {
            let chunk = at / BLOCKS_PER_CHUNK;
            let first = at % BLOCKS_PER_CHUNK;
            let count = count.min(BLOCKS_PER_CHUNK - first);
            let number = u32::try_from(chunk).expect("few");
            self.track.changed(key(number), first, count);
            self.next += 1;
            self.source[at..at + count].fill(if zero { 0 } else { self.next });
        }

        fn present(&self, chunk: usize) -> [u32; PIECES] {
            let blocks = &self.source[chunk * BLOCKS_PER_CHUNK..][..BLOCKS_PER_CHUNK];
            let mask = |piece: &[u64]| {
                let bits = piece.iter().enumerate();
                bits.fold(0, |mask, (at, version)| {
                    mask | u32::from(*version != 0) << at
                })
            };
            let masks: Vec<u32> = blocks.chunks(32).map(mask).collect();
            masks.try_into().expect("as many as there are")
        }

        fn take(&mut self, chunk: usize, wanted: &Wanted) {
            let start = chunk * BLOCKS_PER_CHUNK + usize::from(wanted.first);
            match wanted.what {
                What::Zeros(count) => self.target[start..start + usize::from(count)].fill(0),
                What::Blocks(mask) => {
                    for at in (0..32).filter(|at| mask >> at & 1 == 1) {
                        self.target[start + at] = self.source[start + at];
                    }
                }
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write(usize, usize, bool),
        /// One attempt: how many pieces arrive, and how many of those are acknowledged; between
        /// two pieces somebody may write.
        Attempt(usize, usize, Vec<(usize, usize, bool)>),
        /// The target forgets.
        Forget,
    }

    fn write() -> impl Strategy<Value = (usize, usize, bool)> {
        (0..CHUNKS * BLOCKS_PER_CHUNK, 1..80usize, any::<bool>())
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let attempt = (0..300usize, 0..300usize, vec(write(), 0..20));
        let step = prop_oneof![
            6 => write().prop_map(|(at, count, zero)| Step::Write(at, count, zero)),
            3 => attempt.prop_map(|(arrive, acked, writes)| Step::Attempt(arrive, acked, writes)),
            1 => proptest::strategy::Just(Step::Forget),
        ];
        vec(step, 1..40)
    }

    type Claim = fn(&Track, ChunkKey, &[u32; PIECES]) -> Vec<Wanted>;

    /// Runs an attempt; true if it came to its end.
    fn attempt(
        ends: &mut Ends,
        token: u64,
        arrive: usize,
        acked: usize,
        writes: &[(usize, usize, bool)],
    ) -> bool {
        let number = ends.track.begin();
        ends.track.begun(
            token,
            &(0..CHUNKS)
                .map(|chunk| key(u32::try_from(chunk).expect("few")))
                .collect::<BTreeSet<_>>(),
            None,
        );
        let (mut sent, mut writes) = (0, writes.iter());
        // First what is absent, then all.
        let passes: [Claim; 2] = [Track::claim_absent, Track::claim];
        for (claim, chunk) in passes
            .into_iter()
            .flat_map(|claim| (0..CHUNKS).map(move |chunk| (claim, chunk)))
        {
            let number_of = u32::try_from(chunk).expect("few");
            let present = ends.present(chunk);
            for wanted in claim(&ends.track, key(number_of), &present) {
                if let What::Blocks(_) = wanted.what
                    && let Some((at, count, zero)) = writes.next()
                {
                    // Between the claim and the read.
                    ends.write(*at, *count, *zero);
                }
                if sent >= arrive {
                    ends.track.end_attempt(number);
                    return false;
                }
                ends.take(chunk, &wanted);
                sent += 1;
                if sent <= acked {
                    ends.track.taken(number, &wanted);
                }
            }
        }
        ends.track.end_attempt(number);
        acked >= sent
    }

    proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(64))]

        /// Whatever broke off before: after a whole attempt, a block that nobody wrote since the
        /// attempt began is at the target as it is here.
        #[test]
        fn a_whole_attempt_brings_what_it_found(steps in steps()) {
            ogee_runtime::executor::block_on(async {});
            let blocks = CHUNKS * BLOCKS_PER_CHUNK;
            let mut ends = ogee_runtime::executor::block_on(async move {
                Ends { track: track(), source: vec![0; blocks], target: vec![0; blocks], next: 0 }
            });
            let mut token = 1;
            ogee_runtime::executor::block_on(async move {
                for step in steps {
                    match step {
                        Step::Write(at, count, zero) => ends.write(at, count, zero),
                        Step::Forget => {
                            token += 1;
                            ends.target.fill(u64::MAX);
                        }
                        Step::Attempt(arrive, acked, writes) => {
                            attempt(&mut ends, token, arrive, acked, &writes);
                        }
                    }
                }
                let found = ends.source.clone();
                let disturbance = [(5, 60, false), (4000, 200, true)];
                assert!(attempt(&mut ends, token, usize::MAX, usize::MAX, &disturbance));
                for (at, version) in found.iter().enumerate() {
                    if ends.source[at] == *version {
                        prop_assert_eq!(ends.target[at], *version, "block {}", at);
                    }
                }
                Ok(())
            })?;
        }
    }

    #[test]
    fn a_later_attempt_takes_no_word_of_an_earlier_one() {
        ogee_runtime::executor::block_on(async {
            let track = track();
            let keys = BTreeSet::from([key(0)]);
            let first = track.begin();
            track.begun(7, &keys, None);
            let mut present = [0; PIECES];
            present[3] = 1;
            let claimed = track.claim(key(0), &present);
            let piece = *claimed
                .iter()
                .find(|it| it.first == first_block(3))
                .expect("claimed");
            let second = track.begin();
            track.begun(7, &keys, None);
            assert_eq!(
                track.claim(key(0), &present),
                claimed,
                "nothing was acknowledged"
            );
            track.taken(first, &piece);
            track.end_attempt(first);
            track.end_attempt(second);
            let third = track.begin();
            track.begun(7, &keys, None);
            assert_eq!(track.claim(key(0), &present), claimed, "nor was it later");
            for wanted in &claimed {
                track.taken(third, wanted);
            }
            track.end_attempt(third);
            track.begin();
            track.begun(7, &keys, None);
            assert_eq!(track.claim(key(0), &present), []);
            track.begun(8, &keys, None);
            assert_eq!(
                track.claim(key(0), &present),
                claimed,
                "another token: from nothing"
            );
        });
    }
}
