//! Chains of a guest that keeps to the rules, and of some that do not.

use super::*;
use proptest::prelude::*;

const SIZE: u64 = 1 << 16;
const TABLE: GuestAddress = GuestAddress(0x1000);

fn memory() -> GuestMemory {
    GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 16)]).expect("memory")
}

fn put(memory: &GuestMemory, table: GuestAddress, index: u16, (at, len, flags, next): Raw) {
    let mut raw = [0; 16];
    raw[..8].copy_from_slice(&u64::to_le_bytes(at));
    raw[8..12].copy_from_slice(&u32::to_le_bytes(len));
    raw[12..14].copy_from_slice(&u16::to_le_bytes(flags));
    raw[14..].copy_from_slice(&u16::to_le_bytes(next));
    let at = table.0 + u64::from(index) * DESCRIPTOR_LEN;
    memory.write_obj(raw, GuestAddress(at)).expect("in memory");
}

type Raw = (u64, u32, u16, u16);

fn read_of(descriptors: &[Raw], size: u16, head: u16) -> Result<Chain, RingFault> {
    let memory = memory();
    for (index, raw) in (0..).zip(descriptors) {
        put(&memory, TABLE, index, *raw);
    }
    read(&memory, TABLE, size, head)
}

fn part(at: u64, len: u32) -> Part {
    let at = GuestAddress(at);
    Part { at, len }
}

#[test]
fn a_chain_is_followed_wherever_it_begins() {
    let descriptors = [
        (0x5000, 1, WRITE, 9),
        (0x4000, 512, NEXT, 3),
        (0x2000, 16, NEXT, 1),
        (0x6000, 4096, NEXT | WRITE, 0),
    ];
    let chain = read_of(&descriptors, 4, 2).expect("a chain");
    assert_eq!(chain.readable, [part(0x2000, 16), part(0x4000, 512)]);
    assert_eq!(chain.writable, [part(0x6000, 4096), part(0x5000, 1)]);
    assert_eq!(total(&chain.writable), 4097);
}

#[test]
fn a_table_elsewhere_holds_a_whole_chain() {
    let memory = memory();
    put(&memory, TABLE, 1, (0x8000, 32, INDIRECT, 0));
    put(&memory, GuestAddress(0x8000), 0, (0x2000, 16, NEXT, 1));
    put(&memory, GuestAddress(0x8000), 1, (0x3000, 1, WRITE, 0));
    let chain = read(&memory, TABLE, 4, 1).expect("a chain");
    assert_eq!(chain.readable, [part(0x2000, 16)]);
    assert_eq!(chain.writable, [part(0x3000, 1)]);
}

#[test]
fn what_a_guest_must_not_do_is_named() {
    let loops = [(0x2000, 16, NEXT, 1), (0x3000, 16, NEXT, 0)];
    assert_eq!(read_of(&loops, 2, 0), Err(RingFault::Endless { parts: 2 }));
    let (next, size) = (9, 2);
    let beyond = [(0x2000, 16, NEXT, next)];
    assert_eq!(
        read_of(&beyond, size, 0),
        Err(RingFault::Next { next, size })
    );
    assert_eq!(
        read_of(&[], 4, 4),
        Err(RingFault::Head { head: 4, size: 4 })
    );
    let empty = [(0x2000, 0, 0, 0)];
    assert_eq!(read_of(&empty, 1, 0), Err(RingFault::Empty { at: 0x2000 }));
    let order = [(0x2000, 1, NEXT | WRITE, 1), (0x3000, 16, 0, 0)];
    assert_eq!(read_of(&order, 2, 0), Err(RingFault::Order));
    for (at, len) in [
        (SIZE - 8, 16),
        (u64::MAX - 4, 16),
        (SIZE, 1),
        (0x2000, u32::MAX),
    ] {
        let outside = [(at, len, 0, 0)];
        assert_eq!(read_of(&outside, 1, 0), Err(RingFault::Range { at, len }));
    }
    for len in [0, 8, 24, 16 * (u32::from(CHAIN_MAX) + 1), u32::MAX] {
        let table = [(0x4000, len, INDIRECT, 0)];
        assert_eq!(
            read_of(&table, 1, 0),
            Err(RingFault::IndirectLength { len })
        );
    }
    for flags in [INDIRECT | NEXT, INDIRECT | WRITE] {
        let table = [(0x4000, 16, flags, 0)];
        assert_eq!(
            read_of(&table, 1, 0),
            Err(RingFault::IndirectFlags { flags })
        );
    }
    // A table that leads outside, and one within one.
    assert_eq!(
        read_of(&[(SIZE, 16, INDIRECT, 0)], 1, 0),
        Err(RingFault::Address { at: SIZE })
    );
    let memory = memory();
    put(&memory, TABLE, 0, (0x8000, 16, INDIRECT, 0));
    put(&memory, GuestAddress(0x8000), 0, (0x9000, 16, INDIRECT, 0));
    let flags = INDIRECT;
    let nested = read(&memory, TABLE, 1, 0);
    assert_eq!(nested, Err(RingFault::IndirectFlags { flags }));
    assert!(read(&memory, GuestAddress(SIZE - 8), 4, 0).is_err());
}

proptest! {
    /// Whatever stands in the table: a chain within memory and limits, or a fault.
    #[test]
    fn any_table_is_a_chain_or_a_fault(
        raws in proptest::collection::vec(
            (0..SIZE + 64, 0_u32..4096, 0_u16..8, 0_u16..9), 8),
        head in 0_u16..9,
    ) {
        if let Ok(chain) = read_of(&raws, 8, head) {
            prop_assert!(chain.readable.len() + chain.writable.len() <= 8);
            for part in chain.readable.iter().chain(&chain.writable) {
                prop_assert!(part.len > 0 && part.at.0 + u64::from(part.len) <= SIZE);
            }
        }
    }
}
