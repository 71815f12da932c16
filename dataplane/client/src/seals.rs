//! Seals every copyset of a volume as soon as it is attached.
//!
//! *Place*: one task for each open volume; `core` does the sealing, and does it again for a copyset
//! that a request finds unsealed (a map that grew, a group restored from before the seal).
//! *Owner*: the shard of the volume; ends when all are sealed, or with the last handle.
//! *Invariants*: once a copyset is sealed, nothing of an earlier attachment takes effect in it any
//! more, however long it was on its way. Whoever opens a volume hears which copysets lack the seal.
//! *On failure*: a copyset that has no leader is tried until it has; its range waits meanwhile.

use crate::core::Core;
use crate::error::ClientError;
use crate::limit::{PARTS_PER_REQUEST_MAX, SEAL_WAIT};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use ogee_runtime::channel::oneshot;
use ogee_runtime::{ScopedTask, spawn_scoped, timeout};
use std::rc::Rc;

/// Starts sealing and waits for its end, up to [`SEAL_WAIT`] or the user's own limit; the task goes
/// on with what is left.
///
/// # Errors
/// What ended it early: a newer attachment, or a copyset that refuses us.
pub(crate) async fn start(core: &Rc<Core>) -> Result<ScopedTask<()>, ClientError> {
    let (done, ended) = oneshot::channel();
    let task = spawn_scoped({
        let core = Rc::clone(core);
        async move {
            let outcome = seal_all(&core).await;
            if let Err(Err(error)) = done.send(outcome) {
                tracing::error!(volume = %core.attachment.volume, %error, "sealing has ended");
            }
        }
    });
    let limit = core.io_timeout.map_or(SEAL_WAIT, |own| own.min(SEAL_WAIT));
    match timeout(limit, ended).await {
        Ok(Ok(outcome)) => outcome?,
        // Still at it.
        Err(_) | Ok(Err(_)) => {
            let unsealed = core.routes.unsealed();
            tracing::warn!(
                volume = %core.attachment.volume, epoch = %core.attachment.epoch,
                copysets = ?unsealed, waited_ms = limit.as_millis(),
                "attached, but these copysets have not answered: their ranges wait, and are not \
                 fenced against an earlier attachment yet; see `ogee copyset show`",
            );
        }
    }
    Ok(task)
}

async fn seal_all(core: &Core) -> Result<(), ClientError> {
    stream::iter(core.routes.copysets())
        .map(async |copyset| core.seal(&copyset).await)
        .buffer_unordered(PARTS_PER_REQUEST_MAX)
        .try_collect()
        .await
}
