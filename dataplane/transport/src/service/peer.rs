//! The other end of a served connection.

use crate::call_id::is_stream;
use crate::error::{SendError, TransportError};
use crate::frame::Frame;
use crate::hello::{Hello, Role};
use crate::metrics::count;
use crate::sender::FrameSender;
use bytes::Bytes;
use ogee_proto::wire::{FrameHeader, FrameKind, Status};
use ogee_runtime::Payload;
use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

/// One connection of one service. Never reused while the service lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeerId(u64);

impl PeerId {
    pub(super) const fn new(raw: u64) -> Self {
        Self(raw)
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer{}", self.0)
    }
}

/// The other end of a served connection. Clones are the same peer; they outlive the connection,
/// and then everything sent through them is refused as `Closed`.
#[derive(Clone)]
pub struct Peer {
    inner: Rc<Inner>,
}

struct Inner {
    id: PeerId,
    sender: FrameSender,
    /// What we offered.
    credits: u32,
    /// Requests received and not yet answered.
    in_flight: Cell<u32>,
}

impl Peer {
    pub(super) fn new(id: PeerId, sender: FrameSender, credits: u32) -> Self {
        Self {
            inner: Rc::new(Inner {
                id,
                sender,
                credits,
                in_flight: Cell::new(0),
            }),
        }
    }

    /// Which connection of the service.
    #[must_use]
    pub fn id(&self) -> PeerId {
        self.inner.id
    }

    /// Who it said it is.
    #[must_use]
    pub fn hello(&self) -> &Hello {
        self.inner.sender.peer()
    }

    /// Requests received and not yet answered.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.inner.in_flight.get()
    }

    /// Frames and bytes waiting to be written to it: for admission.
    #[must_use]
    pub fn queued(&self) -> (usize, usize) {
        self.inner.sender.queued()
    }

    /// Answers a request, once; `request_id` in the header is the request's (as
    /// [`FrameHeader::reply`] makes it). Never refused for want of room, since credits bound the
    /// replies. Answers a stream frame any number of times, within the output's bounds.
    ///
    /// # Errors
    /// `Closed` when the peer is gone, which the handler may ignore; `TooLong` is a bug of the
    /// handler, and the request stays unanswered; `Full` for a stream frame only: wait with
    /// [`reply_wait`](Self::reply_wait), or end the stream.
    ///
    /// # Panics
    /// When the frame is not a reply, or no request is unanswered: bugs of the handler.
    pub fn reply(&self, frame: Frame) -> Result<(), SendError> {
        assert!(
            frame.header.kind == FrameKind::Reply,
            "a reply is a Reply frame"
        );
        if is_stream(frame.header.request_id) {
            return self.inner.sender.try_send(frame);
        }
        frame.check_len()?;
        let in_flight = self.inner.in_flight.get().checked_sub(1);
        self.inner
            .in_flight
            .set(in_flight.expect("a request is answered once"));
        self.inner.sender.send_beyond(frame)
    }

    /// Answers, waiting for room if the frame belongs to a stream.
    ///
    /// # Errors
    /// As [`reply`](Self::reply), without `Full`.
    pub async fn reply_wait(&self, frame: Frame) -> Result<(), SendError> {
        match self.reply(frame) {
            Err(SendError::Full(frame)) => self.inner.sender.send(*frame).await,
            outcome => outcome,
        }
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inner.sender.cause().is_some()
    }

    /// Resolves with the cause when the connection ends.
    pub async fn closed(&self) -> TransportError {
        self.inner.sender.closed().await
    }

    /// Ends the connection after what is queued has been written.
    pub fn close(&self) {
        self.inner.sender.close();
    }

    /// Takes a credit for a request; checks who may stream.
    pub(super) fn admit(&self, header: &FrameHeader) -> Result<(), TransportError> {
        let kind = header.kind;
        if kind == FrameKind::Reply {
            return Err(TransportError::UnexpectedFrame { kind });
        }
        if is_stream(header.request_id) {
            let allowed = self.hello().role == Role::Chunkserver && is_raft(kind);
            return if allowed {
                Ok(())
            } else {
                Err(TransportError::StreamRefused { kind })
            };
        }
        let Inner {
            credits, in_flight, ..
        } = &*self.inner;
        if in_flight.get() >= *credits {
            count(|metrics| metrics.credits_exceeded.bump());
            return Err(TransportError::CreditsExceeded { offered: *credits });
        }
        in_flight.set(in_flight.get() + 1);
        Ok(())
    }

    /// Tells the peer which rule it broke, and ends the connection.
    pub(super) fn refuse(&self, header: &FrameHeader, error: TransportError) {
        tracing::warn!(peer = %self.hello().name, %error, "peer cut off");
        let header = FrameHeader::reply(header, Status::BadRequest);
        let meta = Bytes::from(error.to_string());
        let reason = Frame::of_parts(header, meta, Payload::empty());
        // Past the bounds, and if the connection is already over there is nobody to tell.
        drop(self.inner.sender.send_beyond(reason));
        self.inner.sender.close_because(error);
    }
}

const fn is_raft(kind: FrameKind) -> bool {
    matches!(
        kind,
        FrameKind::AppendEntries
            | FrameKind::AppendClose
            | FrameKind::Vote
            | FrameKind::Snapshot
            | FrameKind::TransferLeader
    )
}
