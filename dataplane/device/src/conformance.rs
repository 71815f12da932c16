//! The contract of a device as a test suite: every backend passes it, or it is not a backend.
//!
//! *Place*: run by the tests of each backend, through [`conformance_tests`](crate::conformance_tests).
//! *Owner*: the test's executor. *Invariants*: each check starts on a fresh device of
//! [`DEVICE_LEN`] zeros and needs nothing but the public interface.
//! *On failure*: a check panics and says what it saw.

use crate::{Device, DeviceError, Operation};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::{Buffer, Gather, Payload, ReadBuffer, spawn};
use std::future::Future;

/// Length of the devices that a subject makes.
pub const DEVICE_LEN: ByteLen = ByteLen::new(8 << 20);

const BLOCK: u64 = 4096;

/// A backend under test.
pub trait Subject {
    /// A device of [`DEVICE_LEN`] zeros that nobody else uses.
    fn fresh(&self) -> impl Future<Output = Device>;

    /// The same device after its process has ended and come back: with whatever is durable, and
    /// without as much of the rest as the subject can make it lose.
    fn restart(&self, device: Device) -> impl Future<Output = Device>;
}

/// One `#[test]` per check, in a module of the given name; `$subject` makes a [`Subject`].
#[macro_export]
macro_rules! conformance_tests {
    ($module:ident, $subject:expr) => {
        mod $module {
            $crate::conformance_tests!(@each $subject,
                a_fresh_device_reads_zeros, what_is_written_is_read, what_lies_apart_is_written_together, lengths_up_to_a_mebibyte,
                unaligned_requests_are_refused, empty_requests_are_refused,
                requests_past_the_end_are_refused, the_last_block_is_usable,
                a_write_is_visible_when_it_returns, neighbours_are_left_alone,
                concurrent_reads_may_overlap, concurrent_writes_all_land,
                a_durable_write_survives, a_flushed_write_survives, a_flushed_discard_survives,
                discarded_ranges_read_zeros, zero_fill_overwrites_and_reports,
                counters_move, refused_requests_are_not_counted, clones_are_one_device,
            );
        }
    };
    (@each $subject:expr, $($check:ident),* $(,)?) => {
        $(
            #[test]
            fn $check() {
                let subject = $subject;
                ogee_runtime::executor::block_on($crate::conformance::$check(&subject));
            }
        )*
    };
}

fn block(number: u64) -> ByteOffset {
    ByteOffset::new(number * BLOCK)
}

fn blocks(count: u64) -> ByteLen {
    ByteLen::new(count * BLOCK)
}

/// Bytes that differ by block and by `seed`, and are never zero.
fn pattern(seed: u64, count: u64) -> Buffer {
    let mut buffer = Buffer::zeroed(blocks(count).as_usize());
    for (word, out) in (seed << 32 | 1..).zip(buffer.chunks_exact_mut(8)) {
        out.copy_from_slice(&(word.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1).to_le_bytes());
    }
    buffer
}

async fn read(device: &Device, first: u64, count: u64) -> ReadBuffer {
    device
        .read(block(first), blocks(count))
        .await
        .expect("a read within the device")
}

async fn write(device: &Device, first: u64, data: Buffer) {
    device
        .write(block(first), data)
        .await
        .expect("a write within the device");
}

fn assert_zeros(data: &[u8]) {
    assert_eq!(data.iter().position(|byte| *byte != 0), None, "not zero");
}

/// Says where two contents part, rather than printing both.
fn assert_same(found: &[u8], expected: &[u8]) {
    assert_eq!(found.len(), expected.len(), "length");
    let differs = found.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!(differs, None, "first byte that differs");
}

/// Zeros from the first block to the last.
pub async fn a_fresh_device_reads_zeros(subject: &impl Subject) {
    let device = subject.fresh().await;
    assert_eq!(device.len(), DEVICE_LEN);
    assert_zeros(&device.read(block(0), DEVICE_LEN).await.expect("read"));
}

/// Both kinds of write, read back whole and in parts.
pub async fn what_is_written_is_read(subject: &impl Subject) {
    let device = subject.fresh().await;
    write(&device, 3, pattern(1, 4)).await;
    device
        .write_durable(block(7), pattern(2, 2))
        .await
        .expect("write");
    assert_same(&read(&device, 3, 4).await, &pattern(1, 4));
    assert_same(&read(&device, 7, 2).await, &pattern(2, 2));
    assert_same(&read(&device, 8, 1).await, &pattern(2, 2)[4096..]);
}

