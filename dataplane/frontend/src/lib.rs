//! Frontends: how users reach a volume as a block device.
//!
//! *Place*: the top of the data plane, above `client`. NBD and vhost-user-blk stand here.
//! *Owner*: one shard: the server, its connections and the disks that it exports.
//! *Invariants*: requests of any alignment become whole blocks without losing an update; what a
//! client sends is hostile input, checked before anything is allocated for it; requests under way
//! are bounded by count and bytes.
//! *On failure*: a request that fails is answered with its errno; a client that breaks the protocol
//! loses its connection; neither touches the other connections.
//!
//! | module | holds |
//! |---|---|
//! | `disk` | [`Disk`]: what a frontend needs of a volume; the volume, a limit of its rates, and a disk in memory |
//! | `align` | [`AlignedDisk`]: byte ranges onto whole blocks, by read-modify-write |
//! | `socket` | the file of a Unix socket, and who may use it |
//! | [`nbd`] | the NBD server |
//! | `vhost` | the vhost-user-blk server (feature `vhost-user`) |

mod align;
mod disk;
mod limit;
mod socket;

pub mod nbd;
#[cfg(feature = "vhost-user")]
pub mod vhost;

pub use align::AlignedDisk;
pub use disk::{BlockRun, Disk, DiskError, LimitedDisk, Rates};
#[cfg(any(test, feature = "test-utils"))]
pub use disk::{MemoryDisk, MemoryFault, MemoryStats};
pub use limit::{CONNECTIONS_MAX, PAYLOAD_MAX, REQUEST_BYTES_MAX, REQUESTS_MAX};
#[cfg(feature = "vhost-user")]
pub use limit::{DISK_BYTES_MAX, DISK_REQUESTS_MAX, QUEUE_SIZE_MAX, QUEUES_MAX};
pub use socket::{SocketAccess, SocketError};
