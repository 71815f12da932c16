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
    source: Source,
    reads_in_turn: u32,
}

/// Where frames come from.
#[cfg_attr(
    feature = "rdma",
    expect(
        clippy::large_enum_variant,
        reason = "one of each connection, and most are streams"
    )
)]
enum Source {
    /// Bytes, decoded.
    Stream { read: ReadEnd, decoder: Decoder },
    /// What RDMA has completed.
    #[cfg(feature = "rdma")]
    Rdma(Rc<crate::rdma::Wire>),
}

impl FrameReceiver {
    pub(crate) const fn new(link: Rc<Link>, read: ReadEnd, decoder: Decoder) -> Self {
        Self {
            link,
            source: Source::Stream { read, decoder },
            reads_in_turn: 0,
        }
    }

    /// Of a connection over RDMA.
    #[cfg(feature = "rdma")]
    pub(crate) const fn over_rdma(link: Rc<Link>, wire: Rc<crate::rdma::Wire>) -> Self {
        Self {
            link,
            source: Source::Rdma(wire),
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
        match &mut self.source {
            Source::Stream { read, .. } => {
                let mut waste = BytesMut::with_capacity(CHUNK_MIN);
                let dry = async {
                    while let Ok(1..) = read.read_into(&mut waste).await {
                        waste.clear();
                    }
                };
                // Either way the connection is over.
                let _ = timeout(DRAIN_TIMEOUT, dry).await;
            }
            // Dropping it says that nobody reads; what was sent last is the driver's to see off.
            #[cfg(feature = "rdma")]
            Source::Rdma(_) => {}
        }
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
            match self.source.next()? {
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
        let read = self.source.fill();
        let outcome = self
            .link
            .unless(Phase::Draining, &self.link.reader, read)
            .await;
        drop(listening);
        outcome.unwrap_or(Err(TransportError::Closed))?;
        self.link.heard();
        Ok(())
    }
}

impl Source {
    /// The next frame, if it is here.
    #[inline]
    fn next(&mut self) -> Result<Option<Frame>, TransportError> {
        match self {
            Self::Stream { decoder, .. } => Ok(decoder.next().inspect_err(note_crc_error)?),
            #[cfg(feature = "rdma")]
            Self::Rdma(wire) => wire.next_frame(),
        }
    }

    /// Waits for more. Dropping it before it finishes loses nothing.
    #[inline]
    async fn fill(&mut self) -> Result<(), TransportError> {
        match self {
            Self::Stream { read, decoder } => match decoder.fill(read).await {
                Err(error) => Err(TransportError::io(Doing::Read, &error)),
                Ok(0) if decoder.is_mid_frame() => Err(TransportError::CutShort),
                Ok(0) => Err(TransportError::PeerClosed),
                Ok(len) => {
                    note_read(len);
                    Ok(())
                }
            },
            #[cfg(feature = "rdma")]
            Self::Rdma(wire) => {
                wire.news().await;
                count(|metrics| metrics.reads.bump());
                Ok(())
            }
        }
    }
}

impl Drop for FrameReceiver {
    fn drop(&mut self) {
        self.link.drain(TransportError::Closed);
        #[cfg(feature = "rdma")]
        if let Source::Rdma(wire) = &self.source {
            wire.stop_listening();
        }
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
