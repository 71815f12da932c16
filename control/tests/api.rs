//! The gRPC services over loopback, with chunkservers that only talk.

mod common;

use common::{
    Chunkserver, any_port, beat_all, codes, config, eventually, fault, named, new_volume, ready,
    register_soon, registration, removal, start, status, stop, store, three_zones, topology,
    volumes,
};
use ogee_control::{Mds, MdsError, MdsHandle};
use ogee_proto::service::{
    AttachRequest, CopysetInfo, CreatePoolRequest, CreateVolumeRequest, DetachRequest, Empty,
    ListVolumesRequest, RefreshRequest, ReplaceReplicaRequest, ResizeVolumeRequest,
    TransferLeaderRequest,
};
use std::collections::BTreeSet;

const GIB: u64 = 1 << 30;

fn attach_from(name: &str, host: &str) -> AttachRequest {
    AttachRequest {
        name: name.into(),
        host: host.into(),
        ..AttachRequest::default()
    }
}

#[tokio::test]
async fn a_volume_is_made_as_asked_or_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&config(dir.path()));
    ready(&mds).await;
    let mut client = volumes(&mds).await;
    let volume = client
        .create(new_volume("db", GIB))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (volume.size, volume.replicas, volume.copyset_count),
        (GIB, 3, 12)
    );
    assert_eq!(
        (volume.pool.as_str(), volume.epoch, volume.attached),
        ("default", 0, false)
    );
    assert!(volume.created_unix_ms > 1_700_000_000_000);
    for (request, code) in [
        (new_volume("db", GIB), "OGEE-2002"),
        (new_volume("Bad", GIB), "OGEE-2001"),
        (new_volume("odd", GIB + 1), "OGEE-2005"),
        (
            CreateVolumeRequest {
                stripe_unit: 5000,
                ..new_volume("s", GIB)
            },
            "OGEE-2007",
        ),
        (
            CreateVolumeRequest {
                pool: "none".into(),
                ..new_volume("p", GIB)
            },
            "OGEE-2009",
        ),
        (
            CreateVolumeRequest {
                replicas: 5,
                ..new_volume("r", GIB)
            },
            "OGEE-2013",
        ),
    ] {
        assert_eq!(fault(client.create(request).await).code(), code);
    }
    let resize = |size| ResizeVolumeRequest {
        name: "db".into(),
        size,
        ..ResizeVolumeRequest::default()
    };
    assert_eq!(
        fault(client.resize(resize(GIB / 2)).await).code(),
        "OGEE-2006"
    );
    let grown = client.resize(resize(4 * GIB)).await.unwrap().into_inner();
    assert_eq!(grown.size, 4 * GIB);
    stop(mds).await;
}

#[tokio::test]
async fn readers_share_a_volume_and_a_writer_has_it_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&config(dir.path()));
    ready(&mds).await;
    let mut client = volumes(&mds).await;
    client.create(new_volume("db", GIB)).await.unwrap();
    let reader = |host: &str| AttachRequest {
        read_only: true,
        ..attach_from("db", host)
    };
    let one = client.attach(reader("vm1")).await.unwrap().into_inner();
    let two = client.attach(reader("vm2")).await.unwrap().into_inner();
    assert_eq!(one.epoch, two.epoch, "a reader fences nobody");
    let refused = fault(client.attach(attach_from("db", "vm3")).await);
    assert_eq!(refused.code(), "OGEE-2004");
    for user in [&one, &two] {
        let refresh = RefreshRequest {
            name: "db".into(),
            client: user.client,
            epoch: user.epoch,
        };
        client.refresh(refresh).await.expect("still attached");
        let detach = DetachRequest {
            name: "db".into(),
            client: user.client,
            epoch: user.epoch,
            ..DetachRequest::default()
        };
        client
            .detach(detach.clone())
            .await
            .expect("a user may detach");
        client.detach(detach).await.expect("and ask twice");
    }
    let writer = client.attach(attach_from("db", "vm3")).await.unwrap();
    assert!(writer.into_inner().epoch > one.epoch);
    let refused = fault(client.attach(reader("vm1")).await);
    assert_eq!(
        refused.code(),
        "OGEE-2004",
        "a reader does not stop a writer"
    );
}

