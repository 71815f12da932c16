//! The metadata file: Raft's vote, log and newest snapshot in one redb database.
//!
//! *Place*: below the log store and the state machine, which share it.
//! *Owner*: the Raft thread; calls block it for a disk flush.
//! *Invariants*: every change is one transaction and is on disk when the call returns, but for
//! [`Ledger::save_committed`], which rides along with the next one. The log has no holes.
//! *On failure*: the error is returned and the transaction has not happened; the caller stops.

use std::cell::Cell;
use std::fmt::Debug;
use std::ops::RangeBounds;
use std::path::Path;

use redb::{
    Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, TableDefinition,
    WriteTransaction,
};

use super::codec::{self, EntryRecord, LogIdRecord, SnapshotRecord, VoteRecord};
use super::error::LedgerError;
use super::types::{Entry, LogId, Vote};
use crate::state::{FIRST_VERSION, OUR_VERSION, State};

/// Format of everything in the file, with what one must understand to read it: the highest version of a command, or of
/// metadata, that was ever written there. So an earlier release refuses what it would misread.
const FORMAT: &str = "ogee-mds ";

/// The file, in the data directory.
pub(crate) const LEDGER_FILE: &str = "mds.redb";

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");

const KEY_FORMAT: &str = "format";
const KEY_MEMBER: &str = "member";
const KEY_VOTE: &str = "vote";
const KEY_COMMITTED: &str = "committed";
const KEY_PURGED: &str = "purged";
const KEY_SNAPSHOT: &str = "snapshot";

/// See the module.
pub(crate) struct Ledger {
    db: Database,
    /// What one must understand to read it.
    stamped: Cell<u32>,
}

