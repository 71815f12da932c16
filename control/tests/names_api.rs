//! Names, directories, owners and quotas as the services have them.

#![allow(clippy::unwrap_used, reason = "test code outside test functions")]

mod common;

use common::{config, fault, new_volume, ready, removal, start, stop, volumes};
use ogee_control::MdsHandle;
use ogee_proto::service::names_client::NamesClient;
use ogee_proto::service::{
    AttachRequest, CreateDirectoryRequest, CreateVolumeRequest, DetachRequest, Empty, Label,
    ListDirectoriesRequest, ListVolumesRequest, RefreshRequest, RemoveDirectoryRequest,
    RenameRequest, SetQuotaRequest, SetVolumeRequest,
};
use tonic::transport::Channel;

const GIB: u64 = 1 << 30;

async fn names(mds: &MdsHandle) -> NamesClient<Channel> {
    NamesClient::new(common::channel(&mds.addr().to_string()).await)
}

fn directory(path: &str) -> CreateDirectoryRequest {
    CreateDirectoryRequest {
        path: path.into(),
        ..CreateDirectoryRequest::default()
    }
}

fn renaming(from: &str, to: &str) -> RenameRequest {
    RenameRequest {
        from: from.into(),
        to: to.into(),
        ..RenameRequest::default()
    }
}

fn label(key: &str, value: &str) -> Label {
    Label {
        key: key.into(),
        value: value.into(),
    }
}

#[tokio::test]
async fn a_volume_is_renamed_under_its_user() {
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&config(dir.path()));
    ready(&mds).await;
    let (mut client, mut operator) = (volumes(&mds).await, names(&mds).await);
    let early = fault(client.create(new_volume("team/db", GIB)).await);
    assert_eq!(early.code(), "OGEE-2089");
    let wrong = fault(client.create(new_volume("team/Db", GIB)).await);
    assert_eq!(wrong.code(), "OGEE-2001");
    assert!(wrong.cause().contains("part 2"), "{wrong}");
    operator.create_directory(directory("team")).await.unwrap();
    let made = client.create(new_volume("team/db", GIB)).await;
    let made = made.unwrap().into_inner();
    let attach = AttachRequest {
        name: "team/db".into(),
        host: "vm".into(),
        ..AttachRequest::default()
    };
    let user = client.attach(attach).await.unwrap().into_inner();
    let renamed = operator.rename(renaming("team/db", "db")).await;
    let renamed = renamed.unwrap().into_inner();
    assert_eq!((renamed.id, renamed.attached), (made.id, true));
    client.create(new_volume("team/db", GIB)).await.unwrap();
    let refresh = RefreshRequest {
        name: "team/db".into(),
        client: user.client,
        epoch: user.epoch,
    };
    let map = client.refresh(refresh).await.expect("goes on").into_inner();
    let seen = map.volume.unwrap();
    assert_eq!((seen.id, seen.name.as_str()), (made.id, "db"));
    let move_all = renaming("team", "crew");
    operator.rename_directory(move_all).await.unwrap();
    let detach = DetachRequest {
        name: "team/db".into(),
        client: user.client,
        epoch: user.epoch,
        ..DetachRequest::default()
    };
    client.detach(detach).await.expect("under the old name");
    client.remove(removal("db")).await.expect("nobody uses it");
    client.remove(removal("crew/db")).await.expect("nor that");
    stop(mds).await;
}

#[tokio::test]
async fn volumes_are_listed_by_prefix_owner_and_labels() {
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&config(dir.path()));
    ready(&mds).await;
    let (mut client, mut operator) = (volumes(&mds).await, names(&mds).await);
    operator.create_directory(directory("team")).await.unwrap();
    let request = CreateVolumeRequest {
        owner: "ann".into(),
        labels: vec![label("tier", "gold")],
        ..new_volume("team/db", GIB)
    };
    let made = client.create(request).await.unwrap().into_inner();
    assert_eq!(made.labels, [label("tier", "gold")]);
    client.create(new_volume("team-x", GIB)).await.unwrap();
    let change = SetVolumeRequest {
        name: "team/db".into(),
        owner: Some("bob".into()),
        labels: vec![label("app", "web")],
        unlabel: vec!["tier".into()],
        ..SetVolumeRequest::default()
    };
    let changed = operator.set(change).await.unwrap().into_inner();
    assert_eq!(changed.owner, "bob");
    assert_eq!(changed.labels, [label("app", "web")]);
    let all = ListVolumesRequest::default;
    let prefix = |prefix: &str| ListVolumesRequest {
        prefix: prefix.into(),
        ..all()
    };
    let labelled = |value: &str| ListVolumesRequest {
        labels: vec![label("app", value)],
        limit: 1,
        ..all()
    };
    let owned = ListVolumesRequest {
        owner: Some("bob".into()),
        ..all()
    };
    let direct = ListVolumesRequest {
        direct: true,
        ..all()
    };
    let after = ListVolumesRequest {
        after: "team-x".into(),
        ..all()
    };
    let none: [&str; 0] = [];
    for (request, names) in [
        (all(), &["team-x", "team/db"][..]),
        (prefix("team"), &["team-x", "team/db"]),
        (prefix("team/"), &["team/db"]),
        (prefix("u"), &none),
        (direct, &["team-x"]),
        (owned, &["team/db"]),
        (labelled("web"), &["team/db"]),
        (labelled("db"), &none),
        (after, &["team/db"]),
    ] {
        let page = client.list(request.clone()).await.unwrap().into_inner();
        let found: Vec<&str> = page.volumes.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(
            (found.as_slice(), page.next.as_str()),
            (names, ""),
            "{request:?}"
        );
    }
    stop(mds).await;
}

