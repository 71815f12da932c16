//! Copysets that have lost their majority for good, with chunkservers that only talk.

mod common;

use common::{
    Chunkserver, beat_until, fault, hasty, new_volume, ready, register_soon, registration, start,
    status, stop, store, topology, volumes,
};
use ogee_control::MdsHandle;
use ogee_proto::service::{
    CopysetInfo, Empty, JobInfo, MarkDevicesRequest, ResetCopysetRequest, ResetCopysetResponse,
};
use tonic::Status;

async fn copysets(mds: &MdsHandle) -> Vec<CopysetInfo> {
    let copysets = topology(mds).await.list_copysets(Empty {}).await;
    copysets.expect("listed").into_inner().copysets
}

async fn reset(
    mds: &MdsHandle,
    copyset: u32,
    from: &str,
    dry_run: bool,
) -> Result<ResetCopysetResponse, Status> {
    let request = ResetCopysetRequest {
        copyset,
        from: from.into(),
        dry_run,
    };
    let answer = topology(mds).await.reset_copyset(request).await;
    answer.map(tonic::Response::into_inner)
}

async fn lose(mds: &MdsHandle, name: &str) {
    let request = MarkDevicesRequest {
        name: name.into(),
        mark: "lost".into(),
    };
    let lost = topology(mds).await.mark_devices(request).await;
    lost.expect("it is away");
}

async fn has_code(mds: &MdsHandle, code: &str) -> bool {
    status(mds).await.codes.iter().any(|c| c.code == code)
}

async fn server_state(mds: &MdsHandle, name: &str) -> String {
    let servers = topology(mds).await.list_servers(Empty {}).await;
    let servers = servers.expect("listed").into_inner().servers;
    servers
        .into_iter()
        .find(|s| s.name == name)
        .expect("known")
        .state
}

async fn spare(mds: &MdsHandle, name: &str, zone: &str, number: u8) -> Chunkserver {
    let stores = [store(number, 1), store(number, 2)];
    let stores: Vec<&str> = stores.iter().map(String::as_str).collect();
    register_soon(&mds.addr().to_string(), registration(name, zone, &stores)).await
}

#[tokio::test]
async fn the_survivor_goes_on_and_the_copyset_becomes_whole_again() {
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&hasty(dir.path(), 0));
    let mut servers = ready(&mds).await;
    let made = volumes(&mds).await.create(new_volume("db", 1 << 30)).await;
    made.expect("made");
    let refused = fault(reset(&mds, 1, "", true).await);
    assert_eq!(refused.code(), "OGEE-2083", "all are there");
    assert_eq!(fault(reset(&mds, 99, "", true).await).code(), "OGEE-2018");
    // cs2 and cs3 are gone.
    beat_until("they are offline", &mut servers[..1], || async {
        server_state(&mds, "cs2").await == "offline" && server_state(&mds, "cs3").await == "offline"
    })
    .await;
    assert!(has_code(&mds, "OGEE-1002").await);
    let refused = fault(reset(&mds, 1, "", false).await);
    assert_eq!(refused.code(), "OGEE-2083", "they may come back");
    lose(&mds, "cs2").await;
    lose(&mds, "cs3").await;
    beat_until("health says so", &mut servers[..1], || async {
        has_code(&mds, "OGEE-1032").await && !has_code(&mds, "OGEE-1002").await
    })
    .await;
    let plan = reset(&mds, 1, "", true).await.expect("it may be reset");
    assert_eq!((plan.replica, plan.chunkserver.as_str()), (0, "cs1"));
    assert_eq!(plan.given_up.len(), 2);
    assert_eq!(plan.volumes, ["db"]);
    let refused = fault(reset(&mds, 1, "cs2", true).await);
    assert_eq!(refused.code(), "OGEE-2083", "it does not answer");
    let done = reset(&mds, 1, "cs1", false).await.expect("reset");
    assert!(done.replica > done.from_replica);
    beat_until("it leads", &mut servers[..1], || async {
        let copyset = copysets(&mds).await.swap_remove(0);
        copyset.leader_replica == done.replica && copyset.replicas.len() == 1
    })
    .await;
    assert!(has_code(&mds, "OGEE-1033").await);
    check_old_ones_are_fenced(&mds, 2).await;
    // Where it can go, it goes.
    let mut all = vec![servers.swap_remove(0)];
    all.push(spare(&mds, "cs8", "b", 8).await);
    all.push(spare(&mds, "cs9", "c", 9).await);
    beat_until("it is whole", &mut all, || async {
        let copyset = copysets(&mds).await.swap_remove(0);
        let voters = copyset.replicas.iter().filter(|r| r.role == "voter");
        voters.count() == 3
    })
    .await;
    check_jobs(&mds).await;
    stop(mds).await;
}

async fn check_jobs(mds: &MdsHandle) {
    let jobs = topology(mds).await.list_jobs(Empty {}).await;
    let jobs: Vec<JobInfo> = jobs.expect("listed").into_inner().jobs;
    let done = jobs.iter().filter(|job| job.state == "done");
    assert_eq!(done.clone().count(), 2, "{jobs:?}");
    for job in done {
        assert_eq!((job.kind.as_str(), job.copyset), ("recover", 1));
        assert!(job.reason.contains("given up"), "{job:?}");
    }
}

/// One that comes back is told at once which of its replicas is none any more, and to delete it.
async fn check_old_ones_are_fenced(mds: &MdsHandle, number: u8) {
    use ogee_proto::service::chunkservers_client::ChunkserversClient;
    let stores = [store(number, 1), store(number, 2)];
    let stores: Vec<&str> = stores.iter().map(String::as_str).collect();
    let request = registration("cs2", "b", &stores);
    let channel = common::channel(&mds.addr().to_string()).await;
    let answer = ChunkserversClient::new(channel).register(request).await;
    let answer = answer.expect("registered").into_inner();
    let copyset = copysets(mds).await.swap_remove(0);
    let mine = copyset.leaving.iter();
    let mine = mine.filter(|r| r.chunkserver_name == "cs2").map(|r| r.id);
    let fenced = answer.fenced.iter().map(|it| it.replica);
    assert_eq!(fenced.collect::<Vec<_>>(), mine.collect::<Vec<_>>());
    assert_eq!(answer.fenced.len(), 1);
}
