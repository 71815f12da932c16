//! Requests of any alignment onto a disk of whole blocks.

mod aligned;
mod lock;
mod span;

pub use aligned::AlignedDisk;
