//! A metadata server from start to stop.
//!
//! *Place*: the crate's entry, used by the `ogee` binary and by tests.
//! *Owner*: whoever holds the [`MdsHandle`]. Two threads: one for Raft, one for gRPC and HTTP.
//! *Invariants*: the API thread ends before the Raft thread is asked to, so no accepted request
//! finds its way barred; if Raft ends by itself, the API ends too.
//! *On failure*: start reports what is wrong with paths and addresses before any thread runs.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use ogee_proto::service::chunkservers_server::ChunkserversServer;
use ogee_proto::service::mds_raft_server::MdsRaftServer;
use ogee_proto::service::members_server::MembersServer;
use ogee_proto::service::names_server::NamesServer;
use ogee_proto::service::topology_server::TopologyServer;
use ogee_proto::service::volumes_server::VolumesServer;
use tokio::sync::watch;
use tonic::transport::server::TcpIncoming;

use crate::api::{
    ApiConfig, ChunkserversApi, Context, MembersApi, NamesApi, PeersApi, TopologyApi, VolumesApi,
    heal, router, watch_cluster,
};
use crate::config::MdsConfig;
use crate::error::MdsError;
use crate::limit::{GRPC_REQUEST_MAX, LEAVE_WAIT, RAFT_MESSAGE_MAX, STOP_GRACE};
use crate::raft::{Consistency, LEDGER_FILE, Ledger, Node, NodeConfig};

const API_THREAD: &str = "ogee-mds-api";

/// The metadata server.
pub struct Mds;

/// A running metadata server. Dropping it stops it as [`MdsHandle::stop`] does.
pub struct MdsHandle {
    addr: SocketAddr,
    metrics_addr: Option<SocketAddr>,
    stopper: Stopper,
    threads: Option<Threads>,
}

struct Threads {
    api: JoinHandle<Result<(), MdsError>>,
    node: Node,
}

/// Asks a metadata server to stop, from any thread.
#[derive(Clone)]
pub struct Stopper(watch::Sender<bool>);

impl Stopper {
    /// Asks; returns at once.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

/// Sockets that are bound but not served yet.
struct Sockets {
    grpc: TcpListener,
    http: Option<TcpListener>,
}

impl Mds {
    /// Starts a metadata server; when it returns, its sockets accept. It may not lead yet.
    ///
    /// # Errors
    /// What is wrong with the configuration, the data directory or the addresses.
    pub fn start(config: &MdsConfig) -> Result<MdsHandle, MdsError> {
        let cluster = config.cluster_name()?;
        let heal = config.heal_rules()?;
        let grpc = listen(config.listen, "gRPC")?;
        let http = config
            .metrics_listen
            .map(|addr| listen(addr, "metrics"))
            .transpose()?;
        let sockets = Sockets { grpc, http };
        let addr = bound(&sockets.grpc, config.listen, "gRPC")?;
        let metrics_addr = match (&sockets.http, config.metrics_listen) {
            (Some(listener), Some(asked)) => Some(bound(listener, asked, "metrics")?),
            _ => None,
        };
        let members = config.group(addr)?;
        let version = config.version()?;
        let ledger = open_ledger(&config.data_dir, config.id, version)?;
        let stopper = Stopper(watch::Sender::new(false));
        let node_config = NodeConfig {
            id: config.id,
            members,
            cluster: cluster.clone(),
            join: config.join,
            version,
        };
        let raft_ended = stopper.clone();
        let (raft, node) = Node::start(node_config, ledger, move || raft_ended.stop())?;
        let api_config = ApiConfig {
            id: config.id,
            version,
            cluster: cluster.to_string(),
            heartbeat: Duration::from_millis(config.heartbeat_ms),
            offline: Duration::from_millis(config.offline_ms),
            zone_wait: Duration::from_millis(config.zone_wait_ms),
            heal,
        };
        let context = Arc::new(Context::new(api_config, raft));
        let api = start_api(context, sockets, stopper.0.subscribe())?;
        tracing::info!(%addr, member = config.id, "metadata server started");
        let threads = Some(Threads { api, node });
        Ok(MdsHandle {
            addr,
            metrics_addr,
            stopper,
            threads,
        })
    }
}

impl MdsHandle {
    /// Where gRPC is served: the port is real even if 0 was asked for.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where `/metrics` is served, if it is.
    #[must_use]
    pub const fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_addr
    }

    /// Something to stop it with from elsewhere, such as a signal handler.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Blocks until it was stopped, or stopped by itself.
    ///
    /// # Errors
    /// Why it stopped by itself.
    pub fn join(mut self) -> Result<(), MdsError> {
        self.threads.take().map_or(Ok(()), Threads::join)
    }

    /// Stops it: open requests are finished for a short while, then the disk is closed.
    ///
    /// # Errors
    /// Why it had stopped by itself before.
    pub fn stop(self) -> Result<(), MdsError> {
        self.stopper.stop();
        self.join()
    }
}

impl Drop for MdsHandle {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(Err(error)) = self.threads.take().map(Threads::join) {
            tracing::error!(%error, "metadata server had failed");
        }
    }
}

impl Threads {
    fn join(self) -> Result<(), MdsError> {
        let api = self.api.join().unwrap_or(Err(MdsError::ApiPanicked));
        // Raft's own end is the more telling one.
        self.node.stop()?;
        api
    }
}

