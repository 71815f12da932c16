//! Three nodes, each a real service on a loopback endpoint; copysets with a replica on each.

use super::group::Group;
use bytes::Bytes;
use ogee_client::{CopysetView, MapSegment, ReplicaView, VolumeHead, VolumeMap};
use ogee_proto::id::{ChunkIndex, CopysetId, ReplicaId, VolumeId};
use ogee_proto::layout::StripeLayout;
use ogee_proto::unit::ByteLen;
use ogee_proto::wire::{FrameHeader, FrameKind, Status};
use ogee_runtime::{Payload, sleep, spawn};
use ogee_transport::{
    Endpoint, Frame, Hello, Keepalive, Listener, Peer, Role, Service, ServiceOptions,
};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

pub const NODES: usize = 3;

/// What happens to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    None,
    /// Applied, then the connection breaks without a reply.
    LoseReply,
    /// The connection breaks before anything is applied.
    LoseRequest,
    /// Applied, but answered with "unknown".
    Unknown,
    /// Not applied, answered so.
    Answer(Status),
    /// Handled later.
    Delay(Duration),
    /// Handled when the test says so.
    Hold,
}

type Plan = Box<dyn FnMut(&FrameHeader) -> Fault>;

#[derive(Clone)]
pub struct Cluster {
    inner: Rc<Inner>,
}

struct Inner {
    groups: RefCell<BTreeMap<u32, Group>>,
    services: RefCell<[Option<Service>; NODES]>,
    plan: RefCell<Plan>,
    held: RefCell<Vec<(usize, Peer, Frame)>>,
    broken_rules: RefCell<Vec<String>>,
    /// (client, sequence) that took effect anywhere, to check watermarks by.
    done: RefCell<BTreeSet<(u64, u64)>>,
    /// Followers name the leader.
    hints: Cell<bool>,
    frames: RefCell<BTreeMap<u8, u32>>,
    /// Holds all that it is asked.
    mute: Cell<Option<usize>>,
}

impl Cluster {
    /// Copysets `1..=copysets`, led by node 0.
    pub fn new(copysets: u32) -> Self {
        let group = |id| (id, Group::new(0, (0..NODES).collect()));
        let inner = Inner {
            groups: RefCell::new((1..=copysets).map(group).collect()),
            services: RefCell::default(),
            plan: RefCell::new(Box::new(|_| Fault::None)),
            held: RefCell::default(),
            broken_rules: RefCell::default(),
            done: RefCell::default(),
            hints: Cell::new(true),
            frames: RefCell::default(),
            mute: Cell::new(None),
        };
        let cluster = Self {
            inner: Rc::new(inner),
        };
        (0..NODES).for_each(|node| cluster.start(node));
        cluster
    }

    /// Starts a node's service.
    pub fn start(&self, node: usize) {
        self.start_with(node, ServiceOptions::default());
    }

    /// Starts a node that answers and never says anything else: it counts as silent, as a stopped
    /// process does, while it holds what it is asked.
    pub fn start_taciturn(&self, node: usize) {
        let mut options = ServiceOptions::default();
        options.connection.keepalive =
            Keepalive::new(Duration::from_secs(100), Duration::from_secs(300));
        self.start_with(node, options);
    }

    fn start_with(&self, node: usize, options: ServiceOptions) {
        let listener = Listener::bind(&endpoint(node)).unwrap();
        let hello = Hello::new(Role::Chunkserver, node as u64, "node").with_credits(4096);
        let inner = Rc::downgrade(&self.inner);
        let handler = Rc::new(move |peer: Peer, frame: Frame| {
            if let Some(inner) = inner.upgrade() {
                Cluster { inner }.serve(node, peer, frame);
            }
        });
        self.inner.services.borrow_mut()[node] =
            Some(Service::serve_with(listener, hello, options, handler));
    }

    /// Ends a node's service and all its connections.
    pub async fn stop(&self, node: usize) {
        let service = self.inner.services.borrow_mut()[node].take();
        service.unwrap().close().await;
    }

