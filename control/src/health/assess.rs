//! Stable codes with counts and remedies.

use std::time::Instant;

use ogee_proto::id::ChunkserverId;
use ogee_proto::service::HealthCode;

use crate::liveness::{Liveness, ReplicaState, StoreState};
use crate::state::{Copyset, State};

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
    what: &'static str,
    /// The first few, by name.
    examples: Vec<String>,
    remedy: &'static str,
}

/// Names that a detail lists before it only counts.
const EXAMPLES_MAX: usize = 8;

impl Severity {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Warn => "WARN",
            Self::Err => "ERR",
        }
    }
}

impl Condition {
    const fn new(
        code: &'static str,
        severity: Severity,
        what: &'static str,
        remedy: &'static str,
    ) -> Self {
        Self {
            code,
            severity,
            count: 0,
            what,
            examples: Vec::new(),
            remedy,
        }
    }

    fn add(&mut self, name: impl FnOnce() -> String) {
        self.count += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(name());
        }
    }
}

impl From<Condition> for HealthCode {
    fn from(condition: Condition) -> Self {
        let more = condition.count.saturating_sub(condition.examples.len());
        let mut detail = condition.what.to_owned();
        if !condition.examples.is_empty() {
            detail = format!("{detail}: {}", condition.examples.join(", "));
        }
        if more > 0 && !condition.examples.is_empty() {
            detail = format!("{detail} and {more} more");
        }
        Self {
            code: condition.code.into(),
            count: u32::try_from(condition.count).unwrap_or(u32::MAX),
            detail,
            remedy: condition.remedy.into(),
            severity: condition.severity.as_str().into(),
        }
    }
}

/// Everything that is wrong, the worst first.
pub(crate) fn assess(state: &State, liveness: &Liveness, now: Instant) -> Vec<Condition> {
    let mut conditions = copyset_conditions(state, liveness, now);
    conditions.extend(server_conditions(state, liveness, now));
    conditions.extend(empty_condition(state));
    conditions.retain(|condition| condition.count > 0);
    conditions.sort_by_key(|c| (std::cmp::Reverse(c.severity), c.code));
    conditions
}

fn server_conditions(state: &State, liveness: &Liveness, now: Instant) -> [Condition; 3] {
    let mut offline = Condition::new(
        "OGEE-1001",
        Severity::Warn,
        "chunkservers are offline",
        "start them: ogee chunkserver; ogee server list shows since when",
    );
    let mut failed = Condition::new(
        "OGEE-1005",
        Severity::Warn,
        "devices have failed",
        "replace them; the replicas elsewhere serve meanwhile",
    );
    let mut full = Condition::new(
        "OGEE-1011",
        Severity::Err,
        "devices are full and refuse writes",
        "remove volumes, or add devices",
    );
    for (id, server) in state.chunkservers() {
        if !liveness.is_online(now, *id) {
            offline.add(|| server.name.to_string());
            continue;
        }
        let stores = liveness.heard(*id).into_iter().flat_map(|h| &h.stores);
        for (store, usage) in stores {
            let path = || {
                let path = state.stores().get(store).map_or("", |s| &s.path);
                format!("{}:{path}", server.name)
            };
            match usage.state {
                StoreState::Ok => {}
                StoreState::Failed => failed.add(path),
                StoreState::Full => full.add(path),
            }
        }
    }
    [offline, failed, full]
}

const fn replica_conditions() -> [Condition; 3] {
    let damaged = Condition::new(
        "OGEE-1009",
        Severity::Warn,
        "copysets have a replica that is damaged or has stopped",
        "ogee copyset show COPYSET, then ogee copyset replace COPYSET --replica ID --to CHUNKSERVER",
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

fn copyset_conditions(state: &State, liveness: &Liveness, now: Instant) -> Vec<Condition> {
    let mut no_quorum = Condition::new(
        "OGEE-1002",
        Severity::Err,
        "copysets have no quorum: their chunks cannot be read or written",
        "start the offline chunkservers; ogee server list",
    );
    let mut degraded = Condition::new(
        "OGEE-1003",
        Severity::Warn,
        "copysets have an offline replica",
        "start the offline chunkservers; ogee server list",
    );
    let mut no_leader = Condition::new(
        "OGEE-1004",
        Severity::Err,
        "copysets have no leader",
        "wait for the election; if it lasts, the chunkservers' logs say why",
    );
    let mut forming = Condition::new(
        "OGEE-1007",
        Severity::Warn,
        "copysets are being formed",
        "wait; if it lasts, the chunkservers' logs say why",
    );
    let mut missing = Condition::new(
        "OGEE-1008",
        Severity::Warn,
        "copysets have lost a replica on a chunkserver that is online",
        "its device was replaced or wiped: ogee copyset show COPYSET, then ogee copyset replace \
         COPYSET --replica ID --to CHUNKSERVER",
    );
    let [mut damaged, mut changing, mut outrun] = replica_conditions();
    let online = |id: ChunkserverId| liveness.is_online(now, id);
    for (id, copyset) in state.copysets() {
        let name = || id.to_string();
        let up = copyset
            .replicas
            .iter()
            .filter(|r| online(r.chunkserver))
            .count();
        if up * 2 <= copyset.replicas.len() {
            no_quorum.add(name);
        } else if !copyset.formed {
            forming.add(name);
        } else if liveness.leader(now, copyset).is_none() {
            no_leader.add(name);
        } else if up < copyset.replicas.len() {
            degraded.add(name);
        } else if has_lost_replica(copyset, liveness, now) {
            missing.add(name);
        } else if has_replica_in(copyset, liveness, now, &BROKEN) {
            damaged.add(name);
        } else if copyset.change.is_some() || has_replica_in(copyset, liveness, now, &BUSY) {
            changing.add(name);
        }
        // Beside any of those: it says why they last.
        if has_replica_in(copyset, liveness, now, &[ReplicaState::Outrun]) {
            outrun.add(name);
        }
    }
    vec![
        no_quorum, degraded, no_leader, forming, missing, damaged, changing, outrun,
    ]
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
