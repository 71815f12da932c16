//! One-way frames in order, with replies that come back in a channel: for Raft's append streams.
//!
//! *Place*: beside calls, on the same connection. *Owner*: one group's replication to one peer.
//! *Invariants*: frames of one sender arrive in order on one connection or not at all; a stream
//! never moves to another connection. It takes no credits: its user bounds the frames in flight by
//! its own window, and the server accepts streams from chunkservers only. *On failure*: the
//! receiver ends after the replies that had arrived; the user opens a new stream.

use super::session::Session;
use crate::call_id::encode_stream;
use crate::error::{SendError, TransportError};
use crate::frame::Frame;
use crate::hello::Hello;
use ogee_runtime::channel::mpsc;
use std::rc::Rc;

/// Opens a stream.
pub(super) fn open(session: &Rc<Session>, replies_max: usize) -> (StreamSender, StreamReceiver) {
    let (sender, replies) = mpsc::channel(replies_max);
    let id = session.add_stream(sender);
    let stream = Rc::new(Stream {
        session: Rc::clone(session),
        id,
    });
    (
        StreamSender {
            stream: Rc::clone(&stream),
        },
        StreamReceiver { stream, replies },
    )
}

/// Registered while either end lives.
struct Stream {
    session: Rc<Session>,
    id: u64,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.session.remove_stream(self.id);
    }
}

/// Sends frames of one stream.
pub struct StreamSender {
    stream: Rc<Stream>,
}

/// Receives the replies of one stream.
pub struct StreamReceiver {
    stream: Rc<Stream>,
    replies: mpsc::Receiver<Frame>,
}

impl StreamSender {
    /// The stream's id, unique on its connection; the server sees it as `header.stream`.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.stream.id
    }

    /// Who receives.
    #[must_use]
    pub fn peer(&self) -> &Hello {
        self.stream.session.peer()
    }

    /// Queues a frame; `request_id` and `stream` of its header are set here.
    ///
    /// # Errors
    /// As [`FrameSender::try_send`](crate::FrameSender::try_send).
    pub fn try_send(&self, frame: Frame) -> Result<(), SendError> {
        self.stream.session.sender().try_send(self.marked(frame))
    }

    /// Queues a frame, waiting for room.
    ///
    /// # Errors
    /// As [`FrameSender::send`](crate::FrameSender::send).
    pub async fn send(&self, frame: Frame) -> Result<(), SendError> {
        self.stream.session.sender().send(self.marked(frame)).await
    }

    fn marked(&self, mut frame: Frame) -> Frame {
        frame.header.request_id = encode_stream(self.stream.id);
        frame.header.stream = self.stream.id;
        frame
    }
}

impl StreamReceiver {
    /// The next reply; `None` when the connection is gone, or more replies than the window came.
    pub async fn recv(&mut self) -> Option<Frame> {
        self.replies.recv().await
    }

    /// A reply that has come, if any, without waiting.
    pub fn try_recv(&mut self) -> Option<Frame> {
        self.replies.try_recv().ok()
    }

    /// Why the connection is gone, if it is.
    #[must_use]
    pub fn cause(&self) -> Option<TransportError> {
        self.stream.session.sender().cause()
    }
}
