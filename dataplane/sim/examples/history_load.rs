//! Reads and writes a volume from many tasks at a time and writes down what each one saw.
//!
//! `history_load MDS VOLUME HISTORY CONTROL [KEY=NUMBER ...]`   HISTORY gets one JSON object a line, for
//! `ogee-history`. CONTROL is a file that may grow: a line `mark NAME` begins a window, for which the
//! longest wait is reported; `stop` ends the load. Then every block is read once more. Prints one
//! line of JSON; ends with 1 if anything was wrong that can be told without the history.
//!
//! *Place*: run by `scripts/chaos` in the client's network namespace while the cluster suffers.
//! *Owner*: one executor; one attachment of the volume.
//! *Invariants*: a written value is unique, and fills its block together with the block's number, so
//! that torn and misdirected blocks are told from old ones. An operation is recorded with the time
//! before it was asked for and the time after it was answered; one that was given up has no end.
//! *On failure*: an error of the client ends the load, for a disk waits; only damage can be let pass
//! (`corrupt=1`), counted, as what the cluster says of blocks that a test has damaged.

use ogee_client::{ClientError, MdsConfig, MdsHandle, OpenOptions, Volume};
use ogee_proto::limit::BLOCK_SIZE;
use ogee_proto::unit::ByteOffset;
use ogee_runtime::executor::block_on;
use ogee_runtime::{Instant, JoinHandle, Payload, now, sleep, spawn, timeout};
use ogee_sim::history::{INITIAL, Operation, OperationKind};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

/// Blocks of a run: one extent, the shortest write that goes past the log.
const RUN: u64 = 16;
/// How often the control file is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// What is not answered by then, after the end, is given up.
const DRAIN: Duration = Duration::from_secs(60);
/// Longest time before an abandoned write is abandoned.
const HASTE_MS_MAX: u64 = 20;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// The settings, with their defaults.
struct Settings(BTreeMap<String, u64>);

impl Settings {
    const KNOWN: [(&'static str, u64); 9] = [
        // Tasks; those of `streams` stay on one block each and read and write it by turns.
        ("tasks", 16),
        ("streams", 0),
        // Runs of 16 blocks over the volume, and how many of them half of all operations go to.
        ("runs", 256),
        ("hot", 4),
        // Between two operations of a task, on the average.
        ("pause_us", 2000),
        // One write in so many is abandoned early; one operation in so many is of many blocks.
        ("abandon", 0),
        ("wide", 16),
        ("corrupt", 0),
        ("seed", 1),
    ];

    fn parse(args: impl Iterator<Item = String>) -> Outcome<Self> {
        let mut known = BTreeMap::from(Self::KNOWN.map(|(key, value)| (key.to_owned(), value)));
        for arg in args {
            let (key, value) = arg.split_once('=').ok_or("settings are KEY=NUMBER")?;
            let slot = known.get_mut(key).ok_or(format!("no setting {key}"))?;
            *slot = value.parse()?;
        }
        Ok(Self(known))
    }

    fn get(&self, key: &str) -> u64 {
        self.0[key]
    }
}

/// The longest waits between two marks.
#[derive(Default, Clone)]
struct Window {
    name: String,
    operations: u64,
    gap: Duration,
}

/// What all tasks share.
struct Load {
    volume: Volume,
    settings: Settings,
    start: Instant,
    history: RefCell<BufWriter<File>>,
    values: Cell<u64>,
    /// When each task last had an answer.
    answered: RefCell<Vec<Instant>>,
    windows: RefCell<Vec<Window>>,
    corrupt: Cell<u64>,
    abandoned: Cell<u64>,
    wrong: Cell<u64>,
    over: Cell<bool>,
    failure: RefCell<Option<String>>,
}

fn main() -> Outcome<ExitCode> {
    let mut args = std::env::args().skip(1);
    let [Some(mds), Some(name), Some(history), Some(control)] = [(); 4].map(|()| args.next())
    else {
        return Err("usage: history_load MDS VOLUME HISTORY CONTROL [KEY=NUMBER ...]".into());
    };
    let settings = Settings::parse(args)?;
    let history = BufWriter::with_capacity(1 << 20, File::create(history)?);
    let load = block_on(run(mds, &name, history, &control, settings))?;
    let windows = load.windows.borrow();
    let windows: Vec<_> = windows.iter().map(report).collect();
    let failure = load.failure.borrow();
    let (wrong, values) = (load.wrong.get(), load.values.get());
    println!(
        "{}",
        json!({
            "written": values, "wrong": wrong, "corrupt": load.corrupt.get(),
            "abandoned": load.abandoned.get(), "failure": *failure, "windows": windows,
        })
    );
    Ok(ExitCode::from(u8::from(failure.is_some() || wrong > 0)))
}

fn report(window: &Window) -> serde_json::Value {
    let gap_ms = window.gap.as_millis();
    json!({"name": window.name, "operations": window.operations, "gap_ms": u64::try_from(gap_ms).ok()})
}

async fn run(
    mds: String,
    name: &str,
    history: BufWriter<File>,
    control: &str,
    settings: Settings,
) -> Outcome<Rc<Load>> {
    let mds = MdsHandle::start(MdsConfig::new(vec![mds]))?;
    let volume = Volume::open(mds, name, OpenOptions::default()).await?;
    let (mixed, streams) = (settings.get("tasks"), settings.get("streams"));
    let tasks = usize::try_from(mixed + streams)?;
    let load = Rc::new(Load {
        volume,
        settings,
        start: now(),
        history: RefCell::new(history),
        values: Cell::new(INITIAL),
        answered: RefCell::new(vec![now(); tasks]),
        windows: RefCell::new(vec![Window::default()]),
        corrupt: Cell::new(0),
        abandoned: Cell::new(0),
        wrong: Cell::new(0),
        over: Cell::new(false),
        failure: RefCell::default(),
    });
    let mut running: Vec<JoinHandle<()>> = Vec::with_capacity(tasks);
    for task in 0..u32::try_from(tasks)? {
        let load = Rc::clone(&load);
        running.push(if u64::from(task) < mixed {
            spawn(mix(load, task))
        } else {
            spawn(stream(load, task, u64::from(task) - mixed))
        });
    }
    obey(&load, control).await;
    load.over.set(true);
    let drained = timeout(DRAIN, async {
        for task in running {
            task.await.map_err(|_| "a task was cancelled")?;
        }
        Ok::<(), &str>(())
    });
    match drained.await {
        Ok(ended) => ended?,
        Err(_) => load.fail(format!("no answer for {DRAIN:?}")),
    }
    if load.failure.borrow().is_none() {
        load.read_all().await;
    }
    load.history.borrow_mut().flush()?;
    Ok(load)
}

/// Follows the control file until it says stop, or something failed.
async fn obey(load: &Load, control: &str) {
    let mut done = 0;
    while load.failure.borrow().is_none() {
        let text = std::fs::read_to_string(control).unwrap_or_default();
        // A line counts when it is whole.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in whole.lines().skip(done) {
            done += 1;
            load.close_window();
            match line.strip_prefix("mark ") {
                Some(name) => load.open_window(name),
                None => return,
            }
        }
        sleep(LOOK).await;
    }
    load.close_window();
}

