//! Reads under a lease: none is ever stale, whatever befalls the promises behind it.

use crate::common::{Cluster, Disk, Node, QUICK, pause, run, until};
use ogee_device::Survivors;
use ogee_group::{CommandKind, GroupConfig, ReadRun};
use ogee_proto::wire::Status;
use ogee_runtime::{Instant, JoinHandle, now};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// A lease that outlasts restarts and handovers.
const LONG_LEASE: GroupConfig = GroupConfig {
    heartbeat: Duration::from_millis(100),
    election_min: Duration::from_millis(600),
    election_max: Duration::from_millis(3000),
    ..QUICK
};
/// Followers that promise a good deal less, and yet bear a machine that is busy.
const SHORT_PROMISE: GroupConfig = GroupConfig {
    election_max: Duration::from_millis(1200),
    ..LONG_LEASE
};
/// Longer than any lease of these groups.
const LEASE_AND_MORE: Duration = Duration::from_millis(3200);

/// Reads one block on one node, one read at a time, until told to stop.
struct Reading {
    /// When each read that was answered had begun, and what it found.
    seen: Rc<RefCell<Vec<(Instant, u64)>>>,
    stop: Rc<Cell<bool>>,
    task: JoinHandle<()>,
}

impl Reading {
    fn start(node: &Rc<Node>, disk: &Rc<Disk>) -> Self {
        let (seen, stop) = (Rc::default(), Rc::new(Cell::new(false)));
        let (node, disk) = (node.clone(), disk.clone());
        let (record, end) = (Rc::clone(&seen), stop.clone());
        let task = ogee_runtime::spawn(async move {
            let seen: Rc<RefCell<Vec<(Instant, u64)>>> = record;
            while !end.get() {
                let began = now();
                if let Some(tag) = read_once(&node, &disk).await {
                    seen.borrow_mut().push((began, tag));
                }
                ogee_runtime::sleep(Duration::from_millis(1)).await;
            }
        });
        Self { seen, stop, task }
    }

    /// No read that began after `acked` may have found less than `tag`.
    async fn end(self, acked: Instant, tag: u64) {
        self.stop.set(true);
        self.task.await.expect("the reader ends");
        for (began, found) in self.seen.borrow().iter() {
            let late = began.saturating_duration_since(acked);
            assert!(
                *began <= acked || *found >= tag,
                "read {found} {late:?} after {tag} was acknowledged"
            );
        }
    }

    fn answered_since(&self, moment: Instant) -> usize {
        let seen = self.seen.borrow();
        seen.iter().filter(|(began, _)| *began > moment).count()
    }
}

async fn read_once(node: &Node, disk: &Disk) -> Option<u64> {
    let head = disk.head(CommandKind::Write, 0, 0, 1);
    // A round to a majority that does not come is given up after a lease.
    let read = ogee_runtime::timeout(LEASE_AND_MORE, node.group.read(&head));
    match read.await {
        Ok(Ok(runs)) => match runs.first() {
            Some(ReadRun::Data(bytes)) => Some(u64::from_le_bytes(bytes[..8].try_into().ok()?)),
            _ => Some(0),
        },
        _ => None,
    }
}

/// Writes `tag` through anybody but `old`, as soon as somebody else leads; when it was acknowledged.
async fn write_elsewhere(cluster: &Cluster, old: &Node, disk: &Disk, tag: u64) -> Instant {
    let write = disk.next_write(0, 0, 1, tag);
    loop {
        let nodes = cluster.nodes();
        let new = nodes
            .iter()
            .find(|node| node.replica != old.replica && node.leads());
        if let Some(new) = new
            && new.mutate(write.clone()).await.status == Status::Ok
        {
            disk.expect(0, 0, vec![tag]);
            return now();
        }
        ogee_runtime::sleep(Duration::from_millis(1)).await;
    }
}

