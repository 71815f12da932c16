//! A request with an id is carried out once, however often and of whomever it is asked for.

#![allow(clippy::unwrap_used, reason = "test code outside test functions")]

mod common;

use common::group::Group;
use common::small::{GIB, attach, create, done, make, names, parsed, quota, rename, state};
use common::{fault, named, new_volume, removal};
use ogee_control::state::{Outcome, Reply, State};
use ogee_proto::service::names_client::NamesClient;
use ogee_proto::service::{AttachRequest, CreateVolumeRequest, RenameRequest};
use proptest::prelude::*;
use serde_json::{Value, json};

const MINUTE: u64 = 60_000;

fn id(number: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(number)
}

/// A try of a request, at that minute.
fn once(number: u128, minute: u64, command: &Value) -> Value {
    json!({
        "do": "Once", "id": id(number), "at_ms": minute * MINUTE, "command": command,
        "asked": {"what": command["do"], "sum": command.to_string().len()},
    })
}

fn ask(state: &mut State, number: u128, minute: u64, command: &Value) -> Outcome {
    state.apply(&parsed(once(number, minute, command)))
}

#[test]
fn a_repeat_is_answered_as_the_first_try_was() {
    let mut state = state();
    let made = ask(&mut state, 1, 0, &create("a", GIB, "")).expect("made");
    let resized = json!({"do": "ResizeVolume", "name": "a", "size": 2 * GIB});
    ask(&mut state, 2, 0, &resized).expect("grown");
    ask(&mut state, 3, 0, &rename("Volume", "a", "b")).expect("renamed");
    let Ok(Reply::Attached { epoch, .. }) = ask(&mut state, 4, 0, &attach("b")) else {
        panic!("attached");
    };
    let before = state.clone();
    assert_eq!(
        ask(&mut state, 1, 1, &create("a", GIB, "")),
        Ok(made.clone()),
        "not that it exists"
    );
    ask(&mut state, 2, 1, &resized).expect("though there is no a any more");
    ask(&mut state, 3, 1, &rename("Volume", "a", "b")).expect("nor to be renamed");
    let again = ask(&mut state, 4, 1, &attach("b"));
    assert!(matches!(again, Ok(Reply::Attached { epoch: again, .. }) if again == epoch));
    assert_eq!(state, before, "a repeat changes nothing");
    assert!(
        matches!(made, Reply::Volume(_, it) if it.size == GIB),
        "as it was then"
    );
}

/// A try that is late must not do what its user was told is not done.
#[test]
fn a_refusal_stands() {
    let mut state = state();
    done(&mut state, create("a", GIB, ""));
    let refused = ask(&mut state, 1, 0, &create("a", GIB, "")).expect_err("exists");
    done(&mut state, json!({"do": "RemoveVolume", "name": "a"}));
    let again = ask(&mut state, 1, 1, &create("a", GIB, "")).expect_err("was refused");
    assert_eq!(again, refused);
    assert!(names(&state).is_empty());
    ask(&mut state, 2, 1, &create("a", GIB, "")).expect("another request");
}

#[test]
fn an_id_stands_for_one_request() {
    let mut state = state();
    ask(&mut state, 1, 0, &create("a", GIB, "")).unwrap();
    let before = state.clone();
    let other = ask(&mut state, 1, 0, &make("team")).expect_err("another request");
    let fault = other.fault();
    assert_eq!(fault.code(), "OGEE-2087");
    assert!(
        fault.what().contains(&id(1).to_string()) && fault.cause().contains("CreateVolume"),
        "{fault}"
    );
    assert_eq!(state, before);
}

#[test]
fn what_is_remembered_is_bounded_by_age_and_by_count() {
    let mut state = state();
    let missing = json!({"do": "RemoveVolume", "name": "a"});
    for number in 0..100 {
        ask(&mut state, number, 0, &missing).expect_err("none");
    }
    ask(&mut state, 200, 10, &missing).expect_err("none");
    assert_eq!(state.requests_kept(), 101, "ten minutes are not over");
    ask(&mut state, 201, 11, &missing).expect_err("none");
    assert_eq!(state.requests_kept(), 2);
    // A clock that goes back loses nothing, and one that is ahead is bounded by count.
    for number in 1000..4000 {
        ask(&mut state, number, 1, &missing).expect_err("none");
    }
    assert_eq!(state.requests_kept(), 2048);
    let json = serde_json::to_value(&state).unwrap();
    assert_eq!(serde_json::from_value::<State>(json).unwrap(), state);
}

