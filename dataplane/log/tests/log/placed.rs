//! Payloads that lie in extents of the store: they are there when their record is, and the extents are
//! somebody else's only when no record names them any more.

use crate::model::ModelGroup;
use crate::support::{ALL, Dice, STORE, assert_entries, entry, same};
use ogee_device::{Device, Failure, FaultPlan, FaultRule, MemoryControl, Operation, Survivors};
use ogee_log::{Completion, Entry, GroupLog, Log, LogError, LogOptions, LogRegion};
use ogee_proto::id::{CopysetId, LogId, LogIndex};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::channel::oneshot;
use ogee_runtime::executor::block_on;
use ogee_runtime::{Buffer, spawn, yield_now};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

const SEGMENT: usize = 512 << 10;
const SEGMENTS: usize = 6;
const EXTENT: u64 = 64 << 10;
/// Few, so that one that is given back too early is soon written to again.
const EXTENTS: u64 = 14;
const GROUPS: usize = 2;
const SEEDS: u64 = 40;
const STEPS: usize = 60;
const PAGES: usize = 16;

fn region() -> LogRegion {
    LogRegion {
        start: ByteOffset::ZERO,
        len: ByteLen::from_usize(SEGMENTS * SEGMENT),
    }
}

fn options() -> LogOptions {
    LogOptions {
        segment_len: ByteLen::from_usize(SEGMENT),
        // Payloads are read from the device.
        cache_len: ByteLen::ZERO,
        ..LogOptions::new(STORE)
    }
}

/// A device of the log, and one of the data, if that is another.
struct Medium {
    log: (Device, MemoryControl),
    data: Option<(Device, MemoryControl)>,
}

impl Medium {
    async fn format(is_apart: bool) -> Self {
        let region = region().len;
        let extents = ByteLen::new(EXTENTS * EXTENT);
        let (log, data) = if is_apart {
            (region, Some(Device::memory_with_control(extents)))
        } else {
            (ByteLen::new(region.get() + extents.get()), None)
        };
        let log = Device::memory_with_control(log);
        Log::format(&log.0, self::region(), options())
            .await
            .expect("format");
        Self { log, data }
    }

    /// Where the extents are.
    fn extents(&self) -> Vec<u64> {
        let first = self.data.as_ref().map_or(region().len.get(), |_| 0);
        (0..EXTENTS).map(|number| first + number * EXTENT).collect()
    }

    fn data(&self) -> &Device {
        self.data.as_ref().map_or(&self.log.0, |data| &data.0)
    }

    async fn open(&self) -> Log {
        let (log, data) = (&self.log.0, self.data());
        let opened = match &self.data {
            Some(_) => Log::open_apart(log, data, region(), options(), &[]).await,
            None => Log::open(log, region(), options()).await,
        };
        opened.expect("open")
    }

    fn crash(&self, log: Survivors, data: Survivors) -> Self {
        Self {
            log: self.log.1.crash(log),
            data: self.data.as_ref().map(|(_, control)| control.crash(data)),
        }
    }
}

/// The store's part: which extents nobody holds.
#[derive(Clone, Default)]
struct Pool(Rc<RefCell<BTreeSet<u64>>>);

impl Pool {
    /// Brings a log that has just been opened together with the store.
    fn attach(log: &Log, medium: &Medium) -> Self {
        let free: BTreeSet<u64> = medium.extents().into_iter().collect();
        let pool = Self(Rc::new(RefCell::new(free)));
        for place in log.placed() {
            let was_free = pool.0.borrow_mut().remove(&place.get());
            assert!(was_free, "{place} is named once, and one of ours");
        }
        let gets = pool.clone();
        log.attach(move |place| {
            let is_new = gets.0.borrow_mut().insert(place.get());
            assert!(is_new, "{place} is given back once");
        });
        pool
    }

    fn take(&self, count: usize, dice: &mut Dice) -> Option<Vec<ByteOffset>> {
        let mut free = self.0.borrow_mut();
        if free.len() < count {
            return None;
        }
        let mut taken = Vec::new();
        for _ in 0..count {
            let at = usize::try_from(dice.below(free.len() as u64)).expect("small");
            let place = *free.iter().nth(at).expect("within");
            free.remove(&place);
            taken.push(ByteOffset::new(place));
        }
        Some(taken)
    }

