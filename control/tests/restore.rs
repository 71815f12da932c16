//! A backup, changes after it, and a new group from it, beside chunkservers that have gone on.

#![allow(clippy::unwrap_used, reason = "test code outside test functions")]

mod common;

use common::{
    Chunkserver, beat_all, codes, config, fault, named, new_volume, ready, register_soon, start,
    status, stop, volumes,
};
use ogee_control::{Backup, Mds, MdsConfig, MdsHandle, Restore, restore};
use ogee_proto::service::members_client::MembersClient;
use ogee_proto::service::{AcceptRestoreRequest, AttachRequest, DiscardVolumeRequest, Empty};
use ogee_proto::service::{ListStrangersResponse, MemberQuery, ReplaceReplicaRequest, VolumeHeld};
use std::path::Path;
use tonic::transport::Channel;

async fn members(mds: &MdsHandle) -> MembersClient<Channel> {
    MembersClient::new(common::channel(&mds.addr().to_string()).await)
}

async fn backup(mds: &MdsHandle) -> Vec<u8> {
    let parts = members(mds).await.backup(Empty {}).await;
    let mut parts = parts.expect("a backup").into_inner();
    let mut file = Vec::new();
    while let Some(part) = parts.message().await.expect("a part") {
        file.extend(part.bytes);
    }
    file
}

async fn attach(mds: &MdsHandle, name: &str) -> (u64, u64) {
    let request = AttachRequest {
        name: name.into(),
        host: "h".into(),
        ..AttachRequest::default()
    };
    let attached = volumes(mds)
        .await
        .attach(request)
        .await
        .expect("attached")
        .into_inner();
    (attached.epoch, attached.client)
}

async fn strangers(mds: &MdsHandle) -> ListStrangersResponse {
    let listed = members(mds).await.list_strangers(Empty {}).await;
    listed.expect("listed").into_inner()
}

fn restore_to(file: &[u8], dir: &Path) -> MdsConfig {
    let backup = Backup::read(file).expect("whole");
    let to = Restore {
        data_dir: dir.to_owned(),
        id: 1,
        addr: "127.0.0.1:1".into(),
    };
    restore(backup, &to).expect("restored");
    config(dir)
}

/// The same processes, at the new metadata server's address.
async fn reconnect(mds: &MdsHandle, servers: Vec<Chunkserver>) -> Vec<Chunkserver> {
    let addr = mds.addr().to_string();
    let mut again = Vec::new();
    for server in servers {
        let mut new = register_soon(&addr, server.registration.clone()).await;
        assert_eq!(new.id, server.id, "known by its name");
        assert_eq!(new.cluster, server.cluster, "the same cluster");
        new.replicas = server.replicas;
        new.volumes = server.volumes;
        again.push(new);
    }
    again
}

/// A cluster whose metadata is lost after a backup, and restored.
struct Scene {
    mds: MdsHandle,
    servers: Vec<Chunkserver>,
    /// Epoch and client of the newest attachment to `before`, and a volume: the backup knows neither.
    later: (u64, u64),
    after: u64,
}

async fn lost_and_restored(dir: &Path) -> Scene {
    let old = start(&config(&dir.join("old")));
    let mut servers = ready(&old).await;
    let create = |name| new_volume(name, 1 << 30);
    let created = volumes(&old).await.create(create("before")).await;
    created.expect("created");
    let first = attach(&old, "before").await;
    let file = backup(&old).await;
    let head = Backup::read(file.as_slice()).unwrap().head().clone();
    assert_eq!((head.volumes, head.copysets, head.chunkservers), (1, 12, 3));

    let later = attach(&old, "before").await;
    assert!(later.0 > first.0 && later.1 > first.1);
    let after = volumes(&old).await.create(create("after")).await;
    let after = after.expect("created").into_inner().id;
    stop(old).await;

    let new_dir = dir.join("new");
    let settings = restore_to(&file, &new_dir);
    let to = Restore {
        data_dir: new_dir,
        id: 1,
        addr: "127.0.0.1:1".into(),
    };
    let again = restore(Backup::read(file.as_slice()).unwrap(), &to);
    assert!(again.is_err(), "never where anything is");
    let mds = Mds::start(&settings).expect("starts");
    for server in &mut servers {
        server.volumes.push(VolumeHeld {
            volume: after,
            chunks: 7,
            epoch: 1,
            removed: false,
            copysets: vec![1, 2],
        });
    }
    let mut servers = reconnect(&mds, servers).await;
    beat_all(&mut servers).await;
    Scene {
        mds,
        servers,
        later,
        after,
    }
}

#[tokio::test]
async fn a_new_group_knows_the_old_volumes_and_gives_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let scene = lost_and_restored(dir.path()).await;
    let now = status(&scene.mds).await;
    assert!(codes(&now).contains(&("OGEE-1020", "WARN")), "{now:?}");
    let known = volumes(&scene.mds).await.show(named("before")).await;
    let known = known.expect("known").into_inner();
    assert!(known.epoch > scene.later.0, "{} is too low", known.epoch);
    let (epoch, client) = attach(&scene.mds, "before").await;
    assert!(epoch > known.epoch && client > scene.later.1);
    let made = volumes(&scene.mds)
        .await
        .create(new_volume("made", 1 << 30))
        .await;
    let made = made.expect("created").into_inner().id;
    assert!(made > scene.after, "no id is given twice");
    stop(scene.mds).await;
}

