//! What volumes are called, whose they are, and how much there may be.

#![allow(clippy::unwrap_used, reason = "test code outside test functions")]

mod common;

use common::small::{
    GIB, attach, create, done, make, names, parsed, paths, quota, refused, rename, state, volume,
};
use ogee_control::state::{Reply, State};
use ogee_proto::id::ClientId;
use serde_json::{Value, json};

fn remove_directory(path: &str) -> Value {
    json!({"do": "RemoveDirectory", "path": path})
}

fn set(name: &str, change: Value) -> Value {
    let mut command =
        json!({"do": "SetVolume", "name": name, "owner": null, "labels": {}, "unlabel": []});
    for (key, value) in change.as_object().unwrap() {
        command[key] = value.clone();
    }
    command
}

#[test]
fn a_volume_is_in_a_directory_that_is_there() {
    let mut state = state();
    let (code, said) = refused(&mut state, create("team/db", GIB, ""));
    assert_eq!(code, "OGEE-2089");
    assert!(
        said.contains("no directory \"team\"") && said.contains("ogee dir create team"),
        "{said}"
    );
    done(&mut state, make("team"));
    done(&mut state, create("team/db", GIB, ""));
    assert_eq!(refused(&mut state, make("team")).0, "OGEE-2088");
    assert_eq!(refused(&mut state, create("team", GIB, "")).0, "OGEE-2088");
    assert_eq!(refused(&mut state, make("team/db")).0, "OGEE-2002");
    let (code, said) = refused(&mut state, create("team/db/x", GIB, ""));
    assert_eq!(code, "OGEE-2090");
    assert!(said.contains("\"team/db\" is a volume"), "{said}");
    assert_eq!(refused(&mut state, make("a/b")).0, "OGEE-2089");
    let parents =
        json!({"do": "CreateDirectory", "path": "a/b/c", "parents": true, "created_unix_ms": 7});
    done(&mut state, parents.clone());
    done(&mut state, parents);
    assert_eq!(paths(&state), ["a", "a/b", "a/b/c", "team"]);
    let through = json!({"do": "CreateDirectory", "path": "team/db/x", "parents": true, "created_unix_ms": 7});
    assert_eq!(refused(&mut state, through).0, "OGEE-2090");
}

#[test]
fn a_directory_goes_when_it_is_empty() {
    let mut state = state();
    for path in ["team", "team/old", "team2"] {
        done(&mut state, make(path));
    }
    done(&mut state, create("team/old/a", GIB, ""));
    done(&mut state, create("team2/b", GIB, ""));
    let (code, said) = refused(&mut state, remove_directory("team"));
    assert_eq!(code, "OGEE-2091");
    assert!(said.contains("in it: team/old |"), "{said}");
    for at in 0..10 {
        done(&mut state, create(&format!("team/v{at}"), GIB, ""));
    }
    let (_, said) = refused(&mut state, remove_directory("team"));
    assert!(
        said.contains("team/old, team/v0") && said.contains(" and 3 more"),
        "{said}"
    );
    assert!(
        !said.contains("team/old/a") && !said.contains("team2"),
        "{said}"
    );
    for name in names(&state.clone()) {
        if name.starts_with("team/") {
            done(&mut state, json!({"do": "RemoveVolume", "name": name}));
        }
    }
    done(&mut state, remove_directory("team/old"));
    done(&mut state, remove_directory("team"));
    assert_eq!(refused(&mut state, remove_directory("team")).0, "OGEE-2089");
    assert_eq!(
        refused(&mut state, remove_directory("team2/b")).0,
        "OGEE-2090"
    );
    assert_eq!(
        (names(&state), paths(&state)),
        (vec!["team2/b"], vec!["team2"])
    );
}

