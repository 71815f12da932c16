//! Calls that may block, on a thread of their own.
//!
//! **Place.** Under `file` and `net`, for what happens once: opening, cutting, connecting to a path. **Owner.** The
//! caller waits. **Invariants.** A thread for each call: these are rare, and each waits for its own reasons. A call
//! whose future is dropped runs to its end and its outcome is dropped there.
//!
//! **Failure.** No thread is an error; a panic in the call ends its thread and is one as well.

use std::io;
use std::thread;

use crate::bridge;

pub(super) async fn run<T: Send + 'static>(
    call: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (outcome, mut arrived) = bridge::channel(1);
    let work = move || {
        // Refused only if nobody waits any more.
        let _dropped = outcome.try_send(call());
    };
    thread::Builder::new()
        .name("ogee-call".to_owned())
        .spawn(work)?;
    let outcome = arrived.recv().await;
    outcome.unwrap_or_else(|| Err(io::Error::other("a blocking call has panicked")))
}
