//! A connection: its queue pair.
//!
//! *Place*: made of an [`Id`] whose address is resolved, or that a request brought. *Owner*: whoever holds it;
//! lent memory holds it too. *Invariants*: no more is posted than the rail has promised; what is posted, or waits in a
//! chain to be, is in the rail's ledger until it ends or the queue pair is destroyed, before anything of it is freed. *On
//! failure*: a post gives back what was posted; a completion with an error means that the connection is over.
//!
//! Not all of a [`chain`](crate::chain) is signalled. Who says then when the hardware has let go of a silent one's memory is
//! proved there.

use crate::chain::{Chain, INLINE_LEN, Order, PairNumber, PairState, Tell};
use crate::error::{Failed, RdmaError, check};
use crate::id::{ConnectParams, Id, IdKey};
use crate::rail::{Rail, RailInner, Sent, Work, sge, source_sge};
use crate::remote::RemoteMemory;
use crate::slab::{Piece, Shared, Source};
use crate::window::{Access, Lent, Window};
use libc::c_int;
use rdma_sys::{
    bind_mw_t, ibv_mw_bind_info, ibv_qp, ibv_qp_attr, ibv_qp_attr_mask, ibv_qp_cap,
    ibv_qp_init_attr, ibv_qp_state, ibv_qp_type, ibv_send_wr, ibv_sge, ibv_wr_opcode as opcode,
};
use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::ptr::{NonNull, null_mut};
use std::rc::Rc;

/// A connection.
pub struct Pair {
    pub(crate) inner: Rc<PairInner>,
}

pub(crate) struct PairInner {
    raw: NonNull<ibv_qp>,
    hardware: u32,
    state: Rc<PairState>,
    depth: u32,
    inline_max: usize,
    chain: RefCell<Chain>,
    /// Lent, and nobody waits for it any more.
    abandoned: RefCell<Vec<(Window, Source)>>,
    rail: Rc<RailInner>,
    /// Last: its queue pair is destroyed before it.
    id: Id,
}

impl Pair {
    /// The queue pair of `id`, for `depth` work requests at a time.
    ///
    /// # Errors
    /// When the rail has promised all it has, or the connection goes over another device; the id comes back.
    pub fn new(rail: &Rail, id: Id, depth: u32) -> Result<Self, Failed<Id>> {
        match Self::try_new(&rail.inner, &id, depth) {
            Ok((raw, hardware, inline_max)) => Ok(Self {
                inner: Rc::new(PairInner {
                    raw,
                    hardware,
                    state: rail.inner.register(hardware),
                    depth,
                    inline_max,
                    chain: RefCell::new(Chain::new(depth)),
                    abandoned: RefCell::default(),
                    rail: rail.inner.clone(),
                    id,
                }),
            }),
            Err(error) => Err(Failed { error, back: id }),
        }
    }

    fn try_new(
        rail: &Rc<RailInner>,
        id: &Id,
        depth: u32,
    ) -> Result<(NonNull<ibv_qp>, u32, usize), RdmaError> {
        let domain = &rail.domain;
        // SAFETY: a valid id.
        let context = unsafe { (*id.raw().as_ptr()).verbs };
        if context != domain.context.as_ptr() {
            return Err(RdmaError::OtherDevice {
                expected: domain.device.clone(),
                found: NonNull::new(context).map_or_else(
                    || "none (its address is not resolved)".into(),
                    |context| crate::device::name_of(domain.api, context),
                ),
            });
        }
        rail.promise(depth)?;
        let mut attributes = ibv_qp_init_attr {
            qp_context: null_mut(),
            send_cq: rail.cq.as_ptr(),
            recv_cq: rail.cq.as_ptr(),
            srq: rail.srq.as_ptr(),
            cap: ibv_qp_cap {
                max_send_wr: depth,
                max_recv_wr: 0,
                max_send_sge: 2,
                max_recv_sge: 0,
                max_inline_data: INLINE_LEN,
            },
            qp_type: ibv_qp_type::IBV_QPT_RC,
            // Each says for itself.
            sq_sig_all: 0,
        };
        // SAFETY: a valid id and domain, of one device; the queues are valid and live as long as the pair.
        let returned = unsafe {
            (rail.api().rdma_create_qp)(id.raw().as_ptr(), domain.raw.as_ptr(), &raw mut attributes)
        };
        if let Err(error) = check("rdma_create_qp", returned) {
            rail.promise_back(depth);
            return Err(error);
        }
        // SAFETY: a valid id, which has a queue pair now.
        let raw = unsafe { (*id.raw().as_ptr()).qp };
        let raw = NonNull::new(raw).expect("invariant: rdma_create_qp succeeded");
        // SAFETY: a valid queue pair.
        let number = unsafe { (*raw.as_ptr()).qp_num };
        let inline_max = INLINE_LEN.min(attributes.cap.max_inline_data) as usize;
        Ok((raw, number, inline_max))
    }

