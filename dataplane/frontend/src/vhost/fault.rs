//! What a guest can do wrong with its ring.
//!
//! *Place*: ends a ring in `queue`, with a log line. *Owner*: none, a value. *Invariants*: each names the value that
//! is wrong. *On failure*: it is the failure; the ring stands still until the guest resets the device.

use crate::limit::CHAIN_MAX;

/// Why a ring was stopped.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum RingFault {
    #[error("an address of the ring, {at:#x}, is not in guest memory")]
    Address { at: u64 },
    #[error("the {part} of the ring at {at:#x} is not aligned to {alignment}")]
    Alignment {
        part: &'static str,
        at: u64,
        alignment: u64,
    },
    #[error("{claimed} requests are said to be new in a ring of {size}")]
    Available { claimed: u16, size: u16 },
    #[error("request {head} is outside of a ring of {size}")]
    Head { head: u16, size: u16 },
    #[error("request {head} was made again before it was answered")]
    Twice { head: u16 },
    #[error("a descriptor is followed by number {next} of {size}")]
    Next { next: u16, size: u16 },
    #[error("a chain does not end after {parts} descriptors (at most {CHAIN_MAX})")]
    Endless { parts: u16 },
    #[error("a table of {len} bytes: at most {CHAIN_MAX} descriptors of 16 bytes, at least one")]
    IndirectLength { len: u32 },
    #[error("a descriptor with flags {flags:#x}: a table stands alone, and none within a table")]
    IndirectFlags { flags: u16 },
    #[error("an empty descriptor at {at:#x}")]
    Empty { at: u64 },
    #[error("{len} bytes at {at:#x} are not all in guest memory")]
    Range { at: u64, len: u32 },
    #[error("a readable descriptor behind a writable one")]
    Order,
    #[error("a request of {readable} readable and {writable} writable bytes: at least 16 and 1")]
    Short { readable: u64, writable: u64 },
    #[error("its kicks cannot be waited for: {cause}")]
    Kick { cause: String },
    #[error("the record of requests under way is damaged: {what}")]
    Inflight { what: &'static str },
}
