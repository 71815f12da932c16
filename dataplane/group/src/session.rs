//! Exactly-once and fencing, per volume of a group (DESIGN "Exactly-once and fencing").
//!
//! *Place*: part of the replicated state; changed by apply only, so every replica agrees.
//! *Owner*: the group's apply task.
//! *Invariants*: a request takes effect at most once; a request of a superseded attachment never
//! takes effect; a request that the user has been told about never takes effect again.
//! *On failure*: none: every outcome is a value.
//!
//! One attachment writes to a volume at a time, so one session is kept per volume. Readers seal as
//! nobody ([`ClientId::NOBODY`]): they share the session, and it admits no write. It names the
//! sealed (epoch, incarnation, client), the acknowledged watermark, and the sequences applied above
//! it. The client keeps `newest - watermark` within [`SESSION_APPLIED_MAX`], which bounds the set.

use crate::command::CommandHead;
use crate::limit::{SESSION_APPLIED_MAX, SESSIONS_REMOVED_MAX};
use ogee_proto::id::{ClientId, Epoch, Incarnation, Sequence, VolumeId};
use ogee_proto::wire::{Reader, Status, WireError, Writer};
use ogee_runtime::seeded_bug;
use std::collections::{BTreeMap, BTreeSet};

/// What apply should do with a mutating command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// First time: take effect, answer Ok.
    Apply,
    /// Took effect before: answer Ok, change nothing.
    Duplicate,
    /// Refused, with the status to answer.
    Refused(Status),
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Session {
    epoch: Epoch,
    incarnation: Incarnation,
    client: ClientId,
    watermark: Sequence,
    applied: BTreeSet<u64>,
}

/// Epoch of a removed volume's session: no attachment is newer.
const REMOVED: Epoch = Epoch::new(u64::MAX);

/// The sessions of every volume that a group carries.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sessions {
    volumes: BTreeMap<VolumeId, Session>,
}

impl Sessions {
    /// Makes (epoch, incarnation, client) the volume's writer unless a newer one is sealed.
    ///
    /// Repeating the current seal keeps the session: its dedupe state is still needed.
    pub fn seal(&mut self, head: &CommandHead) -> Status {
        let session = self.volumes.entry(head.key.volume).or_default();
        let (sealed, asked) = (
            (session.epoch, session.incarnation),
            (head.epoch, head.incarnation),
        );
        if asked < sealed || (asked == sealed && session.client != head.client) {
            return Status::Fenced;
        }
        if asked > sealed || seeded_bug!("seal-clears-session") {
            *session = Session {
                epoch: head.epoch,
                incarnation: head.incarnation,
                client: head.client,
                ..Session::default()
            };
        }
        Status::Ok
    }

    /// Decides a mutating command and records it if it is to take effect.
    pub fn admit(&mut self, head: &CommandHead) -> Admission {
        let Some(session) = self.volumes.get_mut(&head.key.volume) else {
            return Admission::Refused(Status::NotSealed);
        };
        if let Err(status) = session.check_writer(head)
            && !seeded_bug!("epoch-checked-on-leader-only")
        {
            return Admission::Refused(status);
        }
        session.admit(head)
    }

    /// Whether a command of this attachment could be admitted: asked before it is proposed, to
    /// spare the log; the decision that counts is [`Sessions::admit`].
    ///
    /// # Errors
    /// The status to answer.
    pub fn precheck(&self, head: &CommandHead) -> Result<(), Status> {
        self.volumes
            .get(&head.key.volume)
            .ok_or(Status::NotSealed)?
            .check_writer(head)
    }

    /// Whether a reader of this epoch may still read: it has not been superseded.
    #[must_use]
    pub fn may_read(&self, volume: VolumeId, epoch: Epoch) -> bool {
        self.volumes
            .get(&volume)
            .is_none_or(|session| epoch >= session.epoch)
    }

    /// Fences a removed volume's users for good, by entry `index`: one that still runs must not make
    /// it anew.
    ///
    /// Of so many removals the oldest is forgotten; who still used that volume has had time to hear
    /// of it from the metadata server.
    pub fn remove(&mut self, volume: VolumeId, index: u64) {
        let session = Session {
            epoch: REMOVED,
            watermark: Sequence::new(index),
            ..Session::default()
        };
        self.volumes.insert(volume, session);
        let removed = self.volumes.iter().filter(|(_, s)| s.epoch == REMOVED);
        let (count, oldest) = (
            removed.clone().count(),
            removed.min_by_key(|(_, session)| session.watermark),
        );
        if let Some(oldest) = oldest.map(|(volume, _)| *volume)
            && count > SESSIONS_REMOVED_MAX
        {
            self.volumes.remove(&oldest);
        }
    }

    /// Whether the volume's removal has been applied here, as far as that is remembered.
    #[must_use]
    pub fn is_removed(&self, volume: VolumeId) -> bool {
        let session = self.volumes.get(&volume);
        session.is_some_and(|session| session.epoch == REMOVED)
    }

