//! One step of the data path, over and over, for an instruction counter.
//!
//! `ogee-cost STEP COUNT` repeats a step; two counts under `valgrind --tool=callgrind` give what one repetition
//! costs, without what surrounds them. Devices are in memory, since a wait costs as many instructions as
//! the executor's idle loop happens to run; what such a device costs is counted, too, two thirds of
//! `append`. `scripts/cost` compares with `perf/cost.txt`.

use futures_util::future::join_all;
use ogee_device::Device;
use ogee_group::{
    CommandHead, CommandKind, CopyBudget, Group, GroupConfig, GroupMetrics, GroupParams, PeerBook,
    ReplicaNode, StoreKeeper, Watch, command,
};
use ogee_log::{Entry, GroupLog, Log, LogOptions, LogRegion};
use ogee_proto::checksum::crc32c;
use ogee_proto::id::{
    ChunkIndex, ChunkKey, ClientId, CopysetId, Epoch, Incarnation, LogId, LogIndex, ReplicaId,
    RequestId, Sequence, StoreId, Term, VolumeId,
};
use ogee_proto::limit::BLOCK_SIZE;
use ogee_proto::unit::{BlockIndex, ByteLen};
use ogee_proto::wire::{FrameHeader, FrameKind, Status};
use ogee_runtime::{Payload, executor};
use ogee_store::{BlockChange, Store, StoreParams, WriteBack};
use ogee_transport::{Caller, CallerOptions, Endpoint, Frame, Hello, Listener, Role, Service};
use std::cell::Cell;
use std::error::Error;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;
use uuid::Uuid;

type Outcome = Result<(), Box<dyn Error>>;

