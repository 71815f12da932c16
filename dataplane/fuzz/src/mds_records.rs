//! Records of a metadata server, on disk and between members: the first byte says which.

use crate::script::Script;
use ogee_control::fuzzing;

/// One input.
pub fn run(input: &[u8]) {
    let mut script = Script::new(input);
    let kind = script.byte();
    fuzzing::records(kind, script.rest());
}
