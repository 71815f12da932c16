//! Formatting and opening: what is refused, and by which name.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use common::*;
use ogee_device::{Device, Failure, FaultRule, OpenOptions, Operation};
use ogee_proto::checksum::crc32c;
use ogee_proto::id::StoreId;
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::Buffer;
use ogee_runtime::executor::block_on;
use ogee_store::{FORMAT_VERSION, Foreign, Store, StoreError, StoreParams};

const COPIES: [u64; 2] = [0, 64 << 10];
const PAGE: ByteLen = ByteLen::new(4096);

async fn patch(device: &Device, at: u64, change: impl FnOnce(&mut [u8])) {
    let bytes = device.read(ByteOffset::new(at), PAGE).await.unwrap();
    let mut buffer = Buffer::copy_from(&bytes);
    change(&mut buffer);
    device.write(ByteOffset::new(at), buffer).await.unwrap();
}

fn reseal(page: &mut [u8]) {
    let crc = crc32c(&page[..4092]);
    page[4092..].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn a_new_store_is_empty_and_says_who_it_is() {
    block_on(async {
        let (device, _) = formatted(40).await;
        let store = Store::open(&device).await.unwrap();
        let info = Store::probe(&device).await.unwrap();
        assert_eq!((info.store, info.cluster), (params(false).store, CLUSTER));
        assert_eq!((store.id(), store.cluster()), (info.store, info.cluster));
        assert_eq!((store.capacity(), info.sequence), (info.capacity, 1));
        assert_eq!(
            store.log_region(),
            (ByteOffset::new(MIB), ByteLen::new(2 * MIB))
        );
        assert_eq!((store.used(), store.groups()), (ByteLen::ZERO, vec![]));
        assert!(store.open_stats().superblocks_agree);
        // 40 MiB without head, log and metadata pages.
        assert_eq!(store.capacity(), ByteLen::new((40 - 1 - 2 - 8) * MIB));
    });
}

#[test]
fn foreign_data_is_refused_and_overwritten_only_by_force() {
    block_on(async {
        let cases: [(u64, usize, &[u8], Foreign); 4] = [
            (0, 1080, b"\x53\xef", Foreign::Ext),
            (0, 0, b"XFSB", Foreign::Xfs),
            (40 * MIB - 4096, 4096 - 512, b"EFI PART", Foreign::Gpt),
            (
                MIB - 4096,
                10,
                b"?",
                Foreign::Unknown { offset: MIB - 4086 },
            ),
        ];
        for (page, at, magic, expected) in cases {
            let device = Device::memory(ByteLen::new(40 * MIB));
            patch(&device, page, |bytes| {
                bytes[at..at + magic.len()].copy_from_slice(magic);
            })
            .await;
            let result = Store::format(&device, params(false)).await;
            match result {
                Err(StoreError::ForeignData { found, .. }) => assert_eq!(found, expected),
                other => panic!("{expected:?}: {other:?}"),
            }
            assert!(matches!(
                Store::open(&device).await,
                Err(StoreError::NotFormatted { .. })
            ));
            Store::format(&device, params(true)).await.unwrap();
            Store::open(&device).await.unwrap();
            let bytes = device.read(ByteOffset::new(page), PAGE).await.unwrap();
            assert!(
                !bytes[at..].starts_with(magic),
                "{expected:?} is still there"
            );
        }
    });
}

#[test]
fn a_store_is_not_formatted_over_and_force_leaves_nothing_of_it() {
    block_on(async {
        let (store, device, _) = fresh(40).await;
        store.write_back(GROUP, vec![data(0, 0, 1)]).await.unwrap();
        store.checkpoint(vec![group(1, b"old")]).await.unwrap();
        let again = Store::format(&device, params(false)).await;
        assert!(matches!(
            again,
            Err(StoreError::AlreadyFormatted {
                cluster: CLUSTER,
                ..
            })
        ));
        let other = StoreParams {
            store: StoreId::from_bytes([9; 16]),
            ..params(true)
        };
        Store::format(&device, other).await.unwrap();
        let store = Store::open(&device).await.unwrap();
        assert_eq!((store.id(), store.groups()), (other.store, vec![]));
        assert!(store.chunks(GROUP).is_empty());
    });
}

#[test]
fn sizes_that_do_not_fit_are_refused_with_the_size_that_would() {
    block_on(async {
        let tiny = Device::memory(ByteLen::new(MIB));
        let Err(StoreError::TooSmall { minimum, .. }) = Store::format(&tiny, params(false)).await
        else {
            panic!("one MiB cannot hold a store");
        };
        let exact = Device::memory(minimum);
        Store::format(&exact, params(false)).await.unwrap();
        Store::open(&exact).await.unwrap();
        let huge = Device::memory(ByteLen::new(17 << 40));
        let result = Store::format(&huge, params(false)).await;
        assert!(matches!(result, Err(StoreError::TooLarge { .. })));
        let nothing = Device::memory(PAGE);
        assert!(matches!(
            Store::open(&nothing).await,
            Err(StoreError::NotFormatted { .. })
        ));
    });
}

#[test]
fn a_device_that_shrank_is_refused_and_one_that_grew_is_not() {
    block_on(async {
        let (device, _) = formatted(40).await;
        let head = device
            .read(ByteOffset::ZERO, ByteLen::new(MIB))
            .await
            .unwrap();
        for (mib, fits) in [(39, false), (41, true)] {
            let other = Device::memory(ByteLen::new(mib * MIB));
            other
                .write(ByteOffset::ZERO, Buffer::copy_from(&head))
                .await
                .unwrap();
            match Store::open(&other).await {
                Ok(_) => assert!(fits),
                Err(StoreError::WrongSize {
                    recorded, found, ..
                }) => {
                    assert_eq!((recorded, found), (device.len(), other.len()));
                    assert!(!fits);
                }
                Err(other) => panic!("{other}"),
            }
        }
    });
}

/// The version before ours as well as one to come.
#[test]
fn another_format_is_refused_with_both_versions() {
    block_on(async {
        let ours_now = u32::from(FORMAT_VERSION);
        for other in [ours_now - 1, ours_now + 1] {
            let (device, _) = formatted(40).await;
            patch(&device, COPIES[1], |page| {
                page[8..12].copy_from_slice(&other.to_le_bytes());
                reseal(page);
            })
            .await;
            for result in [
                Store::open(&device).await.err(),
                Store::format(&device, params(false)).await.err(),
            ] {
                let is_named = matches!(result, Some(StoreError::UnknownFormat { found, ours, .. })
                    if (found, ours) == (other, ours_now));
                assert!(is_named, "{result:?}");
            }
        }
    });
}

#[test]
fn one_bad_superblock_is_replaced_and_two_are_the_end() {
    block_on(async {
        for bad in COPIES {
            let (store, device, _) = fresh(40).await;
            store.write_back(GROUP, vec![data(0, 0, 1)]).await.unwrap();
            store.checkpoint(vec![group(1, b"kept")]).await.unwrap();
            patch(&device, bad, |page| page[700] ^= 1).await;
            let store = Store::open(&device).await.unwrap();
            assert!(!store.open_stats().superblocks_agree);
            assert!(holds(&store, 0, 0, Some(1)).await);
            let other = COPIES[0] + COPIES[1] - bad;
            patch(&device, other, |page| page[700] ^= 1).await;
            let store = Store::open(&device).await.unwrap();
            assert_eq!(store.group(GROUP), Some(group(1, b"kept")));
            for copy in COPIES {
                patch(&device, copy, |page| page[700] ^= 1).await;
            }
            let end = Store::open(&device).await;
            assert!(
                matches!(end, Err(StoreError::SuperblocksDamaged { .. })),
                "{end:?}"
            );
            let format = Store::format(&device, params(false)).await;
            let is_refused = matches!(
                format,
                Err(StoreError::ForeignData {
                    found: Foreign::DamagedStore,
                    ..
                })
            );
            assert!(is_refused);
        }
    });
}

/// The moment between the two superblock writes, from both sides.
#[test]
fn of_two_good_superblocks_the_newer_counts() {
    block_on(async {
        for older in COPIES {
            let (store, device, _) = fresh(40).await;
            store.checkpoint(vec![group(1, b"old")]).await.unwrap();
            let before = device.read(ByteOffset::new(older), PAGE).await.unwrap();
            store.checkpoint(vec![group(2, b"new")]).await.unwrap();
            patch(&device, older, |page| page.copy_from_slice(&before)).await;
            for agree in [false, true] {
                let store = Store::open(&device).await.unwrap();
                assert_eq!(store.group(GROUP), Some(group(2, b"new")));
                assert_eq!(store.open_stats().superblocks_agree, agree);
            }
        }
    });
}

#[test]
fn a_superblock_that_cannot_be_read_is_as_good_as_damaged() {
    block_on(async {
        let (memory, _) = formatted(40).await;
        let eio =
            |at| FaultRule::fail(Operation::Read, Failure::Eio).within(ByteOffset::new(at), PAGE);
        let (device, faults) = Device::fault(memory, eio(COPIES[0]).into());
        assert!(
            !Store::open(&device)
                .await
                .unwrap()
                .open_stats()
                .superblocks_agree
        );
        faults.add(eio(COPIES[1]));
        assert!(matches!(
            Store::open(&device).await,
            Err(StoreError::Device(_))
        ));
    });
}

#[test]
fn superblocks_of_two_stores_are_refused() {
    block_on(async {
        let (device, _) = formatted(40).await;
        patch(&device, COPIES[1], |page| {
            page[16] ^= 1;
            reseal(page);
        })
        .await;
        let result = Store::open(&device).await;
        assert!(
            matches!(result, Err(StoreError::SuperblocksDisagree { .. })),
            "{result:?}"
        );
    });
}

/// What opening reads depends on what is stored, not on the device.
#[test]
fn opening_costs_what_the_metadata_costs() {
    block_on(async {
        let mut costs = Vec::new();
        for mib in [64, 1 << 20] {
            let (store, device, _) = fresh(mib).await;
            // 300 leaves: 60 chunks of five.
            let scattered = |it: u32| data(it / 5, (it % 5) as usize * 52 * 16, u64::from(it));
            store
                .write_back(GROUP, (0..300).map(scattered).collect())
                .await
                .unwrap();
            store.checkpoint(vec![group(1, b"state")]).await.unwrap();
            let before = device.counters();
            let store = Store::open(&device).await.unwrap();
            let after = device.counters();
            let stats = store.open_stats();
            assert_eq!(stats.pages, 300 + 1 + 2 + 1, "leaves, group, tables, root");
            assert_eq!((stats.chunks, stats.groups), (60, 1));
            costs.push((
                after.reads - before.reads,
                after.read_bytes - before.read_bytes,
            ));
            assert!(holds(&store, 59, 4 * 52 * 16, Some(299)).await);
        }
        assert_eq!(costs[0], costs[1]);
        let heads = 2 + 2;
        assert_eq!(
            costs[0].1,
            (300 + 1 + 2 + 1 + heads) * 4096,
            "and the superblock and the list of retired extents, twice each"
        );
    });
}

#[test]
fn a_real_file_keeps_what_was_checkpointed() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("device");
    block_on(async {
        let options = OpenOptions {
            create: Some(ByteLen::new(64 * MIB)),
        };
        let device = Device::open(&path, options).await.unwrap();
        Store::format(&device, params(false)).await.unwrap();
        let store = Store::open(&device).await.unwrap();
        store
            .write_back(GROUP, (0..600).map(|at| data(1, at, at as u64)).collect())
            .await
            .unwrap();
        store
            .write_back(GROUP, vec![zero(1, 5), data(1, 6, 9_000)])
            .await
            .unwrap();
        store
            .checkpoint(vec![group(8, &[3; 50_000])])
            .await
            .unwrap();
        store.write_back(GROUP, vec![data(2, 0, 1)]).await.unwrap();
    });
    block_on(async {
        let device = Device::open(&path, OpenOptions::default()).await.unwrap();
        let store = Store::open(&device).await.unwrap();
        assert_eq!(store.group(GROUP), Some(group(8, &[3; 50_000])));
        assert_eq!(store.chunks(GROUP), [key(1)]);
        assert!(holds(&store, 1, 5, None).await && holds(&store, 1, 6, Some(9_000)).await);
        assert!(holds(&store, 1, 599, Some(599)).await);
        assert!(store.scrub(GROUP, key(1)).await.unwrap().is_empty());
    });
}
