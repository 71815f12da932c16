//! What holds for every frame header, valid or hostile.

use ogee_proto::checksum::{crc32c, crc32c_append, crc32c_combine};
use ogee_proto::id::{
    ChunkIndex, ChunkKey, ClientId, CopysetId, Epoch, Incarnation, RequestId, Sequence, VolumeId,
};
use ogee_proto::limit::{
    FRAME_BODY_MAX, FRAME_HEADER_SIZE, FRAME_META_MAX, REPLICATION_PAYLOAD_MAX,
};
use ogee_proto::wire::{FrameHeader, FrameKind, Status, WIRE_VERSION, WireError};
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};
use proptest::sample::select;

type Bytes = [u8; FRAME_HEADER_SIZE];
const CRC_AT: usize = FRAME_HEADER_SIZE - 4;

fn limit_u32(limit: usize) -> u32 {
    u32::try_from(limit).expect("limits fit the field")
}

fn any_header() -> impl Strategy<Value = FrameHeader> {
    let session = any::<(u64, u64, u64, u64, u32)>();
    let place = any::<(u64, u32, u32, u32, u32)>();
    let lens = (
        0..=limit_u32(FRAME_META_MAX),
        0..=limit_u32(REPLICATION_PAYLOAD_MAX),
    );
    let rest = (
        select(FrameKind::ALL),
        select(Status::ALL),
        any::<(u64, u64, u32)>(),
    );
    (session, place, lens, rest).prop_map(|(session, place, lens, rest)| FrameHeader {
        kind: rest.0,
        request_id: RequestId::new(rest.2.0),
        key: ChunkKey {
            volume: VolumeId::new(place.0),
            chunk: ChunkIndex::new(place.1),
        },
        epoch: Epoch::new(session.0),
        sequence: Sequence::new(session.1),
        watermark: Sequence::new(session.2),
        client: ClientId::new(session.3),
        copyset: CopysetId::new(place.2),
        incarnation: Incarnation::new(session.4),
        offset: place.3,
        length: place.4,
        status: rest.1,
        stream: rest.2.1,
        meta_len: lens.0,
        payload_len: lens.1,
        body_crc: rest.2.2,
    })
}

