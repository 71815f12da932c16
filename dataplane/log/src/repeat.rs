//! What the batch before a batch said: the second place of every record.
//!
//! *Place*: written by the flusher after the records of a batch, read by recovery when the batch
//! before is lost. *Owner*: plain values. *Invariants*: `decode(encode(repeat)) == repeat`; a repeat
//! says all that its record said, but the body of an entry. *On failure*: `decode` returns `None`
//! and recovery counts the batch as unreadable.

use crate::entry::Vote;
use crate::format::{FLAG_LAST, FLAG_VOTE_COMMITTED, REPEAT_LEN, RecordKind, RepeatRecord};
use crate::record::{Named, Record};
use ogee_proto::id::{CopysetId, LogId};
use zerocopy::{FromBytes, FromZeros};

/// What one record of the batch before said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Repeat {
    pub group: CopysetId,
    pub said: Said,
}

/// What a record said, without the body of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    Entry(Named),
    /// Moved, or a hole.
    Moved(Named),
    Vote(Vote),
    Committed(LogId),
    Truncate {
        last: Option<LogId>,
        crc: u32,
    },
    Purge(LogId),
    RemoveGroup,
}

impl Repeat {
    /// What `record` of `group` says.
    pub(crate) const fn of(group: CopysetId, record: &Record) -> Self {
        let said = match record {
            Record::Entry(entry) => Said::Entry(entry.named()),
            Record::Moved(entry) => Said::Moved(entry.named()),
            Record::Hole(named) => Said::Moved(*named),
            Record::Vote(vote) => Said::Vote(*vote),
            Record::Committed(id) => Said::Committed(*id),
            Record::Truncate { last, crc } => Said::Truncate {
                last: *last,
                crc: *crc,
            },
            Record::Purge(id) => Said::Purge(*id),
            Record::RemoveGroup => Said::RemoveGroup,
        };
        Self { group, said }
    }

    /// Its bytes.
    pub(crate) fn encode(&self) -> [u8; REPEAT_LEN] {
        let mut raw = RepeatRecord::new_zeroed();
        raw.group = self.group.get().into();
        let (kind, id) = match self.said {
            Said::Entry(named) => (RecordKind::Entry, raw.name(&named)),
            Said::Moved(named) => (RecordKind::Moved, raw.name(&named)),
            Said::Vote(vote) => {
                raw.term = vote.term.into();
                raw.index = vote.voted_for.into();
                raw.flags = if vote.committed {
                    low_flag(FLAG_VOTE_COMMITTED)
                } else {
                    0
                };
                (RecordKind::Vote, None)
            }
            Said::Committed(id) => (RecordKind::Committed, Some(id)),
            Said::Truncate { last, crc } => {
                raw.chain = crc.into();
                (RecordKind::Truncate, last)
            }
            Said::Purge(id) => (RecordKind::Purge, Some(id)),
            Said::RemoveGroup => (RecordKind::RemoveGroup, None),
        };
        raw.kind = kind.raw();
        if let Some(id) = id {
            raw.flags |= low_flag(FLAG_LAST);
            raw.term = id.term.get().into();
            raw.index = id.index.get().into();
        }
        zerocopy::transmute!(raw)
    }

    /// Reads the repeat at the start of `area`.
    pub(crate) fn decode(area: &[u8]) -> Option<Self> {
        let (raw, _) = RepeatRecord::read_from_prefix(area).ok()?;
        let has = |flag: u32| u32::from(raw.flags) & flag != 0;
        let id = has(FLAG_LAST).then(|| LogId::new(raw.term.get(), raw.index.get()));
        if id.is_some_and(|id| id.index.get() == u64::MAX) {
            return None;
        }
        let named = || {
            Some(Named {
                id: id?,
                identity: raw.identity.get(),
                chain: raw.chain.get(),
            })
        };
        let said = match RecordKind::from_raw(raw.kind)? {
            RecordKind::Entry => Said::Entry(named()?),
            RecordKind::Moved | RecordKind::Hole => Said::Moved(named()?),
            RecordKind::Vote => Said::Vote(Vote {
                term: raw.term.get(),
                voted_for: raw.index.get(),
                committed: has(FLAG_VOTE_COMMITTED),
            }),
            RecordKind::Committed => Said::Committed(id?),
            RecordKind::Truncate => Said::Truncate {
                last: id,
                crc: raw.chain.get(),
            },
            RecordKind::Purge => Said::Purge(id?),
            RecordKind::RemoveGroup => Said::RemoveGroup,
        };
        Some(Self {
            group: CopysetId::new(raw.group.get()),
            said,
        })
    }
}

impl RepeatRecord {
    fn name(&mut self, named: &Named) -> Option<LogId> {
        self.identity = named.identity.into();
        self.chain = named.chain.into();
        Some(named.id)
    }
}

fn low_flag(bit: u32) -> u8 {
    u8::try_from(bit).expect("invariant: record flags are the low eight bits")
}

#[cfg(test)]
mod tests {
    use super::{Repeat, Said};
    use crate::entry::Vote;
    use crate::record::Named;
    use ogee_proto::id::{CopysetId, LogId};

    #[test]
    fn everything_said_survives_encoding() {
        let named = Named {
            id: LogId::new(3, 4),
            identity: 5,
            chain: 6,
        };
        let vote = |committed| Vote {
            term: 7,
            voted_for: u64::MAX,
            committed,
        };
        let id = LogId::new(8, 0);
        let crc = 11;
        let all = [
            Said::Entry(named),
            Said::Moved(named),
            Said::Vote(vote(false)),
            Said::Vote(vote(true)),
            Said::Committed(id),
            Said::Truncate { last: None, crc: 0 },
            Said::Truncate {
                last: Some(id),
                crc,
            },
            Said::Purge(id),
            Said::RemoveGroup,
        ];
        for said in all {
            let group = CopysetId::new(12);
            let repeat = Repeat { group, said };
            assert_eq!(Repeat::decode(&repeat.encode()), Some(repeat));
            assert_eq!(Repeat::decode(&repeat.encode()[..31]), None);
        }
    }
}
