//! What chunkservers report, in our words, and what it proves that the metadata does not say yet.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::time::Instant;

use ogee_proto::id::{ChunkIndex, ChunkserverId, CopysetId, ReplicaId, StoreId, VolumeId};
use ogee_proto::media::MediaClass;
use ogee_proto::service::{self, HeartbeatRequest, ReplicaName, ReplicaReport, StoreReport};
use uuid::Uuid;

use super::context::{World, unix_ms};
use super::error::ApiError;
use crate::limit::{LOST_PER_CHUNKSERVER_MAX, STORES_PER_CHUNKSERVER_MAX, TOLD_REPLICAS_MAX};
use crate::liveness::{
    Account, Blocks, Changes, LostBlocks, News, ReplicaState, ReplicaStatus, StoreState,
    StoreUsage, Told,
};
use crate::raft::Position;
use crate::state::{AdoptMembers, Command, ConfirmChanges, ConfirmRemoval, ConfirmReplicas, State};

/// A heartbeat.
#[derive(Clone, Debug)]
pub(super) enum Word {
    /// All that there is to say.
    All(HeartbeatRequest),
    /// What has changed.
    Changes(HeartbeatRequest),
}

impl Word {
    pub(super) const fn request(&self) -> &HeartbeatRequest {
        match self {
            Self::All(request) | Self::Changes(request) => request,
        }
    }
}

/// Takes it, beside that metadata. `None`: it says changes to something else than what is known here, and nothing was taken
/// of them.
pub(super) fn take(
    world: &mut World,
    now: Instant,
    as_of: (&State, Position),
    id: ChunkserverId,
    word: Word,
) -> Result<Option<Taken>, ApiError> {
    let (state, _) = as_of;
    let World {
        liveness,
        strangers,
        ..
    } = world;
    let done = Done::of(state, id, word.request());
    let (news, request) = match word {
        Word::All(request) => {
            liveness.take_all(now, as_of, id, told(&request, now)?);
            (Some(News::All), request)
        }
        Word::Changes(mut request) => {
            let changes = changes(&mut request, now)?;
            (liveness.take_changes(now, as_of, id, changes), request)
        }
    };
    let Some((news, told)) = news.zip(liveness.told(id)) else {
        return Ok(None);
    };
    strangers.hear(state, id, told, &news);
    strangers.hear_volumes(state, id, &request);
    let taken = Taken {
        place: told.place(),
        adoptions: strangers.adoptions(now, state, liveness, told),
        changed: changed(state, told, &news),
        facts: new_facts(state, id, told, &news),
        done,
    };
    if !told.takes_changes() {
        liveness.forget_told(id);
    }
    Ok(Some(taken))
}

/// What a heartbeat proves that the metadata does not say yet.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Taken {
    /// Session and number of the report.
    pub(super) place: (u64, u64),
    /// Of copysets whose voters changed after the backup.
    adoptions: Vec<AdoptMembers>,
    /// Changes that are made.
    changed: Vec<(CopysetId, ReplicaId)>,
    facts: ConfirmReplicas,
    done: Done,
}

/// Orders that are carried out.
#[derive(Clone, Debug, PartialEq)]
struct Done {
    volumes: Vec<VolumeId>,
    replicas: Vec<(CopysetId, ReplicaId)>,
}

impl Done {
    fn of(state: &State, id: ChunkserverId, request: &HeartbeatRequest) -> Self {
        let removed = request.volumes_removed.iter().map(|id| VolumeId::new(*id));
        let pending = |v: &VolumeId| {
            state
                .garbage()
                .get(v)
                .is_some_and(|g| g.pending.contains(&id))
        };
        Self {
            volumes: removed.filter(pending).collect(),
            replicas: removed_replicas(state, id, &request.replicas_removed),
        }
    }
}

