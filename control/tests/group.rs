//! Three metadata servers in one process, over real sockets and files.

#![allow(clippy::unwrap_used, reason = "test code outside test functions")]

mod common;

use common::group::Group;
use common::{eventually, named, new_volume};
use ogee_proto::fault::MDS_LEADER_METADATA;
use ogee_proto::service::AttachRequest;
use tonic::Code;

#[tokio::test]
async fn the_others_go_on_when_the_leader_stops_and_it_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut group = Group::start(dir.path());
    let first = group.leader().await;
    group.make_pool(first).await;
    group
        .volumes(first)
        .await
        .create(new_volume("one", 1 << 30))
        .await
        .expect("created");

    let follower = *group.running.keys().find(|id| **id != first).unwrap();
    let redirect = group
        .volumes(follower)
        .await
        .show(named("one"))
        .await
        .expect_err("a follower");
    assert_eq!(redirect.code(), Code::Unavailable);
    let leader = redirect
        .metadata()
        .get(MDS_LEADER_METADATA)
        .expect("names the leader");
    assert_eq!(leader.to_str().unwrap(), group.addr(first));

    group.stop_member(first).await;
    let second = group.leader().await;
    assert_ne!(first, second);
    let mut client = group.volumes(second).await;
    client
        .show(named("one"))
        .await
        .expect("a majority remembers");
    client
        .create(new_volume("two", 1 << 30))
        .await
        .expect("a majority decides");

    let leader = group.leader_of_two(first, second).await;
    let mut client = group.volumes(leader).await;
    for name in ["one", "two"] {
        client
            .show(named(name))
            .await
            .expect("the returned member has caught up");
    }
    group.stop_member(leader).await;
    let last = *group.running.keys().next().unwrap();
    let alone = group
        .volumes(last)
        .await
        .create(new_volume("three", 1 << 30))
        .await;
    assert!(alone.is_err(), "one of three decides nothing");
}

#[tokio::test]
async fn a_member_that_was_away_too_long_gets_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let mut group = Group::start(dir.path());
    let leader = group.leader().await;
    group.make_pool(leader).await;
    let client = group.volumes(leader).await;
    client
        .clone()
        .create(new_volume("db", 1 << 30))
        .await
        .expect("created");
    let mut others = group.running.keys().copied().filter(|id| *id != leader);
    let (away, stays) = (others.next().unwrap(), others.next().unwrap());
    group.stop_member(away).await;

    // More entries than a snapshot covers and the log keeps after it.
    let attach = || AttachRequest {
        name: "db".into(),
        host: "h".into(),
        ..AttachRequest::default()
    };
    for _ in 0..60 {
        let mut round = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let mut client = client.clone();
            round.spawn(async move { client.attach(attach()).await });
        }
        while let Some(done) = round.join_next().await {
            done.unwrap().expect("attached");
        }
    }

    let addr = group.running[&leader].metrics_addr().expect("asked for");
    let purged = eventually("the log is cut", || async {
        let text = common::http(addr, "/metrics").await;
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix("ogee_mds_log_purged_index "));
        line.and_then(|value| value.parse::<u64>().ok())
            .filter(|index| *index > 0)
    });
    assert!(
        purged.await > 100,
        "what the other one misses is in the snapshot only"
    );

    group.start_member(away);
    // Whoever leads now had all 3000: the one that was away can win only with them.
    group.stop_member(stays).await;
    let leader = group.leader().await;
    let volume = group
        .volumes(leader)
        .await
        .show(named("db"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(volume.epoch, 3000);
    // The other one of the two takes part in the next decision.
    let next = group
        .volumes(leader)
        .await
        .attach(attach())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(next.epoch, 3001);
}
