//! Entries as they stand in the log and in frames.
//!
//! An `AppendEntries` of the floor has the meta: groups `u16`, for each its id `u32` and the index that
//! all three replicas have durable `u64`; entries `u32`, for each group `u32`, index `u64`, head, length
//! `u32`, CRC32C `u32`; the payloads stand behind each other. A head is volume `u64`, chunk `u32`, offset
//! `u32`. An answer has for each group its id `u32` and the index durable here `u64`. All little endian.

use bytes::Bytes;
use ogee_proto::id::{ChunkIndex, ChunkKey, CopysetId, VolumeId};
use ogee_proto::limit::{BLOCK_SIZE, CHUNK_SIZE};
use ogee_proto::unit::BlockIndex;
use ogee_proto::wire::{Reader, WireError, Writer};
use ogee_runtime::Payload;

/// Bytes of a head.
const HEAD_LEN: usize = 16;
/// Groups and entries start so large in a frame.
const COUNTS_LEN: usize = 6;

/// Where an entry writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// The chunk.
    pub(crate) key: ChunkKey,
    /// The first block.
    pub(crate) first: BlockIndex,
}

/// An entry on its way to a follower.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Shipped {
    pub(crate) group: CopysetId,
    pub(crate) index: u64,
    pub(crate) head: Bytes,
    pub(crate) crc: u32,
    pub(crate) payload: Payload,
}

/// What one frame brings.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Shipment {
    /// Groups, and what all replicas have of each.
    pub(crate) everywhere: Vec<(CopysetId, u64)>,
    /// Entries, those of a group together and in order.
    pub(crate) entries: Vec<Shipped>,
}

impl Place {
    /// Whole blocks within a chunk; how many.
    pub(crate) fn checked(key: ChunkKey, offset: u32, len: usize) -> Option<(Self, usize)> {
        let start = offset as usize;
        let is_whole =
            start.is_multiple_of(BLOCK_SIZE) && len.is_multiple_of(BLOCK_SIZE) && len > 0;
        let is_inside = start.checked_add(len)? <= CHUNK_SIZE;
        let first = BlockIndex::new(start / BLOCK_SIZE)?;
        (is_whole && is_inside).then_some((Self { key, first }, len / BLOCK_SIZE))
    }

    pub(crate) fn encode(self) -> Bytes {
        let mut out = Vec::with_capacity(HEAD_LEN);
        let offset = self.first.offset().get();
        let offset = u32::try_from(offset).expect("invariant: a chunk is smaller");
        Writer::new(&mut out)
            .u64(self.key.volume.get())
            .u32(self.key.chunk.get())
            .u32(offset);
        out.into()
    }

    /// The place, and the blocks of a payload of `len` bytes there.
    pub(crate) fn decode(head: &[u8], len: usize) -> Result<(Self, usize), WireError> {
        let mut from = Reader::new(head);
        let key = ChunkKey {
            volume: VolumeId::new(from.u64("entry volume")?),
            chunk: ChunkIndex::new(from.u32("entry chunk")?),
        };
        let offset = from.u32("entry offset")?;
        from.finish("entry head")?;
        let bad = WireError::Field {
            field: "entry offset",
            value: offset.into(),
        };
        Self::checked(key, offset, len).ok_or(bad)
    }
}

impl Shipment {
    /// The structured part and the data of a frame.
    pub(crate) fn encode(&self) -> (Bytes, Payload) {
        let entry_len = crate::limit::ENTRY_META_LEN;
        let group_len = crate::limit::GROUP_META_LEN;
        let len = COUNTS_LEN + self.everywhere.len() * group_len + self.entries.len() * entry_len;
        let mut meta = Vec::with_capacity(len);
        let groups = u16::try_from(self.everywhere.len()).expect("invariant: at most GROUPS_MAX");
        Writer::new(&mut meta).u16(groups);
        put_indexes(&mut meta, &self.everywhere);
        let entries = u32::try_from(self.entries.len()).expect("invariant: APPEND_ENTRIES_MAX");
        Writer::new(&mut meta).u32(entries);
        for entry in &self.entries {
            let len = u32::try_from(entry.payload.len()).expect("invariant: APPEND_BYTES_MAX");
            Writer::new(&mut meta)
                .u32(entry.group.get())
                .u64(entry.index)
                .bytes(&entry.head)
                .u32(len)
                .u32(entry.crc);
        }
        (meta.into(), self.joined())
    }

