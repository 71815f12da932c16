//! Unix stream sockets.
//!
//! **Place.** Under the frontends. **Owner.** The executor that made the socket.
//!
//! **Invariants.** The socket's file is the caller's: it must not exist at bind, and is not removed
//! afterwards. **Failure.** Errors of the system.

use std::io;
use std::path::Path;

use super::stream::{self, ReadHalf, WriteHalf};
use crate::engine::{Listener, Socket};

/// Who is at the other end of a Unix socket, as of its connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Process.
    pub pid: i32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A listening Unix socket.
pub struct UnixListener {
    listener: Listener,
}

impl UnixListener {
    /// Listens at `path`.
    ///
    /// # Errors
    /// `AddrInUse` if the path exists, even if nobody listens there any more.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self {
            listener: Listener::bind_unix(path.as_ref())?,
        })
    }

    /// Waits for a connection.
    ///
    /// # Errors
    /// Of the system.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        Ok(UnixStream {
            socket: self.listener.accept().await?,
        })
    }
}

/// A Unix stream connection.
pub struct UnixStream {
    socket: Socket,
}

impl UnixStream {
    /// Connects to the listener at `path`.
    ///
    /// # Errors
    /// Of the system.
    pub async fn connect(path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self {
            socket: Socket::connect_unix(path.as_ref()).await?,
        })
    }

    /// Who is at the other end.
    ///
    /// # Errors
    /// Of the system.
    pub fn peer_cred(&self) -> io::Result<PeerCredentials> {
        self.socket.peer_credentials()
    }

    /// The same connection for a thread that blocks: it must be made blocking there.
    ///
    /// # Errors
    /// Of the system, when there are too many descriptors.
    #[cfg(all(feature = "readiness", not(ogee_sim)))]
    pub fn to_std(&self) -> io::Result<std::os::unix::net::UnixStream> {
        self.socket.duplicate().map(Into::into)
    }

    /// The two directions.
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        stream::split(self.socket)
    }
}
