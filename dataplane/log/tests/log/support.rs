//! What the tests share: a small log, entries with recognisable contents, a seeded random source.

use bytes::Bytes;
use ogee_device::{Device, MemoryControl};
use ogee_log::{Entry, GroupLog, Log, LogError, LogOptions, LogRegion, Vote};
use ogee_proto::checksum::crc32c;
use ogee_proto::id::{CopysetId, LogId, LogIndex, StoreId};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::{Buffer, Payload, channel::oneshot};
use std::ops::Range;

pub const STORE: StoreId = StoreId::from_bytes(*b"store of testing");
pub const SEGMENT: usize = 64 << 10;
pub const PAGE: usize = 4096;
/// The region does not begin where the device does.
pub const START: u64 = 8192;
/// Everything that may be live.
pub const ALL: Range<LogIndex> = LogIndex::new(0)..LogIndex::new(u64::MAX);

pub fn region(segments: usize) -> LogRegion {
    LogRegion {
        start: ByteOffset::new(START),
        len: ByteLen::from_usize(segments * SEGMENT),
    }
}

pub fn options() -> LogOptions {
    LogOptions {
        segment_len: ByteLen::from_usize(SEGMENT),
        ..LogOptions::new(STORE)
    }
}

/// A memory device with room for a log of `segments`, formatted.
pub async fn formatted(segments: usize) -> (Device, MemoryControl) {
    let len = ByteLen::from_usize(SEGMENT * (segments + 1));
    let (device, control) = Device::memory_with_control(len);
    Log::format(&device, region(segments), options())
        .await
        .expect("format");
    (device, control)
}

pub async fn open(device: &Device, segments: usize) -> Log {
    Log::open(device, region(segments), options())
        .await
        .expect("open")
}

/// A fresh log of `segments`.
pub async fn fresh(segments: usize) -> (Device, MemoryControl, Log) {
    let (device, control) = formatted(segments).await;
    let log = open(&device, segments).await;
    (device, control, log)
}

pub fn group(log: &Log, id: u32) -> GroupLog {
    log.group(CopysetId::new(id))
}

/// Payload of `pages` pages that tells where it belongs.
pub fn payload(id: LogId, pages: usize) -> Payload {
    let mut data = vec![0; pages * PAGE];
    for (number, chunk) in data.chunks_exact_mut(8).enumerate() {
        let word = id.index.get() << 32 ^ id.term.get() << 16 ^ number as u64;
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    Payload::from(data)
}

pub fn entry(term: u64, index: u64, pages: usize) -> Entry {
    let id = LogId::new(term, index);
    let payload = payload(id, pages);
    let payload_crc = crc32c(&payload);
    let head = Bytes::from(format!("head of {id}"));
    Entry {
        id,
        kind: u8::try_from(index % 7).expect("small"),
        head,
        payload,
        payload_crc,
    }
}

pub fn entries(term: u64, indexes: Range<u64>, pages: usize) -> Vec<Entry> {
    indexes.map(|index| entry(term, index, pages)).collect()
}

pub fn vote(term: u64) -> Vote {
    Vote {
        term,
        voted_for: term * 10,
        committed: term.is_multiple_of(2),
    }
}

/// Appends and waits until it is durable.
pub async fn append(group: &GroupLog, entries: Vec<Entry>) -> Result<(), LogError> {
    let (done, durable) = oneshot::channel();
    group.append(entries, move |result| {
        let _receiver_may_be_gone = done.send(result);
    });
    durable.await.expect("the callback is called")
}

pub fn same(a: &Entry, b: &Entry) -> bool {
    (a.id, a.kind, &a.head, a.payload_crc) == (b.id, b.kind, &b.head, b.payload_crc)
        && a.payload == b.payload
}

#[track_caller]
pub fn assert_entries(found: &[Entry], expected: &[Entry]) {
    let ids = |entries: &[Entry]| entries.iter().map(|entry| entry.id).collect::<Vec<_>>();
    assert_eq!(ids(found), ids(expected));
    for (found, expected) in found.iter().zip(expected) {
        assert!(same(found, expected), "contents of {}", found.id);
    }
}

/// Changes the bytes at `at` of the device, durably.
pub async fn patch(device: &Device, at: u64, change: impl FnOnce(&mut [u8])) {
    let page = at / PAGE as u64 * PAGE as u64;
    let read = device
        .read(ByteOffset::new(page), ByteLen::from_usize(PAGE))
        .await
        .expect("read");
    let mut buffer = Buffer::copy_from(&read);
    change(&mut buffer[usize::try_from(at - page).expect("in page")..]);
    device
        .write_durable(ByteOffset::new(page), buffer)
        .await
        .expect("write");
}

/// Offsets of the pages that begin with `magic`.
pub async fn pages_with(device: &Device, magic: [u8; 8]) -> Vec<u64> {
    let image = device
        .read(ByteOffset::ZERO, device.len())
        .await
        .expect("read");
    let starts = image
        .chunks_exact(PAGE)
        .enumerate()
        .filter(|(_, page)| page.starts_with(&magic));
    starts.map(|(number, _)| (number * PAGE) as u64).collect()
}

/// A small deterministic source: the seed is printed by the assertion that fails.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Another device with the same contents.
pub async fn copy_of(device: &Device) -> Device {
    let image = device.read(ByteOffset::ZERO, device.len()).await;
    let copy = Device::memory(device.len());
    let data = Buffer::copy_from(&image.expect("read"));
    copy.write_durable(ByteOffset::ZERO, data)
        .await
        .expect("write");
    copy
}

/// Indexes and identities of what is lost.
pub fn lost(group: &GroupLog) -> Vec<(u64, Option<u32>)> {
    let damage = group.damage().unwrap_or_default();
    let lost = damage.entries.iter();
    lost.map(|one| (one.index.get(), one.identity)).collect()
}

/// Puts everything back that is lost and that `whole` has, going down.
pub async fn repair(group: &GroupLog, whole: &[Entry]) -> Result<(), LogError> {
    while let Some(damage) = group.damage() {
        let mut lost = damage.entries.iter().rev();
        let named = lost.find(|one| one.identity.is_some());
        let Some(index) = named.map(|one| one.index) else {
            break;
        };
        let at = whole.iter().position(|entry| entry.id.index == index);
        let at = at.expect("a peer has it");
        let before = at.checked_sub(1).map(|before| &whole[before]);
        let chain = before.map_or(0, |before| before.identity(group.id()));
        group.repair(&whole[at], chain).await?;
    }
    Ok(())
}
