//! Sequence numbers of one attachment and its watermark.
//!
//! *Place*: between `core`, which takes a number for each mutating part, and the frames it sends.
//! *Owner*: the shard of the volume; plain cells, never borrowed over an await.
//! *Invariants*: `newest − watermark ≤ SESSION_WINDOW_MAX`, which bounds the state that groups
//! keep to recognise duplicates. A number leaves through [`SequenceGuard`] exactly once.
//! *On failure*: a part dropped after it was sent is *abandoned*: copies of it may still be on
//! their way. It must never land after a newer write to the same block, so no new number is given
//! out until the watermark has passed the abandoned one: from then on every new request carries a
//! watermark under which a group refuses the old copy.

use crate::ledger::Ledger;
use ogee_proto::id::Sequence;
use ogee_proto::limit::SESSION_WINDOW_MAX;
use ogee_runtime::channel::Notify;
use ogee_runtime::seeded_bug;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Numbers given out and not yet done.
pub(crate) struct Session {
    ledger: RefCell<Ledger>,
    abandoned_max: Cell<u64>,
    moved: Notify,
}

/// One sequence number; dropping it before [`SequenceGuard::finish`] abandons it.
pub(crate) struct SequenceGuard {
    session: Rc<Session>,
    sequence: u64,
    exposed: Cell<bool>,
}

impl Session {
    /// A session of an attachment that has sent nothing yet: the first number is 1.
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            ledger: RefCell::new(Ledger::new(1)),
            abandoned_max: Cell::new(0),
            moved: Notify::new(),
        })
    }

    /// The next number; waits while the window is full or an abandoned request stands in the way.
    pub(crate) async fn begin(self: &Rc<Self>) -> SequenceGuard {
        loop {
            if let Some(guard) = self.try_begin() {
                return guard;
            }
            // The shard is single-threaded: nothing can move between the check and this await.
            self.moved.notified().await;
        }
    }

    /// The next number, if there is one now.
    pub(crate) fn try_begin(self: &Rc<Self>) -> Option<SequenceGuard> {
        let full = self.ledger.borrow().span() >= SESSION_WINDOW_MAX;
        let is_abandoned = self.abandoned_max.get() > self.watermark().get();
        if full || (is_abandoned && !seeded_bug!("abandoned-not-waited-for")) {
            return None;
        }
        let sequence = self.ledger.borrow_mut().open();
        Some(SequenceGuard {
            session: Rc::clone(self),
            sequence,
            exposed: Cell::new(false),
        })
    }

    /// The highest number such that it and all below it are done.
    pub(crate) fn watermark(&self) -> Sequence {
        Sequence::new(self.ledger.borrow().low() - 1)
    }

    fn close(&self, sequence: u64) {
        if self.ledger.borrow_mut().close(sequence) {
            self.moved.notify_all();
        }
    }
}

impl SequenceGuard {
    /// The number.
    pub(crate) const fn sequence(&self) -> Sequence {
        Sequence::new(self.sequence)
    }

    /// Notes that a frame with this number goes out now.
    pub(crate) fn expose(&self) {
        self.exposed.set(true);
    }

    /// The outcome is known: no copy of this request will ever be sent again by us, and none that
    /// is under way can still be applied.
    pub(crate) fn finish(self) {
        self.exposed.set(false);
    }
}

impl Drop for SequenceGuard {
    fn drop(&mut self) {
        if self.exposed.get() {
            let newest = self.session.abandoned_max.get().max(self.sequence);
            self.session.abandoned_max.set(newest);
        }
        self.session.close(self.sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_window_is_never_exceeded() {
        let session = Session::new();
        let mut guards: Vec<_> = std::iter::from_fn(|| session.try_begin()).collect();
        assert_eq!(guards.len() as u64, SESSION_WINDOW_MAX);
        guards.pop();
        assert!(session.try_begin().is_none(), "the oldest holds the window");
        guards.remove(0);
        assert_eq!(
            session.try_begin().unwrap().sequence().get(),
            SESSION_WINDOW_MAX + 1
        );
    }

    #[test]
    fn an_abandoned_request_holds_new_ones_back_until_the_watermark_covers_it() {
        let session = Session::new();
        let oldest = session.try_begin().unwrap();
        let abandoned = session.try_begin().unwrap();
        abandoned.expose();
        drop(abandoned);
        assert_eq!(session.watermark().get(), 0);
        assert!(session.try_begin().is_none());
        oldest.finish();
        assert_eq!(session.watermark().get(), 2);
        assert_eq!(session.try_begin().unwrap().sequence().get(), 3);
    }

    #[test]
    fn a_request_dropped_before_it_was_sent_holds_nobody_back() {
        let session = Session::new();
        let _oldest = session.try_begin().unwrap();
        drop(session.try_begin().unwrap());
        assert!(session.try_begin().is_some());
    }

    proptest! {
        #[test]
        fn the_watermark_rule_holds(steps in prop::collection::vec((0u8..4, any::<u8>()), 1..300)) {
            let session = Session::new();
            let mut open: Vec<SequenceGuard> = Vec::new();
            let (mut newest, mut abandoned) = (0, 0);
            for (step, pick) in steps {
                if step < 2 {
                    if let Some(guard) = session.try_begin() {
                        prop_assert_eq!(guard.sequence().get(), newest + 1);
                        prop_assert!(session.watermark().get() >= abandoned);
                        newest += 1;
                        open.push(guard);
                    }
                } else if !open.is_empty() {
                    let guard = open.remove(usize::from(pick) % open.len());
                    guard.expose();
                    if step == 2 {
                        guard.finish();
                    } else {
                        abandoned = abandoned.max(guard.sequence().get());
                        drop(guard);
                    }
                }
                let oldest_open = open.iter().map(|guard| guard.sequence().get()).min();
                let expected = oldest_open.unwrap_or(newest + 1) - 1;
                prop_assert_eq!(session.watermark().get(), expected);
                prop_assert!(newest - expected <= SESSION_WINDOW_MAX);
            }
        }
    }
}
