//! The receiving side of a connection.
//!
//! *Place*: under `connection` and `transmit`. *Owner*: one task. *Invariants*: nothing is
//! allocated for a length that the caller has not bounded; what is not wanted is skipped in a
//! buffer of constant size. *On failure*: the end of the stream is no error between two messages,
//! and one within.

use super::error::ConnectionError;
use crate::limit::{INLINE_PAYLOAD_MAX, READ_CHUNK, READ_ROOM_MIN};
use bytes::{Buf, BytesMut};
use ogee_runtime::Payload;
use ogee_runtime::net::ReadHalf;

/// Bytes as they come.
pub(super) struct Input {
    half: ReadHalf,
    buffer: BytesMut,
}

impl Input {
    pub(super) fn new(half: ReadHalf) -> Self {
        Self {
            half,
            buffer: BytesMut::new(),
        }
    }

    /// The fixed part of the next message; `None` if the client has left instead.
    pub(super) async fn message<const N: usize>(
        &mut self,
    ) -> Result<Option<[u8; N]>, ConnectionError> {
        while self.buffer.len() < N {
            if !self.fill().await? {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(ConnectionError::Truncated),
                };
            }
        }
        let mut message = [0; N];
        self.buffer.copy_to_slice(&mut message);
        Ok(Some(message))
    }

    /// The next `len` bytes: small ones as a slice of what has come, large ones read to where
    /// they stay.
    pub(super) async fn payload(&mut self, len: usize) -> Result<Payload, ConnectionError> {
        if len > INLINE_PAYLOAD_MAX {
            return self.large_payload(len).await;
        }
        while self.buffer.len() < len {
            if !self.fill().await? {
                return Err(ConnectionError::Truncated);
            }
        }
        Ok(self.buffer.split_to(len).freeze().into())
    }

    /// Throws the next `len` bytes away.
    pub(super) async fn skip(&mut self, len: usize) -> Result<(), ConnectionError> {
        let mut rest = len;
        loop {
            let count = rest.min(self.buffer.len());
            self.buffer.advance(count);
            rest -= count;
            if rest == 0 {
                return Ok(());
            }
            if !self.fill().await? {
                return Err(ConnectionError::Truncated);
            }
        }
    }

    async fn large_payload(&mut self, len: usize) -> Result<Payload, ConnectionError> {
        // Fresh zeroed memory of this size costs nothing until it is written.
        let mut data = vec![0; len];
        let mut filled = len.min(self.buffer.len());
        self.buffer.copy_to_slice(&mut data[..filled]);
        while filled < len {
            match self.half.read(&mut data[filled..]).await? {
                0 => return Err(ConnectionError::Truncated),
                count => filled += count,
            }
        }
        Ok(data.into())
    }

    /// Reads what is there; false at the end of the stream.
    async fn fill(&mut self) -> Result<bool, ConnectionError> {
        if self.buffer.capacity() - self.buffer.len() < READ_ROOM_MIN {
            self.buffer.reserve(READ_CHUNK);
        }
        let count = self.half.read_into(&mut self.buffer).await?;
        Ok(count > 0)
    }
}