#[tokio::test]
async fn an_attachment_has_the_whole_map_and_ends_with_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&config(dir.path()));
    ready(&mds).await;
    let mut client = volumes(&mds).await;
    client.create(new_volume("db", GIB)).await.unwrap();
    let first = client
        .attach(attach_from("db", "vm1"))
        .await
        .unwrap()
        .into_inner();
    let map = first.map.unwrap();
    let covered: BTreeSet<u32> = map.segments[0].copysets.iter().copied().collect();
    assert_eq!(covered, map.copysets.iter().map(|c| c.id).collect());
    for copyset in &map.copysets {
        assert_eq!(copyset.leader_replica, copyset.replicas[0].id);
        let mut endpoints = copyset.replicas.iter().map(|r| r.endpoint.as_str());
        assert!(endpoints.all(|e| ["10.0.0.1:7000", "10.0.0.1:7001"].contains(&e)));
        assert!(
            copyset
                .replicas
                .iter()
                .all(|r| r.online && r.applied == 5 && r.last_log == 6)
        );
    }

    let second = client
        .attach(attach_from("db", "vm2"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((first.epoch, second.epoch), (1, 2));
    assert_ne!(first.client, second.client);
    let refresh = |client, epoch| RefreshRequest {
        name: "db".into(),
        client,
        epoch,
    };
    assert_eq!(
        fault(client.refresh(refresh(first.client, 1)).await).code(),
        "OGEE-2015"
    );
    client
        .refresh(refresh(second.client, 2))
        .await
        .expect("still attached");
    let detach = |client| DetachRequest {
        name: "db".into(),
        client,
        epoch: 2,
        ..DetachRequest::default()
    };
    assert_eq!(
        fault(client.detach(detach(first.client)).await).code(),
        "OGEE-2015"
    );
    client
        .detach(detach(second.client))
        .await
        .expect("the user may detach");
    client
        .detach(detach(second.client))
        .await
        .expect("and say so again");
    stop(mds).await;
}

#[tokio::test]
async fn a_removed_volume_is_freed_on_every_chunkserver() {
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&config(dir.path()));
    let mut servers = ready(&mds).await;
    let mut client = volumes(&mds).await;
    let volume = client
        .create(new_volume("db", GIB))
        .await
        .unwrap()
        .into_inner();
    let user = client
        .attach(attach_from("db", "vm2"))
        .await
        .unwrap()
        .into_inner();
    let refused = fault(client.remove(removal("db")).await);
    assert_eq!(refused.code(), "OGEE-2004");
    assert!(refused.cause().contains("vm2") && refused.remedy().contains("volume detach db"));
    let detach = DetachRequest {
        name: "db".into(),
        client: user.client,
        epoch: user.epoch,
        ..DetachRequest::default()
    };
    client.detach(detach).await.unwrap();
    client.remove(removal("db")).await.expect("nobody uses it");
    assert_eq!(fault(client.show(named("db")).await).code(), "OGEE-2003");

    beat_all(&mut servers).await;
    assert!(
        servers.iter().all(|s| s.removed == [volume.id]),
        "each is told to free the chunks"
    );
    beat_all(&mut servers).await;
    let left = servers[0].beat().await.orders;
    assert!(left.is_empty(), "freed and confirmed: {left:?}");
    stop(mds).await;
}

#[tokio::test]
async fn a_forced_detach_fences_the_host_that_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&config(dir.path()));
    ready(&mds).await;
    let mut client = volumes(&mds).await;
    client.create(new_volume("db", GIB)).await.unwrap();
    client.attach(attach_from("db", "gone")).await.unwrap();
    let force = DetachRequest {
        name: "db".into(),
        force: true,
        ..DetachRequest::default()
    };
    client.detach(force).await.expect("forced");
    let volume = client.show(named("db")).await.unwrap().into_inner();
    assert_eq!((volume.attached, volume.epoch), (false, 2));
    client.remove(removal("db")).await.expect("free again");
    stop(mds).await;
}

