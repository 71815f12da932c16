//! Random histories against a simple model: a map of blocks, and a log to replay. Some entries of
//! the log have filled extents of the store; those must stay as they are until the entry is purged.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use common::*;
use ogee_device::{Device, MemoryControl, Survivors};
use ogee_proto::checksum::crc32c_blocks;
use ogee_proto::limit::BLOCKS_PER_CHUNK;
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::Buffer;
use ogee_runtime::executor::block_on;
use ogee_store::{Adoption, BlockChange, BlockRead, Store, WriteBack};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const CHUNKS: u32 = 3;

/// Blocks by (chunk, block); one that is missing is zeros.
type Content = BTreeMap<(u32, usize), u64>;

#[derive(Clone, Debug)]
enum Change {
    /// So many blocks from a place; a seed, or zeros.
    Range {
        chunk: u32,
        first: usize,
        count: usize,
        seed: Option<u64>,
    },
    RemoveChunk(u32),
    /// Whole extents, which the log has filled.
    Extents {
        chunk: u32,
        first: usize,
        count: usize,
        seed: u64,
    },
}

/// An entry of the log.
struct Logged {
    changes: Vec<Change>,
    /// The extents that it has filled, in order.
    places: Vec<ByteOffset>,
}

#[derive(Clone, Debug)]
enum Step {
    /// The changes of one write-back call.
    Write(Vec<Change>),
    /// A large write, once to fresh extents, which its chunk then adopts.
    Redirect(Change),
    Remove(u32),
    Checkpoint,
    /// The log lets go what the last checkpoint covers.
    Purge,
    /// Power fails; the seed chooses what survives. Then the log is replayed.
    Crash(u64),
}

fn change() -> impl Strategy<Value = Change> {
    // Mostly near the borders of extents (16 blocks) and leaves (832 blocks), where mistakes live.
    let first = prop_oneof![0..64usize, 820..850usize, 4000..BLOCKS_PER_CHUNK];
    let seed = prop_oneof![3 => (1..1_000_000u64).prop_map(Some), 2 => Just(None)];
    (0..CHUNKS, first, 1..40usize, seed).prop_map(|(chunk, first, count, seed)| {
        let count = count.min(BLOCKS_PER_CHUNK - first);
        Change::Range {
            chunk,
            first,
            count,
            seed,
        }
    })
}

