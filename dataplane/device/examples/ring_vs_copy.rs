//! Experiment: a counted copy into a batch buffer, or an own ring that writes from where data lies?
//!
//! *Place*: the figures of `docs/decisions/2026-11-22-device-ring.md`; nothing depends on it. It
//! alone names the executor and the ring crate. *Owner*: one executor on the main thread.
//! *Invariants*: both ways compute the same checksums and write the same bytes, durably, to the same
//! zero-filled file; rounds alternate, so that a noisy neighbour disturbs both.
//! *On failure*: it panics.
//!
//! ```text
//! cargo run --release -p ogee-device --example ring_vs_copy -- DIRECTORY
//! ```

use glommio::io::BufferedFile;
use io_uring::{IoUring, opcode, types};
use ogee_device::{Device, OpenOptions};
use ogee_proto::checksum::crc32c;
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::channel::oneshot;
use ogee_runtime::{Buffer, ReadBuffer, executor, now, sleep, spawn};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs::File;
use std::future::poll_fn;
use std::hint::black_box;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

const PAGE: usize = 4096;
const FILE_LEN: ByteLen = ByteLen::new(256 << 20);
/// Payloads to write from: more than the inner caches hold, as data from the network is.
const POOL_LEN: usize = 8 << 20;
const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(400);

/// One way of writing a log.
struct Shape {
    name: &'static str,
    /// Batches in flight.
    depth: usize,
    /// Payloads behind the header page of one batch.
    payloads: usize,
    payload_len: usize,
}

const SHAPES: [Shape; 4] = [
    Shape {
        name: "1 x 4 KiB, QD1",
        depth: 1,
        payloads: 1,
        payload_len: PAGE,
    },
    Shape {
        name: "1 x 4 KiB, QD32",
        depth: 32,
        payloads: 1,
        payload_len: PAGE,
    },
    Shape {
        name: "32 x 4 KiB batch, QD1",
        depth: 1,
        payloads: 32,
        payload_len: PAGE,
    },
    Shape {
        name: "16 x 64 KiB batch, QD1",
        depth: 1,
        payloads: 16,
        payload_len: 16 * PAGE,
    },
];

fn main() {
    let dir = std::env::args()
        .nth(1)
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let path = dir.join("ring-vs-copy.tmp");
    print_memory_costs();
    executor::block_on(compare(&path));
    std::fs::remove_file(&path).expect("remove");
}

/// What checksum and copy cost when nothing else happens: the best of some passes over the pool.
fn print_memory_costs() {
    let pool: Vec<u8> = (0..=u8::MAX).cycle().take(POOL_LEN).collect();
    let mut batch = vec![0; PAGE];
    let mut pass = |work: fn(&[u8], &mut [u8])| {
        let start = now();
        for page in pool.chunks_exact(PAGE) {
            work(black_box(page), black_box(&mut batch));
        }
        (now() - start).as_nanos() / (POOL_LEN / PAGE) as u128
    };
    let (mut crc, mut both) = (u128::MAX, u128::MAX);
    for _ in 0..64 {
        crc = crc.min(pass(|page, _| {
            black_box(crc32c(page));
        }));
        both = both.min(pass(|page, batch| {
            black_box(crc32c(page));
            batch.copy_from_slice(page);
        }));
    }
    println!("4 KiB in memory: crc {crc} ns, crc + copy {both} ns");
}

async fn compare(path: &Path) {
    let options = OpenOptions {
        create: Some(FILE_LEN),
    };
    let device = Device::open(path, options).await.expect("open");
    device
        .zero_fill(ByteOffset::ZERO, FILE_LEN, |_| {})
        .await
        .expect("zero fill");
    let ring = Ring::open(path);
    let pool = Pool::new();
    println!("| shape | way | p50 µs | batches/s | CPU µs per batch |");
    println!("|---|---|---|---|---|");
    for shape in &SHAPES {
        let (mut copy, mut vectored) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            copy.push(round(shape, &pool, Way::Copy(device.clone())).await);
            vectored.push(round(shape, &pool, Way::Ring(Rc::clone(&ring))).await);
        }
        print_rounds(shape.name, "copy", &copy);
        print_rounds(shape.name, "own ring", &vectored);
    }
    println!(
        "reads of the eventfd that had to be rescued: {}",
        ring.rescued.get()
    );
    ring.stop().await;
}

