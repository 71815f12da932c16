//! The sending side of a connection.
//!
//! *Place*: the last stop of every reply. *Owner*: one task per connection.
//! *Invariants*: whatever is queued when the socket is free goes out as one write. A reply's
//! admission ends when its bytes are in the socket, so a client that does not read is not read
//! from either. *On failure*: the queue closes; requests under way finish and their replies are
//! dropped.

use super::batch::Batch;
use super::reply::{Admission, Reply};
use ogee_runtime::channel::mpsc;
use ogee_runtime::net::WriteHalf;
use std::io;

/// Sends replies until all who could make some are gone.
pub(super) async fn send_replies(
    mut replies: mpsc::Receiver<Reply>,
    mut half: WriteHalf,
    is_structured: bool,
) -> io::Result<()> {
    let mut batch = Batch::default();
    let mut admissions: Vec<Admission> = Vec::new();
    while let Some(first) = replies.recv().await {
        let mut next = Some(first);
        while let Some(Reply {
            cookie,
            body,
            admission,
        }) = next
        {
            body.encode(cookie, is_structured, &mut batch);
            admissions.push(admission);
            // Bounded: a reply has a slot of its connection, and gets no new one before it is sent.
            next = replies.try_recv().ok();
        }
        batch.send(&mut half).await?;
        admissions.clear();
    }
    half.shutdown().await.or_else(|error| match error.kind() {
        io::ErrorKind::NotConnected => Ok(()),
        _ => Err(error),
    })
}
