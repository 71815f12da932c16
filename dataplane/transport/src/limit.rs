//! Every limit of this crate, with its reason.

use ogee_proto::limit::{FRAME_BODY_MAX, FRAME_HEADER_SIZE, NAME_LEN_MAX};
use std::time::Duration;

/// Outbound silence after which a Ping says that we are alive. A quarter of [`SILENT_AFTER`], so
/// that a peer must miss three in a row.
pub const PING_AFTER: Duration = Duration::from_millis(500);
/// Inbound silence after which a peer is given up: DESIGN.md section 7 asks for about 2 s.
pub const SILENT_AFTER: Duration = Duration::from_secs(2);
/// Bound on connecting and exchanging Hellos: covers a peer that is replaying its log on a busy
/// host, and frees the slot of one that never speaks.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a closing connection may take to write out what was queued.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// A part up to this length is copied into the output buffer: below it the copy is cheaper than a
/// write of its own.
pub const COPY_MAX: usize = 16 << 10;
/// A payload from this length on, unless it has already arrived whole, is read into a buffer of
/// its own.
pub const LARGE_MIN: usize = 64 << 10;
/// First read buffer of a connection: idle and slow ones stay this small.
pub(crate) const CHUNK_MIN: usize = 16 << 10;
/// Read buffer of a busy connection.
pub(crate) const CHUNK_MAX: usize = 256 << 10;
/// Room below which a new read buffer is taken rather than reading a few bytes.
pub(crate) const READ_MIN: usize = 4 << 10;
/// Read after a large frame: enough for the next header and its meta, little to copy if another
/// large payload follows.
pub(crate) const READ_AFTER_LARGE: usize = 4 << 10;
/// Reads without a pause before the receiver lets other tasks of the shard run (1 MiB of chunks).
pub(crate) const READS_PER_TURN: u32 = 4;

/// Frames waiting in one connection's output.
pub const QUEUE_FRAMES_MAX: usize = 1024;
/// Bytes waiting in one connection's output: six of the largest frames, a millisecond or so of a
/// fast network.
pub const QUEUE_BYTES_MAX: usize = 8 << 20;
/// Output buffer kept between writes; a larger one was a burst and is given back.
pub(crate) const OUT_KEEP_MAX: usize = 1 << 20;

/// Requests that a server lets one connection have in flight unless told otherwise: QD128 twice.
pub const CREDITS_DEFAULT: u32 = 256;
/// Connections of one service. 5,000 clients spread over several shards, with room.
pub(crate) const CONNECTIONS_MAX: usize = 4096;
/// Pause after a failed accept (out of descriptors, say), so that it cannot spin.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Meta of a Hello: role, node, credits, name with its length.
pub(crate) const HELLO_META_MAX: usize = 1 + 8 + 4 + 1 + NAME_LEN_MAX;

/// Time that one call may take.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Time that a call waits for a connection before it is told that there is none.
pub(crate) const CONNECT_WAIT: Duration = Duration::from_millis(500);
/// First pause between connection attempts.
pub(crate) const BACKOFF_MIN: Duration = Duration::from_millis(10);
/// Longest pause between connection attempts.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A peer that RDMA did not reach while TCP did is not tried over RDMA for so long.
#[cfg(feature = "rdma")]
pub(crate) const RDMA_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// Bound on connecting over RDMA where TCP is allowed, too.
#[cfg(feature = "rdma")]
pub(crate) const RDMA_CONNECT_MAX: Duration = Duration::from_secs(3);

/// Bytes in flight in one direction of a loopback connection, like a socket's buffer.
pub(crate) const LOOPBACK_PIPE_MAX: usize = 256 << 10;
/// Loopback connections waiting to be accepted, like a listen backlog.
pub(crate) const LOOPBACK_BACKLOG_MAX: usize = 128;

/// Largest frame on the wire.
pub(crate) const FRAME_MAX: usize = FRAME_HEADER_SIZE + FRAME_BODY_MAX;

const _: () = assert!(QUEUE_BYTES_MAX >= 2 * FRAME_MAX);
const _: () = assert!(COPY_MAX < LARGE_MIN);
const _: () = assert!(CHUNK_MIN >= READ_MIN && CHUNK_MIN <= CHUNK_MAX);
const _: () = assert!(READ_AFTER_LARGE > FRAME_HEADER_SIZE);
const _: () = assert!(PING_AFTER.as_millis() * 4 <= SILENT_AFTER.as_millis());
const _: () = assert!(NAME_LEN_MAX <= u8::MAX as usize);
const _: () = assert!(FRAME_HEADER_SIZE + HELLO_META_MAX <= CHUNK_MIN);
