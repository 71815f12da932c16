//! The record codecs by themselves, for fuzzing.
//!
//! *Place*: above `raft` and `state`, under the fuzz targets and this crate's tests. *Owner*: pure
//! functions. *Invariants*: what is decoded encodes to bytes that are decoded to the same; a state that
//! was decoded can be asked, and changed, like any other. *On failure*: a panic: that is what is
//! looked for.

use ogee_proto::id::ChunkIndex;

use crate::raft::fuzzing as raft;
use crate::state::{Command, State};

/// Chunks of a volume that are looked up.
const CHUNKS_ASKED: u32 = 100;

/// Takes `bytes` for a record of the kind that `kind` says.
///
/// # Panics
/// When a decoder accepts what cannot be used.
pub fn records(kind: u8, bytes: &[u8]) {
    if kind % 8 != 7 {
        if let Some(state) = raft::records(kind % 8, bytes) {
            ask(&state);
            snapshot_survives(&state);
        }
        return;
    }
    // A snapshot, a line break, and commands to it, one a line.
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let Some(mut state) = raft::snapshot(lines.next().unwrap_or_default()) else {
        return;
    };
    for line in lines.take(20) {
        if let Ok(command) = serde_json::from_slice::<Command>(line) {
            let before = state.clone();
            if state.apply(&command).is_err() {
                let forgetful = |state: &State| state.clone().without_requests();
                let is_same = forgetful(&state) == forgetful(&before);
                assert!(is_same, "a refusal changed something");
            }
            ask(&state);
        }
    }
}

/// Takes the state through a snapshot's bytes.
///
/// # Panics
/// When it comes back as another one.
pub fn snapshot_survives(state: &State) {
    let back = raft::snapshot(&raft::snapshot_bytes(state));
    assert!(back.as_ref() == Some(state), "a snapshot loses something");
}

/// Everything that the handlers ask.
fn ask(state: &State) {
    for (id, volume) in state.volumes() {
        let layout = volume.stripe.layout();
        assert!(layout.count() > 0, "stripe of {id}");
        for chunk in 0..volume.chunks.min(CHUNKS_ASKED) {
            // None is an answer that handlers know.
            let _ = volume.copyset_of(ChunkIndex::new(chunk));
        }
        let _ = volume.copysets();
    }
    for pool in state.pools().values() {
        let _ = state.formed(pool);
    }
    for copyset in state.copysets().values() {
        let _ = (copyset.wanted_voters(), copyset.placed().count());
    }
    let _ = state.volumes_after("").count();
}

#[cfg(test)]
mod tests {
    use super::records;
    use proptest::collection::vec;
    use proptest::prelude::{any, proptest};

    proptest! {
        #[test]
        fn any_bytes_are_a_record_or_are_refused(
            kind in any::<u8>(), bytes in vec(any::<u8>(), 0..200),
        ) {
            records(kind, &bytes);
        }
    }
}
