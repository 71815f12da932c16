//! Taking entries into the log that the store has no room for, when nobody else takes them.
//!
//! *Place*: the follower's end of append streams asks, after the store has refused. *Owner*: the replica;
//! single-threaded.
//! *Invariants*: leaders let in only what a majority has room for, as far as they know; words are a
//! moment old, and several groups share a store. So a majority may be without room for an entry that is
//! in the leader's log, and whatever would make some, a discard, waits behind it. Such an entry is taken,
//! for its data can stay in the log until there is room; an entry that others have committed is not, nor
//! one that has not been refused before. This never takes more than a part of the store's log.
//! *On failure*: the store is as full as before, and its followers and leaders go on refusing new data.

use crate::limit::OVERDRAFT_AFTER;
use ogee_runtime::Instant;
use std::cell::Cell;

/// What one replica has refused for want of room.
#[derive(Debug, Default)]
pub(crate) struct Overdraft {
    refused: Cell<Option<Refused>>,
}

/// The first refusal since the leader has committed anything.
#[derive(Clone, Copy, Debug)]
struct Refused {
    committed: u64,
    at: Instant,
}

impl Overdraft {
    /// Whether entries up to `last` for which there is no room are to be taken all the same, as of a
    /// leader that has committed everything up to `committed`.
    pub(crate) fn may(&self, last: u64, committed: u64) -> bool {
        if last <= committed {
            return false;
        }
        match self.refused.get() {
            Some(refused) if refused.committed == committed => {
                ogee_runtime::now() >= refused.at + OVERDRAFT_AFTER
            }
            _ => {
                let at = ogee_runtime::now();
                self.refused.set(Some(Refused { committed, at }));
                false
            }
        }
    }

    /// There was room again.
    pub(crate) fn end(&self) {
        self.refused.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::Overdraft;
    use crate::fixture::run;
    use crate::limit::OVERDRAFT_AFTER;

    #[test]
    fn what_nobody_commits_is_taken_after_it_was_refused() {
        run(async {
            let overdraft = Overdraft::default();
            let wait = || ogee_runtime::sleep(OVERDRAFT_AFTER + OVERDRAFT_AFTER / 10);
            assert!(!overdraft.may(9, 5) && !overdraft.may(9, 5), "too soon");
            wait().await;
            assert!(!overdraft.may(5, 5), "others have it");
            assert!(!overdraft.may(9, 6), "others go on");
            assert!(!overdraft.may(9, 6));
            wait().await;
            assert!(overdraft.may(9, 6) && overdraft.may(12, 6));
            overdraft.end();
            assert!(!overdraft.may(12, 6));
        });
    }
}
