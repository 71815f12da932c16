//! Blocks in, blocks out: maps, sharing of device requests, faults, space.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use common::*;
use futures_util::FutureExt;
use ogee_device::{Device, Failure, FaultPlan, FaultRule, Operation};
use ogee_proto::checksum::{crc32c, crc32c_blocks};
use ogee_proto::id::CopysetId;
use ogee_proto::limit::{BLOCK_SIZE, BLOCKS_PER_CHUNK};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::executor::block_on;
use ogee_runtime::{Buffer, Payload, spawn, yield_now};
use ogee_store::{Adoption, BlockChange, BlockRead, Space, Store, StoreError, WriteBack};
use std::time::Duration;

#[test]
fn what_is_written_is_read_and_the_rest_is_zeros() {
    block_on(async {
        let (store, device, _) = fresh(40).await;
        store
            .write_back(GROUP, vec![data(0, 5, 1), data(0, 7, 2), data(9, 4095, 3)])
            .await
            .unwrap();
        let reads_before = device.counters().reads;
        let runs = store
            .read(GROUP, key(0), block(0), BLOCKS_PER_CHUNK)
            .await
            .unwrap();
        let lens: Vec<usize> = runs.iter().map(BlockRead::blocks).collect();
        assert_eq!(lens, [5, 1, 1, 1, BLOCKS_PER_CHUNK - 8]);
        assert_eq!(device.counters().reads - reads_before, 2);
        assert!(holds(&store, 0, 5, Some(1)).await && holds(&store, 0, 7, Some(2)).await);
        assert!(holds(&store, 9, 4095, Some(3)).await && holds(&store, 0, 6, None).await);
        assert_eq!(store.chunks(GROUP), [key(0), key(9)]);
        let blocks: Vec<usize> = store
            .allocated(GROUP, key(0))
            .unwrap()
            .iter()
            .map(|it| it.as_usize())
            .collect();
        assert_eq!(blocks, [5, 7]);
        assert_eq!(store.used(), ByteLen::new(2 * (64 << 10)));
    });
}

#[test]
fn neighbours_share_device_requests() {
    block_on(async {
        let (store, device, _) = fresh(40).await;
        let before = device.counters();
        // In reverse: sorting is the store's work.
        let changes = (0..512).rev().map(|at| data(0, at, at as u64)).collect();
        store.write_back(GROUP, changes).await.unwrap();
        assert_eq!(device.counters().writes - before.writes, 2);
        assert_eq!(store.counters().data_writes, 2);
        assert_eq!(store.counters().data_bytes_written, 2 * MIB);
        let runs = store.read(GROUP, key(0), block(0), 512).await.unwrap();
        assert_eq!(device.counters().reads - before.reads, 2);
        assert_eq!(store.counters().data_bytes_read, 2 * MIB);
        let expected: Vec<u8> = (0..512).flat_map(bytes_of).collect();
        assert_eq!(flatten(&runs), expected);
    });
}

#[test]
fn a_read_without_blocks_costs_no_io() {
    block_on(async {
        let (store, device, _) = fresh(40).await;
        let before = device.counters().reads;
        let runs = store.read(GROUP, key(1), block(3), 9).await.unwrap();
        assert_eq!(runs, [BlockRead::Zeros(9)]);
        assert_eq!(store.read(GROUP, key(1), block(3), 0).await.unwrap(), []);
        assert_eq!(device.counters().reads, before);
    });
}