#[tokio::test]
async fn directories_and_quotas_say_how_much_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&config(dir.path()));
    ready(&mds).await;
    let (mut client, mut operator) = (volumes(&mds).await, names(&mds).await);
    operator.create_directory(directory("crew")).await.unwrap();
    client.create(new_volume("crew/db", GIB)).await.unwrap();
    client.create(new_volume("db", GIB)).await.unwrap();
    let bound = SetQuotaRequest {
        directory: "crew".into(),
        bytes: Some(GIB),
        volumes: Some(2),
        ..SetQuotaRequest::default()
    };
    operator.set_quota(bound).await.unwrap();
    let full = fault(client.create(new_volume("crew/two", GIB)).await);
    assert_eq!(full.code(), "OGEE-2093");
    assert!(full.cause().contains("0 bytes of 1.0 GiB left"), "{full}");
    let quotas = operator.list_quotas(Empty {}).await.unwrap().into_inner();
    let [one] = quotas.quotas.as_slice() else {
        panic!("{quotas:?}")
    };
    assert_eq!((one.directory.as_str(), one.owner.as_str()), ("crew", ""));
    assert_eq!((one.bytes_max, one.volumes_max), (Some(GIB), Some(2)));
    assert_eq!((one.bytes, one.volumes), (GIB, 1));
    let both = SetQuotaRequest {
        directory: "crew".into(),
        owner: "ann".into(),
        ..SetQuotaRequest::default()
    };
    for request in [both, SetQuotaRequest::default()] {
        assert_eq!(fault(operator.set_quota(request).await).code(), "OGEE-2021");
    }
    let top = ListDirectoriesRequest::default();
    let top = operator.list_directories(top).await.unwrap().into_inner();
    let own = top.directory.unwrap();
    assert_eq!((own.directories, own.volumes, own.bytes), (1, 2, 2 * GIB));
    let [crew] = top.directories.as_slice() else {
        panic!("{:?}", top.directories)
    };
    assert_eq!((crew.path.as_str(), crew.volumes), ("crew", 1));
    assert_eq!(crew.bytes_max, Some(GIB));
    let remove = RemoveDirectoryRequest {
        path: "crew".into(),
        ..RemoveDirectoryRequest::default()
    };
    let full = fault(operator.remove_directory(remove.clone()).await);
    assert_eq!(full.code(), "OGEE-2091");
    assert!(full.cause().contains("crew/db"), "{full}");
    client.remove(removal("crew/db")).await.unwrap();
    operator.remove_directory(remove).await.unwrap();
    stop(mds).await;
}

/// A page is one message, however long labels are.
#[tokio::test]
async fn a_listing_of_volumes_with_long_labels_comes_in_pages() {
    const COUNT: usize = 300;
    let dir = tempfile::tempdir().unwrap();
    let mds = start(&config(dir.path()));
    ready(&mds).await;
    let client = volumes(&mds).await;
    let mut made = tokio::task::JoinSet::new();
    for at in 0..COUNT {
        let labels = (0..16).map(|key| label(&format!("key{key}"), &"x".repeat(255)));
        let request = CreateVolumeRequest {
            labels: labels.collect(),
            ..new_volume(&format!("v{at:03}"), 1 << 20)
        };
        let mut client = client.clone();
        made.spawn(async move { client.create(request).await.map(drop) });
    }
    while let Some(done) = made.join_next().await {
        done.unwrap().expect("made");
    }
    let (mut found, mut pages, mut after) = (Vec::new(), 0, String::new());
    loop {
        let wanted = ListVolumesRequest {
            after,
            ..ListVolumesRequest::default()
        };
        let page = client
            .clone()
            .list(wanted)
            .await
            .expect("fits")
            .into_inner();
        found.extend(page.volumes.into_iter().map(|it| it.name));
        (pages, after) = (pages + 1, page.next);
        if after.is_empty() {
            break;
        }
    }
    let all = (0..COUNT).map(|at| format!("v{at:03}"));
    assert!(found.into_iter().eq(all), "each once, in order");
    assert_eq!(pages, 2);
    let long = SetVolumeRequest {
        name: "v000".into(),
        labels: vec![label("key", &"x".repeat(256))],
        ..SetVolumeRequest::default()
    };
    assert_eq!(fault(names(&mds).await.set(long).await).code(), "OGEE-2094");
    stop(mds).await;
}
