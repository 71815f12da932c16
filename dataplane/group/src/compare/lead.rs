//! The leader's part: one piece compared, and put right.
//!
//! *Place*: called by the shard, one piece after the other. *Owner*: the group's shard. *Invariants* and why: the module's
//! document. Everything here waits for a bounded time. *On failure*: [`Compared::Later`].

use super::piece::{BlockSum, PieceSums, Place};
use super::verdict::{Verdict, judge};
use super::wire::{ASK_PIECE, Reply, decode_disputed, encode_disputed};
use crate::command::{CommandHead, CommandKind};
use crate::digest::block_crc;
use crate::error::GroupError;
use crate::group::{Group, command};
use crate::limit::{
    GATE_MAX, PIECE_ASK_WAIT, PIECE_LEN, PIECE_PAUSE, PIECE_TRIES, PIECE_WAIT, REPAIR_BLOCKS_MAX,
};
use crate::metrics::FoundBy;
use crate::read::ReadRun;
use crate::repair::{Answer, Span};
use futures_util::future::join_all;
use ogee_proto::checksum::crc32c;
use ogee_proto::id::{ClientId, Epoch, Incarnation, ReplicaId, RequestId, Sequence, Term};
use ogee_proto::limit::BLOCK_SIZE;
use ogee_proto::unit::BlockIndex;
use ogee_proto::wire::{FrameHeader, FrameKind, Status};
use ogee_runtime::{Instant, Payload, now, random_u64, sleep, timeout, timeout_at};
use ogee_transport::Frame;
use std::collections::BTreeSet;
use std::time::Duration;

/// What came of comparing a piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compared {
    /// All voters were compared.
    Done {
        /// The next piece of which any of them holds anything.
        next: Option<Place>,
        /// Blocks with data that the leader has here.
        blocks: u64,
        /// Blocks in which they differed.
        differing: u64,
        /// Of those, the ones that most voters agreed about, and that were written anew.
        rewritten: u64,
    },
    /// Not this piece: blocks of it are being repaired, or were written back under each try.
    Busy {
        /// The next piece of which this replica holds anything.
        next: Option<Place>,
    },
    /// Not all voters can be, for now.
    Later,
    /// One of them runs an older program.
    Unable,
    /// This replica does not lead.
    NotLed,
}

/// Why a piece is not compared.
enum Obstacle {
    /// It may be at once.
    Again,
    Later,
}

/// Every voter and what it holds, as of one entry.
type Sums = Vec<(ReplicaId, PieceSums)>;

/// Blocks that most voters agree about, one of whom holds all of them.
struct Rewrite {
    source: ReplicaId,
    span: Span,
    /// Of each block.
    sums: Vec<BlockSum>,
}

impl Group {
    /// Compares what all voters hold of a piece, and puts right what differs. Takes a while; nothing waits for it unless
    /// something differs.
    pub async fn compare(&self, place: Place) -> Compared {
        if !self.report().is_leader {
            return Compared::NotLed;
        }
        let Some(others) = self.other_voters() else {
            return Compared::Later;
        };
        match self.are_able(&others).await {
            Some(true) => {}
            Some(false) => return Compared::Unable,
            None => return Compared::Later,
        }
        let sums = match self.sums_of_all(place, &others).await {
            Ok(sums) => sums,
            Err(Obstacle::Later) => return Compared::Later,
            Err(Obstacle::Again) => {
                let next = self.replica().next_place(place);
                return Compared::Busy { next };
            }
        };
        let own = sums.iter().find(|(id, _)| *id == self.replica_id());
        let data = own.map_or(0, |(_, own)| data_blocks(own));
        let differing = judged(&sums);
        let rewritten = match differing.is_empty() {
            true => {
                self.note_disputed(place, Vec::new(), &others).await;
                0
            }
            false => {
                self.describe(place, &sums, &differing);
                match self.settle(place, &others).await {
                    Some(rewritten) => rewritten,
                    None => return Compared::Later,
                }
            }
        };
        Compared::Done {
            next: sums.iter().filter_map(|(_, sums)| sums.next).min(),
            blocks: data,
            differing: differing.len() as u64,
            rewritten,
        }
    }

    /// None while the members change, or one of them is being copied to.
    fn other_voters(&self) -> Option<Vec<(ReplicaId, String)>> {
        let voters: BTreeSet<ReplicaId> = self.voters().into_iter().collect();
        let others = self.others();
        let are_all = voters.contains(&self.replica_id())
            && others.iter().all(|(id, _)| voters.contains(id))
            && others.len() + 1 == voters.len();
        are_all.then_some(others)
    }

