//! The state machine under any sequence of commands.

#![allow(clippy::unwrap_used, reason = "test code outside test functions")]

use std::collections::{BTreeMap, BTreeSet};

use ogee_control::state::{
    AddJobs, Attach, Attachment, Cause, Command, ConfirmChanges, ConfirmRemoval, ConfirmReplicas,
    CreateCopysets, CreatePool, CreateVolume, Detach, Ending, InitCluster, JobKind, JobState, Mark,
    MarkStores, NewJob, NoteStores, Refusal, RegisterChunkserver, RemoveVolume, ReplaceReplica,
    Reply, ResizeVolume, StartJob, StartJobs, State, StoreSpec, Users,
};
use ogee_proto::id::{
    ChunkIndex, ChunkserverId, ClientId, CopysetId, Epoch, JobId, PoolId, ReplicaId, StoreId,
    VolumeId,
};
use ogee_proto::layout::StripeLayout;
use ogee_proto::name::{Name, PathName};
use proptest::prelude::*;

const CHUNK: u64 = 16 << 20;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn path(text: &str) -> PathName {
    PathName::new(text).unwrap()
}

fn store(server: u8) -> StoreId {
    StoreId::from_bytes([server; 16])
}

fn register(server: u8) -> Command {
    Command::RegisterChunkserver(RegisterChunkserver {
        name: name(&format!("cs{server}")),
        zone: name(&format!("zone{}", server % 3)),
        server: name(&format!("host{server}")),
        endpoints: vec!["127.0.0.1:1".into()],
        stores: vec![StoreSpec {
            class: None,
            id: store(server),
            shard: 0,
            path: "/dev/disk".into(),
            capacity: 1 << 40,
            log_capacity: 1 << 30,
        }],
        version: "1".into(),
    })
}

fn create_pool() -> Command {
    Command::CreatePool(CreatePool {
        class: None,
        name: name("default"),
        replicas: 3,
        scatter_width: 0,
    })
}

fn create_copysets(existing: u32, count: usize) -> Command {
    Command::CreateCopysets(CreateCopysets {
        pool: PoolId::new(1),
        existing,
        placements: vec![vec![store(0), store(1), store(2)]; count],
    })
}

fn form(copysets: impl IntoIterator<Item = u32>) -> Command {
    Command::ConfirmReplicas(ConfirmReplicas {
        created: Vec::new(),
        formed: copysets.into_iter().map(CopysetId::new).collect(),
    })
}

fn create_volume(volume: &str, chunks: u64) -> Command {
    Command::CreateVolume(CreateVolume {
        name: path(volume),
        labels: BTreeMap::new(),
        pool: name("default"),
        size: chunks * CHUNK,
        stripe: StripeLayout::default().into(),
        replicas: 0,
        owner: String::new(),
        created_unix_ms: 1,
    })
}

fn resize(volume: &str, chunks: u64) -> Command {
    Command::ResizeVolume(ResizeVolume {
        name: path(volume),
        size: chunks * CHUNK,
    })
}

/// Three zones and `copysets` copysets that have had a leader.
fn ready(copysets: usize) -> State {
    let mut state = State::default();
    for command in (0..3)
        .map(register)
        .chain([create_pool(), create_copysets(0, copysets)])
    {
        state.apply(&command).unwrap();
    }
    state
        .apply(&form(1..=u32::try_from(copysets).unwrap()))
        .unwrap();
    state
}

fn refusal(state: &mut State, command: &Command) -> Refusal {
    let before = state.clone();
    let refusal = state.apply(command).expect_err("a refusal");
    assert_eq!(*state, before, "a refusal changes nothing");
    let fault = refusal.fault();
    assert!(fault.code().starts_with("OGEE-20") && !fault.what().is_empty());
    refusal
}

fn volume(state: &State, of: &str) -> ogee_control::state::Volume {
    state.volume(of).unwrap().1.clone()
}

fn replace(replica: u64, server: u8) -> Command {
    Command::ReplaceReplica(ReplaceReplica {
        copyset: CopysetId::new(1),
        replica: ReplicaId::new(replica),
        store: store(server),
    })
}