#[test]
fn misuse_is_refused_before_anything_changes() {
    block_on(async {
        let (store, _, _) = fresh(40).await;
        store.write_back(GROUP, vec![data(0, 0, 1)]).await.unwrap();
        let stranger = CopysetId::new(8);
        let result = store
            .write_back(stranger, vec![data(5, 0, 2), data(0, 0, 2)])
            .await;
        assert!(matches!(
            result,
            Err(StoreError::WrongCopyset { owner: GROUP, .. })
        ));
        assert!(store.read(stranger, key(0), block(0), 1).await.is_err());
        assert!(store.allocated(stranger, key(0)).is_err());
        assert!(store.remove_chunk(stranger, key(0)).await.is_err());
        let short = BlockChange::Data(Payload::from(vec![1; 512]));
        let short = WriteBack {
            key: key(6),
            block: block(0),
            what: short,
        };
        let result = store.write_back(GROUP, vec![data(5, 0, 2), short]).await;
        assert!(matches!(result, Err(StoreError::BlockLength { .. })));
        let result = store.read(GROUP, key(0), block(4000), 97).await;
        assert!(matches!(
            result,
            Err(StoreError::OutOfChunk { count: 97, .. })
        ));
        assert_eq!(store.chunks(GROUP), [key(0)]);
        assert!(store.chunks(stranger).is_empty());
    });
}

#[test]
fn zeroing_the_last_block_frees_the_extent_after_the_next_checkpoint() {
    block_on(async {
        let (store, _, _) = fresh(40).await;
        let all = store.free();
        store
            .write_back(GROUP, (0..16).map(|at| data(0, at, 1)).collect())
            .await
            .unwrap();
        store
            .write_back(GROUP, (1..16).map(|at| zero(0, at)).collect())
            .await
            .unwrap();
        assert!(holds(&store, 0, 0, Some(1)).await && holds(&store, 0, 1, None).await);
        assert_eq!(store.usage().pending, ByteLen::ZERO);
        store
            .write_back(GROUP, vec![zero(0, 0), zero(3, 9)])
            .await
            .unwrap();
        assert_eq!(store.usage().pending, ByteLen::new(64 << 10));
        assert!(store.chunks(GROUP).is_empty() && store.free() < all);
        store.checkpoint(vec![]).await.unwrap();
        assert_eq!((store.free(), store.usage().pending), (all, ByteLen::ZERO));
    });
}

#[test]
fn a_block_may_join_an_extent_whose_other_blocks_go_in_the_same_call() {
    block_on(async {
        let (store, device, _) = fresh(40).await;
        store.write_back(GROUP, vec![data(0, 0, 1)]).await.unwrap();
        store
            .write_back(GROUP, vec![zero(0, 0), data(0, 1, 2)])
            .await
            .unwrap();
        store.checkpoint(vec![]).await.unwrap();
        // If the extent had been freed as well, this would get the same one.
        store.write_back(GROUP, vec![data(1, 1, 3)]).await.unwrap();
        assert!(holds(&store, 0, 1, Some(2)).await && holds(&store, 0, 0, None).await);
        store.checkpoint(vec![]).await.unwrap();
        let store = Store::open(&device).await.unwrap();
        assert!(holds(&store, 0, 1, Some(2)).await && holds(&store, 1, 1, Some(3)).await);
    });
}

#[test]
fn a_full_store_refuses_and_recovers() {
    block_on(async {
        let (store, device, _) = fresh(30).await;
        let extents = usize::try_from(store.capacity().get() / (64 << 10)).unwrap();
        let chunk_of = |extent: usize| u32::try_from(extent / 256).unwrap();
        let fill = (0..extents)
            .map(|it| data(chunk_of(it), it % 256 * 16, it as u64))
            .collect();
        store.write_back(GROUP, fill).await.unwrap();
        assert_eq!(store.free(), ByteLen::ZERO);

        // One block would be an overwrite; the other needs space: neither may happen.
        let result = store
            .write_back(GROUP, vec![data(0, 0, 9_999), data(5, 0, 9_999)])
            .await;
        let no_space = |pending| {
            move |result: Result<(), StoreError>| {
                matches!(result, Err(StoreError::NoSpace {
                    space: Space::Extents, needed: 1, free: 0, pending: found,
                }) if found == pending)
            }
        };
        assert!(no_space(0)(result));
        assert!(holds(&store, 0, 0, Some(0)).await && store.chunks(GROUP).len() == 2);
        // Overwriting works, the metadata has its own space, and so does freeing.
        store
            .write_back(GROUP, vec![data(0, 0, 777)])
            .await
            .unwrap();
        store.checkpoint(vec![group(1, b"full")]).await.unwrap();
        store.write_back(GROUP, vec![zero(0, 16)]).await.unwrap();
        assert!(no_space(1)(
            store.write_back(GROUP, vec![data(5, 0, 1)]).await
        ));
        store
            .checkpoint(vec![group(2, b"still full")])
            .await
            .unwrap();
        store.write_back(GROUP, vec![data(5, 0, 1)]).await.unwrap();
        store.checkpoint(vec![]).await.unwrap();

        let store = Store::open(&device).await.unwrap();
        assert_eq!(store.free(), ByteLen::ZERO);
        assert!(holds(&store, 5, 0, Some(1)).await && holds(&store, 0, 16, None).await);
        assert!(holds(&store, 0, 0, Some(777)).await && holds(&store, 0, 32, Some(2)).await);
    });
}

