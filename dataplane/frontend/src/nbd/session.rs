//! What a negotiation agreed on.
//!
//! *Place*: the result of `handshake`, the frame of `transmit`. *Owner*: one connection.
//! *Invariants*: fixed once the transmission starts. *On failure*: none.

use super::export::Export;
use super::wire::transmission_flag as flag;
use crate::disk::Disk;
use std::rc::Rc;

/// An export as one client uses it.
pub(super) struct Session<D> {
    pub(super) export: Rc<Export<D>>,
    /// Structured replies.
    pub(super) is_structured: bool,
    /// The client chose `base:allocation`.
    pub(super) has_status: bool,
}

impl<D> Clone for Session<D> {
    fn clone(&self) -> Self {
        Self {
            export: Rc::clone(&self.export),
            ..*self
        }
    }
}

/// What we say an export can do.
pub(super) fn transmission_flags<D: Disk>(export: &Export<D>, is_structured: bool) -> u16 {
    let mut flags = flag::HAS_FLAGS
        | flag::SEND_FLUSH
        | flag::SEND_FUA
        | flag::CAN_MULTI_CONN
        | flag::SEND_CACHE;
    flags |= match export.disk.disk().read_only() {
        true => flag::READ_ONLY,
        false => flag::SEND_TRIM | flag::SEND_WRITE_ZEROES | flag::SEND_FAST_ZERO,
    };
    if is_structured {
        flags |= flag::SEND_DF;
    }
    flags
}
