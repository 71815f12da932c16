//! What can go wrong with a server, a registry of exports, a connection.
//!
//! *Place*: `ServerError` and `ExportError` go to the operator; a connection's error goes to the log.
//! *Owner*: none. *Invariants*: each names the physical cause. *On failure*: they are the failure.

use super::wire;
use crate::socket::SocketError;
use ogee_proto::unit::ByteLen;
use std::io;
use std::net::SocketAddr;

/// Why a server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The socket's file.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The port cannot be listened at.
    #[error("cannot listen at {address}")]
    Port {
        /// The port.
        address: SocketAddr,
        /// Of the system.
        source: io::Error,
    },
}

/// Why a disk cannot be exported under a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// The name is taken.
    #[error("an export named {name} exists")]
    Exists {
        /// The name.
        name: String,
    },
    /// The name is empty.
    #[error("an export needs a name")]
    Unnamed,
    /// Name or description is longer than the protocol allows.
    #[error("name and description of an export have at most {max} bytes each")]
    TooLong {
        /// The limit.
        max: usize,
    },
    /// The registry is full.
    #[error("there are {max} exports already")]
    Full {
        /// The limit.
        max: usize,
    },
    /// The disk does not end with a block.
    #[error("a size of {size} is not a multiple of the block size")]
    Ragged {
        /// The disk's size.
        size: ByteLen,
    },
}

/// Why a connection ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error("the client left in the middle of a message")]
    Truncated,
    #[error("client flags {0:#x} have a bit that was not offered")]
    ClientFlags(u32),
    #[error(
        "an option starts with {found:#x} instead of {:#x}",
        wire::OPTION_MAGIC
    )]
    OptionMagic { found: u64 },
    #[error(
        "a request starts with {found:#x} instead of {:#x}",
        wire::REQUEST_MAGIC
    )]
    RequestMagic { found: u32 },
    #[error("no export of the name asked for by EXPORT_NAME, which knows no error reply")]
    NoSuchExport,
    #[error("more than {max} options")]
    TooManyOptions { max: usize },
    #[error("no end of the negotiation")]
    NegotiationTime,
    #[error("the client does not read what is left for it")]
    DrainTime,
}
