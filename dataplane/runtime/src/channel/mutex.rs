//! A lock that may be held across awaits.
//!
//! **Place.** Serialises sequences of I/O, such as one writer of a superblock. **Owner.** Whoever
//! holds the guard, on one executor.
//!
//! **Invariants.** First come, first served. **Failure.** None; a holder that is dropped unlocks.

use std::cell::{RefCell, RefMut};
use std::ops::{Deref, DerefMut};

use super::semaphore::{Permit, Semaphore};

/// A value that one task at a time may use.
#[derive(Debug)]
pub struct Mutex<T> {
    semaphore: Semaphore,
    value: RefCell<T>,
}

impl<T> Mutex<T> {
    /// An unlocked value.
    pub fn new(value: T) -> Self {
        Self {
            semaphore: Semaphore::new(1),
            value: RefCell::new(value),
        }
    }

    /// Waits for the lock.
    pub async fn lock(&self) -> MutexGuard<'_, T> {
        let permit = self.semaphore.acquire(1).await;
        MutexGuard {
            value: self.value.borrow_mut(),
            _permit: permit,
        }
    }

    /// Takes the lock if it is free and nobody waits.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let permit = self.semaphore.try_acquire(1)?;
        Some(MutexGuard {
            value: self.value.borrow_mut(),
            _permit: permit,
        })
    }
}

/// The lock, held. Unlocks when dropped.
#[derive(Debug)]
#[must_use = "unlocks when dropped"]
pub struct MutexGuard<'a, T> {
    // Before the permit: the borrow must end before the next holder can begin.
    value: RefMut<'a, T>,
    _permit: Permit,
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}
