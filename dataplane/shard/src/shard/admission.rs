//! Which client's request goes next when there are more than the shard works on at a time.
//!
//! *Place*: between the routing of frames and the tasks that serve them. *Owner*: one shard; plain
//! calls, nothing awaits here.
//! *Invariants*: bytes worked on, bytes waiting and bytes per copyset are bounded; a connection with
//! few requests is not kept waiting by one with many, nor one copyset by another that is stuck.
//! *On failure*: what may not wait either is refused, and its client asks again after a pause.
//!
//! Connections take turns by deficit round robin (Shreedhar and Varghese, 1995), so that bytes, not
//! requests, are shared out. A connection may have a quarter of the room left waiting, and half of what is
//! left of a copyset's share (the dynamic threshold of Choudhury and Hahne, 1998): the greedy leave room
//! for newcomers.

use crate::limit::{ADMITTED_BYTES_MAX, ADMITTED_COPYSET_MAX, ADMITTED_TURN, WAITING_BYTES_MAX};
use ogee_proto::id::CopysetId;
use ogee_transport::PeerId;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// Starts a request with the room that it was given.
type Start<K> = Box<dyn FnOnce(Admitted<K>)>;

/// The requests of all clients of a shard; `K` names a connection.
pub(super) struct Admission<K: Ord + Copy = PeerId> {
    inner: RefCell<Inner<K>>,
}

struct Inner<K: Ord + Copy> {
    admitted: usize,
    /// What each copyset has, admitted and waiting.
    by_copyset: BTreeMap<CopysetId, Share<K>>,
    waiting: usize,
    lines: BTreeMap<K, Line<K>>,
    /// Connections with something waiting, in the order of their turns.
    turns: VecDeque<K>,
}

/// The bytes of one copyset, and whose they are.
struct Share<K: Ord + Copy> {
    total: usize,
    by: BTreeMap<K, usize>,
}

struct Line<K: Ord + Copy> {
    requests: VecDeque<Request<K>>,
    waiting: usize,
    /// Bytes that it may still start in this turn.
    deficit: usize,
}

struct Request<K: Ord + Copy> {
    from: K,
    copyset: CopysetId,
    cost: usize,
    start: Start<K>,
}

/// Room for a request under way; dropping it lets the next one in.
pub(super) struct Admitted<K: Ord + Copy = PeerId> {
    admission: Rc<Admission<K>>,
    from: K,
    copyset: CopysetId,
    cost: usize,
}

/// Neither admitted nor allowed to wait.
#[derive(Debug)]
pub(super) struct Throttled;

impl<K: Ord + Copy> Admission<K> {
    /// Nothing under way.
    pub(super) fn new() -> Rc<Self> {
        let inner = Inner {
            admitted: 0,
            by_copyset: BTreeMap::new(),
            waiting: 0,
            lines: BTreeMap::new(),
            turns: VecDeque::new(),
        };
        Rc::new(Self {
            inner: RefCell::new(inner),
        })
    }

    /// Starts a request of connection `from` now, or when its turn comes.
    pub(super) fn submit(
        self: &Rc<Self>,
        from: K,
        copyset: CopysetId,
        cost: usize,
        start: impl FnOnce(Admitted<K>) + 'static,
    ) -> Result<(), Throttled>
    where
        K: 'static,
    {
        let at_once = self.inner.borrow_mut().admit(from, copyset, cost)?;
        if at_once {
            start(self.room(from, copyset, cost));
            return Ok(());
        }
        let request = Request {
            from,
            copyset,
            cost,
            start: Box::new(start),
        };
        self.inner.borrow_mut().wait(request)
    }

    /// Bytes that wait for their turn.
    pub(super) fn waiting(&self) -> usize {
        self.inner.borrow().waiting
    }

    fn room(self: &Rc<Self>, from: K, copyset: CopysetId, cost: usize) -> Admitted<K> {
        Admitted {
            admission: Rc::clone(self),
            from,
            copyset,
            cost,
        }
    }

    fn advance(self: &Rc<Self>) {
        loop {
            let next = self.inner.borrow_mut().next();
            let Some(request) = next else { return };
            (request.start)(self.room(request.from, request.copyset, request.cost));
        }
    }
}

impl<K: Ord + Copy> Inner<K> {
    /// Whether a request may start at once; if so, it counts from here on.
    fn admit(&mut self, from: K, copyset: CopysetId, cost: usize) -> Result<bool, Throttled> {
        let (total, own) = self.by_copyset.get(&copyset).map_or((0, 0), |share| {
            (share.total, share.by.get(&from).copied().unwrap_or(0))
        });
        let left = ADMITTED_COPYSET_MAX - total;
        let fair = if own == 0 { left } else { left / 2 };
        if own + cost > fair {
            return Err(Throttled);
        }
        let at_once = self.turns.is_empty() && self.admitted + cost <= ADMITTED_BYTES_MAX;
        if at_once {
            self.admitted += cost;
            self.join(from, copyset, cost);
        }
        Ok(at_once)
    }

    fn join(&mut self, from: K, copyset: CopysetId, cost: usize) {
        let share = self.by_copyset.entry(copyset).or_insert_with(|| Share {
            total: 0,
            by: BTreeMap::new(),
        });
        share.total += cost;
        *share.by.entry(from).or_default() += cost;
    }

    fn wait(&mut self, request: Request<K>) -> Result<(), Throttled> {
        let (from, cost) = (request.from, request.cost);
        let own = self.lines.get(&from).map_or(0, |line| line.waiting);
        let left = WAITING_BYTES_MAX - self.waiting;
        let share = if own == 0 { left } else { left / 4 };
        if own + cost > share {
            return Err(Throttled);
        }
        self.join(from, request.copyset, cost);
        self.waiting += cost;
        let line = self.lines.entry(from).or_insert_with(|| Line {
            requests: VecDeque::new(),
            waiting: 0,
            deficit: 0,
        });
        if line.requests.is_empty() {
            self.turns.push_back(from);
        }
        line.waiting += cost;
        line.requests.push_back(request);
        Ok(())
    }

