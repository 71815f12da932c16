//! The receiving end of a connection.

use crate::decoder::Decoder;
use crate::error::{Doing, TransportError};
use crate::frame::Frame;
use crate::hello::Hello;
use crate::keepalive::NO_ANSWER;
use crate::limit::{CHUNK_MIN, DRAIN_TIMEOUT, READS_PER_TURN};
use crate::link::{Link, Phase};
use crate::metrics::count;
use crate::stream::ReadEnd;
use bytes::BytesMut;
use ogee_proto::id::RequestId;
use ogee_proto::wire::{FrameHeader, FrameKind, WireError};
use ogee_runtime::{timeout, yield_now};
use std::rc::Rc;

/// The receiving end of a connection. Dropping it closes the connection, after what is queued has
/// been written.
///
/// Await [`recv`](Self::recv) all the time: a dead peer is only noticed while somebody listens.
pub struct FrameReceiver {
    link: Rc<Link>,
    stream: ReadEnd,
    decoder: Decoder,
    reads_in_turn: u32,
}

impl FrameReceiver {
    pub(crate) const fn new(link: Rc<Link>, stream: ReadEnd, decoder: Decoder) -> Self {
        Self {
            link,
            stream,
            decoder,
            reads_in_turn: 0,
        }
    }

    /// Who the peer said it is.
    #[must_use]
    pub fn peer(&self) -> &Hello {
        self.link.peer()
    }

    /// The next frame that is not keepalive. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The cause of the connection's end, again at every further call.
    pub async fn recv(&mut self) -> Result<Frame, TransportError> {
        match self.next().await {
            Ok(frame) => Ok(frame),
            Err(error) => Err(self.give_up(error)),
        }
    }

    /// Reads and drops what still comes, until the peer closes too or the drain timeout passes.
    /// A socket closed over unread bytes is reset, and what we wrote last might never be read.
    pub(crate) async fn linger(mut self) {
        let mut waste = BytesMut::with_capacity(CHUNK_MIN);
        let dry = async {
            while let Ok(1..) = self.stream.read_into(&mut waste).await {
                waste.clear();
            }
        };
        // Either way the connection is over.
        let _ = timeout(DRAIN_TIMEOUT, dry).await;
    }

    /// Fails the connection, unless it has begun to end, which may still write what was queued.
    fn give_up(&self, error: TransportError) -> TransportError {
        match self.link.cause() {
            Some(cause) => cause.clone(),
            None => self.link.fail(error),
        }
    }

    async fn next(&mut self) -> Result<Frame, TransportError> {
        loop {
            if let Some(cause) = self.link.cause() {
                return Err(cause.clone());
            }
            match self.decoder.next().inspect_err(note_crc_error)? {
                None => self.fill().await?,
                Some(frame) => {
                    count(|metrics| metrics.frames_in.bump());
                    if !self.is_keepalive(&frame.header)? {
                        return Ok(frame);
                    }
                }
            }
        }
    }

    fn is_keepalive(&self, header: &FrameHeader) -> Result<bool, TransportError> {
        match header.kind {
            FrameKind::Pong => Ok(true),
            FrameKind::Ping => {
                self.answer(header.request_id);
                Ok(true)
            }
            FrameKind::Hello => Err(TransportError::UnexpectedFrame { kind: header.kind }),
            _ => Ok(false),
        }
    }

    fn answer(&self, ping: RequestId) {
        if ping != NO_ANSWER {
            // Under overload, or at the end, a Pong is not worth waiting for.
            drop(
                self.link
                    .push(Frame::new(FrameHeader::new(FrameKind::Pong, ping))),
            );
        }
    }

    async fn fill(&mut self) -> Result<(), TransportError> {
        self.reads_in_turn += 1;
        if self.reads_in_turn > READS_PER_TURN {
            self.reads_in_turn = 0;
            yield_now().await;
        }
        let listening = Listening::start(&self.link);
        let read = self.decoder.fill(&mut self.stream);
        let outcome = self
            .link
            .unless(Phase::Draining, &self.link.reader, read)
            .await;
        drop(listening);
        match outcome {
            None => Err(TransportError::Closed),
            Some(Err(error)) => Err(TransportError::io(Doing::Read, &error)),
            Some(Ok(0)) if self.decoder.is_mid_frame() => Err(TransportError::CutShort),
            Some(Ok(0)) => Err(TransportError::PeerClosed),
            Some(Ok(len)) => {
                note_read(len);
                self.link.heard();
                Ok(())
            }
        }
    }
}

impl Drop for FrameReceiver {
    fn drop(&mut self) {
        self.link.drain(TransportError::Closed);
    }
}

/// Counts bytes that came.
pub(crate) fn note_read(len: usize) {
    count(|metrics| {
        metrics.reads.bump();
        metrics.bytes_in.add(len);
    });
}

/// Counts frames that failed a checksum.
pub(crate) fn note_crc_error(error: &WireError) {
    if matches!(
        error,
        WireError::HeaderCrc { .. } | WireError::BodyCrc { .. }
    ) {
        count(|metrics| metrics.crc_errors.bump());
    }
}

/// Says that the receiver waits for the peer, until dropped: also when `recv` is cancelled.
struct Listening<'a>(&'a Link);

impl<'a> Listening<'a> {
    fn start(link: &'a Link) -> Self {
        link.set_listening(true);
        Self(link)
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.0.set_listening(false);
    }
}
