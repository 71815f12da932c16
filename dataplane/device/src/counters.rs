//! What a device has done since it was opened.

use crate::error::DeviceError;
use crate::operation::Operation;
use ogee_proto::unit::ByteLen;
use std::cell::Cell;

/// Counts of finished requests. Those that were refused before they reached the backend (unaligned,
/// past the end) are not among them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DeviceCounters {
    /// Reads done.
    pub reads: u64,
    /// Bytes that they returned.
    pub read_bytes: u64,
    /// Writes done, durable ones included.
    pub writes: u64,
    /// Bytes that they wrote.
    pub written_bytes: u64,
    /// Durable writes among them.
    pub durable_writes: u64,
    /// Flushes done.
    pub flushes: u64,
    /// Discards done.
    pub discards: u64,
    /// Bytes that they gave back.
    pub discarded_bytes: u64,
    /// Requests of any kind that failed.
    pub failures: u64,
}

/// The counters of one device.
#[derive(Debug, Default)]
pub(crate) struct CounterCell(Cell<DeviceCounters>);

impl CounterCell {
    pub(crate) const fn snapshot(&self) -> DeviceCounters {
        self.0.get()
    }

    /// Counts a finished request, and hands its result on.
    pub(crate) fn count<T>(
        &self,
        operation: Operation,
        len: ByteLen,
        result: Result<T, DeviceError>,
    ) -> Result<T, DeviceError> {
        let mut counters = self.0.get();
        if result.is_ok() {
            counters.add(operation, len.get());
        } else {
            counters.failures += 1;
        }
        self.0.set(counters);
        result
    }
}

impl DeviceCounters {
    const fn add(&mut self, operation: Operation, bytes: u64) {
        match operation {
            Operation::Read => {
                self.reads += 1;
                self.read_bytes += bytes;
            }
            Operation::Write => {
                self.writes += 1;
                self.written_bytes += bytes;
            }
            Operation::WriteDurable => {
                self.writes += 1;
                self.durable_writes += 1;
                self.written_bytes += bytes;
            }
            Operation::Flush => self.flushes += 1,
            Operation::Discard => {
                self.discards += 1;
                self.discarded_bytes += bytes;
            }
        }
    }
}
