//! Why a disk could not be used.
//!
//! *Place*: the result of everything here. *Owner*: none. *Invariants*: names the value and what to do about it.
//! *On failure*: the command line prints it.

use super::layout::DEPTH_MAX;
use crate::error::WorkloadError;
use ogee_proto::limit::BLOCK_SIZE;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Why a disk could not be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum VhostError {
    /// The load itself.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// More requests than a ring has places.
    #[error(
        "a depth of {0} does not fit a ring: at most {DEPTH_MAX} (--iodepth), and more rings by --numjobs"
    )]
    Depth(usize),
    /// Memory for rings and data.
    #[error(
        "cannot share {bytes} bytes of memory with the server: {source}; lower the depth or the request size"
    )]
    Memory {
        /// As much as the load takes.
        bytes: u64,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Descriptors that tell of requests and answers.
    #[error("cannot make an eventfd: {0}; a ring takes three descriptors (ulimit -n)")]
    Event(Arc<io::Error>),
    /// Nothing answered.
    #[error("cannot connect to {}: {source}; is ogee export vhost-user running there?", socket.display())]
    Connect {
        /// As given.
        socket: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Something accepts there, and says nothing.
    #[error(
        "the server at {} has not answered for {patience:?}: it serves one driver at a time, so end the VM or the load that has it",
        socket.display()
    )]
    Silent {
        /// As given.
        socket: PathBuf,
        /// How long it was waited for.
        patience: Duration,
    },
    /// The server cannot do what is needed.
    #[error("the server does not offer {feature}, without which this driver cannot use its disk")]
    Feature {
        /// As the specification calls it.
        feature: &'static str,
    },
    /// Too few rings.
    #[error(
        "the disk has {offered} queues, and each of {wanted} jobs needs one: lower --numjobs, or raise --queues of the export"
    )]
    Queues {
        /// Of the disk.
        offered: u64,
        /// Jobs of the load.
        wanted: usize,
    },
    /// Nothing to load.
    #[error(
        "the disk has a size of {size} bytes, less than a block of {BLOCK_SIZE}: grow it (ogee volume resize)"
    )]
    Size {
        /// As the server tells.
        size: u64,
    },
    /// What was said is not the protocol, or the server refused it.
    #[error("the server failed when {doing}: {cause}; its log says more")]
    Agree {
        /// What it was asked.
        doing: &'static str,
        /// The protocol library's error.
        cause: Arc<str>,
    },
    /// The connection ended.
    #[error("the connection to the server is lost: {0}")]
    Lost(Arc<io::Error>),
    /// The server found the ring broken.
    #[error("the server has stopped a ring: its log says what was wrong with it")]
    Stopped,
    /// What stands in the ring is not the protocol.
    #[error("the server broke the protocol: {0}")]
    Protocol(&'static str),
    /// The disk cannot be written.
    #[error("the disk is read-only: read from it, or export it without --read-only")]
    ReadOnly,
    /// Durable writes were asked of a disk that cannot flush.
    #[error(
        "the disk does not offer VIRTIO_BLK_F_FLUSH, which --sync dsync needs: leave --sync out"
    )]
    NoFlush,
    /// The server failed the request.
    #[error(
        "the disk answered with status {0} (1: an I/O error, 2: it does not know such a request)"
    )]
    Status(u8),
}
