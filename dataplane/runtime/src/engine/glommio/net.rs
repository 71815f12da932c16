//! Stream sockets on io_uring.
//!
//! **Place.** Under `crate::net`. **Owner.** One executor; both halves of a connection share the descriptor.
//!
//! **Invariants.** At most one reader and one writer wait at a time. Data moves by plain non-blocking calls; the ring is
//! used to wait for readiness. A read that did not fill its room has emptied the socket: the next one waits for readiness
//! before it asks again, so a message costs one call.
//!
//! **Failure.** Errors of the system, unchanged.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use socket2::{Domain, SockRef, Type};

use super::driver::Driver;
use super::ring::Operation;
use super::{blocking, sys};
use crate::net::PeerCredentials;

/// A listening socket.
pub(crate) struct Listener {
    descriptor: Rc<OwnedFd>,
    local: Option<SocketAddr>,
}

impl Listener {
    /// Without `SO_REUSEPORT`, which would let two servers share a port without noticing.
    pub(crate) fn bind_tcp(address: SocketAddr) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let local = listener.local_addr()?;
        Ok(Self {
            descriptor: Rc::new(listener.into()),
            local: Some(local),
        })
    }

    pub(crate) fn bind_unix(path: &Path) -> io::Result<Self> {
        let listener = std::os::unix::net::UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            descriptor: Rc::new(listener.into()),
            local: None,
        })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.local.ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    pub(crate) async fn accept(&self) -> io::Result<Socket> {
        loop {
            match SockRef::from(&*self.descriptor).accept() {
                Ok((socket, _peer)) => return Socket::new(socket.into(), self.local.is_some()),
                Err(error) if is_transient(&error) => {}
                Err(error) => return Err(error),
            }
            ready_for(&self.descriptor, libc::POLLIN).await?;
        }
    }
}

/// Waits until the descriptor is ready for `events`, or has failed.
async fn ready_for(descriptor: &Rc<OwnedFd>, events: libc::c_short) -> io::Result<()> {
    let mut waiting = Driver::current().ring().ready(descriptor, events);
    poll_fn(|cx| waiting.poll(cx)).await.0.map(drop)
}

/// A connected stream, shared by its halves.
#[derive(Clone)]
pub(crate) struct Socket {
    shared: Rc<Shared>,
}

struct Shared {
    descriptor: Rc<OwnedFd>,
    /// Nothing was left to read, so far as we know.
    is_drained: Cell<bool>,
    reader: RefCell<Option<Operation>>,
    writer: RefCell<Option<Operation>>,
}

impl Socket {
    pub(crate) async fn connect_tcp(address: SocketAddr) -> io::Result<Self> {
        let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        let connected = socket.connect(&address.into());
        let descriptor = Rc::new(OwnedFd::from(socket));
        match connected {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
                ready_for(&descriptor, libc::POLLOUT).await?;
                if let Some(error) = SockRef::from(&*descriptor).take_error()? {
                    return Err(error);
                }
            }
            other => other?,
        }
        Self::shared(descriptor, true)
    }

    /// A Unix connect is instant unless the listener's backlog is full, and then it blocks.
    pub(crate) async fn connect_unix(path: &Path) -> io::Result<Self> {
        let path = path.to_owned();
        let connect = move || std::os::unix::net::UnixStream::connect(path);
        Self::new(blocking::run(connect).await?.into(), false)
    }

    fn new(descriptor: OwnedFd, is_tcp: bool) -> io::Result<Self> {
        Self::shared(Rc::new(descriptor), is_tcp)
    }

    fn shared(descriptor: Rc<OwnedFd>, is_tcp: bool) -> io::Result<Self> {
        if is_tcp {
            SockRef::from(&*descriptor).set_tcp_nodelay(true)?;
        }
        let shared = Shared {
            descriptor,
            is_drained: Cell::new(false),
            reader: RefCell::default(),
            writer: RefCell::default(),
        };
        Ok(Self {
            shared: Rc::new(shared),
        })
    }

    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let len = buffer.len();
        // SAFETY: the same memory for this call; whoever gets it as uninitialised only writes bytes to it.
        let room = unsafe {
            std::slice::from_raw_parts_mut(buffer.as_mut_ptr().cast::<MaybeUninit<u8>>(), len)
        };
        self.poll_receive(cx, room)
    }

    /// Reads into the room behind `buffer`'s data; there must be some.
    pub(crate) fn poll_read_into(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let room = buffer.spare_capacity_mut();
        let len = room.len();
        let count = ready!(self.poll_receive(cx, room))?;
        assert!(count <= len, "recv wrote past the buffer");
        let filled = buffer.len() + count;
        // SAFETY: recv(2) has initialised `count` bytes behind the previous length.
        unsafe { buffer.set_len(filled) };
        Poll::Ready(Ok(count))
    }

    fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        room: &mut [MaybeUninit<u8>],
    ) -> Poll<io::Result<usize>> {
        let shared = &*self.shared;
        loop {
            if let Err(error) = ready!(shared.poll_waiting(&shared.reader, cx)) {
                return Poll::Ready(Err(error));
            }
            if !shared.is_drained.replace(false) {
                let socket = SockRef::from(&*shared.descriptor);
                match socket.recv_with_flags(room, libc::MSG_DONTWAIT) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    outcome => {
                        let is_short = |count: &usize| (1..room.len()).contains(count);
                        shared.is_drained.set(outcome.as_ref().is_ok_and(is_short));
                        return Poll::Ready(outcome);
                    }
                }
            }
            shared.wait(&shared.reader, libc::POLLIN | libc::POLLRDHUP);
        }
    }

    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(data)])
    }

    /// Sends several slices with one call; the first must not be empty.
    pub(crate) fn poll_write_vectored(
        &self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let shared = &*self.shared;
        loop {
            if let Err(error) = ready!(shared.poll_waiting(&shared.writer, cx)) {
                return Poll::Ready(Err(error));
            }
            match sys::send_vectored(shared.descriptor.as_raw_fd(), slices) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    shared.wait(&shared.writer, libc::POLLOUT);
                }
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        SockRef::from(&*self.shared.descriptor).shutdown(how)
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        let address = SockRef::from(&*self.shared.descriptor).local_addr()?;
        internet(address)
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        let address = SockRef::from(&*self.shared.descriptor).peer_addr()?;
        internet(address)
    }

    pub(crate) fn peer_credentials(&self) -> io::Result<PeerCredentials> {
        sys::peer_credentials(self.shared.descriptor.as_raw_fd())
    }

    /// Another descriptor of the same connection.
    #[cfg(feature = "readiness")]
    pub(crate) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.shared.descriptor.try_clone()
    }
}

impl Shared {
    fn wait(&self, side: &RefCell<Option<Operation>>, events: libc::c_short) {
        let waiting = Driver::current().ring().ready(&self.descriptor, events);
        let before = side.replace(Some(waiting));
        drop(before);
    }

    /// Ready if nobody waits on this side.
    fn poll_waiting(
        &self,
        side: &RefCell<Option<Operation>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut side = side.borrow_mut();
        let Some(waiting) = &mut *side else {
            return Poll::Ready(Ok(()));
        };
        let (result, _nothing) = ready!(waiting.poll(cx));
        *side = None;
        Poll::Ready(result.map(drop))
    }
}

fn internet(address: socket2::SockAddr) -> io::Result<SocketAddr> {
    address
        .as_socket()
        .ok_or_else(|| io::ErrorKind::Unsupported.into())
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
