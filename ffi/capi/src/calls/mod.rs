//! The calls. Comments here are the header's.
//!
//! *Place*: what C sees; each checks its arguments, and calls inwards once. *Owner*: none.
//! *Invariants*: any thread may call; every argument is checked that can be. What cannot be checked is that
//! addresses are what they are said to be: that is the caller's promise, in the header's words.
//! *On failure*: a status, and a text for the thread.

pub mod client;
pub mod io;
pub mod library;
pub mod memory;
pub mod queue;
pub mod submit;
pub mod volume;
