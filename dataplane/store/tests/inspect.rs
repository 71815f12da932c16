//! Metadata that rots while the store is in use: found, and put right from the other copy, or from memory.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use common::*;
use ogee_device::{Device, FaultPlan, FaultRule, Survivors};
use ogee_proto::unit::{BlockIndex, ByteLen, ByteOffset};
use ogee_runtime::executor::block_on;
use ogee_runtime::{Buffer, Payload, spawn};
use ogee_store::{MetadataPlace, Store, StoreCounters};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const PAGE: u64 = 4096;
/// Both superblocks, and both lists of retired extents.
const HEAD: [[u64; 2]; 2] = [[0, 64 << 10], [128 << 10, 192 << 10]];

/// All of it, once; what the counters say afterwards.
async fn inspect(store: &Store) -> StoreCounters {
    let mut at = Some(MetadataPlace::default());
    while let Some(place) = at {
        let step = store.metadata_step(place).await.unwrap();
        store.inspect(&step).await.unwrap();
        at = step.next();
    }
    store.counters()
}

async fn flip(device: &Device, at: ByteOffset, byte: usize) {
    let read = device.read(at, ByteLen::new(PAGE)).await.unwrap();
    let mut page = Buffer::copy_from(&read);
    page[byte % 4096] ^= 0x40;
    device.write(at, page).await.unwrap();
}

async fn wipe(device: &Device, at: ByteOffset, len: u64) {
    let zeros = Buffer::zeroed(usize::try_from(len).unwrap());
    device.write(at, zeros).await.unwrap();
}

/// Where copies of a page are.
fn slot(store: &Store, copy: usize, slot: u64) -> ByteOffset {
    page_areas(store).0[copy].add(ByteLen::new(slot * PAGE))
}

/// Some chunks, a state of a few pages, and a list of retired extents, durable.
async fn filled(device: &Device) -> Store {
    let store = Store::open(device).await.unwrap();
    let blocks = (0..40).map(|it| data(it % 4, it as usize * 97, u64::from(it)));
    store.write_back(GROUP, blocks.collect()).await.unwrap();
    store.checkpoint(vec![group(1, &[7; 9000])]).await.unwrap();
    store.pause(true).await.unwrap();
    store
}

async fn is_as_filled(store: &Store) -> bool {
    let mut is = store.group(GROUP) == Some(group(1, &[7; 9000])) && store.is_paused();
    for it in 0..40 {
        is &= holds(store, it % 4, it as usize * 97, Some(u64::from(it))).await;
    }
    is
}

#[test]
fn what_is_whole_is_let_be() {
    block_on(async {
        let (device, _) = formatted(40).await;
        let store = filled(&device).await;
        let before = store.counters();
        let after = inspect(&store).await;
        // Two superblocks, two lists; both copies of 4 chunks' leaves, 3 pages of state, a table and a root.
        let leaves: BTreeSet<_> = (0..40u32)
            .map(|it| {
                (
                    it % 4,
                    Store::map_page_of(BlockIndex::new(it as usize * 97).unwrap()),
                )
            })
            .collect();
        assert_eq!(
            after.metadata_copies_checked,
            2 * (2 + leaves.len() as u64 + 3 + 2)
        );
        let expected = StoreCounters {
            metadata_copies_checked: after.metadata_copies_checked,
            ..before
        };
        assert_eq!(after, expected, "nothing was written, repaired or missed");
    });
}

#[test]
fn each_copy_of_each_page_is_rewritten_from_the_other() {
    block_on(async {
        let (device, control) = formatted(40).await;
        let store = filled(&device).await;
        let pages = inspect(&store).await.metadata_copies_checked / 2 - 2;
        for copy in [0, 1] {
            for page in 0..pages {
                flip(
                    &device,
                    slot(&store, copy, page),
                    100 + 7 * usize::try_from(page).unwrap(),
                )
                .await;
            }
            for at in HEAD {
                flip(&device, ByteOffset::new(at[copy]), 33).await;
            }
            let before = store.counters();
            let after = inspect(&store).await;
            assert_eq!(after.metadata_repairs - before.metadata_repairs, pages + 2);
            assert_eq!((after.metadata_rewrites, after.metadata_refusals), (0, 0));
            // Durable, and good: the other copy may go.
            let (crashed, _) = control.crash(Survivors::None);
            let (areas, len) = page_areas(&store);
            wipe(&crashed, areas[1 - copy], len.get()).await;
            for at in HEAD {
                wipe(&crashed, ByteOffset::new(at[1 - copy]), PAGE).await;
            }
            assert!(is_as_filled(&Store::open(&crashed).await.unwrap()).await);
        }
        assert_eq!(inspect(&store).await.metadata_repairs, 2 * (pages + 2));
    });
}

