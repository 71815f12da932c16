//! Bytes that travel between network, devices and memory without being copied.

mod gather;
mod owned;
mod payload;
mod read;
mod target;

pub use gather::Gather;
pub(crate) use gather::Piece;
pub use owned::Buffer;
pub use payload::Payload;
pub use read::ReadBuffer;
pub use target::{Lease, Loan, Target};
