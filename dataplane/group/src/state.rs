//! The replicated state of one group, and how a committed entry changes it.
//!
//! *Place*: between openraft's apply and everything that reads: the read path, the write-back task,
//! snapshots.
//! *Owner*: one shard; apply is the only writer of sessions and overlay contents, and every change
//! runs to completion without an await.
//! *Invariants*: apply is admission (DESIGN 4.4): memory only, in log order, deterministic.
//! *On failure*: a refused command changes nothing and its refusal is the answer.

use crate::command::{Applied, Command, CommandHead, CommandKind};
use crate::compare::PieceAsk;
use crate::overlay::Overlay;
use crate::session::{Admission, Sessions};
use crate::types::{RaftEntry, RaftLogId, RaftStoredMembership};
use ogee_proto::id::{ChunkKey, VolumeId};
use ogee_proto::wire::Status;
use openraft::EntryPayload;

/// Everything apply changes.
#[derive(Default)]
pub(crate) struct State {
    /// The last entry applied.
    pub(crate) applied: Option<RaftLogId>,
    /// The last membership applied.
    pub(crate) membership: RaftStoredMembership,
    /// Who may write, and what took effect already.
    pub(crate) sessions: Sessions,
    /// Blocks that live in the log.
    pub(crate) overlay: Overlay,
    /// Volumes removed since the last checkpoint.
    pub(crate) removed: Vec<VolumeId>,
}

/// What an applied entry asks of the world outside the state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    /// Nothing.
    None,
    /// Blocks of data are in the log now: so many from the first on.
    Written(ChunkKey, usize, usize),
    /// Digest the contents as they are now.
    Digest(u64),
    /// Sum up one piece of the contents as they are now.
    Compare(PieceAsk),
}

