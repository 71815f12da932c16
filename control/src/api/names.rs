//! `Names`: what volumes are called and whose they are, directories, quotas.

use std::collections::BTreeSet;
use std::sync::Arc;

use ogee_proto::name::{Name, PathName};
use ogee_proto::service::names_server::Names;
use ogee_proto::service::{
    CreateDirectoryRequest, DirectoryInfo, Empty, Label, ListDirectoriesRequest,
    ListDirectoriesResponse, ListQuotasResponse, QuotaInfo, RemoveDirectoryRequest, RenameRequest,
    SetQuotaRequest, SetVolumeRequest, VolumeInfo,
};
use tonic::{Request, Response, Status};

use super::context::{Context, unix_ms};
use super::error::ApiError;
use super::identity::Identity;
use super::info::count;
use super::volumes::VolumesApi;
use crate::limit::{LABELS_MAX, TEXT_LEN_MAX};
use crate::state::{
    Bound, Command, CreateDirectory, Directory, EventLevel, Labels, Quota, QuotaOf, Refusal,
    RemoveDirectory, Rename, SetQuota, SetVolume, State, Usage, check_count,
};

/// See the module.
pub(crate) struct NamesApi(pub(crate) Arc<Context>);

const LABELS_ASKED: &str = "labels in one request";

/// Labels as they came, if they are not more than could ever be used.
pub(super) fn labels(from: Vec<Label>) -> Result<Labels, ApiError> {
    check_count(LABELS_ASKED, from.len(), LABELS_MAX)?;
    let label = |it: Label| {
        let key = Name::new(&it.key)?;
        match it.value.len() {
            0..=TEXT_LEN_MAX => Ok((key, it.value)),
            _ => Err(Refusal::BadLabel { key }.into()),
        }
    };
    from.into_iter().map(label).collect()
}

impl NamesApi {
    /// What is to be called something else, and whether it still has to be: not if this was done before.
    async fn prepare(
        &self,
        what: &str,
        mut request: RenameRequest,
        exists: impl FnOnce(&State, &str) -> bool,
    ) -> Result<(Identity, Rename, bool), ApiError> {
        let id = std::mem::take(&mut request.request_id);
        let RenameRequest { from, to, .. } = &request;
        let said = format!("rename {what} \"{from}\" to \"{to}\"");
        let identity = Identity::new(&id, said, &request)?;
        let rename = Rename {
            from: PathName::new(from)?,
            to: PathName::new(to)?,
        };
        let view = self.0.latest().await?;
        let is_due = from != to && exists(&view.state, from);
        Ok((identity, rename, is_due))
    }

    fn note_rename(&self, what: &str, rename: &Rename) {
        let Rename { from, to } = rename;
        let text = format!("{what} \"{from}\" is called \"{to}\" from now on");
        let kind = format!("{what}_renamed");
        let notes = &self.0.notes;
        notes.add(EventLevel::Info, &kind, from.as_str(), text);
    }

    async fn rename_volume(&self, request: RenameRequest) -> Result<VolumeInfo, ApiError> {
        let is_there = |state: &State, name: &str| state.volume(name).is_ok();
        let (identity, rename, is_due) = self.prepare("volume", request, is_there).await?;
        let command = identity.seal(Command::RenameVolume(rename.clone()));
        let reply = self.0.write(command).await?;
        if is_due {
            self.note_rename("volume", &rename);
        }
        VolumesApi(Arc::clone(&self.0)).changed(reply).await
    }

    async fn move_directory(&self, request: RenameRequest) -> Result<Empty, ApiError> {
        let is_there = |state: &State, path: &str| state.directory(path).is_ok();
        let (identity, rename, is_due) = self.prepare("directory", request, is_there).await?;
        let command = identity.seal(Command::RenameDirectory(rename.clone()));
        self.0.write(command).await?;
        if is_due {
            self.note_rename("directory", &rename);
        }
        Ok(Empty {})
    }

