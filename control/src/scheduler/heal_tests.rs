//! Healing and balancing in worlds drawn at random: the planner and the state machine as they are,
//! around them devices that go and come, replicas that are made and copied in any order, and a
//! metadata server whose plans come twice.

use std::collections::{BTreeMap, BTreeSet};

use ogee_proto::id::{ChunkserverId, CopysetId, PoolId, ReplicaId, StoreId};
use ogee_proto::name::Name;
use proptest::prelude::*;

use super::picture::{Ailment, AilmentKind};
use super::{Handover, HealRules, Picture, Presence, balance, plan, spread, wish};
use crate::limit::LEAD_TIMEOUT_MS;
use crate::state::{
    AddJobs, BeginMaintenance, Cause, Command, ConfirmChanges, ConfirmReplicas, Copyset,
    CreateCopysets, CreatePool, Ending, JobKind, JobState, Mark, MarkStores, PauseJobs, Refusal,
    RegisterChunkserver, ResetCopyset, ResumeJobs, StartJob, State, StoreSpec,
};

const RECOVER_MS: u64 = 10_000;
pub(super) const GIB: u64 = 1 << 30;

pub(super) fn rules() -> HealRules {
    HealRules {
        recover_after_ms: RECOVER_MS,
        moves_max: 3,
        moves_per_server_max: 2,
        moves_per_zone_max: 2,
        moves_per_pool_max: 3,
        moves_per_device_max: 1,
        move_timeout_ms: 100_000_000,
        balance_after_ms: 1000,
        sick: super::SickRules::default(),
        spread_after_ms: 1000,
        spread_percent: 5,
        lead_percent: 20,
        nearly_full_percent: 85,
    }
}

pub(super) fn store(server: u32) -> StoreId {
    StoreId::from_bytes([u8::try_from(server).expect("few"); 16])
}

pub(super) fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

/// One store to a chunkserver; `zones[n]` is where chunkserver `n + 1` stands.
pub(super) struct World {
    pub(super) state: State,
    pub(super) away: BTreeSet<StoreId>,
    pub(super) ill: BTreeMap<ReplicaId, AilmentKind>,
    pub(super) leaders: BTreeMap<CopysetId, ReplicaId>,
    pub(super) now_ms: u64,
    /// Replicas that exist; those that joined are whole when they are made.
    made: BTreeSet<ReplicaId>,
    pub(super) used: u64,
    /// Bytes of each copyset's data, where a test cares; then what devices hold follows from it.
    pub(super) held: BTreeMap<CopysetId, u64>,
}

pub(super) fn register(state: &mut State, server: u32, zone: u8, capacity: u64) {
    register_class(state, server, zone, capacity, None);
}

fn register_class(
    state: &mut State,
    server: u32,
    zone: u8,
    capacity: u64,
    class: Option<ogee_proto::media::MediaClass>,
) {
    let spec = StoreSpec {
        class,
        id: store(server),
        shard: 0,
        path: "/dev/disk".into(),
        capacity,
        log_capacity: GIB,
    };
    let register = RegisterChunkserver {
        name: name(&format!("cs{server}")),
        zone: name(&format!("z{zone}")),
        server: name(&format!("h{server}")),
        endpoints: vec!["127.0.0.1:1".into()],
        stores: vec![spec],
        version: "1".into(),
    };
    state
        .apply(&Command::RegisterChunkserver(register))
        .expect("registered");
}

impl World {
    pub(super) fn new(zones: &[u8], copysets: usize) -> Self {
        let mut state = State::default();
        let mut by_zone: BTreeMap<u8, Vec<u32>> = BTreeMap::new();
        for (server, zone) in (1u32..).zip(zones) {
            by_zone.entry(*zone).or_default().push(server);
            register(&mut state, server, *zone, 100 * GIB);
        }
        let pool = CreatePool {
            class: None,
            name: name("p"),
            replicas: 3,
            scatter_width: 0,
        };
        state.apply(&Command::CreatePool(pool)).expect("pool");
        let zones: Vec<&Vec<u32>> = by_zone.values().collect();
        let placement = |at: usize| {
            let turn = |z: usize| zones[(at + z) % zones.len()];
            (0..3).map(|z| store(turn(z)[at % turn(z).len()])).collect()
        };
        let create = CreateCopysets {
            pool: PoolId::new(1),
            existing: 0,
            placements: (0..copysets).map(placement).collect(),
        };
        state
            .apply(&Command::CreateCopysets(create))
            .expect("copysets");
        let formed = ConfirmReplicas {
            created: Vec::new(),
            formed: state.copysets().keys().copied().collect(),
        };
        state
            .apply(&Command::ConfirmReplicas(formed))
            .expect("formed");
        let replicas = state.copysets().values().flat_map(|c| c.replicas.iter());
        let made = replicas.map(|r| r.id).collect();
        let leaders = state.copysets().iter();
        let leaders = leaders.map(|(id, c)| (*id, c.replicas[0].id)).collect();
        Self {
            state,
            away: BTreeSet::new(),
            ill: BTreeMap::new(),
            leaders,
            now_ms: 1_000_000,
            made,
            used: GIB,
            held: BTreeMap::new(),
        }
    }

    pub(super) fn picture(&self) -> Picture {
        let mut picture = Picture {
            now_ms: self.now_ms,
            held: self.held.clone(),
            ..Picture::default()
        };
        for (id, stored) in self.state.stores() {
            let since_ms = self.state.away_since(*id).unwrap_or(self.now_ms);
            let presence = if self.away.contains(id) {
                Presence::Away { since_ms }
            } else {
                Presence::Up
            };
            let place = super::picture::Place {
                chunkserver: stored.chunkserver,
                presence,
                mark: self.state.mark(*id),
                sick: self.state.sick(*id),
                maintenance_until_ms: self
                    .state
                    .maintenance(stored.chunkserver, self.now_ms)
                    .map(|it| it.until_ms),
                is_worn: false,
                verdict: crate::liveness::Verdict::default(),
                capacity: stored.capacity,
                used: self.used_of(*id),
            };
            picture.places.insert(*id, place);
        }
        for (id, copyset) in self.state.copysets() {
            for replica in copyset.members() {
                let is_there =
                    self.made.contains(&replica.id) && !self.away.contains(&replica.store);
                match self.ill.get(&replica.id).filter(|_| is_there) {
                    Some(kind) => self.show_ill(&mut picture, *id, replica.id, *kind),
                    None if is_there => {
                        picture.known.insert(replica.id);
                        picture.serving.insert(replica.id);
                    }
                    None => {}
                }
            }
            let leader = self
                .leaders
                .get(id)
                .filter(|id| picture.serving.contains(id));
            picture.leaders.extend(leader.map(|leader| (*id, *leader)));
        }
        picture
    }

