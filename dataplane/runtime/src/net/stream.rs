//! The two directions of a connection.
//!
//! **Place.** Under `transport` and the frontends. **Owner.** Each half belongs to one task; both
//! stay on the executor that made the connection.
//!
//! **Invariants.** A write puts its bytes into the socket at once: callers batch small frames, or
//! hand many slices to [`WriteHalf::write_vectored`], which makes one system call of them. A read
//! that is dropped while pending loses nothing.
//!
//! **Failure.** Errors of the system. `read` returning 0 is the orderly end. A write that is dropped
//! while pending may have sent any prefix: the connection is then of no further use.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::Shutdown;

use bytes::BytesMut;

use crate::engine::Socket;
use crate::limit::{READ_CHUNK, SEND_SLICES_MAX};

/// Splits a connected socket.
pub(super) fn split(socket: Socket) -> (ReadHalf, WriteHalf) {
    (
        ReadHalf {
            socket: socket.clone(),
        },
        WriteHalf { socket },
    )
}

/// The receiving direction.
pub struct ReadHalf {
    socket: Socket,
}

impl ReadHalf {
    /// Reads what is there, at most `buffer.len()` bytes; 0 is the end of the stream.
    ///
    /// # Errors
    /// Of the system.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        poll_fn(|cx| self.socket.poll_read(cx, buffer)).await
    }

    /// Appends what is there to `buffer`, at most its spare capacity; 0 is the end of the stream.
    /// Without spare capacity some is reserved first.
    ///
    /// # Errors
    /// Of the system.
    pub async fn read_into(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        if buffer.capacity() == buffer.len() {
            buffer.reserve(READ_CHUNK);
        }
        poll_fn(|cx| self.socket.poll_read_into(cx, buffer)).await
    }

    /// Fills `buffer`.
    ///
    /// # Errors
    /// `UnexpectedEof` if the stream ends before.
    pub async fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => filled += count,
            }
        }
        Ok(())
    }
}

/// The sending direction. Dropping it ends the stream for the peer.
pub struct WriteHalf {
    socket: Socket,
}

impl WriteHalf {
    /// Sends all of `data`.
    ///
    /// # Errors
    /// Of the system; any prefix may have been sent.
    pub async fn write_all(&mut self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            match poll_fn(|cx| self.socket.poll_write(cx, data)).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                sent => data = &data[sent..],
            }
        }
        Ok(())
    }

    /// Sends all of `slices` in order, as many per system call as it takes.
    ///
    /// # Errors
    /// Of the system; any prefix may have been sent.
    pub async fn write_vectored(&mut self, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        // Advancing by nothing drops leading empty slices.
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            let batch = &slices[..slices.len().min(SEND_SLICES_MAX)];
            match poll_fn(|cx| self.socket.poll_write_vectored(cx, batch)).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                sent => IoSlice::advance_slices(&mut slices, sent),
            }
        }
        Ok(())
    }

    /// Ends the sending direction: the peer reads the rest, then the end of the stream.
    ///
    /// # Errors
    /// `NotConnected` if the connection is gone.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        // The reader may still hold the socket open; the peer must learn now that no more comes. An
        // error means that it already knows.
        let _ = self.socket.shutdown(Shutdown::Write);
    }
}
