//! The cluster heals by itself, with chunkservers that only talk: what is lost, drained and uneven.

mod common;

use common::{
    Chunkserver, beat_all, beat_until, config, eventually, fault, hasty, ready, register_soon,
    registration, start, status, stop, store, topology,
};
use ogee_control::{Mds, MdsConfig, MdsError, MdsHandle};
use ogee_proto::service::{
    BalanceLeadersRequest, BalanceReplicasRequest, DevicesName, Empty, JobInfo, JobName,
    MarkDevicesRequest, ServerName, TransferLeaderRequest,
};
use std::time::{Duration, Instant};

/// How long what is away is waited for.
const RECOVER_MS: u64 = 2000;

async fn jobs(mds: &MdsHandle) -> Vec<JobInfo> {
    let jobs = topology(mds).await.list_jobs(Empty {}).await;
    jobs.expect("listed").into_inner().jobs
}

async fn replicas(mds: &MdsHandle, of: &str) -> (u32, u32, String) {
    let servers = topology(mds).await.list_servers(Empty {}).await;
    let servers = servers.expect("listed").into_inner().servers;
    let server = servers.into_iter().find(|s| s.name == of).expect("known");
    (server.replicas, server.leaders, server.mark)
}

async fn spare(mds: &MdsHandle, name: &str, zone: &str, number: u8) -> Chunkserver {
    let stores = [store(number, 1), store(number, 2)];
    let stores: Vec<&str> = stores.iter().map(String::as_str).collect();
    register_soon(&mds.addr().to_string(), registration(name, zone, &stores)).await
}

/// The copysets that a chunkserver that died led are led by the first other one.
fn elect_without(servers: &mut [Chunkserver], gone: usize) {
    let lost: Vec<(u32, u64)> = servers[gone]
        .replicas
        .iter()
        .map(|(id, h)| (*id, h.replica))
        .collect();
    for (id, replica) in lost {
        let heir = servers
            .iter()
            .enumerate()
            .find(|(at, s)| *at != gone && s.replicas.contains_key(&id));
        let heir = heir
            .map(|(_, s)| s.replicas[&id].replica)
            .expect("a majority");
        for server in servers.iter_mut() {
            if let Some(held) = server
                .replicas
                .get_mut(&id)
                .filter(|held| held.leader == replica)
            {
                (held.leader, held.term) = (heir, held.term + 1);
            }
        }
    }
}

#[tokio::test]
async fn a_chunkserver_that_dies_is_replaced_without_anybody_and_then_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&hasty(dir.path(), RECOVER_MS));
    let mut servers = ready(&mds).await;
    servers.push(spare(&mds, "spare", "c", 9).await);
    elect_without(&mut servers, 2);
    servers.swap(2, 3);
    let died = Instant::now();
    beat_until("degraded first", &mut servers[..3], || async {
        status(&mds)
            .await
            .codes
            .iter()
            .any(|c| c.code == "OGEE-1003" && c.remedy.contains("ogee server lost"))
    })
    .await;
    assert!(jobs(&mds).await.is_empty());
    beat_until("jobs", &mut servers[..3], || async {
        !jobs(&mds).await.is_empty()
    })
    .await;
    assert!(
        died.elapsed() >= Duration::from_millis(RECOVER_MS),
        "not before its time"
    );
    beat_until("recovering", &mut servers[..3], || async {
        let codes = status(&mds).await.codes;
        codes
            .iter()
            .any(|c| c.code == "OGEE-1013" && c.detail.contains("running"))
    })
    .await;
    beat_until("whole again", &mut servers[..3], || async {
        replicas(&mds, "cs3").await.0 == 0 && replicas(&mds, "spare").await.0 == 12
    })
    .await;
    check_recovered(&mds).await;
    let mut operator = topology(&mds).await;
    let named = |name: &str| ServerName { name: name.into() };
    assert_eq!(
        fault(operator.remove_server(named("cs1")).await).code(),
        "OGEE-2048"
    );
    operator
        .remove_server(named("cs3"))
        .await
        .expect("nobody counts on it");
    beat_until("all is well", &mut servers[..3], || async {
        status(&mds).await.health == "OK"
    })
    .await;
    assert!(
        !servers[3].beat().await.known,
        "it would have to register again"
    );
    stop(mds).await;
}

