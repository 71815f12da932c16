//! The fixed header of every frame.

use super::{FrameKind, Status, WireError};
use crate::checksum::crc32c;
use crate::id::{
    ChunkIndex, ChunkKey, ClientId, CopysetId, Epoch, Incarnation, RequestId, Sequence, VolumeId,
};
use crate::limit::{FRAME_BODY_MAX, FRAME_HEADER_SIZE, FRAME_META_MAX, REPLICATION_PAYLOAD_MAX};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// "OGEF", little endian.
pub const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"OGEF");
/// Version of the frame layout and of every body behind it.
pub const WIRE_VERSION: u16 = 3;

/// The header as it stands on the wire: 128 bytes, little endian, no padding.
///
/// | at | size | field | meaning |
/// |---|---|---|---|
/// | 0 | 4 | magic | `OGEF` |
/// | 4 | 2 | version | [`WIRE_VERSION`] |
/// | 6 | 1 | kind | [`FrameKind`] |
/// | 7 | 1 | flags | zero |
/// | 8 | 8 | request id | echoed by the reply |
/// | 16 | 8 | volume | |
/// | 24 | 8 | epoch | of the attachment |
/// | 32 | 8 | sequence | of a mutating request |
/// | 40 | 8 | watermark | every sequence up to it has been acknowledged to the user |
/// | 48 | 8 | client | |
/// | 56 | 4 | copyset | |
/// | 60 | 4 | incarnation | |
/// | 64 | 4 | chunk | |
/// | 68 | 4 | offset | bytes within the chunk |
/// | 72 | 4 | length | bytes of the chunk that the request speaks of |
/// | 76 | 2 | status | of a reply |
/// | 78 | 2 | reserved | zero |
/// | 80 | 8 | stream | Raft stream, or the leader hint of a reply |
/// | 88 | 4 | meta length | structured bytes, first part of the body |
/// | 92 | 4 | payload length | data bytes, second part of the body |
/// | 96 | 4 | body crc | CRC32C over meta and payload |
/// | 100 | 24 | reserved | zero: capability and RDMA keys will stand here |
/// | 124 | 4 | header crc | CRC32C over bytes 0..124 |
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawHeader {
    magic: U32,
    version: U16,
    kind: u8,
    flags: u8,
    request_id: U64,
    volume: U64,
    epoch: U64,
    sequence: U64,
    watermark: U64,
    client: U64,
    copyset: U32,
    incarnation: U32,
    chunk: U32,
    offset: U32,
    length: U32,
    status: U16,
    reserved0: U16,
    stream: U64,
    meta_len: U32,
    payload_len: U32,
    body_crc: U32,
    reserved1: [u8; 24],
    header_crc: U32,
}

const _: () = assert!(size_of::<RawHeader>() == FRAME_HEADER_SIZE);
const CRC_AT: usize = FRAME_HEADER_SIZE - 4;

// The two parts are checked each against its own limit; together they stay within the body's.
const _: () = assert!(FRAME_META_MAX + REPLICATION_PAYLOAD_MAX <= FRAME_BODY_MAX);

/// A decoded header: every field in range, lengths within their limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// What the frame asks or answers.
    pub kind: FrameKind,
    /// Echoed by the reply.
    pub request_id: RequestId,
    /// The volume and chunk spoken of.
    pub key: ChunkKey,
    /// Epoch of the attachment.
    pub epoch: Epoch,
    /// Number of a mutating request; zero for others.
    pub sequence: Sequence,
    /// Every sequence up to it has been acknowledged to the user.
    pub watermark: Sequence,
    /// The attachment's user.
    pub client: ClientId,
    /// The copyset addressed.
    pub copyset: CopysetId,
    /// Restart count of the attachment's frontend.
    pub incarnation: Incarnation,
    /// Byte offset within the chunk.
    pub offset: u32,
    /// Bytes of the chunk that the request speaks of.
    pub length: u32,
    /// Outcome, in a reply.
    pub status: Status,
    /// Raft stream, or the leader hint of a reply (replica id, zero if unknown).
    pub stream: u64,
    /// Structured bytes at the front of the body.
    pub meta_len: u32,
    /// Data bytes behind them.
    pub payload_len: u32,
    /// CRC32C over the whole body.
    pub body_crc: u32,
}

impl FrameHeader {
    /// A header of `kind` with every other field zero.
    #[must_use]
    pub const fn new(kind: FrameKind, request_id: RequestId) -> Self {
        Self {
            kind,
            request_id,
            key: ChunkKey {
                volume: VolumeId::new(0),
                chunk: ChunkIndex::new(0),
            },
            epoch: Epoch::new(0),
            sequence: Sequence::new(0),
            watermark: Sequence::new(0),
            client: ClientId::new(0),
            copyset: CopysetId::new(0),
            incarnation: Incarnation::new(0),
            offset: 0,
            length: 0,
            status: Status::Ok,
            stream: 0,
            meta_len: 0,
            payload_len: 0,
            body_crc: 0,
        }
    }