    /// Decides each request's fate from now on.
    pub fn plan(&self, plan: impl FnMut(&FrameHeader) -> Fault + 'static) {
        *self.inner.plan.borrow_mut() = Box::new(plan);
    }

    /// Whether followers name the leader.
    pub fn set_hints(&self, hints: bool) {
        self.inner.hints.set(hints);
    }

    pub fn group<T>(&self, copyset: u32, look: impl FnOnce(&mut Group) -> T) -> T {
        look(self.inner.groups.borrow_mut().get_mut(&copyset).unwrap())
    }

    /// Makes `node` lead every copyset.
    pub fn lead(&self, node: Option<usize>) {
        self.inner
            .groups
            .borrow_mut()
            .values_mut()
            .for_each(|group| group.leader = node);
    }

    /// Makes `node` hold every request from now on.
    pub fn mute(&self, node: usize) {
        self.inner.mute.set(Some(node));
    }

    /// Requests held.
    pub fn held(&self) -> usize {
        self.inner.held.borrow().len()
    }

    /// Handles what is held, and holds nothing from now on.
    pub fn release(&self) {
        self.plan(|_| Fault::None);
        let held = std::mem::take(&mut *self.inner.held.borrow_mut());
        for (node, peer, frame) in held {
            self.answer(node, &peer, &frame);
        }
    }

    /// Handles what is held of one chunk.
    pub fn release_chunk(&self, chunk: u32) {
        let of_chunk = |frame: &Frame| frame.header.key.chunk.get() == chunk;
        let mut held = self.inner.held.borrow_mut();
        let (now, later) = held.drain(..).partition(|(_, _, frame)| of_chunk(frame));
        *held = later;
        drop(held);
        let now: Vec<(usize, Peer, Frame)> = now;
        now.iter()
            .for_each(|(node, peer, frame)| self.answer(*node, peer, frame));
    }

    /// Handles the request that is held for longest.
    pub fn release_oldest(&self) {
        let (node, peer, frame) = self.inner.held.borrow_mut().remove(0);
        self.answer(node, &peer, &frame);
    }

    /// Frames of a kind that arrived at any node.
    pub fn frames(&self, kind: FrameKind) -> u32 {
        self.inner
            .frames
            .borrow()
            .get(&kind.encode())
            .copied()
            .unwrap_or(0)
    }

    /// How often each (client, sequence) took effect, over all copysets.
    pub fn effects(&self) -> BTreeMap<(u64, u64), u32> {
        let groups = self.inner.groups.borrow();
        groups
            .values()
            .flat_map(|group| group.effects.clone())
            .collect()
    }

    /// Asserts that each mutation took effect exactly once and every rule was kept.
    pub fn assert_exactly_once(&self, mutations: usize) {
        self.assert_rules();
        let effects = self.effects();
        assert_eq!(effects.len(), mutations);
        assert!(effects.values().all(|count| *count == 1), "{effects:?}");
    }

    pub fn assert_rules(&self) {
        assert_eq!(*self.inner.broken_rules.borrow(), Vec::<String>::new());
    }

    /// The map, as if `hosts` carried every copyset.
    pub fn map(&self, size: u64, layout: StripeLayout, hosts: Option<&[usize]>) -> VolumeMap {
        self.map_called("v", size, layout, hosts)
    }

    pub fn map_called(
        &self,
        name: &str,
        size: u64,
        layout: StripeLayout,
        hosts: Option<&[usize]>,
    ) -> VolumeMap {
        let groups = self.inner.groups.borrow();
        let head = VolumeHead {
            id: VolumeId::new(1),
            name: name.into(),
            size: ByteLen::new(size),
            layout,
        };
        let ids = groups.keys().map(|id| CopysetId::new(*id)).collect();
        let segments = vec![MapSegment {
            first: ChunkIndex::new(0),
            copysets: ids,
        }];
        let view = |(id, group): (&u32, &Group)| CopysetView {
            id: CopysetId::new(*id),
            replicas: hosts
                .unwrap_or(&group.hosts)
                .iter()
                .map(|n| replica_view(*id, *n))
                .collect(),
            leader: None,
        };
        VolumeMap::new(head, segments, groups.iter().map(view).collect()).unwrap()
    }

