//! Runs against a disk in memory that can forget and mix up writes.

#![allow(clippy::unwrap_used, reason = "all of this file is test code")]

use ogee_client::ClientError;
use ogee_perf::{
    Arrivals, Found, PerfError, Pieces, Process, Rw, Sample, Sizes, Stop, Target, TargetError,
    Workload, run,
};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::executor::block_on;
use ogee_runtime::{Instant, Payload, now, sleep, sleep_until};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::Duration;

const SIZE: usize = 4 << 20;

#[derive(Clone)]
struct Disk {
    inner: Rc<Inner>,
}

struct Inner {
    bytes: RefCell<Vec<u8>>,
    latency: Duration,
    under_way: Cell<usize>,
    most_under_way: Cell<usize>,
    writes: Cell<u64>,
    /// The write with this number is acknowledged and forgotten.
    forgets: Cell<u64>,
    /// The request with this number takes so much longer, and those behind it wait for it.
    stalls: Cell<(u64, Duration)>,
    stalled_until: Cell<Option<Instant>>,
    /// Requests beyond so many fail.
    fails_after: Cell<u64>,
    seen: RefCell<BTreeSet<Vec<u8>>>,
    offsets: RefCell<Vec<u64>>,
}

impl Disk {
    fn new(latency: Duration) -> Self {
        let inner = Inner {
            bytes: RefCell::new(vec![0; SIZE]),
            latency,
            under_way: Cell::new(0),
            most_under_way: Cell::new(0),
            writes: Cell::new(0),
            forgets: Cell::new(u64::MAX),
            stalls: Cell::new((u64::MAX, Duration::ZERO)),
            stalled_until: Cell::new(None),
            fails_after: Cell::new(u64::MAX),
            seen: RefCell::default(),
            offsets: RefCell::default(),
        };
        Self {
            inner: Rc::new(inner),
        }
    }

    async fn serve(&self, offset: ByteOffset) -> Result<(), TargetError> {
        let inner = &self.inner;
        inner.offsets.borrow_mut().push(offset.get());
        inner.under_way.set(inner.under_way.get() + 1);
        inner
            .most_under_way
            .set(inner.most_under_way.get().max(inner.under_way.get()));
        let (number, stall) = inner.stalls.get();
        if inner.offsets.borrow().len() as u64 == number {
            inner.stalled_until.set(Some(now() + stall));
        }
        if let Some(until) = inner.stalled_until.get().filter(|until| *until > now()) {
            sleep_until(until).await;
        }
        sleep(inner.latency).await;
        inner.under_way.set(inner.under_way.get() - 1);
        let count = inner.offsets.borrow().len() as u64;
        if count > inner.fails_after.get() {
            Err(ClientError::Closed.into())
        } else {
            Ok(())
        }
    }
}

impl Target for Disk {
    fn size(&self) -> ByteLen {
        ByteLen::from_usize(SIZE)
    }

    async fn read(&self, offset: ByteOffset, len: ByteLen) -> Result<Pieces, TargetError> {
        self.serve(offset).await?;
        let at = usize::try_from(offset.get()).unwrap();
        Ok(Pieces::One(Payload::from(
            self.inner.bytes.borrow()[at..at + len.as_usize()].to_vec(),
        )))
    }

    async fn write(&self, offset: ByteOffset, data: Payload) -> Result<(), TargetError> {
        let inner = &self.inner;
        inner.writes.set(inner.writes.get() + 1);
        let forget = inner.writes.get() == inner.forgets.get();
        self.serve(offset).await?;
        assert!(
            inner.seen.borrow_mut().insert(data[..4096].to_vec()),
            "each write is unique"
        );
        if !forget {
            let at = usize::try_from(offset.get()).unwrap();
            inner.bytes.borrow_mut()[at..at + data.len()].copy_from_slice(&data);
        }
        Ok(())
    }
}

fn workload(rw: &str, requests: u64) -> Workload {
    Workload {
        rw: rw.parse().unwrap(),
        iodepth: 4,
        jobs: 2,
        stop: Stop::Bytes(ByteLen::new(requests * 8192)),
        sizes: Sizes::one(ByteLen::new(8192)),
        ..Workload::default()
    }
}

#[test]
fn every_kind_does_what_was_asked_and_no_more() {
    block_on(async {
        for (rw, reads) in [
            ("read", 100..101),
            ("write", 0..1),
            ("randread", 100..101),
            ("randwrite", 0..1),
            ("randrw:70", 40..95),
        ] {
            let disk = Disk::new(Duration::from_micros(50));
            let report = run(
                std::slice::from_ref(&disk),
                &workload(rw, 100),
                &mut |_: &Sample| {},
            )
            .await
            .unwrap();
            let (read, write) = (report.read.total_ios, report.write.total_ios);
            assert_eq!(read + write, 100, "{rw}");
            assert!(reads.contains(&read), "{rw}: {read} reads");
            assert_eq!(report.read.io_bytes, read * 8192);
            assert_eq!(disk.inner.most_under_way.get(), 8, "two jobs of depth four");
            let busy = if read > 0 {
                &report.read
            } else {
                &report.write
            };
            assert!(busy.lat_ns.min >= 50_000 && busy.lat_ns.max >= busy.lat_ns.min);
        }
    });
}

