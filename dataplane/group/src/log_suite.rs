//! openraft's own storage suite on our log store, over a file on a real file system.
//!
//! Twice: as it is, and with the log closed and opened again before every read, so that what is
//! read must have come from the medium. The suite applies entries with gaps, which our machine
//! rightly refuses, so a plain one stands in its place: the log is under test.

use crate::command::Applied;
use crate::fixture::{COPYSET, run};
use crate::log_store::LogStore;
use crate::metrics::GroupMetrics;
use crate::types::{
    RaftEntry, RaftLogId, RaftSnapshotMeta, RaftStoredMembership, RaftVote, TypeConfig,
};
use futures_util::{Stream, TryStreamExt};
use ogee_device::{Device, OpenOptions};
use ogee_log::{Log, LogOptions, LogRegion};
use ogee_proto::id::StoreId;
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_proto::wire::Status;
use openraft::alias::SnapshotOf;
use openraft::storage::{
    EntryResponder, IOFlushed, LogState, RaftLogReader, RaftLogStorage, RaftSnapshotBuilder,
    RaftStateMachine, Snapshot,
};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, OptionalSend, StorageError};
use std::cell::{Cell, RefCell};
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::rc::Rc;
use tempfile::TempDir;

const REGION: LogRegion = LogRegion {
    start: ByteOffset::ZERO,
    len: ByteLen::new(16 << 20),
};

fn options() -> LogOptions {
    LogOptions {
        segment_len: ByteLen::new(1 << 20),
        ..LogOptions::new(StoreId::from_bytes([7; 16]))
    }
}

/// A file with an empty log.
async fn medium() -> (TempDir, Device) {
    let dir = tempfile::tempdir().unwrap();
    let create = Some(REGION.len);
    let device = Device::open(dir.path().join("log"), OpenOptions { create }).await;
    let device = device.unwrap();
    Log::format(&device, REGION, options()).await.unwrap();
    (dir, device)
}

fn store_of(log: &Log) -> LogStore {
    LogStore::new(log.group(COPYSET), None, Rc::new(GroupMetrics::default())).that_answers_short()
}

struct OnFile;

impl StoreBuilder<TypeConfig, LogStore, PlainMachine, TempDir> for OnFile {
    async fn build(&self) -> Result<(TempDir, LogStore, PlainMachine), StorageError<TypeConfig>> {
        let (dir, device) = medium().await;
        let log = Log::open(&device, REGION, options()).await.unwrap();
        Ok((dir, store_of(&log), PlainMachine::default()))
    }
}

struct OnFileReopened;

impl StoreBuilder<TypeConfig, Reopening, PlainMachine, TempDir> for OnFileReopened {
    async fn build(&self) -> Result<(TempDir, Reopening, PlainMachine), StorageError<TypeConfig>> {
        let (dir, device) = medium().await;
        let log = Log::open(&device, REGION, options()).await.unwrap();
        let shared = Rc::new(Shared {
            device,
            log: RefCell::new(Some(log)),
            reads: Cell::new(0),
        });
        Ok((dir, Reopening { shared }, PlainMachine::default()))
    }
}

/// A log store whose every read sees the log as a new process would.
#[derive(Clone)]
struct Reopening {
    shared: Rc<Shared>,
}

struct Shared {
    device: Device,
    log: RefCell<Option<Log>>,
    reads: Cell<u32>,
}

impl Reopening {
    fn open(&self) -> LogStore {
        store_of(self.shared.log.borrow().as_ref().unwrap())
    }

    async fn reopened(&self) -> LogStore {
        let log = self.shared.log.take().expect("the suite calls in turn");
        log.close().await.unwrap();
        drop(log);
        let log = Log::open(&self.shared.device, REGION, options()).await;
        self.shared.log.replace(Some(log.unwrap()));
        self.shared.reads.set(self.shared.reads.get() + 1);
        self.open()
    }
}

impl RaftLogReader<TypeConfig> for Reopening {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<RaftEntry>, io::Error> {
        self.reopened().await.try_get_log_entries(range).await
    }

