//! Readers that believe nobody: they ask every replica for the hot blocks, whoever leads.
//!
//! *Place*: beside the clients, whose library believes in one leader at a time and would never ask a
//! deposed one. *Owner*: one host, which the nemesis leaves alone: a replica that is cut off from all
//! others still hears it. *Invariants*: what is answered is a read like any other, and judged so.
//! *On failure*: no answer in time is given up; others are asked meanwhile, so that there are always some
//! that come late. A stopped process finds them all when it goes on.

use super::cluster::Cluster;
use super::dice::Dice;
use super::workload::{Usage, value_of};
use ogee_proto::id::{ChunkIndex, ChunkKey, Epoch, RequestId, VolumeId};
use ogee_proto::limit::{BLOCK_SIZE, BLOCKS_PER_CHUNK};
use ogee_proto::wire::{FrameHeader, FrameKind, Status};
use ogee_runtime::sim::{self, HostId};
use ogee_runtime::{sleep, spawn};
use ogee_transport::{Caller, Frame, Hello, Role};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// Where all of them run.
const PROBERS: HostId = HostId::new(91);
/// So many ask each chunkserver.
const LANES: u32 = 2;
/// Questions that each has asked and that are not answered.
const UNANSWERED_MAX: u32 = 6;
/// How long each waits for an answer.
const PATIENCE: Duration = Duration::from_millis(250);
/// Newer than every attachment: it reads, and fences nobody.
const EPOCH: Epoch = Epoch::new(u64::MAX - 1);

/// Starts asking, until nobody begins anything any more.
pub fn start(cluster: &Cluster, dice: &mut Dice) {
    for node in cluster.nodes() {
        for seat in cluster.seats() {
            for _ in 0..LANES {
                let pause_max = *dice.pick(&[10, 80]);
                let prober = Prober {
                    pause_max,
                    cluster: cluster.clone(),
                    usage: seat.usage.clone(),
                    caller: Caller::new(node.endpoint(), Hello::new(Role::Client, 0, "prober")),
                    dice: RefCell::new(dice.fork()),
                    unanswered: Cell::new(0),
                };
                drop(sim::spawn_on(PROBERS, Rc::new(prober).run()));
            }
        }
    }
}

struct Prober {
    cluster: Cluster,
    usage: Usage,
    caller: Caller,
    dice: RefCell<Dice>,
    unanswered: Cell<u32>,
    /// Longest pause between two questions, in milliseconds.
    pause_max: u64,
}

impl Prober {
    async fn run(self: Rc<Self>) {
        while !self.cluster.shop().is_closing.get() {
            let pause = self.dice.borrow_mut().millis(2..self.pause_max);
            sleep(pause).await;
            if self.unanswered.get() < UNANSWERED_MAX {
                self.unanswered.set(self.unanswered.get() + 1);
                let (asking, block) = (self.clone(), self.some_block());
                drop(spawn(async move {
                    asking.ask(block).await;
                    asking.unanswered.set(asking.unanswered.get() - 1);
                }));
            }
        }
    }

    /// Half of the time one that was written lately: who is behind is behind there.
    fn some_block(&self) -> u64 {
        let dice = &mut *self.dice.borrow_mut();
        let recent = match dice.once_in(2) {
            true => self.cluster.shop().recorder.recent_write(dice),
            false => None,
        };
        if let Some(place) = recent.filter(|place| place.volume == self.usage.volume) {
            return place.block;
        }
        let chunk = dice.below(u64::from(self.usage.chunks));
        chunk * BLOCKS_PER_CHUNK as u64 + dice.below(self.usage.hot)
    }

    async fn ask(&self, block: u64) {
        let (recorder, place) = (&self.cluster.shop().recorder, self.usage.place(block));
        let small = |number: u64| u32::try_from(number).expect("small");
        let mut header = FrameHeader::new(FrameKind::Read, RequestId::new(0));
        header.copyset = place.copyset;
        header.key = ChunkKey {
            volume: VolumeId::new(u64::from(self.usage.volume)),
            chunk: ChunkIndex::new(small(block / BLOCKS_PER_CHUNK as u64)),
        };
        header.offset = small(block % BLOCKS_PER_CHUNK as u64 * BLOCK_SIZE as u64);
        header.length = small(BLOCK_SIZE as u64);
        header.epoch = EPOCH;
        let id = recorder.begin(PROBERS.get(), EPOCH.get(), place, None);
        let answer = self.caller.call_within(Frame::new(header), PATIENCE).await;
        if let Ok(frame) = answer
            && frame.header.status == Status::Ok
        {
            let value = value_of(&frame.payload, self.usage.volume, block);
            recorder.end(id, Some(value));
        }
    }
}
