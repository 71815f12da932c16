//! The file of a record, and the lock that goes with it.
//!
//! *Place*: under `kept`. *Owner*: one process at a time, by a lock that the kernel gives back when that process is gone,
//! however it ended. *Invariants*: the file is ours alone (0600) in a directory that nobody else writes; it is replaced
//! as a whole, and durable when [`RecordFile::store`] returns. All of it blocks: call it from a thread that may.
//! *On failure*: [`RecordError`] names the file; the record that was there stays.

use super::error::RecordError;
use super::format::Record;
use crate::limit::RECORD_LEN_MAX;
use ogee_proto::name::PathName;
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The record of one volume in a directory, and the right to use it.
#[derive(Debug)]
pub struct RecordFile {
    directory: PathBuf,
    path: PathBuf,
    host: String,
    /// Held as long as this lives.
    _lock: File,
}

impl RecordFile {
    /// Takes the record of `volume` in a `directory` that exists, whether there is one or not. `host` names this host, as no other is.
    ///
    /// # Errors
    /// [`RecordError::Busy`] while another process has it; [`RecordError::Exposed`], [`RecordError::Name`] or
    /// [`RecordError::File`] if the directory is of no use.
    pub fn lock(directory: &Path, volume: &str, host: &str) -> Result<Self, RecordError> {
        let volume = PathName::new(volume)?.file_name();
        let found = fs::metadata(directory);
        check(directory, &found.map_err(failed("inspect", directory))?)?;
        let path = directory.join(format!("{volume}.lock"));
        let lock = private().write(true).create(true).open(&path);
        let lock = lock.map_err(failed("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(RecordError::Busy { path }),
            Err(TryLockError::Error(error)) => return Err(failed("lock", &path)(error)),
        }
        Ok(Self {
            path: directory.join(format!("{volume}.attachment")),
            directory: directory.to_owned(),
            host: host.to_owned(),
            _lock: lock,
        })
    }

    /// Where the record lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which host records are made for.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether something was kept.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.path.exists()
    }

    /// The record.
    pub(super) fn load(&self) -> Result<Record, RecordError> {
        let path = || self.path.clone();
        let mut file =
            private()
                .read(true)
                .open(&self.path)
                .map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound => RecordError::Absent { path: path() },
                    _ => failed("open", &self.path)(error),
                })?;
        let found = file.metadata().map_err(failed("inspect", &self.path))?;
        check(&self.path, &found)?;
        if found.len() > RECORD_LEN_MAX {
            return Err(RecordError::Length(found.len()));
        }
        let mut bytes = Vec::new();
        let read = file.read_to_end(&mut bytes);
        read.map_err(failed("read", &self.path))?;
        Record::decode(&bytes)
    }

    /// Replaces the record, durably.
    pub(super) fn store(&self, record: &Record) -> Result<(), RecordError> {
        let new = self.path.with_extension("attachment.new");
        let file = private().write(true).create(true).truncate(true).open(&new);
        let mut file = file.map_err(failed("make", &new))?;
        let written = file.write_all(&record.encode());
        written.map_err(failed("write", &new))?;
        file.sync_all().map_err(failed("flush", &new))?;
        fs::rename(&new, &self.path).map_err(failed("replace", &self.path))?;
        self.sync_directory()
    }

    /// Forgets the attachment: it was given up.
    pub(super) fn remove(&self) -> Result<(), RecordError> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed
                .map_err(failed("remove", &self.path))
                .and_then(|()| self.sync_directory()),
        }
    }

    fn sync_directory(&self) -> Result<(), RecordError> {
        let synced = File::open(&self.directory).and_then(|directory| directory.sync_all());
        synced.map_err(failed("flush", &self.directory))
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600).custom_flags(nix::libc::O_NOFOLLOW);
    options
}

/// Whether only we, or root, could have written it.
fn check(path: &Path, found: &Metadata) -> Result<(), RecordError> {
    let (uid, mode) = (found.uid(), found.mode() & 0o7777);
    let is_ours = uid == 0 || uid == nix::unistd::geteuid().as_raw();
    match is_ours && mode & 0o022 == 0 {
        true => Ok(()),
        false => Err(RecordError::Exposed {
            path: path.to_owned(),
            uid,
            mode,
        }),
    }
}

fn failed<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> RecordError + 'a {
    move |source| RecordError::File {
        doing,
        path: path.to_owned(),
        source: Arc::new(source),
    }
}
