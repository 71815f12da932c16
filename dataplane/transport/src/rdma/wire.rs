//! One RDMA connection.
//!
//! *Place*: between a link and a queue pair. *Owner*: its driver and its receiver; the port only knows it while
//! they do. *Invariants*: plain state, changed in functions that run to completion; after the end nothing is posted.
//! The last credit is kept for giving back, so two sides that wait for each other's buffers always get on.
//!
//! *On failure*: the first cause is kept, and told behind the frames that are here whole.

use super::inbox::Inbox;
use super::limit::GRANT_MAX;
use super::outgoing::Sending;
use super::piece;
use super::port::Port;
use crate::error::TransportError;
use crate::frame::Frame;
use crate::limit::LARGE_MIN;
use crate::metrics::count;
use crate::receiver::note_crc_error;
use crate::signal::WakerSlot;
use bytes::BytesMut;
use ogee_proto::checksum::{crc32c, crc32c_append, crc32c_append_blocks, crc32c_blocks};
use ogee_proto::limit::BLOCK_SIZE;
use ogee_proto::wire::{Status, WireError};
use ogee_rdma::{IdKey, Lent, Pair, PairNumber, RemoteMemory, Tell};
use ogee_runtime::Payload;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Which end of the connection this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    /// It lends.
    Opener,
    /// It moves.
    Acceptor,
}

/// One RDMA connection.
pub(crate) struct Wire {
    pub(super) port: Rc<Port>,
    pub(super) side: Side,
    /// Where the peer listens: of an opener.
    pub(super) peer: Option<SocketAddr>,
    number: PairNumber,
    key: IdKey,
    /// Of the device, by its number.
    on_port: u8,
    /// Receive buffers that the peer may use.
    pub(super) grant: u32,
    pub(super) state: RefCell<State>,
    /// It waits for a piece to come back. Not in the state: payloads are dropped while that is borrowed, and give pieces back.
    pub(super) is_waiting: Cell<bool>,
    pub(super) driver: WakerSlot,
    reader: WakerSlot,
}

pub(super) struct State {
    /// Gone after the end.
    pub(super) pair: Option<Pair>,
    /// Messages that may be sent.
    pub(super) credits: u32,
    /// Of those, as the peer has granted.
    pub(super) granted: u32,
    /// The largest body that the peer receives.
    pub(super) body_max: usize,
    /// Receive buffers that the peer has used and was not given back.
    pub(super) used: u32,
    /// Of those, what is to be given back.
    pub(super) due: u32,
    /// The same, of parts, while much waits for the user.
    pub(super) held: u32,
    pub(super) sending: Option<Sending>,
    /// Of what is gathered, whether memory is wanted back soon.
    pub(super) tell: Tell,
    /// Messages with the hardware.
    pub(super) under_way: u32,
    /// Loans that were read, of which the peer is to be told.
    pub(super) taken: VecDeque<u32>,
    pub(super) loans: HashMap<u32, Loan>,
    pub(super) next_loan: u32,
    /// Loans whose keys are to be voided when there is room for that.
    pub(super) to_reclaim: VecDeque<u32>,
    /// Memory that the peer has lent for answers, by request.
    pub(super) answers: HashMap<u64, (u32, RemoteMemory)>,
    pub(super) inbox: Inbox,
    /// Parts of the frame to come.
    pub(super) meta: BytesMut,
    pub(super) payload: BytesMut,
    /// Something came since the receiver looked last.
    pub(super) news: bool,
    /// The user is gone: what still comes is dropped.
    pub(super) is_deaf: bool,
    ended: Option<TransportError>,
}

/// Memory that the peer may touch.
pub(super) struct Loan {
    /// Not there while its key is being voided.
    pub(super) lent: Option<Lent>,
    pub(super) len: usize,
    pub(super) purpose: Purpose,
}

/// What it is lent for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// The peer reads a payload.
    Payload,
    /// The peer writes an answer.
    Answer,
    /// It has written one: of that entry, so long.
    Answered { number: u64, len: usize },
    /// Nobody waits for the answer any more, and its user wants the memory back.
    Recalled,
    /// The same, and he has it. The number is not used again before the answer has come.
    Void,
    /// It has given it back.
    Over,
}

impl Wire {
    /// A connection whose peer grants nothing yet; of an opener, where that listens.
    pub(super) fn new(
        port: Rc<Port>,
        peer: Option<SocketAddr>,
        pair: Pair,
        grant: u32,
    ) -> Rc<Self> {
        let (number, key, on_port) = (pair.number(), pair.key(), pair.port());
        let wire = Rc::new(Self {
            port,
            side: peer.map_or(Side::Acceptor, |_| Side::Opener),
            peer,
            number,
            key,
            on_port,
            grant,
            state: RefCell::new(State {
                pair: Some(pair),
                credits: 0,
                granted: 0,
                body_max: 0,
                used: 0,
                due: 0,
                held: 0,
                sending: None,
                tell: Tell::Last,
                under_way: 0,
                taken: VecDeque::new(),
                loans: HashMap::new(),
                next_loan: 1,
                to_reclaim: VecDeque::new(),
                answers: HashMap::new(),
                inbox: Inbox::default(),
                meta: BytesMut::new(),
                payload: BytesMut::new(),
                news: false,
                is_deaf: false,
                ended: None,
            }),
            is_waiting: Cell::new(false),
            driver: WakerSlot::default(),
            reader: WakerSlot::default(),
        });
        wire.port.add_wire(number, &wire);
        wire
    }

