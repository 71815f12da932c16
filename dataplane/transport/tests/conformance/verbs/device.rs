//! What an adapter tells of itself.

use super::choice::{address, connected};
use crate::support::{MS, bytes, client, echoing, pair, serve, server, write};
use ogee_runtime::{now, sleep, spawn, timeout};
use ogee_transport::rdma::{RdmaFault, Trouble};
use ogee_transport::{Caller, ConnectionOptions, Endpoint, Transport, TransportError, metrics};
use std::cell::Cell;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

/// Whatever the kernel has to do, on an emulated processor that others use as well.
const PATIENCE: Duration = Duration::from_secs(30);

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

/// The device under `dummy0` is there.
async fn rdma(arguments: &[&str]) {
    let mut child = Command::new("/usr/bin/rdma")
        .args(arguments)
        .spawn()
        .unwrap();
    // The kernel waits until nobody has the device open: it must not be waited for by who has.
    let began = now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "rdma {arguments:?}");
            return;
        }
        assert!(now() - began < PATIENCE, "rdma {arguments:?} does not end");
        sleep(20 * MS).await;
    }
}

pub async fn a_device_that_is_taken_away_is_given_up_and_comes_back(endpoint: Endpoint) {
    let service = serve(
        &Transport::Auto.listen(address(&endpoint)),
        server(),
        echoing(),
    );
    let offered = service.endpoint().clone();
    // Somebody calls all the time, and takes TCP where RDMA is not.
    let caller = Caller::new(offered.clone(), client());
    let reply = caller.call(write(0, bytes(64 << 10))).await.unwrap();
    assert_eq!(reply.payload.len(), 64 << 10);
    let answered = Rc::new(Cell::new(0_u32));
    let count = Rc::clone(&answered);
    drop(spawn(async move {
        for sequence in 1.. {
            let call = caller.call(write(sequence, bytes(64 << 10)));
            if call.await.is_ok() {
                count.set(count.get() + 1);
            }
            sleep(MS).await;
        }
    }));
    let (connection, is_rdma) = connected(&offered, Transport::Rdma).await.unwrap();
    assert!(is_rdma);
    let (sender, mut receiver) = connection.split();
    let ended = spawn(async move {
        let error = receiver.recv().await.unwrap_err();
        drop((sender, receiver));
        error
    });
    while answered.get() < 3 {
        sleep(MS).await;
    }

    rdma(&["link", "delete", "rxe0"]).await;
    let error = timeout(PATIENCE, ended).await.expect("it ends").unwrap();
    let TransportError::Rdma(RdmaFault::Device { device, trouble }) = &error else {
        panic!("{error}");
    };
    assert_eq!((&**device, *trouble), ("rxe0", Trouble::DeviceLost));
    assert!(error.to_string().contains("dmesg"), "{error}");
    // TCP goes on: new connections, and calls on them.
    let (_tcp, is_rdma) = connected(&offered, Transport::Auto).await.unwrap();
    assert!(!is_rdma);
    assert!(connected(&offered, Transport::Rdma).await.is_err());
    let (before, began) = (answered.get(), now());
    while answered.get() < before + 10 {
        assert!(now() - began < PATIENCE, "calls go on");
        sleep(MS).await;
    }

    let rdma_before = metrics().connections_rdma;
    rdma(&["link", "add", "rxe0", "type", "rxe", "netdev", "dummy0"]).await;
    let began = now();
    let connection = loop {
        match connected(&offered, Transport::Rdma).await {
            Ok((connection, is_rdma)) => break is_rdma.then_some(connection),
            Err(error) => assert!(now() - began < PATIENCE, "who listened does again: {error}"),
        }
        sleep(100 * MS).await;
    };
    assert!(connection.is_some());
    assert!(metrics().connections_rdma > rdma_before);
    let caller = Caller::new(Endpoint::Rdma(address(&offered)), client());
    let reply = caller.call(write(1, bytes(1 << 20))).await.unwrap();
    assert!(reply.payload[..] == bytes(1 << 20)[..]);
}