fn confirm(changed: &[u64], removed: &[u64]) -> Command {
    let named = |ids: &[u64]| {
        let ids = ids.iter();
        ids.map(|id| (CopysetId::new(1), ReplicaId::new(*id)))
            .collect()
    };
    Command::ConfirmChanges(ConfirmChanges {
        changed: named(changed),
        removed: named(removed),
        at_ms: 0,
    })
}

#[test]
fn a_replacement_is_one_at_a_time_and_ends_by_what_was_reported() {
    let mut state = ready(1);
    state.apply(&register(5)).unwrap();
    let id = CopysetId::new(1);
    let other_zone = refusal(&mut state, &replace(1, 5));
    assert!(
        matches!(other_zone, Refusal::BadTarget { .. }),
        "{other_zone}"
    );
    let unknown = refusal(&mut state, &replace(3, 77));
    assert!(matches!(unknown, Refusal::BadTarget { .. }), "{unknown}");
    assert_eq!(
        state.apply(&replace(3, 5)),
        Ok(Reply::Replica(ReplicaId::new(4)))
    );
    assert_eq!(
        state.apply(&replace(3, 5)),
        Ok(Reply::Replica(ReplicaId::new(4)))
    );
    let second = refusal(&mut state, &replace(2, 1));
    assert!(matches!(second, Refusal::ChangeUnderWay { .. }), "{second}");
    let hosts = |state: &State, server: u32| state.hosted(ChunkserverId::new(server)).count();
    assert_eq!((hosts(&state, 3), hosts(&state, 4)), (1, 1));
    // What is reported of something else changes nothing.
    state.apply(&confirm(&[3, 9], &[3, 4])).unwrap();
    assert!(state.copysets()[&id].change.is_some());
    state.apply(&confirm(&[4], &[])).unwrap();
    let copyset = &state.copysets()[&id];
    let ids: Vec<u64> = copyset.replicas.iter().map(|r| r.id.get()).collect();
    assert_eq!(ids, [1, 2, 4]);
    assert_eq!(copyset.leaving.len(), 1);
    assert_eq!(
        (hosts(&state, 3), hosts(&state, 4)),
        (1, 1),
        "it is still to be deleted"
    );
    state.apply(&confirm(&[4], &[3])).unwrap();
    assert_eq!((hosts(&state, 3), hosts(&state, 4)), (0, 1));
    assert!(state.copysets()[&id].leaving.is_empty());
    assert_eq!(
        state.apply(&replace(4, 2)),
        Ok(Reply::Replica(ReplicaId::new(5)))
    );
}

/// The target may die for good: another one takes over, and the first leaves only with the replaced,
/// since it may have become a voter.
#[test]
fn a_replacement_may_go_elsewhere() {
    let mut state = ready(1);
    for server in [5, 8] {
        state.apply(&register(server)).unwrap();
    }
    let id = CopysetId::new(1);
    let reply = |id| Ok(Reply::Replica(ReplicaId::new(id)));
    assert_eq!(state.apply(&replace(3, 5)), reply(4));
    assert_eq!(state.apply(&replace(3, 8)), reply(5));
    assert_eq!(state.apply(&replace(3, 8)), reply(5));
    let back = refusal(&mut state, &replace(3, 5));
    assert!(matches!(back, Refusal::BadTarget { .. }), "{back}");
    let copyset = &state.copysets()[&id];
    assert_eq!(
        copyset.wanted_voters(),
        [1, 2, 5].map(ReplicaId::new).into()
    );
    assert_eq!(copyset.members().count(), 5, "any of them may lead");
    assert!(copyset.leaving.is_empty());
    state.apply(&confirm(&[4], &[4])).unwrap();
    assert!(
        state.copysets()[&id].change.is_some(),
        "not by the one abandoned"
    );
    state.apply(&confirm(&[5], &[])).unwrap();
    let leaving = state.copysets()[&id].leaving.iter().map(|r| r.id.get());
    assert_eq!(leaving.collect::<Vec<_>>(), [3, 4]);
}

#[test]
fn metadata_from_before_replacements_is_read() {
    let state = ready(1);
    let mut json = serde_json::to_value(&state).unwrap();
    let copyset = &mut json["copysets"]["1"];
    copyset.as_object_mut().unwrap().remove("change").unwrap();
    copyset.as_object_mut().unwrap().remove("leaving").unwrap();
    assert_eq!(serde_json::from_value::<State>(json).unwrap(), state);
}

