//! What the calls promise while nothing goes wrong.

use crate::support::{
    ALL, PAGE, STORE, append, assert_entries, entries, entry, formatted, fresh, group, open,
    options, region, vote,
};
use ogee_device::Device;
use ogee_log::{EntryPart, GeometryField, GroupState, Log, LogError, LogOptions, LogRegion};
use ogee_proto::id::{CopysetId, LogId, LogIndex, StoreId};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::executor::block_on;
use ogee_runtime::{Buffer, Payload, sleep};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

const SEGMENTS: usize = 12;

#[test]
fn entries_are_readable_at_once_and_durable_when_called_back() {
    block_on(async {
        let (_, _, log) = fresh(SEGMENTS).await;
        let group = group(&log, 1);
        let order = Rc::new(RefCell::new(Vec::new()));
        for index in 0..4 {
            let order = Rc::clone(&order);
            group.append(vec![entry(1, index, 1)], move |result| {
                result.expect("durable");
                order.borrow_mut().push(index);
            });
        }
        let found = group.entries(ALL, usize::MAX).await.expect("read");
        assert_entries(&found, &entries(1, 0..4, 1));
        assert!(order.borrow().is_empty(), "nothing was written yet");
        assert_eq!(group.durable_state().last, None);
        append(&group, Vec::new())
            .await
            .expect("an empty append waits for its turn");
        assert_eq!(*order.borrow(), [0, 1, 2, 3]);
        assert_eq!(group.durable_state().last, Some(LogId::new(1, 3)));
        assert!(
            log.counters().flushes <= 2,
            "what came together is written together"
        );
    });
}

#[test]
fn ranges_are_clipped_to_what_is_live() {
    block_on(async {
        let (_, _, log) = fresh(SEGMENTS).await;
        let group = group(&log, 1);
        append(&group, entries(1, 5..10, 1)).await.expect("append");
        let range = |start, end| LogIndex::new(start)..LogIndex::new(end);
        let ids = |range| {
            let group = group.clone();
            async move {
                let found = group.entries(range, usize::MAX).await.expect("read");
                found
                    .iter()
                    .map(|entry| entry.id.index.get())
                    .collect::<Vec<_>>()
            }
        };
        assert_eq!(ids(range(0, 7)).await, [5, 6]);
        assert_eq!(ids(range(8, 100)).await, [8, 9]);
        assert!(ids(range(6, 6)).await.is_empty());
        assert!(ids(range(9, 6)).await.is_empty());
        assert!(ids(range(20, 30)).await.is_empty());
        assert_eq!(group.first_index(), Some(LogIndex::new(5)));
        assert_eq!(group.entry_id(LogIndex::new(6)), Some(LogId::new(1, 6)));
        assert_eq!(group.entry_id(LogIndex::new(4)), None);
    });
}

#[test]
fn at_least_one_entry_whatever_the_limit() {
    block_on(async {
        let (_, _, log) = fresh(SEGMENTS).await;
        let group = group(&log, 1);
        append(&group, entries(1, 0..6, 2)).await.expect("append");
        assert_eq!(group.entries(ALL, 0).await.expect("read").len(), 1);
        assert_eq!(
            group
                .entries(ALL, 2 * PAGE + 500)
                .await
                .expect("read")
                .len(),
            1
        );
        assert_eq!(
            group
                .entries(ALL, 4 * PAGE + 500)
                .await
                .expect("read")
                .len(),
            2
        );
        assert_eq!(group.entries(ALL, usize::MAX).await.expect("read").len(), 6);
        let bytes = entries(1, 0..6, 2)
            .iter()
            .map(|entry| entry.head.len() + 2 * PAGE)
            .sum();
        assert_eq!(group.live_len(), ByteLen::from_usize(bytes));
    });
}

