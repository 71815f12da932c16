//! What all RDMA connections of an executor share, and the task that drives it.
//!
//! *Place*: over `ogee_rdma`; wires and listeners hold it. *Owner*: one per executor, made at the first use; it ends with
//! the executor.
//!
//! *Invariants*: the receive queue is full between two turns; what is granted to peers is never more than it
//! holds. Completions are handed out before events of connections, so what a peer sent before it left comes
//! before its leaving. The pump takes bounded turns, and lets other tasks run between them.
//!
//! *On failure*: what breaks the port (its completion queue, its descriptors) ends all its wires.

use super::fault::{unable, unable_to_open};
use super::limit::{
    BODY_LEN, DEPTH, GRANT_MAX, GRANT_MIN, GRANT_SHARE, HEAD_LEN, HEADS_SENT, LARGE_LEN,
    LOOK_AT_EVENTS, TURN,
};
use super::mailbox::Mailbox;
use super::options::{RdmaOptions, configured};
use super::wire::Wire;
use crate::error::{Doing, TransportError};
use ogee_rdma::{
    Channel, Completion, Domain, Done, IdKey, PairNumber, Piece, Rail, RailLimits, Slab,
};
use ogee_runtime::{Instant, Readiness, now, spawn, yield_now};
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::os::fd::AsFd;
use std::rc::{Rc, Weak};

thread_local! {
    static PORT: RefCell<Weak<Port>> = const { RefCell::new(Weak::new()) };
}

/// What all RDMA connections of an executor share.
pub(super) struct Port {
    pub(super) channel: Channel,
    pub(super) rail: Rail,
    heads: Slab,
    bodies: Slab,
    larges: Slab,
    options: RdmaOptions,
    wires: RefCell<HashMap<PairNumber, Weak<Wire>>>,
    mailboxes: RefCell<HashMap<IdKey, Rc<Mailbox>>>,
    /// Receive buffers that no peer was granted.
    ungranted: Cell<u32>,
    /// Who waits for a piece.
    waiting: RefCell<Vec<Weak<Wire>>>,
    broken: OnceCell<TransportError>,
}

impl Port {
    /// This executor's.
    pub(super) fn get(doing: Doing) -> Result<Rc<Self>, TransportError> {
        let present = PORT.with_borrow(Weak::upgrade);
        if let Some(port) = present.filter(|port| port.broken.get().is_none()) {
            return Ok(port);
        }
        let port = Rc::new(Self::open().map_err(unable_to_open)?);
        let descriptors = [port.rail.as_fd(), port.channel.as_fd()];
        let readiness =
            Readiness::new(&descriptors).map_err(|error| TransportError::io(doing, &error))?;
        PORT.set(Rc::downgrade(&port));
        drop(spawn(run(Rc::clone(&port), readiness)));
        Ok(port)
    }

    fn open() -> Result<Self, ogee_rdma::RdmaError> {
        let options = configured();
        let domain = Domain::open(options.device.as_deref())?;
        let limits = RailLimits {
            sends: options.connections_max * DEPTH,
            receives: options.receives,
        };
        tracing::debug!(device = domain.device(), ?options, "RDMA port opened");
        Ok(Self {
            channel: Channel::new()?,
            rail: Rail::new(&domain, limits)?,
            heads: Slab::register(&domain, HEAD_LEN, options.receives + HEADS_SENT)?,
            bodies: Slab::register(&domain, BODY_LEN, 2 * options.receives)?,
            larges: Slab::register(&domain, LARGE_LEN, options.larges)?,
            wires: RefCell::default(),
            mailboxes: RefCell::default(),
            ungranted: Cell::new(options.receives),
            waiting: RefCell::default(),
            broken: OnceCell::new(),
            options,
        })
    }

    /// A mailbox for the events of an id.
    pub(super) fn open_mailbox(&self, key: IdKey) -> Rc<Mailbox> {
        let mailbox = Rc::new(Mailbox::default());
        let opened = Rc::clone(&mailbox);
        self.mailboxes.borrow_mut().insert(key, opened);
        mailbox
    }

    /// No more events of it are wanted.
    pub(super) fn close_mailbox(&self, key: IdKey) {
        let closed = self.mailboxes.borrow_mut().remove(&key);
        drop(closed);
    }

    pub(super) fn add_wire(&self, number: PairNumber, wire: &Rc<Wire>) {
        self.wires.borrow_mut().insert(number, Rc::downgrade(wire));
    }

    pub(super) fn remove_wire(&self, number: PairNumber, grant: u32) {
        self.wires.borrow_mut().remove(&number);
        self.ungranted.set(self.ungranted.get() + grant);
    }

    /// Receive buffers for a new connection, if there are enough.
    pub(super) fn grant(&self) -> Option<u32> {
        let left = self.ungranted.get();
        let grant = (left / GRANT_SHARE).clamp(GRANT_MIN, GRANT_MAX);
        self.ungranted.set(left.checked_sub(grant)?);
        Some(grant)
    }

    pub(super) fn take_back(&self, grant: u32) {
        self.ungranted.set(self.ungranted.get() + grant);
    }

    /// For a message.
    pub(super) fn head(&self) -> Option<Piece> {
        self.heads.take()
    }

