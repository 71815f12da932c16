//! What a log entry says: the command and, by handle, its payload.
//!
//! The head is small and travels everywhere. The payload stays where it is: neither apply nor
//! replay touches it (DESIGN section 4.4).

use crate::limit::{COMMAND_HEAD_LEN, PIECE_LEN, REDIRECT_LEN_MIN};
use ogee_proto::id::{ChunkIndex, ChunkKey, ClientId, Epoch, Incarnation, Sequence, VolumeId};
use ogee_proto::limit::{BLOCK_SIZE, CHUNK_SIZE, EXTENT_SIZE};
use ogee_proto::wire::{Reader, Status, WireError, Writer};
use ogee_runtime::Payload;
use std::fmt;

/// What a command does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommandKind {
    /// Blocks take the payload's bytes.
    Write,
    /// Blocks become unallocated and read as zeros.
    Discard,
    /// Blocks read as zeros.
    WriteZeroes,
    /// The volume's attachment becomes (client, epoch, incarnation): older ones are refused.
    Seal,
    /// Every replica digests its contents as of this entry; `sequence` names the digest. With a length of
    /// `limit::PIECE_LEN` it is about that piece of the chunk only, and `watermark` 1 says that somebody waits for it.
    Digest,
    /// The volume is gone: its chunks are given back.
    RemoveVolume,
    /// Blocks in which replicas differ take what most of them have, which is the payload. It takes effect only in
    /// the term in which that was found out, `epoch`: see `compare`.
    Rewrite,
}

impl CommandKind {
    /// Whether its payload becomes the contents of blocks.
    #[must_use]
    pub const fn brings_data(self) -> bool {
        matches!(self, Self::Write | Self::Rewrite)
    }

    /// Whether it is a client's, and changes blocks.
    #[must_use]
    pub const fn is_clients_change(self) -> bool {
        matches!(self, Self::Write | Self::Discard | Self::WriteZeroes)
    }

    /// Whether it changes blocks of one chunk.
    #[must_use]
    pub const fn changes_blocks(self) -> bool {
        self.is_clients_change() || self.brings_data()
    }

    const fn encode(self) -> u8 {
        match self {
            Self::Write => 1,
            Self::Discard => 2,
            Self::WriteZeroes => 3,
            Self::Seal => 4,
            Self::Digest => 5,
            Self::RemoveVolume => 6,
            Self::Rewrite => 7,
        }
    }

    fn decode(raw: u8) -> Result<Self, WireError> {
        Ok(match raw {
            1 => Self::Write,
            2 => Self::Discard,
            3 => Self::WriteZeroes,
            4 => Self::Seal,
            5 => Self::Digest,
            6 => Self::RemoveVolume,
            7 => Self::Rewrite,
            _ => {
                return Err(WireError::Field {
                    field: "command kind",
                    value: raw.into(),
                });
            }
        })
    }
}

/// The fixed part of a command, as it stands in a log record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommandHead {
    /// What it does.
    pub kind: CommandKind,
    /// Chunk it speaks of; a seal speaks of the volume only.
    pub key: ChunkKey,
    /// Byte offset in the chunk, a multiple of the block size.
    pub offset: u32,
    /// Bytes, a multiple of the block size.
    pub length: u32,
    /// The attachment's user.
    pub client: ClientId,
    /// The attachment's epoch.
    pub epoch: Epoch,
    /// The frontend's restart count.
    pub incarnation: Incarnation,
    /// The request's number in its session.
    pub sequence: Sequence,
    /// Everything up to here has been acknowledged to the user.
    pub watermark: Sequence,
}

impl CommandHead {
    /// Whether the range is whole blocks within a chunk.
    #[must_use]
    pub fn is_in_range(&self) -> bool {
        let (offset, length) = (self.offset as usize, self.length as usize);
        offset.is_multiple_of(BLOCK_SIZE)
            && length.is_multiple_of(BLOCK_SIZE)
            && length > 0
            && offset
                .checked_add(length)
                .is_some_and(|end| end <= CHUNK_SIZE)
    }

    /// Whether it is a digest of one piece.
    #[must_use]
    pub const fn is_of_piece(&self) -> bool {
        matches!(self.kind, CommandKind::Digest)
            && self.length as usize == PIECE_LEN
            && (self.offset as usize).is_multiple_of(PIECE_LEN)
            && (self.offset as usize) < CHUNK_SIZE
    }

    /// Whether it is of a comparison of replicas, which nobody has asked for.
    pub(crate) const fn is_of_comparison(&self) -> bool {
        self.is_of_piece() || matches!(self.kind, CommandKind::Rewrite)
    }

    /// Index of the first block.
    #[must_use]
    pub const fn first_block(&self) -> usize {
        self.offset as usize / BLOCK_SIZE
    }

    /// Number of blocks.
    #[must_use]
    pub const fn block_count(&self) -> usize {
        self.length as usize / BLOCK_SIZE
    }

