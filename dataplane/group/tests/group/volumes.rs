//! Contents over time: overwritten, discarded, written back, removed.

use crate::common::{Cluster, Dice, Disk, run};
use ogee_group::CommandKind;
use std::rc::Rc;

const BLOCKS: usize = 128;

async fn check_status(cluster: &Rc<Cluster>, disk: &Disk, chunk: u32) {
    let head = disk.head(CommandKind::Write, chunk, 0, BLOCKS);
    let status = loop {
        let leader = cluster.leader().await;
        let asked = leader.group.block_status(&head);
        if let Ok(status) = asked.await {
            break status;
        }
    };
    assert_eq!(status, disk.holds_data(chunk));
}

#[test]
fn contents_survive_overwrites_a_checkpoint_and_reopening() {
    run(async {
        let cluster = Cluster::of_three().await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        disk.write(0, 0, 64, 1000).await;
        disk.write(1, 10, 20, 2000).await;
        disk.write(0, 8, 8, 3000).await;
        cluster.settle().await;
        cluster.checkpoint().await;
        for node in cluster.nodes() {
            assert_eq!(node.group.overlay_blocks(), 0, "all of it is in the store");
            let metrics = node.keeper.metrics();
            assert!(
                metrics.checkpoints > 0 && metrics.blocks_written > 0,
                "{metrics:?}"
            );
        }
        disk.check().await;
        disk.write(0, 12, 16, 4000).await;
        disk.zero(CommandKind::Discard, 1, 12, 4).await;
        disk.check().await;
        let digest = cluster.agreed_digest().await;
        for node in cluster.nodes() {
            let medium = cluster.stop(node.replica).await;
            cluster.restart(medium).await;
            disk.check().await;
        }
        assert_eq!(cluster.agreed_digest().await.chunks, digest.chunks);
    });
}

#[test]
fn a_whole_group_that_was_stopped_comes_back_with_its_contents() {
    run(async {
        let cluster = Cluster::of_three().await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        disk.write(0, 0, 32, 1000).await;
        cluster.settle().await;
        cluster.checkpoint().await;
        disk.write(0, 16, 32, 2000).await;
        let mut media = Vec::new();
        for node in cluster.nodes() {
            media.push(cluster.stop(node.replica).await);
        }
        for medium in media {
            cluster.restart(medium).await;
        }
        disk.check().await;
        disk.write(0, 20, 2, 3000).await;
        disk.check().await;
        cluster.agreed_digest().await;
    });
}

#[test]
fn a_discarded_block_reads_as_zeros_and_is_said_to_hold_nothing() {
    run(async {
        let cluster = Cluster::of_three().await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        disk.write(0, 0, 40, 1000).await;
        check_status(&cluster, &disk, 0).await;
        disk.zero(CommandKind::Discard, 0, 4, 8).await;
        disk.zero(CommandKind::WriteZeroes, 0, 20, 8).await;
        disk.check().await;
        check_status(&cluster, &disk, 0).await;
        cluster.settle().await;
        cluster.checkpoint().await;
        disk.check().await;
        check_status(&cluster, &disk, 0).await;
        disk.zero(CommandKind::Discard, 0, 0, 40).await;
        disk.write(0, 6, 1, 2000).await;
        disk.check().await;
        check_status(&cluster, &disk, 0).await;
        cluster.settle().await;
        cluster.checkpoint().await;
        disk.check().await;
        check_status(&cluster, &disk, 0).await;
    });
}

async fn one_of_many(disk: &Disk, dice: &mut Dice, tag: u64) {
    let chunk = u32::try_from(dice.below(2)).expect("small");
    let first = dice.below(BLOCKS);
    let count = 1 + dice.below((BLOCKS - first).min(24));
    let zero = match dice.below(8) {
        0 => CommandKind::Discard,
        1 => CommandKind::WriteZeroes,
        _ => return disk.write(chunk, first, count, tag).await,
    };
    disk.zero(zero, chunk, first, count).await;
}

#[test]
fn random_requests_leave_what_they_should_on_every_replica() {
    run(async {
        let cluster = Cluster::of_three().await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        let mut dice = Dice::new(20);
        for step in 1..=240u64 {
            one_of_many(&disk, &mut dice, step * 1000).await;
            if dice.below(12) == 0 {
                // Beside the requests: write-back must not get into their way.
                let node = cluster.nodes().swap_remove(dice.below(3));
                drop(ogee_runtime::spawn(async move {
                    assert!(node.keeper.checkpoint_now().await);
                }));
            }
            if step % 60 == 0 {
                disk.check().await;
                cluster.agreed_digest().await;
            }
        }
        for chunk in disk.chunks() {
            check_status(&cluster, &disk, chunk).await;
        }
    });
}

#[test]
fn a_removed_volume_gives_its_chunks_back_on_every_replica() {
    run(async {
        let cluster = Cluster::of_three().await;
        let stays = Disk::attach(&cluster, 1, 1).await;
        stays.write(0, 0, 32, 1000).await;
        cluster.settle().await;
        cluster.checkpoint().await;
        let used: Vec<_> = cluster
            .nodes()
            .iter()
            .map(|node| node.store.used())
            .collect();

        let goes = Disk::attach(&cluster, 2, 1).await;
        goes.write(0, 0, 64, 2000).await;
        goes.write(5, 0, 64, 3000).await;
        cluster.settle().await;
        cluster.checkpoint().await;
        // Some of it in the store, some in the log only.
        goes.write(6, 0, 8, 4000).await;
        cluster.remove_volume(goes.volume).await;
        cluster.settle().await;
        cluster.checkpoint().await;
        for (node, used) in cluster.nodes().iter().zip(used) {
            assert!(node.group.has_removed(goes.volume));
            assert_eq!(node.store.used(), used, "{}", node.replica);
        }
        stays.check().await;
        let digest = cluster.agreed_digest().await;
        assert!(
            digest
                .chunks
                .iter()
                .all(|chunk| chunk.key.volume == stays.volume)
        );
        let late = goes.next_write(0, 0, 1, 1);
        let status = cluster.mutate(&late).await;
        assert_eq!(
            status,
            ogee_proto::wire::Status::Fenced,
            "whoever still uses it is fenced"
        );
    });
}
