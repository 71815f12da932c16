//! What all RDMA connections of an executor share, and the task that drives it.
//!
//! *Place*: over `ogee_rdma`; wires and listeners hold it. *Owner*: one per executor and device, made at the first use;
//! it ends with the executor.
//!
//! *Invariants*: the receive queue is full between two turns; what is granted to peers is never more than it
//! holds. Completions are handed out before events of connections, so what a peer sent before it left comes
//! before its leaving. The pump takes bounded turns, and lets other tasks run between them.
//!
//! *On failure*: what breaks the port (its completion queue, its descriptors) ends all its wires.

use super::areas::Areas;
use super::fault::{RdmaFault, Trouble, unable, unable_to_open};
use super::grants::Grants;
use super::late::Late;
use super::limit::{
    ADDRESSES_MAX, BODY_LEN, DEPTH, HEAD_LEN, HEADS_SENT, LARGE_LEN, LOOK_AT_DEVICE,
    LOOK_AT_EVENTS, MEDIUM_LEN, TURN,
};
use super::mailbox::Mailbox;
use super::options::configured;
use super::wire::Wire;
use crate::error::{Doing, TransportError};
use crate::options::RdmaOptions;
use ogee_rdma::{
    AsyncEvent, Channel, Completion, Domain, Done, EventKind, Id, IdKey, PairNumber, Piece, Rail,
    RailLimits, Slab, Tell, Watch, device_with,
};
use ogee_runtime::transfer::{self, Provided};
use ogee_runtime::{Readiness, now, spawn, yield_now};
use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;

/// Of what the pump sleeps on, by their places.
const COMPLETIONS: u32 = 1;
const EVENTS: u32 = 2;
const DEVICE: u32 = 4 | 8;

thread_local! {
    /// Which device has an address: the kernel tells by a file for each of a thousand GIDs.
    static DEVICES: RefCell<HashMap<IpAddr, String>> = RefCell::default();
    /// By device.
    static PORTS: RefCell<HashMap<Arc<str>, Weak<Port>>> = RefCell::default();
}

/// What all RDMA connections of an executor share.
pub(super) struct Port {
    pub(super) channel: Channel,
    pub(super) rail: Rail,
    domain: Domain,
    watch: Watch,
    device: Arc<str>,
    heads: Slab,
    bodies: Slab,
    mediums: Slab,
    larges: Slab,
    /// Before what it is of.
    pub(super) areas: Areas,
    /// What devices are read into, here.
    _transfers: Provided,
    options: RdmaOptions,
    wires: RefCell<HashMap<PairNumber, Weak<Wire>>>,
    mailboxes: RefCell<HashMap<IdKey, Rc<Mailbox>>>,
    pub(super) grants: Grants,
    pub(super) late: Late,
    /// Who waits for a piece.
    waiting: RefCell<Vec<Weak<Wire>>>,
    broken: OnceCell<TransportError>,
}

impl Port {
    /// This executor's, on the device that has the address `local`, unless another one is set.
    pub(super) fn get(doing: Doing, local: Option<IpAddr>) -> Result<Rc<Self>, TransportError> {
        let options = configured();
        let device = options.device.clone().or_else(|| local.and_then(device_of));
        if let Some(port) = Self::present(device.as_deref()) {
            return Ok(port);
        }
        let port = Self::open(device.as_deref(), options).map_err(unable_to_open)?;
        let port = Rc::new(port);
        let [events, told] = port.watch.descriptors();
        let descriptors = [port.rail.as_fd(), port.channel.as_fd(), events, told];
        let readiness =
            Readiness::new(&descriptors).map_err(|error| TransportError::io(doing, &error))?;
        let device = Arc::clone(&port.device);
        PORTS.with_borrow_mut(|ports| ports.insert(device, Rc::downgrade(&port)));
        drop(spawn(run(Rc::clone(&port), readiness)));
        Ok(port)
    }

    /// One that is open and works: on that device, or on any.
    fn present(device: Option<&str>) -> Option<Rc<Self>> {
        PORTS.with_borrow(|ports| {
            let mut open = ports.values().filter_map(Weak::upgrade);
            open.find(|port| {
                let is_it = device.is_none_or(|device| device == &*port.device);
                is_it && port.broken.get().is_none()
            })
        })
    }

