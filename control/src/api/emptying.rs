//! Whether devices, servers and zones can be done without: for operators, before they do it.
//!
//! *Invariant*: nothing is changed. What is asked is carried out on a copy of the metadata, and planned from there as it
//! would be.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ogee_proto::id::StoreId;
use ogee_proto::service::{DevicesName, OkToRemoveResponse, OkToStopResponse, RemovalInfo};

use super::context::unix_ms;
use super::error::ApiError;
use super::info::Scene;
use super::jobs::{named, picture, picture_of, server_of, without};
use super::topology::TopologyApi;
use crate::raft::View;
use crate::scheduler::{Leaving, Obstacle, emptying};
use crate::state::{Command, Mark, MarkStores, State};

impl TopologyApi {
    /// Whether all that is on a chunkserver, or a device, has somewhere to go.
    pub(super) async fn may_remove(
        &self,
        request: DevicesName,
    ) -> Result<OkToRemoveResponse, ApiError> {
        self.look(|scene, view| {
            let stores = known(scene, &request.name)?;
            let marked = drained(scene.state, &stores)?;
            let picture = picture_of(scene, &marked);
            let leaving = emptying(&marked, &picture, &stores);
            let mds = voters_at(scene, view, &request.name);
            Ok(OkToRemoveResponse {
                ok: mds.is_empty() && leaving.iter().all(|it| it.obstacle.is_none()),
                replicas: leaving.iter().map(|it| removal(scene, it)).collect(),
                mds,
            })
        })
        .await?
    }

    /// Whether every copyset keeps its quorum without a whole zone.
    pub(super) async fn may_stop_zone(
        &self,
        request: DevicesName,
    ) -> Result<OkToStopResponse, ApiError> {
        self.look(|scene, _| {
            let servers = scene.state.chunkservers().values();
            let of_zone = servers.filter(|server| server.zone.as_str() == request.name);
            let mut of_zone = of_zone.peekable();
            if of_zone.peek().is_none() {
                return Err(ApiError::no_zone(&request.name));
            }
            let stores = of_zone.flat_map(|server| server.stores.iter().copied());
            Ok(without(scene.state, &picture(scene), &stores.collect()))
        })
        .await?
    }
}

pub(super) fn known(scene: &Scene<'_>, name: &str) -> Result<BTreeSet<StoreId>, ApiError> {
    let stores: BTreeSet<StoreId> = named(scene.state, name).into_iter().collect();
    match stores.is_empty() {
        true => Err(ApiError::no_devices(name)),
        false => Ok(stores),
    }
}

/// The metadata as a drain would leave it.
pub(super) fn drained(state: &State, stores: &BTreeSet<StoreId>) -> Result<State, ApiError> {
    let mut marked = state.clone();
    let mark = MarkStores {
        stores: stores.iter().copied().collect(),
        mark: Some(Mark::Draining),
        at_ms: unix_ms(),
    };
    marked.apply(&Command::MarkStores(mark))?;
    Ok(marked)
}

fn removal(scene: &Scene<'_>, leaving: &Leaving<'_>) -> RemovalInfo {
    RemovalInfo {
        copyset: leaving.id.get(),
        replica: leaving.replica.id.get(),
        store: leaving.replica.store.to_string(),
        to: server_of(scene, leaving.to).unwrap_or_default(),
        to_store: leaving.to.map_or_else(String::new, |to| to.to_string()),
        bytes: leaving.bytes,
        leads: leaving.leads,
        obstacle: leaving.obstacle.map_or("", words).into(),
    }
}

pub(super) const fn words(obstacle: Obstacle) -> &'static str {
    match obstacle {
        Obstacle::NoTarget => {
            "nowhere to go: no other device of its pool's class that is online and to stay, with room, is in a zone \
             without a replica of it"
        }
        Obstacle::Degraded => "the copyset lacks a replica: none leaves before all take part",
        Obstacle::Changing => {
            "a replica of the copyset is being replaced: it goes when that is done"
        }
    }
}

/// Metadata servers that vote at a chunkserver's address, unless that is no address of a network.
fn voters_at(scene: &Scene<'_>, view: &View, name: &str) -> Vec<u64> {
    let servers = scene.state.chunkservers().iter();
    let mut found = servers.filter(|(_, server)| server.name.as_str() == name);
    let Some((id, _)) = found.next() else {
        return Vec::new();
    };
    let endpoints = scene.endpoints_of(*id).iter();
    let hosts: BTreeSet<&str> = endpoints.filter_map(|it| host(it)).collect();
    let voters = view.members.iter().filter(|(_, member)| member.is_voter);
    let there =
        voters.filter(|(_, member)| host(&member.addr).is_some_and(|it| hosts.contains(it)));
    there.map(|(id, _)| *id).collect()
}

/// Where an address is, if others can be there, too.
fn host(address: &str) -> Option<&str> {
    let (host, _) = address.rsplit_once(':')?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_own = bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    (!is_own).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::host;

    #[test]
    fn an_address_of_this_machine_alone_is_no_place() {
        assert_eq!(host("10.0.0.7:7000"), Some("10.0.0.7"));
        assert_eq!(host("[fd00::7]:7000"), Some("[fd00::7]"));
        assert_eq!(host("node7:7000"), Some("node7"));
        for own in ["127.0.0.1:7000", "[::1]:7000", "localhost:7000", "nothing"] {
            assert_eq!(host(own), None, "{own}");
        }
    }
}
