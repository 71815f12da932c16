//! Every limit of this crate.
//!
//! *Place*: read by every module. *Owner*: none, constants. *Invariants*: asserted at compile time.
//! *On failure*: a limit that is reached is a status that names it.

use ogee_proto::limit::BLOCK_SIZE;
use std::time::Duration;

/// Handles of one kind at a time.
pub(crate) const HANDLES_MAX: usize = 4096;
/// Bytes of one read or write: what NBD's clients send at most. Larger ones gain nothing.
pub(crate) const IO_BYTES_MAX: usize = 32 << 20;
/// Requests of one volume that run at a time, if its options do not say.
pub(crate) const DEPTH_DEFAULT: u32 = 256;
/// The largest number that they may say: the client library runs so many parts of requests at a time.
pub(crate) const DEPTH_MAX: u32 = 1024;
/// Entries of a completion queue.
pub(crate) const QUEUE_CAPACITY_MAX: u32 = 65_536;
/// Notices of a new size that are waited for, per volume.
pub(crate) const NOTICES_MAX: usize = 64;
/// Orders to a client's thread, or to a volume, that wait.
pub(crate) const ORDERS_MAX: usize = 16;
/// Requests that a volume takes up before others have a turn.
pub(crate) const BURST: usize = 64;
/// A volume whose I/O was cancelled tells the metadata servers so for so long at most.
pub(crate) const DETACH_WAIT: Duration = Duration::from_secs(2);
/// Structs of the caller are not larger, in any version that we may meet.
pub(crate) const STRUCT_SIZE_MAX: usize = 4096;
/// Bytes of a name or address list.
pub(crate) const TEXT_MAX: usize = 4096;

const _: () = assert!(IO_BYTES_MAX.is_multiple_of(BLOCK_SIZE));
const _: () = assert!(DEPTH_DEFAULT <= DEPTH_MAX);
const _: () = assert!(DEPTH_MAX as usize == ogee_client::INFLIGHT_PARTS_MAX);
const _: () = assert!(HANDLES_MAX <= 1 << 16);
