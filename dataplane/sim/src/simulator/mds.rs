//! A simulated metadata server: epochs, maps, and orders to change members.
//!
//! *Place*: in place of `control`, which is a process of its own that the data plane never calls.
//! *Owner*: the simulation; it never crashes, but may be out of reach for a while.
//! *Invariants*: as the real one keeps them: an epoch and a replica id are given out once; a replica is
//! ordered away only when the voters without it were reported as committed; one change of a copyset
//! at a time; orders are repeated until they are seen done.
//! *On failure*: none of its own. While it is out of reach nobody is ordered, and who attaches hears nothing, or goes on
//! with what the volume's last user has kept, as the next incarnation: as `ogee_client::KeptControl` does from a file.

use super::node::{Node, NodeState};
use ogee_client::{
    AttachSpec, Control, ControlError, ControlFuture, CopysetView, Grant, MapSegment, ReplicaView,
    VolumeHead, VolumeMap,
};
use ogee_group::ReplicaNode;
use ogee_proto::id::{
    ChunkIndex, ClientId, CopysetId, Epoch, Incarnation, ReplicaId, Term, VolumeId,
};
use ogee_proto::layout::StripeLayout;
use ogee_proto::limit::CHUNK_SIZE;
use ogee_proto::unit::ByteLen;
use ogee_runtime::sim::{HostId, world_time};
use ogee_runtime::{random_u64, sleep};
use ogee_shard::simulated::{ChangeMembers, ReplicaStatus, ShardOrder};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// Between two rounds of reports and orders.
const ROUND: Duration = Duration::from_millis(200);
/// How long an answer takes.
const LATENCY: Duration = Duration::from_millis(1);
/// How long a client waits for one that does not come.
const PATIENCE: Duration = Duration::from_millis(400);

/// A copyset and what is being done about it.
#[derive(Debug)]
struct Copyset {
    /// Its members, and where each is.
    replicas: BTreeMap<ReplicaId, HostId>,
    conf_epoch: u64,
    change: Option<Change>,
    /// Members of the past that may still lie on disks.
    leaving: BTreeMap<ReplicaId, HostId>,
    leader: Option<(ReplicaId, Term)>,
    is_bootstrapped: bool,
}

/// One replica in place of another.
#[derive(Debug, Clone, Copy)]
struct Change {
    old: ReplicaId,
    new: ReplicaId,
    host: HostId,
}

#[derive(Debug)]
struct VolumeState {
    id: VolumeId,
    chunks: u32,
    copysets: Vec<CopysetId>,
    epoch: u64,
    /// How often its last user's record was used.
    incarnation: u32,
}

/// The metadata server.
pub struct Mds {
    nodes: Vec<Rc<Node>>,
    copysets: RefCell<BTreeMap<CopysetId, Copyset>>,
    volumes: RefCell<BTreeMap<String, VolumeState>>,
    next_replica: Cell<u64>,
    is_out_of_reach: Cell<bool>,
    changes_done: Cell<u64>,
}

impl Mds {
    /// One that knows these chunkservers.
    #[must_use]
    pub fn new(nodes: Vec<Rc<Node>>) -> Rc<Self> {
        Rc::new(Self {
            nodes,
            copysets: RefCell::default(),
            volumes: RefCell::default(),
            next_replica: Cell::new(1),
            is_out_of_reach: Cell::new(false),
            changes_done: Cell::new(0),
        })
    }

    /// Places a copyset.
    pub fn add_copyset(&self, id: CopysetId, hosts: &[HostId]) {
        let replicas = hosts.iter().map(|host| (self.fresh_replica(), *host));
        let copyset = Copyset {
            replicas: replicas.collect(),
            conf_epoch: 1,
            change: None,
            leaving: BTreeMap::new(),
            leader: None,
            is_bootstrapped: false,
        };
        self.copysets.borrow_mut().insert(id, copyset);
    }

    /// Makes a volume whose chunks go round the copysets.
    pub fn add_volume(&self, number: u32, chunks: u32, copysets: &[CopysetId]) {
        let volume = VolumeState {
            id: VolumeId::new(u64::from(number)),
            chunks,
            copysets: copysets.to_vec(),
            epoch: 0,
            incarnation: 0,
        };
        self.volumes
            .borrow_mut()
            .insert(volume_name(number), volume);
    }

    fn fresh_replica(&self) -> ReplicaId {
        let id = self.next_replica.get();
        self.next_replica.set(id + 1);
        ReplicaId::new(id)
    }

    /// Puts it out of reach, or back.
    pub fn set_out_of_reach(&self, is_out: bool) {
        self.is_out_of_reach.set(is_out);
    }

