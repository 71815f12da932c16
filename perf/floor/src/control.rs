//! The stand-in of the metadata server: one volume that is always there and granted to whoever asks.
//!
//! *Owner*: a thread of its own. *Invariants*: each attachment has a new epoch. *On failure*: it ends
//! with the process.

use crate::config::{FloorConfig, leader_of, replica_of};
use crate::error::FloorError;
use crate::limit::{NODES, VOLUME};
use ogee_proto::id::CopysetId;
use ogee_proto::service::volumes_server::{Volumes, VolumesServer};
use ogee_proto::service::{
    AttachRequest, Attachment, CopysetInfo, CreateVolumeRequest, DetachRequest, Empty,
    ListVolumesRequest, ListVolumesResponse, MapSegment, RefreshRequest, RemoveVolumeRequest,
    ReplicaInfo, ResizeVolumeRequest, VolumeInfo, VolumeMap, VolumeName,
};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// Answers from now on.
pub(crate) fn start(
    address: SocketAddr,
    config: &FloorConfig,
) -> Result<JoinHandle<()>, FloorError> {
    let failed = |source: io::Error| FloorError::Control { address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let api = VolumesServer::new(Control {
        config: config.clone(),
        epoch: AtomicU64::new(0),
    });
    let serve = async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let incoming = TcpIncoming::from(listener);
        let served = Server::builder()
            .add_service(api)
            .serve_with_incoming(incoming);
        served.await.map_err(io::Error::other)
    };
    let thread = std::thread::Builder::new().name("floor-control".to_owned());
    let body = move || {
        if let Err(error) = runtime.block_on(serve) {
            tracing::error!(%error, "nobody answers for the metadata server any more");
        }
    };
    thread.spawn(body).map_err(failed)
}

struct Control {
    config: FloorConfig,
    epoch: AtomicU64,
}

impl Control {
    fn info(&self, name: &str) -> Result<VolumeInfo, Status> {
        if name != VOLUME {
            return Err(Status::not_found(format!(
                "there is only one volume: {VOLUME}"
            )));
        }
        Ok(VolumeInfo {
            id: 1,
            name: VOLUME.to_owned(),
            size: self.config.volume_len.get(),
            replicas: u32::try_from(NODES).unwrap_or(u32::MAX),
            epoch: self.epoch.load(Ordering::Relaxed),
            copyset_count: self.config.groups,
            ..VolumeInfo::default()
        })
    }

    fn map(&self, name: &str) -> Result<VolumeMap, Status> {
        let groups = || self.config.groups();
        Ok(VolumeMap {
            volume: Some(self.info(name)?),
            segments: vec![MapSegment {
                first_chunk: 0,
                copysets: groups().map(CopysetId::get).collect(),
            }],
            copysets: groups().map(|group| self.copyset(group)).collect(),
            mds: Vec::new(),
        })
    }

    fn copyset(&self, group: CopysetId) -> CopysetInfo {
        let replica = |(node, address): (usize, &SocketAddr)| ReplicaInfo {
            id: replica_of(group, node).get(),
            endpoint: address.to_string(),
            online: true,
            ..ReplicaInfo::default()
        };
        CopysetInfo {
            id: group.get(),
            replicas: self.config.peers.iter().enumerate().map(replica).collect(),
            leader_replica: replica_of(group, leader_of(group)).get(),
            formed: true,
            ..CopysetInfo::default()
        }
    }
}

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented(
        "this is the replication floor: it has one volume and only loads it",
    ))
}

#[tonic::async_trait]
impl Volumes for Control {
    async fn attach(
        &self,
        request: Request<AttachRequest>,
    ) -> Result<Response<Attachment>, Status> {
        let map = self.map(&request.get_ref().name)?;
        let epoch = self.epoch.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(Response::new(Attachment {
            map: Some(map),
            client: epoch,
            epoch,
        }))
    }

    async fn refresh(
        &self,
        request: Request<RefreshRequest>,
    ) -> Result<Response<VolumeMap>, Status> {
        Ok(Response::new(self.map(&request.get_ref().name)?))
    }

    async fn detach(&self, _: Request<DetachRequest>) -> Result<Response<Empty>, Status> {
        Ok(Response::new(Empty {}))
    }

    async fn show(&self, request: Request<VolumeName>) -> Result<Response<VolumeInfo>, Status> {
        Ok(Response::new(self.info(&request.get_ref().name)?))
    }

    async fn locate(&self, request: Request<VolumeName>) -> Result<Response<VolumeMap>, Status> {
        Ok(Response::new(self.map(&request.get_ref().name)?))
    }

    async fn list(
        &self,
        _: Request<ListVolumesRequest>,
    ) -> Result<Response<ListVolumesResponse>, Status> {
        Ok(Response::new(ListVolumesResponse {
            volumes: vec![self.info(VOLUME)?],
            next: String::new(),
        }))
    }

    async fn create(
        &self,
        _: Request<CreateVolumeRequest>,
    ) -> Result<Response<VolumeInfo>, Status> {
        not_here()
    }

    async fn resize(
        &self,
        _: Request<ResizeVolumeRequest>,
    ) -> Result<Response<VolumeInfo>, Status> {
        not_here()
    }

    async fn remove(&self, _: Request<RemoveVolumeRequest>) -> Result<Response<Empty>, Status> {
        not_here()
    }
}
