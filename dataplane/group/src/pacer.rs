//! How fast new writes enter the log while a write-back cycle or the end of a copy needs its room.
//!
//! *Place*: the keeper sets the rate, copies set limits, the leader's groups pass their writes
//! through; the lowest counts.
//! *Owner*: one per store, shared by its groups; single-threaded.
//! *Invariants*: without a rate nobody waits; nobody waits longer than [`PACE_WAIT_MAX`], or
//! [`LIMIT_WAIT_MAX`] below a limit; a limit ends with its owner. Who waits has a place in a queue of bytes, which moves on at
//! the rate of the moment: a rate that was a bad guess, as the first of a cycle may be, binds nobody longer than it stands.
//! *On failure*: none. A log that fills all the same stops its writers, see `Replica::reserve_log`.
//!
//! A cycle frees its part of the log only at its end. Writers that outrun it would find the log full
//! and stand still for the rest of the cycle: seconds, at full load. Spread over the cycle, the room
//! that is left lets every write wait a little instead.

use crate::limit::{LIMIT_WAIT_MAX, PACE_RATE_MIN, PACE_WAIT_MAX};
use ogee_proto::unit::ByteLen;
use ogee_runtime::Instant;
use ogee_runtime::channel::Notify;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// Bytes per second that may enter a store's log.
#[derive(Debug, Default)]
pub(crate) struct Pacer {
    rate: Cell<Option<u64>>,
    /// What copies let writers have, by the limits' numbers.
    limits: RefCell<BTreeMap<u64, u64>>,
    next_limit: Cell<u64>,
    queue: Cell<Queue>,
    /// The rate has risen.
    risen: Notify,
    /// To this, when that was said last.
    told: Cell<u64>,
}

/// Bytes since the beginning.
#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    /// Those whose turn it was, as of `at`.
    passed: u64,
    at: Option<Instant>,
    /// Those that have asked.
    asked: u64,
}

impl Queue {
    /// As of `now`, at the rate since it was looked at last.
    fn moved_on(mut self, now: Instant, rate: Option<u64>) -> Self {
        let since = self.at.map(|at| now.saturating_duration_since(at));
        let more = rate.map_or(u64::MAX, |rate| bytes_in(since.unwrap_or_default(), rate));
        self.passed = self.passed.saturating_add(more).min(self.asked);
        self.at = Some(now);
        self
    }
}

/// A bound on writers for as long as it lives.
pub(crate) struct Limit {
    pacer: Rc<Pacer>,
    number: u64,
}

impl Limit {
    /// From now on, so many bytes per second.
    pub(crate) fn set(&self, rate: u64) {
        let rate = rate.max(PACE_RATE_MIN);
        self.pacer.change(|pacer| {
            pacer.limits.borrow_mut().insert(self.number, rate);
        });
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        self.pacer.change(|pacer| {
            pacer.limits.borrow_mut().remove(&self.number);
        });
    }
}

impl Pacer {
    /// A bound of its owner's own, which is none until it is set.
    pub(crate) fn limit(self: &Rc<Self>) -> Limit {
        let number = self.next_limit.get();
        self.next_limit.set(number + 1);
        Limit {
            pacer: self.clone(),
            number,
        }
    }

    /// From now on, `room` may be used up within `time`.
    pub(crate) fn spread(&self, room: ByteLen, time: Duration) {
        let nanos = time.as_nanos().max(1);
        let rate = u128::from(room.get()) * SECOND / nanos;
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        self.change(|pacer| pacer.rate.set(Some(rate.max(PACE_RATE_MIN))));
    }

    /// From now on nobody waits for a cycle.
    pub(crate) fn release(&self) {
        self.change(|pacer| pacer.rate.set(None));
    }

    /// Up to now the queue moved on at the rate of before.
    fn change(&self, how: impl FnOnce(&Self)) {
        self.move_on();
        how(self);
        // Those who wait for less find out by themselves, and each cycle says many times that it is a little faster.
        let rate = self.bound().map_or(u64::MAX, |(rate, _)| rate);
        let told = self.told.get();
        if rate > told.saturating_add(told / 4) || rate == u64::MAX {
            self.told.set(rate);
            self.risen.notify_all();
        } else {
            self.told.set(told.min(rate));
        }
    }

    fn move_on(&self) -> Queue {
        let rate = self.bound().map(|(rate, _)| rate);
        let queue = self.queue.get().moved_on(ogee_runtime::now(), rate);
        self.queue.set(queue);
        queue
    }

    /// Whether any copy bounds the writers now.
    pub(crate) fn is_limited(&self) -> bool {
        !self.limits.borrow().is_empty()
    }

    /// The rate that counts, and how long one write may have to wait for it.
    fn bound(&self) -> Option<(u64, Duration)> {
        let limit = self.limits.borrow().values().min().copied();
        match (self.rate.get(), limit) {
            (rate, Some(limit)) if rate.is_none_or(|rate| limit < rate) => {
                Some((limit, LIMIT_WAIT_MAX))
            }
            (rate, _) => rate.map(|rate| (rate, PACE_WAIT_MAX)),
        }
    }