fn redirect() -> impl Strategy<Value = Change> {
    // Small and large writes meet in the first four extents, and around the border of two leaves.
    let first = prop_oneof![0..4usize, 50..54usize];
    (0..CHUNKS, first, 1..4usize, 1..1_000_000u64).prop_map(|(chunk, first, count, seed)| {
        Change::Extents {
            chunk,
            first,
            count,
            seed,
        }
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(change(), 1..6).prop_map(Step::Write),
        6 => redirect().prop_map(Step::Redirect),
        1 => (0..CHUNKS).prop_map(Step::Remove),
        3 => Just(Step::Checkpoint),
        2 => Just(Step::Purge),
        2 => any::<u64>().prop_map(Step::Crash),
    ]
}

/// The store, and what must be in it.
struct World {
    device: Device,
    control: MemoryControl,
    store: Store,
    live: Content,
    durable: Content,
    /// Everything since the last checkpoint, as the group's log would have it.
    log: Vec<Logged>,
    /// What the log still holds from before the last checkpoint.
    kept: Vec<Logged>,
    applied: u64,
}

impl World {
    async fn new() -> Self {
        let (store, device, control) = fresh(30).await;
        let (live, durable) = (Content::new(), Content::new());
        Self {
            device,
            control,
            store,
            live,
            durable,
            log: Vec::new(),
            kept: Vec::new(),
            applied: 0,
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Write(changes) => self.append(changes, Vec::new()).await,
            Step::Remove(chunk) => {
                let changes = vec![Change::RemoveChunk(chunk)];
                self.append(changes, Vec::new()).await;
            }
            Step::Redirect(change) => {
                let places = self.fill(&change).await;
                self.append(vec![change], places).await;
            }
            Step::Purge => self.purge().await,
            Step::Checkpoint => self.checkpoint().await,
            Step::Crash(seed) => self.crash(seed).await,
        }
    }

    /// Writes a change to fresh extents, as the log does before its record counts.
    async fn fill(&self, change: &Change) -> Vec<ByteOffset> {
        let blocks = change.contents();
        let count = u32::try_from(blocks.len() / 16).unwrap();
        let places = self.store.take_extents(count).expect("there is room");
        for (at, blocks) in places.iter().zip(blocks.chunks(16)) {
            let bytes: Vec<u8> = blocks.iter().flat_map(|it| bytes_of(it.1)).collect();
            let buffer = Buffer::copy_from(&bytes);
            self.device.write_durable(*at, buffer).await.unwrap();
        }
        places
    }

    async fn append(&mut self, changes: Vec<Change>, places: Vec<ByteOffset>) {
        let logged = Logged { changes, places };
        write(&self.store, &self.device, &logged).await;
        for change in &logged.changes {
            change.apply(&mut self.live);
        }
        self.log.push(logged);
        self.check_all().await;
    }

    async fn checkpoint(&mut self) {
        self.applied += self.log.len() as u64;
        let group = group(self.applied, &self.applied.to_le_bytes());
        self.store.checkpoint(vec![group]).await.unwrap();
        self.durable = self.live.clone();
        self.kept.append(&mut self.log);
        assert_eq!(self.store.usage().pending.get(), 0);
        self.check_all().await;
    }

    async fn purge(&mut self) {
        for logged in self.kept.drain(..) {
            logged.places.iter().for_each(|at| self.store.unpin(*at));
        }
        self.check_all().await;
    }

    /// After a crash there is the last checkpoint, but for blocks overwritten since: those may be
    /// unreadable until the log is replayed, and never wrong.
    async fn crash(&mut self, seed: u64) {
        (self.device, self.control) = self.control.crash(Survivors::Seeded(seed));
        self.store = Store::open(&self.device).await.unwrap();
        for at in self.kept.iter().chain(&self.log).flat_map(|it| &it.places) {
            self.store.pin(*at).unwrap();
        }
        let applied = self
            .store
            .group(GROUP)
            .map_or(0, |group| group.applied.index.get());
        assert_eq!(applied, self.applied);
        let touched = self.touched();
        for place in touched.iter().chain(self.durable.keys()) {
            let found = read(&self.store, place.0, place.1).await;
            let is_excused = touched.contains(place) && is_checksum_error(&found);
            let seed = self.durable.get(place);
            let expected = seed.map_or_else(|| vec![0; 4096], |seed| bytes_of(*seed));
            assert!(
                is_excused || found.unwrap() == expected,
                "{place:?} after a crash"
            );
        }
        // Replay is repeatable: the second round changes nothing.
        for _ in 0..2 {
            for logged in &self.log {
                write(&self.store, &self.device, logged).await;
            }
            self.check_all().await;
        }
    }

    fn touched(&self) -> BTreeSet<(u32, usize)> {
        let changes = self.log.iter().flat_map(|logged| &logged.changes);
        changes.flat_map(Change::places).collect()
    }

    /// Every block of every chunk, and the bookkeeping.
    async fn check_all(&self) {
        for chunk in 0..CHUNKS {
            self.check_chunk(chunk).await;
        }
        for logged in self.kept.iter().chain(&self.log) {
            self.check_filled(logged).await;
        }
        let usage = self.store.usage();
        let extents: BTreeSet<_> = self
            .live
            .keys()
            .map(|(chunk, at)| (chunk, at / 16))
            .collect();
        let held = usage.free.get() + usage.pending.get() + usage.pinned.get();
        let mapped = usage.capacity.get() - held;
        assert_eq!(
            mapped,
            extents.len() as u64 * (64 << 10),
            "every extent is accounted for"
        );
    }

    /// A record of the log must be able to prove and serve its payload as long as it is there.
    async fn check_filled(&self, logged: &Logged) {
        let blocks: Vec<_> = logged.changes.iter().flat_map(Change::contents).collect();
        for (at, blocks) in logged.places.iter().zip(blocks.chunks(16)) {
            let found = self.device.read(*at, ByteLen::new(64 << 10)).await.unwrap();
            let expected: Vec<u8> = blocks.iter().flat_map(|it| bytes_of(it.1)).collect();
            assert!(found[..] == expected[..], "a pinned extent was overwritten");
        }
    }

    async fn check_chunk(&self, chunk: u32) {
        let runs = self
            .store
            .read(GROUP, key(chunk), block(0), BLOCKS_PER_CHUNK)
            .await
            .unwrap();
        let mut found = Vec::new();
        let mut at = 0;
        for run in &runs {
            if let BlockRead::Data(bytes) = run {
                for (at, got) in (at..).zip(bytes.chunks(4096)) {
                    let seed = self.live.get(&(chunk, at));
                    assert!(
                        seed.is_some_and(|it| got == bytes_of(*it)),
                        "chunk {chunk} block {at}"
                    );
                    found.push(at);
                }
            }
            at += run.blocks();
        }
        assert_eq!(at, BLOCKS_PER_CHUNK);
        let places = self.live.range((chunk, 0)..(chunk + 1, 0));
        assert_eq!(found, places.map(|(place, _)| place.1).collect::<Vec<_>>());
        let allocated = self.store.allocated(GROUP, key(chunk)).unwrap();
        assert_eq!(
            allocated.iter().map(|it| it.as_usize()).collect::<Vec<_>>(),
            found
        );
        assert_eq!(
            self.store.chunks(GROUP).contains(&key(chunk)),
            !found.is_empty()
        );
    }
}

impl Change {
    fn places(&self) -> Vec<(u32, usize)> {
        match *self {
            Self::Range {
                chunk,
                first,
                count,
                ..
            } => (first..first + count).map(|at| (chunk, at)).collect(),
            Self::RemoveChunk(chunk) => (0..BLOCKS_PER_CHUNK).map(|at| (chunk, at)).collect(),
            Self::Extents {
                chunk,
                first,
                count,
                ..
            } => (first * 16..(first + count) * 16)
                .map(|at| (chunk, at))
                .collect(),
        }
    }

    /// The seed of every block of whole extents.
    fn contents(&self) -> Vec<((u32, usize), u64)> {
        let Self::Extents { seed, .. } = self else {
            return Vec::new();
        };
        let places = self.places().into_iter();
        places.map(|place| (place, seed + place.1 as u64)).collect()
    }

    fn apply(&self, content: &mut Content) {
        for place in self.places() {
            match self {
                Self::Range {
                    seed: Some(seed), ..
                }
                | Self::Extents { seed, .. } => {
                    content.insert(place, seed + place.1 as u64);
                }
                _ => {
                    content.remove(&place);
                }
            }
        }
    }

    fn write_backs(&self) -> Vec<WriteBack> {
        let Self::Range { seed, .. } = self else {
            return Vec::new();
        };
        self.places()
            .into_iter()
            .map(|(chunk, at)| match seed {
                Some(seed) => data(chunk, at, seed + at as u64),
                None => WriteBack {
                    what: BlockChange::Zero,
                    ..data(chunk, at, 0)
                },
            })
            .collect()
    }
}

async fn write(store: &Store, device: &Device, logged: &Logged) {
    match &logged.changes[..] {
        [Change::RemoveChunk(chunk)] => store.remove_chunk(GROUP, key(*chunk)).await.unwrap(),
        [change @ Change::Extents { .. }] => take_over(store, device, change, logged).await,
        changes => {
            let changes = changes.iter().flat_map(Change::write_backs).collect();
            store.write_back(GROUP, changes).await.unwrap();
        }
    }
}

/// Adopts the extents; after a crash one may be mapped elsewhere or not at all any more, and is copied.
async fn take_over(store: &Store, device: &Device, change: &Change, logged: &Logged) {
    let (mut adoptions, mut changes) = (Vec::new(), Vec::new());
    for (at, blocks) in logged.places.iter().zip(change.contents().chunks(16)) {
        let ((chunk, first), _) = blocks[0];
        let (key, first) = (key(chunk), block(first));
        if store.is_adoptable(key, first, *at) {
            let bytes = device.read(*at, ByteLen::new(64 << 10)).await.unwrap();
            let crcs = crc32c_blocks(&bytes).0.try_into().unwrap();
            let at = *at;
            adoptions.push(Adoption {
                key,
                first,
                at,
                crcs,
            });
        } else {
            changes.extend(
                blocks
                    .iter()
                    .map(|((chunk, at), seed)| data(*chunk, *at, *seed)),
            );
        }
    }
    store.take_over(GROUP, changes, adoptions).await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn every_history_agrees_with_the_model(steps in prop::collection::vec(step(), 1..25)) {
        block_on(async move {
            let mut world = World::new().await;
            for step in steps {
                world.step(step).await;
            }
            world.crash(1).await;
        });
    }
}
