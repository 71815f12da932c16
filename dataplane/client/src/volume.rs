//! A volume as its user sees it.
//!
//! *Place*: the top of this crate; frontends, the C interface and the benchmark call it.
//! *Owner*: the shard that opened it. Clones are handles of the same attachment.
//! *Invariants*: a write that returned is durable on a majority, and every later read sees it.
//! Requests that overlap while both are under way are the user's race: each 4 KiB block ends as
//! one of them wrote it.
//! *On failure*: requests wait for the cluster to heal, without limit unless the user set one.
//! Dropping the future of a mutation leaves its outcome open, and safe: it is never applied after
//! a mutation issued later.

use crate::attachment::Attachment;
use crate::barrier::Barrier;
use crate::control::{AttachSpec, Control};
use crate::core::{Ask, Core};
use crate::error::ClientError;
use crate::inflight::Inflight;
use crate::lent::Lent;
use crate::life::Life;
use crate::limit::PARTS_PER_REQUEST_MAX;
use crate::map::VolumeHead;
use crate::mds::MdsHandle;
use crate::metrics::ClientMetrics;
use crate::routes::Routes;
use crate::session::Session;
use crate::split::{self, Part};
use crate::{refresh, seals, watchdog};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use ogee_proto::id::{ChunkKey, CopysetId, Epoch, Incarnation, VolumeId};
use ogee_proto::layout::StripeLayout;
use ogee_proto::limit::BLOCK_SIZE;
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_proto::wire::FrameKind;
use ogee_runtime::channel::{Gate, Pass, watch};
use ogee_runtime::{Payload, ScopedTask, Target, spawn_scoped, timeout};
use ogee_transport::{Frame, Transport};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

/// How to open a volume.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OpenOptions {
    /// Send no mutation, and leave the volume's writer alone.
    pub read_only: bool,
    /// The host that asks, as operators know it.
    pub host: String,
    /// End a request with an error after so long. None: wait, as a disk does.
    pub io_timeout: Option<Duration>,
    /// What carries the data to chunkservers that offer several.
    pub transport: Transport,
}

/// An attached volume. Clones share the attachment; the last one to go ends it here, while
/// [`Volume::close`] gives it up at the control plane too.
#[derive(Clone)]
pub struct Volume {
    core: Rc<Core>,
    control: Rc<dyn Control>,
    layout: StripeLayout,
    // Cancelled with the last handle.
    _tasks: Rc<[ScopedTask<()>; 3]>,
}

impl Volume {
    /// Attaches `name` through the metadata servers behind `mds`, and seals it: when this returns,
    /// nothing of an earlier attachment takes effect any more, except in copysets that
    /// [`Self::unsealed`] names.
    ///
    /// # Errors
    /// [`ClientError::Control`] when they refuse or cannot be asked; [`ClientError::Fenced`] when
    /// a newer attachment came first.
    pub async fn open(
        mds: MdsHandle,
        name: &str,
        options: OpenOptions,
    ) -> Result<Self, ClientError> {
        Self::open_with(Rc::new(mds), name, options).await
    }

