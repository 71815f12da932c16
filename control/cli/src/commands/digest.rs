//! Collecting the digests of one copyset from its replicas.

use ogee_proto::id::{ChunkIndex, CopysetId, RequestId, Sequence, VolumeId};
use ogee_proto::service::{CopysetInfo, ReplicaInfo};
use ogee_proto::wire::{FrameHeader, FrameKind, Reader, Status, WireError};
use ogee_transport::{Caller, CallerOptions, Endpoint, Frame, Hello, Role};
use std::collections::BTreeMap;
use std::time::Duration;

/// Reading a whole replica takes time.
const COLLECT: Duration = Duration::from_secs(600);
/// Digests tried when write-back moves contents under one.
const RACE_ROUNDS: usize = 3;
/// Rounds over the replicas in search of the leader.
const LEADER_ROUNDS: usize = 50;
/// Pause between them.
const LEADER_PAUSE: Duration = Duration::from_millis(200);

/// What one chunk holds: digest and number of blocks that are not zeros.
pub(super) type Chunks = BTreeMap<(VolumeId, ChunkIndex), (u32, u32)>;

/// What one replica holds at one log index.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Holdings {
    pub(super) applied: (u64, u64),
    pub(super) chunks: Chunks,
}

/// Why a copyset could not be compared.
#[derive(Debug, thiserror::Error)]
pub(super) enum DigestError {
    #[error("no replica leads the copyset")]
    NoLeader,
    #[error("{name}: {status}")]
    Refused { name: String, status: &'static str },
    #[error("{name}: its contents moved while they were digested; try again")]
    Raced { name: String },
    #[error("{name}: {source}")]
    Unreachable {
        name: String,
        source: ogee_transport::CallError,
    },
    #[error("{name}: answer: {source}")]
    Garbled { name: String, source: WireError },
    #[error("{name} has no usable endpoint")]
    Endpoint { name: String },
}

/// What each chunkserver of a copyset answered, by name.
pub(super) type Compared = BTreeMap<String, Result<Holdings, DigestError>>;

/// Has the leader log a digest entry, then asks every replica for its result.
pub(super) async fn collect(copyset: &CopysetInfo) -> Result<Compared, DigestError> {
    for _ in 1..RACE_ROUNDS {
        let all = collect_once(copyset).await?;
        let raced = |result: &Result<_, _>| matches!(result, Err(DigestError::Raced { .. }));
        if !all.values().any(raced) {
            return Ok(all);
        }
    }
    collect_once(copyset).await
}

async fn collect_once(copyset: &CopysetInfo) -> Result<Compared, DigestError> {
    // Names the digest; a collision with an earlier one would only return that one.
    let id = Sequence::new(ogee_runtime::random_u64().max(1));
    start(copyset, id).await?;
    let mut all = BTreeMap::new();
    let voters = copyset
        .replicas
        .iter()
        .filter(|r| r.role == "voter" || r.role.is_empty());
    for replica in voters {
        let holdings = holdings(copyset, replica, id).await;
        all.insert(replica.chunkserver_name.clone(), holdings);
    }
    Ok(all)
}

async fn start(copyset: &CopysetInfo, id: Sequence) -> Result<(), DigestError> {
    for _ in 0..LEADER_ROUNDS {
        for replica in &copyset.replicas {
            let caller = caller(replica)?;
            let reply = caller.call(Frame::new(header(copyset, id, 0))).await;
            if reply.is_ok_and(|reply| reply.header.status == Status::Ok) {
                return Ok(());
            }
        }
        ogee_runtime::sleep(LEADER_PAUSE).await;
    }
    Err(DigestError::NoLeader)
}

async fn holdings(
    copyset: &CopysetInfo,
    replica: &ReplicaInfo,
    id: Sequence,
) -> Result<Holdings, DigestError> {
    let name = || replica.chunkserver_name.clone();
    let caller = caller(replica)?;
    let mut chunks = Chunks::new();
    loop {
        let mut header = header(copyset, id, 1);
        header.offset = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
        let frame = Frame::new(header);
        let reply = caller.call_within(frame, COLLECT).await;
        let reply = reply.map_err(|source| DigestError::Unreachable {
            name: name(),
            source,
        })?;
        if reply.header.status == Status::Retry {
            return Err(DigestError::Raced { name: name() });
        }
        if reply.header.status != Status::Ok {
            return Err(DigestError::Refused {
                name: name(),
                status: reply.header.status.text(),
            });
        }
        let garbled = |source| DigestError::Garbled {
            name: name(),
            source,
        };
        let (applied, total, count) = decode(&reply.meta, &mut chunks).map_err(garbled)?;
        if chunks.len() >= total as usize || count == 0 {
            return Ok(Holdings { applied, chunks });
        }
    }
}

fn decode(meta: &[u8], into: &mut Chunks) -> Result<((u64, u64), u32, u32), WireError> {
    let mut from = Reader::new(meta);
    let applied = (from.u64("applied term")?, from.u64("applied index")?);
    let total = from.u32("chunks in all")?;
    let count = from.u32("chunks here")?;
    for _ in 0..count {
        let volume = VolumeId::new(from.u64("volume")?);
        let chunk = ChunkIndex::new(from.u32("chunk")?);
        let digest = (from.u32("crc")?, from.u32("blocks")?);
        into.insert((volume, chunk), digest);
    }
    from.finish("digest")?;
    Ok((applied, total, count))
}

fn header(copyset: &CopysetInfo, id: Sequence, step: u32) -> FrameHeader {
    let mut header = FrameHeader::new(FrameKind::Digest, RequestId::new(0));
    header.copyset = CopysetId::new(copyset.id);
    header.sequence = id;
    header.length = step;
    header
}

fn caller(replica: &ReplicaInfo) -> Result<Caller, DigestError> {
    let name = || replica.chunkserver_name.clone();
    let endpoint: Result<Endpoint, _> = replica.endpoint.parse();
    let endpoint = endpoint.map_err(|_| DigestError::Endpoint { name: name() })?;
    let hello = Hello::new(Role::Admin, 0, "ogee-cli");
    Ok(Caller::with_options(
        endpoint,
        hello,
        CallerOptions::default(),
    ))
}
