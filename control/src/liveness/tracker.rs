//! The newest heartbeat of each chunkserver.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;
use std::time::{Duration, Instant};

use ogee_proto::heartbeat::aged;
use ogee_proto::id::{ChunkIndex, ChunkserverId, CopysetId, ReplicaId, StoreId, VolumeId};
use ogee_proto::service::{BackgroundReport, DriveReport, LightReport, RepairReport, ScrubReport};

use super::chase::Chases;
use super::demand::Demand;
use super::pace::{Bounds, Flows, Paces};
use super::told::{Changes, News, Part, Told};
use crate::limit::UNSTABLE_FOR;
use crate::raft::Position;
use crate::state::{Copyset, State};

/// See the module.
pub(crate) struct Liveness {
    offline_after: Duration,
    servers: BTreeMap<ChunkserverId, Server>,
    /// What those whose changes are taken told.
    told: BTreeMap<ChunkserverId, Told>,
    /// Grows whenever a chunkserver or a store of it is heard of at another place.
    places: u64,
    /// When those that had been offline were heard from again.
    back: BTreeMap<ChunkserverId, Instant>,
    /// Since when all of them report here: what was heard before says nothing of an absence.
    reign: Option<Instant>,
    /// When a device is slow.
    bounds: Bounds,
    /// How devices fare.
    pub(crate) paces: Paces,
    /// What is asked of replicas that lead.
    pub(crate) demand: Demand,
    /// How those that are behind come nearer.
    pub(crate) chases: Chases,
}

/// One that was heard from.
struct Server {
    at: Instant,
    heard: Heard,
    /// Replicas of which something was asked lately.
    asked: BTreeSet<ReplicaId>,
}

/// What one heartbeat told.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Heard {
    /// `ip:port` of each shard.
    pub(crate) endpoints: Vec<String>,
    /// Its stores.
    pub(crate) stores: BTreeMap<StoreId, StoreUsage>,
    /// Its replicas.
    pub(crate) replicas: BTreeMap<ReplicaId, ReplicaStatus>,
    /// Blocks that are damaged there, and that no other replica has either.
    pub(crate) lost: BTreeSet<LostBlocks>,
    /// Blocks in which replicas differ, and no rule tells which is right.
    pub(crate) disputed: BTreeSet<LostBlocks>,
    /// It only said that it is there: no replica is missing because it was not named.
    pub(crate) is_registration: bool,
}

/// Blocks that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LostBlocks {
    pub(crate) volume: VolumeId,
    pub(crate) chunk: ChunkIndex,
    pub(crate) first: u32,
    pub(crate) count: u32,
    pub(crate) copyset: CopysetId,
}

/// How full a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoreUsage {
    pub(crate) shard: u16,
    pub(crate) capacity: u64,
    pub(crate) used: u64,
    pub(crate) log_capacity: u64,
    pub(crate) log_used: u64,
    pub(crate) state: StoreState,
    pub(crate) flows: Flows,
    /// Requests that its device failed since it was opened.
    pub(crate) failures: u64,
    /// Extents that are never used again.
    pub(crate) retired: u32,
    /// How far it has been read for what rots.
    pub(crate) scrub: Option<ScrubReport>,
    /// How far the replicas of what leads there have been compared.
    pub(crate) compare: Option<ScrubReport>,
    /// Both are paused.
    pub(crate) scrub_paused: bool,
    /// When the times of both were told.
    pub(crate) told: Instant,
    /// How fast its device is read and written in the background.
    pub(crate) background: Option<BackgroundReport>,
    /// What its drive said last of its own health.
    pub(crate) drive: Option<DriveReport>,
    /// Why not, as it came: what a newer chunkserver says is handed on.
    pub(crate) drive_unknown: i32,
    /// What was damaged there and was put right.
    pub(crate) repairs: RepairReport,
    /// What was verified of its metadata.
    pub(crate) light: Option<LightReport>,
}

/// How well a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreState {
    /// Takes everything.
    Ok,
    /// Takes nothing any more.
    Failed,
    /// Takes no new data.
    Full,
    /// Takes everything, and did not take too much of what was written to it: it is to be emptied.
    Worn,
}

