//! One part of a request, from slot to final outcome.
//!
//! *Place*: under `volume`, over `routes`: slot → seal → sequence → attempts.
//! *Owner*: the shard of the volume; runs in the task of the user's request.
//! *Invariants*: every attempt of a mutating part carries the same sequence and the newest
//! watermark. A part is sent only to a copyset that was seen to commit our seal. A reader seals in
//! nobody's name: all readers of an epoch share that seal, and no earlier writer gets past it.
//! *On failure*: `retry` says which outcome is retried where; what is left ends the part. Dropping
//! the future abandons the part: `session` keeps that safe.

use crate::attachment::Attachment;
use crate::barrier::Barrier;
use crate::copyset::Copyset;
use crate::error::ClientError;
use crate::inflight::{Inflight, Slot, Waiting};
use crate::life::Life;
use crate::metrics::ClientMetrics;
use crate::retry::{Cause, Retries, Step};
use crate::routes::Routes;
use crate::session::{SequenceGuard, Session};
use crate::split::Part;
use crate::window::Room;
use ogee_proto::id::{ChunkKey, ClientId, ReplicaId, Sequence};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_proto::wire::{FrameHeader, FrameKind, Status};
use ogee_runtime::channel::{Gate, watch};
use ogee_runtime::{Loan, Payload, random_u64, seeded_bug, sleep};
use ogee_transport::{CallError, Frame, TransportError};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// Everything that the requests of one volume share.
pub(crate) struct Core {
    pub(crate) attachment: Attachment,
    pub(crate) name: String,
    pub(crate) read_only: bool,
    pub(crate) io_timeout: Option<Duration>,
    pub(crate) routes: Routes,
    pub(crate) session: Rc<Session>,
    pub(crate) inflight: Rc<Inflight>,
    pub(crate) barrier: Rc<Barrier>,
    pub(crate) life: Life,
    pub(crate) gate: Gate,
    pub(crate) size: watch::Sender<ByteLen>,
    pub(crate) metrics: ClientMetrics,
}

/// What one part asks.
pub(crate) struct Ask {
    /// Read, write …
    pub(crate) kind: FrameKind,
    /// Of which bytes.
    pub(crate) part: Part,
    /// The data of a write.
    pub(crate) payload: Payload,
    /// Where what is read is wanted.
    pub(crate) into: Option<Loan>,
}

/// A question to one copyset under way: a part, or a seal.
struct Call<'a> {
    copyset: &'a Copyset,
    slot: &'a Slot,
    header: FrameHeader,
    payload: &'a Payload,
    sequence: Option<&'a SequenceGuard>,
    /// For the first attempt: what comes late must not meet what another one has brought.
    into: Cell<Option<Loan>>,
}

impl Core {
    /// Runs a part to its end.
    pub(crate) async fn run(&self, ask: Ask) -> Result<Frame, ClientError> {
        let copyset = self.routes.copyset(ask.part.chunk);
        let moved = bytes_moved(ask.kind, ask.part.len);
        let slot = self
            .inflight
            .acquire(ask.kind, ask.part, &copyset, moved)
            .await;
        self.metrics.part();
        self.seal_once(&copyset, &slot).await?;
        let sequence = if ask.mutates() {
            slot.waits_for(Waiting::Sequence);
            Some(self.session.begin().await)
        } else {
            None
        };
        let call = Call {
            copyset: &copyset,
            slot: &slot,
            header: self.header(&ask, &copyset, sequence.as_ref()),
            payload: &ask.payload,
            sequence: sequence.as_ref(),
            into: Cell::new(ask.into),
        };
        let outcome = self.drive(&call).await;
        if let Some(sequence) = sequence {
            sequence.finish();
        }
        outcome
    }

    fn header(
        &self,
        ask: &Ask,
        copyset: &Copyset,
        sequence: Option<&SequenceGuard>,
    ) -> FrameHeader {
        let mut header = self.attachment.header(ask.kind);
        header.key.chunk = ask.part.chunk;
        header.copyset = copyset.id();
        header.offset = ask.part.offset;
        header.length = ask.part.len;
        header.sequence = sequence.map_or(Sequence::new(0), SequenceGuard::sequence);
        header
    }

