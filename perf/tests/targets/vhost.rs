//! The disk of a virtual machine, without one.

use crate::{SIZE, verifying};
use ogee_frontend::vhost::{DiskOptions, DiskServer};
use ogee_frontend::{MemoryDisk, MemoryFault};
use ogee_perf::{AnyTarget, PerfError, Sample, Stop, VhostClient, VhostError, Workload, run};
use ogee_proto::unit::ByteLen;
use ogee_runtime::executor::block_on;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

struct Home {
    socket: PathBuf,
    _dir: TempDir,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            socket: dir.path().join("disk.sock"),
            _dir: dir,
        }
    }

    async fn serve(&self, disk: &Rc<MemoryDisk>) -> DiskServer<MemoryDisk> {
        let options = DiskOptions {
            queues: 4,
            ..DiskOptions::default()
        };
        let server = DiskServer::bind(&self.socket, "disk", Rc::clone(disk), options);
        server.await.unwrap()
    }
}

async fn refused(socket: &Path, load: &Workload) -> String {
    let refused = VhostClient::connect(socket, load, false).await;
    refused.err().unwrap().to_string()
}

#[test]
fn a_disk_keeps_what_is_written_by_each_number_of_jobs() {
    block_on(async {
        for (jobs, iodepth, bs, is_durable) in [
            (1, 16, "4k", false),
            (4, 5, "64k", true),
            (2, 33, "4k", false),
        ] {
            let (home, disk) = (Home::new(), Rc::new(MemoryDisk::new(SIZE)));
            // Answers come in another order than requests.
            disk.set_delay(Duration::from_micros(500));
            let server = home.serve(&disk).await;
            let load = Workload {
                jobs,
                iodepth,
                ..verifying(bs)
            };
            let client = VhostClient::connect(&home.socket, &load, is_durable)
                .await
                .unwrap();
            assert_eq!(client.size(), SIZE);
            let target = AnyTarget::Vhost(client);
            let report = run(&[target], &load, &mut |_: &Sample| {}).await.unwrap();
            assert_eq!(report.read.io_bytes + report.write.io_bytes, 32 << 20);
            let (seen, served) = (disk.stats(), server.metrics());
            assert_eq!(seen.writes, report.write.total_ios);
            assert_eq!((served.broken_rings, served.failures), (0, 0));
            // A flush behind each write, which waits for it.
            let flushes = if is_durable { seen.writes } else { 0 };
            assert_eq!(seen.flushes, flushes);
            assert!(seen.inflight_max > 4, "{seen:?}");
            server.stop().await;
        }
    });
}

#[test]
fn a_run_that_does_not_verify_reads_as_well() {
    block_on(async {
        let (home, disk) = (Home::new(), Rc::new(MemoryDisk::new(SIZE)));
        let server = home.serve(&disk).await;
        let load = Workload {
            iodepth: 8,
            stop: Stop::Bytes(ByteLen::new(4 << 20)),
            ..Workload::default()
        };
        let client = VhostClient::connect(&home.socket, &load, false);
        let target = AnyTarget::Vhost(client.await.unwrap());
        let report = run(&[target], &load, &mut |_: &Sample| {}).await.unwrap();
        assert_eq!(report.read.total_ios, 1024);
        assert_eq!(disk.stats().reads, 1024);
        server.stop().await;
    });
}

#[test]
fn a_request_that_the_disk_fails_fails_the_run_and_a_server_that_goes_away_too() {
    block_on(async {
        let (home, disk) = (Home::new(), Rc::new(MemoryDisk::new(SIZE)));
        let server = home.serve(&disk).await;
        let load = Workload::default();
        let connect = || VhostClient::connect(&home.socket, &load, false);
        disk.fail_reads(Some(MemoryFault::Medium));
        let target = AnyTarget::Vhost(connect().await.unwrap());
        let failed = run(&[target], &load, &mut |_: &Sample| {}).await;
        let status = |error: &PerfError| format!("{error:?}").contains("Status(1)");
        assert!(failed.as_ref().is_err_and(status), "{failed:?}");
        disk.fail_reads(None);
        let target = [AnyTarget::Vhost(connect().await.unwrap())];
        let mut watch = |_: &Sample| {};
        let running = run(&target, &load, &mut watch);
        let stopping = ogee_runtime::spawn(async move {
            ogee_runtime::sleep(Duration::from_millis(100)).await;
            server.stop().await;
        });
        let failed = running.await.unwrap_err();
        assert!(format!("{failed:?}").contains("Lost"), "{failed:?}");
        let _ = stopping.await;
    });
}

#[test]
fn what_cannot_be_used_is_told_with_its_value_and_what_to_do() {
    block_on(async {
        let (home, load) = (Home::new(), Workload::default());
        let text = refused(&home.socket, &load).await;
        assert!(
            text.contains("disk.sock") && text.contains("ogee export vhost-user"),
            "{text}"
        );

        let disk = Rc::new(MemoryDisk::read_only(SIZE));
        let server = home.serve(&disk).await;
        let many = Workload {
            jobs: 5,
            ..Workload::default()
        };
        let text = refused(&home.socket, &many).await;
        assert!(
            text.contains("4 queues") && text.contains("5 jobs"),
            "{text}"
        );
        let writes = Workload {
            rw: "randwrite".parse().unwrap(),
            ..Workload::default()
        };
        let client = VhostClient::connect(&home.socket, &writes, false);
        let target = AnyTarget::Vhost(client.await.unwrap());
        let failed = run(&[target], &writes, &mut |_: &Sample| {}).await;
        assert!(failed.is_err_and(|error| format!("{error:?}").contains("ReadOnly")));
        server.stop().await;

        let none = Rc::new(MemoryDisk::new(ByteLen::new(0)));
        let server = home.serve(&none).await;
        let text = refused(&home.socket, &load).await;
        assert!(
            text.contains("0 bytes") && text.contains("resize"),
            "{text}"
        );
        server.stop().await;
    });
}

/// Answers the question for features, and nothing else.
fn offers(listener: &UnixListener, features: u64) {
    let (mut stream, _) = listener.accept().unwrap();
    let mut head = [0; 12];
    while stream.read_exact(&mut head).is_ok() {
        let len = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
        stream.read_exact(&mut vec![0; len as usize]).unwrap();
        if head[0] == 1 {
            let mut reply = [1_u32, 5, 8].map(u32::to_le_bytes).concat();
            reply.extend_from_slice(&features.to_le_bytes());
            stream.write_all(&reply).unwrap();
        }
    }
}

#[test]
fn a_feature_that_is_missing_is_named_and_silence_has_an_end() {
    for (features, wanted) in [(0, "VERSION_1"), (1 << 32, "INDIRECT_DESC")] {
        let home = Home::new();
        let listener = UnixListener::bind(&home.socket).unwrap();
        let server = thread::spawn(move || offers(&listener, features));
        let text = block_on(async { refused(&home.socket, &Workload::default()).await });
        assert!(text.contains(wanted), "{text}");
        server.join().unwrap();
    }
    // It accepts, and says nothing.
    let home = Home::new();
    let _listener = UnixListener::bind(&home.socket).unwrap();
    let began = Instant::now();
    let load = Workload::default();
    let error = block_on(async {
        let connected = VhostClient::connect(&home.socket, &load, false).await;
        connected.err().unwrap()
    });
    assert!(matches!(error, VhostError::Silent { .. }), "{error}");
    assert!(began.elapsed() >= Duration::from_secs(5));
}
