//! The sending end of a connection.

use crate::error::{SendError, TransportError};
use crate::frame::Frame;
use crate::hello::Hello;
use crate::link::Link;
use std::rc::Rc;

/// The sending end of a connection. Clones share one queue. Dropping them all does not close the
/// connection; dropping its [`FrameReceiver`](crate::FrameReceiver) does.
#[derive(Clone)]
pub struct FrameSender {
    link: Rc<Link>,
}

impl FrameSender {
    pub(crate) const fn new(link: Rc<Link>) -> Self {
        Self { link }
    }

    /// Queues a frame. It goes out with everything else queued in this turn of the executor.
    ///
    /// # Errors
    /// `Full` when the queue has no room, `Closed` when the connection has ended (the frame comes
    /// back in both), `TooLong` when a part is past its limit.
    pub fn try_send(&self, frame: Frame) -> Result<(), SendError> {
        self.link.push(frame)
    }

    /// Queues a frame, waiting for room. Frames of several waiting tasks go in any order; those of
    /// one task keep theirs. Dropping the future before it finishes sends nothing.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send), without `Full`.
    pub async fn send(&self, mut frame: Frame) -> Result<(), SendError> {
        loop {
            match self.link.push(frame) {
                Err(SendError::Full(back)) => frame = *back,
                outcome => return outcome,
            }
            self.link.room().await;
        }
    }

    /// Queues a frame that credits already bound.
    pub(crate) fn send_beyond(&self, frame: Frame) -> Result<(), SendError> {
        self.link.push_beyond(frame)
    }

    /// Waits until a full queue may have room, or the connection has ended.
    pub(crate) async fn room(&self) {
        self.link.room().await;
    }

    /// Who the peer said it is.
    #[must_use]
    pub fn peer(&self) -> &Hello {
        self.link.peer()
    }

    /// Frames and bytes that are queued or being written: for admission.
    #[must_use]
    pub fn queued(&self) -> (usize, usize) {
        self.link.queued()
    }

    /// Why the connection ended, once it has.
    #[must_use]
    pub fn cause(&self) -> Option<TransportError> {
        self.link.cause().cloned()
    }

    /// Resolves with the cause when the connection ends.
    pub async fn closed(&self) -> TransportError {
        self.link.ended().await
    }

    /// Ends the connection after what is queued has been written, for at most a second.
    pub fn close(&self) {
        self.close_because(TransportError::Closed);
    }

    /// The same with another cause.
    pub(crate) fn close_because(&self, cause: TransportError) {
        self.link.drain(cause);
    }
}
