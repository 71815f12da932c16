//! What fuzzing the metadata server has kept. The other targets' inputs need the deterministic engine: `scripts/sim` builds a
//! program that replays them.

#![cfg(feature = "control")]

use ogee_fuzz::{kept, mds_commands, mds_records};
use std::path::Path;

fn replayed(target: &str, run: fn(&[u8])) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    kept::replay(&folder, run).expect("the corpus is part of the tree")
}

#[test]
fn every_kept_record_is_decoded_or_refused() {
    assert!(replayed("mds_records", mds_records::run) > 1000);
}

#[test]
fn every_kept_command_is_applied_or_refused() {
    assert!(replayed("mds_commands", mds_commands::run) > 500);
}
