//! What operators ask before they do it, and what they hold up: with chunkservers that only talk.

mod common;

use common::{
    beat_all, beat_until, fault, hasty, ready, register_soon, registration, start, status, stop,
    store, topology,
};
use ogee_control::{MdsConfig, MdsHandle};
use ogee_proto::service::chunkservers_client::ChunkserversClient;
use ogee_proto::service::{
    BalanceLeadersRequest, BalanceReplicasRequest, CreatePoolRequest, DevicesName, Empty, JobInfo,
    ListJobsResponse, MaintenanceRequest, MarkDevicesRequest, OkToRemoveResponse, PauseJobsRequest,
    PoolName, ReplaceDeviceRequest, ReplaceReplicaRequest, ServerInfo, SetPoolRequest,
};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long what is away is waited for: longer than any of these tests.
const NEVER_MS: u64 = 3_600_000;

/// What is asked between two beats must not make anybody offline, or a target for nothing, on a busy machine.
fn patient(dir: &Path, recover_after_ms: u64) -> MdsConfig {
    let mut config = hasty(dir, recover_after_ms);
    config.offline_ms = 5000;
    config.zone_wait_ms = 5000;
    config
}

fn name(name: &str) -> DevicesName {
    DevicesName { name: name.into() }
}

async fn may_remove(mds: &MdsHandle, of: &str) -> OkToRemoveResponse {
    let asked = topology(mds).await.ok_to_remove(name(of)).await;
    asked.expect("known").into_inner()
}

/// Obstacles of all replicas there, in words.
fn obstacles(answer: &OkToRemoveResponse) -> Vec<&str> {
    let all = answer.replicas.iter().map(|it| it.obstacle.as_str());
    all.filter(|it| !it.is_empty()).collect()
}

#[tokio::test]
async fn what_stands_in_the_way_of_a_removal_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&patient(dir.path(), NEVER_MS));
    let mut servers = ready(&mds).await;
    let unknown = topology(&mds).await.ok_to_remove(name("nobody")).await;
    assert_eq!(fault(unknown).code(), "OGEE-2046");
    // Three zones, and three replicas: no other place.
    let alone = may_remove(&mds, "cs1").await;
    assert!(!alone.ok && alone.mds.is_empty(), "{alone:?}");
    assert_eq!((alone.replicas.len(), obstacles(&alone).len()), (12, 12));
    assert!(obstacles(&alone)[0].contains("nowhere to go"), "{alone:?}");
    let spare = registration("spare", "a", &[&store(9, 1)]);
    servers.push(register_soon(&mds.addr().to_string(), spare).await);
    beat_all(&mut servers).await;
    let may = may_remove(&mds, "cs1").await;
    assert!(may.ok && obstacles(&may).is_empty(), "{may:?}");
    let to_spare =
        |it: &ogee_proto::service::RemovalInfo| it.to == "spare" && it.to_store == store(9, 1);
    assert!(may.replicas.iter().all(to_spare), "{may:?}");
    let device = may_remove(&mds, &store(1, 1)).await;
    assert!(device.ok && (1..12).contains(&device.replicas.len()));
    let other = may_remove(&mds, "cs2").await;
    assert_eq!(obstacles(&other).len(), 12, "its zone has no other one");
    // A copyset that lacks a replica is not made to lack another one.
    servers.swap(2, 3);
    beat_until("cs3 is away", &mut servers[..3], || async {
        let may = may_remove(&mds, "cs1").await;
        !may.ok
            && obstacles(&may)
                .iter()
                .all(|it| it.contains("lacks a replica"))
    })
    .await;
    // Nothing was marked by asking.
    let listed = topology(&mds).await.list_devices(Empty {}).await;
    let devices = listed.expect("listed").into_inner().devices;
    assert!(devices.iter().all(|device| device.mark.is_empty()));
    stop(mds).await;
}

#[tokio::test]
async fn a_zone_may_stop_if_every_copyset_keeps_its_quorum() {
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&patient(dir.path(), NEVER_MS));
    ready(&mds).await;
    let mut operator = topology(&mds).await;
    let unknown = fault(operator.ok_to_stop_zone(name("cs1")).await);
    assert_eq!(unknown.code(), "OGEE-2111", "a chunkserver is no zone");
    let may = operator.ok_to_stop_zone(name("a")).await;
    let may = may.expect("a zone").into_inner();
    assert_eq!((may.ok, may.degraded.len()), (true, 12));
    let begin = MaintenanceRequest {
        name: "cs2".into(),
        for_ms: NEVER_MS,
        cancel: false,
    };
    operator
        .set_maintenance(begin)
        .await
        .expect("all are there");
    let may = operator.ok_to_stop_zone(name("a")).await;
    let may = may.expect("a zone").into_inner();
    assert_eq!((may.ok, may.without_quorum.len()), (false, 12));
    stop(mds).await;
}

