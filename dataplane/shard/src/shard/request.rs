//! Frames in, replies out.
//!
//! Data requests wait for consensus or a device, so each runs in a task of its own; a completed
//! task leaves nothing behind. What needs no waiting is done in place.

use super::Shard;
use crate::limit::ADMITTED_BYTES_MIN;
use ogee_group::{ASK_PIECE, CommandHead, CommandKind, Group, Outcome, ReadRun, command};
use ogee_proto::checksum::crc32c;
use ogee_proto::limit::REQUEST_PAYLOAD_MAX;
use ogee_proto::wire::{FrameHeader, FrameKind, Status};
use ogee_runtime::Instant;
use ogee_transport::{Frame, Peer};
use std::rc::Rc;

impl Shard {
    /// Takes a frame; never blocks.
    pub(super) fn handle(self: &Rc<Self>, peer: Peer, frame: Frame) {
        if frame.header.kind == FrameKind::Beat {
            return self.watch.on_beat(&peer, &frame);
        }
        if frame.header.kind == FrameKind::Scrub {
            return self.spawn_scrub_order(peer, frame);
        }
        let Some(group) = self.group(frame.header.copyset) else {
            return self.handle_damaged(peer, frame);
        };
        if !is_addressed(&group, &frame.header) {
            return reply(&peer, refusal(&frame.header, Status::NoCopyset));
        }
        match frame.header.kind {
            FrameKind::AppendEntries => group.on_append(&peer, frame),
            FrameKind::AppendClose => group.on_append_close(&peer, &frame.header),
            kind if is_raft(kind) => self.spawn_raft(group, peer, frame),
            _ => self.submit(group, peer, frame),
        }
    }

    /// An operator wants something of what is done in the background.
    fn spawn_scrub_order(self: &Rc<Self>, peer: Peer, frame: Frame) {
        let Some(permit) = self.raft_admission.try_acquire(ADMITTED_BYTES_MIN) else {
            return self.throttle(&peer, &frame.header);
        };
        let shard = self.clone();
        drop(ogee_runtime::spawn(async move {
            reply(&peer, super::admin::scrub(&shard, &frame).await);
            drop(permit);
        }));
    }

    /// A damaged replica answers one kind of question: what it still has in its log.
    fn handle_damaged(self: &Rc<Self>, peer: Peer, frame: Frame) {
        let header = frame.header;
        let mender = self.damaged(header.copyset).filter(|mender| {
            header.kind == FrameKind::LogEntries && header.epoch.get() == mender.replica_id().get()
        });
        let Some(mender) = mender else {
            return reply(&peer, refusal(&header, Status::NoCopyset));
        };
        let Some(permit) = self.raft_admission.try_acquire(REQUEST_PAYLOAD_MAX) else {
            return reply(&peer, refusal(&header, Status::Retry));
        };
        drop(ogee_runtime::spawn(async move {
            reply(&peer, mender.on_log_entries(frame).await);
            drop(permit);
        }));
    }

    /// Serves a peer's request. Elections and copies go on while clients wait for a quorum that
    /// these must restore.
    fn spawn_raft(self: &Rc<Self>, group: Group, peer: Peer, frame: Frame) {
        let arrived = ogee_runtime::now();
        match self.raft_admission.try_acquire(cost_of(&frame)) {
            Some(permit) => self.spawn_request(group, peer, frame, arrived, permit),
            None => self.throttle(&peer, &frame.header),
        }
    }

    /// Serves a client's request when its turn comes.
    fn submit(self: &Rc<Self>, group: Group, peer: Peer, frame: Frame) {
        let arrived = ogee_runtime::now();
        let (shard, from, header) = (self.clone(), peer.clone(), frame.header);
        let (cost, copyset) = (cost_of(&frame), header.copyset);
        let submitted = self
            .admission
            .submit(from.id(), copyset, cost, move |room| {
                group.note_bytes(cost);
                shard.spawn_request(group, peer, frame, arrived, room);
            });
        if submitted.is_err() {
            self.throttle(&from, &header);
        }
        if self.admission.waiting() > 0 {
            // What is done in the background is in nobody's way then.
            for open in &self.stores {
                open.store.budget().note_waiting();
            }
        }
    }

    fn throttle(&self, peer: &Peer, header: &FrameHeader) {
        self.throttled.set(self.throttled.get() + 1);
        reply(peer, refusal(header, Status::Throttled));
    }

    fn spawn_request<P: 'static>(
        self: &Rc<Self>,
        group: Group,
        peer: Peer,
        frame: Frame,
        arrived: Instant,
        permit: P,
    ) {
        let shard = self.clone();
        drop(ogee_runtime::spawn(async move {
            shard.metrics.queue.observe(ogee_runtime::now() - arrived);
            let header = frame.header;
            let answer = serve(&group, frame).await;
            tracing::trace!(request = %header.request_id, peer = %peer.hello().name,
                kind = ?header.kind, copyset = %header.copyset, key = %header.key,
                offset = header.offset, length = header.length, sequence = %header.sequence,
                status = answer.header.status.text(), "request");
            reply(&peer, answer);
            drop(permit);
        }));
    }
}

/// Bytes that a request moves, in either direction.
fn cost_of(frame: &Frame) -> usize {
    let cost = frame.payload.len().max(frame.header.length as usize);
    cost.clamp(ADMITTED_BYTES_MIN, REQUEST_PAYLOAD_MAX)
}

