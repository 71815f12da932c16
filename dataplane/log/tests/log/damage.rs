//! What recovery says about a medium that lost or changed what was durable.

use crate::support::{
    ALL, PAGE, SEGMENT, START, append, assert_entries, entries, formatted, fresh, group, open,
    options, pages_with, patch, region,
};
use ogee_device::{Device, FaultPlan, FaultRule};
use ogee_log::format::{BATCH_MAGIC, SEGMENT_MAGIC, VERSION};
use ogee_log::{DamageReason, Log, LogError};
use ogee_proto::id::{LogId, LogIndex};
use ogee_proto::unit::ByteOffset;
use ogee_runtime::executor::block_on;
use ogee_runtime::sleep;
use std::time::Duration;

const SEGMENTS: usize = 8;

async fn refusal(device: &Device) -> LogError {
    let before = device
        .read(ByteOffset::ZERO, device.len())
        .await
        .expect("read");
    let opened = Log::open(device, region(SEGMENTS), options()).await;
    let after = device
        .read(ByteOffset::ZERO, device.len())
        .await
        .expect("read");
    assert!(*before == *after, "a refused log is left as it is");
    opened.err().expect("refused")
}

#[track_caller]
fn assert_damaged(error: &LogError, at: u64, reason: DamageReason) {
    match error {
        LogError::Damaged {
            offset,
            reason: found,
            ..
        } => {
            assert_eq!((offset.get(), *found), (at, reason));
        }
        other => panic!("unexpected {other}"),
    }
}

/// Offsets of the batches, without the one with which opening ended the segment of formatting.
async fn batches_of_use(device: &Device) -> Vec<u64> {
    let mut batches = pages_with(device, BATCH_MAGIC).await;
    batches.remove(0);
    batches
}

/// A closed log with five batches of one entry each; their offsets.
async fn five_batches() -> (Device, Vec<u64>) {
    let (device, _, log) = fresh(SEGMENTS).await;
    for index in 0..5 {
        append(&group(&log, 1), entries(1, index..index + 1, 1))
            .await
            .expect("append");
    }
    log.close().await.expect("close");
    let batches = batches_of_use(&device).await;
    assert_eq!(batches.len(), 6, "five and the closing one");
    (device, batches)
}

#[test]
fn a_bad_header_area_before_a_good_batch_is_damage() {
    block_on(async {
        let (device, batches) = five_batches().await;
        for (position, at) in batches.iter().take(5).enumerate() {
            for byte in [0, 9, 40, 100, 4000] {
                patch(&device, at + byte, |data| data[0] ^= 0x10).await;
                let sequence = position as u64 + 2;
                assert_damaged(
                    &refusal(&device).await,
                    *at,
                    DamageReason::Batch { sequence },
                );
                patch(&device, at + byte, |data| data[0] ^= 0x10).await;
            }
        }
        let log = open(&device, SEGMENTS).await;
        assert_eq!(group(&log, 1).last(), Some(LogId::new(1, 4)));
    });
}

#[test]
fn several_bad_batches_are_damage_as_long_as_one_good_one_follows() {
    block_on(async {
        let (device, batches) = five_batches().await;
        for at in &batches[2..5] {
            patch(&device, *at, |data| data[..PAGE].fill(0)).await;
        }
        let reason = DamageReason::Batch { sequence: 4 };
        assert_damaged(&refusal(&device).await, batches[2], reason);
    });
}

#[test]
fn the_closing_batch_may_be_lost() {
    block_on(async {
        let (device, batches) = five_batches().await;
        patch(&device, batches[5], |data| data[0] ^= 1).await;
        let log = open(&device, SEGMENTS).await;
        let found = group(&log, 1).entries(ALL, usize::MAX).await.expect("read");
        assert_entries(&found, &entries(1, 0..5, 1));
    });
}

#[test]
fn an_idle_log_knows_its_last_batch_although_it_was_never_closed() {
    block_on(async {
        let (device, _, log) = fresh(SEGMENTS).await;
        append(&group(&log, 1), entries(1, 0..1, 1))
            .await
            .expect("append");
        while log.counters().closing_batches == 0 {
            sleep(Duration::from_millis(5)).await;
        }
        let batches = batches_of_use(&device).await;
        patch(&device, batches[0], |data| data[0] ^= 1).await;
        let reason = DamageReason::Batch { sequence: 2 };
        assert_damaged(&refusal(&device).await, batches[0], reason);
    });
}

#[test]
fn a_rotten_payload_is_that_entrys_alone() {
    block_on(async {
        let (device, batches) = five_batches().await;
        patch(&device, batches[2] + PAGE as u64 + 77, |data| data[0] ^= 1).await;
        let log = open(&device, SEGMENTS).await;
        let group = group(&log, 1);
        let error = group.entries(ALL, usize::MAX).await.expect_err("rotten");
        assert!(matches!(error, LogError::Corrupt { index, .. } if index == LogIndex::new(2)));
        let part = group.payload(LogIndex::new(2), 500..600).await;
        assert!(
            matches!(part, Err(LogError::Corrupt { .. })),
            "all of a payload is verified"
        );
        let others = group
            .entries(LogIndex::new(3)..LogIndex::new(9), usize::MAX)
            .await;
        assert_entries(&others.expect("read"), &entries(1, 3..5, 1));
        assert!(log.failure().is_none(), "the log goes on");
    });
}

