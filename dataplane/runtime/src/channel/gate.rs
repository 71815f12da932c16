//! Graceful shutdown: who is inside may finish, nobody enters any more.
//!
//! **Place.** Around the requests of a shard, a log, a connection. **Owner.** Clones share it on one
//! executor; each request holds a [`Pass`].
//!
//! **Invariants.** After [`Gate::close`] was called no pass is given out; when it returns none is
//! left. **Failure.** None.

use std::cell::Cell;
use std::rc::Rc;

use super::notify::Notify;

#[derive(Debug, Default)]
struct Shared {
    inside: Cell<usize>,
    is_closed: Cell<bool>,
    empty: Notify,
}

/// Counts who is inside and lets one wait for them.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    shared: Rc<Shared>,
}

impl Gate {
    /// An open gate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Enters, unless the gate is closed.
    pub fn enter(&self) -> Option<Pass> {
        if self.is_closed() {
            return None;
        }
        self.shared.inside.set(self.shared.inside.get() + 1);
        Some(Pass {
            shared: Rc::clone(&self.shared),
        })
    }

    /// Closes the gate at once, then waits until all passes are gone. May be called repeatedly.
    pub async fn close(&self) {
        self.shared.is_closed.set(true);
        while self.shared.inside.get() > 0 {
            self.shared.empty.notified().await;
        }
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.shared.is_closed.get()
    }

    /// Passes given out and not returned.
    pub fn inside(&self) -> usize {
        self.shared.inside.get()
    }
}

/// Permission to be inside; leaves when dropped.
#[derive(Debug)]
#[must_use = "leaves the gate when dropped"]
pub struct Pass {
    shared: Rc<Shared>,
}

impl Drop for Pass {
    fn drop(&mut self) {
        let inside = self.shared.inside.get() - 1;
        self.shared.inside.set(inside);
        if inside == 0 {
            self.shared.empty.notify_all();
        }
    }
}
