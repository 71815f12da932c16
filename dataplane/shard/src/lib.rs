//! The chunkserver: shards that serve groups, and the control thread beside them.
//!
//! *Place*: the top of the storage side. Frames come from clients and peers to a shard's listener;
//! orders come from the MDS to the control thread.
//! *Owner*: one process; N executors (shards) share nothing, one tokio thread talks to the MDS.
//! *Invariants*: only control messages cross threads, over bounded channels. I/O goes on with every
//! MDS down.
//! *On failure*: a shard that ends takes the process with it, so that no half of it lives on.

mod chunkserver;
mod config;
mod control;
mod error;
mod limit;
mod order;
mod shard;

pub use chunkserver::{Chunkserver, StopHandle};
pub use config::{BackgroundConfig, ChunkserverConfig, ScrubConfig, ScrubHours, StoreConfig};
pub use error::ShardError;
pub use limit::{BACKGROUND_RATE_MAX, BACKGROUND_RATE_MIN};
pub use ogee_store::STORE_MAGIC;

/// One shard without its process, for the deterministic simulator, which gives the orders itself.
#[cfg(ogee_sim)]
pub mod simulated {
    pub use crate::order::{
        ChangeMembers, ReplicaStatus, ShardEvent, ShardOrder, ShardReport, StoreStatus,
    };
    pub use crate::shard::{ShardSetup, run};
    pub use ogee_store::Bucket;
}