impl Taken {
    pub(super) fn commands(self, chunkserver: ChunkserverId) -> Vec<Command> {
        let adoptions = self.adoptions.into_iter();
        let mut commands: Vec<Command> = adoptions.map(Command::AdoptMembers).collect();
        let changes = ConfirmChanges {
            changed: self.changed,
            removed: self.done.replicas,
            at_ms: unix_ms(),
        };
        if !changes.changed.is_empty() || !changes.removed.is_empty() {
            commands.push(Command::ConfirmChanges(changes));
        }
        if self.facts != ConfirmReplicas::default() {
            commands.push(Command::ConfirmReplicas(self.facts));
        }
        if !self.done.volumes.is_empty() {
            commands.push(Command::ConfirmRemoval(ConfirmRemoval {
                chunkserver,
                volumes: self.done.volumes,
            }));
        }
        commands
    }
}

/// A report that is whole.
fn told(request: &HeartbeatRequest, now: Instant) -> Result<Told, ApiError> {
    let stores = usages(&request.stores, now)?;
    let replicas = accounts(&request.replicas);
    let is_exact = stores.len() == request.stores.len()
        && replicas.len() == request.replicas.len()
        && replicas.len() <= TOLD_REPLICAS_MAX;
    let mut told = Told::default();
    told.endpoints.clone_from(&request.endpoints);
    (told.stores, told.replicas) = (stores, replicas);
    (told.blocks, told.is_exact) = (blocks(request), is_exact);
    Ok(told)
}

/// One that says what has changed: that is taken out of the request.
fn changes(request: &mut HeartbeatRequest, now: Instant) -> Result<Changes, ApiError> {
    let stores = usages(&request.stores, now)?;
    let replicas = accounts(&request.replicas);
    let are_named =
        stores.len() == request.stores.len() && replicas.len() == request.replicas.len();
    Ok(Changes {
        // What has two of a name is a change to nothing.
        session: if are_named { request.session } else { 0 },
        base: request.base,
        stores,
        replicas,
        blocks: request.blocks_told.then(|| blocks(request)),
        endpoints: mem::take(&mut request.endpoints),
        stores_on: mem::take(&mut request.stores_on),
        stores_gone: mem::take(&mut request.stores_gone),
        replicas_on: mem::take(&mut request.replicas_on),
        replicas_gone: mem::take(&mut request.replicas_gone),
    })
}

fn accounts(reports: &[ReplicaReport]) -> BTreeMap<ReplicaId, Account> {
    let account = |report: &ReplicaReport| {
        let replica = ReplicaId::new(report.replica);
        let status = ReplicaStatus {
            leader: ReplicaId::new(report.leader_replica),
            term: report.term,
            applied: report.applied,
            last_log: report.last_log,
            state: ReplicaState::parse(&report.state),
            requests: report.requests,
            bytes: report.bytes,
            last_term: report.last_log_term,
            is_led: report.is_led,
            held: report.held,
        };
        let account = Account {
            replica,
            copyset: CopysetId::new(report.copyset),
            status,
            store: Uuid::parse_str(&report.store).ok().map(StoreId::new),
            voters: report.voters.iter().map(|id| ReplicaId::new(*id)).collect(),
        };
        (replica, account)
    };
    reports.iter().map(account).collect()
}

fn blocks(request: &HeartbeatRequest) -> Blocks {
    (named_blocks(&request.lost), named_blocks(&request.disputed))
}

/// The first few.
fn named_blocks(told: &[service::LostBlocks]) -> Vec<LostBlocks> {
    let told = told.iter().take(LOST_PER_CHUNKSERVER_MAX);
    let blocks = told.map(|told| LostBlocks {
        volume: VolumeId::new(told.volume),
        chunk: ChunkIndex::new(told.chunk),
        first: told.first_block,
        count: told.blocks,
        copyset: CopysetId::new(told.copyset),
    });
    blocks.collect()
}

/// Empty: not known.
pub(super) fn class(text: &str) -> Result<Option<MediaClass>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = text.parse();
    parsed
        .map(Some)
        .map_err(|_| ApiError::bad_field("class", text, "hdd, ssd or nvme"))
}

pub(super) fn store_id(text: &str) -> Result<StoreId, ApiError> {
    let parsed = Uuid::parse_str(text).map(StoreId::new);
    parsed.map_err(|_| ApiError::bad_field("store", text, "a store is named by its UUID"))
}