#[test]
fn metadata_from_before_jobs_is_read() {
    let mut state = ready(1);
    let mut json = serde_json::to_value(&state).unwrap();
    for part in ["jobs", "marks", "away", "ailing"] {
        json.as_object_mut().unwrap().remove(part).unwrap();
    }
    json["issued"]
        .as_object_mut()
        .unwrap()
        .remove("job")
        .unwrap();
    assert_eq!(serde_json::from_value::<State>(json).unwrap(), state);
    state.apply(&add_job(JobKind::Recover, 3, 1)).unwrap();
    let json = serde_json::to_value(&state).unwrap();
    assert_eq!(serde_json::from_value::<State>(json).unwrap(), state);
    let changes = r#"{"do":"ConfirmChanges","changed":[],"removed":[]}"#;
    assert!(
        serde_json::from_str::<Command>(changes).is_ok(),
        "without a time"
    );
}

/// A job on the replica of copyset 1, planned at that configuration.
fn add_job(kind: JobKind, replica: u64, conf_epoch: u64) -> Command {
    let job = NewJob {
        kind,
        cause: Cause::Away,
        copyset: CopysetId::new(1),
        conf_epoch,
        replica: ReplicaId::new(replica),
        priority: 1,
        bytes: 5,
        to: None,
    };
    Command::AddJobs(AddJobs {
        jobs: vec![job],
        at_ms: 100,
    })
}

fn start_job(job: u64, attempt: u32, conf_epoch: u64, server: u8) -> Command {
    Command::StartJob(StartJob {
        job: JobId::new(job),
        attempt,
        conf_epoch,
        store: store(server),
        at_ms: 200,
    })
}

fn start_jobs(starts: Vec<(u64, u32, u64, u8)>) -> Command {
    let starts = starts.into_iter();
    let jobs = starts.map(
        |(j, attempt, epoch, s)| match start_job(j, attempt, epoch, s) {
            Command::StartJob(start) => start,
            other => panic!("{other}"),
        },
    );
    Command::StartJobs(StartJobs {
        jobs: jobs.collect(),
    })
}

fn job_state(state: &State, job: u64) -> (JobState, u32) {
    let job = &state.jobs()[&JobId::new(job)];
    (job.state, job.attempt)
}

#[test]
fn a_job_is_begun_once_and_what_is_stale_is_refused() {
    let mut state = ready(1);
    for server in [5, 8] {
        state.apply(&register(server)).unwrap();
    }
    let made = |ids: &[u64]| Ok(Reply::Jobs(ids.iter().copied().map(JobId::new).collect()));
    let no_such_replica = state.apply(&add_job(JobKind::Recover, 77, 1));
    assert_eq!(no_such_replica, made(&[]));
    let old_plan = state.apply(&add_job(JobKind::Recover, 3, 0));
    assert_eq!(old_plan, made(&[]));
    assert_eq!(state.apply(&add_job(JobKind::Recover, 3, 1)), made(&[1]));
    let second = state.apply(&add_job(JobKind::Drain, 2, 1));
    assert_eq!(second, made(&[]), "one on a copyset at a time");

    let unknown = refusal(&mut state, &start_job(9, 0, 1, 5));
    assert!(matches!(unknown, Refusal::NoJob { .. }), "{unknown}");
    let other_zone = refusal(&mut state, &start_job(1, 0, 1, 7));
    assert!(
        matches!(other_zone, Refusal::BadTarget { .. }),
        "{other_zone}"
    );
    let reply = state.apply(&start_job(1, 0, 1, 5));
    assert_eq!(reply, Ok(Reply::Replica(ReplicaId::new(4))));
    let twice = refusal(&mut state, &start_job(1, 0, 1, 5));
    assert!(matches!(twice, Refusal::StaleJob { .. }), "{twice}");
    let end = |attempt, ending| Command::end(JobId::new(1), attempt, ending, 300);
    let stale = refusal(&mut state, &end(0, Ending::TimedOut));
    assert!(matches!(stale, Refusal::StaleJob { .. }), "{stale}");
    let begun = refusal(&mut state, &end(1, Ending::ByOperator));
    assert!(matches!(begun, Refusal::JobUnderWay { .. }), "{begun}");

    // Sent elsewhere: what the first target did is no result any more.
    state.apply(&start_job(1, 1, 2, 8)).unwrap();
    state.apply(&confirm(&[4], &[])).unwrap();
    assert_eq!(job_state(&state, 1), (JobState::Running, 2));
    state.apply(&confirm(&[5], &[])).unwrap();
    assert_eq!(job_state(&state, 1), (JobState::Done, 2));
    assert!(state.copysets()[&CopysetId::new(1)].change.is_none());
    let over = refusal(&mut state, &end(2, Ending::TimedOut));
    assert!(matches!(over, Refusal::StaleJob { .. }), "{over}");
}

