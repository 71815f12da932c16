//! A user that gives up waiting, writes something else there, and looks.
//!
//! *Place*: above the production client library, with a volume of its own that lives in both copysets,
//! so that what is held up at one leader holds back the watermark for the other. *Owner*: one host;
//! the nemesis disturbs its links, and nothing else of it. *Invariants*: a write that was given up is never
//! there after one that was begun later has ended; one task for each chunk, one request at a time.
//! *On failure*: a read that finds anything else ends the run by a panic.

use super::cluster::Cluster;
use super::dice::Dice;
use super::mds::Mds;
use super::plan::COPYSETS;
use super::workload::{Over, Shop, fill, offset_of, value_of};
use futures_util::future::join_all;
use ogee_client::Volume;
use ogee_proto::limit::{BLOCK_SIZE, BLOCKS_PER_CHUNK};
use ogee_runtime::sim::{self, HostId};
use ogee_runtime::{JoinHandle, Payload, sleep, timeout};
use std::rc::Rc;

/// Where it runs.
pub const QUITTER: HostId = HostId::new(96);
/// Its volume: a chunk in each copyset.
const VOLUME: u32 = 7;
/// Blocks of each chunk that are used.
const BLOCKS: u64 = 4;
/// Longest pause between two requests, in milliseconds.
const PAUSE: u64 = 30;

/// Makes its volume known.
pub fn add_volume(mds: &Mds) {
    let chunks = u32::try_from(COPYSETS.len()).expect("few");
    mds.add_volume(VOLUME, chunks, &COPYSETS);
}

/// Starts, until nobody begins anything any more.
pub fn start(cluster: &Cluster, mut dice: Dice) -> JoinHandle<()> {
    let shop = cluster.shop().clone();
    sim::spawn_on(QUITTER, async move {
        let Some(volume) = shop.attach(QUITTER, VOLUME).await else {
            return;
        };
        let chunks = 0..COPYSETS.len() as u64;
        let tasks = chunks.map(|chunk| {
            let quitter = Quitter {
                shop: shop.clone(),
                volume: volume.clone(),
                chunk,
                dice: dice.fork(),
            };
            quitter.run()
        });
        join_all(tasks).await;
        // The metadata server may be away: nobody attaches after this one.
        let _ = volume.close().await;
    })
}

struct Quitter {
    shop: Rc<Shop>,
    volume: Volume,
    chunk: u64,
    dice: Dice,
}

impl Quitter {
    async fn run(mut self) {
        while !self.shop.is_closing.get() {
            sleep(self.dice.millis(1..PAUSE)).await;
            if self.change_its_mind().await.is_err() {
                return;
            }
        }
    }

    /// Writes, gives up unless it is quick, writes something else, and reads it, twice.
    async fn change_its_mind(&mut self) -> Result<(), Over> {
        let block = self.chunk * BLOCKS_PER_CHUNK as u64 + self.dice.below(BLOCKS);
        let patience = self.dice.millis(1..20);
        let (_, first) = self.fresh(block);
        let write = self.volume.write(offset_of(block), Payload::from(first));
        if let Ok(outcome) = timeout(patience, write).await {
            return self.shop.conclude(outcome);
        }
        let (value, second) = self.fresh(block);
        let written = self.volume.write(offset_of(block), Payload::from(second));
        self.shop.conclude(written.await)?;
        self.expect(block, value).await?;
        sleep(self.dice.millis(1..400)).await;
        self.expect(block, value).await
    }

    fn fresh(&self, block: u64) -> (u64, Vec<u8>) {
        let (value, mut data) = (self.shop.recorder.fresh_value(), Vec::new());
        fill(&mut data, VOLUME, block, value);
        (value, data)
    }

    async fn expect(&self, block: u64, value: u64) -> Result<(), Over> {
        let mut data = vec![0; BLOCK_SIZE];
        let outcome = self.volume.read_into(offset_of(block), &mut data).await;
        let is_ok = outcome.is_ok();
        self.shop.conclude(outcome)?;
        let found = value_of(&data, VOLUME, block);
        assert!(
            !is_ok || found == value,
            "VIOLATION: block {block} of volume {VOLUME} holds {found}, and {value} was the last"
        );
        Ok(())
    }
}