/// Payloads that lie around in aligned memory.
struct Pool {
    memory: ReadBuffer,
    next: Cell<usize>,
}

impl Pool {
    fn new() -> Rc<Self> {
        let mut memory = Buffer::zeroed(POOL_LEN);
        for (byte, value) in memory.iter_mut().zip((1..=251).cycle()) {
            *byte = value;
        }
        Rc::new(Self {
            memory: memory.into(),
            next: Cell::new(0),
        })
    }

    fn take(&self, len: usize) -> ReadBuffer {
        let at = self.next.get();
        self.next
            .set(if at + 2 * len > POOL_LEN { 0 } else { at + len });
        self.memory.slice(at..at + len)
    }
}

#[derive(Clone)]
enum Way {
    Copy(Device),
    Ring(Rc<Ring>),
}

impl Way {
    /// Checksums the payloads into a header page and writes all of it durably.
    async fn write(&self, offset: ByteOffset, payloads: Vec<ReadBuffer>) {
        match self {
            Self::Copy(device) => {
                let len = payloads.iter().map(|payload| payload.len()).sum::<usize>();
                let mut batch = Buffer::with_capacity(PAGE + len);
                batch.resize(PAGE);
                for (number, payload) in payloads.iter().enumerate() {
                    note_checksum(&mut batch, number, payload);
                    batch.extend_from_slice(payload);
                }
                device.write_durable(offset, batch).await.expect("write");
            }
            Self::Ring(ring) => {
                let mut header = Buffer::zeroed(PAGE);
                for (number, payload) in payloads.iter().enumerate() {
                    note_checksum(&mut header, number, payload);
                }
                ring.write(offset, header, payloads).await;
            }
        }
    }
}

fn note_checksum(header: &mut [u8], number: usize, payload: &[u8]) {
    header[number * 4..number * 4 + 4].copy_from_slice(&crc32c(payload).to_le_bytes());
}

/// What one round measured.
struct Measured {
    latency: Duration,
    batches_per_second: f64,
    cpu_per_batch: Duration,
}

async fn round(shape: &'static Shape, pool: &Rc<Pool>, way: Way) -> Measured {
    let next = Rc::new(Cell::new(ByteOffset::ZERO));
    let (start, cpu_start) = (now(), cpu_time());
    let writers: Vec<_> = (0..shape.depth)
        .map(|_| {
            let (pool, way, next) = (Rc::clone(pool), way.clone(), Rc::clone(&next));
            spawn(async move { write_until(start + ROUND, shape, &pool, &way, &next).await })
        })
        .collect();
    let mut latencies = Vec::new();
    for writer in writers {
        latencies.extend(writer.await.expect("not cancelled"));
    }
    let (elapsed, cpu) = (now() - start, cpu_time() - cpu_start);
    latencies.sort_unstable();
    let count = u32::try_from(latencies.len()).expect("a round is short");
    Measured {
        latency: latencies[latencies.len() / 2],
        batches_per_second: f64::from(count) / elapsed.as_secs_f64(),
        cpu_per_batch: cpu / count,
    }
}

async fn write_until(
    end: ogee_runtime::Instant,
    shape: &Shape,
    pool: &Pool,
    way: &Way,
    next: &Cell<ByteOffset>,
) -> Vec<Duration> {
    let batch_len = ByteLen::from_usize(PAGE + shape.payloads * shape.payload_len);
    let mut latencies = Vec::new();
    while now() < end {
        let offset = next.get();
        let behind = offset.add(batch_len);
        let is_last = behind.add(batch_len).get() > FILE_LEN.get();
        next.set(if is_last { ByteOffset::ZERO } else { behind });
        let payloads = (0..shape.payloads)
            .map(|_| pool.take(shape.payload_len))
            .collect();
        let start = now();
        way.write(offset, payloads).await;
        latencies.push(now() - start);
    }
    latencies
}

