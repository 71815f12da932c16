//! Why a metadata server does not start, or stopped.

use std::net::SocketAddr;
use std::path::PathBuf;

use ogee_proto::fault::Fault;

use crate::raft::{LedgerError, NodeError};

/// A metadata server that cannot run.
#[derive(Debug, thiserror::Error)]
pub enum MdsError {
    /// The member list does not name this member, names one twice, or is empty.
    #[error("member {id} is not named exactly once in the member list")]
    Members {
        /// This member.
        id: u64,
    },
    /// A member id of 0 or a name that is no name.
    #[error("{cluster:?} cannot name a cluster")]
    ClusterName {
        /// As configured.
        cluster: String,
        /// Why not.
        source: ogee_proto::name::NameError,
    },
    /// A setting is out of its range.
    #[error("{key} is out of its range")]
    Setting {
        /// Which.
        key: &'static str,
    },
    /// The data directory cannot be made.
    #[error("the data directory {} cannot be made", path.display())]
    DataDir {
        /// As configured.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The metadata cannot be opened.
    #[error("the metadata in {} cannot be used", path.display())]
    Ledger {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: LedgerError,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {addr} for {service}")]
    Listen {
        /// As configured.
        addr: SocketAddr,
        /// gRPC or metrics.
        service: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The API thread or its runtime cannot be started, or its sockets failed.
    #[error("the API thread cannot serve")]
    Api {
        /// What the system said.
        source: std::io::Error,
    },
    /// The API thread panicked.
    #[error("the API thread panicked")]
    ApiPanicked,
    /// Raft cannot run, or stopped by itself.
    #[error("replication of the metadata stopped")]
    Raft(#[from] NodeError),
}

impl MdsError {
    /// The error in the user's words.
    #[must_use]
    pub fn fault(&self) -> Fault {
        let cause = self.cause();
        Fault::new(self.code(), &self.to_string(), &cause, &self.remedy())
    }

    const fn code(&self) -> &'static str {
        match self {
            Self::Members { .. } | Self::ClusterName { .. } | Self::Setting { .. } => "OGEE-2101",
            Self::DataDir { .. } => "OGEE-2102",
            Self::Ledger { source, .. } => source.code(),
            Self::Listen { .. } => "OGEE-2106",
            Self::Api { .. } | Self::ApiPanicked => "OGEE-2107",
            Self::Raft(_) => "OGEE-2108",
        }
    }

    fn cause(&self) -> String {
        match self {
            Self::ClusterName { source, .. } => source.to_string(),
            Self::DataDir { source, .. } | Self::Listen { source, .. } | Self::Api { source } => {
                source.to_string()
            }
            Self::Ledger { source, .. } => source.to_string(),
            Self::Raft(source) => source.to_string(),
            Self::Members { .. } | Self::Setting { .. } | Self::ApiPanicked => String::new(),
        }
    }

    fn remedy(&self) -> String {
        match self {
            Self::Members { id } => format!("a member list with {id}=HOST:PORT in it once"),
            Self::ClusterName { .. } => "another cluster name".into(),
            Self::Setting { .. } => "docs/configuration.md has the ranges".into(),
            Self::DataDir { path, .. } => {
                format!("mkdir -p {0} and let this user write there", path.display())
            }
            Self::Ledger { source, .. } => source.remedy(),
            Self::Listen { addr, .. } => {
                format!(
                    "ss -ltnp 'sport = :{}' shows who has it; or another port",
                    addr.port()
                )
            }
            Self::Api { .. } => "ulimit -u and free memory".into(),
            Self::Raft(NodeError::Outdated { .. }) => {
                "start the release that the other metadata servers run, on the same data directory; ogee mds ls".into()
            }
            Self::Raft(_) | Self::ApiPanicked => {
                "the log has the details; start it again, the others keep serving".into()
            }
        }
    }
}
