//! What a group keeps in the store's checkpoint: everything replicated but the blocks.
//!
//! Layout, little endian:
//!
//! | size | field | meaning |
//! |---|---|---|
//! | 4 | magic | `OGCK` |
//! | 2 | version | [`VERSION`] |
//! | 8 | replica | whose it is |
//! | 1 | fuzzy | 1 if the blocks may be newer than the state, else 0 |
//! | 16 | fuzzy until | term and index; only if fuzzy |
//! | 1 | has state | whether anything was applied |
//! | | membership | see `codec`; only if there is state |
//! | | sessions | see `session`; only if there is state |
//! | | disputed | blocks in which replicas differ and that no rule settles, see `compare::wire`; from version 3 on |
//! | | changes | which blocks have changed since which entry, see `changes::saved`; from version 4 on |
//!
//! Versions 2 and 3 are what a replica saves that has neither, or only the first: a program from before them can go on with that.
//!
//! The store guards the bytes with its own checksums, pairs them with the applied log id, and
//! switches from one to the next atomically: no torn write shows a mixture. The first checkpoint of
//! a replica is made at its creation and holds only its id: a restart knows it without the MDS.
//! The fuzzy mark stands before the parts of variable length, because a replica without any state
//! may have it too; what it means is argued in `snapshot`.

use crate::changes::SavedChanges;
use crate::codec::{get_stored_membership, put_stored_membership};
use crate::compare::{Disputed, get_disputed, put_disputed};
use crate::session::Sessions;
use crate::types::RaftStoredMembership;
use ogee_proto::id::{LogId, ReplicaId};
use ogee_proto::wire::{Reader, WireError, Writer};

const MAGIC: u32 = u32::from_le_bytes(*b"OGCK");
/// Version of the layout.
const VERSION: u16 = 4;
/// Of the layout without changes.
const VERSION_UNCHANGED: u16 = 3;
/// Of the layout without disputed blocks.
const VERSION_UNDISPUTED: u16 = 2;

/// State of a group exactly as of one applied entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointState {
    /// The entry.
    pub(crate) applied: LogId,
    /// The membership as of it.
    pub(crate) membership: RaftStoredMembership,
    /// The sessions as of it.
    pub(crate) sessions: Sessions,
}

/// What a replica has saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Saved {
    /// Whose it is.
    pub(crate) replica: ReplicaId,
    /// The blocks are as of some moments up to this entry, if any.
    pub(crate) fuzzy_until: Option<LogId>,
    /// The state, if anything was applied.
    pub(crate) state: Option<CheckpointState>,
    /// Blocks in which replicas differ, as far as this one knows. Its own word, no replicated state.
    pub(crate) disputed: Disputed,
    /// What has changed, as far back as it was saved. Its own word as well.
    pub(crate) changes: Option<SavedChanges>,
}

impl CheckpointState {
    /// Everything but the applied id, which the store keeps beside it. What is disputed, or has changed, is no part of it.
    pub(crate) fn encode(&self, replica: ReplicaId, fuzzy_until: Option<LogId>) -> Vec<u8> {
        encode(Some(self), (replica, fuzzy_until), &Disputed::new(), None)
    }

    /// What a replica that has applied nothing yet saves.
    pub(crate) fn encode_new(replica: ReplicaId, fuzzy_until: Option<LogId>) -> Vec<u8> {
        encode(None, (replica, fuzzy_until), &Disputed::new(), None)
    }
}

/// What a replica saves.
pub(crate) fn encode(
    state: Option<&CheckpointState>,
    (replica, fuzzy_until): (ReplicaId, Option<LogId>),
    disputed: &Disputed,
    changes: Option<&SavedChanges>,
) -> Vec<u8> {
    let version = match (changes, disputed.is_empty()) {
        (Some(_), _) => VERSION,
        (None, false) => VERSION_UNCHANGED,
        (None, true) => VERSION_UNDISPUTED,
    };
    let mut out = header(version, replica, fuzzy_until, state.is_some());
    if let Some(state) = state {
        put_stored_membership(&mut out, &state.membership);
        state.sessions.encode(&mut out);
    }
    if version >= VERSION_UNCHANGED {
        put_disputed(&mut out, disputed);
    }
    if let Some(changes) = changes {
        changes.encode(&mut out);
    }
    out
}

