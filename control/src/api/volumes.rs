//! `Volumes`: clients and operators.

use std::sync::Arc;
use std::time::Instant;

use ogee_proto::id::{ClientId, Epoch, VolumeId};
use ogee_proto::layout::StripeLayout;
use ogee_proto::limit::CHUNK_SIZE;
use ogee_proto::name::{Name, PathName};
use ogee_proto::service::volumes_server::Volumes;
use ogee_proto::service::{
    AttachRequest, Attachment, CreateVolumeRequest, DetachRequest, Empty, ListVolumesRequest,
    ListVolumesResponse, RefreshRequest, RemoveVolumeRequest, ResizeVolumeRequest, VolumeInfo,
    VolumeMap, VolumeName,
};
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::context::{Context, unix_ms};
use super::error::ApiError;
use super::identity::Identity;
use super::info::Scene;
use super::names::labels;
use crate::limit::{PAGE_BYTES, VOLUMES_PER_PAGE_MAX};
use crate::raft::View;
use crate::state::{
    Attach, Command, CreateVolume, Detach, EventLevel, Refusal, RemoveVolume, Reply, ResizeVolume,
    State, Users, Volume,
};

/// Pool of a volume whose creator names none.
pub(super) const DEFAULT_POOL: &str = "default";

/// See the module.
pub(crate) struct VolumesApi(pub(crate) Arc<Context>);

