//! Commands on chunkservers, pools and copysets.

use std::borrow::Cow;
use std::collections::BTreeSet;

use ogee_proto::id::{ChunkserverId, CopysetId, PoolId, ReplicaId, StoreId};

use super::command::{
    ConfirmReplicas, CreateCopysets, CreatePool, Outcome, RegisterChunkserver, Reply,
};
use super::model::{Chunkserver, Copyset, Pool, Replica, State, Store};
use super::pool::check_scatter_width;
use super::refusal::Refusal;
use crate::limit::{
    CHUNKSERVERS_MAX, COPYSETS_MAX, COPYSETS_PER_COMMAND_MAX, ENDPOINTS_PER_CHUNKSERVER_MAX,
    POOLS_MAX, STORES_PER_CHUNKSERVER_MAX, TEXT_LEN_MAX,
};

impl State {
    pub(super) fn register_chunkserver(&mut self, command: &RegisterChunkserver) -> Outcome {
        let known = self
            .chunkservers
            .iter()
            .find(|(_, c)| c.name == command.name)
            .map(|(id, _)| *id);
        self.check_registration(known, command)?;
        let id = known.unwrap_or_else(|| {
            self.issued.chunkserver += 1;
            ChunkserverId::new(self.issued.chunkserver)
        });
        let record = self.chunkservers.entry(id).or_insert_with(|| Chunkserver {
            name: command.name.clone(),
            zone: command.zone.clone(),
            server: command.server.clone(),
            endpoints: Vec::new(),
            version: String::new(),
            stores: BTreeSet::new(),
        });
        record.zone.clone_from(&command.zone);
        record.server.clone_from(&command.server);
        record.endpoints.clone_from(&command.endpoints);
        record.version.clone_from(&command.version);
        for spec in &command.stores {
            record.stores.insert(spec.id);
            let store = Store {
                chunkserver: id,
                shard: spec.shard,
                path: spec.path.clone(),
                capacity: spec.capacity,
                log_capacity: spec.log_capacity,
                class: spec.class,
            };
            self.stores.insert(spec.id, store);
        }
        Ok(Reply::Chunkserver(id))
    }

    fn check_registration(
        &self,
        known: Option<ChunkserverId>,
        command: &RegisterChunkserver,
    ) -> Result<(), Refusal> {
        check_count(
            "endpoints",
            command.endpoints.len(),
            ENDPOINTS_PER_CHUNKSERVER_MAX,
        )?;
        check_text("version", &command.version)?;
        for endpoint in &command.endpoints {
            check_text("endpoint", endpoint)?;
        }
        let mut stores: BTreeSet<StoreId> = command.stores.iter().map(|s| s.id).collect();
        if let Some(record) = known.and_then(|id| self.chunkservers.get(&id)) {
            stores.extend(&record.stores);
            self.check_zone(known, record, command)?;
        } else {
            check_count(
                "chunkservers",
                self.chunkservers.len() + 1,
                CHUNKSERVERS_MAX,
            )?;
        }
        check_count(
            "stores of a chunkserver",
            stores.len(),
            STORES_PER_CHUNKSERVER_MAX,
        )?;
        command.stores.iter().try_for_each(|spec| {
            check_text("path", &spec.path)?;
            if usize::from(spec.shard) >= command.endpoints.len() {
                return Err(Refusal::NoShard {
                    store: spec.id,
                    shard: spec.shard,
                });
            }
            match self.stores.get(&spec.id) {
                Some(store) if Some(store.chunkserver) != known => Err(Refusal::StoreElsewhere {
                    store: spec.id,
                    owner: store.chunkserver,
                }),
                _ => Ok(()),
            }
        })
    }

    fn check_zone(
        &self,
        known: Option<ChunkserverId>,
        record: &Chunkserver,
        command: &RegisterChunkserver,
    ) -> Result<(), Refusal> {
        let hosts = known.is_some_and(|id| self.hosted(id).next().is_some());
        if hosts && record.zone != command.zone {
            return Err(Refusal::ZoneChange {
                name: record.name.clone(),
                from: record.zone.clone(),
                to: command.zone.clone(),
            });
        }
        Ok(())
    }

    /// What would refuse a new pool, before its copysets are placed.
    ///
    /// # Errors
    /// The refusal that [`State::apply`] would answer.
    pub fn check_pool(&self, command: &CreatePool) -> Result<(), Refusal> {
        if !matches!(command.replicas, 1 | 3 | 5) {
            return Err(Refusal::BadReplicas {
                replicas: command.replicas.into(),
            });
        }
        check_scatter_width(command.scatter_width, command.replicas)?;
        match self.pool(command.name.as_str()) {
            Ok((_, pool))
                if pool.copysets.is_empty()
                    && pool.replicas == command.replicas
                    && pool.scatter_width == command.scatter_width
                    && pool.class == command.class =>
            {
                Ok(())
            }
            Ok(_) => Err(Refusal::PoolExists {
                name: command.name.clone(),
            }),
            Err(_) => check_count("pools", self.pools.len() + 1, POOLS_MAX),
        }
    }

