//! A chunkserver that is stopped for a while, with chunkservers that only talk.

mod common;

use common::{beat_until, fault, hasty, ready, start, status, stop, topology};
use ogee_control::MdsHandle;
use ogee_proto::service::{
    CreatePoolRequest, DevicesName, Empty, JobInfo, MaintenanceRequest, MaintenanceResponse,
    ServerInfo,
};
use std::time::{Duration, Instant};
use tonic::Status;

/// How long what is away is waited for.
const RECOVER_MS: u64 = 2000;

async fn server(mds: &MdsHandle, name: &str) -> ServerInfo {
    let servers = topology(mds).await.list_servers(Empty {}).await;
    let servers = servers.expect("listed").into_inner().servers;
    servers.into_iter().find(|s| s.name == name).expect("known")
}

async fn moves(mds: &MdsHandle) -> Vec<JobInfo> {
    let jobs = topology(mds).await.list_jobs(Empty {}).await;
    let jobs = jobs.expect("listed").into_inner().jobs;
    jobs.into_iter()
        .filter(|job| job.kind == "recover")
        .collect()
}

async fn maintain(mds: &MdsHandle, name: &str, for_ms: u64) -> Result<MaintenanceResponse, Status> {
    let request = MaintenanceRequest {
        name: name.into(),
        for_ms,
        cancel: for_ms == 0,
    };
    let answer = topology(mds).await.set_maintenance(request).await;
    answer.map(tonic::Response::into_inner)
}

async fn has_code(mds: &MdsHandle, code: &str) -> bool {
    status(mds).await.codes.iter().any(|c| c.code == code)
}

/// Long enough that its end is not waited for.
const LONG_MS: u64 = 3_600_000;

#[tokio::test]
async fn a_chunkserver_in_maintenance_leads_nothing_is_no_alarm_and_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&hasty(dir.path(), RECOVER_MS));
    let mut servers = ready(&mds).await;
    // Uneven only by number: whoever leads, cs1 leads something.
    beat_until("it leads", &mut servers, || async {
        server(&mds, "cs1").await.leaders > 0
    })
    .await;
    let begun = maintain(&mds, "cs1", LONG_MS).await.expect("all are there");
    assert_eq!((begun.replicas, begun.online), (12, true));
    assert!(begun.until_unix_ms > 0);
    beat_until("it leads nothing", &mut servers, || async {
        server(&mds, "cs1").await.leaders == 0
    })
    .await;
    let told = server(&mds, "cs1").await.maintenance_until_unix_ms;
    assert_eq!(told, begun.until_unix_ms);
    // Nothing is placed there: a pool needs three zones.
    let pool = CreatePoolRequest {
        name: "other".into(),
        copysets: 1,
        ..CreatePoolRequest::default()
    };
    let refused = fault(topology(&mds).await.create_pool(pool).await);
    assert_eq!(refused.code(), "OGEE-2011");
    // Nor may another one go: not even by ok-to-stop.
    let refused = fault(maintain(&mds, "cs2", LONG_MS).await);
    assert_eq!(refused.code(), "OGEE-2080");
    let name = "cs2".into();
    let asked = topology(&mds).await.ok_to_stop(DevicesName { name }).await;
    assert!(!asked.expect("known").into_inner().ok);
    // It stops, for much longer than is waited for others.
    let stopped = Instant::now();
    beat_until("it is away for long", &mut servers[1..], || async {
        stopped.elapsed() > Duration::from_secs(6) && server(&mds, "cs1").await.state == "offline"
    })
    .await;
    assert!(moves(&mds).await.is_empty(), "it is waited for");
    let codes = status(&mds).await.codes;
    let told: Vec<&str> = codes.iter().map(|c| c.code.as_str()).collect();
    assert_eq!(told, ["OGEE-1016"], "no alarm");
    let detail = &codes[0].detail;
    for part in ["cs1", "60 min left", "offline", "12 copysets"] {
        assert!(detail.contains(part), "{part} in {detail}");
    }
    // It ends, and then it counts as any other.
    maintain(&mds, "cs1", 0).await.expect("ended");
    beat_until("an alarm", &mut servers[1..], || async {
        has_code(&mds, "OGEE-1001").await && !has_code(&mds, "OGEE-1016").await
    })
    .await;
    stop(mds).await;
}

#[tokio::test]
async fn it_ends_by_itself_also_when_the_metadata_server_was_started_anew() {
    let dir = tempfile::tempdir().unwrap();
    let config = hasty(dir.path(), RECOVER_MS);
    let mds = start(&config);
    let mut servers = ready(&mds).await;
    let unknown = fault(maintain(&mds, "nobody", LONG_MS).await);
    assert_eq!(unknown.code(), "OGEE-2046");
    assert_eq!(fault(maintain(&mds, "cs1", 1).await).code(), "OGEE-2081");
    let begun = maintain(&mds, "cs1", 4000).await.expect("all are there");
    let address = mds.addr();
    stop(mds).await;
    let mut config = config;
    config.listen = address;
    let mds = start(&config);
    beat_until("it is remembered", &mut servers, || async {
        server(&mds, "cs1").await.maintenance_until_unix_ms == begun.until_unix_ms
            || has_ended(&mds).await
    })
    .await;
    beat_until("it is over", &mut servers, || async {
        has_ended(&mds).await
    })
    .await;
    assert_eq!(server(&mds, "cs1").await.maintenance_until_unix_ms, 0);
    beat_until("nothing is said of it", &mut servers, || async {
        !has_code(&mds, "OGEE-1016").await
    })
    .await;
    maintain(&mds, "cs2", LONG_MS).await.expect("the next one");
    stop(mds).await;
}

/// There is an event of its end.
async fn has_ended(mds: &MdsHandle) -> bool {
    use ogee_proto::service::ListEventsRequest;
    use ogee_proto::service::members_client::MembersClient;
    let channel = common::channel(&mds.addr().to_string()).await;
    let events = MembersClient::new(channel)
        .list_events(ListEventsRequest::default())
        .await;
    events.is_ok_and(|events| {
        let mut events = events.into_inner().events.into_iter();
        events.any(|event| event.kind == "maintenance_ended" && event.subject == "cs1")
    })
}
