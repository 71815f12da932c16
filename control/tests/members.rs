//! The group of metadata servers grows, shrinks and changes its leader, over real sockets and files.

#![allow(clippy::unwrap_used, reason = "test code outside test functions")]

mod common;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use common::{any_port, channel, eventually, fault, named, new_volume, stop};
use ogee_control::{Mds, MdsConfig, MdsHandle};
use ogee_proto::fault::MDS_LEADER_METADATA;
use ogee_proto::service::members_client::MembersClient;
use ogee_proto::service::volumes_client::VolumesClient;
use ogee_proto::service::{
    AddMemberRequest, ListEventsRequest, MemberInfo, MemberName, MemberQuery,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

struct Group {
    dir: PathBuf,
    addresses: BTreeMap<u64, SocketAddr>,
    running: BTreeMap<u64, MdsHandle>,
}

impl Group {
    /// One member, and addresses for more.
    fn start(dir: &Path, count: u64) -> Self {
        let held: Vec<TcpListener> = (0..count)
            .map(|_| TcpListener::bind(any_port()).unwrap())
            .collect();
        let addresses = held.iter().map(|l| l.local_addr().unwrap());
        let mut group = Self {
            dir: dir.into(),
            addresses: (1..).zip(addresses).collect(),
            running: BTreeMap::new(),
        };
        drop(held);
        group.start_member(1, false);
        group
    }

    fn start_member(&mut self, id: u64, join: bool) {
        let mut config = MdsConfig::new(self.dir.join(id.to_string()), self.addresses[&id]);
        config.id = id;
        config.join = join;
        config.heartbeat_ms = 100;
        config.offline_ms = 300;
        self.running
            .insert(id, Mds::start(&config).expect("starts"));
    }

    async fn stop_member(&mut self, id: u64) {
        stop(self.running.remove(&id).expect("runs")).await;
    }

    fn addr(&self, id: u64) -> String {
        self.addresses[&id].to_string()
    }

    async fn members(&self, id: u64) -> MembersClient<Channel> {
        MembersClient::new(channel(&self.addr(id)).await)
    }

    async fn volumes(&self, id: u64) -> VolumesClient<Channel> {
        VolumesClient::new(channel(&self.addr(id)).await)
    }

    async fn leader(&self) -> u64 {
        eventually("a leader", || async {
            for id in self.running.keys() {
                let mut members = self.members(*id).await;
                if members.list(MemberQuery::default()).await.is_ok() {
                    return Some(*id);
                }
            }
            None
        })
        .await
    }

    async fn list(&self) -> Vec<MemberInfo> {
        let leader = self.leader().await;
        let listed = self
            .members(leader)
            .await
            .list(MemberQuery::default())
            .await;
        listed.expect("listed").into_inner().members
    }

    /// As the command does: again while it is learning.
    async fn add(&self, id: u64) -> Result<(), Status> {
        loop {
            let leader = self.leader().await;
            let request = AddMemberRequest {
                id,
                address: self.addr(id),
            };
            match self.members(leader).await.add(request).await {
                Err(status) if status.code() == Code::DeadlineExceeded => {}
                answer => return answer.map(drop),
            }
        }
    }

    /// As the command does: where it is sent to.
    async fn remove(&self, id: u64) -> Result<(), Status> {
        let mut addr = self.addr(self.leader().await);
        loop {
            let mut members = MembersClient::new(channel(&addr).await);
            let status = match members.remove(MemberName { id }).await {
                Ok(_) => return Ok(()),
                Err(status) => status,
            };
            match status.metadata().get(MDS_LEADER_METADATA) {
                None if status.code() == Code::Aborted => {}
                Some(leader) => addr = leader.to_str().unwrap().to_owned(),
                None => return Err(status),
            }
        }
    }
}

async fn make_pool(addr: &str) {
    let answer = common::small_pool(addr).await;
    assert_eq!(answer.mds, [addr.to_owned()], "it learns where they are");
}

async fn refuses_whom_it_does_not_know(group: &mut Group) {
    let refused = group.add(2).await;
    assert_eq!(fault(refused).code(), "OGEE-2061", "nobody is there");
    group.start_member(2, true);
    let own = group.members(2).await.local(MemberQuery::default()).await;
    let own = own.expect("it answers").into_inner();
    assert_eq!((own.id, own.role.as_str(), own.leader), (2, "", 0));
    let wrong = AddMemberRequest {
        id: 4,
        address: group.addr(2),
    };
    let refused = group.members(1).await.add(wrong).await;
    assert_eq!(fault(refused).code(), "OGEE-2062", "another one is there");
    let refused = group.remove(1).await;
    assert_eq!(fault(refused).code(), "OGEE-2064", "the last one stays");
}

/// Two have got it as a snapshot or entry by entry, one has made it.
async fn hold_the_same(group: &Group) {
    let digests = eventually("all at one entry", || async {
        let listed = group.members(group.leader().await).await;
        let listed = { listed }.list(MemberQuery { digest: true }).await.ok()?;
        let members = listed.into_inner().members;
        let at = members[0].applied;
        let is_comparable = members.iter().all(|it| it.reachable && it.applied == at);
        is_comparable.then(|| members.into_iter().map(|it| it.digest).collect::<Vec<_>>())
    });
    let digests = digests.await;
    assert!(
        !digests[0].is_empty() && digests.iter().all(|it| *it == digests[0]),
        "{digests:?}"
    );
}

#[tokio::test]
async fn one_becomes_three_and_the_first_one_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let mut group = Group::start(dir.path(), 4);
    group.leader().await;
    make_pool(&group.addr(1)).await;
    let created = group
        .volumes(1)
        .await
        .create(new_volume("one", 1 << 30))
        .await;
    created.expect("created");

    refuses_whom_it_does_not_know(&mut group).await;
    group.start_member(3, true);
    for id in [2, 3, 3] {
        group.add(id).await.expect("added");
    }
    let listed = group.list().await;
    let told: Vec<_> = listed.iter().map(|m| (m.id, m.reachable)).collect();
    assert_eq!(told, [(1, true), (2, true), (3, true)]);
    let roles = |members: &[MemberInfo]| -> BTreeMap<u64, String> {
        members.iter().map(|m| (m.id, m.role.clone())).collect()
    };
    assert_eq!(roles(&listed)[&1], "leader");
    assert!(["voter", "voter"] == [&*roles(&listed)[&2], &*roles(&listed)[&3]]);
    hold_the_same(&group).await;

    let mut members = group.members(1).await;
    let to = members.transfer_leadership(MemberName { id: 3 }).await;
    assert_eq!(to.expect("handed over").into_inner().id, 3);
    assert_eq!(group.leader().await, 3);
    let to = group
        .members(3)
        .await
        .transfer_leadership(MemberName { id: 1 })
        .await;
    assert_eq!(to.expect("and back").into_inner().id, 1);

    // The leading one takes itself out: it hands over first.
    group.remove(1).await.expect("removed");
    group.stop_member(1).await;
    let leader = group.leader().await;
    let mut volumes = group.volumes(leader).await;
    volumes.show(named("one")).await.expect("it is known");
    volumes
        .create(new_volume("two", 1 << 30))
        .await
        .expect("made by two");
    assert_eq!(roles(&group.list().await).len(), 2);

    // Of two, one that is dead cannot be taken out: nobody could agree to it.
    let other = 5 - leader;
    group.stop_member(other).await;
    // It was heard of a moment ago.
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    let refused = eventually("it is missed", || async {
        let refused = group
            .members(leader)
            .await
            .remove(MemberName { id: other })
            .await;
        refused
            .err()
            .filter(|it| it.message().contains("OGEE-2065"))
    });
    assert_eq!(refused.await.code(), Code::FailedPrecondition);
    group.start_member(other, false);
    group.leader().await;
    group.remove(other).await.expect("with its own vote");
    let left = group.leader().await;
    group
        .volumes(left)
        .await
        .show(named("two"))
        .await
        .expect("one of one decides");
}