    fn free(&self) -> usize {
        self.0.borrow().len()
    }
}

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

    fn mark(&self) -> impl Fn() + 'static {
        let (position, durable) = (self.states.len() - 1, Rc::clone(&self.durable));
        move || durable.set(durable.get().max(position))
    }
}

struct Run {
    dice: Dice,
    medium: Medium,
    log: Log,
    pool: Pool,
    histories: Vec<History>,
    term: u64,
}

impl Run {
    async fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let medium = Medium::format(dice.below(2) == 0).await;
        let log = medium.open().await;
        let pool = Pool::attach(&log, &medium);
        let fresh = || History::new(ModelGroup::default());
        Self {
            dice,
            medium,
            log,
            pool,
            histories: (0..GROUPS).map(|_| fresh()).collect(),
            term: 1,
        }
    }

    fn call(&mut self) {
        let id = usize::try_from(self.dice.below(GROUPS as u64)).expect("small");
        self.term += u64::from(self.dice.below(10) == 0);
        match self.dice.below(10) {
            0..=5 => self.append(id),
            6 => self.change(id, |model, dice| {
                let keep = model.next_index().saturating_sub(1 + dice.below(3));
                model.truncate_after(keep);
            }),
            7 if self.dice.below(3) == 0 => {
                self.change(id, |model, _| *model = ModelGroup::default());
            }
            _ => {
                let term = self.term;
                self.change(id, move |model, dice| {
                    if let Some(upto) = model.next_index().checked_sub(dice.below(3)) {
                        model.purge(LogId::new(term, upto));
                    }
                });
            }
        }
    }

    fn append(&mut self, id: usize) {
        let (mut new, mut lens) = (Vec::new(), Vec::new());
        let history = &mut self.histories[id];
        for _ in 0..=self.dice.below(3) {
            let extents = usize::try_from(self.dice.below(3)).expect("small");
            let odd = extents < 2 && self.dice.below(4) == 0;
            let pages = extents * PAGES + usize::from(odd);
            lens.push(pages * 4096);
            if !self.log.has_space(lens.iter().copied()) {
                break;
            }
            let places = match pages.is_multiple_of(PAGES) && extents > 0 {
                true => self.pool.take(extents, &mut self.dice),
                false => None,
            };
            let mut state = history.last();
            let index = state.next_index();
            state.append(self.term, pages);
            history.states.push(state);
            let places = places.unwrap_or_default();
            new.push((entry(self.term, index, pages), places));
        }
        let mark = history.mark();
        let refused = Rc::new(Cell::new(false));
        let told = Rc::clone(&refused);
        self.group(id)
            .append_placed(new, move |result| match result {
                Ok(()) => mark(),
                Err(_) => told.set(true),
            });
        assert!(!refused.get());
    }

    /// Applies `change` to the model and the call that means it to the log.
    fn change(&mut self, id: usize, change: impl FnOnce(&mut ModelGroup, &mut Dice)) {
        let before = self.histories[id].last();
        let mut after = before.clone();
        change(&mut after, &mut self.dice);
        if after == before {
            return;
        }
        let log = self.group(id);
        let completion = if after == ModelGroup::default() {
            self.log.remove_group(log.id())
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
        let (log, data) = (self.survivors(), self.survivors());
        let mut medium = self.medium.crash(log, data);
        for _ in 0..self.dice.below(2) {
            medium = self.crash_in_recovery(medium).await;
        }
        let log = medium.open().await;
        let pool = Pool::attach(&log, &medium);
        let mut found = Vec::new();
        for (id, least) in durable.into_iter().enumerate() {
            found.push(self.find(&log.group(id_of(id)), id, least).await);
        }
        if self.dice.below(2) == 0 {
            self.histories = found.into_iter().map(History::new).collect();
            (self.medium, self.log, self.pool) = (medium, log, pool);
        }
    }

    fn survivors(&mut self) -> Survivors {
        match self.dice.below(8) {
            0 => Survivors::None,
            1..=3 => Survivors::All,
            _ => Survivors::Seeded(self.dice.next()),
        }
    }

    /// Power fails again while the log is being opened.
    async fn crash_in_recovery(&mut self, medium: Medium) -> Medium {
        let medium = Rc::new(medium);
        let opened = Rc::clone(&medium);
        let opening = spawn(async move { drop(opened.open().await) });
        for _ in 0..self.dice.below(60) {
            yield_now().await;
        }
        let crashed = medium.crash(self.survivors(), self.survivors());
        opening.abort();
        crashed
    }

    /// The state of the group's history that the crash left, with every payload.
    async fn find(&self, log: &GroupLog, id: usize, least: usize) -> ModelGroup {
        assert_eq!(log.damage(), None);
        let entries = log.entries(ALL, usize::MAX).await.expect("read");
        let state = log.state();
        let matches = |model: &&ModelGroup| {
            let expected = model.entries();
            model.state() == state
                && expected.len() == entries.len()
                && expected.iter().zip(&entries).all(|(a, b)| same(a, b))
        };
        let states = &self.histories[id].states[least..];
        let found = states.iter().rev().find(matches);
        found
            .unwrap_or_else(|| panic!("group {id}: {state:?} is none of {states:#?}"))
            .clone()
    }

    /// When nothing is live, nothing is held.
    async fn end(self) {
        for id in 0..GROUPS {
            let removed = self.log.remove_group(id_of(id));
            removed.await.expect("remove");
        }
        assert_eq!(self.pool.free() as u64, EXTENTS);
        assert_eq!(self.log.usage().placed, ByteLen::ZERO);
    }

    fn group(&self, id: usize) -> GroupLog {
        self.log.group(id_of(id))
    }
}