/// A later version has to read it.
#[test]
fn what_is_remembered_stands_in_snapshots_so() {
    let mut state = state();
    let commands = [
        create("a", 1, ""),
        make("team"),
        json!({"do": "RemoveVolume", "name": "a"}),
    ];
    let outcomes = [
        json!({"Err": {"BadSize": {"size": 1}}}),
        json!({"Ok": "Done"}),
        json!({"Err": {"NoVolume": {"name": "a"}}}),
    ];
    let mut kept = Vec::new();
    for (number, (command, outcome)) in (1..).zip(commands.iter().zip(outcomes)) {
        assert_eq!(ask(&mut state, number, 2, command).is_ok(), number == 2);
        let asked = &once(number, 2, command)["asked"];
        kept.push(json!({
            "id": id(number), "asked": asked, "at_ms": 2 * MINUTE, "outcome": outcome,
        }));
    }
    let state = serde_json::to_value(&state).unwrap();
    assert_eq!(state["requests"], json!(kept));
}

/// Requests over a few names: some are refused.
fn requests() -> impl Strategy<Value = Vec<Value>> {
    let name = || prop::sample::select(vec!["a", "b", "d/a", "d/b", "e/a"]);
    let path = || prop::sample::select(vec!["d", "e", "a"]);
    let one = prop_oneof![
        3 => (name(), 1..4u64).prop_map(|(name, size)| create(name, size * GIB, "ann")),
        2 => (name(), 1..6u64).prop_map(|(name, size)| json!({
            "do": "ResizeVolume", "name": name, "size": size * GIB,
        })),
        2 => name().prop_map(|name| json!({"do": "RemoveVolume", "name": name})),
        2 => (name(), name()).prop_map(|(from, to)| rename("Volume", from, to)),
        2 => path().prop_map(make),
        1 => (path(), path()).prop_map(|(from, to)| rename("Directory", from, to)),
        1 => path().prop_map(|path| json!({"do": "RemoveDirectory", "path": path})),
        2 => name().prop_map(attach),
        1 => name().prop_map(|name| json!({
            "do": "Detach", "name": name, "client": 0, "epoch": 0, "force": true,
        })),
        1 => (1..8u64).prop_map(|size| quota(json!({"Owner": "ann"}), json!({"At": size * GIB}), json!("Keep"))),
    ];
    prop::collection::vec(one, 1..12)
}

