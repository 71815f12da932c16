//! Frames that have come on one connection, in order, some of them without their payload yet.
//!
//! *Place*: filled by `incoming`, emptied by the receiver. *Owner*: one wire. *Invariants*: frames leave in the order
//! in which they came; an entry's number is never used again. At most as many entries as the peer was granted receive
//! buffers. *On failure*: nothing fails here.

use super::limit::READ_AHEAD;
use bytes::Bytes;
use ogee_proto::wire::FrameHeader;
use ogee_rdma::RemoteMemory;
use ogee_runtime::Payload;
use std::collections::VecDeque;

/// A frame that has come.
pub(super) struct Entry {
    pub(super) header: FrameHeader,
    pub(super) meta: Bytes,
    pub(super) payload: Arrival,
}

/// How far its payload is.
pub(super) enum Arrival {
    /// Here.
    Here(Payload),
    /// In the peer's memory.
    Lent { loan: u32, remote: RemoteMemory },
    /// On its way from there.
    Reading { loan: u32 },
    /// In memory whose key is being voided.
    Voiding,
}

/// Frames that have come on one connection.
#[derive(Default)]
pub(super) struct Inbox {
    entries: VecDeque<Entry>,
    /// Number of the front entry.
    front: u64,
    /// Payload that is here.
    bytes: usize,
}

impl Inbox {
    /// Adds a frame; its number.
    pub(super) fn add(&mut self, entry: Entry) -> u64 {
        if let Arrival::Here(payload) = &entry.payload {
            self.bytes += payload.len();
        }
        self.entries.push_back(entry);
        self.front + self.entries.len() as u64 - 1
    }

    /// The payload of an entry has come.
    pub(super) fn complete(&mut self, number: u64, payload: Payload) {
        let len = payload.len();
        if let Some(entry) = self.at(number) {
            entry.payload = Arrival::Here(payload);
            self.bytes += len;
        }
    }

    /// The front one, if it is whole.
    pub(super) fn pop(&mut self) -> Option<(FrameHeader, Bytes, Payload)> {
        let front = self
            .entries
            .pop_front_if(|entry| matches!(entry.payload, Arrival::Here(_)))?;
        self.front += 1;
        let Arrival::Here(payload) = front.payload else {
            unreachable!("looked at above");
        };
        self.bytes -= payload.len();
        Some((front.header, front.meta, payload))
    }

    /// Whether the front one is whole.
    pub(super) fn is_ready(&self) -> bool {
        let front = self.entries.front();
        front.is_some_and(|entry| matches!(entry.payload, Arrival::Here(_)))
    }

    /// The next one whose payload is to be read: its number, its loan, and where.
    pub(super) fn to_read(&self) -> Option<(u64, u32, RemoteMemory)> {
        let ahead = self.entries.iter().take(READ_AHEAD);
        let mut lent = (self.front..).zip(ahead).filter_map(|(number, entry)| {
            let Arrival::Lent { loan, remote } = entry.payload else {
                return None;
            };
            Some((number, loan, remote))
        });
        lent.next()
    }

    /// The payload of an entry is on its way.
    pub(super) fn set_reading(&mut self, number: u64, loan: u32) {
        if let Some(entry) = self.at(number) {
            entry.payload = Arrival::Reading { loan };
        }
    }

    /// Of an entry whose payload is on its way: its loan, and its length.
    pub(super) fn reading(&mut self, number: u64) -> Option<(u32, usize)> {
        let entry = self.at(number)?;
        match entry.payload {
            Arrival::Reading { loan } => Some((loan, entry.header.payload_len as usize)),
            _ => None,
        }
    }

    /// Nobody wants them any more: drops those that are whole; how many. What was lent for the others, and is not
    /// being read, goes to `over`.
    pub(super) fn drop_all(&mut self, over: &mut VecDeque<u32>) -> u32 {
        for entry in &mut self.entries {
            if let Arrival::Lent { loan, .. } = entry.payload {
                over.push_back(loan);
                entry.payload = Arrival::Here(Payload::empty());
            }
        }
        let mut dropped = 0;
        while self.pop().is_some() {
            dropped += 1;
        }
        dropped
    }

    fn at(&mut self, number: u64) -> Option<&mut Entry> {
        let at = number.checked_sub(self.front)?;
        self.entries.get_mut(usize::try_from(at).ok()?)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Payload that is here.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}
