//! Between the caller's threads and ours.
//!
//! *Place*: under `client` and `volume`. *Owner*: none. *Invariants*: our threads take no signals of the
//! program, except the one that the executor uses on itself. *On failure*: none.

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Blocks the calling thread until `future` is ready; for futures that any executor can run.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        // Returns at once if the waker was called since.
        thread::park();
    }
}

/// Runs `start`, whose threads inherit that they take no signals.
pub(crate) fn without_signals<T>(start: impl FnOnce() -> T) -> T {
    let mut all = SigSet::all();
    all.remove(Signal::SIGURG);
    // These cannot wait: the thread that made them gets them.
    for fault in [
        Signal::SIGSEGV,
        Signal::SIGBUS,
        Signal::SIGILL,
        Signal::SIGFPE,
    ] {
        all.remove(fault);
    }
    let before = all.thread_swap_mask(SigmaskHow::SIG_BLOCK);
    let started = start();
    if let Ok(before) = before {
        // Refused only if the mask were no mask.
        let _ = before.thread_set_mask();
    }
    started
}
