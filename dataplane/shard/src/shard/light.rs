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
use ogee_store::{MetadataPlace, Purpose, StoreError};
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
}

impl Verified {
    pub(super) fn status(&self) -> LightStatus {
        LightStatus {
            passes: self.passes.get(),
            copies: self.copies.get(),
            bad: self.bad.get(),
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
        let step = open.store.metadata_step(place).await?;
        let inspected = open.store.inspect(&step);
        let taken = open
            .store
            .take_leisure(Purpose::Scrub, step.bytes(), inspected);
        taken.await?;
        at = step.next();
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
    tracing::info!(store = %open.id(), copies = verified.copies.get(), bad = verified.bad.get(),
        repaired = after.metadata_repairs - before.metadata_repairs,
        rewritten = after.metadata_rewrites - before.metadata_rewrites, "the metadata of a store was verified");
    Ok(())
}
