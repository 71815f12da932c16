//! Questions about a piece, and answers, as frames.
//!
//! A question is a `Digest` frame with `length` [`ASK_PIECE`], which a program that does not know it refuses; `sequence` is
//! the digest's number, or 0 to ask for nothing but whether it knows; `epoch` is the replica that is asked. Its meta lists
//! what is disputed: places `u16`, and of each volume `u64`, chunk `u32`, piece `u8`, blocks `u16`, each `u16`.
//!
//! The meta of an answer: what came of it `u8` (0 sums, 1 ask for another digest, 2 not yet, 3 not now); with sums applied
//! term `u64` and index `u64`, whether there is another piece `u8`, its volume `u64`, chunk `u32` and number `u8`, then of
//! each block what it is `u8` (0 zeros, 1 data, 2 damaged) and its CRC32C `u32`. All little endian.

use super::dispute::Disputed;
use super::piece::{BlockSum, PieceSums, Place};
use crate::codec::{get_chunk_key, put_chunk_key, unknown};
use crate::limit::{DISPUTES_MAX, PIECE_BLOCKS};
use ogee_proto::id::LogId;
#[cfg(test)]
use ogee_proto::id::{ChunkIndex, ChunkKey, VolumeId};
use ogee_proto::unit::BlockIndex;
use ogee_proto::wire::{Reader, WireError, Writer};

/// The `length` of a frame that asks about a piece; 0 and 1 are of digests of everything.
pub const ASK_PIECE: u32 = 2;

/// What a replica says about a piece.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Reply {
    Sums(PieceSums),
    /// Something was written back meanwhile: another digest may do.
    Again,
    /// It is at it, or has not got there.
    NotYet,
    /// It cannot say what it holds.
    NotNow,
}

impl Reply {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let kind = match self {
            Self::Sums(_) => 0,
            Self::Again => 1,
            Self::NotYet => 2,
            Self::NotNow => 3,
        };
        Writer::new(&mut out).u8(kind);
        if let Self::Sums(sums) = self {
            Writer::new(&mut out)
                .u64(sums.applied.term.get())
                .u64(sums.applied.index.get())
                .u8(sums.next.is_some().into());
            put_place(&mut out, sums.next.unwrap_or_default());
            for sum in &sums.blocks {
                let (kind, crc) = match sum {
                    BlockSum::Zeros => (0, 0),
                    BlockSum::Data(crc) => (1, *crc),
                    BlockSum::Damaged => (2, 0),
                };
                Writer::new(&mut out).u8(kind).u32(crc);
            }
        }
        out
    }

    pub(super) fn decode(meta: &[u8]) -> Result<Self, WireError> {
        let mut from = Reader::new(meta);
        let reply = match from.u8("outcome")? {
            0 => {
                let applied = LogId::new(from.u64("term")?, from.u64("index")?);
                let has_next = from.u8("another piece")? != 0;
                let next = get_place(&mut from)?;
                let sums = (0..PIECE_BLOCKS).map(|_| get_sum(&mut from));
                Self::Sums(PieceSums {
                    applied,
                    blocks: sums.collect::<Result<_, _>>()?,
                    next: has_next.then_some(next),
                })
            }
            1 => Self::Again,
            2 => Self::NotYet,
            3 => Self::NotNow,
            value => return Err(unknown("outcome", value.into())),
        };
        from.finish("answer about a piece")?;
        Ok(reply)
    }
}

fn get_sum(from: &mut Reader<'_>) -> Result<BlockSum, WireError> {
    let (kind, crc) = (from.u8("block")?, from.u32("crc")?);
    Ok(match kind {
        0 => BlockSum::Zeros,
        1 => BlockSum::Data(crc),
        2 => BlockSum::Damaged,
        value => return Err(unknown("block", value.into())),
    })
}

fn put_place(out: &mut Vec<u8>, place: Place) {
    put_chunk_key(out, place.key());
    Writer::new(out).u8(place.number());
}

fn get_place(from: &mut Reader<'_>) -> Result<Place, WireError> {
    let key = get_chunk_key(from, ["volume", "chunk"])?;
    let piece = from.u8("piece")?;
    let place = Place::new(key, piece.into());
    place.ok_or(unknown("piece", piece.into()))
}

pub(super) fn encode_disputed(disputed: &Disputed) -> Vec<u8> {
    let mut out = Vec::new();
    put_disputed(&mut out, disputed);
    out
}