async fn server(mds: &MdsHandle, name: &str) -> ServerInfo {
    let servers = topology(mds).await.list_servers(Empty {}).await;
    let servers = servers.expect("listed").into_inner().servers;
    servers.into_iter().find(|s| s.name == name).expect("known")
}

async fn listed(mds: &MdsHandle) -> ListJobsResponse {
    let jobs = topology(mds).await.list_jobs(Empty {}).await;
    jobs.expect("listed").into_inner()
}

async fn has_code(mds: &MdsHandle, code: &str) -> bool {
    status(mds).await.codes.iter().any(|c| c.code == code)
}

async fn pause(mds: &MdsHandle, resume: bool) -> Option<u64> {
    let mut operator = topology(mds).await;
    let asked = operator.pause_jobs(PauseJobsRequest { resume }).await;
    asked.expect("leads").into_inner().paused_since_unix_ms
}

/// What would only wait is refused, what is a wish for later says so, and what is ordered by hand is done.
async fn ask_while_paused(mds: &MdsHandle, servers: &mut [common::Chunkserver], since: u64) {
    let mut operator = topology(mds).await;
    let spread = |dry_run| BalanceReplicasRequest { dry_run };
    let refused = fault(operator.balance_replicas(spread(false)).await);
    assert_eq!(refused.code(), "OGEE-2110");
    assert!(refused.remedy().contains("ogee job resume"), "{refused}");
    operator
        .balance_replicas(spread(true))
        .await
        .expect("only asked");
    // Who is silent for long is no target for half a minute.
    beat_all(servers).await;
    let leaders = BalanceLeadersRequest::default();
    assert_eq!(
        fault(operator.balance_leaders(leaders).await).code(),
        "OGEE-2110"
    );
    let replace = ReplaceDeviceRequest {
        old: store(1, 1),
        new: store(9, 1),
        cancel: false,
    };
    assert_eq!(
        fault(operator.replace_device(replace).await).code(),
        "OGEE-2110"
    );
    beat_all(servers).await;
    let mark = |mark: &str| MarkDevicesRequest {
        name: "cs2".into(),
        mark: mark.into(),
    };
    let marked = operator.mark_devices(mark("draining")).await;
    assert_eq!(
        marked.expect("a wish").into_inner().paused_since_unix_ms,
        Some(since)
    );
    operator.mark_devices(mark("")).await.expect("known");
    beat_all(servers).await;
    let copysets = operator.list_copysets(Empty {}).await.expect("listed");
    let one = copysets.into_inner().copysets.swap_remove(0);
    let lost = one.replicas.iter().find(|r| r.chunkserver_name == "cs3");
    let by_hand = ReplaceReplicaRequest {
        copyset: one.id,
        replica: lost.expect("in each").id,
        to: "spare".into(),
    };
    operator.replace_replica(by_hand).await.expect("by hand");
    beat_until("that one is replaced", servers, || async {
        server(mds, "cs3").await.replicas == 11
    })
    .await;
}

#[tokio::test]
async fn while_jobs_are_paused_nothing_is_made_anew_whoever_leads() {
    const RECOVER: Duration = Duration::from_secs(5);
    let dir = tempfile::tempdir().unwrap();
    let mut config = patient(dir.path(), 5000);
    let mds = start(&config);
    let mut servers = ready(&mds).await;
    let spare = registration("spare", "c", &[&store(9, 1)]);
    servers.push(register_soon(&mds.addr().to_string(), spare).await);
    servers.swap(2, 3);
    assert_eq!(listed(&mds).await.paused_since_unix_ms, None);
    let since = pause(&mds, false).await.expect("paused");
    assert_eq!(pause(&mds, false).await, Some(since), "since it began");
    beat_until("it is said", &mut servers[..3], || async {
        has_code(&mds, "OGEE-1060").await && has_code(&mds, "OGEE-1003").await
    })
    .await;
    config.listen = mds.addr();
    stop(mds).await;
    let mds = start(&config);
    let again = Instant::now();
    // Twice as long as what is away is waited for, and as this one waits before it does anything.
    beat_until(
        "it could have been made anew",
        &mut servers[..3],
        || async {
            again.elapsed() > 2 * RECOVER + Duration::from_secs(6)
                && has_code(&mds, "OGEE-1060").await
        },
    )
    .await;
    let told = listed(&mds).await;
    assert_eq!(told.paused_since_unix_ms, Some(since));
    let moves = told.jobs.iter().filter(|job| job.kind != "transfer_leader");
    assert_eq!(moves.count(), 0, "{told:?}");
    ask_while_paused(&mds, &mut servers[..3], since).await;
    assert_eq!(pause(&mds, true).await, None);
    beat_until("it is made anew", &mut servers[..3], || async {
        let jobs = listed(&mds).await.jobs;
        let runs = |job: &JobInfo| job.kind == "recover" && job.state == "running";
        jobs.iter().any(runs) && !has_code(&mds, "OGEE-1060").await
    })
    .await;
    stop(mds).await;
}

