//! Those of one shard who wait for what a bucket gives.
//!
//! *Place*: between background work and a [`Bucket`]. *Owner*: one shard; a line is never shared, its bucket may be.
//! *Invariants*: one draw of a line is on its way to the bucket at a time, the one whose turn it is; so shards that
//! share a bucket take turns. *Cancellation* and *on failure*: see the module.

use super::bucket::Bucket;
use super::turns::{Purpose, Turns};
use ogee_runtime::channel::Notify;
use ogee_runtime::{now, sleep_until};
use std::cell::{Cell, RefCell};
use std::sync::Arc;

/// A shard's way to a bucket.
#[derive(Debug)]
pub struct Line {
    bucket: Arc<Bucket>,
    turns: RefCell<Turns>,
    /// One of them is at the bucket.
    is_taken: Cell<bool>,
    changed: Notify,
    drawn: [Cell<u64>; 4],
}

/// One who waits.
struct Place<'a> {
    line: &'a Line,
    purpose: Purpose,
    number: u64,
    is_at_bucket: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut turns = self.line.turns.borrow_mut();
        turns.leaves(self.purpose, self.number);
        drop(turns);
        if self.is_at_bucket {
            self.line.is_taken.set(false);
        }
        self.line.changed.notify_all();
    }
}

impl Line {
    /// To a bucket that others may lead to as well.
    #[must_use]
    pub fn new(bucket: Arc<Bucket>) -> Self {
        Self {
            bucket,
            turns: RefCell::default(),
            is_taken: Cell::new(false),
            changed: Notify::new(),
            drawn: Default::default(),
        }
    }

    /// What it leads to.
    #[must_use]
    pub fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    /// Waits until so many bytes may go.
    pub async fn pass(&self, purpose: Purpose, bytes: usize) {
        if !self.bucket.is_unlimited() {
            self.wait(purpose, bytes).await;
        }
        self.count(purpose, bytes);
    }

    async fn wait(&self, purpose: Purpose, bytes: usize) {
        let mut place = Place {
            line: self,
            purpose,
            number: self.turns.borrow_mut().join(purpose),
            is_at_bucket: false,
        };
        loop {
            let changed = self.changed.notified();
            if !self.is_taken.get() && self.turns.borrow().next() == Some(place.number) {
                break;
            }
            changed.await;
        }
        self.is_taken.set(true);
        place.is_at_bucket = true;
        self.go(&place, bytes);
        let now = now();
        let begins = self.bucket.draw(now, bytes);
        if begins > now {
            sleep_until(begins).await;
        }
    }

    fn go(&self, place: &Place<'_>, bytes: usize) {
        let mut turns = self.turns.borrow_mut();
        turns.goes(place.purpose, place.number, bytes);
    }

    /// Counts what could not wait.
    pub fn charge(&self, purpose: Purpose, bytes: usize) {
        if !self.bucket.is_unlimited() {
            self.turns.borrow_mut().count(purpose, bytes);
            let _begins = self.bucket.draw(now(), bytes);
        }
        self.count(purpose, bytes);
    }

    fn count(&self, purpose: Purpose, bytes: usize) {
        let drawn = &self.drawn[purpose.at()];
        drawn.set(drawn.get() + bytes as u64);
    }

    /// Bytes that have gone.
    #[must_use]
    pub fn drawn(&self, purpose: Purpose) -> u64 {
        self.drawn[purpose.at()].get()
    }
}

#[cfg(test)]
mod tests {
    use super::Line;
    use crate::budget::{Bucket, Purpose};
    use futures_util::future::join_all;
    use futures_util::poll;
    use ogee_runtime::executor::block_on;
    use ogee_runtime::{now, sleep, timeout};
    use std::cell::Cell;
    use std::pin::pin;
    use std::time::Duration;

    const PIECE: usize = 64 << 10;
    /// A piece takes 4 ms.
    const LIMIT: u64 = 16 << 20;

    #[test]
    fn all_together_keep_to_the_limit_and_each_gets_its_part() {
        block_on(async {
            let bucket = Bucket::new(LIMIT);
            let lines = [Line::new(bucket.clone()), Line::new(bucket.clone())];
            let (began, ended) = (now(), Cell::new(false));
            let ended = &ended;
            let works = lines
                .iter()
                .flat_map(|line| Purpose::ALL.map(|purpose| (line, purpose)));
            let works = works.map(|(line, purpose)| async move {
                while !ended.get() {
                    line.pass(purpose, PIECE).await;
                }
            });
            let clock = async {
                // By what has gone and not by time: how busy the machine is does not matter.
                while lines
                    .iter()
                    .map(|line| line.drawn(Purpose::Scrub))
                    .sum::<u64>()
                    < 20 * PIECE as u64
                {
                    sleep(Duration::from_millis(1)).await;
                }
                ended.set(true);
            };
            futures_util::join!(join_all(works), clock);
            let took = now() - began + Bucket::BURST;
            let drawn = |purpose| lines.iter().map(|line| line.drawn(purpose)).sum::<u64>();
            let sum: u64 = Purpose::ALL.map(drawn).iter().sum();
            let most = took.as_secs_f64() * LIMIT as f64 + (3 * PIECE) as f64;
            assert!(sum as f64 <= most, "{sum} in {took:?}");
            // The shards take turns, and so the parts hold of both together.
            let parts = Purpose::ALL
                .map(|purpose| drawn(purpose) / drawn(Purpose::Scrub).min(drawn(Purpose::Compare)));
            assert!(parts[0] >= 6 && parts[1] >= 1, "{parts:?}");
        });
    }

    #[test]
    fn who_is_dropped_lets_the_next_one_go() {
        block_on(async {
            let line = Line::new(Bucket::new(LIMIT));
            // The bucket is in debt for seconds.
            line.charge(Purpose::Move, 64 << 20);
            {
                let mut first = pin!(line.pass(Purpose::Move, PIECE));
                let mut second = pin!(line.pass(Purpose::Scrub, PIECE));
                assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending());
            }
            assert!(!line.is_taken.get());
            assert_eq!(line.turns.borrow().next(), None);
            let next = timeout(Duration::from_secs(60), line.pass(Purpose::Compare, PIECE));
            assert!(next.await.is_ok());
        });
    }
}
