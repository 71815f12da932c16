//! Opening the devices that a shard owns.

use super::background::Background;
use super::compare::Comparisons;
use super::light::Verified;
use super::scrub::Scrubbed;
use super::wish::Wish;
use crate::config::StoreConfig;
use crate::error::ShardError;
use crate::limit::LOG_CACHE_BYTES_MAX;
use ogee_device::{Device, DeviceError, OpenOptions};
use ogee_group::StoreKeeper;
use ogee_log::{Log, LogError, LogOptions, LogRegion};
use ogee_proto::id::StoreId;
use ogee_proto::media::MediaClass;
use ogee_proto::unit::ByteLen;
use ogee_store::{Store, StoreError, StoreParams};
use std::cell::Cell;
use std::path::Path;
use uuid::Uuid;

/// A store in use.
pub(super) struct OpenStore {
    pub(super) device: Device,
    pub(super) store: Store,
    pub(super) log: Log,
    pub(super) keeper: StoreKeeper,
    pub(super) path: String,
    pub(super) scrubbed: Scrubbed,
    pub(super) verified: Verified,
    /// What kind of device it is on.
    pub(super) class: Option<MediaClass>,
    pub(super) compared: Comparisons,
    pub(super) wish: Wish,
    pub(super) background: Background,
    /// It is being tried out.
    pub(super) is_tried: Cell<bool>,
}

impl OpenStore {
    /// Opens the store on a device; makes it if the device is empty and the cluster is known.
    pub(super) async fn open(
        config: &StoreConfig,
        cluster: Option<Uuid>,
    ) -> Result<Self, ShardError> {
        let path = &config.path;
        let device = open_device(config).await;
        let device = device.map_err(|source| ShardError::Device {
            path: path.clone(),
            source,
        })?;
        Self::on(device, config, cluster).await
    }

    pub(super) async fn on(
        device: Device,
        config: &StoreConfig,
        cluster: Option<Uuid>,
    ) -> Result<Self, ShardError> {
        let path = &config.path;
        let store = open_or_format(&device, config, cluster).await?;
        check_cluster(path, &store, cluster)?;
        let log = open_log(config, &device, &store).await?;
        let keeper = StoreKeeper::start(store.clone(), log.clone());
        Ok(Self {
            device,
            store,
            log,
            keeper,
            path: path.display().to_string(),
            class: config.class,
            scrubbed: Scrubbed::default(),
            verified: Verified::default(),
            compared: Comparisons::default(),
            wish: Wish::default(),
            background: Background::new(),
            is_tried: Cell::new(false),
        })
    }

    /// Whether its log, its write-back or a checkpoint, whoever made that, has failed for good.
    pub(super) fn has_failed(&self) -> bool {
        self.keeper.failure().is_some() || self.log.failure().is_some() || self.store.has_failed()
    }

    /// Its id.
    pub(super) fn id(&self) -> StoreId {
        self.store.id()
    }
}

async fn open_device(config: &StoreConfig) -> Result<Device, DeviceError> {
    match &config.nvme {
        Some(name) => Device::open_nvme(name, config.nvme_options),
        None => {
            let options = OpenOptions {
                create: config.create,
            };
            Device::open(&config.path, options).await
        }
    }
}

async fn open_or_format(
    device: &Device,
    config: &StoreConfig,
    cluster: Option<Uuid>,
) -> Result<Store, ShardError> {
    let failed = |source| ShardError::Store {
        path: config.path.clone(),
        source,
    };
    match (Store::open(device).await, cluster) {
        (Err(StoreError::NotFormatted { .. }), Some(cluster)) => {
            format(device, config, cluster).await?;
            Store::open(device).await.map_err(failed)
        }
        (opened, _) => opened.map_err(failed),
    }
}

async fn format(device: &Device, config: &StoreConfig, cluster: Uuid) -> Result<(), ShardError> {
    let store = StoreId::new(fresh_uuid());
    // Before anything is written: with another length the device can be made after all.
    let fits = log_options(store, config.log_len).check_len(config.log_len);
    fits.map_err(|source| ShardError::Log {
        path: config.path.clone(),
        source,
    })?;
    tracing::info!(device = device.name(), %store, "formatting");
    let params = StoreParams {
        store,
        cluster,
        log_len: config.log_len,
        force: false,
    };
    let made = Store::format(device, params).await;
    made.map_err(|source| ShardError::Store {
        path: config.path.clone(),
        source,
    })
}

