//! A replica that was away for longer than the others keep their logs.

use crate::common::{COPYSET, Cluster, Disk, Node, QUICK, pause, run, run_for, until};
use ogee_device::Survivors;
use ogee_group::{CommandKind, GroupConfig};
use ogee_log::Entry;
use ogee_proto::id::{LogIndex, ReplicaId};
use ogee_proto::unit::ByteLen;
use ogee_store::{Bucket, Purpose};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// Chunks of half a MiB each that the slow copies below bring.
const CHUNKS: u32 = 40;
const COPIED: u64 = CHUNKS as u64 * (512 << 10);
/// Slow enough to be met in the middle.
const SLOWLY: GroupConfig = GroupConfig {
    copy_rate: Some(ByteLen::new(16 << 20)),
    ..QUICK
};

fn purged(node: &Node) -> Option<LogIndex> {
    let state = node.log.group(COPYSET).state();
    state.purged.map(|id| id.index)
}

/// Checkpoints until nobody who runs could bring a replica of `last` up to date from its log.
async fn purge_past(cluster: &Cluster, last: u64) {
    cluster.settle().await;
    while !cluster
        .nodes()
        .iter()
        .all(|node| purged(node) > Some(LogIndex::new(last)))
    {
        cluster.checkpoint().await;
        pause().await;
    }
}

/// Two volumes, of which one goes while a follower is away; more than enough to purge.
async fn miss_a_lot(cluster: &Rc<Cluster>) -> (Disk, ReplicaId, ogee_group::GroupReport) {
    let disk = Disk::attach(cluster, 1, 1).await;
    let gone = Disk::attach(cluster, 2, 1).await;
    disk.write(0, 0, 64, 1000).await;
    disk.write(3, 0, 16, 2000).await;
    gone.write(0, 0, 16, 3000).await;
    cluster.settle().await;
    cluster.checkpoint().await;
    disk.write(0, 100, 4, 4000).await;
    cluster.settle().await;
    let away = cluster.followers().await[0].clone();
    let before = away.group.report();
    (disk, away.replica, before)
}

async fn go_on_without(cluster: &Rc<Cluster>, disk: &Disk, last: u64) {
    disk.write(0, 32, 64, 5000).await;
    disk.zero(CommandKind::Discard, 3, 0, 16).await;
    disk.write(7, 5, 10, 6000).await;
    cluster
        .remove_volume(ogee_proto::id::VolumeId::new(2))
        .await;
    purge_past(cluster, last).await;
    // Some of it in the log only, and in place of what the snapshot holds.
    disk.write(0, 60, 8, 7000).await;
    disk.zero(CommandKind::WriteZeroes, 7, 8, 2).await;
}

/// All hold the same, and it serves what was written.
async fn leads_with_all(cluster: &Cluster, replica: ReplicaId, disk: &Disk) {
    cluster.agreed_digest().await;
    cluster.transfer_to(replica).await;
    disk.check().await;
}

#[test]
fn a_replica_that_missed_a_purge_catches_up_by_a_copy() {
    run(async {
        let cluster = Cluster::of_three().await;
        let (disk, replica, before) = miss_a_lot(&cluster).await;
        let medium = cluster.stop(replica).await;
        go_on_without(&cluster, &disk, before.last_log).await;

        let node = cluster.restart(medium).await;
        disk.write(0, 0, 2, 8000).await;
        cluster.settle().await;
        assert!(
            purged(&node) > Some(LogIndex::new(before.last_log)),
            "by a copy"
        );
        cluster.agreed_digest().await;
        assert!(node.group.has_removed(ogee_proto::id::VolumeId::new(2)));
        cluster.transfer_to(replica).await;
        disk.check().await;

        cluster.checkpoint().await;
        let medium = cluster.crash(replica, Survivors::None).await;
        cluster.restart(medium).await;
        cluster.transfer_to(replica).await;
        disk.check().await;
        cluster.agreed_digest().await;
    });
}

