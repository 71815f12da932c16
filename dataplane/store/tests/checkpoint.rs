//! Checkpoints: atomic, complete, and harmless to what is durable.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use common::*;
use ogee_device::{Device, Failure, FaultPlan, FaultRule, Operation, Operations, Survivors};
use ogee_proto::id::{CopysetId, LogId};
use ogee_proto::unit::ByteLen;
use ogee_runtime::executor::block_on;
use ogee_runtime::{Buffer, spawn, yield_now};
use ogee_store::{GROUP_STATE_MAX, GroupCheckpoint, PageFault, Store, StoreError};
use std::time::Duration;

#[test]
fn groups_survive_with_their_states() {
    block_on(async {
        let (store, device, control) = fresh(40).await;
        let long: Vec<u8> = (0..20_000u32).flat_map(u32::to_le_bytes).collect();
        let other = GroupCheckpoint {
            copyset: CopysetId::new(9),
            ..group(4, b"")
        };
        store
            .checkpoint(vec![group(3, &long), other.clone()])
            .await
            .unwrap();
        assert_eq!(store.group(GROUP), Some(group(3, &long)));
        let pages = store.counters().pages_written;
        assert_eq!(pages, 20 + 1 + 1 + 1, "state, empty state, table, root");
        // Only the first page, which carries the applied id, and the changed one are rewritten.
        let mut changed = long.clone();
        changed[9 * 4000] ^= 1;
        store.checkpoint(vec![group(5, &changed)]).await.unwrap();
        assert_eq!(store.counters().pages_written - pages, 2 + 2);
        store.checkpoint(vec![group(5, &changed)]).await.unwrap();
        assert_eq!(
            store.counters().pages_written - pages,
            2 + 2,
            "nothing had changed"
        );
        let (crashed, _) = control.crash(Survivors::None);
        let reopened = Store::open(&crashed).await.unwrap();
        assert_eq!(reopened.groups(), [group(5, &changed), other]);
        // A shorter state gives pages back.
        store.checkpoint(vec![group(6, b"short")]).await.unwrap();
        let reopened = Store::open(&device).await.unwrap();
        assert_eq!(reopened.group(GROUP), Some(group(6, b"short")));
        assert_eq!(reopened.open_stats().pages, 2 + 2);
    });
}

#[test]
fn states_beyond_the_limits_are_refused_before_anything_changes() {
    block_on(async {
        let (store, device, _) = fresh(40).await;
        store.checkpoint(vec![group(1, b"kept")]).await.unwrap();
        store.write_back(GROUP, vec![data(0, 0, 1)]).await.unwrap();
        let huge = store
            .checkpoint(vec![group(2, &vec![1; GROUP_STATE_MAX + 1])])
            .await;
        assert!(matches!(huge, Err(StoreError::GroupStateTooLarge { .. })));
        let too_many = store.checkpoint(vec![group(2, &vec![1; 2 << 20])]).await;
        assert!(matches!(
            too_many,
            Err(StoreError::GroupPagesFull { needed: 525, .. })
        ));
        assert_eq!(store.group(GROUP), Some(group(1, b"kept")));
        store.checkpoint(vec![group(2, b"fits")]).await.unwrap();
        let store = Store::open(&device).await.unwrap();
        assert_eq!(store.group(GROUP), Some(group(2, b"fits")));
        assert!(holds(&store, 0, 0, Some(1)).await);
    });
}

#[test]
fn a_removed_group_is_gone_and_may_come_back() {
    block_on(async {
        let (store, device, _) = fresh(40).await;
        let all = store.free();
        let other = CopysetId::new(9);
        store
            .write_back(GROUP, vec![data(0, 0, 1), data(1, 0, 2)])
            .await
            .unwrap();
        store.write_back(other, vec![data(2, 0, 3)]).await.unwrap();
        store.checkpoint(vec![group(1, &[7; 9000])]).await.unwrap();
        store.remove_group(GROUP).await.unwrap();
        assert_eq!((store.group(GROUP), store.chunks(GROUP)), (None, vec![]));
        // Until the next checkpoint the removal is not durable.
        let before = Store::open(&device).await.unwrap();
        assert!(holds(&before, 0, 0, Some(1)).await && before.group(GROUP).is_some());
        store.write_back(GROUP, vec![data(1, 0, 4)]).await.unwrap();
        store.checkpoint(vec![group(9, b"new")]).await.unwrap();
        let after = Store::open(&device).await.unwrap();
        assert_eq!(
            (after.group(GROUP), after.chunks(GROUP)),
            (Some(group(9, b"new")), vec![key(1)])
        );
        assert!(holds(&after, 1, 0, Some(4)).await);
        assert_eq!(after.chunks(other), [key(2)]);
        assert_eq!(all.get() - after.free().get(), 2 * (64 << 10));
    });
}

