//! Why a frame was refused.

/// Why bytes are not a frame. The connection that carried them is closed: framing is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Fewer bytes than the fixed header.
    #[error("frame header needs 128 bytes, got {0}")]
    Short(usize),
    /// Not a frame of ours.
    #[error("frame magic {0:#010x} is not Ogee's: is the peer an Ogee process?")]
    Magic(u32),
    /// Another protocol version.
    #[error("peer speaks wire version {peer}, this process speaks {ours}: upgrade the older one")]
    Version {
        /// The peer's.
        peer: u16,
        /// Ours.
        ours: u16,
    },
    /// The header was damaged.
    #[error("frame header checksum {found:#010x} should be {expected:#010x}")]
    HeaderCrc {
        /// As computed.
        expected: u32,
        /// As read.
        found: u32,
    },
    /// The body was damaged.
    #[error("frame body checksum {found:#010x} should be {expected:#010x}")]
    BodyCrc {
        /// As computed.
        expected: u32,
        /// As read.
        found: u32,
    },
    /// A kind of a newer version.
    #[error("frame kind {0} is unknown")]
    Kind(u8),
    /// A status of a newer version.
    #[error("status {0} is unknown")]
    Status(u16),
    /// A length past its limit.
    #[error("{field} of {value} bytes is past the limit of {limit}")]
    Length {
        /// Which field.
        field: &'static str,
        /// What it says.
        value: usize,
        /// What it may say.
        limit: usize,
    },
    /// The structured part ended early.
    #[error("{field} is cut short")]
    Truncated {
        /// Which field.
        field: &'static str,
    },
    /// A field holds a value that it may not.
    #[error("{field} has the invalid value {value}")]
    Field {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
}
