//! What a client is told: by leaders, by followers, before and after seals, and when it asks twice.

use crate::common::{Cluster, Disk, run, until};
use ogee_group::{CommandKind, Outcome, command};
use ogee_proto::wire::Status;
use ogee_runtime::Payload;

#[test]
fn what_was_written_is_read_and_followers_name_the_leader() {
    run(async {
        let cluster = Cluster::of_three().await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        disk.write(0, 3, 4, 100).await;
        disk.check().await;
        let leader = cluster.leader().await.replica;
        for follower in cluster.followers().await {
            until(|| follower.group.report().leader == Some(leader)).await;
            let elsewhere = Outcome {
                status: Status::NotLeader,
                hint: Some(leader),
            };
            let write = disk.next_write(0, 3, 4, 200);
            assert_eq!(follower.mutate(write).await, elsewhere);
            let head = disk.head(CommandKind::Write, 0, 3, 4);
            assert_eq!(follower.group.read(&head).await.err(), Some(elsewhere));
        }
        disk.check().await;
    });
}

#[test]
fn who_has_not_sealed_waits_and_who_is_superseded_is_fenced() {
    run(async {
        let cluster = Cluster::of_three().await;
        let early = Disk::unsealed(&cluster, 1, 1);
        let write = early.next_write(0, 0, 1, 1);
        assert_eq!(cluster.mutate(&write).await, Status::NotSealed);

        let old = Disk::attach(&cluster, 1, 1).await;
        old.write(0, 0, 2, 10).await;
        old.check().await;
        let new = Disk::attach(&cluster, 1, 2).await;
        let late = old.next_write(0, 0, 2, 20);
        assert_eq!(cluster.mutate(&late).await, Status::Fenced);
        let head = old.head(CommandKind::Write, 0, 0, 2);
        assert_eq!(cluster.read(&head).await, Err(Status::Fenced));
        let seal = command(old.head(CommandKind::Seal, 0, 0, 0), Payload::empty(), 0);
        assert_eq!(cluster.mutate(&seal).await, Status::Fenced);

        new.expect(0, 0, vec![10, 11]);
        new.check().await;
        new.write(0, 1, 1, 30).await;
        new.check().await;
    });
}

#[test]
fn malformed_requests_are_refused_and_change_nothing() {
    run(async {
        let cluster = Cluster::of_three().await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        disk.write(0, 0, 1, 1).await;
        let before = cluster.leader().await.group.report().last_log;
        let mut past = disk.next_write(0, 0, 2, 50);
        past.head.offset = 16 << 20;
        assert_eq!(cluster.mutate(&past).await, Status::BadRequest);
        let mut ragged = disk.next_write(0, 0, 2, 50);
        ragged.head.offset = 512;
        assert_eq!(cluster.mutate(&ragged).await, Status::BadRequest);
        let mut long = disk.next_write(0, 0, 2, 50);
        long.head.length = 3 * 4096;
        assert_eq!(cluster.mutate(&long).await, Status::BadRequest);
        disk.check().await;
        let after = cluster.leader().await.group.report().last_log;
        assert!(after <= before + 1, "only what apply must judge is logged");
    });
}

#[test]
fn a_sequence_proposed_again_takes_effect_once_whoever_leads() {
    run(async {
        let cluster = Cluster::of_three().await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        let first = disk.next_write(0, 5, 1, 111);
        let mut second = disk.next_write(0, 5, 1, 222);
        // The user has not been told of the first, so its result must be kept.
        second.head.watermark = first.head.watermark;
        assert_eq!(cluster.mutate(&first).await, Status::Ok);
        assert_eq!(cluster.mutate(&second).await, Status::Ok);
        disk.expect(0, 5, vec![222]);
        assert_eq!(
            cluster.mutate(&first).await,
            Status::Ok,
            "again, at the same leader"
        );
        disk.check().await;

        let old = cluster.leader().await.replica;
        let medium = cluster.stop(old).await;
        assert_ne!(cluster.leader().await.replica, old);
        assert_eq!(
            cluster.mutate(&first).await,
            Status::Ok,
            "again, at another leader"
        );
        disk.check().await;

        cluster.restart(medium).await;
        cluster.settle().await;
        cluster.checkpoint().await;
        let restarted = cluster.followers().await[0].replica;
        let medium = cluster.stop(restarted).await;
        cluster.restart(medium).await;
        cluster.transfer_to(restarted).await;
        assert_eq!(
            cluster.mutate(&first).await,
            Status::Ok,
            "again, after a checkpoint"
        );
        disk.check().await;

        let third = disk.next_write(0, 6, 1, 333);
        assert_eq!(cluster.mutate(&third).await, Status::Ok);
        disk.expect(0, 6, vec![333]);
        assert_eq!(
            cluster.mutate(&first).await,
            Status::Stale,
            "after its acknowledgement"
        );
        disk.check().await;
    });
}
