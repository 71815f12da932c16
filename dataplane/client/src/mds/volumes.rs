//! The calls of the `Volumes` and `Names` services.
//!
//! *Place*: methods of [`MdsClient`], for the handle and for command-line tools.
//! *Owner*: any tokio runtime. *Invariants*: what changes the cluster carries an id that is drawn for it, the same in
//! each try: it is done once, and answered as it was done, whoever leads by then. *On failure*: see `client`.

use super::client::{MdsClient, Repeat};
use super::error::ControlError;
use ogee_proto::service::names_client::NamesClient;
use ogee_proto::service::volumes_client::VolumesClient;
use ogee_proto::service::{
    AttachRequest, Attachment, CreateDirectoryRequest, CreateVolumeRequest, DetachRequest, Empty,
    ListDirectoriesRequest, ListDirectoriesResponse, ListQuotasResponse, ListVolumesRequest,
    ListVolumesResponse, RefreshRequest, RemoveDirectoryRequest, RemoveVolumeRequest,
    RenameRequest, ResizeVolumeRequest, SetQuotaRequest, SetVolumeRequest, VolumeInfo, VolumeMap,
    VolumeName,
};

/// What may be asked any number of times.
macro_rules! questions {
    ($($(#[$doc:meta])* $client:ident::$name:ident($request:ty) -> $answer:ty;)*) => {
        impl MdsClient {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// [`ControlError`].
                pub async fn $name(&self, request: $request) -> Result<$answer, ControlError> {
                    self.call(Repeat::Freely, |channel| {
                        let request = request.clone();
                        async move { $client::new(channel).$name(request).await }
                    })
                    .await
                }
            )*
        }
    };
}

/// What is to be done once. An id that is given is kept.
macro_rules! changes {
    ($($(#[$doc:meta])* $client:ident::$name:ident($request:ty) -> $answer:ty;)*) => {
        impl MdsClient {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// [`ControlError`].
                pub async fn $name(&self, mut request: $request) -> Result<$answer, ControlError> {
                    if request.request_id.is_empty() {
                        request.request_id = draw();
                    }
                    self.call(Repeat::ById, |channel| {
                        let request = request.clone();
                        async move { $client::new(channel).$name(request).await }
                    })
                    .await
                }
            )*
        }
    };
}

/// An id that no other request has.
fn draw() -> Vec<u8> {
    rand::random::<[u8; 16]>().to_vec()
}

questions! {
    /// All volumes.
    VolumesClient::list(ListVolumesRequest) -> ListVolumesResponse;
    /// One volume.
    VolumesClient::show(VolumeName) -> VolumeInfo;
    /// The whole map of a volume.
    VolumesClient::locate(VolumeName) -> VolumeMap;
    /// Directories in one.
    NamesClient::list_directories(ListDirectoriesRequest) -> ListDirectoriesResponse;
}

changes! {
    /// Makes a volume.
    VolumesClient::create(CreateVolumeRequest) -> VolumeInfo;
    /// Grows a volume to a size.
    VolumesClient::resize(ResizeVolumeRequest) -> VolumeInfo;
    /// Removes a volume.
    VolumesClient::remove(RemoveVolumeRequest) -> Empty;
    /// Makes the caller the volume's user.
    VolumesClient::attach(AttachRequest) -> Attachment;
    /// Gives an attachment up.
    VolumesClient::detach(DetachRequest) -> Empty;
    /// Calls a volume something else.
    NamesClient::rename(RenameRequest) -> VolumeInfo;
    /// Changes owner and labels of a volume.
    NamesClient::set(SetVolumeRequest) -> VolumeInfo;
    /// Makes a directory.
    NamesClient::create_directory(CreateDirectoryRequest) -> Empty;
    /// Removes an empty directory.
    NamesClient::remove_directory(RemoveDirectoryRequest) -> Empty;
    /// Calls a directory something else.
    NamesClient::rename_directory(RenameRequest) -> Empty;
    /// Bounds what an owner or a directory may have.
    NamesClient::set_quota(SetQuotaRequest) -> Empty;
}

impl MdsClient {
    /// All quotas.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn list_quotas(&self) -> Result<ListQuotasResponse, ControlError> {
        self.call(Repeat::Freely, |channel| async move {
            NamesClient::new(channel).list_quotas(Empty {}).await
        })
        .await
    }

    /// The map of an attached volume. It says where the metadata servers are by now, too.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn refresh(&self, request: RefreshRequest) -> Result<VolumeMap, ControlError> {
        let asked = self.call(Repeat::Freely, |channel| {
            let request = request.clone();
            async move { VolumesClient::new(channel).refresh(request).await }
        });
        let map = asked.await?;
        self.learn(&map.mds);
        Ok(map)
    }
}