async fn planned(mds: &MdsHandle, of: &str) -> Vec<JobInfo> {
    let planned = topology(mds).await.plan_drain(name(of)).await;
    planned.expect("known").into_inner().jobs
}

#[tokio::test]
async fn a_dry_run_lists_what_would_be_done_and_does_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&patient(dir.path(), NEVER_MS));
    let mut servers = ready(&mds).await;
    let spare = registration("spare", "a", &[&store(9, 1)]);
    servers.push(register_soon(&mds.addr().to_string(), spare).await);
    beat_all(&mut servers).await;
    let jobs = planned(&mds, "cs1").await;
    assert!(
        jobs.iter().all(|job| job.state == "planned" && job.id == 0),
        "{jobs:?}"
    );
    let (leads, moves): (Vec<JobInfo>, Vec<JobInfo>) = jobs
        .into_iter()
        .partition(|job| job.kind == "transfer_leader");
    let led = usize::try_from(server(&mds, "cs1").await.leaders).expect("few");
    assert_eq!((leads.len(), moves.len()), (led, 12));
    let to_spare = |job: &JobInfo| {
        (job.kind.as_str(), job.from.as_str(), job.to.as_str()) == ("drain", "cs1", "spare")
    };
    assert!(
        moves.iter().all(|job| to_spare(job) && job.step.is_empty()),
        "{moves:?}"
    );
    let stuck = planned(&mds, "cs2").await;
    let stuck: Vec<&JobInfo> = stuck.iter().filter(|job| job.kind == "drain").collect();
    let cannot = |job: &&JobInfo| job.to.is_empty() && job.step.contains("nowhere to go");
    assert_eq!(
        (stuck.len(), stuck.iter().all(cannot)),
        (12, true),
        "{stuck:?}"
    );
    let replace = |new: String| ReplaceDeviceRequest {
        old: store(1, 1),
        new,
        cancel: false,
    };
    let mut operator = topology(&mds).await;
    let jobs = operator.plan_replacement(replace(store(9, 1))).await;
    let jobs = jobs.expect("it fits").into_inner().jobs;
    let moves = jobs.iter().filter(|job| job.kind == "drain");
    assert!(moves.clone().count() > 0);
    assert!(
        moves.clone().all(|job| job.store == store(9, 1)),
        "{jobs:?}"
    );
    let refused = fault(operator.plan_replacement(replace(store(2, 1))).await);
    assert_eq!(refused.code(), "OGEE-2027", "as the replacement would be");
    assert_eq!(
        fault(operator.plan_drain(name("nobody")).await).code(),
        "OGEE-2046"
    );
    // Two looks later nothing has come of it.
    let asked = Instant::now();
    beat_until("it would have begun", &mut servers, || async {
        asked.elapsed() > Duration::from_secs(8)
    })
    .await;
    let jobs = listed(&mds).await.jobs;
    assert!(jobs.iter().all(|job| job.kind != "drain"), "{jobs:?}");
    let devices = operator.list_devices(Empty {}).await.expect("listed");
    let devices = devices.into_inner().devices;
    assert!(
        devices
            .iter()
            .all(|it| it.mark.is_empty() && it.replaced_by.is_empty())
    );
    stop(mds).await;
}

#[tokio::test]
async fn what_pools_could_hold_is_told_and_devices_that_are_nearly_full_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&patient(dir.path(), NEVER_MS));
    let mut servers = ready(&mds).await;
    let pool = async || {
        let pools = topology(&mds).await.list_pools(Empty {}).await;
        pools.expect("listed").into_inner().pools.swap_remove(0)
    };
    const TIB: u64 = 1 << 40;
    let told = pool().await;
    assert_eq!(
        (told.raw, told.raw_used),
        (6 * TIB, 6 << 30),
        "two devices in each zone"
    );
    assert_eq!(
        (told.usable, told.usable_free),
        (2 * TIB, 2 * TIB - (2 << 30))
    );
    assert_eq!(told.used, 0, "no chunk is there");
    // Room in one zone alone is of no use to three replicas.
    let spare = registration("spare", "a", &[&store(9, 1)]);
    servers.push(register_soon(&mds.addr().to_string(), spare).await);
    beat_all(&mut servers).await;
    let told = pool().await;
    assert_eq!((told.raw, told.usable), (7 * TIB, 2 * TIB));
    let mut user = common::volumes(&mds).await;
    user.create(common::new_volume("v", 1 << 30))
        .await
        .expect("made");
    let told = pool().await;
    assert!(told.promised == 1 << 30 && told.used > 0, "{told:?}");
    assert!(!has_code(&mds, "OGEE-1061").await);
    // 85 percent of one device.
    servers[0].registration.stores[1].used = TIB / 100 * 85 + 100;
    beat_all(&mut servers).await;
    let codes = status(&mds).await.codes;
    let nearly: Vec<_> = codes.iter().filter(|c| c.code == "OGEE-1061").collect();
    assert_eq!((nearly.len(), nearly[0].count), (1, 1), "{codes:?}");
    assert!(
        nearly[0].detail.contains("cs1:/dev/disk1 (85 %)"),
        "{nearly:?}"
    );
    assert_eq!(nearly[0].severity, "WARN");
    // What is full is that, and not nearly.
    servers[0].store_state = "full";
    beat_all(&mut servers).await;
    assert!(has_code(&mds, "OGEE-1011").await && !has_code(&mds, "OGEE-1061").await);
    stop(mds).await;
}

