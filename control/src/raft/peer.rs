//! Raft messages from other metadata servers.

use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest};
use openraft::storage::Snapshot;
use serde::Serialize;
use std::sync::Arc;
use tokio::sync::oneshot;

use super::codec::{
    self, AppendRecord, AppendReply, BallotRecord, BallotReply, InstallRecord, InstallReply,
    TransferRecord,
};
use super::error::PeerError;
use super::types::Raft;

/// Which message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerCall {
    /// Log entries, or a heartbeat.
    Append,
    /// A vote is asked for.
    Vote,
    /// Would a vote be given?
    PreVote,
    /// The whole metadata.
    Snapshot,
    /// Leadership is given to somebody.
    Transfer,
}

/// What a message says of who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sender {
    /// Its number.
    pub(crate) id: u64,
    /// Of its metadata.
    pub(crate) group: u64,
    /// What it understands; 0: it does not say.
    pub(crate) version: u32,
    /// What whoever reads the message must understand.
    pub(crate) needed: u32,
}

/// A message that waits for the Raft thread.
pub(super) struct PeerRequest {
    pub(super) call: PeerCall,
    pub(super) sender: Sender,
    pub(super) body: Vec<u8>,
    pub(super) reply: oneshot::Sender<Result<Vec<u8>, PeerError>>,
}

/// Hands a message to Raft and encodes what it answers.
pub(super) async fn answer(raft: &Raft, call: PeerCall, body: &[u8]) -> Result<Vec<u8>, PeerError> {
    match call {
        PeerCall::Append => {
            let record: AppendRecord = decode(body)?;
            let request = AppendEntriesRequest::try_from(record).map_err(PeerError::Undecodable)?;
            let response = raft
                .append_entries(request)
                .await
                .map_err(|_| PeerError::Stopped)?;
            encode(&AppendReply::from(&response))
        }
        PeerCall::Vote => {
            let request = decode::<BallotRecord>(body)?.into();
            let response = raft.vote(request).await.map_err(|_| PeerError::Stopped)?;
            encode(&BallotReply::from(&response))
        }
        PeerCall::PreVote => {
            let request = decode::<BallotRecord>(body)?.into();
            let response = raft
                .pre_vote(request)
                .await
                .map_err(|_| PeerError::Stopped)?;
            encode(&BallotReply::from(&response))
        }
        PeerCall::Snapshot => {
            let record: InstallRecord = decode(body)?;
            let (meta, state) = record
                .snapshot
                .into_parts()
                .map_err(PeerError::Undecodable)?;
            let snapshot = Snapshot {
                meta,
                snapshot: Arc::new(state),
            };
            let installed = raft
                .install_full_snapshot(record.vote.into(), snapshot)
                .await;
            encode(&InstallReply::from(
                &installed.map_err(|_| PeerError::Stopped)?,
            ))
        }
        PeerCall::Transfer => {
            let request: TransferLeaderRequest<_> = decode::<TransferRecord>(body)?.into();
            let taken = raft.handle_transfer_leader(request).await;
            // One that does not take over is seen by the leader's waiting.
            let taken = taken.map_err(|_| PeerError::Stopped)?.is_ok();
            encode(&taken)
        }
    }
}

fn decode<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, PeerError> {
    codec::decode("message", body).map_err(PeerError::Undecodable)
}

fn encode<T: Serialize>(reply: &T) -> Result<Vec<u8>, PeerError> {
    codec::encode("reply", reply).map_err(PeerError::Undecodable)
}
