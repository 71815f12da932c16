//! Frames from bytes.
//!
//! *Place*: between the byte stream and the receiver. *Owner*: one connection's receiver.
//!
//! *Invariants*: a frame comes out only after header and body checksums matched. A body is a slice
//! of the chunk that it was read into, and keeps it alive; a payload of 64 KiB and more that has
//! not arrived whole gets a buffer of its own, from which a device can take it, and the rest is read straight into that. Memory is
//! set aside only for lengths that a checked header announced, or for one chunk.
//!
//! *On failure*: the first error is final; the connection is closed, since framing is lost.

use crate::error::TransportError;
use crate::frame::Frame;
use crate::hello::Hello;
use crate::limit::{CHUNK_MAX, CHUNK_MIN, HELLO_META_MAX, LARGE_MIN, READ_AFTER_LARGE, READ_MIN};
use crate::metrics::count;
use crate::stream::ReadEnd;
use bytes::{Buf, Bytes, BytesMut};
use ogee_proto::checksum::{crc32c, crc32c_append, crc32c_append_block, crc32c_combine};
use ogee_proto::limit::{BLOCK_SIZE, FRAME_HEADER_SIZE};
use ogee_proto::wire::{FrameHeader, FrameKind, WireError};
use ogee_runtime::limit::BUFFER_ALIGNMENT;
use ogee_runtime::{Payload, seeded_bug};
use std::{io, mem};

/// Frames from bytes.
pub(crate) struct Decoder {
    chunk: BytesMut,
    /// Bytes of `chunk` that came from the peer, while a limited read has padded it.
    padded_from: Option<usize>,
    /// Size of the next chunk: grows with the traffic.
    chunk_len: usize,
    /// Decoded, with its body still to come.
    header: Option<FrameHeader>,
    /// A payload on its way into its own buffer.
    large: Option<Large>,
    /// The last frame was large, so the next is likely to be.
    after_large: bool,
}

struct Large {
    header: FrameHeader,
    meta: Bytes,
    /// Has room for all of it, and no more.
    payload: BytesMut,
    /// Over meta and what has come, but for a block that has not come whole.
    crc: u32,
    /// Of each block that has come whole.
    blocks: Vec<u32>,
    /// Over what has come of the next one.
    part: u32,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            chunk: BytesMut::new(),
            padded_from: None,
            chunk_len: CHUNK_MIN,
            header: None,
            large: None,
            after_large: false,
        }
    }
}

