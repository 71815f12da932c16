//! What an adapter tells of itself.

use crate::support::{MS, bytes, client, echoing, pair, serve, server, write};
use ogee_runtime::{now, sleep, timeout};
use ogee_transport::rdma::{RdmaFault, Trouble};
use ogee_transport::{Caller, ConnectionOptions, Endpoint, TransportError};
use std::process::Command;
use std::time::Duration;

/// The lab's interface under rxe0.
fn link(state: &str) {
    let set = Command::new("ip")
        .args(["link", "set", "dummy0", state])
        .status();
    assert!(set.unwrap().success(), "ip link set dummy0 {state}");
}

pub async fn a_port_that_goes_down_ends_its_connections_and_says_so(endpoint: Endpoint) {
    let options = ConnectionOptions::default();
    let (near, far) = pair(&endpoint, options, options).await;
    let service = serve(&endpoint, server(), echoing());
    let caller = Caller::new(service.endpoint().clone(), client());
    caller.call(write(1, bytes(4096))).await.unwrap();
    link("down");
    let began = now();
    for connection in [near, far] {
        let (_sender, mut receiver) = connection.split();
        let ended = timeout(Duration::from_secs(5), receiver.recv()).await;
        let error = ended.expect("it ends").unwrap_err();
        let TransportError::Rdma(RdmaFault::Device { device, trouble }) = &error else {
            panic!("{error}");
        };
        assert_eq!(
            (&**device, *trouble),
            ("rxe0", Trouble::PortDown { port: 1 })
        );
        assert!(error.to_string().contains("ip link"), "{error}");
    }
    // At once, not by the retries of packets or by silence.
    assert!(now() - began < Duration::from_secs(1));
    link("up");
    // Whoever listens there does so still, and callers come back.
    let began = now();
    while caller.call(write(2, bytes(64 << 10))).await.is_err() {
        assert!(now() - began < Duration::from_secs(30), "it comes back");
        sleep(100 * MS).await;
    }
}