    /// Tells its completions.
    #[must_use]
    pub fn number(&self) -> PairNumber {
        self.inner.state.number
    }

    /// The device's port that it goes over; 0 if the connection manager does not tell.
    #[must_use]
    pub fn port(&self) -> u8 {
        // SAFETY: a valid id.
        unsafe { (*self.inner.id.raw().as_ptr()).port_num }
    }

    /// Tells its events.
    #[must_use]
    pub fn key(&self) -> IdKey {
        self.inner.id.key()
    }

    /// Bytes that [`send_inline`](Self::send_inline) takes.
    #[must_use]
    pub fn inline_max(&self) -> usize {
        self.inner.inline_max
    }

    /// Work requests that can be posted now.
    #[must_use]
    pub fn room(&self) -> u32 {
        self.inner.room()
    }

    /// From here on what is given is only gathered, to be posted by one call: [`post`](Self::post), or before that when
    /// there is so much of it as one call takes. What is gathered counts as under way, and its memory is as far away.
    pub fn hold(&self) {
        let mut chain = self.inner.chain.borrow_mut();
        (chain.is_held, chain.calls) = (true, 0);
    }

    /// Posts what was gathered; how many calls of the driver all of it took. From here on each is posted at once again.
    ///
    /// Not of all of it the hardware tells, but each has its completion, in order.
    ///
    /// # Errors
    /// When the driver refuses one of them. It and those behind it are not with the hardware: their memory is back where it
    /// came from, but what was to be reclaimed stays lent, and there are no completions of them. What is lent among them is of
    /// no use, and comes back with the pair, as does what was posted before them and is silent: drop the connection.
    pub fn post(&self, tell: Tell) -> Result<usize, RdmaError> {
        let mut chain = self.inner.chain.borrow_mut();
        chain.is_held = false;
        self.inner.post_gathered(&mut chain, tell)?;
        Ok(chain.calls)
    }

    /// Work requests whose memory comes back only with one that is posted later.
    #[must_use]
    pub fn silent(&self) -> u32 {
        self.inner.chain.borrow().silent()
    }

    /// Asks the peer for a connection; its route is resolved. Then comes `Established`, or why not.
    ///
    /// # Errors
    /// When it cannot even be tried.
    pub fn connect(&self, params: &ConnectParams) -> Result<(), RdmaError> {
        self.inner.id.connect(params)
    }

    /// Accepts the request that brought its id. Then comes `Established`.
    ///
    /// # Errors
    /// When the peer has gone.
    pub fn accept(&self, params: &ConnectParams) -> Result<(), RdmaError> {
        self.inner.id.accept(params)
    }

    /// Ends the connection: what is under way is flushed. The peer gets `Disconnected`; once it disconnects as
    /// well, or its time for that is over, so does this side.
    ///
    /// # Errors
    /// When it is not connected.
    pub fn disconnect(&self) -> Result<(), RdmaError> {
        self.inner.id.disconnect()
    }

    /// Sends the first `len` bytes of `piece`.
    ///
    /// # Errors
    /// When there is no room, or the driver refuses: the piece comes back.
    pub fn send(&self, piece: Piece, len: usize, token: u64) -> Result<(), Failed<Piece>> {
        let sent = self.send_both(piece, len, None, token);
        sent.map_err(|failed| Failed {
            error: failed.error,
            back: failed.back.0,
        })
    }