impl Ledger {
    /// Opens the file, or makes it for `member`; of metadata that takes no more than this release understands, or acts as
    /// if it did.
    pub(crate) fn open(path: &Path, member: u64, ours: u32) -> Result<Self, LedgerError> {
        let db = Database::create(path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => LedgerError::Locked,
            error => error.into(),
        })?;
        let stamped = Cell::new(FIRST_VERSION);
        let ledger = Self { db, stamped };
        ledger.create_tables()?;
        match ledger.get_bytes(KEY_FORMAT)? {
            None => ledger.stamp(member)?,
            Some(found) => {
                let known = version_in(&found).filter(|version| *version <= ours);
                let known = known.ok_or_else(|| LedgerError::UnknownFormat {
                    found: String::from_utf8_lossy(&found).into_owned(),
                    ours: format(ours),
                });
                ledger.stamped.set(known?);
                ledger.check_member(member)?;
            }
        }
        Ok(ledger)
    }

    /// Makes the file of the only member of a new group, whose log begins after `at`.
    pub(crate) fn restore(
        path: &Path,
        member: u64,
        addr: &str,
        (term, index): (u64, u64),
        state: State,
    ) -> Result<(), LedgerError> {
        let record = SnapshotRecord::first(term, index, member, addr.to_owned(), state);
        let last = record.last().map(LogId::from);
        let ledger = Self::open(path, member, OUR_VERSION)?;
        ledger.save_snapshot(&record)?;
        if let Some(last) = last {
            ledger.purge(&last)?;
        }
        ledger.save_vote(&Vote::new(term, member))
    }

    fn create_tables(&self) -> Result<(), LedgerError> {
        let write = self.db.begin_write()?;
        write.open_table(META)?;
        write.open_table(LOG)?;
        Ok(write.commit()?)
    }

    fn stamp(&self, member: u64) -> Result<(), LedgerError> {
        let member = codec::encode("member", &member)?;
        let write = self.db.begin_write()?;
        {
            let mut meta = write.open_table(META)?;
            meta.insert(KEY_FORMAT, format(FIRST_VERSION).as_bytes())?;
            meta.insert(KEY_MEMBER, member.as_slice())?;
        }
        Ok(write.commit()?)
    }

    fn check_member(&self, ours: u64) -> Result<(), LedgerError> {
        match self.get(KEY_MEMBER)? {
            Some(found) if found == ours => Ok(()),
            found => Err(LedgerError::OtherMember {
                found: found.unwrap_or(0),
                ours,
            }),
        }
    }

    fn get_bytes(&self, key: &'static str) -> Result<Option<Vec<u8>>, LedgerError> {
        let read = self.db.begin_read()?;
        let value = read.open_table(META)?.get(key)?;
        Ok(value.map(|guard| guard.value().to_vec()))
    }

    fn get<T: serde::de::DeserializeOwned>(
        &self,
        key: &'static str,
    ) -> Result<Option<T>, LedgerError> {
        let bytes = self.get_bytes(key)?;
        bytes.map(|bytes| codec::decode(key, &bytes)).transpose()
    }

    fn put(
        &self,
        key: &'static str,
        bytes: &[u8],
        durability: Durability,
    ) -> Result<(), LedgerError> {
        let mut write = self.db.begin_write()?;
        write.set_durability(durability)?;
        write.open_table(META)?.insert(key, bytes)?;
        Ok(write.commit()?)
    }

    pub(super) fn vote(&self) -> Result<Option<Vote>, LedgerError> {
        Ok(self.get::<VoteRecord>(KEY_VOTE)?.map(Vote::from))
    }

    pub(super) fn save_vote(&self, vote: &Vote) -> Result<(), LedgerError> {
        let bytes = codec::encode(KEY_VOTE, &VoteRecord::from(vote))?;
        self.put(KEY_VOTE, &bytes, Durability::Immediate)
    }

    pub(super) fn committed(&self) -> Result<Option<LogId>, LedgerError> {
        let record = self.get::<Option<LogIdRecord>>(KEY_COMMITTED)?;
        Ok(record.flatten().map(LogId::from))
    }

    /// Not flushed by itself: losing it costs only a replay that starts earlier.
    pub(super) fn save_committed(&self, id: Option<&LogId>) -> Result<(), LedgerError> {
        let bytes = codec::encode(KEY_COMMITTED, &id.map(LogIdRecord::from))?;
        self.put(KEY_COMMITTED, &bytes, Durability::None)
    }

    pub(super) fn purged(&self) -> Result<Option<LogId>, LedgerError> {
        Ok(self.get::<LogIdRecord>(KEY_PURGED)?.map(LogId::from))
    }

    /// The newest log entry's id; `None` if the log is empty.
    pub(super) fn last(&self) -> Result<Option<LogId>, LedgerError> {
        let read = self.db.begin_read()?;
        let log = read.open_table(LOG)?;
        let entry = log
            .last()?
            .map(|(_, bytes)| decode_entry(bytes.value()))
            .transpose()?;
        Ok(entry.map(|entry| entry.log_id))
    }

    pub(super) fn append(&self, entries: &[Entry]) -> Result<(), LedgerError> {
        let write = self.db.begin_write()?;
        let mut needed = FIRST_VERSION;
        {
            let mut log = write.open_table(LOG)?;
            for entry in entries {
                let record = EntryRecord::from(entry);
                needed = needed.max(record.version());
                let bytes = codec::encode("log entry", &record)?;
                log.insert(entry.log_id.index, bytes.as_slice())?;
            }
        }
        self.commit_needing(write, needed)
    }

    /// Whoever opens it from now on must understand so much.
    fn commit_needing(&self, write: WriteTransaction, needed: u32) -> Result<(), LedgerError> {
        if needed > self.stamped.get() {
            let stamp = format(needed);
            write
                .open_table(META)?
                .insert(KEY_FORMAT, stamp.as_bytes())?;
        }
        write.commit()?;
        self.stamped.set(self.stamped.get().max(needed));
        Ok(())
    }

    /// Entries in `range`, in order; stops after the entry that passes `max_bytes`.
    pub(super) fn entries(
        &self,
        range: impl RangeBounds<u64> + Debug,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, LedgerError> {
        let read = self.db.begin_read()?;
        let log = read.open_table(LOG)?;
        let (mut entries, mut bytes) = (Vec::new(), 0usize);
        for item in log.range(range)? {
            let (_, value) = item?;
            entries.push(decode_entry(value.value())?);
            bytes += value.value().len();
            if bytes >= max_bytes {
                break;
            }
        }
        Ok(entries)
    }

    /// Drops the entries from `first` on.
    pub(super) fn truncate_from(&self, first: u64) -> Result<(), LedgerError> {
        let write = self.db.begin_write()?;
        write.open_table(LOG)?.retain_in(first.., |_, _| false)?;
        Ok(write.commit()?)
    }

    /// Drops the entries up to `id`, inclusive, and remembers that.
    pub(super) fn purge(&self, id: &LogId) -> Result<(), LedgerError> {
        let bytes = codec::encode(KEY_PURGED, &LogIdRecord::from(id))?;
        let write = self.db.begin_write()?;
        {
            write
                .open_table(LOG)?
                .retain_in(..=id.index, |_, _| false)?;
            write
                .open_table(META)?
                .insert(KEY_PURGED, bytes.as_slice())?;
        }
        Ok(write.commit()?)
    }

    pub(super) fn snapshot(&self) -> Result<Option<SnapshotRecord>, LedgerError> {
        self.get(KEY_SNAPSHOT)
    }

    pub(super) fn save_snapshot(&self, snapshot: &SnapshotRecord) -> Result<(), LedgerError> {
        let bytes = codec::encode(KEY_SNAPSHOT, snapshot)?;
        let mut write = self.db.begin_write()?;
        write.set_durability(Durability::Immediate)?;
        write
            .open_table(META)?
            .insert(KEY_SNAPSHOT, bytes.as_slice())?;
        self.commit_needing(write, snapshot.version())
    }
}

