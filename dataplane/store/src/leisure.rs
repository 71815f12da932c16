//! What background work waits for before it uses the device: foreground first.
//!
//! *Place*: in the store, since that is one device; scrubbing and the comparison of replicas ask for it. *Owner*: the
//! store's shard. *Invariants*: one piece of such work at a time, in the order in which it was asked for; after each the
//! device rests for [`LEISURE_REST`] times as long as that took: however slow it is, and whatever kinds of work there
//! are, it is busy with all of them together for a tenth of the time at most. While a copyset that lacks a replica gets one
//! from or on this device it is at nobody else's leisure, for [`LEISURE_YIELD_MAX`] at most. *Cancellation*: who is dropped while it
//! waits has taken nothing. *On failure*: none; what fails counts for the time that it took.

use crate::limit::{LEISURE_REST, LEISURE_YIELD_MAX};
use ogee_runtime::channel::{Mutex, Notify};
use ogee_runtime::{Instant, now, sleep_until, timeout};
use std::cell::Cell;

/// The leisure of one device.
pub struct Leisure {
    turn: Mutex<()>,
    rests_until: Cell<Instant>,
    copies: Cell<u32>,
    copied: Notify,
}

/// While it lives, a replica that a copyset lacks is being copied from or to the device.
pub struct Copying<'a>(&'a Leisure);

impl Drop for Copying<'_> {
    fn drop(&mut self) {
        let copies = &self.0.copies;
        copies.set(copies.get() - 1);
        if copies.get() == 0 {
            self.0.copied.notify_all();
        }
    }
}

impl Leisure {
    pub(crate) fn new() -> Self {
        Self {
            turn: Mutex::new(()),
            rests_until: Cell::new(now()),
            copies: Cell::new(0),
            copied: Notify::new(),
        }
    }

    /// Says that a replica is copied that a copyset lacks, which comes before everything that is done at leisure.
    #[must_use]
    pub fn copying(&self) -> Copying<'_> {
        self.copies.set(self.copies.get() + 1);
        Copying(self)
    }

    /// Does something with the device when nothing else is done at leisure, it has rested, and `allowed` has ended.
    pub async fn take<T>(
        &self,
        allowed: impl Future<Output = ()>,
        work: impl Future<Output = T>,
    ) -> T {
        let _turn = self.turn.lock().await;
        sleep_until(self.rests_until.get()).await;
        self.after_copies().await;
        allowed.await;
        let begun = now();
        let done = work.await;
        let ended = now();
        self.rests_until.set(ended + (ended - begun) * LEISURE_REST);
        done
    }

    async fn after_copies(&self) {
        let ended = async {
            loop {
                let copied = self.copied.notified();
                if self.copies.get() == 0 {
                    return;
                }
                copied.await;
            }
        };
        // It has waited long enough: what rots meanwhile is not found.
        let _ended = timeout(LEISURE_YIELD_MAX, ended).await;
    }
}

#[cfg(test)]
mod tests {
    use super::Leisure;
    use ogee_runtime::executor::block_on;
    use ogee_runtime::{now, sleep, spawn};
    use std::rc::Rc;
    use std::time::Duration;

    const WORK: Duration = Duration::from_millis(10);

    #[test]
    fn the_device_rests_nine_times_as_long_whoever_asks() {
        block_on(async {
            let leisure = Rc::new(Leisure::new());
            let begun = now();
            let other = leisure.clone();
            let beside =
                spawn(async move { other.take(async {}, async { sleep(WORK).await }).await });
            leisure.take(async {}, async { sleep(WORK).await }).await;
            beside.await.expect("it ends");
            leisure.take(async {}, async {}).await;
            // Timers may be a little early.
            assert!(now() - begun >= WORK * 18);
        });
    }

    #[test]
    fn copies_come_first() {
        block_on(async {
            let leisure = Rc::new(Leisure::new());
            let (begun, other) = (now(), leisure.clone());
            let copy = spawn(async move {
                let _copying = other.copying();
                sleep(WORK * 5).await;
            });
            sleep(Duration::from_millis(1)).await;
            leisure.take(async {}, async {}).await;
            assert!(now() - begun >= WORK * 4);
            copy.await.expect("it ends");
        });
    }
}
