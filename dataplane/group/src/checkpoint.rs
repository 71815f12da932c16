//! What a group keeps in the store's checkpoint: everything replicated but the blocks.
//!
//! Layout, little endian: magic `OGCK`, version 1, replica id `u64`, a byte that says whether
//! anything was applied, then if so membership (see `codec`) and sessions. The store guards the
//! bytes with its own checksums, and pairs them with the applied log id. The first checkpoint of a
//! replica is made at its creation and holds only its id: a restart knows it without the MDS.

use crate::codec::{get_stored_membership, put_stored_membership};
use crate::session::Sessions;
use crate::types::RaftStoredMembership;
use ogee_proto::id::{LogId, ReplicaId};
use ogee_proto::wire::{Reader, WireError, Writer};

const MAGIC: u32 = u32::from_le_bytes(*b"OGCK");
const VERSION: u16 = 1;

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

impl CheckpointState {
    /// Everything but the applied id, which the store keeps beside it.
    pub(crate) fn encode(&self, replica: ReplicaId) -> Vec<u8> {
        let mut out = header(replica, true);
        put_stored_membership(&mut out, &self.membership);
        self.sessions.encode(&mut out);
        out
    }

    /// What a replica that has applied nothing yet saves.
    pub(crate) fn encode_new(replica: ReplicaId) -> Vec<u8> {
        header(replica, false)
    }

    /// Decodes what was encoded: whose it is, and the state if anything was applied.
    ///
    /// # Errors
    /// [`WireError`] naming the field; an unknown version names both versions.
    pub(crate) fn decode(
        applied: LogId,
        bytes: &[u8],
    ) -> Result<(ReplicaId, Option<Self>), WireError> {
        let mut from = Reader::new(bytes);
        let magic = from.u32("checkpoint magic")?;
        if magic != MAGIC {
            return Err(WireError::Magic(magic));
        }
        let version = from.u16("checkpoint version")?;
        if version != VERSION {
            return Err(WireError::Version {
                peer: version,
                ours: VERSION,
            });
        }
        let replica = ReplicaId::new(from.u64("checkpoint replica")?);
        let state = match from.u8("checkpoint has state")? {
            0 => None,
            _ => Some(Self {
                applied,
                membership: get_stored_membership(&mut from)?,
                sessions: Sessions::decode(&mut from)?,
            }),
        };
        from.finish("checkpoint state")?;
        Ok((replica, state))
    }
}

fn header(replica: ReplicaId, has_state: bool) -> Vec<u8> {
    let mut out = Vec::new();
    Writer::new(&mut out)
        .u32(MAGIC)
        .u16(VERSION)
        .u64(replica.get())
        .u8(u8::from(has_state));
    out
}

#[cfg(test)]
mod tests {
    use super::{CheckpointState, VERSION};
    use crate::codec_tests::stored_membership;
    use crate::command::{CommandHead, CommandKind};
    use crate::session::{Admission, Sessions};
    use ogee_proto::id::{
        ChunkIndex, ChunkKey, ClientId, Epoch, Incarnation, LogId, ReplicaId, Sequence, VolumeId,
    };
    use ogee_proto::wire::{Status, WireError};
    use proptest::collection::{btree_map, btree_set, vec};
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
            replica in any::<u64>(),
            membership in stored_membership(),
            sessions in sessions(),
        ) {
            let applied = LogId::new(id.0, id.1);
            let state = CheckpointState { applied, membership, sessions };
            let replica = ReplicaId::new(replica);
            let bytes = state.encode(replica);
            let back = CheckpointState::decode(applied, &bytes);
            prop_assert_eq!(back, Ok((replica, Some(state))));
            for len in 0..bytes.len() {
                prop_assert!(CheckpointState::decode(applied, &bytes[..len]).is_err());
            }
            let longer = [bytes.as_slice(), &[0]].concat();
            prop_assert!(CheckpointState::decode(applied, &longer).is_err());
        }

        #[test]
        fn any_bytes_behind_the_header(bytes in vec(any::<u8>(), 0..300)) {
            let mut all = CheckpointState::encode_new(ReplicaId::new(1));
            all.pop();
            all.extend(bytes);
            let _ = CheckpointState::decode(LogId::default(), &all);
        }
    }

    #[test]
    fn a_new_replica_has_its_id_and_no_state() {
        let bytes = CheckpointState::encode_new(ReplicaId::new(9));
        let back = CheckpointState::decode(LogId::default(), &bytes);
        assert_eq!(back, Ok((ReplicaId::new(9), None)));
    }

    #[test]
    fn another_version_is_refused_and_both_are_named() {
        let mut bytes = CheckpointState::encode_new(ReplicaId::new(9));
        let newer = VERSION + 1;
        bytes[VERSION_AT..VERSION_AT + 2].copy_from_slice(&newer.to_le_bytes());
        let refused = CheckpointState::decode(LogId::default(), &bytes).unwrap_err();
        let (peer, ours) = (newer, VERSION);
        assert_eq!(refused, WireError::Version { peer, ours });
        let text = refused.to_string();
        assert!(
            text.contains(&newer.to_string()) && text.contains(&ours.to_string()),
            "{text}"
        );
    }

    #[test]
    fn foreign_bytes_are_refused_by_their_magic() {
        let refused = CheckpointState::decode(LogId::default(), b"JUNKJUNKJUNKJUNK");
        assert_eq!(refused, Err(WireError::Magic(u32::from_le_bytes(*b"JUNK"))));
    }
}
