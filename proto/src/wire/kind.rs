//! What a frame asks or answers.

use super::WireError;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $value:literal,)*) => {
        /// What a frame asks or answers. A reply's kind is always [`FrameKind::Reply`].
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u8)]
        pub enum FrameKind {
            $($(#[$doc])* $name = $value,)*
        }

        impl FrameKind {
            /// Every kind, for tests and metrics.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Decodes a kind.
            ///
            /// # Errors
            /// [`WireError::Kind`] for a value that this version does not know.
            pub const fn decode(raw: u8) -> Result<Self, WireError> {
                match raw {
                    $($value => Ok(Self::$name),)*
                    _ => Err(WireError::Kind(raw)),
                }
            }

            /// The value on the wire.
            #[must_use]
            pub const fn encode(self) -> u8 {
                self as u8
            }
        }
    };
}

kinds! {
    /// First frame of each side of a connection: version, role, credits.
    Hello = 1,
    /// Are you there.
    Ping = 2,
    /// I am.
    Pong = 3,
    /// Answers the request with the same request id.
    Reply = 4,

    /// Read blocks of a chunk.
    Read = 16,
    /// Write blocks of a chunk.
    Write = 17,
    /// Give blocks back: they read as zeros afterwards.
    Discard = 18,
    /// Blocks read as zeros afterwards.
    WriteZeroes = 19,
    /// Commits an attachment's (epoch, incarnation) in one copyset: older ones are refused.
    Seal = 20,
    /// Which blocks of a chunk are allocated.
    BlockStatus = 21,

    /// Raft: one request of an append stream (`stream` names the stream).
    AppendEntries = 64,
    /// Raft: ends an append stream.
    AppendClose = 65,
    /// Raft: vote or pre-vote.
    Vote = 66,
    /// Raft: one piece of a snapshot.
    Snapshot = 67,
    /// Raft: transfer of leadership.
    TransferLeader = 68,
    /// Raft: quiet groups whose leader lives, many in one frame.
    Beat = 69,
    /// Entries of a replica's durable log, for one whose own are lost.
    LogEntries = 72,
    /// Blocks of a replica's contents, for one whose own are damaged.
    Blocks = 73,

    /// Digest of a replica's contents at one applied index.
    Digest = 96,
    /// What an operator wants of the background work on a store.
    Scrub = 97,
}
