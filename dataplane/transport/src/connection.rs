//! A connection, after the handshake.

use crate::choice::Transport;
use crate::decoder::Decoder;
use crate::endpoint::Endpoint;
use crate::error::{Doing, TransportError};
use crate::handshake::exchange;
use crate::hello::Hello;
use crate::link::Link;
use crate::metrics::count;
use crate::options::ConnectionOptions;
use crate::receiver::FrameReceiver;
use crate::sender::FrameSender;
use crate::stream::{Duplex, ReadEnd, WriteEnd, connect_loopback};
use crate::{keepalive, writer};
use ogee_runtime::net::TcpStream;
use ogee_runtime::{spawn, timeout};
use std::io;
use std::rc::Rc;

/// A connection, after the handshake. Its writer and keepalive tasks run until it closes.
pub struct Connection {
    sender: FrameSender,
    receiver: FrameReceiver,
}

/// Connects with default options.
///
/// # Errors
/// Whatever stood in the way; nothing remains of the attempt.
pub async fn connect(endpoint: &Endpoint, hello: &Hello) -> Result<Connection, TransportError> {
    connect_with(endpoint, hello, ConnectionOptions::default()).await
}

/// Connects and exchanges Hellos, each within the handshake timeout.
///
/// # Errors
/// As [`connect`].
pub async fn connect_with(
    endpoint: &Endpoint,
    hello: &Hello,
    options: ConnectionOptions,
) -> Result<Connection, TransportError> {
    let allowed = options.transport;
    if !allowed.allows(endpoint) {
        let endpoint = endpoint.clone();
        return Err(TransportError::CarrierForbidden { endpoint, allowed });
    }
    match endpoint {
        Endpoint::Rdma(address) => over_rdma(*address, hello, options).await,
        Endpoint::Both(address) => over_either(*address, hello, options).await,
        _ => over_stream(endpoint, hello, options).await,
    }
}

/// Over what `options` allow, RDMA first.
#[cfg(feature = "rdma")]
async fn over_either(
    address: std::net::SocketAddr,
    hello: &Hello,
    options: ConnectionOptions,
) -> Result<Connection, TransportError> {
    use crate::choice::{rdma_helps, took_tcp, tries_rdma};
    let tcp = Endpoint::Tcp(address);
    match options.transport {
        Transport::Rdma => return over_rdma(address, hello, options).await,
        Transport::Auto if tries_rdma(address) => {}
        Transport::Auto | Transport::Tcp => return over_stream(&tcp, hello, options).await,
    }
    let limit = options
        .handshake_timeout
        .min(crate::limit::RDMA_CONNECT_MAX);
    let why = match crate::rdma::connect(address, limit).await {
        Ok(wire) => {
            rdma_helps(address);
            return Connection::over_rdma(wire, hello, options).await;
        }
        Err(why) => why,
    };
    let connection = over_stream(&tcp, hello, options).await?;
    took_tcp(address, &why);
    Ok(connection)
}

/// Over TCP, if that is allowed: this program was built without RDMA.
#[cfg(not(feature = "rdma"))]
async fn over_either(
    address: std::net::SocketAddr,
    hello: &Hello,
    options: ConnectionOptions,
) -> Result<Connection, TransportError> {
    match options.transport {
        Transport::Rdma => over_rdma(address, hello, options).await,
        Transport::Auto | Transport::Tcp => {
            over_stream(&Endpoint::Tcp(address), hello, options).await
        }
    }
}

#[cfg(feature = "rdma")]
async fn over_rdma(
    address: std::net::SocketAddr,
    hello: &Hello,
    options: ConnectionOptions,
) -> Result<Connection, TransportError> {
    let wire = crate::rdma::connect(address, options.handshake_timeout).await?;
    Connection::over_rdma(wire, hello, options).await
}

#[cfg(not(feature = "rdma"))]
#[expect(clippy::unused_async, reason = "as with the feature")]
async fn over_rdma(
    _: std::net::SocketAddr,
    _: &Hello,
    _: ConnectionOptions,
) -> Result<Connection, TransportError> {
    Err(TransportError::WithoutRdma)
}

async fn over_stream(
    endpoint: &Endpoint,
    hello: &Hello,
    options: ConnectionOptions,
) -> Result<Connection, TransportError> {
    let limit = options.handshake_timeout;
    let stream = timeout(limit, open(endpoint))
        .await
        .map_err(|_| TransportError::HandshakeTimeout { limit })?
        .map_err(|error| TransportError::io(Doing::Connect, &error))?;
    Connection::establish(stream, hello, options).await
}

async fn open(endpoint: &Endpoint) -> io::Result<Duplex> {
    match endpoint {
        Endpoint::Loopback(name) => connect_loopback(name),
        Endpoint::Tcp(address) => Ok(over_tcp(TcpStream::connect(*address).await?)),
        Endpoint::Rdma(_) | Endpoint::Both(_) => unreachable!("chosen before"),
    }
}

/// Both directions of a TCP stream.
pub(crate) fn over_tcp(stream: TcpStream) -> Duplex {
    let (read, write) = stream.into_split();
    (ReadEnd::Tcp(read), WriteEnd::Tcp(write))
}

impl Connection {
    /// Exchanges Hellos and starts the tasks.
    pub(crate) async fn establish(
        mut stream: Duplex,
        hello: &Hello,
        options: ConnectionOptions,
    ) -> Result<Self, TransportError> {
        let mut decoder = Decoder::default();
        let peer = exchange(&mut stream, &mut decoder, hello, options.handshake_timeout).await?;
        let (read, write) = stream;
        let link = Rc::new(Link::new(peer, options));
        drop(spawn(writer::run(Rc::clone(&link), write)));
        drop(spawn(keepalive::run(Rc::clone(&link))));
        count(|metrics| metrics.connections.bump());
        Ok(Self {
            sender: FrameSender::new(Rc::clone(&link)),
            receiver: FrameReceiver::new(link, read, decoder),
        })
    }

    /// The same over RDMA.
    #[cfg(feature = "rdma")]
    pub(crate) async fn over_rdma(
        wire: Rc<crate::rdma::Wire>,
        hello: &Hello,
        options: ConnectionOptions,
    ) -> Result<Self, TransportError> {
        let options = crate::rdma::options(options);
        let peer = crate::rdma::exchange(&wire, hello, options.handshake_timeout).await?;
        let link = Rc::new(Link::of_frames(peer, options));
        drop(spawn(crate::rdma::run(Rc::clone(&link), Rc::clone(&wire))));
        drop(spawn(keepalive::run(Rc::clone(&link))));
        count(|metrics| {
            metrics.connections.bump();
            metrics.connections_rdma.bump();
        });
        Ok(Self {
            sender: FrameSender::new(Rc::clone(&link)),
            receiver: FrameReceiver::over_rdma(link, wire),
        })
    }

    /// Who the peer said it is.
    #[must_use]
    pub fn peer(&self) -> &Hello {
        self.receiver.peer()
    }

    /// Its two ends.
    #[must_use]
    pub fn split(self) -> (FrameSender, FrameReceiver) {
        (self.sender, self.receiver)
    }
}