impl Saved {
    /// Decodes what was encoded.
    ///
    /// # Errors
    /// [`WireError`] naming the field; an unknown version names both versions.
    pub(crate) fn decode(applied: LogId, bytes: &[u8]) -> Result<Self, WireError> {
        let mut from = Reader::new(bytes);
        let magic = from.u32("checkpoint magic")?;
        if magic != MAGIC {
            return Err(WireError::Magic(magic));
        }
        let version = from.u16("checkpoint version")?;
        if !(VERSION_UNDISPUTED..=VERSION).contains(&version) {
            return Err(WireError::Version {
                peer: version,
                ours: VERSION,
            });
        }
        let replica = ReplicaId::new(from.u64("checkpoint replica")?);
        let fuzzy_until = match from.u8("checkpoint fuzzy")? {
            0 => None,
            _ => Some(LogId::new(
                from.u64("fuzzy until term")?,
                from.u64("fuzzy until index")?,
            )),
        };
        let state = match from.u8("checkpoint has state")? {
            0 => None,
            _ => Some(CheckpointState {
                applied,
                membership: get_stored_membership(&mut from)?,
                sessions: Sessions::decode(&mut from)?,
            }),
        };
        let disputed = match version {
            VERSION_UNDISPUTED => Disputed::new(),
            _ => get_disputed(&mut from)?,
        };
        let changes = match version {
            VERSION => Some(SavedChanges::decode(&mut from)?),
            _ => None,
        };
        from.finish("checkpoint state")?;
        Ok(Self {
            replica,
            fuzzy_until,
            state,
            disputed,
            changes,
        })
    }
}

fn header(
    version: u16,
    replica: ReplicaId,
    fuzzy_until: Option<LogId>,
    has_state: bool,
) -> Vec<u8> {
    let mut out = Vec::new();
    Writer::new(&mut out)
        .u32(MAGIC)
        .u16(version)
        .u64(replica.get())
        .u8(u8::from(fuzzy_until.is_some()));
    if let Some(until) = fuzzy_until {
        Writer::new(&mut out)
            .u64(until.term.get())
            .u64(until.index.get());
    }
    Writer::new(&mut out).u8(u8::from(has_state));
    out
}