    async fn set_volume(&self, mut request: SetVolumeRequest) -> Result<VolumeInfo, ApiError> {
        let id = std::mem::take(&mut request.request_id);
        let said = format!("change volume \"{}\"", request.name);
        let identity = Identity::new(&id, said, &request)?;
        check_count(LABELS_ASKED, request.unlabel.len(), LABELS_MAX)?;
        let unlabel = request.unlabel.iter().map(|key| Name::new(key));
        let unlabel: Result<BTreeSet<Name>, _> = unlabel.collect();
        let command = SetVolume {
            name: PathName::new(&request.name)?,
            owner: request.owner,
            labels: labels(request.labels)?,
            unlabel: unlabel?,
        };
        let command = identity.seal(Command::SetVolume(command));
        let reply = self.0.write(command).await?;
        VolumesApi(Arc::clone(&self.0)).changed(reply).await
    }

    async fn make(&self, mut request: CreateDirectoryRequest) -> Result<Empty, ApiError> {
        let id = std::mem::take(&mut request.request_id);
        let said = format!("create directory \"{}\"", request.path);
        let identity = Identity::new(&id, said, &request)?;
        let command = CreateDirectory {
            path: PathName::new(&request.path)?,
            parents: request.parents,
            created_unix_ms: unix_ms(),
        };
        let command = identity.seal(Command::CreateDirectory(command));
        self.0.write(command).await?;
        Ok(Empty {})
    }

    async fn remove(&self, mut request: RemoveDirectoryRequest) -> Result<Empty, ApiError> {
        let id = std::mem::take(&mut request.request_id);
        let said = format!("remove directory \"{}\"", request.path);
        let identity = Identity::new(&id, said, &request)?;
        let path = PathName::new(&request.path)?;
        let command = identity.seal(Command::RemoveDirectory(RemoveDirectory { path }));
        self.0.write(command).await?;
        Ok(Empty {})
    }

    async fn list(
        &self,
        request: ListDirectoriesRequest,
    ) -> Result<ListDirectoriesResponse, ApiError> {
        let view = self.0.latest().await?;
        let state = &view.state;
        let at = Some(request.path.as_str()).filter(|path| !path.is_empty());
        let own = match at {
            Some(path) => {
                let (path, directory) = state.directory(path)?;
                directory_info(state, path, directory)
            }
            None => top_info(state),
        };
        let below = state.directories_below(at);
        let wanted = below.filter(|(path, _)| request.recursive || path.parent() == at);
        let directories = wanted.map(|(path, it)| directory_info(state, path, it));
        Ok(ListDirectoriesResponse {
            directories: directories.collect(),
            directory: Some(own),
        })
    }

    async fn bound(&self, mut request: SetQuotaRequest) -> Result<Empty, ApiError> {
        let id = std::mem::take(&mut request.request_id);
        let (owner, directory) = (request.owner.as_str(), request.directory.as_str());
        let of = match (owner, directory) {
            ("", "") => Err(("owner", "", "an owner or a directory is named")),
            (owner, "") => Ok(QuotaOf::Owner(owner.to_owned())),
            ("", path) => Ok(QuotaOf::Directory(PathName::new(path)?)),
            (owner, _) => Err(("owner", owner, "a quota is an owner's or a directory's")),
        };
        let of = of.map_err(|(field, value, why)| ApiError::bad_field(field, value, why))?;
        let identity = Identity::new(&id, format!("set the quota of {of}"), &request)?;
        let bound = |limit: Option<u64>, any: bool| match (limit, any) {
            (_, true) => Bound::Lift,
            (Some(limit), false) => Bound::At(limit),
            (None, false) => Bound::Keep,
        };
        let command = SetQuota {
            of,
            bytes: bound(request.bytes, request.any_bytes),
            volumes: bound(request.volumes, request.any_volumes),
        };
        let command = identity.seal(Command::SetQuota(command));
        self.0.write(command).await?;
        Ok(Empty {})
    }

