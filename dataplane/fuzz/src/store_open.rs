//! The store: calls make a valid one, its medium is damaged, and it is opened.
//!
//! What must hold depends on what the damage leaves:
//! * never is a byte returned that was not written to that block;
//! * as long as one superblock is whole, a store that opens is exactly as of its last checkpoint;
//! * as long as, besides, one of the two areas of metadata pages is whole, it does open;
//! * as long as, besides, no extent was touched, every block can be read;
//! * a power cut in a checkpoint leaves the one before or that one, whole.
//!
//! Blocks written since the last checkpoint may be unreadable: the log, which is not here, has them.

use crate::damage::{PAGE, damage};
use crate::script::Script;
use bytes::Bytes;
use ogee_device::{Device, MemoryControl, Survivors};
use ogee_proto::id::{ChunkIndex, ChunkKey, CopysetId, LogId, StoreId, VolumeId};
use ogee_proto::limit::{BLOCK_SIZE, BLOCKS_PER_CHUNK};
use ogee_proto::unit::{BlockIndex, ByteLen, ByteOffset};
use ogee_runtime::executor::block_on_seeded;
use ogee_runtime::{Buffer, Payload, spawn, yield_now};
use ogee_store::{
    BlockChange, BlockRead, GroupCheckpoint, Store, StoreError, StoreParams, WriteBack,
};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

const MIB: u64 = 1 << 20;
const DEVICE_LEN: ByteLen = ByteLen::new(30 * MIB);
const GROUP: CopysetId = CopysetId::new(7);
const CHUNKS: u32 = 3;
const CALLS_MAX: usize = 24;
const EARLIER_MAX: usize = 4;
/// Pages of each metadata area, and of the extents, that damage may hit: more than are in use.
const AREA_PAGES: usize = 40;
const DATA_PAGES: usize = 192;
const SUPERBLOCKS: [usize; 2] = [0, 16];

type Place = (u32, usize);
/// Blocks by place; one that is missing is zeros.
type Content = BTreeMap<Place, u64>;

/// One input.
pub fn run(input: &[u8]) {
    let mut script = Script::new(input);
    let (kind, seed) = (script.below(3), u64::from(script.byte()));
    block_on_seeded(seed, async {
        let mut world = World::new().await;
        world.calls(&mut script).await;
        match kind {
            0 => world.power_cut(&mut script).await,
            _ => world.damage(&mut script).await,
        }
    });
}

struct World {
    device: Device,
    control: MemoryControl,
    store: Store,
    live: Content,
    durable: Content,
    /// Everything that a block ever held; zeros go without saying.
    ever: BTreeMap<Place, BTreeSet<u64>>,
    /// Blocks changed since the last checkpoint.
    in_doubt: BTreeSet<Place>,
    applied: u64,
    group: Option<GroupCheckpoint>,
    next_seed: u64,
    layout: Layout,
    earlier: Vec<Vec<u8>>,
}

/// The pages that damage may hit, as page numbers of the device.
struct Layout {
    pages: Vec<usize>,
}

/// Which parts of the medium were touched.
#[derive(Default, Debug)]
struct Touched {
    superblocks: BTreeSet<usize>,
    areas: [bool; 2],
    data: bool,
}

impl Layout {
    fn of(store: &Store) -> Self {
        let (log_start, log_len) = store.log_region();
        let start = log_start.add(log_len);
        let area_len = (DEVICE_LEN.get() - start.get() - store.capacity().get()) / 2;
        let page = |at: u64| ByteLen::new(at).as_usize() / PAGE;
        let areas = [page(start.get()), page(start.get() + area_len)];
        let data = page(start.get() + 2 * area_len);
        let mut pages = SUPERBLOCKS.to_vec();
        pages.extend(areas.iter().flat_map(|first| *first..*first + AREA_PAGES));
        pages.extend(data..data + DATA_PAGES);
        Self { pages }
    }

    /// Positions within `pages`: superblocks, area A, area B, extents.
    fn part(number: usize) -> std::ops::Range<usize> {
        let areas = 2;
        match number {
            0 => 0..areas,
            1 => areas..areas + AREA_PAGES,
            2 => areas + AREA_PAGES..areas + 2 * AREA_PAGES,
            _ => areas + 2 * AREA_PAGES..areas + 2 * AREA_PAGES + DATA_PAGES,
        }
    }

    async fn image(&self, device: &Device) -> Vec<u8> {
        let mut image = Vec::with_capacity(self.pages.len() * PAGE);
        for page in &self.pages {
            let at = ByteOffset::new((*page * PAGE) as u64);
            let read = device.read(at, ByteLen::from_usize(PAGE)).await;
            image.extend_from_slice(&read.expect("memory does not fail"));
        }
        image
    }

    async fn put(&self, device: &Device, image: &[u8], position: usize) {
        let at = ByteOffset::new((self.pages[position] * PAGE) as u64);
        let data = Buffer::copy_from(&image[position * PAGE..(position + 1) * PAGE]);
        let written = device.write_durable(at, data).await;
        written.expect("memory does not fail");
    }
}

