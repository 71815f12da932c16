//! What RDMA could not do.

use crate::error::{Doing, TransportError};
use ogee_proto::wire::WireError;
use ogee_rdma::{RdmaError, WorkError};
use std::sync::Arc;

/// Why RDMA ended a connection, or could not make one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RdmaFault {
    /// No RDMA here, or not so much of it: the operator, by the words of the error.
    #[error(transparent)]
    Unable(Unable),
    /// A work request failed. The dialling side reconnects.
    #[error(transparent)]
    Work(WorkError),
    /// The peer speaks another version of the protocol on RDMA: the older one is upgraded.
    #[error("peer speaks RDMA version {peer}, this process speaks {ours}: upgrade the older one")]
    Version {
        /// The peer's.
        peer: u16,
        /// Ours.
        ours: u16,
    },
    /// The adapter tells that something of it broke, by the name of the device.
    #[error("{device}: {trouble}")]
    Device {
        /// Its name.
        device: Arc<str>,
        /// What.
        trouble: Trouble,
    },
    /// Whoever listens there is not Ogee.
    #[error("the peer's connection data is not Ogee's")]
    Foreign,
    /// The peer has promised all its receive buffers or work requests, or we have. The dialling side tries again
    /// later; the operator raises the limits if it repeats.
    #[error("no receive buffers or work requests are left for a connection")]
    Busy,
}

/// What an adapter tells of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The operator looks at cable, switch and interface. Connections are made again when it is up.
    #[error("port {port} is down: see `rdma link` and `ip link`, and the cable and the switch")]
    PortDown {
        /// Its number.
        port: u8,
    },
    /// The operator looks at the kernel's log. Listeners wait for it to come back.
    #[error("the device is gone or has to be reset: see dmesg; reload its driver, or replace it")]
    DeviceLost,
    /// The next use opens the device anew. A bug, or a defect of the adapter.
    #[error(
        "a queue broke: the device is opened anew; if it repeats, see dmesg and the adapter's firmware"
    )]
    QueueBroken,
    /// The dialling side reconnects. A defect of the adapter, or of the network.
    #[error(
        "the connection broke: it is made again; if it repeats, see dmesg and the port's error counters"
    )]
    PairBroken,
}

/// An error of the RDMA binding, shared by all who wait for the connection.
#[derive(Debug, Clone)]
pub struct Unable(Arc<RdmaError>);

impl PartialEq for Unable {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Unable {}

impl std::fmt::Display for Unable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Unable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // Its own words are told already.
        self.0.source()
    }
}

/// The port could not be opened: in the binding's words, which say what to do.
pub(super) fn unable_to_open(error: RdmaError) -> TransportError {
    TransportError::Rdma(RdmaFault::Unable(Unable(Arc::new(error))))
}

/// What the transport says of it; the system's own errors are told as those of sockets are.
pub(super) fn unable(doing: Doing, error: RdmaError) -> TransportError {
    match &error {
        RdmaError::Call { source, .. } => {
            tracing::debug!(%error, "RDMA");
            TransportError::io(doing, source)
        }
        RdmaError::Full { .. } => {
            tracing::debug!(%error, "RDMA");
            TransportError::Rdma(RdmaFault::Busy)
        }
        _ => unable_to_open(error),
    }
}

/// A field of a message that no honest peer sends.
pub(super) fn wrong(field: &'static str, value: impl TryInto<u64>) -> TransportError {
    let value = value.try_into().unwrap_or(u64::MAX);
    WireError::Field { field, value }.into()
}
