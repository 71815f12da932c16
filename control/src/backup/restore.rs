//! A new group of one metadata server, from a backup.
//!
//! The directory is filled beside its place and renamed as the last step, so that a restore that was
//! cut short is none. The term goes ahead as the ids do: chunkservers refuse orders of a term older
//! than they have heard of.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use super::error::BackupError;
use super::format::Backup;
use crate::limit::RESTORE_GAP;
use crate::raft::{LEDGER_FILE, Ledger, is_address};
use crate::state::Restored;

/// Where to restore to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restore {
    /// The new metadata server's data directory: missing or empty.
    pub data_dir: PathBuf,
    /// Its number.
    pub id: u64,
    /// `host:port` of its gRPC services.
    pub addr: String,
}

/// Makes the data directory of the first metadata server of a new group.
///
/// # Errors
/// Why not; then nothing that would start was made.
pub fn restore(backup: Backup, to: &Restore) -> Result<(), BackupError> {
    if to.id == 0 || !is_address(&to.addr) {
        let (id, addr) = (to.id, to.addr.clone());
        return Err(BackupError::Member { id, addr });
    }
    check_empty(&to.data_dir)?;
    let failed = |source| BackupError::DataDir {
        path: to.data_dir.clone(),
        source,
    };
    std::fs::create_dir_all(&to.data_dir).map_err(failed)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = now.map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX));
    let (high, low) = Uuid::new_v4().as_u64_pair();
    let origin = Restored {
        // Small enough for any number in JSON; never 0.
        group: ((high ^ low) >> 12) | 1,
        backup_ms: backup.head.created_unix_ms,
        restored_ms: now_ms,
        applied: backup.head.applied,
        accepted: false,
    };
    let state = backup.state.begin_anew(origin);
    if let Some(what) = state.contradiction() {
        return Err(BackupError::Contradiction { what });
    }
    let term = backup.head.term.saturating_add(RESTORE_GAP);
    let partial = to.data_dir.join("mds.redb.partial");
    let index = backup.head.applied.max(1);
    let made = Ledger::restore(&partial, to.id, &to.addr, (term, index), state);
    made.map_err(BackupError::Ledger)?;
    std::fs::rename(&partial, to.data_dir.join(LEDGER_FILE)).map_err(failed)?;
    let dir = std::fs::File::open(&to.data_dir).map_err(failed)?;
    dir.sync_all().map_err(failed)
}

fn check_empty(dir: &Path) -> Result<(), BackupError> {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(BackupError::NotEmpty { path: dir.into() }),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(BackupError::DataDir {
            path: dir.into(),
            source,
        }),
    }
}