#[test]
fn parts_of_a_payload() {
    block_on(async {
        let (device, _, log) = fresh(SEGMENTS).await;
        append(&group(&log, 1), entries(1, 0..2, 3))
            .await
            .expect("append");
        let whole = entry(1, 1, 3).payload;
        let cached = group(&log, 1).cached_payload(LogIndex::new(1), PAGE..2 * PAGE);
        assert_eq!(cached, Some(whole.slice(PAGE..2 * PAGE)));
        log.close().await.expect("close");
        let log = open(&device, SEGMENTS).await;
        let group = group(&log, 1);
        assert_eq!(group.cached_payload(LogIndex::new(1), 0..PAGE), None);
        let read = group
            .payload(LogIndex::new(1), PAGE + 7..2 * PAGE)
            .await
            .expect("read");
        assert_eq!(read, whole.slice(PAGE + 7..2 * PAGE));
        let beyond = group.payload(LogIndex::new(1), PAGE..4 * PAGE).await;
        assert!(matches!(beyond, Err(LogError::NoEntry { .. })));
        let absent = group.payload(LogIndex::new(2), 0..0).await;
        assert!(matches!(absent, Err(LogError::NoEntry { .. })));
    });
}

#[test]
fn peeking_leaves_out_what_only_the_device_has() {
    block_on(async {
        let (device, _, log) = fresh(SEGMENTS).await;
        append(&group(&log, 1), entries(1, 0..2, 1))
            .await
            .expect("append");
        log.close().await.expect("close");
        let log = open(&device, SEGMENTS).await;
        let group = group(&log, 1);
        append(&group, entries(1, 2..4, 1)).await.expect("append");
        let found = group.peek(ALL, usize::MAX);
        let cached: Vec<bool> = found.iter().map(|entry| entry.payload.is_some()).collect();
        assert_eq!(cached, [false, false, true, true]);
        assert!(found.iter().all(|entry| entry.payload_len as usize == PAGE));
        assert_eq!(group.peek(ALL, PAGE).len(), 1);
        assert_eq!(log.counters().cache_misses, 0);
    });
}

#[test]
fn conflicting_entries_need_a_truncation_first() {
    block_on(async {
        let (device, _, log) = fresh(SEGMENTS).await;
        let writer = group(&log, 1);
        append(&writer, entries(1, 0..5, 1)).await.expect("append");
        for index in [0, 4, 6] {
            let refused = append(&writer, vec![entry(2, index, 1)]).await;
            assert!(
                matches!(refused, Err(LogError::NotConsecutive { .. })),
                "{index}"
            );
        }
        // Queued in stream order: none is awaited before the next.
        let truncated = writer.truncate_after(Some(LogIndex::new(2)));
        let appended = append(&writer, entries(2, 3..6, 1)).await;
        truncated.await.expect("truncate");
        appended.expect("append");
        let expected = [entries(1, 0..3, 1), entries(2, 3..6, 1)].concat();
        assert_entries(
            &writer.entries(ALL, usize::MAX).await.expect("read"),
            &expected,
        );
        log.close().await.expect("close");
        let log = open(&device, SEGMENTS).await;
        let found = group(&log, 1).entries(ALL, usize::MAX).await.expect("read");
        assert_entries(&found, &expected);
    });
}

#[test]
fn truncation_to_nothing_and_beyond_the_end() {
    block_on(async {
        let (_, _, log) = fresh(SEGMENTS).await;
        let group = group(&log, 1);
        group
            .truncate_after(None)
            .await
            .expect("nothing to truncate");
        append(&group, entries(1, 0..5, 0)).await.expect("append");
        group
            .truncate_after(Some(LogIndex::new(9)))
            .await
            .expect("nothing after 9");
        assert_eq!(group.last(), Some(LogId::new(1, 4)));
        group.truncate_after(None).await.expect("truncate");
        assert_eq!((group.last(), group.first_index()), (None, None));
        append(&group, entries(2, 0..2, 0)).await.expect("append");
        group.purge(LogId::new(2, 0)).await.expect("purge");
        group.truncate_after(None).await.expect("truncate");
        assert_eq!(group.last(), Some(LogId::new(2, 0)), "the purged id stays");
        append(&group, entries(3, 1..4, 0)).await.expect("append");
        group.purge(LogId::new(3, 2)).await.expect("purge");
        let refused = group.truncate_after(Some(LogIndex::new(1))).await;
        assert!(matches!(refused, Err(LogError::TruncatePurged { .. })));
    });
}

