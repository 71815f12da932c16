//! Limits of the group layer.

use ogee_proto::limit::{
    BLOCK_SIZE, BLOCKS_PER_CHUNK, EXTENT_SIZE, FRAME_META_MAX, REPLICATION_PAYLOAD_MAX,
    REQUEST_PAYLOAD_MAX, SESSION_WINDOW_MAX,
};
use std::time::Duration;

/// Payload bytes of one `AppendEntries`: one device round of the follower's log.
pub const APPEND_BYTES_MAX: usize = REPLICATION_PAYLOAD_MAX;
/// A follower may lack one part in so many of the store's log before it is left to a snapshot.
pub const BEHIND_SHARE: u64 = 4;
/// How long such a follower gets no append stream: the log is purged meanwhile.
pub const SHUN_TIME: Duration = Duration::from_secs(1);
/// Entries of one `AppendEntries`: bounds its structured part (64 bytes an entry).
pub const APPEND_ENTRIES_MAX: usize = 1024;
/// `AppendEntries` on the wire without an answer, per follower and group.
///
/// openraft's follower buffers 64; half of it keeps both ends busy and bounds the bytes in flight.
pub const APPEND_WINDOW: usize = 32;
/// Answers of one append stream that wait for openraft to take them.
pub const APPEND_REPLIES_MAX: usize = 2 * APPEND_WINDOW;
/// Entries that the target of a leadership transfer may still lack: under load there always are
/// some on their way, and the target waits for them for an election time.
pub const TRANSFER_LAG_MAX: u64 = 2 * APPEND_WINDOW as u64;
/// Quiet groups of one beat; more go in several. Bounds its meta to 144 KiB.
pub const BEATS_MAX: usize = 4096;
/// Entries that a new replica may lack when it becomes a voter: it has them before it is missed.
pub const PROMOTE_LAG_MAX: u64 = APPEND_ENTRIES_MAX as u64;
/// Encoded length of a command's head in a log record.
pub const COMMAND_HEAD_LEN: usize = 66;
/// Free room below which a log is not kept for a replica that is being copied to.
pub const LOG_MARGIN_MAX: u64 = 128 << 20;
/// Blocks that one group may hold in the log only; more are answered with Retry. Bounds the index.
pub const OVERLAY_BLOCKS_MAX: usize = 1 << 20;
/// Blocks that a store's groups together hold in the log only before write-back starts: 1 GiB.
pub const OVERLAY_BLOCKS_START: usize = 1 << 18;
/// Bytes of extents that must be free for new data to be let in: what is still on its way fits.
pub const STORE_RESERVE_MAX: u64 = 64 << 20;
/// Map pages that must be free beside those that are promised, for the same reason.
pub const MAP_PAGES_RESERVE: usize = 16;
/// One part in so many of both reserves is left to write-back when followers and copies have used the
/// rest.
pub const RESERVE_LAST_SHARE: usize = 4;
/// Extents that a group must be let in for the largest request to pass, however it lies: below that its
/// store counts as full.
pub const ROOM_SHARE_MIN: usize = REQUEST_PAYLOAD_MAX / EXTENT_SIZE + 1;
/// A follower whose store had no room for what it was sent is tried again after this time, and after
/// twice as long each time that it still has none,
pub const FULL_PAUSE_MIN: Duration = Duration::from_secs(1);
/// up to this. At once, though never within the shortest pause, when it says that it has more room.
pub const FULL_PAUSE_MAX: Duration = Duration::from_secs(30);
/// A follower's word for its room counts for so many times the longest election timeout.
pub const ROOM_WORD_TERMS: u32 = 3;
/// Entries that no majority has room for are taken into the log by a follower that has refused them so
/// long ago: less than the shortest pause before it is asked again.
pub const OVERDRAFT_AFTER: Duration = Duration::from_millis(500);
/// As long as all that is in the log is no more than one part in so many of it.
pub const OVERDRAFT_LOG_SHARE: u64 = 4;
/// Writes to new extents that a group's growth remembers, 16 bytes each: a follower that lacks more is
/// not counted on.
pub const GROWTH_STEPS_MAX: usize = 1024;
/// Extents that a follower must have room for, for a full leader to hand over to it.
pub const HAND_OVER_ROOM_MIN: u64 = 16;
/// A full leader tries to hand over at most this often.
pub const HAND_OVER_GAP: Duration = Duration::from_secs(5);
/// That a change of members waits for room is told at most this often.
pub const CHANGE_TOLD_GAP: Duration = Duration::from_secs(60);
/// A full store's keeper runs at most this often to make room.
pub const ROOM_CYCLE_GAP: Duration = Duration::from_secs(1);
/// Payload from which on a write goes to extents of its own, in bytes: the unit of allocation.
pub const REDIRECT_LEN_MIN: usize = EXTENT_SIZE;
/// Blocks that one `write_back` call carries: 1 MiB.
pub const WRITE_BACK_BLOCKS: usize = 256;
/// `write_back` calls in flight for one store.
pub const WRITE_BACK_INFLIGHT: usize = 4;
/// Bytes per second that always may enter the log: pacing slows writers down, it never stops them.
pub const PACE_RATE_MIN: u64 = 4 << 20;
/// Longest that pacing holds one write up.
pub const PACE_WAIT_MAX: Duration = Duration::from_millis(250);
/// The same below a limit that a copy sets: writers have to keep to it. Below a client's patience.
pub const LIMIT_WAIT_MAX: Duration = Duration::from_secs(1);
/// Tries of a read that races with write-back or a purge before it is given up.
pub const READ_TRIES: usize = 8;
/// Sequences that one session may have applied above its watermark.
pub const SESSION_APPLIED_MAX: u64 = SESSION_WINDOW_MAX;
/// Removed volumes whose users a group keeps fenced: 40 bytes each in checkpoints and snapshots.
pub const SESSIONS_REMOVED_MAX: usize = 1024;
/// Entries asked for at once by a replica whose log is damaged.
pub const MEND_ENTRIES_MAX: u64 = 1024;
/// Bytes of their heads and fixed fields in one answer.
pub const MEND_META_MAX: usize = FRAME_META_MAX - 64;
/// Blocks asked for at once by a replica whose own are damaged: an extent.
pub const REPAIR_BLOCKS_MAX: usize = 16;
/// Places with damaged blocks that wait to be repaired, of one replica.
pub const REPAIRS_WAITING_MAX: usize = 256;
/// How long one replica may take to answer it.
pub const REPAIR_ASK_WAIT: Duration = Duration::from_secs(1);
/// How long a read waits until the blocks are repaired that it found damaged.
pub const REPAIR_READ_WAIT: Duration = Duration::from_secs(2);
/// Pauses between rounds in which not everything was repaired: the first, and the longest.
pub const REPAIR_PAUSE_MIN: Duration = Duration::from_millis(100);
/// Times in a row that no other replica has a block, all of them having answered, before it counts as lost.
pub const REPAIR_ROUNDS_LOST: u32 = 2;
/// See [`REPAIR_PAUSE_MIN`].
pub const REPAIR_PAUSE_MAX: Duration = Duration::from_secs(60);
/// How long one replica may take to answer.
pub const MEND_ASK_WAIT: Duration = Duration::from_secs(2);
/// Pauses between rounds in which nobody had what is lost: the first, and the longest.
pub const MEND_PAUSE_MIN: Duration = Duration::from_millis(50);
/// See [`MEND_PAUSE_MIN`].
pub const MEND_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Blocks of one piece in which replicas are compared: 1 MiB, of which each answers 5 bytes a block.
pub const PIECE_BLOCKS: usize = 256;
/// Its bytes.
pub const PIECE_LEN: usize = PIECE_BLOCKS * BLOCK_SIZE;
/// Blocks of it that are read at once: 256 KiB, as scrubbing does.
pub const PIECE_READ_BLOCKS: usize = 64;
/// Pieces that one replica sums up at a time: each leader of a store asks for one after the other.
pub const PIECES_MAX: usize = 64;
/// Times that a piece is tried at once of which something is written back while it is read, or is being repaired.
pub const PIECE_TRIES: u32 = 4;
/// Between two of them.
pub const PIECE_PAUSE: Duration = Duration::from_millis(500);
/// How long one frame waits for a replica's answer: below what a caller waits.
pub const PIECE_ASK_WAIT: Duration = Duration::from_secs(1);
/// How long all replicas may take for a piece.
pub const PIECE_WAIT: Duration = Duration::from_secs(60);
/// How long clients' writes to a piece may wait while what differs in it is put right.
pub const GATE_MAX: Duration = Duration::from_secs(2);
/// Places with blocks in which replicas differ that one group remembers.
pub const DISPUTES_MAX: usize = 64;
/// How long a digest's entry may be on its way to a replica.
pub const DIGEST_AWAITED: Duration = Duration::from_secs(30);
/// Digest results kept for collection, per group.
pub const DIGESTS_KEPT: usize = 16;
/// Blocks of one piece of a copy: 128 KiB, which a link of 8 Mbit/s carries in an eighth of a second.
pub const COPY_PIECE_BLOCKS: usize = 32;
/// Payload bytes of any step of a copy.
pub const COPY_PIECE_BYTES: usize = COPY_PIECE_BLOCKS * BLOCK_SIZE;
/// Chunks that one step of a copy names.
pub const COPY_KEYS_MAX: usize = 4096;
/// Chunks that a copy may have: no store maps more.
pub const COPY_CHUNKS_MAX: usize = 1 << 22;
/// Steps of one copy without an answer while nobody else wants anything, or when it has to hurry:
/// 1 MiB.
pub const COPY_WINDOW: usize = 8;
/// The same while clients or leaders do, until it is known what the copy needs.
pub const COPY_WINDOW_BUSY: usize = 2;
/// An answer that takes longer means that the way is slow: one step at a time then.
pub const COPY_SLOW: Duration = Duration::from_millis(100);
/// Changed blocks after which they are counted anew: 16 MiB.
pub const CHANGES_GENERATION: usize = 4096;
/// So many such counts are kept apart.
pub const CHANGES_GENERATIONS: usize = 48;
/// What a group may take to know what has changed. A chunk of 16 MiB takes 80 bytes in each count, and 8 more for
/// each piece of 128 KiB.
pub const CHANGES_BYTES: usize = 2 << 20;
/// What a checkpoint may take to say so, in pieces of 128 KiB: some 870 chunks, 14 GiB of a copyset.
pub const CHANGES_SAVED_BYTES: usize = 24 << 10;
/// Copies that one shard sends at a time; with [`COPY_WINDOW`] this bounds their memory.
pub const COPIES_MAX: usize = 2;
/// Copies that it sends besides to copysets that lack a replica.
pub const RECOVERIES_MORE: usize = 1;
/// A voter that has answered nothing for so many times the longest election is missing to its copyset.
pub const VOTER_LACKING: u32 = 5;
/// A leader hands over for damage of its own no more often than this.
pub const DECLINE_GAP: Duration = Duration::from_secs(30);
/// Blocks between two that are wanted are read and sent along if there are fewer: cheaper than
/// another request to the device.
pub const COPY_GAP_BLOCKS: u32 = 2;
/// What a broken-off copy has brought is remembered for so long, by both ends.
pub const COPY_KEPT: Duration = Duration::from_secs(120);
/// How often a copy compares what it sends with what writers change.
pub const COPY_LOOK: Duration = Duration::from_secs(1);
/// A copy that does not send as many blocks for ten that writers change takes more of the machine.
pub const COPY_GAIN_LOW: u64 = 15;
/// One that sends more gives some of it back.
pub const COPY_GAIN_HIGH: u64 = 40;
/// Looks in a row at which a copy that takes all that it may gains nothing, before writers give way.
pub const COPY_OUTRUN_LOOKS: u32 = 5;
/// What writers keep then, in percent of what they had.
pub const COPY_WRITERS_PERCENT: u64 = 75;
/// Looks in a row after which it is reported if that did not help either.
pub const COPY_REPORT_LOOKS: u32 = 30;
/// The end of a copy may begin when the rest takes no more of the log, in parts of it, while it is sent.
pub const LAST_PASS_SHARE: u64 = 5;
/// Nor longer than this.
pub const LAST_PASS_SEND_MAX: Duration = Duration::from_secs(5);
/// At the end of a copy, this much of the log is there for what is written meanwhile, in percent. The
/// margin below which no log is kept lies above it.
pub const LAST_PASS_PERCENT: u64 = 70;
/// Writers get that room at a rate at which what is left lasts so long: the less, the slower.
pub const LAST_PASS_HORIZON: Duration = Duration::from_secs(4);
/// Writers are held back for the end of one copy no longer than this.
pub const LAST_PASS_MAX: Duration = Duration::from_secs(20);
/// How soon openraft must ask for the copy again once its end is prepared; it backs off for 200 ms.
pub const LAST_PASS_PICKUP: Duration = Duration::from_secs(3);
/// Least time between two passes while the end of a copy is being prepared.
pub const PASS_GAP: Duration = Duration::from_millis(100);
/// A replica that got its copy has the log kept for so long to catch up.
pub const CATCH_UP_KEPT: Duration = Duration::from_secs(60);
/// It has caught up when it lacks one part in so many of the log.
pub const CAUGHT_UP_SHARE: u64 = 16;
/// How often it is looked how far it is.
pub const CATCH_UP_LOOK: Duration = Duration::from_millis(50);
/// While it makes no progress for so long, or comes no nearer, writers are not held back for it.
pub const CATCH_UP_STUCK: Duration = Duration::from_secs(3);
/// Times in a row that it takes entries and comes no nearer before the log goes without it.
pub const CATCH_UP_LOSSES: u32 = 2;
/// A replica that fell behind again so gets its next copy after this time, and after twice as long
/// each time that it happens again,
pub const COPY_AGAIN_MIN: Duration = Duration::from_secs(10);
/// up to this.
pub const COPY_AGAIN_MAX: Duration = Duration::from_secs(60);