    async fn read_vote(&mut self) -> Result<Option<RaftVote>, io::Error> {
        self.reopened().await.read_vote().await
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<RaftEntry>, io::Error> {
        let mut store = self.reopened().await;
        store.limited_get_log_entries(start, end).await
    }
}

impl RaftLogStorage<TypeConfig> for Reopening {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        self.reopened().await.get_log_state().await
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> Result<(), io::Error> {
        self.open().save_vote(vote).await
    }

    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> Result<(), io::Error> {
        self.open().save_committed(committed).await?;
        // Lazy on purpose, and its loss harmless; the suite wants to see it.
        let group = self.shared.log.borrow().as_ref().unwrap().group(COPYSET);
        group.committed_durable().await.map_err(io::Error::other)
    }

    async fn read_committed(&mut self) -> Result<Option<RaftLogId>, io::Error> {
        self.reopened().await.read_committed().await
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.open().append(entries, callback).await
    }

    async fn truncate_after(&mut self, last: Option<RaftLogId>) -> Result<(), io::Error> {
        self.open().truncate_after(last).await
    }

    async fn purge(&mut self, upto: RaftLogId) -> Result<(), io::Error> {
        self.open().purge(upto).await
    }
}

/// Remembers what the suite asks for, and nothing else.
#[derive(Clone, Default)]
struct PlainMachine {
    contents: Rc<RefCell<Contents>>,
}

#[derive(Default)]
struct Contents {
    applied: Option<RaftLogId>,
    membership: RaftStoredMembership,
    snapshot: Option<RaftSnapshotMeta>,
}

impl RaftStateMachine<TypeConfig> for PlainMachine {
    type SnapshotData = ();
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<RaftLogId>, RaftStoredMembership), io::Error> {
        let contents = self.contents.borrow();
        Ok((contents.applied, contents.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let mut contents = self.contents.borrow_mut();
            contents.applied = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = entry.payload {
                contents.membership = RaftStoredMembership::new(Some(entry.log_id), membership);
            }
            if let Some(responder) = responder {
                responder.send(Applied { status: Status::Ok });
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &RaftSnapshotMeta,
        _snapshot: (),
    ) -> Result<(), io::Error> {
        *self.contents.borrow_mut() = Contents {
            applied: meta.last_log_id,
            membership: meta.last_membership.clone(),
            snapshot: Some(meta.clone()),
        };
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<TypeConfig, ()>>, io::Error> {
        let meta = self.contents.borrow().snapshot.clone();
        Ok(meta.map(|meta| Snapshot { meta, snapshot: () }))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for PlainMachine {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, ()>, io::Error> {
        let mut contents = self.contents.borrow_mut();
        let meta = RaftSnapshotMeta {
            last_log_id: contents.applied,
            last_membership: contents.membership.clone(),
        };
        contents.snapshot = Some(meta.clone());
        Ok(Snapshot { meta, snapshot: () })
    }
}

#[test]
fn the_log_store_passes_openrafts_suite() {
    run(async { Suite::test_all(OnFile).await.unwrap() });
}

#[test]
fn the_log_store_passes_openrafts_suite_from_the_medium() {
    run(async { Suite::test_all(OnFileReopened).await.unwrap() });
}

/// The wrapper does what the second run relies on: what was not made durable is not read.
#[test]
fn a_read_after_reopening_comes_from_the_medium() {
    run(async {
        let (_dir, mut store, _machine) = OnFileReopened.build().await.unwrap();
        store.save_vote(&RaftVote::new(3, 1)).await.unwrap();
        assert_eq!(store.read_vote().await.unwrap(), Some(RaftVote::new(3, 1)));
        assert_eq!(store.shared.reads.get(), 1);
        let (_other, device) = medium().await;
        let log = Log::open(&device, REGION, options()).await.unwrap();
        drop(store.shared.log.replace(Some(log)));
        let elsewhere = Reopening {
            shared: Rc::new(Shared {
                device,
                log: RefCell::new(store.shared.log.take()),
                reads: Cell::new(0),
            }),
        };
        assert_eq!(elsewhere.reopened().await.read_vote().await.unwrap(), None);
    });
}
