//! Placement and scheduler on a simulated cluster, for its cost and its results.
//!
//! *Place*: above `placement` and `scheduler`, under `examples/scale.rs` and this crate's tests; not in any product.
//! *Owner*: one thread. What plans and what is planned are the production's: the state machine, placement,
//! the picture taken of heartbeats, `plan`, `spread` and `balance`. Simulated is what is around them: heartbeats that
//! say that everything was carried out, copies that take as long as their bytes need, a clock that jumps while
//! nothing is planned. The replicated log and the network are not in it.
//! *Invariants*: a copy takes the time of its bytes at the bandwidth of its device, shared by as many as may
//! go on there at once. *On failure*: a command that is refused ends the process: a plan that the state machine
//! does not take is what is looked for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ogee_proto::id::{ChunkserverId, CopysetId, PoolId, ReplicaId, StoreId};
use ogee_proto::name::Name;
use ogee_proto::service::RepairReport;

use crate::limit::{COPYSETS_PER_COMMAND_MAX, JOBS_PER_COMMAND_MAX};
use crate::liveness::{Bounds, Heard, Liveness, ReplicaStatus, StoreState, StoreUsage};
use crate::placement::{self, Request, Scatter, Site, Width};
use crate::scheduler::{
    HealRules, Picture, balance, is_steady, moves_live, plan, spread, whole_plan,
};
use crate::state::{
    AddJobs, Cause, Command, ConfirmChanges, ConfirmReplicas, Copyset, CreateCopysets, CreatePool,
    JobKind, Mark, MarkStores, RegisterChunkserver, Replica, State, StoreSpec,
};

/// Replicas of each copyset.
const REPLICAS: usize = 3;
/// Longer than any simulation: who was heard from once stays online until it is taken away.
const FOR_EVER: Duration = Duration::from_secs(1 << 32);

/// What is simulated.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Racks: failure domains.
    pub zones: usize,
    /// Chunkservers in each.
    pub servers: usize,
    /// Devices of each of those.
    pub devices: usize,
    /// Copysets, of three replicas each.
    pub copysets: usize,
    /// Bytes of each replica.
    pub replica_bytes: u64,
    /// Bytes a second that a device takes for copies.
    pub bandwidth: u64,
    /// As in the settings.
    pub moves_max: usize,
    /// As in the settings.
    pub moves_per_server_max: usize,
    /// As in the settings.
    pub moves_per_zone_max: usize,
    /// As in the settings.
    pub moves_per_device_max: usize,
    /// Looks after which a scenario is broken off.
    pub looks_max: usize,
    /// Of the pool; 0: as wide as can be.
    pub scatter_width: usize,
}

/// What a scenario has shown.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Which.
    pub what: &'static str,
    /// Milliseconds of processor time of its first look: the picture, and the plan made of it.
    pub first_ms: u64,
    /// Of its longest.
    pub longest_ms: u64,
    /// Of all.
    pub all_ms: u64,
    /// Looks that were taken.
    pub looks: usize,
    /// Milliseconds to carry out what was planned in the state machine.
    pub applied_ms: u64,
    /// Milliseconds of processor time for a picture and one plan of all that the scenario has to move, without the bounds that make steps of it.
    pub whole_ms: u64,
    /// The moves in that plan.
    pub wanted: usize,
    /// Replicas that were moved or made anew.
    pub moves: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Simulated seconds until the last was in place.
    pub seconds: u64,
    /// Replicas that are still not where they are to be: 0, or it was broken off.
    pub left: usize,
    /// Of the devices that are there, how far the one that is furthest from its part is from it, in percent.
    pub uneven_percent: f64,
    /// Replicas of the devices that carry fewest and most.
    pub range: (usize, usize),
}

impl Figures {
    /// One after the other.
    fn and(self, next: Self) -> Self {
        Self {
            first_ms: self.first_ms.max(next.first_ms),
            longest_ms: self.longest_ms.max(next.longest_ms),
            all_ms: self.all_ms + next.all_ms,
            looks: self.looks + next.looks,
            applied_ms: self.applied_ms + next.applied_ms,
            whole_ms: self.whole_ms.max(next.whole_ms),
            wanted: self.wanted + next.wanted,
            moves: self.moves + next.moves,
            bytes: self.bytes + next.bytes,
            seconds: self.seconds + next.seconds,
            ..next
        }
    }
}