#[test]
fn one_bad_copy_of_a_segment_header_is_survived_and_two_are_damage() {
    block_on(async {
        let (device, _) = five_batches().await;
        let heads = pages_with(&device, SEGMENT_MAGIC).await;
        assert_eq!(heads.len(), 4, "of format and of open, two copies each");
        patch(&device, heads[2], |data| data[16] ^= 1).await;
        drop(open(&device, SEGMENTS).await);
        let heads = pages_with(&device, SEGMENT_MAGIC).await;
        for at in &heads[3..] {
            patch(&device, *at, |data| data[16] ^= 1).await;
        }
        let error = refusal(&device).await;
        assert!(matches!(error, LogError::Damaged { .. }), "{error}");
    });
}

#[test]
fn a_segment_whose_header_is_lost_is_damage() {
    block_on(async {
        let (device, batches) = five_batches().await;
        let heads = pages_with(&device, SEGMENT_MAGIC).await;
        for at in &heads[2..4] {
            patch(&device, *at, |data| data[16] ^= 1).await;
        }
        let error = refusal(&device).await;
        assert_damaged(&error, batches[5], DamageReason::SegmentHeader);
    });
}

#[test]
fn a_lost_segment_in_the_middle_is_a_missing_entry() {
    block_on(async {
        let (device, _, log) = fresh(SEGMENTS).await;
        for index in 0..6 {
            append(&group(&log, 1), entries(1, index..index + 1, 4))
                .await
                .expect("append");
        }
        log.close().await.expect("close");
        let heads = pages_with(&device, SEGMENT_MAGIC).await;
        assert!(heads.len() >= 6);
        for at in &heads[2..4] {
            patch(&device, *at, |data| data[..PAGE].fill(0)).await;
        }
        match refusal(&device).await {
            LogError::Damaged {
                reason: DamageReason::EntryMissing { index, .. },
                ..
            } => {
                assert_eq!(index, LogIndex::new(0));
            }
            other => panic!("unexpected {other}"),
        }
    });
}

#[test]
fn damage_in_a_sealed_segment_matters_only_if_something_live_was_there() {
    block_on(async {
        for purged in [false, true] {
            let (device, _, log) = fresh(SEGMENTS).await;
            append(&group(&log, 1), entries(1, 0..6, 4))
                .await
                .expect("append");
            assert!(log.counters().segments_begun >= 2);
            if purged {
                group(&log, 1).purge(LogId::new(1, 5)).await.expect("purge");
            }
            log.close().await.expect("close");
            let first = batches_of_use(&device).await[0];
            patch(&device, first, |data| data[..PAGE].fill(0xee)).await;
            if purged {
                let log = open(&device, SEGMENTS).await;
                assert_eq!(group(&log, 1).last(), Some(LogId::new(1, 5)));
            } else {
                let reason = DamageReason::Batch { sequence: 2 };
                assert_damaged(&refusal(&device).await, first, reason);
            }
        }
    });
}

#[test]
fn lost_writes_are_noticed() {
    block_on(async {
        for lost in 0..6 {
            let (inner, _) = formatted(SEGMENTS).await;
            let (device, control) = Device::fault(inner.clone(), FaultPlan::new());
            let log = open(&device, SEGMENTS).await;
            control.add(FaultRule::lose_writes().after(lost).times(1));
            for index in 0..7 {
                append(&group(&log, 1), entries(1, index..index + 1, 3))
                    .await
                    .expect("append");
            }
            log.close().await.expect("close");
            assert_eq!(control.counts().lost, 1);
            let error = refusal(&inner).await;
            assert!(
                matches!(error, LogError::Damaged { .. }),
                "write {lost}: {error}"
            );
        }
    });
}

#[test]
fn an_unknown_version_is_named() {
    block_on(async {
        let (device, _) = five_batches().await;
        for at in pages_with(&device, SEGMENT_MAGIC).await {
            patch(&device, at + 8, |data| {
                data[..4].copy_from_slice(&7u32.to_le_bytes());
            })
            .await;
        }
        let error = refusal(&device).await;
        assert!(
            matches!(
                error,
                LogError::UnknownVersion {
                    found: 7,
                    ours: VERSION
                }
            ),
            "{error}"
        );
        let text = error.to_string();
        assert!(
            text.contains('7') && text.contains(&VERSION.to_string()),
            "{text}"
        );
    });
}

/// Any single page of the used part may turn to garbage: recovery never panics, and either gives
/// back all entries, or says that it cannot, or (payloads) says so when they are read.
#[test]
fn no_bad_page_goes_unnoticed() {
    block_on(async {
        let (device, batches) = five_batches().await;
        let used = START..batches[5] + PAGE as u64;
        assert!(used.end < START + 2 * SEGMENT as u64);
        for at in used.step_by(PAGE) {
            let image = device
                .read(ByteOffset::ZERO, device.len())
                .await
                .expect("read");
            let copy = Device::memory(device.len());
            let data = ogee_runtime::Buffer::copy_from(&image);
            copy.write_durable(ByteOffset::ZERO, data)
                .await
                .expect("write");
            patch(&copy, at, |data| {
                data[..PAGE].iter_mut().for_each(|byte| *byte ^= 0x5a);
            })
            .await;
            match Log::open(&copy, region(SEGMENTS), options()).await {
                Err(LogError::Damaged { .. }) => {}
                Err(other) => panic!("page at {at}: {other}"),
                Ok(log) => match group(&log, 1).entries(ALL, usize::MAX).await {
                    Ok(found) => assert_entries(&found, &entries(1, 0..5, 1)),
                    Err(LogError::Corrupt { .. }) => {}
                    Err(other) => panic!("page at {at}: {other}"),
                },
            }
        }
    });
}