#[test]
fn removed_chunks_and_volumes_free_their_space() {
    block_on(async {
        let (store, device, _) = fresh(40).await;
        let all = store.free();
        store
            .write_back(GROUP, (0..5).map(|chunk| data(chunk, 0, 1)).collect())
            .await
            .unwrap();
        store.checkpoint(vec![]).await.unwrap();
        store.remove_chunk(GROUP, key(2)).await.unwrap();
        store.remove_chunk(GROUP, key(77)).await.unwrap();
        assert_eq!(store.chunks(GROUP).len(), 4);
        store.remove_volume(GROUP, key(0).volume).await.unwrap();
        assert_eq!(store.usage().pending.get(), 5 * (64 << 10));
        store.checkpoint(vec![]).await.unwrap();
        assert_eq!(store.free(), all);
        let reopened = Store::open(&device).await.unwrap();
        assert_eq!((reopened.free(), reopened.open_stats().pages), (all, 0));
    });
}

/// Cuts power at every step of a checkpoint, in several ways each: what opens is the old state or
/// the new one, whole, and opening it twice gives the same.
#[test]
fn a_crash_in_a_checkpoint_leaves_the_old_state_or_the_new() {
    block_on(async {
        let (store, _, control) = fresh(40).await;
        let blocks: Vec<(u32, usize)> = (0..60).map(|it| (it % 4, it as usize * 61)).collect();
        let write = |seed: u64| {
            let place = |(chunk, at): &(u32, usize)| data(*chunk, *at, seed);
            blocks.iter().map(place).collect::<Vec<_>>()
        };
        store.write_back(GROUP, write(1)).await.unwrap();
        store.checkpoint(vec![group(1, &[1; 9_000])]).await.unwrap();
        // To other places than in the first round, so that the old state stays readable.
        store.remove_group(GROUP).await.unwrap();
        store.write_back(GROUP, write(2)).await.unwrap();

        let checkpoint = spawn({
            let store = store.clone();
            async move { store.checkpoint(vec![group(2, &[2; 9_000])]).await }
        });
        let (mut seen, mut seed) = ([0u32; 2], 0);
        while !checkpoint.is_finished() {
            for survivors in [Survivors::None, Survivors::All] {
                seen[which(&control.crash(survivors).0, &blocks).await] += 1;
            }
            for _ in 0..4 {
                seed += 1;
                seen[which(&control.crash(Survivors::Seeded(seed)).0, &blocks).await] += 1;
            }
            yield_now().await;
        }
        checkpoint.await.unwrap().unwrap();
        assert!(
            seen[0] > 0 && seen[1] > 0,
            "crashes on both sides of the switch: {seen:?}"
        );
        assert_eq!(which(&control.crash(Survivors::None).0, &blocks).await, 1);
    });
}

/// Opens a crashed device twice; which of the two states it holds, all of it.
async fn which(device: &Device, blocks: &[(u32, usize)]) -> usize {
    let mut rounds = Vec::new();
    for _ in 0..2 {
        let store = Store::open(device).await.unwrap();
        let found = store.group(GROUP).unwrap();
        let round = found.applied.index.get();
        let byte = u8::try_from(round).unwrap();
        assert_eq!(found, group(round, &[byte; 9_000]));
        for (chunk, at) in blocks {
            assert!(
                holds(&store, *chunk, *at, Some(round)).await,
                "chunk {chunk} block {at}"
            );
        }
        rounds.push(usize::try_from(round).unwrap() - 1);
    }
    assert_eq!(rounds[0], rounds[1]);
    rounds[0]
}

