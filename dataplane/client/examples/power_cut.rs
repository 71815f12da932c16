//! Writes a volume and says what was acknowledged, so that the power may go at any moment; reads it
//! back after that.
//!
//! `power_cut write MDS VOLUME ACKS FIRST SECONDS`   writes under stamps from FIRST on, and appends to
//! ACKS a line `BLOCK COUNT STAMP` for each write that has returned.
//! `power_cut verify MDS VOLUME ACKS FOUND [exact]`   every block must hold, whole, the newest stamp
//! that ACKS has for it or a later one (`exact`: that one); writes to FOUND, in the same form, what it
//! read. Prints one line of JSON; ends with 1 when a block is wrong.
//!
//! *Place*: run by `scripts/test.d/lab.sh`, the writer in a guest whose power is cut. ACKS is then a
//! port to the host: a line counts only once it has left the guest, and it is written after its write
//! has returned. *Invariants*: regions are one task's each, so no two writes of a block are on their
//! way at a time and the stamps of a block grow in the order in which they are applied.

use ogee_client::{MdsConfig, MdsHandle, OpenOptions, Volume};
use ogee_proto::limit::BLOCK_SIZE;
use ogee_proto::unit::ByteOffset;
use ogee_runtime::executor::block_on;
use ogee_runtime::{Payload, now, sleep, spawn};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::Write;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

/// Writers, each with a region of its own.
const WRITERS: u64 = 16;
/// Blocks at the front of a region that most writes hit.
const HOT_BLOCKS: u64 = 16;
/// Blocks of an extent: a write of whole ones bypasses the log.
const EXTENT_BLOCKS: u64 = 16;
/// How long an acknowledgement may wait for others before it is told.
const TELL: Duration = Duration::from_millis(5);
/// Blocks that one read asks for.
const READ_BLOCKS: u64 = 64;
/// A read that takes longer is a failure.
const READ_LIMIT: Duration = Duration::from_secs(60);
/// Blocks named in a report.
const NAMED: usize = 8;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match *args.as_slice() {
        ["write", mds, name, acks, first, seconds] => {
            let seconds = Duration::from_secs(seconds.parse()?);
            block_on(write(mds, name, acks, first.parse()?, seconds))?;
            Ok(ExitCode::SUCCESS)
        }
        ["verify", mds, name, acks, found] => block_on(verify(mds, name, acks, found, false)),
        ["verify", mds, name, acks, found, "exact"] => {
            block_on(verify(mds, name, acks, found, true))
        }
        _ => Err("usage: power_cut write MDS VOLUME ACKS FIRST SECONDS | verify MDS VOLUME ACKS FOUND [exact]".into()),
    }
}

async fn open(mds: &str, name: &str, options: OpenOptions) -> Outcome<Volume> {
    let mds = MdsHandle::start(MdsConfig::new(vec![mds.to_owned()]))?;
    Ok(Volume::open(mds, name, options).await?)
}

fn block_count(volume: &Volume) -> u64 {
    volume.size().get() / BLOCK_SIZE as u64
}

fn offset(block: u64) -> ByteOffset {
    ByteOffset::new(block * BLOCK_SIZE as u64)
}

/// What a block holds, whole: its number and the stamp, over and over.
fn fill(block: u64, stamp: u64, bytes: &mut [u8]) {
    for pair in bytes.chunks_exact_mut(16) {
        pair[..8].copy_from_slice(&block.to_le_bytes());
        pair[8..].copy_from_slice(&stamp.to_le_bytes());
    }
}

// ---- writing -----------------------------------------------------------------------------------

/// What all writers share.
struct Run {
    volume: Volume,
    next_stamp: Cell<u64>,
    /// Lines that have not been told yet: at most as many as writes fit into `TELL`.
    untold: RefCell<String>,
    failed: Cell<bool>,
}

async fn write(mds: &str, name: &str, acks: &str, first: u64, seconds: Duration) -> Outcome<()> {
    let volume = open(mds, name, OpenOptions::default()).await?;
    let mut acks = File::options().create(true).append(true).open(acks)?;
    let region = block_count(&volume) / WRITERS;
    let run = Rc::new(Run {
        volume,
        next_stamp: Cell::new(first),
        untold: RefCell::default(),
        failed: Cell::new(false),
    });
    let end = now() + seconds;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| spawn(write_region(Rc::clone(&run), writer * region, region, end)))
        .collect();
    while now() < end && !run.failed.get() {
        sleep(TELL).await;
        tell(&run, &mut acks)?;
    }
    for writer in writers {
        writer.await.map_err(|_| "a writer was cancelled")?;
    }
    tell(&run, &mut acks)?;
    if run.failed.get() {
        return Err("a write failed".into());
    }
    println!(r#"{{"writes": {}}}"#, run.next_stamp.get() - first);
    Ok(())
}

fn tell(run: &Run, acks: &mut File) -> std::io::Result<()> {
    let lines = run.untold.take();
    acks.write_all(lines.as_bytes())
}

