//! One device in the place of another, and devices that limped and are taken back: for operators.

use std::collections::BTreeSet;

use ogee_proto::fault::Fault;
use ogee_proto::id::StoreId;
use ogee_proto::service::{
    DevicesName, ReinstateDevicesResponse, ReplaceDeviceRequest, ReplaceDeviceResponse,
};
use tonic::Code;

use super::context::unix_ms;
use super::error::ApiError;
use super::info::{Scene, count};
use super::jobs::{named, picture};
use super::topology::TopologyApi;
use crate::limit::MOVE_RESERVE;
use crate::scheduler::{Bytes, Picture, is_beside};
use crate::state::{Command, Copyset, MarkStores, Replica, State, Store};

/// What a replacement has before it.
struct Plan {
    old: StoreId,
    new: StoreId,
    replicas: usize,
    bytes: u64,
    free: u64,
}

impl TopologyApi {
    pub(super) async fn reinstate(
        &self,
        request: DevicesName,
    ) -> Result<ReinstateDevicesResponse, ApiError> {
        let stores = self
            .look(|scene, _| named(scene.state, &request.name))
            .await?;
        if stores.is_empty() {
            return Err(ApiError::no_devices(&request.name));
        }
        let command = Command::ReinstateStores {
            stores: stores.clone(),
        };
        self.0.write(command).await?;
        let mut world = self.0.world();
        for store in &stores {
            world.liveness.paces.forgive(*store);
        }
        Ok(ReinstateDevicesResponse {
            devices: count(stores.len()),
        })
    }

    pub(super) async fn replace_device(
        &self,
        request: ReplaceDeviceRequest,
    ) -> Result<ReplaceDeviceResponse, ApiError> {
        if request.cancel {
            return self.keep_device(&request).await;
        }
        self.check_not_paused().await?;
        let plan = self.look(|scene, _| plan(scene, &request)).await??;
        let Plan { old, new, .. } = plan;
        self.0.write(Command::ReplaceStore { old, new }).await?;
        Ok(ReplaceDeviceResponse {
            replicas: count(plan.replicas),
            bytes: plan.bytes,
            free: plan.free,
            jobs_cancelled: 0,
        })
    }

    /// What has not begun stays where it is.
    async fn keep_device(
        &self,
        request: &ReplaceDeviceRequest,
    ) -> Result<ReplaceDeviceResponse, ApiError> {
        let old = self
            .look(|scene, _| known(scene.state, &request.old).map(|(id, _)| id))
            .await??;
        let (stores, at_ms) = (vec![old], unix_ms());
        let mark = None;
        let command = MarkStores {
            stores: stores.clone(),
            mark,
            at_ms,
        };
        self.0.write(Command::MarkStores(command)).await?;
        let jobs_cancelled = self.cancel_waiting(&stores, at_ms).await?;
        let replicas = self
            .look(|scene, _| scene.state.voters_on(old).count())
            .await?;
        Ok(ReplaceDeviceResponse {
            replicas: count(replicas),
            jobs_cancelled,
            ..ReplaceDeviceResponse::default()
        })
    }
}

/// A store by its id.
fn known<'a>(state: &'a State, name: &str) -> Result<(StoreId, &'a Store), ApiError> {
    let mut stores = state.stores().iter();
    let found = stores.find(|(id, _)| id.to_string() == name);
    let found = found.map(|(id, store)| (*id, store));
    found.ok_or_else(|| ApiError::no_devices(name))
}

/// The new one by its id, or by its path on the old one's chunkserver.
fn successor(state: &State, name: &str, beside: &Store) -> Result<StoreId, ApiError> {
    let mut stores = state.stores().iter();
    let by_path = stores.find(|(_, s)| s.chunkserver == beside.chunkserver && s.path == name);
    match by_path {
        Some((id, _)) => Ok(*id),
        None => known(state, name).map(|(id, _)| id),
    }
}

/// The old one and the new one, if that may take its place.
pub(super) fn ends(
    scene: &Scene<'_>,
    request: &ReplaceDeviceRequest,
) -> Result<(StoreId, StoreId), ApiError> {
    plan(scene, request).map(|plan| (plan.old, plan.new))
}

