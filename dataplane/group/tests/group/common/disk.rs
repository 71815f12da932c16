//! A client's volume, and what it must contain.

use super::cluster::Cluster;
use ogee_group::{Command, CommandHead, CommandKind, command};
use ogee_proto::checksum::crc32c;
use ogee_proto::id::{ChunkIndex, ChunkKey, ClientId, Epoch, Incarnation, Sequence, VolumeId};
use ogee_proto::limit::BLOCK_SIZE;
use ogee_proto::wire::Status;
use ogee_runtime::Payload;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Blocks of each chunk that the tests use.
pub const BLOCKS: usize = 128;

/// One user of one volume, one request at a time. Remembers what it was told is done.
pub struct Disk {
    cluster: Rc<Cluster>,
    pub volume: VolumeId,
    epoch: u64,
    sequence: Cell<u64>,
    /// Tag of every block written, zero for zeros.
    model: RefCell<BTreeMap<(u32, usize), u64>>,
}

const fn key(volume: VolumeId, chunk: u32) -> ChunkKey {
    ChunkKey {
        volume,
        chunk: ChunkIndex::new(chunk),
    }
}

/// A block that says which write made it.
pub fn block_bytes(tag: u64) -> Vec<u8> {
    tag.to_le_bytes().repeat(BLOCK_SIZE / 8)
}

impl Disk {
    /// Seals a volume for this user.
    pub async fn attach(cluster: &Rc<Cluster>, volume: u64, epoch: u64) -> Self {
        let disk = Self::unsealed(cluster, volume, epoch);
        let seal = command(disk.head(CommandKind::Seal, 0, 0, 0), Payload::empty(), 0);
        assert_eq!(cluster.mutate(&seal).await, Status::Ok);
        disk
    }

    pub fn unsealed(cluster: &Rc<Cluster>, volume: u64, epoch: u64) -> Self {
        Self {
            cluster: cluster.clone(),
            volume: VolumeId::new(volume),
            epoch,
            sequence: Cell::new(0),
            model: RefCell::default(),
        }
    }

    pub fn head(&self, kind: CommandKind, chunk: u32, first: usize, count: usize) -> CommandHead {
        let bytes = |blocks: usize| u32::try_from(blocks * BLOCK_SIZE).expect("within a chunk");
        CommandHead {
            kind,
            key: key(self.volume, chunk),
            offset: bytes(first),
            length: bytes(count),
            client: ClientId::new(self.epoch),
            epoch: Epoch::new(self.epoch),
            incarnation: Incarnation::new(0),
            sequence: Sequence::new(0),
            watermark: Sequence::new(0),
        }
    }

    /// A write of `count` blocks tagged from `tag` on, numbered but not yet sent.
    pub fn next_write(&self, chunk: u32, first: usize, count: usize, tag: u64) -> Command {
        let head = self.numbered(CommandKind::Write, chunk, first, count);
        let tags = tag..tag + count as u64;
        let bytes: Vec<u8> = tags.flat_map(block_bytes).collect();
        let crc = crc32c(&bytes);
        command(head, Payload::from(bytes), crc)
    }

    fn numbered(&self, kind: CommandKind, chunk: u32, first: usize, count: usize) -> CommandHead {
        let before = self.sequence.get();
        self.sequence.set(before + 1);
        CommandHead {
            sequence: Sequence::new(before + 1),
            watermark: Sequence::new(before),
            ..self.head(kind, chunk, first, count)
        }
    }

    /// Writes until it is acknowledged.
    pub async fn write(&self, chunk: u32, first: usize, count: usize, tag: u64) {
        let write = self.next_write(chunk, first, count, tag);
        assert_eq!(self.cluster.mutate(&write).await, Status::Ok);
        self.expect(chunk, first, (tag..tag + count as u64).collect());
    }

    /// Makes blocks zeros, in the one way or the other, until it is acknowledged.
    pub async fn zero(&self, kind: CommandKind, chunk: u32, first: usize, count: usize) {
        let head = self.numbered(kind, chunk, first, count);
        let zero = command(head, Payload::empty(), 0);
        assert_eq!(self.cluster.mutate(&zero).await, Status::Ok);
        self.expect(chunk, first, vec![0; count]);
    }

    /// Takes note of what blocks must contain from now on.
    pub fn expect(&self, chunk: u32, first: usize, tags: Vec<u64>) {
        let mut model = self.model.borrow_mut();
        for (block, tag) in (first..).zip(tags) {
            model.insert((chunk, block), tag);
        }
    }

    /// Chunks written to.
    pub fn chunks(&self) -> Vec<u32> {
        let mut chunks: Vec<u32> = self
            .model
            .borrow()
            .keys()
            .map(|(chunk, _)| *chunk)
            .collect();
        chunks.dedup();
        chunks
    }

    /// Reads everything through the leader and compares it.
    pub async fn check(&self) {
        for chunk in self.chunks() {
            let head = self.head(CommandKind::Write, chunk, 0, BLOCKS);
            let bytes = self.cluster.read(&head).await.expect("readable");
            assert_eq!(bytes.len(), BLOCKS * BLOCK_SIZE);
            for (block, found) in bytes.chunks_exact(BLOCK_SIZE).enumerate() {
                let tag = self.model.borrow().get(&(chunk, block)).copied();
                let tag = tag.unwrap_or(0);
                let is = u64::from_le_bytes(found[..8].try_into().expect("eight bytes"));
                assert!(
                    found == block_bytes(tag),
                    "{} chunk {chunk} block {block} should be {tag}, begins with {is}",
                    self.volume
                );
            }
        }
    }

    /// The blocks that hold data, as far as this user knows.
    pub fn holds_data(&self, chunk: u32) -> Vec<bool> {
        let model = self.model.borrow();
        let tag = |block| model.get(&(chunk, block)).copied().unwrap_or(0);
        (0..BLOCKS).map(|block| tag(block) != 0).collect()
    }
}