fn id_of(id: usize) -> CopysetId {
    CopysetId::new(u32::try_from(id).expect("small"))
}

#[test]
fn what_was_reported_durable_survives_wherever_it_lies() {
    for seed in 0..SEEDS {
        block_on(async {
            println!("seed {seed}");
            let mut run = Run::new(seed).await;
            for _ in 0..STEPS {
                run.call();
                for _ in 0..run.dice.below(4) {
                    yield_now().await;
                }
                if run.dice.below(6) == 0 {
                    run.crash().await;
                }
            }
            run.end().await;
        });
    }
}

/// A log with its data apart, its pool, and one group.
async fn lone() -> (Medium, Log, Pool, GroupLog) {
    let medium = Medium::format(true).await;
    let log = medium.open().await;
    let pool = Pool::attach(&log, &medium);
    let group = log.group(CopysetId::new(1));
    (medium, log, pool, group)
}

/// Appends an entry that fills extents, and waits until it is durable.
async fn place(group: &GroupLog, pool: &Pool, entry: &Entry) -> Result<(), LogError> {
    let count = entry.payload.len() / 65536;
    let places = pool.take(count, &mut Dice::new(5)).expect("room");
    let (done, durable) = oneshot::channel();
    group.append_placed(vec![(entry.clone(), places)], move |result| {
        let _receiver_may_be_gone = done.send(result);
    });
    durable.await.expect("the callback is called")
}