/// Puts `value` at `at` and makes the checksum right again: what a hostile peer would send.
fn forge(mut bytes: Bytes, at: usize, value: &[u8]) -> Bytes {
    bytes[at..at + value.len()].copy_from_slice(value);
    let crc = crc32c(&bytes[..CRC_AT]);
    bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn ping() -> Bytes {
    FrameHeader::new(FrameKind::Ping, RequestId::new(7)).encode()
}

proptest! {
    #[test]
    fn decode_gives_back_what_was_encoded(header in any_header()) {
        prop_assert_eq!(FrameHeader::decode(&header.encode()), Ok(header));
        prop_assert!(header.body_len() <= FRAME_BODY_MAX);
    }

    #[test]
    fn any_flipped_bit_is_refused(header in any_header(), bit in 0..FRAME_HEADER_SIZE * 8) {
        let mut bytes = header.encode();
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(FrameHeader::decode(&bytes).is_err(), "bit {} went unnoticed", bit);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in any::<[u8; FRAME_HEADER_SIZE]>()) {
        let _ = FrameHeader::decode(&bytes);
    }

    /// Past the magic, version and checksum, so that every later check is reached as well. What is
    /// taken must be exactly what our own encoder would have sent.
    #[test]
    fn forged_bytes_decode_canonically_or_not_at_all(
        tail in any::<[u8; FRAME_HEADER_SIZE]>(),
        from in 6usize..CRC_AT,
        len in 1usize..12,
    ) {
        let len = len.min(CRC_AT - from);
        let bytes = forge(ping(), from, &tail[from..from + len]);
        if let Ok(header) = FrameHeader::decode(&bytes) {
            prop_assert_eq!(header.encode(), bytes);
        }
    }

    #[test]
    fn short_input_is_refused(header in any_header(), len in 0..FRAME_HEADER_SIZE) {
        let bytes = header.encode();
        prop_assert_eq!(FrameHeader::decode(&bytes[..len]), Err(WireError::Short(len)));
    }

    #[test]
    fn bytes_behind_the_header_are_not_looked_at(header in any_header(), tail in any::<[u8; 9]>()) {
        let bytes = [header.encode().as_slice(), &tail].concat();
        prop_assert_eq!(FrameHeader::decode(&bytes), Ok(header));
    }

    #[test]
    fn checksums_append_and_combine(a in any::<Vec<u8>>(), b in any::<Vec<u8>>()) {
        let whole = crc32c(&[a.as_slice(), &b].concat());
        prop_assert_eq!(crc32c_append(crc32c(&a), &b), whole);
        prop_assert_eq!(crc32c_combine(crc32c(&a), crc32c(&b), b.len()), whole);
    }
}

#[test]
fn foreign_magic_is_named() {
    let error = FrameHeader::decode(&forge(ping(), 0, b"GET ")).expect_err("not ours");
    assert_eq!(error, WireError::Magic(u32::from_le_bytes(*b"GET ")));
    assert!(error.to_string().contains("0x20544547"), "{error}");
}

#[test]
fn another_version_is_refused_with_both_named() {
    let error = FrameHeader::decode(&forge(ping(), 4, &9u16.to_le_bytes())).expect_err("newer");
    assert_eq!(
        error,
        WireError::Version {
            peer: 9,
            ours: WIRE_VERSION
        }
    );
    let both = format!("peer speaks wire version 9, this process speaks {WIRE_VERSION}");
    assert!(error.to_string().contains(&both), "{error}");
}

#[test]
fn another_version_is_named_even_if_its_checksum_lies_elsewhere() {
    let mut bytes = ping();
    for peer in [WIRE_VERSION - 1, WIRE_VERSION + 1] {
        bytes[4..6].copy_from_slice(&peer.to_le_bytes());
        let ours = WIRE_VERSION;
        assert_eq!(
            FrameHeader::decode(&bytes),
            Err(WireError::Version { peer, ours })
        );
    }
}

#[test]
fn every_unknown_kind_is_named() {
    let known: Vec<u8> = FrameKind::ALL.iter().map(|kind| kind.encode()).collect();
    for raw in (0..=u8::MAX).filter(|raw| !known.contains(raw)) {
        let error = FrameHeader::decode(&forge(ping(), 6, &[raw])).expect_err("unknown kind");
        assert_eq!(error, WireError::Kind(raw));
        assert!(error.to_string().contains(&raw.to_string()), "{error}");
    }
}

#[test]
fn every_unknown_status_is_named() {
    let known: Vec<u16> = Status::ALL.iter().map(|status| status.encode()).collect();
    for raw in (0..=u16::MAX).filter(|raw| !known.contains(raw)) {
        let bytes = forge(ping(), 76, &raw.to_le_bytes());
        assert_eq!(FrameHeader::decode(&bytes), Err(WireError::Status(raw)));
    }
}

#[test]
fn lengths_past_their_limits_are_refused_and_named() {
    for (at, field, limit) in [
        (88, "meta length", FRAME_META_MAX),
        (92, "payload length", REPLICATION_PAYLOAD_MAX),
    ] {
        let at_limit = forge(ping(), at, &limit_u32(limit).to_le_bytes());
        FrameHeader::decode(&at_limit).expect("the limit itself is allowed");
        for value in [limit_u32(limit) + 1, u32::MAX] {
            let error = FrameHeader::decode(&forge(ping(), at, &value.to_le_bytes()))
                .expect_err("past the limit");
            assert_eq!(
                error,
                WireError::Length {
                    field,
                    value: value as usize,
                    limit
                }
            );
            assert!(error.to_string().contains(&value.to_string()), "{error}");
        }
    }
}

#[test]
fn reserved_bytes_must_be_zero() {
    for (at, field) in (100..CRC_AT)
        .map(|at| (at, "reserved tail"))
        .chain([(7, "flags"), (78, "reserved word")])
    {
        let error = FrameHeader::decode(&forge(ping(), at, &[5])).expect_err("not zero");
        assert_eq!(error, WireError::Field { field, value: 5 });
    }
}

#[test]
fn a_reply_keeps_the_request_and_drops_its_body() {
    let mut request = FrameHeader::new(FrameKind::Write, RequestId::new(3));
    request.key.chunk = ChunkIndex::new(8);
    request.stream = 5;
    request.meta_len = 10;
    request.payload_len = 20;
    request.body_crc = 30;
    let reply = FrameHeader::reply(&request, Status::Retry);
    assert_eq!(
        (reply.kind, reply.status),
        (FrameKind::Reply, Status::Retry)
    );
    assert_eq!(
        (reply.request_id, reply.key),
        (request.request_id, request.key)
    );
    assert_eq!((reply.body_len(), reply.body_crc, reply.stream), (0, 0, 0));
}
