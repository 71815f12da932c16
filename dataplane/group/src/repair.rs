//! Putting damaged blocks of the store right from the other replicas.
//!
//! *Place*: before a leader's read that found one is answered, and in the background for whatever else did: digests,
//! copies, scrubs, another replica's question. *Owner*: the replica; one repair at a time.
//! *Invariants*: a peer's bytes are taken only if they match the checksum of this store's own map (`Store::repair`), so it
//! does not matter how far the peer has applied, nor what is being copied to whom; a repaired block is read back. What a
//! newer entry of the log replaces is not repaired but written back. Waiting places are bounded: what finds no room there
//! is found again when it is next read.
//! *On failure*: a leader lets another replica lead (`decline`); the block stays damaged, is reported by every read, and is
//! tried again after a pause that grows.
//!
//! Request: key, offset and length of whole blocks in the header; answer: their bytes as the peer would read them.

use crate::command::CommandHead;
use crate::error::GroupError;
use crate::group::Group;
use crate::limit::{
    REPAIR_ASK_WAIT, REPAIR_BLOCKS_MAX, REPAIR_PAUSE_MAX, REPAIR_PAUSE_MIN, REPAIR_READ_WAIT,
    REPAIRS_WAITING_MAX,
};
use crate::lost::Lost;
use crate::metrics::FoundBy;
use crate::peers::PeerBook;
use crate::read::ReadRun;
use crate::replica::Replica;
use ogee_proto::id::{ChunkKey, ClientId, Epoch, ReplicaId, RequestId};
use ogee_proto::limit::{BLOCK_SIZE, BLOCKS_PER_CHUNK};
use ogee_proto::unit::BlockIndex;
use ogee_proto::wire::{FrameHeader, FrameKind, Status};
use ogee_runtime::Payload;
use ogee_runtime::channel::{Mutex, Notify};
use ogee_store::{BlockRead, StoreError};
use ogee_transport::Frame;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Blocks of a chunk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Span {
    pub(crate) key: ChunkKey,
    pub(crate) first: u16,
    pub(crate) count: u16,
}

impl Span {
    pub(crate) fn new(key: ChunkKey, first: BlockIndex, count: usize) -> Self {
        let count = u16::try_from(count).expect("invariant: a chunk has 4096 blocks");
        Self {
            key,
            first: first.get(),
            count,
        }
    }

    /// Whether a command speaks of any of its blocks.
    pub(crate) fn meets(self, head: &CommandHead) -> bool {
        let (first, end) = (
            usize::from(self.first),
            usize::from(self.first) + usize::from(self.count),
        );
        self.key == head.key
            && head.first_block() < end
            && first < head.first_block() + head.block_count()
    }

    /// Whether a block is one of its own.
    pub(crate) fn has(self, key: ChunkKey, block: BlockIndex) -> bool {
        let within = usize::from(self.first)..usize::from(self.first) + usize::from(self.count);
        self.key == key && within.contains(&block.as_usize())
    }

    /// Its blocks.
    pub(crate) fn blocks(self) -> impl Iterator<Item = BlockIndex> {
        let first = usize::from(self.first);
        (first..first + usize::from(self.count)).filter_map(BlockIndex::new)
    }

    pub(crate) fn first(self) -> BlockIndex {
        BlockIndex::new(self.first.into()).expect("invariant: made of a block")
    }

    fn halves(self) -> [Self; 2] {
        let half = self.count / 2;
        let rest = Self {
            first: self.first + half,
            count: self.count - half,
            ..self
        };
        [
            Self {
                count: half,
                ..self
            },
            rest,
        ]
    }
}

/// Blocks that were found damaged and wait to be put right.
pub(crate) struct Repairs {
    waiting: RefCell<BTreeMap<Span, FoundBy>>,
    changed: Notify,
    turn: Mutex<()>,
    pub(crate) lost: Lost,
}

/// What another replica says about blocks that are asked of it.
pub(crate) enum Answer {
    Bytes(Payload),
    /// It cannot read them either.
    Lacks,
    /// Nothing, or not now.
    Silent,
}

impl Default for Repairs {
    fn default() -> Self {
        Self {
            waiting: RefCell::default(),
            changed: Notify::new(),
            turn: Mutex::new(()),
            lost: Lost::default(),
        }
    }
}

impl Repairs {
    /// Has the background repair what is damaged there.
    fn want(&self, span: Span, by: FoundBy) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() < REPAIRS_WAITING_MAX && !waiting.contains_key(&span) {
            waiting.insert(span, by);
            drop(waiting);
            self.changed.notify_all();
        }
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.borrow().len()
    }

    fn done(&self, span: Span) {
        self.waiting.borrow_mut().remove(&span);
        self.lost.forget(span);
    }

    /// Nobody has these. Only what is tried again may count as lost, or it would do so for ever.
    fn note_lost(&self, span: Span, blocks: Vec<BlockIndex>, have_all_answered: bool) {
        let is_tried = self.waiting.borrow().contains_key(&span);
        if is_tried && have_all_answered {
            self.lost.note(span, blocks);
        } else {
            self.lost.forget(span);
        }
    }
}

