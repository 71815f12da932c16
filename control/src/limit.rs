//! Limits of the metadata server, derived where they depend on each other.

use std::time::Duration;

use ogee_proto::limit::{CHUNK_SIZE, VOLUME_COPYSETS_MAX, VOLUME_SIZE_MAX};

/// Pools of a cluster.
pub const POOLS_MAX: usize = 64;
/// Chunkservers of a cluster.
pub const CHUNKSERVERS_MAX: usize = 4096;
/// Stores of one chunkserver.
pub const STORES_PER_CHUNKSERVER_MAX: usize = 256;
/// Shard endpoints of one chunkserver.
pub const ENDPOINTS_PER_CHUNKSERVER_MAX: usize = 1024;
/// Copysets of a cluster: its metadata is one message to a metadata server that has fallen behind. What plans by
/// itself is shown for more: `scale`.
pub const COPYSETS_MAX: usize = if cfg!(feature = "scale") {
    1 << 21
} else {
    65_536
};
/// Copysets that one command makes: keeps a log entry near 1 MiB.
pub const COPYSETS_PER_COMMAND_MAX: usize = 4096;
/// Volumes of a cluster, and removed volumes whose chunks are not freed everywhere yet.
pub const VOLUMES_MAX: usize = 65_536;
/// Directories of a cluster: a listing of them fits a default 4 MiB gRPC message.
pub const DIRECTORIES_MAX: usize = 8192;
/// What is in a directory that is not removed, by name in the refusal.
pub const NOT_EMPTY_NAMES_MAX: usize = 8;
/// Owners that have a quota.
pub const OWNER_QUOTAS_MAX: usize = 4096;
/// Labels of one volume.
pub const LABELS_MAX: usize = 16;
/// Requests whose outcome is remembered: twice what a busy cluster answers while a client is patient.
pub const REQUESTS_KEPT: usize = 2048;
/// How long, in milliseconds. A client gives up far sooner.
pub const REQUEST_KEPT_MS: u64 = 600_000;
/// Readers of one volume at a time.
pub const READERS_MAX: usize = 256;
/// Volumes in one page of a listing.
pub const VOLUMES_PER_PAGE_MAX: usize = 8192;
/// Bytes after which a page ends: with labels and readers a volume takes 70 KiB at most, so a default 4 MiB gRPC
/// message holds it.
pub const PAGE_BYTES: usize = 1 << 20;
/// Bytes of a free text that a user gives: owner, host, version, path, endpoint.
pub const TEXT_LEN_MAX: usize = 255;

/// Copysets that a volume spreads over, if the pool has them and the volume has the chunks.
pub const VOLUME_COPYSETS_DEFAULT: usize = 32;
/// Chunks of one volume that one copyset carries before the volume spreads further (64 GiB).
pub const CHUNKS_PER_COPYSET_TARGET: u64 = 4096;
/// Segments of a volume map. Each new one at least doubles the copyset set, from 1 up to
/// `VOLUME_COPYSETS_MAX` = 2^10, unless the pool had too few copysets, which may happen as
/// often again.
pub const SEGMENTS_MAX: usize = 32;

/// Replicas that a store carries by default: a few groups per shard is what the data path likes.
pub const REPLICAS_PER_STORE_DEFAULT: usize = 8;

/// Requests from handlers that wait for the Raft thread.
pub const REQUEST_QUEUE: usize = 1024;
/// Raft messages from other metadata servers that wait for the Raft thread. Apart from requests,
/// so that stuck proposals never keep a new leader's messages out.
pub const PEER_QUEUE: usize = 256;
/// Requests that the Raft thread works on at once.
pub const IN_FLIGHT_MAX: usize = 256;
/// How long a request waits for a leader, a quorum and the disk.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request waits for a leader to appear before it is sent away.
pub const LEADER_WAIT: Duration = Duration::from_secs(3);
/// Pause between two tries while a new leader's lease is not valid yet.
pub const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// How long open connections may delay a stop.
pub const STOP_GRACE: Duration = Duration::from_secs(2);

/// Raft heartbeat between metadata servers, in milliseconds.
pub const RAFT_HEARTBEAT_MS: u64 = 100;
/// Shortest and longest election timeout, in milliseconds: two loaded cores must not flap.
pub const RAFT_ELECTION_MS: (u64, u64) = (500, 1000);
/// Log entries after which the metadata is written out whole.
pub const LOG_ENTRIES_PER_SNAPSHOT: u64 = 2000;
/// Log entries kept after that, for followers that lag a little.
pub const LOG_ENTRIES_KEPT: u64 = 500;
/// Bytes of log entries read at once for a follower.
pub const LOG_READ_BYTES_MAX: usize = 4 << 20;
/// One gRPC request of an operator or a chunkserver, in bytes. A heartbeat of 256 stores and
/// 8 Ki replicas fits.
pub const GRPC_REQUEST_MAX: usize = 4 << 20;
/// One Raft message, in bytes: a snapshot is sent in one piece.
pub const RAFT_MESSAGE_MAX: usize = 256 << 20;

