//! Large writes, which go to extents of their own.

use crate::common::{COPYSET, Cluster, Dice, Disk, Node, pause, run, until};
use ogee_device::{FaultRule, Operation, Survivors};
use ogee_group::CommandKind;
use ogee_proto::id::{LogIndex, ReplicaId};
use ogee_proto::limit::{BLOCK_SIZE, BLOCKS_PER_EXTENT, EXTENT_SIZE};
use ogee_proto::unit::ByteLen;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

const STEPS: u64 = 45;

/// Large and small writes and discards that overlap, one after the other.
async fn write_on(disk: &Disk, seed: u64, done: &Cell<u64>) {
    let mut dice = Dice::new(seed);
    for step in 1..=STEPS {
        let tag = seed * 1_000_000 + step * 1000;
        let chunk = u32::from(dice.below(3) == 0);
        match dice.below(10) {
            0..=4 => {
                let (first, count) = (dice.below(8), 1 + dice.below(4));
                let count = count.min(8 - first) * BLOCKS_PER_EXTENT;
                disk.write(chunk, first * BLOCKS_PER_EXTENT, count, tag)
                    .await;
            }
            5..=7 => {
                let (first, count) = (dice.below(100), 1 + dice.below(24));
                disk.write(chunk, first, count, tag).await;
            }
            8 => {
                let first = dice.below(8) * BLOCKS_PER_EXTENT;
                disk.zero(CommandKind::Discard, chunk, first, BLOCKS_PER_EXTENT)
                    .await;
            }
            _ => {
                let (first, count) = (dice.below(100), 1 + dice.below(20));
                disk.zero(CommandKind::WriteZeroes, chunk, first, count)
                    .await;
            }
        }
        done.set(done.get() + 1);
    }
}

/// Bytes of extents that chunks map.
fn mapped(node: &Node) -> u64 {
    let mut extents = 0;
    for key in node.store.chunks(COPYSET) {
        let blocks = node.store.allocated(COPYSET, key).expect("ours");
        let of_chunk: BTreeSet<usize> = blocks
            .iter()
            .map(|block| block.as_usize() / BLOCKS_PER_EXTENT)
            .collect();
        extents += of_chunk.len();
    }
    (extents * EXTENT_SIZE) as u64
}

/// Checkpoints until no record of the log names an extent; then nobody but chunks may hold one.
async fn check_space(cluster: &Cluster) {
    cluster.settle().await;
    let holds = |node: &Rc<Node>| node.log.usage().placed > ByteLen::ZERO;
    while cluster.nodes().iter().any(holds) {
        cluster.checkpoint().await;
        pause().await;
    }
    cluster.checkpoint().await;
    for node in cluster.nodes() {
        // A checkpoint without anything new does not end what an earlier write-back left.
        let usage = node.store.usage();
        assert_eq!(usage.pinned, ByteLen::ZERO, "{}", node.replica);
        let used = usage.capacity.get() - usage.free.get() - usage.pending.get();
        assert_eq!(used, mapped(&node), "{}", node.replica);
    }
}

/// Checkpoints at random, power loss of one node or of all.
async fn disturb(cluster: &Rc<Cluster>, dice: &mut Dice) {
    match dice.below(12) {
        0..=8 => {
            let keeper = cluster.nodes().swap_remove(dice.below(3)).keeper.clone();
            drop(ogee_runtime::spawn(
                async move { keeper.checkpoint_now().await },
            ));
        }
        9 | 10 => {
            let node = cluster.nodes().swap_remove(dice.below(3)).replica;
            let survivors = Survivors::Seeded(dice.below(1 << 20) as u64);
            let medium = cluster.crash(node, survivors).await;
            cluster.restart(medium).await;
        }
        _ => {
            let mut media = Vec::new();
            for node in cluster.nodes() {
                let survivors = Survivors::Seeded(dice.below(1 << 20) as u64);
                media.push(cluster.crash(node.replica, survivors).await);
            }
            for medium in media {
                cluster.restart(medium).await;
            }
        }
    }
}

