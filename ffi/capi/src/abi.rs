//! What the header declares beside calls.
//!
//! *Place*: read by cbindgen; comments are the header's. *Owner*: plain values of the caller.
//! *Invariants*: fields are only added, at the end, to structs that carry their size; numbers of statuses
//! are never used again. *On failure*: none.

use std::ffi::c_char;

/// Version of this interface: major in the upper 16 bits, minor in the lower. A library of the same
/// major version and at least this minor version will do: compare with ogee_abi_version().
pub const OGEE_ABI_VERSION: u32 = 1;

/// Offsets and lengths are multiples of this.
pub const OGEE_BLOCK_SIZE: u32 = 4096;

/// Bytes of one read or write.
pub const OGEE_IO_BYTES_MAX: u32 = 33_554_432;

/// Entries of a completion queue.
pub const OGEE_CQ_CAPACITY_MAX: u32 = 65_536;

/// Requests of a volume that may be under way.
pub const OGEE_DEPTH_MAX: u32 = 1024;

/// A timeout that never comes.
pub const OGEE_FOREVER: u64 = u64::MAX;

/// Flag of a volume: refuse mutations. Any number may have it open so, but not beside one that writes.
pub const OGEE_READ_ONLY: u32 = 1;

/// RDMA where the library and the chunkserver have it, else TCP.
pub const OGEE_TRANSPORT_AUTO: u32 = 0;
/// RDMA, or nothing: a library without it answers UNSUPPORTED.
pub const OGEE_TRANSPORT_RDMA: u32 = 1;
/// TCP only.
pub const OGEE_TRANSPORT_TCP: u32 = 2;

/// Bytes of a completion's text.
pub const OGEE_DETAIL_SIZE: usize = 232;

/// What a call or a request ended with. Numbers keep their meaning.
#[repr(i32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OgeeStatus {
    /// Done.
    Ok = 0,
    /// The queue is full: take completions from it, then submit again.
    Again = 1,
    /// The time limit is over. A mutation may have been applied, or may be later.
    TimedOut = 2,
    /// An argument is wrong: a null pointer, an unknown flag, a struct's size.
    Invalid = 3,
    /// Not a handle of this kind: closed already, never opened, or of another kind.
    BadHandle = 4,
    /// Offset or length is not a multiple of OGEE_BLOCK_SIZE.
    Unaligned = 5,
    /// The request reaches past the end of the volume.
    OutOfRange = 6,
    /// More than OGEE_IO_BYTES_MAX bytes.
    TooLong = 7,
    /// A mutation of a volume that was opened read-only.
    ReadOnly = 8,
    /// The volume or queue was closed meanwhile.
    Closed = 9,
    /// Closing did not wait for it any longer. A mutation may have been applied, or may be later.
    Cancelled = 10,
    /// The volume was attached elsewhere since: nothing works on this attachment any more.
    Fenced = 11,
    /// There is no such volume.
    NotFound = 12,
    /// The metadata servers refused.
    Refused = 13,
    /// No metadata server answered.
    Unreachable = 14,
    /// The data fails its checksum on every replica.
    Corrupt = 15,
    /// The two sides do not understand each other: versions that do not fit, or a bug.
    Protocol = 16,
    /// The system refused something: io_uring, a thread, memory.
    System = 17,
    /// The handle is of the process that this one was forked from: open one here.
    Forked = 18,
    /// Something of it is still in use.
    Busy = 19,
    /// The library is older than the header that asks for it.
    Unsupported = 20,
    /// A limit of this library.
    Limit = 21,
    /// A bug in the library.
    Internal = 22,
}

/// A cluster: its metadata servers, and a thread for I/O.
pub struct OgeeClient {
    _opaque: [u8; 0],
}

/// An attached volume.
pub struct OgeeVolume {
    _opaque: [u8; 0],
}

/// A completion queue.
pub struct OgeeCq {
    _opaque: [u8; 0],
}

/// Memory of the caller that requests are made on.
pub struct OgeeMemory {
    _opaque: [u8; 0],
}

/// How to open a client. Set all to zero, then size to sizeof, then what is wanted.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OgeeClientOptions {
    /// sizeof(ogee_client_options)
    pub size: u32,
    /// 0
    pub reserved: u32,
    /// Addresses of the metadata servers, HOST:PORT, separated by commas. NULL: the environment's
    /// OGEE_MDS.
    pub mds: *const c_char,
    /// This host as operators know it. NULL: its name.
    pub host: *const c_char,
}

/// How to open a volume. Set all to zero, then size to sizeof, then what is wanted.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OgeeVolumeOptions {
    /// sizeof(ogee_volume_options)
    pub size: u32,
    /// OGEE_READ_ONLY, or 0.
    pub flags: u32,
    /// Requests that are under way at a time, at most OGEE_DEPTH_MAX; as many more wait for their turn. 0: 256.
    pub depth: u32,
    /// OGEE_TRANSPORT_AUTO, OGEE_TRANSPORT_RDMA or OGEE_TRANSPORT_TCP.
    pub transport: u32,
    /// A request that takes longer ends with TIMED_OUT. 0: it waits, as a disk does.
    pub io_timeout_ms: u64,
}

/// A volume. Set size to sizeof; what the library does not know stays as it is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OgeeVolumeInfo {
    /// sizeof(ogee_volume_info)
    pub size: u32,
    /// OGEE_READ_ONLY, or 0.
    pub flags: u32,
    /// Its size now, in bytes.
    pub size_bytes: u64,
    /// Its number.
    pub id: u64,
    /// The attachment's number: grows with each.
    pub epoch: u64,
    /// Unit of offsets and lengths, in bytes.
    pub block_size: u32,
    /// 0
    pub reserved: u32,
}

/// Counters of a volume. Set size to sizeof; what the library does not know stays as it is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OgeeVolumeStats {
    /// sizeof(ogee_volume_stats)
    pub size: u32,
    /// 0
    pub reserved: u32,
    /// Reads that ended.
    pub reads: u64,
    /// Writes that ended.
    pub writes: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Attempts beyond the first.
    pub retries: u64,
    /// Payload bytes of this volume copied between buffers and the caller's memory.
    pub bytes_copied: u64,
    /// Bytes copied on the way into and out of frames, of all volumes of the client.
    pub frame_bytes_copied: u64,
}

/// The end of a request.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OgeeCompletion {
    /// As it was submitted.
    pub user_data: u64,
    /// Bytes read, written, discarded or zeroed; of a notice, the new size. 0 after an error.
    pub value: u64,
    /// How it ended.
    pub status: OgeeStatus,
    /// 0
    pub reserved: u32,
    /// After an error, what it was and what to do, ended by a zero byte; else empty.
    pub detail: [c_char; OGEE_DETAIL_SIZE],
}

const _: () = assert!(OGEE_IO_BYTES_MAX as usize == crate::limit::IO_BYTES_MAX);
const _: () = assert!(OGEE_BLOCK_SIZE as usize == ogee_proto::limit::BLOCK_SIZE);
const _: () = assert!(OGEE_CQ_CAPACITY_MAX == crate::limit::QUEUE_CAPACITY_MAX);
const _: () = assert!(OGEE_DEPTH_MAX == crate::limit::DEPTH_MAX);
const _: () = assert!(size_of::<OgeeCompletion>() == 256);