/// The leader knows less of a follower than is there: the answer was lost with the stream, the log was
/// purged since. The follower has applied it already, or has yet to hear that it is committed.
#[test]
fn a_replica_that_has_all_of_a_snapshot_goes_on_by_log() {
    for has_applied in [true, false] {
        run(async {
            let cluster = Cluster::of_three().await;
            let disk = Disk::attach(&cluster, 1, 1).await;
            disk.write(0, 0, 16, 1000).await;
            cluster.settle().await;
            let away = cluster.followers().await[0].clone();
            let (replica, last) = (away.replica, away.group.report().last_log);
            drop(away);
            let medium = cluster.stop(replica).await;
            let leader = cluster.leader().await;
            disk.write(0, 8, 4, 2000).await;
            disk.write(0, 30, 4, 3000).await;
            let missed = LogIndex::new(last + 1)..LogIndex::new(u64::MAX);
            let missed = leader.log.group(COPYSET).entries(missed, usize::MAX).await;
            let missed = missed.expect("not purged");
            purge_past(&cluster, last + 1).await;

            append_to(&medium, missed, has_applied).await;
            let sent = leader.copies.bytes_sent();
            let node = cluster.restart(medium).await;
            disk.write(0, 60, 4, 4000).await;
            cluster.agreed_digest().await;
            assert_eq!(leader.copies.bytes_sent(), sent, "by log");
            assert!(!node.group.report().is_installing);
            cluster.transfer_to(replica).await;
            disk.check().await;
            cluster.end().await;
        });
    }
}

/// Gives a replica that does not run more entries, and has it know that they are committed if so.
async fn append_to(medium: &crate::common::Medium, entries: Vec<Entry>, are_committed: bool) {
    let (_store, log) = medium.open().await;
    let group = log.group(COPYSET);
    let newest = entries.last().expect("some").id;
    let durable = Rc::new(Cell::new(false));
    let done = durable.clone();
    group.append(entries, move |written| done.set(written.is_ok()));
    if are_committed {
        group.save_committed(newest);
    }
    until(|| durable.get()).await;
    log.close().await.expect("the log closes");
    assert_eq!(group.last(), Some(newest));
}

/// While the copy runs, writes go on, and the one who receives it loses power again and again.
#[test]
fn a_copy_that_is_cut_off_by_power_loss_is_begun_again() {
    run(async {
        let cluster = Cluster::of_three().await;
        let (disk, replica, before) = miss_a_lot(&cluster).await;
        let mut medium = cluster.stop(replica).await;
        go_on_without(&cluster, &disk, before.last_log).await;
        for seed in 0..6u64 {
            let node = cluster.restart(medium).await;
            disk.write(0, 90, 4, 10_000 + seed * 100).await;
            for _ in 0..seed * 2 {
                pause().await;
            }
            drop(node);
            medium = cluster.crash(replica, Survivors::Seeded(seed)).await;
        }
        cluster.restart(medium).await;
        cluster.settle().await;
        leads_with_all(&cluster, replica, &disk).await;
    });
}

/// A digest reads what its entry saw while write-back and purge are asked for.
#[test]
fn a_digest_agrees_while_checkpoints_and_writes_go_on() {
    run(async {
        let cluster = Cluster::of_three().await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        for round in 1..=6u64 {
            disk.write(0, 0, 128, round * 10_000).await;
            let nodes = cluster.nodes();
            let checkpoints = ogee_runtime::spawn(async move {
                for node in nodes.iter().chain(&nodes) {
                    assert!(node.keeper.checkpoint_now().await);
                }
            });
            cluster.agreed_digest().await;
            checkpoints.await.expect("they end");
        }
        disk.check().await;
    });
}

