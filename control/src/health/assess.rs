//! Stable codes with counts and remedies.

use std::collections::BTreeSet;
use std::time::Instant;

use ogee_proto::id::{ChunkserverId, CopysetId, StoreId};
use ogee_proto::name::Name;
use ogee_proto::service::HealthCode;

use super::drive::drive_condition;
use super::lost::{disputed_condition, lost_condition};
use super::maintenance::{is_spared, maintenance_condition};
use super::metadata::metadata_conditions;
use super::paused::paused_condition;
use super::reset::{is_beyond_waiting, reset_conditions};
use super::restored::restored;
use super::sick::sick_conditions;
use crate::liveness::{Liveness, ReplicaState, StoreState, StoreUsage, Strangers};
use crate::scheduler::{Bytes, HealRules, Loads, Picture, troubled, wish};
use crate::state::{Copyset, JobKind, JobState, State};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// Redundancy or capacity is at risk; I/O works.
    Warn,
    /// Some I/O does not work.
    Err,
}

/// One thing that is wrong, with where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) code: &'static str,
    pub(crate) severity: Severity,
    pub(crate) count: usize,
    what: String,
    /// The first few, by name.
    examples: Vec<String>,
    /// What it is about, for whoever asks of one of them.
    subjects: Vec<Subject>,
    remedy: String,
}

/// What something that is wrong is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// A chunkserver, by name.
    Server(Name),
    Store(StoreId),
    Copyset(CopysetId),
}

/// What is looked at.
pub(crate) struct Sight<'a> {
    pub(crate) state: &'a State,
    pub(crate) liveness: &'a Liveness,
    pub(crate) now: Instant,
    pub(crate) picture: &'a Picture,
    pub(crate) rules: &'a HealRules,
    pub(crate) strangers: &'a Strangers,
}

/// Names that a detail lists before it only counts.
const EXAMPLES_MAX: usize = 8;
/// What it is about that is told apart, of each.
const SUBJECTS_MAX: usize = 256;

impl Severity {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Warn => "WARN",
            Self::Err => "ERR",
        }
    }
}

impl Condition {
    pub(super) fn new(
        code: &'static str,
        severity: Severity,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            code,
            severity,
            count: 0,
            what: what.into(),
            examples: Vec::new(),
            subjects: Vec::new(),
            remedy: remedy.into(),
        }
    }

    /// What is wrong, without where.
    pub(super) fn what(&self) -> &str {
        &self.what
    }

    pub(super) fn add(&mut self, name: impl FnOnce() -> String) {
        self.count += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(name());
        }
    }
}

impl Condition {
    /// The same, of something that can be asked for.
    pub(super) fn add_of(&mut self, subject: Subject, name: impl FnOnce() -> String) {
        if self.subjects.len() < SUBJECTS_MAX {
            self.subjects.push(subject);
        }
        self.add(name);
    }

    pub(super) fn add_copyset(&mut self, id: CopysetId) {
        self.add_of(Subject::Copyset(id), || id.to_string());
    }
}

impl From<Condition> for HealthCode {
    fn from(condition: Condition) -> Self {
        let more = condition.count.saturating_sub(condition.examples.len());
        let mut detail = condition.what;
        if !condition.examples.is_empty() {
            detail = format!("{detail}: {}", condition.examples.join(", "));
        }
        if more > 0 && !condition.examples.is_empty() {
            detail = format!("{detail} and {more} more");
        }
        let (mut servers, mut stores, mut copysets) = (Vec::new(), Vec::new(), Vec::new());
        for subject in condition.subjects {
            match subject {
                Subject::Server(name) => servers.push(name.to_string()),
                Subject::Store(id) => stores.push(id.to_string()),
                Subject::Copyset(id) => copysets.push(id.get()),
            }
        }
        Self {
            servers,
            stores,
            copysets,
            code: condition.code.into(),
            count: u32::try_from(condition.count).unwrap_or(u32::MAX),
            detail,
            remedy: condition.remedy,
            severity: condition.severity.as_str().into(),
        }
    }
}

