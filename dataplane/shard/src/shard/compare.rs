//! Having the replicas of all groups that this shard leads compared, again and again.
//!
//! *Place*: a task for each store, beside the one that reads all of it (`scrub`); how a piece is compared, and what is done
//! about what differs, is `ogee_group`'s. *Owner*: the shard. *Invariants*: one piece of a store's groups at a time. A
//! group's pieces are spread over the period; where that is not enough it takes longer. A leader goes on where the one
//! before it was, as far as it knows, and else at a piece that is drawn: leaders that change often do not always leave the
//! same pieces out. A quiet group is woken for several pieces at a time, no more often than every [`COMPARE_QUIET_GAP`] if
//! so few are due. What no rule could settle is looked at again every [`DISPUTE_LOOK`]. *On failure*: what cannot be
//! compared is tried again after [`COMPARE_RETRY`]; a store that has failed is left alone.

use super::scrub::Hours;
use super::wish::Work;
use super::{OpenStore, Shard};
use crate::config::ScrubConfig;
use crate::limit::{
    COMPARE_BURST_MAX, COMPARE_LOOK, COMPARE_QUIET_GAP, COMPARE_RETRY, COMPARE_TRIES,
    COMPARE_UNABLE, DISPUTE_LOOK,
};
use crate::order::ScrubStatus;
use ogee_group::{Compared, Group, Place};
use ogee_proto::id::{CopysetId, StoreId};
use ogee_proto::limit::BLOCK_SIZE;
use ogee_runtime::{Instant, ScopedTask, now, random_u64, sleep, spawn_scoped};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// What was compared so far, of the groups of one store that are led here.
#[derive(Debug, Default)]
pub(super) struct Comparisons {
    pub(super) bytes: Cell<u64>,
    pub(super) differing: Cell<u64>,
    pub(super) rewritten: Cell<u64>,
    pub(super) passes: Cell<u64>,
    ended: Cell<Option<Instant>>,
    running: RefCell<BTreeMap<CopysetId, Pass>>,
}

/// Where the comparison of a group is.
#[derive(Clone, Copy, Debug)]
struct Pass {
    begun: Instant,
    /// It ends where it began.
    first: Place,
    at: Place,
    is_around: bool,
    /// How often this piece could not be compared.
    tries: u32,
    /// It is to be done at once.
    is_hurried: bool,
    /// Pieces that are compared in one go, which wakes a quiet group once: how many are left of them, of how many, and
    /// when they were due.
    left: u32,
    burst: u32,
    burst_due: Instant,
    /// Pieces compared, of about so many.
    done: u32,
    of: u32,
    /// When the next one is.
    due: Instant,
    /// It is over, and this is when the next pass begins.
    is_over: bool,
    disputes_due: Instant,
}

impl Comparisons {
    /// In pieces, of all passes under way.
    pub(super) fn status(&self) -> ScrubStatus {
        let now = now();
        let running = self.running.borrow();
        let under_way = || running.values().filter(|pass| !pass.is_over);
        let sum = |of: fn(&Pass) -> u32| under_way().map(|pass| u64::from(of(pass))).sum::<u64>();
        let begun = under_way().map(|pass| pass.begun).min();
        let read = sum(|pass| pass.done);
        ScrubStatus {
            read,
            of: sum(|pass| pass.of).max(read),
            took: begun.map_or(Duration::ZERO, |begun| now - begun),
            passes: self.passes.get(),
            ended: self.ended.get().map_or(Duration::ZERO, |ended| now - ended),
        }
    }

    /// The group whose next piece is due first, and when.
    fn next_due(&self) -> Option<(Instant, CopysetId)> {
        let running = self.running.borrow();
        let due = running.iter().map(|(copyset, pass)| (pass.due, *copyset));
        due.min()
    }

    fn count(cell: &Cell<u64>, more: u64) {
        cell.set(cell.get() + more);
    }
}

impl Pass {
    async fn begin(group: &Group, first: Option<Place>) -> Self {
        let first = match first.or_else(|| group.compared_last()) {
            Some(first) => first,
            None => group.drawn_place(random_u64()),
        };
        let of = group.pieces_held().await.max(1);
        let begun = now();
        Self {
            begun,
            first,
            at: first,
            is_around: false,
            tries: 0,
            is_hurried: false,
            left: 0,
            burst: 1,
            burst_due: begun,
            done: 0,
            of,
            due: begun,
            is_over: false,
            disputes_due: begun,
        }
    }

    /// It goes on, or begins, at once.
    fn hurry(&mut self) {
        self.is_hurried = true;
        self.due = now();
    }

