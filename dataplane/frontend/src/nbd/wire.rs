//! Constants of the NBD specification, under its own words.
//!
//! *Place*: read by encoders and decoders. *Owner*: none. *Invariants*: as specified.
//! *On failure*: none.

/// First words of the server.
pub(super) const NBD_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Starts the newstyle greeting and each option.
pub(super) const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// Starts each reply to an option.
pub(super) const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Starts each request.
pub(super) const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Starts each simple reply.
pub(super) const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// Starts each structured reply chunk.
pub(super) const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

/// Bytes of an option's fixed part.
pub(super) const OPTION_HEAD_LEN: usize = 16;
/// Bytes of a request's fixed part.
pub(super) const REQUEST_LEN: usize = 28;
/// Zeros behind the answer to `EXPORT_NAME`, unless declined.
pub(super) const EXPORT_NAME_PADDING: usize = 124;

/// Handshake flags and the client's answers to them (same bits).
pub(super) mod handshake_flag {
    pub(in super::super) const FIXED_NEWSTYLE: u16 = 1;
    pub(in super::super) const NO_ZEROES: u16 = 1 << 1;
}

/// What an export can do.
pub(super) mod transmission_flag {
    pub(in super::super) const HAS_FLAGS: u16 = 1;
    pub(in super::super) const READ_ONLY: u16 = 1 << 1;
    pub(in super::super) const SEND_FLUSH: u16 = 1 << 2;
    pub(in super::super) const SEND_FUA: u16 = 1 << 3;
    pub(in super::super) const SEND_TRIM: u16 = 1 << 5;
    pub(in super::super) const SEND_WRITE_ZEROES: u16 = 1 << 6;
    pub(in super::super) const SEND_DF: u16 = 1 << 7;
    pub(in super::super) const CAN_MULTI_CONN: u16 = 1 << 8;
    pub(in super::super) const SEND_CACHE: u16 = 1 << 10;
    pub(in super::super) const SEND_FAST_ZERO: u16 = 1 << 11;
}

/// Options of a client.
pub(super) mod option {
    pub(in super::super) const EXPORT_NAME: u32 = 1;
    pub(in super::super) const ABORT: u32 = 2;
    pub(in super::super) const LIST: u32 = 3;
    pub(in super::super) const STARTTLS: u32 = 5;
    pub(in super::super) const INFO: u32 = 6;
    pub(in super::super) const GO: u32 = 7;
    pub(in super::super) const STRUCTURED_REPLY: u32 = 8;
    pub(in super::super) const LIST_META_CONTEXT: u32 = 9;
    pub(in super::super) const SET_META_CONTEXT: u32 = 10;
}

/// Types of replies to options.
pub(super) mod option_reply {
    pub(in super::super) const ACK: u32 = 1;
    pub(in super::super) const SERVER: u32 = 2;
    pub(in super::super) const INFO: u32 = 3;
    pub(in super::super) const META_CONTEXT: u32 = 4;
    pub(in super::super) const ERR_UNSUP: u32 = (1 << 31) + 1;
    pub(in super::super) const ERR_INVALID: u32 = (1 << 31) + 3;
    pub(in super::super) const ERR_UNKNOWN: u32 = (1 << 31) + 6;
    pub(in super::super) const ERR_TOO_BIG: u32 = (1 << 31) + 9;
}

/// Items of information about an export.
pub(super) mod info {
    pub(in super::super) const EXPORT: u16 = 0;
    pub(in super::super) const NAME: u16 = 1;
    pub(in super::super) const DESCRIPTION: u16 = 2;
    pub(in super::super) const BLOCK_SIZE: u16 = 3;
}

/// Commands.
pub(super) mod command {
    pub(in super::super) const READ: u16 = 0;
    pub(in super::super) const WRITE: u16 = 1;
    pub(in super::super) const DISC: u16 = 2;
    pub(in super::super) const FLUSH: u16 = 3;
    pub(in super::super) const TRIM: u16 = 4;
    pub(in super::super) const CACHE: u16 = 5;
    pub(in super::super) const WRITE_ZEROES: u16 = 6;
    pub(in super::super) const BLOCK_STATUS: u16 = 7;
}

/// Flags of commands.
pub(super) mod command_flag {
    pub(in super::super) const FUA: u16 = 1;
    pub(in super::super) const NO_HOLE: u16 = 1 << 1;
    pub(in super::super) const DF: u16 = 1 << 2;
    pub(in super::super) const REQ_ONE: u16 = 1 << 3;
    pub(in super::super) const FAST_ZERO: u16 = 1 << 4;
}

/// Types of structured reply chunks.
pub(super) mod chunk {
    pub(in super::super) const NONE: u16 = 0;
    pub(in super::super) const OFFSET_DATA: u16 = 1;
    pub(in super::super) const OFFSET_HOLE: u16 = 2;
    pub(in super::super) const BLOCK_STATUS: u16 = 5;
    pub(in super::super) const ERROR: u16 = (1 << 15) + 1;
    /// Flag: the last chunk of its reply.
    pub(in super::super) const FLAG_DONE: u16 = 1;
}

/// The one metadata context.
pub(super) const BASE_ALLOCATION: &str = "base:allocation";
/// Its id on our connections.
pub(super) const BASE_ALLOCATION_ID: u32 = 1;
/// Not allocated.
pub(super) const STATE_HOLE: u32 = 1;
/// Reads as zeros.
pub(super) const STATE_ZERO: u32 = 1 << 1;

/// Error codes of replies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Errno {
    Perm,
    Io,
    Inval,
    NoSpc,
    Overflow,
    NotSup,
    Shutdown,
}

impl Errno {
    pub(super) fn code(self) -> u32 {
        match self {
            Self::Perm => 1,
            Self::Io => 5,
            Self::Inval => 22,
            Self::NoSpc => 28,
            Self::Overflow => 75,
            Self::NotSup => 95,
            Self::Shutdown => 108,
        }
    }
}