    /// What the peer grants.
    pub(super) fn granted(&self, receives: u32, body_max: usize) {
        let mut state = self.state.borrow_mut();
        let receives = receives.min(GRANT_MAX);
        (state.credits, state.granted, state.body_max) = (receives, receives, body_max);
    }

    /// The next frame that is whole, in order.
    ///
    /// # Errors
    /// The cause of the end, behind the last of them.
    pub(crate) fn next_frame(&self) -> Result<Option<Frame>, TransportError> {
        let mut state = self.state.borrow_mut();
        let Some((header, meta, payload)) = state.inbox.pop() else {
            return match state.ended {
                Some(_) => Err(state.cause()),
                None => Ok(None),
            };
        };
        state.due += 1;
        state.release();
        let wants_driver = state.due * 2 >= self.grant || state.inbox.to_read().is_some();
        drop(state);
        if wants_driver {
            self.driver.wake();
        }
        let (found, payload) = checked(crc32c(&meta), payload);
        if found != header.body_crc {
            let is_in_place = piece::is_in_place(&payload);
            let error = WireError::BodyCrc {
                expected: found,
                found: header.body_crc,
            };
            note_crc_error(&error);
            if is_in_place {
                // Who has lent the memory may have written to it, as a guest can: that is no fault of the connection. It is
                // asked again, and answered elsewhere.
                let mut header = header;
                header.status = Status::Retry;
                let frame = Frame::new(header);
                return Ok(Some(frame));
            }
            return Err(error.into());
        }
        let frame = Frame::of_parts(header, meta, payload);
        count(|metrics| metrics.bytes_in.add(frame.wire_len()));
        Ok(Some(frame))
    }

    /// Ready when something has come since this was ready last, or the connection has ended.
    pub(crate) async fn news(&self) {
        poll_fn(|cx| {
            let mut state = self.state.borrow_mut();
            if std::mem::take(&mut state.news) || state.inbox.is_ready() || state.ended.is_some() {
                return Poll::Ready(());
            }
            self.reader.register(cx);
            Poll::Pending
        })
        .await;
    }

    /// Nobody reads any more.
    pub(crate) fn stop_listening(&self) {
        let mut state = self.state.borrow_mut();
        state.is_deaf = true;
        state.drop_if_deaf();
        drop(state);
        self.driver.wake();
    }

    /// Why it has ended, if it has.
    pub(super) fn ended(&self) -> Option<TransportError> {
        self.state.borrow().ended.clone()
    }

    /// It ends.
    pub(super) fn end(&self, cause: TransportError) {
        self.state.borrow_mut().ended.get_or_insert(cause);
        self.reader.wake();
        self.driver.wake();
    }

    /// Whether it goes over that port of its device; one whose port is not told may.
    pub(super) const fn is_on(&self, port: u8) -> bool {
        self.on_port == 0 || self.on_port == port
    }

    /// The peer has disconnected.
    pub(super) fn left(&self) {
        self.end(TransportError::PeerClosed);
    }

    /// The driver is to look, and the receiver.
    pub(super) fn came(&self) {
        self.reader.wake();
        self.driver.wake();
    }

    /// A piece has come back.
    pub(super) fn stopped_waiting(&self) {
        self.is_waiting.set(false);
        self.driver.wake();
    }

    /// For the driver: to be woken when there may be something to do.
    pub(super) fn register(&self, cx: &Context<'_>) {
        self.driver.register(cx);
    }

    /// Whether everything has gone that was sent: nothing is with the hardware, and no payload with the peer.
    pub(super) fn is_drained(&self) -> bool {
        let state = self.state.borrow();
        let lends = |loan: &Loan| loan.purpose == Purpose::Payload;
        state.ended.is_some()
            || (state.sending.is_none()
                && state.under_way == 0
                && state.taken.is_empty()
                && !state.loans.values().any(lends))
    }

    /// Disconnects, and gives back all that the connection has.
    pub(super) fn close(&self) {
        let mut state = self.state.borrow_mut();
        state.ended.get_or_insert(TransportError::Closed);
        let Some(pair) = state.pair.take() else {
            return;
        };
        // It fails when the peer was faster.
        let _ = pair.disconnect();
        let (loans, sending) = (std::mem::take(&mut state.loans), state.sending.take());
        drop(state);
        // Lent memory holds the queue pair.
        drop((loans, sending));
        drop(pair);
        self.port.close_mailbox(self.key);
        self.port.remove_wire(self.number, self.grant);
        self.port.piece_came_back();
        self.came();
    }
}

impl State {
    /// Why it has ended: of one that ended inside of a frame, that.
    fn cause(&self) -> TransportError {
        let is_whole = self.meta.is_empty() && self.payload.is_empty() && self.inbox.len() == 0;
        match &self.ended {
            Some(TransportError::PeerClosed) if !is_whole => TransportError::CutShort,
            Some(cause) => cause.clone(),
            None => TransportError::Closed,
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.close();
    }
}

/// The checksum of what stands before and of `payload`; a large one keeps those of its blocks.
fn checked(before: u32, payload: Payload) -> (u32, Payload) {
    if payload.len() < LARGE_MIN || !payload.len().is_multiple_of(BLOCK_SIZE) {
        return (crc32c_append(before, &payload), payload);
    }
    let (crcs, whole) = crc32c_blocks(&payload);
    let found = crc32c_append_blocks(before, whole, crcs.len());
    (found, payload.with_block_crcs(BLOCK_SIZE, crcs))
}
