//! One replica's device loses or changes what was durable: nothing that was acknowledged is lost, and
//! the replica is repaired by the others, or stays down.
//!
//! `OGEE_FULL=1` tries 2,000 damages instead of 200; `OGEE_SEED` repeats a run.

use crate::common::{
    COPYSET, Cluster, Dice, Disk, Medium, Node, describe_all, pause, run_for, until,
};
use ogee_device::Device;
use ogee_group::GroupError;
use ogee_log::format::{BATCH_MAGIC, SEGMENT_MAGIC};
use ogee_proto::id::{LogIndex, ReplicaId};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::Buffer;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

const PAGE: usize = 4096;
/// Where a batch says how many records it has, where the first one begins, and the kind of an entry
/// there.
const RECORDS: usize = 76;
const RECORD: usize = 96;
const ENTRY: u8 = 1;
const ROUNDS: usize = 200;
const ROUNDS_FULL: usize = 2000;
/// Rounds with one cluster.
const ROUNDS_EACH: usize = 20;

/// Far beyond what a round takes.
const ROUND_TIME: Duration = Duration::from_secs(40);

/// A part of the log on the medium.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Region {
    /// One copy of the newest segment's header.
    Head,
    /// Both copies.
    BothHeads,
    /// A page of the newest segment's table.
    Table,
    /// The header area of a batch.
    Batch,
    /// A record in it.
    Record,
    /// A page behind a header area: a payload.
    Payload,
    /// The header area of the last batch, which closes the log.
    Tail,
    /// The last batch before it.
    Last,
    /// Two batches in a row, a third one after them. (The last one and the closing one together
    /// look like a torn tail: the window that the log's format leaves.)
    Two,
    /// Any page of a segment in use.
    Any,
    /// One of the two superblocks.
    Superblock,
}

const REGIONS: [Region; 11] = [
    Region::Head,
    Region::BothHeads,
    Region::Table,
    Region::Batch,
    Region::Record,
    Region::Payload,
    Region::Tail,
    Region::Last,
    Region::Two,
    Region::Any,
    Region::Superblock,
];

/// What is to be seen of the damage.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Seen {
    /// The replica had to be given entries.
    Repaired,
    /// Nothing.
    Nothing,
    /// It could not be repaired: its vote may be lost.
    Down,
    /// It could not be repaired: the others no longer have what it lacks.
    Purged,
}

/// Where things are on a device.
struct Map {
    heads: Vec<u64>,
    batches: Vec<u64>,
    /// Those that begin with an entry.
    entries: Vec<u64>,
}

impl Map {
    /// Of the newest segment that holds batches.
    async fn of(medium: &Medium) -> Self {
        let (start, image) = image_of(medium).await;
        let (mut heads, mut batches) = (BTreeMap::new(), BTreeMap::new());
        for (number, page) in image.chunks_exact(PAGE).enumerate() {
            let at = start + (number * PAGE) as u64;
            if page.starts_with(&SEGMENT_MAGIC) {
                let list: &mut Vec<u64> = heads.entry(word(page, 32)).or_default();
                list.push(at);
            } else if page.starts_with(&BATCH_MAGIC) {
                let list: &mut Vec<(u64, u64)> = batches.entry(word(page, 32)).or_default();
                list.push((word(page, 48), at));
            }
        }
        // The last one that a process wrote to, not the one that the last open began.
        let (segment, mut found) = batches.pop_last().expect("there are batches");
        if found.len() < 4
            && let Some(before) = batches.pop_last()
        {
            found = [before.1, found].concat();
        }
        found.sort_unstable();
        let batches: Vec<u64> = found.into_iter().map(|(_, at)| at).collect();
        // A closing batch has repeats alone, which begin with a kind as well.
        let is_entry = |at: &u64| {
            let page = &image[usize::try_from(at - start).expect("small")..];
            page[RECORDS] > 0 && page[RECORD] == ENTRY
        };
        let entries = batches.iter().copied().filter(is_entry);
        Self {
            heads: heads.remove(&segment).unwrap_or_default(),
            entries: entries.collect(),
            batches,
        }
    }
}

/// The log's region: where it begins, and its bytes.
async fn image_of(medium: &Medium) -> (u64, Vec<u8>) {
    const PIECE: u64 = 1 << 20;
    let (start, len) = medium.log_region().await;
    let mut image = Vec::with_capacity(len.as_usize());
    for at in (0..len.get()).step_by(1 << 20) {
        let piece = ByteLen::new(PIECE.min(len.get() - at));
        let at = ByteOffset::new(start.get() + at);
        let read = medium.device().read(at, piece).await;
        image.extend_from_slice(&read.expect("read"));
    }
    (start.get(), image)
}