#[test]
fn purge_below_inside_and_beyond() {
    block_on(async {
        let (device, _, log) = fresh(SEGMENTS).await;
        let writer = group(&log, 1);
        append(&writer, entries(1, 0..11, 1)).await.expect("append");
        writer.purge(LogId::new(1, 5)).await.expect("purge");
        assert_eq!(writer.first_index(), Some(LogIndex::new(6)));
        assert_eq!(writer.entry_id(LogIndex::new(5)), Some(LogId::new(1, 5)));
        writer
            .purge(LogId::new(1, 3))
            .await
            .expect("a lower purge changes nothing");
        assert_eq!(writer.state().purged, Some(LogId::new(1, 5)));
        writer
            .purge(LogId::new(4, 20))
            .await
            .expect("purge beyond the end");
        let gone = GroupState {
            purged: Some(LogId::new(4, 20)),
            last: Some(LogId::new(4, 20)),
            ..GroupState::default()
        };
        assert_eq!((writer.state(), writer.first_index()), (gone, None));
        let refused = append(&writer, entries(4, 11..12, 1)).await;
        assert!(matches!(refused, Err(LogError::NotConsecutive { .. })));
        append(&writer, entries(4, 21..23, 1))
            .await
            .expect("append");
        log.close().await.expect("close");
        let log = open(&device, SEGMENTS).await;
        let found = group(&log, 1).entries(ALL, usize::MAX).await.expect("read");
        assert_entries(&found, &entries(4, 21..23, 1));
        assert_eq!(group(&log, 1).state().purged, Some(LogId::new(4, 20)));
    });
}

#[test]
fn votes_and_committed_ids_survive() {
    block_on(async {
        let (device, _, log) = fresh(SEGMENTS).await;
        let writer = group(&log, 3);
        writer.save_vote(vote(1)).await.expect("vote");
        writer.save_vote(vote(2)).await.expect("vote");
        append(&writer, entries(2, 0..3, 0)).await.expect("append");
        writer.save_committed(LogId::new(2, 1));
        assert_eq!(writer.state().committed, Some(LogId::new(2, 1)));
        assert_eq!(writer.durable_state().committed, None, "lazy");
        writer.committed_durable().await.expect("durable");
        assert_eq!(writer.durable_state(), writer.state());
        let state = writer.state();
        log.close().await.expect("close");
        let log = open(&device, SEGMENTS).await;
        assert_eq!(group(&log, 3).state(), state);
        assert_eq!(state.vote, Some(vote(2)));
    });
}

#[test]
fn an_idle_log_writes_the_committed_id_and_then_nothing() {
    block_on(async {
        let (_, _, log) = fresh(SEGMENTS).await;
        let group = group(&log, 1);
        append(&group, entries(1, 0..1, 0)).await.expect("append");
        group.save_committed(LogId::new(1, 0));
        while group.durable_state().committed.is_none() {
            sleep(Duration::from_millis(5)).await;
        }
        let flushes = log.counters().flushes;
        assert_eq!(flushes, 2, "the entry, then the committed id, which closes");
        sleep(Duration::from_millis(60)).await;
        assert_eq!(log.counters().flushes, flushes);
    });
}

#[test]
fn a_closing_batch_follows_an_idle_write() {
    block_on(async {
        let (_, _, log) = fresh(SEGMENTS).await;
        append(&group(&log, 1), entries(1, 0..1, 0))
            .await
            .expect("append");
        while log.counters().closing_batches == 0 {
            sleep(Duration::from_millis(5)).await;
        }
        sleep(Duration::from_millis(60)).await;
        assert_eq!(
            (log.counters().closing_batches, log.counters().flushes),
            (1, 2)
        );
    });
}

#[test]
fn a_removed_group_is_gone_and_its_id_is_free() {
    block_on(async {
        let (device, _, log) = fresh(SEGMENTS).await;
        for id in [1, 2] {
            append(&group(&log, id), entries(1, 0..5, 1))
                .await
                .expect("append");
        }
        log.remove_group(CopysetId::new(1)).await.expect("remove");
        log.remove_group(CopysetId::new(9))
            .await
            .expect("removing nothing");
        assert_eq!(log.groups(), [CopysetId::new(2)]);
        let again = group(&log, 1);
        assert_eq!(again.state(), GroupState::default());
        append(&again, entries(9, 40..42, 1)).await.expect("append");
        log.close().await.expect("close");
        let log = open(&device, SEGMENTS).await;
        assert_eq!(log.groups(), [CopysetId::new(1), CopysetId::new(2)]);
        let found = group(&log, 1).entries(ALL, usize::MAX).await.expect("read");
        assert_entries(&found, &entries(9, 40..42, 1));
    });
}

