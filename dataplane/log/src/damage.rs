//! What of a group's log is lost.
//!
//! *Place*: told by [`GroupLog::damage`](crate::GroupLog::damage). *Owner*: plain values.
//! *Invariants*: an entry whose identity is not known follows, going down, one that is lost too:
//! putting that one back names it. *On failure*: not applicable.

use ogee_proto::id::LogIndex;

/// What of a group's log is lost. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Damage {
    /// Entries to put back, in order.
    pub entries: Vec<LostEntry>,
    /// A newer vote may have been lost: this replica never votes again.
    pub vote_lost: bool,
    /// What came after the last entry may have been lost.
    pub end_lost: bool,
    /// Whether the group takes nothing new: it was opened like this. Otherwise only payloads are
    /// lost, and it goes on.
    pub is_blocking: bool,
}

/// An entry that is lost, or whose payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostEntry {
    /// Its index.
    pub index: LogIndex,
    /// Its identity, if the medium names it.
    pub identity: Option<u32>,
}

impl Damage {
    /// Whether entries of other replicas can make the log whole.
    #[must_use]
    pub const fn is_repairable(&self) -> bool {
        !self.vote_lost && !self.end_lost
    }
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut separator = "";
        if let (Some(first), Some(last)) = (self.entries.first(), self.entries.last()) {
            let (count, first, last) = (self.entries.len(), first.index, last.index);
            write!(f, "{count} entries of {first}..={last}")?;
            separator = ", ";
        }
        if self.vote_lost {
            write!(f, "{separator}the vote")?;
            separator = ", ";
        }
        if self.end_lost {
            write!(f, "{separator}the end of the log")?;
        }
        Ok(())
    }
}
