//! Clients: each attachment is a process on a simulated host that reads and writes a few hot blocks.
//!
//! *Place*: above the production client library; what they see goes to the recorder. *Owner*: the
//! client's host; killing it leaves requests without an answer. *Invariants*: every block written holds
//! a value never written before, all over, with its address mixed in: what comes from elsewhere, or
//! is torn, is noticed at once.
//! *On failure*: a block that is no block of ours is a violation and ends the run by a panic.

use super::dice::Dice;
use super::mds::{Mds, volume_name};
use super::recorder::{self, OperationId, Place, Recorder};
use super::scratch::Scratch;
use futures_util::future::{Either, select};
use ogee_client::{ClientError, Control, OpenOptions, Volume};
use ogee_proto::id::CopysetId;
use ogee_proto::limit::{BLOCK_SIZE, BLOCKS_PER_CHUNK, BLOCKS_PER_EXTENT};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::sim::{self, HostId};
use ogee_runtime::{JoinHandle, Payload, sleep, spawn};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

/// Words of a block.
const WORDS: usize = BLOCK_SIZE / 8;
/// How often an attachment looks what is sealed.
const SEAL_LOOK: Duration = Duration::from_millis(10);
/// Between two tries to attach.
const ATTACH_PAUSE: Duration = Duration::from_millis(300);

/// How a volume is used.
#[derive(Clone, Debug)]
pub struct Usage {
    /// The volume.
    pub volume: u32,
    /// Its chunks.
    pub chunks: u32,
    /// Where they live, in turn.
    pub copysets: Vec<CopysetId>,
    /// Blocks at the start of each chunk that are used.
    pub hot: u64,
    /// Requests at a time.
    pub workers: u32,
    /// Longest pause of a worker.
    pub pause: Duration,
    /// One request in so many is as large as they get.
    pub large_odds: u64,
    /// One write in so many is given up by its user.
    pub abandon_odds: u64,
    /// Whether each worker stays with one chunk: what holds one up does not hold up the others.
    pub is_divided: bool,
}

/// What all clients share.
pub struct Shop {
    /// The control plane.
    pub mds: Rc<Mds>,
    /// The judge's clerk.
    pub recorder: Recorder,
    /// Nobody begins anything any more.
    pub is_closing: Cell<bool>,
    /// A disk is damaged until all replicas were compared: nobody fills the stores meanwhile.
    pub is_mending: Cell<bool>,
    /// Requests refused because an attachment was fenced.
    pub fenced: Cell<u64>,
    /// Reads that ended as damaged.
    pub corrupt: Cell<u64>,
    /// Requests under way.
    pub under_way: Cell<u64>,
}

/// An attachment under way.
pub struct Attachment {
    /// Where.
    pub host: HostId,
    main: JoinHandle<()>,
    /// It is to end in an orderly way.
    stop: Rc<Cell<bool>>,
}

impl Attachment {
    /// Starts a client process on a host.
    #[must_use]
    pub fn start(shop: &Rc<Shop>, usage: &Usage, host: HostId, dice: Dice) -> Self {
        let stop = Rc::new(Cell::new(false));
        let process = Client {
            shop: shop.clone(),
            usage: usage.clone(),
            host,
            stop: stop.clone(),
            dice: RefCell::new(dice),
        };
        let main = sim::spawn_on(host, async move { Rc::new(process).run().await });
        Self { host, main, stop }
    }

    /// Has it end when its requests are answered.
    pub fn stop(&self) {
        self.stop.set(true);
    }

    /// Whether it has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.main.is_finished()
    }
}

/// A client process.
pub struct Client {
    pub(super) shop: Rc<Shop>,
    pub(super) usage: Usage,
    host: HostId,
    stop: Rc<Cell<bool>>,
    pub(super) dice: RefCell<Dice>,
}

