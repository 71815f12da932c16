//! What a chunkserver is told at start. The CLI builds it from flags, environment and file.

use crate::limit::BACKGROUND_RATE;
use ogee_device::{NvmeName, NvmeOptions};
use ogee_group::GroupConfig;
use ogee_proto::media::MediaClass;
use ogee_proto::unit::ByteLen;
use ogee_transport::{RdmaOptions, Transport};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A device, and the store on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// File or block device; of an NVMe drive its name.
    pub path: PathBuf,
    /// An NVMe drive that is used without the kernel.
    pub nvme: Option<NvmeName>,
    /// How that is used.
    pub nvme_options: NvmeOptions,
    /// Size of the file to create if there is none; `None`: it must exist.
    pub create: Option<ByteLen>,
    /// Log length of a store that is made now.
    pub log_len: ByteLen,
    /// Shard that owns it.
    pub shard: u16,
    /// What kind of device it is, if that is known.
    pub class: Option<MediaClass>,
}

/// A chunkserver.
#[derive(Clone, Debug)]
pub struct ChunkserverConfig {
    /// Its name, unique in the cluster.
    pub name: String,
    /// Failure domain.
    pub zone: String,
    /// Host.
    pub server: String,
    /// Where each shard listens; one shard per entry.
    pub listen: Vec<SocketAddr>,
    /// Over what.
    pub transport: Transport,
    /// RDMA of each shard.
    pub rdma: RdmaOptions,
    /// Pin shard `i` to processor `cpus[i]`; empty: unpinned.
    pub cpus: Vec<usize>,
    /// For how long a shard that has nothing to do looks for work before it sleeps, where that has paid so far.
    pub poll: Duration,
    /// Its stores.
    pub stores: Vec<StoreConfig>,
    /// gRPC endpoints of the MDSes, `host:port`.
    pub mds: Vec<String>,
    /// Where `/metrics` and `/healthz` are served.
    pub metrics: Option<SocketAddr>,
    /// Raft times.
    pub group: GroupConfig,
    /// How each store is read whole, for what rots; `None`: never.
    pub scrub: Option<ScrubConfig>,
    /// What copies, comparisons and scrubbing may take together.
    pub background: BackgroundConfig,
}

/// What all that is done in the background may take, in bytes per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackgroundConfig {
    /// Of each device, to read and to write.
    pub device_rate: ByteLen,
    /// Of the network, to send and to receive, all shards together.
    pub network_rate: ByteLen,
}

impl Default for BackgroundConfig {
    fn default() -> Self {
        Self {
            device_rate: BACKGROUND_RATE,
            network_rate: BACKGROUND_RATE,
        }
    }
}

/// How stores are read whole, for what rots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubConfig {
    /// Once in so long; never if not given.
    pub period: Option<Duration>,
    /// Their metadata once in so long; if not given, only when a pass begins, or when it is asked for.
    pub light: Option<Duration>,
    /// Only then; at any time if not given.
    pub hours: Option<ScrubHours>,
}

/// Hours of the day, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubHours {
    /// The first, 0 to 23.
    pub from: u8,
    /// The one that is none of them any more, 0 to 23; before `from`: on the next day.
    pub to: u8,
    /// What the host's clock said when the process began, since 1970.
    pub begun: Duration,
}
