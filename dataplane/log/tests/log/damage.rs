//! What recovery says about a medium that lost or changed what was durable.

use crate::support::{
    ALL, PAGE, SEGMENT, START, append, assert_entries, copy_of, entries, entry, formatted, fresh,
    group, lost, open, options, pages_with, patch, region, repair, vote,
};
use ogee_device::{Device, FaultPlan, FaultRule};
use ogee_log::format::{BATCH_MAGIC, SEGMENT_MAGIC, VERSION};
use ogee_log::{Entry, Log, LogError};
use ogee_proto::checksum::crc32c;
use ogee_proto::id::{CopysetId, LogId, LogIndex};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::executor::block_on;
use ogee_runtime::sleep;
use std::time::Duration;

const SEGMENTS: usize = 8;

/// Offsets of the batches, without the one with which opening ended the segment of formatting.
async fn batches_of_use(device: &Device) -> Vec<u64> {
    let mut batches = pages_with(device, BATCH_MAGIC).await;
    batches.remove(0);
    batches
}

/// A closed log with five batches of one entry each; their offsets, and the closing one's.
async fn five_batches() -> (Device, Vec<u64>) {
    let device = batches_of(5, 1).await;
    let batches = batches_of_use(&device).await;
    assert_eq!(batches.len(), 6, "five and the closing one");
    (device, batches)
}

fn identity(entry: &Entry) -> u32 {
    entry.identity(CopysetId::new(1))
}

/// Group 1 has lost exactly `indexes` of `whole`, says so after every open, takes nothing, does not
/// disturb another group, and is whole again once they are put back.
async fn assert_repairable(device: &Device, whole: &[Entry], indexes: &[u64]) {
    let named: Vec<_> = whole
        .iter()
        .filter(|entry| indexes.contains(&entry.id.index.get()))
        .map(|entry| (entry.id.index.get(), Some(identity(entry))))
        .collect();
    let next = whole.last().expect("some").id.index.get() + 1;
    let mut log = open(device, SEGMENTS).await;
    for _ in 0..2 {
        let one = group(&log, 1);
        assert_eq!(lost(&one), named);
        let damage = one.damage().expect("damaged");
        assert!(damage.is_blocking && damage.is_repairable(), "{damage}");
        let refused = append(&one, entries(9, next..next + 1, 1)).await;
        assert!(matches!(refused, Err(LogError::GroupDamaged { .. })));
        let refused = one.save_vote(vote(9)).await;
        assert!(matches!(refused, Err(LogError::GroupDamaged { .. })));
        let refused = one.truncate_after(None).await;
        assert!(matches!(refused, Err(LogError::GroupDamaged { .. })));
        append(&group(&log, 2), entries(1, 0..1, 1))
            .await
            .expect("others go on");
        log.remove_group(CopysetId::new(2)).await.expect("remove");
        log.close().await.expect("close");
        log = open(device, SEGMENTS).await;
    }
    let one = group(&log, 1);
    repair(&one, whole).await.expect("repair");
    assert_eq!(one.damage(), None);
    append(&one, entries(9, next..next + 1, 1))
        .await
        .expect("append");
    let all = [whole, &entries(9, next..next + 1, 1)].concat();
    for _ in 0..2 {
        let found = group(&log, 1).entries(ALL, usize::MAX).await.expect("read");
        assert_entries(&found, &all);
        log.close().await.expect("close");
        log = open(device, SEGMENTS).await;
    }
}

#[test]
fn a_lost_batch_is_named_by_its_successor() {
    block_on(async {
        let (device, batches) = five_batches().await;
        for (index, at) in (0..).zip(batches.iter().take(5)) {
            for byte in [0, 9, 40, 100, 4000] {
                let copy = copy_of(&device).await;
                patch(&copy, at + byte, |data| data[0] ^= 0x10).await;
                assert_repairable(&copy, &entries(1, 0..5, 1), &[index]).await;
            }
        }
    });
}