/// Record and payload are written at once; a crash may leave any part of either.
#[test]
fn a_record_whose_payload_is_torn_is_a_torn_tail() {
    block_on(async {
        let (medium, _log, pool, group) = lone().await;
        let first = entry(1, 0, PAGES);
        place(&group, &pool, &first).await.expect("append");
        let second = entry(1, 1, 2 * PAGES);
        let places = pool.take(2, &mut Dice::new(1)).expect("room");
        group.append_placed(vec![(second.clone(), places)], |_| ());
        let data = &medium.data.as_ref().expect("apart").1;
        while medium.log.1.unflushed_sectors() == 0 || data.unflushed_sectors() == 0 {
            yield_now().await;
        }
        let seeded = (0..20).map(Survivors::Seeded);
        let ways: Vec<_> = [Survivors::None, Survivors::All]
            .into_iter()
            .chain(seeded)
            .collect();
        let crash = |(log, data): (Survivors, Survivors)| (log, data, medium.crash(log, data));
        let pairs = ways
            .iter()
            .flat_map(|log| ways.iter().map(|data| (*log, *data)));
        // All at the same moment: nothing else runs while they are made.
        let crashes: Vec<_> = pairs.map(crash).collect();
        for (log, data, crashed) in crashes {
            let opened = crashed.open().await;
            let group = opened.group(CopysetId::new(1));
            let found = group.entries(ALL, usize::MAX).await.expect("verified");
            let is_whole = found.len() == 2;
            assert_entries(&found, &[first.clone(), second.clone()][..found.len()]);
            match (log, data) {
                (Survivors::All, Survivors::All) => assert!(is_whole),
                (Survivors::None, _) | (_, Survivors::None) => assert!(!is_whole),
                _ => {}
            }
            // The torn one's extents are free, and the log goes on with them.
            let pool = Pool::attach(&opened, &crashed);
            let held = if is_whole { 3 } else { 1 };
            assert_eq!(pool.free() as u64, EXTENTS - held);
            let next = entry(2, found.len() as u64, PAGES);
            place(&group, &pool, &next).await.expect("the log goes on");
        }
    });
}

/// The process died, the power did not fail: the last payload may only be in the device's cache.
#[test]
fn what_an_open_builds_on_is_durable() {
    block_on(async {
        let (medium, _log, pool, group) = lone().await;
        let first = entry(1, 0, PAGES);
        let place = pool.take(1, &mut Dice::new(1)).expect("room")[0];
        group.append_placed(vec![(first.clone(), vec![place])], |_| ());
        while medium.log.1.unflushed_sectors() == 0 {
            yield_now().await;
        }
        let medium = medium.crash(Survivors::All, Survivors::None);
        let data = Buffer::copy_from(&first.payload);
        medium.data().write(place, data).await.expect("write");
        let log = medium.open().await;
        assert_eq!(log.placed(), [place]);
        log.close().await.expect("close");
        let medium = medium.crash(Survivors::None, Survivors::None);
        let log = medium.open().await;
        let found = log.group(CopysetId::new(1)).entries(ALL, usize::MAX).await;
        assert_entries(&found.expect("read"), &[first]);
    });
}

/// Proven durable by a later batch, a payload that does not match is damage, not a torn tail.
#[test]
fn a_rotten_payload_is_found_block_by_block_and_put_back() {
    block_on(async {
        let (medium, log, pool, group) = lone().await;
        let entries = [entry(1, 0, 2 * PAGES), entry(1, 1, 0)];
        place(&group, &pool, &entries[0]).await.expect("append");
        group.append(vec![entries[1].clone()], |_| ());
        log.close().await.expect("close");
        let second = group.placed(LogIndex::new(0)).expect("placed").places()[1];
        let garbage = Buffer::zeroed(4096);
        medium
            .data()
            .write_durable(second, garbage)
            .await
            .expect("write");
        let log = medium.open().await;
        let pool = Pool::attach(&log, &medium);
        let group = log.group(CopysetId::new(1));
        let index = LogIndex::new(0);
        let read = medium.data().counters().read_bytes;
        let part = group.payload(index, 4096..8192).await.expect("sound");
        assert!(part[..] == entries[0].payload[4096..8192]);
        assert_eq!(medium.data().counters().read_bytes - read, 4096);
        let bad = group.payload(index, 65536..65537).await;
        assert!(matches!(bad, Err(LogError::Corrupt { .. })), "{bad:?}");
        assert!(group.damage().is_some() && group.placed(index).is_none());
        assert_eq!(pool.free() as u64, EXTENTS - 2);
        group.repair(&entries[0], 0).await.expect("put back");
        assert_eq!(pool.free() as u64, EXTENTS, "it lies in the log now");
        let found = group.entries(ALL, usize::MAX).await.expect("read");
        assert_entries(&found, &entries);
        drop((group, log));
        let log = medium.open().await;
        let found = log.group(CopysetId::new(1)).entries(ALL, usize::MAX).await;
        assert_entries(&found.expect("read"), &entries);
        assert!(log.placed().is_empty());
    });
}

