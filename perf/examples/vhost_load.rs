//! A load on a vhost-user-blk socket through a driver that is not ours (libblkio's): the same for our server and for
//! qemu-storage-daemon's, so that what is compared are the servers. perf/vhost.sh runs both.
//!
//! One queue, `--iodepth` requests under way, random blocks; the next request goes out when one has ended. `--flush` has each
//! write followed by a flush, and counts both as one: what makes a server durable that answers from a volatile cache.
//! `--poll` looks for answers without ever sleeping. Prints one line of JSON.

#![allow(clippy::unwrap_used, reason = "a tool for whoever reads its source")]

use blkio::{Blkio, Blkioq, Completion, ReqFlags};
use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::mem::MaybeUninit;
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
            match word.as_str() {
                "--write" => options.writes = true,
                "--flush" => options.flush = true,
                "--poll" => options.poll = true,
                "--bs" => options.bs = usize::try_from(number()?).unwrap(),
                "--iodepth" => options.iodepth = usize::try_from(number()?).unwrap().max(1),
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

    fn run(&mut self) -> (u64, Duration, Histogram<u64>) {
        let mut latencies = Histogram::new(3).unwrap();
        let depth = self.options.iodepth;
        (0..depth).for_each(|slot| self.begin(slot));
        let least = usize::from(!self.options.poll);
        let start = Instant::now() + self.options.ramp;
        let end = start + self.options.runtime;
        let (mut done, mut under_way) = (0, depth);
        let mut answers: Vec<MaybeUninit<Completion>> =
            (0..depth).map(|_| MaybeUninit::uninit()).collect();
        while under_way > 0 {
            let count = self.queue.do_io(&mut answers, least, None, None).unwrap();
            let now = Instant::now();
            for answer in answers.iter().take(count) {
                // SAFETY: the call says that it has filled so many.
                let answer = unsafe { answer.assume_init_ref() };
                assert_eq!(answer.ret, 0, "a request failed");
                let slot = answer.user_data;
                if !self.end(slot) {
                    continue;
                }
                if (start..end).contains(&now) {
                    done += 1;
                    let nanos = now.duration_since(self.slots[slot].began).as_nanos();
                    latencies.record(u64::try_from(nanos).unwrap()).unwrap();
                }
                match now < end {
                    true => self.begin(slot),
                    false => under_way -= 1,
                }
            }
        }
        (done, self.options.runtime, latencies)
    }
}

fn main() {
    let options = match Options::parse() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(2);
        }
    };
    let mut blkio = Blkio::new("virtio-blk-vhost-user").unwrap();
    blkio.set_str("path", &options.socket).unwrap();
    blkio.connect().unwrap();
    blkio.set_i32("num-queues", 1).unwrap();
    blkio.set_i32("queue-size", 256).unwrap();
    let mut queue = blkio.start().unwrap().queues.remove(0);
    let capacity = blkio.get_u64("capacity").unwrap();
    let len = (options.iodepth * options.bs).next_multiple_of(1 << 20);
    let region = blkio.alloc_mem_region(len).unwrap();
    blkio.map_mem_region(&region).unwrap();
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
    let (done, took, latencies) = load.run();
    let us = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
    let figures = serde_json::json!({
        "iops": done as f64 / took.as_secs_f64(),
        "p50_us": us(0.5), "p99_us": us(0.99), "p999_us": us(0.999),
    });
    println!("{figures}");
}
