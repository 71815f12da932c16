//! Raft's values in JSON: on disk and between metadata servers.
//!
//! openraft's own serde support is off, since it would bind the data path's types too. Records
//! here are ours, so a new openraft cannot change the format behind our back.

use std::collections::{BTreeMap, BTreeSet};

use ogee_proto::checksum::crc32c_append;
use openraft::entry::EntryPayload;
use openraft::impls::BasicNode;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use openraft::vote::RaftLeaderId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::LedgerError;
use super::types::{
    Entry, Group, LeaderId, LogId, Membership, Payload, SnapshotMeta, StoredMembership, Vote,
};
use crate::state::{Command, FIRST_VERSION, State};

/// Encodes a record.
pub(super) fn encode<T: Serialize>(
    record: &'static str,
    value: &T,
) -> Result<Vec<u8>, LedgerError> {
    serde_json::to_vec(value).map_err(|error| LedgerError::Record { record, error })
}

/// Decodes a record.
pub(super) fn decode<T: DeserializeOwned>(
    record: &'static str,
    bytes: &[u8],
) -> Result<T, LedgerError> {
    serde_json::from_slice(bytes).map_err(|error| LedgerError::Record { record, error })
}

/// A digest of all metadata, as it stands in a snapshot: length and CRC32C of that, in hex. Members that have
/// applied the same entries have the same.
pub(crate) fn digest(state: &State) -> Result<String, LedgerError> {
    let mut sum = Sum::default();
    let written = serde_json::to_writer(&mut sum, state);
    let record = "digest";
    written.map_err(|error| LedgerError::Record { record, error })?;
    Ok(format!("{:x}-{:08x}", sum.length, sum.crc))
}

/// Keeps nothing of what is written to it but that.
#[derive(Default)]
struct Sum {
    length: u64,
    crc: u32,
}

