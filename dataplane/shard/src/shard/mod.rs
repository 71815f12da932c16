//! One core's world: its listener, its stores, its groups.
//!
//! *Place*: between the transport, whose frames it routes, and the groups. Orders come from the
//! control thread and reports go back, over bounded channels; nothing else crosses threads.
//! *Owner*: one executor; everything here is single-threaded.
//! *Invariants*: a store belongs to one shard; a frame is answered exactly once.
//! *On failure*: a group or store that fails is reported as such and the others go on.

mod admin;
mod hosted;
mod life;
mod members;
mod report;
mod request;
mod stores;

pub(crate) use life::{ShardSetup, run};

use crate::limit::ADMITTED_BYTES_MAX;
use hosted::{Broken, Hosted};
use members::Changes;
use ogee_group::{CopyBudget, GroupConfig, GroupMetrics, PeerBook};
use ogee_proto::id::{CopysetId, VolumeId};
use ogee_runtime::channel::Semaphore;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use stores::OpenStore;

/// A running shard.
pub(crate) struct Shard {
    number: u16,
    stores: Vec<OpenStore>,
    groups: RefCell<BTreeMap<CopysetId, Hosted>>,
    peers: Rc<PeerBook>,
    config: GroupConfig,
    metrics: Rc<GroupMetrics>,
    copies: Rc<CopyBudget>,
    /// Payload bytes of the clients' requests under way.
    admission: Semaphore,
    /// The same of peers' votes, transfers and copies.
    raft_admission: Semaphore,
    /// Requests refused for want of admission.
    throttled: Cell<u64>,
    /// Replicas that cannot be served, and why, in a word for the MDS.
    broken: RefCell<BTreeMap<CopysetId, Broken>>,
    /// What is done about orders to change members and to delete replicas.
    changes: Changes,
    /// Removed volumes whose chunks are being given back, and where.
    removing: RefCell<BTreeMap<VolumeId, BTreeSet<CopysetId>>>,
}

impl Shard {
    fn new(number: u16, stores: Vec<OpenStore>, peers: Rc<PeerBook>, config: GroupConfig) -> Self {
        Self {
            number,
            stores,
            groups: RefCell::default(),
            peers,
            config,
            metrics: Rc::default(),
            copies: Rc::new(CopyBudget::new(config.copy_rate)),
            admission: Semaphore::new(ADMITTED_BYTES_MAX),
            raft_admission: Semaphore::new(ADMITTED_BYTES_MAX),
            throttled: Cell::new(0),
            broken: RefCell::default(),
            changes: Changes::default(),
            removing: RefCell::default(),
        }
    }
}