impl Client {
    async fn run(self: Rc<Self>) {
        let Some(volume) = self.attach().await else {
            return;
        };
        let watch = spawn(watch_seals(
            self.shop.clone(),
            self.usage.clone(),
            volume.clone(),
        ));
        let workers: Vec<_> = (0..self.usage.workers)
            .map(|number| {
                let (client, volume) = (self.clone(), volume.clone());
                let dice = self.dice.borrow_mut().fork();
                spawn(async move { client.work(&volume, number, dice).await })
            })
            .collect();
        Scratch::new(self.usage.volume, self.host)
            .work(&self, &volume)
            .await;
        for worker in workers {
            // Only ever cancelled with its whole host.
            let _ = worker.await;
        }
        watch.abort();
        // Fenced, or the metadata server is away: the next attachment ends it.
        let _ = volume.close().await;
    }

    pub(super) fn is_over(&self) -> bool {
        self.stop.get() || self.shop.is_closing.get()
    }

    async fn attach(&self) -> Option<Volume> {
        let is_over = || self.is_over();
        self.shop
            .attach_unless(is_over, self.host, self.usage.volume)
            .await
    }

    async fn work(&self, volume: &Volume, number: u32, mut dice: Dice) {
        while !self.is_over() {
            if self.request(volume, number, &mut dice).await.is_err() {
                return;
            }
            let pause = self.usage.pause.as_micros().max(1);
            let pause = dice.below(u64::try_from(pause).expect("a short pause"));
            sleep(Duration::from_micros(pause)).await;
        }
    }

    async fn request(&self, volume: &Volume, number: u32, dice: &mut Dice) -> Result<(), Over> {
        let usage = &self.usage;
        let extent = BLOCKS_PER_EXTENT as u64;
        let count = match dice.below(usage.large_odds) {
            0 if usage.hot >= extent => extent,
            1 => 1 + dice.below(usage.hot.min(8)),
            _ => 1,
        };
        let chunk = match usage.is_divided {
            true => u64::from(number % usage.chunks),
            false => dice.below(u64::from(usage.chunks)),
        };
        let first = if count == extent {
            dice.below(usage.hot / extent) * extent
        } else {
            dice.below(usage.hot + 1 - count)
        };
        let first = chunk * BLOCKS_PER_CHUNK as u64 + first;
        self.shop.under_way.set(self.shop.under_way.get() + 1);
        let outcome = if dice.once_in(2) {
            if dice.once_in(16) {
                self.flush_behind_a_write(volume, first, count).await
            } else if dice.once_in(usage.abandon_odds) {
                let patience = dice.pick(&[1..30, 1..400]).clone();
                let patience = dice.millis(patience);
                let goes_on = dice.once_in(2);
                self.abandon_a_write(volume, (first, count), patience, goes_on)
                    .await
            } else {
                self.write(volume, first, count).await
            }
        } else {
            self.read(volume, first, count).await
        };
        self.shop.under_way.set(self.shop.under_way.get() - 1);
        outcome
    }

    /// A flush ends after every write that was issued before it.
    async fn flush_behind_a_write(
        &self,
        volume: &Volume,
        first: u64,
        count: u64,
    ) -> Result<(), Over> {
        let write = pin!(self.write(volume, first, count));
        match select(write, pin!(volume.flush())).await {
            Either::Left((outcome, flush)) => {
                // Its outcome is the write's: fenced, or not.
                let _ = flush.await;
                outcome
            }
            Either::Right((flushed, write)) => {
                assert!(
                    flushed.is_err(),
                    "VIOLATION: a flush ended before a write that was issued before it"
                );
                write.await
            }
        }
    }

    /// The user gives up waiting, and goes on to other things, or writes something else there.
    async fn abandon_a_write(
        &self,
        volume: &Volume,
        (first, count): (u64, u64),
        after: Duration,
        goes_on: bool,
    ) -> Result<(), Over> {
        let (records, data) = self.begin_write(volume, first, count);
        let write = volume.write(offset_of(first), Payload::from(data));
        let Ok(outcome) = ogee_runtime::timeout(after, write).await else {
            records
                .into_iter()
                .for_each(|id| self.shop.recorder.abandon(id));
            return match goes_on {
                true => self.write(volume, first, count).await,
                false => Ok(()),
            };
        };
        self.end_write(records, outcome)
    }

