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
