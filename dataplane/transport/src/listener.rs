//! Where connections come in.

use crate::connection::{Connection, over_tcp};
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
}

/// A connection that has come in and not yet shaken hands, so that a peer that does not speak
/// holds up nobody else.
pub struct Incoming {
    stream: Duplex,
}

impl Listener {
    /// Listens.
    ///
    /// # Errors
    /// [`TransportError::Io`], as when the address is taken: for the operator.
    pub fn bind(endpoint: &Endpoint) -> Result<Self, TransportError> {
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
        };
        let stream = stream.map_err(|error| TransportError::io(Doing::Accept, &error))?;
        Ok(Incoming { stream })
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
        Connection::establish(self.stream, hello, options).await
    }
}