    fn open(device: Option<&str>, options: RdmaOptions) -> Result<Self, ogee_rdma::RdmaError> {
        let domain = Domain::open(device)?;
        let limits = RailLimits {
            sends: options.connections_max * DEPTH,
            receives: options.receives,
        };
        tracing::debug!(device = domain.device(), ?options, "RDMA port opened");
        let transfers = transfer::provide(options.transfers());
        Ok(Self {
            channel: Channel::new()?,
            rail: Rail::new(&domain, limits)?,
            watch: Watch::new(&domain)?,
            device: domain.device().into(),
            heads: Slab::register(&domain, HEAD_LEN, options.receives + HEADS_SENT)?,
            bodies: Slab::register(&domain, BODY_LEN, 2 * options.receives)?,
            mediums: Slab::register(&domain, MEDIUM_LEN, options.mediums)?,
            larges: Slab::register(&domain, LARGE_LEN, options.larges)?,
            areas: Areas::new(&domain, options.registered_max),
            _transfers: transfers,
            wires: RefCell::default(),
            mailboxes: RefCell::default(),
            grants: Grants::new(options.receives, options.connections_max),
            late: Late::default(),
            domain,
            waiting: RefCell::default(),
            broken: OnceCell::new(),
            options,
        })
    }

    /// An id of this port's.
    pub(super) fn new_id(&self) -> Result<Id, ogee_rdma::RdmaError> {
        let id = Id::new(&self.channel)?;
        if let Some(class) = self.options.traffic_class {
            id.set_traffic_class(class)?;
        }
        Ok(id)
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
        self.grants.give_back(grant);
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

    /// Whether memory of small messages is wanted back soon. If not, the hardware tells of them seldom; all that silent
    /// ones can hold is then half of the heads for messages and a quarter of the bodies, however many connections there are.
    pub(super) fn tell(&self) -> Tell {
        let heads = self.heads.free() >= HEADS_SENT as usize / 2;
        let bodies = self.bodies.free() >= self.options.receives as usize * 3 / 4;
        if heads && bodies {
            Tell::Later
        } else {
            Tell::Last
        }
    }

    /// Whether a body may stay where it arrived.
    pub(super) fn may_keep_body(&self) -> bool {
        self.bodies.free() > self.options.receives as usize / 4
    }

    /// Of `len` bytes or more, to be lent. At most half of them are: with the others what peers lend can be read, so
    /// that two who lend to each other cannot wait for each other.
    pub(super) fn large_to_lend(&self, len: usize) -> Option<Piece> {
        let mut slabs = self.large_slabs(len);
        slabs.find_map(|(slab, count)| (slab.free() > count / 2).then(|| slab.take()).flatten())
    }

    /// Of `len` bytes or more, to be read into, or written from.
    pub(super) fn large(&self, len: usize) -> Option<Piece> {
        let mut slabs = self.large_slabs(len);
        slabs.find_map(|(slab, _)| slab.take())
    }

    /// Whether a large payload may stay where it arrived.
    pub(super) fn may_keep_large(&self, piece: &Piece) -> bool {
        let mut slabs = self.large_slabs(piece.len());
        slabs
            .next()
            .is_some_and(|(slab, count)| slab.free() >= count / 4)
    }

    /// Those whose pieces are long enough, the shorter ones first.
    fn large_slabs(&self, len: usize) -> impl Iterator<Item = (&Slab, usize)> {
        let mediums = (&self.mediums, self.options.mediums as usize);
        let larges = (&self.larges, self.options.larges as usize);
        let fits = len <= MEDIUM_LEN;
        fits.then_some(mediums).into_iter().chain([larges])
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
        let Some(wire) = self.wire(completion.pair) else {
            return;
        };
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
            if matches!(event.kind, EventKind::DeviceRemoval) {
                // It is let go of with the last that is held of this port, and of those of other executors.
                self.domain.gone();
                return Err(self.trouble(Trouble::DeviceLost));
            }
            let mailbox = self.mailboxes.borrow().get(&event.id).cloned();
            // Of a request, dropping refuses it.
            if let Some(mailbox) = mailbox {
                mailbox.take(event);
            }
        }
        Ok(true)
    }

