//! Targets that got a copy and fell behind again at once: they get the next one later.
//!
//! *Place*: told by the log's keeping for a target, asked before a copy begins. *Owner*: the leader's
//! replica; single-threaded. *Invariants*: each such copy in a row doubles the pause, from
//! [`COPY_AGAIN_MIN`] to [`COPY_AGAIN_MAX`]; one that catches up, or is not heard of for long, starts
//! anew. *On failure*: lost with the process, which costs a copy.
//!
//! A copy costs everybody: its blocks, and writers that give way at its end. For a target that takes
//! entries more slowly than they come, whatever is done, that would go on for ever.

use crate::limit::{COPY_AGAIN_MAX, COPY_AGAIN_MIN, COPY_KEPT};
use ogee_proto::id::ReplicaId;
use ogee_runtime::Instant;
use std::cell::{RefCell, RefMut};
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Debug, Default)]
pub(super) struct Laggards(RefCell<BTreeMap<ReplicaId, Laggard>>);

#[derive(Clone, Copy, Debug)]
struct Laggard {
    since: Instant,
    pause: Duration,
}

impl Laggards {
    /// A target got its copy and has fallen behind; how long it gets no other.
    pub(super) fn note(&self, target: ReplicaId) -> Duration {
        let before = self.known().get(&target).copied();
        let pause = before.map_or(COPY_AGAIN_MIN, |it| (it.pause * 2).min(COPY_AGAIN_MAX));
        let since = ogee_runtime::now();
        self.0.borrow_mut().insert(target, Laggard { since, pause });
        pause
    }

    pub(super) fn has_caught_up(&self, target: ReplicaId) {
        self.0.borrow_mut().remove(&target);
    }

    /// Whether a target is to get no copy for now.
    pub(super) fn is_resting(&self, target: ReplicaId) -> bool {
        let it = self.known().get(&target).copied();
        it.is_some_and(|it| ogee_runtime::now() < it.since + it.pause)
    }

    pub(super) fn are_there(&self) -> bool {
        !self.known().is_empty()
    }

    /// Those that were heard of lately.
    fn known(&self) -> RefMut<'_, BTreeMap<ReplicaId, Laggard>> {
        let mut all = self.0.borrow_mut();
        all.retain(|_, it| ogee_runtime::now() < it.since + it.pause + COPY_KEPT);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::Laggards;
    use crate::fixture::run;
    use crate::limit::{COPY_AGAIN_MAX, COPY_AGAIN_MIN};
    use ogee_proto::id::ReplicaId;

    #[test]
    fn each_time_the_pause_is_longer_until_it_catches_up() {
        run(async {
            let (laggards, one, two) = (Laggards::default(), ReplicaId::new(1), ReplicaId::new(2));
            assert!(!laggards.is_resting(one) && !laggards.are_there());
            assert_eq!(laggards.note(one), COPY_AGAIN_MIN);
            assert!(laggards.is_resting(one) && !laggards.is_resting(two));
            assert_eq!(laggards.note(one), 2 * COPY_AGAIN_MIN);
            let past = ogee_runtime::now() - 2 * COPY_AGAIN_MIN;
            laggards
                .0
                .borrow_mut()
                .entry(one)
                .and_modify(|it| it.since = past);
            assert!(!laggards.is_resting(one), "it may try again");
            assert!(laggards.are_there(), "and is not forgotten");
            assert_eq!(laggards.note(one), 4 * COPY_AGAIN_MIN);
            let last = (0..20).map(|_| laggards.note(one)).last();
            assert_eq!(last, Some(COPY_AGAIN_MAX));
            laggards.has_caught_up(one);
            assert!(!laggards.is_resting(one) && !laggards.are_there());
            assert_eq!(laggards.note(one), COPY_AGAIN_MIN);
        });
    }
}
