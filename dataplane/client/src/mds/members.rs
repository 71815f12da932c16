//! The calls of the `Members` service.
//!
//! *Place*: methods of [`MdsClient`], for command-line tools.
//! *Owner*: any tokio runtime. *Invariants*: as in `volumes`. *On failure*: see `client`; a backup that
//! breaks off is an error, and is asked for again as a whole.

use super::client::{MdsClient, Repeat};
use super::error::{ControlError, Refusal};
use ogee_proto::service::members_client::MembersClient;
use ogee_proto::service::{
    AcceptRestoreRequest, AddMemberRequest, DiscardVolumeRequest, Empty, ListEventsRequest,
    ListEventsResponse, ListMembersResponse, ListStrangersResponse, MemberName, MemberQuery,
};

impl MdsClient {
    /// All metadata servers of the group; with a digest of what each has applied, if that is asked for.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn list_members(&self, digest: bool) -> Result<ListMembersResponse, ControlError> {
        self.call(Repeat::Freely, |channel| async move {
            let query = MemberQuery { digest };
            MembersClient::new(channel).list(query).await
        })
        .await
    }

    /// Takes a metadata server into the group.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn add_member(&self, request: AddMemberRequest) -> Result<Empty, ControlError> {
        self.call(Repeat::Freely, |channel| {
            let request = request.clone();
            async move { MembersClient::new(channel).add(request).await }
        })
        .await
    }

    /// Takes a metadata server out of the group. Not repeated: a second answer would be that there is
    /// no such member.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn remove_member(&self, id: u64) -> Result<Empty, ControlError> {
        self.call(Repeat::Never, |channel| async move {
            MembersClient::new(channel).remove(MemberName { id }).await
        })
        .await
    }

    /// Has another metadata server lead; the number of the one that does then.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn transfer_leadership(&self, to: u64) -> Result<u64, ControlError> {
        let asked = self.call(Repeat::Freely, |channel| async move {
            let to = MemberName { id: to };
            MembersClient::new(channel).transfer_leadership(to).await
        });
        Ok(asked.await?.id)
    }

    /// A backup of the metadata, part by part to `take`, which may end it.
    ///
    /// # Errors
    /// [`ControlError`]; `take`'s own error is in the answer.
    pub async fn backup<E>(
        &self,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Result<(), E>, ControlError> {
        let asked = self.call(Repeat::Freely, |channel| async move {
            MembersClient::new(channel).backup(Empty {}).await
        });
        let mut parts = asked.await?;
        loop {
            let part = parts.message().await;
            let part = part.map_err(|status| ControlError::Refused(Box::new(Refusal::new(status))));
            let Some(part) = part? else {
                return Ok(Ok(()));
            };
            if let Err(error) = take(&part.bytes) {
                return Ok(Err(error));
            }
        }
    }

    /// What chunkservers hold and the metadata does not know.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn list_strangers(&self) -> Result<ListStrangersResponse, ControlError> {
        self.call(Repeat::Freely, |channel| async move {
            MembersClient::new(channel).list_strangers(Empty {}).await
        })
        .await
    }

    /// Frees the chunks of a volume that the metadata does not know.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn discard_volume(&self, volume: u64) -> Result<Empty, ControlError> {
        self.call(Repeat::Freely, |channel| async move {
            let request = DiscardVolumeRequest { volume };
            MembersClient::new(channel).discard_volume(request).await
        })
        .await
    }

    /// Says that restored metadata is as it should be.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn accept_restore(&self, force: bool) -> Result<Empty, ControlError> {
        self.call(Repeat::Freely, |channel| async move {
            let request = AcceptRestoreRequest { force };
            MembersClient::new(channel).accept_restore(request).await
        })
        .await
    }

    /// Events after a sequence number.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn list_events(&self, after: u64) -> Result<ListEventsResponse, ControlError> {
        self.call(Repeat::Freely, |channel| async move {
            let request = ListEventsRequest { after, limit: 0 };
            MembersClient::new(channel).list_events(request).await
        })
        .await
    }
}