#[tokio::test]
async fn a_leader_that_stops_hands_over_and_events_tell_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut group = Group::start(dir.path(), 3);
    group.leader().await;
    for id in [2, 3] {
        group.start_member(id, true);
        group.add(id).await.expect("added");
    }
    let first = group.leader().await;
    let begun = std::time::Instant::now();
    group.stop_member(first).await;
    let second = group.leader().await;
    println!("another one leads after {:?}", begun.elapsed());
    assert_ne!(first, second);
    let kinds = eventually("the events", || async {
        let request = ListEventsRequest { after: 0, limit: 0 };
        let listed = group
            .members(group.leader().await)
            .await
            .list_events(request)
            .await;
        let listed = listed.ok()?.into_inner();
        let sequence: Vec<u64> = listed.events.iter().map(|event| event.sequence).collect();
        assert_eq!(sequence, (1..=listed.newest).collect::<Vec<_>>());
        let kinds: Vec<_> = listed
            .events
            .iter()
            .map(|e| (e.kind.clone(), e.subject.clone()))
            .collect();
        let leads = ("mds_leader".to_owned(), second.to_string());
        kinds.contains(&leads).then_some(kinds)
    })
    .await;
    for added in ["2", "3"] {
        assert!(
            kinds.contains(&("mds_added".into(), added.into())),
            "{kinds:?}"
        );
    }
}
