//! Which client's request goes next when there are more than the shard works on at a time.
//!
//! *Place*: between the routing of frames and the tasks that serve them. *Owner*: one shard; plain
//! calls, nothing awaits here.
//! *Invariants*: bytes worked on, bytes waiting and bytes per copyset are bounded; a connection with
//! few requests is not kept waiting by one with many, nor one copyset by another that is stuck.
//! *On failure*: what may not wait either is refused, and its client asks again after a pause.
//!
//! Connections take turns by fair queueing (Demers, Keshav and Shenker, 1989; self-clocked as Golestani's,
//! 1994), so that bytes, not requests, are shared out: the next to start is what would be over first, had
//! each connection a line of its own of the same speed. Who asks for little is next, whatever the others
//! have waiting; round robin would have it wait for a large request of each. What is worked on is served in the
//! order in which it was started, by pacing, log and replication, so there is no more of it than keeps
//! those busy. A connection may have a quarter of the room left waiting, and half of what is
//! left of a copyset's share (the dynamic threshold of Choudhury and Hahne, 1998): the greedy leave room
//! for newcomers. Nor may it add to what has waited for [`WAITING_TIME_MAX`]: what is answered after its client
//! has given up is work for nothing, twice.

use crate::limit::{
    ADMITTED_BYTES_MAX, ADMITTED_COPYSET_MAX, COPYSET_BYTES_MAX, WAITING_BYTES_MAX,
    WAITING_TIME_MAX,
};
use ogee_proto::id::CopysetId;
use ogee_runtime::Instant;
use ogee_transport::PeerId;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
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
    /// Connections with something waiting, in the order of their turns: by where they end.
    turns: BTreeSet<(u64, K)>,
    /// Connections with nothing waiting that have started more than their share of late.
    ahead: BTreeMap<K, u64>,
    /// Where the last turn began, in bytes that each connection might have started so far.
    now: u64,
}

/// The bytes of one copyset, and whose they are.
struct Share<K: Ord + Copy> {
    total: usize,
    /// What of it is worked on.
    admitted: usize,
    by: BTreeMap<K, usize>,
}

struct Line<K: Ord + Copy> {
    requests: VecDeque<Request<K>>,
    waiting: usize,
    /// Where its next turn begins,
    begins: u64,
    /// and ends.
    ends: u64,
}

