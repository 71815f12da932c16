//! Stream sockets on io_uring.
//!
//! **Place.** Under `crate::net`. **Owner.** One executor; both halves of a connection share the
//! stream and borrow it for the length of one poll, so no descriptor is duplicated.
//!
//! **Invariants.** At most one reader and one writer wait at a time. Data moves by plain
//! non-blocking calls; the ring is used only to accept, to connect and to wait for readiness. The
//! engine's TCP types carry Unix sockets too: it uses nothing of them but the descriptor, and its
//! own Unix types hide that.
//!
//! **Failure.** Errors of the system, unchanged.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
#[cfg(feature = "readiness")]
use std::os::fd::BorrowedFd;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use ::glommio::net::{TcpListener, TcpStream};
use bytes::BytesMut;
use futures_util::io::{AsyncRead, AsyncWrite};

use super::error::into_io;
use super::sys;
use crate::net::PeerCredentials;

/// A listening socket.
pub(crate) struct Listener {
    listener: TcpListener,
    local: Option<SocketAddr>,
}

impl Listener {
    /// The engine's own `bind` sets `SO_REUSEPORT`, which would let two servers share a port
    /// without noticing.
    pub(crate) fn bind_tcp(address: SocketAddr) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        let local = listener.local_addr()?;
        Ok(Self {
            listener: adopt_listener(listener.into()),
            local: Some(local),
        })
    }

    pub(crate) fn bind_unix(path: &Path) -> io::Result<Self> {
        let listener = std::os::unix::net::UnixListener::bind(path)?;
        Ok(Self {
            listener: adopt_listener(listener.into()),
            local: None,
        })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.local.ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    pub(crate) async fn accept(&self) -> io::Result<Socket> {
        let stream = self.listener.accept().await.map_err(into_io)?;
        match self.local {
            Some(_) => Socket::from_tcp(stream),
            None => Ok(Socket::from_unix(stream)),
        }
    }
}

fn adopt_listener(listener: OwnedFd) -> TcpListener {
    // SAFETY: the descriptor is ours and `into_raw_fd` gives it up, so it has one owner.
    unsafe { TcpListener::from_raw_fd(listener.into_raw_fd()) }
}

/// A connected stream, shared by its halves.
#[derive(Clone)]
pub(crate) struct Socket {
    stream: Rc<RefCell<TcpStream>>,
}

impl Socket {
    pub(crate) async fn connect_tcp(address: SocketAddr) -> io::Result<Self> {
        Self::from_tcp(TcpStream::connect(address).await.map_err(into_io)?)
    }

    /// Connects on the helper thread: a Unix connect is instant unless the listener's backlog is
    /// full, and then it blocks.
    pub(crate) async fn connect_unix(path: &Path) -> io::Result<Self> {
        let path = path.to_owned();
        let connect = move || std::os::unix::net::UnixStream::connect(path);
        let stream = ::glommio::executor().spawn_blocking(connect).await?;
        // SAFETY: the descriptor is ours and `into_raw_fd` gives it up, so it has one owner.
        Ok(Self::from_unix(unsafe {
            TcpStream::from_raw_fd(stream.into_raw_fd())
        }))
    }

    fn from_tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true).map_err(into_io)?;
        Ok(Self {
            stream: Rc::new(RefCell::new(stream)),
        })
    }

    fn from_unix(stream: TcpStream) -> Self {
        Self {
            stream: Rc::new(RefCell::new(stream)),
        }
    }

    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, buffer)
    }

    /// Reads into the room behind `buffer`'s data; there must be some.
    pub(crate) fn poll_read_into(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let room = buffer.spare_capacity_mut();
        let len = room.len();
        // SAFETY: the memory is owned by `buffer`, borrowed for this poll and `len` bytes long. It
        // is not initialised, but the callee hands it only to recv(2), which writes, and keeps no
        // pointer to it after it returns.
        let room = unsafe { std::slice::from_raw_parts_mut(room.as_mut_ptr().cast::<u8>(), len) };
        let count = ready!(self.poll_read(cx, room))?;
        assert!(count <= len, "recv wrote past the buffer");
        let filled = buffer.len() + count;
        // SAFETY: recv(2) has initialised `count` bytes behind the previous length.
        unsafe { buffer.set_len(filled) };
        Poll::Ready(Ok(count))
    }

    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_write(cx, data)
    }

    /// Sends several slices with one call; the first must not be empty.
    pub(crate) fn poll_write_vectored(
        &self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match sys::send_vectored(self.raw_fd(), slices) {
            // The single write tries once more and then waits for room.
            Err(error) if is_transient(&error) => self.poll_write(cx, &slices[0]),
            outcome => Poll::Ready(outcome),
        }
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        sys::shutdown(self.raw_fd(), how)
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.borrow().local_addr().map_err(into_io)
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.borrow().peer_addr().map_err(into_io)
    }

    pub(crate) fn peer_credentials(&self) -> io::Result<PeerCredentials> {
        sys::peer_credentials(self.raw_fd())
    }

    /// Another descriptor of the same connection.
    #[cfg(feature = "readiness")]
    pub(crate) fn duplicate(&self) -> io::Result<OwnedFd> {
        let stream = self.stream.borrow();
        // SAFETY: the stream owns the descriptor, and is borrowed as long as this is used.
        let descriptor = unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) };
        descriptor.try_clone_to_owned()
    }

    fn raw_fd(&self) -> RawFd {
        self.stream.borrow().as_raw_fd()
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