    /// Bytes that a device holds.
    pub(super) fn used_of(&self, store: StoreId) -> u64 {
        if self.held.is_empty() {
            return self.used;
        }
        let copysets = self.state.copysets().iter();
        let here = copysets.flat_map(|(id, c)| c.members().map(move |r| (id, r)));
        let here = here.filter(|(_, r)| r.store == store && self.made.contains(&r.id));
        here.map(|(id, _)| self.held.get(id).copied().unwrap_or(0))
            .sum()
    }

    fn show_ill(
        &self,
        picture: &mut Picture,
        copyset: CopysetId,
        id: ReplicaId,
        kind: AilmentKind,
    ) {
        if kind != AilmentKind::Missing {
            picture.known.insert(id);
        }
        let since_ms = self.state.ailing_since(id).unwrap_or(self.now_ms);
        let copysets = self.state.copysets().values();
        let mut replicas = copysets.flat_map(|c| &c.replicas);
        let ailment = Ailment {
            copyset,
            store: replicas
                .find(|r| r.id == id)
                .map_or_else(StoreId::default, |r| r.store),
            kind,
            since_ms,
        };
        picture.ailing.insert(id, ailment);
    }

    /// Plans to even out devices, and has it written down.
    pub(super) fn spread(&mut self, rules: &HealRules, cause: Cause, limit: usize) -> usize {
        let jobs = spread(&self.state, &self.picture(), rules, cause, limit);
        let count = jobs.len();
        for part in jobs.chunks(crate::limit::JOBS_PER_COMMAND_MAX) {
            let add = AddJobs {
                jobs: part.to_vec(),
                at_ms: self.now_ms,
            };
            let reply = self.state.apply(&Command::AddJobs(add)).expect("few");
            let crate::state::Reply::Jobs(made) = reply else {
                panic!("{reply:?}");
            };
            assert_eq!(made.len(), part.len(), "each fits");
        }
        count
    }

    /// Replicas by chunkserver.
    pub(super) fn carried(&self) -> BTreeMap<u32, usize> {
        let servers = self.state.chunkservers().keys();
        let mut carried: BTreeMap<u32, usize> = servers.map(|id| (id.get(), 0)).collect();
        for replica in self.state.copysets().values().flat_map(|c| &c.replicas) {
            *carried.entry(replica.chunkserver.get()).or_default() += 1;
        }
        carried
    }

    /// One look: every command is applied, and comes a second time, as from a leader that does not
    /// know yet that it is none.
    pub(super) fn look(&mut self) -> usize {
        self.elect();
        let picture = self.picture();
        let commands = plan(&self.state, &picture, &rules());
        let before = self.moves();
        for command in &commands {
            self.check_plan(&picture, command);
            let before = self.state.clone();
            self.state
                .apply(command)
                .unwrap_or_else(|e| panic!("{command:?}: {e}"));
            let once = self.state.clone();
            match self.state.apply(command) {
                Err(Refusal::StaleJob { .. }) | Ok(_) => {}
                Err(other) => panic!("{command:?} again: {other}"),
            }
            assert_eq!(
                self.state, once,
                "{command:?} did something twice, from {before:?}"
            );
        }
        self.check();
        // Those that waited for a majority or a target may go on meanwhile: then none begins.
        let (total, devices, zones) = self.moves();
        assert!(
            total <= before.0.max(rules().moves_max),
            "{total} moves at once"
        );
        for (device, count) in devices {
            let had = before.1.get(&device).copied().unwrap_or(0);
            let most = had.max(rules().moves_per_device_max);
            assert!(count <= most, "{count} moves at {device}");
        }
        for (zone, count) in zones {
            let had = before.2.get(&zone).copied().unwrap_or(0);
            let most = had.max(rules().moves_per_zone_max);
            assert!(count <= most, "{count} moves to {zone}");
        }
        commands.len()
    }

    /// Moves that go on, in all, and by the device and the zone that they go to.
    fn moves(&self) -> (usize, BTreeMap<StoreId, usize>, BTreeMap<Name, usize>) {
        let picture = self.picture();
        let mut devices: BTreeMap<StoreId, usize> = BTreeMap::new();
        let mut zones: BTreeMap<Name, usize> = BTreeMap::new();
        for copyset in self
            .state
            .copysets()
            .values()
            .filter(|c| picture.has_quorum(c))
        {
            let to = copyset.change.as_ref().map(|change| &change.joining);
            if let Some(to) = to.filter(|to| !self.away.contains(&to.store)) {
                *devices.entry(to.store).or_default() += 1;
                let zone = self.state.zone_of(to.chunkserver).expect("a zone").clone();
                *zones.entry(zone).or_default() += 1;
            }
        }
        (devices.values().sum(), devices, zones)
    }

    /// A majority elects somebody, and a transfer is carried out.
    fn elect(&mut self) {
        let picture = self.picture();
        for (id, copyset) in self.state.copysets() {
            let led = self.leaders.get(id);
            let leads = led.is_some_and(|l| {
                copyset.members().any(|r| r.id == *l) && picture.serving.contains(l)
            });
            let mut serving = copyset
                .replicas
                .iter()
                .filter(|r| picture.serving.contains(&r.id));
            if !leads && picture.has_quorum(copyset) {
                let next = serving.next().expect("a majority serves");
                self.leaders.insert(*id, next.id);
            }
        }
    }

    pub(super) fn transfer(&mut self) {
        let picture = self.picture();
        for job in self.state.jobs().values() {
            if job.kind == JobKind::Lead
                && job.state.is_live()
                && picture.serving.contains(&job.replica)
            {
                self.leaders.insert(job.copyset, job.replica);
            }
        }
    }