#[tokio::test]
async fn a_volume_that_is_not_known_is_kept_until_an_operator_discards_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = lost_and_restored(dir.path()).await;
    let (mds, servers, after) = (&scene.mds, &mut scene.servers, scene.after);
    let held: Vec<_> = servers.iter().map(|it| it.replicas.len()).collect();
    // Their answers ask for what they hold.
    for _ in 0..3 {
        beat_all(servers).await;
    }
    let found = strangers(mds).await;
    assert_eq!(found.not_heard, [""; 0]);
    let listed: Vec<_> = found.volumes.iter().flat_map(|it| &it.held).collect();
    let told: Vec<_> = listed.iter().map(|it| (it.volume, it.chunks)).collect();
    assert_eq!(told, [(after, 21)]);
    let now = status(mds).await;
    assert!(codes(&now).contains(&("OGEE-1021", "WARN")), "{now:?}");
    let discard = DiscardVolumeRequest { volume: after };
    let refused = members(mds).await.discard_volume(discard).await;
    assert_eq!(fault(refused).code(), "OGEE-2072", "it is not accepted");

    let accept = AcceptRestoreRequest { force: false };
    let accepted = members(mds).await.accept_restore(accept).await;
    accepted.expect("accepted");
    for _ in 0..3 {
        beat_all(servers).await;
    }
    let still: Vec<_> = servers.iter().map(|it| it.replicas.len()).collect();
    assert_eq!(held, still);
    assert!(servers.iter().all(|it| it.removed.is_empty()), "by itself");

    let discarded = members(mds).await.discard_volume(discard).await;
    discarded.expect("discarded");
    beat_all(servers).await;
    assert!(servers.iter().all(|it| it.removed == [after]));
    stop(scene.mds).await;
}

#[tokio::test]
async fn voters_that_changed_after_the_backup_are_learnt_and_nothing_is_ordered() {
    let dir = tempfile::tempdir().unwrap();
    let old = start(&config(&dir.path().join("old")));
    let mut servers = ready(&old).await;
    let file = backup(&old).await;
    stop(old).await;
    // Copyset 1 has another replica in the third zone by now.
    let (copyset, gone) = {
        let held = &servers[2].replicas[&1];
        (1, held.replica)
    };
    let mut voters: Vec<u64> = servers[..2]
        .iter()
        .map(|s| s.replicas[&copyset].replica)
        .collect();
    voters.push(gone + 1000);
    for server in &mut servers {
        let held = server.replicas.get_mut(&copyset).unwrap();
        held.term = 9;
        held.leader = voters[0];
        held.voters.clone_from(&voters);
    }
    servers[2].replicas.get_mut(&copyset).unwrap().replica = gone + 1000;
    let stores: Vec<String> = servers
        .iter()
        .map(|s| s.registration.stores[0].store.clone())
        .collect();
    for (server, store) in servers.iter_mut().zip(&stores) {
        server.replica_store.clone_from(store);
    }

    let new = Mds::start(&restore_to(&file, &dir.path().join("new"))).expect("starts");
    let mut servers = reconnect(&new, servers).await;
    for (server, store) in servers.iter_mut().zip(&stores) {
        server.replica_store.clone_from(store);
    }
    for _ in 0..3 {
        for server in &mut servers {
            let answer = server.beat().await;
            assert!(answer.orders.is_empty(), "{:?}", answer.orders);
        }
    }
    let listed = common::topology(&new)
        .await
        .list_copysets(Empty {})
        .await
        .unwrap()
        .into_inner();
    let found = listed.copysets.iter().find(|c| c.id == copyset).unwrap();
    let mut ids: Vec<u64> = found.replicas.iter().map(|r| r.id).collect();
    ids.sort_unstable();
    voters.sort_unstable();
    assert_eq!(ids, voters);
    assert!(
        found.conf_epoch > 1 << 32,
        "orders of before are void: {}",
        found.conf_epoch
    );
    // An operator's own orders wait as well: they are kept until the metadata was accepted.
    let replace = ReplaceReplicaRequest {
        copyset,
        replica: gone,
        to: servers[2].name.clone(),
    };
    assert!(
        common::topology(&new)
            .await
            .replace_replica(replace)
            .await
            .is_err()
    );
    stop(new).await;
}

#[tokio::test]
async fn a_member_of_the_old_group_is_not_listened_to() {
    let dir = tempfile::tempdir().unwrap();
    let old = start(&config(&dir.path().join("old")));
    let _servers = ready(&old).await;
    let file = backup(&old).await;
    let new = Mds::start(&restore_to(&file, &dir.path().join("new"))).expect("starts");
    let own = members(&new)
        .await
        .local(MemberQuery::default())
        .await
        .unwrap()
        .into_inner();
    let other = members(&old)
        .await
        .local(MemberQuery::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(own.cluster_id, other.cluster_id);
    assert_ne!(own.group, other.group);
    assert!(
        own.term > other.term + (1 << 31),
        "orders of the old one are refused"
    );
    let mut client = ogee_proto::service::mds_raft_client::MdsRaftClient::new(
        common::channel(&new.addr().to_string()).await,
    );
    let message = ogee_proto::service::RaftMessage {
        cluster: "ogee".into(),
        from: 1,
        to: 1,
        body:
            br#"{"vote":{"term":1,"voted_for":1,"committed":false},"last":null,"transfer":false}"#
                .to_vec(),
        group: other.group,
        ..Default::default()
    };
    let refused = client
        .vote(message.clone())
        .await
        .expect_err("another group's");
    assert!(refused.message().contains("group"), "{refused}");
    let own = ogee_proto::service::RaftMessage {
        group: own.group,
        ..message
    };
    client.vote(own).await.expect("its own group's is answered");
    stop(new).await;
    stop(old).await;
}
