//! What comes of changes is what would have come of whole reports: two metadata servers, each with a twin that is told all
//! whenever it takes something, a chunkserver whose report changes at random, answers that are lost, messages that come late,
//! leaders that change and start anew, and metadata that changes meanwhile.

use std::time::{Duration, Instant};

use ogee_proto::heartbeat::{Answered, Teller};
use ogee_proto::id::{ChunkserverId, CopysetId, PoolId, ReplicaId, StoreId};
use ogee_proto::layout::StripeLayout;
use ogee_proto::name::{Name, PathName};
use ogee_proto::service::{
    HeartbeatRequest, HeartbeatResponse, IoFlow, LostBlocks, ReplicaReport, ScrubReport,
    StoreReport,
};
use proptest::prelude::*;

use super::context::World;
use super::desk::Desks;
use super::reports::{Taken, Word, take};
use crate::liveness::{Bounds, Heard, Liveness, Strangers};
use crate::raft::Position;
use crate::scheduler::Scheduler;
use crate::state::{
    Command, CreateCopysets, CreatePool, CreateVolume, RegisterChunkserver, ReplaceReplica, State,
    StoreSpec,
};

const ID: ChunkserverId = ChunkserverId::new(1);
const GIB: u64 = 1 << 30;
/// What two sides that reckon times may be apart: the slack, on both.
const SLACK_MS: u64 = 4000;

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn store(server: u8, at: u8) -> StoreId {
    let mut bytes = [server; 16];
    bytes[0] = at;
    StoreId::from_bytes(bytes)
}

/// Four chunkservers of two stores in four zones, and eight copysets of three of them.
fn metadata() -> State {
    let mut state = State::default();
    for server in 1..=4u8 {
        let spec = |at: u8| StoreSpec {
            class: None,
            id: store(server, at),
            shard: 0,
            path: "/dev/disk".into(),
            capacity: 1000 * GIB,
            log_capacity: GIB,
        };
        let register = RegisterChunkserver {
            name: name(&format!("cs{server}")),
            zone: name(&format!("z{server}")),
            server: name(&format!("h{server}")),
            endpoints: vec!["127.0.0.1:1".into()],
            stores: vec![spec(0), spec(1)],
            version: "1".into(),
        };
        apply(&mut state, &Command::RegisterChunkserver(register));
    }
    let pool = CreatePool {
        class: None,
        name: name("p"),
        replicas: 3,
        scatter_width: 0,
    };
    apply(&mut state, &Command::CreatePool(pool));
    let placement = |at: u8| (0..3).map(|z| store((at + z) % 4 + 1, at % 2)).collect();
    let create = CreateCopysets {
        pool: PoolId::new(1),
        existing: 0,
        placements: (0..8).map(placement).collect(),
    };
    apply(&mut state, &Command::CreateCopysets(create));
    state
}

fn apply(state: &mut State, command: &Command) {
    state.apply(command).expect("as planned");
}

fn world() -> World {
    World {
        liveness: Liveness::new(Duration::from_secs(3), bounds()),
        scheduler: Scheduler::default(),
        strangers: Strangers::default(),
        desks: Desks::default(),
    }
}

fn bounds() -> Bounds {
    Bounds {
        factor: 5,
        floor_ms: 25,
        window_max: Duration::from_secs(3),
    }
}

/// One that is told changes, and its twin.
struct Pair {
    told: World,
    twin: World,
    /// How old what was taken last was: times that it says are as old, others have gone on.
    late: Duration,
}

struct Lab {
    state: State,
    index: u64,
    epoch: Instant,
    now: Duration,
    mds: [Pair; 2],
    leads: usize,
    report: HeartbeatRequest,
    teller: Teller,
    /// What was once sent, all that there was to say then, and when.
    sent: Vec<(Word, HeartbeatRequest, Duration)>,
    refused: u32,
    changes: u32,
}

