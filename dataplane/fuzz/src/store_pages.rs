//! Metadata pages and superblocks, without their checksums in the way: the first byte says which.

use crate::script::Script;
use ogee_store::fuzzing;

/// One input.
pub fn run(input: &[u8]) {
    let mut script = Script::new(input);
    let kind = script.byte();
    fuzzing::pages(kind, script.rest());
}
