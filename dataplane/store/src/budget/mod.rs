//! What background work may take of a device, or of the network, together: one limit, shared fairly.
//!
//! *Place*: in the store, the lowest layer that copies, comparisons and scrubbing have in common. *Owner*: the shard.
//! A [`Budget`] is one device's; a [`Line`] by itself leads to what several shards share, such as the network.
//!
//! | file | holds |
//! |---|---|
//! | `bucket` | the limit: bytes per second, by one atomic number, so that shards may share it without a lock |
//! | `turns` | whose turn it is: fair queueing by bytes, with weights |
//! | `line` | those who wait, on one shard |
//! | `foreground` | how clients fare, and what share of the limit that leaves |
//!
//! *Invariants*: in any time `t` no more than `limit * t` and one burst goes out ([`Bucket::BURST`] of the limit, and one
//! draw for each shard that shares it). Who waits gets its part, whatever the others want: of what all together get a
//! recovery gets two thirds at least, a copy that only moves a replica a sixth, a comparison and scrubbing a
//! twelfth each. While clients ask for anything and that makes them slower, there is less, down to
//! [`Budget::least`]; while nobody asks, there is all of it. Those who wait are as many as there are steps of copies under
//! way, whose bytes are admitted before, and one more for what is done at leisure. *Cancellation*: who is dropped while
//! it waits has taken nothing, or, when it was next, one draw's worth of time. *On failure*: none.

mod bucket;
mod foreground;
mod line;
mod turns;

pub use bucket::Bucket;
pub use line::Line;
pub use turns::Purpose;

use crate::limit::{BUDGET_LEAST, BUDGET_LEAST_SHARE};
use foreground::Foreground;
use ogee_runtime::{Instant, now};
use std::time::Duration;

/// What all that is done in the background may take of one device.
pub struct Budget {
    limit: Line,
    /// While clients ask for something: less than the limit.
    gentle: Line,
    foreground: Foreground,
}

impl Budget {
    /// Without a limit until there is one.
    pub(crate) fn new() -> Self {
        Self {
            limit: Line::new(Bucket::unlimited()),
            gentle: Line::new(Bucket::unlimited()),
            foreground: Foreground::new(now()),
        }
    }

    /// From now on so many bytes per second.
    pub fn limit_to(&self, bytes: u64) {
        self.limit.bucket().set_limit(bytes);
    }

    /// Bytes per second that it never exceeds; `u64::MAX`: none.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit.bucket().limit()
    }

    /// What there is at least for those who give way to clients, in bytes per second.
    #[must_use]
    pub fn least(&self) -> u64 {
        (self.limit() / BUDGET_LEAST_SHARE).clamp(BUDGET_LEAST.min(self.limit()), self.limit())
    }

    /// What there is now for those who give way to clients.
    #[must_use]
    pub fn allowed(&self) -> u64 {
        let share = self.foreground.share(now());
        let limit = self.limit();
        let allowed = u128::from(limit) * u128::from(share) / u128::from(foreground::WHOLE);
        u64::try_from(allowed)
            .unwrap_or(limit)
            .clamp(self.least(), limit)
    }

    /// Waits until so many bytes may be read or written. `is_pressing`: what would come to nothing if it gave way to
    /// clients, and is held to the limit only.
    pub async fn draw(&self, purpose: Purpose, bytes: usize, is_pressing: bool) {
        if bytes == 0 {
            return;
        }
        self.foreground.note_drawn();
        if !is_pressing {
            let allowed = self.allowed();
            if allowed < self.limit() {
                self.gentle.bucket().set_limit(allowed);
                self.gentle.pass(purpose, bytes).await;
            }
        }
        self.limit.pass(purpose, bytes).await;
    }

    /// Counts what could not wait, so that others wait for it.
    pub fn charge(&self, purpose: Purpose, bytes: usize) {
        self.limit.charge(purpose, bytes);
    }

    /// A request of a client, or its entry's way into the log, took so long.
    pub fn note_foreground(&self, now: Instant, took: Duration) {
        self.foreground.note(now, took);
    }

    /// Requests of clients wait for their turn.
    pub fn note_waiting(&self) {
        self.foreground.note_waiting(now());
    }

    /// Bytes drawn so far.
    #[must_use]
    pub fn drawn(&self, purpose: Purpose) -> u64 {
        self.limit.drawn(purpose)
    }
}

#[cfg(test)]
mod tests {
    use super::{Budget, Purpose};
    use ogee_runtime::executor::block_on;
    use ogee_runtime::now;
    use std::time::Duration;

    const MIB: u64 = 1 << 20;

    #[test]
    fn there_is_a_least_and_never_more_than_the_limit() {
        block_on(async {
            let budget = Budget::new();
            assert_eq!(budget.allowed(), u64::MAX, "nobody has set one");
            for (limit, least) in [(1024 * MIB, 16 * MIB), (64 * MIB, 4 * MIB), (MIB, MIB)] {
                budget.limit_to(limit);
                assert_eq!((budget.allowed(), budget.least()), (limit, least));
            }
        });
    }

    #[test]
    fn what_presses_is_held_to_the_limit_only() {
        block_on(async {
            let budget = Budget::new();
            budget.limit_to(1 << 40);
            budget.note_waiting();
            // Clients wait as long as this takes.
            for _ in 0..64 {
                budget.foreground.press();
            }
            assert_eq!(budget.allowed(), budget.least());
            let piece = 1 << 20;
            budget.draw(Purpose::Recovery, piece, true).await;
            let gentle = budget.gentle.drawn(Purpose::Recovery);
            budget.draw(Purpose::Scrub, piece, false).await;
            assert_eq!((gentle, budget.gentle.drawn(Purpose::Scrub)), (0, 1 << 20));
            assert_eq!(budget.drawn(Purpose::Recovery), 1 << 20);
            budget.note_foreground(now(), Duration::from_millis(1));
        });
    }
}
