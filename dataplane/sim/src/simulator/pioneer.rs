//! A user that is quicker than any client library: it takes a volume over and writes at whoever leads,
//! from the moment on at which somebody does.
//!
//! *Place*: beside the clients, started by the nemesis when a leader is being deposed. The library asks
//! the metadata server who leads, and waits for an old leader for seconds; what a deposed leader must
//! not say any more is often wrong for some milliseconds only. *Owner*: one host, which the nemesis
//! leaves alone. *Invariants*: a client like any other to the replicas: an epoch of its own, a seal,
//! each number once; what is not answered in time is never sent again, and all that follows says so.
//! *On failure*: it gives up, and leaves the volume to a client.

use super::cluster::Cluster;
use super::dice::Dice;
use super::mds::volume_name;
use super::recorder::fence_of;
use super::workload::fill;
use ogee_client::{AttachSpec, Control, Grant};
use ogee_proto::id::{ChunkIndex, ChunkKey, CopysetId, RequestId, Sequence, VolumeId};
use ogee_proto::limit::{BLOCK_SIZE, BLOCKS_PER_CHUNK};
use ogee_proto::wire::{FrameHeader, FrameKind, Status};
use ogee_runtime::sim::{self, HostId, world_time};
use ogee_runtime::{Payload, sleep};
use ogee_transport::{Caller, Frame, Hello, Role};
use std::time::Duration;

/// Where all of them run.
const PIONEERS: HostId = HostId::new(93);
/// How long a replica may take to answer a seal: most do not lead, and some hear nothing.
const SEAL_PATIENCE: Duration = Duration::from_millis(60);
/// How long a write waits for its answer.
const WRITE_PATIENCE: Duration = Duration::from_millis(300);
/// Longest pause between two requests, in milliseconds.
const PAUSE: u64 = 12;

/// Sends one to the replicas of a copyset on some hosts, for a while.
pub fn start(cluster: &Cluster, id: CopysetId, hosts: &[HostId], until: Duration, mut dice: Dice) {
    let seat = dice.index(cluster.seats().len());
    let hello = || Hello::new(Role::Client, 0, "pioneer");
    let callers = hosts
        .iter()
        .map(|host| Caller::new(cluster.node(*host).endpoint(), hello()))
        .collect();
    let pioneer = Pioneer {
        cluster: cluster.clone(),
        seat,
        id,
        callers,
        until,
        dice,
    };
    drop(sim::spawn_on(PIONEERS, pioneer.run()));
}

struct Pioneer {
    cluster: Cluster,
    /// Whose volume it takes over.
    seat: usize,
    id: CopysetId,
    callers: Vec<Caller>,
    until: Duration,
    dice: Dice,
}

impl Pioneer {
    async fn run(mut self) {
        let spec = AttachSpec {
            name: volume_name(self.volume()),
            host: PIONEERS.get().to_string(),
            read_only: false,
        };
        let Ok(grant) = self.cluster.mds().attach(spec).await else {
            return;
        };
        self.write_all_the_time(&grant).await;
        if !self.cluster.shop().is_closing.get() {
            self.cluster.attach(&self.cluster.seats()[self.seat]);
        }
    }

    fn volume(&self) -> u32 {
        self.cluster.seats()[self.seat].usage.volume
    }

    fn is_over(&self) -> bool {
        self.cluster.shop().is_closing.get() || world_time() >= self.until
    }

    async fn write_all_the_time(&mut self, grant: &Grant) {
        let Some(leader) = self.seal(grant).await else {
            return;
        };
        let fence = fence_of(grant.epoch, grant.incarnation);
        let volume = self.volume();
        self.cluster.shop().recorder.sealed(volume, self.id, fence);
        let mut sequence = 0;
        while !self.is_over() {
            sequence += 1;
            if self.write(grant, leader, sequence).await.is_err() {
                return;
            }
            sleep(self.dice.millis(0..PAUSE)).await;
        }
    }

    /// Who takes the seal: it leads.
    async fn seal(&mut self, grant: &Grant) -> Option<usize> {
        while !self.is_over() {
            for (at, caller) in self.callers.iter().enumerate() {
                let frame = Frame::new(self.header(FrameKind::Seal, grant));
                let answer = caller.call_within(frame, SEAL_PATIENCE).await;
                if answer.is_ok_and(|frame| frame.header.status == Status::Ok) {
                    return Some(at);
                }
            }
            sleep(self.dice.millis(0..PAUSE)).await;
        }
        None
    }

    /// One block. An error: it is not the volume's user any more.
    async fn write(&mut self, grant: &Grant, leader: usize, sequence: u64) -> Result<(), Fenced> {
        let (recorder, usage) = (
            &self.cluster.shop().recorder,
            &self.cluster.seats()[self.seat].usage,
        );
        let block = self.dice.below(usage.hot);
        let chunk = usage.chunk_of(self.id);
        let number = u64::from(chunk) * BLOCKS_PER_CHUNK as u64 + block;
        let (value, mut data) = (recorder.fresh_value(), Vec::new());
        fill(&mut data, usage.volume, number, value);
        let mut header = self.header(FrameKind::Write, grant);
        header.key.chunk = ChunkIndex::new(chunk);
        header.offset = u32::try_from(block * BLOCK_SIZE as u64).expect("within a chunk");
        header.length = u32::try_from(BLOCK_SIZE).expect("a small number");
        header.sequence = Sequence::new(sequence);
        header.watermark = Sequence::new(sequence - 1);
        let place = usage.place(number);
        let fence = fence_of(grant.epoch, grant.incarnation);
        let id = recorder.begin(PIONEERS.get(), fence, place, Some(value));
        let frame = Frame::with_payload(header, Payload::from(data));
        let answer = self.callers[leader]
            .call_within(frame, WRITE_PATIENCE)
            .await;
        match answer.map(|frame| frame.header.status) {
            Ok(Status::Ok) => recorder.end(id, None),
            Ok(Status::Fenced) => return Err(Fenced),
            _ => recorder.abandon(id),
        }
        Ok(())
    }

    fn header(&self, kind: FrameKind, grant: &Grant) -> FrameHeader {
        let mut header = FrameHeader::new(kind, RequestId::new(0));
        header.copyset = self.id;
        header.key = ChunkKey {
            volume: VolumeId::new(u64::from(self.volume())),
            ..ChunkKey::default()
        };
        header.client = grant.client;
        header.epoch = grant.epoch;
        header.incarnation = grant.incarnation;
        header
    }
}

/// Somebody else has the volume.
struct Fenced;
