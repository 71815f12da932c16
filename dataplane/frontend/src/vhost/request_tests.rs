//! Requests, well and badly formed.

use super::*;
use proptest::prelude::*;

const GEOMETRY: Geometry = Geometry {
    size: 1 << 20,
    block_size: 512,
    is_read_only: false,
};
const HEADER_AT: u64 = 0x100;
const DATA_AT: u64 = 0x1000;

fn memory(kind: u32, sector: u64) -> GuestMemory {
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 16)]).expect("memory");
    let mut header = [0; HEADER_LEN];
    header[..4].copy_from_slice(&kind.to_le_bytes());
    header[8..].copy_from_slice(&sector.to_le_bytes());
    memory
        .write_obj(header, GuestAddress(HEADER_AT))
        .expect("in memory");
    memory
}

fn part(at: u64, len: u32) -> Part {
    let at = GuestAddress(at);
    Part { at, len }
}

fn asked(memory: &GuestMemory, out: u32, into: u32, geometry: &Geometry) -> Asked {
    let mut chain = Chain::default();
    chain.readable.push(part(HEADER_AT, 16));
    if out > 0 {
        chain.readable.push(part(DATA_AT, out));
    }
    if into > 0 {
        chain.writable.push(part(DATA_AT, into));
    }
    chain.writable.push(part(0x10, 1));
    let asked = parse(memory, chain, geometry).expect("room for header and status");
    assert_eq!(asked.status_at, GuestAddress(0x10));
    asked
}

#[test]
fn transfers_within_the_disk_are_understood() {
    let read = asked(&memory(kind::IN, 8), 0, 4096, &GEOMETRY).request;
    let at = ByteOffset::new(4096);
    let into = vec![part(DATA_AT, 4096)];
    assert_eq!(read, Ok(Request::Read { at, into }));
    let write = asked(&memory(kind::OUT, 2047), 512, 0, &GEOMETRY).request;
    let from = vec![part(DATA_AT, 512)];
    let at = ByteOffset::new(2047 * 512);
    assert_eq!(write.as_ref().map(Request::payload_len), Ok(512));
    assert_eq!(write, Ok(Request::Write { at, from }));
    let flush = asked(&memory(kind::FLUSH, 0), 0, 0, &GEOMETRY).request;
    assert_eq!(flush, Ok(Request::Flush));
    let id = asked(&memory(kind::GET_ID, 0), 0, 20, &GEOMETRY).request;
    let into = vec![part(DATA_AT, 20)];
    assert_eq!(id, Ok(Request::GetId { into }));
}

#[test]
fn a_transfer_outside_of_the_disk_or_its_blocks_fails() {
    let fails = |kind, sector, out, into, geometry: &Geometry| {
        let request = asked(&memory(kind, sector), out, into, geometry).request;
        assert_eq!(
            request,
            Err(Status::IoError),
            "{kind} {sector} {out} {into}"
        );
    };
    fails(kind::IN, 2048, 0, 512, &GEOMETRY);
    fails(kind::IN, 2047, 0, 1024, &GEOMETRY);
    fails(kind::IN, u64::MAX, 0, 512, &GEOMETRY);
    fails(kind::OUT, u64::MAX / 512, 512, 0, &GEOMETRY);
    fails(kind::OUT, 0, 511, 0, &GEOMETRY);
    fails(kind::OUT, 0, 0, 0, &GEOMETRY);
    fails(kind::IN, 0, 0, 0, &GEOMETRY);
    let large_blocks = Geometry {
        block_size: 4096,
        ..GEOMETRY
    };
    fails(kind::IN, 1, 0, 4096, &large_blocks);
    fails(kind::IN, 0, 0, 512, &large_blocks);
    let read_only = Geometry {
        is_read_only: true,
        ..GEOMETRY
    };
    fails(kind::OUT, 0, 512, 0, &read_only);
    fails(kind::DISCARD, 0, 16, 0, &read_only);
    let unknown = asked(&memory(99, 0), 0, 0, &GEOMETRY).request;
    assert_eq!(unknown, Err(Status::Unsupported));
}