#[test]
fn a_directory_takes_all_that_is_in_it_along() {
    let mut state = state();
    for path in ["team", "team/web", "team-2", "old"] {
        done(&mut state, make(path));
    }
    for name in ["team/a", "team/web/b", "team-2/c", "team.d", "team0"] {
        done(&mut state, create(name, GIB, ""));
    }
    done(
        &mut state,
        quota(
            json!({"Directory": "team/web"}),
            json!({"At": 4 * GIB}),
            json!("Keep"),
        ),
    );
    let ids: Vec<_> = state.volumes().keys().copied().collect();
    done(&mut state, rename("Directory", "team", "old/team"));
    assert_eq!(
        names(&state),
        [
            "old/team/a",
            "old/team/web/b",
            "team-2/c",
            "team.d",
            "team0"
        ]
    );
    assert_eq!(paths(&state), ["old", "old/team", "old/team/web", "team-2"]);
    assert!(
        state.volumes().keys().copied().eq(ids),
        "they are the same volumes"
    );
    let (_, web) = state.directory("old/team/web").unwrap();
    assert_eq!(web.quota.bytes, Some(4 * GIB), "and its quota");
    done(&mut state, rename("Directory", "old", "old"));
    for (to, code) in [
        ("old/team/in", "OGEE-2092"),
        ("team-2", "OGEE-2088"),
        ("team0", "OGEE-2002"),
        ("none/x", "OGEE-2089"),
    ] {
        assert_eq!(
            refused(&mut state, rename("Directory", "old", to)).0,
            code,
            "{to}"
        );
    }
    assert_eq!(
        refused(&mut state, rename("Directory", "team0", "x")).0,
        "OGEE-2090"
    );
    // Too deep with it, though not by itself.
    let deep = "d/d/d/d/d/d";
    let parents =
        json!({"do": "CreateDirectory", "path": deep, "parents": true, "created_unix_ms": 7});
    done(&mut state, parents);
    let (code, said) = refused(
        &mut state,
        rename("Directory", "old", &format!("{deep}/old")),
    );
    assert_eq!(code, "OGEE-2092");
    assert!(said.contains("parts: at most 8"), "{said}");
}

fn refresh(state: &State, name: &str, user: ClientId) -> Option<String> {
    let (_, volume) = state.volume_of(name, user).ok()?;
    let is_user = volume.users.contains(user);
    is_user.then(|| volume.name.to_string())
}

fn attached(state: &mut State, name: &str) -> (u64, u64) {
    match done(state, attach(name)) {
        Reply::Attached { client, epoch, .. } => (client.get(), epoch.get()),
        other => panic!("{other:?}"),
    }
}

fn detach(name: &str, (client, epoch): (u64, u64)) -> Value {
    json!({"do": "Detach", "name": name, "client": client, "epoch": epoch, "force": false})
}

#[test]
fn users_of_a_renamed_volume_go_on_under_the_old_name() {
    let mut state = state();
    done(&mut state, make("team"));
    done(&mut state, create("a", GIB, ""));
    let first = attached(&mut state, "a");
    done(&mut state, rename("Volume", "a", "team/b"));
    done(&mut state, create("a", GIB, ""));
    let second = attached(&mut state, "a");
    done(&mut state, rename("Directory", "team", "crew"));
    let at = |state: &State, user: (u64, u64)| refresh(state, "a", ClientId::new(user.0));
    assert_eq!(at(&state, first).as_deref(), Some("crew/b"));
    assert_eq!(at(&state, second).as_deref(), Some("a"));
    done(&mut state, detach("a", first));
    let is_used = |state: &State, name: &str| !volume(state, name).users.all().is_empty();
    assert!(is_used(&state, "a") && !is_used(&state, "crew/b"));
    // Whoever takes it over ends what was known of the one before.
    done(&mut state, rename("Volume", "a", "c"));
    let third = attached(&mut state, "c");
    assert_eq!(at(&state, second), None);
    assert_eq!(
        refresh(&state, "c", ClientId::new(third.0)).as_deref(),
        Some("c")
    );
    let json = serde_json::to_value(&state).unwrap();
    assert_eq!(json["renamed"], json!({}));
}