/// See the module.
pub struct Cluster {
    shape: Shape,
    state: State,
    liveness: Liveness,
    epoch: Instant,
    now_ms: u64,
    /// Copies under way, by when they end.
    copies: BTreeMap<u64, Vec<(CopysetId, ReplicaId, u64)>>,
    servers: usize,
}

impl Cluster {
    /// Registers all devices and places the copysets.
    ///
    /// # Panics
    /// When the state machine refuses what was planned.
    #[must_use]
    pub fn build(shape: Shape) -> (Self, Figures) {
        let mut cluster = Self {
            state: State::default(),
            liveness: Liveness::new(FOR_EVER, Bounds::default()),
            epoch: Instant::now(),
            now_ms: 1_000_000,
            copies: BTreeMap::new(),
            servers: 0,
            shape,
        };
        for _ in 0..cluster.shape.servers {
            cluster.add_row();
        }
        let pool = CreatePool {
            class: None,
            name: name("p"),
            replicas: 3,
            scatter_width: u32::try_from(cluster.shape.scatter_width).expect("few"),
        };
        cluster.apply(&Command::CreatePool(pool));
        let sites = cluster.sites();
        let began = Stopwatch::start();
        let request = Request {
            replicas: REPLICAS,
            copysets: cluster.shape.copysets,
            scatter_width: cluster.shape.scatter_width,
        };
        let placements = placement::plan(&sites, request).expect("zones enough");
        let planned_ms = began.ms();
        let began = Stopwatch::start();
        for (at, part) in placements.chunks(COPYSETS_PER_COMMAND_MAX).enumerate() {
            let existing = at * COPYSETS_PER_COMMAND_MAX;
            cluster.apply(&Command::CreateCopysets(CreateCopysets {
                pool: PoolId::new(1),
                existing: u32::try_from(existing).expect("few"),
                placements: part.to_vec(),
            }));
        }
        let applied_ms = began.ms();
        cluster.bring_up();
        let figures = Figures {
            what: "build",
            first_ms: planned_ms,
            longest_ms: planned_ms,
            all_ms: planned_ms,
            looks: 1,
            applied_ms,
            ..Figures::default()
        };
        let figures = cluster.with_evenness(figures);
        (cluster, figures)
    }

    /// A whole zone is declared lost.
    pub fn lose_rack(&mut self) -> Figures {
        let zone = name("z0");
        let gone = self.state.chunkservers().iter();
        let gone = gone.filter(|(_, server)| server.zone == zone);
        let gone: BTreeSet<ChunkserverId> = gone.map(|(id, _)| *id).collect();
        let stores = self.state.stores().iter();
        let stores = stores.filter(|(_, store)| gone.contains(&store.chunkserver));
        let stores: BTreeSet<StoreId> = stores.map(|(id, _)| *id).collect();
        for server in &gone {
            self.liveness.forget(*server);
        }
        self.lose(&stores);
        self.run("lose a rack", false)
    }

    /// Every hundredth device that is there fails and is declared lost, zone by zone, each when what the one before had is
    /// whole again: of so many at once some copysets would lose two, and nothing could be done for them.
    pub fn lose_devices(&mut self) -> Figures {
        let mut all = Figures::default();
        let there = self.state.stores().iter();
        let there = there.filter(|(id, store)| {
            self.liveness.heard(store.chunkserver).is_some() && self.state.mark(**id).is_none()
        });
        let mut by_zone: BTreeMap<Name, BTreeSet<StoreId>> = BTreeMap::new();
        for (id, store) in there.skip(57).step_by(100) {
            let zone = &self.state.chunkservers()[&store.chunkserver].zone;
            by_zone.entry(zone.clone()).or_default().insert(*id);
        }
        for stores in by_zone.into_values() {
            for store in &stores {
                let server = self.state.stores()[store].chunkserver;
                if let Some(usage) = self.liveness.reports(server).stores.get_mut(store) {
                    usage.state = StoreState::Failed;
                }
            }
            self.lose(&stores);
            all = all.and(self.run("lose 1 % of devices", false));
        }
        all
    }

