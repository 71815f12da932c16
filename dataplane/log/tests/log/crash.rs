//! Power cuts at any moment, with any subset of the sectors in flight.
//!
//! The records of one group are one stream, so what a crash leaves of a group must be the state
//! after *some* call, not before the last one that was reported durable. That one rule covers lost
//! acknowledged entries, votes that go back, holes, and truncations or purges that come apart from
//! what they were queued behind.

use crate::model::ModelGroup;
use crate::support::{ALL, Dice, append, entries, formatted, group, open, same, vote};
use ogee_device::{Device, MemoryControl, Survivors};
use ogee_log::{Completion, Log};
use ogee_proto::id::{CopysetId, LogId, LogIndex};
use ogee_runtime::executor::block_on;
use ogee_runtime::{spawn, yield_now};
use std::cell::Cell;
use std::rc::Rc;

const SEGMENTS: usize = 8;
const GROUPS: usize = 3;
const SEEDS: u64 = 48;
const STEPS: usize = 70;

/// All states that a group went through, and which of them is durable at least.
struct History {
    states: Vec<ModelGroup>,
    durable: Rc<Cell<usize>>,
}

impl History {
    fn new(state: ModelGroup) -> Self {
        Self {
            states: vec![state],
            durable: Rc::default(),
        }
    }

    fn last(&self) -> ModelGroup {
        self.states.last().cloned().expect("never empty")
    }

    /// The state to come, once reported durable.
    fn mark(&self) -> impl Fn() + 'static {
        let (position, durable) = (self.states.len() - 1, Rc::clone(&self.durable));
        move || durable.set(durable.get().max(position))
    }
}

struct Run {
    dice: Dice,
    control: MemoryControl,
    log: Log,
    histories: Vec<History>,
    term: u64,
}

#[test]
fn what_was_reported_durable_survives() {
    for seed in 0..SEEDS {
        block_on(async {
            println!("seed {seed}");
            let (device, control) = formatted(SEGMENTS).await;
            let log = open(&device, SEGMENTS).await;
            let histories = (0..GROUPS)
                .map(|_| History::new(ModelGroup::default()))
                .collect();
            let mut run = Run {
                dice: Dice::new(seed),
                control,
                log,
                histories,
                term: 1,
            };
            for _ in 0..STEPS {
                run.call();
                for _ in 0..run.dice.below(4) {
                    yield_now().await;
                }
                if run.dice.below(6) == 0 {
                    run.crash().await;
                }
            }
        });
    }
}

impl Run {
    fn call(&mut self) {
        let id = usize::try_from(self.dice.below(GROUPS as u64)).expect("small");
        self.term += u64::from(self.dice.below(10) == 0);
        match self.dice.below(12) {
            0..=5 => self.append(id),
            6 => self.change(id, |model, term, _| model.vote = Some(term)),
            7 => {
                let committed = group(&self.log, id_of(id)).state().committed;
                let committed = committed.map_or(0, |committed| committed.index.get());
                self.change(id, |model, _, dice| {
                    let keep = model.next_index().saturating_sub(1 + dice.below(4));
                    model.truncate_after(keep.max(committed));
                });
            }
            8 => {
                let log = group(&self.log, id_of(id));
                log.last()
                    .into_iter()
                    .for_each(|last| log.save_committed(last));
            }
            9 if self.dice.below(4) == 0 => self.change(id, |model, _, _| {
                *model = ModelGroup::default();
            }),
            _ => self.change(id, |model, term, dice| {
                let behind = dice.below(6);
                if let Some(upto) = model.next_index().checked_sub(behind) {
                    model.purge(LogId::new(term, upto));
                }
            }),
        }
    }

    fn append(&mut self, id: usize) {
        let pages: Vec<usize> = (0..1 + self.dice.below(4))
            .map(|_| usize::try_from(self.dice.below(5)).expect("small"))
            .collect();
        if !self.log.has_space(pages.iter().map(|pages| pages * 4096)) {
            return;
        }
        let history = &mut self.histories[id];
        let first = history.last().next_index();
        for pages in pages {
            let mut state = history.last();
            state.append(self.term, pages);
            history.states.push(state);
        }
        let mark = history.mark();
        let mut entries = history.last().entries();
        entries.retain(|entry| entry.id.index.get() >= first);
        group(&self.log, id_of(id)).append(entries, move |result| {
            if result.is_ok() {
                mark();
            }
        });
    }

    /// Applies `change` to the model and the call that means it to the log.
    fn change(&mut self, id: usize, change: impl FnOnce(&mut ModelGroup, u64, &mut Dice)) {
        let before = self.histories[id].last();
        let mut after = before.clone();
        change(&mut after, self.term, &mut self.dice);
        if after == before {
            return;
        }
        let log = group(&self.log, id_of(id));
        let completion = if after == ModelGroup::default() {
            self.log.remove_group(CopysetId::new(id_of(id)))
        } else if after.vote != before.vote {
            log.save_vote(vote(after.vote.expect("a vote is never taken back")))
        } else if after.purged != before.purged {
            log.purge(after.purged.expect("a purge is never taken back"))
        } else {
            log.truncate_after(after.last.map(|last| last.index))
        };
        self.histories[id].states.push(after);
        self.watch(id, completion);
    }

