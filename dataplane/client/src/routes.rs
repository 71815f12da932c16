//! From a chunk to a connection: the map, the copysets, one caller for each shard endpoint.
//!
//! *Place*: between `core` and the transport; `refresh` installs newer maps.
//! *Owner*: the shard of the volume.
//! *Invariants*: all copysets that lead on one shard share one connection; callers of endpoints
//! that the map no longer names are dropped with it, so their number is bounded by the map.
//! *On failure*: a request that suspects the map asks for a newer one and goes on with the old.

use crate::attachment::Attachment;
use crate::copyset::Copyset;
use crate::limit::{ATTEMPT_TIMEOUT, BACKOFF_MAX, CONNECT_WAIT, PING_AFTER, SILENT_AFTER};
use crate::map::VolumeMap;
use ogee_proto::id::{ChunkIndex, CopysetId};
use ogee_runtime::channel::Notify;
use ogee_transport::{
    Caller, CallerOptions, ConnectionOptions, Endpoint, Hello, Keepalive, Role, Transport,
};
use rustc_hash::{FxHashMap, FxHashSet};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// The routes of one volume.
pub(crate) struct Routes {
    map: RefCell<VolumeMap>,
    copysets: RefCell<FxHashMap<CopysetId, Rc<Copyset>>>,
    callers: RefCell<FxHashMap<Endpoint, Caller>>,
    hello: Hello,
    transport: Transport,
    wanted: Cell<bool>,
    want: Notify,
}

impl Routes {
    /// Routes over a fresh map; connections are opened when first used.
    pub(crate) fn new(
        attachment: &Attachment,
        host: &str,
        transport: Transport,
        map: VolumeMap,
    ) -> Self {
        let copysets = map
            .copysets()
            .iter()
            .map(|view| (view.id, Rc::new(Copyset::new(view))));
        Self {
            copysets: RefCell::new(copysets.collect()),
            map: RefCell::new(map),
            callers: RefCell::default(),
            hello: Hello::new(Role::Client, attachment.client.get(), host),
            transport,
            wanted: Cell::new(false),
            want: Notify::new(),
        }
    }

    /// The copyset that carries `chunk`.
    pub(crate) fn copyset(&self, chunk: ChunkIndex) -> Rc<Copyset> {
        let id = self.map.borrow().copyset_of(chunk);
        let copysets = self.copysets.borrow();
        Rc::clone(
            copysets
                .get(&id)
                .expect("invariant: a map describes each copyset it names"),
        )
    }

    /// Every copyset of the map.
    pub(crate) fn copysets(&self) -> Vec<Rc<Copyset>> {
        self.copysets.borrow().values().map(Rc::clone).collect()
    }

    /// Copysets that are not known to have committed our seal, in order.
    pub(crate) fn unsealed(&self) -> Vec<CopysetId> {
        let copysets = self.copysets.borrow();
        let unsealed = copysets.values().filter(|copyset| !copyset.is_sealed());
        let mut ids: Vec<_> = unsealed.map(|copyset| copyset.id()).collect();
        ids.sort_unstable();
        ids
    }

    /// The connection to a shard.
    pub(crate) fn caller(&self, endpoint: &Endpoint) -> Caller {
        if let Some(caller) = self.callers.borrow().get(endpoint) {
            return caller.clone();
        }
        let caller = Caller::with_options(
            endpoint.clone(),
            self.hello.clone(),
            caller_options(self.transport),
        );
        self.callers
            .borrow_mut()
            .insert(endpoint.clone(), caller.clone());
        caller
    }

    /// Takes a newer map.
    pub(crate) fn install(&self, map: VolumeMap) {
        let mut copysets = self.copysets.borrow_mut();
        for view in map.copysets() {
            match copysets.get(&view.id) {
                Some(copyset) => copyset.update(view),
                None => {
                    copysets.insert(view.id, Rc::new(Copyset::new(view)));
                }
            }
        }
        let named: FxHashSet<CopysetId> = map.copysets().iter().map(|view| view.id).collect();
        copysets.retain(|id, _| named.contains(id));
        let replicas = map.copysets().iter().flat_map(|view| &view.replicas);
        let endpoints: FxHashSet<_> = replicas.filter_map(|r| r.endpoint.as_ref()).collect();
        self.callers
            .borrow_mut()
            .retain(|endpoint, _| endpoints.contains(endpoint));
        *self.map.borrow_mut() = map;
    }

    /// Asks for a newer map, soon. Never waits: the answer is not needed to go on.
    pub(crate) fn want_refresh(&self) {
        if !self.wanted.replace(true) {
            self.want.notify_all();
        }
    }

    /// Waits until somebody has asked for a newer map since the last call.
    pub(crate) async fn wanted(&self) {
        while !self.wanted.replace(false) {
            self.want.notified().await;
        }
    }
}

fn caller_options(transport: Transport) -> CallerOptions {
    CallerOptions {
        connection: ConnectionOptions {
            transport,
            keepalive: Keepalive::new(PING_AFTER, SILENT_AFTER),
            ..ConnectionOptions::default()
        },
        call_timeout: ATTEMPT_TIMEOUT,
        connect_wait: CONNECT_WAIT,
        backoff_max: BACKOFF_MAX,
        ..CallerOptions::default()
    }
}