    /// Whether all of them run a program that compares pieces: to another one the entry would be a digest of everything.
    /// It is asked once in a term and configuration.
    async fn are_able(&self, others: &[(ReplicaId, String)]) -> Option<bool> {
        let of = (self.report().term, others.iter().map(|it| it.0).collect());
        if *self.able().borrow() == Some(of.clone()) {
            return Some(true);
        }
        let asked = others.iter().map(|it| self.ask_once(it, 0));
        let answers = join_all(asked).await;
        if answers.iter().any(|it| matches!(it, Asked::Unable)) {
            return Some(false);
        }
        if answers.iter().all(|it| matches!(it, Asked::Replied(_))) {
            *self.able().borrow_mut() = Some(of);
            return Some(true);
        }
        None
    }

    /// Of all voters. What is written back under the comparison, and what is being repaired, is tried again.
    async fn sums_of_all(
        &self,
        place: Place,
        others: &[(ReplicaId, String)],
    ) -> Result<Sums, Obstacle> {
        for _ in 1..PIECE_TRIES {
            match self.round(place, others, false).await {
                Err(Obstacle::Again) => sleep(PIECE_PAUSE).await,
                done => return done,
            }
        }
        self.round(place, others, false).await
    }

    /// What every voter holds of a piece as of an entry that is put into the log now.
    async fn round(
        &self,
        place: Place,
        others: &[(ReplicaId, String)],
        is_urgent: bool,
    ) -> Result<Sums, Obstacle> {
        // Never 0, which is a question of its own.
        let id = random_u64().max(1);
        let head = head_of(place, CommandKind::Digest, (place.offset(), PIECE_LEN));
        let head = CommandHead {
            sequence: Sequence::new(id),
            watermark: Sequence::new(is_urgent.into()),
            ..head
        };
        let proposed = self.replicate(command(head, Payload::empty(), 0)).await;
        if proposed.status != Status::Ok {
            return Err(Obstacle::Later);
        }
        let end = now() + PIECE_WAIT;
        let replies = join_all(others.iter().map(|it| self.ask(it, id, end))).await;
        let own = self
            .own_reply(id, end.saturating_duration_since(now()))
            .await;
        let mut sums = Sums::new();
        let named = others.iter().map(|it| it.0).zip(replies);
        for (replica, reply) in named.chain([(self.replica_id(), own)]) {
            match reply {
                Reply::Sums(of) => sums.push((replica, of)),
                Reply::Again => return Err(Obstacle::Again),
                Reply::NotYet | Reply::NotNow => return Err(Obstacle::Later),
            }
        }
        let applied = sums.first().map(|(_, of)| of.applied);
        match sums.iter().all(|(_, of)| Some(of.applied) == applied) {
            true => Ok(sums),
            false => Err(Obstacle::Again),
        }
    }

    async fn own_reply(&self, id: u64, wait: Duration) -> Reply {
        let sums = self.replica().pieces.sums.wait(self.copyset(), id);
        match timeout(wait, sums).await {
            Err(_elapsed) => Reply::NotYet,
            Ok(Ok(sums)) => Reply::Sums((*sums).clone()),
            Ok(Err(error)) => match *error {
                GroupError::Race { .. } => Reply::Again,
                _ if error.is_damaged_block() => Reply::Again,
                _ => {
                    tracing::debug!(copyset = %self.copyset(), %error, "no sums of a piece");
                    Reply::NotNow
                }
            },
        }
    }

    /// Asks until it is there.
    async fn ask(&self, peer: &(ReplicaId, String), id: u64, end: Instant) -> Reply {
        loop {
            let asked = self.ask_once(peer, id).await;
            let is_late = now() >= end;
            match asked {
                Asked::Replied(Reply::NotYet) | Asked::Silent if !is_late => {}
                Asked::Replied(reply) => return reply,
                Asked::Silent | Asked::Unable => return Reply::NotNow,
            }
            sleep(ASK_PAUSE).await;
        }
    }