/// Each of the twelve is told of, and counted.
async fn check_recovered(mds: &MdsHandle) {
    let done = jobs(mds).await;
    assert_eq!(done.len(), 12);
    for job in &done {
        assert_eq!(
            (job.kind.as_str(), job.state.as_str()),
            ("recover", "done"),
            "{job:?}"
        );
        assert_eq!(
            (job.from.as_str(), job.to.as_str(), job.percent),
            ("cs3", "spare", 100)
        );
        assert!(
            job.ended_unix_ms >= job.started_unix_ms && job.started_unix_ms >= job.created_unix_ms
        );
    }
    let text = common::http(mds.metrics_addr().expect("asked for"), "/metrics").await;
    assert!(
        text.contains("ogee_mds_jobs{kind=\"recover\",state=\"done\"} 12"),
        "{text}"
    );
}

#[tokio::test]
async fn a_lost_one_is_not_waited_for_and_no_target_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = hasty(dir.path(), RECOVER_MS);
    config.recover_after_ms = 0;
    let mds = start(&config);
    let mut servers = ready(&mds).await;
    elect_without(&mut servers, 2);
    let mut operator = topology(&mds).await;
    let mark = |name: &str, mark: &str| MarkDevicesRequest {
        name: name.into(),
        mark: mark.into(),
    };
    beat_all(&mut servers).await;
    assert_eq!(
        fault(operator.mark_devices(mark("cs3", "lost")).await).code(),
        "OGEE-2047"
    );
    assert_eq!(
        fault(operator.mark_devices(mark("nobody", "lost")).await).code(),
        "OGEE-2046"
    );
    assert_eq!(
        fault(operator.mark_devices(mark("cs1", "gone")).await).code(),
        "OGEE-2021"
    );
    beat_until("offline", &mut servers[..2], || async {
        status(&mds)
            .await
            .codes
            .iter()
            .any(|c| c.code == "OGEE-1003")
    })
    .await;
    let asked = operator
        .mark_devices(mark("cs3", "lost"))
        .await
        .expect("away")
        .into_inner();
    assert_eq!((asked.devices, asked.replicas), (2, 12));
    beat_until("no target", &mut servers[..2], || async {
        let codes = status(&mds).await.codes;
        codes
            .iter()
            .any(|c| c.code == "OGEE-1014" && c.count == 12 && c.remedy.contains("zone c"))
    })
    .await;
    assert!(jobs(&mds).await.is_empty(), "what has no place is no job");
    servers.push(spare(&mds, "spare", "c", 9).await);
    servers.swap(2, 3);
    beat_until("whole again", &mut servers[..3], || async {
        replicas(&mds, "spare").await.0 == 12
            && replicas(&mds, "cs3").await == (0, 0, "lost".into())
    })
    .await;
    stop(mds).await;
}

#[tokio::test]
async fn a_drain_empties_a_chunkserver_leaders_first_and_can_be_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = hasty(dir.path(), RECOVER_MS);
    config.moves_max = 1;
    let mds = start(&config);
    let mut servers = ready(&mds).await;
    servers.push(spare(&mds, "spare", "a", 9).await);
    beat_all(&mut servers).await;
    let mut operator = topology(&mds).await;
    let name = |name: &str| DevicesName { name: name.into() };
    let may = operator
        .ok_to_stop(name("cs1"))
        .await
        .expect("known")
        .into_inner();
    assert_eq!((may.ok, may.degraded.len()), (true, 12));
    let mark = |mark: &str| MarkDevicesRequest {
        name: "cs1".into(),
        mark: mark.into(),
    };
    operator
        .mark_devices(mark("draining"))
        .await
        .expect("known");
    beat_until("leaders are off", &mut servers, || async {
        replicas(&mds, "cs1").await.1 == 0
    })
    .await;
    let (_, _, told) = replicas(&mds, "cs1").await;
    assert_eq!(told, "draining");
    beat_until("moves begin", &mut servers, || async {
        jobs(&mds)
            .await
            .iter()
            .any(|job| job.kind == "drain" && job.state == "running")
    })
    .await;
    check_under_way(&mds).await;
    let back = operator
        .mark_devices(mark(""))
        .await
        .expect("known")
        .into_inner();
    assert!(back.jobs_cancelled > 0);
    beat_until("what had begun ends", &mut servers, || async {
        let live = ["pending", "running"];
        jobs(&mds)
            .await
            .iter()
            .all(|job| !live.contains(&job.state.as_str()))
    })
    .await;
    let (left, ..) = replicas(&mds, "cs1").await;
    assert!((1..12).contains(&left), "{left} stayed");
    operator
        .mark_devices(mark("draining"))
        .await
        .expect("known");
    beat_until("empty", &mut servers, || async {
        replicas(&mds, "cs1").await == (0, 0, "empty".into())
    })
    .await;
    let may = operator
        .ok_to_stop(name("cs1"))
        .await
        .expect("known")
        .into_inner();
    assert!(may.ok && may.degraded.is_empty());
    stop(mds).await;
}

