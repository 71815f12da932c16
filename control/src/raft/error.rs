//! What goes wrong below the handlers.

use crate::state::Refusal;

/// The metadata file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Another process has it open.
    #[error("another process has it open")]
    Locked,
    /// It was written by a version that we do not know.
    #[error("its format is {found:?}; this version reads {ours:?}")]
    UnknownFormat {
        /// As found.
        found: String,
        /// As written by us.
        ours: String,
    },
    /// It belongs to another member of the group.
    #[error("it belongs to member {found}, and this is member {ours}")]
    OtherMember {
        /// As found.
        found: u64,
        /// As configured.
        ours: u64,
    },
    /// The database refused.
    #[error("the database refused: {0}")]
    Database(Box<redb::Error>),
    /// A record cannot be read back.
    #[error("its {record} cannot be read: {error}")]
    Record {
        /// Which record.
        record: &'static str,
        /// What the parser said.
        error: serde_json::Error,
    },
    /// A membership names a voter that it does not describe.
    #[error("a stored membership is inconsistent")]
    Membership,
    /// A snapshot's metadata cannot be relied on.
    #[error("a snapshot is inconsistent: {what}")]
    State {
        /// What is wrong with it.
        what: &'static str,
    },
}

impl LedgerError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Locked => "OGEE-2103",
            Self::UnknownFormat { .. } => "OGEE-2104",
            Self::OtherMember { .. } => "OGEE-2105",
            Self::Database(_) | Self::Record { .. } | Self::Membership | Self::State { .. } => {
                "OGEE-2109"
            }
        }
    }

    /// What to try.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Locked => "stop the other metadata server, or use another data directory".into(),
            Self::UnknownFormat { .. } => {
                "start the release that wrote it, or a newer one: the other metadata servers' (ogee mds ls)".into()
            }
            Self::OtherMember { found, .. } => format!("start it as member {found}"),
            Self::Database(_) | Self::Record { .. } | Self::Membership | Self::State { .. } => {
                "check the disk; with a majority of others up: ogee mds rm, an empty data directory, ogee mds add".into()
            }
        }
    }
}

impl<E: Into<redb::Error>> From<E> for LedgerError {
    fn from(error: E) -> Self {
        Self::Database(Box::new(error.into()))
    }
}

impl From<LedgerError> for std::io::Error {
    fn from(error: LedgerError) -> Self {
        Self::other(error)
    }
}

/// The Raft thread cannot run, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The thread or its runtime cannot be started.
    #[error("the Raft thread cannot be started: {0}")]
    Thread(std::io::Error),
    /// Raft refuses the configuration or the stored state, or met a disk error.
    #[error("{reason}")]
    Raft {
        /// In openraft's words.
        reason: String,
    },
    /// The group uses what this release does not understand.
    #[error(
        "metadata server {from} sent what takes version {needed} of the metadata's commands, and this release understands {ours}"
    )]
    Outdated {
        /// Who sent it.
        from: u64,
        /// What it takes.
        needed: u32,
        /// What we understand.
        ours: u32,
    },
    /// The thread panicked.
    #[error("the Raft thread panicked")]
    Panicked,
}

/// The metadata cannot be asked just now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unavailable {
    /// Another metadata server leads.
    #[error("metadata server {id} leads")]
    NotLeader {
        /// Who leads.
        id: u64,
        /// Where.
        addr: String,
    },
    /// Nobody leads.
    #[error("no metadata server leads")]
    NoLeader,
    /// Too many requests wait.
    #[error("too many requests wait")]
    Overloaded,
    /// No answer in time: a quorum is missing or the disk hangs. A write may still happen.
    #[error("no quorum answered in time")]
    TimedOut,
    /// A write may or may not have happened: leadership changed under it.
    #[error("leadership changed meanwhile")]
    Unknown,
    /// This metadata server is going down.
    #[error("this metadata server is stopping")]
    Stopped,
}

