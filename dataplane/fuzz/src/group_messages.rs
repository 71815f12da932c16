//! Messages between replicas, log record heads, checkpoints: the first byte says which.

use crate::script::Script;
use ogee_group::fuzzing;

/// One input.
pub fn run(input: &[u8]) {
    let mut script = Script::new(input);
    let (kind, payload) = (script.byte(), usize::from(script.u16()));
    let payload = script.bytes(payload);
    fuzzing::messages(kind, script.rest(), payload);
}
