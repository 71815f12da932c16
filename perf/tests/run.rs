//! Runs against a disk in memory that can forget and mix up writes.

#![allow(clippy::unwrap_used, reason = "all of this file is test code")]

use ogee_client::ClientError;
use ogee_perf::{Found, PerfError, Rw, Stop, Target, Workload, run};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::executor::block_on;
use ogee_runtime::{Payload, sleep};
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
            fails_after: Cell::new(u64::MAX),
            seen: RefCell::default(),
            offsets: RefCell::default(),
        };
        Self {
            inner: Rc::new(inner),
        }
    }

    async fn serve(&self, offset: ByteOffset) -> Result<(), ClientError> {
        let inner = &self.inner;
        inner.offsets.borrow_mut().push(offset.get());
        inner.under_way.set(inner.under_way.get() + 1);
        inner
            .most_under_way
            .set(inner.most_under_way.get().max(inner.under_way.get()));
        sleep(inner.latency).await;
        inner.under_way.set(inner.under_way.get() - 1);
        let count = inner.offsets.borrow().len() as u64;
        if count > inner.fails_after.get() {
            Err(ClientError::Closed)
        } else {
            Ok(())
        }
    }
}

impl Target for Disk {
    fn size(&self) -> ByteLen {
        ByteLen::from_usize(SIZE)
    }

    async fn read(&self, offset: ByteOffset, len: ByteLen) -> Result<Vec<Payload>, ClientError> {
        self.serve(offset).await?;
        let at = usize::try_from(offset.get()).unwrap();
        Ok(vec![Payload::from(
            self.inner.bytes.borrow()[at..at + len.as_usize()].to_vec(),
        )])
    }

    async fn write(&self, offset: ByteOffset, data: Payload) -> Result<(), ClientError> {
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
        block: ByteLen::new(8192),
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
            let report = run(&disk, &workload(rw, 100), |_| {}).await.unwrap();
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
        run(&disk, &workload("write", whole), |_| {}).await.unwrap();
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
            let report = run(&disk, &load, |_| {}).await.unwrap();
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
        let error = run(&disk, &load, |_| {}).await.unwrap_err();
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
        let error = run(&disk, &workload("randread", 100_000), |_| {})
            .await
            .unwrap_err();
        assert!(matches!(
            error,
            PerfError::Request {
                cause: ClientError::Closed,
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
        let report = run(&disk, &load, |progress| {
            told += 1;
            assert!(
                progress.read_iops <= 150 && progress.write_iops == 0,
                "{progress:?}"
            );
        })
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
            run(&disk, &load, |_| {}).await.unwrap();
            disk.inner.offsets.borrow().clone()
        };
        assert_eq!(offsets(1).await, offsets(1).await);
        assert_ne!(offsets(1).await, offsets(2).await);
        assert_eq!("randread".parse(), Ok(Rw::RandRead));
    });
}
