//! A user whose requests come again: what it has sent, and had an answer to, arrives once more when much
//! has happened since.
//!
//! *Place*: beside the clients, with a volume of its own. The client library sends again only what was
//! not answered, and its watermark soon tells the replicas to refuse what is older; here a request that
//! somebody else holds up keeps the watermark where it is for seconds, and the network, or a retry that
//! was on its way, gives a replica everything twice. *Owner*: one host, which the nemesis leaves alone.
//! *Invariants*: a client like any other to the replicas: an epoch of its own, a seal, each number for
//! one request, and a watermark that is never above what it has not heard of. One request at a time,
//! sent until it is answered: what was answered last is what the next read finds.
//! *On failure*: a read that finds anything else ends the run by a panic.

use super::cluster::Cluster;
use super::dice::Dice;
use super::mds::{Mds, volume_name};
use super::plan::COPYSETS;
use super::workload::{fill, value_of};
use ogee_client::{AttachSpec, Control, Grant};
use ogee_proto::id::{ChunkIndex, ChunkKey, CopysetId, RequestId, Sequence, VolumeId};
use ogee_proto::limit::{BLOCK_SIZE, BLOCKS_PER_CHUNK};
use ogee_proto::wire::{FrameHeader, FrameKind, Status};
use ogee_runtime::sim::{self, HostId, world_time};
use ogee_runtime::{Payload, sleep};
use ogee_transport::{Caller, Frame, Hello, Role};
use std::time::Duration;

/// Where it runs.
const ECHO: HostId = HostId::new(95);
/// Its volume: a chunk in each copyset.
const VOLUME: u32 = 8;
/// So few that all are written again and again.
const HELD: usize = 6;
const BLOCKS: u64 = HELD as u64;
/// How long a replica may take to answer before another is asked.
const PATIENCE: Duration = Duration::from_millis(150);
/// Longest pause between two requests, in milliseconds.
const PAUSE: u64 = 25;
/// Of what was sent, so much comes again.
const REMEMBERED_MAX: usize = 400;
/// Sessions last so long, in milliseconds: a watermark stands for no longer.
const SESSION: std::ops::Range<u64> = 1000..6000;
/// Between two tries to attach.
const ATTACH_PAUSE: Duration = Duration::from_millis(300);

/// Makes its volume known.
pub fn add_volume(mds: &Mds) {
    let chunks = u32::try_from(COPYSETS.len()).expect("few");
    mds.add_volume(VOLUME, chunks, &COPYSETS);
}

/// Starts, until nobody begins anything any more.
pub fn start(cluster: &Cluster, dice: Dice) {
    let hello = || Hello::new(Role::Client, 0, "echo");
    let nodes = cluster.nodes().iter();
    let echo = Echo {
        callers: nodes
            .map(|node| Caller::new(node.endpoint(), hello()))
            .collect(),
        cluster: cluster.clone(),
        dice,
    };
    drop(sim::spawn_on(ECHO, echo.run()));
}

struct Echo {
    cluster: Cluster,
    /// One for each chunkserver.
    callers: Vec<Caller>,
    dice: Dice,
}

/// One attachment, at one copyset.
struct Session {
    grant: Grant,
    id: CopysetId,
    chunk: u32,
    until: Duration,
    /// Who answered last.
    leader: usize,
    sequence: u64,
    /// What each block holds; none if it was not told.
    holds: [Option<u64>; HELD],
    sent: Vec<(FrameHeader, Vec<u8>)>,
}

/// Nothing more is to be had of a session.
struct Ended;

impl Echo {
    async fn run(mut self) {
        while !self.cluster.shop().is_closing.get() {
            let spec = AttachSpec {
                name: volume_name(VOLUME),
                host: ECHO.get().to_string(),
                read_only: false,
            };
            match self.cluster.mds().attach(spec).await {
                Ok(grant) => {
                    let mut session = self.session(grant);
                    // Its time is over, or nobody has led for long.
                    let _ended = self.hold(&mut session).await;
                }
                Err(_) => sleep(ATTACH_PAUSE).await,
            }
        }
    }

    fn session(&mut self, grant: Grant) -> Session {
        let at = self.dice.index(COPYSETS.len());
        Session {
            grant,
            id: COPYSETS[at],
            chunk: u32::try_from(at).expect("few"),
            until: world_time() + self.dice.millis(SESSION),
            leader: 0,
            sequence: 0,
            holds: [None; HELD],
            sent: Vec::new(),
        }
    }

