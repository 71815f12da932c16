//! What operators ask before they do it, and what they hold up: with chunkservers that only talk.

mod common;

use common::{
    beat_all, beat_until, fault, hasty, ready, register_soon, registration, start, stop, store,
    topology,
};
use ogee_control::MdsHandle;
use ogee_proto::service::{DevicesName, MaintenanceRequest, OkToRemoveResponse};

/// How long what is away is waited for: longer than any of these tests.
const NEVER_MS: u64 = 3_600_000;

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
    let mds = start(&hasty(dir.path(), NEVER_MS));
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
    let listed = topology(&mds)
        .await
        .list_devices(ogee_proto::service::Empty {})
        .await;
    let devices = listed.expect("listed").into_inner().devices;
    assert!(devices.iter().all(|device| device.mark.is_empty()));
    stop(mds).await;
}

#[tokio::test]
async fn a_zone_may_stop_if_every_copyset_keeps_its_quorum() {
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&hasty(dir.path(), NEVER_MS));
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