/// Time on a processor of all threads of this process, the kernel's I/O workers included.
fn cpu_time() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task")
        .expect("own tasks")
        .flatten();
    let nanos = tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|text| text.split(' ').next()?.parse::<u64>().ok())
        .sum();
    Duration::from_nanos(nanos)
}

fn print_rounds(shape: &str, way: &str, rounds: &[Measured]) {
    let spread = |value: &dyn Fn(&Measured) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        format!(
            "{:.0} ({:.0}–{:.0})",
            values[ROUNDS / 2],
            values[0],
            values[ROUNDS - 1]
        )
    };
    let micros = |duration: Duration| duration.as_secs_f64() * 1e6;
    println!(
        "| {shape} | {way} | {} | {} | {} |",
        spread(&|round| micros(round.latency)),
        spread(&|round| round.batches_per_second),
        spread(&|round| micros(round.cpu_per_batch)),
    );
}

/// An own ring. Its eventfd is read through the executor, which wakes `reap`.
struct Ring {
    file: File,
    event: OwnedFd,
    state: RefCell<State>,
    /// While `reap` wakes writers it also submits what they write, with one system call for all.
    reaping: Cell<bool>,
    reaped: Cell<u64>,
    /// Times that completions lay there and the read of the eventfd had not returned.
    rescued: Cell<u32>,
    stopping: Cell<bool>,
    stopped: RefCell<Option<oneshot::Receiver<()>>>,
}

struct State {
    ring: IoUring,
    slots: Vec<Option<InFlight>>,
    free: VecDeque<usize>,
}

/// What the kernel reads from until the completion of its slot.
struct InFlight {
    _header: Buffer,
    _payloads: Vec<ReadBuffer>,
    _slices: Vec<libc::iovec>,
    len: usize,
    done: oneshot::Sender<()>,
}

const SLOTS: usize = 64;
const WATCH: Duration = Duration::from_millis(10);

