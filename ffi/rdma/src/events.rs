//! Events of devices, told to everybody in the process who asked.
//!
//! *Place*: beside a [`Domain`], one for each thread that uses the device. *Owner*: its thread; the table is the
//! process's. A process has one queue of events for each device, so whoever finds one there puts it into the queues of all
//! watches of the device, and wakes their threads.
//!
//! *Invariants*: queues are bounded; a watch that has lost events is told that the device cannot be relied on.
//! *On failure*: an error of the call; the events of other devices are not touched by it.

use crate::domain::{AsyncEvent, DeviceEvent, Domain};
use crate::error::RdmaError;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Events that wait for one thread: each connection of it may have broken, and then it has to know of the device anyway.
const WAITING_MAX: usize = 256;

static WATCHES: Mutex<Vec<Arc<Queue>>> = Mutex::new(Vec::new());

/// Tells of what happens to a device.
pub struct Watch {
    domain: Domain,
    queue: Arc<Queue>,
}

struct Queue {
    device: String,
    waiting: Mutex<VecDeque<DeviceEvent>>,
    /// A counter that is readable while it is not zero.
    signal: File,
}

impl Watch {
    /// Events of the domain's device from now on.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new(domain: &Domain) -> Result<Self, RdmaError> {
        Ok(Self {
            domain: domain.clone(),
            queue: Queue::new(domain.device())?,
        })
    }

    /// The next event, if there is one; wait for either of [`descriptors`](Self::descriptors).
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn next(&self) -> Result<Option<DeviceEvent>, RdmaError> {
        while let Some(event) = self.domain.next_event()? {
            tell(self.domain.device(), event);
        }
        let next = lock(&self.queue.waiting).pop_front();
        if next.is_none() {
            self.queue.clear();
        }
        Ok(next)
    }

    /// What becomes readable with an event.
    #[must_use]
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.domain.as_fd(), self.queue.signal.as_fd()]
    }
}

/// Gives an event to all watches of the device.
pub(crate) fn tell(device: &str, event: DeviceEvent) {
    let watches = lock(&WATCHES);
    for queue in watches.iter().filter(|queue| queue.device == device) {
        queue.add(event);
    }
}

impl Queue {
    /// Events of the device from now on.
    fn new(device: &str) -> Result<Arc<Self>, RdmaError> {
        // SAFETY: takes numbers only.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(RdmaError::last("eventfd"));
        }
        let queue = Arc::new(Self {
            device: device.to_owned(),
            waiting: Mutex::default(),
            // SAFETY: just made, and nobody else's.
            signal: unsafe { File::from_raw_fd(fd) },
        });
        lock(&WATCHES).push(Arc::clone(&queue));
        Ok(queue)
    }

    fn raise(&self) {
        // Full means that it is readable already.
        let _full = (&self.signal).write(&1_u64.to_ne_bytes());
    }

    fn add(&self, event: DeviceEvent) {
        let mut waiting = lock(&self.waiting);
        if waiting.len() == WAITING_MAX {
            waiting.clear();
            waiting.push_back(DeviceEvent {
                what: AsyncEvent::DeviceFatal,
                of: 0,
            });
        } else {
            waiting.push_back(event);
        }
        drop(waiting);
        self.raise();
    }

    fn clear(&self) {
        // Empty means that it is clear already.
        let _empty = (&self.signal).read(&mut [0; size_of::<u64>()]);
        // One that came in between was added before it was signalled.
        if !lock(&self.waiting).is_empty() {
            self.raise();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        lock(&WATCHES).retain(|queue| !Arc::ptr_eq(queue, &self.queue));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that may panic runs under the locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{Queue, WAITING_MAX, lock, tell};
    use crate::domain::{AsyncEvent, DeviceEvent};
    use std::os::fd::AsRawFd;
    use std::sync::Arc;

    fn queue(device: &str) -> Arc<Queue> {
        Queue::new(device).expect("a descriptor is left")
    }

    fn is_readable(queue: &Queue) -> bool {
        let mut poll = libc::pollfd {
            fd: queue.signal.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one descriptor.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
    }

    fn port_down(of: u64) -> DeviceEvent {
        let what = AsyncEvent::PortDown;
        DeviceEvent { what, of }
    }

    #[test]
    fn everybody_of_a_device_hears_of_it_and_nobody_else() {
        let (one, two, other) = (queue("a0"), queue("a0"), queue("a1"));
        tell("a0", port_down(1));
        for queue in [&one, &two] {
            assert!(is_readable(queue));
            assert_eq!(lock(&queue.waiting).pop_front(), Some(port_down(1)));
            queue.clear();
            assert!(!is_readable(queue));
        }
        assert!(!is_readable(&other) && lock(&other.waiting).is_empty());
    }

    #[test]
    fn who_loses_events_is_told_that_the_device_is_lost() {
        let queue = queue("b0");
        for at in 0..=WAITING_MAX as u64 {
            tell("b0", port_down(at));
        }
        let waiting: Vec<AsyncEvent> = lock(&queue.waiting)
            .iter()
            .map(|event| event.what)
            .collect();
        assert_eq!(waiting, [AsyncEvent::DeviceFatal]);
        // Cleared too early, it still wakes.
        queue.clear();
        assert!(is_readable(&queue));
    }
}
