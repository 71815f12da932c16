//! Metadata that rots while the store is in use: found, and put right from the other copy, or from memory.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use common::*;
use ogee_device::{Device, Failure, FaultPlan, FaultRule, Operation, Survivors};
use ogee_proto::unit::{BlockIndex, ByteLen, ByteOffset};
use ogee_runtime::channel::Notify;
use ogee_runtime::executor::block_on;
use ogee_runtime::{Buffer, Payload, sleep, spawn, yield_now};
use ogee_store::{MetadataPlace, Store, StoreCounters, StoreError};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

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

/// The same at leisure.
async fn inspect_at_leisure(store: &Store) {
    let mut at = Some(MetadataPlace::default());
    while let Some(place) = at {
        at = store.inspect_at_leisure(place).await.unwrap();
    }
}

/// Writes something, and makes it durable with other pages than before.
async fn checkpoint(store: &Store, turn: u64) {
    let change = data(4, 0, 1000 + turn);
    store.write_back(GROUP, vec![change]).await.unwrap();
    store.checkpoint(Vec::new()).await.unwrap();
}

/// Who waits for the device's leisure looks at what is there when the wait is over.
#[test]
fn what_is_replaced_while_an_inspection_waits_looks_right() {
    block_on(async {
        let (device, _) = formatted(40).await;
        let store = filled(&device).await;
        let (done, busy) = (Rc::new(Notify::new()), store.clone());
        let until = done.clone();
        drop(spawn(async move {
            let ended = until.notified();
            busy.leisure().take(async {}, ended).await;
        }));
        yield_now().await;
        let inspected = store.clone();
        let inspected = spawn(async move { inspect_at_leisure(&inspected).await });
        yield_now().await;
        // Slots of pages are used again by the next checkpoint but one.
        for turn in 0..4 {
            checkpoint(&store, turn).await;
        }
        assert_eq!(store.counters().metadata_copies_checked, 0, "it waits");
        done.notify_all();
        inspected.await.unwrap();
        let after = store.counters();
        assert!(after.metadata_copies_checked > 10, "{after:?}");
        assert_eq!(after.metadata_suspects, 0, "{after:?}");
        assert!(store.budget().drawn(ogee_store::Purpose::Scrub) > 10 * PAGE);
    });
}

#[test]
fn a_checkpoint_waits_for_one_page_at_most() {
    block_on(async {
        let (memory, _) = formatted(40).await;
        let (device, faults) = Device::fault(memory.clone(), FaultPlan::new());
        let store = filled(&device).await;
        let pages = inspect(&store).await.metadata_copies_checked / 2 - 2;
        for page in 0..pages {
            flip(&memory, slot(&store, 1, page), 77).await;
        }
        faults.add(FaultRule::delay(
            Operation::WriteDurable,
            Duration::from_millis(2),
        ));
        let beside = store.clone();
        let beside = spawn(async move { inspect(&beside).await });
        // A root and a table are steps of their own.
        while store.counters().metadata_repairs < 5 {
            sleep(Duration::from_micros(100)).await;
        }
        checkpoint(&store, 0).await;
        let repaired = store.counters().metadata_repairs;
        assert!(repaired < pages - 4, "{repaired} of {pages} went before it");
        beside.await.unwrap();
        assert!(is_as_filled(&store).await);
        let suspects = store.counters().metadata_suspects;
        inspect(&store).await;
        assert_eq!(
            store.counters().metadata_suspects,
            suspects,
            "all are whole"
        );
    });
}

fn fail_reads(at: ByteOffset, len: u64) -> FaultRule {
    FaultRule::fail(Operation::Read, Failure::Eio).within(at, ByteLen::new(len))
}

/// Of metadata: repaired, written anew, refused, unread.
fn told(counters: StoreCounters) -> [u64; 4] {
    [
        counters.metadata_repairs,
        counters.metadata_rewrites,
        counters.metadata_refusals,
        counters.metadata_unread,
    ]
}

