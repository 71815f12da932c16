//! Whether a copy gains on the writers, and what it takes for that.
//!
//! *Place*: fed by the sender's flow of steps. *Owner*: one target's track.
//! *Invariants*: a copy that gains takes as little of the machine as it can; writers are held back
//! only when it takes all that it may, and no further than to [`COPY_WRITERS_PERCENT`] of what they had.
//! *On failure*: a copy that even then does not gain is reported, and lets the writers go.
//!
//! What a target lacks shrinks only if more is sent than is changed. In the first pass little of what
//! writers change has been sent yet, so that any speed seems enough; the speed is therefore compared
//! with all that is changed, long before it matters.

use super::track::Counts;
use crate::limit::{
    COPY_GAIN_HIGH, COPY_GAIN_LOW, COPY_LOOK, COPY_OUTRUN_LOOKS, COPY_REPORT_LOOKS, COPY_SLOW,
    COPY_WINDOW, COPY_WINDOW_BUSY, COPY_WRITERS_PERCENT,
};
use crate::pacer::{Limit, Pacer};
use ogee_runtime::Instant;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// How hard a copy tries beside other I/O: steps under way, and how many times as long as a step took
/// it rests before the next.
const LEVELS: [(usize, u32); 5] = [
    (1, 3),
    (1, 1),
    (COPY_WINDOW_BUSY, 0),
    (2 * COPY_WINDOW_BUSY, 0),
    (COPY_WINDOW, 0),
];
const LEVEL_START: usize = 2;
pub(super) const LEVEL_MAX: usize = LEVELS.len() - 1;

/// Steps under way at a level, beside other I/O; half of them where the way is slow.
pub(super) fn window(level: usize, is_slow: bool) -> usize {
    let (window, _) = LEVELS[level];
    if is_slow { (window / 2).max(1) } else { window }
}

/// Whether a copy at a level takes what it needs, whatever clients ask for.
pub(super) const fn is_pressing(level: usize) -> bool {
    level > LEVEL_START
}

/// How long to rest at a level after a step that took so long.
pub(super) fn rest(level: usize, took: Duration) -> Duration {
    (took * LEVELS[level].1).min(COPY_SLOW)
}

/// How one copy fares against the writers.
pub(super) struct Gain {
    level: Cell<usize>,
    seen: Cell<Option<Seen>>,
    speed: Cell<Speed>,
    /// Looks in a row at which nothing more could be done, and not enough was sent.
    weak: Cell<u32>,
    /// Of those looks: the most that writers put into the log, in bytes per second.
    appended_most: Cell<f64>,
    /// As of the looks that decide whether it is hopeless: number, and what was lacking.
    trial: Cell<(u32, i64)>,
    is_outrun: Cell<bool>,
    limit: RefCell<Option<Limit>>,
}

/// Counters at one moment.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    pub(super) at: Instant,
    pub(super) blocks: Counts,
    /// Bytes that the store's log has taken.
    pub(super) appended: u64,
}

/// Per second, as of the last look.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub(super) struct Speed {
    /// Blocks that the target took.
    pub(super) sent: f64,
    /// Blocks that writers changed.
    pub(super) changed: f64,
    /// Bytes into the log.
    pub(super) appended: f64,
}

/// What a look asks of the caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Nothing new.
    Same,
    /// From now on writers outrun the copy, whatever it does.
    Outrun,
    /// It gains again.
    Gains,
}

impl Default for Gain {
    fn default() -> Self {
        Self {
            level: Cell::new(LEVEL_START),
            seen: Cell::default(),
            speed: Cell::default(),
            weak: Cell::default(),
            appended_most: Cell::default(),
            trial: Cell::default(),
            is_outrun: Cell::default(),
            limit: RefCell::default(),
        }
    }
}

impl Gain {
    pub(super) fn level(&self) -> usize {
        self.level.get()
    }

    pub(super) fn is_outrun(&self) -> bool {
        self.is_outrun.get()
    }

