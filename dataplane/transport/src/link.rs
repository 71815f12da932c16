//! What the parts of one connection share.
//!
//! *Place*: between senders, the receiver, the writer task and the keepalive task. *Owner*: one
//! connection; plain cells, changed in functions that run to completion.
//!
//! *Invariants*: the phase only moves forward, `Open → Draining → Closed`, and the first cause of
//! the end is kept for everyone. `Draining` takes no more frames but writes what was queued.
//!
//! *On failure*: `fail` wakes every waiter; each finds the cause here.

use crate::error::{SendError, TransportError};
use crate::frame::Frame;
use crate::hello::Hello;
use crate::options::ConnectionOptions;
use crate::outbox::{Batch, Outbox};
use crate::signal::WakerSlot;
use ogee_runtime::channel::Notify;
use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};

/// How far a connection's life has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Phase {
    /// Both directions work.
    Open,
    /// Writes what was queued, takes nothing more.
    Draining,
    /// Over.
    Closed,
}

/// What the parts of one connection share.
pub(crate) struct Link {
    peer: Hello,
    options: ConnectionOptions,
    phase: Cell<Phase>,
    cause: OnceCell<TransportError>,
    outbox: RefCell<Outbox>,
    room: Notify,
    ended: Notify,
    pub(crate) reader: WakerSlot,
    pub(crate) writer: WakerSlot,
    pub(crate) keeper: WakerSlot,
    /// Grows with every read that returned bytes.
    heard: Cell<u64>,
    /// Whether the receiver waits for the peer; if it does not, silence proves nothing.
    listening: Cell<bool>,
    /// The same at the last keepalive tick.
    listened: Cell<bool>,
    /// Whether a frame was queued since the last keepalive tick.
    spoke: Cell<bool>,
}

impl Link {
    /// A connection whose peer has said its Hello.
    pub(crate) fn new(peer: Hello, options: ConnectionOptions) -> Self {
        Self {
            peer,
            options,
            phase: Cell::new(Phase::Open),
            cause: OnceCell::new(),
            outbox: RefCell::default(),
            room: Notify::new(),
            ended: Notify::new(),
            reader: WakerSlot::default(),
            writer: WakerSlot::default(),
            keeper: WakerSlot::default(),
            heard: Cell::new(0),
            listening: Cell::new(false),
            listened: Cell::new(false),
            spoke: Cell::new(true),
        }
    }

    /// The same, of a carrier that takes frames whole.
    #[cfg(feature = "rdma")]
    pub(crate) fn of_frames(peer: Hello, options: ConnectionOptions) -> Self {
        Self {
            outbox: RefCell::new(Outbox::of_frames()),
            ..Self::new(peer, options)
        }
    }

    /// How far its life has come.
    #[cfg(feature = "rdma")]
    pub(crate) const fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// For a carrier that takes frames whole: the next one.
    #[cfg(feature = "rdma")]
    pub(crate) fn take_frame(&self) -> Option<Frame> {
        let frame = self.outbox.borrow_mut().pop()?;
        self.room.notify_all();
        Some(frame)
    }

    /// Who the peer said it is.
    pub(crate) const fn peer(&self) -> &Hello {
        &self.peer
    }

    /// As configured.
    pub(crate) const fn options(&self) -> &ConnectionOptions {
        &self.options
    }

    /// Why it ended, once it has begun to.
    pub(crate) fn cause(&self) -> Option<&TransportError> {
        self.cause.get()
    }

    /// Ends the connection at once, dropping what is queued. Returns the first cause.
    pub(crate) fn fail(&self, cause: TransportError) -> TransportError {
        self.end(Phase::Closed, cause)
    }

    /// Ends the connection after what is queued has been written (or the drain timeout passed).
    pub(crate) fn drain(&self, cause: TransportError) -> TransportError {
        self.end(Phase::Draining, cause)
    }

