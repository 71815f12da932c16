//! Arbitrary damage to a valid log: recovery never panics, and what was durable is found, or said to
//! be lost.

use crate::support::{
    ALL, PAGE, SEGMENT, START, append, copy_of, entries, formatted, group, open, options,
    pages_with, region, same, vote,
};
use ogee_device::Device;
use ogee_log::format::BATCH_MAGIC;
use ogee_log::{Damage, Entry, GroupState, Log, LogError};
use ogee_proto::id::{CopysetId, LogId, LogIndex};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::Buffer;
use ogee_runtime::executor::block_on;
use proptest::prelude::{ProptestConfig, Strategy, any};
use proptest::{collection, prop_oneof, proptest};

const SEGMENTS: usize = 16;
const GROUPS: u32 = 3;

/// What happens to the medium; numbers are reduced to what is there.
#[derive(Clone, Debug)]
enum Change {
    Flip {
        at: usize,
        bit: u8,
    },
    Fill {
        page: usize,
        byte: u8,
    },
    /// A page, or a run of them, appears where others belong.
    Copy {
        from: usize,
        to: usize,
        pages: usize,
    },
    /// A batch header loses something that matters.
    Batch {
        number: usize,
        at: usize,
        bit: u8,
    },
}

fn change() -> impl Strategy<Value = Change> {
    let (place, bit) = (any::<usize>(), 0u8..8);
    prop_oneof![
        3 => (place, bit.clone()).prop_map(|(at, bit)| Change::Flip { at, bit }),
        2 => (any::<usize>(), any::<u8>()).prop_map(|(page, byte)| Change::Fill { page, byte }),
        1 => (any::<usize>(), any::<usize>(), 1usize..4)
            .prop_map(|(from, to, pages)| Change::Copy { from, to, pages }),
        4 => (any::<usize>(), 0usize..300, bit)
            .prop_map(|(number, at, bit)| Change::Batch { number, at, bit }),
    ]
}

/// What a group's log should be.
struct Truth {
    state: GroupState,
    entries: Vec<Entry>,
}

/// A log with everything in it, over several segments and opens.
async fn sample() -> (Device, Vec<Truth>) {
    let (device, _) = formatted(SEGMENTS).await;
    for round in 1..=3u64 {
        let log = open(&device, SEGMENTS).await;
        for id in 0..GROUPS {
            let group = group(&log, id);
            let next = group.last().map_or(0, |last| last.index.get() + 1);
            group.save_vote(vote(round)).await.expect("vote");
            for index in next..next + 3 {
                let pages = usize::try_from(index % 4).expect("small");
                append(&group, entries(round, index..index + 1, pages))
                    .await
                    .expect("append");
            }
            let keep = LogIndex::new(next + 1);
            group.truncate_after(Some(keep)).await.expect("truncate");
        }
        group(&log, 0)
            .purge(LogId::new(round, 2 * round - 2))
            .await
            .expect("purge");
        log.close().await.expect("close");
    }
    let log = open(&copy_of(&device).await, SEGMENTS).await;
    let mut truth = Vec::new();
    for id in 0..GROUPS {
        let group = group(&log, id);
        let entries = group.entries(ALL, usize::MAX).await.expect("read");
        let state = group.state();
        truth.push(Truth { state, entries });
    }
    (device, truth)
}

/// Applies the changes to the region, but for the last batch: with the one before it, it is what
/// looks like a torn tail when both are lost.
async fn mutate(device: &Device, changes: &[Change]) {
    let len = ByteLen::from_usize(SEGMENTS * SEGMENT);
    let start = ByteOffset::new(START);
    let mut image = device.read(start, len).await.expect("read").to_vec();
    let batches = pages_with(device, BATCH_MAGIC).await;
    let place = |at: u64| usize::try_from(at - START).expect("small");
    let last = place(*batches.last().expect("batches"));
    let kept = image[last..last + PAGE].to_vec();
    let used = last + PAGE;
    for change in changes {
        match change {
            Change::Flip { at, bit } => image[at % used] ^= 1 << bit,
            Change::Fill { page, byte } => {
                let at = page % (used / PAGE) * PAGE;
                image[at..at + PAGE].fill(*byte);
            }
            Change::Copy { from, to, pages } => {
                let (from, to) = (from % (used / PAGE), to % (used / PAGE));
                let pages = (*pages).min(used / PAGE - from.max(to));
                image.copy_within(from * PAGE..(from + pages) * PAGE, to * PAGE);
            }
            Change::Batch { number, at, bit } => {
                image[place(batches[number % batches.len()]) + at] ^= 1 << bit;
            }
        }
    }
    image[last..used].copy_from_slice(&kept);
    let written = device.write_durable(start, Buffer::copy_from(&image)).await;
    written.expect("write");
}

/// Everything that was durable is there, or is said to be lost.
async fn check(log: &Log, id: u32, truth: &Truth) {
    let group = group(log, id);
    // Reading tells of payloads.
    for entry in &truth.entries {
        let index = entry.id.index;
        let next = LogIndex::new(index.get() + 1);
        let found = group.entries(index..next, usize::MAX).await;
        let damage = group.damage().unwrap_or_default();
        let is_lost = damage.entries.iter().any(|lost| lost.index == index);
        match found.as_deref() {
            Ok([found]) => assert!(same(found, entry), "entry {index} of group {id}"),
            Ok(_) => assert!(damage.end_lost, "entry {index} of group {id}: {damage}"),
            Err(error) => assert!(is_lost, "entry {index} of group {id}: {error}"),
        }
    }
    let damage = group.damage().unwrap_or_default();
    let (found, expected) = (group.state(), truth.state);
    assert!(damage.vote_lost || found.vote == expected.vote, "{damage}");
    assert!(damage.end_lost || found.last == expected.last, "{damage}");
    assert!(damage.end_lost || found.purged == expected.purged || !damage.is_repairable());
    for lost in &damage.entries {
        let of_truth = truth.entries.iter();
        let entry = of_truth.clone().find(|entry| entry.id.index == lost.index);
        if let (Some(entry), Some(identity)) = (entry, lost.identity) {
            assert_eq!(identity, entry.identity(CopysetId::new(id)));
        }
    }
}

async fn survive(device: &Device, truth: &[Truth]) {
    let known: Vec<_> = (0..GROUPS).map(CopysetId::new).collect();
    let mut before: Vec<Option<Damage>> = Vec::new();
    for round in 0..3 {
        let opened = Log::open_with(device, region(SEGMENTS), options(), &known).await;
        let log = match opened {
            Ok(log) => log,
            Err(LogError::Damaged { .. } | LogError::UnknownVersion { .. }) if round == 0 => return,
            Err(error) => panic!("{error}"),
        };
        let damage: Vec<_> = known.iter().map(|id| log.group(*id).damage()).collect();
        if round > 0 {
            assert_eq!(damage, before, "recovery says the same again");
        }
        before = damage;
        if round == 2 {
            for (id, truth) in (0..).zip(truth) {
                check(&log, id, truth).await;
            }
        }
        log.close().await.expect("close");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn nothing_durable_is_lost_in_silence(changes in collection::vec(change(), 1..6)) {
        block_on(async {
            let (device, truth) = sample().await;
            mutate(&device, &changes).await;
            survive(&device, &truth).await;
        });
    }
}
