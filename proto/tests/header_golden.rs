//! The frame header's bytes, held still by checked-in files.

use ogee_proto::checksum::crc32c;
use ogee_proto::id::{
    ChunkIndex, ChunkKey, ClientId, CopysetId, Epoch, Incarnation, RequestId, Sequence, VolumeId,
};
use ogee_proto::wire::{FrameHeader, FrameKind, Status};

/// Bytes of a golden file: hex pairs, lines that start with `#` are remarks.
fn bytes_of(hex: &str) -> Vec<u8> {
    hex.lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(str::split_whitespace)
        .map(|pair| u8::from_str_radix(pair, 16).expect("hex pair"))
        .collect()
}

fn assert_golden(header: &FrameHeader, hex: &str) {
    let golden = bytes_of(hex);
    assert_eq!(golden.len(), 128, "a header is 128 bytes");
    assert_eq!(
        header.encode().as_slice(),
        golden,
        "encoder has left the documented layout"
    );
    assert_eq!(
        FrameHeader::decode(&golden).as_ref(),
        Ok(header),
        "decoder disagrees"
    );
}

#[test]
fn ping() {
    let header = FrameHeader::new(FrameKind::Ping, RequestId::new(1));
    assert_golden(&header, include_str!("golden/header-v3-ping.hex"));
}

#[test]
fn write_with_every_field_set() {
    let body: Vec<u8> = (0..16).chain(std::iter::repeat_n(0, 8192)).collect();
    let header = FrameHeader {
        kind: FrameKind::Write,
        request_id: RequestId::new(0x0102_0304_0506_0708),
        key: ChunkKey {
            volume: VolumeId::new(0x1112_1314_1516_1718),
            chunk: ChunkIndex::new(0x8182_8384),
        },
        epoch: Epoch::new(0x2122_2324_2526_2728),
        sequence: Sequence::new(0x3132_3334_3536_3738),
        watermark: Sequence::new(0x4142_4344_4546_4748),
        client: ClientId::new(0x5152_5354_5556_5758),
        copyset: CopysetId::new(0x6162_6364),
        incarnation: Incarnation::new(0x7172_7374),
        offset: 0x00ff_e000,
        length: 0x2000,
        status: Status::Ok,
        stream: 0x9192_9394_9596_9798,
        meta_len: 16,
        payload_len: 8192,
        body_crc: crc32c(&body),
    };
    assert_golden(&header, include_str!("golden/header-v3-write.hex"));
}

#[test]
fn reply_with_a_leader_hint() {
    let mut request = FrameHeader::new(FrameKind::Read, RequestId::new(9));
    request.key = ChunkKey {
        volume: VolumeId::new(7),
        chunk: ChunkIndex::new(2),
    };
    request.epoch = Epoch::new(3);
    request.client = ClientId::new(5);
    request.copyset = CopysetId::new(12);
    request.offset = 4096;
    request.length = 8192;
    let mut reply = FrameHeader::reply(&request, Status::NotLeader);
    reply.stream = 42;
    assert_golden(&reply, include_str!("golden/header-v3-reply.hex"));
}

/// The numbers on the wire are for ever: a value may be added, none may move.
#[test]
fn kinds_and_statuses_keep_their_numbers() {
    let kinds: Vec<u8> = FrameKind::ALL.iter().map(|kind| kind.encode()).collect();
    assert_eq!(
        kinds,
        [
            1, 2, 3, 4, 16, 17, 18, 19, 20, 21, 64, 65, 66, 67, 68, 69, 72, 73, 96, 97
        ]
    );
    let statuses: Vec<u16> = Status::ALL.iter().map(|status| status.encode()).collect();
    assert_eq!(statuses, (0..=12).collect::<Vec<u16>>());
}

/// Published check values of CRC32C (RFC 3720, appendix B.4).
#[test]
fn checksum_is_castagnoli() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
}
