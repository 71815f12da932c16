//! The network of a world: streams between simulated hosts.
//!
//! **Place.** Under `crate::net`. **Owner.** The world knows listeners, links and connections; a
//! connection is shared by its ends and by what is under way on it.
//!
//! **Invariants.** Bytes of a connection arrive in order and whole, as TCP's do, unless a [`Tamper`]
//! says otherwise; a read may return fewer than are there, as the seed wills. A direction holds at
//! most [`PIPE_BYTES`]. What crosses a link takes that link's time; while the link is cut it waits,
//! as what TCP sends again and again does. Within one host everything arrives at once.
//!
//! **Failure.** As the system: refused, in use, broken pipe, reset, timed out. A connection can be
//! broken at either end at different moments: what is under way to the other still arrives there.
//! A host without power answers nothing; with power again, it resets what it does not know.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr};
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;

use super::host::{Death, HostId};
use super::timer::{self, Timer};
use super::world::{self, World};
use crate::net::PeerCredentials;
use crate::time::Instant;

/// Bytes in flight and unread per direction.
const PIPE_BYTES: usize = 64 << 10;

/// First port handed out for port 0 and for connecting ends.
const EPHEMERAL_PORT: u16 = 49_152;

/// How long a connect waits for a host that does not answer.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);

/// Simulated hosts have the addresses 10.0.0.0 to 10.0.255.255.
const HOST_NET: [u8; 2] = [10, 0];

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// One direction between two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Shortest time that anything takes.
    pub delay_min: Duration,
    /// Longest.
    pub delay_max: Duration,
    /// Nothing gets through.
    pub is_cut: bool,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            delay_min: Duration::from_micros(20),
            delay_max: Duration::from_micros(200),
            is_cut: false,
        }
    }
}

/// A direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Which connection; never used again.
    pub connection: u64,
    /// Who sends.
    pub from: HostId,
    /// Who receives.
    pub to: HostId,
}

/// Bytes as they go on after tampering.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// What arrives.
    pub bytes: Vec<u8>,
    /// How much later than the link makes it.
    pub extra: Duration,
    /// Whether it waits for everything that was sent before it.
    pub in_order: bool,
}

/// Sees, and may change, what crosses between hosts.
pub trait Tamper {
    /// What becomes of bytes that were written.
    fn tamper(&self, route: Route, bytes: &[u8]) -> Vec<Chunk>;
}

/// What has happened on the links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkCounts {
    /// Pieces that a cut held up.
    pub held: u64,
    /// Ends of connections that were broken on purpose.
    pub broken: u64,
    /// Connects that nobody answered.
    pub unanswered: u64,
    /// Pieces that fell into a host without power.
    pub vanished: u64,
}

/// Who listens where, and who is connected.
#[derive(Default)]
pub(super) struct Network {
    listeners: BTreeMap<Address, Rc<RefCell<Backlog>>>,
    connections: Vec<Weak<Connection>>,
    links: BTreeMap<(HostId, HostId), Link>,
    held: BTreeMap<(HostId, HostId), Vec<Arrival>>,
    tamper: Option<Rc<dyn Tamper>>,
    ports_used: u16,
    connections_made: u64,
    counts: LinkCounts,
}

impl Network {
    fn ephemeral(&mut self, ip: IpAddr) -> SocketAddr {
        let port = EPHEMERAL_PORT + self.ports_used % (u16::MAX - EPHEMERAL_PORT);
        self.ports_used = self.ports_used.wrapping_add(1);
        SocketAddr::new(ip, port)
    }

    fn link(&self, from: HostId, to: HostId) -> Link {
        self.links.get(&(from, to)).copied().unwrap_or_default()
    }

    /// From now on what this host's ends do is not seen by anybody.
    pub(super) fn host_dies(&mut self, host: HostId, death: Death) {
        if death == Death::Power {
            for connection in self.connections.iter().filter_map(Weak::upgrade) {
                for side in connection.sides_of(host) {
                    connection.sides[side].borrow_mut().is_mute = true;
                }
            }
        }
    }