    async fn quotas(&self) -> Result<ListQuotasResponse, ApiError> {
        let view = self.0.latest().await?;
        let state = &view.state;
        let owners = state.owner_quotas().map(|(owner, quota, used)| QuotaInfo {
            owner: owner.to_owned(),
            ..quota_info(quota, used)
        });
        let bounded = state.directories().filter(|(_, it)| it.quota.is_set());
        let directories = bounded.map(|(path, it)| QuotaInfo {
            directory: path.to_string(),
            ..quota_info(&it.quota, state.usage_below(path.as_str()))
        });
        Ok(ListQuotasResponse {
            quotas: owners.chain(directories).collect(),
        })
    }
}

fn quota_info(quota: &Quota, usage: Usage) -> QuotaInfo {
    QuotaInfo {
        bytes_max: quota.bytes,
        volumes_max: quota.volumes,
        bytes: usage.bytes,
        volumes: usage.volumes,
        ..QuotaInfo::default()
    }
}

/// How many directories are directly in one; of none: at the top.
fn directories_in(state: &State, at: Option<&str>) -> u32 {
    let below = state.directories_below(at);
    count(below.filter(|(path, _)| path.parent() == at).count())
}

fn directory_info(state: &State, path: &PathName, directory: &Directory) -> DirectoryInfo {
    let usage = state.usage_below(path.as_str());
    DirectoryInfo {
        path: path.to_string(),
        directories: directories_in(state, Some(path.as_str())),
        volumes: usage.volumes,
        bytes: usage.bytes,
        created_unix_ms: directory.created_unix_ms,
        bytes_max: directory.quota.bytes,
        volumes_max: directory.quota.volumes,
    }
}

/// What all volumes are in: it has no name.
fn top_info(state: &State) -> DirectoryInfo {
    let usage = Usage::of(state.volumes().values());
    DirectoryInfo {
        directories: directories_in(state, None),
        volumes: usage.volumes,
        bytes: usage.bytes,
        ..DirectoryInfo::default()
    }
}

#[tonic::async_trait]
impl Names for NamesApi {
    async fn rename(
        &self,
        request: Request<RenameRequest>,
    ) -> Result<Response<VolumeInfo>, Status> {
        let done = self.rename_volume(request.into_inner()).await;
        self.0.reply("rename", done)
    }

    async fn set(
        &self,
        request: Request<SetVolumeRequest>,
    ) -> Result<Response<VolumeInfo>, Status> {
        let done = self.set_volume(request.into_inner()).await;
        self.0.reply("set_volume", done)
    }

    async fn create_directory(
        &self,
        request: Request<CreateDirectoryRequest>,
    ) -> Result<Response<Empty>, Status> {
        let done = self.make(request.into_inner()).await;
        self.0.reply("create_directory", done)
    }

    async fn remove_directory(
        &self,
        request: Request<RemoveDirectoryRequest>,
    ) -> Result<Response<Empty>, Status> {
        let done = self.remove(request.into_inner()).await;
        self.0.reply("remove_directory", done)
    }

    async fn rename_directory(
        &self,
        request: Request<RenameRequest>,
    ) -> Result<Response<Empty>, Status> {
        let done = self.move_directory(request.into_inner()).await;
        self.0.reply("rename_directory", done)
    }

    async fn list_directories(
        &self,
        request: Request<ListDirectoriesRequest>,
    ) -> Result<Response<ListDirectoriesResponse>, Status> {
        let found = self.list(request.into_inner()).await;
        self.0.reply("list_directories", found)
    }

    async fn set_quota(
        &self,
        request: Request<SetQuotaRequest>,
    ) -> Result<Response<Empty>, Status> {
        let done = self.bound(request.into_inner()).await;
        self.0.reply("set_quota", done)
    }

    async fn list_quotas(&self, _: Request<Empty>) -> Result<Response<ListQuotasResponse>, Status> {
        let found = self.quotas().await;
        self.0.reply("list_quotas", found)
    }
}
