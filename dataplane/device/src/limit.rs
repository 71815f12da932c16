//! Limits of the device layer.

use ogee_proto::limit::BLOCK_SIZE;
use std::time::Duration;

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

/// Commands that an NVMe queue pair has at a time: what keeps a drive of this kind busy. Further ones wait.
pub const NVME_DEPTH: u32 = 128;

/// Piece of the memory that an NVMe drive reaches, in bytes: an extent.
pub const NVME_PIECE_LEN: usize = 64 << 10;

/// Pieces for each drive: two for each command of the queue, so that longer ones do not take it from short ones.
pub const NVME_PIECES: u32 = 2 * NVME_DEPTH;

/// Memory in hugepages that SPDK wants for itself, in MiB: queues, and a request for each command.
pub const NVME_ENV_MIB: u32 = 48;

/// Longest NVMe command, in bytes, of drives that take more: a longer one would keep others waiting.
pub const NVME_COMMAND_MAX: usize = 1 << 20;

/// Longest NVMe command without memory (zeros, discards), in bytes: a drive may carry it out block by block.
pub const NVME_ZEROES_MAX: u64 = 8 << 20;

/// Commands of one long request that are with a drive at a time.
pub const NVME_AHEAD: usize = 4;

/// Completions of a drive that one turn takes: the other tasks of the shard have theirs.
pub const NVME_COMPLETIONS_PER_TURN: u32 = 64;

/// How long a drive is looked at in every turn after a completion: several times what a fast drive takes.
pub const NVME_SPIN: Duration = Duration::from_micros(200);

/// How often a drive is looked at that takes longer, at first and at last.
pub const NVME_BACKOFF_MIN: Duration = Duration::from_micros(10);
/// See [`NVME_BACKOFF_MIN`].
pub const NVME_BACKOFF_MAX: Duration = Duration::from_millis(1);

/// How often the state of a controller is looked at, and what takes long.
pub const NVME_LOOK: Duration = Duration::from_millis(500);

/// How often a drive is asked for its health: it changes slowly, and some drives are slow to tell.
pub const NVME_HEALTH: Duration = Duration::from_secs(60);

/// A request to an NVMe drive that takes this long ends the device: as long as Linux waits before it resets one.
pub const NVME_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a controller may take to reset.
pub const NVME_RESET_PATIENCE: Duration = Duration::from_secs(10);

const _: () = assert!(
    NVME_TIMEOUT.as_secs() < NVME_HEALTH.as_secs(),
    "a drive is not asked again before it is known that it does not answer"
);
const _: () = assert!(NVME_PIECE_LEN.is_multiple_of(IO_ALIGNMENT));
const _: () = assert!(NVME_COMMAND_MAX.is_multiple_of(NVME_PIECE_LEN));
const _: () = assert!(NVME_COMMAND_MAX * NVME_AHEAD < NVME_PIECE_LEN * NVME_PIECES as usize);
const _: () = assert!(NVME_ZEROES_MAX.is_multiple_of(IO_ALIGNMENT as u64));
const _: () = assert!(
    NVME_ZEROES_MAX / 512 <= 1 << 16,
    "a command counts sectors in 16 bits"
);
const _: () = assert!(IO_LEN_MAX.is_multiple_of(IO_ALIGNMENT));
const _: () = assert!(IO_LEN_MAX <= i32::MAX as usize);
const _: () = assert!(ZERO_FILL_STEP <= IO_LEN_MAX && ZERO_FILL_STEP.is_multiple_of(IO_ALIGNMENT));
const _: () = assert!(IO_ALIGNMENT.is_multiple_of(CRASH_SECTOR));
