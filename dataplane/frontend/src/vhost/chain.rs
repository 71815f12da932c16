//! A chain of descriptors, copied out of the guest once and checked.
//!
//! *Place*: between `ring` and `request`. *Owner*: one request. *Invariants*: each descriptor is read once; what the
//! guest changes afterwards has no effect. Every part lies in guest memory; there are at most [`CHAIN_MAX`] parts and
//! their lengths add up without overflow; parts that we read come before those that we write.
//! *On failure*: [`RingFault`]: a guest that makes such a chain has lost its ring.

use super::fault::RingFault;
use super::memory::GuestMemory;
use crate::limit::CHAIN_MAX;
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryBackend};

/// Bytes of a descriptor in memory.
pub(super) const DESCRIPTOR_LEN: u64 = 16;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// A stretch of guest memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Part {
    pub(super) at: GuestAddress,
    pub(super) len: u32,
}

/// A request's memory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Chain {
    /// What the guest wants read by the device, in order.
    pub(super) readable: Vec<Part>,
    /// What the device is to write, in order.
    pub(super) writable: Vec<Part>,
}

/// Bytes of all parts together. Cannot overflow: there are few, of 32 bits each.
pub(super) fn total(parts: &[Part]) -> u64 {
    parts.iter().map(|part| u64::from(part.len)).sum()
}

#[derive(Clone, Copy)]
struct Descriptor {
    at: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    fn read(memory: &GuestMemory, table: GuestAddress, index: u16) -> Result<Self, RingFault> {
        let address = table.checked_add(u64::from(index) * DESCRIPTOR_LEN);
        let address = address.ok_or(RingFault::Address { at: table.0 })?;
        let read: Result<[u8; 16], _> = memory.read_obj(address);
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] =
            read.map_err(|_| RingFault::Address { at: address.0 })?;
        Ok(Self {
            at: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            len: u32::from_le_bytes([i, j, k, l]),
            flags: u16::from_le_bytes([m, n]),
            next: u16::from_le_bytes([o, p]),
        })
    }

    const fn is(self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// Reads the chain that starts at `head` of a table of `size` descriptors.
pub(super) fn read(
    memory: &GuestMemory,
    table: GuestAddress,
    size: u16,
    head: u16,
) -> Result<Chain, RingFault> {
    if head >= size {
        return Err(RingFault::Head { head, size });
    }
    let first = Descriptor::read(memory, table, head)?;
    if !first.is(INDIRECT) {
        return follow(memory, table, size, first);
    }
    if first.is(NEXT) || first.is(WRITE) {
        return Err(RingFault::IndirectFlags { flags: first.flags });
    }
    let count = u64::from(first.len) / DESCRIPTOR_LEN;
    let count = u16::try_from(count).ok().filter(|count| {
        *count > 0 && *count <= CHAIN_MAX && u64::from(first.len).is_multiple_of(DESCRIPTOR_LEN)
    });
    let count = count.ok_or(RingFault::IndirectLength { len: first.len })?;
    let table = GuestAddress(first.at);
    let first = Descriptor::read(memory, table, 0)?;
    follow(memory, table, count, first)
}

/// Follows a chain within one table, which holds no table again behind its first descriptor.
fn follow(
    memory: &GuestMemory,
    table: GuestAddress,
    size: u16,
    first: Descriptor,
) -> Result<Chain, RingFault> {
    let mut chain = Chain::default();
    let mut descriptor = first;
    // A chain without a loop has at most as many parts as there are descriptors.
    for _ in 0..size.min(CHAIN_MAX) {
        take(memory, &mut chain, descriptor)?;
        if !descriptor.is(NEXT) {
            return Ok(chain);
        }
        if descriptor.next >= size {
            let next = descriptor.next;
            return Err(RingFault::Next { next, size });
        }
        descriptor = Descriptor::read(memory, table, descriptor.next)?;
    }
    Err(RingFault::Endless {
        parts: size.min(CHAIN_MAX),
    })
}

fn take(memory: &GuestMemory, chain: &mut Chain, from: Descriptor) -> Result<(), RingFault> {
    let Descriptor { at, len, flags, .. } = from;
    if from.is(INDIRECT) {
        return Err(RingFault::IndirectFlags { flags });
    }
    if len == 0 {
        return Err(RingFault::Empty { at });
    }
    let address = GuestAddress(at);
    let len_here = usize::try_from(len).map_err(|_| RingFault::Range { at, len })?;
    if !GuestMemoryBackend::check_range(memory, address, len_here) {
        return Err(RingFault::Range { at, len });
    }
    let part = Part { at: address, len };
    match from.is(WRITE) {
        true => chain.writable.push(part),
        false if chain.writable.is_empty() => chain.readable.push(part),
        false => return Err(RingFault::Order),
    }
    Ok(())
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
