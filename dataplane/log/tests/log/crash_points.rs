//! Power cuts at every write.
//!
//! A scripted load runs on a device that remembers what is not durable yet. Whenever a write is in
//! flight the device is cut: with nothing of it, with all of it (so every prefix of the writes is
//! recovered), and with arbitrary sectors of it, some of them cut again while they are recovered. What
//! is left must be, per group, the state after some call not before the last one reported durable.
//!
//! 1,000 states by default, 100,000 with `OGEE_FULL=1`.

use crate::crash::{Run, SEGMENTS};
use crate::support::{
    ALL, PAGE, append, assert_entries, entries, formatted, group, lost, open, pages_with, patch,
    repair,
};
use ogee_device::{Device, MemoryControl, Survivors};
use ogee_log::format::BATCH_MAGIC;
use ogee_runtime::executor::block_on;
use ogee_runtime::{spawn, yield_now};
use std::ops::Range;

const STATES: usize = 1_000;
const STATES_FULL: usize = 100_000;
const STEPS: usize = 60;
/// A thread that is paused at the wrong moment finds that a write has begun and returned meanwhile.
const TRIES: usize = 8;
/// Torn or reordered subsets tried of each write in flight.
const SUBSETS: usize = 2;

fn wanted() -> usize {
    match std::env::var("OGEE_FULL").as_deref() {
        Ok("1") => STATES_FULL,
        _ => STATES,
    }
}

/// `OGEE_SEED` repeats a run from there.
fn first() -> u64 {
    let asked = std::env::var("OGEE_SEED").ok();
    asked.and_then(|seed| seed.parse().ok()).unwrap_or(0)
}

/// A device as one of the cuts left it, and what may be found on it.
struct State {
    device: Device,
    control: MemoryControl,
    allowed: Vec<Range<usize>>,
}

struct Points {
    run: Run,
    device: Device,
    /// Writes that were cut.
    cuts: u64,
    states: Vec<State>,
}

/// What all seeds have come to.
#[derive(Default)]
struct Totals {
    states: usize,
    cuts: u64,
    cuts_again: usize,
    moved: u64,
}

#[test]
fn every_write_may_be_the_last() {
    let mut totals = Totals::default();
    for seed in first().. {
        if totals.states >= wanted() {
            break;
        }
        println!("seed {seed}");
        // All that was cut is checked each time; a seed counts as done when nothing was passed over.
        let is_done = (0..TRIES).any(|_| block_on(cut_and_check(seed, &mut totals)));
        assert!(
            is_done,
            "seed {seed}: there always were writes that were not cut"
        );
    }
    let Totals {
        states,
        cuts,
        cuts_again,
        moved,
    } = totals;
    println!("{states} states of {cuts} writes, {cuts_again} cut again, {moved} copies forward");
    assert!(cuts_again > states / 8 && moved > 0);
}

/// Runs a seed's load; whether each of its writes was cut.
async fn cut_and_check(seed: u64, totals: &mut Totals) -> bool {
    let (device, control) = formatted(SEGMENTS).await;
    let log = open(&device, SEGMENTS).await;
    let before = device.counters().writes;
    let mut points = Points {
        run: Run::new(seed, control, log),
        device,
        cuts: 0,
        states: Vec::new(),
    };
    for step in 1..=STEPS {
        points.run.call();
        for _ in 0..points.run.dice.below(6) {
            points.turn().await;
        }
        if step % 20 == 0 {
            points.reopen(&mut totals.moved).await;
        }
    }
    let (written, cuts) = (points.device.counters().writes - before, points.cuts);
    println!("{written} writes, {cuts} cut");
    assert!(cuts <= written + 1, "the last one may not have returned");
    totals.cuts += cuts;
    totals.states += points.states.len();
    totals.cuts_again += points.check().await;
    cuts >= written
}