async fn write_region(run: Rc<Run>, start: u64, blocks: u64, end: ogee_runtime::Instant) {
    let mut random = StdRng::seed_from_u64(run.next_stamp.get() ^ start);
    while now() < end && !run.failed.get() {
        let (at, count) = shape(&mut random, blocks);
        let stamp = run.next_stamp.get();
        run.next_stamp.set(stamp + 1);
        let len = usize::try_from(count).unwrap_or(1) * BLOCK_SIZE;
        let mut bytes = vec![0; len];
        for (block, bytes) in (start + at..).zip(bytes.chunks_exact_mut(BLOCK_SIZE)) {
            fill(block, stamp, bytes);
        }
        match run
            .volume
            .write(offset(start + at), Payload::from(bytes))
            .await
        {
            Ok(()) => run
                .untold
                .borrow_mut()
                .push_str(&format!("{} {count} {stamp}\n", start + at)),
            Err(error) => {
                eprintln!("write of {count} blocks at {}: {error}", start + at);
                run.failed.set(true);
            }
        }
    }
}

/// Where in a region the next write goes, and how many blocks it has: mostly one of a few hot blocks,
/// which are overwritten in the log; some runs; some whole extents, which go past it.
fn shape(random: &mut StdRng, blocks: u64) -> (u64, u64) {
    match random.random_range(0..100) {
        0..60 => (random.random_range(0..HOT_BLOCKS.min(blocks)), 1),
        60..85 => {
            let count = random.random_range(1..=EXTENT_BLOCKS / 2);
            (random.random_range(0..=blocks - count), count)
        }
        _ => {
            let count = EXTENT_BLOCKS * random.random_range(1..=2);
            let places = (blocks - count) / EXTENT_BLOCKS;
            (random.random_range(0..=places) * EXTENT_BLOCKS, count)
        }
    }
}

// ---- reading back ------------------------------------------------------------------------------

/// What a read found, over all blocks.
#[derive(Default)]
struct Findings {
    found: String,
    written: u64,
    newer: u64,
    wrong: Vec<String>,
}

async fn verify(mds: &str, name: &str, acks: &str, found: &str, exact: bool) -> Outcome<ExitCode> {
    // Not read-only: the writer that died still counts as attached, and gives way to another one.
    let options = OpenOptions {
        io_timeout: Some(READ_LIMIT),
        ..OpenOptions::default()
    };
    let volume = open(mds, name, options).await?;
    let blocks = block_count(&volume);
    let acknowledged = acknowledged(&std::fs::read_to_string(acks)?, blocks)?;
    let mut findings = Findings::default();
    let mut bytes = vec![0; usize::try_from(READ_BLOCKS)? * BLOCK_SIZE];
    for start in (0..blocks).step_by(usize::try_from(READ_BLOCKS)?) {
        let len = bytes
            .len()
            .min(usize::try_from(blocks - start)? * BLOCK_SIZE);
        volume.read_into(offset(start), &mut bytes[..len]).await?;
        for (block, bytes) in (start..).zip(bytes[..len].chunks_exact(BLOCK_SIZE)) {
            let due = acknowledged[usize::try_from(block)?];
            judge(&mut findings, block, due, bytes, exact);
        }
    }
    std::fs::write(found, &findings.found)?;
    for wrong in findings.wrong.iter().take(NAMED) {
        eprintln!("{wrong}");
    }
    println!(
        r#"{{"blocks": {blocks}, "written": {}, "newer": {}, "wrong": {}}}"#,
        findings.written,
        findings.newer,
        findings.wrong.len()
    );
    Ok(ExitCode::from(u8::from(!findings.wrong.is_empty())))
}

/// Newest acknowledged stamp of each block; 0: none. The last line may have been cut off.
fn acknowledged(text: &str, blocks: u64) -> Outcome<Vec<u64>> {
    let mut stamps = vec![0; usize::try_from(blocks)?];
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for line in whole.lines() {
        let numbers: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let [block, count, stamp] = *numbers.as_slice() else {
            return Err(format!("not an acknowledgement: {line}").into());
        };
        let range = usize::try_from(block)?..usize::try_from(block + count)?;
        let range = stamps.get_mut(range).ok_or("a block beyond the volume")?;
        for newest in range {
            *newest = stamp.max(*newest);
        }
    }
    Ok(stamps)
}

fn judge(findings: &mut Findings, block: u64, due: u64, bytes: &[u8], exact: bool) {
    let word = |at: usize| {
        bytes[at..]
            .first_chunk::<8>()
            .map_or(0, |b| u64::from_le_bytes(*b))
    };
    let (number, stamp) = (word(0), word(8));
    let mut expected = vec![0; bytes.len()];
    if stamp > 0 {
        fill(block, stamp, &mut expected);
    }
    let is_due = if exact { stamp == due } else { stamp >= due };
    if bytes != expected {
        let text = format!(
            "block {block} is torn or foreign: starts with block {number}, stamp {stamp}; {due} was acknowledged"
        );
        return findings.wrong.push(text);
    }
    if !is_due {
        let text = format!("block {block} holds stamp {stamp}; {due} was acknowledged");
        findings.wrong.push(text);
    }
    if stamp > 0 {
        findings.written += 1;
        findings.newer += u64::from(stamp > due);
        findings.found.push_str(&format!("{block} 1 {stamp}\n"));
    }
}