    /// Changes of members that were seen to be done.
    #[must_use]
    pub fn changes_done(&self) -> u64 {
        self.changes_done.get()
    }

    /// Who is coming into a copyset.
    #[must_use]
    pub fn newcomer_of(&self, id: CopysetId) -> Option<(ReplicaId, HostId)> {
        let change = self.copysets.borrow()[&id].change?;
        Some((change.new, change.host))
    }

    /// Where the leader of a copyset is, and its other members.
    #[must_use]
    pub fn leader_and_others(&self, id: CopysetId) -> Option<(HostId, Vec<HostId>)> {
        let (leader, mut others) = (self.leader(id)?, self.members(id));
        let host = others.remove(&leader)?;
        Some((host, others.into_values().collect()))
    }

    /// Every copyset.
    #[must_use]
    pub fn copyset_ids(&self) -> Vec<CopysetId> {
        self.copysets.borrow().keys().copied().collect()
    }

    /// Members of a copyset and where they are.
    #[must_use]
    pub fn members(&self, id: CopysetId) -> BTreeMap<ReplicaId, HostId> {
        self.copysets.borrow()[&id].replicas.clone()
    }

    /// Who leads a copyset, as last reported.
    #[must_use]
    pub fn leader(&self, id: CopysetId) -> Option<ReplicaId> {
        self.copysets.borrow()[&id].leader.map(|(id, _)| id)
    }

    /// Whether a copyset's members are being changed, or old ones deleted.
    #[must_use]
    pub fn is_changing(&self, id: CopysetId) -> bool {
        let copysets = self.copysets.borrow();
        copysets[&id].change.is_some() || !copysets[&id].leaving.is_empty()
    }

    /// Begins to put a new replica, on a host that has none, in place of one. `false` if it cannot.
    pub fn replace(&self, id: CopysetId, old: ReplicaId, host: HostId) -> bool {
        let new = self.fresh_replica();
        let mut copysets = self.copysets.borrow_mut();
        let copyset = copysets.get_mut(&id).expect("invariant: asked of its own");
        if copyset.change.is_some()
            || !copyset.replicas.contains_key(&old)
            || copyset.replicas.values().any(|at| *at == host)
            || copyset.leaving.values().any(|at| *at == host)
        {
            return false;
        }
        tracing::info!(%id, %old, %new, host = host.get(), "SIM replace");
        copyset.change = Some(Change { old, new, host });
        copyset.conf_epoch += 1;
        true
    }

    /// A host's disk is gone: nothing there need be deleted any more.
    pub fn forget_disk(&self, host: HostId) {
        for copyset in self.copysets.borrow_mut().values_mut() {
            copyset.leaving.retain(|_, at| *at != host);
        }
    }

    /// Orders a handover of leadership.
    pub fn transfer(&self, id: CopysetId, to: ReplicaId) {
        let leader = self.copysets.borrow()[&id].leader;
        if let Some(node) = leader.and_then(|(leader, _)| self.node_of(id, leader)) {
            node.order(ShardOrder::Transfer { copyset: id, to });
        }
    }

    fn node_of(&self, id: CopysetId, replica: ReplicaId) -> Option<Rc<Node>> {
        let copysets = self.copysets.borrow();
        let host = copysets[&id].replicas.get(&replica)?;
        self.node(*host)
    }

    fn node(&self, host: HostId) -> Option<Rc<Node>> {
        self.nodes.iter().find(|node| node.host() == host).cloned()
    }

    /// How a member stands, as its host last reported.
    #[must_use]
    pub fn status(&self, id: CopysetId, replica: ReplicaId, host: HostId) -> Option<ReplicaStatus> {
        let report = self.node(host)?.report()?;
        let mut of_it = report.replicas.iter();
        of_it
            .find(|status| status.group.copyset == id && status.group.replica == replica)
            .cloned()
    }

    /// Collects reports and gives orders, for ever.
    pub async fn run(self: Rc<Self>) {
        loop {
            sleep(ROUND).await;
            if !self.is_out_of_reach.get() {
                self.round();
            }
        }
    }

    fn round(&self) {
        let places = self.places();
        let ids = self.copyset_ids();
        for id in &ids {
            self.note_reports(*id);
            for (host, order) in self.orders(*id) {
                if let Some(node) = self.node(host) {
                    node.order(order);
                }
            }
        }
        for node in self
            .nodes
            .iter()
            .filter(|node| node.state() == NodeState::Up)
        {
            node.order(ShardOrder::Learn(places.clone()));
            node.order(ShardOrder::Report);
        }
    }