#[test]
fn a_page_that_cannot_be_read_is_not_counted_as_damaged_and_is_written_elsewhere() {
    block_on(async {
        let (memory, _) = formatted(40).await;
        let (device, faults) = Device::fault(memory.clone(), FaultPlan::new());
        let store = filled(&device).await;
        for copy in [0, 1] {
            faults.add(fail_reads(slot(&store, copy, 2), PAGE));
        }
        assert_eq!(told(inspect(&store).await), [0, 0, 0, 1]);
        assert_eq!(told(inspect(&store).await), [0, 0, 0, 1], "it is elsewhere");
        // So the store opens, although the device is as it was.
        assert!(is_as_filled(&Store::open(&device).await.unwrap()).await);
    });
}

#[test]
fn one_copy_damaged_and_one_unread_is_damage() {
    block_on(async {
        let (memory, _) = formatted(40).await;
        let (device, faults) = Device::fault(memory.clone(), FaultPlan::new());
        let store = filled(&device).await;
        faults.add(fail_reads(slot(&store, 0, 2), PAGE));
        flip(&memory, slot(&store, 1, 2), 100).await;
        assert_eq!(told(inspect(&store).await), [0, 1, 0, 0]);
        // One that is unread beside a good one is written again, and stays unread.
        faults.add(fail_reads(slot(&store, 1, 3), PAGE));
        assert_eq!(told(inspect(&store).await), [0, 1, 1, 0]);
        assert!(is_as_filled(&Store::open(&device).await.unwrap()).await);
    });
}

/// It may read again: nothing is concluded, and nothing is written.
#[test]
fn a_device_that_reads_nothing_is_let_be() {
    block_on(async {
        let (memory, _) = formatted(40).await;
        let (device, faults) = Device::fault(memory.clone(), FaultPlan::new());
        let store = filled(&device).await;
        let pages = inspect(&store).await.metadata_copies_checked / 2 - 2;
        let before = (
            store.counters().checkpoints,
            device.counters().written_bytes,
        );
        faults.add(FaultRule::fail(Operation::Read, Failure::Eio));
        // Both superblocks count as one, and so do both lists.
        assert_eq!(told(inspect(&store).await), [0, 0, 0, pages + 2]);
        let after = (
            store.counters().checkpoints,
            device.counters().written_bytes,
        );
        assert_eq!(after, before);
        faults.clear();
        assert_eq!(told(inspect(&store).await), [0, 0, 0, pages + 2]);
        assert!(!store.has_failed());
        assert!(is_as_filled(&store).await);
    });
}

#[test]
fn superblocks_and_lists_that_cannot_be_read_are_written_anew_while_the_device_reads_other_things()
{
    block_on(async {
        for which in HEAD {
            let (memory, _) = formatted(40).await;
            let (device, faults) = Device::fault(memory.clone(), FaultPlan::new());
            let store = filled(&device).await;
            for at in which {
                flip(&memory, ByteOffset::new(at), 50).await;
                faults.add(fail_reads(ByteOffset::new(at), PAGE));
            }
            // What is written there cannot be seen to be good: of a superblock the checkpoint needs no more.
            let refused = if which == HEAD[0] { 0 } else { 2 };
            assert_eq!(told(inspect(&store).await), [0, 0, refused, 1]);
            faults.clear();
            assert!(is_as_filled(&Store::open(&memory).await.unwrap()).await);
            assert_eq!(told(inspect(&store).await), [0, 0, refused, 1], "whole");
        }
    });
}

/// Half of a list that was being written is not taken for damage, nor is what it says.
#[test]
fn a_pause_that_is_kept_in_one_copy_only_is_none_and_no_alarm() {
    block_on(async {
        let (memory, _) = formatted(40).await;
        let (device, faults) = Device::fault(memory.clone(), FaultPlan::new());
        let store = filled(&device).await;
        let second = ByteOffset::new(HEAD[1][1]);
        let fails = FaultRule::fail(Operation::WriteDurable, Failure::Eio);
        faults.add(fails.within(second, ByteLen::new(PAGE)).times(1));
        assert!(store.pause(false).await.is_err());
        assert!(store.is_paused());
        assert_eq!(told(inspect(&store).await), [0; 4]);
        assert!(Store::open(&memory).await.unwrap().is_paused());
    });
}

