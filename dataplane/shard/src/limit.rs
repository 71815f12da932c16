//! Limits of a chunkserver.

use ogee_proto::limit::REQUEST_PAYLOAD_MAX;
use ogee_proto::unit::ByteLen;
use std::time::Duration;

/// Payload bytes of requests that one shard works on at a time; more wait for their turn.
///
/// Enough to keep a device of 300 MB/s busy that takes 50 ms for a round; no more, since what is being
/// worked on is served in the order in which it came: a small request waits for all of it.
pub const ADMITTED_BYTES_MAX: usize = 16 << 20;
/// Payload bytes of one copyset's requests that are worked on: one that has no quorum leaves the others
/// half of the shard.
pub const ADMITTED_COPYSET_MAX: usize = ADMITTED_BYTES_MAX / 2;
/// Payload bytes of requests that wait for their turn. More is answered with Throttled.
pub const WAITING_BYTES_MAX: usize = 112 << 20;
/// A connection whose oldest request to a copyset has waited for so long may have no more of them wait:
/// well before its client gives up on the answer, and sends it all again.
pub const WAITING_TIME_MAX: Duration = Duration::from_secs(1);
/// Payload bytes of one copyset's requests, worked on and waiting.
pub const COPYSET_BYTES_MAX: usize = (ADMITTED_BYTES_MAX + WAITING_BYTES_MAX) / 4;
/// Payload bytes of peers' requests that one shard works on at a time.
pub const RAFT_BYTES_MAX: usize = 64 << 20;
/// Bytes that a request counts even if it carries less: bounds the number of requests.
pub const ADMITTED_BYTES_MIN: usize = 4096;
/// What copies, comparisons and scrubbing may take of a device, and copies of the network, in bytes per second, if nothing
/// else is configured: what a link of 10 Gbit/s carries.
pub const BACKGROUND_RATE: ByteLen = ByteLen::new(1 << 30);
/// Less would have a step of a copy wait longer than its caller does.
pub const BACKGROUND_RATE_MIN: ByteLen = ByteLen::new(4 << 20);
/// More is no limit.
pub const BACKGROUND_RATE_MAX: ByteLen = ByteLen::new(1 << 40);
/// A quiet group is woken to be compared no more often than this, if that is one burst's worth of pieces or less,
pub const COMPARE_QUIET_GAP: Duration = Duration::from_secs(60);
/// of so many: 64 MiB, which at a device's leisure is a few seconds.
pub const COMPARE_BURST_MAX: u32 = 64;
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

/// Blocks that scrubbing reads at once: 256 KiB.
pub const SCRUB_BLOCKS: usize = 64;
/// A store without contents is looked at again after so long.
pub const SCRUB_IDLE: Duration = Duration::from_secs(60);
/// Where metadata is verified only when that is wanted, it is done anyway after so long.
pub const LIGHT_UNASKED: Duration = Duration::from_secs(365 * 24 * 3600);

/// How often it is looked which groups are led here, and are to be compared.
pub const COMPARE_LOOK: Duration = Duration::from_secs(1);
/// A group of which not all replicas could be compared is tried again after so long.
pub const COMPARE_RETRY: Duration = Duration::from_secs(10);
/// A piece that is busy so many times more is left to the next pass.
pub const COMPARE_TRIES: u32 = 5;
/// One of which a replica runs an older program, after so long.
pub const COMPARE_UNABLE: Duration = Duration::from_secs(600);
/// Pieces in which replicas differ, and no rule tells who is right, are compared again after so long.
pub const DISPUTE_LOOK: Duration = Duration::from_secs(30);

/// Places with lost blocks that one shard tells of with a heartbeat; metrics count them all.
pub const LOST_REPORTED_MAX: usize = 64;
/// Replicas whose data is measured with each report: of a hundred, each once in half a minute.
pub const HELD_PER_REPORT: usize = 4;
/// Writes and reads that try a device out: as many as the MDS asks for with one heartbeat.
pub const TRIALS: usize = 3;
/// Between two of them.
pub const TRIAL_REST: Duration = Duration::from_millis(250);

const _: () = assert!(COPYSET_BYTES_MAX >= 16 * REQUEST_PAYLOAD_MAX);
const _: () = assert!(ADMITTED_COPYSET_MAX >= 8 * REQUEST_PAYLOAD_MAX);
const _: () = assert!(ADMITTED_COPYSET_MAX <= COPYSET_BYTES_MAX);

/// Volumes in one page of a listing: some 100 bytes each, and one page of all shards is one heartbeat.
pub const VOLUMES_PER_PAGE: usize = 2048;
