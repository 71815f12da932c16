//! Where connections come in.

use crate::connection::{Connection, over_tcp};
use crate::endpoint::Endpoint;
use crate::error::{Doing, TransportError};
use crate::hello::Hello;
use crate::options::ConnectionOptions;
use crate::stream::{Duplex, LoopbackListener};
use ogee_runtime::net::TcpListener;
#[cfg(feature = "rdma")]
use ogee_runtime::{ScopedTask, channel::mpsc, spawn_scoped};
use std::io;
#[cfg(feature = "rdma")]
use std::net::SocketAddr;

/// Connections that wait in a listener of two carriers; more wait in theirs.
#[cfg(feature = "rdma")]
const BACKLOG_BOTH: usize = 16;

/// Takes connections at one endpoint.
pub struct Listener {
    carrier: Carrier,
    endpoint: Endpoint,
}

enum Carrier {
    Tcp(TcpListener),
    Loopback(LoopbackListener),
    #[cfg(feature = "rdma")]
    Rdma(crate::rdma::RdmaListener),
    /// Both at one address: a task for each takes connections, since a TCP accept that is dropped may lose one.
    #[cfg(feature = "rdma")]
    Both {
        incoming: mpsc::Receiver<Result<Carried, TransportError>>,
        _tasks: [ScopedTask<()>; 2],
    },
}

/// A connection that has come in and not yet shaken hands, so that a peer that does not speak
/// holds up nobody else.
pub struct Incoming {
    carried: Carried,
}

enum Carried {
    Stream(Duplex),
    #[cfg(feature = "rdma")]
    Rdma(crate::rdma::Request),
}

impl Listener {
    /// Listens.
    ///
    /// # Errors
    /// [`TransportError::Io`], as when the address is taken: for the operator.
    pub fn bind(endpoint: &Endpoint) -> Result<Self, TransportError> {
        #[cfg(feature = "rdma")]
        if let Endpoint::Rdma(address) = endpoint {
            let listener = crate::rdma::RdmaListener::bind(*address)?;
            return Ok(Self {
                endpoint: Endpoint::Rdma(listener.address()),
                carrier: Carrier::Rdma(listener),
            });
        }
        #[cfg(feature = "rdma")]
        if let Endpoint::Both(address) = endpoint {
            return Self::bind_both(*address);
        }
        let failed = |error: io::Error| TransportError::io(Doing::Bind, &error);
        match endpoint {
            // What is offered over either carrier is what there is.
            Endpoint::Tcp(address) | Endpoint::Both(address) => {
                let listener = TcpListener::bind(*address).map_err(failed)?;
                let endpoint = Endpoint::Tcp(listener.local_addr().map_err(failed)?);
                Ok(Self {
                    carrier: Carrier::Tcp(listener),
                    endpoint,
                })
            }
            Endpoint::Rdma(_) => Err(TransportError::WithoutRdma),
            Endpoint::Loopback(name) => {
                let listener = LoopbackListener::bind(name).map_err(failed)?;
                let endpoint = Endpoint::Loopback(listener.name().to_owned());
                Ok(Self {
                    carrier: Carrier::Loopback(listener),
                    endpoint,
                })
            }
        }
    }

    /// Listens over TCP, and over RDMA if this host has it at that address; else says why not, once.
    #[cfg(feature = "rdma")]
    fn bind_both(address: SocketAddr) -> Result<Self, TransportError> {
        let failed = |error: io::Error| TransportError::io(Doing::Bind, &error);
        let tcp = TcpListener::bind(address).map_err(failed)?;
        let address = tcp.local_addr().map_err(failed)?;
        let mut rdma = match crate::rdma::RdmaListener::bind(address) {
            Ok(rdma) => rdma,
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%address, %error, cause, "RDMA cannot be offered, so TCP alone is");
                return Ok(Self {
                    carrier: Carrier::Tcp(tcp),
                    endpoint: Endpoint::Tcp(address),
                });
            }
        };
        let (sender, incoming) = mpsc::channel(BACKLOG_BOTH);
        let to = sender.clone();
        let over_tcp = async move {
            loop {
                let stream = tcp.accept().await.map(|(stream, _)| over_tcp(stream));
                let carried = stream.map(Carried::Stream);
                let carried = carried.map_err(|error| TransportError::io(Doing::Accept, &error));
                if to.send(carried).await.is_err() {
                    return;
                }
            }
        };
        let over_rdma = async move {
            loop {
                let request = Carried::Rdma(rdma.accept().await);
                if sender.send(Ok(request)).await.is_err() {
                    return;
                }
            }
        };
        Ok(Self {
            carrier: Carrier::Both {
                incoming,
                _tasks: [spawn_scoped(over_tcp), spawn_scoped(over_rdma)],
            },
            endpoint: Endpoint::Both(address),
        })
    }

    /// Where it listens, with the port that the system chose.
    #[must_use]
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The next connection.
    ///
    /// # Errors
    /// [`TransportError::Io`]: this accept failed (out of descriptors, say), a later one may not.
    pub async fn accept(&mut self) -> Result<Incoming, TransportError> {
        let stream = match &mut self.carrier {
            Carrier::Tcp(listener) => listener.accept().await.map(|(stream, _)| over_tcp(stream)),
            Carrier::Loopback(listener) => listener.accept().await,
            #[cfg(feature = "rdma")]
            Carrier::Both { incoming, .. } => {
                let carried = incoming
                    .recv()
                    .await
                    .unwrap_or(Err(TransportError::Closed))?;
                return Ok(Incoming { carried });
            }
            #[cfg(feature = "rdma")]
            Carrier::Rdma(listener) => {
                let carried = Carried::Rdma(listener.accept().await);
                return Ok(Incoming { carried });
            }
        };
        let stream = stream.map_err(|error| TransportError::io(Doing::Accept, &error))?;
        let carried = Carried::Stream(stream);
        Ok(Incoming { carried })
    }
}

impl Incoming {
    /// Exchanges Hellos and starts the connection's tasks.
    ///
    /// # Errors
    /// Whatever the peer did wrong; the connection is gone.
    pub async fn handshake(
        self,
        hello: &Hello,
        options: ConnectionOptions,
    ) -> Result<Connection, TransportError> {
        match self.carried {
            Carried::Stream(stream) => Connection::establish(stream, hello, options).await,
            #[cfg(feature = "rdma")]
            Carried::Rdma(request) => {
                let wire = request.accept(options.handshake_timeout).await?;
                Connection::over_rdma(wire, hello, options).await
            }
        }
    }
}
