//! What a request costs the harness in allocations, counted by the allocator.

#![allow(clippy::unwrap_used, reason = "all of this file is test code")]

use bytes::Bytes;
use ogee_perf::{Pieces, Sample, Stop, Target, TargetError, Workload, run};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::Payload;
use ogee_runtime::executor::block_on;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

static COUNT: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; only counters are kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on; `memory` came from the same allocator.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Answers at once, from memory that is there.
#[derive(Clone)]
struct Nothing;

impl Target for Nothing {
    fn size(&self) -> ByteLen {
        ByteLen::new(64 << 20)
    }

    async fn read(&self, _: ByteOffset, len: ByteLen) -> Result<Pieces, TargetError> {
        static ZEROS: [u8; 65536] = [0; 65536];
        let zeros = Bytes::from_static(&ZEROS);
        Ok(Pieces::One(Payload::from(zeros.slice(..len.as_usize()))))
    }

    async fn write(&self, _: ByteOffset, _: Payload) -> Result<(), TargetError> {
        Ok(())
    }
}

/// Allocations and their bytes in a run of so many 4 KiB requests.
async fn allocated(rw: &str, requests: u64) -> (u64, u64) {
    let load = Workload {
        rw: rw.parse().unwrap(),
        sizes: "4k".parse().unwrap(),
        distribution: "zipf:1.1".parse().unwrap(),
        iodepth: 8,
        stop: Stop::Bytes(ByteLen::new(requests * 4096)),
        ..Workload::default()
    };
    let before = (COUNT.load(Ordering::Relaxed), BYTES.load(Ordering::Relaxed));
    let mut watch = |_: &Sample| {};
    let report = run(&[Nothing], &load, &mut watch).await.unwrap();
    assert_eq!(report.total_ios(), requests);
    (
        COUNT.load(Ordering::Relaxed) - before.0,
        BYTES.load(Ordering::Relaxed) - before.1,
    )
}

#[test]
fn a_read_allocates_nothing_and_a_write_only_its_reference_count() {
    const MORE: u64 = 20_000;
    block_on(async {
        for (rw, count_max, bytes_max) in [("randread", 0, 0), ("randwrite", 1, 32)] {
            allocated(rw, 100).await;
            let few = allocated(rw, 1_000).await;
            let many = allocated(rw, 1_000 + MORE).await;
            // The curve of latencies has some more points, and a second more may have passed.
            let (count, bytes) = (many.0.saturating_sub(few.0), many.1.saturating_sub(few.1));
            assert!(count <= count_max * MORE + 500, "{rw}: {count} for {MORE}");
            assert!(
                bytes <= bytes_max * MORE + 65_536,
                "{rw}: {bytes} for {MORE}"
            );
        }
    });
}
