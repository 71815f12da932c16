//! One message: header, structured part, data part.

use crate::error::SendError;
use bytes::Bytes;
use ogee_proto::checksum::{crc32c, crc32c_append};
use ogee_proto::limit::{FRAME_HEADER_SIZE, FRAME_META_MAX, REPLICATION_PAYLOAD_MAX};
use ogee_proto::wire::FrameHeader;
use ogee_runtime::Payload;
use std::fmt;

/// One message. Whoever sends it need not fill `meta_len`, `payload_len` and `body_crc` of the
/// header: sending does. In a received frame they are checked and true.
///
/// Cloning is cheap: the bytes are shared.
#[derive(Clone)]
pub struct Frame {
    /// The fixed part.
    pub header: FrameHeader,
    /// Structured bytes, at most 256 KiB.
    pub meta: Bytes,
    /// Data bytes, at most 1 MiB.
    pub payload: Payload,
}

impl Frame {
    /// A frame without a body.
    #[must_use]
    pub fn new(header: FrameHeader) -> Self {
        Self {
            header,
            meta: Bytes::new(),
            payload: Payload::empty(),
        }
    }

    /// A frame that carries data only.
    #[must_use]
    pub fn with_payload(header: FrameHeader, payload: impl Into<Payload>) -> Self {
        Self {
            header,
            meta: Bytes::new(),
            payload: payload.into(),
        }
    }

    /// Bytes on the wire.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        FRAME_HEADER_SIZE + self.meta.len() + self.payload.len()
    }

    /// Checks both parts against their limits.
    pub(crate) fn check_len(&self) -> Result<(), SendError> {
        check("meta", self.meta.len(), FRAME_META_MAX)?;
        check("payload", self.payload.len(), REPLICATION_PAYLOAD_MAX)
    }

    /// The header as it goes out: lengths and checksum of the body filled in.
    ///
    /// # Panics
    /// When a part is past its limit: `check_len` stands before.
    pub(crate) fn sealed_header(&self) -> FrameHeader {
        let mut header = self.header;
        header.meta_len = u32::try_from(self.meta.len()).expect("checked against FRAME_META_MAX");
        header.payload_len =
            u32::try_from(self.payload.len()).expect("checked against REPLICATION_PAYLOAD_MAX");
        header.body_crc = crc32c_append(crc32c(&self.meta), &self.payload);
        header
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("header", &self.header)
            .field("meta_len", &self.meta.len())
            .field("payload_len", &self.payload.len())
            .finish()
    }
}

fn check(field: &'static str, len: usize, limit: usize) -> Result<(), SendError> {
    if len > limit {
        return Err(SendError::TooLong { field, len, limit });
    }
    Ok(())
}
