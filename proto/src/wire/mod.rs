//! Frames of the data plane: a fixed header, then a body of `meta` (structured) and `payload`.
//!
//! The layout is documented in [`FrameHeader`]; golden bytes hold it still.

mod codec;
mod error;
mod header;
mod kind;
mod scrub;
mod status;

pub use codec::{Reader, Writer};
pub use error::WireError;
pub use header::{FRAME_MAGIC, FrameHeader, WIRE_VERSION};
pub use kind::FrameKind;
pub use scrub::ScrubWish;
pub use status::Status;
