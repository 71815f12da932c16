//! The task that writes.
//!
//! *Place*: empties the outbox into the byte stream. *Owner*: one per connection; ends with it.
//! *Invariants*: everything queued when it wakes goes out in one write. Wakes of one executor turn
//! coalesce, so a burst of replies costs one system call. *On failure*: a broken output alone does
//! not end the connection at once: the peer may have said why before it left, so the receiver gets
//! one ping interval to read that. Then the connection fails.

use crate::error::{Doing, TransportError};
use crate::link::{Link, Phase};
use crate::metrics::count;
use crate::outbox::Batch;
use crate::stream::WriteEnd;
use ogee_runtime::sleep;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;

/// Writes until the connection is over. The other direction is the receiver's to end, so that the
/// peer can read what was written last.
pub(crate) async fn run(link: Rc<Link>, mut stream: WriteEnd) {
    if let Err(error) = write_batches(&link, &mut stream).await {
        let linger = sleep(link.options().keepalive.ping_after());
        let _ = link.unless(Phase::Draining, &link.writer, linger).await;
        link.fail(TransportError::io(Doing::Write, &error));
    }
    drop(stream);
    link.fail(TransportError::Closed);
}

async fn write_batches(link: &Link, stream: &mut WriteEnd) -> io::Result<()> {
    let mut spare = Batch::default();
    while poll_fn(|cx| link.poll_output(cx)).await {
        let batch = link.take(spare);
        let written = write(stream, &batch);
        let Some(outcome) = link.unless(Phase::Closed, &link.writer, written).await else {
            return Ok(());
        };
        outcome?;
        link.written(&batch);
        count(|metrics| {
            metrics.frames_out.add(batch.frames());
            metrics.bytes_out.add(batch.bytes());
            metrics.writes.bump();
        });
        spare = batch.recycled();
    }
    Ok(())
}

async fn write(stream: &mut WriteEnd, batch: &Batch) -> io::Result<()> {
    match batch.single() {
        Some(bytes) => stream.write_all(bytes).await,
        None => stream.write_all_vectored(&mut batch.pieces()).await,
    }
}