    pub(super) fn create_pool(&mut self, command: &CreatePool) -> Outcome {
        self.check_pool(command)?;
        if let Ok((id, _)) = self.pool(command.name.as_str()) {
            return Ok(Reply::Pool(id));
        }
        self.issued.pool += 1;
        let id = PoolId::new(self.issued.pool);
        let pool = Pool {
            name: command.name.clone(),
            replicas: command.replicas,
            copysets: BTreeSet::new(),
            class: command.class,
            is_closed: false,
            quota: 0,
            weight: 0,
            scatter_width: command.scatter_width,
        };
        self.pools.insert(id, pool);
        Ok(Reply::Pool(id))
    }

    pub(super) fn create_copysets(&mut self, command: &CreateCopysets) -> Outcome {
        self.check_copysets(command)?;
        let made: Vec<CopysetId> = command
            .placements
            .iter()
            .map(|placement| self.issue_copyset(command.pool, placement))
            .collect();
        if let Some(pool) = self.pools.get_mut(&command.pool) {
            pool.copysets.extend(&made);
        }
        Ok(Reply::Copysets(made))
    }

    fn check_copysets(&self, command: &CreateCopysets) -> Result<(), Refusal> {
        let gone = || Refusal::NoPool {
            name: command.pool.to_string().into(),
        };
        let pool = self.pools.get(&command.pool).ok_or_else(gone)?;
        if u32::try_from(pool.copysets.len()) != Ok(command.existing) {
            return Err(Refusal::PoolChanged {
                pool: pool.name.clone(),
            });
        }
        let new = command.placements.len();
        check_count("copysets at once", new, COPYSETS_PER_COMMAND_MAX)?;
        check_count("copysets", self.copysets.len() + new, COPYSETS_MAX)?;
        let is_of_class = |store: &StoreId| self.is_of_class(*store, command.pool);
        let fits = |placement: &Vec<StoreId>| {
            self.fits(placement, usize::from(pool.replicas)) && placement.iter().all(is_of_class)
        };
        match command.placements.iter().position(|p| !fits(p)) {
            Some(at) => Err(Refusal::BadPlacement { at }),
            None => Ok(()),
        }
    }

    /// Whether a device may carry replicas of a pool.
    #[must_use]
    pub fn is_of_class(&self, store: StoreId, pool: PoolId) -> bool {
        let wanted = self.pools.get(&pool).and_then(|pool| pool.class);
        let is = self.stores.get(&store).and_then(|store| store.class);
        wanted.is_none() || is == wanted
    }

    /// Right number of replicas, known stores, a zone of its own for each.
    fn fits(&self, placement: &[StoreId], replicas: usize) -> bool {
        let zone = |store| {
            let owner = self.stores.get(store)?.chunkserver;
            Some(&self.chunkservers.get(&owner)?.zone)
        };
        let zones: BTreeSet<_> = placement.iter().filter_map(zone).collect();
        placement.len() == replicas && zones.len() == replicas
    }

    fn issue_copyset(&mut self, pool: PoolId, placement: &[StoreId]) -> CopysetId {
        self.issued.copyset += 1;
        let id = CopysetId::new(self.issued.copyset);
        let replicas = placement
            .iter()
            .filter_map(|store| {
                let chunkserver = self.stores.get(store)?.chunkserver;
                self.issued.replica += 1;
                self.hosted.entry(chunkserver).or_default().insert(id);
                let id = ReplicaId::new(self.issued.replica);
                Some(Replica {
                    id,
                    chunkserver,
                    store: *store,
                    created: false,
                })
            })
            .collect();
        let copyset = Copyset {
            pool,
            replicas,
            conf_epoch: 1,
            formed: false,
            chunks: 0,
            change: None,
            leaving: Vec::new(),
            vacant: Vec::new(),
            reset: None,
        };
        self.copysets.insert(id, copyset);
        id
    }

    /// Every copyset carries so many chunks, as if there were volumes.
    #[cfg(any(test, feature = "scale"))]
    pub(crate) fn fill(&mut self, chunks: u64) {
        for copyset in self.copysets.values_mut() {
            copyset.chunks = chunks;
        }
    }

    pub(super) fn confirm_replicas(&mut self, command: &ConfirmReplicas) -> Reply {
        for (copyset, replica) in &command.created {
            let found = self.copysets.get_mut(copyset).into_iter().flat_map(|c| {
                let joining = c.change.iter_mut().map(|change| &mut change.joining);
                c.replicas.iter_mut().chain(joining)
            });
            for found in found.filter(|r| r.id == *replica) {
                found.created = true;
            }
            self.confirm_reset(*copyset, *replica);
        }
        for copyset in &command.formed {
            if let Some(found) = self.copysets.get_mut(copyset) {
                found.formed = true;
            }
        }
        Reply::Done
    }
}

pub(crate) const fn check_count(of: &'static str, count: usize, max: usize) -> Result<(), Refusal> {
    if count > max {
        Err(Refusal::Limit {
            of: Cow::Borrowed(of),
            max,
        })
    } else {
        Ok(())
    }
}

pub(super) const fn check_text(field: &'static str, text: &str) -> Result<(), Refusal> {
    let len = text.len();
    if len > TEXT_LEN_MAX {
        Err(Refusal::TextTooLong {
            field: Cow::Borrowed(field),
            len,
        })
    } else {
        Ok(())
    }
}