/// Pieces of memory, some of them payloads that are used further, come to lie one behind the other: few, and more than the
/// system takes in one call.
pub async fn what_lies_apart_is_written_together(subject: &impl Subject) {
    let device = subject.fresh().await;
    let payload = Payload::from(pattern(3, 4));
    let pieces = || {
        let mut data = Gather::from(pattern(1, 2));
        for part in [0..4096, 8192..16384, 512..4608] {
            data.push_payload(payload.slice(part));
        }
        data.push(pattern(2, 1));
        data
    };
    let expected: Vec<u8> = pieces().pieces().flatten().copied().collect();
    assert_eq!(expected.len(), blocks(7).as_usize());
    device.write(block(9), pieces()).await.expect("write");
    device
        .write_durable(block(1), pieces())
        .await
        .expect("write");
    assert_same(&read(&device, 9, 7).await, &expected);
    assert_same(&read(&device, 1, 7).await, &expected);
    assert_zeros(&read(&device, 8, 1).await);
    let mut many = Gather::new();
    for _ in 0..1100 {
        many.push_payload(payload.slice(4096..4608));
    }
    many.push_payload(payload.slice(..2048));
    let expected: Vec<u8> = many.pieces().flatten().copied().collect();
    device.write(block(100), many).await.expect("write");
    assert_same(&read(&device, 100, 138).await, &expected);
    assert_same(&payload, &pattern(3, 4));
}

/// From one block to the largest request of the data plane.
pub async fn lengths_up_to_a_mebibyte(subject: &impl Subject) {
    let device = subject.fresh().await;
    for count in [1, 2, 15, 16, 17, 255, 256] {
        write(&device, 5, pattern(count, count)).await;
        assert_same(&read(&device, 5, count).await, &pattern(count, count));
    }
}

/// The error names device, operation and range, and nothing is changed.
pub async fn unaligned_requests_are_refused(subject: &impl Subject) {
    let device = subject.fresh().await;
    for (at, size) in [
        (1, 4096),
        (512, 4096),
        (4095, 4096),
        (0, 4095),
        (0, 512),
        (4096, 4097),
    ] {
        let (offset, len) = (ByteOffset::new(at), ByteLen::new(size));
        let data = || Buffer::zeroed(len.as_usize());
        let refused = [
            (Operation::Read, device.read(offset, len).await.map(|_| ())),
            (Operation::Write, device.write(offset, data()).await),
            (
                Operation::WriteDurable,
                device.write_durable(offset, data()).await,
            ),
            (Operation::Discard, device.discard(offset, len).await),
        ];
        for (asked, result) in refused {
            let error = result.expect_err("unaligned");
            let DeviceError::Unaligned {
                device: name,
                operation,
                offset: o,
                len: l,
            } = &error
            else {
                panic!("{error}");
            };
            assert_eq!(
                (&**name, *operation, *o, *l),
                (device.name(), asked, offset, len)
            );
        }
    }
}

/// A request must speak of something.
pub async fn empty_requests_are_refused(subject: &impl Subject) {
    let device = subject.fresh().await;
    let results = [
        device.read(block(1), ByteLen::ZERO).await.map(|_| ()),
        device.write(block(1), Buffer::zeroed(0)).await,
        device.write_durable(block(1), Buffer::zeroed(0)).await,
        device.discard(block(1), ByteLen::ZERO).await,
    ];
    for result in results {
        let error = result.expect_err("empty");
        assert!(matches!(error, DeviceError::Length { .. }), "{error}");
    }
}

/// The error names device, range and the device's length.
pub async fn requests_past_the_end_are_refused(subject: &impl Subject) {
    let device = subject.fresh().await;
    let end = DEVICE_LEN.get() / BLOCK;
    for (first, count) in [(end, 1), (end - 1, 2), (u64::MAX / BLOCK, 1)] {
        let (offset, len) = (block(first), blocks(count));
        let data = || Buffer::zeroed(len.as_usize());
        let refused = [
            device.read(offset, len).await.map(|_| ()),
            device.write(offset, data()).await,
            device.write_durable(offset, data()).await,
            device.discard(offset, len).await,
        ];
        for result in refused {
            let error = result.expect_err("past the end");
            let message = error.to_string();
            let DeviceError::PastEnd {
                device_len,
                offset: o,
                len: l,
                ..
            } = error
            else {
                panic!("{error}");
            };
            assert_eq!((o, l, device_len), (offset, len, DEVICE_LEN));
            assert!(message.contains(device.name()), "{message}");
            assert!(message.contains(&offset.to_string()), "{message}");
        }
    }
}