/// What must hold whatever was asked.
fn check(state: &State) {
    assert_eq!(names(state).len(), state.volumes().len());
    for (id, it) in state.volumes() {
        let name = it.name.as_str();
        assert_eq!(state.volume(name).map(|(found, _)| found), Ok(*id));
        assert!(state.directory(name).is_err(), "{name} is both");
        for user in it.users.all() {
            let found = state.volume_of(name, user.client).map(|(found, _)| found);
            assert_eq!(found, Ok(*id), "of a user of {name}");
        }
    }
    let volumes = state.volumes().values().map(|it| &it.name);
    for path in state.directories().map(|it| it.0).chain(volumes) {
        let mut above = path.ancestors();
        assert!(above.all(|it| state.directory(it).is_ok()), "{path}");
    }
    let json = serde_json::to_value(state).unwrap();
    let renamed = json["renamed"].as_object().unwrap().keys();
    for client in renamed {
        let client = ogee_proto::id::ClientId::new(client.parse().unwrap());
        let mut volumes = state.volumes().values();
        assert!(
            volumes.any(|it| it.users.contains(client)),
            "{client} is gone"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Whatever tries of requests come between others, the first ones count: what there is in the end, and what each was
    /// told, is as if each had been tried once.
    #[test]
    fn repeats_change_nothing(
        requests in requests(), repeats in prop::collection::vec((any::<u16>(), any::<u16>()), 0..30),
    ) {
        let mut single = state();
        let told: Vec<Outcome> = (0..).zip(&requests)
            .map(|(number, request)| ask(&mut single, number, 0, request)).collect();
        // Each once in order, and repeats at any time after that.
        let mut order: Vec<usize> = (0..requests.len()).collect();
        for (which, place) in repeats {
            let which = usize::from(which) % requests.len();
            let first = order.iter().position(|at| *at == which).unwrap();
            let place = first + 1 + usize::from(place) % (order.len() - first);
            order.insert(place, which);
        }
        let mut repeated = state();
        for at in order {
            let outcome = ask(&mut repeated, at as u128, 1, &requests[at]);
            prop_assert_eq!(&outcome, &told[at]);
            check(&repeated);
        }
        prop_assert_eq!(repeated.without_requests(), single.without_requests());
    }
}

/// The answers are lost with the leader that has given them.
#[tokio::test]
async fn another_leader_answers_as_the_one_that_died() {
    let dir = tempfile::tempdir().unwrap();
    let mut group = Group::start(dir.path());
    let first = group.leader().await;
    group.make_pool(first).await;
    let create = CreateVolumeRequest {
        request_id: id(1).as_bytes().to_vec(),
        ..new_volume("one", GIB)
    };
    let rename = RenameRequest {
        from: "one".into(),
        to: "two".into(),
        request_id: id(2).as_bytes().to_vec(),
    };
    let attach = AttachRequest {
        name: "two".into(),
        host: "h".into(),
        request_id: id(3).as_bytes().to_vec(),
        ..AttachRequest::default()
    };
    let mut gone = removal("gone");
    gone.request_id = id(4).as_bytes().to_vec();
    let (mut client, mut operator) = clients(&group, first).await;
    let made = client.create(create.clone()).await.unwrap().into_inner();
    let renamed = operator.rename(rename.clone()).await.unwrap().into_inner();
    let attached = client.attach(attach.clone()).await.unwrap().into_inner();
    client.create(new_volume("gone", GIB)).await.unwrap();
    client.remove(gone.clone()).await.unwrap();

    group.stop_member(first).await;
    let second = group.leader().await;
    assert_ne!(first, second);
    let (mut client, mut operator) = clients(&group, second).await;
    assert_eq!(
        client.create(create.clone()).await.unwrap().into_inner(),
        made
    );
    assert_eq!(operator.rename(rename).await.unwrap().into_inner(), renamed);
    let again = client.attach(attach).await.unwrap().into_inner();
    assert_eq!(
        (again.client, again.epoch),
        (attached.client, attached.epoch)
    );
    assert_eq!(again.map.unwrap().segments, attached.map.unwrap().segments);
    client.remove(gone).await.expect("it was removed");
    let two = client.show(named("two")).await.unwrap().into_inner();
    assert_eq!((two.id, two.epoch), (made.id, 1), "each was done once");

    let reused = CreateVolumeRequest {
        size: 2 * GIB,
        ..create.clone()
    };
    let refused = fault(client.create(reused).await);
    assert!(
        refused.code() == "OGEE-2087" && refused.cause().contains("create volume \"one\""),
        "{refused}"
    );
    let short = CreateVolumeRequest {
        request_id: vec![1; 3],
        ..new_volume("x", GIB)
    };
    assert_eq!(fault(client.create(short).await).code(), "OGEE-2021");

    // One that was away learns it from the others, and can lead with it.
    let last = group.leader_of_two(first, second).await;
    let (mut client, _) = clients(&group, last).await;
    assert_eq!(client.create(create).await.unwrap().into_inner(), made);
}

async fn clients(
    group: &Group,
    member: u64,
) -> (
    ogee_proto::service::volumes_client::VolumesClient<tonic::transport::Channel>,
    NamesClient<tonic::transport::Channel>,
) {
    let channel = common::channel(&group.addr(member)).await;
    (group.volumes(member).await, NamesClient::new(channel))
}
