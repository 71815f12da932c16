//! The contract on a real drive, through SPDK: one that this machine can lose, at `OGEE_NVME_PCI`. What is on it is lost.
//!
//! `scripts/test lab` runs these in a guest (`spdk_nvme`): all of them are ignored elsewhere, and one at a time, since a drive has
//! one user.
#![cfg(all(feature = "conformance", feature = "spdk"))]

use ogee_device::conformance::{self, DEVICE_LEN, Subject};
use ogee_device::{Device, DeviceError, Notice, NvmeName, NvmeOptions, OpenOptions};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::{Buffer, executor, now, sleep, spawn, timeout};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// The drive that the environment names.
struct Drive(NvmeName);

impl Drive {
    fn named() -> Self {
        let address =
            std::env::var("OGEE_NVME_PCI").expect("OGEE_NVME_PCI names a drive to be lost");
        Self(NvmeName {
            address: address.parse().expect("a PCI address"),
            serial: std::env::var("OGEE_NVME_SERIAL").ok(),
            namespace: None,
        })
    }

    fn open(&self) -> Device {
        let wait = std::env::var("OGEE_NVME_WAIT").unwrap_or_default();
        let options = NvmeOptions {
            notice: match wait.as_str() {
                "interrupt" => Notice::Interrupts,
                _ => Notice::Polling,
            },
            ..NvmeOptions::default()
        };
        Device::open_nvme(&self.0, options).expect("opens")
    }
}

impl Subject for Drive {
    async fn fresh(&self) -> Device {
        let device = self.open();
        let zeroed = device.discard(ByteOffset::ZERO, device.len()).await;
        zeroed.expect("zeroed");
        device
    }

    async fn restart(&self, device: Device) -> Device {
        drop(device);
        self.open()
    }
}

macro_rules! on_the_drive {
    ($($check:ident),* $(,)?) => {
        $(
            #[test]
            #[ignore = "wants a drive to be lost: OGEE_NVME_PCI"]
            fn $check() {
                executor::block_on(conformance::$check(&Drive::named()));
            }
        )*
    };
}

on_the_drive!(
    a_fresh_device_reads_zeros,
    what_is_written_is_read,
    lengths_up_to_a_mebibyte,
    unaligned_requests_are_refused,
    empty_requests_are_refused,
    requests_past_the_end_are_refused,
    the_last_block_is_usable,
    a_write_is_visible_when_it_returns,
    neighbours_are_left_alone,
    concurrent_reads_may_overlap,
    concurrent_writes_all_land,
    a_durable_write_survives,
    a_flushed_write_survives,
    a_flushed_discard_survives,
    discarded_ranges_read_zeros,
    zero_fill_overwrites_and_reports,
    counters_move,
    refused_requests_are_not_counted,
    clones_are_one_device,
);

/// The kernel resets the controller under a load, as an administrator may.
#[test]
#[ignore = "wants a drive to be lost: OGEE_NVME_PCI"]
fn a_reset_by_somebody_else_ends_the_device() {
    executor::block_on(async {
        let drive = Drive::named();
        let device = drive.fresh().await;
        let load = spawn({
            let device = device.clone();
            async move {
                loop {
                    let written = device
                        .write(ByteOffset::ZERO, Buffer::zeroed(1 << 20))
                        .await;
                    if let Err(error) = written {
                        return error;
                    }
                }
            }
        });
        sleep(Duration::from_millis(200)).await;
        let reset = format!("/sys/bus/pci/devices/{}/reset", drive.0.address);
        std::fs::write(&reset, "1").expect("the controller has a reset of its own");
        let error = timeout(Duration::from_secs(60), load)
            .await
            .expect("it ends");
        let error = error.expect("not cancelled");
        let DeviceError::Nvme { source, .. } = error else {
            panic!("{error}");
        };
        assert!(source.is_end(), "{source}");
        let later = device.flush().await.expect_err("and all that comes later");
        println!("under load: {source}; later: {later}");
        // The reset by us.
        sleep(Duration::from_secs(2)).await;
        drop(device);
        let device = drive.open();
        device
            .write_durable(ByteOffset::ZERO, Buffer::zeroed(4096))
            .await
            .expect("it works again");
    });
}

