//! The replication floor: a chunkserver without consensus, to measure the real one against.
//!
//! *Place*: beside `perf`, above transport, store and log, whose production code it uses; it may not
//! import `group`, so nothing of Raft can get in. `perf/floor.sh` runs three of these processes; nobody
//! else should. A client finds them through a stand-in of the metadata server, and is the real one.
//! *Owner*: one shard; one thread more in the process that answers for the metadata server.
//! *Invariants*: a write is answered when two of three have it durable in their logs and it is applied
//! here; each replica writes back, makes checkpoints and purges its log by the keeper's rules
//! (`group/keeper`). A group's leader never changes, so logs of a group differ only in length: the
//! longest is right, and nothing is ever truncated.
//! *On failure*: the process ends. There is no election, no fencing, no dedupe, no copy of a replica: a
//! group stands still while its leader is away, and a leader that comes back waits for both followers,
//! whose logs may be longer than its own. Logs are kept for a follower that is away, until they are
//! full. This is a measuring device and keeps nobody's data.
//!
//! What is left of a write is what any leader has to do: take the frame, append to the log, send to two
//! followers, which append, wait for one answer or the own device, answer. Followers apply what is
//! durable, since it will never be taken back.
//!
//! | module | holds |
//! |---|---|
//! | `config`, `limit`, `error` | the words |
//! | `disk` | device, store and log, opened as a shard does |
//! | `wire` | entries in frames and in the log |
//! | `index` | which blocks are in the log only |
//! | `group` | one group's replica: appended, durable, applied |
//! | `node` | frames in, answers out |
//! | `gate`, `pacer` | what waits for room in the log |
//! | `feed` | from a leader to one follower |
//! | `recover` | a leader that comes back |
//! | `keeper` | write-back, checkpoints, purges |
//! | `read` | blocks from log or store |
//! | `control` | the stand-in of the metadata server |

mod config;
mod control;
mod disk;
mod error;
mod feed;
mod gate;
mod group;
mod index;
mod keeper;
mod limit;
mod node;
mod pacer;
mod read;
mod recover;
mod wire;

pub use config::FloorConfig;
pub use error::FloorError;
pub use limit::{NODES, VOLUME};

use node::Node;
use std::convert::Infallible;
use std::path::PathBuf;

/// Runs one of the three processes until it fails. `ready_file` is made when it serves.
///
/// # Errors
/// Why it cannot start, or had to end.
pub async fn run(
    config: FloorConfig,
    ready_file: Option<PathBuf>,
) -> Result<Infallible, FloorError> {
    let _control = match config.control {
        Some(address) => Some(control::start(address, &config)?),
        None => None,
    };
    let node = Node::start(config).await?;
    if let Some(path) = ready_file {
        let made = std::fs::write(&path, "");
        made.map_err(|source| FloorError::Ready { path, source })?;
    }
    Err(node.failed().await)
}
