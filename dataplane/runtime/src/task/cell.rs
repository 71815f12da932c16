//! One task: its future while it runs, its output until it is joined.
//!
//! **Place.** Between the handles (`handle`) and the engine, which only sees a driver future that
//! polls the cell.
//!
//! **Owner.** The engine's task and the handle share the cell; both live on one thread.
//!
//! **Invariants.** While the future is polled it is outside the cell, so a task may cancel itself or
//! be cancelled by what it calls. Cancelling drops the future at once and then lets the engine's
//! task run to its end, because the io_uring engine leaks tasks that are dropped while pending.
//!
//! **Failure.** A panic in the future unwinds through the driver into the executor.

use std::cell::{Cell, OnceCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::handle::{Cancelled, Join};
use super::table::{self, Abort, Slot};
use super::waker::TaskWaker;
use crate::engine;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Finished,
    Cancelled,
}

struct TaskCell<F: Future> {
    future: Cell<Option<Pin<Box<F>>>>,
    output: Cell<Option<F::Output>>,
    phase: Cell<Phase>,
    joiner: Cell<Option<Waker>>,
    is_joinable: Cell<bool>,
    waker: OnceCell<(Arc<TaskWaker>, Waker)>,
    slot: OnceCell<Slot>,
}

/// Starts a task and returns what its handle needs.
pub(super) fn start<F>(future: F) -> Rc<dyn Join<F::Output>>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let cell = Rc::new(TaskCell {
        future: Cell::new(Some(Box::pin(future))),
        output: Cell::new(None),
        phase: Cell::new(Phase::Running),
        joiner: Cell::new(None),
        is_joinable: Cell::new(true),
        waker: OnceCell::new(),
        slot: OnceCell::new(),
    });
    let weak = Rc::downgrade(&cell);
    cell.slot
        .set(table::enter(weak))
        .expect("invariant: the slot is set once, here");
    let driven = Rc::clone(&cell);
    engine::spawn(poll_fn(move |cx| driven.drive(cx)));
    cell
}

/// Runs the main future of an executor with the same wakers that tasks get.
pub(crate) async fn run_root<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut link: Option<Arc<TaskWaker>> = None;
    let output = poll_fn(|cx| {
        let link = link.get_or_insert_with(|| TaskWaker::new(cx.waker().clone()));
        let waker = Waker::from(Arc::clone(link));
        future.as_mut().poll(&mut Context::from_waker(&waker))
    })
    .await;
    if let Some(link) = link {
        link.disarm();
    }
    output
}

impl<F: Future> TaskCell<F> {
    /// One poll by the engine; ready when the task has ended either way.
    fn drive(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.phase.get() != Phase::Running {
            self.disarm();
            return Poll::Ready(());
        }
        let (_, waker) = self.waker.get_or_init(|| {
            let link = TaskWaker::new(cx.waker().clone());
            (Arc::clone(&link), Waker::from(link))
        });
        let Some(mut future) = self.future.take() else {
            return Poll::Ready(());
        };
        match future.as_mut().poll(&mut Context::from_waker(waker)) {
            Poll::Ready(output) => {
                drop(future);
                self.finish(output);
                Poll::Ready(())
            }
            Poll::Pending if self.phase.get() == Phase::Running => {
                self.future.set(Some(future));
                Poll::Pending
            }
            Poll::Pending => {
                drop(future);
                self.disarm();
                Poll::Ready(())
            }
        }
    }

    fn finish(&self, output: F::Output) {
        // Cancelled from inside its own last poll: the handle already knows.
        if self.phase.get() == Phase::Running {
            self.phase.set(Phase::Finished);
            if self.is_joinable.get() {
                self.output.set(Some(output));
            }
            self.leave_table();
            self.wake_joiner();
        }
        self.disarm();
    }

    fn leave_table(&self) {
        if let Some(slot) = self.slot.get() {
            table::leave(*slot);
        }
    }

    fn wake_joiner(&self) {
        if let Some(joiner) = self.joiner.take() {
            joiner.wake();
        }
    }

    fn disarm(&self) {
        if let Some((link, _)) = self.waker.get() {
            link.disarm();
        }
    }
}

impl<F: Future> Abort for TaskCell<F> {
    fn abort(&self) {
        if self.phase.get() != Phase::Running {
            return;
        }
        self.phase.set(Phase::Cancelled);
        self.leave_table();
        drop(self.future.take());
        self.wake_joiner();
        // Not polled yet means that the engine will poll it anyway.
        if let Some((_, waker)) = self.waker.get() {
            waker.wake_by_ref();
        }
    }
}

impl<F: Future> Join<F::Output> for TaskCell<F> {
    fn poll_join(&self, cx: &mut Context<'_>) -> Poll<Result<F::Output, Cancelled>> {
        match self.phase.get() {
            Phase::Running => {
                self.joiner.set(Some(cx.waker().clone()));
                Poll::Pending
            }
            Phase::Finished => {
                let output = self.output.take();
                Poll::Ready(Ok(
                    output.expect("a JoinHandle is polled after it was ready")
                ))
            }
            Phase::Cancelled => Poll::Ready(Err(Cancelled)),
        }
    }

    fn is_finished(&self) -> bool {
        self.phase.get() != Phase::Running
    }

    fn detach(&self) {
        self.is_joinable.set(false);
        self.joiner.set(None);
        drop(self.output.take());
    }
}
