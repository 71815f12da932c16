//! What a former user still sends, once another one has sealed the volume.
//!
//! 100 rounds of eight writes held back; OGEE_FULL=1: 1,000 rounds.

use crate::common::{Cluster, Dice, Disk, run_for};
use ogee_group::{Command, CommandKind};
use ogee_proto::id::Sequence;
use ogee_proto::wire::Status;
use ogee_runtime::{spawn, yield_now};
use std::rc::Rc;
use std::time::Duration;

/// Writes of an old user that are held back, and as many that race with the new seal.
const HELD: usize = 8;

fn rounds() -> u64 {
    match std::env::var_os("OGEE_FULL") {
        Some(_) => 1000,
        None => 100,
    }
}

/// Numbered writes of one block each that may arrive in any order.
fn writes(disk: &Disk, first: usize, tag: u64) -> Vec<Command> {
    let blocks = first..first + HELD;
    let mut writes: Vec<Command> = (tag..)
        .zip(blocks)
        .map(|(tag, block)| disk.next_write(0, block, 1, tag))
        .collect();
    let done = writes[0].head.watermark;
    for write in &mut writes {
        write.head.watermark = Sequence::new(done.get());
    }
    writes
}

#[test]
fn nothing_of_a_former_user_lands_after_a_new_attachment() {
    run_for(Duration::from_secs(rounds()), async {
        let cluster = Cluster::of_three().await;
        let mut dice = Dice::new(11);
        let mut raced = (0, 0);
        for round in 1..=rounds() {
            let tag = round * 100;
            let old = Disk::attach(&cluster, 1, 2 * round).await;
            old.write(0, 0, 1, tag).await;
            let held = writes(&old, 16, tag + 10);
            let racing = writes(&old, 32, tag + 30);
            let racing: Vec<_> = racing
                .into_iter()
                .map(|write| {
                    let cluster = Rc::clone(&cluster);
                    spawn(async move { cluster.mutate(&write).await })
                })
                .collect();
            for _ in 0..dice.below(3) {
                yield_now().await;
            }
            let new = Disk::attach(&cluster, 1, 2 * round + 1).await;
            let seen = contents(&cluster, &new).await;
            for (write, block) in racing.into_iter().zip(32..) {
                let landed = match write.await.expect("not cancelled") {
                    Status::Ok => true,
                    Status::Fenced => false,
                    other => panic!("a racing write ended with {}", other.text()),
                };
                raced = (raced.0 + u64::from(landed), raced.1 + u64::from(!landed));
                let tag = tag + 30 + (block - 32);
                assert_eq!(
                    seen[usize::try_from(block).expect("small")] == tag,
                    landed,
                    "block {block}"
                );
            }
            match dice.below(8) {
                0 => {
                    let follower = cluster.followers().await.remove(0);
                    cluster.transfer_to(follower.replica).await;
                }
                1 => {
                    // What was sealed is remembered across a checkpoint and a restart of all.
                    cluster.settle().await;
                    cluster.checkpoint().await;
                    for node in cluster.nodes() {
                        let medium = cluster.stop(node.replica).await;
                        cluster.restart(medium).await;
                    }
                }
                _ => {}
            }
            for write in &held {
                assert_eq!(cluster.mutate(write).await, Status::Fenced, "round {round}");
            }
            assert_eq!(contents(&cluster, &new).await, seen, "round {round}");
            new.write(0, 48, 1, tag + 50).await;
        }
        assert!(
            raced.0 > 0 && raced.1 > 0,
            "no race: {raced:?} in time and late"
        );
        cluster.agreed_digest().await;
        cluster.end().await;
    });
}

/// The tags of the chunk's first blocks.
async fn contents(cluster: &Cluster, disk: &Disk) -> Vec<u64> {
    let head = disk.head(CommandKind::Write, 0, 0, 48);
    let bytes = cluster.read(&head).await.expect("readable");
    let blocks = bytes.chunks_exact(4096);
    let tag = |block: &[u8]| u64::from_le_bytes(*block.first_chunk().expect("eight bytes"));
    blocks.map(tag).collect()
}
