//! Raft messages to other metadata servers, over their gRPC address.
//!
//! One request at a time for each follower: the metadata changes rarely, so pipelining would buy
//! nothing.

use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ogee_proto::service::RaftMessage;
use ogee_proto::service::mds_raft_client::MdsRaftClient;
use openraft::OptionalSend;
use openraft::alias::SnapshotOf;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::impls::BasicNode;
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::transport::{Channel, Endpoint};

use super::codec::{
    self, AppendRecord, AppendReply, BallotRecord, BallotReply, InstallRecord, InstallReply,
    SnapshotRecord, TransferRecord,
};
use super::machine::Shared;
use super::peer::PeerCall;
use super::types::{Group, Vote};
use super::versions::{self, Said};
use crate::limit::{RAFT_ELECTION_MS, RAFT_MESSAGE_MAX};
use crate::state::State;

/// A host that does not answer at all must not hold up an election.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(RAFT_ELECTION_MS.0);

/// Makes links.
#[derive(Clone)]
pub(super) struct Network {
    pub(super) me: u64,
    pub(super) cluster: Rc<str>,
    /// From the configuration, so that a member may move to another address by a restart.
    pub(super) members: Rc<BTreeMap<u64, String>>,
    /// The metadata says which group it is of.
    pub(super) state: Shared,
    /// What this release understands.
    pub(super) version: u32,
    /// What the others say.
    pub(super) said: Said,
}

impl RaftNetworkFactory<Group> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Link {
        let addr = self.members.get(&target).unwrap_or(&node.addr);
        Link {
            from: self.me,
            to: target,
            cluster: Rc::clone(&self.cluster),
            state: Rc::clone(&self.state),
            version: self.version,
            said: Rc::clone(&self.said),
            client: connect(addr),
        }
    }
}

fn connect(addr: &str) -> Option<MdsRaftClient<Channel>> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).ok()?;
    let channel = endpoint.connect_timeout(CONNECT_TIMEOUT).connect_lazy();
    let client = MdsRaftClient::new(channel);
    let client = client.max_decoding_message_size(RAFT_MESSAGE_MAX);
    Some(client.max_encoding_message_size(RAFT_MESSAGE_MAX))
}

/// The way to one other metadata server. Connects when first used, and again when broken.
pub(super) struct Link {
    from: u64,
    to: u64,
    cluster: Rc<str>,
    state: Shared,
    version: u32,
    said: Said,
    /// `None` when the address is no address.
    client: Option<MdsRaftClient<Channel>>,
}

impl Link {
    async fn call<Q: Serialize, R: DeserializeOwned>(
        &mut self,
        call: PeerCall,
        request: &Q,
        limit: Duration,
    ) -> Result<R, Unreachable<Group>> {
        self.call_needing(call, request, 0, limit).await
    }

    /// The same, of a message that itself has what takes some version.
    async fn call_needing<Q: Serialize, R: DeserializeOwned>(
        &mut self,
        call: PeerCall,
        request: &Q,
        needed: u32,
        limit: Duration,
    ) -> Result<R, Unreachable<Group>> {
        let body = codec::encode("message", request).map_err(|e| Unreachable::new(&e))?;
        let message = RaftMessage {
            cluster: self.cluster.to_string(),
            from: self.from,
            to: self.to,
            group: self.state.borrow().state.group(),
            body,
            version: self.version,
            needed: self.state.borrow().state.version().max(needed),
        };
        let Some(client) = &mut self.client else {
            return Err(Unreachable::from_string("its address cannot be used"));
        };
        let sent = tokio::time::timeout(limit, send(client, call, message)).await;
        let reply = sent
            .map_err(|e| Unreachable::new(&e))?
            .map_err(|e| Unreachable::new(&e))?;
        let version = versions::said(reply.version);
        self.said.borrow_mut().insert(self.to, version);
        codec::decode("reply", &reply.body).map_err(|e| Unreachable::new(&e))
    }
}

async fn send(
    client: &mut MdsRaftClient<Channel>,
    call: PeerCall,
    message: RaftMessage,
) -> Result<RaftMessage, tonic::Status> {
    let reply = match call {
        PeerCall::Append => client.append(message).await,
        PeerCall::Vote => client.vote(message).await,
        PeerCall::PreVote => client.pre_vote(message).await,
        PeerCall::Snapshot => client.snapshot(message).await,
        PeerCall::Transfer => client.transfer(message).await,
    };
    reply.map(tonic::Response::into_inner)
}

impl RaftNetworkV2<Group> for Link {
    type SnapshotData = Arc<State>;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Group>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Group>, RPCError<Group>> {
        let record = AppendRecord::from(&request);
        let (needed, limit) = (record.version(), option.hard_ttl());
        let reply: AppendReply = self
            .call_needing(PeerCall::Append, &record, needed, limit)
            .await?;
        Ok(reply.into())
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Group>,
        option: RPCOption,
    ) -> Result<VoteResponse<Group>, RPCError<Group>> {
        let record = BallotRecord::from(&request);
        let reply: BallotReply = self
            .call(PeerCall::Vote, &record, option.hard_ttl())
            .await?;
        Ok(reply.into())
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Group>,
        option: RPCOption,
    ) -> Result<VoteResponse<Group>, RPCError<Group>> {
        let record = BallotRecord::from(&request);
        let reply: BallotReply = self
            .call(PeerCall::PreVote, &record, option.hard_ttl())
            .await?;
        Ok(reply.into())
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<Group, Arc<State>>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Group>, StreamingError<Group>> {
        let record = InstallRecord {
            vote: (&vote).into(),
            snapshot: SnapshotRecord::new(&snapshot.meta, &snapshot.snapshot),
        };
        let needed = snapshot.snapshot.version();
        let limit = option.hard_ttl();
        let sent = self.call_needing::<_, InstallReply>(PeerCall::Snapshot, &record, needed, limit);
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            reply = sent => Ok(reply?.into()),
        }
    }

    /// To every voter: the target runs, the others let it.
    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Group>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Group>, RPCError<Group>> {
        let record = TransferRecord::from(&request);
        let limit = option.hard_ttl();
        let taken: bool = self.call(PeerCall::Transfer, &record, limit).await?;
        if !taken {
            let why = "it has seen a newer vote, or lacks entries";
            return Err(Unreachable::from_string(why).into());
        }
        Ok(Ok(()))
    }
}
