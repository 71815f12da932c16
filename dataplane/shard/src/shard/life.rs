//! A shard's life: open, serve, obey, stop.

use super::hosted::{Damaged, Hosted};
use super::stores::OpenStore;
use super::{Shard, report};
use crate::config::{ScrubConfig, StoreConfig};
use crate::error::ShardError;
use crate::limit::STOP_WAIT;
use crate::order::{ShardEvent, ShardOrder, ShardStart};
use ogee_group::{CommandHead, CommandKind, Group, GroupConfig, Mender, PeerBook, command};
use ogee_proto::id::{
    ChunkIndex, ChunkKey, ClientId, CopysetId, Epoch, Incarnation, ReplicaId, Sequence, VolumeId,
};
use ogee_proto::unit::ByteLen;
use ogee_runtime::{Payload, bridge};
use ogee_store::Bucket;
use ogee_transport::{
    CallerOptions, ConnectionOptions, Hello, Listener, RdmaOptions, Role, Service, Transport,
};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// What a shard is started with.
pub struct ShardSetup {
    /// Its number in the process.
    pub number: u16,
    /// Name of the chunkserver.
    pub chunkserver: String,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Over what, and over what it connects to others.
    pub transport: Transport,
    /// Its RDMA.
    pub rdma: RdmaOptions,
    /// What it owns.
    pub stores: Vec<StoreConfig>,
    /// The cluster, if it is known.
    pub cluster: Option<Uuid>,
    /// Raft times.
    pub group: GroupConfig,
    /// How each store is read whole, for what rots; `None`: never.
    pub scrub: Option<ScrubConfig>,
    /// Bytes per second that copies, comparisons and scrubbing may read and write together on each device.
    pub device_rate: ByteLen,
    /// What copies of all shards may send and receive together.
    pub network: Arc<Bucket>,
    /// Replicas that are no members any more: they are not opened.
    pub fenced: BTreeSet<(CopysetId, ReplicaId)>,
    /// What it is told.
    pub orders: bridge::Receiver<ShardOrder>,
    /// What it tells.
    pub events: bridge::Sender<ShardEvent>,
}

/// The shard's main task.
pub async fn run(setup: ShardSetup) {
    let events = setup.events.clone();
    match open(&setup).await {
        Err(error) => {
            // The control thread is gone only if the process ends anyway.
            drop(
                events
                    .send(ShardEvent::Started {
                        outcome: Err(error),
                    })
                    .await,
            );
        }
        Ok((shard, service)) => {
            let started = ShardEvent::Started {
                outcome: Ok(ShardStart {
                    shard: setup.number,
                    endpoint: service.endpoint().clone(),
                    stores: report::stores(&shard),
                }),
            };
            if events.send(started).await.is_ok() {
                let _lights = super::light::start(&shard, setup.scrub);
                let _scrubs = super::scrub::start(&shard, setup.scrub);
                let _comparisons = super::compare::start(&shard, setup.scrub);
                obey(&shard, setup.orders, &events).await;
            }
            stop(&shard, service).await;
        }
    }
}

async fn open(setup: &ShardSetup) -> Result<(Rc<Shard>, Service), ShardError> {
    let address = setup.listen;
    set_rdma(&setup.rdma);
    // The address first: a second process of this name fails here, before it touches a device.
    let listener = Listener::bind(&setup.transport.listen(address));
    let listener = listener.map_err(|source| ShardError::Listen { address, source })?;
    let mut stores = Vec::with_capacity(setup.stores.len());
    for config in &setup.stores {
        stores.push(OpenStore::open(config, setup.cluster).await?);
    }
    let hello = Hello::new(
        Role::Chunkserver,
        u64::from(setup.number),
        setup.chunkserver.as_str(),
    );
    let options = CallerOptions {
        connection: ConnectionOptions {
            transport: setup.transport,
            ..ConnectionOptions::default()
        },
        ..CallerOptions::default()
    };
    let peers = Rc::new(PeerBook::new(hello.clone(), options));
    for open in &stores {
        open.store.budget().limit_to(setup.device_rate.get());
    }
    let network = setup.network.clone();
    let shard = Shard::new(setup.number, stores, peers, (setup.group, network));
    let shard = Rc::new(shard);
    shard.open_groups(&setup.fenced).await;
    let handler = shard.clone();
    let service = Service::serve(
        listener,
        hello,
        Rc::new(move |peer, frame| handler.handle(peer, frame)),
    );
    Ok((shard, service))
}

/// For this thread's port, before its first use.
#[cfg(feature = "rdma")]
fn set_rdma(options: &RdmaOptions) {
    ogee_transport::rdma::configure(options.clone());
}

/// A program without RDMA has none.
#[cfg(not(feature = "rdma"))]
const fn set_rdma(_: &RdmaOptions) {}

async fn obey(
    shard: &Rc<Shard>,
    mut orders: bridge::Receiver<ShardOrder>,
    events: &bridge::Sender<ShardEvent>,
) {
    while let Some(order) = orders.recv().await {
        match order {
            ShardOrder::Stop => return,
            ShardOrder::Report => {
                shard.retire_failed_stores();
                shard.retire_lost_replicas();
                let report = Box::new(report::report(shard));
                if events.send(ShardEvent::Report(report)).await.is_err() {
                    return;
                }
            }
            ShardOrder::Probe(stores) => shard.try_out(&stores),
            ShardOrder::Learn(places) => {
                for (replica, endpoint) in places {
                    shard.peers.learn(replica, endpoint);
                }
            }
            ShardOrder::CreateReplica {
                copyset,
                replica,
                store,
                bootstrap,
                replaces,
            } => {
                let made = shard
                    .create_replica(copyset, replica, store, bootstrap, replaces)
                    .await;
                if let Err(error) = made {
                    tracing::error!(%copyset, %replica, %error, "cannot create the replica");
                }
            }
            ShardOrder::ListVolumes { after } => shard.listing.set(Some(after)),
            ShardOrder::ChangeMembers(change) => shard.change_members(change),
            ShardOrder::ResetReplica(reset) => shard.reset_replica(reset),
            ShardOrder::RemoveReplica { copyset, replica } => {
                shard.remove_replica(copyset, replica);
            }
            ShardOrder::Transfer { copyset, to } => transfer(shard, copyset, to).await,
            ShardOrder::RemoveVolume { volume, copysets } => {
                shard.remove_volume(volume, copysets);
            }
        }
    }
}

