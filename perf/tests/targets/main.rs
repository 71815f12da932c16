//! Verifying runs against each kind of target that needs no cluster.

#![allow(clippy::unwrap_used, reason = "all of this file is test code")]

mod vhost;

use ogee_device::Device;
use ogee_frontend::MemoryDisk;
use ogee_frontend::nbd::{Address, Exports, Server};
use ogee_perf::{
    AnyTarget, NbdAddress, NbdClient, NbdError, NbdServer, Report, Sample, Stop, Workload, run,
};
use ogee_proto::unit::ByteLen;
use ogee_runtime::executor::block_on;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

const SIZE: ByteLen = ByteLen::new(8 << 20);

fn verifying(bs: &str) -> Workload {
    Workload {
        rw: "randrw:40".parse().unwrap(),
        sizes: bs.parse().unwrap(),
        iodepth: 16,
        stop: Stop::Bytes(ByteLen::new(32 << 20)),
        verify: true,
        ..Workload::default()
    }
}

async fn verified(target: AnyTarget, bs: &str) -> Report {
    run(&[target], &verifying(bs), &mut |_: &Sample| {})
        .await
        .unwrap()
}

fn at(path: &Path, export: &str) -> NbdAddress {
    NbdAddress {
        server: NbdServer::Unix(path.into()),
        export: export.to_owned(),
    }
}

#[test]
fn a_device_keeps_what_is_written() {
    block_on(async {
        for is_durable in [false, true] {
            let device = Device::memory(SIZE);
            let counters = device.clone();
            let report = verified(AnyTarget::Raw { device, is_durable }, "64k").await;
            assert_eq!(report.total_ios(), 512);
            assert_eq!(counters.len(), SIZE);
        }
    });
}

#[test]
fn an_export_keeps_what_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    block_on(async {
        let disk = Rc::new(MemoryDisk::new(SIZE));
        // Answers come in another order than requests.
        disk.set_delay(Duration::from_micros(500));
        let exports = Exports::new();
        exports.add("v", "a disk", Rc::clone(&disk)).unwrap();
        let server = Server::bind(Address::Unix(socket.clone()), exports);
        let server = server.await.unwrap();
        for (is_durable, bs) in [(false, "4k"), (true, "128k")] {
            let client = NbdClient::connect(&at(&socket, "v"), is_durable)
                .await
                .unwrap();
            assert_eq!(client.size(), SIZE);
            let report = verified(AnyTarget::Nbd(client), bs).await;
            assert_eq!(report.read.io_bytes + report.write.io_bytes, 32 << 20);
        }
        assert!(disk.stats().writes > 1000 && disk.stats().inflight_max > 4);
        server.stop().await;
    });
}

#[test]
fn what_is_not_served_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    block_on(async {
        let exports = Exports::new();
        let disk = Rc::new(MemoryDisk::new(SIZE));
        exports.add("v", "a disk", disk).unwrap();
        let server = Server::bind(Address::Unix(socket.clone()), exports);
        let server = server.await.unwrap();
        let refused = NbdClient::connect(&at(&socket, "w"), false)
            .await
            .err()
            .unwrap();
        assert!(matches!(&refused, NbdError::Refused { export, .. } if &**export == "w"));
        server.stop().await;
        let nobody = at(&dir.path().join("none"), "v");
        let error = NbdClient::connect(&nobody, false)
            .await
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains("none") && error.contains("ogee export nbd"),
            "{error}"
        );
    });
}

#[test]
fn a_server_that_goes_away_fails_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    block_on(async {
        let exports = Exports::new();
        exports
            .add("v", "a disk", Rc::new(MemoryDisk::new(SIZE)))
            .unwrap();
        let server = Server::bind(Address::Unix(socket.clone()), exports);
        let server = server.await.unwrap();
        let client = NbdClient::connect(&at(&socket, "v"), false).await.unwrap();
        let target = AnyTarget::Nbd(client);
        let load = Workload::default();
        let mut watch = |_: &Sample| {};
        let running = run(std::slice::from_ref(&target), &load, &mut watch);
        let stopping = ogee_runtime::spawn(async move {
            ogee_runtime::sleep(Duration::from_millis(100)).await;
            server.stop().await;
        });
        let error = running.await.unwrap_err();
        assert!(
            matches!(error, ogee_perf::PerfError::Request { .. }),
            "{error}"
        );
        let _ = stopping.await;
    });
}
