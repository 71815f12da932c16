//! What all connections of a thread share: completions, and the queue of receive buffers.
//!
//! *Place*: one per shard and device. *Owner*: its pairs hold it. *Invariants*: every work request is in a
//! ledger from before it is posted until its completion, that of a signalled one behind it, or the end of its pair; the
//! completion queue has room for all that may be posted. *On failure*: a post that fails gives back what was posted.

use crate::api::Api;
use crate::chain::{PairNumber, PairState};
use crate::domain::{AsyncEvent, DeviceEvent, Domain, DomainInner};
use crate::error::{Failed, RdmaError, WorkError, check};
use crate::ledger::Ledger;
use crate::slab::{Piece, Source};
use crate::window::Window;
use libc::c_int;
use rdma_sys::{
    ibv_comp_channel, ibv_cq, ibv_recv_wr, ibv_sge, ibv_srq, ibv_srq_attr, ibv_srq_init_attr,
    ibv_wc, ibv_wc_flags as flags, ibv_wc_opcode as opcode, ibv_wc_status as status,
};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::{NonNull, null_mut};
use std::rc::Rc;

/// Completions taken from the hardware at a time.
const BURST: usize = 16;
/// Of a work request's number: it is a receive.
const RECEIVE: u64 = 1 << 31;
/// Neither part of the number reaches [`RECEIVE`].
const LEDGER_MAX: u32 = 1 << 24;

/// How much a rail takes.
#[derive(Debug, Clone, Copy)]
pub struct RailLimits {
    /// Work requests under way, of all pairs together.
    pub sends: u32,
    /// Receive buffers.
    pub receives: u32,
}

/// What all connections of a thread share.
#[derive(Clone)]
pub struct Rail {
    pub(crate) inner: Rc<RailInner>,
}

pub(crate) struct RailInner {
    pub(crate) channel: NonNull<ibv_comp_channel>,
    pub(crate) cq: NonNull<ibv_cq>,
    pub(crate) srq: NonNull<ibv_srq>,
    sends: RefCell<Ledger<Sent>>,
    receives: RefCell<Ledger<Receive>>,
    /// Work requests that pairs may still be promised.
    room: Cell<u32>,
    limits: RailLimits,
    /// Taken from the hardware for another reason than being asked.
    backlog: RefCell<VecDeque<Completion>>,
    /// Unbound ones; the longest unused first.
    pub(crate) windows: RefCell<VecDeque<Window>>,
    /// By the hardware's number, which is used again.
    pairs: RefCell<HashMap<u32, Rc<PairState>>>,
    pairs_made: Cell<u64>,
    told: Cell<u64>,
    pub(crate) domain: Rc<DomainInner>,
}

/// A work request of a pair that is with the hardware.
pub(crate) struct Sent {
    pub(crate) pair: Rc<PairState>,
    pub(crate) token: u64,
    pub(crate) work: Work,
}

/// What it is.
pub(crate) enum Work {
    /// They go out; inline, there is nothing.
    Send(Option<Piece>, Option<Source>),
    Read(Piece),
    Write(Source),
    Lend,
    Reclaim(Window, Source),
}

/// What a pair has with the hardware.
pub(crate) struct Unfinished {
    /// Windows that were to be voided, and what they are of.
    pub(crate) windows: Vec<(Window, Source)>,
    /// All else.
    pub(crate) sent: Vec<Work>,
}

/// A receive buffer that is with the hardware.
struct Receive {
    head: Piece,
    head_len: usize,
    rest: Option<Piece>,
}

impl Receive {
    fn room(&self) -> usize {
        self.head_len + self.rest.as_ref().map_or(0, |rest| rest.len())
    }
}

/// A work request has ended.
#[derive(Debug)]
pub struct Completion {
    /// Whose.
    pub pair: PairNumber,
    /// As it was posted; 0 of receives.
    pub token: u64,
    /// What was posted comes back.
    pub done: Done,
    /// How it ended. After an error the pair is broken: everything on it ends so.
    pub outcome: Result<(), WorkError>,
}

/// What has ended, with its memory.
#[derive(Debug)]
pub enum Done {
    /// A send, of both its parts.
    Sent(Option<Piece>, Option<Source>),
    /// The peer's memory was read into the piece.
    Read(Piece),
    /// It was written to the peer's memory.
    Written(Source),
    /// The peer may touch what was lent from here on; what was sent before may have been early.
    Lent,
    /// The peer may touch it no more.
    Reclaimed(Source),
    /// What was to be reclaimed cannot be: the device is gone, or broken.
    Lost,
    /// Something came: `len` bytes, in `head` first.
    Received {
        /// The first bytes, up to the length that was posted.
        head: Piece,
        /// The others.
        rest: Option<Piece>,
        /// Bytes that came.
        len: usize,
    },
}