/// As many at a time as a busy client keeps under way.
const DEPTH: u64 = 32;
/// Blocks that are written over and over, read one after the other.
const BLOCKS: u64 = 512;
const COPYSET: CopysetId = CopysetId::new(7);
const REPLICA: ReplicaId = ReplicaId::new(1);
const KEY: ChunkKey = ChunkKey {
    volume: VolumeId::new(1),
    chunk: ChunkIndex::new(0),
};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.as_slice() {
        [step, count] => match count.parse() {
            Ok(count) => run(step, count),
            Err(error) => Err(format!("COUNT {count:?}: {error}").into()),
        },
        _ => Err("usage: ogee-cost frame|append|read|propose COUNT".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(step: &str, count: u64) -> Outcome {
    match step {
        "frame" => executor::block_on(frames(count)),
        "append" => executor::block_on(appends(count)),
        "read" => executor::block_on(reads(count)),
        "propose" => executor::block_on(proposals(count)),
        _ => Err(format!("no step is called {step:?}: frame, append, read or propose").into()),
    }
}

/// Rounds of `DEPTH` that make up `count`.
fn rounds(count: u64) -> impl Iterator<Item = std::ops::Range<u64>> {
    let starts = (0..count).step_by(usize::try_from(DEPTH).unwrap_or(1));
    starts.map(move |start| start..(start + DEPTH).min(count))
}

/// The data of all writes, made once.
fn block() -> Payload {
    thread_local!(static BLOCK: Payload = Payload::from(vec![7; BLOCK_SIZE]));
    BLOCK.with(Payload::clone)
}

/// A write's frame to a peer and its answer back: encoded, sent, received, decoded, both ways.
async fn frames(count: u64) -> Outcome {
    let hello = Hello::new(Role::Chunkserver, 1, "cost");
    let listener = Listener::bind(&"127.0.0.1:0".parse::<Endpoint>()?)?;
    let answer = |peer: ogee_transport::Peer, frame: Frame| {
        let header = FrameHeader::reply(&frame.header, Status::Ok);
        // A caller that is gone needs no answer.
        let _ = peer.reply(Frame::new(header));
    };
    let service = Service::serve(listener, hello, Rc::new(answer));
    let hello = Hello::new(Role::Client, 2, "cost");
    let caller = Caller::new(service.endpoint().clone(), hello);
    for round in rounds(count) {
        let calls = round.map(|number| {
            let mut header = FrameHeader::new(FrameKind::Write, RequestId::new(number));
            header.sequence = Sequence::new(number);
            caller.call(Frame::with_payload(header, block()))
        });
        for answered in join_all(calls).await {
            answered?;
        }
    }
    Ok(())
}

/// Entries of a block each, until they are durable in the log.
async fn appends(count: u64) -> Outcome {
    let store = format().await?;
    let log = open_log(&store).await?.group(COPYSET);
    for round in rounds(count) {
        let last = round.end;
        let written = Rc::new(Cell::new(0));
        for index in round.clone() {
            let (entry, done) = (entry(index + 1), written.clone());
            log.append(vec![entry], move |result| {
                done.set(done.get() + u64::from(result.is_ok()));
            });
        }
        until(|| {
            log.durable_state()
                .last
                .is_some_and(|id| id.index.get() >= last)
        })
        .await;
        if written.get() != round.end - round.start {
            return Err("the log has refused an entry".into());
        }
        purge(&log, last).await?;
    }
    Ok(())
}

async fn purge(log: &GroupLog, upto: u64) -> Outcome {
    if upto.is_multiple_of(1024) {
        log.purge(LogId {
            term: Term::new(1),
            index: LogIndex::new(upto),
        })
        .await?;
    }
    Ok(())
}

fn entry(index: u64) -> Entry {
    let payload = block();
    Entry {
        id: LogId {
            term: Term::new(1),
            index: LogIndex::new(index),
        },
        kind: 1,
        head: vec![0; 66].into(),
        payload_crc: crc32c(&payload),
        payload,
    }
}

/// Single blocks of a chunk, verified.
async fn reads(count: u64) -> Outcome {
    let store = format().await?;
    let changes = (0..BLOCKS).map(|number| {
        Ok(WriteBack {
            key: KEY,
            block: block_at(number)?,
            what: BlockChange::Data(block()),
        })
    });
    let changes = changes.collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    store.write_back(COPYSET, changes).await?;
    store.checkpoint(Vec::new()).await?;
    for number in 0..count {
        let read = store
            .read(COPYSET, KEY, block_at(number * 7 % BLOCKS)?, 1)
            .await?;
        std::hint::black_box(read);
    }
    Ok(())
}

fn block_at(number: u64) -> Result<BlockIndex, Box<dyn Error>> {
    BlockIndex::new(usize::try_from(number)?).ok_or_else(|| "no such block".into())
}

/// Writes of a block each to a group of one replica, until they are applied.
async fn proposals(count: u64) -> Outcome {
    let store = format().await?;
    let log = open_log(&store).await?;
    let keeper = StoreKeeper::start(store.clone(), log.clone());
    Group::create(&store, COPYSET, REPLICA).await?;
    let config = GroupConfig::default();
    let hello = Hello::new(Role::Chunkserver, 1, "cost");
    let peers = Rc::new(PeerBook::new(hello, CallerOptions::default()));
    let params = GroupParams {
        copyset: COPYSET,
        log,
        store,
        watch: Watch::start(peers.clone(), config),
        peers,
        config,
        metrics: Rc::new(GroupMetrics::default()),
        copies: Rc::new(CopyBudget::new(None)),
    };
    let group = Group::open(params).await?;
    keeper.add(group.clone());
    group
        .bootstrap([(REPLICA, ReplicaNode::default())].into())
        .await?;
    until(|| group.report().is_leader).await;
    write(&group, CommandKind::Seal, 0).await?;
    for round in rounds(count) {
        let writes = round.map(|number| write(&group, CommandKind::Write, number + 1));
        for written in join_all(writes).await {
            written?;
        }
    }
    keeper.stop();
    Ok(())
}

async fn write(group: &Group, kind: CommandKind, sequence: u64) -> Outcome {
    let data = match kind {
        CommandKind::Write => block(),
        _ => Payload::empty(),
    };
    let head = CommandHead {
        kind,
        key: KEY,
        offset: u32::try_from(sequence % BLOCKS)? * u32::try_from(BLOCK_SIZE)?,
        length: u32::try_from(BLOCK_SIZE)?,
        client: ClientId::new(1),
        epoch: Epoch::new(1),
        incarnation: Incarnation::new(0),
        sequence: Sequence::new(sequence),
        watermark: Sequence::new(sequence.saturating_sub(DEPTH)),
    };
    let crc = crc32c(&data);
    match group.mutate(command(head, data, crc)).await.status {
        Status::Ok => Ok(()),
        status => Err(format!("request {sequence} was answered {status:?}").into()),
    }
}

async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        ogee_runtime::sleep(Duration::from_millis(1)).await;
    }
}

async fn format() -> Result<Store, Box<dyn Error>> {
    let device = Device::memory(ByteLen::new(192 << 20));
    let params = StoreParams {
        store: StoreId::from_bytes([1; 16]),
        cluster: Uuid::from_bytes([2; 16]),
        log_len: ByteLen::new(96 << 20),
        force: false,
    };
    Store::format(&device, params).await?;
    Ok(Store::open(&device).await?)
}

async fn open_log(store: &Store) -> Result<Log, Box<dyn Error>> {
    let (start, len) = store.log_region();
    let region = LogRegion { start, len };
    let options = LogOptions {
        segment_len: ByteLen::new(4 << 20),
        ..LogOptions::new(store.id())
    };
    Log::format(store.device(), region, options).await?;
    Ok(Log::open(store.device(), region, options).await?)
}