    fn places(&self) -> Vec<(ReplicaId, ogee_transport::Endpoint)> {
        let copysets = self.copysets.borrow();
        let replicas = copysets.values().flat_map(|copyset| {
            let coming = copyset.change.map(|change| (change.new, change.host));
            copyset
                .replicas
                .iter()
                .map(|(id, at)| (*id, *at))
                .chain(coming)
        });
        replicas
            .filter_map(|(id, host)| Some((id, self.node(host)?.endpoint())))
            .collect()
    }

    /// Takes in what is reported of one copyset.
    fn note_reports(&self, id: CopysetId) {
        let mut copysets = self.copysets.borrow_mut();
        let copyset = copysets.get_mut(&id).expect("invariant: asked of its own");
        let reports = self.nodes.iter().filter_map(|node| node.report());
        let statuses: Vec<ReplicaStatus> = reports
            .flat_map(|report| report.replicas.clone())
            .filter(|status| status.group.copyset == id)
            .collect();
        let leaders = statuses.iter().filter(|status| status.group.is_leader);
        let Some(leader) = leaders.max_by_key(|status| status.group.term) else {
            return;
        };
        copyset.is_bootstrapped = true;
        copyset.leader = Some((leader.group.replica, leader.group.term));
        if let Some(change) = copyset.change {
            let mut wanted = copyset.replicas.clone();
            wanted.remove(&change.old);
            wanted.insert(change.new, change.host);
            let mut voters = leader.voters.clone();
            voters.sort();
            if voters.iter().eq(wanted.keys()) {
                tracing::info!(%id, old = %change.old, new = %change.new, "SIM replaced");
                let host = copyset.replicas[&change.old];
                copyset.replicas = wanted;
                copyset.change = None;
                copyset.leaving.insert(change.old, host);
                self.changes_done.set(self.changes_done.get() + 1);
            }
        }
        for node in &self.nodes {
            for removed in node.report().iter().flat_map(|it| &it.replicas_removed) {
                if removed.0 == id {
                    copyset.leaving.remove(&removed.1);
                }
            }
        }
    }

    /// What is to be ordered for one copyset now.
    fn orders(&self, id: CopysetId) -> Vec<(HostId, ShardOrder)> {
        let copysets = self.copysets.borrow();
        let copyset = &copysets[&id];
        let mut orders = Vec::new();
        if !copyset.is_bootstrapped {
            orders.extend(self.first_orders(id, copyset));
        }
        if let Some(change) = copyset.change {
            orders.extend(self.change_orders(id, copyset, change));
        }
        for (replica, host) in &copyset.leaving {
            let (copyset, replica) = (id, *replica);
            orders.push((*host, ShardOrder::RemoveReplica { copyset, replica }));
        }
        orders
    }

    /// Makes every replica, then the group by the first of them.
    fn first_orders(&self, id: CopysetId, copyset: &Copyset) -> Vec<(HostId, ShardOrder)> {
        let members: BTreeMap<_, _> = self.members_as_nodes(&copyset.replicas);
        let is_made =
            |(replica, host): (&ReplicaId, &HostId)| self.status(id, *replica, *host).is_some();
        let all_made = copyset.replicas.iter().all(is_made);
        let replicas = copyset.replicas.iter().enumerate();
        let orders = replicas.filter_map(|(at, (replica, host))| {
            let order = ShardOrder::CreateReplica {
                copyset: id,
                replica: *replica,
                store: self.node(*host)?.store()?,
                bootstrap: (all_made && at == 0).then(|| members.clone()),
                replaces: None,
            };
            Some((*host, order))
        });
        orders.collect()
    }

    fn change_orders(
        &self,
        id: CopysetId,
        copyset: &Copyset,
        change: Change,
    ) -> Vec<(HostId, ShardOrder)> {
        let mut orders = Vec::new();
        let Some(node) = self.node(change.host) else {
            return orders;
        };
        if self.status(id, change.new, change.host).is_none() {
            if let Some(store) = node.store() {
                let order = ShardOrder::CreateReplica {
                    copyset: id,
                    replica: change.new,
                    store,
                    bootstrap: None,
                    replaces: None,
                };
                orders.push((change.host, order));
            }
            return orders;
        }
        let leader = copyset.leader.and_then(|(leader, term)| {
            let host = copyset.replicas.get(&leader).copied();
            // The new one may lead before this is known.
            Some((
                host.or((leader == change.new).then_some(change.host))?,
                term,
            ))
        });
        if let Some((host, term)) = leader {
            let mut wanted = copyset.replicas.clone();
            wanted.remove(&change.old);
            wanted.insert(change.new, change.host);
            let order = ChangeMembers {
                copyset: id,
                members: self.members_as_nodes(&wanted),
                term,
                conf_epoch: copyset.conf_epoch,
            };
            orders.push((host, ShardOrder::ChangeMembers(order)));
        }
        orders
    }

