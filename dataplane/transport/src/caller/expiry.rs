//! The task that ends calls whose time is over.
//!
//! One timer per connection instead of one per call: deadlines are mostly a constant ahead, so it
//! wakes about once per timeout however many calls there were.

use super::session::Session;
use ogee_runtime::{Instant, now, sleep_until};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

/// Runs until the connection is over.
pub(super) async fn run(session: Rc<Session>) {
    while session.sender().cause().is_none() {
        let next = session.slots().borrow_mut().expire(now());
        session.armed().set(next);
        wait(&session, next).await;
    }
}

async fn wait(session: &Session, until: Option<Instant>) {
    let mut timer = pin!(until.map(sleep_until));
    poll_fn(|cx| {
        if session.poke().poll_take(cx).is_ready() {
            return Poll::Ready(());
        }
        match timer.as_mut().as_pin_mut() {
            Some(timer) => timer.poll(cx),
            None => Poll::Pending,
        }
    })
    .await;
}
