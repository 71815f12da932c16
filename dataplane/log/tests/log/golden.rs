//! The bytes of format version 2.
//!
//! `golden/log-v2.hex` holds the rows of the region that are not zero. A log written today must
//! be that image, and that image must open. `OGEE_GOLDEN=write` writes the file anew, which only
//! a new format version may need.

use crate::support::{
    ALL, PAGE, SEGMENT, START, append, assert_entries, entries, formatted, group, open, options,
    region, vote,
};
use ogee_device::Device;
use ogee_log::{Log, LogError};
use ogee_proto::id::{CopysetId, LogId, LogIndex};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::Buffer;
use ogee_runtime::executor::block_on;
use std::fmt::Write;
use std::path::Path;

const SEGMENTS: usize = 5;
const ROW: usize = 32;

fn path() -> std::path::PathBuf {
    golden("log-v2.hex")
}

fn golden(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// Writes one record of each kind that a caller can cause.
async fn write_sample() -> Device {
    let (device, _) = formatted(SEGMENTS).await;
    let log = open(&device, SEGMENTS).await;
    let one = group(&log, 1);
    one.save_vote(vote(2)).await.expect("vote");
    append(&one, entries(2, 0..4, 1)).await.expect("append");
    one.truncate_after(Some(LogIndex::new(2)))
        .await
        .expect("truncate");
    append(&one, entries(3, 3..5, 0)).await.expect("append");
    one.purge(LogId::new(2, 1)).await.expect("purge");
    one.save_committed(LogId::new(2, 2));
    one.committed_durable().await.expect("committed");
    append(&group(&log, 2), entries(1, 7..8, 0))
        .await
        .expect("append");
    log.remove_group(CopysetId::new(2)).await.expect("remove");
    log.close().await.expect("close");
    let log = open(&device, SEGMENTS).await;
    log.close().await.expect("close");
    device
}

async fn image(device: &Device) -> Vec<u8> {
    let len = ByteLen::from_usize(SEGMENTS * SEGMENT);
    device
        .read(ByteOffset::new(START), len)
        .await
        .expect("read")
        .to_vec()
}

fn to_text(image: &[u8]) -> String {
    let mut text = String::new();
    for (row, bytes) in image.chunks_exact(ROW).enumerate() {
        if bytes.iter().any(|byte| *byte != 0) {
            write!(text, "{:06x} ", row * ROW).expect("to memory");
            bytes
                .iter()
                .for_each(|byte| write!(text, "{byte:02x}").expect("to memory"));
            text.push('\n');
        }
    }
    text
}

fn from_text(text: &str) -> Vec<u8> {
    let mut image = vec![0; SEGMENTS * SEGMENT];
    for line in text.lines() {
        let (at, hex) = line.split_once(' ').expect("offset and bytes");
        let at = usize::from_str_radix(at, 16).expect("offset");
        for (number, byte) in image[at..at + ROW].iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * number..2 * number + 2], 16).expect("byte");
        }
    }
    image
}

#[test]
fn todays_bytes_are_the_golden_ones() {
    let written = block_on(async { image(&write_sample().await).await });
    if std::env::var_os("OGEE_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(path(), to_text(&written)).expect("write");
    }
    let golden = std::fs::read_to_string(path()).expect("golden file");
    assert!(
        from_text(&golden) == written,
        "format changed: that needs a new version"
    );
}

/// A device with the image of a golden file.
async fn device_of(path: std::path::PathBuf) -> Device {
    let golden = from_text(&std::fs::read_to_string(path).expect("golden file"));
    let device = Device::memory(ByteLen::from_usize(SEGMENT * (SEGMENTS + 1)));
    let data = Buffer::copy_from(&golden);
    device
        .write_durable(ByteOffset::new(START), data)
        .await
        .expect("write");
    device
}

#[test]
fn the_version_before_is_refused() {
    block_on(async {
        let device = device_of(golden("log-v1.hex")).await;
        let opened = Log::open(&device, region(SEGMENTS), options()).await;
        let error = opened.err().expect("refused");
        let versions = matches!(error, LogError::UnknownVersion { found: 1, ours: 2 });
        assert!(versions, "{error}");
    });
}

#[test]
fn the_golden_image_opens() {
    block_on(async {
        let device = device_of(path()).await;
        let log = open(&device, SEGMENTS).await;
        assert_eq!(log.groups(), [CopysetId::new(1)]);
        let one = group(&log, 1);
        let state = one.state();
        assert_eq!(state.vote, Some(vote(2)));
        assert_eq!(state.committed, Some(LogId::new(2, 2)));
        assert_eq!(state.purged, Some(LogId::new(2, 1)));
        let expected = [entries(2, 2..3, 1), entries(3, 3..5, 0)].concat();
        assert_entries(
            &one.entries(ALL, usize::MAX).await.expect("read"),
            &expected,
        );
        assert_eq!(expected[0].payload.len(), PAGE);
    });
}