/// How far a replica is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReplicaStatus {
    /// Whom it follows; 0: nobody.
    pub(crate) leader: ReplicaId,
    pub(crate) term: u64,
    pub(crate) applied: u64,
    pub(crate) last_log: u64,
    pub(crate) state: ReplicaState,
    /// Requests of clients that it took since it was opened, and their bytes.
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
    /// Term of its last log entry.
    pub(crate) last_term: u64,
    /// A majority follows it, or it has heard of its leader lately.
    pub(crate) is_led: bool,
    /// Bytes that its data takes of its device; none of an older release, or before it was measured.
    pub(crate) held: Option<u64>,
}

/// How well a replica is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ReplicaState {
    /// Takes part.
    #[default]
    Ok,
    /// Takes part; its contents are being copied.
    Installing,
    /// Leads, and sends a copy that gains nothing on the writers.
    Outrun,
    /// Has stopped.
    Failed,
    /// Is there and out of its group until its log is whole again.
    Repairing,
    /// Is there, but cannot be opened.
    Damaged,
}

impl ReplicaState {
    /// Whether it takes part in its group.
    pub(crate) const fn serves(self) -> bool {
        matches!(self, Self::Ok | Self::Installing | Self::Outrun)
    }

    /// As it is written on the wire.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Installing => "installing",
            Self::Outrun => "outrun",
            Self::Failed => "failed",
            Self::Repairing => "repairing",
            Self::Damaged => "damaged",
        }
    }

    /// What we do not know we do not trust.
    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "ok" | "" => Self::Ok,
            "installing" => Self::Installing,
            "outrun" => Self::Outrun,
            "repairing" => Self::Repairing,
            "damaged" => Self::Damaged,
            _ => Self::Failed,
        }
    }
}

/// Who leads a copyset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) replica: ReplicaId,
    pub(crate) term: u64,
}

impl StoreState {
    /// As it is written on the wire.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Full => "full",
            Self::Worn => "worn",
        }
    }

    /// What we do not know we do not trust.
    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "ok" | "" => Self::Ok,
            "full" => Self::Full,
            "worn" => Self::Worn,
            _ => Self::Failed,
        }
    }
}

impl Heard {
    /// Its shards, and its stores on them, are where those of `other` are.
    fn is_where(&self, other: &Self) -> bool {
        let shards = |heard: &Self| -> Vec<(StoreId, u16)> {
            let stores = heard.stores.iter();
            stores.map(|(id, usage)| (*id, usage.shard)).collect()
        };
        self.endpoints == other.endpoints && shards(self) == shards(other)
    }
}

impl Liveness {
    pub(crate) fn new(offline_after: Duration, bounds: Bounds) -> Self {
        Self {
            offline_after,
            servers: BTreeMap::new(),
            told: BTreeMap::new(),
            places: 0,
            back: BTreeMap::new(),
            reign: None,
            bounds,
            paces: Paces::default(),
            demand: Demand::default(),
            chases: Chases::default(),
        }
    }

    /// Takes what a registered chunkserver told, all of it.
    pub(crate) fn record(&mut self, now: Instant, id: ChunkserverId, heard: Heard) {
        self.told.remove(&id);
        self.renew(now, id, heard);
    }

    /// Takes a whole report, beside that metadata.
    pub(crate) fn take_all(
        &mut self,
        now: Instant,
        (state, as_of): (&State, Position),
        id: ChunkserverId,
        mut told: Told,
    ) {
        self.renew(now, id, told.heard(state, id));
        told.begin();
        told.as_of = Some(as_of);
        self.told.insert(id, told);
    }

    /// Takes what has changed, and says what is to be looked at. `None`: it is not of what is known here, and nothing is
    /// taken of it.
    pub(crate) fn take_changes(
        &mut self,
        now: Instant,
        (state, as_of): (&State, Position),
        id: ChunkserverId,
        changes: Changes,
    ) -> Option<News> {
        let told = self.told.get_mut(&id)?;
        let place = (changes.session, changes.base);
        if changes.session == 0 || told.place() != place || !self.servers.contains_key(&id) {
            return None;
        }
        let Some(amended) = told.amend(changes, now) else {
            self.told.remove(&id);
            return None;
        };
        // What is placed there, and what it proves, depends on the metadata; after a restore, on the others as well.
        let is_whole = told.as_of != Some(as_of) || state.only_listens();
        if is_whole {
            told.as_of = Some(as_of);
            let heard = told.heard(state, id);
            self.renew(now, id, heard);
            return Some(News::All);
        }
        let part = told.part(state, id, &amended);
        self.amend(now, id, part);
        Some(News::Of(amended.replicas))
    }