#[test]
fn a_record_that_is_copied_forward_leaves_its_payload_where_it_is() {
    block_on(async {
        let (medium, log, pool, group) = lone().await;
        let kept = entry(1, 0, 2 * PAGES);
        place(&group, &pool, &kept).await.expect("append");
        let places = log.placed();
        let written = medium.data().counters().written_bytes;
        let other = log.group(CopysetId::new(2));
        for index in 0..200 {
            let (done, durable) = oneshot::channel();
            other.append(vec![entry(1, index, 7)], move |result| {
                let _receiver_may_be_gone = done.send(result);
            });
            durable.await.expect("called").expect("append");
            other.purge(LogId::new(1, index)).await.expect("purge");
        }
        assert!(log.counters().entries_moved > 0);
        assert_eq!(medium.data().counters().written_bytes, written);
        log.close().await.expect("close");
        let log = medium.open().await;
        assert_eq!(log.placed(), places);
        assert_eq!(log.usage().placed, ByteLen::new(2 * EXTENT));
        let found = log.group(CopysetId::new(1)).entries(ALL, usize::MAX).await;
        assert_entries(&found.expect("read"), &[kept]);
    });
}

/// What a reader holds is not given away under it.
#[test]
fn extents_are_given_back_when_their_end_is_durable_and_nobody_reads() {
    block_on(async {
        let (_medium, log, pool, group) = lone().await;
        for index in 0..3 {
            let entry = entry(1, index, PAGES);
            place(&group, &pool, &entry).await.expect("append");
        }
        let held = group.placed(LogIndex::new(0)).expect("placed");
        let truncated = group.truncate_after(Some(LogIndex::new(1)));
        assert_eq!(pool.free() as u64, EXTENTS - 3, "not durable yet");
        truncated.await.expect("truncate");
        assert_eq!(pool.free() as u64, EXTENTS - 2);
        group.purge(LogId::new(1, 0)).await.expect("purge");
        assert_eq!(pool.free() as u64, EXTENTS - 2, "somebody reads it");
        drop(held);
        assert_eq!(pool.free() as u64, EXTENTS - 1);
        // A refused entry holds nothing either.
        let places = pool.take(1, &mut Dice::new(1)).expect("room");
        let gap = entry(1, 9, PAGES);
        let refused = Rc::new(Cell::new(false));
        let told = Rc::clone(&refused);
        group.append_placed(vec![(gap, places)], move |result| told.set(result.is_err()));
        assert!(refused.get());
        assert_eq!(pool.free() as u64, EXTENTS - 1);
        log.close().await.expect("close");
    });
}

/// It is not known what the medium says then.
#[test]
fn a_log_that_could_not_write_a_payload_stops_and_gives_nothing_back() {
    block_on(async {
        let medium = Medium::format(true).await;
        let (data, faults) = Device::fault(medium.data().clone(), FaultPlan::new());
        let log = Log::open_apart(&medium.log.0, &data, region(), options(), &[]).await;
        let log = log.expect("open");
        let pool = Pool::attach(&log, &medium);
        let group = log.group(CopysetId::new(1));
        let first = entry(1, 0, PAGES);
        place(&group, &pool, &first).await.expect("append");
        faults.add(FaultRule::fail(Operation::WriteDurable, Failure::Eio));
        let second = entry(1, 1, PAGES);
        let failed = place(&group, &pool, &second).await;
        assert!(matches!(failed, Err(LogError::Failed { .. })), "{failed:?}");
        assert!(log.failure().is_some());
        drop((group, log));
        yield_now().await;
        assert_eq!(pool.free() as u64, EXTENTS - 2);
        let log = medium.open().await;
        let found = log.group(CopysetId::new(1)).entries(ALL, usize::MAX).await;
        assert_entries(&found.expect("read"), &[first]);
    });
}
