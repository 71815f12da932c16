//! Replicas that differ although every checksum fits: they are compared, and put right where most of them agree.

use crate::common::{Cluster, Disk, Medium, Node, block_bytes, pause, run_for, until};
use ogee_device::{FaultRule, Operation, Survivors};
use ogee_group::{CommandKind, Compared, Place};
use ogee_proto::id::{ChunkIndex, ChunkKey, ReplicaId, VolumeId};
use ogee_proto::wire::FrameKind;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);
const BLOCKS: usize = 8;
/// What a pass may come across.
const PIECES_MAX: usize = 1000;

/// Added up over a pass.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
struct Found {
    blocks: u64,
    differing: u64,
    rewritten: u64,
}

const fn chunk(chunk: u32) -> ChunkKey {
    ChunkKey {
        volume: VolumeId::new(1),
        chunk: ChunkIndex::new(chunk),
    }
}

/// A disk whose blocks are in every store: of chunk 0 the first eight, tagged from 100 on, and of chunk 5.
async fn written() -> (Rc<Cluster>, Disk) {
    let cluster = Cluster::of_three().await;
    let disk = Disk::attach(&cluster, 1, 1).await;
    disk.write(0, 0, BLOCKS, 100).await;
    disk.write(5, 90, BLOCKS, 500).await;
    cluster.settle().await;
    cluster.checkpoint().await;
    (cluster, disk)
}

/// The same replica after something has been done to its medium.
async fn altered(
    cluster: &Rc<Cluster>,
    victim: ReplicaId,
    alter: impl AsyncFnOnce(&Medium),
) -> Rc<Node> {
    let medium = cluster.stop(victim).await;
    alter(&medium).await;
    let node = cluster.restart(medium).await;
    cluster.settle().await;
    node
}

/// The same replica with other contents in a block.
async fn exchanged(cluster: &Rc<Cluster>, victim: ReplicaId, block: usize, tag: u64) -> Rc<Node> {
    let alter = async |medium: &Medium| {
        let bytes = block_bytes(tag);
        medium.exchange_stored(chunk(0), block, Some(&bytes)).await;
    };
    altered(cluster, victim, alter).await
}

/// Compares a piece until that can be done.
async fn compared(cluster: &Cluster, place: Place) -> (Option<Place>, Found) {
    loop {
        let outcome = cluster.leader().await.group.compare(place).await;
        if let Compared::Done {
            next,
            blocks,
            differing,
            rewritten,
        } = outcome
        {
            let found = Found {
                blocks,
                differing,
                rewritten,
            };
            return (next, found);
        }
        assert_ne!(outcome, Compared::Unable);
        pause().await;
    }
}

/// Compares everything.
async fn pass(cluster: &Cluster) -> Found {
    let (mut at, mut sum) = (Place::default(), Found::default());
    for _ in 0..PIECES_MAX {
        let (next, found) = compared(cluster, at).await;
        sum.blocks += found.blocks;
        sum.differing += found.differing;
        sum.rewritten += found.rewritten;
        let Some(next) = next else {
            return sum;
        };
        assert!(next > at, "a pass goes on");
        at = next;
    }
    panic!("a pass comes to its end");
}

const ALIKE: Found = Found {
    blocks: 2 * BLOCKS as u64,
    differing: 0,
    rewritten: 0,
};