fn with_segment(kind: u32, sector: u64, sectors: u32, flags: u32) -> Result<Request, Status> {
    let memory = memory(kind, 0);
    let mut segment = [0; SEGMENT_LEN];
    segment[..8].copy_from_slice(&sector.to_le_bytes());
    segment[8..12].copy_from_slice(&sectors.to_le_bytes());
    segment[12..].copy_from_slice(&flags.to_le_bytes());
    memory
        .write_obj(segment, GuestAddress(DATA_AT))
        .expect("in memory");
    asked(&memory, 16, 0, &GEOMETRY).request
}

#[test]
fn ranges_to_discard_and_to_zero_are_checked_like_transfers() {
    let segment = |may_unmap| Segment {
        at: ByteOffset::new(8 * 512),
        len: ByteLen::new(16 * 512),
        may_unmap,
    };
    let discard = with_segment(kind::DISCARD, 8, 16, 0);
    assert_eq!(discard, Ok(Request::Discard(vec![segment(false)])));
    let zero = with_segment(kind::WRITE_ZEROES, 8, 16, 1);
    assert_eq!(zero, Ok(Request::WriteZeroes(vec![segment(true)])));
    assert_eq!(
        with_segment(kind::DISCARD, 8, 16, 1),
        Err(Status::Unsupported)
    );
    assert_eq!(
        with_segment(kind::WRITE_ZEROES, 8, 16, 2),
        Err(Status::Unsupported)
    );
    assert_eq!(
        with_segment(kind::DISCARD, 2048, 1, 0),
        Err(Status::IoError)
    );
    assert_eq!(
        with_segment(kind::DISCARD, u64::MAX, 1, 0),
        Err(Status::IoError)
    );
    assert_eq!(
        with_segment(kind::DISCARD, 0, u32::MAX, 0),
        Err(Status::IoError)
    );
    for len in [0, 8, 24, 16 * (u32::from(DISCARD_SEGMENTS_MAX) + 1)] {
        let request = asked(&memory(kind::DISCARD, 0), len, 0, &GEOMETRY).request;
        assert_eq!(request, Err(Status::IoError), "{len}");
    }
}

#[test]
fn a_chain_without_header_or_status_is_the_rings_fault() {
    let memory = memory(kind::FLUSH, 0);
    let no_status = Chain {
        readable: vec![part(HEADER_AT, 16)],
        writable: Vec::new(),
    };
    let no_header = Chain {
        readable: vec![part(HEADER_AT, 15)],
        writable: vec![part(0x10, 1)],
    };
    for chain in [no_status, no_header, Chain::default()] {
        let parsed = parse(&memory, chain, &GEOMETRY);
        assert!(matches!(parsed, Err(RingFault::Short { .. })), "{parsed:?}");
    }
}

proptest! {
    /// The layout is the guest's business: header, data and status may be cut anywhere.
    #[test]
    fn however_a_chain_is_cut_it_means_the_same(
        cuts in proptest::collection::vec(1_u32..200, 1..12),
        is_write in any::<bool>(),
    ) {
        let sector = 3;
        let memory = memory(if is_write { kind::OUT } else { kind::IN }, sector);
        let cut = |at: u64, len: u32| {
            let (mut parts, mut from) = (Vec::new(), 0);
            for step in cuts.iter().chain([&u32::MAX]) {
                let now = (*step).min(len - from);
                if now > 0 {
                    parts.push(part(at + u64::from(from), now));
                }
                from += now;
            }
            parts
        };
        let (readable, writable) = match is_write {
            true => (16 + 1024, 1),
            false => (16, 1024 + 1),
        };
        let chain = Chain {
            readable: cut(HEADER_AT, readable),
            writable: cut(DATA_AT, writable),
        };
        let asked = parse(&memory, chain, &GEOMETRY).expect("a request");
        prop_assert_eq!(asked.status_at, GuestAddress(DATA_AT + u64::from(writable) - 1));
        let (found, parts) = match asked.request.expect("a transfer") {
            Request::Read { at, into } => (at, into),
            Request::Write { at, from } => (at, from),
            other => panic!("{other:?}"),
        };
        prop_assert_eq!(found, ByteOffset::new(sector * 512));
        prop_assert_eq!(total(&parts), 1024);
    }
}
