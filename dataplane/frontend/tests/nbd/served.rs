//! A served memory disk: on the test's own executor, or on a thread for clients that block.

use ogee_frontend::nbd::{Address, ExportSnapshot, Exports, Server};
use ogee_frontend::{MemoryDisk, MemoryFault, MemoryStats};
use ogee_proto::unit::ByteLen;
use ogee_runtime::bridge;
use ogee_runtime::executor::{ShardBuilder, ShardHandle};
use std::path::PathBuf;
use std::rc::Rc;
use tempfile::TempDir;

pub fn exports(disk: &MemoryDisk) -> Exports<MemoryDisk> {
    let exports = Exports::new();
    exports
        .add("disk", "a disk in memory", Rc::new(disk.clone()))
        .expect("a free name");
    exports
}

/// A server on this executor.
pub struct Local {
    pub disk: MemoryDisk,
    pub exports: Exports<MemoryDisk>,
    pub server: Server,
    pub path: PathBuf,
    pub dir: TempDir,
}

impl Local {
    pub async fn new(size: u64) -> Self {
        Self::of(MemoryDisk::new(ByteLen::new(size))).await
    }

    pub async fn of(disk: MemoryDisk) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("nbd.sock");
        let exports = exports(&disk);
        let address = Address::Unix(path.clone());
        let server = Server::bind(address, exports.clone()).await;
        Self {
            disk,
            exports,
            server: server.expect("a free path"),
            path,
            dir,
        }
    }
}

/// What the thread can be told.
pub enum Order {
    FailReads(Option<MemoryFault>),
    FailWrites(Option<MemoryFault>),
    Stop,
}

/// What the thread saw.
pub struct Seen {
    pub disk: MemoryStats,
    pub export: ExportSnapshot,
}

/// A server on a thread of its own.
pub struct Remote {
    pub dir: TempDir,
    orders: bridge::Sender<Order>,
    shard: ShardHandle<Seen>,
}

impl Remote {
    pub fn new(size: u64, is_read_only: bool) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("nbd.sock");
        let (orders, inbox) = bridge::channel(4);
        let (ready, is_ready) = bridge::channel(1);
        let main = move || async move {
            let size = ByteLen::new(size);
            let disk = match is_read_only {
                true => MemoryDisk::read_only(size),
                false => MemoryDisk::new(size),
            };
            serve(path, disk, inbox, ready).await
        };
        let shard = ShardBuilder::new("nbd").start(main).expect("a shard");
        let mut is_ready = is_ready;
        ogee_runtime::executor::block_on(is_ready.recv()).expect("a server");
        Self { dir, orders, shard }
    }

    /// Where clients find the disk.
    pub fn uri(&self) -> String {
        let path = self.dir.path().join("nbd.sock");
        format!("nbd+unix:///disk?socket={}", path.display())
    }

    pub fn order(&self, order: Order) {
        self.orders.try_send(order).expect("the thread listens");
    }

    pub fn stop(self) -> Seen {
        self.order(Order::Stop);
        self.shard.join().expect("no panic")
    }
}

async fn serve(
    path: PathBuf,
    disk: MemoryDisk,
    mut orders: bridge::Receiver<Order>,
    ready: bridge::Sender<()>,
) -> Seen {
    let exports = exports(&disk);
    let server = Server::bind(Address::Unix(path), exports.clone()).await;
    let server = server.expect("a free path");
    ready.try_send(()).expect("somebody waits");
    loop {
        match orders.recv().await {
            Some(Order::FailReads(fault)) => disk.fail_reads(fault),
            Some(Order::FailWrites(fault)) => disk.fail_writes(fault),
            Some(Order::Stop) | None => break,
        }
    }
    server.stop().await;
    Seen {
        disk: disk.stats(),
        export: exports.metrics("disk").expect("the export is there"),
    }
}
