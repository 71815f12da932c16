//! One message: header, structured part, data part.

use crate::error::SendError;
#[cfg(feature = "rdma")]
use crate::metrics::count;
use bytes::Bytes;
use ogee_proto::checksum::{crc32c, crc32c_append, crc32c_append_blocks};
use ogee_proto::limit::{BLOCK_SIZE, FRAME_HEADER_SIZE, FRAME_META_MAX, REPLICATION_PAYLOAD_MAX};
use ogee_proto::wire::FrameHeader;
#[cfg(feature = "rdma")]
use ogee_runtime::Buffer;
use ogee_runtime::{Loan, Payload};
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
    /// What goes out in the payload's place. Few frames have it, and all of them are moved.
    parts: Option<Box<Parts>>,
    /// Where its answer's payload is wanted.
    into: Option<Loan>,
}

/// A payload in parts, as whoever sends it has them.
#[derive(Clone)]
struct Parts {
    parts: Vec<Payload>,
    /// CRC32C of all of them, if it is known.
    crc: Option<u32>,
}

impl Frame {
    /// A frame without a body.
    #[must_use]
    pub fn new(header: FrameHeader) -> Self {
        Self {
            header,
            meta: Bytes::new(),
            payload: Payload::empty(),
            parts: None,
            into: None,
        }
    }

    /// A frame that carries data only.
    #[must_use]
    pub fn with_payload(header: FrameHeader, payload: impl Into<Payload>) -> Self {
        Self::of_parts(header, Bytes::new(), payload.into())
    }

    /// A frame of both parts.
    #[must_use]
    pub const fn of_parts(header: FrameHeader, meta: Bytes, payload: Payload) -> Self {
        Self {
            header,
            meta,
            payload,
            parts: None,
            into: None,
        }
    }

    /// Where the payload of its answer is wanted: a carrier that can has the peer write there, and the answer's payload is
    /// then these bytes. The loan is over when the frame is gone, or the answer is, or nobody can write there any more.
    pub fn set_into(&mut self, into: Option<Loan>) {
        self.into = into;
    }

    /// See [`Self::set_into`].
    #[cfg(feature = "rdma")]
    pub(crate) const fn wanted_at(&self) -> Option<&Loan> {
        self.into.as_ref()
    }

    /// Sends these parts one behind the other as the payload, without joining them here. `crc` is the CRC32C of
    /// all of them, if it is known: that saves a pass over them, and a wrong one is found by whoever receives the
    /// frame, as one that was damaged on the way.
    pub fn set_parts(&mut self, parts: Vec<Payload>, crc: Option<u32>) {
        self.payload = Payload::empty();
        self.parts = Some(Box::new(Parts { parts, crc }));
    }

    /// What follows the header on the wire goes to `add`, in order.
    pub(crate) fn into_body(self, mut add: impl FnMut(Payload)) {
        add(Payload::from(self.meta));
        match self.parts {
            None => add(self.payload),
            Some(parts) => parts.parts.into_iter().for_each(add),
        }
    }

    /// Bytes of the whole payload.
    pub(crate) fn payload_len(&self) -> usize {
        match &self.parts {
            None => self.payload.len(),
            Some(parts) => parts.len(),
        }
    }

    /// The frame with its payload in one piece, for a carrier that takes no other.
    #[cfg(feature = "rdma")]
    pub(crate) fn in_one_piece(mut self) -> Self {
        if let Some(parts) = self.parts.take() {
            self.payload = parts.joined();
        }
        self
    }

