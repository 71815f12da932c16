//! Three metadata servers are upgraded one by one: what not all understand is not proposed, and who does not understand
//! what the group uses ends instead of skipping it.

#![allow(clippy::unwrap_used, reason = "test code outside test functions")]

mod common;

use common::group::Group;
use std::path::Path;

use common::{channel, eventually, fault, new_volume, register_soon, registration, store};
use ogee_control::Mds;
use ogee_proto::fault::Fault;
use ogee_proto::service::mds_raft_client::MdsRaftClient;
use ogee_proto::service::members_client::MembersClient;
use ogee_proto::service::topology_client::TopologyClient;
use ogee_proto::service::{
    AddMemberRequest, CreatePoolRequest, Empty, MemberInfo, MemberQuery, RaftMessage,
    SetPoolRequest,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

/// What this release understands, and the one before.
const NEW: u32 = 4;
const OLD: u32 = 1;

async fn operator(group: &Group) -> TopologyClient<Channel> {
    let leader = group.leader().await;
    TopologyClient::new(channel(&group.addr(leader)).await)
}

/// Of all members, with digests as of one log entry.
async fn members(group: &Group) -> Vec<MemberInfo> {
    let listed = eventually("all members at one entry", || async {
        let leader = group.leader().await;
        let mut members = MembersClient::new(channel(&group.addr(leader)).await);
        let listed = members.list(MemberQuery { digest: true }).await.ok()?;
        let listed = listed.into_inner().members;
        let is_one = listed
            .iter()
            .all(|it| it.reachable && it.applied == listed[0].applied);
        is_one.then_some(listed)
    });
    listed.await
}

async fn agree(group: &Group) {
    let members = members(group).await;
    let same = members.iter().all(|it| it.digest == members[0].digest);
    assert!(same && !members[0].digest.is_empty(), "{members:?}");
}

/// Sets what only the new release knows.
async fn set_width(group: &Group, scatter_width: u32) -> Result<u32, Status> {
    let request = SetPoolRequest {
        name: "wide".into(),
        scatter_width: Some(scatter_width),
        ..SetPoolRequest::default()
    };
    let set = operator(group).await.set_pool(request).await?;
    Ok(set.into_inner().scatter_width)
}

async fn refused(group: &Group, older: &[u64]) {
    // A leader that was just elected has heard of nobody: then it does not say that those understand less.
    let said = eventually("all that answer are heard", || async {
        let fault = fault(set_width(group, 4).await);
        assert_eq!(fault.code(), "OGEE-2096", "{fault}");
        Some(fault).filter(|it| !it.cause().contains("does not answer"))
    });
    let fault: Fault = said.await;
    for id in 1..=3 {
        let name = format!("metadata server {id} at {}", group.addr(id));
        let is_named = fault.cause().contains(&name);
        assert_eq!(is_named, older.contains(&id), "{id}: {fault}");
    }
    let remedy = fault.remedy();
    assert!(
        remedy.contains("upgrade") && remedy.contains("ogee mds ls"),
        "{remedy}"
    );
}

/// What both releases know works meanwhile, whoever leads.
async fn works(group: &Group, volume: &str) {
    let leader = group.leader().await;
    let mut volumes = group.volumes(leader).await;
    let made = volumes.create(new_volume(volume, 1 << 30)).await;
    made.expect("both releases know that");
    agree(group).await;
}

async fn restart_as(group: &mut Group, id: u64, version: u32) {
    group.stop_member(id).await;
    group.act_as(id, version);
    group.start_member(id);
}

/// A group of the old release, with a pool for volumes and one of three replicas.
async fn old_group(dir: &Path) -> Group {
    let group = Group::start_as(dir, OLD);
    let leader = group.leader().await;
    group.make_pool(leader).await;
    let mut operator = operator(&group).await;
    for (at, zone) in (2..5).zip(["b", "c", "d"]) {
        let request = registration(&format!("cs{at}"), zone, &[&store(at, 1)]);
        register_soon(&group.addr(leader), request)
            .await
            .beat()
            .await;
    }
    let wide = CreatePoolRequest {
        name: "wide".into(),
        replicas: 3,
        copysets: 1,
        ..CreatePoolRequest::default()
    };
    operator.create_pool(wide).await.expect("three zones");
    group
}

#[tokio::test]
async fn the_group_uses_what_is_new_when_the_last_one_is_upgraded() {
    let dir = tempfile::tempdir().unwrap();
    let mut group = old_group(dir.path()).await;
    works(&group, "one").await;
    let mut older = vec![1, 2, 3];
    for (id, volume) in [(3, "two"), (1, "three")] {
        refused(&group, &older).await;
        restart_as(&mut group, id, 0).await;
        older.retain(|it| *it != id);
        works(&group, volume).await;
    }
    refused(&group, &older).await;
    let said = members(&group).await;
    let versions: Vec<_> = said
        .iter()
        .map(|it| (it.commands, it.group_commands))
        .collect();
    assert_eq!(versions, [(NEW, OLD), (OLD, OLD), (NEW, OLD)]);

    restart_as(&mut group, 2, 0).await;
    eventually("the group is raised", || async {
        let members = members(&group).await;
        let raised = members.iter().all(|it| it.group_commands == NEW);
        raised.then_some(())
    })
    .await;
    assert_eq!(set_width(&group, 4).await.expect("all know it"), 4);
    works(&group, "four").await;
    // What the group understands is metadata: it does not hang on who answers now.
    let down = (1..=3).find(|id| *id != 2).unwrap();
    group.stop_member(down).await;
    assert_eq!(set_width(&group, 3).await.expect("two of three"), 3);
    group.start_member(down);
    agree(&group).await;
}

#[tokio::test]
async fn one_that_does_not_understand_the_group_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mut group = Group::start(dir.path());
    group.leader().await;
    let raised = || async {
        let members = members(&group).await;
        let raised = members.iter().all(|it| it.group_commands == NEW);
        raised.then_some(())
    };
    eventually("the group is raised", raised).await;
    let leader = group.leader().await;
    let victim = (1..=3).find(|id| *id != leader).unwrap();

    // With what it has written: its own file says that it takes a newer release.
    group.stop_member(victim).await;
    group.act_as(victim, OLD);
    let refused = Mds::start(group.config(victim)).err().expect("too old");
    let fault = refused.fault();
    assert_eq!(fault.code(), "OGEE-2104", "{fault}");
    let wanted = format!("ogee-mds {NEW}");
    assert!(fault.cause().contains(&wanted), "{fault}");

    // The others went on, and it comes back with the right one.
    group.act_as(victim, 0);
    group.start_member(victim);
    agree(&group).await;
}

