//! Leaders and voters change while clients write.

use crate::common::{COPYSET, Cluster, Disk, Node, pause, run, until};
use ogee_device::Survivors;
use ogee_group::Group;
use ogee_proto::id::ReplicaId;
use ogee_proto::wire::Status;
use std::cell::Cell;
use std::rc::Rc;

/// Writes in the background until told to stop; everything is acknowledged.
struct Writing {
    disk: Rc<Disk>,
    stop: Rc<Cell<bool>>,
    written: Rc<Cell<u64>>,
    task: ogee_runtime::JoinHandle<()>,
}

impl Writing {
    async fn start(cluster: &Rc<Cluster>, volume: u64) -> Self {
        let disk = Rc::new(Disk::attach(cluster, volume, 1).await);
        let (stop, written) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
        let (writer, end, count) = (disk.clone(), stop.clone(), written.clone());
        let task = ogee_runtime::spawn(async move {
            while !end.get() {
                let step: u64 = count.get();
                let first = usize::try_from(step * 7 % 120).expect("small");
                writer.write(0, first, 4, (step + 1) * 10).await;
                count.set(step + 1);
            }
        });
        Self {
            disk,
            stop,
            written,
            task,
        }
    }

    async fn go_on(&self) {
        let before = self.written.get();
        until(|| self.written.get() > before + 5).await;
    }

    async fn end(self) -> Rc<Disk> {
        self.stop.set(true);
        self.task.await.expect("the writer ends");
        self.disk
    }
}

#[test]
fn leadership_moves_under_writes_and_nothing_is_lost() {
    run(async {
        let cluster = Cluster::of_three().await;
        let first = Writing::start(&cluster, 1).await;
        let second = Writing::start(&cluster, 2).await;
        for round in 0..6u64 {
            let target = ReplicaId::new(1 + round % 3);
            cluster.transfer_to(target).await;
            first.go_on().await;
            second.go_on().await;
        }
        for writing in [first, second] {
            writing.end().await.check().await;
        }
        cluster.agreed_digest().await;
    });
}

/// The others let the target run: nobody competes with it, so one election is enough.
#[test]
fn a_transfer_makes_its_target_the_leader_of_the_next_term() {
    run(async {
        let cluster = Cluster::of_three().await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        let mut straight = 0;
        for round in 0..6u64 {
            disk.write(0, 0, 1, round + 1).await;
            cluster.settle().await;
            let leader = cluster.leader().await;
            // The one that is told last, so that a competitor would be ahead of it.
            let target = cluster.followers().await[1].clone();
            let term = leader.group.report().term;
            until_caught_up(&leader, target.replica).await;
            until(|| leader.group.report().term > term).await;
            let elected = cluster.leader().await;
            let is_next = elected.group.report().term.get() == term.get() + 1;
            straight += u32::from(is_next && elected.replica == target.replica);
        }
        // On a loaded machine an election timer may interfere now and then.
        assert!(straight >= 4, "{straight} of 6");
        disk.check().await;
    });
}

async fn until_caught_up(leader: &Node, target: ReplicaId) {
    while !leader.group.transfer_leader(target).await.expect("runs") {
        pause().await;
    }
}

#[test]
fn a_voter_is_replaced_by_a_new_replica_under_writes() {
    run(async {
        let cluster = Cluster::of_three().await;
        let writing = Writing::start(&cluster, 1).await;
        writing.go_on().await;
        cluster.settle().await;
        cluster.checkpoint().await;
        let leaving = cluster.followers().await[0].replica;
        let new = ReplicaId::new(4);
        cluster.add(new).await;
        let mut voters: Vec<ReplicaId> = [1, 2, 3].map(ReplicaId::new).into();
        voters.retain(|replica| *replica != leaving);
        voters.push(new);
        cluster.change_members(&voters).await;
        drop(cluster.stop(leaving).await);
        writing.go_on().await;
        let disk = writing.end().await;
        cluster.settle().await;
        for node in cluster.nodes() {
            let mut now = node.group.voters();
            now.sort();
            assert_eq!(now, voters, "as {} knows them", node.replica);
        }
        cluster.agreed_digest().await;
        cluster.transfer_to(new).await;
        disk.check().await;

        // It counts: without one of the old ones the group still has a majority.
        let other = voters[0];
        drop(cluster.stop(other).await);
        disk.write(0, 0, 2, 77).await;
        disk.check().await;
        pause().await;
    });
}