#[test]
fn an_operators_replacement_takes_over_and_a_server_is_forgotten_only_empty() {
    let mut state = ready(1);
    for server in [5, 8] {
        state.apply(&register(server)).unwrap();
    }
    state.apply(&add_job(JobKind::Drain, 3, 1)).unwrap();
    state.apply(&start_job(1, 0, 1, 5)).unwrap();
    state.apply(&replace(3, 5)).unwrap();
    assert_eq!(job_state(&state, 1).0, JobState::Running, "the same wish");
    state.apply(&replace(3, 8)).unwrap();
    assert_eq!(job_state(&state, 1).0, JobState::Cancelled);
    let forget = |server| Command::RemoveChunkserver {
        chunkserver: ChunkserverId::new(server),
    };
    for server in [3, 4, 5] {
        let full = refusal(&mut state, &forget(server));
        assert!(
            matches!(full, Refusal::NotEmpty { replicas: 1, .. }),
            "{full}"
        );
    }
    state.apply(&confirm(&[5], &[])).unwrap();
    state.apply(&forget(3)).unwrap();
    state.apply(&forget(3)).expect("once more is nothing");
    let copyset = &state.copysets()[&CopysetId::new(1)];
    let leaving: Vec<u64> = copyset.leaving.iter().map(|r| r.id.get()).collect();
    assert_eq!(leaving, [4], "nobody deletes what it had any more");
    assert!(state.stores().keys().all(|id| *id != store(2)));
    let again = state.apply(&register(2));
    assert_eq!(
        again,
        Ok(Reply::Chunkserver(ChunkserverId::new(6))),
        "a new one"
    );
}

/// What joins may have copied what a removed volume left: it frees that as well, when it has joined.
#[test]
fn a_volume_removed_beside_a_move_is_freed_by_the_new_replica_too() {
    let mut state = ready(1);
    state.apply(&register(5)).unwrap();
    for name in ["before", "beside"] {
        state.apply(&create_volume(name, 1)).unwrap();
    }
    let remove = |of: &str| Command::RemoveVolume(RemoveVolume { name: path(of) });
    let pending = |state: &State| -> Vec<Vec<u32>> {
        let garbage = state.garbage().values();
        garbage
            .map(|g| g.pending.iter().map(|id| id.get()).collect())
            .collect()
    };
    state.apply(&remove("before")).unwrap();
    state.apply(&replace(3, 5)).unwrap();
    state.apply(&remove("beside")).unwrap();
    assert_eq!(pending(&state), [vec![1, 2, 3], vec![1, 2, 3, 4]]);
    state.apply(&confirm(&[4], &[])).unwrap();
    assert_eq!(pending(&state), [vec![1, 2, 3, 4], vec![1, 2, 3, 4]]);
}

#[test]
fn ended_jobs_are_forgotten_when_newer_ones_have() {
    let mut state = ready(1);
    for number in 1..=400 {
        state.apply(&add_job(JobKind::Lead, 2, 1)).unwrap();
        state
            .apply(&Command::end(JobId::new(number), 1, Ending::InPlace, 7))
            .unwrap();
    }
    assert_eq!(state.jobs().len(), 256);
    assert!(state.jobs().keys().all(|id| id.get() > 144));
}

#[test]
fn the_cluster_is_named_once() {
    let mut state = State::default();
    let init = |byte: u8| {
        let id = StoreId::from_bytes([byte; 16]).uuid();
        Command::InitCluster(InitCluster {
            id,
            name: name("c"),
        })
    };
    let first = state.apply(&init(1));
    assert_eq!(state.apply(&init(2)), first);
}