/// Fails the n-th request of a checkpoint, for every n: the store stops, and what is on the device
/// is the old state or the new one.
#[test]
fn a_failed_checkpoint_stops_the_store_and_keeps_the_old_state() {
    block_on(async {
        let mut failures = 0;
        for nth in 0.. {
            let (memory, _) = formatted(40).await;
            let (device, faults) = Device::fault(memory.clone(), FaultPlan::new());
            let store = Store::open(&device).await.unwrap();
            store.write_back(GROUP, vec![data(0, 0, 1)]).await.unwrap();
            store.checkpoint(vec![group(1, b"old")]).await.unwrap();
            store.write_back(GROUP, vec![data(1, 0, 2)]).await.unwrap();
            faults.add(
                FaultRule::fail(Operations::MUTATING, Failure::Eio)
                    .after(nth)
                    .times(1),
            );
            let outcome = store.checkpoint(vec![group(2, b"new")]).await;
            faults.clear();
            if outcome.is_ok() {
                break;
            }
            failures += 1;
            assert!(matches!(outcome, Err(StoreError::Device(_))));
            // The device works again, but nothing is retried as if it had never failed.
            let again = store.checkpoint(vec![group(2, b"new")]).await;
            assert!(matches!(again, Err(StoreError::Failed { .. })));
            let write = store.write_back(GROUP, vec![data(1, 1, 2)]).await;
            assert!(matches!(write, Err(StoreError::Failed { .. })));
            assert!(holds(&store, 0, 0, Some(1)).await, "reads go on");
            let reopened = Store::open(&memory).await.unwrap();
            let is_new = reopened.group(GROUP) == Some(group(2, b"new"));
            assert!(is_new || reopened.group(GROUP) == Some(group(1, b"old")));
            assert!(holds(&reopened, 1, 0, is_new.then_some(2)).await);
            assert!(holds(&reopened, 0, 0, Some(1)).await);
        }
        assert!(
            failures >= 4,
            "pages, flush and two superblocks: {failures}"
        );
    });
}

/// A store whose newest checkpoint lost page writes in each of `areas`, reopened.
async fn reopened_after_lost_writes(areas: &[usize]) -> Result<Store, StoreError> {
    let (memory, _) = formatted(40).await;
    let (device, faults) = Device::fault(memory.clone(), FaultPlan::new());
    let store = Store::open(&device).await.unwrap();
    for seed in 1..4 {
        store
            .write_back(GROUP, vec![data(0, 0, seed)])
            .await
            .unwrap();
        store.checkpoint(vec![]).await.unwrap();
    }
    // By now slots are used again: the page that stays is an intact one of the past.
    let (starts, len) = page_areas(&store);
    for area in areas {
        faults.add(FaultRule::lose_writes().within(starts[*area], len).times(1));
    }
    store.write_back(GROUP, vec![data(0, 0, 9)]).await.unwrap();
    store.checkpoint(vec![]).await.unwrap();
    assert_eq!(faults.counts().lost, areas.len() as u64);
    Store::open(&memory).await
}

#[test]
fn a_lost_page_write_is_made_good_from_the_copy_and_named_without_one() {
    block_on(async {
        for area in [0, 1] {
            let store = reopened_after_lost_writes(&[area]).await.unwrap();
            assert!(holds(&store, 0, 0, Some(9)).await);
            // One request of the checkpoint's three: a leaf, a table, a root.
            let healed = store.open_stats().pages_healed;
            assert_eq!(healed, if area == 0 { 1 } else { 0 });
        }
        let fault = match reopened_after_lost_writes(&[0, 1]).await {
            Err(StoreError::Damaged { fault, .. }) => fault,
            other => panic!("{other:?}"),
        };
        assert!(matches!(fault, PageFault::Stale(_)), "{fault:?}");
    });
}