    fn register(&mut self, hosts: [HostId; 2]) -> Rc<Connection> {
        self.connections_made += 1;
        let connection = Rc::new(Connection {
            number: self.connections_made,
            hosts,
            sides: [RefCell::default(), RefCell::default()],
        });
        self.connections.retain(|one| one.strong_count() > 0);
        self.connections.push(Rc::downgrade(&connection));
        connection
    }
}

/// Sets what one direction between two hosts is like; what a cut has held up goes on.
pub fn set_link(from: HostId, to: HostId, link: Link) {
    let world = world::current();
    world.network.borrow_mut().links.insert((from, to), link);
    if link.is_cut {
        return;
    }
    let held = world.network.borrow_mut().held.remove(&(from, to));
    for arrival in held.into_iter().flatten() {
        arrival.depart(&world, Duration::ZERO, true);
    }
}

/// Has everything that crosses between hosts tampered with from now on.
pub fn set_tamper(tamper: Rc<dyn Tamper>) {
    world::current().network.borrow_mut().tamper = Some(tamper);
}

/// Breaks every connection between two hosts: at the ends on the one after one time, at those on the
/// other after another. An end that is broken says nothing more.
pub fn break_connections(one: (HostId, Duration), other: (HostId, Duration)) {
    let world = world::current();
    let connections: Vec<_> = {
        let network = world.network.borrow();
        network
            .connections
            .iter()
            .filter_map(Weak::upgrade)
            .collect()
    };
    for connection in connections {
        for (side, (host, after)) in
            [(one, other), (other, one)]
                .into_iter()
                .filter_map(|((host, after), (peer, _))| {
                    let side = connection.hosts.iter().position(|it| *it == host)?;
                    (connection.hosts[1 - side] == peer).then_some((side, (host, after)))
                })
        {
            debug_assert_eq!(connection.hosts[side], host);
            let arrival = Arrival {
                connection: Rc::clone(&connection),
                to: side,
                what: What::Broken,
            };
            world.add_arrival(world.now() + after, arrival);
        }
    }
}

/// What has happened on the links so far.
pub fn link_counts() -> LinkCounts {
    world::current().network.borrow().counts
}

/// The host that an address names; none: the one that asks.
fn host_at(address: &Address) -> Option<HostId> {
    match address {
        Address::Tcp(address) => match address.ip() {
            IpAddr::V4(ip) => match ip.octets() {
                [a, b, high, low] if [a, b] == HOST_NET => {
                    Some(HostId::new(u32::from(high) << 8 | u32::from(low)))
                }
                _ => None,
            },
            IpAddr::V6(_) => None,
        },
        Address::Unix(_) => None,
    }
}

/// The address of a simulated host.
fn ip_of(host: HostId) -> IpAddr {
    let [_, _, high, low] = host.get().to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(HOST_NET[0], HOST_NET[1], high, low))
}

#[derive(Default)]
struct Backlog {
    arrived: VecDeque<Socket>,
    acceptor: Option<Waker>,
}

/// A listening socket.
pub(crate) struct Listener {
    address: Address,
    backlog: Rc<RefCell<Backlog>>,
}

impl Listener {
    pub(crate) fn bind_tcp(address: SocketAddr) -> io::Result<Self> {
        let world = world::current();
        let address = match address.port() {
            0 => world.network.borrow_mut().ephemeral(address.ip()),
            _ => address,
        };
        Self::bind(Address::Tcp(address))
    }

    pub(crate) fn bind_unix(path: &Path) -> io::Result<Self> {
        Self::bind(Address::Unix(path.to_owned()))
    }

