//! A ring over memory that a fuzzer writes, without the threads and descriptors around it.
//!
//! *Place*: what `queue` does with `ring`, `chain`, `request` and `inflight`, step by step, under the fuzz targets. *Owner*:
//! the caller. *Invariants*: asserted at each step: what is asked lies within the disk and the guest's memory, nothing is under
//! way twice, and the record of what is under way says what is. *On failure*: a panic is a finding; a broken ring is not.

use super::chain::{self, Part};
use super::config::Geometry;
use super::fault::RingFault;
use super::inflight::{Inflight, InflightMemory};
use super::memory::GuestMemory;
use super::request::{self, Request};
use super::ring::{Ring, RingAddresses, Used};
use crate::limit::PAYLOAD_MAX;
use vm_memory::{Bytes, GuestAddress};

/// Memory of the guest: what the fuzzer writes, and some more that stays zero.
const MEMORY: usize = 64 << 10;
const DISK: Geometry = Geometry {
    size: 1 << 20,
    block_size: 512,
    is_read_only: false,
};

/// A guest and its ring.
pub struct Guest {
    memory: GuestMemory,
    ring: Ring,
    record: InflightMemory,
    inflight: Inflight,
    addresses: RingAddresses,
    has_event_index: bool,
    /// Under way, in the order in which they were taken.
    requests: Vec<u16>,
}

impl Guest {
    /// A guest whose memory begins with `image`; `None` if its ring is refused.
    ///
    /// # Panics
    /// When the machine has no memory.
    #[must_use]
    pub fn new(image: &[u8], size: u8, flags: u8, places: [u64; 3]) -> Option<Self> {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY)]).expect("memory");
        memory
            .write_slice(image, GuestAddress(0))
            .expect("an image that fits");
        let size = 1 << (size % 11);
        let [table, available, used] = places.map(GuestAddress);
        let addresses = RingAddresses {
            table,
            available,
            used,
        };
        let has_event_index = flags & 1 != 0;
        let next = u16::from(flags >> 1);
        let ring = Ring::new(&memory, size, addresses, has_event_index, next).ok()?;
        let (record, _file) = InflightMemory::create(1, size).expect("a memfd");
        let mut inflight = record.queue(0).expect("one queue");
        let left = inflight.open(size, ring.next_used());
        assert_eq!(left, Ok(None), "nothing was ever taken");
        Some(Self {
            memory,
            ring,
            record,
            inflight,
            addresses,
            has_event_index,
            requests: Vec::new(),
        })
    }

    /// Whether anything is under way.
    #[must_use]
    pub fn has_requests(&self) -> bool {
        !self.requests.is_empty()
    }

    /// The guest writes; what lies outside of its memory is cut off.
    ///
    /// # Panics
    /// If `at` is outside of it.
    pub fn scribble(&self, at: usize, bytes: &[u8]) {
        let len = bytes.len().min(MEMORY - at);
        let written = self
            .memory
            .write_slice(&bytes[..len], GuestAddress(at as u64));
        written.expect("within memory");
    }

    /// Takes what is there; false if the ring is broken.
    pub fn take(&mut self) -> bool {
        let waiting = match self.ring.waiting(&self.memory) {
            Ok(waiting) => waiting,
            Err(fault) => return broken(&fault),
        };
        assert!(waiting <= self.ring.size(), "more than the ring holds");
        for _ in 0..waiting {
            let head = match self.ring.take(&self.memory) {
                Ok(head) => head,
                Err(fault) => return broken(&fault),
            };
            assert!(head < self.ring.size(), "a head outside of the ring");
            if self.requests.contains(&head) {
                return broken(&RingFault::Twice { head });
            }
            if !self.understand(head) {
                return false;
            }
            self.inflight.mark(head).expect("a head within the ring");
            self.requests.push(head);
        }
        self.ring.listen(&self.memory).is_ok()
    }

    fn understand(&self, head: u16) -> bool {
        let (table, size) = (self.ring.table(), self.ring.size());
        let chain = match chain::read(&self.memory, table, size, head) {
            Ok(chain) => chain,
            Err(fault) => return broken(&fault),
        };
        chain
            .readable
            .iter()
            .chain(&chain.writable)
            .for_each(inside);
        let asked = match request::parse(&self.memory, chain, &DISK) {
            Ok(asked) => asked,
            Err(fault) => return broken(&fault),
        };
        assert!(
            asked.status_at.0 < MEMORY as u64,
            "a status outside of memory"
        );
        let within = |at: u64, len: u64| assert!(at + len <= DISK.size, "outside of the disk");
        match asked.request {
            Ok(Request::Read { at, into: parts } | Request::Write { at, from: parts }) => {
                parts.iter().for_each(inside);
                let len = chain::total(&parts);
                assert!(len > 0 && len <= PAYLOAD_MAX as u64 && len.is_multiple_of(512));
                within(at.get(), len);
            }
            Ok(Request::Discard(segments) | Request::WriteZeroes(segments)) => {
                for segment in segments {
                    within(segment.at.get(), segment.len.get());
                }
            }
            Ok(Request::GetId { into }) => into.iter().for_each(inside),
            Ok(Request::Flush) | Err(_) => {}
        }
        true
    }

    /// Answers one of the requests under way; false if the ring is broken.
    ///
    /// # Panics
    /// When the record refuses what it has marked.
    pub fn answer(&mut self, which: usize) -> bool {
        if self.requests.is_empty() {
            return true;
        }
        let head = self.requests.remove(which % self.requests.len());
        let answered = [Used { head, written: 1 }];
        self.inflight
            .link(&answered)
            .expect("a head within the ring");
        let before = self.ring.next_used();
        if let Err(fault) = self.ring.publish(&self.memory, &answered) {
            return broken(&fault);
        }
        assert_eq!(self.ring.next_used(), before.wrapping_add(1));
        let cleared = self.inflight.clear(&answered, self.ring.next_used());
        cleared.expect("a head within the ring");
        true
    }

    /// Dies and begins anew; false if the guest has meanwhile spoilt its ring.
    ///
    /// # Panics
    /// When the record does not say what is under way.
    pub fn restart(&mut self) -> bool {
        let (addresses, event) = (self.addresses, self.has_event_index);
        let expected = self.ring.next_used();
        let size = self.ring.size();
        let Ok(mut ring) = Ring::new(&self.memory, size, addresses, event, 0) else {
            return false;
        };
        if ring.next_used() != expected {
            // The guest has changed our own index: what it gets is its own affair, but no panic.
            let mut inflight = self.record.queue(0).expect("one queue");
            drop(inflight.open(size, ring.next_used()));
            return false;
        }
        let mut inflight = self.record.queue(0).expect("one queue");
        let left = inflight.open(size, ring.next_used());
        assert_eq!(
            left,
            Ok(Some(self.requests.clone())),
            "the record of what is under way"
        );
        ring.resume_after(u16::try_from(self.requests.len()).expect("as many as a ring has"));
        self.ring = ring;
        self.inflight = inflight;
        self.requests.iter().all(|head| self.understand(*head))
    }
}

fn broken(fault: &RingFault) -> bool {
    // The message must come out whatever the numbers are.
    assert!(!fault.to_string().is_empty());
    false
}

fn inside(part: &Part) {
    let end = part.at.0.checked_add(u64::from(part.len));
    assert!(
        part.len > 0 && end.is_some_and(|end| end <= MEMORY as u64),
        "outside of memory"
    );
}