#[test]
fn one_bad_copy_of_a_page_is_healed() {
    block_on(async {
        let (memory, _) = formatted(40).await;
        let store = Store::open(&memory).await.unwrap();
        store.write_back(GROUP, vec![data(0, 0, 1)]).await.unwrap();
        store.checkpoint(vec![group(1, b"state")]).await.unwrap();
        let ([first, mirror], _) = page_areas(&store);
        let page = |slot: u64| ByteLen::new(slot * 4096);
        for slot in 0..4 {
            let at = first.add(page(slot));
            let (unreadable, _) = Device::fault(
                memory.clone(),
                FaultRule::fail(Operation::Read, Failure::Eio)
                    .within(at, page(1))
                    .into(),
            );
            let rot = Buffer::zeroed(4096);
            let store = Store::open(&unreadable).await.unwrap();
            assert_eq!(store.open_stats().pages_healed, 1, "slot {slot}");
            memory.write(at, rot).await.unwrap();
            for healed in [1, 0] {
                let store = Store::open(&memory).await.unwrap();
                assert_eq!(store.open_stats().pages_healed, healed, "slot {slot}");
                assert_eq!(store.group(GROUP), Some(group(1, b"state")));
                assert!(holds(&store, 0, 0, Some(1)).await);
            }
            // The healed page serves when its copy goes.
            memory
                .write(mirror.add(page(slot)), Buffer::zeroed(4096))
                .await
                .unwrap();
            Store::open(&memory).await.unwrap();
        }
    });
}

#[test]
fn metadata_that_is_rotten_in_both_areas_is_named() {
    block_on(async {
        let (memory, _) = formatted(40).await;
        let store = Store::open(&memory).await.unwrap();
        store.write_back(GROUP, vec![data(0, 0, 1)]).await.unwrap();
        store.checkpoint(vec![group(1, b"state")]).await.unwrap();
        let (starts, _) = page_areas(&store);
        let mut named = Vec::new();
        for slot in 0..4 {
            let at = |area: usize| starts[area].add(ByteLen::new(slot * 4096 + 77));
            let (device, _) = Device::fault(memory.clone(), FaultRule::flip_bit(at(0), 0).into());
            let (device, _) = Device::fault(device, FaultRule::flip_bit(at(1), 0).into());
            match Store::open(&device).await {
                Err(StoreError::Damaged {
                    page,
                    fault: PageFault::Crc,
                    ..
                }) => {
                    named.push(page.to_string());
                }
                other => panic!("slot {slot}: {other:?}"),
            }
        }
        let expected = [
            "map page 0 of chunk v3/k0",
            "state page 0 of group cs7",
            "table page 0",
            "root page 0",
        ];
        assert_eq!(named, expected);
    });
}

#[test]
fn a_checkpoint_holds_the_cut_and_nothing_later() {
    block_on(async {
        let (memory, control) = formatted(40).await;
        let slow = FaultRule::delay(Operation::Flush, Duration::from_millis(30));
        let (device, _) = Device::fault(memory.clone(), slow.into());
        let store = Store::open(&device).await.unwrap();
        store
            .write_back(GROUP, (0..8).map(|at| data(0, at * 16, 1)).collect())
            .await
            .unwrap();
        let checkpoint = spawn({
            let store = store.clone();
            async move { store.checkpoint(vec![group(1, b"cut")]).await }
        });
        while memory.counters().writes == 0 || store.counters().data_writes == 0 {
            yield_now().await;
        }
        let before = store.counters();
        let mut during = 0;
        while !checkpoint.is_finished() {
            // The same leaf as in the cut, and a chunk that the cut does not know.
            let at = 9 * 16 + during;
            store
                .write_back(GROUP, vec![data(0, at, 2), data(5, at, 2), zero(0, 16)])
                .await
                .unwrap();
            during += 1;
            yield_now().await;
        }
        checkpoint.await.unwrap().unwrap();
        assert!(during > 0 && store.counters().data_writes > before.data_writes);

        let cut = Store::open(&control.crash(Survivors::None).0)
            .await
            .unwrap();
        assert_eq!(cut.chunks(GROUP), [key(0)]);
        assert_eq!(cut.allocated(GROUP, key(0)).unwrap().len(), 8);
        assert!(
            holds(&cut, 0, 16, Some(1)).await,
            "freed after the cut, so not overwritten"
        );
        store.checkpoint(vec![]).await.unwrap();
        let next = Store::open(&control.crash(Survivors::None).0)
            .await
            .unwrap();
        assert_eq!(next.allocated(GROUP, key(0)).unwrap().len(), 7 + during);
        assert!(holds(&next, 0, 16, None).await && holds(&next, 5, 9 * 16, Some(2)).await);
        assert_eq!(next.group(GROUP).unwrap().applied, LogId::new(1, 1));
    });
}