    /// The request whose turn it is, if there is room for it.
    fn next(&mut self) -> Option<Request<K>> {
        loop {
            let from = *self.turns.front()?;
            let line = self.lines.get_mut(&from)?;
            let cost = line.requests.front()?.cost;
            if self.admitted + cost > ADMITTED_BYTES_MAX {
                return None;
            }
            if line.deficit < cost {
                line.deficit += ADMITTED_TURN;
                self.turns.rotate_left(1);
                continue;
            }
            let request = line.requests.pop_front()?;
            line.deficit -= cost;
            line.waiting -= cost;
            self.waiting -= cost;
            self.admitted += cost;
            if line.requests.is_empty() {
                self.lines.remove(&from);
                self.turns.pop_front();
            }
            return Some(request);
        }
    }

    fn leave(&mut self, from: K, copyset: CopysetId, cost: usize) {
        self.admitted -= cost;
        let Some(share) = self.by_copyset.get_mut(&copyset) else {
            return;
        };
        share.total -= cost;
        if let Some(own) = share.by.get_mut(&from) {
            *own -= cost;
            if *own == 0 {
                share.by.remove(&from);
            }
        }
        if share.total == 0 {
            self.by_copyset.remove(&copyset);
        }
    }
}

impl<K: Ord + Copy> Drop for Admitted<K> {
    fn drop(&mut self) {
        self.admission
            .inner
            .borrow_mut()
            .leave(self.from, self.copyset, self.cost);
        self.admission.advance();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    /// A request that was started: whose, and its room.
    type Running = (u64, Admitted<u64>);

    #[derive(Clone, Default)]
    struct Started(Rc<RefCell<VecDeque<Running>>>);

    impl Started {
        fn submit(&self, to: &Rc<Admission<u64>>, from: u64, copyset: u32, cost: usize) -> bool {
            let started = self.0.clone();
            let submitted = to.submit(from, CopysetId::new(copyset), cost, move |room| {
                started.borrow_mut().push_back((from, room));
            });
            submitted.is_ok()
        }

        /// As much as is taken, over many copysets.
        fn submit_all(&self, to: &Rc<Admission<u64>>, from: u64) -> usize {
            (0..)
                .take_while(|copyset| self.submit(to, from, *copyset, MIB))
                .count()
        }

        fn count(&self, from: u64) -> usize {
            let started = self.0.borrow();
            started.iter().filter(|(of, _)| *of == from).count()
        }

        fn finish_oldest(&self) {
            let done = self.0.borrow_mut().pop_front();
            drop(done);
        }
    }

    #[test]
    fn what_is_worked_on_and_what_waits_are_bounded() {
        let (admission, started) = (Admission::new(), Started::default());
        for from in 0..8 {
            started.submit_all(&admission, from);
        }
        assert_eq!(started.0.borrow().len() * MIB, ADMITTED_BYTES_MAX);
        assert!(admission.waiting() > WAITING_BYTES_MAX / 2);
        // The greedy ones have left room for others.
        assert!(started.submit(&admission, 100, 9999, MIB));
        assert!(started.submit(&admission, 101, 9999, MIB));
        assert!(admission.waiting() <= WAITING_BYTES_MAX);
    }

    #[test]
    fn turns_are_shared_out_by_bytes() {
        let (admission, started) = (Admission::new(), Started::default());
        let greedy = started.submit_all(&admission, 1);
        assert!(greedy * MIB > ADMITTED_BYTES_MAX);
        for n in 0..96 {
            assert!(started.submit(&admission, 2, 5000 + n, 64 << 10));
        }
        for n in 0..6 {
            assert!(started.submit(&admission, 3, 6000 + n, MIB));
        }
        let before = started.count(1);
        for _ in 0..12 {
            started.finish_oldest();
        }
        // All that ended was of the greedy one; what came free went to the three alike.
        assert_eq!(started.count(1), before - 12 + 4);
        assert_eq!(started.count(2), 4 * MIB / (64 << 10));
        assert_eq!(started.count(3), 4);
    }

    #[test]
    fn a_copyset_that_is_stuck_leaves_room_for_the_others() {
        let (admission, started) = (Admission::new(), Started::default());
        let stuck = std::iter::repeat_with(|| started.submit(&admission, 1, 7, MIB));
        let admitted = stuck.take_while(|ok| *ok).count();
        assert_eq!(admitted, (ADMITTED_COPYSET_MAX / MIB).div_ceil(3));
        assert!(started.submit(&admission, 1, 8, MIB));
        // However many are greedy there, a newcomer is let in.
        for from in 2..12 {
            while started.submit(&admission, from, 7, 64 << 10) {}
        }
        assert!(!started.submit(&admission, 2, 7, 64 << 10));
        assert!(started.submit(&admission, 99, 7, 64 << 10));
    }

    #[test]
    fn what_has_ended_leaves_nothing_behind() {
        let (admission, started) = (Admission::new(), Started::default());
        for from in 0..4 {
            started.submit_all(&admission, from);
        }
        while !started.0.borrow().is_empty() {
            started.finish_oldest();
        }
        assert_eq!(admission.waiting(), 0);
        let inner = admission.inner.borrow();
        assert_eq!((inner.admitted, inner.by_copyset.len()), (0, 0));
        assert!(inner.lines.is_empty() && inner.turns.is_empty());
    }
}