#[test]
fn a_page_without_a_good_copy_is_written_anew_with_what_the_store_knows() {
    block_on(async {
        let (device, control) = formatted(40).await;
        let store = filled(&device).await;
        // Known by the store alone: it is not taken for what was on the device.
        store.write_back(GROUP, vec![data(9, 0, 99)]).await.unwrap();
        let (areas, len) = page_areas(&store);
        for at in areas {
            wipe(&device, at, len.get()).await;
        }
        for at in HEAD.into_iter().flatten() {
            flip(&device, ByteOffset::new(at), 50).await;
        }
        let checkpoints = store.counters().checkpoints;
        let after = inspect(&store).await;
        assert!(after.metadata_rewrites > 10, "{after:?}");
        assert!(after.checkpoints > checkpoints);
        let (crashed, _) = control.crash(Survivors::None);
        let reopened = Store::open(&crashed).await.unwrap();
        assert!(is_as_filled(&reopened).await);
        assert!(holds(&reopened, 9, 0, Some(99)).await);
        let again = inspect(&store).await;
        assert_eq!(
            again.metadata_rewrites, after.metadata_rewrites,
            "all is whole again"
        );
        assert_eq!(again.metadata_repairs, after.metadata_repairs);
    });
}

/// After so many writes the device takes nothing any more, as after a power cut: what a torn write leaves is as bad as
/// what was there.
#[test]
fn a_power_cut_during_a_repair_costs_nothing() {
    block_on(async {
        for writes in 0..15 {
            let (memory, control) = formatted(40).await;
            let (device, faults) = Device::fault(memory.clone(), FaultPlan::new());
            let store = filled(&device).await;
            for page in 0..12 {
                flip(&memory, slot(&store, usize::from(page % 3 == 0), page), 200).await;
            }
            for (at, copy) in HEAD.into_iter().zip([1, 0]) {
                flip(&memory, ByteOffset::new(at[copy]), 60).await;
            }
            faults.add(FaultRule::lose_writes().after(writes));
            let repaired = inspect(&store).await.metadata_repairs;
            assert_eq!(repaired, writes.min(14));
            let (crashed, _) = control.crash(Survivors::None);
            assert!(is_as_filled(&Store::open(&crashed).await.unwrap()).await);
        }
    });
}

#[test]
fn a_copy_that_takes_nothing_is_counted_and_the_other_one_serves() {
    block_on(async {
        let (memory, _) = formatted(40).await;
        let (device, faults) = Device::fault(memory.clone(), FaultPlan::new());
        let store = filled(&device).await;
        flip(&memory, slot(&store, 1, 2), 300).await;
        let (areas, len) = page_areas(&store);
        faults.add(FaultRule::lose_writes().within(areas[1], len));
        for round in 1..3 {
            let after = inspect(&store).await;
            assert_eq!(
                (after.metadata_repairs, after.metadata_refusals),
                (0, round)
            );
        }
        assert!(is_as_filled(&Store::open(&memory).await.unwrap()).await);
        faults.clear();
        assert_eq!(inspect(&store).await.metadata_repairs, 1);
    });
}

#[derive(Clone, Debug)]
enum Step {
    Write {
        chunk: u32,
        at: usize,
    },
    Clear {
        chunk: u32,
        at: usize,
    },
    Checkpoint {
        state: usize,
    },
    /// One copy of a page, used or not.
    Rot {
        copy: usize,
        page: u64,
        byte: usize,
    },
    RotHead {
        copy: usize,
        which: usize,
        byte: usize,
    },
    Inspect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u32..4, 0usize..4096).prop_map(|(chunk, at)| Step::Write { chunk, at }),
        1 => (0u32..4, 0usize..4096).prop_map(|(chunk, at)| Step::Clear { chunk, at }),
        2 => (0usize..20_000).prop_map(|state| Step::Checkpoint { state }),
        6 => (0usize..2, 0u64..48, 0usize..4096).prop_map(|(copy, page, byte)| Step::Rot { copy, page, byte }),
        1 => (0usize..2, 0usize..2, 0usize..4096)
            .prop_map(|(copy, which, byte)| Step::RotHead { copy, which, byte }),
        2 => Just(Step::Inspect),
    ]
}