fn plan(scene: &Scene<'_>, request: &ReplaceDeviceRequest) -> Result<Plan, ApiError> {
    let state = scene.state;
    let (old, from) = known(state, &request.old)?;
    let new = successor(state, &request.new, from)?;
    if old == new {
        return Err(refused(
            &request.new,
            &request.old,
            "it is the same device",
            "ogee device ls",
        ));
    }
    let picture = picture(scene);
    if !picture.is_up(new) {
        let cause = "it is away, full, drained, lost, limping or in maintenance, or its chunkserver just came back";
        return Err(refused(&request.new, &request.old, cause, "ogee device ls"));
    }
    let stays: Vec<_> = state
        .voters_on(old)
        .filter(|(_, copyset, replica)| !fits(state, copyset, replica, new))
        .collect();
    if let Some((_, copyset, replica)) = stays.first() {
        let cause = misfit(state, copyset, replica, new, stays.len());
        let remedy = "a device in the old one's zone; on the same chunkserver it must belong to another shard \
                      (`shard` of its [[device]])";
        return Err(refused(&request.new, &request.old, &cause, remedy));
    }
    let (bytes, free) = sizes(state, &picture, old, new);
    if bytes > free {
        let cause = format!(
            "the replicas hold about {bytes} bytes, and it has {free} to give: a twentieth of it stays free"
        );
        let remedy = "a larger device, or ogee device drain, which spreads them";
        return Err(refused(&request.new, &request.old, &cause, remedy));
    }
    let replicas = state.voters_on(old).count();
    Ok(Plan {
        old,
        new,
        replicas,
        bytes,
        free,
    })
}

/// What is still to move, and what there is room for.
fn sizes(state: &State, picture: &Picture, old: StoreId, new: StoreId) -> (u64, u64) {
    let each = Bytes::of(state, picture);
    let on_old = state.voters_on(old);
    let bytes = on_old.fold(0u64, |sum, (id, copyset, _)| {
        sum.saturating_add(each.of_one(id, copyset))
    });
    let free = picture.places.get(&new).map_or(0, |place| {
        let kept = place.capacity / MOVE_RESERVE;
        place
            .capacity
            .saturating_sub(kept)
            .saturating_sub(place.used)
    });
    (bytes, free)
}

fn fits(state: &State, copyset: &Copyset, replica: &Replica, new: StoreId) -> bool {
    let Some(place) = state.stores().get(&new) else {
        return false;
    };
    // A repetition finds what is on its way there.
    if copyset.members().any(|r| r.store == new) {
        return copyset
            .change
            .as_ref()
            .is_some_and(|it| it.replaces == replica.id && it.joining.store == new);
    }
    let others = copyset.replicas.iter().filter(|r| r.id != replica.id);
    let zones: BTreeSet<_> = others
        .clone()
        .filter_map(|r| state.zone_of(r.chunkserver))
        .collect();
    let is_own_zone = state
        .zone_of(place.chunkserver)
        .is_some_and(|zone| !zones.contains(zone));
    let is_free = copyset.placed().all(|r| r.chunkserver != place.chunkserver);
    let is_own_zone = is_own_zone && state.is_of_class(new, copyset.pool);
    is_own_zone && (is_free || is_beside(state, copyset, replica, new))
}

fn misfit(
    state: &State,
    copyset: &Copyset,
    replica: &Replica,
    new: StoreId,
    count: usize,
) -> String {
    let place = state.stores().get(&new);
    let zone = place.and_then(|place| state.zone_of(place.chunkserver));
    let mut others = copyset.replicas.iter().filter(|r| r.id != replica.id);
    let taken = others.any(|r| state.zone_of(r.chunkserver) == zone);
    if !state.is_of_class(new, copyset.pool) {
        return format!(
            "{count} of the replicas cannot go there: it is not of the class that their pool wants"
        );
    }
    match (taken, zone) {
        (true, Some(zone)) => {
            format!("{count} of the replicas have another one of their copyset in its zone, {zone}")
        }
        _ => format!(
            "{count} of the replicas have one of their copyset in the shard of its chunkserver that it belongs to, \
             and a shard serves one"
        ),
    }
}

fn refused(new: &str, old: &str, cause: &str, remedy: &str) -> ApiError {
    let what = format!("device {new} cannot take the place of {old}");
    let fault = Fault::new("OGEE-2027", &what, cause, remedy);
    ApiError::new(Code::FailedPrecondition, fault)
}
