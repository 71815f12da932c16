//! A record as bytes.
//!
//! *Place*: under `file`. *Owner*: none, a plain value. *Invariants*: what is decoded encodes to the bytes that it was
//! decoded from; a map that breaks its own rule is refused. *On failure*: [`RecordError`] names what is wrong.
//!
//! Version 1, little endian. Texts and lists begin with their length.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | magic `OGEEATT\0` |
//! | 8 | 4 | version |
//! | 12 | 4 | CRC32C of all that follows |
//! | 16 | 8 | client id that the control plane issued |
//! | 24 | 8 | epoch |
//! | 32 | 4 | incarnation that was used last |
//! | 36 | 1 | 1 if it only reads |
//! | 37 | … | host (u16 length), volume id u64, name (u16), size u64, stripe unit u32, stripe count u32 |
//! | | | segments (u32): first chunk u32, copysets (u32) of u32 |
//! | | | copysets (u32): id u32, replicas (u32): id u64, endpoint (u16; empty: unknown) |
//!
//! *Torn write*: the file is written under another name, flushed, and renamed; so it is the old record or the new one.
//! The checksum tells what the medium did to it. Leaders are not kept: they are found by asking.

use super::error::RecordError;
use crate::limit::RECORD_LEN_MAX;
use crate::map::{CopysetView, MapError, MapSegment, ReplicaView, VolumeHead, VolumeMap};
use ogee_proto::checksum::crc32c;
use ogee_proto::id::{ChunkIndex, ClientId, CopysetId, Epoch, Incarnation, ReplicaId, VolumeId};
use ogee_proto::layout::StripeLayout;
use ogee_proto::unit::ByteLen;
use ogee_proto::wire::{Reader, WireError, Writer};
use ogee_transport::Endpoint;

const MAGIC: u64 = u64::from_le_bytes(*b"OGEEATT\0");
const VERSION: u32 = 1;

/// What a host keeps of an attachment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Record {
    /// The user that the control plane issued.
    pub(super) client: ClientId,
    /// The epoch that goes with it.
    pub(super) epoch: Epoch,
    /// The incarnation that was used last.
    pub(super) incarnation: Incarnation,
    /// No mutation is sent.
    pub(super) is_read_only: bool,
    /// The host that it belongs to.
    pub(super) host: String,
    /// Where the volume lives.
    pub(super) map: VolumeMap,
}

impl Record {
    /// The bytes of a record.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        Writer::new(&mut body)
            .u64(self.client.get())
            .u64(self.epoch.get())
            .u32(self.incarnation.get())
            .u8(u8::from(self.is_read_only));
        put_text(&mut body, &self.host);
        put_map(&mut body, &self.map);
        let mut out = Vec::with_capacity(16 + body.len());
        Writer::new(&mut out)
            .u64(MAGIC)
            .u32(VERSION)
            .u32(crc32c(&body))
            .bytes(&body);
        out
    }

    /// The record in these bytes.
    ///
    /// # Errors
    /// [`RecordError`] with the first thing that is wrong.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        if bytes.len() as u64 > RECORD_LEN_MAX {
            return Err(RecordError::Length(bytes.len() as u64));
        }
        let mut from = Reader::new(bytes);
        let magic = from.u64("record magic")?;
        if magic != MAGIC {
            return Err(RecordError::Magic(magic));
        }
        let found = from.u32("record version")?;
        if found != VERSION {
            let ours = VERSION;
            return Err(RecordError::Version { found, ours });
        }
        let found = from.u32("record checksum")?;
        let body = from.bytes("record body", from.remaining())?;
        let expected = crc32c(body);
        if expected != found {
            return Err(RecordError::Checksum { expected, found });
        }
        decode_body(Reader::new(body))
    }
}

