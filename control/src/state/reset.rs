//! A copyset that has lost its majority for good: one replica goes on alone, under a new id.
//!
//! The others are given up. Until they are deleted they are `leaving`, as replaced ones are, so that whoever comes back is told
//! to go; and the places that they had are *vacant* until new replicas have taken them. The survivor's new id is what
//! keeps the old ones out: whatever a replica of the old group sends is addressed to an id that is not there any more,
//! and nobody in the new group was ever told of them. See docs/decisions on resets.

use ogee_proto::id::{CopysetId, ReplicaId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

use super::command::{Outcome, Reply};
use super::job::Mark;
use super::model::{Copyset, Replica, State};
use super::refusal::Refusal;
use super::topology::check_count;
use crate::limit::{LEAVING_MAX, RESET_AFTER_MS};

/// A replica that is to go on alone, until it was reported under its new id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reset {
    /// The id that it had.
    pub from: ReplicaId,
    /// The id that it gets.
    pub to: ReplicaId,
}

/// See [`super::Command::ResetCopyset`]. Repeated while it is under way, it answers with the same replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetCopyset {
    /// Which.
    pub copyset: CopysetId,
    /// The replica that goes on.
    pub survivor: ReplicaId,
    /// The configuration that it was decided for.
    pub conf_epoch: u64,
    /// Milliseconds since 1970.
    pub at_ms: u64,
}

impl State {
    /// Whether a replica is given up: its device was declared lost, or it has not taken part for long enough.
    #[must_use]
    pub fn is_given_up(&self, replica: &Replica, now_ms: u64) -> bool {
        let is_long = |since: u64| now_ms.saturating_sub(since) >= RESET_AFTER_MS;
        let (store, id) = (replica.store, replica.id);
        self.mark(store) == Some(Mark::Lost)
            || self.away_since(store).is_some_and(is_long)
            || self.ailing_since(id).is_some_and(is_long)
            || !self.stores.contains_key(&store)
    }

    /// Whether a majority could still answer, in whichever configuration the group is: each that joins, or was to, may
    /// have become a voter in the place of the one replaced.
    #[must_use]
    pub fn has_majority_left(&self, copyset: &Copyset, now_ms: u64) -> bool {
        let is_left = |replica: &&Replica| !self.is_given_up(replica, now_ms);
        let change = copyset.change.as_ref();
        let turns = |replica: &&Replica| change.is_some_and(|it| it.replaces == replica.id);
        let stay = copyset.replicas.iter().filter(|r| !turns(r));
        let others = copyset.members().filter(|m| {
            let is_voter = copyset.replicas.iter().any(|r| r.id == m.id);
            !is_voter || turns(m)
        });
        let left = stay.filter(is_left).count() + usize::from(others.filter(is_left).count() > 0);
        left * 2 > copyset.replicas.len()
    }

    /// What would refuse a reset.
    ///
    /// # Errors
    /// The refusal that [`State::apply`] would answer.
    pub fn check_reset(&self, command: &ResetCopyset) -> Result<(), Refusal> {
        let id = command.copyset;
        let copyset = self.copysets.get(&id);
        let copyset = copyset.ok_or(Refusal::NoCopyset { copyset: id })?;
        if self.only_listens() {
            return Err(Refusal::NotAccepted);
        }
        if !copyset.formed {
            return Err(Refusal::NotFormed { copyset: id });
        }
        if copyset.conf_epoch != command.conf_epoch {
            return Err(Refusal::CopysetChanged { copyset: id });
        }
        if !copyset.replicas.iter().any(|r| r.id == command.survivor) {
            return Err(Refusal::NoReplica {
                copyset: id,
                replica: command.survivor,
            });
        }
        if self.has_majority_left(copyset, command.at_ms) {
            return Err(Refusal::MajorityLeft { copyset: id });
        }
        let leaving = copyset.leaving.len() + copyset.members().count() - 1;
        check_count("replaced replicas of a copyset", leaving, 2 * LEAVING_MAX)
    }

    pub(super) fn reset_copyset(&mut self, command: &ResetCopyset) -> Outcome {
        let id = command.copyset;
        let under_way = self.copysets.get(&id).and_then(|it| it.reset);
        if let Some(reset) = under_way.filter(|reset| reset.from == command.survivor) {
            return Ok(Reply::Replica(reset.to));
        }
        self.check_reset(command)?;
        self.issued.replica += 1;
        let to = ReplicaId::new(self.issued.replica);
        let mut gone = BTreeSet::new();
        if let Some(copyset) = self.copysets.get_mut(&id) {
            gone = give_up(copyset, command.survivor, to);
        }
        for replica in &gone {
            self.ailing.remove(replica);
        }
        self.close_all(id, command.at_ms);
        Ok(Reply::Replica(to))
    }

    /// The survivor was reported under its new id.
    pub(super) fn confirm_reset(&mut self, id: CopysetId, replica: ReplicaId) {
        if let Some(copyset) = self.copysets.get_mut(&id) {
            copyset.reset.take_if(|reset| reset.to == replica);
        }
    }
}

/// Leaves one replica, under its new id. Answers with the ids that are no member's any more.
fn give_up(copyset: &mut Copyset, survivor: ReplicaId, to: ReplicaId) -> BTreeSet<ReplicaId> {
    let change = copyset.change.take();
    let replicas = std::mem::take(&mut copyset.replicas);
    let gone = replicas.iter().map(|replica| replica.id).collect();
    for replica in replicas {
        if replica.id == survivor {
            // It existed, under another id: it is never made anew.
            let created = true;
            copyset.replicas.push(Replica {
                id: to,
                created,
                ..replica
            });
        } else {
            copyset.vacant.push(replica.clone());
            copyset.leaving.push(replica);
        }
    }
    let joined = change.into_iter();
    let joined = joined.flat_map(|it| it.abandoned.into_iter().chain([it.joining]));
    copyset.leaving.extend(joined);
    copyset.reset = Some(Reset { from: survivor, to });
    copyset.conf_epoch += 1;
    gone
}

impl Copyset {
    /// A replica, or one that was given up and whose place is vacant.
    #[must_use]
    pub fn place(&self, id: ReplicaId) -> Option<&Replica> {
        let mut places = self.replicas.iter().chain(&self.vacant);
        places.find(|replica| replica.id == id)
    }

    /// Whether it has as many replicas as it is to have, and nothing is under way to make it so.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.vacant.is_empty() && self.reset.is_none()
    }
}
