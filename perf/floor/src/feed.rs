//! From a leader to one follower: what is appended, in frames of a stream.
//!
//! *Owner*: one task per follower, for all groups that this process leads. *Invariants*: entries of a
//! group go out in order, at once, many in a frame only if many are there; at most `APPEND_WINDOW`
//! frames are unanswered. *On failure*: the stream is opened again, and begins with what the follower
//! says that it has.

use crate::group::{Group, indexes};
use crate::limit::{APPEND_BYTES_MAX, APPEND_ENTRIES_MAX, APPEND_WINDOW, STREAM_PAUSE};
use crate::node::Node;
use crate::wire::{Shipment, Shipped, get_report};
use futures_util::future::{Either, select};
use ogee_log::LogError;
use ogee_proto::id::{CopysetId, RequestId};
use ogee_proto::wire::{FrameHeader, FrameKind, WireError};
use ogee_runtime::channel::Notify;
use ogee_transport::{
    CallError, Caller, Endpoint, Frame, Hello, SendError, StreamReceiver, StreamSender,
};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;

/// The way to one follower.
pub(crate) struct Feed {
    pub(crate) target: usize,
    pub(crate) caller: Caller,
    /// Something was appended.
    work: Notify,
    unanswered: Cell<usize>,
    answered: Notify,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("no connection")]
    Call(#[from] CallError),
    #[error("the connection ended")]
    Closed,
    #[error("cannot send")]
    Send(#[from] SendError),
    #[error("a garbled answer")]
    Garbled(#[from] WireError),
    #[error("cannot read what is to be sent")]
    Log(#[from] LogError),
    #[error("{0} has purged what the follower lacks")]
    Purged(CopysetId),
}

impl Feed {
    pub(crate) fn start(
        node: &Rc<Node>,
        target: usize,
        endpoint: Endpoint,
        hello: Hello,
    ) -> Rc<Self> {
        let feed = Rc::new(Self {
            target,
            caller: Caller::new(endpoint, hello),
            work: Notify::new(),
            unanswered: Cell::new(0),
            answered: Notify::new(),
        });
        let (task, node) = (feed.clone(), node.clone());
        drop(ogee_runtime::spawn(async move {
            loop {
                let ended = task.stream(&node).await;
                let reason: &dyn std::error::Error = match &ended {
                    Ok(never) => match *never {},
                    Err(broken) => broken,
                };
                tracing::debug!(target = task.target, reason, "a stream ended");
                ogee_runtime::sleep(STREAM_PAUSE).await;
            }
        }));
        feed
    }

    /// Something was appended.
    pub(crate) fn wake(&self) {
        self.work.notify_all();
    }

    async fn stream(&self, node: &Rc<Node>) -> Result<std::convert::Infallible, Broken> {
        let (sender, mut receiver) = self.caller.open_stream(2 * APPEND_WINDOW).await?;
        self.unanswered.set(0);
        sender.send(frame(&Shipment::default())).await?;
        let first = receiver.recv().await.ok_or(Broken::Closed)?;
        let has: BTreeMap<CopysetId, u64> = get_report(&first.meta)?.into_iter().collect();
        for (group, last) in &has {
            node.reported(self, *group, *last);
        }
        let pump = pin!(self.pump(node, &sender, has));
        let answers = pin!(self.answers(node, &mut receiver));
        match select(pump, answers).await {
            Either::Left((ended, _)) | Either::Right((ended, _)) => ended,
        }
    }

    /// Sends what follows on what the follower `has`.
    async fn pump(
        &self,
        node: &Node,
        sender: &StreamSender,
        mut has: BTreeMap<CopysetId, u64>,
    ) -> Result<std::convert::Infallible, Broken> {
        let mut turn = 0;
        loop {
            let (work, answered) = (self.work.notified(), self.answered.notified());
            if self.unanswered.get() >= APPEND_WINDOW {
                answered.await;
                continue;
            }
            turn += 1;
            let shipment = gather(node, &mut has, turn).await?;
            if shipment.entries.is_empty() {
                work.await;
                continue;
            }
            self.unanswered.set(self.unanswered.get() + 1);
            sender.send(frame(&shipment)).await?;
        }
    }

    async fn answers(
        &self,
        node: &Node,
        receiver: &mut StreamReceiver,
    ) -> Result<std::convert::Infallible, Broken> {
        loop {
            let answer = receiver.recv().await.ok_or(Broken::Closed)?;
            self.unanswered.set(self.unanswered.get().saturating_sub(1));
            self.answered.notify_all();
            for (group, index) in get_report(&answer.meta)? {
                if let Some(group) = node.groups.get(&group).filter(|group| group.is_led()) {
                    group.stored(self.target, index);
                }
            }
        }
    }
}

/// As much as one frame takes of what the follower lacks. Each group is first in its turn.
async fn gather(
    node: &Node,
    has: &mut BTreeMap<CopysetId, u64>,
    turn: usize,
) -> Result<Shipment, Broken> {
    let mut shipment = Shipment::default();
    let mut bytes = 0;
    let led = node.led();
    let (late, early) = led.split_at(turn.checked_rem(led.len()).unwrap_or(0));
    for group in early.iter().chain(late) {
        let last = has.entry(group.id).or_default();
        if *last >= group.last() {
            continue;
        }
        let before = shipment.entries.len();
        gather_group(group, last, &mut shipment, &mut bytes).await?;
        if shipment.entries.len() > before {
            let everywhere = (group.id, group.everywhere.get());
            shipment.everywhere.push(everywhere);
        }
    }
    Ok(shipment)
}

async fn gather_group(
    group: &Group,
    last: &mut u64,
    shipment: &mut Shipment,
    bytes: &mut usize,
) -> Result<(), Broken> {
    let room = APPEND_BYTES_MAX.saturating_sub(*bytes);
    let found = group.log.peek(indexes(*last + 1, group.last()), room);
    if found
        .first()
        .is_none_or(|entry| entry.id.index.get() != *last + 1)
    {
        return Err(Broken::Purged(group.id));
    }
    for entry in found {
        let (index, len) = (entry.id.index, entry.payload_len as usize);
        let is_full = *bytes + len > APPEND_BYTES_MAX && !shipment.entries.is_empty();
        if is_full || shipment.entries.len() >= APPEND_ENTRIES_MAX {
            break;
        }
        let payload = match entry.payload {
            Some(payload) => payload,
            None => group.log.payload(index, 0..len).await?,
        };
        *bytes += len;
        *last = index.get();
        shipment.entries.push(Shipped {
            group: group.id,
            index: *last,
            head: entry.head,
            crc: entry.payload_crc,
            payload,
        });
    }
    Ok(())
}

pub(crate) fn frame(shipment: &Shipment) -> Frame {
    let (meta, payload) = shipment.encode();
    let header = FrameHeader::new(FrameKind::AppendEntries, RequestId::new(0));
    Frame::of_parts(header, meta, payload)
}
