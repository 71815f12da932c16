//! Devices that fail, and payloads that must come from the device.

use crate::support::{
    ALL, PAGE, append, assert_entries, entries, formatted, group, open, options, patch, region,
    vote,
};
use ogee_device::{Device, Failure, FaultPlan, FaultRule, Operation};
use ogee_log::{Log, LogError, LogOptions};
use ogee_proto::id::{LogId, LogIndex};
use ogee_proto::unit::ByteLen;
use ogee_runtime::executor::block_on;
use std::cell::RefCell;
use std::rc::Rc;

const SEGMENTS: usize = 12;

#[test]
fn a_failed_write_stops_the_log() {
    block_on(async {
        let (inner, _) = formatted(SEGMENTS).await;
        let (device, control) = Device::fault(inner.clone(), FaultPlan::new());
        let log = open(&device, SEGMENTS).await;
        let writer = group(&log, 1);
        append(&writer, entries(1, 0..3, 1)).await.expect("append");
        // Fails once: a log that tried again would succeed, and lie.
        control.add(FaultRule::fail(Operation::WriteDurable, Failure::Eio).times(1));
        let order = Rc::new(RefCell::new(Vec::new()));
        for index in 3..6 {
            let order = Rc::clone(&order);
            writer.append(entries(1, index..index + 1, 4), move |result| {
                order.borrow_mut().push((index, result));
            });
        }
        let vote = writer.save_vote(vote(9)).await;
        assert!(matches!(vote, Err(LogError::Failed { .. })), "{vote:?}");
        let order = order.take();
        assert_eq!(
            order.iter().map(|(index, _)| *index).collect::<Vec<_>>(),
            [3, 4, 5]
        );
        assert!(
            order
                .iter()
                .all(|(_, result)| matches!(result, Err(LogError::Failed { .. })))
        );
        for _ in 0..2 {
            let refused = append(&writer, entries(1, 6..7, 1)).await;
            assert!(matches!(refused, Err(LogError::Failed { .. })));
        }
        assert!(matches!(
            log.wait_space(ByteLen::ZERO).await,
            Err(LogError::Failed { .. })
        ));
        assert!(matches!(log.close().await, Err(LogError::Failed { .. })));
        assert_eq!(control.counts().failed, 1, "nothing was tried again");
        let readable = writer
            .entries(LogIndex::new(0)..LogIndex::new(3), usize::MAX)
            .await;
        assert_entries(&readable.expect("read"), &entries(1, 0..3, 1));
        let log = open(&inner, SEGMENTS).await;
        assert_eq!(group(&log, 1).last(), Some(LogId::new(1, 2)));
        assert_eq!(group(&log, 1).state().vote, None);
    });
}

#[test]
fn a_failed_segment_header_stops_the_log_too() {
    block_on(async {
        let (inner, _) = formatted(SEGMENTS).await;
        let (device, control) = Device::fault(inner.clone(), FaultPlan::new());
        let log = open(&device, SEGMENTS).await;
        // Two batches of five pages fit behind a header of two pages; the third needs a segment.
        control.add(FaultRule::fail(Operation::WriteDurable, Failure::Eio).after(2));
        let mut results = Vec::new();
        for index in 0..4 {
            results.push(
                append(&group(&log, 1), entries(1, index..index + 1, 4))
                    .await
                    .is_ok(),
            );
        }
        assert_eq!(results, [true, true, false, false]);
        let log = open(&inner, SEGMENTS).await;
        assert_eq!(group(&log, 1).last(), Some(LogId::new(1, 1)));
    });
}

#[test]
fn an_unreadable_log_does_not_open() {
    block_on(async {
        let (inner, _) = formatted(SEGMENTS).await;
        let rule = FaultRule::fail(Operation::Read, Failure::Eio).after(3);
        let (device, control) = Device::fault(inner, FaultPlan::new().with(rule));
        let error = Log::open(&device, region(SEGMENTS), options())
            .await
            .err()
            .expect("refused");
        assert!(matches!(error, LogError::Read { .. }), "{error}");
        control.clear();
        let rule = FaultRule::fail(Operation::Read, Failure::Eio).after(3);
        control.add(rule.times(1));
        open(&device, SEGMENTS).await;
    });
}

