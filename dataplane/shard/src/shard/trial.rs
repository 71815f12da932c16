//! Trying out stores of which the metadata servers want to see how they fare.
//!
//! *Place*: a task for a few requests, for each order. *Owner*: the shard. *Invariants*: one trial of a store at a time, so
//! that a device that answers nothing is not given more and more to do. *On failure*: the device's error is counted by the
//! device; what it means for the store is found by those who need it.

use super::{OpenStore, Shard};
use crate::limit::{TRIAL_REST, TRIALS};
use ogee_proto::id::StoreId;
use ogee_runtime::{sleep, spawn};
use std::rc::Rc;

impl Shard {
    /// Has those of these stores that are here, and have not failed, write and read a little.
    pub(super) fn try_out(self: &Rc<Self>, stores: &[StoreId]) {
        let here = |open: &&OpenStore| stores.contains(&open.id()) && !open.has_failed();
        for open in self.stores.iter().filter(here) {
            if open.is_tried.replace(true) {
                continue;
            }
            let (shard, id) = (self.clone(), open.id());
            drop(spawn(async move {
                if let Some(open) = shard.store(id) {
                    open.try_out().await;
                    open.is_tried.set(false);
                }
            }));
        }
    }
}

impl OpenStore {
    async fn try_out(&self) {
        for _ in 0..TRIALS {
            if let Err(error) = self.store.try_out().await {
                tracing::warn!(store = %self.id(), %error, "the device was tried, and failed");
                return;
            }
            sleep(TRIAL_REST).await;
        }
    }
}