const fn is_raft(kind: FrameKind) -> bool {
    matches!(
        kind,
        FrameKind::AppendEntries
            | FrameKind::AppendClose
            | FrameKind::Vote
            | FrameKind::Snapshot
            | FrameKind::TransferLeader
            | FrameKind::LogEntries
            | FrameKind::Blocks
    )
}

/// Raft frames name the replica that they are meant for: an endpoint may have changed hands.
fn is_addressed(group: &Group, header: &FrameHeader) -> bool {
    !is_raft(header.kind) || header.epoch.get() == group.replica_id().get()
}

/// A task is as large as the largest thing that it may wait for, and is copied when it starts. So only a write
/// waits in place: everything else waits in a box of its own.
async fn serve(group: &Group, frame: Frame) -> Frame {
    match frame.header.kind {
        FrameKind::Write => mutate(group, frame, CommandKind::Write).await,
        FrameKind::Read => Box::pin(read(group, &frame.header)).await,
        _ => Box::pin(serve_other(group, frame)).await,
    }
}

async fn serve_other(group: &Group, frame: Frame) -> Frame {
    match frame.header.kind {
        FrameKind::Discard => mutate(group, frame, CommandKind::Discard).await,
        FrameKind::WriteZeroes => mutate(group, frame, CommandKind::WriteZeroes).await,
        FrameKind::Seal => mutate(group, frame, CommandKind::Seal).await,
        FrameKind::BlockStatus => block_status(group, &frame.header).await,
        FrameKind::Vote => group.on_vote(frame).await,
        FrameKind::Snapshot => group.on_snapshot(frame).await,
        FrameKind::TransferLeader => group.on_transfer_leader(frame).await,
        FrameKind::LogEntries => group.on_log_entries(frame).await,
        FrameKind::Blocks => group.on_blocks(frame).await,
        FrameKind::Digest if frame.header.length == ASK_PIECE => group.on_piece(frame).await,
        FrameKind::Digest => super::admin::digest(group, &frame.header).await,
        FrameKind::Hello
        | FrameKind::Ping
        | FrameKind::Pong
        | FrameKind::Reply
        | FrameKind::Read
        | FrameKind::Write
        | FrameKind::AppendEntries
        | FrameKind::AppendClose
        | FrameKind::Beat
        | FrameKind::Scrub => refusal(&frame.header, Status::BadRequest),
    }
}

async fn mutate(group: &Group, frame: Frame, kind: CommandKind) -> Frame {
    let Frame {
        header,
        meta,
        payload,
        ..
    } = frame;
    let expected = if kind == CommandKind::Write {
        header.length as usize
    } else {
        0
    };
    if !meta.is_empty() || payload.len() != expected || expected > REQUEST_PAYLOAD_MAX {
        return refusal(&header, Status::BadRequest);
    }
    // With no meta the body's checksum is the payload's: it travels on into every replica's log.
    let crc = header.body_crc;
    debug_assert!(payload.is_empty() || crc == crc32c(&payload));
    let outcome = group
        .mutate(command(head_of(&header, kind), payload, crc))
        .await;
    with_outcome(&header, outcome)
}

async fn read(group: &Group, header: &FrameHeader) -> Frame {
    if header.length as usize > REQUEST_PAYLOAD_MAX {
        return refusal(header, Status::BadRequest);
    }
    match group.read(&head_of(header, CommandKind::Write)).await {
        Ok(runs) => {
            let mut frame = Frame::new(FrameHeader::reply(header, Status::Ok));
            frame.payload = ReadRun::join(runs);
            frame
        }
        Err(outcome) => with_outcome(header, outcome),
    }
}

async fn block_status(group: &Group, header: &FrameHeader) -> Frame {
    match group
        .block_status(&head_of(header, CommandKind::Write))
        .await
    {
        Ok(present) => {
            let mut bitmap = vec![0u8; present.len().div_ceil(8)];
            for (byte, blocks) in bitmap.iter_mut().zip(present.chunks(8)) {
                for (bit, block) in blocks.iter().enumerate() {
                    *byte |= u8::from(*block) << bit;
                }
            }
            let mut frame = Frame::new(FrameHeader::reply(header, Status::Ok));
            frame.meta = bitmap.into();
            frame
        }
        Err(outcome) => with_outcome(header, outcome),
    }
}

fn head_of(header: &FrameHeader, kind: CommandKind) -> CommandHead {
    CommandHead {
        kind,
        key: header.key,
        offset: header.offset,
        length: header.length,
        client: header.client,
        epoch: header.epoch,
        incarnation: header.incarnation,
        sequence: header.sequence,
        watermark: header.watermark,
    }
}

/// A reply without a body.
pub(super) fn refusal(header: &FrameHeader, status: Status) -> Frame {
    Frame::new(FrameHeader::reply(header, status))
}

/// A reply with an outcome; a leader hint goes into `stream`.
pub(super) fn with_outcome(header: &FrameHeader, outcome: Outcome) -> Frame {
    let mut reply = FrameHeader::reply(header, outcome.status);
    reply.stream = outcome.hint.map_or(0, |replica| replica.get());
    Frame::new(reply)
}

fn reply(peer: &Peer, frame: Frame) {
    if let Err(error) = peer.reply(frame) {
        tracing::debug!(peer = %peer.id(), %error, "a reply found no peer");
    }
}