#[test]
fn the_leader_itself_may_be_replaced() {
    run(async {
        let cluster = Cluster::of_three().await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        disk.write(0, 0, 16, 100).await;
        let leaving = cluster.leader().await.replica;
        let new = ReplicaId::new(4);
        cluster.add(new).await;
        let mut voters: Vec<ReplicaId> = [1, 2, 3].map(ReplicaId::new).into();
        voters.retain(|replica| *replica != leaving);
        voters.push(new);
        cluster.change_members(&voters).await;
        drop(cluster.stop(leaving).await);
        disk.write(0, 8, 16, 200).await;
        disk.check().await;
        cluster.settle().await;
        cluster.agreed_digest().await;
    });
}

/// A device that was wiped comes back as a new replica: the copyset never misses the old id's vote,
/// and the new one learns everything, here by a copy since the log is purged.
#[test]
fn a_wiped_follower_is_replaced_by_a_new_replica() {
    run(async {
        let cluster = Cluster::of_three().await;
        let writing = Writing::start(&cluster, 1).await;
        writing.go_on().await;
        cluster.settle().await;
        let wiped = cluster.followers().await[0].replica;
        drop(cluster.stop(wiped).await);
        writing.go_on().await;
        cluster.checkpoint().await;
        writing.go_on().await;
        cluster.checkpoint().await;
        let new = ReplicaId::new(4);
        let node = cluster.add(new).await;
        let mut voters: Vec<ReplicaId> = [1, 2, 3].map(ReplicaId::new).into();
        voters.retain(|replica| *replica != wiped);
        voters.push(new);
        cluster.change_members(&voters).await;
        // Again, as an order that comes twice: nothing happens.
        let index = cluster.leader().await.group.report().last_log;
        cluster.change_members(&voters).await;
        writing.go_on().await;
        let disk = writing.end().await;
        until(|| node.group.voters() == voters).await;
        assert!(cluster.leader().await.group.report().last_log >= index);
        until(|| !node.group.report().is_installing).await;
        cluster.settle().await;
        cluster.agreed_digest().await;
        cluster.transfer_to(new).await;
        disk.check().await;
    });
}

/// Its vote, log and blocks are gone, durably, and what they took is free; another replica of the
/// group, or the same order again, is left alone.
#[test]
fn a_removed_replica_is_deleted_only_under_its_own_id() {
    run(async {
        let cluster = Cluster::of_three().await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        disk.write(0, 0, 64, 100).await;
        cluster.settle().await;
        cluster.checkpoint().await;
        let leaving = cluster.followers().await[0].clone();
        let mut voters: Vec<ReplicaId> = [1, 2, 3].map(ReplicaId::new).into();
        voters.retain(|replica| *replica != leaving.replica);
        cluster.change_members(&voters).await;
        assert!(leaving.store.used().get() > 0);
        let other = (COPYSET, ReplicaId::new(77));
        let (store, log) = (leaving.store.clone(), leaving.log.clone());
        Group::remove(&store, &log, other, None)
            .await
            .expect("left alone");
        assert_eq!(
            Group::find(&store, COPYSET).expect("readable"),
            Some(leaving.replica)
        );
        assert!(log.groups().contains(&COPYSET));

        let id = (COPYSET, leaving.replica);
        leaving.keeper.remove(COPYSET);
        let running = Some(leaving.group.clone());
        Group::remove(&store, &log, id, running)
            .await
            .expect("removed");
        Group::remove(&store, &log, id, None).await.expect("again");
        assert_eq!(store.used().get(), 0);
        let replica = leaving.replica;
        drop(leaving);
        let medium = cluster.crash(replica, Survivors::None).await;
        let (store, log) = medium.open().await;
        assert_eq!(Group::find(&store, COPYSET).expect("readable"), None);
        assert_eq!(store.chunks(COPYSET), []);
        assert!(!log.groups().contains(&COPYSET));
        disk.write(0, 0, 2, 500).await;
        disk.check().await;
    });
}