/// A group whose first follower has missed enough to need a copy of some size, and is down.
async fn with_one_behind(cluster: &Rc<Cluster>) -> (Disk, ReplicaId, crate::common::Medium) {
    let disk = Disk::attach(cluster, 1, 1).await;
    disk.write(0, 0, 4, 1).await;
    cluster.settle().await;
    let away = cluster.followers().await[0].clone();
    let last = away.group.report().last_log;
    let medium = cluster.stop(away.replica).await;
    for chunk in 0..CHUNKS {
        disk.write(chunk, 0, 128, 1000 * u64::from(chunk + 1)).await;
    }
    purge_past(cluster, last).await;
    (disk, away.replica, medium)
}

/// Waits until the leader has sent so many bytes of copies since `before`.
async fn until_sent(leader: &Node, before: u64, bytes: u64) {
    until(|| leader.copies.bytes_sent() >= before + bytes).await;
}

/// Broken off three times in the same two processes, a copy goes on where it was, under writes to
/// what was copied and what was not.
#[test]
fn a_copy_that_breaks_off_goes_on_where_it_was() {
    run(async {
        let cluster = Cluster::with_times(SLOWLY).await;
        let (disk, replica, medium) = with_one_behind(&cluster).await;
        let leader = cluster.leader().await;
        let before = leader.copies.bytes_sent();
        let node = cluster.restart(medium).await;
        let disk = Rc::new(disk);
        let (stop, written) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0u64)));
        let (writer, end, count) = (disk.clone(), stop.clone(), written.clone());
        let writes = ogee_runtime::spawn(async move {
            while !end.get() {
                let step = count.get();
                // Each place once, so that no later write heals what was missed.
                let place = step * 1009 % (u64::from(CHUNKS) * 64);
                let chunk = u32::try_from(place / 64).expect("small");
                let first = usize::try_from(place % 64 * 2).expect("small");
                writer.write(chunk, first, 2, 1_000_000 + step * 10).await;
                count.set(step + 1);
                pause().await;
            }
        });
        for part in 1..=3 {
            until_sent(&leader, before, part * COPIED / 4).await;
            assert!(node.group.report().is_installing);
            node.cut_off();
            // Newer checkpoints, so that what was copied is older than what comes next.
            let wrote = written.get();
            until(|| written.get() > wrote + 20).await;
            assert!(leader.keeper.checkpoint_now().await);
            node.reconnect();
        }
        until(|| !node.group.report().is_installing).await;
        stop.set(true);
        writes.await.expect("they end");
        let sent = leader.copies.bytes_sent() - before;
        assert!(sent >= COPIED, "{sent}: all of it came");
        assert!(sent < 2 * COPIED, "{sent}: not from the start each time");
        cluster.settle().await;
        leads_with_all(&cluster, replica, &disk).await;
    });
}

/// A cluster whose disk is full of data, and a follower that goes with some of it in its log only.
async fn with_one_away(cluster: &Rc<Cluster>) -> (Disk, ReplicaId, crate::common::Medium, u64) {
    let disk = Disk::attach(cluster, 1, 1).await;
    for chunk in 0..CHUNKS {
        disk.write(chunk, 0, 128, 1000 * u64::from(chunk + 1)).await;
    }
    cluster.settle().await;
    cluster.checkpoint().await;
    disk.write(1, 16, 8, 500_000).await;
    disk.zero(CommandKind::Discard, 2, 16, 8).await;
    cluster.settle().await;
    let away = cluster.followers().await[0].clone();
    let last = away.group.report().last_log;
    let medium = cluster.stop(away.replica).await;
    (disk, away.replica, medium, last)
}