    /// What a chunkserver told last, if changes to it are taken or it was told just now.
    pub(crate) fn told(&self, id: ChunkserverId) -> Option<&Told> {
        self.told.get(&id)
    }

    /// Not all that it proves was written down: the next report is looked at as a whole.
    pub(crate) fn look_again(&mut self, id: ChunkserverId) {
        if let Some(told) = self.told.get_mut(&id) {
            told.as_of = None;
        }
    }

    /// Changes to what it told are not taken any more.
    pub(crate) fn forget_told(&mut self, id: ChunkserverId) {
        self.told.remove(&id);
    }

    /// Whether it was offline before this heartbeat is remembered; and whether two heartbeats tell what was between them.
    fn arrive(&mut self, now: Instant, id: ChunkserverId) -> bool {
        let before = self.servers.get(&id).map(|server| server.at);
        let is_ours = before.is_some_and(|at| self.reign.is_none_or(|reign| at >= reign));
        if is_ours && !self.is_online(now, id) {
            self.back.insert(id, now);
        }
        is_ours
    }

    fn renew(&mut self, now: Instant, id: ChunkserverId, heard: Heard) {
        let is_ours = self.arrive(now, id);
        for (store, usage) in &heard.stores {
            self.paces.take(now, *store, usage.flows, self.bounds);
        }
        let before = self.servers.get(&id);
        if let Some(before) = before.filter(|_| is_ours) {
            let apart = now.saturating_duration_since(before.at);
            for (replica, status) in &heard.replicas {
                if let Some(before) = before.heard.replicas.get(replica) {
                    self.demand.take(*replica, (before, status), apart);
                }
            }
        }
        if before.is_none_or(|before| !before.heard.is_where(&heard)) {
            self.places += 1;
        }
        let asked = heard.replicas.keys().copied();
        let asked = asked.filter(|id| self.demand.is_known(*id)).collect();
        let server = Server {
            at: now,
            heard,
            asked,
        };
        self.servers.insert(id, server);
    }

    /// The same if only so much has changed. Of replicas that are as they were, and of which nothing was asked lately,
    /// nothing is to be done.
    fn amend(&mut self, now: Instant, id: ChunkserverId, part: Part) {
        let is_ours = self.arrive(now, id);
        let Some(Server { at, heard, asked }) = self.servers.get_mut(&id) else {
            return;
        };
        let apart = now.saturating_duration_since(*at);
        *at = now;
        let is_elsewhere = part.endpoints.is_some()
            || !part.stores_gone.is_empty()
            || (part.stores.iter()).any(|(id, usage)| {
                let before = heard.stores.get(id);
                before.is_none_or(|before| before.shard != usage.shard)
            });
        self.places += u64::from(is_elsewhere);
        heard.endpoints = part.endpoints.unwrap_or_else(|| take(&mut heard.endpoints));
        part.stores_gone.iter().for_each(|id| {
            heard.stores.remove(id);
        });
        heard.stores.extend(part.stores);
        // Time passes for those that are as they were, too.
        for (store, usage) in &heard.stores {
            self.paces.take(now, *store, usage.flows, self.bounds);
        }
        for id in &part.replicas_gone {
            heard.replicas.remove(id);
            asked.remove(id);
        }
        let changed: BTreeSet<ReplicaId> = part.replicas.iter().map(|(id, _)| *id).collect();
        let mut pairs: Vec<(ReplicaId, ReplicaStatus, ReplicaStatus)> = Vec::new();
        for id in asked.difference(&changed) {
            let status = heard.replicas.get(id).copied();
            pairs.extend(status.map(|status| (*id, status, status)));
        }
        for (id, status) in part.replicas {
            let before = heard.replicas.insert(id, status);
            pairs.extend(before.map(|before| (id, before, status)));
        }
        for (id, before, status) in pairs.iter().filter(|_| is_ours) {
            self.demand.take(*id, (before, status), apart);
        }
        asked.extend(changed);
        asked.retain(|id| self.demand.is_known(*id));
        if let Some((lost, disputed)) = part.blocks {
            (heard.lost, heard.disputed) = (lost, disputed);
        }
    }