    /// Sends the first bytes of `head`, and behind them those of `rest`.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Panics
    /// When a piece is shorter than is to be sent of it, or is of another domain.
    pub fn send_both(
        &self,
        head: Piece,
        len: usize,
        rest: Option<(Source, usize)>,
        token: u64,
    ) -> Result<(), Failed<(Piece, Option<Source>)>> {
        let mut order = Order::new(opcode::IBV_WR_SEND, self.part(&head, len));
        let rest = rest.map(|(rest, len)| {
            order.parts[1] = self.source_part(&rest, len);
            order.count = 2;
            rest
        });
        let posted = self.add(order, Work::Send(Some(head), rest), token);
        posted.map_err(|(error, work)| match work {
            Work::Send(Some(head), rest) => Failed {
                error,
                back: (head, rest),
            },
            _ => unreachable!("what was posted comes back"),
        })
    }

    /// Sends a few bytes that are copied at once.
    ///
    /// # Errors
    /// When there are more than [`inline_max`](Self::inline_max), there is no room, or the driver refuses.
    pub fn send_inline(&self, bytes: &[u8], token: u64) -> Result<(), RdmaError> {
        if bytes.len() > self.inner.inline_max {
            return Err(RdmaError::TooMuch {
                what: "the length of an inline send",
                value: bytes.len(),
                limit: self.inner.inline_max,
            });
        }
        let order = Order::inline(bytes);
        let posted = self.add(order, Work::Send(None, None), token);
        posted.map_err(|(error, _)| error)
    }

    /// Reads `from`, memory of the peer, into `piece`.
    ///
    /// # Errors
    /// As [`send`](Self::send), and when `from` is longer than the piece.
    pub fn read(&self, piece: Piece, from: RemoteMemory, token: u64) -> Result<(), Failed<Piece>> {
        // The length may be the peer's word.
        if from.len as usize > piece.len() {
            let error = too_long(from, piece.len());
            return Err(Failed { error, back: piece });
        }
        let mut order = Order::new(
            opcode::IBV_WR_RDMA_READ,
            self.part(&piece, from.len as usize),
        );
        order.remote = Some(from);
        let posted = self.add(order, Work::Read(piece), token);
        posted.map_err(|(error, work)| match work {
            Work::Read(piece) => Failed { error, back: piece },
            _ => unreachable!("what was posted comes back"),
        })
    }

    /// Writes as much of `source` as `to`, memory of the peer, takes.
    ///
    /// # Errors
    /// As [`send`](Self::send), and when `to` is longer than what there is.
    pub fn write(
        &self,
        source: impl Into<Source>,
        to: RemoteMemory,
        token: u64,
    ) -> Result<(), Failed<Source>> {
        let source: Source = source.into();
        // The length may be the peer's word.
        if to.len as usize > source.len() {
            let error = too_long(to, source.len());
            return Err(Failed {
                error,
                back: source,
            });
        }
        let mut order = Order::new(
            opcode::IBV_WR_RDMA_WRITE,
            self.source_part(&source, to.len as usize),
        );
        order.remote = Some(to);
        let posted = self.add(order, Work::Write(source), token);
        posted.map_err(|(error, work)| match work {
            Work::Write(back) => Failed { error, back },
            _ => unreachable!("what was posted comes back"),
        })
    }

    /// Whether it may send from there: a piece of another device, or of a port that is gone, it may not.
    #[must_use]
    pub fn may_send(&self, shared: &Shared) -> bool {
        Source::Shared(shared.clone()).is_of(&self.inner.rail.domain)
    }

    /// Lets the peer touch the first `len` bytes of `source`. What is sent after this may carry the key: the
    /// hardware works on one after the other.
    ///
    /// # Errors
    /// When the device has no window left, or as [`send`](Self::send).
    ///
    /// # Panics
    /// When `len` is 0 or longer than what there is, it is of another domain, or others look at it and `access` is for
    /// writing.
    pub fn lend(
        &self,
        source: impl Into<Source>,
        len: usize,
        access: Access,
        token: u64,
    ) -> Result<Lent, Failed<Source>> {
        let source: Source = source.into();
        assert!(len > 0, "nothing cannot be lent");
        assert!(
            access == Access::Read || source.may_change(),
            "what others look at does not change"
        );
        let rail = &self.inner.rail;
        let window = rail.windows.borrow_mut().pop_front();
        let window = window.map_or_else(|| Window::new(&rail.domain), Ok);
        let mut window = match window {
            Ok(window) => window,
            Err(error) => {
                return Err(Failed {
                    error,
                    back: source,
                });
            }
        };
        let part = self.source_part(&source, len);
        let remote = RemoteMemory {
            address: part.addr,
            key: window.next_key(),
            len: part.length,
        };
        let order = Order::bind(bind_mw_t {
            mw: window.raw(),
            rkey: remote.key,
            bind_info: ibv_mw_bind_info {
                mr: source.mr().as_ptr(),
                addr: part.addr,
                length: part.length.into(),
                mw_access_flags: access.flags(),
            },
        });
        match self.add(order, Work::Lend, token) {
            Ok(()) => {
                window.given();
                Ok(Lent {
                    what: Some((window, source)),
                    remote,
                    pair: self.inner.clone(),
                })
            }
            Err((error, _)) => {
                rail.windows.borrow_mut().push_front(window);
                Err(Failed {
                    error,
                    back: source,
                })
            }
        }
    }

