//! Bytes that travel between network, devices and memory without being copied.

mod owned;
mod payload;
mod read;

pub use owned::Buffer;
pub use payload::Payload;
pub use read::ReadBuffer;