/// Requests a second at a depth, printed: to set beside `spdk_nvme_perf` on the same drive in the same run.
#[test]
#[ignore = "wants a drive to be lost: OGEE_NVME_PCI"]
fn rate() {
    const DEPTH: u64 = 16;
    const LEN: u64 = 4096;
    let seconds = Duration::from_secs(5);
    executor::block_on(async {
        let device = Drive::named().fresh().await;
        for kind in ["read", "write"] {
            let count = Rc::new(Cell::new(0_u64));
            let end = now() + seconds;
            let tasks: Vec<_> = (0..DEPTH)
                .map(|task| {
                    let (device, count) = (device.clone(), Rc::clone(&count));
                    spawn(async move {
                        let mut block = task;
                        while now() < end {
                            block = (block * 6_364_136_223 + 1) % (DEVICE_LEN.get() / LEN);
                            let at = ByteOffset::new(block * LEN);
                            let done = match kind {
                                "read" => device.read(at, ByteLen::new(LEN)).await.map(|_| ()),
                                _ => device.write(at, Buffer::zeroed(4096)).await,
                            };
                            done.expect("done");
                            count.set(count.get() + 1);
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.expect("not cancelled");
            }
            println!(
                "rate: {kind} 4 KiB QD{DEPTH}: {} a second",
                count.get() / seconds.as_secs()
            );
        }
    });
}

/// It says how it fares, also while it works.
#[test]
#[ignore = "wants a drive to be lost: OGEE_NVME_PCI"]
fn it_tells_its_health() {
    executor::block_on(async {
        let device = Drive::named().open();
        let told = timeout(Duration::from_secs(60), async {
            loop {
                let written = device
                    .write(ByteOffset::ZERO, Buffer::zeroed(1 << 20))
                    .await;
                written.expect("written");
                if let Some(health) = device.vitals().expect("a drive of this kind").health {
                    return health;
                }
            }
        });
        let health = told.await.expect("it tells");
        println!("health: {health:?}");
        assert!((1..120).contains(&health.celsius), "{health:?}");
        assert!(health.spare_percent <= 100, "{health:?}");
        assert_eq!(device.vitals().expect("a drive of this kind").refusals, 0);
    });
}

/// Time that the guest's processor was idle, all of them together.
fn idle() -> Duration {
    let stat = std::fs::read_to_string("/proc/stat").expect("a kernel");
    let line = stat.lines().next().expect("a line");
    let fields: Vec<u64> = line
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    // Idle, and idle while something waits for a disk; in hundredths of a second.
    Duration::from_millis((fields[3] + fields[4]) * 10)
}

/// What a request costs: the time of a guest of one processor that was not idle, printed, a request. At `OGEE_COST_PATH` through the
/// kernel, else on the drive.
#[test]
#[ignore = "wants a guest of one processor, and a drive to be lost: OGEE_NVME_PCI"]
fn cost() {
    const DEPTH: u64 = 16;
    const LEN: u64 = 4096;
    let count: u64 =
        std::env::var("OGEE_COST_COUNT").map_or(4000, |text| text.parse().expect("a count"));
    executor::block_on(async {
        let device = match std::env::var("OGEE_COST_PATH") {
            Ok(path) => Device::open(&path, OpenOptions::default())
                .await
                .expect("opens"),
            Err(_) => Drive::named().open(),
        };
        // The first rounds make what later ones use.
        for (kind, count, is_told) in [
            ("read", count / 4, false),
            ("read", count, true),
            ("write", count / 4, false),
            ("write", count, true),
        ] {
            let (from, idle_from) = (now(), idle());
            let tasks: Vec<_> = (0..DEPTH)
                .map(|task| {
                    let device = device.clone();
                    spawn(async move {
                        let mut block = task;
                        for _ in 0..count / DEPTH {
                            block = (block * 6_364_136_223 + 1) % (device.len().get() / LEN);
                            let at = ByteOffset::new(block * LEN);
                            let done = match kind {
                                "read" => device.read(at, ByteLen::new(LEN)).await.map(|_| ()),
                                _ => device.write(at, Buffer::zeroed(4096)).await,
                            };
                            done.expect("done");
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.expect("not cancelled");
            }
            let busy = now()
                .saturating_duration_since(from)
                .saturating_sub(idle() - idle_from);
            let each = busy.as_nanos() / u128::from(count / DEPTH * DEPTH);
            if is_told {
                println!("cost: {kind} {each}");
            }
        }
    });
}