    /// The data plane does its part in one of the changes: makes the replica, then promotes it.
    pub(super) fn step(&mut self, pick: usize) {
        let picture = self.picture();
        let changing: Vec<(CopysetId, Copyset)> = self
            .state
            .copysets()
            .iter()
            .filter(|(_, c)| c.change.is_some())
            .map(|(id, c)| (*id, c.clone()))
            .collect();
        let Some((id, copyset)) = changing.get(pick % changing.len().max(1)) else {
            return;
        };
        let change = copyset.change.as_ref().expect("it changes");
        if self.away.contains(&change.joining.store) {
            return;
        }
        if !change.joining.created {
            self.made.insert(change.joining.id);
            let made = ConfirmReplicas {
                created: vec![(*id, change.joining.id)],
                formed: Vec::new(),
            };
            self.state
                .apply(&Command::ConfirmReplicas(made))
                .expect("noted");
        } else if picture.has_quorum(copyset) {
            let changed = ConfirmChanges {
                changed: vec![(*id, change.joining.id)],
                removed: Vec::new(),
                at_ms: self.now_ms,
            };
            self.state
                .apply(&Command::ConfirmChanges(changed))
                .expect("noted");
        }
        self.ill.retain(|replica, _| {
            let copysets = self.state.copysets().values();
            copysets.flat_map(|c| &c.replicas).any(|r| r.id == *replica)
        });
        // What was left behind on devices that are there is deleted.
        let copyset = &self.state.copysets()[id];
        let gone = copyset
            .leaving
            .iter()
            .filter(|r| !self.away.contains(&r.store));
        let removed: Vec<(CopysetId, ReplicaId)> = gone.map(|r| (*id, r.id)).collect();
        for (_, replica) in &removed {
            self.made.remove(replica);
        }
        let removed = ConfirmChanges {
            changed: Vec::new(),
            removed,
            at_ms: self.now_ms,
        };
        self.state
            .apply(&Command::ConfirmChanges(removed))
            .expect("noted");
    }

    fn check_plan(&self, picture: &Picture, command: &Command) {
        let Command::StartJobs(starts) = command else {
            return;
        };
        for start in &starts.jobs {
            self.check_start(picture, start);
        }
    }

    fn check_start(&self, picture: &Picture, start: &StartJob) {
        let job = &self.state.jobs()[&start.job];
        let copyset = &self.state.copysets()[&job.copyset];
        assert!(picture.has_quorum(copyset), "planned below a quorum");
        if job.kind == JobKind::Balance && job.state == JobState::Pending {
            let whole = |c: &Copyset| picture.serving_of(c) == c.replicas.len();
            assert!(
                self.state.copysets().values().all(whole),
                "evened out beside a degraded copyset"
            );
            assert!(
                picture.leaders.get(&job.copyset) != Some(&job.replica),
                "a leader moves"
            );
        }
        let replaced = copyset.place(job.replica).expect("it is known");
        let is_lost = picture.places[&replaced.store].mark == Some(Mark::Lost);
        let is_vacant = copyset.vacant.contains(replaced);
        let others = copyset.replicas.iter().filter(|r| r.id != job.replica);
        let serve = others.filter(|r| picture.serving.contains(&r.id)).count();
        // A move that is sent elsewhere cannot be taken back: with the new one it is a majority again, and
        // until then the one that is replaced still votes.
        let least = if job.state == JobState::Pending { 2 } else { 1 };
        let is_whole = copyset.vacant.is_empty();
        assert!(!is_whole || serve >= least, "what stays is a majority");
        let is_enough = serve * 2 > copyset.replicas.len();
        assert!(!is_vacant || is_enough, "what is there is a majority");
        let place = &picture.places[&start.store];
        assert_eq!((place.presence, place.mark), (Presence::Up, None));
        assert!(!self.is_maintained(place.chunkserver), "it may be stopped");
        assert!(
            job.kind != JobKind::Recover
                || job.state == JobState::Running
                || is_lost
                || is_vacant
                || !self.is_maintained(job.from),
            "made anew while it is in maintenance"
        );
        assert!(place.used + job.bytes <= place.capacity);
    }

    fn check(&self) {
        let mut live = BTreeSet::new();
        for job in self.state.jobs().values().filter(|job| job.state.is_live()) {
            assert!(live.insert(job.copyset), "two jobs on {}", job.copyset);
        }
        for (id, copyset) in self.state.copysets() {
            let zone = |server| self.state.zone_of(server).expect("known").clone();
            let zones = copyset.replicas.iter().map(|r| zone(r.chunkserver));
            let zones: BTreeSet<Name> = zones.collect();
            assert_eq!(zones.len(), copyset.replicas.len(), "zones of {id}");
            assert_eq!(
                copyset.replicas.len() + copyset.vacant.len(),
                3,
                "places of {id}"
            );
            if let Some(change) = &copyset.change {
                let stay = copyset.replicas.iter();
                let stay = stay.filter(|r| r.id != change.replaces);
                let mut after: BTreeSet<Name> = stay.map(|r| zone(r.chunkserver)).collect();
                assert!(
                    after.insert(zone(change.joining.chunkserver)),
                    "zones of {id} after"
                );
            }
        }
    }

    pub(super) fn mark(&mut self, server: u32, mark: Option<Mark>) {
        let command = MarkStores {
            stores: vec![store(server)],
            mark,
            at_ms: self.now_ms,
        };
        self.state
            .apply(&Command::MarkStores(command))
            .expect("known");
    }

    fn pause(&mut self) {
        let pause = PauseJobs { at_ms: self.now_ms };
        let paused = self.state.apply(&Command::PauseJobs(pause));
        paused.expect("paused");
    }

    fn resume(&mut self) {
        let resume = ResumeJobs { at_ms: self.now_ms };
        let resumed = self.state.apply(&Command::ResumeJobs(resume));
        resumed.expect("resumed");
    }

    pub(super) fn maintain(&mut self, server: u32, for_ms: u64) -> bool {
        let begin = BeginMaintenance {
            chunkserver: ChunkserverId::new(server),
            for_ms,
            at_ms: self.now_ms,
        };
        self.state.apply(&Command::BeginMaintenance(begin)).is_ok()
    }