impl std::io::Write for Sum {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.length += bytes.len() as u64;
        self.crc = crc32c_append(self.crc, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LogIdRecord {
    term: u64,
    index: u64,
}

impl From<&LogId> for LogIdRecord {
    fn from(id: &LogId) -> Self {
        Self {
            term: id.leader_id.term,
            index: id.index,
        }
    }
}

impl From<LogIdRecord> for LogId {
    fn from(record: LogIdRecord) -> Self {
        Self::new(LeaderId::new(record.term, 0).to_committed(), record.index)
    }
}

fn record_of(id: Option<&LogId>) -> Option<LogIdRecord> {
    id.map(LogIdRecord::from)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VoteRecord {
    term: u64,
    voted_for: u64,
    committed: bool,
}

impl From<&Vote> for VoteRecord {
    fn from(vote: &Vote) -> Self {
        Self {
            term: vote.leader_id.term,
            voted_for: vote.leader_id.voted_for,
            committed: vote.committed,
        }
    }
}

impl From<VoteRecord> for Vote {
    fn from(record: VoteRecord) -> Self {
        if record.committed {
            Self::new_committed(record.term, record.voted_for)
        } else {
            Self::new(record.term, record.voted_for)
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct MembershipRecord {
    configs: Vec<BTreeSet<u64>>,
    nodes: BTreeMap<u64, String>,
}

impl From<&Membership> for MembershipRecord {
    fn from(membership: &Membership) -> Self {
        let nodes = membership.nodes();
        Self {
            configs: membership.get_joint_config().clone(),
            nodes: nodes.map(|(id, node)| (*id, node.addr.clone())).collect(),
        }
    }
}

impl TryFrom<MembershipRecord> for Membership {
    type Error = LedgerError;

    fn try_from(record: MembershipRecord) -> Result<Self, LedgerError> {
        if record.configs.is_empty() {
            return Ok(Self::default());
        }
        let nodes = record.nodes.into_iter();
        let nodes: BTreeMap<u64, BasicNode> =
            nodes.map(|(id, addr)| (id, BasicNode { addr })).collect();
        Self::new(record.configs, nodes).map_err(|_| LedgerError::Membership)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum PayloadRecord {
    Blank,
    Command(Command),
    Membership(MembershipRecord),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct EntryRecord {
    id: LogIdRecord,
    payload: PayloadRecord,
}

impl From<&Entry> for EntryRecord {
    fn from(entry: &Entry) -> Self {
        let payload = match &entry.payload {
            EntryPayload::Blank => PayloadRecord::Blank,
            EntryPayload::Normal(command) => PayloadRecord::Command(command.clone()),
            EntryPayload::Membership(m) => PayloadRecord::Membership(m.into()),
        };
        Self {
            id: (&entry.log_id).into(),
            payload,
        }
    }
}

impl EntryRecord {
    /// What whoever reads it must understand.
    pub(super) fn version(&self) -> u32 {
        match &self.payload {
            PayloadRecord::Command(command) => command.version(),
            PayloadRecord::Blank | PayloadRecord::Membership(_) => FIRST_VERSION,
        }
    }

    pub(super) fn into_entry(self) -> Result<Entry, LedgerError> {
        let payload: Payload = match self.payload {
            PayloadRecord::Blank => EntryPayload::Blank,
            PayloadRecord::Command(command) => EntryPayload::Normal(command),
            PayloadRecord::Membership(m) => EntryPayload::Membership(m.try_into()?),
        };
        Ok(Entry {
            log_id: self.id.into(),
            payload,
        })
    }
}

/// The whole metadata as of a log position.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SnapshotRecord {
    last: Option<LogIdRecord>,
    membership_id: Option<LogIdRecord>,
    membership: MembershipRecord,
    state: State,
}

impl SnapshotRecord {
    pub(super) fn new(meta: &SnapshotMeta, state: &State) -> Self {
        Self {
            last: record_of(meta.last_log_id.as_ref()),
            membership_id: record_of(meta.last_membership.log_id().as_ref()),
            membership: meta.last_membership.membership().into(),
            state: state.clone(),
        }
    }

    /// The first record of a new group of one member.
    pub(super) fn first(term: u64, index: u64, member: u64, addr: String, state: State) -> Self {
        let id = Some(LogIdRecord { term, index });
        let membership = MembershipRecord {
            configs: vec![BTreeSet::from([member])],
            nodes: BTreeMap::from([(member, addr)]),
        };
        Self {
            last: id,
            membership_id: id,
            membership,
            state,
        }
    }

    pub(super) const fn last(&self) -> Option<LogIdRecord> {
        self.last
    }

    /// What whoever reads it must understand.
    pub(super) const fn version(&self) -> u32 {
        self.state.version()
    }

    pub(super) fn into_parts(self) -> Result<(SnapshotMeta, State), LedgerError> {
        if let Some(what) = self.state.contradiction() {
            return Err(LedgerError::State { what });
        }
        let membership_id = self.membership_id.map(LogId::from);
        let meta = SnapshotMeta {
            last_log_id: self.last.map(LogId::from),
            last_membership: StoredMembership::new(membership_id, self.membership.try_into()?),
        };
        Ok((meta, self.state))
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AppendRecord {
    vote: VoteRecord,
    previous: Option<LogIdRecord>,
    committed: Option<LogIdRecord>,
    entries: Vec<EntryRecord>,
}

impl AppendRecord {
    /// What whoever reads it must understand.
    pub(super) fn version(&self) -> u32 {
        let versions = self.entries.iter().map(EntryRecord::version);
        versions.max().unwrap_or(FIRST_VERSION)
    }
}

impl From<&AppendEntriesRequest<Group>> for AppendRecord {
    fn from(request: &AppendEntriesRequest<Group>) -> Self {
        Self {
            vote: (&request.vote).into(),
            previous: record_of(request.prev_log_id.as_ref()),
            committed: record_of(request.leader_commit.as_ref()),
            entries: request.entries.iter().map(EntryRecord::from).collect(),
        }
    }
}

impl TryFrom<AppendRecord> for AppendEntriesRequest<Group> {
    type Error = LedgerError;

    fn try_from(record: AppendRecord) -> Result<Self, LedgerError> {
        let entries = record.entries.into_iter().map(EntryRecord::into_entry);
        Ok(Self {
            vote: record.vote.into(),
            prev_log_id: record.previous.map(LogId::from),
            leader_commit: record.committed.map(LogId::from),
            entries: entries.collect::<Result<_, _>>()?,
        })
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum AppendReply {
    Success,
    Partial(Option<LogIdRecord>),
    Conflict,
    HigherVote(VoteRecord),
}

impl From<&AppendEntriesResponse<Group>> for AppendReply {
    fn from(response: &AppendEntriesResponse<Group>) -> Self {
        match response {
            AppendEntriesResponse::Success => Self::Success,
            AppendEntriesResponse::PartialSuccess(id) => Self::Partial(record_of(id.as_ref())),
            AppendEntriesResponse::Conflict => Self::Conflict,
            AppendEntriesResponse::HigherVote(vote) => Self::HigherVote(vote.into()),
        }
    }
}

impl From<AppendReply> for AppendEntriesResponse<Group> {
    fn from(reply: AppendReply) -> Self {
        match reply {
            AppendReply::Success => Self::Success,
            AppendReply::Partial(id) => Self::PartialSuccess(id.map(LogId::from)),
            AppendReply::Conflict => Self::Conflict,
            AppendReply::HigherVote(vote) => Self::HigherVote(vote.into()),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct BallotRecord {
    vote: VoteRecord,
    last: Option<LogIdRecord>,
    transfer: bool,
}

impl From<&VoteRequest<Group>> for BallotRecord {
    fn from(request: &VoteRequest<Group>) -> Self {
        Self {
            vote: (&request.vote).into(),
            last: record_of(request.last_log_id.as_ref()),
            transfer: request.leadership_transfer,
        }
    }
}

impl From<BallotRecord> for VoteRequest<Group> {
    fn from(record: BallotRecord) -> Self {
        let mut request = Self::new(record.vote.into(), record.last.map(LogId::from));
        request.leadership_transfer = record.transfer;
        request
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct BallotReply {
    vote: VoteRecord,
    last: Option<LogIdRecord>,
    granted: bool,
}

impl From<&VoteResponse<Group>> for BallotReply {
    fn from(response: &VoteResponse<Group>) -> Self {
        Self {
            vote: (&response.vote).into(),
            last: record_of(response.last_log_id.as_ref()),
            granted: response.vote_granted,
        }
    }
}

impl From<BallotReply> for VoteResponse<Group> {
    fn from(reply: BallotReply) -> Self {
        let vote = Vote::from(reply.vote);
        Self::new(vote, reply.last.map(LogId::from), reply.granted)
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct InstallRecord {
    pub(super) vote: VoteRecord,
    pub(super) snapshot: SnapshotRecord,
}

/// Who is to lead from now on; the answer says whether that was taken note of.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TransferRecord {
    vote: VoteRecord,
    to: u64,
    last: Option<LogIdRecord>,
}

impl From<&TransferLeaderRequest<Group>> for TransferRecord {
    fn from(request: &TransferLeaderRequest<Group>) -> Self {
        Self {
            vote: request.from_leader().into(),
            to: *request.to_node_id(),
            last: record_of(request.last_log_id()),
        }
    }
}

impl From<TransferRecord> for TransferLeaderRequest<Group> {
    fn from(record: TransferRecord) -> Self {
        let last = record.last.map(LogId::from);
        Self::new(record.vote.into(), record.to, last)
    }
}

/// The answer to an [`InstallRecord`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct InstallReply {
    vote: VoteRecord,
}

impl From<&SnapshotResponse<Group>> for InstallReply {
    fn from(response: &SnapshotResponse<Group>) -> Self {
        Self {
            vote: (&response.vote).into(),
        }
    }
}

impl From<InstallReply> for SnapshotResponse<Group> {
    fn from(reply: InstallReply) -> Self {
        Self::new(reply.vote.into())
    }
}

#[cfg(test)]
mod tests {
    use super::{SnapshotRecord, decode, digest};
    use crate::raft::error::LedgerError;
    use crate::raft::types::SnapshotMeta;
    use crate::state::{Command, State};
    use ogee_proto::checksum::crc32c;
    use serde_json::{Value, json};

    /// With one volume.
    fn state() -> State {
        let store = |number: u64| format!("00000000-0000-0000-0000-00000000000{number}");
        let server = |number: u64| {
            json!({
                "do": "RegisterChunkserver", "name": format!("s{number}"), "zone": format!("z{number}"),
                "server": format!("s{number}"), "endpoints": ["h:1"], "version": "1",
                "stores": [{
                    "id": store(number), "shard": 0, "path": "/d", "capacity": 1_u64 << 30,
                    "log_capacity": 1 << 20,
                }],
            })
        };
        let commands = [
            server(1),
            server(2),
            server(3),
            json!({"do": "CreatePool", "name": "p", "replicas": 3}),
            json!({
                "do": "CreateCopysets", "pool": 1, "existing": 0,
                "placements": [[store(1), store(2), store(3)]],
            }),
            json!({"do": "ConfirmReplicas", "created": [], "formed": [1]}),
            json!({
                "do": "CreateVolume", "name": "v", "pool": "p", "size": 64 << 20,
                "stripe": {"unit": 65536, "count": 4}, "replicas": 0, "owner": "o",
                "created_unix_ms": 5,
            }),
        ];
        let mut state = State::default();
        for command in commands {
            let command: Command = serde_json::from_value(command).unwrap();
            state.apply(&command).unwrap();
        }
        state
    }

    /// Also of a member that got it as a snapshot, and not entry by entry.
    #[test]
    fn a_digest_tells_states_apart() {
        let state = state();
        let ours = digest(&state).unwrap();
        let bytes = serde_json::to_vec(&state).unwrap();
        assert_eq!(
            ours,
            format!("{:x}-{:08x}", bytes.len(), crc32c(&bytes)),
            "of the encoding"
        );
        let record = SnapshotRecord::new(&SnapshotMeta::default(), &state);
        let copy = read(&serde_json::to_value(record).unwrap()).unwrap();
        assert_eq!(digest(&copy).unwrap(), ours);
        let mut other = state;
        let resize = json!({"do": "ResizeVolume", "name": "v", "size": 128 << 20});
        let resize: Command = serde_json::from_value(resize).unwrap();
        other.apply(&resize).unwrap();
        assert_ne!(digest(&other).unwrap(), ours);
    }

    fn read(record: &Value) -> Result<State, LedgerError> {
        let bytes = serde_json::to_vec(record).unwrap();
        let record: SnapshotRecord = decode("snapshot", &bytes)?;
        Ok(record.into_parts()?.1)
    }

    /// It would end a metadata server in the middle of a later command: it is refused when it is read.
    #[test]
    fn a_snapshot_that_contradicts_itself_is_refused() {
        let state = state();
        let meta = SnapshotMeta::default();
        let whole = serde_json::to_value(SnapshotRecord::new(&meta, &state)).unwrap();
        assert!(read(&whole).unwrap() == state);
        let changes = [
            ("/issued/volume", json!(u64::MAX)),
            ("/issued/copyset", json!(u32::MAX)),
            ("/copysets/1/chunks", json!(u64::MAX)),
            ("/copysets/1/conf_epoch", json!(u64::MAX)),
            ("/volumes/1/epoch", json!(u64::MAX)),
            ("/volumes/1/segments", json!([])),
            ("/volumes/1/segments/0/first_chunk", json!(1)),
            ("/volumes/1/segments/0/copysets", json!([])),
            ("/volumes/1/stripe/unit", json!(3)),
            ("/volumes/1/stripe/count", json!(0)),
        ];
        for (place, value) in changes {
            let mut record = whole.clone();
            let found = record["state"].pointer_mut(place);
            *found.unwrap_or_else(|| panic!("no {place}")) = value;
            let refused = read(&record).map(drop).map_err(|error| error.code());
            assert_eq!(refused, Err("OGEE-2109"), "{place}");
        }
    }
}
