//! Commands to the metadata, in a small world of names and ids.
//!
//! After each: a refusal has changed nothing; no id was issued twice; epochs grow; a chunk stays in
//! its copyset; the indexes and counts agree with what they are derived from. At the end the state
//! survives a snapshot.

use crate::script::Script;
use ogee_control::fuzzing;
use ogee_control::state::{
    AddJobs, Asked, Attach, BeginMaintenance, Bound, Cause, Command, ConfirmChanges,
    ConfirmRemoval, ConfirmReplicas, CreateCopysets, CreateDirectory, CreatePool, CreateVolume,
    Detach, EndMaintenance, Ending, InitCluster, JobKind, Labels, Mark, MarkStores, NewJob,
    NoteSick, NoteStores, Once, QuotaOf, RegisterChunkserver, RemoveDirectory, RemoveVolume,
    Rename, ReplaceReplica, Reply, ResetCopyset, ResizeVolume, SetPool, SetQuota, SetVolume,
    SickStage, StartJob, StartJobs, State, StoreSpec, Stripe,
};
use ogee_proto::id::{
    ChunkIndex, ChunkserverId, ClientId, CopysetId, Epoch, JobId, PoolId, ReplicaId, StoreId,
    VolumeId,
};
use ogee_proto::name::{Name, PathName};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

const COMMANDS_MAX: usize = 64;
/// Chunks of a volume whose places are followed.
const CHUNKS_SEEN: u32 = 64;
/// Inputs that begin with this or more have directories, owners and requests with an id, too.
const WITH_NAMES: u8 = 252;

/// One input.
pub fn run(input: &[u8]) {
    let mut script = Script::new(input);
    let kind = script.byte();
    let mut world = World::new(kind & 1 == 1);
    for _ in 0..COMMANDS_MAX {
        if script.is_over() {
            break;
        }
        let command = match kind {
            WITH_NAMES.. => among_names(&mut script),
            _ => command(&mut script),
        };
        world.apply(&command);
    }
    fuzzing::snapshot_survives(&world.state);
}

#[derive(Default)]
struct World {
    state: State,
    issued: BTreeSet<(&'static str, u64)>,
    epochs: BTreeMap<VolumeId, Epoch>,
    places: BTreeMap<(VolumeId, u32), CopysetId>,
}

impl World {
    /// With servers, a pool and copysets that have a leader, or empty.
    fn new(is_ready: bool) -> Self {
        let mut world = Self::default();
        if is_ready {
            for number in 0..4 {
                world.apply(&register(number, number, 2));
            }
            let pool = Command::CreatePool(CreatePool {
                class: None,
                name: name(0),
                replicas: 3,
                scatter_width: 0,
            });
            world.apply(&pool);
            let placements = (0..4).map(|at| (at..at + 3).map(|n| store(n % 4, 0)).collect());
            let copysets = CreateCopysets {
                pool: PoolId::new(1),
                existing: 0,
                placements: placements.collect(),
            };
            world.apply(&Command::CreateCopysets(copysets));
            let formed = (1..=4).map(CopysetId::new).collect();
            let created = Vec::new();
            world.apply(&Command::ConfirmReplicas(ConfirmReplicas {
                created,
                formed,
            }));
        }
        world
    }

    fn apply(&mut self, command: &Command) {
        let before = self.state.clone();
        let outcome = self.state.apply(command);
        // Nothing but that the request is remembered.
        let is_same = self.state.clone().without_requests() == before.clone().without_requests();
        match outcome {
            Err(refusal) => {
                assert!(!refusal.to_string().is_empty());
                assert!(is_same, "{command:?} was refused and changed something");
                let is_once = matches!(command, Command::Once(_));
                assert!(is_once || self.state == before, "{command:?} is remembered");
            }
            // The answer of before.
            Ok(_) if is_same && matches!(command, Command::Once(_)) => {}
            Ok(reply) => self.note(command, &before, &reply),
        }
        self.check();
    }

