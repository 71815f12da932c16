//! Three metadata servers in one process, over real sockets and files.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use super::{any_port, channel, eventually, small_pool, stop};
use ogee_control::{Mds, MdsConfig, MdsHandle, Member};
use ogee_proto::service::Empty;
use ogee_proto::service::topology_client::TopologyClient;
use ogee_proto::service::volumes_client::VolumesClient;

/// Three addresses that were free a moment ago.
fn addresses() -> Vec<SocketAddr> {
    let held: Vec<TcpListener> = (0..3)
        .map(|_| TcpListener::bind(any_port()).unwrap())
        .collect();
    held.iter().map(|l| l.local_addr().unwrap()).collect()
}

/// Those that run.
pub struct Group {
    configs: Vec<MdsConfig>,
    pub running: BTreeMap<u64, MdsHandle>,
}

impl Group {
    pub fn start(dir: &Path) -> Self {
        Self::start_as(dir, 0)
    }

    /// All of them act as if they were of that version.
    pub fn start_as(dir: &Path, version: u32) -> Self {
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
            config.act_as_version = version;
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

    /// From its next start on.
    pub fn act_as(&mut self, id: u64, version: u32) {
        let config = self.configs.iter_mut().find(|c| c.id == id).unwrap();
        config.act_as_version = version;
    }

    /// Of one that does not run.
    pub fn config(&self, id: u64) -> &MdsConfig {
        self.configs.iter().find(|c| c.id == id).unwrap()
    }

    pub fn start_member(&mut self, id: u64) {
        let config = self.configs.iter().find(|c| c.id == id).unwrap();
        self.running.insert(id, Mds::start(config).expect("starts"));
    }

    pub async fn stop_member(&mut self, id: u64) {
        stop(self.running.remove(&id).expect("runs")).await;
    }

    pub fn addr(&self, id: u64) -> String {
        self.configs
            .iter()
            .find(|c| c.id == id)
            .unwrap()
            .listen
            .to_string()
    }

    pub async fn volumes(&self, id: u64) -> VolumesClient<tonic::transport::Channel> {
        VolumesClient::new(channel(&self.addr(id)).await)
    }

    /// Whoever answers a read leads.
    pub async fn leader(&self) -> u64 {
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

    /// Starts `back` again and stops the third one, so that it or `other` has to lead: with what it has learnt meanwhile.
    pub async fn leader_of_two(&mut self, back: u64, other: u64) -> u64 {
        self.start_member(back);
        let is_third = |id: &&u64| ![back, other].contains(id);
        let third = *self.running.keys().find(is_third).unwrap();
        self.stop_member(third).await;
        self.leader().await
    }

    pub async fn make_pool(&self, leader: u64) {
        small_pool(&self.addr(leader)).await;
    }
}