async fn remove_pool(mds: &MdsHandle, pool: &str) -> Result<(), tonic::Status> {
    let request = PoolName { name: pool.into() };
    topology(mds).await.remove_pool(request).await.map(drop)
}

fn other_pool() -> CreatePoolRequest {
    CreatePoolRequest {
        name: "other".into(),
        copysets: 3,
        ..CreatePoolRequest::default()
    }
}

/// A pool is made, gets a volume, and loses it again; it goes when that is freed everywhere.
async fn remove_when_empty(mds: &MdsHandle, servers: &mut [common::Chunkserver]) {
    let made = topology(mds).await.create_pool(other_pool()).await;
    made.expect("placed");
    for _ in 0..3 {
        beat_all(servers).await;
    }
    let mut user = common::volumes(mds).await;
    let mut volume = common::new_volume("v", 1 << 30);
    volume.pool = "other".into();
    user.create(volume).await.expect("made");
    let refused = fault(remove_pool(mds, "other").await);
    assert_eq!(refused.code(), "OGEE-2112");
    assert!(refused.cause().contains("\"v\""), "{refused}");
    user.remove(common::removal("v")).await.expect("removed");
    // The chunks are not freed yet; one that there is not; one that is needed.
    for (pool, code) in [
        ("other", "OGEE-2113"),
        ("nothing", "OGEE-2009"),
        ("default", "OGEE-2114"),
    ] {
        assert_eq!(fault(remove_pool(mds, pool).await).code(), code, "{pool}");
    }
    beat_until("it is freed and removed", servers, || async {
        remove_pool(mds, "other").await.is_ok()
    })
    .await;
}

fn held(servers: &[common::Chunkserver]) -> Vec<usize> {
    let held = servers.iter().map(|server| server.replicas.len());
    held.collect()
}

#[tokio::test]
async fn a_pool_in_which_nothing_is_goes_with_its_replicas() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = patient(dir.path(), NEVER_MS);
    let mds = start(&config);
    let mut servers = ready(&mds).await;
    remove_when_empty(&mds, &mut servers).await;
    assert_eq!(held(&servers), [15, 15, 15]);
    // The next one knows what is still to be deleted, and so does a chunkserver that was away.
    config.listen = mds.addr();
    stop(mds).await;
    let mds = start(&config);
    let registered = common::eventually("it registers again", || async {
        let channel = common::channel(&mds.addr().to_string()).await;
        let mut client = ChunkserversClient::new(channel);
        client.register(servers[2].registration.clone()).await.ok()
    })
    .await;
    assert_eq!(registered.into_inner().fenced.len(), 3);
    let deadline = Instant::now() + common::PATIENCE;
    while held(&servers) != [12, 12, 12] {
        assert!(Instant::now() < deadline, "{:?}", held(&servers));
        beat_all(&mut servers).await;
    }
    beat_all(&mut servers).await;
    let last = servers[0].beat().await;
    assert!(last.orders.is_empty(), "told once more and done: {last:?}");
    let copysets = topology(&mds).await.list_copysets(Empty {}).await;
    assert_eq!(copysets.expect("listed").into_inner().copysets.len(), 12);
    beat_until("nothing is wrong", &mut servers, || async {
        status(&mds).await.health == "OK"
    })
    .await;
    let mut operator = topology(&mds).await;
    let made = operator.create_pool(other_pool()).await;
    made.expect("the name is free");
    let refused = fault(remove_pool(&mds, "default").await);
    assert_eq!(refused.code(), "OGEE-2114", "volumes go there");
    let weigh = SetPoolRequest {
        name: "other".into(),
        weight: Some(1),
        ..SetPoolRequest::default()
    };
    operator.set_pool(weigh).await.expect("set");
    let removed = remove_pool(&mds, "default").await;
    removed.expect("volumes go to the other one");
    let refused = fault(remove_pool(&mds, "other").await);
    assert_eq!(refused.code(), "OGEE-2114", "the last one");
    stop(mds).await;
}
