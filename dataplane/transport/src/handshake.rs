//! The exchange of Hellos.
//!
//! *Place*: between a fresh byte stream and a connection. *Owner*: the task that connects or
//! accepts. *Invariants*: both sides speak at once, so neither waits for the other and each learns
//! the other's version even when it refuses it; nothing but a short Hello is parsed.
//! *On failure*: the stream is dropped and nothing of it remains.

use crate::decoder::Decoder;
use crate::error::{Doing, TransportError};
use crate::frame::Frame;
use crate::hello::Hello;
use crate::metrics::count;
use crate::receiver::{note_crc_error, note_read};
use crate::stream::{Duplex, ReadEnd, WriteEnd};
use ogee_proto::wire::WireError;
use ogee_runtime::timeout;
use std::time::Duration;

/// Says `ours` and hears the peer's Hello, within `limit`.
pub(crate) async fn exchange(
    stream: &mut Duplex,
    decoder: &mut Decoder,
    ours: &Hello,
    limit: Duration,
) -> Result<Hello, TransportError> {
    let (read, write) = stream;
    let both = async {
        say(write, &ours.encode()).await?;
        hear(read, decoder).await
    };
    let elapsed = TransportError::HandshakeTimeout { limit };
    timeout(limit, both).await.unwrap_or(Err(elapsed))
}

async fn say(stream: &mut WriteEnd, hello: &Frame) -> Result<(), TransportError> {
    let mut bytes = hello.sealed_header().encode().to_vec();
    bytes.extend_from_slice(&hello.meta);
    stream
        .write_all(&bytes)
        .await
        .map_err(|error| TransportError::io(Doing::Write, &error))?;
    count(|metrics| {
        metrics.frames_out.bump();
        metrics.bytes_out.add(bytes.len());
        metrics.writes.bump();
    });
    Ok(())
}

async fn hear(stream: &mut ReadEnd, decoder: &mut Decoder) -> Result<Hello, TransportError> {
    loop {
        if let Some(hello) = decoder.next_hello().inspect_err(note_refusal)? {
            count(|metrics| metrics.frames_in.bump());
            return Ok(hello);
        }
        match decoder.fill(stream).await {
            Ok(0) if decoder.is_mid_frame() => return Err(TransportError::CutShort),
            Ok(0) => return Err(TransportError::PeerClosed),
            Ok(len) => note_read(len),
            Err(error) => return Err(TransportError::io(Doing::Read, &error)),
        }
    }
}

fn note_refusal(error: &TransportError) {
    if let TransportError::Wire(error @ WireError::Version { .. }) = error {
        tracing::warn!(%error, "peer refused");
    }
    if let TransportError::Wire(error) = error {
        note_crc_error(error);
    }
}
