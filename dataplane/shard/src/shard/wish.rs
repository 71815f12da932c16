//! What an operator wants of the work that a store's device gets in the background: pause, go on, do it now.
//!
//! *Place*: asked by `scrub`, `light` and `compare`, told by `admin`. *Owner*: the shard. *Invariants*: a pause is kept on the device
//! itself, and so over every restart; a hurry is of the pass under way, or the next one, and is forgotten with the process. What
//! hurries takes no heed of hours, and rests only as long as the device must. *On failure*: none.

use super::OpenStore;
use super::scrub::Hours;
use ogee_runtime::channel::Notify;
use ogee_runtime::{now, timeout, timeout_at};
use std::cell::Cell;
use std::time::Duration;

/// Kinds of such work.
#[derive(Clone, Copy)]
pub(super) enum Work {
    Scrub,
    Compare,
    /// Of metadata alone.
    Light,
}

/// How many they are.
const WORKS: usize = 3;

pub(super) struct Wish {
    hurries: [Cell<bool>; WORKS],
    changed: Notify,
    /// There is such work.
    are_heard: [Cell<bool>; WORKS],
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            hurries: Default::default(),
            changed: Notify::new(),
            are_heard: Default::default(),
        }
    }
}

impl Wish {
    /// It is to be done at once.
    pub(super) fn hurry(&self, work: Work) {
        self.hurries[work as usize].set(true);
        self.changed.notify_all();
    }

    /// From here on there is somebody who does it.
    pub(super) fn hear(&self, work: Work) {
        self.are_heard[work as usize].set(true);
    }

    /// Whether there is.
    pub(super) fn is_heard(&self, work: Work) -> bool {
        self.are_heard[work as usize].get()
    }

    /// Whether it is paused has changed.
    pub(super) fn note_change(&self) {
        self.changed.notify_all();
    }

    /// A pass has ended.
    pub(super) fn done(&self, work: Work) {
        self.hurries[work as usize].set(false);
    }

    pub(super) fn is_hurried(&self, work: Work) -> bool {
        self.hurries[work as usize].get()
    }

    /// Waits until the work may go on.
    pub(super) async fn granted(&self, open: &OpenStore, hours: Option<&Hours>, work: Work) {
        loop {
            let changed = self.changed.notified();
            let closed = hours.map_or(Duration::ZERO, Hours::closed_for);
            let is_open = closed.is_zero() || self.is_hurried(work);
            match open.store.is_paused() {
                true => changed.await,
                false if is_open => return,
                false => drop(timeout(closed, changed).await),
            }
        }
    }

    /// Waits for so long, unless it hurries.
    pub(super) async fn rest(&self, rest: Duration, work: Work) {
        let end = now() + rest;
        loop {
            let changed = self.changed.notified();
            if self.is_hurried(work) || timeout_at(end, changed).await.is_err() {
                return;
            }
        }
    }
}
