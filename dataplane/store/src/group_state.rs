//! A group's state as of a checkpoint.

use crate::format::GroupHead;
use crate::limit::GROUP_PART_LEN;
use bytes::Bytes;
use ogee_proto::checksum::crc32c;
use ogee_proto::id::{CopysetId, LogId};

/// A group's state as of a checkpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupCheckpoint {
    /// The group.
    pub copyset: CopysetId,
    /// The last log entry that the checkpoint covers.
    pub applied: LogId,
    /// Opaque to the store: sessions, epochs, membership.
    pub state: Bytes,
}

impl GroupCheckpoint {
    /// Pages that the state takes; at least one, which carries `applied`.
    pub fn pages(&self) -> u32 {
        pages_for(self.state.len())
    }

    /// Bytes of page `part`.
    pub fn part(&self, part: u32) -> Bytes {
        let start = (part as usize * GROUP_PART_LEN).min(self.state.len());
        let end = (start + GROUP_PART_LEN).min(self.state.len());
        self.state.slice(start..end)
    }

    /// What the first page says about all of them.
    pub fn head(&self) -> GroupHead {
        GroupHead {
            applied: self.applied,
            state_len: self.state.len(),
            state_crc: crc32c(&self.state),
        }
    }
}

/// Pages that a state of `len` bytes takes.
pub fn pages_for(len: usize) -> u32 {
    u32::try_from(len.div_ceil(GROUP_PART_LEN).max(1)).expect("invariant: state is limited")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_the_state_exactly() {
        for len in [0, 1, GROUP_PART_LEN, GROUP_PART_LEN + 1, 3 * GROUP_PART_LEN] {
            let state: Vec<u8> = (0..len).map(|at| at.to_le_bytes()[0]).collect();
            let group = GroupCheckpoint {
                copyset: CopysetId::new(1),
                applied: LogId::new(1, 2),
                state: Bytes::from(state.clone()),
            };
            let joined: Vec<u8> = (0..group.pages())
                .flat_map(|part| group.part(part))
                .collect();
            assert_eq!(joined, state);
            assert!(group.pages() == 1 || !group.part(group.pages() - 1).is_empty());
        }
    }
}
