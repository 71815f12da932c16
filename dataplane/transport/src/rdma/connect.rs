//! Making connections: from the first packet to the first frame.
//!
//! *Place*: under `connection` and `listener`. *Owner*: the task that connects or accepts. *Invariants*: nothing of
//! a peer counts before its offer was checked; each side takes nothing but a Hello first. Whatever is given up on the
//! way gives back its receive buffers and its mailbox. *On failure*: nothing of the attempt remains; a peer that is
//! refused is told why.

use super::fault::{RdmaFault, unable};
use super::limit::{
    ACK_TIMEOUT, BACKLOG, BIND_AGAIN, DEPTH, PING_AFTER, READS, RECEIVER_RETRIES, RESOLVE, RETRIES,
    SILENT_AFTER,
};
use super::mailbox::Mailbox;
use super::offer::{Offer, Reason};
use super::port::Port;
use super::wire::Wire;
use crate::error::{Doing, TransportError};
use crate::hello::Hello;
use crate::limit::HELLO_META_MAX;
use crate::metrics::count;
use crate::options::{ConnectionOptions, Keepalive};
use ogee_proto::wire::{FrameKind, WireError};
use ogee_rdma::{ConnectParams, Event, EventKind, Id, IdKey, Pair};
use ogee_runtime::{sleep, timeout};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::task::Poll;

/// Nobody listens there: the connection manager's own refusal, "invalid service id".
const REFUSED_NO_SERVICE: i32 = 8;

/// Takes connections at one address.
pub(crate) struct RdmaListener {
    /// Not there while the device is gone: whatever is held of that keeps its driver from going.
    bound: Option<Bound>,
    address: SocketAddr,
}

/// What listens.
struct Bound {
    port: Rc<Port>,
    id: Id,
    mailbox: Rc<Mailbox>,
}

/// A connection that somebody asks for.
pub(crate) struct Request {
    port: Rc<Port>,
    id: Id,
    offer: Vec<u8>,
}

/// An id with its mailbox, which goes with it.
struct Addressed {
    port: Rc<Port>,
    mailbox: Rc<Mailbox>,
    key: IdKey,
    grant: Option<u32>,
}

impl Addressed {
    fn new(port: &Rc<Port>, key: IdKey) -> Result<Self, TransportError> {
        let grant = port.grants.take();
        Ok(Self {
            port: Rc::clone(port),
            mailbox: port.open_mailbox(key),
            key,
            grant: Some(grant.ok_or(TransportError::Rdma(RdmaFault::Busy))?),
        })
    }

    fn granted(&self) -> u32 {
        self.grant.unwrap_or_default()
    }

    /// Turns it into a wire, which gives back what it has.
    fn into_wire(mut self, peer: Option<SocketAddr>, pair: Pair) -> (Rc<Wire>, Rc<Mailbox>) {
        let grant = self.grant.take().unwrap_or_default();
        let wire = Wire::new(Rc::clone(&self.port), peer, pair, grant);
        self.mailbox.connect(&wire);
        (wire, Rc::clone(&self.mailbox))
    }
}

impl Drop for Addressed {
    fn drop(&mut self) {
        if let Some(grant) = self.grant.take() {
            self.port.grants.give_back(grant);
            self.port.close_mailbox(self.key);
        }
    }
}

