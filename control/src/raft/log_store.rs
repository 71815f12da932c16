//! openraft's view of the ledger: log and vote.

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::rc::Rc;

use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};

use super::ledger::Ledger;
use super::types::{Entry, Group, LogId, Vote};
use crate::limit::LOG_READ_BYTES_MAX;

/// Log and vote on disk. Clones share the ledger.
#[derive(Clone)]
pub(super) struct LogStore {
    ledger: Rc<Ledger>,
}

impl LogStore {
    pub(super) const fn new(ledger: Rc<Ledger>) -> Self {
        Self { ledger }
    }
}

impl RaftLogReader<Group> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(self.ledger.entries(range, usize::MAX)?)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.ledger.vote()?)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(self.ledger.entries(start..end, LOG_READ_BYTES_MAX)?)
    }
}

impl RaftLogStorage<Group> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Group>, io::Error> {
        let purged = self.ledger.purged()?;
        Ok(LogState {
            last_log_id: self.ledger.last()?.or(purged),
            last_purged_log_id: purged,
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        Ok(self.ledger.save_vote(vote)?)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        Ok(self.ledger.save_committed(committed.as_ref())?)
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.ledger.committed()?)
    }

    /// Flushed when it returns: the thread has nothing else to do, and the metadata changes
    /// rarely.
    async fn append<I>(&mut self, entries: I, done: IOFlushed<Group>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let written = self.ledger.append(&entries);
        done.io_completed(written.map_err(io::Error::from));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let first = last.map_or(0, |id| id.index + 1);
        Ok(self.ledger.truncate_from(first)?)
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        Ok(self.ledger.purge(&upto)?)
    }
}