    /// Waits for the turn of a write that takes `cost` of the log.
    pub(crate) async fn pass(&self, cost: ByteLen) {
        let Some((rate, wait_max)) = self.bound() else {
            return;
        };
        let (mut queue, mut now) = (self.move_on(), ogee_runtime::now());
        // Nobody queues up behind more than may have to be waited for.
        let furthest = queue.passed.saturating_add(bytes_in(wait_max, rate));
        let (turn, latest) = (queue.asked.min(furthest), now + wait_max);
        queue.asked = turn.saturating_add(cost.get());
        self.queue.set(queue);
        while turn > queue.passed
            && now < latest
            && let Some((rate, _)) = self.bound()
        {
            // By then it is its turn, unless the rate has fallen.
            let until = latest.min(now + time_of(turn - queue.passed, rate));
            let _woken = ogee_runtime::timeout_at(until, self.risen.notified()).await;
            (queue, now) = (self.move_on(), ogee_runtime::now());
        }
    }
}

const SECOND: u128 = Duration::from_secs(1).as_nanos();

fn bytes_in(time: Duration, rate: u64) -> u64 {
    u64::try_from(time.as_nanos() * u128::from(rate) / SECOND).unwrap_or(u64::MAX)
}

/// Rounded up: afterwards so many bytes have passed.
fn time_of(bytes: u64, rate: u64) -> Duration {
    let nanos = (u128::from(bytes) * SECOND).div_ceil(u128::from(rate.max(1)));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::Pacer;
    use crate::fixture::run;
    use crate::limit::{LIMIT_WAIT_MAX, PACE_WAIT_MAX};
    use ogee_proto::unit::ByteLen;
    use std::rc::Rc;
    use std::time::Duration;

    const MIB: u64 = 1 << 20;

    /// Passes `count` writes of one MiB and says how long that took.
    async fn passing(pacer: &Pacer, count: usize) -> Duration {
        let started = ogee_runtime::now();
        for _ in 0..count {
            pacer.pass(ByteLen::new(MIB)).await;
        }
        ogee_runtime::now().saturating_duration_since(started)
    }

    #[test]
    fn writes_wait_for_their_turn_only_while_there_is_a_rate() {
        run(async {
            let pacer = Pacer::default();
            pacer.spread(ByteLen::new(100 * MIB), Duration::from_secs(1));
            let paced = passing(&pacer, 21).await;
            assert!(paced >= Duration::from_millis(200), "{paced:?}");
            pacer.release();
            let free = passing(&pacer, 21).await;
            assert!(free < paced / 4, "{free:?}, paced {paced:?}");
        });
    }

    /// The first guess of a cycle may be far too low.
    #[test]
    fn who_waits_goes_on_at_the_rate_of_the_moment() {
        run(async {
            let pacer = Rc::new(Pacer::default());
            pacer.spread(ByteLen::new(MIB), Duration::from_hours(1));
            let waiting = pacer.clone();
            let waiter = ogee_runtime::spawn(async move { passing(&waiting, 81).await });
            ogee_runtime::sleep(PACE_WAIT_MAX / 10).await;
            pacer.spread(ByteLen::new(1000 * MIB), Duration::from_secs(1));
            let took = waiter.await.expect("it ends");
            // At the first rate each of them would have waited for as long as it may.
            assert!(took < 40 * PACE_WAIT_MAX, "{took:?}");
            pacer.release();
            let limit = pacer.limit();
            limit.set(1);
            let waiting = pacer.clone();
            let waiter = ogee_runtime::spawn(async move { passing(&waiting, 21).await });
            ogee_runtime::sleep(PACE_WAIT_MAX / 10).await;
            drop(limit);
            let took = waiter.await.expect("it ends");
            assert!(took < 10 * LIMIT_WAIT_MAX, "{took:?}");
        });
    }

    #[test]
    fn no_room_left_is_a_bounded_wait() {
        run(async {
            let pacer = Pacer::default();
            pacer.spread(ByteLen::new(0), Duration::from_secs(1));
            let took = passing(&pacer, 3).await;
            assert!(took >= PACE_WAIT_MAX, "{took:?}");
            assert!(took < 10 * PACE_WAIT_MAX, "{took:?}");
        });
    }

    #[test]
    fn the_lowest_bound_counts_and_a_limit_ends_with_its_owner() {
        run(async {
            let pacer = Rc::new(Pacer::default());
            pacer.spread(ByteLen::new(1000 * MIB), Duration::from_secs(1));
            let (low, high) = (pacer.limit(), pacer.limit());
            assert!(!pacer.is_limited(), "none is set");
            low.set(50 * MIB);
            high.set(800 * MIB);
            let limited = passing(&pacer, 31).await;
            assert!(limited >= Duration::from_millis(600), "{limited:?}");
            // The end of a cycle does not end it.
            pacer.release();
            assert!(passing(&pacer, 11).await >= Duration::from_millis(200));
            drop(low);
            let less = passing(&pacer, 31).await;
            assert!(less < limited / 2, "{less:?}, below {limited:?}");
            drop(high);
            assert!(!pacer.is_limited());
        });
    }
}
