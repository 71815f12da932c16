//! What placement is asked.

use ogee_proto::id::{ChunkserverId, StoreId};
use ogee_proto::name::Name;

/// A store that may carry replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The store.
    pub store: StoreId,
    /// Its chunkserver: leaders are spread over these too.
    pub chunkserver: ChunkserverId,
    /// Failure domain.
    pub zone: Name,
    /// Share of replicas that it should carry: its capacity in bytes. 0 counts as 1.
    pub weight: u64,
    /// Replicas that it carries already.
    pub replicas: u64,
    /// Copysets that already prefer it as first leader.
    pub leaders: u64,
}

/// How many copysets, and of how many replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Replicas of each copyset.
    pub replicas: usize,
    /// Copysets to place.
    pub copysets: usize,
    /// With how many others each store shall share copysets, and not with many more; 0: with as many as can be.
    pub scatter_width: usize,
}
