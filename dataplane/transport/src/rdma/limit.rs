//! Every limit of the RDMA carrier, with its reason.

use ogee_proto::limit::{FRAME_HEADER_SIZE, FRAME_META_MAX, REPLICATION_PAYLOAD_MAX};
use std::time::Duration;

/// A head of a message, the first part of every receive buffer: what a message says of itself, a frame's
/// header, a short meta.
pub(super) const HEAD_LEN: usize = 256;
/// What a message says of itself.
pub(super) const PREFIX_LEN: usize = 32;
/// Meta that travels in the head.
pub(super) const HEAD_META_MAX: usize = HEAD_LEN - PREFIX_LEN - FRAME_HEADER_SIZE;
/// The second part of a receive buffer. Up to here a payload travels in its message: four blocks, which is where on
/// a fast network one more trip costs what the copy does. (To be measured on a real adapter.)
pub(super) const BODY_LEN: usize = 16 << 10;
/// Memory for a payload of a few extents: most of the large ones.
pub(super) const MEDIUM_LEN: usize = 128 << 10;
/// Memory for the others.
pub(super) const LARGE_LEN: usize = REPLICATION_PAYLOAD_MAX;

/// The least number of receive buffers that a connection can live with: one is kept for giving back.
pub(super) const GRANT_MIN: u32 = 4;
/// The most that one connection gets: twice 128 KiB of small requests under way.
pub(super) const GRANT_MAX: u32 = 32;
/// Part of what is left that the next connection gets.
pub(super) const GRANT_SHARE: u32 = 16;
/// Work requests of a connection: the messages that it may be granted, and for each what moves its payload.
pub(super) const DEPTH: u32 = 2 * GRANT_MAX;
/// Pieces of one send or receive: head and body.
pub(super) const PARTS: u32 = 2;
/// Frames from the front of an inbox whose payloads are read before the user has come to them.
pub(super) const READ_AHEAD: usize = 4;
/// Payload that may wait for the user before parts are held back.
pub(super) const INBOX_BYTES_MAX: usize = 1 << 20;
/// Requests of one connection whose answers have memory lent for them; part of the protocol.
pub(super) const ANSWERS_MAX: usize = 1024;

/// A peer from which a user's memory was recalled is lent none for so long. What it writes too late breaks the connection, which
/// all volumes share, and costs each of their requests a second or so: a slow peer is to cost that once a minute, not once for
/// each request that it is too slow for; and one that was slow once costs no more than a minute of copies.
pub(super) const LEND_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Such peers that are remembered: of a larger cluster, some are tried again sooner.
pub(super) const LATE_PEERS_MAX: usize = 1024;

/// Memory of others is registered so much at a time: the shard waits for it, 20 ms or so.
pub(super) const STRETCH: usize = 64 << 20;

/// Heads beside those of receive buffers: for messages under way.
pub(super) const HEADS_SENT: u32 = 1024;
/// Completions taken in one turn of the pump.
pub(super) const TURN: usize = 64;
/// How often the pump looks for events of connections while it does not sleep.
pub(super) const LOOK_AT_EVENTS: Duration = Duration::from_millis(1);
/// How often it looks for events of the device meanwhile.
pub(super) const LOOK_AT_DEVICE: Duration = Duration::from_millis(100);
/// Between two tries of a listener whose device has gone.
pub(super) const BIND_AGAIN: Duration = Duration::from_secs(1);
/// Addresses of this host whose devices are remembered.
pub(super) const ADDRESSES_MAX: usize = 64;
/// Requests to connect that wait to be accepted.
pub(super) const BACKLOG: u16 = 128;

/// Packets that nobody acknowledges are sent again so often.
pub(super) const RETRIES: u8 = 5;
/// The same of messages for which the peer has no buffer, which it should always have.
pub(super) const RECEIVER_RETRIES: u8 = 3;
/// 4.096 µs × 2^16 = 268 ms: with [`RETRIES`] a peer that is gone is noticed in about 1.6 s.
pub(super) const ACK_TIMEOUT: u8 = 16;
/// RDMA READs under way in one connection.
pub(super) const READS: u8 = 16;
/// Silence that ends a connection, unless something else is configured, and how often to speak.
pub(super) const SILENT_AFTER: Duration = Duration::from_millis(1500);
/// See [`SILENT_AFTER`].
pub(super) const PING_AFTER: Duration = Duration::from_millis(250);
/// For finding an address and a route.
pub(super) const RESOLVE: Duration = Duration::from_secs(2);

const _: () = assert!(HEAD_META_MAX == 96);
const _: () = assert!(BODY_LEN.is_multiple_of(4096) && LARGE_LEN.is_multiple_of(4096));
const _: () =
    assert!(MEDIUM_LEN.is_multiple_of(4096) && BODY_LEN < MEDIUM_LEN && MEDIUM_LEN < LARGE_LEN);
const _: () = assert!(FRAME_META_MAX > HEAD_META_MAX && LARGE_LEN > BODY_LEN);
// Half of a grant is given back at a time, and one message for giving back is among it.
const _: () = assert!(GRANT_MIN >= 4);
const _: () = assert!(RETRIES <= 6 && RECEIVER_RETRIES <= 6);
