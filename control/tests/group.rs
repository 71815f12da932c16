//! Three metadata servers in one process, over real sockets and files.

#![allow(clippy::unwrap_used, reason = "test code outside test functions")]

mod common;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use common::{any_port, channel, eventually, named, new_volume, stop};
use ogee_control::{Mds, MdsConfig, MdsHandle, Member};
use ogee_proto::fault::MDS_LEADER_METADATA;
use ogee_proto::service::topology_client::TopologyClient;
use ogee_proto::service::volumes_client::VolumesClient;
use ogee_proto::service::{AttachRequest, Empty};
use tonic::Code;

/// Three addresses that were free a moment ago.
fn addresses() -> Vec<SocketAddr> {
    let held: Vec<TcpListener> = (0..3)
        .map(|_| TcpListener::bind(any_port()).unwrap())
        .collect();
    held.iter().map(|l| l.local_addr().unwrap()).collect()
}

struct Group {
    configs: Vec<MdsConfig>,
    running: BTreeMap<u64, MdsHandle>,
}

impl Group {
    fn start(dir: &Path) -> Self {
        let addresses = addresses();
        let members: Vec<Member> = (1..)
            .zip(&addresses)
            .map(|(id, addr)| Member {
                id,
                addr: addr.to_string(),
            })
            .collect();
        let config = |(id, addr): (u64, &SocketAddr)| {
            let mut config = MdsConfig::new(dir.join(id.to_string()), *addr);
            config.id = id;
            config.metrics_listen = Some(any_port());
            config.members = members.clone();
            config
        };
        let configs: Vec<MdsConfig> = (1..).zip(&addresses).map(config).collect();
        let mut group = Self {
            configs,
            running: BTreeMap::new(),
        };
        (1..=3).for_each(|id| group.start_member(id));
        group
    }

    fn start_member(&mut self, id: u64) {
        let config = self.configs.iter().find(|c| c.id == id).unwrap();
        self.running.insert(id, Mds::start(config).expect("starts"));
    }

    async fn stop_member(&mut self, id: u64) {
        stop(self.running.remove(&id).expect("runs")).await;
    }

    fn addr(&self, id: u64) -> String {
        self.configs
            .iter()
            .find(|c| c.id == id)
            .unwrap()
            .listen
            .to_string()
    }

    async fn volumes(&self, id: u64) -> VolumesClient<tonic::transport::Channel> {
        VolumesClient::new(channel(&self.addr(id)).await)
    }

    /// Whoever answers a read leads.
    async fn leader(&self) -> u64 {
        eventually("a leader", || async {
            for id in self.running.keys() {
                let mut operator = TopologyClient::new(channel(&self.addr(*id)).await);
                if let Ok(status) = operator.status(Empty {}).await {
                    let status = status.into_inner();
                    assert_eq!((status.mds_leader, status.mds_count), (*id, 3));
                    return Some(*id);
                }
            }
            None
        })
        .await
    }

    async fn make_pool(&self, leader: u64) {
        common::small_pool(&self.addr(leader)).await;
    }
}

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

    group.start_member(first);
    let third = *group
        .running
        .keys()
        .find(|id| ![first, second].contains(id))
        .unwrap();
    group.stop_member(third).await;
    let leader = group.leader().await;
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
        read_only: false,
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
