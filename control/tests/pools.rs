//! Pools over gRPC: placed on a class of devices, with a quota, a weight, and closed.

mod common;

use std::collections::BTreeSet;

use common::{
    Chunkserver, beat_all, config, fault, new_volume, register_soon, registration, start, stop,
    store, three_zones, topology, volumes,
};
use ogee_control::MdsHandle;
use ogee_proto::service::topology_client::TopologyClient;
use ogee_proto::service::{CreatePoolRequest, Empty, SetPoolRequest};
use tonic::transport::Channel;

/// Three chunkservers in zones of their own, with an ssd each; beside it two have an nvme, the last an hdd.
async fn three_with_classes(mds: &MdsHandle) -> Vec<Chunkserver> {
    let mut servers = Vec::new();
    for (at, zone) in (1..).zip(["a", "b", "c"]) {
        let stores = [store(at, 1), store(at, 2)];
        let stores: Vec<&str> = stores.iter().map(String::as_str).collect();
        let mut request = registration(&format!("cs{at}"), zone, &stores);
        request.stores[0].class = "ssd".into();
        request.stores[1].class = if at == 3 { "hdd" } else { "nvme" }.into();
        servers.push(register_soon(&mds.addr().to_string(), request).await);
    }
    beat_all(&mut servers).await;
    servers
}

fn pool(name: &str, class: &str) -> CreatePoolRequest {
    CreatePoolRequest {
        name: name.into(),
        copysets: 4,
        class: class.into(),
        ..CreatePoolRequest::default()
    }
}

/// Makes the pool "fast" on the ssds, with leaders.
async fn fast_pool(operator: &mut TopologyClient<Channel>, servers: &mut [Chunkserver]) {
    let made = operator.create_pool(pool("fast", "ssd")).await;
    let made = made.expect("placed").into_inner();
    assert_eq!(
        (made.class.as_str(), made.allows_volumes, made.weight),
        ("ssd", true, 0)
    );
    for _ in 0..3 {
        beat_all(servers).await;
    }
}

#[tokio::test]
async fn a_pool_of_a_class_is_placed_on_such_devices() {
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&config(dir.path()));
    let mut servers = three_with_classes(&mds).await;
    let mut operator = topology(&mds).await;
    let refused = fault(operator.create_pool(pool("fast", "nvme")).await);
    assert_eq!(refused.code(), "OGEE-2011");
    assert!(refused.to_string().contains("class nvme"), "{refused}");
    let refused = fault(operator.create_pool(pool("fast", "tape")).await);
    assert_eq!(refused.code(), "OGEE-2021");
    fast_pool(&mut operator, &mut servers).await;
    let copysets = operator.list_copysets(Empty {}).await;
    let copysets = copysets.expect("listed").into_inner().copysets;
    let replicas = copysets.iter().flat_map(|c| &c.replicas);
    let on: BTreeSet<String> = replicas.map(|r| r.store.clone()).collect();
    assert_eq!(on, [1, 2, 3].map(|at| store(at, 1)).into());
    stop(mds).await;
}

#[tokio::test]
async fn what_a_pool_allows_is_kept_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&config(dir.path()));
    let mut servers = three_with_classes(&mds).await;
    let mut operator = topology(&mds).await;
    fast_pool(&mut operator, &mut servers).await;
    let set = SetPoolRequest {
        name: "fast".into(),
        quota: Some(3 << 30),
        weight: Some(1),
        ..SetPoolRequest::default()
    };
    let told = operator.set_pool(set).await.expect("set").into_inner();
    assert_eq!(
        (told.quota, told.weight, told.allows_volumes),
        (3 << 30, 1, true)
    );
    let mut user = volumes(&mds).await;
    // No pool is named: the one with a weight.
    let made = user.create(new_volume("a", 2 << 30)).await;
    assert_eq!(made.expect("made").into_inner().pool, "fast");
    let refused = fault(user.create(new_volume("b", 2 << 30)).await);
    assert_eq!(refused.code(), "OGEE-2085");
    let pools = operator.list_pools(Empty {}).await;
    let pools = pools.expect("listed").into_inner().pools;
    assert_eq!((pools[0].promised, pools[0].volumes), (2 << 30, 1));
    let close = SetPoolRequest {
        name: "fast".into(),
        allow_volumes: Some(false),
        ..SetPoolRequest::default()
    };
    operator.set_pool(close).await.expect("closed");
    let refused = fault(user.create(new_volume("b", 4096 << 10)).await);
    assert_eq!(refused.code(), "OGEE-2084");
    stop(mds).await;
}

#[tokio::test]
async fn a_scatter_width_is_met_told_and_changed() {
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&config(dir.path()));
    let mut servers = three_zones(&mds.addr().to_string()).await;
    beat_all(&mut servers).await;
    let mut operator = topology(&mds).await;
    // Each of six devices has four others, in other zones.
    let wide = |replicas: u32, copysets: u32| CreatePoolRequest {
        name: "wide".into(),
        replicas,
        copysets,
        scatter_width: 4,
        ..CreatePoolRequest::default()
    };
    let refused = fault(operator.create_pool(wide(1, 8)).await);
    assert_eq!(refused.code(), "OGEE-2095", "{refused}");
    let refused = fault(operator.create_pool(wide(3, 3)).await);
    assert_eq!(refused.code(), "OGEE-2011", "{refused}");
    let said = refused.to_string();
    assert!(said.contains("--copysets 4"), "{said}");
    let made = operator.create_pool(wide(3, 0)).await;
    let made = made.expect("as many as it takes").into_inner();
    let told = (made.scatter_width, made.scatter_least, made.scatter_most);
    assert_eq!(told, (4, 4, 4), "{made:?}");
    assert!(
        (made.scatter_mean - 4.0).abs() < 1e-9 && made.device_sets >= 4,
        "{made:?}"
    );
    let set = |scatter_width: u32| SetPoolRequest {
        name: "wide".into(),
        scatter_width: Some(scatter_width),
        ..SetPoolRequest::default()
    };
    for width in [2, 0] {
        let told = operator.set_pool(set(width)).await.expect("set");
        assert_eq!(told.into_inner().scatter_width, width);
    }
    let pools = operator.list_pools(Empty {}).await.expect("listed");
    let pools = pools.into_inner().pools;
    assert_eq!((pools[0].scatter_width, pools[0].scatter_least), (0, 4));
    stop(mds).await;
}