#[test]
fn map_pages_run_out_with_a_name_and_checkpoints_go_on() {
    block_on(async {
        let (store, device, _) = fresh(64).await;
        let leaves = store.usage().map_pages_free;
        assert!(
            u64::from(leaves) < store.free().get() / (64 << 10),
            "the test needs extents"
        );
        // One block in each of so many leaves: 52 extents apart.
        let scattered = |count: u32, seed: u64| -> Vec<WriteBack> {
            (0..count)
                .map(|it| data(it / 4, (it % 4) as usize * 52 * 16, seed))
                .collect()
        };
        let result = store.write_back(GROUP, scattered(leaves + 1, 1)).await;
        assert!(matches!(
            result,
            Err(StoreError::NoSpace {
                space: Space::MapPages,
                ..
            })
        ));
        assert!(store.chunks(GROUP).is_empty());
        // Every page is rewritten by every checkpoint, next to the copy that is durable.
        for seed in 2..5 {
            store
                .write_back(GROUP, scattered(leaves, seed))
                .await
                .unwrap();
            store
                .checkpoint(vec![group(seed, &[9; 100_000])])
                .await
                .unwrap();
        }
        let store = Store::open(&device).await.unwrap();
        assert_eq!(store.usage().map_pages_free, 0);
        assert!(holds(&store, 11, 52 * 16, Some(4)).await);
    });
}

#[test]
fn a_flipped_bit_is_never_returned() {
    block_on(async {
        let (memory, _) = formatted(40).await;
        let (device, faults) = Device::fault(memory.clone(), FaultPlan::new());
        let store = Store::open(&device).await.unwrap();
        store
            .write_back(GROUP, vec![data(0, 0, 1), data(0, 1, 2)])
            .await
            .unwrap();
        let at = locate(&memory, 2).await;
        faults.add(FaultRule::flip_bit(at.add(ByteLen::new(100)), 3));
        let result = store.read(GROUP, key(0), block(0), 2).await;
        let bad = block(1);
        assert!(matches!(result, Err(StoreError::Checksum { block, .. }) if block == bad));
        assert!(holds(&store, 0, 0, Some(1)).await);
        assert_eq!(store.scrub(GROUP, key(0)).await.unwrap(), [bad]);
        assert!(store.counters().checksum_errors >= 2);
        faults.clear();
        assert!(holds(&store, 0, 1, Some(2)).await);
        assert!(store.scrub(GROUP, key(0)).await.unwrap().is_empty());
    });
}

#[test]
fn a_checksum_that_comes_with_a_block_is_the_one_that_it_is_read_by() {
    block_on(async {
        let (store, _, _) = fresh(40).await;
        let summed = |at, seed, crc| WriteBack {
            what: BlockChange::Summed(Payload::from(bytes_of(seed)), crc),
            ..data(0, at, seed)
        };
        let right = summed(3, 1, crc32c(&bytes_of(1)));
        // As if a byte had changed between the two.
        let wrong = summed(4, 2, crc32c(&bytes_of(1)));
        store.write_back(GROUP, vec![right, wrong]).await.unwrap();
        assert!(holds(&store, 0, 3, Some(1)).await);
        assert!(is_checksum_error(&read(&store, 0, 4).await));
    });
}