    /// Has `copyset` commit our seal, before any part needs it.
    pub(crate) async fn seal(&self, copyset: &Copyset) -> Result<(), ClientError> {
        let slot = self
            .inflight
            .acquire(FrameKind::Seal, Part::default(), copyset, 0)
            .await;
        self.seal_once(copyset, &slot).await
    }

    /// Makes sure that `copyset` has committed our seal.
    async fn seal_once(&self, copyset: &Copyset, slot: &Slot) -> Result<(), ClientError> {
        if copyset.is_sealed() {
            return Ok(());
        }
        slot.waits_for(Waiting::Seal);
        let _turn = copyset.seal_turn().await;
        if copyset.is_sealed() {
            return Ok(());
        }
        let mut header = self.attachment.header(FrameKind::Seal);
        header.copyset = copyset.id();
        if self.read_only {
            header.client = ClientId::NOBODY;
        }
        let payload = &Payload::empty();
        self.drive(&Call {
            copyset,
            slot,
            header,
            payload,
            sequence: None,
            into: Cell::new(None),
        })
        .await?;
        copyset.set_sealed(true);
        self.metrics.seal();
        Ok(())
    }

    /// Sends until the outcome is final.
    async fn drive(&self, call: &Call<'_>) -> Result<Frame, ClientError> {
        let mut retries = Retries::default();
        let mut room = None;
        loop {
            self.life.check_alive()?;
            let (from, outcome) = self.attempt(call, &mut retries, &mut room).await;
            let cause = match &outcome {
                Ok(frame) => Cause::Status(frame.header.status),
                Err(cause) => *cause,
            };
            settle(cause, &mut room);
            match (cause.step(), outcome) {
                (Step::Done, Ok(frame)) => {
                    call.copyset.confirm(from);
                    return Ok(frame);
                }
                (Step::Fail, Ok(frame)) => {
                    call.copyset.confirm(from);
                    return Err(self.failure(call, &frame));
                }
                (step, outcome) => {
                    let hint = outcome.map_or(0, |frame| frame.header.stream);
                    self.correct(call, from, step, hint, &mut retries);
                    self.before_retry(call, from, cause, step, &mut retries)
                        .await?;
                }
            }
        }
    }

    /// One frame to the replica believed to lead, and what came of it.
    async fn attempt(
        &self,
        call: &Call<'_>,
        retries: &mut Retries,
        room: &mut Option<Room>,
    ) -> (ReplicaId, Result<Frame, Cause>) {
        call.slot.waits_for(Waiting::Room);
        let found = match room.take() {
            Some(room) => room.again().await,
            None => {
                let bytes = bytes_moved(call.header.kind, call.header.length);
                call.copyset.window.enter(bytes).await
            }
        };
        let room = room.insert(found);
        call.slot.waits_for(Waiting::Probe);
        let _turn = call.copyset.turn().await;
        let target = call.copyset.target();
        retries.note_try(target.id);
        let Some(endpoint) = &target.endpoint else {
            return (target.id, Err(Cause::Unreachable));
        };
        room.sent();
        let mut header = call.header;
        if let Some(sequence) = call.sequence {
            header.watermark = self.session.watermark();
            if seeded_bug!("watermark-too-early") {
                header.watermark = Sequence::new(header.sequence.get() - 1);
            }
            sequence.expose();
        }
        let is_wrong = seeded_bug!("retry-with-new-sequence") && call.sequence.is_some();
        let fresh = is_wrong.then(|| self.session.try_begin()).flatten();
        header.sequence = fresh
            .as_ref()
            .map_or(header.sequence, SequenceGuard::sequence);
        call.slot.waits_for(Waiting::Reply(target.id));
        let mut frame = Frame::with_payload(header, call.payload.clone());
        frame.set_into(call.into.take());
        let outcome = self.routes.caller(endpoint).call(frame).await;
        (target.id, outcome.map_err(|error| cause_of(&error)))
    }

