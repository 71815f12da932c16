//! All that a chunkserver told in its newest report, made whole from the changes that it tells since.
//!
//! *Place*: what heartbeats tell goes in, [`Heard`] comes out: the part that the metadata places there. *Owner*:
//! [`Liveness`](super::Liveness). *Invariants*: it is what a whole report would have been; changes that were not made
//! to exactly this one are not taken. It is kept beside what was heard since the metadata may place, or prove, something
//! else of the same report later. *On failure*: it is dropped, and a whole report asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use ogee_proto::id::{ChunkserverId, CopysetId, ReplicaId, StoreId};
use ogee_proto::service::{ReplicaProgress, StoreProgress};
use uuid::Uuid;

use super::tracker::{Heard, LostBlocks, ReplicaStatus, StoreUsage};
use crate::limit::{STORES_PER_CHUNKSERVER_MAX, TOLD_REPLICAS_MAX};
use crate::raft::Position;
use crate::state::State;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// Where its shards are.
    pub(crate) endpoints: Vec<String>,
    /// Its stores.
    pub(crate) stores: BTreeMap<StoreId, StoreUsage>,
    /// Its replicas, whether they are placed there or not.
    pub(crate) replicas: BTreeMap<ReplicaId, Account>,
    /// Lost and disputed blocks.
    pub(crate) blocks: Blocks,
    /// Everything has a name of its own, and there is not too much of it: changes can be told by names.
    pub(crate) is_exact: bool,
    /// In which changes to it are taken; 0: in none.
    pub(super) session: u64,
    pub(super) report: u64,
    /// The metadata beside which it was looked at; none if it is to be looked at again.
    pub(super) as_of: Option<Position>,
}

/// Lost ones, and disputed ones.
pub(crate) type Blocks = (Vec<LostBlocks>, Vec<LostBlocks>);

/// What is told of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) replica: ReplicaId,
    pub(crate) copyset: CopysetId,
    pub(crate) status: ReplicaStatus,
    /// None if it does not say which store holds it.
    pub(crate) store: Option<StoreId>,
    /// As committed; none while they change.
    pub(crate) voters: Vec<ReplicaId>,
}

/// What has changed since a report.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Of that report.
    pub(crate) session: u64,
    pub(crate) base: u64,
    /// None: as before.
    pub(crate) endpoints: Vec<String>,
    pub(crate) stores: BTreeMap<StoreId, StoreUsage>,
    pub(crate) stores_on: Vec<StoreProgress>,
    pub(crate) stores_gone: Vec<Vec<u8>>,
    pub(crate) replicas: BTreeMap<ReplicaId, Account>,
    pub(crate) replicas_on: Vec<ReplicaProgress>,
    pub(crate) replicas_gone: Vec<u64>,
    pub(crate) blocks: Option<Blocks>,
}

/// What of it is to be looked at.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    All,
    /// These replicas; the others are as they were, and so is the metadata.
    Of(BTreeSet<ReplicaId>),
}

/// What differs in what is heard.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) endpoints: Option<Vec<String>>,
    pub(super) stores: Vec<(StoreId, StoreUsage)>,
    pub(super) stores_gone: Vec<StoreId>,
    pub(super) replicas: Vec<(ReplicaId, ReplicaStatus)>,
    pub(super) replicas_gone: Vec<ReplicaId>,
    pub(super) blocks: Option<(BTreeSet<LostBlocks>, BTreeSet<LostBlocks>)>,
}

/// By name.
#[derive(Debug, Default)]
pub(super) struct Amended {
    stores: BTreeSet<StoreId>,
    stores_gone: BTreeSet<StoreId>,
    pub(super) replicas: BTreeSet<ReplicaId>,
    replicas_gone: BTreeSet<ReplicaId>,
    has_endpoints: bool,
    has_blocks: bool,
}

impl Account {
    /// Whether the metadata has it there.
    pub(crate) fn is_placed(&self, state: &State, server: ChunkserverId) -> bool {
        let copyset = state.copysets().get(&self.copyset);
        copyset.is_some_and(|copyset| copyset.places(server, self.replica))
    }
}

impl Told {
    /// Begins a session, if changes to this one can be told.
    pub(super) fn begin(&mut self) {
        let (drawn, _) = Uuid::new_v4().as_u64_pair();
        self.session = if self.is_exact { drawn.max(1) } else { 0 };
        self.report = 1;
    }

    /// The session, and the number of the report in it.
    pub(crate) const fn place(&self) -> (u64, u64) {
        (self.session, self.report)
    }

    /// Changes to it will fit.
    pub(crate) const fn takes_changes(&self) -> bool {
        self.session != 0
    }