#[test]
fn sequential_jobs_share_the_range_out() {
    block_on(async {
        let disk = Disk::new(Duration::ZERO);
        let whole = SIZE as u64 / 8192;
        run(
            std::slice::from_ref(&disk),
            &workload("write", whole),
            &mut |_: &Sample| {},
        )
        .await
        .unwrap();
        let mut offsets = disk.inner.offsets.borrow().clone();
        offsets.sort_unstable();
        let distinct: BTreeSet<u64> = offsets.iter().copied().collect();
        // One job may run ahead of the other and go round, but both walk their own half.
        assert!(distinct.len() as u64 > whole / 2, "{}", distinct.len());
        assert!(offsets.iter().all(|offset| offset % 8192 == 0));
    });
}

#[test]
fn a_verifying_run_passes_on_an_honest_disk() {
    block_on(async {
        for rw in ["write", "randrw", "randwrite"] {
            let disk = Disk::new(Duration::from_micros(10));
            let load = Workload {
                verify: true,
                ..workload(rw, 2000)
            };
            let report = run(std::slice::from_ref(&disk), &load, &mut |_: &Sample| {})
                .await
                .unwrap();
            assert_eq!(
                report.read.total_ios + report.write.total_ios,
                2000,
                "the check is free"
            );
        }
    });
}

#[test]
fn a_verifying_run_finds_a_lost_write() {
    block_on(async {
        let disk = Disk::new(Duration::from_micros(10));
        disk.inner.forgets.set(77);
        // No place is written twice, so nothing can cover the loss up.
        let load = Workload {
            verify: true,
            jobs: 1,
            ..workload("write", 100)
        };
        let error = run(std::slice::from_ref(&disk), &load, &mut |_: &Sample| {})
            .await
            .unwrap_err();
        let PerfError::Mismatch { found, offset, .. } = error else {
            panic!("{error}")
        };
        assert_eq!((found, offset.get()), (Found::Zeros, 76 * 8192));
    });
}

#[test]
fn the_first_error_ends_the_run() {
    block_on(async {
        let disk = Disk::new(Duration::ZERO);
        disk.inner.fails_after.set(50);
        let error = run(
            std::slice::from_ref(&disk),
            &workload("randread", 100_000),
            &mut |_: &Sample| {},
        )
        .await
        .unwrap_err();
        assert!(matches!(
            error,
            PerfError::Request {
                cause: TargetError::Volume(ClientError::Closed),
                ..
            }
        ));
        assert!(disk.inner.offsets.borrow().len() < 100);
    });
}

#[test]
fn a_rate_is_kept_and_time_ends_a_run() {
    block_on(async {
        let disk = Disk::new(Duration::ZERO);
        let mut told = 0;
        let load = Workload {
            stop: Stop::Runtime(Duration::from_millis(2200)),
            ramp: Duration::from_millis(200),
            rate: NonZeroU32::new(100),
            ..workload("randread", 0)
        };
        let report = run(
            std::slice::from_ref(&disk),
            &load,
            &mut |sample: &Sample| {
                told += 1;
                // Short ones are no rate.
                let fits = sample.span_ms < 500 || sample.read.iops <= 150.0;
                assert!(fits && sample.write.ios == 0, "{sample:?}");
            },
        )
        .await
        .unwrap();
        // Never more than asked; how much less is a matter of the machine.
        let total = disk.inner.offsets.borrow().len() as u64;
        assert!((20..=270).contains(&total), "{total} requests");
        assert!(report.read.total_ios < total, "the ramp does not count");
        assert!(told >= 2);
    });
}

#[test]
fn the_same_seed_asks_for_the_same() {
    block_on(async {
        let offsets = async |seed| {
            let disk = Disk::new(Duration::ZERO);
            let load = Workload {
                seed,
                jobs: 1,
                iodepth: 1,
                ..workload("randread", 50)
            };
            run(std::slice::from_ref(&disk), &load, &mut |_: &Sample| {})
                .await
                .unwrap();
            disk.inner.offsets.borrow().clone()
        };
        assert_eq!(offsets(1).await, offsets(1).await);
        assert_ne!(offsets(1).await, offsets(2).await);
        assert_eq!("randread".parse(), Ok(Rw::RandRead));
    });
}

