//! Verifying the metadata of each store, again and again: superblocks, the list of retired extents, and both copies of each
//! page. Much less than all that is stored, so it is done more often, and whenever that is read.
//!
//! *Place*: a task for each store, beside the one that reads all of it (`scrub`); how a page is put right is
//! `ogee_store`'s. *Owner*: the shard. *Invariants*: at the device's leisure, as everything in the background; a few pages at a
//! time, without holding checkpoints off. *On failure*: a copy that stays bad is found again by the next pass; a store that
//! has failed is left alone.

use super::scrub::Hours;
use super::wish::Work;
use super::{OpenStore, Shard};
use crate::config::ScrubConfig;
use crate::limit::{LIGHT_UNASKED, SCRUB_IDLE};
use crate::order::LightStatus;
use ogee_proto::id::StoreId;
use ogee_runtime::{ScopedTask, now, spawn_scoped};
use ogee_store::{MetadataPlace, StoreError};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// What was verified so far.
#[derive(Debug, Default)]
pub(super) struct Verified {
    passes: Cell<u64>,
    /// Of the last pass.
    copies: Cell<u64>,
    bad: Cell<u64>,
    unread: Cell<u64>,
}

impl Verified {
    pub(super) fn status(&self) -> LightStatus {
        LightStatus {
            passes: self.passes.get(),
            copies: self.copies.get(),
            bad: self.bad.get(),
            unread: self.unread.get(),
        }
    }
}

/// Verifies each store's metadata until the tasks are dropped: once in a period, or only when that is wanted.
pub(super) fn start(shard: &Rc<Shard>, config: Option<ScrubConfig>) -> Vec<ScopedTask<()>> {
    let Some(config) = config else {
        return Vec::new();
    };
    let hours = config.hours.map(|hours| Rc::new(Hours::new(hours)));
    shard
        .stores
        .iter()
        .for_each(|open| open.wish.hear(Work::Light));
    let stores = shard.stores.iter().map(OpenStore::id);
    stores
        .map(|store| spawn_scoped(verify(shard.clone(), store, config.light, hours.clone())))
        .collect()
}

async fn verify(
    shard: Rc<Shard>,
    store: StoreId,
    period: Option<Duration>,
    hours: Option<Rc<Hours>>,
) {
    // Without a period the first pass, too, waits until it is wanted.
    let mut rest = if period.is_some() {
        Duration::ZERO
    } else {
        LIGHT_UNASKED
    };
    while let Some(open) = shard.store(store).filter(|open| !open.has_failed()) {
        open.wish.rest(rest, Work::Light).await;
        open.wish.granted(open, hours.as_deref(), Work::Light).await;
        let begun = now();
        let passed = pass(open, hours.as_deref()).await;
        open.wish.done(Work::Light);
        rest = match (passed, period) {
            (Err(error), _) => {
                tracing::error!(%store, %error, "the metadata of a store cannot be verified");
                SCRUB_IDLE
            }
            (Ok(()), None) => LIGHT_UNASKED,
            (Ok(()), Some(period)) => period.saturating_sub(now() - begun),
        };
    }
}

