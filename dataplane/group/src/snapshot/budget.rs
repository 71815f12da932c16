//! How much copies may take from the I/O of clients.
//!
//! *Place*: passed by every piece that this shard sends, and, for the network, by every one that comes in. What they may
//! take of devices is `ogee_store`'s.
//! *Owner*: one shard, shared by its groups.
//! *Invariants*: at most [`COPIES_MAX`] copies are sent at a time, and [`RECOVERIES_MORE`] more to copysets that lack a
//! replica, so that those do not wait for replicas that are only moved; no more is sent than the configured rate; no
//! more is sent and received, by all shards together, than what they share of the network.
//! *On failure*: none.

use crate::limit::{COPIES_MAX, RECOVERIES_MORE};
use futures_util::future::{Either, select};
use ogee_proto::unit::ByteLen;
use ogee_runtime::Instant;
use ogee_runtime::channel::{Permit, Semaphore};
use ogee_store::{Bucket, Line, Purpose};
use std::cell::Cell;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// What one shard's copies share.
#[derive(Debug)]
pub struct CopyBudget {
    slots: Semaphore,
    /// More of them, for those who lack a replica.
    more: Semaphore,
    /// Leads to what all shards share of the network.
    network: Line,
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
        Self::with_network(rate, Bucket::unlimited())
    }

    /// The same, with a share of the network.
    #[must_use]
    pub fn with_network(rate: Option<ByteLen>, network: Arc<Bucket>) -> Self {
        Self {
            slots: Semaphore::new(COPIES_MAX),
            more: Semaphore::new(RECOVERIES_MORE),
            network: Line::new(network),
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

    /// Bytes of copies that have been sent and received.
    #[must_use]
    pub fn network(&self) -> &Line {
        &self.network
    }

    /// Waits for the turn of a copy.
    pub(crate) async fn turn(&self, purpose: Purpose) -> Permit {
        let slot = pin!(self.slots.acquire(1));
        if purpose != Purpose::Recovery {
            return slot.await;
        }
        match select(slot, pin!(self.more.acquire(1))).await {
            Either::Left((permit, _)) | Either::Right((permit, _)) => permit,
        }
    }

    /// Waits until a piece of `len` bytes that has come may be taken.
    pub(crate) async fn receive(&self, purpose: Purpose, len: usize) {
        self.network.pass(purpose, len).await;
    }

    /// Waits until a piece of `len` bytes may go out.
    pub(crate) async fn pass(&self, purpose: Purpose, len: usize) {
        self.network.pass(purpose, len).await;
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
    use crate::limit::{COPIES_MAX, RECOVERIES_MORE};
    use futures_util::poll;
    use ogee_proto::unit::ByteLen;
    use ogee_store::Purpose;
    use std::pin::pin;
    use std::time::Duration;

    const PIECE: usize = 128 << 10;

    async fn passing(budget: &CopyBudget, pieces: usize) -> Duration {
        let started = ogee_runtime::now();
        for _ in 0..pieces {
            budget.pass(Purpose::Move, PIECE).await;
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
                turns.push(budget.turn(Purpose::Move).await);
            }
            let mut next = pin!(budget.turn(Purpose::Move));
            assert!(poll!(&mut next).is_pending());
            // Who lacks a replica does not wait for those.
            for _ in 0..RECOVERIES_MORE {
                turns.push(budget.turn(Purpose::Recovery).await);
            }
            assert!(poll!(pin!(budget.turn(Purpose::Recovery))).is_pending());
            drop(turns.remove(0));
            assert!(poll!(&mut next).is_ready());
        });
    }
}