#[test]
fn a_vote_survives_the_loss_of_its_batch() {
    block_on(async {
        let (device, _, log) = fresh(SEGMENTS).await;
        let writer = group(&log, 1);
        append(&writer, entries(1, 0..4, 1)).await.expect("append");
        writer.save_vote(vote(7)).await.expect("vote");
        writer
            .truncate_after(Some(LogIndex::new(2)))
            .await
            .expect("truncate");
        writer.purge(LogId::new(1, 0)).await.expect("purge");
        log.remove_group(CopysetId::new(5)).await.expect("remove");
        let state = writer.state();
        log.close().await.expect("close");
        let batches = batches_of_use(&device).await;
        for at in &batches[1..] {
            let copy = copy_of(&device).await;
            patch(&copy, *at, |data| data[..PAGE].fill(0)).await;
            for _ in 0..3 {
                let log = open(&copy, SEGMENTS).await;
                let group = group(&log, 1);
                assert_eq!((group.state(), group.damage()), (state, None));
                let found = group.entries(ALL, usize::MAX).await.expect("read");
                assert_entries(&found, &entries(1, 1..3, 1));
                log.close().await.expect("close");
            }
        }
    });
}

#[test]
fn what_nothing_repeats_costs_every_group_its_vote() {
    block_on(async {
        let (device, batches) = five_batches().await;
        for at in &batches[2..5] {
            patch(&device, *at, |data| data[..PAGE].fill(0)).await;
        }
        let all = entries(1, 0..5, 1);
        let known = [CopysetId::new(1), CopysetId::new(8)];
        for _ in 0..3 {
            let log = Log::open_with(&device, region(SEGMENTS), options(), &known)
                .await
                .expect("open");
            let one = group(&log, 1);
            let damage = one.damage().expect("damaged");
            // The closing batch repeats the last one, which tells the end, but not the vote.
            assert!(damage.vote_lost && !damage.end_lost, "{damage}");
            let named = [
                (2, None),
                (3, Some(identity(&all[3]))),
                (4, Some(identity(&all[4]))),
            ];
            assert_eq!(lost(&one), named);
            let damage = group(&log, 8).damage().expect("damaged");
            assert!(damage.vote_lost && damage.end_lost, "{damage}");
            assert_eq!(group(&log, 9).damage(), None, "a group of no replica here");
            log.close().await.expect("close");
        }
        let log = open(&device, SEGMENTS).await;
        let one = group(&log, 1);
        let refused = one.repair(&all[2], identity(&all[1])).await;
        assert!(matches!(refused, Err(LogError::WrongEntry { .. })));
        repair(&one, &all).await.expect("repair");
        let damage = one.damage().expect("the vote is still lost");
        assert!(damage.vote_lost && damage.entries.is_empty() && damage.is_blocking);
        let refused = one.save_vote(vote(3)).await;
        assert!(matches!(refused, Err(LogError::GroupDamaged { .. })));
        log.remove_group(CopysetId::new(1)).await.expect("remove");
        append(&one, entries(4, 9..11, 1))
            .await
            .expect("a new replica");
    });
}

/// The log cannot tell, and `format` says so: the group's user compares with its checkpoint.
#[test]
fn a_lost_removal_leaves_the_purge_from_before_it() {
    block_on(async {
        let (device, _, log) = fresh(SEGMENTS).await;
        let writer = group(&log, 1);
        append(&writer, entries(1, 0..6, 0)).await.expect("append");
        let before = LogId::new(1, 2);
        writer.purge(before).await.expect("purge");
        log.close().await.expect("close");
        let log = open(&device, SEGMENTS).await;
        let writer = group(&log, 1);
        log.remove_group(CopysetId::new(1)).await.expect("remove");
        for indexes in [0..3, 3..6] {
            append(&writer, entries(1, indexes, 0))
                .await
                .expect("again");
        }
        writer.save_vote(vote(7)).await.expect("vote");
        append(&writer, entries(1, 6..7, 0)).await.expect("append");
        assert_eq!(writer.state().purged, None);
        log.close().await.expect("close");
        // All from the removal to the vote, which repeats the last of them.
        let (mut lost_count, mut is_lost) = (0, false);
        for at in pages_with(&device, BATCH_MAGIC).await {
            is_lost = match first_kind(&device, at).await {
                Some(REMOVAL) => true,
                Some(VOTE) => false,
                _ => is_lost,
            };
            if is_lost {
                lost_count += 1;
                patch(&device, at, |data| data[..PAGE].fill(0)).await;
            }
        }
        assert!(lost_count >= 3, "{lost_count}");
        let log = open(&device, SEGMENTS).await;
        let one = group(&log, 1);
        let damage = one.damage().unwrap_or_default();
        assert!(damage.is_repairable(), "{damage}");
        // The entries of before are those of now, so they may be there.
        assert!(lost(&one).iter().all(|(index, _)| *index > 2), "{damage}");
        assert_eq!(one.state().purged, Some(before));
        assert_eq!(one.state().last, Some(LogId::new(1, 6)));
    });
}

