//! Faults of single frames: what a fabric of messages does, and what TCP hides.
//!
//! *Place*: between the engine's sockets, for seeds that have such faults. *Owner*: the simulation.
//!
//! # Fault model
//!
//! Whole frames of a connection are lost, come twice (at once, or so late that much has happened
//! since), or are overtaken. As on a reliable queue pair that has missed something, the connection then
//! breaks, a while later and at each end at another moment; until then both ends go on. The case of its
//! own: a request has landed and was carried out, and its completion is lost with the connection.
//! Streams of log entries, whose frames have no numbers of their own, are never reordered or doubled:
//! no transport in use could do that to them.
//!
//! *Invariants*: frames stay whole: torn ones are the business of checksums, which have tests of their
//! own. A frame comes only on the connection that it was sent on.
//! *On failure*: bytes that are no frames pass unchanged.

use super::coverage::{Coverage, Fault};
use super::dice::Dice;
use ogee_proto::limit::FRAME_HEADER_SIZE;
use ogee_proto::wire::{FrameHeader, FrameKind};
use ogee_runtime::sim::{self, Chunk, HostId, Route, Tamper};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

/// One frame in so many suffers on a link with such a fault.
const ODDS: u64 = 5;
/// And where they come late.
const OFTEN: u64 = 3;
/// There are few seals.
const SEAL_ODDS: u64 = 2;

/// What happens to frames.
pub struct Wire {
    inner: RefCell<Inner>,
}

struct Inner {
    dice: Dice,
    streams: BTreeMap<Route, Vec<u8>>,
    faults: BTreeMap<(HostId, HostId), Fault>,
    coverage: Coverage,
}

impl Wire {
    /// Nothing happens yet.
    #[must_use]
    pub fn new(dice: Dice) -> Self {
        Self {
            inner: RefCell::new(Inner {
                dice,
                streams: BTreeMap::new(),
                faults: BTreeMap::new(),
                coverage: Coverage::default(),
            }),
        }
    }

    /// From now on this happens to frames between two hosts, or nothing.
    pub fn set(&self, from: HostId, to: HostId, fault: Option<Fault>) {
        let faults = &mut self.inner.borrow_mut().faults;
        match fault {
            Some(fault) => faults.insert((from, to), fault),
            None => faults.remove(&(from, to)),
        };
    }

    /// What has happened.
    #[must_use]
    pub fn coverage(&self) -> Coverage {
        self.inner.borrow().coverage.clone()
    }
}

impl Tamper for Wire {
    fn tamper(&self, route: Route, bytes: &[u8]) -> Vec<Chunk> {
        let mut inner = self.inner.borrow_mut();
        let stream = inner.streams.entry(route).or_default();
        stream.extend_from_slice(bytes);
        let mut whole = Vec::new();
        while let Some((header, frame)) = cut_frame(stream) {
            whole.push((header, frame));
        }
        let mut chunks = Vec::new();
        for (header, frame) in whole {
            inner.suffer(route, header.as_ref(), frame, &mut chunks);
        }
        chunks
    }
}

impl Inner {
    fn suffer(
        &mut self,
        route: Route,
        header: Option<&FrameHeader>,
        frame: Vec<u8>,
        chunks: &mut Vec<Chunk>,
    ) {
        let fault = self.faults.get(&(route.from, route.to)).copied();
        let fault = fault.filter(|fault| header.is_some_and(|header| can_suffer(*fault, header)));
        let odds = match header.map(|header| header.kind) {
            Some(FrameKind::Seal) => SEAL_ODDS,
            _ if matches!(fault, Some(Fault::FrameReplay | Fault::FrameReorder)) => OFTEN,
            _ => ODDS,
        };
        let Some(fault) = fault.filter(|_| self.dice.once_in(odds)) else {
            return chunks.push(in_order(frame));
        };
        self.coverage.add(fault, 1);
        let late = |range, dice: &mut Dice, bytes| Chunk {
            bytes,
            extra: dice.millis(range),
            in_order: false,
        };
        match fault {
            Fault::FrameDrop | Fault::CompletionLoss => {}
            Fault::FrameDuplicate => {
                chunks.push(in_order(frame.clone()));
                chunks.push(late(0..20, &mut self.dice, frame));
            }
            Fault::FrameReplay => {
                chunks.push(in_order(frame.clone()));
                chunks.push(late(100..3000, &mut self.dice, frame));
            }
            Fault::FrameCorrupt => chunks.push(in_order(self.corrupt(frame))),
            _ => {
                let range = self.dice.pick(&[1..50, 1..600]).clone();
                chunks.push(late(range, &mut self.dice, frame));
            }
        }
        // Who has missed something learns of it, and so does the other, each in its time.
        if fault == Fault::FrameCorrupt {
            // Nobody but the one who looks at it knows.
            return;
        }
        let (one, mut other) = (self.dice.millis(0..1500), self.dice.millis(0..3000));
        if fault == Fault::FrameReplay {
            // Who gets it has not noticed yet that the sender has gone elsewhere.
            other += Duration::from_millis(1000);
        }
        if fault != Fault::FrameReorder {
            sim::break_connections((route.from, one), (route.to, other));
        }
    }
}

impl Inner {
    /// Flips a bit of the body; of the header, if there is no other.
    fn corrupt(&mut self, mut frame: Vec<u8>) -> Vec<u8> {
        let first = if frame.len() > FRAME_HEADER_SIZE {
            FRAME_HEADER_SIZE
        } else {
            0
        };
        let at = first + self.dice.index(frame.len() - first);
        frame[at] ^= 1 << self.dice.below(8);
        frame
    }
}

const fn in_order(bytes: Vec<u8>) -> Chunk {
    Chunk {
        bytes,
        extra: Duration::ZERO,
        in_order: true,
    }
}

/// Whether a frame is one of those that a fault is about.
fn can_suffer(fault: Fault, header: &FrameHeader) -> bool {
    let is_stream = matches!(
        header.kind,
        FrameKind::AppendEntries | FrameKind::AppendClose | FrameKind::Hello
    );
    match fault {
        Fault::CompletionLoss => header.kind == FrameKind::Reply,
        Fault::FrameReplay | Fault::FrameDuplicate | Fault::FrameReorder => {
            !is_stream && header.kind != FrameKind::Reply
        }
        _ => true,
    }
}

/// Takes the first whole frame off a stream; all of it if it is none.
fn cut_frame(stream: &mut Vec<u8>) -> Option<(Option<FrameHeader>, Vec<u8>)> {
    let header = stream.first_chunk::<FRAME_HEADER_SIZE>()?;
    match FrameHeader::decode(header) {
        Ok(header) => {
            let len = FRAME_HEADER_SIZE + (header.meta_len + header.payload_len) as usize;
            (stream.len() >= len).then(|| {
                let rest = stream.split_off(len);
                (Some(header), std::mem::replace(stream, rest))
            })
        }
        Err(_) => Some((None, std::mem::take(stream))),
    }
}