    /// Voids the key of what was lent; its completion gives back the piece.
    ///
    /// # Errors
    /// As [`send`](Self::send), or when the peer has misbehaved; it stays lent, and comes back when the pair goes.
    ///
    /// # Panics
    /// When it was lent by another pair.
    pub fn reclaim(&self, mut lent: Lent, token: u64) -> Result<(), Failed<Box<Lent>>> {
        assert!(Rc::ptr_eq(&lent.pair, &self.inner), "lent by this pair");
        if self.inner.state.misbehaved.get() {
            // It may have voided the key, and a second time crashes some drivers.
            let error = RdmaError::Misbehaved;
            let back = Box::new(lent);
            return Err(Failed { error, back });
        }
        let Some((window, source)) = lent.what.take() else {
            unreachable!("only this takes it, with the lent");
        };
        let order = Order::void(window.key());
        let posted = self.add(order, Work::Reclaim(window, source), token);
        posted.map_err(|(error, work)| {
            if let Work::Reclaim(window, source) = work {
                lent.what = Some((window, source));
            }
            Failed {
                error,
                back: Box::new(lent),
            }
        })
    }

    fn part(&self, piece: &Piece, len: usize) -> ibv_sge {
        assert!(
            piece.slab.is_of(&self.inner.rail.domain) && len <= piece.len(),
            "pieces are of the rail's domain, and as long as is said"
        );
        sge(piece, len)
    }

    fn source_part(&self, source: &Source, len: usize) -> ibv_sge {
        assert!(
            source.is_of(&self.inner.rail.domain) && len <= source.len(),
            "what is sent is of the rail's domain, and as long as is said"
        );
        source_sge(source, len)
    }

    /// Enters it, and posts it at once unless what is given is gathered.
    fn add(&self, mut order: Order, work: Work, token: u64) -> Result<(), (RdmaError, Work)> {
        let inner = &self.inner;
        let full = || RdmaError::Full {
            what: "the send queue",
            limit: inner.depth,
        };
        let mut chain = inner.chain.borrow_mut();
        if inner.depth <= inner.state.under_way() + chain.len() {
            return Err((full(), work));
        }
        if chain.is_full()
            && let Err(error) = inner.post_gathered(&mut chain, Tell::Last)
        {
            return Err((error, work));
        }
        order.is_waited_for = matches!(work, Work::Read(_) | Work::Reclaim(..));
        let sent = Sent {
            pair: inner.state.clone(),
            token,
            work,
        };
        match inner.rail.enter(sent) {
            Ok(number) => chain.add(number, order),
            Err(sent) => return Err((full(), sent.work)),
        }
        if chain.is_held {
            return Ok(());
        }
        inner
            .post(&mut chain, Tell::Last)
            .map_err(|(error, mut back)| match back.pop() {
                Some(work) => (error, work),
                None => unreachable!("it is the only one of the chain"),
            })
    }
}

fn too_long(remote: RemoteMemory, limit: usize) -> RdmaError {
    RdmaError::TooMuch {
        what: "the length of the peer's memory",
        value: remote.len as usize,
        limit,
    }
}

impl PairInner {
    fn room(&self) -> u32 {
        self.depth - self.state.under_way() - self.chain.borrow().len()
    }

