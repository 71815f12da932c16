//! openraft's log storage over one group's part of the store's shared log.
//!
//! *Place*: called by openraft's core and replication tasks of this group.
//! Large writes that cover whole extents of their chunk are given extents of the store, which is local
//! to this replica: the entry is the same on all of them, wherever each keeps the payload.
//! *Invariants*: writes go into the log's one serial stream in the order of the calls; entries are
//! handed out with a payload *handle*, so reading a range never waits for a device.
//! *On failure*: the log's error becomes an `io::Error`; openraft then stops the group.

use crate::codec::{entry_from, entry_head};
use crate::command::PayloadRef;
use crate::limit::{APPEND_BYTES_MAX, APPEND_ENTRIES_MAX};
use crate::metrics::GroupMetrics;
use crate::replica::Replica;
use crate::types::{RaftEntry, RaftLogId, RaftVote, TypeConfig, from_raft, to_raft, to_raft_vote};
use futures_util::{FutureExt, Stream, stream};
use ogee_log::{Entry, EntryRef, GroupLog, Vote};
use ogee_proto::id::LogIndex;
use ogee_proto::unit::ByteOffset;
use ogee_runtime::{Payload, seeded_bug};
use ogee_store::Store;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend};
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::rc::Rc;

/// A group's log as openraft sees it.
#[derive(Clone)]
pub(crate) struct LogStore {
    log: GroupLog,
    /// Whose store large writes go to; `None` keeps them in the log.
    replica: Option<Rc<Replica>>,
    metrics: Rc<GroupMetrics>,
    /// Whose budget is told how long entries take.
    store: Option<Store>,
    /// For openraft's suite, which also reads for apply what was never appended.
    #[cfg(test)]
    answers_short: bool,
}

impl LogStore {
    pub(crate) const fn new(
        log: GroupLog,
        replica: Option<Rc<Replica>>,
        metrics: Rc<GroupMetrics>,
    ) -> Self {
        Self {
            log,
            replica,
            metrics,
            store: None,
            #[cfg(test)]
            answers_short: false,
        }
    }

    /// Tells the budget of the store's device how long entries take.
    pub(crate) fn that_tells(mut self, store: Store) -> Self {
        self.store = Some(store);
        self
    }

    #[cfg(test)]
    pub(crate) const fn that_answers_short(mut self) -> Self {
        self.answers_short = true;
        self
    }

    #[cfg(test)]
    const fn answers_short(&self) -> bool {
        self.answers_short
    }

    #[cfg(not(test))]
    const fn answers_short(&self) -> bool {
        let _ = self;
        false
    }

    /// Extents for the payload; none if it goes into the log.
    fn redirect(&self, entry: &RaftEntry) -> Vec<ByteOffset> {
        let (EntryPayload::Normal(command), Some(replica)) = (&entry.payload, &self.replica) else {
            return Vec::new();
        };
        let count = u32::try_from(command.extents()).unwrap_or(0);
        match count {
            0 => Vec::new(),
            count => replica.take_extents(count),
        }
    }

    fn peek(&self, start: u64, end: u64, max_bytes: usize) -> Result<Vec<RaftEntry>, io::Error> {
        let range = LogIndex::new(start)..LogIndex::new(end);
        let entries = self.log.peek(range, max_bytes);
        entries.into_iter().map(to_raft_entry).collect()
    }
}

/// Whether somebody waits for an entry: not for one that compares replicas, which would have the background give way to
/// itself.
const fn is_asked_for(entry: &RaftEntry) -> bool {
    match &entry.payload {
        EntryPayload::Normal(command) => !command.head.is_of_comparison(),
        EntryPayload::Blank | EntryPayload::Membership(_) => false,
    }
}

