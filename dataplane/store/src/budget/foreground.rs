//! How clients fare, and what share of a limit that leaves to what is done in the background.
//!
//! *Place*: told of requests and their latency, asked by draws. *Owner*: one shard; plain cells, and no timer: a window is
//! closed by whoever comes first after its end. *Invariants*: the share halves with each window of [`FOREGROUND_LOOK`] in which
//! clients wait for their turn, or take half as long again as is usual without background work and
//! [`FOREGROUND_SLACK`] more; it grows by a quarter with each other one, and is whole when nobody has asked for
//! anything for [`FOREGROUND_IDLE`]. What is usual is learnt while nothing is drawn. If clients stay slow with the least
//! share, it is not the background's doing, and what is usual moves there slowly. *On failure*: none.

use crate::limit::{FOREGROUND_IDLE, FOREGROUND_LOOK, FOREGROUND_SLACK};
use ogee_runtime::Instant;
use std::cell::Cell;
use std::time::Duration;

/// The whole share.
pub(super) const WHOLE: u32 = 1 << 10;
/// The least that is told apart; what it comes to is bounded by [`super::Budget::least`].
const LEAST: u32 = WHOLE / 64;

#[derive(Debug)]
pub(super) struct Foreground {
    window: Cell<Instant>,
    asked: Cell<Option<Instant>>,
    /// Of this window: requests, and what they took.
    count: Cell<u32>,
    sum: Cell<Duration>,
    has_waited: Cell<bool>,
    has_drawn: Cell<bool>,
    /// Mean of a request while nothing is drawn.
    usual: Cell<Option<Duration>>,
    share: Cell<u32>,
}

impl Foreground {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            window: Cell::new(now),
            asked: Cell::new(None),
            count: Cell::new(0),
            sum: Cell::new(Duration::ZERO),
            has_waited: Cell::new(false),
            has_drawn: Cell::new(false),
            usual: Cell::new(None),
            share: Cell::new(WHOLE),
        }
    }

    /// Something was drawn, or is to be.
    pub(super) fn note_drawn(&self) {
        self.has_drawn.set(true);
    }

    /// A request took so long.
    pub(super) fn note(&self, now: Instant, took: Duration) {
        self.look(now);
        self.asked.set(Some(now));
        self.count.set(self.count.get().saturating_add(1));
        self.sum.set(self.sum.get().saturating_add(took));
    }

    /// Requests wait for their turn.
    pub(super) fn note_waiting(&self, now: Instant) {
        self.look(now);
        self.asked.set(Some(now));
        self.has_waited.set(true);
    }

    /// The share now.
    pub(super) fn share(&self, now: Instant) -> u32 {
        self.look(now);
        self.share.get()
    }

    fn look(&self, now: Instant) {
        if now < self.window.get() + FOREGROUND_LOOK {
            return;
        }
        self.window.set(now);
        let (count, sum) = (self.count.replace(0), self.sum.replace(Duration::ZERO));
        let (has_waited, has_drawn) = (
            self.has_waited.replace(false),
            self.has_drawn.replace(false),
        );
        let is_idle = |asked: Instant| now >= asked + FOREGROUND_IDLE;
        if self.asked.get().is_none_or(is_idle) {
            self.share.set(WHOLE);
        } else if has_drawn {
            self.weigh((count > 0).then(|| sum / count), has_waited);
        } else if count > 0 {
            let mean = sum / count;
            self.usual.set(Some(
                self.usual
                    .get()
                    .map_or(mean, |usual| nearer(usual, mean, 8)),
            ));
        }
    }

    /// After a window in which something was drawn.
    fn weigh(&self, mean: Option<Duration>, has_waited: bool) {
        let usual = self.usual.get();
        let is_slow = usual
            .zip(mean)
            .is_some_and(|(usual, mean)| mean > usual * 3 / 2 + FOREGROUND_SLACK);
        if is_slow || has_waited {
            if let (true, Some(usual), Some(mean)) = (self.share.get() == LEAST, usual, mean) {
                self.usual.set(Some(nearer(usual, mean, 32)));
            }
            return self.press();
        }
        // What is quicker beside the background than without it is what is usual now; of what is unknown the first
        // will do.
        if let Some(mean) = mean
            && usual.is_none_or(|usual| mean < usual)
        {
            self.usual
                .set(Some(usual.map_or(mean, |usual| nearer(usual, mean, 8))));
        }
        let share = self.share.get();
        self.share.set(WHOLE.min(share + share / 4));
    }

    /// The background gives way.
    pub(super) fn press(&self) {
        self.share.set(LEAST.max(self.share.get() / 2));
    }
}

/// A part of the way from one to the other.
fn nearer(from: Duration, to: Duration, part: u32) -> Duration {
    match to > from {
        true => from + (to - from) / part,
        false => from - (from - to) / part,
    }
}

#[cfg(test)]
mod tests {
    use super::{Foreground, LEAST, WHOLE};
    use crate::limit::{FOREGROUND_IDLE, FOREGROUND_LOOK};
    use ogee_runtime::executor::block_on;
    use ogee_runtime::{Instant, now};
    use std::time::Duration;

    const USUAL: Duration = Duration::from_millis(1);

    struct Clients {
        foreground: Foreground,
        at: Instant,
    }

    impl Clients {
        fn new() -> Self {
            let at = block_on(async { now() });
            let foreground = Foreground::new(at);
            Self { foreground, at }
        }

        /// So many windows with requests that take so long; the share after them.
        fn ask(&mut self, windows: u32, took: Duration, draws: bool) -> u32 {
            for _ in 0..windows {
                for _ in 0..10 {
                    self.foreground.note(self.at, took);
                }
                if draws {
                    self.foreground.note_drawn();
                }
                self.at += FOREGROUND_LOOK;
                self.foreground.share(self.at);
            }
            self.foreground.share(self.at)
        }
    }

    #[test]
    fn clients_that_are_slower_leave_less_and_nobody_leaves_all() {
        let mut clients = Clients::new();
        assert_eq!(clients.ask(20, USUAL, false), WHOLE);
        assert_eq!(clients.ask(20, USUAL, true), WHOLE, "they are not slower");
        let after_one = clients.ask(1, USUAL * 4, true);
        assert_eq!(after_one, WHOLE / 2);
        assert_eq!(clients.ask(10, USUAL * 4, true), LEAST);
        let back = clients.ask(30, USUAL, true);
        assert_eq!(back, WHOLE, "as usual again");
        clients.ask(10, USUAL * 4, true);
        clients.at += FOREGROUND_IDLE;
        assert_eq!(clients.foreground.share(clients.at), WHOLE);
    }

    #[test]
    fn who_waits_for_a_turn_counts_as_slow() {
        let mut clients = Clients::new();
        clients.ask(20, USUAL, false);
        for _ in 0..10 {
            clients.foreground.note_waiting(clients.at);
            clients.ask(1, USUAL, true);
        }
        assert_eq!(clients.foreground.share(clients.at), LEAST);
    }

    /// Larger requests take longer, whatever the background does.
    #[test]
    fn what_stays_slow_with_the_least_share_becomes_usual() {
        let mut clients = Clients::new();
        clients.ask(20, USUAL, false);
        assert_eq!(clients.ask(10, USUAL * 4, true), LEAST);
        let windows = (1..500).find(|_| clients.ask(1, USUAL * 4, true) == WHOLE);
        assert!(windows.is_some(), "it never comes back");
    }
}