/// Metadata servers that vote: more are slower and survive hardly more.
pub const MEMBERS_MAX: usize = 5;
/// Entries that a new member may lack when it becomes a voter.
pub const JOIN_LAG_MAX: u64 = 16;
/// How long a new member's learning is waited for by one request; it goes on afterwards.
pub const JOIN_WAIT: Duration = Duration::from_secs(3);
/// A member that answered nothing for so long does not count as one that answers.
pub const MEMBER_SILENT: Duration = Duration::from_millis(2 * RAFT_ELECTION_MS.0);
/// How long handing leadership over may take.
pub const HAND_OVER_WAIT: Duration = Duration::from_secs(3);
/// How long a metadata server that is to stop waits for another one to lead.
pub const LEAVE_WAIT: Duration = Duration::from_secs(1);
/// How long one member waits for another one's word on how it is.
pub const MEMBER_ASK: Duration = Duration::from_secs(1);
/// The same with a digest of the metadata: below what a client waits for an answer, and time for some hundred MiB.
pub const MEMBER_DIGEST: Duration = Duration::from_secs(4);

/// Replicas of a copyset.
pub const REPLICAS_MAX: usize = 5;
/// By how much restored metadata goes ahead of its backup in ids, epochs and terms: more than a cluster
/// can have issued since.
pub const RESTORE_GAP: u64 = 1 << 32;
/// The same for ids of 32 bits: pools, chunkservers, copysets.
pub const RESTORE_GAP_32: u32 = 1 << 20;
/// Chunkservers say which volumes they hold, after a restore, so often until it was accepted.
pub const STRANGERS_EVERY: Duration = Duration::from_secs(5);
/// And so often afterwards.
pub const STRANGERS_EVERY_LATER: Duration = Duration::from_secs(60);
/// Volumes and replicas that are kept in mind, of each chunkserver, that the metadata does not know.
pub const STRANGERS_MAX: usize = 4096;
/// Bytes of one part of a backup that is sent.
pub const BACKUP_PART: usize = 256 << 10;
/// Bytes of a backup file that is read.
pub const BACKUP_MAX: u64 = 1 << 30;
/// Events that are kept.
pub const EVENTS_KEPT: usize = 1024;
/// Events that one command notes.
pub const EVENTS_PER_COMMAND_MAX: usize = 128;
/// After an event that tells what was repaired on a device there is no other one of that device for so long.
pub const REPAIR_EVENT_PAUSE: Duration = Duration::from_secs(60);
/// Events in one page of a listing.
pub const EVENTS_PER_PAGE_MAX: usize = EVENTS_KEPT;

