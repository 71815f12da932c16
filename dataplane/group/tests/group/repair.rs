//! Blocks of one replica's store rot: they are put right from the others, and no reader sees it.

use crate::common::{Cluster, Disk, Node, block_bytes, pause, run_for, until};
use ogee_device::{Failure, FaultRule, Operation};
use ogee_group::{CommandKind, FoundBy};
use ogee_proto::id::ReplicaId;
use ogee_proto::unit::{BlockIndex, ByteLen, ByteOffset};
use ogee_proto::wire::{FrameKind, Status};
use std::rc::Rc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);
const BLOCKS: usize = 8;

/// A disk whose blocks are in every store, tagged from 100 on.
async fn written() -> (Rc<Cluster>, Disk) {
    let cluster = Cluster::of_three().await;
    let disk = Disk::attach(&cluster, 1, 1).await;
    disk.write(0, 0, BLOCKS, 100).await;
    cluster.settle().await;
    cluster.checkpoint().await;
    (cluster, disk)
}

/// The same replica with the blocks of these tags damaged.
async fn hurt(cluster: &Rc<Cluster>, victim: ReplicaId, tags: &[u64]) -> Rc<Node> {
    let medium = cluster.stop(victim).await;
    for tag in tags {
        let hurt = medium.spoil_stored(&block_bytes(*tag)).await;
        assert!(hurt > 0, "the block is in the store");
    }
    cluster.restart(medium).await
}

fn whole() -> Vec<u8> {
    (100..100 + BLOCKS as u64).flat_map(block_bytes).collect()
}

/// Blocks that were repaired, by who had found them, in the order of [`FoundBy::ALL`].
fn found_by(node: &Node) -> [u64; 5] {
    FoundBy::ALL.map(|by| node.metrics.repaired.count(by))
}

#[test]
fn a_leader_repairs_what_it_reads_and_goes_on() {
    run_for(PATIENCE, async {
        let (cluster, disk) = written().await;
        let victim = cluster.followers().await[0].replica;
        let node = hurt(&cluster, victim, &[101, 103, 104]).await;
        cluster.transfer_to(victim).await;
        let head = disk.head(CommandKind::Write, 0, 0, BLOCKS);
        let read = node.group.read(&head).await;
        assert!(read.is_ok(), "{:?}", read.err());
        assert_eq!(cluster.read(&head).await, Ok(whole()));
        assert!(
            node.group.report().is_leader,
            "there was no reason to hand over"
        );
        let counters = node.store.counters();
        assert_eq!(counters.repairs, 3);
        assert_eq!(found_by(&node), [3, 0, 0, 0, 0]);

        // It is on the device, not in memory only.
        let node = hurt(&cluster, victim, &[]).await;
        cluster.transfer_to(victim).await;
        assert_eq!(cluster.read(&head).await, Ok(whole()));
        assert_eq!(node.store.counters().checksum_errors, 0);
        cluster.end().await;
    });
}

/// Each of three has damage of its own: every block is whole somewhere.
#[test]
fn three_replicas_put_each_other_right() {
    run_for(PATIENCE, async {
        let (cluster, disk) = written().await;
        let replicas = cluster.nodes().into_iter().map(|node| node.replica);
        for (replica, tag) in replicas.zip([101, 103, 105]) {
            hurt(&cluster, replica, &[tag]).await;
        }
        let head = disk.head(CommandKind::Write, 0, 0, BLOCKS);
        for node in cluster.nodes() {
            cluster.transfer_to(node.replica).await;
            assert_eq!(cluster.read(&head).await, Ok(whole()));
            assert_eq!(node.store.counters().repairs, 1);
        }
        disk.check().await;
        cluster.end().await;
    });
}