fn decode_body(mut from: Reader<'_>) -> Result<Record, RecordError> {
    let client = ClientId::new(from.u64("record client")?);
    let epoch = Epoch::new(from.u64("record epoch")?);
    let incarnation = Incarnation::new(from.u32("record incarnation")?);
    let is_read_only = match from.u8("record use")? {
        0 => false,
        1 => true,
        other => {
            let (field, value) = ("record use", u64::from(other));
            return Err(WireError::Field { field, value }.into());
        }
    };
    let host = text(&mut from, "record host")?;
    let map = map(&mut from)?;
    from.finish("record end")?;
    Ok(Record {
        client,
        epoch,
        incarnation,
        is_read_only,
        host,
        map,
    })
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let len = u16::try_from(text.len()).expect("invariant: names, hosts and endpoints are short");
    Writer::new(out).u16(len).bytes(text.as_bytes());
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("invariant: a map has fewer than 2^32 of anything");
    Writer::new(out).u32(count);
}

fn put_map(out: &mut Vec<u8>, map: &VolumeMap) {
    let VolumeHead {
        id,
        name,
        size,
        layout,
    } = map.head();
    Writer::new(out).u64(id.get());
    put_text(out, name);
    Writer::new(out)
        .u64(size.get())
        .u32(layout.unit())
        .u32(layout.count());
    put_count(out, map.segments().len());
    for segment in map.segments() {
        Writer::new(out).u32(segment.first.get());
        put_count(out, segment.copysets.len());
        for copyset in &segment.copysets {
            Writer::new(out).u32(copyset.get());
        }
    }
    put_count(out, map.copysets().len());
    for view in map.copysets() {
        Writer::new(out).u32(view.id.get());
        put_count(out, view.replicas.len());
        for replica in &view.replicas {
            Writer::new(out).u64(replica.id.get());
            let endpoint = replica.endpoint.as_ref().map(Endpoint::to_string);
            put_text(out, &endpoint.unwrap_or_default());
        }
    }
}

fn text(from: &mut Reader<'_>, field: &'static str) -> Result<String, RecordError> {
    let len = from.u16(field)?;
    let bytes = from.bytes(field, usize::from(len))?;
    let value = u64::from(len);
    let text = std::str::from_utf8(bytes).map_err(|_| WireError::Field { field, value })?;
    Ok(text.to_owned())
}

