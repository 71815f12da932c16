//! The decoder by itself, for fuzzing: bytes in, frames out, without a connection around it.
//!
//! *Place*: beside the receiver, under the fuzz targets and this crate's tests. *Owner*: the caller.
//! *Invariants*: as the decoder's. *On failure*: the decoder's error is part of the result.

use crate::decoder::Decoder;
use crate::error::{Doing, TransportError};
use crate::frame::Frame;
use crate::hello::Hello;
use crate::limit::LOOPBACK_PIPE_MAX;
use crate::stream::{LoopbackListener, ReadEnd, connect_loopback};
use futures_util::FutureExt;
use ogee_proto::wire::WireError;

/// What came of some bytes.
#[derive(Debug, Default)]
pub struct Decoded {
    /// The peer's Hello, if one was expected and came.
    pub hello: Option<Hello>,
    /// Frames, in order.
    pub frames: Vec<Frame>,
    /// Why nothing more was decoded.
    pub error: Option<TransportError>,
}

/// Decodes `bytes`, which arrive in pieces as long as `piece` says (at least 1).
///
/// # Panics
/// When the loopback pipe under the decoder fails, which has no cause to.
pub fn decode(bytes: &[u8], expects_hello: bool, piece: impl FnMut() -> usize) -> Decoded {
    let mut decoded = Decoded::default();
    let outcome = feed(bytes, expects_hello, piece, &mut decoded).now_or_never();
    decoded.error = outcome
        .expect("invariant: nothing is awaited that is not there")
        .err();
    decoded
}

async fn feed(
    bytes: &[u8],
    expects_hello: bool,
    mut piece: impl FnMut() -> usize,
    decoded: &mut Decoded,
) -> Result<(), TransportError> {
    let fails = |error: std::io::Error| TransportError::io(Doing::Read, &error);
    let mut listener = LoopbackListener::bind("fuzzing").map_err(fails)?;
    let (_, mut write) = connect_loopback("fuzzing").map_err(fails)?;
    // Both ends of both directions stay, or the pipe would end.
    let (mut read, _back) = listener.accept().await.map_err(fails)?;
    let mut decoder = Decoder::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        let len = piece().clamp(1, rest.len().min(LOOPBACK_PIPE_MAX));
        let (now, later) = rest.split_at(len);
        write.write_all(now).await.map_err(fails)?;
        arrive(&mut decoder, &mut read, len, expects_hello, decoded).await?;
        rest = later;
    }
    Ok(())
}

/// Takes what has arrived, as a receiver does: whatever is whole first, then one read.
async fn arrive(
    decoder: &mut Decoder,
    read: &mut ReadEnd,
    len: usize,
    expects_hello: bool,
    decoded: &mut Decoded,
) -> Result<(), TransportError> {
    let mut arrived = 0;
    while arrived < len {
        let count = decoder.fill(read).await;
        arrived += count.map_err(|error| TransportError::io(Doing::Read, &error))?;
        if expects_hello && decoded.hello.is_none() {
            decoded.hello = decoder.next_hello()?;
        }
        if !expects_hello || decoded.hello.is_some() {
            while let Some(frame) = decoder.next()? {
                decoded.frames.push(frame);
            }
        }
    }
    Ok(())
}

/// What a message over RDMA says of itself, from the front of `bytes`: as it is encoded again.
///
/// # Errors
/// As the receiver's.
#[cfg(feature = "fuzzing")]
pub fn decode_rdma_prefix(bytes: &[u8]) -> Result<Vec<u8>, WireError> {
    crate::rdma::decode_prefix(bytes)
}

/// The bytes of a frame on the wire.
#[must_use]
pub fn encode(frame: &Frame) -> Vec<u8> {
    let header = frame.sealed_header().encode();
    [&header[..], &frame.meta, &frame.payload].concat()
}

/// The bytes of a Hello on the wire.
#[must_use]
pub fn encode_hello(hello: &Hello) -> Vec<u8> {
    encode(&hello.encode())
}

/// A Hello from the structured part of its frame.
///
/// # Errors
/// As the handshake's.
pub fn decode_hello(meta: &[u8]) -> Result<Hello, WireError> {
    Hello::decode(meta)
}