    /// This metadata server begins to lead.
    pub(crate) fn begin_reign(&mut self, now: Instant) {
        self.reign = Some(now);
        self.back.clear();
        self.demand.clear();
        self.chases.clear();
        self.servers
            .values_mut()
            .for_each(|server| server.asked.clear());
        // What was told and goes on in the same session is as it was; what else was remembered of it is not.
        self.told.values_mut().for_each(|told| told.as_of = None);
    }

    /// Changes when anybody is heard of at another place.
    pub(crate) const fn places(&self) -> u64 {
        self.places
    }

    /// Online, but silent for half of what makes it offline, or just back from being that.
    pub(crate) fn is_unstable(&self, now: Instant, id: ChunkserverId) -> bool {
        let is_quiet = (self.silence(now, id)).is_some_and(|it| it * 2 >= self.offline_after);
        let back = self.back.get(&id);
        let is_new = back.is_some_and(|at| now.saturating_duration_since(*at) < UNSTABLE_FOR);
        self.is_online(now, id) && (is_quiet || is_new)
    }

    /// How long ago it was heard from.
    pub(crate) fn silence(&self, now: Instant, id: ChunkserverId) -> Option<Duration> {
        let server = self.servers.get(&id)?;
        Some(now.saturating_duration_since(server.at))
    }

    pub(crate) fn is_online(&self, now: Instant, id: ChunkserverId) -> bool {
        self.silence(now, id)
            .is_some_and(|silence| silence < self.offline_after)
    }

    /// The newest heartbeat, however old.
    pub(crate) fn heard(&self, id: ChunkserverId) -> Option<&Heard> {
        self.servers.get(&id).map(|server| &server.heard)
    }

    /// How far that store had been read for what rots, and its replicas compared, when it was last heard of.
    pub(crate) fn scrubs(
        &self,
        server: ChunkserverId,
        store: StoreId,
    ) -> Option<(Option<ScrubReport>, Option<ScrubReport>)> {
        let server = self.servers.get(&server)?;
        let usage = server.heard.stores.get(&store)?;
        let passed = server.at.saturating_duration_since(usage.told);
        let then = |scrub: Option<ScrubReport>| scrub.map(|scrub| aged(scrub, passed));
        Some((then(usage.scrub), then(usage.compare)))
    }

    /// What a simulated chunkserver reports from now on.
    #[cfg(any(test, feature = "scale"))]
    pub(crate) fn reports(&mut self, id: ChunkserverId) -> &mut Heard {
        let server = self.servers.get_mut(&id).expect("it was recorded");
        &mut server.heard
    }

    /// A simulated chunkserver is not heard of any more.
    #[cfg(any(test, feature = "scale"))]
    pub(crate) fn forget(&mut self, id: ChunkserverId) {
        self.servers.remove(&id);
    }

    /// The newest report of a replica, if its chunkserver is online.
    pub(crate) fn replica(
        &self,
        now: Instant,
        server: ChunkserverId,
        replica: ReplicaId,
    ) -> Option<&ReplicaStatus> {
        let online = self.is_online(now, server);
        self.heard(server)
            .filter(|_| online)?
            .replicas
            .get(&replica)
    }

    /// Blocks that no replica has, as chunkservers that are online tell.
    pub(crate) fn lost(&self, now: Instant) -> BTreeSet<LostBlocks> {
        let lost = self.told_by_online(now).flat_map(|heard| &heard.lost);
        lost.copied().collect()
    }

    /// Blocks in which replicas differ, and no rule tells which is right, as chunkservers that are online tell.
    pub(crate) fn disputed(&self, now: Instant) -> BTreeSet<LostBlocks> {
        let disputed = self.told_by_online(now).flat_map(|heard| &heard.disputed);
        disputed.copied().collect()
    }

    fn told_by_online(&self, now: Instant) -> impl Iterator<Item = &Heard> {
        let online = self.servers.keys();
        let online = online.filter(move |id| self.is_online(now, **id));
        online.filter_map(|id| self.heard(*id))
    }