/// Both ends keep to what background work may take of their devices, and say what it is for: a voter lacks its contents.
#[test]
fn a_copy_keeps_to_the_budgets_of_both_devices() {
    const LIMIT: u64 = 16 << 20;
    run(async {
        let cluster = Cluster::of_three().await;
        let (disk, replica, medium) = with_one_behind(&cluster).await;
        // Whoever leads: another one may come to, and goes on with the copy.
        let senders = cluster.nodes();
        for sender in &senders {
            sender.store.budget().limit_to(LIMIT);
        }
        let began = ogee_runtime::now();
        let node = cluster.restart(medium).await;
        node.store.budget().limit_to(LIMIT);
        let drawn = |node: &Node| node.store.budget().drawn(Purpose::Recovery);
        until(|| drawn(&node) >= COPIED && !node.group.report().is_installing).await;
        let took = ogee_runtime::now() - began + Bucket::BURST;
        let most = took.as_secs_f64() * LIMIT as f64 + (256 << 10) as f64;
        let sent: u64 = senders.iter().map(|sender| drawn(sender)).sum();
        let came = drawn(&node);
        assert!(sent >= COPIED, "{sent} sent, {came} written in {took:?}");
        for node in senders.iter().chain([&node]) {
            let drawn = drawn(node);
            assert!(drawn as f64 <= most, "{drawn} in {took:?}");
            assert_eq!(node.store.budget().drawn(Purpose::Move), 0);
        }
        let network = node.copies.network().drawn(Purpose::Recovery);
        assert!(network >= COPIED, "{network} has come");
        leads_with_all(&cluster, replica, &disk).await;
    });
}

/// Two blocks in each of ten chunks.
async fn write_here_and_there(disk: &Disk) {
    for step in 0..10 {
        disk.write(3 + step, 40, 2, 600_000 + 10 * u64::from(step))
            .await;
    }
}

/// The one that is away comes back and has all again; how many bytes it was sent.
async fn comes_back_by_a_copy(cluster: &Rc<Cluster>, medium: crate::common::Medium) -> u64 {
    let leader = cluster.leader().await;
    let before = leader.copies.bytes_sent();
    let node = cluster.restart(medium).await;
    until(|| node.group.report().applied >= leader.group.report().applied).await;
    until(|| !node.group.report().is_installing).await;
    cluster.settle().await;
    let sent = leader.copies.bytes_sent() - before;
    assert!(sent > 0, "it came by a copy");
    sent
}

/// What it had in its log only is as missing as what it never saw; nothing else comes.
#[test]
fn a_replica_that_was_away_gets_what_has_changed_since() {
    run(async {
        let cluster = Cluster::of_three().await;
        let (disk, replica, medium, last) = with_one_away(&cluster).await;
        write_here_and_there(&disk).await;
        disk.write(CHUNKS, 0, 4, 700_000).await;
        purge_past(&cluster, last).await;
        disk.write(20, 0, 4, 800_000).await;
        let sent = comes_back_by_a_copy(&cluster, medium).await;
        assert!(sent <= COPIED / 20, "{sent} of {COPIED}");
        leads_with_all(&cluster, replica, &disk).await;
    });
}

/// Those that stayed were all started anew meanwhile, one in order and one by a power cut, and have no log so far back: what has
/// changed before, their checkpoints know.
#[test]
fn a_replica_that_was_away_longer_than_its_leaders_lived_gets_what_has_changed() {
    run(async {
        let cluster = Cluster::of_three().await;
        let (disk, replica, medium, last) = with_one_away(&cluster).await;
        write_here_and_there(&disk).await;
        purge_past(&cluster, last).await;
        let mut all: Vec<ReplicaId> = cluster.nodes().iter().map(|node| node.replica).collect();
        all.retain(|it| *it != replica);
        assert_eq!(all.len(), 2);
        for (at, stayed) in all.into_iter().enumerate() {
            let medium = match at {
                0 => cluster.stop(stayed).await,
                _ => cluster.crash(stayed, Survivors::Seeded(7)).await,
            };
            drop(cluster.restart(medium).await);
            let newest = cluster.leader().await.group.report().last_log;
            for step in 0..4 {
                let tag = 800_000 + 100 * at as u64 + 10 * step as u64;
                disk.write(20, 8 * at + 2 * step, 2, tag).await;
            }
            purge_past(&cluster, newest).await;
        }
        let sent = comes_back_by_a_copy(&cluster, medium).await;
        // Pieces of 128 KiB: one each of a dozen chunks.
        assert!(sent <= COPIED / 8, "{sent} of {COPIED}");
        leads_with_all(&cluster, replica, &disk).await;
    });
}