    async fn ask_once(&self, (peer, endpoint): &(ReplicaId, String), id: u64) -> Asked {
        let mut header = FrameHeader::new(FrameKind::Digest, RequestId::new(0));
        header.copyset = self.copyset();
        header.client = ClientId::new(self.replica_id().get());
        header.epoch = Epoch::new(peer.get());
        header.sequence = Sequence::new(id);
        header.length = ASK_PIECE;
        let mut frame = Frame::new(header);
        frame.meta = encode_disputed(&self.replica().pieces.disputes.all()).into();
        let Some(caller) = self.peers().caller(*peer, endpoint) else {
            return Asked::Silent;
        };
        let reply = timeout(PIECE_ASK_WAIT * 2, caller.call(frame)).await;
        let Ok(Ok(reply)) = reply else {
            return Asked::Silent;
        };
        match reply.header.status {
            Status::Ok => Reply::decode(&reply.meta).map_or(Asked::Silent, Asked::Replied),
            Status::BadRequest => Asked::Unable,
            _ => Asked::Silent,
        }
    }

    /// Answers a leader's question about a piece.
    pub async fn on_piece(&self, frame: Frame) -> Frame {
        let header = &frame.header;
        if header.epoch.get() != self.replica_id().get() {
            return Frame::new(FrameHeader::reply(header, Status::NoCopyset));
        }
        let Ok(disputed) = decode_disputed(&frame.meta) else {
            return Frame::new(FrameHeader::reply(header, Status::BadRequest));
        };
        if !self.report().is_leader && self.replica().pieces.disputes.hear(disputed) {
            self.replica().save_disputes();
        }
        let reply = match header.sequence.get() {
            0 => Reply::NotNow,
            id => self.own_reply(id, PIECE_ASK_WAIT).await,
        };
        let mut answer = Frame::new(FrameHeader::reply(header, Status::Ok));
        answer.meta = reply.encode().into();
        answer
    }

    /// Compares once more while nobody writes there, and has what most voters hold written anew; how many blocks.
    async fn settle(&self, place: Place, others: &[(ReplicaId, String)]) -> Option<u64> {
        let end = now() + GATE_MAX;
        let closed = timeout_at(end, self.gate().close(place.span())).await;
        let _closed = closed.ok()?;
        let sums = timeout_at(end, self.round(place, others, true)).await;
        let sums = sums.ok()?.ok()?;
        let differing = judged(&sums);
        let is_open = |of: &&(usize, Verdict)| of.1 == Verdict::Open;
        let open = differing.iter().filter(is_open);
        let open = open.map(|(block, _)| place.block(*block)).collect();
        let term = sums.first().map(|(_, of)| of.applied.term)?;
        let mut rewritten = 0;
        for rewrite in rewrites(place, &sums, &differing) {
            timeout_at(end, self.rewrite(place, &rewrite, term, others))
                .await
                .ok()??;
            rewritten += u64::from(rewrite.span.count);
        }
        drop(_closed);
        self.note_disputed(place, open, others).await;
        Some(rewritten)
    }

    async fn rewrite(
        &self,
        place: Place,
        rewrite: &Rewrite,
        term: Term,
        others: &[(ReplicaId, String)],
    ) -> Option<()> {
        let (copyset, span) = (self.copyset(), rewrite.span);
        let Some(bytes) = self.bytes_of(rewrite, others).await else {
            tracing::warn!(%copyset, key = %span.key, first = span.first, count = span.count, source = %rewrite.source,
                "what most replicas hold could not be read; it is tried again");
            return None;
        };
        let range = (usize::from(span.first) * BLOCK_SIZE, bytes.len());
        let head = CommandHead {
            epoch: Epoch::new(term.get()),
            ..head_of(place, CommandKind::Rewrite, range)
        };
        let crc = crc32c(&bytes);
        let outcome = self.replicate(command(head, bytes, crc)).await;
        let is_done = outcome.status == Status::Ok;
        tracing::warn!(%copyset, key = %span.key, first = span.first, count = span.count, is_done,
            "blocks in which replicas differed are written anew as most of them have them");
        is_done.then_some(())
    }

    /// What its source holds, if that is what it has told.
    async fn bytes_of(&self, rewrite: &Rewrite, others: &[(ReplicaId, String)]) -> Option<Payload> {
        let span = rewrite.span;
        let replica = self.replica();
        let bytes = match others.iter().find(|(id, _)| *id == rewrite.source) {
            None => {
                let (first, count) = (span.first(), span.count.into());
                let read = replica.read_blocks(FoundBy::Compare, span.key, first, count);
                ReadRun::join(read.await.ok()?)
            }
            Some((id, endpoint)) => {
                let asked = replica.ask_for_blocks(self.peers(), (*id, endpoint), span);
                match asked.await {
                    Answer::Bytes(bytes) => bytes,
                    Answer::Lacks | Answer::Silent => return None,
                }
            }
        };
        let sums = bytes.chunks_exact(BLOCK_SIZE).map(block_crc);
        let is_so = sums.map(BlockSum::from).eq(rewrite.sums.iter().copied());
        is_so.then_some(bytes)
    }