fn disputed(cluster: &Cluster) -> Vec<(u16, u16)> {
    let nodes = cluster.nodes().into_iter();
    let mut found: Vec<_> = nodes
        .flat_map(|node| node.group.disputed_blocks())
        .map(|blocks| (blocks.first.get(), blocks.count))
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[test]
fn replicas_that_hold_the_same_are_found_alike() {
    run_for(PATIENCE, async {
        let (cluster, disk) = written().await;
        assert_eq!(pass(&cluster).await, ALIKE);
        // The same whether in the log or in the store; zeros like blocks that never were.
        disk.write(0, 2, 1, 900).await;
        disk.zero(CommandKind::WriteZeroes, 0, 50, 3).await;
        assert_eq!(pass(&cluster).await, ALIKE);
        cluster
            .node(ReplicaId::new(1))
            .keeper
            .checkpoint_now()
            .await;
        assert_eq!(pass(&cluster).await, ALIKE);
        disk.zero(CommandKind::Discard, 0, 0, 1).await;
        assert_eq!(pass(&cluster).await.differing, 0);
        cluster.remove_volume(disk.volume).await;
        cluster
            .node(ReplicaId::new(1))
            .keeper
            .checkpoint_now()
            .await;
        assert_eq!(pass(&cluster).await, Found::default());
        cluster.end().await;
    });
}

#[test]
fn two_of_three_are_right() {
    run_for(PATIENCE, async {
        let (cluster, disk) = written().await;
        let victim = cluster.followers().await[0].replica;
        let node = exchanged(&cluster, victim, 3, 777).await;
        let found = pass(&cluster).await;
        assert_eq!((found.differing, found.rewritten), (1, 1));
        assert_eq!(pass(&cluster).await, ALIKE);
        cluster.agreed_digest().await;
        assert_eq!(disputed(&cluster), []);
        // Also from its own store, when it leads.
        cluster.checkpoint().await;
        cluster.transfer_to(victim).await;
        disk.check().await;
        assert_eq!(node.store.counters().checksum_errors, 0);
        cluster.end().await;
    });
}

/// Its clients have read what the others do not have.
#[test]
fn a_leader_that_is_the_odd_one_is_put_right() {
    run_for(PATIENCE, async {
        let (cluster, disk) = written().await;
        let victim = cluster.followers().await[0].replica;
        exchanged(&cluster, victim, 3, 777).await;
        cluster.transfer_to(victim).await;
        let found = pass(&cluster).await;
        assert_eq!((found.differing, found.rewritten), (1, 1));
        disk.check().await;
        cluster.end().await;
    });
}

/// Even if nothing is left of a chunk where it leads: the others say that there is one.
#[test]
fn a_leader_that_has_lost_a_chunk_gets_it_back() {
    run_for(PATIENCE, async {
        let (cluster, disk) = written().await;
        let victim = cluster.followers().await[0].replica;
        let alter = async |medium: &Medium| {
            for block in 90..90 + BLOCKS {
                medium.exchange_stored(chunk(5), block, None).await;
            }
        };
        altered(&cluster, victim, alter).await;
        cluster.transfer_to(victim).await;
        let found = pass(&cluster).await;
        assert_eq!((found.differing, found.rewritten), (8, 8));
        disk.check().await;
        cluster.end().await;
    });
}

/// A block that cannot be repaired, since its own map names other contents than all others have.
#[test]
fn a_block_whose_checksum_nobody_can_satisfy_is_written_anew() {
    run_for(PATIENCE, async {
        let (cluster, disk) = written().await;
        let victim = cluster.followers().await[0].replica;
        let alter = async |medium: &Medium| {
            let lost = block_bytes(777);
            medium.exchange_stored(chunk(0), 3, Some(&lost)).await;
            assert_eq!(medium.spoil_stored(&lost).await, 1);
        };
        let node = altered(&cluster, victim, alter).await;
        let found = pass(&cluster).await;
        assert_eq!((found.differing, found.rewritten), (1, 1));
        until(|| node.group.lost_blocks().is_empty()).await;
        disk.check().await;
        cluster.agreed_digest().await;
        cluster.end().await;
    });
}

#[test]
fn what_no_rule_settles_is_told_of_and_not_touched() {
    run_for(PATIENCE, async {
        let (cluster, disk) = written().await;
        let followers = cluster.followers().await;
        for (follower, tag) in followers.iter().zip([777, 888]) {
            exchanged(&cluster, follower.replica, 3, tag).await;
        }
        let leader = cluster.leader().await;
        let found = pass(&cluster).await;
        assert_eq!((found.differing, found.rewritten), (1, 0));
        let all_know = || {
            cluster
                .nodes()
                .iter()
                .all(|node| !node.group.disputed_blocks().is_empty())
        };
        until(all_know).await;
        assert_eq!(disputed(&cluster), [(3, 1)]);
        assert_eq!(pass(&cluster).await.rewritten, 0, "nothing is guessed");

        // Whoever leads next knows where to look; what is written anew is beyond doubt.
        disk.write(0, 3, 1, 203).await;
        let next = cluster
            .nodes()
            .into_iter()
            .find(|node| node.replica != leader.replica);
        cluster.transfer_to(next.expect("three").replica).await;
        let places = cluster.leader().await.group.disputed_places();
        assert_eq!(places.len(), 1);
        assert_eq!(compared(&cluster, places[0]).await.1.differing, 0);
        until(|| disputed(&cluster).is_empty()).await;
        disk.check().await;
        cluster.end().await;
    });
}

/// Even if power fails everywhere at once: nothing is compared anew before it is told of again.
#[test]
fn what_no_rule_settles_is_told_of_after_a_restart_too_until_it_is_settled() {
    run_for(PATIENCE, async {
        let (cluster, disk) = written().await;
        let followers = cluster.followers().await;
        for (follower, tag) in followers.iter().zip([777, 888]) {
            exchanged(&cluster, follower.replica, 3, tag).await;
        }
        assert_eq!(pass(&cluster).await.differing, 1);
        let know = |count: usize| {
            let cluster = &cluster;
            move || {
                cluster
                    .nodes()
                    .iter()
                    .all(|node| node.group.disputed_blocks().len() == count)
            }
        };
        until(know(1)).await;
        all_lose_power(&cluster).await;
        assert!(know(1)(), "it is on every device");

        disk.write(0, 3, 1, 203).await;
        let places = cluster.leader().await.group.disputed_places();
        assert_eq!(compared(&cluster, places[0]).await.1.differing, 0);
        until(know(0)).await;
        all_lose_power(&cluster).await;
        assert!(know(0)(), "it is settled for good");
        disk.check().await;
        cluster.end().await;
    });
}

/// After a checkpoint of each.
async fn all_lose_power(cluster: &Rc<Cluster>) {
    cluster.checkpoint().await;
    let mut media = Vec::new();
    for node in cluster.nodes() {
        media.push(cluster.crash(node.replica, Survivors::None).await);
    }
    for medium in media {
        cluster.restart(medium).await;
    }
}

/// What one that is silent holds is not guessed either: it is compared when it answers.
#[test]
fn nothing_is_decided_without_all_voters() {
    run_for(PATIENCE, async {
        let (cluster, disk) = written().await;
        let followers = cluster.followers().await;
        exchanged(&cluster, followers[0].replica, 3, 777).await;
        let medium = cluster.stop(followers[1].replica).await;
        let outcome = cluster.leader().await.group.compare(Place::default()).await;
        assert_eq!(outcome, Compared::Later);
        cluster.restart(medium).await;
        let found = pass(&cluster).await;
        assert_eq!((found.differing, found.rewritten), (1, 1));
        disk.check().await;
        cluster.end().await;
    });
}

/// To an older program a piece's entry would be a digest of everything.
#[test]
fn no_piece_is_asked_for_where_one_runs_an_older_program() {
    run_for(PATIENCE, async {
        let (cluster, _disk) = written().await;
        let old = cluster.followers().await[0].replica;
        cluster.set_old(Some(old));
        let leader = cluster.leader().await;
        let before = leader.group.report().last_log;
        assert_eq!(
            leader.group.compare(Place::default()).await,
            Compared::Unable
        );
        assert_eq!(leader.group.report().last_log, before);
        cluster.set_old(None);
        assert_eq!(pass(&cluster).await, ALIKE);
        cluster.end().await;
    });
}

/// Writers, write-back and checkpoints go on while replicas are compared and put right; what was acknowledged stays.
#[test]
fn writers_lose_nothing_to_what_is_put_right() {
    run_for(PATIENCE, async {
        let (cluster, disk) = written().await;
        let disk = Rc::new(disk);
        let victim = cluster.followers().await[0].replica;
        let mut rewritten = 0;
        for round in 0..4 {
            exchanged(&cluster, victim, 3, 7000 + round).await;
            let done = Rc::new(Cell::new(false));
            let (writer, is_done) = (disk.clone(), done.clone());
            let writing = ogee_runtime::spawn(async move {
                let mut tag = 10_000 * (round + 1);
                while !is_done.get() {
                    // Beside the block that differs, and now and then that one itself.
                    let first = usize::try_from(tag % 7).expect("small");
                    writer.write(0, first, 2, tag).await;
                    tag += 10;
                }
            });
            for turn in 0..6 {
                rewritten += pass(&cluster).await.rewritten;
                let node = cluster.nodes()[turn % 3].clone();
                node.keeper.checkpoint_now().await;
            }
            done.set(true);
            let _ended = writing.await;
            disk.check().await;
            assert_eq!(pass(&cluster).await.differing, 0);
        }
        cluster.agreed_digest().await;
        println!("{rewritten} blocks were put right");
        cluster.end().await;
    });
}

/// A device that takes its time keeps neither writers nor write-back waiting: both end long before the comparison.
#[test]
fn nobody_waits_for_a_comparison_on_a_slow_device() {
    const SLOW: Duration = Duration::from_secs(1);
    run_for(PATIENCE, async {
        let (cluster, disk) = written().await;
        let leader = cluster.leader().await;
        let (first, _) = compared(&cluster, Place::default()).await;
        let first = first.expect("there is a piece");
        let follower = cluster.followers().await[0].clone();
        let slow = FaultRule::delay(Operation::Read, SLOW);
        follower.faults.add(slow);
        let (asked, ended) = (cluster.heard(FrameKind::Digest), Rc::new(Cell::new(false)));
        let has_ended = ended.clone();
        let comparing = ogee_runtime::spawn(async move {
            while leader.group.compare(first).await == Compared::Later {
                pause().await;
            }
            has_ended.set(true);
        });
        until(|| cluster.heard(FrameKind::Digest) >= asked + 2).await;
        disk.write(0, 50, 4, 300).await;
        assert!(follower.keeper.checkpoint_now().await);
        assert!(!ended.get(), "they have waited for it");
        follower.faults.clear();
        comparing.await.expect("it ends");
        disk.check().await;
        cluster.end().await;
    });
}