/// The copy of one leader breaks off in its middle, the target loses power, and another leader goes on: with what has
/// changed since the checkpoint that the target still has.
#[test]
fn another_leader_goes_on_with_a_replica_that_is_half_copied() {
    run(async {
        let cluster = Cluster::with_times(SLOWLY).await;
        let (disk, replica, medium, last) = with_one_away(&cluster).await;
        // Half of it.
        for chunk in 0..CHUNKS / 2 {
            disk.write(chunk, 0, 128, 2_000_000 + 1000 * u64::from(chunk))
                .await;
        }
        purge_past(&cluster, last).await;
        let leader = cluster.leader().await;
        let before = leader.copies.bytes_sent();
        let node = cluster.restart(medium).await;
        until_sent(&leader, before, COPIED / 8).await;
        assert!(node.group.report().is_installing);
        let medium = cluster.stop(replica).await;
        let other = cluster
            .followers()
            .await
            .into_iter()
            .find(|it| it.replica != replica);
        let other = other.expect("three replicas");
        cluster.transfer_to(other.replica).await;
        disk.write(30, 64, 4, 3_000_000).await;
        let before = other.copies.bytes_sent();
        let node = cluster.restart(medium).await;
        until(|| other.copies.bytes_sent() > before).await;
        until(|| !node.group.report().is_installing).await;
        cluster.settle().await;
        let sent = other.copies.bytes_sent() - before;
        assert!(
            sent <= COPIED * 3 / 4,
            "{sent} of {COPIED}: only what has changed"
        );
        leads_with_all(&cluster, replica, &disk).await;
    });
}

/// Its map is newer than its state after that, and blocks may be newer than the map: it says so, and
/// a new copy or, from a leader that still has the log, replay makes it whole.
#[test]
fn a_replica_that_loses_power_in_the_middle_is_installing_until_it_is_whole() {
    run(async {
        let cluster = Cluster::with_times(SLOWLY).await;
        let (disk, replica, mut medium) = with_one_behind(&cluster).await;
        for seed in 0..3u64 {
            let leader = cluster.leader().await;
            let before = leader.copies.bytes_sent();
            let node = cluster.restart(medium).await;
            until_sent(&leader, before, COPIED / 4).await;
            // As a checkpoint of another group does it.
            node.store.checkpoint(Vec::new()).await.expect("it works");
            until_sent(&leader, before, COPIED / 3).await;
            disk.write(2, 0, 8, 50_000 + seed * 100).await;
            drop(node);
            medium = cluster.crash(replica, Survivors::Seeded(seed)).await;
            let node = cluster.restart(medium).await;
            assert!(node.group.report().is_installing, "from the start");
            medium = cluster.crash(replica, Survivors::Seeded(seed + 9)).await;
        }
        let node = cluster.restart(medium).await;
        until(|| !node.group.report().is_installing).await;
        cluster.settle().await;
        leads_with_all(&cluster, replica, &disk).await;
    });
}

