//! The task that polls a drive.
//!
//! Of a drive that interrupts it waits for that while there is something to wait for. Of others: under load it looks in every turn of the executor. With requests in flight that take long it looks less and less often,
//! down to every [`NVME_BACKOFF_MAX`]. With none it sleeps until there is one, and looks at the controller every
//! [`NVME_LOOK`], asking it how it fares every so often. It ends with the device, or when the drive has.

use super::bell::Bell;
use super::fault::NvmeFault;
use super::port::Port;
use crate::limit::{NVME_BACKOFF_MAX, NVME_BACKOFF_MIN, NVME_LOOK, NVME_RESET_PATIENCE, NVME_SPIN};
use ogee_runtime::{Instant, now, sleep, timeout_at, yield_now};
use std::io;
use std::rc::Rc;
use std::time::Duration;

pub(super) async fn run(port: Rc<Port>, name: Rc<str>) {
    let fault = pump(&port, &name).await;
    tracing::error!(device = &*name, error = %fault, "NVMe device lost");
    port.end(fault);
    if fault != NvmeFault::Gone {
        stop(&port, &name).await;
    }
}

async fn pump(port: &Port, name: &str) -> NvmeFault {
    let mut bell = bell(port, name);
    // The first look asks for its health.
    let mut next_look = now();
    let mut rest = Rest::new();
    loop {
        let at = now();
        let found = match port.turn() {
            Ok(found) => found,
            Err(fault) => return fault,
        };
        if at >= next_look {
            next_look = at + NVME_LOOK;
            if let Some(fault) = look(port, name, at) {
                return fault;
            }
        }
        if found > 0 {
            rest.begin(at);
        }
        if !port.is_busy() {
            if timeout_at(next_look, port.work.notified()).await.is_ok() {
                rest.begin(now());
            }
        } else if let Some(ringing) = &mut bell {
            if let Err(error) = wait(port, ringing, found, next_look).await {
                tracing::warn!(device = name, %error, "the drive's interrupts are not heard: it is polled");
                bell = None;
            }
        } else {
            rest.take(at).await;
        }
    }
}

/// How a drive is looked at that does not interrupt: for a while in each turn, then less and less often.
struct Rest {
    busy_until: Instant,
    backoff: Duration,
}

impl Rest {
    fn new() -> Self {
        Self {
            busy_until: now() + NVME_SPIN,
            backoff: NVME_BACKOFF_MIN,
        }
    }

    fn begin(&mut self, at: Instant) {
        self.busy_until = at + NVME_SPIN;
        self.backoff = NVME_BACKOFF_MIN;
    }

    async fn take(&mut self, at: Instant) {
        if at < self.busy_until {
            return yield_now().await;
        }
        sleep(self.backoff).await;
        self.backoff = (self.backoff * 2).min(NVME_BACKOFF_MAX);
    }
}

/// Of a drive that interrupts.
fn bell(port: &Port, name: &str) -> Option<Bell> {
    Bell::of(port).unwrap_or_else(|error| {
        tracing::warn!(device = name, %error, "the drive's interrupts cannot be waited for: it is polled");
        None
    })
}

/// Until it rings, or the next look is due. What it rang for is taken before the queue is looked at.
async fn wait(port: &Port, bell: &mut Bell, found: usize, next_look: Instant) -> io::Result<()> {
    if found > 0 {
        // A turn takes so many: for what it has left, nothing rings again.
        yield_now().await;
        return Ok(());
    }
    match timeout_at(next_look, bell.rung()).await {
        Ok(rung) => rung.and_then(|()| port.hear()),
        Err(_) => Ok(()),
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