    /// Every volume that was sealed here: the newest epoch, or that it was removed.
    pub fn sealed(&self) -> impl Iterator<Item = (VolumeId, Epoch, bool)> {
        let volumes = self.volumes.iter();
        volumes.map(|(id, session)| (*id, session.epoch, session.epoch == REMOVED))
    }

    /// Appends the encoded sessions.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Writer::new(out).u32(u32::try_from(self.volumes.len()).unwrap_or(u32::MAX));
        for (volume, session) in &self.volumes {
            Writer::new(out)
                .u64(volume.get())
                .u64(session.epoch.get())
                .u32(session.incarnation.get())
                .u64(session.client.get())
                .u64(session.watermark.get())
                .u32(u32::try_from(session.applied.len()).unwrap_or(u32::MAX));
            for sequence in &session.applied {
                Writer::new(out).u64(*sequence);
            }
        }
    }

    /// Decodes sessions.
    ///
    /// # Errors
    /// [`WireError`] naming the field.
    pub fn decode(from: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut volumes = BTreeMap::new();
        for _ in 0..from.u32("session count")? {
            let volume = VolumeId::new(from.u64("session volume")?);
            let mut session = Session {
                epoch: Epoch::new(from.u64("session epoch")?),
                incarnation: Incarnation::new(from.u32("session incarnation")?),
                client: ClientId::new(from.u64("session client")?),
                watermark: Sequence::new(from.u64("session watermark")?),
                applied: BTreeSet::new(),
            };
            for _ in 0..from.u32("session applied count")? {
                session.applied.insert(from.u64("session applied")?);
            }
            if seeded_bug!("dedupe-lost-on-restart") {
                session.applied.clear();
            }
            volumes.insert(volume, session);
        }
        Ok(Self { volumes })
    }
}

impl Session {
    fn check_writer(&self, head: &CommandHead) -> Result<(), Status> {
        if head.client == ClientId::NOBODY {
            return Err(Status::BadRequest);
        }
        let (sealed, asked) = (
            (self.epoch, self.incarnation),
            (head.epoch, head.incarnation),
        );
        if asked > sealed {
            return Err(Status::NotSealed);
        }
        if asked < sealed || head.client != self.client {
            return Err(Status::Fenced);
        }
        Ok(())
    }