    /// Time between two pieces.
    fn gap(&self, period: Duration) -> Duration {
        match self.is_hurried {
            true => Duration::ZERO,
            false => period / self.of,
        }
    }

    /// It is to go on. A quiet group would be woken by each piece: there it does some in one go, and then none for as long
    /// as they would have taken.
    fn begin_burst(&mut self, is_quiet: bool, period: Duration) {
        if self.left > 0 {
            return;
        }
        let gap = self.gap(period).as_nanos().max(1);
        let count = COMPARE_QUIET_GAP.as_nanos() / gap;
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.burst = match is_quiet {
            true => count.clamp(1, COMPARE_BURST_MAX),
            false => 1,
        };
        (self.left, self.burst_due) = (self.burst, self.due);
    }

    /// The piece was compared, and this is the next one of which anybody holds anything.
    fn advance(&mut self, next: Option<Place>, period: Duration) {
        self.tries = 0;
        self.done += 1;
        self.left = self.left.saturating_sub(1);
        self.due = match self.left {
            0 => now().max(self.burst_due + self.gap(period) * self.burst),
            _ => now(),
        };
        match next.filter(|next| !self.is_around || *next < self.first) {
            Some(next) => self.at = next,
            // What comes before where it began.
            None if !self.is_around && self.first > Place::default() => {
                self.is_around = true;
                self.at = Place::default();
            }
            None => {
                self.is_over = true;
                self.is_hurried = false;
                self.left = 0;
                self.due = self.due.max(self.begun + period);
            }
        }
    }
}

/// Compares the groups of each store once in a period until the tasks are dropped.
pub(super) fn start(shard: &Rc<Shard>, config: Option<ScrubConfig>) -> Vec<ScopedTask<()>> {
    let Some((config, period)) = config.and_then(|it| Some((it, it.period?))) else {
        return Vec::new();
    };
    let hours = config.hours.map(|hours| Rc::new(Hours::new(hours)));
    let period = hours.as_ref().map_or(period, |hours| hours.part_of(period));
    let stores = shard.stores.iter().map(OpenStore::id);
    stores
        .map(|store| spawn_scoped(compare(shard.clone(), store, period, hours.clone())))
        .collect()
}

async fn compare(shard: Rc<Shard>, store: StoreId, period: Duration, hours: Option<Rc<Hours>>) {
    while let Some(open) = shard.store(store).filter(|open| !open.has_failed()) {
        open.wish
            .granted(open, hours.as_deref(), Work::Compare)
            .await;
        shard.keep_passes(open, period).await;
        let begun = now();
        match open.compared.next_due() {
            Some((due, copyset)) if due <= begun => shard.compare_one(open, copyset, period).await,
            Some((due, _)) => sleep((due - begun).min(COMPARE_LOOK)).await,
            None => {
                open.wish.done(Work::Compare);
                sleep(COMPARE_LOOK.min(period)).await;
            }
        }
    }
}

impl Shard {
    /// A pass for each group of the store that is led here, and for no other.
    async fn keep_passes(&self, open: &OpenStore, period: Duration) {
        let hosted = self.hosted().into_iter();
        let led = hosted.filter(|hosted| {
            hosted.store == open.id()
                && hosted.group.report().is_leader
                && hosted.group.voters().len() > 1
        });
        let led: BTreeMap<CopysetId, Group> = led
            .map(|hosted| (hosted.group.copyset(), hosted.group))
            .collect();
        let running = &open.compared.running;
        running
            .borrow_mut()
            .retain(|copyset, _| led.contains_key(copyset));
        if open.wish.is_hurried(Work::Compare) {
            running.borrow_mut().values_mut().for_each(Pass::hurry);
        }
        for (copyset, group) in led {
            let before = running.borrow().get(&copyset).copied();
            let pass = match before {
                Some(pass) if pass.is_over && pass.due <= now() => Pass {
                    is_hurried: pass.is_hurried,
                    ..Pass::begin(&group, Some(pass.first)).await
                },
                Some(mut pass) if pass.disputes_due <= now() => {
                    self.look_at_disputes(open, &group).await;
                    pass.disputes_due = now() + DISPUTE_LOOK.min(period);
                    pass
                }
                Some(_) => continue,
                None => Pass::begin(&group, None).await,
            };
            running.borrow_mut().insert(copyset, pass);
        }
        // Those that are here have taken note of it; what comes later is in no hurry.
        if !running.borrow().is_empty() {
            open.wish.done(Work::Compare);
        }
    }

    async fn look_at_disputes(&self, open: &OpenStore, group: &Group) {
        for place in group.disputed_places() {
            count(&open.compared, group.compare(place).await);
        }
    }

