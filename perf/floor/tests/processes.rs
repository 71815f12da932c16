//! Three real processes: what is answered survives, and two have it.

#![allow(clippy::unwrap_used, reason = "all of this file is test code")]

use ogee_client::{MdsConfig, MdsHandle, OpenOptions, Volume};
use ogee_floor::{NODES, VOLUME};
use ogee_proto::limit::BLOCK_SIZE;
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::executor::block_on;
use ogee_runtime::{Payload, timeout};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Bound on everything that has to happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// What does not happen for so long does not happen.
const STILL: Duration = Duration::from_secs(2);
/// Chunks of the volume, and one write to each: every group has some.
const CHUNKS: u64 = 16;
const CHUNK: u64 = 16 << 20;

struct Floor {
    dir: PathBuf,
    peers: String,
    mds: SocketAddr,
    processes: [Option<Child>; NODES],
}

impl Floor {
    fn start(dir: &Path) -> Self {
        // Held together, so that they differ.
        let held: Vec<TcpListener> = (0..=NODES)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let addresses: Vec<SocketAddr> = held.iter().map(|l| l.local_addr().unwrap()).collect();
        drop(held);
        let peers: Vec<String> = addresses[..NODES]
            .iter()
            .map(SocketAddr::to_string)
            .collect();
        let mut floor = Self {
            dir: dir.to_owned(),
            peers: peers.join(","),
            mds: addresses[NODES],
            processes: [const { None }; NODES],
        };
        (0..NODES).for_each(|node| floor.begin(node));
        (0..NODES).for_each(|node| floor.await_ready(node));
        floor
    }

    fn begin(&mut self, node: usize) {
        let _old = std::fs::remove_file(self.ready(node));
        let mut command = Command::new(env!("CARGO_BIN_EXE_ogee-floor"));
        command.args([
            "--node",
            &node.to_string(),
            "--peers",
            &self.peers,
            "--store",
        ]);
        command.arg(self.dir.join(format!("{node}.store")));
        command.args([
            "--store-size",
            "1GiB",
            "--log-size",
            "64MiB",
            "--volume-size",
            "256MiB",
        ]);
        command.arg("--ready-file").arg(self.ready(node));
        if node == 0 {
            command.args(["--mds", &self.mds.to_string()]);
        }
        self.processes[node] = Some(command.stdin(Stdio::null()).spawn().unwrap());
    }

    fn await_ready(&mut self, node: usize) {
        let end = Instant::now() + PATIENCE;
        while !self.ready(node).exists() {
            let ended = self.processes[node].as_mut().unwrap().try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < end,
                "process {node}: {ended:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn kill(&mut self, node: usize) {
        let mut process = self.processes[node].take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    fn restart(&mut self, node: usize) {
        self.begin(node);
        self.await_ready(node);
    }

    fn ready(&self, node: usize) -> PathBuf {
        self.dir.join(format!("{node}.ready"))
    }

    async fn open(&self) -> Volume {
        let mds = MdsHandle::start(MdsConfig::new(vec![self.mds.to_string()])).unwrap();
        Volume::open(mds, VOLUME, OpenOptions::default())
            .await
            .unwrap()
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().flatten() {
            let _ended = process.kill();
            let _ended = process.wait();
        }
    }
}

/// Where the write of this number goes.
fn place(number: u64) -> ByteOffset {
    ByteOffset::new(number % CHUNKS * CHUNK + number / CHUNKS * BLOCK_SIZE as u64)
}

fn contents(number: u64, version: u64) -> Payload {
    let word = (number << 32 | version).to_le_bytes();
    Payload::from(word.repeat(BLOCK_SIZE / word.len()))
}

async fn write(volume: &Volume, number: u64, version: u64) {
    let written = volume.write(place(number), contents(number, version));
    timeout(PATIENCE, written).await.unwrap().unwrap();
}

async fn check(volume: &Volume, number: u64, version: u64) {
    let read = volume.read(place(number), ByteLen::from_usize(BLOCK_SIZE));
    let read = timeout(PATIENCE, read).await.unwrap().unwrap();
    let bytes: Vec<u8> = read.iter().flat_map(|piece| piece.to_vec()).collect();
    assert!(
        bytes == *contents(number, version),
        "write {number} of version {version}"
    );
}

#[test]
fn what_was_answered_is_there_after_every_process_has_been_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut floor = Floor::start(dir.path());
    block_on(async {
        let volume = floor.open().await;
        // More than a fifth of the log: some of it is written back meanwhile.
        for number in 0..2 * CHUNKS {
            let large = Payload::from(vec![9; 1 << 20]);
            let at = ByteOffset::new(place(number).get() + (1 << 20) * (1 + number / CHUNKS));
            timeout(PATIENCE, volume.write(at, large))
                .await
                .unwrap()
                .unwrap();
        }
        for version in 1..=3 {
            for number in 0..4 * CHUNKS {
                write(&volume, number, version).await;
            }
            // One leads each group, the others follow; then all at once.
            for node in 0..NODES {
                floor.kill(node);
                floor.restart(node);
                for number in 0..4 * CHUNKS {
                    check(&volume, number, version).await;
                }
            }
        }
        (0..NODES).for_each(|node| floor.kill(node));
        (0..NODES).for_each(|node| floor.begin(node));
        (0..NODES).for_each(|node| floor.await_ready(node));
        for number in 0..4 * CHUNKS {
            check(&volume, number, 3).await;
        }
        let at = ByteOffset::new(place(0).get() + (1 << 20));
        let read = volume.read(at, ByteLen::new(1 << 20));
        let read = timeout(PATIENCE, read).await.unwrap().unwrap();
        assert!(read.iter().all(|piece| piece.iter().all(|byte| *byte == 9)));
    });
}

#[test]
fn a_write_waits_for_two_of_three() {
    let dir = tempfile::tempdir().unwrap();
    let mut floor = Floor::start(dir.path());
    block_on(async {
        let volume = floor.open().await;
        // Led by process 1: groups are 1, 2, … for the chunks in order.
        let led = 0;
        write(&volume, led, 1).await;
        floor.kill(2);
        write(&volume, led, 2).await;
        floor.kill(0);
        let mut waiting = std::pin::pin!(volume.write(place(led), contents(led, 3)));
        assert!(
            timeout(STILL, &mut waiting).await.is_err(),
            "one of three has it"
        );
        floor.restart(2);
        timeout(PATIENCE, waiting).await.unwrap().unwrap();
        check(&volume, led, 3).await;
    });
}
