//! Limits of a chunkserver.

use ogee_proto::limit::REQUEST_PAYLOAD_MAX;
use std::time::Duration;

/// Payload bytes of requests that one shard works on at a time; more wait for their turn.
pub const ADMITTED_BYTES_MAX: usize = 64 << 20;
/// Payload bytes of requests that wait for their turn. More is answered with Throttled.
pub const WAITING_BYTES_MAX: usize = 64 << 20;
/// Payload bytes of one copyset's requests, worked on and waiting: one that has no quorum leaves the
/// others half of the shard.
pub const ADMITTED_COPYSET_MAX: usize = ADMITTED_BYTES_MAX / 2;
/// Bytes that a connection starts in one turn when others wait: the largest request.
pub const ADMITTED_TURN: usize = REQUEST_PAYLOAD_MAX;
/// Bytes that a request counts even if it carries less: bounds the number of requests.
pub const ADMITTED_BYTES_MIN: usize = 4096;
/// Orders that may wait for a shard.
pub const SHARD_QUEUE: usize = 256;
/// Reports that may wait for the control thread.
pub const REPORT_QUEUE: usize = 16;
/// How long a shard may take to report before the heartbeat goes without it.
pub const REPORT_WAIT: Duration = Duration::from_millis(500);
/// How long a graceful stop waits for leaders to move and for a last checkpoint.
pub const STOP_WAIT: Duration = Duration::from_secs(5);
/// Payload cache of one store's log: half the log, at most this.
pub const LOG_CACHE_BYTES_MAX: u64 = 256 << 20;

const _: () = assert!(ADMITTED_COPYSET_MAX >= 16 * REQUEST_PAYLOAD_MAX);
