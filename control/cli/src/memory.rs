//! The process's allocator, and that it keeps what was freed.
//!
//! *Place*: under everything. *Owner*: the process.
//! *Invariants*: memory that was in use once is used again, not given back to the system in between.
//! How much that is, is bounded by the bounds of queues and caches, not here.
//! *On failure*: an exhausted allocator ends the process.

use libmimalloc_sys::{mi_option_set, mi_option_t};

/// Payloads of up to 1 MiB come and go at high rates on several threads; the system's allocator keeps
/// a multiple of them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc 3, which its binding does not name.
const PURGE_DELAY: mi_option_t = 15;

/// Freed memory stays with the process. To give it back and take it anew costs a page fault and the
/// zeroing of a page each time: a tenth of all that a loaded chunkserver did.
pub fn keep_freed() {
    // SAFETY: takes two numbers; an option that it does not know would be ignored.
    unsafe { mi_option_set(PURGE_DELAY, -1) };
}

#[cfg(test)]
mod tests {
    use super::keep_freed;
    use nix::sys::resource::{UsageWho, getrusage};
    use std::time::Duration;

    const PIECE: usize = 1 << 20;
    const PIECES: usize = 64;
    /// Each of the pieces has 256 pages, or half a huge one.
    const FEW: i64 = 16;

    /// Page faults of this thread while it writes to so much memory.
    fn faults_of_use() -> i64 {
        let faults = || {
            getrusage(UsageWho::RUSAGE_THREAD)
                .expect("it is Linux")
                .minor_page_faults()
        };
        let before = faults();
        let mut pieces = Vec::with_capacity(PIECES);
        for _ in 0..PIECES {
            let mut piece = vec![0u8; PIECE];
            piece.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
            pieces.push(std::hint::black_box(piece));
        }
        faults() - before
    }

    #[test]
    fn memory_that_was_freed_is_used_again() {
        keep_freed();
        faults_of_use();
        // Longer than it would keep it, and then some work for it to notice.
        std::thread::sleep(Duration::from_millis(2500));
        for _ in 0..20_000 {
            drop(std::hint::black_box(vec![0u8; 100]));
        }
        faults_of_use();
        std::thread::sleep(Duration::from_millis(2500));
        let again = faults_of_use();
        assert!(again < FEW, "{again} page faults");
    }
}
