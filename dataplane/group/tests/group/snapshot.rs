//! A replica that was away for longer than the others keep their logs.

use crate::common::{COPYSET, Cluster, Disk, Node, pause, run};
use ogee_device::Survivors;
use ogee_group::CommandKind;
use ogee_proto::id::{LogIndex, ReplicaId};
use std::rc::Rc;

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
        cluster.agreed_digest().await;
        cluster.transfer_to(replica).await;
        disk.check().await;
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
