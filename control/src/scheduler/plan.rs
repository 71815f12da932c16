//! What one chunkserver shall do now.

use std::collections::BTreeMap;
use std::time::Instant;

use ogee_proto::id::{ChunkserverId, CopysetId, ReplicaId, StoreId, VolumeId};

use crate::limit::{ORDERS_PER_HEARTBEAT_MAX, TRANSFER_TIMEOUT, TRANSFERS_MAX};
use crate::liveness::Liveness;
use crate::state::{Copyset, JobKind, State};

/// See the module.
#[derive(Default)]
pub(crate) struct Scheduler {
    transfers: BTreeMap<CopysetId, Transfer>,
}

struct Transfer {
    to: ReplicaId,
    until: Instant,
}

/// One order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Planned {
    /// Make a replica, and initialise its group if it is the one that shall.
    Create {
        copyset: CopysetId,
        replica: ReplicaId,
        store: StoreId,
        bootstrap: bool,
        /// Deleted first, if it is on that store and cannot be opened.
        replaces: Option<ReplicaId>,
    },
    /// Have the leader of a term make these the voters.
    ChangeMembers {
        copyset: CopysetId,
        voters: Vec<ReplicaId>,
        term: u64,
        conf_epoch: u64,
    },
    /// Delete a replica that is no member any more.
    Remove {
        copyset: CopysetId,
        replica: ReplicaId,
    },
    /// Have a replica go on alone, under a new id.
    Reset {
        copyset: CopysetId,
        from: ReplicaId,
        to: ReplicaId,
        store: StoreId,
    },
    /// Give leadership to another replica.
    Transfer {
        copyset: CopysetId,
        to: ReplicaId,
        term: u64,
    },
    /// Free a removed volume's chunks.
    RemoveChunks {
        volume: VolumeId,
        copysets: Vec<CopysetId>,
    },
}

impl Planned {
    /// A word for metrics.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create_replica",
            Self::ChangeMembers { .. } => "change_members",
            Self::Remove { .. } => "remove_replica",
            Self::Reset { .. } => "reset_replica",
            Self::Transfer { .. } => "transfer_leader",
            Self::RemoveChunks { .. } => "remove_chunks",
        }
    }
}

/// Too many transfers wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{TRANSFERS_MAX} leader transfers wait already")]
pub(crate) struct TransfersFull;

impl Scheduler {
    /// Orders a leader transfer until it is seen to be done, or for a while. The newest wish for
    /// a copyset counts.
    pub(crate) fn transfer(
        &mut self,
        now: Instant,
        copyset: CopysetId,
        to: ReplicaId,
    ) -> Result<(), TransfersFull> {
        self.transfers.retain(|_, transfer| transfer.until > now);
        if self.transfers.len() >= TRANSFERS_MAX && !self.transfers.contains_key(&copyset) {
            return Err(TransfersFull);
        }
        self.transfers.insert(
            copyset,
            Transfer {
                to,
                until: now + TRANSFER_TIMEOUT,
            },
        );
        Ok(())
    }

    /// The orders for a chunkserver whose heartbeat was just recorded.
    pub(crate) fn orders(
        &mut self,
        now: Instant,
        state: &State,
        liveness: &Liveness,
        (server, affairs): (ChunkserverId, &Affairs),
    ) -> Vec<Planned> {
        self.drop_done(now, state, liveness, server);
        let with = |id: &CopysetId| Some((*id, state.copysets().get(id)?));
        let unsettled: Vec<(CopysetId, &Copyset)> =
            affairs.copysets.iter().filter_map(with).collect();
        let unsettled = || unsettled.iter().copied();
        let creations = unsettled().filter_map(|(id, copyset)| {
            creation(id, copyset, server, |replica| {
                liveness.replica(now, server, replica).is_some()
            })
        });
        let resets = unsettled().filter_map(|(id, copyset)| reset(id, copyset, server));
        let joinings = unsettled().filter_map(|(id, copyset)| joining(id, copyset, server));
        let removals = unsettled().flat_map(|(id, copyset)| removals(id, copyset, server));
        let led_here = |copyset: &Copyset| {
            let leader = liveness.leader(now, copyset)?;
            let here = copyset.members().find(|r| r.id == leader.replica)?;
            (here.chunkserver == server).then_some(leader)
        };
        let changes = unsettled().filter_map(|(id, copyset)| {
            let change = copyset.change.as_ref()?;
            let leader = led_here(copyset).filter(|_| change.joining.created)?;
            Some(Planned::ChangeMembers {
                copyset: id,
                voters: copyset.wanted_voters().into_iter().collect(),
                term: leader.term,
                conf_epoch: copyset.conf_epoch,
            })
        });
        let mut wishes = affairs.leads.clone();
        // An operator's hand counts before a plan.
        let by_hand = self
            .transfers
            .iter()
            .map(|(id, transfer)| (*id, transfer.to));
        wishes.extend(by_hand);
        let transfers = wishes.iter().filter_map(|(id, to)| {
            let copyset = state.copysets().get(id)?;
            let leader = led_here(copyset).filter(|leader| leader.replica != *to)?;
            Some(Planned::Transfer {
                copyset: *id,
                to: *to,
                term: leader.term,
            })
        });
        let cleanups = affairs.garbage.iter();
        let cleanups = cleanups.filter_map(|volume| cleanup(state, *volume, server));
        let retired = affairs.retired.iter();
        let retired = retired.map(|(copyset, replica)| Planned::Remove {
            copyset: *copyset,
            replica: *replica,
        });
        creations
            .chain(resets)
            .chain(joinings)
            .chain(changes)
            .chain(removals)
            .chain(retired)
            .chain(transfers)
            .chain(cleanups)
            .take(ORDERS_PER_HEARTBEAT_MAX)
            .collect()
    }