#[tokio::test]
async fn a_pool_waits_for_zones_and_a_volume_for_leaders() {
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&config(dir.path()));
    let addr = mds.addr().to_string();
    let mut servers = three_zones(&addr).await;
    let mut operator = topology(&mds).await;
    let five = CreatePoolRequest {
        scatter_width: 0,
        class: String::new(),
        name: "wide".into(),
        replicas: 5,
        copysets: 1,
    };
    let refused = fault(operator.create_pool(five).await);
    assert_eq!(refused.code(), "OGEE-2011");
    assert!(
        refused
            .cause()
            .contains("5 zones, and 3 are online: a, b, c"),
        "{refused}"
    );
    let even = CreatePoolRequest {
        scatter_width: 0,
        class: String::new(),
        name: "even".into(),
        replicas: 2,
        copysets: 1,
    };
    assert_eq!(fault(operator.create_pool(even).await).code(), "OGEE-2013");

    let mut client = volumes(&mds).await;
    assert_eq!(
        fault(client.create(new_volume("v", GIB)).await).code(),
        "OGEE-2009"
    );
    let pool = operator
        .create_pool(CreatePoolRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (pool.copysets, pool.copysets_ready),
        (16, 0),
        "8 replicas for each of 6 stores"
    );
    let again = fault(operator.create_pool(CreatePoolRequest::default()).await);
    assert_eq!(again.code(), "OGEE-2008");
    let early = fault(client.create(new_volume("v", GIB)).await);
    assert_eq!(early.code(), "OGEE-2010");
    assert!(early.what().contains("0 of 16"), "{early}");

    beat_all(&mut servers).await;
    beat_all(&mut servers).await;
    client
        .create(new_volume("v", GIB))
        .await
        .expect("the copysets have leaders");
    let all: BTreeSet<u32> = servers
        .iter()
        .flat_map(|s| s.bootstrapped.clone())
        .collect();
    let count: usize = servers.iter().map(|s| s.bootstrapped.len()).sum();
    assert_eq!(
        (all.len(), count),
        (16, 16),
        "each group is initialised by one replica, once"
    );
    let led = servers.iter().map(|s| s.bootstrapped.len());
    assert!(
        led.clone().max().unwrap() - led.min().unwrap() <= 1,
        "leaders are spread"
    );
    stop(mds).await;
}

/// Looks again until it sees what it waits for, while the first `up` chunkservers beat.
async fn settle(mds: &MdsHandle, servers: &mut [Chunkserver], wanted: &[(&str, &str)]) {
    let deadline = std::time::Instant::now() + common::PATIENCE;
    loop {
        beat_all(servers).await;
        let status = status(mds).await;
        if codes(&status) == wanted {
            return;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "never {wanted:?}: {status:?}"
        );
    }
}

#[tokio::test]
async fn status_tells_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.offline_ms = 500;
    let mds = start(&config);
    let empty = eventually("a leader", || async {
        topology(&mds).await.status(Empty {}).await.ok()
    });
    assert_eq!(codes(&empty.await.into_inner()), [("OGEE-1006", "WARN")]);
    let mut servers = ready(&mds).await;

    settle(&mds, &mut servers, &[]).await;
    let healthy = status(&mds).await;
    assert_eq!(
        (healthy.servers, healthy.copysets, healthy.copysets_ready),
        (3, 12, 12)
    );

    servers[0].store_state = "failed";
    settle(&mds, &mut servers, &[("OGEE-1005", "WARN")]).await;
    servers[0].store_state = "full";
    settle(&mds, &mut servers, &[("OGEE-1011", "ERR")]).await;
    servers[0].store_state = "ok";
    let lost = servers[0]
        .replicas
        .pop_first()
        .expect("it carries replicas");
    settle(&mds, &mut servers, &[("OGEE-1008", "WARN")]).await;
    assert!(
        servers[0].beat().await.orders.is_empty(),
        "a lost replica is not made anew"
    );
    servers[0].replicas.insert(lost.0, lost.1);
    settle(
        &mds,
        &mut servers[..2],
        &[("OGEE-1001", "WARN"), ("OGEE-1003", "WARN")],
    )
    .await;
    settle(
        &mds,
        &mut servers[..1],
        &[("OGEE-1002", "ERR"), ("OGEE-1001", "WARN")],
    )
    .await;
    let broken = status(&mds).await;
    assert_eq!((broken.health.as_str(), broken.codes[0].count), ("ERR", 12));
    assert!(
        broken
            .codes
            .iter()
            .all(|c| !c.remedy.is_empty() && !c.detail.is_empty())
    );
    settle(&mds, &mut servers, &[]).await;
    servers
        .iter_mut()
        .for_each(|s| s.replicas.values_mut().for_each(|held| held.leader = 0));
    settle(&mds, &mut servers, &[("OGEE-1004", "ERR")]).await;
    stop(mds).await;
}

