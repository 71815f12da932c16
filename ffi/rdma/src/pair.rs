//! A connection: its queue pair.
//!
//! *Place*: made of an [`Id`] whose address is resolved, or that a request brought. *Owner*: whoever holds it;
//! lent memory holds it too. *Invariants*: no more is posted than the rail has promised; what is posted is in
//! the rail's ledger until it completes or the queue pair is destroyed, before anything of it is freed. *On
//! failure*: a post gives back what was posted; a completion with an error means that the connection is over.

use crate::error::{Failed, RdmaError, check};
use crate::id::{ConnectParams, Id, IdKey};
use crate::rail::{Rail, RailInner, Sent, Work, sge, source_sge};
use crate::remote::RemoteMemory;
use crate::slab::{Piece, Shared, Source};
use crate::window::{Access, Lent, Window};
use libc::c_int;
use rdma_sys::{
    bind_mw_t, bind_mw_tso_union_t, ibv_mw_bind_info, ibv_qp, ibv_qp_attr, ibv_qp_attr_mask,
    ibv_qp_cap, ibv_qp_init_attr, ibv_qp_state, ibv_qp_type, ibv_send_flags, ibv_send_wr, ibv_sge,
    ibv_wr_opcode as opcode, imm_data_invalidated_rkey_union_t, qp_type_t, rdma_t, wr_t, xrc_t,
};
use std::cell::{Cell, RefCell};
use std::mem::MaybeUninit;
use std::ptr::{NonNull, null_mut};
use std::rc::Rc;

/// Bytes that a send may carry without registered memory; what devices commonly take.
const INLINE_MAX: u32 = 64;

/// A connection.
pub struct Pair {
    pub(crate) inner: Rc<PairInner>,
}

/// Tells whose a completion is; never used twice by a rail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PairNumber(pub(crate) u64);

/// What a pair shares with its rail.
pub(crate) struct PairState {
    pub(crate) number: PairNumber,
    /// The peer has sent what the protocol does not have.
    pub(crate) misbehaved: Cell<bool>,
    under_way: Cell<u32>,
}

impl PairState {
    pub(crate) const fn new(number: PairNumber) -> Self {
        Self {
            number,
            misbehaved: Cell::new(false),
            under_way: Cell::new(0),
        }
    }

    /// A work request has ended.
    pub(crate) fn ended(&self) {
        self.under_way.set(self.under_way.get().saturating_sub(1));
    }
}

pub(crate) struct PairInner {
    raw: NonNull<ibv_qp>,
    hardware: u32,
    state: Rc<PairState>,
    depth: u32,
    inline_max: usize,
    /// Lent, and nobody waits for it any more.
    abandoned: RefCell<Vec<(Window, Source)>>,
    rail: Rc<RailInner>,
    /// Last: its queue pair is destroyed before it.
    id: Id,
}

