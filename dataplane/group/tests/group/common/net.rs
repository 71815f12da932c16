//! Who is alive: what a crashed node still says must not reach anybody.

use ogee_group::{GroupConfig, ReplicaNode};
use ogee_proto::id::ReplicaId;
use ogee_proto::wire::FrameKind;
use ogee_transport::Endpoint;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

/// A node from its start to its crash. Never the same twice, in no cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Run(u64);

static NEXT: AtomicU64 = AtomicU64::new(1);

/// Who is alive in one cluster. The transport is the real one; this only drops the words of the
/// dead, whose tasks cannot be stopped at an exact moment.
pub struct Net {
    cluster: u64,
    live: RefCell<BTreeSet<Run>>,
    deaf: RefCell<BTreeSet<Run>>,
    config: Cell<GroupConfig>,
    heard: RefCell<BTreeMap<u8, u64>>,
    old: Cell<Option<ReplicaId>>,
}

impl Net {
    pub fn new(config: GroupConfig) -> Self {
        Self {
            cluster: NEXT.fetch_add(1, Ordering::Relaxed),
            live: RefCell::default(),
            deaf: RefCell::default(),
            config: Cell::new(config),
            heard: RefCell::default(),
            old: Cell::new(None),
        }
    }

    /// This replica answers like a program that does not compare pieces; None: all do.
    pub fn set_old(&self, replica: Option<ReplicaId>) {
        self.old.set(replica);
    }

    /// Whether it does.
    pub fn is_old(&self, replica: ReplicaId) -> bool {
        self.old.get() == Some(replica)
    }

    /// A node starts.
    pub fn join(&self) -> Run {
        let run = Run(NEXT.fetch_add(1, Ordering::Relaxed));
        self.live.borrow_mut().insert(run);
        run
    }

    /// A node is gone.
    pub fn leave(&self, run: Run) {
        self.live.borrow_mut().remove(&run);
    }

    /// Times of the cluster's groups.
    pub const fn config(&self) -> GroupConfig {
        self.config.get()
    }

    /// Nodes that start from now on have these times.
    pub fn set_config(&self, config: GroupConfig) {
        self.config.set(config);
    }

    /// A request has reached its node.
    pub fn count(&self, kind: FrameKind) {
        *self.heard.borrow_mut().entry(kind.encode()).or_default() += 1;
    }

    /// Requests that have reached any node.
    pub fn heard(&self, kind: FrameKind) -> u64 {
        let heard = self.heard.borrow();
        heard.get(&kind.encode()).copied().unwrap_or(0)
    }

    /// A node gets answers, but nobody's requests.
    pub fn deafen(&self, run: Run) {
        self.deaf.borrow_mut().insert(run);
    }

    pub fn hears(&self, run: Run) -> bool {
        self.is_live(run) && !self.deaf.borrow().contains(&run)
    }

    /// A node that was cut off is heard again.
    pub fn rejoin(&self, run: Run) {
        self.live.borrow_mut().insert(run);
        self.deaf.borrow_mut().remove(&run);
    }

    pub fn is_live(&self, run: Run) -> bool {
        self.live.borrow().contains(&run)
    }

    /// Where a replica listens, in every one of its runs.
    pub fn endpoint(&self, replica: ReplicaId) -> Endpoint {
        Endpoint::Loopback(format!("cluster{}-replica{}", self.cluster, replica.get()))
    }

    /// A replica as memberships name it.
    pub fn member(&self, replica: ReplicaId) -> ReplicaNode {
        ReplicaNode {
            chunkserver: u32::try_from(replica.get()).expect("small ids"),
            endpoint: self.endpoint(replica).to_string().into(),
        }
    }
}

impl Run {
    pub const fn number(self) -> u64 {
        self.0
    }

    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }
}
