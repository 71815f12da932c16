//! What of a chunkserver's report has changed since the metadata server has answered one.
//!
//! *Place*: between the whole report, made each time, and `HeartbeatChanges`. *Owner*: whoever heartbeats; no clock, no I/O.
//! *Invariants*: changes are only ever told against a report whose answer was heard, in the session that it named; after
//! anything else (no answer, a refusal, another metadata server, one that names no session) all is told. Figures are absolute:
//! a change says what is, not by how much.
//! *On failure*: [`Teller::forget`], and the next report is whole.

use crate::service::{
    HeartbeatRequest, HeartbeatResponse, IoFlow, LostBlocks, ReplicaProgress, ReplicaReport,
    ScrubReport, StoreProgress, StoreReport,
};
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

/// By so much the times of a scrub may differ from those that are reckoned before they are told again.
const CLOCK_SLACK_MS: u64 = 2000;

/// What the metadata server has confirmed, if anything.
#[derive(Debug, Default)]
pub struct Teller {
    base: Option<Base>,
}

/// What an answer confirms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// 0: nothing.
    session: u64,
    report: u64,
    layout: u64,
}

impl Answered {
    /// Of an older metadata server, or of one that took nothing: nothing.
    #[must_use]
    pub const fn of(answer: &HeartbeatResponse) -> Self {
        let is_taken = answer.known && !answer.report_all;
        Self {
            session: if is_taken { answer.session } else { 0 },
            report: answer.report,
            layout: answer.layout,
        }
    }
}

/// A report that was answered.
#[derive(Debug)]
struct Base {
    session: u64,
    report: u64,
    /// That of the copysets and peers that were taken with the answer.
    layout: u64,
    endpoints: Vec<String>,
    stores: BTreeMap<String, Known>,
    replicas: BTreeMap<u64, ReplicaReport>,
    lost: Vec<LostBlocks>,
    disputed: Vec<LostBlocks>,
}

/// A store as it was told.
#[derive(Debug)]
struct Known {
    report: StoreReport,
    /// When the times of its scrub were.
    at: Duration,
}

impl Teller {
    /// What has changed since the newest report that was answered; `None`: all is to be told. `now` is of any clock that
    /// only goes on.
    #[must_use]
    pub fn changes(&self, all: &HeartbeatRequest, now: Duration) -> Option<HeartbeatRequest> {
        let base = self.base.as_ref()?;
        // What has two of a name is told whole: changes go by names.
        let stores = by_name(&all.stores, |store| store.store.clone())?;
        let replicas = by_name(&all.replicas, |replica| replica.replica)?;
        let mut changes = HeartbeatRequest {
            chunkserver: all.chunkserver,
            name: all.name.clone(),
            // Told once, or asked for.
            volumes_removed: all.volumes_removed.clone(),
            replicas_removed: all.replicas_removed.clone(),
            volumes_reported: all.volumes_reported,
            volumes: all.volumes.clone(),
            volumes_next: all.volumes_next,
            session: base.session,
            base: base.report,
            layout: base.layout,
            ..HeartbeatRequest::default()
        };
        if all.endpoints != base.endpoints {
            changes.endpoints.clone_from(&all.endpoints);
            if all.endpoints.is_empty() {
                return None;
            }
        }
        if all.lost != base.lost || all.disputed != base.disputed {
            changes.blocks_told = true;
            changes.lost.clone_from(&all.lost);
            changes.disputed.clone_from(&all.disputed);
        }
        base.tell_stores(&stores, now, &mut changes)?;
        base.tell_replicas(&replicas, &mut changes);
        Some(changes)
    }

    /// The answer to a report that was whole, or to changes that make this of it. Called when all that the answer says
    /// was taken.
    pub fn answered(&mut self, all: &HeartbeatRequest, answer: Answered, now: Duration) {
        let before = self.base.take();
        if answer.session == 0 {
            return;
        }
        let before = before.filter(|base| base.session == answer.session);
        let known = |store: &StoreReport| {
            let before = before.as_ref().and_then(|it| it.stores.get(&store.store));
            let kept = before.filter(|before| before.clocks_go_on(store, now));
            let mut report = store.clone();
            if let Some(kept) = kept {
                (report.scrub, report.compare) = (kept.report.scrub, kept.report.compare);
            }
            let at = kept.map_or(now, |kept| kept.at);
            (store.store.clone(), Known { report, at })
        };
        self.base = Some(Base {
            session: answer.session,
            report: answer.report,
            layout: answer.layout,
            endpoints: all.endpoints.clone(),
            stores: all.stores.iter().map(known).collect(),
            replicas: (all.replicas.iter().cloned())
                .map(|replica| (replica.replica, replica))
                .collect(),
            lost: all.lost.clone(),
            disputed: all.disputed.clone(),
        });
    }

    /// Whatever was told last may not have been heard: the next report is whole.
    pub fn forget(&mut self) {
        self.base = None;
    }
}

/// None if two have the same name.
fn by_name<K: Ord, T>(all: &[T], name: impl Fn(&T) -> K) -> Option<BTreeMap<K, &T>> {
    let named: BTreeMap<K, &T> = all.iter().map(|one| (name(one), one)).collect();
    (named.len() == all.len()).then_some(named)
}

