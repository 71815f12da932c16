//! Typed identifiers. One word, one meaning: see the glossary in docs/concepts.md.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($repr:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[derive(serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name($repr);

        impl $name {
            /// Wraps a raw value as it came from the wire, the disk or the MDS.
            #[must_use]
            pub const fn new(raw: $repr) -> Self {
                Self(raw)
            }

            /// The raw value, for encoding.
            #[must_use]
            pub const fn get(self) -> $repr {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id!(
    /// A virtual disk.
    VolumeId(u64), "v"
);
id!(
    /// Position of a 16 MiB chunk in a volume.
    ChunkIndex(u32), "k"
);
id!(
    /// A Raft group that carries many chunks of many volumes.
    CopysetId(u32), "cs"
);
id!(
    /// One placement of one copyset. Issued once by the MDS, never reused; openraft's `NodeId`.
    ReplicaId(u64), "r"
);
id!(
    /// A data-plane process.
    ChunkserverId(u32), "n"
);
id!(
    /// One executor (core) of a chunkserver.
    ShardId(u16), "s"
);
id!(
    /// A set of servers with one replication and media policy.
    PoolId(u32), "p"
);
id!(
    /// A piece of work on one copyset that the metadata servers see through by themselves.
    JobId(u64), "j"
);
id!(
    /// One attachment's user: issued by the MDS at attach.
    ClientId(u64), "c"
);

impl ClientId {
    /// Issued to nobody. Readers seal in this name: then nobody writes under their epoch.
    pub const NOBODY: Self = Self::new(0);
}
id!(
    /// Fencing number of a volume's attachment: grows by one with every attach.
    Epoch(u64), "e"
);
id!(
    /// Restart count of one attachment's frontend.
    Incarnation(u32), "i"
);
id!(
    /// Number of a mutating request within one (client, epoch, incarnation). Starts at 1.
    Sequence(u64), "q"
);
id!(
    /// Correlates a request with its reply on one connection, and log lines across processes.
    RequestId(u64), "req"
);
id!(
    /// Raft term.
    Term(u64), "t"
);
id!(
    /// Raft log index.
    LogIndex(u64), "l"
);

/// Identity of a store: written in its superblock at format time, never reused.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct StoreId(uuid::Uuid);

impl StoreId {
    /// Wraps a UUID.
    #[must_use]
    pub const fn new(raw: uuid::Uuid) -> Self {
        Self(raw)
    }

    /// The sixteen bytes as stored on disk.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        *self.0.as_bytes()
    }

    /// From the sixteen bytes as stored on disk.
    #[must_use]
    pub const fn from_bytes(raw: [u8; 16]) -> Self {
        Self(uuid::Uuid::from_bytes(raw))
    }

    /// The UUID itself.
    #[must_use]
    pub const fn uuid(self) -> uuid::Uuid {
        self.0
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A chunk of a volume: the unit of placement.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ChunkKey {
    /// The volume.
    pub volume: VolumeId,
    /// The chunk within it.
    pub chunk: ChunkIndex,
}

impl fmt::Debug for ChunkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.volume, self.chunk)
    }
}

impl fmt::Display for ChunkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Identity of a log entry: openraft's `LogId` with `leader_id_std` (the term alone names the leader).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogId {
    /// Term of the leader that proposed the entry.
    pub term: Term,
    /// Position in the group's log.
    pub index: LogIndex,
}

impl LogId {
    /// From raw term and index.
    #[must_use]
    pub const fn new(term: u64, index: u64) -> Self {
        Self {
            term: Term::new(term),
            index: LogIndex::new(index),
        }
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.index)
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