fn word(page: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(page[at..at + 8].try_into().expect("eight bytes"))
}

/// Flips a byte of a page, or overwrites all of it.
async fn hurt(device: &Device, page: u64, from: usize, dice: &mut Dice) {
    let at = ByteOffset::new(page);
    let read = device.read(at, ByteLen::from_usize(PAGE)).await;
    let mut data = Buffer::copy_from(&read.expect("read"));
    match dice.below(4) {
        0 => data.fill(0),
        1 => data.iter_mut().for_each(|byte| *byte ^= 0x5a),
        _ => data[from + dice.below(64)] ^= 1 << dice.below(8),
    }
    device.write_durable(at, data).await.expect("write");
}

/// Damages one region.
async fn damage(medium: &Medium, region: Region, dice: &mut Dice) {
    let device = medium.device();
    let map = Map::of(medium).await;
    let last = map.batches.len() - 1;
    let any = dice.below(map.batches.len());
    let page = PAGE as u64;
    let hits: Vec<(u64, usize)> = match region {
        // Those that an earlier round destroyed are missing.
        Region::Head => map.heads.iter().take(1).map(|at| (*at, 0)).collect(),
        Region::BothHeads => map.heads.iter().map(|at| (*at, 0)).collect(),
        Region::Table => {
            let table = (2 + dice.below(2)) as u64 * page;
            map.heads.iter().take(1).map(|at| (at + table, 0)).collect()
        }
        Region::Batch => vec![(map.batches[any], 0)],
        Region::Record => vec![(map.batches[any], RECORD)],
        Region::Payload => vec![(map.batches[any] + page, dice.below(4000))],
        Region::Tail => vec![(map.batches[last], 0)],
        Region::Last => vec![(map.batches[last.saturating_sub(1)], 0)],
        Region::Two => {
            let first = any.min(last.saturating_sub(2));
            vec![(map.batches[first], 0), (map.batches[first + 1], 0)]
        }
        Region::Any => {
            let pages = (map.batches[last] - map.batches[0]) / page + 1;
            let number = dice.below(usize::try_from(pages).expect("small"));
            vec![(map.batches[0] + number as u64 * page, dice.below(4000))]
        }
        Region::Superblock => vec![(dice.below(2) as u64 * page, 0)],
    };
    for (at, from) in hits {
        hurt(device, at, from, dice).await;
    }
}

/// Stops a replica, damages it, and starts it again; says what is to be seen.
async fn round(cluster: &Rc<Cluster>, disk: &Disk, region: Region, dice: &mut Dice) -> Seen {
    let step = 1000 * (1 + dice.below(1 << 20) as u64);
    for write in 0..4 + dice.below(8) {
        let tag = step + 100 * write as u64;
        disk.write(0, dice.below(96), 1 + dice.below(16), tag).await;
    }
    if dice.below(4) == 0 {
        cluster.checkpoint().await;
        disk.write(0, dice.below(96), 3, step + 50).await;
    }
    cluster.settle().await;
    let victim = victim(cluster, dice).await;
    let medium = cluster.stop(victim).await;
    let whole = medium.copy();
    damage(&medium, region, dice).await;
    if dice.below(2) == 0 {
        disk.write(0, dice.below(96), 5, step + 70).await;
    }
    let node = match cluster.try_restart(medium).await {
        Ok(node) => node,
        Err(error @ GroupError::Damaged { .. }) => {
            println!("{error}");
            disk.check().await;
            cluster.restart(whole).await;
            let is_purged = error.to_string().contains("purged");
            return if is_purged { Seen::Purged } else { Seen::Down };
        }
        Err(error) => panic!("{region:?}: {error}"),
    };
    if !read_log(&node).await {
        drop(cluster.stop(victim).await);
        disk.check().await;
        cluster.restart(whole).await;
        return Seen::Purged;
    }
    // It has everything: all agree, and it can lead.
    cluster.agreed_digest().await;
    if dice.below(3) == 0 {
        cluster.transfer_to(victim).await;
        disk.check().await;
    }
    if node.log.counters().entries_repaired > 0 {
        Seen::Repaired
    } else {
        Seen::Nothing
    }
}

/// Reads all of a replica's log, until what turns out rotten has been replaced, or cannot be.
async fn read_log(node: &Node) -> bool {
    let log = node.log.group(COPYSET);
    let all = LogIndex::new(0)..LogIndex::new(u64::MAX);
    while log.entries(all.clone(), usize::MAX).await.is_err() {
        if node.group.needs_replacing() {
            return false;
        }
        pause().await;
    }
    true
}