impl Lab {
    fn new() -> Self {
        let pair = || Pair {
            told: world(),
            twin: world(),
            late: Duration::ZERO,
        };
        let scrub = ScrubReport {
            passes: 1,
            ..ScrubReport::default()
        };
        let one = |at: u8| StoreReport {
            store: store(1, at).to_string(),
            path: "/dev/disk".into(),
            capacity: 1000 * GIB,
            writes: Some(IoFlow::default()),
            flushes: Some(IoFlow::default()),
            reads: Some(IoFlow::default()),
            scrub: Some(scrub),
            compare: Some(scrub),
            ..StoreReport::default()
        };
        let mut lab = Self {
            state: metadata(),
            index: 1,
            epoch: Instant::now(),
            now: Duration::ZERO,
            mds: [pair(), pair()],
            leads: 0,
            report: HeartbeatRequest {
                chunkserver: 1,
                name: "cs1".into(),
                endpoints: vec!["127.0.0.1:1".into()],
                stores: vec![one(0), one(1)],
                ..HeartbeatRequest::default()
            },
            teller: Teller::default(),
            sent: Vec::new(),
            refused: 0,
            changes: 0,
        };
        for which in 0..6 {
            lab.change_replica(0, which);
        }
        lab
    }

    /// Time passes, and with it what scrubbing says of it.
    fn wait(&mut self, ms: u64) {
        let passed = Duration::from_millis(ms);
        self.now += passed;
        age(&mut self.report.stores, passed);
    }

    /// A replica that the metadata has there, or, of a few, one that it does not know.
    fn change_replica(&mut self, what: u8, which: u64) {
        let placed = self.state.copysets().iter();
        let placed = placed.flat_map(|(id, c)| c.placed().map(|r| (id.get(), r)));
        let here = placed.filter(|(_, r)| r.chunkserver == ID);
        let here = here.map(|(id, r)| (id, r.id.get(), r.store));
        let mut all: Vec<(u32, u64, StoreId)> = here.collect();
        all.extend((1..4).map(|strange| (900 + strange, 9000, store(1, 0))));
        all.extend([(1, 9001, store(1, 0)), (2, 9002, store(1, 1))]);
        let (copyset, replica, on) = all[usize::try_from(which).expect("small") % all.len()];
        let at = self
            .report
            .replicas
            .iter()
            .position(|r| r.replica == replica);
        let Some(at) = at else {
            self.report.replicas.push(ReplicaReport {
                copyset,
                replica,
                leader_replica: replica,
                term: 1,
                store: on.to_string(),
                state: "ok".into(),
                is_led: true,
                held: Some(1 << 20),
                ..ReplicaReport::default()
            });
            return;
        };
        let report = &mut self.report.replicas[at];
        match what % 8 {
            0..=2 => {
                report.applied += which;
                report.last_log += which;
                report.requests += which;
                report.bytes += which * 4096;
            }
            3 => report.state = ["ok", "failed", "installing"][usize::from(what / 8 % 3)].into(),
            4 => (report.term, report.leader_replica) = (report.term + 1, which % 30),
            5 => {
                let wanted = self.state.copysets().get(&CopysetId::new(copyset));
                let wanted = wanted.map(|c| c.wanted_voters());
                report.voters = wanted.into_iter().flatten().map(|id| id.get()).collect();
            }
            6 => report.is_led = !report.is_led,
            _ => {
                self.report.replicas.remove(at);
            }
        }
    }

    fn change_store(&mut self, what: u8, which: u64) {
        let id = store(1, u8::try_from(which % 3).expect("small")).to_string();
        let at = self.report.stores.iter().position(|s| s.store == id);
        let Some(at) = at else {
            self.report.stores.push(StoreReport {
                store: id,
                shard: u32::from(what % 2),
                ..StoreReport::default()
            });
            return;
        };
        let report = &mut self.report.stores[at];
        match what % 8 {
            0..=2 => {
                let flow = report.writes.get_or_insert_default();
                flow.ops += which;
                flow.bytes += which * 4096;
                flow.waited_ns += which * u64::from(what) * 1_000_000;
                report.used += which;
            }
            3 => report.state = ["ok", "full", "failed"][usize::from(what / 8 % 3)].into(),
            4 => report.shard = u32::from(what / 8),
            5 => {
                let scrub = report.scrub.get_or_insert_default();
                (scrub.read, scrub.of) = (scrub.read + which, scrub.read + 2 * which);
            }
            6 if what >= 192 => {
                report.repairs.get_or_insert_default().blocks += which;
            }
            6 if what >= 128 => {
                report.drive.get_or_insert_default().media_errors += which;
            }
            6 => (report.scrub, report.reads, report.drive) = (None, None, None),
            _ => {
                self.report.stores.remove(at);
            }
        }
    }

