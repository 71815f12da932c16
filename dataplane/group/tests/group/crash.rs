//! Power loss at any moment.

use crate::common::{COPYSET, Cluster, Dice, Disk, Node, block_bytes, pause, run, until};
use ogee_device::{FaultRule, Operation, Survivors};
use ogee_group::{CommandKind, GroupError};
use ogee_proto::id::ReplicaId;
use ogee_proto::wire::Status;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

const WRITERS: u64 = 3;
const WRITES: u64 = 40;

/// Overwrites its own volume, one request after the other; all of them are acknowledged in the end.
async fn write_on(disk: &Disk, seed: u64, done: &Cell<u64>) {
    let mut dice = Dice::new(seed);
    for step in 1..=WRITES {
        let (first, count) = (dice.below(96), 1 + dice.below(16));
        if dice.below(6) == 0 {
            disk.zero(CommandKind::Discard, 0, first, count).await;
        } else {
            disk.write(0, first, count, seed * 1_000_000 + step * 1000)
                .await;
        }
        done.set(done.get() + 1);
    }
}

/// Writes and checkpoints, the crash of one node in the middle, its return, and the proof that it
/// has everything: it leads, and all agree.
async fn crash_one(seed: u64, crash_leader: bool) {
    let cluster = Cluster::of_three().await;
    let done = Rc::new(Cell::new(0));
    let mut disks = Vec::new();
    let mut writers = Vec::new();
    for volume in 1..=WRITERS {
        let disk = Rc::new(Disk::attach(&cluster, volume, 1).await);
        disks.push(disk.clone());
        let done = done.clone();
        writers.push(ogee_runtime::spawn(async move {
            write_on(&disk, seed * 10 + volume, &done).await;
        }));
    }
    let mut dice = Dice::new(seed);
    let moment = 10 + dice.below(80) as u64;
    while done.get() < moment {
        if dice.below(10) == 0 {
            let keeper = cluster.nodes().swap_remove(dice.below(3)).keeper.clone();
            drop(ogee_runtime::spawn(
                async move { keeper.checkpoint_now().await },
            ));
        }
        pause().await;
    }
    let victim = if crash_leader {
        cluster.leader().await.replica
    } else {
        cluster.followers().await[dice.below(2)].replica
    };
    let medium = cluster.crash(victim, Survivors::Seeded(seed)).await;
    cluster.restart(medium).await;
    for writer in writers {
        writer.await.expect("the writer ends");
    }
    cluster.transfer_to(victim).await;
    for disk in &disks {
        disk.check().await;
    }
    cluster.agreed_digest().await;
    cluster.end().await;
}

#[test]
fn acknowledged_writes_survive_the_power_loss_of_a_follower() {
    run(async {
        for seed in [1, 2, 3] {
            crash_one(seed, false).await;
        }
    });
}

#[test]
fn acknowledged_writes_survive_the_power_loss_of_the_leader() {
    run(async {
        for seed in [11, 12, 13] {
            crash_one(seed, true).await;
        }
    });
}

#[test]
fn acknowledged_writes_survive_the_power_loss_of_all() {
    run(async {
        for seed in [21, 22] {
            let cluster = Cluster::of_three().await;
            let disk = Disk::attach(&cluster, 1, 1).await;
            let mut dice = Dice::new(seed);
            for round in 1..=3u64 {
                for step in 1..=10u64 {
                    let tag = round * 1_000_000 + step * 1000;
                    disk.write(0, dice.below(96), 1 + dice.below(16), tag).await;
                }
                let node = cluster.nodes().swap_remove(dice.below(3));
                assert!(node.keeper.checkpoint_now().await);
                disk.write(0, dice.below(96), 8, round * 1_000_000).await;
                let mut media = Vec::new();
                for node in cluster.nodes() {
                    let survivors = Survivors::Seeded(seed * 100 + round);
                    media.push(cluster.crash(node.replica, survivors).await);
                }
                for medium in media {
                    cluster.restart(medium).await;
                }
                disk.check().await;
                cluster.agreed_digest().await;
            }
            cluster.end().await;
        }
    });
}