/// A leader that is deposed in the middle leaves a learner, or two sets of voters; the next one, asked
/// the same, goes on from there.
#[test]
fn a_change_of_members_goes_on_under_the_next_leader() {
    run(async {
        let cluster = Cluster::of_three().await;
        let writing = Writing::start(&cluster, 1).await;
        let new = ReplicaId::new(4);
        cluster.add(new).await;
        let leaving = cluster.followers().await[1].replica;
        let mut voters: Vec<ReplicaId> = [1, 2, 3].map(ReplicaId::new).into();
        voters.retain(|replica| *replica != leaving);
        voters.push(new);
        let (asking, wanted) = (cluster.clone(), voters.clone());
        let change = ogee_runtime::spawn(async move { asking.change_members(&wanted).await });
        for round in 0..4u64 {
            let target = voters[usize::try_from(round % 2).expect("small")];
            cluster.transfer_to(target).await;
        }
        change.await.expect("it ends");
        writing.go_on().await;
        let disk = writing.end().await;
        // Nobody tells a removed replica anything more.
        drop(cluster.stop(leaving).await);
        cluster.settle().await;
        for node in cluster.nodes() {
            until(|| node.group.voters() == voters).await;
        }
        cluster.agreed_digest().await;
        disk.check().await;
    });
}

/// Writes that come while leadership is on its way wait for whoever leads then; they are not sent to
/// a target that may never take over.
#[test]
fn writes_wait_out_a_handover_that_fails() {
    run(async {
        let cluster = Cluster::of_three().await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        disk.write(0, 0, 8, 100).await;
        cluster.settle().await;
        let leader = cluster.leader().await;
        let target = cluster.followers().await[0].clone();
        until_caught_up_then(&leader, target.replica, || target.cut_off()).await;
        let write = disk.next_write(0, 4, 2, 500);
        let outcome = leader.group.mutate(write.clone()).await;
        assert_ne!(outcome.hint, Some(target.replica), "{outcome:?}");
        assert_eq!(
            cluster.mutate(&write).await,
            Status::Ok,
            "by its own retry at the latest"
        );
        disk.expect(0, 4, vec![500, 501]);
        target.reconnect();
        cluster.settle().await;
        disk.check().await;
        cluster.agreed_digest().await;
    });
}

async fn until_caught_up_then(leader: &Node, target: ReplicaId, then: impl Fn()) {
    loop {
        then();
        if leader.group.transfer_leader(target).await.expect("runs") {
            return;
        }
        pause().await;
    }
}

/// A replica that was to join and never came is forgotten when another one joins instead.
#[test]
fn another_replica_may_join_in_place_of_one_that_never_came() {
    run(async {
        let cluster = Cluster::of_three().await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        disk.write(0, 0, 8, 100).await;
        let leaving = cluster.followers().await[1].replica;
        let mut stay: Vec<ReplicaId> = [1, 2, 3].map(ReplicaId::new).into();
        stay.retain(|replica| *replica != leaving);
        let of = |new| [stay.clone(), vec![ReplicaId::new(new)]].concat();
        let (asking, wanted) = (cluster.clone(), of(4));
        let never = ogee_runtime::spawn_scoped(async move { asking.change_members(&wanted).await });
        let leader = cluster.leader().await;
        until(|| leader.group.members().contains(&ReplicaId::new(4))).await;
        drop(never);
        assert_eq!(leader.group.voters().len(), 3, "a learner is no voter");
        cluster.add(ReplicaId::new(5)).await;
        cluster.change_members(&of(5)).await;
        drop(cluster.stop(leaving).await);
        disk.write(0, 4, 8, 200).await;
        cluster.settle().await;
        assert_eq!(cluster.leader().await.group.members(), of(5));
        cluster.agreed_digest().await;
        disk.check().await;
    });
}

/// A leader that has lost its quorum, and that was replaced itself meanwhile, never learns what became of
/// the change that it proposed: whoever ordered it must not wait for that, since the next order may be
/// to delete this very replica.
#[test]
fn a_change_without_a_quorum_ends_unknown_and_the_replica_can_be_deleted() {
    run(async {
        let cluster = Cluster::of_three().await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        disk.write(0, 0, 4, 1).await;
        let leader = cluster.leader().await;
        let other = cluster.followers().await[0].replica;
        let wanted = [leader.replica, other, ReplicaId::new(4)];
        leader.cut_off();
        let members = wanted.iter().map(|id| (*id, cluster.member(*id)));
        let changed = leader.group.change_members(members.collect()).await;
        let outcome = changed.expect_err("nobody has agreed");
        assert!(
            matches!(outcome.status, Status::Retry | Status::NotLeader),
            "{outcome:?}"
        );
        let id = (COPYSET, leader.replica);
        leader.keeper.remove(COPYSET);
        let running = Some(leader.group.clone());
        let removed = Group::remove(&leader.store, &leader.log, id, running).await;
        removed.expect("it is deleted");
        let found = Group::find(&leader.store, COPYSET).expect("a store that answers");
        assert_eq!(found, None);
    });
}