    /// One payload of several; a single one is not copied.
    fn joined(&self) -> Payload {
        if let [entry] = self.entries.as_slice() {
            return entry.payload.clone();
        }
        let len = self.entries.iter().map(|entry| entry.payload.len()).sum();
        let mut joined = Vec::with_capacity(len);
        for entry in &self.entries {
            joined.extend_from_slice(&entry.payload);
        }
        joined.into()
    }

    pub(crate) fn decode(meta: &Bytes, payload: &Payload) -> Result<Self, WireError> {
        let mut from = Reader::new(meta);
        let groups = from.u16("append groups")?;
        let everywhere = (0..groups).map(|_| get_index(&mut from));
        let everywhere = everywhere.collect::<Result<_, _>>()?;
        let count = from.u32("append entries")?;
        let mut entries = Vec::with_capacity((count as usize).min(from.remaining()));
        let mut at = 0_usize;
        for _ in 0..count {
            let group = CopysetId::new(from.u32("append group")?);
            let index = from.u64("append index")?;
            let head = Bytes::copy_from_slice(from.bytes("append head", HEAD_LEN)?);
            let len = from.u32("append length")?;
            let crc = from.u32("append checksum")?;
            let end = at.checked_add(len as usize);
            let end = end.filter(|end| *end <= payload.len());
            let end = end.ok_or(WireError::Truncated {
                field: "append payload",
            })?;
            entries.push(Shipped {
                group,
                index,
                head,
                crc,
                payload: payload.slice(at..end),
            });
            at = end;
        }
        from.finish("append")?;
        Ok(Self {
            everywhere,
            entries,
        })
    }
}

/// What is durable here, as an answer's meta.
pub(crate) fn put_report(durable: &[(CopysetId, u64)]) -> Bytes {
    let mut meta = Vec::with_capacity(durable.len() * crate::limit::GROUP_META_LEN);
    put_indexes(&mut meta, durable);
    meta.into()
}

pub(crate) fn get_report(meta: &[u8]) -> Result<Vec<(CopysetId, u64)>, WireError> {
    let mut from = Reader::new(meta);
    let mut durable = Vec::new();
    while from.remaining() > 0 {
        durable.push(get_index(&mut from)?);
    }
    Ok(durable)
}

fn put_indexes(out: &mut Vec<u8>, indexes: &[(CopysetId, u64)]) {
    for (group, index) in indexes {
        Writer::new(out).u32(group.get()).u64(*index);
    }
}

fn get_index(from: &mut Reader<'_>) -> Result<(CopysetId, u64), WireError> {
    let group = CopysetId::new(from.u32("group")?);
    Ok((group, from.u64("index")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(block: usize) -> Place {
        Place {
            key: ChunkKey {
                volume: VolumeId::new(3),
                chunk: ChunkIndex::new(9),
            },
            first: BlockIndex::new(block).unwrap(),
        }
    }

    #[test]
    fn a_place_survives_and_what_leaves_the_chunk_is_refused() {
        let head = place(4095).encode();
        assert_eq!(Place::decode(&head, BLOCK_SIZE), Ok((place(4095), 1)));
        for len in [0, 100, 2 * BLOCK_SIZE] {
            assert!(Place::decode(&head, len).is_err(), "{len}");
        }
        assert!(Place::decode(&head[1..], BLOCK_SIZE).is_err());
    }

    #[test]
    fn a_shipment_survives_and_every_cut_is_refused() {
        let entry = |index: u64, fill: u8| Shipped {
            group: CopysetId::new(2),
            index,
            head: place(7).encode(),
            crc: 5,
            payload: vec![fill; BLOCK_SIZE].into(),
        };
        for entries in [vec![entry(4, 1)], vec![entry(4, 1), entry(5, 2)]] {
            let everywhere = vec![(CopysetId::new(2), 3)];
            let sent = Shipment {
                everywhere,
                entries,
            };
            let (meta, payload) = sent.encode();
            assert_eq!(Shipment::decode(&meta, &payload), Ok(sent));
            for len in 0..meta.len() {
                assert!(Shipment::decode(&meta.slice(..len), &payload).is_err());
            }
            assert!(Shipment::decode(&meta, &payload.slice(1..)).is_err());
        }
        let report = vec![(CopysetId::new(1), 7), (CopysetId::new(4), u64::MAX)];
        assert_eq!(get_report(&put_report(&report)), Ok(report));
    }
}
