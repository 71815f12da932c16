//! One process: frames in, answers out.
//!
//! *Owner*: the shard. *Invariants*: what a frame asks for is done in the order of the frames of its
//! connection. *On failure*: the first error of log or store ends the process.

use crate::config::{FloorConfig, leader_of, replica_of};
use crate::disk::Disk;
use crate::error::FloorError;
use crate::feed::Feed;
use crate::gate::{Gate, Work};
use crate::group::{Group, answer};
use crate::keeper;
use crate::pacer::Pacer;
use crate::wire::{Place, Shipment, put_report};
use ogee_proto::id::CopysetId;
use ogee_proto::limit::REQUEST_PAYLOAD_MAX;
use ogee_proto::wire::{FrameHeader, FrameKind, Status};
use ogee_runtime::channel::Notify;
use ogee_transport::{Endpoint, Frame, Hello, Listener, Peer, Role, Service};
use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// How often it is looked whether what was appended before is durable, where nobody tells.
const DURABLE_LOOK: Duration = Duration::from_millis(1);

/// One process of the floor.
pub(crate) struct Node {
    pub(crate) disk: Disk,
    pub(crate) groups: BTreeMap<CopysetId, Rc<Group>>,
    led: Vec<Rc<Group>>,
    pub(crate) pacer: Pacer,
    pub(crate) gate: Gate,
    feeds: OnceCell<Vec<Rc<Feed>>>,
    service: OnceCell<Service>,
    failure: RefCell<Option<FloorError>>,
    failed: Notify,
}

impl Node {
    /// Opens the store, serves, and connects to the others.
    pub(crate) async fn start(config: FloorConfig) -> Result<Rc<Self>, FloorError> {
        config.check()?;
        let me = config.node;
        let disk = Disk::open(&config).await?;
        let load = |id| {
            let group = Group::load(id, &disk, me, leader_of(id))?;
            Ok((id, Rc::new(group)))
        };
        let groups = config.groups().map(load);
        let groups = groups.collect::<Result<BTreeMap<CopysetId, Rc<Group>>, FloorError>>()?;
        let led = groups.values().filter(|group| group.is_led());
        let led = led.cloned().collect();
        let node = Rc::new(Self {
            disk,
            groups,
            led,
            pacer: Pacer::default(),
            gate: Gate::default(),
            feeds: OnceCell::new(),
            service: OnceCell::new(),
            failure: RefCell::default(),
            failed: Notify::new(),
        });
        let hello = Hello::new(Role::Chunkserver, me as u64, format!("floor{me}"));
        let others = (0..).zip(config.peers).filter(|(target, _)| *target != me);
        let feeds = others.map(|(target, address)| {
            Feed::start(&node, target, Endpoint::from(address), hello.clone())
        });
        node.feeds.get_or_init(|| feeds.collect());
        let address = config.peers.get(me).copied();
        let address = address.expect("invariant: checked above");
        let listener = Listener::bind(&Endpoint::from(address))?;
        let served = node.clone();
        let handler = Rc::new(move |peer: Peer, frame: Frame| served.handle(peer, frame));
        let service = Service::serve(listener, hello, handler);
        node.service.get_or_init(|| service);
        let kept = node.clone();
        drop(ogee_runtime::spawn(async move { keeper::run(&kept).await }));
        Ok(node)
    }

    /// The groups that this process leads.
    pub(crate) fn led(&self) -> &[Rc<Group>] {
        &self.led
    }

    /// The ways to the followers.
    pub(crate) fn feeds(&self) -> &[Rc<Feed>] {
        self.feeds.get().map_or(&[], Vec::as_slice)
    }

    /// Ends the process for this reason, unless it ends already.
    pub(crate) fn fail(&self, error: FloorError) {
        self.failure.borrow_mut().get_or_insert(error);
        self.failed.notify_all();
    }

    /// Waits for the reason to end.
    pub(crate) async fn failed(&self) -> FloorError {
        loop {
            let failed = self.failed.notified();
            if let Some(error) = self.failure.borrow_mut().take() {
                return error;
            }
            failed.await;
        }
    }