impl Points {
    /// Lets the others run, and cuts the write that is in flight, if there is one.
    async fn turn(&mut self) {
        yield_now().await;
        if self.run.control.unflushed_sectors() == 0 {
            return;
        }
        self.cuts += 1;
        let seeded: Vec<_> = (0..SUBSETS)
            .map(|_| Survivors::Seeded(self.run.dice.next()))
            .collect();
        let survivors = [Survivors::None, Survivors::All].into_iter().chain(seeded);
        for survivors in survivors {
            let (device, control) = self.run.control.crash(survivors);
            self.states.push(State {
                device,
                control,
                allowed: self.run.allowed(),
            });
        }
    }

    /// Closes and opens the log, and cuts the writes of both.
    async fn reopen(&mut self, moved: &mut u64) {
        let (log, device) = (self.run.log.clone(), self.device.clone());
        let closing = spawn(async move { log.close().await });
        while !closing.is_finished() {
            self.turn().await;
        }
        closing.await.expect("not cancelled").expect("close");
        *moved += self.run.log.counters().entries_moved;
        let opening = spawn(async move { open(&device, SEGMENTS).await });
        while !opening.is_finished() {
            self.turn().await;
        }
        self.run.log = opening.await.expect("not cancelled");
    }

    /// Recovers every state; says how many of them were cut again meanwhile.
    async fn check(mut self) -> usize {
        let mut cuts_again = 0;
        for state in std::mem::take(&mut self.states) {
            let State {
                mut device,
                mut control,
                allowed,
            } = state;
            for _ in 0..self.run.dice.below(3) {
                cuts_again += 1;
                (device, control) = self.run.crash_in_recovery(&device, &control).await;
            }
            let log = open(&device, SEGMENTS).await;
            for (id, allowed) in allowed.into_iter().enumerate() {
                self.run.find(&log, id, allowed).await;
            }
        }
        cuts_again
    }
}

/// Entries are put back while power fails: each is lost, with its identity, or whole; once reported
/// durable it is whole.
#[test]
fn a_repair_may_be_cut_short_at_any_write() {
    block_on(async {
        let (device, control) = formatted(SEGMENTS).await;
        let log = open(&device, SEGMENTS).await;
        let whole = entries(1, 0..8, 2);
        for entry in &whole {
            append(&group(&log, 1), vec![entry.clone()])
                .await
                .expect("append");
        }
        log.close().await.expect("close");
        let batches = pages_with(&device, BATCH_MAGIC).await;
        // The first one is of formatting.
        for number in [2, 4, 7] {
            patch(&device, batches[number], |data| data[..PAGE].fill(0x33)).await;
        }
        let opened = device.clone();
        let repairing = whole.clone();
        let task = spawn(async move {
            let log = open(&opened, SEGMENTS).await;
            repair(&group(&log, 1), &repairing).await.expect("repair");
            log.close().await.expect("close");
        });
        let mut states = Vec::new();
        while !task.is_finished() {
            yield_now().await;
            if control.unflushed_sectors() > 0 {
                let first = states.len() as u64;
                let seeded = (first..first + 6).map(Survivors::Seeded);
                let survivors = [Survivors::None, Survivors::All].into_iter().chain(seeded);
                states.extend(survivors.map(|one| control.crash(one).0));
            }
        }
        task.await.expect("not cancelled");
        assert!(states.len() > 40, "{}", states.len());
        let mut fewest = 3;
        for device in &states {
            let log = open(device, SEGMENTS).await;
            let one = group(&log, 1);
            let left = lost(&one);
            let named = left.iter().all(|(index, identity)| {
                let entry = whole.iter().find(|entry| entry.id.index.get() == *index);
                *identity == entry.map(|entry| entry.identity(one.id()))
            });
            assert!(named && left.len() <= 3, "{left:?}");
            fewest = fewest.min(left.len());
            repair(&one, &whole).await.expect("repair");
            let found = one.entries(ALL, usize::MAX).await.expect("read");
            assert_entries(&found, &whole);
        }
        assert_eq!(fewest, 0);
    });
}
