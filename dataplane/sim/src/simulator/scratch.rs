//! Blocks that one client has for itself: it writes, discards and reads them, one request at a time.
//!
//! *Place*: beside a client's workers, for what the judge's registers cannot have: many writes of one
//! value, zero. *Owner*: one client; its extents are its own as long as it lives. *Invariants*: what was
//! answered last is what the next read finds; of a request without an answer, either.
//! *On failure*: a read that finds anything else ends the run by a panic.

use super::dice::Dice;
use super::workload::{Client, Over, fill, offset_of, value_of};
use ogee_client::Volume;
use ogee_proto::limit::{BLOCK_SIZE, BLOCKS_PER_EXTENT};
use ogee_proto::unit::ByteLen;
use ogee_runtime::sim::HostId;
use ogee_runtime::{Payload, sleep};

/// Extents behind the blocks of the workers, one a client, in turn.
const FIRST: u64 = 64;
/// A client's host comes again after so many others.
const TURNS: u64 = 128;
const BLOCKS: u64 = BLOCKS_PER_EXTENT as u64;
/// Longest pause between two requests, in milliseconds.
const PAUSE: u64 = 60;

/// One client's own blocks.
pub struct Scratch {
    volume: u32,
    first: u64,
    /// What each holds; zero for nothing.
    holds: [u64; BLOCKS_PER_EXTENT],
}

impl Scratch {
    /// Those of a host's client.
    #[must_use]
    pub fn new(volume: u32, host: HostId) -> Self {
        Self {
            volume,
            first: (FIRST + u64::from(host.get()) % TURNS) * BLOCKS,
            holds: [0; BLOCKS_PER_EXTENT],
        }
    }

    /// Works until the client is over.
    pub async fn work(mut self, client: &Client, volume: &Volume) {
        let mut dice = client.dice.borrow_mut().fork();
        // A client of long ago may have left something.
        let all = self.discard(client, volume, 0..BLOCKS).await;
        if all.is_err() {
            return;
        }
        while !client.is_over() {
            sleep(dice.millis(1..PAUSE)).await;
            if self.request(client, volume, &mut dice).await.is_err() {
                return;
            }
        }
    }

    async fn request(
        &mut self,
        client: &Client,
        volume: &Volume,
        dice: &mut Dice,
    ) -> Result<(), Over> {
        let first = dice.below(BLOCKS);
        let count = match dice.below(4) {
            0 => BLOCKS - first,
            _ => 1,
        };
        let blocks = first..first + count;
        match dice.below(5) {
            0 | 1 => self.write(client, volume, blocks).await,
            2 => self.discard(client, volume, blocks).await,
            _ => self.read(client, volume, blocks).await,
        }
    }

    async fn write(
        &mut self,
        client: &Client,
        volume: &Volume,
        blocks: std::ops::Range<u64>,
    ) -> Result<(), Over> {
        let (start, mut data) = (self.first + blocks.start, Vec::new());
        for block in blocks {
            let value = client.shop.recorder.fresh_value();
            fill(&mut data, self.volume, self.first + block, value);
            *self.holds_at(block) = value;
        }
        let done = volume.write(offset_of(start), Payload::from(data)).await;
        client.shop.conclude(done)
    }

    async fn discard(
        &mut self,
        client: &Client,
        volume: &Volume,
        blocks: std::ops::Range<u64>,
    ) -> Result<(), Over> {
        let start = offset_of(self.first + blocks.start);
        let len = ByteLen::new((blocks.end - blocks.start) * BLOCK_SIZE as u64);
        blocks.for_each(|block| *self.holds_at(block) = 0);
        client.shop.conclude(volume.discard(start, len).await)
    }

    async fn read(
        &mut self,
        client: &Client,
        volume: &Volume,
        blocks: std::ops::Range<u64>,
    ) -> Result<(), Over> {
        let len = usize::try_from(blocks.end - blocks.start).expect("few blocks") * BLOCK_SIZE;
        let mut data = vec![0; len];
        let outcome = volume
            .read_into(offset_of(self.first + blocks.start), &mut data)
            .await;
        let is_ok = outcome.is_ok();
        client.shop.conclude(outcome)?;
        for (block, data) in blocks.zip(data.chunks_exact(BLOCK_SIZE)).filter(|_| is_ok) {
            let found = value_of(data, self.volume, self.first + block);
            let (number, holds) = (self.first + block, *self.holds_at(block));
            assert!(
                found == holds,
                "VIOLATION: block {number} of volume {} holds {found}, and {holds} was the last",
                self.volume
            );
        }
        Ok(())
    }

    fn holds_at(&mut self, block: u64) -> &mut u64 {
        let at = usize::try_from(block).expect("few blocks");
        &mut self.holds[at]
    }
}