    /// Remembers what is disputed of a piece. The others hear of it at once if that is new.
    async fn note_disputed(
        &self,
        place: Place,
        blocks: Vec<BlockIndex>,
        others: &[(ReplicaId, String)],
    ) {
        let (copyset, count) = (self.copyset(), blocks.len());
        if !self.replica().pieces.disputes.set(place, blocks) {
            return;
        }
        self.replica().save_disputes();
        if count > 0 {
            tracing::error!(%copyset, key = %place.key(), piece = place.number(), blocks = count,
                "replicas differ and no rule tells which of them is right: write these blocks anew, or restore them");
        } else {
            tracing::info!(%copyset, key = %place.key(), piece = place.number(), "replicas agree again");
        }
        join_all(others.iter().map(|it| self.ask_once(it, 0))).await;
    }

    fn describe(&self, place: Place, sums: &Sums, differing: &[(usize, Verdict)]) {
        for (replica, of) in sums {
            let is_odd = |(block, verdict): &&(usize, Verdict)| match verdict {
                Verdict::Most(most) => of.blocks[*block] != *most,
                Verdict::Open => true,
            };
            let odd: Vec<usize> = differing.iter().filter(is_odd).map(|it| it.0).collect();
            if let Some(first) = odd.first() {
                tracing::error!(copyset = %self.copyset(), %replica, key = %place.key(), applied = %of.applied,
                    first = place.block(*first).get(), count = odd.len(), is_damaged = has_damage(of),
                    "blocks of this replica are not what the others hold: a write that its device took and lost, or a \
                     fault of this program; look at the device");
            }
        }
    }
}

/// Between two questions about the same.
const ASK_PAUSE: Duration = Duration::from_millis(50);

/// What came of one question.
enum Asked {
    Replied(Reply),
    /// It does not know what is asked.
    Unable,
    /// Nothing, or not now.
    Silent,
}

fn head_of(place: Place, kind: CommandKind, (offset, length): (usize, usize)) -> CommandHead {
    let bytes = |bytes| u32::try_from(bytes).expect("invariant: a chunk has 16 MiB");
    CommandHead {
        kind,
        key: place.key(),
        offset: bytes(offset),
        length: bytes(length),
        client: ClientId::new(0),
        epoch: Epoch::new(0),
        incarnation: Incarnation::new(0),
        sequence: Sequence::new(0),
        watermark: Sequence::new(0),
    }
}

fn judged(sums: &Sums) -> Vec<(usize, Verdict)> {
    let blocks: Vec<&[BlockSum]> = sums.iter().map(|(_, of)| &of.blocks[..]).collect();
    judge(&blocks)
}

fn has_damage(sums: &PieceSums) -> bool {
    sums.blocks.contains(&BlockSum::Damaged)
}

fn data_blocks(sums: &PieceSums) -> u64 {
    let data = sums.blocks.iter().filter(|sum| **sum != BlockSum::Zeros);
    data.count() as u64
}

/// What is to be written anew: blocks that follow each other, all of which one voter holds as most do.
fn rewrites(place: Place, sums: &Sums, differing: &[(usize, Verdict)]) -> Vec<Rewrite> {
    let mut rewrites: Vec<Rewrite> = Vec::new();
    for (block, verdict) in differing {
        let Verdict::Most(most) = verdict else {
            continue;
        };
        let holds = |replica: ReplicaId| {
            let of = sums.iter().find(|(id, _)| *id == replica);
            of.is_some_and(|(_, of)| of.blocks[*block] == *most)
        };
        let at = place.block(*block);
        if let Some(last) = rewrites.last_mut()
            && usize::from(last.span.first) + last.sums.len() == at.as_usize()
            && last.sums.len() < REPAIR_BLOCKS_MAX
            && holds(last.source)
        {
            last.sums.push(*most);
            last.span.count += 1;
            continue;
        }
        let source = sums.iter().map(|(id, _)| *id).find(|id| holds(*id));
        rewrites.extend(source.map(|source| Rewrite {
            source,
            span: Span::new(place.key(), at, 1),
            sums: vec![*most],
        }));
    }
    rewrites
}
