//! A user of a thin volume that is larger than the stores: it writes until they are full, and gives up
//! a part of what it holds, again and again.
//!
//! *Place*: beside the clients, whose writes have to wait meanwhile. *Owner*: one host, which the nemesis
//! leaves alone, and one volume of its own. *Invariants*: each lane has extents of its own, and one
//! request at a time; what was answered last is what a read finds; of a write that was given up, either. A full store takes discards: they end.
//! *On failure*: a read that finds anything else ends the run by a panic.

use super::cluster::Cluster;
use super::dice::Dice;
use super::mds::Mds;
use super::plan::COPYSETS;
use super::workload::{Shop, fill, offset_of, value_of};
use futures_util::future::join_all;
use ogee_client::{ClientError, Volume};
use ogee_proto::limit::{BLOCK_SIZE, BLOCKS_PER_EXTENT, EXTENTS_PER_CHUNK};
use ogee_proto::unit::ByteLen;
use ogee_runtime::sim::{self, HostId};
use ogee_runtime::{JoinHandle, Payload, sleep, timeout};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// Where it runs.
const FILLER: HostId = HostId::new(92);
/// Its volume.
const VOLUME: u32 = 9;
/// Twice as much as a store has.
const CHUNKS: u32 = 6;
/// A write that takes longer waits for room, or for somebody to lead.
const PATIENCE: Duration = Duration::from_millis(700);
/// Longest pause between two requests of a lane, in milliseconds.
const PAUSE: u64 = 15;
/// Requests at a time. Many take up what is free between two cycles of write-back.
const LANES: [u64; 2] = [1, 24];

/// Makes its volume known.
pub fn add_volume(mds: &Mds) {
    mds.add_volume(VOLUME, CHUNKS, &COPYSETS);
}

/// Starts filling, until nobody begins anything any more; then it gives up all that it holds.
pub fn start(cluster: &Cluster, mut dice: Dice) -> JoinHandle<()> {
    let (shop, lanes) = (cluster.shop().clone(), *dice.pick(&LANES));
    sim::spawn_on(FILLER, async move {
        let Some(volume) = shop.attach(FILLER, VOLUME).await else {
            return;
        };
        let filler = |lane| Filler {
            shop: shop.clone(),
            dice: dice.fork(),
            lane,
            lanes,
            // Those of many write little each: a block takes as much of a store as an extent.
            large_odds: if lanes == 1 { 2 } else { 16 },
            holds: BTreeMap::new(),
        };
        let fillers: Vec<Filler> = (0..lanes).map(filler).collect();
        join_all(fillers.into_iter().map(|filler| filler.run(&volume))).await;
        // The metadata server may be away: nobody attaches after this one.
        let _ = volume.close().await;
    })
}

struct Filler {
    shop: Rc<Shop>,
    dice: Dice,
    /// Which of so many: its extents are those of that remainder.
    lane: u64,
    lanes: u64,
    /// One write in so many is of a whole extent.
    large_odds: u64,
    /// First block of each extent it has written, and the value of that block; none if it was not told.
    holds: BTreeMap<u64, Option<u64>>,
}

impl Filler {
    async fn run(mut self, volume: &Volume) {
        while !self.shop.is_closing.get() {
            sleep(self.dice.millis(1..PAUSE)).await;
            if self.shop.is_mending.get() {
                // A full store lags behind the others by design, and is compared with nobody.
                self.give_up(volume, 1).await;
                continue;
            }
            match self.dice.below(8) {
                0 => self.read(volume).await,
                _ => self.write(volume).await,
            }
        }
        self.give_up(volume, 1).await;
    }

    /// One block of an extent, or all of it: each takes an extent of the stores.
    async fn write(&mut self, volume: &Volume) {
        let extents = u64::from(CHUNKS) * EXTENTS_PER_CHUNK as u64;
        let extent = self.dice.below(extents / self.lanes) * self.lanes + self.lane;
        let first = extent * BLOCKS_PER_EXTENT as u64;
        let count = match self.dice.once_in(self.large_odds) {
            true => BLOCKS_PER_EXTENT as u64,
            false => 1,
        };
        let (mut data, value) = (Vec::new(), self.shop.recorder.fresh_value());
        for block in first..first + count {
            fill(&mut data, VOLUME, block, value);
        }
        let write = volume.write(offset_of(first), Payload::from(data));
        if let Ok(done) = timeout(PATIENCE, write).await {
            assert!(done.is_ok(), "VIOLATION: a client was told: {done:?}");
            self.holds.insert(first, Some(value));
            return;
        }
        tracing::info!(held = self.holds.len(), "SIM the filler finds no room");
        self.holds.insert(first, None);
        self.give_up(volume, 2).await;
    }

    /// Discards one extent in so many.
    async fn give_up(&mut self, volume: &Volume, odds: u64) {
        let len = ByteLen::new((BLOCKS_PER_EXTENT * BLOCK_SIZE) as u64);
        let held: Vec<u64> = self.holds.keys().copied().collect();
        for first in held {
            if self.dice.once_in(odds) {
                let done = volume.discard(offset_of(first), len).await;
                assert!(done.is_ok(), "VIOLATION: a client was told: {done:?}");
                self.holds.remove(&first);
            }
        }
    }

    async fn read(&mut self, volume: &Volume) {
        let held: Vec<(u64, Option<u64>)> = self.holds.iter().map(|(at, it)| (*at, *it)).collect();
        if held.is_empty() {
            return;
        }
        let (block, holds) = *self.dice.pick(&held);
        let mut data = vec![0; BLOCK_SIZE];
        match volume.read_into(offset_of(block), &mut data).await {
            Ok(()) => {}
            Err(ClientError::Corrupt { .. }) => return,
            Err(error) => panic!("VIOLATION: a client was told: {error}"),
        }
        let found = value_of(&data, VOLUME, block);
        let is_known = holds.is_none_or(|holds| holds == found);
        assert!(
            is_known,
            "VIOLATION: block {block} of volume {VOLUME} holds {found}, and {holds:?} was the last"
        );
    }
}