impl State {
    /// Applies the next committed entry.
    pub(crate) fn apply(&mut self, entry: RaftEntry) -> (Applied, Effect) {
        let index = entry.log_id.index;
        assert!(
            self.applied
                .as_ref()
                .is_none_or(|applied| applied.index + 1 == index),
            "entries apply in log order without a gap"
        );
        self.applied = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => (Applied { status: Status::Ok }, Effect::None),
            EntryPayload::Membership(membership) => {
                self.membership = RaftStoredMembership::new(Some(entry.log_id), membership);
                (Applied { status: Status::Ok }, Effect::None)
            }
            EntryPayload::Normal(command) => {
                let term = entry.log_id.leader_id.term;
                self.apply_command(&command, (term, index))
            }
        }
    }

    fn apply_command(&mut self, command: &Command, (term, index): (u64, u64)) -> (Applied, Effect) {
        let head = &command.head;
        let status = match head.kind {
            CommandKind::Write | CommandKind::Discard | CommandKind::WriteZeroes => {
                return self.apply_blocks(head, command.payload.len(), index);
            }
            CommandKind::Seal => self.sessions.seal(head),
            CommandKind::Digest => {
                let effect = match head.is_of_piece() {
                    true => Effect::Compare(PieceAsk::of(head)),
                    false => Effect::Digest(head.sequence.get()),
                };
                return (Applied { status: Status::Ok }, effect);
            }
            CommandKind::Rewrite => {
                return self.apply_rewrite(head, command.payload.len(), (term, index));
            }
            CommandKind::RemoveVolume => {
                self.sessions.remove(head.key.volume, index);
                self.overlay.remove_volume(head.key.volume);
                self.removed.push(head.key.volume);
                Status::Ok
            }
        };
        (Applied { status }, Effect::None)
    }

    /// What the leader of a term found that most replicas have, while it let nobody write there. Under another
    /// leader somebody may have. A retry takes effect once more, to the same end.
    fn apply_rewrite(
        &mut self,
        head: &CommandHead,
        payload_len: usize,
        (term, index): (u64, u64),
    ) -> (Applied, Effect) {
        let refused = |status| (Applied { status }, Effect::None);
        if !head.is_in_range() || payload_len != head.length as usize {
            return refused(Status::BadRequest);
        }
        if head.epoch.get() != term || self.sessions.is_removed(head.key.volume) {
            return refused(Status::Fenced);
        }
        let (first, count) = (head.first_block(), head.block_count());
        self.overlay.insert(head.key, first, count, index, false);
        let applied = Applied { status: Status::Ok };
        (applied, Effect::Written(head.key, first, count))
    }

    fn apply_blocks(
        &mut self,
        head: &CommandHead,
        payload_len: usize,
        index: u64,
    ) -> (Applied, Effect) {
        let zero = head.kind != CommandKind::Write;
        let payload_ok = if zero {
            payload_len == 0
        } else {
            payload_len == head.length as usize
        };
        let refused = |status| (Applied { status }, Effect::None);
        if !head.is_in_range() || !payload_ok {
            return refused(Status::BadRequest);
        }
        match self.sessions.admit(head) {
            Admission::Refused(status) => refused(status),
            Admission::Duplicate => (Applied { status: Status::Ok }, Effect::None),
            Admission::Apply => {
                let (first, count) = (head.first_block(), head.block_count());
                self.overlay.insert(head.key, first, count, index, zero);
                let effect = match zero {
                    true => Effect::None,
                    false => Effect::Written(head.key, first, count),
                };
                (Applied { status: Status::Ok }, effect)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::PayloadRef;
    use crate::types::to_raft;
    use ogee_proto::id::{ChunkIndex, ClientId, Epoch, Incarnation, LogId, Sequence};
    use ogee_proto::unit::BlockIndex;

    fn entry(index: u64, kind: CommandKind, sequence: u64, length: u32) -> RaftEntry {
        let head = CommandHead {
            kind,
            key: ChunkKey {
                volume: VolumeId::new(1),
                chunk: ChunkIndex::new(0),
            },
            offset: 4096,
            length,
            client: ClientId::new(1),
            epoch: Epoch::new(1),
            incarnation: Incarnation::new(0),
            sequence: Sequence::new(sequence),
            watermark: Sequence::new(0),
        };
        let payload = match kind {
            CommandKind::Write => PayloadRef::Log {
                len: length,
                crc: 0,
            },
            _ => PayloadRef::None,
        };
        let payload = EntryPayload::Normal(Command { head, payload });
        RaftEntry {
            log_id: to_raft(LogId::new(1, index)),
            payload,
        }
    }

    /// Under another leader somebody may have written there since.
    #[test]
    fn a_rewrite_counts_only_in_the_term_in_which_it_was_found_out() {
        let mut state = State::default();
        let rewrite = |index, term| {
            let mut entry = entry(index, CommandKind::Rewrite, 0, 4096);
            if let EntryPayload::Normal(command) = &mut entry.payload {
                command.head.epoch = Epoch::new(term);
                command.payload = PayloadRef::Log { len: 4096, crc: 0 };
            }
            entry
        };
        let key = ChunkKey {
            volume: VolumeId::new(1),
            chunk: ChunkIndex::new(0),
        };
        let block = BlockIndex::new(1).unwrap();
        let of = |status, effect| (Applied { status }, effect);
        // The entries are of term 1.
        let refused = of(Status::Fenced, Effect::None);
        assert_eq!(state.apply(rewrite(1, 2)), refused);
        assert_eq!(state.overlay.get(key, block), None);
        let written = of(Status::Ok, Effect::Written(key, 1, 1));
        assert_eq!(state.apply(rewrite(2, 1)), written);
        assert_eq!(state.overlay.get(key, block).unwrap().index, 2);
        let mut short = rewrite(3, 1);
        if let EntryPayload::Normal(command) = &mut short.payload {
            command.payload = PayloadRef::None;
        }
        assert_eq!(state.apply(short), of(Status::BadRequest, Effect::None));
        state.apply(entry(4, CommandKind::RemoveVolume, 0, 0));
        assert_eq!(state.apply(rewrite(5, 1)), refused);
        assert_eq!(state.overlay.len(), 0);
    }

    #[test]
    fn a_retry_that_was_logged_twice_takes_effect_once() {
        let mut state = State::default();
        let ok = (Applied { status: Status::Ok }, Effect::None);
        assert_eq!(state.apply(entry(1, CommandKind::Seal, 0, 4096)), ok);
        let key = ChunkKey {
            volume: VolumeId::new(1),
            chunk: ChunkIndex::new(0),
        };
        let written = (ok.0, Effect::Written(key, 1, 1));
        assert_eq!(state.apply(entry(2, CommandKind::Write, 1, 4096)), written);
        assert_eq!(state.apply(entry(3, CommandKind::Write, 2, 4096)), written);
        assert_eq!(state.apply(entry(4, CommandKind::Write, 1, 4096)), ok);
        let slot = state.overlay.get(key, BlockIndex::new(1).unwrap()).unwrap();
        assert_eq!(
            slot.index, 3,
            "the duplicate must not overwrite the newer write"
        );
    }

    #[test]
    fn unsealed_and_malformed_commands_change_nothing() {
        let mut state = State::default();
        let refused = |status| (Applied { status }, Effect::None);
        let write = |index| entry(index, CommandKind::Write, 1, 4096);
        assert_eq!(state.apply(write(1)), refused(Status::NotSealed));
        assert_eq!(
            state.apply(entry(2, CommandKind::Seal, 0, 4096)),
            refused(Status::Ok)
        );
        let ragged = entry(3, CommandKind::Write, 1, 4095);
        assert_eq!(state.apply(ragged), refused(Status::BadRequest));
        assert_eq!(state.overlay.len(), 0);
        assert_eq!(state.apply(write(4)).0.status, Status::Ok);
    }
}
