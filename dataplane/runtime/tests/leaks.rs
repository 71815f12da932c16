//! Cancelled tasks give their memory back, counted by the allocator.
#![cfg(not(ogee_sim))]

use std::alloc::{GlobalAlloc, Layout, System};
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};

use ogee_runtime::executor::block_on;
use ogee_runtime::{spawn_scoped, yield_now};

static LIVE: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; only a counter is kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on; `memory` came from the same allocator.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

async fn cancel_tasks(count: usize) {
    for _ in 0..count {
        let task = spawn_scoped(async {
            let held = vec![0_u8; 100];
            pending::<()>().await;
            drop(held);
        });
        yield_now().await;
        drop(task);
    }
    yield_now().await;
}

#[test]
fn dropped_pending_tasks_do_not_leak() {
    const TASKS: usize = 2000;
    block_on(async {
        cancel_tasks(TASKS).await;
        let before = LIVE.load(Ordering::Relaxed);
        cancel_tasks(TASKS).await;
        let grown = LIVE.load(Ordering::Relaxed).saturating_sub(before);
        assert!(grown < TASKS * 8, "{grown} bytes leaked by {TASKS} tasks");
    });
}
