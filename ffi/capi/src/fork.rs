//! A child of fork has none of our threads.
//!
//! *Place*: under `registry`. *Owner*: the process. *Invariants*: in a child no lock is taken that a thread
//! of the parent may have held: it gets a registry of its own, and the parent's stays where it is.
//! *On failure*: handles of the parent are told apart by the number of forks that they carry.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

static FORKS: AtomicU8 = AtomicU8::new(0);
static WATCHED: AtomicBool = AtomicBool::new(false);

/// Forks between the program's start and this process; comes round.
pub(crate) fn count() -> u8 {
    FORKS.load(Ordering::Acquire)
}

/// Has children of this process notice what they are.
pub(crate) fn watch() {
    if WATCHED.swap(true, Ordering::AcqRel) {
        return;
    }
    // SAFETY: the handler only stores to atomics, which a child may do; it stays mapped (`-z nodelete`).
    // Without memory for it children cannot tell, and are as if nobody had looked.
    unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
}

extern "C" fn in_child() {
    crate::registry::forget();
    FORKS.fetch_add(1, Ordering::AcqRel);
}