/// Kinds of records.
const VOTE: u8 = 2;
const REMOVAL: u8 = 6;

/// The kind of a batch's first record, if it has any.
async fn first_kind(device: &Device, at: u64) -> Option<u8> {
    let (start, len) = (ByteOffset::new(at), ByteLen::from_usize(PAGE));
    let page = device.read(start, len).await.expect("read");
    (page[76] > 0).then_some(page[96])
}

#[test]
fn the_closing_batch_may_be_lost() {
    block_on(async {
        let (device, batches) = five_batches().await;
        patch(&device, batches[5], |data| data[0] ^= 1).await;
        let log = open(&device, SEGMENTS).await;
        assert_eq!(group(&log, 1).damage(), None);
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
        assert_repairable(&device, &entries(1, 0..1, 1), &[0]).await;
    });
}

#[test]
fn a_rotten_payload_is_that_entrys_alone_and_can_be_put_back() {
    block_on(async {
        let (device, batches) = five_batches().await;
        patch(&device, batches[2] + PAGE as u64 + 77, |data| data[0] ^= 1).await;
        let log = open(&device, SEGMENTS).await;
        let group = group(&log, 1);
        assert_eq!(group.damage(), None, "payloads are verified when read");
        let error = group.entries(ALL, usize::MAX).await.expect_err("rotten");
        assert!(matches!(error, LogError::Corrupt { index, .. } if index == LogIndex::new(2)));
        let part = group.payload(LogIndex::new(2), 500..600).await;
        assert!(matches!(part, Err(LogError::EntryLost { .. })), "{part:?}");
        let others = group.linked_entries(LogIndex::new(3)..LogIndex::new(9), usize::MAX);
        assert_eq!(others.await.expect("read").len(), 2);
        let below = group.linked_entries(LogIndex::new(0)..LogIndex::new(9), usize::MAX);
        assert_eq!(below.await.expect("read").len(), 2, "up to what is lost");
        let rotten = entry(1, 2, 1);
        assert_eq!(lost(&group), [(2, Some(identity(&rotten)))]);
        assert!(!group.damaged().await.is_blocking, "the group goes on");
        append(&group, entries(1, 5..6, 1)).await.expect("append");
        let mut wrong = rotten.clone();
        wrong.head = b"another".to_vec().into();
        let refused = group.repair(&wrong, 0).await;
        assert!(matches!(refused, Err(LogError::WrongEntry { .. })));
        group.repair(&rotten, 0).await.expect("repair");
        let refused = group.repair(&rotten, 0).await;
        assert!(matches!(refused, Err(LogError::NoEntry { .. })));
        assert_eq!((group.damage(), log.counters().entries_repaired), (None, 1));
        log.close().await.expect("close");
        let log = open(&device, SEGMENTS).await;
        let found = crate::support::group(&log, 1);
        let found = found.entries(ALL, usize::MAX).await.expect("read");
        assert_entries(&found, &entries(1, 0..6, 1));
    });
}