#[test]
fn wrong_entries_are_refused_whole() {
    block_on(async {
        let (_, _, log) = fresh(SEGMENTS).await;
        let group = group(&log, 1);
        let part = |result: Result<(), LogError>| match result {
            Err(LogError::EntryLength { part, .. }) => part,
            other => panic!("unexpected {other:?}"),
        };
        let good = entry(1, 0, 1);
        let mut long_head = entry(1, 1, 1);
        long_head.head = vec![0; 2049].into();
        assert_eq!(
            part(append(&group, vec![good.clone(), long_head]).await),
            EntryPart::Head
        );
        let too_long = entry(1, 1, 5);
        assert_eq!(
            part(append(&group, vec![good.clone(), too_long]).await),
            EntryPart::Payload
        );
        let mut uneven = entry(1, 1, 1);
        uneven.payload = uneven.payload.slice(0..100);
        assert_eq!(
            part(append(&group, vec![good.clone(), uneven]).await),
            EntryPart::Payload
        );
        let mut rotten = entry(1, 1, 1);
        rotten.payload_crc ^= 1;
        let refused = append(&group, vec![good, rotten]).await;
        assert!(matches!(refused, Err(LogError::Corrupt { index, .. }) if index.get() == 1));
        assert_eq!(group.state(), GroupState::default());
        assert_eq!(log.counters().flushes, 0);
    });
}

#[test]
fn a_closed_log_refuses() {
    block_on(async {
        let (_, _, log) = fresh(SEGMENTS).await;
        let group = group(&log, 1);
        let last = append(&group, entries(1, 0..1, 1));
        log.close().await.expect("close");
        last.await.expect_err("appended after the close began");
        let refused = group.save_vote(vote(1)).await;
        assert!(matches!(refused, Err(LogError::Closed { .. })));
        assert!(matches!(
            log.wait_space(ByteLen::ZERO).await,
            Err(LogError::Closed { .. })
        ));
        log.close().await.expect("closing twice");
    });
}

#[test]
fn dropping_all_handles_writes_what_is_queued() {
    block_on(async {
        let (device, _, log) = fresh(SEGMENTS).await;
        let writer = group(&log, 1);
        let (done, durable) = ogee_runtime::channel::oneshot::channel();
        writer.append(entries(1, 0..3, 1), move |result| {
            done.send(result).expect("someone waits");
        });
        drop((log, writer));
        durable.await.expect("called").expect("durable");
        let log = open(&device, SEGMENTS).await;
        let found = group(&log, 1).entries(ALL, usize::MAX).await.expect("read");
        assert_entries(&found, &entries(1, 0..3, 1));
    });
}

#[test]
fn groups_are_bounded_by_the_segment_header() {
    block_on(async {
        let (_, _, log) = fresh(SEGMENTS).await;
        let mut created = 0;
        let refused = loop {
            match group(&log, created).save_vote(vote(1)).await {
                Ok(()) => created += 1,
                Err(error) => break error,
            }
        };
        assert!(
            matches!(refused, LogError::TooManyGroups { max: 46, .. }),
            "{refused}"
        );
        assert_eq!((created, log.groups().len()), (46, 46));
        log.remove_group(CopysetId::new(7)).await.expect("remove");
        group(&log, 99)
            .save_vote(vote(1))
            .await
            .expect("there is room again");
    });
}