    fn end(&self, phase: Phase, cause: TransportError) -> TransportError {
        if self.phase.get() != Phase::Closed {
            self.phase.set(phase);
        }
        let first = self.cause.get_or_init(|| cause).clone();
        for waiter in [&self.reader, &self.writer, &self.keeper] {
            waiter.wake();
        }
        self.room.notify_all();
        self.ended.notify_all();
        first
    }

    /// Resolves when the connection begins to end.
    pub(crate) async fn ended(&self) -> TransportError {
        loop {
            if let Some(cause) = self.cause() {
                return cause.clone();
            }
            self.ended.notified().await;
        }
    }

    /// Runs `future` unless the connection reaches `phase` first. Only one task may use `slot`.
    pub(crate) async fn unless<F: Future>(
        &self,
        phase: Phase,
        slot: &WakerSlot,
        future: F,
    ) -> Option<F::Output> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            if self.phase.get() >= phase {
                return Poll::Ready(None);
            }
            slot.register(cx);
            future.as_mut().poll(cx).map(Some)
        })
        .await
    }

    /// Queues a frame, within the bounds.
    pub(crate) fn push(&self, frame: Frame) -> Result<(), SendError> {
        let ConnectionOptions {
            queue_frames_max,
            queue_bytes_max,
            ..
        } = self.options;
        if self.phase.get() == Phase::Open
            && !self
                .outbox
                .borrow()
                .fits(frame.wire_len(), queue_frames_max, queue_bytes_max)
        {
            return Err(SendError::Full(Box::new(frame)));
        }
        self.push_beyond(frame)
    }

    /// Queues a frame that something else bounds (credits, keepalive).
    pub(crate) fn push_beyond(&self, frame: Frame) -> Result<(), SendError> {
        if let Some(cause) = self.cause() {
            return Err(SendError::Closed {
                frame: Box::new(frame),
                cause: cause.clone(),
            });
        }
        frame.check_len()?;
        self.outbox.borrow_mut().add(frame);
        self.spoke.set(true);
        self.writer.wake();
        Ok(())
    }

    /// Resolves when a full outbox may have room again, or the connection ended.
    pub(crate) async fn room(&self) {
        self.room.notified().await;
    }

    /// Frames and bytes queued or being written.
    pub(crate) fn queued(&self) -> (usize, usize) {
        let outbox = self.outbox.borrow();
        (outbox.frames(), outbox.bytes())
    }

    /// For the writer: ready when there is output, or none will come (`false`).
    pub(crate) fn poll_output(&self, cx: &Context<'_>) -> Poll<bool> {
        if self.phase.get() == Phase::Closed {
            return Poll::Ready(false);
        }
        if !self.outbox.borrow().is_empty() {
            return Poll::Ready(true);
        }
        if self.phase.get() == Phase::Draining {
            return Poll::Ready(false);
        }
        self.writer.register(cx);
        Poll::Pending
    }

    /// For the writer: everything queued.
    pub(crate) fn take(&self, spare: Batch) -> Batch {
        self.outbox.borrow_mut().take(spare)
    }

    /// For the writer: a batch is out.
    pub(crate) fn written(&self, batch: &Batch) {
        self.outbox.borrow_mut().written(batch);
        self.room.notify_all();
    }

    /// For the receiver: bytes came.
    pub(crate) fn heard(&self) {
        self.heard.set(self.heard.get() + 1);
    }

    /// For the receiver: whether it waits for the peer.
    pub(crate) fn set_listening(&self, listening: bool) {
        self.listening.set(listening);
    }

    /// For the keepalive, once per tick: a number that grows while the peer speaks, or nobody
    /// listens, or somebody has begun to since the last tick.
    pub(crate) fn signs_of_life(&self) -> u64 {
        let listening = self.listening.get();
        let listened = self.listened.replace(listening);
        if !(listening && listened) {
            self.heard();
        }
        self.heard.get()
    }

    /// For the keepalive: whether a frame was queued since it last asked, or still waits.
    pub(crate) fn take_spoke(&self) -> bool {
        self.spoke.replace(false) || self.outbox.borrow().frames() > 0
    }
}