    /// What was issued is new.
    fn note(&mut self, command: &Command, before: &State, reply: &Reply) {
        let mut issue = |of, id| assert!(self.issued.insert((of, id)), "{of} {id} again");
        match reply {
            Reply::Volume(id, _) if !before.volumes().contains_key(id) => issue("volume", id.get()),
            Reply::Chunkserver(id) if !before.chunkservers().contains_key(id) => {
                issue("chunkserver", id.get().into());
            }
            Reply::Pool(id) if !before.pools().contains_key(id) => issue("pool", id.get().into()),
            Reply::Copysets(ids) => ids.iter().for_each(|id| issue("copyset", id.get().into())),
            Reply::Attached { client, .. } => issue("client", client.get()),
            Reply::Jobs(ids) => ids.iter().for_each(|id| issue("job", id.get())),
            _ => {}
        }
        let known: BTreeSet<ReplicaId> = replicas(before);
        for replica in replicas(&self.state).difference(&known) {
            let is_new = self.issued.insert(("replica", replica.get()));
            assert!(is_new, "{replica} again, by {command:?}");
        }
    }

    fn check(&mut self) {
        let state = &self.state;
        let mut carried: BTreeMap<CopysetId, u64> = BTreeMap::new();
        let mut names = 0;
        for (id, volume) in state.volumes_after("") {
            names += 1;
            assert_eq!(
                state.volume(volume.name.as_str()).map(|found| found.0),
                Ok(id)
            );
        }
        assert_eq!(names, state.volumes().len(), "names and volumes");
        let paths = state.directories().map(|(path, _)| path);
        let paths = paths.chain(state.volumes().values().map(|volume| &volume.name));
        for path in paths {
            for above in path.ancestors() {
                assert!(state.directory(above).is_ok(), "{path} is in no directory");
            }
        }
        let mut counts_all = true;
        for (id, volume) in state.volumes() {
            let epoch = self.epochs.entry(*id).or_default();
            assert!(volume.epoch >= *epoch, "the epoch of {id} went back");
            *epoch = volume.epoch;
            counts_all &= volume.chunks <= CHUNKS_SEEN;
            for chunk in 0..volume.chunks.min(CHUNKS_SEEN) {
                let copyset = volume.copyset_of(ChunkIndex::new(chunk));
                let copyset = copyset.unwrap_or_else(|| panic!("chunk {chunk} of {id} is nowhere"));
                *carried.entry(copyset).or_default() += 1;
                let place = self.places.entry((*id, chunk)).or_insert(copyset);
                assert_eq!(*place, copyset, "chunk {chunk} of {id} moved");
            }
            assert_eq!(volume.copyset_of(ChunkIndex::new(volume.chunks)), None);
        }
        for (id, copyset) in state.copysets() {
            let chunks = carried.get(id).copied().unwrap_or(0);
            assert!(!counts_all || copyset.chunks == chunks, "chunks of {id}");
            for replica in copyset.placed() {
                let mut hosted = state.hosted(replica.chunkserver);
                assert!(
                    hosted.any(|hosted| hosted == *id),
                    "{id} is hosted by {replica:?}"
                );
            }
            let ids: BTreeSet<ReplicaId> = copyset.placed().map(|replica| replica.id).collect();
            assert_eq!(ids.len(), copyset.placed().count(), "replicas of {id}");
            let change = copyset.change.as_ref();
            let is_more =
                change.is_some_and(|it| copyset.vacant.iter().any(|r| r.id == it.replaces));
            let voters = copyset.replicas.len() + usize::from(is_more);
            assert_eq!(copyset.wanted_voters().len(), voters, "voters of {id}");
            let pool = &state.pools()[&copyset.pool];
            let places = copyset.replicas.len() + copyset.vacant.len();
            assert_eq!(places, usize::from(pool.replicas), "places of {id}");
        }
        let mut busy = BTreeSet::new();
        for (id, job) in state.jobs().iter().filter(|(_, job)| job.state.is_live()) {
            assert!(busy.insert(job.copyset), "{id} beside another job");
        }
        for server in state.chunkservers().keys() {
            for id in state.hosted(*server) {
                let copyset = &state.copysets()[&id];
                let is_there = copyset
                    .placed()
                    .any(|replica| replica.chunkserver == *server);
                assert!(is_there, "{server} is said to host {id}");
            }
        }
    }
}

fn replicas(state: &State) -> BTreeSet<ReplicaId> {
    let copysets = state.copysets().values();
    copysets
        .flat_map(|copyset| copyset.placed().map(|replica| replica.id))
        .collect()
}

fn name(number: u8) -> Name {
    format!("n{number}").parse().expect("a name")
}

fn store(server: u8, number: u8) -> StoreId {
    let mut bytes = [0x11; 16];
    (bytes[0], bytes[1]) = (server, number);
    StoreId::from_bytes(bytes)
}

fn register(server: u8, zone: u8, stores: u8) -> Command {
    let spec = |number| StoreSpec {
        class: None,
        id: store(server, number),
        shard: 0,
        path: "/dev/one".into(),
        capacity: 1 << 40,
        log_capacity: 1 << 30,
    };
    Command::RegisterChunkserver(RegisterChunkserver {
        name: name(server),
        zone: name(zone),
        server: name(server),
        endpoints: vec!["10.0.0.1:7000".into()],
        stores: (0..stores).map(spec).collect(),
        version: "1".into(),
    })
}

/// A number that is mostly small.
fn small(script: &mut Script<'_>) -> u32 {
    match script.byte() {
        255 => script.u32(),
        byte => u32::from(byte) % 9,
    }
}

fn size(script: &mut Script<'_>) -> u64 {
    match script.below(4) {
        0 => script.u64(),
        1 => u64::from(script.byte()) << 36,
        _ => u64::from(script.u16() % 1000) << 20,
    }
}

fn command(script: &mut Script<'_>) -> Command {
    match script.below(16) {
        0 => Command::InitCluster(InitCluster {
            id: Uuid::from_bytes([script.byte(); 16]),
            name: name(script.byte()),
        }),
        1 => register(script.byte() % 6, script.byte() % 6, script.byte() % 4),
        2 => Command::CreatePool(CreatePool {
            class: None,
            name: name(script.byte() % 3),
            replicas: script.byte() % 6,
            scatter_width: u32::from(script.byte() % 3),
        }),
        3 => Command::CreateCopysets(copysets(script)),
        4 => Command::ConfirmReplicas(ConfirmReplicas {
            created: pairs(script),
            formed: pairs(script).into_iter().map(|pair| pair.0).collect(),
        }),
        5 | 6 => Command::CreateVolume(volume(script)),
        7 => Command::ResizeVolume(ResizeVolume {
            name: name(script.byte() % 4).into(),
            size: size(script),
        }),
        8 => Command::RemoveVolume(RemoveVolume {
            name: name(script.byte() % 4).into(),
        }),
        9 => Command::Attach(Attach {
            name: name(script.byte() % 4).into(),
            host: "host".repeat(script.below(80)),
            read_only: script.flag(),
        }),
        10 => Command::Detach(Detach {
            name: name(script.byte() % 4).into(),
            client: ClientId::new(small(script).into()),
            epoch: Epoch::new(small(script).into()),
            force: script.flag(),
        }),
        11 => Command::ConfirmRemoval(ConfirmRemoval {
            chunkserver: ChunkserverId::new(small(script)),
            volumes: (0..script.below(4))
                .map(|_| VolumeId::new(small(script).into()))
                .collect(),
        }),
        12 | 13 => Command::ReplaceReplica(ReplaceReplica {
            copyset: CopysetId::new(small(script)),
            replica: ReplicaId::new(u64::from(script.byte() % 24)),
            store: store(script.byte() % 6, script.byte() % 4),
        }),
        14 => job_command(script),
        _ => Command::ConfirmChanges(ConfirmChanges {
            changed: pairs(script),
            removed: pairs(script),
            at_ms: script.u16().into(),
        }),
    }
}

fn job_command(script: &mut Script<'_>) -> Command {
    let job = JobId::new(small(script).into());
    match script.below(14) {
        13 => Command::SetPool(SetPool {
            name: name(script.byte() % 3),
            allows_volumes: script.flag().then(|| script.flag()),
            quota: script.flag().then(|| size(script)),
            weight: script.flag().then(|| script.u32()),
            scatter_width: script.flag().then(|| script.u32()),
        }),
        12 => Command::ResetCopyset(ResetCopyset {
            copyset: CopysetId::new(small(script)),
            survivor: ReplicaId::new(u64::from(script.byte() % 24)),
            conf_epoch: u64::from(script.byte() % 4),
            at_ms: script.u64(),
        }),
        10 => Command::BeginMaintenance(BeginMaintenance {
            chunkserver: ChunkserverId::new(small(script)),
            for_ms: u64::from(script.u16()) * 100,
            at_ms: script.u16().into(),
        }),
        11 => Command::EndMaintenance(EndMaintenance {
            chunkserver: ChunkserverId::new(small(script)),
            over_by_ms: script.u16().into(),
        }),
        0 => Command::MarkStores(MarkStores {
            stores: vec![store(script.byte() % 6, script.byte() % 4)],
            mark: [None, Some(Mark::Draining), Some(Mark::Lost)][script.below(3)],
            at_ms: script.u64(),
        }),
        1 => Command::NoteStores(NoteStores {
            away: vec![(store(script.byte() % 6, 0), script.u64())],
            back: vec![store(script.byte() % 6, 0)],
            ailing: pairs(script)
                .into_iter()
                .map(|(copyset, replica)| (copyset, replica, script.u64()))
                .collect(),
            well: pairs(script).into_iter().map(|pair| pair.1).collect(),
        }),
        2 => Command::AddJobs(AddJobs {
            jobs: (0..script.below(4)).map(|_| new_job(script)).collect(),
            at_ms: script.u64(),
        }),
        3 => Command::StartJob(start(job, script)),
        4 => {
            let endings = [Ending::InPlace, Ending::ByOperator, Ending::TimedOut];
            Command::end(job, small(script), endings[script.below(3)], script.u64())
        }
        5 => Command::RemoveChunkserver {
            chunkserver: ChunkserverId::new(small(script)),
        },
        6 => Command::StartJobs(StartJobs {
            jobs: vec![start(job, script), start(job, script)],
        }),
        7 => Command::NoteSick(NoteSick {
            sick: vec![(
                store(script.byte() % 6, script.byte() % 4),
                [SickStage::Limping, SickStage::Ejected][script.below(2)],
            )],
            well: vec![store(script.byte() % 6, script.byte() % 4)],
            at_ms: script.u64(),
        }),
        8 => Command::ReinstateStores {
            stores: vec![store(script.byte() % 6, script.byte() % 4)],
        },
        _ => Command::ReplaceStore {
            old: store(script.byte() % 6, script.byte() % 4),
            new: store(script.byte() % 6, script.byte() % 4),
        },
    }
}

fn start(job: JobId, script: &mut Script<'_>) -> StartJob {
    StartJob {
        job,
        attempt: small(script),
        conf_epoch: small(script).into(),
        store: store(script.byte() % 6, script.byte() % 4),
        at_ms: script.u64(),
    }
}

fn new_job(script: &mut Script<'_>) -> NewJob {
    NewJob {
        kind: [
            JobKind::Recover,
            JobKind::Drain,
            JobKind::Lead,
            JobKind::Balance,
        ][script.below(4)],
        cause: [Cause::Lost, Cause::Away, Cause::Draining, Cause::Asked][script.below(4)],
        copyset: CopysetId::new(small(script)),
        conf_epoch: small(script).into(),
        replica: ReplicaId::new(u64::from(script.byte() % 24)),
        priority: script.byte(),
        bytes: script.u64(),
        to: script
            .flag()
            .then(|| store(script.byte() % 6, script.byte() % 4)),
    }
}

fn pairs(script: &mut Script<'_>) -> Vec<(CopysetId, ReplicaId)> {
    let pair = |script: &mut Script<'_>| {
        let copyset = CopysetId::new(small(script));
        (copyset, ReplicaId::new(u64::from(script.byte() % 24)))
    };
    (0..script.below(4)).map(|_| pair(script)).collect()
}

