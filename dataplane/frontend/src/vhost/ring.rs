//! A split virtqueue, from the device's side.
//!
//! *Place*: under `queue`. *Owner*: one queue. *Invariants*: a request is taken once; heads are within the ring; what
//! is answered is published with one change of the index, behind its elements. Each index of the guest is read once
//! per decision. *On failure*: [`RingFault`].
//!
//! virtio 1.2, section 2.7. Written here and not taken from a crate because requests that a process before us left
//! under way are taken by their heads, and because a batch must be published whole for the record of those.

use super::chain::DESCRIPTOR_LEN;
use super::fault::RingFault;
use super::memory::GuestMemory;
use std::sync::atomic::{Ordering, fence};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryBackend};

/// Flag of the available ring: the guest wants no interrupts.
const NO_INTERRUPT: u16 = 1;
/// Flag of the used ring: we want no kicks.
const NO_NOTIFY: u16 = 1;
/// Bytes of an element of the used ring.
const USED_LEN: u64 = 8;

/// Where the three parts of a ring are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RingAddresses {
    pub(super) table: GuestAddress,
    pub(super) available: GuestAddress,
    pub(super) used: GuestAddress,
}

/// An answered request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Used {
    pub(super) head: u16,
    /// Bytes that we wrote into its memory.
    pub(super) written: u32,
}

#[derive(Debug)]
pub(super) struct Ring {
    size: u16,
    addresses: RingAddresses,
    has_event_index: bool,
    next_available: u16,
    next_used: u16,
}

impl Ring {
    /// A ring that goes on at `next_available`; what it has answered is in the guest's memory.
    pub(super) fn new(
        memory: &GuestMemory,
        size: u16,
        addresses: RingAddresses,
        has_event_index: bool,
        next_available: u16,
    ) -> Result<Self, RingFault> {
        let mut ring = Self {
            size,
            addresses,
            has_event_index,
            next_available,
            next_used: 0,
        };
        ring.relocate(memory, addresses)?;
        ring.next_used = load(memory, addresses.used, 2)?;
        Ok(ring)
    }

    /// The same ring elsewhere: the guest's memory was mapped anew.
    pub(super) fn relocate(
        &mut self,
        memory: &GuestMemory,
        addresses: RingAddresses,
    ) -> Result<(), RingFault> {
        let size = u64::from(self.size);
        let parts = [
            ("table", addresses.table, 16, DESCRIPTOR_LEN * size),
            ("available part", addresses.available, 2, 6 + 2 * size),
            ("used part", addresses.used, 4, 6 + USED_LEN * size),
        ];
        for (part, at, alignment, len) in parts {
            if !at.0.is_multiple_of(alignment) {
                let at = at.0;
                return Err(RingFault::Alignment {
                    part,
                    at,
                    alignment,
                });
            }
            let is_there = usize::try_from(len)
                .is_ok_and(|len| GuestMemoryBackend::check_range(memory, at, len));
            if !is_there {
                return Err(RingFault::Address { at: at.0 });
            }
        }
        self.addresses = addresses;
        Ok(())
    }

    pub(super) const fn size(&self) -> u16 {
        self.size
    }

    pub(super) const fn table(&self) -> GuestAddress {
        self.addresses.table
    }

    /// Index of the next request to take: where the guest goes on after the ring was stopped.
    pub(super) const fn next_available(&self) -> u16 {
        self.next_available
    }

    /// Index of the next answer.
    pub(super) const fn next_used(&self) -> u16 {
        self.next_used
    }

    /// Whether it would go on with requests that were answered: where it is to go on cannot be behind its answers.
    pub(super) const fn is_behind(&self) -> bool {
        self.next_available.wrapping_sub(self.next_used) > self.size
    }

    /// Goes on as if `count` requests after the last answer had been taken.
    pub(super) const fn resume_after(&mut self, count: u16) {
        self.next_available = self.next_used.wrapping_add(count);
    }

