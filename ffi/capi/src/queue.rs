//! Completion queues.
//!
//! *Place*: filled by the I/O threads, emptied by the caller. *Owner*: the registry, and the requests that
//! will end on it. *Invariants*: requests under way and completions not taken are together at most the
//! capacity: a place is reserved before a request is accepted, so a completion always has one.
//! *On failure*: a full queue is a status of the submitting call.

use crate::abi::OgeeStatus;
use crate::failure::Failure;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::VecDeque;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How a request ended: bytes, or the size of a notice.
pub(crate) type Outcome = Result<u64, Failure>;

/// The end of a request.
#[derive(Debug)]
pub(crate) struct Completion {
    pub(crate) user_data: u64,
    pub(crate) outcome: Outcome,
}

/// A completion queue.
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    capacity: usize,
}

struct State {
    completions: VecDeque<Completion>,
    under_way: usize,
    event: Option<EventFd>,
    is_closed: bool,
}

impl Queue {
    pub(crate) fn new(capacity: usize) -> Self {
        let state = State {
            completions: VecDeque::new(),
            under_way: 0,
            event: None,
            is_closed: false,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            capacity,
        }
    }

    /// A place for the completion of a request to come.
    pub(crate) fn reserve(&self) -> Result<(), Failure> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(closed());
        }
        if state.under_way + state.completions.len() >= self.capacity {
            let what = format!("the completion queue is full: it takes {}", self.capacity);
            let remedy = "take completions with ogee_cq_poll, then submit again";
            return Err(Failure::new(OgeeStatus::Again, &what, remedy));
        }
        state.under_way += 1;
        Ok(())
    }

    /// The request was not accepted after all.
    pub(crate) fn release(&self) {
        self.lock().under_way -= 1;
    }

    /// A request has ended; its place was reserved.
    pub(crate) fn post(&self, completion: Completion) {
        let mut state = self.lock();
        state.under_way -= 1;
        state.completions.push_back(completion);
        if state.completions.len() == 1
            && let Some(event) = &state.event
        {
            // Full only after 2^64 - 2 of them.
            let _ = event.write(1);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Takes at most `count` completions.
    pub(crate) fn poll(&self, count: usize) -> Vec<Completion> {
        take(&mut self.lock(), count)
    }

    /// Takes at most `count` completions, and waits for the first one for so long.
    pub(crate) fn wait(
        &self,
        count: usize,
        timeout: Option<Duration>,
    ) -> Result<Vec<Completion>, Failure> {
        let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = self.lock();
        while state.completions.is_empty() {
            if state.is_closed {
                return Err(closed());
            }
            state = match end {
                None => self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(end) => {
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(Vec::new());
                    }
                    let waited = self.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        let taken = take(&mut state, count);
        let more = !state.completions.is_empty();
        drop(state);
        if more {
            // Of two completions at once, two waiters take one each.
            self.changed.notify_one();
        }
        Ok(taken)
    }

    /// A descriptor that can be read while completions wait.
    pub(crate) fn event(&self) -> Result<RawFd, Failure> {
        let mut state = self.lock();
        if let Some(event) = &state.event {
            return Ok(event.as_raw_fd());
        }
        let waiting = u32::from(!state.completions.is_empty());
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let made = EventFd::from_value_and_flags(waiting, flags);
        let event = made.map_err(|error| Failure::system("cannot make an eventfd", &error))?;
        let descriptor = event.as_raw_fd();
        state.event = Some(event);
        Ok(descriptor)
    }

    /// Ends it, if no request is to end on it; wakes who waits.
    pub(crate) fn close(&self) -> Result<(), Failure> {
        let mut state = self.lock();
        if state.under_way > 0 {
            let what = format!("{} requests are under way on the queue", state.under_way);
            let remedy = "wait for them, or close their volumes";
            return Err(Failure::new(OgeeStatus::Busy, &what, remedy));
        }
        state.is_closed = true;
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that may panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take(state: &mut State, count: usize) -> Vec<Completion> {
    let count = count.min(state.completions.len());
    let taken: Vec<Completion> = state.completions.drain(..count).collect();
    if state.completions.is_empty()
        && !taken.is_empty()
        && let Some(event) = &state.event
    {
        // The caller may have read it already.
        let _ = event.read();
    }
    taken
}

fn closed() -> Failure {
    let what = "the completion queue was destroyed meanwhile";
    Failure::new(OgeeStatus::Closed, what, "make another one")
}

#[cfg(test)]
mod tests {
    use super::{Completion, OgeeStatus, Queue};
    use std::sync::Arc;
    use std::time::Duration;

    fn post(queue: &Queue, user_data: u64) {
        queue.reserve().expect("room");
        queue.post(Completion {
            user_data,
            outcome: Ok(0),
        });
    }

    fn is_readable(descriptor: i32) -> bool {
        let mut polled = libc::pollfd {
            fd: descriptor,
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one entry, borrowed for the call.
        unsafe { libc::poll(&raw mut polled, 1, 0) == 1 }
    }

    #[test]
    fn every_accepted_request_has_a_place() {
        let queue = Queue::new(2);
        queue.reserve().expect("room");
        post(&queue, 1);
        assert_eq!(queue.reserve().unwrap_err().status, OgeeStatus::Again);
        assert_eq!(queue.poll(8).len(), 1);
        queue.reserve().expect("a completion was taken");
        queue.release();
        queue.reserve().expect("a reservation was given back");
    }

    #[test]
    fn the_descriptor_is_readable_while_completions_wait() {
        let queue = Queue::new(8);
        post(&queue, 1);
        let descriptor = queue.event().expect("a descriptor");
        assert_eq!(queue.event(), Ok(descriptor));
        assert!(is_readable(descriptor), "made while one waits");
        assert_eq!(queue.poll(8).len(), 1);
        assert!(!is_readable(descriptor));
        post(&queue, 2);
        post(&queue, 3);
        assert_eq!(queue.poll(1).len(), 1);
        assert!(is_readable(descriptor), "one is left");
        assert_eq!(queue.poll(1).len(), 1);
        assert!(!is_readable(descriptor));
    }

    #[test]
    fn waiting_ends_with_a_completion_a_timeout_or_the_queue() {
        let queue = Arc::new(Queue::new(8));
        let none = queue.wait(8, Some(Duration::from_millis(5))).expect("open");
        assert!(none.is_empty());
        let waiter = |queue: &Arc<Queue>| {
            let queue = Arc::clone(queue);
            std::thread::spawn(move || queue.wait(1, None))
        };
        let (first, second) = (waiter(&queue), waiter(&queue));
        post(&queue, 1);
        post(&queue, 2);
        let ended = [first, second].map(|it| it.join().expect("no panic").expect("open"));
        let mut taken: Vec<u64> = ended.iter().map(|it| it[0].user_data).collect();
        taken.sort_unstable();
        assert_eq!(taken, [1, 2]);

        queue.reserve().expect("room");
        assert_eq!(queue.close().unwrap_err().status, OgeeStatus::Busy);
        queue.release();
        let waiting = waiter(&queue);
        queue.close().expect("nothing is under way");
        let ended = waiting.join().expect("no panic").unwrap_err();
        assert_eq!(ended.status, OgeeStatus::Closed);
        assert_eq!(queue.reserve().unwrap_err().status, OgeeStatus::Closed);
    }
}