#[test]
fn a_misdirected_write_is_found_at_both_ends_and_repaired() {
    block_on(async {
        let (store, device, _) = fresh(40).await;
        store
            .write_back(GROUP, vec![data(0, 3, 1), data(4, 3, 2)])
            .await
            .unwrap();
        let (first, second) = (locate(&device, 1).await, locate(&device, 2).await);
        for (at, seed) in [(first, 2), (second, 1)] {
            device
                .write(at, Buffer::copy_from(&bytes_of(seed)))
                .await
                .unwrap();
        }
        assert!(is_checksum_error(&read(&store, 0, 3).await));
        assert!(is_checksum_error(&read(&store, 4, 3).await));
        let peer = |seed| Payload::from(bytes_of(seed));
        let wrong = store.repair(GROUP, key(0), block(3), peer(2)).await;
        assert!(matches!(wrong, Err(StoreError::Checksum { .. })));
        let absent = store.repair(GROUP, key(0), block(4), peer(1)).await;
        assert!(matches!(absent, Err(StoreError::NotPresent { .. })));
        store
            .repair(GROUP, key(0), block(3), peer(1))
            .await
            .unwrap();
        store
            .repair(GROUP, key(4), block(3), peer(2))
            .await
            .unwrap();
        assert!(holds(&store, 0, 3, Some(1)).await && holds(&store, 4, 3, Some(2)).await);
        assert_eq!(store.counters().repairs, 2);
    });
}

#[test]
fn a_failed_write_changes_only_what_was_written() {
    block_on(async {
        let (memory, _) = formatted(40).await;
        let (device, faults) = Device::fault(memory.clone(), FaultPlan::new());
        let store = Store::open(&device).await.unwrap();
        store
            .write_back(GROUP, vec![data(0, 0, 1), data(1, 0, 2)])
            .await
            .unwrap();
        let free = store.free();
        let at = locate(&memory, 2).await;
        let fail = FaultRule::fail(Operation::Write, Failure::Eio);
        faults.add(fail.within(at, ByteLen::from_usize(BLOCK_SIZE)).times(1));
        // Chunk 0 is written, chunk 1 fails, chunk 2 needs a new extent and is written.
        let changes = || vec![data(0, 0, 11), data(1, 0, 12), data(2, 0, 13)];
        assert!(matches!(
            store.write_back(GROUP, changes()).await,
            Err(StoreError::Device(_))
        ));
        assert!(holds(&store, 0, 0, Some(11)).await && holds(&store, 1, 0, Some(2)).await);
        assert!(holds(&store, 2, 0, Some(13)).await && store.free() < free);
        // A new extent that could not be written is free again at once.
        let free = store.free();
        faults.add(FaultRule::fail(Operation::Write, Failure::Eio).times(1));
        assert!(store.write_back(GROUP, vec![data(3, 0, 14)]).await.is_err());
        assert_eq!((store.free(), store.usage().pending), (free, ByteLen::ZERO));
        assert_eq!(store.chunks(GROUP), [key(0), key(1), key(2)]);
        store.write_back(GROUP, changes()).await.unwrap();
        assert!(holds(&store, 1, 0, Some(12)).await);
    });
}

#[test]
fn a_read_waits_for_the_overwrite_that_overtakes_it() {
    block_on(async {
        let (sound, _) = formatted(40).await;
        let (device, faults) = Device::fault(sound, FaultPlan::new());
        let store = Store::open(&device).await.unwrap();
        let write = |seed| store.write_back(GROUP, (0..64).map(|at| data(0, at, seed)).collect());
        write(0).await.unwrap();
        // The read looks up checksums, then waits at the device while the overwrite goes by.
        faults.add(FaultRule::delay(Operation::Read, Duration::from_millis(20)).times(1));
        let reader = spawn({
            let store = store.clone();
            async move { store.read(GROUP, key(0), block(0), 64).await }
        });
        while faults.counts().delayed == 0 {
            yield_now().await;
        }
        write(1).await.unwrap();
        let bytes = flatten(&reader.await.unwrap().unwrap());
        assert!(bytes.chunks(BLOCK_SIZE).all(|got| got == bytes_of(1)));
        let counters = store.counters();
        assert_eq!((counters.read_retries, counters.checksum_errors), (1, 0));
    });
}