/// A work request without its memory.
struct Order {
    opcode: u32,
    parts: [ibv_sge; 2],
    count: i32,
    remote: Option<RemoteMemory>,
    flags: u32,
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
                max_inline_data: INLINE_MAX,
            },
            qp_type: ibv_qp_type::IBV_QPT_RC,
            sq_sig_all: 1,
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
        Ok((raw, number, attributes.cap.max_inline_data as usize))
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
        self.inner.depth - self.inner.state.under_way.get()
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
        let posted = self.post(order, Work::Send(Some(head), rest), token);
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
        let part = ibv_sge {
            addr: bytes.as_ptr().expose_provenance() as u64,
            length: u32::try_from(bytes.len()).expect("invariant: checked above"),
            lkey: 0,
        };
        let mut order = Order::new(opcode::IBV_WR_SEND, part);
        order.flags |= ibv_send_flags::IBV_SEND_INLINE.0;
        let posted = self.post(order, Work::Send(None, None), token);
        posted.map_err(|(error, _)| error)
    }

    /// Reads `from`, memory of the peer, into `piece`.
    ///
    /// # Errors
    /// As [`send`](Self::send), and when `from` is longer than the piece.
    pub fn read(&self, piece: Piece, from: RemoteMemory, token: u64) -> Result<(), Failed<Piece>> {
        // The length may be the peer's word.
        if from.len as usize > piece.len() {
            let error = too_long(from, &piece);
            return Err(Failed { error, back: piece });
        }
        let mut order = Order::new(
            opcode::IBV_WR_RDMA_READ,
            self.part(&piece, from.len as usize),
        );
        order.remote = Some(from);
        let posted = self.post(order, Work::Read(piece), token);
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
            let error = too_long(to, &source);
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
        let posted = self.post(order, Work::Write(source), token);
        posted.map_err(|(error, work)| match work {
            Work::Write(back) => Failed { error, back },
            _ => unreachable!("what was posted comes back"),
        })
    }

    /// Whether it may send from there: a piece of another device, or of a port that is gone, it may not.
    #[must_use]
    pub fn may_send(&self, shared: &Shared) -> bool {
        Source::Shared(shared.clone())
            .slab()
            .is_of(&self.inner.rail.domain)
    }

    /// Lets the peer touch the first `len` bytes of `source`. What is sent after this may carry the key: the
    /// hardware works on one after the other.
    ///
    /// # Errors
    /// When the device has no window left, or as [`send`](Self::send).
    ///
    /// # Panics
    /// When `len` is 0 or longer than what there is, it is of another domain, or it is shared and `access` is for
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
            access == Access::Read || matches!(source, Source::Own(_)),
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
        let mut order = Order::new(opcode::IBV_WR_BIND_MW, part);
        order.count = 0;
        let bind = bind_mw_t {
            mw: window.raw(),
            rkey: remote.key,
            bind_info: ibv_mw_bind_info {
                mr: source.slab().mr().as_ptr(),
                addr: part.addr,
                length: part.length.into(),
                mw_access_flags: access.flags(),
            },
        };
        match self.post_with(order, Work::Lend, token, Some(bind), None) {
            Ok(()) => {
                window.posted();
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
        let key = window.key();
        let mut order = Order::new(opcode::IBV_WR_LOCAL_INV, self.source_part(&source, 0));
        order.count = 0;
        // What the peer had read or written of it is behind us: RDMA of its own, not of this queue.
        order.flags |= ibv_send_flags::IBV_SEND_FENCE.0;
        let posted = self.post_with(order, Work::Reclaim(window, source), token, None, Some(key));
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
            source.slab().is_of(&self.inner.rail.domain) && len <= source.len(),
            "what is sent is of the rail's domain, and as long as is said"
        );
        source_sge(source, len)
    }

    fn post(&self, order: Order, work: Work, token: u64) -> Result<(), (RdmaError, Work)> {
        self.post_with(order, work, token, None, None)
    }

    fn post_with(
        &self,
        mut order: Order,
        work: Work,
        token: u64,
        bind: Option<bind_mw_t>,
        void: Option<u32>,
    ) -> Result<(), (RdmaError, Work)> {
        let inner = &self.inner;
        let Some(post) = inner.rail.domain.ops.post_send else {
            let error = RdmaError::Unsupported {
                device: inner.rail.domain.device.clone(),
                what: "send",
            };
            return Err((error, work));
        };
        let full = || RdmaError::Full {
            what: "the send queue",
            limit: inner.depth,
        };
        if self.room() == 0 {
            return Err((full(), work));
        }
        let sent = Sent {
            pair: inner.state.clone(),
            token,
            work,
        };
        let number = match inner.rail.enter(sent) {
            Ok(number) => number,
            Err(sent) => return Err((full(), sent.work)),
        };
        let mut request = order.request(number, bind, void);
        let mut bad = null_mut();
        // SAFETY: a valid queue pair; the request is copied, inline bytes with it; other memory is in the ledger
        // (of a bind: in the `Lent`) until it completes.
        let returned = unsafe { post(inner.raw.as_ptr(), &raw mut request, &raw mut bad) };
        let under_way = &inner.state.under_way;
        match check("ibv_post_send", returned) {
            Ok(()) => {
                under_way.set(under_way.get() + 1);
                Ok(())
            }
            // It was queued before it failed (rxe, before the connection is there): the hardware has it.
            Err(_) if bad.is_null() => {
                under_way.set(under_way.get() + 1);
                Ok(())
            }
            Err(error) => match inner.rail.withdraw(number) {
                Some(sent) => Err((error, sent.work)),
                None => unreachable!("it was entered just now"),
            },
        }
    }
}

fn too_long(remote: RemoteMemory, piece: &[u8]) -> RdmaError {
    RdmaError::TooMuch {
        what: "the length of the peer's memory",
        value: remote.len as usize,
        limit: piece.len(),
    }
}

impl Order {
    fn new(opcode: u32, part: ibv_sge) -> Self {
        Self {
            opcode,
            parts: [part, part],
            count: 1,
            remote: None,
            flags: ibv_send_flags::IBV_SEND_SIGNALED.0,
        }
    }

    /// As C has it; it points to our parts.
    fn request(&mut self, number: u64, bind: Option<bind_mw_t>, void: Option<u32>) -> ibv_send_wr {
        let remote = self
            .remote
            .map_or((0, 0), |memory| (memory.address, memory.key));
        ibv_send_wr {
            wr_id: number,
            next: null_mut(),
            sg_list: self.parts.as_mut_ptr(),
            num_sge: self.count,
            opcode: self.opcode,
            send_flags: self.flags,
            imm_data_invalidated_rkey_union: imm_data_invalidated_rkey_union_t {
                invalidated_rkey: void.unwrap_or(0),
            },
            wr: wr_t {
                rdma: rdma_t {
                    remote_addr: remote.0,
                    rkey: remote.1,
                },
            },
            qp_type: qp_type_t {
                xrc: xrc_t { remote_srqn: 0 },
            },
            bind_mw_tso_union: bind_mw_tso_union_t {
                bind_mw: bind.unwrap_or(bind_mw_t {
                    mw: null_mut(),
                    rkey: 0,
                    bind_info: ibv_mw_bind_info {
                        mr: null_mut(),
                        addr: 0,
                        length: 0,
                        mw_access_flags: 0,
                    },
                }),
            },
        }
    }
}

impl PairInner {
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
