//! How fast a store's device is read and written in the background.
//!
//! *Place*: asked by each report. *Owner*: the shard. *Invariants*: the speed is that of the time between two reports. *On
//! failure*: none.

use crate::order::BackgroundStatus;
use ogee_runtime::{Instant, now};
use ogee_store::{Budget, Purpose};
use std::cell::Cell;
use std::time::Duration;

/// Reports that follow each other sooner tell the same speed.
const LOOK_MIN: Duration = Duration::from_millis(500);

/// As of the last look.
pub(super) struct Background {
    at: Cell<Instant>,
    drawn: Cell<u64>,
    speed: Cell<u64>,
}

impl Background {
    pub(super) fn new() -> Self {
        Self {
            at: Cell::new(now()),
            drawn: Cell::new(0),
            speed: Cell::new(0),
        }
    }

    pub(super) fn status(&self, budget: &Budget) -> BackgroundStatus {
        let (now, drawn) = (now(), drawn(budget));
        let time = now.saturating_duration_since(self.at.get());
        if time >= LOOK_MIN {
            let more = drawn - self.drawn.replace(drawn);
            let per_second = u128::from(more) * 1000 / time.as_millis();
            self.speed
                .set(u64::try_from(per_second).unwrap_or(u64::MAX));
            self.at.set(now);
        }
        BackgroundStatus {
            speed: self.speed.get(),
            allowed: budget.allowed(),
            limit: budget.limit(),
        }
    }
}

fn drawn(budget: &Budget) -> u64 {
    Purpose::ALL
        .iter()
        .map(|purpose| budget.drawn(*purpose))
        .sum()
}
