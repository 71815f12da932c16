//! Limits of the floor: the production's where it has one.

use ogee_proto::limit::{FRAME_META_MAX, REPLICATION_PAYLOAD_MAX};
use std::time::Duration;

/// Processes, and replicas of each group.
pub const NODES: usize = 3;
/// Replicas that must have a write.
pub const QUORUM: usize = 2;
/// The one volume.
pub const VOLUME: &str = "floor";
/// Groups that may be asked for.
pub const GROUPS_MAX: u32 = 256;

/// Payload bytes of one frame to a follower.
pub const APPEND_BYTES_MAX: usize = REPLICATION_PAYLOAD_MAX;
/// Entries of one frame.
pub const APPEND_ENTRIES_MAX: usize = 1024;
/// Frames to one follower without an answer.
pub const APPEND_WINDOW: usize = 32;
/// Pause before a broken stream is opened again.
pub const STREAM_PAUSE: Duration = Duration::from_millis(50);

/// Log fill, in percent, at which a cycle of write-back starts.
pub const START_PERCENT: u64 = 20;
/// Log fill at which a cycle stops pausing between bursts.
pub const HURRY_PERCENT: u64 = 35;
/// Log fill that writers may have reached at the end of a cycle.
pub const PACED_PERCENT: u64 = 75;
/// A cycle starts after this time if anything was written.
pub const IDLE_CYCLE: Duration = Duration::from_secs(30);
/// How often the fill is looked at.
pub const LOOK: Duration = Duration::from_millis(100);
/// Longest pause after a burst.
pub const BURST_PAUSE_MAX: Duration = Duration::from_millis(50);
/// Blocks that one call of write-back carries.
pub const WRITE_BACK_BLOCKS: usize = 256;
/// Such calls at a time.
pub const WRITE_BACK_INFLIGHT: usize = 4;
/// Bytes per second that may always enter the log.
pub const PACE_RATE_MIN: u64 = 4 << 20;
/// Longest that pacing holds one write up.
pub const PACE_WAIT_MAX: Duration = Duration::from_millis(250);
/// Payload cache of the log: half the log, at most this.
pub const LOG_CACHE_BYTES_MAX: u64 = 256 << 20;
/// Tries of a read that races with write-back.
pub const READ_TRIES: usize = 8;

/// Meta bytes of an entry in a frame.
pub const ENTRY_META_LEN: usize = 36;
/// Meta bytes of a group in a frame.
pub const GROUP_META_LEN: usize = 12;

const _: () = assert!(
    8 + APPEND_ENTRIES_MAX * ENTRY_META_LEN + GROUPS_MAX as usize * GROUP_META_LEN
        <= FRAME_META_MAX
);
const _: () = assert!(QUORUM * 2 > NODES);