/// Any block, half the time a hot one.
async fn mix(load: Rc<Load>, task: u32) {
    let mut random = SmallRng::seed_from_u64((load.settings.get("seed") << 16) | u64::from(task));
    while !load.over.get() {
        let (first, count) = load.choose(&mut random);
        let abandon = load.settings.get("abandon");
        let haste = (abandon > 0 && random.random_range(0..abandon.max(1)) == 0)
            .then(|| Duration::from_millis(random.random_range(1..=HASTE_MS_MAX)));
        if random.random_ratio(1, 2) {
            load.write(task, first, count, haste).await;
        } else {
            load.read(task, first, count).await;
        }
        let pause = random.random_range(0..=2 * load.settings.get("pause_us"));
        sleep(Duration::from_micros(pause)).await;
    }
}

/// One block, over and over.
async fn stream(load: Rc<Load>, task: u32, run: u64) {
    let block = load.first_of(run % load.settings.get("runs"));
    while !load.over.get() {
        load.write(task, block, 1, None).await;
        load.read(task, block, 1).await;
        sleep(Duration::from_micros(load.settings.get("pause_us"))).await;
    }
}

impl Load {
    /// First block of a run: they lie evenly over the volume, and so over its copysets.
    fn first_of(&self, run: u64) -> u64 {
        let blocks = self.volume.size().get() / BLOCK_SIZE as u64;
        let apart = blocks / self.settings.get("runs") / RUN * RUN;
        assert!(apart >= RUN, "the volume is too small for its runs");
        run * apart
    }

    fn choose(&self, random: &mut SmallRng) -> (u64, u64) {
        let hot = random.random_ratio(1, 2);
        let runs = self.settings.get(if hot { "hot" } else { "runs" });
        let first = self.first_of(random.random_range(0..runs));
        let wide = self.settings.get("wide");
        match (wide > 0 && random.random_range(0..wide.max(1)) == 0, hot) {
            (true, _) if random.random_ratio(1, 2) => (first, RUN),
            (true, _) => (first, 4),
            // Hot is one block of the run.
            (false, true) => (first, 1),
            (false, false) => (first + random.random_range(0..RUN), 1),
        }
    }