#[test]
fn quotas_bound_owners_and_directories_and_say_what_is_left() {
    let mut state = state();
    done(&mut state, make("team"));
    let owner = json!({"Owner": "ann"});
    done(
        &mut state,
        quota(owner.clone(), json!({"At": 10 * GIB}), json!("Keep")),
    );
    done(&mut state, create("team/a", 6 * GIB, "ann"));
    let (code, said) = refused(&mut state, create("b", 5 * GIB, "ann"));
    assert_eq!(code, "OGEE-2093");
    for part in [
        "owner \"ann\"",
        "5.0 GiB more",
        "4.0 GiB of 10.0 GiB left",
        "ogee quota set --owner ann --bytes",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    done(&mut state, create("b", 5 * GIB, "bob"));
    assert_eq!(refused(&mut state, grow("team/a", 11 * GIB)).0, "OGEE-2093");
    done(&mut state, grow("team/a", 10 * GIB));
    assert_eq!(
        refused(&mut state, set("b", json!({"owner": "ann"}))).0,
        "OGEE-2093"
    );
    done(&mut state, set("team/a", json!({"owner": "ann"})));
    done(&mut state, quota(owner, json!("Lift"), json!("Keep")));
    let none = "what bounds nothing is none";
    assert_eq!(state.owner_quotas().count(), 0, "{none}");
    done(&mut state, set("b", json!({"owner": "ann"})));
}

fn grow(name: &str, size: u64) -> Value {
    json!({"do": "ResizeVolume", "name": name, "size": size})
}

#[test]
fn a_quota_of_a_directory_counts_what_is_below_and_what_comes_into_it() {
    let mut state = state();
    for path in ["team", "team/web", "in"] {
        done(&mut state, make(path));
    }
    let of = || json!({"Directory": "team"});
    done(&mut state, quota(of(), json!("Keep"), json!({"At": 2})));
    done(&mut state, create("team/a", 10 * GIB, "ann"));
    done(&mut state, create("b", 5 * GIB, "bob"));
    done(&mut state, create("team/web/c", GIB, ""));
    let (code, said) = refused(&mut state, create("team/web/d", GIB, ""));
    assert_eq!(code, "OGEE-2093");
    for part in [
        "directory \"team\"",
        "1 volume more",
        "0 volumes of 2 volumes left",
        "--dir team --volumes N (or none)",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert_eq!(
        refused(&mut state, rename("Volume", "b", "team/b")).0,
        "OGEE-2093"
    );
    done(&mut state, rename("Volume", "b", "in/b"));
    assert_eq!(
        refused(&mut state, rename("Directory", "in", "team/in")).0,
        "OGEE-2093"
    );
    // Within it nothing becomes more.
    done(&mut state, rename("Volume", "team/web/c", "team/c"));
    // What is beyond is let be, and grows no more.
    done(
        &mut state,
        quota(of(), json!({"At": GIB}), json!({"At": 0})),
    );
    done(&mut state, grow("team/a", 10 * GIB));
    assert_eq!(refused(&mut state, grow("team/a", 11 * GIB)).0, "OGEE-2093");
    done(&mut state, quota(of(), json!("Lift"), json!("Lift")));
    done(&mut state, create("team/web/d", 50 * GIB, "ann"));
    let nowhere = quota(json!({"Directory": "none"}), json!("Lift"), json!("Lift"));
    assert_eq!(refused(&mut state, nowhere).0, "OGEE-2089");
}

#[test]
fn owner_and_labels_are_set_later() {
    let mut state = state();
    done(&mut state, create("v", GIB, "ann"));
    done(
        &mut state,
        set("v", json!({"labels": {"tier": "gold", "app": "web"}})),
    );
    done(
        &mut state,
        set(
            "v",
            json!({"owner": "bob", "labels": {"app": "db"}, "unlabel": ["tier", "none"]}),
        ),
    );
    let now = volume(&state, "v");
    let labels: Vec<_> = now
        .labels
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    assert_eq!((now.owner.as_str(), labels), ("bob", vec![("app", "db")]));
    let many: serde_json::Map<String, Value> =
        (0..16).map(|at| (format!("k{at}"), json!("x"))).collect();
    let (code, said) = refused(&mut state, set("v", json!({"labels": many})));
    assert_eq!(code, "OGEE-2094");
    assert!(
        said.contains("17 labels") && said.contains("at most 16"),
        "{said}"
    );
    for value in ["x".repeat(256), "a\nb".into()] {
        assert_eq!(
            refused(&mut state, set("v", json!({"labels": {"a": value}}))).0,
            "OGEE-2094"
        );
    }
    let bad = serde_json::from_value::<ogee_control::state::Command>(set(
        "v",
        json!({"labels": {"A": "x"}}),
    ));
    assert!(bad.is_err(), "a key is a name");
}

#[test]
fn metadata_from_before_directories_is_read() {
    let mut state = state();
    done(&mut state, create("v", GIB, "ann"));
    let mut json = serde_json::to_value(&state).unwrap();
    for part in ["directories", "renamed", "owner_quotas", "requests"] {
        json.as_object_mut().unwrap().remove(part).unwrap();
    }
    json["volumes"]["1"]
        .as_object_mut()
        .unwrap()
        .remove("labels")
        .unwrap();
    assert_eq!(serde_json::from_value::<State>(json).unwrap(), state);
    // And what is there now survives, too.
    done(&mut state, make("team"));
    done(
        &mut state,
        quota(
            json!({"Owner": "ann"}),
            json!({"At": GIB}),
            json!({"At": 3}),
        ),
    );
    attached(&mut state, "v");
    done(&mut state, rename("Volume", "v", "team/v"));
    let once = json!({
        "do": "Once", "id": "00000000-0000-0000-0000-000000000005", "asked": {"what": "x", "sum": 3}, "at_ms": 9,
        "command": create("w", 1, "ann"),
    });
    state.apply(&parsed(once)).unwrap_err();
    assert_eq!(state.requests_kept(), 1);
    let json = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<State>(&json).unwrap(), state);
}
