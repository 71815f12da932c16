//! What a store has done since it was opened.

use std::cell::Cell;

/// Counts since the store was opened.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct StoreCounters {
    /// Data bytes read from the device and verified.
    pub data_bytes_read: u64,
    /// Data bytes written to the device.
    pub data_bytes_written: u64,
    /// Device requests that wrote them.
    pub data_writes: u64,
    /// Bytes of extents that chunks took over from the log, without writing them.
    pub adopted_bytes: u64,
    /// Data bytes copied to other extents because the log still names theirs. Among those written.
    pub moved_bytes: u64,
    /// Metadata pages written.
    pub pages_written: u64,
    /// Checkpoints completed.
    pub checkpoints: u64,
    /// Reads repeated because a write-back changed the chunk under them.
    pub read_retries: u64,
    /// Blocks reported with a checksum mismatch.
    pub checksum_errors: u64,
    /// Blocks repaired with bytes of a peer.
    pub repairs: u64,
    /// Copies of metadata pages that an inspection has verified.
    pub metadata_copies_checked: u64,
    /// Metadata pages that did not look right to an inspection, and were looked at again while no checkpoint ran.
    pub metadata_suspects: u64,
    /// Copies of metadata pages that were bad, and were rewritten from the other one.
    pub metadata_repairs: u64,
    /// Metadata pages of which no copy was good, and that were written anew.
    pub metadata_rewrites: u64,
    /// Times that a bad copy did not take what was written, and stayed bad.
    pub metadata_refusals: u64,
    /// Times that no copy of a metadata page could be read. It was written anew if the device read anything else.
    pub metadata_unread: u64,
}

/// The live counts.
#[derive(Default)]
pub struct Counters(Cell<StoreCounters>);

impl Counters {
    /// The counts now.
    pub fn get(&self) -> StoreCounters {
        self.0.get()
    }

    /// Changes the counts.
    pub fn update(&self, change: impl FnOnce(&mut StoreCounters)) {
        let mut counts = self.0.get();
        change(&mut counts);
        self.0.set(counts);
    }
}
