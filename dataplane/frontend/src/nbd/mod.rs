//! The NBD server: fixed newstyle negotiation, simple and structured replies, block status.
//!
//! *Place*: a protocol over `align`. *Owner*: one shard. A connection has a reader task, a writer
//! task and one task for each request under way.
//! *Invariants*: see the parts. What a client sends is checked before it costs anything.
//! *On failure*: a bad request is answered with an errno and the connection lives on; a message
//! that cannot be understood ends the connection with a log line.
//!
//! | file | holds |
//! |---|---|
//! | `server`, `address` | listening, accepting, stopping |
//! | `export` | names → disks |
//! | `connection` | a connection from greeting to drain |
//! | `input` | bytes in: messages, payloads, skipping |
//! | `handshake`, `option`, `session` | negotiation: what is asked, answered, agreed |
//! | `request`, `refusal` | request header → command, or the reason why not |
//! | `transmit`, `execute` | commands read, admitted and run |
//! | `reply`, `sparse`, `batch`, `writer` | answers → bytes out |
//! | `wire`, `fields` | the specification's constants; big-endian fields |
//!
//! The specification is the "NBD protocol" document of the reference implementation.

mod address;
mod batch;
mod connection;
mod error;
mod execute;
mod export;
mod fields;
mod handshake;
mod input;
mod metrics;
mod option;
mod refusal;
mod reply;
mod request;
mod server;
mod session;
mod sparse;
mod transmit;
mod wire;
mod writer;

pub use address::Address;
pub use error::{ExportError, ServerError};
pub use export::Exports;
pub use metrics::{ExportMetrics, ExportSnapshot};
pub use server::Server;