#[test]
fn a_lost_segment_header_is_told_by_its_batches() {
    block_on(async {
        let (device, batches) = five_batches().await;
        let heads = pages_with(&device, SEGMENT_MAGIC).await;
        assert_eq!(heads.len(), 4, "of format and of open, two copies each");
        for at in &heads[2..4] {
            patch(&device, *at, |data| data[16] ^= 1).await;
        }
        let copy = copy_of(&device).await;
        let log = open(&copy, SEGMENTS).await;
        assert_eq!(group(&log, 1).damage(), None);
        let found = group(&log, 1).entries(ALL, usize::MAX).await.expect("read");
        assert_entries(&found, &entries(1, 0..5, 1));
        for (index, at) in (0..5).zip(&batches) {
            let copy = copy_of(&device).await;
            patch(&copy, *at, |data| data[..PAGE].fill(0)).await;
            assert_repairable(&copy, &entries(1, 0..5, 1), &[index]).await;
        }
    });
}

/// The first opening knows where the segment's batches begin from the segment before it; later ones
/// do not, since nothing in that is live.
#[test]
fn a_lost_batch_behind_a_lost_segment_header_is_named_after_every_open() {
    block_on(async {
        let (device, _, log) = fresh(SEGMENTS).await;
        let writer = group(&log, 1);
        append(&writer, entries(1, 0..3, 1)).await.expect("append");
        append(&writer, entries(1, 3..4, 1)).await.expect("append");
        log.close().await.expect("close");
        let batches = batches_of_use(&device).await;
        let heads = pages_with(&device, SEGMENT_MAGIC).await;
        assert_eq!(heads.len(), 4, "two copies, of formatting and of opening");
        let ours = heads.iter().rev().take(2).chain(&batches[..1]);
        for at in ours {
            patch(&device, at + 40, |data| data[0] ^= 0x10).await;
        }
        assert_repairable(&device, &entries(1, 0..4, 1), &[0, 1, 2]).await;
    });
}

/// A closed log whose last batch of use, a vote, fills its segment: the header of the next one proves
/// it, and an open then wrote an empty batch behind that. The offsets of the vote, and of that one.
async fn vote_at_the_end_of_a_segment() -> (Device, u64, u64) {
    let (device, _, log) = fresh(SEGMENTS).await;
    let writer = group(&log, 1);
    for (index, pages) in (0..).zip([3, 3, 3, 0]) {
        append(&writer, entries(1, index..index + 1, pages))
            .await
            .expect("append");
    }
    writer.save_vote(vote(7)).await.expect("vote");
    assert_eq!(log.counters().segments_begun, 0, "the vote fills it");
    log.close().await.expect("close");
    open(&device, SEGMENTS).await.close().await.expect("close");
    let batches = batches_of_use(&device).await;
    let [.., vote, empty] = batches[..] else {
        panic!("{batches:?}");
    };
    assert_eq!(first_kind(&device, vote).await, Some(VOTE));
    assert_eq!(first_kind(&device, empty).await, None);
    assert_eq!((vote - START) / SEGMENT as u64, 1);
    assert_eq!((empty - START) / SEGMENT as u64, 2);
    // The tables of the later segments state the vote as well.
    let heads = pages_with(&device, SEGMENT_MAGIC).await;
    assert_eq!(heads.len(), 8);
    for at in &heads[4..] {
        patch(&device, *at, |data| data[..PAGE].fill(0)).await;
    }
    (device, vote, empty)
}

#[test]
fn the_batch_of_an_open_repeats_the_segment_before() {
    block_on(async {
        let (device, vote_at, _) = vote_at_the_end_of_a_segment().await;
        patch(&device, vote_at, |data| data[..PAGE].fill(0)).await;
        for _ in 0..3 {
            let log = open(&device, SEGMENTS).await;
            let one = group(&log, 1);
            assert_eq!(one.damage(), None);
            assert_eq!(one.state().vote, Some(vote(7)));
            let found = one.entries(ALL, usize::MAX).await.expect("read");
            assert_eq!(found.len(), 4);
            log.close().await.expect("close");
        }
    });
}