    /// Requests that nobody has taken.
    pub(super) fn waiting(&self, memory: &GuestMemory) -> Result<u16, RingFault> {
        let index: u16 = load(memory, self.addresses.available, 2)?;
        let claimed = index.wrapping_sub(self.next_available);
        let size = self.size;
        match claimed <= size {
            true => Ok(claimed),
            false => Err(RingFault::Available { claimed, size }),
        }
    }

    /// Takes the next request, which must be there.
    pub(super) fn take(&mut self, memory: &GuestMemory) -> Result<u16, RingFault> {
        let at = u64::from(self.next_available % self.size);
        let head = load(memory, self.addresses.available, 4 + 2 * at)?;
        let size = self.size;
        if head >= size {
            return Err(RingFault::Head { head, size });
        }
        self.next_available = self.next_available.wrapping_add(1);
        Ok(head)
    }

    /// Answers requests, then says whether the guest wants to be interrupted for them.
    pub(super) fn publish(
        &mut self,
        memory: &GuestMemory,
        answered: &[Used],
    ) -> Result<bool, RingFault> {
        let before = self.next_used;
        for used in answered {
            let at = u64::from(self.next_used % self.size);
            let address = offset(self.addresses.used, 4 + USED_LEN * at)?;
            let element = u64::from(used.head) | u64::from(used.written) << 32;
            let stored = memory.write_obj(element.to_le_bytes(), address);
            stored.map_err(|_| RingFault::Address { at: address.0 })?;
            self.next_used = self.next_used.wrapping_add(1);
        }
        // Behind the elements.
        store(memory, self.addresses.used, 2, self.next_used)?;
        // The guest looks at the index after it has told what it wants to hear, we the other way round.
        fence(Ordering::SeqCst);
        if !self.has_event_index {
            let flags: u16 = load(memory, self.addresses.available, 0)?;
            return Ok(flags & NO_INTERRUPT == 0);
        }
        let event: u16 = load(
            memory,
            self.addresses.available,
            4 + 2 * u64::from(self.size),
        )?;
        let passed = self.next_used.wrapping_sub(before);
        Ok(self.next_used.wrapping_sub(event).wrapping_sub(1) < passed)
    }

    /// Asks for a kick at the next request, and says whether there is one already.
    pub(super) fn listen(&self, memory: &GuestMemory) -> Result<bool, RingFault> {
        match self.has_event_index {
            true => {
                let at = 4 + USED_LEN * u64::from(self.size);
                store(memory, self.addresses.used, at, self.next_available)?;
            }
            false => store(memory, self.addresses.used, 0, 0)?,
        }
        fence(Ordering::SeqCst);
        Ok(self.waiting(memory)? > 0)
    }

    /// Asks for no kicks: we look by ourselves. With an event index the last one asked for stands.
    pub(super) fn ignore(&self, memory: &GuestMemory) -> Result<(), RingFault> {
        match self.has_event_index {
            true => Ok(()),
            false => store(memory, self.addresses.used, 0, NO_NOTIFY),
        }
    }
}

fn offset(base: GuestAddress, by: u64) -> Result<GuestAddress, RingFault> {
    base.checked_add(by)
        .ok_or(RingFault::Address { at: base.0 })
}

fn load(memory: &GuestMemory, base: GuestAddress, by: u64) -> Result<u16, RingFault> {
    let at = offset(base, by)?;
    let loaded = memory.load(at, Ordering::Acquire);
    loaded
        .map(u16::from_le)
        .map_err(|_| RingFault::Address { at: at.0 })
}

fn store(memory: &GuestMemory, base: GuestAddress, by: u64, value: u16) -> Result<(), RingFault> {
    let at = offset(base, by)?;
    let stored = memory.store(value.to_le(), at, Ordering::Release);
    stored.map_err(|_| RingFault::Address { at: at.0 })
}