    /// Posts what was gathered, for whoever does not take back what the driver refuses.
    fn post_gathered(&self, chain: &mut Chain, tell: Tell) -> Result<(), RdmaError> {
        let posted = self.post(chain, tell);
        posted.map_err(|(error, back)| {
            for work in back {
                // Its key is good until its window is freed, with the pair.
                if let Work::Reclaim(window, source) = work {
                    self.abandon((window, source));
                }
            }
            error
        })
    }

    /// Posts the chain. When the driver refuses one, it and those behind it come back: the hardware does not have them.
    fn post(&self, chain: &mut Chain, tell: Tell) -> Result<(), (RdmaError, Vec<Work>)> {
        if chain.len() == 0 {
            return Ok(());
        }
        let error = match self.hand_over(chain, tell) {
            Err(error) if chain.len() > 0 => error,
            _ => return Ok(()),
        };
        let withdrawn = chain.withdraw().filter_map(|it| self.rail.withdraw(it));
        Err((error, withdrawn.map(|sent| sent.work).collect()))
    }

    /// Gives the chain to the driver; what that refuses is still in it.
    fn hand_over(&self, chain: &mut Chain, tell: Tell) -> Result<(), RdmaError> {
        let domain = &self.rail.domain;
        let Some(post) = domain.ops.post_send else {
            return Err(RdmaError::Unsupported {
                device: domain.device.clone(),
                what: "send",
            });
        };
        let (first, mut bad) = (chain.linked(tell), null_mut::<ibv_send_wr>());
        // SAFETY: a valid queue pair; the requests are linked, and live in the chain until the call has copied them, inline
        // bytes with them; other memory is in the ledger (of a bind: in the `Lent`) until they end.
        let returned = unsafe { post(self.raw.as_ptr(), first, &raw mut bad) };
        let outcome = check("ibv_post_send", returned);
        let posted = match &outcome {
            Err(_) if !bad.is_null() => chain.place_of(bad),
            // With an error that names none, all were queued before it (rxe, before the connection is there): the hardware
            // has them.
            _ => chain.len() as usize,
        };
        chain.posted(posted, &self.state);
        outcome
    }

    /// Nobody waits for it any more: it goes with the queue pair.
    pub(crate) fn abandon(&self, lent: (Window, Source)) {
        self.abandoned.borrow_mut().push(lent);
    }

    /// Takes and does nothing more.
    fn stop(&self) {
        let mut state = MaybeUninit::<ibv_qp_attr>::zeroed();
        // SAFETY: within the structure; nothing else of it is read.
        unsafe { (*state.as_mut_ptr()).qp_state = ibv_qp_state::IBV_QPS_ERR };
        let mask = c_int::try_from(ibv_qp_attr_mask::IBV_QP_STATE.0).expect("invariant: one bit");
        // It fails only where the device is gone, and with it all that it could do.
        // SAFETY: a valid queue pair; of the structure only the state is read.
        unsafe { (self.rail.api().ibv_modify_qp)(self.raw.as_ptr(), state.as_mut_ptr(), mask) };
    }

    /// Destroys the queue pair; whether that is certain.
    fn destroy(&self) -> bool {
        // SAFETY: a valid queue pair, and the last use of it.
        let returned = unsafe { (self.rail.api().ibv_destroy_qp)(self.raw.as_ptr()) };
        // SAFETY: a valid id; it must not know what is gone.
        unsafe { (*self.id.raw().as_ptr()).qp = null_mut() };
        returned == 0
    }
}

impl Drop for Pair {
    /// Ends the connection, also while something is lent.
    fn drop(&mut self) {
        self.inner.stop();
    }
}

impl Drop for PairInner {
    fn drop(&mut self) {
        // Before its windows are freed, which must be before it is destroyed: each holds the queue pair (rxe waits
        // 50 s for it).
        self.stop();
        let unfinished = self.rail.withdraw_all(self.state.number);
        let lent = self.abandoned.take().into_iter().chain(unfinished.windows);
        let (windows, pieces): (Vec<Window>, Vec<Source>) = lent.unzip();
        let mut is_over = true;
        for window in windows {
            is_over &= window.free();
        }
        self.rail.drain();
        is_over &= self.destroy();
        if is_over {
            // From here on the hardware touches nothing of it.
            drop((pieces, unfinished.sent));
        } else {
            // It may: better lost than given to two.
            std::mem::forget((pieces, unfinished.sent));
        }
        self.rail
            .forget(self.hardware, self.state.number, self.depth);
    }
}
