//! The task that posts.
//!
//! *Place*: beside the receiver, as the writer of a byte stream is. *Owner*: one per connection; ends with it.
//! *Invariants*: it looks when something was queued, something completed, or memory came back; nothing is spawned
//! per frame. *On failure*: a wire that has ended is left to the receiver for one ping interval, since what came
//! before says why. Then the connection fails.

use super::wire::Wire;
use crate::error::TransportError;
use crate::link::{Link, Phase};
use ogee_runtime::sleep;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

/// Posts until the connection is over.
pub(crate) async fn run(link: Rc<Link>, wire: Rc<Wire>) {
    if let Err(cause) = post(&link, &wire).await {
        wire.end(cause.clone());
        let linger = sleep(link.options().keepalive.ping_after());
        let _ = link.unless(Phase::Draining, &link.writer, linger).await;
        link.fail(cause);
    }
    wire.close();
    link.fail(TransportError::Closed);
}

async fn post(link: &Link, wire: &Rc<Wire>) -> Result<(), TransportError> {
    poll_fn(|cx| {
        wire.register(cx);
        link.writer.register(cx);
        let phase = link.phase();
        if phase == Phase::Closed {
            return Poll::Ready(Ok(()));
        }
        let posted = wire.progress(&mut || link.take_frame());
        let outcome = match (posted, wire.ended()) {
            (Err(cause), _) | (Ok(()), Some(cause)) => Err(cause),
            (Ok(()), None)
                if phase == Phase::Draining && link.queued().0 == 0 && wire.is_drained() =>
            {
                Ok(())
            }
            (Ok(()), None) if phase == Phase::Draining && link.queued().0 == 0 => {
                match wire.settle() {
                    Ok(()) => return Poll::Pending,
                    Err(cause) => Err(cause),
                }
            }
            (Ok(()), None) => return Poll::Pending,
        };
        Poll::Ready(outcome)
    })
    .await
}