/// One move at a time, as configured, which is not taken back.
async fn check_under_way(mds: &MdsHandle) {
    let mut operator = topology(mds).await;
    let all = jobs(mds).await;
    let running = all
        .iter()
        .filter(|job| job.kind == "drain" && job.state == "running");
    assert_eq!(running.clone().count(), 1, "one at a time, as configured");
    let under_way = running.map(|job| job.id).next().expect("one");
    assert_eq!(
        fault(operator.cancel_job(JobName { id: under_way }).await).code(),
        "OGEE-2044"
    );
    assert_eq!(
        fault(operator.cancel_job(JobName { id: 999 }).await).code(),
        "OGEE-2042"
    );
}

/// Everything is led by one; told to even out, no more is moved than must be.
#[tokio::test]
async fn leaders_are_evened_out_when_asked_and_by_themselves() {
    for asked in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let mut config = hasty(dir.path(), RECOVER_MS);
        config.balance_after_ms = if asked { 0 } else { 1000 };
        let mds = start(&config);
        let mut servers = ready(&mds).await;
        let mut operator = topology(&mds).await;
        let first: Vec<(u32, u64)> = servers[0]
            .replicas
            .iter()
            .map(|(id, h)| (*id, h.replica))
            .collect();
        for server in &mut servers {
            for (id, replica) in &first {
                let held = server.replicas.get_mut(id).expect("everywhere");
                (held.leader, held.term) = (*replica, 2);
            }
        }
        beat_until("one leads all", &mut servers, || async {
            replicas(&mds, "cs1").await.1 == 12
        })
        .await;
        if asked {
            let made = operator
                .balance_leaders(BalanceLeadersRequest::default())
                .await
                .expect("asked")
                .into_inner();
            assert_eq!(made.jobs.len(), 8);
            assert!(
                made.jobs
                    .iter()
                    .all(|job| job.kind == "transfer_leader" && job.state == "running")
            );
        }
        beat_until("even", &mut servers, || async {
            let mut led = Vec::new();
            for name in ["cs1", "cs2", "cs3"] {
                led.push(replicas(&mds, name).await.1);
            }
            led == [4, 4, 4]
        })
        .await;
        beat_until("the jobs are closed", &mut servers, || async {
            let jobs = jobs(&mds).await;
            jobs.len() == 8 && jobs.iter().all(|job| job.state == "done")
        })
        .await;
        // By hand goes on as before, and what was moved lately is not moved back by itself.
        let wish = TransferLeaderRequest {
            copyset: first[0].0,
            to_replica: 0,
        };
        operator.transfer_leader(wish).await.expect("known");
        stop(mds).await;
    }
}

#[tokio::test]
async fn settings_out_of_their_range_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let changes: [fn(&mut MdsConfig); 6] = [
        |c| c.recover_after_ms = c.offline_ms - 1,
        |c| c.moves_max = 0,
        |c| c.move_timeout_ms = 0,
        |c| c.balance_after_ms = 1,
        |c| c.replica_balance_after_ms = 1,
        |c| c.replica_balance_percent = 0,
    ];
    for change in changes {
        let mut config = config(dir.path());
        change(&mut config);
        let error = Mds::start(&config).err().expect("out of range");
        assert!(matches!(error, MdsError::Setting { .. }), "{error}");
        assert_eq!(error.fault().code(), "OGEE-2101");
    }
    let mds = start(&config(dir.path()));
    eventually("a leader", || async {
        topology(&mds).await.status(Empty {}).await.ok()
    })
    .await;
    stop(mds).await;
}