#[test]
fn what_is_not_this_log_is_refused() {
    block_on(async {
        let (device, _) = formatted(SEGMENTS).await;
        let mut other = options();
        other.store = StoreId::from_bytes([9; 16]);
        let foreign = Log::open(&device, region(SEGMENTS), other)
            .await
            .err()
            .expect("foreign");
        assert!(
            matches!(foreign, LogError::ForeignStore { .. }),
            "{foreign}"
        );
        let mut longer = options();
        longer.segment_len = ByteLen::new(128 << 10);
        let geometry = Log::open(&device, region(SEGMENTS), longer)
            .await
            .err()
            .expect("geometry");
        let segment_len = GeometryField::SegmentLen;
        assert!(matches!(geometry, LogError::Geometry { field, .. } if field == segment_len));
        let geometry = Log::open(&device, region(10), options())
            .await
            .err()
            .expect("geometry");
        let region_len = GeometryField::RegionLen;
        assert!(matches!(geometry, LogError::Geometry { field, .. } if field == region_len));
        let blank = Device::memory(device.len());
        let nothing = Log::open(&blank, region(SEGMENTS), options())
            .await
            .err()
            .expect("blank");
        assert!(
            matches!(nothing, LogError::NotFormatted { .. }),
            "{nothing}"
        );
    });
}

#[test]
fn formatting_again_forgets_everything() {
    block_on(async {
        let (device, _, log) = fresh(SEGMENTS).await;
        for index in 0..200 {
            append(&group(&log, 1), entries(1, index..index + 1, 1))
                .await
                .expect("append");
            group(&log, 1)
                .purge(LogId::new(1, index))
                .await
                .expect("purge");
        }
        log.close().await.expect("close");
        Log::format(&device, region(SEGMENTS), options())
            .await
            .expect("format");
        assert!(open(&device, SEGMENTS).await.groups().is_empty());
    });
}

/// A payload whose memory a device can take is written from there: nobody copies it, whatever its size.
#[test]
fn payloads_at_pages_are_written_from_where_they_are() {
    block_on(async {
        let (device, control) = Device::memory_with_control(ByteLen::new(80 << 20));
        let region = LogRegion {
            start: ByteOffset::ZERO,
            len: device.len(),
        };
        let options = LogOptions::new(STORE);
        Log::format(&device, region, options).await.expect("format");
        let log = Log::open(&device, region, options).await.expect("open");
        let (mut expected, before) = (Vec::new(), log.counters().bytes_copied);
        for (index, pages) in (0..).zip([1, 16, 40]) {
            let mut entry = entry(1, index, pages);
            entry.payload = Payload::from(Buffer::copy_from(&entry.payload));
            let payload = entry.payload.clone();
            append(&group(&log, 1), vec![entry.clone()])
                .await
                .expect("append");
            let written = control.written_from();
            assert_eq!(written[1..], [(payload.as_ptr().addr(), payload.len())]);
            assert_eq!(log.counters().bytes_copied, before);
            expected.push(entry);
        }
        log.close().await.expect("close");
        let log = Log::open(&device, region, options).await.expect("open");
        let found = group(&log, 1).entries(ALL, usize::MAX).await.expect("read");
        assert_entries(&found, &expected);
    });
}

/// Segments, batches and entries of the sizes that production uses.
#[test]
fn the_largest_entries_in_default_segments() {
    block_on(async {
        const REGION: u64 = 80 << 20;
        let region = LogRegion {
            start: ByteOffset::ZERO,
            len: ByteLen::new(REGION),
        };
        let device = Device::memory(ByteLen::new(REGION));
        let options = LogOptions::new(STORE);
        Log::format(&device, region, options).await.expect("format");
        let log = Log::open(&device, region, options).await.expect("open");
        for index in 0..60 {
            let entries = vec![entry(1, 2 * index, 256), entry(1, 2 * index + 1, 16)];
            append(&group(&log, 1), entries).await.expect("append");
            if index >= 2 {
                group(&log, 1)
                    .purge(LogId::new(1, 2 * index - 3))
                    .await
                    .expect("purge");
            }
        }
        let counters = log.counters();
        assert_eq!(counters.bytes_copied, counters.payload_bytes);
        assert_eq!(counters.payload_bytes, 60 * 272 * PAGE as u64);
        assert!(counters.segments_begun > 7, "{counters:?}");
        log.close().await.expect("close");
        let log = Log::open(&device, region, options).await.expect("open");
        let found = group(&log, 1).entries(ALL, usize::MAX).await.expect("read");
        let expected: Vec<_> = (116..120)
            .map(|index| entry(1, index, if index % 2 == 0 { 256 } else { 16 }))
            .collect();
        assert_entries(&found, &expected);
    });
}