impl Replica {
    /// Takes note of damage that was found among these blocks.
    pub(crate) fn note_damage(&self, by: FoundBy, error: &GroupError, span: Span) {
        if error.is_damaged_block() {
            self.repairs.want(span, by);
        }
    }

    /// Puts right what was noted, in the background. Ends with the group.
    pub(crate) async fn keep_repaired(self: Rc<Self>, peers: Rc<PeerBook>) {
        let mut pause = REPAIR_PAUSE_MIN;
        loop {
            let changed = self.repairs.changed.notified();
            let waiting = self.repairs.waiting.borrow().clone();
            let mut is_whole = true;
            for (span, by) in waiting {
                if self.check_kept().is_err() {
                    return;
                }
                if self.repair(&peers, by, span).await {
                    self.repairs.done(span);
                } else {
                    is_whole = false;
                }
            }
            if is_whole {
                pause = REPAIR_PAUSE_MIN;
                changed.await;
                continue;
            }
            // Another replica may have what is damaged here, and lead.
            self.damage.note();
            // What is noted meanwhile need not wait for so long; nor does it make this spin.
            ogee_runtime::sleep(REPAIR_PAUSE_MIN).await;
            let _noted = ogee_runtime::timeout(pause, changed).await;
            pause = REPAIR_PAUSE_MAX.min(pause * 2);
        }
    }

    /// Puts right what is damaged among these blocks; whether nothing is any more.
    pub(crate) async fn repair(&self, peers: &PeerBook, by: FoundBy, span: Span) -> bool {
        let _turn = self.repairs.turn.lock().await;
        let Ok(mut damaged) = self.damaged_blocks(span).await else {
            return false;
        };
        if damaged.is_empty() {
            return true;
        }
        let mut have_all_answered = true;
        for (peer, endpoint) in self.members() {
            if peer == self.id {
                continue;
            }
            let answered;
            (damaged, answered) = self
                .repair_from(peers, (peer, &endpoint), (by, span.key), damaged)
                .await;
            have_all_answered &= answered;
            if damaged.is_empty() {
                return true;
            }
        }
        tracing::error!(copyset = %self.copyset, replica = %self.id, key = %span.key, blocks = damaged.len(),
            first = damaged[0].get(), have_all_answered, "damaged blocks: no other replica that was reached has what \
            belongs there, or the device does not take it; replace the device if this goes on");
        self.repairs.note_lost(span, damaged, have_all_answered);
        false
    }

    /// Blocks that cannot be read, or not as they were written, and that nothing in the log replaces.
    async fn damaged_blocks(&self, span: Span) -> Result<Vec<BlockIndex>, GroupError> {
        let (mut damaged, mut spans) = (Vec::new(), vec![span]);
        while let Some(span) = spans.pop() {
            let read = self
                .store
                .read(self.copyset, span.key, span.first(), span.count.into());
            let Err(source) = read.await else { continue };
            let copyset = self.copyset;
            let error = GroupError::Store { copyset, source };
            if !error.is_damaged_block() {
                return Err(error);
            }
            match span.count {
                1 => damaged.extend(
                    span.blocks()
                        .filter(|block| !self.is_in_log(span.key, *block)),
                ),
                // The first half is looked at first.
                _ => spans.extend(span.halves().into_iter().rev()),
            }
        }
        Ok(damaged)
    }

    fn is_in_log(&self, key: ChunkKey, block: BlockIndex) -> bool {
        let state = self.state.borrow();
        state.overlay.range(key, block, 1).next().is_some()
    }

    /// Those that are still damaged afterwards, and whether that is for want of what belongs there: the peer has
    /// answered, and this device was not what failed.
    async fn repair_from(
        &self,
        peers: &PeerBook,
        peer: (ReplicaId, &str),
        (by, key): (FoundBy, ChunkKey),
        damaged: Vec<BlockIndex>,
    ) -> (Vec<BlockIndex>, bool) {
        let (mut left, mut is_lack) = (Vec::new(), true);
        for run in runs(&damaged) {
            let span = Span::new(key, run[0], run.len());
            let bytes = match self.ask_for_blocks(peers, peer, span).await {
                Answer::Bytes(bytes) => bytes,
                answer => {
                    is_lack &= matches!(answer, Answer::Lacks);
                    left.extend_from_slice(run);
                    continue;
                }
            };
            for (at, block) in run.iter().enumerate() {
                let data = bytes.slice(at * BLOCK_SIZE..(at + 1) * BLOCK_SIZE);
                match self.store.repair(self.copyset, key, *block, data).await {
                    Ok(()) => self.metrics.repaired.note(by),
                    // What is not there any more is not damaged.
                    Err(StoreError::NotPresent { .. }) => {}
                    Err(error) => {
                        tracing::debug!(copyset = %self.copyset, peer = %peer.0, %key, ?block, %error, "not repaired");
                        is_lack &= matches!(error, StoreError::Checksum { .. });
                        left.push(*block);
                    }
                }
            }
        }
        (left, is_lack)
    }