    fn change_rest(&mut self, what: u8, which: u64) {
        let blocks = LostBlocks {
            volume: which % 3,
            chunk: u32::from(what),
            ..LostBlocks::default()
        };
        match what % 4 {
            0 => self.report.lost.push(blocks),
            1 => self.report.disputed.push(blocks),
            2 => self.report.lost.clear(),
            _ => self.report.endpoints = vec![format!("127.0.0.1:{}", which + 1)],
        }
    }

    /// The metadata changes by itself.
    fn decide(&mut self, what: u8, which: u64) {
        self.index += 1;
        let command = match what % 3 {
            0 => return,
            1 => Command::CreateVolume(CreateVolume {
                name: PathName::new(&format!("v{}", self.index)).expect("a name"),
                labels: Default::default(),
                pool: name("p"),
                size: GIB,
                stripe: StripeLayout::default().into(),
                replicas: 0,
                owner: String::new(),
                created_unix_ms: 1,
            }),
            _ => {
                let id = CopysetId::new(u32::try_from(which % 8).expect("small") + 1);
                let copyset = &self.state.copysets()[&id];
                let taken: Vec<_> = copyset.placed().map(|r| r.chunkserver.get()).collect();
                let free = (1..=4u8).find(|id| !taken.contains(&u32::from(*id)));
                let Some(free) = free else {
                    return;
                };
                Command::ReplaceReplica(ReplaceReplica {
                    copyset: id,
                    replica: copyset.replicas[usize::from(what / 3 % 3)].id,
                    store: store(free, 0),
                })
            }
        };
        // Volumes need copysets that have formed; a copyset that changes is not changed again.
        self.state.apply(&command).ok();
    }

    /// The leading one takes it, and its twin all; what they prove is written down, or fails to be.
    fn deliver(&mut self, word: Word, all: &HeartbeatRequest, fails: bool) -> Option<Taken> {
        let now = self.epoch + self.now;
        let position = Position {
            term: 1,
            index: self.index,
        };
        let as_of = (&self.state, position);
        let pair = &mut self.mds[self.leads];
        let took = take(&mut pair.told, now, as_of, ID, word).expect("well formed");
        let Some(took) = took else {
            self.refused += 1;
            return None;
        };
        pair.late = Duration::ZERO;
        let twin = take(&mut pair.twin, now, as_of, ID, Word::All(all.clone()));
        let twin = twin.expect("well formed").expect("whole");
        let mut proved = took.clone();
        proved.place = twin.place;
        assert_eq!(proved, twin, "what it proves");
        let commands = took.clone().commands(ID);
        if fails && !commands.is_empty() {
            pair.told.liveness.look_again(ID);
        } else {
            for command in &commands {
                self.state.apply(command).ok();
                self.index += 1;
            }
        }
        Some(took)
    }

    /// One heartbeat, as `dataplane/shard` makes it. Of an answer that is not heard it is not known what was taken.
    fn beat(&mut self, is_heard: bool, fails: bool) {
        let all = self.report.clone();
        let mut answer = None;
        if let Some(changes) = self.teller.changes(&all, self.now) {
            self.changes += 1;
            let word = Word::Changes(changes);
            self.sent.push((word.clone(), all.clone(), self.now));
            answer = self.deliver(word, &all, fails);
        }
        if answer.is_none() {
            self.teller.forget();
            let word = Word::All(all.clone());
            self.sent.push((word.clone(), all.clone(), self.now));
            answer = self.deliver(word, &all, fails);
        }
        let (session, report) = answer.expect("whole").place;
        let answer = HeartbeatResponse {
            known: true,
            session,
            report,
            ..HeartbeatResponse::default()
        };
        if is_heard {
            self.teller.answered(&all, Answered::of(&answer), self.now);
        } else {
            self.teller.forget();
        }
    }