/// A list: whatever it says of its length, it ends with the bytes.
fn list<T>(
    from: &mut Reader<'_>,
    field: &'static str,
    item: impl Fn(&mut Reader<'_>) -> Result<T, RecordError>,
) -> Result<Vec<T>, RecordError> {
    let count = from.u32(field)?;
    let mut items = Vec::new();
    for _ in 0..count {
        items.push(item(from)?);
    }
    Ok(items)
}

fn map(from: &mut Reader<'_>) -> Result<VolumeMap, RecordError> {
    let id = VolumeId::new(from.u64("record volume")?);
    let name = text(from, "record volume name")?;
    let size = ByteLen::new(from.u64("record volume size")?);
    let unit = u64::from(from.u32("record stripe unit")?);
    let count = u64::from(from.u32("record stripe count")?);
    let layout = StripeLayout::new(unit, count).map_err(MapError::Layout)?;
    let segments = list(from, "record segments", segment)?;
    let copysets = list(from, "record copysets", copyset)?;
    let head = VolumeHead {
        id,
        name,
        size,
        layout,
    };
    Ok(VolumeMap::new(head, segments, copysets)?)
}

fn segment(from: &mut Reader<'_>) -> Result<MapSegment, RecordError> {
    let first = ChunkIndex::new(from.u32("record segment")?);
    let copysets = list(from, "record segment", |from| {
        Ok(CopysetId::new(from.u32("record segment copyset")?))
    })?;
    Ok(MapSegment { first, copysets })
}

fn copyset(from: &mut Reader<'_>) -> Result<CopysetView, RecordError> {
    let id = CopysetId::new(from.u32("record copyset")?);
    let replicas = list(from, "record replicas", replica)?;
    Ok(CopysetView {
        id,
        replicas,
        leader: None,
    })
}

fn replica(from: &mut Reader<'_>) -> Result<ReplicaView, RecordError> {
    let id = ReplicaId::new(from.u64("record replica")?);
    let endpoint = match text(from, "record endpoint")?.as_str() {
        "" => None,
        text => {
            let parsed = text.parse::<Endpoint>();
            Some(parsed.map_err(|error| MapError::Endpoint {
                replica: id,
                text: error.text,
            })?)
        }
    };
    Ok(ReplicaView { id, endpoint })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> Record {
        let replica = |id: u64, endpoint: &str| ReplicaView {
            id: ReplicaId::new(id),
            endpoint: endpoint.parse().ok(),
        };
        let view = CopysetView {
            id: CopysetId::new(3),
            replicas: vec![replica(0x31, "10.0.0.1:7000"), replica(0x32, "")],
            leader: None,
        };
        let head = VolumeHead {
            id: VolumeId::new(0x11),
            name: "v".into(),
            size: ByteLen::new(1 << 30),
            layout: StripeLayout::new(65_536, 4).unwrap(),
        };
        let segment = MapSegment {
            first: ChunkIndex::new(0),
            copysets: vec![CopysetId::new(3)],
        };
        Record {
            client: ClientId::new(0x21),
            epoch: Epoch::new(0x22),
            incarnation: Incarnation::new(0x23),
            is_read_only: false,
            host: "h1".into(),
            map: VolumeMap::new(head, vec![segment], vec![view]).unwrap(),
        }
    }

    const GOLDEN: &str = "4f47454541545400 01000000 d163c6d9 2100000000000000 2200000000000000 23000000 00 \
        0200 6831 1100000000000000 0100 76 0000004000000000 00000100 04000000 \
        01000000 00000000 01000000 03000000 01000000 03000000 02000000 \
        3100000000000000 0d00 31302e302e302e313a37303030 3200000000000000 0000";

    #[test]
    fn golden_bytes() {
        let hex: String = record()
            .encode()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(hex, GOLDEN.replace(' ', ""));
        assert_eq!(Record::decode(&record().encode()).unwrap(), record());
    }

    #[test]
    fn what_is_damaged_or_foreign_is_named() {
        let bytes = record().encode();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            let error = Record::decode(&bad).unwrap_err();
            let fits = match at {
                0..8 => matches!(error, RecordError::Magic(_)),
                8..12 => matches!(error, RecordError::Version { ours: 1, .. }),
                _ => matches!(error, RecordError::Checksum { .. }),
            };
            assert!(fits, "byte {at}: {error}");
        }
        for len in 0..bytes.len() {
            assert!(Record::decode(&bytes[..len]).is_err(), "{len} bytes");
        }
        let next = [&bytes[..8], &2u32.to_le_bytes(), &bytes[12..]].concat();
        let said = Record::decode(&next).unwrap_err().to_string();
        assert!(
            said.contains("version 2") && said.contains("reads 1"),
            "{said}"
        );
    }

    proptest! {
        /// With a checksum that fits, so that the fields are looked at.
        #[test]
        fn whatever_is_in_it_is_refused_or_stands_still(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = record().encode();
            let body = bytes.len() - 16;
            for (at, value) in &changes {
                bytes[16 + at.index(body)] = *value;
            }
            if changes.len() == 5 {
                bytes.truncate(16 + cut.index(body));
            }
            let crc = crc32c(&bytes[16..]).to_le_bytes();
            bytes[12..16].copy_from_slice(&crc);
            if let Ok(found) = Record::decode(&bytes) {
                let again = Record::decode(&found.encode());
                prop_assert_eq!(again.unwrap(), found);
            }
        }
    }

    #[test]
    fn a_map_with_a_hole_is_refused_whatever_its_checksum() {
        let mut bytes = record().encode();
        let first = bytes.len() - (4 + 4 + 4 + 8 + 15 + 8 + 2) - (4 + 4 + 4);
        bytes[first] = 1;
        let crc = crc32c(&bytes[16..]).to_le_bytes();
        bytes[12..16].copy_from_slice(&crc);
        let error = Record::decode(&bytes).unwrap_err();
        assert!(
            matches!(error, RecordError::Map(MapError::Start(_))),
            "{error:?}"
        );
    }
}