    /// Of those that this chunkserver may be asked for.
    fn drop_done(
        &mut self,
        now: Instant,
        state: &State,
        liveness: &Liveness,
        server: ChunkserverId,
    ) {
        self.transfers.retain(|id, transfer| {
            let copyset = state.copysets().get(id);
            let here = copyset.filter(|c| c.members().any(|r| r.chunkserver == server));
            let leader = here.and_then(|c| liveness.leader(now, c));
            transfer.until > now && leader.is_none_or(|l| l.replica != transfer.to)
        });
    }
}

/// What a chunkserver may have to do, by the metadata alone: what it has done already, heartbeats say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Affairs {
    /// Copysets there that are not as they are to be.
    copysets: Vec<CopysetId>,
    /// Who is to lead copysets there, by jobs under way.
    leads: BTreeMap<CopysetId, ReplicaId>,
    /// Removed volumes of which it has chunks.
    garbage: Vec<VolumeId>,
    /// Replicas of removed pools that it has.
    retired: Vec<(CopysetId, ReplicaId)>,
}

impl Affairs {
    pub(crate) fn of(state: &State, server: ChunkserverId) -> Self {
        let copyset = |id: &CopysetId| state.copysets().get(id);
        let hosted = state.hosted(server);
        let jobs = state.jobs().values();
        let leads = jobs.filter(|job| job.kind == JobKind::Lead && job.state.is_live());
        let leads = leads.filter(|job| {
            let copyset = copyset(&job.copyset);
            copyset.is_some_and(|c| c.members().any(|r| r.chunkserver == server))
        });
        let garbage = state.garbage().iter();
        let garbage = garbage.filter(|(_, garbage)| garbage.pending.contains(&server));
        Self {
            copysets: hosted
                .filter(|id| copyset(id).is_some_and(is_unsettled))
                .collect(),
            leads: leads.map(|job| (job.copyset, job.replica)).collect(),
            garbage: garbage.map(|(volume, _)| *volume).collect(),
            retired: state.retired_on(server).collect(),
        }
    }
}

/// Of one that is not, nothing is ordered but who leads it.
fn is_unsettled(copyset: &Copyset) -> bool {
    let is_made = copyset.formed && copyset.replicas.iter().all(|replica| replica.created);
    !is_made || copyset.change.is_some() || copyset.reset.is_some() || !copyset.leaving.is_empty()
}

/// The order to make this chunkserver's replica of a copyset, if it must be made.
///
/// The first replica of a copyset without a leader is ordered even when it exists: it may have
/// been made without coming to initialise the group. It is not when it once existed and is gone,
/// since an empty replica must not take up its id.
fn creation(
    id: CopysetId,
    copyset: &Copyset,
    server: ChunkserverId,
    reported: impl Fn(ReplicaId) -> bool,
) -> Option<Planned> {
    let (at, replica) = copyset
        .replicas
        .iter()
        .enumerate()
        .find(|(_, r)| r.chunkserver == server)?;
    let exists = reported(replica.id);
    let bootstrap = at == 0 && !copyset.formed;
    let wanted = if exists { bootstrap } else { !replica.created };
    wanted.then_some(Planned::Create {
        copyset: id,
        replica: replica.id,
        store: replica.store,
        bootstrap,
        replaces: None,
    })
}

/// The order to make the replica that is to take another one's place here, until it was reported.
fn joining(id: CopysetId, copyset: &Copyset, server: ChunkserverId) -> Option<Planned> {
    let change = copyset.change.as_ref()?;
    let new = Some(&change.joining).filter(|r| r.chunkserver == server && !r.created)?;
    Some(Planned::Create {
        copyset: id,
        replica: new.id,
        store: new.store,
        bootstrap: false,
        replaces: Some(change.replaces),
    })
}