/// Everything that is wrong, the worst first.
pub(crate) fn assess(sight: &Sight<'_>) -> Vec<Condition> {
    let state = sight.state;
    let mut conditions = copyset_conditions(sight);
    conditions.extend(homeless(sight));
    conditions.extend(server_conditions(sight));
    conditions.extend(sick_conditions(sight));
    conditions.push(drive_condition(sight));
    conditions.extend(metadata_conditions(sight));
    conditions.push(lost_condition(sight));
    conditions.push(disputed_condition(sight));
    conditions.push(maintenance_condition(sight));
    conditions.push(paused_condition(sight));
    conditions.extend(empty_condition(state));
    conditions.extend(restored(sight));
    conditions.retain(|condition| condition.count > 0);
    conditions.sort_by_key(|c| (std::cmp::Reverse(c.severity), c.code));
    conditions
}

fn server_conditions(sight: &Sight<'_>) -> [Condition; 4] {
    let (state, liveness, now) = (sight.state, sight.liveness, sight.now);
    let now_ms = sight.picture.now_ms;
    let mut offline = Condition::new(
        "OGEE-1001",
        Severity::Warn,
        "chunkservers are offline",
        "start them: ogee chunkserver; ogee server ls shows which. One that is gone for good: ogee server \
         lost NAME, and ogee server rm NAME when it is empty",
    );
    let mut failed = Condition::new(
        "OGEE-1005",
        Severity::Warn,
        "devices have failed",
        "replace them; the replicas elsewhere serve meanwhile. Without waiting for re-protection: ogee \
         device lost STORE",
    );
    let mut full = Condition::new(
        "OGEE-1011",
        Severity::Err,
        "devices are full and refuse writes",
        "remove volumes, or add devices",
    );
    let mut nearly = nearly_full(sight.rules);
    for (id, server) in state.chunkservers() {
        if !liveness.is_online(now, *id) {
            if state.maintenance(*id, now_ms).is_none() {
                offline.add_of(Subject::Server(server.name.clone()), || {
                    server.name.to_string()
                });
            }
            continue;
        }
        let stores = liveness.heard(*id).into_iter().flat_map(|h| &h.stores);
        for (store, usage) in stores {
            let path = || {
                let path = state.stores().get(store).map_or("", |s| &s.path);
                format!("{}:{path}", server.name)
            };
            match usage.state {
                StoreState::Ok | StoreState::Worn if is_nearly_full(sight.rules, usage) => {
                    let name = || format!("{} ({} %)", path(), share_used(usage));
                    nearly.add_of(Subject::Store(*store), name);
                }
                StoreState::Ok | StoreState::Worn => {}
                StoreState::Failed => failed.add_of(Subject::Store(*store), path),
                StoreState::Full => full.add_of(Subject::Store(*store), path),
            }
        }
    }
    [offline, failed, full, nearly]
}

fn nearly_full(rules: &HealRules) -> Condition {
    let percent = rules.nearly_full_percent;
    Condition::new(
        "OGEE-1061",
        Severity::Warn,
        format!(
            "devices are nearly full: {percent} % or more is taken, and one that is full refuses writes"
        ),
        "add devices, remove volumes, or discard in guests (fstrim); ogee pool ls shows what is left. When to say so: \
         heal.nearly_full_percent",
    )
}

fn is_nearly_full(rules: &HealRules, usage: &StoreUsage) -> bool {
    rules.nearly_full_percent > 0 && share_used(usage) >= rules.nearly_full_percent
}

/// In percent.
fn share_used(usage: &StoreUsage) -> u64 {
    let share = (u128::from(usage.used) * 100).checked_div(u128::from(usage.capacity));
    u64::try_from(share.unwrap_or(0)).unwrap_or(u64::MAX)
}

fn replica_conditions(rules: &HealRules) -> [Condition; 3] {
    let damaged = Condition::new(
        "OGEE-1009",
        Severity::Warn,
        "copysets have a replica that is damaged or has stopped",
        mended(rules),
    );
    let changing = Condition::new(
        "OGEE-1010",
        Severity::Warn,
        "copysets have a replica that is being copied or replaced",
        "wait; ogee copyset show COPYSET shows how far it is",
    );
    let outrun = Condition::new(
        "OGEE-1012",
        Severity::Warn,
        "copysets have a replica that does not catch up with their writers, by copy or after it",
        "look at the device and the network of its chunkserver (ogee copyset show COPYSET), raise \
         raft.copy_rate, or let the writers slow down; the copy goes on and needs no restart",
    );
    [damaged, changing, outrun]
}