    /// Looks what the device tells of itself. What breaks all of it is the error; what breaks connections ends those.
    fn device_events(&self) -> Result<(), TransportError> {
        while let Some(event) = self
            .watch
            .next()
            .map_err(|error| unable(Doing::Read, error))?
        {
            match event.what {
                AsyncEvent::DeviceFatal => return Err(self.trouble(Trouble::DeviceLost)),
                AsyncEvent::DeviceRemoved => {
                    // Or it was one that had this name before.
                    if self.domain.is_gone() {
                        return Err(self.trouble(Trouble::DeviceLost));
                    }
                }
                AsyncEvent::CompletionQueueError | AsyncEvent::ReceiveQueueError => {
                    if self.rail.has_queue_of(&event) {
                        return Err(self.trouble(Trouble::QueueBroken));
                    }
                }
                AsyncEvent::PortDown => {
                    let cause = self.trouble(Trouble::PortDown { port: event.port() });
                    tracing::warn!(error = %cause, "RDMA connections end");
                    self.end_all(&cause, |wire| wire.is_on(event.port()));
                }
                AsyncEvent::PairError => {
                    let number = self.rail.pair_of(&event);
                    if let Some(wire) = number.and_then(|number| self.wire(number)) {
                        wire.end(self.trouble(Trouble::PairBroken));
                    }
                }
                AsyncEvent::PortActive | AsyncEvent::AddressChange | AsyncEvent::Other(_) => {
                    forget_devices();
                    tracing::debug!(device = %self.device, ?event, "RDMA device");
                }
            }
        }
        Ok(())
    }

    fn trouble(&self, trouble: Trouble) -> TransportError {
        let device = Arc::clone(&self.device);
        TransportError::Rdma(RdmaFault::Device { device, trouble })
    }

    fn wire(&self, number: PairNumber) -> Option<Rc<Wire>> {
        self.wires.borrow().get(&number).and_then(Weak::upgrade)
    }

    /// Why it is of no more use.
    pub(super) fn why_broken(&self) -> TransportError {
        let cause = self.broken.get().cloned();
        cause.unwrap_or(TransportError::Closed)
    }

    /// Ends those that are affected.
    fn end_all(&self, cause: &TransportError, is_affected: impl Fn(&Wire) -> bool) {
        let wires: Vec<_> = self
            .wires
            .borrow()
            .values()
            .filter_map(Weak::upgrade)
            .collect();
        for wire in wires.iter().filter(|wire| is_affected(wire)) {
            wire.end(cause.clone());
        }
    }

    fn fail(&self, cause: &TransportError) {
        let _ = self.broken.set(cause.clone());
        forget_devices();
        self.end_all(cause, |_| true);
        let mailboxes: Vec<_> = self.mailboxes.borrow().values().cloned().collect();
        for mailbox in mailboxes {
            mailbox.close();
        }
    }
}

/// The device that has an address, looked up once.
fn device_of(address: IpAddr) -> Option<String> {
    let known = DEVICES.with_borrow(|devices| devices.get(&address).cloned());
    if known.is_some() {
        return known;
    }
    // That there is none is not remembered: one may come.
    let device = device_with(address)?;
    DEVICES.with_borrow_mut(|devices| {
        if devices.len() >= ADDRESSES_MAX {
            devices.clear();
        }
        devices.insert(address, device.clone());
    });
    Some(device)
}

/// Addresses have moved, or may have.
fn forget_devices() {
    DEVICES.with_borrow_mut(HashMap::clear);
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
    let (mut busy_until, mut next_look, mut next_device) = (now(), now(), now());
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
        if at >= next_device {
            next_device = at + LOOK_AT_DEVICE;
            port.device_events()?;
        }
        if port.options.busy_poll || at < busy_until {
            yield_now().await;
        } else {
            let changed = rest(port, &mut found, readiness).await?;
            let woken = now();
            busy_until = woken + port.options.spin;
            // What did not wake it need not be looked at: that is a system call.
            if changed & EVENTS != 0 {
                next_look = woken;
            } else if changed != 0 {
                next_look = woken + LOOK_AT_EVENTS;
            }
        }
    }
}

/// Sleeps until something comes; what.
async fn rest(
    port: &Port,
    found: &mut Vec<Completion>,
    readiness: &mut Readiness,
) -> Result<u32, TransportError> {
    port.rail
        .arm()
        .map_err(|error| unable(Doing::Read, error))?;
    // What came before it was armed does not make it readable.
    if port.turn(found)? {
        return Ok(0);
    }
    let changed = readiness.changed().await;
    let changed = changed.map_err(|error| TransportError::io(Doing::Read, &error))?;
    if changed & COMPLETIONS != 0 {
        port.rail.clear();
    }
    if changed & DEVICE != 0 {
        port.device_events()?;
    }
    Ok(changed)
}
