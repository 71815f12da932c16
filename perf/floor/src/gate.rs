//! What waits for room in the log, in order.
//!
//! *Invariants*: nothing overtakes what waits; without anything that waits, a write is appended in the
//! call that brought it. What may wait is bounded by the credits of clients and the windows of leaders.

use crate::group::{Group, New};
use crate::node::{Node, answer_append, durable};
use crate::wire::{Place, Shipment, Shipped};
use futures_util::FutureExt;
use ogee_log::{Log, LogError, Reservation};
use ogee_proto::id::CopysetId;
use ogee_proto::unit::ByteLen;
use ogee_proto::wire::FrameHeader;
use ogee_runtime::Payload;
use ogee_transport::Peer;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

/// Something that takes room in the log.
pub(crate) enum Work {
    /// A client's write.
    Write {
        group: Rc<Group>,
        peer: Peer,
        header: FrameHeader,
        place: Place,
        blocks: usize,
        payload: Payload,
    },
    /// What a leader has sent.
    Append {
        peer: Peer,
        header: FrameHeader,
        shipment: Shipment,
    },
}

/// What waits.
#[derive(Default)]
pub(crate) struct Gate {
    waiting: RefCell<VecDeque<Work>>,
    is_busy: Cell<bool>,
}

impl Node {
    /// Does it now, or when there is room.
    pub(crate) fn admit(self: &Rc<Self>, work: Work) {
        if !self.gate.is_busy.get() {
            // One that has to wait is charged for its turn when it begins to, not here as well.
            let room = match self.pacer.is_on() {
                true => None,
                false => self.make_room(&work).now_or_never(),
            };
            match room {
                Some(room) => return self.carry_out(work, room),
                None => self.drain(),
            }
        }
        self.gate.waiting.borrow_mut().push_back(work);
    }

    fn drain(self: &Rc<Self>) {
        self.gate.is_busy.set(true);
        let node = self.clone();
        drop(ogee_runtime::spawn(async move {
            loop {
                let next = node.gate.waiting.borrow_mut().pop_front();
                let Some(work) = next else { break };
                let room = node.make_room(&work).await;
                node.carry_out(work, room);
            }
            node.gate.is_busy.set(false);
        }));
    }

    /// Waits for room for all of it.
    async fn make_room(&self, work: &Work) -> Result<Vec<Reservation>, LogError> {
        match work {
            Work::Write { group, payload, .. } => {
                let cost = Log::entry_cost(payload.len());
                if let Some(turn) = self.pacer.turn(cost) {
                    ogee_runtime::sleep_until(turn).await;
                }
                Ok(vec![group.log.reserve(cost).await?])
            }
            Work::Append { shipment, .. } => {
                let mut room = Vec::new();
                for run in shipment.entries.chunk_by(|a, b| a.group == b.group) {
                    let cost = run
                        .iter()
                        .map(|entry| Log::entry_cost(entry.payload.len()).get());
                    let group = run.first().and_then(|entry| self.groups.get(&entry.group));
                    if let Some(group) = group {
                        room.push(group.log.reserve(ByteLen::new(cost.sum())).await?);
                    }
                }
                Ok(room)
            }
        }
    }

    fn carry_out(self: &Rc<Self>, work: Work, room: Result<Vec<Reservation>, LogError>) {
        match (work, room) {
            (_, Err(error)) => self.fail(error.into()),
            (
                Work::Write {
                    group,
                    peer,
                    header,
                    place,
                    blocks,
                    payload,
                },
                Ok(room),
            ) => {
                let new = New {
                    place,
                    blocks,
                    head: place.encode(),
                    // Without meta the body's checksum is the payload's.
                    crc: header.body_crc,
                    payload,
                    client: Some((peer, header)),
                };
                self.append(&group, vec![new], room);
            }
            (
                Work::Append {
                    peer,
                    header,
                    shipment,
                },
                Ok(room),
            ) => self.take(&peer, &header, shipment, room),
        }
    }

    /// Appends on the leader, and sends.
    pub(crate) fn append(
        self: &Rc<Self>,
        group: &Rc<Group>,
        new: Vec<New>,
        room: Vec<Reservation>,
    ) {
        let node = self.clone();
        group.append(new, move |result| {
            drop(room);
            if let Err(error) = result {
                node.fail(error.into());
            }
        });
        self.feeds().iter().for_each(|feed| feed.wake());
    }

    /// Appends on a follower, and answers when all of it is durable.
    fn take(
        self: &Rc<Self>,
        peer: &Peer,
        header: &FrameHeader,
        shipment: Shipment,
        room: Vec<Reservation>,
    ) {
        for (group, index) in &shipment.everywhere {
            if let Some(group) = self.groups.get(group) {
                group.everywhere.set(group.everywhere.get().max(*index));
            }
        }
        let runs = shipment.entries.chunk_by(|a, b| a.group == b.group);
        let answer = Rc::new(Answer {
            peer: peer.clone(),
            header: *header,
            report: RefCell::default(),
            missing: Cell::new(runs.clone().count()),
            _room: room,
        });
        for run in runs {
            if !self.take_run(run, &answer) {
                tracing::warn!("a leader has sent what does not follow");
                return peer.close();
            }
        }
    }

    /// Whether the entries of one group follow on what is here.
    fn take_run(self: &Rc<Self>, run: &[Shipped], answer: &Rc<Answer>) -> bool {
        let group = run.first().and_then(|entry| self.groups.get(&entry.group));
        let (Some(group), Some(upto)) = (group, run.last().map(|entry| entry.index)) else {
            return false;
        };
        let last = group.last();
        // A stream that was opened anew may bring again what an older one has brought.
        let news = run.iter().filter(|entry| entry.index > last);
        let news: Option<Vec<New>> = (last + 1..)
            .zip(news)
            .map(|(due, entry)| new_entry(due, entry))
            .collect();
        let Some(news) = news else { return false };
        let (node, answer) = (self.clone(), answer.clone());
        if news.is_empty() {
            let group = group.clone();
            drop(ogee_runtime::spawn(async move {
                durable(&group, upto).await;
                answer.is_durable(group.id, upto);
            }));
            return true;
        }
        let id = group.id;
        group.append(news, move |result| match result {
            Ok(()) => answer.is_durable(id, upto),
            Err(error) => node.fail(error.into()),
        });
        true
    }
}

/// An entry as it was sent, if it is the one that is due.
fn new_entry(due: u64, entry: &Shipped) -> Option<New> {
    let place = Place::decode(&entry.head, entry.payload.len());
    let (place, blocks) = place.ok().filter(|_| entry.index == due)?;
    Some(New {
        place,
        blocks,
        head: entry.head.clone(),
        crc: entry.crc,
        payload: entry.payload.clone(),
        client: None,
    })
}

/// What a follower answers, once its last part is durable.
struct Answer {
    peer: Peer,
    header: FrameHeader,
    report: RefCell<Vec<(CopysetId, u64)>>,
    missing: Cell<usize>,
    _room: Vec<Reservation>,
}

impl Answer {
    fn is_durable(&self, group: CopysetId, upto: u64) {
        self.report.borrow_mut().push((group, upto));
        self.missing.set(self.missing.get() - 1);
        if self.missing.get() == 0 {
            answer_append(&self.peer, &self.header, &self.report.borrow());
        }
    }
}