    /// For the body of a message; what the receive queue lives on is left.
    pub(super) fn body(&self) -> Option<Piece> {
        (self.bodies.free() > self.options.receives as usize / 8)
            .then(|| self.bodies.take())
            .flatten()
    }

    /// Whether a body may stay where it arrived.
    pub(super) fn may_keep_body(&self) -> bool {
        self.bodies.free() > self.options.receives as usize / 4
    }

    /// To be lent. At most half of them are: with the others what peers lend can be read, so that two who
    /// lend to each other cannot wait for each other.
    pub(super) fn large_to_lend(&self) -> Option<Piece> {
        (self.larges.free() > self.options.larges as usize / 2)
            .then(|| self.larges.take())
            .flatten()
    }

    /// To be read into, or written from.
    pub(super) fn large(&self) -> Option<Piece> {
        self.larges.take()
    }

    /// Whether a large payload may stay where it arrived.
    pub(super) fn may_keep_large(&self) -> bool {
        self.larges.free() >= self.options.larges as usize / 4
    }

    /// `wire` wants to hear of the next piece that comes back.
    pub(super) fn wait_for_piece(&self, wire: &Rc<Wire>) {
        self.waiting.borrow_mut().push(Rc::downgrade(wire));
    }

    pub(super) fn piece_came_back(&self) {
        let waiting = self.waiting.take();
        for wire in waiting.iter().filter_map(Weak::upgrade) {
            wire.stopped_waiting();
        }
    }

    fn turn(&self, found: &mut Vec<Completion>) -> Result<bool, TransportError> {
        self.rail
            .poll(found, TURN)
            .map_err(|error| unable(Doing::Read, error))?;
        let any = !found.is_empty();
        for completion in found.drain(..) {
            self.hand_out(completion);
        }
        if any {
            self.piece_came_back();
        }
        self.offer();
        Ok(any)
    }

    fn hand_out(&self, completion: Completion) {
        let wire = self
            .wires
            .borrow()
            .get(&completion.pair)
            .and_then(Weak::upgrade);
        let Some(wire) = wire else { return };
        match (completion.outcome, completion.done) {
            (Ok(()), Done::Received { head, rest, len }) => wire.received(&head, rest, len),
            (Ok(()), done) => wire.done(completion.token, done),
            (Err(error), done) => wire.failed(completion.token, &done, error),
        }
    }

    /// Fills the receive queue.
    fn offer(&self) {
        while self.rail.receives() < self.options.receives as usize {
            let (Some(head), Some(body)) = (self.heads.take(), self.bodies.take()) else {
                return;
            };
            if let Err(failed) = self.rail.receive(head, HEAD_LEN, Some(body)) {
                tracing::warn!(error = %failed.error, "no receive buffer can be offered");
                return;
            }
        }
    }

    /// Hands out events of connections, and before them what had completed until they came: so what a peer
    /// sent before it left comes before its leaving.
    fn events(&self, found: &mut Vec<Completion>) -> Result<bool, TransportError> {
        let mut events = Vec::new();
        while let Some(event) = self
            .channel
            .next()
            .map_err(|error| unable(Doing::Accept, error))?
        {
            events.push(event);
        }
        if events.is_empty() {
            return Ok(false);
        }
        while self.turn(found)? {}
        for event in events {
            let mailbox = self.mailboxes.borrow().get(&event.id).cloned();
            // Of a request, dropping refuses it.
            if let Some(mailbox) = mailbox {
                mailbox.take(event);
            }
        }
        Ok(true)
    }

    fn fail(&self, cause: &TransportError) {
        let _ = self.broken.set(cause.clone());
        let wires: Vec<_> = self
            .wires
            .borrow()
            .values()
            .filter_map(Weak::upgrade)
            .collect();
        for wire in wires {
            wire.end(cause.clone());
        }
    }
}

/// The pump.
async fn run(port: Rc<Port>, mut readiness: Readiness) {
    if let Err(cause) = pump(&port, &mut readiness).await {
        tracing::warn!(error = %cause, "RDMA port broken: its connections end");
        port.fail(&cause);
    }
}

async fn pump(port: &Port, readiness: &mut Readiness) -> Result<(), TransportError> {
    let mut found = Vec::with_capacity(2 * TURN);
    let (mut busy_until, mut next_look) = (now(), now());
    port.offer();
    loop {
        let at = now();
        if port.turn(&mut found)? {
            busy_until = at + port.options.spin;
        }
        if at >= next_look {
            next_look = at + LOOK_AT_EVENTS;
            port.events(&mut found)?;
        }
        if port.options.busy_poll || at < busy_until {
            yield_now().await;
        } else {
            rest(port, &mut found, readiness).await?;
            (busy_until, next_look) = (now() + port.options.spin, Instant::min(next_look, now()));
        }
    }
}

/// Sleeps until something comes.
async fn rest(
    port: &Port,
    found: &mut Vec<Completion>,
    readiness: &mut Readiness,
) -> Result<(), TransportError> {
    port.rail
        .arm()
        .map_err(|error| unable(Doing::Read, error))?;
    // What came before it was armed does not make it readable.
    if port.turn(found)? || port.events(found)? {
        return Ok(());
    }
    let changed = readiness.changed().await;
    changed.map_err(|error| TransportError::io(Doing::Read, &error))?;
    port.rail.clear();
    Ok(())
}