impl Base {
    /// None if one that is gone cannot be named.
    fn tell_stores(
        &self,
        now_there: &BTreeMap<String, &StoreReport>,
        now: Duration,
        changes: &mut HeartbeatRequest,
    ) -> Option<()> {
        for (name, store) in now_there {
            match self.stores.get(name) {
                None => changes.stores.push((*store).clone()),
                Some(known) => known.tell(store, now, changes),
            }
        }
        for name in self.stores.keys() {
            if !now_there.contains_key(name) {
                changes.stores_gone.push(uuid_bytes(name)?);
            }
        }
        Some(())
    }

    fn tell_replicas(
        &self,
        now_there: &BTreeMap<u64, &ReplicaReport>,
        changes: &mut HeartbeatRequest,
    ) {
        for (id, replica) in now_there {
            match self.replicas.get(id) {
                Some(before) if before == *replica => {}
                Some(before) if is_only_further(before, replica) => {
                    changes.replicas_on.push(ReplicaProgress {
                        replica: *id,
                        applied: replica.applied,
                        last_log: replica.last_log,
                        requests: replica.requests,
                        bytes: replica.bytes,
                    });
                }
                _ => changes.replicas.push((*replica).clone()),
            }
        }
        let gone = self.replicas.keys();
        let gone = gone.filter(|id| !now_there.contains_key(id));
        changes.replicas_gone.extend(gone);
    }
}

fn uuid_bytes(text: &str) -> Option<Vec<u8>> {
    let uuid = Uuid::parse_str(text).ok()?;
    Some(uuid.as_bytes().to_vec())
}

/// They differ in how far the replica is, at most.
fn is_only_further(before: &ReplicaReport, now: &ReplicaReport) -> bool {
    let as_before = ReplicaReport {
        applied: before.applied,
        last_log: before.last_log,
        requests: before.requests,
        bytes: before.bytes,
        ..now.clone()
    };
    as_before == *before
}

impl Known {
    fn tell(&self, now_is: &StoreReport, now: Duration, changes: &mut HeartbeatRequest) {
        let clocks_go_on = self.clocks_go_on(now_is, now);
        let before = &self.report;
        let mut as_before = StoreReport {
            used: before.used,
            log_used: before.log_used,
            ..now_is.clone()
        };
        // One that is not told any more cannot be left out.
        let flow = |now: Option<IoFlow>, before: Option<IoFlow>| now.and(before).or(now);
        as_before.writes = flow(now_is.writes, before.writes);
        as_before.flushes = flow(now_is.flushes, before.flushes);
        as_before.reads = flow(now_is.reads, before.reads);
        let are_told = now_is.scrub.is_some() && now_is.compare.is_some();
        if clocks_go_on || are_told {
            (as_before.scrub, as_before.compare) = (before.scrub, before.compare);
        }
        let store = uuid_bytes(&now_is.store).filter(|_| as_before == *before);
        let Some(store) = store else {
            changes.stores.push(now_is.clone());
            return;
        };
        let changed = |now: Option<IoFlow>, before: Option<IoFlow>| now.filter(|_| now != before);
        let progress = StoreProgress {
            store,
            used: now_is.used,
            log_used: now_is.log_used,
            writes: changed(now_is.writes, before.writes),
            flushes: changed(now_is.flushes, before.flushes),
            reads: changed(now_is.reads, before.reads),
            scrub: now_is.scrub.filter(|_| !clocks_go_on),
            compare: now_is.compare.filter(|_| !clocks_go_on),
        };
        let flows = [progress.writes, progress.flushes, progress.reads];
        let is_further = (now_is.used, now_is.log_used) != (before.used, before.log_used)
            || flows.iter().any(Option::is_some);
        if is_further || !clocks_go_on {
            changes.stores_on.push(progress);
        }
    }

    /// What is told of scrubbing is what the metadata server reckons anyway.
    fn clocks_go_on(&self, now_is: &StoreReport, now: Duration) -> bool {
        let passed = now.saturating_sub(self.at);
        goes_on(self.report.scrub, now_is.scrub, passed)
            && goes_on(self.report.compare, now_is.compare, passed)
    }
}

fn goes_on(before: Option<ScrubReport>, now: Option<ScrubReport>, passed: Duration) -> bool {
    match (before, now) {
        (None, None) => true,
        (Some(before), Some(now)) => {
            let reckoned = aged(before, passed);
            let is_near = |one: u64, other: u64| one.abs_diff(other) <= CLOCK_SLACK_MS;
            (before.read, before.of, before.passes) == (now.read, now.of, now.passes)
                && is_near(reckoned.took_ms, now.took_ms)
                && is_near(reckoned.ended_ms_ago, now.ended_ms_ago)
        }
        _ => false,
    }
}

/// The report, so much later, if nothing but time has passed.
#[must_use]
pub fn aged(scrub: ScrubReport, passed: Duration) -> ScrubReport {
    let passed_ms = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
    let after = |ms: u64, goes_on: bool| ms.saturating_add(if goes_on { passed_ms } else { 0 });
    ScrubReport {
        took_ms: after(scrub.took_ms, scrub.of > 0),
        ended_ms_ago: after(scrub.ended_ms_ago, scrub.passes > 0),
        ..scrub
    }
}