/// Its followers may have committed what its own log had not flushed yet. If it led on in its old
/// term, it would give the indexes of those entries to others, and nobody could tell.
#[test]
fn a_leader_that_lost_what_it_had_not_flushed_does_not_lead_on_in_its_term() {
    run(async {
        let cluster = Cluster::of_three().await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        disk.write(0, 0, 1, 1).await;
        cluster.settle().await;
        let leader = cluster.leader().await;
        let (victim, term) = (leader.replica, leader.group.report().term);
        let never = FaultRule::delay(Operation::WriteDurable, Duration::from_secs(3600));
        leader.faults.add(never);
        let write = disk.next_write(0, 0, 1, 2);
        assert_eq!(
            leader.mutate(write).await.status,
            Status::Ok,
            "two followers hold it"
        );
        disk.expect(0, 0, vec![2]);
        let medium = cluster.crash(victim, Survivors::None).await;
        drop(leader);
        let back = cluster.restart(medium).await;
        let report = back.group.report();
        assert!(!(report.is_leader && report.term == term), "{report:?}");
        disk.write(0, 1, 1, 3).await;
        disk.check().await;
        cluster.settle().await;
        for node in cluster.nodes() {
            cluster.transfer_to(node.replica).await;
            disk.check().await;
        }
        cluster.agreed_digest().await;
    });
}

#[test]
fn a_replica_whose_device_fails_stops_and_the_others_go_on() {
    run(async {
        let cluster = Cluster::of_three().await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        disk.write(0, 0, 4, 1).await;
        let leader = cluster.leader().await;
        let broken: ReplicaId = leader.replica;
        let eio = ogee_device::Failure::Eio;
        leader
            .faults
            .add(FaultRule::fail(Operation::WriteDurable, eio));
        disk.write(0, 2, 4, 100).await;
        disk.check().await;
        until(|| !leader.group.report().is_running).await;
        assert_ne!(cluster.leader().await.replica, broken);
        assert!(leader.log.failure().is_some());
        drop(leader);
        let medium = cluster.crash(broken, Survivors::None).await;
        cluster.restart(medium).await;
        cluster.transfer_to(broken).await;
        disk.check().await;
        cluster.agreed_digest().await;
    });
}

/// A device that forgets what it had reported as durable is the loss of that replica, not of its leader.
#[test]
fn a_follower_that_lost_acknowledged_entries_harms_nobody_else() {
    run(async {
        let cluster = Cluster::of_three().await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        disk.write(0, 0, 4, 100).await;
        cluster.settle().await;
        let leader = cluster.leader().await;
        let victim = cluster.followers().await[0].replica;
        let old = cluster.stop(victim).await.copy();
        // As it was then, but for a moment.
        cluster.restart(old.copy()).await;
        disk.write(0, 8, 4, 200).await;
        cluster.settle().await;
        drop(cluster.stop(victim).await);
        let back = cluster.restart(old).await;
        for tag in [300, 400, 500] {
            disk.write(0, 16, 4, tag).await;
        }
        disk.check().await;
        assert!(leader.leads(), "the leader goes on");
        assert!(back.group.report().applied < leader.group.report().applied);
        // Its place is taken by one under a new id.
        let others: Vec<ReplicaId> = cluster.nodes().iter().map(|node| node.replica).collect();
        drop(cluster.stop(victim).await);
        let fresh = ReplicaId::new(9);
        cluster.add(fresh).await;
        let members: Vec<ReplicaId> = others
            .into_iter()
            .map(|replica| if replica == victim { fresh } else { replica })
            .collect();
        cluster.change_members(&members).await;
        cluster.settle().await;
        disk.check().await;
        cluster.agreed_digest().await;
        cluster.end().await;
    });
}

/// Begins to write a node back; the checkpoint that would end it never comes.
fn begin_write_back(node: &Node) {
    let never = FaultRule::delay(Operation::Flush, Duration::from_secs(3600));
    node.faults.add(never);
    let keeper = node.keeper.clone();
    drop(ogee_runtime::spawn(
        async move { keeper.checkpoint_now().await },
    ));
}

