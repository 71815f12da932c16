//! Wake-ups from other threads.
//!
//! **Place.** Between the wakers of tasks (`task::waker`) and `driver`, which sleeps in the kernel. **Owner.** Shared: the
//! executor answers, any thread rings.
//!
//! **Invariants.** A ring is never lost: the executor says that it is about to sleep before it looks for the last time,
//! and who rings looks whether it sleeps after having left its waker. Each task is listed once at most (`task::waker` sees
//! to that), so the list is bounded by the tasks. After the executor's end nothing is kept.
//!
//! **Failure.** None.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use super::sys;

thread_local! {
    /// The doorbell of the executor that runs on this thread.
    static HERE: Cell<*const Doorbell> = const { Cell::new(ptr::null()) };
}

pub(super) struct Doorbell {
    /// Wakers that were left; none once the executor has ended.
    left: Mutex<Option<Vec<Waker>>>,
    has_rung: AtomicBool,
    is_asleep: AtomicBool,
    bell: File,
}

impl Doorbell {
    pub(super) fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            left: Mutex::new(Some(Vec::new())),
            has_rung: AtomicBool::new(false),
            is_asleep: AtomicBool::new(false),
            bell: File::from(sys::eventfd()?),
        }))
    }

    /// Becomes readable when somebody rings while the executor sleeps.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.bell.as_fd().try_clone_to_owned()
    }

    /// Makes the descriptor unreadable again.
    pub(super) fn hush(&self) {
        // It does not block: an error says that nobody has rung.
        let _count = (&self.bell).read(&mut [0; size_of::<u64>()]);
    }

    /// Wakes those that were left here; whether there were any.
    pub(super) fn answer(&self) -> bool {
        if !self.has_rung.swap(false, Ordering::AcqRel) {
            return false;
        }
        let left = self.left().as_mut().map(std::mem::take);
        left.into_iter().flatten().for_each(Waker::wake);
        true
    }

    /// Whether the executor may sleep now; [`Self::wake`] follows in any case.
    pub(super) fn sleep(&self) -> bool {
        self.is_asleep.store(true, Ordering::SeqCst);
        !self.has_rung.load(Ordering::SeqCst)
    }

    pub(super) fn wake(&self) {
        self.is_asleep.store(false, Ordering::SeqCst);
    }

    fn ring(&self, waker: Waker) {
        let refused = match self.left().as_mut() {
            Some(left) => {
                left.push(waker);
                None
            }
            None => Some(waker),
        };
        drop(refused);
        self.has_rung.store(true, Ordering::SeqCst);
        if self.is_asleep.swap(false, Ordering::SeqCst) {
            // Fails only if the counter is full, and then it is readable.
            let _full = (&self.bell).write(&1_u64.to_ne_bytes());
        }
    }

    fn left(&self) -> MutexGuard<'_, Option<Vec<Waker>>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread's executor answers this doorbell until this is dropped.
pub(super) struct Answered(Arc<Doorbell>);

impl Answered {
    pub(super) fn here(doorbell: Arc<Doorbell>) -> Self {
        HERE.set(Arc::as_ptr(&doorbell));
        Self(doorbell)
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        HERE.set(ptr::null());
        let rest = self.0.left().take();
        drop(rest);
    }
}

/// Where a task lives.
pub(crate) struct Home(Arc<Doorbell>);

impl Home {
    pub(super) fn new(doorbell: Arc<Doorbell>) -> Self {
        Self(doorbell)
    }

    /// Whether the task's executor runs on this thread.
    pub(crate) fn is_here(&self) -> bool {
        ptr::eq(HERE.get(), Arc::as_ptr(&self.0))
    }

    /// Has the task's executor wake `waker`.
    pub(crate) fn ring(&self, waker: Waker) {
        self.0.ring(waker);
    }
}