    /// A tenth more servers in each zone, and leaders after replicas.
    pub fn grow(&mut self) -> Figures {
        for _ in 0..self.shape.servers.div_ceil(10) {
            self.add_row();
        }
        self.run("add 10 %", true)
    }

    /// Milliseconds for one plan of leaders, which are moved so often that it is the longest.
    #[must_use]
    pub fn leaders(&self) -> (u64, usize) {
        let picture = self.picture();
        let began = Stopwatch::start();
        let is_steady = is_steady(&self.state, &picture);
        let jobs = balance(
            &self.state,
            &picture,
            self.rules().lead_percent,
            Cause::Asked,
        );
        assert!(is_steady, "all is in place");
        (began.ms(), jobs.len())
    }

    fn apply(&mut self, command: &Command) {
        if let Err(refusal) = self.state.apply(command) {
            panic!("{command}: {refusal}");
        }
    }

    /// One more server in each zone.
    fn add_row(&mut self) {
        for zone in 0..self.shape.zones {
            self.servers += 1;
            let devices = self.shape.devices;
            let first = self.servers * devices;
            let ids: Vec<StoreId> = (first..first + devices).map(store_id).collect();
            let capacity = self.capacity();
            let spec = |id: &StoreId| StoreSpec {
                class: None,
                id: *id,
                shard: 0,
                path: "/dev/disk".into(),
                capacity,
                log_capacity: 1 << 30,
            };
            self.apply(&Command::RegisterChunkserver(RegisterChunkserver {
                name: name(&format!("cs{}", self.servers)),
                zone: name(&format!("z{zone}")),
                server: name(&format!("h{}", self.servers)),
                endpoints: vec!["10.0.0.1:1".into()],
                stores: ids.iter().map(spec).collect(),
                version: "1".into(),
            }));
            let usage = StoreUsage {
                shard: 0,
                capacity,
                used: 0,
                log_capacity: 1 << 30,
                log_used: 0,
                state: StoreState::Ok,
                flows: Default::default(),
                failures: 0,
                retired: 0,
                scrub: None,
                compare: None,
                scrub_paused: false,
                told: self.epoch,
                background: None,
                drive: None,
                drive_unknown: 0,
                repairs: RepairReport::default(),
                light: None,
            };
            let heard = Heard {
                stores: ids.into_iter().map(|id| (id, usage)).collect(),
                ..Heard::default()
            };
            let id = u32::try_from(self.servers).expect("few");
            self.liveness
                .record(self.epoch, ChunkserverId::new(id), heard);
        }
    }

    /// So that devices are half full.
    fn capacity(&self) -> u64 {
        let devices = self.shape.zones * self.shape.servers * self.shape.devices;
        let each = (self.shape.copysets * REPLICAS).div_ceil(devices);
        2 * each as u64 * self.shape.replica_bytes
    }

    fn sites(&self) -> Vec<Site> {
        let sites = self.state.stores().iter().map(|(id, store)| Site {
            store: *id,
            chunkserver: store.chunkserver,
            zone: self.state.chunkservers()[&store.chunkserver].zone.clone(),
            weight: store.capacity,
            replicas: 0,
            leaders: 0,
        });
        sites.collect()
    }

    /// Every replica is there, and the first of each copyset leads.
    fn bring_up(&mut self) {
        self.state.fill(1);
        let mut facts = ConfirmReplicas::default();
        let mut reports = Vec::new();
        for (id, copyset) in self.state.copysets() {
            facts.formed.push(*id);
            for replica in &copyset.replicas {
                facts.created.push((*id, replica.id));
                reports.push((replica.clone(), copyset.replicas[0].id));
            }
        }
        self.apply(&Command::ConfirmReplicas(facts));
        for (replica, leader) in reports {
            self.appear(&replica, leader, 1);
        }
    }

    fn appear(&mut self, replica: &Replica, leader: ReplicaId, term: u64) {
        let heard = self.liveness.reports(replica.chunkserver);
        let status = ReplicaStatus {
            leader,
            term,
            applied: 1,
            last_log: 1,
            ..ReplicaStatus::default()
        };
        heard.replicas.insert(replica.id, status);
        if let Some(usage) = heard.stores.get_mut(&replica.store) {
            usage.used += self.shape.replica_bytes;
        }
    }

