//! `MdsRaft`: the other metadata servers.

use std::sync::Arc;

use ogee_proto::service::RaftMessage;
use ogee_proto::service::mds_raft_server::MdsRaft;
use tonic::{Request, Response, Status};

use super::context::Context;
use crate::raft::{PeerCall, PeerError, Sender};

/// See the module.
pub(crate) struct PeersApi(pub(crate) Arc<Context>);

impl PeersApi {
    async fn pass_on(
        &self,
        call: PeerCall,
        request: Request<RaftMessage>,
    ) -> Result<Response<RaftMessage>, Status> {
        let message = request.into_inner();
        let config = &self.0.config;
        if message.cluster != config.cluster || message.to != config.id {
            return Err(Status::failed_precondition(format!(
                "this is member {} of {:?}, not member {} of {:?}",
                config.id, config.cluster, message.to, message.cluster
            )));
        }
        let raft = &self.0.raft;
        let sender = Sender {
            id: message.from,
            group: message.group,
            version: message.version,
            needed: message.needed,
        };
        let reply = raft.peer(call, sender, message.body).await;
        let body = reply.map_err(|error| match error {
            PeerError::Undecodable(_) => Status::invalid_argument(error.to_string()),
            PeerError::OtherGroup { .. } => {
                tracing::warn!(from = message.from, %error, "refused");
                Status::failed_precondition(error.to_string())
            }
            PeerError::Outdated { .. } => Status::failed_precondition(error.to_string()),
            PeerError::Stopped => Status::unavailable(error.to_string()),
            PeerError::Overloaded => Status::resource_exhausted(error.to_string()),
        })?;
        Ok(Response::new(RaftMessage {
            cluster: message.cluster,
            from: config.id,
            to: message.from,
            group: message.group,
            body,
            version: config.version,
            needed: 0,
        }))
    }
}

#[tonic::async_trait]
impl MdsRaft for PeersApi {
    async fn append(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        self.pass_on(PeerCall::Append, request).await
    }

    async fn vote(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        self.pass_on(PeerCall::Vote, request).await
    }

    async fn pre_vote(
        &self,
        request: Request<RaftMessage>,
    ) -> Result<Response<RaftMessage>, Status> {
        self.pass_on(PeerCall::PreVote, request).await
    }

    async fn snapshot(
        &self,
        request: Request<RaftMessage>,
    ) -> Result<Response<RaftMessage>, Status> {
        self.pass_on(PeerCall::Snapshot, request).await
    }

    async fn transfer(
        &self,
        request: Request<RaftMessage>,
    ) -> Result<Response<RaftMessage>, Status> {
        self.pass_on(PeerCall::Transfer, request).await
    }
}
