//! What a flush waits for: every mutation issued before it.
//!
//! *Place*: `volume` takes a ticket for each mutating user request and a wait for each flush.
//! *Owner*: the shard of the volume.
//! *Invariants*: a flush returns after, and only after, all tickets older than it are closed.
//! *On failure*: a request that fails closes its ticket too; its own caller hears of it.

use crate::ledger::Ledger;
use ogee_runtime::channel::Notify;
use ogee_runtime::seeded_bug;
use std::cell::RefCell;
use std::rc::Rc;

/// Mutations under way, in the order they were issued.
pub(crate) struct Barrier {
    ledger: RefCell<Ledger>,
    moved: Notify,
}

/// One mutation under way; dropping it is its end.
pub(crate) struct Ticket {
    barrier: Rc<Barrier>,
    number: u64,
}

impl Barrier {
    /// Nothing under way.
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            ledger: RefCell::new(Ledger::new(0)),
            moved: Notify::new(),
        })
    }

    /// Notes a mutation.
    pub(crate) fn enter(self: &Rc<Self>) -> Ticket {
        let number = self.ledger.borrow_mut().open();
        Ticket {
            barrier: Rc::clone(self),
            number,
        }
    }

    /// Waits until every mutation noted before this call has ended.
    pub(crate) async fn wait(&self) {
        if seeded_bug!("flush-does-not-wait") {
            return;
        }
        let target = self.ledger.borrow().next();
        while self.ledger.borrow().low() < target {
            self.moved.notified().await;
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.barrier.ledger.borrow_mut().close(self.number) {
            self.barrier.moved.notify_all();
        }
    }
}