/// Replaced replicas of one copyset whose data is not deleted yet.
pub const LEAVING_MAX: usize = 8;
/// Most that a setting may allow of replicas that move at once.
pub const MOVES_MAX: usize = 8192;
/// Longest time that a setting of healing may name, in milliseconds: 30 days.
pub const TIME_MS_MAX: u64 = 30 * 24 * 3_600_000;
/// A replica that has not taken part for so long may be given up by an operator, in milliseconds.
pub const RESET_AFTER_MS: u64 = 60_000;
/// Volumes that an operator is told the names of before a copyset is reset.
pub const RESET_NAMES_MAX: usize = 64;
/// Largest weight of a pool.
pub const POOL_WEIGHT_MAX: u32 = 1_000_000;
/// How often the metadata server that leads looks whether all have been upgraded.
pub const VERSION_LOOK: Duration = Duration::from_millis(500);
/// Largest scatter width of a pool: as many devices as one may ever have.
pub const SCATTER_WIDTH_MAX: u32 = 65_536;
/// Places that carry equally little of which the one is taken that suits the scatter width best.
pub const SCATTER_EQUALS: usize = 16;
/// Shortest maintenance of a chunkserver, in milliseconds.
pub const MAINTENANCE_MS_MIN: u64 = 1000;
/// Jobs that are pending or running; the rest is planned when these have gone on.
/// A listing of them fits a default 4 MiB gRPC message.
pub const JOBS_LIVE_MAX: usize = 8192;
/// Jobs that have ended and are still told of.
pub const JOBS_KEPT: usize = 256;
/// Jobs that one command makes, or begins.
pub const JOBS_PER_COMMAND_MAX: usize = 1024;
/// Devices that one command marks.
pub const STORES_PER_COMMAND_MAX: usize = STORES_PER_CHUNKSERVER_MAX;
/// Replicas that one command notes to be ailing, or well again.
pub const NOTES_MAX: usize = 512;
/// Commands that one look at the cluster leads to.
pub const COMMANDS_PER_LOOK_MAX: usize = 64;
/// Between two looks at what is to be healed.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a job's leader transfer may take.
pub const LEAD_TIMEOUT_MS: u64 = 15_000;
/// Leader transfers that go on at once, unless an operator wants all of them now.
pub const LEADS_MAX: usize = 8;
/// A copyset whose leader was just moved is not moved again for so long to make leaders even.
pub const LEAD_COOLING_MS: u64 = 300_000;
/// What is asked of a copyset is averaged over about so long.
pub const DEMAND_MEMORY: Duration = Duration::from_secs(20);
/// Two heartbeats that are further apart say nothing of what was asked between them.
pub const DEMAND_PAUSE_MAX: Duration = Duration::from_secs(60);
/// So many bytes are as much work as one more request.
pub const DEMAND_BYTES_PER_REQUEST: f64 = 32_768.0;
/// How far replicas that are behind have come is noted so often.
pub const CHASE_EVERY: Duration = Duration::from_secs(4);
/// For so long one is watched before it is said how long it takes: two reports never lie so far apart.
pub const CHASE_MIN: Duration = Duration::from_secs(4);
/// And so many of these notes are kept of each: a minute's.
pub const CHASE_SAMPLES: usize = 16;
/// Replicas that are watched.
pub const CHASES_MAX: usize = 4096;
/// Entries that a replica lacks to be behind: fewer are gone before anybody has read of them.
pub const BEHIND_MIN: u64 = 64;
/// Moves that ended last, by which it is told how long others take.
pub const PACE_MOVES: usize = 16;
/// Less a second is nothing.
pub const DEMAND_FORGOTTEN: f64 = 0.05;
/// Less a second on average for each chunkserver is not worth a transfer.
pub const DEMAND_MIN: u64 = 50;
/// How often chunkservers are gone through for exchanges of leaders.
pub const EXCHANGE_SWEEPS_MAX: usize = 4;
/// Places with lost blocks that are remembered of one chunkserver.
pub const LOST_PER_CHUNKSERVER_MAX: usize = 256;
/// Replicas in a report to which changes are taken: more than fit the request that tells all. Beyond, reports are whole.
pub const TOLD_REPLICAS_MAX: usize = 16_384;
/// Requests of a kind between two heartbeats that say how a device fares.
pub const PACE_OPS_MIN: u64 = 3;
/// Other devices of a pool that must have been seen at work before one is compared with them.
pub const PACE_PEERS_MIN: usize = 2;
/// Leader transfers off limping devices that go on at once: each of them holds writers up.
pub const LIMPING_LEADS_MAX: usize = 64;
/// A chunkserver that came back is no target for so long.
pub const UNSTABLE_FOR: Duration = Duration::from_secs(30);
/// A copyset of which a replica was just moved to even out devices is not moved again for so long.
pub const SPREAD_COOLING_MS: u64 = 300_000;
/// Devices whose fill differs by less than one in so many parts of their capacity are level.
pub const LEVEL_SHARE: u128 = 128;
/// Nor is it worth anything to move so little.
pub const LEVEL_MOVE_MIN: u64 = 512 << 20;
/// One whose transfer was given up is not tried again by itself for so long.
pub const LEAD_RETRY_MS: u64 = 30_000;
/// Part of a device's capacity that a move leaves free: one in so many.
pub const MOVE_RESERVE: u64 = 20;
/// Orders in one heartbeat's answer.
pub const ORDERS_PER_HEARTBEAT_MAX: usize = 256;
/// Leader transfers that wait to be carried out.
pub const TRANSFERS_MAX: usize = 1024;
/// How long a leader transfer is ordered before it is given up.
pub const TRANSFER_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between two looks at who is online while a pool waits for zones.
pub const ZONE_POLL: Duration = Duration::from_millis(50);

const _: () = assert!(MOVES_MAX <= JOBS_LIVE_MAX && JOBS_PER_COMMAND_MAX <= JOBS_LIVE_MAX);
// What the simulation has is never restored.
const _: () = assert!(
    cfg!(feature = "scale")
        || RESTORE_GAP_32 as usize > COPYSETS_MAX + CHUNKSERVERS_MAX + POOLS_MAX
);
const _: () = assert!(JOIN_WAIT.as_millis() < REQUEST_TIMEOUT.as_millis());
const _: () = assert!(RAFT_HEARTBEAT_MS * 3 < RAFT_ELECTION_MS.0);
const _: () = assert!(RAFT_ELECTION_MS.0 < RAFT_ELECTION_MS.1);
const _: () = assert!(LOG_ENTRIES_KEPT < LOG_ENTRIES_PER_SNAPSHOT);
const _: () = assert!(VOLUME_COPYSETS_DEFAULT <= VOLUME_COPYSETS_MAX);
const _: () = assert!(
    VOLUME_SIZE_MAX / (CHUNK_SIZE as u64) / CHUNKS_PER_COPYSET_TARGET <= VOLUME_COPYSETS_MAX as u64,
    "the largest volume still meets the target"
);
