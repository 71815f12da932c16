//! Why the floor cannot run.

use ogee_device::DeviceError;
use ogee_log::LogError;
use ogee_proto::id::CopysetId;
use ogee_store::StoreError;
use ogee_transport::TransportError;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why the floor cannot run. Whoever measures corrects what is named, or begins with empty stores.
#[derive(Debug, thiserror::Error)]
pub enum FloorError {
    /// Out of range.
    #[error("{what} of {found} must be from {min} to {max}")]
    Bounds {
        /// What was given.
        what: &'static str,
        /// As given.
        found: u64,
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// The device cannot be used.
    #[error("device {}", path.display())]
    Device {
        /// It.
        path: PathBuf,
        /// Why.
        source: DeviceError,
    },
    /// The store cannot be used, or has failed.
    #[error("the store")]
    Store(#[from] StoreError),
    /// The log cannot be used, or has failed.
    #[error("the log")]
    Log(#[from] LogError),
    /// Part of a log is lost, which the floor cannot repair.
    #[error("the log of {0} is damaged: begin with empty stores")]
    Damaged(CopysetId),
    /// An entry of a log says what no floor has written.
    #[error("entry {index} of {group} is none of the floor's: begin with empty stores")]
    Foreign {
        /// Its group.
        group: CopysetId,
        /// Its index.
        index: u64,
    },
    /// An entry that is to be written back is not in the log.
    #[error("entry {index} of {group} is indexed and not in the log")]
    Missing {
        /// Its group.
        group: CopysetId,
        /// Its index.
        index: u64,
    },
    /// The address cannot be served.
    #[error("cannot serve frames")]
    Listen(#[from] TransportError),
    /// The stand-in of the metadata server cannot be served.
    #[error("cannot serve gRPC at {address}")]
    Control {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The ready file cannot be made.
    #[error("cannot make {}", path.display())]
    Ready {
        /// It.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}
