//! Writes a volume and asks *every* replica for its blocks, whoever leads: counts reads that were
//! served and are older than a write acknowledged before they were sent.
//!
//! `stale_reads MDS VOLUME FILE SECONDS`   runs until FILE exists, SECONDS at most; prints one line of
//! JSON; ends with 1 when a read was stale.
//!
//! *Place*: run by `scripts/test core` while it stops, kills and restarts replicas. A client of its
//! own believes in one leader at a time and would never ask a deposed one; this asks all, over
//! connections that stay open however long a peer is silent, so that a process that was stopped
//! answers what had been sent to it before.

use ogee_client::{
    AttachSpec, Control, ControlFuture, Grant, MdsConfig, MdsHandle, OpenOptions, Volume, VolumeMap,
};
use ogee_proto::id::{ClientId, Epoch, Incarnation, RequestId};
use ogee_proto::layout::StripeLayout;
use ogee_proto::limit::BLOCK_SIZE;
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_proto::wire::{FrameHeader, FrameKind, Status};
use ogee_runtime::executor::block_on;
use ogee_runtime::{Payload, now, sleep, spawn};
use ogee_transport::{Caller, CallerOptions, Endpoint, Frame, Hello, Keepalive, Role};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

/// One block in each of so many stripe units.
const BLOCKS: usize = 32;
/// Reads under way at each replica.
const READERS: usize = 8;
/// Longer than any test stops a process.
const SILENCE: Duration = Duration::from_secs(60);
/// Between two requests of one task.
const PAUSE: Duration = Duration::from_millis(2);

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// The metadata server, and what it granted.
struct Watched {
    mds: MdsHandle,
    grant: RefCell<Option<Grant>>,
}

impl Control for Watched {
    fn attach(&self, spec: AttachSpec) -> ControlFuture<'_, Grant> {
        Box::pin(async {
            let grant = self.mds.attach(spec).await?;
            *self.grant.borrow_mut() = Some(grant.clone());
            Ok(grant)
        })
    }

    fn refresh(&self, name: &str, client: ClientId, epoch: Epoch) -> ControlFuture<'_, VolumeMap> {
        self.mds.refresh(name, client, epoch)
    }

    fn detach(&self, name: &str, client: ClientId, epoch: Epoch) -> ControlFuture<'_, ()> {
        self.mds.detach(name, client, epoch)
    }
}

/// What all tasks share.
struct Run {
    volume: Volume,
    grant: Grant,
    /// Newest stamp of each block whose write has returned.
    acknowledged: Vec<Cell<u64>>,
    writes: Cell<u64>,
    served: Cell<u64>,
    refused: Cell<u64>,
    stale: Cell<u64>,
    /// Replicas, by endpoint, that served a read.
    servers: RefCell<BTreeSet<String>>,
    over: Cell<bool>,
}

fn main() -> Outcome<ExitCode> {
    let mut args = std::env::args().skip(1);
    let [Some(mds), Some(name), Some(stop), Some(seconds)] = [(); 4].map(|()| args.next()) else {
        return Err("usage: stale_reads MDS VOLUME FILE SECONDS".into());
    };
    let limit = Duration::from_secs(seconds.parse()?);
    let run = block_on(run(vec![mds], &name, Path::new(&stop), limit))?;
    println!(
        r#"{{"writes": {}, "served": {}, "refused": {}, "servers": {}, "stale": {}}}"#,
        run.writes.get(),
        run.served.get(),
        run.refused.get(),
        run.servers.borrow().len(),
        run.stale.get()
    );
    Ok(ExitCode::from(u8::from(run.stale.get() > 0)))
}

