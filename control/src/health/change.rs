//! What happened between two looks at the cluster, as events.
//!
//! Who was offline and which codes were raised before the first look of a new leader is read from the
//! events that were kept, so that a change of the leading metadata server neither loses the end of an
//! outage nor reports its beginning twice. Leaders of copysets, devices and jobs are compared from one
//! look of one leader to its next only.

use std::collections::{BTreeMap, BTreeSet};

use ogee_proto::id::{CopysetId, JobId, ReplicaId};

use super::assess::{Severity, Sight, assess};
use super::repairs::Repairs;
use crate::liveness::StoreState;
use crate::state::{Event, EventLevel, JobState, State};

/// Copysets that an event names.
const NAMED_MAX: usize = 8;

/// What one look saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    offline: BTreeSet<String>,
    raised: BTreeMap<String, EventLevel>,
    repairs: Repairs,
    /// The rest; none before the first look.
    more: Option<More>,
}

#[derive(Clone, Debug, Default)]
struct More {
    failed: BTreeSet<String>,
    leaders: BTreeMap<CopysetId, ReplicaId>,
    jobs: BTreeMap<JobId, JobState>,
}

impl Seen {
    /// As the events that were kept tell it.
    pub(crate) fn recall(state: &State) -> Self {
        let mut seen = Self::default();
        for (_, event) in state.events().after(0).1 {
            let subject = event.subject.clone();
            match event.kind.as_str() {
                "server_offline" => {
                    seen.offline.insert(subject);
                }
                "server_online" | "server_removed" => {
                    seen.offline.remove(&subject);
                }
                "health_raised" => {
                    seen.raised.insert(subject, event.level);
                }
                "health_cleared" => {
                    seen.raised.remove(&subject);
                }
                _ => {}
            }
        }
        seen
    }

    /// What happened since, and takes this look's place.
    pub(crate) fn look(&mut self, sight: &Sight<'_>, at_ms: u64) -> Vec<Event> {
        let mut events = Events {
            at_ms,
            made: Vec::new(),
        };
        self.servers(sight, &mut events);
        let now = more(sight);
        if let Some(before) = &self.more {
            devices(before, &now, &mut events);
            leaders(sight, before, &now, &mut events);
            jobs(sight, before, &now, &mut events);
        }
        self.more = Some(now);
        self.repairs.look(sight, &mut events);
        self.health(sight, &mut events);
        events.made
    }

    fn servers(&mut self, sight: &Sight<'_>, events: &mut Events) {
        let mut known = BTreeSet::new();
        for (id, server) in sight.state.chunkservers() {
            let name = server.name.to_string();
            let is_online = sight.liveness.is_online(sight.now, *id);
            let text =
                |is: &str| format!("chunkserver \"{name}\" in zone \"{}\" is {is}", server.zone);
            match (is_online, self.offline.contains(&name)) {
                (false, false) => {
                    events.warn("server_offline", &name, text("offline"));
                    self.offline.insert(name.clone());
                }
                (true, true) => {
                    events.info("server_online", &name, text("online again"));
                    self.offline.remove(&name);
                }
                _ => {}
            }
            known.insert(name);
        }
        let gone: Vec<String> = self.offline.difference(&known).cloned().collect();
        for name in gone {
            events.info(
                "server_removed",
                &name,
                format!("chunkserver \"{name}\" was forgotten"),
            );
            self.offline.remove(&name);
        }
    }

    fn health(&mut self, sight: &Sight<'_>, events: &mut Events) {
        let mut raised = BTreeMap::new();
        for condition in assess(sight) {
            let level = match condition.severity {
                Severity::Warn => EventLevel::Warn,
                Severity::Err => EventLevel::Err,
            };
            let code = condition.code.to_owned();
            if !self.raised.contains_key(&code) {
                let text = format!("{code} ×{}: {}", condition.count, condition.what());
                events.add(level, "health_raised", &code, text);
            }
            raised.insert(code, level);
        }
        let cleared = self
            .raised
            .keys()
            .filter(|code| !raised.contains_key(*code));
        for code in cleared.cloned().collect::<Vec<_>>() {
            events.info("health_cleared", &code, format!("{code} is over"));
        }
        self.raised = raised;
    }
}

pub(super) struct Events {
    at_ms: u64,
    made: Vec<Event>,
}

impl Events {
    fn add(&mut self, level: EventLevel, kind: &str, subject: &str, text: String) {
        self.made
            .push(Event::new(self.at_ms, level, kind, subject, text));
    }

    fn info(&mut self, kind: &str, subject: &str, text: String) {
        self.add(EventLevel::Info, kind, subject, text);
    }

    pub(super) fn warn(&mut self, kind: &str, subject: &str, text: String) {
        self.add(EventLevel::Warn, kind, subject, text);
    }
}

fn more(sight: &Sight<'_>) -> More {
    let (state, liveness, now) = (sight.state, sight.liveness, sight.now);
    let mut seen = More::default();
    for (id, server) in state.chunkservers() {
        let heard = liveness.heard(*id).filter(|_| liveness.is_online(now, *id));
        let stores = heard.into_iter().flat_map(|heard| &heard.stores);
        for (store, _) in stores.filter(|(_, usage)| usage.state == StoreState::Failed) {
            let path = state.stores().get(store).map_or("", |store| &store.path);
            seen.failed.insert(format!("{}:{path}", server.name));
        }
    }
    for (id, copyset) in state.copysets() {
        if let Some(leader) = liveness.leader(now, copyset) {
            seen.leaders.insert(*id, leader.replica);
        }
    }
    seen.jobs = state
        .jobs()
        .iter()
        .map(|(id, job)| (*id, job.state))
        .collect();
    seen
}