/// Why the group of metadata servers was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MemberError {
    /// It cannot be asked just now.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// No such member.
    #[error("no metadata server {id} belongs to the group")]
    Unknown {
        /// As asked for.
        id: u64,
    },
    /// Leadership can only go to one that votes.
    #[error("metadata server {id} does not vote")]
    NoVoter {
        /// As asked for.
        id: u64,
    },
    /// The last voter cannot go.
    #[error("metadata server {id} is the only one that votes")]
    Last {
        /// As asked for.
        id: u64,
    },
    /// Fewer than a majority would answer, or do.
    #[error("{answering} of the voters answer, and {needed} are needed")]
    NoQuorum {
        /// Voters that answer.
        answering: usize,
        /// A majority.
        needed: usize,
    },
    /// There are enough.
    #[error("the group has as many voters as it may have")]
    TooMany,
    /// A change is under way.
    #[error("another change of the members is under way")]
    InProgress,
    /// It still lacks too much to vote.
    #[error("metadata server {id} lacks {lacks} log entries")]
    Behind {
        /// Which.
        id: u64,
        /// Entries.
        lacks: u64,
    },
    /// The leader's member list says otherwise.
    #[error("the leader's own member list has metadata server {id} at {addr}")]
    Configured {
        /// Which.
        id: u64,
        /// As configured.
        addr: String,
    },
    /// The group knows it elsewhere.
    #[error("metadata server {id} belongs to the group at {addr}")]
    OtherAddress {
        /// Which.
        id: u64,
        /// As known.
        addr: String,
    },
    /// Two members at one address.
    #[error("{addr} is the address of metadata server {other}")]
    AddressInUse {
        /// As asked for.
        addr: String,
        /// Whose it is.
        other: u64,
    },
    /// Nobody could take over.
    #[error("no metadata server that has everything and answers could take over")]
    NoTarget {
        /// As asked for.
        to: Option<u64>,
    },
    /// Raft refuses the change.
    #[error("{reason}")]
    Refused {
        /// In openraft's words.
        reason: String,
    },
}

/// Why a command has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WriteError {
    /// The state machine refused; nothing changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The command did not get through.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// Not all members would understand it; it was not proposed.
    #[error(transparent)]
    Older(#[from] Older),
}

/// A command that takes a newer release than some member's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it takes version {needed} of the metadata's commands, and the group is at {group}: {}",
    list(older)
)]
pub(crate) struct Older {
    /// What it takes.
    pub(crate) needed: u32,
    /// What all members are known to understand.
    pub(crate) group: u32,
    /// Who understands less: number, address, and what it says, if it answers.
    pub(crate) older: Vec<(u64, String, Option<u32>)>,
}

fn list(older: &[(u64, String, Option<u32>)]) -> String {
    let one = |(id, addr, version): &(u64, String, Option<u32>)| match version {
        Some(version) => format!("metadata server {id} at {addr} understands {version}"),
        None => format!("metadata server {id} at {addr} does not answer"),
    };
    let all: Vec<String> = older.iter().map(one).collect();
    all.join(", ")
}

/// Why a Raft message of another metadata server was not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    /// Not one of ours.
    #[error("the message cannot be read: {0}")]
    Undecodable(LedgerError),
    /// The sender's metadata is another one's: one of both was restored.
    #[error("the message is of group {theirs:#x}, and this one belongs to {ours:#x}")]
    OtherGroup {
        /// Of the sender.
        theirs: u64,
        /// Of this member.
        ours: u64,
    },
    /// It takes a newer release: this member ends.
    #[error(
        "the message takes version {needed} of the metadata's commands, and this release understands {ours}"
    )]
    Outdated {
        /// What it takes.
        needed: u32,
        /// What we understand.
        ours: u32,
    },
    /// Raft stopped, or is stopping.
    #[error("this metadata server is stopping")]
    Stopped,
    /// Too many messages wait.
    #[error("too many messages wait")]
    Overloaded,
}
