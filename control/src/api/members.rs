//! `Members`: operators of the metadata servers themselves.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use futures_util::future::join_all;
use futures_util::stream::iter;
use ogee_proto::service::members_client::MembersClient;
use ogee_proto::service::members_server::Members;
use ogee_proto::service::{
    AcceptRestoreRequest, AddMemberRequest, BackupPart, DiscardVolumeRequest, Empty, EventInfo,
    ListEventsRequest, ListEventsResponse, ListMembersResponse, ListStrangersResponse, MemberInfo,
    MemberName, MemberQuery,
};
use tonic::transport::Endpoint;
use tonic::{Request, Response, Status};

use super::context::{Context, unix_ms};
use super::error::ApiError;
use super::watch::note;
use crate::backup;
use crate::limit::{BACKUP_PART, EVENTS_PER_PAGE_MAX, MEMBER_ASK, MEMBER_DIGEST};
use crate::raft::{Consistency, MemberChange, MemberRecord, View, digest, is_address};
use crate::state::{Event, EventLevel, FIRST_VERSION};

/// See the module.
pub(crate) struct MembersApi(pub(crate) Arc<Context>);

type Parts = Pin<Box<dyn Stream<Item = Result<BackupPart, Status>> + Send>>;

impl MembersApi {
    /// As this one knows it, without asking anybody.
    async fn own(&self, query: MemberQuery) -> Result<MemberInfo, ApiError> {
        let view = self.0.raft.view(Consistency::Local).await?;
        let id = self.0.config.id;
        let member = view.members.get(&id);
        let digest = if query.digest {
            digest_of(&view).await?
        } else {
            String::new()
        };
        let role = match member {
            Some(_) if view.leader == Some(id) => "leader",
            Some(member) if member.is_voter => "voter",
            Some(_) => "learner",
            None => "",
        };
        let cluster = view.state.cluster();
        Ok(MemberInfo {
            id,
            address: member.map_or_else(String::new, |member| member.addr.clone()),
            role: role.into(),
            reachable: true,
            term: view.term,
            applied: view.applied.index,
            lag: 0,
            version: env!("CARGO_PKG_VERSION").into(),
            cluster_id: cluster.map_or_else(String::new, |it| it.id.to_string()),
            leader: view.leader.unwrap_or(0),
            group: view.state.group(),
            commands: self.0.config.version,
            group_commands: view.state.version(),
            digest,
        })
    }

    async fn all(&self, query: MemberQuery) -> Result<ListMembersResponse, ApiError> {
        let view = self.0.latest().await?;
        let progress = self.0.raft.progress().await?;
        let me = self.0.config.id;
        let asked = view.members.iter().map(async |(id, member)| {
            let mut info = if *id == me {
                self.own(query).await?
            } else {
                let matched = progress.matched.get(id).copied();
                let said = ask(&member.addr, query).await;
                let said = said.filter(|said| said.id == *id);
                let mut info = said.unwrap_or_default();
                info.lag = progress.last_log.saturating_sub(matched.unwrap_or(0));
                info
            };
            info.id = *id;
            info.address.clone_from(&member.addr);
            info.role = role(&view, *id, member).into();
            Ok::<_, ApiError>(info)
        });
        // All at the same time: what they have applied is compared.
        let members = join_all(asked).await.into_iter();
        Ok(ListMembersResponse {
            members: members.collect::<Result<_, _>>()?,
        })
    }

    async fn add_one(&self, request: AddMemberRequest) -> Result<Empty, ApiError> {
        let AddMemberRequest { id, address } = request;
        if id == 0 || !is_address(&address) {
            let expected = "a number from 1 on, and an address HOST:PORT";
            return Err(ApiError::bad_field(
                "member",
                &format!("{id} at {address}"),
                expected,
            ));
        }
        let view = self.0.latest().await?;
        let is_known = view.members.get(&id).is_some_and(|it| it.addr == address);
        if !is_known {
            let said = ask(&address, MemberQuery::default()).await;
            let said = said.ok_or_else(|| ApiError::no_member_there(&address))?;
            let ours = view.state.cluster().map(|it| it.id.to_string());
            let is_new = said.cluster_id.is_empty();
            let is_ours =
                Some(&said.cluster_id) == ours.as_ref() && said.group == view.state.group();
            if said.id != id || !(is_new || is_ours) {
                return Err(ApiError::other_member_there(&address, id, &said));
            }
            // A release from before there were versions says none.
            let (theirs, group) = (said.commands.max(FIRST_VERSION), view.state.version());
            if theirs < group {
                return Err(ApiError::older_member_there(&address, id, theirs, group));
            }
        }
        let addr = address;
        let text = format!("metadata server {id} at {addr} votes");
        let change = MemberChange::Add { id, addr };
        self.0.raft.change_members(change).await?;
        let subject = id.to_string();
        note(&self.0, EventLevel::Info, "mds_added", &subject, text).await;
        Ok(Empty {})
    }

    async fn remove_one(&self, request: MemberName) -> Result<Empty, ApiError> {
        let change = MemberChange::Remove { id: request.id };
        self.0.raft.change_members(change).await?;
        let (subject, text) = (
            request.id.to_string(),
            format!("metadata server {} was taken out", request.id),
        );
        note(&self.0, EventLevel::Info, "mds_removed", &subject, text).await;
        Ok(Empty {})
    }