/// One whose own file has nothing new in it yet: what it is sent says so.
#[tokio::test]
async fn one_that_is_sent_what_it_does_not_understand_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = common::config(dir.path());
    config.act_as_version = OLD;
    let old = Mds::start(&config).expect("starts");
    let mut raft = MdsRaftClient::new(channel(&old.addr().to_string()).await);
    let message = |needed: u32| RaftMessage {
        cluster: config.cluster.clone(),
        from: 2,
        to: config.id,
        body: b"it cannot be read".to_vec(),
        version: NEW,
        needed,
        ..RaftMessage::default()
    };
    let refused = raft.append(message(OLD)).await.expect_err("no message");
    assert_eq!(
        refused.code(),
        Code::InvalidArgument,
        "it is looked at: {refused}"
    );
    let refused = raft.append(message(NEW)).await.expect_err("too new");
    assert_eq!(
        refused.code(),
        Code::FailedPrecondition,
        "it is not: {refused}"
    );
    let ended = tokio::task::spawn_blocking(move || old.join())
        .await
        .unwrap();
    let fault = ended.expect_err("too old").fault();
    assert_eq!(fault.code(), "OGEE-2108");
    let version = format!("version {NEW}");
    for part in ["metadata server 2", &version, "understands 1"] {
        assert!(fault.cause().contains(part), "{fault}");
    }
    assert!(fault.remedy().contains("release"), "{fault}");
}

#[tokio::test]
async fn a_new_member_of_an_older_release_is_not_taken_in() {
    let dir = tempfile::tempdir().unwrap();
    let group = Group::start(dir.path());
    eventually("the group is raised", || async {
        let members = members(&group).await;
        let raised = members.iter().all(|it| it.group_commands == NEW);
        raised.then_some(())
    })
    .await;
    let mut config = group.config(1).clone();
    config.id = 4;
    config.data_dir = dir.path().join("4");
    config.listen = common::any_port();
    config.members = Vec::new();
    config.join = true;
    config.act_as_version = OLD;
    let fourth = Mds::start(&config).expect("starts");
    let request = AddMemberRequest {
        id: 4,
        address: fourth.addr().to_string(),
    };
    let leader = group.leader().await;
    let mut members = MembersClient::new(channel(&group.addr(leader)).await);
    let fault = fault(members.add(request).await);
    assert_eq!(fault.code(), "OGEE-2097", "{fault}");
    let list = members.list(MemberQuery::default()).await.expect("listed");
    assert_eq!(list.into_inner().members.len(), 3);
    common::stop(fourth).await;
    let status = operator(&group).await.status(Empty {}).await;
    status.expect("nothing happened to the others");
}
