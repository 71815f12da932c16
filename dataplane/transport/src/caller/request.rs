//! One call, from frame to reply.

use super::driver::Shared;
use super::session::Session;
use super::slots::Found;
use crate::call_id::CallId;
use crate::error::{CallError, SendError, TransportError};
use crate::frame::Frame;
use ogee_runtime::channel::Permit;
use ogee_runtime::{Instant, now, timeout_at};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// Runs one call. With a connection, a credit and room at hand it allocates nothing and sets no
/// timer.
pub(super) async fn run(
    shared: &Shared,
    frame: Frame,
    deadline: Instant,
    limit: Duration,
) -> Result<Frame, CallError> {
    let session = match shared.session() {
        Some(session) => session,
        None => {
            let wait = deadline.min(now() + shared.options().connect_wait);
            shared.wait_session(wait).await?
        }
    };
    let permit = match session.credits().try_acquire(1) {
        Some(permit) => permit,
        None => wait_credit(&session, deadline, limit).await?,
    };
    let id = submit(&session, frame, permit, deadline, limit).await?;
    reply(
        Waiting {
            session,
            id,
            done: false,
        },
        limit,
    )
    .await
}

async fn wait_credit(
    session: &Session,
    deadline: Instant,
    limit: Duration,
) -> Result<Permit, CallError> {
    let acquire = unless_ended(session, session.credits().acquire(1));
    match timeout_at(deadline, acquire).await {
        Err(_) => Err(CallError::Timeout { sent: false, limit }),
        Ok(Err(cause)) => Err(CallError::Disconnected { sent: false, cause }),
        Ok(Ok(permit)) => Ok(permit),
    }
}

/// Runs `future` unless the connection ends first.
async fn unless_ended<F: Future>(
    session: &Session,
    future: F,
) -> Result<F::Output, TransportError> {
    let (mut future, mut ended) = (pin!(future), pin!(session.sender().closed()));
    poll_fn(|cx| match ended.as_mut().poll(cx) {
        Poll::Ready(cause) => Poll::Ready(Err(cause)),
        Poll::Pending => future.as_mut().poll(cx).map(Ok),
    })
    .await
}

/// Queues the request. Until that has happened the slot is held by no await.
async fn submit(
    session: &Session,
    mut frame: Frame,
    mut permit: Permit,
    deadline: Instant,
    limit: Duration,
) -> Result<CallId, CallError> {
    loop {
        let id = session.slots().borrow_mut().insert(permit, deadline);
        frame.header.request_id = id.encode();
        let Err(error) = session.sender().try_send(frame) else {
            session.watch(deadline);
            return Ok(id);
        };
        permit = session.slots().borrow_mut().remove(id);
        frame = refused(error)?;
        if timeout_at(deadline, session.sender().room()).await.is_err() {
            return Err(CallError::Timeout { sent: false, limit });
        }
    }
}

/// The frame, if it may be sent later.
fn refused(error: SendError) -> Result<Frame, CallError> {
    match error {
        SendError::Full(frame) => Ok(*frame),
        SendError::Closed { cause, .. } => Err(CallError::Disconnected { sent: false, cause }),
        SendError::TooLong { field, len, limit } => Err(CallError::TooLong { field, len, limit }),
    }
}

/// A call whose request is queued. Dropping it gives the call up.
struct Waiting {
    session: Rc<Session>,
    id: CallId,
    done: bool,
}

async fn reply(mut call: Waiting, limit: Duration) -> Result<Frame, CallError> {
    poll_fn(|cx| {
        match call.session.slots().borrow_mut().poll(call.id, cx) {
            Poll::Ready(Found::Reply(frame)) => {
                call.done = true;
                return Poll::Ready(Ok(frame));
            }
            Poll::Ready(Found::Expired) => {
                return Poll::Ready(Err(CallError::Timeout { sent: true, limit }));
            }
            Poll::Pending => {}
        }
        match call.session.sender().cause() {
            Some(cause) => Poll::Ready(Err(CallError::Disconnected { sent: true, cause })),
            None => Poll::Pending,
        }
    })
    .await
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.done {
            self.session.slots().borrow_mut().give_up(self.id);
        }
    }
}