impl Rail {
    /// # Errors
    /// [`RdmaError`] when the device has not so much of it.
    pub fn new(domain: &Domain, limits: RailLimits) -> Result<Self, RdmaError> {
        let inner = domain.inner.clone();
        let entries = limits.sends.checked_add(limits.receives);
        let fits = |entries: &u32| *entries <= LEDGER_MAX;
        let entries = entries
            .filter(fits)
            .and_then(|entries| c_int::try_from(entries).ok());
        let entries = entries.ok_or(RdmaError::TooMuch {
            what: "the number of work requests of a rail",
            value: limits.sends.max(limits.receives) as usize,
            limit: LEDGER_MAX as usize,
        })?;
        let (api, context) = (inner.api, inner.context.as_ptr());
        // SAFETY: a valid context.
        let channel = unsafe { (api.ibv_create_comp_channel)(context) };
        let channel =
            NonNull::new(channel).ok_or_else(|| RdmaError::last("ibv_create_comp_channel"))?;
        let channel = Guard(channel, |channel| {
            // SAFETY: made here, and its queue is gone.
            unsafe { (api.ibv_destroy_comp_channel)(channel.as_ptr()) };
        });
        // SAFETY: a valid channel.
        let fd = unsafe { (*channel.0.as_ptr()).fd };
        crate::domain::set_nonblocking(fd).map_err(|source| RdmaError::call("fcntl", source))?;
        // SAFETY: a valid context and channel.
        let cq =
            unsafe { (api.ibv_create_cq)(context, entries, null_mut(), channel.0.as_ptr(), 0) };
        let cq = NonNull::new(cq).ok_or_else(|| RdmaError::last("ibv_create_cq"))?;
        let cq = Guard(cq, |cq| {
            // SAFETY: made here, and nothing uses it.
            unsafe { (api.ibv_destroy_cq)(cq.as_ptr()) };
        });
        let mut attributes = ibv_srq_init_attr {
            srq_context: null_mut(),
            attr: ibv_srq_attr {
                max_wr: limits.receives,
                max_sge: 2,
                srq_limit: 0,
            },
        };
        // SAFETY: a valid domain.
        let srq = unsafe { (api.ibv_create_srq)(inner.raw.as_ptr(), &raw mut attributes) };
        let srq = NonNull::new(srq).ok_or_else(|| RdmaError::last("ibv_create_srq"))?;
        Ok(Self {
            inner: Rc::new(RailInner {
                cq: cq.keep(),
                channel: channel.keep(),
                srq,
                sends: RefCell::new(Ledger::new(limits.sends)),
                receives: RefCell::new(Ledger::new(limits.receives)),
                room: Cell::new(limits.sends),
                limits,
                backlog: RefCell::default(),
                windows: RefCell::default(),
                pairs: RefCell::default(),
                pairs_made: Cell::new(0),
                told: Cell::new(0),
                domain: inner,
            }),
        })
    }

    /// Offers a buffer for what any peer sends next: its first `head_len` bytes go to `head`, the others to
    /// `rest`.
    ///
    /// # Errors
    /// When the queue is full or the driver refuses: the pieces come back.
    ///
    /// # Panics
    /// When `head_len` is 0 or longer than `head`, or a piece is of another domain.
    pub fn receive(
        &self,
        head: Piece,
        head_len: usize,
        rest: Option<Piece>,
    ) -> Result<(), Failed<(Piece, Option<Piece>)>> {
        self.inner.receive(head, head_len, rest)
    }

    /// Takes up to about `limit` completions, without waiting.
    ///
    /// # Errors
    /// When the queue is broken (it overflowed, or the device is gone).
    pub fn poll(&self, into: &mut Vec<Completion>, limit: usize) -> Result<(), RdmaError> {
        let begin = into.len();
        into.extend(self.inner.backlog.borrow_mut().drain(..));
        while into.len() - begin < limit {
            if !self.inner.collect(|completion| into.push(completion))? {
                break;
            }
        }
        Ok(())
    }