fn devices(before: &More, now: &More, events: &mut Events) {
    for device in now.failed.difference(&before.failed) {
        events.warn(
            "device_failed",
            device,
            format!("device {device} has failed"),
        );
    }
}

/// One event for all: a node that dies takes many leaders with it.
fn leaders(sight: &Sight<'_>, before: &More, now: &More, events: &mut Events) {
    let changed = now.leaders.iter().filter(|(id, leader)| {
        let known = before.leaders.get(id);
        known.is_some_and(|known| known != *leader)
    });
    let mut to: BTreeMap<String, Vec<CopysetId>> = BTreeMap::new();
    for (id, leader) in changed {
        let copyset = sight.state.copysets().get(id);
        let place = copyset.and_then(|c| c.members().find(|r| r.id == *leader));
        let server = place.and_then(|r| sight.state.chunkservers().get(&r.chunkserver));
        let name = server.map_or_else(|| leader.to_string(), |server| server.name.to_string());
        to.entry(name).or_default().push(*id);
    }
    if to.is_empty() {
        return;
    }
    let count: usize = to.values().map(Vec::len).sum();
    let name = |(server, ids): (&String, &Vec<CopysetId>)| format!("{} to {server}", ids.len());
    let to: Vec<String> = to.iter().take(NAMED_MAX).map(name).collect();
    let text = format!("{count} copysets have another leader: {}", to.join(", "));
    events.info("leaders_changed", "", text);
}

fn jobs(sight: &Sight<'_>, before: &More, now: &More, events: &mut Events) {
    for (id, state) in &now.jobs {
        let was = before.jobs.get(id);
        let Some(job) = sight.state.jobs().get(id).filter(|_| was != Some(state)) else {
            continue;
        };
        let what = format!("job {}, {} of {}", id.get(), job.kind.as_str(), job.copyset);
        let subject = id.get().to_string();
        let why = job
            .ending
            .map_or_else(String::new, |ending| format!(": {ending}"));
        let ended = format!("{what} is {}{why}", state.as_str());
        match state {
            // It waits for its turn.
            JobState::Pending => {}
            JobState::Running => {
                events.info("job_started", &subject, format!("{what}: {}", job.cause));
            }
            JobState::Done | JobState::Cancelled => events.info("job_ended", &subject, ended),
            JobState::Failed => events.warn("job_failed", &subject, ended),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Seen;
    use crate::health::Sight;
    use crate::liveness::{Bounds, Heard, Liveness, Strangers};
    use crate::scheduler::{HealRules, Picture};
    use crate::state::{Command, Event, State};
    use ogee_proto::id::ChunkserverId;
    use serde_json::json;
    use std::time::{Duration, Instant};

    fn state() -> State {
        let register = json!({
            "do": "RegisterChunkserver", "name": "s1", "zone": "z1", "server": "s1",
            "endpoints": ["h:1"], "version": "1", "stores": [],
        });
        let mut state = State::default();
        let register: Command = serde_json::from_value(register).unwrap();
        state.apply(&register).unwrap();
        state
    }

    /// Looks, notes what happened, and says of what kinds it was.
    fn look(seen: &mut Seen, state: &mut State, liveness: &Liveness, now: Instant) -> Vec<String> {
        let picture = Picture::take(state, liveness, now, 1);
        let events: Vec<Event> = seen.look(
            &Sight {
                state,
                liveness,
                now,
                picture: &picture,
                rules: &HealRules::default(),
                strangers: &Strangers::default(),
            },
            1,
        );
        let kinds = events
            .iter()
            .map(|event| format!("{} {}", event.kind, event.subject));
        let kinds = kinds.collect();
        state.apply(&Command::NoteEvents { events }).unwrap();
        kinds
    }

    #[test]
    fn an_outage_begins_and_ends_once_whoever_leads() {
        let mut state = state();
        let start = Instant::now();
        let mut liveness = Liveness::new(Duration::from_secs(3), Bounds::default());
        let id = ChunkserverId::new(1);
        liveness.record(start, id, Heard::default());
        let mut seen = Seen::recall(&state);
        let first = look(&mut seen, &mut state, &liveness, start);
        assert_eq!(first, ["health_raised OGEE-1006"], "there is no pool");
        assert!(look(&mut seen, &mut state, &liveness, start).is_empty());
        let later = start + Duration::from_secs(4);
        let gone = look(&mut seen, &mut state, &liveness, later);
        assert_eq!(gone, ["server_offline s1", "health_raised OGEE-1001"]);
        // Another one leads: it neither tells of it again, nor misses the end.
        let mut other = Seen::recall(&state);
        assert!(look(&mut other, &mut state, &liveness, later).is_empty());
        liveness.record(later, id, Heard::default());
        let back = look(&mut other, &mut state, &liveness, later);
        assert_eq!(back, ["server_online s1", "health_cleared OGEE-1001"]);
    }
}