/// A range as its first index and the one behind its last.
fn ends_of(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(at) => *at,
        Bound::Excluded(at) => at.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(at) => at.saturating_add(1),
        Bound::Excluded(at) => *at,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

/// The entries, if they are all of a range.
fn whole(entries: Vec<RaftEntry>, range: Range<u64>) -> Result<Vec<RaftEntry>, io::Error> {
    let indexes = entries.iter().map(|entry| entry.log_id.index);
    if indexes.eq(range.clone()) {
        return Ok(entries);
    }
    let text = format!("the log has {} of the entries {range:?}", entries.len());
    Err(io::Error::new(io::ErrorKind::NotFound, text))
}

/// A log record as openraft's entry.
fn to_raft_entry(entry: EntryRef) -> Result<RaftEntry, io::Error> {
    let payload = match entry.payload {
        _ if entry.payload_len == 0 => PayloadRef::None,
        Some(bytes) => PayloadRef::Memory {
            bytes,
            crc: entry.payload_crc,
        },
        None => PayloadRef::Log {
            len: entry.payload_len,
            crc: entry.payload_crc,
        },
    };
    entry_from(entry.id, entry.kind, &entry.head, payload).map_err(io::Error::other)
}

/// openraft's entry as a log record.
fn to_log_entry(entry: &RaftEntry) -> Result<Entry, io::Error> {
    let (kind, head) = entry_head(entry);
    let (payload, payload_crc) = match &entry.payload {
        EntryPayload::Normal(command) => match &command.payload {
            PayloadRef::None => (Payload::empty(), 0),
            PayloadRef::Memory { bytes, crc } => (bytes.clone(), *crc),
            PayloadRef::Log { .. } => {
                let text = "an appended entry's payload must be in memory";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
        },
        _ => (Payload::empty(), 0),
    };
    Ok(Entry {
        id: from_raft(&entry.log_id),
        kind,
        head: head.into(),
        payload,
        payload_crc,
    })
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<RaftEntry>, io::Error> {
        let (start, end) = ends_of(&range);
        self.peek(start, end, usize::MAX)
    }

    /// For apply: all of the range is there, or it is an error. A log that has failed lacks what it did
    /// not take, and openraft counts as applied whatever a shorter answer leaves out.
    async fn entries_stream<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<RaftEntry, io::Error>> + OptionalSend {
        let (start, end) = ends_of(&range);
        let found = self.peek(start, end, usize::MAX);
        let found = match self.answers_short() {
            true => found,
            false => found.and_then(|entries| whole(entries, start..end)),
        };
        let (entries, error) = match found {
            Ok(entries) => (entries, None),
            Err(error) => (Vec::new(), Some(Err(error))),
        };
        stream::iter(entries.into_iter().map(Ok).chain(error))
    }

    async fn read_vote(&mut self) -> Result<Option<RaftVote>, io::Error> {
        Ok(self.log.state().vote.map(to_raft_vote))
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<RaftEntry>, io::Error> {
        let end = end.min(start.saturating_add(APPEND_ENTRIES_MAX as u64));
        self.peek(start, end, APPEND_BYTES_MAX)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self.log.state();
        Ok(LogState {
            last_purged_log_id: state.purged.map(to_raft),
            last_log_id: state.last.or(state.purged).map(to_raft),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> Result<(), io::Error> {
        let vote = Vote {
            term: vote.leader_id.term,
            voted_for: vote.leader_id.voted_for,
            committed: vote.committed,
        };
        self.log.save_vote(vote).await.map_err(io::Error::other)
    }

    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> Result<(), io::Error> {
        if let Some(id) = committed {
            self.log.save_committed(from_raft(&id));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<RaftLogId>, io::Error> {
        Ok(self.log.state().committed.map(to_raft))
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
        let entries = entries.into_iter().map(|entry| {
            let logged = to_log_entry(&entry)?;
            Ok((logged, entry))
        });
        let entries = entries.collect::<Result<Vec<_>, io::Error>>()?;
        let is_asked_for = entries.iter().any(|(_, entry)| is_asked_for(entry));
        // After all of them are known to be fit: what is taken is given back by the log only.
        let entries = entries.into_iter().map(|(logged, entry)| {
            self.metrics.count_append(logged.payload.len());
            (logged, self.redirect(&entry))
        });
        let entries = entries.collect();
        if seeded_bug!("ack-before-flush") {
            callback.io_completed(Ok(()));
            self.log.append_placed(entries, drop);
            return Ok(());
        }
        let store = self.store.clone().filter(|_| is_asked_for);
        let metrics = self.metrics.clone();
        let started = ogee_runtime::now();
        let done = move |result: Result<(), _>| {
            let now = ogee_runtime::now();
            metrics.log.observe(now - started);
            if let Some(store) = store {
                store.budget().note_foreground(now, now - started);
            }
            callback.io_completed(result.map_err(io::Error::other));
        };
        self.log.append_placed(entries, done);
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<RaftLogId>) -> Result<(), io::Error> {
        let last = last.map(|id| LogIndex::new(id.index));
        // Waited for: a checkpoint may come to cover what replaces the tail, and must not be durable
        // before the tail is gone.
        let done = self.log.truncate_after(last).await;
        done.map_err(io::Error::other)
    }

    async fn purge(&mut self, upto: RaftLogId) -> Result<(), io::Error> {
        // Not waited for, which would hold up openraft's core: it follows a durable checkpoint, and
        // alone it may get lost. A refusal comes at once.
        let mut upto = from_raft(&upto);
        if seeded_bug!("purge-one-too-far") {
            upto.index = LogIndex::new(upto.index.get() + 1);
        }
        let done = self.log.purge(upto).now_or_never();
        done.unwrap_or(Ok(())).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::{LogStore, is_asked_for};
    use crate::command::{CommandHead, CommandKind};
    use crate::fixture::{Lone, run};
    use crate::group::command;
    use crate::limit::PIECE_LEN;
    use crate::types::{RaftEntry, to_raft};
    use futures_util::StreamExt;
    use ogee_proto::id::{ChunkKey, ClientId, Epoch, Incarnation, LogId, Sequence};
    use ogee_proto::limit::BLOCK_SIZE;
    use ogee_runtime::Payload;
    use openraft::EntryPayload;
    use openraft::storage::RaftLogReader;
    use std::ops::Range;

    /// How many entries of a range are handed out for apply, and how many errors.
    async fn read(store: &mut LogStore, range: Range<u64>) -> (usize, usize) {
        let found: Vec<_> = store.entries_stream(range).await.collect().await;
        let good = found.iter().filter(|entry| entry.is_ok()).count();
        (good, found.len() - good)
    }

    /// Or the background would give way to comparisons, which it makes itself.
    #[test]
    fn nobody_asks_for_what_compares_replicas() {
        let entry = |kind, length: usize| {
            let head = CommandHead {
                kind,
                key: ChunkKey::default(),
                offset: 0,
                length: u32::try_from(length).expect("small"),
                client: ClientId::new(0),
                epoch: Epoch::new(1),
                incarnation: Incarnation::new(0),
                sequence: Sequence::new(1),
                watermark: Sequence::new(0),
            };
            RaftEntry {
                log_id: to_raft(LogId::new(1, 1)),
                payload: EntryPayload::Normal(command(head, Payload::empty(), 0)),
            }
        };
        assert!(is_asked_for(&entry(CommandKind::Write, BLOCK_SIZE)));
        assert!(
            is_asked_for(&entry(CommandKind::Digest, BLOCK_SIZE)),
            "an operator's"
        );
        assert!(!is_asked_for(&entry(CommandKind::Digest, PIECE_LEN)));
        assert!(!is_asked_for(&entry(CommandKind::Rewrite, BLOCK_SIZE)));
        let blank = RaftEntry {
            log_id: to_raft(LogId::new(1, 1)),
            payload: EntryPayload::Blank,
        };
        assert!(!is_asked_for(&blank));
    }

    #[test]
    fn what_is_to_be_applied_is_all_there_or_an_error() {
        run(async {
            let lone = Lone::start().await;
            let replica = lone.group.replica();
            let mut store = LogStore::new(replica.log.clone(), None, replica.metrics.clone());
            let last = lone.group.report().last_log;
            assert!(last > 0);
            let all = usize::try_from(last).expect("few entries");
            assert_eq!(read(&mut store, 1..last + 1).await, (all, 0));
            assert_eq!(read(&mut store, 1..last + 2).await, (0, 1));
            assert_eq!(read(&mut store, last + 1..last + 2).await, (0, 1));
        });
    }
}