    /// Asks for the descriptor of [`AsFd`] to become readable with the next completion. Poll once more after
    /// this: what came before it does not count.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn arm(&self) -> Result<(), RdmaError> {
        let domain = &self.inner.domain;
        let arm = domain
            .ops
            .req_notify_cq
            .ok_or_else(|| RdmaError::Unsupported {
                device: domain.device.clone(),
                what: "tell of completions",
            })?;
        // SAFETY: a valid queue.
        let returned = unsafe { arm(self.inner.cq.as_ptr(), 0) };
        check("ibv_req_notify_cq", returned)
    }

    /// Takes what made the descriptor readable: an event, of which there is one for each time that it was asked for. Should
    /// there be another one, the descriptor still is readable.
    pub fn clear(&self) {
        let inner = &self.inner;
        let (mut cq, mut context) = (null_mut(), null_mut());
        // SAFETY: a valid channel that does not block; there is room for both pointers.
        let returned = unsafe {
            (inner.domain.api.ibv_get_cq_event)(
                inner.channel.as_ptr(),
                &raw mut cq,
                &raw mut context,
            )
        };
        if returned == 0 {
            // SAFETY: the queue whose event was got, which is ours: the channel has no other.
            unsafe { (inner.domain.api.ibv_ack_cq_events)(inner.cq.as_ptr(), 1) };
        }
    }

    /// Which pair of this rail an event is about, if it is about one.
    #[must_use]
    pub fn pair_of(&self, event: &DeviceEvent) -> Option<PairNumber> {
        if event.what != AsyncEvent::PairError {
            return None;
        }
        let hardware = u32::try_from(event.of).ok()?;
        let pairs = self.inner.pairs.borrow();
        pairs.get(&hardware).map(|pair| pair.number)
    }

    /// Whether an event is about a queue of this rail.
    #[must_use]
    pub fn has_queue_of(&self, event: &DeviceEvent) -> bool {
        let queue = match event.what {
            AsyncEvent::CompletionQueueError => self.inner.cq.as_ptr().addr(),
            AsyncEvent::ReceiveQueueError => self.inner.srq.as_ptr().addr(),
            _ => return false,
        };
        event.of == queue as u64
    }

    /// Receive buffers that are offered.
    #[must_use]
    pub fn receives(&self) -> usize {
        self.inner.receives.borrow().len()
    }

    /// Completions that the hardware has told of. Of silent work requests it tells nothing, and each has one all the same.
    #[must_use]
    pub fn told(&self) -> u64 {
        self.inner.told.get()
    }

    /// Work requests under way, of all pairs.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.inner.sends.borrow().len()
    }
}

/// Undoes a step of making a rail, unless that succeeds.
struct Guard<T, F: Fn(NonNull<T>)>(NonNull<T>, F);

impl<T, F: Fn(NonNull<T>)> Guard<T, F> {
    fn keep(self) -> NonNull<T> {
        let kept = self.0;
        std::mem::forget(self);
        kept
    }
}

impl<T, F: Fn(NonNull<T>)> Drop for Guard<T, F> {
    fn drop(&mut self) {
        (self.1)(self.0);
    }
}