async fn copyset_of(mds: &MdsHandle, id: u32) -> CopysetInfo {
    let all = topology(mds).await.list_copysets(Empty {}).await;
    let all = all.expect("listed").into_inner().copysets;
    all.into_iter().find(|c| c.id == id).expect("it exists")
}

#[tokio::test]
async fn a_replica_is_replaced_step_by_step_under_a_new_id() {
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&config(dir.path()));
    let mut servers = ready(&mds).await;
    let spare = registration("spare", "c", &[&store(9, 1)]);
    servers.push(register_soon(&mds.addr().to_string(), spare).await);
    let id = 1;
    let before = copyset_of(&mds, id).await;
    let at = |server: &str, set: &CopysetInfo| {
        let found = set.replicas.iter().find(|r| r.chunkserver_name == server);
        found.map(|r| (r.id, r.role.clone(), r.state.clone()))
    };
    let (old, ..) = at("cs3", &before).expect("one in each zone");
    let ask = |replica, to: &str| ReplaceReplicaRequest {
        copyset: id,
        replica,
        to: to.into(),
    };
    let mut operator = topology(&mds).await;
    for (replica, to, code) in [
        (old, "cs1", "OGEE-2029"),
        (old, "cs3", "OGEE-2029"),
        (old, "nobody", "OGEE-2028"),
        (999, "spare", "OGEE-2024"),
        (before.replicas[0].id, "spare", "OGEE-2027"),
    ] {
        let refused = operator.replace_replica(ask(replica, to)).await;
        assert_eq!(fault(refused).code(), code, "{replica} to {to}");
    }
    servers[3].beat().await;
    let made = operator.replace_replica(ask(old, "spare")).await;
    let new = made.expect("accepted").into_inner().replica;
    assert!(before.replicas.iter().all(|r| r.id < new), "a new id");
    let again = operator.replace_replica(ask(old, "spare")).await;
    assert_eq!(again.expect("under way").into_inner().replica, new);
    let other = ask(before.replicas[0].id, "spare");
    assert_eq!(
        fault(operator.replace_replica(other).await).code(),
        "OGEE-2026"
    );

    let leader = usize::try_from(before.replicas[0].chunkserver).unwrap() - 1;
    servers[leader].beat().await;
    assert_eq!(servers[leader].changes, 0, "the new one is not made yet");
    servers[3].beat().await;
    assert_eq!(servers[3].replicas[&id].replica, new);
    servers[3].beat().await;
    let joining = copyset_of(&mds, id).await;
    assert_eq!(
        at("spare", &joining),
        Some((new, "joining".into(), "ok".into()))
    );
    assert!(at("cs3", &joining).is_some(), "it still counts");
    settle(&mds, &mut servers[3..], &[("OGEE-1010", "WARN")]).await;

    // The leader is told until it is seen to be done; the old one goes only after that.
    servers[2].beat().await;
    assert_eq!(servers[2].replicas[&id].replica, old);
    servers[leader].beat().await;
    assert!(servers[leader].changes > 0);
    servers[leader].beat().await;
    let changed = copyset_of(&mds, id).await;
    assert_eq!(at("spare", &changed).map(|it| it.1), Some("voter".into()));
    assert_eq!(at("cs3", &changed), None);
    assert_eq!(changed.leaving.len(), 1);
    assert!(changed.conf_epoch > before.conf_epoch);
    servers[2].beat().await;
    assert!(!servers[2].replicas.contains_key(&id), "deleted");
    servers[2].beat().await;
    assert_eq!(copyset_of(&mds, id).await.leaving, []);
    let orders = servers[2].beat().await.orders;
    assert_eq!(orders, [], "and nothing more is asked of it");
    stop(mds).await;
}