impl Decoder {
    /// The next frame, if it has arrived.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, WireError> {
        self.unpad(0);
        if self.large.is_some() {
            return self.finish_large();
        }
        let Some(header) = self.next_header()? else {
            return Ok(None);
        };
        if self.chunk.len() >= header.body_len() {
            return self.finish_small(header).map(Some);
        }
        let meta_len = header.meta_len as usize;
        if header.payload_len as usize >= LARGE_MIN && self.chunk.len() >= meta_len {
            self.start_large(header, meta_len);
        }
        Ok(None)
    }

    /// The peer's Hello, if it has arrived. Anything else is refused at its header.
    pub(crate) fn next_hello(&mut self) -> Result<Option<Hello>, TransportError> {
        let Some(header) = self.next_header()? else {
            return Ok(None);
        };
        if header.kind != FrameKind::Hello {
            return Err(TransportError::UnexpectedFrame { kind: header.kind });
        }
        if header.body_len() > HELLO_META_MAX {
            let (field, limit) = ("hello", HELLO_META_MAX);
            return Err(WireError::Length {
                field,
                value: header.body_len(),
                limit,
            }
            .into());
        }
        match self.next()? {
            Some(frame) => Ok(Some(Hello::decode(&frame.meta)?)),
            None => Ok(None),
        }
    }

    /// Whether a part of a frame has arrived.
    pub(crate) fn is_mid_frame(&self) -> bool {
        self.header.is_some() || self.large.is_some() || !self.chunk.is_empty()
    }

    /// Reads once from the peer; zero is the end. Dropping it before it finishes loses nothing.
    pub(crate) async fn fill(&mut self, from: &mut ReadEnd) -> io::Result<usize> {
        self.unpad(0);
        if let Some(large) = &mut self.large {
            let count = from.read_into(&mut large.payload).await?;
            large.note(count);
            return Ok(count);
        }
        if self.after_large && self.chunk.is_empty() && self.header.is_none() {
            return self.fill_little(from).await;
        }
        self.make_room();
        let count = from.read_into(&mut self.chunk).await?;
        if count >= self.chunk_len / 2 {
            self.chunk_len = CHUNK_MAX.min(self.chunk_len * 2);
        }
        Ok(count)
    }

    /// Reads little, so that little of a large payload has to be copied into its buffer.
    async fn fill_little(&mut self, from: &mut ReadEnd) -> io::Result<usize> {
        self.chunk.resize(READ_AFTER_LARGE, 0);
        self.padded_from = Some(0);
        let count = from.read(&mut self.chunk).await?;
        self.unpad(count);
        Ok(count)
    }

    /// Removes the padding of a limited read that returned `count` bytes, or was dropped.
    fn unpad(&mut self, count: usize) {
        if let Some(len) = self.padded_from.take() {
            self.chunk.truncate(len + count);
        }
    }

    fn next_header(&mut self) -> Result<Option<FrameHeader>, WireError> {
        if self.header.is_none() && self.chunk.len() >= FRAME_HEADER_SIZE {
            self.header = Some(FrameHeader::decode(&self.chunk)?);
            self.chunk.advance(FRAME_HEADER_SIZE);
        }
        Ok(self.header)
    }

    fn finish_small(&mut self, header: FrameHeader) -> Result<Frame, WireError> {
        self.header = None;
        self.after_large = header.payload_len as usize >= LARGE_MIN;
        if header.body_len() == 0 {
            check_body(&header, 0)?;
            return Ok(Frame::new(header));
        }
        let mut body = self.chunk.split_to(header.body_len()).freeze();
        check_body(&header, crc32c(&body))?;
        let meta = body.split_to(header.meta_len as usize);
        let payload = Payload::from(detached(body));
        Ok(Frame::of_parts(header, detached(meta), payload))
    }

    fn start_large(&mut self, header: FrameHeader, meta_len: usize) {
        self.header = None;
        let meta = detached(self.chunk.split_to(meta_len).freeze());
        let payload = aligned(header.payload_len as usize);
        let crc = crc32c(&meta);
        let mut large = Large {
            header,
            meta,
            payload,
            crc,
            blocks: Vec::with_capacity(header.payload_len as usize / BLOCK_SIZE),
            part: crc32c(&[]),
        };
        let here = self.chunk.len();
        large.payload.extend_from_slice(&self.chunk);
        large.note(here);
        self.chunk.clear();
        self.large = Some(large);
        count(|metrics| metrics.copied_in(here));
    }

    fn finish_large(&mut self) -> Result<Option<Frame>, WireError> {
        let Some(large) = self
            .large
            .take_if(|large| large.payload.len() == large.header.payload_len as usize)
        else {
            return Ok(None);
        };
        self.after_large = true;
        check_body(&large.header, large.total())?;
        let mut payload = Payload::from(large.payload.freeze());
        if payload.len().is_multiple_of(BLOCK_SIZE) {
            payload = payload.with_block_crcs(BLOCK_SIZE, large.blocks);
        }
        Ok(Some(Frame::of_parts(large.header, large.meta, payload)))
    }

    /// Makes room for what is missing of the current frame, in a fresh chunk when little is left
    /// of this one.
    fn make_room(&mut self) {
        let missing = self.wanted().saturating_sub(self.chunk.len());
        let room = self.chunk.capacity() - self.chunk.len();
        if room < missing.max(READ_MIN) {
            count(|metrics| metrics.copied_in(self.chunk.len()));
            self.chunk
                .reserve(missing.max(self.chunk_len.saturating_sub(self.chunk.len())));
        }
    }

    /// Bytes that must stand together in the chunk before the next step.
    const fn wanted(&self) -> usize {
        match &self.header {
            None => FRAME_HEADER_SIZE,
            Some(header) if header.payload_len as usize >= LARGE_MIN => header.meta_len as usize,
            Some(header) => header.body_len(),
        }
    }
}

impl Large {
    fn note(&mut self, count: usize) {
        let mut before = self.payload.len() - count;
        while before < self.payload.len() {
            let end = self
                .payload
                .len()
                .min(before - before % BLOCK_SIZE + BLOCK_SIZE);
            self.part = crc32c_append(self.part, &self.payload[before..end]);
            if end.is_multiple_of(BLOCK_SIZE) {
                self.crc = crc32c_append_block(self.crc, self.part);
                self.blocks.push(mem::replace(&mut self.part, crc32c(&[])));
            }
            before = end;
        }
    }

    /// The checksum of the whole body.
    fn total(&self) -> u32 {
        match self.payload.len() % BLOCK_SIZE {
            0 => self.crc,
            rest => crc32c_combine(self.crc, self.part, rest),
        }
    }
}

/// Room for `len` bytes, and no more, from which a device can take them.
pub(crate) fn aligned(len: usize) -> BytesMut {
    let mut whole = BytesMut::with_capacity(len + BUFFER_ALIGNMENT - 1);
    let mut room = whole.split_off(whole.as_ptr().align_offset(BUFFER_ALIGNMENT));
    let _rest = room.split_off(len);
    room
}

/// An empty part must not keep a chunk alive.
fn detached(part: Bytes) -> Bytes {
    if part.is_empty() { Bytes::new() } else { part }
}

fn check_body(header: &FrameHeader, found: u32) -> Result<(), WireError> {
    if found == header.body_crc || seeded_bug!("body-crc-not-checked") {
        return Ok(());
    }
    Err(WireError::BodyCrc {
        expected: found,
        found: header.body_crc,
    })
}
