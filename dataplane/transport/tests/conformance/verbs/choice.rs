//! Which carrier a connection takes where a peer offers both.

use super::raw::Raw;
use crate::support::{bytes, client, echoing, serve, server, standing, write};
use ogee_runtime::executor::block_on;
use ogee_transport::rdma::RdmaFault;
use ogee_transport::{
    Caller, CallerOptions, Connection, ConnectionOptions, Endpoint, Transport, TransportError,
    connect_with, metrics,
};
use std::io::ErrorKind;
use std::net::SocketAddr;

pub fn address(endpoint: &Endpoint) -> SocketAddr {
    let (Endpoint::Rdma(address) | Endpoint::Both(address) | Endpoint::Tcp(address)) = *endpoint
    else {
        panic!("{endpoint}");
    };
    address
}

/// A connection, and whether it is over RDMA.
pub async fn connected(
    endpoint: &Endpoint,
    transport: Transport,
) -> Result<(Connection, bool), TransportError> {
    let options = ConnectionOptions {
        transport,
        ..ConnectionOptions::default()
    };
    let before = metrics().connections_rdma;
    let connection = connect_with(endpoint, &client(), options).await?;
    Ok((connection, metrics().connections_rdma > before))
}

pub async fn who_offers_both_is_reached_over_either(endpoint: Endpoint) {
    let both = Transport::Auto.listen(address(&endpoint));
    let service = serve(&both, server(), echoing());
    let offered = service.endpoint().clone();
    assert!(matches!(offered, Endpoint::Both(_)), "{offered}");
    for (transport, over_rdma) in [
        (Transport::Auto, true),
        (Transport::Rdma, true),
        (Transport::Tcp, false),
    ] {
        let (_connection, is_rdma) = connected(&offered, transport).await.unwrap();
        assert_eq!(is_rdma, over_rdma, "{transport}");
        let options = CallerOptions {
            connection: ConnectionOptions {
                transport,
                ..ConnectionOptions::default()
            },
            ..CallerOptions::default()
        };
        let caller = Caller::with_options(offered.clone(), client(), options);
        standing(&caller).await;
        let reply = caller.call(write(1, bytes(100 << 10))).await.unwrap();
        assert!(reply.payload[..] == bytes(100 << 10)[..]);
    }
    for (one, over_rdma) in [
        (Endpoint::Tcp(address(&offered)), false),
        (Endpoint::Rdma(address(&offered)), true),
    ] {
        let (_connection, is_rdma) = connected(&one, Transport::Auto).await.unwrap();
        assert_eq!(is_rdma, over_rdma, "{one}");
    }
    service.close().await;
    // The address is free again, of both.
    let _service = serve(&offered, server(), echoing());
}

pub async fn where_rdma_does_not_answer_tcp_does(endpoint: Endpoint) {
    let service = serve(&Endpoint::Tcp(address(&endpoint)), server(), echoing());
    let both = Endpoint::Both(address(service.endpoint()));
    let (_connection, is_rdma) = connected(&both, Transport::Auto).await.unwrap();
    assert!(!is_rdma);
    // It is not tried again at once: who listens there by now is not asked.
    let mut raw = Raw::new();
    let (listener, _) = raw.listen(&Endpoint::Rdma(address(&both)));
    for _ in 0..20 {
        let (_connection, is_rdma) = connected(&both, Transport::Auto).await.unwrap();
        assert!(!is_rdma);
    }
    assert!(!raw.is_asked(&listener).await, "it was tried again");
    drop((listener, raw));
    let error = connected(&both, Transport::Rdma).await.err();
    let Some(TransportError::Io { kind, .. }) = error else {
        panic!("{error:?}");
    };
    assert_eq!(kind, ErrorKind::ConnectionRefused);
    service.close().await;
    assert!(connected(&both, Transport::Auto).await.is_err());
}

/// On a host without an RDMA device, which most are.
#[test]
fn a_host_without_rdma_takes_tcp_and_says_why() {
    block_on(async {
        let any = "127.0.0.1:0".parse().unwrap();
        let service = serve(&Transport::Auto.listen(any), server(), echoing());
        let both = Endpoint::Both(address(service.endpoint()));
        let (_connection, is_rdma) = connected(&both, Transport::Auto).await.unwrap();
        let required = connected(&both, Transport::Rdma).await;
        if matches!(service.endpoint(), Endpoint::Both(_)) {
            assert!(is_rdma && required.is_ok(), "it has a device after all");
            return;
        }
        assert!(!is_rdma);
        let error = required.err().unwrap();
        assert!(
            matches!(error, TransportError::Rdma(RdmaFault::Unable(_))),
            "{error}"
        );
        let words = error.to_string();
        assert!(words.contains("RDMA") || words.contains("rdma"), "{words}");
    });
}
