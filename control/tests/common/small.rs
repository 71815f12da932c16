//! The state machine alone, with one pool whose copysets have had a leader. Commands are written as they stand in the
//! log.

use ogee_control::state::{Command, Outcome, Refusal, Reply, State, Volume};
use serde_json::{Value, json};

pub const GIB: u64 = 1 << 30;

pub fn parsed(command: Value) -> Command {
    serde_json::from_value(command).expect("a command")
}

/// A pool `p` of one replica, with four copysets.
pub fn state() -> State {
    let store = "00000000-0000-0000-0000-000000000001";
    let mut state = State::default();
    for command in [
        json!({
            "do": "RegisterChunkserver", "name": "s1", "zone": "z1", "server": "s1", "endpoints": ["h:1"],
            "version": "1", "stores": [{
                "id": store, "shard": 0, "path": "/d", "capacity": 1_u64 << 40, "log_capacity": 1_u64 << 30,
            }],
        }),
        json!({"do": "CreatePool", "name": "p", "replicas": 1}),
        json!({"do": "CreateCopysets", "pool": 1, "existing": 0, "placements": vec![vec![store]; 4]}),
        json!({"do": "ConfirmReplicas", "created": [], "formed": [1, 2, 3, 4]}),
    ] {
        state.apply(&parsed(command)).expect("taken");
    }
    state
}

pub fn create(name: &str, size: u64, owner: &str) -> Value {
    json!({
        "do": "CreateVolume", "name": name, "pool": "p", "size": size, "stripe": {"unit": 16 << 20, "count": 1},
        "replicas": 0, "owner": owner, "created_unix_ms": 1,
    })
}

pub fn make(path: &str) -> Value {
    json!({"do": "CreateDirectory", "path": path, "parents": false, "created_unix_ms": 7})
}

pub fn rename(what: &str, from: &str, to: &str) -> Value {
    json!({"do": format!("Rename{what}"), "from": from, "to": to})
}

pub fn quota(of: Value, bytes: Value, volumes: Value) -> Value {
    json!({"do": "SetQuota", "of": of, "bytes": bytes, "volumes": volumes})
}

pub fn attach(name: &str) -> Value {
    json!({"do": "Attach", "name": name, "host": "h", "read_only": false})
}

#[track_caller]
pub fn done(state: &mut State, command: Value) -> Reply {
    match state.apply(&parsed(command)) {
        Ok(reply) => reply,
        Err(refusal) => panic!("{refusal}: {}", refusal.fault()),
    }
}

/// What a refusal says; it has changed nothing.
#[track_caller]
pub fn refused(state: &mut State, command: Value) -> (&'static str, String) {
    let before = state.clone();
    let outcome: Outcome = state.apply(&parsed(command));
    let refusal: Refusal = outcome.expect_err("a refusal");
    assert_eq!(*state, before, "a refusal changes nothing");
    (refusal.code(), refusal.fault().to_string())
}

pub fn volume(state: &State, name: &str) -> Volume {
    state.volume(name).expect("there").1.clone()
}

/// Names of all volumes.
pub fn names(state: &State) -> Vec<&str> {
    let all = state.volumes_after("");
    all.map(|(_, volume)| volume.name.as_str()).collect()
}

/// Paths of all directories.
pub fn paths(state: &State) -> Vec<&str> {
    state.directories().map(|(path, _)| path.as_str()).collect()
}