    async fn hand_over(&self, request: MemberName) -> Result<MemberName, ApiError> {
        let to = Some(request.id).filter(|id| *id != 0);
        let id = self.0.raft.hand_over(to).await?;
        Ok(MemberName { id })
    }

    async fn make_backup(&self) -> Result<Vec<u8>, ApiError> {
        let view = self.0.latest().await?;
        let made = backup::encode(&view.state, view.applied, self.0.config.id, unix_ms());
        Ok(made?)
    }

    async fn events(&self, request: ListEventsRequest) -> Result<ListEventsResponse, ApiError> {
        let asked = usize::try_from(request.limit).unwrap_or(EVENTS_PER_PAGE_MAX);
        let limit = if asked == 0 {
            EVENTS_PER_PAGE_MAX
        } else {
            asked.min(EVENTS_PER_PAGE_MAX)
        };
        let view = self.0.latest().await?;
        let events = view.state.events();
        let (missed, kept) = events.after(request.after);
        let info = |(sequence, event): (u64, &Event)| EventInfo {
            sequence,
            unix_ms: event.at_ms,
            kind: event.kind.clone(),
            severity: event.level.as_str().into(),
            subject: event.subject.clone(),
            text: event.text.clone(),
        };
        Ok(ListEventsResponse {
            events: kept.take(limit).map(info).collect(),
            missed,
            newest: events.newest(),
        })
    }
}

const fn role(view: &View, id: u64, member: &MemberRecord) -> &'static str {
    match view.leader {
        Some(leader) if leader == id => "leader",
        _ if member.is_voter => "voter",
        _ => "learner",
    }
}

/// Of all metadata: not on the thread that serves.
async fn digest_of(view: &View) -> Result<String, ApiError> {
    let state = Arc::clone(&view.state);
    let made = tokio::task::spawn_blocking(move || digest(&state)).await;
    let why = match made {
        Ok(Ok(digest)) => return Ok(digest),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    Err(ApiError::no_digest(&why))
}

/// What the metadata server at an address says of itself, if one answers.
async fn ask(addr: &str, query: MemberQuery) -> Option<MemberInfo> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).ok()?;
    let channel = endpoint.connect_timeout(MEMBER_ASK).connect_lazy();
    let mut client = MembersClient::new(channel);
    let patience = if query.digest {
        MEMBER_DIGEST
    } else {
        MEMBER_ASK
    };
    let answer = tokio::time::timeout(patience, client.local(query)).await;
    Some(answer.ok()?.ok()?.into_inner())
}

#[tonic::async_trait]
impl Members for MembersApi {
    type BackupStream = Parts;

    async fn local(&self, request: Request<MemberQuery>) -> Result<Response<MemberInfo>, Status> {
        self.0.reply("member", self.own(request.into_inner()).await)
    }

    async fn list(
        &self,
        request: Request<MemberQuery>,
    ) -> Result<Response<ListMembersResponse>, Status> {
        self.0
            .reply("list_members", self.all(request.into_inner()).await)
    }

    async fn add(&self, request: Request<AddMemberRequest>) -> Result<Response<Empty>, Status> {
        let result = self.add_one(request.into_inner()).await;
        self.0.reply("add_member", result)
    }

    async fn remove(&self, request: Request<MemberName>) -> Result<Response<Empty>, Status> {
        let result = self.remove_one(request.into_inner()).await;
        self.0.reply("remove_member", result)
    }

    async fn transfer_leadership(
        &self,
        request: Request<MemberName>,
    ) -> Result<Response<MemberName>, Status> {
        let result = self.hand_over(request.into_inner()).await;
        self.0.reply("transfer_leadership", result)
    }

    async fn backup(&self, _: Request<Empty>) -> Result<Response<Parts>, Status> {
        let made = self.make_backup().await.map(|bytes| {
            let parts = bytes.chunks(BACKUP_PART).map(<[u8]>::to_vec);
            let parts: Vec<_> = parts.map(|bytes| Ok(BackupPart { bytes })).collect();
            let parts: Parts = Box::pin(iter(parts));
            parts
        });
        self.0.reply("backup", made)
    }

    async fn list_strangers(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<ListStrangersResponse>, Status> {
        self.0.reply("list_strangers", self.strangers().await)
    }

    async fn discard_volume(
        &self,
        request: Request<DiscardVolumeRequest>,
    ) -> Result<Response<Empty>, Status> {
        let result = self.discard(request.into_inner()).await;
        self.0.reply("discard_volume", result)
    }

    async fn accept_restore(
        &self,
        request: Request<AcceptRestoreRequest>,
    ) -> Result<Response<Empty>, Status> {
        let result = self.accept(request.into_inner()).await;
        self.0.reply("accept_restore", result)
    }

    async fn list_events(
        &self,
        request: Request<ListEventsRequest>,
    ) -> Result<Response<ListEventsResponse>, Status> {
        let result = self.events(request.into_inner()).await;
        self.0.reply("list_events", result)
    }
}
