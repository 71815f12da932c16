//! What it takes to empty devices, for operators who ask before they do it.
//!
//! Pure, and by the rules that drains follow: every replica there with the place that it would go to, each counted with those before
//! it. *Invariant*: asked of a state and a picture in which the devices are marked already, so that none of them is a target.

use std::collections::BTreeSet;

use ogee_proto::id::{CopysetId, StoreId};

use super::loads::Loads;
use super::picture::{Bytes, Picture};
use crate::state::{Copyset, Replica, State};

/// A replica that is to leave its place.
pub(crate) struct Leaving<'a> {
    pub(crate) id: CopysetId,
    pub(crate) replica: &'a Replica,
    /// Somebody else is to lead before it goes.
    pub(crate) leads: bool,
    /// That it holds, estimated.
    pub(crate) bytes: u64,
    /// Where it would go.
    pub(crate) to: Option<StoreId>,
    /// What keeps it from going.
    pub(crate) obstacle: Option<Obstacle>,
}

/// What keeps a replica where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// No device of the pool's class that is online, with room, is in a zone without another one of the copyset.
    NoTarget,
    /// The copyset lacks a replica: none leaves before all take part.
    Degraded,
    /// Another replica of the copyset is being replaced, or one is about to join it there.
    Changing,
}

/// Every replica on those devices, in the order of their copysets.
pub(crate) fn emptying<'a>(
    state: &'a State,
    picture: &'a Picture,
    stores: &BTreeSet<StoreId>,
) -> Vec<Leaving<'a>> {
    let servers: BTreeSet<_> = stores
        .iter()
        .filter_map(|id| state.stores().get(id).map(|store| store.chunkserver))
        .collect();
    let hosted = servers.into_iter().flat_map(|server| state.hosted(server));
    let copysets: BTreeSet<CopysetId> = hosted.collect();
    let bytes = Bytes::of(state, picture);
    let mut loads = Loads::of(state, picture);
    let mut found = Vec::new();
    for id in copysets {
        let Some(copyset) = state.copysets().get(&id) else {
            continue;
        };
        let here = copyset.members().filter(|r| stores.contains(&r.store));
        for replica in here {
            let need = bytes.of_one(id, copyset);
            let mut leaving = Leaving {
                id,
                replica,
                leads: picture.leads_others(id, copyset, replica),
                bytes: need,
                to: None,
                obstacle: None,
            };
            place(picture, &mut loads, stores, copyset, &mut leaving);
            found.push(leaving);
        }
    }
    found
}

fn place(
    picture: &Picture,
    loads: &mut Loads<'_>,
    stores: &BTreeSet<StoreId>,
    copyset: &Copyset,
    leaving: &mut Leaving<'_>,
) {
    let replica = leaving.replica;
    if let Some(change) = &copyset.change {
        let is_going = change.replaces == replica.id && !stores.contains(&change.joining.store);
        match is_going {
            true => leaving.to = Some(change.joining.store),
            false => leaving.obstacle = Some(Obstacle::Changing),
        }
        return;
    }
    leaving.to = loads.target(copyset, replica, leaving.bytes, |_| true);
    match leaving.to {
        Some(to) => {
            loads.begin(copyset, replica, to, leaving.bytes);
            loads.shift(replica.store, to);
        }
        None => leaving.obstacle = Some(Obstacle::NoTarget),
    }
    // Of one whose device is away the others are looked at: it is what it is to be saved from.
    let others = copyset.replicas.iter().filter(|r| r.id != replica.id);
    let all_serve = others.clone().all(|r| picture.serving.contains(&r.id));
    if leaving.to.is_some() && !(all_serve && copyset.formed && copyset.is_complete()) {
        leaving.obstacle = Some(Obstacle::Degraded);
    }
}