    /// A copyset goes on with the first replica that serves, if that may be; whether it does.
    fn reset(&mut self, id: CopysetId) -> bool {
        let picture = self.picture();
        let copyset = self.state.copysets()[&id].clone();
        let mut serving = copyset.replicas.iter();
        let Some(survivor) = serving.find(|r| picture.serving.contains(&r.id)) else {
            return false;
        };
        let before = self.state.clone();
        let command = Command::ResetCopyset(ResetCopyset {
            copyset: id,
            survivor: survivor.id,
            conf_epoch: copyset.conf_epoch,
            at_ms: self.now_ms,
        });
        match self.state.apply(&command) {
            Err(Refusal::MajorityLeft { .. }) => {
                assert_eq!(self.state, before, "a refusal changes nothing");
                return false;
            }
            Err(other) => panic!("{command:?}: {other}"),
            Ok(reply) => assert_eq!(self.state.apply(&command), Ok(reply), "the same again"),
        }
        // What was declared lost counts as that when it is there again: the handler looks whether it is.
        let alone = self.state.copysets()[&id].replicas[0].id;
        assert!(alone > survivor.id, "a new id");
        // The data plane does it.
        self.made.remove(&survivor.id);
        self.made.insert(alone);
        self.leaders.insert(id, alone);
        let created = vec![(id, alone)];
        let formed = Vec::new();
        let confirm = Command::ConfirmReplicas(ConfirmReplicas { created, formed });
        self.state.apply(&confirm).expect("noted");
        assert_eq!(self.state.copysets()[&id].reset, None);
        true
    }

    fn is_maintained(&self, server: ChunkserverId) -> bool {
        self.state.maintenance(server, self.now_ms).is_some()
    }

    /// Looks and lets the data plane work until nothing is planned and nothing runs.
    pub(super) fn settle(&mut self) {
        let mut quiet_ms = 0;
        for round in 0..2000 {
            let planned = self.look();
            self.transfer();
            if planned > 0 || !self.stands() {
                quiet_ms = 0;
            }
            // Who went away last may be acted on only after its time.
            let is_maintained = self.state.maintenance_over(u64::MAX).next().is_some();
            if quiet_ms > 2 * RECOVER_MS && !is_maintained {
                return;
            }
            self.step(round);
            self.now_ms += 1000;
            quiet_ms += 1000;
        }
        panic!("it does not come to an end: {:?}", self.state.jobs());
    }

    /// Whether what is under way waits for devices or for a majority.
    fn stands(&self) -> bool {
        let picture = self.picture();
        let changes = self
            .state
            .copysets()
            .values()
            .filter(|c| c.change.is_some());
        let mut stuck = changes.map(|c| {
            let to = c.change.as_ref().map(|change| change.joining.store);
            !picture.has_quorum(c) || to.is_some_and(|to| self.away.contains(&to))
        });
        stuck.all(|it| it)
    }
}

#[test]
fn what_is_in_maintenance_leads_nothing_and_is_not_made_anew_before_its_time_is_over() {
    let mut world = World::new(&[0, 1, 2, 2], 6);
    let (cs3, hour) = (ChunkserverId::new(3), 100 * RECOVER_MS);
    let led = |world: &World| counts(world).get(&cs3).copied().unwrap_or(0);
    assert!(led(&world) > 0);
    assert!(world.maintain(3, hour));
    world.look();
    world.transfer();
    world.look();
    assert_eq!(led(&world), 0, "leaders are off");
    assert_eq!(
        world.spread(&rules(), Cause::AskedSpread, 8),
        0,
        "nothing goes there"
    );
    world.away.insert(store(3));
    world.look();
    let begun = world.now_ms;
    while world.now_ms + RECOVER_MS < begun + hour {
        world.now_ms += RECOVER_MS;
        world.look();
    }
    let moves = |world: &World| {
        let jobs = world.state.jobs().values();
        jobs.filter(|job| job.kind == JobKind::Recover).count()
    };
    assert_eq!(
        moves(&world),
        0,
        "it has been away for a hundred times as long"
    );
    assert!(world.maintain(3, hour), "again: it ends later");
    world.now_ms += hour - 1;
    world.look();
    assert_eq!(moves(&world), 0);
    world.now_ms += 1;
    world.look();
    assert!(moves(&world) > 0, "its time is over");
    assert_eq!(
        world.state.maintenance_over(u64::MAX).count(),
        0,
        "it is forgotten"
    );
    world.settle();
}

#[test]
fn what_is_declared_lost_in_maintenance_is_made_anew_at_once() {
    let mut world = World::new(&[0, 1, 2, 2], 6);
    assert!(world.maintain(3, RECOVER_MS));
    world.away.insert(store(3));
    world.look();
    world.mark(3, Some(Mark::Lost));
    world.look();
    let jobs = world.state.jobs().values();
    assert!(jobs.filter(|job| job.cause == Cause::Lost).count() > 0);
}

#[test]
fn while_jobs_are_paused_none_begins_and_those_under_way_end() {
    let mut world = World::new(&[0, 1, 2, 0, 1, 2], 12);
    world.away.insert(store(1));
    world.mark(1, Some(Mark::Lost));
    world.look();
    world.look();
    let running = |world: &World| {
        let jobs = world.state.jobs().values();
        jobs.filter(|job| job.state == JobState::Running && job.kind == JobKind::Recover)
            .count()
    };
    let begun = running(&world);
    assert!(begun > 0);
    world.pause();
    // One is drained, another one is to be stopped, drained or not: what that leads goes, and nothing else.
    world.mark(5, Some(Mark::Draining));
    world.mark(6, Some(Mark::Draining));
    assert!(world.maintain(6, RECOVER_MS));
    let plan = plan(&world.state, &world.picture(), &rules());
    let mut leads = 0;
    for command in &plan {
        match command {
            Command::AddJobs(add) => {
                let is_off = |job: &crate::state::NewJob| {
                    job.kind == JobKind::Lead && job.cause == Cause::Maintenance
                };
                assert!(add.jobs.iter().all(is_off), "{add:?}");
                leads += add.jobs.len();
            }
            Command::StartJobs(start) => panic!("{start:?}"),
            _ => {}
        }
    }
    assert!(leads > 0, "somebody waits for these");
    // A plan from before the pause is not carried out either.
    let waiting = world.state.jobs().iter();
    let mut waiting = waiting.filter(|(_, job)| job.state == JobState::Pending);
    let (id, job) = waiting.next().expect("more than begin at once");
    let start = StartJob {
        job: *id,
        attempt: job.attempt,
        conf_epoch: world.state.copysets()[&job.copyset].conf_epoch,
        store: store(4),
        at_ms: world.now_ms,
    };
    let refused = world.state.apply(&Command::StartJob(start));
    assert!(
        matches!(refused, Err(Refusal::JobsPaused { .. })),
        "{refused:?}"
    );
    for at in 0..40 {
        world.look();
        world.step(at);
    }
    assert_eq!(running(&world), 0, "what had begun has ended");
    let left = world.state.voters_on(store(1)).count();
    assert!(left > 0, "and nothing else was done");
    world.resume();
    world.mark(5, None);
    world.mark(6, None);
    world.settle();
    assert_eq!(world.state.voters_on(store(1)).count(), 0);
}

