//! Every limit of this crate, and how each follows from another.
//!
//! *Place*: read by every module. *Owner*: none, constants. *Invariants*: asserted at compile time.
//! *On failure*: a limit that is reached makes the caller wait; it never drops a request.

use ogee_proto::limit::{REPLICAS_MAX, REQUEST_PAYLOAD_MAX, SESSION_WINDOW_MAX};
use std::time::Duration;

/// Parts of one volume on the wire or waiting for a retry. Four VM queues of 256 without a wait.
pub const INFLIGHT_PARTS_MAX: usize = 1024;
/// Payload bytes of those parts, both directions: 64 requests of the largest size.
pub const INFLIGHT_BYTES_MAX: usize = 64 << 20;
/// Bytes that may be on their way to a copyset that refuses requests, at the least: the largest one.
pub(crate) const WINDOW_MIN: usize = REQUEST_PAYLOAD_MAX;
/// What is added to that for each such amount that is answered: little, since an attempt to have more
/// that is refused costs the shard as much as one that is served.
pub(crate) const WINDOW_STEP: usize = REQUEST_PAYLOAD_MAX / 8;
/// First pause of a request that an overloaded shard has refused.
pub(crate) const REFUSED_PAUSE_MIN: Duration = Duration::from_millis(20);
/// Longest pause of such a request.
pub(crate) const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Bytes that a request counts there even if it carries less, as it does at the shard.
pub(crate) const WINDOW_COST_MIN: usize = 4096;
/// Parts of one user request that run at a time; a larger request feeds the next as one ends.
///
/// Half of the byte limit, so that one huge request never starves the others.
pub(crate) const PARTS_PER_REQUEST_MAX: usize = 32;
/// Requests sent at a time to a copyset whose leader is not known: enough to find it.
///
/// Without it, every waiting payload would be carried to every replica once per pause.
pub(crate) const PROBES_MAX: usize = 4;
/// Replicas that one request tries between two pauses.
pub(crate) const ROUND_MAX: usize = REPLICAS_MAX;

/// A reply this late is given up on: the same sequence goes out again, elsewhere.
///
/// Silence of a whole peer is noticed by the transport in 2 s; this is for a peer that lives but
/// does not answer.
pub(crate) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);
/// A connection that does not stand by then is given up for the next replica: long enough for a
/// handshake on a busy host, short against an election.
pub(crate) const CONNECT_WAIT: Duration = Duration::from_millis(200);
/// First pause of a request.
pub(crate) const BACKOFF_MIN: Duration = Duration::from_millis(1);
/// Longest pause of a request, and between attempts to connect: bounds what a healed cluster waits
/// for us.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// Longest pause of a request at first: while an election may be all that it waits for, half a second
/// would be a good part of the whole wait.
pub(crate) const BACKOFF_SOON_MAX: Duration = Duration::from_millis(80);
/// Pauses that are not longer than that: some 2 s of them.
pub(crate) const BACKOFF_SOON: u32 = 40;
/// How often a connection is looked at and, where it is silent, a ping is due: twice as often as
/// the servers', so that the silence of a dead one is noticed sooner after [`SILENT_AFTER`].
pub(crate) const PING_AFTER: Duration = Duration::from_millis(250);
/// Silence of a peer after which its copysets are looked for elsewhere.
pub(crate) const SILENT_AFTER: Duration = ogee_transport::SILENT_AFTER;
/// "Busy" answers of one replica that a request takes before it looks elsewhere.
pub(crate) const PATIENCE: u32 = 8;

/// An attachment waits so long for its seals: two elections at the default times, and a reply that
/// is given up on once.
pub(crate) const SEAL_WAIT: Duration = Duration::from_secs(6);

/// The map is fetched this often without a reason.
pub(crate) const REFRESH_PERIOD: Duration = Duration::from_secs(5);
/// And never more often than this, whatever the reason.
pub(crate) const REFRESH_GAP: Duration = Duration::from_secs(1);

/// A replica that may still write to a user's memory, and whose answer nobody waits for any more, is waited for so long: what
/// it does later breaks its connection, which others use. An error reaches its user so much later at the most.
pub(crate) const RECALL_AFTER: Duration = Duration::from_secs(2);

/// How often the watchdog looks.
pub(crate) const WATCHDOG_PERIOD: Duration = Duration::from_secs(1);
/// A request older than this is reported.
pub(crate) const SLOW_AFTER: Duration = Duration::from_secs(5);
/// Reports of one volume are at least this far apart.
pub(crate) const SLOW_REPORT_GAP: Duration = Duration::from_secs(10);

/// Bytes of the record of an attachment: the map of the largest volume is far below.
pub(crate) const RECORD_LEN_MAX: u64 = 16 << 20;
/// Requests to the MDS thread that wait in its queue.
pub(crate) const MDS_QUEUE_MAX: usize = 64;
/// Requests that the MDS thread has under way.
pub(crate) const MDS_CALLS_MAX: usize = 64;
/// MDS endpoints remembered: the configured ones and those learnt from redirects.
pub(crate) const MDS_ENDPOINTS_MAX: usize = 16;
/// First pause after all MDS endpoints failed.
pub(crate) const MDS_BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Longest pause between two rounds over the MDS endpoints.
pub(crate) const MDS_BACKOFF_MAX: Duration = Duration::from_secs(1);

const _: () = assert!(INFLIGHT_PARTS_MAX as u64 <= SESSION_WINDOW_MAX);
const _: () = assert!(PARTS_PER_REQUEST_MAX * REQUEST_PAYLOAD_MAX <= INFLIGHT_BYTES_MAX);
const _: () = assert!(WINDOW_MIN <= INFLIGHT_BYTES_MAX);
const _: () = assert!(PROBES_MAX < INFLIGHT_PARTS_MAX);
const _: () = assert!(BACKOFF_MIN.as_nanos() < BACKOFF_SOON_MAX.as_nanos());
const _: () = assert!(BACKOFF_SOON_MAX.as_nanos() < BACKOFF_MAX.as_nanos());
const _: () = assert!(PING_AFTER.as_nanos() <= ogee_transport::PING_AFTER.as_nanos());
const _: () = assert!(REFUSED_PAUSE_MAX.as_nanos() < ATTEMPT_TIMEOUT.as_nanos());
const _: () = assert!(BACKOFF_MAX.as_nanos() < ATTEMPT_TIMEOUT.as_nanos());
