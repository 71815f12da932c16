//! A leader whose process is gone: it is followed when its lease is over, without a further timeout.

use crate::common::{Cluster, Disk, QUICK, pause, run};
use ogee_device::Survivors;
use ogee_group::{CommandKind, GroupConfig};
use ogee_proto::wire::Status;
use ogee_runtime::now;
use std::time::Duration;

/// openraft alone would wait for a lease and as long again.
const SLOW: GroupConfig = GroupConfig {
    election_min: Duration::from_millis(2000),
    election_max: Duration::from_millis(2010),
    ..QUICK
};

#[test]
fn a_dead_leader_is_followed_when_its_lease_is_over() {
    run(async {
        let cluster = Cluster::with_times(SLOW).await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        disk.write(0, 0, 1, 1).await;
        let old = cluster.leader().await;
        let (began, first) = (now(), old.group.report().term.get());
        drop(cluster.crash(old.replica, Survivors::All).await);
        let took = loop {
            let mut nodes = cluster.nodes().into_iter();
            if nodes.any(|node| node.replica != old.replica && node.leads()) {
                break now() - began;
            }
            pause().await;
        };
        println!("followed after {took:?}");
        assert!(took < SLOW.election_max + SLOW.election_min, "{took:?}");
        // Nobody broke a promise for it, and one attempt was enough.
        assert!(took > SLOW.election_max - SLOW.heartbeat * 3, "{took:?}");
        let new = cluster.leader().await.group.report().term.get();
        assert_eq!(new, first + 1, "one election");
        disk.write(0, 0, 1, 2).await;
        disk.check().await;
        cluster.end().await;
    });
}

/// One that is silent may live, and be heard by others: it is waited for as ever.
#[test]
fn a_silent_leader_is_waited_for_as_ever() {
    run(async {
        let cluster = Cluster::with_times(SLOW).await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        disk.write(0, 0, 1, 1).await;
        let old = cluster.leader().await;
        let began = now();
        old.cut_off();
        let took = loop {
            let mut nodes = cluster.nodes().into_iter();
            if nodes.any(|node| node.replica != old.replica && node.leads()) {
                break now() - began;
            }
            pause().await;
        };
        println!("followed after {took:?}");
        assert!(
            took > SLOW.election_max + SLOW.election_min - SLOW.heartbeat * 3,
            "{took:?}"
        );
        cluster.end().await;
    });
}

/// Whom nobody answers any more does not keep a writer for longer than the others need to follow it: its
/// client, which still reaches it, finds the new leader.
#[test]
fn a_leader_that_nobody_answers_sends_writers_away() {
    run(async {
        let cluster = Cluster::with_times(QUICK).await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        disk.write(0, 0, 1, 1).await;
        let old = cluster.leader().await;
        old.cut_off();
        let began = now();
        // Its own word: what the network makes of it is another matter.
        let outcome = old.group.mutate(disk.next_write(0, 0, 1, 2)).await;
        let took = now() - began;
        assert_eq!((outcome.status, outcome.hint), (Status::NotLeader, None));
        assert!(took < 4 * QUICK.election_max, "{took:?}");
        assert!(
            took >= QUICK.election_max,
            "it may be heard again: {took:?}"
        );
        let head = disk.head(CommandKind::Write, 0, 0, 1);
        let began = now();
        let refused = old.group.read(&head).await.err();
        assert_eq!(
            refused.map(|refused| refused.status),
            Some(Status::NotLeader)
        );
        let took = now() - began;
        assert!(took < QUICK.election_max, "it knows by now: {took:?}");
        old.reconnect();
        disk.write(0, 0, 1, 3).await;
        disk.check().await;
        cluster.end().await;
    });
}
