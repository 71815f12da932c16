//! Chunkservers that an operator is about to stop for a while.
//!
//! An operator's wish with an end, kept in the metadata so that another leading metadata server holds to it. The end is a
//! time that the command carries: no clock is looked at here. While it lasts nothing new goes to the chunkserver, and what
//! is missing because of it is not made anew; so a copyset must keep its quorum without all chunkservers that are in
//! maintenance, whether they are stopped already or not.

use ogee_proto::id::{ChunkserverId, CopysetId, StoreId};
use serde::{Deserialize, Serialize};

use super::command::{Outcome, Reply};
use super::model::State;
use super::refusal::Refusal;
use crate::limit::{MAINTENANCE_MS_MIN, TIME_MS_MAX};

/// One chunkserver's maintenance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    /// When it began, in milliseconds since 1970.
    pub since_ms: u64,
    /// When it ends by itself.
    pub until_ms: u64,
}

/// See [`super::Command::BeginMaintenance`]. Again, it ends at the newer time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeginMaintenance {
    /// Which.
    pub chunkserver: ChunkserverId,
    /// For so long, in milliseconds.
    pub for_ms: u64,
    /// Milliseconds since 1970.
    pub at_ms: u64,
}

/// See [`super::Command::EndMaintenance`]. Idempotent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndMaintenance {
    /// Which.
    pub chunkserver: ChunkserverId,
    /// Only if its time was over by then, in milliseconds since 1970; 0: whatever its time.
    pub over_by_ms: u64,
}

impl State {
    /// A chunkserver's maintenance, unless its time is over by `now_ms`.
    #[must_use]
    pub fn maintenance(&self, chunkserver: ChunkserverId, now_ms: u64) -> Option<Maintenance> {
        let found = self.maintenance.get(&chunkserver).copied();
        found.filter(|it| it.until_ms > now_ms)
    }

    /// The same of a device.
    #[must_use]
    pub fn store_maintenance(&self, store: StoreId, now_ms: u64) -> Option<Maintenance> {
        let owner = self.stores.get(&store)?.chunkserver;
        self.maintenance(owner, now_ms)
    }

    /// Those whose time is over.
    pub fn maintenance_over(&self, now_ms: u64) -> impl Iterator<Item = ChunkserverId> + '_ {
        let all = self.maintenance.iter();
        let over = all.filter(move |(_, it)| it.until_ms <= now_ms);
        over.map(|(id, _)| *id)
    }

    pub(super) fn begin_maintenance(&mut self, command: &BeginMaintenance) -> Outcome {
        let (id, now_ms) = (command.chunkserver, command.at_ms);
        if !self.chunkservers.contains_key(&id) {
            return Err(Refusal::NoChunkserver { chunkserver: id });
        }
        if !(MAINTENANCE_MS_MIN..=TIME_MS_MAX).contains(&command.for_ms) {
            return Err(Refusal::BadSpan {
                ms: command.for_ms,
                min: MAINTENANCE_MS_MIN,
                max: TIME_MS_MAX,
            });
        }
        let known = self.maintenance(id, now_ms);
        if known.is_none() {
            self.check_maintenance(id, now_ms)?;
        }
        let maintenance = Maintenance {
            since_ms: known.map_or(now_ms, |known| known.since_ms),
            until_ms: now_ms.saturating_add(command.for_ms),
        };
        self.maintenance.insert(id, maintenance);
        Ok(Reply::Done)
    }

    /// Every copyset has a majority that is on chunkservers that are not in maintenance.
    fn check_maintenance(&self, id: ChunkserverId, now_ms: u64) -> Result<(), Refusal> {
        let stays = |server| server != id && self.maintenance(server, now_ms).is_none();
        let lost = self.hosted(id).find(|copyset| {
            let Some(copyset) = self.copysets.get(copyset) else {
                return false;
            };
            let is_voter = copyset.replicas.iter().any(|r| r.chunkserver == id);
            let left = copyset.replicas.iter().filter(|r| stays(r.chunkserver));
            is_voter && left.count() * 2 <= copyset.replicas.len()
        });
        match lost {
            None => Ok(()),
            Some(copyset) => Err(Refusal::MaintenanceQuorum {
                chunkserver: self.name_of(id),
                copyset,
                others: self.others_in_maintenance(copyset, id, now_ms),
            }),
        }
    }

    /// Names of those that host a copyset and are in maintenance, without that one.
    fn others_in_maintenance(
        &self,
        copyset: CopysetId,
        id: ChunkserverId,
        now_ms: u64,
    ) -> Box<str> {
        let replicas = self.copysets.get(&copyset).into_iter();
        let servers = replicas.flat_map(|c| c.replicas.iter().map(|r| r.chunkserver));
        let others = servers.filter(|server| *server != id);
        let others = others.filter(|server| self.maintenance(*server, now_ms).is_some());
        let names: Vec<String> = others.map(|server| self.name_of(server).into()).collect();
        names.join(", ").into()
    }

    fn name_of(&self, id: ChunkserverId) -> Box<str> {
        let server = self.chunkservers.get(&id);
        server.map_or_else(|| id.to_string().into(), |it| it.name.as_str().into())
    }

    pub(super) fn end_maintenance(&mut self, command: &EndMaintenance) -> Reply {
        let over_by_ms = command.over_by_ms;
        let known = self.maintenance.get(&command.chunkserver);
        if known.is_some_and(|it| over_by_ms == 0 || it.until_ms <= over_by_ms) {
            self.maintenance.remove(&command.chunkserver);
        }
        Reply::Done
    }
}