/// Copysets, each under the worst that is wrong with it.
struct Tally {
    no_quorum: Condition,
    degraded: Condition,
    recovering: Condition,
    no_leader: Condition,
    forming: Condition,
    missing: Condition,
}

impl Tally {
    fn new(sight: &Sight<'_>) -> Self {
        Self {
            no_quorum: Condition::new(
                "OGEE-1002",
                Severity::Err,
                "copysets have no quorum: their chunks cannot be read or written, and requests wait until \
                 they can",
                "start the offline chunkservers; ogee server ls. Nothing is re-protected without a majority. What will never \
                 come back: ogee server lost NAME",
            ),
            degraded: Condition::new(
                "OGEE-1003",
                Severity::Warn,
                "copysets have an offline replica",
                waiting(sight.rules),
            ),
            recovering: Condition::new(
                "OGEE-1013",
                Severity::Warn,
                recovering(sight.state),
                "wait; ogee job ls shows how far it is",
            ),
            no_leader: Condition::new(
                "OGEE-1004",
                Severity::Err,
                "copysets have no leader",
                "wait for the election; if it lasts, the chunkservers' logs say why",
            ),
            forming: Condition::new(
                "OGEE-1007",
                Severity::Warn,
                "copysets are being formed",
                "wait; if it lasts, the chunkservers' logs say why",
            ),
            missing: Condition::new(
                "OGEE-1008",
                Severity::Warn,
                "copysets have lost a replica on a chunkserver that is online",
                format!("its device was replaced or wiped; {}", mended(sight.rules)),
            ),
        }
    }
}

/// What becomes of a copyset whose replica is away.
fn waiting(rules: &HealRules) -> String {
    let when = match rules.recover_after_ms {
        0 => "recover_after_ms is 0: nothing is re-protected by itself".to_owned(),
        ms => format!("re-protected by itself {} s after it went away", ms / 1000),
    };
    format!("start the offline chunkservers; {when}; at once: ogee server lost NAME")
}

/// What becomes of a replica that does not take part although its chunkserver is online.
fn mended(rules: &HealRules) -> String {
    let when = match rules.recover_after_ms {
        0 => "recover_after_ms is 0: nothing is made anew by itself".to_owned(),
        ms => format!(
            "made anew by itself after {} s, while the others are whole and a majority",
            ms / 1000
        ),
    };
    format!(
        "{when}; at once: ogee copyset show COPYSET, then ogee copyset replace COPYSET --replica ID --to CHUNKSERVER"
    )
}

/// How far re-protection is.
fn recovering(state: &State) -> String {
    let jobs = state.jobs().values();
    let live: Vec<_> = jobs
        .filter(|job| job.kind == JobKind::Recover && job.state.is_live())
        .collect();
    let running = live
        .iter()
        .filter(|job| job.state == JobState::Running)
        .count();
    let bytes = live
        .iter()
        .fold(0u64, |sum, job| sum.saturating_add(job.bytes));
    format!(
        "copysets are degraded and being re-protected ({running} running, {} waiting, about {} MiB)",
        live.len() - running,
        bytes >> 20
    )
}

fn copyset_conditions(sight: &Sight<'_>) -> Vec<Condition> {
    let (state, liveness, now) = (sight.state, sight.liveness, sight.now);
    let mut tally = Tally::new(sight);
    let [mut damaged, mut changing, mut outrun] = replica_conditions(sight.rules);
    let [mut beyond, mut reset] = reset_conditions();
    let jobs = state.jobs().values();
    let recover = jobs.filter(|job| job.kind == JobKind::Recover && job.state.is_live());
    let recover: BTreeSet<CopysetId> = recover.map(|job| job.copyset).collect();
    let online = |id: ChunkserverId| liveness.is_online(now, id);
    for (id, copyset) in state.copysets() {
        let up = copyset
            .replicas
            .iter()
            .filter(|r| online(r.chunkserver))
            .count();
        if up * 2 <= copyset.replicas.len() && is_beyond_waiting(sight, copyset) {
            beyond.add_copyset(*id);
        } else if up * 2 <= copyset.replicas.len() {
            tally.no_quorum.add_copyset(*id);
        } else if !copyset.formed {
            tally.forming.add_copyset(*id);
        } else if liveness.leader(now, copyset).is_none() {
            tally.no_leader.add_copyset(*id);
        } else if recover.contains(id) {
            tally.recovering.add_copyset(*id);
        } else if up < copyset.replicas.len() {
            if !is_spared(sight, copyset) {
                tally.degraded.add_copyset(*id);
            }
        } else if has_lost_replica(copyset, liveness, now) {
            tally.missing.add_copyset(*id);
        } else if has_replica_in(copyset, liveness, now, &BROKEN) {
            damaged.add_copyset(*id);
        } else if copyset.change.is_some() || has_replica_in(copyset, liveness, now, &BUSY) {
            changing.add_copyset(*id);
        }
        if !copyset.is_complete() {
            reset.add_copyset(*id);
        }
        // Beside any of those: it says why they last.
        if has_replica_in(copyset, liveness, now, &[ReplicaState::Outrun]) {
            outrun.add_copyset(*id);
        }
    }
    vec![
        tally.no_quorum,
        tally.degraded,
        tally.recovering,
        tally.no_leader,
        tally.forming,
        tally.missing,
        damaged,
        changing,
        outrun,
        beyond,
        reset,
    ]
}