async fn transfer(shard: &Shard, copyset: CopysetId, to: ReplicaId) {
    let Some(group) = shard.group(copyset) else {
        return;
    };
    match group.transfer_leader(to).await {
        Ok(true) => tracing::info!(%copyset, %to, "handing leadership over"),
        Ok(false) => tracing::debug!(%copyset, %to, "target has not caught up, not handed over"),
        Err(error) => tracing::warn!(%copyset, %error, "cannot hand leadership over"),
    }
}

impl Shard {
    /// Stops the groups of a store whose log or write-back has failed: their log could never be freed
    /// again, and a device that fails writes is no place to acknowledge them. Leaders move.
    fn retire_failed_stores(&self) {
        for open in self.stores.iter().filter(|open| open.has_failed()) {
            for hosted in self
                .hosted()
                .into_iter()
                .filter(|hosted| hosted.store == open.id())
            {
                if self
                    .groups
                    .borrow_mut()
                    .remove(&hosted.group.copyset())
                    .is_some()
                {
                    tracing::error!(store = %open.id(), copyset = %hosted.group.copyset(),
                        "the store has failed: the replica is out of service");
                    self.note_broken(hosted.group.copyset(), open, "failed");
                    open.keeper.remove(hosted.group.copyset());
                    drop(ogee_runtime::spawn(
                        async move { hosted.group.shutdown().await },
                    ));
                }
            }
        }
    }

    /// Stops replicas that have lost data for good: their part of the log could never be freed.
    fn retire_lost_replicas(&self) {
        for Hosted { group, store, .. } in self.hosted() {
            if !group.needs_replacing() {
                continue;
            }
            let copyset = group.copyset();
            let damaged = Damaged {
                mender: Rc::new(Mender::of_lost(&group)),
                store,
            };
            self.groups.borrow_mut().remove(&copyset);
            self.damaged.borrow_mut().insert(copyset, damaged);
            if let Some(open) = self.store(store) {
                open.keeper.remove(copyset);
            }
            tracing::error!(%copyset, "the replica is out of service: replace it");
            drop(ogee_runtime::spawn(async move { group.shutdown().await }));
        }
    }

    /// Proposes the removal where this shard leads; the others learn it from the log.
    fn remove_volume(self: &Rc<Self>, volume: VolumeId, copysets: Vec<CopysetId>) {
        let mut removing = self.removing.borrow_mut();
        let pending = removing.entry(volume).or_default();
        for copyset in copysets {
            pending.insert(copyset);
            let Some(group) = self.group(copyset).filter(|g| !g.knows_removed(volume)) else {
                continue;
            };
            if group.report().is_leader {
                drop(ogee_runtime::spawn(async move {
                    propose_removal(&group, volume).await;
                }));
            }
        }
    }
}

async fn propose_removal(group: &Group, volume: VolumeId) {
    let head = CommandHead {
        kind: CommandKind::RemoveVolume,
        key: ChunkKey {
            volume,
            chunk: ChunkIndex::new(0),
        },
        offset: 0,
        length: 0,
        client: ClientId::new(0),
        epoch: Epoch::new(0),
        incarnation: Incarnation::new(0),
        sequence: Sequence::new(0),
        watermark: Sequence::new(0),
    };
    let outcome = group.mutate(command(head, Payload::empty(), 0)).await;
    tracing::debug!(copyset = %group.copyset(), %volume, ?outcome, "removal proposed");
}

/// Hands leaders over so that clients see no gap, makes the log short, and closes.
async fn stop(shard: &Rc<Shard>, service: Service) {
    if ogee_runtime::timeout(STOP_WAIT, hand_over(shard))
        .await
        .is_err()
    {
        tracing::warn!(
            shard = shard.number,
            "stopping while still leading some groups"
        );
    }
    for open in &shard.stores {
        if ogee_runtime::timeout(STOP_WAIT, open.keeper.checkpoint_now()).await != Ok(true) {
            tracing::warn!(store = %open.id(), "stopping without a last checkpoint");
        }
    }
    for hosted in shard.hosted() {
        hosted.group.shutdown().await;
    }
    for open in &shard.stores {
        open.keeper.stop();
        if let Err(error) = open.log.close().await {
            tracing::warn!(store = %open.id(), %error, "the log did not close cleanly");
        }
    }
    service.close().await;
}

async fn hand_over(shard: &Shard) {
    for hosted in shard.hosted() {
        while hosted.group.report().is_leader {
            let others = hosted.group.voters();
            let mut asked = false;
            for to in others
                .into_iter()
                .filter(|id| *id != hosted.group.replica_id())
            {
                if let Ok(true) = hosted.group.transfer_leader(to).await {
                    asked = true;
                    break;
                }
            }
            if !asked {
                break;
            }
            ogee_runtime::sleep(Duration::from_millis(20)).await;
        }
    }
}
