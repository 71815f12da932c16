//! What a group's log should be, said in the simplest way.

use crate::support::{entry, vote};
use ogee_log::{Entry, GroupState};
use ogee_proto::id::LogId;
use std::collections::BTreeMap;

/// A group: its state and its live entries (term and payload pages by index; the rest follows).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelGroup {
    pub vote: Option<u64>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    pub last: Option<LogId>,
    entries: BTreeMap<u64, (u64, usize)>,
}

impl ModelGroup {
    pub fn next_index(&self) -> u64 {
        self.last.map_or(0, |last| last.index.get() + 1)
    }

    pub fn append(&mut self, term: u64, pages: usize) {
        let index = self.next_index();
        self.entries.insert(index, (term, pages));
        self.last = Some(LogId::new(term, index));
    }

    pub fn truncate_after(&mut self, index: u64) {
        self.entries.retain(|entry, _| *entry <= index);
        self.last = self
            .entries
            .last_key_value()
            .map(|(index, (term, _))| LogId::new(*term, *index))
            .or(self.purged);
    }

    pub fn purge(&mut self, upto: LogId) {
        if self.purged.is_some_and(|purged| purged.index >= upto.index) {
            return;
        }
        self.entries.retain(|entry, _| *entry > upto.index.get());
        self.purged = Some(upto);
        if self.last.is_none_or(|last| last.index <= upto.index) {
            self.last = Some(upto);
        }
    }

    pub fn state(&self) -> GroupState {
        GroupState {
            vote: self.vote.map(vote),
            committed: self.committed,
            purged: self.purged,
            last: self.last,
        }
    }

    pub fn entries(&self) -> Vec<Entry> {
        let entries = self.entries.iter();
        entries
            .map(|(index, (term, pages))| entry(*term, *index, *pages))
            .collect()
    }
}