/// The digest's entry is applied again over blocks that are newer than it, and that no checkpoint has
/// checksums of. That is no damage, and damage is still seen by the digests that come after.
#[test]
fn a_digest_that_is_applied_again_has_no_result() {
    run(async {
        let cluster = Cluster::of_three().await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        disk.write(0, 0, 8, 1000).await;
        cluster.settle().await;
        cluster.checkpoint().await;
        let victim = cluster.followers().await.swap_remove(0);
        let before = cluster.propose_digest().await;
        assert!(victim.group.digest(before).await.is_ok());
        disk.write(0, 0, 8, 2000).await;
        cluster.settle().await;
        begin_write_back(&victim);
        until(|| victim.keeper.metrics().blocks_written >= 16).await;
        let replica = victim.replica;
        let medium = cluster.crash(replica, Survivors::All).await;
        drop(victim);

        let back = cluster.restart(medium).await;
        let again = back.group.digest(before).await;
        let error = again.expect_err("its moment is gone");
        assert!(matches!(*error, GroupError::BeforeStart { .. }), "{error}");
        assert_eq!(back.store.counters().checksum_errors, 0);
        cluster.agreed_digest().await;
        disk.check().await;

        // The blocks are in the store now: what is wrong with one is damage.
        cluster.settle().await;
        cluster.checkpoint().await;
        let medium = cluster.stop(replica).await;
        assert!(medium.spoil_stored(&block_bytes(2003)).await > 0);
        drop(back);
        let back = cluster.restart(medium).await;
        let after = cluster.propose_digest().await;
        let damaged = back.group.digest(after).await;
        let error = damaged.expect_err("a block is damaged");
        assert!(matches!(*error, GroupError::Store { .. }), "{error}");
        cluster.end().await;
    });
}

/// What a majority holds is applied before it is durable here: were it in the store and not in the log,
/// a start could not tell it from damage.
#[test]
fn nothing_is_written_back_before_it_is_durable_here() {
    run(async {
        let cluster = Cluster::of_three().await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        disk.write(0, 0, 1, 1).await;
        cluster.settle().await;
        cluster.checkpoint().await;
        let leader = cluster.leader().await;
        let written = leader.keeper.metrics().blocks_written;
        let rule = FaultRule::delay(Operation::WriteDurable, Duration::from_secs(3600));
        leader.faults.add(rule);
        let write = disk.next_write(0, 0, 1, 2);
        assert_eq!(
            leader.mutate(write).await.status,
            Status::Ok,
            "two followers hold it"
        );
        begin_write_back(&leader);
        ogee_runtime::sleep(Duration::from_millis(300)).await;
        assert_eq!(leader.keeper.metrics().blocks_written, written);
        drop(cluster.crash(leader.replica, Survivors::None).await);
        cluster.end().await;
    });
}

/// A start applies again what its log says is committed. Had more been written back, and the last of it in
/// part, a leader that cannot commit yet would read that for the copy which a follower waits for.
#[test]
fn nothing_is_written_back_before_it_is_durable_that_it_is_committed() {
    run(async {
        let cluster = Cluster::of_three().await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        disk.write(0, 0, 1, 1).await;
        cluster.settle().await;
        cluster.checkpoint().await;
        let leader = cluster.leader().await;
        let (log, metrics) = (leader.log.group(COPYSET), leader.keeper.metrics());
        let written = metrics.blocks_written;
        let write = disk.next_write(0, 0, 1, 2);
        assert_eq!(leader.mutate(write).await.status, Status::Ok);
        let applied = Some(leader.group.report().applied);
        until(|| log.durable_state().last >= applied).await;
        // The entry is durable, and its being committed would be in some milliseconds.
        let rule = FaultRule::delay(Operation::WriteDurable, Duration::from_secs(3600));
        leader.faults.add(rule);
        begin_write_back(&leader);
        ogee_runtime::sleep(Duration::from_millis(300)).await;
        assert!(
            leader.keeper.metrics().blocks_written == written
                || log.durable_state().committed >= applied,
            "written back before {applied:?} is known to be committed"
        );
        drop(cluster.crash(leader.replica, Survivors::None).await);
        cluster.end().await;
    });
}
