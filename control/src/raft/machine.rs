//! openraft's view of the state machine.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::{Stream, TryStreamExt};
use openraft::OptionalSend;
use openraft::alias::SnapshotOf;
use openraft::entry::EntryPayload;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot};

use super::codec::SnapshotRecord;
use super::error::LedgerError;
use super::ledger::Ledger;
use super::types::{Entry, Group, LogId, SnapshotMeta, StoredMembership};
use crate::state::{Outcome, Reply, State};

/// The newest applied state: replaced by the machine, copied out by readers.
///
/// A reader's copy is immutable. Applying while one is held copies the state once, so that
/// readers never block the group; with nobody reading, it changes in place.
pub(super) type Shared = Rc<RefCell<Applied>>;

/// A state, and the log entry that it is as of. Both change in one step.
pub(super) struct Applied {
    pub(super) state: Arc<State>,
    pub(super) last: Option<LogId>,
}

/// State machine in memory; its snapshots are on disk, and a restart replays from the newest one.
pub(super) struct Machine {
    ledger: Rc<Ledger>,
    state: Shared,
    membership: StoredMembership,
}

impl Machine {
    /// The machine as of the newest snapshot.
    pub(super) fn open(ledger: Rc<Ledger>) -> Result<Self, LedgerError> {
        let (meta, state) = match ledger.snapshot()? {
            Some(record) => record.into_parts()?,
            None => (SnapshotMeta::default(), State::default()),
        };
        Ok(Self {
            ledger,
            state: Rc::new(RefCell::new(Applied {
                state: Arc::new(state),
                last: meta.last_log_id,
            })),
            membership: meta.last_membership,
        })
    }

    pub(super) fn shared(&self) -> Shared {
        Rc::clone(&self.state)
    }

    fn apply_entry(&mut self, entry: Entry) -> Outcome {
        let mut applied = self.state.borrow_mut();
        applied.last = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => Ok(Reply::Done),
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                Ok(Reply::Done)
            }
            EntryPayload::Normal(command) => Arc::make_mut(&mut applied.state).apply(&command),
        }
    }

    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta {
            last_log_id: self.state.borrow().last,
            last_membership: self.membership.clone(),
        }
    }
}

impl RaftStateMachine<Group> for Machine {
    type SnapshotData = Arc<State>;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.state.borrow().last, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Group>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let outcome = self.apply_entry(entry);
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            ledger: Rc::clone(&self.ledger),
            meta: self.meta(),
            state: Arc::clone(&self.state.borrow().state),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        state: Arc<State>,
    ) -> Result<(), io::Error> {
        self.ledger
            .save_snapshot(&SnapshotRecord::new(meta, &state))?;
        *self.state.borrow_mut() = Applied {
            state,
            last: meta.last_log_id,
        };
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<Group, Arc<State>>>, io::Error> {
        let Some(record) = self.ledger.snapshot()? else {
            return Ok(None);
        };
        let (meta, state) = record.into_parts()?;
        Ok(Some(Snapshot {
            meta,
            snapshot: Arc::new(state),
        }))
    }
}

/// Writes a snapshot of a state that no longer changes.
pub(super) struct Builder {
    ledger: Rc<Ledger>,
    meta: SnapshotMeta,
    state: Arc<State>,
}

impl RaftSnapshotBuilder<Group> for Builder {
    type SnapshotData = Arc<State>;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Group, Arc<State>>, io::Error> {
        let record = SnapshotRecord::new(&self.meta, &self.state);
        self.ledger.save_snapshot(&record)?;
        Ok(Snapshot {
            meta: self.meta.clone(),
            snapshot: Arc::clone(&self.state),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::log_store::LogStore;
    use super::*;
    use openraft::testing::log::{StoreBuilder, Suite};

    struct OnDisk;

    impl StoreBuilder<Group, LogStore, Machine, tempfile::TempDir> for OnDisk {
        async fn build(
            &self,
        ) -> Result<(tempfile::TempDir, LogStore, Machine), openraft::StorageError<Group>> {
            let dir = tempfile::tempdir().expect("temporary directory");
            let ledger = Ledger::open(&dir.path().join("mds.redb"), 1, 2).expect("new ledger");
            let ledger = Rc::new(ledger);
            let machine = Machine::open(Rc::clone(&ledger)).expect("empty machine");
            Ok((dir, LogStore::new(ledger), machine))
        }
    }

    /// openraft's own conformance suite, on the real file.
    #[test]
    fn passes_the_storage_suite() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime");
        let local = tokio::task::LocalSet::new();
        local
            .block_on(&runtime, Suite::test_all(OnDisk))
            .expect("the suite passes");
    }
}