    fn lose(&mut self, stores: &BTreeSet<StoreId>) {
        for part in stores.iter().copied().collect::<Vec<_>>().chunks(256) {
            self.apply(&Command::MarkStores(MarkStores {
                stores: part.to_vec(),
                mark: Some(Mark::Lost),
                at_ms: self.now_ms,
            }));
        }
        let mut elected = Vec::new();
        for copyset in self.state.copysets().values() {
            let lost = copyset
                .replicas
                .iter()
                .filter(|r| stores.contains(&r.store));
            let lost: Vec<&Replica> = lost.collect();
            let leader = self.liveness.leader(self.epoch, copyset);
            let leader = leader.map(|leader| (leader.replica, leader.term));
            let stay = || {
                copyset
                    .replicas
                    .iter()
                    .filter(|r| !stores.contains(&r.store))
            };
            let is_led = leader.is_some_and(|(id, _)| stay().any(|r| r.id == id));
            let heir = stay().next().filter(|_| !is_led && !lost.is_empty());
            let stay = stay().map(|r| (r.chunkserver, r.id));
            let heir = heir.map(|heir| (heir.id, leader.map_or(2, |(_, term)| term + 1)));
            if !lost.is_empty() {
                let lost: Vec<_> = lost.iter().map(|r| (r.chunkserver, r.id)).collect();
                elected.push((lost, heir, stay.collect::<Vec<_>>()));
            }
        }
        for (lost, heir, stay) in elected {
            for (server, replica) in lost {
                if self.liveness.heard(server).is_some() {
                    self.liveness.reports(server).replicas.remove(&replica);
                }
            }
            for (server, replica) in stay {
                // Of a scenario that was broken off, some are still where nobody is.
                if self.liveness.heard(server).is_none() {
                    continue;
                }
                let status = self.liveness.reports(server).replicas.get_mut(&replica);
                if let (Some(status), Some((leader, term))) = (status, heir) {
                    (status.leader, status.term) = (leader, term);
                }
            }
        }
    }

    fn rules(&self) -> HealRules {
        HealRules {
            recover_after_ms: 600_000,
            moves_max: self.shape.moves_max,
            moves_per_server_max: self.shape.moves_per_server_max,
            moves_per_zone_max: self.shape.moves_per_zone_max,
            // One pool: the limit of all.
            moves_per_pool_max: self.shape.moves_max,
            moves_per_device_max: self.shape.moves_per_device_max,
            ..HealRules::default()
        }
    }

    fn picture(&self) -> Picture {
        Picture::take(&self.state, &self.liveness, self.epoch, self.now_ms)
    }

    /// As the metadata server looks, once a second, until nothing is left to be done.
    fn run(&mut self, what: &'static str, spreads: bool) -> Figures {
        let mut figures = Figures {
            what,
            ..Figures::default()
        };
        let (rules, began_ms) = (self.rules(), self.now_ms);
        let began = Stopwatch::start();
        let whole = whole_plan(&self.state, &self.picture(), &rules);
        (figures.whole_ms, figures.wanted) = (began.ms(), whole.len());
        drop(whole);
        while figures.looks < self.shape.looks_max {
            let began = Stopwatch::start();
            let picture = self.picture();
            let mut commands = plan(&self.state, &picture, &rules);
            if spreads {
                commands.extend(self.spread(&picture, &rules));
            }
            let took = began.ms();
            figures.looks += 1;
            figures.all_ms += took;
            figures.longest_ms = figures.longest_ms.max(took);
            if figures.looks == 1 {
                figures.first_ms = took;
            }
            drop(picture);
            let began = Stopwatch::start();
            self.carry_out(&commands);
            let next = self.copies.keys().next().copied();
            match next {
                None if commands.is_empty() => break,
                Some(next) if commands.is_empty() => self.now_ms = self.now_ms.max(next),
                _ => self.now_ms += 1000,
            }
            self.finish(&mut figures);
            figures.applied_ms += began.ms();
        }
        figures.seconds = (self.now_ms - began_ms) / 1000;
        figures.left = self.left(spreads, &rules);
        self.with_evenness(figures)
    }

