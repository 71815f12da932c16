//! A leader with a damaged block that cannot be repaired lets another replica lead.
//!
//! *Place*: after a failed read, and at every look of `watch`, for what `repair` has given up for now: a copy
//! that such a leader sends never ends. *Owner*: one replica of one group; a time.
//! *Invariants*: safety rests on nothing here: leadership is handed over as ever. One that has declined
//! does not do so again for a while, so that replicas of which each has its damage do not pass
//! leadership round and round: then the reader is told.
//! *On failure*: without a replica to hand over to it leads on, and reads of that block fail.

use crate::group::Group;
use crate::limit::DECLINE_GAP;
use crate::seldom::Seldom;
use ogee_proto::id::ReplicaId;
use openraft::async_runtime::WatchReceiver;
use std::cell::Cell;

/// What a replica knows of its own damage.
#[derive(Debug, Default)]
pub(crate) struct Damage {
    found: Cell<bool>,
    declined: Seldom,
}

impl Damage {
    /// A block is damaged, and was not repaired.
    pub(crate) fn note(&self) {
        self.found.set(true);
    }
}

impl Group {
    /// Hands leadership over for damage that was found since the last call, if this replica leads.
    pub(crate) fn look_after_damage(&self) {
        if self.raft().is_leader() && self.replica().damage.found.get() {
            self.decline();
        }
    }

    /// Whether leadership is on its way to a replica that may have what is damaged here.
    pub(crate) fn decline(&self) -> bool {
        let damage = &self.replica().damage;
        damage.found.set(false);
        if self.is_leaving() {
            return true;
        }
        let Some(to) = self
            .successor()
            .filter(|_| damage.declined.may(DECLINE_GAP))
        else {
            return false;
        };
        tracing::warn!(copyset = %self.copyset(), %to,
            "a block of this leader's is damaged: handing over to a replica that may have it whole");
        let group = self.clone();
        drop(ogee_runtime::spawn(async move {
            if let Err(error) = group.transfer_leader(to).await {
                tracing::warn!(copyset = %group.copyset(), %error, "no handover");
            }
        }));
        true
    }

    fn is_leaving(&self) -> bool {
        let term = self.raft().metrics().borrow_watched().current_term;
        self.hands_over(term)
    }

    /// The next voter that has caught up, in a round: each gets its turn.
    fn successor(&self) -> Option<ReplicaId> {
        let (me, mut voters) = (self.replica_id(), self.voters());
        voters.sort_by_key(|id| (*id < me, *id));
        let mut others = voters.into_iter().filter(|id| *id != me);
        others.find(|id| self.is_caught_up(*id))
    }
}
