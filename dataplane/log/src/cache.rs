//! Which durable payloads stay in memory.
//!
//! *Place*: counts what the groups' slots keep; `state` drops what it names. *Owner*: the log's
//! task. *Invariants*: only durable payloads are counted or dropped; after [`Cache::excess`] says
//! nothing more is in excess, at most `limit` bytes are held. First in, first out: entries are
//! applied and replicated soon after they are appended, in order. *On failure*: none.

use ogee_proto::id::CopysetId;
use std::collections::VecDeque;

/// A payload that may be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub group: CopysetId,
    pub index: u64,
    pub serial: u64,
}

/// Bytes and order of the cached payloads.
#[derive(Debug)]
pub(crate) struct Cache {
    limit: usize,
    bytes: usize,
    order: VecDeque<Ticket>,
    stale: usize,
}

/// Stale tickets kept before it is worth sweeping them out.
const STALE_MIN: usize = 64;

impl Cache {
    pub(crate) const fn new(limit: usize) -> Self {
        Self {
            limit,
            bytes: 0,
            order: VecDeque::new(),
            stale: 0,
        }
    }

    /// A payload of `len` bytes became durable and stays in memory.
    pub(crate) fn add(&mut self, ticket: Ticket, len: usize) {
        self.bytes += len;
        self.order.push_back(ticket);
    }

    /// A counted payload of `len` bytes is gone because its entry is; its ticket is stale now.
    pub(crate) const fn forget(&mut self, len: usize) {
        self.bytes -= len;
        self.stale += 1;
    }

    /// The next payload to drop, if too much is held. The caller then reports
    /// [`Cache::dropped`] or, if the entry is gone, [`Cache::skipped`].
    pub(crate) fn excess(&mut self) -> Option<Ticket> {
        if self.bytes > self.limit {
            self.order.pop_front()
        } else {
            None
        }
    }

    /// The payload of an excess ticket was dropped.
    pub(crate) const fn dropped(&mut self, len: usize) {
        self.bytes -= len;
    }

    /// The ticket was stale.
    pub(crate) const fn skipped(&mut self) {
        self.stale -= 1;
    }

    /// Sweeps stale tickets when they are the greater part; `alive` tells.
    pub(crate) fn sweep(&mut self, alive: impl Fn(&Ticket) -> bool) {
        if self.stale > STALE_MIN && self.stale > self.order.len() / 2 {
            self.order.retain(alive);
            self.stale = 0;
        }
    }

    /// Bytes held.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::{Cache, Ticket};
    use ogee_proto::id::CopysetId;

    fn ticket(serial: u64) -> Ticket {
        Ticket {
            group: CopysetId::new(1),
            index: serial,
            serial,
        }
    }

    #[test]
    fn the_oldest_goes_first_and_only_in_excess() {
        let mut cache = Cache::new(100);
        cache.add(ticket(1), 60);
        assert_eq!(cache.excess(), None);
        cache.add(ticket(2), 60);
        assert_eq!(cache.excess(), Some(ticket(1)));
        cache.dropped(60);
        assert_eq!(cache.excess(), None);
        assert_eq!(cache.bytes(), 60);
    }

    #[test]
    fn stale_tickets_do_not_pile_up() {
        let mut cache = Cache::new(1 << 20);
        cache.add(ticket(0), 1);
        for serial in 1..10_000 {
            cache.add(ticket(serial), 1);
            cache.forget(1);
            cache.sweep(|ticket| ticket.serial == 0);
            assert!(cache.order.len() < 200);
        }
        assert_eq!(cache.bytes(), 1);
    }
}