    /// Bytes on the wire.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        FRAME_HEADER_SIZE + self.meta.len() + self.payload_len()
    }

    /// Checks both parts against their limits.
    pub(crate) fn check_len(&self) -> Result<(), SendError> {
        check("meta", self.meta.len(), FRAME_META_MAX)?;
        check("payload", self.payload_len(), REPLICATION_PAYLOAD_MAX)
    }

    /// The header as it goes out: lengths and checksum of the body filled in.
    ///
    /// # Panics
    /// When a part is past its limit: `check_len` stands before.
    pub(crate) fn sealed_header(&self) -> FrameHeader {
        let mut header = self.header;
        header.meta_len = u32::try_from(self.meta.len()).expect("checked against FRAME_META_MAX");
        header.payload_len =
            u32::try_from(self.payload_len()).expect("checked against REPLICATION_PAYLOAD_MAX");
        header.body_crc = self.body_crc();
        header
    }

    fn body_crc(&self) -> u32 {
        let meta = crc32c(&self.meta);
        match &self.parts {
            None => crc32c_append(meta, &self.payload),
            Some(parts) => parts.append_crc(meta),
        }
    }
}

impl Parts {
    fn len(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }

    /// Continues the checksum of what stands before them.
    fn append_crc(&self, before: u32) -> u32 {
        let len = self.len();
        match self.crc {
            Some(crc) if len.is_multiple_of(BLOCK_SIZE) => {
                crc32c_append_blocks(before, crc, len / BLOCK_SIZE)
            }
            _ => self
                .parts
                .iter()
                .fold(before, |crc, part| crc32c_append(crc, part)),
        }
    }

    /// One payload of them; a single one is not copied.
    #[cfg(feature = "rdma")]
    fn joined(mut self) -> Payload {
        if self.parts.len() <= 1 {
            return self.parts.pop().unwrap_or_default();
        }
        let len = self.len();
        count(|metrics| metrics.copied_out(len));
        // Where it is sent from, if there is room.
        if let Some(mut joined) = Buffer::for_transfer(len) {
            let parts = self.parts.iter();
            parts.for_each(|part| joined.extend_from_slice(part));
            return joined.into();
        }
        let mut joined = Vec::with_capacity(len);
        let parts = self.parts.iter();
        parts.for_each(|part| joined.extend_from_slice(part));
        Payload::from(joined)
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("header", &self.header)
            .field("meta_len", &self.meta.len())
            .field("payload_len", &self.payload_len())
            .finish()
    }
}

fn check(field: &'static str, len: usize, limit: usize) -> Result<(), SendError> {
    if len > limit {
        return Err(SendError::TooLong { field, len, limit });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ogee_proto::id::RequestId;
    use ogee_proto::wire::FrameKind;

    fn frame(parts: &[Vec<u8>], crc: Option<u32>) -> Frame {
        let header = FrameHeader::new(FrameKind::Write, RequestId::new(1));
        let meta = Bytes::from_static(b"what stands before");
        let mut frame = Frame::of_parts(header, meta, Payload::empty());
        let parts = parts.iter().map(|part| Payload::from(part.clone()));
        frame.set_parts(parts.collect(), crc);
        frame
    }

    #[test]
    fn parts_are_sealed_as_the_whole_is() {
        let parts = [vec![1; 5], Vec::new(), vec![2; BLOCK_SIZE], vec![3; 4]];
        for count in 0..=parts.len() {
            let parts = &parts[..count];
            let (many, one) = (frame(parts, None), frame(&[parts.concat()], None));
            let (many, one) = (many.sealed_header(), one.sealed_header());
            assert_eq!(many.encode(), one.encode());
        }
    }

    #[test]
    fn a_known_sum_seals_as_a_pass_over_the_payload_does() {
        for len in [0, 1, BLOCK_SIZE, BLOCK_SIZE + 1, 3 * BLOCK_SIZE] {
            let parts = [vec![7; len], vec![8; BLOCK_SIZE]];
            let crc = crc32c(&parts.concat());
            let sealed = |crc| frame(&parts, crc).sealed_header().body_crc;
            let passed = sealed(None);
            assert_eq!(sealed(Some(crc)), passed);
            // It is taken at its word where it saves a pass, and only there.
            let is_ignored = sealed(Some(!crc)) == passed;
            assert_eq!(is_ignored, !len.is_multiple_of(BLOCK_SIZE));
        }
    }
}