/// 200 requests per second for 2 s against a disk that stands still for half a second.
async fn over_a_stall(is_open_loop: bool) -> ogee_perf::Report {
    let disk = Disk::new(Duration::ZERO);
    disk.inner.stalls.set((100, Duration::from_millis(500)));
    let rate = NonZeroU32::new(200).unwrap();
    let load = Workload {
        iodepth: 4,
        jobs: 1,
        stop: Stop::Runtime(Duration::from_secs(2)),
        rate: (!is_open_loop).then_some(rate),
        arrivals: is_open_loop.then_some(Arrivals {
            rate,
            process: Process::Linear,
        }),
        ..workload("randread", 0)
    };
    run(&[disk], &load, &mut |_: &Sample| {}).await.unwrap()
}

#[test]
fn an_open_loop_counts_every_request_that_a_stall_delays() {
    block_on(async {
        let closed = over_a_stall(false).await;
        let open = over_a_stall(true).await;
        // Of 400 requests 100 were due during the stall: in the closed loop only those at the disk
        // tell of it, four of them.
        let p95 = |report: &ogee_perf::Report| report.read.lat_ns.percentile.at(95.0).unwrap();
        assert!(p95(&closed) < 100_000_000, "{}", p95(&closed));
        assert!(p95(&open) > 300_000_000, "{}", p95(&open));
        assert_eq!((open.read.total_ios, open.unsent), (400, 0));
        // From when they were sent they look as in the closed loop.
        let sent = open.read.clat_ns.percentile.at(95.0).unwrap();
        assert!(sent < 100_000_000, "{sent}");
        assert!(open.longest_silence_ns > 400_000_000);
        assert!(
            open.longest_silence_ns < 900_000_000,
            "{}",
            open.longest_silence_ns
        );
    });
}

#[test]
fn what_an_overload_leaves_unsent_is_told() {
    block_on(async {
        // One at a time of 20 ms: 50 per second, of 100,000 that are due.
        let disk = Disk::new(Duration::from_millis(20));
        let load = Workload {
            iodepth: 1,
            jobs: 1,
            stop: Stop::Runtime(Duration::from_secs(1)),
            arrivals: Some(Arrivals {
                rate: NonZeroU32::new(100_000).unwrap(),
                process: Process::Poisson,
            }),
            ..workload("randread", 0)
        };
        let report = run(&[disk], &load, &mut |_: &Sample| {}).await.unwrap();
        let all = report.unsent + report.read.total_ios;
        assert!((98_000..102_000).contains(&all), "{all}");
        assert!(report.unsent > 90_000);
        assert!(
            report.read.lat_ns.max > 9_000_000_000,
            "it waited for the drain"
        );
    });
}

#[test]
fn bytes_per_second_are_kept() {
    block_on(async {
        let disk = Disk::new(Duration::ZERO);
        let load = Workload {
            stop: Stop::Runtime(Duration::from_secs(1)),
            sizes: "4k/50:64k/50".parse().unwrap(),
            rate_bytes: std::num::NonZeroU64::new(2 << 20),
            ..workload("randwrite", 0)
        };
        let report = run(&[disk], &load, &mut |_: &Sample| {}).await.unwrap();
        let bytes = report.write.io_bytes;
        // The first ones of each lane, and one slack, come on top.
        assert!((1 << 20..=3 << 20).contains(&bytes), "{bytes}");
        let mean = bytes / report.write.total_ios;
        assert!((8 << 10..60 << 10).contains(&mean), "{mean} bytes each");
    });
}

#[test]
fn every_target_gets_its_jobs() {
    block_on(async {
        let disks = [(); 3].map(|()| Disk::new(Duration::from_micros(50)));
        let load = Workload {
            verify: true,
            ..workload("randrw", 600)
        };
        let report = run(&disks, &load, &mut |_: &Sample| {}).await.unwrap();
        assert_eq!(report.total_ios(), 600);
        for disk in &disks {
            assert_eq!(disk.inner.most_under_way.get(), 8);
            assert!(disk.inner.offsets.borrow().len() > 100);
        }
        let nobody: [Disk; 0] = [];
        assert!(run(&nobody, &load, &mut |_: &Sample| {}).await.is_err());
    });
}

#[test]
fn the_seconds_add_up() {
    block_on(async {
        let disk = Disk::new(Duration::from_micros(100));
        let load = Workload {
            stop: Stop::Runtime(Duration::from_millis(2300)),
            ramp: Duration::from_millis(300),
            ..workload("randrw", 0)
        };
        let report = run(&[disk], &load, &mut |_: &Sample| {}).await.unwrap();
        let sum: u64 = report.series.iter().map(|s| s.read.ios + s.write.ios).sum();
        // Requests of the ramp that ended behind it are in the series only.
        let counted = report.total_ios();
        assert!((counted..=counted + 16).contains(&sum), "{sum} {counted}");
        assert!((3..=4).contains(&report.series.len()));
        assert!(report.series.is_sorted_by(|a, b| a.end_ms < b.end_ms));
    });
}
