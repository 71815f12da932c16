//! Why a backup is not made, not taken, or not restored.

use std::path::PathBuf;

use ogee_proto::fault::Fault;

use crate::raft::LedgerError;

/// A backup that cannot be used, or cannot be restored there.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file cannot be read.
    #[error("it cannot be read: {0}")]
    Read(std::io::Error),
    /// It is larger than any backup.
    #[error("it is too long")]
    TooLong,
    /// Its first bytes are not a backup's.
    #[error("it is no backup of metadata")]
    NoBackup,
    /// It ends too early.
    #[error("it is cut short")]
    Short,
    /// A checksum differs.
    #[error("its {what} is damaged: the checksum differs")]
    Damaged {
        /// Which part.
        what: &'static str,
    },
    /// Written in a format that we do not know.
    #[error("its format is version {found}; this program reads version {ours}")]
    Version {
        /// As found.
        found: u32,
        /// As written by us.
        ours: u32,
    },
    /// Its text cannot be read.
    #[error("its metadata cannot be read: {0}")]
    Json(serde_json::Error),
    /// Its metadata cannot be relied on.
    #[error("its metadata is inconsistent: {what}")]
    Contradiction {
        /// What is wrong with it.
        what: &'static str,
    },
    /// There is no metadata yet.
    #[error("the cluster has no id yet")]
    NoCluster,
    /// The data directory is in use, or was.
    #[error("{} is not empty", path.display())]
    NotEmpty {
        /// As given.
        path: PathBuf,
    },
    /// The data directory cannot be made or looked into.
    #[error("{} cannot be used: {source}", path.display())]
    DataDir {
        /// As given.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The metadata file cannot be written.
    #[error("the metadata cannot be written")]
    Ledger(#[source] LedgerError),
    /// Member 0, or an address that is none.
    #[error("member {id} at {addr:?} cannot be")]
    Member {
        /// As given.
        id: u64,
        /// As given.
        addr: String,
    },
}

impl BackupError {
    /// The error in the user's words.
    #[must_use]
    pub fn fault(&self, what: &str) -> Fault {
        let cause = match self {
            Self::Ledger(source) => format!("{self}: {source}"),
            other => other.to_string(),
        };
        Fault::new(self.code(), what, &cause, &self.remedy())
    }

    const fn code(&self) -> &'static str {
        match self {
            Self::NoCluster => "OGEE-2031",
            Self::NotEmpty { .. } | Self::DataDir { .. } | Self::Member { .. } => "OGEE-2112",
            Self::Ledger(source) => source.code(),
            _ => "OGEE-2111",
        }
    }

    fn remedy(&self) -> String {
        match self {
            Self::NoCluster => "again".into(),
            Self::NotEmpty { .. } => {
                "an empty directory: what is there is never overwritten; move it away if it is of no use".into()
            }
            Self::DataDir { .. } => "let this user write there".into(),
            Self::Member { .. } => "--id 1 --address HOST:PORT".into(),
            Self::Version { .. } => "the version of ogee that wrote it".into(),
            Self::Ledger(source) => source.remedy(),
            Self::Read(_) => "check the path and its permissions".into(),
            _ => "another backup: this one must not be restored".into(),
        }
    }
}