impl Touched {
    fn note(&mut self, position: usize) {
        let part = (0..4).find(|part| Layout::part(*part).contains(&position));
        match part {
            Some(0) => self.superblocks.extend([position]),
            Some(1) => self.areas[0] = true,
            Some(2) => self.areas[1] = true,
            _ => self.data = true,
        }
    }
}

impl World {
    async fn new() -> Self {
        let (device, control) = Device::memory_with_control(DEVICE_LEN);
        let params = StoreParams {
            store: StoreId::from_bytes([0x5a; 16]),
            cluster: Uuid::from_bytes([0xc1; 16]),
            log_len: ByteLen::new(2 * MIB),
            force: true,
        };
        let formatted = Store::format(&device, params).await;
        formatted.expect("memory is formatted");
        let store = Store::open(&device).await.expect("an empty store opens");
        let layout = Layout::of(&store);
        Self {
            device,
            control,
            store,
            live: Content::new(),
            durable: Content::new(),
            ever: BTreeMap::new(),
            in_doubt: BTreeSet::new(),
            applied: 0,
            group: None,
            next_seed: 1,
            layout,
            earlier: Vec::new(),
        }
    }

    async fn calls(&mut self, script: &mut Script<'_>) {
        for _ in 0..script.below(CALLS_MAX + 1) {
            if script.is_over() {
                return;
            }
            match script.below(10) {
                0..=4 => self.write(script).await,
                5 => self.remove(script).await,
                6..=8 => self.checkpoint(script).await,
                _ => {
                    self.checkpoint(script).await;
                    self.store = Store::open(&self.device).await.expect("a store opens");
                }
            }
        }
    }

    async fn write(&mut self, script: &mut Script<'_>) {
        let chunk = u32::from(script.byte()) % CHUNKS;
        // Near the borders of extents (16 blocks) and leaves (832 blocks).
        let first = [0, 15, 826, 4080][script.below(4)] + script.below(16);
        let mut changes = Vec::new();
        for at in first..(first + 1 + script.below(8)).min(BLOCKS_PER_CHUNK) {
            let place = (chunk, at);
            self.in_doubt.insert(place);
            let what = if script.below(4) == 0 {
                self.live.remove(&place);
                BlockChange::Zero
            } else {
                let seed = self.next_seed;
                self.next_seed += 1;
                self.live.insert(place, seed);
                self.ever.entry(place).or_default().insert(seed);
                BlockChange::Data(Payload::from(bytes_of(seed)))
            };
            changes.push(WriteBack {
                key: key(chunk),
                block: block(at),
                what,
            });
        }
        let written = self.store.write_back(GROUP, changes).await;
        written.expect("there is room");
    }

    async fn remove(&mut self, script: &mut Script<'_>) {
        let chunk = u32::from(script.byte()) % CHUNKS;
        let removed = self.store.remove_chunk(GROUP, key(chunk)).await;
        removed.expect("the chunk is of this group");
        let gone = self.live.keys().filter(|place| place.0 == chunk);
        self.in_doubt.extend(gone.copied());
        self.live.retain(|place, _| place.0 != chunk);
    }

    async fn checkpoint(&mut self, script: &mut Script<'_>) {
        if self.earlier.len() < EARLIER_MAX {
            self.earlier.push(self.layout.image(&self.device).await);
        }
        let group = self.next_group(script);
        let done = self.store.checkpoint(vec![group.clone()]).await;
        done.expect("memory does not fail");
        self.group = Some(group);
        self.durable = self.live.clone();
        self.in_doubt.clear();
    }

    fn next_group(&mut self, script: &mut Script<'_>) -> GroupCheckpoint {
        self.applied += 1;
        let len = usize::from(script.u16()) % 9000;
        GroupCheckpoint {
            copyset: GROUP,
            applied: LogId::new(1, self.applied),
            state: Bytes::from(vec![script.byte(); len]),
        }
    }

    /// Power fails while a checkpoint is under way.
    async fn power_cut(&mut self, script: &mut Script<'_>) {
        let group = self.next_group(script);
        let (store, named) = (self.store.clone(), group.clone());
        let under_way = spawn(async move { drop(store.checkpoint(vec![named]).await) });
        for _ in 0..script.below(64) {
            yield_now().await;
        }
        let survivors = match script.below(8) {
            0 => Survivors::None,
            1 => Survivors::All,
            _ => Survivors::Seeded(script.u64()),
        };
        let (device, _) = self.control.crash(survivors);
        drop(under_way);
        let store = Store::open(&device)
            .await
            .expect("a power cut is no damage");
        let found = store.group(GROUP);
        if found.as_ref() == Some(&group) {
            self.group = Some(group);
            self.durable = self.live.clone();
            self.in_doubt.clear();
        }
        assert_eq!(found, self.group, "one checkpoint or the other");
        self.check(&store, &Touched::default()).await;
    }