#[test]
fn placements_that_do_not_fit_are_refused() {
    let mut state = State::default();
    for command in (0..4).map(register).chain([create_pool()]) {
        state.apply(&command).unwrap();
    }
    let with = |stores: &[u8]| {
        Command::CreateCopysets(CreateCopysets {
            pool: PoolId::new(1),
            existing: 0,
            placements: vec![stores.iter().map(|s| store(*s)).collect()],
        })
    };
    for bad in [
        &[0, 1][..],
        &[0, 1, 3],
        &[0, 1, 1],
        &[0, 1, 9],
        &[0, 1, 2, 3],
    ] {
        assert_eq!(
            refusal(&mut state, &with(bad)),
            Refusal::BadPlacement { at: 0 },
            "{bad:?}"
        );
    }
    state.apply(&with(&[3, 1, 2])).unwrap();
    let stale = refusal(&mut state, &with(&[0, 1, 2]));
    assert_eq!(
        stale,
        Refusal::PoolChanged {
            pool: name("default")
        }
    );
    let again = refusal(&mut state, &create_pool());
    assert_eq!(
        again,
        Refusal::PoolExists {
            name: name("default")
        }
    );
}

#[test]
fn volumes_start_on_different_copysets_and_load_stays_even() {
    let mut state = ready(12);
    for at in 0..6 {
        state.apply(&create_volume(&format!("v{at}"), 40)).unwrap();
    }
    let first = |v: &str| volume(&state, v).copyset_of(ChunkIndex::new(0)).unwrap();
    let starts: BTreeSet<CopysetId> = (0..6).map(|at| first(&format!("v{at}"))).collect();
    assert!(starts.len() >= 4, "{starts:?}");
    let loads: Vec<u64> = state.copysets().values().map(|c| c.chunks).collect();
    assert_eq!(loads.iter().sum::<u64>(), 240);
    assert!(
        loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1,
        "{loads:?}"
    );
}

#[test]
fn a_volume_needs_copysets_that_have_had_a_leader() {
    let mut state = ready(2);
    state.apply(&create_copysets(2, 2)).unwrap();
    let early = refusal(&mut state, &create_volume("v", 4));
    let pool = name("default");
    assert_eq!(
        early,
        Refusal::PoolNotReady {
            pool,
            formed: 2,
            needed: 4
        }
    );
    state
        .apply(&create_volume("small", 2))
        .expect("two are enough for two chunks");
    state.apply(&form([3, 4])).unwrap();
    state.apply(&create_volume("v", 4)).unwrap();
    assert_eq!(volume(&state, "v").copysets().len(), 4);
}

/// Whoever asked afterwards could see what came after it, or find it gone.
#[test]
fn changes_of_a_volume_are_answered_with_it() {
    let mut state = ready(40);
    let mut answer = |command: &Command| {
        let reply = state.apply(command).unwrap();
        (reply, volume(&state, "v"))
    };
    for command in [create_volume("v", 3), resize("v", 100)] {
        let (reply, now) = answer(&command);
        assert!(matches!(reply, Reply::Volume(_, of) if *of == now));
    }
    let attach = Command::Attach(Attach {
        name: path("v"),
        host: "h".into(),
        read_only: false,
    });
    let (reply, now) = answer(&attach);
    assert!(
        matches!(reply, Reply::Attached { epoch, volume, .. } if *volume == now && epoch == now.epoch)
    );
}

#[test]
fn growing_adds_copysets_without_moving_a_chunk() {
    let mut state = ready(40);
    state.apply(&create_volume("v", 3)).unwrap();
    assert_eq!(volume(&state, "v").copysets().len(), 4);
    let before = volume(&state, "v");
    state.apply(&resize("v", 100)).unwrap();
    let after = volume(&state, "v");
    assert_eq!((after.copysets().len(), after.segments.len()), (32, 2));
    for chunk in 0..3 {
        let chunk = ChunkIndex::new(chunk);
        assert_eq!(before.copyset_of(chunk), after.copyset_of(chunk));
    }
    assert!((0..100).all(|chunk| after.copyset_of(ChunkIndex::new(chunk)).is_some()));
    assert_eq!(after.copyset_of(ChunkIndex::new(100)), None);
    assert_eq!(
        state.copysets().values().map(|c| c.chunks).sum::<u64>(),
        100
    );
    let shrink = refusal(&mut state, &resize("v", 99));
    assert!(matches!(shrink, Refusal::Shrink { .. }));
}