#[test]
fn reads_beside_overwrites_see_old_or_new_blocks() {
    block_on(async {
        let (store, _, _) = fresh(40).await;
        let write = |seed| store.write_back(GROUP, (0..64).map(|at| data(0, at, seed)).collect());
        write(0).await.unwrap();
        for seed in 1..40 {
            let writer = spawn({
                let store = store.clone();
                let changes = (0..64).map(|at| data(0, at, seed)).collect();
                async move { store.write_back(GROUP, changes).await }
            });
            while !writer.is_finished() {
                let bytes = flatten(&store.read(GROUP, key(0), block(0), 64).await.unwrap());
                for got in bytes.chunks(BLOCK_SIZE) {
                    assert!(got == bytes_of(seed) || got == bytes_of(seed - 1));
                }
                yield_now().await;
            }
            writer.await.unwrap().unwrap();
            assert!(holds(&store, 0, 63, Some(seed)).await);
        }
    });
}

#[test]
fn a_dropped_write_back_runs_to_its_end() {
    block_on(async {
        let (store, _, _) = fresh(40).await;
        let write = store.write_back(GROUP, vec![data(0, 0, 1)]);
        assert!(write.now_or_never().is_none(), "polled once, then dropped");
        // The group's next call takes its turn behind it.
        store.write_back(GROUP, vec![data(0, 1, 2)]).await.unwrap();
        assert!(holds(&store, 0, 0, Some(1)).await && holds(&store, 0, 1, Some(2)).await);
    });
}