/// A store, what it should hold, and which copies were hit since the last inspection.
struct Lab {
    device: Device,
    store: Store,
    model: BTreeMap<(u32, usize), u64>,
    hit: BTreeMap<u64, usize>,
    hit_head: BTreeMap<usize, usize>,
    seed: u64,
}

impl Lab {
    async fn new() -> (Self, ogee_device::MemoryControl) {
        let (device, control) = formatted(40).await;
        let store = Store::open(&device).await.unwrap();
        let (model, hit, hit_head) = Default::default();
        let lab = Self {
            device,
            store,
            model,
            hit,
            hit_head,
            seed: 0,
        };
        (lab, control)
    }

    async fn take(&mut self, step: Step) {
        self.seed += 1;
        match step {
            Step::Write { chunk, at } => {
                let change = data(chunk, at, self.seed);
                self.store.write_back(GROUP, vec![change]).await.unwrap();
                self.model.insert((chunk, at), self.seed);
            }
            Step::Clear { chunk, at } => {
                let cleared = self.store.write_back(GROUP, vec![zero(chunk, at)]);
                cleared.await.unwrap();
                self.model.remove(&(chunk, at));
            }
            Step::Checkpoint { state } => self.checkpoint(state).await,
            Step::Rot { copy, page, byte } => {
                if *self.hit.entry(page).or_insert(copy) == copy {
                    flip(&self.device, slot(&self.store, copy, page), byte).await;
                }
            }
            Step::RotHead { copy, which, byte } => {
                if *self.hit_head.entry(which).or_insert(copy) == copy {
                    flip(&self.device, ByteOffset::new(HEAD[which][copy]), byte).await;
                }
            }
            Step::Inspect => {
                inspect(&self.store).await;
                self.hit.clear();
                self.hit_head.clear();
            }
        }
    }

    /// While an inspection runs beside it.
    async fn checkpoint(&mut self, state: usize) {
        let beside = self.store.clone();
        let beside = spawn(async move { inspect(&beside).await });
        let state = vec![self.seed.to_le_bytes()[0]; state];
        let named = vec![group(self.seed, &state)];
        self.store.checkpoint(named).await.unwrap();
        beside.await.unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever rots in one copy while blocks are written, checkpoints run and pages move is whole again after an
    /// inspection: in both areas, so that either may go.
    #[test]
    fn one_inspection_makes_both_copies_whole(steps in prop::collection::vec(step(), 1..80)) {
        block_on(async {
            let (mut lab, control) = Lab::new().await;
            for step in steps {
                lab.take(step).await;
            }
            // What is in memory only is of no concern here.
            lab.store.checkpoint(vec![group(lab.seed + 1, b"end")]).await.unwrap();
            let counters = inspect(&lab.store).await;
            assert_eq!((counters.metadata_rewrites, counters.metadata_refusals), (0, 0));
            let (areas, len) = page_areas(&lab.store);
            for gone in [0, 1] {
                let (crashed, _) = control.crash(Survivors::None);
                wipe(&crashed, areas[gone], len.get()).await;
                for at in HEAD {
                    wipe(&crashed, ByteOffset::new(at[gone]), PAGE).await;
                }
                let reopened = Store::open(&crashed).await.unwrap();
                assert_eq!(reopened.group(GROUP), Some(group(lab.seed + 1, b"end")));
                for ((chunk, at), seed) in &lab.model {
                    assert!(holds(&reopened, *chunk, *at, Some(*seed)).await);
                }
            }
            let found = inspect(&lab.store).await;
            assert_eq!(found.metadata_repairs, counters.metadata_repairs, "nothing was left");
        });
    }
}

/// Blocks are written back, read and repaired as ever while metadata is inspected: no turn is taken from them.
#[test]
fn a_block_is_repaired_while_metadata_is_inspected() {
    block_on(async {
        let (device, _) = formatted(40).await;
        let store = filled(&device).await;
        let at = locate(&device, 5).await;
        flip(&device, at, 9).await;
        let beside = store.clone();
        let beside = spawn(async move { inspect(&beside).await });
        let good = Payload::from(bytes_of(5));
        store
            .repair(GROUP, key(1), block(5 * 97), good)
            .await
            .unwrap();
        beside.await.unwrap();
        assert!(is_as_filled(&store).await);
    });
}