    /// With how many others devices share copysets.
    #[must_use]
    pub fn scatter(&self) -> Width {
        let copysets = self.state.copysets().values();
        Scatter::of(copysets.map(Copyset::stores)).summary()
    }

    /// What the look of `api` plans beside `plan`, but for the time that it waits first.
    fn spread(&self, picture: &Picture, rules: &HealRules) -> Option<Command> {
        let most = (2 * HealRules::spare(rules.moves_max)).min(JOBS_PER_COMMAND_MAX);
        let room = most.saturating_sub(moves_live(&self.state));
        let jobs = spread(&self.state, picture, rules, Cause::Crowded, room);
        let add = AddJobs {
            jobs,
            at_ms: self.now_ms,
        };
        (!add.jobs.is_empty()).then_some(Command::AddJobs(add))
    }

    /// Commands, and the copies that follow from them.
    fn carry_out(&mut self, commands: &[Command]) {
        for command in commands {
            self.apply(command);
            let Command::StartJobs(starts) = command else {
                continue;
            };
            for start in &starts.jobs {
                let job = &self.state.jobs()[&start.job];
                let target = job.target.expect("each start is taken");
                let shared = self.shape.moves_per_device_max as u64;
                let bytes = self.shape.replica_bytes;
                let takes_ms = bytes * shared * 1000 / self.shape.bandwidth.max(1);
                let copy = (job.copyset, target.replica, bytes);
                let ends = self.copies.entry(self.now_ms + takes_ms.max(1));
                ends.or_default().push(copy);
            }
        }
    }

    /// Copies whose time has come.
    fn finish(&mut self, figures: &mut Figures) {
        let later = self.copies.split_off(&(self.now_ms + 1));
        let done = std::mem::replace(&mut self.copies, later);
        let mut made = ConfirmReplicas::default();
        let mut changes = ConfirmChanges {
            at_ms: self.now_ms,
            ..ConfirmChanges::default()
        };
        let mut joined = Vec::new();
        for (id, replica, bytes) in done.into_values().flatten() {
            let copyset = &self.state.copysets()[&id];
            let change = copyset.change.as_ref().expect("its copy goes on");
            let old = copyset.replicas.iter().find(|r| r.id == change.replaces);
            let old = old.expect("still a member").clone();
            let leader = self.liveness.leader(self.epoch, copyset);
            let leader = leader.expect("a majority serves");
            joined.push((change.joining.clone(), old.clone(), leader));
            made.created.push((id, replica));
            changes.changed.push((id, replica));
            if self.is_there(&old) {
                changes.removed.push((id, old.id));
            }
            figures.moves += 1;
            figures.bytes += bytes;
        }
        if made.created.is_empty() {
            return;
        }
        self.apply(&Command::ConfirmReplicas(made));
        self.apply(&Command::ConfirmChanges(changes));
        for (new, old, leader) in joined {
            self.appear(&new, leader.replica, leader.term);
            if self.is_there(&old) {
                let heard = self.liveness.reports(old.chunkserver);
                heard.replicas.remove(&old.id);
                if let Some(usage) = heard.stores.get_mut(&old.store) {
                    usage.used -= self.shape.replica_bytes;
                }
            }
        }
    }

    fn is_there(&self, replica: &Replica) -> bool {
        self.liveness.heard(replica.chunkserver).is_some()
            && self.state.mark(replica.store).is_none()
    }

    fn left(&self, spreads: bool, rules: &HealRules) -> usize {
        let replicas = self.state.copysets().values().flat_map(|c| &c.replicas);
        let gone = replicas.filter(|r| !self.is_there(r)).count();
        let jobs = self.state.jobs().values();
        let live = jobs.filter(|job| job.state.is_live() && job.kind == JobKind::Balance);
        let uneven = if spreads && gone == 0 {
            spread(&self.state, &self.picture(), rules, Cause::Crowded, 1).len()
        } else {
            0
        };
        gone + live.count() + uneven
    }

