//! How many bytes of requests may be on their way to one copyset at a time.
//!
//! *Place*: each attempt of `core` takes room here before anything else.
//! *Owner*: the copyset; one that is stuck takes nothing from the others of its shard.
//! *Invariants*: a window never falls below [`WINDOW_MIN`], which the largest request fits in. The oldest
//! request goes first, also when it was refused and comes back. One that was refused keeps its room
//! while it pauses, so that no other one is sent to be refused in its place.
//! *On failure*: too small costs speed, and it grows with every request that succeeds.
//!
//! A shard that has no room refuses requests whose payload has travelled already. A client that goes on
//! sending all that it has would spend the shard's time on that: on two cores, four such clients got a
//! fifth of what they got together when each had four requests under way, not 64. So the window halves
//! when a request is refused, or not answered in time, once for all that were under way, and grows by
//! [`WINDOW_STEP`] for each window's worth of answers: additive increase, multiplicative decrease, as TCP
//! does it (Jacobson, 1988). It begins at all that a volume may have under way: who is never refused
//! never waits here.

use crate::limit::{INFLIGHT_BYTES_MAX, WINDOW_COST_MIN, WINDOW_MIN, WINDOW_STEP};
use ogee_runtime::Instant;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// The room on the way to one copyset.
pub(crate) struct Window {
    inner: RefCell<Inner>,
}

struct Inner {
    size: usize,
    used: usize,
    /// By age: the number of the request's first try.
    waiting: BTreeMap<u64, Waiter>,
    next: u64,
    shrunk: Option<Instant>,
}

struct Waiter {
    cost: usize,
    is_let_in: bool,
    waker: Waker,
}

/// Room for one request; it returns when this is dropped.
pub(crate) struct Room {
    window: Rc<Window>,
    cost: usize,
    number: u64,
    /// When it was sent.
    since: Instant,
}

impl Window {
    pub(crate) fn new() -> Rc<Self> {
        let inner = Inner {
            size: INFLIGHT_BYTES_MAX,
            used: 0,
            waiting: BTreeMap::new(),
            next: 0,
            shrunk: None,
        };
        Rc::new(Self {
            inner: RefCell::new(inner),
        })
    }

    /// Waits until `bytes` more may be on their way.
    pub(crate) async fn enter(self: &Rc<Self>, bytes: usize) -> Room {
        let cost = bytes.clamp(WINDOW_COST_MIN, WINDOW_MIN);
        let number = {
            let mut inner = self.inner.borrow_mut();
            inner.next += 1;
            inner.next
        };
        self.let_in(cost, number).await
    }

    async fn let_in(self: &Rc<Self>, cost: usize, number: u64) -> Room {
        let enter = Enter {
            window: self,
            cost,
            number,
            is_queued: false,
        };
        enter.await;
        Room {
            window: Rc::clone(self),
            cost,
            number,
            since: ogee_runtime::now(),
        }
    }

    /// Lets in who may go now.
    fn advance(&self) {
        loop {
            // Woken outside of the borrow: a waker may run code that comes back here.
            let Some(waker) = self.inner.borrow_mut().next_in() else {
                return;
            };
            waker.wake();
        }
    }

    fn leave(&self, cost: usize) {
        self.inner.borrow_mut().used -= cost;
        self.advance();
    }
}

impl Inner {
    const fn has_room(&self, cost: usize) -> bool {
        self.used == 0 || self.used + cost <= self.size
    }

    fn next_in(&mut self) -> Option<Waker> {
        let mut waiting = self.waiting.iter().filter(|(_, it)| !it.is_let_in);
        let (number, cost) = waiting.next().map(|(number, it)| (*number, it.cost))?;
        if !self.has_room(cost) {
            return None;
        }
        let next = self.waiting.get_mut(&number)?;
        next.is_let_in = true;
        self.used += cost;
        Some(next.waker.clone())
    }

    fn shrink(&mut self, sent: Instant) {
        // Of all that were under way at the time, one speaks for the others.
        if self.shrunk.is_some_and(|shrunk| sent <= shrunk) {
            return;
        }
        self.shrunk = Some(ogee_runtime::now());
        self.size = (self.used / 2).clamp(WINDOW_MIN, self.size);
    }

    fn grow(&mut self, bytes: usize) {
        let more = (WINDOW_STEP * bytes / self.size).max(1);
        self.size = (self.size + more).min(INFLIGHT_BYTES_MAX);
    }
}

impl Room {
    /// Room to send it again: this one, or another where the window has become too small for it.
    pub(crate) async fn again(self) -> Self {
        let is_over = {
            let inner = self.window.inner.borrow();
            inner.used > inner.size
        };
        if !is_over {
            return self;
        }
        let (window, cost, number) = (Rc::clone(&self.window), self.cost, self.number);
        drop(self);
        window.let_in(cost, number).await
    }

    /// It is sent now, perhaps again.
    pub(crate) fn sent(&mut self) {
        self.since = ogee_runtime::now();
    }

    /// The request was served.
    pub(crate) fn served(&self) {
        self.window.inner.borrow_mut().grow(self.cost);
    }

    /// The shard had no room for the request, or no time.
    pub(crate) fn refused(&self) {
        self.window.inner.borrow_mut().shrink(self.since);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.window.leave(self.cost);
    }
}

struct Enter<'a> {
    window: &'a Rc<Window>,
    cost: usize,
    number: u64,
    is_queued: bool,
}

