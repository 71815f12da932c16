//! Work requests that one call posts, and which of them the hardware tells of.
//!
//! *Place*: between a [`Pair`](crate::Pair) and its queue. *Owner*: a pair has one chain; what is behind it, with the
//! hardware, is listed in the [`PairState`] that the pair shares with its rail.
//!
//! *Invariants*
//! 1. A chain is at most [`CHAIN_MAX`] long, and never are more than a quarter of the queue silent in a row, across calls: so
//!    the queue never fills with silent ones. Unless whoever posts does without ([`Tell::Later`]), the last of each call is
//!    signalled, so that its memory comes back although nothing follows.
//! 2. Memory of a silent one is out of reach until a later one of the same queue completes. A send queue completes in
//!    the order in which it was posted, and whatever fails or is flushed is told of, signalled or not. So when the hardware
//!    tells of one, all before it have ended, those that it did not tell of without an error, and it touches nothing of
//!    theirs any more. They come out of the ledger then, and not before; or when the queue pair is destroyed.
//! 3. That order is not taken on trust: a signalled one that was not told of yet keeps all that is behind it away.
//!
//! *On failure*: what the driver refuses, and all behind it, comes out of the ledger: the hardware does not have it.

use crate::remote::RemoteMemory;
use rdma_sys::{
    bind_mw_t, bind_mw_tso_union_t, ibv_mw, ibv_mw_bind_info, ibv_send_flags, ibv_send_wr, ibv_sge,
    ibv_wr_opcode as opcode, imm_data_invalidated_rkey_union_t, qp_type_t, rdma_t, wr_t, xrc_t,
};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ptr::{NonNull, null_mut};

/// Work requests that one call posts.
const CHAIN_MAX: usize = 32;
/// Silent ones between two that are told of: half a chain, so that memory of a long one comes back while it goes out.
const SILENT_MAX: u32 = 16;
/// Bytes that a send may carry without registered memory; what devices commonly take.
pub(crate) const INLINE_LEN: u32 = 64;
const INLINE_MAX: usize = INLINE_LEN as usize;

/// Tells whose a completion is; never used twice by a rail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PairNumber(pub(crate) u64);

/// Which of the work requests of one call the hardware is to tell of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tell {
    /// The last, and with it of all.
    Last,
    /// Some, now and then: memory of the others comes back with one that is posted later, or with the end of the pair.
    Later,
}

/// What a pair shares with its rail.
pub(crate) struct PairState {
    pub(crate) number: PairNumber,
    /// The peer has sent what the protocol does not have.
    pub(crate) misbehaved: Cell<bool>,
    /// With the hardware, in the order in which they were posted.
    posted: RefCell<VecDeque<Posted>>,
}

/// A work request that is with the hardware.
#[derive(Clone, Copy)]
struct Posted {
    number: u64,
    is_signalled: bool,
}

impl PairState {
    pub(crate) fn new(number: PairNumber) -> Self {
        Self {
            number,
            misbehaved: Cell::new(false),
            posted: RefCell::default(),
        }
    }

    /// Work requests that are with the hardware.
    pub(crate) fn under_way(&self) -> u32 {
        short(self.posted.borrow().len())
    }

    /// The hardware tells that one has ended: `silent` gets those that have ended before it and are not told of.
    pub(crate) fn ended(&self, number: u64, mut silent: impl FnMut(u64)) {
        let mut posted = self.posted.borrow_mut();
        let Some(at) = posted.iter().position(|it| it.number == number) else {
            return;
        };
        if posted.iter().take(at).any(|it| it.is_signalled) {
            // Out of order: what is before it waits for its own turn.
            posted.remove(at);
            return;
        }
        posted.drain(..at).for_each(|it| silent(it.number));
        posted.pop_front();
    }
}

/// Work requests that wait to be posted by one call.
pub(crate) struct Chain {
    orders: VecDeque<Order>,
    /// The same as C has them, made anew for each call.
    requests: Vec<ibv_send_wr>,
    /// What is added waits for more.
    pub(crate) is_held: bool,
    /// Calls of the driver since it is held.
    pub(crate) calls: usize,
    /// Silent ones behind the last that is told of, and how many those may be.
    silent: u32,
    silent_max: u32,
}

