//! Events of one connection, or of one listener.
//!
//! *Place*: filled by the pump, read by whoever connects or accepts. *Owner*: the port's table, and its reader.
//! *Invariants*: bounded; of a listener, a request that does not fit is dropped, which refuses it. Events of a connection
//! that stands go to its wire. *On failure*: it closes with the port, and its reader looks why.

use super::limit::BACKLOG;
use super::wire::Wire;
use crate::signal::WakerSlot;
use ogee_rdma::{Event, EventKind};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::Poll;

/// Events of one connection, or of one listener.
#[derive(Default)]
pub(super) struct Mailbox {
    events: RefCell<VecDeque<Event>>,
    reader: WakerSlot,
    wire: RefCell<Weak<Wire>>,
    is_closed: Cell<bool>,
}

impl Mailbox {
    /// From here on the wire is told of the end.
    pub(super) fn connect(&self, wire: &Rc<Wire>) {
        *self.wire.borrow_mut() = Rc::downgrade(wire);
    }

    /// An event has come.
    pub(super) fn take(&self, event: Event) {
        let wire = self.wire.borrow().upgrade();
        if let (Some(wire), EventKind::Disconnected) = (wire, &event.kind) {
            wire.left();
        }
        if self.events.borrow().len() < usize::from(BACKLOG) {
            self.events.borrow_mut().push_back(event);
            self.reader.wake();
        }
    }

    /// Nothing comes any more: the port is broken.
    pub(super) fn close(&self) {
        self.is_closed.set(true);
        self.reader.wake();
    }

    /// The next event; `None` when the port is broken.
    pub(super) async fn next(&self) -> Option<Event> {
        poll_fn(|cx| {
            if self.is_closed.get() {
                return Poll::Ready(None);
            }
            if let Some(event) = self.events.borrow_mut().pop_front() {
                return Poll::Ready(Some(event));
            }
            self.reader.register(cx);
            Poll::Pending
        })
        .await
    }
}
