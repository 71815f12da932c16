//! The calls of the `Topology` service.
//!
//! *Place*: methods of [`MdsClient`], for command-line tools.
//! *Owner*: any tokio runtime. *Invariants*: as in `volumes`. *On failure*: see `client`.

use super::client::{MdsClient, Repeat};
use super::error::ControlError;
use ogee_proto::service::topology_client::TopologyClient;
use ogee_proto::service::{
    BalanceLeadersRequest, BalanceReplicasRequest, ClusterStatus, CreatePoolRequest, DevicesName,
    Empty, JobInfo, JobName, ListCopysetsResponse, ListDevicesResponse, ListJobsResponse,
    ListPoolsResponse, ListServersResponse, ListZonesResponse, MaintenanceRequest,
    MaintenanceResponse, MarkDevicesRequest, MarkDevicesResponse, OkToRemoveResponse,
    OkToStopResponse, PauseJobsRequest, PauseJobsResponse, PoolInfo, PoolName,
    ReinstateDevicesResponse, ReplaceDeviceRequest, ReplaceDeviceResponse, ReplaceReplicaRequest,
    ReplaceReplicaResponse, ResetCopysetRequest, ResetCopysetResponse, ServerName, SetPoolRequest,
    TransferLeaderRequest,
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
                        async move { TopologyClient::new(channel).$name(request).await }
                    })
                    .await
                }
            )*
        }
    };
}

macro_rules! lists {
    ($($(#[$doc:meta])* $name:ident -> $answer:ty;)*) => {
        impl MdsClient {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// [`ControlError`].
                pub async fn $name(&self) -> Result<$answer, ControlError> {
                    self.call(Repeat::Freely, |channel| async move {
                        TopologyClient::new(channel).$name(Empty {}).await
                    })
                    .await
                }
            )*
        }
    };
}

calls! {
    /// Makes a pool.
    create_pool(CreatePoolRequest) -> PoolInfo, Never;
    /// Changes what is allowed in a pool.
    set_pool(SetPoolRequest) -> PoolInfo, Freely;
    /// Removes a pool in which nothing is.
    remove_pool(PoolName) -> Empty, Never;
    /// Asks for another leader of a copyset.
    transfer_leader(TransferLeaderRequest) -> Empty, Freely;
    /// Asks for a new replica in the place of another.
    replace_replica(ReplaceReplicaRequest) -> ReplaceReplicaResponse, Freely;
    /// Has a copyset that has lost its majority go on with one replica; or asks what that would cost.
    reset_copyset(ResetCopysetRequest) -> ResetCopysetResponse, Never;
    /// Drains devices, declares them lost, or takes either back.
    mark_devices(MarkDevicesRequest) -> MarkDevicesResponse, Freely;
    /// Asks what would become of copysets without some devices.
    ok_to_stop(DevicesName) -> OkToStopResponse, Freely;
    /// Asks the same of a whole zone.
    ok_to_stop_zone(DevicesName) -> OkToStopResponse, Freely;
    /// Asks whether all that is on some devices has somewhere else to go.
    ok_to_remove(DevicesName) -> OkToRemoveResponse, Freely;
    /// Says that a chunkserver is about to be stopped for a while, or is not any more.
    set_maintenance(MaintenanceRequest) -> MaintenanceResponse, Freely;
    /// Takes devices back that limped.
    reinstate_devices(DevicesName) -> ReinstateDevicesResponse, Freely;
    /// Empties a device into another one.
    replace_device(ReplaceDeviceRequest) -> ReplaceDeviceResponse, Freely;
    /// Asks what draining devices would lead to.
    plan_drain(DevicesName) -> ListJobsResponse, Freely;
    /// Asks what replacing a device would lead to.
    plan_replacement(ReplaceDeviceRequest) -> ListJobsResponse, Freely;
    /// Forgets a chunkserver that carries nothing.
    remove_server(ServerName) -> Empty, Never;
    /// Cancels a job that has not begun.
    cancel_job(JobName) -> JobInfo, Never;
    /// Holds background jobs up, or lets them go on.
    pause_jobs(PauseJobsRequest) -> PauseJobsResponse, Freely;
    /// Asks for even leaders; the jobs that see to it, or would.
    balance_leaders(BalanceLeadersRequest) -> ListJobsResponse, Freely;
    /// Asks for devices that carry replicas evenly; the jobs that see to it, or would.
    balance_replicas(BalanceReplicasRequest) -> ListJobsResponse, Freely;
}

lists! {
    /// All pools.
    list_pools -> ListPoolsResponse;
    /// All zones.
    list_zones -> ListZonesResponse;
    /// All chunkservers.
    list_servers -> ListServersResponse;
    /// All devices.
    list_devices -> ListDevicesResponse;
    /// All copysets.
    list_copysets -> ListCopysetsResponse;
    /// Jobs that are live, and the newest that have ended.
    list_jobs -> ListJobsResponse;
    /// Health and totals.
    status -> ClusterStatus;
}
