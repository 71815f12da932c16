//! Buffers and payloads.

use bytes::Bytes;
use ogee_runtime::executor::block_on;
use ogee_runtime::limit::BUFFER_ALIGNMENT;
use ogee_runtime::{Buffer, Payload, ReadBuffer};

fn is_aligned(buffer: &Buffer) -> bool {
    buffer.as_ptr().addr().is_multiple_of(BUFFER_ALIGNMENT)
}

#[test]
fn buffers_are_aligned_and_zeroed_on_and_off_an_executor() {
    let check = || {
        for len in [1, 512, 4096, 65_536, 1 << 20] {
            // Dirty memory first, so that a reused block would show.
            Buffer::with_capacity(len).extend_from_slice(&vec![0xee; len]);
            let buffer = Buffer::zeroed(len);
            assert!(is_aligned(&buffer));
            assert!(buffer.iter().all(|byte| *byte == 0));
            assert_eq!(buffer.len(), len);
        }
        assert!(Buffer::zeroed(0).is_empty());
    };
    check();
    block_on(async { check() });
}

#[test]
fn a_buffer_grows_within_its_capacity() {
    let mut buffer = Buffer::with_capacity(4096);
    assert!(buffer.is_empty());
    buffer.extend_from_slice(b"head");
    buffer.resize(8);
    assert_eq!(&*buffer, b"head\0\0\0\0");
    buffer.resize(2);
    buffer.resize(4);
    assert_eq!(&*buffer, b"he\0\0", "cut bytes came back");
    buffer[0] = b'H';
    assert_eq!(Buffer::copy_from(b"xyz").len(), 3);
    assert_eq!(buffer.capacity(), 4096);
}

#[test]
#[should_panic(expected = "is full")]
fn a_buffer_does_not_grow_past_its_capacity() {
    Buffer::with_capacity(4).extend_from_slice(b"12345");
}

#[test]
fn payloads_share_whatever_holds_them() {
    let sources = [
        Payload::from(b"0123456789".to_vec()),
        Payload::from(Bytes::from_static(b"0123456789")),
        Payload::from(Buffer::copy_from(b"0123456789")),
        Payload::from(ReadBuffer::from(Buffer::copy_from(b"0123456789"))),
        #[cfg(feature = "readiness")]
        Payload::from_owner(*b"0123456789 and what is behind", 10),
    ];
    for payload in &sources {
        let part = payload.slice(2..8).slice(1..=2);
        assert_eq!(&*part, b"34");
        assert_eq!(
            part.as_ptr().addr(),
            payload.as_ptr().addr() + 3,
            "bytes were copied"
        );
        assert_eq!(payload.slice(..).len(), 10);
        assert!(payload.slice(10..).is_empty());
        assert_eq!(payload, &sources[0]);
        assert_eq!(&part.to_bytes()[..], b"34");
    }
    assert!(Payload::empty().is_empty());
}

#[test]
#[should_panic(expected = "slice 1..4 of 3 bytes")]
fn a_payload_does_not_slice_past_its_end() {
    drop(Payload::from(vec![1, 2, 3]).slice(1..4));
}