#[test]
fn the_cache_is_bounded_and_the_device_answers_for_the_rest() {
    block_on(async {
        let (device, _) = formatted(SEGMENTS).await;
        let cache_len = ByteLen::from_usize(10 * PAGE);
        let options = LogOptions {
            cache_len,
            ..options()
        };
        let log = Log::open(&device, region(SEGMENTS), options)
            .await
            .expect("open");
        for id in [1, 2] {
            append(&group(&log, id), entries(1, 0..8, 2))
                .await
                .expect("append");
            assert!(log.usage().cached <= cache_len, "{:?}", log.usage());
        }
        assert_eq!(log.usage().cached, cache_len, "what fits is kept");
        for id in [1, 2] {
            let found = group(&log, id)
                .entries(ALL, usize::MAX)
                .await
                .expect("read");
            assert_entries(&found, &entries(1, 0..8, 2));
        }
        let counters = log.counters();
        assert_eq!((counters.cache_hits, counters.cache_misses), (5, 11));
        group(&log, 2).purge(LogId::new(1, 7)).await.expect("purge");
        assert_eq!(
            log.usage().cached,
            ByteLen::ZERO,
            "purged payloads are dropped"
        );
        let old = group(&log, 1).cached_payload(LogIndex::new(0), 0..PAGE);
        assert_eq!(old, None);
    });
}

#[test]
fn payloads_stay_in_memory_until_they_are_durable() {
    block_on(async {
        let (device, _) = formatted(SEGMENTS).await;
        let options = LogOptions {
            cache_len: ByteLen::ZERO,
            ..options()
        };
        let log = Log::open(&device, region(SEGMENTS), options)
            .await
            .expect("open");
        let writer = group(&log, 1);
        writer.append(entries(1, 0..5, 2), |_| ());
        let found = writer.entries(ALL, usize::MAX).await.expect("read");
        assert_entries(&found, &entries(1, 0..5, 2));
        assert!(writer.cached_payload(LogIndex::new(4), 0..PAGE).is_some());
        append(&writer, entries(1, 5..6, 2)).await.expect("append");
        assert_eq!(writer.cached_payload(LogIndex::new(4), 0..PAGE), None);
        let found = writer.entries(ALL, usize::MAX).await.expect("read");
        assert_entries(&found, &entries(1, 0..6, 2));
    });
}

#[test]
fn a_flipped_bit_on_the_way_from_the_device_is_noticed() {
    block_on(async {
        let (inner, _) = formatted(SEGMENTS).await;
        let log = open(&inner, SEGMENTS).await;
        append(&group(&log, 1), entries(1, 0..4, 1))
            .await
            .expect("append");
        log.close().await.expect("close");
        let (device, control) = Device::fault(inner.clone(), FaultPlan::new());
        let log = open(&device, SEGMENTS).await;
        let reader = group(&log, 1);
        let at = crate::support::pages_with(&inner, ogee_log::format::BATCH_MAGIC).await[1];
        // One batch: a header page, then the payloads.
        let payload = ogee_proto::unit::ByteOffset::new(at + 3 * PAGE as u64 + 9);
        let rule = control.add(FaultRule::flip_bit(payload, 3).times(1));
        let found = reader
            .entries(ALL, usize::MAX)
            .await
            .expect("the medium itself is sound");
        assert_entries(&found, &entries(1, 0..4, 1));
        assert_eq!(control.hits(rule), 1);
        patch(&inner, payload.get(), |data| data[0] ^= 1).await;
        let error = reader
            .payload(LogIndex::new(2), 0..1)
            .await
            .expect_err("rotten");
        assert!(matches!(error, LogError::Corrupt { .. }));
    });
}

#[test]
fn the_error_says_where_and_why() {
    block_on(async {
        let (inner, _) = formatted(SEGMENTS).await;
        let (device, control) = Device::fault(inner, FaultPlan::new());
        let log = open(&device, SEGMENTS).await;
        control.add(FaultRule::fail(Operation::WriteDurable, Failure::Enospc));
        let error = group(&log, 1).save_vote(vote(1)).await.expect_err("fails");
        let source = std::error::Error::source(&error)
            .expect("a source")
            .to_string();
        assert!(
            error.to_string().contains(&log.store().to_string()),
            "{error}"
        );
        assert!(source.contains("memory"), "{source}");
    });
}
