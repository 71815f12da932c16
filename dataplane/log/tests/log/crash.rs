//! Power cuts at any moment, with any subset of the sectors in flight.
//!
//! The records of one group are one stream, so what a crash leaves of a group must be the state
//! after *some* call, not before the last one that was reported durable. That one rule covers lost
//! acknowledged entries, votes that go back, holes, and truncations or purges that come apart from
//! what they were queued behind.

use crate::model::ModelGroup;
use crate::support::{
    ALL, Dice, PAGE, SEGMENT, append, entries, entry, formatted, group, open, options, pages_with,
    region, same, vote,
};
use ogee_device::{Device, MemoryControl, Survivors};
use ogee_log::format::BATCH_MAGIC;
use ogee_log::{Completion, Log, LogError};
use ogee_proto::checksum::crc32c;
use ogee_proto::id::{CopysetId, LogId, LogIndex};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::executor::block_on;
use ogee_runtime::{Buffer, spawn, yield_now};
use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

pub(crate) const SEGMENTS: usize = 8;
const GROUPS: usize = 3;
/// Seeds tried; `OGEE_LOG_CRASH_SEEDS` asks for more, from `OGEE_LOG_CRASH_FIRST` on.
const SEEDS: u64 = 48;
const STEPS: usize = 70;

/// All states that a group went through, and which of them is durable at least.
pub(crate) struct History {
    states: Vec<ModelGroup>,
    durable: Rc<Cell<usize>>,
}