fn format(version: u32) -> String {
    format!("{FORMAT}{version}")
}

fn version_in(format: &[u8]) -> Option<u32> {
    let version = std::str::from_utf8(format).ok()?.strip_prefix(FORMAT)?;
    version.parse().ok()
}

fn decode_entry(bytes: &[u8]) -> Result<Entry, LedgerError> {
    codec::decode::<EntryRecord>("log entry", bytes)?.into_entry()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_format_and_another_member_are_refused() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("mds.redb");
        let ledger = Ledger::open(&path, 1, 2).expect("new");
        assert!(matches!(
            Ledger::open(&path, 1, 2),
            Err(LedgerError::Locked)
        ));
        drop(ledger);
        let other = Ledger::open(&path, 2, 2)
            .err()
            .expect("belongs to member 1");
        assert!(matches!(
            other,
            LedgerError::OtherMember { found: 1, ours: 2 }
        ));
        let ledger = Ledger::open(&path, 1, 2).expect("ours");
        ledger
            .put(KEY_FORMAT, b"ogee-mds 9", Durability::Immediate)
            .expect("write");
        drop(ledger);
        let error = Ledger::open(&path, 1, 2)
            .err()
            .expect("unknown format")
            .to_string();
        assert!(
            error.contains("ogee-mds 9") && error.contains("ogee-mds 2"),
            "{error}"
        );
    }
    /// An earlier release must refuse it, and does so by the format that it knows.
    #[test]
    fn what_takes_a_newer_release_stamps_the_file() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("mds.redb");
        let entry = |index: u64, command: serde_json::Value| {
            let record = serde_json::json!({
                "id": {"term": 1, "index": index}, "payload": {"Command": command},
            });
            let record: EntryRecord = serde_json::from_value(record).expect("an entry");
            record.into_entry().expect("an entry")
        };
        let old = serde_json::json!({"do": "CreatePool", "name": "p", "replicas": 3});
        let ledger = Ledger::open(&path, 1, 1).expect("new");
        ledger.append(&[entry(1, old)]).expect("written");
        drop(ledger);
        let ledger = Ledger::open(&path, 1, 1).expect("nothing new is in it");
        let new = serde_json::json!({"do": "RaiseVersion", "version": 2});
        ledger.append(&[entry(2, new)]).expect("written");
        assert_eq!(
            ledger.get_bytes(KEY_FORMAT).expect("read"),
            Some(b"ogee-mds 2".to_vec())
        );
        drop(ledger);
        let refused = Ledger::open(&path, 1, 1).err().expect("too new");
        assert_eq!(refused.code(), "OGEE-2104");
        let said = refused.to_string();
        assert!(
            said.contains("ogee-mds 2") && said.contains("ogee-mds 1"),
            "{said}"
        );
        let ledger = Ledger::open(&path, 1, 2).expect("ours");
        assert_eq!(ledger.stamped.get(), 2);
    }
}