#[test]
fn no_more_than_its_limit_goes_to_a_zone() {
    // Whatever the lost one had goes to the three that are left of its zone, one move to each device.
    let mut world = World::new(&[0, 1, 2, 2, 2, 2], 12);
    world.away.insert(store(3));
    world.mark(3, Some(Mark::Lost));
    for _ in 0..4 {
        world.look();
    }
    let (total, _, zones) = world.moves();
    let limit = rules().moves_per_zone_max;
    assert!(limit < rules().moves_max);
    assert_eq!((total, zones.into_values().max()), (limit, Some(limit)));
}

/// A second pool, like the first one.
fn add_pool(world: &mut World) {
    let (id, like) = (PoolId::new(2), PoolId::new(1));
    let pool = CreatePool {
        class: None,
        name: name("q"),
        replicas: 3,
        scatter_width: 0,
    };
    let copysets = world.state.copysets().values().filter(|c| c.pool == like);
    let create = CreateCopysets {
        pool: id,
        existing: 0,
        placements: copysets.map(|c| c.stores().collect()).collect(),
    };
    for command in [Command::CreatePool(pool), Command::CreateCopysets(create)] {
        world.state.apply(&command).expect("made");
    }
    let made = world.state.copysets().iter().filter(|(_, c)| c.pool == id);
    let formed = ConfirmReplicas {
        created: Vec::new(),
        formed: made.clone().map(|(id, _)| *id).collect(),
    };
    for (id, copyset) in made {
        world.made.extend(copyset.replicas.iter().map(|r| r.id));
        world.leaders.insert(*id, copyset.replicas[0].id);
    }
    let formed = Command::ConfirmReplicas(formed);
    world.state.apply(&formed).expect("formed");
}

#[test]
fn no_more_than_its_limit_is_moved_of_a_pool() {
    let mut world = World::new(&[0, 0, 0, 1, 1, 1, 2, 2, 2], 18);
    add_pool(&mut world);
    world.away.insert(store(1));
    world.mark(1, Some(Mark::Lost));
    for limit in [1, 2] {
        let rules = HealRules {
            moves_max: 16,
            moves_per_server_max: 16,
            moves_per_zone_max: 16,
            moves_per_device_max: 16,
            moves_per_pool_max: limit,
            ..rules()
        };
        for _ in 0..4 {
            for command in plan(&world.state, &world.picture(), &rules) {
                world.state.apply(&command).expect("a plan that fits");
            }
        }
        for pool in [PoolId::new(1), PoolId::new(2)] {
            let copysets = world.state.copysets().values();
            let moved = copysets.filter(|c| c.pool == pool && c.change.is_some());
            assert_eq!(moved.count(), limit, "of {pool}");
        }
    }
}

#[test]
fn no_two_that_share_a_copyset_of_three_are_in_maintenance() {
    let mut world = World::new(&[0, 1, 2, 2], 4);
    assert!(world.maintain(1, RECOVER_MS));
    assert!(
        !world.maintain(2, RECOVER_MS),
        "its copysets would have no quorum"
    );
    assert!(world.maintain(1, RECOVER_MS), "that one still may");
    world.now_ms += RECOVER_MS;
    assert!(
        world.maintain(2, RECOVER_MS),
        "the first one's time is over"
    );
    let end = crate::state::EndMaintenance {
        chunkserver: ChunkserverId::new(2),
        over_by_ms: 0,
    };
    let end = Command::EndMaintenance(end);
    world.state.apply(&end).expect("ended");
    assert!(world.maintain(3, RECOVER_MS), "and that one's was ended");
    assert!(!world.maintain(9, RECOVER_MS), "there is none");
    for ms in [0, 1, u64::MAX] {
        assert!(!world.maintain(3, ms), "{ms} ms");
    }
}

#[test]
fn a_copyset_without_a_majority_goes_on_alone_and_becomes_whole_again() {
    let mut world = World::new(&[0, 1, 2, 0, 1, 2], 6);
    let id = CopysetId::new(1);
    let old = world.state.copysets()[&id].replicas.clone();
    world.away.extend([old[1].store, old[2].store]);
    world.look();
    assert!(!world.reset(id), "they may come back");
    world.now_ms += crate::limit::RESET_AFTER_MS - 1;
    assert!(!world.reset(id), "not yet");
    for replica in &old[1..] {
        world.mark(replica.chunkserver.get(), Some(Mark::Lost));
    }
    assert!(world.reset(id), "they were declared lost");
    let copyset = &world.state.copysets()[&id];
    assert_eq!((copyset.replicas.len(), copyset.vacant.len()), (1, 2));
    let leaving: Vec<ReplicaId> = copyset.leaving.iter().map(|r| r.id).collect();
    assert_eq!(leaving, [old[1].id, old[2].id], "not the one that goes on");
    assert!(!world.reset(id), "once is enough");
    world.settle();
    let copyset = &world.state.copysets()[&id];
    assert_eq!((copyset.replicas.len(), copyset.vacant.len()), (3, 0));
    let jobs = world.state.jobs().values();
    let made = jobs.filter(|job| job.copyset == id && job.cause == Cause::GivenUp);
    assert_eq!(made.filter(|job| job.state == JobState::Done).count(), 2);
}

#[test]
fn those_that_are_away_for_long_enough_are_given_up_without_a_word() {
    let mut world = World::new(&[0, 1, 2], 1);
    let id = CopysetId::new(1);
    let old = world.state.copysets()[&id].replicas.clone();
    world.away.extend([old[0].store, old[1].store]);
    world.look();
    world.now_ms += crate::limit::RESET_AFTER_MS;
    // One that has come back since counts.
    world.away.remove(&old[1].store);
    world.look();
    assert!(!world.reset(id));
    world.away.insert(old[1].store);
    world.look();
    world.now_ms += crate::limit::RESET_AFTER_MS;
    assert!(world.reset(id));
}