/// A wiped device has lost its replicas; a new one may take the place on the same chunkserver.
#[tokio::test]
async fn a_lost_replica_is_told_of_and_replaced_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&config(dir.path()));
    let mut servers = ready(&mds).await;
    settle(&mds, &mut servers, &[]).await;
    let lost = servers[2].replicas.remove(&1).expect("it has one");
    settle(&mds, &mut servers, &[("OGEE-1008", "WARN")]).await;
    let seen = copyset_of(&mds, 1).await;
    let missing = seen.replicas.iter().find(|r| r.id == lost.replica);
    assert_eq!(missing.map(|r| r.state.as_str()), Some("missing"));
    let wish = ReplaceReplicaRequest {
        copyset: 1,
        replica: lost.replica,
        to: "cs3".into(),
    };
    topology(&mds)
        .await
        .replace_replica(wish)
        .await
        .expect("accepted");
    for _ in 0..8 {
        beat_all(&mut servers).await;
    }
    let after = copyset_of(&mds, 1).await;
    assert!(
        after
            .replicas
            .iter()
            .all(|r| r.id != lost.replica && r.role == "voter")
    );
    assert_eq!((after.replicas.len(), after.leaving), (3, Vec::new()));
    settle(&mds, &mut servers, &[]).await;

    let held = servers[1].replicas.get_mut(&1).expect("it has one");
    held.state = "damaged";
    settle(&mds, &mut servers, &[("OGEE-1009", "WARN")]).await;
    stop(mds).await;
}

#[tokio::test]
async fn a_leader_transfer_is_ordered_from_the_leader_until_it_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&config(dir.path()));
    let mut servers = ready(&mds).await;
    let mut operator = topology(&mds).await;
    let before = operator
        .list_copysets(Empty {})
        .await
        .unwrap()
        .into_inner()
        .copysets;
    let copyset = &before[0];
    assert_eq!(copyset.leader_replica, copyset.replicas[0].id);
    let target = copyset.replicas[1].id;
    let wish = TransferLeaderRequest {
        copyset: copyset.id,
        to_replica: target,
    };
    operator
        .transfer_leader(wish)
        .await
        .expect("a replica of that copyset");
    for server in &mut servers {
        let leads = server.id == copyset.replicas[0].chunkserver;
        assert_eq!(
            server.beat().await.orders.len(),
            usize::from(leads),
            "only to the leader"
        );
    }
    beat_all(&mut servers).await;
    let after = operator
        .list_copysets(Empty {})
        .await
        .unwrap()
        .into_inner()
        .copysets;
    assert_eq!((after[0].leader_replica, after[0].term), (target, 2));
    for server in &mut servers {
        assert!(server.beat().await.orders.is_empty(), "done");
    }
    let strange = TransferLeaderRequest {
        copyset: copyset.id,
        to_replica: 999,
    };
    assert_eq!(
        fault(operator.transfer_leader(strange).await).code(),
        "OGEE-2024"
    );
    let strange = TransferLeaderRequest {
        copyset: 999,
        to_replica: 0,
    };
    assert_eq!(
        fault(operator.transfer_leader(strange).await).code(),
        "OGEE-2018"
    );
    stop(mds).await;
}