async fn victim(cluster: &Cluster, dice: &mut Dice) -> ReplicaId {
    if dice.below(4) == 0 {
        return cluster.leader().await.replica;
    }
    cluster.followers().await[dice.below(2)].replica
}

fn setting(name: &str) -> Option<usize> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn no_damage_of_one_replica_loses_anything() {
    let rounds = if setting("OGEE_FULL") == Some(1) {
        ROUNDS_FULL
    } else {
        ROUNDS
    };
    let first = setting("OGEE_SEED").unwrap_or(1);
    let mut seen: BTreeMap<(Region, Seen), usize> = BTreeMap::new();
    for seed in first..first + rounds / ROUNDS_EACH {
        println!("seed {seed}");
        run_for(ROUND_TIME * 20, async {
            let mut dice = Dice::new(seed as u64);
            let cluster = Cluster::of_three().await;
            let disk = Disk::attach(&cluster, 1, 1).await;
            for number in 0..ROUNDS_EACH {
                let region = REGIONS[(seed * ROUNDS_EACH + number) % REGIONS.len()];
                let round = round(&cluster, &disk, region, &mut dice);
                let Ok(what) = ogee_runtime::timeout(ROUND_TIME, round).await else {
                    panic!("{region:?} does not end: {}", describe_all());
                };
                println!("{region:?}: {what:?}");
                let may_stay_down = matches!(region, Region::Two);
                assert!(may_stay_down || what != Seen::Down, "{region:?} {what:?}");
                *seen.entry((region, what)).or_default() += 1;
            }
            cluster.end().await;
        });
    }
    println!("{seen:#?}");
    let count = |what| -> usize {
        let of = seen.iter().filter(|((_, seen), _)| *seen == what);
        of.map(|(_, count)| count).sum()
    };
    assert!(count(Seen::Repaired) > rounds / 10);
    assert!(count(Seen::Nothing) > rounds / 10);
}

/// All three lose another entry: together they still have everything.
#[test]
fn what_every_replica_lost_another_one_has() {
    run_for(Duration::from_secs(120), async {
        let cluster = Cluster::of_three().await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        for write in 0..12 {
            disk.write(0, 8 * write, 4, 100 * (1 + write as u64)).await;
        }
        cluster.settle().await;
        let mut media = Vec::new();
        for replica in [1, 2, 3].map(ReplicaId::new) {
            media.push(cluster.stop(replica).await);
        }
        for (number, medium) in media.iter().enumerate() {
            let map = Map::of(medium).await;
            let at = map.entries[3 + 2 * number];
            let mut page = Buffer::zeroed(PAGE);
            page.fill(0x11);
            let device = medium.device();
            let written = device.write_durable(ByteOffset::new(at), page).await;
            written.expect("write");
        }
        let starting: Vec<_> = media
            .into_iter()
            .map(|medium| {
                let cluster = cluster.clone();
                ogee_runtime::spawn(async move { cluster.try_restart(medium).await })
            })
            .collect();
        let mut repaired = 0;
        for node in starting {
            let node = node.await.expect("not cancelled").expect("repaired");
            repaired += node.log.counters().entries_repaired;
        }
        assert!(repaired >= 3, "{repaired}");
        disk.check().await;
        cluster.agreed_digest().await;
        cluster.end().await;
    });
}

/// A damaged replica waits for the others, and neither votes nor acknowledges meanwhile.
#[test]
fn a_damaged_replica_stays_out_until_it_is_whole() {
    run_for(Duration::from_secs(120), async {
        let cluster = Cluster::of_three().await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        for write in 0..6 {
            disk.write(0, 8 * write, 4, 100 * (1 + write as u64)).await;
        }
        cluster.settle().await;
        let leader = cluster.leader().await.replica;
        let victim = cluster.followers().await[0].replica;
        let other = cluster.followers().await[1].replica;
        let medium = cluster.stop(victim).await;
        let map = Map::of(&medium).await;
        let mut page = Buffer::zeroed(PAGE);
        page.fill(0x11);
        let at = ByteOffset::new(map.entries[map.entries.len() - 2]);
        let written = medium.device().write_durable(at, page).await;
        written.expect("write");
        let rest = [cluster.stop(leader).await, cluster.stop(other).await];
        let restarting = {
            let cluster = cluster.clone();
            ogee_runtime::spawn(async move { cluster.try_restart(medium).await })
        };
        // Longer than several elections take.
        ogee_runtime::sleep(Duration::from_secs(1)).await;
        assert!(!restarting.is_finished() && cluster.nodes().is_empty());
        let [first, second] = rest;
        let first = cluster.restart(first).await;
        let node = restarting.await.expect("not cancelled").expect("repaired");
        assert!(node.log.counters().entries_repaired > 0);
        until(|| first.leads() || node.leads()).await;
        disk.check().await;
        cluster.restart(second).await;
        cluster.agreed_digest().await;
        cluster.end().await;
    });
}