    /// Corrects what we believe of the copyset.
    fn correct(
        &self,
        call: &Call<'_>,
        from: ReplicaId,
        step: Step,
        hint: u64,
        retries: &mut Retries,
    ) {
        match step {
            Step::Redirect => {
                self.metrics.redirect();
                if !call.copyset.redirect(from, ReplicaId::new(hint)) && hint != 0 {
                    self.routes.want_refresh();
                }
            }
            Step::Elsewhere => call.copyset.rotate(from),
            Step::Again if retries.is_patience_over() => call.copyset.rotate(from),
            Step::Again => call.copyset.doubt(from),
            Step::Seal => call.copyset.set_sealed(false),
            Step::Wait | Step::Done | Step::Fail => {}
        }
    }

    /// Seals or pauses, as the step asks.
    async fn before_retry(
        &self,
        call: &Call<'_>,
        from: ReplicaId,
        cause: Cause,
        step: Step,
        retries: &mut Retries,
    ) -> Result<(), ClientError> {
        self.metrics.retry();
        let sealing = step == Step::Seal && call.header.kind != FrameKind::Seal;
        if sealing && retries.is_first_seal() {
            // Boxed: sealing drives a call of its own, and is rare.
            return Box::pin(self.seal_once(call.copyset, call.slot)).await;
        }
        let at_once = matches!(step, Step::Redirect | Step::Elsewhere);
        if at_once && !retries.was_tried(call.copyset.target().id) {
            return Ok(());
        }
        if cause.doubts_map() {
            self.routes.want_refresh();
        }
        self.metrics.pause();
        call.slot.waits_for(Waiting::Pause(from, cause));
        let pause = match cause {
            Cause::Status(Status::Throttled) => retries.refused_pause(random_u64()),
            _ => retries.next_pause(random_u64()),
        };
        sleep(pause).await;
        Ok(())
    }

    /// What a final refusal means to the user.
    fn failure(&self, call: &Call<'_>, reply: &Frame) -> ClientError {
        let key = ChunkKey {
            volume: self.attachment.volume,
            chunk: call.header.key.chunk,
        };
        match reply.header.status {
            Status::Fenced => {
                self.life.fence();
                let (volume, epoch) = (self.attachment.volume, self.attachment.epoch);
                ClientError::Fenced { volume, epoch }
            }
            Status::Corrupt => ClientError::Corrupt {
                key,
                offset: ByteOffset::new(call.header.offset.into()),
            },
            Status::Stale => {
                tracing::error!(%key, sequence = %call.header.sequence, "stale: a bug");
                ClientError::Stale {
                    key,
                    sequence: call.header.sequence,
                }
            }
            _ => {
                let reason = String::from_utf8_lossy(&reply.meta).into();
                ClientError::BadRequest { key, reason }
            }
        }
    }
}

impl Ask {
    /// A question that carries no data.
    pub(crate) fn without_data(kind: FrameKind, part: Part) -> Self {
        Self {
            kind,
            part,
            payload: Payload::empty(),
            into: None,
        }
    }

    /// Whether it changes the volume: such parts are numbered.
    const fn mutates(&self) -> bool {
        matches!(
            self.kind,
            FrameKind::Write | FrameKind::Discard | FrameKind::WriteZeroes
        )
    }
}

/// Payload bytes on the wire, in either direction.
const fn bytes_moved(kind: FrameKind, len: u32) -> usize {
    match kind {
        FrameKind::Read | FrameKind::Write => len as usize,
        _ => 0,
    }
}

/// What became of an attempt says how much more may be on its way. One that was refused keeps its room
/// while it pauses.
fn settle(cause: Cause, room: &mut Option<Room>) {
    if let Some(room) = room {
        match cause {
            Cause::Status(Status::Throttled) | Cause::Timeout => room.refused(),
            Cause::Status(Status::Ok) => room.served(),
            _ => {}
        }
    }
    if cause != Cause::Status(Status::Throttled) {
        room.take();
    }
}

fn cause_of(error: &CallError) -> Cause {
    match error {
        CallError::Unreachable { .. } => Cause::Unreachable,
        CallError::Disconnected {
            cause: TransportError::PeerSilent { .. },
            ..
        } => Cause::Silent,
        CallError::Disconnected { .. } => Cause::Disconnected,
        CallError::Timeout { .. } => Cause::Timeout,
        CallError::TooLong { .. } => unreachable!("invariant: split bounds every part: {error}"),
    }
}