/// What is damaged everywhere is not guessed.
#[test]
fn what_nobody_has_whole_is_told_of() {
    run_for(PATIENCE, async {
        let (cluster, disk) = written().await;
        for node in cluster.nodes() {
            hurt(&cluster, node.replica, &[103]).await;
        }
        let head = disk.head(CommandKind::Write, 0, 0, BLOCKS);
        while cluster.read(&head).await != Err(Status::Corrupt) {
            pause().await;
        }
        let lost = |node: &Node| node.group.lost_blocks();
        until(|| cluster.nodes().iter().any(|node| !lost(node).is_empty())).await;
        for found in cluster.nodes().iter().flat_map(|node| lost(node)) {
            assert_eq!((found.first.get(), found.count), (3, 1), "{found:?}");
        }
        // Its neighbours are there, and so is what is written over it.
        let neighbours = disk.head(CommandKind::Write, 0, 4, 4);
        let read = cluster.read(&neighbours).await;
        assert_eq!(read, Ok((104..108).flat_map(block_bytes).collect()));
        disk.write(0, 3, 1, 203).await;
        disk.check().await;
        until(|| cluster.nodes().iter().all(|node| lost(node).is_empty())).await;
        cluster.checkpoint().await;
        disk.check().await;
        cluster.end().await;
    });
}

/// What a replica that is away may have is not lost yet.
#[test]
fn what_one_that_is_away_may_have_does_not_count_as_lost() {
    run_for(PATIENCE, async {
        let (cluster, disk) = written().await;
        let leader = cluster.leader().await.replica;
        let away = cluster.followers().await[0].replica;
        let third = cluster.followers().await[1].replica;
        for replica in [leader, third] {
            hurt(&cluster, replica, &[103]).await;
        }
        cluster.stop(away).await;
        let head = disk.head(CommandKind::Write, 0, 0, BLOCKS);
        for _ in 0..6 {
            assert_ne!(cluster.read(&head).await, Ok(whole()));
            pause().await;
        }
        assert!(
            cluster
                .nodes()
                .iter()
                .all(|node| node.group.lost_blocks().is_empty())
        );
        cluster.end().await;
    });
}

/// A follower serves no reads; a digest finds its damage, and the next one is whole.
#[test]
fn a_follower_repairs_what_a_digest_finds() {
    run_for(PATIENCE, async {
        let (cluster, disk) = written().await;
        let victim = cluster.followers().await[0].replica;
        let node = hurt(&cluster, victim, &[100, 107]).await;
        let id = cluster.propose_digest().await;
        assert!(node.group.digest(id).await.is_err(), "it is damaged");
        until(|| node.store.counters().repairs == 2).await;
        assert_eq!(found_by(&node), [0, 0, 2, 0, 0]);
        assert!(cluster.heard(FrameKind::Blocks) >= 2);
        cluster.agreed_digest().await;
        disk.check().await;
        cluster.end().await;
    });
}

/// Nobody reads, and nobody compares.
#[test]
fn a_follower_repairs_what_scrubbing_finds() {
    run_for(PATIENCE, async {
        let (cluster, disk) = written().await;
        let victim = cluster.followers().await[0].replica;
        let node = hurt(&cluster, victim, &[101, 106]).await;
        let head = disk.head(CommandKind::Write, 0, 0, BLOCKS);
        let first = BlockIndex::new(0).expect("the first");
        // What is stored may be newer than what is applied until something new is.
        disk.write(0, 16, 1, 300).await;
        while node.group.scrub(head.key, first, BLOCKS).await == 0 {
            pause().await;
        }
        until(|| node.store.counters().repairs == 2).await;
        assert_eq!(found_by(&node), [0, 2, 0, 0, 0]);
        disk.check().await;
        cluster.end().await;
    });
}

/// A device that neither gives the blocks nor takes them: another replica leads.
#[test]
fn a_leader_that_cannot_repair_lets_another_one_lead() {
    run_for(PATIENCE, async {
        let (cluster, disk) = written().await;
        let leader = cluster.leader().await;
        let (start, len) = leader.store.log_region();
        let behind = ByteOffset::new(start.get() + len.get());
        let rest = ByteLen::new(leader.store.device().len().get() - behind.get());
        let eio = FaultRule::fail(Operation::Read, Failure::Eio).within(behind, rest);
        leader.faults.add(eio);
        let head = disk.head(CommandKind::Write, 0, 0, BLOCKS);
        let read = leader.group.read(&head).await;
        assert_eq!(read.err().map(|it| it.status), Some(Status::Retry));
        until(|| !leader.group.report().is_leader).await;
        assert_eq!(cluster.read(&head).await, Ok(whole()));
        disk.check().await;
        cluster.end().await;
    });
}