#[test]
fn one_that_joins_may_be_a_voter_and_counts() {
    let mut world = World::new(&[0, 1, 2, 0, 1, 2], 1);
    let id = CopysetId::new(1);
    let old = world.state.copysets()[&id].replicas.clone();
    let lose = |world: &mut World, replica: &crate::state::Replica| {
        world.away.insert(replica.store);
        world.mark(replica.chunkserver.get(), Some(Mark::Lost));
    };
    lose(&mut world, &old[0]);
    world.look();
    world.look();
    let change = world.state.copysets()[&id].change.clone();
    let joining = change.expect("it is replaced").joining;
    lose(&mut world, &old[1]);
    world.look();
    assert!(!world.reset(id), "with the new one it may have a majority");
    lose(&mut world, &joining);
    world.look();
    assert!(world.reset(id));
    let copyset = &world.state.copysets()[&id];
    assert_eq!((copyset.leaving.len(), copyset.vacant.len()), (3, 2));
}

#[test]
fn a_lost_server_is_replaced_without_anybody() {
    let mut world = World::new(&[0, 1, 2, 2], 6);
    world.away.insert(store(3));
    world.look();
    assert!(world.state.jobs().is_empty(), "not before its time");
    assert!(world.state.away_since(store(3)).is_some());
    world.now_ms += RECOVER_MS;
    world.settle();
    let on = |server: u32| {
        let members = world.state.copysets().values().flat_map(|c| c.members());
        members
            .filter(|r| r.chunkserver == ChunkserverId::new(server))
            .count()
    };
    assert_eq!((on(3), on(4)), (0, 6));
    let done = world.state.jobs().values();
    assert!(done.clone().all(|job| job.kind == JobKind::Recover
        && job.state == JobState::Done
        && job.cause == Cause::Away
        && job.ended_ms > 0));
}

#[test]
fn one_that_comes_back_in_time_is_let_be_and_one_declared_lost_is_not_waited_for() {
    let mut world = World::new(&[0, 1, 2, 2], 6);
    world.away.insert(store(3));
    world.look();
    world.now_ms += RECOVER_MS / 2;
    world.away.clear();
    world.look();
    world.away.insert(store(3));
    world.now_ms += RECOVER_MS / 2;
    assert_eq!(world.look(), 1, "a new time begins");
    world.mark(3, Some(Mark::Lost));
    world.look();
    assert!(
        world
            .state
            .jobs()
            .values()
            .all(|job| job.cause == Cause::Lost)
    );
    assert!(!world.state.jobs().is_empty());
    world.away.clear();
    world.look();
    let pending = world
        .state
        .jobs()
        .values()
        .filter(|job| job.ending == Some(Ending::NotNeeded))
        .count();
    assert!(pending > 0, "what had not begun is not needed");
}

#[test]
fn a_drain_takes_the_leaders_off_first_and_ends_empty() {
    let mut world = World::new(&[0, 1, 2, 0], 4);
    world.mark(1, Some(Mark::Draining));
    world.look();
    let kinds: BTreeSet<JobKind> = world.state.jobs().values().map(|job| job.kind).collect();
    assert!(kinds.contains(&JobKind::Lead));
    world.settle();
    assert_eq!(world.state.hosted(ChunkserverId::new(1)).count(), 0);
    for server in [2, 3, 4] {
        assert!(world.state.hosted(ChunkserverId::new(server)).count() > 0);
    }
}

#[test]
fn without_a_target_nothing_is_begun_and_without_a_majority_either() {
    let mut world = World::new(&[0, 1, 2], 4);
    world.mark(3, Some(Mark::Lost));
    world.away.insert(store(3));
    world.settle();
    assert!(world.state.jobs().is_empty());
    let picture = world.picture();
    let copyset = &world.state.copysets()[&CopysetId::new(1)];
    assert!(
        wish(CopysetId::new(1), copyset, &picture, &rules()).is_some(),
        "health tells of it"
    );
    let mut world = World::new(&[0, 1, 2, 0, 1, 2], 4);
    for server in [2, 3] {
        world.mark(server, Some(Mark::Lost));
        world.away.insert(store(server));
    }
    world.settle();
    let hit = |c: &Copyset| {
        c.replicas
            .iter()
            .filter(|r| world.away.contains(&r.store))
            .count()
    };
    assert!(
        world.state.copysets().values().all(|c| hit(c) != 1),
        "those with a majority are whole"
    );
}

/// Chunkservers 1 to 3 in three zones, without a class; 4 to 8 with one, and a pool that wants ssds.
fn world_with_classes() -> World {
    use ogee_proto::media::MediaClass::{Hdd, Ssd};
    let mut world = World::new(&[0, 1, 2], 0);
    let more = [
        (4, 0, Ssd),
        (5, 1, Ssd),
        (6, 2, Ssd),
        (7, 2, Hdd),
        (8, 2, Ssd),
    ];
    for (server, zone, class) in more {
        register_class(&mut world.state, server, zone, 100 * GIB, Some(class));
    }
    let pool = CreatePool {
        class: Some(Ssd),
        name: name("fast"),
        replicas: 3,
        scatter_width: 0,
    };
    world.state.apply(&Command::CreatePool(pool)).expect("pool");
    world
}

/// A copyset of that pool.
fn create_fast(stores: [u32; 3]) -> Command {
    Command::CreateCopysets(CreateCopysets {
        pool: PoolId::new(2),
        existing: 0,
        placements: vec![stores.map(store).into()],
    })
}

