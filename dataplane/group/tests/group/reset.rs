//! A group whose majority is gone goes on with one replica, and the others stay out when they come back.

use crate::common::{COPYSET, Cluster, Disk, Medium, Node, pause, run, until};
use ogee_device::Survivors;
use ogee_group::{CommandKind, Group};
use ogee_proto::id::ReplicaId;
use std::rc::Rc;
use std::time::Duration;

/// What replica 1 is called when it goes on alone.
const ALONE: ReplicaId = ReplicaId::new(4);

/// As a shard does it, and what is left of the node.
async fn go_on_alone(cluster: &Cluster, replica: ReplicaId) -> Medium {
    let node = cluster.node(replica);
    node.keeper.remove(COPYSET);
    let reset = node.group.reset(ALONE, cluster.member(ALONE)).await;
    reset.expect("nothing is damaged");
    let mut medium = cluster.stop(replica).await;
    medium.replica = ALONE;
    medium
}

/// Three replicas with data, part of it only in the log, and then replica 1 without the others.
async fn bereft(volume: u64) -> (Rc<Cluster>, Disk, Vec<Medium>) {
    let cluster = Cluster::of_three().await;
    let disk = Disk::attach(&cluster, volume, 1).await;
    for step in 0..20 {
        disk.write(0, step, 8, step as u64 * 100 + 1).await;
    }
    cluster.settle().await;
    cluster.checkpoint().await;
    disk.write(0, 3, 40, 9000).await;
    disk.zero(CommandKind::Discard, 0, 60, 4).await;
    cluster.settle().await;
    let mut gone = Vec::new();
    for replica in [2, 3].map(ReplicaId::new) {
        gone.push(cluster.crash(replica, Survivors::All).await);
    }
    (cluster, disk, gone)
}

async fn leads_alone(node: &Node) {
    until(|| node.leads() && node.group.voters() == [ALONE]).await;
}

#[test]
fn one_replica_goes_on_alone_with_all_that_it_has_and_is_joined_by_others() {
    run(async {
        let (cluster, disk, _gone) = bereft(1).await;
        let medium = go_on_alone(&cluster, ReplicaId::new(1)).await;
        let alone = cluster.restart(medium).await;
        leads_alone(&alone).await;
        // Its sessions are as they were: the same user goes on under the same seal.
        disk.check().await;
        disk.write(0, 7, 30, 70_000).await;
        for new in [5, 6].map(ReplicaId::new) {
            cluster.add(new).await;
            let voters: Vec<ReplicaId> = (4..=new.get()).map(ReplicaId::new).collect();
            cluster.change_members(&voters).await;
            disk.write(0, 1, 2, 80_000 + new.get()).await;
        }
        cluster.settle().await;
        assert_eq!(cluster.agreed_digest().await.chunks.len(), 1);
        disk.check().await;
        // And any of them alone is as good.
        cluster.transfer_to(ReplicaId::new(6)).await;
        disk.check().await;
        cluster.end().await;
    });
}

#[test]
fn an_old_majority_that_comes_back_neither_leads_the_survivor_nor_changes_it() {
    run(async {
        let (cluster, disk, gone) = bereft(1).await;
        let medium = go_on_alone(&cluster, ReplicaId::new(1)).await;
        let alone = cluster.restart(medium).await;
        leads_alone(&alone).await;
        disk.write(0, 0, 20, 70_000).await;
        let before = alone.group.report();
        let mut old = Vec::new();
        for medium in gone {
            old.push(cluster.restart(medium).await);
        }
        // They are a majority of the group that they know, and elect one of them; in a later term than the survivor's,
        // if they are given the time.
        until(|| old.iter().any(|node| node.leads())).await;
        let leader = old.iter().find(|node| node.leads()).expect("one of them");
        let lost = disk.next_write(0, 0, 20, 99_000);
        let taken = leader.mutate(lost).await;
        tracing::info!(?taken, "what the old group takes is not the survivor's");
        for _ in 0..200 {
            pause().await;
        }
        let after = alone.group.report();
        assert!(after.is_leader && after.term == before.term, "{after:?}");
        assert_eq!(after.last_log, before.last_log, "nothing came into its log");
        assert_eq!(alone.group.voters(), [ALONE]);
        // The old ones are deleted, as the metadata server has it done, and the data is the survivor's.
        for node in old {
            drop(cluster.stop(node.replica).await);
        }
        disk.check().await;
        cluster.end().await;
    });
}

#[test]
fn power_that_fails_in_the_middle_leaves_the_old_replica_or_the_new_one() {
    run(async {
        let (cluster, disk, _gone) = bereft(1).await;
        let whole = cluster.stop(ReplicaId::new(1)).await;
        let mut seen = [0, 0];
        for micros in (0..40u64).map(|n| n * n * 8) {
            let node = cluster.restart(whole.copy()).await;
            node.keeper.remove(COPYSET);
            let (group, member) = (node.group.clone(), cluster.member(ALONE));
            let reset = ogee_runtime::spawn(async move { group.reset(ALONE, member).await });
            ogee_runtime::sleep(Duration::from_micros(micros)).await;
            let medium = cluster.crash(node.replica, Survivors::None).await;
            // It works on with a device that is not looked at any more.
            drop(reset);
            let (store, _log) = medium.open().await;
            let found = Group::find(&store, COPYSET).expect("readable");
            let is_new = found == Some(ALONE);
            assert!(is_new || found == Some(ReplicaId::new(1)), "{found:?}");
            drop((store, _log));
            seen[usize::from(is_new)] += 1;
            let mut medium = medium;
            if !is_new {
                // The order comes again.
                cluster.restart(medium).await;
                medium = go_on_alone(&cluster, ReplicaId::new(1)).await;
            }
            medium.replica = ALONE;
            let alone = cluster.restart(medium).await;
            leads_alone(&alone).await;
            disk.check().await;
            drop(cluster.stop(ALONE).await);
        }
        assert!(seen[0] > 0, "it was never cut short: {seen:?}");
    });
}

#[test]
fn a_group_that_is_led_says_so() {
    run(async {
        let cluster = Cluster::of_three().await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        disk.write(0, 0, 1, 1).await;
        until(|| cluster.nodes().iter().all(|node| node.group.is_led())).await;
        let leader = cluster.leader().await.replica;
        let others = cluster.followers().await;
        for node in &others[1..] {
            drop(cluster.crash(node.replica, Survivors::All).await);
        }
        drop(cluster.crash(leader, Survivors::All).await);
        until(|| !others[0].group.is_led()).await;
    });
}