    pub(super) fn speed(&self) -> Speed {
        self.speed.get()
    }

    /// Whether it is time to look again.
    pub(super) fn is_due(&self) -> bool {
        let seen = self.seen.get();
        seen.is_none_or(|seen| ogee_runtime::now() >= seen.at + COPY_LOOK)
    }

    /// From here on anew: the copy was broken off, or had nothing to send.
    pub(super) fn pause(&self) {
        self.seen.set(None);
        self.weak.set(0);
        self.limit.take();
    }

    /// Compares what happened since the last look.
    pub(super) fn look(&self, now: Seen, pacer: &Rc<Pacer>) -> Verdict {
        let Some(before) = self.seen.replace(Some(now)) else {
            return Verdict::Same;
        };
        let time = now.at.saturating_duration_since(before.at);
        if time > 4 * COPY_LOOK {
            return Verdict::Same;
        }
        let (sent, changed) = (
            now.blocks.sent - before.blocks.sent,
            now.blocks.changed - before.blocks.changed,
        );
        self.speed.set(Speed {
            sent: per_second(sent, time),
            changed: per_second(changed, time),
            appended: per_second(now.appended - before.appended, time),
        });
        let level = next_level(self.level.get(), sent, changed);
        let is_weak = self.level.replace(level) == LEVEL_MAX && sent * 10 < changed * COPY_GAIN_LOW;
        let most = match is_weak {
            true => self.appended_most.get().max(self.speed.get().appended),
            false => 0.0,
        };
        self.appended_most.set(most);
        self.weak.set(if is_weak { self.weak.get() + 1 } else { 0 });
        if self.weak.get() >= COPY_OUTRUN_LOOKS {
            self.hold_writers_back(pacer);
        }
        self.judge(&now.blocks)
    }

    /// Once, and not while somebody else does: what the writers have then is not what they had.
    fn hold_writers_back(&self, pacer: &Rc<Pacer>) {
        if self.is_outrun.get() || pacer.is_limited() {
            return;
        }
        let limit = pacer.limit();
        limit.set(share(self.appended_most.get()));
        self.limit.replace(Some(limit));
    }

    /// Whether what the target lacks has shrunk over the time of a trial.
    fn judge(&self, blocks: &Counts) -> Verdict {
        let lacks = i64::try_from(blocks.spoiled).unwrap_or(i64::MAX)
            - i64::try_from(blocks.sent).unwrap_or(i64::MAX);
        let (looks, began) = self.trial.get();
        if looks == 0 {
            self.trial.set((1, lacks));
            return Verdict::Same;
        }
        if looks < COPY_REPORT_LOOKS {
            self.trial.set((looks + 1, began));
            return Verdict::Same;
        }
        self.trial.set((1, lacks));
        let is_outrun = lacks >= began && self.level.get() == LEVEL_MAX;
        match (self.is_outrun.replace(is_outrun), is_outrun) {
            (false, true) => {
                self.limit.take();
                Verdict::Outrun
            }
            (true, false) => Verdict::Gains,
            _ => Verdict::Same,
        }
    }
}

fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(1e-3)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate of bytes, positive and far below 2^64"
)]
fn share(appended: f64) -> u64 {
    appended as u64 * COPY_WRITERS_PERCENT / 100
}

const fn next_level(level: usize, sent: u64, changed: u64) -> usize {
    if sent * 10 < changed * COPY_GAIN_LOW {
        if level < LEVEL_MAX { level + 1 } else { level }
    } else if sent * 10 > changed * COPY_GAIN_HIGH {
        level.saturating_sub(1)
    } else {
        level
    }
}

#[cfg(test)]
mod tests {
    use super::{Gain, LEVEL_MAX, LEVEL_START, Seen, Verdict, rest, window};
    use crate::fixture::run;
    use crate::limit::{COPY_LOOK, COPY_OUTRUN_LOOKS, COPY_REPORT_LOOKS, COPY_SLOW, COPY_WINDOW};
    use crate::pacer::Pacer;
    use crate::snapshot::track::Counts;
    use std::rc::Rc;
    use std::time::Duration;