#[test]
fn removal_frees_the_load_and_waits_for_each_chunkserver() {
    let mut state = ready(8);
    state.apply(&create_volume("v", 50)).unwrap();
    let (id, _) = state.volume("v").unwrap();
    state
        .apply(&Command::RemoveVolume(RemoveVolume { name: path("v") }))
        .unwrap();
    assert!(state.copysets().values().all(|c| c.chunks == 0));
    for (server, left) in [(1, 2), (1, 2), (2, 1), (3, 0)] {
        let confirm = ConfirmRemoval {
            chunkserver: ChunkserverId::new(server),
            volumes: vec![id],
        };
        state.apply(&Command::ConfirmRemoval(confirm)).unwrap();
        assert_eq!(
            state.garbage().get(&id).map_or(0, |g| g.pending.len()),
            left
        );
    }
    let Ok(Reply::Volume(next, _)) = state.apply(&create_volume("v", 1)) else {
        panic!("the name is free again");
    };
    assert!(next > id, "the id is not");
}

fn any_command() -> impl Strategy<Value = Command> {
    let volume = prop::sample::select(vec!["a", "b", "c", "d"]);
    let attach = |(v, host): (&str, u8)| {
        let read_only = host % 2 == 0;
        let host = format!("h{host}");
        Command::Attach(Attach {
            name: path(v),
            host,
            read_only,
        })
    };
    let detach = |(v, client, epoch, force): (&str, u64, u64, bool)| {
        let (client, epoch) = (ClientId::new(client), Epoch::new(epoch));
        Command::Detach(Detach {
            name: path(v),
            client,
            epoch,
            force,
        })
    };
    let confirm_removal = |(server, volume): (u32, u64)| {
        let (chunkserver, volumes) = (ChunkserverId::new(server), vec![VolumeId::new(volume)]);
        Command::ConfirmRemoval(ConfirmRemoval {
            chunkserver,
            volumes,
        })
    };
    let small = |of: u32| 0..of;
    let kind = prop::sample::select(vec![
        JobKind::Recover,
        JobKind::Drain,
        JobKind::Balance,
        JobKind::Lead,
    ]);
    let ending = prop::sample::select(vec![Ending::InPlace, Ending::NotNeeded, Ending::TimedOut]);
    let mark = prop::sample::select(vec![None, Some(Mark::Draining), Some(Mark::Lost)]);
    prop_oneof![
        3 => (kind, 0u64..5, 0u64..4).prop_map(|(kind, r, epoch)| add_job(kind, r, epoch)),
        3 => (0u64..6, small(3), 0u64..4, 0u8..6).prop_map(|(j, a, e, s)| start_job(j, a, e, s)),
        1 => prop::collection::vec((0u64..6, small(3), 0u64..4, 0u8..6), 0..4).prop_map(start_jobs),
        2 => (0u64..6, small(3), ending)
            .prop_map(|(j, a, ending)| Command::end(JobId::new(j), a, ending, 5)),
        2 => prop::collection::vec(0u64..12, 0..3).prop_map(|ids| confirm(&ids, &ids)),
        1 => (0u8..6, mark).prop_map(|(server, mark)| Command::MarkStores(MarkStores {
            stores: vec![store(server)], mark, at_ms: 1,
        })),
        1 => (0u8..6, 0u64..9).prop_map(|(server, since)| Command::NoteStores(NoteStores {
            away: vec![(store(server), since)], back: vec![store(server / 2)],
            ailing: vec![(CopysetId::new(1), ReplicaId::new(since), since)], well: vec![ReplicaId::new(since / 2)],
        })),
        1 => small(7).prop_map(|server| Command::RemoveChunkserver {
            chunkserver: ChunkserverId::new(server),
        }),
        1 => (0u8..6).prop_map(register),
        1 => Just(create_pool()),
        2 => (0u32..20, 0usize..8).prop_map(|(existing, count)| create_copysets(existing, count)),
        2 => prop::collection::vec(1u32..30, 0..20).prop_map(form),
        6 => (volume.clone(), 0u64..80).prop_map(|(v, chunks)| create_volume(v, chunks)),
        4 => (volume.clone(), 0u64..200).prop_map(|(v, chunks)| resize(v, chunks)),
        2 => volume.clone().prop_map(|v| Command::RemoveVolume(RemoveVolume { name: path(v) })),
        4 => (volume.clone(), 0u8..3).prop_map(attach),
        3 => (volume, 0u64..8, 0u64..8, prop::bool::weighted(0.3)).prop_map(detach),
        1 => (1u32..5, 1u64..20).prop_map(confirm_removal),
    ]
}