pub(crate) fn put_disputed(out: &mut Vec<u8>, disputed: &Disputed) {
    let count = |of: usize| u16::try_from(of).expect("invariant: both are bounded");
    Writer::new(out).u16(count(disputed.len()));
    for (place, blocks) in disputed {
        put_place(out, *place);
        Writer::new(out).u16(count(blocks.len()));
        for block in blocks {
            Writer::new(out).u16(block.get());
        }
    }
}

pub(super) fn decode_disputed(meta: &[u8]) -> Result<Disputed, WireError> {
    let mut from = Reader::new(meta);
    let disputed = get_disputed(&mut from)?;
    from.finish("what is disputed")?;
    Ok(disputed)
}

pub(crate) fn get_disputed(from: &mut Reader<'_>) -> Result<Disputed, WireError> {
    let places = from.u16("places")?;
    if usize::from(places) > DISPUTES_MAX {
        return Err(unknown("places", places.into()));
    }
    let mut disputed = Disputed::new();
    for _ in 0..places {
        let place = get_place(from)?;
        let count = from.u16("blocks")?;
        if usize::from(count) > PIECE_BLOCKS {
            return Err(unknown("blocks", count.into()));
        }
        let mut blocks = Vec::with_capacity(count.into());
        for _ in 0..count {
            let block = from.u16("block")?;
            let block =
                BlockIndex::new(block.into()).filter(|it| place.span().has(place.key(), *it));
            blocks.push(block.ok_or(unknown("block", 0))?);
        }
        disputed.insert(place, blocks);
    }
    Ok(disputed)
}

/// Two blocks of a piece, for tests of what names them.
#[cfg(test)]
pub(crate) fn some_disputed() -> Disputed {
    let key = ChunkKey {
        volume: VolumeId::new(0x11),
        chunk: ChunkIndex::new(0x22),
    };
    let place = Place::new(key, 3).expect("it is one");
    [(place, vec![place.block(0), place.block(255)])].into()
}

#[cfg(test)]
mod tests {
    use super::{Reply, decode_disputed, encode_disputed};
    use crate::compare::piece::{BlockSum, PieceSums, Place};
    use crate::limit::PIECE_BLOCKS;
    use ogee_proto::id::{ChunkIndex, ChunkKey, LogId, VolumeId};

    fn place() -> Place {
        let key = ChunkKey {
            volume: VolumeId::new(0x11),
            chunk: ChunkIndex::new(0x22),
        };
        Place::new(key, 3).unwrap()
    }

    fn sums(next: Option<Place>) -> Reply {
        let mut blocks = vec![BlockSum::Zeros; PIECE_BLOCKS];
        blocks[1] = BlockSum::Data(0x0102_0304);
        blocks[2] = BlockSum::Damaged;
        Reply::Sums(PieceSums {
            applied: LogId::new(4, 6),
            blocks,
            next,
        })
    }

    #[test]
    fn answers_survive_their_encoding() {
        let replies = [
            sums(None),
            sums(Some(place())),
            Reply::Again,
            Reply::NotYet,
            Reply::NotNow,
        ];
        for reply in replies {
            let bytes = reply.encode();
            assert_eq!(Reply::decode(&bytes), Ok(reply));
            assert!(Reply::decode(&bytes[..bytes.len() - 1]).is_err());
            assert!(Reply::decode(&[&bytes[..], &[0]].concat()).is_err());
        }
    }

    #[test]
    fn golden_bytes() {
        let bytes = sums(Some(place())).encode();
        let hex: String = bytes[..46]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let golden = "00 0400000000000000 0600000000000000 01 1100000000000000 22000000 03 \
            00 00000000 01 04030201 02 00000000";
        assert_eq!(hex, golden.replace(' ', ""));
        assert_eq!(bytes.len(), 31 + 5 * PIECE_BLOCKS);
    }

    #[test]
    fn what_is_disputed_survives_its_encoding() {
        let disputed = [(place(), vec![place().block(0), place().block(255)])].into();
        let bytes = encode_disputed(&disputed);
        assert_eq!(decode_disputed(&bytes), Ok(disputed));
        let mut outside = bytes.clone();
        outside[17] = 0;
        outside[18] = 0;
        assert!(
            decode_disputed(&outside).is_err(),
            "a block of another piece"
        );
        let mut many = bytes;
        many[0] = 0xff;
        assert!(decode_disputed(&many).is_err());
        assert_eq!(decode_disputed(&[0, 0]), Ok([].into()));
    }
}