/// The order to go on alone, until the replica was reported under its new id.
fn reset(id: CopysetId, copyset: &Copyset, server: ChunkserverId) -> Option<Planned> {
    let reset = copyset.reset?;
    let survivor = copyset.replicas.iter().find(|r| r.id == reset.to)?;
    (survivor.chunkserver == server).then_some(Planned::Reset {
        copyset: id,
        from: reset.from,
        to: reset.to,
        store: survivor.store,
    })
}

fn removals(
    id: CopysetId,
    copyset: &Copyset,
    server: ChunkserverId,
) -> impl Iterator<Item = Planned> + '_ {
    let here = copyset
        .leaving
        .iter()
        .filter(move |r| r.chunkserver == server);
    here.map(move |replica| Planned::Remove {
        copyset: id,
        replica: replica.id,
    })
}

/// The order to free what a removed volume has there.
fn cleanup(state: &State, volume: VolumeId, server: ChunkserverId) -> Option<Planned> {
    let garbage = state.garbage().get(&volume)?;
    let mine = |copyset: &CopysetId| {
        let copyset = state.copysets().get(copyset);
        copyset.is_some_and(|c| c.replicas.iter().any(|r| r.chunkserver == server))
    };
    // One that joins still copies: what it frees would come back.
    let joins = |copyset: &CopysetId| {
        let change = state
            .copysets()
            .get(copyset)
            .and_then(|c| c.change.as_ref());
        change.is_some_and(|change| change.joining.chunkserver == server)
    };
    let is_ripe = !garbage.copysets.iter().any(joins);
    is_ripe.then(|| Planned::RemoveChunks {
        volume,
        copysets: garbage.copysets.iter().copied().filter(mine).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Change, Replica};
    use ogee_proto::id::PoolId;

    fn copyset(created: bool, formed: bool) -> Copyset {
        let replica = |id: u64, server: u32| Replica {
            id: ReplicaId::new(id),
            chunkserver: ChunkserverId::new(server),
            store: StoreId::default(),
            created,
        };
        Copyset {
            pool: PoolId::new(1),
            replicas: vec![replica(1, 1), replica(2, 2), replica(3, 3)],
            conf_epoch: 1,
            formed,
            chunks: 0,
            change: None,
            leaving: Vec::new(),
            vacant: Vec::new(),
            reset: None,
        }
    }

    /// `Some(bootstrap)` when a creation is ordered.
    fn ordered(copyset: &Copyset, server: u32, exists: bool) -> Option<bool> {
        let order = creation(
            CopysetId::new(1),
            copyset,
            ChunkserverId::new(server),
            |_| exists,
        )?;
        match order {
            Planned::Create { bootstrap, .. } => Some(bootstrap),
            _ => None,
        }
    }

    #[test]
    fn only_the_first_replica_initialises_and_only_until_there_is_a_leader() {
        let new = copyset(false, false);
        assert_eq!(ordered(&new, 1, false), Some(true));
        assert_eq!(ordered(&new, 2, false), Some(false));
        assert_eq!(ordered(&new, 9, false), None);
        let made = copyset(true, false);
        assert_eq!(ordered(&made, 1, true), Some(true));
        assert_eq!(ordered(&made, 2, true), None);
        let late = copyset(false, true);
        assert_eq!(ordered(&late, 1, false), Some(false));
        assert_eq!(ordered(&late, 3, false), Some(false));
    }

    #[test]
    fn a_replacement_is_made_once_and_what_it_replaced_is_removed() {
        let (id, server) = (CopysetId::new(1), ChunkserverId::new(4));
        let mut copyset = copyset(true, true);
        let new = |created| Replica {
            id: ReplicaId::new(9),
            chunkserver: server,
            store: StoreId::default(),
            created,
        };
        let change = |created| Change {
            joining: new(created),
            replaces: ReplicaId::new(2),
            abandoned: Vec::new(),
        };
        copyset.change = Some(change(false));
        assert_eq!(joining(id, &copyset, ChunkserverId::new(2)), None);
        let Some(Planned::Create {
            replica, bootstrap, ..
        }) = joining(id, &copyset, server)
        else {
            panic!("it must be made");
        };
        assert_eq!((replica.get(), bootstrap), (9, false));
        let wanted = [1, 3, 9].map(ReplicaId::new);
        assert_eq!(copyset.wanted_voters(), wanted.into());
        copyset.change = Some(change(true));
        assert_eq!(joining(id, &copyset, server), None, "not under a used id");
        copyset.leaving.push(new(true));
        assert_eq!(removals(id, &copyset, server).count(), 1);
        assert_eq!(removals(id, &copyset, ChunkserverId::new(1)).count(), 0);
    }

    #[test]
    fn a_replica_that_was_lost_is_not_made_again_under_its_id() {
        for formed in [false, true] {
            let lost = copyset(true, formed);
            for server in 1..=3 {
                assert_eq!(ordered(&lost, server, false), None);
            }
        }
    }
}