/// A replica is made in the log of an earlier one of its group, and what the log loses has the removal of
/// that one in it: it still says what the earlier one had purged. The new one's checkpoint is older, and
/// the entries between were acknowledged: without them it counts for nothing.
#[test]
fn a_log_that_begins_behind_the_checkpoint_is_not_followed() {
    run_for(Duration::from_secs(120), async {
        let cluster = Cluster::of_three().await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        disk.write(0, 0, 4, 100).await;
        cluster.settle().await;
        cluster.checkpoint().await;
        for write in 1..6 {
            disk.write(0, 8 * write, 4, 100 * (1 + write as u64)).await;
        }
        cluster.settle().await;
        let victim = cluster.followers().await[0].replica;
        let medium = cluster.stop(victim).await;
        let (store, log) = medium.open().await;
        let covered = store.group(COPYSET).expect("a checkpoint").applied;
        let beyond = LogIndex::new(covered.index.get() + 2);
        let group = log.group(COPYSET);
        let upto = group.entry_id(beyond).expect("it is in the log");
        group.purge(upto).await.expect("purge");
        // The newest that the new one has said.
        group.save_committed(covered);
        log.close().await.expect("close");
        let error = cluster.try_restart(medium).await.err();
        assert!(
            matches!(error, Some(GroupError::Damaged { .. })),
            "{error:?}"
        );
        disk.check().await;
        cluster.end().await;
    });
}

/// A payload that rots while its group runs is fetched again: reads and write-back go on.
#[test]
fn a_payload_that_rots_is_replaced_while_the_group_runs() {
    run_for(Duration::from_secs(120), async {
        let cluster = Cluster::of_three().await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        for write in 0..20 {
            disk.write(0, 4 * write, 4, 100 * (1 + write as u64)).await;
        }
        cluster.settle().await;
        let victim = cluster.followers().await[0].replica;
        let medium = cluster.stop(victim).await;
        let map = Map::of(&medium).await;
        for at in &map.entries[5..9] {
            flip_payload(&medium, *at).await;
        }
        let node = cluster.restart(medium).await;
        cluster.transfer_to(victim).await;
        disk.check().await;
        assert!(read_log(&node).await);
        let counters = node.log.counters();
        assert!(counters.payloads_lost > 0 && counters.entries_repaired > 0);
        assert!(node.keeper.checkpoint_now().await);
        cluster.agreed_digest().await;
        cluster.end().await;
    });
}

/// What one has purged, and another one never got, nobody gives back. The leader that lost it would wait for
/// the second, which waits for the leader.
#[test]
fn what_the_others_have_purged_or_never_got_is_lost() {
    run_for(Duration::from_secs(60), async {
        let cluster = Cluster::of_three().await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        disk.write(0, 0, 4, 100).await;
        cluster.settle().await;
        let victim = cluster.leader().await.replica;
        let behind = cluster.followers().await[0].replica;
        let behind = cluster.stop(behind).await;
        for write in 0..20 {
            disk.write(0, 4 * write, 4, 100 * (2 + write as u64)).await;
        }
        cluster.settle().await;
        let whole = cluster.followers().await.swap_remove(0);
        assert!(whole.keeper.checkpoint_now().await);
        let last = whole.log.group(COPYSET).last().expect("written").index;
        let is_purged =
            |node: &Node| node.log.group(COPYSET).state().purged.map(|it| it.index) >= Some(last);
        until(|| is_purged(&whole)).await;
        let medium = cluster.stop(victim).await;
        let map = Map::of(&medium).await;
        for at in map.entries.iter().rev().skip(2).take(4) {
            flip_payload(&medium, *at).await;
        }
        let node = cluster.restart(medium).await;
        cluster.transfer_to(victim).await;
        cluster.restart(behind).await;
        until(|| node.group.needs_replacing()).await;
        cluster.end().await;
    });
}

/// Flips a bit in the payload of the entry whose batch is at `at`.
async fn flip_payload(medium: &Medium, at: u64) {
    let at = ByteOffset::new(at + PAGE as u64);
    let device = medium.device();
    let read = device.read(at, ByteLen::from_usize(PAGE)).await;
    let mut data = Buffer::copy_from(&read.expect("read"));
    data[77] ^= 1;
    device.write_durable(at, data).await.expect("write");
}
