//! The one task that writes.
//!
//! *Place*: takes what `state` plans, writes it durably, reports it done, calls the callbacks.
//! *Owner*: a task of the log's executor, started by `Log::open`, ended by close, by the last
//! handle going away, or by a failed write. *Invariants*: one batch in flight, with the payloads that
//! it places; a batch is built
//! when the one before it is durable, from all that came meanwhile (group commit); callbacks run
//! in the order of the records, with nothing borrowed, so they may call the log.
//! *On failure*: a failed write is never retried: whether its bytes are on the medium is unknown.
//! The log stops, and every waiting and later callback gets the error.

use crate::core::Core;
use crate::error::LogError;
use crate::head::SegmentHead;
use crate::limit::IDLE_CLOSE;
use crate::queue::Done;
use crate::reader;
use crate::state::{Batch, Plan};
use futures_util::future::{join, join_all};
use ogee_device::{Device, DeviceError};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::{Buffer, Gather, Instant, Sleep, now, seeded_bug, sleep_until};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Runs until the log stops.
pub(crate) async fn run(core: Rc<Core>) {
    let mut rest = Rest::default();
    loop {
        let plan = core.state.borrow_mut().plan(rest.expired);
        match plan {
            Plan::Write(batch, data) => {
                rest = Rest::default();
                write(&core, batch, data).await;
            }
            Plan::Begin(head, buffer) => begin(&core, &head, buffer).await,
            Plan::Finish(dones) => call(dones, &Ok(())),
            Plan::Compact(slot) => copy_forward(&core, slot).await,
            Plan::Wait(closes) => rest.wait(&core, closes).await,
            Plan::Blocked => wait_for_reader(&core).await,
            Plan::Stop => break,
        }
    }
    core.tell_space();
}

/// The time since nothing came.
#[derive(Default)]
struct Rest {
    deadline: Option<Instant>,
    expired: bool,
}

impl Rest {
    /// Waits for work, or, if a closing batch is wanted, for its time. Work that needs no write
    /// does not put the closing batch off.
    async fn wait(&mut self, core: &Core, closes: bool) {
        if closes && self.deadline.is_none() {
            self.deadline = Some(now() + IDLE_CLOSE);
        }
        let mut timer = self.deadline.filter(|_| closes).map(sleep_until);
        self.expired = std::future::poll_fn(|cx| poll_rest(core, timer.as_mut(), cx)).await;
    }
}

fn poll_rest(core: &Core, timer: Option<&mut Sleep>, cx: &mut Context<'_>) -> Poll<bool> {
    if core.work.poll(cx).is_ready() {
        return Poll::Ready(false);
    }
    match timer {
        Some(timer) => Pin::new(timer).poll(cx).map(|()| true),
        None => Poll::Pending,
    }
}

async fn write(core: &Core, mut batch: Batch, data: Gather) {
    let started = now();
    let placed = std::mem::take(&mut batch.placed);
    let result = write_round(core, (batch.offset, data), placed).await;
    match result {
        Ok(()) => {
            let dones = {
                let mut state = core.state.borrow_mut();
                state.counters.flush_time += now() - started;
                state.written(batch)
            };
            core.tell_space();
            call(dones, &Ok(()));
        }
        Err((offset, error)) => stop(core, Some(batch), offset, error),
    }
}

type Write = (ByteOffset, Gather);

/// Writes a batch, and beside it the payloads that it places, all at once; done when all are durable.
/// They are waited for even if one has failed: none may land when its extent is somebody else's.
async fn write_round(
    core: &Core,
    batch: Write,
    placed: Vec<Write>,
) -> Result<(), (ByteOffset, DeviceError)> {
    let batch = put(&core.device, batch, seeded_bug!("log-write-not-durable"));
    let placed = placed.into_iter().map(|write| {
        put(
            core.data(),
            write,
            seeded_bug!("placed-payload-not-durable"),
        )
    });
    let (batch, placed) = join(batch, join_all(placed)).await;
    batch?;
    placed.into_iter().collect()
}

/// Writes durably, but for a seeded bug.
async fn put(
    device: &Device,
    (at, data): Write,
    forgets: bool,
) -> Result<(), (ByteOffset, DeviceError)> {
    let written = match forgets {
        false => device.write_durable(at, data).await,
        true => device.write(at, data).await,
    };
    written.map_err(|error| (at, error))
}

async fn begin(core: &Core, head: &SegmentHead, buffer: Buffer) {
    let offset = core.state.borrow().segments.geometry.slot_start(head.slot);
    match core.device.write_durable(offset, buffer).await {
        Ok(()) => {
            core.state.borrow_mut().begun(head);
            core.tell_space();
        }
        Err(error) => stop(core, None, offset, error),
    }
}

fn stop(core: &Core, batch: Option<Batch>, offset: ByteOffset, source: DeviceError) {
    let (reason, dones) = {
        let mut state = core.state.borrow_mut();
        let reason = LogError::Failed {
            store: state.store(),
            offset,
            source,
        };
        tracing::error!(error = %reason, "the log accepts nothing more");
        let dones = state.stop(batch, reason.clone());
        (reason, dones)
    };
    call(dones, &Err(reason));
}

fn call(dones: Vec<Done>, result: &Result<(), LogError>) {
    for done in dones {
        done(result.clone());
    }
}

/// Reads the live entries of `slot` and queues copies of them.
async fn copy_forward(core: &Rc<Core>, slot: usize) {
    let live = core.state.borrow_mut().live_in(slot);
    for (group, index) in live {
        if core.state.borrow().is_lost(group, index) {
            core.state.borrow_mut().move_hole(group, index);
            continue;
        }
        if core.state.borrow_mut().move_placed(group, index) {
            continue;
        }
        match reader::payload_of(core, group, index).await {
            Ok(Some((serial, data))) => {
                core.state
                    .borrow_mut()
                    .move_forward(group, index, serial, &data);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, %group, index, "copied forward by its identity alone");
                core.state.borrow_mut().move_hole(group, index);
            }
        }
    }
}

/// Every slot is live, active or being read. The reserve makes it impossible that no slot comes
/// free; if it happens all the same, the log stops rather than overwrite.
async fn wait_for_reader(core: &Core) {
    if core.state.borrow().segments.awaits_reader() {
        std::future::poll_fn(|cx| core.work.poll(cx)).await;
        return;
    }
    let (reason, dones) = {
        let mut state = core.state.borrow_mut();
        let (store, free) = (state.store(), ByteLen::ZERO);
        let needed = ByteLen::from_usize(state.segments.geometry.segment_len);
        let reason = LogError::Full {
            store,
            needed,
            free,
        };
        tracing::error!(error = %reason, "no segment is left, the log accepts nothing more");
        let dones = state.stop(None, reason.clone());
        (reason, dones)
    };
    call(dones, &Err(reason));
}
