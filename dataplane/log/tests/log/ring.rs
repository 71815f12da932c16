//! The region wraps, fills up and is freed again.

use crate::support::{
    ALL, PAGE, STORE, append, assert_entries, entries, entry, fresh, group, open, vote,
};
use ogee_device::{Device, FaultPlan, FaultRule, Operation};
use ogee_log::limit::{QUEUE_GROUP_BYTES_MAX, UNASKED_ENTRIES};
use ogee_log::{Log, LogError, LogOptions, LogRegion, Pressure};
use ogee_proto::id::LogId;
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::executor::block_on;
use ogee_runtime::{spawn, yield_now};
use std::time::Duration;

const SEGMENTS: usize = 12;

/// Appends one entry of four pages to `group` and purges all but the last `keep`.
async fn turn(log: &Log, id: u32, index: u64, keep: u64) {
    let group = group(log, id);
    append(&group, entries(1, index..index + 1, 4))
        .await
        .expect("append");
    if index >= keep {
        group
            .purge(LogId::new(1, index - keep))
            .await
            .expect("purge");
    }
}

#[test]
fn wraps_many_times() {
    block_on(async {
        let (device, _, mut log) = fresh(SEGMENTS).await;
        let mut begun = 0;
        for index in 0..400 {
            turn(&log, 1, index, 3).await;
            if index % 90 == 89 {
                begun += log.counters().segments_begun;
                log.close().await.expect("close");
                log = open(&device, SEGMENTS).await;
            }
        }
        assert!(begun > 5 * SEGMENTS as u64, "{begun} segments");
        let found = group(&log, 1).entries(ALL, usize::MAX).await.expect("read");
        assert_entries(&found, &entries(1, 397..400, 4));
    });
}

#[test]
fn quiet_groups_do_not_pin_the_log() {
    block_on(async {
        let (device, _, log) = fresh(SEGMENTS).await;
        // Nine quiet groups, each with an entry in another segment: more than entries may use.
        let mut index = 0;
        for quiet in 100..109 {
            append(&group(&log, quiet), vec![entry(1, 0, 1)])
                .await
                .expect("append");
            for _ in 0..3 {
                turn(&log, 1, index, 0).await;
                index += 1;
            }
        }
        for _ in 0..200 {
            turn(&log, 1, index, 0).await;
            index += 1;
        }
        assert!(log.counters().entries_moved > 0, "{:?}", log.counters());
        log.close().await.expect("close");
        let log = open(&device, SEGMENTS).await;
        for quiet in 100..109 {
            let found = group(&log, quiet)
                .entries(ALL, usize::MAX)
                .await
                .expect("read");
            assert_entries(&found, &[entry(1, 0, 1)]);
        }
    });
}

#[test]
fn quiet_votes_survive_without_pinning_anything() {
    block_on(async {
        let (device, _, log) = fresh(SEGMENTS).await;
        group(&log, 7).save_vote(vote(5)).await.expect("vote");
        for index in 0..200 {
            turn(&log, 1, index, 0).await;
        }
        assert!(log.counters().segments_begun > 3 * SEGMENTS as u64);
        log.close().await.expect("close");
        let log = open(&device, SEGMENTS).await;
        assert_eq!(group(&log, 7).state().vote, Some(vote(5)));
    });
}

/// Fills the log; returns the number of entries.
async fn fill(log: &Log) -> u64 {
    let group = group(log, 1);
    for index in 0.. {
        match append(&group, entries(1, index..index + 1, 4)).await {
            Ok(()) => {}
            Err(LogError::Full { .. }) => return index,
            Err(error) => panic!("append: {error}"),
        }
    }
    unreachable!("a log is finite")
}

#[test]
fn a_full_log_refuses_entries_and_takes_everything_else() {
    block_on(async {
        let (_, _, log) = fresh(SEGMENTS).await;
        let mut pressure = log.pressure();
        assert_eq!(*pressure.borrow_and_update(), Pressure::Normal);
        let count = fill(&log).await;
        assert!(count > 8, "{count}");
        assert_eq!(*pressure.borrow_and_update(), Pressure::High);
        assert!(!log.has_space([4 * PAGE]));
        assert_eq!(log.counters().refused_full, 1);
        let state = group(&log, 1).state();
        assert_eq!(
            state.last,
            Some(LogId::new(1, count - 1)),
            "a refusal changes nothing"
        );
        // Far more control records than the reserve holds: their segments turn over.
        let turns = log.counters().segments_begun;
        for term in 1..300 {
            group(&log, 1).save_vote(vote(term)).await.expect("vote");
            group(&log, 2).save_vote(vote(term)).await.expect("vote");
        }
        assert!(log.counters().segments_begun > turns + 10);
        let waiter = log.clone();
        let waiting = spawn(async move { waiter.wait_space(ByteLen::from_usize(4 * PAGE)).await });
        yield_now().await;
        assert!(!waiting.is_finished());
        group(&log, 1)
            .purge(LogId::new(1, count - 2))
            .await
            .expect("purge");
        waiting.await.expect("not cancelled").expect("space");
        assert_eq!(*pressure.borrow_and_update(), Pressure::Normal);
        append(&group(&log, 1), entries(1, count..count + 1, 4))
            .await
            .expect("append");
        let found = group(&log, 1).entries(ALL, usize::MAX).await.expect("read");
        assert_entries(&found, &entries(1, count - 1..count + 1, 4));
    });
}

