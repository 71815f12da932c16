//! Where the replicas of this shard's groups are, and one connection per peer shard.
//!
//! *Place*: filled from memberships and from MDS heartbeats; used by the Raft network.
//! *Owner*: one shard.
//! *Invariants*: one self-reconnecting [`Caller`] per endpoint, shared by all groups; a copy has one
//! more for as long as it runs. Where nobody is known to be any more, there is no caller either; replicas and callers
//! are bounded.
//! *On failure*: an unknown or malformed endpoint makes the peer unreachable, which openraft retries.

use crate::limit::{CALLERS_MAX, REPLICAS_KNOWN_MAX};
use ogee_proto::id::ReplicaId;
use ogee_transport::{Caller, CallerOptions, Endpoint, Hello};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Endpoints of replicas, and the callers to them.
pub struct PeerBook {
    hello: Hello,
    options: CallerOptions,
    known: RefCell<BTreeMap<ReplicaId, Endpoint>>,
    callers: RefCell<BTreeMap<Endpoint, Caller>>,
    /// For how long each peer's replicas refuse their votes, as last heard.
    promises: RefCell<BTreeMap<Endpoint, Duration>>,
}

/// Two chunkservers disagree about the time that leases rest on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "raft.election_max_ms is {ours} here and {theirs} on {peer}: reads under a lease are unsafe and \
     are not served where the leader has more than its followers; give all chunkservers the same \
     value (with raft.lease_reads = false on all of them while it is being changed)"
)]
pub(crate) struct PromiseMismatch {
    ours: u128,
    theirs: u128,
    peer: Endpoint,
}

impl PeerBook {
    /// An empty book; `hello` introduces this shard to its peers.
    #[must_use]
    pub fn new(hello: Hello, options: CallerOptions) -> Self {
        Self {
            hello,
            options,
            known: RefCell::default(),
            callers: RefCell::default(),
            promises: RefCell::default(),
        }
    }

    /// A peer's replica refuses its vote for `theirs` after it has heard a leader. Reported once per
    /// change if ours do not do so, too.
    pub(crate) fn heard_promise(&self, peer: &Endpoint, ours: Duration, theirs: Duration) {
        if self.promises.borrow().get(peer) == Some(&theirs) {
            return;
        }
        self.promises.borrow_mut().insert(peer.clone(), theirs);
        if let Err(error) = same_promise(peer, ours, theirs) {
            tracing::error!(%error, "chunkservers disagree");
        }
    }

    /// Takes note of where a replica is now.
    pub fn learn(&self, replica: ReplicaId, endpoint: Endpoint) {
        let mut known = self.known.borrow_mut();
        let before = known.insert(replica, endpoint.clone());
        if known.len() > REPLICAS_KNOWN_MAX {
            // Ids only grow: it is the oldest. Where it is, its membership says.
            known.pop_first();
        }
        drop(known);
        if let Some(before) = before.filter(|before| *before != endpoint) {
            self.leave(&before);
        }
    }

    /// A replica is not there any more; its connection goes with the last one.
    fn leave(&self, endpoint: &Endpoint) {
        if self.known.borrow().values().any(|known| known == endpoint) {
            return;
        }
        let caller = self.callers.borrow_mut().remove(endpoint);
        self.promises.borrow_mut().remove(endpoint);
        // Whoever still uses it ends with its own errors.
        drop(caller);
    }

    /// Drops callers to where nobody is known to be: memberships name places that replicas have left.
    fn forget_strangers(&self) {
        let known = self.known.borrow();
        let places: BTreeSet<&Endpoint> = known.values().collect();
        let is_known = |endpoint: &Endpoint| places.contains(endpoint);
        self.callers
            .borrow_mut()
            .retain(|endpoint, _| is_known(endpoint));
        self.promises
            .borrow_mut()
            .retain(|endpoint, _| is_known(endpoint));
    }

    /// A connection of its own to a replica.
    pub(crate) fn new_caller(
        &self,
        replica: ReplicaId,
        membership_endpoint: &str,
    ) -> Option<Caller> {
        let endpoint = self.endpoint(replica, membership_endpoint)?;
        Some(Caller::with_options(
            endpoint,
            self.hello.clone(),
            self.options,
        ))
    }