async fn run(mds: Vec<String>, name: &str, stop: &Path, limit: Duration) -> Outcome<Rc<Run>> {
    let control = Rc::new(Watched {
        mds: MdsHandle::start(MdsConfig::new(mds))?,
        grant: RefCell::default(),
    });
    let watched: Rc<dyn Control> = Rc::<Watched>::clone(&control);
    let volume = Volume::open_with(watched, name, OpenOptions::default()).await?;
    let grant = control.grant.borrow_mut().take().ok_or("nothing granted")?;
    let run = Rc::new(Run {
        volume,
        grant,
        acknowledged: vec![Cell::new(0); BLOCKS],
        writes: Cell::new(0),
        served: Cell::new(0),
        refused: Cell::new(0),
        stale: Cell::new(0),
        servers: RefCell::default(),
        over: Cell::new(false),
    });
    let mut tasks = Vec::new();
    for block in 0..BLOCKS {
        tasks.push(spawn(write(Rc::clone(&run), block)));
    }
    let replicas = run.grant.map.copysets().iter().flat_map(|c| &c.replicas);
    let endpoints: BTreeSet<String> = replicas
        .filter_map(|replica| replica.endpoint.as_ref())
        .map(Endpoint::to_string)
        .collect();
    for endpoint in endpoints {
        let caller = caller(&endpoint)?;
        for reader in 0..READERS {
            tasks.push(spawn(read(Rc::clone(&run), caller.clone(), reader)));
        }
    }
    let end = now() + limit;
    while now() < end && !stop.exists() && !run.over.get() {
        sleep(Duration::from_millis(50)).await;
    }
    run.over.set(true);
    for task in tasks {
        task.await.map_err(|_| "a task was cancelled")?;
    }
    Ok(run)
}

fn caller(endpoint: &str) -> Outcome<Caller> {
    let hello = Hello::new(Role::Client, 0, "stale-reads");
    let mut options = CallerOptions {
        call_timeout: SILENCE,
        backoff_max: Duration::from_millis(50),
        ..CallerOptions::default()
    };
    options.connection.keepalive = Keepalive::new(Duration::from_millis(500), SILENCE);
    Ok(Caller::with_options(endpoint.parse()?, hello, options))
}

fn offset(layout: StripeLayout, block: usize) -> ByteOffset {
    ByteOffset::new(u64::from(layout.unit()) * block as u64)
}

/// Keeps one write of the block under way; the stamps grow.
async fn write(run: Rc<Run>, block: usize) {
    let at = offset(run.grant.map.head().layout, block);
    let mut stamp = 0u64;
    while !run.over.get() {
        stamp += 1;
        let mut bytes = vec![0; BLOCK_SIZE];
        bytes[..8].copy_from_slice(&stamp.to_le_bytes());
        if let Err(error) = run.volume.write(at, Payload::from(bytes)).await {
            eprintln!("write of block {block}: {error}");
            return run.over.set(true);
        }
        run.acknowledged[block].set(stamp);
        run.writes.set(run.writes.get() + 1);
        sleep(PAUSE).await;
    }
}

/// Asks one replica for block after block, as if it led all of them.
async fn read(run: Rc<Run>, caller: Caller, first: usize) {
    let mut block = first;
    while !run.over.get() {
        block = (block + READERS) % BLOCKS;
        let due = run.acknowledged[block].get();
        let answer = caller.call(Frame::new(question(&run, block))).await;
        match answer {
            Ok(reply) if reply.header.status == Status::Ok => {
                let found = reply
                    .payload
                    .first_chunk::<8>()
                    .map(|b| u64::from_le_bytes(*b));
                run.served.set(run.served.get() + 1);
                let server = caller.endpoint().to_string();
                if found.is_none_or(|found| found < due) {
                    eprintln!("{server}: block {block} read as {found:?}, {due} was acknowledged");
                    run.stale.set(run.stale.get() + 1);
                }
                run.servers.borrow_mut().insert(server);
            }
            Ok(_) | Err(_) => {
                run.refused.set(run.refused.get() + 1);
                sleep(PAUSE).await;
            }
        }
    }
}

fn question(run: &Run, block: usize) -> FrameHeader {
    let (head, len) = (run.grant.map.head(), ByteLen::from_usize(BLOCK_SIZE));
    let span = head.layout.locate(offset(head.layout, block), len);
    let span = span.expect("invariant: the volume holds every block");
    let mut header = FrameHeader::new(FrameKind::Read, RequestId::new(0));
    header.key.volume = head.id;
    header.key.chunk = span.chunk;
    header.client = run.grant.client;
    header.epoch = run.grant.epoch;
    header.incarnation = Incarnation::new(1);
    header.copyset = run.grant.map.copyset_of(span.chunk);
    header.offset = u32::try_from(span.chunk_offset.get()).expect("invariant: chunks are 16 MiB");
    header.length = u32::try_from(BLOCK_SIZE).expect("invariant: a block is 4 KiB");
    header
}
