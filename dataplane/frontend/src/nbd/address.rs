//! Where a server listens.
//!
//! *Place*: named by the user, shown in logs and errors. *Owner*: none, a value.
//! *Invariants*: none. *On failure*: none.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where a server listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// A socket file, for processes of the same user on this machine.
    Unix(PathBuf),
    /// A TCP port, without authentication or encryption. Port 0 takes a free one.
    Tcp(SocketAddr),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}