    async fn write(&self, task: u32, first: u64, count: u64, haste: Option<Duration>) {
        let values: Vec<u64> = (1..=count).map(|at| self.values.get() + at).collect();
        self.values.set(self.values.get() + count);
        let mut bytes = Vec::new();
        for (block, value) in (first..).zip(&values) {
            bytes.extend_from_slice(&content(block, *value));
        }
        let invoked = self.clock();
        let write = self.volume.write(at(first), Payload::from(bytes));
        let answer = match haste {
            None => Some(write.await),
            Some(haste) => timeout(haste, write).await.ok(),
        };
        let completed = match answer {
            Some(Ok(())) => Some(self.answered(task)),
            Some(Err(error)) => {
                self.fail(format!("write of block {first}: {error}"));
                None
            }
            None => {
                self.abandoned.set(self.abandoned.get() + 1);
                None
            }
        };
        for (block, value) in (first..).zip(values) {
            self.record(task, OperationKind::Write, block, value, invoked, completed);
        }
    }

    async fn read(&self, task: u32, first: u64, count: u64) {
        let mut bytes = vec![0; usize::try_from(count).unwrap_or(0) * BLOCK_SIZE];
        let invoked = self.clock();
        match self.volume.read_into(at(first), &mut bytes).await {
            Ok(()) => {}
            Err(ClientError::Corrupt { .. }) if self.settings.get("corrupt") > 0 => {
                self.corrupt.set(self.corrupt.get() + 1);
                self.answered(task);
                return;
            }
            Err(error) => return self.fail(format!("read of block {first}: {error}")),
        }
        let completed = Some(self.answered(task));
        for (block, bytes) in (first..).zip(bytes.chunks(BLOCK_SIZE)) {
            match value_of(block, bytes) {
                Ok(value) => {
                    self.record(task, OperationKind::Read, block, value, invoked, completed);
                }
                Err(found) => {
                    eprintln!("block {block}: {found}");
                    self.wrong.set(self.wrong.get() + 1);
                }
            }
        }
    }

    /// What is there in the end: an acknowledged write that is lost shows now at the latest.
    async fn read_all(&self) {
        for run in 0..self.settings.get("runs") {
            let first = self.first_of(run);
            for block in first..first + RUN {
                if self.failure.borrow().is_none() {
                    self.read(0, block, 1).await;
                }
            }
        }
    }

    fn clock(&self) -> u64 {
        u64::try_from((now() - self.start).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Notes an answer; tells when it came.
    fn answered(&self, task: u32) -> u64 {
        let last = std::mem::replace(&mut self.answered.borrow_mut()[task as usize], now());
        if let Some(window) = self.windows.borrow_mut().last_mut() {
            window.operations += 1;
            window.gap = window.gap.max(now() - last);
        }
        self.clock()
    }

    fn open_window(&self, name: &str) {
        self.windows.borrow_mut().push(Window {
            name: name.to_owned(),
            ..Window::default()
        });
    }

    /// Those who wait still have waited, too.
    fn close_window(&self) {
        let answered = self.answered.borrow();
        let waiting = answered.iter().map(|last| now() - *last).max();
        if let Some(window) = self.windows.borrow_mut().last_mut() {
            window.gap = window.gap.max(waiting.unwrap_or_default());
        }
    }

    fn record(
        &self,
        client: u32,
        kind: OperationKind,
        block: u64,
        value: u64,
        invoked_ns: u64,
        completed_ns: Option<u64>,
    ) {
        let operation = Operation {
            client,
            block,
            kind,
            value,
            invoked_ns,
            completed_ns,
        };
        let mut history = self.history.borrow_mut();
        let written = serde_json::to_writer(&mut *history, &operation)
            .map_err(std::io::Error::from)
            .and_then(|()| history.write_all(b"\n"));
        if let Err(error) = written {
            self.fail(format!("the history: {error}"));
        }
    }

    fn fail(&self, reason: String) {
        self.failure.borrow_mut().get_or_insert(reason);
        self.over.set(true);
    }
}

fn at(block: u64) -> ByteOffset {
    ByteOffset::new(block * BLOCK_SIZE as u64)
}

/// A block's bytes: its number and the value over and over.
fn content(block: u64, value: u64) -> Vec<u8> {
    let mut words = [0; 16];
    words[..8].copy_from_slice(&block.to_le_bytes());
    words[8..].copy_from_slice(&value.to_le_bytes());
    words.repeat(BLOCK_SIZE / words.len())
}

/// The value that a block holds, or what it holds instead.
fn value_of(block: u64, bytes: &[u8]) -> Result<u64, String> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(INITIAL);
    }
    let word = |at: usize| {
        let word = bytes.get(at..at + 8).and_then(|word| word.try_into().ok());
        word.map_or(0, u64::from_le_bytes)
    };
    let (found, value) = (word(0), word(8));
    if bytes == content(block, value) {
        return Ok(value);
    }
    let torn = if bytes == content(found, value) {
        ""
    } else {
        ", torn"
    };
    Err(format!("holds value {value} of block {found}{torn}"))
}
