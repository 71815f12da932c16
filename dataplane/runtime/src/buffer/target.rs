//! Memory that somebody wants bytes in, wherever they come from.
//!
//! **Place.** Given with a read by who has such memory: a frontend for its guest, the C interface for its caller. A carrier
//! that can have a peer write there takes a [`Loan`] of it; whatever came another way is copied. **Owner.** Who wants the
//! bytes; a loan holds the memory until its last clone is gone.
//!
//! **Invariants.** While a loan is out nothing else touches the memory: who lent it recalls the loan, waits until it is over,
//! and only then copies into it or tells anybody that it may be used. A carrier says with [`Loan::on_recall`] that it lets others
//! write there, in the turn in which it does, and never does so for a loan that is recalled: of one that nobody had lent on by
//! then nothing has to be waited for. **Failure.** None; a carrier that is asked for a loan back gives it back as soon as nobody
//! can write there any more.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::payload::Payload;

/// Memory that somebody wants bytes in.
#[derive(Clone)]
pub struct Target {
    start: NonNull<u8>,
    len: usize,
    owner: Rc<dyn Any>,
}

/// A target that a carrier may have others write to. Clones are the same loan.
#[derive(Clone)]
pub struct Loan(Rc<Inner>);

/// The other end of a loan: recalls it, at the latest when it is dropped.
pub struct Lease(Rc<State>);

struct Inner {
    target: Target,
    state: Rc<State>,
}

#[derive(Default)]
struct State {
    is_recalled: Cell<bool>,
    is_over: Cell<bool>,
    /// Others may write there.
    is_lent_on: Cell<bool>,
    /// Who lends it on.
    hook: RefCell<Option<Box<dyn FnOnce()>>>,
    waiting: RefCell<Option<Waker>>,
}

impl Target {
    /// `len` bytes at `start`.
    ///
    /// # Safety
    /// They may be written to until `owner` and all its clones are dropped, and until then nothing else of this process
    /// reads or writes them. Another process may (a guest, its own memory): what is found there is checked by its checksum,
    /// and never trusted otherwise.
    #[must_use]
    pub unsafe fn new(start: NonNull<u8>, len: usize, owner: Rc<dyn Any>) -> Self {
        Self { start, len, owner }
    }

    /// Where it begins.
    #[must_use]
    pub const fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Its length.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it takes no byte.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// `len` bytes of it, from `at` on.
    ///
    /// # Panics
    /// If it has not so many.
    #[must_use]
    pub fn part(&self, at: usize, len: usize) -> Self {
        let end = at.checked_add(len);
        assert!(end.is_some_and(|end| end <= self.len), "a part of it");
        Self {
            // SAFETY: within the memory, or at its end.
            start: unsafe { self.start.add(at) },
            len,
            owner: Rc::clone(&self.owner),
        }
    }

    /// Lends it.
    #[must_use]
    pub fn lend(&self) -> (Loan, Lease) {
        let state = Rc::new(State::default());
        let inner = Inner {
            target: self.clone(),
            state: Rc::clone(&state),
        };
        (Loan(Rc::new(inner)), Lease(state))
    }

    /// Whether these bytes are the ones in it.
    #[must_use]
    pub fn holds(&self, payload: &Payload) -> bool {
        ptr::eq(payload.as_ptr(), self.start.as_ptr()) && payload.len() == self.len
    }

    /// Copies `pieces` into it, one behind the other, as far as they and it reach. No loan of it may be out.
    pub fn fill<'a>(&self, pieces: impl IntoIterator<Item = &'a Payload>) {
        let mut at = 0;
        for piece in pieces {
            let count = piece.len().min(self.len - at);
            // SAFETY: within the memory, or at its end.
            let place = unsafe { self.start.add(at) };
            // SAFETY: `count` bytes of both; the memory may be written to, and is nobody else's.
            unsafe { ptr::copy(piece.as_ptr(), place.as_ptr(), count) };
            at += count;
        }
    }
}