/// A leader that reads continuously under its lease, and the disk that is read.
async fn reading_leader(cluster: &Rc<Cluster>) -> (Rc<Node>, Rc<Disk>, Reading) {
    let disk = Rc::new(Disk::attach(cluster, 1, 1).await);
    disk.write(0, 0, 1, 1).await;
    let leader = cluster.leader().await;
    let reading = Reading::start(&leader, &disk);
    until(|| reading.answered_since(now() - Duration::from_millis(20)) > 3).await;
    (leader, disk, reading)
}

/// Overwrites what `old` reads through whoever leads next, and lets any lease of `old` run out.
async fn outlast_lease(cluster: &Cluster, old: &Node, disk: &Disk) -> Instant {
    let acked = write_elsewhere(cluster, old, disk, 2).await;
    ogee_runtime::sleep(LEASE_AND_MORE).await;
    acked
}

/// Nothing stale was read, and `old` comes back to a group that has lost nothing.
async fn conclude(cluster: &Cluster, old: &Node, disk: &Disk, reading: Reading, acked: Instant) {
    reading.end(acked, 2).await;
    old.reconnect();
    disk.check().await;
    cluster.end().await;
}

#[test]
fn a_leader_cut_off_serves_its_lease_and_then_nobody() {
    run(async {
        let cluster = Cluster::with_times(LONG_LEASE).await;
        let (old, disk, reading) = reading_leader(&cluster).await;
        let cut = now();
        old.cut_off();
        let acked = outlast_lease(&cluster, &old, &disk).await;
        assert!(
            reading.answered_since(cut) > 10,
            "a lease asks nobody: it outlives the connection"
        );
        conclude(&cluster, &old, &disk, reading, acked).await;
    });
}

#[test]
fn followers_that_restart_within_the_lease_do_not_vote_before_it_ends() {
    run(async {
        let cluster = Cluster::with_times(LONG_LEASE).await;
        let (old, disk, reading) = reading_leader(&cluster).await;
        old.cut_off();
        // What they promised the old leader is forgotten.
        for node in cluster.nodes() {
            if node.replica != old.replica {
                let medium = cluster.crash(node.replica, Survivors::All).await;
                cluster.restart(medium).await;
            }
        }
        let acked = outlast_lease(&cluster, &old, &disk).await;
        conclude(&cluster, &old, &disk, reading, acked).await;
    });
}

#[test]
fn a_handover_ends_the_lease_before_it_begins() {
    run(async {
        let cluster = Cluster::with_times(LONG_LEASE).await;
        let (old, disk, reading) = reading_leader(&cluster).await;
        let heir = cluster.followers().await[0].clone();
        // It will not hear of the election, and its promises from others are as fresh as can be.
        old.deafen();
        while !old.group.transfer_leader(heir.replica).await.expect("runs") {
            pause().await;
        }
        let acked = outlast_lease(&cluster, &old, &disk).await;
        conclude(&cluster, &old, &disk, reading, acked).await;
    });
}

#[test]
fn followers_that_promise_less_than_the_leader_counts_on_give_it_no_lease() {
    run(async {
        let cluster = Cluster::with_times(LONG_LEASE).await;
        let disk = Rc::new(Disk::attach(&cluster, 1, 1).await);
        disk.write(0, 0, 1, 1).await;
        let old = cluster.leader().await;
        // An operator lowers the election timeouts of one chunkserver after the other.
        cluster.set_times(SHORT_PROMISE);
        for node in cluster.followers().await {
            let medium = cluster.crash(node.replica, Survivors::All).await;
            let back = cluster.restart(medium).await;
            until(|| back.group.report().leader == Some(old.replica)).await;
        }
        cluster.settle().await;
        let reading = Reading::start(&old, &disk);
        until(|| reading.answered_since(now() - Duration::from_millis(100)) > 1).await;
        old.cut_off();
        let acked = outlast_lease(&cluster, &old, &disk).await;
        conclude(&cluster, &old, &disk, reading, acked).await;
    });
}