    /// Appends the encoded head.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Writer::new(out)
            .u8(self.kind.encode())
            .u8(0)
            .u64(self.key.volume.get())
            .u32(self.key.chunk.get())
            .u32(self.offset)
            .u32(self.length)
            .u64(self.client.get())
            .u64(self.epoch.get())
            .u32(self.incarnation.get())
            .u64(self.sequence.get())
            .u64(self.watermark.get())
            .u64(0);
    }

    /// Decodes a head.
    ///
    /// # Errors
    /// [`WireError`] naming the field.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut from = Reader::new(bytes);
        let kind = CommandKind::decode(from.u8("command kind")?)?;
        let _flags = from.u8("command flags")?;
        let volume = VolumeId::new(from.u64("volume")?);
        let chunk = ChunkIndex::new(from.u32("chunk")?);
        Ok(Self {
            kind,
            key: ChunkKey { volume, chunk },
            offset: from.u32("offset")?,
            length: from.u32("length")?,
            client: ClientId::new(from.u64("client")?),
            epoch: Epoch::new(from.u64("epoch")?),
            incarnation: Incarnation::new(from.u32("incarnation")?),
            sequence: Sequence::new(from.u64("sequence")?),
            watermark: Sequence::new(from.u64("watermark")?),
        })
    }
}

/// Where an entry's payload is.
#[derive(Clone, Default)]
pub enum PayloadRef {
    /// The entry has none.
    #[default]
    None,
    /// In memory.
    Memory {
        /// The bytes.
        bytes: Payload,
        /// Their CRC32C, as the client computed it.
        crc: u32,
    },
    /// In this replica's log, under the entry's index.
    Log {
        /// Bytes.
        len: u32,
        /// Their CRC32C.
        crc: u32,
    },
}

impl PayloadRef {
    /// Bytes of payload.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Memory { bytes, .. } => bytes.len(),
            Self::Log { len, .. } => *len as usize,
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// CRC32C of the payload; zero for none.
    #[must_use]
    pub const fn crc(&self) -> u32 {
        match self {
            Self::None => 0,
            Self::Memory { crc, .. } | Self::Log { crc, .. } => *crc,
        }
    }
}

/// A log entry's command.
#[derive(Clone)]
pub struct Command {
    /// What to do.
    pub head: CommandHead,
    /// With what bytes.
    pub payload: PayloadRef,
}

impl Command {
    /// Extents that the command fills, if it is a write that fills only whole ones: such a payload is
    /// worth a place of its own. Clients split at borders of chunks and stripes, both whole extents.
    #[must_use]
    pub fn extents(&self) -> usize {
        let (offset, length) = (self.head.offset as usize, self.head.length as usize);
        let is_whole = self.head.kind == CommandKind::Write
            && self.head.is_in_range()
            && self.payload.len() == length
            && length >= REDIRECT_LEN_MIN
            && offset.is_multiple_of(EXTENT_SIZE)
            && length.is_multiple_of(EXTENT_SIZE);
        if is_whole { length / EXTENT_SIZE } else { 0 }
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = &self.head;
        write!(
            f,
            "{:?} {} {}+{}",
            head.kind, head.key, head.offset, head.length
        )
    }
}

/// What apply answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Applied {
    /// Outcome for the client.
    pub status: Status,
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.status.text())
    }
}

const _: () = assert!(COMMAND_HEAD_LEN == 2 + 8 + 4 + 4 + 4 + 8 + 8 + 4 + 8 + 8 + 8);

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> CommandHead {
        CommandHead {
            kind: CommandKind::Write,
            key: ChunkKey {
                volume: VolumeId::new(7),
                chunk: ChunkIndex::new(9),
            },
            offset: 8192,
            length: 4096,
            client: ClientId::new(3),
            epoch: Epoch::new(4),
            incarnation: Incarnation::new(5),
            sequence: Sequence::new(6),
            watermark: Sequence::new(2),
        }
    }

    #[test]
    fn head_survives_its_encoding() {
        let mut bytes = Vec::new();
        head().encode(&mut bytes);
        assert_eq!(bytes.len(), COMMAND_HEAD_LEN);
        assert_eq!(CommandHead::decode(&bytes), Ok(head()));
    }

    #[test]
    fn short_or_unknown_heads_are_refused() {
        let mut bytes = Vec::new();
        head().encode(&mut bytes);
        for len in 0..COMMAND_HEAD_LEN - 8 {
            assert!(CommandHead::decode(&bytes[..len]).is_err(), "{len} bytes");
        }
        bytes[0] = 99;
        let refused = WireError::Field {
            field: "command kind",
            value: 99,
        };
        assert_eq!(CommandHead::decode(&bytes), Err(refused));
    }

    #[test]
    fn ranges_are_whole_blocks_within_a_chunk() {
        let with = |offset, length| {
            CommandHead {
                offset,
                length,
                ..head()
            }
            .is_in_range()
        };
        assert!(with(0, 4096));
        assert!(with(0, 16 << 20));
        assert!(!with(0, 0));
        assert!(!with(512, 4096));
        assert!(!with(4096, 16 << 20));
        assert!(!with(4096, 4000));
    }
}