#[test]
fn a_replica_stays_on_devices_of_its_pool_s_class() {
    let mut world = world_with_classes();
    let wrong = world.state.apply(&create_fast([4, 5, 7]));
    assert!(
        matches!(wrong, Err(Refusal::BadPlacement { at: 0 })),
        "{wrong:?}"
    );
    let right = world.state.apply(&create_fast([4, 5, 6]));
    right.expect("of that class");
    let id = CopysetId::new(1);
    let formed = ConfirmReplicas {
        created: Vec::new(),
        formed: vec![id],
    };
    let formed = world.state.apply(&Command::ConfirmReplicas(formed));
    formed.expect("formed");
    let replicas = world.state.copysets()[&id].replicas.clone();
    world.made.extend(replicas.iter().map(|r| r.id));
    world.away.insert(store(6));
    world.mark(6, Some(Mark::Lost));
    world.settle();
    let replicas = world.state.copysets()[&id].replicas.iter();
    let stores: BTreeSet<StoreId> = replicas.map(|r| r.store).collect();
    let expected = [4, 5, 8].map(store).into();
    assert_eq!(stores, expected, "not where it is emptiest");
    // The last one of its class in the zone: nothing else is as good.
    world.away.insert(store(8));
    world.mark(8, Some(Mark::Lost));
    world.settle();
    let copyset = &world.state.copysets()[&id];
    let stays = copyset.replicas.iter().find(|r| r.store == store(8));
    let stays = stays.expect("it stays").id;
    assert!(copyset.change.is_none());
    let by_hand = crate::state::ReplaceReplica {
        copyset: id,
        replica: stays,
        store: store(7),
    };
    let refused = world.state.apply(&Command::ReplaceReplica(by_hand));
    assert!(
        matches!(refused, Err(Refusal::BadTarget { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_full_device_is_no_target() {
    let mut world = World::new(&[0, 1, 2, 2], 4);
    world.used = 96 * GIB;
    world.mark(3, Some(Mark::Lost));
    world.away.insert(store(3));
    world.settle();
    assert!(world.state.jobs().is_empty());
}

/// A world in which the one copyset's lost replica is made anew, and could be in yet another place.
fn moving() -> World {
    let mut world = World::new(&[0, 1, 2, 2, 2], 1);
    let victim = world.state.copysets()[&CopysetId::new(1)].replicas[2].store;
    world.away.insert(victim);
    world.look();
    world.now_ms += RECOVER_MS;
    world.look();
    world.look();
    world
}

fn only_job(world: &World) -> crate::state::Job {
    assert_eq!(world.state.jobs().len(), 1);
    world.state.jobs().values().next().expect("one").clone()
}

#[test]
fn a_target_that_dies_is_left_for_another() {
    let mut world = moving();
    let first = only_job(&world).target.expect("it runs");
    world.away.insert(first.store);
    world.look();
    world.now_ms += RECOVER_MS;
    world.look();
    let job = only_job(&world);
    assert_eq!((job.attempt, job.state), (2, JobState::Running));
    assert!(job.target.is_some_and(|to| to.store != first.store));
    world.settle();
    assert!(world.state.copysets()[&CopysetId::new(1)].change.is_none());
}

/// However long the pause: nothing sends a move elsewhere meanwhile, so that must not be held against it afterwards.
#[test]
fn a_target_that_dies_while_jobs_are_paused_is_left_for_another_after_it() {
    let mut world = moving();
    let first = only_job(&world).target.expect("it runs");
    world.pause();
    world.away.insert(first.store);
    for _ in 0..3 {
        world.now_ms += rules().move_timeout_ms;
        world.look();
        let now = only_job(&world);
        assert_eq!((now.attempt, now.state), (1, JobState::Running), "{now:?}");
    }
    world.resume();
    world.look();
    let sent = only_job(&world);
    assert_eq!((sent.attempt, sent.state), (2, JobState::Running));
    assert!(sent.target.is_some_and(|to| to.store != first.store));
    // What it takes itself counts as ever.
    world.now_ms += rules().move_timeout_ms + 1;
    world.look();
    assert_eq!(only_job(&world).ending, Some(Ending::TimedOut));
}

#[test]
fn a_transfer_that_is_not_carried_out_is_given_up() {
    let mut world = World::new(&[0, 1, 2, 0], 3);
    world.mark(1, Some(Mark::Draining));
    world.look();
    world.now_ms += LEAD_TIMEOUT_MS + 1;
    world.look();
    let failed = world
        .state
        .jobs()
        .values()
        .filter(|job| job.ending == Some(Ending::TimedOut));
    assert!(failed.count() > 0);
}

fn counts(world: &World) -> BTreeMap<ChunkserverId, usize> {
    let mut led = BTreeMap::new();
    for (id, copyset) in world.state.copysets() {
        for replica in &copyset.replicas {
            let leads = world.leaders.get(id) == Some(&replica.id);
            *led.entry(replica.chunkserver).or_default() += usize::from(leads);
        }
    }
    led
}

fn gap(led: &BTreeMap<ChunkserverId, usize>) -> usize {
    led.values().max().copied().unwrap_or(0) - led.values().min().copied().unwrap_or(0)
}

fn balanced(world: &mut World, cause: Cause) -> usize {
    let jobs = balance(&world.state, &world.picture(), 20, cause);
    for Handover { job, .. } in &jobs {
        world.leaders.insert(job.copyset, job.replica);
    }
    jobs.len()
}

#[test]
fn leaders_all_on_one_become_even_and_stay() {
    let mut world = World::new(&[0, 1, 2], 10);
    for (id, copyset) in world.state.copysets() {
        let first = copyset
            .replicas
            .iter()
            .find(|r| r.chunkserver == ChunkserverId::new(1));
        world.leaders.insert(*id, first.expect("everywhere").id);
    }
    assert_eq!(gap(&counts(&world)), 10);
    assert_eq!(balanced(&mut world, Cause::Asked), 6, "no more than needed");
    assert!(gap(&counts(&world)) <= 1);
    assert_eq!(balanced(&mut world, Cause::Asked), 0);
}

fn fall_ill(world: &mut World, kind: AilmentKind, copyset: u32, at: usize) -> ReplicaId {
    let replicas = &world.state.copysets()[&CopysetId::new(copyset)].replicas;
    let replica = replicas[at % replicas.len()].id;
    world.ill.insert(replica, kind);
    replica
}

#[test]
fn a_damaged_replica_is_made_anew_elsewhere_after_its_time() {
    let mut world = World::new(&[0, 1, 2, 2], 4);
    let ill = fall_ill(&mut world, AilmentKind::Damaged, 1, 2);
    world.look();
    assert_eq!(world.state.ailing_since(ill), Some(world.now_ms));
    world.now_ms += RECOVER_MS / 2;
    world.look();
    assert!(world.state.jobs().is_empty(), "not before its time");
    world.settle();
    let job = world.state.jobs().values().next().expect("one");
    assert_eq!(
        (job.kind, job.cause, job.state),
        (JobKind::Recover, Cause::Damaged, JobState::Done)
    );
    assert!(
        job.target.is_some_and(|to| to.chunkserver != job.from),
        "not where it rotted, while there is another device"
    );
    assert!(world.state.ailing().is_empty());
    assert_eq!(world.state.jobs().len(), 1);
}

#[test]
fn one_that_is_missing_comes_to_its_device_again_and_a_damaged_one_if_there_is_no_other() {
    for (zones, kind) in [
        (vec![0, 1, 2, 2], AilmentKind::Missing),
        (vec![0, 1, 2], AilmentKind::Damaged),
    ] {
        let mut world = World::new(&zones, 3);
        fall_ill(&mut world, kind, 1, 2);
        world.settle();
        let job = world.state.jobs().values().next().expect("one");
        assert_eq!(job.state, JobState::Done, "{kind:?}");
        assert!(job.target.is_some_and(|to| to.chunkserver == job.from));
    }
    // One that has stopped holds its place.
    let mut world = World::new(&[0, 1, 2], 3);
    fall_ill(&mut world, AilmentKind::Failed, 1, 2);
    world.settle();
    assert!(world.state.jobs().is_empty());
}

#[test]
fn the_last_good_copies_are_not_given_up() {
    let mut world = World::new(&[0, 1, 2, 0, 1, 2], 1);
    let ill = fall_ill(&mut world, AilmentKind::Damaged, 1, 0);
    fall_ill(&mut world, AilmentKind::Damaged, 1, 1);
    world.settle();
    assert!(world.state.jobs().is_empty(), "no majority is well");
    let mut picture = world.picture();
    let copyset = &world.state.copysets()[&CopysetId::new(1)];
    world.ill.remove(&copyset.replicas[1].id);
    let sick = |picture: &Picture| {
        let wish = wish(CopysetId::new(1), copyset, picture, &rules());
        wish.map(|(_, replica)| replica.id)
    };
    picture = Picture {
        now_ms: picture.now_ms + 10 * RECOVER_MS,
        ..world.picture()
    };
    assert_eq!(sick(&picture), Some(ill));
    picture.copying.insert(copyset.replicas[2].id);
    assert_eq!(sick(&picture), None, "another one is only being copied");
}

#[test]
fn one_that_is_well_again_is_let_be() {
    let mut world = World::new(&[0, 1, 2, 2], 4);
    let ill = fall_ill(&mut world, AilmentKind::Failed, 1, 2);
    world.look();
    world.now_ms += RECOVER_MS / 2;
    world.ill.clear();
    world.look();
    assert!(world.state.ailing().is_empty());
    world.ill.insert(ill, AilmentKind::Failed);
    world.now_ms += RECOVER_MS / 2 + 1;
    world.look();
    assert!(world.state.jobs().is_empty(), "a new time begins");
}

#[derive(Clone, Debug)]
enum Event {
    Ill(usize, AilmentKind),
    Spread,
    Away(u32),
    Back(u32),
    Mark(u32, Option<Mark>),
    Maintain(u32, u64),
    Reset(usize),
    Pass(u64),
    Step(usize),
}

fn event(servers: u32) -> impl Strategy<Value = Event> {
    let server = 1..=servers;
    let mark = prop::sample::select(vec![None, Some(Mark::Draining), Some(Mark::Lost)]);
    let kinds = [
        AilmentKind::Missing,
        AilmentKind::Damaged,
        AilmentKind::Failed,
    ];
    let kind = prop::sample::select(kinds.to_vec());
    prop_oneof![
        1 => (any::<usize>(), kind).prop_map(|(pick, kind)| Event::Ill(pick, kind)),
        2 => Just(Event::Spread),
        1 => server.clone().prop_map(Event::Away),
        2 => server.clone().prop_map(Event::Back),
        1 => (server.clone(), mark).prop_map(|(server, mark)| Event::Mark(server, mark)),
        1 => (server, 1000..5 * RECOVER_MS).prop_map(|(server, ms)| Event::Maintain(server, ms)),
        1 => any::<usize>().prop_map(Event::Reset),
        2 => (0u64..10 * RECOVER_MS).prop_map(Event::Pass),
        6 => any::<usize>().prop_map(Event::Step),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn whatever_goes_and_comes_it_ends_whole(
        zones in prop::collection::vec(0u8..4, 0..5), copysets in 1usize..10,
        events in prop::collection::vec(event(7), 0..60),
    ) {
        let zones: Vec<u8> = [0, 1, 2].into_iter().chain(zones).collect();
        let servers = u32::try_from(zones.len()).expect("few");
        let mut world = World::new(&zones, copysets);
        for event in events {
            match event {
                Event::Away(n) if n <= servers => { world.away.insert(store(n)); }
                Event::Back(n) if n <= servers => { world.away.remove(&store(n)); }
                Event::Mark(n, mark) if n <= servers => world.mark(n, mark),
                Event::Reset(pick) => {
                    let id = u32::try_from(pick % copysets + 1).expect("few");
                    world.reset(CopysetId::new(id));
                }
                Event::Maintain(n, ms) if n <= servers => { world.maintain(n, ms); }
                Event::Pass(ms) => world.now_ms += ms,
                Event::Step(pick) => world.step(pick),
                Event::Spread => { world.spread(&rules(), Cause::AskedSpread, 8); }
                Event::Ill(pick, kind) => {
                    let copyset = u32::try_from(pick % copysets + 1).expect("few");
                    fall_ill(&mut world, kind, copyset, pick % 3);
                }
                _ => {}
            }
            world.look();
            world.transfer();
        }
        world.settle();
        // What is still not whole has no target or no majority; nothing waits that could go on.
        let picture = world.picture();
        let loads = super::Loads::of(&world.state, &picture);
        for (id, copyset) in world.state.copysets() {
            if let Some((_, replica)) = wish(*id, copyset, &picture, &rules()) {
                prop_assert!(!loads.has_target(copyset, replica, 0), "{} could be healed: {:?}", id, world.state.jobs());
            }
        }
    }

    #[test]
    fn leaders_end_as_even_as_replicas_allow(
        zones in prop::collection::vec(0u8..4, 0..6), copysets in 1usize..24,
        first in prop::collection::vec(0usize..3, 24),
    ) {
        let zones: Vec<u8> = [0, 1, 2].into_iter().chain(zones).collect();
        let mut world = World::new(&zones, copysets);
        for ((id, copyset), first) in world.state.copysets().iter().zip(first) {
            world.leaders.insert(*id, copyset.replicas[first].id);
        }
        balanced(&mut world, Cause::Uneven);
        prop_assert_eq!(balanced(&mut world, Cause::Uneven), 0, "it comes to rest");
        // Nobody could give one away directly to somebody that leads two fewer.
        let led = counts(&world);
        for (id, copyset) in world.state.copysets() {
            let leader = copyset.replicas.iter().find(|r| world.leaders[id] == r.id).expect("one");
            for other in &copyset.replicas {
                prop_assert!(led[&leader.chunkserver] <= led[&other.chunkserver] + 1, "{:?}", led);
            }
        }
    }
}
