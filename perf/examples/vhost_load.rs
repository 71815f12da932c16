//! A load on a vhost-user-blk socket through a driver that is not ours (libblkio's): the same for our server and for
//! qemu-storage-daemon's, so that what is compared are the servers. perf/vhost.sh runs both.
//!
//! One queue, `--iodepth` requests under way, random blocks; the next request goes out when one has ended. `--flush` has each
//! write followed by a flush, and counts both as one: what makes a server durable that answers from a volatile cache.
//! `--poll` looks for answers without ever sleeping. Prints one line of JSON.

use blkio::{Blkio, Blkioq, Completion, ReqFlags};
use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::error::Error;
use std::mem::MaybeUninit;
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[derive(Debug)]
struct Options {
    socket: String,
    writes: bool,
    bs: usize,
    iodepth: usize,
    runtime: Duration,
    ramp: Duration,
    size: u64,
    flush: bool,
    poll: bool,
}

impl Options {
    fn parse() -> Result<Self, String> {
        let mut options = Self {
            socket: String::new(),
            writes: false,
            bs: 4096,
            iodepth: 1,
            runtime: Duration::from_secs(5),
            ramp: Duration::from_millis(500),
            size: u64::MAX,
            flush: false,
            poll: false,
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut number = || -> Result<u64, String> {
                let text = words.next().ok_or(format!("{word} wants a number"))?;
                text.parse().map_err(|_| format!("{word} {text}: a number"))
            };
            let mut count = || {
                let count = usize::try_from(number()?).ok().filter(|count| *count > 0);
                count.ok_or(format!("{word}: at least 1, and no more than memory holds"))
            };
            match word.as_str() {
                "--write" => options.writes = true,
                "--flush" => options.flush = true,
                "--poll" => options.poll = true,
                "--bs" => options.bs = count()?,
                "--iodepth" => options.iodepth = count()?,
                "--runtime" => options.runtime = Duration::from_secs(number()?),
                "--size" => options.size = number()?,
                _ if options.socket.is_empty() && !word.starts_with('-') => options.socket = word,
                _ => return Err(format!("unknown option {word}")),
            }
        }
        match options.socket.is_empty() {
            true => Err("usage: vhost_load SOCKET [--write] [--flush] [--poll] [--bs N] [--iodepth N] [--runtime S] [--size BYTES]".into()),
            false => Ok(options),
        }
    }
}

/// A request under way.
#[derive(Clone, Copy)]
struct Slot {
    began: Instant,
    is_flushing: bool,
}

struct Load {
    options: Options,
    queue: Blkioq,
    memory: *mut u8,
    slots: Vec<Slot>,
    blocks: u64,
    random: SmallRng,
}

impl Load {
    fn begin(&mut self, slot: usize) {
        let bs = self.options.bs;
        let at = self.random.random_range(0..self.blocks) * bs as u64;
        // SAFETY: the region has room for a block of each slot.
        let memory = unsafe { self.memory.add(slot * bs) };
        self.slots[slot] = Slot {
            began: Instant::now(),
            is_flushing: false,
        };
        match self.options.writes {
            true => self.queue.write(at, memory, bs, slot, ReqFlags::empty()),
            false => self.queue.read(at, memory, bs, slot, ReqFlags::empty()),
        }
    }

    /// Whether the request in `slot` has ended; otherwise its flush goes out.
    fn end(&mut self, slot: usize) -> bool {
        if self.options.flush && !self.slots[slot].is_flushing {
            self.slots[slot].is_flushing = true;
            self.queue.flush(slot, ReqFlags::empty());
            return false;
        }
        true
    }

    fn run(&mut self) -> Result<(u64, Histogram<u64>), Box<dyn Error>> {
        let mut latencies = Histogram::new(3)?;
        let depth = self.options.iodepth;
        (0..depth).for_each(|slot| self.begin(slot));
        let least = usize::from(!self.options.poll);
        let start = Instant::now() + self.options.ramp;
        let end = start + self.options.runtime;
        let (mut done, mut under_way) = (0, depth);
        let mut answers: Vec<MaybeUninit<Completion>> =
            (0..depth).map(|_| MaybeUninit::uninit()).collect();
        while under_way > 0 {
            let count = self.queue.do_io(&mut answers, least, None, None)?;
            let now = Instant::now();
            for answer in answers.iter().take(count) {
                // SAFETY: the call says that it has filled so many.
                let answer = unsafe { answer.assume_init_ref() };
                if answer.ret != 0 {
                    return Err(std::io::Error::from_raw_os_error(-answer.ret).into());
                }
                let slot = answer.user_data;
                if !self.end(slot) {
                    continue;
                }
                if (start..end).contains(&now) {
                    done += 1;
                    let nanos = now.duration_since(self.slots[slot].began).as_nanos();
                    latencies.record(u64::try_from(nanos)?)?;
                }
                match now < end {
                    true => self.begin(slot),
                    false => under_way -= 1,
                }
            }
        }
        Ok((done, latencies))
    }
}

fn main() -> ExitCode {
    match Options::parse().map_err(Into::into).and_then(load) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn load(options: Options) -> Result<(), Box<dyn Error>> {
    let mut blkio = Blkio::new("virtio-blk-vhost-user")?;
    blkio.set_str("path", &options.socket)?;
    blkio.connect()?;
    blkio.set_i32("num-queues", 1)?;
    blkio.set_i32("queue-size", 256)?;
    let mut queue = blkio.start()?.queues.remove(0);
    let capacity = blkio.get_u64("capacity")?;
    let len = (options.iodepth * options.bs).next_multiple_of(1 << 20);
    let region = blkio.alloc_mem_region(len)?;
    blkio.map_mem_region(&region)?;
    queue.set_completion_fd_enabled(!options.poll);
    let slot = Slot {
        began: Instant::now(),
        is_flushing: false,
    };
    let mut load = Load {
        memory: std::ptr::with_exposed_provenance_mut(region.addr),
        slots: vec![slot; options.iodepth],
        blocks: capacity.min(options.size) / options.bs as u64,
        random: SmallRng::seed_from_u64(1),
        queue,
        options,
    };
    let took = load.options.runtime;
    let (done, latencies) = load.run()?;
    let us = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
    let figures = serde_json::json!({
        "iops": done as f64 / took.as_secs_f64(),
        "p50_us": us(0.5), "p99_us": us(0.99), "p999_us": us(0.999),
    });
    println!("{figures}");
    Ok(())
}