/// No block is lost to rounding.
pub async fn the_last_block_is_usable(subject: &impl Subject) {
    let device = subject.fresh().await;
    let last = DEVICE_LEN.get() / BLOCK - 1;
    device
        .write_durable(block(last), pattern(9, 1))
        .await
        .expect("write");
    assert_same(&read(&device, last, 1).await, &pattern(9, 1));
}

/// Over and over, on one block: never an older version.
pub async fn a_write_is_visible_when_it_returns(subject: &impl Subject) {
    let device = subject.fresh().await;
    for round in 1..=32 {
        if round % 2 == 0 {
            write(&device, 2, pattern(round, 1)).await;
        } else {
            device
                .write_durable(block(2), pattern(round, 1))
                .await
                .expect("write");
        }
        assert_same(&read(&device, 2, 1).await, &pattern(round, 1));
    }
}

/// A write changes its range and nothing else.
pub async fn neighbours_are_left_alone(subject: &impl Subject) {
    let device = subject.fresh().await;
    write(&device, 10, pattern(1, 5)).await;
    write(&device, 12, pattern(2, 1)).await;
    let found = read(&device, 9, 7).await;
    let original = pattern(1, 5);
    assert_zeros(&found[..4096]);
    assert_same(&found[4096..3 * 4096], &original[..2 * 4096]);
    assert_same(&found[3 * 4096..4 * 4096], &pattern(2, 1));
    assert_same(&found[4 * 4096..6 * 4096], &original[3 * 4096..]);
    assert_zeros(&found[6 * 4096..]);
}

/// Many reads at once over one range; each sees all of its own.
pub async fn concurrent_reads_may_overlap(subject: &impl Subject) {
    let device = subject.fresh().await;
    write(&device, 0, pattern(4, 64)).await;
    let reads: Vec<_> = (0..64)
        .map(|first| {
            let device = device.clone();
            spawn(async move { (first, read(&device, first / 2, 32).await) })
        })
        .collect();
    let expected = pattern(4, 64);
    for task in reads {
        let (first, data) = task.await.expect("not cancelled");
        let at = block(first / 2).get();
        let at = ByteLen::new(at).as_usize();
        assert_same(&data, &expected[at..at + 32 * 4096]);
    }
}

/// Many writes at once, side by side, of both kinds.
pub async fn concurrent_writes_all_land(subject: &impl Subject) {
    let device = subject.fresh().await;
    let writes: Vec<_> = (0..64)
        .map(|number| {
            let device = device.clone();
            spawn(async move {
                let data = pattern(number, 3);
                if number % 2 == 0 {
                    device.write(block(number * 3), data).await
                } else {
                    device.write_durable(block(number * 3), data).await
                }
            })
        })
        .collect();
    for task in writes {
        task.await.expect("not cancelled").expect("write");
    }
    for number in 0..64 {
        assert_same(&read(&device, number * 3, 3).await, &pattern(number, 3));
    }
}

/// Without any flush.
pub async fn a_durable_write_survives(subject: &impl Subject) {
    let device = subject.fresh().await;
    device
        .write_durable(block(6), pattern(3, 7))
        .await
        .expect("write");
    let device = subject.restart(device).await;
    assert_same(&read(&device, 6, 7).await, &pattern(3, 7));
}

/// The flush covers all writes before it.
pub async fn a_flushed_write_survives(subject: &impl Subject) {
    let device = subject.fresh().await;
    for number in 0..16 {
        write(&device, number * 2, pattern(number, 1)).await;
    }
    device.flush().await.expect("flush");
    let device = subject.restart(device).await;
    for number in 0..16 {
        assert_same(&read(&device, number * 2, 1).await, &pattern(number, 1));
    }
}

