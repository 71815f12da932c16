//! What each chunkserver is told, as far as it follows from the metadata and from where the others are.
//!
//! *Place*: between the metadata and the answers to heartbeats. *Owner*: the handlers, behind their mutex. *Invariants*: it is
//! as of the very entry of the log, and the very places of all chunkservers, that it is asked for with; when either has changed
//! it is made anew, of the copysets of that chunkserver alone. So a heartbeat between two changes goes through none.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use ogee_proto::id::ChunkserverId;

use super::info::Scene;
use crate::raft::Position;
use crate::scheduler::{Affairs, is_tried};
use crate::state::Replica;

/// By chunkserver.
#[derive(Default)]
pub(crate) struct Desks(BTreeMap<ChunkserverId, Desk>);

/// See the module.
pub(super) struct Desk {
    as_of: (Position, u64),
    /// Names the copysets and peers that it is told of: a digest of all that is said of them but of what changes by
    /// itself (who leads, how far replicas are, who is online), which is as of when they were told. Never 0.
    pub(super) layout: u64,
    /// What it may have to do.
    pub(super) affairs: Affairs,
    /// Its stores that limp.
    pub(super) probe: Vec<String>,
}

impl Desks {
    pub(super) fn at(&mut self, scene: &Scene<'_>, at: Position, id: ChunkserverId) -> &Desk {
        let as_of = (at, scene.liveness.places());
        let is_current = self.0.get(&id).is_some_and(|desk| desk.as_of == as_of);
        if !is_current {
            self.0.insert(id, Desk::new(scene, as_of, id));
        }
        &self.0[&id]
    }

    /// It is none of ours.
    pub(super) fn clear(&mut self, id: ChunkserverId) {
        self.0.remove(&id);
    }
}

impl Desk {
    fn new(scene: &Scene<'_>, as_of: (Position, u64), id: ChunkserverId) -> Self {
        let server = scene.state.chunkservers().get(&id);
        let stores = server.into_iter().flat_map(|server| &server.stores);
        let tried = stores.filter(|store| is_tried(scene.state, **store));
        Self {
            as_of,
            layout: layout(scene, id),
            affairs: Affairs::of(scene.state, id),
            probe: tried.map(ToString::to_string).collect(),
        }
    }
}

/// What `Scene::copyset_info` and `peers` say, of all copysets there and all that share one.
fn layout(scene: &Scene<'_>, id: ChunkserverId) -> u64 {
    let mut digest = DefaultHasher::new();
    for id in scene.state.hosted(id) {
        let Some(copyset) = scene.state.copysets().get(&id) else {
            continue;
        };
        (id.get(), copyset.conf_epoch, copyset.formed).hash(&mut digest);
        let pool = scene.state.pools().get(&copyset.pool);
        pool.map(|pool| pool.name.as_str()).hash(&mut digest);
        let (change, leaving) = (copyset.change.iter(), copyset.leaving.iter());
        let joining = change.clone().map(|change| &change.joining);
        let abandoned = change.flat_map(|change| &change.abandoned);
        hash_replicas(scene, copyset.replicas.iter(), &mut digest);
        hash_replicas(scene, joining, &mut digest);
        hash_replicas(scene, abandoned, &mut digest);
        hash_replicas(scene, leaving, &mut digest);
    }
    for id in scene.beside(id) {
        let server = scene.state.chunkservers().get(&id);
        let names = server.map(|server| (server.name.as_str(), server.zone.as_str()));
        (id.get(), names, scene.endpoints_of(id)).hash(&mut digest);
    }
    digest.finish().max(1)
}

fn hash_replicas<'a>(
    scene: &Scene<'_>,
    replicas: impl Iterator<Item = &'a Replica>,
    digest: &mut DefaultHasher,
) {
    let mut count = 0u32;
    for replica in replicas {
        count += 1;
        (replica.id.get(), replica.chunkserver.get()).hash(digest);
        (replica.store.to_bytes(), scene.endpoint(replica)).hash(digest);
    }
    count.hash(digest);
}