/// Copysets of which a replica is to leave its place and has nowhere to go.
fn homeless(sight: &Sight<'_>) -> [Condition; 2] {
    let (state, picture) = (sight.state, sight.picture);
    let bytes = Bytes::of(state, picture);
    let loads = Loads::of(state, picture);
    // What waits for its turn may have lost the target that it had.
    let running = state
        .jobs()
        .values()
        .filter(|job| job.state == JobState::Running);
    let busy: BTreeSet<CopysetId> = running.map(|job| job.copyset).collect();
    let mut zones: [BTreeSet<&Name>; 2] = Default::default();
    let mut stuck: [Vec<CopysetId>; 2] = Default::default();
    let troubled = troubled(state, picture, sight.rules);
    for id in troubled.difference(&busy) {
        let Some(copyset) = state.copysets().get(id) else {
            continue;
        };
        let Some((kind, replica)) = wish(*id, copyset, picture, sight.rules) else {
            continue;
        };
        if !loads.has_target(copyset, replica, bytes.of_one(*id, copyset)) {
            let at = usize::from(kind == JobKind::Drain);
            stuck[at].push(*id);
            zones[at].extend(state.zone_of(replica.chunkserver));
        }
    }
    let add = |zones: &BTreeSet<&Name>| {
        let zones: Vec<&str> = zones.iter().map(|zone| zone.as_str()).collect();
        format!(
            "add a chunkserver with free space in zone {}, or in a zone that has no replica of them",
            zones.join(" or ")
        )
    };
    let mut conditions = [
        Condition::new(
            "OGEE-1014",
            Severity::Warn,
            "copysets are degraded and have no re-protection target: no device that is online, with room, is \
             in a zone without a replica of them",
            add(&zones[0]),
        ),
        Condition::new(
            "OGEE-1015",
            Severity::Warn,
            "copysets cannot leave a device that is drained: no other device that is online, with room, is in \
             a zone without a replica of them",
            format!("{}; or ogee server drain NAME --cancel", add(&zones[1])),
        ),
    ];
    for (condition, stuck) in conditions.iter_mut().zip(stuck) {
        stuck.iter().for_each(|id| condition.add_copyset(*id));
    }
    conditions
}

const BUSY: [ReplicaState; 2] = [ReplicaState::Installing, ReplicaState::Repairing];
const BROKEN: [ReplicaState; 2] = [ReplicaState::Damaged, ReplicaState::Failed];

fn has_replica_in(
    copyset: &Copyset,
    liveness: &Liveness,
    now: Instant,
    states: &[ReplicaState],
) -> bool {
    copyset.replicas.iter().any(|replica| {
        let status = liveness.replica(now, replica.chunkserver, replica.id);
        status.is_some_and(|status| states.contains(&status.state))
    })
}

fn has_lost_replica(copyset: &Copyset, liveness: &Liveness, now: Instant) -> bool {
    let reported = |server, replica| liveness.replica(now, server, replica).is_some();
    copyset
        .replicas
        .iter()
        .any(|r| r.created && !reported(r.chunkserver, r.id))
}

fn empty_condition(state: &State) -> Option<Condition> {
    let mut empty = Condition::new(
        "OGEE-1006",
        Severity::Warn,
        "there is no pool with copysets: no volume can be made",
        "ogee pool create default",
    );
    if state.copysets().is_empty() {
        empty.count = 1;
        return Some(empty);
    }
    None
}
