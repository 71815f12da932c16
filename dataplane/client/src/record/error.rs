//! Why a record of an attachment cannot be used.
//!
//! *Place*: from `record` up to the user. *Owner*: none. *Invariants*: each variant names the file or the value.
//! *On failure*: the caller needs a metadata server, which issues a new attachment.

use crate::map::MapError;
use ogee_proto::name::NameError;
use ogee_proto::wire::WireError;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a record of an attachment cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RecordError {
    /// The volume's name is not one, and would not be a file's name either.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The file system refuses.
    #[error("cannot {doing} {path}")]
    File {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// Somebody else could have written it.
    #[error("{path} belongs to user {uid}, mode {mode:o}: nobody but us may write it")]
    Exposed {
        /// The file or its directory.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// Its mode.
        mode: u32,
    },
    /// Another process of this host has the volume attached with it.
    #[error(
        "{path} is locked: another process serves this volume from this host; stop that one, or keep records elsewhere"
    )]
    Busy {
        /// The lock.
        path: PathBuf,
    },
    /// Nothing was kept.
    #[error("there is no record of an earlier attachment in {path}")]
    Absent {
        /// Where it would be.
        path: PathBuf,
    },
    /// Not a record.
    #[error("this is not a record of an attachment (magic {0:#018x})")]
    Magic(u64),
    /// Another format version.
    #[error(
        "the record has format version {found}, this program reads {ours}: use the program that wrote it"
    )]
    Version {
        /// The file's.
        found: u32,
        /// Ours.
        ours: u32,
    },
    /// Damaged.
    #[error("the record's checksum is {found:#010x} and should be {expected:#010x}: it is damaged")]
    Checksum {
        /// As computed.
        expected: u32,
        /// As read.
        found: u32,
    },
    /// Larger than any that we write.
    #[error("the record has {0} bytes: more than any of ours")]
    Length(u64),
    /// A field is cut short or holds what it may not.
    #[error("the record is malformed")]
    Field(#[from] WireError),
    /// Its map breaks the rules.
    #[error("the record's map cannot be right")]
    Map(#[from] MapError),
    /// It was made on another host: that one may still use it.
    #[error(
        "the record was made on host {found}, this is {ours}: an attachment does not move; ask a metadata server for one"
    )]
    OtherHost {
        /// Who made it.
        found: Box<str>,
        /// Who reads it.
        ours: Box<str>,
    },
    /// It is of something else.
    #[error("the record is of volume {found}, not of {wanted}")]
    OtherVolume {
        /// What it is of.
        found: Box<str>,
        /// What was asked.
        wanted: Box<str>,
    },
    /// Readers and writers attach in different ways.
    #[error("the record is of an attachment that {}", if *.is_read_only { "only reads" } else { "writes" })]
    OtherUse {
        /// How it was attached.
        is_read_only: bool,
    },
    /// There is no further incarnation.
    #[error("the record was used {0} times: no further one is left")]
    Used(u32),
}
