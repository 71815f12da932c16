//! How fast groups are beside others: measured, so nothing else may run meanwhile. Cargo runs one test
//! binary after the other, and the tests in this one take turns.

#[expect(
    dead_code,
    unused_imports,
    reason = "most of it is for the tests of `group`"
)]
#[path = "../group/common/mod.rs"]
mod common;

mod crowd;
mod slow;
