//! One connection of a caller, with the calls and streams on it.

use super::slots::Slots;
use crate::call_id::{Target, decode};
use crate::error::TransportError;
use crate::frame::Frame;
use crate::hello::Hello;
use crate::metrics::count;
use crate::sender::FrameSender;
use crate::signal::Signal;
use ogee_proto::wire::FrameKind;
use ogee_runtime::Instant;
use ogee_runtime::channel::{Semaphore, mpsc};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// One connection of a caller, with the calls and streams on it.
pub(super) struct Session {
    sender: FrameSender,
    slots: RefCell<Slots>,
    credits: Semaphore,
    streams: RefCell<BTreeMap<u64, mpsc::Sender<Frame>>>,
    next_stream: Cell<u64>,
    /// When the expiry task will look next; `None` if it sleeps until poked.
    armed: Cell<Option<Instant>>,
    poke: Signal,
}

impl Session {
    /// A fresh connection to a peer that offered credits.
    pub(super) fn new(sender: FrameSender) -> Self {
        let credits = Semaphore::new(sender.peer().credits as usize);
        Self {
            sender,
            slots: RefCell::default(),
            credits,
            streams: RefCell::default(),
            next_stream: Cell::new(1),
            armed: Cell::new(None),
            poke: Signal::default(),
        }
    }

    pub(super) fn peer(&self) -> &Hello {
        self.sender.peer()
    }

    pub(super) const fn sender(&self) -> &FrameSender {
        &self.sender
    }

    pub(super) const fn slots(&self) -> &RefCell<Slots> {
        &self.slots
    }

    pub(super) const fn credits(&self) -> &Semaphore {
        &self.credits
    }

    pub(super) const fn poke(&self) -> &Signal {
        &self.poke
    }

    pub(super) const fn armed(&self) -> &Cell<Option<Instant>> {
        &self.armed
    }

    /// Makes sure that the expiry task looks no later than `deadline`. Calls of equal timeout find
    /// it armed, so it is poked about once per timeout and not once per call.
    pub(super) fn watch(&self, deadline: Instant) {
        if self.armed.get().is_none_or(|at| at > deadline) {
            self.armed.set(Some(deadline));
            self.poke.raise();
        }
    }

    /// Registers a stream.
    pub(super) fn add_stream(&self, replies: mpsc::Sender<Frame>) -> u64 {
        let id = self.next_stream.get();
        self.next_stream.set(id + 1);
        if self.sender.cause().is_none() {
            self.streams.borrow_mut().insert(id, replies);
        }
        id
    }

    /// Forgets a stream: its receiver ends.
    pub(super) fn remove_stream(&self, id: u64) {
        let removed = self.streams.borrow_mut().remove(&id);
        drop(removed);
    }

    /// Hands a reply to whom it belongs.
    pub(super) fn deliver(&self, frame: Frame) -> Result<(), TransportError> {
        if frame.header.kind != FrameKind::Reply {
            return Err(TransportError::UnexpectedFrame {
                kind: frame.header.kind,
            });
        }
        let matched = match decode(frame.header.request_id) {
            Target::Call(id) => self.slots.borrow_mut().complete(id, frame),
            Target::Stream(id) => self.deliver_to_stream(id, frame),
        };
        if !matched {
            count(|metrics| metrics.replies_unmatched.bump());
        }
        Ok(())
    }

    fn deliver_to_stream(&self, id: u64, frame: Frame) -> bool {
        let mut streams = self.streams.borrow_mut();
        let Some(replies) = streams.get(&id) else {
            return false;
        };
        let taken = replies.try_send(frame).is_ok();
        if !taken {
            tracing::debug!(stream = id, "more replies than its window: stream ended");
            streams.remove(&id);
        }
        taken
    }

    /// The connection is gone: wakes the calls and ends the streams.
    pub(super) fn end(&self) {
        self.slots.borrow_mut().wake_all();
        let streams = self.streams.take();
        drop(streams);
        self.poke.raise();
    }
}