    fn bind(address: Address) -> io::Result<Self> {
        let world = world::current();
        let mut network = world.network.borrow_mut();
        if network.listeners.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let backlog = Rc::<RefCell<Backlog>>::default();
        network
            .listeners
            .insert(address.clone(), Rc::clone(&backlog));
        Ok(Self { address, backlog })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.address {
            Address::Tcp(address) => Ok(*address),
            Address::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<Socket> {
        poll_fn(|cx| {
            let mut backlog = self.backlog.borrow_mut();
            if let Some(socket) = backlog.arrived.pop_front() {
                return Poll::Ready(Ok(socket));
            }
            backlog.acceptor = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(world) = world::try_current() {
            // Its own statement: what waits in the backlog is closed outside of the borrow.
            let gone = world.network.borrow_mut().listeners.remove(&self.address);
            drop(gone);
        }
    }
}

/// Two ends, each on a host.
struct Connection {
    number: u64,
    hosts: [HostId; 2],
    sides: [RefCell<Side>; 2],
}

/// One end as its host sees it.
#[derive(Default)]
struct Side {
    unread: VecDeque<u8>,
    /// Bytes on their way here.
    under_way: usize,
    /// When the last of them arrives.
    last_arrival: Option<Instant>,
    /// The peer sends no more.
    is_finished: bool,
    /// Nothing comes or goes any more.
    failure: Option<io::ErrorKind>,
    /// We send no more.
    has_finished: bool,
    /// We read no more.
    is_deaf: bool,
    /// Nothing that happens here is seen by the peer.
    is_mute: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Connection {
    fn sides_of(&self, host: HostId) -> impl Iterator<Item = usize> {
        (0..2).filter(move |side| self.hosts[*side] == host)
    }

    fn is_local(&self) -> bool {
        self.hosts[0] == self.hosts[1]
    }
}

/// What is on its way.
enum What {
    Data(Vec<u8>),
    /// The sender sends no more.
    End,
    /// The sender knows nothing of this connection.
    Reset,
    /// The simulation's order.
    Broken,
}

/// Something on its way to one end of a connection.
pub(super) struct Arrival {
    connection: Rc<Connection>,
    to: usize,
    what: What,
}

impl Arrival {
    fn hosts(&self) -> (HostId, HostId) {
        let hosts = self.connection.hosts;
        (hosts[1 - self.to], hosts[self.to])
    }

    /// Sends it on its way.
    fn depart(self, world: &World, extra: Duration, in_order: bool) {
        if self.connection.is_local() {
            return self.take_effect(world);
        }
        let (from, to) = self.hosts();
        let link = world.network.borrow().link(from, to);
        let span = link.delay_max.saturating_sub(link.delay_min).as_nanos();
        let span = usize::try_from(span).unwrap_or(usize::MAX);
        let random = Duration::from_nanos(world.below(span.max(1)) as u64);
        let mut at = world.now() + link.delay_min + random + extra;
        {
            let mut side = self.connection.sides[self.to].borrow_mut();
            if let Some(last) = side.last_arrival.filter(|_| in_order) {
                at = at.max(last);
            }
            side.last_arrival = side.last_arrival.max(Some(at));
        }
        world.add_arrival(at, self);
    }

    /// The link has been crossed, if it can be.
    pub(super) fn arrive(self, world: &World) {
        let (from, to) = self.hosts();
        let is_cut = world.network.borrow().link(from, to).is_cut;
        if is_cut && !matches!(self.what, What::Broken) {
            let mut network = world.network.borrow_mut();
            network.counts.held += 1;
            network.held.entry((from, to)).or_default().push(self);
            return;
        }
        if world.is_dark(to) {
            world.network.borrow_mut().counts.vanished += 1;
            if let What::Data(bytes) = &self.what {
                self.connection.sides[self.to].borrow_mut().under_way -= bytes.len();
            }
            return;
        }
        self.take_effect(world);
    }

    fn take_effect(self, world: &World) {
        let Self {
            connection,
            to,
            what,
        } = self;
        let mut side = connection.sides[to].borrow_mut();
        match what {
            What::Data(bytes) => {
                side.under_way -= bytes.len();
                if side.is_deaf || side.is_mute {
                    let is_broken = side.failure.is_some();
                    drop(side);
                    // A host that has power knows nothing of a connection from before.
                    if !is_broken {
                        answer_with_reset(world, connection, to);
                    }
                    return;
                }
                side.unread.extend(&bytes);
            }
            What::End => side.is_finished = true,
            What::Reset => side.fail(),
            What::Broken => {
                world.network.borrow_mut().counts.broken += 1;
                side.is_mute = true;
                side.fail();
            }
        }
        wake(&mut side.reader);
        wake(&mut side.writer);
    }
}

impl Side {
    fn fail(&mut self) {
        self.failure = Some(io::ErrorKind::ConnectionReset);
        self.unread.clear();
    }
}

fn answer_with_reset(world: &World, connection: Rc<Connection>, from: usize) {
    let reset = Arrival {
        to: 1 - from,
        connection,
        what: What::Reset,
    };
    reset.depart(world, Duration::ZERO, true);
}

/// A simulated waker only queues, so it may be called inside of a borrow.
fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// One end; closed when its last handle goes.
struct End {
    connection: Rc<Connection>,
    side: usize,
    local: Option<SocketAddr>,
    peer: Option<SocketAddr>,
}

impl End {
    fn side(&self) -> std::cell::RefMut<'_, Side> {
        self.connection.sides[self.side].borrow_mut()
    }

    fn send(&self, world: &World, what: What, extra: Duration, in_order: bool) {
        let arrival = Arrival {
            connection: Rc::clone(&self.connection),
            to: 1 - self.side,
            what,
        };
        arrival.depart(world, extra, in_order);
    }

    /// Tells the peer once that no more comes.
    fn finish(&self) {
        let mut side = self.side();
        if side.has_finished || side.is_mute || side.failure.is_some() {
            side.has_finished = true;
            return;
        }
        side.has_finished = true;
        drop(side);
        if let Some(world) = world::try_current() {
            self.send(&world, What::End, Duration::ZERO, true);
        }
    }

    fn poll_write(&self, cx: &Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let world = world::current();
        let mut ours = self.side();
        if let Some(failure) = ours.failure {
            return Poll::Ready(Err(failure.into()));
        }
        if ours.has_finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let mut theirs = self.connection.sides[1 - self.side].borrow_mut();
        if self.connection.is_local() && theirs.is_deaf {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = PIPE_BYTES.saturating_sub(theirs.unread.len() + theirs.under_way);
        if room == 0 {
            ours.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = room.min(data.len());
        let is_mute = ours.is_mute;
        drop(ours);
        let tamper = match self.connection.is_local() {
            true => None,
            false => world.network.borrow().tamper.clone(),
        };
        let chunks = match tamper {
            Some(tamper) => tamper.tamper(self.route(), &data[..count]),
            None => vec![Chunk {
                bytes: data[..count].to_vec(),
                extra: Duration::ZERO,
                in_order: true,
            }],
        };
        theirs.under_way += chunks.iter().map(|chunk| chunk.bytes.len()).sum::<usize>();
        drop(theirs);
        for chunk in chunks.into_iter().filter(|_| !is_mute) {
            self.send(&world, What::Data(chunk.bytes), chunk.extra, chunk.in_order);
        }
        Poll::Ready(Ok(count))
    }

    fn route(&self) -> Route {
        Route {
            connection: self.connection.number,
            from: self.connection.hosts[self.side],
            to: self.connection.hosts[1 - self.side],
        }
    }

    fn poll_read(&self, cx: &Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut side = self.side();
        if let Some(failure) = side.failure {
            return Poll::Ready(Err(failure.into()));
        }
        let there = side.unread.len().min(buffer.len());
        if there == 0 && !side.is_finished {
            side.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if there == 0 {
            return Poll::Ready(Ok(0));
        }
        let world = world::current();
        // One read in four is cut short.
        let count = if world.below(4) == 0 {
            1 + world.below(there)
        } else {
            there
        };
        let (front, back) = side.unread.as_slices();
        let from_front = front.len().min(count);
        buffer[..from_front].copy_from_slice(&front[..from_front]);
        buffer[from_front..count].copy_from_slice(&back[..count - from_front]);
        side.unread.drain(..count);
        drop(side);
        // Room is told at once, though a window's news would take its time.
        wake(&mut self.connection.sides[1 - self.side].borrow_mut().writer);
        Poll::Ready(Ok(count))
    }

    fn stop_reading(&self) {
        let mut side = self.side();
        side.is_deaf = true;
        side.unread.clear();
        drop(side);
        wake(&mut self.connection.sides[1 - self.side].borrow_mut().writer);
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.finish();
        self.stop_reading();
    }
}

/// One end of a connection, shared by its halves.
#[derive(Clone)]
pub(crate) struct Socket {
    end: Rc<End>,
}

impl Socket {
    pub(crate) async fn connect_tcp(address: SocketAddr) -> io::Result<Self> {
        let to = Address::Tcp(address);
        let world = world::current();
        let (ours, theirs) = (world.host(), host_at(&to).unwrap_or(world.host()));
        if ours == theirs {
            timer::yield_now().await;
        } else {
            shake_hands(&world, ours, theirs).await?;
        }
        let ip = match host_at(&to) {
            Some(_) => ip_of(ours),
            None => address.ip(),
        };
        let local = world.network.borrow_mut().ephemeral(ip);
        Self::connect(&to, [ours, theirs], Some(local), Some(address))
    }

    pub(crate) async fn connect_unix(path: &Path) -> io::Result<Self> {
        timer::yield_now().await;
        let host = world::current().host();
        Self::connect(&Address::Unix(path.to_owned()), [host, host], None, None)
    }

    fn connect(
        to: &Address,
        hosts: [HostId; 2],
        local: Option<SocketAddr>,
        peer: Option<SocketAddr>,
    ) -> io::Result<Self> {
        let world = world::current();
        let mut network = world.network.borrow_mut();
        let backlog = network
            .listeners
            .get(to)
            .cloned()
            .ok_or(io::ErrorKind::ConnectionRefused)?;
        let connection = network.register(hosts);
        let end = |side, local, peer| {
            Rc::new(End {
                connection: Rc::clone(&connection),
                side,
                local,
                peer,
            })
        };
        let (ours, theirs) = (end(0, local, peer), end(1, peer, local));
        let mut backlog = backlog.borrow_mut();
        backlog.arrived.push_back(Self { end: theirs });
        wake(&mut backlog.acceptor);
        Ok(Self { end: ours })
    }

    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.end.poll_read(cx, buffer)
    }

    pub(crate) fn poll_read_into(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let before = buffer.len();
        // No more than is there: a large buffer need not be filled for a few bytes.
        let there = self.end.side().unread.len();
        let spare = (buffer.capacity() - before).min(there.max(1));
        buffer.resize(before + spare, 0);
        let outcome = self.poll_read(cx, &mut buffer[before..]);
        let count = match &outcome {
            Poll::Ready(Ok(count)) => *count,
            _ => 0,
        };
        buffer.truncate(before + count);
        outcome
    }

    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.end.poll_write(cx, data)
    }

    pub(crate) fn poll_write_vectored(
        &self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let [first, rest @ ..] = slices else {
            return Poll::Ready(Ok(0));
        };
        if rest.is_empty() {
            return self.poll_write(cx, first);
        }
        let mut joined = Vec::new();
        for slice in slices {
            let room = PIPE_BYTES - joined.len();
            joined.extend_from_slice(&slice[..slice.len().min(room)]);
        }
        self.poll_write(cx, &joined)
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        if how != Shutdown::Read {
            self.end.finish();
        }
        if how != Shutdown::Write {
            self.end.stop_reading();
        }
        Ok(())
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.end
            .local
            .ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.end
            .peer
            .ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn peer_credentials(&self) -> io::Result<PeerCredentials> {
        Ok(PeerCredentials {
            pid: 1,
            uid: 0,
            gid: 0,
        })
    }
}

/// The time that a handshake takes, or that one in vain does.
async fn shake_hands(world: &Rc<World>, ours: HostId, theirs: HostId) -> io::Result<()> {
    for (from, to) in [(ours, theirs), (theirs, ours)] {
        let link = world.network.borrow().link(from, to);
        let delay = link.delay_max;
        if link.is_cut || world.is_dark(to) {
            world.network.borrow_mut().counts.unanswered += 1;
            Timer::new(timer::now() + CONNECT_PATIENCE).await;
            return Err(io::ErrorKind::TimedOut.into());
        }
        Timer::new(timer::now() + delay).await;
    }
    Ok(())
}