    /// Who leads, by the highest term that a replica reports a leader for. A follower's word
    /// counts: it hears of an election no later than the leader does.
    pub(crate) fn leader(&self, now: Instant, copyset: &Copyset) -> Option<Leader> {
        let reports = copyset.members();
        let reports = reports.filter_map(|r| self.replica(now, r.chunkserver, r.id));
        reports
            .filter(|status| copyset.members().any(|r| r.id == status.leader))
            .max_by_key(|status| status.term)
            .map(|status| Leader {
                replica: status.leader,
                term: status.term,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Replica;
    use ogee_proto::id::PoolId;

    fn replica(id: u64, server: u32) -> Replica {
        Replica {
            id: ReplicaId::new(id),
            chunkserver: ChunkserverId::new(server),
            store: StoreId::default(),
            created: true,
        }
    }

    fn says(replica: u64, leader: u64, term: u64) -> Heard {
        let status = ReplicaStatus {
            leader: ReplicaId::new(leader),
            term,
            state: ReplicaState::Ok,
            ..ReplicaStatus::default()
        };
        Heard {
            replicas: BTreeMap::from([(ReplicaId::new(replica), status)]),
            ..Heard::default()
        }
    }

    #[test]
    fn the_newest_term_names_the_leader_while_its_reporter_is_online() {
        let copyset = Copyset {
            pool: PoolId::new(1),
            replicas: vec![replica(11, 1), replica(12, 2), replica(13, 3)],
            conf_epoch: 1,
            formed: true,
            chunks: 0,
            change: None,
            leaving: Vec::new(),
            vacant: Vec::new(),
            reset: None,
        };
        let start = Instant::now();
        let mut liveness = Liveness::new(Duration::from_secs(3), Bounds::default());
        assert_eq!(liveness.leader(start, &copyset), None);
        liveness.record(start, ChunkserverId::new(1), says(11, 11, 4));
        let later = start + Duration::from_secs(2);
        liveness.record(later, ChunkserverId::new(2), says(12, 13, 5));
        let leader = |now| {
            liveness
                .leader(now, &copyset)
                .map(|l| (l.replica.get(), l.term))
        };
        assert_eq!(leader(later), Some((13, 5)));
        assert!(liveness.is_online(later, ChunkserverId::new(1)));
        let late = start + Duration::from_secs(3);
        assert!(!liveness.is_online(late, ChunkserverId::new(1)));
        assert_eq!(leader(late), Some((13, 5)));
        assert_eq!(leader(later + Duration::from_secs(3)), None);
    }

    #[test]
    fn one_that_was_away_is_unstable_for_a_while_but_not_by_a_change_of_leader() {
        let id = ChunkserverId::new(1);
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut liveness = Liveness::new(Duration::from_secs(4), Bounds::default());
        liveness.record(start, id, Heard::default());
        assert!(!liveness.is_unstable(after(1), id));
        assert!(liveness.is_unstable(after(2), id), "it is late");
        assert!(!liveness.is_unstable(after(9), id), "it is offline");
        liveness.record(after(9), id, Heard::default());
        assert!(liveness.is_unstable(after(9), id), "it was offline");
        liveness.record(after(40), id, Heard::default());
        assert!(liveness.is_unstable(after(40), id), "and again");
        liveness.begin_reign(after(80));
        liveness.record(after(81), id, Heard::default());
        assert!(
            !liveness.is_unstable(after(81), id),
            "others heard of it meanwhile"
        );
    }

    #[test]
    fn a_leader_that_is_no_replica_is_not_believed() {
        let copyset = Copyset {
            pool: PoolId::new(1),
            replicas: vec![replica(11, 1)],
            conf_epoch: 1,
            formed: true,
            chunks: 0,
            change: None,
            leaving: Vec::new(),
            vacant: Vec::new(),
            reset: None,
        };
        let now = Instant::now();
        let mut liveness = Liveness::new(Duration::from_secs(3), Bounds::default());
        liveness.record(now, ChunkserverId::new(1), says(11, 99, 7));
        assert_eq!(liveness.leader(now, &copyset), None);
    }
}
