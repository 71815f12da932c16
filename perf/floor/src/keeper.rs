//! Write-back, checkpoints and purges, by the rules of `group/keeper`: sorted bursts from a fifth of the
//! log on, writers paced so that the room left lasts for the cycle, one checkpoint for all groups, then
//! the log goes.
//!
//! *Invariants*: a checkpoint names for each group the last entry of which everything up to it has been
//! written back or is superseded by one that the log keeps; nothing is purged that not all replicas have.

use crate::error::FloorError;
use crate::group::{Group, log_id};
use crate::index::Dirty;
use crate::limit::{
    BURST_PAUSE_MAX, HURRY_PERCENT, IDLE_CYCLE, LOOK, PACED_PERCENT, START_PERCENT,
    WRITE_BACK_BLOCKS, WRITE_BACK_INFLIGHT,
};
use crate::node::Node;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt};
use ogee_proto::id::LogIndex;
use ogee_proto::limit::BLOCK_SIZE;
use ogee_proto::unit::ByteLen;
use ogee_runtime::{Instant, Payload};
use ogee_store::{BlockChange, GroupCheckpoint, WriteBack};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::rc::Rc;
use std::time::Duration;

/// Runs for as long as the process.
pub(crate) async fn run(node: &Rc<Node>) {
    let mut idle = Duration::ZERO;
    loop {
        ogee_runtime::sleep(LOOK).await;
        idle += LOOK;
        if node.fill_percent() < START_PERCENT && idle < IDLE_CYCLE {
            continue;
        }
        let done = node.cycle().await;
        idle = Duration::ZERO;
        node.pacer.release();
        if let Err(error) = done {
            return node.fail(error);
        }
    }
}

/// A group at the beginning of a cycle.
struct Cut {
    group: Rc<Group>,
    applied: u64,
    dirty: Vec<Dirty>,
}

/// How far one cycle is.
struct Cycle {
    started: Instant,
    blocks: usize,
    done: Cell<usize>,
}

impl Node {
    fn fill_percent(&self) -> u64 {
        let usage = self.disk.log.usage();
        usage.used.get() * 100 / usage.capacity.get().max(1)
    }

    async fn cycle(&self) -> Result<(), FloorError> {
        let grown = self.groups.values().filter(|group| group.has_news());
        let cuts: Vec<Cut> = grown.map(Cut::new).collect();
        let cycle = Cycle {
            started: ogee_runtime::now(),
            blocks: cuts.iter().map(|cut| cut.dirty.len()).sum(),
            done: Cell::new(0),
        };
        for cut in &cuts {
            let bursts = bursts(&cut.dirty).map(|dirty| self.write_back(&cut.group, dirty, &cycle));
            let mut running = stream::iter(bursts).buffer_unordered(WRITE_BACK_INFLIGHT);
            while let Some(done) = running.next().await {
                done?;
            }
        }
        if !cuts.is_empty() {
            self.disk
                .store
                .checkpoint(cuts.iter().map(Cut::saved).collect())
                .await?;
        }
        for cut in &cuts {
            cut.group.checkpoint.set(cut.applied);
        }
        for group in self.groups.values() {
            group.purge()?;
        }
        Ok(())
    }

    async fn write_back(
        &self,
        group: &Group,
        dirty: &[Dirty],
        cycle: &Cycle,
    ) -> Result<(), FloorError> {
        let started = ogee_runtime::now();
        let mut payloads = BTreeMap::new();
        let mut changes = Vec::with_capacity(dirty.len());
        for dirty in dirty {
            if !group.index.borrow().holds(dirty) {
                continue;
            }
            let whole = match payloads.entry(dirty.slot.index) {
                Entry::Occupied(loaded) => loaded.into_mut(),
                Entry::Vacant(place) => place.insert(load(group, dirty.slot.index).await?),
            };
            changes.push(WriteBack {
                key: dirty.key,
                block: dirty.block,
                what: BlockChange::Data(whole.slice(dirty.slot.bytes())),
            });
        }
        self.disk.store.write_back(group.id, changes).await?;
        {
            let mut index = group.index.borrow_mut();
            dirty.iter().for_each(|dirty| index.written_back(dirty));
        }
        cycle.done.set(cycle.done.get() + dirty.len());
        let usage = self.disk.log.usage();
        let limit = usage.capacity.get() * PACED_PERCENT / 100;
        let room = ByteLen::new(limit.saturating_sub(usage.used.get()));
        self.pacer.spread(room, cycle.time_left());
        if self.fill_percent() < HURRY_PERCENT {
            let spent = ogee_runtime::now().saturating_duration_since(started);
            ogee_runtime::sleep(spent.min(BURST_PAUSE_MAX)).await;
        }
        Ok(())
    }
}

/// An entry's payload.
async fn load(group: &Group, index: u64) -> Result<Payload, FloorError> {
    let at = LogIndex::new(index);
    let range = at..LogIndex::new(index + 1);
    let entry = group.log.peek(range, 0).into_iter().next();
    let missing = FloorError::Missing {
        group: group.id,
        index,
    };
    let entry = entry.filter(|entry| entry.payload_len as usize >= BLOCK_SIZE);
    let len = entry.ok_or(missing)?.payload_len as usize;
    match group.log.cached_payload(at, 0..len) {
        Some(payload) => Ok(payload),
        None => Ok(group.log.payload(at, 0..len).await?),
    }
}

impl Group {
    fn has_news(&self) -> bool {
        self.applied() > self.checkpoint.get()
    }

    /// Lets go of what the store and all replicas have.
    fn purge(&self) -> Result<(), FloorError> {
        let upto = self.checkpoint.get().min(self.everywhere.get());
        let purged = self.log.state().purged.map_or(0, |id| id.index.get());
        if upto <= purged {
            return Ok(());
        }
        // Not waited for: it may get lost. A refusal comes at once.
        let refused = self.log.purge(log_id(upto)).now_or_never();
        Ok(refused.unwrap_or(Ok(()))?)
    }
}

impl Cut {
    fn new(group: &Rc<Group>) -> Self {
        Self {
            group: group.clone(),
            applied: group.applied(),
            dirty: group.index.borrow().dirty(),
        }
    }

    fn saved(&self) -> GroupCheckpoint {
        GroupCheckpoint {
            copyset: self.group.id,
            applied: log_id(self.applied),
            state: Bytes::new(),
        }
    }
}

impl Cycle {
    /// At the speed so far; and as much again as one part in eight, for the checkpoint.
    fn time_left(&self) -> Duration {
        let spent = ogee_runtime::now().saturating_duration_since(self.started);
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let share = self.blocks as f64 / self.done.get().max(1) as f64;
        let whole = spent.mul_f64(share);
        (whole + whole / 8).saturating_sub(spent)
    }
}

/// Cuts dirty blocks, which are sorted, into bursts. None ends within an extent.
fn bursts(dirty: &[Dirty]) -> impl Iterator<Item = &[Dirty]> {
    ogee_store::bursts(dirty, WRITE_BACK_BLOCKS, |dirty| {
        ogee_store::extent_of(dirty.key, dirty.block)
    })
}