impl RailInner {
    pub(crate) fn api(&self) -> &'static Api {
        self.domain.api
    }

    /// Promises a pair so many work requests.
    pub(crate) fn promise(&self, depth: u32) -> Result<(), RdmaError> {
        let Some(left) = self.room.get().checked_sub(depth) else {
            return Err(RdmaError::Full {
                what: "the rail, by work requests of its pairs,",
                limit: self.limits.sends,
            });
        };
        self.room.set(left);
        Ok(())
    }

    /// A pair could not be made.
    pub(crate) fn promise_back(&self, depth: u32) {
        self.room.set(self.room.get() + depth);
    }

    /// A pair was made whose queue pair has that number.
    pub(crate) fn register(&self, hardware: u32) -> Rc<PairState> {
        let made = self.pairs_made.get() + 1;
        self.pairs_made.set(made);
        let state = Rc::new(PairState::new(PairNumber(made)));
        self.pairs.borrow_mut().insert(hardware, state.clone());
        state
    }

    /// Takes everything from the hardware. Before a pair is destroyed, since some drivers then throw away what
    /// the queue has of it, and the receive buffers would never come back.
    pub(crate) fn drain(&self) {
        let mut left = Vec::new();
        while matches!(self.collect(|completion| left.push(completion)), Ok(true)) {}
        self.backlog.borrow_mut().extend(left);
    }

    /// A pair is about to be destroyed: what it has with the hardware, to be kept until it is.
    pub(crate) fn withdraw_all(&self, pair: PairNumber) -> Unfinished {
        let mut unfinished = Unfinished {
            windows: Vec::new(),
            sent: Vec::new(),
        };
        for sent in self
            .sends
            .borrow_mut()
            .take_all(|sent| sent.pair.number == pair)
        {
            match sent.work {
                Work::Reclaim(window, source) => unfinished.windows.push((window, source)),
                work => unfinished.sent.push(work),
            }
        }
        unfinished
    }

    /// A pair is destroyed: nothing of it is with the hardware.
    pub(crate) fn forget(&self, hardware: u32, pair: PairNumber, depth: u32) {
        // What it left in the queue takes room there.
        self.drain();
        self.pairs.borrow_mut().remove(&hardware);
        self.backlog
            .borrow_mut()
            .retain(|completion| completion.pair != pair);
        self.room.set(self.room.get() + depth);
    }

    /// Enters a work request; its number.
    pub(crate) fn enter(&self, sent: Sent) -> Result<u64, Sent> {
        self.sends.borrow_mut().enter(sent)
    }

    /// Takes out one that has ended, or could not be posted.
    pub(crate) fn withdraw(&self, number: u64) -> Option<Sent> {
        self.sends.borrow_mut().take(number)
    }

    fn receive(
        &self,
        head: Piece,
        head_len: usize,
        rest: Option<Piece>,
    ) -> Result<(), Failed<(Piece, Option<Piece>)>> {
        let domain = &self.domain;
        let is_ours = |piece: &Piece| piece.slab.is_of(domain);
        assert!(
            is_ours(&head)
                && rest.as_ref().is_none_or(is_ours)
                && (1..=head.len()).contains(&head_len),
            "pieces are of the rail's domain, and as long as is said"
        );
        let failed = |error, head, rest| {
            Err(Failed {
                error,
                back: (head, rest),
            })
        };
        let Some(post) = domain.ops.post_srq_recv else {
            let error = RdmaError::Unsupported {
                device: domain.device.clone(),
                what: "share receive buffers among connections",
            };
            return failed(error, head, rest);
        };
        let mut parts = [sge(&head, head_len), sge(&head, 0)];
        let mut count = 1;
        if let Some(rest) = &rest {
            parts[1] = sge(rest, rest.len());
            count = 2;
        }
        let entered = self.receives.borrow_mut().enter(Receive {
            head,
            head_len,
            rest,
        });
        let number = match entered {
            Ok(number) => number,
            Err(Receive { head, rest, .. }) => {
                let error = RdmaError::Full {
                    what: "the queue of receive buffers",
                    limit: self.limits.receives,
                };
                return failed(error, head, rest);
            }
        };
        let (mut request, mut bad) = (
            ibv_recv_wr {
                wr_id: number | RECEIVE,
                next: null_mut(),
                sg_list: parts.as_mut_ptr(),
                num_sge: count,
            },
            null_mut(),
        );
        // SAFETY: a valid queue; the request is copied; its memory is in the ledger until it completes.
        let returned = unsafe { post(self.srq.as_ptr(), &raw mut request, &raw mut bad) };
        let Err(error) = check("ibv_post_srq_recv", returned) else {
            return Ok(());
        };
        if bad.is_null() {
            // It was queued before it failed: the hardware has it, and gives it back in its time.
            return Ok(());
        }
        let Some(Receive { head, rest, .. }) = self.receives.borrow_mut().take(number) else {
            unreachable!("it was entered just now");
        };
        failed(error, head, rest)
    }

    /// Takes a burst from the hardware; whether there may be more.
    fn collect(&self, mut take: impl FnMut(Completion)) -> Result<bool, RdmaError> {
        let Some(poll) = self.domain.ops.poll_cq else {
            return Ok(false);
        };
        // Of a failed one a driver writes a few fields only.
        let mut found = [const { MaybeUninit::<ibv_wc>::zeroed() }; BURST];
        let burst = c_int::try_from(BURST).expect("invariant: a small constant");
        // SAFETY: a valid queue, and room for so many.
        let count = unsafe { poll(self.cq.as_ptr(), burst, found.as_mut_ptr().cast()) };
        let Ok(count) = usize::try_from(count) else {
            return Err(RdmaError::Broken {
                device: self.domain.device.clone(),
                what: "the completion queue",
            });
        };
        self.told.set(self.told.get() + count as u64);
        for found in &found[..count] {
            // SAFETY: zeroed, and the first `count` were written.
            let found = unsafe { found.assume_init_ref() };
            self.completions(found, &mut take);
        }
        Ok(count == BURST)
    }

    /// None for what a destroyed pair has left; of a send, also those of silent ones before it.
    fn completions(&self, found: &ibv_wc, take: &mut impl FnMut(Completion)) {
        let outcome = outcome(found);
        if found.wr_id & RECEIVE != 0 {
            let received = self.receives.borrow_mut().take(found.wr_id & !RECEIVE);
            let received = received.and_then(|it| self.received(found, it, outcome));
            return received.map_or((), take);
        }
        let Some(sent) = self.withdraw(found.wr_id) else {
            return;
        };
        let pair = sent.pair.clone();
        pair.ended(found.wr_id, |silent| {
            // What fails, or is flushed, is told of.
            if let Some(sent) = self.withdraw(silent) {
                take(self.completion(sent, Ok(())));
            }
        });
        take(self.completion(sent, outcome));
    }

    fn completion(&self, sent: Sent, outcome: Result<(), WorkError>) -> Completion {
        Completion {
            pair: sent.pair.number,
            token: sent.token,
            done: self.done(sent.work, outcome.is_ok()),
            outcome,
        }
    }

    fn received(
        &self,
        found: &ibv_wc,
        received: Receive,
        outcome: Result<(), WorkError>,
    ) -> Option<Completion> {
        let pair = self.pairs.borrow().get(&found.qp_num).cloned()?;
        let (len, room) = (found.byte_len as usize, received.room());
        let with = flags::IBV_WC_WITH_IMM.0 | flags::IBV_WC_WITH_INV.0;
        let is_plain =
            found.opcode == opcode::IBV_WC_RECV && found.wc_flags & with == 0 && len <= room;
        let outcome = match outcome {
            // Of what comes with a value, the length is not of this buffer; a key that the peer has voided would
            // be voided twice.
            Ok(()) if !is_plain => {
                pair.misbehaved.set(true);
                Err(WorkError::Unexpected)
            }
            outcome => outcome,
        };
        let len = if outcome.is_ok() { len } else { 0 };
        Some(Completion {
            pair: pair.number,
            token: 0,
            done: Done::Received {
                head: received.head,
                rest: received.rest,
                len,
            },
            outcome,
        })
    }

    fn done(&self, work: Work, is_good: bool) -> Done {
        match work {
            Work::Send(head, rest) => Done::Sent(head, rest),
            Work::Read(piece) => Done::Read(piece),
            Work::Write(source) => Done::Written(source),
            Work::Lend => Done::Lent,
            Work::Reclaim(window, source) => {
                if is_good {
                    self.windows.borrow_mut().push_back(window);
                } else if !window.free() {
                    // Its key may still be good: better lost than given to two.
                    std::mem::forget(source);
                    return Done::Lost;
                }
                Done::Reclaimed(source)
            }
        }
    }
}

