//! What depends on time: how fast groups are beside others, and how soon a full leader hands over. Nothing
//! else may run meanwhile: cargo runs one test binary after the other, and the tests in this one take
//! turns.

#[expect(
    dead_code,
    unused_imports,
    reason = "most of it is for the tests of `group`"
)]
#[path = "../group/common/mod.rs"]
mod common;

mod crowd;
mod room;
mod slow;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The turn to run.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
