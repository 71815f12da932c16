//! Where the replicas of this shard's groups are, and one connection per peer shard.
//!
//! *Place*: filled from memberships and from MDS heartbeats; used by the Raft network.
//! *Owner*: one shard.
//! *Invariants*: one self-reconnecting [`Caller`] per endpoint, shared by all groups; a copy has one
//! more for as long as it runs.
//! *On failure*: an unknown or malformed endpoint makes the peer unreachable, which openraft retries.

use ogee_proto::id::ReplicaId;
use ogee_transport::{Caller, CallerOptions, Endpoint, Hello};
use std::cell::RefCell;
use std::collections::BTreeMap;
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
        self.known.borrow_mut().insert(replica, endpoint);
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
    use super::same_promise;
    use ogee_transport::Endpoint;
    use std::time::Duration;

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
