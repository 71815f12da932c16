//! The right to serve reads without asking anybody: the leader's lease.
//!
//! *Place*: asked by the linearizer after a read has arrived and before state is looked at.
//! *Owner*: the group; single-threaded.
//! *Invariants*: while [`Lease::holds`], no other replica can have become leader. A majority
//! acknowledged something that this leader sent at most 0.8 of a lease ago, and refuses its vote
//! to anybody for a whole lease from when it came there (clocks may drift by a fifth of that): each
//! says with its acknowledgement for how long, and one that says less does not count.
//! What breaks this ends the lease: a handover asks for votes in spite of it, so its term has no
//! lease any more; a restarted replica has forgotten what it promised, so it neither votes nor
//! stands for one lease ([`Abstention`]); a suspended host's clock stood still, so what was
//! acknowledged before does not count.
//! *On failure*: no lease. Reads then ask a majority (ReadIndex), which needs no clock.

use crate::acks::Acks;
use crate::machine::Machine;
use crate::types::TypeConfig;
use ogee_log::Vote;
use ogee_runtime::{Instant, seeded_bug};
use openraft::async_runtime::WatchReceiver;
use openraft::{Raft, ServerState};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// How much two clocks' difference may have grown before it means that the host was suspended.
const SUSPEND_SLACK: Duration = Duration::from_millis(1);

/// One group's lease, as far as its openraft does not keep it.
pub(crate) struct Lease {
    me: u64,
    acks: Rc<Acks>,
    /// For how long a follower must refuse its vote to others for its acknowledgement to count;
    /// none: no lease at all.
    promised: Option<Duration>,
    /// The term in which a round to a majority has shown all that was committed before it.
    confirmed: Cell<Option<u64>>,
    /// The newest term that was to be handed over.
    handed_over: Cell<Option<u64>>,
    /// Time that the host has been suspended, as of the last look.
    suspended: Cell<Duration>,
    /// Acknowledgements of what was sent before count no more.
    since: Cell<Option<Instant>>,
}

impl Lease {
    /// `promised`: for how long followers refuse their votes.
    pub(crate) fn new(me: u64, acks: Rc<Acks>, promised: Duration, is_on: bool) -> Self {
        Self {
            me,
            acks,
            promised: is_on.then_some(promised),
            confirmed: Cell::new(None),
            handed_over: Cell::new(None),
            suspended: Cell::new(ogee_runtime::suspended_time()),
            since: Cell::new(None),
        }
    }

    /// Whether a read that has arrived may be served from this replica's state as it is now.
    pub(crate) fn holds(&self, raft: &Raft<TypeConfig, Machine>) -> bool {
        let Some(promised) = self.promised else {
            return false;
        };
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let term = metrics.current_term;
        let leads = metrics.state == ServerState::Leader && metrics.running_state.is_ok();
        let is_confirmed =
            self.confirmed.get() == Some(term) || seeded_bug!("lease-before-first-round");
        let is_leaving = self.is_handed_over(term) && !seeded_bug!("lease-through-handover");
        if !leads || !is_confirmed || is_leaving {
            return false;
        }
        let now = ogee_runtime::now();
        self.look_for_suspension(now);
        let membership = &metrics.membership_config;
        let sent = self
            .acks
            .majority_since(self.me, term, promised, membership);
        let length = match seeded_bug!("lease-too-long") {
            false => promised * 4 / 5,
            true => promised * 2,
        };
        sent.is_some_and(|sent| {
            now < sent + length && self.since.get().is_none_or(|since| sent > since)
        })
    }

    /// Whether a majority has accepted something of this term that was sent at `since` or later.
    pub(crate) fn is_led_since(&self, raft: &Raft<TypeConfig, Machine>, since: Instant) -> bool {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let (term, membership) = (metrics.current_term, &metrics.membership_config);
        // Leadership then needs no promise.
        let sent = self
            .acks
            .majority_since(self.me, term, Duration::ZERO, membership);
        sent.is_some_and(|sent| sent >= since)
    }

