//! Connections within one executor: a pair of bounded byte pipes, found by name.
//!
//! *Place*: stands where a TCP socket would, so that everything above (framing, checksums,
//! keepalive, backpressure) is the real thing. *Owner*: the registry is per thread.
//! *Invariants*: a pipe holds at most 256 KiB; when either end is gone the other learns of it: the
//! reader drains what was written and then sees the end, the writer gets `BrokenPipe`.
//! *On failure*: the error kinds that TCP would give.

use super::{Duplex, ReadEnd, WriteEnd};
use crate::limit::{LOOPBACK_BACKLOG_MAX, LOOPBACK_PIPE_MAX};
use crate::signal::WakerSlot;
use bytes::BytesMut;
use ogee_runtime::channel::mpsc;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

thread_local! {
    static LISTENERS: RefCell<BTreeMap<String, mpsc::Sender<Duplex>>> =
        const { RefCell::new(BTreeMap::new()) };
}

/// Takes connections to one name. The name is free again when it is dropped.
pub(crate) struct LoopbackListener {
    name: String,
    incoming: mpsc::Receiver<Duplex>,
}

impl LoopbackListener {
    /// Claims the name.
    pub(crate) fn bind(name: &str) -> io::Result<Self> {
        LISTENERS.with_borrow_mut(|listeners| {
            if listeners.contains_key(name) {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            let (sender, incoming) = mpsc::channel(LOOPBACK_BACKLOG_MAX);
            listeners.insert(name.to_owned(), sender);
            Ok(Self {
                name: name.to_owned(),
                incoming,
            })
        })
    }

    /// The claimed name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The next connection.
    pub(crate) async fn accept(&mut self) -> io::Result<Duplex> {
        self.incoming
            .recv()
            .await
            .ok_or_else(|| io::ErrorKind::ConnectionAborted.into())
    }
}

impl Drop for LoopbackListener {
    fn drop(&mut self) {
        // The thread may be ending, with the registry gone before us.
        let _ = LISTENERS.try_with(|listeners| listeners.borrow_mut().remove(&self.name));
    }
}

/// Connects to a name.
pub(crate) fn connect(name: &str) -> io::Result<Duplex> {
    LISTENERS.with_borrow(|listeners| {
        let listener = listeners
            .get(name)
            .ok_or(io::ErrorKind::ConnectionRefused)?;
        let (near, far) = pair();
        listener
            .try_send(far)
            .map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        Ok(near)
    })
}

fn pair() -> (Duplex, Duplex) {
    let (there, back) = (Rc::new(Pipe::default()), Rc::new(Pipe::default()));
    let end = |read: &Rc<Pipe>, write: &Rc<Pipe>| {
        let (reader, writer) = (PipeReader(Rc::clone(read)), PipeWriter(Rc::clone(write)));
        (ReadEnd::Loopback(reader), WriteEnd::Loopback(writer))
    };
    (end(&back, &there), end(&there, &back))
}

/// One direction.
#[derive(Default)]
struct Pipe {
    state: RefCell<State>,
    reader: WakerSlot,
    writer: WakerSlot,
}

#[derive(Default)]
struct State {
    bytes: VecDeque<u8>,
    ended: bool,
}

/// Takes bytes out.
pub(crate) struct PipeReader(Rc<Pipe>);

/// Puts bytes in.
pub(crate) struct PipeWriter(Rc<Pipe>);

impl Pipe {
    fn end(&self) {
        self.state.borrow_mut().ended = true;
        self.reader.wake();
        self.writer.wake();
    }

    fn poll_read(&self, cx: &Context<'_>, buffer: &mut [u8]) -> Poll<usize> {
        let mut state = self.state.borrow_mut();
        if state.bytes.is_empty() && !state.ended {
            self.reader.register(cx);
            return Poll::Pending;
        }
        let (front, _) = state.bytes.as_slices();
        let count = front.len().min(buffer.len());
        buffer
            .split_at_mut(count)
            .0
            .copy_from_slice(front.split_at(count).0);
        state.bytes.drain(..count);
        drop(state);
        self.writer.wake();
        Poll::Ready(count)
    }

    fn poll_write(&self, cx: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.state.borrow_mut();
        if state.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = bytes.len().min(LOOPBACK_PIPE_MAX - state.bytes.len());
        if count == 0 {
            self.writer.register(cx);
            return Poll::Pending;
        }
        state.bytes.extend(bytes.split_at(count).0);
        drop(state);
        self.reader.wake();
        Poll::Ready(Ok(count))
    }
}

impl PipeReader {
    /// Reads some bytes; zero is the end.
    pub(crate) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(poll_fn(|cx| self.0.poll_read(cx, buffer)).await)
    }

    /// Reads some bytes behind those in `buffer`, within its capacity.
    pub(crate) async fn read_into(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        let filled = buffer.len();
        let count = poll_fn(|cx| {
            buffer.resize(buffer.capacity(), 0);
            let outcome = self.0.poll_read(cx, buffer.split_at_mut(filled).1);
            let count = if let Poll::Ready(count) = outcome {
                count
            } else {
                0
            };
            buffer.truncate(filled + count);
            outcome
        });
        Ok(count.await)
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl PipeWriter {
    /// Writes everything.
    pub(crate) async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = poll_fn(|cx| self.0.poll_write(cx, bytes)).await?;
            bytes = bytes.split_at(count).1;
        }
        Ok(())
    }
}

impl Drop for PipeWriter {
    fn drop(&mut self) {
        self.0.end();
    }
}
