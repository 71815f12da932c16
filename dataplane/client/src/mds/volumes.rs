//! The calls of the `Volumes` service.
//!
//! *Place*: methods of [`MdsClient`], for the handle and for command-line tools.
//! *Owner*: any tokio runtime. *Invariants*: what changes the cluster and does not name its own
//! outcome is never repeated blindly. *On failure*: see `client`.

use super::client::{MdsClient, Repeat};
use super::error::ControlError;
use ogee_proto::service::volumes_client::VolumesClient;
use ogee_proto::service::{
    AttachRequest, Attachment, CreateVolumeRequest, DetachRequest, Empty, ListVolumesRequest,
    ListVolumesResponse, RefreshRequest, ResizeVolumeRequest, VolumeInfo, VolumeMap, VolumeName,
};

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($request:ty) -> $answer:ty, $repeat:ident;)*) => {
        impl MdsClient {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// [`ControlError`].
                pub async fn $name(&self, request: $request) -> Result<$answer, ControlError> {
                    self.call(Repeat::$repeat, |channel| {
                        let request = request.clone();
                        async move { VolumesClient::new(channel).$name(request).await }
                    })
                    .await
                }
            )*
        }
    };
}

calls! {
    /// Makes a volume.
    create(CreateVolumeRequest) -> VolumeInfo, Never;
    /// All volumes.
    list(ListVolumesRequest) -> ListVolumesResponse, Freely;
    /// One volume.
    show(VolumeName) -> VolumeInfo, Freely;
    /// Grows a volume to a size: twice is as good as once.
    resize(ResizeVolumeRequest) -> VolumeInfo, Freely;
    /// Removes a volume.
    remove(VolumeName) -> Empty, Never;
    /// The whole map of a volume.
    locate(VolumeName) -> VolumeMap, Freely;
    /// Makes the caller the volume's user.
    attach(AttachRequest) -> Attachment, Never;
    /// Gives an attachment up.
    detach(DetachRequest) -> Empty, Never;
}

impl MdsClient {
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
