//! Groups without requests: silent, and as safe and as quick to recover as others.

use crate::common::{Cluster, Disk, Node, QUICK, pause, run, until};
use ogee_device::Survivors;
use ogee_group::{CommandKind, Compared, GroupConfig, Place};
use ogee_proto::wire::{FrameKind, Status};
use ogee_runtime::{now, sleep, timeout};
use std::rc::Rc;
use std::time::Duration;

const DROWSY: GroupConfig = GroupConfig {
    quiet_after: Duration::from_millis(200),
    ..QUICK
};
/// Looks of these groups' watches, DROWSY's `election_min` by five.
const LOOK: Duration = Duration::from_millis(30);
/// A lease, the longest election timeout and a tick, and several elections' worth of a slow machine.
const FAILOVER: Duration = Duration::from_millis(5 * (300 + 300 + 30));

async fn until_quiet(cluster: &Cluster) {
    until(|| {
        cluster
            .nodes()
            .iter()
            .all(|node| node.group.report().is_quiet)
    })
    .await;
}

/// A quiet group with one block written, and its leader.
async fn quiet_group() -> (Rc<Cluster>, Rc<Disk>, Rc<Node>) {
    let cluster = Cluster::with_times(DROWSY).await;
    let disk = Rc::new(Disk::attach(&cluster, 1, 1).await);
    disk.write(0, 0, 1, 1).await;
    until_quiet(&cluster).await;
    let leader = cluster.leader().await;
    (cluster, disk, leader)
}

/// Somebody else than `old` who leads.
async fn successor(cluster: &Cluster, old: &Node) -> Rc<Node> {
    loop {
        let mut nodes = cluster.nodes().into_iter();
        if let Some(new) = nodes.find(|node| node.replica != old.replica && node.leads()) {
            return new;
        }
        pause().await;
    }
}

#[test]
fn an_idle_group_sends_nothing_but_one_beat_per_peer_and_two_looks() {
    run(async {
        let (cluster, _disk, leader) = quiet_group().await;
        let term = leader.group.report().term;
        // What was on its way when the last of them fell silent.
        sleep(4 * LOOK).await;
        let kinds = [FrameKind::AppendEntries, FrameKind::Vote, FrameKind::Beat];
        let before = kinds.map(|kind| cluster.heard(kind));
        let (began, looks) = (now(), 40);
        sleep(looks * LOOK).await;
        let after = kinds.map(|kind| cluster.heard(kind));
        let [appends, votes, beats] = std::array::from_fn(|at| after[at] - before[at]);
        let took = now() - began;
        assert_eq!((appends, votes), (0, 0), "in {took:?}");
        let most = 2 * (took.as_millis() / (2 * LOOK).as_millis() + 2);
        assert!(
            beats >= 2 && u128::from(beats) <= most,
            "{beats} in {took:?}"
        );
        assert_eq!(cluster.leader().await.replica, leader.replica);
        assert_eq!(leader.group.report().term, term);
        cluster.end().await;
    });
}

/// Nobody has asked for anything: what is compared is no load, and the group is quiet again after it.
#[test]
fn a_comparison_of_a_quiet_group_counts_for_nothing() {
    run(async {
        let (cluster, _disk, leader) = quiet_group().await;
        let before = leader.group.report();
        for _ in 0..3 {
            while !matches!(
                leader.group.compare(Place::default()).await,
                Compared::Done { .. }
            ) {
                pause().await;
            }
            until_quiet(&cluster).await;
        }
        let after = leader.group.report();
        assert!(after.last_log >= before.last_log + 3, "it was compared");
        assert_eq!(
            (after.requests, after.bytes),
            (before.requests, before.bytes)
        );
        assert_eq!(after.term, before.term);
        cluster.end().await;
    });
}

#[test]
fn a_busy_group_is_not_quiet_and_one_told_never_is_not_either() {
    run(async {
        let cluster = Cluster::with_times(DROWSY).await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        let never = Cluster::of_three().await;
        let began = now();
        let mut tag = 0;
        while now() - began < 5 * DROWSY.quiet_after {
            tag += 1;
            disk.write(0, 0, 1, tag).await;
            assert!(!cluster.leader().await.group.report().is_quiet);
        }
        for node in never.nodes() {
            assert!(!node.group.report().is_quiet);
        }
        never.end().await;
        cluster.end().await;
    });
}

#[test]
fn a_group_with_a_member_that_is_gone_stays_awake() {
    run(async {
        let cluster = Cluster::with_times(DROWSY).await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        let leader = cluster.leader().await;
        // It has every entry, and only its agreement is missing.
        loop {
            disk.write(0, 0, 1, 1).await;
            cluster.settle().await;
            pause().await;
            if !leader.group.report().is_quiet {
                break;
            }
        }
        cluster.followers().await[0].cut_off();
        let began = now();
        while now() - began < 5 * DROWSY.quiet_after {
            assert!(!leader.group.report().is_quiet);
            pause().await;
        }
        disk.check().await;
        cluster.end().await;
    });
}