    pub(crate) async fn ask_for_blocks(
        &self,
        peers: &PeerBook,
        (peer, endpoint): (ReplicaId, &str),
        span: Span,
    ) -> Answer {
        let mut header = FrameHeader::new(FrameKind::Blocks, RequestId::new(0));
        header.copyset = self.copyset;
        header.client = ClientId::new(self.id.get());
        header.epoch = Epoch::new(peer.get());
        header.key = span.key;
        let first = usize::from(span.first) * BLOCK_SIZE;
        let len = usize::from(span.count) * BLOCK_SIZE;
        let bytes = |bytes| u32::try_from(bytes).expect("invariant: a chunk has 16 MiB");
        (header.offset, header.length) = (bytes(first), bytes(len));
        let Some(caller) = peers.caller(peer, endpoint) else {
            return Answer::Silent;
        };
        let reply = ogee_runtime::timeout(REPAIR_ASK_WAIT, caller.call(Frame::new(header))).await;
        let Ok(Ok(reply)) = reply else {
            return Answer::Silent;
        };
        let is_whole = reply.payload.len() == header.length as usize;
        match reply.header.status {
            Status::Ok if is_whole => Answer::Bytes(reply.payload),
            Status::Corrupt => Answer::Lacks,
            _ => Answer::Silent,
        }
    }
}

/// Blocks that follow each other, as many as are asked for at once.
fn runs(blocks: &[BlockIndex]) -> impl Iterator<Item = &[BlockIndex]> {
    let follows = |a: &BlockIndex, b: &BlockIndex| a.get() + 1 == b.get();
    let runs = blocks.chunk_by(follows);
    runs.flat_map(|run| run.chunks(REPAIR_BLOCKS_MAX))
}

impl Group {
    /// Places with damaged blocks that are not repaired yet, or cannot be.
    #[must_use]
    pub fn repairs_waiting(&self) -> usize {
        self.replica().repairs.waiting()
    }

    /// Puts right what a read found damaged, if that does not take long; whether it may be read again.
    pub(crate) async fn repair_for_read(&self, span: Span) -> bool {
        let repair = self.replica().repair(self.peers(), FoundBy::Read, span);
        let repaired = ogee_runtime::timeout(REPAIR_READ_WAIT, repair).await;
        repaired.unwrap_or(false)
    }

    /// Reads what of these blocks is in the store and not in the log; how many bytes. Damage is repaired in the background.
    /// Nothing is read while what is there may be of another moment than its checksums.
    pub async fn scrub(&self, key: ChunkKey, first: BlockIndex, count: usize) -> u64 {
        let replica = self.replica();
        let applied = replica.applied();
        if replica.check_kept().is_err() || replica.digest_obstacle(applied).is_some() {
            return 0;
        }
        let mut bytes = 0;
        for (first, count) in replica.stored(key, first, count) {
            bytes += match replica.read_stored(FoundBy::Scrub, key, first, count).await {
                Ok(runs) => runs.iter().map(data_len).sum(),
                Err(_noted) => (count * BLOCK_SIZE) as u64,
            };
        }
        bytes
    }

    /// Gives another replica, whose own are damaged, blocks of this one's contents.
    pub async fn on_blocks(&self, frame: Frame) -> Frame {
        let header = &frame.header;
        let refuse = |status| Frame::new(FrameHeader::reply(header, status));
        let Some(span) = asked_for(header) else {
            return refuse(Status::BadRequest);
        };
        let read =
            self.replica()
                .read_blocks(FoundBy::Peer, span.key, span.first(), span.count.into());
        match read.await {
            Ok(runs) => {
                let mut reply = Frame::new(FrameHeader::reply(header, Status::Ok));
                reply.payload = ReadRun::join(runs);
                reply
            }
            Err(error) => {
                tracing::warn!(copyset = %self.copyset(), %error, "blocks that a peer lacks cannot be read here either");
                refuse(Status::Corrupt)
            }
        }
    }
}

fn data_len(run: &BlockRead) -> u64 {
    match run {
        BlockRead::Data(bytes) => bytes.len() as u64,
        BlockRead::Zeros(_) => 0,
    }
}

fn asked_for(header: &FrameHeader) -> Option<Span> {
    let (offset, length) = (header.offset as usize, header.length as usize);
    let (first, count) = (offset / BLOCK_SIZE, length / BLOCK_SIZE);
    let is_whole = offset.is_multiple_of(BLOCK_SIZE) && length.is_multiple_of(BLOCK_SIZE);
    let fits = (1..=REPAIR_BLOCKS_MAX).contains(&count) && first + count <= BLOCKS_PER_CHUNK;
    let first = BlockIndex::new(first).filter(|_| is_whole && fits)?;
    Some(Span::new(header.key, first, count))
}