    /// A copy and its writers, a look at a time.
    struct Race {
        gain: Gain,
        pacer: Rc<Pacer>,
        seen: Seen,
    }

    impl Race {
        fn new() -> Self {
            let seen = Seen {
                at: ogee_runtime::now(),
                blocks: Counts::default(),
                appended: 0,
            };
            let race = Self {
                gain: Gain::default(),
                pacer: Rc::default(),
                seen,
            };
            race.gain.look(seen, &race.pacer);
            race
        }

        fn step(&mut self, sent: u64, changed: u64) -> Verdict {
            self.seen.at += COPY_LOOK;
            self.seen.blocks.sent += sent;
            self.seen.blocks.changed += changed;
            self.seen.blocks.spoiled += changed;
            self.seen.appended += changed * 4096;
            self.gain.look(self.seen, &self.pacer)
        }
    }

    #[test]
    fn a_copy_takes_what_it_needs_and_gives_it_back() {
        run(async {
            let mut race = Race::new();
            race.step(20_000, 10_000);
            assert_eq!(race.gain.level(), LEVEL_START, "it gains as it is");
            for _ in LEVEL_START..=LEVEL_MAX {
                race.step(14_000, 10_000);
            }
            assert_eq!(race.gain.level(), LEVEL_MAX);
            race.step(20_000, 10_000);
            assert_eq!(race.gain.level(), LEVEL_MAX, "that is what it needs");
            for _ in 0..=LEVEL_MAX {
                race.step(20_000, 1_000);
            }
            assert_eq!(race.gain.level(), 0);
            assert!(!race.pacer.is_limited(), "nobody was held back");
        });
    }

    #[test]
    fn each_level_takes_more_than_the_one_below() {
        let took = Duration::from_millis(10);
        let effort = |level| {
            let time = (took + rest(level, took)).as_secs_f64();
            window(level, false) as f64 / time
        };
        for level in 0..LEVEL_MAX {
            assert!(effort(level) * 1.9 < effort(level + 1), "{level}");
            assert!(window(level, true) >= 1);
        }
        assert_eq!(window(LEVEL_MAX, false), COPY_WINDOW);
        assert_eq!(rest(0, Duration::from_secs(9)), COPY_SLOW, "bounded");
    }

    #[test]
    fn writers_are_held_back_only_when_nothing_else_helps_and_as_long_as_it_does() {
        run(async {
            let mut race = Race::new();
            for _ in LEVEL_START..LEVEL_MAX {
                race.step(11_000, 10_000);
            }
            for _ in 0..COPY_OUTRUN_LOOKS {
                assert!(!race.pacer.is_limited());
                assert_eq!(race.step(11_000, 10_000), Verdict::Same);
            }
            assert!(race.pacer.is_limited());
            // It gains now: so it stays, to the end.
            for _ in 0..3 * COPY_REPORT_LOOKS {
                assert_eq!(race.step(11_000, 7_500), Verdict::Same);
            }
            assert!(race.pacer.is_limited());
            race.gain.pause();
            assert!(!race.pacer.is_limited(), "broken off");
        });
    }

    #[test]
    fn a_copy_that_cannot_win_says_so_once_and_lets_the_writers_go() {
        run(async {
            let mut race = Race::new();
            let verdicts: Vec<Verdict> = (0..100).map(|_| race.step(5_000, 10_000)).collect();
            assert_eq!(
                verdicts.iter().filter(|it| **it == Verdict::Outrun).count(),
                1
            );
            assert!(race.gain.is_outrun() && !race.pacer.is_limited());
            let verdicts: Vec<Verdict> = (0..100).map(|_| race.step(5_000, 1_000)).collect();
            assert_eq!(
                verdicts.iter().filter(|it| **it == Verdict::Gains).count(),
                1
            );
            assert!(!race.gain.is_outrun());
        });
    }
}
