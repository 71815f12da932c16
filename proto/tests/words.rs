//! Ids, units and the body codec: small words, each with its promises.

use ogee_proto::id::{ChunkIndex, ChunkKey, CopysetId, LogId, StoreId, VolumeId};
use ogee_proto::limit::{BLOCK_SIZE, BLOCKS_PER_CHUNK, CHUNK_SIZE};
use ogee_proto::unit::{BlockIndex, ByteLen, ByteOffset};
use ogee_proto::wire::{Reader, WireError, Writer};
use proptest::prelude::{any, prop_assert_eq, proptest};

#[test]
fn ids_say_what_they_name() {
    let key = ChunkKey {
        volume: VolumeId::new(7),
        chunk: ChunkIndex::new(3),
    };
    assert_eq!(key.to_string(), "v7/k3");
    assert_eq!(format!("{:?}", CopysetId::new(12)), "cs12");
    assert_eq!(LogId::new(2, 40).to_string(), "t2.l40");
}

#[test]
fn keys_and_log_ids_sort_by_their_first_part_first() {
    let key = |v, c| ChunkKey {
        volume: VolumeId::new(v),
        chunk: ChunkIndex::new(c),
    };
    assert!(key(1, 9) < key(2, 0));
    assert!(key(2, 0) < key(2, 1));
    assert!(LogId::new(1, 9) < LogId::new(2, 1));
}

#[test]
fn block_index_ends_with_the_chunk() {
    let last = BlockIndex::new(BLOCKS_PER_CHUNK - 1).expect("the last block");
    assert_eq!(last.offset().as_usize() + BLOCK_SIZE, CHUNK_SIZE);
    assert_eq!(BlockIndex::new(BLOCKS_PER_CHUNK), None);
    assert_eq!(BlockIndex::new(usize::MAX), None);
}

#[test]
fn offset_addition_notices_overflow() {
    let end = ByteOffset::new(u64::MAX);
    assert_eq!(end.checked_add(ByteLen::new(1)), None);
    assert_eq!(end.checked_add(ByteLen::ZERO), Some(end));
}

#[test]
#[should_panic(expected = "byte offset overflow")]
fn unchecked_offset_addition_stops_on_overflow() {
    let _ = ByteOffset::new(u64::MAX).add(ByteLen::new(1));
}

#[test]
fn a_cut_field_is_named_and_nothing_is_consumed() {
    let mut reader = Reader::new(&[1, 2, 3]);
    assert_eq!(
        reader.u32("term"),
        Err(WireError::Truncated { field: "term" })
    );
    assert_eq!(
        reader.bytes("head", 4),
        Err(WireError::Truncated { field: "head" })
    );
    assert_eq!(reader.remaining(), 3);
    assert_eq!(reader.u16("kind"), Ok(0x0201));
    let left_over = WireError::Field {
        field: "vote",
        value: 1,
    };
    assert_eq!(reader.finish("vote"), Err(left_over));
}

proptest! {
    #[test]
    fn units_and_ids_keep_their_raw_value(raw in any::<u64>(), small in any::<u32>()) {
        prop_assert_eq!(ByteOffset::new(raw).get(), raw);
        prop_assert_eq!(ByteLen::new(raw).as_usize() as u64, raw);
        prop_assert_eq!(VolumeId::new(raw).get(), raw);
        prop_assert_eq!(ChunkIndex::new(small).get(), small);
        prop_assert_eq!(ByteLen::new(raw).is_multiple_of(4096), raw % 4096 == 0);
    }

    #[test]
    fn store_id_keeps_its_bytes(raw in any::<[u8; 16]>()) {
        prop_assert_eq!(StoreId::from_bytes(raw).to_bytes(), raw);
    }

    #[test]
    fn what_a_writer_wrote_a_reader_reads(
        a in any::<u8>(), b in any::<u16>(), c in any::<u32>(), d in any::<u64>(),
        tail in any::<Vec<u8>>(),
    ) {
        let mut out = Vec::new();
        Writer::new(&mut out).u8(a).u16(b).u32(c).u64(d).bytes(&tail);
        let mut reader = Reader::new(&out);
        prop_assert_eq!(reader.u8("a"), Ok(a));
        prop_assert_eq!(reader.u16("b"), Ok(b));
        prop_assert_eq!(reader.u32("c"), Ok(c));
        prop_assert_eq!(reader.u64("d"), Ok(d));
        prop_assert_eq!(reader.bytes("tail", tail.len()), Ok(tail.as_slice()));
        prop_assert_eq!(reader.finish("all"), Ok(()));
    }
}
