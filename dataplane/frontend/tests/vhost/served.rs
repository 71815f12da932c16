//! A memory disk served on a thread of its own, for drivers that block.

use ogee_frontend::vhost::{DiskOptions, DiskServer, DiskSnapshot};
use ogee_frontend::{Disk, MemoryDisk, MemoryFault, MemoryStats};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::executor::{ShardBuilder, ShardHandle};
use ogee_runtime::{area, bridge};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;
use tempfile::TempDir;

pub const SIZE: u64 = 8 << 20;

/// What the thread can be told.
pub enum Order {
    FailReads(Option<MemoryFault>),
    FailWrites(Option<MemoryFault>),
    Delay(Duration),
    Resize(u64),
    Look(mpsc::Sender<Seen>),
    /// Has a carrier register all memory that it is told of; how long each is.
    Register(mpsc::Sender<Vec<usize>>),
    /// Ends it; `true`: as if the process were killed, which abandons what is under way.
    Stop(bool),
}

/// What the thread saw.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub disk: MemoryStats,
    pub served: DiskSnapshot,
}

/// A server on a thread of its own. Several after another may serve one directory.
pub struct Remote {
    orders: bridge::Sender<Order>,
    shard: ShardHandle<(Seen, Vec<u8>)>,
}

pub struct Home {
    dir: TempDir,
}

impl Home {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a temporary directory"),
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("disk.sock")
    }
}

pub fn options(queues: u16) -> DiskOptions {
    DiskOptions {
        queues,
        serial: "serial-of-the-disk-and-more".to_owned(),
        ..DiskOptions::default()
    }
}

impl Remote {
    pub fn new(path: &Path, options: DiskOptions) -> Self {
        Self::with_contents(path, options, Vec::new(), false)
    }

    /// A server of a disk that holds `contents` at its beginning.
    pub fn with_contents(
        path: &Path,
        options: DiskOptions,
        contents: Vec<u8>,
        is_read_only: bool,
    ) -> Self {
        let path = path.to_owned();
        let (orders, inbox) = bridge::channel(4);
        let (ready, is_ready) = mpsc::channel();
        let main = move || async move {
            let size = ByteLen::new(SIZE);
            let disk = match is_read_only {
                true => MemoryDisk::read_only(size),
                false => MemoryDisk::new(size),
            };
            if !contents.is_empty() {
                let written = disk.write(ByteOffset::ZERO, contents.into()).await;
                written.expect("a disk that takes it");
            }
            serve(&path, disk, options, inbox, ready).await
        };
        let shard = ShardBuilder::new("vhost").start(main).expect("a shard");
        is_ready.recv().expect("a server");
        Self { orders, shard }
    }

    pub fn tell(&self, order: Order) {
        assert!(self.orders.try_send(order).is_ok(), "the thread listens");
    }

    pub fn look(&self) -> Seen {
        let (sender, seen) = mpsc::channel();
        self.tell(Order::Look(sender));
        seen.recv().expect("an answer")
    }

    /// The lengths of the memory that carriers are told of, which they register now.
    pub fn register(&self) -> Vec<usize> {
        let (sender, lens) = mpsc::channel();
        self.tell(Order::Register(sender));
        lens.recv().expect("an answer")
    }

    pub fn stop(self) -> (Seen, Vec<u8>) {
        self.tell(Order::Stop(false));
        self.shard.join().expect("no panic")
    }

    pub fn kill(self) -> (Seen, Vec<u8>) {
        self.tell(Order::Stop(true));
        self.shard.join().expect("no panic")
    }
}

async fn serve(
    path: &Path,
    disk: MemoryDisk,
    options: DiskOptions,
    mut orders: bridge::Receiver<Order>,
    ready: mpsc::Sender<()>,
) -> (Seen, Vec<u8>) {
    let server = DiskServer::bind(path, "disk", Rc::new(disk.clone()), options).await;
    let server = server.expect("a free path");
    ready.send(()).expect("somebody waits");
    let see = |server: &DiskServer<MemoryDisk>| Seen {
        disk: disk.stats(),
        served: server.metrics(),
    };
    while let Some(order) = orders.recv().await {
        match order {
            Order::FailReads(fault) => disk.fail_reads(fault),
            Order::FailWrites(fault) => disk.fail_writes(fault),
            Order::Delay(delay) => disk.set_delay(delay),
            Order::Resize(size) => disk.resize(ByteLen::new(size)),
            Order::Register(sender) => {
                let areas = area::all();
                areas.iter().for_each(|area| area.attach(1, Rc::new(())));
                let lens = areas.iter().map(|area| area.len()).collect();
                sender.send(lens).expect("somebody waits");
            }
            Order::Look(sender) => sender.send(see(&server)).expect("somebody waits"),
            Order::Stop(true) => {
                let seen = see(&server);
                return (seen, contents(&disk));
            }
            Order::Stop(false) => break,
        }
    }
    let seen = see(&server);
    server.stop().await;
    (seen, contents(&disk))
}

fn contents(disk: &MemoryDisk) -> Vec<u8> {
    disk.image(ByteOffset::ZERO, ByteLen::new(SIZE))
}
