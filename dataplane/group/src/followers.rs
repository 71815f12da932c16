//! How far each follower is, as its append streams tell.
//!
//! *Place*: noted by the leader's append streams, asked by them: a follower that is too far behind
//! holds up the purge of a log that all groups of the store share. *Owner*: the replica;
//! single-threaded. *Invariants*: a follower that is shunned gets no append stream for a while, so
//! that openraft purges what it lacks; it then catches up by snapshot.
//! *On failure*: nothing is known of a follower, and nothing is done about it.

use crate::limit::{BEHIND_SHARE, SHUN_TIME};
use crate::replica::Replica;
use ogee_proto::id::{LogIndex, ReplicaId};
use ogee_runtime::Instant;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// The newest entry that a follower has said is durable there, under a leader's term.
#[derive(Clone, Copy, Debug)]
struct Matched {
    term: u64,
    index: u64,
}

/// The followers of one group.
#[derive(Debug, Default)]
pub(crate) struct Followers {
    /// Of those that are not shunned.
    matched: RefCell<BTreeMap<u64, Matched>>,
    /// Never forgotten while the term lasts: neither is it by openraft, which ends the group when one
    /// lacks what it has said it has.
    confirmed: RefCell<BTreeMap<u64, Matched>>,
    shunned: RefCell<BTreeMap<u64, Instant>>,
}

impl Followers {
    /// A follower has everything up to `index`, as it told us who lead in `term`.
    pub(crate) fn note(&self, follower: u64, term: u64, index: u64) {
        let matched = Matched { term, index };
        self.matched.borrow_mut().insert(follower, matched);
        self.confirm(follower, term, index);
    }

    /// openraft has been told, by an answer to a stream or to a copy, that a follower has everything up
    /// to `index`.
    pub(crate) fn confirm(&self, follower: u64, term: u64, index: u64) {
        let mut confirmed = self.confirmed.borrow_mut();
        let known = confirmed.entry(follower).or_insert(Matched { term, index });
        if (known.term, known.index) < (term, index) {
            *known = Matched { term, index };
        }
    }

    /// Whether a follower lacks what it has said it has: entry `conflict`, in this very term. Its device
    /// has lost what it had reported as durable.
    pub(crate) fn has_lost(&self, follower: u64, term: u64, conflict: u64) -> bool {
        let confirmed = self.confirmed.borrow().get(&follower).copied();
        confirmed.is_some_and(|said| said.term == term && conflict <= said.index)
    }

    /// From now on, for a while, a follower gets no stream.
    pub(crate) fn shun(&self, follower: u64) {
        let until = ogee_runtime::now() + SHUN_TIME;
        self.shunned.borrow_mut().insert(follower, until);
        self.matched.borrow_mut().remove(&follower);
    }

    /// Whether a follower is to get no stream.
    pub(crate) fn is_shunned(&self, follower: u64) -> bool {
        let mut shunned = self.shunned.borrow_mut();
        shunned.retain(|_, until| ogee_runtime::now() < *until);
        shunned.contains_key(&follower)
    }

    /// The newest entry that a follower is known to have.
    pub(crate) fn matched(&self, follower: u64) -> Option<u64> {
        let matched = self.matched.borrow().get(&follower).copied();
        matched.map(|matched| matched.index)
    }
}

impl Replica {
    /// Whether what a follower lacks is more than its share of the store's log, and the log is more
    /// than half full.
    pub(crate) fn is_far_behind(&self, follower: ReplicaId) -> bool {
        let usage = self.log_usage();
        let capacity = usage.capacity.get();
        // One that has just got a copy catches up by the log that is kept for it: to send it back to
        // another copy would go on for as long as writers do.
        if usage.used.get() < capacity / 2 || self.is_log_kept() {
            return false;
        }
        let matched = self.followers.matched(follower.get());
        matched.is_some_and(|matched| {
            let lacks = self.log.live_len_from(LogIndex::new(matched + 1));
            lacks.get() > capacity / BEHIND_SHARE
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Followers;
    use crate::fixture::run;
    use crate::limit::SHUN_TIME;

    #[test]
    fn what_a_follower_has_said_it_has_it_may_not_lack_in_that_term() {
        let followers = Followers::default();
        followers.note(1, 3, 10);
        assert!(followers.has_lost(1, 3, 10) && followers.has_lost(1, 3, 9));
        assert!(!followers.has_lost(1, 3, 11), "not told yet");
        assert!(
            !followers.has_lost(1, 4, 9),
            "another leader knows nothing of it"
        );
        assert!(!followers.has_lost(2, 3, 9));
        // What it says in answer to an older request, or while it is shunned, takes nothing back.
        followers.note(1, 3, 8);
        followers.shun(1);
        assert!(followers.has_lost(1, 3, 10));
        followers.confirm(1, 4, 2);
        assert!(!followers.has_lost(1, 3, 10) && followers.has_lost(1, 4, 2));
    }

    #[test]
    fn a_follower_is_shunned_for_a_while() {
        run(async {
            let followers = Followers::default();
            followers.note(1, 1, 10);
            followers.note(2, 1, 20);
            followers.shun(1);
            assert!(followers.is_shunned(1) && !followers.is_shunned(2));
            assert_eq!(
                (followers.matched(1), followers.matched(2)),
                (None, Some(20))
            );
            ogee_runtime::sleep(SHUN_TIME + SHUN_TIME / 10).await;
            assert!(!followers.is_shunned(1));
        });
    }
}