/// A discard is a change like any other.
pub async fn a_flushed_discard_survives(subject: &impl Subject) {
    let device = subject.fresh().await;
    device
        .write_durable(block(0), pattern(1, 32))
        .await
        .expect("write");
    device.discard(block(0), blocks(16)).await.expect("discard");
    device.flush().await.expect("flush");
    let device = subject.restart(device).await;
    assert_zeros(&read(&device, 0, 16).await);
    assert_same(&read(&device, 16, 16).await, &pattern(1, 32)[16 * 4096..]);
}

/// Exactly the range, and it can be written again.
pub async fn discarded_ranges_read_zeros(subject: &impl Subject) {
    let device = subject.fresh().await;
    write(&device, 0, pattern(1, 64)).await;
    device.discard(block(5), blocks(37)).await.expect("discard");
    let found = read(&device, 0, 64).await;
    let original = pattern(1, 64);
    assert_same(&found[..5 * 4096], &original[..5 * 4096]);
    assert_zeros(&found[5 * 4096..42 * 4096]);
    assert_same(&found[42 * 4096..], &original[42 * 4096..]);
    write(&device, 6, pattern(2, 1)).await;
    assert_same(&read(&device, 6, 1).await, &pattern(2, 1));
    device
        .discard(block(0), DEVICE_LEN)
        .await
        .expect("the whole device");
    assert_zeros(&read(&device, 0, 64).await);
}

/// More than one step, not a whole number of them, durable at the end.
pub async fn zero_fill_overwrites_and_reports(subject: &impl Subject) {
    let device = subject.fresh().await;
    write(&device, 0, pattern(1, 1024)).await;
    let len = blocks(700);
    let mut steps = Vec::new();
    device
        .zero_fill(block(100), len, |done| steps.push(done))
        .await
        .expect("zero fill");
    assert!(steps.len() > 1 && steps.is_sorted(), "{steps:?}");
    assert_eq!(steps.last(), Some(&len));
    let device = subject.restart(device).await;
    assert_zeros(&read(&device, 100, 700).await);
    let error = device
        .zero_fill(block(0), ByteLen::new(100), |_| {})
        .await
        .expect_err("ragged");
    assert!(matches!(error, DeviceError::Unaligned { .. }), "{error}");
}

/// Each by what was asked, and none other.
pub async fn counters_move(subject: &impl Subject) {
    let device = subject.fresh().await;
    let mut expected = device.counters();
    write(&device, 0, pattern(1, 3)).await;
    (expected.writes, expected.written_bytes) =
        (expected.writes + 1, expected.written_bytes + 3 * BLOCK);
    assert_eq!(device.counters(), expected);
    device
        .write_durable(block(0), pattern(1, 2))
        .await
        .expect("write");
    (expected.writes, expected.written_bytes) =
        (expected.writes + 1, expected.written_bytes + 2 * BLOCK);
    expected.durable_writes += 1;
    assert_eq!(device.counters(), expected);
    read(&device, 0, 5).await;
    (expected.reads, expected.read_bytes) = (expected.reads + 1, expected.read_bytes + 5 * BLOCK);
    assert_eq!(device.counters(), expected);
    device.flush().await.expect("flush");
    expected.flushes += 1;
    assert_eq!(device.counters(), expected);
    device.discard(block(1), blocks(2)).await.expect("discard");
    (expected.discards, expected.discarded_bytes) =
        (expected.discards + 1, expected.discarded_bytes + 2 * BLOCK);
    assert_eq!(device.counters(), expected);
}

/// A caller's bug is not the device's failure.
pub async fn refused_requests_are_not_counted(subject: &impl Subject) {
    let device = subject.fresh().await;
    let before = device.counters();
    device
        .read(ByteOffset::new(1), blocks(1))
        .await
        .expect_err("unaligned");
    device
        .write(block(DEVICE_LEN.get()), pattern(1, 1))
        .await
        .expect_err("past the end");
    assert_eq!(device.counters(), before);
}

/// A clone is another handle, with the same contents, name and counters.
pub async fn clones_are_one_device(subject: &impl Subject) {
    let device = subject.fresh().await;
    let other = device.clone();
    write(&device, 1, pattern(1, 1)).await;
    assert_same(&read(&other, 1, 1).await, &pattern(1, 1));
    assert_eq!(
        (device.name(), device.counters()),
        (other.name(), other.counters())
    );
    drop(device);
    assert_same(&read(&other, 1, 1).await, &pattern(1, 1));
}