    fn handle(self: &Rc<Self>, peer: Peer, frame: Frame) {
        match frame.header.kind {
            FrameKind::AppendEntries => self.on_append(peer, &frame),
            FrameKind::LogEntries => self.on_log_entries(peer, frame.header),
            FrameKind::Write | FrameKind::Read | FrameKind::Seal => self.on_request(peer, frame),
            _ => refuse(&peer, &frame.header, Status::BadRequest),
        }
    }

    fn on_request(self: &Rc<Self>, peer: Peer, frame: Frame) {
        let header = frame.header;
        let Some(group) = self.groups.get(&header.copyset) else {
            return refuse(&peer, &header, Status::NoCopyset);
        };
        if !group.is_led() {
            let mut reply = FrameHeader::reply(&header, Status::NotLeader);
            reply.stream = replica_of(group.id, group.leader).get();
            return answer(&peer, Frame::new(reply));
        }
        if !group.is_serving.get() {
            return refuse(&peer, &header, Status::Retry);
        }
        match header.kind {
            FrameKind::Write => self.on_write(group.clone(), peer, frame),
            FrameKind::Read => self.on_read(group.clone(), peer, header),
            // Nobody else uses the volume.
            _ => refuse(&peer, &header, Status::Ok),
        }
    }

    fn on_write(self: &Rc<Self>, group: Rc<Group>, peer: Peer, frame: Frame) {
        let Frame {
            header,
            meta,
            payload,
            ..
        } = frame;
        let is_whole = meta.is_empty() && payload.len() == header.length as usize;
        let place = Place::checked(header.key, header.offset, payload.len());
        match place {
            Some((place, blocks)) if is_whole && payload.len() <= REQUEST_PAYLOAD_MAX => {
                self.admit(Work::Write {
                    group,
                    peer,
                    header,
                    place,
                    blocks,
                    payload,
                });
            }
            _ => refuse(&peer, &header, Status::BadRequest),
        }
    }

    fn on_append(self: &Rc<Self>, peer: Peer, frame: &Frame) {
        let header = frame.header;
        match Shipment::decode(&frame.meta, &frame.payload) {
            Ok(Shipment { entries, .. }) if entries.is_empty() => self.report(peer, header),
            Ok(shipment) => self.admit(Work::Append {
                peer,
                header,
                shipment,
            }),
            Err(error) => {
                tracing::warn!(%error, "refused an append");
                peer.close();
            }
        }
    }

    /// Tells all that is here of the groups that the peer leads, once that is durable.
    fn report(self: &Rc<Self>, peer: Peer, header: FrameHeader) {
        let node = self.clone();
        drop(ogee_runtime::spawn(async move {
            let leader = peer.hello().node;
            let of_peer = node
                .groups
                .values()
                .filter(|group| group.leader as u64 == leader);
            let groups: Vec<Rc<Group>> = of_peer.cloned().collect();
            let mut report = Vec::with_capacity(groups.len());
            for group in groups {
                let last = group.last();
                durable(&group, last).await;
                report.push((group.id, last));
            }
            answer_append(&peer, &header, &report);
        }));
    }
}

/// Waits until everything up to `index` is durable.
pub(crate) async fn durable(group: &Group, index: u64) {
    while group.last_durable() < index {
        ogee_runtime::sleep(DURABLE_LOOK).await;
    }
}

/// Answers a frame of a stream.
pub(crate) fn answer_append(peer: &Peer, header: &FrameHeader, report: &[(CopysetId, u64)]) {
    let mut reply = FrameHeader::reply(header, Status::Ok);
    reply.stream = header.stream;
    let mut frame = Frame::new(reply);
    frame.meta = put_report(report);
    answer(peer, frame);
}

pub(crate) fn refuse(peer: &Peer, header: &FrameHeader, status: Status) {
    answer(peer, Frame::new(FrameHeader::reply(header, status)));
}
