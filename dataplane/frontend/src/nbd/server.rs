//! The server: listening, accepting, stopping.
//!
//! *Place*: what `ogee export nbd` starts. *Owner*: one shard; a task accepts, and each client has
//! its connection's tasks.
//! *Invariants*: at most `CONNECTIONS_MAX` clients; over a Unix socket only our own user and root.
//! *On failure*: a failed accept is retried after a pause; a connection's error is a log line.

use super::address::Address;
use super::connection::serve;
use super::error::{ConnectionError, ServerError};
use super::export::Exports;
use crate::disk::Disk;
use crate::limit::{ACCEPT_PAUSE, CONNECTIONS_MAX};
use crate::socket::{SocketAccess, SocketFile};
use ogee_runtime::channel::{Gate, Semaphore, watch};
use ogee_runtime::net::{ReadHalf, TcpListener, UnixListener, UnixStream, WriteHalf};
use ogee_runtime::{ScopedTask, sleep, spawn, spawn_scoped};
use std::io;

/// A listening server. Dropping it stops it without waiting.
pub struct Server {
    address: Address,
    stop: watch::Sender<bool>,
    clients: Gate,
    /// Goes before the file, so that nobody is accepted at a path that is free.
    accepting: ScopedTask<()>,
    file: Option<SocketFile>,
}

impl Server {
    /// Listens and serves the exports to whoever connects.
    ///
    /// The path of a Unix socket may hold a socket left over by a process that is gone; its
    /// directory is made if only the last part of it is missing.
    ///
    /// # Errors
    /// If the address cannot be listened at; the message says what is in the way.
    pub async fn bind<D: Disk>(address: Address, exports: Exports<D>) -> Result<Self, ServerError> {
        let (listener, address, file) = listen(address).await?;
        let stop = watch::channel(false).0;
        let clients = Gate::new();
        let acceptor = Acceptor {
            listener,
            exports,
            stop: stop.clone(),
            clients: clients.clone(),
        };
        tracing::info!(%address, "serves NBD");
        Ok(Self {
            address,
            stop,
            clients,
            accepting: spawn_scoped(acceptor.run()),
            file,
        })
    }

    /// Where it listens; a TCP port of 0 has become the port taken.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Clients now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.clients.inside()
    }

    /// Accepts nobody and reads nothing any more, carries out and answers what was read, and
    /// removes the socket.
    ///
    /// Takes as long as the requests under way; bound it with a timeout if the disk may hang.
    pub async fn stop(self) {
        let Self {
            address,
            stop,
            clients,
            accepting,
            file,
        } = self;
        drop(accepting);
        drop(file);
        stop.send_replace(true);
        clients.close().await;
        tracing::info!(%address, "served NBD until now");
    }
}

async fn listen(address: Address) -> Result<(Listener, Address, Option<SocketFile>), ServerError> {
    match address {
        Address::Unix(path) => {
            let (listener, file) = SocketFile::listen(&path, SocketAccess::default()).await?;
            Ok((Listener::Unix(listener), Address::Unix(path), Some(file)))
        }
        Address::Tcp(address) => {
            let failed = |source| ServerError::Port { address, source };
            let listener = TcpListener::bind(address).map_err(failed)?;
            let address = listener.local_addr().map_err(failed)?;
            if !address.ip().is_loopback() {
                tracing::warn!(%address, "whoever reaches this port can read and write the exports");
            }
            Ok((Listener::Tcp(listener), Address::Tcp(address), None))
        }
    }
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// A client that may be served.
type Client = (ReadHalf, WriteHalf);

impl Listener {
    /// Waits for a client; `None` if the one that came is not allowed.
    async fn accept(&self) -> io::Result<Option<Client>> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                tracing::debug!(%peer, "NBD client");
                Ok(Some(stream.into_split()))
            }
            Self::Unix(listener) => admit(listener.accept().await?),
        }
    }
}

fn admit(stream: UnixStream) -> io::Result<Option<Client>> {
    let peer = stream.peer_cred()?;
    if !SocketAccess::default().admits(peer) {
        return Ok(None);
    }
    tracing::debug!(pid = peer.pid, "NBD client");
    Ok(Some(stream.into_split()))
}

struct Acceptor<D> {
    listener: Listener,
    exports: Exports<D>,
    stop: watch::Sender<bool>,
    clients: Gate,
}

impl<D: Disk> Acceptor<D> {
    async fn run(self) {
        let places = Semaphore::new(CONNECTIONS_MAX);
        loop {
            let place = places.acquire(1).await;
            let (read, write) = match self.listener.accept().await {
                Ok(Some(client)) => client,
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an NBD client");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(pass) = self.clients.enter() else {
                return;
            };
            let exports = self.exports.clone();
            let stop = self.stop.subscribe();
            // Detached: its end is waited for through the gate.
            drop(spawn(async move {
                report(serve(read, write, &exports, stop).await);
                drop((place, pass));
            }));
        }
    }
}

fn report(outcome: Result<(), ConnectionError>) {
    match outcome {
        Ok(()) => tracing::debug!("an NBD client left"),
        Err(ConnectionError::Io(error)) => {
            tracing::info!(%error, "the connection to an NBD client broke");
        }
        Err(error) => tracing::warn!(%error, "ends the connection to an NBD client"),
    }
}
