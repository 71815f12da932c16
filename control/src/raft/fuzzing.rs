//! Records, for fuzzing.

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::codec::{
    AppendRecord, AppendReply, BallotRecord, BallotReply, EntryRecord, InstallRecord, InstallReply,
    LogIdRecord, SnapshotRecord, VoteRecord, decode, encode,
};
use super::types::{Group, LogId, SnapshotMeta, Vote};
use crate::state::State;

/// Takes `bytes` for a record of the kind that `kind` says; the state, if it carries one.
pub(crate) fn records(kind: u8, bytes: &[u8]) -> Option<State> {
    match kind {
        0 => {
            stands_still(bytes, |record: LogIdRecord| {
                Some(LogIdRecord::from(&LogId::from(record)))
            });
            stands_still(bytes, |record: VoteRecord| {
                Some(VoteRecord::from(&Vote::from(record)))
            });
        }
        1 => stands_still(bytes, |record: EntryRecord| {
            Some(EntryRecord::from(&record.into_entry().ok()?))
        }),
        2 => stands_still(bytes, |record: AppendRecord| {
            let request = AppendEntriesRequest::<Group>::try_from(record).ok()?;
            Some(AppendRecord::from(&request))
        }),
        3 => stands_still(bytes, |record: AppendReply| {
            Some(AppendReply::from(&AppendEntriesResponse::from(record)))
        }),
        4 => {
            stands_still(bytes, |record: BallotRecord| {
                Some(BallotRecord::from(&VoteRequest::from(record)))
            });
            stands_still(bytes, |record: BallotReply| {
                Some(BallotReply::from(&VoteResponse::from(record)))
            });
        }
        5 => stands_still(bytes, |record: InstallReply| {
            Some(InstallReply::from(&SnapshotResponse::from(record)))
        }),
        _ => {
            let record: InstallRecord = decode("message", bytes).ok()?;
            return Some(record.snapshot.into_parts().ok()?.1);
        }
    }
    None
}

/// A snapshot's state.
pub(crate) fn snapshot(bytes: &[u8]) -> Option<State> {
    let record: SnapshotRecord = decode("snapshot", bytes).ok()?;
    Some(record.into_parts().ok()?.1)
}

/// A snapshot of a state, as it is stored.
pub(crate) fn snapshot_bytes(state: &State) -> Vec<u8> {
    let record = SnapshotRecord::new(&SnapshotMeta::default(), state);
    encode("snapshot", &record).expect("a state has a form in JSON")
}

/// Decodes, takes it through openraft's form and encodes: from the first encoding on nothing may
/// change.
fn stands_still<T: Serialize + DeserializeOwned>(bytes: &[u8], through: impl Fn(T) -> Option<T>) {
    let pass = |bytes: &[u8]| {
        let value = through(decode("record", bytes).ok()?)?;
        Some(encode("record", &value).expect("a record has a form in JSON"))
    };
    if let Some(first) = pass(bytes) {
        assert_eq!(
            pass(&first),
            Some(first.clone()),
            "changes when encoded again"
        );
    }
}
