//! Counted permits with a fair queue: the core of semaphore, mutex, notify and the bounded channels.
//!
//! **Place.** Inside the types of `channel` and `bridge`, behind a `RefCell` or a mutex.
//!
//! **Owner.** The type that embeds it. It never calls a waker itself: [`Permits::grant`] hands them
//! out one by one, to be woken outside of the borrow.
//!
//! **Invariants.** First come, first served, whatever the size: nobody overtakes the head of the
//! queue. A granted waiter owns its permits before it runs. After any call that frees permits, the
//! owner calls `grant` until it returns nothing.
//!
//! **Failure.** None; `close` fails all waiters.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use super::Closed;

/// Place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

#[derive(Debug)]
struct Waiter {
    ticket: Ticket,
    need: usize,
    waker: Waker,
}

#[derive(Debug)]
pub(crate) struct Permits {
    available: usize,
    waiting: VecDeque<Waiter>,
    /// Chosen but not yet polled again; short, as the chosen are woken at once.
    granted: Vec<Ticket>,
    next: u64,
    is_closed: bool,
}

impl Permits {
    pub(crate) fn new(available: usize) -> Self {
        Self {
            available,
            waiting: VecDeque::new(),
            granted: Vec::new(),
            next: 0,
            is_closed: false,
        }
    }

    pub(crate) fn available(&self) -> usize {
        self.available
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Takes `need` permits unless somebody waits for theirs.
    pub(crate) fn try_acquire(&mut self, need: usize) -> bool {
        if self.is_closed || !self.waiting.is_empty() || self.available < need {
            return false;
        }
        self.available -= need;
        true
    }

    /// Takes `need` permits or queues; `ticket` is the caller's place and must be passed to
    /// [`Self::cancel`] if the caller gives up.
    pub(crate) fn poll_acquire(
        &mut self,
        ticket: &mut Option<Ticket>,
        need: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Closed>> {
        if let Some(held) = *ticket
            && self.take_grant(held)
        {
            *ticket = None;
            return Poll::Ready(Ok(()));
        }
        if self.is_closed {
            *ticket = None;
            return Poll::Ready(Err(Closed));
        }
        match *ticket {
            Some(held) => self.refresh(held, cx),
            None if self.try_acquire(need) => return Poll::Ready(Ok(())),
            None => *ticket = Some(self.enqueue(need, cx)),
        }
        Poll::Pending
    }

    fn enqueue(&mut self, need: usize, cx: &mut Context<'_>) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.waiting.push_back(Waiter {
            ticket,
            need,
            waker: cx.waker().clone(),
        });
        ticket
    }

    fn refresh(&mut self, ticket: Ticket, cx: &mut Context<'_>) {
        if let Ok(index) = self.position(ticket) {
            self.waiting[index].waker.clone_from(cx.waker());
        }
    }

    /// Tickets rise along the queue.
    fn position(&self, ticket: Ticket) -> Result<usize, usize> {
        self.waiting
            .binary_search_by_key(&ticket, |waiter| waiter.ticket)
    }

    fn take_grant(&mut self, ticket: Ticket) -> bool {
        let Some(index) = self.granted.iter().position(|granted| *granted == ticket) else {
            return false;
        };
        self.granted.swap_remove(index);
        true
    }

    /// Gives permits back.
    pub(crate) fn release(&mut self, count: usize) {
        self.available += count;
    }

    /// Serves the head of the queue if its permits are there; wake the result, then call again.
    pub(crate) fn grant(&mut self) -> Option<Waker> {
        if self.waiting.front()?.need > self.available {
            return None;
        }
        let chosen = self.waiting.pop_front()?;
        self.available -= chosen.need;
        self.granted.push(chosen.ticket);
        Some(chosen.waker)
    }

    /// Gives up a place, returning permits that were already granted.
    pub(crate) fn cancel(&mut self, ticket: Ticket, need: usize) {
        if self.give_up(ticket) {
            self.release(need);
        }
    }

    /// Gives up a place; whether permits were granted, which are the caller's to return.
    pub(crate) fn give_up(&mut self, ticket: Ticket) -> bool {
        if self.take_grant(ticket) {
            return true;
        }
        if let Ok(index) = self.position(ticket) {
            self.waiting.remove(index);
        }
        false
    }

    /// Fails all waiters, present and future; wake the results of [`Self::drain`].
    pub(crate) fn close(&mut self) {
        self.is_closed = true;
    }

    /// Takes a waiter out of the queue without granting it anything.
    pub(crate) fn drain(&mut self) -> Option<Waker> {
        self.waiting.pop_front().map(|waiter| waiter.waker)
    }
}
