//! The metrics themselves.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::health::{Sight, assess};
use crate::raft::View;
use crate::state::State;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CommandLabels {
    command: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JobLabels {
    kind: &'static str,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HealthLabels {
    code: &'static str,
    severity: &'static str,
}

type Level = Gauge<u64, AtomicU64>;

/// See the module.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    commands: Family<CommandLabels, Counter>,
    orders: Family<KindLabel, Counter>,
    heartbeats: Counter,
    reports: Family<KindLabel, Counter>,
    levels: Levels,
}

/// Set at each scrape.
#[derive(Default)]
struct Levels {
    leads: Level,
    term: Level,
    log_purged: Level,
    servers: Level,
    servers_online: Level,
    volumes: Level,
    volumes_attached: Level,
    copysets: Level,
    copysets_formed: Level,
    capacity: Level,
    used: Level,
    health: Family<HealthLabels, Level>,
    jobs: Family<JobLabels, Level>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("ogee_mds");
        let (requests, commands, orders) =
            (Family::default(), Family::default(), Family::default());
        let (heartbeats, reports) = (Counter::default(), Family::default());
        registry.register(
            "requests",
            "gRPC requests answered",
            Family::clone(&requests),
        );
        registry.register(
            "commands",
            "metadata commands proposed",
            Family::clone(&commands),
        );
        registry.register(
            "orders",
            "orders given to chunkservers",
            Family::clone(&orders),
        );
        registry.register(
            "heartbeats",
            "heartbeats of known chunkservers",
            heartbeats.clone(),
        );
        registry.register(
            "reports",
            "what heartbeats told: all (whole), what had changed (changes), or changes to what is not known here (refused)",
            Family::clone(&reports),
        );
        let levels = Levels::register(&mut registry);
        Self {
            registry,
            requests,
            commands,
            orders,
            heartbeats,
            reports,
            levels,
        }
    }

    pub(crate) fn request(&self, method: &'static str, code: tonic::Code) {
        let code = code_name(code);
        self.requests
            .get_or_create(&RequestLabels { method, code })
            .inc();
    }

    pub(crate) fn command(&self, command: &'static str, done: bool) {
        let outcome = if done { "done" } else { "failed" };
        self.commands
            .get_or_create(&CommandLabels { command, outcome })
            .inc();
    }

    pub(crate) fn order(&self, kind: &'static str) {
        self.orders.get_or_create(&KindLabel { kind }).inc();
    }

    pub(crate) fn heartbeat(&self, kind: &'static str) {
        self.reports.get_or_create(&KindLabel { kind }).inc();
        // What is refused is told again at once.
        if kind != "refused" {
            self.heartbeats.inc();
        }
    }

    /// Everything in text form, with the gauges set from `view` and `sight`.
    pub(crate) fn render(&self, me: u64, view: &View, sight: &Sight<'_>) -> String {
        self.levels.set(me, view, sight);
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("invariant: writing to a string cannot fail");
        text
    }
}

impl Levels {
    fn register(registry: &mut Registry) -> Self {
        let levels = Self::default();
        let mut add = |name: &str, help: &str, level: &Level| {
            registry.register(name, help, level.clone());
        };
        add(
            "leads",
            "1 on the metadata server that leads",
            &levels.leads,
        );
        add("term", "Raft term", &levels.term);
        add(
            "log_purged_index",
            "newest entry that only the snapshot has",
            &levels.log_purged,
        );
        add("chunkservers", "registered chunkservers", &levels.servers);
        add(
            "chunkservers_online",
            "chunkservers heard from",
            &levels.servers_online,
        );
        add("volumes", "volumes", &levels.volumes);
        add(
            "volumes_attached",
            "volumes in use",
            &levels.volumes_attached,
        );
        add("copysets", "copysets", &levels.copysets);
        add(
            "copysets_formed",
            "copysets that have had a leader",
            &levels.copysets_formed,
        );
        add(
            "capacity_bytes",
            "capacity of the stores that are online",
            &levels.capacity,
        );
        add(
            "used_bytes",
            "used on the stores that are online",
            &levels.used,
        );
        let health = Family::clone(&levels.health);
        registry.register("health", "things that are wrong, by code", health);
        let jobs = Family::clone(&levels.jobs);
        registry.register(
            "jobs",
            "jobs that are kept, by what has become of them",
            jobs,
        );
        levels
    }

    fn set_jobs(&self, state: &State) {
        self.jobs.clear();
        for job in state.jobs().values() {
            let (kind, state) = (job.kind.as_str(), job.state.as_str());
            self.jobs.get_or_create(&JobLabels { kind, state }).inc();
        }
    }

    fn set(&self, me: u64, view: &View, sight: &Sight<'_>) {
        let (state, liveness, now) = (&view.state, sight.liveness, sight.now);
        self.set_jobs(state);
        self.leads.set(u64::from(view.leader == Some(me)));
        self.term.set(view.term);
        self.log_purged.set(view.purged);
        self.servers.set(state.chunkservers().len() as u64);
        let online = |id: &&_| liveness.is_online(now, **id);
        self.servers_online
            .set(state.chunkservers().keys().filter(online).count() as u64);
        self.volumes.set(state.volumes().len() as u64);
        let attached = state
            .volumes()
            .values()
            .filter(|v| !v.users.all().is_empty());
        self.volumes_attached.set(attached.count() as u64);
        self.copysets.set(state.copysets().len() as u64);
        let formed = state.copysets().values().filter(|c| c.formed);
        self.copysets_formed.set(formed.count() as u64);
        let heard = state.chunkservers().keys().filter(online);
        let heard = heard
            .filter_map(|id| liveness.heard(*id))
            .flat_map(|h| h.stores.values());
        let (mut capacity, mut used) = (0u64, 0u64);
        for usage in heard {
            capacity = capacity.saturating_add(usage.capacity);
            used = used.saturating_add(usage.used);
        }
        self.capacity.set(capacity);
        self.used.set(used);
        self.health.clear();
        for condition in assess(sight) {
            let severity = condition.severity.as_str();
            let labels = HealthLabels {
                code: condition.code,
                severity,
            };
            self.health
                .get_or_create(&labels)
                .set(condition.count as u64);
        }
    }
}

const fn code_name(code: tonic::Code) -> &'static str {
    match code {
        tonic::Code::Ok => "ok",
        tonic::Code::InvalidArgument => "invalid_argument",
        tonic::Code::NotFound => "not_found",
        tonic::Code::AlreadyExists => "already_exists",
        tonic::Code::FailedPrecondition => "failed_precondition",
        tonic::Code::Aborted => "aborted",
        tonic::Code::ResourceExhausted => "resource_exhausted",
        tonic::Code::DeadlineExceeded => "deadline_exceeded",
        tonic::Code::Unavailable => "unavailable",
        _ => "other",
    }
}