/// An open that does not find the segment before, or one of an earlier program, has nothing to repeat.
#[test]
fn a_first_batch_that_repeats_nothing_proves_nothing() {
    block_on(async {
        let (device, vote_at, empty_at) = vote_at_the_end_of_a_segment().await;
        patch(&device, empty_at, |data| {
            let page = &mut data[..PAGE];
            page[92..96].fill(0);
            page[96..].fill(0);
            page[84..88].copy_from_slice(&96u32.to_le_bytes());
            page[12..16].fill(0);
            let crc = crc32c(page);
            page[12..16].copy_from_slice(&crc.to_le_bytes());
        })
        .await;
        let log = open(&copy_of(&device).await, SEGMENTS).await;
        assert_eq!(group(&log, 1).damage(), None, "nothing of it is lost");
        assert_eq!(group(&log, 1).state().vote, Some(vote(7)));
        patch(&device, vote_at, |data| data[..PAGE].fill(0)).await;
        for _ in 0..3 {
            let log = open(&device, SEGMENTS).await;
            let damage = group(&log, 1).damage().expect("damaged");
            assert!(damage.vote_lost && damage.end_lost, "{damage}");
            log.close().await.expect("close");
        }
    });
}

#[test]
fn no_header_at_all_is_no_log() {
    block_on(async {
        let (device, _) = five_batches().await;
        for at in pages_with(&device, SEGMENT_MAGIC).await {
            patch(&device, at, |data| data[16] ^= 1).await;
        }
        let error = Log::open(&device, region(SEGMENTS), options()).await;
        let error = error.err().expect("refused");
        assert!(matches!(error, LogError::Damaged { .. }), "{error}");
    });
}

/// A log that lost all its headers and batches but for a part of one that no checksum vouches for is
/// lost, and not one that was never formatted.
#[test]
fn a_trace_of_a_log_is_no_unformatted_region() {
    block_on(async {
        let (device, _) = five_batches().await;
        let heads = pages_with(&device, SEGMENT_MAGIC).await;
        let batches = pages_with(&device, BATCH_MAGIC).await;
        for fill in [0, 0xff] {
            for left in heads.iter().chain(&batches) {
                let copy = copy_of(&device).await;
                for at in heads.iter().chain(&batches) {
                    if at == left {
                        patch(&copy, *at, |data| data[..12].fill(fill)).await;
                    } else {
                        patch(&copy, *at, |data| data.fill(fill)).await;
                    }
                }
                let error = Log::open(&copy, region(SEGMENTS), options()).await;
                let error = error.err().expect("refused");
                assert!(matches!(error, LogError::Damaged { .. }), "{left}: {error}");
            }
        }
        // All of it gone: nothing here tells it from a new region. The store knows its replicas.
        for at in heads.iter().chain(&batches) {
            patch(&device, *at, |data| data.fill(0)).await;
        }
        let error = Log::open(&device, region(SEGMENTS), options()).await;
        let error = error.err().expect("refused");
        assert!(matches!(error, LogError::NotFormatted { .. }), "{error}");
    });
}

/// A young log has two segments, so four bad pages take all its headers; the batches are whole.
#[test]
fn batches_without_any_header_are_a_lost_log() {
    block_on(async {
        let (device, _) = five_batches().await;
        for at in pages_with(&device, SEGMENT_MAGIC).await {
            patch(&device, at, |data| data.fill(0)).await;
        }
        let error = Log::open(&device, region(SEGMENTS), options()).await;
        let error = error.err().expect("refused");
        assert!(matches!(error, LogError::Damaged { .. }), "{error}");
    });
}