    fn step(&mut self, (what, kind, which): (u8, u8, u64)) {
        match what {
            0..=29 => self.change_replica(kind, which),
            30..=44 => self.change_store(kind, which),
            45..=49 => self.change_rest(kind, which),
            50..=54 => self.decide(kind, which),
            55..=59 => {
                // Not delivered.
                self.teller.forget();
            }
            60..=64 => self.beat(false, kind % 4 == 0),
            65..=68 => {
                let late = usize::from(kind) % self.sent.len().max(1);
                if let Some((word, all, at)) = self.sent.get(late).cloned()
                    && self.deliver(word, &all, false).is_some()
                {
                    // What comes next is whole: these were not the changes that were to come.
                    self.mds[self.leads].late = self.now - at;
                }
            }
            69 => self.leads = 1 - self.leads,
            70 => {
                self.leads = 1 - self.leads;
                let now = self.epoch + self.now;
                let pair = &mut self.mds[self.leads];
                for world in [&mut pair.told, &mut pair.twin] {
                    world.liveness.begin_reign(now);
                    world.strangers = Strangers::default();
                }
            }
            71 => {
                self.mds[self.leads] = Pair {
                    told: world(),
                    twin: world(),
                    late: Duration::ZERO,
                };
            }
            72 => {
                let heard = Heard {
                    is_registration: true,
                    ..Heard::default()
                };
                let now = self.epoch + self.now;
                let pair = &mut self.mds[self.leads];
                pair.told.liveness.record(now, ID, heard.clone());
                pair.twin.liveness.record(now, ID, heard);
            }
            73 => self.wait(70_000),
            _ => {
                self.wait(900 + which);
                self.beat(true, kind % 16 == 0);
            }
        }
        self.compare();
    }

    fn compare(&self) {
        for Pair { told, twin, late } in &self.mds {
            let picture = |world: &World| {
                let mut heard = world.liveness.heard(ID).cloned();
                for usage in heard.iter_mut().flat_map(|heard| heard.stores.values_mut()) {
                    (usage.scrub, usage.compare) = (None, None);
                    usage.told = self.epoch;
                }
                heard
            };
            assert_eq!(picture(told), picture(twin), "what is heard");
            let (one, other) = (&told.liveness, &twin.liveness);
            assert_eq!(one.demand, other.demand);
            assert_eq!(one.paces, other.paces);
            let now = self.epoch + self.now;
            assert_eq!(one.silence(now, ID), other.silence(now, ID));
            assert_eq!(one.is_unstable(now, ID), other.is_unstable(now, ID));
            let strange = |world: &World| -> Vec<_> {
                let all = world.strangers.replicas(&self.state);
                all.map(|(id, it)| (id, it.clone())).collect()
            };
            assert_eq!(strange(told), strange(twin));
            for at in 0..3 {
                let (one, other) = (one.scrubs(ID, store(1, at)), other.scrubs(ID, store(1, at)));
                assert_eq!(one.is_some(), other.is_some());
                let (one, other) = (one.unwrap_or_default(), other.unwrap_or_default());
                assert_near(one.0, other.0, *late);
                assert_near(one.1, other.1, *late);
            }
        }
    }
}

fn age(stores: &mut [StoreReport], passed: Duration) {
    let ms = u64::try_from(passed.as_millis()).expect("short");
    for store in stores {
        for scrub in [&mut store.scrub, &mut store.compare].into_iter().flatten() {
            scrub.took_ms += if scrub.of > 0 { ms } else { 0 };
            scrub.ended_ms_ago += if scrub.passes > 0 { ms } else { 0 };
        }
    }
}