    fn admit(&mut self, head: &CommandHead) -> Admission {
        let sequence = head.sequence.get();
        if head.watermark >= head.sequence || sequence == 0 {
            return Admission::Refused(Status::BadRequest);
        }
        if head.sequence <= self.watermark {
            if seeded_bug!("stale-retry-applied") {
                return Admission::Apply;
            }
            return Admission::Refused(Status::Stale);
        }
        if self.applied.contains(&sequence) && !seeded_bug!("duplicate-applied") {
            return Admission::Duplicate;
        }
        if sequence - head.watermark.get().max(self.watermark.get()) > SESSION_APPLIED_MAX {
            return Admission::Refused(Status::BadRequest);
        }
        if head.watermark > self.watermark {
            self.watermark = head.watermark;
            // One by one: each write lets go of about as many as it adds, and a split makes a new tree.
            let passed = head.watermark.get();
            while self.applied.first().is_some_and(|first| *first <= passed) {
                self.applied.pop_first();
            }
        }
        self.applied.insert(sequence);
        assert!(
            self.applied.len() as u64 <= SESSION_APPLIED_MAX,
            "bounded by the window check"
        );
        Admission::Apply
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::CommandKind;
    use ogee_proto::id::{ChunkIndex, ChunkKey};

    fn head(epoch: u64, incarnation: u32, sequence: u64, watermark: u64) -> CommandHead {
        CommandHead {
            kind: CommandKind::Write,
            key: ChunkKey {
                volume: VolumeId::new(1),
                chunk: ChunkIndex::new(0),
            },
            offset: 0,
            length: 4096,
            client: ClientId::new(epoch),
            epoch: Epoch::new(epoch),
            incarnation: Incarnation::new(incarnation),
            sequence: Sequence::new(sequence),
            watermark: Sequence::new(watermark),
        }
    }

    fn sealed(epoch: u64) -> Sessions {
        let mut sessions = Sessions::default();
        assert_eq!(sessions.seal(&head(epoch, 0, 0, 0)), Status::Ok);
        sessions
    }

    #[test]
    fn a_request_takes_effect_once() {
        let mut sessions = sealed(1);
        assert_eq!(sessions.admit(&head(1, 0, 1, 0)), Admission::Apply);
        assert_eq!(sessions.admit(&head(1, 0, 1, 0)), Admission::Duplicate);
        assert_eq!(sessions.admit(&head(1, 0, 3, 0)), Admission::Apply);
        assert_eq!(sessions.admit(&head(1, 0, 2, 0)), Admission::Apply);
    }

    #[test]
    fn a_late_duplicate_of_an_acknowledged_request_is_refused() {
        let mut sessions = sealed(1);
        assert_eq!(sessions.admit(&head(1, 0, 1, 0)), Admission::Apply);
        assert_eq!(sessions.admit(&head(1, 0, 2, 1)), Admission::Apply);
        assert_eq!(
            sessions.admit(&head(1, 0, 1, 0)),
            Admission::Refused(Status::Stale)
        );
    }

    #[test]
    fn a_superseded_attachment_is_fenced_and_an_unsealed_one_waits() {
        let mut sessions = sealed(2);
        assert_eq!(
            sessions.admit(&head(1, 0, 1, 0)),
            Admission::Refused(Status::Fenced)
        );
        assert_eq!(
            sessions.admit(&head(3, 0, 1, 0)),
            Admission::Refused(Status::NotSealed)
        );
        assert_eq!(
            sessions.admit(&head(2, 1, 1, 0)),
            Admission::Refused(Status::NotSealed)
        );
        assert_eq!(sessions.seal(&head(2, 1, 0, 0)), Status::Ok);
        assert_eq!(
            sessions.admit(&head(2, 0, 1, 0)),
            Admission::Refused(Status::Fenced)
        );
        assert_eq!(sessions.seal(&head(1, 9, 0, 0)), Status::Fenced);
    }

    #[test]
    fn readers_share_a_seal_that_admits_no_writer() {
        let mut sessions = sealed(1);
        let reader = CommandHead {
            client: ClientId::NOBODY,
            ..head(2, 1, 1, 0)
        };
        for _ in 0..2 {
            assert_eq!(sessions.seal(&reader), Status::Ok);
        }
        let refused = |status| Admission::Refused(status);
        assert_eq!(sessions.admit(&head(1, 0, 1, 0)), refused(Status::Fenced));
        assert_eq!(sessions.admit(&head(2, 1, 1, 0)), refused(Status::Fenced));
        assert_eq!(sessions.admit(&reader), refused(Status::BadRequest));
        assert_eq!(sessions.seal(&head(2, 1, 0, 0)), Status::Fenced);
        assert_eq!(sessions.seal(&head(3, 1, 0, 0)), Status::Ok);
        assert_eq!(sessions.admit(&head(3, 1, 1, 0)), Admission::Apply);
    }

    #[test]
    fn repeating_a_seal_keeps_the_dedupe_state() {
        let mut sessions = sealed(1);
        assert_eq!(sessions.admit(&head(1, 0, 1, 0)), Admission::Apply);
        assert_eq!(sessions.seal(&head(1, 0, 0, 0)), Status::Ok);
        assert_eq!(sessions.admit(&head(1, 0, 1, 0)), Admission::Duplicate);
    }

    #[test]
    fn the_window_bounds_the_state() {
        let mut sessions = sealed(1);
        for sequence in 1..=SESSION_APPLIED_MAX {
            assert_eq!(sessions.admit(&head(1, 0, sequence, 0)), Admission::Apply);
        }
        let past = head(1, 0, SESSION_APPLIED_MAX + 1, 0);
        assert_eq!(
            sessions.admit(&past),
            Admission::Refused(Status::BadRequest)
        );
        let moved = head(1, 0, SESSION_APPLIED_MAX + 1, 1);
        assert_eq!(sessions.admit(&moved), Admission::Apply);
    }

    #[test]
    fn a_removed_volume_stays_removed() {
        let mut sessions = sealed(5);
        let volume = VolumeId::new(1);
        assert!(!sessions.is_removed(volume));
        sessions.remove(volume, 1);
        assert!(sessions.is_removed(volume));
        assert_eq!(sessions.seal(&head(6, 0, 0, 0)), Status::Fenced);
        assert_eq!(sessions.precheck(&head(5, 0, 1, 0)), Err(Status::Fenced));
        assert!(!sessions.may_read(volume, Epoch::new(6)));
    }

    #[test]
    fn removed_volumes_are_remembered_up_to_a_bound() {
        let mut sessions = Sessions::default();
        let count = SESSIONS_REMOVED_MAX as u64;
        for index in 0..count {
            sessions.remove(VolumeId::new(count - index), index);
        }
        assert!((1..=count).all(|volume| sessions.is_removed(VolumeId::new(volume))));
        // The oldest removal goes, not the volume of the lowest id.
        sessions.remove(VolumeId::new(0), count);
        assert_eq!(sessions.volumes.len(), SESSIONS_REMOVED_MAX);
        assert!(sessions.is_removed(VolumeId::new(0)) && sessions.is_removed(VolumeId::new(1)));
        assert!(!sessions.is_removed(VolumeId::new(count)));
    }

    #[test]
    fn sessions_survive_their_encoding() {
        let mut sessions = sealed(5);
        for sequence in [1, 2, 4, 9] {
            assert_eq!(sessions.admit(&head(5, 0, sequence, 0)), Admission::Apply);
        }
        let mut bytes = Vec::new();
        sessions.encode(&mut bytes);
        let mut from = Reader::new(&bytes);
        assert_eq!(Sessions::decode(&mut from), Ok(sessions));
        assert_eq!(from.remaining(), 0);
    }
}