#[test]
fn a_full_log_opens_any_number_of_times() {
    block_on(async {
        let (device, _, mut log) = fresh(SEGMENTS).await;
        let count = fill(&log).await;
        for term in 1..40 {
            group(&log, 1).save_vote(vote(term)).await.expect("vote");
            log.close().await.expect("close");
            log = open(&device, SEGMENTS).await;
            assert_eq!(group(&log, 1).state().vote, Some(vote(term)));
            let refused = append(&group(&log, 1), entries(1, count..count + 1, 4)).await;
            assert!(matches!(refused, Err(LogError::Full { .. })));
        }
        let found = group(&log, 1).entries(ALL, usize::MAX).await.expect("read");
        assert_entries(&found, &entries(1, 0..count, 4));
        group(&log, 1)
            .purge(LogId::new(1, count - 1))
            .await
            .expect("purge");
        append(&group(&log, 1), entries(1, count..count + 1, 4))
            .await
            .expect("append");
    });
}

/// One group promises itself all that it may have: the others still find room, it waits for its own.
#[test]
fn one_group_cannot_take_the_whole_queue() {
    block_on(async {
        let len = ByteLen::new(200 << 20);
        let region = LogRegion {
            start: ByteOffset::ZERO,
            len,
        };
        let device = Device::memory(len);
        let options = LogOptions::new(STORE);
        Log::format(&device, region, options).await.expect("format");
        let log = Log::open(&device, region, options).await.expect("open");
        let mib = ByteLen::new(1 << 20);
        let mut held = Vec::new();
        while let Some(reservation) = now(group(&log, 1).reserve(mib)).await {
            held.push(reservation);
        }
        assert_eq!(held.len() as u64, QUEUE_GROUP_BYTES_MAX >> 20);
        let other = now(group(&log, 2).reserve(mib)).await;
        assert!(other.is_some(), "another group is let in");
        held.pop();
        assert!(now(group(&log, 1).reserve(mib)).await.is_some());
        drop(held);
        let large = now(group(&log, 1).reserve(ByteLen::new(QUEUE_GROUP_BYTES_MAX * 2))).await;
        assert!(large.is_some(), "what is alone always fits");
    });
}

/// Consensus asks nobody before it appends what a new leader begins with, or a change of members: a log
/// that has no more room to promise has some for those.
#[test]
fn a_log_that_is_promised_away_takes_entries_that_nobody_asked_about() {
    block_on(async {
        let segment_len = ByteLen::new(1 << 20);
        let len = ByteLen::new(segment_len.get() * SEGMENTS as u64);
        let (device, start) = (Device::memory(len), ByteOffset::ZERO);
        let region = LogRegion { start, len };
        let options = LogOptions {
            segment_len,
            ..LogOptions::new(STORE)
        };
        Log::format(&device, region, options).await.expect("format");
        let log = Log::open(&device, region, options).await.expect("open");
        append(&group(&log, 2), entries(1, 0..1, 0))
            .await
            .expect("append");
        let mut last = 0;
        while let Some(room) = now(group(&log, 1).reserve(Log::entry_cost(PAGE))).await {
            append(&group(&log, 1), entries(1, last..last + 1, 1))
                .await
                .expect("room was promised");
            last += 1;
            drop(room);
        }
        assert_eq!(log.usage().free.get() / Log::entry_cost(PAGE).get(), 0);
        for id in [1, 2] {
            let next = if id == 1 { last } else { 1 };
            for index in next..next + UNASKED_ENTRIES {
                append(&group(&log, id), entries(1, index..index + 1, 0))
                    .await
                    .expect("room is left alone for it");
            }
        }
    });
}

/// What is ready at once.
async fn now<T>(future: impl Future<Output = Result<T, LogError>>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        std::task::Poll::Ready(done) => std::task::Poll::Ready(Some(done.expect("runs"))),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

#[test]
fn a_reader_keeps_its_segment() {
    let read_during_wrap = |delay| block_on(read_while_wrapping(delay));
    let delays = [100, 1_000, 10_000].map(Duration::from_millis);
    assert!(
        delays.into_iter().any(read_during_wrap),
        "the log never wrapped during a read"
    );
}

/// Reads entries whose segments are freed and would be overwritten before the slow reads are
/// served; tells whether the reads were slow enough.
async fn read_while_wrapping(delay: Duration) -> bool {
    let (inner, _, log) = fresh(SEGMENTS).await;
    append(&group(&log, 1), entries(1, 0..8, 4))
        .await
        .expect("append");
    log.close().await.expect("close");
    let (device, control) = Device::fault(inner, FaultPlan::new());
    let log = open(&device, SEGMENTS).await;
    control.add(FaultRule::delay(Operation::Read, delay));
    let reader = group(&log, 1);
    let reading = spawn(async move { reader.entries(ALL, usize::MAX).await });
    yield_now().await;
    group(&log, 1).purge(LogId::new(1, 7)).await.expect("purge");
    let begun = log.counters().segments_begun;
    for index in 8.. {
        turn(&log, 1, index, 0).await;
        if log.counters().segments_begun > begun + 2 * SEGMENTS as u64 {
            break;
        }
    }
    let overtaken = !reading.is_finished();
    let found = reading.await.expect("not cancelled").expect("read");
    assert_entries(&found, &entries(1, 0..8, 4));
    overtaken
}