    fn endpoint(&self, replica: ReplicaId, membership_endpoint: &str) -> Option<Endpoint> {
        let endpoint = self.known.borrow().get(&replica).cloned();
        endpoint.or_else(|| membership_endpoint.parse().ok())
    }

    /// Every replica that was heard of, of whatever group; none with an endpoint of a membership.
    pub(crate) fn known(&self) -> BTreeMap<ReplicaId, String> {
        let known = self.known.borrow();
        known.keys().map(|id| (*id, String::new())).collect()
    }

    /// The caller to a replica: where it was last heard of, else where its membership says.
    pub(crate) fn caller(&self, replica: ReplicaId, membership_endpoint: &str) -> Option<Caller> {
        let endpoint = self.endpoint(replica, membership_endpoint)?;
        if self.callers.borrow().len() >= CALLERS_MAX {
            self.forget_strangers();
        }
        let mut callers = self.callers.borrow_mut();
        let caller = callers
            .entry(endpoint.clone())
            .or_insert_with(|| Caller::with_options(endpoint, self.hello.clone(), self.options));
        Some(caller.clone())
    }
}

fn same_promise(peer: &Endpoint, ours: Duration, theirs: Duration) -> Result<(), PromiseMismatch> {
    if ours == theirs {
        return Ok(());
    }
    Err(PromiseMismatch {
        ours: ours.as_millis(),
        theirs: theirs.as_millis(),
        peer: peer.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::{PeerBook, same_promise};
    use crate::limit::{CALLERS_MAX, REPLICAS_KNOWN_MAX};
    use ogee_proto::id::ReplicaId;
    use ogee_transport::{CallerOptions, Endpoint, Hello, Role};
    use std::time::Duration;

    fn at(place: usize) -> Endpoint {
        Endpoint::Loopback(format!("place{place}"))
    }

    fn book() -> PeerBook {
        let hello = Hello::new(Role::Chunkserver, 0, "a");
        PeerBook::new(hello, CallerOptions::default())
    }

    #[test]
    fn a_caller_goes_with_the_last_replica_of_its_place() {
        ogee_runtime::executor::block_on(async {
            let book = book();
            let (one, two, second) = (ReplicaId::new(1), ReplicaId::new(2), Duration::from_secs(1));
            for replica in [one, two] {
                book.learn(replica, at(0));
                book.caller(replica, "").expect("known");
            }
            book.heard_promise(&at(0), second, second);
            book.learn(one, at(1));
            assert_eq!(book.callers.borrow().len(), 1, "the other is still there");
            book.learn(two, at(1));
            assert!(book.callers.borrow().is_empty() && book.promises.borrow().is_empty());
        });
    }

    #[test]
    fn replicas_and_callers_are_bounded() {
        ogee_runtime::executor::block_on(async {
            let book = book();
            let newest = ReplicaId::new(u64::MAX);
            book.learn(newest, at(0));
            book.caller(newest, "").expect("known");
            // Memberships of places that nobody has told of.
            for place in 1..=CALLERS_MAX {
                let membership = at(place).to_string();
                book.caller(ReplicaId::new(7), &membership)
                    .expect("an endpoint");
                assert!(book.callers.borrow().len() <= CALLERS_MAX);
            }
            assert!(
                book.callers.borrow().contains_key(&at(0)),
                "who is known keeps its connection"
            );
            for replica in 0..REPLICAS_KNOWN_MAX as u64 + 5 {
                book.learn(ReplicaId::new(replica), at(0));
            }
            assert_eq!(book.known.borrow().len(), REPLICAS_KNOWN_MAX);
            assert!(book.known.borrow().contains_key(&newest));
        });
    }

    #[test]
    fn a_disagreement_names_both_values_and_the_remedy() {
        let peer = Endpoint::Loopback(String::from("b"));
        let second = Duration::from_secs(1);
        assert_eq!(same_promise(&peer, second, second), Ok(()));
        let error = same_promise(&peer, second, 2 * second).unwrap_err();
        let text = error.to_string();
        for part in ["1000 here", "2000 on", "same value", "lease_reads = false"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