struct Request<K: Ord + Copy> {
    from: K,
    copyset: CopysetId,
    cost: usize,
    arrived: Instant,
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
            turns: BTreeSet::new(),
            ahead: BTreeMap::new(),
            now: 0,
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
            arrived: ogee_runtime::now(),
            start: Box::new(start),
        };
        self.inner.borrow_mut().wait(request)?;
        // Those before it may wait for a copyset that it has nothing to do with.
        self.advance();
        Ok(())
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
        let left = COPYSET_BYTES_MAX - total;
        let fair = if own == 0 { left } else { left / 2 };
        if own + cost > fair {
            return Err(Throttled);
        }
        let has_room = self.admitted + cost <= ADMITTED_BYTES_MAX;
        let at_once = self.turns.is_empty() && has_room && self.takes(copyset, cost);
        if at_once {
            self.join(from, copyset, cost);
            self.start(copyset, cost);
        }
        Ok(at_once)
    }

    /// Whether a copyset's share of what is worked on has room.
    fn takes(&self, copyset: CopysetId, cost: usize) -> bool {
        let share = self.by_copyset.get(&copyset);
        share.map_or(0, |share| share.admitted) + cost <= ADMITTED_COPYSET_MAX
    }

    fn start(&mut self, copyset: CopysetId, cost: usize) {
        self.admitted += cost;
        if let Some(share) = self.by_copyset.get_mut(&copyset) {
            share.admitted += cost;
        }
    }

    fn join(&mut self, from: K, copyset: CopysetId, cost: usize) {
        let share = self.by_copyset.entry(copyset).or_insert_with(|| Share {
            total: 0,
            admitted: 0,
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
        if own + cost > share || self.is_slow(&request) {
            return Err(Throttled);
        }
        self.join(from, request.copyset, cost);
        self.waiting += cost;
        if own == 0 {
            self.line_up(from, cost);
        }
        let line = self.lines.get_mut(&from);
        let line = line.expect("invariant: who has something waiting has a line");
        line.waiting += cost;
        line.requests.push_back(request);
        Ok(())
    }

    /// Whether an earlier request of the same connection to the same copyset waits for long already.
    fn is_slow(&self, request: &Request<K>) -> bool {
        let line = self.lines.get(&request.from);
        let mut waiting = line.into_iter().flat_map(|line| &line.requests);
        let oldest = waiting.find(|before| before.copyset == request.copyset);
        oldest.is_some_and(|oldest| request.arrived > oldest.arrived + WAITING_TIME_MAX)
    }

    /// A connection has something waiting again: it neither catches up on what it did not ask for nor
    /// is forgiven what it has had.
    fn line_up(&mut self, from: K, cost: usize) {
        let begins = self.now.max(self.ahead.remove(&from).unwrap_or(0));
        let line = Line {
            requests: VecDeque::new(),
            waiting: 0,
            begins,
            ends: begins + cost as u64,
        };
        self.turns.insert((line.ends, from));
        self.lines.insert(from, line);
    }

    /// The request whose turn it is, if there is room for it.
    fn next(&mut self) -> Option<Request<K>> {
        let first = |(_, from): &(u64, K)| Some((*from, self.first_of(*from)?));
        let (from, (at, cost)) = self.turns.iter().find_map(first)?;
        if self.admitted + cost > ADMITTED_BYTES_MAX {
            return None;
        }
        self.take(from, at)
    }

    /// Where in a connection's line the first request is that may start, and what it costs; none if all
    /// that it has waits for copysets that have their share.
    fn first_of(&self, from: K) -> Option<(usize, usize)> {
        let requests = &self.lines.get(&from)?.requests;
        let may_start = |request: &Request<K>| self.takes(request.copyset, request.cost);
        let at = requests.iter().position(may_start)?;
        Some((at, requests.get(at)?.cost))
    }

    fn take(&mut self, from: K, at: usize) -> Option<Request<K>> {
        let line = self.lines.get_mut(&from)?;
        let request = line.requests.remove(at)?;
        self.turns.remove(&(line.ends, from));
        self.now = self.now.max(line.begins);
        line.begins += request.cost as u64;
        line.waiting -= request.cost;
        if let Some(next) = line.requests.front() {
            line.ends = line.begins + next.cost as u64;
            self.turns.insert((line.ends, from));
        } else {
            self.ahead.insert(from, line.begins);
            self.lines.remove(&from);
        }
        self.waiting -= request.cost;
        self.start(request.copyset, request.cost);
        self.forget();
        Some(request)
    }

    /// Forgets who is not ahead any more: now and then, so that each is looked at a few times only.
    fn forget(&mut self) {
        if self.turns.is_empty() {
            self.ahead.clear();
        } else if self.ahead.len() > 2 * self.lines.len() {
            let now = self.now;
            self.ahead.retain(|_, begins| *begins > now);
        }
    }

    fn leave(&mut self, from: K, copyset: CopysetId, cost: usize) {
        self.admitted -= cost;
        let Some(share) = self.by_copyset.get_mut(&copyset) else {
            return;
        };
        share.total -= cost;
        share.admitted -= cost;
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

        fn finish_all(&self, from: u64) {
            let all = std::mem::take(&mut *self.0.borrow_mut());
            let (done, rest) = all.into_iter().partition(|(of, _)| *of == from);
            *self.0.borrow_mut() = rest;
            let done: VecDeque<Running> = done;
            drop(done);
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
    fn nothing_is_added_to_what_has_waited_for_long() {
        ogee_runtime::executor::block_on(async {
            let (admission, started) = (Admission::new(), Started::default());
            // Eight of one copyset are worked on, and eight of another.
            for copyset in [1, 2] {
                for _ in 0..8 {
                    assert!(started.submit(&admission, 1, copyset, MIB));
                }
            }
            assert!(started.submit(&admission, 1, 1, MIB), "it may wait");
            ogee_runtime::sleep(WAITING_TIME_MAX + WAITING_TIME_MAX / 10).await;
            assert!(!started.submit(&admission, 1, 1, MIB));
            assert!(started.submit(&admission, 1, 2, MIB), "another copyset");
            assert!(
                started.submit(&admission, 2, 1, MIB),
                "another connection, which has none waiting"
            );
            started.finish_all(1);
            assert!(started.submit(&admission, 1, 1, MIB), "it was served");
        });
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
        // All that ended was of the greedy one; what came free went to the three alike, to within a
        // request.
        let got = [
            (started.count(1) + 12 - before) * MIB,
            started.count(2) * (64 << 10),
            started.count(3) * MIB,
        ];
        assert_eq!(got.iter().sum::<usize>().div_ceil(MIB), 12);
        assert!(
            got.iter().all(|got| (3 * MIB..=5 * MIB).contains(got)),
            "{got:?}"
        );
    }

    #[test]
    fn who_asks_for_little_does_not_wait_for_a_request_of_each() {
        let (admission, started) = (Admission::new(), Started::default());
        for greedy in 0..16 {
            started.submit_all(&admission, greedy);
        }
        let mut waited = Vec::new();
        for round in 0..20 {
            // Depth four, of whose requests each follows its predecessor.
            for n in 0..4 {
                assert!(started.submit(&admission, 99, 5000 + n, 4096));
            }
            let mut ended = 0;
            while started.count(99) < 4 {
                let (from, room) = started.0.borrow_mut().pop_front().unwrap();
                drop(room);
                // Refused when it has its share waiting.
                started.submit(&admission, from, 100_000 + round, MIB);
                ended += 1;
                assert!(ended <= 16, "one request of each is too long");
            }
            waited.push(ended);
            started.finish_all(99);
        }
        let mean = waited.iter().sum::<usize>() / waited.len();
        assert!(mean <= 1, "{waited:?}");
    }

    #[test]
    fn a_copyset_that_is_stuck_leaves_room_for_the_others() {
        let (admission, started) = (Admission::new(), Started::default());
        let stuck = std::iter::repeat_with(|| started.submit(&admission, 1, 7, MIB));
        let taken = stuck.take_while(|ok| *ok).count();
        assert_eq!(taken, (COPYSET_BYTES_MAX / MIB).div_ceil(3));
        assert_eq!(started.count(1), ADMITTED_COPYSET_MAX / MIB);
        // Its own requests to another copyset overtake those.
        assert!(started.submit(&admission, 1, 8, MIB));
        assert_eq!(started.count(1), ADMITTED_COPYSET_MAX / MIB + 1);
        // However many are greedy there, a newcomer is let in, and others get on.
        for from in 2..12 {
            while started.submit(&admission, from, 7, 64 << 10) {}
        }
        assert!(!started.submit(&admission, 2, 7, 64 << 10));
        assert!(started.submit(&admission, 99, 7, 64 << 10));
        assert_eq!(started.count(99), 0);
        assert!(started.submit(&admission, 98, 9, MIB));
        assert_eq!(started.count(98), 1);
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
        assert!(inner.lines.is_empty() && inner.turns.is_empty() && inner.ahead.is_empty());
    }
}