/// Random bits from the runtime, which the simulator seeds.
fn fresh_uuid() -> Uuid {
    let (high, low) = (ogee_runtime::random_u64(), ogee_runtime::random_u64());
    let bytes = (u128::from(high) << 64 | u128::from(low)).to_le_bytes();
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

fn check_cluster(path: &Path, store: &Store, ours: Option<Uuid>) -> Result<(), ShardError> {
    let found = store.cluster();
    match ours {
        Some(ours) if ours != found => Err(ShardError::OtherCluster {
            path: path.to_owned(),
            store: store.id(),
            found,
            ours,
        }),
        _ => Ok(()),
    }
}

fn log_options(store: StoreId, len: ByteLen) -> LogOptions {
    let cache_len = ByteLen::new((len.get() / 2).min(LOG_CACHE_BYTES_MAX));
    // Little, so that simulated logs are read, too.
    #[cfg(ogee_sim)]
    let cache_len = ByteLen::new(cache_len.get().min(192 << 10));
    LogOptions {
        cache_len,
        // Short segments, so that simulated logs are small and go round often.
        #[cfg(ogee_sim)]
        segment_len: ByteLen::new(1 << 20),
        ..LogOptions::new(store)
    }
}

async fn open_log(config: &StoreConfig, device: &Device, store: &Store) -> Result<Log, ShardError> {
    let (start, len) = store.log_region();
    let options = log_options(store.id(), len);
    let region = LogRegion { start, len };
    let failed = |source| ShardError::Log {
        path: config.path.clone(),
        source,
    };
    let replicas: Vec<_> = store.groups().iter().map(|group| group.copyset).collect();
    match Log::open_with(device, region, options, &replicas).await {
        // A replica is in the store's checkpoint before it first votes, so a store without
        // replicas never had a log: formatting was cut short, or has just begun.
        Err(LogError::NotFormatted { .. }) if replicas.is_empty() => {
            let filled = device.zero_fill(start, len, |_| {}).await;
            filled.map_err(|source| ShardError::Device {
                path: config.path.clone(),
                source,
            })?;
            Log::format(device, region, options).await.map_err(failed)?;
            Log::open(device, region, options).await.map_err(failed)
        }
        opened => opened.map_err(failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ogee_device::{Failure, FaultPlan, FaultRule, NvmeOptions, Operation};
    use ogee_proto::id::{CopysetId, LogId};
    use ogee_store::GroupCheckpoint;

    fn config(path: &Path, log_len: u64) -> StoreConfig {
        StoreConfig {
            class: None,
            path: path.to_owned(),
            nvme: None,
            nvme_options: NvmeOptions::default(),
            create: Some(ByteLen::new(256 << 20)),
            log_len: ByteLen::new(log_len),
            shard: 0,
        }
    }

    /// The keeper has nothing to do and sees nothing of it: the verification of metadata makes checkpoints, too.
    #[test]
    fn a_store_has_failed_whoever_made_the_checkpoint() {
        ogee_runtime::executor::block_on(async {
            let memory = Device::memory(ByteLen::new(128 << 20));
            let (device, faults) = Device::fault(memory, FaultPlan::new());
            let config = config(Path::new("memory"), 64 << 20);
            let cluster = Some(Uuid::from_bytes([1; 16]));
            let open = OpenStore::on(device, &config, cluster).await;
            let open = open.expect("it fits");
            assert!(!open.has_failed());
            faults.add(FaultRule::fail(Operation::WriteDurable, Failure::Eio));
            let group = GroupCheckpoint {
                copyset: CopysetId::new(1),
                applied: LogId::default(),
                state: vec![1].into(),
            };
            assert!(open.store.checkpoint(vec![group]).await.is_err());
            assert!(open.keeper.failure().is_none(), "it was not the keeper's");
            assert!(open.has_failed());
            open.keeper.stop();
        });
    }

    #[test]
    fn a_log_that_is_too_small_is_refused_before_the_device_is_written_to() {
        ogee_runtime::executor::block_on(async {
            let folder = tempfile::tempdir().expect("there is room");
            let config = |log_len: u64| config(&folder.path().join("store"), log_len);
            let cluster = Some(Uuid::from_bytes([1; 16]));
            let refused = OpenStore::open(&config(8 << 20), cluster).await.err();
            let said = refused.expect("8 MiB are no log").to_string();
            assert!(said.contains("region length of"), "{said}");
            assert!(said.contains("store"), "{said}");
            let opened = OpenStore::open(&config(64 << 20), cluster).await;
            assert!(opened.is_ok(), "another length will do: {:?}", opened.err());
        });
    }
}