impl Chain {
    /// For a queue of `depth`.
    pub(crate) fn new(depth: u32) -> Self {
        Self {
            orders: VecDeque::new(),
            requests: Vec::new(),
            is_held: false,
            calls: 0,
            silent: 0,
            silent_max: SILENT_MAX.min(depth / 4),
        }
    }

    /// Silent ones that nothing is behind.
    pub(crate) const fn silent(&self) -> u32 {
        self.silent
    }

    pub(crate) fn len(&self) -> u32 {
        short(self.orders.len())
    }

    pub(crate) fn is_full(&self) -> bool {
        self.orders.len() >= CHAIN_MAX
    }

    pub(crate) fn add(&mut self, number: u64, mut order: Order) {
        order.number = number;
        self.orders.push_back(order);
    }

    /// Links them, and says of which the hardware is to tell; the first, for the driver. Valid until the chain changes.
    pub(crate) fn linked(&mut self, tell: Tell) -> *mut ibv_send_wr {
        self.calls += 1;
        let last = self.orders.len().saturating_sub(1);
        for (at, order) in self.orders.iter_mut().enumerate() {
            let is_due = self.silent == self.silent_max || (at == last && tell == Tell::Last);
            order.is_signalled = order.is_waited_for || is_due;
            self.silent = if order.is_signalled {
                0
            } else {
                self.silent + 1
            };
        }
        self.requests.clear();
        let requests = self.orders.iter_mut().map(Order::request);
        self.requests.extend(requests);
        let mut next: *mut ibv_send_wr = null_mut();
        for request in self.requests.iter_mut().rev() {
            request.next = next;
            next = request;
        }
        next
    }

    /// Where the driver has stopped; at the first one if it names none of ours.
    pub(crate) fn place_of(&self, bad: *const ibv_send_wr) -> usize {
        let place = self.requests.iter().position(|it| std::ptr::eq(it, bad));
        place.unwrap_or(0)
    }

    /// The first `count` are with the hardware.
    pub(crate) fn posted(&mut self, count: usize, state: &PairState) {
        let mut posted = state.posted.borrow_mut();
        for order in self.orders.drain(..count) {
            posted.push_back(Posted {
                number: order.number,
                is_signalled: order.is_signalled,
            });
            if let Some(bind) = &order.bind
                && let Some(window) = NonNull::new(bind.mw)
            {
                is_bound(window, bind.rkey);
            }
        }
    }

    /// Takes out those that are left.
    pub(crate) fn withdraw(&mut self) -> impl Iterator<Item = u64> {
        self.orders.drain(..).map(|order| order.number)
    }
}

/// A bind under that key was posted. Some drivers (rxe) take the window's present key from here at the next one.
fn is_bound(window: NonNull<ibv_mw>, key: u32) {
    // SAFETY: a window whose bind waits in a chain is in its `Lent`, or in the ledger with its reclaim, or abandoned to the
    // pair: neither frees it before the pair's chain is gone, or what is behind the bind has ended. Drivers read the field
    // only while they post, on this thread.
    unsafe { (*window.as_ptr()).rkey = key };
}

/// A work request without its memory.
pub(crate) struct Order {
    number: u64,
    opcode: u32,
    pub(crate) parts: [ibv_sge; 2],
    pub(crate) count: i32,
    pub(crate) remote: Option<RemoteMemory>,
    flags: u32,
    bind: Option<bind_mw_t>,
    void: u32,
    /// What it carries itself.
    bytes: [u8; INLINE_MAX],
    /// Somebody wants to know of it at once.
    pub(crate) is_waited_for: bool,
    is_signalled: bool,
}

impl Order {
    pub(crate) const fn new(opcode: u32, part: ibv_sge) -> Self {
        Self {
            number: 0,
            opcode,
            parts: [part, part],
            count: 1,
            remote: None,
            flags: 0,
            bind: None,
            void: 0,
            bytes: [0; INLINE_MAX],
            is_waited_for: false,
            is_signalled: true,
        }
    }

