//! Heartbeats that say, and are answered with, what has changed.

mod common;

use common::{
    Chunkserver, beat_all, config, eventually, http, new_volume, ready, register_soon,
    registration, start, status, stop, store, topology, volumes,
};
use ogee_control::MdsHandle;
use ogee_proto::service::{Empty, HeartbeatResponse, ReplaceReplicaRequest};

/// Copysets and peers that an answer tells of.
fn told(answer: &HeartbeatResponse) -> (usize, usize) {
    (answer.copysets.len(), answer.peers.len())
}

/// Endpoints that it tells of.
fn endpoints(answer: &HeartbeatResponse) -> Vec<&str> {
    let replicas = answer.copysets.iter().flat_map(|it| &it.replicas);
    replicas.map(|it| it.endpoint.as_str()).collect()
}

/// Reports of a kind that were counted.
async fn reports(mds: &MdsHandle, kind: &str) -> u64 {
    let text = http(mds.metrics_addr().expect("asked for"), "/metrics").await;
    let name = format!("ogee_mds_reports_total{{kind=\"{kind}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |count| count.parse().expect("a number"))
}

/// Until it has nothing to tell any more.
async fn quiet(servers: &mut [Chunkserver]) {
    for _ in 0..2 {
        beat_all(servers).await;
    }
    for server in servers {
        assert_eq!(told(&server.beat().await), (0, 0));
    }
}

#[tokio::test]
async fn what_is_known_is_not_told_again_and_a_change_comes_with_the_next_heartbeat() {
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&config(dir.path()));
    let mut servers = ready(&mds).await;
    quiet(&mut servers).await;

    // One is elsewhere.
    let moved = ["10.9.9.9:1", "10.9.9.9:2"].map(str::to_owned);
    servers[2].registration.endpoints = moved.to_vec();
    servers[2].beat().await;
    let answer = servers[0].beat().await;
    assert_eq!(told(&answer), (12, 3));
    let known = endpoints(&answer);
    assert!(known.contains(&"10.9.9.9:1") && known.contains(&"10.9.9.9:2"));
    // So is a store: it changed its shard.
    assert_eq!(told(&servers[0].beat().await), (0, 0));
    servers[2].registration.stores[0].shard = 1;
    servers[2].beat().await;
    let answer = servers[0].beat().await;
    assert!(!endpoints(&answer).contains(&"10.9.9.9:1"), "{answer:?}");

    // What is none of its business is not told.
    let mut client = volumes(&mds).await;
    client.create(new_volume("db", 1 << 30)).await.unwrap();
    assert_eq!(told(&servers[0].beat().await), (0, 0));

    // What is decided is, with the order that it leads to.
    let request = registration("cs4", "d", &[&store(4, 1)]);
    let mut fourth = register_soon(&mds.addr().to_string(), request).await;
    fourth.beat().await;
    let (copyset, held) = servers[0].replicas.first_key_value().expect("it has some");
    let replace = ReplaceReplicaRequest {
        copyset: *copyset,
        replica: held.replica,
        to: "cs4".into(),
    };
    let mut operator = topology(&mds).await;
    operator.replace_replica(replace).await.expect("begun");
    assert_eq!(told(&servers[0].beat().await), (12, 4));
    let answer = fourth.beat().await;
    assert_eq!((told(&answer), answer.orders.len()), ((1, 4), 1));

    // An answer that was not heard is given again.
    servers[0].forget();
    assert_eq!(told(&servers[0].beat().await), (12, 4));
    stop(mds).await;
}

#[tokio::test]
async fn an_old_chunkserver_tells_and_is_told_all() {
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&config(dir.path()));
    let mut servers = ready(&mds).await;
    quiet(&mut servers).await;
    let (whole, changes) = (reports(&mds, "whole").await, reports(&mds, "changes").await);
    servers[1].tells_changes = false;
    for _ in 0..3 {
        assert_eq!(told(&servers[1].beat().await), (12, 3));
    }
    assert_eq!(reports(&mds, "whole").await, whole + 3);
    assert_eq!(reports(&mds, "changes").await, changes);
    stop(mds).await;
}

#[tokio::test]
async fn a_metadata_server_that_starts_anew_asks_for_all_and_misses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = config(dir.path());
    let mds = start(&settings);
    let mut servers = ready(&mds).await;
    quiet(&mut servers).await;
    assert_eq!(reports(&mds, "refused").await, 0);
    settings.listen = mds.addr();
    stop(mds).await;
    let mds = start(&settings);
    eventually("it leads", || async {
        topology(&mds).await.list_pools(Empty {}).await.ok()
    })
    .await;
    // The first one was answered in a session that nobody knows any more.
    for server in &mut servers {
        assert_eq!(told(&server.beat().await), (12, 3));
    }
    assert_eq!(reports(&mds, "refused").await, 3);
    assert_eq!(reports(&mds, "whole").await, 3);
    quiet(&mut servers).await;
    let status = status(&mds).await;
    assert!(status.codes.is_empty(), "{status:?}");
    stop(mds).await;
}