    async fn hold(&mut self, session: &mut Session) -> Result<(), Ended> {
        let seal = session.header(FrameKind::Seal);
        self.insist(session, &seal, &[]).await?;
        loop {
            sleep(self.dice.millis(0..PAUSE)).await;
            match self.dice.below(16) {
                0 => {
                    self.insist(session, &seal, &[]).await?;
                }
                1..=5 => self.repeat(session).await?,
                6..=9 => self.read(session).await?,
                _ => self.write(session).await?,
            }
        }
    }

    async fn write(&mut self, session: &mut Session) -> Result<(), Ended> {
        let (block, mut data) = (self.dice.below(BLOCKS), Vec::new());
        let value = self.cluster.shop().recorder.fresh_value();
        let number = u64::from(session.chunk) * BLOCKS_PER_CHUNK as u64 + block;
        fill(&mut data, VOLUME, number, value);
        session.sequence += 1;
        let mut header = session.header(FrameKind::Write);
        header.offset = offset_of(block);
        header.length = u32::try_from(BLOCK_SIZE).expect("a small number");
        header.sequence = Sequence::new(session.sequence);
        *session.holds_at(block) = None;
        self.insist(session, &header, &data).await?;
        *session.holds_at(block) = Some(value);
        if session.sent.len() == REMEMBERED_MAX {
            session.sent.remove(0);
        }
        session.sent.push((header, data));
        Ok(())
    }

    /// Something of before comes once more.
    async fn repeat(&mut self, session: &mut Session) -> Result<(), Ended> {
        if session.sent.is_empty() {
            return Ok(());
        }
        let at = self.dice.index(session.sent.len());
        let (header, data) = session.sent[at].clone();
        self.insist(session, &header, &data).await.map(drop)
    }

    async fn read(&mut self, session: &mut Session) -> Result<(), Ended> {
        let block = self.dice.below(BLOCKS);
        let mut header = session.header(FrameKind::Read);
        header.offset = offset_of(block);
        header.length = u32::try_from(BLOCK_SIZE).expect("a small number");
        let frame = self.insist(session, &header, &[]).await?;
        let number = u64::from(session.chunk) * BLOCKS_PER_CHUNK as u64 + block;
        if frame.header.status != Status::Ok {
            return Ok(());
        }
        let (found, holds) = (
            value_of(&frame.payload, VOLUME, number),
            *session.holds_at(block),
        );
        assert!(
            holds.is_none_or(|holds| holds == found),
            "VIOLATION: block {number} of volume {VOLUME} holds {found}, and {holds:?} was the last"
        );
        Ok(())
    }

    /// Sends a request until it is answered for good, to one replica after the other.
    async fn insist(
        &mut self,
        session: &mut Session,
        header: &FrameHeader,
        data: &[u8],
    ) -> Result<Frame, Ended> {
        loop {
            if world_time() >= session.until || self.cluster.shop().is_closing.get() {
                return Err(Ended);
            }
            let payload = match data {
                [] => Payload::empty(),
                data => Payload::from(data.to_vec()),
            };
            let frame = Frame::with_payload(*header, payload);
            let answer = self.callers[session.leader]
                .call_within(frame, PATIENCE)
                .await;
            let Ok(frame) = answer else {
                self.look_elsewhere(session).await;
                continue;
            };
            match frame.header.status {
                Status::Ok => return Ok(frame),
                // The one that reads has a damaged disk; it hands over, or is replaced.
                Status::Corrupt if header.kind == FrameKind::Read => return Ok(frame),
                Status::Fenced | Status::Stale | Status::BadRequest => panic!(
                    "VIOLATION: a client was told: {:?} of {header:?}",
                    frame.header.status
                ),
                _ => self.look_elsewhere(session).await,
            }
        }
    }

    async fn look_elsewhere(&mut self, session: &mut Session) {
        session.leader = self.dice.index(self.callers.len());
        sleep(self.dice.millis(1..PAUSE)).await;
    }
}

impl Session {
    fn header(&self, kind: FrameKind) -> FrameHeader {
        let mut header = FrameHeader::new(kind, RequestId::new(0));
        header.copyset = self.id;
        header.key = ChunkKey {
            volume: VolumeId::new(u64::from(VOLUME)),
            chunk: ChunkIndex::new(self.chunk),
        };
        header.client = self.grant.client;
        header.epoch = self.grant.epoch;
        header.incarnation = self.grant.incarnation;
        header
    }

    fn holds_at(&mut self, block: u64) -> &mut Option<u64> {
        &mut self.holds[usize::try_from(block).expect("few blocks")]
    }
}

fn offset_of(block: u64) -> u32 {
    u32::try_from(block * BLOCK_SIZE as u64).expect("within a chunk")
}