    fn serve(&self, node: usize, peer: Peer, frame: Frame) {
        *self
            .inner
            .frames
            .borrow_mut()
            .entry(frame.header.kind.encode())
            .or_default() += 1;
        let fault = if self.inner.mute.get() == Some(node) {
            Fault::Hold
        } else {
            (self.inner.plan.borrow_mut())(&frame.header)
        };
        match fault {
            Fault::None => self.answer(node, &peer, &frame),
            Fault::LoseReply => {
                let _lost = self.handle(node, &frame);
                peer.close();
            }
            Fault::LoseRequest => peer.close(),
            Fault::Unknown => {
                let mut reply = self.handle(node, &frame);
                if reply.header.status == Status::Ok {
                    reply = Frame::new(FrameHeader::reply(&frame.header, Status::Unknown));
                }
                send(&peer, reply);
            }
            Fault::Answer(status) => {
                let mut reply = Frame::new(FrameHeader::reply(&frame.header, status));
                reply.meta = Bytes::from_static(b"as planned");
                send(&peer, reply);
            }
            Fault::Delay(time) => {
                let cluster = self.clone();
                drop(spawn(async move {
                    sleep(time).await;
                    cluster.answer(node, &peer, &frame);
                }));
            }
            Fault::Hold => self.inner.held.borrow_mut().push((node, peer, frame)),
        }
    }

    fn answer(&self, node: usize, peer: &Peer, frame: &Frame) {
        send(peer, self.handle(node, frame));
    }

    fn handle(&self, node: usize, frame: &Frame) -> Frame {
        let header = &frame.header;
        let mut groups = self.inner.groups.borrow_mut();
        let copyset = header.copyset.get();
        let group = groups
            .get_mut(&copyset)
            .filter(|group| group.hosts.contains(&node));
        let Some(group) = group else {
            return Frame::new(FrameHeader::reply(header, Status::NoCopyset));
        };
        if group.leader != Some(node) {
            let mut reply = FrameHeader::reply(header, Status::NotLeader);
            let hint = group.leader.filter(|_| self.inner.hints.get());
            reply.stream = hint.map_or(0, |leader| replica_id(copyset, leader).get());
            return Frame::new(reply);
        }
        self.check_watermark(header);
        let applied = group.apply(header, &frame.payload);
        if applied.status == Status::Ok && header.sequence.get() > 0 {
            self.inner
                .done
                .borrow_mut()
                .insert((header.client.get(), header.sequence.get()));
        }
        let reply = FrameHeader::reply(header, applied.status);
        Frame::of_parts(reply, applied.meta.into(), Payload::from(applied.payload))
    }

    /// Everything up to the watermark must have been done, somewhere.
    fn check_watermark(&self, header: &FrameHeader) {
        let done = self.inner.done.borrow();
        let client = header.client.get();
        let watermark = header.watermark.get();
        // Only the newest few: the rest was checked when it was new.
        let oldest = watermark.saturating_sub(64) + 1;
        for sequence in oldest..=watermark {
            if !done.contains(&(client, sequence)) {
                let rule = format!("watermark {watermark} covers {sequence}, which is not done");
                self.inner.broken_rules.borrow_mut().push(rule);
            }
        }
    }
}

fn send(peer: &Peer, reply: Frame) {
    // Refused only if the client is gone, which tests do on purpose.
    let _ = peer.reply(reply);
}

fn endpoint(node: usize) -> Endpoint {
    Endpoint::Loopback(format!("node-{node}"))
}

fn replica_id(copyset: u32, node: usize) -> ReplicaId {
    ReplicaId::new(u64::from(copyset) * 10 + node as u64 + 1)
}

fn replica_view(copyset: u32, node: usize) -> ReplicaView {
    ReplicaView {
        id: replica_id(copyset, node),
        endpoint: Some(endpoint(node)),
    }
}
