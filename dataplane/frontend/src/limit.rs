//! Every limit of this crate, and how each follows from another.
//!
//! *Place*: read by every module. *Owner*: none, constants. *Invariants*: asserted at compile time.
//! *On failure*: said per limit; most make the client wait, as nothing more is read from it.

use ogee_proto::limit::BLOCK_SIZE;
use std::time::Duration;

/// Reads of a guest that are shorter are copied from where they arrive: they come in their answer's message, and a key for
/// another host to write by costs more than the copy.
#[cfg(feature = "vhost-user")]
pub(crate) const DIRECT_LEN_MIN: usize = (16 << 10) + 1;

/// Payload of one request or reply, in bytes: what the NBD specification asks of every server.
pub const PAYLOAD_MAX: usize = 32 << 20;
/// Requests of one connection that are under way: read and not yet answered on the wire.
pub const REQUESTS_MAX: usize = 128;
/// Payload bytes of those requests, both directions.
pub const REQUEST_BYTES_MAX: usize = 32 << 20;
/// Connections of one server; more wait in the kernel's queue until one ends.
pub const CONNECTIONS_MAX: usize = 64;

/// Requests of one disk that hold or await a block lock: all that the connections can have.
pub(crate) const LOCKS_MAX: usize = CONNECTIONS_MAX * REQUESTS_MAX;

/// Length of any string on the NBD wire, in bytes (the specification's limit).
pub(crate) const STRING_LEN_MAX: usize = 4096;
/// Data of one option, in bytes: an export name and a good dozen of queries of the longest kind.
pub(crate) const OPTION_LEN_MAX: usize = 64 << 10;
/// Exports of one registry.
pub(crate) const EXPORTS_MAX: usize = 1024;
/// Options of one negotiation: a tool that lists asks a few for each export.
pub(crate) const OPTIONS_MAX: usize = 4 * EXPORTS_MAX;
/// A negotiation ends by then, so that a silent client does not keep a connection.
pub(crate) const NEGOTIATION_TIME_MAX: Duration = Duration::from_secs(30);
/// Text that goes with an error reply, in bytes.
pub(crate) const ERROR_TEXT_MAX: usize = 512;

/// Bytes that one block status request looks at: the reply is a prefix, which the protocol allows.
pub(crate) const STATUS_SPAN_MAX: usize = 256 << 20;
/// Bytes of one run of a block status while it is under way: length, state and padding.
pub(crate) const STATUS_RUN_BYTES: usize = 16;

/// Zeros of at least this length are sent as a hole.
///
/// A shorter hole costs the client more (a chunk to parse) than the bytes that it saves.
pub(crate) const HOLE_LEN_MIN: usize = 16 << 10;

/// Payloads from this length on go from their own memory to the socket, uncopied.
pub(crate) const UNCOPIED_LEN_MIN: usize = 64 << 10;
/// The reply buffer is given back after a burst that made it larger.
pub(crate) const REPLY_BUFFER_KEPT: usize = 1 << 20;

/// Bytes that a connection reads at once.
pub(crate) const READ_CHUNK: usize = 128 << 10;
/// With less room than this a new chunk is started.
pub(crate) const READ_ROOM_MIN: usize = 8 << 10;
/// Write payloads up to this length are slices of the chunk that they arrived in.
///
/// Each keeps its whole chunk alive, so a connection holds `REQUESTS_MAX` chunks at worst.
pub(crate) const INLINE_PAYLOAD_MAX: usize = 32 << 10;

/// After the last answer is queued, a client has so long to read what is left.
pub(crate) const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);
/// Pause after a failed accept (no descriptor left, usually).
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a listener found at our socket's path has to take a connection before it counts as live.
pub(crate) const PROBE_TIME_MAX: Duration = Duration::from_secs(1);

/// Queues of one virtual disk.
#[cfg(feature = "vhost-user")]
pub const QUEUES_MAX: u16 = 64;
/// Requests in one ring.
#[cfg(feature = "vhost-user")]
pub const QUEUE_SIZE_MAX: u16 = 1024;
/// Requests of one virtual disk that are under way; more stay in its rings.
#[cfg(feature = "vhost-user")]
pub const DISK_REQUESTS_MAX: usize = 1024;
/// Payload bytes of those requests.
#[cfg(feature = "vhost-user")]
pub const DISK_BYTES_MAX: usize = 64 << 20;
/// Descriptors of one request: guests are told two less as the most segments, for header and status.
#[cfg(feature = "vhost-user")]
pub(crate) const CHAIN_MAX: u16 = 256;
/// Memory regions of a guest: as many as a message of the protocol can carry.
#[cfg(feature = "vhost-user")]
pub(crate) const MEMORY_REGIONS_MAX: usize = 32;
/// Ranges of one discard or write-zeroes request.
#[cfg(feature = "vhost-user")]
pub(crate) const DISCARD_SEGMENTS_MAX: u16 = 32;
/// Length of each of them, in bytes.
#[cfg(feature = "vhost-user")]
pub(crate) const DISCARD_LEN_MAX: u64 = 1 << 30;
/// Requests that a ring gives at once before others get their turn.
#[cfg(all(feature = "vhost-user", not(ogee_sim)))]
pub(crate) const TAKE_MAX: u16 = 64;
/// How often a ring whose kicks cannot be waited for is looked at.
#[cfg(all(feature = "vhost-user", not(ogee_sim)))]
pub(crate) const KICK_PAUSE: Duration = Duration::from_millis(5);
/// When a ring stops, what is under way has so long to end; then it is abandoned.
#[cfg(all(feature = "vhost-user", not(ogee_sim)))]
pub(crate) const STOP_TIME_MAX: Duration = Duration::from_secs(30);

const _: () = assert!(
    PAYLOAD_MAX <= REQUEST_BYTES_MAX,
    "the largest request must fit"
);
const _: () = assert!(
    STATUS_SPAN_MAX / BLOCK_SIZE * STATUS_RUN_BYTES <= REQUEST_BYTES_MAX,
    "so must the longest status"
);
const _: () = assert!(
    CONNECTIONS_MAX * (REQUEST_BYTES_MAX + REQUESTS_MAX * READ_CHUNK) <= 4 << 30,
    "what hostile clients can make one server hold"
);
const _: () = assert!(INLINE_PAYLOAD_MAX <= READ_CHUNK);
const _: () = assert!(HOLE_LEN_MIN.is_multiple_of(BLOCK_SIZE));
const _: () = assert!(STATUS_SPAN_MAX.is_multiple_of(BLOCK_SIZE));
#[cfg(feature = "vhost-user")]
const _: () = assert!(
    PAYLOAD_MAX <= DISK_BYTES_MAX,
    "the largest request must fit"
);