    /// Attaches `name` through any control plane.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub async fn open_with(
        control: Rc<dyn Control>,
        name: &str,
        options: OpenOptions,
    ) -> Result<Self, ClientError> {
        let OpenOptions {
            read_only,
            host,
            io_timeout,
            transport,
        } = options;
        let spec = AttachSpec {
            name: name.to_owned(),
            host: host.clone(),
            read_only,
        };
        let grant = control.attach(spec).await?;
        let attachment = Attachment::new(&grant);
        let VolumeHead {
            id,
            name,
            size,
            layout,
        } = grant.map.head().clone();
        let (epoch, incarnation) = (grant.epoch, grant.incarnation);
        tracing::info!(volume = %id, name, %epoch, %incarnation, read_only, "attached");
        let core = Rc::new(Core {
            attachment,
            name: name.to_owned(),
            read_only,
            io_timeout,
            routes: Routes::new(&attachment, &host, transport, grant.map),
            session: Session::new(),
            inflight: Inflight::new(),
            barrier: Barrier::new(),
            life: Life::new(id, attachment.epoch),
            gate: Gate::new(),
            size: watch::channel(size).0,
            metrics: ClientMetrics::default(),
        });
        let tasks = [
            spawn_scoped(refresh::run(Rc::clone(&core), Rc::clone(&control))),
            spawn_scoped(watchdog::run(Rc::clone(&core))),
            seals::start(&core).await?,
        ];
        Ok(Self {
            core,
            control,
            layout,
            _tasks: Rc::new(tasks),
        })
    }

    /// The volume's id.
    #[must_use]
    pub fn id(&self) -> VolumeId {
        self.core.attachment.volume
    }

    /// The volume's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// Epoch of this attachment.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.core.attachment.epoch
    }

    /// How often this attachment was taken up: above 1 when nobody granted it anew.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.core.attachment.incarnation
    }

    /// Copysets that did not answer when the volume was attached, or since it grew: what they
    /// carry is not served yet, and an earlier attachment that still runs is not shut out of them.
    #[must_use]
    pub fn unsealed(&self) -> Vec<CopysetId> {
        self.core.routes.unsealed()
    }

    /// Whether mutations are refused here.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.core.read_only
    }

    /// The size now.
    #[must_use]
    pub fn size(&self) -> ByteLen {
        *self.core.size.borrow()
    }

    /// Tells of size changes.
    #[must_use]
    pub fn resized(&self) -> watch::Receiver<ByteLen> {
        self.core.size.subscribe()
    }

    /// Counters of this attachment.
    #[must_use]
    pub fn metrics(&self) -> &ClientMetrics {
        &self.core.metrics
    }

    /// Reads `len` bytes at `offset`: the pieces of the answer in address order, not copied.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn read(
        &self,
        offset: ByteOffset,
        len: ByteLen,
    ) -> Result<Vec<Payload>, ClientError> {
        let _pass = self.enter(offset, len)?;
        self.measured(FrameKind::Read, len, self.read_parts(offset, len))
            .await
    }

    /// Reads `into.len()` bytes at `offset` into memory of the caller: one counted copy, made of each
    /// part when it arrives, so that a large read holds no more of the network's buffers than the
    /// parts that are under way. After an error parts of `into` may hold what was read.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn read_into(&self, offset: ByteOffset, into: &mut [u8]) -> Result<(), ClientError> {
        let len = ByteLen::from_usize(into.len());
        let _pass = self.enter(offset, len)?;
        self.measured(
            FrameKind::Read,
            len,
            self.read_parts_into(offset, len, into),
        )
        .await
    }

    /// Reads as many bytes at `offset` as `into` takes, into it. Where its memory is announced (`ogee_runtime::area`) and
    /// the connection is RDMA, chunkservers write parts of more than 16 KiB there; other parts are copied when they
    /// arrive, which is counted. When this has ended, however it did, nobody writes there any more, for which an error may have
    /// to wait: for 2 s at most, and after [`OpenOptions::io_timeout`] no longer than it takes to stop the others. If its future
    /// is dropped, nobody writes there when the target's owner is dropped.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn read_to(&self, offset: ByteOffset, into: &Target) -> Result<(), ClientError> {
        let len = ByteLen::from_usize(into.len());
        let _pass = self.enter(offset, len)?;
        let lent = Lent::default();
        let parts = self.read_parts_to(offset, len, into, &lent);
        // Around the limit of time, which drops the parts wherever they are.
        lent.settled(self.measured(FrameKind::Read, len, parts))
            .await
    }

    /// Writes `data` at `offset`. Durable on a majority when it returns.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn write(&self, offset: ByteOffset, data: Payload) -> Result<(), ClientError> {
        let len = ByteLen::from_usize(data.len());
        let _pass = self.enter_mutation(offset, len)?;
        let parts = split::payload_parts(self.layout, offset, len);
        let asks = parts.map(|part| {
            let payload = data.slice(part.at..part.at + part.len as usize);
            Ask {
                kind: FrameKind::Write,
                part,
                payload,
                into: None,
            }
        });
        self.mutate(FrameKind::Write, len, asks).await
    }

    /// Gives `len` bytes at `offset` back: they read as zeros afterwards.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn discard(&self, offset: ByteOffset, len: ByteLen) -> Result<(), ClientError> {
        self.mutate_range(FrameKind::Discard, offset, len).await
    }

    /// Makes `len` bytes at `offset` read as zeros.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn write_zeroes(&self, offset: ByteOffset, len: ByteLen) -> Result<(), ClientError> {
        self.mutate_range(FrameKind::WriteZeroes, offset, len).await
    }

    /// Waits until every mutation issued before this call is acknowledged.
    ///
    /// An acknowledged mutation is durable already, so nothing is sent.
    ///
    /// # Errors
    /// [`ClientError::Fenced`] or [`ClientError::Closed`]; [`ClientError::TimedOut`].
    pub async fn flush(&self) -> Result<(), ClientError> {
        self.core.life.check_open()?;
        let _pass = self.pass()?;
        self.core.metrics.flush();
        let waited = async {
            self.core.barrier.wait().await;
            Ok(())
        };
        self.limited(waited).await?;
        self.core.life.check_alive()
    }

    /// Which of the bytes are allocated: runs in address order that cover the request.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn block_status(
        &self,
        offset: ByteOffset,
        len: ByteLen,
    ) -> Result<Vec<(ByteLen, bool)>, ClientError> {
        let _pass = self.enter(offset, len)?;
        self.measured(FrameKind::BlockStatus, len, self.status_runs(offset, len))
            .await
    }

    /// Waits for the requests under way, then gives the attachment up.
    ///
    /// # Errors
    /// [`ClientError::Closed`] or [`ClientError::Fenced`] when it is over already;
    /// [`ClientError::Control`] when the control plane did not hear of it: the volume then counts
    /// as attached until it is attached again.
    pub async fn close(self) -> Result<(), ClientError> {
        self.core.life.check_open()?;
        self.core.life.close();
        self.core.gate.close().await;
        let Attachment { client, epoch, .. } = self.core.attachment;
        self.control.detach(&self.core.name, client, epoch).await?;
        tracing::info!(volume = %self.id(), %epoch, "detached");
        Ok(())
    }

    /// Checks a request and notes it, so that closing waits for it.
    fn enter(&self, offset: ByteOffset, len: ByteLen) -> Result<Pass, ClientError> {
        self.core.life.check_open()?;
        if !(offset.is_multiple_of(BLOCK_SIZE) && len.is_multiple_of(BLOCK_SIZE)) {
            return Err(ClientError::Unaligned { offset, len });
        }
        let size = self.size();
        if offset
            .checked_add(len)
            .is_none_or(|end| end.get() > size.get())
        {
            return Err(ClientError::OutOfRange { offset, len, size });
        }
        self.pass()
    }

    fn enter_mutation(&self, offset: ByteOffset, len: ByteLen) -> Result<Pass, ClientError> {
        if self.core.read_only {
            return Err(ClientError::ReadOnly);
        }
        self.enter(offset, len)
    }

    fn pass(&self) -> Result<Pass, ClientError> {
        self.core.gate.enter().ok_or(ClientError::Closed)
    }

    async fn read_parts(
        &self,
        offset: ByteOffset,
        len: ByteLen,
    ) -> Result<Vec<Payload>, ClientError> {
        let mut parts = split::payload_parts(self.layout, offset, len);
        let (Some(first), second) = (parts.next(), parts.next()) else {
            return Ok(Vec::new());
        };
        let Some(second) = second else {
            return Ok(vec![self.read_part(first).await?]);
        };
        stream::iter([first, second].into_iter().chain(parts))
            .map(|part| self.read_part(part))
            .buffered(PARTS_PER_REQUEST_MAX)
            .try_collect()
            .await
    }

    async fn read_parts_into(
        &self,
        offset: ByteOffset,
        len: ByteLen,
        into: &mut [u8],
    ) -> Result<(), ClientError> {
        let mut rest = into;
        let parts = split::payload_parts(self.layout, offset, len);
        let mut places = parts.map(|part| {
            let (place, tail) = std::mem::take(&mut rest).split_at_mut(part.len as usize);
            rest = tail;
            (part, place)
        });
        let (Some(first), second) = (places.next(), places.next()) else {
            return Ok(());
        };
        let Some(second) = second else {
            return self.read_part_into(first).await;
        };
        stream::iter([first, second].into_iter().chain(places))
            .map(|place| self.read_part_into(place))
            .buffer_unordered(PARTS_PER_REQUEST_MAX)
            .try_fold((), async |(), ()| Ok(()))
            .await
    }

    async fn read_parts_to(
        &self,
        offset: ByteOffset,
        len: ByteLen,
        into: &Target,
        lent: &Lent,
    ) -> Result<(), ClientError> {
        let place = |part: Part| (part, into.part(part.at, part.len as usize));
        let mut places = split::payload_parts(self.layout, offset, len).map(place);
        let (Some(first), second) = (places.next(), places.next()) else {
            return Ok(());
        };
        let Some(second) = second else {
            return self.read_part_to(first, lent).await;
        };
        // The first error ends it; what the other parts have lent is left to `lent`.
        stream::iter([first, second].into_iter().chain(places))
            .map(|place| self.read_part_to(place, lent))
            .buffer_unordered(PARTS_PER_REQUEST_MAX)
            .try_fold((), async |(), ()| Ok(()))
            .await
    }

    async fn read_part_to(
        &self,
        (part, place): (Part, Target),
        lent: &Lent,
    ) -> Result<(), ClientError> {
        let mut ask = Ask::without_data(FrameKind::Read, part);
        let (loan, held) = lent.lend(&place);
        ask.into = loan;
        let reply = self.core.run(ask).await?;
        self.check_length(part, part.len as usize, reply.payload.len())?;
        if place.holds(&reply.payload) {
            return Ok(());
        }
        held.end().await;
        place.fill([&reply.payload]);
        self.core.metrics.copied(reply.payload.len());
        Ok(())
    }

    async fn read_part_into(&self, (part, place): (Part, &mut [u8])) -> Result<(), ClientError> {
        let data = self.read_part(part).await?;
        place.copy_from_slice(&data);
        self.core.metrics.copied(data.len());
        Ok(())
    }

    async fn read_part(&self, part: Part) -> Result<Payload, ClientError> {
        let reply = self
            .core
            .run(Ask::without_data(FrameKind::Read, part))
            .await?;
        self.check_length(part, part.len as usize, reply.payload.len())?;
        Ok(reply.payload)
    }

    async fn mutate_range(
        &self,
        kind: FrameKind,
        offset: ByteOffset,
        len: ByteLen,
    ) -> Result<(), ClientError> {
        let _pass = self.enter_mutation(offset, len)?;
        let parts = split::range_parts(self.layout, offset, len);
        self.mutate(kind, len, parts.map(|part| Ask::without_data(kind, part)))
            .await
    }

    async fn mutate(
        &self,
        kind: FrameKind,
        len: ByteLen,
        asks: impl Iterator<Item = Ask>,
    ) -> Result<(), ClientError> {
        let _ticket = self.core.barrier.enter();
        self.measured(kind, len, self.run_all(asks)).await
    }

    /// Runs all parts to their ends, also after one has failed: a part left behind would be
    /// abandoned, which holds the whole session up.
    async fn run_all(&self, mut asks: impl Iterator<Item = Ask>) -> Result<(), ClientError> {
        let (Some(first), second) = (asks.next(), asks.next()) else {
            return Ok(());
        };
        let Some(second) = second else {
            return self.core.run(first).await.map(drop);
        };
        let all = [first, second].into_iter().chain(asks);
        stream::iter(all)
            .map(|ask| self.core.run(ask))
            .buffer_unordered(PARTS_PER_REQUEST_MAX)
            .fold(Ok(()), async |so_far, ended| so_far.and(ended.map(drop)))
            .await
    }

    async fn status_runs(
        &self,
        offset: ByteOffset,
        len: ByteLen,
    ) -> Result<Vec<(ByteLen, bool)>, ClientError> {
        let mut replies = stream::iter(split::status_parts(self.layout, offset, len))
            .map(|part| self.status_part(part))
            .buffered(PARTS_PER_REQUEST_MAX);
        let mut runs = Vec::new();
        while let Some((part, reply)) = replies.try_next().await? {
            append_runs(&mut runs, &reply.meta, part.len as usize / BLOCK_SIZE);
        }
        Ok(runs)
    }

    async fn status_part(&self, part: Part) -> Result<(Part, Frame), ClientError> {
        let reply = self
            .core
            .run(Ask::without_data(FrameKind::BlockStatus, part))
            .await?;
        let expected = (part.len as usize / BLOCK_SIZE).div_ceil(8);
        self.check_length(part, expected, reply.meta.len())?;
        Ok((part, reply))
    }

    fn check_length(&self, part: Part, expected: usize, found: usize) -> Result<(), ClientError> {
        let key = ChunkKey {
            volume: self.id(),
            chunk: part.chunk,
        };
        match expected == found {
            true => Ok(()),
            false => Err(ClientError::ReplyLength {
                key,
                expected,
                found,
            }),
        }
    }

    /// Applies the time limit and counts the outcome.
    async fn measured<T>(
        &self,
        kind: FrameKind,
        len: ByteLen,
        request: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let started = ogee_runtime::now();
        let outcome = self.limited(request).await;
        let took = ogee_runtime::now().saturating_duration_since(started);
        self.core
            .metrics
            .request(kind, len.get(), took, outcome.is_ok());
        outcome
    }

    async fn limited<T>(
        &self,
        request: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        match self.core.io_timeout {
            None => request.await,
            Some(limit) => {
                let outcome = timeout(limit, request).await;
                outcome.unwrap_or(Err(ClientError::TimedOut(limit)))
            }
        }
    }
}

/// Appends `count` blocks of a bitmap (lowest bit first) to runs of bytes.
fn append_runs(runs: &mut Vec<(ByteLen, bool)>, bitmap: &[u8], count: usize) {
    let bits = bitmap
        .iter()
        .flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
    for allocated in bits.take(count) {
        match runs.last_mut() {
            Some((len, same)) if *same == allocated => {
                *len = ByteLen::new(len.get() + BLOCK_SIZE as u64);
            }
            _ => runs.push((ByteLen::from_usize(BLOCK_SIZE), allocated)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_become_runs_across_parts() {
        let mut runs = Vec::new();
        append_runs(&mut runs, &[0b0000_0111, 0b1], 9);
        append_runs(&mut runs, &[0b1], 2);
        let runs: Vec<_> = runs
            .iter()
            .map(|(len, set)| (len.get() / 4096, *set))
            .collect();
        assert_eq!(runs, [(3, true), (5, false), (2, true), (1, false)]);
    }
}
