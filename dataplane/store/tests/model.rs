//! Random histories against a simple model: a map of blocks, and a log to replay.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use common::*;
use ogee_device::{Device, MemoryControl, Survivors};
use ogee_proto::limit::BLOCKS_PER_CHUNK;
use ogee_runtime::executor::block_on;
use ogee_store::{BlockChange, BlockRead, Store, WriteBack};
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
}

#[derive(Clone, Debug)]
enum Step {
    /// The changes of one write-back call.
    Write(Vec<Change>),
    Remove(u32),
    Checkpoint,
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

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(change(), 1..6).prop_map(Step::Write),
        1 => (0..CHUNKS).prop_map(Step::Remove),
        3 => Just(Step::Checkpoint),
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
    log: Vec<Vec<Change>>,
    applied: u64,
}

impl World {
    async fn new() -> Self {
        let (store, device, control) = fresh(30).await;
        let (live, durable, log) = (Content::new(), Content::new(), Vec::new());
        Self {
            device,
            control,
            store,
            live,
            durable,
            log,
            applied: 0,
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Write(changes) => {
                self.apply(&changes).await;
                self.log.push(changes);
            }
            Step::Remove(chunk) => {
                let changes = vec![Change::RemoveChunk(chunk)];
                self.apply(&changes).await;
                self.log.push(changes);
            }
            Step::Checkpoint => self.checkpoint().await,
            Step::Crash(seed) => self.crash(seed).await,
        }
    }

    async fn checkpoint(&mut self) {
        self.applied += self.log.len() as u64;
        let group = group(self.applied, &self.applied.to_le_bytes());
        self.store.checkpoint(vec![group]).await.unwrap();
        self.durable = self.live.clone();
        self.log.clear();
        assert_eq!(self.store.usage().pending.get(), 0);
    }

    async fn apply(&mut self, changes: &[Change]) {
        write(&self.store, changes).await;
        for change in changes {
            change.apply(&mut self.live);
        }
        self.check_all().await;
    }

    /// After a crash there is the last checkpoint, but for blocks overwritten since: those may be
    /// unreadable until the log is replayed, and never wrong.
    async fn crash(&mut self, seed: u64) {
        (self.device, self.control) = self.control.crash(Survivors::Seeded(seed));
        self.store = Store::open(&self.device).await.unwrap();
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
            for changes in &self.log {
                write(&self.store, changes).await;
            }
            self.check_all().await;
        }
    }

    fn touched(&self) -> BTreeSet<(u32, usize)> {
        self.log.iter().flatten().flat_map(Change::places).collect()
    }

    /// Every block of every chunk, and the bookkeeping.
    async fn check_all(&self) {
        for chunk in 0..CHUNKS {
            self.check_chunk(chunk).await;
        }
        let usage = self.store.usage();
        let extents: BTreeSet<_> = self
            .live
            .keys()
            .map(|(chunk, at)| (chunk, at / 16))
            .collect();
        let mapped = usage.capacity.get() - usage.free.get() - usage.pending.get();
        assert_eq!(
            mapped,
            extents.len() as u64 * (64 << 10),
            "every extent is accounted for"
        );
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
        }
    }

    fn apply(&self, content: &mut Content) {
        for place in self.places() {
            match self {
                Self::Range {
                    seed: Some(seed), ..
                } => {
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

async fn write(store: &Store, changes: &[Change]) {
    if let [Change::RemoveChunk(chunk)] = changes {
        store.remove_chunk(GROUP, key(*chunk)).await.unwrap();
        return;
    }
    let changes = changes.iter().flat_map(Change::write_backs).collect();
    store.write_back(GROUP, changes).await.unwrap();
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