/// The same of what is sent.
pub(crate) fn source_sge(source: &Source, len: usize) -> ibv_sge {
    ibv_sge {
        addr: source.address(),
        length: u32::try_from(len).expect("invariant: pieces are shorter than 4 GiB"),
        lkey: source.lkey(),
    }
}

/// A part of a piece, for the hardware.
pub(crate) fn sge(piece: &Piece, len: usize) -> ibv_sge {
    ibv_sge {
        addr: piece.address(),
        length: u32::try_from(len).expect("invariant: pieces are shorter than 4 GiB"),
        lkey: piece.lkey(),
    }
}

const fn outcome(found: &ibv_wc) -> Result<(), WorkError> {
    Err(match found.status {
        status::IBV_WC_SUCCESS => return Ok(()),
        status::IBV_WC_WR_FLUSH_ERR => WorkError::Flushed,
        status::IBV_WC_RETRY_EXC_ERR => WorkError::NoAnswer,
        status::IBV_WC_RNR_RETRY_EXC_ERR => WorkError::NoReceiver,
        status::IBV_WC_REM_ACCESS_ERR => WorkError::RemoteAccess,
        status::IBV_WC_LOC_LEN_ERR => WorkError::TooLong,
        other => WorkError::Other {
            status: other,
            vendor: found.vendor_err,
        },
    })
}

impl AsFd for Rail {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: a valid channel.
        let fd = unsafe { (*self.inner.channel.as_ptr()).fd };
        // SAFETY: open as long as the channel.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }
}

impl Drop for RailInner {
    fn drop(&mut self) {
        let api = self.domain.api;
        // SAFETY: its pairs hold the rail, so none is left.
        let srq = unsafe { (api.ibv_destroy_srq)(self.srq.as_ptr()) };
        // SAFETY: no pair and no receive queue uses it, and its events are acknowledged.
        unsafe { (api.ibv_destroy_cq)(self.cq.as_ptr()) };
        // SAFETY: its queue is gone.
        unsafe { (api.ibv_destroy_comp_channel)(self.channel.as_ptr()) };
        if srq != 0 {
            // The hardware may still write to them: better lost than used for something else.
            std::mem::forget(self.receives.take());
        }
    }
}

impl Default for Ledger<Receive> {
    fn default() -> Self {
        Self::new(0)
    }
}