#[tokio::test]
async fn a_registration_keeps_its_id_and_strangers_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&config(dir.path()));
    let addr = mds.addr().to_string();
    let mut servers = ready(&mds).await;
    let (one, two) = (store(1, 1), store(1, 2));
    let same = registration("cs1", "a", &[&one, &two]);
    let again = Chunkserver::register(&addr, same.clone()).await.unwrap();
    assert_eq!(
        (again.id, &again.cluster),
        (servers[0].id, &servers[0].cluster)
    );
    let mut moved = same.clone();
    moved.zone = "z".into();
    assert_eq!(
        fault(Chunkserver::register(&addr, moved).await.map(|c| c.id)).code(),
        "OGEE-2017"
    );
    let thief = registration("cs9", "c", &[&one]);
    assert_eq!(
        fault(Chunkserver::register(&addr, thief).await.map(|c| c.id)).code(),
        "OGEE-2016"
    );
    let twin = registration("cs1", "a", &[&store(9, 1)]);
    assert_eq!(
        fault(Chunkserver::register(&addr, twin).await.map(|c| c.id)).code(),
        "OGEE-2023"
    );
    let mut lost = same.clone();
    lost.cluster_id = "00000000-0000-0000-0000-000000000001".into();
    assert_eq!(
        fault(Chunkserver::register(&addr, lost).await.map(|c| c.id)).code(),
        "OGEE-2022"
    );
    let mut bad = same;
    bad.stores[0].store = "sda".into();
    assert_eq!(
        fault(Chunkserver::register(&addr, bad).await.map(|c| c.id)).code(),
        "OGEE-2021"
    );
    servers[0].id = 77;
    assert!(
        !servers[0].beat().await.known,
        "an unknown chunkserver shall register"
    );
    servers[1].forget();
    let answer = servers[1].beat().await;
    assert!(answer.known && answer.mds_term > 0);
    assert_eq!((answer.copysets.len(), answer.peers.len()), (12, 3));
    stop(mds).await;
}

#[tokio::test]
async fn lists_come_in_pages_of_names_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&config(dir.path()));
    ready(&mds).await;
    let mut client = volumes(&mds).await;
    for name in ["c", "a", "d", "b"] {
        client.create(new_volume(name, GIB)).await.unwrap();
    }
    let (mut names, mut after, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = client
            .list(ListVolumesRequest {
                after,
                limit: 2,
                ..ListVolumesRequest::default()
            })
            .await
            .unwrap()
            .into_inner();
        names.extend(page.volumes.into_iter().map(|v| v.name));
        pages += 1;
        after = page.next;
        if after.is_empty() {
            break;
        }
    }
    assert_eq!((names.join(""), pages), ("abcd".to_owned(), 2));
    let zones = topology(&mds)
        .await
        .list_zones(Empty {})
        .await
        .unwrap()
        .into_inner()
        .zones;
    assert_eq!(
        zones
            .iter()
            .map(|z| (z.servers, z.servers_online))
            .collect::<Vec<_>>(),
        [(1, 1); 3]
    );
    let devices = topology(&mds)
        .await
        .list_devices(Empty {})
        .await
        .unwrap()
        .into_inner()
        .devices;
    assert_eq!(
        devices
            .iter()
            .filter(|d| d.online && d.state == "ok" && d.used == GIB)
            .count(),
        6
    );
    let servers = topology(&mds)
        .await
        .list_servers(Empty {})
        .await
        .unwrap()
        .into_inner()
        .servers;
    assert_eq!(
        servers
            .iter()
            .map(|s| (s.leaders, s.replicas))
            .collect::<Vec<_>>(),
        [(4, 12); 3]
    );
    stop(mds).await;
}

#[tokio::test]
async fn a_restart_remembers_everything_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let mds = start(&config);
    let servers = ready(&mds).await;
    let mut client = volumes(&mds).await;
    client.create(new_volume("db", GIB)).await.unwrap();
    let attached = client
        .attach(attach_from("db", "vm1"))
        .await
        .unwrap()
        .into_inner();
    let before = client.locate(named("db")).await.unwrap().into_inner();
    drop(client);
    stop(mds).await;

    let mds = start(&config);
    let mut client = volumes(&mds).await;
    let after = client
        .locate(named("db"))
        .await
        .expect("leads soon")
        .into_inner();
    assert_eq!(
        (&after.segments, &after.volume),
        (&before.segments, &before.volume)
    );
    assert!(
        after
            .copysets
            .iter()
            .all(|c| c.formed && c.leader_replica == 0),
        "nobody heard yet"
    );
    let again = client
        .attach(attach_from("db", "vm1"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (again.epoch, again.client),
        (attached.epoch + 1, attached.client + 1)
    );
    let (one, two) = (store(1, 1), store(1, 2));
    let same = registration("cs1", "a", &[&one, &two]);
    let known = Chunkserver::register(&mds.addr().to_string(), same)
        .await
        .unwrap();
    assert_eq!(
        (known.id, &known.cluster),
        (servers[0].id, &servers[0].cluster)
    );
    stop(mds).await;
}

