//! One core's world: its listener, its stores, its groups.
//!
//! *Place*: between the transport, whose frames it routes, and the groups. Orders come from the
//! control thread and reports go back, over bounded channels; nothing else crosses threads.
//! *Owner*: one executor; everything here is single-threaded.
//! *Invariants*: a store belongs to one shard; a frame is answered exactly once.
//! *On failure*: a group or store that fails is reported as such and the others go on.

mod admin;
mod admission;
mod background;
mod compare;
mod hosted;
mod life;
mod light;
mod members;
mod report;
mod request;
mod scrub;
mod stores;
mod trial;
mod wish;

pub use life::{ShardSetup, run};

use crate::limit::RAFT_BYTES_MAX;
use admission::Admission;
use hosted::{Broken, Damaged, Hosted};
use members::Changes;
use ogee_group::{CopyBudget, GroupConfig, GroupMetrics, PeerBook, Watch};
use ogee_proto::id::{CopysetId, VolumeId};
use ogee_runtime::channel::Semaphore;
use ogee_store::Bucket;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use stores::OpenStore;

/// A running shard.
pub(crate) struct Shard {
    number: u16,
    stores: Vec<OpenStore>,
    groups: RefCell<BTreeMap<CopysetId, Hosted>>,
    /// Replicas that are out of their groups until their logs are whole, or for good.
    damaged: RefCell<BTreeMap<CopysetId, Damaged>>,
    peers: Rc<PeerBook>,
    watch: Rc<Watch>,
    config: GroupConfig,
    metrics: Rc<GroupMetrics>,
    copies: Rc<CopyBudget>,
    /// The clients' requests.
    admission: Rc<Admission>,
    /// Payload bytes of peers' votes, transfers and copies under way.
    raft_admission: Semaphore,
    /// Requests refused for want of admission.
    throttled: Cell<u64>,
    /// Replicas that cannot be served, and why, in a word for the MDS.
    broken: RefCell<BTreeMap<CopysetId, Broken>>,
    /// What is done about orders to change members and to delete replicas.
    changes: Changes,
    /// Removed volumes whose chunks are being given back, and where.
    removing: RefCell<BTreeMap<VolumeId, BTreeSet<CopysetId>>>,
    /// The next report is to list volumes, those after this one.
    listing: Cell<Option<VolumeId>>,
    /// Replicas that were measured, in all: whose turn it is.
    measured: Cell<usize>,
}

impl Shard {
    fn new(
        number: u16,
        stores: Vec<OpenStore>,
        peers: Rc<PeerBook>,
        (config, network): (GroupConfig, Arc<Bucket>),
    ) -> Self {
        Self {
            number,
            stores,
            groups: RefCell::default(),
            watch: Watch::start(peers.clone(), config),
            damaged: RefCell::default(),
            peers,
            config,
            metrics: Rc::default(),
            copies: Rc::new(CopyBudget::with_network(config.copy_rate, network)),
            admission: Admission::new(),
            raft_admission: Semaphore::new(RAFT_BYTES_MAX),
            throttled: Cell::new(0),
            broken: RefCell::default(),
            changes: Changes::default(),
            removing: RefCell::default(),
            listing: Cell::default(),
            measured: Cell::default(),
        }
    }
}
