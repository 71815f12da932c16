//! Why the control plane did not do what it was asked.
//!
//! *Place*: from `MdsClient` up to the user. *Owner*: none.
//! *Invariants*: a refusal is the metadata server's own word, kept whole.
//! *On failure*: the caller decides: an open fails, a refresh is tried again later.

use crate::map::MapError;
use crate::record::RecordError;
use ogee_proto::fault::Fault;
use std::fmt;
use std::io;
use std::time::Duration;

/// Why the control plane did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ControlError {
    /// It answered no.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// No metadata server could be reached, or none of them leads.
    #[error("no metadata server answered within {waited:?}: tried {}", endpoints.join(", "))]
    Unreachable {
        /// Who was asked.
        endpoints: Vec<String>,
        /// How long.
        waited: Duration,
        /// The last answer, if there was one.
        #[source]
        last: Option<Box<tonic::Status>>,
    },
    /// The connection was lost after the request may have arrived, and it may not be repeated
    /// blindly.
    #[error("{endpoint} did not answer: it may have done what it was asked")]
    OutcomeUnknown {
        /// Who was asked.
        endpoint: String,
        /// What came instead of an answer.
        #[source]
        last: Option<Box<tonic::Status>>,
    },
    /// An endpoint in the configuration is not an address.
    #[error("\"{0}\" is not the address of a metadata server: write host:port")]
    Address(Box<str>),
    /// No metadata server is configured.
    #[error("no metadata server is configured")]
    NoEndpoints,
    /// Its map breaks the rules.
    #[error("the metadata server sent a map that cannot be right")]
    Map(#[from] MapError),
    /// No metadata server answered, and what was kept of an earlier attachment is of no use.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The thread for control traffic could not be started.
    #[error("cannot start the control thread: {0}")]
    Thread(io::ErrorKind),
    /// The thread for control traffic has ended.
    #[error("the control thread has ended")]
    Stopped,
}

/// A refusal in the metadata server's words.
#[derive(Debug, Clone)]
pub struct Refusal {
    status: tonic::Status,
    fault: Option<Fault>,
}

impl Refusal {
    /// From the status of a call.
    #[must_use]
    pub fn new(status: tonic::Status) -> Self {
        Self {
            fault: Fault::parse(status.message()),
            status,
        }
    }

    /// Code, what, cause and remedy, if the server said so in the agreed form.
    #[must_use]
    pub const fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    /// The gRPC code.
    #[must_use]
    pub fn grpc_code(&self) -> tonic::Code {
        self.status.code()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.fault {
            Some(fault) => fault.fmt(f),
            None => f.write_str(self.status.message()),
        }
    }
}