/// Replicas of which a shard remembers where they are: of many more groups than one has.
pub const REPLICAS_KNOWN_MAX: usize = 1 << 16;
/// Peer shards that it has callers to before those are dropped that nobody is known to be at.
pub const CALLERS_MAX: usize = 1 << 10;

const _: () = assert!(
    APPEND_WINDOW <= 64,
    "openraft's follower buffers 64 requests"
);
const _: () = assert!(MAP_PAGES_RESERVE.is_multiple_of(RESERVE_LAST_SHARE));
const _: () = assert!(FULL_PAUSE_MAX.as_secs() < COPY_KEPT.as_secs());
const _: () = assert!(OVERDRAFT_AFTER.as_millis() < FULL_PAUSE_MIN.as_millis());
const _: () = assert!(4 + 36 * BEATS_MAX <= FRAME_META_MAX);
const _: () = assert!(BLOCKS_PER_CHUNK.is_multiple_of(COPY_PIECE_BLOCKS));
const _: () = assert!(
    COPY_PIECE_BLOCKS == 32,
    "a u32 says which blocks of a piece there are"
);
const _: () = assert!(LAST_PASS_PERCENT < 75, "a quarter of the log is its margin");
const _: () = assert!(
    CAUGHT_UP_SHARE > BEHIND_SHARE,
    "or it would be left to another copy"
);
const _: () = assert!(COPY_PIECE_BYTES <= REPLICATION_PAYLOAD_MAX);
const _: () = assert!(COPY_KEYS_MAX * 12 <= COPY_PIECE_BYTES);
const _: () = assert!(REDIRECT_LEN_MIN >= EXTENT_SIZE);
