//! Where the replicas of this shard's groups are, and one connection per peer shard.
//!
//! *Place*: filled from memberships and from MDS heartbeats; used by the Raft network.
//! *Owner*: one shard.
//! *Invariants*: one self-reconnecting [`Caller`] per endpoint, shared by all groups.
//! *On failure*: an unknown or malformed endpoint makes the peer unreachable, which openraft retries.

use ogee_proto::id::ReplicaId;
use ogee_transport::{Caller, CallerOptions, Endpoint, Hello};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Endpoints of replicas, and the callers to them.
pub struct PeerBook {
    hello: Hello,
    options: CallerOptions,
    known: RefCell<BTreeMap<ReplicaId, Endpoint>>,
    callers: RefCell<BTreeMap<Endpoint, Caller>>,
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
        }
    }

    /// Takes note of where a replica is now.
    pub fn learn(&self, replica: ReplicaId, endpoint: Endpoint) {
        self.known.borrow_mut().insert(replica, endpoint);
    }

    /// Every replica that was heard of, of whatever group; none with an endpoint of a membership.
    pub(crate) fn known(&self) -> BTreeMap<ReplicaId, String> {
        let known = self.known.borrow();
        known.keys().map(|id| (*id, String::new())).collect()
    }

    /// The caller to a replica: where it was last heard of, else where its membership says.
    pub(crate) fn caller(&self, replica: ReplicaId, membership_endpoint: &str) -> Option<Caller> {
        let endpoint = self.known.borrow().get(&replica).cloned();
        let endpoint = endpoint.or_else(|| membership_endpoint.parse().ok())?;
        let mut callers = self.callers.borrow_mut();
        let caller = callers
            .entry(endpoint.clone())
            .or_insert_with(|| Caller::with_options(endpoint, self.hello.clone(), self.options));
        Some(caller.clone())
    }
}
