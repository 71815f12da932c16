//! TCP.
//!
//! **Place.** Under `transport` and the NBD frontend. **Owner.** The executor that made the socket.
//!
//! **Invariants.** `TCP_NODELAY` is always set: latency is ours to manage, by batching. A port has
//! one listener. **Failure.** Errors of the system.

use std::io;
use std::net::SocketAddr;

use super::stream::{self, ReadHalf, WriteHalf};
use crate::engine::{Listener, Socket};

/// A listening TCP socket.
pub struct TcpListener {
    listener: Listener,
}

impl TcpListener {
    /// Listens at `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// `AddrInUse` and others of the system.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            listener: Listener::bind_tcp(address)?,
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// Of the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Waits for a connection.
    ///
    /// # Errors
    /// Of the system; those of one connection (`ConnectionAborted`) do not harm the listener.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let socket = self.listener.accept().await?;
        let peer = socket.peer_addr()?;
        Ok((TcpStream { socket }, peer))
    }
}

/// A TCP connection.
pub struct TcpStream {
    socket: Socket,
}

impl TcpStream {
    /// Connects; bound it with [`crate::timeout`], as a silent peer takes minutes to fail.
    ///
    /// # Errors
    /// Of the system.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            socket: Socket::connect_tcp(address).await?,
        })
    }

    /// Our address.
    ///
    /// # Errors
    /// Of the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The peer's address.
    ///
    /// # Errors
    /// Of the system.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket.peer_addr()
    }

    /// The two directions.
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        stream::split(self.socket)
    }
}
