//! Why a chunkserver does not start, or stops.

use ogee_device::DeviceError;
use ogee_group::GroupError;
use ogee_log::LogError;
use ogee_proto::id::StoreId;
use ogee_store::StoreError;
use ogee_transport::TransportError;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a chunkserver does not start. Each names what the operator can change.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// The device cannot be used.
    #[error("device {}: {source}", path.display())]
    Device {
        /// Where.
        path: PathBuf,
        /// Why.
        source: DeviceError,
    },
    /// What is on the device cannot be used.
    #[error("store on {}: {source}", path.display())]
    Store {
        /// Where.
        path: PathBuf,
        /// Why.
        source: StoreError,
    },
    /// The store's log cannot be used.
    #[error("log on {}: {source}", path.display())]
    Log {
        /// Where.
        path: PathBuf,
        /// Why.
        source: LogError,
    },
    /// The store belongs to another cluster.
    #[error(
        "store {store} on {} belongs to cluster {found}, this chunkserver to {ours}: \
         point it at its own cluster's MDS, or use another device",
        path.display()
    )]
    OtherCluster {
        /// Where.
        path: PathBuf,
        /// The store.
        store: StoreId,
        /// Its cluster.
        found: uuid::Uuid,
        /// Ours.
        ours: uuid::Uuid,
    },
    /// A group on the store cannot be opened.
    #[error("{0}")]
    Group(#[from] GroupError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: TransportError,
    },
    /// The metrics address cannot be listened on.
    #[error("cannot serve metrics on {address}: {source}")]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A thread or its io_uring cannot be made.
    #[error("cannot start {what}: {source}")]
    Thread {
        /// Which.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The configuration contradicts itself.
    #[error("store {} is given to shard {shard}, but there are only {shards}", path.display())]
    NoSuchShard {
        /// The store.
        path: PathBuf,
        /// The shard it names.
        shard: u16,
        /// How many there are.
        shards: usize,
    },
    /// A shard ended by itself.
    #[error("shard {shard} ended unexpectedly")]
    ShardEnded {
        /// Which.
        shard: u16,
    },
    /// The MDS refuses this chunkserver for good.
    #[error("the MDS refuses this chunkserver: {0}")]
    Refused(Box<str>),
}

impl ShardError {
    /// Whether a device bears no store yet, and it was not known for which cluster to make one.
    pub(crate) const fn is_not_formatted(&self) -> bool {
        let Self::Store { source, .. } = self else {
            return false;
        };
        matches!(source, StoreError::NotFormatted { .. })
    }
}