/// A batch of a newer segment, written to the same place of an older one's slot, or of one that was
/// never used: the newer segment is where its header is, and the older one loses but that page.
#[test]
fn a_misdirected_batch_takes_no_slot() {
    block_on(async {
        let device = batches_of(9, 3).await;
        let whole = entries(1, 0..9, 3);
        let batches = batches_of_use(&device).await;
        let slots = SEGMENT as u64;
        let mut changed = 0;
        for from in &batches {
            let (start, len) = (ByteOffset::new(*from), ByteLen::from_usize(PAGE));
            let page = device.read(start, len).await.expect("read");
            for slot in 1..SEGMENTS as u64 {
                let to = START + slot * slots + (from - START) % slots;
                if to == *from {
                    continue;
                }
                let copy = copy_of(&device).await;
                patch(&copy, to, |data| data.copy_from_slice(&page)).await;
                let log = open(&copy, SEGMENTS).await;
                let one = group(&log, 1);
                assert_eq!(one.state().last, Some(LogId::new(1, 8)), "{from} to {to}");
                assert!(one.damage().unwrap_or_default().is_repairable());
                assert!(lost(&one).len() <= 1, "{from} to {to}: {:?}", lost(&one));
                while let Err(error) = one.entries(ALL, usize::MAX).await {
                    assert!(one.damage().is_some(), "{from} to {to}: {error}");
                    repair(&one, &whole).await.expect("repair");
                    changed += 1;
                }
                let found = one.entries(ALL, usize::MAX).await.expect("read");
                assert_entries(&found, &whole);
            }
        }
        assert!(changed > 0);
    });
}

/// A closed log with `count` batches of one entry of `pages` pages each.
async fn batches_of(count: u64, pages: usize) -> Device {
    let (device, _, log) = fresh(SEGMENTS).await;
    for index in 0..count {
        append(&group(&log, 1), entries(1, index..index + 1, pages))
            .await
            .expect("append");
    }
    log.close().await.expect("close");
    device
}

#[test]
fn sealed_segments_lose_only_what_was_in_the_lost_part() {
    block_on(async {
        let device = batches_of(6, 4).await;
        let heads = pages_with(&device, SEGMENT_MAGIC).await;
        assert!(heads.len() >= 8);
        let whole = entries(1, 0..6, 4);
        // Its header alone.
        let copy = copy_of(&device).await;
        for at in &heads[2..4] {
            patch(&copy, *at, |data| data[..PAGE].fill(0)).await;
        }
        let log = open(&copy, SEGMENTS).await;
        let found = group(&log, 1).entries(ALL, usize::MAX).await.expect("read");
        assert_entries(&found, &whole);
        // One batch: the last of the segment is repeated by the next segment's first.
        for (number, at) in batches_of_use(&device).await.iter().take(6).enumerate() {
            let copy = copy_of(&device).await;
            patch(&copy, *at, |data| data[..PAGE].fill(0)).await;
            assert_repairable(&copy, &whole, &[number as u64]).await;
        }
        // All of it.
        let copy = copy_of(&device).await;
        for page in 0..SEGMENT / PAGE {
            let at = heads[2] + (page * PAGE) as u64;
            patch(&copy, at, |data| data[..PAGE].fill(0x77)).await;
        }
        let log = open(&copy, SEGMENTS).await;
        let one = group(&log, 1);
        let damage = one.damage().expect("damaged");
        assert!(damage.is_repairable(), "the next table knows the rest");
        let lost = lost(&one);
        assert_eq!(lost.first().map(|one| one.0), Some(0));
        repair(&one, &whole).await.expect("repair");
        let found = one.entries(ALL, usize::MAX).await.expect("read");
        assert_entries(&found, &whole);
    });
}

#[test]
fn damage_in_a_sealed_segment_matters_only_if_something_live_was_there() {
    block_on(async {
        let (device, _, log) = fresh(SEGMENTS).await;
        append(&group(&log, 1), entries(1, 0..6, 4))
            .await
            .expect("append");
        assert!(log.counters().segments_begun >= 2);
        group(&log, 1).purge(LogId::new(1, 5)).await.expect("purge");
        log.close().await.expect("close");
        let first = batches_of_use(&device).await[0];
        patch(&device, first, |data| data[..PAGE].fill(0xee)).await;
        let log = open(&device, SEGMENTS).await;
        assert_eq!(group(&log, 1).last(), Some(LogId::new(1, 5)));
        assert_eq!(group(&log, 1).damage(), None);
    });
}

