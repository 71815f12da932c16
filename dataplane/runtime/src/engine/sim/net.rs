//! The network of a world: streams in memory, by address.
//!
//! **Place.** Under `crate::net`. **Owner.** The world knows the listeners; a connection is two pipes
//! shared by its ends.
//!
//! **Invariants.** Bytes arrive in order and whole, but a read may return fewer than are there, as
//! the seed wills. A pipe holds at most [`PIPE_BYTES`]. **Failure.** As the system: refused, in use,
//! broken pipe.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;

use super::timer;
use super::world;
use crate::net::PeerCredentials;

/// Bytes in flight per direction.
const PIPE_BYTES: usize = 64 << 10;

/// First port handed out for port 0 and for connecting ends.
const EPHEMERAL_PORT: u16 = 49_152;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Who listens where.
#[derive(Default)]
pub(super) struct Network {
    listeners: BTreeMap<Address, Rc<RefCell<Backlog>>>,
    ports_used: u16,
}

impl Network {
    fn ephemeral(&mut self, address: SocketAddr) -> SocketAddr {
        let port = EPHEMERAL_PORT + self.ports_used % (u16::MAX - EPHEMERAL_PORT);
        self.ports_used = self.ports_used.wrapping_add(1);
        SocketAddr::new(address.ip(), port)
    }
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
            0 => world.network.borrow_mut().ephemeral(address),
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
            world.network.borrow_mut().listeners.remove(&self.address);
        }
    }
}

#[derive(Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    is_finished: bool,
    is_abandoned: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let there = self.bytes.len().min(buffer.len());
        if there == 0 && !self.is_finished {
            self.reader = Some(cx.waker().clone());
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
        for (byte, arrived) in buffer.iter_mut().zip(self.bytes.drain(..count)) {
            *byte = arrived;
        }
        wake(&mut self.writer);
        Poll::Ready(Ok(count))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_abandoned || self.is_finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = PIPE_BYTES - self.bytes.len();
        if room == 0 {
            self.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = room.min(data.len());
        self.bytes.extend(&data[..count]);
        wake(&mut self.reader);
        Poll::Ready(Ok(count))
    }

    fn finish(&mut self) {
        self.is_finished = true;
        wake(&mut self.reader);
    }

    fn abandon(&mut self) {
        self.is_abandoned = true;
        wake(&mut self.writer);
    }
}

/// A simulated waker only queues, so it may be called inside of a borrow.
fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

struct End {
    local: Option<SocketAddr>,
    peer: Option<SocketAddr>,
    incoming: Rc<RefCell<Pipe>>,
    outgoing: Rc<RefCell<Pipe>>,
}

impl Drop for End {
    fn drop(&mut self) {
        self.outgoing.borrow_mut().finish();
        self.incoming.borrow_mut().abandon();
    }
}

/// One end of a connection, shared by its halves.
#[derive(Clone)]
pub(crate) struct Socket {
    end: Rc<End>,
}

impl Socket {
    pub(crate) async fn connect_tcp(address: SocketAddr) -> io::Result<Self> {
        timer::yield_now().await;
        let local = world::current().network.borrow_mut().ephemeral(address);
        Self::connect(&Address::Tcp(address), Some(local), Some(address))
    }

    pub(crate) async fn connect_unix(path: &Path) -> io::Result<Self> {
        timer::yield_now().await;
        Self::connect(&Address::Unix(path.to_owned()), None, None)
    }

    fn connect(
        to: &Address,
        local: Option<SocketAddr>,
        peer: Option<SocketAddr>,
    ) -> io::Result<Self> {
        let world = world::current();
        let network = world.network.borrow();
        let backlog = network
            .listeners
            .get(to)
            .ok_or(io::ErrorKind::ConnectionRefused)?;
        let (there, back) = (
            Rc::<RefCell<Pipe>>::default(),
            Rc::<RefCell<Pipe>>::default(),
        );
        let theirs = End {
            local: peer,
            peer: local,
            incoming: Rc::clone(&there),
            outgoing: back.clone(),
        };
        let ours = End {
            local,
            peer,
            incoming: back,
            outgoing: there,
        };
        let mut backlog = backlog.borrow_mut();
        backlog.arrived.push_back(Self {
            end: Rc::new(theirs),
        });
        wake(&mut backlog.acceptor);
        Ok(Self { end: Rc::new(ours) })
    }

    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.end.incoming.borrow_mut().poll_read(cx, buffer)
    }

    pub(crate) fn poll_read_into(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let before = buffer.len();
        buffer.resize(buffer.capacity(), 0);
        let outcome = self.poll_read(cx, &mut buffer[before..]);
        let count = match &outcome {
            Poll::Ready(Ok(count)) => *count,
            _ => 0,
        };
        buffer.truncate(before + count);
        outcome
    }

    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.end.outgoing.borrow_mut().poll_write(cx, data)
    }

    pub(crate) fn poll_write_vectored(
        &self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write(cx, &slices[0])
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        if how != Shutdown::Read {
            self.end.outgoing.borrow_mut().finish();
        }
        if how != Shutdown::Write {
            self.end.incoming.borrow_mut().abandon();
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