/// Goes through all of it once.
async fn pass(open: &OpenStore, hours: Option<&Hours>) -> Result<(), StoreError> {
    let before = open.store.counters();
    let mut at = Some(MetadataPlace::default());
    while let Some(place) = at {
        open.wish.granted(open, hours, Work::Light).await;
        at = open.store.inspect_at_leisure(place).await?;
    }
    let after = open.store.counters();
    let verified = &open.verified;
    verified.passes.set(verified.passes.get() + 1);
    verified
        .copies
        .set(after.metadata_copies_checked - before.metadata_copies_checked);
    verified
        .bad
        .set(after.metadata_refusals - before.metadata_refusals);
    verified
        .unread
        .set(after.metadata_unread - before.metadata_unread);
    tracing::info!(store = %open.id(), copies = verified.copies.get(), bad = verified.bad.get(), unread = verified.unread.get(),
        repaired = after.metadata_repairs - before.metadata_repairs,
        rewritten = after.metadata_rewrites - before.metadata_rewrites, "the metadata of a store was verified");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StoreConfig;
    use ogee_device::{
        Device, Failure, FaultControl, FaultPlan, FaultRule, NvmeOptions, Operation,
    };
    use ogee_group::{GroupConfig, PeerBook};
    use ogee_proto::id::{CopysetId, LogId};
    use ogee_proto::unit::{ByteLen, ByteOffset};
    use ogee_runtime::sleep;
    use ogee_store::{Bucket, GroupCheckpoint};
    use ogee_transport::{CallerOptions, Hello, Role};
    use uuid::Uuid;

    const LOOK: Duration = Duration::from_millis(2);

    /// A shard with one store, in which a page of a group's state is.
    async fn shard() -> (Rc<Shard>, FaultControl) {
        let memory = Device::memory(ByteLen::new(128 << 20));
        let (device, faults) = Device::fault(memory, FaultPlan::new());
        let config = StoreConfig {
            class: None,
            path: "memory".into(),
            nvme: None,
            nvme_options: NvmeOptions::default(),
            create: None,
            log_len: ByteLen::new(64 << 20),
            shard: 0,
        };
        let open = OpenStore::on(device, &config, Some(Uuid::from_bytes([1; 16]))).await;
        let open = open.expect("it fits");
        let group = GroupCheckpoint {
            copyset: CopysetId::new(1),
            applied: LogId::default(),
            state: vec![1].into(),
        };
        let saved = open.store.checkpoint(vec![group]).await;
        saved.expect("it is saved");
        let hello = Hello::new(Role::Chunkserver, 1, "light");
        let peers = Rc::new(PeerBook::new(hello, CallerOptions::default()));
        let settings = (GroupConfig::default(), Bucket::unlimited());
        (Rc::new(Shard::new(0, vec![open], peers, settings)), faults)
    }

    fn config(light: Option<Duration>) -> ScrubConfig {
        ScrubConfig {
            period: None,
            light,
            hours: None,
        }
    }

    fn status(shard: &Shard) -> LightStatus {
        shard.stores[0].verified.status()
    }

    async fn passes(shard: &Shard, count: u64) {
        while status(shard).passes < count {
            sleep(LOOK).await;
        }
    }

    fn run(body: impl Future<Output = ()>) {
        ogee_runtime::executor::block_on(async {
            let done = ogee_runtime::timeout(Duration::from_secs(60), body).await;
            done.expect("the test ends");
        });
    }

    #[test]
    fn without_a_period_it_is_done_when_it_is_wanted_and_not_while_it_is_paused() {
        run(async {
            let (shard, _) = shard().await;
            let open = &shard.stores[0];
            let _tasks = start(&shard, Some(config(None)));
            assert!(open.wish.is_heard(Work::Light));
            sleep(LOOK * 20).await;
            assert_eq!(status(&shard).passes, 0);
            open.wish.hurry(Work::Light);
            passes(&shard, 1).await;
            // Two superblocks, two lists, and two copies of a root, a table and a page of state.
            let found = status(&shard);
            assert_eq!((found.copies, found.bad, found.unread), (10, 0, 0));
            open.store.pause(true).await.expect("kept");
            open.wish.hurry(Work::Light);
            sleep(LOOK * 20).await;
            assert_eq!(status(&shard).passes, 1, "it is paused");
            open.store.pause(false).await.expect("kept");
            open.wish.note_change();
            passes(&shard, 2).await;
            assert!(!open.wish.is_hurried(Work::Light), "one wish, one pass");
            open.keeper.stop();
        });
    }

    #[test]
    fn with_a_period_it_is_done_again_and_again_and_tells_of_the_last_pass_alone() {
        run(async {
            let (shard, faults) = shard().await;
            let _tasks = start(&shard, Some(config(Some(LOOK))));
            passes(&shard, 2).await;
            assert_eq!((status(&shard).bad, status(&shard).unread), (0, 0));
            faults.add(FaultRule::fail(Operation::Read, Failure::Eio));
            while status(&shard).unread == 0 {
                sleep(LOOK).await;
            }
            let seen = status(&shard).passes;
            passes(&shard, seen + 1).await;
            // Both superblocks, both lists, a root, a table, and a page of state.
            assert_eq!((status(&shard).bad, status(&shard).unread), (0, 5));
            faults.clear();
            let seen = status(&shard).passes;
            passes(&shard, seen + 2).await;
            assert_eq!((status(&shard).bad, status(&shard).unread), (0, 0));
            shard.stores[0].keeper.stop();
        });
    }

    #[test]
    fn a_store_that_fails_is_left_alone() {
        run(async {
            let (shard, faults) = shard().await;
            let open = &shard.stores[0];
            let mut tasks = start(&shard, Some(config(None)));
            // No superblock is good, and none can be written.
            let writes = Operation::Write | Operation::WriteDurable;
            let head = (ByteOffset::new(0), ByteLen::new(128 << 10));
            faults.add(FaultRule::flip_bit(ByteOffset::new(9), 1));
            faults.add(FaultRule::flip_bit(ByteOffset::new((64 << 10) + 9), 1));
            faults.add(FaultRule::fail(writes, Failure::Eio).within(head.0, head.1));
            open.wish.hurry(Work::Light);
            let task = tasks.pop().expect("of the one store");
            while !task.is_finished() {
                sleep(LOOK).await;
            }
            assert!(open.has_failed());
            assert_eq!(status(&shard).passes, 0);
            open.keeper.stop();
        });
    }
}