    /// Replicas that the metadata does not place there are left out, and blocks of volumes that it does not know.
    pub(super) fn heard(&self, state: &State, server: ChunkserverId) -> Heard {
        let placed = self.replicas.values();
        let placed = placed.filter(|it| it.is_placed(state, server));
        let (lost, disputed) = self.named_blocks(state);
        Heard {
            endpoints: self.endpoints.clone(),
            stores: self.stores.clone(),
            replicas: placed.map(|it| (it.replica, it.status)).collect(),
            lost,
            disputed,
            is_registration: false,
        }
    }

    fn named_blocks(&self, state: &State) -> (BTreeSet<LostBlocks>, BTreeSet<LostBlocks>) {
        let named = |blocks: &[LostBlocks]| {
            let blocks = blocks.iter();
            let named = blocks.filter(|it| state.volumes().contains_key(&it.volume));
            named.copied().collect()
        };
        (named(&self.blocks.0), named(&self.blocks.1))
    }

    /// Makes the changes; `None` if they do not fit, and then it is of no use any more.
    pub(super) fn amend(&mut self, changes: Changes, now: Instant) -> Option<Amended> {
        let mut amended = Amended {
            has_endpoints: !changes.endpoints.is_empty(),
            has_blocks: changes.blocks.is_some(),
            ..Amended::default()
        };
        if amended.has_endpoints {
            self.endpoints = changes.endpoints;
        }
        if let Some(blocks) = changes.blocks {
            self.blocks = blocks;
        }
        for store in &changes.stores_gone {
            let id = store_id(store)?;
            self.stores.remove(&id)?;
            amended.stores_gone.insert(id);
        }
        for progress in &changes.stores_on {
            let id = store_id(&progress.store)?;
            self.stores.get_mut(&id)?.go_on(progress, now);
            amended.stores.insert(id);
        }
        amended.stores.extend(changes.stores.keys());
        self.stores.extend(changes.stores);
        for id in changes.replicas_gone.into_iter().map(ReplicaId::new) {
            self.replicas.remove(&id)?;
            amended.replicas_gone.insert(id);
        }
        for progress in &changes.replicas_on {
            let id = ReplicaId::new(progress.replica);
            self.replicas.get_mut(&id)?.status.go_on(progress);
            amended.replicas.insert(id);
        }
        amended.replicas.extend(changes.replicas.keys());
        self.replicas.extend(changes.replicas);
        let is_bounded = self.stores.len() <= STORES_PER_CHUNKSERVER_MAX
            && self.replicas.len() <= TOLD_REPLICAS_MAX;
        self.report += 1;
        is_bounded.then_some(amended)
    }

    /// What that changes in what was heard, as long as the metadata is as it was.
    pub(super) fn part(&self, state: &State, server: ChunkserverId, amended: &Amended) -> Part {
        let stores = amended.stores.iter();
        let stores = stores.filter_map(|id| Some((*id, *self.stores.get(id)?)));
        let mut part = Part {
            endpoints: amended.has_endpoints.then(|| self.endpoints.clone()),
            stores: stores.collect(),
            stores_gone: amended.stores_gone.iter().copied().collect(),
            replicas_gone: amended.replicas_gone.iter().copied().collect(),
            blocks: amended.has_blocks.then(|| self.named_blocks(state)),
            ..Part::default()
        };
        let changed = amended.replicas.iter();
        for account in changed.filter_map(|id| self.replicas.get(id)) {
            if account.is_placed(state, server) {
                part.replicas.push((account.replica, account.status));
            } else {
                part.replicas_gone.push(account.replica);
            }
        }
        part
    }
}

fn store_id(bytes: &[u8]) -> Option<StoreId> {
    Some(StoreId::from_bytes(bytes.try_into().ok()?))
}

impl StoreUsage {
    fn go_on(&mut self, progress: &StoreProgress, now: Instant) {
        (self.used, self.log_used) = (progress.used, progress.log_used);
        let told = [progress.writes, progress.flushes, progress.reads];
        for (flow, told) in self.flows.iter_mut().zip(told) {
            *flow = told.map_or(*flow, Into::into);
        }
        if progress.scrub.is_some() || progress.compare.is_some() {
            (self.scrub, self.compare) = (progress.scrub, progress.compare);
            self.told = now;
        }
    }
}

impl ReplicaStatus {
    const fn go_on(&mut self, progress: &ReplicaProgress) {
        self.applied = progress.applied;
        self.last_log = progress.last_log;
        self.requests = progress.requests;
        self.bytes = progress.bytes;
    }
}