async fn mix(seed: u64) {
    let cluster = Cluster::of_three().await;
    let done = Rc::new(Cell::new(0));
    let (mut disks, mut writers) = (Vec::new(), Vec::new());
    for volume in 1..=2 {
        let disk = Rc::new(Disk::attach(&cluster, volume, 1).await);
        disks.push(disk.clone());
        let done = done.clone();
        writers.push(ogee_runtime::spawn(async move {
            write_on(&disk, seed * 10 + volume, &done).await;
        }));
    }
    let mut dice = Dice::new(seed);
    let mut next = 0;
    while done.get() < 2 * STEPS {
        if done.get() >= next {
            disturb(&cluster, &mut dice).await;
            next = done.get() + dice.below(6) as u64;
        }
        pause().await;
    }
    for writer in writers {
        writer.await.expect("the writer ends");
    }
    for replica in cluster.nodes().iter().map(|node| node.replica) {
        cluster.transfer_to(replica).await;
        for disk in &disks {
            disk.check().await;
        }
    }
    cluster.agreed_digest().await;
    check_space(&cluster).await;
    for disk in &disks {
        disk.check().await;
    }
    cluster.agreed_digest().await;
    cluster.end().await;
}

#[test]
fn large_and_small_writes_agree_with_the_model_through_crashes_and_leak_nothing() {
    run(async {
        for seed in 1..=4 {
            mix(seed).await;
        }
    });
}

#[test]
fn what_is_adopted_is_not_written_again() {
    run(async {
        let cluster = Cluster::of_three().await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        disk.write(0, 0, 128, 1000).await;
        // One extent is superseded in part, one wholly, by a large write.
        disk.write(0, 20, 2, 5000).await;
        disk.write(0, 64, 16, 6000).await;
        cluster.settle().await;
        let written = |node: &Rc<Node>| node.store.counters().data_bytes_written;
        cluster.checkpoint().await;
        for node in cluster.nodes() {
            assert_eq!(
                written(&node),
                EXTENT_SIZE as u64,
                "the one of mixed origin"
            );
            let metrics = node.keeper.metrics();
            let large = 128 - BLOCKS_PER_EXTENT;
            assert_eq!(metrics.blocks_adopted, large as u64);
            assert_eq!(metrics.blocks_written, BLOCKS_PER_EXTENT as u64);
        }
        disk.check().await;
        check_space(&cluster).await;
        // In place from now on: no record names the extents any more.
        disk.write(0, 0, 1, 7000).await;
        cluster.settle().await;
        cluster.checkpoint().await;
        for node in cluster.nodes() {
            let more = EXTENT_SIZE + BLOCK_SIZE;
            assert_eq!(written(&node), more as u64);
            assert_eq!(node.store.counters().moved_bytes, 0);
        }
        disk.check().await;
        cluster.agreed_digest().await;
        cluster.end().await;
    });
}

/// A checkpoint of so little takes a few milliseconds.
const CHECKPOINT_AND_MORE: Duration = Duration::from_secs(1);

/// What a majority holds may be applied before it is durable here: until then nothing may come to
/// depend on the extents that it fills.
#[test]
fn what_is_not_durable_here_is_not_adopted() {
    run(async {
        let cluster = Cluster::of_three().await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        disk.write(0, 0, 32, 1000).await;
        cluster.settle().await;
        cluster.checkpoint().await;
        let leader = cluster.leader().await;
        let (start, len) = leader.store.log_region();
        let data = start.add(len);
        let data_len = leader.store.device().len().get() - data.get();
        let never = FaultRule::delay(Operation::WriteDurable, Duration::from_secs(3600));
        leader
            .faults
            .add(never.within(data, ByteLen::new(data_len)));
        disk.write(0, 0, 32, 2000).await;
        until(|| leader.group.overlay_blocks() == 32).await;
        let adopted = leader.keeper.metrics().blocks_adopted;
        // It waits for the log, and would for an hour.
        let checkpoint = ogee_runtime::timeout(CHECKPOINT_AND_MORE, leader.keeper.checkpoint_now());
        assert!(checkpoint.await.is_err(), "nothing to wait for");
        assert_eq!(leader.keeper.metrics().blocks_adopted, adopted);
        let victim = leader.replica;
        drop(leader);
        let medium = cluster.crash(victim, Survivors::None).await;
        cluster.restart(medium).await;
        cluster.transfer_to(victim).await;
        disk.check().await;
        cluster.agreed_digest().await;
        check_space(&cluster).await;
        cluster.end().await;
    });
}

