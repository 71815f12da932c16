//! The words that every Ogee process shares.
//!
//! *Place*: the lowest layer; everything else may import it and it imports nothing of ours.
//! *Owner*: no task, no I/O, no clock; plain values.
//! *Invariants*: an id or a unit that exists is in range; a decoded frame header is valid.
//! *On failure*: decoders return an error that names the field and the value; nothing panics.
//!
//! | module | holds |
//! |---|---|
//! | [`id`] | names of things: volume, chunk, copyset, replica … |
//! | [`mod@unit`] | quantities of bytes and blocks |
//! | [`name`] | names that users give |
//! | [`media`] | classes of devices |
//! | [`drive`] | what drives warn of |
//! | [`size`] | sizes as users write them |
//! | [`limit`] | every limit that two processes must agree on |
//! | [`checksum`] | CRC32C |
//! | [`fault`] | what a user is told: code, what, cause, remedy |
//! | [`layout`] | volume address → chunk and offset (striping) |
//! | [`wire`] | fixed-layout frames of the data plane |
//! | `service` | gRPC services of the control plane (feature `services`) |
//! | `heartbeat` | what of a chunkserver's report has changed (feature `services`) |

pub mod checksum;
pub mod drive;
pub mod fault;
#[cfg(feature = "services")]
pub mod heartbeat;
pub mod id;
pub mod layout;
pub mod limit;
pub mod media;
pub mod name;
#[cfg(feature = "services")]
pub mod service;
pub mod size;
pub mod unit;
pub mod wire;