    async fn compare_one(&self, open: &OpenStore, copyset: CopysetId, period: Duration) {
        let pass = open.compared.running.borrow().get(&copyset).copied();
        let group = self.group(copyset);
        let (Some(mut pass), Some(group)) = (pass, group) else {
            open.compared.running.borrow_mut().remove(&copyset);
            return;
        };
        if pass.is_over {
            return;
        }
        pass.begin_burst(group.report().is_quiet, period);
        let compared = group.compare(pass.at).await;
        count(&open.compared, compared);
        match compared {
            Compared::Done { next, .. } => pass.advance(next, period),
            Compared::Busy { next } if pass.tries >= COMPARE_TRIES => {
                tracing::warn!(%copyset, place = ?pass.at, "a piece is left to the next comparison: blocks of it are \
                    damaged, or are written back all the time");
                pass.advance(next, period);
            }
            Compared::Busy { .. } => {
                pass.tries += 1;
                pass.due = now() + COMPARE_RETRY.min(period);
            }
            Compared::Later => pass.due = now() + COMPARE_RETRY.min(period),
            Compared::Unable => {
                tracing::info!(%copyset, "replicas are not compared: one of them runs an older program");
                pass.due = now() + COMPARE_UNABLE;
            }
            Compared::NotLed => {
                open.compared.running.borrow_mut().remove(&copyset);
                return;
            }
        }
        if pass.is_over {
            Comparisons::count(&open.compared.passes, 1);
            open.compared.ended.set(Some(now()));
            tracing::info!(%copyset, pieces = pass.done, took = ?(now() - pass.begun),
                "the replicas of a copyset were compared");
        }
        open.compared.running.borrow_mut().insert(copyset, pass);
    }
}

fn count(comparisons: &Comparisons, compared: Compared) {
    if let Compared::Done {
        blocks,
        differing,
        rewritten,
        ..
    } = compared
    {
        Comparisons::count(&comparisons.bytes, blocks * BLOCK_SIZE as u64);
        Comparisons::count(&comparisons.differing, differing);
        Comparisons::count(&comparisons.rewritten, rewritten);
    }
}

#[cfg(test)]
mod tests {
    use super::Pass;
    use crate::limit::{COMPARE_BURST_MAX, COMPARE_QUIET_GAP};
    use ogee_group::Place;
    use ogee_runtime::executor::block_on;
    use ogee_runtime::now;
    use std::time::Duration;

    fn pass(of: u32) -> Pass {
        let now = now();
        Pass {
            begun: now,
            first: Place::default(),
            at: Place::default(),
            is_around: false,
            tries: 0,
            is_hurried: false,
            left: 0,
            burst: 1,
            burst_due: now,
            done: 0,
            of,
            due: now,
            is_over: false,
            disputes_due: now,
        }
    }

    /// Pieces until it pauses, and for how long it does after them.
    fn burst(pass: &mut Pass, is_quiet: bool, period: Duration) -> (u32, Duration) {
        let (began, done) = (pass.due, pass.done);
        loop {
            pass.begin_burst(is_quiet, period);
            // It goes on for ever: there is always another piece.
            pass.is_around = false;
            pass.first = Place::default();
            pass.is_over = false;
            let next = Some(Place::default());
            pass.advance(next, period);
            pass.is_over = false;
            if pass.left == 0 {
                return (pass.done - done, pass.due.saturating_duration_since(began));
            }
        }
    }

    #[test]
    fn a_quiet_group_is_woken_seldom_and_compared_as_fast() {
        block_on(async {
            let hour = Duration::from_secs(3600);
            // A piece a second; with clients there anyway, each for itself.
            let mut pass = pass(3600);
            let (pieces, pause) = burst(&mut pass, false, hour);
            assert!(pieces == 1 && pause >= Duration::from_secs(1));
            let (pieces, pause) = burst(&mut pass, true, hour);
            assert_eq!(u128::from(pieces), COMPARE_QUIET_GAP.as_millis() / 1000);
            assert!(pause >= COMPARE_QUIET_GAP, "{pause:?}");
        });
    }

    #[test]
    fn a_burst_is_bounded_and_what_is_seldom_anyway_is_no_burst() {
        block_on(async {
            let (pieces, _) = burst(&mut pass(1_000_000), true, Duration::from_secs(1));
            assert_eq!(pieces, COMPARE_BURST_MAX);
            let week = Duration::from_secs(604_800);
            let (pieces, pause) = burst(&mut pass(1000), true, week);
            assert!(pieces == 1 && pause >= week / 1000);
        });
    }
}
