//! Where connections come in.

use crate::connection::{Connection, over_tcp, without_rdma};
use crate::endpoint::Endpoint;
use crate::error::{Doing, TransportError};
use crate::hello::Hello;
use crate::options::ConnectionOptions;
use crate::stream::{Duplex, LoopbackListener};
use ogee_runtime::net::TcpListener;
use std::io;

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
        Self::try_bind(endpoint).map_err(|error| TransportError::io(Doing::Bind, &error))
    }

    fn try_bind(endpoint: &Endpoint) -> io::Result<Self> {
        match endpoint {
            Endpoint::Tcp(address) => {
                let listener = TcpListener::bind(*address)?;
                let endpoint = Endpoint::Tcp(listener.local_addr()?);
                Ok(Self {
                    carrier: Carrier::Tcp(listener),
                    endpoint,
                })
            }
            Endpoint::Rdma(_) => Err(without_rdma()),
            Endpoint::Loopback(name) => {
                let listener = LoopbackListener::bind(name)?;
                let endpoint = Endpoint::Loopback(listener.name().to_owned());
                Ok(Self {
                    carrier: Carrier::Loopback(listener),
                    endpoint,
                })
            }
        }
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
