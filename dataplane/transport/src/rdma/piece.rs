//! Registered memory in users' hands.
//!
//! *Place*: under payloads that are handed up. *Owner*: the payload's clones. *Invariants*: the piece comes back
//! to its slab with the last of them, and whoever waits for one hears of it. *On failure*: nothing fails here.

use super::port::Port;
use ogee_rdma::{Part, Piece, Shared};
use ogee_runtime::Payload;
use std::rc::{Rc, Weak};

struct Kept {
    piece: Option<Shared>,
    port: Weak<Port>,
}

/// The first `len` bytes of `piece`, for a user.
pub(super) fn payload(port: &Rc<Port>, piece: Piece, len: usize) -> Payload {
    let (piece, port) = (Some(Shared::new(piece)), Rc::downgrade(port));
    Payload::from_owner(Kept { piece, port }, len)
}

/// Where a payload lies, if that is registered memory: what was received can be sent on from there.
pub(super) fn registered(payload: &Payload) -> Option<Shared> {
    let (kept, range) = payload.owner::<Kept>()?;
    Some(kept.piece.as_ref()?.slice(range))
}

/// Memory of a user, to which the peer has written, and may no more.
struct InPlace(Part);

/// The first `len` bytes of what was written.
pub(super) fn in_place(part: Part, len: usize) -> Payload {
    Payload::from_owner(InPlace(part), len)
}

/// Whether it lies where its user wants it.
pub(super) fn is_in_place(payload: &Payload) -> bool {
    payload.owner::<InPlace>().is_some()
}

impl AsRef<[u8]> for InPlace {
    fn as_ref(&self) -> &[u8] {
        self.0.written().unwrap_or_default()
    }
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        self.piece.as_deref().unwrap_or_default()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        drop(self.piece.take());
        if let Some(port) = self.port.upgrade() {
            port.piece_came_back();
        }
    }
}