    /// A reply to `request` that carries `status` and no body.
    #[must_use]
    pub const fn reply(request: &Self, status: Status) -> Self {
        let mut reply = *request;
        reply.kind = FrameKind::Reply;
        reply.status = status;
        reply.meta_len = 0;
        reply.payload_len = 0;
        reply.body_crc = 0;
        reply.stream = 0;
        reply
    }

    /// Bytes behind the header.
    #[must_use]
    pub const fn body_len(&self) -> usize {
        self.meta_len as usize + self.payload_len as usize
    }

    /// The bytes on the wire.
    #[must_use]
    pub fn encode(&self) -> [u8; FRAME_HEADER_SIZE] {
        let mut raw = RawHeader {
            magic: FRAME_MAGIC.into(),
            version: WIRE_VERSION.into(),
            kind: self.kind.encode(),
            flags: 0,
            request_id: self.request_id.get().into(),
            volume: self.key.volume.get().into(),
            epoch: self.epoch.get().into(),
            sequence: self.sequence.get().into(),
            watermark: self.watermark.get().into(),
            client: self.client.get().into(),
            copyset: self.copyset.get().into(),
            incarnation: self.incarnation.get().into(),
            chunk: self.key.chunk.get().into(),
            offset: self.offset.into(),
            length: self.length.into(),
            status: self.status.encode().into(),
            reserved0: 0.into(),
            stream: self.stream.into(),
            meta_len: self.meta_len.into(),
            payload_len: self.payload_len.into(),
            body_crc: self.body_crc.into(),
            reserved1: [0; 24],
            header_crc: 0.into(),
        };
        let (head, _) = raw.as_bytes().split_at(CRC_AT);
        raw.header_crc = crc32c(head).into();
        zerocopy::transmute!(raw)
    }

    /// Decodes and checks a header. Nothing behind it is touched.
    ///
    /// # Errors
    /// [`WireError`] that names the first field found wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let short = WireError::Short(bytes.len());
        let (raw, _) = RawHeader::ref_from_prefix(bytes).map_err(|_| short)?;
        check_frame(raw)?;
        check_reserved(raw)?;
        let meta_len = check_len("meta length", raw.meta_len.get(), FRAME_META_MAX)?;
        let payload_len = check_len(
            "payload length",
            raw.payload_len.get(),
            REPLICATION_PAYLOAD_MAX,
        )?;
        Ok(Self {
            kind: FrameKind::decode(raw.kind)?,
            request_id: RequestId::new(raw.request_id.get()),
            key: ChunkKey {
                volume: VolumeId::new(raw.volume.get()),
                chunk: ChunkIndex::new(raw.chunk.get()),
            },
            epoch: Epoch::new(raw.epoch.get()),
            sequence: Sequence::new(raw.sequence.get()),
            watermark: Sequence::new(raw.watermark.get()),
            client: ClientId::new(raw.client.get()),
            copyset: CopysetId::new(raw.copyset.get()),
            incarnation: Incarnation::new(raw.incarnation.get()),
            offset: raw.offset.get(),
            length: raw.length.get(),
            status: Status::decode(raw.status.get())?,
            stream: raw.stream.get(),
            meta_len,
            payload_len,
            body_crc: raw.body_crc.get(),
        })
    }
}

fn check_frame(raw: &RawHeader) -> Result<(), WireError> {
    if raw.magic.get() != FRAME_MAGIC {
        return Err(WireError::Magic(raw.magic.get()));
    }
    if raw.version.get() != WIRE_VERSION {
        return Err(WireError::Version {
            peer: raw.version.get(),
            ours: WIRE_VERSION,
        });
    }
    let (head, _) = raw.as_bytes().split_at(CRC_AT);
    let (expected, found) = (crc32c(head), raw.header_crc.get());
    if expected != found {
        return Err(WireError::HeaderCrc { expected, found });
    }
    Ok(())
}

/// Bytes without a meaning in this version must be zero, so that a later version may give them one
/// and be sure that no older peer has ever sent them otherwise.
fn check_reserved(raw: &RawHeader) -> Result<(), WireError> {
    let field = |field, value| match value {
        0 => Ok(()),
        value => Err(WireError::Field { field, value }),
    };
    field("flags", u64::from(raw.flags))?;
    field("reserved word", u64::from(raw.reserved0.get()))?;
    let tail = raw
        .reserved1
        .iter()
        .find(|byte| **byte != 0)
        .copied()
        .unwrap_or(0);
    field("reserved tail", u64::from(tail))
}

fn check_len(field: &'static str, value: u32, limit: usize) -> Result<u32, WireError> {
    if value as usize > limit {
        return Err(WireError::Length {
            field,
            value: value as usize,
            limit,
        });
    }
    Ok(value)
}