impl VolumesApi {
    /// Reads from the latest metadata and the newest reports.
    async fn look<T>(
        &self,
        read: impl FnOnce(&Scene<'_>) -> Result<T, Refusal>,
    ) -> Result<T, ApiError> {
        let view = self.0.latest().await?;
        self.read(&view, read)
    }

    fn read<T>(
        &self,
        view: &View,
        read: impl FnOnce(&Scene<'_>) -> Result<T, Refusal>,
    ) -> Result<T, ApiError> {
        let world = self.0.world();
        let (state, liveness): (&State, _) = (&view.state, &world.liveness);
        Ok(read(&Scene {
            state,
            liveness,
            now: Instant::now(),
            rules: &self.0.config.heal,
            strangers: &world.strangers,
        })?)
    }

    async fn info(&self, name: &str) -> Result<VolumeInfo, ApiError> {
        self.look(|scene| {
            let (id, volume) = scene.state.volume(name)?;
            Ok(scene.volume_info(id, volume))
        })
        .await
    }

    async fn map(
        &self,
        find: impl FnOnce(&State) -> Result<(VolumeId, &Volume), Refusal>,
    ) -> Result<VolumeMap, ApiError> {
        let view = self.0.latest().await?;
        let mds = view.addresses();
        let map = self.read(&view, |scene| {
            let (id, volume) = find(scene.state)?;
            Ok(scene.volume_map(id, volume))
        });
        Ok(VolumeMap { mds, ..map? })
    }

    /// As a command that was carried out left it, whatever came after.
    pub(super) async fn changed(&self, reply: Reply) -> Result<VolumeInfo, ApiError> {
        let Reply::Volume(id, volume) = reply else {
            unreachable!("invariant: a volume that is made or resized is in the answer");
        };
        let view = self.0.written().await?;
        self.read(&view, |scene| Ok(scene.volume_info(id, &volume)))
    }

    async fn create_volume(
        &self,
        mut request: CreateVolumeRequest,
    ) -> Result<VolumeInfo, ApiError> {
        let id = std::mem::take(&mut request.request_id);
        let said = format!("create volume \"{}\"", request.name);
        let identity = Identity::new(&id, said, &request)?;
        let unit = if request.stripe_unit == 0 {
            CHUNK_SIZE as u64
        } else {
            request.stripe_unit
        };
        let count = u64::from(request.stripe_count.max(1));
        let layout = StripeLayout::new(unit, count);
        let layout = layout.map_err(|_| Refusal::BadStripe { unit, count })?;
        let pool = if request.pool.is_empty() {
            let view = self.0.latest().await?;
            let state = &view.state;
            (state.pool_for(request.size, request.replicas, DEFAULT_POOL)).to_owned()
        } else {
            request.pool
        };
        let command = CreateVolume {
            name: PathName::new(&request.name)?,
            pool: Name::new(&pool)?,
            size: request.size,
            stripe: layout.into(),
            replicas: request.replicas,
            owner: request.owner,
            labels: labels(request.labels)?,
            created_unix_ms: unix_ms(),
        };
        let command = identity.seal(Command::CreateVolume(command));
        let reply = self.0.write(command).await?;
        self.changed(reply).await
    }

    async fn resize_volume(
        &self,
        mut request: ResizeVolumeRequest,
    ) -> Result<VolumeInfo, ApiError> {
        let id = std::mem::take(&mut request.request_id);
        let said = format!(
            "resize volume \"{}\" to {} bytes",
            request.name, request.size
        );
        let identity = Identity::new(&id, said, &request)?;
        let name = PathName::new(&request.name)?;
        let command = ResizeVolume {
            name,
            size: request.size,
        };
        let command = identity.seal(Command::ResizeVolume(command));
        let reply = self.0.write(command).await?;
        self.changed(reply).await
    }

    async fn remove_volume(&self, mut request: RemoveVolumeRequest) -> Result<Empty, ApiError> {
        let id = std::mem::take(&mut request.request_id);
        let said = format!("remove volume \"{}\"", request.name);
        let identity = Identity::new(&id, said, &request)?;
        let name = PathName::new(&request.name)?;
        let command = identity.seal(Command::RemoveVolume(RemoveVolume { name }));
        self.0.write(command).await?;
        Ok(Empty {})
    }

    async fn page(&self, request: ListVolumesRequest) -> Result<ListVolumesResponse, ApiError> {
        let asked = usize::try_from(request.limit).unwrap_or(VOLUMES_PER_PAGE_MAX);
        let limit = if asked == 0 {
            VOLUMES_PER_PAGE_MAX
        } else {
            asked.min(VOLUMES_PER_PAGE_MAX)
        };
        let labels = labels(request.labels)?;
        let is_wanted = |volume: &Volume| {
            let rest = volume.name.as_str().get(request.prefix.len()..);
            let is_there = !request.direct || rest.is_some_and(|rest| !rest.contains('/'));
            let owner = request.owner.as_ref();
            is_there
                && owner.is_none_or(|owner| *owner == volume.owner)
                && labels
                    .iter()
                    .all(|(key, value)| volume.labels.get(key) == Some(value))
        };
        self.look(|scene| {
            let named = scene.state.volumes_named(&request.prefix, &request.after);
            let mut rest = named.filter(|(_, volume)| is_wanted(volume));
            let (mut volumes, mut bytes) = (Vec::<VolumeInfo>::new(), 0);
            while volumes.len() < limit && bytes < PAGE_BYTES {
                let Some((id, volume)) = rest.next() else {
                    break;
                };
                let info = scene.volume_info(id, volume);
                bytes += info.encoded_len();
                volumes.push(info);
            }
            let more = rest.next().is_some();
            let last = volumes.last().filter(|_| more).map(|v| v.name.clone());
            Ok(ListVolumesResponse {
                volumes,
                next: last.unwrap_or_default(),
            })
        })
        .await
    }

    async fn attach_volume(&self, mut request: AttachRequest) -> Result<Attachment, ApiError> {
        let id = std::mem::take(&mut request.request_id);
        let said = format!("attach volume \"{}\"", request.name);
        let identity = Identity::new(&id, said, &request)?;
        let command = Attach {
            name: PathName::new(&request.name)?,
            host: request.host,
            read_only: request.read_only,
        };
        let before = self.0.latest().await?;
        let before = before
            .state
            .volume(&request.name)
            .map(|(_, it)| (it.users.clone(), it.epoch));
        let reply = self
            .0
            .write(identity.seal(Command::Attach(command)))
            .await?;
        // Of an attach that is only answered again the epoch is there already.
        let is_new =
            |known: Epoch| matches!(&reply, Reply::Attached { epoch, .. } if *epoch > known);
        if let Ok((Users::Writer(other), known)) = before
            && is_new(known)
        {
            let text = format!(
                "volume \"{}\" was taken over from host \"{}\", which is fenced",
                request.name, other.host
            );
            self.0
                .notes
                .add(EventLevel::Info, "volume_fenced", &request.name, text);
        }
        let Reply::Attached {
            id,
            client,
            epoch,
            volume,
        } = reply
        else {
            unreachable!("invariant: an attach that is carried out answers with the attachment");
        };
        let view = self.0.written().await?;
        let mds = view.addresses();
        let map = self.read(&view, |scene| Ok(scene.volume_map(id, &volume)))?;
        Ok(Attachment {
            map: Some(VolumeMap { mds, ..map }),
            client: client.get(),
            epoch: epoch.get(),
        })
    }

    async fn detach_volume(&self, mut request: DetachRequest) -> Result<Empty, ApiError> {
        let id = std::mem::take(&mut request.request_id);
        let said = format!("detach volume \"{}\"", request.name);
        let identity = Identity::new(&id, said, &request)?;
        let command = Detach {
            name: PathName::new(&request.name)?,
            client: ClientId::new(request.client),
            epoch: Epoch::new(request.epoch),
            force: request.force,
        };
        self.0
            .write(identity.seal(Command::Detach(command)))
            .await?;
        if request.force {
            let text = format!("volume \"{}\" was taken from whoever had it", request.name);
            self.0
                .notes
                .add(EventLevel::Warn, "volume_detached", &request.name, text);
        }
        Ok(Empty {})
    }

    async fn refresh_map(&self, request: RefreshRequest) -> Result<VolumeMap, ApiError> {
        let user = ClientId::new(request.client);
        self.map(|state| {
            let (id, volume) = state.volume_of(&request.name, user)?;
            let epoch = volume.epoch.get();
            if volume.users.contains(user) && epoch == request.epoch {
                return Ok((id, volume));
            }
            Err(Refusal::StaleAttachment {
                name: volume.name.clone(),
                epoch,
            })
        })
        .await
    }
}

#[tonic::async_trait]
impl Volumes for VolumesApi {
    async fn create(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Result<Response<VolumeInfo>, Status> {
        self.0
            .reply("create", self.create_volume(request.into_inner()).await)
    }

    async fn list(
        &self,
        request: Request<ListVolumesRequest>,
    ) -> Result<Response<ListVolumesResponse>, Status> {
        self.0.reply("list", self.page(request.into_inner()).await)
    }

    async fn show(&self, request: Request<VolumeName>) -> Result<Response<VolumeInfo>, Status> {
        self.0
            .reply("show", self.info(&request.into_inner().name).await)
    }

    async fn resize(
        &self,
        request: Request<ResizeVolumeRequest>,
    ) -> Result<Response<VolumeInfo>, Status> {
        self.0
            .reply("resize", self.resize_volume(request.into_inner()).await)
    }

    async fn remove(
        &self,
        request: Request<RemoveVolumeRequest>,
    ) -> Result<Response<Empty>, Status> {
        self.0
            .reply("remove", self.remove_volume(request.into_inner()).await)
    }

    async fn locate(&self, request: Request<VolumeName>) -> Result<Response<VolumeMap>, Status> {
        let name = request.into_inner().name;
        let map = self.map(|state| state.volume(&name)).await;
        self.0.reply("locate", map)
    }

    async fn attach(
        &self,
        request: Request<AttachRequest>,
    ) -> Result<Response<Attachment>, Status> {
        self.0
            .reply("attach", self.attach_volume(request.into_inner()).await)
    }

    async fn detach(&self, request: Request<DetachRequest>) -> Result<Response<Empty>, Status> {
        self.0
            .reply("detach", self.detach_volume(request.into_inner()).await)
    }

    async fn refresh(
        &self,
        request: Request<RefreshRequest>,
    ) -> Result<Response<VolumeMap>, Status> {
        self.0
            .reply("refresh", self.refresh_map(request.into_inner()).await)
    }
}