    const fn without_memory(opcode: u32) -> Self {
        let none = ibv_sge {
            addr: 0,
            length: 0,
            lkey: 0,
        };
        Self {
            count: 0,
            ..Self::new(opcode, none)
        }
    }

    /// A send of bytes that it carries itself, at most [`INLINE_LEN`].
    pub(crate) fn inline(bytes: &[u8]) -> Self {
        let mut order = Self::without_memory(opcode::IBV_WR_SEND);
        order.bytes[..bytes.len()].copy_from_slice(bytes);
        order.parts[0].length = short(bytes.len());
        order.count = 1;
        order.flags = ibv_send_flags::IBV_SEND_INLINE.0;
        order
    }

    pub(crate) const fn bind(bind: bind_mw_t) -> Self {
        Self {
            bind: Some(bind),
            ..Self::without_memory(opcode::IBV_WR_BIND_MW)
        }
    }

    /// The end of a key.
    pub(crate) const fn void(key: u32) -> Self {
        Self {
            void: key,
            // What the peer had read or written of it is behind us: RDMA of its own, not of this queue.
            flags: ibv_send_flags::IBV_SEND_FENCE.0,
            ..Self::without_memory(opcode::IBV_WR_LOCAL_INV)
        }
    }

    /// As C has it; it points to our parts.
    fn request(&mut self) -> ibv_send_wr {
        let mut flags = self.flags;
        if self.is_signalled {
            flags |= ibv_send_flags::IBV_SEND_SIGNALED.0;
        }
        if flags & ibv_send_flags::IBV_SEND_INLINE.0 != 0 {
            self.parts[0].addr = self.bytes.as_ptr().expose_provenance() as u64;
        }
        let remote = self
            .remote
            .map_or((0, 0), |memory| (memory.address, memory.key));
        ibv_send_wr {
            wr_id: self.number,
            next: null_mut(),
            sg_list: self.parts.as_mut_ptr(),
            num_sge: self.count,
            opcode: self.opcode,
            send_flags: flags,
            imm_data_invalidated_rkey_union: imm_data_invalidated_rkey_union_t {
                invalidated_rkey: self.void,
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
                bind_mw: self.bind.unwrap_or(bind_mw_t {
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

fn short(len: usize) -> u32 {
    u32::try_from(len).expect("invariant: at most the depth of a queue")
}

#[cfg(test)]
mod tests {
    use super::{CHAIN_MAX, Chain, Order, PairNumber, PairState, SILENT_MAX, Tell};
    use rdma_sys::ibv_send_flags as flag;

    const DEPTH: u32 = 64;

    fn state() -> PairState {
        PairState::new(PairNumber(1))
    }

    /// Adds sends of those numbers, of which those of `waited` are waited for.
    fn add(chain: &mut Chain, numbers: std::ops::Range<u64>, waited: &[u64]) {
        for number in numbers {
            let mut order = Order::inline(b"it");
            order.is_waited_for = waited.contains(&number);
            chain.add(number, order);
        }
    }

    /// The same, in a chain.
    fn chain(numbers: std::ops::Range<u64>, waited: &[u64]) -> Chain {
        let mut chain = Chain::new(DEPTH);
        add(&mut chain, numbers, waited);
        chain
    }

    /// What the driver would find: number, and whether it is signalled.
    fn walk(chain: &mut Chain, tell: Tell) -> Vec<(u64, bool)> {
        let (mut found, mut next) = (Vec::new(), chain.linked(tell).cast_const());
        while !next.is_null() {
            // SAFETY: linked, and the chain has not changed since.
            let request = unsafe { &*next };
            let flags = request.send_flags;
            assert_ne!(flags & flag::IBV_SEND_INLINE.0, 0);
            found.push((request.wr_id, flags & flag::IBV_SEND_SIGNALED.0 != 0));
            next = request.next;
        }
        found
    }

    fn signalled(chain: &mut Chain, tell: Tell) -> Vec<u64> {
        let found = walk(chain, tell).into_iter();
        found
            .filter_map(|(number, told)| told.then_some(number))
            .collect()
    }

    fn ended(state: &PairState, number: u64) -> Vec<u64> {
        let mut silent = Vec::new();
        state.ended(number, |number| silent.push(number));
        silent
    }

    #[test]
    fn the_last_is_told_of_and_some_before_it() {
        assert_eq!(walk(&mut chain(7..8, &[]), Tell::Last), [(7, true)]);
        let all = CHAIN_MAX as u64;
        let mut longest = chain(0..all, &[]);
        assert!(longest.is_full());
        assert_eq!(walk(&mut longest, Tell::Last).len(), CHAIN_MAX);
        let every = u64::from(SILENT_MAX);
        let mut longest = chain(0..all, &[]);
        assert_eq!(signalled(&mut longest, Tell::Last), [every, all - 1]);
        assert_eq!(longest.silent(), 0);
        // Who is waited for is told of, and the count begins anew.
        let mut waited = chain(0..all, &[5]);
        let expected = [5, 6 + every, all - 1];
        assert_eq!(signalled(&mut waited, Tell::Last), expected);
    }

    #[test]
    fn silent_ones_are_counted_from_call_to_call() {
        let (state, mut chain, mut told) = (state(), Chain::new(DEPTH), Vec::new());
        for number in 0..100 {
            add(&mut chain, number..number + 1, &[]);
            told.extend(signalled(&mut chain, Tell::Later));
            chain.posted(1, &state);
        }
        assert_eq!(told, [16, 33, 50, 67, 84]);
        assert_eq!(chain.silent(), 15);
        // Of a short queue, no more than a quarter.
        let mut short = Chain::new(16);
        add(&mut short, 0..16, &[]);
        assert_eq!(signalled(&mut short, Tell::Later), [4, 9, 14]);
        assert_eq!(short.silent(), 1);
    }

    #[test]
    fn what_is_told_of_ends_all_before_it_and_nothing_behind_it() {
        let state = state();
        let mut both = chain(0..4, &[2]);
        assert_eq!(signalled(&mut both, Tell::Last), [2, 3]);
        both.posted(4, &state);
        assert_eq!((both.len(), state.under_way()), (0, 4));
        assert_eq!(ended(&state, 2), [0, 1]);
        assert_eq!(state.under_way(), 1);
        assert_eq!(ended(&state, 3), []);
        assert_eq!(state.under_way(), 0);
    }

    #[test]
    fn all_are_told_of_when_they_are_flushed() {
        let state = state();
        let mut three = chain(0..3, &[]);
        walk(&mut three, Tell::Last);
        three.posted(3, &state);
        for number in 0..3 {
            assert_eq!(ended(&state, number), []);
        }
        assert_eq!(state.under_way(), 0);
    }

    #[test]
    fn a_queue_out_of_order_frees_nothing_early() {
        let state = state();
        let mut queue = chain(0..5, &[1, 3]);
        assert_eq!(signalled(&mut queue, Tell::Last), [1, 3, 4]);
        queue.posted(5, &state);
        // 3 before 1: nothing is known of 0 and 2.
        assert_eq!(ended(&state, 3), []);
        assert_eq!(state.under_way(), 4);
        assert_eq!(ended(&state, 1), [0]);
        assert_eq!(ended(&state, 4), [2]);
        assert_eq!(state.under_way(), 0);
        // And one that nobody has posted ends nothing that is told of later.
        let mut more = chain(5..7, &[]);
        walk(&mut more, Tell::Later);
        more.posted(2, &state);
        assert_eq!(ended(&state, 99), []);
        assert_eq!(state.under_way(), 2);
    }

    #[test]
    fn what_a_driver_refuses_is_withdrawn_with_all_behind_it() {
        let state = state();
        let mut queue = chain(0..4, &[]);
        let first = queue.linked(Tell::Last);
        // SAFETY: linked, and the chain has not changed since.
        let bad = unsafe { (*first).next };
        assert_eq!(queue.place_of(bad), 1);
        assert_eq!(queue.place_of(std::ptr::null()), 0);
        queue.posted(1, &state);
        let withdrawn: Vec<u64> = queue.withdraw().collect();
        assert_eq!(withdrawn, [1, 2, 3]);
        assert_eq!((queue.len(), state.under_way()), (0, 1));
    }
}
