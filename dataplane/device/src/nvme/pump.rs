//! The task that polls a drive.
//!
//! Under load it looks in every turn of the executor. With requests in flight that take long it looks less and less often,
//! down to every [`NVME_BACKOFF_MAX`]. With none it sleeps until there is one, and looks at the controller every
//! [`NVME_LOOK`], asking it how it fares every so often. It ends with the device, or when the drive has.

use super::fault::NvmeFault;
use super::port::Port;
use crate::limit::{NVME_BACKOFF_MAX, NVME_BACKOFF_MIN, NVME_LOOK, NVME_RESET_PATIENCE, NVME_SPIN};
use ogee_runtime::{Instant, now, sleep, timeout_at, yield_now};
use std::rc::Rc;

pub(super) async fn run(port: Rc<Port>, name: Rc<str>) {
    let fault = pump(&port, &name).await;
    tracing::error!(device = &*name, error = %fault, "NVMe device lost");
    port.end(fault);
    if fault != NvmeFault::Gone {
        stop(&port, &name).await;
    }
}

async fn pump(port: &Port, name: &str) -> NvmeFault {
    // The first look asks for its health.
    let (mut busy_until, mut next_look) = (now() + NVME_SPIN, now());
    let mut backoff = NVME_BACKOFF_MIN;
    loop {
        let at = now();
        match port.turn() {
            Ok(0) => {}
            Ok(_) => {
                busy_until = at + NVME_SPIN;
                backoff = NVME_BACKOFF_MIN;
            }
            Err(fault) => return fault,
        }
        if at >= next_look {
            next_look = at + NVME_LOOK;
            if let Some(fault) = look(port, name, at) {
                return fault;
            }
        }
        if !port.is_busy() {
            if timeout_at(next_look, port.work.notified()).await.is_ok() {
                busy_until = now() + NVME_SPIN;
                backoff = NVME_BACKOFF_MIN;
            }
        } else if at < busy_until {
            yield_now().await;
        } else {
            sleep(backoff).await;
            backoff = (backoff * 2).min(NVME_BACKOFF_MAX);
        }
    }
}

/// At the controller, and at what takes long.
fn look(port: &Port, name: &str, at: Instant) -> Option<NvmeFault> {
    if let Some(fault) = port.fault_of_drive() {
        return Some(fault);
    }
    let polled = port.admin.as_ref().map(ogee_spdk::Admin::poll);
    if let Some(Err(error)) = polled {
        tracing::warn!(%error, "an NVMe controller fails");
        return Some(NvmeFault::Reset);
    }
    port.look_at_health(name, at);
    port.fault_of_time(at)
}

/// Resets a controller that is of no more use, so that it leaves our memory alone. If it does not, the memory is left to it.
async fn stop(port: &Port, name: &str) {
    let Some(admin) = &port.admin else {
        return;
    };
    let end = now() + NVME_RESET_PATIENCE;
    let mut state = admin.start_reset().map(|()| false);
    while matches!(state, Ok(false)) && now() < end {
        sleep(NVME_BACKOFF_MAX).await;
        state = admin.poll_reset();
    }
    if matches!(state, Ok(true)) {
        tracing::info!(device = name, "the NVMe controller was reset");
        return;
    }
    port.lose();
    let why = state.map_or_else(
        |error| error.to_string(),
        |_| String::from("it takes too long"),
    );
    tracing::error!(
        device = name,
        why,
        "the NVMe controller does not reset: its memory is left to it"
    );
}
