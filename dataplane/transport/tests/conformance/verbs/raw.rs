//! A peer made of verbs, which says what it likes; encoded apart from the crate under test.

use crate::support::MS;
use ogee_proto::checksum::crc32c;
use ogee_proto::wire::{FrameHeader, FrameKind, WIRE_VERSION};
use ogee_rdma::{
    Access, Channel, Completion, ConnectParams, Domain, Done, Event, EventKind, Id, IdKey, Lent,
    Pair, Piece, Rail, RailLimits, RemoteMemory, Slab,
};
use ogee_runtime::{now, sleep};
use ogee_transport::{Endpoint, Frame};
use std::collections::VecDeque;
use std::time::Duration;

pub const HEAD: usize = 256;
pub const BODY: usize = 16 << 10;
const PATIENCE: Duration = Duration::from_secs(20);

/// What it offers, as docs/rdma.md has it.
pub fn offer(wire_version: u16, rdma_version: u16, receives: u16, reason: u16) -> Vec<u8> {
    let mut bytes = b"OGEERDMA".to_vec();
    bytes.extend(wire_version.to_le_bytes());
    bytes.extend(rdma_version.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(256_u32.to_le_bytes());
    bytes.extend((16_u32 << 10).to_le_bytes());
    bytes.extend(receives.to_le_bytes());
    bytes.extend(reason.to_le_bytes());
    let crc = crc32c(&bytes);
    bytes.extend(crc.to_le_bytes());
    bytes
}

pub fn good_offer() -> Vec<u8> {
    offer(WIRE_VERSION, 1, 8, 0)
}

/// The head of a message.
#[derive(Clone, Copy)]
pub struct Prefix {
    pub kind: u8,
    pub flags: u8,
    pub credits: u16,
    pub loan: u32,
    pub memory: RemoteMemory,
    pub body_len: u32,
}

pub const LENT: u8 = 2;
pub const FOR_ANSWER: u8 = 4;
pub const WRITTEN: u8 = 8;

impl Prefix {
    pub const fn new(kind: u8) -> Self {
        Self {
            kind,
            flags: 0,
            credits: 0,
            loan: 0,
            memory: RemoteMemory {
                address: 0,
                key: 0,
                len: 0,
            },
            body_len: 0,
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.kind, self.flags];
        bytes.extend(self.credits.to_le_bytes());
        bytes.extend(self.loan.to_le_bytes());
        bytes.extend(self.memory.key.to_le_bytes());
        bytes.extend(self.memory.len.to_le_bytes());
        bytes.extend(self.memory.address.to_le_bytes());
        bytes.extend(self.body_len.to_le_bytes());
        let crc = crc32c(&bytes);
        bytes.extend(crc.to_le_bytes());
        bytes
    }
}

pub struct Raw {
    channel: Channel,
    rail: Rail,
    pieces: Slab,
    larges: Slab,
    events: VecDeque<Event>,
    completions: VecDeque<Completion>,
}

impl Raw {
    pub fn new() -> Self {
        let domain = Domain::open(None).unwrap();
        let limits = RailLimits {
            sends: 64,
            receives: 32,
        };
        let raw = Self {
            channel: Channel::new().unwrap(),
            rail: Rail::new(&domain, limits).unwrap(),
            pieces: Slab::register(&domain, BODY + 4096, 128).unwrap(),
            larges: Slab::register(&domain, 1 << 20, 8).unwrap(),
            events: VecDeque::new(),
            completions: VecDeque::new(),
        };
        for _ in 0..16 {
            let (head, body) = (raw.piece(), raw.piece());
            raw.rail.receive(head, HEAD, Some(body)).unwrap();
        }
        raw
    }

    pub fn piece(&self) -> Piece {
        self.pieces.take().unwrap()
    }

    async fn turn(&mut self) {
        let mut found = Vec::new();
        self.rail.poll(&mut found, 64).unwrap();
        self.completions.extend(found);
        while let Some(event) = self.channel.next().unwrap() {
            self.events.push_back(event);
        }
        sleep(MS).await;
    }

    pub async fn event(&mut self, id: IdKey) -> Event {
        let end = now() + PATIENCE;
        loop {
            if let Some(at) = self.events.iter().position(|event| event.id == id) {
                return self.events.remove(at).unwrap();
            }
            assert!(now() < end, "no event came");
            self.turn().await;
        }
    }

    pub async fn completion(&mut self, is_it: impl Fn(&Completion) -> bool) -> Completion {
        let end = now() + PATIENCE;
        loop {
            if let Some(at) = self.completions.iter().position(&is_it) {
                return self.completions.remove(at).unwrap();
            }
            assert!(now() < end, "no such completion came");
            self.turn().await;
        }
    }

    /// The next message: its head, and what stands behind it.
    pub async fn message(&mut self) -> (Vec<u8>, Vec<u8>) {
        let is_it = |it: &Completion| matches!(it.done, Done::Received { .. });
        let completion = self.completion(is_it).await;
        let Done::Received { head, rest, len } = completion.done else {
            unreachable!("looked at");
        };
        let body = rest.map_or(Vec::new(), |rest| rest[..len.saturating_sub(HEAD)].to_vec());
        (head[..len.min(HEAD)].to_vec(), body)
    }

    /// The next request of that kind: the head of its message, and its header.
    pub async fn request(&mut self, kind: FrameKind) -> (Vec<u8>, FrameHeader) {
        loop {
            let (head, _) = self.message().await;
            let header = head.get(32..160).filter(|_| head[0] == 1);
            let header = header.map(|header| FrameHeader::decode(header).unwrap());
            if let Some(header) = header.filter(|header| header.kind == kind) {
                return (head, header);
            }
        }
    }

    /// Writes 7 to all of it, and waits until it is there.
    pub async fn write(&mut self, pair: &Pair, memory: RemoteMemory) {
        let mut piece = self.larges.take().unwrap();
        piece.fill(7);
        pair.write(piece, memory, 3).unwrap();
        let written = self.completion(|it| it.token == 3).await;
        assert!(matches!(written.outcome, Ok(())), "{:?}", written.outcome);
    }

    /// Waits until the next message has gone, which lets no other task run.
    pub fn wait_for_sent(&mut self) {
        let end = now() + PATIENCE;
        let is_sent = |it: &Completion| matches!(it.done, Done::Sent(..));
        while !self.completions.iter().any(is_sent) {
            assert!(now() < end, "it does not go");
            let mut found = Vec::new();
            self.rail.poll(&mut found, 64).unwrap();
            self.completions.extend(found);
        }
        self.completions.retain(|it| !is_sent(it));
    }

    /// Asks for a connection with those words; the answer comes as an event.
    pub async fn ask(&mut self, endpoint: &Endpoint, data: Vec<u8>) -> Pair {
        let Endpoint::Rdma(address) = endpoint else {
            panic!("{endpoint}");
        };
        let id = Id::new(&self.channel).unwrap();
        id.resolve(*address, Duration::from_secs(2)).unwrap();
        let event = self.event(id.key()).await;
        assert!(
            matches!(event.kind, EventKind::AddressResolved),
            "{event:?}"
        );
        id.resolve_route(Duration::from_secs(2)).unwrap();
        let event = self.event(id.key()).await;
        assert!(matches!(event.kind, EventKind::RouteResolved), "{event:?}");
        let (pair, params) = self.pair(id, data);
        pair.connect(&params).unwrap();
        pair
    }

    /// A connection that was accepted, with both Hellos said.
    pub async fn connect(&mut self, endpoint: &Endpoint, hello: &Frame) -> Pair {
        let pair = self.ask(endpoint, good_offer()).await;
        let event = self.event(pair.key()).await;
        assert!(matches!(event.kind, EventKind::Established), "{event:?}");
        self.send(&pair, Prefix::new(1), &whole(hello), &[]);
        let (head, _) = self.message().await;
        assert_eq!((head[0], head[32..36].to_vec()), (1, b"OGEF".to_vec()));
        pair
    }

    pub fn listen(&self, endpoint: &Endpoint) -> (Id, Endpoint) {
        let Endpoint::Rdma(mut address) = *endpoint else {
            panic!("{endpoint}");
        };
        let listener = Id::new(&self.channel).unwrap();
        address.set_port(listener.listen(address, 4).unwrap());
        (listener, Endpoint::Rdma(address))
    }

    /// Whether somebody asks for a connection there.
    pub async fn is_asked(&mut self, listener: &Id) -> bool {
        for _turn in 0..20 {
            self.turn().await;
        }
        self.events.iter().any(|event| event.id == listener.key())
    }

    /// A pair that is to say those words.
    fn pair(&self, id: Id, data: Vec<u8>) -> (Pair, ConnectParams) {
        let Ok(pair) = Pair::new(&self.rail, id, 32) else {
            panic!("no pair");
        };
        let params = ConnectParams {
            data,
            ..ConnectParams::default()
        };
        (pair, params)
    }

    /// Accepts the next request with those words.
    pub async fn accept(&mut self, listener: &Id, data: Vec<u8>) -> Pair {
        let EventKind::Request(id) = self.event(listener.key()).await.kind else {
            panic!("no request");
        };
        let (pair, params) = self.pair(id, data);
        pair.accept(&params).unwrap();
        pair
    }

    /// Refuses it.
    pub async fn refuse(&mut self, listener: &Id, data: &[u8]) {
        let EventKind::Request(id) = self.event(listener.key()).await.kind else {
            panic!("no request");
        };
        id.reject(data).unwrap();
    }

    /// Sends a message of prefix, frame header with meta, and body.
    pub fn send(&self, pair: &Pair, mut prefix: Prefix, frame: &[u8], body: &[u8]) {
        let (mut head, mut rest) = (self.piece(), self.piece());
        if prefix.body_len == 0 {
            prefix.body_len = u32::try_from(body.len()).unwrap();
        }
        head[..32].copy_from_slice(&prefix.encode());
        head[32..32 + frame.len()].copy_from_slice(frame);
        rest[..body.len()].copy_from_slice(body);
        pair.send_both(head, HEAD, Some((rest.into(), body.len())), 1)
            .unwrap();
    }

    /// Lends so many bytes that are all 7.
    pub fn lend(&self, pair: &Pair, len: usize, access: Access) -> Lent {
        let mut piece = self.larges.take().unwrap();
        piece.fill(7);
        pair.lend(piece, len, access, 2).unwrap()
    }
}

/// Header and meta of a frame, which says that its payload follows.
pub fn whole(frame: &Frame) -> Vec<u8> {
    let mut header = frame.header;
    header.meta_len = u32::try_from(frame.meta.len()).unwrap();
    header.payload_len = u32::try_from(frame.payload.len()).unwrap();
    header.body_crc = crc32c(&[&frame.meta[..], &frame.payload[..]].concat());
    [&header.encode()[..], &frame.meta].concat()
}