impl History {
    pub(crate) fn new(state: ModelGroup) -> Self {
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

pub(crate) struct Run {
    pub dice: Dice,
    pub control: MemoryControl,
    pub log: Log,
    histories: Vec<History>,
    term: u64,
}

#[test]
fn what_was_reported_durable_survives() {
    let asked = |name| {
        std::env::var(name)
            .ok()
            .and_then(|number| number.parse().ok())
    };
    let first = asked("OGEE_LOG_CRASH_FIRST").unwrap_or(0);
    let count = asked("OGEE_LOG_CRASH_SEEDS").unwrap_or(SEEDS);
    for seed in first..first + count {
        block_on(async {
            println!("seed {seed}");
            let (device, control) = formatted(SEGMENTS).await;
            let log = open(&device, SEGMENTS).await;
            let mut run = Run::new(seed, control, log);
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
    pub(crate) fn new(seed: u64, control: MemoryControl, log: Log) -> Self {
        let histories = (0..GROUPS).map(|_| History::new(ModelGroup::default()));
        Self {
            dice: Dice::new(seed),
            control,
            log,
            histories: histories.collect(),
            term: 1,
        }
    }

    /// For each group, the states that a crash at this moment may leave: the one that was reported
    /// durable, or a later one.
    pub(crate) fn allowed(&self) -> Vec<Range<usize>> {
        let of = |one: &History| one.durable.get()..one.states.len();
        self.histories.iter().map(of).collect()
    }

    pub(crate) fn call(&mut self) {
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
        let allowed = self.allowed();
        let survivors = self.survivors();
        let (mut device, mut control) = self.control.crash(survivors);
        for _ in 0..self.dice.below(3) {
            (device, control) = self.crash_in_recovery(&device, &control).await;
        }
        let log = open(&device, SEGMENTS).await;
        let mut found = Vec::new();
        for (id, allowed) in allowed.into_iter().enumerate() {
            found.push(self.find(&log, id, allowed).await);
        }
        if self.dice.below(2) == 0 {
            self.histories = found.into_iter().map(History::new).collect();
            (self.control, self.log) = (control, log);
        }
    }

    pub(crate) fn survivors(&mut self) -> Survivors {
        match self.dice.below(8) {
            0 => Survivors::None,
            1 => Survivors::All,
            _ => Survivors::Seeded(self.dice.next()),
        }
    }

    /// Power fails again while the log is being opened.
    pub(crate) async fn crash_in_recovery(
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
    pub(crate) async fn find(&self, log: &Log, id: usize, allowed: Range<usize>) -> ModelGroup {
        let group = group(log, id_of(id));
        assert_eq!(group.damage(), None, "group {id}: a crash is no damage");
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
        let all = &states[allowed];
        let found = all.iter().rev().find(matches);
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

/// A torn batch may have a whole header area. The next segment tells where this one ends, but it
/// may be gone long before this one is: the batch must not come back then, with its purge.
#[test]
fn a_torn_batch_does_not_come_back_when_the_next_segment_is_gone() {
    block_on(async {
        let (device, control) = formatted(SEGMENTS).await;
        let log = open(&device, SEGMENTS).await;
        append(&group(&log, 7), entries(1, 0..1, 1))
            .await
            .expect("stays");
        append(&group(&log, 1), entries(1, 0..2, 1))
            .await
            .expect("stays");
        group(&log, 1).append(entries(1, 2..3, 3), |_| ());
        drop(group(&log, 1).purge(LogId::new(1, 1)));
        while control.unflushed_sectors() == 0 {
            yield_now().await;
        }
        let crashes: Vec<_> = (0..200)
            .map(|seed| control.crash(Survivors::Seeded(seed)).0)
            .collect();
        let mut torn = 0;
        for device in crashes {
            if newest_batch_is_torn_in_its_payload(&device).await {
                torn += 1;
                wrap_over_the_next_segment(&device).await;
            }
        }
        assert!(torn > 2, "{torn} of the crashes left a whole header area");
    });
}

/// Formatting is begun again only where no log is found, so what a cut leaves of it must not pass for a
/// log that lost something.
#[test]
fn formatting_that_is_cut_short_leaves_no_log_or_an_empty_one() {
    block_on(async {
        let (mut absent, mut empty, mut pauses) = (0, 0, 0);
        while let Some(crashes) = cut_formatting(pauses).await {
            pauses += 1;
            for device in crashes {
                match Log::open(&device, region(SEGMENTS), options()).await {
                    Ok(log) => {
                        assert!(log.groups().is_empty());
                        empty += 1;
                    }
                    Err(LogError::NotFormatted { .. }) => absent += 1,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        assert!(absent > 0 && empty > 0, "{absent} absent, {empty} empty");
    });
}

/// What a power cut may leave of a region that is being formatted, so many pauses after it began; `None`
/// if it is formatted by then.
async fn cut_formatting(pauses: usize) -> Option<Vec<Device>> {
    let len = ByteLen::from_usize(SEGMENT * (SEGMENTS + 1));
    let (device, control) = Device::memory_with_control(len);
    // Not a region of zeros.
    let mut noise = Buffer::zeroed(len.as_usize());
    noise.fill(0xa5);
    let written = device.write_durable(ByteOffset::ZERO, noise).await;
    written.expect("write");
    let is_formatted = Rc::new(Cell::new(false));
    let done = Rc::clone(&is_formatted);
    let formatting = spawn(async move {
        let formatted = Log::format(&device, region(SEGMENTS), options()).await;
        formatted.expect("format");
        done.set(true);
    });
    for _ in 0..pauses {
        yield_now().await;
    }
    let crashes = (0..8).map(|seed| control.crash(Survivors::Seeded(seed)).0);
    let crashes = (!is_formatted.get()).then(|| crashes.collect());
    formatting.abort();
    crashes
}

async fn newest_batch_is_torn_in_its_payload(device: &Device) -> bool {
    let batches = pages_with(device, BATCH_MAGIC).await;
    let at = batches.last().expect("there are batches") / PAGE as u64;
    let image = device
        .read(ByteOffset::ZERO, device.len())
        .await
        .expect("read");
    let page = |number: u64| {
        let at = usize::try_from(number).expect("small") * PAGE;
        &image[at..at + PAGE]
    };
    let expected = entry(1, 2, 3).payload;
    // One batch ended the segment of formatting, then came two, then the one in flight.
    batches.len() == 4
        && crc_matches(page(at))
        && (0..3).any(|number| page(at + 1 + number) != &expected[..][page_range(number)])
}

fn page_range(number: u64) -> Range<usize> {
    let start = usize::try_from(number).expect("small") * PAGE;
    start..start + PAGE
}

/// Whether a header area of one page is whole.
fn crc_matches(page: &[u8]) -> bool {
    let mut bare = page.to_vec();
    bare[12..16].fill(0);
    page[12..16] == crc32c(&bare).to_le_bytes()
}

async fn wrap_over_the_next_segment(device: &Device) {
    let mut log = open(device, SEGMENTS).await;
    for round in 0..3 {
        for index in 0..4 * SEGMENTS as u64 {
            let index = round * 100 + index;
            append(&group(&log, 2), entries(1, index..index + 1, 4))
                .await
                .expect("append");
            let purged = index + if index % 100 == 31 { 68 } else { 0 };
            group(&log, 2)
                .purge(LogId::new(1, purged))
                .await
                .expect("purge");
        }
        log.close().await.expect("close");
        log = open(device, SEGMENTS).await;
        let found = group(&log, 1).entries(ALL, usize::MAX).await.expect("read");
        assert_eq!(
            found.len(),
            2,
            "neither the entry nor the purge of the torn batch"
        );
        assert_eq!(group(&log, 7).last(), Some(LogId::new(1, 0)));
    }
}