impl Loan {
    /// What is lent.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.0.target
    }

    /// Whether it is wanted back: then nobody is to write there.
    #[must_use]
    pub fn is_recalled(&self) -> bool {
        self.0.state.is_recalled.get()
    }

    /// It is lent on: calls `hook` when it is wanted back, at once if it is already. There is one hook: the last.
    pub fn on_recall(&self, hook: impl FnOnce() + 'static) {
        self.0.state.is_lent_on.set(true);
        if self.is_recalled() {
            return hook();
        }
        let before = self.0.state.hook.replace(Some(Box::new(hook)));
        drop(before);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.state.is_over.set(true);
        let hook = self.state.hook.take();
        let waiting = self.state.waiting.take();
        drop(hook);
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Lease {
    /// Wants it back.
    pub fn recall(&self) {
        self.0.is_recalled.set(true);
        let hook = self.0.hook.take();
        if let Some(hook) = hook {
            hook();
        }
    }

    /// Whether somebody may write there: a carrier lends it on, and has not said that this is over.
    #[must_use]
    pub fn is_lent_on(&self) -> bool {
        self.0.is_lent_on.get() && !self.0.is_over.get()
    }

    /// Waits until nobody has it; or, if it is wanted back, until nobody writes there.
    pub async fn over(&self) {
        poll_fn(|cx| {
            let is_back = self.0.is_recalled.get() && !self.0.is_lent_on.get();
            if self.0.is_over.get() || is_back {
                return Poll::Ready(());
            }
            let before = self.0.waiting.replace(Some(cx.waker().clone()));
            drop(before);
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.recall();
    }
}

#[cfg(test)]
mod tests {
    use super::Target;
    use crate::buffer::Payload;
    use std::cell::Cell;
    use std::pin::pin;
    use std::ptr::NonNull;
    use std::rc::Rc;
    use std::task::{Context, Poll, Waker};

    fn target(bytes: &mut [u8]) -> Target {
        let start = NonNull::from_mut(bytes).cast();
        // SAFETY: the tests touch the bytes when they are done with it.
        unsafe { Target::new(start, bytes.len(), Rc::new(())) }
    }

    #[test]
    fn pieces_come_to_lie_one_behind_the_other_as_far_as_they_fit() {
        let mut bytes = [9; 8];
        let pieces = [vec![1; 3], Vec::new(), vec![2; 2]].map(Payload::from);
        let into = target(&mut bytes);
        into.part(1, 6).fill(&pieces);
        into.part(6, 2).fill(&pieces);
        into.part(8, 0).fill(&pieces);
        assert!(!into.holds(&pieces[0]));
        assert_eq!(bytes, [9, 1, 1, 1, 2, 2, 1, 1]);
    }

    #[test]
    #[should_panic(expected = "a part of it")]
    fn a_part_beyond_it_is_a_bug() {
        let mut bytes = [9; 8];
        let _ = target(&mut bytes).part(4, 5);
    }

    #[test]
    fn a_loan_is_over_when_its_last_clone_is_gone() {
        let mut bytes = [9; 8];
        let into = target(&mut bytes);
        let (loan, lease) = into.lend();
        let clone = loan.clone();
        let mut over = pin!(lease.over());
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(over.as_mut().poll(&mut cx), Poll::Pending);
        drop(loan);
        assert_eq!(over.as_mut().poll(&mut cx), Poll::Pending);
        drop(clone);
        assert_eq!(over.as_mut().poll(&mut cx), Poll::Ready(()));
    }

    #[test]
    fn what_nobody_has_lent_on_is_back_when_it_is_wanted_back() {
        let mut bytes = [9; 8];
        let into = target(&mut bytes);
        let mut cx = Context::from_waker(Waker::noop());
        for is_lent_on in [false, true] {
            // In a queue, say, behind other requests.
            let (loan, lease) = into.lend();
            assert!(!lease.is_lent_on());
            if is_lent_on {
                loan.on_recall(|| ());
            }
            assert_eq!(lease.is_lent_on(), is_lent_on);
            assert_eq!(pin!(lease.over()).poll(&mut cx), Poll::Pending);
            lease.recall();
            let is_back = pin!(lease.over()).poll(&mut cx).is_ready();
            assert_eq!(is_back, !is_lent_on);
            drop(loan);
            assert!(pin!(lease.over()).poll(&mut cx).is_ready() && !lease.is_lent_on());
        }
    }

    #[test]
    fn who_lends_it_on_hears_once_that_it_is_wanted_back() {
        let mut bytes = [9; 8];
        let into = target(&mut bytes);
        let heard = Rc::new(Cell::new(0));
        let hook = |heard: &Rc<Cell<i32>>| {
            let heard = Rc::clone(heard);
            move || heard.set(heard.get() + 1)
        };
        let (loan, lease) = into.lend();
        loan.on_recall(hook(&heard));
        assert!(!loan.is_recalled() && heard.get() == 0);
        lease.recall();
        assert!(loan.is_recalled() && heard.get() == 1);
        drop(lease);
        assert_eq!(heard.get(), 1);
        loan.on_recall(hook(&heard));
        assert_eq!(heard.get(), 2);
        // Given up, it is wanted back; given back, nobody has to hear of it.
        let (loan, lease) = into.lend();
        loan.on_recall(hook(&heard));
        drop(lease);
        assert!(loan.is_recalled() && heard.get() == 3);
        let (loan, lease) = into.lend();
        loan.on_recall(hook(&heard));
        drop((loan, lease));
        assert_eq!(heard.get(), 3);
    }
}