/// Quiet groups with an entry each in segments of their own: the log is short of free ones.
async fn crowd(log: &Log) {
    for quiet in 100..105 {
        append(&group(log, quiet), entries(1, 0..1, 1))
            .await
            .expect("append");
        turn(log, 2 * u64::from(quiet - 100)..2 * u64::from(quiet - 99)).await;
    }
}

/// Entries of group 2, each purged at once.
async fn turn(log: &Log, indexes: std::ops::Range<u64>) {
    let other = group(log, 2);
    for index in indexes {
        append(&other, entries(1, index..index + 1, 4))
            .await
            .expect("append");
        other.purge(LogId::new(1, index)).await.expect("purge");
    }
}

/// The segment that names a lost entry is needed again; the entry stays known.
#[test]
fn a_lost_entry_is_carried_forward_by_its_identity() {
    block_on(async {
        let device = batches_of(3, 1).await;
        let at = batches_of_use(&device).await[1];
        patch(&device, at, |data| data[..PAGE].fill(0)).await;
        let mut log = open(&device, SEGMENTS).await;
        crowd(&log).await;
        let mut moved = 0;
        for round in 1..5 {
            turn(&log, 10 * round..10 * (round + 1)).await;
            moved += log.counters().holes_moved;
            log.close().await.expect("close");
            log = open(&device, SEGMENTS).await;
        }
        assert!(moved > 0, "{moved}");
        let whole = entries(1, 0..3, 1);
        let one = group(&log, 1);
        assert_eq!(lost(&one), [(1, Some(identity(&whole[1])))]);
        repair(&one, &whole).await.expect("repair");
        log.close().await.expect("close");
        let log = open(&device, SEGMENTS).await;
        let found = group(&log, 1).entries(ALL, usize::MAX).await.expect("read");
        assert_entries(&found, &whole);
    });
}

/// Once the segments before one without a header are gone, its copies of entries are all that is left
/// of these, and only the table of the next one tells that they are live.
#[test]
fn copies_behind_a_lost_segment_header_are_found_by_every_open() {
    block_on(async {
        let (device, _, log) = fresh(SEGMENTS).await;
        crowd(&log).await;
        let mut moved = 0;
        for round in 0..10 {
            turn(&log, 10 + 3 * round..13 + 3 * round).await;
            moved += log.counters().entries_moved;
            let copy = copy_of(&device).await;
            let heads = pages_with(&copy, SEGMENT_MAGIC).await;
            for both in heads.chunks(2) {
                let copy = copy_of(&copy).await;
                for at in both {
                    patch(&copy, *at, |data| data[..PAGE].fill(0)).await;
                }
                for opened in 0..3 {
                    let log = open(&copy, SEGMENTS).await;
                    for quiet in 100..105 {
                        let quiet = group(&log, quiet);
                        assert_eq!(quiet.damage(), None, "round {round}, {both:?}, {opened}");
                        let found = quiet.entries(ALL, usize::MAX).await.expect("read");
                        assert_entries(&found, &entries(1, 0..1, 1));
                    }
                    log.close().await.expect("close");
                }
            }
        }
        assert!(moved > 0);
    });
}

/// A payload that is found rotten when it is copied forward blocks nothing.
#[test]
fn a_rotten_payload_does_not_pin_its_segment() {
    block_on(async {
        let device = batches_of(1, 1).await;
        let at = batches_of_use(&device).await[0];
        patch(&device, at + PAGE as u64, |data| data[5] ^= 1).await;
        let mut log = open(&device, SEGMENTS).await;
        crowd(&log).await;
        turn(&log, 10..50).await;
        let whole = entries(1, 0..1, 1);
        let named = [(0, Some(identity(&whole[0])))];
        assert_eq!(lost(&group(&log, 1)), named);
        assert!(log.counters().holes_moved > 0);
        log.close().await.expect("close");
        log = open(&device, SEGMENTS).await;
        assert_eq!(
            lost(&group(&log, 1)),
            named,
            "and it is known after an open"
        );
        repair(&group(&log, 1), &whole).await.expect("repair");
        let found = group(&log, 1).entries(ALL, usize::MAX).await.expect("read");
        assert_entries(&found, &whole);
    });
}

