//! A chain → what the guest asks for.
//!
//! *Place*: between `chain` and `execute`. *Owner*: one request. *Invariants*: a request that comes out of here lies
//! within the disk, is made of whole sectors and bounded in length. Its header was copied out of the guest.
//! *On failure*: a chain without room for header or status stops the ring; anything else that is wrong with a
//! request is its status, and the ring goes on.
//!
//! virtio 1.2, section 5.2.6.

use super::chain::{Chain, Part, total};
use super::config::{Geometry, SECTOR_LEN};
use super::fault::RingFault;
use super::memory::GuestMemory;
use crate::limit::{DISCARD_LEN_MAX, DISCARD_SEGMENTS_MAX, PAYLOAD_MAX};
use ogee_proto::unit::{ByteLen, ByteOffset};
use vm_memory::{Address, Bytes, GuestAddress};

const HEADER_LEN: usize = 16;
const SEGMENT_LEN: usize = 16;
/// Of a write-zeroes segment: space may be given back.
const UNMAP: u32 = 1;
/// Bytes of the name that GET_ID gives.
pub(super) const ID_LEN: usize = 20;

/// Request types.
mod kind {
    pub(super) const IN: u32 = 0;
    pub(super) const OUT: u32 = 1;
    pub(super) const FLUSH: u32 = 4;
    pub(super) const GET_ID: u32 = 8;
    pub(super) const DISCARD: u32 = 11;
    pub(super) const WRITE_ZEROES: u32 = 13;
}

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Status {
    Ok,
    IoError,
    Unsupported,
}

impl Status {
    /// As the guest reads it.
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::IoError => 1,
            Self::Unsupported => 2,
        }
    }
}

/// A range to discard or zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Segment {
    pub(super) at: ByteOffset,
    pub(super) len: ByteLen,
    pub(super) may_unmap: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Request {
    Read { at: ByteOffset, into: Vec<Part> },
    Write { at: ByteOffset, from: Vec<Part> },
    Flush,
    Discard(Vec<Segment>),
    WriteZeroes(Vec<Segment>),
    GetId { into: Vec<Part> },
}

impl Request {
    /// Bytes of guest data that it holds while it is under way.
    pub(super) fn payload_len(&self) -> usize {
        let parts = match self {
            Self::Read { into: parts, .. } | Self::Write { from: parts, .. } => parts,
            _ => return 0,
        };
        // Bounded by PAYLOAD_MAX when it was made.
        usize::try_from(total(parts)).unwrap_or(PAYLOAD_MAX)
    }
}

/// A request, or how it ends at once, and where its status goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Asked {
    pub(super) request: Result<Request, Status>,
    pub(super) status_at: GuestAddress,
}

/// Understands a chain.
pub(super) fn parse(
    memory: &GuestMemory,
    chain: Chain,
    geometry: &Geometry,
) -> Result<Asked, RingFault> {
    let Chain {
        mut readable,
        mut writable,
    } = chain;
    let short = RingFault::Short {
        readable: total(&readable),
        writable: total(&writable),
    };
    let header: [u8; HEADER_LEN] = cut_front(memory, &mut readable).ok_or(short.clone())?;
    let status_at = cut_last(&mut writable).ok_or(short)?;
    let [a, b, c, d, _, _, _, _, s @ ..] = header;
    let sector = u64::from_le_bytes(s);
    let request = match u32::from_le_bytes([a, b, c, d]) {
        kind::IN => {
            data(sector, total(&writable), geometry).map(|at| Request::Read { at, into: writable })
        }
        kind::OUT if geometry.is_read_only => Err(Status::IoError),
        kind::OUT => {
            data(sector, total(&readable), geometry).map(|at| Request::Write { at, from: readable })
        }
        kind::FLUSH => Ok(Request::Flush),
        kind::GET_ID => Ok(Request::GetId { into: writable }),
        kind::DISCARD => segments(memory, readable, geometry, 0).map(Request::Discard),
        kind::WRITE_ZEROES => segments(memory, readable, geometry, UNMAP).map(Request::WriteZeroes),
        _ => Err(Status::Unsupported),
    };
    Ok(Asked { request, status_at })
}

/// Where a transfer of `len` bytes begins.
fn data(sector: u64, len: u64, geometry: &Geometry) -> Result<ByteOffset, Status> {
    if len == 0 || len > PAYLOAD_MAX as u64 {
        return Err(Status::IoError);
    }
    range(sector, len, geometry)
}

fn range(sector: u64, len: u64, geometry: &Geometry) -> Result<ByteOffset, Status> {
    let at = sector.checked_mul(SECTOR_LEN).ok_or(Status::IoError)?;
    let end = at.checked_add(len).ok_or(Status::IoError)?;
    let unit = u64::from(geometry.block_size);
    let is_whole = at.is_multiple_of(unit) && len.is_multiple_of(unit);
    match is_whole && end <= geometry.size {
        true => Ok(ByteOffset::new(at)),
        false => Err(Status::IoError),
    }
}

fn segments(
    memory: &GuestMemory,
    mut parts: Vec<Part>,
    geometry: &Geometry,
    flags_known: u32,
) -> Result<Vec<Segment>, Status> {
    if geometry.is_read_only {
        return Err(Status::IoError);
    }
    let len = total(&parts);
    let (unit, most) = (SEGMENT_LEN as u64, u64::from(DISCARD_SEGMENTS_MAX));
    let count = len / unit;
    if !len.is_multiple_of(unit) || count == 0 || count > most {
        return Err(Status::IoError);
    }
    let segment = |_| {
        let raw: [u8; SEGMENT_LEN] = cut_front(memory, &mut parts).ok_or(Status::IoError)?;
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = raw;
        let sector = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let flags = u32::from_le_bytes([m, n, o, p]);
        if flags & !flags_known != 0 {
            return Err(Status::Unsupported);
        }
        let len = u64::from(u32::from_le_bytes([i, j, k, l])) * SECTOR_LEN;
        if len > DISCARD_LEN_MAX {
            return Err(Status::IoError);
        }
        Ok(Segment {
            at: range(sector, len, geometry)?,
            len: ByteLen::new(len),
            may_unmap: flags & UNMAP != 0,
        })
    };
    (0..count).map(segment).collect()
}

/// Copies the first bytes out of the guest and cuts them off.
fn cut_front<const N: usize>(memory: &GuestMemory, parts: &mut Vec<Part>) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        let first = parts.first_mut()?;
        let wanted = u32::try_from(N - filled).ok()?.min(first.len);
        let end = filled + usize::try_from(wanted).ok()?;
        memory.read_slice(&mut bytes[filled..end], first.at).ok()?;
        filled = end;
        first.at = first.at.checked_add(u64::from(wanted))?;
        first.len -= wanted;
        if first.len == 0 {
            parts.remove(0);
        }
    }
    Some(bytes)
}

/// Cuts off the last byte and says where it is.
fn cut_last(parts: &mut Vec<Part>) -> Option<GuestAddress> {
    let last = parts.last_mut()?;
    last.len -= 1;
    let at = last.at.checked_add(u64::from(last.len))?;
    if last.len == 0 {
        parts.pop();
    }
    Some(at)
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