/// Ids that a state holds, by kind.
fn ids(state: &State) -> [BTreeSet<u64>; 4] {
    let replicas = state
        .copysets()
        .values()
        .flat_map(|c| c.replicas.iter().map(|r| r.id.get()));
    [
        state.volumes().keys().map(|id| id.get()).collect(),
        state
            .copysets()
            .keys()
            .map(|id| u64::from(id.get()))
            .collect(),
        replicas.collect(),
        state
            .chunkservers()
            .keys()
            .map(|id| u64::from(id.get()))
            .collect(),
    ]
}

/// What must hold between the state before and after one command.
fn check_step(before: &State, after: &State, seen: &mut [BTreeSet<u64>; 4]) {
    for (seen, (old, new)) in seen.iter_mut().zip(ids(before).into_iter().zip(ids(after))) {
        for id in new.difference(&old) {
            assert!(seen.insert(*id), "id {id} was issued twice");
        }
    }
    for (id, old) in before.volumes() {
        let Some(new) = after.volumes().get(id) else {
            continue;
        };
        assert!(new.epoch >= old.epoch && new.size >= old.size);
        let is_new = |user: &&Attachment| !old.users.contains(user.client);
        if new.users.all().iter().any(|user| is_new(&user)) {
            let joined = matches!(
                (&old.users, &new.users),
                (Users::Readers(_), Users::Readers(_))
            );
            assert!(
                joined || new.epoch > old.epoch,
                "a new user gets a new epoch"
            );
        }
        let mixed = matches!(
            (&old.users, &new.users),
            (Users::Writer(_), Users::Readers(_)) | (Users::Readers(_), Users::Writer(_))
        );
        assert!(
            !mixed,
            "readers and writers make way for each other by detaching only"
        );
        for chunk in (0..old.chunks).map(ChunkIndex::new) {
            assert_eq!(
                old.copyset_of(chunk),
                new.copyset_of(chunk),
                "a chunk moved"
            );
        }
    }
}

/// What must hold in every state.
fn check_state(state: &State) {
    let mut load: BTreeMap<CopysetId, u64> = BTreeMap::new();
    for (id, volume) in state.volumes() {
        assert_eq!(
            state.volume(volume.name.as_str()).map(|(id, _)| id),
            Ok(*id)
        );
        for chunk in (0..volume.chunks).map(ChunkIndex::new) {
            let copyset = volume.copyset_of(chunk).expect("the map is total");
            assert!(state.copysets()[&copyset].formed);
            *load.entry(copyset).or_default() += 1;
        }
    }
    for (id, copyset) in state.copysets() {
        assert_eq!(
            copyset.chunks,
            load.get(id).copied().unwrap_or(0),
            "load of {id}"
        );
        for replica in &copyset.replicas {
            assert!(
                state
                    .hosted(replica.chunkserver)
                    .any(|hosted| hosted == *id)
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_sequence_keeps_the_invariants(commands in prop::collection::vec(any_command(), 1..60)) {
        let mut state = ready(10);
        let mut seen = ids(&state);
        let mut clients = BTreeSet::new();
        for command in &commands {
            let before = state.clone();
            match state.apply(command) {
                Err(_) => prop_assert_eq!(&state, &before, "a refusal changes nothing"),
                Ok(Reply::Attached { client, .. }) => prop_assert!(clients.insert(client)),
                Ok(_) => {}
            }
            check_step(&before, &state, &mut seen);
            check_state(&state);
        }
        let mut replayed = ready(10);
        let again: Vec<_> = commands.iter().map(|c| replayed.apply(c)).collect();
        prop_assert_eq!(&replayed, &state, "replay gives the same state");
        let mut third = ready(10);
        let outcomes: Vec<_> = commands.iter().map(|c| third.apply(c)).collect();
        prop_assert_eq!(again, outcomes, "and the same replies");
    }
}
