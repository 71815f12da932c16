//! Device, store and log of one process, opened as a shard opens them.

use crate::config::FloorConfig;
use crate::error::FloorError;
use crate::limit::LOG_CACHE_BYTES_MAX;
use ogee_device::{Device, OpenOptions};
use ogee_log::{Log, LogError, LogOptions, LogRegion};
use ogee_proto::id::{CopysetId, LogId, StoreId};
use ogee_proto::unit::ByteLen;
use ogee_store::{GroupCheckpoint, Store, StoreError, StoreParams};
use uuid::Uuid;

/// What every store of the floor is formatted for: no cluster's.
const CLUSTER: Uuid = Uuid::from_bytes(*b"replicationfloor");

/// A store in use.
pub(crate) struct Disk {
    pub(crate) store: Store,
    pub(crate) log: Log,
}

impl Disk {
    /// Opens the store; makes it if there is none.
    pub(crate) async fn open(config: &FloorConfig) -> Result<Self, FloorError> {
        let options = OpenOptions {
            create: Some(config.store_len),
        };
        let failed = |source| FloorError::Device {
            path: config.store.clone(),
            source,
        };
        let device = Device::open(&config.store, options).await.map_err(failed)?;
        let store = match Store::open(&device).await {
            Err(StoreError::NotFormatted { .. }) => {
                let params = StoreParams {
                    store: StoreId::new(fresh_uuid()),
                    cluster: CLUSTER,
                    log_len: config.log_len,
                    force: false,
                };
                Store::format(&device, params).await?;
                Store::open(&device).await?
            }
            opened => opened?,
        };
        let (start, len) = store.log_region();
        let region = LogRegion { start, len };
        let options = log_options(store.id(), len);
        let groups: Vec<CopysetId> = store.groups().iter().map(|group| group.copyset).collect();
        let log = match Log::open_with(&device, region, options, &groups).await {
            Err(LogError::NotFormatted { .. }) if groups.is_empty() => {
                let filled = device.zero_fill(start, len, |_| {}).await;
                filled.map_err(failed)?;
                Log::format(&device, region, options).await?;
                Log::open(&device, region, options).await?
            }
            opened => opened?,
        };
        if groups.is_empty() {
            // From here on a log that is not there was lost.
            let none = |copyset| GroupCheckpoint {
                copyset,
                applied: LogId::default(),
                state: bytes::Bytes::new(),
            };
            store
                .checkpoint(config.groups().map(none).collect())
                .await?;
        }
        Ok(Self { store, log })
    }
}

fn fresh_uuid() -> Uuid {
    let (high, low) = (ogee_runtime::random_u64(), ogee_runtime::random_u64());
    let bytes = (u128::from(high) << 64 | u128::from(low)).to_le_bytes();
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

const fn log_options(store: StoreId, len: ByteLen) -> LogOptions {
    let half = len.get() / 2;
    let cache_len = match half < LOG_CACHE_BYTES_MAX {
        true => half,
        false => LOG_CACHE_BYTES_MAX,
    };
    LogOptions {
        cache_len: ByteLen::new(cache_len),
        ..LogOptions::new(store)
    }
}