/// Twelve copysets on three; a fourth comes into the zone of the first.
#[tokio::test]
async fn a_chunkserver_that_is_added_gets_its_part_when_asked_and_by_itself() {
    for asked in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let mut config = hasty(dir.path(), RECOVER_MS);
        config.replica_balance_after_ms = if asked { 0 } else { 1000 };
        let mds = start(&config);
        let mut servers = ready(&mds).await;
        servers.push(spare(&mds, "new", "a", 9).await);
        beat_all(&mut servers).await;
        if asked {
            ask_for_even_devices(&mds).await;
        }
        beat_until("even", &mut servers, || async {
            replicas(&mds, "cs1").await.0 == 6 && replicas(&mds, "new").await.0 == 6
        })
        .await;
        for other in ["cs2", "cs3"] {
            assert_eq!(replicas(&mds, other).await.0, 12, "{other}");
        }
        beat_until("closed", &mut servers, || async {
            let jobs = jobs(&mds).await;
            let moves = jobs.iter().filter(|job| job.kind == "balance");
            moves.clone().count() == 6 && moves.clone().all(|job| job.state == "done")
        })
        .await;
        stop(mds).await;
    }
}

/// First only to see what would be done.
async fn ask_for_even_devices(mds: &MdsHandle) {
    let mut operator = topology(mds).await;
    let mut ask = async |dry_run| {
        let asked = operator.balance_replicas(BalanceReplicasRequest { dry_run });
        asked.await.expect("asked").into_inner().jobs
    };
    let planned = ask(true).await;
    assert!(jobs(mds).await.is_empty(), "only told");
    let made = ask(false).await;
    for (all, state) in [(&planned, "planned"), (&made, "pending")] {
        assert_eq!(all.len(), 6);
        for job in all {
            assert_eq!((job.kind.as_str(), job.state.as_str()), ("balance", state));
            assert_eq!((job.from.as_str(), job.to.as_str()), ("cs1", "new"));
        }
    }
    assert!(ask(false).await.is_empty(), "what is planned counts");
}

/// The one that is lost, and then one that is damaged, with no other device in their zones.
#[tokio::test]
async fn a_replica_that_is_missing_or_damaged_is_made_anew_without_anybody() {
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&hasty(dir.path(), RECOVER_MS));
    let mut servers = ready(&mds).await;
    beat_all(&mut servers).await;
    let led_elsewhere = |server: &Chunkserver| {
        let held = server.replicas.iter();
        let held = held.filter(|(_, held)| held.leader != held.replica);
        held.map(|(id, _)| *id)
            .next()
            .expect("it does not lead all")
    };
    let missing = led_elsewhere(&servers[2]);
    servers[2].replicas.remove(&missing);
    let is_done = |jobs: &[JobInfo], reason: &str| {
        jobs.iter().any(|job| {
            job.kind == "recover" && job.state == "done" && job.reason.starts_with(reason)
        })
    };
    beat_until("the missing one is there again", &mut servers, || async {
        is_done(&jobs(&mds).await, "the chunkserver had lost the replica")
    })
    .await;
    let damaged = led_elsewhere(&servers[1]);
    let held = servers[1].replicas.get_mut(&damaged).expect("just seen");
    held.state = "damaged";
    let before = held.replica;
    beat_until("it is told of", &mut servers, || async {
        let codes = status(&mds).await.codes;
        codes
            .iter()
            .any(|c| c.code == "OGEE-1009" && c.remedy.contains("made anew by itself after 2 s"))
    })
    .await;
    beat_until("the damaged one is made anew", &mut servers, || async {
        is_done(&jobs(&mds).await, "the replica was damaged")
    })
    .await;
    assert_ne!(servers[1].replicas[&damaged].replica, before);
    beat_until("all is well", &mut servers, || async {
        status(&mds).await.health == "OK"
    })
    .await;
    stop(mds).await;
}