    /// The medium is damaged.
    async fn damage(&mut self, script: &mut Script<'_>) {
        let (device, _) = self.control.crash(Survivors::All);
        let mut image = self.layout.image(&device).await;
        let mut touched = Touched::default();
        for _ in 0..1 + script.below(6) {
            let part = [0, 1, 2, 1, 2, 3, 3, 3][script.below(8)];
            let written = |position: &usize| {
                let bytes = &image[position * PAGE..(position + 1) * PAGE];
                bytes.iter().any(|byte| *byte != 0)
            };
            let places: Vec<usize> = Layout::part(part).filter(written).collect();
            for position in damage(script, &mut image, &places, &self.earlier) {
                touched.note(position);
                self.layout.put(&device, &image, position).await;
            }
        }
        self.open_damaged(&device, &touched).await;
    }

    async fn open_damaged(&mut self, device: &Device, touched: &Touched) {
        let has_superblock = touched.superblocks.len() < SUPERBLOCKS.len();
        let has_area = touched.areas.contains(&false);
        let store = match Store::open(device).await {
            Ok(store) => store,
            Err(StoreError::Damaged { .. }) if !has_area || !has_superblock => return,
            Err(error) => {
                assert!(!has_superblock, "{error}: {touched:?}");
                return;
            }
        };
        if !has_superblock {
            self.check_ever(&store).await;
            return;
        }
        assert_eq!(store.group(GROUP), self.group, "{touched:?}");
        self.check(&store, touched).await;
        let again = Store::open(device).await.expect("what opened opens again");
        let stats = again.open_stats();
        assert!(stats.superblocks_agree, "a bad superblock was replaced");
        assert_eq!(again.group(GROUP), self.group);
        self.go_on(device, &again).await;
    }

    /// What is written to a store that was damaged does not hurt the rest of it.
    async fn go_on(&mut self, device: &Device, store: &Store) {
        let mut before = Vec::new();
        for place in self.ever.keys() {
            before.push((*place, read(store, *place).await.ok()));
        }
        let (fresh, data) = ((CHUNKS, 0), bytes_of(self.next_seed));
        let change = WriteBack {
            key: key(fresh.0),
            block: block(fresh.1),
            what: BlockChange::Data(Payload::from(data.clone())),
        };
        let written = store.write_back(GROUP, vec![change]).await;
        written.expect("there is room");
        let done = store.checkpoint(Vec::new()).await;
        done.expect("memory does not fail");
        let store = Store::open(device).await.expect("a store opens");
        assert!(read(&store, fresh).await.is_ok_and(|found| found == data));
        for (place, content) in before {
            assert_eq!(read(&store, place).await.ok(), content, "{place:?}");
        }
    }

    /// Exactly the last checkpoint, but for blocks that may be unreadable.
    async fn check(&self, store: &Store, touched: &Touched) {
        let mut unreadable = BTreeSet::new();
        for place in self.ever.keys() {
            let expected = self.durable.get(place);
            match read(store, *place).await {
                Ok(found) => {
                    let expected = expected.map_or_else(|| vec![0; BLOCK_SIZE], |it| bytes_of(*it));
                    assert!(found == expected, "{place:?} of {touched:?}");
                }
                Err(StoreError::Checksum { .. }) => {
                    let may_be = touched.data || self.in_doubt.contains(place);
                    assert!(may_be && expected.is_some(), "{place:?} of {touched:?}");
                    unreadable.insert(*place);
                }
                Err(error) => panic!("{place:?}: {error}"),
            }
        }
        let mut scrubbed = BTreeSet::new();
        for chunk in 0..CHUNKS {
            let bad = store.scrub(GROUP, key(chunk)).await;
            let bad = bad.expect("memory does not fail");
            scrubbed.extend(bad.into_iter().map(|block| (chunk, block.as_usize())));
        }
        assert_eq!(scrubbed, unreadable, "a scrub finds what a read refuses");
    }

    /// Only what a block once held.
    async fn check_ever(&self, store: &Store) {
        for (place, seeds) in &self.ever {
            if let Ok(found) = read(store, *place).await {
                let is_old = seeds.iter().any(|seed| found == bytes_of(*seed));
                let is_zeros = found.iter().all(|byte| *byte == 0);
                assert!(is_old || is_zeros, "{place:?} holds what was never written");
            }
        }
    }
}

fn key(chunk: u32) -> ChunkKey {
    ChunkKey {
        volume: VolumeId::new(3),
        chunk: ChunkIndex::new(chunk),
    }
}

fn block(at: usize) -> BlockIndex {
    BlockIndex::new(at).expect("within the chunk")
}

/// One block that is different for every seed.
fn bytes_of(seed: u64) -> Vec<u8> {
    let word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    word.repeat(BLOCK_SIZE / word.len())
}

async fn read(store: &Store, place: Place) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::with_capacity(BLOCK_SIZE);
    for run in store.read(GROUP, key(place.0), block(place.1), 1).await? {
        match run {
            BlockRead::Data(data) => bytes.extend_from_slice(&data),
            BlockRead::Zeros(count) => bytes.resize(bytes.len() + count * BLOCK_SIZE, 0),
        }
    }
    Ok(bytes)
}