    async fn write(&self, volume: &Volume, first: u64, count: u64) -> Result<(), Over> {
        let (records, data) = self.begin_write(volume, first, count);
        let outcome = volume.write(offset_of(first), Payload::from(data)).await;
        self.end_write(records, outcome)
    }

    /// Notes a write of fresh values, and makes its data.
    fn begin_write(&self, volume: &Volume, first: u64, count: u64) -> (Vec<OperationId>, Vec<u8>) {
        let mut data = Vec::new();
        let mut records = Vec::new();
        for block in first..first + count {
            let value = self.shop.recorder.fresh_value();
            fill(&mut data, self.usage.volume, block, value);
            let (epoch, place) = (fence_of(volume), self.usage.place(block));
            records.push((self.host.get(), epoch, place, Some(value)));
        }
        let begin =
            |(client, epoch, place, value)| self.shop.recorder.begin(client, epoch, place, value);
        (records.into_iter().map(begin).collect(), data)
    }

    fn end_write(
        &self,
        records: Vec<OperationId>,
        outcome: Result<(), ClientError>,
    ) -> Result<(), Over> {
        if outcome.is_ok() {
            records
                .into_iter()
                .for_each(|id| self.shop.recorder.end(id, None));
        }
        self.shop.conclude(outcome)
    }

    async fn read(&self, volume: &Volume, first: u64, count: u64) -> Result<(), Over> {
        let begin = |block| {
            let (epoch, place) = (fence_of(volume), self.usage.place(block));
            self.shop
                .recorder
                .begin(self.host.get(), epoch, place, None)
        };
        let records: Vec<_> = (first..first + count).map(begin).collect();
        let len = usize::try_from(count).expect("few blocks") * BLOCK_SIZE;
        let mut data = vec![0; len];
        let outcome = volume.read_into(offset_of(first), &mut data).await;
        if outcome.is_ok() {
            for ((block, id), data) in (first..).zip(records).zip(data.chunks_exact(BLOCK_SIZE)) {
                let value = value_of(data, self.usage.volume, block);
                self.shop.recorder.end(id, Some(value));
            }
        }
        self.shop.conclude(outcome)
    }
}

/// An attachment is over.
pub struct Over;

impl Shop {
    /// A volume for somebody on `host`; none if nobody begins anything any more.
    pub(super) async fn attach(&self, host: HostId, volume: u32) -> Option<Volume> {
        let is_over = || self.is_closing.get();
        self.attach_unless(is_over, host, volume).await
    }

    /// The same for somebody who may be over before.
    async fn attach_unless(
        &self,
        is_over: impl Fn() -> bool,
        host: HostId,
        volume: u32,
    ) -> Option<Volume> {
        while !is_over() {
            let control: Rc<dyn Control> = self.mds.clone();
            let options = OpenOptions {
                host: host.get().to_string(),
                ..OpenOptions::default()
            };
            match Volume::open_with(control, &volume_name(volume), options).await {
                Ok(volume) => return Some(volume),
                Err(error) => tracing::info!(%error, "SIM cannot attach"),
            }
            sleep(ATTACH_PAUSE).await;
        }
        None
    }

    pub(super) fn conclude(&self, outcome: Result<(), ClientError>) -> Result<(), Over> {
        match outcome {
            Ok(()) => Ok(()),
            Err(ClientError::Fenced { .. } | ClientError::Closed) => {
                self.fenced.set(self.fenced.get() + 1);
                Err(Over)
            }
            Err(ClientError::Corrupt { .. }) => {
                self.corrupt.set(self.corrupt.get() + 1);
                Ok(())
            }
            Err(error) => panic!("VIOLATION: a client was told: {error}"),
        }
    }
}