pub(super) fn shard(report: &StoreReport) -> Result<u16, ApiError> {
    let shard = u16::try_from(report.shard);
    shard.map_err(|_| ApiError::bad_field("shard", &report.shard.to_string(), "at most 65535"))
}

/// Of the first stores, as many as there may be.
pub(super) fn usages(
    reports: &[StoreReport],
    now: Instant,
) -> Result<BTreeMap<StoreId, StoreUsage>, ApiError> {
    let reports = reports.iter().take(STORES_PER_CHUNKSERVER_MAX);
    let usage = |report: &StoreReport| {
        let usage = StoreUsage {
            shard: shard(report)?,
            capacity: report.capacity,
            used: report.used,
            log_capacity: report.log_capacity,
            log_used: report.log_used,
            state: StoreState::parse(&report.state),
            // What a chunkserver of an older version does not tell is nothing.
            flows: [report.writes, report.flushes, report.reads]
                .map(|told| told.unwrap_or_default().into()),
            failures: report.failures,
            retired: report.retired_extents,
            scrub: report.scrub,
            compare: report.compare,
            scrub_paused: report.scrub_paused,
            background: report.background,
            drive: report.drive,
            drive_unknown: report.drive_unknown,
            repairs: report.repairs.unwrap_or_default(),
            light: report.light,
            told: now,
        };
        Ok((store_id(&report.store)?, usage))
    };
    reports.map(usage).collect()
}

/// Those accounts that are to be looked at.
fn looked_at<'a>(told: &'a Told, news: &'a News) -> Box<dyn Iterator<Item = &'a Account> + 'a> {
    match news {
        News::All => Box::new(told.replicas.values()),
        News::Of(changed) => Box::new(changed.iter().filter_map(|id| told.replicas.get(id))),
    }
}

/// What the reports prove that the metadata does not say yet.
fn new_facts(state: &State, server: ChunkserverId, told: &Told, news: &News) -> ConfirmReplicas {
    let mut facts = ConfirmReplicas::default();
    for account in looked_at(told, news) {
        let (id, replica) = (account.copyset, account.replica);
        let Some(copyset) = state.copysets().get(&id) else {
            continue;
        };
        let mine = copyset
            .members()
            .find(|r| r.id == replica && r.chunkserver == server);
        let Some(mine) = mine else {
            continue;
        };
        // Also one that goes on under a new id.
        if !mine.created || copyset.reset.is_some_and(|reset| reset.to == replica) {
            facts.created.push((id, replica));
        }
        let leader = account.status.leader;
        if !copyset.formed && copyset.replicas.iter().any(|r| r.id == leader) {
            facts.formed.push(id);
        }
    }
    facts
}

/// Copysets whose wanted voters are committed, whoever says so: the new one's id was never a voter's
/// before.
fn changed(state: &State, told: &Told, news: &News) -> Vec<(CopysetId, ReplicaId)> {
    let mut changed = Vec::new();
    for account in looked_at(told, news) {
        let copyset = state.copysets().get(&account.copyset);
        let Some((copyset, change)) = copyset.and_then(|c| Some((c, c.change.as_ref()?))) else {
            continue;
        };
        let voters: BTreeSet<_> = account.voters.iter().copied().collect();
        if voters == copyset.wanted_voters() {
            changed.push((account.copyset, change.joining.id));
        }
    }
    changed
}

/// Those of the names that this chunkserver was to delete.
fn removed_replicas(
    state: &State,
    server: ChunkserverId,
    names: &[ReplicaName],
) -> Vec<(CopysetId, ReplicaId)> {
    let names = names.iter();
    let ids = names.map(|name| (CopysetId::new(name.copyset), ReplicaId::new(name.replica)));
    let was_to = |(copyset, replica): &(CopysetId, ReplicaId)| {
        if state.is_retired(server, *copyset, *replica) {
            return true;
        }
        let copyset = state.copysets().get(copyset);
        copyset.is_some_and(|c| {
            let mut leaving = c.leaving.iter();
            leaving.any(|r| r.id == *replica && r.chunkserver == server)
        })
    };
    ids.filter(was_to).collect()
}
