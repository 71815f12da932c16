//! Who may touch which block while one is being read, modified and written.
//!
//! *Place*: taken by every mutation of `aligned`, before it reads or writes.
//! *Owner*: one table per disk, shared by all its connections on one shard.
//! *Invariants*: two requests that touch the same block do not run at once if either touches it in
//! part. Whole-block writes do not exclude each other. Conflicting requests run in the order in
//! which they came, and a request enters the table with all its blocks at once, so that waits form
//! no cycle. The table holds at most `LOCKS_MAX` requests; more wait for a place, in order.
//! *On failure*: none; a request that is dropped, waiting or not, lets those behind it pass.
//!
//! Each entry counts the earlier entries in its way. The common case, whole blocks only, neither
//! scans nor waits.

use super::span::Span;
use crate::limit::LOCKS_MAX;
use ogee_runtime::channel::{Permit, Semaphore};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// The lock table of a disk.
pub(super) struct BlockLocks {
    table: Rc<RefCell<Table>>,
    places: Semaphore,
}

impl BlockLocks {
    pub(super) fn new() -> Self {
        Self {
            table: Rc::default(),
            places: Semaphore::new(LOCKS_MAX),
        }
    }

    /// Waits until `span` may be written.
    pub(super) async fn lock(&self, span: Span) -> Guard {
        let place = self.places.acquire(1).await;
        let guard = Guard {
            ticket: self.table.borrow_mut().enter(span),
            table: Rc::clone(&self.table),
            _place: place,
        };
        poll_fn(|cx| guard.poll_free(cx)).await;
        guard
    }
}

/// The right to write a span; gives it up when dropped.
pub(super) struct Guard {
    ticket: u64,
    table: Rc<RefCell<Table>>,
    _place: Permit,
}

impl Guard {
    fn poll_free(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.table.borrow_mut().poll_free(self.ticket, cx)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Woken outside of the borrow: a waker may run code that comes back here.
        let freed = self.table.borrow_mut().leave(self.ticket);
        freed.into_iter().for_each(Waker::wake);
    }
}

struct Entry {
    span: Span,
    /// Earlier entries that it conflicts with.
    blockers: usize,
    waker: Option<Waker>,
}

#[derive(Default)]
struct Table {
    /// By ticket, that is, by arrival.
    entries: BTreeMap<u64, Entry>,
    next_ticket: u64,
    /// Entries that touch a block in part.
    partial_count: usize,
    /// Entries with blockers.
    blocked_count: usize,
}

impl Table {
    fn enter(&mut self, span: Span) -> u64 {
        let is_partial = !span.is_aligned();
        let blockers = match is_partial || self.partial_count > 0 {
            true => self.conflicts(span),
            false => 0,
        };
        self.partial_count += usize::from(is_partial);
        self.blocked_count += usize::from(blockers > 0);
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let entry = Entry {
            span,
            blockers,
            waker: None,
        };
        self.entries.insert(ticket, entry);
        ticket
    }

    fn conflicts(&self, span: Span) -> usize {
        let entries = self.entries.values();
        entries.filter(|entry| conflict(entry.span, span)).count()
    }

    fn poll_free(&mut self, ticket: u64, cx: &mut Context<'_>) -> Poll<()> {
        let entry = self.entries.get_mut(&ticket);
        let entry = entry.expect("invariant: an entry lives as long as its guard");
        if entry.blockers == 0 {
            return Poll::Ready(());
        }
        entry.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Removes an entry and returns whom that sets free.
    fn leave(&mut self, ticket: u64) -> Vec<Waker> {
        let entry = self.entries.remove(&ticket);
        let entry = entry.expect("invariant: an entry lives as long as its guard");
        self.partial_count -= usize::from(!entry.span.is_aligned());
        self.blocked_count -= usize::from(entry.blockers > 0);
        if self.blocked_count == 0 {
            return Vec::new();
        }
        let mut freed = Vec::new();
        for (_, later) in self.entries.range_mut(ticket..) {
            if !conflict(entry.span, later.span) {
                continue;
            }
            later.blockers -= 1;
            if later.blockers == 0 {
                self.blocked_count -= 1;
                freed.extend(later.waker.take());
            }
        }
        freed
    }
}

/// Whether they share a block that either touches in part.
fn conflict(one: Span, other: Span) -> bool {
    let needs_alone = |one: Span, other: Span| {
        let other = other.outer();
        one.partial_blocks().any(|block| block.overlaps(other))
    };
    needs_alone(one, other) || needs_alone(other, one)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use ogee_proto::unit::{ByteLen, ByteOffset};
    use std::pin::Pin;

    fn span(start: u64, len: u64) -> Span {
        Span::new(ByteOffset::new(start), ByteLen::new(len)).expect("a span")
    }

    /// A lock future that has been polled once, so that it stands in the table.
    fn queued(locks: &BlockLocks, span: Span) -> Pin<Box<dyn Future<Output = Guard> + '_>> {
        let mut waiting: Pin<Box<dyn Future<Output = Guard>>> = Box::pin(locks.lock(span));
        assert!(
            waiting.as_mut().now_or_never().is_none(),
            "{span:?} is free"
        );
        waiting
    }

    fn taken(locks: &BlockLocks, span: Span) -> Guard {
        let guard = locks.lock(span).now_or_never();
        guard.unwrap_or_else(|| panic!("{span:?} is not free"))
    }

    #[test]
    fn whole_blocks_do_not_exclude_each_other() {
        let locks = BlockLocks::new();
        let _one = taken(&locks, span(0, 8192));
        let _other = taken(&locks, span(4096, 8192));
    }

    #[test]
    fn a_partial_block_is_exclusive_and_its_neighbours_are_not() {
        let locks = BlockLocks::new();
        // Parts of blocks 0 and 3, all of 1 and 2.
        let _long = taken(&locks, span(100, 4 * 4096 - 200));
        let _within = taken(&locks, span(4096, 8192));
        let _after = taken(&locks, span(4 * 4096 + 1, 5));
        let _first = queued(&locks, span(0, 4096));
        let _last = queued(&locks, span(3 * 4096, 4096));
        let _other_part = queued(&locks, span(0, 10));
    }

    #[test]
    fn whole_blocks_wait_for_a_part_and_the_next_part_for_them() {
        let locks = BlockLocks::new();
        let part = taken(&locks, span(1, 1));
        let mut whole = queued(&locks, span(0, 4096));
        let mut next = queued(&locks, span(2, 1));
        drop(part);
        let whole = whole.as_mut().now_or_never().expect("its turn");
        assert!(next.as_mut().now_or_never().is_none(), "it came later");
        drop(whole);
        assert!(next.as_mut().now_or_never().is_some());
    }

    #[test]
    fn who_gives_up_waiting_lets_others_pass() {
        let locks = BlockLocks::new();
        let first = taken(&locks, span(1, 1));
        let gone = queued(&locks, span(2, 1));
        let mut third = queued(&locks, span(3, 1));
        drop(gone);
        assert!(third.as_mut().now_or_never().is_none());
        drop(first);
        assert!(third.as_mut().now_or_never().is_some());
    }

    #[test]
    fn the_table_is_empty_when_all_have_left() {
        let locks = BlockLocks::new();
        let first = taken(&locks, span(1, 9000));
        drop(queued(&locks, span(0, 4096)));
        drop(first);
        let table = locks.table.borrow();
        assert_eq!(table.entries.len(), 0);
        assert_eq!((table.partial_count, table.blocked_count), (0, 0));
        assert_eq!(locks.places.available(), LOCKS_MAX);
    }
}