impl RdmaListener {
    pub(crate) fn bind(mut address: SocketAddr) -> Result<Self, TransportError> {
        let local = Some(address.ip()).filter(|ip| !ip.is_unspecified());
        let port = Port::get(Doing::Bind, local)?;
        let failed = |error| unable(Doing::Bind, error);
        let id = port.new_id().map_err(failed)?;
        let mailbox = port.open_mailbox(id.key());
        let bound = Bound { port, id, mailbox };
        let port = bound.id.listen(address, BACKLOG).map_err(failed)?;
        address.set_port(port);
        Ok(Self {
            bound: Some(bound),
            address,
        })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next one that asks.
    pub(crate) async fn accept(&mut self) -> Request {
        loop {
            let Some(bound) = &self.bound else {
                self.bind_again().await;
                continue;
            };
            let Some(Event { kind, data, .. }) = bound.mailbox.next().await else {
                let error = bound.port.why_broken();
                let address = self.address;
                tracing::warn!(%address, %error, "RDMA does not listen: waiting for the device");
                self.bound = None;
                continue;
            };
            if let EventKind::Request(id) = kind {
                return Request {
                    port: Rc::clone(&bound.port),
                    id,
                    offer: data,
                };
            }
        }
    }

    /// Listens at the same address as soon as the device is there again. What was published stays true then.
    async fn bind_again(&mut self) {
        let address = self.address;
        loop {
            sleep(BIND_AGAIN).await;
            match Self::bind(address) {
                Ok(listener) => {
                    *self = listener;
                    tracing::info!(%address, "RDMA listens again");
                    return;
                }
                Err(error) => tracing::debug!(%address, %error, "cannot listen yet"),
            }
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.port.close_mailbox(self.id.key());
    }
}

/// Connects to `address`, within `limit`.
pub(crate) async fn connect(
    address: SocketAddr,
    limit: std::time::Duration,
) -> Result<Rc<Wire>, TransportError> {
    let elapsed = TransportError::HandshakeTimeout { limit };
    timeout(limit, open(address)).await.unwrap_or(Err(elapsed))
}

async fn open(address: SocketAddr) -> Result<Rc<Wire>, TransportError> {
    let doing = Doing::Connect;
    let cannot = |error| unable(doing, error);
    let port = Port::get(doing, local_towards(address))?;
    let id = port.new_id().map_err(cannot)?;
    let addressed = Addressed::new(&port, id.key())?;
    id.resolve(address, RESOLVE).map_err(cannot)?;
    expect(&port, &addressed.mailbox, |kind| {
        matches!(kind, EventKind::AddressResolved)
    })
    .await?;
    // Older kernels do not know it: then the device's own stands.
    if let Err(error) = id.set_ack_timeout(ACK_TIMEOUT) {
        tracing::debug!(%error, "acknowledgement timeout");
    }
    id.resolve_route(RESOLVE).map_err(cannot)?;
    expect(&port, &addressed.mailbox, |kind| {
        matches!(kind, EventKind::RouteResolved)
    })
    .await?;
    let granted = addressed.granted();
    let pair = Pair::new(&port.rail, id, DEPTH).map_err(|failed| cannot(failed.error))?;
    let (wire, mailbox) = addressed.into_wire(Some(address), pair);
    connected(&wire, |pair| pair.connect(&params(granted)))?;
    let answer = expect(&port, &mailbox, |kind| {
        matches!(kind, EventKind::Established)
    })
    .await?;
    let offer = Offer::decode(&answer.data)?;
    offer.check()?;
    offer.check_credits()?;
    wire.granted(offer.receives.into(), offer.body_len as usize);
    Ok(wire)
}

/// The address that this host has on the way to `address`. Nothing is sent.
fn local_towards(address: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(address).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn params(granted: u32) -> ConnectParams {
    ConnectParams {
        reads: READS,
        retries: RETRIES,
        receiver_retries: RECEIVER_RETRIES,
        data: Offer::ours(granted).encode(),
    }
}

fn connected(
    wire: &Wire,
    connect: impl FnOnce(&Pair) -> Result<(), ogee_rdma::RdmaError>,
) -> Result<(), TransportError> {
    match &wire.state.borrow().pair {
        Some(pair) => connect(pair).map_err(|error| unable(Doing::Connect, error)),
        None => Err(TransportError::Closed),
    }
}

/// The next event, which is to be that one.
async fn expect(
    port: &Port,
    mailbox: &Mailbox,
    is_it: impl Fn(&EventKind) -> bool,
) -> Result<Event, TransportError> {
    let Some(event) = mailbox.next().await else {
        return Err(port.why_broken());
    };
    if is_it(&event.kind) {
        return Ok(event);
    }
    Err(refused(&event))
}

/// Why it could not be connected.
fn refused(event: &Event) -> TransportError {
    let kind = match event.kind {
        EventKind::Rejected if event.status == REFUSED_NO_SERVICE => {
            io::ErrorKind::ConnectionRefused
        }
        EventKind::Rejected => return reason(&event.data),
        EventKind::AddressError | EventKind::RouteError | EventKind::Unreachable => {
            io::ErrorKind::HostUnreachable
        }
        EventKind::Disconnected => return TransportError::PeerClosed,
        _ => io::ErrorKind::ConnectionAborted,
    };
    tracing::debug!(?event, "not connected");
    TransportError::io(Doing::Connect, &kind.into())
}

/// Why the peer refuses, by its own words.
fn reason(data: &[u8]) -> TransportError {
    let Ok(offer) = Offer::decode(data) else {
        // It dropped the request: too many connections, or it is ending.
        return TransportError::PeerClosed;
    };
    match offer.check() {
        Err(error) => error,
        Ok(()) if offer.reason == Reason::Busy as u16 => TransportError::Rdma(RdmaFault::Busy),
        Ok(()) => TransportError::PeerClosed,
    }
}

impl Request {
    /// Accepts, if the peer's offer is good, within `limit`.
    pub(crate) async fn accept(
        self,
        limit: std::time::Duration,
    ) -> Result<Rc<Wire>, TransportError> {
        let elapsed = TransportError::HandshakeTimeout { limit };
        timeout(limit, self.answer()).await.unwrap_or(Err(elapsed))
    }

    async fn answer(self) -> Result<Rc<Wire>, TransportError> {
        let Self { port, id, offer } = self;
        let offer = Offer::decode(&offer).and_then(|offer| {
            offer.check()?;
            offer.check_credits()?;
            Ok(offer)
        });
        let offer = match offer {
            Ok(offer) => offer,
            Err(error) => {
                tracing::warn!(%error, "peer refused");
                return Err(refuse(id, Reason::Version, error));
            }
        };
        let addressed = match Addressed::new(&port, id.key()) {
            Ok(addressed) => addressed,
            Err(error) => return Err(refuse(id, Reason::Busy, error)),
        };
        if let Err(error) = id.set_ack_timeout(ACK_TIMEOUT) {
            tracing::debug!(%error, "acknowledgement timeout");
        }
        let granted = addressed.granted();
        let pair = match Pair::new(&port.rail, id, DEPTH) {
            Ok(pair) => pair,
            Err(failed) => {
                let error = unable(Doing::Accept, failed.error);
                return Err(refuse(failed.back, Reason::Busy, error));
            }
        };
        let (wire, mailbox) = addressed.into_wire(None, pair);
        wire.granted(offer.receives.into(), offer.body_len as usize);
        connected(&wire, |pair| pair.accept(&params(granted)))?;
        expect(&port, &mailbox, |kind| {
            matches!(kind, EventKind::Established)
        })
        .await?;
        Ok(wire)
    }
}

fn refuse(id: Id, reason: Reason, error: TransportError) -> TransportError {
    // It may have gone meanwhile.
    let _ = id.reject(&Offer::refusal(reason).encode());
    error
}

/// Says `ours` and hears the peer's Hello, within `limit`.
pub(crate) async fn exchange(
    wire: &Rc<Wire>,
    ours: &Hello,
    limit: std::time::Duration,
) -> Result<Hello, TransportError> {
    let mut say = Some(ours.encode());
    let both = poll_fn(|cx| {
        wire.register(cx);
        if let Err(error) = wire.progress(&mut || say.take()) {
            return Poll::Ready(Err(error));
        }
        match wire.next_frame() {
            Ok(Some(frame)) => Poll::Ready(Ok(frame)),
            Ok(None) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    });
    let elapsed = TransportError::HandshakeTimeout { limit };
    let frame = timeout(limit, both).await.unwrap_or(Err(elapsed))?;
    let kind = frame.header.kind;
    if kind != FrameKind::Hello {
        return Err(TransportError::UnexpectedFrame { kind });
    }
    let (field, value, limit) = ("hello", frame.header.body_len(), HELLO_META_MAX);
    if value > limit {
        return Err(WireError::Length {
            field,
            value,
            limit,
        }
        .into());
    }
    count(|metrics| metrics.frames_in.bump());
    Ok(Hello::decode(&frame.meta)?)
}

/// What is configured; whoever takes the transport's silence gets the shorter one of RDMA.
pub(crate) fn options(mut options: ConnectionOptions) -> ConnectionOptions {
    let keepalive = options.keepalive;
    if keepalive.silent_after() == crate::limit::SILENT_AFTER {
        let ping_after = keepalive.ping_after().min(PING_AFTER);
        options.keepalive = Keepalive::new(ping_after, SILENT_AFTER);
    }
    options
}