    fn watch(&self, id: usize, completion: Completion) {
        let mark = self.histories[id].mark();
        drop(spawn(async move {
            if completion.await.is_ok() {
                mark();
            }
        }));
    }

    async fn crash(&mut self) {
        let durable: Vec<usize> = self.histories.iter().map(|one| one.durable.get()).collect();
        let survivors = self.survivors();
        let (mut device, mut control) = self.control.crash(survivors);
        for _ in 0..self.dice.below(3) {
            (device, control) = self.crash_in_recovery(&device, &control).await;
        }
        let log = open(&device, SEGMENTS).await;
        let mut found = Vec::new();
        for (id, least) in durable.into_iter().enumerate() {
            found.push(self.find(&log, id, least).await);
        }
        if self.dice.below(2) == 0 {
            self.histories = found.into_iter().map(History::new).collect();
            (self.control, self.log) = (control, log);
        }
    }

    fn survivors(&mut self) -> Survivors {
        match self.dice.below(8) {
            0 => Survivors::None,
            1 => Survivors::All,
            _ => Survivors::Seeded(self.dice.next()),
        }
    }

    /// Power fails again while the log is being opened.
    async fn crash_in_recovery(
        &mut self,
        device: &Device,
        control: &MemoryControl,
    ) -> (Device, MemoryControl) {
        let opened = device.clone();
        let opening = spawn(async move { drop(open(&opened, SEGMENTS).await) });
        for _ in 0..self.dice.below(40) {
            yield_now().await;
        }
        let crashed = control.crash(self.survivors());
        opening.abort();
        crashed
    }

    /// The state of the group's history that the crash left.
    async fn find(&self, log: &Log, id: usize, least: usize) -> ModelGroup {
        let group = group(log, id_of(id));
        let entries = group.entries(ALL, usize::MAX).await.expect("read");
        let mut state = group.state();
        if let (Some(committed), Some(last)) = (state.committed, state.last) {
            assert!(
                committed.index <= last.index,
                "committed {committed} but last {last}"
            );
        }
        state.committed = None;
        let matches = |model: &&ModelGroup| {
            let expected = model.entries();
            model.state() == state
                && expected.len() == entries.len()
                && expected.iter().zip(&entries).all(|(a, b)| same(a, b))
        };
        let states = &self.histories[id].states;
        let found = states[least..].iter().rev().find(matches);
        let all = &states[least..];
        found
            .unwrap_or_else(|| panic!("group {id}: {state:?} is none of {all:#?}"))
            .clone()
    }
}

fn id_of(id: usize) -> u32 {
    u32::try_from(id).expect("small")
}

/// One batch of several pages in flight, cut at every sector.
#[test]
fn a_torn_batch_is_dropped_and_nothing_else() {
    block_on(async {
        let (device, control) = formatted(SEGMENTS).await;
        let log = open(&device, SEGMENTS).await;
        append(&group(&log, 1), entries(1, 0..3, 2))
            .await
            .expect("append");
        group(&log, 1).append(entries(1, 3..4, 3), |_| ());
        group(&log, 2).append(entries(1, 0..1, 0), |_| ());
        while control.unflushed_sectors() == 0 {
            yield_now().await;
        }
        assert_eq!(control.unflushed_sectors(), 4 * 8, "one batch is in flight");
        let seeded = (0..60).map(Survivors::Seeded);
        let survivors = [Survivors::None, Survivors::All].into_iter().chain(seeded);
        // All at the same moment: nothing else runs while they are made.
        let crashes: Vec<_> = survivors
            .map(|survivors| control.crash(survivors).0)
            .collect();
        let mut outcomes = [0, 0];
        for crashed in crashes {
            let log = open(&crashed, SEGMENTS).await;
            let last = group(&log, 1).last().expect("acknowledged").index;
            let whole = last == LogIndex::new(3);
            assert!(whole || last == LogIndex::new(2));
            assert_eq!(
                group(&log, 2).last().is_some(),
                whole,
                "a batch is all or nothing"
            );
            group(&log, 1)
                .entries(ALL, usize::MAX)
                .await
                .expect("verified");
            outcomes[usize::from(whole)] += 1;
            append(
                &group(&log, 1),
                entries(2, last.get() + 1..last.get() + 3, 1),
            )
            .await
            .expect("the log goes on");
        }
        assert!(outcomes[0] > 10 && outcomes[1] > 0, "{outcomes:?}");
    });
}

/// After a torn batch was dropped, its bytes must not come back, however often the log is opened.
#[test]
fn a_dropped_batch_stays_dropped() {
    block_on(async {
        let (device, control) = formatted(SEGMENTS).await;
        let log = open(&device, SEGMENTS).await;
        append(&group(&log, 1), entries(1, 0..3, 1))
            .await
            .expect("append");
        group(&log, 1).append(entries(1, 3..4, 3), |_| ());
        while control.unflushed_sectors() == 0 {
            yield_now().await;
        }
        let (mut device, mut control) = control.crash(Survivors::None);
        for term in 2..30 {
            let log = open(&device, SEGMENTS).await;
            let found = group(&log, 1).last().expect("acknowledged");
            assert_eq!(found, LogId::new(1, 2));
            group(&log, 1).append(entries(term, 3..4, 3), |_| ());
            while control.unflushed_sectors() == 0 {
                yield_now().await;
            }
            (device, control) = control.crash(Survivors::None);
        }
    });
}