    /// The term that a round to a majority which starts now may confirm.
    pub(crate) fn term(raft: &Raft<TypeConfig, Machine>) -> u64 {
        raft.metrics().borrow_watched().current_term
    }

    /// A round that began in `term` has confirmed it, and everything before it is applied.
    pub(crate) fn confirm(&self, raft: &Raft<TypeConfig, Machine>, term: u64) {
        if Self::term(raft) == term {
            self.confirmed.set(Some(term));
        }
    }

    /// The leader is about to ask another replica to take over: a vote is granted to that one at
    /// any time from now on, however long its call was on its way.
    pub(crate) fn hand_over(&self, raft: &Raft<TypeConfig, Machine>) {
        self.handed_over.set(Some(Self::term(raft)));
    }

    /// Whether that term was to be handed over.
    pub(crate) fn is_handed_over(&self, term: u64) -> bool {
        self.handed_over.get().is_some_and(|over| over >= term)
    }

    fn look_for_suspension(&self, now: Instant) {
        if seeded_bug!("lease-across-suspend") {
            return;
        }
        let suspended = ogee_runtime::suspended_time();
        if suspended > self.suspended.get() + SUSPEND_SLACK {
            tracing::warn!(for_ = ?(suspended - self.suspended.get()), "this host was suspended");
            self.since.set(Some(now));
        }
        // A look may show too little, see `suspended_time`; the next one is then no suspension.
        self.suspended.set(self.suspended.get().max(suspended));
    }
}

/// What a replica that has just started has to keep out of: it may have promised a leader not to
/// vote, and forgotten it.
#[derive(Clone, Copy)]
pub(crate) struct Abstention {
    ends: Option<Instant>,
}

impl Abstention {
    /// From now on, for a replica whose log holds `vote`. Only the acknowledgement of a leader is a
    /// promise, and it makes that leader's vote durable first.
    pub(crate) fn begin(vote: Option<Vote>, promised: Duration) -> Self {
        let promised_any = vote.is_some_and(|vote| vote.committed);
        let promised_any = promised_any && !seeded_bug!("restarted-follower-votes");
        Self {
            ends: promised_any.then(|| ogee_runtime::now() + promised),
        }
    }

    /// Whether it is still on.
    pub(crate) fn is_on(self) -> bool {
        self.ends.is_some_and(|ends| ogee_runtime::now() < ends)
    }

    /// When it ends, if it ever began.
    pub(crate) const fn ends(self) -> Option<Instant> {
        self.ends
    }
}

#[cfg(test)]
mod tests {
    use super::{Abstention, Lease};
    use crate::fixture::{Lone, run};
    use ogee_log::Vote;
    use std::rc::Rc;
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn only_a_leader_s_vote_is_a_promise() {
        run(async {
            assert!(!Abstention::begin(None, LONG).is_on());
            let vote = |committed| Vote {
                term: 3,
                voted_for: 1,
                committed,
            };
            assert!(!Abstention::begin(Some(vote(false)), LONG).is_on());
            let short = Duration::from_millis(20);
            let abstention = Abstention::begin(Some(vote(true)), short);
            assert!(abstention.is_on());
            ogee_runtime::sleep(2 * short).await;
            assert!(!abstention.is_on());
        });
    }

    #[test]
    fn there_is_none_before_a_round_and_none_after_a_handover() {
        run(async {
            let lone = Lone::start().await;
            let raft = lone.group.raft();
            let lease = Lease::new(1, Rc::default(), LONG, true);
            assert!(!lease.holds(raft), "nobody was asked yet");
            lease.confirm(raft, Lease::term(raft) + 1);
            assert!(!lease.holds(raft), "another term's round says nothing");
            lease.hand_over(raft);
            lease.confirm(raft, Lease::term(raft));
            assert!(!lease.holds(raft), "it may be somebody else's by now");
        });
    }
}