fn listen(addr: SocketAddr, service: &'static str) -> Result<TcpListener, MdsError> {
    let failed = |source| MdsError::Listen {
        addr,
        service,
        source,
    };
    let listener = TcpListener::bind(addr).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

fn bound(
    listener: &TcpListener,
    addr: SocketAddr,
    service: &'static str,
) -> Result<SocketAddr, MdsError> {
    let failed = |source| MdsError::Listen {
        addr,
        service,
        source,
    };
    listener.local_addr().map_err(failed)
}

fn open_ledger(dir: &Path, member: u64, version: u32) -> Result<Ledger, MdsError> {
    std::fs::create_dir_all(dir).map_err(|source| MdsError::DataDir {
        path: dir.to_owned(),
        source,
    })?;
    let path = dir.join(LEDGER_FILE);
    Ledger::open(&path, member, version).map_err(|source| MdsError::Ledger { path, source })
}

fn start_api(
    context: Arc<Context>,
    sockets: Sockets,
    stopped: watch::Receiver<bool>,
) -> Result<JoinHandle<Result<(), MdsError>>, MdsError> {
    let failed = |source| MdsError::Api { source };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let body = move || {
        let served = runtime.block_on(serve(context, sockets, stopped));
        // Connections that outlive the grace are cut.
        runtime.shutdown_background();
        served
    };
    std::thread::Builder::new()
        .name(API_THREAD.into())
        .spawn(body)
        .map_err(failed)
}

async fn serve(
    context: Arc<Context>,
    sockets: Sockets,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), MdsError> {
    let (close, closing) = watch::channel(false);
    let http = sockets
        .http
        .map(|socket| serve_http(Arc::clone(&context), socket, closing.clone()));
    let healing = heal(Arc::clone(&context), stopped.clone());
    // What it does ends with the stop; when everything has ended the servers say.
    let watching = watch_cluster(Arc::clone(&context), stopped.clone());
    let healing = async {
        tokio::join!(healing, watching);
        std::future::pending::<()>().await;
    };
    let leaving = Arc::clone(&context);
    let grpc = serve_grpc(context, sockets.grpc, closing);
    let servers = async {
        match http {
            Some(http) => tokio::try_join!(grpc, http).map(|_| ()),
            None => grpc.await,
        }
    };
    let cut = async {
        // A sender that is gone means stop as well.
        stopped.wait_for(|stop| *stop).await.ok();
        // While the others can still be heard.
        leave(&leaving).await;
        close.send_replace(true);
        tokio::time::sleep(STOP_GRACE).await;
    };
    tokio::select! {
        ended = servers => ended.map_err(|source| MdsError::Api { source }),
        () = cut => Ok(()),
        () = healing => Ok(()),
    }
}

/// One that leads hands over first, so that nobody waits for an election.
async fn leave(context: &Context) {
    let view = context.raft.view(Consistency::Local).await;
    let leads = view.is_ok_and(|view| {
        let others = view.members.values().filter(|member| member.is_voter);
        view.leader == Some(context.config.id) && others.count() > 1
    });
    if !leads {
        return;
    }
    match tokio::time::timeout(LEAVE_WAIT, context.raft.hand_over(None)).await {
        Ok(Ok(to)) => tracing::info!(to, "leadership handed over before the stop"),
        Ok(Err(error)) => tracing::warn!(%error, "leadership not handed over before the stop"),
        Err(_) => tracing::warn!("leadership not handed over in time before the stop"),
    }
}

async fn serve_grpc(
    context: Arc<Context>,
    socket: TcpListener,
    mut stopped: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let incoming = TcpIncoming::from(tokio::net::TcpListener::from_std(socket)?);
    let volumes = VolumesServer::new(VolumesApi(Arc::clone(&context)));
    let names = NamesServer::new(NamesApi(Arc::clone(&context)));
    let topology = TopologyServer::new(TopologyApi(Arc::clone(&context)));
    let chunkservers = ChunkserversServer::new(ChunkserversApi::new(Arc::clone(&context)));
    let members = MembersServer::new(MembersApi(Arc::clone(&context)));
    let peers = MdsRaftServer::new(PeersApi(context));
    let stop = async move {
        stopped.wait_for(|stop| *stop).await.ok();
    };
    tonic::transport::Server::builder()
        .add_service(volumes.max_decoding_message_size(GRPC_REQUEST_MAX))
        .add_service(names.max_decoding_message_size(GRPC_REQUEST_MAX))
        .add_service(topology.max_decoding_message_size(GRPC_REQUEST_MAX))
        .add_service(chunkservers.max_decoding_message_size(GRPC_REQUEST_MAX))
        .add_service(members.max_decoding_message_size(GRPC_REQUEST_MAX))
        .add_service(peers.max_decoding_message_size(RAFT_MESSAGE_MAX))
        .serve_with_incoming_shutdown(incoming.with_nodelay(Some(true)), stop)
        .await
        .map_err(std::io::Error::other)
}

async fn serve_http(
    context: Arc<Context>,
    socket: TcpListener,
    mut stopped: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(socket)?;
    let stop = async move {
        stopped.wait_for(|stop| *stop).await.ok();
    };
    axum::serve(listener, router(context))
        .with_graceful_shutdown(stop)
        .await
}