#[test]
fn groups_write_side_by_side_and_never_share_an_extent() {
    block_on(async {
        let (store, device, _) = fresh(40).await;
        let writers: Vec<_> = (0..8u32)
            .map(|at| {
                let store = store.clone();
                let change = move |block| {
                    data(
                        at,
                        usize::from(block),
                        u64::from(at) * 1_000 + u64::from(block),
                    )
                };
                let changes = (0..40u8).map(change).collect();
                spawn(async move { store.write_back(CopysetId::new(at), changes).await })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap().unwrap();
        }
        store.checkpoint(vec![]).await.unwrap();
        // Opening refuses extents that are named twice.
        let store = Store::open(&device).await.unwrap();
        for at in 0..8 {
            let runs = store
                .read(CopysetId::new(at), key(at), block(0), 40)
                .await
                .unwrap();
            let expected: Vec<u8> = (0..40)
                .flat_map(|it| bytes_of(u64::from(at) * 1_000 + it))
                .collect();
            assert_eq!(flatten(&runs), expected);
        }
    });
}

/// Fills an extent as the log does, with seeds from `seed` on, and has a chunk adopt it.
async fn adopt(store: &Store, chunk: u32, seed: u64) -> ByteOffset {
    let at = store.take_extents(1).unwrap()[0];
    let bytes: Vec<u8> = (seed..seed + 16).flat_map(bytes_of).collect();
    let crcs = crc32c_blocks(&bytes).0.try_into().unwrap();
    let buffer = Buffer::copy_from(&bytes);
    store.device().write_durable(at, buffer).await.unwrap();
    let (key, first) = (key(chunk), block(0));
    assert!(store.is_adoptable(key, first, at));
    let adoption = Adoption {
        key,
        first,
        at,
        crcs,
    };
    store
        .take_over(GROUP, Vec::new(), vec![adoption])
        .await
        .unwrap();
    at
}

#[test]
fn an_adopted_extent_is_read_without_having_been_copied() {
    block_on(async {
        let (store, device, _) = fresh(40).await;
        store.write_back(GROUP, vec![data(0, 3, 1)]).await.unwrap();
        let (free, written) = (store.free(), device.counters().written_bytes);
        let at = adopt(&store, 0, 100).await;
        assert_eq!(device.counters().written_bytes - written, 64 << 10);
        for block in 0..16 {
            assert!(holds(&store, 0, block, Some(100 + block as u64)).await);
        }
        assert_eq!(store.usage().pending, ByteLen::new(64 << 10));
        assert!(!store.is_adoptable(key(1), block(0), at), "it is mapped");
        store.checkpoint(Vec::new()).await.unwrap();
        assert_eq!(store.free(), free, "one for the other");
        let store = Store::open(&device).await.unwrap();
        assert!(holds(&store, 0, 15, Some(115)).await);
        assert_eq!(store.counters().adopted_bytes, 0);
    });
}

/// The record in the log still speaks for the extent; if it could not be replaced as a whole, it
/// stays.
#[test]
fn a_pinned_extent_is_replaced_whole_or_not_at_all() {
    block_on(async {
        let (memory, _) = formatted(40).await;
        let (device, faults) = Device::fault(memory.clone(), FaultPlan::new());
        let store = Store::open(&device).await.unwrap();
        let at = adopt(&store, 0, 100).await;
        let free = store.free();
        faults.add(FaultRule::fail(Operation::Write, Failure::Eio).times(1));
        let change = || vec![data(0, 5, 1), zero(0, 6)];
        assert!(store.write_back(GROUP, change()).await.is_err());
        assert!(holds(&store, 0, 5, Some(105)).await && holds(&store, 0, 6, None).await);
        assert_eq!(store.free(), free);
        store.write_back(GROUP, change()).await.unwrap();
        assert!(holds(&store, 0, 5, Some(1)).await && holds(&store, 0, 4, Some(104)).await);
        assert!(holds(&store, 0, 6, None).await && holds(&store, 0, 7, Some(107)).await);
        assert_eq!(store.counters().moved_bytes, 2 * 14 * BLOCK_SIZE as u64);
        let len = ByteLen::from_usize(BLOCK_SIZE);
        let found = memory.read(at.add(ByteLen::new(5 << 12)), len).await;
        assert!(found.unwrap()[..] == bytes_of(105)[..]);
        // Nobody writes there before both the map and the log have let it go.
        store.checkpoint(Vec::new()).await.unwrap();
        assert_eq!(store.usage().pinned, ByteLen::new(64 << 10));
        store.unpin(at);
        assert_eq!((store.free(), store.usage().pinned), (free, ByteLen::ZERO));
    });
}

/// A bad block moves with the checksum that tells that it is bad.
#[test]
fn a_bad_block_of_a_pinned_extent_stays_bad_when_it_is_moved() {
    block_on(async {
        let (store, device, _) = fresh(40).await;
        let at = adopt(&store, 0, 100).await;
        let buffer = Buffer::copy_from(&bytes_of(7));
        let bad = at.add(ByteLen::from_usize(BLOCK_SIZE));
        device.write_durable(bad, buffer).await.unwrap();
        store.write_back(GROUP, vec![data(0, 2, 1)]).await.unwrap();
        assert!(holds(&store, 0, 2, Some(1)).await && holds(&store, 0, 3, Some(103)).await);
        assert!(is_checksum_error(&read(&store, 0, 1).await));
    });
}

/// Nor does one that cannot be read keep its neighbours from being written, or itself.
#[test]
fn an_unreadable_block_of_a_pinned_extent_does_not_keep_it_from_being_moved() {
    block_on(async {
        let (memory, _) = formatted(40).await;
        let (device, faults) = Device::fault(memory, FaultPlan::new());
        let store = Store::open(&device).await.unwrap();
        let at = adopt(&store, 0, 100).await;
        let (block, len) = (|n: u64| at.add(ByteLen::new(n << 12)), ByteLen::new(4096));
        for bad in [1, 2] {
            faults.add(FaultRule::fail(Operation::Read, Failure::Eio).within(block(bad), len));
        }
        store.write_back(GROUP, vec![data(0, 2, 1)]).await.unwrap();
        assert!(holds(&store, 0, 2, Some(1)).await && holds(&store, 0, 3, Some(103)).await);
        assert!(is_checksum_error(&read(&store, 0, 1).await));
        store.write_back(GROUP, vec![data(0, 1, 5)]).await.unwrap();
        assert!(holds(&store, 0, 1, Some(5)).await);
    });
}

/// A device that reads nothing at all has not lost the blocks.
#[test]
fn a_pinned_extent_stays_where_nothing_of_it_can_be_read() {
    block_on(async {
        let (memory, _) = formatted(40).await;
        let (device, faults) = Device::fault(memory, FaultPlan::new());
        let store = Store::open(&device).await.unwrap();
        adopt(&store, 0, 100).await;
        faults.add(FaultRule::fail(Operation::Read, Failure::Eio));
        assert!(store.write_back(GROUP, vec![data(0, 2, 1)]).await.is_err());
        faults.clear();
        assert!(holds(&store, 0, 1, Some(101)).await && holds(&store, 0, 2, Some(102)).await);
    });
}

#[test]
fn the_log_gets_no_extents_when_space_is_short() {
    block_on(async {
        let (store, ..) = fresh(40).await;
        let extents = u32::try_from(store.capacity().get() >> 16).unwrap();
        assert!(store.take_extents(extents).is_none());
        let most = extents - extents / 8;
        let taken = store.take_extents(most).unwrap();
        assert_eq!(taken.len(), most as usize);
        assert!(store.take_extents(1).is_none());
        store.write_back(GROUP, vec![data(0, 0, 1)]).await.unwrap();
        let foreign = taken[0].add(ByteLen::from_usize(BLOCK_SIZE));
        assert!(matches!(
            store.pin(foreign),
            Err(StoreError::NotAnExtent { .. })
        ));
    });
}

/// An adopted extent that the log has let go, and a store on a device that can be made to fail.
async fn plain_extent(store: &Store) -> ByteOffset {
    let at = adopt(store, 0, 100).await;
    store.unpin(at);
    store.checkpoint(Vec::new()).await.unwrap();
    at
}

async fn spoil(device: &Device, at: ByteOffset) {
    let garbage = Buffer::copy_from(&bytes_of(9_999));
    device.write_durable(at, garbage).await.unwrap();
}

fn good(seed: u64) -> Payload {
    Payload::from(Buffer::copy_from(&bytes_of(seed)))
}

/// What the device does not take back goes elsewhere, with its neighbours, and nobody writes there again.
#[test]
fn a_place_that_takes_no_repair_is_retired_for_good() {
    block_on(async {
        let len = ByteLen::from_usize(BLOCK_SIZE);
        for rule in [
            FaultRule::fail(Operation::WriteDurable, Failure::Eio),
            FaultRule::lose_writes(),
        ] {
            let (memory, _) = formatted(40).await;
            let (device, faults) = Device::fault(memory.clone(), FaultPlan::new());
            let store = Store::open(&device).await.unwrap();
            let at = plain_extent(&store).await;
            let bad = at.add(ByteLen::new(2 << 12));
            spoil(&memory, bad).await;
            faults.add(rule.within(bad, len));
            assert!(is_checksum_error(&read(&store, 0, 2).await));
            store
                .repair(GROUP, key(0), block(2), good(102))
                .await
                .unwrap();
            for at in 0..16 {
                assert!(
                    holds(&store, 0, at, Some(100 + at as u64)).await,
                    "block {at}"
                );
            }
            assert_eq!((store.retired(), store.counters().repairs), (1, 1));
            assert!(!store.is_worn());
            let capacity = store.capacity().get();
            store.checkpoint(Vec::new()).await.unwrap();
            // Also after a restart, and also if one copy of the list is lost.
            spoil(&memory, ByteOffset::new(128 << 10)).await;
            let store = Store::open(&device).await.unwrap();
            assert_eq!(store.retired(), 1);
            assert!(holds(&store, 0, 2, Some(102)).await);
            let held = store.used().get();
            assert_eq!(held, 2 << 16, "the chunk's extent, and the retired one");
            let all = u32::try_from((capacity - held) >> 16).unwrap();
            let most = all - u32::try_from(capacity >> 16).unwrap() / 8;
            let taken = store.take_extents(most).unwrap();
            assert!(!taken.contains(&at), "it is not given away");
        }
    });
}

/// Until the next checkpoint the map on the device still names the old place, which is bad as before.
#[test]
fn a_crash_before_the_checkpoint_loses_nothing_of_a_retired_extent() {
    block_on(async {
        let (memory, _) = formatted(40).await;
        let (device, faults) = Device::fault(memory.clone(), FaultPlan::new());
        let store = Store::open(&device).await.unwrap();
        let at = plain_extent(&store).await;
        let (bad, len) = (
            at.add(ByteLen::new(2 << 12)),
            ByteLen::from_usize(BLOCK_SIZE),
        );
        spoil(&memory, bad).await;
        faults.add(FaultRule::fail(Operation::WriteDurable, Failure::Eio).within(bad, len));
        store
            .repair(GROUP, key(0), block(2), good(102))
            .await
            .unwrap();
        let store = Store::open(&device).await.unwrap();
        assert_eq!(store.retired(), 1);
        assert!(holds(&store, 0, 3, Some(103)).await);
        assert!(is_checksum_error(&read(&store, 0, 2).await));
        store
            .repair(GROUP, key(0), block(2), good(102))
            .await
            .unwrap();
        assert!(holds(&store, 0, 2, Some(102)).await);
        assert_eq!(store.retired(), 1, "it was, already");
        // What is written there later leaves it, too.
        store.write_back(GROUP, vec![data(0, 3, 1)]).await.unwrap();
        assert!(holds(&store, 0, 3, Some(1)).await && holds(&store, 0, 4, Some(104)).await);
    });
}

/// A device that takes nothing at all has not lost the block, and many places make it worn.
#[test]
fn a_device_with_many_retired_extents_is_worn() {
    block_on(async {
        let (memory, _) = formatted(40).await;
        let (device, faults) = Device::fault(memory.clone(), FaultPlan::new());
        let store = Store::open(&device).await.unwrap();
        let chunk = |at: u32| vec![data(at, 0, u64::from(at))];
        for at in 0..64 {
            store.write_back(GROUP, chunk(at)).await.unwrap();
        }
        store.checkpoint(Vec::new()).await.unwrap();
        let writes = Operation::Write | Operation::WriteDurable;
        faults.add(FaultRule::fail(writes, Failure::Eio));
        let repair = |at: u32| store.repair(GROUP, key(at), block(0), good(at.into()));
        assert!(repair(0).await.is_err());
        faults.clear();
        assert!(holds(&store, 0, 0, Some(0)).await);
        for at in 0..64 {
            assert!(!store.is_worn(), "{at}");
            faults.add(FaultRule::fail(Operation::WriteDurable, Failure::Eio).times(1));
            repair(at).await.unwrap();
            assert!(holds(&store, at, 0, Some(at.into())).await);
        }
        assert!(store.is_worn());
    });
}

/// A pause is of the device, like the extents that it lost; one that cannot be kept is none.
#[test]
fn a_pause_outlives_the_process() {
    block_on(async {
        let (memory, _) = formatted(40).await;
        let (device, faults) = Device::fault(memory.clone(), FaultPlan::new());
        let store = Store::open(&device).await.unwrap();
        assert!(!store.is_paused());
        store.pause(true).await.unwrap();
        let again = Store::open(&memory).await.unwrap();
        assert!(again.is_paused());
        again.pause(false).await.unwrap();
        assert!(!Store::open(&memory).await.unwrap().is_paused());
        faults.add(FaultRule::fail(Operation::WriteDurable, Failure::Eio));
        assert!(store.is_paused());
        assert!(store.pause(false).await.is_err());
        assert!(store.is_paused());
    });
}
