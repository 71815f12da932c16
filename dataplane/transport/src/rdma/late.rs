//! Peers that were too late for memory that a user had lent them.
//!
//! *Place*: asked before a user's memory is lent for an answer. *Owner*: the port: a late answer ends its connection, and the
//! next one goes to the same peer. *Invariants*: bounded, in number and in time. *On failure*: none; what is not lent is answered
//! into the port's own memory, which nobody wants back early, and copied.

use super::limit::{LATE_PEERS_MAX, LEND_AGAIN_AFTER};
use ogee_runtime::Instant;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;

/// Peers that were too late, and since when.
#[derive(Default)]
pub(super) struct Late(RefCell<HashMap<SocketAddr, Instant>>);

impl Late {
    /// Something was recalled from `peer` at `now`; whether it was not known to be late.
    pub(super) fn note(&self, peer: SocketAddr, now: Instant) -> bool {
        let mut peers = self.0.borrow_mut();
        peers.retain(|_, since| now - *since < LEND_AGAIN_AFTER);
        if peers.len() >= LATE_PEERS_MAX {
            peers.clear();
        }
        peers.insert(peer, now).is_none()
    }

    /// Whether nothing is to be lent to `peer` yet.
    pub(super) fn has(&self, peer: SocketAddr, now: Instant) -> bool {
        let since = self.0.borrow().get(&peer).copied();
        since.is_some_and(|since| now - since < LEND_AGAIN_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::{LATE_PEERS_MAX, LEND_AGAIN_AFTER, Late};
    use ogee_runtime::executor::block_on;
    use ogee_runtime::now;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::Duration;

    #[test]
    fn who_was_late_is_not_lent_to_for_a_minute_since_the_last_time() {
        block_on(async {
            let peer = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let (late, began) = (Late::default(), now());
            let short = LEND_AGAIN_AFTER - Duration::from_millis(1);
            assert!(!late.has(peer(1), began));
            assert!(late.note(peer(1), began) && !late.note(peer(1), began + short));
            assert!(late.has(peer(1), began + LEND_AGAIN_AFTER));
            assert!(!late.has(peer(2), began + short), "it was on time");
            let over = began + short + LEND_AGAIN_AFTER;
            assert!(!late.has(peer(1), over) && late.note(peer(2), over));
            assert_eq!(late.0.borrow().len(), 1);
            for port in 3..5000 {
                late.note(peer(port), over);
            }
            assert!(late.0.borrow().len() <= LATE_PEERS_MAX);
        });
    }
}