fn copysets(script: &mut Script<'_>) -> CreateCopysets {
    let place = |script: &mut Script<'_>| store(script.byte() % 6, script.byte() % 4);
    let placement = |script: &mut Script<'_>| (0..script.below(6)).map(|_| place(script)).collect();
    CreateCopysets {
        pool: PoolId::new(small(script)),
        existing: small(script),
        placements: (0..script.below(5)).map(|_| placement(script)).collect(),
    }
}

/// At the top, or in one of a few directories.
fn path(script: &mut Script<'_>) -> PathName {
    let (at, own) = (script.byte() % 8, script.byte() % 4);
    let text = match at {
        0..4 => format!("n{own}"),
        4 | 5 => format!("n{}/n{own}", at % 4),
        _ => format!("n0/n{}/n{own}", at % 4),
    };
    PathName::new(&text).expect("invariant: made of names")
}

fn owner(script: &mut Script<'_>) -> String {
    ["", "a", "b"][script.below(3)].to_owned()
}

fn labels(script: &mut Script<'_>) -> Labels {
    let count = script.below(20);
    let label = |_| (name(script.byte() % 40), "value".to_owned());
    (0..count).map(label).collect()
}

fn rename(script: &mut Script<'_>) -> Rename {
    Rename {
        from: path(script),
        to: path(script),
    }
}

