//! How much copies may take from the I/O of clients.
//!
//! *Place*: passed by every piece that this shard sends.
//! *Owner*: one shard, shared by its groups.
//! *Invariants*: at most [`COPIES_MAX`] copies are sent at a time; no more than the configured rate.
//! *On failure*: none.

use crate::limit::COPIES_MAX;
use ogee_proto::unit::ByteLen;
use ogee_runtime::Instant;
use ogee_runtime::channel::{Permit, Semaphore};
use std::cell::Cell;
use std::time::Duration;

/// What one shard's copies share.
#[derive(Debug)]
pub struct CopyBudget {
    slots: Semaphore,
    /// Bytes per second; none: as fast as it goes.
    rate: Option<u64>,
    /// When what was sent so far has been paid for.
    paid: Cell<Option<Instant>>,
    /// Pieces' bytes sent so far.
    sent: Cell<u64>,
}

impl CopyBudget {
    /// With a rate in bytes per second, or as fast as it goes.
    #[must_use]
    pub fn new(rate: Option<ByteLen>) -> Self {
        Self {
            slots: Semaphore::new(COPIES_MAX),
            rate: rate.map(|rate| rate.get().max(1)),
            paid: Cell::new(None),
            sent: Cell::new(0),
        }
    }

    /// Bytes of blocks sent in copies so far.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.sent.get()
    }

    /// Waits for the turn of a copy.
    pub(crate) async fn turn(&self) -> Permit {
        self.slots.acquire(1).await
    }

    /// Waits until a piece of `len` bytes may go out.
    pub(crate) async fn pass(&self, len: usize) {
        self.sent.set(self.sent.get() + len as u64);
        let Some(rate) = self.rate else {
            return;
        };
        let now = ogee_runtime::now();
        let turn = self.paid.get().map_or(now, |paid| paid.max(now));
        let nanos = u128::from(len as u64) * Duration::from_secs(1).as_nanos() / u128::from(rate);
        let price = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.paid.set(Some(turn + price));
        if turn > now {
            ogee_runtime::sleep_until(turn).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::CopyBudget;
    use crate::fixture::run;
    use crate::limit::COPIES_MAX;
    use futures_util::poll;
    use ogee_proto::unit::ByteLen;
    use std::pin::pin;
    use std::time::Duration;

    const PIECE: usize = 128 << 10;

    async fn passing(budget: &CopyBudget, pieces: usize) -> Duration {
        let started = ogee_runtime::now();
        for _ in 0..pieces {
            budget.pass(PIECE).await;
        }
        ogee_runtime::now().saturating_duration_since(started)
    }

    #[test]
    fn a_rate_holds_pieces_back_and_none_does_not() {
        run(async {
            // 128 KiB take 1/32 s each; the first need not wait.
            let slow = CopyBudget::new(Some(ByteLen::new(4 << 20)));
            let paced = passing(&slow, 17).await;
            assert!(paced >= Duration::from_millis(500), "{paced:?}");
            let free = passing(&CopyBudget::new(None), 17).await;
            assert!(free < paced / 4, "{free:?}");
            assert_eq!(slow.bytes_sent(), 17 * PIECE as u64);
        });
    }

    #[test]
    fn copies_take_turns() {
        run(async {
            let budget = CopyBudget::new(None);
            let mut turns = Vec::new();
            for _ in 0..COPIES_MAX {
                turns.push(budget.turn().await);
            }
            let mut next = pin!(budget.turn());
            assert!(poll!(&mut next).is_pending());
            turns.pop();
            assert!(poll!(&mut next).is_ready());
        });
    }
}
