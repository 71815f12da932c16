//! How to open a device.

use ogee_proto::unit::ByteLen;

/// How to open a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OpenOptions {
    /// Create a sparse file of this length if nothing stands at the path. A file that is there must
    /// have this length already.
    pub create: Option<ByteLen>,
}
