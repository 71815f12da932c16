//! The client of a volume: user requests in, frames to the leaders of its copysets out.
//!
//! *Place*: above `transport`, below the frontends; the control plane is asked through [`Control`].
//! *Owner*: everything runs on the shard that opened the [`Volume`], except `mds`, which has one
//! thread of its own.
//! *Invariants*: a mutating request is applied exactly once, however often it was sent; a read
//! issued after an acknowledged write sees it; nothing here grows without a bound in `limit`.
//! *On failure*: a block device waits. A request ends with an error only if its outcome cannot
//! change any more (fenced, refused, corrupt) or if the user set a time limit.
//!
//! | module | holds |
//! |---|---|
//! | `volume` | [`Volume`]: what a frontend calls |
//! | `core` | one part of a request from slot to reply: the retry loop |
//! | `retry` | which outcome is retried where, and how long to pause |
//! | `split` | request → parts, each in one chunk |
//! | `map`, `routes` | chunk → copyset → replicas → connection |
//! | `copyset`, `belief` | what this client knows of one copyset: who leads, whether it is sealed |
//! | `seals` | fences earlier attachments off when a volume is opened |
//! | `session`, `barrier`, `ledger` | sequence numbers and watermark; what a flush waits for |
//! | `lent` | a reader's memory that chunkservers write to, until they do so no more |
//! | `inflight`, `watchdog` | slots by count and bytes; who waits too long, and for what |
//! | `window` | how much may be on its way to a copyset that has refused some |
//! | `control`, `mds` | the control plane as this crate needs it, and over gRPC |
//! | `record` | what a host keeps of an attachment, to come back without the control plane |
//! | `refresh` | keeps the map young in the background |

mod attachment;
mod barrier;
mod belief;
mod control;
mod copyset;
mod core;
mod error;
mod inflight;
mod ledger;
mod lent;
mod life;
mod limit;
mod map;
mod mds;
mod metrics;
mod record;
mod refresh;
mod retry;
mod routes;
mod seals;
mod session;
mod split;
mod volume;
mod watchdog;
mod window;

pub use control::{AttachSpec, Control, ControlFuture, Grant};
pub use error::ClientError;
pub use limit::{INFLIGHT_BYTES_MAX, INFLIGHT_PARTS_MAX};
pub use map::{CopysetView, MapError, MapSegment, ReplicaView, VolumeHead, VolumeMap};
pub use mds::{ControlError, MdsClient, MdsConfig, MdsHandle, Refusal};
pub use metrics::{ClientMetrics, ClientSnapshot, KindSnapshot};
pub use record::{KeptControl, RecordError, RecordFile};
pub use volume::{OpenOptions, Volume};