#[tokio::test]
async fn start_errors_name_the_place_and_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let mds = start(&config);
    let error = Mds::start(&config)
        .err()
        .expect("the data directory is in use");
    assert!(matches!(error, MdsError::Ledger { .. }), "{error:?}");
    let locked = error.fault();
    assert_eq!(locked.code(), "OGEE-2103");
    assert!(
        locked.what().contains(&dir.path().display().to_string()),
        "{locked}"
    );
    assert!(!locked.remedy().is_empty());

    let other = tempfile::tempdir().unwrap();
    let mut taken = common::config(other.path());
    taken.listen = mds.addr();
    let taken = Mds::start(&taken)
        .err()
        .expect("the port is in use")
        .fault();
    assert_eq!(taken.code(), "OGEE-2106");
    assert!(taken.what().contains(&mds.addr().to_string()), "{taken}");

    let file = other.path().join("file");
    std::fs::write(&file, b"x").unwrap();
    let error = Mds::start(&common::config(&file))
        .err()
        .expect("no directory")
        .fault();
    assert_eq!(error.code(), "OGEE-2102");
    let mut stranger = common::config(other.path());
    stranger.members = vec![ogee_control::Member {
        id: 2,
        addr: any_port().to_string(),
    }];
    assert_eq!(
        Mds::start(&stranger)
            .err()
            .expect("not a member")
            .fault()
            .code(),
        "OGEE-2101"
    );
    stop(mds).await;
    let mut second = config;
    second.id = 2;
    assert_eq!(
        Mds::start(&second)
            .err()
            .expect("member 1's data")
            .fault()
            .code(),
        "OGEE-2105"
    );
}

#[tokio::test]
async fn metrics_move_and_health_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&config(dir.path()));
    let addr = mds.metrics_addr().expect("asked for");
    let mut servers = ready(&mds).await;
    let mut client = volumes(&mds).await;
    client.create(new_volume("db", GIB)).await.unwrap();
    client.attach(attach_from("db", "vm1")).await.unwrap();
    client
        .show(named("none"))
        .await
        .expect_err("no such volume");
    beat_all(&mut servers).await;
    let health = common::http(addr, "/healthz").await;
    assert!(
        health.starts_with("HTTP/1.1 200") && health.ends_with("member 1 leads\n"),
        "{health}"
    );
    let text = common::http(addr, "/metrics").await;
    for line in [
        "ogee_mds_leads 1",
        "ogee_mds_chunkservers 3",
        "ogee_mds_chunkservers_online 3",
        "ogee_mds_volumes 1",
        "ogee_mds_volumes_attached 1",
        "ogee_mds_copysets 12",
        "ogee_mds_copysets_formed 12",
        "ogee_mds_capacity_bytes 6597069766656",
        "ogee_mds_used_bytes 6442450944",
        "ogee_mds_heartbeats_total 12",
        "ogee_mds_reports_total{kind=\"whole\"} 3",
        "ogee_mds_reports_total{kind=\"changes\"} 9",
        "ogee_mds_requests_total{method=\"attach\",code=\"ok\"} 1",
        "ogee_mds_requests_total{method=\"show\",code=\"not_found\"} 1",
        "ogee_mds_commands_total{command=\"create_volume\",outcome=\"done\"} 1",
        "ogee_mds_orders_total{kind=\"create_replica\"} 36",
    ] {
        assert!(text.lines().any(|l| l == line), "no {line:?} in\n{text}");
    }
    assert!(
        !text.contains("ogee_mds_health{"),
        "nothing is wrong\n{text}"
    );
    servers[2].store_state = "full";
    servers[2].beat().await;
    let text = common::http(addr, "/metrics").await;
    assert!(
        text.contains("ogee_mds_health{code=\"OGEE-1011\",severity=\"ERR\"} 2"),
        "{text}"
    );
    stop(mds).await;
}