#[test]
fn a_list_that_was_cut_short_is_made_whole_by_an_open_and_no_alarm() {
    block_on(async {
        let (memory, _) = formatted(40).await;
        let (device, faults) = Device::fault(memory.clone(), FaultPlan::new());
        let store = filled(&device).await;
        // As after a power cut between the two, and as after one within the second.
        for tears in [false, true] {
            let is_paused = store.is_paused();
            let second = ByteOffset::new(HEAD[1][1]);
            faults.add(
                FaultRule::lose_writes()
                    .within(second, ByteLen::new(PAGE))
                    .times(1),
            );
            store.pause(!is_paused).await.unwrap();
            if tears {
                flip(&memory, second, 2000).await;
            }
            let reopened = Store::open(&memory).await.unwrap();
            assert_eq!(reopened.is_paused(), !is_paused);
            assert_eq!(told(inspect(&reopened).await), [0; 4]);
        }
        // In a process that wrote both, it is damage.
        faults.add(
            FaultRule::lose_writes()
                .within(ByteOffset::new(HEAD[1][0]), ByteLen::new(PAGE))
                .times(1),
        );
        store.pause(true).await.unwrap();
        assert_eq!(told(inspect(&store).await), [1, 0, 0, 0]);
    });
}

#[test]
fn lists_that_take_nothing_are_not_told_to_be_written_anew() {
    block_on(async {
        let (memory, _) = formatted(40).await;
        let (device, faults) = Device::fault(memory.clone(), FaultPlan::new());
        let store = filled(&device).await;
        for at in HEAD[1] {
            flip(&memory, ByteOffset::new(at), 99).await;
            faults.add(FaultRule::lose_writes().within(ByteOffset::new(at), ByteLen::new(PAGE)));
        }
        assert_eq!(told(inspect(&store).await), [0, 0, 2, 0]);
        faults.clear();
        assert_eq!(told(inspect(&store).await), [0, 1, 2, 0]);
    });
}

/// Whoever made the checkpoint that failed: all are to see it.
#[test]
fn a_store_whose_lost_pages_cannot_be_written_has_failed() {
    block_on(async {
        let (memory, _) = formatted(40).await;
        let (device, faults) = Device::fault(memory.clone(), FaultPlan::new());
        let store = filled(&device).await;
        for copy in [0, 1] {
            flip(&memory, slot(&store, copy, 2), 100).await;
        }
        let writes = Operation::Write | Operation::WriteDurable;
        faults.add(FaultRule::fail(writes, Failure::Eio));
        assert!(!store.has_failed());
        let mut at = Some(MetadataPlace::default());
        let mut ended = Ok(());
        while let Some(place) = at {
            match store.inspect_at_leisure(place).await {
                Ok(next) => at = next,
                Err(error) => {
                    ended = Err(error);
                    break;
                }
            }
        }
        assert!(ended.is_err());
        assert!(store.has_failed());
        let refused = store.inspect_at_leisure(MetadataPlace::default()).await;
        assert!(
            matches!(refused, Err(StoreError::Failed { .. })),
            "{refused:?}"
        );
    });
}

/// It is held by a task of the shard, on whose stack it is made: pages of 4 KiB have no place in it.
#[test]
fn what_waits_for_an_inspection_is_small() {
    block_on(async {
        let (store, ..) = fresh(40).await;
        let waiting = store.inspect_at_leisure(MetadataPlace::default());
        let size = size_of_val(&waiting);
        assert!(size < 16 << 10, "{size} bytes");
        assert!(waiting.await.is_ok());
    });
}
