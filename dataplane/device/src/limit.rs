//! Limits of the device layer.

use ogee_proto::limit::BLOCK_SIZE;

/// Offsets and lengths of every request are multiples of this, in bytes.
///
/// The largest logical sector in use is 4 KiB, so that one rule serves every device.
pub const IO_ALIGNMENT: usize = BLOCK_SIZE;

/// Longest single request, in bytes.
///
/// A completion counts bytes in 31 bits; far below that a request is no longer one transfer but
/// many, and holds its memory for longer than any caller should.
pub const IO_LEN_MAX: usize = 64 << 20;

/// Bytes that one step of a zero fill writes: large enough for full bandwidth, small enough to
/// report progress several times a second on a slow disk.
pub const ZERO_FILL_STEP: usize = 1 << 20;

/// Unit of atomicity that a power cut leaves, in bytes: what drives promise is one 512-byte sector.
pub const CRASH_SECTOR: usize = 512;

const _: () = assert!(IO_LEN_MAX.is_multiple_of(IO_ALIGNMENT));
const _: () = assert!(IO_LEN_MAX <= i32::MAX as usize);
const _: () = assert!(ZERO_FILL_STEP <= IO_LEN_MAX && ZERO_FILL_STEP.is_multiple_of(IO_ALIGNMENT));
const _: () = assert!(IO_ALIGNMENT.is_multiple_of(CRASH_SECTOR));