impl Future for Enter<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let (number, cost) = (self.number, self.cost);
        let mut inner = self.window.inner.borrow_mut();
        if !self.is_queued && inner.waiting.is_empty() && inner.has_room(cost) {
            inner.used += cost;
            return Poll::Ready(());
        }
        if inner.waiting.get(&number).is_some_and(|it| it.is_let_in) {
            inner.waiting.remove(&number);
            drop(inner);
            self.is_queued = false;
            return Poll::Ready(());
        }
        let waiter = Waiter {
            cost,
            is_let_in: false,
            waker: cx.waker().clone(),
        };
        inner.waiting.insert(number, waiter);
        drop(inner);
        self.is_queued = true;
        Poll::Pending
    }
}

impl Drop for Enter<'_> {
    fn drop(&mut self) {
        if !self.is_queued {
            return;
        }
        let waiter = self.window.inner.borrow_mut().waiting.remove(&self.number);
        match waiter {
            Some(waiter) if waiter.is_let_in => self.window.leave(waiter.cost),
            _ => self.window.advance(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Room, Window};
    use crate::limit::{INFLIGHT_BYTES_MAX, WINDOW_MIN, WINDOW_STEP};
    use futures_util::FutureExt;
    use ogee_runtime::sleep;
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::time::Duration;

    const MIB: usize = 1 << 20;

    fn run(test: impl Future<Output = ()>) {
        ogee_runtime::executor::block_on(test);
    }

    /// As many requests of a MiB as are let in at once.
    fn fill(window: &Rc<Window>) -> Vec<Room> {
        std::iter::from_fn(|| window.enter(MIB).now_or_never()).collect()
    }

    #[test]
    fn it_halves_once_for_all_that_were_under_way() {
        run(async {
            let window = Window::new();
            let rooms = fill(&window);
            assert_eq!(rooms.len() * MIB, INFLIGHT_BYTES_MAX);
            for room in &rooms {
                room.refused();
            }
            drop(rooms);
            let rooms = fill(&window);
            assert_eq!(rooms.len() * MIB, INFLIGHT_BYTES_MAX / 2);
            drop(rooms);
            for _ in 0..20 {
                sleep(Duration::from_millis(2)).await;
                let mut rooms = fill(&window);
                rooms[0].sent();
                rooms[0].refused();
            }
            assert_eq!(fill(&window).len() * MIB, WINDOW_MIN, "never less");
        });
    }

    #[test]
    fn it_grows_by_a_step_for_each_window_of_answers() {
        run(async {
            let window = Window::new();
            fill(&window)[0].refused();
            let size = |window: &Window| window.inner.borrow().size;
            let before = size(&window);
            assert_eq!(before, INFLIGHT_BYTES_MAX / 2);
            for room in fill(&window) {
                room.served();
            }
            let grown = size(&window) - before;
            assert!(
                grown <= WINDOW_STEP && grown > WINDOW_STEP * 9 / 10,
                "{grown}"
            );
            for _ in 0..50_000 {
                let room = window.enter(MIB).now_or_never().expect("there is room");
                room.served();
            }
            assert_eq!(fill(&window).len() * MIB, INFLIGHT_BYTES_MAX, "and no more");
        });
    }

    #[test]
    fn who_waits_is_let_in_when_there_is_room_again() {
        run(async {
            let window = Window::new();
            let mut rooms = fill(&window);
            rooms[0].refused();
            let waits = ogee_runtime::spawn({
                let window = window.clone();
                async move { window.enter(MIB).await }
            });
            sleep(Duration::from_millis(2)).await;
            rooms.truncate(INFLIGHT_BYTES_MAX / MIB / 2);
            sleep(Duration::from_millis(2)).await;
            assert_eq!(window.inner.borrow().waiting.len(), 1);
            rooms.pop();
            drop(waits.await.expect("it ends"));
            assert_eq!(window.inner.borrow().used, rooms.len() * MIB);
            // Who gives up waiting leaves nothing behind.
            let rooms = fill(&window);
            for _ in 0..3 {
                assert!(window.enter(MIB).now_or_never().is_none());
            }
            drop(rooms);
            let inner = window.inner.borrow();
            assert!(inner.waiting.is_empty());
        });
    }

    #[test]
    fn the_oldest_goes_first_even_if_it_was_refused() {
        run(async {
            let window = Window::new();
            let mut rooms = fill(&window);
            let first = rooms.remove(0);
            first.refused();
            let order = Rc::new(RefCell::new(Vec::new()));
            let enters = |name: u32, room: Option<Room>| {
                let (window, order) = (window.clone(), order.clone());
                ogee_runtime::spawn(async move {
                    let room = match room {
                        Some(room) => room.again().await,
                        None => window.enter(MIB).await,
                    };
                    order.borrow_mut().push(name);
                    drop(room);
                })
            };
            let younger = enters(2, None);
            sleep(Duration::from_millis(2)).await;
            let older = enters(1, Some(first));
            sleep(Duration::from_millis(2)).await;
            assert!(order.borrow().is_empty(), "the window is overfull");
            drop(rooms);
            older.await.expect("it ends");
            younger.await.expect("it ends");
            assert_eq!(*order.borrow(), [1, 2]);
            // Where it fits, it stays where it is.
            let room = window.enter(MIB).await;
            assert!(room.again().now_or_never().is_some());
        });
    }
}