fn assert_near(one: Option<ScrubReport>, other: Option<ScrubReport>, late: Duration) {
    let slack = SLACK_MS + u64::try_from(late.as_millis()).expect("short");
    assert_eq!(one.is_some(), other.is_some());
    let (one, other) = (one.unwrap_or_default(), other.unwrap_or_default());
    assert_eq!(
        (one.read, one.of, one.passes),
        (other.read, other.of, other.passes)
    );
    assert!(
        one.took_ms.abs_diff(other.took_ms) <= slack,
        "{one:?} {other:?}"
    );
    let apart = one.ended_ms_ago.abs_diff(other.ended_ms_ago);
    assert!(apart <= slack, "{one:?} {other:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn changes_make_the_picture_that_whole_reports_would(
        steps in proptest::collection::vec((0u8..120, any::<u8>(), 0u64..400), 1..160),
    ) {
        let mut lab = Lab::new();
        for step in steps {
            lab.step(step);
        }
    }
}

#[test]
fn what_does_not_change_is_not_told() {
    let mut lab = Lab::new();
    for _ in 0..3 {
        lab.wait(1000);
        lab.beat(true, false);
    }
    let changes = lab.teller.changes(&lab.report, lab.now);
    let changes = changes.expect("there is a session");
    let nothing = HeartbeatRequest {
        chunkserver: 1,
        name: "cs1".into(),
        session: changes.session,
        base: changes.base,
        layout: changes.layout,
        ..HeartbeatRequest::default()
    };
    assert_eq!(changes, nothing);
    // Times that merely go on are not told either, for days; one that jumps is.
    lab.wait(3 * 86_400_000);
    lab.beat(true, false);
    let changes = |lab: &Lab| lab.teller.changes(&lab.report, lab.now).expect("a session");
    assert!(changes(&lab).stores_on.is_empty() && changes(&lab).stores.is_empty());
    lab.change_store(5, 100);
    assert_eq!(changes(&lab).stores_on.len(), 1);
    lab.change_replica(0, 1);
    let told = changes(&lab);
    assert_eq!((told.replicas_on.len(), told.replicas.len()), (1, 0));
    assert_eq!((lab.changes, lab.refused), (3, 0));
}

#[test]
fn what_has_two_of_a_name_or_too_much_is_told_whole() {
    let mut lab = Lab::new();
    let twice = lab.report.replicas[0].clone();
    lab.report.replicas.push(twice);
    for _ in 0..3 {
        lab.beat(true, false);
    }
    assert_eq!(lab.changes, 0);
    lab.report.replicas.pop();
    lab.beat(true, false);
    lab.beat(true, false);
    assert_eq!((lab.changes, lab.refused), (1, 0));
}

#[test]
fn changes_to_what_is_not_known_are_refused_and_change_nothing() {
    let mut lab = Lab::new();
    lab.beat(true, false);
    lab.beat(true, false);
    let before = lab.mds[0].told.liveness.heard(ID).cloned();
    let ok = lab.teller.changes(&lab.report, lab.now).expect("a session");
    let all = lab.report.clone();
    let broken: [fn(&mut HeartbeatRequest); 3] =
        [|it| it.session += 1, |it| it.base += 1, |it| it.session = 0];
    for break_it in broken {
        let mut changes = ok.clone();
        changes.lost.push(LostBlocks::default());
        changes.blocks_told = true;
        break_it(&mut changes);
        assert!(lab.deliver(Word::Changes(changes), &all, false).is_none());
        assert_eq!(lab.mds[0].told.liveness.heard(ID).cloned(), before);
    }
    // One that cannot be: from then on all is asked for.
    let mut odd = ok.clone();
    odd.replicas_gone.push(ReplicaId::new(77_777).get());
    assert!(lab.deliver(Word::Changes(odd), &all, false).is_none());
    assert!(lab.deliver(Word::Changes(ok), &all, false).is_none());
    assert_eq!(lab.mds[0].told.liveness.heard(ID).cloned(), before);
    lab.beat(true, false);
    lab.compare();
}