/// The state of this many sessions does not fit into one frame's meta.
#[test]
fn a_copy_brings_more_sessions_than_a_frame_holds() {
    run(async {
        let cluster = Cluster::of_three().await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        disk.write(0, 0, 4, 1).await;
        cluster.settle().await;
        let away = cluster.followers().await[0].clone();
        let last = away.group.report().last_log;
        let medium = cluster.stop(away.replica).await;
        let seals = (0..64u64).map(|lane| {
            let cluster = cluster.clone();
            ogee_runtime::spawn(async move {
                for volume in 0..120 {
                    Disk::attach(&cluster, 1000 + lane * 120 + volume, 1).await;
                }
            })
        });
        for sealing in seals.collect::<Vec<_>>() {
            sealing.await.expect("it ends");
        }
        purge_past(&cluster, last).await;
        let leader = cluster.leader().await;
        let state = leader.store.group(COPYSET).expect("there").state.len();
        assert!(state > ogee_proto::limit::FRAME_META_MAX, "{state}");
        let node = cluster.restart(medium).await;
        until(|| node.group.report().last_log > last && !node.group.report().is_installing).await;
        cluster.settle().await;
        cluster.agreed_digest().await;
        cluster.transfer_to(away.replica).await;
        // The sessions are there: a write needs its seal, and the newest epoch counts.
        disk.write(0, 4, 4, 10).await;
        disk.check().await;
        let last_sealed = Disk::unsealed(&cluster, 1000 + 64 * 120 - 1, 1);
        last_sealed.write(0, 0, 1, 5).await;
        last_sealed.check().await;
    });
}

/// The next leader still has the log, so what a broken-off copy left is replayed over, from the state
/// before: newer blocks, a newer map, and after the power loss blocks that are newer than the map.
#[test]
fn replay_makes_a_broken_off_copy_whole() {
    run(async {
        let cluster = Cluster::with_times(SLOWLY).await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        for chunk in 0..10 {
            disk.write(chunk, 0, 128, 1000 * u64::from(chunk + 1)).await;
        }
        cluster.settle().await;
        cluster.checkpoint().await;
        let (leader, followers) = (cluster.leader().await, cluster.followers().await);
        let (next, away) = (followers[0].replica, followers[1].clone());
        let last = away.group.report().last_log;
        let replica = away.replica;
        drop(away);
        let medium = cluster.stop(replica).await;
        for chunk in 0..10 {
            disk.write(chunk, 0, 128, 500_000 + 1000 * u64::from(chunk))
                .await;
        }
        disk.zero(CommandKind::Discard, 3, 10, 20).await;
        while purged(&leader) <= Some(LogIndex::new(last)) {
            assert!(leader.keeper.checkpoint_now().await);
            pause().await;
        }
        let before = leader.copies.bytes_sent();
        let node = cluster.restart(medium).await;
        until_sent(&leader, before, 2 << 20).await;
        node.store.checkpoint(Vec::new()).await.expect("it works");
        until_sent(&leader, before, 3 << 20).await;
        drop(node);
        let medium = cluster.crash(replica, Survivors::Seeded(5)).await;
        cluster.transfer_to(next).await;
        let next = cluster.node(next);
        assert!(
            purged(&next) <= Some(LogIndex::new(last)),
            "it has what is missing"
        );
        disk.write(9, 100, 4, 900_000).await;
        let node = cluster.restart(medium).await;
        until(|| !node.group.report().is_installing).await;
        assert_eq!(next.copies.bytes_sent(), 0, "by log");
        cluster.settle().await;
        leads_with_all(&cluster, replica, &disk).await;
    });
}