impl Usage {
    /// A block of the volume for the recorder.
    #[must_use]
    pub fn place(&self, block: u64) -> Place {
        let chunk = usize::try_from(block / BLOCKS_PER_CHUNK as u64).expect("few chunks");
        Place {
            volume: self.volume,
            block,
            copyset: self.copysets[chunk % self.copysets.len()],
        }
    }

    /// The first chunk that lives in a copyset.
    ///
    /// # Panics
    /// If none does.
    #[must_use]
    pub fn chunk_of(&self, id: CopysetId) -> u32 {
        let at = self.copysets.iter().position(|copyset| *copyset == id);
        let at = at.expect("invariant: every volume lives in every copyset");
        u32::try_from(at).expect("few chunks")
    }

    /// Every block that is used.
    pub fn blocks(&self) -> impl Iterator<Item = u64> {
        let hot = self.hot;
        (0..u64::from(self.chunks)).flat_map(move |chunk| {
            (0..hot).map(move |block| chunk * BLOCKS_PER_CHUNK as u64 + block)
        })
    }
}

fn fence_of(volume: &Volume) -> u64 {
    recorder::fence_of(volume.epoch(), volume.incarnation())
}

/// Tells the recorder what an attachment has sealed, as soon as it is known.
async fn watch_seals(shop: Rc<Shop>, usage: Usage, volume: Volume) {
    let mut open: BTreeSet<CopysetId> = usage.copysets.iter().copied().collect();
    while !open.is_empty() {
        let unsealed = volume.unsealed();
        for copyset in open.extract_if(.., |copyset| !unsealed.contains(copyset)) {
            let epoch = fence_of(&volume);
            shop.recorder.sealed(usage.volume, copyset, epoch);
        }
        sleep(SEAL_LOOK).await;
    }
}

/// Reads every block through an attachment, as the last word on its contents.
///
/// # Errors
/// What the client library says.
pub async fn read_all(
    shop: &Shop,
    usage: &Usage,
    host: HostId,
    volume: &Volume,
) -> Result<(), ClientError> {
    for block in usage.blocks() {
        let (epoch, place) = (fence_of(volume), usage.place(block));
        let id = shop.recorder.begin(host.get(), epoch, place, None);
        let mut data = vec![0; BLOCK_SIZE];
        volume.read_into(offset_of(block), &mut data).await?;
        shop.recorder
            .end(id, Some(value_of(&data, usage.volume, block)));
    }
    Ok(())
}

pub(super) fn offset_of(block: u64) -> ByteOffset {
    ByteOffset::new(0).add(ByteLen::new(block * BLOCK_SIZE as u64))
}

/// Appends a block that holds a value.
pub(super) fn fill(data: &mut Vec<u8>, volume: u32, block: u64, value: u64) {
    data.extend_from_slice(&value.to_le_bytes());
    for word in 1..WORDS as u64 {
        data.extend_from_slice(&mixed(volume, block, value, word).to_le_bytes());
    }
}

/// The value that a block holds; a block that was never written holds zero.
///
/// # Panics
/// If it is no block of ours, or not whole.
pub(super) fn value_of(data: &[u8], volume: u32, block: u64) -> u64 {
    let mut words = data
        .chunks_exact(8)
        .map(|word| u64::from_le_bytes(word.try_into().expect("invariant: eight bytes")));
    let value = words.next().expect("invariant: a block has words");
    if value == 0 {
        assert!(
            words.all(|word| word == 0),
            "VIOLATION: block {block} of volume {volume} is neither zeros nor a value"
        );
        return 0;
    }
    for (at, word) in (1..).zip(words) {
        assert!(
            word == mixed(volume, block, value, at),
            "VIOLATION: block {block} of volume {volume} is torn or foreign at word {at} (value {value})"
        );
    }
    value
}

const fn mixed(volume: u32, block: u64, value: u64, word: u64) -> u64 {
    let place = (volume as u64) << 48 ^ block << 16 ^ word;
    (value ^ place.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xff51_afd7_ed55_8ccd)
}
