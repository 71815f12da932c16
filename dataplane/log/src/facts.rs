//! What a group's log amounts to, and how each record changes it.
//!
//! *Place*: the same rules for what is accepted (`front`), what is durable (`durable`) and what is
//! replayed (`replay`): one implementation, so they cannot disagree. *Owner*: the log's task.
//! *Invariants*: `first <= last + 1`; entries `first..=last` are live; with no `last`, none is.
//! What the medium lost is a fact as well: a newer vote, or what came after the last entry.
//! *On failure*: [`Facts::append`] refuses an entry that does not follow and changes nothing.

use crate::entry::{GroupState, Vote};
use ogee_proto::id::{LogId, LogIndex};
use std::ops::Range;

/// State of one group's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Facts {
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    pub last: Option<LogId>,
    /// Index of the first live entry, one past `last` when none is live. Not always one past
    /// `purged`: a log may begin anywhere.
    pub first: u64,
    /// Identity of the last entry, which the next one repeats; 0 if it is not known.
    pub last_crc: u32,
    /// A newer vote may have been lost.
    pub vote_lost: bool,
    /// What came after `last` may have been lost: entries, or a truncation.
    pub end_lost: bool,
}

impl Facts {
    pub(crate) const fn state(&self) -> GroupState {
        GroupState {
            vote: self.vote,
            committed: self.committed,
            purged: self.purged,
            last: self.last,
        }
    }

    /// Indexes of the live entries.
    pub(crate) fn live(&self) -> Range<u64> {
        self.last
            .map_or(0..0, |last| self.first..last.index.get() + 1)
    }

    /// The only index that may be appended; any, when the log has neither entries nor history.
    pub(crate) fn next_index(&self) -> Option<LogIndex> {
        self.last.map(|last| LogIndex::new(last.index.get() + 1))
    }

    /// Records of any kind may have been lost here.
    pub(crate) const fn lose(&mut self) {
        self.vote_lost = true;
        self.end_lost = true;
    }

    /// The newest vote, which makes an older one that was lost irrelevant.
    pub(crate) const fn vote(&mut self, vote: Vote) {
        self.vote = Some(vote);
        self.vote_lost = false;
    }

    /// Adds an entry with this identity; tells whether it follows. After a loss any entry does, and
    /// tells where the log ended: what lies between is missing, if it was not purged.
    pub(crate) fn append(&mut self, id: LogId, crc: u32) -> bool {
        match self.next_index() {
            _ if self.end_lost => {
                let begin = match (self.last, self.purged) {
                    (Some(_), _) => self.first,
                    (None, Some(purged)) => purged.index.get() + 1,
                    (None, None) => 0,
                };
                self.first = begin.min(id.index.get());
                self.end_lost = false;
            }
            Some(next) if next != id.index => return false,
            Some(_) => {}
            None => self.first = id.index.get(),
        }
        self.last = Some(id);
        self.last_crc = crc;
        true
    }

    /// Drops what comes after `last`, which the caller has looked up with its identity.
    pub(crate) fn truncate(&mut self, last: Option<LogId>, crc: u32) {
        self.last = last;
        self.last_crc = crc;
        self.first = last.map_or(0, |last| self.first.min(last.index.get() + 1));
        self.end_lost = false;
    }

    /// Drops what comes up to `upto`; beyond the last entry, the log continues after `upto`.
    pub(crate) fn purge(&mut self, upto: LogId) {
        if self.purged.is_some_and(|purged| purged.index >= upto.index) {
            return;
        }
        self.purged = Some(upto);
        let next = upto.index.get() + 1;
        if self.last.is_none_or(|last| last.index <= upto.index) {
            self.last_crc = if self.last == Some(upto) {
                self.last_crc
            } else {
                0
            };
            self.last = Some(upto);
            self.first = next;
        } else {
            self.first = self.first.max(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Facts;
    use crate::entry::Vote;
    use ogee_proto::id::{LogId, LogIndex};

    fn filled(first: u64, last: u64) -> Facts {
        let mut facts = Facts::default();
        for index in first..=last {
            assert!(facts.append(LogId::new(1, index), 7));
        }
        facts
    }

    #[test]
    fn an_empty_log_begins_anywhere_and_then_counts() {
        let mut facts = filled(5, 7);
        assert_eq!(facts.live(), 5..8);
        assert!(!facts.append(LogId::new(1, 7), 7));
        assert!(!facts.append(LogId::new(1, 9), 7));
        assert_eq!(facts.next_index(), Some(LogIndex::new(8)));
    }

    #[test]
    fn purge_below_inside_and_beyond() {
        let mut facts = filled(2, 6);
        facts.purge(LogId::new(1, 1));
        assert_eq!(facts.live(), 2..7);
        facts.purge(LogId::new(1, 4));
        assert_eq!(facts.live(), 5..7);
        facts.purge(LogId::new(1, 3));
        assert_eq!(facts.purged, Some(LogId::new(1, 4)));
        assert_eq!(facts.last_crc, 7);
        facts.purge(LogId::new(9, 20));
        assert_eq!(facts.last_crc, 0);
        assert_eq!(facts.live(), 21..21);
        assert_eq!(facts.last, Some(LogId::new(9, 20)));
        assert!(facts.append(LogId::new(9, 21), 7));
        assert_eq!(facts.live(), 21..22);
    }

    #[test]
    fn after_a_loss_the_next_record_says_where_the_log_stands() {
        for (index, live) in [(9, 2..10), (4, 2..5), (2, 2..3), (1, 1..2)] {
            let mut facts = filled(2, 6);
            facts.lose();
            assert!(facts.append(LogId::new(2, index), 8));
            assert_eq!((facts.live(), facts.end_lost), (live, false));
            assert!(!facts.append(LogId::new(2, index + 2), 8));
        }
        let mut facts = Facts::default();
        facts.lose();
        assert!(facts.append(LogId::new(2, 3), 8));
        assert_eq!(
            facts.live(),
            0..4,
            "what came before is not known to be gone"
        );
        let mut facts = filled(2, 6);
        facts.lose();
        facts.truncate(Some(LogId::new(1, 3)), 7);
        assert_eq!((facts.live(), facts.end_lost), (2..4, false));
        facts.lose();
        facts.vote(Vote::default());
        assert!(!facts.vote_lost && facts.end_lost);
    }

    #[test]
    fn truncation_to_nothing_forgets_the_beginning() {
        let mut facts = filled(2, 6);
        facts.truncate(Some(LogId::new(1, 3)), 3);
        assert_eq!(facts.last_crc, 3);
        assert_eq!(facts.live(), 2..4);
        facts.truncate(None, 0);
        assert_eq!(facts.live(), 0..0);
        assert!(facts.append(LogId::new(1, 40), 7));
        assert_eq!(facts.live(), 40..41);
    }

    #[test]
    fn truncation_to_the_purged_entry_continues_after_it() {
        let mut facts = filled(5, 6);
        facts.purge(LogId::new(1, 1));
        facts.truncate(facts.purged, 0);
        assert_eq!(facts.live(), 2..2);
        assert!(facts.append(LogId::new(2, 2), 7));
    }
}
