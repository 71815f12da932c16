//! Keeps the map young: every few seconds, and soon when a request suspects it.
//!
//! *Place*: one task for each open volume, between the control plane and `routes`.
//! *Owner*: the shard of the volume; ends with the last handle.
//! *Invariants*: no request waits for this task. Maps are fetched `REFRESH_GAP` apart or more.
//! *On failure*: the old map stays. With every metadata server down, I/O goes on as long as the
//! copysets stay where they are; their leaders are found without the map.

use crate::attachment::Attachment;
use crate::control::Control;
use crate::core::Core;
use crate::limit::{REFRESH_GAP, REFRESH_PERIOD};
use crate::map::VolumeMap;
use crate::mds::ControlError;
use ogee_runtime::{sleep, timeout};
use std::rc::Rc;

/// Runs until cancelled.
pub(crate) async fn run(core: Rc<Core>, control: Rc<dyn Control>) {
    let Attachment { client, epoch, .. } = core.attachment;
    let mut failing = false;
    loop {
        // Either outcome is a reason.
        let _ = timeout(REFRESH_PERIOD, core.routes.wanted()).await;
        let outcome = control.refresh(&core.name, client, epoch).await;
        core.metrics.refresh(outcome.is_ok());
        match outcome {
            Ok(map) => {
                failing = false;
                install(&core, map);
            }
            Err(error) => report(&core, &error, std::mem::replace(&mut failing, true)),
        }
        sleep(REFRESH_GAP).await;
    }
}

/// Once for each outage.
fn report(core: &Core, error: &ControlError, reported: bool) {
    if !reported {
        let volume = core.attachment.volume;
        tracing::warn!(%volume, %error, "volume map not refreshed; I/O goes on with the old one");
    }
}

fn install(core: &Core, map: VolumeMap) {
    let size = map.head().size;
    core.routes.install(map);
    let changed = core.size.send_if_modified(|known| {
        let changed = *known != size;
        *known = size;
        changed
    });
    if changed {
        tracing::info!(volume = %core.attachment.volume, %size, "resized");
    }
}