fn bound(script: &mut Script<'_>) -> Bound {
    match script.below(3) {
        0 => Bound::Keep,
        1 => Bound::Lift,
        _ => Bound::At(script.u32().into()),
    }
}

/// One of those, or of the others; some with an id, of which there are few: they are repeated, and reused.
fn among_names(script: &mut Script<'_>) -> Command {
    let (id, is_named) = (script.byte(), script.flag());
    let command = match is_named {
        true => name_command(script),
        false => command(script),
    };
    if id >= 8 {
        return command;
    }
    let what = command.kind().to_owned();
    Command::Once(Once {
        id: Uuid::from_bytes([id + 1; 16]),
        asked: Asked { what, sum: 0 },
        at_ms: script.u64(),
        command: Box::new(command),
    })
}

fn name_command(script: &mut Script<'_>) -> Command {
    match script.below(12) {
        7 | 8 => {
            let mut command = volume(script);
            (command.name, command.owner) = (path(script), owner(script));
            command.labels = labels(script);
            Command::CreateVolume(command)
        }
        9 => Command::Attach(Attach {
            name: path(script),
            host: "host".into(),
            read_only: script.flag(),
        }),
        10 => Command::Detach(Detach {
            name: path(script),
            client: ClientId::new(small(script).into()),
            epoch: Epoch::new(small(script).into()),
            force: script.flag(),
        }),
        11 => Command::RemoveVolume(RemoveVolume { name: path(script) }),
        0 => Command::RenameVolume(rename(script)),
        1 => Command::RenameDirectory(rename(script)),
        2 => Command::RemoveDirectory(RemoveDirectory { path: path(script) }),
        3 => Command::SetVolume(SetVolume {
            name: path(script),
            owner: script.flag().then(|| owner(script)),
            labels: labels(script),
            unlabel: labels(script).into_keys().collect(),
        }),
        4 => Command::SetQuota(SetQuota {
            of: match script.flag() {
                true => QuotaOf::Owner(owner(script)),
                false => QuotaOf::Directory(path(script)),
            },
            bytes: bound(script),
            volumes: bound(script),
        }),
        _ => Command::CreateDirectory(CreateDirectory {
            path: path(script),
            parents: script.flag(),
            created_unix_ms: script.u16().into(),
        }),
    }
}

fn volume(script: &mut Script<'_>) -> CreateVolume {
    let stripes = [(16 << 20, 1), (4096, 1), (64 << 10, 8), (1 << 20, 256)];
    let (unit, count) = stripes[script.below(4)];
    CreateVolume {
        name: name(script.byte() % 4).into(),
        pool: name(script.byte() % 3),
        size: size(script),
        stripe: Stripe { unit, count },
        replicas: u32::from(script.byte() % 5),
        owner: "owner".into(),
        labels: Labels::new(),
        created_unix_ms: script.u64(),
    }
}