    fn members_as_nodes(
        &self,
        replicas: &BTreeMap<ReplicaId, HostId>,
    ) -> BTreeMap<ReplicaId, ReplicaNode> {
        let node = |(replica, host): (&ReplicaId, &HostId)| {
            let endpoint = self.node(*host)?.endpoint().to_string().into();
            let chunkserver = host.get();
            Some((
                *replica,
                ReplicaNode {
                    chunkserver,
                    endpoint,
                },
            ))
        };
        replicas.iter().filter_map(node).collect()
    }

    fn map(&self, name: &str) -> Option<VolumeMap> {
        let volumes = self.volumes.borrow();
        let volume = volumes.get(name)?;
        let head = VolumeHead {
            id: volume.id,
            name: name.to_owned(),
            size: ByteLen::new(u64::from(volume.chunks) * CHUNK_SIZE as u64),
            layout: StripeLayout::default(),
        };
        let segment = MapSegment {
            first: ChunkIndex::new(0),
            copysets: volume.copysets.clone(),
        };
        let copysets = self.copysets.borrow();
        let view = |id: &CopysetId| {
            let copyset = &copysets[id];
            let replicas = copyset.replicas.iter().map(|(id, host)| ReplicaView {
                id: *id,
                endpoint: self.node(*host).map(|node| node.endpoint()),
            });
            CopysetView {
                id: *id,
                replicas: replicas.collect(),
                leader: copyset.leader.map(|(leader, _)| leader),
            }
        };
        let views = volume.copysets.iter().map(view).collect();
        Some(VolumeMap::new(head, vec![segment], views).expect("invariant: a map without holes"))
    }

    async fn answer<T>(&self, answer: impl FnOnce() -> T) -> Result<T, ControlError> {
        sleep(LATENCY).await;
        if self.is_out_of_reach.get() {
            sleep(PATIENCE).await;
            return Err(ControlError::Unreachable {
                endpoints: Vec::new(),
                waited: PATIENCE,
                last: None,
            });
        }
        let answer = answer();
        sleep(LATENCY).await;
        Ok(answer)
    }

    fn grant(&self, spec: &AttachSpec) -> Option<Grant> {
        let (client, epoch) = {
            let mut volumes = self.volumes.borrow_mut();
            let volume = volumes.get_mut(&spec.name)?;
            volume.epoch += 1;
            volume.incarnation = 1;
            let client = volume.id.get() * 1_000_000 + volume.epoch;
            (ClientId::new(client), Epoch::new(volume.epoch))
        };
        tracing::info!(volume = spec.name, host = spec.host, %epoch, at = ?world_time(), "SIM attach");
        let map = self.map(&spec.name)?;
        Some(Grant {
            client,
            epoch,
            incarnation: Incarnation::new(1),
            map,
        })
    }

    /// What a frontend makes of the record of the volume's last user, whether that one is gone or not.
    fn resume(&self, name: &str) -> Option<Grant> {
        let (epoch, incarnation) = {
            let mut volumes = self.volumes.borrow_mut();
            let volume = volumes.get_mut(name).filter(|volume| volume.epoch > 0)?;
            volume.incarnation += 1;
            (
                Epoch::new(volume.epoch),
                Incarnation::new(volume.incarnation),
            )
        };
        tracing::info!(volume = name, %epoch, %incarnation, at = ?world_time(), "SIM resume");
        Some(Grant {
            client: ClientId::new(random_u64() | 1 << 63),
            epoch,
            incarnation,
            map: self.map(name)?,
        })
    }
}

impl Control for Mds {
    fn attach(&self, spec: AttachSpec) -> ControlFuture<'_, Grant> {
        Box::pin(async move {
            match self.answer(|| self.grant(&spec)).await {
                Ok(granted) => granted.ok_or(ControlError::NoEndpoints),
                // Some have kept a record, some have not.
                Err(silence) if random_u64() & 1 == 0 => Err(silence),
                Err(silence) => self.resume(&spec.name).ok_or(silence),
            }
        })
    }

    fn refresh(&self, name: &str, _: ClientId, _: Epoch) -> ControlFuture<'_, VolumeMap> {
        let name = name.to_owned();
        Box::pin(async move {
            let map = self.answer(|| self.map(&name)).await?;
            map.ok_or(ControlError::NoEndpoints)
        })
    }

    fn detach(&self, _: &str, _: ClientId, _: Epoch) -> ControlFuture<'_, ()> {
        Box::pin(async { self.answer(|| ()).await })
    }
}

/// A volume by number.
#[must_use]
pub fn volume_name(number: u32) -> String {
    format!("v{number}")
}