#[cfg(test)]
mod tests {
    use super::{CheckpointState, Saved, VERSION, VERSION_UNDISPUTED, encode};
    use crate::changes::Changes;
    use crate::codec_tests::stored_membership;
    use crate::command::{CommandHead, CommandKind};
    use crate::compare::{Disputed, some_disputed};
    use crate::session::{Admission, Sessions};
    use ogee_proto::id::{
        ChunkIndex, ChunkKey, ClientId, Epoch, Incarnation, LogId, ReplicaId, Sequence, VolumeId,
    };
    use ogee_proto::wire::{Status, WireError};
    use proptest::collection::{btree_map, btree_set, vec};
    use proptest::option;
    use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};
    use std::collections::{BTreeMap, BTreeSet};

    const VERSION_AT: usize = 4;

    /// Sessions as apply makes them: sealed, with some requests applied.
    fn sessions() -> impl Strategy<Value = Sessions> {
        btree_map(any::<u64>(), btree_set(1..500u64, 0..20), 0..5)
            .prop_map(|volumes| applied(&volumes))
    }

    fn applied(volumes: &BTreeMap<u64, BTreeSet<u64>>) -> Sessions {
        let mut sessions = Sessions::default();
        for (volume, sequences) in volumes {
            let head = |sequence| CommandHead {
                kind: CommandKind::Write,
                key: ChunkKey {
                    volume: VolumeId::new(*volume),
                    chunk: ChunkIndex::new(0),
                },
                offset: 0,
                length: 4096,
                client: ClientId::new(volume ^ 5),
                epoch: Epoch::new(3),
                incarnation: Incarnation::new(1),
                sequence: Sequence::new(sequence),
                watermark: Sequence::new(0),
            };
            assert_eq!(sessions.seal(&head(0)), Status::Ok);
            for sequence in sequences {
                assert_eq!(sessions.admit(&head(*sequence)), Admission::Apply);
            }
        }
        sessions
    }

    proptest! {
        #[test]
        fn a_state_survives_its_encoding(
            id in any::<(u64, u64)>(),
            fuzzy in option::of(any::<(u64, u64)>()),
            replica in any::<u64>(),
            membership in stored_membership(),
            sessions in sessions(),
            is_disputed in any::<bool>(),
            has_changes in any::<bool>(),
        ) {
            let applied = LogId::new(id.0, id.1);
            let state = CheckpointState { applied, membership, sessions };
            let replica = ReplicaId::new(replica);
            let fuzzy_until = fuzzy.map(|(term, index)| LogId::new(term, index));
            let disputed = if is_disputed { some_disputed() } else { Disputed::new() };
            let changes = has_changes.then(|| Changes::begin(id.1).save());
            let bytes = encode(Some(&state), (replica, fuzzy_until), &disputed, changes.as_ref());
            let back = Saved::decode(applied, &bytes);
            let saved = Saved { replica, fuzzy_until, state: Some(state), disputed, changes };
            prop_assert_eq!(back, Ok(saved));
            for len in 0..bytes.len() {
                prop_assert!(Saved::decode(applied, &bytes[..len]).is_err());
            }
            let longer = [bytes.as_slice(), &[0]].concat();
            prop_assert!(Saved::decode(applied, &longer).is_err());
        }

        #[test]
        fn any_bytes_behind_the_header(bytes in vec(any::<u8>(), 0..300)) {
            let mut all = CheckpointState::encode_new(ReplicaId::new(1), None);
            all.pop();
            all.extend(bytes);
            let _ = Saved::decode(LogId::default(), &all);
        }
    }

    #[test]
    fn a_new_replica_has_its_id_and_no_state() {
        for fuzzy_until in [None, Some(LogId::new(4, 0))] {
            let replica = ReplicaId::new(9);
            let bytes = CheckpointState::encode_new(replica, fuzzy_until);
            let saved = Saved {
                replica,
                fuzzy_until,
                state: None,
                disputed: Disputed::new(),
                changes: None,
            };
            assert_eq!(Saved::decode(LogId::default(), &bytes), Ok(saved));
        }
    }

    /// The bytes of version 2, held still.
    #[test]
    fn the_layout_stands_still() {
        let fuzzy = CheckpointState::encode_new(ReplicaId::new(9), Some(LogId::new(4, 77)));
        let golden = "4f47434b 0200 0900000000000000 01 0400000000000000 4d00000000000000 00";
        let hex: String = fuzzy.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden.replace(' ', ""));
    }

    /// Those of version 3, which is for those who have something to dispute, and no changes saved; and of version 4.
    #[test]
    fn what_is_disputed_stands_at_the_end() {
        let (id, disputed) = (ReplicaId::new(9), some_disputed());
        let bytes = encode(None, (id, None), &disputed, None);
        let golden =
            "4f47434b 0300 0900000000000000 00 00 0100 1100000000000000 22000000 03 0200 0003 ff03";
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden.replace(' ', ""));
        let back = Saved::decode(LogId::default(), &bytes).unwrap();
        assert_eq!((back.replica, &back.disputed), (id, &disputed));
        assert!(Saved::decode(LogId::default(), &bytes[..bytes.len() - 1]).is_err());
        let changes = Changes::begin(7).save();
        let longer = encode(None, (id, None), &back.disputed, Some(&changes));
        assert_eq!(longer[VERSION_AT..][..2], [4, 0]);
        assert_eq!(longer[6..bytes.len()], bytes[6..]);
        assert_eq!(longer[bytes.len()..], [7, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn another_version_is_refused_and_both_are_named() {
        let mut bytes = CheckpointState::encode_new(ReplicaId::new(9), None);
        for peer in [VERSION_UNDISPUTED - 1, VERSION + 1] {
            bytes[VERSION_AT..VERSION_AT + 2].copy_from_slice(&peer.to_le_bytes());
            let refused = Saved::decode(LogId::default(), &bytes).unwrap_err();
            let ours = VERSION;
            assert_eq!(refused, WireError::Version { peer, ours });
            let text = refused.to_string();
            assert!(
                text.contains(&peer.to_string()) && text.contains(&ours.to_string()),
                "{text}"
            );
        }
    }

    #[test]
    fn foreign_bytes_are_refused_by_their_magic() {
        let refused = Saved::decode(LogId::default(), b"JUNKJUNKJUNKJUNK");
        assert_eq!(refused, Err(WireError::Magic(u32::from_le_bytes(*b"JUNK"))));
    }
}