/// Writers go on beside a copy that nothing but they hold back.
#[test]
fn writers_keep_their_speed_beside_a_copy() {
    run(async {
        let cluster = Cluster::of_three().await;
        let (disk, replica, medium) = with_one_behind(&cluster).await;
        let (stop, written) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0u64)));
        let mut writers = Vec::new();
        for lane in 0..4u64 {
            let (cluster, end, count) = (cluster.clone(), stop.clone(), written.clone());
            writers.push(ogee_runtime::spawn(async move {
                let disk = Disk::attach(&cluster, 100 + lane, 1).await;
                for step in 1.. {
                    if end.get() {
                        break;
                    }
                    let first = usize::try_from(step * 37 % 128).expect("small");
                    disk.write(0, first, 1, step).await;
                    count.set(count.get() + 1);
                    // The fixture's log holds a few thousand writes: less than full speed for a copy.
                    pause().await;
                }
                disk
            }));
        }
        until(|| written.get() > 200).await;
        let speed = async |is_over: &dyn Fn() -> bool| {
            let (began, before) = (ogee_runtime::now(), written.get());
            while !is_over() {
                pause().await;
            }
            let took = ogee_runtime::now() - began;
            (
                f64::from(u32::try_from(written.get() - before).expect("few")) / took.as_secs_f64(),
                took,
            )
        };
        let leader = cluster.leader().await;
        let sent = leader.copies.bytes_sent();
        let node = cluster.restart(medium).await;
        until_sent(&leader, sent, 1).await;
        let during = speed(&|| !node.group.report().is_installing).await;
        cluster.settle().await;
        let end = ogee_runtime::now() + Duration::from_secs(2);
        let after = speed(&|| ogee_runtime::now() > end).await;
        stop.set(true);
        let mut disks = vec![disk];
        for writer in writers {
            disks.push(writer.await.expect("it ends"));
        }
        cluster.settle().await;
        cluster.agreed_digest().await;
        cluster.transfer_to(replica).await;
        for disk in disks {
            disk.check().await;
        }
        assert!(
            during.0 * 3.0 > after.0,
            "{during:?} beside a copy, {after:?} without"
        );
    });
}

/// A log that the writers below fill in less time than a copy takes.
const SMALL_LOG: ByteLen = ByteLen::new(20 << 20);

/// Writers at full speed change what has been copied, and fill the log over and over meanwhile. The
/// copy ends while they go on, and they never stand still for it.
#[test]
fn a_copy_comes_to_its_end_although_writers_outrun_the_log() {
    run_for(Duration::from_secs(300), async {
        let cluster = Cluster::with_log(QUICK, SMALL_LOG).await;
        let (disk, replica, medium) = with_one_behind(&cluster).await;
        let (stop, written) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0u64)));
        let mut writers = Vec::new();
        for lane in 0..8u64 {
            let (cluster, end, count) = (cluster.clone(), stop.clone(), written.clone());
            writers.push(ogee_runtime::spawn(async move {
                let disk = Disk::attach(&cluster, 100 + lane, 1).await;
                let mut dice = crate::common::Dice::new(lane);
                while !end.get() {
                    let (chunk, first) = (dice.below(2), dice.below(32) * 4);
                    let chunk = u32::try_from(chunk).expect("few");
                    disk.write(chunk, first, 4, count.get() * 10).await;
                    count.set(count.get() + 1);
                }
                disk
            }));
        }
        until(|| written.get() > 500).await;
        let leader = cluster.leader().await;
        let (sent, wrote) = (leader.copies.bytes_sent(), written.get());
        let node = cluster.restart(medium).await;
        until_sent(&leader, sent, 1).await;
        let began = ogee_runtime::now();
        let (mut longest, mut last) = (Duration::ZERO, (ogee_runtime::now(), written.get()));
        while node.group.report().is_installing {
            pause().await;
            if written.get() > last.1 {
                longest = longest.max(ogee_runtime::now() - last.0);
                last = (ogee_runtime::now(), written.get());
            }
        }
        let (lived, took) = (written.get() - wrote, ogee_runtime::now() - began);
        stop.set(true);
        let mut disks = vec![disk];
        for writer in writers {
            disks.push(writer.await.expect("it ends"));
        }
        // Each write takes five blocks of the log. A fifth of it is what a copy may take without a last pass
        // behind a checkpoint of its own: this one needed that.
        println!("{lived} writes beside the copy in {took:?}, the longest pause {longest:?}");
        assert!(lived * 5 * 4096 > SMALL_LOG.get() / 2, "{lived} writes");
        assert!(longest < Duration::from_secs(3), "{longest:?}");
        cluster.settle().await;
        cluster.agreed_digest().await;
        cluster.transfer_to(replica).await;
        for disk in disks {
            disk.check().await;
        }
    });
}
