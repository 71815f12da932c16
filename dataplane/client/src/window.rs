//! How many bytes of requests may be on their way to one copyset at a time.
//!
//! *Place*: each attempt of `core` takes room here before anything else.
//! *Owner*: the copyset; one that is stuck takes nothing from the others of its shard.
//! *Invariants*: a window never falls below [`WINDOW_MIN`], which the largest request fits in; first
//! come, first served. A request that was refused keeps its room while it pauses.
//! *On failure*: too small costs speed, and it grows with every request that succeeds.
//!
//! A shard that has no room refuses requests whose payload has travelled already. A client that goes on
//! sending all that it has would spend the shard's time on that. So the window halves when a request
//! is refused, or not answered in time, once for all that were under way, and grows by
//! [`WINDOW_MIN`] for each window's worth of answers: additive increase, multiplicative decrease, as TCP
//! does it (Jacobson, 1988). It begins at all that a volume may have under way: who is never refused
//! never waits here.

use crate::limit::{INFLIGHT_BYTES_MAX, WINDOW_COST_MIN, WINDOW_MIN};
use ogee_runtime::Instant;
use ogee_runtime::channel::{Permit, Semaphore};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// The room on the way to one copyset.
pub(crate) struct Window {
    permits: Semaphore,
    /// What nobody gets for now.
    withheld: RefCell<Option<Permit>>,
    size: Cell<usize>,
    shrunk: Cell<Option<Instant>>,
}

/// Room for one request; it returns when this is dropped.
pub(crate) struct Room {
    window: Rc<Window>,
    permit: Option<Permit>,
    /// When it was sent.
    since: Instant,
}

impl Window {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            permits: Semaphore::new(INFLIGHT_BYTES_MAX),
            withheld: RefCell::default(),
            size: Cell::new(INFLIGHT_BYTES_MAX),
            shrunk: Cell::default(),
        })
    }

    /// Waits until `bytes` more may be on their way.
    pub(crate) async fn enter(self: &Rc<Self>, bytes: usize) -> Room {
        let permit = self.permits.acquire(cost_of(bytes)).await;
        Room {
            window: Rc::clone(self),
            permit: Some(permit),
            since: ogee_runtime::now(),
        }
    }

    fn withheld(&self) -> usize {
        self.withheld.borrow().as_ref().map_or(0, Permit::count)
    }

    fn on_its_way(&self) -> usize {
        self.permits.total() - self.permits.available() - self.withheld()
    }

    /// What is to be withheld that is not yet.
    fn excess(&self) -> usize {
        (self.permits.total() - self.size.get()).saturating_sub(self.withheld())
    }

    fn withhold(&self, permit: Permit) {
        let mut withheld = self.withheld.borrow_mut();
        *withheld = Some(match withheld.take() {
            Some(all) => all.merged(permit),
            None => permit,
        });
    }

    fn shrink(&self, sent: Instant) {
        // Of all that were under way at the time, one speaks for the others.
        if self.shrunk.get().is_some_and(|shrunk| sent <= shrunk) {
            return;
        }
        self.shrunk.set(Some(ogee_runtime::now()));
        let size = (self.on_its_way() / 2).clamp(WINDOW_MIN, self.size.get());
        self.size.set(size);
        let spare = self.excess().min(self.permits.available());
        if let Some(permit) = self.permits.try_acquire(spare) {
            self.withhold(permit);
        }
    }

    fn grow(&self, bytes: usize) {
        let size = self.size.get();
        if size == self.permits.total() {
            return;
        }
        let more = (WINDOW_MIN * bytes / size).max(1);
        self.size.set((size + more).min(self.permits.total()));
        let surplus = self.withheld() - (self.permits.total() - self.size.get());
        let returned = self
            .withheld
            .borrow_mut()
            .as_mut()
            .map(|all| all.split(surplus));
        // Outside of the borrow: it wakes who waits.
        drop(returned);
    }
}

impl Room {
    /// It is sent now, perhaps again.
    pub(crate) fn sent(&mut self) {
        self.since = ogee_runtime::now();
    }

    /// The request was served.
    pub(crate) fn served(&self) {
        self.window
            .grow(self.permit.as_ref().map_or(0, Permit::count));
    }

    /// The shard had no room for the request, or no time.
    pub(crate) fn refused(&self) {
        self.window.shrink(self.since);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let Some(mut permit) = self.permit.take() else {
            return;
        };
        let excess = self.window.excess().min(permit.count());
        if excess > 0 {
            self.window.withhold(permit.split(excess));
        }
    }
}

fn cost_of(bytes: usize) -> usize {
    bytes.clamp(WINDOW_COST_MIN, WINDOW_MIN)
}

#[cfg(test)]
mod tests {
    use super::{Room, Window};
    use crate::limit::{INFLIGHT_BYTES_MAX, WINDOW_MIN};
    use futures_util::FutureExt;
    use ogee_runtime::sleep;
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
            let rooms = fill(&window);
            assert_eq!(rooms.len() * MIB, WINDOW_MIN, "never less");
        });
    }

    #[test]
    fn it_grows_by_a_request_for_each_window_of_answers() {
        run(async {
            let window = Window::new();
            let rooms = fill(&window);
            rooms[0].refused();
            drop(rooms);
            let before = fill(&window);
            let count = before.len();
            for room in &before {
                room.served();
            }
            drop(before);
            let after = fill(&window);
            assert_eq!(after.len(), count, "not quite");
            after[0].served();
            after[0].served();
            drop(after);
            assert_eq!(fill(&window).len(), count + 1);
            for _ in 0..5000 {
                let room = window.enter(MIB).now_or_never().expect("there is room");
                room.served();
            }
            assert_eq!(fill(&window).len() * MIB, INFLIGHT_BYTES_MAX, "and no more");
            assert_eq!(window.withheld(), 0);
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
            // As many as are let go are withheld at first.
            rooms.truncate(INFLIGHT_BYTES_MAX / MIB / 2);
            sleep(Duration::from_millis(2)).await;
            assert_eq!(window.permits.available(), 0);
            rooms.pop();
            drop(waits.await.expect("it ends"));
        });
    }
}