/// Goes to the end of the executor's queue, behind the tasks that were just woken.
async fn after_the_woken() {
    let mut has_waited = false;
    poll_fn(|context| {
        if has_waited {
            return Poll::Ready(());
        }
        has_waited = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Ring {
    fn open(path: &Path) -> Rc<Self> {
        let mut options = File::options();
        options.read(true).write(true).custom_flags(libc::O_DIRECT);
        let file = options.open(path).expect("open for the ring");
        // SAFETY: no memory is passed.
        let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        assert!(event >= 0, "eventfd");
        // SAFETY: the call above gave this descriptor to us alone.
        let event = unsafe { OwnedFd::from_raw_fd(event) };
        let ring = IoUring::new(u32::try_from(SLOTS).expect("small")).expect("ring");
        ring.submitter()
            .register_eventfd(event.as_raw_fd())
            .expect("eventfd of the ring");
        ring.submitter()
            .register_files(&[file.as_raw_fd()])
            .expect("file of the ring");
        let slots = (0..SLOTS).map(|_| None).collect();
        let state = RefCell::new(State {
            ring,
            slots,
            free: (0..SLOTS).collect(),
        });
        let (stopped, is_stopped) = oneshot::channel();
        let own = Rc::new(Self {
            file,
            event,
            state,
            reaping: Cell::new(false),
            reaped: Cell::new(0),
            rescued: Cell::new(0),
            stopping: Cell::new(false),
            stopped: RefCell::new(Some(is_stopped)),
        });
        drop(spawn({
            let own = Rc::clone(&own);
            async move {
                own.reap().await;
                let _ = stopped.send(());
            }
        }));
        drop(spawn({
            let own = Rc::clone(&own);
            async move { own.watch().await }
        }));
        own
    }

    /// Without this timer the executor at times slept on with completions in the ring. Signals the
    /// eventfd itself when two looks in a row find the same completion unreaped.
    async fn watch(&self) {
        let mut event = File::from(self.event.try_clone().expect("duplicate"));
        let mut seen = None;
        while !self.stopping.get() {
            sleep(WATCH).await;
            let reaped = self.reaped.get();
            let is_waiting = !self.state.borrow_mut().ring.completion().is_empty();
            if is_waiting && seen == Some(reaped) {
                self.rescued.set(self.rescued.get() + 1);
                event.write_all(&1u64.to_ne_bytes()).expect("eventfd");
            }
            seen = is_waiting.then_some(reaped);
        }
    }

    async fn write(&self, offset: ByteOffset, header: Buffer, payloads: Vec<ReadBuffer>) {
        let (done, is_done) = oneshot::channel();
        self.push(offset, header, payloads, done);
        if !self.reaping.get() {
            self.submit();
        }
        is_done.await.expect("reaped");
    }

    fn push(
        &self,
        offset: ByteOffset,
        header: Buffer,
        payloads: Vec<ReadBuffer>,
        done: oneshot::Sender<()>,
    ) {
        let slice = |bytes: &[u8]| libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        let mut slices = vec![slice(&header)];
        slices.extend(payloads.iter().map(|payload| slice(payload)));
        let len = slices.iter().map(|slice| slice.iov_len).sum();
        let count = u32::try_from(slices.len()).expect("small");
        let state = &mut *self.state.borrow_mut();
        let slot = state.free.pop_front().expect("no deeper than the slots");
        let entry = opcode::Writev::new(types::Fixed(0), slices.as_ptr(), count)
            .offset(offset.get())
            .rw_flags(libc::RWF_DSYNC)
            .build()
            .user_data(slot as u64);
        state.slots[slot] = Some(InFlight {
            _header: header,
            _payloads: payloads,
            _slices: slices,
            len,
            done,
        });
        // SAFETY: the slot owns the slices and what they point at until its completion is reaped;
        // moving a vector or a buffer into it does not move their heap memory.
        unsafe { state.ring.submission().push(&entry) }.expect("the ring is as deep as the slots");
    }

    fn submit(&self) {
        self.state.borrow_mut().ring.submit().expect("submit");
    }

    /// Waits for the eventfd through the executor, then wakes the writers that are done.
    async fn reap(&self) {
        let duplicate = self.event.try_clone().expect("duplicate").into_raw_fd();
        // SAFETY: the descriptor was duplicated for this file alone, which closes it.
        let event = unsafe { BufferedFile::from_raw_fd(duplicate) };
        while !self.stopping.get() {
            event.read_at(0, 8).await.expect("eventfd");
            self.reaping.set(true);
            let done = self.completions();
            self.reaped.set(self.reaped.get() + done.len() as u64);
            for in_flight in done {
                let _ = in_flight.done.send(());
            }
            after_the_woken().await;
            self.reaping.set(false);
            self.submit();
        }
        event.close().await.expect("close");
    }

    fn completions(&self) -> Vec<InFlight> {
        let State { ring, slots, free } = &mut *self.state.borrow_mut();
        let mut done = Vec::new();
        for completion in ring.completion() {
            let slot = ByteLen::new(completion.user_data()).as_usize();
            let in_flight = slots[slot].take().expect("one completion per slot");
            let written = usize::try_from(completion.result()).expect("write");
            assert_eq!(written, in_flight.len, "a short write");
            free.push_back(slot);
            done.push(in_flight);
        }
        done
    }

    /// One write more, so that `reap` wakes and sees that it is over.
    async fn stop(&self) {
        self.stopping.set(true);
        self.write(ByteOffset::ZERO, Buffer::zeroed(PAGE), Vec::new())
            .await;
        let stopped = self.stopped.borrow_mut().take().expect("stopped once");
        stopped.await.expect("reaper ended");
        self.file.sync_data().expect("sync");
    }
}
