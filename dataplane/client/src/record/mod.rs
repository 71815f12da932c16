//! What a host keeps of an attachment, so that a frontend can come back while no metadata server is there.
//!
//! *Place*: between `Volume` and the control plane: [`KeptControl`] asks the control plane first, and goes on with the
//! record when nobody answers. *Owner*: the shard of the volume; files are read and written on the control thread.
//! *Invariants*: a record is durable before what it says is used. Each restart without the control plane takes the next
//! incarnation, and a client id of its own, under which it seals: of two processes that go on with copies of one record, each
//! copyset takes one. One process of a host uses a record at a time: a lock says so.
//! *On failure*: a record that is damaged, of another host, volume or version is refused with what is wrong;
//! one that is superseded is fenced by the first copyset that it reaches.
//!
//! | module | holds |
//! |---|---|
//! | `format` | `Record`: what is kept, as bytes |
//! | `file` | [`RecordFile`]: the file and its lock |
//! | `kept` | [`KeptControl`]: attach, or resume |
//! | `error` | [`RecordError`] |

mod error;
mod file;
mod format;
mod kept;

pub use error::RecordError;
pub use file::RecordFile;
pub use kept::KeptControl;
