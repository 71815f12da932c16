//! Peers and frames for the cases.

use ogee_proto::id::{RequestId, Sequence};
use ogee_proto::wire::{FrameHeader, FrameKind, Status};
use ogee_runtime::sleep;
use ogee_transport::{
    Caller, CallerOptions, Connection, ConnectionOptions, Endpoint, Frame, Handler, Hello,
    Keepalive, Listener, Peer, Role, Service, ServiceOptions, connect_with,
};
use std::rc::Rc;
use std::time::Duration;

pub const MS: Duration = Duration::from_millis(1);

pub fn client() -> Hello {
    Hello::new(Role::Client, 7, "client")
}

pub fn server() -> Hello {
    Hello::new(Role::Chunkserver, 1, "server")
}

pub fn frame(kind: FrameKind, sequence: u64, payload: Vec<u8>) -> Frame {
    let mut header = FrameHeader::new(kind, RequestId::new(sequence));
    header.sequence = Sequence::new(sequence);
    Frame::with_payload(header, payload)
}

pub fn write(sequence: u64, payload: Vec<u8>) -> Frame {
    frame(FrameKind::Write, sequence, payload)
}

/// A reply that carries what the request carried.
pub fn echo(request: Frame) -> Frame {
    let header = FrameHeader::reply(&request.header, Status::Ok);
    Frame::of_parts(header, request.meta, request.payload)
}

pub fn echoing() -> Handler {
    handler(|peer, frame| drop(peer.reply(echo(frame))))
}

pub fn handler(handle: impl Fn(Peer, Frame) + 'static) -> Handler {
    Rc::new(handle)
}

pub fn serve(endpoint: &Endpoint, hello: Hello, handler: Handler) -> Service {
    serve_with(endpoint, hello, ServiceOptions::default(), handler)
}

/// Serves as soon as the endpoint is free.
pub fn serve_with(
    endpoint: &Endpoint,
    hello: Hello,
    options: ServiceOptions,
    handler: Handler,
) -> Service {
    Service::serve_with(Listener::bind(endpoint).unwrap(), hello, options, handler)
}

/// Waits until its connection stands: on a busy host that takes longer than a call waits for it.
pub async fn standing(caller: &Caller) {
    while caller.peer().is_none() {
        sleep(MS).await;
    }
}

/// Both ends of a connection without a service.
pub async fn pair(
    endpoint: &Endpoint,
    near: ConnectionOptions,
    far: ConnectionOptions,
) -> (Connection, Connection) {
    let mut listener = Listener::bind(endpoint).unwrap();
    let endpoint = listener.endpoint().clone();
    let accepted = ogee_runtime::spawn(async move {
        let incoming = listener.accept().await.unwrap();
        incoming.handshake(&server(), far).await.unwrap()
    });
    let connected = connect_with(&endpoint, &client(), near).await.unwrap();
    (connected, accepted.await.unwrap())
}

/// Bytes that differ from their neighbours and from page to page.
pub fn bytes(len: usize) -> Vec<u8> {
    let table: Vec<u8> = (0..=250).collect();
    let mut bytes = table.repeat(len / table.len() + 1);
    bytes.truncate(len);
    bytes
}

/// A keepalive for tests that wait for it.
pub fn brisk() -> Keepalive {
    Keepalive::new(60 * MS, 300 * MS)
}

/// A keepalive that does not speak while a test runs: a peer that has stopped.
pub fn mute() -> Keepalive {
    Keepalive::new(Duration::from_secs(3600), Duration::from_secs(4 * 3600))
}

pub fn with_keepalive(keepalive: Keepalive) -> ConnectionOptions {
    ConnectionOptions {
        keepalive,
        ..ConnectionOptions::default()
    }
}

pub fn caller_options(keepalive: Keepalive) -> CallerOptions {
    CallerOptions {
        connection: with_keepalive(keepalive),
        ..CallerOptions::default()
    }
}

pub fn service_options(keepalive: Keepalive) -> ServiceOptions {
    ServiceOptions {
        connection: with_keepalive(keepalive),
        ..ServiceOptions::default()
    }
}

/// Runs a case over RDMA, with as little memory as it takes.
#[cfg(feature = "rdma")]
pub fn on_rdma<F: Future<Output = ()>>(case: impl FnOnce(Endpoint) -> F) {
    let address = std::env::var("OGEE_RDMA_ADDRESS").expect("OGEE_RDMA_ADDRESS, of an RDMA device");
    ogee_transport::rdma::configure(ogee_transport::rdma::RdmaOptions {
        connections_max: 64,
        receives: 256,
        mediums: 16,
        larges: 16,
        transfers: 8,
        registered_max: 12 << 20,
        ..ogee_transport::rdma::RdmaOptions::default()
    });
    let endpoint = format!("rdma:{address}:0").parse().unwrap();
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter);
    let _ = subscriber.try_init();
    ogee_runtime::executor::block_on(async {
        // The first use registers memory, which takes longer in a guest than some cases wait.
        let service = serve(&endpoint, server(), echoing());
        let warm = ogee_transport::connect(service.endpoint(), &client()).await;
        drop(warm.unwrap());
        service.close().await;
        case(endpoint).await;
    });
}
