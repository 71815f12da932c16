//! Receive buffers, shared out among connections.
//!
//! *Place*: in a port. *Owner*: one port. *Invariants*: what is granted and what is left are all that there are. Each
//! connection that may still come finds the least that it can live with, however much those before it have. *On failure*:
//! there are as many connections as the port takes, and the next one is refused.

use super::limit::{GRANT_MAX, GRANT_MIN, GRANT_SHARE};
use std::cell::Cell;

/// Receive buffers that no peer was granted.
pub(super) struct Grants {
    left: Cell<u32>,
    /// Connections that may still come.
    to_come: Cell<u32>,
}

impl Grants {
    /// All of them are left.
    pub(super) fn new(receives: u32, connections_max: u32) -> Self {
        assert!(
            receives / GRANT_MIN >= connections_max,
            "each connection finds a few"
        );
        Self {
            left: Cell::new(receives),
            to_come: Cell::new(connections_max),
        }
    }

    /// For a new connection, unless there are as many as there may be.
    pub(super) fn take(&self) -> Option<u32> {
        let to_come = self.to_come.get().checked_sub(1)?;
        let (left, kept) = (self.left.get(), to_come * GRANT_MIN);
        let free = left.saturating_sub(kept);
        let grant = (free / GRANT_SHARE).clamp(GRANT_MIN, GRANT_MAX);
        self.left.set(left - grant);
        self.to_come.set(to_come);
        Some(grant)
    }

    /// A connection is over.
    pub(super) fn give_back(&self, grant: u32) {
        self.left.set(self.left.get() + grant);
        self.to_come.set(self.to_come.get() + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::Grants;
    use crate::rdma::limit::{GRANT_MAX, GRANT_MIN};

    /// So many connections of one shard.
    const CONNECTIONS: u32 = 1000;
    const RECEIVES: u32 = 2 * GRANT_MIN * CONNECTIONS;

    fn all(grants: &Grants) -> Vec<u32> {
        std::iter::from_fn(|| grants.take()).collect()
    }

    #[test]
    fn a_thousand_connections_share_the_queue() {
        let grants = Grants::new(RECEIVES, CONNECTIONS);
        let mut standing = all(&grants);
        assert_eq!(standing.len(), CONNECTIONS as usize);
        assert_eq!(
            standing[..64],
            [GRANT_MAX; 64],
            "whoever is alone has enough"
        );
        assert!(standing.is_sorted_by(|a, b| a >= b));
        // Some go, others come: as many as there may be find a few, and never more than there are.
        for round in 1..100 {
            let stays = |at: usize| !(at * 7919).is_multiple_of(round);
            let (stay, go): (Vec<_>, Vec<_>) = (0..).zip(standing).partition(|(at, _)| stays(*at));
            go.iter().for_each(|(_, grant)| grants.give_back(*grant));
            let fresh = all(&grants);
            assert_eq!(fresh.len(), go.len());
            standing = stay
                .into_iter()
                .map(|(_, grant)| grant)
                .chain(fresh)
                .collect();
            let is_fair = |grant: &u32| (GRANT_MIN..=GRANT_MAX).contains(grant);
            assert!(standing.iter().all(is_fair));
            assert!(standing.iter().sum::<u32>() <= RECEIVES);
        }
        standing.iter().for_each(|grant| grants.give_back(*grant));
        assert_eq!(
            (grants.left.get(), grants.to_come.get()),
            (RECEIVES, CONNECTIONS)
        );
    }

    #[test]
    fn as_many_as_there_may_be_find_the_least_in_a_queue_that_is_just_long_enough() {
        let grants = Grants::new(GRANT_MIN * 7, 7);
        assert_eq!(all(&grants), [GRANT_MIN; 7]);
        assert_eq!(grants.left.get(), 0);
    }
}