#[test]
fn a_purge_needs_no_repair() {
    block_on(async {
        let (device, batches) = five_batches().await;
        patch(&device, batches[1], |data| data[0] ^= 0x10).await;
        let log = open(&device, SEGMENTS).await;
        let one = group(&log, 1);
        assert_eq!(lost(&one).len(), 1);
        one.purge(LogId::new(1, 0)).await.expect("purge");
        assert_eq!(lost(&one).len(), 1);
        one.purge(LogId::new(1, 1)).await.expect("purge");
        assert_eq!(one.damage(), None);
        append(&one, entries(2, 5..6, 1)).await.expect("append");
        log.close().await.expect("close");
        let log = open(&device, SEGMENTS).await;
        let found = group(&log, 1).entries(ALL, usize::MAX).await.expect("read");
        let whole = [entries(1, 2..5, 1), entries(2, 5..6, 1)].concat();
        assert_entries(&found, &whole);
    });
}

#[test]
fn lost_writes_are_noticed() {
    block_on(async {
        for skipped in 0..8 {
            let (inner, _) = formatted(SEGMENTS).await;
            let (device, control) = Device::fault(inner.clone(), FaultPlan::new());
            let log = open(&device, SEGMENTS).await;
            control.add(FaultRule::lose_writes().after(skipped).times(1));
            for index in 0..7 {
                append(&group(&log, 1), entries(1, index..index + 1, 3))
                    .await
                    .expect("append");
            }
            log.close().await.expect("close");
            assert_eq!(control.counts().lost, 1);
            let log = open(&inner, SEGMENTS).await;
            let one = group(&log, 1);
            let whole = entries(1, 0..7, 3);
            println!("write {skipped}: {:?}", one.damage());
            assert!(one.damage().is_none_or(|damage| damage.is_repairable()));
            repair(&one, &whole).await.expect("repair");
            let found = one.entries(ALL, usize::MAX).await.expect("read");
            assert_entries(&found, &whole);
        }
    });
}

#[test]
fn an_unknown_version_is_named() {
    block_on(async {
        for found in [VERSION - 1, 7] {
            let (device, _) = five_batches().await;
            for at in pages_with(&device, SEGMENT_MAGIC).await {
                patch(&device, at + 8, |data| {
                    data[..4].copy_from_slice(&found.to_le_bytes());
                })
                .await;
            }
            let error = Log::open(&device, region(SEGMENTS), options()).await;
            let error = error.err().expect("refused");
            let text = error.to_string();
            assert!(
                text.contains(&found.to_string()) && text.contains(&VERSION.to_string()),
                "{text}"
            );
        }
    });
}

/// Any single page of the used part may turn to garbage: recovery never panics, and either gives
/// back all entries, or says which are lost, at open or (payloads) when they are read.
#[test]
fn no_bad_page_goes_unnoticed() {
    block_on(async {
        let (device, batches) = five_batches().await;
        let used = START..batches[5] + PAGE as u64;
        assert!(used.end < START + 2 * SEGMENT as u64);
        let whole = entries(1, 0..5, 1);
        for at in used.step_by(PAGE) {
            let copy = copy_of(&device).await;
            patch(&copy, at, |data| {
                data[..PAGE].iter_mut().for_each(|byte| *byte ^= 0x5a);
            })
            .await;
            let log = open(&copy, SEGMENTS).await;
            let one = group(&log, 1);
            while let Err(error) = one.entries(ALL, usize::MAX).await {
                let damage = one.damage();
                assert!(damage.is_some(), "page at {at}: {error}");
                repair(&one, &whole).await.expect("repair");
            }
            let found = one.entries(ALL, usize::MAX).await.expect("read");
            assert_entries(&found, &whole);
        }
    });
}