/// The entries are read from the extents that they fill.
#[test]
fn a_follower_catches_up_by_a_log_whose_payloads_lie_in_extents() {
    run(async {
        let cluster = Cluster::of_three().await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        disk.write(0, 0, 32, 1000).await;
        cluster.settle().await;
        let away = cluster.followers().await[0].replica;
        let medium = cluster.stop(away).await;
        for round in 2..=9u64 {
            let first = usize::try_from(round).expect("small") % 4 * 16;
            disk.write(0, first, 64, round * 1000).await;
            disk.write(0, first + 3, 2, round * 1000 + 500).await;
        }
        // Far more than the logs keep in memory, and no checkpoint that would let them go.
        let node = cluster.restart(medium).await;
        cluster.settle().await;
        assert!(node.log.counters().placed_bytes > 0);
        cluster.agreed_digest().await;
        cluster.transfer_to(away).await;
        disk.check().await;
        check_space(&cluster).await;
        cluster.end().await;
    });
}

#[test]
fn a_follower_catches_up_by_a_copy_over_extents_that_its_log_names() {
    run(async {
        let cluster = Cluster::of_three().await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        disk.write(0, 0, 128, 1000).await;
        disk.write(1, 0, 32, 2000).await;
        cluster.settle().await;
        // It has adopted them, and its own log still names them: nobody has let it purge.
        let away = cluster.followers().await[0].clone();
        assert!(away.keeper.checkpoint_now().await);
        let (away, last) = (away.replica, away.group.report().last_log);
        let medium = cluster.crash(away, Survivors::None).await;
        disk.write(0, 16, 64, 3000).await;
        disk.write(0, 3, 2, 4000).await;
        disk.zero(CommandKind::Discard, 1, 0, 16).await;
        let is_purged = |node: &Rc<Node>| {
            let purged = node.log.group(COPYSET).state().purged;
            purged.is_some_and(|id| id.index > LogIndex::new(last))
        };
        while !cluster.nodes().iter().all(is_purged) {
            cluster.checkpoint().await;
            pause().await;
        }
        let node = cluster.restart(medium).await;
        until(|| is_purged(&node)).await;
        cluster.settle().await;
        cluster.agreed_digest().await;
        cluster.transfer_to(away).await;
        disk.check().await;
        check_space(&cluster).await;
        disk.check().await;
        cluster.end().await;
    });
}

/// One replica's device may be full when the others' are not.
#[test]
fn a_replica_that_has_few_extents_left_takes_large_writes_into_its_log() {
    run(async {
        let cluster = Cluster::of_three().await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        let full: Rc<Node> = cluster.followers().await[0].clone();
        let one = u32::try_from(full.store.capacity().get() / EXTENT_SIZE as u64).expect("small");
        let taken = full.store.take_extents(one - one / 8).expect("free");
        let replica: ReplicaId = full.replica;
        disk.write(0, 0, 128, 1000).await;
        cluster.settle().await;
        assert_eq!(full.log.counters().placed_bytes, 0);
        assert!(cluster.leader().await.log.counters().placed_bytes > 0);
        cluster.checkpoint().await;
        cluster.agreed_digest().await;
        taken.into_iter().for_each(|at| full.store.unpin(at));
        disk.write(0, 0, 16, 2000).await;
        cluster.settle().await;
        assert_eq!(full.log.counters().placed_bytes, EXTENT_SIZE as u64);
        cluster.transfer_to(replica).await;
        disk.check().await;
        cluster.end().await;
    });
}