    #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
    fn with_evenness(&self, mut figures: Figures) -> Figures {
        let there = self.state.stores().iter().filter(|(id, store)| {
            self.liveness.heard(store.chunkserver).is_some() && self.state.mark(**id).is_none()
        });
        let mut carried: BTreeMap<StoreId, usize> = there.map(|(id, _)| (*id, 0)).collect();
        for replica in self.state.copysets().values().flat_map(|c| &c.replicas) {
            if let Some(carried) = carried.get_mut(&replica.store) {
                *carried += 1;
            }
        }
        let all: usize = carried.values().sum();
        let mean = all as f64 / carried.len().max(1) as f64;
        let least = carried.values().min().copied().unwrap_or(0);
        let most = carried.values().max().copied().unwrap_or(0);
        let far = (most as f64 - mean).max(mean - least as f64);
        figures.range = (least, most);
        figures.uneven_percent = 100.0 * far / mean.max(1.0);
        figures
    }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn store_id(at: usize) -> StoreId {
    StoreId::from_bytes((at as u128).to_be_bytes())
}

/// Processor time of this thread: what else the machine does does not count.
struct Stopwatch(u64);

impl Stopwatch {
    fn start() -> Self {
        Self(Self::now_ns())
    }

    fn ms(&self) -> u64 {
        (Self::now_ns() - self.0) / 1_000_000
    }

    fn now_ns() -> u64 {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat");
        let text = text.expect("a kernel that counts what a thread takes");
        let ran = text
            .split_whitespace()
            .next()
            .and_then(|ns| ns.parse().ok());
        ran.expect("nanoseconds come first")
    }
}

#[cfg(test)]
mod tests {
    use super::{Cluster, Figures, Shape};

    fn small() -> Shape {
        Shape {
            zones: 10,
            servers: 10,
            devices: 1,
            copysets: 1200,
            replica_bytes: 10 << 30,
            bandwidth: 100 << 20,
            moves_max: 256,
            moves_per_server_max: 4,
            moves_per_zone_max: 256,
            moves_per_device_max: 2,
            looks_max: 5000,
            scatter_width: 0,
        }
    }

    /// Moves keep what placement has made, as far as evenness lets them.
    #[test]
    fn a_scatter_width_outlasts_losses_and_growth() {
        let run = |scatter_width| {
            let shape = Shape {
                scatter_width,
                ..small()
            };
            let (mut cluster, built) = Cluster::build(shape);
            check(&built);
            let mut widths = vec![cluster.scatter()];
            for scenario in [Cluster::lose_rack, Cluster::lose_devices, Cluster::grow] {
                check(&scenario(&mut cluster));
                widths.push(cluster.scatter());
            }
            println!("{scatter_width}: {widths:?}");
            widths
        };
        let (wide, narrow) = (run(0), run(20));
        for (wide, narrow) in wide.iter().zip(&narrow) {
            assert!(narrow.least >= 16, "{narrow:?}");
            assert!(narrow.sets < wide.sets, "{narrow:?} beside {wide:?}");
            assert!(narrow.mean * 1.5 < wide.mean, "{narrow:?} beside {wide:?}");
        }
    }

    fn check(figures: &Figures) {
        assert_eq!(figures.left, 0, "{figures:?}");
        let (least, most) = figures.range;
        let is_even = figures.uneven_percent <= 5.0 || most - least <= 2;
        assert!(is_even, "{figures:?}");
    }

    #[test]
    fn a_small_cluster_is_built_loses_much_and_grows() {
        let (mut cluster, built) = Cluster::build(small());
        check(&built);
        let rack = cluster.lose_rack();
        assert_eq!((rack.moves, rack.wanted), (360, 360));
        check(&rack);
        let devices = cluster.lose_devices();
        assert!(devices.moves >= 36, "{devices:?}");
        check(&devices);
        let grown = cluster.grow();
        // A tenth of the servers of ten zones beside what is left of nine, as little as gives each its part.
        let (least, most) = grown.range;
        assert!(
            grown.moves >= 10 * least && grown.moves <= 11 * most,
            "{grown:?}"
        );
        check(&grown);
        let (_, moved) = cluster.leaders();
        assert!(moved > 0, "the new ones lead nothing yet");
    }
}