#[test]
fn the_first_request_wakes_it_and_it_goes_quiet_again() {
    run(async {
        let (cluster, disk, leader) = quiet_group().await;
        let term = leader.group.report().term;
        for tag in 2..5 {
            let began = now();
            let write = disk.next_write(0, 0, 1, tag);
            assert_eq!(leader.mutate(write).await.status, Status::Ok);
            println!("first write to a quiet group: {:?}", now() - began);
            disk.expect(0, 0, vec![tag]);
            let nodes = cluster.nodes().into_iter();
            let awake = nodes.filter(|node| !node.group.report().is_quiet);
            assert!(awake.count() >= 2, "who acknowledged it is awake");
            until_quiet(&cluster).await;
            let began = now();
            let head = disk.head(CommandKind::Write, 0, 0, 1);
            assert!(leader.group.read(&head).await.is_ok());
            println!("first read of a quiet group: {:?}", now() - began);
            assert!(!leader.group.report().is_quiet);
            disk.check().await;
            until_quiet(&cluster).await;
        }
        assert_eq!(leader.group.report().term, term, "nobody had to stand");
        cluster.end().await;
    });
}

#[test]
fn a_quiet_group_whose_leader_dies_elects_another_in_time() {
    run(async {
        let (cluster, disk, leader) = quiet_group().await;
        let began = now();
        drop(cluster.crash(leader.replica, Survivors::All).await);
        let elected = timeout(FAILOVER, cluster.leader()).await;
        println!("failover of a quiet group: {:?}", now() - began);
        assert!(elected.is_ok(), "nobody leads after {FAILOVER:?}");
        disk.write(0, 1, 1, 7).await;
        disk.check().await;
        cluster.end().await;
    });
}

#[test]
fn a_leader_out_of_service_on_a_living_node_is_missed_too() {
    run(async {
        let (cluster, disk, leader) = quiet_group().await;
        leader.group.shutdown().await;
        let elected = timeout(FAILOVER, successor(&cluster, &leader)).await;
        assert!(elected.is_ok(), "nobody leads after {FAILOVER:?}");
        disk.write(0, 1, 1, 7).await;
        disk.check().await;
        cluster.end().await;
    });
}

#[test]
fn a_quiet_leader_that_is_cut_off_serves_nothing_and_follows_in_the_end() {
    run(async {
        let (cluster, disk, old) = quiet_group().await;
        old.cut_off();
        let new = successor(&cluster, &old).await;
        assert!(old.leads(), "it cannot know");
        let write = disk.next_write(0, 0, 1, 2);
        while new.mutate(write.clone()).await.status != Status::Ok {
            pause().await;
        }
        disk.expect(0, 0, vec![2]);
        let head = disk.head(CommandKind::Write, 0, 0, 1);
        let read = timeout(2 * FAILOVER, old.group.read(&head)).await;
        assert!(!matches!(read, Ok(Ok(_))), "a stale read");
        old.reconnect();
        until(|| !old.leads()).await;
        disk.check().await;
        until_quiet(&cluster).await;
        let leading = cluster.nodes().iter().filter(|node| node.leads()).count();
        assert_eq!(leading, 1);
        cluster.end().await;
    });
}

/// A quiet leader that hears nothing learns from the answers to its beats that it is deposed.
#[test]
fn beats_of_a_deposed_leader_are_refused() {
    run(async {
        let (cluster, disk, old) = quiet_group().await;
        old.cut_off();
        successor(&cluster, &old).await;
        assert!(old.leads() && old.group.report().is_quiet);
        old.reconnect();
        old.deafen();
        until(|| !old.leads()).await;
        old.reconnect();
        until_quiet(&cluster).await;
        disk.check().await;
        cluster.end().await;
    });
}

#[test]
fn one_that_hears_no_beats_does_not_depose_a_leader_whom_the_other_hears() {
    run(async {
        let (cluster, disk, leader) = quiet_group().await;
        let term = leader.group.report().term;
        let deaf = cluster.followers().await[0].clone();
        deaf.deafen();
        let votes = cluster.heard(FrameKind::Vote);
        until(|| cluster.heard(FrameKind::Vote) > votes + 3).await;
        assert_eq!(leader.group.report().term, term);
        assert!(leader.leads());
        deaf.reconnect();
        until_quiet(&cluster).await;
        assert_eq!(leader.group.report().term, term);
        disk.check().await;
        cluster.end().await;
    });
}

#[test]
fn a_follower_that_restarts_joins_the_quiet_without_an_election() {
    run(async {
        let (cluster, disk, leader) = quiet_group().await;
        let term = leader.group.report().term;
        for node in cluster.followers().await {
            let medium = cluster.crash(node.replica, Survivors::All).await;
            let back = cluster.restart(medium).await;
            until(|| back.group.report().is_quiet).await;
            until_quiet(&cluster).await;
        }
        assert_eq!(leader.group.report().term, term);
        assert!(leader.leads());
        disk.check().await;
        cluster.end().await;
    });
}

#[test]
fn leadership_of_a_quiet_group_can_be_handed_over_at_once() {
    run(async {
        let (cluster, disk, leader) = quiet_group().await;
        let heir = cluster.followers().await[0].clone();
        // Its last word would not do: for all the leader knows, it may be gone.
        sleep(2 * DROWSY.election_min).await;
        let led = timeout(FAILOVER, async {
            while !leader
                .group
                .transfer_leader(heir.replica)
                .await
                .expect("runs")
            {
                pause().await;
            }
            until(|| heir.leads()).await;
        });
        assert!(led.await.is_ok());
        disk.check().await;
        until_quiet(&cluster).await;
        cluster.end().await;
    });
}
